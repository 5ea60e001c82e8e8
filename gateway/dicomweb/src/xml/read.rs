//! XML to a tree. No document type, no entity but the five of XML itself, nothing fetched; depth, number and length are
//! bounded as for JSON. Attributes and elements that the model does not have are refused, except comments and processing
//! instructions.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use dicom_core::{Tag, VR};
use gantry_deidentify::data_set::{DataSet, Element};
use quick_xml::XmlVersion;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesStart, Event};

use super::{COMPONENTS, GROUPS, is_char};
use crate::place::Step;
use crate::read::{Builder, Limits, Members, Object, Raw, ReadError, Wrong, once};
use crate::value;

/// The most attributes of an element: the model has four, and a document may declare name spaces.
const MAX_ATTRIBUTES: usize = 16;

/// Reads one data set.
pub fn read(bytes: &[u8], limits: &Limits) -> Result<Object, ReadError> {
    let builder = Builder::new(bytes, limits)?;
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => return Err(builder.error(error.valid_up_to(), Wrong::Xml)),
    };
    if let Some((at, _)) = text.char_indices().find(|(_, c)| !is_char(*c)) {
        return Err(builder.error(at, Wrong::Xml));
    }
    let mut xml = quick_xml::Reader::from_str(text);
    xml.config_mut().expand_empty_elements = true;
    let mut reader = Reader { xml, builder };
    reader.document().map_err(|wrong| {
        let at = usize::try_from(reader.xml.buffer_position()).unwrap_or(usize::MAX);
        reader.builder.error(at, wrong)
    })
}

struct Reader<'a> {
    xml: quick_xml::Reader<&'a [u8]>,
    builder: Builder,
}

/// What is inside an element, apart from comments.
enum Inside<'a> {
    Begin(BytesStart<'a>),
    Text(Cow<'a, str>),
    End,
    Eof,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<Inside<'a>, Wrong> {
        loop {
            return Ok(match self.xml.read_event().map_err(|_| Wrong::Xml)? {
                Event::Start(start) => Inside::Begin(start),
                Event::End(_) => Inside::End,
                Event::Eof => Inside::Eof,
                Event::Text(text) => Inside::Text(text.xml10_content().map_err(|_| Wrong::Xml)?),
                Event::CData(text) => Inside::Text(text.xml10_content().map_err(|_| Wrong::Xml)?),
                Event::GeneralRef(reference) => {
                    let character = reference.resolve_char_ref().map_err(|_| Wrong::Xml)?;
                    let name = reference.decode().map_err(|_| Wrong::Xml)?;
                    match character {
                        Some(character) if is_char(character) => {
                            Inside::Text(character.to_string().into())
                        }
                        Some(_) => return Err(Wrong::Xml),
                        None => {
                            Inside::Text(resolve_predefined_entity(&name).ok_or(Wrong::Xml)?.into())
                        }
                    }
                }
                Event::DocType(_) => return Err(Wrong::Xml),
                // An empty element is shown as its begin and end.
                Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::Empty(_) => continue,
            });
        }
    }

    /// The next element, or `None` where what is around it ends; there is nothing but space between.
    fn element(&mut self) -> Result<Option<BytesStart<'a>>, Wrong> {
        loop {
            match self.next()? {
                Inside::Begin(start) => return Ok(Some(start)),
                Inside::Text(text) if text.trim_matches([' ', '\t', '\r', '\n']).is_empty() => {}
                Inside::Text(_) => return Err(Wrong::Model),
                Inside::End => return Ok(None),
                Inside::Eof => return Err(Wrong::Xml),
            }
        }
    }

    /// The text of an element, to its end.
    fn text(&mut self) -> Result<Cow<'a, str>, Wrong> {
        let mut whole = Cow::Borrowed("");
        loop {
            match self.next()? {
                Inside::Text(text) if whole.is_empty() => whole = text,
                Inside::Text(text) => whole.to_mut().push_str(&text),
                Inside::End => return Ok(whole),
                Inside::Begin(_) => return Err(Wrong::Model),
                Inside::Eof => return Err(Wrong::Xml),
            }
        }
    }

    fn nothing(&mut self) -> Result<(), Wrong> {
        match self.element()? {
            None => Ok(()),
            Some(_) => Err(Wrong::Model),
        }
    }

    fn document(&mut self) -> Result<Object, Wrong> {
        self.builder.begin()?;
        let root = loop {
            match self.next()? {
                Inside::Begin(start) => break start,
                Inside::Text(text)
                    if text.trim_matches(['\u{FEFF}', ' ', '\t', '\r', '\n']).is_empty() => {}
                _ => return Err(Wrong::Xml),
            }
        };
        if root.local_name().as_ref() != b"NativeDicomModel" {
            return Err(Wrong::Model);
        }
        let mut set = DataSet::default();
        self.attributes(&mut set)?;
        loop {
            match self.next()? {
                Inside::Eof => return self.builder.end(set),
                Inside::Text(text) if text.trim().is_empty() => {}
                _ => return Err(Wrong::Xml),
            }
        }
    }

    /// Attributes of the data set, to the end of what is around them.
    fn attributes(&mut self, set: &mut DataSet) -> Result<(), Wrong> {
        let mut blocks = Blocks::default();
        while let Some(start) = self.element()? {
            if start.local_name().as_ref() != b"DicomAttribute" {
                return Err(Wrong::Model);
            }
            let digits = named(&start, b"tag")?.ok_or(Wrong::Tag)?;
            let mut tag = self.builder.attribute(&digits)?;
            let creator = named(&start, b"privateCreator")?;
            if let Some(creator) = creator.filter(|_| is_blockless(tag)) {
                let (block, is_new) = blocks.of(tag.group(), &creator).ok_or(Wrong::Tag)?;
                if is_new {
                    let reserves = Tag(tag.group(), block);
                    let values = Some(vec![Raw::Text(Cow::Owned(creator))]);
                    let members = Members { vr: Some(VR::LO), values, ..Members::default() };
                    self.builder.attribute_end(reserves, members, set)?;
                }
                tag = Tag(tag.group(), block << 8 | tag.element());
                self.builder.tag = Some(tag);
            }
            let mut members = Members::default();
            if let Some(vr) = named(&start, b"vr")? {
                members.vr = Some(vr.parse().map_err(|_| Wrong::Vr)?);
            }
            self.members(tag, &mut members)?;
            self.builder.attribute_end(tag, members, set)?;
            let creator = set.elements.last().filter(|_| value::is_private_creator(tag));
            if let Some(name) = creator.and_then(Element::bytes) {
                blocks.reserved(tag, &String::from_utf8_lossy(name));
            }
        }
        Ok(())
    }

    fn members(&mut self, tag: Tag, members: &mut Members<'a>) -> Result<(), Wrong> {
        while let Some(start) = self.element()? {
            let mut number = 0;
            if matches!(start.local_name().as_ref(), b"Value" | b"PersonName" | b"Item") {
                self.builder.count_value()?;
                let values = members.values.get_or_insert_default();
                number = u32::try_from(values.len() + 1).map_err(|_| Wrong::Model)?;
                // Numbers ascend from 1 without gaps, so that order and number never contradict each other.
                if named(&start, b"number")?.is_some_and(|text| text != number.to_string()) {
                    return Err(Wrong::Model);
                }
            }
            let value = match start.local_name().as_ref() {
                b"Value" => match self.text()? {
                    text if text.is_empty() => Raw::Null,
                    text => Raw::Text(text),
                },
                b"PersonName" => self.name()?,
                b"Item" => {
                    self.builder.enter(Step { sequence: tag, item: number })?;
                    let mut set = DataSet::default();
                    self.attributes(&mut set)?;
                    self.builder.leave();
                    Raw::Item(self.builder.in_order(set)?)
                }
                b"InlineBinary" => {
                    let text = self.text()?;
                    // Long ones are often broken into lines.
                    let digits = text.split_ascii_whitespace().collect::<String>();
                    once(&mut members.inline, Cow::Owned(digits))?;
                    continue;
                }
                b"BulkData" => {
                    let uri = named(&start, b"uri")?.ok_or(Wrong::Model)?;
                    self.nothing()?;
                    once(&mut members.uri, Cow::Owned(uri))?;
                    continue;
                }
                _ => return Err(Wrong::Model),
            };
            members.values.get_or_insert_default().push(value);
        }
        Ok(())
    }

    fn name(&mut self) -> Result<Raw<'a>, Wrong> {
        let mut groups: [Option<Cow<'a, str>>; 3] = [None, None, None];
        while let Some(start) = self.element()? {
            let is_start = |name: &&str| name.as_bytes() == start.local_name().as_ref();
            let at = GROUPS.iter().position(is_start).ok_or(Wrong::Model)?;
            let group = self.group()?;
            once(groups.get_mut(at).ok_or(Wrong::Model)?, Cow::Owned(group))?;
        }
        Ok(Raw::Name(Box::new(groups.map(Option::unwrap_or_default))))
    }

    /// One group of a name, with carets between its components.
    fn group(&mut self) -> Result<String, Wrong> {
        let mut components: [Option<Cow<'a, str>>; 5] = [const { None }; 5];
        while let Some(start) = self.element()? {
            let is_start = |name: &&str| name.as_bytes() == start.local_name().as_ref();
            let at = COMPONENTS.iter().position(is_start).ok_or(Wrong::Model)?;
            let text = self.text()?;
            once(components.get_mut(at).ok_or(Wrong::Model)?, text)?;
        }
        let joined = components.map(Option::unwrap_or_default).join("^");
        Ok(joined.trim_end_matches('^').to_owned())
    }
}

/// Whether the number of the block is missing: gggg00ee.
fn is_blockless(tag: Tag) -> bool {
    tag.group() % 2 == 1 && tag.element() <= 0xFF
}

/// Blocks of private attributes in one data set or item (PS3.5 7.8.1).
#[derive(Default)]
struct Blocks {
    by_creator: BTreeMap<(u16, String), u16>,
    /// Creators that are there, by their tags.
    taken: BTreeSet<Tag>,
}

impl Blocks {
    /// A private creator that the document has.
    fn reserved(&mut self, tag: Tag, creator: &str) {
        self.taken.insert(tag);
        let creator = (tag.group(), creator.trim().to_owned());
        self.by_creator.entry(creator).or_insert(tag.element());
    }

    /// The block of a creator, and whether it is reserved only now; `None` where all are taken.
    fn of(&mut self, group: u16, creator: &str) -> Option<(u16, bool)> {
        let key = (group, creator.trim().to_owned());
        if let Some(block) = self.by_creator.get(&key) {
            return Some((*block, false));
        }
        let block = (0x10..=0xFF).find(|block| !self.taken.contains(&Tag(group, *block)))?;
        self.taken.insert(Tag(group, block));
        self.by_creator.insert(key, block);
        Some((block, true))
    }
}

/// The value of an attribute of XML.
fn named(start: &BytesStart<'_>, name: &[u8]) -> Result<Option<String>, Wrong> {
    let mut found = None;
    for (number, attribute) in start.attributes().enumerate() {
        let attribute = attribute.map_err(|_| Wrong::Xml)?;
        if number == MAX_ATTRIBUTES {
            return Err(Wrong::Model);
        }
        if attribute.key.as_ref() == name {
            let value = attribute.normalized_value(XmlVersion::Implicit1_0);
            found = Some(value.map_err(|_| Wrong::Xml)?.into_owned());
        }
    }
    Ok(found)
}
