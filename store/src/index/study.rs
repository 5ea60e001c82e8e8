//! Studies, with what their first instances say of the patient.

use std::collections::HashMap;

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use jiff::Timestamp;
use serde::Serialize;

use crate::dicom::{Attributes, Phi, StudyInstanceUid};

use super::completeness::{self, Completeness, CountedSeries};
use super::db::{self, Db, Row};
use super::findable::Folded;
use super::retention::{self, StudyEvent};
use super::series::{self, SeriesDetail};
use super::transfer::{self, Decision, TransferSummary};
use super::{flag, moment, parsed, patient, unsigned};

/// What lists show of a study.
#[derive(Clone, Debug, Serialize)]
pub struct StudySummary {
    /// Study Instance UID.
    pub study_instance_uid: StudyInstanceUid,
    /// Patient's Name in DICOM's form, with carets.
    pub patient_name: Phi<Option<String>>,
    /// Patient ID.
    pub patient_id: Phi<Option<String>>,
    /// Issuer of Patient ID.
    pub issuer: Phi<Option<String>>,
    /// Patient's Birth Date, YYYYMMDD.
    pub birth_date: Phi<Option<String>>,
    /// Patient's Sex.
    pub sex: Phi<Option<String>>,
    /// Study Date, YYYYMMDD.
    pub study_date: Option<String>,
    /// Study Time.
    pub study_time: Option<String>,
    /// Accession Number.
    pub accession_number: Phi<Option<String>>,
    /// Study Description.
    pub description: Phi<Option<String>>,
    /// The modalities of its series, each once.
    pub modalities: Vec<String>,
    /// Series that have an instance outside quarantine.
    pub series_count: u64,
    /// SOP instances outside quarantine, each once, however many versions there are.
    pub instance_count: u64,
    /// Whether instances of it disagree about the patient; what came first is shown.
    pub patient_conflict: bool,
    /// Whether all of it is here, by what its source said.
    pub completeness: Completeness,
    /// Who holds it: nobody and no rule removes its images.
    pub held: Option<Decision>,
    /// Who decided that its images go, if none came back since.
    pub removed: Option<Decision>,
    /// When the first instance came.
    pub first_received_at: Option<Timestamp>,
    /// When the latest instance came.
    pub last_received_at: Option<Timestamp>,
}

/// A study with all that belongs to it.
#[derive(Clone, Debug, Serialize)]
pub struct StudyDetail {
    /// The study.
    pub study: StudySummary,
    /// Its series and their instances.
    pub series: Vec<SeriesDetail>,
    /// The series that its source listed, those that are short first.
    pub counted: Vec<CountedSeries>,
    /// Where it went or goes.
    pub transfers: Vec<TransferSummary>,
    /// What was decided about keeping it, oldest first.
    pub events: Vec<StudyEvent>,
}

/// Which studies are wanted; what is `None` does not matter.
#[derive(Clone, Debug)]
pub struct StudyFilter {
    /// Exactly this Patient ID.
    pub patient_id: Option<Phi<String>>,
    /// Exactly this Accession Number.
    pub accession_number: Option<Phi<String>>,
    /// Exactly this Study Instance UID.
    pub study_instance_uid: Option<StudyInstanceUid>,
    /// At most this many.
    pub limit: u32,
}

impl Default for StudyFilter {
    fn default() -> Self {
        Self { patient_id: None, accession_number: None, study_instance_uid: None, limit: 100 }
    }
}

/// What a study's row says, in the order of [`COLUMNS`]; `None` where nobody has said it yet.
type Said = [Option<String>; COLUMNS.len()];

/// Columns that are filled from attributes: the first value that comes stands, and a later one only fills a blank. The
/// first five are about the patient, so another value is a conflict.
const COLUMNS: [(&str, Tag); 11] = [
    ("patient_id", tags::PATIENT_ID),
    ("issuer", tags::ISSUER_OF_PATIENT_ID),
    ("patient_name", tags::PATIENT_NAME),
    ("birth_date", tags::PATIENT_BIRTH_DATE),
    ("sex", tags::PATIENT_SEX),
    ("study_date", tags::STUDY_DATE),
    ("study_time", tags::STUDY_TIME),
    ("accession_number", tags::ACCESSION_NUMBER),
    ("study_id", tags::STUDY_ID),
    ("description", tags::STUDY_DESCRIPTION),
    ("referring", tags::REFERRING_PHYSICIAN_NAME),
];
const ABOUT_THE_PATIENT: usize = 5;

/// The studies that one batch touches: read once, written once.
#[derive(Default)]
pub(super) struct Studies(HashMap<StudyInstanceUid, Entry>);

struct Entry {
    id: i64,
    said: Said,
    conflict: bool,
    changed: bool,
    received: Option<(i64, i64)>,
}

impl Studies {
    /// The row of a study, made if there is none.
    pub(super) async fn find_or_add(
        &mut self,
        db: &mut Db,
        uid: &StudyInstanceUid,
    ) -> sqlx::Result<i64> {
        if let Some(entry) = self.0.get(uid) {
            return Ok(entry.id);
        }
        let found = db.query(
            "SELECT s.*, p.patient_id, p.issuer FROM study s LEFT JOIN patient p ON p.id = s.patient WHERE s.uid = $1",
        )
        .bind(uid.as_str())
        .fetch_optional(&mut *db)
        .await?;
        let (id, said, conflict) = if let Some(row) = found {
            let mut said = Said::default();
            for (value, (column, _)) in said.iter_mut().zip(COLUMNS) {
                *value = text(&row, column)?;
            }
            (row.try_get("id")?, said, flag(&row, "patient_conflict")?)
        } else {
            let id = db
                .query("INSERT INTO study (uid, findable) VALUES ($1, 1) RETURNING id")
                .bind(uid.as_str())
                .scalar(db)
                .await?;
            (id, Said::default(), false)
        };
        self.0.insert(uid.clone(), Entry { id, said, conflict, changed: false, received: None });
        Ok(id)
    }

    /// Takes note of an instance that is not in quarantine.
    pub(super) fn received(
        &mut self,
        uid: &StudyInstanceUid,
        attributes: &Attributes,
        at: Timestamp,
    ) {
        let Some(entry) = self.0.get_mut(uid) else { return };
        for (index, (said, (_, tag))) in entry.said.iter_mut().zip(COLUMNS).enumerate() {
            match (&said, attributes.text(tag)) {
                (_, None) => {}
                (None, value) => {
                    *said = value;
                    entry.changed = true;
                }
                (Some(said), Some(value)) => {
                    entry.conflict |= index < ABOUT_THE_PATIENT && *said != value;
                }
            }
        }
        let at = at.as_millisecond();
        let (first, last) = entry.received.unwrap_or((at, at));
        entry.received = Some((first.min(at), last.max(at)));
    }

    /// Writes what changed.
    pub(super) async fn write(self, db: &mut Db) -> sqlx::Result<()> {
        for entry in self.0.into_values() {
            let Some((first, last)) = entry.received else { continue };
            db.query(
                "UPDATE study SET patient_conflict = $2, \
                 first_received_at = CASE WHEN first_received_at < $3 THEN first_received_at ELSE $3 END, \
                 last_received_at = CASE WHEN last_received_at > $4 THEN last_received_at ELSE $4 END WHERE id = $1",
            )
            .bind(entry.id)
            .bind(i64::from(entry.conflict))
            .bind(first)
            .bind(last)
            .execute(&mut *db)
            .await?;
            if !entry.changed {
                continue;
            }
            let [
                patient_id,
                issuer,
                name,
                birth_date,
                sex,
                date,
                time,
                accession,
                study_id,
                description,
                referring,
            ] = entry.said;
            let patient = match patient_id {
                Some(patient_id) => Some(
                    patient::find_or_add(
                        &mut *db,
                        issuer.as_deref().unwrap_or_default(),
                        &patient_id,
                    )
                    .await?,
                ),
                None => None,
            };
            let folded = Folded::of(name.as_deref(), referring.as_deref(), date.as_deref());
            let query = db.query(
                "UPDATE study SET patient = $2, patient_name = $3, birth_date = $4, sex = $5, study_date = $6, \
                 study_time = $7, accession_number = $8, study_id = $9, description = $10, referring = $11, \
                 name_folded = $12, name_ideographic = $13, name_phonetic = $14, referring_folded = $15, \
                 study_day = $16, findable = 1 WHERE id = $1",
            )
            .bind(entry.id)
            .bind(patient)
            .bind(name)
            .bind(birth_date)
            .bind(sex)
            .bind(date)
            .bind(time)
            .bind(accession)
            .bind(study_id)
            .bind(description)
            .bind(referring);
            folded.bind(query).execute(&mut *db).await?;
        }
        Ok(())
    }
}

/// The studies that a filter lets through, the one that received something last first.
pub(super) async fn list(db: &mut Db, filter: &StudyFilter) -> sqlx::Result<Vec<StudySummary>> {
    let mut query = db.query(
        "SELECT s.id FROM study s LEFT JOIN patient p ON p.id = s.patient WHERE s.last_received_at IS NOT NULL",
    );
    if let Some(patient_id) = &filter.patient_id {
        query.push(" AND p.patient_id = ").push_bind(patient_id.reveal());
    }
    if let Some(accession_number) = &filter.accession_number {
        query.push(" AND s.accession_number = ").push_bind(accession_number.reveal());
    }
    if let Some(uid) = &filter.study_instance_uid {
        query.push(" AND s.uid = ").push_bind(uid.as_str());
    }
    query
        .push(" ORDER BY s.last_received_at DESC, s.id DESC LIMIT ")
        .push_bind(i64::from(filter.limit));
    let ids: Vec<i64> = query.scalars(&mut *db).await?;
    let mut summaries = summaries(db, &ids).await?;
    Ok(ids.iter().filter_map(|id| summaries.remove(id)).collect())
}

/// One study, also one of which everything is in quarantine.
pub(super) async fn detail(
    db: &mut Db,
    uid: &StudyInstanceUid,
) -> sqlx::Result<Option<StudyDetail>> {
    let id: Option<i64> = db
        .query("SELECT id FROM study WHERE uid = $1")
        .bind(uid.as_str())
        .optional_scalar(&mut *db)
        .await?;
    let Some(id) = id else { return Ok(None) };
    let Some(study) = summaries(&mut *db, &[id]).await?.remove(&id) else { return Ok(None) };
    let series = series::of_study(&mut *db, id).await?;
    let counted = completeness::series(&mut *db, id).await?;
    let transfers = transfer::of_study(&mut *db, id).await?;
    let events = retention::events(db, id).await?;
    Ok(Some(StudyDetail { study, series, counted, transfers, events }))
}

/// Summaries by row id.
pub(super) async fn summaries(
    db: &mut Db,
    ids: &[i64],
) -> sqlx::Result<HashMap<i64, StudySummary>> {
    let mut summaries = HashMap::with_capacity(ids.len());
    for ids in ids.chunks(db::MOST) {
        let mut query = db.query(
            "SELECT s.*, p.patient_id, p.issuer FROM study s LEFT JOIN patient p ON p.id = s.patient WHERE s.id ",
        );
        query.push_in(ids.iter().copied());
        for row in query.fetch_all(&mut *db).await? {
            summaries.insert(row.try_get("id")?, read(&row)?);
        }
        // Version 1 is never in quarantine and there once for each SOP instance, so it is what is counted.
        let mut query = db.query(
            "SELECT s.study, s.modality, COUNT(*) AS series, CAST(SUM(i.count) AS BIGINT) AS instances FROM series s \
             JOIN (SELECT series, COUNT(*) AS count FROM instance WHERE quarantined = 0 AND version = 1 \
             AND series IN (SELECT id FROM series WHERE study ",
        );
        query.push_in(ids.iter().copied());
        query.push(") GROUP BY series) i ON i.series = s.id GROUP BY s.study, s.modality ORDER BY s.study, MIN(s.id)");
        for row in query.fetch_all(&mut *db).await? {
            let Some(summary) = summaries.get_mut(&row.try_get::<i64>("study")?) else {
                continue;
            };
            summary.modalities.extend(text(&row, "modality")?);
            summary.series_count += unsigned::<u64>(&row, "series")?;
            summary.instance_count += unsigned::<u64>(&row, "instances")?;
        }
        for (id, completeness) in completeness::of_studies(&mut *db, ids).await? {
            if let Some(summary) = summaries.get_mut(&id) {
                summary.completeness = completeness;
            }
        }
    }
    Ok(summaries)
}

fn read(row: &Row) -> sqlx::Result<StudySummary> {
    Ok(StudySummary {
        study_instance_uid: parsed(row, "uid")?,
        patient_name: Phi::new(text(row, "patient_name")?),
        patient_id: Phi::new(text(row, "patient_id")?),
        issuer: Phi::new(text(row, "issuer")?),
        birth_date: Phi::new(text(row, "birth_date")?),
        sex: Phi::new(text(row, "sex")?),
        study_date: text(row, "study_date")?,
        study_time: text(row, "study_time")?,
        accession_number: Phi::new(text(row, "accession_number")?),
        description: Phi::new(text(row, "description")?),
        modalities: Vec::new(),
        series_count: 0,
        instance_count: 0,
        patient_conflict: flag(row, "patient_conflict")?,
        completeness: completeness::unknown(),
        held: transfer::decision(row, "held_at", "held_by", "held_why")?,
        removed: transfer::decision(row, "removed_at", "removed_by", "removed_why")?,
        first_received_at: row
            .try_get::<Option<i64>>("first_received_at")?
            .map(|_| moment(row, "first_received_at"))
            .transpose()?,
        last_received_at: row
            .try_get::<Option<i64>>("last_received_at")?
            .map(|_| moment(row, "last_received_at"))
            .transpose()?,
    })
}

/// A text that somebody wrote; `None` for NULL and for the issuer that is not there.
fn text(row: &Row, column: &str) -> sqlx::Result<Option<String>> {
    Ok(row.try_get::<Option<String>>(column)?.filter(|text| !text.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::super::samples::{On, ct, index, on_both};
    use super::*;
    use crate::facts::Priority;

    on_both![
        the_first_value_stands_and_a_contradiction_about_the_patient_is_flagged,
        one_number_at_two_organisations_does_not_mix_two_people,
        studies_are_found_by_what_people_know_and_come_newest_first,
        a_study_shows_its_instances_and_where_they_went,
    ];

    async fn the_first_value_stands_and_a_contradiction_about_the_patient_is_flagged(on: On) {
        // What a second instance says otherwise, and whether that is a conflict.
        let table = [
            (tags::PATIENT_NAME, "JONES^BOB", true),
            (tags::PATIENT_ID, "1", true),
            (tags::PATIENT_NAME, "", false),
            (tags::PATIENT_BIRTH_DATE, "19700101", false),
            (tags::STUDY_DESCRIPTION, "HEAD", false),
            (tags::ACCESSION_NUMBER, "A2", false),
        ];
        for (tag, value, conflict) in table {
            let (index, _dir) = index(on).await;
            index.record(&[ct(1, 1)]).await.unwrap();

            index.record(&[ct(1, 2).with(tag, value), ct(1, 3)]).await.unwrap();

            let study = index.studies(&StudyFilter::default()).await.unwrap().remove(0);
            assert_eq!(study.patient_conflict, conflict, "{tag} {value}");
            assert_eq!(study.patient_name.reveal().as_deref(), Some("SMITH^ANNA"));
            assert_eq!(study.patient_id.reveal().as_deref(), Some("943 476 5919"));
            assert_eq!(study.accession_number.reveal().as_deref(), Some("A1"));
            assert_eq!(study.birth_date.reveal().is_some(), tag == tags::PATIENT_BIRTH_DATE);
            assert_eq!((study.series_count, study.instance_count), (1, 3));
        }
    }

    async fn one_number_at_two_organisations_does_not_mix_two_people(on: On) {
        let (index, _dir) = index(on).await;
        let other = ct(2, 1).with(tags::PATIENT_NAME, "JONES^BOB").sent_by_partner("leeds");

        index.record(&[ct(1, 1), other]).await.unwrap();

        let patient_id = Some(Phi::new("943 476 5919".to_owned()));
        let found =
            index.studies(&StudyFilter { patient_id, ..StudyFilter::default() }).await.unwrap();
        let names: Vec<_> =
            found.iter().map(|study| study.patient_name.reveal().as_deref()).collect();
        assert_eq!(names, [Some("JONES^BOB"), Some("SMITH^ANNA")]);
        assert!(!found[0].patient_conflict);
    }

    async fn studies_are_found_by_what_people_know_and_come_newest_first(on: On) {
        let (index, _dir) = index(on).await;
        let mut mr = ct(3, 5).with(tags::MODALITY, "MR");
        mr.facts.series = "1.2.3.10".parse().unwrap();
        index
            .record(&[ct(1, 9), ct(2, 3).with(tags::ACCESSION_NUMBER, "B7"), ct(3, 4), mr])
            .await
            .unwrap();

        let all = index.studies(&StudyFilter::default()).await.unwrap();
        let by_accession = StudyFilter {
            accession_number: Some(Phi::new("B7".to_owned())),
            ..StudyFilter::default()
        };
        let by_uid = StudyFilter {
            study_instance_uid: Some("1.2.3".parse().unwrap()),
            ..StudyFilter::default()
        };

        let uids = |studies: Vec<StudySummary>| {
            studies
                .into_iter()
                .map(|study| study.study_instance_uid.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(uids(all), ["1.2.1", "1.2.3", "1.2.2"]);
        assert_eq!(uids(index.studies(&by_accession).await.unwrap()), ["1.2.2"]);
        let found = index.studies(&by_uid).await.unwrap();
        assert_eq!(found[0].modalities, ["CT", "MR"]);
        assert_eq!(uids(found), ["1.2.3"]);
        assert_eq!(
            index.studies(&StudyFilter { limit: 1, ..StudyFilter::default() }).await.unwrap().len(),
            1
        );
    }

    async fn a_study_shows_its_instances_and_where_they_went(on: On) {
        let (index, _dir) = index(on).await;
        let batch = [ct(1, 2).to("york", Priority::Urgent), ct(1, 1).to("york", Priority::Urgent)];
        index.record(&batch).await.unwrap();
        index.mark_stored(&[batch[0].facts.object]).await.unwrap();

        let study = index.study(&batch[0].facts.study).await.unwrap().unwrap();

        let shown: Vec<_> = study.series[0]
            .instances
            .iter()
            .map(|row| (row.number, row.stored, row.digest))
            .collect();
        assert_eq!(
            shown,
            [(Some(1), false, batch[1].facts.digest), (Some(2), true, batch[0].facts.digest)]
        );
        assert_eq!((study.transfers.len(), study.transfers[0].counts.queued), (1, 2));
        assert_eq!(index.unstored(9).await.unwrap(), [batch[1].facts.object]);
        let written = serde_json::to_value(&study).unwrap();
        assert_eq!(written["study"]["patient_name"], "SMITH^ANNA");
        assert_eq!(written["transfers"][0]["counts"]["queued"], 2);
        assert!(!format!("{study:?}").contains("SMITH"));
        assert!(index.study(&"1.2.99".parse().unwrap()).await.unwrap().is_none());
    }
}
