//! Names of application entities (PS3.5 6.2, VR AE; PS3.8 7.1.1).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Name of an application entity: 1 to 16 characters, outer spaces not significant (PS3.5 6.2, AE).
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct AeTitle(String);

/// Why a text is not an AE title. The text is shown quoted and escaped, and cut to what an AE title could hold.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("{0:?} is not an AE title: {1}")]
pub struct InvalidAeTitle(String, &'static str);

impl InvalidAeTitle {
    /// The rule that is broken, as a clause: "it is longer than 16 characters".
    pub fn reason(&self) -> &'static str {
        self.1
    }
}

impl AeTitle {
    /// The title without its outer spaces.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AeTitle {
    type Err = InvalidAeTitle;

    fn from_str(text: &str) -> Result<Self, InvalidAeTitle> {
        let reason = match text.trim_matches(' ') {
            "" => "it is blank",
            name if name.contains(|c| !matches!(c, ' '..='[' | ']'..='~')) => {
                "it has a character that is not printable ASCII, or a backslash"
            }
            name if name.len() > 16 => "it is longer than 16 characters",
            name => return Ok(Self(name.to_owned())),
        };
        Err(InvalidAeTitle(text.chars().take(64).collect(), reason))
    }
}

impl TryFrom<String> for AeTitle {
    type Error = InvalidAeTitle;

    fn try_from(text: String) -> Result<Self, InvalidAeTitle> {
        text.parse()
    }
}

impl From<AeTitle> for String {
    fn from(title: AeTitle) -> Self {
        title.0
    }
}

impl fmt::Display for AeTitle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outer_spaces_do_not_count_and_inner_ones_do() {
        assert_eq!("  CT 1 ".parse::<AeTitle>().map(String::from), Ok("CT 1".to_owned()));
    }

    #[test]
    fn what_could_reach_a_path_or_a_log_line_is_refused() {
        for text in ["", "    ", "A\\B", "A\nB", "A\0", "É", "SEVENTEEN_LETTERS"] {
            assert!(text.parse::<AeTitle>().is_err(), "{text:?}");
        }
    }
}
