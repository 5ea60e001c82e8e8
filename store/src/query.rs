//! What is asked for: a query of C-FIND (PS3.4 C.4.1) or QIDO-RS (PS3.18 10.6), read once and checked.
//!
//! Guarantees that a [`Query`] can be answered: its keys are well formed and few enough, and its level has the unique keys
//! that its information model wants. Knows neither rows nor who asks. Text comes in decoded; nothing here is printed.
//!
//! What is matched how: person names without case and accents, by component group; all other texts to the letter, as
//! PS3.4 C.2.2.2.1 says for every VR but PN. No sequence is kept in the index and no attribute of VR DT, so keys of these
//! are [unsupported](Query::unsupported): they match everything, and the peer is told (PS3.4 C.4.1.1.3.2, status FF01).

mod fold;
mod keys;
mod matching;
mod pattern;

use std::collections::BTreeMap;
use std::fmt;

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use thiserror::Error;

pub use keys::{Level, keys_at};
pub use matching::{Days, Matching, NamePattern, Times};
pub use pattern::Pattern;

pub(crate) use fold::name as fold_name;
pub(crate) use matching::day;

use keys::{ANSWERED_ELSEWHERE, supported};
use matching::Unusable;

/// The most UIDs that one query may list, in all its keys.
pub const MOST_UIDS: usize = 10_000;

/// The most keys of one query, known or not.
pub const MOST_KEYS: usize = 500;

/// Query/Retrieve information model.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Model {
    /// Patient, study, series, image (PS3.4 C.6.1).
    PatientRoot,
    /// Study, series, image; what is known of the patient belongs to the study (PS3.4 C.6.2).
    StudyRoot,
}

/// How keys are read beyond the baseline (PS3.4 C.5.1.1.1, C.5.2.1).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Extended {
    /// Relational queries: the unique keys of the levels above are not needed. QIDO-RS always is.
    pub relational: bool,
    /// Ranges of a date and its time are one range of moments (PS3.4 C.2.2.2.5.1); otherwise each is matched for itself.
    pub combined_datetime: bool,
}

/// Why a query is not answered. The texts name attributes, never values.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum QueryError {
    /// The level is not one of the model.
    #[error("there is no PATIENT level in the Study Root model")]
    NoSuchLevel,
    /// A level above is not named by one value of its unique key.
    #[error("{level:?} level: {missing} must have exactly one value")]
    UniqueKey {
        /// The level that was asked for.
        level: Level,
        /// The unique key that it needs.
        missing: Tag,
    },
    /// A key belongs to a level below the one that was asked for.
    #[error("{tag} does not belong to the {level:?} level")]
    BelowLevel {
        /// The level that was asked for.
        level: Level,
        /// The key.
        tag: Tag,
    },
    /// A key is named twice.
    #[error("{0} is named twice")]
    Twice(Tag),
    /// The value is not what the attribute's VR allows.
    #[error("{tag} is not {wanted}")]
    Malformed {
        /// The key.
        tag: Tag,
        /// What it should be.
        wanted: &'static str,
    },
    /// The value is longer than any that can match.
    #[error("the value of {0} is too long")]
    TooLong(Tag),
    /// See [`Pattern::MOST`].
    #[error("{0} has too many wild cards")]
    TooManyWildcards(Tag),
    /// See [`MOST_UIDS`].
    #[error("more than {MOST_UIDS} UIDs are listed")]
    TooManyUids,
    /// See [`MOST_KEYS`].
    #[error("it has more than {MOST_KEYS} keys")]
    TooManyKeys,
}

/// How a refusal is said to the peer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// A900H, identifier does not match SOP class.
    DoesNotMatchSopClass,
    /// C000H, unable to process.
    UnableToProcess,
}

impl Refusal {
    /// The status of a C-FIND response (PS3.4 Table C.4-1).
    pub fn status(self) -> u16 {
        match self {
            Self::DoesNotMatchSopClass => 0xA900,
            Self::UnableToProcess => 0xC000,
        }
    }
}

impl QueryError {
    /// How it is said to the peer.
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::NoSuchLevel | Self::UniqueKey { .. } | Self::BelowLevel { .. } => {
                Refusal::DoesNotMatchSopClass
            }
            Self::Twice(_)
            | Self::Malformed { .. }
            | Self::TooLong(_)
            | Self::TooManyWildcards(_)
            | Self::TooManyUids
            | Self::TooManyKeys => Refusal::UnableToProcess,
        }
    }
}

/// A query that can be answered.
#[derive(Clone)]
pub struct Query {
    model: Model,
    level: Level,
    extended: Extended,
    keys: BTreeMap<Tag, Matching>,
    unsupported: Vec<Tag>,
}

impl fmt::Debug for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut query = f.debug_struct("Query");
        query.field("model", &self.model).field("level", &self.level);
        query.field("keys", &self.keys).finish_non_exhaustive()
    }
}

impl Query {
    /// Reads the keys of an identifier or a request, each with its text decoded and several values joined by backslashes; a
    /// binary number is written in digits, a sequence as the empty text. What is empty is asked for and matches everything.
    pub fn new<'k>(
        model: Model,
        level: Level,
        extended: Extended,
        keys: impl IntoIterator<Item = (Tag, &'k str)>,
    ) -> Result<Self, QueryError> {
        if model == Model::StudyRoot && level == Level::Patient {
            return Err(QueryError::NoSuchLevel);
        }
        let (mut read, mut unsupported) = (BTreeMap::new(), Vec::new());
        let mut uids_left = MOST_UIDS;
        for (count, (tag, text)) in keys.into_iter().enumerate() {
            if count >= MOST_KEYS {
                return Err(QueryError::TooManyKeys);
            }
            let Some(key) = supported(tag) else {
                if !ANSWERED_ELSEWHERE.contains(&tag) {
                    unsupported.push(tag);
                }
                continue;
            };
            let matching = Matching::read(key.kind, text, uids_left).map_err(|why| match why {
                Unusable::Malformed(wanted) => QueryError::Malformed { tag, wanted },
                Unusable::TooLong => QueryError::TooLong(tag),
                Unusable::TooManyWildcards => QueryError::TooManyWildcards(tag),
                Unusable::TooManyUids => QueryError::TooManyUids,
            })?;
            if let (keys::Kind::Uid, Matching::OneOf(uids)) = (key.kind, &matching) {
                uids_left -= uids.len();
            }
            if key.level > level {
                // An empty one asks for what there is not one of; many send it.
                if matching != Matching::Universal {
                    return Err(QueryError::BelowLevel { level, tag });
                }
                unsupported.push(tag);
                continue;
            }
            if read.insert(tag, matching).is_some() {
                return Err(QueryError::Twice(tag));
            }
        }
        let query = Self { model, level, extended, keys: read, unsupported };
        query.check_unique_keys()?;
        Ok(query)
    }

    /// Hierarchical queries name what they look below (PS3.4 C.4.1.2.1).
    fn check_unique_keys(&self) -> Result<(), QueryError> {
        if self.extended.relational {
            return Ok(());
        }
        let needed = [
            (self.model == Model::PatientRoot && self.level > Level::Patient, tags::PATIENT_ID),
            (self.level > Level::Study, tags::STUDY_INSTANCE_UID),
            (self.level > Level::Series, tags::SERIES_INSTANCE_UID),
        ];
        for (is_needed, missing) in needed {
            let is_single =
                matches!(self.keys.get(&missing), Some(Matching::OneOf(one)) if one.len() == 1);
            if is_needed && !is_single {
                return Err(QueryError::UniqueKey { level: self.level, missing });
            }
        }
        Ok(())
    }

    /// Its information model.
    pub fn model(&self) -> Model {
        self.model
    }

    /// Its level.
    pub fn level(&self) -> Level {
        self.level
    }

    /// The keys that are known, with what each asks of a value; those that match everything are only to be returned.
    pub fn keys(&self) -> impl Iterator<Item = (Tag, &Matching)> {
        self.keys.iter().map(|(tag, matching)| (*tag, matching))
    }

    /// Whether an attribute is to be returned.
    pub fn asks_for(&self, tag: Tag) -> bool {
        self.keys.contains_key(&tag)
    }

    /// Keys that are not known here. They match everything and are not returned.
    pub fn unsupported(&self) -> &[Tag] {
        &self.unsupported
    }

    /// The date and the time of a pair that is one range of moments.
    pub(crate) fn combined(&self, date: Tag, time: Tag) -> Option<(&Days, &Times)> {
        match (self.keys.get(&date)?, self.keys.get(&time)?) {
            (Matching::Days(days), Matching::Times(times))
                if self.extended.combined_datetime && days.is_range && times.is_range =>
            {
                Some((days, times))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
