//! The outbox: deliveries claimed under a lease, most urgent first, and what came of them.
//!
//! A claim reads the first entries of one index and never the backlog behind them: `due` is 0 in a row that may be
//! claimed now. What is deferred, or held under a lease, gets there when its time has come, a few rows with each claim.
//! The rules of what may follow what are those of [`Delivery::after`]; nothing here writes a state that it did not return.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use jiff::Timestamp;

use crate::delivered::Proof;
use crate::dicom::{
    SeriesInstanceUid, SopClassUid, SopInstanceUid, StudyInstanceUid, TransferSyntax,
};
use crate::facts::{Digest, ObjectId, Priority};

use super::db::{self, Cell, Db, Query, Row};
use super::delivery::{Delivery, Event, Failure, FailureKind, IllegalStep, Receipt};
use super::lock;
use super::recall;
use super::timeline::{self, EventKind};
use super::transfer::{self, TransferId};
use super::{DeliveryId, Unsure, digest, flag, moment, parsed, priority, rank, unsigned};

/// A delivery that a worker holds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Claim {
    /// Its name.
    pub delivery: DeliveryId,
    /// The transfer it is part of.
    pub transfer: TransferId,
    /// What is sent.
    pub object: ObjectId,
    /// Its SOP Class UID.
    pub sop_class: SopClassUid,
    /// Its SOP Instance UID.
    pub sop_instance: SopInstanceUid,
    /// How it is kept.
    pub transfer_syntax: TransferSyntax,
    /// Bytes of the data set.
    pub length: u64,
    /// How soon.
    pub priority: Priority,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// How often the process ended, or the lease ran out, while it was being sent.
    pub deaths: u32,
    /// Whether the object store has it; else it is in the spool.
    pub stored: bool,
    /// Until when it is held.
    pub lease_ends: Timestamp,
    /// Since when it waits: it had arrived and was ordered, or a person asked for it anew.
    pub since: Timestamp,
    /// Under which protection it leaves; none: as it was received.
    pub protection: Option<String>,
}

/// Where an instance belongs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Whereabouts {
    /// Its Study Instance UID.
    pub study: StudyInstanceUid,
    /// Its Series Instance UID.
    pub series: SeriesInstanceUid,
    /// SHA-256 of its data set, as it is kept.
    pub digest: Digest,
}

/// Where the instance of a delivery belongs.
pub(super) async fn whereabouts(
    db: &mut Db,
    delivery: DeliveryId,
) -> sqlx::Result<Option<Whereabouts>> {
    let row = db
        .query(
            "SELECT s.uid AS study, se.uid AS series, i.digest FROM delivery d JOIN instance i ON i.id = d.instance \
             JOIN series se ON se.id = i.series JOIN study s ON s.id = se.study WHERE d.id = $1",
        )
        .bind(delivery.0)
        .fetch_optional(db)
        .await?;
    let read = |row: &Row| {
        Ok(Whereabouts {
            study: parsed(row, "study")?,
            series: parsed(row, "series")?,
            digest: digest(row, "digest")?,
        })
    };
    row.as_ref().map(read).transpose()
}

/// What became of an outcome.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Settled {
    /// The delivery.
    pub delivery: DeliveryId,
    /// The transfer it is part of.
    pub transfer: TransferId,
    /// The instance.
    pub object: ObjectId,
    /// Where it stands now; an illegal step changed nothing, as when a lease ran out and another worker was faster.
    pub result: Result<Delivery, IllegalStep>,
    /// Whether the partner now has all of the transfer, and did not before.
    pub all_sent: bool,
}

impl Settled {
    fn unchanged(row: &Stepping) -> Self {
        let result = Ok(row.delivery.clone());
        let (delivery, transfer, object) = (row.id, row.ulid, row.object);
        Self { delivery, transfer, object, result, all_sent: false }
    }
}

/// How many rows of each priority a claim moves to the front when their time has come, at least.
const PROMOTED: u32 = 256;

/// Claims what may be sent to a partner: by priority, within an emergency by [`turn`](super::turn), then in the order of
/// arrival.
pub(super) async fn claim(
    db: &mut Db,
    partner: &str,
    owner: &str,
    limit: u32,
    lease: Duration,
    now: Timestamp,
) -> sqlx::Result<Vec<Claim>> {
    const ITS_INSTANCE: &str = "t.ulid, i.object, i.sop_class, i.sop_instance, i.transfer_syntax, i.length, \
                                i.stored, i.received_at, t.created_at, t.retried_at FROM ";
    const JOINED: &str = " d JOIN transfer t ON t.id = d.transfer JOIN instance i ON i.id = d.instance \
                          ORDER BY d.priority, d.turn, d.id";
    promote(&mut *db, partner, limit.max(PROMOTED), now).await?;
    let lease_ends = lease_end(now, lease);
    let until = lease_ends.as_millisecond();
    let read_claim = |row: &Row| read_claim(row, lease_ends);
    let limit = i64::from(limit);
    let to_sending = |query: &mut Query| {
        query.push("UPDATE delivery SET state = 'sending', attempt = attempt + 1, owner = ");
        query.push_bind(owner).push(", due = ").push_bind(until);
        query.push(", until = ").push_bind(until);
        query.push(", failure = NULL, status = NULL, why = NULL ");
    };
    if db.is_postgres() {
        // In one round trip. What another node is claiming at this moment is passed over, not waited for.
        let mut query = db.query("WITH first AS (SELECT id FROM delivery WHERE partner = ");
        query
            .push_bind(partner)
            .push(" AND due = 0 ORDER BY priority, turn, id LIMIT ")
            .push_bind(limit);
        query.push(" FOR UPDATE SKIP LOCKED), claimed AS (");
        to_sending(&mut query);
        query.push("FROM first WHERE delivery.id = first.id RETURNING delivery.*) ");
        query
            .push("SELECT d.id, d.priority, d.attempt, d.deaths, d.protection, ")
            .push(ITS_INSTANCE);
        query.push("claimed").push(JOINED);
        return query.fetch_all(db).await?.iter().map(read_claim).collect();
    }
    let mut query =
        db.query("SELECT d.id, d.priority, d.attempt + 1 AS attempt, d.deaths, d.protection, ");
    query.push(ITS_INSTANCE).push("(");
    for (index, urgency) in Priority::ALL.iter().enumerate() {
        query.push(if index == 0 { "" } else { " UNION ALL " });
        query.push("SELECT * FROM (SELECT * FROM delivery WHERE partner = ").push_bind(partner);
        query.push(" AND priority = ").push_bind(rank(*urgency));
        query.push(" AND due = 0 ORDER BY turn, id LIMIT ").push_bind(limit).push(") AS first");
    }
    query.push(")").push(JOINED).push(" LIMIT ").push_bind(limit);
    let rows = query.fetch_all(&mut *db).await?;
    let claims: Vec<Claim> = rows.iter().map(read_claim).collect::<sqlx::Result<_>>()?;
    if claims.is_empty() {
        return Ok(claims);
    }
    let mut query = db.query("");
    to_sending(&mut query);
    query.push("WHERE id ").push_in(claims.iter().map(|claim| claim.delivery.0));
    query.execute(db).await?;
    Ok(claims)
}

/// When a lease that is taken now ends.
pub(super) fn lease_end(now: Timestamp, lease: Duration) -> Timestamp {
    let ms = i64::try_from(lease.as_millis()).unwrap_or(i64::MAX);
    let end = Timestamp::from_millisecond(now.as_millisecond().saturating_add(ms));
    end.unwrap_or(Timestamp::MAX)
}

/// Gives back what was claimed by a commit whose answer was lost, as far as it is held under that very lease.
pub(super) async fn give_back_unsure(db: &mut Db, batch: &Unsure) -> sqlx::Result<()> {
    for deliveries in batch.deliveries.chunks(db::MOST) {
        let mut query = db.query("SELECT id FROM delivery WHERE state = 'sending' AND owner = ");
        query.push_bind(&batch.owner).push(" AND until = ");
        query.push_bind(batch.lease_ends.as_millisecond()).push(" AND id ");
        query.push_in(deliveries.iter().map(|id| id.0));
        let held: Vec<i64> = query.scalars(&mut *db).await?;
        let held: Vec<_> = held.into_iter().map(DeliveryId).collect();
        step_all(&mut *db, &held, &Event::Release).await?;
    }
    Ok(())
}

/// Brings what has become due to where claims look. Whoever held a lease that ran out is taken for dead.
async fn promote(db: &mut Db, partner: &str, most: u32, now: Timestamp) -> sqlx::Result<()> {
    let mut query = db.query("");
    for (index, urgency) in Priority::ALL.iter().enumerate() {
        query.push(if index == 0 { "" } else { " UNION ALL " });
        query
            .push("SELECT * FROM (SELECT id, state FROM delivery WHERE partner = ")
            .push_bind(partner);
        query.push(" AND priority = ").push_bind(rank(*urgency)).push(" AND due > 0 AND due <= ");
        query
            .push_bind(now.as_millisecond())
            .push(" ORDER BY due LIMIT ")
            .push_bind(i64::from(most))
            .push(") AS first");
    }
    let mut deferred: Vec<i64> = Vec::new();
    let mut abandoned: Vec<DeliveryId> = Vec::new();
    for row in query.fetch_all(&mut *db).await? {
        let id = row.try_get("id")?;
        if row.try_get::<&str>("state")? == "sending" {
            abandoned.push(DeliveryId(id));
        } else {
            deferred.push(id);
        }
    }
    // First, as it takes locks in order; what follows waits for none.
    if !abandoned.is_empty() {
        bury(&mut *db, &abandoned, now).await?;
    }
    for deferred in deferred.chunks(db::MOST) {
        let mut query = db.query("UPDATE delivery SET due = 0 WHERE id ");
        if db.is_postgres() {
            query.push("IN (SELECT id FROM delivery WHERE due > 0 AND due <= ");
            query.push_bind(now.as_millisecond()).push(" AND state = 'deferred' AND id ");
            query.push_in(deferred.iter().copied()).push(" FOR UPDATE SKIP LOCKED)");
        } else {
            query.push_in(deferred.iter().copied());
        }
        query.execute(&mut *db).await?;
    }
    Ok(())
}

/// Back to the queue with what somebody held under a lease that has run out, unless it was renewed in between.
async fn bury(db: &mut Db, abandoned: &[DeliveryId], now: Timestamp) -> sqlx::Result<()> {
    let mut died = Vec::new();
    for mut row in fetch(&mut *db, abandoned).await?.into_values() {
        let ran_out = row.until.is_some_and(|until| until <= now.as_millisecond());
        let is_sending = matches!(row.delivery, Delivery::Sending { .. });
        if ran_out && is_sending && row.step(Event::Died).is_ok() {
            died.push(row.row(1));
        }
    }
    write(db, died).await
}

/// Back to the queue with what this owner had when it died.
pub(super) async fn recover(db: &mut Db, owner: &str) -> sqlx::Result<u64> {
    let ids: Vec<i64> = db
        .query("SELECT id FROM delivery WHERE owner = $1 AND state = 'sending' ORDER BY id")
        .bind(owner)
        .scalars(&mut *db)
        .await?;
    step_all(db, &ids.into_iter().map(DeliveryId).collect::<Vec<_>>(), &Event::Died).await
}

/// Moves to now the next try of what was deferred because the partner could not be had. What the partner had no room for
/// keeps its time, and so does what broke an association more than once: it may be the cause. The state stays what it is.
pub(super) async fn bring_forward(db: &mut Db, partner: &str, now: Timestamp) -> sqlx::Result<u64> {
    const UNREACHED: [FailureKind; 3] =
        [FailureKind::Unreachable, FailureKind::TlsFailed, FailureKind::AssociationRejected];
    const BROKE: [FailureKind; 2] = [FailureKind::TimedOut, FailureKind::Aborted];
    let mut query = db.query("UPDATE delivery SET due = ");
    query.push_bind(now.as_millisecond()).push(", until = ").push_bind(now.as_millisecond());
    query.push(" WHERE partner = ").push_bind(partner);
    query.push(" AND state = 'deferred' AND due IS NOT NULL AND until > ");
    query.push_bind(now.as_millisecond()).push(" AND (failure ");
    query.push_in(UNREACHED.into_iter().map(FailureKind::as_str));
    query.push(" OR attempt = 1 AND failure ");
    query.push_in(BROKE.into_iter().map(FailureKind::as_str)).push(")");
    query.execute(db).await
}

/// Moves to now the next try of all that is deferred beyond `limit`, and the next question about what was sent.
pub(super) async fn clock_was_set_back(
    db: &mut Db,
    partner: &str,
    limit: Timestamp,
    now: Timestamp,
) -> sqlx::Result<u64> {
    let deferred = db
        .query(
            "UPDATE delivery SET due = $1, until = $1 \
             WHERE partner = $2 AND state = 'deferred' AND due IS NOT NULL AND until > $3",
        )
        .bind(now.as_millisecond())
        .bind(partner)
        .bind(limit.as_millisecond())
        .execute(&mut *db)
        .await?;
    let unproven = db
        .query("UPDATE transfer SET proof_due = $1 WHERE partner = $2 AND proof_due > $3")
        .bind(now.as_millisecond())
        .bind(partner)
        .bind(limit.as_millisecond())
        .execute(db)
        .await?;
    Ok(deferred + unproven)
}

/// Takes the same step with each; those for which it is illegal stay as they are. Says how many took it.
pub(super) async fn step_all(db: &mut Db, ids: &[DeliveryId], event: &Event) -> sqlx::Result<u64> {
    let died = i64::from(matches!(event, Event::Died));
    let mut taken = Vec::new();
    for mut row in fetch(&mut *db, ids).await?.into_values() {
        if row.step(event.clone()).is_ok() {
            taken.push(row.row(died));
        }
    }
    let count = taken.len() as u64;
    write(db, taken).await?;
    Ok(count)
}

/// Extends leases. Says how many this owner still had.
pub(super) async fn renew(
    db: &mut Db,
    ids: &[DeliveryId],
    owner: &str,
    until: Timestamp,
) -> sqlx::Result<u64> {
    let mut renewed = 0;
    for ids in ids.chunks(db::MOST) {
        let mut query = db.query("UPDATE delivery SET until = ");
        query.push_bind(until.as_millisecond());
        // That of a paused transfer stays out of the way of claims.
        query
            .push(", due = CASE WHEN due IS NULL THEN NULL ELSE ")
            .push_bind(until.as_millisecond());
        query.push(" END WHERE state = 'sending' AND owner = ").push_bind(owner).push(" AND id ");
        query.push_in(ids.iter().map(|id| id.0));
        renewed += query.execute(&mut *db).await?;
    }
    Ok(renewed)
}

/// Writes what came of deliveries, and what that means for their transfers' timelines.
pub(super) async fn settle(
    db: &mut Db,
    outcomes: &[(DeliveryId, Option<ObjectId>, &Event)],
    now: Timestamp,
) -> sqlx::Result<Vec<Settled>> {
    let ids: Vec<_> = outcomes.iter().map(|(id, ..)| *id).collect();
    let mut rows = fetch(&mut *db, &ids).await?;
    let mut news: BTreeMap<i64, News> = BTreeMap::new();
    // What changed, and how often it died: there may be two outcomes of one delivery.
    let mut changed: HashMap<DeliveryId, i64> = HashMap::with_capacity(outcomes.len());
    let mut settled = Vec::with_capacity(outcomes.len());
    for (id, object, event) in outcomes {
        let Some(row) = rows.get_mut(id) else { continue };
        if object.is_some_and(|object| object != row.object) {
            continue;
        }
        let result = match *event {
            // A claim has an owner and a lease, which an outcome has not.
            Event::Claim => Err(IllegalStep { from: row.delivery.name(), event: event.name() }),
            // Written before, by a commit of which nobody knew whether it had happened.
            event if already(&row.delivery, event) => {
                settled.push((row.transfer, Settled::unchanged(row)));
                continue;
            }
            event => row.step(event.clone()).map(|()| row.delivery.clone()),
        };
        if let Ok(delivery) = &result {
            if let std::collections::btree_map::Entry::Vacant(entry) = news.entry(row.transfer) {
                entry.insert(News {
                    begun: has_delivered(&mut *db, row.transfer).await?,
                    ..News::default()
                });
            }
            if let Some(news) = news.get_mut(&row.transfer) {
                news.take(delivery);
            }
            *changed.entry(*id).or_default() += i64::from(matches!(event, Event::Died));
        }
        settled.push((
            row.transfer,
            Settled {
                delivery: *id,
                transfer: row.ulid,
                object: row.object,
                result,
                all_sent: false,
            },
        ));
    }
    let stands = |(id, died): (&DeliveryId, &i64)| rows.get(id).map(|row| row.row(*died));
    write(&mut *db, changed.iter().filter_map(stands).collect()).await?;
    for (transfer, news) in news {
        if news.delivered && !news.begun {
            timeline::add(&mut *db, transfer, now, EventKind::FirstSent, None, None).await?;
        }
        for why in &news.delayed {
            timeline::add_failure(&mut *db, transfer, now, EventKind::Delayed, why).await?;
        }
        for why in &news.set_aside {
            timeline::add_failure(&mut *db, transfer, now, EventKind::SetAside, why).await?;
        }
        if news.delivered && transfer::note_all_sent(&mut *db, transfer, now).await? {
            // The last one of it in this batch is the one that finished it.
            if let Some((_, last)) =
                settled.iter_mut().rfind(|(of, settled)| *of == transfer && settled.result.is_ok())
            {
                last.all_sent = true;
            }
        }
    }
    for note in rows.values().filter(|row| row.is_note && changed.contains_key(&row.id)) {
        if matches!(note.delivery, Delivery::Delivered(_)) {
            recall::note_accepted(&mut *db, note.transfer, now).await?;
        }
    }
    Ok(settled.into_iter().map(|(_, settled)| settled).collect())
}

/// How often an instance is sent that the partner accepts and does not keep.
const ROUNDS: i64 = 3;

/// What turned out to be lost at a partner.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Lost {
    /// How many go again.
    pub again: u64,
    /// How many were lost so often that a person must act.
    pub set_aside: u64,
}

/// Has these, which their partner accepted and does not have, sent again, or sets them aside when that was of no use before.
pub(super) async fn lose(
    db: &mut Db,
    ids: &[DeliveryId],
    text: &str,
    now: Timestamp,
) -> sqlx::Result<Lost> {
    let why = Failure { kind: FailureKind::NotStored, status: None, text: text.to_owned() };
    let mut rows = fetch(&mut *db, ids).await?;
    // How often it was lost before, and whether it can be sent again at all.
    let mut before: HashMap<DeliveryId, (i64, bool)> = HashMap::with_capacity(ids.len());
    for ids in ids.chunks(db::MOST) {
        let mut query = db.query(
            "SELECT d.id, d.losses, i.removed_at FROM delivery d JOIN instance i ON i.id = d.instance WHERE d.id ",
        );
        query.push_in(ids.iter().map(|id| id.0));
        for row in query.fetch_all(&mut *db).await? {
            let removed = row.try_get::<Option<i64>>("removed_at")?.is_some();
            before.insert(DeliveryId(row.try_get("id")?), (row.try_get("losses")?, removed));
        }
    }
    let mut all = Lost::default();
    let mut by_transfer: BTreeMap<i64, Lost> = BTreeMap::new();
    let (mut changed, mut lost) = (Vec::new(), Vec::new());
    for row in rows.values_mut() {
        let (losses, removed) = before.get(&row.id).copied().unwrap_or_default();
        let for_good = removed || losses + 1 >= ROUNDS;
        let event = if for_good {
            let gone = if removed { "; the images were removed here since" } else { "" };
            Event::LostAgain { why: Failure { text: format!("{text}{gone}"), ..why.clone() } }
        } else {
            Event::Lost
        };
        if row.step(event).is_err() {
            continue;
        }
        changed.push(row.row(0));
        lost.push(row.id.0);
        let of_transfer = by_transfer.entry(row.transfer).or_default();
        for count in [&mut all, of_transfer] {
            *(if for_good { &mut count.set_aside } else { &mut count.again }) += 1;
        }
    }
    write(&mut *db, changed).await?;
    for ids in lost.chunks(db::MOST) {
        let mut query =
            db.query("UPDATE delivery SET losses = losses + 1, confirmed_at = NULL WHERE id ");
        query.push_in(ids.iter().copied());
        query.execute(&mut *db).await?;
    }
    for (transfer, lost) in by_transfer {
        let mut query = db.query(
            "UPDATE transfer SET all_sent_at = NULL, confirmed_at = NULL, proof_due = NULL, unproven_why = ",
        );
        query.push_bind(text).push(" WHERE id = ").push_bind(transfer);
        query.execute(&mut *db).await?;
        if lost.again > 0 {
            let detail = format!("{} sent again: {text}", lost.again);
            timeline::add(&mut *db, transfer, now, EventKind::NotStored, None, Some(&detail))
                .await?;
        }
        if lost.set_aside > 0 {
            timeline::add_failure(&mut *db, transfer, now, EventKind::SetAside, &why).await?;
        }
    }
    Ok(all)
}

/// Writes that partners have what they are known to have. That they accepted it is stronger than any state; if it was found
/// to be lost since, it is found again when the partner is asked for it, which this orders.
pub(super) async fn restore(db: &mut Db, proofs: &[Proof], now: Timestamp) -> sqlx::Result<u64> {
    let mut known: HashMap<(ObjectId, &str), &Receipt> = HashMap::with_capacity(proofs.len());
    for proof in proofs {
        known.insert((proof.object, &proof.partner), &proof.receipt);
    }
    let objects: BTreeSet<_> = proofs.iter().map(|proof| proof.object).collect();
    let objects: Vec<_> = objects.into_iter().collect();
    let mut restored = 0;
    for objects in objects.chunks(db::MOST) {
        let mut query = db.query(
            "SELECT d.id, d.partner, i.object FROM delivery d JOIN instance i ON i.id = d.instance \
             WHERE d.state <> 'delivered' AND i.object ",
        );
        query.push_in(objects.iter().map(ToString::to_string));
        let mut found = HashMap::new();
        for row in query.fetch_all(&mut *db).await? {
            let partner: String = row.try_get("partner")?;
            if let Some(receipt) = known.get(&(parsed(&row, "object")?, partner.as_str())) {
                found.insert(DeliveryId(row.try_get("id")?), *receipt);
            }
        }
        let ids: Vec<_> = found.keys().copied().collect();
        let mut transfers = BTreeSet::new();
        let mut delivered = Vec::new();
        for (id, mut row) in fetch(&mut *db, &ids).await? {
            let Some(receipt) = found.get(&id) else { continue };
            if !matches!(row.delivery, Delivery::Delivered(_)) {
                row.delivery = Delivery::Delivered(Receipt::clone(receipt));
                delivered.push(row.row(0));
                transfers.insert(row.transfer);
            }
        }
        restored += delivered.len() as u64;
        write(&mut *db, delivered).await?;
        for transfer in transfers {
            transfer::note_all_sent(&mut *db, transfer, now).await?;
        }
    }
    Ok(restored)
}

/// Whether a delivery is where this outcome brought it: it is being written a second time.
fn already(delivery: &Delivery, event: &Event) -> bool {
    // Rows hold milliseconds.
    let same = |a: Timestamp, b: Timestamp| a.as_millisecond() == b.as_millisecond();
    match (delivery, event) {
        (Delivery::Delivered(is), Event::Accept(said)) => {
            same(is.at, said.at) && *is == Receipt { at: is.at, ..said.clone() }
        }
        (Delivery::Deferred { until, why, .. }, Event::Defer { until: said, why: because }) => {
            same(*until, *said) && why == because
        }
        (Delivery::Failed { why }, Event::Reject { why: because }) => why == because,
        _ => false,
    }
}

/// What a batch of outcomes says about one transfer.
#[derive(Default)]
struct News {
    begun: bool,
    delivered: bool,
    delayed: Vec<Failure>,
    set_aside: Vec<Failure>,
}

impl News {
    fn take(&mut self, delivery: &Delivery) {
        let (failures, why) = match delivery {
            Delivery::Delivered(_) => {
                self.delivered = true;
                return;
            }
            Delivery::Deferred { why, .. } => (&mut self.delayed, why),
            Delivery::Failed { why } => (&mut self.set_aside, why),
            Delivery::Queued { .. } | Delivery::Sending { .. } | Delivery::Cancelled => return,
        };
        if !failures.iter().any(|failure| failure.kind == why.kind) {
            failures.push(why.clone());
        }
    }
}

async fn has_delivered(db: &mut Db, transfer: i64) -> sqlx::Result<bool> {
    let one: Option<i64> = db
        .query("SELECT id FROM delivery WHERE transfer = $1 AND state = 'delivered' LIMIT 1")
        .bind(transfer)
        .optional_scalar(db)
        .await?;
    Ok(one.is_some())
}

/// The most urgent of what could be claimed now.
pub(super) async fn most_urgent(
    db: &mut Db,
    partner: &str,
    now: Timestamp,
) -> sqlx::Result<Option<Priority>> {
    for urgency in Priority::ALL {
        // The index is in the order of `due`, so the first entry decides.
        let due: Option<i64> = db.query(
            "SELECT due FROM delivery WHERE partner = $1 AND priority = $2 AND due IS NOT NULL ORDER BY due LIMIT 1",
        )
        .bind(partner)
        .bind(rank(*urgency))
        .optional_scalar(&mut *db)
        .await?;
        if due.is_some_and(|due| due <= now.as_millisecond()) {
            return Ok(Some(*urgency));
        }
    }
    Ok(None)
}

/// When the earliest of the deferred is tried again.
pub(super) async fn next_due(db: &mut Db, partner: &str) -> sqlx::Result<Option<Timestamp>> {
    let until: Option<i64> = db.query(
        "SELECT until FROM delivery WHERE partner = $1 AND state = 'deferred' AND due IS NOT NULL ORDER BY until LIMIT 1",
    )
    .bind(partner)
    .optional_scalar(db)
    .await?;
    until.map(super::timestamp).transpose()
}

/// The partners for which something waits or is being sent. Steps from one partner to the next in the index, past the
/// backlog of each.
pub(super) async fn partners_with_work(db: &mut Db) -> sqlx::Result<Vec<String>> {
    let mut partners: Vec<String> = Vec::new();
    loop {
        let next: Option<String> = db.query(
            "SELECT partner FROM delivery WHERE due IS NOT NULL AND partner > $1 ORDER BY partner LIMIT 1",
        )
        .bind(partners.last().map_or("", String::as_str))
        .optional_scalar(&mut *db)
        .await?;
        match next {
            Some(partner) => partners.push(partner),
            None => return Ok(partners),
        }
    }
}

/// A delivery on its way through a step.
struct Stepping {
    id: DeliveryId,
    transfer: i64,
    ulid: TransferId,
    object: ObjectId,
    paused: bool,
    cancelled: bool,
    /// Whether it is the note of its transfer's recall, which goes although that is cancelled.
    is_note: bool,
    until: Option<i64>,
    delivery: Delivery,
}

impl Stepping {
    /// Takes a step. What falls back from being sent when its transfer has been cancelled is cancelled with it.
    fn step(&mut self, event: Event) -> Result<(), IllegalStep> {
        let mut next = self.delivery.clone().after(event)?;
        if self.cancelled
            && !self.is_note
            && !matches!(next, Delivery::Delivered(_) | Delivery::Cancelled)
        {
            next = next.after(Event::Cancel)?;
        }
        self.delivery = next;
        Ok(())
    }

    /// Its row of [`write`]; `died` is how often it died on the way here.
    fn row(&self, died: i64) -> [Cell; 12] {
        let mut attempt = None;
        let mut due = None;
        let mut until = None;
        let mut failure: Option<&Failure> = None;
        let mut receipt: Option<&Receipt> = None;
        match &self.delivery {
            Delivery::Queued { attempts } => {
                attempt = Some(*attempts);
                due = Some(0);
            }
            Delivery::Sending { attempt: which } => attempt = Some(*which),
            Delivery::Deferred { attempt: which, until: next, why } => {
                attempt = Some(*which);
                until = Some(next.as_millisecond());
                // 0 means now, and is no time at which anything is tried again.
                due = until.map(|until| until.max(1));
                failure = Some(why);
            }
            Delivery::Delivered(proof) => receipt = Some(proof),
            Delivery::Failed { why } => failure = Some(why),
            Delivery::Cancelled => {}
        }
        let status =
            receipt.map(|receipt| receipt.status).or(failure.and_then(|failure| failure.status));
        [
            self.id.0.into(),
            self.delivery.name().into(),
            attempt.map(i64::from).into(),
            (if self.paused { None } else { due }).into(),
            until.into(),
            failure.map(|failure| failure.kind.as_str()).into(),
            status.map(i64::from).into(),
            failure.map(|failure| failure.text.as_str()).into(),
            receipt.map(|receipt| receipt.transfer_syntax.uid()).into(),
            receipt.map(|receipt| &receipt.digest.0[..]).into(),
            receipt.map(|receipt| receipt.at.as_millisecond()).into(),
            died.into(),
        ]
    }
}

/// Writes where deliveries stand; each may be there once.
async fn write(db: &mut Db, rows: Vec<[Cell; 12]>) -> sqlx::Result<()> {
    db.for_rows(
        "UPDATE delivery SET state = new.state, attempt = COALESCE(new.attempt, delivery.attempt), due = new.due, \
         until = new.until, owner = NULL, failure = new.failure, status = new.status, why = new.why, \
         sent_syntax = new.sent_syntax, sent_digest = new.sent_digest, sent_at = new.sent_at, \
         deaths = delivery.deaths + new.died FROM ",
        [
            "id", "state", "attempt", "due", "until", "failure", "status", "why", "sent_syntax",
            "sent_digest", "sent_at", "died",
        ],
        rows,
        " WHERE delivery.id = new.id",
    )
    .await?;
    Ok(())
}

async fn fetch(db: &mut Db, ids: &[DeliveryId]) -> sqlx::Result<HashMap<DeliveryId, Stepping>> {
    lock::transfers_of(&mut *db, ids).await?;
    let mut rows = HashMap::with_capacity(ids.len());
    for ids in ids.chunks(db::MOST) {
        let mut query = db.query(
            "SELECT d.*, t.ulid, t.paused_at, t.cancelled_at, i.object, \
             CAST(CASE WHEN i.sop_instance = t.recall_note THEN 1 ELSE 0 END AS BIGINT) AS is_note FROM delivery d \
             JOIN transfer t ON t.id = d.transfer JOIN instance i ON i.id = d.instance WHERE d.id ",
        );
        query.push_in(ids.iter().map(|id| id.0));
        if db.is_postgres() {
            query.push(" ORDER BY d.id FOR UPDATE OF d");
        }
        for row in query.fetch_all(&mut *db).await? {
            let id = DeliveryId(row.try_get("id")?);
            rows.insert(
                id,
                Stepping {
                    id,
                    transfer: row.try_get("transfer")?,
                    ulid: parsed(&row, "ulid")?,
                    object: parsed(&row, "object")?,
                    paused: row.try_get::<Option<i64>>("paused_at")?.is_some(),
                    cancelled: row.try_get::<Option<i64>>("cancelled_at")?.is_some(),
                    is_note: flag(&row, "is_note")?,
                    until: row.try_get("until")?,
                    delivery: read(&row)?,
                },
            );
        }
    }
    Ok(rows)
}

/// The state that a row of `delivery` holds.
pub(super) fn read(row: &Row) -> sqlx::Result<Delivery> {
    Ok(match row.try_get("state")? {
        "queued" => Delivery::Queued { attempts: unsigned(row, "attempt")? },
        "sending" => Delivery::Sending { attempt: unsigned(row, "attempt")? },
        "deferred" => Delivery::Deferred {
            attempt: unsigned(row, "attempt")?,
            until: moment(row, "until")?,
            why: transfer::failure(row)?,
        },
        "delivered" => Delivery::Delivered(Receipt {
            status: unsigned(row, "status")?,
            transfer_syntax: parsed(row, "sent_syntax")?,
            digest: digest(row, "sent_digest")?,
            at: moment(row, "sent_at")?,
        }),
        "failed" => Delivery::Failed { why: transfer::failure(row)? },
        "cancelled" => Delivery::Cancelled,
        _ => return Err(super::unreadable("state")),
    })
}

fn read_claim(row: &Row, lease_ends: Timestamp) -> sqlx::Result<Claim> {
    let retried_at: Option<i64> = row.try_get("retried_at")?;
    let since = moment(row, "received_at")?.max(moment(row, "created_at")?);
    Ok(Claim {
        delivery: DeliveryId(row.try_get("id")?),
        transfer: parsed(row, "ulid")?,
        object: parsed(row, "object")?,
        sop_class: parsed(row, "sop_class")?,
        sop_instance: parsed(row, "sop_instance")?,
        transfer_syntax: parsed(row, "transfer_syntax")?,
        length: unsigned(row, "length")?,
        priority: priority(row, "priority")?,
        attempt: unsigned(row, "attempt")?,
        deaths: unsigned(row, "deaths")?,
        stored: flag(row, "stored")?,
        lease_ends,
        protection: row.try_get("protection")?,
        since: retried_at.map(super::timestamp).transpose()?.map_or(since, |at| since.max(at)),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::super::samples::{
        On, accepted, at, claim, ct, deferred, index, on_both, refused, server, transfer as record,
        why,
    };
    use super::super::{FailureKind, Index, IndexError};
    use super::*;

    on_both![
        the_most_urgent_comes_first_and_then_what_came_first,
        what_is_deferred_comes_back_in_its_old_place_when_it_is_due,
        what_waits_for_a_time_that_a_clock_set_back_put_far_off_is_tried_now,
        a_lease_keeps_others_away_until_it_runs_out,
        what_is_given_back_unsent_costs_no_attempt_and_what_died_does,
        a_partner_that_answers_again_gets_what_waited_for_it_at_once,
        what_broke_an_association_twice_does_not_come_first_when_the_partner_is_back,
        a_partner_that_is_away_for_long_is_one_line_in_the_timeline,
        all_sent_is_said_once_and_not_while_more_may_come,
        a_receipt_is_on_record_with_both_digests,
        partners_with_work_are_those_for_which_something_can_be_done,
        what_a_partner_is_known_to_have_is_not_sent_whatever_the_rows_say,
        an_outcome_of_another_database_settles_nothing,
    ];

    const ROUTINE: Priority = Priority::Routine;
    const URGENT: Priority = Priority::Urgent;
    const EMERGENCY: Priority = Priority::Emergency;
    const MINUTE: Duration = Duration::from_mins(1);

    /// SOP Instance UIDs' last components of what a claim returns.
    async fn claimed(index: &Index, limit: u32, second: i64) -> Vec<String> {
        let claims = index.claim("york", "node", limit, MINUTE, at(second)).await.unwrap();
        claims.iter().map(|claim| claim.sop_instance.as_str().replacen("1.2.", "", 1)).collect()
    }

    async fn the_most_urgent_comes_first_and_then_what_came_first(on: On) {
        let (index, _dir) = index(on).await;
        let batch = [
            ct(1, 1).to("york", ROUTINE),
            ct(2, 1).to("york", URGENT),
            ct(1, 2).to("york", ROUTINE),
            ct(3, 1).to("york", EMERGENCY),
            ct(2, 2).to("york", URGENT),
            ct(4, 1).to("leeds", EMERGENCY),
        ];
        index.record(&batch).await.unwrap();

        assert_eq!(index.most_urgent("york", at(0)).await.unwrap(), Some(EMERGENCY));
        assert_eq!(claimed(&index, 4, 0).await, ["3.9.1", "2.9.1", "2.9.2", "1.9.1"]);
        assert_eq!(index.most_urgent("york", at(0)).await.unwrap(), Some(ROUTINE));
        assert_eq!(claimed(&index, 4, 0).await, ["1.9.2"]);
        assert_eq!(claimed(&index, 4, 0).await, [""; 0]);
        assert_eq!(index.most_urgent("york", at(0)).await.unwrap(), None);
    }

    async fn what_is_deferred_comes_back_in_its_old_place_when_it_is_due(on: On) {
        let (index, _dir) = index(on).await;
        index.record(&[ct(1, 1).to("york", ROUTINE), ct(1, 2).to("york", ROUTINE)]).await.unwrap();
        let first = claim(&index, "york", 1, 0).await;
        index.settle(&[(first[0], deferred(30))], at(1)).await.unwrap();

        assert_eq!(index.next_due("york").await.unwrap(), Some(at(30)));
        assert_eq!(claimed(&index, 1, 29).await, ["1.9.2"]);
        index.record(&[ct(1, 3).to("york", ROUTINE)]).await.unwrap();
        assert_eq!(index.most_urgent("york", at(30)).await.unwrap(), Some(ROUTINE));
        let claims = index.claim("york", "node", 9, MINUTE, at(30)).await.unwrap();

        let order: Vec<_> =
            claims.iter().map(|claim| (claim.sop_instance.as_str(), claim.attempt)).collect();
        assert_eq!(order, [("1.2.1.9.1", 2), ("1.2.1.9.3", 1)]);
        assert_eq!(index.next_due("york").await.unwrap(), None);
    }

    async fn what_waits_for_a_time_that_a_clock_set_back_put_far_off_is_tried_now(on: On) {
        let (index, _dir) = index(on).await;
        let batch = [
            ct(1, 1).to("york", ROUTINE),
            ct(1, 2).to("york", ROUTINE),
            ct(1, 3).to("leeds", ROUTINE),
        ];
        index.record(&batch).await.unwrap();
        let york = claim(&index, "york", 2, 0).await;
        let leeds = claim(&index, "leeds", 1, 0).await;
        let outcomes =
            [(york[0], deferred(90_000)), (york[1], deferred(60)), (leeds[0], deferred(90_000))];
        index.settle(&outcomes, at(1)).await.unwrap();

        assert_eq!(index.clock_was_set_back("york", at(900), at(2)).await.unwrap(), 1);

        assert_eq!(claimed(&index, 9, 2).await, ["1.9.1"]);
        assert_eq!(claimed(&index, 9, 60).await, ["1.9.2"]);
        assert_eq!(index.next_due("leeds").await.unwrap(), Some(at(90_000)));
    }

    async fn a_lease_keeps_others_away_until_it_runs_out(on: On) {
        let (index, _dir) = index(on).await;
        index.record(&[ct(1, 1).to("york", ROUTINE), ct(1, 2).to("york", ROUTINE)]).await.unwrap();
        let held = claim(&index, "york", 2, 0).await;

        assert_eq!(index.renew(&held[..1], "node", at(120)).await.unwrap(), 1);
        assert_eq!(index.renew(&held, "another", at(500)).await.unwrap(), 0);
        assert_eq!(index.most_urgent("york", at(59)).await.unwrap(), None);
        assert!(index.claim("york", "another", 9, MINUTE, at(59)).await.unwrap().is_empty());
        let taken = index.claim("york", "another", 9, MINUTE, at(60)).await.unwrap();

        assert_eq!(taken.len(), 1);
        assert_eq!((taken[0].delivery, taken[0].attempt, taken[0].deaths), (held[1], 2, 1));
        assert_eq!(index.renew(&held, "node", at(200)).await.unwrap(), 1);
        // Both sent it: the first answer stands, and the second is told apart.
        let first = index.settle(&[(held[1], accepted(61))], at(61)).await.unwrap();
        let second = index.settle(&[(held[1], refused())], at(62)).await.unwrap();
        assert!(first[0].result.is_ok());
        assert_eq!(second[0].result, Err(IllegalStep { from: "delivered", event: "reject" }));
        assert_eq!(
            index.deliveries(first[0].transfer).await.unwrap()[1].delivery.name(),
            "delivered"
        );
    }

    async fn what_is_given_back_unsent_costs_no_attempt_and_what_died_does(on: On) {
        let (index, _dir) = index(on).await;
        index.record(&[ct(1, 1).to("york", ROUTINE), ct(1, 2).to("york", ROUTINE)]).await.unwrap();
        let held = claim(&index, "york", 2, 0).await;

        assert_eq!(index.release(&held[..1]).await.unwrap(), 1);
        assert_eq!(index.release(&held[..1]).await.unwrap(), 0);
        assert_eq!(index.recover("another").await.unwrap(), 0);
        assert_eq!(index.recover("node").await.unwrap(), 1);
        let claims = index.claim("york", "node", 2, MINUTE, at(1)).await.unwrap();

        let attempts: Vec<_> =
            claims.iter().map(|claim| (claim.delivery, claim.attempt, claim.deaths)).collect();
        assert_eq!(attempts, [(held[0], 1, 0), (held[1], 2, 1)]);
    }

    async fn a_partner_that_answers_again_gets_what_waited_for_it_at_once(on: On) {
        let (index, _dir) = index(on).await;
        record(&index, &[ct(1, 1).to("york", ROUTINE), ct(1, 2).to("york", ROUTINE)]).await;
        let held = claim(&index, "york", 2, 0).await;
        let away = Event::Defer { until: at(600), why: why(FailureKind::Unreachable) };
        let full = Event::Defer { until: at(600), why: why(FailureKind::OutOfResources) };
        index.settle(&[(held[0], away), (held[1], full)], at(1)).await.unwrap();

        let before = claim(&index, "york", 2, 2).await;
        let moved = index.bring_forward("york", at(2)).await.unwrap();

        assert_eq!((before, moved), (vec![], 1));
        assert_eq!(claim(&index, "york", 2, 2).await, held[..1]);
    }

    async fn what_broke_an_association_twice_does_not_come_first_when_the_partner_is_back(on: On) {
        let (index, _dir) = index(on).await;
        record(&index, &[ct(1, 1).to("york", ROUTINE)]).await;
        let broke = |second| Event::Defer { until: at(second), why: why(FailureKind::Aborted) };
        let mut brought_forward = Vec::new();
        for attempt in [1, 2] {
            let begun = attempt * 10;
            let held = claim(&index, "york", 1, begun).await;
            index.settle(&[(held[0], broke(begun + 5))], at(begun)).await.unwrap();
            brought_forward.push(index.bring_forward("york", at(begun + 1)).await.unwrap());
        }
        assert_eq!(brought_forward, [1, 0]);
    }

    async fn a_partner_that_is_away_for_long_is_one_line_in_the_timeline(on: On) {
        let (index, _dir) = index(on).await;
        let id =
            record(&index, &[ct(1, 1).to("york", ROUTINE), ct(1, 2).to("york", ROUTINE)]).await;
        for second in 0..5 {
            let held = claim(&index, "york", 2, second).await;
            let outcomes: Vec<_> = held.iter().map(|id| (*id, deferred(second + 1))).collect();
            index.settle(&outcomes, at(second)).await.unwrap();
        }
        let held = claim(&index, "york", 2, 5).await;
        let timed_out = Event::Defer { until: at(6), why: why(FailureKind::TimedOut) };
        index.settle(&[(held[0], accepted(5)), (held[1], timed_out.clone())], at(5)).await.unwrap();
        let held = claim(&index, "york", 2, 6).await;
        index.settle(&[(held[0], timed_out)], at(6)).await.unwrap();
        let held = claim(&index, "york", 2, 7).await;
        index.settle(&[(held[0], refused())], at(7)).await.unwrap();

        let events = index.transfer(id).await.unwrap().unwrap().events;

        let lines: Vec<_> = events.iter().map(|event| (event.kind, event.failure)).collect();
        assert_eq!(
            lines,
            [
                (EventKind::Created, None),
                (EventKind::Delayed, Some(FailureKind::Unreachable)),
                (EventKind::FirstSent, None),
                (EventKind::Delayed, Some(FailureKind::TimedOut)),
                (EventKind::SetAside, Some(FailureKind::Refused)),
            ]
        );
    }

    async fn all_sent_is_said_once_and_not_while_more_may_come(on: On) {
        use EventKind::{AllSent, Created, FirstSent, ReceivedAll};
        let (index, _dir) = index(on).await;
        let id = record(&index, &[ct(1, 1).to("york", ROUTINE)]).await;
        let mut sent = Vec::new();
        for number in 2..5 {
            let held = claim(&index, "york", 9, 1).await;
            sent.push(index.settle(&[(held[0], accepted(1))], at(1)).await.unwrap()[0].all_sent);
            index.record(&[ct(1, number).to("york", ROUTINE)]).await.unwrap();
        }
        assert_eq!(index.still_receiving().await.unwrap(), [id]);
        index.note_received_all(&[id], at(2)).await.unwrap();
        index.note_received_all(&[id], at(3)).await.unwrap();
        assert_eq!(index.still_receiving().await.unwrap(), []);
        let held = claim(&index, "york", 9, 4).await;
        sent.push(index.settle(&[(held[0], accepted(4))], at(4)).await.unwrap()[0].all_sent);

        let kinds: Vec<_> =
            index.transfer(id).await.unwrap().unwrap().events.iter().map(|e| e.kind).collect();
        assert_eq!(sent, [false, false, false, true]);
        assert_eq!(kinds, [Created, FirstSent, ReceivedAll, AllSent]);
    }

    async fn a_receipt_is_on_record_with_both_digests(on: On) {
        let (index, _dir) = index(on).await;
        let arrival = ct(1, 1).to("york", ROUTINE);
        let id = record(&index, std::slice::from_ref(&arrival)).await;
        let held = claim(&index, "york", 1, 0).await;
        let Event::Accept(mut receipt) = accepted(1) else { unreachable!() };
        receipt.status = 0xB007;

        index.settle(&[(held[0], Event::Accept(receipt.clone()))], at(2)).await.unwrap();

        let row = index.deliveries(id).await.unwrap().remove(0);
        assert_eq!(
            (row.digest, row.delivery),
            (arrival.facts.digest, Delivery::Delivered(receipt))
        );
        let transfer = index.transfer(id).await.unwrap().unwrap().transfer;
        assert_eq!((transfer.counts.warnings, transfer.first_sent_at), (1, Some(at(1))));
    }

    async fn partners_with_work_are_those_for_which_something_can_be_done(on: On) {
        let (index, _dir) = index(on).await;
        let paused = record(&index, &[ct(1, 1).to("york", ROUTINE)]).await;
        index.record(&[ct(2, 1).to("leeds", ROUTINE), ct(2, 2).to("hull", URGENT)]).await.unwrap();
        let held = claim(&index, "leeds", 1, 0).await;
        index.settle(&[(held[0], accepted(1))], at(1)).await.unwrap();
        index.pause(paused, "dr-jones", "", at(1)).await.unwrap();

        assert_eq!(index.partners_with_work().await.unwrap(), ["hull"]);

        index.resume(paused, "dr-jones", "", at(2)).await.unwrap();
        assert_eq!(index.partners_with_work().await.unwrap(), ["hull", "york"]);
    }

    async fn what_a_partner_is_known_to_have_is_not_sent_whatever_the_rows_say(on: On) {
        let (index, _dir) = index(on).await;
        let batch = [1, 2, 3, 4, 5].map(|number| ct(1, number).to("york", ROUTINE));
        let id = record(&index, &batch).await;
        let held = claim(&index, "york", 3, 0).await;
        let outcomes = [(held[0], deferred(900)), (held[1], refused())];
        index.settle(&outcomes, at(1)).await.unwrap();
        let Event::Accept(receipt) = accepted(2) else { unreachable!() };
        let proof = |arrival: &crate::index::Arrival, partner: &str| Proof {
            object: arrival.facts.object,
            partner: partner.to_owned(),
            receipt: receipt.clone(),
        };
        // A deferred one, one set aside, one being sent, one queued; another's, and one of which there is no row.
        let mut proofs: Vec<_> = batch[..4].iter().map(|arrival| proof(arrival, "york")).collect();
        proofs.extend([proof(&batch[4], "leeds"), proof(&ct(9, 9), "york")]);

        let restored = index.restore_delivered(&proofs, at(3)).await.unwrap();
        let again = index.restore_delivered(&proofs, at(4)).await.unwrap();

        assert_eq!((restored, again), (4, 0));
        assert_eq!(claim(&index, "york", 9, 9999).await.len(), 1);
        let rows = index.deliveries(id).await.unwrap();
        assert_eq!(rows[3].delivery, Delivery::Delivered(receipt.clone()));
        let late = ct(1, 6).to("york", ROUTINE);
        let proofs = [proof(&late, "york")];
        let recorded = index.record_again(&[late], &proofs, at(5)).await.unwrap();
        assert_eq!(recorded[0].transfers, [id]);
        assert!(claim(&index, "york", 9, 9998).await.is_empty());
    }

    async fn an_outcome_of_another_database_settles_nothing(on: On) {
        let (index, _dir) = index(on).await;
        let batch = [1, 2].map(|number| ct(1, number).to("york", ROUTINE));
        let id = record(&index, &batch).await;
        let held = claim(&index, "york", 2, 0).await;
        let [mine, other] = [&batch[0], &batch[1]].map(|arrival| arrival.facts.object);
        let outcomes = [(held[0], mine, accepted(1)), (held[1], mine, accepted(1))];

        let settled = index.settle_objects(&outcomes, at(1)).await.unwrap();

        assert_eq!(settled.iter().map(|one| one.object).collect::<Vec<_>>(), [mine]);
        let rows = index.deliveries(id).await.unwrap();
        let states: Vec<_> = rows.iter().map(|row| (row.object, row.delivery.name())).collect();
        assert_eq!(states, [(mine, "delivered"), (other, "sending")]);
    }

    /// What may happen, in an order that chance decides.
    #[derive(Clone, Debug)]
    enum Step {
        Record { study: u32, number: u32, partner: usize, priority: usize },
        Claim { partner: usize, limit: u32 },
        Settle { which: Vec<(usize, u8)> },
        Release { which: usize },
        Recover,
        Wait { seconds: i64 },
        Retry { which: usize },
        Cancel { which: usize },
        Pause { which: usize },
        Resume { which: usize },
        Raise { which: usize, priority: usize },
    }

    const PARTNERS: [&str; 2] = ["leeds", "york"];

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..3_u32, 0..6_u32, 0..2_usize, 0..3_usize)
                .prop_map(|(study, number, partner, priority)| Step::Record { study, number, partner, priority }),
            4 => (0..2_usize, 1..4_u32).prop_map(|(partner, limit)| Step::Claim { partner, limit }),
            4 => prop::collection::vec((0..64_usize, 0..8_u8), 1..4).prop_map(|which| Step::Settle { which }),
            1 => (0..64_usize).prop_map(|which| Step::Release { which }),
            1 => Just(Step::Recover),
            2 => (1..90_i64).prop_map(|seconds| Step::Wait { seconds }),
            1 => (0..8_usize).prop_map(|which| Step::Retry { which }),
            1 => (0..8_usize).prop_map(|which| Step::Cancel { which }),
            1 => (0..8_usize).prop_map(|which| Step::Pause { which }),
            1 => (0..8_usize).prop_map(|which| Step::Resume { which }),
            1 => (0..8_usize, 0..3_usize).prop_map(|(which, priority)| Step::Raise { which, priority }),
        ]
    }

    /// What the rules say the index holds.
    #[derive(Default)]
    struct Model {
        deliveries: BTreeMap<DeliveryId, Expected>,
        transfers: BTreeMap<TransferId, (bool, bool, Priority)>,
    }

    struct Expected {
        transfer: TransferId,
        partner: String,
        lease: i64,
        delivery: Delivery,
    }

    impl Model {
        /// One step by the machine; what falls back in a cancelled transfer is cancelled.
        fn step(&mut self, id: DeliveryId, event: Event) -> bool {
            let expected = self.deliveries.get_mut(&id).unwrap();
            let cancelled = self.transfers[&expected.transfer].1;
            let Ok(next) = expected.delivery.clone().after(event) else { return false };
            expected.delivery = match next {
                Delivery::Delivered(_) | Delivery::Cancelled => next,
                next if cancelled => next.after(Event::Cancel).unwrap(),
                next => next,
            };
            true
        }

        fn of(&self, transfer: TransferId) -> Vec<DeliveryId> {
            self.deliveries
                .iter()
                .filter(|(_, expected)| expected.transfer == transfer)
                .map(|(id, _)| *id)
                .collect()
        }

        fn sending(&self) -> Vec<DeliveryId> {
            let sending =
                |expected: &Expected| matches!(expected.delivery, Delivery::Sending { .. });
            self.deliveries
                .iter()
                .filter(|(_, expected)| sending(expected))
                .map(|(id, _)| *id)
                .collect()
        }

        fn claimable(&self, partner: &str, now: i64) -> Vec<DeliveryId> {
            let mut ready: Vec<_> = self
                .deliveries
                .iter()
                .filter(|(_, expected)| {
                    expected.partner == partner && !self.transfers[&expected.transfer].0
                })
                .filter(|(_, expected)| match &expected.delivery {
                    Delivery::Queued { .. } => true,
                    Delivery::Deferred { until, .. } => *until <= at(now),
                    _ => false,
                })
                .map(|(id, expected)| (self.transfers[&expected.transfer].2, *id))
                .collect();
            ready.sort_unstable();
            ready.into_iter().map(|(_, id)| id).collect()
        }

        fn nth(&self, which: usize) -> Option<TransferId> {
            self.transfers.keys().nth(which % self.transfers.len().max(1)).copied()
        }
    }

    /// Takes a step with the index and with the model, and compares what each says of it.
    async fn take(
        index: &Index,
        model: &mut Model,
        now: &mut i64,
        step: Step,
    ) -> Result<(), IndexError> {
        match step {
            Step::Record { study, number, partner, priority } => {
                let priority = Priority::ALL[priority];
                let recorded =
                    index.record(&[ct(study, number).to(PARTNERS[partner], priority)]).await?;
                let transfer = recorded[0].transfers[0];
                let known = model.transfers.entry(transfer).or_insert((false, false, priority));
                if !known.1 {
                    known.2 = known.2.min(priority);
                }
                for row in index.deliveries(transfer).await? {
                    model.deliveries.entry(row.id).or_insert_with(|| Expected {
                        transfer,
                        partner: PARTNERS[partner].to_owned(),
                        lease: 0,
                        delivery: if known.1 {
                            Delivery::Cancelled
                        } else {
                            Delivery::Queued { attempts: 0 }
                        },
                    });
                }
            }
            Step::Claim { partner, limit } => {
                let partner = PARTNERS[partner];
                for id in model.sending() {
                    let expected = &model.deliveries[&id];
                    if expected.partner == partner
                        && expected.lease <= *now
                        && !model.transfers[&expected.transfer].0
                    {
                        model.step(id, Event::Died);
                    }
                }
                let ready = model.claimable(partner, *now);
                let urgent =
                    ready.first().map(|id| model.transfers[&model.deliveries[id].transfer].2);
                let claims = index.claim(partner, "node", limit, MINUTE, at(*now)).await?;
                let ids: Vec<_> = claims.iter().map(|claim| claim.delivery).collect();
                assert_eq!(ids, ready[..ready.len().min(limit as usize)]);
                assert_eq!(claims.first().map(|claim| claim.priority), urgent);
                for claim in claims {
                    assert!(model.step(claim.delivery, Event::Claim));
                    let expected = model.deliveries.get_mut(&claim.delivery).unwrap();
                    expected.lease = *now + 60;
                    assert_eq!(expected.delivery, Delivery::Sending { attempt: claim.attempt });
                }
            }
            Step::Settle { which } => {
                let all: Vec<_> = model.deliveries.keys().copied().collect();
                let sending = model.sending();
                let outcomes: Vec<_> = which
                    .into_iter()
                    .filter_map(|(which, kind)| {
                        // Mostly what is being sent; now and then anything, which is mostly illegal.
                        let from = if kind == 7 || sending.is_empty() { &all } else { &sending };
                        let event = match kind {
                            0..3 => accepted(*now),
                            3 | 4 => deferred(*now + i64::from(kind) * 10),
                            5 => refused(),
                            6 => Event::Release,
                            _ => Event::Requeue,
                        };
                        (!from.is_empty()).then(|| (from[which % from.len()], event))
                    })
                    .collect();
                let settled = index.settle(&outcomes, at(*now)).await?;
                for ((id, event), settled) in outcomes.into_iter().zip(settled) {
                    let again = already(&model.deliveries[&id].delivery, &event);
                    assert_eq!(again || model.step(id, event), settled.result.is_ok());
                }
            }
            Step::Release { which } => {
                let sending = model.sending();
                if let Some(id) = sending.get(which % sending.len().max(1)) {
                    index.release(&[*id]).await?;
                    model.step(*id, Event::Release);
                }
            }
            Step::Recover => {
                assert_eq!(index.recover("node").await?, model.sending().len() as u64);
                for id in model.sending() {
                    model.step(id, Event::Died);
                }
            }
            Step::Wait { seconds } => *now += seconds,
            Step::Retry { which } => {
                if let Some(transfer) = model.nth(which) {
                    let moved = index.retry(transfer, "dr-jones", "", at(*now)).await?;
                    model.transfers.get_mut(&transfer).unwrap().1 = false;
                    let stepped = model
                        .of(transfer)
                        .into_iter()
                        .filter(|id| model.step(*id, Event::Requeue))
                        .count();
                    assert_eq!(moved, stepped as u64);
                }
            }
            Step::Cancel { which } => {
                if let Some(transfer) = model.nth(which) {
                    let moved =
                        index.cancel(transfer, "dr-jones", "wrong hospital", at(*now)).await?;
                    let stepped = model
                        .of(transfer)
                        .into_iter()
                        .filter(|id| model.step(*id, Event::Cancel))
                        .count();
                    model.transfers.get_mut(&transfer).unwrap().1 = true;
                    assert_eq!(moved, stepped as u64);
                }
            }
            Step::Pause { which } => {
                if let Some(transfer) = model.nth(which) {
                    index.pause(transfer, "dr-jones", "not now", at(*now)).await?;
                    model.transfers.get_mut(&transfer).unwrap().0 = true;
                }
            }
            Step::Resume { which } => {
                if let Some(transfer) = model.nth(which) {
                    index.resume(transfer, "dr-jones", "", at(*now)).await?;
                    model.transfers.get_mut(&transfer).unwrap().0 = false;
                }
            }
            Step::Raise { which, priority } => {
                if let Some(transfer) = model.nth(which) {
                    index
                        .make_urgent(transfer, Priority::ALL[priority], "dr-jones", "", at(*now))
                        .await?;
                    let known = model.transfers.get_mut(&transfer).unwrap();
                    known.2 = known.2.min(Priority::ALL[priority]);
                }
            }
        }
        Ok(())
    }

    /// Compares all that the index shows with the model.
    async fn compare(index: &Index, model: &Model) -> Result<(), IndexError> {
        let mut seen = HashSet::new();
        for transfer in model.transfers.keys() {
            let rows = index.deliveries(*transfer).await?;
            let summary = index.transfer(*transfer).await?.unwrap().transfer;
            let (paused, cancelled, priority) = model.transfers[transfer];
            assert_eq!(
                (summary.paused.is_some(), summary.cancelled.is_some()),
                (paused, cancelled)
            );
            assert_eq!(summary.priority, priority);
            let count = |name| rows.iter().filter(|row| row.delivery.name() == name).count() as u64;
            let counts = summary.counts;
            assert_eq!(
                [
                    counts.queued,
                    counts.sending,
                    counts.deferred,
                    counts.delivered,
                    counts.failed,
                    counts.cancelled
                ],
                ["queued", "sending", "deferred", "delivered", "failed", "cancelled"].map(count)
            );
            for row in rows {
                assert_eq!(row.delivery, model.deliveries[&row.id].delivery);
                seen.insert(row.id);
            }
        }
        assert_eq!(seen.len(), model.deliveries.len());
        let mut ordered = 0;
        for partner in index.conservation().await? {
            ordered += partner.ordered;
            let sum = partner.delivered + partner.waiting + partner.set_aside + partner.cancelled;
            assert_eq!(partner.ordered, sum, "{}", partner.partner);
        }
        assert_eq!(ordered, model.deliveries.len() as u64);
        Ok(())
    }

    fn play(on: On, steps: Vec<Step>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (index, _dir) = index(on).await;
            let mut model = Model::default();
            let mut now = 0;
            for step in steps {
                take(&index, &mut model, &mut now, step).await.unwrap();
            }
            compare(&index, &model).await.unwrap();
        });
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

        #[test]
        fn nothing_is_lost_or_sent_against_the_rules_whatever_happens(steps in prop::collection::vec(step(), 1..60)) {
            play(On::Sqlite, steps);
        }
    }

    proptest! {
        // The rules are the same code; what may differ is the SQL, of which each case runs most.
        #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

        #[test]
        fn nothing_is_lost_or_sent_against_the_rules_on_postgresql_either(steps in prop::collection::vec(step(), 1..60)) {
            if server("the rules, whatever happens").is_some() {
                play(On::Postgres, steps);
            }
        }
    }
}
