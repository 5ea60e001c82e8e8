//! Cleaned text (PS3.15 E.3.5): what is left of a description when all that might tell who somebody is has gone.
//!
//! A word stays only if it is known: on the list of words of radiology, one that the profile adds, or a number with or
//! without a unit. What is on the list and is a name of this object's people goes too. So a name that nobody thought of
//! goes because it is no known word, and no list of names is needed. Numbers that are dates, telephone or NHS numbers go
//! by their length and form, before words are looked at.

use std::collections::HashSet;
use std::sync::LazyLock;

static WORDS: LazyLock<HashSet<&'static str>> = LazyLock::new(|| {
    let lines = include_str!("../data/words.txt").lines().filter(|line| !line.starts_with('#'));
    lines.flat_map(str::split_whitespace).collect()
});

/// Whether a word is one of the built-in list.
pub fn is_known_word(word: &str) -> bool {
    WORDS.contains(word.to_ascii_lowercase().as_str())
}

/// What tells who the people of one object are: parts of names, and identifiers; lower case.
#[derive(Clone, Debug, Default)]
pub struct Identifiers(HashSet<String>);

impl Identifiers {
    /// Adds the words of a name or an identifier. Single letters stay out: they are everywhere.
    pub fn add(&mut self, text: &str) {
        let words =
            text.split(|c: char| !c.is_alphanumeric()).filter(|word| word.chars().count() > 1);
        self.0.extend(words.map(str::to_lowercase));
    }

    /// Whether this word is part of one.
    pub fn has(&self, word: &str) -> bool {
        self.0.contains(&word.to_lowercase())
    }
}

/// Cleans a text. What is left is ASCII, and may be empty.
#[expect(clippy::implicit_hasher, reason = "profiles keep their words in the standard set")]
pub fn clean(text: &str, people: &Identifiers, more_words: &HashSet<String>) -> String {
    let blanked = without_numbers_of_people(text);
    let mut kept = String::new();
    let mut gap = String::new();
    let mut rest = blanked.as_str();
    while let Some(first) = rest.chars().next() {
        let in_word = |c: char| c.is_alphanumeric() || c == '.';
        let end = if in_word(first) {
            rest.find(|c: char| !in_word(c)).unwrap_or(rest.len())
        } else {
            first.len_utf8()
        };
        let (piece, after) = rest.split_at(end);
        rest = after;
        let word = piece.trim_matches('.');
        if !in_word(first) {
            // What joins words stays between two that stay; all else becomes a space.
            gap.push(if matches!(first, '/' | '-' | '+' | '_' | ',' | ':' | '&') {
                first
            } else {
                ' '
            });
        } else if !word.is_empty() && stays(word, people, more_words) {
            if !kept.is_empty() {
                kept.push_str(if gap.trim().len() == 1 { gap.trim() } else { " " });
                if gap.ends_with(' ') && !kept.ends_with(' ') {
                    kept.push(' ');
                }
            }
            kept.push_str(word);
            gap.clear();
        } else {
            // Where something went nothing joins any more.
            " ".clone_into(&mut gap);
        }
    }
    kept
}

fn stays(word: &str, people: &Identifiers, more_words: &HashSet<String>) -> bool {
    let lower = word.to_lowercase();
    let known = || {
        WORDS.contains(lower.as_str())
            || more_words.contains(&lower)
            || is_quantity(&lower)
            || is_kernel(&lower)
    };
    !people.has(word) && known()
}

/// A number of at most four digits before the point, not a year, with or without a unit: `5`, `0.625mm`, `120kv`, `3x3`.
fn is_quantity(word: &str) -> bool {
    const UNITS: [&str; 21] = [
        "", "mm", "cm", "m", "ml", "l", "mg", "kv", "kvp", "ma", "mas", "s", "sec", "ms", "min",
        "hz", "t", "deg", "d", "hu", "x",
    ];
    let end = word.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(word.len());
    let (number, unit) = word.split_at(end);
    let whole = number.split('.').next().unwrap_or_default();
    let is_year = number.len() == 4 && (number.starts_with("19") || number.starts_with("20"));
    let is_number =
        number.parse::<f64>().is_ok() && whole.len() <= 4 && number.len() <= 8 && !is_year;
    let product = || {
        unit.split('x')
            .skip(1)
            .all(|part| !part.is_empty() && part.len() <= 4 && part.parse::<f64>().is_ok())
            && unit.starts_with('x')
    };
    is_number && (UNITS.contains(&unit) || product())
}

/// A reconstruction kernel such as `b30f` or `h60s`.
fn is_kernel(word: &str) -> bool {
    matches!(
        word.as_bytes(),
        [b'b' | b'h' | b'i' | b'j' | b'q' | b'u', b'0'..=b'9', b'0'..=b'9', b'f' | b's' | b'h']
            | [b'b', b'r' | b'l' | b'v' | b'f', b'0'..=b'9', b'0'..=b'9']
    )
}

/// The text with a space for every run of digits, and of what stands between groups of digits, that is long enough to be
/// a date, a telephone number or an NHS number.
fn without_numbers_of_people(text: &str) -> String {
    let joins = |c: char| matches!(c, ' ' | '-' | '/' | '.' | '+' | '(' | ')');
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if !first.is_ascii_digit() {
            out.push(first);
            rest = rest.get(first.len_utf8()..).unwrap_or_default();
            continue;
        }
        let end = rest.find(|c: char| !(c.is_ascii_digit() || joins(c))).unwrap_or(rest.len());
        let run = rest.get(..end).unwrap_or_default().trim_end_matches(joins);
        let digits = run.bytes().filter(u8::is_ascii_digit).count();
        if digits >= 7 || is_short_date(run) {
            out.push(' ');
        } else {
            out.push_str(run);
        }
        rest = rest.get(run.len()..).unwrap_or_default();
    }
    out
}

/// `3/11/26`, `03.11.2026`, `2026-11-3`.
fn is_short_date(run: &str) -> bool {
    let parts: Vec<&str> = run.split(['/', '-', '.']).collect();
    parts.len() == 3
        && parts.iter().all(|part| {
            matches!(part.len(), 1 | 2 | 4) && part.bytes().all(|byte| byte.is_ascii_digit())
        })
        && run.bytes().filter(u8::is_ascii_digit).count() >= 4
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cleaned(text: &str) -> String {
        let mut people = Identifiers::default();
        people.add("BRAIN^Wilhelmina");
        people.add("RXX0012345");
        clean(text, &people, &HashSet::from(["dotatate".to_owned()]))
    }

    #[test]
    fn known_words_stay_and_all_else_goes() {
        let rows = [
            ("CT HEAD WITHOUT CONTRAST", "CT HEAD WITHOUT CONTRAST"),
            ("Thin 0.625", "Thin 0.625"),
            ("CT head Mrs Wilhelmina Brain, GP Dr Smythe", "CT head Dr"),
            ("Head/Neck, 5.0 mm, B30f", "Head/Neck, 5.0 mm, B30f"),
            ("T2W axial 3x3x3 for J. Bloggs RXX0012345", "T2W axial 3x3x3 for"),
            ("chest 03/11/2026 NHS 999 054 8609", "chest"),
            ("phone 01904 496 0000 re liver", "liver"),
            ("born 3/11/26; YO31 8HE; a@b.nhs.uk", ""),
            ("March 2026 knee", "knee"),
            ("PET dotatate", "PET dotatate"),
            ("Müller sinus", "sinus"),
            ("120 kV, 5 mm", "120 kV, 5 mm"),
            ("CT brain", "CT"),
            ("", ""),
        ];
        for (text, left) in rows {
            assert_eq!(cleaned(text), left, "{text}");
        }
    }

    #[test]
    fn the_words_are_lower_case() {
        assert!(WORDS.len() > 700, "{}", WORDS.len());
        assert!(WORDS.iter().all(|word| {
            word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        }));
    }

    proptest! {
        #[test]
        fn what_is_left_was_there_and_is_ascii(text in "\\PC{0,60}") {
            let left = cleaned(&text);
            prop_assert!(left.is_ascii() && left.len() <= text.len());
            prop_assert!(left.split(|c: char| !c.is_alphanumeric()).all(|word| text.contains(word)));
        }

        #[test]
        fn no_ten_digits_are_left(number in "[0-9]{3}[ -]?[0-9]{3}[ -]?[0-9]{4}", word in "(head|no|x)?") {
            let left = cleaned(&format!("{word} {number} ct"));
            prop_assert!(left.bytes().filter(u8::is_ascii_digit).count() == 0, "{left}");
        }
    }
}
