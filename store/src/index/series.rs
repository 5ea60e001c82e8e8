//! The series of a study.

use std::collections::HashMap;

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use serde::Serialize;

use crate::dicom::{Phi, SeriesInstanceUid};
use crate::facts::Facts;

use super::db::Db;
use super::instance::{self, InstanceRow};
use super::parsed;

/// A series with its instances.
#[derive(Clone, Debug, Serialize)]
pub struct SeriesDetail {
    /// Series Instance UID.
    pub series_instance_uid: SeriesInstanceUid,
    /// Modality.
    pub modality: Option<String>,
    /// Series Number.
    pub number: Option<i64>,
    /// Series Description.
    pub description: Phi<Option<String>>,
    /// Body Part Examined.
    pub body_part: Option<String>,
    /// Every version of every instance, those in quarantine too, by Instance Number.
    pub instances: Vec<InstanceRow>,
}

/// Row ids, by study and UID, of the series that one batch has touched.
pub(super) type SeriesIds = HashMap<(i64, SeriesInstanceUid), i64>;

/// The row of the series that an instance says it belongs to. What the first instance says of it stands; one that goes to
/// quarantine says nothing.
pub(super) async fn find_or_add(
    db: &mut Db,
    ids: &mut SeriesIds,
    study: i64,
    facts: &Facts,
    trusted: bool,
) -> sqlx::Result<i64> {
    let key = (study, facts.series.clone());
    if let Some(id) = ids.get(&key) {
        return Ok(*id);
    }
    // A row that only quarantined instances have named so far is still blank; the first trusted one fills it.
    let found = db
        .query("SELECT id, modality FROM series WHERE study = $1 AND uid = $2")
        .bind(study)
        .bind(facts.series.as_str())
        .fetch_optional(&mut *db)
        .await?;
    let text = |tag: Tag| if trusted { facts.attributes.text(tag) } else { None };
    let number = if trusted { facts.attributes.integer(tags::SERIES_NUMBER) } else { None };
    let id = match found {
        Some(row) => {
            let id: i64 = row.try_get("id")?;
            if trusted && row.try_get::<Option<&str>>("modality")?.is_none() {
                db.query(
                    "UPDATE series SET modality = $2, number = COALESCE(number, $3), \
                     description = COALESCE(description, $4), body_part = COALESCE(body_part, $5), \
                     series_date = COALESCE(series_date, $6), series_time = COALESCE(series_time, $7), \
                     protocol = COALESCE(protocol, $8), laterality = COALESCE(laterality, $9), \
                     station = COALESCE(station, $10) WHERE id = $1",
                )
                .bind(id)
                .bind(text(tags::MODALITY))
                .bind(number)
                .bind(text(tags::SERIES_DESCRIPTION))
                .bind(text(tags::BODY_PART_EXAMINED))
                .bind(text(tags::SERIES_DATE))
                .bind(text(tags::SERIES_TIME))
                .bind(text(tags::PROTOCOL_NAME))
                .bind(text(tags::LATERALITY))
                .bind(text(tags::STATION_NAME))
                .execute(&mut *db)
                .await?;
            }
            id
        }
        None => {
            db.query(
                "INSERT INTO series (study, uid, modality, number, description, body_part, series_date, series_time, \
                 protocol, laterality, station) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) RETURNING id",
            )
            .bind(study)
            .bind(facts.series.as_str())
            .bind(text(tags::MODALITY))
            .bind(number)
            .bind(text(tags::SERIES_DESCRIPTION))
            .bind(text(tags::BODY_PART_EXAMINED))
            .bind(text(tags::SERIES_DATE))
            .bind(text(tags::SERIES_TIME))
            .bind(text(tags::PROTOCOL_NAME))
            .bind(text(tags::LATERALITY))
            .bind(text(tags::STATION_NAME))
            .scalar(&mut *db)
            .await?
        }
    };
    if trusted {
        ids.insert(key, id);
    }
    Ok(id)
}

/// The series of a study, by Series Number, each with its instances.
pub(super) async fn of_study(db: &mut Db, study: i64) -> sqlx::Result<Vec<SeriesDetail>> {
    let rows = db.query(
        "SELECT id, uid, modality, number, description, body_part FROM series WHERE study = $1 ORDER BY number NULLS FIRST, id",
    )
    .bind(study)
    .fetch_all(&mut *db)
    .await?;
    let mut instances = instance::of_study(db, study).await?;
    rows.iter()
        .map(|row| {
            Ok(SeriesDetail {
                series_instance_uid: parsed(row, "uid")?,
                modality: row.try_get("modality")?,
                number: row.try_get("number")?,
                description: Phi::new(row.try_get("description")?),
                body_part: row.try_get("body_part")?,
                instances: instances.remove(&row.try_get::<i64>("id")?).unwrap_or_default(),
            })
        })
        .collect()
}
