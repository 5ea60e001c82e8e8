//! ASN.1 in BER, read from a stream (X.690): just what finding one's way to the content of a CMS message takes.
//!
//! What writes while it reads (OpenSSL with `-stream`, Bouncy Castle) does not know lengths, and uses the indefinite ones
//! that DER forbids. So structures are walked here, in either form, and only small parts of them are collected, as DER, for
//! the crates that know what they mean. Nothing is allocated that a length claims; depth and size are bounded.

use std::io::{self, Read};

use super::envelope::OpenError;

pub(super) const INTEGER: u8 = 0x02;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const OID: u8 = 0x06;
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const SET: u8 = 0x31;
/// Set in the tag of what has elements inside.
pub(super) const CONSTRUCTED: u8 = 0x20;

/// How deep a part that is collected may be nested; real ones are half as deep.
const DEPTH: usize = 24;

/// What begins an element.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Header {
    pub(super) tag: u8,
    /// `None`: until the end-of-contents octets.
    pub(super) length: Option<u64>,
}

/// How far the elements inside one reach.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame(Option<u64>);

impl Frame {
    /// All of a stream.
    pub(super) const WHOLE: Self = Self(Some(u64::MAX));
}

/// A stream of BER.
#[derive(Debug)]
pub(super) struct Source<R> {
    inner: R,
    at: u64,
}

impl<R: Read> Source<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, at: 0 }
    }

    pub(super) fn read_exact(&mut self, bytes: &mut [u8]) -> Result<(), OpenError> {
        self.inner.read_exact(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => OpenError::Cut,
            _ => OpenError::from_io(error),
        })?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn byte(&mut self) -> Result<u8, OpenError> {
        let mut byte = [0];
        self.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    /// The next element of a frame; `None` at its end.
    pub(super) fn next(&mut self, frame: Frame) -> Result<Option<Header>, OpenError> {
        if frame.0 == Some(self.at) {
            return Ok(None);
        }
        let header = self.header()?;
        if frame.0.is_none() && header == (Header { tag: 0, length: Some(0) }) {
            return Ok(None);
        }
        let end = header.length.map(|length| self.at.checked_add(length));
        match (frame.0, end) {
            (_, Some(None)) => Err(OpenError::Malformed("a length is too large")),
            (Some(outer), Some(Some(inner))) if inner > outer => {
                Err(OpenError::Malformed("an element is longer than what it is in"))
            }
            (Some(outer), None) if self.at >= outer => {
                Err(OpenError::Malformed("an element is longer than what it is in"))
            }
            _ => Ok(Some(header)),
        }
    }

    fn header(&mut self) -> Result<Header, OpenError> {
        let tag = self.byte()?;
        if tag & 0x1F == 0x1F {
            return Err(OpenError::Malformed("a tag is of more than one byte"));
        }
        let length = match self.byte()? {
            0x80 if tag & CONSTRUCTED != 0 => None,
            0x80 => return Err(OpenError::Malformed("a plain value has no length")),
            short @ 0..0x80 => Some(u64::from(short)),
            long => {
                let count = usize::from(long & 0x7F);
                let mut bytes = [0; 8];
                let Some(at) = bytes.len().checked_sub(count) else {
                    return Err(OpenError::Malformed("a length is too large"));
                };
                self.read_exact(bytes.get_mut(at..).unwrap_or_default())?;
                Some(u64::from_be_bytes(bytes))
            }
        };
        Ok(Header { tag, length })
    }

    /// The next element, which must be there and have this tag.
    pub(super) fn expect(
        &mut self,
        frame: Frame,
        tag: u8,
        what: &'static str,
    ) -> Result<Header, OpenError> {
        match self.next(frame)? {
            Some(header) if header.tag == tag => Ok(header),
            _ => Err(OpenError::Malformed(what)),
        }
    }

    /// Goes into an element.
    pub(super) fn enter(&self, header: Header) -> Frame {
        Frame(header.length.map(|length| self.at.saturating_add(length)))
    }

    /// Goes into the next element, which must have this tag.
    pub(super) fn enter_next(
        &mut self,
        frame: Frame,
        tag: u8,
        what: &'static str,
    ) -> Result<Frame, OpenError> {
        let header = self.expect(frame, tag, what)?;
        Ok(self.enter(header))
    }

    /// The whole element whose header was read, as DER, if it has no more than `most` bytes.
    pub(super) fn collect(&mut self, header: Header, most: usize) -> Result<Vec<u8>, OpenError> {
        let mut left = most;
        self.collect_within(header, DEPTH, &mut left)
    }

    fn collect_within(
        &mut self,
        header: Header,
        depth: usize,
        left: &mut usize,
    ) -> Result<Vec<u8>, OpenError> {
        // Headers count too, so that elements without content are bounded.
        *left = left.checked_sub(2).ok_or(OpenError::HeadTooLong)?;
        let mut content = Vec::new();
        if header.tag & CONSTRUCTED == 0 {
            let length = header.length.and_then(|length| usize::try_from(length).ok());
            let length = length.filter(|length| *length <= *left).ok_or(OpenError::HeadTooLong)?;
            *left -= length;
            content.resize(length, 0);
            self.read_exact(&mut content)?;
            return Ok(element(header.tag, &content));
        }
        let depth = depth.checked_sub(1).ok_or(OpenError::Malformed("it is nested too deeply"))?;
        let frame = self.enter(header);
        // A string in pieces is one string in DER.
        let pieces = header.tag == OCTET_STRING | CONSTRUCTED;
        while let Some(inner) = self.next(frame)? {
            let one = self.collect_within(inner, depth, left)?;
            if pieces {
                content.extend_from_slice(value_of(&one));
            } else {
                content.extend_from_slice(&one);
            }
        }
        let tag = if pieces { OCTET_STRING } else { header.tag };
        Ok(element(tag, &content))
    }

    /// That nothing follows.
    pub(super) fn at_end(&mut self) -> Result<(), OpenError> {
        match self.inner.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(OpenError::Malformed("it is followed by something")),
            Err(error) => Err(OpenError::from_io(error)),
        }
    }

    /// Skips the element whose header was read.
    pub(super) fn skip(&mut self, header: Header, most: usize) -> Result<(), OpenError> {
        self.collect(header, most).map(drop)
    }
}

/// The value of an element in DER.
pub(super) fn value_of(der: &[u8]) -> &[u8] {
    let header = match der.get(1) {
        Some(long @ 0x81..) => 2 + usize::from(long & 0x7F),
        _ => 2,
    };
    der.get(header..).unwrap_or_default()
}

/// The header of an element in DER.
pub(super) fn header(tag: u8, length: u64) -> Vec<u8> {
    let mut header = vec![tag];
    if let Ok(short @ 0..0x80) = u8::try_from(length) {
        header.push(short);
        return header;
    }
    let bytes = length.to_be_bytes();
    let significant = bytes.iter().skip_while(|byte| **byte == 0);
    header.push(0x80 | (8 - length.leading_zeros() / 8) as u8);
    header.extend(significant);
    header
}

/// An element in DER.
pub(super) fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut element = header(tag, content.len() as u64);
    element.extend_from_slice(content);
    element
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn collect(bytes: &[u8], most: usize) -> Result<Vec<u8>, OpenError> {
        let mut source = Source::new(bytes);
        let header = source.next(Frame::WHOLE)?.ok_or(OpenError::Cut)?;
        source.collect(header, most)
    }

    #[test]
    fn indefinite_lengths_and_strings_in_pieces_become_der() {
        let indefinite = [0x30, 0x80, 0x24, 0x80, 4, 1, 7, 4, 2, 8, 9, 0, 0, 2, 1, 5, 0, 0];

        let der = collect(&indefinite, 100).unwrap();

        assert_eq!(der, [0x30, 8, 4, 3, 7, 8, 9, 2, 1, 5]);
        assert_eq!(collect(&der, 100).unwrap(), der);
    }

    #[test]
    fn what_is_too_deep_too_long_or_cut_is_refused() {
        assert!(matches!(collect(&[0x30, 0x80].repeat(100), 1000), Err(OpenError::Malformed(_))));
        assert!(matches!(collect(&[0x30, 0x80].repeat(9), 1000), Err(OpenError::Cut)));
        assert!(matches!(
            collect(&[4, 0x84, 255, 255, 255, 255], 1000),
            Err(OpenError::HeadTooLong)
        ));
        assert!(matches!(collect(&[0x30, 3, 4, 2, 1, 1], 1000), Err(OpenError::Malformed(_))));
        assert!(matches!(
            collect(&[4, 0x89, 1, 1, 1, 1, 1, 1, 1, 1, 1], 9),
            Err(OpenError::Malformed(_))
        ));
        assert!(matches!(collect(&[0x1F, 0x80, 1], 9), Err(OpenError::Malformed(_))));
    }

    proptest! {
        #[test]
        fn lengths_are_read_as_they_are_written(length in any::<u64>(), small in 0_u64..1000) {
            for length in [length, small] {
                let written = header(SEQUENCE, length);
                let read = Source::new(written.as_slice()).header().unwrap();
                prop_assert_eq!(read, Header { tag: SEQUENCE, length: Some(length) });
            }
        }

        #[test]
        fn random_bytes_never_panic(bytes in vec(prop_oneof![any::<u8>(), Just(0x30), Just(0x80), Just(0)], 0..200)) {
            if let Ok(der) = collect(&bytes, 150) {
                prop_assert!(der.len() <= 200);
                prop_assert_eq!(collect(&der, 1000).unwrap(), der);
            }
        }
    }
}
