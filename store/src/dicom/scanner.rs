//! One pass over an encoded data set (PS3.5 7): what foreign bytes pass before anything else reads them.
//!
//! A data set that passes is balanced and bounded: every header is whole, every length lies inside its parent, every
//! sequence and item ends, nesting and number of elements are within [`Budget`]. Nothing is kept but one header, the
//! stack of open sequences and the values of the [indexed](super::attributes::INDEXED) attributes; a length that is
//! only claimed allocates nothing, nothing recurses, and no input panics. How the bytes are cut into chunks has no
//! influence on the result.
//!
//! Lenient where a data set stays balanced and bounded, because devices write such things and the gateway forwards
//! bytes as they came: odd lengths, unknown but well-formed VRs, elements in mild disorder, group lengths, trailing
//! padding, non-zero reserved bytes, native pixel data in an encapsulated syntax and the reverse. Strict where two
//! readers could see two different instances: an indexed attribute that has two values or follows the pixel data, a
//! file's header inside the data set, delimiters that close nothing, a length that contradicts the one around it.
//!
//! A data set has no end mark, so **every truncation is an error unless it falls between two top-level elements**;
//! that one the caller catches by knowing the length ([`Budget::total`]) or from the last fragment flag of DIMSE.
//!
//! Values are not looked at: whether a UID is well formed or a mandatory attribute present is for the caller to ask.

mod error;
mod header;
mod inflate;
mod visitor;
mod walk;

#[cfg(test)]
mod tests;

use std::fmt;

pub use error::ScanError;
pub use header::Encoding;
pub use visitor::{ElementHeader, Event, ItemHeader, Visitor};

use self::inflate::Inflate;
use self::walk::Walk;
use super::attributes::Attributes;
use super::transfer_syntax::{Layout, TransferSyntax};

/// How much a data set may ask of whoever reads it. The defaults are for a node that receives from strangers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Budget {
    /// Sequences inside sequences. Real objects stay below 12 (structured reports, the deepest, below 20); readers
    /// that recurse overflow a worker's stack at about 2,000.
    pub depth: u16,
    /// Elements, items and fragments together. An enhanced multi-frame object repeats some 50 nested elements for each
    /// of up to 10,000 frames, a whole-slide image has some 150,000 fragments; four times the larger leaves room,
    /// and keeps the tree that others build from it below about half a gigabyte.
    pub elements: u64,
    /// The exact length of the encoded data set, where the transport told it: an element that claims more than
    /// remains is then refused at its header, and a data set that ends early or late is refused too.
    pub total: Option<u64>,
    /// Bytes that a deflated data set may inflate to.
    pub inflated: u64,
    /// Bytes that a deflated data set may inflate to for each byte received, once it is past `inflate_free`. Deflate
    /// reaches 1,032 on blank input; images, mostly black ones included, stay below 50.
    pub inflate_ratio: u32,
    /// Inflated bytes for which no ratio is asked, so that a small blank image passes.
    pub inflate_free: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            depth: 64,
            elements: 2_000_000,
            total: None,
            inflated: 4 << 30,
            inflate_ratio: 100,
            inflate_free: 32 << 20,
        }
    }
}

/// What the pass over a whole data set found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Scan {
    /// Number of the encoded bytes as they were fed.
    pub length: u64,
    /// Values of the indexed attributes.
    pub attributes: Attributes,
    /// Where the header of the top-level Pixel Data (7FE0,0010), Float (7FE0,0008) or Double Float Pixel Data
    /// (7FE0,0009) begins in the encoded bytes; `None` when there is none, or when the data set is deflated.
    pub pixel_data_offset: Option<u64>,
    /// Whether top-level Pixel Data is a sequence of fragments (PS3.5 A.4). That it should be is the transfer syntax's
    /// claim; the two differ in data sets that some devices write.
    pub encapsulated: bool,
    /// Whether dicom-object 0.10 finds the same elements as this pass, so that the limits hold for it too. **Never hand it
    /// a data set where this is false:** it loses its place, and takes for nested sequences what are bytes of a value.
    /// It does so where a sequence has VR UN, whose content it reads as explicit VR and not as implicit (PS3.5 6.2.2),
    /// and behind a value that is not a whole number of its VR's units, of which it leaves the remainder unread.
    pub tree_safe: bool,
    /// Elements, items and fragments at all levels.
    pub elements: u64,
}

/// The pass itself: feed it chunks of any size, then finish.
///
/// The visitor sees every header, value and delimiter; `()` sees nothing and costs nothing.
pub struct Scanner<V: Visitor = ()> {
    length: u64,
    total: Option<u64>,
    inflate: Option<Box<Inflate>>,
    walk: Walk<V>,
    failed: Option<ScanError>,
}

impl Scanner {
    /// A scanner for one data set in this transfer syntax.
    pub fn new(syntax: &TransferSyntax, budget: Budget) -> Self {
        Self::with_visitor(syntax, budget, ())
    }
}

/// Scans a data set that is whole in memory.
pub fn scan(syntax: &TransferSyntax, bytes: &[u8], budget: Budget) -> Result<Scan, ScanError> {
    let mut scanner = Scanner::new(syntax, budget);
    scanner.feed(bytes)?;
    scanner.finish()
}

impl<V: Visitor> Scanner<V> {
    /// A scanner that shows what it passes to a visitor. Of a deflated data set the visitor sees the inflated bytes.
    pub fn with_visitor(syntax: &TransferSyntax, budget: Budget, visitor: V) -> Self {
        let (encoding, inflate) = match syntax.layout() {
            Layout::ImplicitLittle => (Encoding::ImplicitLittle, None),
            Layout::ExplicitLittle => (Encoding::ExplicitLittle, None),
            Layout::ExplicitBig => (Encoding::ExplicitBig, None),
            Layout::Deflated => (Encoding::ExplicitLittle, Some(Box::new(Inflate::new(&budget)))),
        };
        let room = if inflate.is_some() { None } else { budget.total };
        Self {
            length: 0,
            total: budget.total,
            inflate,
            walk: Walk::new(encoding, &budget, room, visitor),
            failed: None,
        }
    }

    /// Takes the next bytes. Once a data set is refused it stays so: every later call gives the same error.
    pub fn feed(&mut self, chunk: &[u8]) -> Result<(), ScanError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let fed = self.step(chunk);
        self.length = self.length.saturating_add(chunk.len() as u64);
        self.failed = fed.clone().err();
        fed
    }

    fn step(&mut self, chunk: &[u8]) -> Result<(), ScanError> {
        // Bytes past the told length are looked at only after those within it, so that chunking has no influence.
        let room = self.total.map_or(u64::MAX, |total| total.saturating_sub(self.length));
        let within = usize::try_from(room).ok().and_then(|room| chunk.get(..room)).unwrap_or(chunk);
        match &mut self.inflate {
            Some(inflate) => inflate.feed(within, &mut self.walk)?,
            None => self.walk.feed(within)?,
        }
        match self.total {
            Some(told) if within.len() < chunk.len() => Err(ScanError::TooLong { told }),
            _ => Ok(()),
        }
    }

    /// The indexed attributes found so far.
    pub fn attributes(&self) -> &Attributes {
        self.walk.attributes()
    }

    /// Bytes fed so far.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The visitor, for instance to take from it what it has written.
    pub fn visitor_mut(&mut self) -> &mut V {
        self.walk.visitor_mut()
    }

    /// Ends the data set here: an error unless it is complete.
    pub fn finish(self) -> Result<Scan, ScanError> {
        self.finish_visit().map(|(scan, _)| scan)
    }

    /// Ends the data set here, and gives the visitor back.
    pub fn finish_visit(self) -> Result<(Scan, V), ScanError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let deflated = self.inflate.is_some();
        if let Some(inflate) = &self.inflate {
            inflate.finish()?;
        }
        let walked = self.walk.finish()?;
        if let Some(told) = self.total.filter(|told| self.length < *told) {
            return Err(ScanError::TooShort { told, length: self.length });
        }
        let scan = Scan {
            length: self.length,
            attributes: walked.attributes,
            pixel_data_offset: walked.pixel_data_offset.filter(|_| !deflated),
            encapsulated: walked.encapsulated,
            tree_safe: walked.tree_safe,
            elements: walked.elements,
        };
        Ok((scan, walked.visitor))
    }
}

impl<V: Visitor> fmt::Debug for Scanner<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scanner")
            .field("length", &self.length)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}
