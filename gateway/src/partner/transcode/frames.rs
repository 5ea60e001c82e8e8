//! Which fragments make up which frame (PS3.5 A.4, PS3.3 C.7.6.3.1.8).

use std::borrow::Cow;

use dicom_core::Tag;
use dicom_dictionary_std::tags;

use super::TranscodeError;

/// Item tag and length before each fragment.
const ITEM_HEADER: u64 = 8;

/// Where frames begin, counted from the first fragment's item tag.
#[derive(Clone, Copy, Debug)]
pub(super) enum Offsets<'a> {
    /// The Basic Offset Table: four bytes each, or empty.
    Basic(&'a [u8]),
    /// The value of Extended Offset Table (7FE0,0001): eight bytes each.
    Extended(&'a [u8]),
}

impl Offsets<'_> {
    fn tag(self) -> Tag {
        match self {
            Self::Basic(_) => tags::PIXEL_DATA,
            Self::Extended(_) => tags::EXTENDED_OFFSET_TABLE,
        }
    }

    fn values(self) -> Vec<u64> {
        match self {
            Self::Basic(table) => {
                table.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes).into()).collect()
            }
            Self::Extended(table) => {
                table.as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect()
            }
        }
    }
}

/// The frames, each whole. As many fragments as frames are a fragment each, whatever tables say, and all fragments are
/// one frame where there is one; else a table must put every frame at the begin of a fragment.
pub(super) fn of<'a>(
    fragments: &[&'a [u8]],
    offsets: Offsets<'_>,
    frames: u32,
) -> Result<Vec<Cow<'a, [u8]>>, TranscodeError> {
    if fragments.len() == frames as usize {
        return Ok(fragments.iter().map(|fragment| Cow::Borrowed(*fragment)).collect());
    }
    if fragments.len() < frames as usize {
        let why = "says more than there are fragments";
        return Err(TranscodeError::Inconsistent { tag: tags::NUMBER_OF_FRAMES, why });
    }
    if frames == 1 {
        return Ok(vec![Cow::Owned(fragments.concat())]);
    }
    let wrong = |why| TranscodeError::Inconsistent { tag: offsets.tag(), why };
    let starts = offsets.values();
    if starts.len() != frames as usize {
        return Err(wrong("has no offset table that tells which fragments make a frame"));
    }
    let mut starts = starts.into_iter().peekable();
    let mut whole: Vec<Vec<u8>> = Vec::with_capacity(frames as usize);
    let mut at = 0;
    for fragment in fragments {
        if starts.next_if_eq(&at).is_some() {
            whole.push(Vec::new());
        }
        whole
            .last_mut()
            .ok_or_else(|| {
                wrong("has an offset table that does not begin with the first fragment")
            })?
            .extend_from_slice(fragment);
        at += fragment.len() as u64 + ITEM_HEADER;
    }
    if starts.next().is_some() {
        return Err(wrong("has an offset that is not the begin of a fragment"));
    }
    Ok(whole.into_iter().map(Cow::Owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAGMENTS: [&[u8]; 3] = [b"aa", b"bbbb", b"cc"];

    fn frames(offsets: Offsets<'_>, frames: u32) -> Option<Vec<String>> {
        let frames = of(&FRAGMENTS, offsets, frames).ok()?;
        Some(frames.iter().map(|frame| String::from_utf8_lossy(frame).into_owned()).collect())
    }

    #[test]
    fn frames_are_told_apart_by_number_or_by_either_table() {
        let basic = |offsets: &[u32]| {
            offsets.iter().flat_map(|offset| offset.to_le_bytes()).collect::<Vec<_>>()
        };
        let extended = [0_u64, 22].map(u64::to_le_bytes);

        assert_eq!(frames(Offsets::Basic(&[]), 3).unwrap(), ["aa", "bbbb", "cc"]);
        assert_eq!(frames(Offsets::Basic(&[]), 1).unwrap(), ["aabbbbcc"]);
        assert_eq!(frames(Offsets::Basic(&basic(&[0, 10])), 2).unwrap(), ["aa", "bbbbcc"]);
        assert_eq!(
            frames(Offsets::Extended(extended.as_flattened()), 2).unwrap(),
            ["aabbbb", "cc"]
        );
    }

    #[test]
    fn frames_that_cannot_be_told_apart_are_refused() {
        let basic = |offsets: &[u32]| {
            offsets.iter().flat_map(|offset| offset.to_le_bytes()).collect::<Vec<_>>()
        };

        for table in [&[][..], &[0], &[0, 4], &[10, 22], &[10, 0], &[0, 0], &[0, 10, 22]] {
            assert_eq!(frames(Offsets::Basic(&basic(table)), 2), None, "{table:?}");
        }
        assert_eq!(frames(Offsets::Basic(&[]), 4), None);
    }
}
