//! Whether partners hold what they accepted: what is to be asked, what was asked, and what was proven.
//!
//! A transfer is due when all of it was sent. Taking it sets the time at which it is due again, so that an answer that does
//! not come, and a crash, cost one wait and nothing else. A report is believed for what that partner was asked to commit to,
//! and for nothing else, however late it comes. A transfer is confirmed when nothing of what was delivered is unproven.

use std::collections::{BTreeMap, HashMap, HashSet};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::dicom::{SeriesInstanceUid, SopClassUid, SopInstanceUid, StudyInstanceUid, Uid};
use crate::facts::Priority;

use super::db::{self, Db};
use super::outbox::{self, Lost};
use super::timeline::{self, EventKind};
use super::transfer::TransferId;
use super::words::words;
use super::{DeliveryId, parsed, priority, unsigned};

/// For how long a report is waited for. Whoever answers later is asked again by then.
const KEPT: SignedDuration = SignedDuration::from_hours(24 * 14);

/// What proved that a partner holds a transfer.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProvenBy {
    /// It committed to keep each instance (PS3.4 Annex J).
    StorageCommitment,
    /// A query at the partner listed each instance.
    ImageQuery,
    /// A query at the partner counted as many in each series.
    CountQuery,
}

words!(ProvenBy {
    StorageCommitment = "storage-commitment",
    ImageQuery = "image-query",
    CountQuery = "count-query",
});

/// A delivery that the partner accepted, and is not proven to hold.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Unproven {
    /// The delivery.
    pub delivery: DeliveryId,
    /// Its SOP Class UID.
    pub sop_class: SopClassUid,
    /// Its SOP Instance UID.
    pub sop_instance: SopInstanceUid,
    /// Its Series Instance UID.
    pub series: SeriesInstanceUid,
    /// Under which protection it left; none: as it was received.
    pub protection: Option<String>,
}

/// A delivery that a partner is asked to commit to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AskedFor {
    /// The delivery.
    pub delivery: DeliveryId,
    /// The SOP Instance UID under which the partner knows it, where that is not its own.
    pub asked_as: Option<SopInstanceUid>,
}

impl From<DeliveryId> for AskedFor {
    fn from(delivery: DeliveryId) -> Self {
        Self { delivery, asked_as: None }
    }
}

/// A transfer that its partner is to be asked about.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ProofWanted {
    /// Its name.
    pub transfer: TransferId,
    /// Its study.
    pub study: StudyInstanceUid,
    /// How soon.
    pub priority: Priority,
    /// How often it was asked about before, since all was sent.
    pub tries: u32,
    /// When all was sent.
    pub all_sent_at: Timestamp,
    /// How many of each series were delivered, the proven ones included.
    pub delivered: BTreeMap<SeriesInstanceUid, u64>,
    /// What is to be proven.
    pub unproven: Vec<Unproven>,
}

/// What a partner reports of a transaction (PS3.4 J.3.3).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Report {
    /// Transaction UID.
    pub transaction: Uid,
    /// What it commits to keep.
    pub held: Vec<SopInstanceUid>,
    /// What it does not, and the Failure Reason.
    pub failed: Vec<(SopInstanceUid, u16)>,
}

/// What came of a report.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Reported {
    /// The partner commits to so many.
    pub confirmed: u64,
    /// It does not have these.
    pub lost: Lost,
    /// It cannot say, or does not commit, for so many; and the reason of one of them.
    pub unsaid: Option<(u64, u16)>,
}

/// Failure Reason: there is no such object instance (PS3.3 C.14.1.1).
const NO_SUCH_INSTANCE: u16 = 0x0112;

/// The partners for which something is due.
pub(super) async fn partners(db: &mut Db, now: Timestamp) -> sqlx::Result<Vec<String>> {
    db.query("SELECT DISTINCT partner FROM transfer WHERE proof_due IS NOT NULL AND proof_due <= $1 ORDER BY partner")
        .bind(now.as_millisecond())
        .scalars(db)
        .await
}

/// The transfer that is due longest, most urgent first.
pub(super) async fn take(
    db: &mut Db,
    partner: &str,
    now: Timestamp,
    again: &impl Fn(Priority, u32) -> Timestamp,
) -> sqlx::Result<Option<ProofWanted>> {
    const DUE: &str = "SELECT t.*, s.uid AS study_uid FROM transfer t JOIN study s ON s.id = t.study \
                       WHERE t.partner = $1 AND t.proof_due IS NOT NULL AND t.proof_due <= $2 \
                       ORDER BY t.priority, t.proof_due LIMIT 1";
    const LOCKED: &str = "SELECT t.*, s.uid AS study_uid FROM transfer t JOIN study s ON s.id = t.study \
                          WHERE t.partner = $1 AND t.proof_due IS NOT NULL AND t.proof_due <= $2 \
                          ORDER BY t.priority, t.proof_due LIMIT 1 FOR UPDATE OF t SKIP LOCKED";
    let query = db.query_either(DUE, LOCKED).bind(partner).bind(now.as_millisecond());
    let Some(row) = query.fetch_optional(&mut *db).await? else { return Ok(None) };
    let id: i64 = row.try_get("id")?;
    // Of what was recalled only the note is asked for: the images may well be gone there, which is what it asks for.
    let note: Option<String> = row.try_get("recall_note")?;
    let sent = match note {
        Some(_) => row.try_get::<Option<i64>>("recall_accepted_at")?,
        None => row.try_get::<Option<i64>>("all_sent_at")?,
    };
    let stopped = note.is_none() && row.try_get::<Option<i64>>("cancelled_at")?.is_some();
    let (tries, urgency) = (unsigned(&row, "proof_tries")?, priority(&row, "priority")?);
    let (delivered, unproven) = match sent {
        Some(_) if !stopped => deliveries(&mut *db, id, note.as_deref()).await?,
        _ => (BTreeMap::new(), Vec::new()),
    };
    // What was reopened or cancelled since is due again when all of it was sent.
    let due = (!unproven.is_empty()).then(|| again(urgency, tries).as_millisecond());
    db.query("UPDATE transfer SET proof_due = $2, proof_tries = proof_tries + 1 WHERE id = $1")
        .bind(id)
        .bind(due)
        .execute(&mut *db)
        .await?;
    Ok(Some(ProofWanted {
        transfer: parsed(&row, "ulid")?,
        study: parsed(&row, "study_uid")?,
        priority: urgency,
        tries,
        all_sent_at: sent.map_or(Ok(now), super::timestamp)?,
        delivered,
        unproven,
    }))
}

async fn deliveries(
    db: &mut Db,
    transfer: i64,
    note: Option<&str>,
) -> sqlx::Result<(BTreeMap<SeriesInstanceUid, u64>, Vec<Unproven>)> {
    let rows = db
        .query(
            "SELECT d.id, d.confirmed_at, d.protection, i.sop_class, i.sop_instance, s.uid AS series_uid FROM delivery d \
             JOIN instance i ON i.id = d.instance JOIN series s ON s.id = i.series \
             WHERE d.transfer = $1 AND d.state = 'delivered' AND ($2 IS NULL OR i.sop_instance = $2) ORDER BY d.id",
        )
        .bind(transfer)
        .bind(note.map(str::to_owned))
        .fetch_all(db)
        .await?;
    let (mut delivered, mut seen, mut unproven) = (BTreeMap::new(), HashSet::new(), Vec::new());
    for row in &rows {
        let series: SeriesInstanceUid = parsed(row, "series_uid")?;
        let sop_instance: SopInstanceUid = parsed(row, "sop_instance")?;
        // Two versions of one instance are one at the partner.
        if seen.insert(sop_instance.clone()) {
            *delivered.entry(series.clone()).or_default() += 1;
        }
        if row.try_get::<Option<i64>>("confirmed_at")?.is_none() {
            unproven.push(Unproven {
                delivery: DeliveryId(row.try_get("id")?),
                sop_class: parsed(row, "sop_class")?,
                sop_instance,
                series,
                protection: row.try_get("protection")?,
            });
        }
    }
    Ok((delivered, unproven))
}

/// Writes down what a partner is asked to commit to, and forgets what was asked long ago.
pub(super) async fn open(
    db: &mut Db,
    transaction: &Uid,
    partner: &str,
    asked: &[AskedFor],
    now: Timestamp,
) -> sqlx::Result<()> {
    let old = now.checked_sub(KEPT).unwrap_or(Timestamp::MIN).as_millisecond();
    db.query("DELETE FROM commitment_delivery WHERE commitment IN (SELECT id FROM commitment WHERE asked_at < $1)")
        .bind(old)
        .execute(&mut *db)
        .await?;
    db.query("DELETE FROM commitment WHERE asked_at < $1").bind(old).execute(&mut *db).await?;
    let id: i64 = db
        .query("INSERT INTO commitment (uid, partner, asked_at) VALUES ($1, $2, $3) RETURNING id")
        .bind(transaction.as_str())
        .bind(partner)
        .bind(now.as_millisecond())
        .scalar(&mut *db)
        .await?;
    db.for_rows(
        "INSERT INTO commitment_delivery (commitment, delivery, asked_as) SELECT * FROM ",
        ["commitment", "delivery", "asked_as"],
        asked
            .iter()
            .map(|one| {
                let asked_as = one.asked_as.as_ref().map(SopInstanceUid::as_str);
                [id.into(), one.delivery.0.into(), asked_as.into()]
            })
            .collect(),
        "",
    )
    .await?;
    Ok(())
}

/// Takes a report. What it says of instances that were not asked for under it is passed over.
pub(super) async fn reported(
    db: &mut Db,
    partner: &str,
    report: &Report,
    now: Timestamp,
) -> sqlx::Result<Option<Reported>> {
    let id: Option<i64> = db
        .query("SELECT id FROM commitment WHERE uid = $1 AND partner = $2")
        .bind(report.transaction.as_str())
        .bind(partner)
        .optional_scalar(&mut *db)
        .await?;
    let Some(id) = id else { return Ok(None) };
    let rows = db
        .query(
            "SELECT d.id, COALESCE(c.asked_as, i.sop_instance) AS sop_instance FROM commitment_delivery c JOIN delivery d ON d.id = c.delivery \
             JOIN instance i ON i.id = d.instance WHERE c.commitment = $1 AND d.state = 'delivered' ORDER BY d.id",
        )
        .bind(id)
        .fetch_all(&mut *db)
        .await?;
    let mut asked: HashMap<SopInstanceUid, Vec<DeliveryId>> = HashMap::with_capacity(rows.len());
    for row in &rows {
        let of = asked.entry(parsed(row, "sop_instance")?).or_default();
        of.push(DeliveryId(row.try_get("id")?));
    }
    // What is said to have failed is believed before what is said to be held.
    let (mut lost, mut unsaid) = (Vec::new(), None);
    for (instance, reason) in &report.failed {
        let Some(deliveries) = asked.remove(instance) else { continue };
        if *reason == NO_SUCH_INSTANCE {
            lost.extend(deliveries);
        } else {
            let (count, _) = unsaid.get_or_insert((0, *reason));
            *count += deliveries.len() as u64;
        }
    }
    if let Some((_, reason)) = unsaid {
        let mut query = db.query("UPDATE transfer SET unproven_why = ");
        query.push_bind(format!("it does not commit to keep all of the images ({reason:04X}H)"));
        query.push(
            " WHERE confirmed_at IS NULL AND id IN (SELECT d.transfer FROM commitment_delivery c \
             JOIN delivery d ON d.id = c.delivery WHERE c.commitment = ",
        );
        query.push_bind(id).push(")");
        query.execute(&mut *db).await?;
    }
    let held: Vec<_> =
        report.held.iter().filter_map(|instance| asked.remove(instance)).flatten().collect();
    let mut done: Vec<_> = held.iter().chain(&lost).map(|delivery| delivery.0).collect();
    done.sort_unstable();
    let confirmed = confirm(&mut *db, &held, ProvenBy::StorageCommitment, now).await?;
    let lost =
        outbox::lose(&mut *db, &lost, "the partner accepted it and does not have it (0112H)", now)
            .await?;
    for done in done.chunks(db::MOST) {
        let mut query = db.query("DELETE FROM commitment_delivery WHERE commitment = ");
        query.push_bind(id).push(" AND delivery ").push_in(done.iter().copied());
        query.execute(&mut *db).await?;
    }
    Ok(Some(Reported { confirmed, lost, unsaid }))
}

/// Notes that the partner holds these, and for which transfers that is all. What was lost or reopened since is not touched.
pub(super) async fn confirm(
    db: &mut Db,
    ids: &[DeliveryId],
    by: ProvenBy,
    now: Timestamp,
) -> sqlx::Result<u64> {
    super::lock::transfers_of(&mut *db, ids).await?;
    let (mut news, mut transfers) = (0, Vec::<i64>::new());
    for ids in ids.chunks(db::MOST) {
        let mut query = db.query("UPDATE delivery SET confirmed_at = ");
        query.push_bind(now.as_millisecond());
        query.push(" WHERE state = 'delivered' AND confirmed_at IS NULL AND id ");
        query.push_in(ids.iter().map(|id| id.0)).push(" RETURNING transfer");
        let confirmed: Vec<i64> = query.scalars(&mut *db).await?;
        news += confirmed.len() as u64;
        transfers.extend(confirmed);
    }
    transfers.sort_unstable();
    transfers.dedup();
    for transfer in transfers {
        let done = db
            .query(
                "UPDATE transfer SET confirmed_at = $2, proven_by = $3, unproven_why = NULL, proof_due = NULL \
                 WHERE id = $1 AND COALESCE(all_sent_at, recall_accepted_at) IS NOT NULL AND confirmed_at IS NULL AND NOT EXISTS \
                 (SELECT 1 FROM delivery d JOIN instance i ON i.id = d.instance WHERE d.transfer = $1 \
                  AND d.state = 'delivered' AND d.confirmed_at IS NULL \
                  AND (transfer.recall_note IS NULL OR i.sop_instance = transfer.recall_note))",
            )
            .bind(transfer)
            .bind(now.as_millisecond())
            .bind(by.as_str())
            .execute(&mut *db)
            .await?;
        if done > 0 {
            let detail = Some(by.as_str());
            timeline::add(&mut *db, transfer, now, EventKind::Confirmed, None, detail).await?;
        }
    }
    Ok(news)
}

/// Notes why a transfer is not proven.
pub(super) async fn not_proven(
    db: &mut Db,
    id: TransferId,
    why: &str,
    for_good: bool,
) -> sqlx::Result<()> {
    let mut query = db.query("UPDATE transfer SET unproven_why = ");
    query.push_bind(why);
    if for_good {
        query.push(", proof_due = NULL");
    }
    query.push(" WHERE confirmed_at IS NULL AND ulid = ").push_bind(id.to_string());
    query.execute(db).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::samples::{On, accepted, at, claim, ct, index, on_both, transfer};
    use super::super::{EventKind, Index, TransferState};
    use super::*;
    use crate::facts::Priority;

    on_both![
        a_transfer_is_due_when_all_of_it_was_sent_and_confirmed_when_all_of_it_is_proven,
        a_report_is_believed_for_what_that_partner_was_asked_and_nothing_else,
        what_a_partner_lost_goes_again_and_is_set_aside_the_third_time,
        what_comes_later_is_proven_again,
        what_cannot_be_proven_says_why_and_is_not_asked_again,
    ];

    const TRANSACTION: &str = "2.25.77";

    /// A transfer of so many, all of them accepted and the association that brought them ended.
    async fn sent(index: &Index, count: u32) -> TransferId {
        let arrivals: Vec<_> =
            (1..=count).map(|number| ct(1, number).to("york", Priority::Routine)).collect();
        let id = transfer(index, &arrivals).await;
        send(index, 10).await;
        index.note_received_all(&[id], at(11)).await.unwrap();
        id
    }

    async fn send(index: &Index, second: i64) -> usize {
        let claims = claim(index, "york", 100, second).await;
        let outcomes: Vec<_> = claims.iter().map(|id| (*id, accepted(second))).collect();
        index.settle(&outcomes, at(second)).await.unwrap();
        outcomes.len()
    }

    async fn take(index: &Index, second: i64) -> Option<ProofWanted> {
        index
            .take_proof("york", at(second), |_, tries| at(second + 5 + i64::from(tries)))
            .await
            .unwrap()
    }

    async fn state(index: &Index, id: TransferId) -> (TransferState, u64, Vec<EventKind>) {
        let detail = index.transfer(id).await.unwrap().unwrap();
        let kinds = detail.events.iter().map(|event| event.kind).collect();
        (TransferState::of(&detail.transfer, false), detail.transfer.confirmed, kinds)
    }

    fn report(transaction: &str, held: &[u32], failed: &[(u32, u16)]) -> Report {
        let uid = |number: &u32| format!("1.2.1.9.{number}").parse().unwrap();
        Report {
            transaction: transaction.parse().unwrap(),
            held: held.iter().map(uid).collect(),
            failed: failed.iter().map(|(number, reason)| (uid(number), *reason)).collect(),
        }
    }

    async fn ask(index: &Index, wanted: &ProofWanted) {
        let deliveries: Vec<_> = wanted.unproven.iter().map(|one| one.delivery.into()).collect();
        let transaction = TRANSACTION.parse().unwrap();
        index.open_commitment(&transaction, "york", &deliveries, at(21)).await.unwrap();
    }

    async fn a_transfer_is_due_when_all_of_it_was_sent_and_confirmed_when_all_of_it_is_proven(
        on: On,
    ) {
        let (index, _dir) = index(on).await;
        let id = sent(&index, 3).await;
        assert_eq!(index.partners_to_prove(at(20)).await.unwrap(), ["york"]);

        let wanted = take(&index, 20).await.unwrap();

        assert_eq!((wanted.transfer, wanted.tries, wanted.unproven.len()), (id, 0, 3));
        assert_eq!(wanted.delivered.values().collect::<Vec<_>>(), [&3]);
        assert_eq!(take(&index, 24).await, None, "it is being asked about");
        assert_eq!(take(&index, 25).await.unwrap().tries, 1, "nothing came of it");
        let deliveries: Vec<_> = wanted.unproven.iter().map(|one| one.delivery).collect();
        index.confirm(&deliveries[..2], ProvenBy::ImageQuery, at(30)).await.unwrap();
        assert!(matches!(state(&index, id).await, (TransferState::Sent, 2, _)));
        let news = index.confirm(&deliveries, ProvenBy::ImageQuery, at(31)).await.unwrap();
        assert_eq!(news, 1, "two were known");
        let (stands, confirmed, events) = state(&index, id).await;
        assert_eq!(
            (stands, confirmed, events.last()),
            (TransferState::Confirmed, 3, Some(&EventKind::Confirmed))
        );
        assert!(index.partners_to_prove(at(999)).await.unwrap().is_empty());
    }

    async fn a_report_is_believed_for_what_that_partner_was_asked_and_nothing_else(on: On) {
        let (index, _dir) = index(on).await;
        let id = sent(&index, 3).await;
        let mut wanted = take(&index, 20).await.unwrap();
        wanted.unproven.truncate(2);
        ask(&index, &wanted).await;
        let all = report(TRANSACTION, &[1, 2, 3, 99], &[]);

        let stranger = index.commitment_reported("leeds", &all, at(30)).await.unwrap();
        let unasked = index
            .commitment_reported("york", &report("2.25.78", &[1, 2], &[]), at(30))
            .await
            .unwrap();

        assert_eq!((stranger, unasked), (None, None));
        assert!(matches!(state(&index, id).await, (TransferState::Sent, 0, _)));
        let said = index.commitment_reported("york", &all, at(31)).await.unwrap().unwrap();
        assert_eq!(said, Reported { confirmed: 2, ..Reported::default() });
        assert!(matches!(state(&index, id).await, (TransferState::Sent, 2, _)));
        let again = index.commitment_reported("york", &all, at(32)).await.unwrap().unwrap();
        assert_eq!(again, Reported::default(), "a repeat is no news");
    }

    async fn what_a_partner_lost_goes_again_and_is_set_aside_the_third_time(on: On) {
        let (index, _dir) = index(on).await;
        let id = sent(&index, 3).await;
        for round in 1..=3 {
            let second = 20 + 100 * round;
            let wanted = take(&index, second).await.unwrap();
            index
                .open_commitment(
                    &format!("2.25.{second}").parse().unwrap(),
                    "york",
                    &wanted.unproven.iter().map(|one| one.delivery.into()).collect::<Vec<_>>(),
                    at(second),
                )
                .await
                .unwrap();
            let report = report(&format!("2.25.{second}"), &[1, 2], &[(2, 0x0112), (3, 0x0110)]);

            let said =
                index.commitment_reported("york", &report, at(second)).await.unwrap().unwrap();

            let lost = if round < 3 {
                Lost { again: 1, set_aside: 0 }
            } else {
                Lost { again: 0, set_aside: 1 }
            };
            assert_eq!((said.lost, said.unsaid), (lost, Some((1, 0x0110))), "round {round}");
            assert_eq!(send(&index, second + 50).await, usize::from(round < 3), "round {round}");
        }
        let (stands, confirmed, events) = state(&index, id).await;
        assert_eq!((stands, confirmed), (TransferState::NeedsAction, 1));
        let told = events.iter().filter(|kind| **kind == EventKind::NotStored).count();
        assert_eq!((told, events.last()), (2, Some(&EventKind::SetAside)));
        let sums = index.conservation().await.unwrap();
        assert_eq!((sums[0].ordered, sums[0].delivered, sums[0].set_aside), (3, 2, 1));
        assert_eq!(index.retry(id, "dr-jones", "", at(900)).await.unwrap(), 1);
        assert_eq!(send(&index, 901).await, 1);
        assert_eq!(take(&index, 902).await.unwrap().unproven.len(), 2);
    }

    async fn what_comes_later_is_proven_again(on: On) {
        let (index, _dir) = index(on).await;
        let id = sent(&index, 2).await;
        let wanted = take(&index, 20).await.unwrap();
        ask(&index, &wanted).await;
        index
            .commitment_reported("york", &report(TRANSACTION, &[1, 2], &[]), at(22))
            .await
            .unwrap();

        index.record(&[ct(1, 3).to("york", Priority::Routine)]).await.unwrap();

        assert_eq!(state(&index, id).await.0, TransferState::Sending);
        send(&index, 30).await;
        assert_eq!(state(&index, id).await.0, TransferState::Sent);
        index.note_received_all(&[id], at(31)).await.unwrap();
        let wanted = take(&index, 32).await.unwrap();
        assert_eq!(wanted.unproven.len(), 1, "what was proven is not asked again");
        index.confirm(&[wanted.unproven[0].delivery], ProvenBy::CountQuery, at(33)).await.unwrap();
        let detail = index.transfer(id).await.unwrap().unwrap().transfer;
        assert_eq!(
            (detail.confirmed_at, detail.proven_by),
            (Some(at(33)), Some(ProvenBy::CountQuery))
        );
    }

    async fn what_cannot_be_proven_says_why_and_is_not_asked_again(on: On) {
        let (index, _dir) = index(on).await;
        let id = sent(&index, 1).await;
        take(&index, 20).await.unwrap();

        index.not_proven(id, "it offers nothing", true).await.unwrap();

        let summary = index.transfer(id).await.unwrap().unwrap().transfer;
        assert_eq!(summary.unproven_why.as_deref(), Some("it offers nothing"));
        assert!(index.partners_to_prove(at(9999)).await.unwrap().is_empty());
    }
}
