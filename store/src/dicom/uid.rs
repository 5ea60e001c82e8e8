//! Unique identifiers (PS3.5 9.1), one type for each thing they name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A unique identifier: at most 64 characters, components of digits joined by full stops (PS3.5 9.1).
///
/// Leading zeros in a component are let through: real devices write them, and the identifier still identifies.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Uid(String);

/// Why a text is not a UID. The text is cut, as a hostile one may be long.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("{0:?} is not a UID: {1}")]
pub struct InvalidUid(String, &'static str);

impl InvalidUid {
    /// The rule that is broken, as a clause.
    pub fn reason(&self) -> &'static str {
        self.1
    }
}

impl Uid {
    /// The identifier without padding.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Reads a UI value as it stands in a data set: padded to even length with one NUL (PS3.5 9.1), or with spaces,
    /// as some devices write it.
    pub fn from_value(value: &[u8]) -> Result<Self, InvalidUid> {
        let text = String::from_utf8_lossy(value);
        text.trim_end_matches(['\0', ' ']).parse()
    }
}

impl FromStr for Uid {
    type Err = InvalidUid;

    fn from_str(text: &str) -> Result<Self, InvalidUid> {
        let reason = match text {
            "" => "it is empty",
            _ if text.len() > 64 => "it is longer than 64 characters",
            _ if text.contains(|c: char| !c.is_ascii_digit() && c != '.') => {
                "it has a character that is neither a digit nor a full stop"
            }
            _ if text.split('.').any(str::is_empty) => "it has an empty component",
            _ => return Ok(Self(text.to_owned())),
        };
        Err(InvalidUid(text.chars().take(64).collect(), reason))
    }
}

impl TryFrom<String> for Uid {
    type Error = InvalidUid;

    fn try_from(text: String) -> Result<Self, InvalidUid> {
        text.parse()
    }
}

impl From<Uid> for String {
    fn from(uid: Uid) -> Self {
        uid.0
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! named_uid {
    ($(#[$doc:meta] $name:ident),+ $(,)?) => {$(
        #[$doc]
        #[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
        #[serde(transparent)]
        pub struct $name(Uid);

        impl $name {
            /// The identifier without padding.
            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }
        }

        impl From<Uid> for $name {
            fn from(uid: Uid) -> Self {
                Self(uid)
            }
        }

        impl FromStr for $name {
            type Err = InvalidUid;

            fn from_str(text: &str) -> Result<Self, InvalidUid> {
                text.parse().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )+};
}

named_uid! {
    /// What kind of object an instance is: SOP Class UID (0008,0016).
    SopClassUid,
    /// One instance: SOP Instance UID (0008,0018).
    SopInstanceUid,
    /// One study: Study Instance UID (0020,000D).
    StudyInstanceUid,
    /// One series: Series Instance UID (0020,000E).
    SeriesInstanceUid,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_not_part_of_an_identifier() {
        for value in [&b"1.2.840"[..], b"1.2.840\0", b"1.2.840 "] {
            assert_eq!(Uid::from_value(value).map(String::from), Ok("1.2.840".to_owned()));
        }
    }

    #[test]
    fn what_could_reach_a_path_is_refused() {
        let long = "1.".repeat(32) + "1";
        for text in ["", "../../etc/passwd", "1..2", ".1", "1.", "1.2\0.3", "1.2 ", &long] {
            assert!(text.parse::<Uid>().is_err(), "{text:?}");
        }
    }
}
