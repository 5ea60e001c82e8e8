//! Answers that are made while they go out, by a thread that may block.
//!
//! Nobody takes an answer for whole that is not: what fails on the way cuts the connection, short of the announced length or of
//! the last chunk.

use std::io;
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures_util::stream;
use gantry_store::sealed::SealedError;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// How many pieces may wait for the client.
const IN_FLIGHT: usize = 4;

/// Why an answer is not made to its end.
#[derive(Debug)]
pub(super) enum Cut {
    /// Nobody listens any more.
    Gone,
    /// For people who read the log; no value of a data set.
    Failed(String),
}

impl From<SealedError> for Cut {
    fn from(error: SealedError) -> Self {
        Self::Failed(crate::telemetry::chain(&error).to_string())
    }
}

/// How long a client may take nothing before it counts as gone.
const STALLED: Duration = Duration::from_mins(2);

/// The way to the client.
#[derive(Debug)]
pub(super) struct Out {
    pieces: mpsc::Sender<io::Result<Bytes>>,
    runtime: Handle,
}

impl Out {
    /// Sends a piece, when there is room for it. Blocks.
    pub(super) fn send(&self, piece: Bytes) -> Result<(), Cut> {
        if piece.is_empty() {
            return Ok(());
        }
        let sent = self.runtime.block_on(timeout(STALLED, self.pieces.send(Ok(piece))));
        sent.map_err(|_| Cut::Gone)?.map_err(|_| Cut::Gone)
    }
}

/// A body that `make` makes on a thread of its own. `held` is given up when it is through.
pub(super) fn body<T: Send + 'static>(
    held: T,
    make: impl FnOnce(&Out) -> Result<(), Cut> + Send + 'static,
) -> Body {
    let ((pieces, stream), runtime) = (mpsc::channel(IN_FLIGHT), Handle::current());
    tokio::task::spawn_blocking(move || {
        let out = Out { pieces, runtime };
        if let Err(Cut::Failed(why)) = make(&out) {
            tracing::error!(error = why, "answer is cut short");
            let _ = out.pieces.try_send(Err(io::Error::other("the answer cannot be made")));
        }
        drop(held);
    });
    Body::from_stream(stream::unfold(stream, async |mut stream| {
        Some((stream.recv().await?, stream))
    }))
}
