//! What is de-identified, wherever its bytes are, and what is written of it, in pieces.

use std::io;
use std::ops::Range;

/// Bytes of a data set that can be read again, from any place: a file, a sealed object, memory.
pub trait Source {
    /// How many there are.
    fn length(&self) -> u64;

    /// Hands on those in this range, in pieces of any size. What `take` returns as an error ends it.
    fn read(
        &self,
        range: Range<u64>,
        take: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()>;
}

impl Source for [u8] {
    fn length(&self) -> u64 {
        self.len() as u64
    }

    fn read(
        &self,
        range: Range<u64>,
        take: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
        match self.get(place(range.start)..place(range.end)) {
            Some(bytes) => take(bytes),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl Source for Vec<u8> {
    fn length(&self) -> u64 {
        self.as_slice().length()
    }

    fn read(
        &self,
        range: Range<u64>,
        take: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        self.as_slice().read(range, take)
    }
}
