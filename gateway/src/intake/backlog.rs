//! What is recorded and not yet settled: objects that wait to be stored, and spool entries that may go.
//!
//! All of it is repeated in spool and index, so it is only a memory: after a crash the drain makes it again. Drain and
//! storing share it, and whoever shows the node's state reads it.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gantry_store::facts::ObjectId;
use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How far back the recent rate looks, in hours.
const HOURS: usize = 24;

/// How long the spool keeps what is stored far away.
const KEEP: Duration = Duration::from_mins(2);

/// Shared by those who fill it, those who empty it and those who show it.
#[derive(Clone, Debug, Default)]
pub struct Backlog(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    inner: Mutex<Inner>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    /// Oldest first, as ids sort by their time.
    waiting: BTreeMap<ObjectId, Waiting>,
    bytes: u64,
    /// Stored, and still in the spool until then.
    kept: VecDeque<(Instant, ObjectId)>,
    /// Spool entries that repeat what is kept already.
    repeats: Vec<ObjectId>,
    last_arrival: Option<Instant>,
    waits_since: Option<Instant>,
    store: Store,
    arrived: Hours,
}

#[derive(Debug)]
struct Waiting {
    bytes: u64,
    /// Not tried again before this, after it failed alone.
    not_before: Option<Instant>,
    failures: u32,
    in_hand: bool,
}

/// How the object store was when it was last used.
#[derive(Clone, Debug, Default)]
pub struct Store {
    /// `None` before the first use.
    pub reachable: Option<bool>,
    /// Since when that is so.
    pub since: Option<Timestamp>,
    /// Why it is not.
    pub why: Option<String>,
}

/// All of it at a glance.
#[derive(Clone, Debug, Default)]
pub struct Glance {
    /// The object store.
    pub store: Store,
    /// Objects that are to be stored.
    pub waiting: u64,
    /// Their length, sealed.
    pub bytes: u64,
    /// When the oldest of them arrived.
    pub oldest: Option<Timestamp>,
    /// Bytes that arrived in a day, by what arrived of late; `None` in the first minutes.
    pub bytes_per_day: Option<u64>,
}

/// Bytes that arrived in each of the last hours.
#[derive(Debug)]
struct Hours {
    since: Instant,
    hour: u64,
    bytes: [u64; HOURS],
}

impl Default for Hours {
    fn default() -> Self {
        Self { since: Instant::now(), hour: 0, bytes: [0; HOURS] }
    }
}

impl Hours {
    fn add(&mut self, bytes: u64, now: Instant) {
        let hour = now.saturating_duration_since(self.since).as_secs() / 3600;
        // What lies between the last arrival and now had none.
        for passed in (self.hour + 1..=hour).take(HOURS) {
            if let Some(slot) = self.bytes.get_mut(passed as usize % HOURS) {
                *slot = 0;
            }
        }
        self.hour = self.hour.max(hour);
        if let Some(slot) = self.bytes.get_mut(hour as usize % HOURS) {
            *slot += bytes;
        }
    }

    fn per_day(&mut self, now: Instant) -> Option<u64> {
        self.add(0, now);
        let seconds = now.saturating_duration_since(self.since).as_secs();
        // The hour that runs counts as far as it has passed.
        let covered = seconds.min((HOURS as u64 - 1) * 3600 + seconds % 3600);
        if covered < 300 {
            return None;
        }
        let bytes: u64 = self.bytes.iter().sum();
        u64::try_from(u128::from(bytes) * 86_400 / u128::from(covered)).ok()
    }
}

impl Backlog {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Each change is a few calls on its own collections; a panic elsewhere leaves at most a count that is off.
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until something was added.
    pub async fn filled(&self) {
        self.0.filled.notified().await;
    }

    /// Adds objects with rows, and spool entries that repeat what is kept; what is in hand already stays as it is.
    pub fn add(&self, objects: &[(ObjectId, u64)], repeats: &[ObjectId]) {
        let now = Instant::now();
        let mut inner = self.inner();
        for (object, bytes) in objects {
            let new = Waiting { bytes: *bytes, not_before: None, failures: 0, in_hand: false };
            if !inner.waiting.contains_key(object) {
                inner.waiting.insert(*object, new);
                inner.bytes += bytes;
            }
        }
        inner.repeats.extend_from_slice(repeats);
        inner.waits_since.get_or_insert(now);
        drop(inner);
        self.0.filled.notify_one();
    }

    /// Notes that so many bytes have just come in.
    pub fn arrived(&self, bytes: u64) {
        let now = Instant::now();
        let mut inner = self.inner();
        inner.last_arrival = Some(now);
        inner.arrived.add(bytes, now);
    }

    /// All that is to be stored, kept or removed: what the drain need not look at again.
    pub fn in_hand(&self) -> HashSet<ObjectId> {
        let inner = self.inner();
        let kept = inner.kept.iter().map(|(_, object)| object);
        inner.waiting.keys().chain(kept).chain(&inner.repeats).copied().collect()
    }

    /// Whether anything is to be stored or removed, how many, since when, and when something last came in.
    pub(super) fn pressure(&self) -> Option<(usize, Instant, Option<Instant>)> {
        let inner = self.inner();
        let count = inner.waiting.len() + inner.repeats.len();
        Some((count, inner.waits_since.filter(|_| count > 0)?, inner.last_arrival))
    }

    /// Takes at most so many that may be tried now, oldest first.
    pub(super) fn take(&self, most: usize) -> Vec<ObjectId> {
        let now = Instant::now();
        let mut inner = self.inner();
        let may = |waiting: &Waiting| {
            !waiting.in_hand && waiting.not_before.is_none_or(|not_before| not_before <= now)
        };
        let ready = inner.waiting.iter_mut().filter(|(_, waiting)| may(waiting)).take(most);
        ready
            .map(|(object, waiting)| {
                waiting.in_hand = true;
                *object
            })
            .collect()
    }

    /// When the next of those that failed alone may be tried; `None` if one may be right now, or none waits.
    pub(super) fn next_ready(&self) -> Option<Instant> {
        let inner = self.inner();
        let waits = |waiting: &Waiting| waiting.not_before;
        if inner.waiting.values().any(|waiting| waits(waiting).is_none()) {
            return None;
        }
        inner.waiting.values().filter_map(waits).min()
    }

    /// These are stored, or gone: nothing more is to be done for them.
    pub(super) fn done(&self, objects: &[ObjectId]) {
        let mut inner = self.inner();
        for object in objects {
            if let Some(waiting) = inner.waiting.remove(object) {
                inner.bytes = inner.bytes.saturating_sub(waiting.bytes);
            }
        }
        if inner.waiting.is_empty() && inner.repeats.is_empty() {
            inner.waits_since = None;
        } else {
            inner.waits_since = Some(Instant::now());
        }
    }

    /// This one could not be stored; it may be tried again after a wait that grows.
    pub(super) fn failed(&self, object: ObjectId, wait: impl Fn(u32) -> Duration) {
        if let Some(waiting) = self.inner().waiting.get_mut(&object) {
            waiting.in_hand = false;
            waiting.failures += 1;
            waiting.not_before = Some(Instant::now() + wait(waiting.failures));
        }
    }

    /// These were not tried after all.
    pub(super) fn give_back(&self, objects: &[ObjectId]) {
        let mut inner = self.inner();
        for object in objects {
            if let Some(waiting) = inner.waiting.get_mut(object) {
                waiting.in_hand = false;
            }
        }
    }

    /// Takes the entries that repeat what is kept.
    pub(super) fn take_repeats(&self) -> Vec<ObjectId> {
        std::mem::take(&mut self.inner().repeats)
    }

    /// Keeps the spool's copy of what is stored for a while.
    pub(super) fn keep_for_a_while(&self, objects: &[ObjectId]) {
        let until = Instant::now() + KEEP;
        self.inner().kept.extend(objects.iter().map(|object| (until, *object)));
    }

    /// Takes those whose time has come; all, if there is need.
    pub(super) fn no_longer_kept(&self, all: bool) -> Vec<ObjectId> {
        let now = Instant::now();
        let mut inner = self.inner();
        let count = if all {
            inner.kept.len()
        } else {
            inner.kept.iter().take_while(|(until, _)| *until <= now).count()
        };
        inner.kept.drain(..count).map(|(_, object)| object).collect()
    }

    /// When the first of those that are kept may go.
    pub(super) fn kept_until(&self) -> Option<Instant> {
        self.inner().kept.front().map(|(until, _)| *until)
    }

    /// Notes how the object store is; true if it was otherwise before.
    pub(super) fn store_is(&self, why_not: Option<String>) -> bool {
        let mut inner = self.inner();
        let reachable = Some(why_not.is_none());
        let changed = inner.store.reachable != reachable;
        if changed {
            inner.store.reachable = reachable;
            inner.store.since = Some(Timestamp::now());
        }
        inner.store.why = why_not;
        changed
    }

    /// All of it at a glance.
    pub fn glance(&self) -> Glance {
        let mut inner = self.inner();
        let oldest = inner.waiting.keys().next();
        let oldest = oldest.and_then(|object| {
            Timestamp::from_millisecond(object.timestamp_ms().cast_signed()).ok()
        });
        Glance {
            store: inner.store.clone(),
            waiting: inner.waiting.len() as u64,
            bytes: inner.bytes,
            oldest,
            bytes_per_day: inner.arrived.per_day(Instant::now()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_failed_alone_waits_alone_and_what_is_in_hand_is_given_once() {
        let backlog = Backlog::default();
        let mut objects: Vec<_> = (0..4).map(|_| (ObjectId::new(), 10)).collect();
        objects.sort_unstable();
        let ids: Vec<_> = objects.iter().map(|(object, _)| *object).collect();
        backlog.add(&objects, &[]);
        backlog.add(&objects, &[]);

        let first = backlog.take(1);
        backlog.failed(ids[0], |_| Duration::from_secs(5));
        let rest = backlog.take(9);
        backlog.done(&rest);

        assert_eq!((first, rest), (ids[..1].to_vec(), ids[1..].to_vec()));
        assert_eq!(backlog.take(9), []);
        assert_eq!((backlog.glance().waiting, backlog.glance().bytes), (1, 10));
        tokio::time::advance(Duration::from_secs(6)).await;
        assert_eq!(backlog.take(9), ids[..1]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_rate_is_that_of_the_last_day() {
        let backlog = Backlog::default();
        backlog.arrived(1_000_000);
        assert_eq!(backlog.glance().bytes_per_day, None);

        tokio::time::advance(Duration::from_hours(1)).await;
        let after_an_hour = backlog.glance().bytes_per_day.unwrap();
        tokio::time::advance(Duration::from_hours(30)).await;

        assert!((23_900_000..=24_100_000).contains(&after_an_hour), "{after_an_hour}");
        assert_eq!(backlog.glance().bytes_per_day, Some(0));
    }
}
