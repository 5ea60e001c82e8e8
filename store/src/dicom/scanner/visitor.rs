//! What the scanner shows of a data set while it passes.

use dicom_core::{Tag, VR};

use super::header::Encoding;

/// Whoever watches the pass: writes the data set in another form, or notes where to splice it.
pub trait Visitor {
    /// The next thing in the data set, in the order of its bytes. What was shown before an error may be incomplete.
    fn visit(&mut self, event: Event<'_>);
}

/// Sees nothing.
impl Visitor for () {
    #[inline]
    fn visit(&mut self, _: Event<'_>) {}
}

/// One step through a data set. All [`Event::raw`] bytes, one after another, are the data set.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Event<'a> {
    /// An element with a value: `Value` any number of times, together as long as the header says, then `ValueEnd`.
    Element(ElementHeader<'a>),
    /// An element that holds items of nested elements, then `SequenceEnd`.
    Sequence(ElementHeader<'a>),
    /// Encapsulated Pixel Data, which holds `Fragment`s, then `SequenceEnd` (PS3.5 A.4).
    Fragments(ElementHeader<'a>),
    /// An item of a sequence, holding elements, then `ItemEnd`.
    Item(ItemHeader<'a>),
    /// An item of encapsulated Pixel Data, the first being the Basic Offset Table: `Value`s, then `ValueEnd`.
    Fragment(ItemHeader<'a>),
    /// Some of a value, cut as it happened to arrive; never empty.
    Value(&'a [u8]),
    /// The value of an element or fragment is complete.
    ValueEnd,
    /// The item ends: its delimiter, or no bytes where its length ended it.
    ItemEnd(&'a [u8]),
    /// The sequence or the fragments end: the delimiter, or no bytes where the sequence's length ended it.
    SequenceEnd(&'a [u8]),
}

impl<'a> Event<'a> {
    /// The bytes of the data set that this event stands for.
    pub fn raw(&self) -> &'a [u8] {
        match self {
            Self::Element(header) | Self::Sequence(header) | Self::Fragments(header) => header.raw,
            Self::Item(header) | Self::Fragment(header) => header.raw,
            Self::Value(bytes) | Self::ItemEnd(bytes) | Self::SequenceEnd(bytes) => bytes,
            Self::ValueEnd => &[],
        }
    }
}

/// The header of an element (PS3.5 7.1). Offsets count from the begin of the data set, inflated if it was deflated.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ElementHeader<'a> {
    /// Which attribute.
    pub tag: Tag,
    /// The value representation where it is written, an unknown one as UN; `None` in implicit VR.
    pub vr: Option<VR>,
    /// Bytes of the value; `None` where it is undefined.
    pub length: Option<u32>,
    /// How many sequences are around it; 0 at the top level.
    pub depth: u16,
    /// How this header, and a number in its value, is written.
    pub encoding: Encoding,
    /// Where the header begins.
    pub header_offset: u64,
    /// Where the value begins.
    pub value_offset: u64,
    /// The header's 8 or 12 bytes.
    pub raw: &'a [u8],
}

/// The header of an item or a fragment (PS3.5 7.5, A.4).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ItemHeader<'a> {
    /// The sequence that it is an item of.
    pub sequence: Tag,
    /// Bytes of its content; `None` where it is undefined.
    pub length: Option<u32>,
    /// How many sequences are around its content; 1 for an item of a top-level sequence or of pixel data.
    pub depth: u16,
    /// How the elements in it are written.
    pub encoding: Encoding,
    /// Where the header begins.
    pub header_offset: u64,
    /// Where the content begins.
    pub value_offset: u64,
    /// The header's 8 bytes.
    pub raw: &'a [u8],
}
