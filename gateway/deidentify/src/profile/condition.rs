//! When a rule applies: `Modality == "CT" and not ImageType contains "LOCALIZER"`.
//!
//! ```text
//! any   = all { "or" all }
//! all   = one { "and" one }
//! one   = "not" one | "(" any ")" | "exists" KEYWORD
//!       | KEYWORD ( "==" | "!=" | "contains" ) value
//!       | KEYWORD "in" "[" value { "," value } "]"
//! value = "text in quotes" | number
//! ```
//!
//! It looks at the top level of the object as it came. Equal means that any of an attribute's values is the text, or the
//! same number; contains, that the text is in any of them. An absent attribute equals nothing.

use std::iter::Peekable;
use std::ops::Range;
use std::vec::IntoIter;

use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry};
use dicom_core::{Tag, VR};
use dicom_dictionary_std::StandardDataDictionary;

use crate::data_set::{DataSet, dictionary_vr};
use crate::profile::near;

/// A condition that was understood.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// Any of them.
    Any(Vec<Condition>),
    /// All of them.
    All(Vec<Condition>),
    /// Not so.
    Not(Box<Condition>),
    /// The attribute is there.
    Exists(Tag),
    /// One of its values is one of these.
    In(Tag, Vec<String>),
    /// This text is in one of its values.
    Contains(Tag, String),
}

/// Why it was not understood: where in its text, and what to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BadCondition {
    /// Bytes of the condition's text.
    pub at: Range<usize>,
    /// What is wrong.
    pub message: String,
    /// What to write.
    pub help: String,
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    Sign(&'static str),
}

type Tokens = Peekable<IntoIter<(Token, Range<usize>)>>;

impl Condition {
    /// Reads one.
    pub fn parse(text: &str) -> Result<Self, BadCondition> {
        let mut tokens = tokens(text)?.into_iter().peekable();
        let condition = any(&mut tokens, text.len())?;
        match tokens.next() {
            None => Ok(condition),
            Some((_, at)) => Err(bad(at, "this follows the end of the condition", GRAMMAR)),
        }
    }

    /// Whether it holds for this object.
    pub fn holds(&self, data_set: &DataSet) -> bool {
        match self {
            Self::Any(any) => any.iter().any(|one| one.holds(data_set)),
            Self::All(all) => all.iter().all(|one| one.holds(data_set)),
            Self::Not(one) => !one.holds(data_set),
            Self::Exists(tag) => data_set.get(*tag).is_some(),
            Self::In(tag, texts) => values(data_set, *tag)
                .iter()
                .any(|value| texts.iter().any(|text| same(value, text))),
            Self::Contains(tag, text) => {
                values(data_set, *tag).iter().any(|value| value.contains(text))
            }
        }
    }

    /// Why it can never hold, if that is seen from it alone.
    pub fn impossible(&self) -> Option<String> {
        match self {
            Self::All(all) => all.iter().find_map(Self::impossible).or_else(|| contradiction(all)),
            Self::Any(any) => {
                let all: Option<Vec<_>> = any.iter().map(Self::impossible).collect();
                all.and_then(|reasons| reasons.into_iter().next())
            }
            Self::In(tag, texts) => {
                let wrong: Option<Vec<_>> = texts.iter().map(|text| never(*tag, text)).collect();
                wrong.and_then(|reasons| reasons.into_iter().next())
            }
            Self::Contains(tag, text) => never(*tag, text),
            Self::Not(_) | Self::Exists(_) => None,
        }
    }
}

/// Two things of which only one can be.
fn contradiction(all: &[Condition]) -> Option<String> {
    let single = all.iter().filter_map(|one| match one {
        Condition::In(tag, texts) if !is_multiple(*tag) => Some((*tag, texts)),
        _ => None,
    });
    let single: Vec<_> = single.collect();
    single.iter().enumerate().find_map(|(at, (tag, texts))| {
        let others = single.iter().skip(at + 1).filter(|(other, _)| other == tag);
        let apart =
            |other: &[String]| !texts.iter().any(|text| other.iter().any(|it| same(it, text)));
        others.clone().any(|(_, other)| apart(other)).then(|| {
            let name = StandardDataDictionary.by_tag(*tag).map_or("it", DataDictionaryEntry::alias);
            format!("{name} cannot be two things at once")
        })
    })
}

/// Attributes with several values of which two may be asked for at once; of those that conditions are written on.
fn is_multiple(tag: Tag) -> bool {
    use dicom_dictionary_std::tags;
    matches!(
        tag,
        tags::IMAGE_TYPE
            | tags::SOFTWARE_VERSIONS
            | tags::SCANNING_SEQUENCE
            | tags::SEQUENCE_VARIANT
            | tags::SCAN_OPTIONS
    )
}

/// Why an attribute with this VR never has this text.
fn never(tag: Tag, text: &str) -> Option<String> {
    let allowed = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || matches!(c, ' ' | '_');
    match dictionary_vr(tag) {
        VR::CS if text.len() > 16 => Some("a code (CS) has at most 16 characters".to_owned()),
        VR::CS if !text.chars().all(allowed) => {
            Some("a code (CS) has capital letters, digits, spaces and underscores".to_owned())
        }
        VR::US | VR::SS | VR::UL | VR::SL | VR::IS if text.parse::<i64>().is_err() => {
            Some("this attribute is a whole number".to_owned())
        }
        VR::DS | VR::FD | VR::FL if text.parse::<f64>().is_err() => {
            Some("this attribute is a number".to_owned())
        }
        VR::SQ => Some("this attribute is a sequence and has no value of its own".to_owned()),
        _ => None,
    }
}

/// The values of an attribute as conditions see them.
pub(super) fn values(data_set: &DataSet, tag: Tag) -> Vec<String> {
    let Some(bytes) = data_set.bytes(tag) else { return Vec::new() };
    if dictionary_vr(tag) == VR::US {
        return data_set.unsigned_short(tag).iter().map(u16::to_string).collect();
    }
    bytes
        .split(|byte| *byte == b'\\')
        .map(|value| String::from_utf8_lossy(value).trim().to_owned())
        .collect()
}

fn same(value: &str, text: &str) -> bool {
    value == text
        || matches!((value.parse::<f64>(), text.parse::<f64>()), (Ok(one), Ok(other)) if one.total_cmp(&other).is_eq())
}

const GRAMMAR: &str = "Write such as: Modality == \"CT\" and ImageType contains \"SCREEN SAVE\". There are ==, !=, \
                       contains, in [\"a\", \"b\"], exists, not, and, or, and parentheses.";

fn bad(at: Range<usize>, message: impl Into<String>, help: impl Into<String>) -> BadCondition {
    BadCondition { at, message: message.into(), help: help.into() }
}

fn tokens(text: &str) -> Result<Vec<(Token, Range<usize>)>, BadCondition> {
    const SIGNS: [&str; 7] = ["==", "!=", "(", ")", "[", "]", ","];
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let first = rest.chars().next().unwrap_or(' ');
        let (token, length) = if first.is_whitespace() {
            at += first.len_utf8();
            continue;
        } else if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            (Token::Sign(sign), sign.len())
        } else if first == '"' || first == '\'' {
            let inner = rest.get(1..).unwrap_or_default();
            let end = inner.find(first).ok_or_else(|| {
                bad(at..text.len(), "this text does not end", format!("Close it with {first}."))
            })?;
            (Token::Text(inner.get(..end).unwrap_or_default().to_owned()), end + 2)
        } else {
            let end =
                rest.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')));
            let word = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
            if word.is_empty() {
                return Err(bad(at..at + first.len_utf8(), "this is not understood", GRAMMAR));
            }
            (Token::Word(word.to_owned()), word.len())
        };
        found.push((token, at..at + length));
        at += length;
    }
    Ok(found)
}

fn any(tokens: &mut Tokens, end: usize) -> Result<Condition, BadCondition> {
    let mut found = vec![all(tokens, end)?];
    while tokens.next_if(|(token, _)| *token == Token::Word("or".to_owned())).is_some() {
        found.push(all(tokens, end)?);
    }
    Ok(if found.len() == 1 { found.remove(0) } else { Condition::Any(found) })
}

fn all(tokens: &mut Tokens, end: usize) -> Result<Condition, BadCondition> {
    let mut found = vec![one(tokens, end)?];
    while tokens.next_if(|(token, _)| *token == Token::Word("and".to_owned())).is_some() {
        found.push(one(tokens, end)?);
    }
    Ok(if found.len() == 1 { found.remove(0) } else { Condition::All(found) })
}

fn one(tokens: &mut Tokens, end: usize) -> Result<Condition, BadCondition> {
    match tokens.next() {
        None => Err(bad(end..end, "the condition ends here", GRAMMAR)),
        Some((Token::Word(word), _)) if word == "not" => {
            Ok(Condition::Not(Box::new(one(tokens, end)?)))
        }
        Some((Token::Word(word), at)) if word == "exists" => match tokens.next() {
            Some((Token::Word(word), at)) => Ok(Condition::Exists(keyword(&word, at)?)),
            _ => Err(bad(at, "exists what?", "Write such as: exists ConversionType.")),
        },
        Some((Token::Sign("("), at)) => {
            let inner = any(tokens, end)?;
            match tokens.next() {
                Some((Token::Sign(")"), _)) => Ok(inner),
                _ => Err(bad(at, "this parenthesis is not closed", "Add a ).")),
            }
        }
        Some((Token::Word(word), at)) => comparison(keyword(&word, at)?, tokens, end),
        Some((_, at)) => Err(bad(at, "an attribute's keyword belongs here", GRAMMAR)),
    }
}

fn comparison(tag: Tag, tokens: &mut Tokens, end: usize) -> Result<Condition, BadCondition> {
    let value = |tokens: &mut Tokens| match tokens.next() {
        Some((Token::Text(text), _)) => Ok(text),
        Some((Token::Word(word), _)) if word.parse::<f64>().is_ok() => Ok(word),
        Some((_, at)) => Err(bad(at, "a text in quotes or a number belongs here", GRAMMAR)),
        None => Err(bad(end..end, "the condition ends here", GRAMMAR)),
    };
    match tokens.next() {
        Some((Token::Sign("=="), _)) => Ok(Condition::In(tag, vec![value(tokens)?])),
        Some((Token::Sign("!="), _)) => {
            Ok(Condition::Not(Box::new(Condition::In(tag, vec![value(tokens)?]))))
        }
        Some((Token::Word(word), _)) if word == "contains" => {
            Ok(Condition::Contains(tag, value(tokens)?))
        }
        Some((Token::Word(word), at)) if word == "in" => {
            let Some((Token::Sign("["), _)) = tokens.next() else {
                return Err(bad(at, "in what?", "Write such as: Modality in [\"CT\", \"MR\"]."));
            };
            let mut texts = vec![value(tokens)?];
            while tokens.next_if(|(token, _)| *token == Token::Sign(",")).is_some() {
                texts.push(value(tokens)?);
            }
            match tokens.next() {
                Some((Token::Sign("]"), _)) => Ok(Condition::In(tag, texts)),
                _ => Err(bad(at, "this list is not closed", "Add a ].")),
            }
        }
        Some((_, at)) => Err(bad(at, "a comparison belongs here", GRAMMAR)),
        None => Err(bad(end..end, "the condition ends here", GRAMMAR)),
    }
}

fn keyword(word: &str, at: Range<usize>) -> Result<Tag, BadCondition> {
    StandardDataDictionary.by_name(word).map(|entry| entry.tag.inner()).ok_or_else(|| {
        let help = format!(
            "{}Write an attribute's keyword of PS3.6, such as Modality.",
            near::attribute(word)
        );
        bad(at, format!("there is no attribute {word}"), help)
    })
}

#[cfg(test)]
mod tests {
    use dicom_dictionary_std::tags;
    use proptest::prelude::*;

    use super::*;
    use crate::data_set::Element;

    fn screenshot() -> DataSet {
        let mut data_set = DataSet::default();
        data_set.put(Element::new(tags::MODALITY, VR::CS, "CT"));
        data_set.put(Element::new(tags::IMAGE_TYPE, VR::CS, "DERIVED\\SECONDARY\\SCREEN SAVE"));
        data_set.put(Element::new(tags::ROWS, VR::US, 512_u16.to_le_bytes()));
        data_set.put(Element::new(tags::SLICE_THICKNESS, VR::DS, "0.50"));
        data_set
    }

    #[test]
    fn conditions_hold_as_they_read() {
        let rows = [
            ("Modality == \"CT\"", true),
            ("Modality != \"CT\"", false),
            ("Modality in ['MR', 'CT']", true),
            ("ImageType contains \"SCREEN\" and Rows == 512", true),
            ("ImageType == \"SECONDARY\"", true),
            ("SliceThickness == 0.5", true),
            ("exists SliceThickness and not exists Columns", true),
            ("not (Modality == \"MR\" or Rows == 513)", true),
            ("Modality == \"MR\" or Modality == \"CT\" and Rows == 1", false),
            ("Columns == 512", false),
        ];
        for (text, holds) in rows {
            assert_eq!(Condition::parse(text).unwrap().holds(&screenshot()), holds, "{text}");
        }
    }

    #[test]
    fn mistakes_are_shown_where_they_are() {
        let rows = [
            ("Modalty == \"CT\"", 0..7, "no attribute"),
            ("Modality = \"CT\"", 9..10, "not understood"),
            ("Modality == CT", 12..14, "in quotes"),
            ("Modality == \"CT", 12..15, "does not end"),
            ("Modality == \"CT\" Rows", 17..21, "follows the end"),
            ("(Modality == \"CT\"", 0..1, "not closed"),
            ("Modality ==", 11..11, "ends here"),
            ("Modality in \"CT\"", 9..11, "in what"),
        ];
        for (text, at, message) in rows {
            let bad = Condition::parse(text).unwrap_err();
            assert_eq!(bad.at, at, "{text}");
            assert!(bad.message.contains(message), "{text}: {}", bad.message);
        }
    }

    #[test]
    fn what_can_never_be_is_seen() {
        let impossible = |text| Condition::parse(text).unwrap().impossible().is_some();
        assert!(impossible("Modality == \"ct\""));
        assert!(impossible("Modality == \"CT\" and Modality == \"MR\""));
        assert!(impossible("Rows == \"many\""));
        assert!(!impossible("Modality == \"CT\" and ImageType == \"A\" and ImageType == \"B\""));
        assert!(!impossible("Modality == \"ct\" or Modality == \"CT\""));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[A-Za-z=!()\"', \\[\\]é.0-9]{0,60}") {
            let _ = Condition::parse(&text);
        }
    }
}
