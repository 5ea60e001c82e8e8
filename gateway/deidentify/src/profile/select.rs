//! Which attributes a rule is for.
//!
//! ```text
//! "ProtocolName"                        that attribute, wherever it is
//! "(0010,0010)"   "60xx,3000"           by its tag; x is any digit
//! "VR:PN"                               all of that value representation
//! "RequestAttributesSequence/*"         all that is inside that sequence of the top level, at any depth
//! "RequestAttributesSequence/StudyID"   that attribute in that place
//! "(0029,\"SIEMENS CSA HEADER\",10)"      a private one: group, creator, and its two last digits
//! ```

use dicom_core::dictionary::DataDictionary;
use dicom_core::{Tag, VR};
use dicom_dictionary_std::StandardDataDictionary;

use crate::profile::near;

/// A selector that was understood.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Selector {
    /// One attribute, wherever it is.
    Tag(Tag),
    /// All whose tag has these digits where the mask has ones.
    Mask {
        /// The digits.
        value: u32,
        /// Where they count.
        mask: u32,
    },
    /// All of a value representation.
    Vr(VR),
    /// In this place: the sequences around it, outermost first, and the attribute; without one, all inside.
    Path(Vec<Tag>, Option<Tag>),
    /// A private attribute.
    Private {
        /// Its group, which is odd.
        group: u16,
        /// Private Creator.
        creator: String,
        /// The low byte of its number.
        element: u8,
    },
}

/// An attribute in its place, as selectors see it.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The sequences around it, outermost first.
    pub path: &'a [Tag],
    /// The attribute.
    pub tag: Tag,
    /// Its value representation.
    pub vr: VR,
    /// The creator of its private block.
    pub creator: Option<&'a str>,
}

impl Selector {
    /// Reads one; the error says what is wrong and what to write.
    pub fn parse(text: &str) -> Result<Self, (String, String)> {
        let text = text.trim();
        if let Some(letters) = text.strip_prefix("VR:") {
            let help = "Write two capital letters, such as VR:PN.".to_owned();
            return letters
                .parse()
                .map(Self::Vr)
                .map_err(|_| (format!("there is no value representation {letters}"), help));
        }
        if text.contains('"') {
            return private(text).ok_or_else(|| {
                let help = "Write such as (0029,\"SIEMENS CSA HEADER\",10): an odd group, the creator, two digits.";
                ("this is no private attribute".to_owned(), help.to_owned())
            });
        }
        if let Some((sequences, last)) = text.rsplit_once('/') {
            let path: Result<Vec<_>, _> = sequences.split('/').map(attribute).collect();
            let last = if last == "*" { None } else { Some(attribute(last)?) };
            return Ok(Self::Path(path?, last));
        }
        if let Some((value, mask)) = masked(text) {
            let tag = Tag((value >> 16) as u16, value as u16);
            return Ok(if mask == u32::MAX { Self::Tag(tag) } else { Self::Mask { value, mask } });
        }
        attribute(text).map(Self::Tag)
    }

    /// Whether it is for this attribute.
    pub fn selects(&self, place: Place<'_>) -> bool {
        let number = u32::from(place.tag.group()) << 16 | u32::from(place.tag.element());
        match self {
            Self::Tag(tag) => *tag == place.tag,
            Self::Mask { value, mask } => number & mask == *value,
            Self::Vr(vr) => *vr == place.vr,
            Self::Path(path, Some(tag)) => *tag == place.tag && path == place.path,
            Self::Path(path, None) => place.path.starts_with(path),
            Self::Private { group, creator, element } => {
                *group == place.tag.group()
                    && u16::from(*element) == place.tag.element() & 0xFF
                    && place.creator == Some(creator)
            }
        }
    }

    /// Whether all that the other one selects is selected by this one.
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Mask { value, mask }, Self::Tag(tag) | Self::Path(_, Some(tag))) => {
                let number = u32::from(tag.group()) << 16 | u32::from(tag.element());
                number & mask == *value
            }
            (Self::Tag(one), Self::Path(_, Some(other))) => one == other,
            (Self::Vr(vr), Self::Tag(tag) | Self::Path(_, Some(tag))) => {
                crate::data_set::dictionary_vr(*tag) == *vr
            }
            (Self::Path(path, None), Self::Path(inner, _)) => inner.starts_with(path),
            _ => self == other,
        }
    }
}

/// An attribute by its keyword or its tag.
fn attribute(text: &str) -> Result<Tag, (String, String)> {
    if let Some((value, u32::MAX)) = masked(text) {
        return Ok(Tag((value >> 16) as u16, value as u16));
    }
    StandardDataDictionary.by_name(text).map(|entry| entry.tag.inner()).ok_or_else(|| {
        let help = format!(
            "{}Write a keyword of PS3.6 such as ProtocolName, or a tag such as (0018,1030).",
            near::attribute(text)
        );
        (format!("there is no attribute {text}"), help)
    })
}

/// Digits and mask of `(gggg,eeee)`, with or without parentheses and comma; x is any digit.
fn masked(text: &str) -> Option<(u32, u32)> {
    let inner = text.strip_prefix('(').and_then(|text| text.strip_suffix(')')).unwrap_or(text);
    let digits: String = inner.chars().filter(|c| *c != ',').collect();
    if digits.len() != 8 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'x') {
        return None;
    }
    let value = u32::from_str_radix(&digits.replace('x', "0"), 16).ok()?;
    let mask: String = digits.chars().map(|c| if c == 'x' { '0' } else { 'F' }).collect();
    Some((value, u32::from_str_radix(&mask, 16).ok()?))
}

fn private(text: &str) -> Option<Selector> {
    let inner = text.strip_prefix('(')?.strip_suffix(')')?;
    let (group, rest) = inner.split_once(',')?;
    let (creator, element) = rest.trim().strip_prefix('"')?.rsplit_once("\",")?;
    let group = u16::from_str_radix(group.trim(), 16).ok().filter(|group| group % 2 == 1)?;
    let element = u8::from_str_radix(element.trim(), 16).ok()?;
    Some(Selector::Private { group, creator: creator.to_owned(), element })
}

#[cfg(test)]
mod tests {
    use dicom_dictionary_std::tags;

    use super::*;

    const REQUEST: Tag = tags::REQUEST_ATTRIBUTES_SEQUENCE;

    fn selects(text: &str, path: &[Tag], tag: Tag, creator: Option<&str>) -> bool {
        let vr = crate::data_set::dictionary_vr(tag);
        Selector::parse(text).unwrap().selects(Place { path, tag, vr, creator })
    }

    #[test]
    fn selectors_select_what_they_name() {
        assert!(selects("ProtocolName", &[REQUEST], tags::PROTOCOL_NAME, None));
        assert!(selects("(0018,1030)", &[], tags::PROTOCOL_NAME, None));
        assert!(selects("60xx,3000", &[], Tag(0x6002, 0x3000), None));
        assert!(!selects("60xx,3000", &[], Tag(0x6002, 0x4000), None));
        assert!(selects("VR:PN", &[], tags::OPERATORS_NAME, None));
        assert!(selects("RequestAttributesSequence/*", &[REQUEST, REQUEST], tags::STUDY_ID, None));
        assert!(!selects("RequestAttributesSequence/*", &[], tags::STUDY_ID, None));
        assert!(!selects("RequestAttributesSequence/StudyID", &[], tags::STUDY_ID, None));
        let csa = "(0029,\"SIEMENS CSA HEADER\",10)";
        assert!(selects(csa, &[], Tag(0x0029, 0x1110), Some("SIEMENS CSA HEADER")));
        assert!(!selects(csa, &[], Tag(0x0029, 0x1110), Some("OTHER")));
    }

    #[test]
    fn wrong_ones_are_named() {
        for text in ["ProtcolName", "VR:XX", "(0028,\"X\",10)", "A/B", "", "(0018,10)"] {
            assert!(Selector::parse(text).is_err(), "{text}");
        }
        let (_, help) = Selector::parse("PatientsName").unwrap_err();
        assert!(help.contains("Did you mean \"PatientName\"?"), "{help}");
    }

    #[test]
    fn a_wider_one_covers_a_narrower_one() {
        let covers =
            |one, other| Selector::parse(one).unwrap().covers(&Selector::parse(other).unwrap());
        assert!(covers("VR:PN", "PatientName"));
        assert!(covers("StudyID", "RequestAttributesSequence/StudyID"));
        assert!(covers("60xx,xxxx", "(6000,3000)"));
        assert!(!covers("RequestAttributesSequence/StudyID", "StudyID"));
        assert!(!covers("PatientName", "VR:PN"));
    }
}
