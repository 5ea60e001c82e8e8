//! From an encoded data set, or a tree, to one of the two models of DICOMweb, in one pass and without a tree between.
//!
//! What JSON (PS3.18 F) and XML (PS3.19 A.1) share is decided here: which attributes are written, by which VR, in which
//! character set, what is given by a URI. How it is spelt is the business of a [`Format`].
//!
//! - Group lengths are left out (PS3.18 F.2.2). Attributes are in ascending order even where the data set's are not.
//! - Text is UTF-8, so Specific Character Set (0008,0005) says ISO_IR 192 wherever it has a value. A data set that has
//!   none, and bytes outside ASCII nevertheless, shows U+FFFD in their place.
//! - A VR that is not written, or is UN for an attribute of the standard, is that of the dictionary (PS3.5 6.2.2). A value
//!   that is not a whole number of its VR's units is given as UN, all bytes of it, rather than cut.
//! - Pixel data at the top level, fragments, and values longer than the caller allows inline become URIs where their VR
//!   may have one. Each is asked of the caller; one that has no URI is left out altogether.
//!
//! A writer trusts that the scanner passes what it is shown: it is the scanner's visitor.

use std::collections::BTreeMap;
use std::fmt;

use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;
use gantry_deidentify::data_set::{DataSet, Element, Parsed, Value};
use gantry_store::dicom::TransferSyntax;
use gantry_store::dicom::scanner::{
    Budget, ElementHeader, Encoding, Event, ScanError, Scanner, Visitor,
};
use thiserror::Error;

use crate::place::Step;
use crate::value::{self, Kind, Lexeme};

/// Bytes of the longest value that is written inline whatever the caller allows: a text that may have no URI.
pub const MAX_INLINE: usize = 16 << 20;

/// Why there is no model of a data set.
#[derive(Clone, Debug, Error, Eq, PartialEq)]
#[non_exhaustive]
pub enum ModelError {
    /// It does not pass the scanner.
    #[error("data set is damaged")]
    Damaged(#[from] ScanError),
    /// Longer than [`MAX_INLINE`], and its VR may have no URI.
    #[error("value of attribute {tag} is longer than {MAX_INLINE} bytes")]
    TooLong {
        /// Which attribute.
        tag: Tag,
    },
    /// One name cannot stand for two values.
    #[error("attribute {tag} occurs twice in one data set or item")]
    Twice {
        /// Which attribute.
        tag: Tag,
    },
}

/// A value that is not written inline.
#[derive(Clone, Copy, Debug)]
pub struct BulkValue<'a> {
    /// Items around it, outermost first.
    pub path: &'a [Step],
    /// Its attribute.
    pub tag: Tag,
    /// The VR that it is shown under.
    pub vr: VR,
    /// Its bytes; `None` for fragments.
    pub length: Option<u64>,
}

impl fmt::Display for BulkValue<'_> {
    /// Its [`Place`](crate::place::Place).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        crate::place::write(f, self.path, self.tag)
    }
}

/// How a model is spelt. Numbers of values and items count from 1.
pub trait Format {
    /// Whether [`Format::attribute`] asks for private creators, which costs a look at each.
    const CREATORS: bool;

    /// Before the first attribute of a data set or item.
    fn set(out: &mut Vec<u8>, top: bool);
    /// Behind its last attribute.
    fn set_end(out: &mut Vec<u8>, top: bool);
    /// An attribute begins. Of a private one, who reserved its block (PS3.5 7.8.1), where that is known and nobody of that
    /// name reserved another block of the group before.
    fn attribute(out: &mut Vec<u8>, tag: Tag, vr: VR, creator: Option<&str>);
    /// It ends.
    fn attribute_end(out: &mut Vec<u8>);
    /// Before the first value; not called where there is none.
    fn values(out: &mut Vec<u8>);
    /// Behind the last value.
    fn values_end(out: &mut Vec<u8>);
    /// A value of several that has nothing in it.
    fn empty(out: &mut Vec<u8>, number: u32);
    /// A value of characters.
    fn text(out: &mut Vec<u8>, number: u32, text: &str);
    /// A number by the grammar of JSON.
    fn number(out: &mut Vec<u8>, number: u32, lexeme: &str);
    /// A person name with its groups: alphabetic, ideographic, phonetic (PS3.5 6.2.1).
    fn name(out: &mut Vec<u8>, number: u32, groups: [&str; 3]);
    /// Before an item's data set.
    fn item(out: &mut Vec<u8>, number: u32);
    /// Behind it.
    fn item_end(out: &mut Vec<u8>);
    /// The value as bytes, words in little endian.
    fn inline(out: &mut Vec<u8>, bytes: &[u8]);
    /// Where the value is.
    fn bulk(out: &mut Vec<u8>, uri: &str);
}

/// A data set on its way into a model.
pub struct Writer<F, U> {
    format: std::marker::PhantomData<F>,
    out: Vec<u8>,
    uri: U,
    inline: u64,
    /// The data set and the open items, outermost first.
    sets: Vec<Level>,
    path: Vec<Step>,
    /// Attributes of all open sets that have been written, and where each begins; a set owns those from its `first` on.
    written: Vec<(Tag, usize)>,
    /// The element whose value arrives.
    element: Option<(Tag, VR, Encoding)>,
    value: Vec<u8>,
    in_fragments: bool,
    failed: Option<ModelError>,
}

struct Level {
    first: usize,
    character_set: Option<Vec<u8>>,
    /// Pixel Representation (0028,0103) is 1.
    signed: Option<bool>,
    creators: BTreeMap<Tag, String>,
}

impl<F, U> fmt::Debug for Writer<F, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("written", &self.out.len()).finish_non_exhaustive()
    }
}

impl<F: Format, U: FnMut(&BulkValue<'_>) -> Option<String>> Writer<F, U> {
    /// A writer that goes on behind what is in `out`. `inline`: bytes of the longest value to be written there, for those
    /// that may have a URI; `uri` gives it.
    pub fn new(out: Vec<u8>, inline: u64, uri: U) -> Self {
        let mut writer = Self {
            format: std::marker::PhantomData,
            out,
            uri,
            inline: inline.min(MAX_INLINE as u64),
            sets: Vec::new(),
            path: Vec::new(),
            written: Vec::new(),
            element: None,
            value: Vec::new(),
            in_fragments: false,
            failed: None,
        };
        writer.set();
        writer
    }

    /// Ends the model.
    pub fn finish(mut self) -> Result<Vec<u8>, ModelError> {
        self.set_end();
        match self.failed {
            Some(error) => Err(error),
            None => Ok(self.out),
        }
    }

    /// Writes all attributes of a tree.
    pub fn tree(&mut self, set: &DataSet) {
        for Element { tag, vr, value } in &set.elements {
            match value {
                Value::Bytes(bytes) => {
                    if self.begin(*tag, *vr, Encoding::ExplicitLittle, Some(bytes.len() as u64)) {
                        self.value.extend_from_slice(bytes);
                        self.end_value();
                    }
                }
                Value::Fragments(_) => self.bulk(*tag, *vr, None),
                Value::Items(items) => {
                    self.sequence(*tag);
                    for item in items {
                        self.item();
                        self.tree(item);
                        self.item_end();
                    }
                    self.sequence_end();
                }
            }
        }
    }

    /// Writes what was parsed, its top-level pixel data as a URI.
    pub fn parsed(&mut self, parsed: &Parsed) {
        self.tree(&parsed.data_set);
        if let Some(pixels) = &parsed.pixel_data {
            let length = (!pixels.encapsulated).then(|| pixels.value.end - pixels.value.start);
            self.bulk(pixels.tag, pixels.vr, length);
        }
    }

    fn set(&mut self) {
        F::set(&mut self.out, self.path.is_empty());
        self.sets.push(Level {
            first: self.written.len(),
            character_set: None,
            signed: None,
            creators: BTreeMap::new(),
        });
    }

    fn set_end(&mut self) {
        let Some(set) = self.sets.pop() else { return };
        let written = self.written.get(set.first..).unwrap_or_default();
        if !written.is_sorted_by(|(one, _), (next, _)| one < next) {
            self.bring_into_order(set.first);
        }
        self.written.truncate(set.first);
        F::set_end(&mut self.out, self.path.is_empty());
    }

    /// Rearranges the attributes of the set that ends: those that came in disorder.
    fn bring_into_order(&mut self, first: usize) {
        let written = self.written.get(first..).unwrap_or_default();
        let Some((_, begin)) = written.first().copied() else { return };
        let ends = written.iter().skip(1).map(|(_, at)| *at).chain([self.out.len()]);
        let mut parts: Vec<_> =
            written.iter().zip(ends).map(|((tag, at), end)| (*tag, *at..end)).collect();
        parts.sort_by_key(|(tag, _)| *tag);
        if let Some((one, _)) =
            parts.iter().zip(parts.iter().skip(1)).find(|(one, next)| one.0 == next.0)
        {
            self.fail(ModelError::Twice { tag: one.0 });
            return;
        }
        let mut ordered = Vec::with_capacity(self.out.len() - begin);
        for (_, range) in parts {
            ordered.extend_from_slice(self.out.get(range).unwrap_or_default());
        }
        self.out.truncate(begin);
        self.out.append(&mut ordered);
    }

    fn fail(&mut self, error: ModelError) {
        self.failed.get_or_insert(error);
    }

    fn attribute(&mut self, tag: Tag, vr: VR) {
        self.written.push((tag, self.out.len()));
        let creator = self.sets.last().filter(|_| F::CREATORS).and_then(|set| {
            let block = Tag(tag.group(), tag.element() >> 8);
            set.creators.get(&block).map(String::as_str)
        });
        F::attribute(&mut self.out, tag, vr, creator);
    }

    /// An element begins. Whether its value is to be gathered.
    fn begin(&mut self, tag: Tag, vr: VR, encoding: Encoding, length: Option<u64>) -> bool {
        self.element = None;
        self.value.clear();
        if tag.element() == 0 || self.failed.is_some() {
            return false;
        }
        let is_long = length.is_none_or(|length| length > self.inline);
        if self.path.is_empty() && is_pixel_data(tag) || is_long && value::may_be_bulk(vr) {
            self.bulk(tag, vr, length);
            return false;
        }
        if length.is_none_or(|length| length > MAX_INLINE as u64) {
            self.fail(ModelError::TooLong { tag });
            return false;
        }
        self.element = Some((tag, vr, encoding));
        true
    }

    fn bulk(&mut self, tag: Tag, vr: VR, length: Option<u64>) {
        if let Some(uri) = (self.uri)(&BulkValue { path: &self.path, tag, vr, length }) {
            self.attribute(tag, vr);
            F::bulk(&mut self.out, &uri);
            F::attribute_end(&mut self.out);
        }
    }

    fn sequence(&mut self, tag: Tag) {
        self.attribute(tag, VR::SQ);
        self.path.push(Step { sequence: tag, item: 0 });
    }

    fn item(&mut self) {
        let Some(step) = self.path.last_mut() else { return };
        step.item += 1;
        let number = step.item;
        if number == 1 {
            F::values(&mut self.out);
        }
        F::item(&mut self.out, number);
        self.set();
    }

    fn item_end(&mut self) {
        self.set_end();
        F::item_end(&mut self.out);
    }

    fn sequence_end(&mut self) {
        if self.path.pop().is_some_and(|step| step.item > 0) {
            F::values_end(&mut self.out);
        }
        F::attribute_end(&mut self.out);
    }

    fn end_value(&mut self) {
        let Some((tag, mut vr, encoding)) = self.element.take() else { return };
        let mut bytes = std::mem::take(&mut self.value);
        let unit = value::unit(vr);
        if encoding == Encoding::ExplicitBig {
            value::swap(&mut bytes, unit);
        }
        let whole = if vr == VR::AT { 4 } else { unit };
        if !bytes.len().is_multiple_of(whole) || vr == VR::SQ {
            vr = VR::UN;
        }
        self.note(tag, vr, &bytes);
        self.attribute(tag, vr);
        if tag == tags::SPECIFIC_CHARACTER_SET && bytes.iter().any(|byte| !matches!(byte, b' ' | 0))
        {
            Self::texts(&mut self.out, VR::CS, "ISO_IR 192");
        } else {
            self.write(vr, &bytes);
        }
        F::attribute_end(&mut self.out);
        self.value = bytes;
    }

    /// Remembers what the meaning of later values depends on.
    fn note(&mut self, tag: Tag, vr: VR, bytes: &[u8]) {
        match tag {
            tags::SPECIFIC_CHARACTER_SET => {
                if let Some(set) = self.sets.last_mut() {
                    set.character_set = Some(bytes.to_vec());
                }
            }
            tags::PIXEL_REPRESENTATION => {
                if let Some(set) = self.sets.last_mut() {
                    set.signed = Some(bytes.first() == Some(&1));
                }
            }
            _ if F::CREATORS
                && value::is_private_creator(tag)
                && value::kind(vr) == Kind::Texts =>
            {
                let name = value::decode(self.character_set(), bytes).trim().to_owned();
                if let Some(set) = self.sets.last_mut() {
                    let first = Tag(tag.group(), 0);
                    if !set.creators.range(first..tag).any(|(_, other)| *other == name) {
                        set.creators.insert(tag, name);
                    }
                }
            }
            _ => {}
        }
    }

    /// The one of the item, else of what is around it (PS3.3 C.12.1.1.2).
    fn character_set(&self) -> &[u8] {
        self.sets.iter().rev().find_map(|set| set.character_set.as_deref()).unwrap_or_default()
    }

    /// Whether pixels of the item, else of what is around it, are signed.
    fn signed(&self) -> bool {
        self.sets.iter().rev().find_map(|set| set.signed).unwrap_or_default()
    }

    fn write(&mut self, vr: VR, bytes: &[u8]) {
        let kind = value::kind(vr);
        match kind {
            _ if bytes.is_empty() => {}
            Kind::Binary(_) | Kind::Items => F::inline(&mut self.out, bytes),
            Kind::Tags => {
                F::values(&mut self.out);
                for (number, tag) in (1..).zip(bytes.chunks_exact(4)) {
                    if let [g0, g1, e0, e1] = tag {
                        F::text(
                            &mut self.out,
                            number,
                            &format!("{g1:02X}{g0:02X}{e1:02X}{e0:02X}"),
                        );
                    }
                }
                F::values_end(&mut self.out);
            }
            Kind::Numbers(unit) => {
                F::values(&mut self.out);
                for (number, bytes) in (1..).zip(bytes.chunks_exact(unit)) {
                    Self::lexeme(&mut self.out, number, &value::number(vr, bytes));
                }
                F::values_end(&mut self.out);
            }
            Kind::Text => {
                let text = value::decode(self.character_set(), bytes);
                let text = value::trimmed(vr, &text);
                if !text.is_empty() {
                    F::values(&mut self.out);
                    F::text(&mut self.out, 1, text);
                    F::values_end(&mut self.out);
                }
            }
            Kind::Texts | Kind::Names | Kind::Decimals => {
                let set = self.sets.iter().rev().find_map(|set| set.character_set.as_deref());
                let text = value::decode(set.unwrap_or_default(), bytes);
                Self::texts(&mut self.out, vr, &text);
            }
        }
    }

    fn lexeme(out: &mut Vec<u8>, number: u32, lexeme: &Lexeme<'_>) {
        match lexeme {
            Lexeme::Number(lexeme) => F::number(out, number, lexeme),
            Lexeme::Text(text) => F::text(out, number, text),
        }
    }

    /// Values with backslashes between them.
    fn texts(out: &mut Vec<u8>, vr: VR, text: &str) {
        if text.is_empty() {
            return;
        }
        F::values(out);
        for (number, text) in (1..).zip(text.split('\\')) {
            let text = value::trimmed(vr, text);
            match value::kind(vr) {
                _ if text.is_empty() => F::empty(out, number),
                Kind::Decimals => Self::lexeme(out, number, &value::decimal(vr, text)),
                Kind::Names => {
                    let mut parts = text.splitn(3, '=').map(|group| group.trim_end_matches(' '));
                    let groups = [(); 3].map(|()| parts.next().unwrap_or_default());
                    if groups == [""; 3] {
                        F::empty(out, number);
                    } else {
                        F::name(out, number, groups);
                    }
                }
                _ => F::text(out, number, text),
            }
        }
        F::values_end(out);
    }

    fn vr_of(&self, header: &ElementHeader<'_>) -> VR {
        match header.vr {
            None => value::known_vr(header.tag, self.signed()),
            // In big endian nobody knows the order of unknown bytes.
            Some(VR::UN) if header.encoding != Encoding::ExplicitBig => {
                match value::known_vr(header.tag, self.signed()) {
                    VR::SQ => VR::UN,
                    vr => vr,
                }
            }
            Some(vr) => vr,
        }
    }
}

fn is_pixel_data(tag: Tag) -> bool {
    matches!(tag, tags::PIXEL_DATA | tags::FLOAT_PIXEL_DATA | tags::DOUBLE_FLOAT_PIXEL_DATA)
}

impl<F: Format, U: FnMut(&BulkValue<'_>) -> Option<String>> Visitor for Writer<F, U> {
    fn visit(&mut self, event: Event<'_>) {
        match event {
            Event::Element(header) => {
                let length = header.length.map(u64::from);
                self.begin(header.tag, self.vr_of(&header), header.encoding, length);
            }
            Event::Fragments(header) => {
                self.element = None;
                let vr = header.vr.unwrap_or(VR::OB);
                self.bulk(header.tag, vr, None);
                self.in_fragments = true;
            }
            Event::Sequence(header) => self.sequence(header.tag),
            Event::Item(_) => self.item(),
            Event::Fragment(_) => {}
            Event::Value(bytes) => {
                if self.element.is_some() {
                    self.value.extend_from_slice(bytes);
                }
            }
            Event::ValueEnd => self.end_value(),
            Event::ItemEnd(_) => self.item_end(),
            Event::SequenceEnd(_) if self.in_fragments => self.in_fragments = false,
            Event::SequenceEnd(_) => self.sequence_end(),
        }
    }
}

/// Writes the model of a data set that is whole in memory, or of what precedes its pixel data, behind what is in `out`.
/// The bytes must end between two top-level elements.
pub fn encoded<F: Format>(
    syntax: &TransferSyntax,
    bytes: &[u8],
    out: Vec<u8>,
    inline: u64,
    uri: impl FnMut(&BulkValue<'_>) -> Option<String>,
) -> Result<Vec<u8>, ModelError> {
    let writer = Writer::<F, _>::new(out, inline, uri);
    let budget = Budget { total: Some(bytes.len() as u64), ..Budget::default() };
    let mut scanner = Scanner::with_visitor(syntax, budget, writer);
    scanner.feed(bytes)?;
    let (_, writer) = scanner.finish_visit()?;
    writer.finish()
}

/// Writes the model of a tree behind what is in `out`.
pub fn tree<F: Format>(
    set: &DataSet,
    out: Vec<u8>,
    inline: u64,
    uri: impl FnMut(&BulkValue<'_>) -> Option<String>,
) -> Result<Vec<u8>, ModelError> {
    let mut writer = Writer::<F, _>::new(out, inline, uri);
    writer.tree(set);
    writer.finish()
}
