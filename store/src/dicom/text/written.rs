//! Text on its way out, in the character set that its reader is known to read.

use encoding_rs::EUC_JP;

use super::{Repertoire, Term};

const TO_KANJI: &[u8] = b"\x1B$B";
const TO_ASCII: &[u8] = b"\x1B(B";

/// A character set that texts are written in. One data set has one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Written {
    /// The default repertoire: nothing is announced.
    Ascii,
    /// ISO-IR 100.
    Latin1,
    /// ISO-IR 192.
    Utf8,
    /// ASCII, and JIS X 0208 by code extension (ISO 2022 IR 87).
    Japanese,
}

impl Written {
    /// The one for whoever wrote in this Specific Character Set (0008,0005): its own if all texts can be said in it, else the
    /// plainest in which they can.
    pub fn for_reader<'t>(
        character_set: &[u8],
        texts: &(impl Iterator<Item = &'t str> + Clone),
    ) -> Self {
        let theirs = Self::like(character_set);
        let choices = [Self::Ascii, theirs, Self::Latin1];
        choices
            .into_iter()
            .find(|set| texts.clone().all(|text| set.encode(text).is_some()))
            .unwrap_or(Self::Utf8)
    }

    fn like(character_set: &[u8]) -> Self {
        let announces = |number| {
            let mut terms = character_set.split(|byte| *byte == b'\\').map(Term::new);
            terms.any(|term| matches!(term, Term::Registered(other) if other == number))
        };
        match Repertoire::announced(character_set) {
            Repertoire::Utf8 => Self::Utf8,
            Repertoire::Iso2022(_) if announces(87) => Self::Japanese,
            Repertoire::Iso2022(_) if announces(100) => Self::Latin1,
            Repertoire::Iso2022(_) | Repertoire::Chinese(_) => Self::Ascii,
        }
    }

    /// The value of Specific Character Set; empty where there is nothing to be announced.
    pub fn term(self) -> &'static str {
        match self {
            Self::Ascii => "",
            Self::Latin1 => "ISO_IR 100",
            Self::Utf8 => "ISO_IR 192",
            Self::Japanese => "\\ISO 2022 IR 87",
        }
    }

    /// The text in it; `None` where a character is not in it. Japanese is back in ASCII before each delimiter (PS3.5 6.1.2.5.3).
    pub fn encode(self, text: &str) -> Option<Vec<u8>> {
        match self {
            Self::Utf8 => Some(text.as_bytes().to_vec()),
            Self::Ascii => text.is_ascii().then(|| text.as_bytes().to_vec()),
            Self::Latin1 => text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect(),
            Self::Japanese => japanese(text),
        }
    }
}

fn japanese(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut kanji) = (Vec::with_capacity(text.len() + 8), false);
    let mut buffer = [0; 4];
    for c in text.chars() {
        if c.is_ascii() {
            if std::mem::take(&mut kanji) {
                bytes.extend_from_slice(TO_ASCII);
            }
            bytes.push(c as u8);
            continue;
        }
        let (encoded, _, failed) = EUC_JP.encode(c.encode_utf8(&mut buffer));
        // Two bytes from A1H are JIS X 0208; other lengths and lead bytes are other sets.
        let &[first @ 0xA1..=0xFE, second] = encoded.as_ref() else { return None };
        if failed {
            return None;
        }
        if !std::mem::replace(&mut kanji, true) {
            bytes.extend_from_slice(TO_KANJI);
        }
        bytes.extend_from_slice(&[first & 0x7F, second & 0x7F]);
    }
    if kanji {
        bytes.extend_from_slice(TO_ASCII);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::decode;
    use super::*;

    fn written(reader: &str, texts: &[&str]) -> Written {
        Written::for_reader(reader.as_bytes(), &texts.iter().copied())
    }

    #[test]
    fn a_reader_gets_its_own_set_if_that_can_say_it_and_else_the_plainest() {
        assert_eq!(written("", &["SMITH^ANNA"]), Written::Ascii);
        assert_eq!(written("ISO_IR 192", &["SMITH^ANNA"]), Written::Ascii);
        assert_eq!(written("", &["Müller^Jörg"]), Written::Latin1);
        assert_eq!(written("ISO_IR 100", &["Müller^Jörg"]), Written::Latin1);
        assert_eq!(written("ISO_IR 192", &["Müller^Jörg", "SMITH"]), Written::Utf8);
        assert_eq!(written("ISO_IR 100", &["Müller", "Łukasz"]), Written::Utf8);
        let name = "Yamada^Tarou=山田^太郎=やまだ^たろう";
        assert_eq!(written("\\ISO 2022 IR 87", &[name]), Written::Japanese);
        assert_eq!(written("ISO 2022 IR 13\\ISO 2022 IR 87", &[name]), Written::Japanese);
        assert_eq!(written("ISO_IR 100", &[name]), Written::Utf8);
    }

    #[test]
    fn what_is_written_is_read_again() {
        let name = "Yamada^Tarou=山田^太郎=やまだ^たろう";
        let sets = [Written::Ascii, Written::Latin1, Written::Utf8, Written::Japanese];
        for text in ["", "SMITH^ANNA", "Müller^Jörg", name, "Łukasz", "Hong^Gildong=洪^吉洞"]
        {
            for set in sets {
                if let Some(bytes) = set.encode(text) {
                    assert_eq!(decode(set.term().as_bytes(), &bytes), text, "{set:?}");
                }
            }
            assert!(Written::Utf8.encode(text).is_some());
        }
        // PS3.5 H.3.1: escape sequences stand around each part.
        let expected =
            b"Yamada^Tarou=\x1B$B;3ED\x1B(B^\x1B$BB@O:\x1B(B=\x1B$B$d$^$@\x1B(B^\x1B$B$?$m$&\x1B(B";
        assert_eq!(Written::Japanese.encode(name).unwrap(), expected);
    }
}
