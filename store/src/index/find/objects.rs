//! What is to be sent to who retrieves (C-MOVE, C-GET, WADO-RS): objects of studies, series or instances within a scope.

use jiff::Timestamp;

use super::super::db::{self, Db, Row};
use super::super::share::{self, Scope};
use super::super::{parsed, unsigned};
use super::statement::{IMAGE_IS_HERE, STUDY_IS_HERE};
use crate::dicom::{
    SeriesInstanceUid, SopClassUid, SopInstanceUid, StudyInstanceUid, TransferSyntax,
};
use crate::facts::ObjectId;

/// What is wanted: of each list that is not empty one must be met, at most 1000 UIDs in each. Nothing but empty lists wants
/// nothing.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Study Instance UIDs.
    pub studies: Vec<StudyInstanceUid>,
    /// Series Instance UIDs.
    pub series: Vec<SeriesInstanceUid>,
    /// SOP Instance UIDs.
    pub instances: Vec<SopInstanceUid>,
}

/// One object to be sent.
#[derive(Clone, Debug)]
pub struct Object {
    /// Its place in the order of objects, after which the next page goes on.
    pub place: i64,
    /// Its name in the object store.
    pub object: ObjectId,
    /// Study Instance UID.
    pub study: StudyInstanceUid,
    /// Series Instance UID.
    pub series: SeriesInstanceUid,
    /// SOP Instance UID.
    pub instance: SopInstanceUid,
    /// SOP Class UID.
    pub sop_class: SopClassUid,
    /// The encoding it is kept in.
    pub transfer_syntax: TransferSyntax,
    /// Bytes of the data set.
    pub length: u64,
    /// Under which protection whoever asked may have it; none: as it was received.
    pub protection: Option<String>,
}

/// Objects in the order of their arrival, those after a place, at most so many.
pub(in super::super) async fn objects(
    db: &mut Db,
    wanted: &Wanted,
    scope: &Scope,
    (after, limit): (i64, u32),
    now: Timestamp,
) -> sqlx::Result<Vec<Object>> {
    let lists = [
        (" AND s.uid ", wanted.studies.iter().map(StudyInstanceUid::as_str).collect::<Vec<_>>()),
        (" AND r.uid ", wanted.series.iter().map(SeriesInstanceUid::as_str).collect()),
        (" AND i.sop_instance ", wanted.instances.iter().map(SopInstanceUid::as_str).collect()),
    ];
    if lists.iter().all(|(_, uids)| uids.is_empty()) {
        return Ok(Vec::new());
    }
    if lists.iter().any(|(_, uids)| uids.len() > db::MOST) {
        return Err(sqlx::Error::InvalidArgument("more than 1000 UIDs at once".to_owned()));
    }
    let mut statement = db.query(
        "SELECT i.id, i.object, s.uid AS study_uid, r.uid AS series_uid, i.sop_instance, i.sop_class, \
         i.transfer_syntax, i.length, ",
    );
    share::push_protection(&mut statement, scope, now);
    statement.push(
        " FROM study s JOIN series r ON r.study = s.id JOIN instance i ON i.series = r.id WHERE ",
    );
    statement.push(STUDY_IS_HERE).push(IMAGE_IS_HERE).push(" AND ");
    share::push_scope(&mut statement, scope, now);
    for (condition, uids) in lists {
        if !uids.is_empty() {
            statement.push(condition).push_in(uids.into_iter());
        }
    }
    // Without the sign SQLite would go through all instances that ever came, as they are in this order.
    statement.push(" AND +i.id > ").push_bind(after).push(" ORDER BY +i.id LIMIT ");
    statement.push_bind(i64::from(limit));
    statement.fetch_all(db).await?.iter().map(read).collect()
}

fn read(row: &Row) -> sqlx::Result<Object> {
    Ok(Object {
        place: row.try_get("id")?,
        object: parsed(row, "object")?,
        study: parsed(row, "study_uid")?,
        series: parsed(row, "series_uid")?,
        instance: parsed(row, "sop_instance")?,
        sop_class: parsed(row, "sop_class")?,
        transfer_syntax: parsed(row, "transfer_syntax")?,
        length: unsigned(row, "length")?,
        protection: row.try_get("protection")?,
    })
}
