//! Writes what became of deliveries: many in one transaction, and none forgotten while the node runs.

use std::sync::Arc;
use std::time::Duration;

use gantry_store::index::{DeliveryId, Event, Index};
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::intake::drain::Wake;
use crate::telemetry::chain;

/// How many outcomes may wait. Workers wait when it is full: what they deliver could not be recorded.
const QUEUE: usize = 1024;
const BATCH: usize = 256;
const GATHER: Duration = Duration::from_millis(10);
const PAUSE: Duration = Duration::from_secs(1);

/// One outcome.
pub type Outcome = (DeliveryId, Event);

/// Makes the queue to the recorder.
pub fn queue() -> (mpsc::Sender<Outcome>, mpsc::Receiver<Outcome>) {
    mpsc::channel(QUEUE)
}

/// Records until the last sender of outcomes is gone.
pub async fn run(index: Index, mut outcomes: mpsc::Receiver<Outcome>, wake: Arc<dyn Wake>) {
    let mut batch = Vec::with_capacity(BATCH);
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
        loop {
            match index.settle(&batch, Timestamp::now()).await {
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
                    tracing::error!(error = %chain(&error), waiting = batch.len(), "outcomes cannot be recorded");
                    if outcomes.is_closed() && outcomes.is_empty() {
                        return;
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        batch.clear();
        wake.changed();
    }
}
