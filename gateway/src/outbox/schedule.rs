//! When to try again: exponential, with full jitter, under a ceiling that is lower for emergencies.

use std::time::Duration;

use gantry_store::facts::Priority;
use jiff::{SignedDuration, Timestamp};
use ring::rand::{SecureRandom, SystemRandom};

use crate::config::Delivery;

/// The longest wait after so many failures in a row, the first being 1.
pub fn longest(settings: &Delivery, priority: Priority, failures: u32) -> Duration {
    let ceiling = match priority {
        Priority::Emergency => settings.emergency_retry_ceiling,
        Priority::Urgent | Priority::Routine => settings.retry_ceiling,
    };
    let doubled = settings.retry_floor.saturating_mul(1 << failures.saturating_sub(1).min(20));
    doubled.min(ceiling)
}

/// When to try again: somewhere between half of the longest wait and all of it, so that what failed together does not come
/// back together, and nothing comes back at once.
pub fn next_try(
    settings: &Delivery,
    priority: Priority,
    failures: u32,
    now: Timestamp,
) -> Timestamp {
    let longest = longest(settings, priority, failures);
    let mut random = [0; 4];
    // Without random bytes everything waits longest, which is safe.
    let share = SystemRandom::new()
        .fill(&mut random)
        .map_or(1.0, |()| f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX));
    let wait = longest.mul_f64(0.5 + 0.5 * share);
    now + SignedDuration::try_from(wait).unwrap_or(SignedDuration::from_mins(10))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_ceiling_that_is_lower_for_emergencies() {
        let settings = Delivery::default();
        let seconds = |priority, failures| longest(&settings, priority, failures).as_secs();
        assert_eq!([1, 2, 3, 4].map(|n| seconds(Priority::Routine, n)), [5, 10, 20, 40]);
        assert_eq!(seconds(Priority::Routine, 1000), settings.retry_ceiling.as_secs());
        assert_eq!(seconds(Priority::Emergency, 1000), settings.emergency_retry_ceiling.as_secs());
    }

    #[test]
    fn a_try_comes_neither_at_once_nor_after_the_longest_wait() {
        let (settings, now) = (Delivery::default(), Timestamp::UNIX_EPOCH);
        for _ in 0..100 {
            let wait =
                next_try(&settings, Priority::Routine, 3, now).duration_since(now).as_secs_f64();
            assert!((10.0..=20.0).contains(&wait), "{wait}");
        }
    }
}
