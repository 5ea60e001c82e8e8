//! Frames: which are asked for (PS3.18 10.4.1.1.6), and where they lie in the encoded data set (PS3.5 8, A.4).
//!
//! One pass of the scanner gathers [`Pixels`]: the shape of a frame, the offset tables, and where each fragment lies. After
//! that a frame is a few ranges of bytes, so that it can be read from the store without what is around it. Nothing that
//! the object claims is believed without a look: a table must point at fragments that are there, in their order, and a
//! range must lie inside the pixel data. Offsets count bytes of the data set, inflated if it was deflated.

use std::fmt;
use std::ops::Range;

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use gantry_store::dicom::scanner::{Encoding, Event, Visitor};
use thiserror::Error;

/// Bytes of the longest text of a list: some 10,000 numbers, as many as the largest objects have frames.
const MAX_LIST: usize = 64 << 10;
/// Bytes of the longest offset table that is kept: that of 4 million frames.
const MAX_TABLE: usize = 32 << 20;

/// Why there is no such frame.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum FramesError {
    /// Empty, not numbers with commas between, or far too long.
    #[error("not a list of frame numbers")]
    List,
    /// Frames count from 1.
    #[error("frames are numbered from 1 to {frames}")]
    OutOfRange {
        /// Number of Frames (0028,0008).
        frames: u32,
    },
    /// PS3.18 10.4.1.1.6 asks for numbers without repetition.
    #[error("a frame number occurs twice")]
    Twice,
    /// A report, for instance.
    #[error("instance has no pixel data")]
    NoPixelData,
    /// Rows, Columns, Samples per Pixel or Bits Allocated is missing or zero, or the product is beyond all measure.
    #[error("attributes do not say how long a frame is")]
    Shape,
    /// The object claims more frames than it has bytes for.
    #[error("pixel data ends before the frame does")]
    Short,
    /// Neither an offset table nor fragments nor codestreams tell where a frame begins.
    #[error("nothing tells where the frames of the encapsulated pixel data begin")]
    NoBoundaries,
}

/// Reads a list of frame numbers, in its order; each between 1 and the number of frames, none twice.
pub fn list(text: &str, frames: u32) -> Result<Vec<u32>, FramesError> {
    if text.len() > MAX_LIST {
        return Err(FramesError::List);
    }
    let mut numbers = Vec::new();
    for part in text.split(',') {
        let unsigned = part.strip_prefix('-').unwrap_or(part);
        if unsigned.is_empty() || !unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(FramesError::List);
        }
        let number = part.parse::<u32>().ok().filter(|number| (1..=frames).contains(number));
        numbers.push(number.ok_or(FramesError::OutOfRange { frames })?);
    }
    let mut sorted = numbers.clone();
    sorted.sort_unstable();
    if sorted.iter().zip(sorted.iter().skip(1)).any(|(one, next)| one == next) {
        return Err(FramesError::Twice);
    }
    Ok(numbers)
}

/// One fragment of encapsulated pixel data.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Fragment {
    /// Where its item's header begins; offset tables point there.
    header: u64,
    value: Range<u64>,
    /// Its first bytes, which tell whether a codestream begins.
    head: [u8; 4],
}

/// What the pass over a data set gathers for its frames. A visitor of the scanner.
#[derive(Clone, Default)]
pub struct Pixels {
    rows: u16,
    columns: u16,
    samples: u16,
    bits: u16,
    frames: Option<u32>,
    /// Photometric Interpretation (0028,0004), and how many samples it shares between pixels.
    photometric: Vec<u8>,
    /// Native pixel data.
    native: Option<Range<u64>>,
    fragments: Option<Vec<Fragment>>,
    /// Extended Offset Table (7FE0,0001), its lengths (7FE0,0002), Basic Offset Table.
    offsets: Vec<u8>,
    lengths: Vec<u8>,
    basic: Vec<u8>,
    /// Where the next event's bytes begin.
    at: u64,
    now: Now,
    value: Vec<u8>,
}

/// Whose value arrives.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Now {
    #[default]
    Nothing,
    Attribute(Tag, Encoding),
    Native,
    /// Between fragments; so many have begun, the table included.
    Fragments(u64),
    Fragment(u64),
}

impl fmt::Debug for Pixels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pixels")
            .field("frames", &self.number_of_frames())
            .field("fragments", &self.fragments.as_ref().map(Vec::len))
            .finish_non_exhaustive()
    }
}

/// Where a frame lies.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Frame {
    /// Bytes of the data set that are the frame, one behind the other. Of encapsulated pixel data the fragments without
    /// their headers; the last may have a byte that pads it.
    pub ranges: Vec<Range<u64>>,
    /// Where single bits are not whole bytes (PS3.5 8.1.1): how [`Bits::cut`] cuts the frame out of these bytes.
    pub bits: Option<Bits>,
}

/// A frame of single bits that begins or ends inside a byte.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Bits {
    /// Bits of the first byte that belong to the frame before; the lowest come first.
    pub skip: u8,
    /// Bits of the frame.
    pub count: u64,
}

impl Bits {
    /// The frame from its first bit on, with zeros behind its last.
    pub fn cut(self, bytes: &[u8]) -> Vec<u8> {
        let (low, high) = (u32::from(self.skip), 8 - u32::from(self.skip));
        let next = bytes.iter().skip(1).map(|byte| u16::from(*byte)).chain([0]);
        let shifted = bytes
            .iter()
            .zip(next)
            .map(|(byte, next)| (u16::from(*byte) >> low | next << high) as u8);
        let length = usize::try_from(self.count.div_ceil(8)).unwrap_or(usize::MAX);
        let mut frame: Vec<u8> = shifted.take(length).collect();
        let spare = (8 - self.count % 8) % 8;
        if let Some(last) = frame.last_mut() {
            *last &= 0xFF >> spare;
        }
        frame
    }
}

impl Pixels {
    /// Number of Frames (0028,0008); 1 where the attribute is missing or wrong.
    pub fn number_of_frames(&self) -> u32 {
        self.frames.unwrap_or(1)
    }

    /// Whether pixel data is a sequence of fragments.
    pub fn is_encapsulated(&self) -> bool {
        self.fragments.is_some()
    }

    /// The frames, found once for all of them.
    pub fn frames(&self) -> Frames<'_> {
        let fragments = self.fragments.as_deref().unwrap_or_default();
        Frames { pixels: self, begins: self.begins(fragments, u64::from(self.number_of_frames())) }
    }

    fn native_frame(&self, native: &Range<u64>, index: u64) -> Result<Frame, FramesError> {
        let count = self.bits_of_frame().ok_or(FramesError::Shape)?;
        let begin = count.checked_mul(index).ok_or(FramesError::Short)?;
        let end = begin.checked_add(count).ok_or(FramesError::Short)?;
        let range = native.start + begin / 8..native.start.saturating_add(end.div_ceil(8));
        if range.end > native.end {
            return Err(FramesError::Short);
        }
        let skip = (begin % 8) as u8;
        let bits = (skip != 0 || count % 8 != 0).then_some(Bits { skip, count });
        Ok(Frame { ranges: vec![range], bits })
    }

    /// Bits of a native frame (PS3.5 8.1.1, PS3.3 C.7.6.3.1.2).
    fn bits_of_frame(&self) -> Option<u64> {
        let pixels = u64::from(self.rows) * u64::from(self.columns);
        let bits = pixels.checked_mul(u64::from(self.samples) * u64::from(self.bits))?;
        // Two pixels share their colours, which three samples for each would not.
        let bits = match self.photometric.as_slice() {
            b"YBR_FULL_422" | b"YBR_PARTIAL_422" if self.samples == 3 => bits / 3 * 2,
            b"YBR_PARTIAL_420" if self.samples == 3 => bits / 2,
            _ => bits,
        };
        (bits > 0).then_some(bits)
    }

    /// The first fragment of each frame, by what is surest: the Basic Offset Table, as far as it points at fragments; then
    /// a fragment for each frame; then the fragments in which a codestream begins. None where nothing tells.
    fn begins(&self, fragments: &[Fragment], frames: u64) -> Vec<usize> {
        let begins = if let Some(begins) = self.by_basic_table(fragments, frames) {
            begins
        } else if fragments.len() as u64 == frames {
            (0..fragments.len()).collect()
        } else {
            let all = fragments.iter().enumerate();
            let begins = all.filter(|(_, fragment)| begins_codestream(fragment.head));
            begins.map(|(at, _)| at).collect::<Vec<_>>()
        };
        let fits = begins.len() as u64 == frames && begins.first() == Some(&0);
        if fits { begins } else { Vec::new() }
    }

    /// Of the Extended Offset Table (PS3.3 C.7.6.3.1.8): each frame is one fragment, of which the table says how much is
    /// not padding. `None` where there is none, or where it says of this frame what is not so.
    fn by_extended_table(
        &self,
        fragments: &[Fragment],
        at: usize,
        frames: u64,
    ) -> Option<Range<u64>> {
        let entries = |table: &[u8]| (table.len() / 8) as u64;
        if entries(&self.offsets) != frames || entries(&self.lengths) != frames {
            return None;
        }
        let entry = |table: &[u8]| {
            table.chunks_exact(8).nth(at)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
        };
        let header = fragments.first()?.header.checked_add(entry(&self.offsets)?)?;
        let found = fragments.binary_search_by_key(&header, |fragment| fragment.header).ok()?;
        let value = &fragments.get(found)?.value;
        let length = entry(&self.lengths)?;
        let whole = value.end - value.start;
        // At most one byte is padding; a table that leaves out more would cut the frame.
        (length > 0 && length <= whole && whole - length <= 1)
            .then(|| value.start..value.start + length)
    }

    /// Of the Basic Offset Table (PS3.5 A.4): the first fragment of each frame. `None` where there is none, or where any
    /// entry does not point at a fragment behind that of the entry before.
    fn by_basic_table(&self, fragments: &[Fragment], frames: u64) -> Option<Vec<usize>> {
        if self.basic.is_empty() || (self.basic.len() / 4) as u64 != frames {
            return None;
        }
        let first = fragments.first()?.header;
        let mut begins: Vec<usize> = Vec::with_capacity(self.basic.len() / 4);
        for entry in self.basic.chunks_exact(4) {
            let header = first + u64::from(u32::from_le_bytes(*entry.first_chunk()?));
            let found = fragments.binary_search_by_key(&header, |fragment| fragment.header).ok()?;
            if begins.last().is_some_and(|last| found <= *last) {
                return None;
            }
            begins.push(found);
        }
        Some(begins)
    }

    /// A value of the top level is complete.
    fn note(&mut self, tag: Tag, encoding: Encoding) {
        let value = std::mem::take(&mut self.value);
        let number = |value: &[u8]| {
            let bytes = value.first_chunk().copied().unwrap_or_default();
            if encoding == Encoding::ExplicitBig {
                u16::from_be_bytes(bytes)
            } else {
                u16::from_le_bytes(bytes)
            }
        };
        let text = || String::from_utf8_lossy(&value).trim_matches([' ', '\0']).to_owned();
        match tag {
            tags::ROWS => self.rows = number(&value),
            tags::COLUMNS => self.columns = number(&value),
            tags::SAMPLES_PER_PIXEL => self.samples = number(&value),
            tags::BITS_ALLOCATED => self.bits = number(&value),
            tags::NUMBER_OF_FRAMES => {
                self.frames = text().parse().ok().filter(|frames| *frames > 0);
            }
            tags::PHOTOMETRIC_INTERPRETATION => self.photometric = text().into_bytes(),
            tags::EXTENDED_OFFSET_TABLE => self.offsets = value,
            tags::EXTENDED_OFFSET_TABLE_LENGTHS => self.lengths = value,
            _ => {}
        }
    }

    fn value(&mut self, bytes: &[u8]) {
        match self.now {
            Now::Attribute(..) if self.value.len() + bytes.len() <= MAX_TABLE => {
                self.value.extend_from_slice(bytes);
            }
            Now::Fragment(1) if self.basic.len() + bytes.len() <= MAX_TABLE => {
                self.basic.extend_from_slice(bytes);
            }
            // A table longer than that is none.
            Now::Attribute(..) => self.value.clear(),
            Now::Fragment(1) => self.basic.clear(),
            Now::Fragment(_) => {
                if let Some(fragment) = self.fragments.as_mut().and_then(|all| all.last_mut()) {
                    let had =
                        usize::try_from(fragment.value.end - fragment.value.start).unwrap_or(4);
                    let room = fragment.head.iter_mut().skip(had);
                    room.zip(bytes).for_each(|(head, byte)| *head = *byte);
                    fragment.value.end += bytes.len() as u64;
                }
            }
            Now::Native => {
                if let Some(native) = &mut self.native {
                    native.end += bytes.len() as u64;
                }
            }
            Now::Nothing | Now::Fragments(_) => {}
        }
    }
}

/// Where the frames of an instance lie.
#[derive(Clone, Debug)]
pub struct Frames<'a> {
    pixels: &'a Pixels,
    /// The first fragment of each frame; empty where nothing tells, and of native pixel data.
    begins: Vec<usize>,
}

impl Frames<'_> {
    /// Where a frame lies, by its number from 1.
    pub fn frame(&self, number: u32) -> Result<Frame, FramesError> {
        let frames = self.pixels.number_of_frames();
        let index = number.checked_sub(1).filter(|_| number <= frames);
        let index = index.ok_or(FramesError::OutOfRange { frames })?;
        match (&self.pixels.native, &self.pixels.fragments) {
            (Some(native), _) => self.pixels.native_frame(native, u64::from(index)),
            (None, Some(fragments)) => {
                let ranges = self.fragments_of(fragments, index as usize)?;
                Ok(Frame { ranges, bits: None })
            }
            (None, None) => Err(FramesError::NoPixelData),
        }
    }

    fn fragments_of(&self, all: &[Fragment], at: usize) -> Result<Vec<Range<u64>>, FramesError> {
        let frames = self.pixels.number_of_frames();
        if let Some(range) = self.pixels.by_extended_table(all, at, u64::from(frames)) {
            return Ok(vec![range]);
        }
        let fragments = if frames == 1 {
            // The only frame has all of them, whatever they look like.
            all
        } else {
            let begin = self.begins.get(at).copied().ok_or(FramesError::NoBoundaries)?;
            let end = self.begins.get(at + 1).copied().unwrap_or(all.len());
            all.get(begin..end).unwrap_or_default()
        };
        if fragments.is_empty() {
            return Err(FramesError::Short);
        }
        Ok(fragments.iter().map(|fragment| fragment.value.clone()).collect())
    }
}

/// JPEG and JPEG-LS begin with SOI and another marker (ISO 10918-1 B.1), JPEG 2000 with SOC and SIZ (ISO 15444-1 A.4), and
/// JPEG XL with its own (ISO 18181-2).
fn begins_codestream(head: [u8; 4]) -> bool {
    matches!(head, [0xFF, 0xD8, 0xFF, _] | [0xFF, 0x4F, 0xFF, 0x51] | [0xFF, 0x0A, ..])
}

fn is_pixel_data(tag: Tag) -> bool {
    matches!(tag, tags::PIXEL_DATA | tags::FLOAT_PIXEL_DATA | tags::DOUBLE_FLOAT_PIXEL_DATA)
}

fn is_wanted(tag: Tag) -> bool {
    matches!(
        tag,
        tags::ROWS
            | tags::COLUMNS
            | tags::SAMPLES_PER_PIXEL
            | tags::BITS_ALLOCATED
            | tags::NUMBER_OF_FRAMES
            | tags::PHOTOMETRIC_INTERPRETATION
            | tags::EXTENDED_OFFSET_TABLE
            | tags::EXTENDED_OFFSET_TABLE_LENGTHS
    )
}

impl Visitor for Pixels {
    fn visit(&mut self, event: Event<'_>) {
        let begin = self.at;
        self.at += event.raw().len() as u64;
        match event {
            Event::Element(header) if header.depth == 0 && is_pixel_data(header.tag) => {
                self.native = Some(self.at..self.at);
                self.now = Now::Native;
            }
            Event::Element(header) if header.depth == 0 && is_wanted(header.tag) => {
                self.value.clear();
                self.now = Now::Attribute(header.tag, header.encoding);
            }
            Event::Fragments(header) if header.depth == 0 && is_pixel_data(header.tag) => {
                self.fragments = Some(Vec::new());
                self.now = Now::Fragments(0);
            }
            Event::Fragment(_) => {
                if let Now::Fragments(begun) = self.now {
                    self.now = Now::Fragment(begun + 1);
                    if let Some(fragments) = self.fragments.as_mut().filter(|_| begun > 0) {
                        let value = self.at..self.at;
                        fragments.push(Fragment { header: begin, value, head: [0; 4] });
                    }
                }
            }
            Event::Value(bytes) => self.value(bytes),
            Event::ValueEnd => match self.now {
                Now::Attribute(tag, encoding) => {
                    self.note(tag, encoding);
                    self.now = Now::Nothing;
                }
                Now::Fragment(begun) => self.now = Now::Fragments(begun),
                _ => self.now = Now::Nothing,
            },
            Event::SequenceEnd(_) if matches!(self.now, Now::Fragments(_)) => {
                self.now = Now::Nothing;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use dicom_core::VR;
    use gantry_deidentify::data_set::{DataSet, Element, Form};
    use gantry_store::dicom::scanner::{Budget, Scanner};
    use proptest::prelude::*;

    use super::*;

    fn pixels(syntax: &str, bytes: &[u8], chunk: usize) -> Pixels {
        let mut scanner =
            Scanner::with_visitor(&syntax.parse().unwrap(), Budget::default(), Pixels::default());
        bytes.chunks(chunk).for_each(|chunk| scanner.feed(chunk).unwrap());
        scanner.finish_visit().unwrap().1
    }

    fn us(tag: Tag, value: u16) -> Element {
        Element::new(tag, VR::US, value.to_le_bytes())
    }

    fn shape(frames: &str, rows: u16, columns: u16, samples: u16, bits: u16) -> DataSet {
        let mut set = DataSet::default();
        set.put(us(tags::SAMPLES_PER_PIXEL, samples));
        set.put(Element::new(tags::NUMBER_OF_FRAMES, VR::IS, frames));
        set.put(us(tags::ROWS, rows));
        set.put(us(tags::COLUMNS, columns));
        set.put(us(tags::BITS_ALLOCATED, bits));
        set
    }

    const EXPLICIT: &str = "1.2.840.10008.1.2.1";

    fn native(mut set: DataSet, value: Vec<u8>) -> (Pixels, Vec<u8>) {
        set.put(Element::new(tags::PIXEL_DATA, VR::OW, value));
        let mut bytes = Vec::new();
        set.write(Form::Explicit, &mut bytes);
        (pixels(EXPLICIT, &bytes, 5), bytes)
    }

    fn frame_of(pixels: &Pixels, bytes: &[u8], number: u32) -> Result<Vec<u8>, FramesError> {
        let frame = pixels.frames().frame(number)?;
        let joined: Vec<u8> = frame
            .ranges
            .iter()
            .flat_map(|range| bytes[range.start as usize..range.end as usize].to_vec())
            .collect();
        Ok(frame.bits.map_or(joined.clone(), |bits| bits.cut(&joined)))
    }

    /// Encapsulated pixel data: table, then fragments; the offset of each from the first.
    fn encapsulated(
        mut set: DataSet,
        tables: &[Element],
        table: &[u32],
        fragments: &[&[u8]],
    ) -> (Pixels, Vec<u8>) {
        tables.iter().cloned().for_each(|element| set.put(element));
        let mut bytes = Vec::new();
        set.write(Form::Explicit, &mut bytes);
        bytes.extend(b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff");
        let table: Vec<u8> = table.iter().flat_map(|entry| entry.to_le_bytes()).collect();
        for item in [table.as_slice()].iter().chain(fragments) {
            bytes.extend(b"\xfe\xff\x00\xe0");
            bytes.extend((item.len() as u32).to_le_bytes());
            bytes.extend(*item);
        }
        bytes.extend(b"\xfe\xff\xdd\xe0\0\0\0\0");
        (pixels("1.2.840.10008.1.2.4.80", &bytes, 3), bytes)
    }

    #[test]
    fn lists_are_bounded_and_exact() {
        assert_eq!(list("1,3,7", 7), Ok(vec![1, 3, 7]));
        assert_eq!(list("7,1", 7), Ok(vec![7, 1]));
        for text in ["", ",", "1,", "a", "1;2", "+1", "1 ,2", "0x1", "--1", "-", "1.0"] {
            assert_eq!(list(text, 7), Err(FramesError::List), "{text}");
        }
        for text in ["0", "-1", "8", "4294967296", "4294967295", "99999999999999999999", "1,0"] {
            assert_eq!(list(text, 7), Err(FramesError::OutOfRange { frames: 7 }), "{text}");
        }
        assert_eq!(list("1,2,1", 7), Err(FramesError::Twice));
        let million: Vec<_> = (1..=1_000_000).map(|number: u32| number.to_string()).collect();
        assert_eq!(list(&million.join(","), u32::MAX), Err(FramesError::List));
    }

    #[test]
    fn native_frames_follow_each_other() {
        let (pixels, bytes) = native(shape("3", 2, 2, 1, 16), (0..24).collect());
        for number in 1..=3_u8 {
            let expected: Vec<u8> = (8 * (number - 1)..8 * number).collect();
            assert_eq!(frame_of(&pixels, &bytes, u32::from(number)), Ok(expected));
        }
        for number in [0, 4, u32::MAX] {
            assert_eq!(pixels.frames().frame(number), Err(FramesError::OutOfRange { frames: 3 }));
        }
    }

    #[test]
    fn claims_beyond_the_bytes_are_refused() {
        let (few, _) = native(shape("4", 2, 2, 1, 16), (0..24).collect());
        assert_eq!(few.frames().frame(4), Err(FramesError::Short));
        let (huge, _) = native(shape("4294967295", 65535, 65535, 65535, 65535), vec![0; 4]);
        assert_eq!(huge.frames().frame(u32::MAX), Err(FramesError::Short));
        assert_eq!(
            native(shape("1", 0, 2, 1, 16), vec![0; 4]).0.frames().frame(1),
            Err(FramesError::Shape)
        );
        assert_eq!(
            pixels(EXPLICIT, b"\x08\0\x60\0CS\x02\0SR", 1).frames().frame(1),
            Err(FramesError::NoPixelData)
        );
        let (wrong, _) = native(shape("-1", 2, 2, 1, 16), vec![0; 8]);
        assert_eq!(wrong.number_of_frames(), 1);
    }

    #[test]
    fn single_bits_and_shared_colours_have_their_length() {
        // Three frames of 3 x 3 bits: 111111111 000000000 101010101, the lowest bit first.
        let (pixels, bytes) = native(shape("3", 3, 3, 1, 1), vec![0xFF, 0x01, 0x54, 0x05]);
        assert_eq!(frame_of(&pixels, &bytes, 1), Ok(vec![0xFF, 0x01]));
        assert_eq!(frame_of(&pixels, &bytes, 2), Ok(vec![0x00, 0x00]));
        assert_eq!(frame_of(&pixels, &bytes, 3), Ok(vec![0x55, 0x01]));
        let mut set = shape("2", 2, 2, 3, 8);
        set.put(Element::new(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "YBR_FULL_422"));
        let (pixels, bytes) = native(set, (0..16).collect());
        assert_eq!(frame_of(&pixels, &bytes, 2), Ok((8..16).collect()));
    }

    #[test]
    fn tables_say_where_frames_begin() {
        let (a, b, c) = (&b"aaaa"[..], &b"bb"[..], &b"cccccc"[..]);
        let (pixels, bytes) = encapsulated(shape("2", 1, 1, 1, 8), &[], &[0, 22], &[a, b, c]);
        assert_eq!(frame_of(&pixels, &bytes, 1), Ok(b"aaaabb".to_vec()));
        assert_eq!(frame_of(&pixels, &bytes, 2), Ok(c.to_vec()));

        let words = |numbers: &[u64]| {
            numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>()
        };
        let extended = |offsets: &[u64], lengths: &[u64]| {
            [
                Element::new(tags::EXTENDED_OFFSET_TABLE, VR::OV, words(offsets)),
                Element::new(tags::EXTENDED_OFFSET_TABLE_LENGTHS, VR::OV, words(lengths)),
            ]
        };
        let (pixels, bytes) = encapsulated(
            shape("3", 1, 1, 1, 8),
            &extended(&[0, 12, 22], &[3, 2, 6]),
            &[],
            &[a, b, c],
        );
        assert_eq!(frame_of(&pixels, &bytes, 1), Ok(b"aaa".to_vec()), "without padding");
        assert_eq!(frame_of(&pixels, &bytes, 3), Ok(c.to_vec()));
        // Lies: beyond the data, beyond the fragment, beyond all numbers.
        for (offset, length) in [(1 << 40, 2), (12, 2000), (u64::MAX, 2), (13, 2), (12, 0)] {
            let tables = extended(&[0, offset, 22], &[3, length, 6]);
            let (pixels, bytes) = encapsulated(shape("3", 1, 1, 1, 8), &tables, &[], &[a, b, c]);
            assert_eq!(frame_of(&pixels, &bytes, 2), Ok(b.to_vec()), "a fragment for each frame");
        }
    }

    #[test]
    fn without_tables_fragments_or_codestreams_tell() {
        let (jpeg, more) = (&b"\xff\xd8\xff\xe0"[..], &b"more"[..]);
        let frames = |count: &str, table: &[u32], fragments: &[&[u8]]| {
            encapsulated(shape(count, 1, 1, 1, 8), &[], table, fragments)
        };
        let (one, bytes) = frames("1", &[], &[jpeg, more, more]);
        assert_eq!(frame_of(&one, &bytes, 1), Ok([jpeg, more, more].concat()));
        let (each, bytes) = frames("2", &[], &[more, jpeg]);
        assert_eq!(frame_of(&each, &bytes, 2), Ok(jpeg.to_vec()));
        for lying in [&[][..], &[0, 13], &[0, 0], &[12, 0], &[0, u32::MAX], &[0]] {
            let (streams, bytes) = frames("2", lying, &[jpeg, more, jpeg]);
            assert_eq!(frame_of(&streams, &bytes, 1), Ok([jpeg, more].concat()));
            assert_eq!(frame_of(&streams, &bytes, 2), Ok(jpeg.to_vec()));
        }
        for fragments in [&[more, jpeg, jpeg][..], &[jpeg, jpeg, jpeg], &[more], &[]] {
            assert_eq!(
                frames("2", &[], fragments).0.frames().frame(2),
                Err(FramesError::NoBoundaries)
            );
        }
        assert_eq!(frames("1", &[], &[]).0.frames().frame(1), Err(FramesError::Short));
        let (claims, _) = frames("4294967295", &[], &[jpeg]);
        assert_eq!(claims.frames().frame(u32::MAX), Err(FramesError::NoBoundaries));
    }

    #[test]
    fn frames_of_samples_are_the_pixels_whatever_the_syntax() {
        use sample_studies::TransferSyntax as Syntax;
        let study = sample_studies::multi_frame(3, 3, 64, 64).build().unwrap();
        let instance = &study.instances[0];
        let plain = pixels(EXPLICIT, &instance.data_set, 1000);
        assert!(plain.number_of_frames() == 3 && !plain.is_encapsulated());
        let begin = instance.data_set.len() - 3 * 64 * 64 * 2;
        for number in 1..=3 {
            let at = begin + (number as usize - 1) * 64 * 64 * 2;
            assert_eq!(
                frame_of(&plain, &instance.data_set, number).unwrap(),
                instance.data_set[at..at + 64 * 64 * 2]
            );
        }
        let rle = instance.in_transfer_syntax(Syntax::RleLossless).unwrap();
        let compressed = pixels(&rle.transfer_syntax_uid, &rle.data_set, 777);
        assert!(compressed.is_encapsulated());
        let ranges: Vec<_> =
            (1..=3).flat_map(|number| compressed.frames().frame(number).unwrap().ranges).collect();
        assert_eq!(ranges.len(), 3);
        assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start));
        assert!(ranges[2].end as usize <= rle.data_set.len());
    }

    proptest! {
        #[test]
        fn no_table_leads_outside_the_fragments(
            table in prop::collection::vec(prop_oneof![0_u32..60, any::<u32>()], 0..4),
            frames in 0_u32..5,
            lengths in prop::collection::vec(0_usize..4, 0..4),
        ) {
            let fragments: Vec<Vec<u8>> = lengths.iter().map(|length| vec![0xFF; length * 2]).collect();
            let fragments: Vec<&[u8]> = fragments.iter().map(Vec::as_slice).collect();
            let (pixels, bytes) = encapsulated(shape(&frames.to_string(), 1, 1, 1, 8), &[], &table, &fragments);
            let mut joined = Vec::new();
            for number in 1..=pixels.number_of_frames() {
                match frame_of(&pixels, &bytes, number) {
                    Ok(frame) => joined.extend(frame),
                    Err(_) => return Ok(()),
                }
            }
            // Where all frames are found, no byte is in two of them.
            prop_assert!(joined.len() <= fragments.concat().len());
        }

        #[test]
        fn bits_are_those_at_their_places(bytes in prop::collection::vec(any::<u8>(), 1..20), skip in 0_u8..8, count in 1_u64..100) {
            let count = count.min(bytes.len() as u64 * 8 - u64::from(skip));
            let bit = |bytes: &[u8], at: u64| bytes[(at / 8) as usize] >> (at % 8) & 1;
            let frame = Bits { skip, count }.cut(&bytes);
            prop_assert_eq!(frame.len() as u64, count.div_ceil(8));
            for at in 0..count {
                prop_assert_eq!(bit(&frame, at), bit(&bytes, at + u64::from(skip)));
            }
        }
    }
}
