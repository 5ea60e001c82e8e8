//! The palette of PALETTE COLOR images (PS3.3 C.7.6.3.1.5, C.7.6.3.1.6), plain or segmented (C.7.9.2).

use dicom_core::Tag;
use dicom_dictionary_std::tags;

use super::image::ImageError;
use crate::data_set::{DataSet, Value};

/// Red, green and blue of every entry, in 16 bits.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Palette {
    /// The stored value that has the first entry.
    pub(super) first: i64,
    pub(super) entries: Vec<[u16; 3]>,
}

/// Descriptor, data, and segmented data of a colour.
const COLOURS: [[Tag; 3]; 3] = [
    [
        tags::RED_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR,
        tags::RED_PALETTE_COLOR_LOOKUP_TABLE_DATA,
        tags::SEGMENTED_RED_PALETTE_COLOR_LOOKUP_TABLE_DATA,
    ],
    [
        tags::GREEN_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR,
        tags::GREEN_PALETTE_COLOR_LOOKUP_TABLE_DATA,
        tags::SEGMENTED_GREEN_PALETTE_COLOR_LOOKUP_TABLE_DATA,
    ],
    [
        tags::BLUE_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR,
        tags::BLUE_PALETTE_COLOR_LOOKUP_TABLE_DATA,
        tags::SEGMENTED_BLUE_PALETTE_COLOR_LOOKUP_TABLE_DATA,
    ],
];

impl Palette {
    /// Reads the three tables. `signed`: as stored values are, so is the first that has an entry.
    pub(super) fn of(data_set: &DataSet, signed: bool) -> Result<Self, ImageError> {
        let mut first = None;
        let mut tables = Vec::with_capacity(3);
        for [descriptor, plain, segmented] in COLOURS {
            let [count, begin, bits] = describe(data_set, descriptor)?;
            // 0 stands for 2^16.
            let count = if count == 0 { 1 << 16 } else { usize::from(count) };
            let begin = if signed { i64::from(begin.cast_signed()) } else { i64::from(begin) };
            if *first.get_or_insert(begin) != begin {
                return Err(ImageError::inconsistent(
                    descriptor,
                    "begins elsewhere than the other colours",
                ));
            }
            if !matches!(bits, 8 | 16) {
                return Err(ImageError::inconsistent(
                    descriptor,
                    "has entries not of 8 or 16 bits",
                ));
            }
            let table = match (raw(data_set, plain), raw(data_set, segmented)) {
                (Some(bytes), _) => cells(bytes, count, bits),
                (None, Some(bytes)) => segments(bytes, count, bits),
                (None, None) => return Err(ImageError::Missing(plain)),
            };
            let why = "does not hold as many entries as its descriptor says";
            tables.push(table.ok_or(ImageError::inconsistent(plain, why))?);
        }
        let [red, green, blue] = tables.as_slice() else {
            return Err(ImageError::Missing(tags::RED_PALETTE_COLOR_LOOKUP_TABLE_DATA));
        };
        let entries: Vec<_> =
            red.iter().zip(green).zip(blue).map(|((r, g), b)| [*r, *g, *b]).collect();
        Ok(Self { first: first.unwrap_or_default(), entries })
    }

    /// The stored value, within these, whose colour is the darkest by luminance (ITU-R BT.601); the lowest of several.
    pub(super) fn darkest(&self, lowest: i64, highest: i64) -> Option<i64> {
        let luminance =
            |[r, g, b]: &[u16; 3]| u64::from(*r) * 299 + u64::from(*g) * 587 + u64::from(*b) * 114;
        (self.first..)
            .zip(&self.entries)
            .filter(|(value, _)| (lowest..=highest).contains(value))
            .min_by_key(|(_, entry)| luminance(entry))
            .map(|(value, _)| value)
    }

    /// The colour of a stored value: below and above the entries, the nearest has it (PS3.3 C.7.6.3.1.5).
    pub(super) fn colour(&self, value: i64) -> [u16; 3] {
        let last = self.entries.len().saturating_sub(1);
        let at = usize::try_from(value.saturating_sub(self.first)).unwrap_or(0).min(last);
        self.entries.get(at).copied().unwrap_or_default()
    }
}

fn describe(data_set: &DataSet, tag: Tag) -> Result<[u16; 3], ImageError> {
    let words = raw(data_set, tag).map(words).ok_or(ImageError::Missing(tag))?;
    words.first_chunk().copied().ok_or(ImageError::inconsistent(tag, "has not three values"))
}

/// The bytes with those at the end that look like padding.
fn raw(data_set: &DataSet, tag: Tag) -> Option<&[u8]> {
    match &data_set.get(tag)?.value {
        Value::Bytes(bytes) => Some(bytes),
        _ => None,
    }
}

fn words(bytes: &[u8]) -> Vec<u16> {
    bytes.as_chunks().0.iter().map(|word| u16::from_le_bytes(*word)).collect()
}

fn widen(entry: u16, bits: u16) -> u16 {
    // An entry of 8 bits in a word that is larger is one of 16 bits, whatever the descriptor says.
    if bits == 8 && entry <= 0xFF { entry * 0x101 } else { entry }
}

/// Entries of 8 bits are two to a word, or, from some writers, one to a word.
fn cells(bytes: &[u8], count: usize, bits: u16) -> Option<Vec<u16>> {
    if bits == 16 || bytes.len() >= count * 2 {
        let words = words(bytes.get(..count * 2)?);
        // One that is larger than a byte says that all are words.
        let bits = if words.iter().any(|word| *word > 0xFF) { 16 } else { bits };
        return Some(words.into_iter().map(|entry| widen(entry, bits)).collect());
    }
    Some(bytes.get(..count)?.iter().map(|byte| widen((*byte).into(), 8)).collect())
}

/// With entries of 8 bits everything in segments has 8 bits, or, from some writers, a word each.
fn segments(bytes: &[u8], count: usize, bits: u16) -> Option<Vec<u16>> {
    let single = || bytes.iter().map(|byte| u16::from(*byte)).collect::<Vec<_>>();
    let packed = if bits == 8 { expand(&single(), count, false) } else { None };
    let entries = packed.or_else(|| expand(&words(bytes), count, true))?;
    Some(entries.into_iter().map(|entry| widen(entry, bits)).collect())
}

/// Discrete, linear and indirect segments (PS3.3 C.7.9.2.1 to C.7.9.2.3); where an indirect one refers to is said in words.
fn expand(data: &[u16], count: usize, may_refer: bool) -> Option<Vec<u16>> {
    let mut entries = Vec::with_capacity(count);
    let mut rest = data;
    while entries.len() < count {
        // Behind the segments there may be padding, but too few entries are too few.
        rest = segment(data, rest, count, may_refer, &mut entries)?;
    }
    (entries.len() == count).then_some(entries)
}

/// Expands the segment at the begin of `rest`, and returns what is behind it.
fn segment<'a>(
    data: &[u16],
    rest: &'a [u16],
    count: usize,
    may_refer: bool,
    entries: &mut Vec<u16>,
) -> Option<&'a [u16]> {
    let ([kind, length], rest) = rest.split_first_chunk()?;
    let (steps, length) = (i64::from(*length), usize::from(*length));
    // A segment of nothing would be for ever; more entries than there are room for are an error.
    if length == 0 {
        return None;
    }
    match kind {
        0 => {
            let (values, rest) = rest.split_at_checked(length)?;
            entries.extend_from_slice(values);
            (entries.len() <= count).then_some(rest)
        }
        1 => {
            let (end, rest) = rest.split_first()?;
            let begin = i64::from(*entries.last()?);
            let end = i64::from(*end);
            for step in 1..=steps {
                let scaled = (end - begin) * step;
                // Rounded to the nearest.
                let half = if scaled < 0 { -steps } else { steps };
                entries.push(u16::try_from(begin + (scaled * 2 + half) / (steps * 2)).ok()?);
            }
            (entries.len() <= count).then_some(rest)
        }
        2 if may_refer => {
            let ([low, high], rest) = rest.split_first_chunk()?;
            // In bytes from the begin, as the text has it; its segments are not indirect themselves.
            let offset = (usize::from(*high) << 16 | usize::from(*low)) / 2;
            let mut copied = data.get(offset..)?;
            for _ in 0..length {
                copied = segment(data, copied, count, false, entries)?;
            }
            Some(rest)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use dicom_core::VR;

    use super::*;
    use crate::data_set::Element;

    fn bytes(words: &[u16]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    fn data_set(descriptor: [u16; 3], nth: usize, data: [&[u8]; 3]) -> DataSet {
        let mut set = DataSet::default();
        for (colour, data) in COLOURS.iter().zip(data) {
            set.put(Element::new(colour[0], VR::US, bytes(&descriptor)));
            set.put(Element::new(colour[nth], VR::OW, data));
        }
        set
    }

    #[test]
    fn entries_of_a_byte_are_read_however_they_are_packed() {
        let packed = data_set([3, 5, 8], 1, [&[9, 0, 7], &[9, 1, 7], &[9, 2, 7]]);
        let in_words =
            data_set([3, 5, 8], 1, [&bytes(&[9, 0, 7]), &bytes(&[9, 1, 7]), &bytes(&[9, 2, 7])]);

        let palette = Palette::of(&packed, false).unwrap();

        assert_eq!(palette, Palette::of(&in_words, false).unwrap());
        assert_eq!(palette.entries, [[0x909; 3], [0, 0x101, 0x202], [0x707; 3]]);
        assert_eq!(palette.darkest(0, 255), Some(6));
        assert_eq!(palette.darkest(7, 255), Some(7));
        assert_eq!(palette.darkest(0, 4), None);
        assert_eq!(
            [palette.colour(0), palette.colour(6), palette.colour(99)],
            [[0x909; 3], [0, 0x101, 0x202], [0x707; 3]]
        );
    }

    #[test]
    fn a_first_entry_of_signed_values_may_be_negative() {
        let data = bytes(&[500, 4, 900]);
        let set = data_set([3, 0xFFFE, 16], 1, [&data; 3]);

        assert_eq!(Palette::of(&set, true).unwrap().darkest(-128, 127), Some(-1));
        assert_eq!(Palette::of(&set, false).unwrap().darkest(0, 0xFFFF), Some(0xFFFF));
    }

    #[test]
    fn segments_are_expanded() {
        // Two entries, four on a line to 50, and both segments again.
        let data = [0, 2, 10, 30, 1, 4, 50, 2, 2, 0, 0];

        let expanded = expand(&data, 12, true).unwrap();

        assert_eq!(expanded, [10, 30, 35, 40, 45, 50, 10, 30, 35, 40, 45, 50]);
        let set = data_set([12, 0, 16], 2, [&bytes(&data); 3]);
        assert_eq!(Palette::of(&set, false).unwrap().entries[3], [40; 3]);
        let set = data_set([6, 0, 8], 2, [&[0, 2, 10, 30, 1, 4, 50, 0]; 3]);
        assert_eq!(Palette::of(&set, false).unwrap().entries[5], [50 * 0x101; 3]);
    }

    #[test]
    fn segments_that_end_nowhere_are_refused() {
        for (data, count) in [
            (&[0, 2, 10][..], 2),
            (&[0, 2, 10, 20], 3),
            (&[0, 3, 1, 2, 3], 2),
            (&[0, 0], 1),
            (&[1, 2, 9], 2),
            (&[2, 1, 0, 0], 1),
            (&[3, 1, 0], 1),
            (&[], 1),
        ] {
            assert_eq!(expand(data, count, true), None, "{data:?}");
        }
    }
}
