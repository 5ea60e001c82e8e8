//! Empties what hides between compressed pixels: comments and application segments of JPEG and JPEG-LS, comments and
//! foreign boxes of JPEG 2000, slack of RLE, and all that follows the end of a frame in its fragment (PS3.15 E.3.1).
//!
//! Not a bit of a pixel changes, and no length: payloads become zeros. So offset tables stay right, and the value of any
//! size passes in pieces, in order. Streams are walked by their own lengths, marker by marker; what does not follow from
//! what came before is an error, because text may be in what is not understood. The number of streams must be that of the
//! frames: a fragment that held two would lose one.
//!
//! What is not looked into is said by [`Codestreams::finish`] as a [`Note`]. Video is refused: its user data are part of
//! streams that are not walked here. Does not know whether pixels show text.

use std::fmt;

use dicom_dictionary_std::{tags, uids};
use gantry_store::dicom::TransferSyntax;
use thiserror::Error;

use super::image::{ImageError, frames, positive};
use crate::data_set::DataSet;

mod jpeg;
mod jpeg2000;
mod rle;

#[cfg(test)]
mod tests;

const ITEM: [u8; 4] = [0xFE, 0xFF, 0x00, 0xE0];

/// Why compressed pixel data cannot be emptied of text. The instance is to be set aside, or decoded.
#[derive(Clone, Debug, Error, Eq, PartialEq)]
#[non_exhaustive]
pub enum CodestreamError {
    /// Video, JPEG XL, and what is private: nothing here walks it.
    #[error("compressed frames of transfer syntax {0} cannot be searched for text")]
    NotCleanable(TransferSyntax),
    /// Attributes do not say what frames are.
    #[error("frames cannot be found")]
    Image(#[from] ImageError),
    /// A stream is not what its transfer syntax says.
    #[error(
        "frame {frame} is not understood in the item at byte {offset} of the pixel data: {why}"
    )]
    NotUnderstood {
        /// Which frame, from 1.
        frame: u32,
        /// Where the item that it is in begins in the value.
        offset: u64,
        /// One of a fixed set of reasons.
        why: &'static str,
    },
    /// There are more or fewer streams than frames.
    #[error("{found} compressed frames where the attributes say {expected}")]
    Frames {
        /// Number of Frames (0028,0008).
        expected: u32,
        /// Streams that begin and end.
        found: u32,
    },
    /// A piece is missing, or came twice. The caller's mistake.
    #[error("bytes from {found} came where those from {expected} were due")]
    Disorder {
        /// Where the next piece begins.
        expected: u64,
        /// Where this one did.
        found: u64,
    },
}

/// What was not looked into, for reports.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Note {
    /// Deflated frames: what may follow the end of a deflated stream stays.
    Deflated,
    /// Frames that are native inside their fragments: their unused bits and what is behind them stay.
    Uncompressed,
    /// A colour profile (ICC) in a JP2 header is needed for colours, and stays with its texts.
    ColourProfile,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Deflated => "bytes behind deflated frames were not searched",
            Self::Uncompressed => {
                "bits and bytes beside encapsulated native pixels were not searched"
            }
            Self::ColourProfile => "a colour profile was kept with its description",
        })
    }
}

/// What was done; numbers only, for reports.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Cleaned {
    /// Streams that were walked from begin to end.
    pub frames: u32,
    /// Comments, application segments, boxes and tails that held something.
    pub emptied: u64,
    /// Bytes that were not 0 and are now.
    pub bytes: u64,
    /// What was not looked into.
    pub notes: Vec<Note>,
}

/// The value of encapsulated pixel data, all items with their headers, on its way past.
pub struct Codestreams {
    frames: u32,
    kind: Kind,
    next: u64,
    /// Where the item began.
    begin: u64,
    item: Item,
    /// Items so far, the Basic Offset Table being the first.
    items: u32,
    stream: Stream,
    eraser: Eraser,
    notes: Vec<Note>,
    /// Streams that have begun.
    begun: u32,
    ended: u32,
}

impl fmt::Debug for Codestreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Codestreams").field("kind", &self.kind).finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Jpeg,
    Jpeg2000,
    /// With so many pixels in a frame.
    Rle {
        pixels: u64,
    },
    /// Nothing is walked: a frame is a fragment, or several.
    Opaque,
}

/// Where in the items the next byte is.
#[derive(Clone, Copy, Debug)]
enum Item {
    Header { bytes: [u8; 8], have: usize },
    Payload { left: u64 },
}

/// Where in a frame the next byte is.
enum Stream {
    /// The next fragment begins a frame.
    Between,
    Jpeg(jpeg::Walk),
    Jpeg2000(jpeg2000::Walk),
    Rle(rle::Walk),
    /// The frame has ended; what is left of the fragment is nobody's.
    Tail,
}

/// What a walk says of the bytes that it took.
pub(in crate::pixels::codestream) enum Step {
    /// So many, at least one; the walk has done to them what is to be done.
    Took(usize),
    /// So many, and with them the frame is at its end.
    Ended(usize),
    /// So many, with which another frame begins: the one before had no end mark.
    Again(usize),
}

/// Fills with zeros, and counts what was not.
#[derive(Debug, Default)]
pub(in crate::pixels::codestream) struct Eraser {
    bytes: u64,
    emptied: u64,
    /// Something was erased since the last [`Eraser::part`].
    dirty: bool,
}

impl Eraser {
    /// Another segment, box or tail begins.
    fn part(&mut self) {
        self.dirty = false;
    }

    fn erase(&mut self, bytes: &mut [u8]) {
        let written = bytes.iter().filter(|byte| **byte != 0).count() as u64;
        if written > 0 {
            bytes.fill(0);
            self.bytes += written;
            self.emptied += u64::from(!self.dirty);
            self.dirty = true;
        }
    }
}

impl Codestreams {
    /// Prepares for the top-level pixel data of a data set in this transfer syntax. Asks of its attributes for the number
    /// of frames, and, if they are RLE, for their size.
    pub fn new(syntax: &TransferSyntax, data_set: &DataSet) -> Result<Self, CodestreamError> {
        let mut notes = Vec::new();
        let kind = match syntax.uid() {
            uids::JPEG_BASELINE8_BIT
            | uids::JPEG_EXTENDED12_BIT
            | uids::JPEG_LOSSLESS
            | uids::JPEG_LOSSLESS_SV1
            | uids::JPEGLS_LOSSLESS
            | uids::JPEGLS_NEAR_LOSSLESS => Kind::Jpeg,
            uids::JPEG2000_LOSSLESS
            | uids::JPEG2000
            | uids::JPEG2000MC_LOSSLESS
            | uids::JPEG2000MC
            | uids::HTJ2K_LOSSLESS
            | uids::HTJ2K_LOSSLESS_RPCL
            | uids::HTJ2K => Kind::Jpeg2000,
            uids::RLE_LOSSLESS => {
                let number = |tag| positive(data_set, tag).map(u64::from);
                let pixels = number(tags::ROWS)? * number(tags::COLUMNS)?;
                // Single bits are eight to a byte of a segment (PS3.5 G.2).
                let is_bits = number(tags::BITS_ALLOCATED)? == 1;
                Kind::Rle { pixels: if is_bits { pixels.div_ceil(8) } else { pixels } }
            }
            uids::DEFLATED_IMAGE_FRAME_COMPRESSION => {
                notes.push(Note::Deflated);
                Kind::Opaque
            }
            uids::ENCAPSULATED_UNCOMPRESSED_EXPLICIT_VR_LITTLE_ENDIAN => {
                notes.push(Note::Uncompressed);
                Kind::Opaque
            }
            _ => return Err(CodestreamError::NotCleanable(syntax.clone())),
        };
        Ok(Self {
            frames: frames(data_set)?,
            kind,
            next: 0,
            begin: 0,
            item: Item::Header { bytes: [0; 8], have: 0 },
            items: 0,
            stream: Stream::Between,
            eraser: Eraser::default(),
            notes,
            begun: 0,
            ended: 0,
        })
    }

    /// Takes the next bytes of the value, which begin at `offset` in it, and cleans them in place.
    pub fn feed(&mut self, offset: u64, piece: &mut [u8]) -> Result<(), CodestreamError> {
        if offset != self.next {
            return Err(CodestreamError::Disorder { expected: self.next, found: offset });
        }
        let mut rest = piece;
        while !rest.is_empty() {
            let took = self.step(rest)?;
            self.next += took as u64;
            rest = rest.get_mut(took..).unwrap_or_default();
        }
        Ok(())
    }

    /// Says that the value ends here.
    pub fn finish(mut self) -> Result<Cleaned, CodestreamError> {
        if !matches!(self.item, Item::Header { have: 0, .. }) {
            return Err(self.refuse("pixel data end inside an item"));
        }
        match &self.stream {
            Stream::Between => {}
            // Some writers leave the end mark of a codestream out.
            Stream::Jpeg2000(walk) if walk.may_end() => self.end_frame(),
            _ => return Err(self.refuse("frame is cut")),
        }
        if self.kind == Kind::Opaque {
            // Several fragments may be a frame.
            self.ended = self.items.saturating_sub(1).min(self.frames);
        }
        if self.ended != self.frames {
            return Err(CodestreamError::Frames { expected: self.frames, found: self.ended });
        }
        let Eraser { bytes, emptied, .. } = self.eraser;
        Ok(Cleaned { frames: self.ended, emptied, bytes, notes: self.notes })
    }

    fn refuse(&self, why: &'static str) -> CodestreamError {
        CodestreamError::NotUnderstood { frame: self.begun.max(1), offset: self.begin, why }
    }

    fn step(&mut self, rest: &mut [u8]) -> Result<usize, CodestreamError> {
        match &mut self.item {
            Item::Header { bytes, have } => {
                if *have == 0 {
                    self.begin = self.next;
                }
                let places = bytes.get_mut(*have..).unwrap_or_default();
                let took = places.len().min(rest.len());
                places.iter_mut().zip(rest.iter()).for_each(|(place, byte)| *place = *byte);
                *have += took;
                if *have == bytes.len() {
                    let header = *bytes;
                    self.begin_item(header)?;
                }
                Ok(took)
            }
            Item::Payload { left } => {
                let left = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                let payload = rest.get_mut(..left).unwrap_or_default();
                let took = if self.items <= 1 { payload.len() } else { self.walk(payload)? };
                self.took(took as u64)?;
                Ok(took)
            }
        }
    }

    fn begin_item(&mut self, header: [u8; 8]) -> Result<(), CodestreamError> {
        let [t0, t1, t2, t3, l0, l1, l2, l3] = header;
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        if [t0, t1, t2, t3] != ITEM || length == u32::MAX {
            return Err(self.refuse("something else than an item is in the pixel data"));
        }
        self.items = self.items.saturating_add(1);
        // Offsets are numbers, of four bytes for each frame (PS3.5 A.4).
        if self.items == 1 && (length % 4 != 0 || u64::from(length) / 4 > self.frames.into()) {
            return Err(self.refuse("basic offset table is longer than frames ask for"));
        }
        self.item = Item::Payload { left: length.into() };
        if self.items > 1 {
            self.begin_fragment(length.into())?;
        }
        self.took(0)
    }

    /// Notes that so many bytes of the item's payload have passed.
    fn took(&mut self, count: u64) -> Result<(), CodestreamError> {
        if let Item::Payload { left } = &mut self.item {
            *left = left.saturating_sub(count);
            if *left == 0 {
                self.item = Item::Header { bytes: [0; 8], have: 0 };
                return self.end_fragment();
            }
        }
        Ok(())
    }

    fn begin_fragment(&mut self, length: u64) -> Result<(), CodestreamError> {
        if let Stream::Jpeg2000(walk) = &mut self.stream {
            walk.begin_fragment();
        }
        if !matches!(self.stream, Stream::Between) || length == 0 {
            return Ok(());
        }
        self.stream = match self.kind {
            Kind::Jpeg => Stream::Jpeg(jpeg::Walk::new()),
            Kind::Jpeg2000 => Stream::Jpeg2000(jpeg2000::Walk::new()),
            Kind::Rle { pixels } => Stream::Rle(rle::Walk::new(pixels, length)),
            Kind::Opaque => return Ok(()),
        };
        self.begin_frame()
    }

    fn begin_frame(&mut self) -> Result<(), CodestreamError> {
        self.begun = self.begun.saturating_add(1);
        if self.begun > self.frames {
            return Err(CodestreamError::Frames { expected: self.frames, found: self.begun });
        }
        Ok(())
    }

    fn end_frame(&mut self) {
        self.ended = self.ended.saturating_add(1);
        self.eraser.part();
        if let Stream::Jpeg2000(walk) = &self.stream
            && walk.has_colour_profile()
            && !self.notes.contains(&Note::ColourProfile)
        {
            self.notes.push(Note::ColourProfile);
        }
    }

    fn end_fragment(&mut self) -> Result<(), CodestreamError> {
        match &self.stream {
            Stream::Tail => self.stream = Stream::Between,
            // A frame is one fragment (PS3.5 A.4.2).
            Stream::Rle(walk) => {
                walk.finish().map_err(|why| self.refuse(why))?;
                self.end_frame();
                self.stream = Stream::Between;
            }
            Stream::Jpeg2000(walk) if walk.is_padded() => {
                self.end_frame();
                self.stream = Stream::Between;
            }
            _ => {}
        }
        Ok(())
    }

    /// Takes bytes of a fragment, at least one.
    fn walk(&mut self, payload: &mut [u8]) -> Result<usize, CodestreamError> {
        let step = match &mut self.stream {
            Stream::Between => Ok(Step::Took(payload.len())),
            Stream::Tail => {
                self.eraser.erase(payload);
                Ok(Step::Took(payload.len()))
            }
            Stream::Jpeg(walk) => walk.step(payload, &mut self.eraser),
            Stream::Jpeg2000(walk) => walk.step(payload, &mut self.eraser),
            Stream::Rle(walk) => walk.step(payload, &mut self.eraser),
        };
        match step.map_err(|why| self.refuse(why))? {
            Step::Took(count) => Ok(count),
            Step::Again(count) => {
                self.end_frame();
                self.begin_frame()?;
                Ok(count)
            }
            Step::Ended(count) => {
                self.end_frame();
                self.stream = Stream::Tail;
                Ok(count)
            }
        }
    }
}
