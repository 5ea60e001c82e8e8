//! The object store: where sealed files stay.
//!
//! One trait, several back ends, one suite of tests that each passes. Names are ours (`2026/11/22/<object>`), made from
//! the object's id alone. Objects are created once and never changed in place.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::facts::ObjectId;
use crate::sealed::{Keyring, ReadAt, SealedError, SealedReader};

mod file;
#[cfg(test)]
mod suite;

pub use file::FileObjects;

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
}

/// What every back end can do. Calls may block, so they belong on threads that may.
pub trait ObjectStore: Send + Sync + std::fmt::Debug {
    /// Keeps sealed files under their objects' names. Those answered with success are durable and confirmed when it
    /// returns. The files stay where they are. A repeat with the same content is a success. Answers are in the order of
    /// what was asked; a batch shares whatever makes it durable.
    fn put(&self, files: &[(ObjectId, PathBuf)]) -> Vec<Result<(), ObjectError>>;

    /// Opens an object for reading from any place.
    fn open(&self, object: ObjectId) -> Result<Box<dyn ReadAt>, ObjectError>;

    /// Removes an object, durably. One that is not there is a success.
    fn delete(&self, object: ObjectId) -> Result<(), ObjectError>;

    /// Names of all objects, in pages: those after `after`, in order, at most `limit`.
    fn list(&self, after: Option<ObjectId>, limit: usize) -> Result<Vec<ObjectId>, ObjectError>;

    /// Whether objects can be written and read back right now.
    fn probe(&self) -> Result<(), ObjectError>;
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
