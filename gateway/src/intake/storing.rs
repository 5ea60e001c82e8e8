//! Storing: what has rows becomes objects, and its spool file goes.
//!
//! A task of its own, so that a store that is slow or down never keeps an arrival from becoming rows. A spool file goes
//! when its object is confirmed and its row is on the disk; each step may be repeated.
//!
//! Where the store is on this machine, making objects durable competes with the syncs that senders wait for: it is done
//! in a lull. Where it is on the network there is no such reason, and objects go up at once; then the spool keeps its
//! copy for a few minutes, because forwarders read what is new and should find it near.
//!
//! A store that fails is left alone for a while that grows up to [`CEILING`], and then asked with one object; only when
//! that is taken do the others follow. An object that fails alone waits alone.

use std::collections::HashSet;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gantry_store::facts::ObjectId;
use gantry_store::index::Index;
use gantry_store::object::{self, ObjectError, ObjectStore};
use gantry_store::sealed::SealedError;
use gantry_store::spool::{Durability, Spool};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::backlog::Backlog;
use crate::telemetry::chain;

/// How many become objects at once: on the network the end of each batch waits for its slowest.
const BATCH: usize = 512;
/// Near objects wait until nothing has arrived for so long.
const LULL: Duration = Duration::from_millis(500);
/// And this long at most, or until so many wait: the spool is not where instances stay.
const LATEST: Duration = Duration::from_secs(15);
const MOST: usize = 8192;
/// How long far objects wait for company.
const GATHER: Duration = Duration::from_millis(50);
/// The first wait after a failure, and the longest.
const FLOOR: Duration = Duration::from_secs(1);
const CEILING: Duration = Duration::from_secs(30);
/// How often a store that nothing is put into is looked at, and how long to wait where nothing else says so.
const LOOK: Duration = Duration::from_mins(1);
/// How often uploads that nobody finished are looked for: what a dying node had on the wire may begin one after the next
/// start.
const SWEEP: Duration = Duration::from_hours(24);

/// Moves objects from the spool to the object store.
pub(super) struct Storing {
    pub(super) spool: Arc<Spool>,
    pub(super) index: Index,
    pub(super) objects: Arc<dyn ObjectStore>,
    pub(super) durability: Durability,
    pub(super) backlog: Backlog,
}

/// What is remembered of a store that fails.
#[derive(Debug, Default)]
struct Trouble {
    failures: u32,
    until: Option<Instant>,
}

/// How a batch went.
enum Outcome {
    /// Some of it is stored; `full` if there may be more where it came from.
    Progress { full: bool },
    /// Nothing is, and not because of what it was.
    Down(String),
    /// Nothing was to be done, or what failed failed alone.
    Nothing,
}

impl Storing {
    /// Works until stopped; then what waits becomes objects as far as that succeeds at the first try.
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut trouble = Trouble::default();
        let mut next_sweep = Instant::now();
        let mut at_start = true;
        let mut next_look = Instant::now();
        loop {
            let due = self.due(&trouble).unwrap_or(next_look).min(next_look);
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = self.backlog.filled() => {
                    // What is due may have changed; the time that is left for company is waited for.
                    if self.due(&trouble).is_none_or(|due| due > Instant::now()) {
                        continue;
                    }
                }
                () = sleep_until(due) => {}
            }
            if Instant::now() >= next_sweep && trouble.may_try() {
                if self.sweep(&mut trouble, at_start).await {
                    next_sweep = Instant::now() + SWEEP;
                    at_start = false;
                }
                next_look = Instant::now() + LOOK;
            } else if Instant::now() >= next_look && trouble.may_try() {
                next_look = Instant::now() + LOOK;
                self.look(&mut trouble).await;
            }
            if self.due(&trouble).is_some_and(|due| due <= Instant::now()) {
                if self.objects.is_near() {
                    self.step(&mut trouble, &stop).await;
                } else {
                    // One that hangs holds up nobody's end: what it was given is in the spool.
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = self.step(&mut trouble, &stop) => {}
                    }
                }
            }
            if next_look <= Instant::now() {
                next_look = Instant::now() + LOOK.min(trouble.left().max(FLOOR));
            }
            self.release().await;
        }
        // A store that is in trouble is not waited for: what it does not have is in the spool.
        if trouble.failures == 0 {
            while matches!(self.batch(BATCH).await, Outcome::Progress { .. }) {}
        }
        self.forget().await;
    }

    /// When there is something to do; `None` if there is nothing.
    fn due(&self, trouble: &Trouble) -> Option<Instant> {
        let kept = self.backlog.kept_until();
        let store = self.backlog.pressure().map(|(count, since, last_arrival)| {
            let due = if !self.objects.is_near() {
                since + GATHER
            } else if count >= MOST {
                since
            } else {
                (last_arrival.unwrap_or(since) + LULL).min(since + LATEST)
            };
            let due = self.backlog.next_ready().map_or(due, |ready| due.max(ready));
            trouble.until.map_or(due, |until| due.max(until))
        });
        match (store, kept) {
            (Some(store), Some(kept)) => Some(store.min(kept)),
            (store, kept) => store.or(kept),
        }
    }

    /// Removes what a crash left in the store, once it can be reached: what is old, and at the start also what is this
    /// node's.
    async fn sweep(&self, trouble: &mut Trouble, at_start: bool) -> bool {
        let (spool, objects) = (self.spool.clone(), self.objects.clone());
        let swept = tokio::task::spawn_blocking(move || {
            // Nothing is being put at the start, so what is in this spool is not being stored by anybody.
            objects.sweep(&|object| at_start && spool.path(object).exists())
        });
        match swept.await {
            Ok(Ok(0)) => self.is_up(trouble),
            Ok(Ok(unfinished)) => {
                tracing::info!(unfinished, "uploads that a crash cut off are removed");
                self.is_up(trouble);
            }
            Ok(Err(error)) => {
                self.is_down(trouble, &chain(&error).to_string());
                return false;
            }
            Err(_) => return false,
        }
        true
    }

    /// Sees whether a store that nothing was put into is there.
    async fn look(&self, trouble: &mut Trouble) {
        let objects = self.objects.clone();
        match tokio::task::spawn_blocking(move || objects.list(None, 1)).await {
            Ok(Ok(_)) => self.is_up(trouble),
            Ok(Err(error)) => self.is_down(trouble, &chain(&error).to_string()),
            Err(_) => {}
        }
    }

    /// Stores what is ready, batch after batch while that goes well.
    async fn step(&self, trouble: &mut Trouble, stop: &CancellationToken) {
        // After a failure one, to see whether it is back.
        let most = if trouble.failures == 0 { BATCH } else { 1 };
        loop {
            match self.batch(most).await {
                Outcome::Progress { full } => {
                    let was_down = trouble.failures > 0;
                    self.is_up(trouble);
                    if full && !was_down && !stop.is_cancelled() {
                        continue;
                    }
                }
                Outcome::Down(why) => self.is_down(trouble, &why),
                Outcome::Nothing => {}
            }
            break;
        }
        self.forget().await;
    }

    fn is_up(&self, trouble: &mut Trouble) {
        if self.backlog.store_is(None) && trouble.failures > 0 {
            tracing::info!(
                waiting = self.backlog.glance().waiting,
                "object store takes objects again"
            );
        }
        *trouble = Trouble::default();
    }

    fn is_down(&self, trouble: &mut Trouble, why: &str) {
        trouble.failures += 1;
        let wait = wait(trouble.failures);
        trouble.until = Some(Instant::now() + wait);
        self.backlog.store_is(Some(why.to_owned()));
        tracing::error!(
            why,
            failures = trouble.failures,
            next_try_seconds = wait.as_secs(),
            waiting = self.backlog.glance().waiting,
            "object store does not take objects; they wait in the spool"
        );
    }

    /// Moves objects from the spool to the object store.
    async fn batch(&self, most: usize) -> Outcome {
        let objects = self.backlog.take(most);
        if objects.is_empty() {
            return Outcome::Nothing;
        }
        let Some(answers) = self.put(&objects).await else {
            for object in objects {
                self.backlog.failed(object, wait);
            }
            return Outcome::Nothing;
        };
        let (mut stored, mut failed, mut down) = (Vec::new(), Vec::new(), None);
        let mut not_tried = false;
        let mut settled: HashSet<_> = objects.iter().copied().collect();
        for (object, answer) in answers {
            match answer {
                Ok(()) => stored.push(object),
                Err(ObjectError::NotTried) => {
                    settled.remove(&object);
                    self.backlog.give_back(&[object]);
                    not_tried = true;
                }
                Err(error @ ObjectError::Missing(_)) => {
                    tracing::error!(%object, error = %chain(&error), "object is neither in the spool nor in the object store");
                }
                Err(error) => {
                    settled.remove(&object);
                    if error.concerns_all() {
                        down.get_or_insert_with(|| chain(&error).to_string());
                    }
                    failed.push((object, error));
                }
            }
        }
        // While the store is down nobody has failed alone; except the one that was tried, so that the next try is
        // another's.
        let alone = !stored.is_empty() || down.is_none() || objects.len() == 1;
        for (object, error) in failed {
            if alone && down.is_none() {
                tracing::error!(%object, error = %chain(&error), "object store did not take an object; it waits in the spool");
            }
            self.backlog.failed(object, if alone { wait } else { at_once });
        }
        if !stored.is_empty() && !self.noted(&stored).await {
            self.backlog.give_back(&objects);
            return Outcome::Nothing;
        }
        // Those too that are lost, or were set aside: nothing more can be done for them here.
        self.backlog.done(&settled.into_iter().collect::<Vec<_>>());
        match (stored.is_empty(), down) {
            (false, _) => Outcome::Progress { full: objects.len() == most },
            (true, Some(why)) => Outcome::Down(why),
            (true, None) if not_tried => Outcome::Down(ObjectError::NotTried.to_string()),
            (true, None) => Outcome::Nothing,
        }
    }

    async fn put(&self, objects: &[ObjectId]) -> Option<Vec<(ObjectId, Result<(), ObjectError>)>> {
        let (spool, store, durability) =
            (self.spool.clone(), self.objects.clone(), self.durability);
        let files: Vec<_> = objects.iter().map(|object| (*object, spool.path(*object))).collect();
        let put = tokio::task::spawn_blocking(move || {
            // An entry that came by the queue and by the folder was moved the first time.
            let (here, gone): (Vec<_>, Vec<_>) =
                files.into_iter().partition(|(_, path)| path.exists());
            let here = match durability {
                Durability::Durable => here,
                Durability::Received => synced(&spool, here),
            };
            let mut answers = store.put(&here);
            for ((object, _), answer) in here.iter().zip(&mut answers) {
                if matches!(answer, Err(ObjectError::Differs(_)))
                    && same_data_set(&spool, &*store, *object)
                {
                    *answer = Ok(());
                }
            }
            let gone = gone.into_iter().map(|(object, _)| (object, store.open(object).map(drop)));
            here.into_iter().map(|(object, _)| object).zip(answers).chain(gone).collect::<Vec<_>>()
        });
        put.await.ok()
    }

    /// Notes what is stored, and lets go of it or keeps it for a while.
    async fn noted(&self, objects: &[ObjectId]) -> bool {
        if let Err(error) = self.index.mark_stored(objects).await {
            tracing::error!(error = %chain(&error), "index cannot note what is stored");
            tokio::time::sleep(FLOOR).await;
            return false;
        }
        if self.objects.is_near() {
            self.remove(objects.to_vec()).await;
        } else {
            self.backlog.keep_for_a_while(objects);
        }
        true
    }

    /// Removes spool entries that repeat what is kept, once what their arrival ordered is on the disk.
    async fn forget(&self) {
        let repeats = self.backlog.take_repeats();
        if repeats.is_empty() {
            return;
        }
        if let Err(error) = self.index.mark_stored(&[]).await {
            tracing::error!(error = %chain(&error), "index cannot be synced");
            self.backlog.add(&[], &repeats);
            tokio::time::sleep(FLOOR).await;
            return;
        }
        self.remove(repeats).await;
        self.backlog.done(&[]);
    }

    /// Lets go of what the spool has kept for long enough; of all of it when its room runs short.
    async fn release(&self) {
        let short = self.spool.measure().is_ok_and(|room| room.bytes < room.held);
        let objects = self.backlog.no_longer_kept(short);
        if !objects.is_empty() {
            self.remove(objects).await;
        }
    }

    async fn remove(&self, objects: Vec<ObjectId>) {
        let spool = self.spool.clone();
        let removed = tokio::task::spawn_blocking(move || {
            objects.into_iter().try_for_each(|object| spool.remove(object))
        });
        if let Ok(Err(error)) = removed.await {
            tracing::error!(error = %chain(&error), "spool entry cannot be removed");
        }
    }
}

impl Trouble {
    fn may_try(&self) -> bool {
        self.until.is_none_or(|until| until <= Instant::now())
    }

    fn left(&self) -> Duration {
        self.until.map_or(LOOK, |until| until.saturating_duration_since(Instant::now()))
    }
}

/// How long to wait after so many failures in a row: between half of the longest and all of it, so that the nodes of a
/// region do not come back all at once.
fn wait(failures: u32) -> Duration {
    let longest = FLOOR.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(CEILING);
    let mut random = [0; 4];
    // Without random bytes all wait longest, which is safe.
    let share = SystemRandom::new()
        .fill(&mut random)
        .map_or(1.0, |()| f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX));
    longest.mul_f64(0.5 + 0.5 * share)
}

fn at_once(_: u32) -> Duration {
    Duration::ZERO
}

/// Whether the object that is there holds the same data set under another key: it was stored before a crash, and moved to a
/// new key since. Read to its end, as the copy in the spool will go.
fn same_data_set(spool: &Spool, store: &dyn ObjectStore, object: ObjectId) -> bool {
    let (Ok(ours), Ok(theirs)) = (spool.read(object), object::read(store, object, spool.keyring()))
    else {
        return false;
    };
    ours.facts() == theirs.facts() && theirs.copy_to(|_| Ok::<_, SealedError>(())).is_ok()
}

/// Syncs files that were answered before they were synced, and returns those that are safe. One that cannot be synced is
/// set aside: a second sync could succeed without its pages, so it must not be tried.
fn synced(spool: &Spool, files: Vec<(ObjectId, PathBuf)>) -> Vec<(ObjectId, PathBuf)> {
    let is_safe = |(object, path): &(ObjectId, PathBuf)| {
        let sync = File::open(path).and_then(|file| file.sync_data());
        if let Err(error) = &sync {
            let aside = spool.set_aside(*object);
            tracing::error!(%object, %error, aside = ?aside.ok(), "spool entry cannot be synced; it is set aside");
        }
        sync.is_ok()
    };
    files.into_iter().filter(is_safe).collect()
}
