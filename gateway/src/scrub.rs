//! The scrub: reads again all that is kept, and compares object store, index and spool.
//!
//! Walks objects and rows side by side in the order of object ids, a page at a time, so that each object is met once and
//! memory does not grow with their number. What it finds is mended where a whole copy is at hand, and reported in any
//! case. It deletes nothing, and puts nothing in an object's place but a copy whose digest it has just verified.
//!
//! What is younger than the settling time is left to the next round, as receiving and storing are still at it. What looks
//! wrong is looked at a second time. A store that fails, or that is empty while rows say otherwise (a disk that is not
//! mounted), ends the run and not the round: [`Round`] is on the disk after every page, and the next run goes on there.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use gantry_store::dicom::StudyInstanceUid;
use gantry_store::facts::{Digest, Facts, ObjectId};
use gantry_store::index::{Arrival, IndexError, InstanceRow, RecordedAs};
use gantry_store::object::{self, ObjectError, ReadError};
use gantry_store::sealed::{ReadAt, SealedError, SealedReader};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use crate::config::Route;
use crate::reindex;
use crate::route;
use crate::run::Store;
use crate::telemetry::chain;

/// How many objects and rows are compared at a time.
const PAGE: u32 = 64;

/// Why a run ended before its round did. What was found until then is kept.
#[derive(Debug, Error)]
pub enum ScrubError {
    /// The object store is in trouble.
    #[error("cannot read the object store")]
    Objects(#[from] ObjectError),
    /// An object could be opened and not be read: the store is in trouble, and says nothing about the object.
    #[error("cannot read object {0}")]
    Read(ObjectId, #[source] io::Error),
    /// Rows say that there are objects, and the store has none at all.
    #[error("the object store is empty, and the index says that it is not")]
    Empty,
    /// The index does not answer.
    #[error("cannot read or write the index")]
    Index(#[from] IndexError),
    /// The round cannot be kept.
    #[error("cannot write how far it came")]
    State(#[source] io::Error),
    /// It was told to stop.
    #[error("stopped")]
    Stopped,
}

/// What was found to be wrong.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// An object that no row names.
    WithoutRow,
    /// A row whose object is nowhere in the store.
    Missing,
    /// An object that does not open, or whose content has another digest than its header says.
    Damaged,
    /// A whole object whose content is not what the row says.
    Contradicts,
    /// An object whose key is not in the keyring; it may well be whole.
    WithoutKey,
}

/// One thing that was wrong. Holds no patient data.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Finding {
    /// Which object.
    pub object: ObjectId,
    /// Its study's UID, where a row or a header tells.
    pub study: Option<String>,
    /// What was wrong.
    pub kind: Kind,
    /// In words.
    pub why: String,
    /// Whether it is whole again. Otherwise a person must see to it.
    pub mended: bool,
}

/// One walk over everything; as it is written to the disk.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Round {
    /// When it began.
    pub begun_at: Timestamp,
    /// When it had seen everything.
    pub ended_at: Option<Timestamp>,
    /// Up to where it has.
    pub cursor: Option<ObjectId>,
    /// Objects that were read and are what their rows say.
    pub verified: u64,
    /// Bytes of their data sets.
    pub bytes: u64,
    /// What was wrong.
    pub findings: Vec<Finding>,
}

impl Round {
    fn new() -> Self {
        let begun_at = Timestamp::now();
        Self { begun_at, ended_at: None, cursor: None, verified: 0, bytes: 0, findings: Vec::new() }
    }

    /// The round that is written there. One that cannot be read is begun anew: that costs time and nothing else.
    pub fn load(path: &Path) -> Option<Self> {
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(%error, "how far the scrub came cannot be read; it begins anew");
                return None;
            }
        };
        serde_json::from_slice(&text)
            .inspect_err(|error| {
                tracing::warn!(%error, "how far the scrub came makes no sense; it begins anew");
            })
            .ok()
    }

    fn save(&self, path: &Path) -> io::Result<()> {
        let folder = path.parent().unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        std::fs::File::open(folder)?.sync_all()
    }
}

/// How an object looks.
enum Seen {
    Whole(Box<Facts>),
    Missing,
    Damaged(String),
    WithoutKey(String),
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

/// What a run works with.
#[derive(Clone, Debug)]
pub struct Scrub {
    /// What is compared.
    pub store: Store,
    /// Where what has no row goes, as if it had just arrived.
    pub routes: Vec<Route>,
    /// Bytes a second that are read at most; `None` for as fast as it goes.
    pub rate: Option<u64>,
    /// What is younger is left alone.
    pub settling: Duration,
    /// Ends the run within a segment.
    pub stop: CancellationToken,
}

impl Scrub {
    /// Goes on with the round that `state` holds, or begins one, and walks to its end. Blocks nobody who uses the store.
    pub async fn run(&self, state: &Path) -> Result<Round, ScrubError> {
        let unfinished = Round::load(state).filter(|round| round.ended_at.is_none());
        let mut round = unfinished.unwrap_or_else(Round::new);
        while round.ended_at.is_none() {
            self.page(&mut round).await?;
            let (written, path) = (round.clone(), state.to_owned());
            blocking(move || written.save(&path)).await?.map_err(ScrubError::State)?;
        }
        Ok(round)
    }

    /// Compares one page. An error in mid-page leaves the round as it was before it.
    async fn page(&self, round: &mut Round) -> Result<(), ScrubError> {
        let (objects, after) = (self.store.objects.clone(), round.cursor);
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

        let mut next = round.clone();
        for (object, row) in met {
            if horizon.is_some_and(|horizon| object > horizon) || self.is_young(object) {
                continue;
            }
            let finding = match row {
                Some(row) => self.with_row(&row, &mut next).await?,
                None => self.without_row(object).await?,
            };
            if let Some(finding) = finding {
                let Finding { object, kind, why, mended, .. } = &finding;
                tracing::warn!(%object, ?kind, why, mended, "the scrub found something wrong");
                next.findings.push(finding);
            }
        }
        match horizon {
            Some(horizon) => next.cursor = Some(horizon),
            None => next.ended_at = Some(Timestamp::now()),
        }
        *round = next;
        Ok(())
    }

    fn is_young(&self, object: ObjectId) -> bool {
        let now = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0);
        u128::from(now.saturating_sub(object.timestamp_ms())) < self.settling.as_millis()
    }

    async fn with_row(
        &self,
        row: &InstanceRow,
        round: &mut Round,
    ) -> Result<Option<Finding>, ScrubError> {
        let object = row.object;
        if !row.stored && self.store.spool.path(object).exists() {
            // It waits for the object store.
            return Ok(None);
        }
        let (kind, why, mended) = match self.look_twice(object).await? {
            Seen::Whole(facts) if facts.digest == row.digest && facts.length == row.length => {
                if !row.stored {
                    self.store.index.mark_stored(&[object]).await?;
                }
                round.verified += 1;
                round.bytes += row.length;
                return Ok(None);
            }
            Seen::Whole(_) => {
                (Kind::Contradicts, "its content is not what its row says".to_owned(), false)
            }
            Seen::WithoutKey(why) => (Kind::WithoutKey, why, false),
            Seen::Damaged(why) => {
                (Kind::Damaged, why, self.restore(object, row.digest, true).await?)
            }
            Seen::Missing => {
                let why = "it is not in the object store".to_owned();
                let mended = self.restore(object, row.digest, false).await?;
                if !mended && self.lists_nothing().await? {
                    return Err(ScrubError::Empty);
                }
                (Kind::Missing, why, mended)
            }
        };
        if mended {
            self.store.index.mark_stored(&[object]).await?;
        }
        let study = Some(row.study_instance_uid.to_string());
        Ok(Some(Finding { object, study, kind, why, mended }))
    }

    async fn without_row(&self, object: ObjectId) -> Result<Option<Finding>, ScrubError> {
        if self.store.spool.path(object).exists() {
            // It becomes a row by itself.
            return Ok(None);
        }
        let seen = self.look_twice(object).await?;
        if !self.store.index.knows(&[object]).await?.is_empty() {
            return Ok(None);
        }
        let of = |study: Option<&StudyInstanceUid>, kind, why, mended| {
            let study = study.map(ToString::to_string);
            Ok(Some(Finding { object, study, kind, why, mended }))
        };
        match seen {
            // It was removed meanwhile.
            Seen::Missing => Ok(None),
            Seen::Damaged(why) => of(None, Kind::Damaged, why, false),
            Seen::WithoutKey(why) => of(None, Kind::WithoutKey, why, false),
            Seen::Whole(facts) => {
                let study = facts.study.clone();
                let proofs =
                    reindex::proofs_of(&self.store.delivered, std::slice::from_ref(&facts)).await;
                let routed = route::destinations(&self.routes, &facts);
                let arrival = [Arrival { facts: *facts, routed }];
                let now = Timestamp::now();
                let recorded = self.store.index.record_again(&arrival, &proofs, now).await?;
                let repeats = |outcome: &RecordedAs| matches!(outcome, RecordedAs::Repeat { .. });
                if recorded.iter().any(|recorded| repeats(&recorded.outcome)) {
                    // The same bytes have a row under another object. It takes room and does no harm.
                    return Ok(None);
                }
                self.store.index.mark_stored(&[object]).await?;
                of(Some(&study), Kind::WithoutRow, "no row named it".to_owned(), true)
            }
        }
    }

    /// What is wrong must be so twice: it may have been moved or put in between.
    async fn look_twice(&self, object: ObjectId) -> Result<Seen, ScrubError> {
        match self.look(object).await? {
            whole @ Seen::Whole(_) => Ok(whole),
            _ => self.look(object).await,
        }
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
                Err(ReadError::Store(error)) => return Err(error.into()),
                Err(ReadError::Sealed(error)) => error.into(),
            };
            match ended {
                Ended::Stopped => Err(ScrubError::Stopped),
                Ended::Sealed(SealedError::Io(error))
                    if error.kind() != io::ErrorKind::UnexpectedEof =>
                {
                    Err(ScrubError::Read(object, error))
                }
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
        let (begun, mut read) = (Instant::now(), 0_u64);
        reader.copy_to(|plain| {
            if self.stop.is_cancelled() {
                return Err(Ended::Stopped);
            }
            read += plain.len() as u64;
            if let Some(rate) = self.rate {
                let due = Duration::from_secs_f64(read as f64 / rate.max(1) as f64);
                std::thread::sleep(due.saturating_sub(begun.elapsed()));
            }
            Ok(())
        })
    }

    /// Puts the spool's copy where the object belongs, if there is one and it is whole; says whether the object is now.
    async fn restore(
        &self,
        object: ObjectId,
        digest: Digest,
        damaged: bool,
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
            if damaged {
                this.store.objects.replace(object, &file)?;
            } else {
                this.store.objects.put(&[(object, file)]).into_iter().collect::<Result<(), _>>()?;
            }
            Ok(true)
        })
        .await??;
        Ok(put && matches!(self.look(object).await?, Seen::Whole(facts) if facts.digest == digest))
    }

    async fn lists_nothing(&self) -> Result<bool, ScrubError> {
        let objects = self.store.objects.clone();
        Ok(blocking(move || objects.list(None, 1)).await??.is_empty())
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ScrubError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| ScrubError::Stopped)
}

#[cfg(test)]
mod tests;
