//! What happened to a transfer, as people read it: written once for each change, never once for each instance.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::db::Db;
use super::delivery::{Failure, FailureKind};
use super::words::words;
use super::{moment, parsed};

/// One line of a transfer's timeline.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct TransferEvent {
    /// When.
    pub at: Timestamp,
    /// What.
    pub kind: EventKind,
    /// The person who did it; `None` where the gateway did.
    pub actor: Option<String>,
    /// The reason that was given, or the technical text.
    pub detail: Option<String>,
    /// What kind of failure delayed it or set it aside.
    pub failure: Option<FailureKind>,
}

/// What can happen to a transfer.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// Its first instance was routed.
    Created,
    /// The association that brought its instances ended.
    ReceivedAll,
    /// The partner accepted the first instance.
    FirstSent,
    /// The partner accepted all there was.
    AllSent,
    /// It does not work now, and will be tried again.
    Delayed,
    /// Something of it waits for a person.
    SetAside,
    /// A person asked for it anew.
    Retried,
    /// A person decided that it does not go.
    Cancelled,
    /// A person held it.
    Paused,
    /// A person let it go on.
    Resumed,
    /// It became more urgent.
    PriorityRaised,
    /// More came after all had been sent.
    Reopened,
    /// The images were removed here.
    Removed,
    /// The partner proved that it holds all of it.
    Confirmed,
    /// The partner does not have what it had accepted.
    NotStored,
    /// All that the source lists of the study is here.
    Complete,
    /// The source lists more of the study than is here.
    Incomplete,
    /// The source did not say what it has of the study.
    NotCounted,
    /// The source was asked to send what is missing.
    Fetched,
    /// A person decided that the partner should not have had it.
    Recalled,
    /// The partner accepted the note of that.
    RecallAccepted,
}

words!(EventKind {
    Created = "created",
    ReceivedAll = "received-all",
    FirstSent = "first-sent",
    AllSent = "all-sent",
    Delayed = "delayed",
    SetAside = "set-aside",
    Retried = "retried",
    Cancelled = "cancelled",
    Paused = "paused",
    Resumed = "resumed",
    PriorityRaised = "priority-raised",
    Reopened = "reopened",
    Removed = "removed",
    Confirmed = "confirmed",
    NotStored = "not-stored",
    Complete = "complete",
    Incomplete = "incomplete",
    NotCounted = "not-counted",
    Fetched = "fetched",
    Recalled = "recalled",
    RecallAccepted = "recall-accepted",
});

/// Adds a line.
pub(super) async fn add(
    db: &mut Db,
    transfer: i64,
    at: Timestamp,
    kind: EventKind,
    actor: Option<&str>,
    detail: Option<&str>,
) -> sqlx::Result<()> {
    db.query("INSERT INTO transfer_event (transfer, at, kind, actor, detail) VALUES ($1, $2, $3, $4, $5)")
        .bind(transfer)
        .bind(at.as_millisecond())
        .bind(kind.as_str())
        .bind(actor)
        .bind(detail)
        .execute(db)
        .await?;
    Ok(())
}

/// Adds a line about a failure (`Delayed` or `SetAside`), unless the timeline says the same already and nothing was sent,
/// and nobody intervened, since: a partner that is away for a week is one line and not one for each try.
pub(super) async fn add_failure(
    db: &mut Db,
    transfer: i64,
    at: Timestamp,
    kind: EventKind,
    why: &Failure,
) -> sqlx::Result<()> {
    let latest = db
        .query(
            "SELECT kind, failure, at FROM transfer_event WHERE transfer = $1 \
         AND kind IN ($2, 'retried', 'resumed', 'reopened') ORDER BY id DESC LIMIT 1",
        )
        .bind(transfer)
        .bind(kind.as_str())
        .fetch_optional(&mut *db)
        .await?;
    if let Some(latest) = latest
        && latest.try_get::<&str>("kind")? == kind.as_str()
        && latest.try_get::<Option<&str>>("failure")? == Some(why.kind.as_str())
    {
        let sent_since: Option<i64> = db.query(
            "SELECT sent_at FROM delivery WHERE transfer = $1 AND state = 'delivered' AND until IS NULL \
             AND sent_at > $2 LIMIT 1",
        )
        .bind(transfer)
        .bind(latest.try_get::<i64>("at")?)
        .optional_scalar(&mut *db)
        .await?;
        // What is set aside stays so whatever else was sent.
        if sent_since.is_none() || kind == EventKind::SetAside {
            return Ok(());
        }
    }
    db.query("INSERT INTO transfer_event (transfer, at, kind, detail, failure) VALUES ($1, $2, $3, $4, $5)")
        .bind(transfer)
        .bind(at.as_millisecond())
        .bind(kind.as_str())
        .bind(&why.text)
        .bind(why.kind.as_str())
        .execute(db)
        .await?;
    Ok(())
}

/// The timeline of a transfer, oldest first.
pub(super) async fn of_transfer(db: &mut Db, transfer: i64) -> sqlx::Result<Vec<TransferEvent>> {
    let rows =
        db.query("SELECT at, kind, actor, detail, failure FROM transfer_event WHERE transfer = $1 ORDER BY id")
            .bind(transfer)
            .fetch_all(db)
            .await?;
    rows.iter()
        .map(|row| {
            Ok(TransferEvent {
                at: moment(row, "at")?,
                kind: parsed(row, "kind")?,
                actor: row.try_get("actor")?,
                detail: row.try_get("detail")?,
                failure: match row.try_get::<Option<&str>>("failure")? {
                    Some(_) => Some(parsed(row, "failure")?),
                    None => None,
                },
            })
        })
        .collect()
}
