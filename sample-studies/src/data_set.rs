//! A data set as a tree of elements sorted by tag.
//!
//! Kept apart from the reading library on purpose: text is bytes that the caller encoded, and nothing is
//! checked or corrected on the way, so character sets and broken values come out exactly as they were put in.

use std::collections::BTreeMap;

use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry};
use dicom_core::{Tag, VR};
use dicom_dictionary_std::StandardDataDictionary;

/// Elements by tag; the order of a data set is ascending tags (PS3.5 7.1).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DataSet(pub(crate) BTreeMap<Tag, Element>);

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Element {
    pub(crate) vr: VR,
    pub(crate) value: Value,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    /// The value field in little endian order, of even length.
    Bytes(Vec<u8>),
    /// The items of a sequence.
    Items(Vec<DataSet>),
    /// Encapsulated pixel data: the Basic Offset Table, then the fragments (PS3.5 A.4).
    Fragments(Vec<Vec<u8>>),
}

impl DataSet {
    /// A data set without elements.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a value of an attribute of the standard; several values are separated by a backslash.
    pub fn text(&mut self, tag: Tag, value: &str) -> &mut Self {
        self.encoded(tag, value.as_bytes().to_vec())
    }

    /// Puts a text that is already in the bytes of the data set's Specific Character Set (PS3.3 C.12.1.1.2).
    pub fn encoded(&mut self, tag: Tag, value: Vec<u8>) -> &mut Self {
        self.bytes(tag, vr_of(tag), value)
    }

    /// Puts an attribute without a value, which is what "type 2, not known" looks like (PS3.5 7.4.3).
    pub fn empty(&mut self, tag: Tag) -> &mut Self {
        match vr_of(tag) {
            VR::SQ => self.sequence(tag, Vec::new()),
            vr => self.bytes(tag, vr, Vec::new()),
        }
    }

    /// Puts numbers of VR DS, each in at most 16 characters (PS3.5 6.2).
    pub fn decimals(&mut self, tag: Tag, values: &[f64]) -> &mut Self {
        let texts: Vec<String> = values.iter().copied().map(decimal).collect();
        self.text(tag, &texts.join("\\"))
    }

    /// Puts numbers of VR IS.
    pub fn integers(&mut self, tag: Tag, values: &[i64]) -> &mut Self {
        let texts: Vec<String> = values.iter().map(i64::to_string).collect();
        self.text(tag, &texts.join("\\"))
    }

    /// Puts one number of VR US; where the dictionary says "US or SS" it is US.
    pub fn u16(&mut self, tag: Tag, value: u16) -> &mut Self {
        self.bytes(tag, VR::US, value.to_le_bytes().to_vec())
    }

    /// Puts one number of VR SS.
    pub fn i16(&mut self, tag: Tag, value: i16) -> &mut Self {
        self.bytes(tag, VR::SS, value.to_le_bytes().to_vec())
    }

    /// Puts one number of VR UL.
    pub fn u32(&mut self, tag: Tag, value: u32) -> &mut Self {
        self.bytes(tag, VR::UL, value.to_le_bytes().to_vec())
    }

    /// Puts one number of VR SL.
    pub fn i32(&mut self, tag: Tag, value: i32) -> &mut Self {
        self.bytes(tag, VR::SL, value.to_le_bytes().to_vec())
    }

    /// Puts one number of VR FD.
    pub fn f64(&mut self, tag: Tag, value: f64) -> &mut Self {
        self.bytes(tag, VR::FD, value.to_le_bytes().to_vec())
    }

    /// Puts a pointer to another attribute, VR AT.
    pub fn pointer(&mut self, tag: Tag, to: Tag) -> &mut Self {
        let [group, element] = [to.group().to_le_bytes(), to.element().to_le_bytes()];
        self.bytes(tag, VR::AT, [group, element].concat())
    }

    /// Puts a value field as it is, little endian; an odd one gets the padding of its VR (PS3.5 6.2).
    pub fn bytes(&mut self, tag: Tag, vr: VR, mut value: Vec<u8>) -> &mut Self {
        if value.len() % 2 == 1 {
            value.push(padding(vr));
        }
        self.put(tag, vr, Value::Bytes(value))
    }

    /// Puts a sequence.
    pub fn sequence(&mut self, tag: Tag, items: Vec<DataSet>) -> &mut Self {
        self.put(tag, VR::SQ, Value::Items(items))
    }

    /// Puts a block of private elements (PS3.5 7.8.1): the creator's name at (gggg,0010), which reserves
    /// (gggg,1000-10FF), and its elements there.
    pub fn private(
        &mut self,
        group: u16,
        creator: &str,
        elements: Vec<PrivateElement>,
    ) -> &mut Self {
        self.bytes(Tag(group, 0x0010), VR::LO, creator.as_bytes().to_vec());
        for PrivateElement { element, vr, value } in elements {
            let tag = Tag(group, 0x1000 | u16::from(element));
            match value {
                PrivateValue::Bytes(value) => self.bytes(tag, vr, value),
                PrivateValue::Items(items) => self.sequence(tag, items),
            };
        }
        self
    }

    /// Takes an element out, if it is there.
    pub fn remove(&mut self, tag: Tag) -> &mut Self {
        self.0.remove(&tag);
        self
    }

    pub(crate) fn put(&mut self, tag: Tag, vr: VR, value: Value) -> &mut Self {
        self.0.insert(tag, Element { vr, value });
        self
    }

    /// The value field of an element, in little endian order, if it is there and is not a sequence.
    pub fn value(&self, tag: Tag) -> Option<&[u8]> {
        match self.0.get(&tag) {
            Some(Element { value: Value::Bytes(value), .. }) => Some(value),
            _ => None,
        }
    }

    /// The first value of an element of VR US.
    pub(crate) fn u16_at(&self, tag: Tag) -> Option<u16> {
        self.value(tag)?.first_chunk().copied().map(u16::from_le_bytes)
    }

    /// The value of a text element without its padding.
    pub(crate) fn text_at(&self, tag: Tag) -> Option<String> {
        let text = String::from_utf8_lossy(self.value(tag)?);
        Some(text.trim_end_matches(['\0', ' ']).to_owned())
    }
}

/// One element of a private block.
#[derive(Clone, Debug)]
pub struct PrivateElement {
    element: u8,
    vr: VR,
    value: PrivateValue,
}

#[derive(Clone, Debug)]
enum PrivateValue {
    Bytes(Vec<u8>),
    Items(Vec<DataSet>),
}

impl PrivateElement {
    /// An element with a value field; `element` is the low byte of its number.
    pub fn new(element: u8, vr: VR, value: &[u8]) -> Self {
        Self { element, vr, value: PrivateValue::Bytes(value.to_vec()) }
    }

    /// A private sequence.
    pub fn sequence(element: u8, items: Vec<DataSet>) -> Self {
        Self { element, vr: VR::SQ, value: PrivateValue::Items(items) }
    }
}

fn vr_of(tag: Tag) -> VR {
    StandardDataDictionary.by_tag(tag).map_or(VR::UN, |entry| entry.vr().relaxed())
}

/// A number as DS, to a millionth: the coordinates here are millimetres.
pub(crate) fn decimal(value: f64) -> String {
    let text = format!("{value:.6}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

fn padding(vr: VR) -> u8 {
    match vr {
        VR::UI | VR::OB | VR::UN => 0,
        _ => b' ',
    }
}

#[cfg(test)]
mod tests {
    use dicom_dictionary_std::tags;

    use super::*;

    #[test]
    fn odd_values_get_the_padding_of_their_vr() {
        let mut set = DataSet::new();

        set.text(tags::PATIENT_ID, "123").text(tags::SOP_INSTANCE_UID, "1.2");

        assert_eq!(set.value(tags::PATIENT_ID), Some(&b"123 "[..]));
        assert_eq!(set.value(tags::SOP_INSTANCE_UID), Some(&b"1.2\0"[..]));
    }

    #[test]
    fn decimals_are_short_and_plain() {
        for (value, text) in
            [(0.0, "0"), (-0.0, "0"), (0.625, "0.625"), (-120.5, "-120.5"), (10.0, "10")]
        {
            assert_eq!(decimal(value), text);
        }
        assert!(decimal(-12_345.678_901_2).len() <= 16);
    }
}
