//! Words of JSON (RFC 8259), read from a slice. Strict: what it takes every other reader takes too.

use std::borrow::Cow;

use thiserror::Error;

/// What is wrong with the JSON itself.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum Fault {
    /// Cut, or empty.
    #[error("it ends too early")]
    End,
    /// Another character than the grammar has here.
    #[error("unexpected character")]
    Unexpected,
    /// A string with an unknown escape, a lone surrogate or a bare control character.
    #[error("string with a wrong escape or a control character")]
    String,
    /// A number that the grammar does not have.
    #[error("wrong number")]
    Number,
    /// Not UTF-8.
    #[error("not UTF-8")]
    Utf8,
    /// Something behind the end.
    #[error("more follows its end")]
    More,
    /// Arrays and objects one in the other, of members that mean nothing here.
    #[error("nested too deeply")]
    TooDeep,
}

/// Nesting inside a member that is passed over.
const SKIP_DEPTH: u8 = 32;

#[derive(Clone, Debug)]
pub(super) struct Lexer<'a> {
    text: &'a str,
    pub(super) at: usize,
}

impl<'a> Lexer<'a> {
    /// Begins behind a byte order mark, which some write (RFC 8259 8.1).
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self, (usize, Fault)> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Self { text, at: if text.starts_with('\u{FEFF}') { 3 } else { 0 } }),
            Err(error) => Err((error.valid_up_to(), Fault::Utf8)),
        }
    }

    fn rest(&self) -> &'a [u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }

    /// The next character that is no space, not taken.
    pub(super) fn peek(&mut self) -> Result<u8, Fault> {
        let rest = self.rest();
        let spaces =
            rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count();
        self.at += spaces;
        rest.get(spaces).copied().ok_or(Fault::End)
    }

    /// Takes the next character if it is this one.
    pub(super) fn take(&mut self, byte: u8) -> Result<bool, Fault> {
        let is = self.peek()? == byte;
        self.at += usize::from(is);
        Ok(is)
    }

    pub(super) fn expect(&mut self, byte: u8) -> Result<(), Fault> {
        if self.take(byte)? { Ok(()) } else { Err(Fault::Unexpected) }
    }

    /// Whether another member follows: `first` says whether one may begin without a comma. Takes what closes.
    pub(super) fn next(&mut self, first: bool, close: u8) -> Result<bool, Fault> {
        if self.take(close)? {
            return Ok(false);
        }
        if !first {
            self.expect(b',')?;
        }
        Ok(true)
    }

    /// The name of a member, and the colon.
    pub(super) fn name(&mut self) -> Result<Cow<'a, str>, Fault> {
        let name = self.string()?;
        self.expect(b':')?;
        Ok(name)
    }

    pub(super) fn string(&mut self) -> Result<Cow<'a, str>, Fault> {
        self.expect(b'"')?;
        let mut whole = String::new();
        loop {
            let rest = self.rest();
            let special = |byte: &u8| matches!(byte, 0..0x20 | b'"' | b'\\');
            let length = rest.iter().position(special).ok_or(Fault::End)?;
            let plain = self.text.get(self.at..self.at + length).unwrap_or_default();
            match rest.get(length) {
                Some(b'"') => {
                    self.at += length + 1;
                    if whole.is_empty() {
                        return Ok(Cow::Borrowed(plain));
                    }
                    whole.push_str(plain);
                    return Ok(Cow::Owned(whole));
                }
                Some(b'\\') => {
                    self.at += length + 1;
                    whole.push_str(plain);
                    whole.push(self.escape()?);
                }
                _ => {
                    self.at += length;
                    return Err(Fault::String);
                }
            }
        }
    }

    fn escape(&mut self) -> Result<char, Fault> {
        let letter = self.rest().first().copied().ok_or(Fault::End)?;
        self.at += 1;
        Ok(match letter {
            b'"' | b'\\' | b'/' => char::from(letter),
            b'b' => '\u{8}',
            b'f' => '\u{C}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let high = self.unit()?;
                let mut units = vec![high];
                if (0xD800..0xDC00).contains(&high) {
                    if self.rest().get(..2) != Some(b"\\u") {
                        return Err(Fault::String);
                    }
                    self.at += 2;
                    units.push(self.unit()?);
                }
                let mut decoded = char::decode_utf16(units);
                match (decoded.next(), decoded.next()) {
                    (Some(Ok(c)), None) => c,
                    _ => return Err(Fault::String),
                }
            }
            _ => return Err(Fault::String),
        })
    }

    fn unit(&mut self) -> Result<u16, Fault> {
        let digits = self.rest().get(..4).ok_or(Fault::End)?;
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(Fault::String);
        }
        let digits = self.text.get(self.at..self.at + 4).unwrap_or_default();
        self.at += 4;
        u16::from_str_radix(digits, 16).map_err(|_| Fault::String)
    }

    /// A number, as it is written.
    pub(super) fn number(&mut self) -> Result<&'a str, Fault> {
        self.peek()?;
        let in_number = |byte: &&u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
        let length = self.rest().iter().take_while(in_number).count();
        let number = self.text.get(self.at..self.at + length).unwrap_or_default();
        if !crate::value::is_json_number(number, false) {
            return Err(Fault::Number);
        }
        self.at += length;
        Ok(number)
    }

    /// `null`, `true` or `false`.
    pub(super) fn literal(&mut self, word: &str) -> Result<(), Fault> {
        self.peek()?;
        if !self.rest().starts_with(word.as_bytes()) {
            return Err(Fault::Unexpected);
        }
        self.at += word.len();
        Ok(())
    }

    /// Passes over a value of any kind.
    pub(super) fn skip(&mut self) -> Result<(), Fault> {
        self.skip_at(0)
    }

    fn skip_at(&mut self, depth: u8) -> Result<(), Fault> {
        if depth == SKIP_DEPTH {
            return Err(Fault::TooDeep);
        }
        match self.peek()? {
            b'"' => self.string().map(drop),
            b'n' => self.literal("null"),
            b't' => self.literal("true"),
            b'f' => self.literal("false"),
            open @ (b'[' | b'{') => {
                self.at += 1;
                let mut first = true;
                while self.next(first, if open == b'[' { b']' } else { b'}' })? {
                    first = false;
                    if open == b'{' {
                        self.name()?;
                    }
                    self.skip_at(depth + 1)?;
                }
                Ok(())
            }
            _ => self.number().map(drop),
        }
    }

    /// Nothing may follow.
    pub(super) fn end(&mut self) -> Result<(), Fault> {
        match self.peek() {
            Err(Fault::End) => Ok(()),
            _ => Err(Fault::More),
        }
    }
}
