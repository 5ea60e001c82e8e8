//! The values that take the place of others: pseudonyms, UIDs, dates, dummies. The same key and the same input give the
//! same value, in every object, study and year.

use dicom_core::VR;
use jiff::civil::Date;

use crate::keys::{ProjectKey, SubKey};

/// Makes values under one key.
#[derive(Clone, Debug)]
pub struct Values {
    uid: SubKey,
    patient: SubKey,
    date: SubKey,
    label: SubKey,
}

/// RFC 4648, without padding: letters and digits that survive every VR and every keyboard.
const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

impl Values {
    /// Values under this key.
    pub fn new(key: &ProjectKey) -> Self {
        Self {
            uid: key.sub_key("uid"),
            patient: key.sub_key("patient"),
            date: key.sub_key("date"),
            label: key.sub_key("label"),
        }
    }

    /// The UID in the place of this one: `2.25.` and a UUID of version 8 in decimal (PS3.5 B.2), at most 44 characters.
    pub fn uid(&self, uid: &str) -> String {
        let signed = self.uid.sign(uid.as_bytes());
        let random = u128::from_be_bytes(signed.first_chunk().copied().unwrap_or_default());
        // Version 8 in the upper half, the variant of RFC 9562 in the lower.
        let named = random & !(0xF << 76) & !(0x3 << 62) | 0x8 << 76 | 0x2 << 62;
        format!("2.25.{named}")
    }

    /// A subject's pseudonym: the prefix and so many characters of base 32, 5 bits each.
    pub fn pseudonym(&self, subject: &str, prefix: &str, length: usize) -> String {
        format!("{prefix}{}", base32(&self.patient.sign(subject.as_bytes()), length))
    }

    /// What takes the place of a label that joins objects (accession number, study ID): 16 characters, which SH holds.
    /// `kind` keeps apart what happens to be the same text in two attributes.
    pub fn label(&self, kind: &str, text: &str) -> String {
        base32(&self.label.sign(format!("{kind}\0{text}").as_bytes()), 16)
    }

    /// By how many days a subject's dates move: within the range, both ends included, and never by none.
    pub fn shift(&self, subject: &str, range: (i32, i32)) -> i32 {
        let (low, high) = (i64::from(range.0), i64::from(range.1));
        let days: i64 = high - low + 1 - i64::from(low <= 0 && high >= 0);
        let signed = self.date.sign(subject.as_bytes());
        let random = u64::from_be_bytes(signed.first_chunk().copied().unwrap_or_default());
        // The remainder of 64 bits by a few thousand days is even enough.
        let nth = low + i64::try_from(random % days.max(1).unsigned_abs()).unwrap_or_default();
        let skipping_none = if low <= 0 && nth >= 0 && high >= 0 { nth + 1 } else { nth };
        i32::try_from(skipping_none).unwrap_or(-1)
    }
}

fn base32(bytes: &[u8; 32], length: usize) -> String {
    let bits = bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1));
    let bits: Vec<u8> = bits.collect();
    let letters = bits.chunks_exact(5).take(length).map(|five| {
        let index = five.iter().fold(0, |index, bit| index << 1 | usize::from(*bit));
        BASE32.get(index).copied().map_or('A', char::from)
    });
    letters.collect()
}

/// Moves a DA by whole days (PS3.5 6.2); the form with dots of old objects is read too. `None`: it is no date, or the
/// result is none.
pub fn shift_date(text: &str, days: i32) -> Option<String> {
    let digits: String = text.trim().split('.').collect();
    let date = parse_date(&digits)?;
    let moved = date.checked_add(jiff::Span::new().days(days)).ok()?;
    (moved.year() > 0).then(|| format!("{:04}{:02}{:02}", moved.year(), moved.month(), moved.day()))
}

/// Moves the date of a DT; what is less precise than a day is moved as from its middle, to the same precision. Time and
/// offset from UTC stay.
pub fn shift_date_time(text: &str, days: i32) -> Option<String> {
    let text = text.trim();
    let end = text.find(['+', '-', '.']).unwrap_or(text.len());
    let (stamp, rest) = text.split_at(end);
    if !stamp.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    match stamp.len() {
        4 => {
            shift_date(&format!("{stamp}0701"), days)?.get(..4).map(|year| format!("{year}{rest}"))
        }
        6 => {
            shift_date(&format!("{stamp}15"), days)?.get(..6).map(|month| format!("{month}{rest}"))
        }
        8 | 10 | 12 | 14 => {
            let (date, time) = stamp.split_at(8);
            Some(format!("{}{time}{rest}", shift_date(date, days)?))
        }
        _ => None,
    }
}

/// A date written YYYYMMDD.
pub fn parse_date(digits: &str) -> Option<Date> {
    if digits.len() != 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number = |range: std::ops::Range<usize>| digits.get(range)?.parse::<i16>().ok();
    let (month, day) = (number(4..6)?.try_into().ok()?, number(6..8)?.try_into().ok()?);
    Date::new(number(0..4)?, month, day).ok()
}

/// An age (VR AS) of more than so many years becomes one more than that many: those who are older than nearly everybody
/// are known by it. `None`: it is no age.
pub fn cap_age(text: &str, years: u16) -> Option<String> {
    let text = text.trim();
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let count: u16 = (digits.len() == 3).then(|| digits.parse().ok())??;
    match unit {
        "Y" if count > years => Some(format!("{:03}Y", years.saturating_add(1).min(999))),
        "Y" | "M" | "W" | "D" => Some(text.to_owned()),
        _ => None,
    }
}

/// A value that fits the VR and tells nothing (PS3.15 E.1.1, D); `None` for what has no value of its own (SQ) and for
/// UI, which is replaced by [`Values::uid`].
pub fn dummy(vr: VR) -> Option<&'static [u8]> {
    Some(match vr {
        VR::DA => b"19000101",
        VR::TM => b"000000",
        VR::DT => b"19000101000000",
        VR::IS | VR::DS => b"0",
        VR::AS => b"000Y",
        VR::AE | VR::CS | VR::LO | VR::LT | VR::PN | VR::SH | VR::ST | VR::UC | VR::UT => {
            b"REMOVED"
        }
        VR::UR => b"urn:removed",
        VR::AT | VR::UL | VR::SL | VR::FL | VR::OF | VR::OL => &[0; 4],
        VR::FD | VR::SV | VR::UV | VR::OD | VR::OV => &[0; 8],
        VR::US | VR::SS | VR::OB | VR::OW | VR::UN => &[0; 2],
        VR::UI | VR::SQ => return None,
    })
}

/// The ten digits of a text that is an NHS number: spaces and hyphens between them, and a check digit that is right
/// (modulus 11; NHS Data Dictionary, NHS NUMBER).
pub fn nhs_number(text: &str) -> Option<String> {
    let digits: String = text.chars().filter(|c| !matches!(c, ' ' | '-')).collect();
    if digits.len() != 10 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let values: Vec<u32> = digits.chars().filter_map(|c| c.to_digit(10)).collect();
    let sum: u32 =
        values.iter().take(9).zip((2..=10).rev()).map(|(digit, weight)| digit * weight).sum();
    let check = match 11 - sum % 11 {
        11 => 0,
        10 => return None,
        check => check,
    };
    // Ten equal digits pass the check and are nobody's number.
    let varied = values.iter().any(|digit| Some(digit) != values.first());
    (varied && values.last() == Some(&check)).then_some(digits)
}

/// Whether a UID is of the form that [`Values::uid`] makes: below the root for UUIDs, of version 8, which devices that name
/// objects by UUIDs do not use.
pub fn is_derived_uid(uid: &str) -> bool {
    let number = uid.strip_prefix("2.25.").and_then(|number| number.parse::<u128>().ok());
    number.is_some_and(|number| number >> 76 & 0xF == 8 && number >> 62 & 0x3 == 2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values() -> Values {
        Values::new(&ProjectKey::from_bytes([1; 32]))
    }

    #[test]
    fn a_uid_is_a_valid_one_below_the_root_for_uuids() {
        for uid in ["1.2.3", "", "1.2.840.113619.2.55.3"] {
            let mapped = values().uid(uid);

            let number: u128 = mapped.strip_prefix("2.25.").unwrap().parse().unwrap();
            assert!(mapped.len() <= 44);
            assert_eq!((number >> 76 & 0xF, number >> 62 & 0x3), (8, 2), "version and variant");
            assert!(is_derived_uid(&mapped));
            assert_eq!(mapped, values().uid(uid));
        }
    }

    #[test]
    fn a_uid_from_elsewhere_is_not_taken_for_a_derived_one() {
        // A UUID of version 4, as devices and programs make them.
        let random = 0xF81D_4FAE_7DEC_41D0_A765_00A0_C91E_6BF6_u128;
        for uid in ["1.2.840.113619.2.55.3", "2.25.7", "2.25.", "2.25.x", &format!("2.25.{random}")]
        {
            assert!(!is_derived_uid(uid), "{uid}");
        }
    }

    #[test]
    fn dates_move_at_their_own_precision() {
        assert_eq!(shift_date("20260301", -1).as_deref(), Some("20260228"));
        assert_eq!(shift_date("2026.03.01", 1).as_deref(), Some("20260302"));
        assert_eq!(shift_date("20240229", 366).as_deref(), Some("20250301"));
        for wrong in ["", "20261301", "2026", "yesterday", "20260301-20260302"] {
            assert_eq!(shift_date(wrong, 1), None, "{wrong}");
        }
        let moved = |text| shift_date_time(text, -10).unwrap();
        assert_eq!(moved("20260301"), "20260219");
        assert_eq!(moved("20260301101530.123456+0100"), "20260219101530.123456+0100");
        assert_eq!(moved("202603"), "202603");
        assert_eq!(moved("2026"), "2026");
        assert_eq!(shift_date_time("2026030", 1), None);
    }

    #[test]
    fn the_old_are_as_old_as_each_other() {
        assert_eq!(cap_age("091Y", 89).as_deref(), Some("090Y"));
        assert_eq!(cap_age("089Y", 89).as_deref(), Some("089Y"));
        assert_eq!(cap_age("006W", 89).as_deref(), Some("006W"));
        for wrong in ["", "Y", "91Y", "0911", "abcY", "ééé"] {
            assert_eq!(cap_age(wrong, 89), None, "{wrong}");
        }
    }

    #[test]
    fn an_nhs_number_has_its_check_digit() {
        assert_eq!(nhs_number("999 054 8609").as_deref(), Some("9990548609"));
        assert_eq!(nhs_number("999-054-8609").as_deref(), Some("9990548609"));
        for wrong in ["9990548608", "999054860", "0000000000", "99905486091", "999054860X", ""] {
            assert_eq!(nhs_number(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn every_vr_but_two_has_a_dummy() {
        for vr in
            [VR::AE, VR::AS, VR::AT, VR::CS, VR::DA, VR::DS, VR::DT, VR::FD, VR::OB, VR::PN, VR::TM]
        {
            assert!(!dummy(vr).unwrap().is_empty());
        }
        assert_eq!((dummy(VR::UI), dummy(VR::SQ)), (None, None));
    }

    proptest! {
        #[test]
        fn a_shift_is_in_its_range_and_never_none(
            subject in ".{0,20}", low in -2000..2000_i32, width in 1..3000_i32,
        ) {
            let days = values().shift(&subject, (low, low + width));
            prop_assert!(days != 0 && (low..=low + width).contains(&days), "{days}");
        }

        #[test]
        fn a_date_that_moved_moves_back(days in -4000..4000_i32, text in "(19|20)[0-9]{2}(0[1-9]|1[0-2])(0[1-9]|1[0-9]|2[0-8])") {
            let moved = shift_date(&text, days).unwrap();
            prop_assert_eq!(shift_date(&moved, -days).unwrap(), text);
        }

        #[test]
        fn foreign_text_never_panics(text in "\\PC{0,24}") {
            let _ = (shift_date(&text, 9), shift_date_time(&text, 9), cap_age(&text, 9), nhs_number(&text));
        }
    }
}
