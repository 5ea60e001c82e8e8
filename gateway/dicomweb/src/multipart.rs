//! multipart/related (RFC 2387, RFC 2046 5.1; PS3.18 8.6): written part by part, read from chunks of any size.
//!
//! The reader looks at every byte a bounded number of times, keeps at most one part's header or as much of a body as may
//! begin a delimiter, and gives bodies out as they come. How the stream is cut has no influence on what it gives.
//! A body that ends before its closing delimiter is an error, so that half an instance is never taken for a whole one.

use thiserror::Error;

/// Characters of the longest boundary (RFC 2046 5.1.1).
pub const MAX_BOUNDARY: usize = 70;
/// Bytes of the longest header of a part, all its fields together. Real ones have some 200.
pub const MAX_HEADER: usize = 8 << 10;
/// Bytes before the first delimiter, which mean nothing (RFC 2046 5.1.1).
pub const MAX_PREAMBLE: u64 = 64 << 10;
/// Bytes of the longest Content-Type of a message that is looked into.
const MAX_CONTENT_TYPE: usize = 4 << 10;

/// Why it is no multipart body, or too much of one.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum MultipartError {
    /// Another type than multipart/related.
    #[error("content type is not multipart/related")]
    NotRelated,
    /// RFC 2046 5.1.1 demands one.
    #[error("content type has no boundary parameter")]
    NoBoundary,
    /// Empty, longer than [`MAX_BOUNDARY`], with forbidden characters, or given twice.
    #[error("boundary is not one of RFC 2046: 1 to 70 letters, digits and '()+_,-./:=?")]
    BadBoundary,
    /// Longer than [`MAX_PREAMBLE`]: not this boundary, or not multipart.
    #[error("no part begins within {MAX_PREAMBLE} bytes")]
    NoPart,
    /// Longer than [`MAX_HEADER`].
    #[error("header of part {part} is longer than {MAX_HEADER} bytes")]
    HeaderTooLong {
        /// Which one, counted from 1.
        part: u64,
    },
    /// Not fields of RFC 822, or the same field twice.
    #[error("header of part {part} is damaged")]
    BadHeader {
        /// Which one, counted from 1.
        part: u64,
    },
    /// More than the caller allows.
    #[error("more than {0} parts")]
    TooManyParts(u64),
    /// Something else behind the boundary than a line end or the two hyphens that end everything.
    #[error("delimiter after part {part} is damaged")]
    BadDelimiter {
        /// Which one, counted from 1.
        part: u64,
    },
    /// The stream ended before the closing delimiter.
    #[error("body ends before its closing boundary, in part {part}")]
    Cut {
        /// Which one, counted from 1; 0 before the first.
        part: u64,
    },
}

/// What stands between parts.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Boundary(String);

impl Boundary {
    /// Checks the text of a boundary parameter.
    pub fn new(text: &str) -> Result<Self, MultipartError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(&byte);
        if text.is_empty() || text.len() > MAX_BOUNDARY || !text.bytes().all(allowed) || text.ends_with(' ') {
            return Err(MultipartError::BadBoundary);
        }
        Ok(Self(text.to_owned()))
    }

    /// One that occurs in no body: 128 bits, which the caller takes from a random source for each message. A stranger
    /// who chose a body cannot know it, and by chance it occurs once in 10^38 bytes.
    pub fn random(bits: u128) -> Self {
        Self(format!("gantry-{bits:032x}"))
    }

    /// One that certainly does not occur in these bodies, from a seed that may be anything.
    pub fn absent(bodies: &[&[u8]], seed: u128) -> Self {
        let mut bits = seed;
        loop {
            let boundary = Self::random(bits);
            let text = boundary.0.as_bytes();
            let occurs = |body: &&[u8]| body.windows(text.len()).any(|window| window == text);
            if !bodies.iter().any(|body| occurs(body)) {
                return boundary;
            }
            bits = bits.wrapping_mul(0x2360_ED05_1FC6_5DA4_4385_DF64_9FCC_F645).wrapping_add(1);
        }
    }

    /// The boundary of a message's Content-Type, which must be multipart/related.
    pub fn of_content_type(value: &str) -> Result<Self, MultipartError> {
        if value.len() > MAX_CONTENT_TYPE {
            return Err(MultipartError::BadBoundary);
        }
        let media = crate::accept::MediaType::parse(value).map_err(|_| MultipartError::NotRelated)?;
        if media.essence() != "multipart/related" {
            return Err(MultipartError::NotRelated);
        }
        match media.parameter("boundary") {
            Some(text) => Self::new(text),
            None => Err(MultipartError::NoBoundary),
        }
    }

    /// As it stands in the parameter, without quotes.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The Content-Type of a message of such parts (PS3.18 8.6.1.2.1).
    pub fn content_type(&self, part: &str) -> String {
        format!("multipart/related; type=\"{part}\"; boundary=\"{}\"", self.0)
    }
}

/// Writes a message.
#[derive(Debug)]
pub struct Writer {
    boundary: Boundary,
    begun: bool,
}

impl Writer {
    /// A message with this boundary.
    pub fn new(boundary: Boundary) -> Self {
        Self { boundary, begun: false }
    }

    /// What stands before a part's body: the delimiter and the part's header. Control characters in names and values of
    /// its fields, which could end the header, are left out.
    pub fn part(&mut self, fields: &[(&str, &str)], out: &mut Vec<u8>) {
        if self.begun {
            out.extend_from_slice(b"\r\n");
        }
        self.begun = true;
        out.extend_from_slice(b"--");
        out.extend_from_slice(self.boundary.0.as_bytes());
        out.extend_from_slice(b"\r\n");
        for (name, value) in fields {
            let clean = |text: &str| text.chars().filter(|c| !c.is_control()).collect::<String>();
            out.extend_from_slice(clean(name).as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(clean(value).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"\r\n");
    }

    /// What stands behind the last body. A message without a part has one that is empty, as the grammar demands one.
    pub fn end(mut self, out: &mut Vec<u8>) {
        if !self.begun {
            self.part(&[], out);
        }
        out.extend_from_slice(b"\r\n--");
        out.extend_from_slice(self.boundary.0.as_bytes());
        out.extend_from_slice(b"--\r\n");
    }
}

/// The header of a part: its fields, names in lower case.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Header(Vec<(String, String)>);

impl Header {
    /// The value of a field by its name in lower case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    /// All fields, in their order.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Reads fields of RFC 822, lines folded or not; `None` if they are none. Bytes that are not UTF-8 are shown as such.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(bytes);
        let mut fields: Vec<(String, String)> = Vec::new();
        for line in text.split("\r\n").filter(|line| !line.is_empty()) {
            if line.chars().any(|c| c.is_control() && c != '\t') {
                return None;
            }
            if line.starts_with([' ', '\t']) {
                let (_, value) = fields.last_mut()?;
                value.push(' ');
                value.push_str(line.trim());
                continue;
            }
            let (name, value) = line.split_once(':')?;
            let name = name.trim_end().to_ascii_lowercase();
            let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.!#$%&'*+^`|~".contains(&byte);
            let twice = fields.iter().any(|(field, _)| *field == name);
            if name.is_empty() || !name.bytes().all(is_token) || twice {
                return None;
            }
            fields.push((name, value.trim().to_owned()));
        }
        Some(Self(fields))
    }
}

/// What the reader found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event<'a> {
    /// A part begins.
    Part(Header),
    /// Some of its body, cut as it happened to arrive; never empty.
    Body(&'a [u8]),
    /// The part ends.
    PartEnd,
    /// The message ends; what follows is passed over.
    End,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Step {
    /// Before the first delimiter; so many bytes have been passed.
    Preamble(u64),
    /// Behind a boundary.
    Behind,
    Header,
    Body,
    Epilogue,
}

/// Reads a message.
#[derive(Debug)]
pub struct Reader {
    /// CR LF, two hyphens, the boundary.
    delimiter: Vec<u8>,
    /// For each length of what has matched, the longest shorter one that matches too (Knuth, Morris and Pratt).
    back: Vec<usize>,
    /// How many bytes of the delimiter the bytes just before match.
    matched: usize,
    step: Step,
    /// The header of the part, or what stands behind a boundary.
    held: Vec<u8>,
    part: u64,
    most: u64,
    failed: Option<MultipartError>,
}

impl Reader {
    /// A reader of at most so many parts.
    pub fn new(boundary: &Boundary, most: u64) -> Self {
        let delimiter = format!("\r\n--{}", boundary.0).into_bytes();
        let back = fallbacks(&delimiter);
        // The first delimiter may begin the message, without a line end before it.
        let (matched, step) = (2, Step::Preamble(0));
        Self { delimiter, back, matched, step, held: Vec::new(), part: 0, most, failed: None }
    }

    /// Takes the next bytes. Once a message is refused it stays so.
    pub fn feed(
        &mut self,
        mut chunk: &[u8],
        mut show: impl FnMut(Event<'_>),
    ) -> Result<(), MultipartError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        while !chunk.is_empty() && self.step != Step::Epilogue {
            let taken = match self.step {
                Step::Preamble(passed) => self.preamble(chunk, passed),
                Step::Behind => self.behind(chunk, &mut show),
                Step::Header => self.header(chunk, &mut show),
                Step::Body => Ok(self.body(chunk, &mut show)),
                Step::Epilogue => Ok(chunk.len()),
            };
            match taken {
                Ok(taken) => chunk = chunk.get(taken..).unwrap_or_default(),
                Err(error) => {
                    self.failed = Some(error);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// The stream ends here: an error unless the closing delimiter has been read.
    pub fn finish(self) -> Result<(), MultipartError> {
        match (self.failed, self.step) {
            (Some(error), _) => Err(error),
            (None, Step::Epilogue) => Ok(()),
            // The last delimiter may lack its line end.
            (None, Step::Behind) if self.held.starts_with(b"--") => Ok(()),
            (None, _) => Err(MultipartError::Cut { part: self.part }),
        }
    }

    /// Goes on with the delimiter by one byte. Whether it is complete.
    fn follows(&mut self, byte: u8) -> bool {
        while self.matched > 0 && self.delimiter.get(self.matched) != Some(&byte) {
            self.matched = self.back.get(self.matched - 1).copied().unwrap_or(0);
        }
        if self.delimiter.get(self.matched) == Some(&byte) {
            self.matched += 1;
        }
        self.matched == self.delimiter.len()
    }

    fn boundary_found(&mut self) {
        self.matched = 0;
        self.held.clear();
        self.step = Step::Behind;
    }

    fn preamble(&mut self, chunk: &[u8], passed: u64) -> Result<usize, MultipartError> {
        let mut taken = 0;
        for byte in chunk {
            taken += 1;
            if self.follows(*byte) {
                self.boundary_found();
                return Ok(taken);
            }
            if passed + taken as u64 > MAX_PREAMBLE {
                return Err(MultipartError::NoPart);
            }
        }
        self.step = Step::Preamble(passed + taken as u64);
        Ok(taken)
    }

    /// A line end, or two hyphens; spaces may stand before the line end (RFC 2046 5.1.1).
    fn behind(
        &mut self,
        chunk: &[u8],
        show: &mut impl FnMut(Event<'_>),
    ) -> Result<usize, MultipartError> {
        let wrong = MultipartError::BadDelimiter { part: self.part };
        let mut taken = 0;
        for byte in chunk {
            taken += 1;
            match (self.held.as_slice(), byte) {
                ([b' ' | b'\t', ..] | [], b' ' | b'\t') if self.held.len() < MAX_BOUNDARY => {
                    self.held.push(*byte);
                }
                ([.., b' ' | b'\t'] | [], b'\r') | ([], b'-') => self.held.push(*byte),
                ([.., b'\r'], b'\n') => {
                    if self.part == self.most {
                        return Err(MultipartError::TooManyParts(self.most));
                    }
                    self.part += 1;
                    self.held.clear();
                    self.step = Step::Header;
                    return Ok(taken);
                }
                ([b'-'], b'-') => {
                    self.step = Step::Epilogue;
                    show(Event::End);
                    return Ok(taken);
                }
                _ => return Err(wrong),
            }
        }
        Ok(taken)
    }

    fn header(
        &mut self,
        chunk: &[u8],
        show: &mut impl FnMut(Event<'_>),
    ) -> Result<usize, MultipartError> {
        let mut taken = 0;
        for byte in chunk {
            taken += 1;
            self.held.push(*byte);
            // An empty line ends it; without fields it is nothing but that line.
            if self.held.ends_with(b"\r\n\r\n") || self.held == b"\r\n" {
                let header = Header::parse(&self.held);
                show(Event::Part(header.ok_or(MultipartError::BadHeader { part: self.part })?));
                self.held.clear();
                // A body may be empty, and the line end of the header then is the delimiter's.
                self.matched = 2;
                self.step = Step::Body;
                return Ok(taken);
            }
            if self.held.len() >= MAX_HEADER {
                return Err(MultipartError::HeaderTooLong { part: self.part });
            }
        }
        Ok(taken)
    }
}
