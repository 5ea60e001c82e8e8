//! Content items of structured reports (PS3.15 E.3.4): by their concept and value type, not by their attributes alone.
//!
//! An item whose concept the standard lists gets what it says. Of the others a name goes, a date does what dates do, a free
//! text is cleaned if the profile cleans descriptions and goes otherwise; numbers, codes, coordinates and references stay,
//! with new UIDs. Items inside items likewise, to any depth.

use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;

use super::value::item;
use super::{Done, Pass, SetAside, Step};
use crate::data_set::{DataSet, Element, Value};
use crate::decide::{Decision, Origin};
use crate::table::{self, Code, ProfileOption, Type};

/// The smallest document that readers of PDF open: one empty page.
pub(super) const EMPTY_PDF: &[u8] = b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n";

/// An item in the place of a content that is not let out.
pub(super) fn removed_item() -> DataSet {
    let concept = item(vec![
        Element::new(tags::CODE_VALUE, VR::SH, "121071"),
        Element::new(tags::CODING_SCHEME_DESIGNATOR, VR::SH, "DCM"),
        Element::new(tags::CODE_MEANING, VR::LO, "Finding"),
    ]);
    item(vec![
        Element::new(tags::RELATIONSHIP_TYPE, VR::CS, "CONTAINS"),
        Element::new(tags::VALUE_TYPE, VR::CS, "TEXT"),
        Element::sequence(tags::CONCEPT_NAME_CODE_SEQUENCE, vec![concept]),
        Element::new(tags::TEXT_VALUE, VR::UT, "REMOVED"),
    ])
}

/// Where a value type has its value.
fn value_of(value_type: &str) -> Option<Tag> {
    Some(match value_type {
        "TEXT" => tags::TEXT_VALUE,
        "PNAME" => tags::PERSON_NAME,
        "DATE" => tags::DATE,
        "TIME" => tags::TIME,
        "DATETIME" => tags::DATE_TIME,
        "UIDREF" => tags::UID,
        _ => return None,
    })
}

impl Pass<'_> {
    /// Walks content items.
    pub(super) fn content(
        &mut self,
        sequence: Tag,
        items: Vec<DataSet>,
        set: &[u8],
    ) -> Result<Vec<DataSet>, SetAside> {
        self.inside(sequence, |pass| {
            let mut kept = Vec::with_capacity(items.len());
            for item in items {
                kept.extend(pass.content_item(item, set)?);
            }
            Ok(kept)
        })
    }

    pub(super) fn content_item(
        &mut self,
        mut item: DataSet,
        set: &[u8],
    ) -> Result<Option<DataSet>, SetAside> {
        let value_type = item.text(tags::VALUE_TYPE).unwrap_or_default();
        let (origin, code) = self.concept(&item, &value_type);
        let value_tag = value_of(&value_type);
        let place = value_tag.unwrap_or(tags::CONCEPT_NAME_CODE_SEQUENCE);
        let decision = Decision::new(origin, code, Some(Type::Three));
        if code == Code::X {
            let whole = Element::sequence(tags::CONTENT_SEQUENCE, vec![item]);
            self.lose(&whole, set);
            self.note(place, decision, Done::Removed);
            return Ok(None);
        }
        // The value is the concept's business; all else of the item that of its attributes.
        let value = value_tag.and_then(|tag| {
            let at = item.elements.iter().position(|element| element.tag == tag)?;
            Some(item.elements.remove(at))
        });
        let inner = item.bytes(tags::SPECIFIC_CHARACTER_SET).unwrap_or(set).to_vec();
        let mut made = self.data_set(item, set)?;
        if let Some(element) = value {
            let (tag, text_or_more) = (element.tag, matches!(element.value, Value::Bytes(_)));
            let (value, done) = match code {
                _ if !text_or_more => (None, Done::Removed),
                Code::D | Code::Z => self.dummy(element, &inner)?,
                Code::U => self.new_uids(element, &inner)?,
                Code::C => self.clean(element, &decision, &inner)?,
                _ => (Some(element), Done::Kept),
            };
            self.note(tag, decision, done);
            match value {
                Some(value) => made.put(value),
                // An item without its value is none.
                None => return Ok(None),
            }
        }
        Ok(Some(made))
    }

    /// What is to be done with an item, and who says so.
    fn concept(&self, item: &DataSet, value_type: &str) -> (Origin, Code) {
        let options = self.profile.options;
        let name = item.items(tags::CONCEPT_NAME_CODE_SEQUENCE).first();
        let name = name.map(|code| {
            let value =
                [tags::CODE_VALUE, tags::LONG_CODE_VALUE].iter().find_map(|tag| code.text(*tag));
            (
                code.text(tags::CODING_SCHEME_DESIGNATOR).unwrap_or_default(),
                value.unwrap_or_default(),
            )
        });
        if let Some((scheme, value)) = &name
            && let Some((code, option)) = table::concept((scheme, value), value_type, options)
        {
            return match (code, value_type) {
                // References go with the attributes that hold them, which get new UIDs.
                (Code::D, "IMAGE" | "COMPOSITE" | "WAVEFORM") => (Origin::Concept, Code::K),
                (Code::D, "UIDREF") => (Origin::Concept, Code::U),
                (Code::XD, _) => (Origin::Concept, Code::X),
                (Code::C, _) => (option.map_or(Origin::Concept, Origin::Option), Code::C),
                (code, _) => (Origin::Concept, code),
            };
        }
        let dates = if options.has(ProfileOption::RetainLongFullDates) {
            (Origin::Option(ProfileOption::RetainLongFullDates), Code::K)
        } else if options.has(ProfileOption::RetainLongModifiedDates) {
            (Origin::Option(ProfileOption::RetainLongModifiedDates), Code::C)
        } else {
            (Origin::Representation, Code::X)
        };
        match value_type {
            "PNAME" => (Origin::Representation, Code::X),
            "UIDREF" if options.has(ProfileOption::RetainUids) => (Origin::Representation, Code::K),
            "UIDREF" => (Origin::Representation, Code::U),
            "DATE" | "TIME" | "DATETIME" => dates,
            "TEXT" if options.has(ProfileOption::CleanDescriptors) => {
                (Origin::Option(ProfileOption::CleanDescriptors), Code::C)
            }
            "TEXT" => (Origin::Concept, Code::X),
            _ => (Origin::Unlisted, Code::K),
        }
    }

    fn note(&mut self, tag: Tag, decision: Decision, done: Done) {
        let (path, vr) =
            (std::sync::Arc::clone(&self.shared_path), crate::data_set::dictionary_vr(tag));
        self.steps.push(Step { path, tag, vr, decision, done });
    }
}
