//! Where in a data set an attribute stands: what URIs of bulk data and messages about wrong input name it by.

use std::fmt;
use std::str::FromStr;

use dicom_core::Tag;
use thiserror::Error;

/// One step down: which item of which sequence.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Step {
    /// The sequence.
    pub sequence: Tag,
    /// Its item, counted from 1, as PS3.19 A.1.5 counts them.
    pub item: u32,
}

/// An attribute and the items around it. Written `00081140/1/00081155`, which needs no encoding in the path of a URL.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Place {
    /// Items around it, outermost first.
    pub path: Vec<Step>,
    /// The attribute.
    pub tag: Tag,
}

/// Deepest place that is read from a text; what the scanner allows a data set.
const DEEPEST: usize = 64;

/// A text that is no place. The text is not repeated, as it comes from strangers.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error(
    "not a place in a data set: tags of eight hexadecimal digits with numbers of items between them"
)]
pub struct NotAPlace;

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(f, &self.path, self.tag)
    }
}

/// Writes a place that is not gathered in one value yet.
pub(crate) fn write(out: &mut impl fmt::Write, path: &[Step], tag: Tag) -> fmt::Result {
    for Step { sequence, item } in path {
        write!(out, "{:04X}{:04X}/{item}/", sequence.group(), sequence.element())?;
    }
    write!(out, "{:04X}{:04X}", tag.group(), tag.element())
}

/// A tag as eight hexadecimal digits of either case.
pub fn tag(text: &str) -> Option<Tag> {
    if text.len() != 8 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let number = u32::from_str_radix(text, 16).ok()?;
    Some(Tag((number >> 16) as u16, number as u16))
}

impl FromStr for Place {
    type Err = NotAPlace;

    fn from_str(text: &str) -> Result<Self, NotAPlace> {
        let mut path = Vec::new();
        let mut parts = text.split('/');
        loop {
            let found = parts.next().and_then(tag).ok_or(NotAPlace)?;
            let Some(item) = parts.next() else { return Ok(Self { path, tag: found }) };
            // A number as it is written, so that one place has one text.
            let digits = !item.starts_with('0') && item.bytes().all(|byte| byte.is_ascii_digit());
            let item = item.parse().ok().filter(|_| digits).ok_or(NotAPlace)?;
            if path.len() == DEEPEST {
                return Err(NotAPlace);
            }
            path.push(Step { sequence: found, item });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_place_is_refused() {
        let deep = "00081140/1/".repeat(65) + "00081155";
        let wrong = ["", "0008114", "00081140/", "00081140/1", "00081140/0/00081155", &deep];
        for text in wrong.into_iter().chain([
            "+0081140",
            "00081140/+1/00081155",
            "00081140/4294967296/00081155",
        ]) {
            assert_eq!(text.parse::<Place>(), Err(NotAPlace), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_place_is_read_as_it_was_written(path in prop::collection::vec((any::<u32>(), 1_u32..), 0..8), last: u32) {
            let tag = |number: u32| Tag((number >> 16) as u16, number as u16);
            let path = path.into_iter().map(|(number, item)| Step { sequence: tag(number), item }).collect();
            let place = Place { path, tag: tag(last) };
            prop_assert_eq!(place.to_string().parse(), Ok(place));
        }
    }
}
