//! The object store: where sealed files stay.
//!
//! One trait, several back ends, one suite of tests that each passes. Names are ours (`2026/11/22/<object>`), made from
//! the object's id alone. Objects are created once and never changed in place; only [`ObjectStore::replace`] gives one a
//! new header, whole or not at all.
//!
//! Calls block, also those of a back end on the network: whoever reads a sealed file decrypts as well, and so is on a
//! thread that may block anyway. A back end that speaks asynchronously has a runtime of its own.

use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use thiserror::Error;

use crate::facts::ObjectId;
use crate::sealed::{Keyring, ReadAt, SealedError, SealedReader};

mod file;
pub mod s3;
#[cfg(any(test, feature = "suite"))]
pub mod suite;

pub use file::FileObjects;
pub use s3::S3Objects;

/// Why the object store did not do what it was asked.
#[derive(Debug, Error)]
pub enum ObjectError {
    /// There is no such object.
    #[error("object {0} is not in the object store")]
    Missing(ObjectId),
    /// The store has no room.
    #[error("the object store is full")]
    Full,
    /// An object of that name exists with other content.
    #[error("object {0} is already in the object store, with other content")]
    Differs(ObjectId),
    /// It could not be reached, or refused.
    #[error("cannot {operation} in the object store")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// A store on the network could not be reached, or refused.
    #[error("cannot {operation} in the object store")]
    Remote {
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        source: s3::Trouble,
    },
    /// Nothing was tried, because the store had just failed at something else.
    #[error("the object store was not asked, as it had just failed")]
    NotTried,
}

impl ObjectError {
    /// Whether the next object would fare no better: the store, and not this object, is in trouble.
    pub fn concerns_all(&self) -> bool {
        match self {
            Self::Missing(_) | Self::Differs(_) => false,
            Self::Full | Self::Io { .. } | Self::NotTried => true,
            Self::Remote { source, .. } => source.concerns_all(),
        }
    }
}

/// What a back end turned out to do when it was tried.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Abilities {
    /// A name that is taken is refused by the store itself, also when two ask at once.
    pub conditional_create: bool,
    /// Any part of an object can be read without the rest.
    pub ranges: bool,
    /// What was damaged on its way is refused. Without it every object is read back before it counts.
    pub verifies: bool,
}

impl Abilities {
    /// All of them.
    pub const ALL: Self = Self { conditional_create: true, ranges: true, verifies: true };
}

/// What every back end can do. Calls may block, so they belong on threads that may.
pub trait ObjectStore: Send + Sync + std::fmt::Debug {
    /// Keeps sealed files under their objects' names. Those answered with success are durable and confirmed when it
    /// returns. The files stay where they are. A repeat with the same content is a success. Answers are in the order of
    /// what was asked; a batch shares whatever makes it durable.
    fn put(&self, files: &[(ObjectId, PathBuf)]) -> Vec<Result<(), ObjectError>>;

    /// Gives an object that is there other content, durably and confirmed. A reader, and a crash at any moment, finds the
    /// one or the other, whole. Only for a new header around the same data set: nothing else about an object changes.
    fn replace(&self, object: ObjectId, file: &Path) -> Result<(), ObjectError>;

    /// Opens an object for reading from any place.
    fn open(&self, object: ObjectId) -> Result<Box<dyn ReadAt>, ObjectError>;

    /// Removes an object, durably. One that is not there is a success.
    fn delete(&self, object: ObjectId) -> Result<(), ObjectError>;

    /// Names of all objects, in pages: those after `after`, in order, at most `limit`.
    fn list(&self, after: Option<ObjectId>, limit: usize) -> Result<Vec<ObjectId>, ObjectError>;

    /// Writes, reads back and removes something of no importance, and tells what the store can do.
    fn probe(&self) -> Result<Abilities, ObjectError>;

    /// Removes what a crash left behind of objects that were never finished, and returns how many there were. `ours` tells
    /// which objects nobody but the caller could be storing; others' are only removed when they are old.
    fn sweep(&self, ours: &dyn Fn(ObjectId) -> bool) -> Result<usize, ObjectError>;

    /// Whether reading an object costs no more than reading the spool, so that the spool need not keep what may be
    /// wanted soon.
    fn is_near(&self) -> bool;
}

/// The name of an object: the day it was made and its id, so that names sort as ids do.
fn name(object: ObjectId) -> String {
    let made = Timestamp::from_millisecond(object.timestamp_ms().cast_signed())
        .unwrap_or(Timestamp::UNIX_EPOCH);
    format!("{}/{object}", made.to_zoned(TimeZone::UTC).strftime("%Y/%m/%d"))
}

/// Opens an object as a sealed file.
pub fn read(
    store: &dyn ObjectStore,
    object: ObjectId,
    keyring: &Keyring,
) -> Result<SealedReader<Box<dyn ReadAt>>, ReadError> {
    Ok(SealedReader::open(store.open(object)?, object, keyring)?)
}

/// Why an object cannot be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The store did not give it.
    #[error(transparent)]
    Store(#[from] ObjectError),
    /// What the store gave does not open.
    #[error("object does not open")]
    Sealed(#[from] SealedError),
}
