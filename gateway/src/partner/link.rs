//! How fast the link to a partner is, how fast this node compresses, and so whether compression pays.
//!
//! A link is measured by what went over it: bytes by time, from the first byte of an instance to the partner's answer, where
//! instances that went side by side share their time. What is small is left out, as its time is that of the way there and
//! back. The encoder is measured by what it compressed, proof included, and before that by a picture of its own. Knows
//! nothing of associations, and decides nothing for others but by the rule in [`Link::is_slower`].

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gantry_store::facts::Priority;

use super::transcode;

/// Shorter ones say more of the distance than of the link.
const TELLING: u64 = 64 << 10;
/// How much must have gone before a link is judged.
const ENOUGH: u64 = 1 << 20;
/// Of how many instances, and of what time, the link's speed is remembered.
const REMEMBERED: usize = 32;
const MEMORY: Duration = Duration::from_mins(10);
/// How much one compression changes what is known of the encoder.
const WEIGHT: f64 = 0.2;

/// What went over a link lately.
#[derive(Debug, Default)]
pub struct Link {
    passages: VecDeque<Passage>,
}

#[derive(Clone, Copy, Debug)]
struct Passage {
    begun: Instant,
    ended: Instant,
    bytes: u64,
}

impl Link {
    /// Notes that an instance of this length went over.
    pub fn note(&mut self, begun: Instant, ended: Instant, bytes: u64) {
        if bytes < TELLING {
            return;
        }
        if self.passages.len() >= REMEMBERED {
            self.passages.pop_front();
        }
        self.passages.push_back(Passage { begun, ended, bytes });
    }

    /// Bytes a second, if enough went over it lately.
    pub fn rate(&self, now: Instant) -> Option<f64> {
        let recent = |passage: &&Passage| now.saturating_duration_since(passage.ended) < MEMORY;
        let mut passages: Vec<Passage> = self.passages.iter().filter(recent).copied().collect();
        passages.sort_by_key(|passage| passage.begun);
        let (mut bytes, mut busy, mut until) = (0, Duration::ZERO, None::<Instant>);
        for passage in passages {
            bytes += passage.bytes;
            let from = until.map_or(passage.begun, |until| until.max(passage.begun));
            busy += passage.ended.saturating_duration_since(from);
            until = until.max(Some(passage.ended));
        }
        (bytes >= ENOUGH && !busy.is_zero()).then(|| bytes as f64 / busy.as_secs_f64())
    }

    /// Whether the link is slower than an encoder of so many bytes a second, so that what is compressed while something
    /// else goes over it arrives earlier. An emergency has nothing before it to hide behind: for it the link must be less
    /// than half as fast, which pays as soon as half of the bytes are saved.
    pub fn is_slower(&self, encoder: f64, priority: Priority, now: Instant) -> bool {
        let margin = if priority == Priority::Emergency { 2.0 } else { 1.0 };
        self.rate(now).is_some_and(|rate| rate * margin < encoder)
    }
}

/// What compresses on this node: how fast, and how much at once.
#[derive(Debug)]
pub struct Encoder {
    rate: Mutex<Option<f64>>,
    places: Mutex<usize>,
    freed: std::sync::Condvar,
}

/// The right to compress. Ends when dropped.
#[derive(Debug)]
pub struct Place<'a>(&'a Encoder);

impl Default for Encoder {
    /// Half of the processors, and one at least: the others are for those who send to this node.
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            rate: Mutex::default(),
            places: Mutex::new((processors / 2).max(1)),
            freed: std::sync::Condvar::new(),
        }
    }
}

impl Encoder {
    fn places(&self) -> MutexGuard<'_, usize> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place, as soon as there is one; an emergency has one at once or not at all.
    pub fn place(&self, priority: Priority) -> Option<Place<'_>> {
        let mut free = self.places();
        while *free == 0 {
            if priority == Priority::Emergency {
                return None;
            }
            free = self.freed.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        *free -= 1;
        Some(Place(self))
    }

    /// Notes that so many bytes were compressed and proven.
    pub fn note(&self, bytes: u64, took: Duration) {
        if bytes < TELLING || took.is_zero() {
            return;
        }
        let now = bytes as f64 / took.as_secs_f64();
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        *rate = Some(rate.map_or(now, |before| before + WEIGHT * (now - before)));
    }

    /// Bytes a second. The first to ask waits while a picture is compressed.
    pub fn rate(&self) -> f64 {
        if let Some(rate) = *self.rate.lock().unwrap_or_else(PoisonError::into_inner) {
            return rate;
        }
        let (bytes, took) = transcode::measure();
        self.note(bytes, took);
        bytes as f64 / took.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        *self.0.places() += 1;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1_000_000;

    fn after(start: Instant, milliseconds: u64) -> Instant {
        start + Duration::from_millis(milliseconds)
    }

    #[test]
    fn instances_that_go_side_by_side_share_their_time() {
        let (start, mut link) = (Instant::now(), Link::default());
        link.note(start, after(start, 1000), 5 * MB);
        link.note(after(start, 500), after(start, 1500), 5 * MB);
        link.note(after(start, 3000), after(start, 3500), 5 * MB);

        let rate = link.rate(after(start, 4000)).unwrap();

        assert!((rate - 7.5e6).abs() < 1.0, "{rate}");
    }

    #[test]
    fn a_link_is_judged_by_enough_that_went_lately_and_was_not_small() {
        let (start, mut link) = (Instant::now(), Link::default());
        (0..100).for_each(|_| link.note(start, after(start, 60), 4096));
        link.note(start, after(start, 10), MB / 2);
        assert_eq!(link.rate(after(start, 60)), None);

        link.note(start, after(start, 60), MB);
        assert!(link.rate(after(start, 60)).is_some());
        assert_eq!(link.rate(after(start, 60) + MEMORY), None);
    }

    #[test]
    fn an_emergency_is_compressed_only_where_it_cannot_be_later_for_it() {
        let (start, mut link) = (Instant::now(), Link::default());
        link.note(start, after(start, 1000), 10 * MB);
        let slower = |encoder, priority| link.is_slower(encoder, priority, after(start, 1000));

        assert!(slower(15e6, Priority::Routine) && !slower(15e6, Priority::Emergency));
        assert!(slower(25e6, Priority::Emergency) && !slower(9e6, Priority::Routine));
        assert!(!Link::default().is_slower(25e6, Priority::Routine, start));
    }

    #[test]
    fn an_emergency_never_waits_for_a_place() {
        let encoder = Encoder::default();
        let places: Vec<_> =
            std::iter::from_fn(|| encoder.place(Priority::Emergency)).take(1000).collect();
        assert!((1..1000).contains(&places.len()));

        std::thread::scope(|scope| {
            let waits = scope.spawn(|| encoder.place(Priority::Routine).is_some());
            drop(places);
            assert!(waits.join().unwrap());
        });
    }

    #[test]
    fn the_encoder_knows_how_fast_it_is() {
        let encoder = Encoder::default();
        assert!(encoder.rate() > 1e5, "{}", encoder.rate());
        encoder.note(10 * MB, Duration::from_secs(1));
        let before = encoder.rate();
        encoder.note(10 * MB, Duration::from_secs(1000));
        assert!(encoder.rate() < before);
    }
}
