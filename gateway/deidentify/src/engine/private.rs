//! Private attributes (PS3.5 7.8): removed, but for those that are known to be safe (PS3.15 E.3.10).
//!
//! A private attribute is known by its group, the creator of its block and the low byte of its number; the block's own
//! number differs from object to object. Blocks are looked for at every level, as they nest.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;

use super::value::{in_their_representation, is_valid};
use super::{Pass, SetAside};
use crate::data_set::{self, DataSet, Element, Form, Value};
use crate::decide::{Action, Decision, Origin};
use crate::profile::{Place, Profile};
use crate::table::{self, Code, ProfileOption, Type};

/// Private Creator of a block: group, and the high byte of its elements.
type Block = (u16, u16);

/// The private blocks of one data set or item.
pub(super) struct Blocks {
    creators: HashMap<Block, (Element, String)>,
    /// What the object declares safe, if the profile believes it: all of a creator's block, or single elements.
    declared: HashSet<(u16, String, Option<u8>)>,
    /// Blocks of which something is kept, so that their creators are too.
    used: RefCell<HashSet<Block>>,
}

impl Blocks {
    pub(super) fn of(data_set: &DataSet, profile: &Profile) -> Self {
        let private = data_set.elements.iter().filter(|element| element.tag.group() % 2 == 1);
        let creators = private.filter_map(|element| {
            let number = element.tag.element();
            let text = String::from_utf8_lossy(element.bytes()?).trim().to_owned();
            (0x10..=0xFF)
                .contains(&number)
                .then_some(((element.tag.group(), number), (element.clone(), text)))
        });
        let believed =
            profile.private.declared && profile.options.has(ProfileOption::RetainSafePrivate);
        let declared = if believed { declared(data_set) } else { HashSet::new() };
        Self { creators: creators.collect(), declared, used: RefCell::default() }
    }

    /// The creator of the block that an element is in.
    fn creator(&self, tag: Tag) -> Option<&str> {
        let block = (tag.group(), tag.element() >> 8);
        self.creators.get(&block).map(|(_, text)| text.as_str())
    }

    fn is_declared_safe(&self, tag: Tag, creator: &str) -> bool {
        let low = tag.element() as u8;
        [None, Some(low)]
            .into_iter()
            .any(|element| self.declared.contains(&(tag.group(), creator.to_owned(), element)))
    }

    /// Puts the creators of what was kept back, and takes out what describes blocks of which nothing was kept: it is in
    /// words of whoever wrote them (0008,0300).
    pub(super) fn keep_creators(&self, made: &mut DataSet) {
        let mut described = HashSet::new();
        for block in self.used.borrow().iter() {
            if let Some((element, text)) = self.creators.get(block) {
                described.insert((element.tag.group(), text.clone()));
                made.put(element.clone());
            }
        }
        made.elements.retain_mut(|element| match &mut element.value {
            Value::Items(items)
                if element.tag == tags::PRIVATE_DATA_ELEMENT_CHARACTERISTICS_SEQUENCE =>
            {
                items.retain(|item| block_of(item).is_some_and(|block| described.contains(&block)));
                !items.is_empty()
            }
            _ => true,
        });
    }
}

/// Which block an item of Private Data Element Characteristics Sequence (0008,0300) is about.
fn block_of(item: &DataSet) -> Option<(u16, String)> {
    let group = item.unsigned_short(tags::PRIVATE_GROUP_REFERENCE)?;
    Some((group, item.text(tags::PRIVATE_CREATOR_REFERENCE)?))
}

/// What Private Data Element Characteristics Sequence (0008,0300) declares safe (PS3.3 C.12.1.1.7).
fn declared(data_set: &DataSet) -> HashSet<(u16, String, Option<u8>)> {
    let mut safe = HashSet::new();
    for item in data_set.items(tags::PRIVATE_DATA_ELEMENT_CHARACTERISTICS_SEQUENCE) {
        let Some((group, creator)) = block_of(item) else { continue };
        match item.text(tags::BLOCK_IDENTIFYING_INFORMATION_STATUS).as_deref() {
            Some("SAFE") => {
                safe.insert((group, creator, None));
            }
            Some("MIXED") => {
                if let Some(Value::Bytes(bytes)) =
                    item.get(tags::NONIDENTIFYING_PRIVATE_ELEMENTS).map(|element| &element.value)
                {
                    let lows = bytes.chunks_exact(2).filter_map(|pair| pair.first().copied());
                    safe.extend(lows.map(|low| (group, creator.clone(), Some(low))));
                }
            }
            _ => {}
        }
    }
    safe
}

impl Pass<'_> {
    pub(super) fn private(
        &mut self,
        mut element: Element,
        blocks: &Blocks,
        set: &[u8],
    ) -> Result<Option<Element>, SetAside> {
        let tag = element.tag;
        if (0x10..=0xFF).contains(&tag.element()) {
            return Ok(None); // a creator: comes back with what is kept of its block
        }
        let creator = blocks.creator(tag).map(str::to_owned);
        let place = Place { path: &self.path, tag, vr: element.vr, creator: creator.as_deref() };
        let by_rule = self.decider.rule(place);
        let decision = match (by_rule, creator.as_deref()) {
            (Some(decision), _) => decision,
            (None, Some(creator)) => self.private_policy(&mut element, blocks, creator),
            (None, None) => Decision::new(Origin::Private, Code::X, Some(Type::Three)),
        };
        let made = self.act(element, decision, set)?;
        if made.is_some() {
            blocks.used.borrow_mut().insert((tag.group(), tag.element() >> 8));
        }
        Ok(made)
    }

    fn private_policy(&self, element: &mut Element, blocks: &Blocks, creator: &str) -> Decision {
        let tag = element.tag;
        let low = tag.element() as u8;
        let listed = table::safe_private(tag.group(), creator, low);
        let added = || self.profile.private.safe.contains(&(tag.group(), creator.to_owned(), low));
        // What is safe is a value of the VR that the list tells, and not whatever else somebody wrote there.
        let listed_vr = listed.flatten();
        let is_one = |vr| match &element.value {
            Value::Bytes(bytes) if data_set::is_text(vr) => {
                is_valid(vr, element.bytes().unwrap_or(bytes))
            }
            Value::Bytes(bytes) => is_valid(vr, bytes),
            Value::Items(_) | Value::Fragments(_) => true,
        };
        let safe = self.profile.options.has(ProfileOption::RetainSafePrivate)
            && listed_vr.is_none_or(is_one)
            && (listed.is_some() || added() || blocks.is_declared_safe(tag, creator));
        if !safe {
            return Decision::new(Origin::Private, Code::X, Some(Type::Three));
        }
        if listed_vr == Some(VR::SQ) && matches!(element.value, Value::Bytes(_)) {
            let Some(items) = items_of(element) else {
                return Decision::new(Origin::Invalid, Code::X, Some(Type::Three));
            };
            *element = Element::sequence(tag, items);
            if let Value::Items(items) = &mut element.value {
                items.iter_mut().for_each(in_their_representation);
            }
        }
        // In implicit VR nobody says what it is but the list.
        if element.vr == VR::UN
            && let Some(vr) = listed_vr.filter(|vr| data_set::is_text(*vr))
        {
            element.vr = vr;
        }
        // Safe are its numbers and words; what a VR always tells is treated like everywhere else.
        let code = match listed_vr.unwrap_or(element.vr) {
            VR::UI => Code::U,
            VR::PN | VR::DA | VR::DT | VR::TM | VR::AE => Code::X,
            _ => Code::K,
        };
        Decision { origin: Origin::SafePrivate, code, needed: None, action: Action::Code(code) }
    }
}

/// The items of a sequence that came as UN of a definite length, which is in implicit VR (PS3.5 6.2.2).
pub(super) fn items_of(element: &Element) -> Option<Vec<DataSet>> {
    let Value::Bytes(bytes) = &element.value else { return None };
    if bytes.is_empty() {
        return Some(Vec::new());
    }
    // As the value of a sequence that every dictionary knows.
    let mut around = Vec::with_capacity(bytes.len() + 8);
    let (known, length) = (tags::REFERENCED_SERIES_SEQUENCE, u32::try_from(bytes.len()).ok()?);
    data_set::header(Form::Implicit, known, VR::SQ, length, &mut around);
    around.extend_from_slice(bytes);
    let implicit = gantry_store::dicom::TransferSyntax::implicit_vr_little_endian();
    let mut parsed = data_set::read(&implicit, &around).ok()?.data_set;
    match parsed.elements.pop()?.value {
        Value::Items(items) => Some(items),
        _ => None,
    }
}
