//! Moving objects to the newest key-encryption key, while the node runs or not.
//!
//! Each object is written again with a new header around the same data set, read back, and only then put in the old one's
//! place, which the store does whole or not at all ([`ObjectStore::replace`]). So a crash leaves every object under the one
//! key or the other, and running it again goes on: what is moved already is known by its header. Nothing is deleted, neither
//! objects nor keys.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Mutex;

use gantry_store::facts::ObjectId;
use gantry_store::object::{ObjectError, ObjectStore};
use gantry_store::sealed::{self, Keyring, Rewrapped, SealedError};
use serde::Serialize;
use thiserror::Error;

use crate::telemetry::chain;

/// How many are listed at a time, and how many are moved at once.
const PAGE: usize = 256;
const AT_ONCE: usize = 4;

/// What was found and done.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Moved {
    /// Objects looked at.
    pub found: u64,
    /// Those that were moved to the current key.
    pub moved: u64,
    /// How many are under each key now.
    pub by_key: BTreeMap<String, u64>,
    /// Those that could not be read or moved, by name and reason. They are as they were.
    pub failed: Vec<(String, String)>,
}

/// Why one object was not moved.
#[derive(Debug, Error)]
enum Failed {
    #[error(transparent)]
    Store(#[from] ObjectError),
    #[error("does not open")]
    Sealed(#[from] SealedError),
    #[error("cannot write its new form in the data directory")]
    Io(#[from] io::Error),
}

/// Moves every object to the current key; with `only_count` tells how many are under which. Files on the way lie in
/// `folder`, without names. `progress` is told after every page. Blocks.
pub fn rewrap(
    objects: &dyn ObjectStore,
    keyring: &Keyring,
    folder: &Path,
    only_count: bool,
    mut progress: impl FnMut(&Moved),
) -> Result<Moved, ObjectError> {
    let mut after = None;
    let result = Mutex::new(Moved::default());
    loop {
        let page = objects.list(after, PAGE)?;
        let Some(last) = page.last() else { break };
        after = Some(*last);
        std::thread::scope(|threads| {
            for share in page.chunks(page.len().div_ceil(AT_ONCE)) {
                let result = &result;
                threads.spawn(move || {
                    for object in share {
                        let done = one(objects, keyring, folder, *object, only_count);
                        note(result, *object, done);
                    }
                });
            }
        });
        progress(&result.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    }
    Ok(result.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
}

fn note(result: &Mutex<Moved>, object: ObjectId, done: Result<(String, bool), Failed>) {
    // Counts, set one by one.
    let mut result = result.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    result.found += 1;
    match done {
        Ok((key, moved)) => {
            result.moved += u64::from(moved);
            *result.by_key.entry(key).or_default() += 1;
        }
        Err(error) => result.failed.push((object.to_string(), chain(&error).to_string())),
    }
}

/// The key that it is under afterwards, and whether that is new.
fn one(
    objects: &dyn ObjectStore,
    keyring: &Keyring,
    folder: &Path,
    object: ObjectId,
    only_count: bool,
) -> Result<(String, bool), Failed> {
    let source = objects.open(object)?;
    let key = sealed::key_of(&*source)?;
    if only_count || key == keyring.current() {
        return Ok((key.to_string(), false));
    }
    let file = tempfile::NamedTempFile::new_in(folder)?;
    if sealed::rewrap(&*source, object, keyring, file.reopen()?)? == Rewrapped::Current {
        return Ok((key.to_string(), false));
    }
    objects.replace(object, file.path())?;
    // By its own word: whoever opens it next finds the new key.
    let now = sealed::key_of(&*objects.open(object)?)?;
    Ok((now.to_string(), true))
}
