//! The scrub: reads again all that is kept, compares object store, index and spool, and mends what has drifted.
//!
//! A round walks objects and rows side by side in the order of object ids, a page at a time, so that each object is met
//! once and memory does not grow with their number; no faster than `[scrub] rate`. What it finds is mended where a whole
//! copy is at hand, and reported in any case. It puts nothing in an object's place but a copy whose digest it has just
//! verified, and deletes nothing but what is on record as removed, and repeats of an object that it has just read whole.
//!
//! What is younger than [`SETTLING`] is left to the next round, as receiving and storing are still at it. What looks wrong is
//! looked at a second time. A store that fails, or that is empty while rows say otherwise (a disk that is not mounted), an
//! index that is away or an older copy: then the round waits, and nothing is taken for lost. How far it came is on the
//! disk after every page, and a restart goes on there.
//!
//! Of several nodes on one index each scrubs what that shows: two at once do twice the work and no harm, as each step may
//! be repeated. An object that still lies in another node's spool, longer than [`SETTLING`], one node takes for missing
//! until it is stored.

pub mod round;
pub mod walk;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::config::Config;
use crate::telemetry::chain;
use round::{Count, Finding, Kind, Progress, Round};
pub use walk::{Pace, Scrub, ScrubError};

/// What is younger than this, or than `[scrub] every` where that is shorter, is left to the next round.
pub const SETTLING: Duration = Duration::from_mins(10);
/// How long a store or an index in trouble is left alone, at first and at most; never longer than `[scrub] every`.
const FLOOR: Duration = Duration::from_mins(1);
const CEILING: Duration = Duration::from_mins(30);
/// How often the clock is looked at.
const LOOK: Duration = Duration::from_hours(1);

/// Why a round that was begun does not go on.
#[derive(Clone, Debug, Serialize)]
pub struct Waiting {
    /// In words.
    pub why: String,
    /// Since when.
    pub since: Timestamp,
    /// When it is tried again.
    pub next_try: Timestamp,
}

/// The scrub of a node, for those who show it or ask for it. A clone is another handle to the same.
#[derive(Clone, Debug)]
pub struct Handle(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    progress: Arc<Progress>,
    every: Option<Duration>,
    rate: u64,
    waiting: Mutex<Option<Waiting>>,
    asked: tokio::sync::Notify,
}

/// A round in numbers.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// When it began.
    pub begun_at: Timestamp,
    /// When it had seen everything.
    pub ended_at: Option<Timestamp>,
    /// Objects that were read and are what their rows say.
    pub verified: u64,
    /// Bytes of their data sets.
    pub bytes: u64,
    /// Objects that nothing needs, deleted.
    pub removed: u64,
    /// What was wrong.
    pub counts: BTreeMap<Kind, Count>,
}

impl From<&Round> for Summary {
    fn from(round: &Round) -> Self {
        Self {
            begun_at: round.begun_at,
            ended_at: round.ended_at,
            verified: round.verified,
            bytes: round.bytes,
            removed: round.removed,
            counts: round.counts.clone(),
        }
    }
}

/// A finding, and what can be done about it.
#[derive(Clone, Debug, Serialize)]
pub struct Listed {
    #[serde(flatten)]
    finding: Finding,
    /// For what is not mended.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<&'static str>,
}

/// How it stands.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// How long after a round began the next one does; `None`: only when a person asks for it.
    pub every_seconds: Option<u64>,
    /// Bytes a second.
    pub rate: u64,
    /// When the next round begins, where none runs.
    pub next_at: Option<Timestamp>,
    /// Why the round does not go on.
    pub waiting: Option<Waiting>,
    /// The round that runs.
    pub current: Option<Summary>,
    /// The last that ended.
    pub last: Option<Summary>,
    /// What a person must see to, by kind.
    pub unresolved: BTreeMap<Kind, u64>,
    /// What was wrong, as far as the list reaches.
    pub findings: Vec<Listed>,
}

/// What asking for a round came to.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Begun {
    /// Whether it is a new one; otherwise one runs already, and does not wait any longer.
    pub new: bool,
    /// When it began.
    pub begun_at: Timestamp,
}

impl Handle {
    /// That of the node with this configuration, as its data directory says.
    pub fn open(config: &Config) -> Self {
        Self(Arc::new(Shared {
            progress: Arc::new(Progress::load(config.node.scrub_path())),
            every: config.scrub.every,
            rate: config.scrub.rate,
            waiting: Mutex::default(),
            asked: tokio::sync::Notify::new(),
        }))
    }

    /// Where the walk notes how far it came.
    pub fn progress(&self) -> Arc<Progress> {
        self.0.progress.clone()
    }

    /// How long what is new is left alone.
    pub fn settling(&self) -> Duration {
        self.0.every.map_or(SETTLING, |every| SETTLING.min(every))
    }

    /// Begins a round now, or has the one that runs go on now.
    pub fn begin(&self) -> Begun {
        let (begun_at, new) = self.0.progress.begin();
        if let Some(waiting) = &mut *self.waiting() {
            waiting.next_try = Timestamp::now();
        }
        self.0.asked.notify_one();
        Begun { new, begun_at }
    }

    /// How it stands.
    pub fn report(&self) -> Report {
        let state = self.0.progress.state();
        let list = |finding: &Finding| {
            let remedy = (!finding.mended).then(|| finding.kind.remedy());
            Listed { finding: finding.clone(), remedy }
        };
        let mut findings: Vec<_> = state.findings().map(list).collect();
        findings.sort_by_key(|listed| (listed.finding.mended, listed.finding.object));
        Report {
            every_seconds: self.0.every.map(|every| every.as_secs()),
            rate: self.0.rate,
            next_at: self.next_at().filter(|_| state.current.is_none()),
            waiting: self.waiting().clone().filter(|waiting| waiting.next_try > Timestamp::now()),
            current: state.current.as_ref().map(Summary::from),
            last: state.last.as_ref().map(Summary::from),
            unresolved: state.unresolved(),
            findings,
        }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Option<Waiting>> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_at(&self) -> Option<Timestamp> {
        let (every, now) = (self.0.every?, Timestamp::now());
        let last = self.0.progress.look(|state| state.last.as_ref().map(|round| round.begun_at));
        // One that began in the future says that the clock was wrong.
        let next = last.filter(|last| *last <= now).map(|last| last.saturating_add(every));
        Some(next.and_then(Result::ok).unwrap_or(now))
    }

    /// Waits until a round is to begin, or to go on.
    async fn due(&self) {
        loop {
            if self.0.progress.look(|state| state.current.is_some()) {
                return;
            }
            let pause = match self.next_at() {
                None => LOOK,
                Some(at) => match Timestamp::now().duration_until(at) {
                    left if left <= SignedDuration::ZERO => return,
                    left => left.unsigned_abs().min(LOOK),
                },
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.0.asked.notified() => {}
            }
        }
    }

    /// Works until it is told to stop.
    pub async fn run(self, scrub: Scrub) {
        let stop = scrub.stop.clone();
        scrub.show();
        stop.run_until_cancelled(self.due()).await;
        let mut failures = 0;
        while !stop.is_cancelled() {
            let before = self.cursor();
            match scrub.run().await {
                Ok(()) => {
                    failures = 0;
                    *self.waiting() = None;
                    self.say_what_ended();
                    stop.run_until_cancelled(self.due()).await;
                }
                Err(ScrubError::Stopped) => {}
                Err(error) => {
                    failures = if self.cursor() == before { failures + 1 } else { 1 };
                    let pause = self.wait(&error, failures);
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = self.0.asked.notified() => {}
                        () = stop.cancelled() => {}
                    }
                }
            }
        }
    }

    fn cursor(&self) -> Option<gantry_store::facts::ObjectId> {
        self.0.progress.look(|state| state.current.as_ref().and_then(|round| round.cursor))
    }

    /// Notes why it waits, and says how long.
    fn wait(&self, error: &ScrubError, failures: u32) -> Duration {
        let pause = FLOOR.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(CEILING);
        let pause = self.0.every.map_or(pause, |every| pause.min(every));
        let (why, now) = (chain(error).to_string(), Timestamp::now());
        tracing::warn!(
            why,
            next_try_seconds = pause.as_secs(),
            "the scrub waits; nothing is taken for lost because of it"
        );
        let mut waiting = self.waiting();
        let since = waiting.as_ref().map_or(now, |waiting| waiting.since);
        let next_try = now.saturating_add(pause).unwrap_or(Timestamp::MAX);
        *waiting = Some(Waiting { why, since, next_try });
        pause
    }

    fn say_what_ended(&self) {
        let state = self.0.progress.state();
        let unresolved: u64 = state.unresolved().values().sum();
        let Some(Round { verified, bytes, removed, counts, .. }) = state.last else { return };
        let mended: u64 = counts.values().map(|count| count.mended).sum();
        tracing::info!(
            verified,
            bytes,
            removed,
            mended,
            unresolved,
            "the scrub has seen everything"
        );
    }
}

#[cfg(test)]
mod tests;
