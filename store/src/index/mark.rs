//! Whether the database is the one that this node has written to, or an older copy of it.
//!
//! A number goes up with every commit that the node waits for; the node's row holds it, and so does a file in its data
//! directory, written after the commit. So the file is never ahead, unless the database was brought back from a copy (or is
//! another one): then rows and outcomes are missing in it that this node knows to have been there. Until they are there
//! again nothing is claimed, as what looks as if it had to be sent may have been sent.

use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use tokio::sync::Notify;

use super::db::Db;

/// How far this node has come.
#[derive(Debug)]
pub(super) struct Mark {
    node: String,
    file: PathBuf,
    last: AtomicI64,
    /// Whether the database is behind.
    behind: AtomicBool,
    /// Whether it went away since it was last looked at: it may have come back as another one.
    suspect: AtomicBool,
    noticed: Notify,
}

impl Mark {
    /// Reads the file; one that is not there, or does not read, remembers nothing.
    pub(super) fn open(node: &str, file: PathBuf) -> Self {
        let last = fs::read_to_string(&file).ok().and_then(|text| text.trim().parse().ok());
        Self {
            node: node.to_owned(),
            file,
            last: AtomicI64::new(last.unwrap_or(0)),
            behind: AtomicBool::new(false),
            suspect: AtomicBool::new(true),
            noticed: Notify::new(),
        }
    }

    pub(super) fn is_behind(&self) -> bool {
        self.behind.load(Ordering::Acquire)
    }

    pub(super) fn suspect(&self) {
        self.suspect.store(true, Ordering::Release);
    }

    /// Waits until the database is found to be behind.
    pub(super) async fn gone_back(&self) {
        loop {
            let noticed = self.noticed.notified();
            if self.is_behind() {
                return;
            }
            noticed.await;
        }
    }

    fn found_behind(&self) {
        self.behind.store(true, Ordering::Release);
        // The one who waits, or who is about to.
        self.noticed.notify_one();
    }

    /// Looks at the database first of all when it has been away.
    pub(super) async fn look(&self, db: &mut Db) -> sqlx::Result<()> {
        if !self.suspect.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let query = db.query("SELECT mark FROM node WHERE name = $1").bind(&self.node);
        match query.optional_scalar::<i64>(db).await {
            Ok(mark) => {
                if mark.unwrap_or(0) < self.last.load(Ordering::Acquire) {
                    self.found_behind();
                }
                Ok(())
            }
            Err(error) => {
                self.suspect();
                Err(error)
            }
        }
    }

    /// One further, in a commit that is waited for. `None` if the database is behind.
    pub(super) async fn advance(&self, db: &mut Db) -> sqlx::Result<Option<i64>> {
        let query = db.query(
            "INSERT INTO node (name, mark) VALUES ($1, 1) \
             ON CONFLICT (name) DO UPDATE SET mark = node.mark + 1 RETURNING mark",
        );
        let mark: i64 = query.bind(&self.node).scalar(db).await?;
        if mark > self.last.load(Ordering::Acquire) {
            return Ok(Some(mark));
        }
        self.found_behind();
        Ok(None)
    }

    /// What the database lacked is there again: on from here.
    pub(super) async fn catch_up(&self, db: &mut Db) -> sqlx::Result<i64> {
        let query = db.query(
            "INSERT INTO node (name, mark) VALUES ($1, $2) \
             ON CONFLICT (name) DO UPDATE SET mark = $2 RETURNING mark",
        );
        let next = self.last.load(Ordering::Acquire) + 1;
        query.bind(&self.node).bind(next).scalar(db).await
    }

    /// The commit that brought it here has happened.
    pub(super) fn came_to(&self, mark: i64) {
        self.last.fetch_max(mark, Ordering::AcqRel);
        // Not synced: after a power cut it may be behind the database, which is no alarm.
        if let Err(error) = self.write(mark) {
            tracing::warn!(%error, "cannot note how far the index has come; an older copy of it may go unnoticed");
        }
    }

    pub(super) fn trust(&self) {
        self.behind.store(false, Ordering::Release);
    }

    fn write(&self, mark: i64) -> io::Result<()> {
        let new = self.file.with_extension("new");
        let mut file = fs::File::create(&new)?;
        writeln!(file, "{mark}")?;
        fs::rename(new, &self.file)
    }
}
