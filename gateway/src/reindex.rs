//! Rebuilding the rows from what is kept: spool files and objects describe themselves.
//!
//! What is in the index already stays as it is, so this may be run on a lost, an older or a whole index, and again. What
//! it finds is routed as if it had just arrived; then what partners are known to have accepted (`gantry_store::delivered`)
//! is taken off, so that only what was still owed is sent. Meanwhile nothing may be claimed: either no node runs, or the
//! index knows that it has gone back. `order_deliveries: false` orders nothing at all.
//!
//! A running node does it by itself when it finds that its database is an older copy (`keep_whole`). What people did (transfers cancelled or paused, links of pages) is not in the files and does not come back.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use gantry_store::delivered::{Delivered, Proof};
use gantry_store::facts::{Facts, ObjectId};
use gantry_store::index::{Arrival, IndexError, RecordedAs};
use gantry_store::object::{self, ObjectError};
use gantry_store::spool::SpoolError;
use jiff::Timestamp;
use serde::Serialize;
use thiserror::Error;
use tokio::sync::mpsc;

use crate::config::Route;
use crate::intake::drain::Wake;
use crate::route;
use crate::run::Store;
use crate::telemetry::chain;

/// How many are read and recorded at a time.
const PAGE: usize = 256;
/// How long to wait after a failure.
const PAUSE: Duration = Duration::from_secs(2);

/// Why the rows could not be rebuilt.
#[derive(Debug, Error)]
pub enum ReindexError {
    /// The object store cannot be listed.
    #[error("cannot list the object store")]
    Objects(#[from] ObjectError),
    /// The spool cannot be listed.
    #[error("cannot list the spool")]
    Spool(#[from] SpoolError),
    /// What was delivered cannot be read.
    #[error("cannot read what was delivered")]
    Delivered(#[from] io::Error),
    /// The index takes no rows.
    #[error("cannot write the index")]
    Index(#[from] IndexError),
    /// A thread was lost.
    #[error("reading was interrupted")]
    Interrupted,
}

/// What was found.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Reindexed {
    /// Objects and spool files looked at.
    pub found: u64,
    /// Those that the index did not know.
    pub recorded: u64,
    /// Deliveries ordered for them.
    pub ordered: u64,
    /// Deliveries that had been made, as far as the index did not know.
    pub delivered: u64,
    /// Those that do not open, by name and reason.
    pub unreadable: Vec<(String, String)>,
}

/// Brings the index up to date with spool and object store. `progress` is told after every page.
pub async fn reindex(
    store: &Store,
    routes: &[Route],
    order_deliveries: bool,
    mut progress: impl FnMut(&Reindexed),
) -> Result<Reindexed, ReindexError> {
    // So that nothing is claimed meanwhile, and the mark moves at the end.
    store.index.has_gone_back().await?;
    let mut result = Reindexed::default();
    let mut after = None;
    loop {
        let objects = store.objects.clone();
        let page = blocking(move || objects.list(after, PAGE)).await??;
        let Some(last) = page.last() else { break };
        after = Some(*last);
        record(store, routes, order_deliveries, &page, true, &mut result).await?;
        progress(&result);
    }
    let spool = store.spool.clone();
    let entries = blocking(move || spool.entries()).await??;
    for page in entries.chunks(PAGE) {
        record(store, routes, order_deliveries, page, false, &mut result).await?;
        progress(&result);
    }
    restore_delivered(store, &mut result).await?;
    store.index.is_whole_again().await?;
    progress(&result);
    Ok(result)
}

/// Takes off what partners have.
async fn restore_delivered(store: &Store, result: &mut Reindexed) -> Result<(), ReindexError> {
    // Read by one, written by the other: there may be millions.
    let (pages, mut read) = mpsc::channel::<Vec<Proof>>(4);
    let delivered = store.delivered.clone();
    let reading = tokio::task::spawn_blocking(move || {
        let mut page = Vec::with_capacity(PAGE);
        delivered.since(0, |proof| {
            page.push(proof);
            if page.len() == PAGE {
                // Whoever does not want it any more has failed, and says so.
                let _ = pages.blocking_send(std::mem::replace(&mut page, Vec::with_capacity(PAGE)));
            }
        })?;
        let _ = pages.blocking_send(page);
        io::Result::Ok(())
    });
    while let Some(page) = read.recv().await {
        result.delivered += store.index.restore_delivered(&page, Timestamp::now()).await?;
    }
    reading.await.map_err(|_| ReindexError::Interrupted)??;
    Ok(())
}

/// What partners are known to have of these. If that cannot be read they may be sent again, which is better than never.
pub async fn proofs_of(delivered: &Arc<Delivered>, batch: &[Facts]) -> Vec<Proof> {
    if batch.is_empty() {
        return Vec::new();
    }
    let objects: HashSet<_> = batch.iter().map(|facts| facts.object).collect();
    let delivered = delivered.clone();
    match tokio::task::spawn_blocking(move || delivered.of(&objects)).await {
        Ok(Ok(proofs)) => proofs,
        Ok(Err(error)) => {
            tracing::error!(%error, "what was delivered before cannot be read; it may be sent again");
            Vec::new()
        }
        Err(_) => Vec::new(),
    }
}

/// Whenever the database turns out to be an older copy: brings back what it lacks, from spool and objects and from what is
/// known to have been delivered. Nothing is claimed until that is done; receiving goes on.
pub async fn keep_whole(store: Store, routes: Vec<Route>, wake: Arc<dyn Wake>) {
    loop {
        store.index.gone_back().await;
        tracing::warn!(
            "the index lacks what this node has written; it is made whole from spool and objects"
        );
        match reindex(&store, &routes, true, |_| {}).await {
            Ok(done) => {
                let Reindexed { found, recorded, ordered, delivered, unreadable } = done;
                let unreadable = unreadable.len();
                tracing::warn!(
                    found,
                    recorded,
                    ordered,
                    delivered,
                    unreadable,
                    "the index is whole again"
                );
                wake.changed();
            }
            Err(error) => {
                tracing::error!(error = %chain(&error), "the index cannot be made whole yet; nothing is sent until then");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ReindexError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| ReindexError::Interrupted)
}

/// Deletes what had been decided to go, and was still there.
pub async fn finish_removing(store: &Store, removed: Vec<ObjectId>) -> Result<(), ReindexError> {
    if removed.is_empty() {
        return Ok(());
    }
    let (spool, objects, gone) = (store.spool.clone(), store.objects.clone(), removed.clone());
    blocking(move || {
        for object in removed {
            spool.remove(object)?;
            objects.delete(object)?;
        }
        Ok::<_, ReindexError>(())
    })
    .await??;
    store.index.note_deleted(&gone, Timestamp::now()).await?;
    Ok(())
}

async fn record(
    store: &Store,
    routes: &[Route],
    order_deliveries: bool,
    page: &[ObjectId],
    stored: bool,
    result: &mut Reindexed,
) -> Result<(), ReindexError> {
    result.found += page.len() as u64;
    let known = store.index.knows(page).await?;
    let unknown: Vec<_> = page.iter().copied().filter(|object| !known.contains(object)).collect();
    let (spool, objects) = (store.spool.clone(), store.objects.clone());
    let read = blocking(move || {
        unknown
            .into_iter()
            .map(|object| {
                let facts: Result<Facts, String> = if stored {
                    object::read(&*objects, object, spool.keyring())
                        .map(|reader| reader.facts().clone())
                        .map_err(|error| chain(&error).to_string())
                } else {
                    spool
                        .read(object)
                        .map(|reader| reader.facts().clone())
                        .map_err(|error| chain(&error).to_string())
                };
                (object, facts)
            })
            .collect::<Vec<_>>()
    })
    .await?;

    let mut arrivals = Vec::new();
    for (object, facts) in read {
        match facts {
            // An original in the spool of which only a protected copy may be kept: the drain makes that.
            Ok(facts) if !route::at_intake(routes, &facts).is_empty() => {}
            Ok(facts) => {
                let routed =
                    if order_deliveries { route::destinations(routes, &facts) } else { Vec::new() };
                arrivals.push(Arrival { facts, routed });
            }
            Err(reason) => result.unreadable.push((object.to_string(), reason)),
        }
    }
    let recorded = store.index.record(&arrivals).await?;
    let removed: Vec<_> = recorded
        .iter()
        .filter(|recorded| recorded.outcome == RecordedAs::Removed)
        .map(|recorded| recorded.object)
        .collect();
    result.recorded += (arrivals.len() - removed.len()) as u64;
    finish_removing(store, removed).await?;
    result.ordered += recorded.iter().map(|recorded| recorded.ordered.len() as u64).sum::<u64>();
    if stored {
        store.index.mark_stored(page).await?;
    }
    Ok(())
}
