//! Recalls: a person decided that a partner should not have had a study.
//!
//! What has not left stays, as when a transfer is cancelled. Where the partner takes a note of it (IHE RAD IOCM: a Key Object
//! Selection that rejects what it names), its SOP Instance UID is fixed in the same transaction, and the note is made when
//! nothing of the transfer is on the wire any more, as it names all that was accepted. It comes in as any instance does, and
//! is the only one that a recalled transfer sends: it is known by that UID.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::dicom::{SeriesInstanceUid, SopClassUid, SopInstanceUid};
use crate::facts::{Priority, Purpose};

use super::db::{Db, Row};
use super::study::{self, StudySummary};
use super::timeline::{self, EventKind};
use super::transfer::{Decision, TransferId};
use super::words::words;
use super::{optional, parsed, priority, unsigned};

/// Why something is rejected: the titles of such notes (PS3.16 CID 7010).
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rejection {
    /// They are no good.
    Quality,
    /// They may harm somebody: another patient's, another side, or not for those eyes.
    #[default]
    PatientSafety,
    /// They were made under the wrong entry of a worklist.
    WrongWorklistEntry,
    /// They may not be kept any longer.
    RetentionExpired,
}

words!(Rejection {
    Quality = "quality",
    PatientSafety = "patient-safety",
    WrongWorklistEntry = "wrong-worklist-entry",
    RetentionExpired = "retention-expired",
});

/// That a transfer was recalled.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Recalled {
    /// Who, when and why.
    #[serde(flatten)]
    pub decision: Decision,
    /// Why, in the words of the standard.
    pub rejection: Rejection,
    /// The note of it that goes to the partner; `None` where it takes none, or had got nothing.
    pub note: Option<Note>,
}

/// The note of a recall.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Note {
    /// Its SOP Instance UID.
    pub sop_instance_uid: SopInstanceUid,
    /// When it was made, and is on its way since.
    pub made_at: Option<Timestamp>,
    /// How many images it rejects.
    pub images: u64,
    /// When the partner accepted it.
    pub accepted_at: Option<Timestamp>,
}

/// A note that is to be made.
#[derive(Clone, Debug)]
pub struct NoteWanted {
    /// Of which transfer.
    pub transfer: TransferId,
    /// For which partner.
    pub partner: String,
    /// How soon.
    pub priority: Priority,
    /// Why the images went.
    pub purpose: Purpose,
    /// What was recalled.
    pub study: StudySummary,
    /// Its SOP Instance UID.
    pub sop_instance: SopInstanceUid,
    /// Who recalled it, when and why.
    pub decision: Decision,
    /// Why, in the words of the standard.
    pub rejection: Rejection,
    /// All that the partner accepted, in the order of series and instances.
    pub accepted: Vec<Accepted>,
}

/// An instance that a partner accepted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Accepted {
    /// Its Series Instance UID.
    pub series: SeriesInstanceUid,
    /// Its SOP Class UID.
    pub sop_class: SopClassUid,
    /// Its SOP Instance UID.
    pub sop_instance: SopInstanceUid,
}

/// What a transfer's row says of a recall.
pub(super) fn read(row: &Row) -> sqlx::Result<Option<Recalled>> {
    let decision = super::transfer::decision(row, "recalled_at", "recalled_by", "recalled_why")?;
    let Some(decision) = decision else { return Ok(None) };
    let moment = |column| -> sqlx::Result<Option<Timestamp>> {
        row.try_get::<Option<i64>>(column)?.map(super::timestamp).transpose()
    };
    let note = match optional(row, "recall_note")? {
        None => None,
        Some(sop_instance_uid) => Some(Note {
            sop_instance_uid,
            made_at: moment("recall_made_at")?,
            images: unsigned(row, "recall_images")?,
            accepted_at: moment("recall_accepted_at")?,
        }),
    };
    Ok(Some(Recalled { decision, rejection: parsed(row, "recall_code")?, note }))
}

/// Writes the decision. What is asked of the partner about the images has no point any more.
pub(super) async fn write(
    db: &mut Db,
    transfer: i64,
    (actor, reason): (&str, &str),
    (rejection, note): (Rejection, Option<&SopInstanceUid>),
    now: Timestamp,
) -> sqlx::Result<()> {
    db.query(
        "UPDATE transfer SET recalled_at = $2, recalled_by = $3, recalled_why = $4, recall_code = $5, recall_note = $6, \
         proof_due = NULL WHERE id = $1",
    )
    .bind(transfer)
    .bind(now.as_millisecond())
    .bind(actor)
    .bind(reason.trim())
    .bind(rejection.as_str())
    .bind(note.map(|note| note.as_str().to_owned()))
    .execute(db)
    .await?;
    Ok(())
}

/// Notes that are to be made, oldest first. One waits for what is on the wire at this moment: that may still be accepted.
pub(super) async fn wanted(db: &mut Db, limit: u32) -> sqlx::Result<Vec<NoteWanted>> {
    let rows = db
        .query(
            "SELECT t.* FROM transfer t WHERE t.recall_note IS NOT NULL AND t.recall_made_at IS NULL AND NOT EXISTS \
             (SELECT 1 FROM delivery d WHERE d.transfer = t.id AND d.state = 'sending') ORDER BY t.id LIMIT $1",
        )
        .bind(i64::from(limit))
        .fetch_all(&mut *db)
        .await?;
    let mut all = Vec::with_capacity(rows.len());
    for row in &rows {
        let study: i64 = row.try_get("study")?;
        let mut studies = study::summaries(&mut *db, &[study]).await?;
        let (Some(study), Some(recalled)) = (studies.remove(&study), read(row)?) else { continue };
        let Some(note) = recalled.note else { continue };
        all.push(NoteWanted {
            transfer: parsed(row, "ulid")?,
            partner: row.try_get("partner")?,
            priority: priority(row, "priority")?,
            purpose: parsed(row, "purpose")?,
            study,
            sop_instance: note.sop_instance_uid,
            decision: recalled.decision,
            rejection: recalled.rejection,
            accepted: accepted(&mut *db, row.try_get("id")?).await?,
        });
    }
    Ok(all)
}

async fn accepted(db: &mut Db, transfer: i64) -> sqlx::Result<Vec<Accepted>> {
    let rows = db
        .query(
            "SELECT DISTINCT s.uid, i.sop_class, i.sop_instance FROM delivery d JOIN instance i ON i.id = d.instance \
             JOIN series s ON s.id = i.series WHERE d.transfer = $1 AND d.state = 'delivered' \
             ORDER BY s.uid, i.sop_instance",
        )
        .bind(transfer)
        .fetch_all(db)
        .await?;
    rows.iter()
        .map(|row| {
            Ok(Accepted {
                series: parsed(row, "uid")?,
                sop_class: parsed(row, "sop_class")?,
                sop_instance: parsed(row, "sop_instance")?,
            })
        })
        .collect()
}

/// Notes that the note of a transfer is safe in the spool, and what it rejects; without anything to reject there is none.
pub(super) async fn made(
    db: &mut Db,
    id: TransferId,
    images: u64,
    now: Timestamp,
) -> sqlx::Result<()> {
    db.query(
        "UPDATE transfer SET recall_made_at = $2, recall_images = $3, \
         recall_note = CASE WHEN $3 = 0 THEN NULL ELSE recall_note END WHERE ulid = $1 AND recall_made_at IS NULL",
    )
    .bind(id.to_string())
    .bind(now.as_millisecond())
    .bind(i64::try_from(images).unwrap_or(i64::MAX))
    .execute(db)
    .await?;
    Ok(())
}

/// Notes that the partner accepted the note of a transfer, once.
pub(super) async fn note_accepted(db: &mut Db, transfer: i64, now: Timestamp) -> sqlx::Result<()> {
    let first = db
        .query(
            "UPDATE transfer SET recall_accepted_at = $2, proof_due = $2, proof_tries = 0, proven_by = NULL, \
             unproven_why = NULL, confirmed_at = NULL WHERE id = $1 AND recall_note IS NOT NULL \
             AND recall_accepted_at IS NULL",
        )
        .bind(transfer)
        .bind(now.as_millisecond())
        .execute(&mut *db)
        .await?;
    if first > 0 {
        timeline::add(db, transfer, now, EventKind::RecallAccepted, None, None).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::samples::{
        On, accepted as accept, at, claim, ct, deferred, index, on_both, refused, transfer,
    };
    use super::super::{Index, TransferState};
    use super::*;

    on_both![
        a_recall_stops_what_has_not_left_and_notes_all_that_was_accepted,
        a_note_is_sent_and_nothing_else_of_a_recalled_transfer,
        a_recall_without_a_note_can_be_taken_back,
        nothing_is_noted_where_nothing_had_arrived,
    ];

    const URGENT: Priority = Priority::Urgent;
    const NOTE: &str = "1.2.99";

    async fn recall(index: &Index, id: TransferId, note: Option<&str>, second: i64) -> u64 {
        let note = note.map(|note| note.parse().unwrap());
        let reason = "another patient's";
        let code = Rejection::PatientSafety;
        index.recall(id, "dr-jones", reason, code, note.as_ref(), at(second)).await.unwrap()
    }

    async fn recalled(index: &Index, id: TransferId) -> Recalled {
        index.transfer(id).await.unwrap().unwrap().transfer.recalled.unwrap()
    }

    async fn a_recall_stops_what_has_not_left_and_notes_all_that_was_accepted(on: On) {
        let (index, _dir) = index(on).await;
        let three = [1, 2, 3].map(|number| ct(1, number).to("york", URGENT));
        let id = transfer(&index, &three).await;
        let held = claim(&index, "york", 2, 0).await;
        index.settle(&[(held[0], accept(1))], at(1)).await.unwrap();

        assert_eq!(recall(&index, id, Some(NOTE), 2).await, 1, "the one that nobody had claimed");
        assert_eq!(recall(&index, id, Some("1.2.98"), 3).await, 0, "once");

        let decision = recalled(&index, id).await.decision;
        assert_eq!((decision.by.as_str(), decision.at), ("dr-jones", at(2)));
        assert_eq!(decision.reason.as_deref(), Some("another patient's"));
        let state = |transfer| TransferState::of(&transfer, false);
        let summary = index.transfer(id).await.unwrap().unwrap().transfer;
        assert_eq!(state(summary), TransferState::Recalled);
        assert!(index.notes_wanted(9).await.unwrap().is_empty(), "one is still on the wire");
        index.settle(&[(held[1], accept(3))], at(3)).await.unwrap();
        let [wanted] = &index.notes_wanted(9).await.unwrap()[..] else { panic!("one note") };
        assert_eq!((wanted.sop_instance.as_str(), wanted.accepted.len()), (NOTE, 2));
        assert_eq!((wanted.partner.as_str(), wanted.priority), ("york", URGENT));
    }

    async fn a_note_is_sent_and_nothing_else_of_a_recalled_transfer(on: On) {
        let (index, _dir) = index(on).await;
        let id = transfer(&index, &[ct(1, 1).to("york", URGENT)]).await;
        let held = claim(&index, "york", 1, 0).await;
        index.settle(&[(held[0], accept(1))], at(1)).await.unwrap();
        recall(&index, id, Some(NOTE), 2).await;
        index.note_made(id, 1, at(3)).await.unwrap();
        assert!(index.notes_wanted(9).await.unwrap().is_empty());

        let mut note = ct(1, 99).to("york", URGENT);
        note.facts.sop_instance = NOTE.parse().unwrap();
        index.record(&[note, ct(1, 2).to("york", URGENT)]).await.unwrap();

        let held = claim(&index, "york", 9, 10).await;
        assert_eq!(held.len(), 1, "late images stay");
        index.settle(&[(held[0], deferred(20))], at(11)).await.unwrap();
        let held = claim(&index, "york", 9, 30).await;
        index.settle(&[(held[0], refused())], at(31)).await.unwrap();
        assert_eq!(
            index.cancel(id, "dr-jones", "no", at(32)).await.unwrap(),
            0,
            "the note is owed"
        );
        let state = TransferState::of(&index.transfer(id).await.unwrap().unwrap().transfer, false);
        assert_eq!(state, TransferState::NeedsAction, "the partner did not take it");
        assert_eq!(
            index.retry(id, "dr-jones", "", at(33)).await.unwrap(),
            1,
            "the note, and no image"
        );
        let held = claim(&index, "york", 9, 40).await;
        index.settle(&[(held[0], accept(41))], at(41)).await.unwrap();

        let note = recalled(&index, id).await.note.unwrap();
        assert_eq!((note.images, note.made_at, note.accepted_at), (1, Some(at(3)), Some(at(41))));
        let detail = index.transfer(id).await.unwrap().unwrap();
        assert_eq!(TransferState::of(&detail.transfer, false), TransferState::Recalled);
        assert_eq!((detail.transfer.counts.delivered, detail.transfer.counts.cancelled), (2, 1));
        let kinds: Vec<_> = detail.events.iter().map(|event| event.kind).collect();
        assert!(kinds.contains(&EventKind::Recalled) && kinds.contains(&EventKind::RecallAccepted));
    }

    async fn a_recall_without_a_note_can_be_taken_back(on: On) {
        let (index, _dir) = index(on).await;
        let id = transfer(&index, &[ct(1, 1).to("york", URGENT)]).await;
        assert_eq!(recall(&index, id, None, 1).await, 1);
        assert!(index.notes_wanted(9).await.unwrap().is_empty());

        assert_eq!(index.retry(id, "dr-jones", "a slip", at(2)).await.unwrap(), 1);

        let summary = index.transfer(id).await.unwrap().unwrap().transfer;
        assert!(summary.recalled.is_none() && summary.cancelled.is_none());
        assert_eq!(claim(&index, "york", 9, 3).await.len(), 1);
    }

    async fn nothing_is_noted_where_nothing_had_arrived(on: On) {
        let (index, _dir) = index(on).await;
        let id = transfer(&index, &[ct(1, 1).to("york", URGENT)]).await;
        recall(&index, id, Some(NOTE), 1).await;
        let [wanted] = &index.notes_wanted(9).await.unwrap()[..] else { panic!("one note") };
        assert!(wanted.accepted.is_empty());

        index.note_made(id, 0, at(2)).await.unwrap();

        assert_eq!(recalled(&index, id).await.note, None);
        assert!(index.notes_wanted(9).await.unwrap().is_empty());
    }
}
