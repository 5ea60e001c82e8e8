//! What of the words that were read should not be legible.
//!
//! Words are compared without case, accents and punctuation, with letters and figures that look alike taken for the same,
//! and with one mistake in six characters or more. Words of a line are also compared joined, as a number in groups and a
//! name in parts are several.

use super::super::blacken::Area;
use super::{Finding, Found, Word};

/// Shorter ones would be found in any text.
const MIN_LETTERS: usize = 3;
const MIN_DIGITS: usize = 4;
/// From this length on one character may be another, missing, or one too many; and it may be inside another word.
const TOLERANT: usize = 6;
/// The most words that are compared as one.
const MAX_JOINED: usize = 6;

/// A word, or what is between the punctuation in it.
struct Token {
    text: String,
    folded: String,
    area: Area,
    confidence: f32,
}

pub(super) fn check(words: &[Word], needles: &[String]) -> Vec<Finding> {
    let needles: Vec<(usize, String)> = needles
        .iter()
        .enumerate()
        .flat_map(|(nth, needle)| parts(needle).into_iter().map(move |part| (nth, part)))
        .collect();
    let mut findings = Vec::new();
    for line in words.chunk_by(|a, b| a.line == b.line) {
        let tokens: Vec<Token> = line.iter().flat_map(tokens).collect();
        let mut seen: Vec<usize> = Vec::new();
        for (nth, needle) in &needles {
            if seen.contains(nth) {
                continue;
            }
            if let Some(run) = find(&tokens, |run| is_needle(run, needle)) {
                seen.push(*nth);
                findings.push(finding(Found::Identifier(*nth), run));
            }
        }
        findings.extend(find(&tokens, is_nhs_number).map(|run| finding(Found::NhsNumber, run)));
        findings.extend(find_date(line, &tokens));
    }
    findings
}

fn finding(found: Found, run: &[Token]) -> Finding {
    let areas = run.iter().map(|token| token.area);
    let area = areas.reduce(around).unwrap_or(Area { x: 0, y: 0, width: 0, height: 0 });
    let confidence = run.iter().map(|token| token.confidence).fold(100.0, f32::min);
    Finding { found, area, confidence }
}

fn around(a: Area, b: Area) -> Area {
    let (x, y) = (a.x.min(b.x), a.y.min(b.y));
    let right = a.x.saturating_add(a.width).max(b.x.saturating_add(b.width));
    let bottom = a.y.saturating_add(a.height).max(b.y.saturating_add(b.height));
    Area { x, y, width: right - x, height: bottom - y }
}

/// The first of the shortest runs of tokens of which this is true.
fn find(tokens: &[Token], is: impl Fn(&[Token]) -> bool) -> Option<&[Token]> {
    (1..=MAX_JOINED).find_map(|count| tokens.windows(count).find(|run| is(run)))
}

fn tokens(word: &Word) -> Vec<Token> {
    word.text
        .reveal()
        .split(|c: char| !(c.is_alphanumeric() || matches!(c, '|' | '!')))
        .map(|text| Token {
            text: text.to_owned(),
            folded: fold(text),
            area: word.area,
            confidence: word.confidence,
        })
        .filter(|token| !token.folded.is_empty())
        .collect()
}

/// What to look for of an identifier: all of it, and of a name its components.
fn parts(needle: &str) -> Vec<String> {
    let mut parts: Vec<String> = needle
        .split(|c: char| !c.is_alphanumeric())
        .map(fold)
        .filter(|part| !part.is_empty())
        .collect();
    if parts.len() > 1 {
        parts.push(parts.concat());
    }
    // A number in groups is one number; its groups are any number.
    let is_number = needle.chars().all(|c| !c.is_alphabetic());
    let whole = parts.last().cloned();
    if is_number {
        parts = whole.into_iter().collect();
    }
    let least = if is_number { MIN_DIGITS } else { MIN_LETTERS };
    parts.retain(|part| part.chars().count() >= least);
    parts
}

/// Upper case, without accents; what looks alike is one figure.
fn fold(text: &str) -> String {
    text.chars()
        .flat_map(char::to_uppercase)
        .filter_map(|c| match c {
            'O' | 'Ò'..='Ö' | 'Ø' => Some('0'),
            'I' | 'L' | '|' | '!' | 'Ì'..='Ï' => Some('1'),
            'S' => Some('5'),
            'B' => Some('8'),
            'À'..='Å' => Some('A'),
            'Ç' => Some('C'),
            'È'..='Ë' => Some('E'),
            'Ñ' => Some('N'),
            'Ù'..='Ü' => Some('U'),
            'Ý' => Some('Y'),
            c if c.is_alphanumeric() => Some(c),
            _ => None,
        })
        .collect()
}

fn is_needle(run: &[Token], needle: &str) -> bool {
    let joined: String = run.iter().map(|token| token.folded.as_str()).collect();
    let length = needle.chars().count();
    if length < TOLERANT {
        return joined == needle;
    }
    joined.contains(needle)
        || joined.chars().count().abs_diff(length) <= 1 && strsim::levenshtein(&joined, needle) <= 1
}

/// Figures, and letters that look like one among more figures than that.
fn digits(text: &str) -> Option<String> {
    let folded = fold(text);
    let figures = text.chars().filter(char::is_ascii_digit).count();
    let all = folded.chars().all(|c| c.is_ascii_digit());
    (all && figures * 2 >= folded.chars().count()).then_some(folded)
}

fn is_nhs_number(run: &[Token]) -> bool {
    let digits: Option<String> = run.iter().map(|token| digits(&token.text)).collect();
    digits.is_some_and(|digits| has_check_digit(&digits))
}

/// Modulus 11, weights 10 to 2 (NHS Data Dictionary, NHS NUMBER).
fn has_check_digit(digits: &str) -> bool {
    let digits: Vec<u32> = digits.chars().filter_map(|c| c.to_digit(10)).collect();
    let [front @ .., check] = digits.as_slice() else { return false };
    let sum: u32 = (2..=10).rev().zip(front).map(|(weight, digit)| weight * digit).sum();
    let blank = digits.iter().all(|digit| digit == check);
    digits.len() == 10 && !blank && (11 - sum % 11) % 11 == *check
}

/// A date in a word, or in three.
fn find_date(line: &[Word], tokens: &[Token]) -> Option<Finding> {
    let of_word = line.iter().find(|word| {
        let text = word.text.reveal();
        text.split(|c: char| !(c.is_alphanumeric() || matches!(c, '/' | '-' | '.' | '|')))
            .any(|text| is_date(text.trim_matches(['/', '-', '.'])))
    });
    let of_word = of_word.map(|word| Finding {
        found: Found::Date,
        area: word.area,
        confidence: word.confidence,
    });
    of_word.or_else(|| {
        let run = tokens.windows(3).find(|run| {
            let [a, b, c] = run else { return false };
            is_date_of([&a.text, &b.text, &c.text], true)
        });
        run.map(|run| finding(Found::Date, run))
    })
}

fn is_date(text: &str) -> bool {
    for separator in ['/', '-', '.'] {
        let parts: Vec<&str> = text.split(separator).collect();
        if let [a, b, c] = parts.as_slice() {
            // Versions of software have points, too.
            return is_date_of([a, b, c], separator == '.');
        }
    }
    let Some(figures) = digits(text).filter(|figures| figures.len() == 8) else { return false };
    let (Some((year, rest)), Some((front, last))) =
        (figures.split_at_checked(4), figures.split_at_checked(4))
    else {
        return false;
    };
    let half = |text: &str, nth: usize| {
        text.get(nth * 2..nth * 2 + 2).map(str::to_owned).unwrap_or_default()
    };
    is_date_of([year, &half(rest, 0), &half(rest, 1)], true)
        || is_date_of([&half(front, 0), &half(front, 1), last], true)
}

const MONTHS: [&str; 12] =
    ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];

/// Day, month, year in a usual order. `whole_year`: two figures are no year.
fn is_date_of(parts: [&str; 3], whole_year: bool) -> bool {
    let number = |text: &str, most: u32| {
        let digits = digits(text).filter(|digits| digits.len() <= 2)?;
        digits.parse().ok().filter(|number| (1..=most).contains(number))
    };
    let day = |text: &str| number(text, 31).is_some();
    let named = |text: &str| {
        let text = text.to_uppercase();
        text.len() >= 3 && text.len() <= 9 && MONTHS.iter().any(|month| text.starts_with(month))
    };
    let month = |text: &str| named(text) || number(text, 12).is_some();
    let year = |text: &str| match digits(text) {
        Some(digits) if digits.len() == 4 => {
            digits.parse().is_ok_and(|year: u32| (1880..=2099).contains(&year))
        }
        Some(digits) => digits.len() == 2 && !whole_year,
        None => false,
    };
    let [a, b, c] = parts;
    day(a) && month(b) && year(c)
        || month(a) && day(b) && year(c)
        || year(a) && a.len() == 4 && month(b) && day(c)
}
