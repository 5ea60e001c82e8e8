//! The drain: what the spool holds becomes rows and deliveries, then objects.
//!
//! Rows come first, in one transaction a batch, because a partner waits for the deliveries in them. Objects follow in a
//! task of their own (`storing`), because nobody waits for those and a store may be slow or down. Each step may be
//! repeated, so a crash between any two is repaired by doing it again.
//!
//! What arrives comes through a bounded queue. If that is full, or the index is down, nothing is lost: the entries are in
//! the spool, and the drain lists the folder as soon as it is through with the queue.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use gantry_store::delivered::{Delivered, Proof};
use gantry_store::dicom::StudyInstanceUid;
use gantry_store::facts::{Facts, ObjectId, Priority};
use gantry_store::index::{Arrival, Index, IndexError, Recorded, RecordedAs, TransferId};
use gantry_store::object::ObjectStore;
use gantry_store::sealed::sealed_length;
use gantry_store::spool::{Durability, Spool};
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::backlog::Backlog;
use super::fetching::Fetching;
use super::protecting;
use super::storing::Storing;
use crate::config::Route;
use crate::protect::{ProtectError, Protection};
use crate::reindex;
use crate::route;

/// How many arrivals may wait. Beyond it the folder is the queue.
const QUEUE: usize = 4096;
/// How many become rows in one transaction.
const BATCH: usize = 256;
/// How long a batch waits for company; what an emergency's first image waits at most.
const GATHER: Duration = Duration::from_millis(4);
/// How long to leave an index alone after it failed.
const PAUSE: Duration = Duration::from_secs(1);
/// How often the folder is listed although nothing says so.
const LOOK: Duration = Duration::from_mins(1);

/// What goes from the receiving side to the drain.
#[derive(Debug)]
pub enum Arrived {
    /// An instance is in the spool.
    Instance(Box<Facts>),
    /// A sender brings no more of these studies on its association.
    Ended(Vec<StudyInstanceUid>),
}

/// The receiving side's end of the queue.
#[derive(Clone, Debug)]
pub struct Handoff {
    queue: mpsc::Sender<Arrived>,
    behind: Arc<AtomicBool>,
    open: OpenStudies,
    backlog: Backlog,
    fetching: Fetching,
}

impl Handoff {
    /// Makes a queue.
    pub fn new() -> (Self, mpsc::Receiver<Arrived>) {
        let (queue, arrivals) = mpsc::channel(QUEUE);
        let handoff = Self {
            queue,
            behind: Arc::default(),
            open: OpenStudies::default(),
            backlog: Backlog::default(),
            fetching: Fetching::default(),
        };
        (handoff, arrivals)
    }

    /// Tells that an instance is in the spool. Never waits.
    pub fn arrived(&self, facts: &Facts) {
        if self.queue.try_send(Arrived::Instance(Box::new(facts.clone()))).is_err() {
            self.behind.store(true, Ordering::Release);
        }
    }

    /// Tells that an association which brought these studies has ended. Blocks while the queue is full.
    pub fn ended(&self, studies: Vec<StudyInstanceUid>) {
        if !studies.is_empty() && self.queue.blocking_send(Arrived::Ended(studies)).is_err() {
            tracing::debug!("drain has stopped before the last association");
        }
    }

    /// What waits to be stored.
    pub fn backlog(&self) -> &Backlog {
        &self.backlog
    }

    /// What this node has asked sources to send to itself.
    pub fn fetching(&self) -> &Fetching {
        &self.fetching
    }

    /// The studies that are being received.
    pub fn open_studies(&self) -> &OpenStudies {
        &self.open
    }
}

/// Which studies an association is bringing right now.
#[derive(Clone, Debug, Default)]
pub struct OpenStudies(Arc<Mutex<HashMap<StudyInstanceUid, usize>>>);

impl OpenStudies {
    fn counts(&self) -> std::sync::MutexGuard<'_, HashMap<StudyInstanceUid, usize>> {
        // Every change is one call on the map, so a panic elsewhere leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more association brings this study.
    pub fn enter(&self, study: &StudyInstanceUid) {
        *self.counts().entry(study.clone()).or_default() += 1;
    }

    /// One association less brings it. True if it was the last.
    fn leave(&self, study: &StudyInstanceUid) -> bool {
        let mut counts = self.counts();
        match counts.get_mut(study) {
            Some(count) if *count > 1 => {
                *count -= 1;
                false
            }
            _ => counts.remove(study).is_some(),
        }
    }

    /// Whether any association brings this study.
    pub fn contains(&self, study: &StudyInstanceUid) -> bool {
        self.counts().contains_key(study)
    }
}

/// Whoever must know that rows have changed.
pub trait Wake: Send + Sync {
    /// A partner has something new to be sent, of this priority.
    fn work_for(&self, partner: &str, priority: Priority);
    /// A person wants a partner to be tried now, however it went before.
    fn try_now(&self, partner: &str);
    /// Something that people watch has changed.
    fn changed(&self);
}

/// The drain of a node.
pub struct Drain {
    /// Where instances come from.
    pub spool: Arc<Spool>,
    /// Where rows go.
    pub index: Index,
    /// Where objects go.
    pub objects: Arc<dyn ObjectStore>,
    /// What partners have already, whatever the index says.
    pub delivered: Arc<Delivered>,
    /// Whether what is in the spool is on the disk already.
    pub durability: Durability,
    /// What decides on deliveries.
    pub routes: Arc<[Route]>,
    /// How copies are made where only those may be kept.
    pub protections: BTreeMap<String, Arc<Protection>>,
    /// The queue, also to see whether it overflowed.
    pub handoff: Handoff,
    /// Who is told.
    pub wake: Arc<dyn Wake>,
}

impl std::fmt::Debug for Drain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Drain").finish_non_exhaustive()
    }
}

/// What the drain remembers between batches. All of it is repeated in spool and index.
#[derive(Default)]
struct Memory {
    /// Transfers of studies that are being received, for the timeline.
    receiving: HashMap<StudyInstanceUid, HashSet<TransferId>>,
    /// Transfers of which nothing is being received any more, and the timeline does not say so yet.
    received: HashSet<TransferId>,
    /// Studies that are to be counted against their source, as nobody brings them any more.
    to_count: HashSet<StudyInstanceUid>,
    /// Whether what a crash cut off is among these, or was.
    knows_what_was_cut_off: bool,
}

/// What becomes of a spool entry that has rows.
enum Next {
    /// It becomes an object.
    Store,
    /// It repeats what is kept.
    Forget,
}

impl Drain {
    /// Works until stopped; then what has arrived becomes rows, and what has rows becomes objects, as far as that
    /// succeeds at the first try.
    pub async fn run(self, mut arrivals: mpsc::Receiver<Arrived>, stop: CancellationToken) {
        let recorded = CancellationToken::new();
        let storing = Storing {
            spool: self.spool.clone(),
            index: self.index.clone(),
            objects: self.objects.clone(),
            durability: self.durability,
            backlog: self.handoff.backlog.clone(),
        };
        let storing = tokio::spawn(storing.run(recorded.clone()));
        let mut memory = Memory::default();
        self.catch_up(&mut memory).await;
        let mut next_look = Instant::now() + LOOK;
        loop {
            // An index that was down is asked again soon: what waits for it may be an emergency.
            if self.handoff.behind.load(Ordering::Acquire) {
                next_look = next_look.min(Instant::now() + PAUSE);
            }
            let first = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                first = arrivals.recv() => first,
                () = sleep_until(next_look.min(Instant::now() + PAUSE)) => {
                    if Instant::now() >= next_look || self.handoff.behind.swap(false, Ordering::AcqRel) {
                        next_look = Instant::now() + LOOK;
                        self.catch_up(&mut memory).await;
                    }
                    continue;
                }
            };
            let Some(first) = first else { break };
            self.take(first, &mut arrivals, &mut memory).await;
            if arrivals.is_empty() && self.handoff.behind.swap(false, Ordering::AcqRel) {
                self.catch_up(&mut memory).await;
            }
        }
        arrivals.close();
        while let Some(arrived) = arrivals.recv().await {
            self.take(arrived, &mut arrivals, &mut memory).await;
        }
        recorded.cancel();
        if storing.await.is_err() {
            tracing::error!(
                "storing has ended before its time; what waits is found at the next start"
            );
        }
    }

    /// Gathers what comes within a moment, and records it.
    async fn take(
        &self,
        first: Arrived,
        arrivals: &mut mpsc::Receiver<Arrived>,
        memory: &mut Memory,
    ) {
        let (mut batch, mut ended) = (Vec::new(), Vec::new());
        let sort =
            |arrived, batch: &mut Vec<Facts>, ended: &mut Vec<StudyInstanceUid>| match arrived {
                Arrived::Instance(facts) => batch.push(*facts),
                Arrived::Ended(studies) => ended.extend(studies),
            };
        sort(first, &mut batch, &mut ended);
        let deadline = Instant::now() + GATHER;
        while batch.len() < BATCH {
            let left = deadline.saturating_duration_since(Instant::now());
            match timeout(left, arrivals.recv()).await {
                Ok(Some(arrived)) => sort(arrived, &mut batch, &mut ended),
                Ok(None) | Err(_) => break,
            }
        }
        self.record(batch, &[], memory).await;
        self.end(ended, memory).await;
    }

    /// Finds what is in the spool without having come through the queue: after a crash, an overflow, or an index that was
    /// down.
    async fn catch_up(&self, memory: &mut Memory) {
        // Before the folder is listed, which may be long: is there anybody to tell?
        if let Err(error) = self.find_what_a_crash_cut_off(memory).await {
            self.failed(&error, "index cannot be read; instances wait in the spool");
            return;
        }
        let spool = self.spool.clone();
        let entries = match tokio::task::spawn_blocking(move || spool.entries()).await {
            Ok(Ok(entries)) => entries,
            Ok(Err(error)) => {
                tracing::error!(error = %crate::telemetry::chain(&error), "spool cannot be listed");
                return;
            }
            Err(_) => return,
        };
        let in_hand = self.handoff.backlog.in_hand();
        let entries: Vec<_> =
            entries.into_iter().filter(|object| !in_hand.contains(object)).collect();
        let Ok(to_store) = self.to_store(&entries).await else { return };
        for page in entries.chunks(BATCH) {
            let known = match self.index.knows(page).await {
                Ok(known) => known,
                Err(error) => {
                    self.failed(&error, "index cannot be asked for spool entries");
                    return;
                }
            };
            let (rows, new): (Vec<_>, Vec<_>) =
                page.iter().copied().partition(|object| known.contains(object));
            let (rows, stored): (Vec<_>, Vec<_>) = rows.into_iter().partition(|object| {
                to_store.as_ref().is_none_or(|to_store| to_store.contains(object))
            });
            self.handoff.backlog.keep_for_a_while(&stored);
            let spool = self.spool.clone();
            let waiting = tokio::task::spawn_blocking(move || {
                let length =
                    |object| std::fs::metadata(spool.path(object)).map_or(0, |file| file.len());
                rows.into_iter().map(|object| (object, length(object))).collect::<Vec<_>>()
            });
            let Ok(waiting) = waiting.await else { return };
            self.handoff.backlog.add(&waiting, &[]);
            let spool = self.spool.clone();
            let read = tokio::task::spawn_blocking(move || {
                new.into_iter()
                    .filter_map(|object| read_or_set_aside(&spool, object))
                    .collect::<Vec<_>>()
            });
            let Ok(batch) = read.await else { return };
            // They may have been delivered before the index forgot them.
            let proofs = reindex::proofs_of(&self.delivered, &batch).await;
            self.record(batch, &proofs, memory).await;
        }
        self.note_received(memory).await;
    }

    /// Which entries the object store has not confirmed; `None` where storing all once more costs less than asking.
    async fn to_store(
        &self,
        entries: &[ObjectId],
    ) -> Result<Option<HashSet<ObjectId>>, IndexError> {
        if entries.is_empty() || self.objects.is_near() {
            return Ok(None);
        }
        match self.index.unstored(u32::MAX).await {
            Ok(unstored) => Ok(Some(unstored.into_iter().collect())),
            Err(error) => {
                self.failed(&error, "index cannot be asked for what is not stored");
                Err(error)
            }
        }
    }

    /// Puts protected copies in the place of what may not be kept as it was received, as many at once as there are
    /// processors: each holds an instance and its copy in memory.
    async fn protected(&self, originals: Vec<(Facts, BTreeSet<String>)>) -> Vec<Facts> {
        let at_once = std::thread::available_parallelism().map_or(1, usize::from);
        let copies = originals.into_iter().map(|(facts, names)| async move {
            let (spool, object) = (self.spool.clone(), facts.object);
            let protections: Option<Vec<_>> =
                names.iter().map(|name| self.protections.get(name).cloned()).collect();
            let made = tokio::task::spawn_blocking(move || match protections {
                Some(protections) => protecting::replace(&spool, object, &protections),
                None => Err(ProtectError::Unknown(String::new()).into()),
            });
            (object, made.await)
        });
        let mut made = futures_util::stream::iter(copies).buffered(at_once);
        let mut kept = Vec::new();
        while let Some((object, copies)) = made.next().await {
            match copies {
                Ok(Ok(copies)) => kept.extend(copies),
                Ok(Err(error)) if error.is_passing() => {
                    self.handoff.behind.store(true, Ordering::Release);
                    tracing::error!(%object, error = %crate::telemetry::chain(&error), "instance is not protected yet; it waits in the spool");
                }
                Ok(Err(error)) => {
                    tracing::error!(%object, error = %crate::telemetry::chain(&error), "instance cannot be protected at intake; it is held back in the spool, and tried again at the next start");
                }
                Err(_) => tracing::error!(%object, "protection at intake broke off"),
            }
        }
        kept
    }

    /// Records a batch; what is to be protected first comes last, so that nothing else waits for it.
    async fn record(&self, batch: Vec<Facts>, proofs: &[Proof], memory: &mut Memory) {
        let (mut plain, mut originals) = (Vec::with_capacity(batch.len()), Vec::new());
        for facts in batch {
            let protections = route::at_intake(&self.routes, &facts);
            if protections.is_empty() {
                plain.push(facts);
            } else {
                originals.push((facts, protections));
            }
        }
        self.record_all(plain, proofs, memory).await;
        if !originals.is_empty() {
            let copies = self.protected(originals).await;
            self.record_all(copies, proofs, memory).await;
        }
    }

    async fn record_all(&self, batch: Vec<Facts>, proofs: &[Proof], memory: &mut Memory) {
        if batch.is_empty() {
            return;
        }
        let arrivals: Vec<_> = batch
            .into_iter()
            .map(|facts| Arrival { routed: route::destinations(&self.routes, &facts), facts })
            .collect();
        let recorded = match proofs {
            [] => self.index.record(&arrivals).await,
            proofs => self.index.record_again(&arrivals, proofs, Timestamp::now()).await,
        };
        let recorded = match recorded {
            Ok(recorded) => recorded,
            Err(error) => {
                self.failed(&error, "index takes no rows; instances wait in the spool");
                tokio::time::sleep(PAUSE).await;
                return;
            }
        };
        let (mut waiting, mut repeats) = (Vec::new(), Vec::new());
        for (arrival, recorded) in arrivals.iter().zip(&recorded) {
            let facts = &arrival.facts;
            match self.note(arrival, recorded, memory) {
                Next::Store => waiting.push((facts.object, sealed_length(facts.length))),
                Next::Forget => repeats.push(facts.object),
            }
        }
        let backlog = &self.handoff.backlog;
        backlog.arrived(arrivals.iter().map(|arrival| sealed_length(arrival.facts.length)).sum());
        backlog.add(&waiting, &repeats);
        self.wake.changed();
    }

    fn note(&self, arrival: &Arrival, recorded: &Recorded, memory: &mut Memory) -> Next {
        let facts = &arrival.facts;
        let next = match &recorded.outcome {
            RecordedAs::New | RecordedAs::Known | RecordedAs::Returned => Next::Store,
            // A crash, or another node's decision, left the file of what is to be gone.
            RecordedAs::Repeat { .. } | RecordedAs::Removed => Next::Forget,
            RecordedAs::SecondVersion { version } => {
                tracing::warn!(instance = %facts.sop_instance, version, sender = facts.origin.sender, "instance came again with other content; both are kept");
                Next::Store
            }
            RecordedAs::Quarantined => {
                tracing::warn!(instance = %facts.sop_instance, sender = facts.origin.sender, "instance contradicts one of another sender; it is kept and goes nowhere");
                Next::Store
            }
        };
        if self.handoff.open.contains(&facts.study) {
            memory.receiving.entry(facts.study.clone()).or_default().extend(&recorded.transfers);
        } else if !recorded.ordered.is_empty() {
            // Its association ended while the index was down.
            memory.received.extend(&recorded.transfers);
        }
        for (partner, priority) in &recorded.ordered {
            self.wake.work_for(partner, *priority);
        }
        next
    }

    async fn end(&self, studies: Vec<StudyInstanceUid>, memory: &mut Memory) {
        for study in studies {
            if !self.handoff.open.leave(&study) {
                continue;
            }
            memory.received.extend(memory.receiving.remove(&study).into_iter().flatten());
            memory.to_count.insert(study);
        }
        self.note_received(memory).await;
    }

    /// Tells the timeline what has been received, and has it counted; what cannot be told now is told later.
    async fn note_received(&self, memory: &mut Memory) {
        if memory.received.is_empty() && memory.to_count.is_empty() {
            return;
        }
        let now = Timestamp::now();
        let transfers: Vec<_> = memory.received.iter().copied().collect();
        match self.index.note_received_all(&transfers, now).await {
            Ok(()) => memory.received.clear(),
            Err(error) => self.failed(&error, "timeline cannot be written"),
        }
        let studies: Vec<_> = memory.to_count.iter().cloned().collect();
        match self.index.count_now(&studies, now).await {
            Ok(()) => memory.to_count.clear(),
            Err(error) => self.failed(&error, "counts cannot be ordered"),
        }
        self.wake.changed();
    }

    /// No association survives its process, so what was being received before the start is not any more.
    async fn find_what_a_crash_cut_off(&self, memory: &mut Memory) -> Result<(), IndexError> {
        let unfinished = self.index.still_receiving().await?;
        if !memory.knows_what_was_cut_off {
            let receiving: HashSet<_> = memory.receiving.values().flatten().copied().collect();
            memory.received.extend(unfinished.into_iter().filter(|id| !receiving.contains(id)));
            memory.knows_what_was_cut_off = true;
        }
        Ok(())
    }

    fn failed(&self, error: &IndexError, what: &str) {
        self.handoff.behind.store(true, Ordering::Release);
        tracing::error!(error = %crate::telemetry::chain(error), "{what}");
    }
}

fn read_or_set_aside(spool: &Spool, object: ObjectId) -> Option<Facts> {
    match spool.read(object) {
        Ok(entry) => Some(entry.facts().clone()),
        Err(gantry_store::sealed::SealedError::Io(error))
            if error.kind() == io::ErrorKind::NotFound =>
        {
            None
        }
        Err(error) => {
            let aside = spool.set_aside(object);
            tracing::error!(%object, error = %crate::telemetry::chain(&error), aside = ?aside.ok(), "spool entry cannot be opened; it is set aside");
            None
        }
    }
}
