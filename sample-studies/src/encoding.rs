//! From a [`DataSet`] to bytes in any of five transfer syntaxes, and from Explicit VR Little Endian back.

use std::io::Write as _;

use dicom_core::{Tag, VR};
use dicom_dictionary_std::{tags, uids};
use flate2::Compression;
use flate2::write::DeflateEncoder;
use thiserror::Error;

use crate::data_set::{DataSet, Element, Value};
use crate::rle;

/// The transfer syntaxes that this crate writes (PS3.5 Annex A).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum TransferSyntax {
    /// 1.2.840.10008.1.2, the one everybody must accept.
    ImplicitVrLittleEndian,
    /// 1.2.840.10008.1.2.1.
    #[default]
    ExplicitVrLittleEndian,
    /// 1.2.840.10008.1.2.2, retired in 2006 and still met.
    ExplicitVrBigEndian,
    /// 1.2.840.10008.1.2.1.99: the whole data set as one deflate stream without zlib header.
    DeflatedExplicitVrLittleEndian,
    /// 1.2.840.10008.1.2.5: encapsulated pixel data, one fragment per frame (PS3.5 Annex G).
    RleLossless,
}

impl TransferSyntax {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::ImplicitVrLittleEndian,
        Self::ExplicitVrLittleEndian,
        Self::ExplicitVrBigEndian,
        Self::DeflatedExplicitVrLittleEndian,
        Self::RleLossless,
    ];

    /// Its UID.
    pub fn uid(self) -> &'static str {
        match self {
            Self::ImplicitVrLittleEndian => uids::IMPLICIT_VR_LITTLE_ENDIAN,
            Self::ExplicitVrLittleEndian => uids::EXPLICIT_VR_LITTLE_ENDIAN,
            Self::ExplicitVrBigEndian => "1.2.840.10008.1.2.2",
            Self::DeflatedExplicitVrLittleEndian => uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
            Self::RleLossless => uids::RLE_LOSSLESS,
        }
    }
}

/// How sequences and items say where they end (PS3.5 7.5); both forms mean the same.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum SequenceLengths {
    /// Length FFFFFFFF and a delimiter.
    #[default]
    Undefined,
    /// The number of bytes.
    Defined,
}

/// Why a data set cannot be brought into another transfer syntax.
#[derive(Debug, Error, Eq, PartialEq)]
pub enum EncodingError {
    /// Only data sets in Explicit VR Little Endian are read back, as this crate wrote them.
    #[error(
        "the data set is in transfer syntax {0}, only Explicit VR Little Endian can be re-encoded"
    )]
    NotExplicitLittleEndian(String),
    /// Somebody changed the bytes.
    #[error("the data set is malformed at element {0}")]
    Malformed(Tag),
    /// A report has nothing to compress.
    #[error("the data set has no pixel data that could be compressed")]
    NoPixelData,
}

/// Writes the data set.
pub fn encode(
    set: &DataSet,
    transfer_syntax: TransferSyntax,
    lengths: SequenceLengths,
) -> Result<Vec<u8>, EncodingError> {
    let plain = |explicit, big_endian| Encoder { explicit, big_endian, lengths };
    Ok(match transfer_syntax {
        TransferSyntax::ImplicitVrLittleEndian => plain(false, false).bytes_of(set),
        TransferSyntax::ExplicitVrLittleEndian => plain(true, false).bytes_of(set),
        TransferSyntax::ExplicitVrBigEndian => plain(true, true).bytes_of(set),
        TransferSyntax::DeflatedExplicitVrLittleEndian => {
            deflated(&plain(true, false).bytes_of(set))
        }
        TransferSyntax::RleLossless => {
            let compressed = rle::compressed(set).ok_or(EncodingError::NoPixelData)?;
            plain(true, false).bytes_of(&compressed)
        }
    })
}

/// What everything here is written in first; unlike the others it cannot fail.
pub(crate) fn explicit_little_endian(set: &DataSet, lengths: SequenceLengths) -> Vec<u8> {
    Encoder { explicit: true, big_endian: false, lengths }.bytes_of(set)
}

/// Tag, VR and length of one element of Explicit VR Little Endian.
pub(crate) fn explicit_header(tag: Tag, vr: VR, length: u32) -> Vec<u8> {
    let mut out = Vec::new();
    let encoder =
        Encoder { explicit: true, big_endian: false, lengths: SequenceLengths::Undefined };
    encoder.header(tag, vr, length, &mut out);
    out
}

/// Deflate without header, padded with one zero byte to an even length (PS3.5 A.5).
fn deflated(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
    // Writing to memory cannot fail; an empty result would be noticed by every test that reads it.
    let _ = encoder.write_all(bytes);
    let mut bytes = encoder.finish().unwrap_or_default();
    if bytes.len() % 2 == 1 {
        bytes.push(0);
    }
    bytes
}

pub(crate) const UNDEFINED_LENGTH: u32 = 0xFFFF_FFFF;

// PS3.5 7.5.
pub(crate) const ITEM: Tag = Tag(0xFFFE, 0xE000);
pub(crate) const ITEM_DELIMITER: Tag = Tag(0xFFFE, 0xE00D);
pub(crate) const SEQUENCE_DELIMITER: Tag = Tag(0xFFFE, 0xE0DD);

#[derive(Clone, Copy)]
struct Encoder {
    explicit: bool,
    big_endian: bool,
    lengths: SequenceLengths,
}

impl Encoder {
    fn bytes_of(self, set: &DataSet) -> Vec<u8> {
        let pixels = set.value(tags::PIXEL_DATA).map_or(0, <[u8]>::len);
        let mut out = Vec::with_capacity(pixels + 4096);
        self.data_set(set, &mut out);
        out
    }

    fn data_set(self, set: &DataSet, out: &mut Vec<u8>) {
        for (tag, element) in &set.0 {
            self.element(*tag, element, out);
        }
    }

    fn element(self, tag: Tag, element: &Element, out: &mut Vec<u8>) {
        match &element.value {
            Value::Bytes(value) => {
                self.header(tag, element.vr, value.len() as u32, out);
                self.value(element.vr, value, out);
            }
            Value::Items(items) => self.sequence(tag, items, out),
            Value::Fragments(fragments) => {
                self.header(tag, VR::OB, UNDEFINED_LENGTH, out);
                for fragment in fragments {
                    self.item_header(ITEM, fragment.len() as u32, out);
                    out.extend_from_slice(fragment);
                }
                self.item_header(SEQUENCE_DELIMITER, 0, out);
            }
        }
    }

    fn sequence(self, tag: Tag, items: &[DataSet], out: &mut Vec<u8>) {
        match self.lengths {
            SequenceLengths::Undefined => {
                self.header(tag, VR::SQ, UNDEFINED_LENGTH, out);
                for item in items {
                    self.item_header(ITEM, UNDEFINED_LENGTH, out);
                    self.data_set(item, out);
                    self.item_header(ITEM_DELIMITER, 0, out);
                }
                self.item_header(SEQUENCE_DELIMITER, 0, out);
            }
            SequenceLengths::Defined => {
                let mut content = Vec::new();
                for item in items {
                    let item = self.bytes_of(item);
                    self.item_header(ITEM, item.len() as u32, &mut content);
                    content.extend_from_slice(&item);
                }
                self.header(tag, VR::SQ, content.len() as u32, out);
                out.extend_from_slice(&content);
            }
        }
    }

    /// Tag, VR and length (PS3.5 7.1.2 and 7.1.3).
    fn header(self, tag: Tag, vr: VR, length: u32, out: &mut Vec<u8>) {
        self.tag(tag, out);
        if !self.explicit {
            self.u32(length, out);
            return;
        }
        out.extend_from_slice(&vr.to_bytes());
        match u16::try_from(length) {
            Ok(length) if !has_long_length(vr) => self.u16(length, out),
            _ => {
                out.extend_from_slice(&[0, 0]);
                self.u32(length, out);
            }
        }
    }

    /// Items and delimiters have no VR in any transfer syntax (PS3.5 7.5).
    fn item_header(self, tag: Tag, length: u32, out: &mut Vec<u8>) {
        self.tag(tag, out);
        self.u32(length, out);
    }

    fn value(self, vr: VR, value: &[u8], out: &mut Vec<u8>) {
        let width = word_width(vr);
        if !self.big_endian || width == 1 {
            out.extend_from_slice(value);
            return;
        }
        for word in value.chunks(width) {
            out.extend(word.iter().rev());
        }
    }

    fn tag(self, tag: Tag, out: &mut Vec<u8>) {
        self.u16(tag.group(), out);
        self.u16(tag.element(), out);
    }

    fn u16(self, value: u16, out: &mut Vec<u8>) {
        out.extend(if self.big_endian { value.to_be_bytes() } else { value.to_le_bytes() });
    }

    fn u32(self, value: u32, out: &mut Vec<u8>) {
        out.extend(if self.big_endian { value.to_be_bytes() } else { value.to_le_bytes() });
    }
}

/// Whether the explicit VR form has two reserved bytes and a length of four (PS3.5 Table 7.1-1).
pub(crate) fn has_long_length(vr: VR) -> bool {
    matches!(
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

/// The size of what big endian turns round (PS3.5 7.3).
fn word_width(vr: VR) -> usize {
    match vr {
        VR::US | VR::SS | VR::OW | VR::AT => 2,
        VR::UL | VR::SL | VR::FL | VR::OF | VR::OL => 4,
        VR::FD | VR::OD | VR::OV | VR::SV | VR::UV => 8,
        _ => 1,
    }
}

/// Reads Explicit VR Little Endian as this crate writes it; not meant for what others wrote.
pub(crate) fn decode(bytes: &[u8]) -> Result<DataSet, EncodingError> {
    let mut rest = bytes;
    data_set(&mut rest, 0, End::OfBytes)
}

#[derive(Clone, Copy, PartialEq)]
enum End {
    OfBytes,
    AtItemDelimiter,
}

const DEEPEST: usize = 16;

fn data_set(rest: &mut &[u8], depth: usize, end: End) -> Result<DataSet, EncodingError> {
    let mut set = DataSet::new();
    let mut last = Tag(0, 0);
    while !rest.is_empty() {
        let broken = || EncodingError::Malformed(last);
        let tag = take_tag(rest).ok_or_else(broken)?;
        last = tag;
        if tag == ITEM_DELIMITER {
            take_u32(rest).ok_or(EncodingError::Malformed(tag))?;
            return if end == End::AtItemDelimiter {
                Ok(set)
            } else {
                Err(EncodingError::Malformed(tag))
            };
        }
        let element = element(rest, tag, depth)?;
        set.0.insert(tag, element);
    }
    if end == End::OfBytes { Ok(set) } else { Err(EncodingError::Malformed(last)) }
}

fn element(rest: &mut &[u8], tag: Tag, depth: usize) -> Result<Element, EncodingError> {
    let broken = || EncodingError::Malformed(tag);
    let vr = take(rest, 2)
        .and_then(<[u8]>::first_chunk)
        .copied()
        .and_then(VR::from_binary)
        .ok_or_else(broken)?;
    let length = if has_long_length(vr) {
        take(rest, 2).and_then(|_reserved| take_u32(rest))
    } else {
        take(rest, 2)
            .and_then(<[u8]>::first_chunk)
            .map(|bytes| u32::from(u16::from_le_bytes(*bytes)))
    }
    .ok_or_else(broken)?;
    let value = match (vr, length) {
        (VR::SQ, UNDEFINED_LENGTH) if depth < DEEPEST => Value::Items(items(rest, tag, depth)?),
        (VR::SQ, _) if depth < DEEPEST => {
            let mut content = take(rest, length as usize).ok_or_else(broken)?;
            Value::Items(items(&mut content, tag, depth)?)
        }
        (VR::SQ, _) | (_, UNDEFINED_LENGTH) => return Err(broken()),
        _ => Value::Bytes(take(rest, length as usize).ok_or_else(broken)?.to_vec()),
    };
    Ok(Element { vr, value })
}

fn items(rest: &mut &[u8], sequence: Tag, depth: usize) -> Result<Vec<DataSet>, EncodingError> {
    let broken = || EncodingError::Malformed(sequence);
    let mut items = Vec::new();
    while !rest.is_empty() {
        let tag = take_tag(rest).ok_or_else(broken)?;
        let length = take_u32(rest).ok_or_else(broken)?;
        match (tag, length) {
            (SEQUENCE_DELIMITER, _) => return Ok(items),
            (ITEM, UNDEFINED_LENGTH) => {
                items.push(data_set(rest, depth + 1, End::AtItemDelimiter)?);
            }
            (ITEM, _) => {
                let mut content = take(rest, length as usize).ok_or_else(broken)?;
                items.push(data_set(&mut content, depth + 1, End::OfBytes)?);
            }
            _ => return Err(broken()),
        }
    }
    Ok(items)
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

fn take_tag(rest: &mut &[u8]) -> Option<Tag> {
    let group = take(rest, 2)?.first_chunk().copied().map(u16::from_le_bytes)?;
    let element = take(rest, 2)?.first_chunk().copied().map(u16::from_le_bytes)?;
    Some(Tag(group, element))
}

fn take_u32(rest: &mut &[u8]) -> Option<u32> {
    take(rest, 4)?.first_chunk().copied().map(u32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a panic is how a test fails

    use super::*;

    fn sample() -> DataSet {
        let mut inner = DataSet::new();
        inner.text(tags::CODE_VALUE, "T-D1100").u16(tags::ROWS, 0x0102);
        let mut set = DataSet::new();
        set.text(tags::PATIENT_ID, "123")
            .f64(tags::PHYSICAL_DELTA_X, 1.5)
            .pointer(tags::FRAME_INCREMENT_POINTER, Tag(0x0018, 0x1063))
            .sequence(tags::PROCEDURE_CODE_SEQUENCE, vec![inner, DataSet::new()])
            .bytes(tags::PIXEL_DATA, VR::OW, vec![1, 2, 3, 4]);
        set
    }

    #[test]
    fn both_forms_of_length_read_back_as_the_same_tree() {
        for lengths in [SequenceLengths::Undefined, SequenceLengths::Defined] {
            let bytes = encode(&sample(), TransferSyntax::ExplicitVrLittleEndian, lengths).unwrap();

            assert_eq!(decode(&bytes), Ok(sample()));
        }
    }

    #[test]
    fn big_endian_turns_words_round_and_leaves_text_alone() {
        let mut set = DataSet::new();
        set.u16(tags::ROWS, 0x0102).text(tags::PATIENT_ID, "AB");

        let bytes =
            encode(&set, TransferSyntax::ExplicitVrBigEndian, SequenceLengths::Undefined).unwrap();

        assert_eq!(bytes, b"\x00\x10\x00\x20LO\x00\x02AB\x00\x28\x00\x10US\x00\x02\x01\x02");
    }

    #[test]
    fn a_data_set_cut_anywhere_is_an_error_or_a_shorter_data_set_but_never_a_panic() {
        let whole =
            encode(&sample(), TransferSyntax::ExplicitVrLittleEndian, SequenceLengths::Defined)
                .unwrap();

        for end in 0..whole.len() {
            let cut = whole.get(..end).unwrap();

            assert_ne!(decode(cut), Ok(sample()));
        }
    }
}
