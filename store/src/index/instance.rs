//! Instances: one row for each version of a SOP Instance UID that was received.

use std::collections::{HashMap, HashSet};

use dicom_dictionary_std::tags;
use jiff::Timestamp;
use serde::Serialize;

use crate::dicom::{
    SeriesInstanceUid, SopClassUid, SopInstanceUid, StudyInstanceUid, TransferSyntax,
};
use crate::facts::{Digest, Facts, ObjectId};

use super::db::{self, Cell, Db, Row};
use super::turn::View;
use super::{digest, flag, moment, parsed, unsigned};

/// One version of an instance.
#[derive(Clone, Debug, Serialize)]
pub struct InstanceRow {
    /// Its name here and in the object store.
    pub object: ObjectId,
    /// Study Instance UID that its data set holds.
    pub study_instance_uid: StudyInstanceUid,
    /// Series Instance UID that its data set holds.
    pub series_instance_uid: SeriesInstanceUid,
    /// SOP Instance UID.
    pub sop_instance_uid: SopInstanceUid,
    /// SOP Class UID.
    pub sop_class_uid: SopClassUid,
    /// The encoding it is kept in.
    pub transfer_syntax: TransferSyntax,
    /// Bytes of the data set.
    pub length: u64,
    /// SHA-256 of these bytes.
    pub digest: Digest,
    /// 1, or more where other bytes came under the same UID before.
    pub version: u32,
    /// Whether it is held back: it goes nowhere and counts nowhere until a person has looked.
    pub quarantined: bool,
    /// Whether the object store has confirmed it.
    pub stored: bool,
    /// When it was decided that it goes: the row is all that is left.
    pub removed_at: Option<Timestamp>,
    /// Since when no whole copy of it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost_at: Option<Timestamp>,
    /// Instance Number.
    pub number: Option<i64>,
    /// Rows.
    pub rows: Option<u16>,
    /// Columns.
    pub columns: Option<u16>,
    /// Number of Frames.
    pub frames: Option<i64>,
    /// Who sent it, by configured name.
    pub sender: String,
    /// Whether that is a partner.
    pub from_partner: bool,
    /// When its last byte had arrived.
    pub received_at: Timestamp,
}

/// What deciding about an arrival needs of the versions that are there.
#[derive(Clone, Debug)]
pub(super) struct Version {
    pub(super) place: Place,
    pub(super) object: ObjectId,
    pub(super) study: StudyInstanceUid,
    pub(super) study_id: i64,
    pub(super) number: u32,
    pub(super) digest: Digest,
    pub(super) sender: String,
    pub(super) from_partner: bool,
    pub(super) quarantined: bool,
    pub(super) removed: bool,
    pub(super) lost: bool,
}

/// The versions, oldest first, of all SOP instances of a batch.
pub(super) async fn versions<'a>(
    db: &mut Db,
    instances: impl Iterator<Item = &'a SopInstanceUid>,
) -> sqlx::Result<HashMap<SopInstanceUid, Vec<Version>>> {
    let uids: Vec<&str> = instances.map(SopInstanceUid::as_str).collect();
    let mut versions: HashMap<_, Vec<_>> = HashMap::new();
    for uids in uids.chunks(db::MOST) {
        let mut query = db.query(
            "SELECT i.id, i.object, i.sop_instance, i.version, i.digest, i.sender, i.from_partner, i.quarantined, \
             i.removed_at, i.lost_at, s.study, t.uid AS study_uid FROM instance i JOIN series s ON s.id = i.series \
             JOIN study t ON t.id = s.study WHERE i.sop_instance ",
        );
        query.push_in(uids.iter().copied());
        query.push(" ORDER BY i.version");
        for row in query.fetch_all(&mut *db).await? {
            versions.entry(parsed(&row, "sop_instance")?).or_default().push(Version {
                place: Place::Row(row.try_get("id")?),
                object: parsed(&row, "object")?,
                study: parsed(&row, "study_uid")?,
                study_id: row.try_get("study")?,
                number: unsigned(&row, "version")?,
                digest: digest(&row, "digest")?,
                sender: row.try_get("sender")?,
                from_partner: flag(&row, "from_partner")?,
                quarantined: flag(&row, "quarantined")?,
                removed: row.try_get::<Option<i64>>("removed_at")?.is_some(),
                lost: row.try_get::<Option<i64>>("lost_at")?.is_some(),
            });
        }
    }
    Ok(versions)
}

/// Which row an instance has, or will have: what a batch brings is added at its end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Place {
    Row(i64),
    New(usize),
}

/// The instances that a batch brings.
#[derive(Default)]
pub(super) struct Added {
    objects: Vec<ObjectId>,
    rows: Vec<[Cell; 17]>,
}

impl Added {
    /// Takes note of a version.
    pub(super) fn add(
        &mut self,
        series: i64,
        facts: &Facts,
        version: u32,
        quarantined: bool,
    ) -> Place {
        let attributes = &facts.attributes;
        let place = Place::New(self.rows.len());
        self.objects.push(facts.object);
        self.rows.push([
            facts.object.to_string().into(),
            series.into(),
            facts.sop_instance.as_str().into(),
            i64::from(version).into(),
            facts.sop_class.as_str().into(),
            facts.transfer_syntax.uid().into(),
            facts.length.cast_signed().into(),
            facts.digest.0[..].into(),
            attributes.integer(tags::INSTANCE_NUMBER).into(),
            attributes.u16(tags::ROWS).map(i64::from).into(),
            attributes.u16(tags::COLUMNS).map(i64::from).into(),
            attributes.integer(tags::NUMBER_OF_FRAMES).into(),
            facts.origin.sender.as_str().into(),
            i64::from(facts.origin.from_partner).into(),
            facts.received_at.as_millisecond().into(),
            i64::from(quarantined).into(),
            View::of(attributes).number().into(),
        ]);
        place
    }

    /// Writes them.
    pub(super) async fn write(self, db: &mut Db) -> sqlx::Result<Places> {
        let rows = db.for_rows(
            "INSERT INTO instance (object, series, sop_instance, version, sop_class, transfer_syntax, length, digest, \
             number, rows, columns, frames, sender, from_partner, received_at, quarantined, view) SELECT * FROM ",
            [
                "object", "series", "sop_instance", "version", "sop_class", "transfer_syntax", "length", "digest",
                "number", "rows", "columns", "frames", "sender", "from_partner", "received_at", "quarantined",
                "view",
            ],
            self.rows,
            " RETURNING id, object",
        );
        let mut ids: HashMap<ObjectId, i64> = HashMap::with_capacity(self.objects.len());
        for row in rows.await? {
            ids.insert(parsed(&row, "object")?, row.try_get("id")?);
        }
        let id = |object| ids.get(object).copied().ok_or(sqlx::Error::RowNotFound);
        self.objects.iter().map(id).collect::<sqlx::Result<_>>().map(Places)
    }
}

/// The rows of what a batch brought.
pub(super) struct Places(Vec<i64>);

impl Places {
    /// The row id.
    pub(super) fn row(&self, place: Place) -> sqlx::Result<i64> {
        match place {
            Place::Row(id) => Ok(id),
            Place::New(index) => self.0.get(index).copied().ok_or(sqlx::Error::RowNotFound),
        }
    }
}

/// Gives the row of a version that was removed or lost the object that it came back as.
pub(super) async fn bring_back(db: &mut Db, id: i64, facts: &Facts) -> sqlx::Result<()> {
    // What is left of a lost one is of no use any more, and nothing would name it.
    db.query(
        "INSERT INTO deletion (object, sop_instance, study, digest, length, at, why) \
         SELECT i.object, i.sop_instance, t.uid, i.digest, i.length, CAST($2 AS BIGINT), \
         'it was not whole, and its bytes were received again' FROM instance i \
         JOIN series s ON s.id = i.series JOIN study t ON t.id = s.study \
         WHERE i.id = $1 AND i.lost_at IS NOT NULL AND i.removed_at IS NULL ON CONFLICT DO NOTHING",
    )
    .bind(id)
    .bind(facts.received_at.as_millisecond())
    .execute(&mut *db)
    .await?;
    db.query(
        "UPDATE instance SET object = $2, transfer_syntax = $3, received_at = $4, stored = 0, removed_at = NULL, \
         lost_at = NULL WHERE id = $1",
    )
    .bind(id)
    .bind(facts.object.to_string())
    .bind(facts.transfer_syntax.uid())
    .bind(facts.received_at.as_millisecond())
    .execute(db)
    .await?;
    Ok(())
}

/// Notes that the object store has confirmed these.
pub(super) async fn mark_stored(db: &mut Db, objects: &[ObjectId]) -> sqlx::Result<()> {
    for objects in objects.chunks(db::MOST) {
        let mut query = db.query("UPDATE instance SET stored = 1, lost_at = NULL WHERE (stored = 0 OR lost_at IS NOT NULL) AND object ");
        query.push_in(objects.iter().map(ToString::to_string));
        query.execute(&mut *db).await?;
    }
    // A commit that writes nothing would sync nothing.
    let query = db.query_either(
        "UPDATE synced SET times = times + 1",
        "SELECT pg_logical_emit_message(true, 'gantry', 'synced')",
    );
    query.execute(db).await?;
    Ok(())
}

/// Notes that no whole copy of these is known.
pub(super) async fn mark_lost(
    db: &mut Db,
    objects: &[ObjectId],
    now: Timestamp,
) -> sqlx::Result<()> {
    for objects in objects.chunks(db::MOST) {
        let mut query = db.query("UPDATE instance SET lost_at = ");
        query.push_bind(now.as_millisecond());
        query.push(" WHERE lost_at IS NULL AND removed_at IS NULL AND object ");
        query.push_in(objects.iter().map(ToString::to_string));
        query.execute(&mut *db).await?;
    }
    Ok(())
}

/// What the object store has not confirmed, oldest first.
pub(super) async fn unstored(db: &mut Db, limit: u32) -> sqlx::Result<Vec<ObjectId>> {
    let rows = db
        .query("SELECT object FROM instance WHERE stored = 0 ORDER BY id LIMIT $1")
        .bind(i64::from(limit))
        .fetch_all(db)
        .await?;
    rows.iter().map(|row| parsed(row, "object")).collect()
}

/// Which of these have a row and are to be kept.
pub(super) async fn known(db: &mut Db, objects: &[ObjectId]) -> sqlx::Result<HashSet<ObjectId>> {
    let mut known = HashSet::new();
    for objects in objects.chunks(db::MOST) {
        let mut query =
            db.query("SELECT object FROM instance WHERE removed_at IS NULL AND object ");
        query.push_in(objects.iter().map(ToString::to_string));
        for row in query.fetch_all(&mut *db).await? {
            known.insert(parsed(&row, "object")?);
        }
    }
    Ok(known)
}

const ROWS: &str = "SELECT i.*, s.uid AS series_uid, t.uid AS study_uid FROM instance i \
                    JOIN series s ON s.id = i.series JOIN study t ON t.id = s.study WHERE ";

/// Every version of a SOP instance, oldest first.
pub(super) async fn of_uid(db: &mut Db, uid: &SopInstanceUid) -> sqlx::Result<Vec<InstanceRow>> {
    let mut query = db.query(ROWS);
    query.push("i.sop_instance = ").push_bind(uid.as_str()).push(" ORDER BY i.version");
    query.fetch_all(db).await?.iter().map(read).collect()
}

/// What is in quarantine, newest first.
pub(super) async fn quarantined(db: &mut Db, limit: u32) -> sqlx::Result<Vec<InstanceRow>> {
    let mut query = db.query(ROWS);
    query.push("i.quarantined = 1 ORDER BY i.id DESC LIMIT ").push_bind(i64::from(limit));
    query.fetch_all(db).await?.iter().map(read).collect()
}

/// What has a row and is to be kept, in the order of object ids: those after `after`, at most `limit`.
pub(super) async fn after(
    db: &mut Db,
    after: Option<ObjectId>,
    limit: u32,
) -> sqlx::Result<Vec<InstanceRow>> {
    // Every name comes after the empty one.
    let after = after.map(|object| object.to_string()).unwrap_or_default();
    let mut query = db.query(ROWS);
    query
        .push("i.object > ")
        .push_bind(after)
        .push(" AND i.removed_at IS NULL ORDER BY i.object LIMIT ");
    query.push_bind(i64::from(limit));
    query.fetch_all(db).await?.iter().map(read).collect()
}

/// Every version of every instance of a study, by series, in the order of Instance Number.
pub(super) async fn of_study(
    db: &mut Db,
    study: i64,
) -> sqlx::Result<HashMap<i64, Vec<InstanceRow>>> {
    let mut query = db.query(ROWS);
    query.push("s.study = ").push_bind(study).push(" ORDER BY i.number NULLS FIRST, i.id");
    let mut instances: HashMap<_, Vec<_>> = HashMap::new();
    for row in query.fetch_all(db).await? {
        instances.entry(row.try_get("series")?).or_default().push(read(&row)?);
    }
    Ok(instances)
}

fn read(row: &Row) -> sqlx::Result<InstanceRow> {
    Ok(InstanceRow {
        object: parsed(row, "object")?,
        study_instance_uid: parsed(row, "study_uid")?,
        series_instance_uid: parsed(row, "series_uid")?,
        sop_instance_uid: parsed(row, "sop_instance")?,
        sop_class_uid: parsed(row, "sop_class")?,
        transfer_syntax: parsed(row, "transfer_syntax")?,
        length: unsigned(row, "length")?,
        digest: digest(row, "digest")?,
        version: unsigned(row, "version")?,
        quarantined: flag(row, "quarantined")?,
        stored: flag(row, "stored")?,
        removed_at: row.try_get::<Option<i64>>("removed_at")?.map(super::timestamp).transpose()?,
        lost_at: row.try_get::<Option<i64>>("lost_at")?.map(super::timestamp).transpose()?,
        number: row.try_get("number")?,
        rows: row.try_get::<Option<i64>>("rows")?.and_then(|rows| rows.try_into().ok()),
        columns: row.try_get::<Option<i64>>("columns")?.and_then(|columns| columns.try_into().ok()),
        frames: row.try_get("frames")?,
        sender: row.try_get("sender")?,
        from_partner: flag(row, "from_partner")?,
        received_at: moment(row, "received_at")?,
    })
}

/// How much is here.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Totals {
    /// Studies of which something is not in quarantine.
    pub studies: u64,
    /// Series, those of quarantined instances too.
    pub series: u64,
    /// Instances, every version and those in quarantine too.
    pub instances: u64,
    /// Bytes of the data sets of those that are here.
    pub bytes: u64,
    /// Instances of which the row is all that is left.
    pub removed: u64,
    /// Instances that the object store has not confirmed.
    pub unstored: u64,
    /// Instances in quarantine.
    pub quarantined: u64,
}

/// Counts everything.
pub(super) async fn totals(db: &mut Db) -> sqlx::Result<Totals> {
    let row = db
        .query(
            "SELECT (SELECT COUNT(*) FROM study WHERE last_received_at IS NOT NULL) AS studies, \
         (SELECT COUNT(*) FROM series) AS series, \
         (SELECT COUNT(*) FROM instance) AS instances, \
         (SELECT CAST(COALESCE(SUM(length), 0) AS BIGINT) FROM instance WHERE removed_at IS NULL) AS bytes, \
         (SELECT COUNT(*) FROM instance WHERE removed_at IS NOT NULL) AS removed, \
         (SELECT COUNT(*) FROM instance WHERE stored = 0) AS unstored, \
         (SELECT COUNT(*) FROM instance WHERE quarantined = 1) AS quarantined",
        )
        .fetch_one(db)
        .await?;
    Ok(Totals {
        studies: unsigned(&row, "studies")?,
        series: unsigned(&row, "series")?,
        instances: unsigned(&row, "instances")?,
        bytes: unsigned(&row, "bytes")?,
        removed: unsigned(&row, "removed")?,
        unstored: unsigned(&row, "unstored")?,
        quarantined: unsigned(&row, "quarantined")?,
    })
}
