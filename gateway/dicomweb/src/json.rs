//! The DICOM JSON Model (PS3.18 Annex F): written from a data set, and read into a tree.
//!
//! Numbers in characters (DS, IS) are written as JSON numbers with the digits they have; what JSON has no number for
//! (PS3.18 Table F.2.3-1) is a string, as are numbers of 64 bits that a double cannot hold, and NaN and the infinities.

mod lexer;
mod read;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dicom_core::{Tag, VR};

pub use lexer::Fault;
pub use read::{read_many, read_one};

use crate::model::Format;

/// Spells the model in JSON.
#[derive(Clone, Copy, Debug)]
pub struct Json;

impl Format for Json {
    const CREATORS: bool = false;

    fn set(out: &mut Vec<u8>, _top: bool) {
        out.push(b'{');
    }

    fn set_end(out: &mut Vec<u8>, _top: bool) {
        end(out, b'}');
    }

    // Every member ends in a comma, so that members can be rearranged; the last one's goes when what is around it ends.
    fn attribute(out: &mut Vec<u8>, tag: Tag, vr: VR, _creator: Option<&str>) {
        out.push(b'"');
        hex(out, tag);
        out.extend_from_slice(b"\":{\"vr\":\"");
        out.extend_from_slice(vr.to_string().as_bytes());
        out.push(b'"');
    }

    fn attribute_end(out: &mut Vec<u8>) {
        out.extend_from_slice(b"},");
    }

    fn values(out: &mut Vec<u8>) {
        out.extend_from_slice(b",\"Value\":[");
    }

    fn values_end(out: &mut Vec<u8>) {
        end(out, b']');
    }

    fn empty(out: &mut Vec<u8>, _number: u32) {
        out.extend_from_slice(b"null,");
    }

    fn text(out: &mut Vec<u8>, _number: u32, text: &str) {
        string(out, text);
        out.push(b',');
    }

    fn number(out: &mut Vec<u8>, _number: u32, lexeme: &str) {
        out.extend_from_slice(lexeme.as_bytes());
        out.push(b',');
    }

    fn name(out: &mut Vec<u8>, _number: u32, groups: [&str; 3]) {
        out.push(b'{');
        for (name, group) in GROUPS.iter().zip(groups) {
            if !group.is_empty() {
                string(out, name);
                out.push(b':');
                string(out, group);
                out.push(b',');
            }
        }
        end(out, b'}');
        out.push(b',');
    }

    fn item(_out: &mut Vec<u8>, _number: u32) {}

    fn item_end(out: &mut Vec<u8>) {
        out.push(b',');
    }

    fn inline(out: &mut Vec<u8>, bytes: &[u8]) {
        out.extend_from_slice(b",\"InlineBinary\":\"");
        let begin = out.len();
        out.resize(begin + bytes.len().div_ceil(3) * 4, b'=');
        if let Some(room) = out.get_mut(begin..) {
            // It has exactly as much room as it needs, padding included.
            let written = STANDARD.encode_slice(bytes, room);
            debug_assert!(written.is_ok());
        }
        out.push(b'"');
    }

    fn bulk(out: &mut Vec<u8>, uri: &str) {
        out.extend_from_slice(b",\"BulkDataURI\":");
        string(out, uri);
    }
}

/// Names of the groups of a person name (PS3.18 F.2.2).
const GROUPS: [&str; 3] = ["Alphabetic", "Ideographic", "Phonetic"];

/// Closes an object or array, whose last member has a comma behind it.
fn end(out: &mut Vec<u8>, close: u8) {
    if out.last() == Some(&b',') {
        out.pop();
    }
    out.push(close);
}

const DIGITS: &[u8; 16] = b"0123456789ABCDEF";

fn hex(out: &mut Vec<u8>, tag: Tag) {
    for number in [tag.group(), tag.element()] {
        for shift in [12, 8, 4, 0] {
            out.extend(DIGITS.get(usize::from(number >> shift) & 0xF));
        }
    }
}

/// Writes a string of JSON (RFC 8259 7), control characters escaped.
pub fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|byte| matches!(byte, 0..0x20 | b'"' | b'\\' | 0x7F))
    {
        let (plain, special) = rest.split_at(at);
        out.extend_from_slice(plain);
        let Some((byte, after)) = special.split_first() else { break };
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or(b'0');
                out.extend_from_slice(&[
                    b'\\',
                    b'u',
                    b'0',
                    b'0',
                    digit(byte >> 4),
                    digit(byte & 0xF),
                ]);
            }
        }
        rest = after;
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

#[cfg(test)]
mod tests;
