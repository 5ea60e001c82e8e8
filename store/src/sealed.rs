//! The sealed format, version 1: how a data set lies on a disk or in an object store.
//!
//! A sealed file is a header of 8,192 bytes and one or more segments. All numbers are little endian.
//!
//! ```text
//!  offset  bytes  header
//!       0      8  magic 8D 47 41 4E 54 52 59 0A ("\x8DGANTRY\n")
//!       8      4  version, 1
//!      12      4  bytes of the header, 8192: where segment 0 begins
//!      16      4  bytes of plain text in a segment, 262144; the last one holds what is left, at least 1
//!      20      4  bytes of the sealed facts, F, tag included; at most 8192 - 116
//!      24     16  object id
//!      40     16  id of the key-encryption key
//!      56     12  nonce of the wrapping, random
//!      68     48  data key, wrapped: AES-256-GCM, additional data = bytes 0..4 of "wrap", object id, key id
//!     116      F  facts, sealed: AES-256-GCM under the data key, nonce (2, 0), additional data = bytes 0..40
//!   116+F         zeros
//!
//!  segment i begins at 8192 + i * (262144 + 16): cipher text and 16 bytes of tag,
//!  AES-256-GCM under the data key, nonce (1, i), additional data = object id, i as 8 bytes, 1 if last else 0
//! ```
//!
//! A nonce (kind, number) is the kind in 4 bytes and the number in 8. Each data key is random, seals one object once and
//! is never used again, so no nonce repeats: a writer that fails leaves a file that is thrown away with its key. The
//! facts are JSON ([`Facts`]), with the length of the data set and its SHA-256.
//!
//! What this refuses: a flipped bit anywhere but in the padding is a failed tag, a padding that is not zero is an error;
//! segments that are swapped, repeated, cut off or taken from another object fail by their additional data, and a file
//! that is longer or shorter than its facts say is refused before a segment is read; another object's header fails on
//! the first segment, and a header under another name is refused by whoever asked for that name.
//!
//! Moving an object to a new key-encryption key rewrites bytes 40..116 alone. A later version may change anything
//! behind byte 12; a reader refuses versions that it does not know.

use std::io;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::facts::{Facts, ObjectId};

pub mod keyring;
mod reader;
mod rewrap;

pub use keyring::{KeyId, Keyring, KeyringError};
pub use reader::{ReadAt, SealedReader};
pub use rewrap::{Rewrapped, key_of, rewrap};

/// Bytes in front of the first segment.
pub const HEADER: usize = 8192;
/// Bytes of plain text in every segment but the last.
pub const SEGMENT: usize = 256 * 1024;

const MAGIC: &[u8; 8] = b"\x8DGANTRY\n";
const VERSION: u32 = 1;
const TAG: usize = 16;
const FACTS_AT: usize = 116;
const KIND_SEGMENT: u32 = 1;
const KIND_FACTS: u32 = 2;

/// Why something cannot be sealed, or a sealed file cannot be opened.
#[derive(Debug, Error)]
pub enum SealedError {
    /// The bytes do not begin as a sealed file does.
    #[error("not a sealed file")]
    NotSealed,
    /// A sealed file of a format that this program does not know.
    #[error("sealed in format version {0}, and this program reads version {VERSION}")]
    Version(u32),
    /// Header fields that contradict each other or the format.
    #[error("header is damaged: {0}")]
    Header(&'static str),
    /// The key-encryption key is not in the keyring.
    #[error("key {0} is not in the keyring")]
    MissingKey(KeyId),
    /// The key-encryption key is there, and does not open the data key.
    #[error("key {0} does not open this object: the key file or the header is damaged")]
    WrongKey(KeyId),
    /// The facts do not open.
    #[error("facts are damaged, or belong to another object")]
    Facts,
    /// A segment does not open.
    #[error("segment {0} is damaged, or belongs to another place or object")]
    Segment(u64),
    /// The file is not as long as its facts say.
    #[error("{actual} bytes long, and its facts say {expected}")]
    Length {
        /// As the facts have it.
        expected: u64,
        /// As it is.
        actual: u64,
    },
    /// The plain text does not have the digest that the facts say.
    #[error("content has another SHA-256 than its facts say")]
    Digest,
    /// The object is not the one that was asked for.
    #[error("holds object {found}, not {asked}")]
    AnotherObject {
        /// By its name.
        asked: ObjectId,
        /// By its header.
        found: ObjectId,
    },
    /// The facts are longer than the header has room for, even with shortened attributes.
    #[error("facts take {0} bytes, more than the header holds")]
    FactsTooLong(usize),
    /// No random bytes, or the cipher refused; neither happens on a healthy machine.
    #[error("cryptography failed")]
    Crypto,
    /// Reading or writing failed.
    #[error("cannot read or write a sealed file")]
    Io(#[from] io::Error),
}

/// Bytes of the sealed file for a data set of this length.
pub fn sealed_length(length: u64) -> u64 {
    HEADER as u64 + length + segments(length) * TAG as u64
}

fn segments(length: u64) -> u64 {
    length.div_ceil(SEGMENT as u64).max(1)
}

fn nonce(kind: u32, number: u64) -> Nonce {
    let mut bytes = [0; 12];
    let (head, tail) = bytes.split_at_mut(4);
    head.copy_from_slice(&kind.to_le_bytes());
    tail.copy_from_slice(&number.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

fn segment_aad(object: ObjectId, index: u64, last: bool) -> Aad<[u8; 25]> {
    let mut aad = [0; 25];
    let (id, rest) = aad.split_at_mut(16);
    id.copy_from_slice(&object.to_bytes());
    let (number, flag) = rest.split_at_mut(8);
    number.copy_from_slice(&index.to_le_bytes());
    flag.fill(u8::from(last));
    Aad::from(aad)
}

fn key_from(bytes: &[u8]) -> Result<LessSafeKey, SealedError> {
    UnboundKey::new(&AES_256_GCM, bytes).map(LessSafeKey::new).map_err(|_| SealedError::Crypto)
}

/// Seals one data set as it arrives: segments first, the header last, when digest and length are known.
pub struct Sealer {
    object: ObjectId,
    key: LessSafeKey,
    wrapped: keyring::WrappedKey,
    segment: Vec<u8>,
    index: u64,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer")
            .field("object", &self.object)
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

impl Sealer {
    /// Begins an object under a data key of its own. `segment` is the memory to work in; it is given back by
    /// [`Sealer::finish`].
    pub fn new(
        object: ObjectId,
        keyring: &Keyring,
        mut segment: Vec<u8>,
    ) -> Result<Self, SealedError> {
        let mut bytes = Zeroizing::new([0_u8; 32]);
        SystemRandom::new().fill(bytes.as_mut()).map_err(|_| SealedError::Crypto)?;
        let wrapped = keyring.wrap(object, &bytes)?;
        segment.clear();
        segment.reserve_exact(SEGMENT + TAG);
        Ok(Self { object, key: key_from(bytes.as_ref())?, wrapped, segment, index: 0 })
    }

    /// Takes plain text, and hands on every segment that is complete and not the last.
    pub fn update(
        &mut self,
        mut plain: &[u8],
        mut write: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), SealedError> {
        while !plain.is_empty() {
            // A full segment stays until more comes: only then it is known not to be the last.
            if self.segment.len() == SEGMENT {
                self.seal(false)?;
                write(&self.segment)?;
                self.segment.clear();
            }
            let (now, later) = plain.split_at(plain.len().min(SEGMENT - self.segment.len()));
            self.segment.extend_from_slice(now);
            plain = later;
        }
        Ok(())
    }

    /// Hands on the last segment, and returns the header and the memory.
    pub fn finish(
        mut self,
        facts: &Facts,
        mut write: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(Vec<u8>, Vec<u8>), SealedError> {
        self.seal(true)?;
        write(&self.segment)?;

        let mut text = facts_text(facts)?;
        let mut header = Vec::with_capacity(HEADER);
        header.extend_from_slice(MAGIC);
        for number in [VERSION, HEADER as u32, SEGMENT as u32, (text.len() + TAG) as u32] {
            header.extend_from_slice(&number.to_le_bytes());
        }
        header.extend_from_slice(&self.object.to_bytes());
        self.key
            .seal_in_place_append_tag(nonce(KIND_FACTS, 0), Aad::from(&header), &mut text)
            .map_err(|_| SealedError::Crypto)?;
        self.wrapped.append_to(&mut header);
        header.extend_from_slice(&text);
        header.resize(HEADER, 0);
        Ok((header, self.segment))
    }

    fn seal(&mut self, last: bool) -> Result<(), SealedError> {
        let (nonce, aad) =
            (nonce(KIND_SEGMENT, self.index), segment_aad(self.object, self.index, last));
        self.index += 1;
        self.key
            .seal_in_place_append_tag(nonce, aad, &mut self.segment)
            .map_err(|_| SealedError::Crypto)
    }
}

/// The facts as JSON, with attribute values shortened step by step where a hostile or broken data set has filled them.
fn facts_text(facts: &Facts) -> Result<Vec<u8>, SealedError> {
    let room = HEADER - FACTS_AT - TAG;
    let mut shortened = None;
    for longest in [256, 64, 0] {
        let text = serde_json::to_vec(shortened.as_ref().unwrap_or(facts))
            .map_err(|_| SealedError::Header("facts"))?;
        if text.len() <= room {
            return Ok(text);
        }
        shortened =
            Some(Facts { attributes: facts.attributes.shortened(longest), ..facts.clone() });
    }
    let text = serde_json::to_vec(shortened.as_ref().unwrap_or(facts))
        .map_err(|_| SealedError::Header("facts"))?;
    if text.len() <= room { Ok(text) } else { Err(SealedError::FactsTooLong(text.len())) }
}

#[cfg(test)]
pub(crate) use tests::facts_of;
#[cfg(test)]
mod tests;
