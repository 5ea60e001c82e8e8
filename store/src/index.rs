//! The index: rows that make instances findable, and the orders that send them on.
//!
//! Guarantees that a batch is recorded whole or not at all and that recording it again changes nothing; that every
//! instance × partner is one delivery in one of six states, so that what was ordered is always what was delivered, waits,
//! was set aside or was cancelled; and that two workers never hold the same delivery under a valid lease. It is not the
//! truth about what was received, which sealed files hold: with the index gone, that can be recorded again.
//!
//! Knows nothing of associations, of routes beyond their names, or of who may see what.

mod delivery;
mod instance;
mod list;
mod outbox;
mod patient;
mod record;
#[cfg(test)]
mod samples;
mod series;
mod study;
mod timeline;
mod transfer;
mod words;

use std::collections::HashSet;
use std::fmt;
use std::num::ParseIntError;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::migrate::{Migrate, MigrateError, Migration, MigrationType, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow,
    SqliteSynchronous,
};
use sqlx::{Connection, Row, SqlSafeStr};
use thiserror::Error;

use crate::dicom::{SopInstanceUid, StudyInstanceUid};
use crate::facts::{Digest, ObjectId, Priority};

pub use delivery::{Delivery, Event, Failure, FailureKind, IllegalStep, Receipt};
pub use instance::{InstanceRow, Totals};
pub use outbox::{Claim, Settled};
pub use record::{Arrival, Recorded, RecordedAs, Routed};
pub use series::SeriesDetail;
pub use study::{StudyDetail, StudyFilter, StudySummary};
pub use timeline::{EventKind, TransferEvent};
pub use transfer::{
    Conservation, Counts, Decision, DeliveryRow, InvalidTransferId, Problem, TransferDetail,
    TransferFilter, TransferId, TransferSeries, TransferState, TransferSummary,
};
pub use words::UnknownWord;

/// The index of one node. A clone is another handle to the same.
#[derive(Clone, Debug)]
pub struct Index {
    /// SQLite has one writer at a time; with one connection they queue here and not in `busy_timeout`.
    writer: SqlitePool,
    readers: SqlitePool,
}

/// Why the index did not do what it was asked. The texts name operations and files, never a value of a row.
#[derive(Debug, Error)]
pub enum IndexError {
    /// The file cannot be made.
    #[error("cannot create the index at {}", path.display())]
    Create {
        /// Where.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The file is not a database, or cannot be used as one.
    #[error("cannot open the index at {}", path.display())]
    Open {
        /// Where.
        path: PathBuf,
        /// The cause.
        source: sqlx::Error,
    },
    /// A later version of the program has been here.
    #[error(
        "the index at {} was written by a newer version of gantry: its schema is {found}, this version knows {known}",
        path.display()
    )]
    Newer {
        /// Where.
        path: PathBuf,
        /// The latest step of its schema.
        found: i64,
        /// The latest step that this version knows.
        known: i64,
    },
    /// The schema cannot be brought up to date.
    #[error("cannot bring the index at {} up to date", path.display())]
    Migrate {
        /// Where.
        path: PathBuf,
        /// The cause.
        source: MigrateError,
    },
    /// There is no such transfer.
    #[error("there is no transfer {0}")]
    UnknownTransfer(TransferId),
    /// The database refused, or a row does not read.
    #[error("cannot {operation}")]
    Query {
        /// What was asked for.
        operation: &'static str,
        /// The cause.
        source: sqlx::Error,
    },
}

/// Names one instance on its way to one partner.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct DeliveryId(i64);

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for DeliveryId {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        text.parse().map(Self)
    }
}

/// Every step of the schema. A shipped one is never edited: its checksum is in the databases.
fn migrations() -> Migrator {
    let steps = [(1, "index", include_str!("../migrations/sqlite/0001_index.sql"))];
    Migrator::with_migrations(
        steps
            .into_iter()
            .map(|(version, name, sql)| {
                Migration::new(
                    version,
                    name.into(),
                    MigrationType::Simple,
                    sql.into_sql_str(),
                    false,
                )
            })
            .collect(),
    )
}

/// The commit waits for the disk, and so makes every earlier one durable too: they are in the same log. For what a person
/// decided, and before the drain removes spool files because of what was committed.
const SYNCED: &str = "PRAGMA synchronous = FULL";

/// The commit does not wait: a power cut may undo it, with all of its kind since the last synced one. For what comes back
/// by itself: arrivals, whose spool files are there until a synced commit says otherwise; claims, which a power cut ends
/// anyway; and outcomes, as a partner recognises what it is sent again. A crash of the process undoes nothing.
///
/// Either is said before every transaction, so that one that was given up half-way leaves nothing to the next.
const UNSYNCED: &str = "PRAGMA synchronous = NORMAL";

/// Runs the body in one transaction of the writer: all of it is there afterwards, on disk, or nothing.
macro_rules! writing {
    ($index:ident, $operation:literal, |$db:ident| $body:expr) => {
        writing!($index, $operation, SYNCED, |$db| $body)
    };
    ($index:ident, $operation:literal, $synchronous:expr, |$db:ident| $body:expr) => {
        async {
            let mut writer = $index.writer.acquire().await?;
            sqlx::raw_sql($synchronous).execute(&mut *writer).await?;
            let mut $db = writer.begin_with("BEGIN IMMEDIATE").await?;
            let done = $body.await?;
            $db.commit().await?;
            Ok(done)
        }
        .await
        .map_err(|source| IndexError::Query { operation: $operation, source })
    };
}

/// Runs the body in one transaction of a reader, so that what it reads is of one moment.
macro_rules! reading {
    ($index:ident, $operation:literal, |$db:ident| $body:expr) => {
        async {
            let mut $db = $index.readers.begin().await?;
            let done = $body.await?;
            $db.commit().await?;
            Ok(done)
        }
        .await
        .map_err(|source| IndexError::Query { operation: $operation, source })
    };
}

impl Index {
    /// Opens the index, makes it if there is none, and brings its schema up to date.
    pub async fn open(path: &Path) -> Result<Self, IndexError> {
        let failed = |source| IndexError::Open { path: path.to_owned(), source };
        private_file(path)
            .map_err(|source| IndexError::Create { path: path.to_owned(), source })?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(10))
            .foreign_keys(true)
            .pragma("temp_store", "memory"); // sorting must not leave patient data in a temporary file
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .test_before_acquire(false) // it is no network
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(options.clone())
            .await
            .map_err(failed)?;
        migrate(&writer, path).await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(4)
            .test_before_acquire(false)
            .connect_with(options.read_only(true))
            .await
            .map_err(failed)?;
        Ok(Self { writer, readers })
    }

    /// Waits for what is under way and closes the files.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    /// Records what was received, and orders it for the partners it was routed to. One transaction for the whole batch;
    /// an arrival whose object is known changes nothing.
    pub async fn record(&self, arrivals: &[Arrival]) -> Result<Vec<Recorded>, IndexError> {
        writing!(self, "record arrivals in the index", UNSYNCED, |db| record::record(
            &mut db, arrivals
        ))
    }

    /// Notes that the object store has confirmed these. When it returns, everything that was written before is on the disk
    /// too, whether or not there was anything to note: their spool files may go.
    pub async fn mark_stored(&self, objects: &[ObjectId]) -> Result<(), IndexError> {
        writing!(self, "mark objects as stored", |db| instance::mark_stored(&mut db, objects))
    }

    /// What the object store has not confirmed, oldest first.
    pub async fn unstored(&self, limit: u32) -> Result<Vec<ObjectId>, IndexError> {
        reading!(self, "list objects that are not stored", |db| instance::unstored(&mut db, limit))
    }

    /// Which of these have a row. One that was found to be a repeat has none.
    pub async fn knows(&self, objects: &[ObjectId]) -> Result<HashSet<ObjectId>, IndexError> {
        reading!(self, "look up objects", |db| instance::known(&mut db, objects))
    }

    /// Back to the queue with what this owner was sending when it died; to be called before it claims anything. Says how
    /// many deliveries that were.
    pub async fn recover(&self, owner: &str) -> Result<u64, IndexError> {
        writing!(self, "recover deliveries", |db| outbox::recover(&mut db, owner))
    }

    /// Claims what may be sent to a partner now, by priority and then in the order of arrival: what is queued, what was
    /// deferred until now, and what somebody held under a lease that has run out.
    pub async fn claim(
        &self,
        partner: &str,
        owner: &str,
        limit: u32,
        lease: Duration,
        now: Timestamp,
    ) -> Result<Vec<Claim>, IndexError> {
        writing!(self, "claim deliveries", UNSYNCED, |db| outbox::claim(
            &mut db, partner, owner, limit, lease, now
        ))
    }

    /// Gives back what was claimed and not begun. Says how many that were.
    pub async fn release(&self, deliveries: &[DeliveryId]) -> Result<u64, IndexError> {
        writing!(self, "release deliveries", UNSYNCED, |db| outbox::step_all(
            &mut db,
            deliveries,
            &Event::Release
        ))
    }

    /// Extends leases. Says how many of them this owner still had: if fewer than it asked for, others may be sending.
    pub async fn renew(
        &self,
        deliveries: &[DeliveryId],
        owner: &str,
        until: Timestamp,
    ) -> Result<u64, IndexError> {
        writing!(self, "renew leases", UNSYNCED, |db| outbox::renew(
            &mut db, deliveries, owner, until
        ))
    }

    /// Has what was deferred because the partner could not be had tried now: it answers again. Says how many that were.
    pub async fn bring_forward(&self, partner: &str, now: Timestamp) -> Result<u64, IndexError> {
        writing!(self, "bring deliveries forward", UNSYNCED, |db| outbox::bring_forward(
            &mut db, partner, now
        ))
    }

    /// Writes what came of deliveries, in one transaction. A delivery that does not exist is left out of the answer.
    pub async fn settle(
        &self,
        outcomes: &[(DeliveryId, Event)],
        now: Timestamp,
    ) -> Result<Vec<Settled>, IndexError> {
        writing!(self, "settle deliveries", UNSYNCED, |db| outbox::settle(&mut db, outcomes, now))
    }

    /// The most urgent of what could be claimed now.
    pub async fn most_urgent(
        &self,
        partner: &str,
        now: Timestamp,
    ) -> Result<Option<Priority>, IndexError> {
        reading!(self, "look for urgent deliveries", |db| outbox::most_urgent(
            &mut db, partner, now
        ))
    }

    /// When the earliest of the deferred is tried again.
    pub async fn next_due(&self, partner: &str) -> Result<Option<Timestamp>, IndexError> {
        reading!(self, "look for deferred deliveries", |db| outbox::next_due(&mut db, partner))
    }

    /// The partners for which something waits or is being sent, paused transfers aside.
    pub async fn partners_with_work(&self) -> Result<Vec<String>, IndexError> {
        reading!(self, "list partners with deliveries", |db| outbox::partners_with_work(&mut db))
    }

    /// The transfers that a filter lets through, newest first.
    pub async fn transfers(
        &self,
        filter: &TransferFilter,
    ) -> Result<Vec<TransferSummary>, IndexError> {
        reading!(self, "list transfers", |db| transfer::list(&mut db, filter))
    }

    /// One transfer, with its timeline.
    pub async fn transfer(&self, id: TransferId) -> Result<Option<TransferDetail>, IndexError> {
        reading!(self, "read a transfer", |db| transfer::detail(&mut db, id))
    }

    /// Every delivery of a transfer, in the order of arrival.
    pub async fn deliveries(&self, id: TransferId) -> Result<Vec<DeliveryRow>, IndexError> {
        reading!(self, "list deliveries", |db| transfer::deliveries(&mut db, id))
    }

    /// Asks anew for what is deferred, set aside or cancelled. Says how many deliveries that were.
    pub async fn retry(
        &self,
        id: TransferId,
        actor: &str,
        now: Timestamp,
    ) -> Result<u64, IndexError> {
        self.act(id, transfer::Action::Retry, actor, now).await
    }

    /// Gives up what the partner has not got. What is being sent at this moment may still arrive.
    pub async fn cancel(
        &self,
        id: TransferId,
        actor: &str,
        reason: &str,
        now: Timestamp,
    ) -> Result<u64, IndexError> {
        self.act(id, transfer::Action::Cancel { reason }, actor, now).await
    }

    /// Holds a transfer: nothing of it is claimed until it is resumed.
    pub async fn pause(
        &self,
        id: TransferId,
        actor: &str,
        reason: &str,
        now: Timestamp,
    ) -> Result<u64, IndexError> {
        self.act(id, transfer::Action::Pause { reason }, actor, now).await
    }

    /// Lets a paused transfer go on.
    pub async fn resume(
        &self,
        id: TransferId,
        actor: &str,
        now: Timestamp,
    ) -> Result<u64, IndexError> {
        self.act(id, transfer::Action::Resume, actor, now).await
    }

    /// Makes a transfer more urgent; one that is as urgent already stays as it is.
    pub async fn make_urgent(
        &self,
        id: TransferId,
        to: Priority,
        actor: &str,
        now: Timestamp,
    ) -> Result<u64, IndexError> {
        self.act(id, transfer::Action::Raise { to }, actor, now).await
    }

    async fn act(
        &self,
        id: TransferId,
        action: transfer::Action<'_>,
        actor: &str,
        now: Timestamp,
    ) -> Result<u64, IndexError> {
        let moved: Option<u64> = writing!(self, "change a transfer", |db| transfer::act(
            &mut db, id, action, actor, now
        ))?;
        moved.ok_or(IndexError::UnknownTransfer(id))
    }

    /// Transfers of which no association's end was noted since their latest instance. At start, before anything can
    /// come, these are the ones that a crash cut off: nobody else will note it.
    pub async fn still_receiving(&self) -> Result<Vec<TransferId>, IndexError> {
        reading!(self, "list transfers that are being received", |db| transfer::still_receiving(
            &mut db
        ))
    }

    /// Notes that the association which brought instances of these transfers has ended; only then can all be sent.
    pub async fn note_received_all(
        &self,
        transfers: &[TransferId],
        now: Timestamp,
    ) -> Result<(), IndexError> {
        writing!(
            self,
            "note the end of an association",
            UNSYNCED,
            |db| transfer::note_received_all(&mut db, transfers, now)
        )
    }

    /// The studies that a filter lets through, the one that received something last first.
    pub async fn studies(&self, filter: &StudyFilter) -> Result<Vec<StudySummary>, IndexError> {
        reading!(self, "list studies", |db| study::list(&mut db, filter))
    }

    /// One study with its series, instances and transfers.
    pub async fn study(&self, uid: &StudyInstanceUid) -> Result<Option<StudyDetail>, IndexError> {
        reading!(self, "read a study", |db| study::detail(&mut db, uid))
    }

    /// Every version of an instance, oldest first.
    pub async fn instance(&self, uid: &SopInstanceUid) -> Result<Vec<InstanceRow>, IndexError> {
        reading!(self, "read an instance", |db| instance::of_uid(&mut db, uid))
    }

    /// What is in quarantine, newest first.
    pub async fn quarantined(&self, limit: u32) -> Result<Vec<InstanceRow>, IndexError> {
        reading!(self, "list the quarantine", |db| instance::quarantined(&mut db, limit))
    }

    /// What was ordered for each partner, and where it is.
    pub async fn conservation(&self) -> Result<Vec<Conservation>, IndexError> {
        reading!(self, "count deliveries", |db| transfer::conservation(&mut db))
    }

    /// How much is here.
    pub async fn totals(&self) -> Result<Totals, IndexError> {
        reading!(self, "count instances", |db| instance::totals(&mut db))
    }
}

/// Makes the file readable by its owner alone; SQLite gives its journals the same mode.
fn private_file(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path).map(drop)
}

async fn migrate(writer: &SqlitePool, path: &Path) -> Result<(), IndexError> {
    let migrations = migrations();
    let known = migrations.iter().map(|step| step.version).max().unwrap_or(0);
    let applied = async {
        let mut db = writer.acquire().await?;
        db.ensure_migrations_table("_sqlx_migrations").await?;
        db.list_applied_migrations("_sqlx_migrations").await
    }
    .await
    .map_err(|source| IndexError::Migrate { path: path.to_owned(), source })?;
    match applied.iter().map(|step| step.version).max() {
        Some(found) if found > known => {
            Err(IndexError::Newer { path: path.to_owned(), found, known })
        }
        _ => migrations
            .run(writer)
            .await
            .map_err(|source| IndexError::Migrate { path: path.to_owned(), source }),
    }
}

/// How urgent, as rows hold it: the smaller, the sooner.
fn rank(priority: Priority) -> i64 {
    match priority {
        Priority::Emergency => 0,
        Priority::Urgent => 1,
        Priority::Routine => 2,
    }
}

fn priority(row: &SqliteRow, column: &'static str) -> sqlx::Result<Priority> {
    let rank: i64 = row.try_get(column)?;
    Priority::ALL
        .iter()
        .copied()
        .find(|priority| self::rank(*priority) == rank)
        .ok_or_else(|| unreadable(column))
}

/// A column that holds a checked type's text.
fn parsed<T: FromStr>(row: &SqliteRow, column: &'static str) -> sqlx::Result<T> {
    row.try_get::<&str, _>(column)?.parse().map_err(|_| unreadable(column))
}

fn unsigned<T: TryFrom<i64>>(row: &SqliteRow, column: &'static str) -> sqlx::Result<T> {
    row.try_get::<i64, _>(column)?.try_into().map_err(|_| unreadable(column))
}

fn flag(row: &SqliteRow, column: &'static str) -> sqlx::Result<bool> {
    Ok(row.try_get::<i64, _>(column)? != 0)
}

fn digest(row: &SqliteRow, column: &'static str) -> sqlx::Result<Digest> {
    row.try_get::<&[u8], _>(column)?.try_into().map(Digest).map_err(|_| unreadable(column))
}

fn moment(row: &SqliteRow, column: &'static str) -> sqlx::Result<Timestamp> {
    timestamp(row.try_get(column)?)
}

fn timestamp(ms: i64) -> sqlx::Result<Timestamp> {
    Timestamp::from_millisecond(ms).map_err(|_| unreadable("a time"))
}

/// A column that does not hold what it should. Which value it holds is not said: it may be patient data.
fn unreadable(column: &'static str) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: column.to_owned(), source: "not a value of its kind".into() }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;
    use std::os::unix::fs::PermissionsExt;
    use std::time::Instant;

    use super::samples::{accepted, at, claim, ct, index};
    use super::*;

    #[tokio::test]
    async fn what_was_recorded_outlives_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index.sqlite");
        let first = Index::open(&path).await.unwrap();
        let arrival = ct(1, 1).to("york", Priority::Emergency);
        first.record(&[arrival.clone(), ct(1, 2).to("york", Priority::Emergency)]).await.unwrap();
        let held = claim(&first, "york", 1, 0).await;
        first.settle(&[(held[0], accepted(1))], at(1)).await.unwrap();
        first.close().await;

        let second = Index::open(&path).await.unwrap();

        let counts = second.transfers(&TransferFilter::default()).await.unwrap()[0].counts;
        assert_eq!((counts.total, counts.delivered, counts.queued), (2, 1, 1));
        assert_eq!(second.knows(&[arrival.facts.object, ObjectId::new()]).await.unwrap().len(), 1);
        assert_eq!(second.totals().await.unwrap().bytes, 2 * 524_288);
    }

    #[tokio::test]
    async fn an_index_of_a_newer_version_is_left_alone() {
        let (newer, dir) = index().await;
        sqlx::query("INSERT INTO _sqlx_migrations VALUES (99, 'later', '', 1, x'00', 0)")
            .execute(&newer.writer)
            .await
            .unwrap();
        newer.close().await;

        let refused = Index::open(&dir.path().join("index.sqlite")).await.unwrap_err();

        assert!(matches!(refused, IndexError::Newer { found: 99, .. }), "{refused}");
    }

    #[tokio::test]
    async fn a_file_that_is_something_else_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index.sqlite");
        std::fs::write(&path, "not a database, and long enough to be looked at as one".repeat(20))
            .unwrap();

        assert!(Index::open(&path).await.is_err());
        assert!(std::fs::read_to_string(&path).unwrap().starts_with("not a database"));
        assert!(matches!(Index::open(dir.path()).await, Err(IndexError::Create { .. })));
    }

    #[tokio::test]
    async fn what_the_drain_relies_on_is_on_disk_whatever_was_written_before() {
        let (index, dir) = index().await;
        let level = async || -> i64 {
            let pragma = sqlx::query_scalar("PRAGMA synchronous").persistent(false);
            pragma.fetch_one(&index.writer).await.unwrap()
        };
        // A commit syncs the log only if it wrote to it.
        let log = || std::fs::read(dir.path().join("index.sqlite-wal")).unwrap();

        for _ in 0..2 {
            index.record(&[ct(1, 1).to("york", Priority::Routine)]).await.unwrap();
            claim(&index, "york", 1, 0).await;
            assert_eq!(level().await, 1);
            let before = log();
            index.mark_stored(&[]).await.unwrap();
            assert_eq!(level().await, 2);
            assert_ne!(log(), before);
        }
    }

    #[tokio::test]
    async fn others_on_the_machine_cannot_read_it() {
        let (index, dir) = index().await;
        index.record(&[ct(1, 1)]).await.unwrap();

        for name in ["index.sqlite", "index.sqlite-wal"] {
            let mode = std::fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }

    #[tokio::test]
    async fn an_error_does_not_quote_what_a_row_holds() {
        let (index, _dir) = index().await;
        index.record(&[ct(1, 1)]).await.unwrap();
        sqlx::query("UPDATE study SET uid = 'SMITH^ANNA'").execute(&index.writer).await.unwrap();

        let failed = index.studies(&StudyFilter::default()).await.unwrap_err();

        let mut chain = format!("{failed:?} {failed}");
        let mut source = failed.source();
        while let Some(error) = source {
            chain += &error.to_string();
            source = error.source();
        }
        assert!(chain.contains("uid") && !chain.contains("SMITH"), "{chain}");
    }

    /// Figures, not a check: `cargo test --release -p gantry-store -- --ignored --nocapture how_fast_it_is`.
    #[tokio::test]
    #[ignore = "a measurement of half a minute"]
    async fn how_fast_it_is() {
        let (index, _dir) = index().await;
        let begun = Instant::now();
        for study in 0..200 {
            let batches: Vec<_> =
                (0..500).map(|number| ct(study, number).to("york", Priority::Routine)).collect();
            for batch in batches.chunks(100) {
                index.record(batch).await.unwrap();
            }
        }
        println!("record, 100 a batch: {:.0}/s", 100_000.0 / begun.elapsed().as_secs_f64());
        for size in [8, 16] {
            let begun = Instant::now();
            for _ in 0..200 {
                let held = claim(&index, "york", size, 0).await;
                let outcomes: Vec<_> = held.into_iter().map(|id| (id, accepted(1))).collect();
                index.settle(&outcomes, at(1)).await.unwrap();
            }
            let rate = f64::from(size) * 200.0 / begun.elapsed().as_secs_f64();
            println!("claim and settle, {size} a batch, 100,000 waiting: {rate:.0}/s");
        }
        // An outage: 20,000 deferred, none due; then all at once.
        for _ in 0..200 {
            let held = claim(&index, "york", 100, 0).await;
            let outcomes: Vec<_> =
                held.into_iter().map(|id| (id, samples::deferred(500))).collect();
            index.settle(&outcomes, at(1)).await.unwrap();
        }
        for (what, second) in [("20,000 deferred", 2), ("20,000 due at once", 500)] {
            let begun = Instant::now();
            for _ in 0..100 {
                index.release(&claim(&index, "york", 16, second).await).await.unwrap();
            }
            println!("claim and release, {what}: {:.2} ms", begun.elapsed().as_secs_f64() * 10.0);
        }
        let begun = Instant::now();
        index
            .transfers(&TransferFilter { only_unfinished: true, ..TransferFilter::default() })
            .await
            .unwrap();
        println!("list of 100 unfinished transfers: {:?}", begun.elapsed());
        let begun = Instant::now();
        index.studies(&StudyFilter::default()).await.unwrap();
        println!("list of 100 studies: {:?}", begun.elapsed());
        let begun = Instant::now();
        index.conservation().await.unwrap();
        println!("conservation: {:?}", begun.elapsed());
        let begun = Instant::now();
        index.totals().await.unwrap();
        println!("totals: {:?}", begun.elapsed());
        let id = index.transfers(&TransferFilter::default()).await.unwrap()[0].id;
        let begun = Instant::now();
        index.transfer(id).await.unwrap();
        println!("one transfer of 500: {:?}", begun.elapsed());
    }
}
