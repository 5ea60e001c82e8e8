//! Text in the character sets of DICOM (PS3.3 C.12.1.1.2, PS3.5 6.1), single values and code extensions alike.
//!
//! What comes out is for people, pages and log lines: it has no control characters and nothing that turns the direction
//! of what follows. What cannot be read becomes U+FFFD instead of a guess. Values are decoded whole and joined, because a
//! byte 5CH is a backslash only where it is not half of a character.

mod written;

use encoding_rs::{
    EUC_JP, EUC_KR, Encoding, GB18030, GBK, ISO_8859_2, ISO_8859_3, ISO_8859_4, ISO_8859_5,
    ISO_8859_6, ISO_8859_7, ISO_8859_8, ISO_8859_15, WINDOWS_874, WINDOWS_1254,
};

pub use written::Written;

/// Decodes a textual value by the raw value of Specific Character Set (0008,0005). Padding at the end is left out.
///
/// Escape sequences are followed whether the character set announces them or not, except in UTF-8, GB18030 and GBK,
/// which have none (PS3.3 C.12.1.1.2). An absent or unknown character set is the default repertoire: ASCII.
pub fn decode(character_set: &[u8], value: &[u8]) -> String {
    let end = value.iter().rposition(|byte| !matches!(byte, b' ' | 0)).map_or(0, |last| last + 1);
    let value = value.get(..end).unwrap_or(value);
    match Repertoire::announced(character_set) {
        Repertoire::Utf8 => String::from_utf8_lossy(value).chars().map(printable).collect(),
        Repertoire::Chinese(encoding) => {
            encoding.decode_without_bom_handling(value).0.chars().map(printable).collect()
        }
        Repertoire::Iso2022(initial) => Iso2022::new(initial).decode(value),
    }
}

/// The character itself, unless it would break a line or turn the text around it.
fn printable(c: char) -> char {
    match c {
        _ if c.is_control() => char::REPLACEMENT_CHARACTER,
        '\u{2028}' | '\u{2029}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' => {
            char::REPLACEMENT_CHARACTER
        }
        _ => c,
    }
}

/// What Specific Character Set announces.
enum Repertoire {
    Utf8,
    /// GB18030 or GBK: every byte belongs to it.
    Chinese(&'static Encoding),
    /// Sets that are one byte wide, or switched by escape sequences; with those that a value begins in.
    Iso2022(Designated),
}

impl Repertoire {
    fn announced(character_set: &[u8]) -> Self {
        let mut values = character_set.split(|byte| *byte == b'\\').map(Term::new);
        let first = values.next().unwrap_or(Term::Unknown);
        // UTF-8 and its like shall stand alone. Where one follows an empty first value it is meant nevertheless, and
        // reads the ASCII of that value too.
        let effective = match first {
            Term::Unknown => values
                .find(|term| matches!(term, Term::Utf8 | Term::Chinese(_)))
                .unwrap_or(Term::Unknown),
            known => known,
        };
        match effective {
            Term::Utf8 => Self::Utf8,
            Term::Chinese(encoding) => Self::Chinese(encoding),
            Term::Unknown => Self::Iso2022(Designated::default()),
            Term::Registered(number) => Self::Iso2022(Designated::initial(number)),
        }
    }
}

/// One value of Specific Character Set.
#[derive(Clone, Copy)]
enum Term {
    Utf8,
    Chinese(&'static Encoding),
    /// ISO-IR registration number.
    Registered(u16),
    Unknown,
}

impl Term {
    /// Reads a defined term and its common misspellings: other separators ("ISO-IR 100", "ISO_IR_100"), lower case, the
    /// name of the ISO standard ("ISO8859-1").
    fn new(value: &[u8]) -> Self {
        let letters: String = value
            .iter()
            .filter(|byte| byte.is_ascii_alphanumeric())
            .map(|byte| byte.to_ascii_uppercase() as char)
            .collect();
        let term = letters.strip_prefix("ISO").unwrap_or(&letters);
        let term = term.strip_prefix("2022").unwrap_or(term);
        if let Some(number) = term.strip_prefix("IR").and_then(|number| number.parse().ok()) {
            return if number == 192 { Self::Utf8 } else { Self::Registered(number) };
        }
        match term {
            "UTF8" | "10646" | "10646UTF8" => Self::Utf8,
            "GB18030" => Self::Chinese(GB18030),
            "GBK" => Self::Chinese(GBK),
            "88591" | "LATIN1" => Self::Registered(100),
            "88592" => Self::Registered(101),
            "88593" => Self::Registered(109),
            "88594" => Self::Registered(110),
            "88595" => Self::Registered(144),
            "88596" => Self::Registered(127),
            "88597" => Self::Registered(126),
            "88598" => Self::Registered(138),
            "88599" => Self::Registered(148),
            "885911" => Self::Registered(166),
            "885915" => Self::Registered(203),
            _ => Self::Unknown,
        }
    }
}

/// A set for bytes below 80H.
#[derive(Clone, Copy, Default)]
enum G0 {
    #[default]
    Ascii,
    /// JIS X 0201 romaji (ISO-IR 14).
    Romaji,
    /// JIS X 0208 (ISO-IR 87): two bytes a character.
    Kanji,
    /// JIS X 0212 (ISO-IR 159): two bytes a character.
    SupplementaryKanji,
}

/// A set for bytes from 80H.
#[derive(Clone, Copy, Default)]
enum G1 {
    #[default]
    None,
    Latin1,
    /// Any other set of one byte a character; its part from A0H.
    Single(&'static Encoding),
    /// JIS X 0201 katakana (ISO-IR 13).
    Katakana,
    /// KS X 1001 (ISO-IR 149) or GB 2312 (ISO-IR 58), by the EUC form: two bytes a character.
    Double(&'static Encoding),
}

#[derive(Clone, Copy, Default)]
struct Designated {
    g0: G0,
    g1: G1,
}

impl Designated {
    /// What a value begins in, by the ISO-IR number of the first value (PS3.3 Tables C.12-2 to C.12-4). A set of two-byte
    /// characters is no valid first value; where it is written its high half can only mean that.
    fn initial(number: u16) -> Self {
        let g1 = match number {
            100 => G1::Latin1,
            101 => G1::Single(ISO_8859_2),
            109 => G1::Single(ISO_8859_3),
            110 => G1::Single(ISO_8859_4),
            144 => G1::Single(ISO_8859_5),
            127 => G1::Single(ISO_8859_6),
            126 => G1::Single(ISO_8859_7),
            138 => G1::Single(ISO_8859_8),
            148 => G1::Single(WINDOWS_1254), // from A0H it is ISO 8859-9
            203 => G1::Single(ISO_8859_15),
            166 => G1::Single(WINDOWS_874), // from A0H it is TIS 620
            13 => return Self { g0: G0::Romaji, g1: G1::Katakana },
            149 => G1::Double(EUC_KR),
            58 => G1::Double(GBK),
            _ => G1::None,
        };
        Self { g0: G0::Ascii, g1 }
    }
}

/// What an escape sequence designates.
enum Half {
    Low(G0),
    /// By the ISO-IR number.
    High(u16),
}

impl Half {
    /// Reads the escape sequence (without its ESC) that begins these bytes, and its length (PS3.3 Tables C.12-3, C.12-4).
    fn designated_by(bytes: &[u8]) -> Option<(Self, usize)> {
        Some(match bytes {
            [b'(', b'B', ..] => (Self::Low(G0::Ascii), 2),
            [b'(', b'J', ..] => (Self::Low(G0::Romaji), 2),
            [b'$', b'B' | b'@', ..] => (Self::Low(G0::Kanji), 2), // @: its edition of 1978
            [b'$', b'(', b'B', ..] => (Self::Low(G0::Kanji), 3),
            [b'$', b'(', b'D', ..] => (Self::Low(G0::SupplementaryKanji), 3),
            [b'$', b')', b'A', ..] => (Self::High(58), 3),
            [b'$', b')', b'C', ..] => (Self::High(149), 3),
            [b')', b'I', ..] => (Self::High(13), 2),
            [b'-', b'A', ..] => (Self::High(100), 2),
            [b'-', b'B', ..] => (Self::High(101), 2),
            [b'-', b'C', ..] => (Self::High(109), 2),
            [b'-', b'D', ..] => (Self::High(110), 2),
            [b'-', b'F', ..] => (Self::High(126), 2),
            [b'-', b'G', ..] => (Self::High(127), 2),
            [b'-', b'H', ..] => (Self::High(138), 2),
            [b'-', b'L', ..] => (Self::High(144), 2),
            [b'-', b'M', ..] => (Self::High(148), 2),
            [b'-', b'T', ..] => (Self::High(166), 2),
            [b'-', b'b', ..] => (Self::High(203), 2),
            _ => return None,
        })
    }
}

/// One value on its way through code extensions (PS3.5 6.1.2.5).
struct Iso2022 {
    initial: Designated,
    now: Designated,
    /// The last G1 that an escape sequence designated.
    last: G1,
    text: String,
}

impl Iso2022 {
    fn new(initial: Designated) -> Self {
        Self { initial, now: initial, last: G1::None, text: String::new() }
    }

    fn decode(mut self, mut bytes: &[u8]) -> String {
        while let Some((byte, rest)) = bytes.split_first() {
            bytes = match (*byte, rest) {
                (0x1B, _) => self.escape(rest),
                (0x21..=0x7E, [second @ 0x21..=0x7E, rest @ ..]) if self.is_wide() => {
                    self.wide(*byte, *second, rest)
                }
                (0x21..=0x7E, _) if self.is_wide() => self.put(char::REPLACEMENT_CHARACTER, rest),
                (b'\t' | b'\n' | 0x0C | b'\r' | b'\\' | b'^' | b'=', _) => {
                    self.delimit(*byte, rest)
                }
                (b'~', _) if matches!(self.now.g0, G0::Romaji) => self.put('\u{203E}', rest),
                (0x00..=0x7F, _) => self.put(char::from(*byte), rest),
                (0x80..=0xFF, _) => self.high(*byte, rest),
            };
        }
        self.text
    }

    fn put<'a>(&mut self, c: char, rest: &'a [u8]) -> &'a [u8] {
        self.text.push(printable(c));
        rest
    }

    /// A new line, page, tab, value, component or group begins in the initial sets (PS3.5 6.1.2.5.3). The VR is not known
    /// here, so that ^ and = count in all of them, not in person names alone. Only a text that has switched from one high
    /// half to another and writes on behind such a character reads wrong by that; see `g1` for the rest.
    fn delimit<'a>(&mut self, byte: u8, rest: &'a [u8]) -> &'a [u8] {
        self.now = self.initial;
        self.put(char::from(byte), rest)
    }

    fn escape<'a>(&mut self, rest: &'a [u8]) -> &'a [u8] {
        let Some((half, length)) = Half::designated_by(rest) else {
            return self.put(char::REPLACEMENT_CHARACTER, rest);
        };
        match half {
            Half::Low(g0) => self.now.g0 = g0,
            Half::High(number) => {
                self.now.g1 = Designated::initial(number).g1;
                self.last = self.now.g1;
            }
        }
        rest.get(length..).unwrap_or_default()
    }

    fn is_wide(&self) -> bool {
        matches!(self.now.g0, G0::Kanji | G0::SupplementaryKanji)
    }

    fn wide<'a>(&mut self, first: u8, second: u8, rest: &'a [u8]) -> &'a [u8] {
        let euc = [0x8F, first | 0x80, second | 0x80];
        let euc =
            if matches!(self.now.g0, G0::Kanji) { euc.get(1..).unwrap_or_default() } else { &euc };
        self.put(only_character(EUC_JP, euc), rest)
    }

    /// The set for high bytes. Many devices designate it once a value, not once a component or line; where the initial
    /// set has no high half, nothing else can be meant.
    fn g1(&self) -> G1 {
        if matches!(self.now.g1, G1::None) { self.last } else { self.now.g1 }
    }

    fn high<'a>(&mut self, byte: u8, rest: &'a [u8]) -> &'a [u8] {
        match (self.g1(), byte, rest) {
            (G1::Latin1, 0xA0.., _) => self.put(char::from(byte), rest),
            (G1::Single(encoding), 0xA0.., _) => self.put(only_character(encoding, &[byte]), rest),
            (G1::Katakana, 0xA1..=0xDF, _) => {
                let katakana = char::from_u32(0xFF61 + u32::from(byte) - 0xA1);
                self.put(katakana.unwrap_or(char::REPLACEMENT_CHARACTER), rest)
            }
            (G1::Double(encoding), 0xA1..=0xFE, [second @ 0xA1..=0xFE, rest @ ..]) => {
                self.put(only_character(encoding, &[byte, *second]), rest)
            }
            _ => self.put(char::REPLACEMENT_CHARACTER, rest),
        }
    }
}

/// The one character that these bytes are.
fn only_character(encoding: &'static Encoding, bytes: &[u8]) -> char {
    let (text, _) = encoding.decode_without_bom_handling(bytes);
    let mut characters = text.chars();
    match (characters.next(), characters.next()) {
        (Some(only), None) => only,
        _ => char::REPLACEMENT_CHARACTER,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Character set, value, text; the first rows are the examples of PS3.5 Annexes H to K.
    const EXAMPLES: &[(&str, &[u8], &str)] = &[
        (
            "\\ISO 2022 IR 87",
            b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
            "Yamada^Tarou=山田^太郎=やまだ^たろう",
        ),
        (
            "ISO 2022 IR 13\\ISO 2022 IR 87",
            b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J=\x1b$B$d$^$@\x1b(J^\x1b$B$?$m$&\x1b(J",
            "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう",
        ),
        (
            "\\ISO 2022 IR 149",
            b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
            "Hong^Gildong=洪^吉洞=홍^길동",
        ),
        ("ISO_IR 192", b"Wang^XiaoDong=\xe7\x8e\x8b^\xe5\xb0\x8f\xe6\x9d\xb1=", "Wang^XiaoDong=王^小東="),
        ("GB18030", b"Wang^XiaoDong=\xcd\xf5^\xd0\xa1\xb6\xab=", "Wang^XiaoDong=王^小东="),
        ("GBK", b"Wang^XiaoDong=\xcd\xf5^\xd0\xa1\xb6\xab=", "Wang^XiaoDong=王^小东="),
        ("\\ISO 2022 IR 58", b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab=", "Zhang^XiaoDong=张^小东="),
        // The other sets, one name each.
        ("ISO_IR 6", b"SMITH^ANNA ", "SMITH^ANNA"),
        ("ISO_IR 100", b"Buc^J\xe9r\xf4me", "Buc^Jérôme"),
        ("ISO_IR 101", b"Wa\xb3\xeasa", "Wałęsa"),
        ("ISO_IR 109", b"\xa6\xfe", "Ĥŝ"),
        ("ISO_IR 110", b"\xc0nne", "Ānne"),
        ("ISO_IR 144", b"\xbb\xee\xda\x63\x65\xdc\xd1\x79\x70\xd3", "Люкceмбypг"),
        ("ISO_IR 127", b"\xe2\xc8\xc7\xe6\xea^\xe4\xe6\xd2\xc7\xd1", "قباني^لنزار"),
        ("ISO_IR 126", b"\xc4\xe9\xef\xed\xf5\xf3\xe9\xef\xf2", "Διονυσιος"),
        ("ISO_IR 138", b"\xf9\xf8\xe5\xef^\xe3\xe1\xe5\xf8\xe4", "שרון^דבורה"),
        ("ISO_IR 148", b"\xc7avu\xfeo\xf0lu", "Çavuşoğlu"),
        ("ISO_IR 203", b"\xa4 \xbduvre", "€ œuvre"),
        ("ISO_IR 166", b"\xca\xc1\xaa\xd2\xc2", "สมชาย"),
        ("ISO_IR 13", b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3", "ﾔﾏﾀﾞ^ﾀﾛｳ"),
        // Code extensions of one byte, and the return to the first set at every delimiter.
        ("ISO 2022 IR 100\\ISO 2022 IR 144", b"J\xe9=\x1b-L\xbb\xee^\xe9\\\xe9", "Jé=Лю^é\\é"),
        ("\\ISO 2022 IR 159\\ISO 2022 IR 87", b"\x1b$(D\x30\x21\x1b(B^\x1b$B;3\x1b(B", "丂^山"),
        // Where a byte 5CH, 5EH or 3DH is half of a character it is no delimiter.
        ("GB18030", b"\x81\x5c\x82\x5c", "乗俓"),
        ("\\ISO 2022 IR 87", b"\x1b$B$\x5c$=\x1b(B\\A", "ぼそ\\A"),
        ("GB18030", b"\x95\x32\x82\x36", "\u{20000}"),
        // Real devices: designated once, misspelt, a set of two-byte characters as the only value.
        ("\\ISO 2022 IR 149", b"\x1b$)C\xc8\xab^\xb1\xe6\xb5\xbf", "홍^길동"),
        ("ISO 2022 IR 149", b"\xc8\xab^\xb1\xe6\xb5\xbf", "홍^길동"),
        ("ISO-IR 100", b"\xc4", "Ä"),
        ("ISO8859-1", b"\xc4", "Ä"),
        ("iso_ir_192 ", b"\xc3\x84", "Ä"),
        ("UTF-8", b"\xc3\x84", "Ä"),
        ("\\ISO_IR 192", b"\xc3\x84", "Ä"),
        // What cannot be read is shown as such.
        ("", b"M\xdcLLER", "M\u{FFFD}LLER"),
        ("ISO_IR 999", b"M\xdcLLER", "M\u{FFFD}LLER"),
        ("ISO_IR 100", b"\x80\x9f", "\u{FFFD}\u{FFFD}"),
        ("ISO_IR 148", b"\x80\x9f", "\u{FFFD}\u{FFFD}"),
        ("ISO_IR 192", b"\xc3", "\u{FFFD}"),
        ("\\ISO 2022 IR 87", b"\x1b$B;", "\u{FFFD}"),
        ("\\ISO 2022 IR 87", b"\x1b$B\x7e\x7e\x1b(BA", "\u{FFFD}A"),
        ("\\ISO 2022 IR 149", b"\x1b$)C\xc8", "\u{FFFD}"),
        ("\\ISO 2022 IR 149", b"\x1b$)C\xc8A", "\u{FFFD}A"),
        ("ISO_IR 100", b"\x1b[31m", "\u{FFFD}[31m"),
        // What would break a line, or turn it around.
        ("ISO_IR 100", b"a\r\nb\0c\x7f", "a\u{FFFD}\u{FFFD}b\u{FFFD}c\u{FFFD}"),
        ("ISO_IR 192", b"a\xe2\x80\xaeb\xe2\x80\xa8c\xc2\x85", "a\u{FFFD}b\u{FFFD}c\u{FFFD}"),
        // Padding.
        ("ISO_IR 100", b"1.2.840\0", "1.2.840"),
        ("ISO_IR 100", b"  \0 ", ""),
    ];

    #[test]
    fn every_character_set_of_the_standard_is_read() {
        for (character_set, value, text) in EXAMPLES {
            assert_eq!(
                decode(character_set.as_bytes(), value),
                *text,
                "{character_set} {value:x?}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_value_breaks_a_line(
            character_set in prop::sample::select(EXAMPLES).prop_map(|(character_set, ..)| character_set),
            value in prop::collection::vec(
                prop_oneof![any::<u8>(), prop::sample::select(&b"\x1b$()-ABCDI^=\\\r\n"[..])],
                0..64,
            ),
        ) {
            let text = decode(character_set.as_bytes(), &value);

            prop_assert!(!text.chars().any(char::is_control));
        }

        #[test]
        fn ascii_reads_the_same_in_every_set_but_the_japanese_romaji(
            character_set in prop::sample::select(EXAMPLES).prop_map(|(character_set, ..)| character_set),
            value in "[!-}][ -}]{0,30}[!-}]",
        ) {
            prop_assert_eq!(decode(character_set.as_bytes(), value.as_bytes()), value);
        }
    }
}
