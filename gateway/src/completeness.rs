//! Completeness: what came of a study is counted against what its source has, and never guessed from silence.
//!
//! A source with an address is asked by C-FIND when the association that brought a study ends, and again when nothing of it
//! has come for the quiet time. What is missing then is a flag with a sentence, and is fetched by C-MOVE to ourselves where
//! that is allowed. A source that does not answer is asked again, with growing waits, for as long as [`TRIES`] last; a study
//! that nobody can be asked about says so.
//!
//! One task looks for what is due. Each source is asked by a task of its own, one study after the other, and sends by another,
//! so none waits for another source, and no count for a C-MOVE. What a source says is bounded in `ask`.

mod ask;
mod fetch;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use gantry_store::dicom::{SopClassUid, StudyInstanceUid, TransferSyntax};
use gantry_store::facts::Priority;
use gantry_store::index::{CountDue, CountTaken, Counted, Index, IndexError, NextFetch, Outcome};
use jiff::{SignedDuration, Timestamp};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::association::query::FIND;
use crate::association::services::storage_commitment::known;
use crate::config::{Config, Source};
use crate::intake::Fetching;
use crate::intake::drain::Wake;
use crate::intake::fetching::LINGER;
use crate::outbox::schedule;
use crate::partner::connect::{self, Association, Callee};
use crate::telemetry::chain;
use crate::telemetry::metrics::{BySourceAndResult, Metrics};
use ask::{ASKING, Missing};

pub use ask::AskError;

/// How often somebody looks for what is due.
const LOOK: Duration = Duration::from_secs(1);
/// How long a database is left alone that is away.
const AWAY: Duration = Duration::from_secs(5);
/// The most studies that are looked at together.
const PAGE: u32 = 64;
/// The most studies that are asked about on one association, so that an emergency does not wait for a long list.
const TOGETHER: usize = 8;
/// How long a study that is being asked about is left alone by others: longer than it may be asked about.
const LEASE: SignedDuration = SignedDuration::from_mins(15);
/// How often in a row a source is asked in vain about a study.
const TRIES: u32 = 1000;
/// How often in a row what is missing is fetched in vain.
const FETCHES: u32 = 3;

/// Counts studies against their sources.
#[derive(Clone)]
pub struct Counter {
    /// Who sources are.
    pub config: Arc<Config>,
    /// Rows.
    pub index: Index,
    /// What was asked to come here.
    pub fetching: Fetching,
    /// Who is told of news.
    pub wake: Arc<dyn Wake>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

impl fmt::Debug for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counter").field("fetching", &self.fetching).finish_non_exhaustive()
    }
}

/// What a task that asked a source has found.
enum Ended {
    /// It was asked; with the reason if it could not be had.
    Asked(String, Option<String>),
    /// It has sent.
    Sent(String),
}

/// A source that could not be had.
struct Absent {
    failures: u32,
    until: Timestamp,
    why: String,
}

/// What came of asking about one study.
#[derive(Debug)]
pub enum Answer {
    /// Its source said what it has.
    Counted,
    /// There is no source that can be asked.
    NoSource,
    /// The source did not say what it has.
    Unanswered(AskError),
    /// There is no such study.
    Unknown,
}

impl Counter {
    /// Counts until the node stops.
    pub async fn run(self, stop: CancellationToken) {
        self.remember_what_was_fetched().await;
        let mut tasks: JoinSet<Ended> = JoinSet::new();
        let (mut asking, mut sending) = (HashSet::new(), HashSet::new());
        let mut absent: HashMap<String, Absent> = HashMap::new();
        loop {
            let looked = self.look(&mut tasks, (&mut asking, &mut sending), &absent).await;
            let pause = if looked.is_ok() { LOOK } else { AWAY };
            if let Err(error) = looked {
                tracing::error!(error = %chain(&error), "studies to count cannot be looked for");
            }
            tokio::select! {
                () = stop.cancelled() => break,
                Some(ended) = tasks.join_next() => match ended {
                    Ok(Ended::Sent(source)) => drop(sending.remove(&source)),
                    Ok(Ended::Asked(source, None)) => {
                        asking.remove(&source);
                        absent.remove(&source);
                    }
                    Ok(Ended::Asked(source, Some(why))) => {
                        asking.remove(&source);
                        let failures = absent.get(&source).map_or(1, |absent| absent.failures + 1);
                        // What waits for it may be an emergency.
                        let until = self.next_try(Priority::Emergency, failures);
                        absent.insert(source, Absent { failures, until, why });
                    }
                    Err(error) => tracing::error!(%error, "a count ended before its time"),
                },
                () = sleep(pause) => {}
            }
        }
        // What was asked is asked again after a restart.
        tasks.shutdown().await;
    }

    /// What is still under way to here when the node starts is routed as before.
    async fn remember_what_was_fetched(&self) {
        let since = SignedDuration::try_from(LINGER).unwrap_or(SignedDuration::ZERO);
        let since = Timestamp::now().saturating_sub(since).unwrap_or(Timestamp::MIN);
        let remember = async {
            for study in self.index.fetched_since(since).await? {
                let ways = self.index.ways(&study).await?;
                self.fetching.begin(&study, &self.config.node.ae_title, ways);
            }
            Ok::<_, IndexError>(())
        };
        if let Err(error) = remember.await {
            tracing::error!(error = %chain(&error), "what was fetched lately cannot be read");
        }
    }

    /// Begins what is due and has nobody at it.
    async fn look(
        &self,
        tasks: &mut JoinSet<Ended>,
        (asking, sending): (&mut HashSet<String>, &mut HashSet<String>),
        absent: &HashMap<String, Absent>,
    ) -> Result<(), IndexError> {
        let now = Timestamp::now();
        let mut lists: HashMap<String, Vec<CountDue>> = HashMap::new();
        for due in self.index.counts_due(now, self.quiet(), PAGE).await? {
            let Some(source) = self.source_of(&due) else {
                self.no_source(&due.study, false).await?;
                continue;
            };
            match absent.get(&source.name) {
                Some(absent) if absent.until > now => {
                    self.put_off(source, &due, absent).await?;
                }
                _ if asking.contains(&source.name) => {}
                _ => lists.entry(source.name.clone()).or_default().push(due),
            }
        }
        for (name, mut list) in lists {
            list.truncate(TOGETHER);
            asking.insert(name.clone());
            let this = self.clone();
            tasks.spawn(async move {
                let absence = this.ask_about_all(&name, &list).await;
                Ended::Asked(name, absence)
            });
        }
        for due in self.index.fetches_due(now, PAGE).await? {
            let Some(source) = self.source_of(&due).filter(|source| source.fetch) else { continue };
            if sending.insert(source.name.clone()) {
                let (this, source) = (self.clone(), source.clone());
                tasks.spawn(async move {
                    if let Err(error) = this.fetch(&source, &due).await {
                        tracing::error!(source = source.name, error = %chain(&error), "what was fetched cannot be recorded");
                    }
                    Ended::Sent(source.name)
                });
            }
        }
        Ok(())
    }

    fn quiet(&self) -> SignedDuration {
        SignedDuration::try_from(self.config.completeness.quiet)
            .unwrap_or(SignedDuration::from_mins(1))
    }

    fn next_try(&self, priority: Priority, failures: u32) -> Timestamp {
        schedule::next_try(&self.config.delivery, priority, failures, Timestamp::now())
    }

    /// The source that a study is counted against: of those that it came from, the first of the configuration.
    fn source_of(&self, due: &CountDue) -> Option<&Source> {
        let came_from = |source: &&Source| source.counted && due.senders.contains(&source.name);
        self.config.sources.iter().find(came_from)
    }

    /// Takes a study until the lease ends; `None` where another node was first.
    async fn take(
        &self,
        study: &StudyInstanceUid,
        asked_for: bool,
    ) -> Result<Option<CountTaken>, IndexError> {
        let now = Timestamp::now();
        let lease = now.saturating_add(LEASE).unwrap_or(Timestamp::MAX);
        self.index.take_count(study, now, self.quiet(), lease, asked_for).await
    }

    async fn no_source(&self, study: &StudyInstanceUid, asked_for: bool) -> Result<(), IndexError> {
        let Some(taken) = self.take(study, asked_for).await? else { return Ok(()) };
        self.settle(study, None, taken, &Outcome::NoSource, (None, NextFetch::Never)).await
    }

    /// Leaves a study of a source that is away until that is tried again.
    async fn put_off(
        &self,
        source: &Source,
        due: &CountDue,
        absent: &Absent,
    ) -> Result<(), IndexError> {
        let Some(taken) = self.take(&due.study, false).await? else { return Ok(()) };
        let outcome = Outcome::Unanswered(absent.why.clone());
        let next = (Some(absent.until), NextFetch::AsItIs);
        self.settle(&due.study, Some(source), taken, &outcome, next).await
    }

    /// Asks a source about these, on one association. Says why if it could not be had.
    async fn ask_about_all(&self, name: &str, list: &[CountDue]) -> Option<String> {
        let source = self.config.source(name)?;
        let (mut open, mut absence) = (None, None);
        for due in list {
            match self.ask_about(source, due, &mut open, false).await {
                Ok(Answer::Unanswered(error)) if error.is_absence() => {
                    absence = Some(chain(&error).to_string());
                    break;
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::error!(source = name, error = %chain(&error), "a count cannot be recorded");
                    break;
                }
            }
        }
        if let Some(open) = open {
            Association::release(open, self.config.limits.release_timeout).await;
        }
        absence
    }

    /// Asks now, for a person who waits for it.
    pub async fn count(&self, study: &StudyInstanceUid) -> Result<Answer, IndexError> {
        let Some(due) = self.index.count_of(study).await? else { return Ok(Answer::Unknown) };
        let Some(source) = self.source_of(&due) else {
            self.no_source(study, true).await?;
            return Ok(Answer::NoSource);
        };
        let mut open = None;
        let answer = self.ask_about(source, &due, &mut open, true).await;
        if let Some(open) = open {
            Association::release(open, self.config.limits.release_timeout).await;
        }
        answer
    }

    /// Asks about one study and writes what came of it. After an absence, no association is left in `open`.
    async fn ask_about(
        &self,
        source: &Source,
        due: &CountDue,
        open: &mut Option<Association>,
        asked_for: bool,
    ) -> Result<Answer, IndexError> {
        let study = &due.study;
        let Some(taken) = self.take(study, asked_for).await? else { return Ok(Answer::Counted) };
        let asked = timeout(ASKING, self.ask(source, study, open)).await;
        let result = match asked.unwrap_or(Err(AskError::TooSlow)) {
            Ok((outcome, missing)) => {
                let next = self.after(source, (due, taken, asked_for), &outcome, &missing);
                self.settle(study, Some(source), taken, &outcome, next).await?;
                let result = if missing.is_empty() { "complete" } else { "incomplete" };
                tracing::info!(source = source.name, %study, result, settled = taken.settled, "study was counted");
                (result, Answer::Counted)
            }
            Err(AskError::Index(error)) => return Err(error),
            Err(error) => {
                if error.is_absence()
                    && let Some(broken) = open.take()
                {
                    Association::abort(broken).await;
                }
                let why = chain(&error).to_string();
                tracing::warn!(source = source.name, %study, why, tries = due.tries, "source did not say what it has");
                let again = !error.is_for_good() && due.tries < TRIES;
                let next = again.then(|| self.next_try(due.priority, due.tries + 1));
                let outcome = Outcome::Unanswered(why);
                self.settle(study, Some(source), taken, &outcome, (next, NextFetch::AsItIs))
                    .await?;
                ("unanswered", Answer::Unanswered(error))
            }
        };
        let label = BySourceAndResult { source: source.name.clone(), result: result.0 };
        self.metrics.source_counts.get_or_create(&label).inc();
        Ok(result.1)
    }

    async fn ask(
        &self,
        source: &Source,
        study: &StudyInstanceUid,
        open: &mut Option<Association>,
    ) -> Result<(Outcome, Missing), AskError> {
        let open = match open {
            Some(open) => open,
            None => open.insert(association(&self.config, source, vec![known(FIND)]).await?),
        };
        let listed = ask::list(open, study, &self.index.held_images(study).await?).await?;
        // What came while it was asked is here.
        Ok(ask::compare(&listed, &self.index.held_images(study).await?))
    }

    /// When a study is asked about again, and when what is missing is fetched.
    fn after(
        &self,
        source: &Source,
        (due, taken, asked_for): (&CountDue, CountTaken, bool),
        outcome: &Outcome,
        missing: &Missing,
    ) -> (Option<Timestamp>, NextFetch) {
        let Outcome::Counted { series, .. } = outcome else { return (None, NextFetch::AsItIs) };
        let lists: u64 = series.iter().map(|series| series.expected).sum();
        let lacks: u64 = series.iter().map(|series| series.missing).sum();
        let now = Timestamp::now();
        // A source that is still receiving the study itself is asked until it has all of it.
        let grows = taken.settled && taken.expected.is_some_and(|before| before < lists);
        let again = grows.then(|| now.saturating_add(self.quiet()).unwrap_or(Timestamp::MAX));
        let fetch = if missing.is_empty() {
            NextFetch::Never
        } else if source.fetch && asked_for {
            // Whoever asks may have mended what stood in the way.
            NextFetch::At(now, 0)
        } else if !(source.fetch && taken.settled) {
            NextFetch::AsItIs
        } else {
            let helped = grows || taken.missing.is_none_or(|before| lacks < before);
            match if helped { 0 } else { taken.fetches } {
                0 => NextFetch::At(now, 0),
                fetches if fetches < FETCHES => {
                    NextFetch::At(self.next_try(due.priority, fetches), fetches)
                }
                _ => NextFetch::Never,
            }
        };
        (again, fetch)
    }

    async fn settle(
        &self,
        study: &StudyInstanceUid,
        source: Option<&Source>,
        taken: CountTaken,
        outcome: &Outcome,
        (due, fetch): (Option<Timestamp>, NextFetch),
    ) -> Result<(), IndexError> {
        let source = source.map(|source| source.name.as_str());
        let now = Timestamp::now();
        let counted = Counted { study, source, taken, outcome, due, fetch, now };
        self.index.settle_count(counted).await?;
        self.wake.changed();
        Ok(())
    }
}

/// An association with a source, for these services.
async fn association(
    config: &Config,
    source: &Source,
    services: Vec<SopClassUid>,
) -> Result<Association, AskError> {
    let callee = Callee::source(config, source).ok_or(AskError::NotOffered("address"))?;
    let syntaxes = vec![
        TransferSyntax::explicit_vr_little_endian(),
        TransferSyntax::implicit_vr_little_endian(),
    ];
    let contexts = services.into_iter().map(|service| (service, syntaxes.clone())).collect();
    let patience = config.delivery.connect_timeout;
    connect::call(config, callee, contexts, None, patience).await.map_err(AskError::Unreachable)
}
