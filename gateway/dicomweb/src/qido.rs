//! Parameters of a search (PS3.18 8.3.4, 10.6): from the query of a URL to attributes and values.
//!
//! Values are as they were written, percent-decoded: what ranges, wildcards, lists of UIDs and `""` mean is for whoever
//! matches them (PS3.4 C.2.2.2). A plus is a space, as in forms and as the common clients write it; a plus that is meant
//! is %2B. What is not understood is refused, never passed over: a search without a condition that somebody wrote finds
//! more than was asked for.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry};
use dicom_core::{Tag, VR};
use dicom_dictionary_std::StandardDataDictionary;
use thiserror::Error;

use crate::place;
use crate::value;

/// Bytes of the longest query, all parameters together.
pub const MAX_QUERY: usize = 64 << 10;
/// The most parameters.
pub const MAX_PARAMETERS: usize = 256;
/// Bytes of the longest value, as it is written. A list of 100 UIDs has 6,500.
pub const MAX_VALUE: usize = 16 << 10;
/// The most attributes that `includefield` names.
pub const MAX_FIELDS: usize = 512;
/// Sequences in one path.
pub const MAX_DEPTH: usize = 8;

/// What the Warning header says where fuzzy matching was asked for (PS3.18 8.3.4.2); behind `299 <service>: `.
pub const NO_FUZZY_MATCHING: &str =
    "The fuzzymatching parameter is not supported. Only literal matching has been performed.";
/// The same of empty values (PS3.18 8.3.4.5).
pub const NO_EMPTY_VALUE_MATCHING: &str = "The emptyvaluematching parameter is not supported. Empty Value Matching has not been performed.";
/// The same of several values (PS3.18 8.3.4.6).
pub const NO_MULTIPLE_VALUE_MATCHING: &str = "The multiplevaluematching parameter is not supported. Multiple Value Matching has not been performed.";

/// The value of a Warning header. `service`: the base URI of this node's DICOMweb, which is ours and not a stranger's.
pub fn warning(service: &str, text: &str) -> String {
    format!("299 {service}: {text}")
}

/// An attribute, with the sequences it is in, outermost first.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Attribute {
    /// Sequences around it.
    pub sequences: Vec<Tag>,
    /// The attribute itself.
    pub tag: Tag,
}

/// One condition.
#[derive(Clone, Eq, PartialEq)]
pub struct Match {
    /// Of which attribute.
    pub attribute: Attribute,
    /// As it was written; empty for universal matching. It may tell who a patient is.
    pub value: String,
}

/// Values are patients'.
impl fmt::Debug for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} [{} bytes]", self.attribute, self.value.len())
    }
}

/// A search.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Query {
    /// All of which a match meets.
    pub matches: Vec<Match>,
    /// `includefield=all`
    pub include_all: bool,
    /// Attributes that answers shall have beside the usual ones; without repetition.
    pub include: Vec<Attribute>,
    /// The most answers.
    pub limit: Option<u32>,
    /// Answers that are left out before the first.
    pub offset: u32,
    /// `fuzzymatching=true`; who does not do it says [`NO_FUZZY_MATCHING`].
    pub fuzzy_matching: bool,
    /// `emptyvaluematching=true`: the value `""` finds what has no value.
    pub empty_value_matching: bool,
    /// `multiplevaluematching=true`
    pub multiple_value_matching: bool,
    /// The parameter `accept`, for [`Accept::parse`](crate::accept::Accept::parse).
    pub accept: Option<String>,
}

/// The name of a parameter as it may be shown to anybody: what is not a letter, digit, full stop, hyphen or underscore is
/// percent-encoded, and the rest of a long one cut.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Name(String);

impl Name {
    fn new(name: &str) -> Self {
        const SHOWN: usize = 64;
        let mut shown = String::new();
        for byte in name.bytes() {
            if shown.len() >= SHOWN {
                shown.push_str("...");
                break;
            }
            if byte.is_ascii_alphanumeric() || b"._-".contains(&byte) {
                shown.push(char::from(byte));
            } else {
                // Writing to a string does not fail.
                let _ = write!(shown, "%{byte:02X}");
            }
        }
        Self(shown)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why it is no search; answered with 400. Never a value, as values are patients'.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum BadQuery {
    /// Longer than [`MAX_QUERY`], [`MAX_PARAMETERS`] or [`MAX_FIELDS`].
    #[error(
        "query is longer than {MAX_QUERY} bytes, {MAX_PARAMETERS} parameters or {MAX_FIELDS} fields"
    )]
    TooLong,
    /// A percent sign without two digits, or bytes that are no UTF-8 or control characters.
    #[error("parameter {0} is not percent-encoded UTF-8 without control characters")]
    Encoding(Name),
    /// Neither a parameter nor an attribute that a search can name.
    #[error("parameter {0} is neither an attribute of the standard nor known otherwise")]
    Unknown(Name),
    /// Longer than [`MAX_VALUE`].
    #[error("value of parameter {0} is longer than {MAX_VALUE} bytes")]
    ValueTooLong(Name),
    /// No number, or not true or false.
    #[error("parameter {0} has a value that it cannot have")]
    Value(Name),
    /// Given twice, where it is not said what that means.
    #[error("parameter {0} is given twice")]
    Twice(Name),
    /// A path through something that is no sequence, or through more than [`MAX_DEPTH`].
    #[error("parameter {0} leads through what is no sequence, or through more than {MAX_DEPTH}")]
    Path(Name),
}

impl Query {
    /// Reads what stands behind the question mark of a URL. `ours`: names that mean something to the caller alone, and are
    /// passed over.
    pub fn parse(query: &str, ours: &[&str]) -> Result<Self, BadQuery> {
        if query.len() > MAX_QUERY {
            return Err(BadQuery::TooLong);
        }
        let mut parsed = Self::default();
        let mut seen = Vec::new();
        for (number, parameter) in query.split('&').filter(|text| !text.is_empty()).enumerate() {
            if number == MAX_PARAMETERS {
                return Err(BadQuery::TooLong);
            }
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let shown = Name::new(name);
            if value.len() > MAX_VALUE {
                return Err(BadQuery::ValueTooLong(shown));
            }
            let encoding = || BadQuery::Encoding(shown.clone());
            let name = decoded(name).ok_or_else(encoding)?;
            let value = decoded(value).ok_or_else(encoding)?;
            if ours.contains(&&*name) {
                continue;
            }
            if name != "includefield" {
                if seen.contains(&name) {
                    return Err(BadQuery::Twice(shown));
                }
                seen.push(name.clone());
            }
            parsed.take(&name, value, shown)?;
        }
        Ok(parsed)
    }

    fn take(&mut self, name: &str, value: Cow<'_, str>, shown: Name) -> Result<(), BadQuery> {
        let flag = || match &*value {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(BadQuery::Value(shown.clone())),
        };
        let number = || {
            let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
            let number = value.parse::<u32>().ok().filter(|_| digits);
            number.ok_or_else(|| BadQuery::Value(shown.clone()))
        };
        match name {
            "fuzzymatching" => self.fuzzy_matching = flag()?,
            "emptyvaluematching" => self.empty_value_matching = flag()?,
            "multiplevaluematching" => self.multiple_value_matching = flag()?,
            "limit" => self.limit = Some(number()?),
            "offset" => self.offset = number()?,
            "accept" => self.accept = Some(value.into_owned()),
            // Answers are always in UTF-8 (PS3.18 8.3.3.2).
            "charset" => {}
            "includefield" => self.include(&value)?,
            _ => {
                let attribute = attribute(name, &shown)?;
                // The same attribute may have been named by its keyword and by its number.
                if self.matches.iter().any(|other| other.attribute == attribute) {
                    return Err(BadQuery::Twice(shown));
                }
                self.matches.push(Match { attribute, value: value.into_owned() });
            }
        }
        Ok(())
    }

    fn include(&mut self, fields: &str) -> Result<(), BadQuery> {
        for field in fields.split(',').map(str::trim).filter(|field| !field.is_empty()) {
            if field == "all" {
                self.include_all = true;
                continue;
            }
            let attribute = attribute(field, &Name::new(field))?;
            if !self.include.contains(&attribute) {
                if self.include.len() == MAX_FIELDS {
                    return Err(BadQuery::TooLong);
                }
                self.include.push(attribute);
            }
        }
        Ok(())
    }
}

/// An attribute by keywords or numbers, with full stops between.
fn attribute(text: &str, shown: &Name) -> Result<Attribute, BadQuery> {
    let mut path = Vec::new();
    for part in text.split('.') {
        if path.len() > MAX_DEPTH {
            return Err(BadQuery::Path(shown.clone()));
        }
        path.push(named(part).ok_or_else(|| BadQuery::Unknown(shown.clone()))?);
    }
    let tag = path.pop().ok_or_else(|| BadQuery::Unknown(shown.clone()))?;
    let known = |tag: &Tag| value::known_vr(*tag, false);
    if path.iter().any(|tag| !matches!(known(tag), VR::SQ | VR::UN)) {
        return Err(BadQuery::Path(shown.clone()));
    }
    Ok(Attribute { sequences: path, tag })
}

/// An attribute by its keyword or number; not one of a command, a file's header, an item or a group's length.
fn named(text: &str) -> Option<Tag> {
    let tag = match place::tag(text) {
        Some(tag) => tag,
        None => StandardDataDictionary.by_name(text)?.tag(),
    };
    let is_data = !matches!(tag.group(), 0x0000 | 0x0002 | 0xFFFE) && tag.element() != 0;
    is_data.then_some(tag)
}

/// Percent-decoded; `None` where it is not, is no UTF-8, or holds a control character.
pub fn decoded(text: &str) -> Option<Cow<'_, str>> {
    let has_control = |text: &str| text.chars().any(char::is_control);
    if !text.contains(['%', '+']) {
        return (!has_control(text)).then_some(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let [high, low, after @ ..] = after else { return None };
                let digit = |byte: u8| char::from(byte).to_digit(16);
                bytes.push((digit(*high)? * 16 + digit(*low)?) as u8);
                rest = after;
            }
            byte => bytes.push(*byte),
        }
    }
    let decoded = String::from_utf8(bytes).ok()?;
    (!has_control(&decoded)).then_some(Cow::Owned(decoded))
}

#[cfg(test)]
mod tests {
    use dicom_dictionary_std::tags;
    use proptest::prelude::*;

    use super::*;

    fn plain(tag: Tag) -> Attribute {
        Attribute { sequences: Vec::new(), tag }
    }

    fn parse(query: &str) -> Result<Query, BadQuery> {
        Query::parse(query, &["token"])
    }

    #[test]
    fn a_search_is_read() {
        let query = "PatientName=M%C3%BCller%5E*&0020000D=1.2,1.3&StudyDate=20240101-&includefield=PatientAge,00081030\
            &includefield=all&includefield=00101010&limit=25&offset=100&fuzzymatching=true&emptyvaluematching=false\
            &RequestAttributesSequence.00400009=SPS+1%2B2&token=x&accept=application/dicom%2Bjson&charset=utf-8&&ModalitiesInStudy=";
        let parsed = parse(query).unwrap();

        let found: Vec<_> =
            parsed.matches.iter().map(|one| (one.attribute.clone(), one.value.as_str())).collect();
        let scheduled = Attribute {
            sequences: vec![tags::REQUEST_ATTRIBUTES_SEQUENCE],
            tag: tags::SCHEDULED_PROCEDURE_STEP_ID,
        };
        let expected = [
            (plain(tags::PATIENT_NAME), "Müller^*"),
            (plain(tags::STUDY_INSTANCE_UID), "1.2,1.3"),
            (plain(tags::STUDY_DATE), "20240101-"),
            (scheduled, "SPS 1+2"),
            (plain(tags::MODALITIES_IN_STUDY), ""),
        ];
        assert_eq!(found, expected);
        assert!(
            parsed.include_all
                && parsed.fuzzy_matching
                && !parsed.empty_value_matching
                && !parsed.multiple_value_matching
        );
        assert_eq!(parsed.include, [plain(tags::PATIENT_AGE), plain(tags::STUDY_DESCRIPTION)]);
        assert_eq!((parsed.limit, parsed.offset), (Some(25), 100));
        assert_eq!(parsed.accept.as_deref(), Some("application/dicom+json"));
        assert!(!format!("{parsed:?}").contains("ller"), "values do not slip into logs");
        assert_eq!(parse("").unwrap(), Query::default());
    }

    #[test]
    fn what_is_no_search_is_refused() {
        let name = |text: &str| Name(text.to_owned());
        let long = format!("PatientID={}", "1".repeat(MAX_VALUE + 1));
        let deep = format!("{}PatientID=1", "00081140.".repeat(9));
        let cases = [
            ("PatientNam=x", BadQuery::Unknown(name("PatientNam"))),
            ("%3Cscript%3E=1", BadQuery::Unknown(name("%253Cscript%253E"))),
            ("<b>\"é=1", BadQuery::Unknown(name("%3Cb%3E%22%C3%A9"))),
            ("=1", BadQuery::Unknown(name(""))),
            ("00020010=1", BadQuery::Unknown(name("00020010"))),
            ("00080000=1", BadQuery::Unknown(name("00080000"))),
            ("FFFEE000=1", BadQuery::Unknown(name("FFFEE000"))),
            ("PatientID.=1", BadQuery::Unknown(name("PatientID."))),
            ("PatientID.PatientName=1", BadQuery::Path(name("PatientID.PatientName"))),
            (
                &deep,
                BadQuery::Path(name(
                    "00081140.00081140.00081140.00081140.00081140.00081140.00081140.0...",
                )),
            ),
            ("PatientID=%", BadQuery::Encoding(name("PatientID"))),
            ("PatientID=%4", BadQuery::Encoding(name("PatientID"))),
            ("PatientID=%GG", BadQuery::Encoding(name("PatientID"))),
            ("PatientID=%FF", BadQuery::Encoding(name("PatientID"))),
            ("PatientID=%C0%80", BadQuery::Encoding(name("PatientID"))),
            ("PatientID=a%0D%0Ab", BadQuery::Encoding(name("PatientID"))),
            ("PatientID=%00", BadQuery::Encoding(name("PatientID"))),
            ("PatientID=1&PatientID=2", BadQuery::Twice(name("PatientID"))),
            ("PatientID=1&00100020=2", BadQuery::Twice(name("00100020"))),
            ("limit=1&limit=1", BadQuery::Twice(name("limit"))),
            ("limit=-1", BadQuery::Value(name("limit"))),
            ("limit=%2B1", BadQuery::Value(name("limit"))),
            ("limit=4294967296", BadQuery::Value(name("limit"))),
            ("offset=", BadQuery::Value(name("offset"))),
            ("fuzzymatching=yes", BadQuery::Value(name("fuzzymatching"))),
            ("includefield=Nonsense", BadQuery::Unknown(name("Nonsense"))),
            (&long, BadQuery::ValueTooLong(name("PatientID"))),
        ];
        for (query, error) in cases {
            assert_eq!(parse(query), Err(error), "{query}");
        }
        assert_eq!(parse(&"a".repeat(MAX_QUERY + 1)), Err(BadQuery::TooLong));
        let many: Vec<_> = (0..257).map(|number| format!("0009{number:04X}=")).collect();
        assert_eq!(parse(&many[1..].join("&")).map(|query| query.matches.len()), Ok(256));
        assert_eq!(parse(&format!("{}&0009F000=", many[1..].join("&"))), Err(BadQuery::TooLong));
        let fields: Vec<_> = (1..=513).map(|number| format!("0009{number:04X}")).collect();
        assert_eq!(parse(&format!("includefield={}", fields.join(","))), Err(BadQuery::TooLong));
    }

    #[test]
    fn warnings_are_those_of_the_standard() {
        assert_eq!(
            warning("https://node/dicomweb", NO_FUZZY_MATCHING),
            "299 https://node/dicomweb: The fuzzymatching parameter is not supported. Only literal matching has been performed."
        );
    }

    proptest! {
        #[test]
        fn arbitrary_queries_never_panic_and_names_are_safe(query in "[a-zA-Z0-9%&=.+é<\"\\x00-]{0,100}") {
            if let Err(error) = parse(&query) {
                prop_assert!(!error.to_string().contains(['<', '"', '\0', 'é']));
            }
        }

        #[test]
        fn every_value_comes_as_it_was_encoded(value in "[^\\x00-\\x1f\\x7f-\\u{9f}]{0,40}") {
            let mut encoded = String::new();
            for byte in value.bytes() {
                write!(encoded, "%{byte:02x}").unwrap();
            }
            let parsed = parse(&format!("PatientID={encoded}")).unwrap();
            prop_assert_eq!(&parsed.matches[0].value, &value);
        }
    }
}
