//! Values of the configuration that are more than a text or a number.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

/// Where a peer is: a host name or an address, and a port.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct HostPort {
    /// A host name, an IPv4 address, or an IPv6 address without its brackets.
    pub host: String,
    /// Never 0.
    pub port: u16,
}

/// Why a text is not a host and a port, as a clause.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("{0}")]
pub struct InvalidHostPort(&'static str);

impl FromStr for HostPort {
    type Err = InvalidHostPort;

    fn from_str(text: &str) -> Result<Self, InvalidHostPort> {
        let (host, port) = text.rsplit_once(':').ok_or(InvalidHostPort("the port is missing"))?;
        let host = match host.strip_prefix('[') {
            Some(rest) => {
                let address =
                    rest.strip_suffix(']').ok_or(InvalidHostPort("the bracket is not closed"))?;
                let address = address.parse::<std::net::Ipv6Addr>();
                address.map_err(|_| InvalidHostPort("that is no IPv6 address"))?.to_string()
            }
            None if host.contains(':') => {
                return Err(InvalidHostPort("an IPv6 address stands in brackets"));
            }
            None if host.is_empty() => return Err(InvalidHostPort("the host is missing")),
            None if host.len() > 253 => return Err(InvalidHostPort("no host name is that long")),
            None if host.contains(|c: char| !c.is_ascii_alphanumeric() && !"-._".contains(c)) => {
                return Err(InvalidHostPort(
                    "a host name has letters, digits, hyphens and full stops",
                ));
            }
            None => host.to_owned(),
        };
        match port.parse() {
            Ok(port) if port > 0 => Ok(Self { host, port }),
            _ => Err(InvalidHostPort("a port is a number from 1 to 65535")),
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// SHA-256 of a certificate's DER encoding: what a pinned peer is known by. Prints as hexadecimal digits.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Fingerprint(pub [u8; 32]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// A text in which `*` stands for any characters, also none, and `?` for one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pattern {
    text: String,
    ignore_case: bool,
}

impl Pattern {
    /// One that tells capitals from small letters, as AE titles do.
    pub fn exact(text: &str) -> Self {
        Self { text: text.to_owned(), ignore_case: false }
    }

    /// One that does not, for values that people typed.
    pub fn ignoring_case(text: &str) -> Self {
        Self { text: text.to_lowercase(), ignore_case: true }
    }

    /// Whether the whole value is like this pattern.
    ///
    /// No recursion and one remembered position: when a character does not fit, only the last `*` is tried again one
    /// character further, as what the earlier ones took stays the shortest that fits. So the work is at most the
    /// pattern's length times the value's, whatever a hostile value says.
    pub fn matches(&self, value: &str) -> bool {
        if self.ignore_case { self.fits(&value.to_lowercase()) } else { self.fits(value) }
    }

    fn fits(&self, value: &str) -> bool {
        let (mut pattern, mut value) = (self.text.chars(), value.chars());
        let mut retry = None;
        loop {
            let (mut after, mut rest) = (pattern.clone(), value.clone());
            match (after.next(), rest.next()) {
                (Some('*'), _) => {
                    retry = Some((after.clone(), value.clone()));
                    pattern = after;
                }
                (None, None) => return true,
                (Some(p), Some(v)) if p == '?' || p == v => (pattern, value) = (after, rest),
                _ => {
                    let Some((after_star, taken)) = &mut retry else { return false };
                    if taken.next().is_none() {
                        return false;
                    }
                    (pattern, value) = (after_star.clone(), taken.clone());
                }
            }
        }
    }

    /// Whether it can be like more than one text.
    pub fn has_wildcard(&self) -> bool {
        self.text.contains(['*', '?'])
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Reads a time with its unit: `500ms`, `30s`, `5m`, `2h`, `7d`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = split_unit(text)?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(milliseconds).map(Duration::from_millis)
}

/// Writes a time so that [`duration`] reads it, in the largest unit that it is whole in.
pub(crate) fn duration_text(time: Duration) -> String {
    let milliseconds = time.as_millis();
    [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")]
        .into_iter()
        .find(|(unit, _)| milliseconds >= *unit && milliseconds.is_multiple_of(*unit))
        .map_or_else(
            || format!("{milliseconds}ms"),
            |(unit, name)| format!("{}{name}", milliseconds / unit),
        )
}

/// Reads a size with its unit, in powers of 1024: `64KiB`, `100MiB`, `2GiB`, `1TiB`, and plain `B`.
pub(super) fn size(text: &str) -> Option<u64> {
    let (number, unit) = split_unit(text)?;
    let bytes = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1_u64 << 40,
        _ => return None,
    };
    number.checked_mul(bytes)
}

/// Writes a size so that [`size`] reads it.
pub(super) fn size_text(bytes: u64) -> String {
    [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")]
        .into_iter()
        .find(|(shift, _)| bytes > 0 && bytes.is_multiple_of(1 << shift))
        .map_or_else(|| format!("{bytes}B"), |(shift, name)| format!("{}{name}", bytes >> shift))
}

fn split_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim_start()))
}

/// A DICOM keyword as configuration writes it: `BodyPartExamined` becomes `body-part-examined`, `PatientID`
/// `patient-id`, `SOPClassUID` `sop-class-uid`.
pub(super) fn kebab(keyword: &str) -> String {
    let mut written = String::with_capacity(keyword.len() + 4);
    let mut before = None;
    let mut letters = keyword.chars().peekable();
    while let Some(letter) = letters.next() {
        let starts_word = letter.is_ascii_uppercase()
            && before.is_some_and(|before: char| {
                !before.is_ascii_uppercase() || letters.peek().is_some_and(char::is_ascii_lowercase)
            });
        if starts_word {
            written.push('-');
        }
        written.push(letter.to_ascii_lowercase());
        before = Some(letter);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hosts_and_ports_print_as_they_are_read() {
        for text in ["pacs.york.example:2762", "10.20.0.7:104", "[2001:db8::7]:2762"] {
            assert_eq!(text.parse::<HostPort>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "pacs",
            ":104",
            "pacs:",
            "pacs:0",
            "pacs:70000",
            "::1:104",
            "[::1:104",
            "pa cs:1",
            "AE@pacs:1",
        ] {
            assert!(text.parse::<HostPort>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_pattern_is_like_the_whole_value() {
        for (pattern, value, like) in [
            ("CT", "CT", true),
            ("CT", "CT2", false),
            ("CT*", "CT", true),
            ("*HEAD*", "CT HEAD", true),
            ("*HEAD*", "HEA", false),
            ("?T", "CT", true),
            ("?T", "T", false),
            ("*", "", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("", "", true),
            ("", "x", false),
        ] {
            assert_eq!(Pattern::exact(pattern).matches(value), like, "{pattern} on {value}");
        }
        assert!(Pattern::ignoring_case("Ä*kopf").matches("äXKOPF"));
        assert!(!Pattern::exact("ri").matches("RI"));
    }

    #[test]
    fn a_hostile_value_costs_no_more_than_pattern_times_value() {
        let pattern = Pattern::exact(&"*a".repeat(500));
        assert!(!pattern.matches(&("a".repeat(499) + &"b".repeat(5_000))));
    }

    fn by_definition(pattern: &[char], value: &[char]) -> bool {
        match pattern {
            [] => value.is_empty(),
            ['*', rest @ ..] => (0..=value.len()).any(|taken| by_definition(rest, &value[taken..])),
            [p, rest @ ..] => {
                value.first().is_some_and(|v| *p == '?' || p == v)
                    && by_definition(rest, &value[1..])
            }
        }
    }

    proptest! {
        #[test]
        fn a_pattern_means_what_its_definition_says(pattern in "[ab*?]{0,8}", value in "[ab]{0,8}") {
            let (letters, text): (Vec<_>, Vec<_>) = (pattern.chars().collect(), value.chars().collect());
            prop_assert_eq!(Pattern::exact(&pattern).matches(&value), by_definition(&letters, &text));
        }

        #[test]
        fn times_and_sizes_are_read_as_they_are_written(number: u32) {
            let time = Duration::from_millis(number.into());
            prop_assert_eq!(duration(&duration_text(time)), Some(time));
            prop_assert_eq!(size(&size_text(number.into())), Some(number.into()));
        }
    }

    #[test]
    fn a_number_without_its_unit_is_no_time_and_no_size() {
        assert_eq!(
            (duration("90s"), duration("2 h")),
            (Some(Duration::from_secs(90)), Some(Duration::from_hours(2)))
        );
        assert_eq!((size("2GiB"), size("64 KiB")), (Some(2 << 30), Some(64 << 10)));
        for text in
            ["", "30", "s", "-1s", "1.5h", "1w", "99999999999999999999s", "18446744073709551615d"]
        {
            assert_eq!(duration(text), None, "{text}");
        }
        for text in ["", "1024", "2GB", "2G", "GiB", "18446744073709551615TiB"] {
            assert_eq!(size(text), None, "{text}");
        }
    }

    #[test]
    fn keywords_become_keys() {
        for (keyword, key) in [
            ("Modality", "modality"),
            ("BodyPartExamined", "body-part-examined"),
            ("PatientID", "patient-id"),
            ("StudyID", "study-id"),
            ("SOPClassUID", "sop-class-uid"),
            ("IssuerOfPatientID", "issuer-of-patient-id"),
            ("TimezoneOffsetFromUTC", "timezone-offset-from-utc"),
        ] {
            assert_eq!(kebab(keyword), key);
        }
    }
}
