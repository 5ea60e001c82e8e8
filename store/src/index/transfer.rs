//! Transfers: one study on its way to one partner, which is what people track.
//!
//! What a transfer's row holds was decided by someone (who paused it, how urgent it is). How far it has come is never
//! stored but counted from its deliveries each time it is asked for, so the two cannot disagree.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::ops::AddAssign;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use ulid::Ulid;

use crate::dicom::{Phi, SeriesInstanceUid, SopInstanceUid, StudyInstanceUid};
use crate::facts::{Digest, Facts, ObjectId, ParcelId, Priority, Purpose};

use super::Routed;
use super::completeness::{self, CountedSeries};
use super::db::{self, Db, Row};
use super::delivery::{Delivery, Failure, FailureKind};
use super::proof::ProvenBy;
use super::recall::{self, Recalled, Rejection};
use super::study::{self, StudySummary};
use super::timeline::{self, EventKind, TransferEvent};
use super::turn::{self, Chosen, View};
use super::words::words;
use super::{DeliveryId, digest, moment, optional, outbox, parsed, priority, rank, unsigned};

/// Names a transfer, for people and in addresses.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct TransferId(Ulid);

impl TransferId {
    pub(super) fn new() -> Self {
        Self(Ulid::new())
    }
}

impl fmt::Display for TransferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A text that is not the name of a transfer.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not the name of a transfer")]
pub struct InvalidTransferId;

impl FromStr for TransferId {
    type Err = InvalidTransferId;

    fn from_str(text: &str) -> Result<Self, InvalidTransferId> {
        Ulid::from_string(text).map(Self).map_err(|_| InvalidTransferId)
    }
}

/// Where a transfer stands, in the words that people see.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TransferState {
    /// Instances are still coming in.
    Receiving,
    /// Nothing has begun.
    Queued,
    /// Under way.
    Sending,
    /// The partner accepted all of it.
    Sent,
    /// The partner proved that it holds all of it.
    Confirmed,
    /// A person at the partner has seen it.
    Opened,
    /// It does not work now, and will be tried again.
    Delayed,
    /// Something of it waits for a person.
    NeedsAction,
    /// A person holds it.
    Paused,
    /// A person decided that it does not go.
    Cancelled,
    /// The partner was asked to drop it.
    Recalled,
}

words!(TransferState {
    Receiving = "receiving",
    Queued = "queued",
    Sending = "sending",
    Sent = "sent",
    Confirmed = "confirmed",
    Opened = "opened",
    Delayed = "delayed",
    NeedsAction = "needs-action",
    Paused = "paused",
    Cancelled = "cancelled",
    Recalled = "recalled",
});

impl TransferState {
    /// Judges by the counts; `receiving` says whether an association still brings instances, which no row knows.
    /// Nothing produces `Opened` yet.
    pub fn of(transfer: &TransferSummary, receiving: bool) -> Self {
        let Counts { queued, sending, deferred, delivered, failed, .. } = transfer.counts;
        match (&transfer.cancelled, &transfer.paused) {
            // The partner did not take the note of it.
            _ if transfer.recalled.is_some() && failed > 0 => Self::NeedsAction,
            _ if transfer.recalled.is_some() => Self::Recalled,
            (Some(_), _) => Self::Cancelled,
            _ if failed > 0 => Self::NeedsAction,
            (None, Some(_)) => Self::Paused,
            _ if deferred > 0 && sending == 0 => Self::Delayed,
            _ if receiving => Self::Receiving,
            _ if queued + sending + deferred == 0 && delivered > 0 => match transfer.confirmed_at {
                Some(_) => Self::Confirmed,
                None => Self::Sent,
            },
            _ if sending == 0 && delivered == 0 => Self::Queued,
            _ => Self::Sending,
        }
    }
}

/// How many deliveries of a transfer stand where. `total` is the sum of the six states.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Counts {
    /// All of them.
    pub total: u64,
    /// Waiting for a worker.
    pub queued: u64,
    /// With a worker.
    pub sending: u64,
    /// Waiting for the next try.
    pub deferred: u64,
    /// Accepted by the partner.
    pub delivered: u64,
    /// Set aside.
    pub failed: u64,
    /// Given up by a person.
    pub cancelled: u64,
    /// Those of the delivered that were accepted with a warning.
    pub warnings: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.total += other.total;
        self.queued += other.queued;
        self.sending += other.sending;
        self.deferred += other.deferred;
        self.delivered += other.delivered;
        self.failed += other.failed;
        self.cancelled += other.cancelled;
        self.warnings += other.warnings;
    }
}

impl Counts {
    /// Adds deliveries in the state of this name.
    fn add(&mut self, state: &str, count: u64, warnings: u64) {
        self.total += count;
        match state {
            "queued" => self.queued += count,
            "sending" => self.sending += count,
            "deferred" => self.deferred += count,
            "delivered" => {
                self.delivered += count;
                self.warnings += warnings;
            }
            "failed" => self.failed += count,
            "cancelled" => self.cancelled += count,
            // The table admits no other.
            _ => {}
        }
    }
}

/// Who decided something about a transfer, when and why.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Decision {
    /// When.
    pub at: Timestamp,
    /// Who.
    pub by: String,
    /// The reason that was given.
    pub reason: Option<String>,
}

/// What lists show of a transfer.
#[derive(Clone, Debug, Serialize)]
pub struct TransferSummary {
    /// Its name.
    pub id: TransferId,
    /// What goes.
    pub study: StudySummary,
    /// Where it goes, by configured name.
    pub partner: String,
    /// How soon.
    pub priority: Priority,
    /// What else of the same patient was sent with it to the same partner.
    pub parcel: Option<ParcelId>,
    /// Why.
    pub purpose: Purpose,
    /// The route that ordered it.
    pub route: String,
    /// How far it has come.
    pub counts: Counts,
    /// When its first instance was routed.
    pub created_at: Timestamp,
    /// When its latest instance had arrived here.
    pub last_received_at: Timestamp,
    /// When the partner accepted the first instance.
    pub first_sent_at: Option<Timestamp>,
    /// When the partner accepted the latest one.
    pub last_sent_at: Option<Timestamp>,
    /// How many of the delivered the partner is proven to hold.
    pub confirmed: u64,
    /// When that was proven for all of them.
    pub confirmed_at: Option<Timestamp>,
    /// What proved it.
    pub proven_by: Option<ProvenBy>,
    /// Why it is not proven, or not yet.
    pub unproven_why: Option<String>,
    /// When the earliest of the deferred is tried again.
    pub next_try: Option<Timestamp>,
    /// Which try that is, from 2.
    pub next_attempt: Option<u32>,
    /// Why something is set aside; else, why something is deferred.
    pub problem: Option<Failure>,
    /// Who holds it.
    pub paused: Option<Decision>,
    /// Who gave it up.
    pub cancelled: Option<Decision>,
    /// Who recalled it; it is cancelled then too.
    pub recalled: Option<Recalled>,
}

/// A transfer with all that is shown on its page.
#[derive(Clone, Debug, Serialize)]
pub struct TransferDetail {
    /// The transfer.
    pub transfer: TransferSummary,
    /// How far each series has come.
    pub series: Vec<TransferSeries>,
    /// The series of the study that its source listed, those that are short first.
    pub counted: Vec<CountedSeries>,
    /// What keeps instances from the partner, the most frequent first.
    pub problems: Vec<Problem>,
    /// What happened, oldest first.
    pub events: Vec<TransferEvent>,
}

/// How far a series of a transfer has come.
#[derive(Clone, Debug, Serialize)]
pub struct TransferSeries {
    /// Series Instance UID.
    pub series_instance_uid: SeriesInstanceUid,
    /// Modality.
    pub modality: Option<String>,
    /// Series Number.
    pub number: Option<i64>,
    /// Series Description.
    pub description: Phi<Option<String>>,
    /// How many of its instances stand where.
    pub counts: Counts,
}

/// One reason that keeps instances from the partner.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Problem {
    /// The reason.
    pub failure: Failure,
    /// How many wait for a person because of it.
    pub set_aside: u64,
    /// How many wait for the next try because of it.
    pub deferred: u64,
}

/// One instance of a transfer.
#[derive(Clone, Debug, Serialize)]
pub struct DeliveryRow {
    /// Its name.
    pub id: DeliveryId,
    /// The instance, by its name here.
    pub object: ObjectId,
    /// SOP Instance UID.
    pub sop_instance_uid: SopInstanceUid,
    /// SHA-256 of the data set that was received; the receipt has the one of what was sent.
    pub digest: Digest,
    /// How often the process ended while it was being sent.
    pub deaths: u32,
    /// Where it stands.
    #[serde(flatten)]
    pub delivery: Delivery,
}

/// Which transfers are wanted; what is `None` or false does not matter.
#[derive(Clone, Debug)]
pub struct TransferFilter {
    /// Of this priority.
    pub priority: Option<Priority>,
    /// To this partner.
    pub partner: Option<String>,
    /// Of this study.
    pub study_instance_uid: Option<StudyInstanceUid>,
    /// Of this parcel.
    pub parcel: Option<ParcelId>,
    /// Brought here by this source or partner, or a part of it.
    pub sender: Option<String>,
    /// Created at this time or later.
    pub since: Option<Timestamp>,
    /// Created at this time or earlier.
    pub until: Option<Timestamp>,
    /// With something that is neither delivered nor cancelled.
    pub only_unfinished: bool,
    /// Of a study of which the source has more, unless somebody cancelled it.
    pub only_incomplete: bool,
    /// At most this many.
    pub limit: u32,
}

impl Default for TransferFilter {
    fn default() -> Self {
        Self {
            priority: None,
            partner: None,
            study_instance_uid: None,
            parcel: None,
            sender: None,
            since: None,
            until: None,
            only_unfinished: false,
            only_incomplete: false,
            limit: 100,
        }
    }
}

/// What was ordered for a partner and where it is: `ordered` is the sum of the other four, always.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Conservation {
    /// The partner's configured name.
    pub partner: String,
    /// Deliveries that routes ordered.
    pub ordered: u64,
    /// Accepted by the partner.
    pub delivered: u64,
    /// Queued, being sent, or waiting for the next try.
    pub waiting: u64,
    /// Waiting for a person.
    pub set_aside: u64,
    /// Given up by a person.
    pub cancelled: u64,
}

const TRANSFERS: &str = "SELECT t.* FROM transfer t ";

/// Row ids of the transfers that have something unfinished. Steps from one to the next in the index, past the backlog of
/// each. SQLite has to be told which index: by itself it takes one that leads past everything that was ever delivered.
macro_rules! unfinished {
    ($delivery:literal) => {
        concat!(
            "WITH RECURSIVE unfinished (transfer) AS (SELECT MIN(transfer) FROM ",
            $delivery,
            " WHERE state IN ('queued', 'sending', 'deferred', 'failed') UNION ALL \
             SELECT (SELECT MIN(transfer) FROM ",
            $delivery,
            " WHERE state IN ('queued', 'sending', 'deferred', 'failed') AND transfer > unfinished.transfer) \
             FROM unfinished WHERE unfinished.transfer IS NOT NULL) "
        )
    };
}

/// The transfers that a filter lets through, newest first.
pub(super) async fn list(
    db: &mut Db,
    filter: &TransferFilter,
) -> sqlx::Result<Vec<TransferSummary>> {
    let mut query = if filter.only_unfinished {
        db.query_either(
            unfinished!("delivery INDEXED BY delivery_unfinished"),
            unfinished!("delivery"),
        )
    } else {
        db.query("")
    };
    query.push(TRANSFERS).push("WHERE 1 = 1");
    if let Some(priority) = filter.priority {
        query.push(" AND t.priority = ").push_bind(rank(priority));
    }
    if let Some(partner) = &filter.partner {
        query.push(" AND t.partner = ").push_bind(partner);
    }
    if let Some(uid) = &filter.study_instance_uid {
        query
            .push(" AND t.study = (SELECT id FROM study WHERE uid = ")
            .push_bind(uid.as_str())
            .push(")");
    }
    if let Some(parcel) = filter.parcel {
        query.push(" AND t.parcel = ").push_bind(parcel.to_string());
    }
    if let Some(since) = filter.since {
        query.push(" AND t.created_at >= ").push_bind(since.as_millisecond());
    }
    if let Some(until) = filter.until {
        query.push(" AND t.created_at <= ").push_bind(until.as_millisecond());
    }
    if let Some(sender) = &filter.sender {
        query
            .push(" AND EXISTS (SELECT 1 FROM delivery d JOIN instance i ON i.id = d.instance WHERE d.transfer = t.id AND i.sender = ")
            .push_bind(sender)
            .push(")");
    }
    if filter.only_unfinished {
        query.push(" AND t.id IN (SELECT transfer FROM unfinished)");
    }
    if filter.only_incomplete {
        query.push(
            " AND t.cancelled_at IS NULL AND t.study IN (SELECT study FROM completeness WHERE state = 'incomplete')",
        );
    }
    query.push(" ORDER BY t.created_at DESC, t.id DESC LIMIT ").push_bind(i64::from(filter.limit));
    let rows = query.fetch_all(&mut *db).await?;
    summaries(db, &rows).await
}

/// The transfers of one study, newest first.
pub(super) async fn of_study(db: &mut Db, study: i64) -> sqlx::Result<Vec<TransferSummary>> {
    let mut query = db.query(TRANSFERS);
    query.push("WHERE t.study = ").push_bind(study).push(" ORDER BY t.created_at DESC, t.id DESC");
    let rows = query.fetch_all(&mut *db).await?;
    summaries(db, &rows).await
}

/// One transfer.
pub(super) async fn detail(db: &mut Db, id: TransferId) -> sqlx::Result<Option<TransferDetail>> {
    let mut query = db.query(TRANSFERS);
    query.push("WHERE t.ulid = ").push_bind(id.to_string());
    let rows = query.fetch_all(&mut *db).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let (row_id, study): (i64, i64) = (row.try_get("id")?, row.try_get("study")?);
    let Some(transfer) = summaries(&mut *db, &rows).await?.pop() else { return Ok(None) };
    let series = series_of(&mut *db, row_id).await?;
    let counted = completeness::series(&mut *db, study).await?;
    let problems = problems_of(&mut *db, row_id).await?;
    let events = timeline::of_transfer(db, row_id).await?;
    Ok(Some(TransferDetail { transfer, series, counted, problems, events }))
}

/// Every delivery of a transfer, in the order of arrival.
pub(super) async fn deliveries(db: &mut Db, id: TransferId) -> sqlx::Result<Vec<DeliveryRow>> {
    let rows = db.query(
        "SELECT d.*, i.object, i.sop_instance, i.digest FROM delivery d JOIN transfer t ON t.id = d.transfer \
         JOIN instance i ON i.id = d.instance WHERE t.ulid = $1 ORDER BY d.id",
    )
    .bind(id.to_string())
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(DeliveryRow {
                id: DeliveryId(row.try_get("id")?),
                object: parsed(row, "object")?,
                sop_instance_uid: parsed(row, "sop_instance")?,
                digest: digest(row, "digest")?,
                deaths: unsigned(row, "deaths")?,
                delivery: outbox::read(row)?,
            })
        })
        .collect()
}

/// Counts by partner.
pub(super) async fn conservation(db: &mut Db) -> sqlx::Result<Vec<Conservation>> {
    // Counted by transfer first, which the covering index gives in order.
    let rows = db
        .query(
            "SELECT t.partner, d.state, CAST(SUM(d.count) AS BIGINT) AS count FROM \
         (SELECT transfer, state, COUNT(*) AS count FROM delivery GROUP BY transfer, state) d \
         JOIN transfer t ON t.id = d.transfer GROUP BY t.partner, d.state",
        )
        .fetch_all(db)
        .await?;
    let mut partners: BTreeMap<String, Counts> = BTreeMap::new();
    for row in &rows {
        partners.entry(row.try_get("partner")?).or_default().add(
            row.try_get("state")?,
            unsigned(row, "count")?,
            0,
        );
    }
    Ok(partners
        .into_iter()
        .map(|(partner, counts)| Conservation {
            partner,
            ordered: counts.total,
            delivered: counts.delivered,
            waiting: counts.queued + counts.sending + counts.deferred,
            set_aside: counts.failed,
            cancelled: counts.cancelled,
        })
        .collect())
}

/// What is counted for a list: how far each transfer is, and when things happened.
#[derive(Default)]
struct Progress {
    counts: Counts,
    first_sent_at: Option<i64>,
    last_sent_at: Option<i64>,
    confirmed: u64,
    next_try: Option<i64>,
    problem: Option<(Failure, Option<u32>)>,
}

async fn summaries(db: &mut Db, rows: &[Row]) -> sqlx::Result<Vec<TransferSummary>> {
    let mut ids = Vec::with_capacity(rows.len());
    let mut studies = Vec::with_capacity(rows.len());
    for row in rows {
        ids.push(row.try_get("id")?);
        studies.push(row.try_get("study")?);
    }
    studies.sort_unstable();
    studies.dedup();
    let studies = study::summaries(&mut *db, &studies).await?;
    let mut progress = progress(db, &ids).await?;
    rows.iter()
        .map(|row| {
            let study =
                studies.get(&row.try_get("study")?).cloned().ok_or(sqlx::Error::RowNotFound)?;
            let done = progress.remove(&row.try_get("id")?).unwrap_or_default();
            let (problem, next_attempt) = match done.problem {
                Some((problem, attempt)) => (Some(problem), attempt),
                None => (None, None),
            };
            Ok(TransferSummary {
                id: parsed(row, "ulid")?,
                study,
                partner: row.try_get("partner")?,
                priority: priority(row, "priority")?,
                parcel: optional(row, "parcel")?,
                purpose: parsed(row, "purpose")?,
                route: row.try_get("route")?,
                counts: done.counts,
                created_at: moment(row, "created_at")?,
                last_received_at: moment(row, "last_received_at")?,
                first_sent_at: done.first_sent_at.map(super::timestamp).transpose()?,
                last_sent_at: done.last_sent_at.map(super::timestamp).transpose()?,
                confirmed: done.confirmed,
                confirmed_at: row
                    .try_get::<Option<i64>>("confirmed_at")?
                    .map(super::timestamp)
                    .transpose()?,
                proven_by: match row.try_get::<Option<&str>>("proven_by")? {
                    Some(_) => Some(parsed(row, "proven_by")?),
                    None => None,
                },
                unproven_why: row.try_get("unproven_why")?,
                next_try: done.next_try.map(super::timestamp).transpose()?,
                next_attempt,
                problem,
                paused: decision(row, "paused_at", "paused_by", "paused_why")?,
                cancelled: decision(row, "cancelled_at", "cancelled_by", "cancelled_why")?,
                recalled: recall::read(row)?,
            })
        })
        .collect()
}

async fn progress(db: &mut Db, ids: &[i64]) -> sqlx::Result<HashMap<i64, Progress>> {
    let mut all: HashMap<i64, Progress> = HashMap::with_capacity(ids.len());
    for ids in ids.chunks(db::MOST) {
        let mut query = db.query(
            "SELECT transfer, state, COUNT(*) AS count, MIN(sent_at) AS first, MAX(sent_at) AS last, \
             MIN(until) AS until, CAST(SUM(CASE WHEN status <> 0 THEN 1 ELSE 0 END) AS BIGINT) AS warnings \
             FROM delivery WHERE transfer ",
        );
        query.push_in(ids.iter().copied());
        query.push(" GROUP BY transfer, state");
        for row in query.fetch_all(&mut *db).await? {
            let progress = all.entry(row.try_get("transfer")?).or_default();
            let state: &str = row.try_get("state")?;
            progress.counts.add(state, unsigned(&row, "count")?, unsigned(&row, "warnings")?);
            match state {
                "delivered" => {
                    progress.first_sent_at = row.try_get("first")?;
                    progress.last_sent_at = row.try_get("last")?;
                }
                "deferred" => progress.next_try = row.try_get("until")?,
                _ => {}
            }
        }
        let mut query =
            db.query("SELECT transfer, COUNT(*) AS count FROM delivery WHERE confirmed_at IS NOT NULL AND transfer ");
        query.push_in(ids.iter().copied()).push(" GROUP BY transfer");
        for row in query.fetch_all(&mut *db).await? {
            all.entry(row.try_get("transfer")?).or_default().confirmed = unsigned(&row, "count")?;
        }
        // One example each: of the failed any, of the deferred the one that is tried next.
        let mut query = db.query(
            "SELECT * FROM delivery WHERE id IN (SELECT COALESCE(\
             (SELECT d.id FROM delivery d WHERE d.transfer = t.id AND d.state = 'failed' ORDER BY d.until LIMIT 1), \
             (SELECT d.id FROM delivery d WHERE d.transfer = t.id AND d.state = 'deferred' ORDER BY d.until LIMIT 1)) \
             FROM transfer t WHERE t.id ",
        );
        query.push_in(ids.iter().copied());
        query.push(")");
        for row in query.fetch_all(&mut *db).await? {
            let progress = all.entry(row.try_get("transfer")?).or_default();
            progress.problem = match outbox::read(&row)? {
                Delivery::Failed { why } => Some((why, None)),
                Delivery::Deferred { attempt, why, .. } => Some((why, Some(attempt + 1))),
                _ => None,
            };
        }
    }
    Ok(all)
}

async fn series_of(db: &mut Db, transfer: i64) -> sqlx::Result<Vec<TransferSeries>> {
    let rows = db.query(
        "SELECT s.id, s.uid, s.modality, s.number, s.description, d.state, COUNT(*) AS count, \
         CAST(SUM(CASE WHEN d.status <> 0 THEN 1 ELSE 0 END) AS BIGINT) AS warnings FROM delivery d \
         JOIN instance i ON i.id = d.instance JOIN series s ON s.id = i.series WHERE d.transfer = $1 \
         GROUP BY s.id, s.uid, s.modality, s.number, s.description, d.state ORDER BY s.number NULLS FIRST, s.id",
    )
    .bind(transfer)
    .fetch_all(db)
    .await?;
    let mut series: Vec<TransferSeries> = Vec::new();
    let mut last = None;
    for row in &rows {
        let id: i64 = row.try_get("id")?;
        if last.replace(id) != Some(id) {
            series.push(TransferSeries {
                series_instance_uid: parsed(row, "uid")?,
                modality: row.try_get("modality")?,
                number: row.try_get("number")?,
                description: Phi::new(row.try_get("description")?),
                counts: Counts::default(),
            });
        }
        if let Some(series) = series.last_mut() {
            series.counts.add(
                row.try_get("state")?,
                unsigned(row, "count")?,
                unsigned(row, "warnings")?,
            );
        }
    }
    Ok(series)
}

async fn problems_of(db: &mut Db, transfer: i64) -> sqlx::Result<Vec<Problem>> {
    let rows = db.query(
        "SELECT failure, status, why, CAST(SUM(CASE WHEN state = 'failed' THEN 1 ELSE 0 END) AS BIGINT) AS set_aside, \
         CAST(SUM(CASE WHEN state = 'deferred' THEN 1 ELSE 0 END) AS BIGINT) AS deferred FROM delivery \
         WHERE transfer = $1 AND state IN ('failed', 'deferred') GROUP BY failure, status, why \
         ORDER BY COUNT(*) DESC, failure",
    )
    .bind(transfer)
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Problem {
                failure: failure(row)?,
                set_aside: unsigned(row, "set_aside")?,
                deferred: unsigned(row, "deferred")?,
            })
        })
        .collect()
}

/// What a row says went wrong.
pub(super) fn failure(row: &Row) -> sqlx::Result<Failure> {
    Ok(Failure {
        kind: parsed::<FailureKind>(row, "failure")?,
        status: row.try_get::<Option<i64>>("status")?.and_then(|status| status.try_into().ok()),
        text: row.try_get("why")?,
    })
}

pub(super) fn decision(
    row: &Row,
    at: &'static str,
    by: &str,
    why: &str,
) -> sqlx::Result<Option<Decision>> {
    if row.try_get::<Option<i64>>(at)?.is_none() {
        return Ok(None);
    }
    Ok(Some(Decision { at: moment(row, at)?, by: row.try_get(by)?, reason: row.try_get(why)? }))
}

/// The transfers that one batch of arrivals orders or adds to: read once, written once.
#[derive(Default)]
pub(super) struct Orders<'a> {
    transfers: HashMap<(i64, String), Order>,
    wanted: Vec<Wanted<'a>>,
    /// Transfers that were sent together with others: row, study, and with which.
    parcels: Vec<(i64, i64, ParcelId)>,
}

struct Order {
    id: i64,
    ulid: TransferId,
    priority: Priority,
    parcel: Option<ParcelId>,
    paused: bool,
    cancelled: bool,
    /// The note of its recall, which goes although it is cancelled.
    note: Option<SopInstanceUid>,
    all_sent: bool,
    last_received_at: i64,
    /// What goes first of an emergency.
    chosen: Chosen,
    /// Whether this batch added a delivery.
    grew: bool,
}

impl Order {
    /// Whether an instance stays although it is ordered.
    fn holds_back(&self, instance: &SopInstanceUid) -> bool {
        self.cancelled && self.note.as_ref() != Some(instance)
    }
}

/// An instance for a partner.
struct Wanted<'a> {
    arrival: usize,
    facts: &'a Facts,
    transfer: (i64, String),
    instance: i64,
    /// Whether its route is more urgent than those before.
    raised: bool,
    protection: Option<String>,
}

/// What the routes of one arrival came to.
#[derive(Default)]
pub(super) struct Ordered {
    /// The transfers that it is part of.
    pub(super) transfers: Vec<TransferId>,
    /// For each partner for which something is new, or more urgent than it was, how urgent it is now.
    pub(super) news: Vec<(String, Priority)>,
}

impl<'a> Orders<'a> {
    /// Orders an instance for a partner. One that is ordered already stays one delivery; a more urgent order raises it,
    /// with all of its transfer.
    pub(super) async fn order(
        &mut self,
        db: &mut Db,
        (arrival, facts): (usize, &'a Facts),
        study: i64,
        instance: i64,
        routed: &Routed,
    ) -> sqlx::Result<()> {
        let at = facts.received_at;
        let transfer = (study, routed.partner.clone());
        let order = match self.transfers.entry(transfer.clone()) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                entry.insert(find_or_create(&mut *db, study, routed, at).await?)
            }
        };
        let raised = routed.priority < order.priority && !order.cancelled;
        if raised {
            let detail = format!("{} to {}", order.priority, routed.priority);
            if let (_, Some(chosen)) = raise(&mut *db, order.id, routed.priority).await? {
                order.chosen = chosen;
            }
            // The page says why it is urgent, so the urgent order's purpose stands.
            db.query("UPDATE transfer SET purpose = $2, route = $3 WHERE id = $1")
                .bind(order.id)
                .bind(routed.purpose.as_str())
                .bind(&routed.route)
                .execute(&mut *db)
                .await?;
            timeline::add(&mut *db, order.id, at, EventKind::PriorityRaised, None, Some(&detail))
                .await?;
            order.priority = routed.priority;
        }
        if let Some(parcel) = routed.parcel.filter(|_| order.parcel != routed.parcel) {
            order.parcel = Some(parcel);
            self.parcels.push((order.id, study, parcel));
        }
        let protection = routed.protection.clone();
        self.wanted.push(Wanted { arrival, facts, transfer, instance, raised, protection });
        Ok(())
    }

    /// What was sent together, to be put into parcels when it is known whose the studies are.
    pub(super) fn take_parcels(&mut self) -> Vec<(i64, i64, ParcelId)> {
        std::mem::take(&mut self.parcels)
    }

    /// Writes the deliveries, and what changed of their transfers. Says what came of each arrival.
    pub(super) async fn write(mut self, db: &mut Db) -> sqlx::Result<HashMap<usize, Ordered>> {
        let mut added = self.add_deliveries(&mut *db).await?;
        let mut ordered: HashMap<usize, Ordered> = HashMap::with_capacity(self.wanted.len());
        for wanted in &self.wanted {
            let Some(order) = self.transfers.get_mut(&wanted.transfer) else { continue };
            let is_new = added.remove(&(order.id, wanted.instance));
            if is_new {
                order.last_received_at =
                    order.last_received_at.max(wanted.facts.received_at.as_millisecond());
                order.grew = true;
                if order.all_sent && !order.cancelled {
                    order.all_sent = false;
                    timeline::add(
                        &mut *db,
                        order.id,
                        wanted.facts.received_at,
                        EventKind::Reopened,
                        None,
                        None,
                    )
                    .await?;
                }
            }
            let of_arrival = ordered.entry(wanted.arrival).or_default();
            if !of_arrival.transfers.contains(&order.ulid) {
                of_arrival.transfers.push(order.ulid);
            }
            if wanted.raised || is_new && !order.holds_back(&wanted.facts.sop_instance) {
                let (_, partner) = &wanted.transfer;
                of_arrival.news.push((partner.clone(), order.priority));
            }
        }
        for order in self.transfers.into_values().filter(|order| order.grew) {
            db.query(
                "UPDATE transfer SET last_received_at = $2, received_all_at = NULL, all_sent_at = NULL, \
                 confirmed_at = NULL, scout = $3, overview = $4 WHERE id = $1",
            )
            .bind(order.id)
            .bind(order.last_received_at)
            .bind(order.chosen.scout.as_ref().map(SopInstanceUid::as_str))
            .bind(order.chosen.overview.as_ref().map(SeriesInstanceUid::as_str))
            .execute(&mut *db)
            .await?;
        }
        Ok(ordered)
    }

    /// Adds what is not there yet. Says which that was, by transfer and instance.
    async fn add_deliveries(&mut self, db: &mut Db) -> sqlx::Result<HashSet<(i64, i64)>> {
        let transfers = &mut self.transfers;
        let row = |wanted: &Wanted<'_>| {
            let order = transfers.get_mut(&wanted.transfer)?;
            let facts = wanted.facts;
            let turn = if order.priority == Priority::Emergency {
                let view = View::of(&facts.attributes);
                order.chosen.turn(view, &facts.sop_instance, &facts.series)
            } else {
                Chosen::ANY
            };
            // What comes for a transfer that a person has cancelled is counted, and does not go.
            let (state, due) = match (order.holds_back(&facts.sop_instance), order.paused) {
                (true, _) => ("cancelled", None),
                (false, true) => ("queued", None),
                (false, false) => ("queued", Some(0_i64)),
            };
            let (_, partner) = &wanted.transfer;
            Some([
                order.id.into(),
                wanted.instance.into(),
                partner.as_str().into(),
                rank(order.priority).into(),
                state.into(),
                due.into(),
                turn.into(),
                wanted.protection.as_deref().into(),
            ])
        };
        let added = db.for_rows(
            "INSERT INTO delivery (transfer, instance, partner, priority, state, due, turn, protection) SELECT * FROM ",
            ["transfer", "instance", "partner", "priority", "state", "due", "turn", "protection"],
            self.wanted.iter().filter_map(row).collect(),
            // Without the condition, SQLite takes what follows for that of a join.
            " WHERE true ON CONFLICT (instance, transfer) DO NOTHING RETURNING transfer, instance",
        );
        let pair = |row: &Row| Ok((row.try_get("transfer")?, row.try_get("instance")?));
        added.await?.iter().map(pair).collect()
    }
}

/// Puts transfers into parcels, each into that of the last time it was sent. A parcel holds one patient; what is another's goes by
/// itself, whatever it was sent with.
pub(super) async fn put_in(db: &mut Db, parcels: Vec<(i64, i64, ParcelId)>) -> sqlx::Result<()> {
    for (transfer, study, parcel) in parcels {
        db.query(
        "UPDATE transfer SET parcel = $2 WHERE id = $1 AND NOT EXISTS (\
         SELECT 1 FROM transfer o JOIN study s ON s.id = o.study JOIN study mine ON mine.id = $3 \
         WHERE o.parcel = $2 AND (o.partner <> transfer.partner OR s.patient IS DISTINCT FROM mine.patient))",
    )
    .bind(transfer)
    .bind(parcel.to_string())
    .bind(study)
    .execute(&mut *db)
    .await?;
    }
    Ok(())
}

async fn find_or_create(
    db: &mut Db,
    study: i64,
    routed: &Routed,
    at: Timestamp,
) -> sqlx::Result<Order> {
    let found = db
        .query("SELECT * FROM transfer WHERE study = $1 AND partner = $2")
        .bind(study)
        .bind(&routed.partner)
        .fetch_optional(&mut *db)
        .await?;
    if let Some(row) = found {
        return Ok(Order {
            id: row.try_get("id")?,
            ulid: parsed(&row, "ulid")?,
            priority: priority(&row, "priority")?,
            parcel: optional(&row, "parcel")?,
            paused: row.try_get::<Option<i64>>("paused_at")?.is_some(),
            cancelled: row.try_get::<Option<i64>>("cancelled_at")?.is_some(),
            note: optional(&row, "recall_note")?,
            all_sent: row.try_get::<Option<i64>>("all_sent_at")?.is_some(),
            last_received_at: row.try_get("last_received_at")?,
            chosen: Chosen {
                scout: optional(&row, "scout")?,
                overview: optional(&row, "overview")?,
            },
            grew: false,
        });
    }
    let ulid = TransferId::new();
    let id = db.query(
        "INSERT INTO transfer (ulid, study, partner, route, purpose, priority, created_at, last_received_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $7) RETURNING id",
    )
    .bind(ulid.to_string())
    .bind(study)
    .bind(&routed.partner)
    .bind(&routed.route)
    .bind(routed.purpose.as_str())
    .bind(rank(routed.priority))
    .bind(at.as_millisecond())
    .scalar(&mut *db)
    .await?;
    timeline::add(db, id, at, EventKind::Created, None, Some(&routed.route)).await?;
    Ok(Order {
        id,
        ulid,
        priority: routed.priority,
        parcel: None,
        paused: false,
        cancelled: false,
        note: None,
        all_sent: false,
        last_received_at: at.as_millisecond(),
        chosen: Chosen::default(),
        grew: false,
    })
}

/// The transfers that an instance is part of.
pub(super) async fn of_instance(db: &mut Db, instance: i64) -> sqlx::Result<Vec<TransferId>> {
    let rows = db.query(
        "SELECT t.ulid FROM delivery d JOIN transfer t ON t.id = d.transfer WHERE d.instance = $1 ORDER BY d.id",
    )
    .bind(instance)
    .fetch_all(db)
    .await?;
    rows.iter().map(|row| parsed(row, "ulid")).collect()
}

/// Those of which the end was not noted, oldest first.
pub(super) async fn still_receiving(db: &mut Db) -> sqlx::Result<Vec<TransferId>> {
    let rows = db
        .query("SELECT ulid FROM transfer WHERE received_all_at IS NULL ORDER BY id")
        .fetch_all(db)
        .await?;
    rows.iter().map(|row| parsed(row, "ulid")).collect()
}

/// Notes that the associations which brought these have ended. Says so once for what has come since the last time.
pub(super) async fn note_received_all(
    db: &mut Db,
    ids: &[TransferId],
    now: Timestamp,
) -> sqlx::Result<()> {
    for id in ids {
        let noted: Option<i64> = db.query(
            "UPDATE transfer SET received_all_at = $2 WHERE ulid = $1 AND received_all_at IS NULL RETURNING id",
        )
        .bind(id.to_string())
        .bind(now.as_millisecond())
        .optional_scalar(&mut *db)
        .await?;
        if let Some(transfer) = noted {
            timeline::add(&mut *db, transfer, now, EventKind::ReceivedAll, None, None).await?;
            note_all_sent(&mut *db, transfer, now).await?;
        }
    }
    Ok(())
}

/// Notes that all was sent, once, if it was: with cut-through each instance may be sent before the next one comes, so
/// this also waits for the end of the association. Says whether it noted it.
pub(super) async fn note_all_sent(
    db: &mut Db,
    transfer: i64,
    now: Timestamp,
) -> sqlx::Result<bool> {
    let noted = db.query(
        "UPDATE transfer SET all_sent_at = $2, confirmed_at = NULL, proof_due = $2, proof_tries = 0, \
         unproven_why = NULL WHERE id = $1 AND all_sent_at IS NULL AND received_all_at IS NOT NULL AND cancelled_at IS NULL \
         AND EXISTS (SELECT 1 FROM delivery WHERE transfer = $1 AND state = 'delivered') \
         AND NOT EXISTS (SELECT 1 FROM delivery WHERE transfer = $1 \
                         AND state IN ('queued', 'sending', 'deferred', 'failed'))",
    )
    .bind(transfer)
    .bind(now.as_millisecond())
    .execute(&mut *db)
    .await?
        > 0;
    if noted {
        timeline::add(db, transfer, now, EventKind::AllSent, None, None).await?;
    }
    Ok(noted)
}

/// What a person asks for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Action<'a> {
    Retry { reason: &'a str },
    Cancel { reason: &'a str },
    Pause { reason: &'a str },
    Resume { reason: &'a str },
    Raise { to: Priority, reason: &'a str },
    Recall { reason: &'a str, rejection: Rejection, note: Option<&'a SopInstanceUid> },
}

/// Carries it out and says how many deliveries it moved; `None` where there is no such transfer.
///
/// Each statement moves a whole transfer by the rules of [`Delivery::after`].
pub(super) async fn act(
    db: &mut Db,
    id: TransferId,
    action: Action<'_>,
    actor: &str,
    now: Timestamp,
) -> sqlx::Result<Option<u64>> {
    let found = db
        .query_either(
            "SELECT * FROM transfer WHERE ulid = $1",
            "SELECT * FROM transfer WHERE ulid = $1 FOR UPDATE",
        )
        .bind(id.to_string())
        .fetch_optional(&mut *db)
        .await?;
    let Some(row) = found else { return Ok(None) };
    let acted_on = ActedOn {
        transfer: row.try_get("id")?,
        priority: priority(&row, "priority")?,
        paused: row.try_get::<Option<i64>>("paused_at")?.is_some(),
        cancelled: row.try_get::<Option<i64>>("cancelled_at")?.is_some(),
        recalled: row.try_get::<Option<i64>>("recalled_at")?.is_some(),
        note: row.try_get("recall_note")?,
    };
    let ActedOn { transfer, priority: from, paused, cancelled, recalled, .. } = acted_on;
    // Asking twice is not an event.
    let (moved, event) = match action {
        Action::Retry { reason } => {
            let (moved, changed) = retry(&mut *db, &acted_on, now).await?;
            let event = (EventKind::Retried, said(reason).map(str::to_owned));
            (moved, changed.then_some(event))
        }
        // What is left of it is its note, which is owed.
        Action::Cancel { .. } | Action::Recall { .. } if recalled => (0, None),
        Action::Recall { reason, rejection, note } => {
            let moved = cancel(&mut *db, transfer, reason, actor, now).await?;
            let decided = (actor, reason);
            recall::write(&mut *db, transfer, decided, (rejection, note), now).await?;
            (moved, Some((EventKind::Recalled, said(reason).map(str::to_owned))))
        }
        Action::Cancel { reason } => {
            let moved = cancel(&mut *db, transfer, reason, actor, now).await?;
            let event = (EventKind::Cancelled, said(reason).map(str::to_owned));
            (moved, (moved > 0 || !cancelled).then_some(event))
        }
        Action::Pause { reason } => {
            let moved = pause(&mut *db, transfer, reason, actor, now).await?;
            let event = (EventKind::Paused, said(reason).map(str::to_owned));
            (moved, (!paused).then_some(event))
        }
        Action::Resume { reason } => {
            let moved = resume(&mut *db, transfer).await?;
            let event = (EventKind::Resumed, said(reason).map(str::to_owned));
            (moved, paused.then_some(event))
        }
        Action::Raise { to, .. } if to >= from => (0, None),
        Action::Raise { to, reason } => {
            let (moved, _) = raise(&mut *db, transfer, to).await?;
            let why = said(reason).map(|reason| format!(": {reason}")).unwrap_or_default();
            (moved, Some((EventKind::PriorityRaised, Some(format!("{from} to {to}{why}")))))
        }
    };
    if let Some((kind, detail)) = event {
        timeline::add(db, transfer, now, kind, Some(actor), detail.as_deref()).await?;
    }
    Ok(Some(moved))
}

/// A transfer as a person's action finds it.
struct ActedOn {
    transfer: i64,
    priority: Priority,
    paused: bool,
    cancelled: bool,
    recalled: bool,
    /// The SOP Instance UID of the note of its recall.
    note: Option<String>,
}

/// Asks anew for what is deferred, set aside or cancelled: says how many deliveries that were, and whether anything changed.
/// A cancelled transfer goes after all: there is one for a study and a partner, so this is the only way back. Of a recalled one
/// whose partner is asked to reject the images, only the note of that is tried again.
async fn retry(db: &mut Db, on: &ActedOn, now: Timestamp) -> sqlx::Result<(u64, bool)> {
    let mut query = db.query(
        "UPDATE delivery SET state = 'queued', attempt = 0, due = $2, priority = $3, until = NULL, owner = NULL, \
         failure = NULL, status = NULL, why = NULL, losses = 0 \
         WHERE transfer = $1 AND state IN ('deferred', 'failed', 'cancelled') AND NOT EXISTS \
         (SELECT 1 FROM instance i WHERE i.id = delivery.instance AND i.removed_at IS NOT NULL)",
    )
    .bind(on.transfer)
    .bind(if on.paused { None } else { Some(0_i64) })
    // Raising a transfer passes over what is cancelled.
    .bind(rank(on.priority));
    if let Some(note) = &on.note {
        query
            .push(" AND instance IN (SELECT id FROM instance WHERE sop_instance = ")
            .push_bind(note)
            .push(")");
        let moved = query.execute(db).await?;
        return Ok((moved, moved > 0));
    }
    let moved = query.execute(&mut *db).await?;
    // What was removed here cannot go any more: a transfer of nothing else stays as it was given up.
    let gone: Option<i64> = db
        .query(
            "SELECT d.id FROM delivery d JOIN instance i ON i.id = d.instance WHERE d.transfer = $1 \
             AND d.state = 'cancelled' AND i.removed_at IS NOT NULL LIMIT 1",
        )
        .bind(on.transfer)
        .optional_scalar(&mut *db)
        .await?;
    let changed = moved > 0 || (on.cancelled && gone.is_none());
    if changed {
        db.query(
            "UPDATE transfer SET cancelled_at = NULL, cancelled_by = NULL, cancelled_why = NULL, \
             recalled_at = NULL, recalled_by = NULL, recalled_why = NULL, recall_code = NULL, recall_made_at = NULL, \
             all_sent_at = NULL, confirmed_at = NULL, retried_at = $2 WHERE id = $1",
        )
        .bind(on.transfer)
        .bind(now.as_millisecond())
        .execute(db)
        .await?;
    }
    Ok((moved, changed))
}

async fn cancel(
    db: &mut Db,
    transfer: i64,
    reason: &str,
    actor: &str,
    now: Timestamp,
) -> sqlx::Result<u64> {
    let moved = db.query(
        "UPDATE delivery SET state = 'cancelled', due = NULL, until = NULL, owner = NULL, failure = NULL, \
         status = NULL, why = NULL WHERE transfer = $1 AND state IN ('queued', 'deferred', 'failed')",
    )
    .bind(transfer)
    .execute(&mut *db)
    .await?;
    db.query(
        "UPDATE transfer SET cancelled_at = $2, cancelled_by = $3, cancelled_why = $4 \
         WHERE id = $1 AND cancelled_at IS NULL",
    )
    .bind(transfer)
    .bind(now.as_millisecond())
    .bind(actor)
    .bind(said(reason))
    .execute(db)
    .await?;
    Ok(moved)
}

async fn pause(
    db: &mut Db,
    transfer: i64,
    reason: &str,
    actor: &str,
    now: Timestamp,
) -> sqlx::Result<u64> {
    let moved = db
        .query("UPDATE delivery SET due = NULL WHERE transfer = $1 AND due IS NOT NULL")
        .bind(transfer)
        .execute(&mut *db)
        .await?;
    db.query(
        "UPDATE transfer SET paused_at = $2, paused_by = $3, paused_why = $4 \
         WHERE id = $1 AND paused_at IS NULL",
    )
    .bind(transfer)
    .bind(now.as_millisecond())
    .bind(actor)
    .bind(said(reason))
    .execute(db)
    .await?;
    Ok(moved)
}

async fn resume(db: &mut Db, transfer: i64) -> sqlx::Result<u64> {
    let moved = db
        .query(
            "UPDATE delivery SET due = CASE state WHEN 'queued' THEN 0 ELSE until END \
         WHERE transfer = $1 AND due IS NULL AND state IN ('queued', 'sending', 'deferred')",
        )
        .bind(transfer)
        .execute(&mut *db)
        .await?;
    db.query(
        "UPDATE transfer SET paused_at = NULL, paused_by = NULL, paused_why = NULL WHERE id = $1",
    )
    .bind(transfer)
    .execute(db)
    .await?;
    Ok(moved)
}

/// A reason, if one was given.
fn said(reason: &str) -> Option<&str> {
    Some(reason.trim()).filter(|reason| !reason.is_empty())
}

/// Makes a transfer and all of it that has not arrived more urgent; says how many deliveries that were, and of an emergency
/// what goes first.
async fn raise(db: &mut Db, transfer: i64, to: Priority) -> sqlx::Result<(u64, Option<Chosen>)> {
    db.query("UPDATE transfer SET priority = $2 WHERE id = $1")
        .bind(transfer)
        .bind(rank(to))
        .execute(&mut *db)
        .await?;
    let raised = db.query(
        "UPDATE delivery SET priority = $2 WHERE transfer = $1 AND state IN ('queued', 'sending', 'deferred', 'failed')",
    );
    let raised = raised.bind(transfer).bind(rank(to)).execute(&mut *db).await?;
    let chosen = match to {
        Priority::Emergency => Some(turn::arrange(db, transfer).await?),
        Priority::Urgent | Priority::Routine => None,
    };
    Ok((raised, chosen))
}

#[cfg(test)]
mod tests {
    use super::super::samples::{
        On, accepted, at, claim, ct, deferred, index, on_both, refused, transfer,
    };
    use super::super::{EventKind, Index, IndexError};
    use super::*;

    on_both![
        a_state_is_judged_by_the_counts,
        a_retry_asks_for_what_is_deferred_or_set_aside_and_starts_counting_anew,
        what_is_cancelled_does_not_go_unless_a_person_asks_for_it_again,
        what_is_paused_waits_and_keeps_its_place,
        a_transfer_that_is_made_urgent_overtakes,
        a_parcel_holds_what_was_sent_together_of_one_patient_to_one_partner,
        lists_show_what_was_asked_for_newest_first,
        problems_and_series_are_shown_together,
        a_transfer_that_does_not_exist_is_told_apart,
    ];

    const ROUTINE: Priority = Priority::Routine;

    async fn a_parcel_holds_what_was_sent_together_of_one_patient_to_one_partner(on: On) {
        let (index, _dir) = index(on).await;
        let (first, second) = (ParcelId::new(), ParcelId::new());
        let mut stranger = ct(4, 1);
        stranger.facts.attributes.insert(dicom_dictionary_std::tags::PATIENT_ID, b"7".to_vec());
        let alone = ct(3, 1).to("york", ROUTINE);
        let batch = [
            ct(1, 1).to("york", ROUTINE).in_parcel(first),
            ct(1, 2).to("york", ROUTINE).in_parcel(first),
            ct(2, 1).to("york", ROUTINE).in_parcel(first),
            ct(2, 1).again().to("leeds", ROUTINE).in_parcel(first),
            stranger.to("york", ROUTINE).in_parcel(first),
            alone.clone(),
        ];
        index.record(&batch).await.unwrap();
        let studies = async |parcel| {
            let filter = TransferFilter { parcel: Some(parcel), ..TransferFilter::default() };
            let mut found: Vec<_> = index.transfers(&filter).await.unwrap();
            found.sort_by_key(|transfer| transfer.study.study_instance_uid.to_string());
            assert!(found.iter().all(|transfer| transfer.parcel == Some(parcel)));
            found
                .iter()
                .map(|it| format!("{} {}", it.study.study_instance_uid, it.partner))
                .collect::<Vec<_>>()
        };

        assert_eq!(studies(first).await, ["1.2.1 york", "1.2.2 york"]);

        // Sent again with something else, it is part of that.
        let again = [
            alone.again().in_parcel(second),
            ct(1, 1).again().to("york", ROUTINE).in_parcel(second),
        ];
        index.record(&again).await.unwrap();
        assert_eq!(studies(second).await, ["1.2.1 york", "1.2.3 york"]);
        assert_eq!(studies(first).await, ["1.2.2 york"]);
    }

    async fn three_to_york(index: &Index) -> TransferId {
        transfer(index, &[1, 2, 3].map(|number| ct(1, number).to("york", ROUTINE))).await
    }

    async fn summary(index: &Index, id: TransferId) -> TransferSummary {
        index.transfer(id).await.unwrap().unwrap().transfer
    }

    async fn a_state_is_judged_by_the_counts(on: On) {
        use TransferState::{
            Cancelled, Delayed, NeedsAction, Paused, Queued, Receiving, Sending, Sent,
        };
        let (index, _dir) = index(on).await;
        let id = three_to_york(&index).await;
        let mut transfer = summary(&index, id).await;
        // queued, sending, deferred, delivered, failed; what it is while instances come, and afterwards.
        let table = [
            ([3, 0, 0, 0, 0], Receiving, Queued),
            ([2, 1, 0, 0, 0], Receiving, Sending),
            ([2, 0, 0, 1, 0], Receiving, Sending),
            ([0, 1, 0, 2, 0], Receiving, Sending),
            ([0, 0, 0, 3, 0], Receiving, Sent),
            ([2, 0, 1, 0, 0], Delayed, Delayed),
            ([0, 0, 1, 2, 0], Delayed, Delayed),
            ([1, 1, 1, 0, 0], Receiving, Sending),
            ([0, 0, 0, 2, 1], NeedsAction, NeedsAction),
            ([1, 1, 0, 0, 1], NeedsAction, NeedsAction),
        ];
        for ([queued, sending, deferred, delivered, failed], coming, afterwards) in table {
            transfer.counts = Counts {
                total: 3,
                queued,
                sending,
                deferred,
                delivered,
                failed,
                ..Counts::default()
            };
            assert_eq!(TransferState::of(&transfer, true), coming, "{:?}", transfer.counts);
            assert_eq!(TransferState::of(&transfer, false), afterwards, "{:?}", transfer.counts);
        }
        transfer.confirmed_at = Some(at(1));
        transfer.counts = Counts { total: 3, delivered: 3, ..Counts::default() };
        assert_eq!(TransferState::of(&transfer, false), TransferState::Confirmed);
        transfer.counts = Counts { total: 4, delivered: 3, queued: 1, ..Counts::default() };
        assert_eq!(TransferState::of(&transfer, false), Sending, "more has come since");
        transfer.confirmed_at = None;
        let decision = Decision { at: at(1), by: "dr-jones".to_owned(), reason: None };
        transfer.counts = Counts { total: 3, queued: 3, ..Counts::default() };
        transfer.paused = Some(decision.clone());
        assert_eq!(TransferState::of(&transfer, true), Paused);
        transfer.counts.failed = 1;
        assert_eq!(TransferState::of(&transfer, true), NeedsAction);
        transfer.cancelled = Some(decision);
        assert_eq!(TransferState::of(&transfer, true), Cancelled);
    }

    async fn a_retry_asks_for_what_is_deferred_or_set_aside_and_starts_counting_anew(on: On) {
        let (index, _dir) = index(on).await;
        let id = three_to_york(&index).await;
        let held = claim(&index, "york", 3, 0).await;
        let outcomes = [(held[0], accepted(1)), (held[1], deferred(900)), (held[2], refused())];
        index.settle(&outcomes, at(1)).await.unwrap();
        let before = summary(&index, id).await;

        let moved = index.retry(id, "dr-jones", "", at(2)).await.unwrap();
        let again = index.retry(id, "dr-jones", "", at(3)).await.unwrap();

        assert_eq!(
            (before.next_try, before.problem.map(|why| why.kind)),
            (Some(at(900)), Some(FailureKind::Refused))
        );
        assert_eq!((moved, again), (2, 0));
        let after = index.transfer(id).await.unwrap().unwrap();
        assert_eq!((after.transfer.counts.queued, after.transfer.counts.delivered), (2, 1));
        assert_eq!(
            (after.transfer.next_try, after.transfer.problem, after.problems),
            (None, None, vec![])
        );
        let retried: Vec<_> =
            after.events.iter().filter(|event| event.kind == EventKind::Retried).collect();
        assert_eq!((retried.len(), retried[0].actor.as_deref()), (1, Some("dr-jones")));
        let claims =
            index.claim("york", "node", 9, std::time::Duration::from_mins(1), at(3)).await.unwrap();
        assert_eq!(claims.iter().map(|claim| claim.attempt).collect::<Vec<_>>(), [1, 1]);
    }

    async fn what_is_cancelled_does_not_go_unless_a_person_asks_for_it_again(on: On) {
        let (index, _dir) = index(on).await;
        let id = three_to_york(&index).await;
        let held = claim(&index, "york", 2, 0).await;

        assert_eq!(index.cancel(id, "dr-jones", "wrong hospital", at(1)).await.unwrap(), 1);
        assert_eq!(index.cancel(id, "dr-who", "", at(2)).await.unwrap(), 0);
        // What was under way may arrive; what fails is not tried again.
        index.settle(&[(held[0], accepted(3)), (held[1], deferred(4))], at(3)).await.unwrap();

        let cancelled = summary(&index, id).await;
        let decision = Decision {
            at: at(1),
            by: "dr-jones".to_owned(),
            reason: Some("wrong hospital".to_owned()),
        };
        assert_eq!(cancelled.cancelled, Some(decision));
        assert_eq!((cancelled.counts.delivered, cancelled.counts.cancelled), (1, 2));
        assert!(claim(&index, "york", 9, 99).await.is_empty());
        index.make_urgent(id, Priority::Emergency, "dr-jones", "", at(100)).await.unwrap();
        assert_eq!(index.retry(id, "dr-jones", "", at(100)).await.unwrap(), 2);
        assert_eq!(summary(&index, id).await.cancelled, None);
        assert_eq!(index.most_urgent("york", at(101)).await.unwrap(), Some(Priority::Emergency));
        assert_eq!(claim(&index, "york", 9, 101).await.len(), 2);
    }

    async fn what_is_paused_waits_and_keeps_its_place(on: On) {
        use EventKind::{Created, Delayed, Paused, Resumed, Retried};
        let (index, _dir) = index(on).await;
        let id = three_to_york(&index).await;
        let held = claim(&index, "york", 2, 0).await;
        index.record(&[ct(2, 1).to("york", ROUTINE)]).await.unwrap();

        assert_eq!(index.pause(id, "dr-jones", "patient moved", at(1)).await.unwrap(), 3);
        index.settle(&[(held[0], deferred(5))], at(1)).await.unwrap();
        index.record(&[ct(1, 4).to("york", ROUTINE)]).await.unwrap();
        assert_eq!(index.retry(id, "dr-jones", "", at(2)).await.unwrap(), 1);
        assert_eq!(index.next_due("york").await.unwrap(), None);
        let other = claim(&index, "york", 9, 1000).await;
        assert_eq!(index.resume(id, "dr-jones", "", at(1000)).await.unwrap(), 4);
        let resumed = claim(&index, "york", 9, 1000).await;

        assert_eq!((other.len(), resumed.len()), (1, 4));
        assert_eq!(resumed[..2], held[..]);
        let kinds: Vec<_> =
            index.transfer(id).await.unwrap().unwrap().events.iter().map(|e| e.kind).collect();
        assert_eq!(kinds, [Created, Paused, Delayed, Retried, Resumed]);
    }

    async fn a_transfer_that_is_made_urgent_overtakes(on: On) {
        let (index, _dir) = index(on).await;
        index.record(&[ct(2, 1).to("york", Priority::Urgent)]).await.unwrap();
        let id = three_to_york(&index).await;

        assert_eq!(
            index
                .make_urgent(id, Priority::Emergency, "dr-jones", " he waits ", at(1))
                .await
                .unwrap(),
            3
        );
        assert_eq!(
            index.make_urgent(id, Priority::Urgent, "dr-jones", "", at(2)).await.unwrap(),
            0
        );

        assert_eq!(summary(&index, id).await.priority, Priority::Emergency);
        let events = index.transfer(id).await.unwrap().unwrap().events;
        assert_eq!(events[1].detail.as_deref(), Some("routine to emergency: he waits"));
        let claims =
            index.claim("york", "node", 3, std::time::Duration::from_mins(1), at(3)).await.unwrap();
        assert!(claims.iter().all(|claim| claim.transfer == id));
    }

    async fn lists_show_what_was_asked_for_newest_first(on: On) {
        let (index, _dir) = index(on).await;
        let done = transfer(&index, &[ct(1, 1).to("york", ROUTINE)]).await;
        let held = claim(&index, "york", 1, 0).await;
        index.settle(&[(held[0], accepted(1))], at(1)).await.unwrap();
        let waiting = transfer(&index, &[ct(2, 2).to("york", ROUTINE)]).await;
        let urgent = transfer(&index, &[ct(3, 3).to("leeds", Priority::Emergency)]).await;
        let all = TransferFilter::default;

        let table = [
            (all(), vec![urgent, waiting, done]),
            (TransferFilter { limit: 2, ..all() }, vec![urgent, waiting]),
            (TransferFilter { only_unfinished: true, ..all() }, vec![urgent, waiting]),
            (TransferFilter { partner: Some("york".to_owned()), ..all() }, vec![waiting, done]),
            (TransferFilter { priority: Some(Priority::Emergency), ..all() }, vec![urgent]),
            (TransferFilter { since: Some(at(2)), ..all() }, vec![urgent, waiting]),
            (TransferFilter { until: Some(at(2)), ..all() }, vec![waiting, done]),
            (
                TransferFilter { sender: Some("pacs".to_owned()), ..all() },
                vec![urgent, waiting, done],
            ),
            (TransferFilter { sender: Some("nobody".to_owned()), ..all() }, vec![]),
            (
                TransferFilter { study_instance_uid: Some("1.2.1".parse().unwrap()), ..all() },
                vec![done],
            ),
        ];
        for (filter, expected) in table {
            let found: Vec<_> =
                index.transfers(&filter).await.unwrap().into_iter().map(|found| found.id).collect();
            assert_eq!(found, expected, "{filter:?}");
        }
    }

    async fn problems_and_series_are_shown_together(on: On) {
        let (index, _dir) = index(on).await;
        let mut other = ct(1, 4).to("york", ROUTINE);
        other.facts.series = "1.2.1.10".parse().unwrap();
        let id = three_to_york(&index).await;
        index.record(&[other]).await.unwrap();
        let held = claim(&index, "york", 4, 0).await;
        let outcomes = [
            (held[0], deferred(9)),
            (held[1], deferred(9)),
            (held[2], refused()),
            (held[3], accepted(1)),
        ];
        index.settle(&outcomes, at(1)).await.unwrap();

        let detail = index.transfer(id).await.unwrap().unwrap();

        let problems: Vec<_> =
            detail.problems.iter().map(|p| (p.failure.kind, p.set_aside, p.deferred)).collect();
        assert_eq!(problems, [(FailureKind::Unreachable, 0, 2), (FailureKind::Refused, 1, 0)]);
        let series: Vec<_> = detail
            .series
            .iter()
            .map(|series| (series.counts.total, series.counts.delivered))
            .collect();
        assert_eq!(series, [(3, 0), (1, 1)]);
    }

    async fn a_transfer_that_does_not_exist_is_told_apart(on: On) {
        let (index, _dir) = index(on).await;
        let id = TransferId::new();

        assert!(index.transfer(id).await.unwrap().is_none());
        assert!(
            matches!(index.retry(id, "dr-jones", "", at(0)).await, Err(IndexError::UnknownTransfer(of)) if of == id)
        );
        assert_eq!(id.to_string().parse(), Ok(id));
    }
}
