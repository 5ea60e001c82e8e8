//! The Native DICOM Model (PS3.19 A.1): written from a data set, and read into a tree.
//!
//! A private attribute stands under its creator, with the number of its block left out: gggg00ee (PS3.19 Table A.1.5-2).
//! Private creators are written too, as other toolkits do, so that blocks come back where they were. Where no creator is
//! known, and in a second block of the same creator, the tag stands in full. What XML 1.0 has no character for, not even
//! escaped, becomes U+FFFD.

mod read;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry};
use dicom_core::{Tag, VR};
use dicom_dictionary_std::StandardDataDictionary;

pub use read::read;

use crate::model::Format;

/// Spells the model in XML.
#[derive(Clone, Copy, Debug)]
pub struct Xml;

/// Elements of a person name's group, in the order of its components (PS3.19 Table A.1.5-2, PS3.5 6.2.1.1).
const COMPONENTS: [&str; 5] = ["FamilyName", "GivenName", "MiddleName", "NamePrefix", "NameSuffix"];
/// Elements of the groups.
const GROUPS: [&str; 3] = ["Alphabetic", "Ideographic", "Phonetic"];

impl Format for Xml {
    const CREATORS: bool = true;

    fn set(out: &mut Vec<u8>, top: bool) {
        if top {
            put(out, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
            put(
                out,
                "<NativeDicomModel xmlns=\"http://dicom.nema.org/PS3.19/models/NativeDICOM\" xml:space=\"preserve\">",
            );
        }
    }

    fn set_end(out: &mut Vec<u8>, top: bool) {
        if top {
            put(out, "</NativeDicomModel>\n");
        }
    }

    fn attribute(out: &mut Vec<u8>, tag: Tag, vr: VR, creator: Option<&str>) {
        // Who reserved the block tells which one it is.
        let element = if creator.is_some() { tag.element() & 0xFF } else { tag.element() };
        let group = tag.group();
        put(out, &format!("<DicomAttribute tag=\"{group:04X}{element:04X}\" vr=\"{vr}\""));
        let standard = StandardDataDictionary.by_tag(tag).filter(|_| tag.group().is_multiple_of(2));
        if let Some(entry) = standard {
            put(out, " keyword=\"");
            escaped(out, entry.alias());
            put(out, "\"");
        }
        if let Some(creator) = creator {
            put(out, " privateCreator=\"");
            escaped(out, creator);
            put(out, "\"");
        }
        put(out, ">");
    }

    fn attribute_end(out: &mut Vec<u8>) {
        put(out, "</DicomAttribute>");
    }

    fn values(_out: &mut Vec<u8>) {}

    fn values_end(_out: &mut Vec<u8>) {}

    fn empty(out: &mut Vec<u8>, number: u32) {
        put(out, &format!("<Value number=\"{number}\"/>"));
    }

    fn text(out: &mut Vec<u8>, number: u32, text: &str) {
        put(out, &format!("<Value number=\"{number}\">"));
        escaped(out, text);
        put(out, "</Value>");
    }

    fn number(out: &mut Vec<u8>, number: u32, lexeme: &str) {
        Self::text(out, number, lexeme);
    }

    fn name(out: &mut Vec<u8>, number: u32, groups: [&str; 3]) {
        put(out, &format!("<PersonName number=\"{number}\">"));
        for (name, group) in GROUPS.iter().zip(groups).filter(|(_, group)| !group.is_empty()) {
            put(out, &format!("<{name}>"));
            for (component, text) in COMPONENTS.iter().zip(group.splitn(COMPONENTS.len(), '^')) {
                if !text.is_empty() {
                    put(out, &format!("<{component}>"));
                    escaped(out, text);
                    put(out, &format!("</{component}>"));
                }
            }
            put(out, &format!("</{name}>"));
        }
        put(out, "</PersonName>");
    }

    fn item(out: &mut Vec<u8>, number: u32) {
        put(out, &format!("<Item number=\"{number}\">"));
    }

    fn item_end(out: &mut Vec<u8>) {
        put(out, "</Item>");
    }

    fn inline(out: &mut Vec<u8>, bytes: &[u8]) {
        put(out, "<InlineBinary>");
        put(out, &STANDARD.encode(bytes));
        put(out, "</InlineBinary>");
    }

    fn bulk(out: &mut Vec<u8>, uri: &str) {
        put(out, "<BulkData uri=\"");
        escaped(out, uri);
        put(out, "\"/>");
    }
}

fn put(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

/// Writes text of an element or an attribute. Line ends and tabs are references, as readers change them otherwise
/// (XML 1.0 2.11, 3.3.3).
fn escaped(out: &mut Vec<u8>, text: &str) {
    for c in text.chars() {
        match c {
            '<' => put(out, "&lt;"),
            '>' => put(out, "&gt;"),
            '&' => put(out, "&amp;"),
            '"' => put(out, "&quot;"),
            '\t' | '\n' | '\r' => put(out, &format!("&#{};", c as u32)),
            c if !is_char(c) => put(out, "\u{FFFD}"),
            _ => put(out, c.encode_utf8(&mut [0; 4])),
        }
    }
}

/// Whether XML has this character at all (XML 1.0 2.2).
fn is_char(c: char) -> bool {
    !matches!(c, '\0'..='\u{8}' | '\u{B}' | '\u{C}' | '\u{E}'..='\u{1F}' | '\u{FFFE}' | '\u{FFFF}')
}

#[cfg(test)]
mod tests;
