//! Moving a sealed file to the current key-encryption key: the same data set under the same data key, which is wrapped anew.
//!
//! Nothing of the data set is decrypted for that; it is afterwards, to see that the new file is whole before it may take
//! the old one's place.

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};

use super::keyring::{KeyId, Keyring};
use super::reader::{ReadAt, SealedReader, parse_header};
use super::{FACTS_AT, HEADER, SealedError};
use crate::facts::ObjectId;

/// How much is copied at once; a reader on the network reads ahead of that.
const STEP: usize = 1 << 20;

/// What became of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Rewrapped {
    /// It is wrapped by the current key already; nothing was written.
    Current,
    /// The file holds it under the current key, and was read back whole; before it was under this one.
    From(KeyId),
}

/// The key that a sealed file is wrapped by, read from its header.
pub fn key_of(source: &dyn ReadAt) -> Result<KeyId, SealedError> {
    Ok(parse_header(&header(source)?)?.1.key)
}

fn header(source: &dyn ReadAt) -> Result<Vec<u8>, SealedError> {
    if source.length()? < HEADER as u64 {
        return Err(SealedError::NotSealed);
    }
    let mut header = vec![0; HEADER];
    source.read_exact_at(&mut header, 0)?;
    Ok(header)
}

/// Writes a sealed file again under the current key, into an empty file, synced and read back.
pub fn rewrap(
    source: &dyn ReadAt,
    asked: ObjectId,
    keyring: &Keyring,
    mut to: File,
) -> Result<Rewrapped, SealedError> {
    let mut header = header(source)?;
    let (object, wrapped, _) = parse_header(&header)?;
    if object != asked {
        return Err(SealedError::AnotherObject { asked, found: object });
    }
    let old = wrapped.key;
    if old == keyring.current() {
        return Ok(Rewrapped::Current);
    }
    let mut moved = Vec::with_capacity(FACTS_AT);
    keyring.rewrap(object, &wrapped)?.append_to(&mut moved);
    let place = header.get_mut(FACTS_AT - moved.len()..FACTS_AT);
    place.ok_or(SealedError::Header("cut"))?.copy_from_slice(&moved);

    to.seek(SeekFrom::Start(0))?;
    to.write_all(&header)?;
    let (mut at, length) = (HEADER as u64, source.length()?);
    let mut part = vec![0; STEP];
    while at < length {
        part.truncate((length - at).min(STEP as u64) as usize);
        source.read_exact_at(&mut part, at)?;
        to.write_all(&part)?;
        at += part.len() as u64;
    }
    to.sync_all()?;
    let written = SealedReader::open(to, asked, keyring)?;
    written.copy_to(|_| Ok::<_, SealedError>(()))?;
    Ok(Rewrapped::From(old))
}
