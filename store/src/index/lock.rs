//! What two nodes on one database must not do at the same time. On SQLite, with its one writer, nothing need be said.
//!
//! Whoever takes several locks takes them in this order, and those of one kind in ascending order: studies by name,
//! transfers, deliveries. Where that cannot be kept, PostgreSQL finds the deadlock, and the whole transaction is done
//! again. Claims never wait: they pass over what another transaction holds.

use ring::digest::{SHA256, digest};

use crate::dicom::StudyInstanceUid;

use super::DeliveryId;
use super::db::{self, Db};

/// Until the transaction ends, nobody else records instances of these studies: their rows, those of their series and
/// instances, and their transfers are found or made by one at a time.
pub(super) async fn studies<'s>(
    db: &mut Db,
    studies: impl Iterator<Item = &'s StudyInstanceUid>,
) -> sqlx::Result<()> {
    if !db.is_postgres() {
        return Ok(());
    }
    let (mut uids, mut keys): (Vec<&str>, Vec<i64>) =
        studies.map(|study| (study.as_str(), key(study))).unzip();
    uids.sort_unstable();
    uids.dedup();
    keys.sort_unstable();
    keys.dedup();
    for keys in keys.chunks(db::MOST) {
        // Advisory, as a study's row may not be there yet. In order: an array is unnested as it stands.
        let query =
            db.query("SELECT pg_advisory_xact_lock(key) FROM unnest($1::bigint[]) AS locks (key)");
        let query = query.bind(keys);
        query.execute(&mut *db).await?;
    }
    for uids in uids.chunks(db::MOST) {
        let mut query =
            db.query("SELECT id FROM transfer WHERE study IN (SELECT id FROM study WHERE uid ");
        query.push_in(uids.iter().copied()).push(") ORDER BY id FOR UPDATE");
        query.execute(&mut *db).await?;
    }
    Ok(())
}

/// The same text gives the same number on every node and in every version.
fn key(study: &StudyInstanceUid) -> i64 {
    let hash = digest(&SHA256, study.as_str().as_bytes());
    hash.as_ref().first_chunk().map_or(0, |bytes| i64::from_be_bytes(*bytes))
}

/// Until the transaction ends, nobody else changes the transfers of these deliveries, or what they hold: whether a
/// transfer is cancelled, and whether all of it was sent, is decided by one at a time.
pub(super) async fn transfers_of(db: &mut Db, deliveries: &[DeliveryId]) -> sqlx::Result<()> {
    if !db.is_postgres() {
        return Ok(());
    }
    for deliveries in deliveries.chunks(db::MOST) {
        let mut query = db
            .query("SELECT id FROM transfer WHERE id IN (SELECT transfer FROM delivery WHERE id ");
        query.push_in(deliveries.iter().map(|id| id.0)).push(") ORDER BY id FOR UPDATE");
        query.execute(&mut *db).await?;
    }
    Ok(())
}
