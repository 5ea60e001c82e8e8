//! Waiting by condition.

use std::time::{Duration, Instant};

/// What a test waits for, at most. Long, because machines that run tests are slow and nobody waits for what is fast.
const DEADLINE: Duration = Duration::from_mins(1);
const INTERVAL: Duration = Duration::from_millis(20);

/// Asks until there is an answer, and returns it.
pub async fn eventually<T>(what: &str, probe: impl AsyncFnMut() -> Option<T>) -> T {
    eventually_within(DEADLINE, what, probe).await
}

/// The same, with a deadline of its own.
pub async fn eventually_within<T>(
    deadline: Duration,
    what: &str,
    mut probe: impl AsyncFnMut() -> Option<T>,
) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = probe().await {
            return answer;
        }
        assert!(begun.elapsed() < deadline, "waited {deadline:?} in vain for {what}");
        tokio::time::sleep(INTERVAL).await;
    }
}
