//! The few attributes of a data set that index and routes read.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use dicom_core::Tag;
use dicom_dictionary_std::tags;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::phi::Phi;
use super::text;

/// Which attributes these are. Top level only; the order is that of a data set.
pub const INDEXED: &[Tag] = &[
    tags::SPECIFIC_CHARACTER_SET,
    tags::IMAGE_TYPE,
    tags::SOP_CLASS_UID,
    tags::SOP_INSTANCE_UID,
    tags::STUDY_DATE,
    tags::SERIES_DATE,
    tags::STUDY_TIME,
    tags::SERIES_TIME,
    tags::ACCESSION_NUMBER,
    tags::MODALITY,
    tags::MANUFACTURER,
    tags::INSTITUTION_NAME,
    tags::REFERRING_PHYSICIAN_NAME,
    tags::TIMEZONE_OFFSET_FROM_UTC,
    tags::STATION_NAME,
    tags::STUDY_DESCRIPTION,
    tags::SERIES_DESCRIPTION,
    tags::PATIENT_NAME,
    tags::PATIENT_ID,
    tags::ISSUER_OF_PATIENT_ID,
    tags::PATIENT_BIRTH_DATE,
    tags::PATIENT_SEX,
    tags::BODY_PART_EXAMINED,
    tags::SLICE_THICKNESS,
    tags::PROTOCOL_NAME,
    tags::STUDY_INSTANCE_UID,
    tags::SERIES_INSTANCE_UID,
    tags::STUDY_ID,
    tags::SERIES_NUMBER,
    tags::INSTANCE_NUMBER,
    tags::LATERALITY,
    tags::NUMBER_OF_FRAMES,
    tags::ROWS,
    tags::COLUMNS,
    tags::BITS_ALLOCATED,
    tags::BURNED_IN_ANNOTATION,
];

/// The longest value that is kept of one attribute, in bytes; what is longer is cut and marked.
///
/// The longest that PS3.5 6.2 allows here is a person name: three groups of 64 characters of up to 4 bytes, with
/// escape sequences.
pub const MAX_VALUE: usize = 1024;

/// Values of the indexed attributes of one data set, as raw bytes (two-byte numbers in little endian), with the character
/// set to read them by.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Attributes(BTreeMap<Tag, Phi<Vec<u8>>>);

impl Attributes {
    /// Keeps a value, cut to [`MAX_VALUE`].
    pub fn insert(&mut self, tag: Tag, mut value: Vec<u8>) {
        value.truncate(MAX_VALUE);
        self.0.insert(tag, Phi::new(value));
    }

    /// The same with every value cut to so many bytes; identifiers and the character set stay whole.
    #[must_use]
    pub fn shortened(&self, longest: usize) -> Self {
        const WHOLE: &[Tag] = &[
            tags::SPECIFIC_CHARACTER_SET,
            tags::SOP_CLASS_UID,
            tags::SOP_INSTANCE_UID,
            tags::STUDY_INSTANCE_UID,
            tags::SERIES_INSTANCE_UID,
        ];
        let cut = |(tag, value): (&Tag, &Phi<Vec<u8>>)| {
            let longest = if WHOLE.contains(tag) { 128 } else { longest };
            (*tag, Phi::new(value.reveal().iter().copied().take(longest).collect()))
        };
        Self(self.0.iter().map(cut).collect())
    }

    /// The bytes of a value as they stood in the data set, padding included; `None` where the element was absent.
    pub fn raw(&self, tag: Tag) -> Option<&[u8]> {
        self.0.get(&tag).map(|value| value.reveal().as_slice())
    }

    /// A textual value, decoded by Specific Character Set (0008,0005), padding removed; `None` where the element was
    /// absent or empty. Several values stay joined by backslashes.
    pub fn text(&self, tag: Tag) -> Option<String> {
        let charset = self.raw(tags::SPECIFIC_CHARACTER_SET).unwrap_or_default();
        let decoded = text::decode(charset, self.raw(tag)?);
        let trimmed = decoded.trim_matches([' ', '\0']);
        (!trimmed.is_empty()).then(|| trimmed.to_owned())
    }

    /// An unsigned two-byte value, such as Rows.
    pub fn u16(&self, tag: Tag) -> Option<u16> {
        self.raw(tag)?.first_chunk().map(|bytes| u16::from_le_bytes(*bytes))
    }

    /// An integer string, such as Series Number.
    pub fn integer(&self, tag: Tag) -> Option<i64> {
        self.text(tag)?.split('\\').next()?.trim().parse().ok()
    }
}

impl Serialize for Attributes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(tag, value)| {
            (
                format!("{:04X}{:04X}", tag.group(), tag.element()),
                STANDARD_NO_PAD.encode(value.reveal()),
            )
        }))
    }
}

impl<'de> Deserialize<'de> for Attributes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let mut attributes = Self::default();
        for (tag, value) in BTreeMap::<String, String>::deserialize(deserializer)? {
            let number = u32::from_str_radix(&tag, 16).map_err(D::Error::custom)?;
            let value = STANDARD_NO_PAD.decode(value).map_err(D::Error::custom)?;
            attributes.insert(Tag((number >> 16) as u16, number as u16), value);
        }
        Ok(attributes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_outlive_a_trip_through_a_header() {
        let mut attributes = Attributes::default();
        attributes.insert(tags::PATIENT_NAME, b"SMITH^ANNA ".to_vec());
        attributes.insert(tags::ROWS, vec![0, 2]);

        let written = serde_json::to_string(&attributes).unwrap();
        let read: Attributes = serde_json::from_str(&written).unwrap();

        assert_eq!(read, attributes);
        assert_eq!(
            (read.text(tags::PATIENT_NAME).as_deref(), read.u16(tags::ROWS)),
            (Some("SMITH^ANNA"), Some(512))
        );
    }
}
