//! Small data sets: the identifiers of C-FIND, and what N-ACTION and N-EVENT-REPORT carry.
//!
//! What comes from a peer passes the scanner, within bounds that fit these and nothing larger. Kept of it are short values,
//! at the top level and in the items of its sequences; what is longer, or deeper, is no part of such a message and is passed
//! over. Written are the two encodings that every peer takes.

use std::collections::BTreeMap;

use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;
use gantry_store::dicom::scanner::{Budget, Event, ScanError, Scanner, Visitor};
use gantry_store::dicom::{TransferSyntax, Uid};

/// The longest identifier of a C-FIND that is taken.
pub const MAX_IDENTIFIER: usize = 64 * 1024;
/// The longest information of an N-ACTION or N-EVENT-REPORT that is taken: some 30,000 instances.
pub const MAX_INFORMATION: usize = 4 << 20;
/// Begins an item.
const ITEM: Tag = Tag(0xFFFE, 0xE000);
/// The longest value that is kept. A UID has 64 characters.
const MAX_VALUE: usize = 128;

/// The elements of one item, or of the top level.
pub type Elements = BTreeMap<Tag, Vec<u8>>;

/// A small data set.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct DataSet {
    elements: Elements,
    sequences: BTreeMap<Tag, Vec<Elements>>,
}

impl DataSet {
    /// Takes a data set apart; native encodings only.
    pub fn parse(bytes: &[u8], syntax: &TransferSyntax) -> Result<Self, ScanError> {
        let budget = Budget {
            depth: 8,
            elements: 200_000,
            total: Some(bytes.len() as u64),
            ..Budget::default()
        };
        let mut scanner = Scanner::with_visitor(syntax, budget, Reader::default());
        scanner.feed(bytes)?;
        scanner.finish_visit().map(|(_, reader)| reader.data_set)
    }

    /// With an element of the top level.
    #[must_use]
    pub fn with(mut self, tag: Tag, value: &str) -> Self {
        self.elements.insert(tag, padded(tag, value));
        self
    }

    /// With a sequence.
    #[must_use]
    pub fn with_items(mut self, tag: Tag, items: Vec<Elements>) -> Self {
        self.sequences.insert(tag, items);
        self
    }

    /// The elements of the top level.
    pub fn elements(&self) -> &Elements {
        &self.elements
    }

    /// The items of a sequence; none where it is absent.
    pub fn items(&self, tag: Tag) -> &[Elements] {
        self.sequences.get(&tag).map_or(&[], Vec::as_slice)
    }

    /// Implicit or Explicit VR Little Endian.
    pub fn encode(&self, syntax: &TransferSyntax) -> Vec<u8> {
        let explicit = *syntax == TransferSyntax::explicit_vr_little_endian();
        let mut parts: BTreeMap<Tag, Vec<u8>> = BTreeMap::new();
        for (tag, value) in &self.elements {
            parts.insert(*tag, element(*tag, value, explicit));
        }
        for (tag, items) in &self.sequences {
            let mut content = Vec::new();
            for item in items {
                let item: Vec<u8> =
                    item.iter().flat_map(|(tag, value)| element(*tag, value, explicit)).collect();
                content.extend_from_slice(&header(ITEM, item.len()));
                content.extend_from_slice(&item);
            }
            let mut sequence = header(*tag, content.len());
            if explicit {
                sequence.splice(4..4, *b"SQ\0\0");
            }
            sequence.extend_from_slice(&content);
            parts.insert(*tag, sequence);
        }
        parts.into_values().flatten().collect()
    }
}

/// A UID among elements.
pub fn uid<U: From<Uid>>(elements: &Elements, tag: Tag) -> Option<U> {
    elements.get(&tag).and_then(|value| Uid::from_value(value).ok()).map(U::from)
}

/// A number that is written as text (VR IS).
pub fn integer(elements: &Elements, tag: Tag) -> Option<u64> {
    std::str::from_utf8(elements.get(&tag)?).ok()?.trim_matches([' ', '\0']).parse().ok()
}

/// A number that is written as text, and may be negative (VR IS).
pub fn signed(elements: &Elements, tag: Tag) -> Option<i64> {
    let text = std::str::from_utf8(elements.get(&tag)?).ok()?.trim_matches([' ', '\0']);
    text.parse::<i32>().ok().map(i64::from)
}

/// A text, in the character set that the data set names.
pub fn text(elements: &Elements, tag: Tag) -> Option<String> {
    let value = elements.get(&tag)?;
    let set = elements.get(&tags::SPECIFIC_CHARACTER_SET).map(Vec::as_slice).unwrap_or_default();
    let text = gantry_store::dicom::text::decode(set, value);
    let text = text.trim_matches([' ', '\0']);
    (!text.is_empty()).then(|| text.to_owned())
}

/// A number in two bytes (VR US).
pub fn short(elements: &Elements, tag: Tag) -> Option<u16> {
    elements.get(&tag)?.first_chunk().map(|bytes| u16::from_le_bytes(*bytes))
}

/// An item's text, padded as its VR asks.
pub fn padded(tag: Tag, value: &str) -> Vec<u8> {
    let mut value = value.as_bytes().to_vec();
    if value.len() % 2 == 1 {
        value.push(if representation(tag) == VR::UI { 0 } else { b' ' });
    }
    value
}

/// The VR of what is written here.
fn representation(tag: Tag) -> VR {
    match tag {
        tags::FAILURE_REASON => VR::US,
        tags::QUERY_RETRIEVE_LEVEL | tags::MODALITY | tags::SPECIFIC_CHARACTER_SET => VR::CS,
        tags::SERIES_DESCRIPTION => VR::LO,
        tags::SERIES_NUMBER
        | tags::NUMBER_OF_STUDY_RELATED_SERIES
        | tags::NUMBER_OF_STUDY_RELATED_INSTANCES
        | tags::NUMBER_OF_SERIES_RELATED_INSTANCES => VR::IS,
        _ => VR::UI,
    }
}

fn header(tag: Tag, length: usize) -> Vec<u8> {
    let mut header = Vec::with_capacity(12);
    header.extend_from_slice(&tag.group().to_le_bytes());
    header.extend_from_slice(&tag.element().to_le_bytes());
    header.extend_from_slice(&(length as u32).to_le_bytes());
    header
}

fn element(tag: Tag, value: &[u8], explicit: bool) -> Vec<u8> {
    let mut bytes = header(tag, value.len());
    if explicit {
        let length = (value.len() as u16).to_le_bytes();
        bytes.truncate(4);
        bytes.extend_from_slice(&representation(tag).to_bytes());
        bytes.extend_from_slice(&length);
    }
    bytes.extend_from_slice(value);
    bytes
}

/// Picks short values out of a pass of the scanner.
#[derive(Default)]
struct Reader {
    data_set: DataSet,
    /// The top-level sequence that is being read.
    sequence: Option<Tag>,
    /// The element that is being read, how deep it stands, and its value so far.
    value: Option<(Tag, u16, Vec<u8>)>,
}

impl Visitor for Reader {
    fn visit(&mut self, event: Event<'_>) {
        match event {
            Event::Sequence(header) if header.depth == 0 => {
                self.sequence = Some(header.tag);
                self.data_set.sequences.entry(header.tag).or_default();
            }
            Event::Item(item) if item.depth == 1 => {
                let items = self.sequence.and_then(|tag| self.data_set.sequences.get_mut(&tag));
                if let Some(items) = items {
                    items.push(Elements::new());
                }
            }
            Event::Element(header) if header.depth <= 1 => {
                let short = header.length.is_some_and(|length| length as usize <= MAX_VALUE);
                self.value = short.then(|| (header.tag, header.depth, Vec::new()));
            }
            Event::Value(bytes) => {
                if let Some((.., value)) = &mut self.value {
                    value.extend_from_slice(bytes);
                }
            }
            Event::ValueEnd => {
                let Some((tag, depth, value)) = self.value.take() else { return };
                let items = self.sequence.and_then(|tag| self.data_set.sequences.get_mut(&tag));
                match (depth, items.and_then(|items| items.last_mut())) {
                    (0, _) => drop(self.data_set.elements.insert(tag, value)),
                    (_, Some(item)) => drop(item.insert(tag, value)),
                    (_, None) => {}
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> DataSet {
        let item = |uid: &str| {
            Elements::from([
                (
                    tags::REFERENCED_SOP_CLASS_UID,
                    padded(tags::REFERENCED_SOP_CLASS_UID, "1.2.840.10008.5.1.4.1.1.2"),
                ),
                (tags::REFERENCED_SOP_INSTANCE_UID, padded(tags::REFERENCED_SOP_INSTANCE_UID, uid)),
                (tags::FAILURE_REASON, vec![0x12, 0x01]),
            ])
        };
        DataSet::default()
            .with(tags::TRANSACTION_UID, "2.25.7")
            .with(tags::QUERY_RETRIEVE_LEVEL, "IMAGE")
            .with_items(tags::REFERENCED_SOP_SEQUENCE, vec![item("2.25.1"), item("2.25.22")])
            .with_items(tags::FAILED_SOP_SEQUENCE, vec![])
    }

    #[test]
    fn a_data_set_prints_and_parses_in_both_encodings() {
        for syntax in [
            TransferSyntax::implicit_vr_little_endian(),
            TransferSyntax::explicit_vr_little_endian(),
        ] {
            let read = DataSet::parse(&sample().encode(&syntax), &syntax).unwrap();
            assert_eq!(read, sample(), "{syntax:?}");
            let second = &read.items(tags::REFERENCED_SOP_SEQUENCE)[1];
            assert_eq!(
                uid::<Uid>(second, tags::REFERENCED_SOP_INSTANCE_UID).unwrap().as_str(),
                "2.25.22"
            );
            assert_eq!(short(second, tags::FAILURE_REASON), Some(0x0112));
        }
    }

    #[test]
    fn what_is_long_or_deep_is_passed_over() {
        let syntax = TransferSyntax::implicit_vr_little_endian();
        let long = DataSet::default().with(tags::STUDY_INSTANCE_UID, &"1".repeat(MAX_VALUE + 1));
        assert_eq!(DataSet::parse(&long.encode(&syntax), &syntax).unwrap(), DataSet::default());
    }

    proptest! {
        #[test]
        fn bytes_of_any_kind_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = DataSet::parse(&bytes, &TransferSyntax::implicit_vr_little_endian());
            let _ = DataSet::parse(&bytes, &TransferSyntax::explicit_vr_little_endian());
        }

        #[test]
        fn a_data_set_that_is_cut_is_not_taken_for_the_whole(at in 0_usize..200) {
            let syntax = TransferSyntax::implicit_vr_little_endian();
            let whole = sample().encode(&syntax);
            prop_assume!(at < whole.len());
            prop_assert!(DataSet::parse(&whole[..at], &syntax).ok() != Some(sample()));
        }
    }
}
