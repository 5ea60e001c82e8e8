//! Opening a sealed file: the header first, then whichever segments are asked for.

use std::fs::File;
use std::io;

use ring::aead::{Aad, LessSafeKey};

use super::keyring::{Keyring, WrappedKey};
use super::{
    FACTS_AT, HEADER, KIND_FACTS, KIND_SEGMENT, MAGIC, SEGMENT, SealedError, TAG, VERSION, nonce,
    sealed_length, segment_aad, segments,
};
use crate::facts::{Digester, Facts, ObjectId};

/// Bytes that can be read from any place. Calls may block, so readers live on threads that may.
pub trait ReadAt: Send {
    /// Fills `buffer` from `offset` on; fewer bytes than that are an error.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// How many bytes there are.
    fn length(&self) -> io::Result<u64>;
}

impl ReadAt for File {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(self, buffer, offset)
    }

    fn length(&self) -> io::Result<u64> {
        self.metadata().map(|metadata| metadata.len())
    }
}

impl ReadAt for Box<dyn ReadAt> {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.as_ref().read_exact_at(buffer, offset)
    }

    fn length(&self) -> io::Result<u64> {
        self.as_ref().length()
    }
}

/// An opened sealed file. Its facts are authentic; each segment is checked when it is read.
pub struct SealedReader<R> {
    source: R,
    facts: Facts,
    key: LessSafeKey,
}

impl<R> std::fmt::Debug for SealedReader<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SealedReader").field("object", &self.facts.object).finish_non_exhaustive()
    }
}

impl<R: ReadAt> SealedReader<R> {
    /// Opens the header, and refuses a file whose length does not fit it or which is not the object `asked` for.
    pub fn open(source: R, asked: ObjectId, keyring: &Keyring) -> Result<Self, SealedError> {
        let actual = source.length()?;
        if actual < HEADER as u64 {
            return Err(SealedError::NotSealed);
        }
        let mut header = vec![0; HEADER];
        source.read_exact_at(&mut header, 0)?;
        let (facts, key) = open_header(&mut header, keyring)?;
        if facts.object != asked {
            return Err(SealedError::AnotherObject { asked, found: facts.object });
        }
        let expected = sealed_length(facts.length);
        if actual != expected {
            return Err(SealedError::Length { expected, actual });
        }
        Ok(Self { source, facts, key })
    }

    /// What the header says.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// How many segments there are; at least one.
    pub fn segments(&self) -> u64 {
        segments(self.facts.length)
    }

    /// Reads and opens one segment; `buffer` is the memory to do it in. At most [`SEGMENT`] bytes come back, and fewer
    /// only of the last one.
    pub fn segment<'a>(
        &self,
        index: u64,
        buffer: &'a mut Vec<u8>,
    ) -> Result<&'a [u8], SealedError> {
        let begin = index * SEGMENT as u64;
        let plain = self.facts.length.saturating_sub(begin).min(SEGMENT as u64) as usize;
        buffer.resize(plain + TAG, 0);
        self.source.read_exact_at(buffer, HEADER as u64 + index * (SEGMENT + TAG) as u64)?;
        self.open_segment(index, buffer)
    }

    /// The bytes of the data set from `offset` on, as many as fit in `wanted`: whatever segments they lie in are read in one
    /// go, which on the network is one request, and opened. What does not exist is an error.
    pub fn range(&self, offset: u64, wanted: &mut [u8]) -> Result<(), SealedError> {
        let end = offset.checked_add(wanted.len() as u64).filter(|end| *end <= self.facts.length);
        let end = end.ok_or(io::Error::from(io::ErrorKind::UnexpectedEof))?;
        let (Some(last), false) = (end.checked_sub(1), wanted.is_empty()) else { return Ok(()) };
        let segments = offset / SEGMENT as u64..=last / SEGMENT as u64;
        let sealed = |index: u64| {
            let plain = self.facts.length.min((index + 1) * SEGMENT as u64);
            HEADER as u64 + plain + index * TAG as u64
        };
        let begin = HEADER as u64 + segments.start() * (SEGMENT + TAG) as u64;
        let mut buffer = vec![0; (sealed(*segments.end()) + TAG as u64 - begin) as usize];
        self.source.read_exact_at(&mut buffer, begin)?;
        let mut skip = (offset % SEGMENT as u64) as usize;
        let mut wanted = wanted;
        for (index, sealed) in segments.zip(buffer.chunks_mut(SEGMENT + TAG)) {
            let plain = self.open_segment(index, sealed)?.get(skip..).unwrap_or_default();
            let (now, later) = wanted.split_at_mut(plain.len().min(wanted.len()));
            now.copy_from_slice(plain.get(..now.len()).unwrap_or_default());
            (wanted, skip) = (later, 0);
        }
        Ok(())
    }

    fn open_segment<'a>(&self, index: u64, sealed: &'a mut [u8]) -> Result<&'a [u8], SealedError> {
        let aad = segment_aad(self.facts.object, index, index + 1 == self.segments());
        let opened = self.key.open_in_place(nonce(KIND_SEGMENT, index), aad, sealed);
        opened.map(|plain| &*plain).map_err(|_| SealedError::Segment(index))
    }

    /// Hands every byte of the data set to `take`, in order, and at the end compares length and digest with the facts.
    pub fn copy_to<E: From<SealedError>>(
        &self,
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut digest = Digester::default();
        let mut buffer = Vec::new();
        for index in 0..self.segments() {
            let plain = self.segment(index, &mut buffer)?;
            digest.update(plain);
            take(plain)?;
        }
        if digest.finish() == self.facts.digest { Ok(()) } else { Err(SealedError::Digest.into()) }
    }
}

fn number(header: &[u8], at: usize) -> Option<u32> {
    header.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

/// What stands in a header in the clear: object, wrapped data key, and the length of the sealed facts.
pub(super) fn parse_header(header: &[u8]) -> Result<(ObjectId, WrappedKey, usize), SealedError> {
    let damaged = SealedError::Header;
    if !header.starts_with(MAGIC) {
        return Err(SealedError::NotSealed);
    }
    match number(header, 8) {
        Some(VERSION) => {}
        Some(other) => return Err(SealedError::Version(other)),
        None => return Err(SealedError::NotSealed),
    }
    if (number(header, 12), number(header, 16)) != (Some(HEADER as u32), Some(SEGMENT as u32)) {
        return Err(damaged("lengths of header and segments are not those of version 1"));
    }
    let facts_length = number(header, 20).map_or(0, |length| length as usize);
    let object =
        header.get(24..40).and_then(|id| id.first_chunk()).map(|id| ObjectId::from_bytes(*id));
    let wrapped = header.get(40..FACTS_AT).and_then(WrappedKey::read);
    let (Some(object), Some(wrapped)) = (object, wrapped) else { return Err(damaged("cut")) };
    Ok((object, wrapped, facts_length))
}

fn open_header(header: &mut [u8], keyring: &Keyring) -> Result<(Facts, LessSafeKey), SealedError> {
    let damaged = SealedError::Header;
    let (object, wrapped, facts_length) = parse_header(header)?;

    let key = keyring.unwrap(object, &wrapped)?;
    let mut aad = [0; 40];
    let (bound, rest) = header.split_at_mut(40);
    aad.copy_from_slice(bound);
    let rest = rest.get_mut(FACTS_AT - 40..).ok_or(damaged("cut"))?;
    let (sealed, padding) =
        rest.split_at_mut_checked(facts_length).ok_or(damaged("facts run past its end"))?;
    if padding.iter().any(|byte| *byte != 0) {
        return Err(damaged("padding is not zero"));
    }
    let plain = key
        .open_in_place(nonce(KIND_FACTS, 0), Aad::from(aad), sealed)
        .map_err(|_| SealedError::Facts)?;
    let facts: Facts = serde_json::from_slice(plain).map_err(|_| SealedError::Facts)?;
    // The tag vouches for both, so a difference is a fault of the writer.
    if facts.object == object { Ok((facts, key)) } else { Err(SealedError::Facts) }
}
