//! When to try again: exponential, with full jitter, under a ceiling that is lower for emergencies.

use std::time::Duration;

use gantry_store::facts::Priority;
use gantry_store::index::{Claim, Failure};
use jiff::{SignedDuration, Timestamp};
use ring::rand::{SecureRandom, SystemRandom};

use crate::config::{Delivery, duration_text};

/// The longest wait after so many failures in a row, the first being 1.
pub fn longest(settings: &Delivery, priority: Priority, failures: u32) -> Duration {
    let ceiling = match priority {
        Priority::Emergency => settings.emergency_retry_ceiling,
        Priority::Urgent | Priority::Routine => settings.retry_ceiling,
    };
    let doubled = settings.retry_floor.saturating_mul(1 << failures.saturating_sub(1).min(20));
    doubled.min(ceiling)
}

/// What is waited at least, so that nothing comes back at once.
const SHORTEST: Duration = Duration::from_secs(1);

/// When to try again: at any moment up to the longest wait, so that what failed together does not come back together.
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
    let shortest = SHORTEST.min(longest / 2);
    let wait = shortest + longest.saturating_sub(shortest).mul_f64(share);
    now + SignedDuration::try_from(wait).unwrap_or(SignedDuration::from_mins(10))
}

/// Why something is not tried again although the next try might succeed: it has waited too long for nobody to look. An
/// emergency is never given up without a person.
pub fn given_up(
    settings: &Delivery,
    claim: &Claim,
    why: &Failure,
    now: Timestamp,
) -> Option<Failure> {
    let limit = settings.give_up_after.filter(|_| claim.priority != Priority::Emergency)?;
    let waited = Duration::try_from(now.duration_since(claim.since)).unwrap_or_default();
    (waited > limit).then(|| {
        let text = format!("{}; given up after {}", why.text, duration_text(limit));
        Failure { text, ..why.clone() }
    })
}

#[cfg(test)]
mod tests {
    use gantry_store::facts::ObjectId;
    use gantry_store::index::{DeliveryId, FailureKind, TransferId};

    use super::*;

    #[test]
    fn what_is_no_emergency_is_given_up_after_its_time_and_an_emergency_never() {
        let why = Failure {
            kind: FailureKind::Unreachable,
            status: None,
            text: "connection refused".to_owned(),
        };
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let claim = |priority, seconds| Claim {
            delivery: "1".parse::<DeliveryId>().unwrap(),
            transfer: "01ARZ3NDEKTSV4RRFFQ69G5FAV".parse::<TransferId>().unwrap(),
            object: ObjectId::new(),
            sop_class: "1.2.840.10008.5.1.4.1.1.2".parse().unwrap(),
            sop_instance: "2.25.1".parse().unwrap(),
            transfer_syntax: "1.2.840.10008.1.2.1".parse().unwrap(),
            length: 1,
            priority,
            attempt: 1,
            deaths: 0,
            stored: true,
            lease_ends: Timestamp::MAX,
            since: now - SignedDuration::from_secs(seconds),
            protection: None,
        };
        let settings =
            Delivery { give_up_after: Some(Duration::from_hours(1)), ..Delivery::default() };
        let given_up = |priority, seconds| {
            given_up(&settings, &claim(priority, seconds), &why, now).map(|why| why.text)
        };
        for priority in [Priority::Routine, Priority::Urgent] {
            assert_eq!(given_up(priority, 3600), None);
            let text = given_up(priority, 3601).unwrap();
            assert_eq!(text, "connection refused; given up after 1h");
        }
        assert_eq!(given_up(Priority::Emergency, 1_000_000), None);
        // A clock that was set back gives nothing up.
        assert_eq!(given_up(Priority::Routine, -1_000_000), None);
        let never = Delivery { give_up_after: None, ..settings };
        assert_eq!(super::given_up(&never, &claim(Priority::Routine, 1 << 30), &why, now), None);
    }

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
        let mut waits = Vec::new();
        for _ in 0..100 {
            let wait =
                next_try(&settings, Priority::Routine, 3, now).duration_since(now).as_secs_f64();
            assert!((1.0..=20.0).contains(&wait), "{wait}");
            waits.push(wait);
        }
        // All of the time up to the longest wait is used.
        let early = waits.iter().filter(|wait| **wait < 10.5).count();
        assert!((20..=80).contains(&early), "{early} of 100");
    }
}
