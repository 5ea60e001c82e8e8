//! The walk: objects and rows side by side in the order of object ids.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gantry_store::dicom::StudyInstanceUid;
use gantry_store::facts::{Digest, Facts, ObjectId};
use gantry_store::index::{Arrival, IndexError, InstanceRow, RecordedAs};
use gantry_store::object::{self, ObjectError, ReadError};
use gantry_store::sealed::{ReadAt, SealedError, SealedReader, sealed_length};
use jiff::Timestamp;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use super::round::{Finding, Kind, Progress};
use crate::config::Route;
use crate::intake::drain::Wake;
use crate::reindex::{self, ReindexError};
use crate::route;
use crate::run::Store;
use crate::telemetry::chain;
use crate::telemetry::metrics::{ByFinding, Metrics};

/// How many objects and rows are compared at a time.
pub(super) const PAGE: u32 = 64;
/// How often in a row one object may fail as if the store were down, before it is the object's own fault. Some servers
/// answer so where only one object has lost its shards.
const TRIES: u32 = 3;
/// How long a reader sleeps at a time, and so how soon it stops.
const SLICE: Duration = Duration::from_millis(50);

/// Why a walk ended before its round did. What was found until then is kept.
#[derive(Debug, Error)]
pub enum ScrubError {
    /// The object store is in trouble.
    #[error("cannot use the object store")]
    Objects(#[from] ObjectError),
    /// An object cannot be read, and the store may be to blame.
    #[error("cannot read object {0}: {1}")]
    Read(ObjectId, String),
    /// Rows say that there are objects, and the store has none at all.
    #[error("the object store is empty, and the index says that it is not")]
    Empty,
    /// The index does not answer, or is an older copy.
    #[error("cannot use the index")]
    Index(#[from] IndexError),
    /// What was to be removed long ago cannot be.
    #[error("cannot finish a removal")]
    Removing(#[from] ReindexError),
    /// How far it came cannot be kept.
    #[error("cannot write how far it came")]
    State(#[source] io::Error),
    /// It was told to stop.
    #[error("stopped")]
    Stopped,
}

/// How an object looks.
enum Seen {
    Whole(Box<Facts>),
    Missing,
    Damaged(String),
    WithoutKey(String),
    /// It could not be read. `all`: as if no other could.
    Unread {
        why: String,
        all: bool,
    },
}

/// Why reading ended.
enum Ended {
    Sealed(SealedError),
    Stopped,
}

impl From<SealedError> for Ended {
    fn from(error: SealedError) -> Self {
        Self::Sealed(error)
    }
}

/// What became of an object or a row that was met.
enum Met {
    /// It is not for this round, or well in a way that needs no reading.
    Nothing,
    /// So many bytes are what their row says.
    Whole(u64),
    /// Nothing needs it, and it is gone.
    Removed,
    Found(Finding),
}

/// How fast may be read, over all objects of all rounds.
#[derive(Debug)]
pub struct Pace {
    rate: Option<u64>,
    /// When all that was asked for may have been read.
    due: Mutex<Instant>,
}

impl Pace {
    /// So many bytes a second at most; `None` for as fast as it goes.
    pub fn new(rate: Option<u64>) -> Self {
        Self { rate, due: Mutex::new(Instant::now()) }
    }

    /// Sleeps until so many more bytes may be read; `false` if it is told to stop. Blocks.
    fn wait(&self, bytes: u64, stop: &CancellationToken) -> bool {
        let Some(rate) = self.rate else { return !stop.is_cancelled() };
        let due = {
            let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
            // Time that passed without reading is not made up for.
            *due = (*due).max(Instant::now())
                + Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
            *due
        };
        loop {
            if stop.is_cancelled() {
                return false;
            }
            match due.saturating_duration_since(Instant::now()) {
                Duration::ZERO => return true,
                left => std::thread::sleep(left.min(SLICE)),
            }
        }
    }
}

/// What a walk works with.
#[derive(Clone)]
pub struct Scrub {
    /// What is compared.
    pub store: Store,
    /// Where what has no row goes, as if it had just arrived.
    pub routes: Vec<Route>,
    /// Who is told of it.
    pub wake: Arc<dyn Wake>,
    /// How fast it may read.
    pub pace: Arc<Pace>,
    /// What is younger is left to the next round.
    pub settling: Duration,
    /// How far it came.
    pub progress: Arc<Progress>,
    /// What it counts.
    pub metrics: Arc<Metrics>,
    /// Ends the walk within a segment.
    pub stop: CancellationToken,
}

impl fmt::Debug for Scrub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scrub").field("progress", &self.progress).finish_non_exhaustive()
    }
}

impl Scrub {
    /// Goes on with the round that is begun, or begins one, and walks to its end. Blocks nobody who uses the store.
    pub async fn run(&self) -> Result<(), ScrubError> {
        let ended = tokio::select! {
            ended = self.walk() => ended,
            () = self.stop.cancelled() => Err(ScrubError::Stopped),
        };
        let saved = self.save().await;
        ended.and(saved)
    }

    async fn walk(&self) -> Result<(), ScrubError> {
        self.progress.begin();
        loop {
            self.save().await?;
            if self.store.index.has_gone_back().await? {
                // Rows are missing by the thousand, and are being brought back.
                return Err(IndexError::WentBack.into());
            }
            if self.page().await? {
                self.progress.end();
                return Ok(());
            }
        }
    }

    async fn save(&self) -> Result<(), ScrubError> {
        self.show();
        let progress = self.progress.clone();
        blocking(move || progress.save()).await?.map_err(ScrubError::State)
    }

    /// Brings the figures up to date: those of the last round count until the next.
    pub(super) fn show(&self) {
        let figure = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let (unresolved, ended_at) = self.progress.look(|state| {
            (state.unresolved(), state.last.as_ref().and_then(|round| round.ended_at))
        });
        for kind in Kind::ALL {
            let count = unresolved.get(&kind).copied().unwrap_or_default();
            let label = ByFinding { kind: kind.as_str() };
            self.metrics.scrub_unresolved.get_or_create(&label).set(figure(count));
        }
        if let Some(ended_at) = ended_at {
            self.metrics.scrub_ended.set(ended_at.as_second());
        }
    }

    /// Compares one page; `true` if it was the last.
    async fn page(&self) -> Result<bool, ScrubError> {
        let after = self.progress.round(|round| round.cursor);
        let objects = self.store.objects.clone();
        let listed = blocking(move || objects.list(after, PAGE as usize)).await??;
        let rows = self.store.index.instances_after(after, PAGE).await?;
        // As far as both lists are known to be complete.
        let full = [
            listed.last().filter(|_| listed.len() >= PAGE as usize).copied(),
            rows.last().filter(|_| rows.len() >= PAGE as usize).map(|row| row.object),
        ];
        let horizon = full.into_iter().flatten().min();
        let mut met: BTreeMap<ObjectId, Option<InstanceRow>> = BTreeMap::new();
        met.extend(listed.into_iter().map(|object| (object, None)));
        met.extend(rows.into_iter().map(|row| (row.object, Some(row))));

        for (object, row) in met {
            if horizon.is_some_and(|horizon| object > horizon) || self.is_young(object) {
                continue;
            }
            let met = match row {
                Some(row) => self.with_row(&row).await,
                None => self.without_row(object).await,
            };
            if let Err(ScrubError::Read(object, _)) = &met {
                self.progress.round(|round| round.could_not_read(*object));
            }
            self.note(object, met?).await?;
        }
        if horizon.is_some() {
            self.progress.round(|round| round.cursor = horizon);
        }
        Ok(horizon.is_none())
    }

    async fn note(&self, object: ObjectId, met: Met) -> Result<(), ScrubError> {
        let finding = self.progress.round(|round| {
            round.cursor = Some(object);
            match met {
                Met::Nothing => {}
                Met::Removed => round.removed += 1,
                Met::Whole(bytes) => {
                    round.verified += 1;
                    round.bytes += bytes;
                    self.metrics.scrubbed.inc();
                    self.metrics.scrubbed_bytes.inc_by(bytes);
                }
                Met::Found(finding) => {
                    round.found(finding.clone());
                    return Some(finding);
                }
            }
            None
        });
        let Some(Finding { object, kind, why, mended, .. }) = finding else { return Ok(()) };
        if mended {
            tracing::warn!(%object, ?kind, why, "the scrub mended something");
        } else {
            tracing::error!(%object, ?kind, why, "the scrub found what a person must see to");
        }
        self.save().await
    }

    fn is_young(&self, object: ObjectId) -> bool {
        let now = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0);
        u128::from(now.saturating_sub(object.timestamp_ms())) < self.settling.as_millis()
    }

    async fn with_row(&self, row: &InstanceRow) -> Result<Met, ScrubError> {
        let (object, index) = (row.object, &self.store.index);
        if !row.stored && self.store.spool.path(object).exists() {
            // It waits for the object store.
            return Ok(Met::Nothing);
        }
        let seen = self.look_twice(object).await?;
        if let Seen::Whole(facts) = &seen
            && (facts.digest, facts.length) == (row.digest, row.length)
        {
            if !row.stored || row.lost_at.is_some() {
                index.mark_stored(&[object]).await?;
            }
            return Ok(Met::Whole(row.length));
        }
        if index.knows(&[object]).await?.is_empty() {
            // Its images were removed meanwhile, or came again as another object.
            return Ok(Met::Nothing);
        }
        let (kind, why) = match seen {
            Seen::Whole(_) => {
                (Kind::Contradicts, "its content is not what its row says".to_owned())
            }
            Seen::WithoutKey(why) => (Kind::WithoutKey, why),
            Seen::Damaged(why) | Seen::Unread { why, .. } => (Kind::Damaged, why),
            Seen::Missing => (Kind::Missing, "it is not in the object store".to_owned()),
        };
        let mended = match kind {
            Kind::Damaged => self.restore(object, row.digest, true).await?,
            Kind::Missing => self.restore(object, row.digest, false).await?,
            Kind::WithoutRow | Kind::Contradicts | Kind::WithoutKey => false,
        };
        if mended {
            index.mark_stored(&[object]).await?;
        } else if kind == Kind::Missing && self.lists_nothing().await? {
            return Err(ScrubError::Empty);
        } else if matches!(kind, Kind::Missing | Kind::Damaged) {
            // So that the same bytes, sent again, are kept and not taken for a repeat of what is not there.
            index.mark_lost(&[object], Timestamp::now()).await?;
        }
        let study = Some(row.study_instance_uid.to_string());
        Ok(Met::Found(Finding { object, study, kind, why, mended }))
    }

    async fn without_row(&self, object: ObjectId) -> Result<Met, ScrubError> {
        let index = &self.store.index;
        if index.removal_of(object).await?.is_some() {
            reindex::finish_removing(&self.store, vec![object]).await?;
            return Ok(Met::Removed);
        }
        if self.store.spool.path(object).exists() {
            // It becomes a row by itself.
            return Ok(Met::Nothing);
        }
        let seen = self.look_twice(object).await?;
        if !index.knows(&[object]).await?.is_empty() {
            return Ok(Met::Nothing);
        }
        let (kind, why) = match seen {
            // It was removed meanwhile.
            Seen::Missing => return Ok(Met::Nothing),
            Seen::Whole(facts) => return self.record(*facts).await,
            Seen::WithoutKey(why) => (Kind::WithoutKey, why),
            Seen::Damaged(why) | Seen::Unread { why, .. } => (Kind::Damaged, why),
        };
        let why = format!("{why}; no row names it");
        Ok(Met::Found(Finding { object, study: None, kind, why, mended: false }))
    }

    /// Records what was not on record, as `reindex` does.
    async fn record(&self, facts: Facts) -> Result<Met, ScrubError> {
        let (object, digest, study) = (facts.object, facts.digest, facts.study.clone());
        let proofs = reindex::proofs_of(&self.store.delivered, std::slice::from_ref(&facts)).await;
        let routed = route::destinations(&self.routes, &facts);
        let (arrival, now) = ([Arrival { facts, routed }], Timestamp::now());
        let recorded = self.store.index.record_again(&arrival, &proofs, now).await?;
        let Some(recorded) = recorded.into_iter().next() else { return Ok(Met::Nothing) };
        recorded.ordered.iter().for_each(|(to, priority)| self.wake.work_for(to, *priority));
        match recorded.outcome {
            RecordedAs::Known => Ok(Met::Nothing),
            RecordedAs::Repeat { of } => self.repeat(object, of, digest).await,
            RecordedAs::Removed => {
                reindex::finish_removing(&self.store, vec![object]).await?;
                Ok(Met::Removed)
            }
            RecordedAs::New
            | RecordedAs::Returned
            | RecordedAs::SecondVersion { .. }
            | RecordedAs::Quarantined => {
                self.store.index.mark_stored(&[object]).await?;
                self.wake.changed();
                Ok(Met::Found(recorded_anew(object, &study)))
            }
        }
    }

    /// The same bytes have a row under another object. If that one is whole, this one is not needed.
    async fn repeat(
        &self,
        object: ObjectId,
        of: ObjectId,
        digest: Digest,
    ) -> Result<Met, ScrubError> {
        let whole = matches!(self.look(of).await?, Seen::Whole(facts) if facts.digest == digest);
        if !whole || self.store.index.knows(&[of]).await?.is_empty() {
            return Ok(Met::Nothing);
        }
        let objects = self.store.objects.clone();
        blocking(move || objects.delete(object)).await??;
        tracing::info!(%object, %of, "an object that repeated another one, which is whole, was deleted");
        Ok(Met::Removed)
    }

    /// What is wrong must be so twice: it may have been moved or put in between. What cannot be read is the object's fault
    /// only if the store otherwise works.
    async fn look_twice(&self, object: ObjectId) -> Result<Seen, ScrubError> {
        let first = self.look(object).await?;
        if matches!(first, Seen::Whole(_)) {
            return Ok(first);
        }
        let seen = self.look(object).await?;
        if let Seen::Unread { why, all } = &seen {
            let known = !all || self.progress.round(|round| round.tries(object)) >= TRIES;
            if !known || !self.store_works().await? {
                return Err(ScrubError::Read(object, why.clone()));
            }
        }
        Ok(seen)
    }

    async fn look(&self, object: ObjectId) -> Result<Seen, ScrubError> {
        let this = self.clone();
        blocking(move || {
            let keyring = this.store.spool.keyring();
            let ended = match object::read(&*this.store.objects, object, keyring) {
                Ok(reader) => match this.whole(&reader) {
                    Ok(()) => return Ok(Seen::Whole(Box::new(reader.facts().clone()))),
                    Err(ended) => ended,
                },
                Err(ReadError::Store(ObjectError::Missing(_))) => return Ok(Seen::Missing),
                Err(ReadError::Store(error)) => return Ok(unread(&error, concerns_all(&error))),
                Err(ReadError::Sealed(error)) => error.into(),
            };
            match ended {
                Ended::Stopped => Err(ScrubError::Stopped),
                Ended::Sealed(SealedError::Io(error)) => Ok(of_reading(&error)),
                Ended::Sealed(error @ SealedError::MissingKey(_)) => {
                    Ok(Seen::WithoutKey(chain(&error).to_string()))
                }
                Ended::Sealed(error) => Ok(Seen::Damaged(chain(&error).to_string())),
            }
        })
        .await?
    }

    /// Reads all of it, no faster than it may.
    fn whole(&self, reader: &SealedReader<Box<dyn ReadAt>>) -> Result<(), Ended> {
        let wait = |bytes| self.pace.wait(bytes, &self.stop).then_some(()).ok_or(Ended::Stopped);
        // The header has been read.
        wait(sealed_length(0))?;
        reader.copy_to(|plain| wait(plain.len() as u64))
    }

    /// Puts the spool's copy where the object belongs, if there is one and it is whole; says whether the object is now.
    async fn restore(
        &self,
        object: ObjectId,
        digest: Digest,
        replace: bool,
    ) -> Result<bool, ScrubError> {
        let this = self.clone();
        let put = blocking(move || {
            let Ok(copy) = this.store.spool.read(object) else { return Ok(false) };
            match this.whole(&copy) {
                Ok(()) if copy.facts().digest == digest => {}
                Ok(()) | Err(Ended::Sealed(_)) => return Ok(false),
                Err(Ended::Stopped) => return Err(ScrubError::Stopped),
            }
            let file = this.store.spool.path(object);
            let put = if replace {
                this.store.objects.replace(object, &file)
            } else {
                this.store.objects.put(&[(object, file)]).into_iter().collect()
            };
            match put {
                Err(error) if error.concerns_all() => Err(error.into()),
                put => Ok(put.is_ok()),
            }
        })
        .await??;
        Ok(put && matches!(self.look(object).await?, Seen::Whole(facts) if facts.digest == digest))
    }

    async fn store_works(&self) -> Result<bool, ScrubError> {
        let objects = self.store.objects.clone();
        blocking(move || objects.probe().is_ok()).await
    }

    async fn lists_nothing(&self) -> Result<bool, ScrubError> {
        let objects = self.store.objects.clone();
        Ok(blocking(move || objects.list(None, 1)).await??.is_empty())
    }
}

fn recorded_anew(object: ObjectId, study: &StudyInstanceUid) -> Finding {
    Finding {
        object,
        study: Some(study.to_string()),
        kind: Kind::WithoutRow,
        why: "no row named it".to_owned(),
        mended: true,
    }
}

fn unread(error: &(dyn std::error::Error + 'static), all: bool) -> Seen {
    Seen::Unread { why: chain(error).to_string(), all }
}

/// A disk fails sector by sector; a network fails for all.
fn concerns_all(error: &ObjectError) -> bool {
    !matches!(error, ObjectError::Io { .. }) && error.concerns_all()
}

/// What a failed read says of the object.
fn of_reading(error: &io::Error) -> Seen {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return Seen::Damaged("it is shorter than its header says".to_owned());
    }
    // A reader of a store on the network tells by its own error that this was lost under way.
    match error.get_ref().and_then(|error| error.downcast_ref::<ObjectError>()) {
        // It was there when it was opened.
        Some(ObjectError::Missing(_)) => Seen::Missing,
        Some(error) => unread(error, concerns_all(error)),
        None => unread(error, false),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ScrubError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| ScrubError::Stopped)
}
