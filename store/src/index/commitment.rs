//! What senders asked this node to commit to (PS3.4 Annex J), until they have been told.
//!
//! A request is on the disk before it is answered. The verdict is written once, so that a report that is repeated says the
//! same. Those that were told are kept for a while: a Transaction UID names one transaction.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::dicom::{AeTitle, SopClassUid, SopInstanceUid, Uid};
use crate::facts::ObjectId;

use super::db::{self, Db, Row};
use super::{flag, moment, parsed, unreadable, unsigned};

/// For how long a Transaction UID is remembered.
const KEPT: SignedDuration = SignedDuration::from_hours(24 * 14);

/// An instance as a sender names it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Reference {
    /// Referenced SOP Class UID.
    pub sop_class: SopClassUid,
    /// Referenced SOP Instance UID.
    pub sop_instance: SopInstanceUid,
}

/// What a sender asks.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CommitmentRequest {
    /// Its configured name.
    pub sender: String,
    /// What it called this node: the report comes from that name.
    pub called: AeTitle,
    /// Transaction UID.
    pub transaction: Uid,
    /// What is to be kept.
    pub instances: Vec<Reference>,
}

/// For each instance that was asked, in that order, the Failure Reason; `None` is a commitment.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Verdict(pub Vec<Option<u16>>);

/// A report that a sender is owed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Owed {
    /// Names it.
    pub id: i64,
    /// What was asked.
    pub request: CommitmentRequest,
    /// When.
    pub asked_at: Timestamp,
    /// How often it was tried to report.
    pub tries: u32,
    /// What is reported; `None` until that is decided.
    pub verdict: Option<Verdict>,
}

/// One version of an instance that is here.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Held {
    /// Its name here.
    pub object: ObjectId,
    /// What kind of object it is.
    pub sop_class: SopClassUid,
    /// Whether the object store has confirmed it.
    pub stored: bool,
    /// Whether it is held back until a person has looked.
    pub quarantined: bool,
}

/// Takes a request; `None` if the sender has used that Transaction UID.
pub(super) async fn take(
    db: &mut Db,
    request: &CommitmentRequest,
    due: Timestamp,
    now: Timestamp,
) -> sqlx::Result<Option<Owed>> {
    let old = now.checked_sub(KEPT).unwrap_or(Timestamp::MIN).as_millisecond();
    db.query("DELETE FROM commitment_request WHERE due IS NULL AND asked_at < $1")
        .bind(old)
        .execute(&mut *db)
        .await?;
    let instances = serde_json::to_string(&request.instances)
        .map_err(|error| sqlx::Error::Encode(error.into()))?;
    let id: Option<i64> = db
        .query(
            "INSERT INTO commitment_request (sender, uid, called, asked_at, instances, due) \
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (sender, uid) DO NOTHING RETURNING id",
        )
        .bind(&request.sender)
        .bind(request.transaction.as_str())
        .bind(request.called.as_str())
        .bind(now.as_millisecond())
        .bind(instances)
        .bind(due.as_millisecond())
        .optional_scalar(db)
        .await?;
    let owed = |id| Owed { id, request: request.clone(), asked_at: now, tries: 0, verdict: None };
    Ok(id.map(owed))
}

/// What is here of these: rows also stay of what was removed, or is lost, and nobody may rely on that.
pub(super) async fn held(
    db: &mut Db,
    instances: &[SopInstanceUid],
) -> sqlx::Result<HashMap<SopInstanceUid, Vec<Held>>> {
    let mut held: HashMap<_, Vec<_>> = HashMap::with_capacity(instances.len());
    for uids in instances.chunks(db::MOST) {
        let mut query = db.query(
            "SELECT sop_instance, object, sop_class, stored, quarantined FROM instance \
             WHERE removed_at IS NULL AND lost_at IS NULL AND sop_instance ",
        );
        query.push_in(uids.iter().map(SopInstanceUid::as_str)).push(" ORDER BY version");
        for row in query.fetch_all(&mut *db).await? {
            held.entry(parsed(&row, "sop_instance")?).or_default().push(Held {
                object: parsed(&row, "object")?,
                sop_class: parsed(&row, "sop_class")?,
                stored: flag(&row, "stored")?,
                quarantined: flag(&row, "quarantined")?,
            });
        }
    }
    Ok(held)
}

/// Writes a verdict where there is none.
pub(super) async fn judge(db: &mut Db, id: i64, verdict: &Verdict) -> sqlx::Result<()> {
    let text = serde_json::to_string(verdict).map_err(|error| sqlx::Error::Encode(error.into()))?;
    db.query("UPDATE commitment_request SET verdict = $2 WHERE id = $1 AND verdict IS NULL")
        .bind(id)
        .bind(text)
        .execute(db)
        .await?;
    Ok(())
}

/// Those that are due.
pub(super) async fn due(db: &mut Db, now: Timestamp, limit: u32) -> sqlx::Result<Vec<Owed>> {
    let rows = db
        .query("SELECT * FROM commitment_request WHERE due IS NOT NULL AND due <= $1 ORDER BY due, id LIMIT $2")
        .bind(now.as_millisecond())
        .bind(i64::from(limit))
        .fetch_all(db)
        .await?;
    rows.iter().map(read).collect()
}

fn read(row: &Row) -> sqlx::Result<Owed> {
    let verdict = match row.try_get::<Option<&str>>("verdict")? {
        Some(text) => Some(serde_json::from_str(text).map_err(|_| unreadable("verdict"))?),
        None => None,
    };
    let instances = serde_json::from_str(row.try_get("instances")?);
    Ok(Owed {
        id: row.try_get("id")?,
        request: CommitmentRequest {
            sender: row.try_get("sender")?,
            called: parsed(row, "called")?,
            transaction: parsed(row, "uid")?,
            instances: instances.map_err(|_| unreadable("instances"))?,
        },
        asked_at: moment(row, "asked_at")?,
        tries: unsigned(row, "tries")?,
        verdict,
    })
}

/// Puts a report off.
pub(super) async fn later(db: &mut Db, id: i64, due: Timestamp) -> sqlx::Result<()> {
    db.query("UPDATE commitment_request SET due = $2, tries = tries + 1 WHERE id = $1 AND due IS NOT NULL")
        .bind(id)
        .bind(due.as_millisecond())
        .execute(db)
        .await?;
    Ok(())
}

/// Ends it: it was taken, or is given up.
pub(super) async fn end(db: &mut Db, id: i64) -> sqlx::Result<()> {
    db.query("UPDATE commitment_request SET due = NULL WHERE id = $1").bind(id).execute(db).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Remover;
    use super::super::samples::{On, at, ct, index, on_both};
    use super::*;

    on_both![
        a_request_is_owed_a_report_until_it_was_taken_and_its_verdict_stands,
        what_is_here_is_told_by_version,
        what_was_removed_or_is_lost_is_not_here,
    ];

    fn request(transaction: &str, numbers: &[u32]) -> CommitmentRequest {
        let reference = |number| Reference {
            sop_class: "1.2.840.10008.5.1.4.1.1.2".parse().unwrap(),
            sop_instance: format!("1.2.1.9.{number}").parse().unwrap(),
        };
        CommitmentRequest {
            sender: "pacs".to_owned(),
            called: "GANTRY".parse().unwrap(),
            transaction: transaction.parse().unwrap(),
            instances: numbers.iter().map(reference).collect(),
        }
    }

    async fn a_request_is_owed_a_report_until_it_was_taken_and_its_verdict_stands(on: On) {
        let (index, _dir) = index(on).await;
        let asked = request("2.25.7", &[1, 2]);

        let owed = index.take_commitment(&asked, at(15), at(5)).await.unwrap().unwrap();
        let twice = index.take_commitment(&asked, at(15), at(6)).await.unwrap();

        assert_eq!(twice, None);
        assert!(index.reports_due(at(14), 9).await.unwrap().is_empty());
        let verdict = Verdict(vec![None, Some(0x0112)]);
        index.judge_commitment(owed.id, &verdict).await.unwrap();
        index.judge_commitment(owed.id, &Verdict(vec![None, None])).await.unwrap();
        index.report_later(owed.id, at(30)).await.unwrap();
        assert!(index.reports_due(at(29), 9).await.unwrap().is_empty());
        let due = index.reports_due(at(30), 9).await.unwrap();
        let told = Owed { tries: 1, verdict: Some(verdict), ..owed.clone() };
        assert_eq!(due, [told], "the first verdict stands");
        index.report_ended(owed.id).await.unwrap();
        assert!(index.reports_due(at(999), 9).await.unwrap().is_empty());
        assert_eq!(index.take_commitment(&asked, at(15), at(7)).await.unwrap(), None);
    }

    async fn what_is_here_is_told_by_version(on: On) {
        let (index, _dir) = index(on).await;
        let (first, second) = (ct(1, 1), ct(1, 1).altered(9));
        let objects = [first.facts.object, second.facts.object];
        index.record(&[first, second]).await.unwrap();
        index.mark_stored(&objects[..1]).await.unwrap();
        let wanted: Vec<_> = ["1.2.1.9.1", "1.2.1.9.2"].map(|uid| uid.parse().unwrap()).into();

        let held = index.held(&wanted).await.unwrap();

        let versions: Vec<_> =
            held[&wanted[0]].iter().map(|held| (held.object, held.stored)).collect();
        assert_eq!(versions, [(objects[0], true), (objects[1], false)]);
        assert!(!held.contains_key(&wanted[1]));
    }

    async fn what_was_removed_or_is_lost_is_not_here(on: On) {
        let (index, _dir) = index(on).await;
        let (removed, lost) = (ct(1, 1), ct(2, 1));
        let objects = [removed.facts.object, lost.facts.object];
        index.record(&[removed, lost]).await.unwrap();
        index.mark_stored(&objects).await.unwrap();
        let wanted: Vec<_> = ["1.2.1.9.1", "1.2.2.9.1"].map(|uid| uid.parse().unwrap()).into();
        assert_eq!(index.held(&wanted).await.unwrap().len(), 2);

        let study = index.study_at_rest(&"1.2.1".parse().unwrap()).await.unwrap().unwrap();
        index.remove_images(&study, Remover::Rule("a rule"), at(9)).await.unwrap();
        index.mark_lost(&objects[1..], at(9)).await.unwrap();

        assert!(index.held(&wanted).await.unwrap().is_empty());
    }
}
