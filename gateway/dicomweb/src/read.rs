//! From what a model says to a tree: what the readers of JSON and XML share.
//!
//! One pass; the order of members does not matter. Never two meanings: an attribute or member that occurs twice is an
//! error, as is a backslash in a value that it would divide in two. Depth, number and length are within [`Limits`].

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;
use gantry_deidentify::data_set::{DataSet, Element, Value};
use thiserror::Error;

use crate::json::Fault;
use crate::place::{self, Place, Step};
use crate::value::{self, Kind};

/// How much is read. The defaults are for the metadata of a study, from strangers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Bytes of the text.
    pub bytes: usize,
    /// Sequences inside sequences; as many as the scanner allows.
    pub depth: usize,
    /// Attributes, items and objects together; a URI counts as often as there are sequences around it, as its place is kept.
    pub elements: u64,
    /// Values that are no items, of all attributes together: until an attribute ends each takes 32 bytes, and "1," two.
    pub values: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 64 << 20, depth: 64, elements: 2_000_000, values: 4_000_000 }
    }
}

/// A value that is elsewhere (PS3.18 F.2.6). It is never fetched; in the tree the attribute is empty.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Bulk {
    /// Where it belongs; [`fill`] puts it there.
    pub place: Place,
    /// Its VR.
    pub vr: VR,
    /// The URI, not looked at: any text.
    pub uri: String,
}

/// A data set that was read.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Object {
    /// Its attributes, text in ISO_IR 192.
    pub data_set: DataSet,
    /// Attributes of group 0002, which some put beside them to say the transfer syntax (PS3.18 10.5.1.2).
    pub file_meta: DataSet,
    /// Values that are elsewhere, in the order in which they were named.
    pub bulk: Vec<Bulk>,
}

/// What is wrong.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum Wrong {
    /// No JSON.
    #[error(transparent)]
    Json(#[from] Fault),
    /// Not well-formed, or with a document type or entities, which are never resolved.
    #[error("not well-formed XML without entities")]
    Xml,
    /// An element or attribute of XML that the model does not have here.
    #[error("not of the native model")]
    Model,
    /// More bytes than [`Limits::bytes`].
    #[error("longer than {0} bytes")]
    TooLong(usize),
    /// More than [`Limits::depth`].
    #[error("sequences nested deeper than {0} levels")]
    TooDeep(usize),
    /// More than [`Limits::elements`].
    #[error("more than {0} attributes and items")]
    TooMany(u64),
    /// More than [`Limits::values`].
    #[error("more than {0} values")]
    TooManyValues(u64),
    /// The name of an attribute is not eight hexadecimal digits, or it may not stand here.
    #[error("not the tag of an attribute that may stand here")]
    Tag,
    /// Neither written nor in the dictionary, or unknown.
    #[error("no value representation")]
    Vr,
    /// More than one of Value, InlineBinary and BulkDataURI, or one of them or an attribute twice.
    #[error("occurs twice")]
    Twice,
    /// A value that its VR does not have.
    #[error("a value that its value representation does not have")]
    Value,
}

/// What is wrong, and where; never a value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ReadError {
    /// Bytes before it.
    pub at: usize,
    /// The attribute, once one has begun.
    pub place: Option<Place>,
    /// What.
    pub wrong: Wrong,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "wrong at byte {}", self.at)?;
        if let Some(place) = &self.place {
            write!(f, ", attribute {place}")?;
        }
        write!(f, ": {}", self.wrong)
    }
}

impl std::error::Error for ReadError {}

/// Puts a value that was elsewhere into its place. Whether the place is there.
pub fn fill(set: &mut DataSet, place: &Place, bytes: Vec<u8>) -> bool {
    let mut set = set;
    for step in &place.path {
        let Ok(at) = set.elements.binary_search_by_key(&step.sequence, |element| element.tag)
        else {
            return false;
        };
        let Some(Element { value: Value::Items(items), .. }) = set.elements.get_mut(at) else {
            return false;
        };
        let item = (step.item as usize).checked_sub(1).and_then(|item| items.get_mut(item));
        let Some(item) = item else { return false };
        set = item;
    }
    let found = set.elements.binary_search_by_key(&place.tag, |element| element.tag);
    match found.ok().and_then(|at| set.elements.get_mut(at)) {
        Some(Element { value: value @ Value::Bytes(_), .. }) => {
            *value = Value::Bytes(bytes);
            true
        }
        _ => false,
    }
}

/// A tree that grows.
pub(crate) struct Builder {
    limits: Limits,
    elements: u64,
    values: u64,
    pub(crate) path: Vec<Step>,
    /// The attribute that is being read, for messages.
    pub(crate) tag: Option<Tag>,
    bulk: Vec<Bulk>,
    file_meta: DataSet,
    /// A value outside ASCII has been read.
    wide: bool,
}

impl Builder {
    /// Checks the length, and begins.
    pub(crate) fn new(bytes: &[u8], limits: &Limits) -> Result<Self, ReadError> {
        if bytes.len() > limits.bytes {
            let wrong = Wrong::TooLong(limits.bytes);
            return Err(ReadError { at: limits.bytes, place: None, wrong });
        }
        Ok(Self {
            limits: *limits,
            elements: 0,
            values: 0,
            path: Vec::new(),
            tag: None,
            bulk: Vec::new(),
            file_meta: DataSet::default(),
            wide: false,
        })
    }

    /// The error with its place.
    pub(crate) fn error(&self, at: usize, wrong: Wrong) -> ReadError {
        let place = self.tag.map(|tag| Place { path: self.path.clone(), tag });
        ReadError { at, place, wrong }
    }

    fn count(&mut self) -> Result<(), Wrong> {
        self.elements += 1;
        if self.elements > self.limits.elements {
            return Err(Wrong::TooMany(self.limits.elements));
        }
        Ok(())
    }

    /// A value follows.
    pub(crate) fn count_value(&mut self) -> Result<(), Wrong> {
        self.values += 1;
        if self.values > self.limits.values {
            return Err(Wrong::TooManyValues(self.limits.values));
        }
        Ok(())
    }

    /// An object begins.
    pub(crate) fn begin(&mut self) -> Result<(), Wrong> {
        self.wide = false;
        self.tag = None;
        self.count()
    }

    /// It ends, with these attributes.
    pub(crate) fn end(&mut self, set: DataSet) -> Result<Object, Wrong> {
        let mut data_set = self.in_order(set)?;
        if self.wide {
            data_set.put(Element::new(tags::SPECIFIC_CHARACTER_SET, VR::CS, "ISO_IR 192"));
        }
        let file_meta = std::mem::take(&mut self.file_meta);
        let file_meta = self.in_order(file_meta)?;
        Ok(Object { data_set, file_meta, bulk: std::mem::take(&mut self.bulk) })
    }

    /// An item begins, or what may turn out to be a name.
    pub(crate) fn enter(&mut self, step: Step) -> Result<(), Wrong> {
        self.count()?;
        self.path.push(step);
        Ok(())
    }

    /// It ends; what follows belongs to its sequence again.
    pub(crate) fn leave(&mut self) {
        self.tag = self.path.pop().map(|step| step.sequence);
    }

    /// An attribute begins, by the digits of its tag.
    pub(crate) fn attribute(&mut self, digits: &str) -> Result<Tag, Wrong> {
        self.count()?;
        let tag = place::tag(digits).ok_or(Wrong::Tag)?;
        self.tag = Some(tag);
        if self.path.len() > self.limits.depth {
            return Err(Wrong::TooDeep(self.limits.depth));
        }
        let in_item = !self.path.is_empty();
        if matches!(tag.group(), 0x0000 | 0xFFFE) || tag.group() == 0x0002 && in_item {
            return Err(Wrong::Tag);
        }
        Ok(tag)
    }

    /// It ends. A VR that is not written is that of the dictionary.
    pub(crate) fn attribute_end(
        &mut self,
        tag: Tag,
        members: Members<'_>,
        set: &mut DataSet,
    ) -> Result<(), Wrong> {
        let given = [members.values.is_some(), members.inline.is_some(), members.uri.is_some()];
        if given.into_iter().filter(|given| *given).count() > 1 {
            return Err(Wrong::Twice);
        }
        let vr = match members.vr {
            Some(vr) => vr,
            None => match value::known_vr(tag, false) {
                VR::UN => return Err(Wrong::Vr),
                vr => vr,
            },
        };
        let value = self.value(tag, vr, members)?;
        let into = if tag.group() == 0x0002 { &mut self.file_meta } else { set };
        into.elements.push(Element { tag, vr, value });
        Ok(())
    }

    /// Brings attributes into their order.
    pub(crate) fn in_order(&mut self, mut set: DataSet) -> Result<DataSet, Wrong> {
        set.elements.sort_by_key(|element| element.tag);
        let mut pairs = set.elements.iter().zip(set.elements.iter().skip(1));
        if let Some((twice, _)) = pairs.find(|(one, next)| one.tag == next.tag) {
            self.tag = Some(twice.tag);
            return Err(Wrong::Twice);
        }
        Ok(set)
    }

    fn value(&mut self, tag: Tag, vr: VR, members: Members<'_>) -> Result<Value, Wrong> {
        if let Some(uri) = members.uri {
            if !value::may_be_bulk(vr) {
                return Err(Wrong::Value);
            }
            self.elements += self.path.len() as u64;
            self.count()?;
            let place = Place { path: self.path.clone(), tag };
            self.bulk.push(Bulk { place, vr, uri: uri.into_owned() });
            return Ok(Value::Bytes(Vec::new()));
        }
        if let Some(text) = members.inline {
            if !matches!(value::kind(vr), Kind::Binary(_)) {
                return Err(Wrong::Value);
            }
            return STANDARD.decode(text.as_bytes()).map(Value::Bytes).map_err(|_| Wrong::Value);
        }
        let values = members.values.unwrap_or_default();
        if value::kind(vr) == Kind::Items {
            let items = values.into_iter().map(|raw| match raw {
                Raw::Item(set) => Ok(set),
                Raw::Null | Raw::Empty => Ok(DataSet::default()),
                _ => Err(Wrong::Value),
            });
            return items.collect::<Result<_, _>>().map(Value::Items);
        }
        let bytes = bytes(vr, values)?;
        self.wide |= !bytes.is_ascii() && has_characters(vr);
        // An item's that is empty would say ASCII, whatever the item holds.
        let is_item = !self.path.is_empty();
        if tag == tags::SPECIFIC_CHARACTER_SET && (is_item || !bytes.is_empty()) {
            return Ok(Value::Bytes(b"ISO_IR 192".to_vec()));
        }
        Ok(Value::Bytes(bytes))
    }
}

/// A value before its VR is known: members may come in any order.
pub(crate) enum Raw<'a> {
    Null,
    Text(Cow<'a, str>),
    Number(&'a str),
    Name(Box<[Cow<'a, str>; 3]>),
    Item(DataSet),
    /// `{}`: an empty item or an empty name.
    Empty,
}

// What `Limits::values` reckons with.
const _: () = assert!(size_of::<Raw<'_>>() <= 32);

/// What an attribute's object holds.
#[derive(Default)]
pub(crate) struct Members<'a> {
    pub(crate) vr: Option<VR>,
    pub(crate) values: Option<Vec<Raw<'a>>>,
    pub(crate) inline: Option<Cow<'a, str>>,
    pub(crate) uri: Option<Cow<'a, str>>,
}

fn has_characters(vr: VR) -> bool {
    matches!(value::kind(vr), Kind::Texts | Kind::Text | Kind::Names | Kind::Decimals)
}

/// Sets what may be given once.
pub(crate) fn once<T>(place: &mut Option<T>, value: T) -> Result<(), Wrong> {
    if place.replace(value).is_some() { Err(Wrong::Twice) } else { Ok(()) }
}

/// The bytes of values that are no items.
fn bytes(vr: VR, values: Vec<Raw<'_>>) -> Result<Vec<u8>, Wrong> {
    let kind = value::kind(vr);
    let mut bytes = Vec::new();
    let several = values.len() > 1;
    for (at, raw) in values.into_iter().enumerate() {
        match kind {
            Kind::Items | Kind::Binary(_) => return Err(Wrong::Value),
            Kind::Numbers(_) | Kind::Tags => match &raw {
                Raw::Number(text) => binary(vr, text, &mut bytes).ok_or(Wrong::Value)?,
                Raw::Text(text) => binary(vr, text, &mut bytes).ok_or(Wrong::Value)?,
                _ => return Err(Wrong::Value),
            },
            Kind::Text if several => return Err(Wrong::Value),
            _ => {
                if at > 0 {
                    bytes.push(b'\\');
                }
                let text = characters(vr, raw)?;
                if kind != Kind::Text && text.contains('\\') {
                    return Err(Wrong::Value);
                }
                bytes.extend_from_slice(text.as_bytes());
            }
        }
    }
    Ok(bytes)
}

/// One value of characters.
fn characters(vr: VR, raw: Raw<'_>) -> Result<Cow<'_, str>, Wrong> {
    match (raw, value::kind(vr)) {
        (Raw::Null, _) | (Raw::Empty, Kind::Names) => Ok(Cow::Borrowed("")),
        (Raw::Name(groups), Kind::Names) => {
            if groups.iter().any(|group| group.contains('=')) {
                return Err(Wrong::Value);
            }
            Ok(Cow::Owned(groups.join("=").trim_end_matches('=').to_owned()))
        }
        (Raw::Text(text), _) => Ok(text),
        (Raw::Number(text), Kind::Decimals) => decimal(vr, text),
        (Raw::Number(text), Kind::Texts) => Ok(Cow::Borrowed(text)),
        _ => Err(Wrong::Value),
    }
}

/// A number as DS, which has at most 16 characters, or as IS, which has no point (PS3.5 6.2).
fn decimal(vr: VR, text: &str) -> Result<Cow<'_, str>, Wrong> {
    const LONGEST: usize = 16;
    if vr == VR::IS {
        return match text.split_once('.') {
            None if value::is_json_number(text, true) => Ok(Cow::Borrowed(text)),
            Some((whole, zeros)) if zeros.bytes().all(|byte| byte == b'0') => {
                Ok(Cow::Borrowed(whole))
            }
            _ => Err(Wrong::Value),
        };
    }
    if text.len() <= LONGEST {
        return Ok(Cow::Borrowed(text));
    }
    let number: f64 = text.parse().map_err(|_| Wrong::Value)?;
    // As many digits as there is room for, written the shorter way.
    let rounded =
        (0..LONGEST).rev().filter_map(|digits| format!("{number:.digits$e}").parse::<f64>().ok());
    let mut written = rounded.flat_map(|number| [number.to_string(), format!("{number:e}")]);
    written.find(|text| text.len() <= LONGEST).map(Cow::Owned).ok_or(Wrong::Value)
}

/// A number or tag in its bytes, little endian.
fn binary(vr: VR, text: &str, out: &mut Vec<u8>) -> Option<()> {
    // Some write whole numbers as 1.0.
    let whole = match text.split_once('.') {
        Some((whole, zeros)) if zeros.bytes().all(|byte| byte == b'0') => whole,
        _ => text,
    };
    match vr {
        VR::AT => {
            let tag = place::tag(text)?;
            out.extend_from_slice(&tag.group().to_le_bytes());
            out.extend_from_slice(&tag.element().to_le_bytes());
        }
        VR::US => out.extend_from_slice(&whole.parse::<u16>().ok()?.to_le_bytes()),
        VR::SS => out.extend_from_slice(&whole.parse::<i16>().ok()?.to_le_bytes()),
        VR::UL => out.extend_from_slice(&whole.parse::<u32>().ok()?.to_le_bytes()),
        VR::SL => out.extend_from_slice(&whole.parse::<i32>().ok()?.to_le_bytes()),
        VR::UV => out.extend_from_slice(&whole.parse::<u64>().ok()?.to_le_bytes()),
        VR::SV => out.extend_from_slice(&whole.parse::<i64>().ok()?.to_le_bytes()),
        // Also the strings for what is no number; Rust reads those that are written here.
        VR::FL => out.extend_from_slice(&text.parse::<f32>().ok()?.to_le_bytes()),
        _ => out.extend_from_slice(&text.parse::<f64>().ok()?.to_le_bytes()),
    }
    Some(())
}
