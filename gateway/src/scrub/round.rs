//! How far a round came and what it found, as it lies in the data directory.
//!
//! Written whole or not at all, and again after every page and every finding: what was mended is not forgotten by a crash.
//! The list of findings has an end, their counts have none. Holds no patient data.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use gantry_store::facts::ObjectId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// How many findings of a round are listed; the others are counted.
const MOST: usize = 1000;

/// What was found to be wrong.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// An object that no row names.
    WithoutRow,
    /// A row whose object is nowhere.
    Missing,
    /// An object that cannot be read, does not open, or whose content has another digest than its header says.
    Damaged,
    /// A whole object whose content is not what the row says.
    Contradicts,
    /// An object whose key is not in the keyring; it may well be whole.
    WithoutKey,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::WithoutRow, Self::Missing, Self::Damaged, Self::Contradicts, Self::WithoutKey];

    /// As it is written everywhere.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WithoutRow => "without-row",
            Self::Missing => "missing",
            Self::Damaged => "damaged",
            Self::Contradicts => "contradicts",
            Self::WithoutKey => "without-key",
        }
    }

    /// What a person can do about one that could not be mended.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::WithoutRow => "Start another round: it is recorded when the index takes it.",
            Self::Missing | Self::Damaged => {
                "Send the study again from its source: the image is then kept anew. Or put the object back from a backup \
                 of the object store. What is owed of it to partners is set aside meanwhile; afterwards, \
                 `gantry transfer retry` sends it."
            }
            Self::Contradicts => {
                "Two records of this image disagree. Compare it with its source, and keep both until it is clear which is \
                 right."
            }
            Self::WithoutKey => {
                "Put the key that is named back into the keys folder of the data directory, from where its copy is kept; \
                 the next round reads the image."
            }
        }
    }
}

/// One thing that was wrong.
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

/// How many of a kind.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Count {
    /// Whole again.
    pub mended: u64,
    /// For a person.
    pub unresolved: u64,
}

/// An object that could not be read although its store answers, and how often in a row.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Stuck {
    object: ObjectId,
    times: u32,
}

/// One walk over everything.
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
    /// Objects that nothing needs, deleted: repeats of what was verified, and what a removal had left behind.
    pub removed: u64,
    /// What was wrong, in numbers.
    pub counts: BTreeMap<Kind, Count>,
    /// What was wrong, as far as the list reaches; what is unresolved comes before what is mended.
    pub findings: Vec<Finding>,
    pub(super) stuck: Option<Stuck>,
}

impl Round {
    pub(super) fn new() -> Self {
        Self {
            begun_at: Timestamp::now(),
            ended_at: None,
            cursor: None,
            verified: 0,
            bytes: 0,
            removed: 0,
            counts: BTreeMap::new(),
            findings: Vec::new(),
            stuck: None,
        }
    }

    pub(super) fn found(&mut self, finding: Finding) {
        let count = self.counts.entry(finding.kind).or_default();
        if finding.mended {
            count.mended += 1;
        } else {
            count.unresolved += 1;
        }
        if self.findings.len() >= MOST {
            // What a person must see to is not pushed out by what is well again.
            let mended = self.findings.iter().rposition(|other| other.mended);
            match mended {
                Some(place) if !finding.mended => drop(self.findings.remove(place)),
                _ => return,
            }
        }
        self.findings.push(finding);
    }

    /// Notes that an object could not be read, although its store may be well.
    pub(super) fn could_not_read(&mut self, object: ObjectId) {
        let times = self.tries(object) + 1;
        self.stuck = Some(Stuck { object, times });
    }

    /// How often in a row that was so.
    pub(super) fn tries(&self, object: ObjectId) -> u32 {
        self.stuck.filter(|stuck| stuck.object == object).map_or(0, |stuck| stuck.times)
    }
}

/// The round that runs or waits, and the last that ended.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct State {
    /// Begun, and not at its end.
    pub current: Option<Round>,
    /// Ended.
    pub last: Option<Round>,
}

impl State {
    /// What is written there. What cannot be read is begun anew: that costs time and nothing else.
    fn load(path: &Path) -> Self {
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Self::default(),
            Err(error) => {
                tracing::warn!(%error, "how far the scrub came cannot be read; it begins anew");
                return Self::default();
            }
        };
        serde_json::from_slice(&text).unwrap_or_else(|error| {
            tracing::warn!(%error, "how far the scrub came makes no sense; it begins anew");
            Self::default()
        })
    }

    /// Findings that still say how things are: those of the round that runs, and those of the last where this one has not
    /// been yet.
    pub fn findings(&self) -> impl Iterator<Item = &Finding> {
        let seen = self.current.as_ref().and_then(|round| round.cursor);
        let current = self.current.iter().flat_map(|round| &round.findings);
        let last = self.last.iter().flat_map(|round| &round.findings);
        current.chain(last.filter(move |finding| seen.is_none_or(|seen| finding.object > seen)))
    }

    /// How many of each kind a person must see to, those included that are only counted.
    pub fn unresolved(&self) -> BTreeMap<Kind, u64> {
        let seen = self.current.as_ref().and_then(|round| round.cursor);
        let mut unresolved = BTreeMap::new();
        let count = |round: &Option<Round>, kind| {
            let counts = round.as_ref().and_then(|round| round.counts.get(&kind));
            counts.map_or(0, |count| count.unresolved)
        };
        for kind in Kind::ALL {
            let seen_again = self.last.iter().flat_map(|round| &round.findings).filter(|finding| {
                let before = seen.is_some_and(|seen| finding.object <= seen);
                finding.kind == kind && !finding.mended && before
            });
            let left = count(&self.last, kind).saturating_sub(seen_again.count() as u64);
            let all = count(&self.current, kind) + left;
            if all > 0 {
                unresolved.insert(kind, all);
            }
        }
        unresolved
    }
}

/// The state, shared between who walks and who shows it.
#[derive(Debug)]
pub struct Progress {
    path: PathBuf,
    state: Mutex<State>,
}

impl Progress {
    /// Goes on with what is written there.
    pub fn load(path: PathBuf) -> Self {
        let state = Mutex::new(State::load(&path));
        Self { path, state }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is a few assignments; a panic elsewhere leaves at most a count that is off.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As it is now.
    pub fn state(&self) -> State {
        self.lock().clone()
    }

    /// Looks at it, without a copy.
    pub(super) fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.lock())
    }

    /// The round that runs, or a new one; and whether it is new.
    pub(super) fn begin(&self) -> (Timestamp, bool) {
        let current = &mut self.lock().current;
        let new = current.is_none();
        (current.get_or_insert_with(Round::new).begun_at, new)
    }

    /// Changes the round that runs.
    pub(super) fn round<T: Default>(&self, change: impl FnOnce(&mut Round) -> T) -> T {
        self.lock().current.as_mut().map(change).unwrap_or_default()
    }

    /// The round that runs has seen everything.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        if let Some(round) = state.current.take() {
            state.last = Some(Round { ended_at: Some(Timestamp::now()), stuck: None, ..round });
        }
    }

    /// Writes it, durably. Blocks. Only who walks does, one time after the other, so that nothing older replaces it.
    pub(super) fn save(&self) -> io::Result<()> {
        let text = serde_json::to_vec(&*self.lock())?;
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(&text)?;
        file.as_file().sync_all()?;
        file.persist(&self.path)?;
        std::fs::File::open(folder)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(object: ObjectId, mended: bool) -> Finding {
        Finding { object, study: None, kind: Kind::Damaged, why: String::new(), mended }
    }

    #[test]
    fn the_list_ends_and_the_counts_do_not_and_what_is_unresolved_stays_on_it() {
        let mut round = Round::new();
        let many = MOST + 7;

        (0..many).for_each(|_| round.found(finding(ObjectId::new(), true)));
        (0..3).for_each(|_| round.found(finding(ObjectId::new(), false)));

        let count = Count { mended: many as u64, unresolved: 3 };
        assert_eq!((round.findings.len(), round.counts[&Kind::Damaged]), (MOST, count));
        assert_eq!(round.findings.iter().filter(|finding| !finding.mended).count(), 3);
    }

    #[test]
    fn a_finding_counts_until_the_next_round_has_been_there() {
        let mut objects: Vec<_> = (0..3).map(|_| ObjectId::new()).collect();
        objects.sort_unstable();
        let mut last = Round::new();
        for object in &objects {
            last.found(finding(*object, false));
        }
        let mut state = State { current: None, last: Some(last) };
        let unresolved = |state: &State| state.unresolved().get(&Kind::Damaged).copied();

        assert_eq!(unresolved(&state), Some(3));
        state.current = Some(Round { cursor: Some(objects[1]), ..Round::new() });
        assert_eq!(unresolved(&state), Some(1));
        assert_eq!(
            state.findings().map(|finding| finding.object).collect::<Vec<_>>(),
            [objects[2]]
        );
        state.current.as_mut().unwrap().found(finding(objects[0], false));
        assert_eq!(unresolved(&state), Some(2));
    }
}
