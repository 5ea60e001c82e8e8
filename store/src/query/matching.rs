//! What a key asks of a value (PS3.4 C.2.2.2).

use std::fmt;

use super::fold;
use super::keys::Kind;
use super::pattern::Pattern;
use crate::dicom::Uid;

/// The longest key that is no list of UIDs, in characters: more than any VR that is matched allows (PS3.5 6.2).
const LONGEST: usize = 256;

/// How the values of one attribute are matched. It holds what a peer looks for, so `Debug` names the kind alone.
#[derive(Clone, Eq, PartialEq)]
pub enum Matching {
    /// Every value, and none (PS3.4 C.2.2.2.3).
    Universal,
    /// One of these, to the letter (C.2.2.2.1). Several UIDs are a list (C.2.2.2.2); several of another VR are not in the
    /// baseline, and mean the same to all who send them.
    OneOf(Vec<String>),
    /// One of these numbers.
    Numbers(Vec<i64>),
    /// A text with `*` or `?` (C.2.2.2.4). Case counts.
    Like(Pattern),
    /// A person's name, with or without wild cards; neither case nor accents count.
    Name(NamePattern),
    /// Days, both ends included (C.2.2.2.5).
    Days(Days),
    /// Times of day, both ends included.
    Times(Times),
}

impl fmt::Debug for Matching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Universal => "Universal",
            Self::OneOf(_) => "OneOf(..)",
            Self::Numbers(_) => "Numbers(..)",
            Self::Like(_) => "Like(..)",
            Self::Name(_) => "Name(..)",
            Self::Days(_) => "Days(..)",
            Self::Times(_) => "Times(..)",
        })
    }
}

/// What a name is compared with. A key that names component groups (with `=`) wants each of them in its place; one that
/// does not is compared with each group, and one match is enough. Letters that an alphabetic group never has, and only
/// they, are looked for in the others.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum NamePattern {
    /// The alphabetic group.
    Alphabetic(Pattern),
    /// Any group.
    Any(Pattern),
    /// Each of the groups that are given: alphabetic, ideographic, phonetic.
    Groups([Option<Pattern>; 3]),
}

/// Days from and to, as numbers (YYYYMMDD). An open end is the first or the last day that can be written.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Days {
    pub(crate) from: i64,
    pub(crate) to: i64,
    pub(crate) is_range: bool,
}

/// Times from and to, as digits (HHMMSS and a fraction) that compare like texts.
#[derive(Clone, Eq, PartialEq)]
pub struct Times {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) is_range: bool,
}

macro_rules! no_print {
    ($($type:ident),+) => {$(
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($type), "(..)"))
            }
        }
    )+};
}
no_print!(Days, Times);

/// Why a key cannot be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Unusable {
    Malformed(&'static str),
    TooLong,
    TooManyWildcards,
    TooManyUids,
}

impl Matching {
    /// Reads a key's decoded text.
    pub(super) fn read(kind: Kind, text: &str, most_uids: usize) -> Result<Self, Unusable> {
        let text = text.trim_matches([' ', '\0']);
        if text.is_empty() || text.chars().all(|c| c == '*') || kind == Kind::Counted {
            return Ok(Self::Universal);
        }
        if kind == Kind::Uid {
            return uids(text, most_uids);
        }
        if text.chars().nth(LONGEST).is_some() {
            return Err(Unusable::TooLong);
        }
        match kind {
            Kind::Number => numbers(text),
            Kind::Date => Days::read(text).map(Self::Days),
            Kind::Time => Times::read(text).map(Self::Times),
            Kind::Name => {
                NamePattern::read(text).map(|name| name.map_or(Self::Universal, Self::Name))
            }
            _ if text.contains(['*', '?']) => {
                Pattern::new(text).map(Self::Like).ok_or(Unusable::TooManyWildcards)
            }
            _ => Ok(Self::OneOf(text.split('\\').map(|one| one.trim().to_owned()).collect())),
        }
    }

    /// Whether a value as it stands in an object matches, for who compares with something that is not in the index. A value
    /// that is absent is the empty text, which only universal matching takes.
    pub fn matches(&self, value: &str) -> bool {
        let value = value.trim_matches([' ', '\0']);
        match self {
            Self::Universal => true,
            Self::OneOf(wanted) => !value.is_empty() && wanted.iter().any(|one| one == value),
            Self::Numbers(wanted) => value.parse().is_ok_and(|value| wanted.contains(&value)),
            Self::Like(pattern) => !value.is_empty() && pattern.matches(value),
            Self::Name(name) => name.matches(value),
            Self::Days(days) => day(value).is_some_and(|day| (days.from..=days.to).contains(&day)),
            Self::Times(times) => {
                let value = value.replace(':', "");
                !value.is_empty() && *times.from <= *value && *value <= *times.to
            }
        }
    }
}

fn uids(text: &str, most: usize) -> Result<Matching, Unusable> {
    if text.matches('\\').count() >= most {
        return Err(Unusable::TooManyUids);
    }
    let mut uids = Vec::new();
    for uid in
        text.split('\\').map(|uid| uid.trim_matches([' ', '\0'])).filter(|uid| !uid.is_empty())
    {
        let uid: Uid = uid.parse().map_err(|_| Unusable::Malformed("a UID"))?;
        uids.push(uid.as_str().to_owned());
    }
    uids.sort_unstable();
    uids.dedup();
    Ok(if uids.is_empty() { Matching::Universal } else { Matching::OneOf(uids) })
}

fn numbers(text: &str) -> Result<Matching, Unusable> {
    let number = |text: &str| text.trim().parse().map_err(|_| Unusable::Malformed("a number"));
    text.split('\\').map(number).collect::<Result<_, _>>().map(Matching::Numbers)
}

impl NamePattern {
    fn read(text: &str) -> Result<Option<Self>, Unusable> {
        let group = |text: &str| match fold::group(text) {
            Some(folded) if folded.chars().any(|c| c != '*') => {
                Pattern::new(&folded).map(Some).ok_or(Unusable::TooManyWildcards)
            }
            _ => Ok(None),
        };
        let mut groups = [None, None, None];
        for (place, text) in text.split('=').enumerate() {
            let place = groups.get_mut(place).ok_or(Unusable::Malformed("a name"))?;
            *place = group(text)?;
        }
        Ok(match groups {
            [None, None, None] => None,
            [Some(only), None, None] if !text.contains('=') => {
                // Latin letters come before: nobody's ideographic or phonetic group is written with them.
                let foreign = only.text().chars().any(|c| c > '\u{24F}');
                Some(if foreign { Self::Any(only) } else { Self::Alphabetic(only) })
            }
            groups => Some(Self::Groups(groups)),
        })
    }

    fn matches(&self, name: &str) -> bool {
        let groups = fold::name(name);
        let is = |pattern: &Pattern, group: &Option<String>| {
            group.as_deref().is_some_and(|group| pattern.matches(group))
        };
        match (self, &groups) {
            (Self::Alphabetic(pattern), [first, ..]) => is(pattern, first),
            (Self::Any(pattern), groups) => groups.iter().any(|group| is(pattern, group)),
            (Self::Groups(wanted), groups) => wanted
                .iter()
                .zip(groups)
                .all(|(wanted, group)| wanted.as_ref().is_none_or(|pattern| is(pattern, group))),
        }
    }
}

/// A day as a number (YYYYMMDD), also as ACR-NEMA wrote it (YYYY.MM.DD). `None` if it is no day of the calendar.
pub(crate) fn day(text: &str) -> Option<i64> {
    let bytes: Vec<u8> = match text.as_bytes() {
        [y @ .., b'.', m1, m2, b'.', d1, d2] if y.len() == 4 => [y, &[*m1, *m2, *d1, *d2]].concat(),
        plain => plain.to_vec(),
    };
    if bytes.len() != 8 || !bytes.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: i64 = std::str::from_utf8(&bytes).ok()?.parse().ok()?;
    let (year, month, day) = (number / 10_000, number / 100 % 100, number % 100);
    let date = jiff::civil::Date::new(year as i16, month as i8, day as i8);
    date.is_ok().then_some(number)
}

impl Days {
    fn read(text: &str) -> Result<Self, Unusable> {
        let one = |text: &str, open: i64| match text.trim() {
            "" => Ok(open),
            text => day(text).ok_or(Unusable::Malformed("a date")),
        };
        match text.split_once('-') {
            None => one(text, 0).map(|day| Self { from: day, to: day, is_range: false }),
            Some((from, to)) if from.trim().is_empty() && to.trim().is_empty() => {
                Err(Unusable::Malformed("a date"))
            }
            Some((from, to)) => {
                Ok(Self { from: one(from, 1)?, to: one(to, 99_991_231)?, is_range: true })
            }
        }
    }
}

impl Times {
    /// A time that says less than a millionth of a second is all of the time that it can be (PS3.5 6.2, TM).
    fn read(text: &str) -> Result<Self, Unusable> {
        match text.split_once('-') {
            None => Ok(Self { from: earliest(text)?, to: latest(text)?, is_range: false }),
            Some((from, to)) if from.trim().is_empty() && to.trim().is_empty() => {
                Err(Unusable::Malformed("a time"))
            }
            Some((from, to)) => {
                let from = if from.trim().is_empty() { "00".to_owned() } else { earliest(from)? };
                let to = if to.trim().is_empty() { latest("23")? } else { latest(to)? };
                Ok(Self { from, to, is_range: true })
            }
        }
    }
}

/// Digits without zeros at the end that say nothing, as a stored time may leave them out.
fn earliest(text: &str) -> Result<String, Unusable> {
    let time = time(text)?;
    let mut digits = match time.split_once('.') {
        Some((whole, fraction)) if fraction.bytes().all(|digit| digit == b'0') => whole,
        _ => &*time,
    };
    while digits.len() > 2 && !digits.contains('.') {
        let Some(shorter) = digits.strip_suffix("00") else { break };
        digits = shorter;
    }
    Ok(digits.to_owned())
}

fn latest(text: &str) -> Result<String, Unusable> {
    let mut digits = time(text)?;
    let last = "235959.999999"; // of which only what `digits` leaves open is used
    digits.extend(last.chars().skip(digits.len()));
    Ok(digits)
}

/// HH, HHMM, HHMMSS or with a fraction of up to six digits; colons as ACR-NEMA wrote them are left out.
fn time(text: &str) -> Result<String, Unusable> {
    let malformed = Unusable::Malformed("a time");
    let text = text.trim().replace(':', "");
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, "0"));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let fits = matches!(whole.len(), 2 | 4 | 6) && digits(whole) && digits(fraction);
    let fraction_fits =
        (1..=6).contains(&fraction.len()) && (whole.len() == 6 || !text.contains('.'));
    if !fits || !fraction_fits {
        return Err(malformed);
    }
    let number: u32 = format!("{whole:0<6}").parse().map_err(|_| malformed)?;
    // A leap second is 60.
    let possible = number / 10_000 < 24 && number / 100 % 100 < 60 && number % 100 <= 60;
    possible.then_some(text.clone()).ok_or(malformed)
}
