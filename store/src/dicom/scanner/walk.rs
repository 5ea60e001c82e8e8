//! The walk over elements, items and fragments: a stack of what is open, one header at a time.

use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry};
use dicom_core::{Tag, VR};
use dicom_dictionary_std::{StandardDataDictionary, tags};

use super::Budget;
use super::error::ScanError;
use super::header::{self, Encoding, ITEM, ITEM_DELIMITER, Raw, SEQUENCE_DELIMITER, UNDEFINED};
use super::visitor::{ElementHeader, Event, ItemHeader, Visitor};
use crate::dicom::attributes::{Attributes, INDEXED, MAX_VALUE};

/// Data Set Trailing Padding.
const TRAILING_PADDING: Tag = Tag(0xFFFC, 0xFFFC);

// `Walk::seen` has a bit for each.
const _: () = assert!(INDEXED.len() <= 64);

pub(super) struct Walk<V> {
    encoding: Encoding,
    max_depth: u16,
    max_elements: u64,
    /// Where the data set must end, `u64::MAX` if nobody knows.
    end: u64,
    /// Where the next header or value byte is.
    offset: u64,
    step: Step,
    /// A header that straddles chunks.
    partial: Raw,
    open: Vec<Open>,
    keep: Option<Keep>,
    /// Bit n: the n-th indexed attribute has been seen.
    seen: u64,
    padded: bool,
    found: Found<V>,
}

/// What the walk leaves behind.
pub(super) struct Found<V> {
    pub(super) attributes: Attributes,
    pub(super) pixel_data_offset: Option<u64>,
    pub(super) encapsulated: bool,
    pub(super) tree_safe: bool,
    pub(super) elements: u64,
    pub(super) visitor: V,
}

/// What the next byte belongs to.
#[derive(Clone, Copy)]
enum Step {
    Header,
    /// The value of an element, or a fragment of it: so many bytes are to come.
    Value {
        tag: Tag,
        offset: u64,
        left: u64,
    },
}

/// A sequence, an item or a fragment list that has begun.
#[derive(Clone, Copy)]
struct Open {
    kind: Kind,
    /// The sequence's, also for an item.
    tag: Tag,
    offset: u64,
    /// Where its own length ends it; `None` if a delimiter does.
    closes: Option<u64>,
    /// Where the nearest length around ends everything inside.
    end: u64,
    encoding: Encoding,
    /// Sequences around its content.
    depth: u16,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Kind {
    Sequence,
    Item,
    /// Whether the Basic Offset Table is past.
    Fragments {
        table: bool,
    },
}

/// The value of an indexed attribute while it arrives.
struct Keep {
    tag: Tag,
    offset: u64,
    /// A two-byte number in the other order.
    swap: bool,
    /// The attribute has been seen before, and must have had the same value.
    again: bool,
    value: Vec<u8>,
}

/// What an element's value turns out to be.
enum Content {
    Value,
    Sequence(Encoding),
    Fragments,
}

impl<V: Visitor> Walk<V> {
    pub(super) fn new(encoding: Encoding, budget: &Budget, total: Option<u64>, visitor: V) -> Self {
        Self {
            encoding,
            max_depth: budget.depth,
            max_elements: budget.elements,
            end: total.unwrap_or(u64::MAX),
            offset: 0,
            step: Step::Header,
            partial: Raw::default(),
            open: Vec::new(),
            keep: None,
            seen: 0,
            padded: false,
            found: Found {
                attributes: Attributes::default(),
                pixel_data_offset: None,
                encapsulated: false,
                tree_safe: true,
                elements: 0,
                visitor,
            },
        }
    }

    pub(super) fn attributes(&self) -> &Attributes {
        &self.found.attributes
    }

    /// Bytes walked so far.
    #[cfg(test)]
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    pub(super) fn visitor_mut(&mut self) -> &mut V {
        &mut self.found.visitor
    }

    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> Result<(), ScanError> {
        while !bytes.is_empty() {
            bytes = match self.step {
                Step::Header => self.header(bytes)?,
                Step::Value { tag, offset, left } => self.value(bytes, tag, offset, left)?,
            };
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Result<Found<V>, ScanError> {
        let Self { offset: end, step, partial, open, found, .. } = self;
        match (step, open.last()) {
            (Step::Value { tag, offset, left }, _) => {
                Err(ScanError::ValueCut { tag, offset, missing: left })
            }
            (Step::Header, _) if partial.len() > 0 => Err(ScanError::HeaderCut { offset: end }),
            (Step::Header, Some(open)) => {
                Err(ScanError::SequenceCut { tag: open.tag, offset: open.offset })
            }
            (Step::Header, None) if end == 0 => Err(ScanError::Empty),
            (Step::Header, None) => Ok(found),
        }
    }

    /// Takes a header off the front, or all bytes if they do not complete it.
    fn header<'a>(&mut self, mut bytes: &'a [u8]) -> Result<&'a [u8], ScanError> {
        if self.partial.len() == 0
            && let Some(front) = bytes.first_chunk()
        {
            let len = self.header_len(Raw::new(*front, 8))?;
            self.enter(Raw::new(*front, len))?;
            return Ok(bytes.get(len..).unwrap_or_default());
        }
        while let Some((byte, rest)) = bytes.split_first() {
            self.partial.push(*byte);
            bytes = rest;
            if self.partial.len() == 12
                || self.partial.len() == 8 && self.header_len(self.partial)? == 8
            {
                let raw = std::mem::take(&mut self.partial);
                self.enter(raw)?;
                break;
            }
        }
        Ok(bytes)
    }

    /// How long the header with these first eight bytes is; what is around must have room for it.
    fn header_len(&self, raw: Raw) -> Result<usize, ScanError> {
        let (encoding, among_items, end) = match self.open.last() {
            None => (self.encoding, false, self.end),
            Some(open) => (open.encoding, open.kind != Kind::Item, open.end),
        };
        let short = among_items
            || encoding == Encoding::ImplicitLittle
            || header::is_short(raw.letters())
            || raw.tag(encoding).group() == ITEM.group();
        let len = if short { 8 } else { 12 };
        if end.saturating_sub(self.offset) < len {
            return Err(ScanError::NoRoom { offset: self.offset });
        }
        Ok(len as usize)
    }

    fn enter(&mut self, raw: Raw) -> Result<(), ScanError> {
        match self.open.last().copied() {
            Some(around) if around.kind != Kind::Item => self.item(&raw, around),
            around => self.element(&raw, around),
        }
    }

    fn element(&mut self, raw: &Raw, around: Option<Open>) -> Result<(), ScanError> {
        let (encoding, end, depth) = around
            .map_or((self.encoding, self.end, 0), |item| (item.encoding, item.end, item.depth));
        let (tag, offset) = (raw.tag(encoding), self.offset);
        match tag {
            ITEM => return Err(ScanError::ItemOutsideSequence { offset }),
            ITEM_DELIMITER if around.is_some_and(|item| item.closes.is_none()) => {
                return self.close(raw, encoding, tag);
            }
            Tag(0xFFFE, _) => return Err(ScanError::UnexpectedDelimiter { tag, offset }),
            Tag(0x0000 | 0x0002, _) => return Err(ScanError::NotInDataSet { tag, offset }),
            _ => {}
        }
        self.count()?;
        let letters = (encoding != Encoding::ImplicitLittle).then(|| raw.letters());
        if letters.is_some_and(|letters| !letters.iter().all(u8::is_ascii_uppercase)) {
            return Err(ScanError::NotExplicit { tag, offset });
        }
        let length = match letters {
            Some(_) => raw.explicit_length(encoding),
            None => raw.plain_length(encoding),
        };
        let length = (length != UNDEFINED).then_some(length);
        let vr = letters.map(header::vr);
        let (content, assumed) = match letters {
            Some(letters) => (explicit_content(tag, letters, length, encoding, offset)?, vr),
            None => implicit_content(tag, length, offset)?,
        };
        let start = offset + raw.len() as u64;
        let close = fits(tag, offset, start, length, end)?;
        if self.open.is_empty() {
            self.top_level(tag, offset, length, letters, &content)?;
        }

        self.offset = start;
        let header = ElementHeader {
            tag,
            vr,
            length,
            depth,
            encoding,
            header_offset: offset,
            value_offset: start,
            raw: raw.as_slice(),
        };
        let (kind, inside, event) = match content {
            Content::Value => {
                let whole =
                    assumed.is_none_or(|vr| length.unwrap_or(0).is_multiple_of(header::unit(vr)));
                self.found.tree_safe &= whole;
                self.found.visitor.visit(Event::Element(header));
                return self.begin_value(tag, offset, length.unwrap_or(0));
            }
            Content::Sequence(_) if depth >= self.max_depth => {
                return Err(ScanError::TooDeep { tag, offset, limit: self.max_depth });
            }
            Content::Sequence(inside) => (Kind::Sequence, inside, Event::Sequence(header)),
            Content::Fragments => {
                (Kind::Fragments { table: false }, encoding, Event::Fragments(header))
            }
        };
        self.found.tree_safe &= inside == encoding;
        self.found.visitor.visit(event);
        let end = close.unwrap_or(end);
        self.open.push(Open {
            kind,
            tag,
            offset,
            closes: close,
            end,
            encoding: inside,
            depth: depth + 1,
        });
        self.settle();
        Ok(())
    }

    /// What holds at the top level alone: which attributes are indexed, and where they may stand.
    fn top_level(
        &mut self,
        tag: Tag,
        offset: u64,
        length: Option<u32>,
        vr: Option<[u8; 2]>,
        content: &Content,
    ) -> Result<(), ScanError> {
        if self.padded && tag != TRAILING_PADDING {
            return Err(ScanError::AfterPadding { tag, offset });
        }
        self.padded = tag == TRAILING_PADDING;
        match tag {
            tags::PIXEL_DATA | tags::FLOAT_PIXEL_DATA | tags::DOUBLE_FLOAT_PIXEL_DATA => {
                // Of two kinds in one data set, which PS3.3 C.7.6.3 forbids, the first is where readers stop.
                if self.found.pixel_data_offset.is_some() {
                    return Err(ScanError::Duplicate { tag, offset });
                }
                self.found.pixel_data_offset = Some(offset);
                self.found.encapsulated = matches!(content, Content::Fragments);
            }
            _ => {
                let Ok(index) = INDEXED.binary_search(&tag) else { return Ok(()) };
                let bit = 1 << index;
                let again = self.seen & bit != 0;
                if self.found.pixel_data_offset.is_some() {
                    return Err(ScanError::AfterPixelData { tag, offset });
                }
                // Some writers repeat an element as it is. Readers then agree, so it is let through; whether it is the
                // same shows when its value has arrived.
                let known = self.found.attributes.raw(tag).map(<[u8]>::len);
                if again
                    && (known > Some(MAX_VALUE - 1)
                        || known != length.map(|length| length as usize))
                {
                    return Err(ScanError::Duplicate { tag, offset });
                }
                self.seen |= bit;
                if matches!(content, Content::Value) {
                    let swap = self.encoding == Encoding::ExplicitBig && vr == Some(*b"US");
                    self.keep = Some(Keep { tag, offset, swap, again, value: Vec::new() });
                }
            }
        }
        Ok(())
    }

    /// An item of a sequence, a fragment of pixel data, or the delimiter behind the last of them.
    fn item(&mut self, raw: &Raw, around: Open) -> Result<(), ScanError> {
        let Open { kind, tag: sequence, closes, end, encoding, depth, .. } = around;
        let (tag, offset, start) = (raw.tag(encoding), self.offset, self.offset + raw.len() as u64);
        match tag {
            ITEM => {}
            SEQUENCE_DELIMITER if closes.is_none() => return self.close(raw, encoding, tag),
            SEQUENCE_DELIMITER | ITEM_DELIMITER => {
                return Err(ScanError::UnexpectedDelimiter { tag, offset });
            }
            _ => return Err(ScanError::NotAnItem { tag, offset, sequence }),
        }
        self.count()?;
        let length = raw.plain_length(encoding);
        let length = (length != UNDEFINED).then_some(length);
        let closes = fits(tag, offset, start, length, end)?;
        let header = ItemHeader {
            sequence,
            length,
            depth,
            encoding,
            header_offset: offset,
            value_offset: start,
            raw: raw.as_slice(),
        };

        self.offset = start;
        if let Kind::Fragments { table } = kind {
            let Some(length) = length else { return Err(ScanError::UndefinedFragment { offset }) };
            if !table && !length.is_multiple_of(4) {
                return Err(ScanError::OffsetTable { offset, length });
            }
            if let Some(around) = self.open.last_mut() {
                around.kind = Kind::Fragments { table: true };
            }
            self.found.visitor.visit(Event::Fragment(header));
            self.begin_value(sequence, offset, length)?;
        } else {
            self.found.visitor.visit(Event::Item(header));
            let end = closes.unwrap_or(end);
            self.open.push(Open { kind: Kind::Item, offset, closes, end, ..around });
            self.settle();
        }
        Ok(())
    }

    fn begin_value(&mut self, tag: Tag, offset: u64, length: u32) -> Result<(), ScanError> {
        self.step = Step::Value { tag, offset, left: length.into() };
        if length == 0 { self.end_value() } else { Ok(()) }
    }

    /// Takes what belongs to the value off the front.
    fn value<'a>(
        &mut self,
        bytes: &'a [u8],
        tag: Tag,
        offset: u64,
        left: u64,
    ) -> Result<&'a [u8], ScanError> {
        let here = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        let (value, rest) = bytes.split_at_checked(here).unwrap_or((bytes, &[]));
        if let Some(keep) = &mut self.keep {
            let room = MAX_VALUE.saturating_sub(keep.value.len());
            keep.value.extend_from_slice(value.get(..room).unwrap_or(value));
        }
        self.found.visitor.visit(Event::Value(value));
        self.offset += value.len() as u64;
        let left = left - value.len() as u64;
        self.step = Step::Value { tag, offset, left };
        if left == 0 {
            self.end_value()?;
        }
        Ok(rest)
    }

    fn end_value(&mut self) -> Result<(), ScanError> {
        if let Some(Keep { tag, offset, swap, again, mut value }) = self.keep.take() {
            if swap {
                let (pairs, _) = value.as_chunks_mut::<2>();
                for pair in pairs {
                    pair.reverse();
                }
            }
            if again && self.found.attributes.raw(tag) != Some(&value) {
                return Err(ScanError::Duplicate { tag, offset });
            }
            self.found.attributes.insert(tag, value);
        }
        self.step = Step::Header;
        self.found.visitor.visit(Event::ValueEnd);
        self.settle();
        Ok(())
    }

    /// Ends the innermost item, sequence or fragment list by its delimiter.
    fn close(&mut self, raw: &Raw, encoding: Encoding, tag: Tag) -> Result<(), ScanError> {
        if raw.plain_length(encoding) != 0 {
            return Err(ScanError::DelimiterLength { tag, offset: self.offset });
        }
        self.offset += raw.len() as u64;
        if let Some(open) = self.open.pop() {
            self.ended(open.kind, raw.as_slice());
        }
        self.settle();
        Ok(())
    }

    /// Ends the items and sequences whose own length ends here.
    fn settle(&mut self) {
        while let Some(open) = self.open.pop_if(|open| open.closes == Some(self.offset)) {
            self.ended(open.kind, &[]);
        }
    }

    fn ended(&mut self, kind: Kind, delimiter: &[u8]) {
        self.found.visitor.visit(match kind {
            Kind::Item => Event::ItemEnd(delimiter),
            Kind::Sequence | Kind::Fragments { .. } => Event::SequenceEnd(delimiter),
        });
    }

    fn count(&mut self) -> Result<(), ScanError> {
        self.found.elements += 1;
        if self.found.elements > self.max_elements {
            return Err(ScanError::TooManyElements {
                offset: self.offset,
                limit: self.max_elements,
            });
        }
        Ok(())
    }
}

/// Where a content of this length ends, which must not be past the end of what is around it.
fn fits(
    tag: Tag,
    offset: u64,
    start: u64,
    length: Option<u32>,
    end: u64,
) -> Result<Option<u64>, ScanError> {
    let Some(length) = length else { return Ok(None) };
    let remaining = end.saturating_sub(start);
    if u64::from(length) > remaining {
        return Err(ScanError::Overrun { tag, offset, length, remaining });
    }
    Ok(Some(start + u64::from(length)))
}

// What the value of an element is. The aim is to descend exactly where a reader of the data set may, dicom-object among
// them: what it takes for a sequence must not hide in what passes here as a value.

/// In implicit VR the dictionary decides, the one that dicom-object asks; and an undefined length, in what it does not
/// know. Gives the VR that it assumes, too.
fn implicit_content(
    tag: Tag,
    length: Option<u32>,
    offset: u64,
) -> Result<(Content, Option<VR>), ScanError> {
    let known = StandardDataDictionary.by_tag(tag).map(|entry| entry.vr().relaxed());
    let content = match (known, length) {
        (Some(VR::SQ), _) | (None | Some(VR::UN), None) => {
            Content::Sequence(Encoding::ImplicitLittle)
        }
        (_, Some(_)) => Content::Value,
        (_, None) => return Err(ScanError::UndefinedLength { tag, offset }),
    };
    Ok((content, known))
}

/// An undefined length is for SQ, UN (whose content is Implicit VR Little Endian, PS3.5 6.2.2) and Pixel Data alone. Private
/// elements that are written like encapsulated pixel data are refused: dicom-object reads their fragments as items.
fn explicit_content(
    tag: Tag,
    letters: [u8; 2],
    length: Option<u32>,
    encoding: Encoding,
    offset: u64,
) -> Result<Content, ScanError> {
    match (&letters, length) {
        (b"SQ", _) if tag == tags::PIXEL_DATA => Err(ScanError::PixelDataSequence { offset }),
        (b"SQ", _) => Ok(Content::Sequence(encoding)),
        (_, Some(_)) => Ok(Content::Value),
        (b"OB" | b"OW", None) if tag == tags::PIXEL_DATA => Ok(Content::Fragments),
        (b"UN", None) if tag != tags::PIXEL_DATA => Ok(Content::Sequence(Encoding::ImplicitLittle)),
        (_, None) => Err(ScanError::UndefinedLength { tag, offset }),
    }
}
