//! The index: rows that make instances findable, and the orders that send them on.
//!
//! Guarantees that a batch is recorded whole or not at all and that recording it again changes nothing; that every
//! instance × partner is one delivery in one of six states, so that what was ordered is always what was delivered, waits,
//! was set aside or was cancelled; and that two workers never hold the same delivery under a valid lease. It is not the
//! truth about what was received, which sealed files hold: with the index gone, that can be recorded again.
//!
//! Knows nothing of associations, of routes beyond their names, or of who may see what.

mod commitment;
mod completeness;
mod counting;
mod db;
mod delivery;
mod find;
mod findable;
mod instance;
mod lock;
mod mark;
mod outbox;
mod patient;
mod postgres;
mod proof;
mod protection;
mod recall;
mod record;
mod retention;
#[cfg(test)]
mod samples;
mod schema;
mod series;
mod share;
mod study;
mod timeline;
mod transfer;
mod turn;
mod waiting;
mod words;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::num::ParseIntError;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use sqlx::migrate::MigrateError;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use thiserror::Error;
use tokio::time::timeout;

use crate::delivered::Proof;
use crate::dicom::{SopInstanceUid, StudyInstanceUid, Uid};
use crate::facts::{Digest, ObjectId, Priority, Way};
use crate::query::Query;

use db::{Db, Durability, Row};
use mark::Mark;
use postgres::Server;

pub use commitment::{CommitmentRequest, Held, Owed, Reference, Verdict};
pub use completeness::{Completeness, CompletenessState, CountedSeries, IncompleteTotals};
pub use counting::{CountDue, CountTaken, Counted, HeldImages, NextFetch, Outcome};
pub use delivery::{Delivery, Event, Failure, FailureKind, IllegalStep, Receipt};
pub use find::{Cursor, Found, Matches, Object, Page, Search, Wanted};
pub use instance::{InstanceRow, Totals};
pub use outbox::{Claim, Lost, Settled, Whereabouts};
pub use postgres::{Patience, PostgresHost, PostgresSettings, PostgresTls, Probe};
pub use proof::{AskedFor, ProofWanted, ProvenBy, Report, Reported, Unproven};
pub use protection::{Protected, ProtectedAside};
pub use recall::{Accepted, Note, NoteWanted, Recalled, Rejection};
pub use record::{Arrival, Recorded, RecordedAs, Routed};
pub use retention::{Needed, Removal, Remover, StudyAtRest, StudyEvent, TransferAtRest};
pub use series::SeriesDetail;
pub use share::{NewShare, Scope, Share};
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
    database: Database,
    /// Claims of which nobody knows whether they are in the database: the answer to their commit was lost.
    unsure: Arc<Mutex<Vec<Unsure>>>,
    mark: Option<Arc<Mark>>,
}

#[derive(Clone, Debug)]
enum Database {
    /// One writer at a time; with one connection they queue here and not in `busy_timeout`.
    Sqlite {
        writer: SqlitePool,
        readers: SqlitePool,
        /// For searches alone: few at once, and each ends in time, so that who asks much keeps nobody else from reading.
        searchers: SqlitePool,
    },
    Postgres(Arc<Server>),
}

/// A batch of deliveries that somebody may hold without knowing it.
#[derive(Clone, Debug)]
struct Unsure {
    deliveries: Vec<DeliveryId>,
    owner: String,
    lease_ends: Timestamp,
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
    /// The database server is not there, or does not let the node in.
    #[error("cannot reach the database {server}")]
    Connect {
        /// Which.
        server: String,
        /// The cause.
        source: sqlx::Error,
    },
    /// The database did not answer in time. What was asked may have been done.
    #[error("cannot {operation}: the database did not answer within {} s", after.as_secs_f64())]
    TimedOut {
        /// What was asked for.
        operation: &'static str,
        /// How long it had.
        after: Duration,
    },
    /// The connection was lost while it was being committed. It may have been done; doing it again is right.
    #[error("cannot tell whether it worked to {operation}: the database went away in the commit")]
    Unsure {
        /// What was asked for.
        operation: &'static str,
        /// The cause.
        source: sqlx::Error,
    },
    /// A later version of the program has been here.
    #[error(
        "the index at {place} was written by a newer version of gantry: its schema is {found}, this version knows {known}"
    )]
    Newer {
        /// Where.
        place: String,
        /// The latest step of its schema.
        found: i64,
        /// The latest step that this version knows.
        known: i64,
    },
    /// The schema cannot be brought up to date.
    #[error("cannot bring the index at {place} up to date")]
    Migrate {
        /// Where.
        place: String,
        /// The cause.
        source: MigrateError,
    },
    /// The database is an older copy of what it was.
    #[error("the index is an older copy: what it lacks must be brought back first")]
    WentBack,
    /// There is no such transfer.
    #[error("there is no transfer {0}")]
    UnknownTransfer(TransferId),
    /// A search took longer than it may: it would have to go through too much. Nothing of it is known.
    #[error("the search was ended after {} s", after.as_secs_f64())]
    SearchTooLong {
        /// How long it had.
        after: Duration,
    },
    /// The database refused, or a row does not read.
    #[error("cannot {operation}")]
    Query {
        /// What was asked for.
        operation: &'static str,
        /// The cause.
        source: sqlx::Error,
    },
}

impl IndexError {
    /// Whether the database is away or busy, rather than in disagreement: the same may succeed later.
    pub fn is_outage(&self) -> bool {
        match self {
            Self::TimedOut { .. } | Self::Unsure { .. } => true,
            Self::Connect { source, .. } | Self::Query { source, .. } => {
                postgres::is_outage(source)
            }
            Self::Create { .. }
            | Self::Open { .. }
            | Self::Newer { .. }
            | Self::Migrate { .. }
            | Self::WentBack
            | Self::SearchTooLong { .. }
            | Self::UnknownTransfer(_) => false,
        }
    }
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

/// Runs the body in one transaction that writes: all of it is there afterwards, on disk, or nothing.
macro_rules! writing {
    ($index:ident, $operation:literal, |$db:ident| $body:expr) => {
        writing!($index, $operation, Durability::Synced, |$db| $body)
    };
    ($index:ident, $operation:literal, $durability:expr, |$db:ident| $body:expr) => {
        transaction!($index, $operation, Access::Write($durability), |$db| $body)
    };
}

/// Runs the body in one transaction that reads, so that what it reads is of one moment.
macro_rules! reading {
    ($index:ident, $operation:literal, |$db:ident| $body:expr) => {
        transaction!($index, $operation, Access::Read, |$db| $body)
    };
}

/// Runs the body until it is done, fails for a reason of its own, or has lost too many races against other nodes.
macro_rules! transaction {
    ($index:ident, $operation:literal, $access:expr, |$db:ident| $body:expr) => {
        async {
            let mut tries = Tries::new($operation);
            loop {
                let once = async {
                    let mut $db = $index.begin($access).await?;
                    match $body.await {
                        Ok(done) => $db.commit().await.map(|()| done).map_err(Trouble::InCommit),
                        Err(error) => {
                            $db.give_up().await;
                            Err(Trouble::InBody(error))
                        }
                    }
                };
                match $index.in_time(once).await {
                    Ok(done) => break Ok(done),
                    Err(trouble) => $index.try_again(&mut tries, trouble).await?,
                }
            }
        }
        .await
    };
}

/// What a transaction is for.
#[derive(Clone, Copy)]
enum Access {
    Read,
    /// To read, each statement at most so long.
    Search(Duration),
    Write(Durability),
}

/// Where a transaction failed.
enum Trouble {
    /// The schema is not as it should be, or nobody knows.
    NotReady(IndexError),
    /// It was not begun.
    Before(sqlx::Error),
    /// Nothing of it is there.
    InBody(sqlx::Error),
    /// Nobody knows.
    InCommit(sqlx::Error),
    /// Nobody knows.
    TimedOut(Duration),
}

/// How often something was tried.
struct Tries {
    operation: &'static str,
    failed: u32,
}

impl Tries {
    /// The loser of a race between nodes goes behind the winner, so few are enough.
    const MOST: u32 = 5;

    fn new(operation: &'static str) -> Self {
        Self { operation, failed: 0 }
    }
}

impl Index {
    /// Opens the index in a file, makes it if there is none, and brings its schema up to date.
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
        schema::migrate_sqlite(&mut *writer.acquire().await.map_err(failed)?, path).await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(4)
            .test_before_acquire(false)
            .connect_with(options.clone().read_only(true))
            .await
            .map_err(failed)?;
        let searchers = SqlitePoolOptions::new()
            .max_connections(2)
            .test_before_acquire(false)
            .connect_lazy_with(options.read_only(true));
        Ok(Self {
            database: Database::Sqlite { writer, readers, searchers },
            unsure: Arc::default(),
            mark: None,
        })
    }

    /// The index in a PostgreSQL database, which is not asked for anything yet: [`Index::prepare`] does, and so does
    /// whatever is called first.
    pub fn postgres(settings: PostgresSettings) -> Self {
        Self {
            database: Database::Postgres(Server::new(settings)),
            unsure: Arc::default(),
            mark: None,
        }
    }

    /// Has the index remember in a file how far this node has come, so that an older copy of the database is noticed: from
    /// then on nothing is claimed until [`Index::is_whole_again`] has been said.
    #[must_use]
    pub fn remembering(self, node: &str, file: PathBuf) -> Self {
        Self { mark: Some(Arc::new(Mark::open(node, file))), ..self }
    }

    /// Waits until the database is found to be an older copy, which lacks what came since. At once, while it is.
    pub async fn gone_back(&self) {
        match &self.mark {
            Some(mark) => mark.gone_back().await,
            None => std::future::pending().await,
        }
    }

    /// Looks whether the database is an older copy.
    pub async fn has_gone_back(&self) -> Result<bool, IndexError> {
        let Some(mark) = &self.mark else { return Ok(false) };
        mark.suspect();
        reading!(self, "see how old the index is", |_db| async { Ok(()) })?;
        Ok(mark.is_behind())
    }

    /// Notes that what the database lacked is there again.
    pub async fn is_whole_again(&self) -> Result<(), IndexError> {
        let Some(mark) = &self.mark else { return Ok(()) };
        let came_to: i64 =
            writing!(self, "note that the index is whole", |db| mark.catch_up(&mut db))?;
        mark.came_to(came_to);
        mark.trust();
        Ok(())
    }

    /// Brings the schema of a PostgreSQL database up to date, unless that was done.
    pub async fn prepare(&self) -> Result<(), IndexError> {
        match &self.database {
            Database::Sqlite { .. } => Ok(()),
            Database::Postgres(server) => server.prepare().await,
        }
    }

    /// Waits for what is under way and closes files and connections.
    pub async fn close(&self) {
        match &self.database {
            Database::Sqlite { writer, readers, searchers } => {
                searchers.close().await;
                readers.close().await;
                writer.close().await;
            }
            Database::Postgres(server) => {
                let closed = async {
                    server.readers.close().await;
                    server.writers.close().await;
                };
                // A server that does not answer is not said goodbye to.
                let _ = timeout(server.settings.patience.connect, closed).await;
            }
        }
    }

    async fn begin(&self, access: Access) -> Result<Db, Trouble> {
        let begun = match (&self.database, access) {
            (Database::Sqlite { readers, .. }, Access::Read) => Db::read_sqlite(readers).await,
            (Database::Sqlite { writer, .. }, Access::Write(durability)) => {
                Db::write_sqlite(writer, durability).await
            }
            (Database::Sqlite { searchers, .. }, Access::Search(within)) => {
                Db::search_sqlite(searchers, within).await
            }
            (Database::Postgres(server), access) => {
                server.prepare().await.map_err(Trouble::NotReady)?;
                match access {
                    Access::Read => Db::read_postgres(&server.readers).await,
                    Access::Search(within) => Db::search_postgres(&server.readers, within).await,
                    Access::Write(durability) => {
                        Db::write_postgres(&server.writers, durability).await
                    }
                }
            }
        };
        let mut db = begun.map_err(Trouble::Before)?;
        if let Some(mark) = &self.mark {
            mark.look(&mut db).await.map_err(Trouble::Before)?;
        }
        Ok(db)
    }

    /// A file answers; a server may not.
    async fn in_time<T>(
        &self,
        once: impl Future<Output = Result<T, Trouble>>,
    ) -> Result<T, Trouble> {
        match &self.database {
            Database::Sqlite { .. } => once.await,
            Database::Postgres(server) => {
                let limit = server.settings.patience.operation;
                timeout(limit, once).await.unwrap_or(Err(Trouble::TimedOut(limit)))
            }
        }
    }

    /// Says whether there is another try, and if not, why it failed.
    async fn try_again(&self, tries: &mut Tries, trouble: Trouble) -> Result<(), IndexError> {
        let operation = tries.operation;
        let query = |source| IndexError::Query { operation, source };
        if let Some(mark) = &self.mark {
            mark.suspect();
        }
        let Database::Postgres(server) = &self.database else {
            return Err(match trouble {
                Trouble::NotReady(error) => error,
                Trouble::Before(source) | Trouble::InBody(source) | Trouble::InCommit(source) => {
                    query(source)
                }
                Trouble::TimedOut(after) => IndexError::TimedOut { operation, after },
            });
        };
        tries.failed += 1;
        let more = tries.failed < Tries::MOST;
        match trouble {
            Trouble::NotReady(error) => Err(error),
            Trouble::TimedOut(after) => {
                server.forget_idle();
                Err(IndexError::TimedOut { operation, after })
            }
            Trouble::Before(sqlx::Error::PoolTimedOut) => {
                let after = server.settings.patience.connect;
                Err(IndexError::TimedOut { operation, after })
            }
            // A connection that died while it was idle. The next one is new, and says whether the server is there.
            Trouble::Before(error) if postgres::is_outage(&error) && tries.failed == 1 => {
                server.forget_idle();
                Ok(())
            }
            Trouble::InBody(error) | Trouble::InCommit(error)
                if more && postgres::lost_a_race(&error) =>
            {
                tracing::debug!(operation, tries = tries.failed, %error, "lost a race; once more");
                tokio::time::sleep(Duration::from_millis(5) * tries.failed.pow(2)).await;
                Ok(())
            }
            Trouble::InCommit(source) if postgres::is_outage(&source) => {
                server.forget_idle();
                Err(IndexError::Unsure { operation, source })
            }
            Trouble::Before(source) | Trouble::InBody(source) | Trouble::InCommit(source) => {
                if postgres::is_outage(&source) {
                    server.forget_idle();
                }
                Err(query(source))
            }
        }
    }

    /// Brings rows of before searches knew names without accents up to date, in batches, unless that was done. Every search
    /// does, so this is for the start of a node, where nobody waits. Says how many rows that were.
    pub async fn make_findable(&self) -> Result<u64, IndexError> {
        let pending =
            reading!(self, "see what is to be folded", |db| findable::is_pending(&mut db))?;
        if !pending {
            return Ok(0);
        }
        let mut folded = 0;
        loop {
            let some = writing!(self, "fold names", Durability::Unsynced, |db| {
                findable::fold_some(&mut db)
            })?;
            folded += some;
            if some == 0 {
                return Ok(folded);
            }
        }
    }

    /// One page of what matches a query within a scope at this moment.
    pub async fn find(
        &self,
        query: &Query,
        scope: &Scope,
        page: &Page,
        now: Timestamp,
    ) -> Result<Matches, IndexError> {
        if page.after.is_none() {
            self.make_findable().await?;
        }
        let found = transaction!(self, "search the index", Access::Search(page.within), |db| {
            find::find(&mut db, query, scope, page, now)
        });
        found.map_err(|error| match error {
            IndexError::Query { source, .. } if db::was_interrupted(&source) => {
                IndexError::SearchTooLong { after: page.within }
            }
            other => other,
        })
    }

    /// Objects that are wanted and within a scope at this moment, in pages: those after a place, 0 at first, at most `limit`.
    /// What is out of scope and what does not exist are both not among them.
    pub async fn objects(
        &self,
        wanted: &Wanted,
        scope: &Scope,
        after: i64,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<Object>, IndexError> {
        reading!(self, "look up objects to be sent", |db| find::objects(
            &mut db,
            wanted,
            scope,
            (after, limit),
            now
        ))
    }

    /// Lets a partner see a study. `None` if there is no such study; else the share's number.
    pub async fn share(
        &self,
        new: &NewShare<'_>,
        now: Timestamp,
    ) -> Result<Option<i64>, IndexError> {
        writing!(self, "share a study", |db| share::add(&mut db, new, now))
    }

    /// Ends what lets a partner see a study, as far as people shared it. Says how many shares that were.
    pub async fn revoke(
        &self,
        study: &StudyInstanceUid,
        partner: &str,
        actor: &str,
        why: &str,
        now: Timestamp,
    ) -> Result<u64, IndexError> {
        writing!(self, "end a share", |db| share::revoke(&mut db, study, partner, actor, why, now))
    }

    /// Every share of a study, oldest first, those that have ended too.
    pub async fn shares(&self, study: &StudyInstanceUid) -> Result<Vec<Share>, IndexError> {
        reading!(self, "list the shares of a study", |db| share::of_study(&mut db, study))
    }

    /// Records what was received, and orders it for the partners it was routed to. One transaction for the whole batch;
    /// an arrival whose object is known changes nothing.
    pub async fn record(&self, arrivals: &[Arrival]) -> Result<Vec<Recorded>, IndexError> {
        writing!(self, "record arrivals in the index", Durability::Unsynced, |db| record::record(
            &mut db, arrivals
        ))
    }

    /// Notes that the object store has confirmed these. When it returns, everything that was written before is on the disk
    /// too, whether or not there was anything to note: their spool files may go.
    pub async fn mark_stored(&self, objects: &[ObjectId]) -> Result<(), IndexError> {
        // While the database is behind, the mark stays: a node that ends now must find it out again.
        let mark = self.mark.as_ref().filter(|mark| !mark.is_behind());
        let came_to: Option<i64> = writing!(self, "mark objects as stored", |db| async {
            instance::mark_stored(&mut db, objects).await?;
            match mark {
                Some(mark) => mark.advance(&mut db).await,
                None => Ok(None),
            }
        })?;
        match (mark, came_to) {
            (Some(mark), Some(came_to)) => mark.came_to(came_to),
            (Some(_), None) => return Err(IndexError::WentBack),
            (None, _) => {}
        }
        Ok(())
    }

    /// Notes that no whole copy of these is known: the same bytes, sent again, are then kept and no repeat.
    pub async fn mark_lost(&self, objects: &[ObjectId], now: Timestamp) -> Result<(), IndexError> {
        writing!(self, "note what is lost", |db| instance::mark_lost(&mut db, objects, now))
    }

    /// What the object store has not confirmed, oldest first.
    pub async fn unstored(&self, limit: u32) -> Result<Vec<ObjectId>, IndexError> {
        reading!(self, "list objects that are not stored", |db| instance::unstored(&mut db, limit))
    }

    /// Rows in the order of object ids, in pages: those after `after`, at most `limit`.
    pub async fn instances_after(
        &self,
        after: Option<ObjectId>,
        limit: u32,
    ) -> Result<Vec<InstanceRow>, IndexError> {
        reading!(self, "list objects that have rows", |db| instance::after(&mut db, after, limit))
    }

    /// Which of these have a row and are to be kept. One that was found to be a repeat has none.
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
        let unsure = self.take_unsure(owner);
        let mut held = Vec::new();
        let claimed = writing!(self, "claim deliveries", Durability::Unsynced, |db| async {
            if self.mark.as_ref().is_some_and(|mark| mark.is_behind()) {
                return Ok(Vec::new());
            }
            for batch in &unsure {
                outbox::give_back_unsure(&mut db, batch).await?;
            }
            let claims = outbox::claim(&mut db, partner, owner, limit, lease, now).await?;
            held = claims.iter().map(|claim| claim.delivery).collect();
            Ok(claims)
        });
        if claimed.is_err() {
            // Whether the commit happened or not: whoever gives back what it does not hold changes nothing.
            let lease_ends = outbox::lease_end(now, lease);
            let owner = owner.to_owned();
            let mine = Unsure { deliveries: held, owner, lease_ends };
            self.unsure()
                .extend(unsure.into_iter().chain([mine]).filter(|b| !b.deliveries.is_empty()));
        }
        claimed
    }

    /// Gives back claims that were not begun. If the database does not say that it has them back, they are given back with
    /// the next of these calls, or claims, as far as they are still held under the same lease.
    pub async fn give_back(&self, claims: &[Claim], owner: &str) -> Result<(), IndexError> {
        let mut batches: BTreeMap<Timestamp, Vec<DeliveryId>> = BTreeMap::new();
        for claim in claims {
            batches.entry(claim.lease_ends).or_default().push(claim.delivery);
        }
        let batch =
            |(lease_ends, deliveries)| Unsure { deliveries, owner: owner.to_owned(), lease_ends };
        self.unsure().extend(batches.into_iter().map(batch));
        self.give_back_unsure(owner).await
    }

    /// Gives back what an owner holds without knowing it, after a commit whose answer was lost. Asks nothing of the database
    /// where there is no such thing.
    pub async fn give_back_unsure(&self, owner: &str) -> Result<(), IndexError> {
        let unsure = self.take_unsure(owner);
        if unsure.is_empty() {
            return Ok(());
        }
        let given = writing!(self, "give back deliveries", Durability::Unsynced, |db| async {
            for batch in &unsure {
                outbox::give_back_unsure(&mut db, batch).await?;
            }
            Ok(())
        });
        if given.is_err() {
            self.unsure().extend(unsure);
        }
        given
    }

    fn unsure(&self) -> MutexGuard<'_, Vec<Unsure>> {
        // Every change is one call on the list, so a panic elsewhere leaves it whole.
        self.unsure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_unsure(&self, owner: &str) -> Vec<Unsure> {
        self.unsure().extract_if(.., |batch| batch.owner == owner).collect()
    }

    /// Gives back what was claimed and not begun. Says how many that were.
    pub async fn release(&self, deliveries: &[DeliveryId]) -> Result<u64, IndexError> {
        writing!(self, "release deliveries", Durability::Unsynced, |db| outbox::step_all(
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
        writing!(self, "renew leases", Durability::Unsynced, |db| outbox::renew(
            &mut db, deliveries, owner, until
        ))
    }

    /// Where the instance of a delivery belongs; `None` if there is no such delivery.
    pub async fn whereabouts(
        &self,
        delivery: DeliveryId,
    ) -> Result<Option<Whereabouts>, IndexError> {
        reading!(self, "read where an instance belongs", |db| outbox::whereabouts(
            &mut db, delivery
        ))
    }

    /// Has what was deferred because the partner could not be had tried now: it answers again. Says how many that were.
    pub async fn bring_forward(&self, partner: &str, now: Timestamp) -> Result<u64, IndexError> {
        writing!(
            self,
            "bring deliveries forward",
            Durability::Unsynced,
            |db| outbox::bring_forward(&mut db, partner, now)
        )
    }

    /// Has everything for a partner tried, or asked about, now that waits for a time beyond `limit`. Says how much that was.
    pub async fn clock_was_set_back(
        &self,
        partner: &str,
        limit: Timestamp,
        now: Timestamp,
    ) -> Result<u64, IndexError> {
        writing!(self, "bring forward what waits too long", Durability::Unsynced, |db| {
            outbox::clock_was_set_back(&mut db, partner, limit, now)
        })
    }

    /// Writes what came of deliveries, in one transaction. A delivery that does not exist is left out of the answer.
    pub async fn settle(
        &self,
        outcomes: &[(DeliveryId, Event)],
        now: Timestamp,
    ) -> Result<Vec<Settled>, IndexError> {
        let outcomes: Vec<_> = outcomes.iter().map(|(id, event)| (*id, None, event)).collect();
        writing!(self, "settle deliveries", Durability::Unsynced, |db| outbox::settle(
            &mut db, &outcomes, now
        ))
    }

    /// The same for those who cannot say that the database is still the one that they claimed from: one in which a delivery
    /// is that of another object is left out of the answer.
    pub async fn settle_objects(
        &self,
        outcomes: &[(DeliveryId, ObjectId, Event)],
        now: Timestamp,
    ) -> Result<Vec<Settled>, IndexError> {
        let outcomes: Vec<_> =
            outcomes.iter().map(|(id, object, event)| (*id, Some(*object), event)).collect();
        writing!(self, "settle deliveries", Durability::Unsynced, |db| outbox::settle(
            &mut db, &outcomes, now
        ))
    }

    /// Notes what partners are known to have, whatever the index says of it: it was lost, or is an older copy. Says for how
    /// many deliveries it did not know.
    pub async fn restore_delivered(
        &self,
        proofs: &[Proof],
        now: Timestamp,
    ) -> Result<u64, IndexError> {
        writing!(self, "restore deliveries", |db| outbox::restore(&mut db, proofs, now))
    }

    /// [`Index::record`] and [`Index::restore_delivered`] in one: nobody claims in between what was delivered before.
    pub async fn record_again(
        &self,
        arrivals: &[Arrival],
        proofs: &[Proof],
        now: Timestamp,
    ) -> Result<Vec<Recorded>, IndexError> {
        writing!(self, "record arrivals in the index", Durability::Unsynced, |db| async {
            let recorded = record::record(&mut db, arrivals).await?;
            outbox::restore(&mut db, proofs, now).await?;
            Ok(recorded)
        })
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

    /// How many deliveries of this priority, or of a more urgent one, wait for a partner and are not paused; at most `most`,
    /// which is what counting costs.
    pub async fn waiting_for(
        &self,
        partner: &str,
        least: Priority,
        most: u32,
    ) -> Result<u64, IndexError> {
        reading!(self, "count what waits for a partner", |db| waiting::count(
            &mut db, partner, least, most
        ))
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
        reason: &str,
        now: Timestamp,
    ) -> Result<u64, IndexError> {
        self.act(id, transfer::Action::Retry { reason }, actor, now).await
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
        reason: &str,
        now: Timestamp,
    ) -> Result<u64, IndexError> {
        self.act(id, transfer::Action::Resume { reason }, actor, now).await
    }

    /// Makes a transfer more urgent; one that is as urgent already stays as it is.
    pub async fn make_urgent(
        &self,
        id: TransferId,
        to: Priority,
        actor: &str,
        reason: &str,
        now: Timestamp,
    ) -> Result<u64, IndexError> {
        self.act(id, transfer::Action::Raise { to, reason }, actor, now).await
    }

    /// Gives up what the partner has not got, and notes that it should not have had the rest. With the SOP Instance UID of a
    /// note, that is wanted from then on. Says how many deliveries were given up.
    pub async fn recall(
        &self,
        id: TransferId,
        actor: &str,
        reason: &str,
        rejection: Rejection,
        note: Option<&SopInstanceUid>,
        now: Timestamp,
    ) -> Result<u64, IndexError> {
        let action = transfer::Action::Recall { reason, rejection, note };
        self.act(id, action, actor, now).await
    }

    /// Notes of recalls that are to be made, oldest first: each once nothing of its transfer is being sent any more.
    pub async fn notes_wanted(&self, limit: u32) -> Result<Vec<NoteWanted>, IndexError> {
        reading!(self, "look for recalls to be noted", |db| recall::wanted(&mut db, limit))
    }

    /// Notes that the note of a recall is safe, and how many images it rejects; none: there is no note.
    pub async fn note_made(
        &self,
        id: TransferId,
        images: u64,
        now: Timestamp,
    ) -> Result<(), IndexError> {
        writing!(self, "note that a recall is noted", |db| recall::made(&mut db, id, images, now))
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
        writing!(self, "note the end of an association", Durability::Unsynced, |db| {
            transfer::note_received_all(&mut db, transfers, now)
        })
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

    /// What left protected or is to, by protection.
    pub async fn protected(&self) -> Result<Vec<Protected>, IndexError> {
        reading!(self, "count what is protected", |db| protection::counts(&mut db))
    }

    /// What was set aside of it, the latest first.
    pub async fn protected_aside(&self, most: u32) -> Result<Vec<ProtectedAside>, IndexError> {
        reading!(self, "list what could not be protected", |db| protection::set_aside(
            &mut db, most
        ))
    }

    /// What was ordered for each partner, and where it is.
    pub async fn conservation(&self) -> Result<Vec<Conservation>, IndexError> {
        reading!(self, "count deliveries", |db| transfer::conservation(&mut db))
    }

    /// Studies of which images are here, after a place, in order: for whoever decides how long they are kept.
    pub async fn at_rest(&self, after: i64, limit: u32) -> Result<Vec<StudyAtRest>, IndexError> {
        reading!(self, "list studies that are here", |db| retention::at_rest(&mut db, after, limit))
    }

    /// The same of one; `None` if there is none, or nothing of it is here.
    pub async fn study_at_rest(
        &self,
        uid: &StudyInstanceUid,
    ) -> Result<Option<StudyAtRest>, IndexError> {
        reading!(self, "see whether a study is needed", |db| retention::one(&mut db, uid))
    }

    /// Decides that a study's images go, if it is still what `expected` says and nothing stands against it. Deleting them is
    /// what is then to be done, however often the process dies: see [`Index::unfinished_deletions`].
    pub async fn remove_images(
        &self,
        expected: &StudyAtRest,
        by: Remover<'_>,
        now: Timestamp,
    ) -> Result<Removal, IndexError> {
        writing!(self, "decide that images go", |db| retention::remove(&mut db, expected, by, now))
    }

    /// Puts a study under a legal hold, or takes it off. False if there is no such study.
    pub async fn hold(
        &self,
        uid: &StudyInstanceUid,
        held: bool,
        actor: &str,
        why: &str,
        now: Timestamp,
    ) -> Result<bool, IndexError> {
        writing!(self, "hold or release a study", |db| retention::hold(
            &mut db, uid, held, actor, why, now
        ))
    }

    /// Objects whose deletion was decided and is not known to be done.
    pub async fn unfinished_deletions(&self, limit: u32) -> Result<Vec<ObjectId>, IndexError> {
        reading!(self, "list unfinished deletions", |db| retention::unfinished(&mut db, limit))
    }

    /// Notes that these are gone.
    pub async fn note_deleted(
        &self,
        objects: &[ObjectId],
        now: Timestamp,
    ) -> Result<(), IndexError> {
        writing!(self, "note what was deleted", |db| retention::done(&mut db, objects, now))
    }

    /// Who decided that an object goes, and when; `None` if nobody did.
    pub async fn removal_of(&self, object: ObjectId) -> Result<Option<Decision>, IndexError> {
        reading!(self, "look for a removal", |db| retention::removal_of(&mut db, object))
    }

    /// The partners that are to be asked now whether they hold what they accepted.
    pub async fn partners_to_prove(&self, now: Timestamp) -> Result<Vec<String>, IndexError> {
        reading!(self, "list partners to ask for proof", |db| proof::partners(&mut db, now))
    }

    /// The next transfer that a partner is to be asked about, with what of it is not proven. `again` says, by priority and
    /// by how often it was asked, when to ask again if nothing comes of it: a crash in the middle costs that wait.
    pub async fn take_proof(
        &self,
        partner: &str,
        now: Timestamp,
        again: impl Fn(Priority, u32) -> Timestamp,
    ) -> Result<Option<ProofWanted>, IndexError> {
        writing!(self, "look for what is to be proven", Durability::Unsynced, |db| proof::take(
            &mut db, partner, now, &again
        ))
    }

    /// Notes that a partner is about to be asked to commit to these, under a Transaction UID. On the disk when it returns.
    pub async fn open_commitment(
        &self,
        transaction: &Uid,
        partner: &str,
        asked: &[AskedFor],
        now: Timestamp,
    ) -> Result<(), IndexError> {
        writing!(self, "note a request for commitment", |db| proof::open(
            &mut db,
            transaction,
            partner,
            asked,
            now
        ))
    }

    /// Takes a partner's report: believed for what that partner was asked under that Transaction UID, and for nothing else.
    /// `None` where it was not asked.
    pub async fn commitment_reported(
        &self,
        partner: &str,
        report: &Report,
        now: Timestamp,
    ) -> Result<Option<Reported>, IndexError> {
        writing!(self, "take a report of commitment", |db| proof::reported(
            &mut db, partner, report, now
        ))
    }

    /// Notes that a partner is proven to hold these. Says how many that is news for.
    pub async fn confirm(
        &self,
        deliveries: &[DeliveryId],
        by: ProvenBy,
        now: Timestamp,
    ) -> Result<u64, IndexError> {
        writing!(self, "confirm deliveries", |db| proof::confirm(&mut db, deliveries, by, now))
    }

    /// Has these, which their partner accepted and does not have, sent again, or sets them aside when that was of no use
    /// before. `why` names what the partner said.
    pub async fn lose(
        &self,
        deliveries: &[DeliveryId],
        why: &str,
        now: Timestamp,
    ) -> Result<Lost, IndexError> {
        writing!(self, "send again what was lost", |db| outbox::lose(&mut db, deliveries, why, now))
    }

    /// Notes why a transfer is not proven; `for_good` that the partner is not asked again until more is sent.
    pub async fn not_proven(
        &self,
        id: TransferId,
        why: &str,
        for_good: bool,
    ) -> Result<(), IndexError> {
        writing!(self, "note that a transfer is not proven", Durability::Unsynced, |db| {
            proof::not_proven(&mut db, id, why, for_good)
        })
    }

    /// Takes a sender's request to commit; on the disk when it returns. `None` if the sender has used that Transaction UID.
    pub async fn take_commitment(
        &self,
        request: &CommitmentRequest,
        due: Timestamp,
        now: Timestamp,
    ) -> Result<Option<Owed>, IndexError> {
        writing!(self, "take a request to commit", |db| commitment::take(
            &mut db, request, due, now
        ))
    }

    /// What is here of these.
    pub async fn held(
        &self,
        instances: &[SopInstanceUid],
    ) -> Result<HashMap<SopInstanceUid, Vec<Held>>, IndexError> {
        reading!(self, "look up instances to commit to", |db| commitment::held(&mut db, instances))
    }

    /// Writes what is reported of a request, once: a second verdict changes nothing.
    pub async fn judge_commitment(&self, id: i64, verdict: &Verdict) -> Result<(), IndexError> {
        writing!(self, "write what is committed to", |db| commitment::judge(&mut db, id, verdict))
    }

    /// The reports that are due, the longest due first.
    pub async fn reports_due(&self, now: Timestamp, limit: u32) -> Result<Vec<Owed>, IndexError> {
        reading!(self, "list reports of commitment", |db| commitment::due(&mut db, now, limit))
    }

    /// Notes that a report did not get through, and when it is tried again.
    pub async fn report_later(&self, id: i64, due: Timestamp) -> Result<(), IndexError> {
        writing!(self, "put off a report of commitment", Durability::Unsynced, |db| {
            commitment::later(&mut db, id, due)
        })
    }

    /// Notes that a report was taken, or given up.
    pub async fn report_ended(&self, id: i64) -> Result<(), IndexError> {
        writing!(self, "end a report of commitment", |db| commitment::end(&mut db, id))
    }

    /// Has these studies counted now: the associations that brought them have ended.
    pub async fn count_now(
        &self,
        studies: &[StudyInstanceUid],
        now: Timestamp,
    ) -> Result<(), IndexError> {
        writing!(self, "order a count", Durability::Unsynced, |db| counting::ended(
            &mut db, studies, now
        ))
    }

    /// The studies that are to be counted against their source now, most urgent first.
    pub async fn counts_due(
        &self,
        now: Timestamp,
        quiet: SignedDuration,
        limit: u32,
    ) -> Result<Vec<CountDue>, IndexError> {
        reading!(self, "list studies to count", |db| counting::due(&mut db, now, quiet, limit))
    }

    /// The sources that a study came from, for a person who asks; `None` if there is no such study.
    pub async fn count_of(&self, study: &StudyInstanceUid) -> Result<Option<CountDue>, IndexError> {
        reading!(self, "see where a study came from", |db| counting::one(&mut db, study))
    }

    /// Takes a study that is due, or any that a person asks for, until the lease ends. `None` where another node was first.
    pub async fn take_count(
        &self,
        study: &StudyInstanceUid,
        now: Timestamp,
        quiet: SignedDuration,
        lease: Timestamp,
        asked_for: bool,
    ) -> Result<Option<CountTaken>, IndexError> {
        writing!(self, "take a study to count", Durability::Unsynced, |db| counting::take(
            &mut db, study, now, quiet, lease, asked_for
        ))
    }

    /// The images of a study that are here.
    pub async fn held_images(&self, study: &StudyInstanceUid) -> Result<HeldImages, IndexError> {
        reading!(self, "list the images of a study", |db| counting::held(&mut db, study))
    }

    /// Writes what came of a count, and what is done next.
    pub async fn settle_count(&self, counted: Counted<'_>) -> Result<(), IndexError> {
        writing!(self, "write a count", Durability::Unsynced, |db| counting::settle(
            &mut db, &counted
        ))
    }

    /// The studies of which something that is missing is to be fetched now, most urgent first.
    pub async fn fetches_due(
        &self,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<CountDue>, IndexError> {
        reading!(self, "list studies to fetch", |db| counting::fetches_due(&mut db, now, limit))
    }

    /// Takes one of these until the lease ends. False where another node was first.
    pub async fn take_fetch(
        &self,
        study: &StudyInstanceUid,
        now: Timestamp,
        lease: Timestamp,
    ) -> Result<bool, IndexError> {
        writing!(self, "take a study to fetch", |db| counting::take_fetch(
            &mut db, study, now, lease
        ))
    }

    /// Writes what came of fetching, `why` being the reason for which something did not come, and has the study counted again.
    pub async fn settle_fetch(
        &self,
        study: &StudyInstanceUid,
        why: Option<&str>,
        detail: &str,
        now: Timestamp,
    ) -> Result<(), IndexError> {
        writing!(self, "write what was fetched", Durability::Unsynced, |db| {
            counting::settle_fetch(&mut db, study, why, detail, now)
        })
    }

    /// The ways in which a study came from sources of this organisation.
    pub async fn ways(&self, study: &StudyInstanceUid) -> Result<Vec<Way>, IndexError> {
        reading!(self, "see how a study came", |db| counting::ways(&mut db, study))
    }

    /// The studies of which something was fetched since then.
    pub async fn fetched_since(
        &self,
        since: Timestamp,
    ) -> Result<Vec<StudyInstanceUid>, IndexError> {
        reading!(self, "list what was fetched", |db| counting::fetched_since(&mut db, since))
    }

    /// How much is short of what its source has.
    pub async fn incomplete(&self) -> Result<IncompleteTotals, IndexError> {
        reading!(self, "count what is incomplete", |db| completeness::totals(&mut db))
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

/// How urgent, as rows hold it: the smaller, the sooner.
fn rank(priority: Priority) -> i64 {
    match priority {
        Priority::Emergency => 0,
        Priority::Urgent => 1,
        Priority::Routine => 2,
    }
}

fn priority(row: &Row, column: &'static str) -> sqlx::Result<Priority> {
    let rank: i64 = row.try_get(column)?;
    Priority::ALL
        .iter()
        .copied()
        .find(|priority| self::rank(*priority) == rank)
        .ok_or_else(|| unreadable(column))
}

/// A column that holds a checked type's text.
fn parsed<T: FromStr>(row: &Row, column: &'static str) -> sqlx::Result<T> {
    row.try_get::<&str>(column)?.parse().map_err(|_| unreadable(column))
}

fn optional<T: FromStr>(row: &Row, column: &'static str) -> sqlx::Result<Option<T>> {
    let text: Option<&str> = row.try_get(column)?;
    text.map(|text| text.parse().map_err(|_| unreadable(column))).transpose()
}

fn unsigned<T: TryFrom<i64>>(row: &Row, column: &'static str) -> sqlx::Result<T> {
    row.try_get::<i64>(column)?.try_into().map_err(|_| unreadable(column))
}

fn flag(row: &Row, column: &'static str) -> sqlx::Result<bool> {
    Ok(row.try_get::<i64>(column)? != 0)
}

fn digest(row: &Row, column: &'static str) -> sqlx::Result<Digest> {
    row.try_get::<&[u8]>(column)?.try_into().map(Digest).map_err(|_| unreadable(column))
}

fn moment(row: &Row, column: &'static str) -> sqlx::Result<Timestamp> {
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

    use super::samples::{On, accepted, at, claim, ct, index, on_both};
    use super::*;

    on_both![
        what_was_recorded_outlives_the_process,
        an_index_of_a_newer_version_is_left_alone,
        an_error_does_not_quote_what_a_row_holds,
        an_older_copy_is_noticed_and_nothing_is_claimed_until_it_is_whole,
    ];

    /// The same index again, as after a restart.
    async fn reopened(index: &Index, dir: &tempfile::TempDir) -> Result<Index, IndexError> {
        index.close().await;
        match &index.database {
            Database::Sqlite { .. } => Index::open(&dir.path().join("index.sqlite")).await,
            Database::Postgres(server) => {
                let again = Index::postgres(server.settings.clone());
                again.prepare().await.map(|()| again)
            }
        }
    }

    /// Runs a statement behind the index's back.
    async fn run(index: &Index, statement: &'static str) {
        match &index.database {
            Database::Sqlite { writer, .. } => {
                sqlx::raw_sql(statement).execute(writer).await.map(drop)
            }
            Database::Postgres(server) => {
                sqlx::raw_sql(statement).execute(&server.writers).await.map(drop)
            }
        }
        .unwrap();
    }

    async fn what_was_recorded_outlives_the_process(on: On) {
        let (first, dir) = index(on).await;
        let arrival = ct(1, 1).to("york", Priority::Emergency);
        first.record(&[arrival.clone(), ct(1, 2).to("york", Priority::Emergency)]).await.unwrap();
        let held = claim(&first, "york", 1, 0).await;
        first.settle(&[(held[0], accepted(1))], at(1)).await.unwrap();

        let second = reopened(&first, &dir).await.unwrap();

        let counts = second.transfers(&TransferFilter::default()).await.unwrap()[0].counts;
        assert_eq!((counts.total, counts.delivered, counts.queued), (2, 1, 1));
        assert_eq!(second.knows(&[arrival.facts.object, ObjectId::new()]).await.unwrap().len(), 1);
        assert_eq!(second.totals().await.unwrap().bytes, 2 * 524_288);
    }

    async fn an_index_of_a_newer_version_is_left_alone(on: On) {
        let (newer, dir) = index(on).await;
        newer.prepare().await.unwrap();
        run(
            &newer,
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
             VALUES (99, 'later', true, '', 0)",
        )
        .await;

        let refused = reopened(&newer, &dir).await.unwrap_err();

        assert!(matches!(refused, IndexError::Newer { found: 99, .. }), "{refused}");
    }

    async fn an_older_copy_is_noticed_and_nothing_is_claimed_until_it_is_whole(on: On) {
        let (index, dir) = index(on).await;
        let remembering = |index: Index| index.remembering("node", dir.path().join("mark"));
        let index = remembering(index);
        index.record(&[ct(1, 1).to("york", Priority::Routine)]).await.unwrap();
        for _ in 0..3 {
            index.mark_stored(&[]).await.unwrap();
        }
        assert!(!index.has_gone_back().await.unwrap());
        run(&index, "UPDATE node SET mark = 1").await;

        // While it runs it finds out before spool files go, ...
        let refused = index.mark_stored(&[]).await.unwrap_err();
        assert!(matches!(refused, IndexError::WentBack), "{refused}");
        assert!(claim(&index, "york", 1, 0).await.is_empty());
        index.gone_back().await;
        // ... and again after a restart, however often objects are stored before it is whole.
        index.mark_stored(&[]).await.unwrap();
        let index = remembering(reopened(&index, &dir).await.unwrap());
        assert!(claim(&index, "york", 1, 0).await.is_empty());
        assert!(index.has_gone_back().await.unwrap());

        index.is_whole_again().await.unwrap();
        assert!(!index.has_gone_back().await.unwrap());
        assert_eq!(claim(&index, "york", 1, 0).await.len(), 1);
        index.mark_stored(&[]).await.unwrap();
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
        let (index, dir) = index(On::Sqlite).await;
        let Database::Sqlite { writer, .. } = &index.database else { unreachable!() };
        let level = async || -> i64 {
            let pragma = sqlx::query_scalar("PRAGMA synchronous").persistent(false);
            pragma.fetch_one(writer).await.unwrap()
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
        let (index, dir) = index(On::Sqlite).await;
        index.record(&[ct(1, 1)]).await.unwrap();

        for name in ["index.sqlite", "index.sqlite-wal"] {
            let mode = std::fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }

    async fn an_error_does_not_quote_what_a_row_holds(on: On) {
        let (index, _dir) = index(on).await;
        index.record(&[ct(1, 1)]).await.unwrap();
        run(&index, "UPDATE study SET uid = 'SMITH^ANNA'").await;

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
        for on in [On::Sqlite, On::Postgres] {
            println!("{on:?}");
            measure(on).await;
        }
    }

    async fn measure(on: On) {
        let (index, _dir) = index(on).await;
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
