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
/// The most fields in it.
const MAX_FIELDS: usize = 32;
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
    /// Not fields of RFC 822, the same field twice, or more than 32.
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
        if text.is_empty()
            || text.len() > MAX_BOUNDARY
            || !text.bytes().all(allowed)
            || text.ends_with(' ')
        {
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
            let occurs = |body: &&[u8]| memchr::memmem::find(body, boundary.0.as_bytes()).is_some();
            if !bodies.iter().any(occurs) {
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
        let media =
            crate::accept::MediaType::parse(value).map_err(|_| MultipartError::NotRelated)?;
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
            let is_token =
                |byte: u8| byte.is_ascii_alphanumeric() || b"-_.!#$%&'*+^`|~".contains(&byte);
            let twice = fields.iter().any(|(field, _)| *field == name);
            if fields.len() == MAX_FIELDS || name.is_empty() || !name.bytes().all(is_token) || twice
            {
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
    /// How many bytes of the delimiter the bytes just before match. Its CR occurs nowhere else in it, so what fails to
    /// match can begin anew only with the byte that failed.
    matched: usize,
    /// Of these, how many at the front are the end of the part's header: where a body is empty, its line end may be both.
    phantom: usize,
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
        // The first delimiter may begin the message, without a line end before it.
        let (matched, step) = (2, Step::Preamble(0));
        let held = Vec::new();
        Self { delimiter, matched, phantom: 0, step, held, part: 0, most, failed: None }
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
        let goes_on = self.delimiter.get(self.matched) == Some(&byte);
        self.matched = if goes_on { self.matched + 1 } else { usize::from(byte == b'\r') };
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
                (self.matched, self.phantom) = (2, 2);
                self.step = Step::Body;
                return Ok(taken);
            }
            if self.held.len() >= MAX_HEADER {
                return Err(MultipartError::HeaderTooLong { part: self.part });
            }
        }
        Ok(taken)
    }

    fn body(&mut self, chunk: &[u8], show: &mut impl FnMut(Event<'_>)) -> usize {
        // Bytes of the body that match the delimiter so far, and came with earlier chunks.
        let mut carried = self.matched - self.phantom;
        let mut at = 0;
        while let Some(rest) = chunk.get(at..).filter(|rest| !rest.is_empty()) {
            if self.matched == 0 {
                let found = memchr::memchr(b'\r', rest);
                at += found.map_or(rest.len(), |found| found + 1);
                self.matched = usize::from(found.is_some());
            } else if self.delimiter.get(self.matched) == rest.first() {
                self.matched += 1;
                at += 1;
                if self.matched == self.delimiter.len() {
                    break;
                }
            } else {
                let earlier = self.delimiter.get(self.phantom..self.phantom + carried);
                body_event(earlier, show);
                (self.matched, self.phantom, carried) = (0, 0, 0);
            }
        }
        body_event(chunk.get(..at - (self.matched - self.phantom - carried)), show);
        if self.matched == self.delimiter.len() {
            show(Event::PartEnd);
            self.boundary_found();
        }
        at
    }
}

fn body_event(bytes: Option<&[u8]>, show: &mut impl FnMut(Event<'_>)) {
    if let Some(bytes) = bytes.filter(|bytes| !bytes.is_empty()) {
        show(Event::Body(bytes));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Events with bodies joined, so that chunking does not show.
    #[derive(Clone, Debug, Eq, PartialEq)]
    enum Seen {
        Part(Header),
        Body(Vec<u8>),
        PartEnd,
        End,
    }

    fn read<'a>(
        boundary: &str,
        most: u64,
        chunks: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Vec<Seen>, MultipartError> {
        let mut reader = Reader::new(&Boundary::new(boundary).unwrap(), most);
        let mut seen = Vec::new();
        let show = |seen: &mut Vec<Seen>, event: Event<'_>| match event {
            Event::Part(header) => seen.extend([Seen::Part(header), Seen::Body(Vec::new())]),
            Event::Body(bytes) => match seen.last_mut() {
                Some(Seen::Body(body)) => body.extend_from_slice(bytes),
                other => panic!("a body after {other:?}"),
            },
            Event::PartEnd => seen.push(Seen::PartEnd),
            Event::End => seen.push(Seen::End),
        };
        for chunk in chunks {
            reader.feed(chunk, |event| show(&mut seen, event))?;
        }
        reader.finish().map(|()| seen)
    }

    fn whole(text: &[u8]) -> Result<Vec<Seen>, MultipartError> {
        read("b", 100, [text])
    }

    fn part(fields: &[(&str, &str)], body: &[u8]) -> [Seen; 3] {
        let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        [Seen::Part(Header(fields.collect())), Seen::Body(body.to_vec()), Seen::PartEnd]
    }

    fn written(boundary: &str, bodies: &[Vec<u8>]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = Writer::new(Boundary::new(boundary).unwrap());
        for body in bodies {
            writer.part(&[("Content-Type", "application/dicom")], &mut out);
            out.extend_from_slice(body);
        }
        writer.end(&mut out);
        out
    }

    #[test]
    fn preamble_epilogue_and_odd_forms_are_read() {
        let one = |body: &[u8]| [part(&[], body).to_vec(), vec![Seen::End]].concat();
        let cases: &[(&[u8], &[u8])] = &[
            (b"--b\r\n\r\nx\r\n--b--", b"x"),
            (b"--b\r\n\r\nx\r\n--b--\r\nepilogue --b\r\n--b\r\n", b"x"),
            (b"pre --b\r\n--c\r\n--b \t\r\n\r\nx\r\n--b--", b"x"),
            (b"\r\n--b\r\n\r\n\r\n--b--", b""),
            (b"--b\r\n\r\n--b--", b""),
            (b"--b\r\n\r\n\r\r\n--\r\n-\r\n--b--", b"\r\r\n--\r\n-"),
            (b"--b\r\n\r\n\n--b--\r\n--b--", b"\n--b--"),
        ];
        for (text, body) in cases {
            assert_eq!(whole(text), Ok(one(body)), "{}", text.escape_ascii());
        }
        let folded = b"--b\r\nContent-Type: multipart/x;\r\n a=b\r\nX:\r\n\r\n\r\n--b--";
        let fields = [("content-type", "multipart/x; a=b"), ("x", "")];
        assert_eq!(whole(folded), Ok([part(&fields, b"").to_vec(), vec![Seen::End]].concat()));
    }

    #[test]
    fn what_is_no_message_is_refused() {
        use MultipartError::{BadDelimiter, BadHeader, Cut, HeaderTooLong, NoPart, TooManyParts};
        let many: String =
            (0..33).map(|number| format!("X{number}: 1\r\n")).collect::<Vec<_>>().concat();
        let many = format!("--b\r\n{many}\r\n");
        let long = [b"--b\r\nX: ".as_slice(), &[b'x'; MAX_HEADER]].concat();
        let cases: &[(&[u8], MultipartError)] = &[
            (b"", Cut { part: 0 }),
            (b"no part", Cut { part: 0 }),
            (b"--b", Cut { part: 0 }),
            (b"--b\r\n", Cut { part: 1 }),
            (b"--b\r\n\r\nx\r\n--b", Cut { part: 1 }),
            (b"--b\r\n\r\nx\r\n--b-", Cut { part: 1 }),
            (b"--b\r\n\r\nx\r\n--bc\r\n", BadDelimiter { part: 1 }),
            (b"--b\r\nno field\r\n\r\n", BadHeader { part: 1 }),
            (b"--b\r\nA: 1\r\na: 2\r\n\r\n", BadHeader { part: 1 }),
            (b"--b\r\n folded\r\n\r\n", BadHeader { part: 1 }),
            (b"--b\r\nA\0: 1\r\n\r\n", BadHeader { part: 1 }),
            (&long, HeaderTooLong { part: 1 }),
            (many.as_bytes(), BadHeader { part: 1 }),
            (&vec![b'x'; 70_000], NoPart),
        ];
        for (text, error) in cases {
            assert_eq!(whole(text), Err(*error), "{}", text[..text.len().min(40)].escape_ascii());
        }
        let many = b"--b\r\n\r\n\r\n".repeat(1_000_000);
        assert_eq!(read("b", 1000, [many.as_slice()]), Err(TooManyParts(1000)));
    }

    #[test]
    fn content_types_need_one_good_boundary() {
        let of = |text: &str| Boundary::of_content_type(text).map(|boundary| boundary.0);
        assert_eq!(
            of("multipart/related; type=\"application/dicom\"; boundary=\"a b\""),
            Ok("a b".into())
        );
        assert_eq!(of("Multipart/Related;BOUNDARY=x"), Ok("x".into()));
        assert_eq!(
            of("multipart/related; boundary=----=_Part:1?/(2)"),
            Ok("----=_Part:1?/(2)".into())
        );
        assert_eq!(of("multipart/related; type=x"), Err(MultipartError::NoBoundary));
        assert_eq!(of("multipart/form-data; boundary=x"), Err(MultipartError::NotRelated));
        for bad in ["", "a ", "a\u{e9}", "a\\\"b", &"x".repeat(71)] {
            let text = format!("multipart/related; boundary=\"{bad}\"");
            assert_eq!(of(&text), Err(MultipartError::BadBoundary), "{text}");
        }
    }

    #[test]
    fn a_boundary_is_chosen_that_no_body_has() {
        let first = Boundary::random(7);
        let body = [b"x", first.as_str().as_bytes()].concat();
        let chosen = Boundary::absent(&[&body], 7);
        assert_ne!(chosen, first);
        assert!(!body.windows(chosen.0.len()).any(|window| window == chosen.0.as_bytes()));
        assert!(Boundary::new(chosen.as_str()).is_ok() && chosen.0.len() <= MAX_BOUNDARY);
        let content_type = chosen.content_type("application/dicom");
        assert_eq!(Boundary::of_content_type(&content_type), Ok(chosen));
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same(
            bodies in prop::collection::vec(prop::collection::vec(prop::sample::select(&b"\r\n-bx"[..]), 0..20), 1..5),
            cuts in prop::collection::vec(0_usize..400, 0..12),
        ) {
            let text = written("bbbx", &bodies);
            let expected = read("bbbx", 100, [text.as_slice()]);
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(text.len())).chain([0, text.len()]).collect();
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|pair| &text[pair[0]..pair[1]]);
            prop_assert_eq!(&read("bbbx", 100, pieces), &expected);
            prop_assert_eq!(&read("bbbx", 100, text.chunks(1)), &expected);
            // Bodies that hold a delimiter themselves are read as something else; all others come back.
            if !bodies.iter().any(|body| [b"\r\n", body.as_slice()].concat().windows(8).any(|window| window == b"\r\n--bbbx")) {
                let fields = [("content-type", "application/dicom")];
                let seen: Vec<_> = bodies.iter().flat_map(|body| part(&fields, body)).chain([Seen::End]).collect();
                prop_assert_eq!(expected, Ok(seen));
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic_and_little_is_kept(text in prop::collection::vec(prop::sample::select(&b"\r\n-b: x\t\0"[..]), 0..300)) {
            let mut reader = Reader::new(&Boundary::new("b").unwrap(), 5);
            for chunk in text.chunks(7) {
                let _ = reader.feed(chunk, |_| {});
                prop_assert!(reader.held.len() <= MAX_HEADER);
            }
            let _ = reader.finish();
        }

        #[test]
        fn a_cut_message_is_never_whole(body in prop::collection::vec(any::<u8>(), 0..40), end in 0_usize..1000) {
            let text = written("boundary", &[body]);
            // Without the last line end it is whole.
            let end = end % (text.len() - 2);
            let is_cut = matches!(read("boundary", 9, [&text[..end]]), Err(MultipartError::Cut { .. }));
            prop_assert!(is_cut);
        }
    }
}
