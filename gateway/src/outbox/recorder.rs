//! Writes what became of deliveries: many in one transaction, and none forgotten while the node runs.
//!
//! What a partner has accepted is written to this node's own disk first, and only then to the index: a database that is
//! lost, or brought back from an older copy, must not make it be sent again.

use std::sync::Arc;
use std::time::Duration;

use gantry_store::delivered::{Delivered, Proof};
use gantry_store::facts::ObjectId;
use gantry_store::index::{DeliveryId, Event, Index};
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::intake::drain::Wake;
use crate::telemetry::chain;

/// How many outcomes may wait. Workers wait when it is full: what they deliver could not be recorded.
const QUEUE: usize = 1024;
/// So many are written at once, or what has come in so long: each batch costs a sync and a commit, which intake would rather
/// have, and what is in it at a crash is sent again.
const BATCH: usize = 32;
const GATHER: Duration = Duration::from_millis(50);
/// The most that are written at once, where they wait already.
const MOST: usize = 256;
const PAUSE: Duration = Duration::from_secs(1);

/// What became of one delivery.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Which.
    pub delivery: DeliveryId,
    /// What was sent.
    pub object: ObjectId,
    /// To whom, by configured name.
    pub partner: String,
    /// What came of it.
    pub event: Event,
}

/// Makes the queue to the recorder.
pub fn queue() -> (mpsc::Sender<Outcome>, mpsc::Receiver<Outcome>) {
    mpsc::channel(QUEUE)
}

/// Records until the last sender of outcomes is gone.
pub async fn run(
    index: Index,
    delivered: Arc<Delivered>,
    mut outcomes: mpsc::Receiver<Outcome>,
    wake: Arc<dyn Wake>,
) {
    let mut batch = Vec::with_capacity(MOST);
    while let Some(first) = outcomes.recv().await {
        batch.push(first);
        let deadline = Instant::now() + GATHER;
        while batch.len() < BATCH {
            match timeout(deadline.saturating_duration_since(Instant::now()), outcomes.recv()).await
            {
                Ok(Some(outcome)) => batch.push(outcome),
                Ok(None) | Err(_) => break,
            }
        }
        while batch.len() < MOST
            && let Ok(outcome) = outcomes.try_recv()
        {
            batch.push(outcome);
        }
        note_accepted(&delivered, &batch).await;
        let settling: Vec<_> = batch
            .drain(..)
            .map(|outcome| (outcome.delivery, outcome.object, outcome.event))
            .collect();
        loop {
            match index.settle_objects(&settling, Timestamp::now()).await {
                Ok(settled) => {
                    for settled in settled {
                        if let Err(illegal) = settled.result {
                            tracing::warn!(delivery = %settled.delivery, error = %illegal, "outcome came too late");
                        }
                    }
                    break;
                }
                // Until it is written a restart would send these again: so keep trying.
                Err(error) => {
                    tracing::error!(error = %chain(&error), waiting = settling.len(), "outcomes cannot be recorded");
                    if outcomes.is_closed() && outcomes.is_empty() {
                        return;
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        wake.changed();
    }
}

/// Writes what was accepted to this node's own disk. If that fails the index still says it.
async fn note_accepted(delivered: &Arc<Delivered>, batch: &[Outcome]) {
    let accepted = |outcome: &Outcome| match &outcome.event {
        Event::Accept(receipt) => Some(Proof {
            object: outcome.object,
            partner: outcome.partner.clone(),
            receipt: receipt.clone(),
        }),
        _ => None,
    };
    let proofs: Vec<_> = batch.iter().filter_map(accepted).collect();
    if proofs.is_empty() {
        return;
    }
    let delivered = delivered.clone();
    let noted = tokio::task::spawn_blocking(move || delivered.append(&proofs)).await;
    if let Ok(Err(error)) = noted {
        tracing::error!(%error, "deliveries cannot be noted beside the index; without it they would be made again");
    }
}
