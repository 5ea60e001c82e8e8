//! Rebuilding the rows from what is kept: spool files and objects describe themselves.
//!
//! What is in the index already stays as it is, so this may be run on a lost, an older or a whole index, and again. What
//! it finds is routed as if it had just arrived: the index is what remembers that something was delivered, so without it
//! everything is ordered once more, and partners recognise what they hold. `order_deliveries: false` leaves that out.
//!
//! What people did (transfers cancelled or paused, links of pages) is not in the files and does not come back.

use gantry_store::facts::{Facts, ObjectId};
use gantry_store::index::{Arrival, IndexError};
use gantry_store::object::{self, ObjectError};
use gantry_store::spool::SpoolError;
use serde::Serialize;
use thiserror::Error;

use crate::config::Route;
use crate::route;
use crate::run::Store;
use crate::telemetry::chain;

/// How many are read and recorded at a time.
const PAGE: usize = 256;

/// Why the rows could not be rebuilt.
#[derive(Debug, Error)]
pub enum ReindexError {
    /// The object store cannot be listed.
    #[error("cannot list the object store")]
    Objects(#[from] ObjectError),
    /// The spool cannot be listed.
    #[error("cannot list the spool")]
    Spool(#[from] SpoolError),
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
    Ok(result)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ReindexError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| ReindexError::Interrupted)
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
            Ok(facts) => {
                let routed =
                    if order_deliveries { route::destinations(routes, &facts) } else { Vec::new() };
                arrivals.push(Arrival { facts, routed });
            }
            Err(reason) => result.unreadable.push((object.to_string(), reason)),
        }
    }
    let recorded = store.index.record(&arrivals).await?;
    result.recorded += arrivals.len() as u64;
    result.ordered += recorded.iter().map(|recorded| recorded.ordered.len() as u64).sum::<u64>();
    if stored {
        store.index.mark_stored(page).await?;
    }
    Ok(())
}
