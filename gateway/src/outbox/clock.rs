//! What waits for a time must not wait for ever when the clock is set back.
//!
//! Times to try again lie in rows, and are the wall clock's, as they must outlive the node. When that clock is set back by
//! a day, everything that waits would wait a day longer. So whoever looks finds it out: while the node runs, by the clock
//! that nobody sets; at its start, by waits that are longer than any.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gantry_store::index::Index;
use jiff::{SignedDuration, Timestamp};
use tokio::time::sleep;

use crate::config::Config;
use crate::intake::drain::Wake;
use crate::telemetry::chain;

/// How often it looks.
const LOOK: Duration = Duration::from_secs(2);
/// Clocks that are kept right are slewed, or set by less than this.
const STEP: SignedDuration = SignedDuration::from_secs(2);

/// Looks after the clock until it is dropped.
pub async fn watch(config: Arc<Config>, index: Index, wake: Arc<dyn Wake>) {
    let ceiling = config.delivery.retry_ceiling.max(config.delivery.emergency_retry_ceiling);
    // A wait that begins now may end as much later as the two clocks differ.
    let longest = SignedDuration::try_from(ceiling).unwrap_or(SignedDuration::MAX) + STEP;
    bring(&config, &index, &*wake, longest).await;
    let mut seen = (Instant::now(), Timestamp::now());
    loop {
        sleep(LOOK).await;
        let now = (Instant::now(), Timestamp::now());
        let passed = SignedDuration::try_from(now.0 - seen.0).unwrap_or_default();
        let back = passed - now.1.duration_since(seen.1);
        if back > STEP {
            tracing::warn!(
                seconds = back.as_secs(),
                "the clock was set back; what waits is tried now"
            );
            bring(&config, &index, &*wake, SignedDuration::ZERO).await;
        } else if back < -STEP {
            tracing::warn!(seconds = -back.as_secs(), "the clock was put forward");
        }
        seen = now;
    }
}

/// Has everything tried now that waits for a time further off than that.
async fn bring(config: &Config, index: &Index, wake: &dyn Wake, further: SignedDuration) {
    for partner in &config.partners {
        let now = Timestamp::now();
        let limit = now.saturating_add(further).unwrap_or(Timestamp::MAX);
        match index.clock_was_set_back(&partner.name, limit, now).await {
            Ok(0) => {}
            Ok(_) => wake.try_now(&partner.name),
            Err(error) => {
                tracing::error!(partner = partner.name, error = %chain(&error), "what waits cannot be brought forward");
            }
        }
    }
}
