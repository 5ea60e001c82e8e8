//! How many associations a link needs at once: as many as keep it full.
//!
//! One association has one instance on its way and waits for the answer to it, so on a long line most of the line is empty.
//! Further associations fill it, up to where instances begin to wait for each other. That point is found as TCP Vegas finds
//! its window: an instance that takes as long as it took on an empty line had the line for itself; the part of its time
//! beyond that it stood in a queue, at the line, at the partner's disk or on our own processors. With less than one instance
//! in the queue there is room for more associations, with more than three there are too many. Knows times and lengths only.

use std::time::{Duration, Instant};

use crate::config::Associations;

/// Classes of length, a quarter of an octave each, as what is longer takes longer.
const CLASSES: usize = 4 * 64;
/// What goes there and back in less has no distance to fill, and more associations would only be in each other's way.
const NEAR: Duration = Duration::from_millis(5);
/// For how long it counts that something went so quickly: lines and partners change.
const MEMORY: Duration = Duration::from_mins(10);

/// What is known of the line's need.
#[derive(Debug)]
pub struct Breadth {
    bounds: Associations,
    wanted: usize,
    /// Since when it is that.
    since: Instant,
    quickest: Vec<Option<(Duration, Instant)>>,
    /// How many of the answers since then have been looked at, and the part of their time that they stood in a queue.
    answers: usize,
    queued: f64,
}

impl Breadth {
    /// Nothing is known yet.
    pub fn new(bounds: Associations) -> Self {
        Self {
            bounds,
            wanted: bounds.fewest(),
            since: Instant::now(),
            quickest: vec![None; CLASSES],
            answers: 0,
            queued: 0.0,
        }
    }

    /// How many associations are wanted while there is work for them.
    pub fn wanted(&self) -> usize {
        self.wanted
    }

    /// Notes that an instance of so many bytes went between these moments, while `busy` associations had work. True if more
    /// are wanted for it.
    pub fn note(&mut self, begun: Instant, ended: Instant, bytes: u64, busy: usize) -> bool {
        let took = ended.saturating_duration_since(begun);
        let Some(quickest) = self.quickest.get_mut(class(bytes)) else { return false };
        let alone = match *quickest {
            Some((alone, at)) if alone <= took && ended.saturating_duration_since(at) < MEMORY => {
                alone
            }
            _ => {
                *quickest = Some((took, ended));
                took
            }
        };
        // What began before the last change, or while fewer had work, says nothing of so many associations.
        if begun < self.since || busy < self.wanted || took < NEAR {
            return false;
        }
        self.answers += 1;
        self.queued += 1.0 - alone.as_secs_f64() / took.as_secs_f64();
        if self.answers < self.wanted {
            return false;
        }
        let backlog = self.queued / self.answers as f64 * self.wanted as f64;
        let wanted = match backlog {
            ..0.5 => self.wanted * 2,
            ..1.0 => self.wanted + 1,
            3.0.. => self.wanted - 1,
            _ => self.wanted,
        };
        let wanted = wanted.clamp(self.bounds.fewest(), self.bounds.most());
        let more = wanted > self.wanted;
        (self.wanted, self.since, self.answers, self.queued) = (wanted, ended, 0, 0.0);
        more
    }
}

fn class(bytes: u64) -> usize {
    let bytes = bytes.max(4);
    let octave = bytes.ilog2();
    // The two bits after the first.
    4 * octave as usize + (bytes >> (octave - 2)) as usize % 4
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line of so many bytes a second on which an answer comes so long after the last byte. What arrives while another
    /// is on the line waits for it.
    struct Line {
        rate: f64,
        answer: Duration,
        free: Instant,
    }

    impl Line {
        fn pass(&mut self, now: Instant, bytes: u64) -> Instant {
            self.free = self.free.max(now) + Duration::from_secs_f64(bytes as f64 / self.rate);
            self.free + self.answer
        }
    }

    /// Sends so many instances, as many at once as are wanted. How many those are in the end, and how long it took.
    fn send(
        bounds: Associations,
        rate: f64,
        answer_ms: u64,
        bytes: u64,
        count: usize,
    ) -> (usize, f64) {
        let start = Instant::now();
        let mut line = Line { rate, answer: Duration::from_millis(answer_ms), free: start };
        let mut breadth = Breadth { since: start, ..Breadth::new(bounds) };
        let (mut begun, mut on_their_way, mut now) = (0, Vec::new(), start);
        loop {
            while begun < count && on_their_way.len() < breadth.wanted() {
                on_their_way.push((line.pass(now, bytes), now));
                begun += 1;
            }
            on_their_way.sort();
            if on_their_way.is_empty() {
                return (breadth.wanted(), (now - start).as_secs_f64());
            }
            let (ended, began) = on_their_way.remove(0);
            now = ended;
            breadth.note(began, ended, bytes, on_their_way.len() + 1);
        }
    }

    #[test]
    fn a_long_line_is_filled() {
        // 100 Mbit/s, 60 ms there and back.
        let (wanted, took) = send(Associations::Auto, 12.5e6, 60, 525_000, 1000);
        let full = 1000.0 * 525_000.0 / 12.5e6;
        assert!((4..=6).contains(&wanted), "{wanted}");
        assert!(took < full * 1.03, "{took} where {full} is the least");

        let (wanted, took) = send(Associations::Auto, 12.5e6, 60, 4096, 2000);
        assert_eq!(wanted, Associations::MOST);
        assert!(2000.0 / took > 200.0, "{took}");
    }

    #[test]
    fn a_line_that_is_full_is_not_crowded() {
        for (rate, answer_ms, bytes) in [(1e9, 0, 525_000), (1e6, 5, 525_000), (1e5, 1, 4096)] {
            let (wanted, _) = send(Associations::Auto, rate, answer_ms, bytes, 1000);
            assert_eq!(wanted, Associations::FEWEST, "{rate} {answer_ms} {bytes}");
        }
    }

    #[test]
    fn what_is_configured_is_kept() {
        for count in [1, 2, 7, 64] {
            assert_eq!(send(Associations::Fixed(count), 12.5e6, 60, 4096, 500).0, count);
        }
    }

    #[test]
    fn who_is_not_busy_says_nothing_of_the_line() {
        let start = Instant::now();
        let mut breadth = Breadth { since: start, ..Breadth::new(Associations::Auto) };
        for number in 0..100 {
            let begun = start + Duration::from_millis(100 * number);
            assert!(!breadth.note(begun, begun + Duration::from_millis(60), 4096, 1));
        }
        assert_eq!(breadth.wanted(), Associations::FEWEST);
    }

    #[test]
    fn any_length_and_any_time_is_taken() {
        let now = Instant::now();
        let mut breadth = Breadth::new(Associations::Auto);
        for bytes in [0, 1, u64::MAX] {
            breadth.note(now, now, bytes, 100);
            breadth.note(now + Duration::from_secs(1), now, bytes, 100);
        }
    }
}
