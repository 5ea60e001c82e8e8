//! What may go, what is held, and what was removed.
//!
//! Guarantees that images are only ever removed of a study that is at rest: nothing of it is owed to a partner, being
//! received, held, or not yet stored; and that this is looked at again in the transaction that decides, against exactly
//! what the decision was made on. The decision is written before anything is deleted, so a crash in between is finished
//! and not forgotten. Rows of what was removed stay, with their deliveries: they say what was disclosed.
//!
//! Knows no rules: how long what is kept is for the caller to say.

use std::collections::HashSet;

use jiff::Timestamp;
use serde::Serialize;

use crate::dicom::StudyInstanceUid;
use crate::facts::{ObjectId, Purpose};

use super::db::{self, Db, Row};
use super::timeline::{self, EventKind};
use super::transfer::Decision;
use super::{lock, moment, parsed, timestamp, unsigned};

/// A study of which images are here, as a decision about keeping it needs it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct StudyAtRest {
    /// Study Instance UID.
    pub study_instance_uid: StudyInstanceUid,
    /// Its place in the order in which studies are gone through.
    #[serde(skip)]
    pub place: i64,
    /// Images that are here, every version; those in quarantine are not among them.
    pub images: u64,
    /// Bytes of their data sets.
    pub bytes: u64,
    /// Images that the object store has not confirmed.
    pub unstored: u64,
    /// When its latest image came.
    pub last_received_at: Timestamp,
    /// Who holds it.
    pub held: Option<Decision>,
    /// Where it went or goes.
    pub transfers: Vec<TransferAtRest>,
}

/// A transfer, as a decision about keeping its study needs it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct TransferAtRest {
    /// Where to, by configured name.
    pub partner: String,
    /// Why.
    pub purpose: Purpose,
    /// Deliveries that wait, are under way, or are set aside.
    pub owed: u64,
    /// Whether an association may still bring images of it.
    pub receiving: bool,
    /// When the partner accepted the latest of it.
    pub last_sent_at: Option<Timestamp>,
    /// When the far end proved that it holds all of it.
    pub confirmed_at: Option<Timestamp>,
    /// When a person gave it up.
    pub cancelled_at: Option<Timestamp>,
}

/// Why images cannot go now, whatever anybody wants.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Needed {
    /// A person holds the study.
    Held,
    /// Something of it is still owed to a partner.
    Owed,
    /// More may be coming.
    Receiving,
    /// The object store has not confirmed all of it.
    NotStored,
}

impl StudyAtRest {
    /// What stands against removing it. Nobody and no rule goes past this.
    pub fn needed(&self) -> Option<Needed> {
        if self.held.is_some() {
            Some(Needed::Held)
        } else if self.transfers.iter().any(|transfer| transfer.owed > 0) {
            Some(Needed::Owed)
        } else if self.transfers.iter().any(|transfer| transfer.receiving) {
            Some(Needed::Receiving)
        } else {
            (self.unstored > 0).then_some(Needed::NotStored)
        }
    }
}

/// Who decided that images go.
#[derive(Clone, Copy, Debug)]
pub enum Remover<'a> {
    /// A person, and the reason that was given.
    Person { name: &'a str, reason: &'a str },
    /// A rule of the configuration, by name.
    Rule(&'a str),
}

/// What came of the wish to remove a study's images.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Removal {
    /// It is decided: so many are to be deleted.
    Decided {
        /// Images.
        images: u64,
        /// Bytes of their data sets.
        bytes: u64,
    },
    /// Something stands against it.
    Needed(Needed),
    /// It is not any more what the decision was made on.
    Changed,
}

/// Studies of which images are here, after a place, in order.
pub(super) async fn at_rest(db: &mut Db, after: i64, limit: u32) -> sqlx::Result<Vec<StudyAtRest>> {
    let ids: Vec<i64> = db
        .query(
            "SELECT s.id FROM study s WHERE s.id > $1 AND s.last_received_at IS NOT NULL AND EXISTS \
             (SELECT 1 FROM series r JOIN instance i ON i.series = r.id WHERE r.study = s.id \
             AND i.removed_at IS NULL AND i.quarantined = 0) ORDER BY s.id LIMIT $2",
        )
        .bind(after)
        .bind(i64::from(limit))
        .scalars(&mut *db)
        .await?;
    let mut studies = Vec::with_capacity(ids.len());
    for id in ids {
        studies.extend(read(&mut *db, id).await?);
    }
    Ok(studies)
}

/// One study; `None` if there is none, or nothing of it is here.
pub(super) async fn one(db: &mut Db, uid: &StudyInstanceUid) -> sqlx::Result<Option<StudyAtRest>> {
    match row_id(&mut *db, uid).await? {
        Some(id) => read(db, id).await,
        None => Ok(None),
    }
}

async fn row_id(db: &mut Db, uid: &StudyInstanceUid) -> sqlx::Result<Option<i64>> {
    let query = db.query("SELECT id FROM study WHERE uid = $1").bind(uid.as_str());
    query.optional_scalar(db).await
}

async fn read(db: &mut Db, id: i64) -> sqlx::Result<Option<StudyAtRest>> {
    let row = db
        .query(
            "SELECT s.uid, s.last_received_at, s.held_at, s.held_by, s.held_why, COUNT(*) AS images, \
             CAST(SUM(i.length) AS BIGINT) AS bytes, \
             CAST(SUM(CASE WHEN i.stored = 0 THEN 1 ELSE 0 END) AS BIGINT) AS unstored \
             FROM study s JOIN series r ON r.study = s.id JOIN instance i ON i.series = r.id \
             WHERE s.id = $1 AND s.last_received_at IS NOT NULL AND i.removed_at IS NULL AND i.quarantined = 0 \
             GROUP BY s.uid, s.last_received_at, s.held_at, s.held_by, s.held_why",
        )
        .bind(id)
        .fetch_optional(&mut *db)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let transfers = db
        .query(
            "SELECT t.partner, t.purpose, t.received_all_at, t.confirmed_at, t.cancelled_at, \
             (SELECT COUNT(*) FROM delivery d WHERE d.transfer = t.id \
             AND d.state IN ('queued', 'sending', 'deferred', 'failed')) AS owed, \
             (SELECT MAX(sent_at) FROM delivery d WHERE d.transfer = t.id AND d.state = 'delivered') AS sent \
             FROM transfer t WHERE t.study = $1 ORDER BY t.id",
        )
        .bind(id)
        .fetch_all(db)
        .await?;
    let maybe = |row: &Row, column| row.try_get::<Option<i64>>(column)?.map(timestamp).transpose();
    let transfer = |row: &Row| {
        Ok(TransferAtRest {
            partner: row.try_get("partner")?,
            purpose: parsed(row, "purpose")?,
            owed: unsigned(row, "owed")?,
            receiving: row.try_get::<Option<i64>>("received_all_at")?.is_none(),
            last_sent_at: maybe(row, "sent")?,
            confirmed_at: maybe(row, "confirmed_at")?,
            cancelled_at: maybe(row, "cancelled_at")?,
        })
    };
    Ok(Some(StudyAtRest {
        study_instance_uid: parsed(&row, "uid")?,
        place: id,
        images: unsigned(&row, "images")?,
        bytes: unsigned(&row, "bytes")?,
        unstored: unsigned(&row, "unstored")?,
        last_received_at: moment(&row, "last_received_at")?,
        held: super::transfer::decision(&row, "held_at", "held_by", "held_why")?,
        transfers: transfers.iter().map(transfer).collect::<sqlx::Result<_>>()?,
    }))
}

/// Decides that a study's images go, if it is still what `expected` says. What is in quarantine stays.
pub(super) async fn remove(
    db: &mut Db,
    expected: &StudyAtRest,
    by: Remover<'_>,
    now: Timestamp,
) -> sqlx::Result<Removal> {
    let uid = &expected.study_instance_uid;
    // Arrivals of this study, and every change of its transfers and deliveries, wait for this.
    lock::studies(&mut *db, std::iter::once(uid)).await?;
    let Some(found) = one(&mut *db, uid).await? else { return Ok(Removal::Changed) };
    if let Some(needed) = found.needed() {
        return Ok(Removal::Needed(needed));
    }
    if found != *expected {
        return Ok(Removal::Changed);
    }
    let (study, ms) = (found.place, now.as_millisecond());
    let (actor, rule, why) = match by {
        Remover::Person { name, reason } => (Some(name), None, reason.to_owned()),
        Remover::Rule(rule) => (None, Some(rule), format!("retention rule {rule}")),
    };
    let mut query = db.query(
        "INSERT INTO deletion (object, sop_instance, study, digest, length, at, actor, rule, why) \
         SELECT i.object, i.sop_instance, t.uid, i.digest, i.length, ",
    );
    // PostgreSQL does not guess the types of what stands alone.
    query.push("CAST(").push_bind(ms).push(" AS BIGINT), CAST(").push_bind(actor);
    query.push(" AS TEXT), CAST(").push_bind(rule).push(" AS TEXT), CAST(").push_bind(&why);
    query.push(" AS TEXT) FROM instance i JOIN series s ON s.id = i.series JOIN study t ON t.id = s.study WHERE t.id = ");
    query.push_bind(study).push(" AND i.removed_at IS NULL AND i.quarantined = 0");
    query.execute(&mut *db).await?;
    let mut query = db.query("UPDATE instance SET removed_at = ");
    query.push_bind(ms).push(" WHERE removed_at IS NULL AND quarantined = 0 AND series IN (SELECT id FROM series WHERE study = ");
    query.push_bind(study).push(")");
    query.execute(&mut *db).await?;
    // As people read it: a rule is named where a person would be.
    let who = actor.map_or_else(|| why.clone(), str::to_owned);
    db.query("UPDATE study SET removed_at = $2, removed_by = $3, removed_why = $4 WHERE id = $1")
        .bind(study)
        .bind(ms)
        .bind(&who)
        .bind(actor.map(|_| why.as_str()))
        .execute(&mut *db)
        .await?;
    note(&mut *db, study, now, "removed", actor, &why).await?;
    let transfers: Vec<i64> = db
        .query("SELECT id FROM transfer WHERE study = $1 ORDER BY id")
        .bind(study)
        .scalars(&mut *db)
        .await?;
    for transfer in transfers {
        timeline::add(&mut *db, transfer, now, EventKind::Removed, actor, Some(&why)).await?;
    }
    Ok(Removal::Decided { images: found.images, bytes: found.bytes })
}

/// Puts a study under a hold, or takes it off. False if there is no such study.
pub(super) async fn hold(
    db: &mut Db,
    uid: &StudyInstanceUid,
    held: bool,
    actor: &str,
    why: &str,
    now: Timestamp,
) -> sqlx::Result<bool> {
    // A removal that is being decided comes first, or sees the hold.
    lock::studies(&mut *db, std::iter::once(uid)).await?;
    let Some(study) = row_id(&mut *db, uid).await? else { return Ok(false) };
    let is_held: Option<i64> = db
        .query("SELECT held_at FROM study WHERE id = $1 AND held_at IS NOT NULL")
        .bind(study)
        .optional_scalar(&mut *db)
        .await?;
    if is_held.is_some() == held {
        return Ok(true);
    }
    db.query("UPDATE study SET held_at = $2, held_by = $3, held_why = $4 WHERE id = $1")
        .bind(study)
        .bind(held.then_some(now.as_millisecond()))
        .bind(held.then_some(actor))
        .bind(held.then_some(why))
        .execute(&mut *db)
        .await?;
    note(db, study, now, if held { "held" } else { "released" }, Some(actor), why).await?;
    Ok(true)
}

pub(super) async fn note(
    db: &mut Db,
    study: i64,
    at: Timestamp,
    kind: &'static str,
    actor: Option<&str>,
    why: &str,
) -> sqlx::Result<()> {
    db.query("INSERT INTO study_event (study, at, kind, actor, why) VALUES ($1, $2, $3, $4, $5)")
        .bind(study)
        .bind(at.as_millisecond())
        .bind(kind)
        .bind(actor)
        .bind(why)
        .execute(db)
        .await?;
    Ok(())
}

/// A hold, a release or a removal.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct StudyEvent {
    /// When.
    pub at: Timestamp,
    /// `held`, `released`, `removed`, `returned`, `shared` or `unshared`.
    pub kind: String,
    /// The person who did it; `None` where a rule did.
    pub actor: Option<String>,
    /// Why.
    pub why: Option<String>,
}

/// What was decided about keeping a study, oldest first.
pub(super) async fn events(db: &mut Db, study: i64) -> sqlx::Result<Vec<StudyEvent>> {
    let rows = db
        .query("SELECT at, kind, actor, why FROM study_event WHERE study = $1 ORDER BY id")
        .bind(study)
        .fetch_all(db)
        .await?;
    rows.iter()
        .map(|row| {
            Ok(StudyEvent {
                at: moment(row, "at")?,
                kind: row.try_get("kind")?,
                actor: row.try_get("actor")?,
                why: row.try_get("why")?,
            })
        })
        .collect()
}

/// Notes that images of a study which had been removed are here again.
pub(super) async fn returned(db: &mut Db, study: i64, at: Timestamp) -> sqlx::Result<()> {
    let query = db.query(
        "UPDATE study SET removed_at = NULL, removed_by = NULL, removed_why = NULL \
         WHERE id = $1 AND removed_at IS NOT NULL",
    );
    if query.bind(study).execute(&mut *db).await? > 0 {
        note(db, study, at, "returned", None, "its images were sent again").await?;
    }
    Ok(())
}

/// Objects whose deletion was decided and is not known to be done.
pub(super) async fn unfinished(db: &mut Db, limit: u32) -> sqlx::Result<Vec<ObjectId>> {
    let rows = db
        .query("SELECT object FROM deletion WHERE done_at IS NULL ORDER BY object LIMIT $1")
        .bind(i64::from(limit))
        .fetch_all(db)
        .await?;
    rows.iter().map(|row| parsed(row, "object")).collect()
}

/// Notes that these are gone.
pub(super) async fn done(db: &mut Db, objects: &[ObjectId], now: Timestamp) -> sqlx::Result<()> {
    for objects in objects.chunks(db::MOST) {
        let mut query = db.query("UPDATE deletion SET done_at = ");
        query.push_bind(now.as_millisecond()).push(" WHERE done_at IS NULL AND object ");
        query.push_in(objects.iter().map(ToString::to_string));
        query.execute(&mut *db).await?;
    }
    Ok(())
}

/// Which of these were decided to be removed.
pub(super) async fn removed(db: &mut Db, objects: &[ObjectId]) -> sqlx::Result<HashSet<ObjectId>> {
    let mut removed = HashSet::new();
    for objects in objects.chunks(db::MOST) {
        let mut query = db.query("SELECT object FROM deletion WHERE object ");
        query.push_in(objects.iter().map(ToString::to_string));
        for row in query.fetch_all(&mut *db).await? {
            removed.insert(parsed(&row, "object")?);
        }
    }
    Ok(removed)
}

/// Who decided that an object goes, and when; `None` if nobody did.
pub(super) async fn removal_of(db: &mut Db, object: ObjectId) -> sqlx::Result<Option<Decision>> {
    let row = db
        .query("SELECT at, COALESCE(actor, why) AS who, why FROM deletion WHERE object = $1")
        .bind(object.to_string())
        .fetch_optional(db)
        .await?;
    row.map(|row| {
        Ok(Decision {
            at: moment(&row, "at")?,
            by: row.try_get("who")?,
            reason: row.try_get("why")?,
        })
    })
    .transpose()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::strategy::ValueTree;

    use super::super::samples::{On, accepted, at, claim, ct, deferred, index, on_both, refused};
    use super::super::{Index, RecordedAs, StudyFilter, TransferFilter};
    use super::*;
    use crate::facts::Priority;

    on_both![
        what_is_needed_is_not_removed_by_anybody,
        a_removal_is_on_record_and_its_rows_stay,
        a_decision_about_what_has_changed_since_is_none,
        what_was_removed_comes_back_only_if_it_is_sent_again,
        what_is_lost_is_no_reason_to_take_the_same_bytes_for_a_repeat,
        what_cannot_go_any_more_is_not_asked_for_again,
        what_a_partner_lost_after_its_removal_here_waits_until_it_comes_again,
        whatever_happens_nothing_that_is_owed_is_removed,
    ];

    const ANNA: Remover<'static> = Remover::Person { name: "anna", reason: "asked to" };

    fn uid(study: u32) -> StudyInstanceUid {
        format!("1.2.{study}").parse().unwrap()
    }

    async fn rest(index: &Index) -> StudyAtRest {
        index.study_at_rest(&uid(1)).await.unwrap().unwrap()
    }

    async fn remove(index: &Index) -> Removal {
        index.remove_images(&rest(index).await, ANNA, at(100)).await.unwrap()
    }

    /// One image, stored, delivered to York, and nothing is being received.
    async fn sent(index: &Index) -> super::super::Arrival {
        let arrival = ct(1, 1).to("york", Priority::Routine);
        let recorded = index.record(std::slice::from_ref(&arrival)).await.unwrap();
        index.mark_stored(&[arrival.facts.object]).await.unwrap();
        let held = claim(index, "york", 9, 2).await;
        index.settle(&[(held[0], accepted(3))], at(3)).await.unwrap();
        index.note_received_all(&recorded[0].transfers, at(4)).await.unwrap();
        arrival
    }

    async fn what_is_needed_is_not_removed_by_anybody(on: On) {
        let (index, _dir) = index(on).await;
        let arrival = ct(1, 1).to("york", Priority::Routine);
        let transfers =
            index.record(std::slice::from_ref(&arrival)).await.unwrap().remove(0).transfers;
        let needed = Removal::Needed;
        assert_eq!(remove(&index).await, needed(Needed::Owed), "queued");
        let held = claim(&index, "york", 1, 2).await;
        assert_eq!(remove(&index).await, needed(Needed::Owed), "sending");
        index.settle(&[(held[0], deferred(9))], at(3)).await.unwrap();
        assert_eq!(remove(&index).await, needed(Needed::Owed), "deferred");
        let held = claim(&index, "york", 1, 10).await;
        index.settle(&[(held[0], refused())], at(11)).await.unwrap();
        assert_eq!(remove(&index).await, needed(Needed::Owed), "failed");
        index.cancel(transfers[0], "anna", "stays here", at(12)).await.unwrap();
        assert_eq!(remove(&index).await, needed(Needed::Receiving));
        index.note_received_all(&transfers, at(13)).await.unwrap();
        assert_eq!(remove(&index).await, needed(Needed::NotStored));
        index.mark_stored(&[arrival.facts.object]).await.unwrap();
        assert!(index.hold(&uid(1), true, "anna", "coroner", at(14)).await.unwrap());
        assert_eq!(remove(&index).await, needed(Needed::Held));
        let shown = index.studies(&StudyFilter::default()).await.unwrap().remove(0).held.unwrap();
        assert_eq!((shown.by.as_str(), shown.reason.as_deref()), ("anna", Some("coroner")));
        assert!(index.unfinished_deletions(9).await.unwrap().is_empty());

        assert!(index.hold(&uid(1), false, "ben", "closed", at(15)).await.unwrap());
        assert_eq!(remove(&index).await, Removal::Decided { images: 1, bytes: 524_288 });
        let events = index.study(&uid(1)).await.unwrap().unwrap().events;
        let kinds: Vec<_> = events.iter().map(|event| event.kind.as_str()).collect();
        assert_eq!(kinds, ["held", "released", "removed"]);
        assert!(!index.hold(&uid(9), true, "anna", "unknown", at(16)).await.unwrap());
    }

    async fn a_removal_is_on_record_and_its_rows_stay(on: On) {
        let (index, _dir) = index(on).await;
        let object = sent(&index).await.facts.object;
        let before = index.conservation().await.unwrap();

        remove(&index).await;

        assert_eq!(index.unfinished_deletions(9).await.unwrap(), [object]);
        let by = index.removal_of(object).await.unwrap().unwrap();
        assert_eq!((by.at, by.by.as_str()), (at(100), "anna"));
        index.note_deleted(&[object], at(101)).await.unwrap();
        assert!(index.unfinished_deletions(9).await.unwrap().is_empty());
        assert_eq!(index.conservation().await.unwrap(), before);
        let totals = index.totals().await.unwrap();
        assert_eq!((totals.instances, totals.removed, totals.bytes), (1, 1, 0));
        assert!(index.study_at_rest(&uid(1)).await.unwrap().is_none());
        assert!(index.at_rest(0, 9).await.unwrap().is_empty());
        let transfer = index.transfers(&TransferFilter::default()).await.unwrap().remove(0);
        let event = index.transfer(transfer.id).await.unwrap().unwrap().events.pop().unwrap();
        assert_eq!((event.kind, event.actor.as_deref()), (EventKind::Removed, Some("anna")));
        assert_eq!(transfer.study.removed.unwrap().at, at(100));
    }

    async fn a_decision_about_what_has_changed_since_is_none(on: On) {
        let (index, _dir) = index(on).await;
        sent(&index).await;
        let decided_on = rest(&index).await;
        let late = ct(1, 2);
        index.record(std::slice::from_ref(&late)).await.unwrap();
        index.mark_stored(&[late.facts.object]).await.unwrap();

        let removal = index.remove_images(&decided_on, Remover::Rule("all"), at(9)).await.unwrap();

        assert_eq!(removal, Removal::Changed);
        assert!(index.unfinished_deletions(9).await.unwrap().is_empty());
    }

    async fn what_is_lost_is_no_reason_to_take_the_same_bytes_for_a_repeat(on: On) {
        let (index, _dir) = index(on).await;
        let lost = sent(&index).await;
        let row = async || index.instance(&lost.facts.sop_instance).await.unwrap().remove(0);
        index.mark_lost(&[lost.facts.object], at(50)).await.unwrap();
        index.mark_lost(&[lost.facts.object], at(60)).await.unwrap();
        assert_eq!(row().await.lost_at, Some(at(50)));

        let again = lost.clone().again();
        let returned = index.record(std::slice::from_ref(&again)).await.unwrap().remove(0);
        let repeat = index.record(&[lost.clone().again()]).await.unwrap().remove(0);

        assert_eq!(returned.outcome, RecordedAs::Returned);
        assert_eq!(repeat.outcome, RecordedAs::Repeat { of: again.facts.object });
        assert_eq!((row().await.object, row().await.lost_at), (again.facts.object, None));
        assert_eq!(index.unfinished_deletions(9).await.unwrap(), [lost.facts.object]);
        index.mark_lost(&[again.facts.object], at(70)).await.unwrap();
        index.mark_stored(&[again.facts.object]).await.unwrap();
        assert_eq!(row().await.lost_at, None, "it was found");
    }

    async fn what_was_removed_comes_back_only_if_it_is_sent_again(on: On) {
        let (index, _dir) = index(on).await;
        let arrival = sent(&index).await;
        remove(&index).await;

        // A crash left the object, or its spool file, behind: before and after it came again.
        let left_behind = index.record(std::slice::from_ref(&arrival)).await.unwrap().remove(0);
        assert!(index.knows(&[arrival.facts.object]).await.unwrap().is_empty());
        let again = arrival.clone().again().to("leeds", Priority::Routine);
        let returned = index.record(std::slice::from_ref(&again)).await.unwrap().remove(0);
        let still = index.record(std::slice::from_ref(&arrival)).await.unwrap().remove(0);

        assert_eq!(
            (left_behind.outcome, still.outcome),
            (RecordedAs::Removed, RecordedAs::Removed)
        );
        assert_eq!(returned.outcome, RecordedAs::Returned);
        assert_eq!(returned.ordered, [("leeds".to_owned(), Priority::Routine)]);
        let row = index.instance(&again.facts.sop_instance).await.unwrap().remove(0);
        assert_eq!((row.object, row.stored, row.removed_at), (again.facts.object, false, None));
        assert_eq!(index.unstored(9).await.unwrap(), [again.facts.object]);
        assert_eq!(index.unfinished_deletions(9).await.unwrap(), [arrival.facts.object]);
        let york = index.conservation().await.unwrap().into_iter().find(|p| p.partner == "york");
        assert_eq!(york.unwrap().delivered, 1, "what was delivered stays so");
        assert!(index.study(&uid(1)).await.unwrap().unwrap().study.removed.is_none());
        let repeat = index.record(&[again.clone().again()]).await.unwrap().remove(0);
        assert_eq!(repeat.outcome, RecordedAs::Repeat { of: again.facts.object });
    }

    async fn what_cannot_go_any_more_is_not_asked_for_again(on: On) {
        let (index, _dir) = index(on).await;
        let arrival = ct(1, 1).to("york", Priority::Routine);
        let transfers =
            index.record(std::slice::from_ref(&arrival)).await.unwrap().remove(0).transfers;
        index.mark_stored(&[arrival.facts.object]).await.unwrap();
        index.cancel(transfers[0], "anna", "stays here", at(5)).await.unwrap();
        index.note_received_all(&transfers, at(6)).await.unwrap();
        remove(&index).await;

        let moved = index.retry(transfers[0], "anna", "", at(200)).await.unwrap();

        assert_eq!(moved, 0);
        assert!(claim(&index, "york", 9, 300).await.is_empty());
        let transfer = index.transfer(transfers[0]).await.unwrap().unwrap().transfer;
        assert!(transfer.cancelled.is_some() && transfer.counts.cancelled == 1);
        let events = index.transfer(transfers[0]).await.unwrap().unwrap().events;
        assert!(events.iter().all(|event| event.kind != EventKind::Retried), "{events:?}");
    }

    async fn what_a_partner_lost_after_its_removal_here_waits_until_it_comes_again(on: On) {
        let (index, _dir) = index(on).await;
        let arrival = ct(1, 1).to("york", Priority::Routine);
        let transfers =
            index.record(std::slice::from_ref(&arrival)).await.unwrap().remove(0).transfers;
        index.mark_stored(&[arrival.facts.object]).await.unwrap();
        let sent = claim(&index, "york", 1, 1).await;
        index.settle(&[(sent[0], accepted(2))], at(2)).await.unwrap();
        index.note_received_all(&transfers, at(3)).await.unwrap();
        remove(&index).await;

        let lost = index.lose(&sent, "it does not have it", at(200)).await.unwrap();

        assert_eq!((lost.again, lost.set_aside), (0, 1));
        let problem = index.transfer(transfers[0]).await.unwrap().unwrap().transfer.problem;
        let why = problem.unwrap().text;
        assert_eq!(why, "it does not have it; the images were removed here since");
        assert_eq!(index.retry(transfers[0], "anna", "", at(201)).await.unwrap(), 0);

        index.record(&[arrival.again()]).await.unwrap();
        assert_eq!(index.retry(transfers[0], "anna", "", at(202)).await.unwrap(), 1);
        assert_eq!(claim(&index, "york", 9, 300).await, sent);
    }

    /// Chance decides what happens; whatever may be claimed afterwards has its images.
    async fn whatever_happens_nothing_that_is_owed_is_removed(on: On) {
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let steps = prop::collection::vec((0..7_u8, 0..3_u32, 0..3_u32), 40);
        for _ in 0..6 {
            let steps = steps.new_tree(&mut runner).unwrap().current();
            let (index, _dir) = index(on).await;
            for (second, (step, study, number)) in steps.into_iter().enumerate() {
                let now = i64::try_from(second).unwrap() * 100;
                let transfers = index.transfers(&TransferFilter::default()).await.unwrap();
                let ids: Vec<_> = transfers.iter().map(|transfer| transfer.id).collect();
                match step {
                    0 | 1 => {
                        let arrival = ct(study, number).again().to("york", Priority::Routine);
                        index.record(&[arrival]).await.unwrap();
                    }
                    2 => {
                        let held = claim(&index, "york", 2, now).await;
                        let outcomes: Vec<_> = held.iter().map(|id| (*id, accepted(now))).collect();
                        index.settle(&outcomes, at(now)).await.unwrap();
                    }
                    3 => index.note_received_all(&ids, at(now)).await.unwrap(),
                    4 => {
                        let unstored = index.unstored(9).await.unwrap();
                        index.mark_stored(&unstored).await.unwrap();
                    }
                    5 => {
                        for id in ids.iter().take(1) {
                            let act = number == 0;
                            let who = "anna";
                            if act {
                                index.cancel(*id, who, "", at(now)).await.unwrap();
                            } else {
                                index.retry(*id, who, "", at(now)).await.unwrap();
                            }
                        }
                    }
                    _ => {
                        for found in index.at_rest(0, 9).await.unwrap() {
                            index.remove_images(&found, ANNA, at(now)).await.unwrap();
                        }
                    }
                }
                for transfer in index.transfers(&TransferFilter::default()).await.unwrap() {
                    for row in index.deliveries(transfer.id).await.unwrap() {
                        let owed = !matches!(row.delivery.name(), "delivered" | "cancelled");
                        let gone = index.removal_of(row.object).await.unwrap().is_some();
                        assert!(!(owed && gone), "{} is owed and gone", row.sop_instance_uid);
                    }
                }
                assert!(index.conservation().await.unwrap().iter().all(|partner| {
                    partner.ordered
                        == partner.delivered
                            + partner.waiting
                            + partner.set_aside
                            + partner.cancelled
                }));
            }
        }
    }
}
