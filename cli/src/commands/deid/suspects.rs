//! What in a text looks as if it named somebody: NHS numbers, e-mail addresses, telephone numbers, postcodes.
//!
//! A search without the originals: it knows the shapes that such things have in the United Kingdom, and nothing of names.

use gantry_deidentify::values::nhs_number;

/// What a text looks like.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Suspect {
    NhsNumber,
    Email,
    Telephone,
    Postcode,
}

impl Suspect {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::NhsNumber => "an NHS number",
            Self::Email => "an e-mail address",
            Self::Telephone => "a telephone number",
            Self::Postcode => "a postcode",
        }
    }
}

/// What is in this text, each once.
pub(super) fn in_text(text: &str) -> Vec<Suspect> {
    let mut found = Vec::new();
    if has_nhs_number(text) {
        found.push(Suspect::NhsNumber);
    }
    if has_email(text) {
        found.push(Suspect::Email);
    }
    if has_telephone(text) {
        found.push(Suspect::Telephone);
    }
    if has_postcode(text) {
        found.push(Suspect::Postcode);
    }
    found
}

/// Digits that stand alone, with single spaces or hyphens between them; each with what stands before it.
fn numbers(text: &str) -> Vec<(Option<char>, String)> {
    let mut found = Vec::new();
    let mut characters = text.chars().peekable();
    let mut before = None;
    while let Some(c) = characters.next() {
        if !c.is_ascii_digit() {
            before = Some(c);
            continue;
        }
        let mut number = String::from(c);
        while let Some(next) = characters.peek().copied() {
            if next.is_ascii_digit() || matches!(next, ' ' | '-') && !number.ends_with([' ', '-']) {
                number.push(next);
                characters.next();
            } else {
                break;
            }
        }
        let touches = characters.peek().is_some_and(|next| next.is_alphanumeric());
        let number = number.trim_end_matches([' ', '-']).to_owned();
        let separate = !touches && before.is_none_or(|c: char| !c.is_alphanumeric() && c != '.');
        if separate {
            found.push((before, number));
        }
        before = Some('0');
    }
    found
}

fn has_nhs_number(text: &str) -> bool {
    numbers(text).iter().any(|(_, number)| {
        let groups: Vec<&str> = number.split([' ', '-']).collect();
        // Numbers beside each other are looked at in every way in which they may be one.
        (0..groups.len()).any(|from| {
            let mut digits = String::new();
            groups.iter().skip(from).any(|group| {
                digits.push_str(group);
                nhs_number(&digits).is_some()
            })
        })
    })
}

fn has_email(text: &str) -> bool {
    text.match_indices('@').any(|(at, _)| {
        let is_local = |c: char| c.is_alphanumeric() || "._%+-".contains(c);
        let before = text.get(..at).unwrap_or_default().chars().next_back().is_some_and(is_local);
        let after = text.get(at + 1..).unwrap_or_default();
        let is_host = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-');
        let host: String = after.chars().take_while(|c| is_host(*c)).collect();
        let top = host.trim_end_matches('.').rsplit_once('.').map(|(_, top)| top.to_owned());
        before && top.is_some_and(|top| top.len() >= 2 && top.chars().all(char::is_alphabetic))
    })
}

/// A number of the national plan: 0 and 9 or 10 digits, or +44 and as many.
fn has_telephone(text: &str) -> bool {
    let plain: String = text.chars().filter(|c| !matches!(c, '(' | ')')).collect();
    numbers(&plain).iter().any(|(before, number)| {
        let digits: String = number.chars().filter(char::is_ascii_digit).collect();
        match before {
            Some('+') => digits.starts_with("44") && (11..=13).contains(&digits.len()),
            _ => {
                (10..=11).contains(&digits.len())
                    && ["01", "02", "03", "07", "08"].iter().any(|code| digits.starts_with(code))
            }
        }
    })
}

/// An outward and an inward code with a space between them.
fn has_postcode(text: &str) -> bool {
    let upper = text.to_ascii_uppercase();
    let words: Vec<&str> =
        upper.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
    words.windows(2).any(|pair| matches!(pair, [one, other] if is_outward(one) && is_inward(other)))
}

/// `LS1`, `M1`, `EC1A`.
fn is_outward(word: &str) -> bool {
    let letters = word.bytes().take_while(u8::is_ascii_uppercase).count();
    let rest = word.get(letters..).unwrap_or_default().as_bytes();
    let begins = word.starts_with(|c| !matches!(c, 'Q' | 'V' | 'X'));
    begins
        && (1..=2).contains(&letters)
        && (1..=2).contains(&rest.len())
        && rest.first().is_some_and(u8::is_ascii_digit)
}

/// `4AP`: a digit, and two letters that are not C, I, K, M, O or V.
fn is_inward(word: &str) -> bool {
    let letter = |b: u8| b.is_ascii_uppercase() && !b"CIKMOV".contains(&b);
    matches!(word.as_bytes(), &[digit, one, other] if digit.is_ascii_digit() && letter(one) && letter(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_somebody_is_seen_and_what_does_not_is_not() {
        use Suspect::{Email, NhsNumber, Postcode, Telephone};
        for (text, expected) in [
            ("9990548609", &[NhsNumber][..]),
            ("NHS 999 054 8609, seen", &[NhsNumber]),
            ("999-054-8609", &[NhsNumber]),
            ("series 3 999 054 8609", &[NhsNumber]),
            ("9990548608", &[]),
            ("X9990548609", &[]),
            ("99905486091", &[]),
            ("1.2.9990548609", &[]),
            ("a.b@trust.nhs.uk", &[Email]),
            ("3 @ 5 mm", &[]),
            ("a@b", &[]),
            ("01632 960123", &[Telephone]),
            ("(0113) 496 0000", &[Telephone]),
            ("+44 1632 960123", &[Telephone]),
            ("00123456789", &[]),
            ("7 Heron Bank, Northmoor NM1 2QX", &[Postcode]),
            ("ls1 4ap", &[Postcode]),
            ("T1 3D SAG", &[]),
            ("T2 TSE FS", &[]),
            ("CT HEAD 0.625 H31s", &[]),
            ("", &[]),
        ] {
            assert_eq!(in_text(text), expected, "{text}");
        }
    }
}
