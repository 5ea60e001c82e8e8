//! A data set without its top-level pixel data, as a tree that keeps every value's bytes as they came.
//!
//! The scanner walks; this only collects, so depth, number of elements and lengths are within its [`Budget`]. Bytes of the
//! top-level pixel data are not kept, but where they lie, so an instance of any length costs what its header costs. What
//! else is large (documents, waveforms, private blocks) is kept up to [`MAX_KEPT`].
//!
//! Writing gives elements in the order of the tree, sequences and items with undefined lengths, and nothing else anew: a
//! value that nobody touched keeps its bytes. Group lengths (gggg,0000) are left out, as they would be wrong.

use std::ops::Range;

use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry};
use dicom_core::{Tag, VR};
use dicom_dictionary_std::{StandardDataDictionary, tags};
use gantry_store::dicom::TransferSyntax;
use gantry_store::dicom::scanner::{
    Budget, ElementHeader, Event, Scan, ScanError, Scanner, Visitor,
};
use gantry_store::dicom::transfer_syntax::Layout;
use thiserror::Error;

/// The most bytes of values that are kept, top-level pixel data not counted.
pub const MAX_KEPT: u64 = 256 << 20;

/// Item (FFFE,E000), Item Delimitation Item and Sequence Delimitation Item (PS3.5 7.5).
const ITEM: Tag = Tag(0xFFFE, 0xE000);
const ITEM_DELIMITER: Tag = Tag(0xFFFE, 0xE00D);
const SEQUENCE_DELIMITER: Tag = Tag(0xFFFE, 0xE0DD);
const UNDEFINED: u32 = 0xFFFF_FFFF;

/// Why there is no tree.
#[derive(Clone, Debug, Error, PartialEq)]
#[non_exhaustive]
pub enum DataSetError {
    /// It does not pass the scanner.
    #[error("data set is damaged")]
    Damaged(#[from] ScanError),
    /// More than [`MAX_KEPT`].
    #[error("more than {MAX_KEPT} bytes beside the pixel data, reached at element {tag}")]
    TooLarge {
        /// Where.
        tag: Tag,
    },
    /// Explicit VR Big Endian, which is converted before it comes here.
    #[error("data set is in big endian")]
    BigEndian,
    /// Sequences inside values of VR UN, one inside the other without end.
    #[error("sequence {tag} is nested too deeply")]
    TooDeep {
        /// Which one.
        tag: Tag,
    },
    /// Two readers would see two different things: the same attribute twice in one data set or item.
    #[error("attribute {tag} occurs twice in one data set or item")]
    Twice {
        /// Which one.
        tag: Tag,
    },
}

/// How elements are written; numbers are in little endian in both.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Form {
    /// Implicit VR Little Endian (PS3.5 A.1).
    Implicit,
    /// Explicit VR Little Endian (PS3.5 A.2), and what all encapsulated transfer syntaxes have around their pixel data.
    Explicit,
}

/// One data set, or one item of a sequence.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct DataSet {
    /// In the order in which they are written, which is ascending by tag (PS3.5 7.1).
    pub elements: Vec<Element>,
}

/// One attribute with its value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Element {
    /// Which one.
    pub tag: Tag,
    /// The value representation that is written; in implicit VR that of the dictionary, UN where it knows none.
    pub vr: VR,
    /// Its value.
    pub value: Value,
}

/// The value of an element.
#[derive(Clone, Eq, PartialEq)]
pub enum Value {
    /// The bytes, numbers in little endian; may be of odd length, as they came.
    Bytes(Vec<u8>),
    /// Items of a sequence.
    Items(Vec<DataSet>),
    /// Fragments of encapsulated pixel data inside a sequence (an icon), the first being the Basic Offset Table.
    Fragments(Vec<Vec<u8>>),
}

/// Values are patients'.
impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "[{} bytes]", bytes.len()),
            Self::Items(items) => f.debug_list().entries(items).finish(),
            Self::Fragments(fragments) => write!(f, "[{} fragments]", fragments.len()),
        }
    }
}

/// The top-level Pixel Data (7FE0,0010), Float (7FE0,0008) or Double Float Pixel Data (7FE0,0009), where it lies.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PixelData {
    /// Which of the three.
    pub tag: Tag,
    /// Its VR, as in [`Element`].
    pub vr: VR,
    /// Whether it is a sequence of fragments (PS3.5 A.4).
    pub encapsulated: bool,
    /// Header, value and, where there is one, the closing delimiter; in bytes of the data set, inflated if it was deflated.
    pub span: Range<u64>,
    /// The value alone: of native pixel data the cells, of encapsulated ones all items with their headers.
    pub value: Range<u64>,
}

/// A data set that was read.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// All but the pixel data.
    pub data_set: DataSet,
    /// The top-level pixel data.
    pub pixel_data: Option<PixelData>,
    /// How its elements were written.
    pub form: Form,
    /// What the scanner found, for instance how many bytes were fed.
    pub scan: Scan,
}

/// Takes a data set in pieces.
pub struct Reader {
    scanner: Scanner<Collector>,
    form: Form,
}

impl Reader {
    /// A reader for one data set in this transfer syntax. `total`: its exact length where it is known.
    pub fn new(syntax: &TransferSyntax, total: Option<u64>) -> Result<Self, DataSetError> {
        let form = match syntax.layout() {
            Layout::ImplicitLittle => Form::Implicit,
            Layout::ExplicitLittle | Layout::Deflated => Form::Explicit,
            Layout::ExplicitBig => return Err(DataSetError::BigEndian),
        };
        let budget = Budget { total, ..Budget::default() };
        let scanner = Scanner::with_visitor(syntax, budget, Collector::default());
        Ok(Self { scanner, form })
    }

    /// Takes the next bytes.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), DataSetError> {
        self.scanner.feed(bytes)?;
        match &self.scanner.visitor_mut().failed {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    /// Ends the data set here.
    pub fn finish(self) -> Result<Parsed, DataSetError> {
        let (scan, collector) = self.scanner.finish_visit()?;
        if let Some(error) = collector.failed {
            return Err(error);
        }
        let pixel_data = collector.pixel_data;
        let data_set = collector.done.in_order().map_err(|tag| DataSetError::Twice { tag })?;
        Ok(Parsed { data_set, pixel_data, form: self.form, scan })
    }
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").finish_non_exhaustive()
    }
}

/// Reads a data set that is whole in memory.
pub fn read(syntax: &TransferSyntax, bytes: &[u8]) -> Result<Parsed, DataSetError> {
    let mut reader = Reader::new(syntax, Some(bytes.len() as u64))?;
    reader.feed(bytes)?;
    reader.finish()
}

/// The VR that PS3.6 gives an attribute, of several the first; UN where it is unknown.
pub fn dictionary_vr(tag: Tag) -> VR {
    StandardDataDictionary.by_tag(tag).map_or(VR::UN, |entry| entry.vr().relaxed())
}

impl DataSet {
    /// The attribute, if it is there at this level.
    pub fn get(&self, tag: Tag) -> Option<&Element> {
        let at = self.elements.binary_search_by_key(&tag, |element| element.tag).ok()?;
        self.elements.get(at)
    }

    /// Puts an attribute in its place; what was there goes.
    pub fn put(&mut self, element: Element) {
        match self.elements.binary_search_by_key(&element.tag, |other| other.tag) {
            Ok(at) => self.elements.splice(at..=at, [element]).for_each(drop),
            Err(at) => self.elements.insert(at, element),
        }
    }

    /// Brings elements that came in disorder into their order; the tag of one that came twice is an error.
    fn in_order(mut self) -> Result<Self, Tag> {
        if !self.elements.is_sorted_by(|one, next| one.tag < next.tag) {
            self.elements.sort_by_key(|element| element.tag);
            let mut pairs = self.elements.iter().zip(self.elements.iter().skip(1));
            if let Some((twice, _)) = pairs.find(|(one, next)| one.tag == next.tag) {
                return Err(twice.tag);
            }
        }
        Ok(self)
    }

    /// Its value, without the padding at the end, if it is one of bytes.
    pub fn bytes(&self, tag: Tag) -> Option<&[u8]> {
        self.get(tag)?.bytes()
    }

    /// The first value, of VR US.
    pub fn unsigned_short(&self, tag: Tag) -> Option<u16> {
        match &self.get(tag)?.value {
            Value::Bytes(bytes) => Some(u16::from_le_bytes(*bytes.first_chunk()?)),
            _ => None,
        }
    }

    /// The first value as text of the default repertoire, trimmed: for codes, numbers in strings and UIDs.
    pub fn text(&self, tag: Tag) -> Option<String> {
        let bytes = self.bytes(tag)?;
        let first = bytes.split(|byte| *byte == b'\\').next().unwrap_or_default();
        Some(String::from_utf8_lossy(first).trim().to_owned())
    }

    /// The items of a sequence; none where there is no such sequence.
    pub fn items(&self, tag: Tag) -> &[Self] {
        match self.get(tag).map(|element| &element.value) {
            Some(Value::Items(items)) => items,
            _ => &[],
        }
    }

    /// Writes the elements before or behind a place, in this form.
    pub fn write(&self, form: Form, out: &mut Vec<u8>) {
        self.elements.iter().for_each(|element| element.write(form, out));
    }
}

impl Element {
    /// An element with a value of bytes, padded to an even length as its VR asks for (PS3.5 6.2).
    pub fn new(tag: Tag, vr: VR, value: impl Into<Vec<u8>>) -> Self {
        let mut bytes = value.into();
        if bytes.len() % 2 == 1 {
            bytes.push(padding(vr));
        }
        Self { tag, vr, value: Value::Bytes(bytes) }
    }

    /// A sequence.
    pub fn sequence(tag: Tag, items: Vec<DataSet>) -> Self {
        Self { tag, vr: VR::SQ, value: Value::Items(items) }
    }

    /// Its value without the padding at the end, if it is one of bytes.
    pub fn bytes(&self) -> Option<&[u8]> {
        match &self.value {
            Value::Bytes(bytes) => {
                let end = bytes.iter().rposition(|byte| !matches!(byte, b' ' | 0));
                Some(bytes.get(..end.map_or(0, |last| last + 1)).unwrap_or_default())
            }
            _ => None,
        }
    }

    /// Writes it in this form.
    pub fn write(&self, form: Form, out: &mut Vec<u8>) {
        match &self.value {
            _ if self.tag.element() == 0 => {}
            Value::Bytes(bytes) => {
                let length = bytes.len().next_multiple_of(2);
                let (vr, long) = (self.vr, u32::try_from(length).unwrap_or(UNDEFINED));
                let vr = if is_short(vr) && length > 65_534 { VR::UN } else { vr };
                header(form, self.tag, vr, long, out);
                out.extend_from_slice(bytes);
                if bytes.len() % 2 == 1 {
                    out.push(padding(self.vr));
                }
            }
            Value::Items(items) => {
                header(form, self.tag, VR::SQ, UNDEFINED, out);
                for item in items {
                    plain(ITEM, UNDEFINED, out);
                    item.write(form, out);
                    plain(ITEM_DELIMITER, 0, out);
                }
                plain(SEQUENCE_DELIMITER, 0, out);
            }
            Value::Fragments(fragments) => {
                header(form, self.tag, VR::OB, UNDEFINED, out);
                for fragment in fragments {
                    let length = fragment.len().next_multiple_of(2);
                    plain(ITEM, u32::try_from(length).unwrap_or(UNDEFINED), out);
                    out.extend_from_slice(fragment);
                    out.extend((fragment.len() % 2 == 1).then_some(0));
                }
                plain(SEQUENCE_DELIMITER, 0, out);
            }
        }
    }
}

/// What makes a value of odd length even (PS3.5 6.2).
pub fn padding(vr: VR) -> u8 {
    match vr {
        VR::OB | VR::UI | VR::UN => 0,
        _ if is_text(vr) => b' ',
        _ => 0,
    }
}

/// Whether values of this VR are characters.
pub fn is_text(vr: VR) -> bool {
    matches!(
        vr,
        VR::AE
            | VR::AS
            | VR::CS
            | VR::DA
            | VR::DS
            | VR::DT
            | VR::IS
            | VR::LO
            | VR::LT
            | VR::PN
            | VR::SH
            | VR::ST
            | VR::TM
            | VR::UC
            | VR::UI
            | VR::UR
            | VR::UT
    )
}

/// Whether an explicit VR has a length of two bytes (PS3.5 Table 7.1-2).
fn is_short(vr: VR) -> bool {
    !matches!(
        vr,
        VR::OB
            | VR::OD
            | VR::OF
            | VR::OL
            | VR::OV
            | VR::OW
            | VR::SQ
            | VR::SV
            | VR::UC
            | VR::UN
            | VR::UR
            | VR::UT
            | VR::UV
    )
}

/// Writes the header of an element.
pub fn header(form: Form, tag: Tag, vr: VR, length: u32, out: &mut Vec<u8>) {
    if form == Form::Implicit {
        return plain(tag, length, out);
    }
    out.extend_from_slice(&tag.group().to_le_bytes());
    out.extend_from_slice(&tag.element().to_le_bytes());
    out.extend_from_slice(vr.to_string().as_bytes());
    if is_short(vr) {
        out.extend_from_slice(&u16::try_from(length).unwrap_or(u16::MAX).to_le_bytes());
    } else {
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&length.to_le_bytes());
    }
}

/// Writes a header without a VR: of implicit VR, of an item, of a delimiter.
fn plain(tag: Tag, length: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(&tag.group().to_le_bytes());
    out.extend_from_slice(&tag.element().to_le_bytes());
    out.extend_from_slice(&length.to_le_bytes());
}

/// What of the data set has been walked over.
#[derive(Default)]
struct Collector {
    done: DataSet,
    /// Items that are open, outermost first, each with the sequence that it is an item of.
    open: Vec<Open>,
    /// The element whose value arrives.
    element: Option<Element>,
    fragments: Option<(Element, Vec<Vec<u8>>)>,
    pixel_data: Option<PixelData>,
    /// Bytes that arrive are those of top-level pixel data.
    in_pixel_data: bool,
    offset: u64,
    kept: u64,
    failed: Option<DataSetError>,
}

struct Open {
    sequence: Element,
    items: Vec<DataSet>,
    /// The item that is open now.
    item: Option<DataSet>,
}

impl Visitor for Collector {
    fn visit(&mut self, event: Event<'_>) {
        let begin = self.offset;
        self.offset += event.raw().len() as u64;
        if self.failed.is_none() {
            self.step(&event, begin);
        }
    }
}

impl Collector {
    fn step(&mut self, event: &Event<'_>, begin: u64) {
        match event {
            Event::Element(header) if is_top_pixel_data(header) => {
                self.begin_pixel_data(header, false, begin);
            }
            Event::Element(header) => self.element = Some(begun(header)),
            Event::Fragments(header) if is_top_pixel_data(header) => {
                self.begin_pixel_data(header, true, begin);
            }
            Event::Fragments(header) => self.fragments = Some((begun(header), Vec::new())),
            Event::Sequence(header) => {
                let sequence = Element::sequence(header.tag, Vec::new());
                self.open.push(Open { sequence, items: Vec::new(), item: None });
            }
            Event::Item(_) => {
                if let Some(open) = self.open.last_mut() {
                    open.item = Some(DataSet::default());
                }
            }
            Event::Fragment(_) | Event::Value(_) if self.in_pixel_data => {}
            Event::Fragment(_) => {
                if let Some((_, fragments)) = &mut self.fragments {
                    fragments.push(Vec::new());
                }
            }
            Event::Value(bytes) => self.value(bytes),
            Event::ValueEnd => self.value_end(),
            Event::ItemEnd(_) => {
                if let Some(open) = self.open.last_mut()
                    && let Some(item) = open.item.take()
                {
                    match item.in_order() {
                        Ok(item) => open.items.push(item),
                        Err(tag) => self.failed = Some(DataSetError::Twice { tag }),
                    }
                }
            }
            Event::SequenceEnd(_) if self.in_pixel_data => self.end_pixel_data(begin),
            Event::SequenceEnd(_) => match self.fragments.take() {
                Some((mut element, fragments)) => {
                    element.value = Value::Fragments(fragments);
                    self.push(element);
                }
                None => {
                    if let Some(mut open) = self.open.pop() {
                        open.sequence.value = Value::Items(open.items);
                        self.push(open.sequence);
                    }
                }
            },
        }
    }

    fn begin_pixel_data(&mut self, header: &ElementHeader<'_>, encapsulated: bool, begin: u64) {
        let (tag, vr) = (header.tag, header.vr.unwrap_or_else(|| dictionary_vr(header.tag)));
        if self.pixel_data.is_some() {
            self.failed = Some(DataSetError::Twice { tag });
            return;
        }
        let (span, value) = (begin..begin, self.offset..self.offset);
        self.pixel_data = Some(PixelData { tag, vr, encapsulated, span, value });
        self.in_pixel_data = true;
    }

    fn end_pixel_data(&mut self, value_end: u64) {
        self.in_pixel_data = false;
        if let Some(pixel_data) = &mut self.pixel_data {
            pixel_data.value.end = value_end;
            pixel_data.span.end = self.offset;
        }
    }

    fn value(&mut self, bytes: &[u8]) {
        self.kept += bytes.len() as u64;
        let value = match (&mut self.element, &mut self.fragments) {
            (Some(Element { value: Value::Bytes(value), .. }), _) => value,
            (_, Some((_, fragments))) => match fragments.last_mut() {
                Some(fragment) => fragment,
                None => return,
            },
            _ => return,
        };
        value.extend_from_slice(bytes);
        if self.kept > MAX_KEPT {
            let tag = self.element.as_ref().map_or(Tag(0x7FE0, 0x0010), |element| element.tag);
            self.failed = Some(DataSetError::TooLarge { tag });
        }
    }

    fn value_end(&mut self) {
        let encapsulated = self.pixel_data.as_ref().is_some_and(|data| data.encapsulated);
        if self.in_pixel_data {
            if !encapsulated {
                self.end_pixel_data(self.offset);
            }
        } else if let Some(element) = self.element.take() {
            self.push(element);
        }
    }

    fn push(&mut self, element: Element) {
        let into = match self.open.last_mut() {
            Some(Open { item: Some(item), .. }) => item,
            Some(_) => return,
            None => &mut self.done,
        };
        into.elements.push(element);
    }
}

fn is_top_pixel_data(header: &ElementHeader<'_>) -> bool {
    header.depth == 0
        && matches!(
            header.tag,
            tags::PIXEL_DATA | tags::FLOAT_PIXEL_DATA | tags::DOUBLE_FLOAT_PIXEL_DATA
        )
}

fn begun(header: &ElementHeader<'_>) -> Element {
    let vr = header.vr.unwrap_or_else(|| dictionary_vr(header.tag));
    Element { tag: header.tag, vr, value: Value::Bytes(Vec::new()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_touched_is_written_as_it_came() {
        for study in sample_studies::all_valid(5) {
            for instance in study.instances {
                let syntax: TransferSyntax = instance.transfer_syntax_uid.parse().unwrap();
                let bytes = &instance.data_set;

                let parsed = read(&syntax, bytes).unwrap();

                let mut head = Vec::new();
                parsed.data_set.write(parsed.form, &mut head);
                let again = read(&syntax, &head);
                assert_eq!(again.unwrap().data_set, parsed.data_set);
                if let Some(PixelData { span, .. }) = parsed.pixel_data {
                    assert!(span.end <= bytes.len() as u64 && span.start < span.end);
                }
            }
        }
    }
}
