//! Identifiers of the query/retrieve service (PS3.4 C.4): what a peer asks for, and what it is answered.

use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;
use gantry_deidentify::data_set::{
    self, DataSet, DataSetError, Element, Form, Value, dictionary_vr,
};
use gantry_store::dicom::TransferSyntax;
use gantry_store::dicom::text::{self, Written};
use gantry_store::dicom::transfer_syntax::Layout;
use gantry_store::query::Level;
use thiserror::Error;

/// The longest identifier that is taken: some 15,000 UIDs.
pub const MAX_IDENTIFIER: usize = 1 << 20;

/// Why an identifier is not read.
#[derive(Debug, Error)]
pub enum IdentifierError {
    /// Its data set is damaged, or too large.
    #[error("identifier cannot be read")]
    DataSet(#[from] DataSetError),
    /// It says no level, or one that there is not.
    #[error("identifier has no Query/Retrieve Level that is known")]
    Level,
}

/// What a peer asks for.
pub struct Identifier {
    /// Query/Retrieve Level (0008,0052).
    pub level: Level,
    /// All other attributes: text decoded, several values joined by backslashes, binary numbers in digits, sequences empty.
    pub keys: Vec<(Tag, String)>,
    /// Specific Character Set (0008,0005), as it came.
    pub character_set: Vec<u8>,
}

/// Its keys are patients'.
impl std::fmt::Debug for Identifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identifier").field("level", &self.level).finish_non_exhaustive()
    }
}

impl Identifier {
    /// Takes an identifier apart.
    pub fn read(bytes: &[u8], syntax: &TransferSyntax) -> Result<Self, IdentifierError> {
        let data_set = data_set::read(syntax, bytes)?.data_set;
        let character_set =
            data_set.bytes(tags::SPECIFIC_CHARACTER_SET).unwrap_or_default().to_vec();
        let level = match data_set.text(tags::QUERY_RETRIEVE_LEVEL).as_deref() {
            Some("PATIENT") => Level::Patient,
            Some("STUDY") => Level::Study,
            Some("SERIES") => Level::Series,
            Some("IMAGE") => Level::Image,
            _ => return Err(IdentifierError::Level),
        };
        let known = [tags::SPECIFIC_CHARACTER_SET, tags::QUERY_RETRIEVE_LEVEL];
        let keys = data_set
            .elements
            .iter()
            .filter(|element| !known.contains(&element.tag) && element.tag.element() != 0)
            .map(|element| (element.tag, key(element, &character_set)))
            .collect();
        Ok(Self { level, keys, character_set })
    }
}

fn key(element: &Element, character_set: &[u8]) -> String {
    let Value::Bytes(bytes) = &element.value else { return String::new() };
    if dictionary_vr(element.tag) == VR::US {
        let numbers = bytes.chunks_exact(2).map(|pair| {
            u16::from_le_bytes(pair.first_chunk().copied().unwrap_or_default()).to_string()
        });
        return numbers.collect::<Vec<_>>().join("\\");
    }
    text::decode(character_set, bytes).trim_matches([' ', '\0']).to_owned()
}

/// An answer in the encoding of its context. Values are text, numbers in digits; those of UIDs and codes are ASCII. Text is
/// written in the character set that the asker wrote in, if it can be.
pub fn answer<'v>(
    level: Level,
    values: impl Iterator<Item = (Tag, &'v str)> + Clone,
    character_set: &[u8],
    syntax: &TransferSyntax,
) -> Vec<u8> {
    let set = Written::for_reader(character_set, &values.clone().map(|(_, text)| text));
    let mut data_set = DataSet::default();
    if !set.term().is_empty() {
        data_set.put(Element::new(tags::SPECIFIC_CHARACTER_SET, VR::CS, set.term()));
    }
    let level = match level {
        Level::Patient => "PATIENT",
        Level::Study => "STUDY",
        Level::Series => "SERIES",
        Level::Image => "IMAGE",
    };
    data_set.put(Element::new(tags::QUERY_RETRIEVE_LEVEL, VR::CS, level));
    for (tag, text) in values {
        data_set.put(element(tag, text, &set));
    }
    let form = match syntax.layout() {
        Layout::ImplicitLittle => Form::Implicit,
        _ => Form::Explicit,
    };
    let mut bytes = Vec::with_capacity(512);
    data_set.write(form, &mut bytes);
    bytes
}

/// An attribute of an answer, of a text or of numbers in digits.
pub fn element(tag: Tag, text: &str, set: &Written) -> Element {
    let vr = dictionary_vr(tag);
    let value = match vr {
        VR::US => text
            .split('\\')
            .filter_map(|number| number.parse::<u16>().ok())
            .flat_map(u16::to_le_bytes)
            .collect(),
        _ => set.encode(text).unwrap_or_default(),
    };
    Element::new(tag, vr, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(elements: &[(Tag, VR, &[u8])], form: Form) -> Vec<u8> {
        let mut data_set = DataSet::default();
        for (tag, vr, value) in elements {
            data_set.put(Element::new(*tag, *vr, *value));
        }
        let mut bytes = Vec::new();
        data_set.write(form, &mut bytes);
        bytes
    }

    #[test]
    fn an_identifier_is_read_in_its_character_set() {
        let elements: [(Tag, VR, &[u8]); 5] = [
            (tags::SPECIFIC_CHARACTER_SET, VR::CS, b"ISO_IR 100"),
            (tags::QUERY_RETRIEVE_LEVEL, VR::CS, b"IMAGE"),
            (tags::PATIENT_NAME, VR::PN, b"M\xFCller*"),
            (tags::STUDY_INSTANCE_UID, VR::UI, b"1.2.3\\1.2.4"),
            (tags::ROWS, VR::US, &[0, 2]),
        ];
        for (form, syntax) in [
            (Form::Explicit, TransferSyntax::explicit_vr_little_endian()),
            (Form::Implicit, TransferSyntax::implicit_vr_little_endian()),
        ] {
            let read = Identifier::read(&encoded(&elements, form), &syntax).unwrap();
            assert_eq!(read.level, Level::Image);
            let keys: Vec<_> = read.keys.iter().map(|(tag, text)| (*tag, text.as_str())).collect();
            let expected = [
                (tags::PATIENT_NAME, "Müller*"),
                (tags::STUDY_INSTANCE_UID, "1.2.3\\1.2.4"),
                (tags::ROWS, "512"),
            ];
            assert_eq!(keys, expected);
        }
    }

    #[test]
    fn no_level_and_no_data_set_are_refused() {
        let syntax = TransferSyntax::explicit_vr_little_endian();
        let refused = |bytes: &[u8]| Identifier::read(bytes, &syntax).err().unwrap();
        assert!(matches!(refused(b""), IdentifierError::DataSet(_)));
        let level: [(Tag, VR, &[u8]); 1] = [(tags::QUERY_RETRIEVE_LEVEL, VR::CS, b"WORLD")];
        assert!(matches!(refused(&encoded(&level, Form::Explicit)), IdentifierError::Level));
        assert!(matches!(refused(b"\x08\0\x52"), IdentifierError::DataSet(_)));
    }

    #[test]
    fn an_answer_is_in_the_askers_character_set() {
        let syntax = TransferSyntax::explicit_vr_little_endian();
        let values = [
            (tags::PATIENT_NAME, "Müller"),
            (tags::ROWS, "512"),
            (tags::SOP_INSTANCE_UID, "1.2.3"),
        ];
        for (asked, term) in [("ISO_IR 192", "ISO_IR 192"), ("", "ISO_IR 100")] {
            let bytes = answer(Level::Image, values.iter().copied(), asked.as_bytes(), &syntax);
            let read = Identifier::read(&bytes, &syntax).unwrap();
            assert_eq!(read.character_set, term.as_bytes());
            let said = |tag| read.keys.iter().find(|(of, _)| *of == tag).unwrap().1.as_str();
            assert_eq!((said(tags::PATIENT_NAME), said(tags::ROWS)), ("Müller", "512"));
        }
        let plain = [(tags::PATIENT_NAME, "SMITH")];
        let bytes = answer(Level::Study, plain.iter().copied(), b"ISO_IR 192", &syntax);
        assert!(Identifier::read(&bytes, &syntax).unwrap().character_set.is_empty());
    }
}
