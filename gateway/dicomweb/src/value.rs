//! What the value of an element means, apart from how JSON or XML write it.

use std::borrow::Cow;

use dicom_core::Tag;
use dicom_core::VR;
use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry, VirtualVr};
use dicom_dictionary_std::StandardDataDictionary;
use gantry_store::dicom::text;

/// What the values of a VR are (PS3.5 6.2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// Characters, several values divided by backslashes.
    Texts,
    /// Characters, one value that may have backslashes.
    Text,
    /// PN.
    Names,
    /// DS and IS: numbers in characters.
    Decimals,
    /// AT.
    Tags,
    /// Numbers in so many bytes.
    Numbers(usize),
    /// Bytes, or words of so many bytes, that are not looked into.
    Binary(usize),
    /// SQ.
    Items,
}

pub(crate) fn kind(vr: VR) -> Kind {
    match vr {
        VR::PN => Kind::Names,
        VR::DS | VR::IS => Kind::Decimals,
        VR::LT | VR::ST | VR::UT | VR::UR => Kind::Text,
        VR::AT => Kind::Tags,
        VR::US | VR::SS => Kind::Numbers(2),
        VR::UL | VR::SL | VR::FL => Kind::Numbers(4),
        VR::FD | VR::SV | VR::UV => Kind::Numbers(8),
        VR::OW => Kind::Binary(2),
        VR::OF | VR::OL => Kind::Binary(4),
        VR::OD | VR::OV => Kind::Binary(8),
        VR::OB | VR::UN => Kind::Binary(1),
        VR::SQ => Kind::Items,
        _ => Kind::Texts,
    }
}

/// Bytes of the unit that has a byte order.
pub(crate) fn unit(vr: VR) -> usize {
    match kind(vr) {
        Kind::Tags => 2,
        Kind::Numbers(unit) | Kind::Binary(unit) => unit,
        _ => 1,
    }
}

/// Whether a value of this VR may be given by a URI (PS3.18 F.2.2, PS3.19 Table A.1.5-2).
pub(crate) fn may_be_bulk(vr: VR) -> bool {
    match kind(vr) {
        Kind::Decimals | Kind::Numbers(_) | Kind::Binary(_) => true,
        _ => matches!(vr, VR::LT | VR::ST | VR::UC | VR::UT),
    }
}

/// The VR that the dictionary gives, where it is not written or is UN (PS3.5 6.2.2 Note 1); of US or SS the one that
/// Pixel Representation (0028,0103) says (PS3.5 A.1).
pub(crate) fn known_vr(tag: Tag, signed: bool) -> VR {
    match StandardDataDictionary.by_tag(tag).map(DataDictionaryEntry::vr) {
        Some(VirtualVr::Xs) if signed => VR::SS,
        Some(vr) => vr.relaxed(),
        // Private creators (PS3.5 7.8.1).
        None if is_private_creator(tag) => VR::LO,
        None => VR::UN,
    }
}

pub(crate) fn is_private_creator(tag: Tag) -> bool {
    tag.group() % 2 == 1 && (0x10..=0xFF).contains(&tag.element())
}

/// Brings words into the other byte order.
pub(crate) fn swap(bytes: &mut [u8], unit: usize) {
    if unit > 1 {
        bytes.chunks_exact_mut(unit).for_each(<[u8]>::reverse);
    }
}

/// Decodes characters by Specific Character Set, with line ends and tabs as they are; padding at the end is left out.
///
/// [`text::decode`] is for people and shows every control character as one that cannot be read. Line ends mean something
/// in a report, so a value is decoded line by line, which is how code extensions are defined (PS3.5 6.1.2.5.3).
pub(crate) fn decode<'a>(character_set: &[u8], bytes: &'a [u8]) -> Cow<'a, str> {
    let end = bytes.iter().rposition(|byte| !matches!(byte, b' ' | 0)).map_or(0, |last| last + 1);
    let bytes = bytes.get(..end).unwrap_or(bytes);
    let plain = !bytes.iter().any(|byte| matches!(byte, 0x1B | 0x80..));
    // Only JIS X 0201 has other characters below 80H, one of which, U+203E, stands for the tilde.
    if plain && !(bytes.contains(&b'~') && character_set.windows(2).any(|pair| pair == b"13")) {
        return String::from_utf8_lossy(bytes);
    }
    if is_utf8(character_set) {
        return String::from_utf8_lossy(bytes);
    }
    let mut decoded = String::with_capacity(bytes.len() + bytes.len() / 2);
    for line in bytes.split_inclusive(|byte| matches!(byte, b'\t' | b'\n' | 0x0C | b'\r')) {
        let (control, line) = match line.split_last() {
            Some((last @ (b'\t' | b'\n' | 0x0C | b'\r'), line)) => (Some(char::from(*last)), line),
            _ => (None, line),
        };
        decoded.push_str(&text::decode(character_set, line));
        let spaces = line.iter().rev().take_while(|byte| matches!(byte, b' ' | 0)).count();
        decoded.extend(std::iter::repeat_n(' ', spaces));
        decoded.extend(control);
    }
    Cow::Owned(decoded)
}

fn is_utf8(character_set: &[u8]) -> bool {
    String::from_utf8_lossy(character_set).trim() == "ISO_IR 192"
}

/// One value of several without what is not significant: spaces at the end of all, at both ends where PS3.5 6.2 says so.
pub(crate) fn trimmed(vr: VR, value: &str) -> &str {
    let value = value.trim_end_matches([' ', '\0']);
    match vr {
        VR::LO | VR::SH | VR::UC | VR::PN | VR::LT | VR::ST | VR::UT | VR::UR => value,
        _ => value.trim_start_matches(' '),
    }
}

/// What a number is written as.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Lexeme<'a> {
    /// By the grammar of RFC 8259 6, and within what a double holds.
    Number(Cow<'a, str>),
    /// What JSON has no number for, or what would lose digits: as it is.
    Text(Cow<'a, str>),
}

/// DS or IS as JSON has them: the digits as they stand where they are a number, a string where they are not
/// (PS3.18 Table F.2.3-1 allows both).
pub(crate) fn decimal(vr: VR, text: &str) -> Lexeme<'_> {
    if is_json_number(text, vr == VR::IS) {
        return Lexeme::Number(Cow::Borrowed(text));
    }
    // What PS3.5 6.2 allows and JSON does not: a plus, leading zeros, nothing before or behind the point.
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let (mantissa, exponent) = match rest.find(['e', 'E']) {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let whole_digits = whole.trim_start_matches('0');
    let mut again = String::with_capacity(text.len() + 2);
    if !(whole.is_empty() && fraction.is_empty()) {
        again.push_str(sign);
        again.push_str(if whole_digits.is_empty() { "0" } else { whole_digits });
        if !fraction.is_empty() {
            again.push('.');
            again.push_str(fraction);
        }
        again.push_str(exponent);
    }
    if is_json_number(&again, vr == VR::IS) {
        Lexeme::Number(Cow::Owned(again))
    } else {
        Lexeme::Text(Cow::Borrowed(text))
    }
}

/// Whether it is a number by RFC 8259 6 that every reader can hold in a double.
pub(crate) fn is_json_number(text: &str, whole: bool) -> bool {
    fn digits(text: &[u8]) -> (usize, &[u8]) {
        let count = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
        (count, text.get(count..).unwrap_or_default())
    }
    let bytes = text.as_bytes();
    let unsigned = bytes.strip_prefix(b"-").unwrap_or(bytes);
    let (count, mut rest) = digits(unsigned);
    if count == 0 || count > 1 && unsigned.first() == Some(&b'0') || count > 300 {
        return false;
    }
    if whole {
        return rest.is_empty() && count <= 15;
    }
    if let [b'.', fraction @ ..] = rest {
        let (count, after) = digits(fraction);
        if count == 0 {
            return false;
        }
        rest = after;
    }
    match rest {
        [] => true,
        [b'e' | b'E', exponent @ ..] => {
            let exponent = match exponent {
                [b'+' | b'-', exponent @ ..] => exponent,
                _ => exponent,
            };
            let (count, after) = digits(exponent);
            count > 0 && after.is_empty() && text.parse::<f64>().is_ok_and(f64::is_finite)
        }
        _ => false,
    }
}

/// A binary number of little endian; bytes as many as [`Kind::Numbers`] says, else an empty text.
pub(crate) fn number(vr: VR, bytes: &[u8]) -> Lexeme<'static> {
    fn of<const N: usize>(bytes: &[u8]) -> [u8; N] {
        bytes.first_chunk().copied().unwrap_or([0; N])
    }
    /// Beyond it a double, which is what JavaScript has, loses digits.
    const EXACT: u64 = 1 << 53;
    let text = match vr {
        VR::US => u16::from_le_bytes(of(bytes)).to_string(),
        VR::SS => i16::from_le_bytes(of(bytes)).to_string(),
        VR::UL => u32::from_le_bytes(of(bytes)).to_string(),
        VR::SL => i32::from_le_bytes(of(bytes)).to_string(),
        VR::UV => {
            let number = u64::from_le_bytes(of(bytes));
            if number > EXACT {
                return Lexeme::Text(number.to_string().into());
            }
            number.to_string()
        }
        VR::SV => {
            let number = i64::from_le_bytes(of(bytes));
            if number.unsigned_abs() > EXACT {
                return Lexeme::Text(number.to_string().into());
            }
            number.to_string()
        }
        VR::FL => {
            let number = f32::from_le_bytes(of(bytes));
            if let Some(text) = special(f64::from(number)) {
                return Lexeme::Text(text.into());
            }
            // The shortest that reads as the same single: 0.1, not 0.10000000149011612.
            if is_plain(f64::from(number)) { number.to_string() } else { format!("{number:e}") }
        }
        _ => {
            let number = f64::from_le_bytes(of(bytes));
            if let Some(text) = special(number) {
                return Lexeme::Text(text.into());
            }
            if is_plain(number) { number.to_string() } else { format!("{number:e}") }
        }
    };
    Lexeme::Number(text.into())
}

/// JSON has no such numbers and PS3.18 no word for them; these strings are what JavaScript's `Number` reads back.
fn special(number: f64) -> Option<&'static str> {
    match number {
        f64::INFINITY => Some("Infinity"),
        f64::NEG_INFINITY => Some("-Infinity"),
        _ if number.is_nan() => Some("NaN"),
        _ => None,
    }
}

/// Whether all digits are fewer than an exponent would need.
fn is_plain(number: f64) -> bool {
    number == 0.0 || (1e-5..1e16).contains(&number.abs())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number_of(text: &str) -> Lexeme<'_> {
        Lexeme::Number(text.into())
    }

    #[test]
    fn decimals_keep_their_digits_or_become_strings() {
        let same = ["0", "-0", "1.50", "-2.5e-3", "1E5", "12345678901234567890"];
        for text in same {
            assert_eq!(decimal(VR::DS, text), number_of(text));
        }
        let again = [
            ("+1.5", "1.5"),
            (".5", "0.5"),
            ("-.5", "-0.5"),
            ("1.", "1"),
            ("007", "7"),
            ("00", "0"),
        ];
        for (text, expected) in again.into_iter().chain([("+00.10e+2", "0.10e+2")]) {
            assert_eq!(decimal(VR::DS, text), number_of(expected), "{text}");
        }
        let texts = [
            "NaN", "inf", "1e999", "1,5", "--1", ".", "+", "e5", "0x10", "1e", "1 2", "1.5.5", "٣",
        ];
        for text in texts {
            assert_eq!(decimal(VR::DS, text), Lexeme::Text(text.into()), "{text}");
        }
        assert_eq!(decimal(VR::IS, "+0012"), number_of("12"));
        for text in ["1.5", "1e5", "12345678901234567890"] {
            assert_eq!(decimal(VR::IS, text), Lexeme::Text(text.into()));
        }
    }

    #[test]
    fn binary_numbers_that_json_lacks_are_strings() {
        let text = |text: &str| Lexeme::Text(text.to_owned().into());
        assert_eq!(number(VR::FL, &f32::NAN.to_le_bytes()), text("NaN"));
        assert_eq!(number(VR::FD, &f64::NEG_INFINITY.to_le_bytes()), text("-Infinity"));
        assert_eq!(number(VR::UV, &u64::MAX.to_le_bytes()), text("18446744073709551615"));
        assert_eq!(number(VR::SV, &i64::MIN.to_le_bytes()), text("-9223372036854775808"));
        assert_eq!(number(VR::FL, &0.1_f32.to_le_bytes()), number_of("0.1"));
        assert_eq!(number(VR::FD, &1e300_f64.to_le_bytes()), number_of("1e300"));
        assert_eq!(number(VR::SS, &(-2_i16).to_le_bytes()), number_of("-2"));
    }

    #[test]
    fn lines_and_character_sets_are_kept() {
        assert_eq!(decode(b"ISO_IR 100", b"a \r\n\tJ\xe9r\xf4me \0"), "a \r\n\tJérôme");
        assert_eq!(decode(b"ISO_IR 192", "é\u{202A}".as_bytes()), "é\u{202A}");
        assert_eq!(decode(b"ISO 2022 IR 13", b"~"), "\u{203E}");
        assert_eq!(decode(b"\\ISO 2022 IR 87", b"\x1b$B;3\x1b(B^x"), "山^x");
    }

    proptest! {
        #[test]
        fn whatever_is_a_number_is_one_to_others(text in "[-+]?[0-9]{0,4}\\.?[0-9]{0,4}([eE][-+]?[0-9]{0,3})?") {
            if let Lexeme::Number(lexeme) = decimal(VR::DS, &text) {
                let number: f64 = serde_json::from_str(&lexeme).unwrap();
                let expected = text.parse::<f64>().unwrap();
                // serde_json's own reading is off by a bit now and then.
                prop_assert!((number - expected).abs() <= expected.abs() * 1e-15, "{} {}", lexeme, text);
            }
        }
    }
}
