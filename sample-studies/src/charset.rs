//! Specific Character Set (PS3.3 C.12.1.1.2) and text in it.

/// The character sets that this crate writes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Charset {
    /// ISO_IR 6, ASCII: the default, so the attribute is absent.
    #[default]
    Ascii,
    /// ISO_IR 100, Latin alphabet No. 1.
    Latin1,
    /// ISO_IR 192, UTF-8.
    Utf8,
    /// ASCII, and Japanese kanji and kana after an escape sequence (PS3.5 Annex H).
    Japanese,
    /// ASCII, and Korean after an escape sequence (PS3.5 Annex I).
    Korean,
    /// GB18030, Chinese (PS3.5 Annex J); the second byte of a character may be a backslash.
    Chinese,
}

impl Charset {
    /// The value of (0008,0005); `None` where it is absent.
    pub fn defined_term(self) -> Option<&'static str> {
        match self {
            Self::Ascii => None,
            Self::Latin1 => Some("ISO_IR 100"),
            Self::Utf8 => Some("ISO_IR 192"),
            Self::Japanese => Some(r"\ISO 2022 IR 87"),
            Self::Korean => Some(r"\ISO 2022 IR 149"),
            Self::Chinese => Some("GB18030"),
        }
    }

    /// The bytes of a text of VR PN, LO, SH, ST or LT; what the character set lacks becomes a question mark.
    pub fn encode(self, text: &str) -> Vec<u8> {
        match self {
            Self::Ascii => {
                text.chars().map(|c| if c.is_ascii() { c as u8 } else { b'?' }).collect()
            }
            // The first 256 characters of Unicode are Latin-1; encoding_rs has only Microsoft's superset.
            Self::Latin1 => {
                text.chars().map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?')).collect()
            }
            Self::Utf8 => text.as_bytes().to_vec(),
            // ISO-2022-JP goes back to ASCII before every `^` and `=`, which is what PS3.5 6.1.2.5.3 asks for.
            Self::Japanese => encoding_rs::ISO_2022_JP.encode(text).0.into_owned(),
            Self::Korean => korean(text),
            Self::Chinese => encoding_rs::GB18030.encode(text).0.into_owned(),
        }
    }
}

/// EUC-KR holds ASCII and, in the upper half, KS X 1001. Each delimiter of a name undoes the designation of the
/// upper half (PS3.5 6.1.2.5.3), so every component with Korean text starts with the escape sequence again.
fn korean(text: &str) -> Vec<u8> {
    let (encoded, _, _) = encoding_rs::EUC_KR.encode(text);
    let mut out = Vec::new();
    for component in encoded.split_inclusive(|byte| matches!(byte, b'^' | b'=' | b'\\')) {
        if !component.is_ascii() {
            out.extend(b"\x1b$)C");
        }
        out.extend(component);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The worked examples of the standard: PS3.5 H.3.1, I.2 and J.3.
    #[test]
    fn names_are_encoded_as_the_standard_prints_them() {
        let cases: [(Charset, &str, &[u8]); 4] = [
            (
                Charset::Japanese,
                "Yamada^Tarou=山田^太郎=やまだ^たろう",
                b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
            ),
            (
                Charset::Korean,
                "Hong^Gildong=洪^吉洞=홍^길동",
                b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
            ),
            (Charset::Chinese, "Wang^XiaoDong=王^小东", b"Wang^XiaoDong=\xcd\xf5^\xd0\xa1\xb6\xab"),
            (Charset::Latin1, "Müller^Jürgen", b"M\xfcller^J\xfcrgen"),
        ];

        for (charset, text, bytes) in cases {
            assert_eq!(charset.encode(text), bytes, "{text}");
        }
    }
}
