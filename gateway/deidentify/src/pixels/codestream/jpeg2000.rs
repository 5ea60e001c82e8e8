//! JPEG 2000 and High-Throughput codestreams, bare or in a JP2 file (ISO/IEC 15444-1 Annexes A and I, 15444-2, 15444-15).
//!
//! DICOM has bare codestreams (PS3.5 A.4.4), some writers wrap them. Comments are emptied and keep what kind they are;
//! boxes other than those that decoding needs are emptied and keep their headers; behind the codestream all goes.

use super::{Eraser, Step};

const SOC: u16 = 0xFF4F;
const SIZ: u16 = 0xFF51;
const COM: u16 = 0xFF64;
const SOT: u16 = 0xFF90;
const SOD: u16 = 0xFF93;
const EOC: u16 = 0xFFD9;
/// The signature box with which a JP2 file begins.
const SIGNATURE: [u8; 12] = [0, 0, 0, 12, b'j', b'P', b' ', b' ', b'\r', b'\n', 0x87, b'\n'];

pub(super) struct Walk {
    state: State,
    /// Bytes of the frame so far.
    position: u64,
    /// What is being collected: markers, lengths, headers.
    field: [u8; 16],
    have: usize,
    /// Where the current fragment begins in the frame.
    fragment: u64,
    /// Where the current tile-part ends; `None`: with the codestream.
    tile_end: Option<u64>,
    in_tile: bool,
    has_size: bool,
    profile: bool,
}

#[derive(Clone, Copy)]
enum State {
    /// The first two bytes tell a codestream from a file.
    Begin,
    Signature,
    BoxHeader,
    /// Behind a length of 1: eight bytes of length.
    BoxLength {
        kind: [u8; 4],
    },
    Box {
        left: u64,
        keep: bool,
    },
    /// The last box, which goes on to the end of the frame.
    Soc,
    Marker,
    Length {
        marker: u16,
    },
    Segment {
        left: u64,
    },
    /// Behind the length of a comment: two bytes that say what it is.
    Registration {
        left: u64,
    },
    Comment {
        left: u64,
    },
    TileHeader,
    Data {
        left: u64,
    },
    /// Data of a tile-part that goes on to the end mark.
    Open,
    OpenFf,
    /// Behind FF91H in open data: what a start-of-packet marker has, which may look like an end mark.
    OpenPacket {
        left: u64,
    },
    /// A byte of padding came where the end mark was due.
    Padding,
}

impl Walk {
    pub(super) fn new() -> Self {
        Self {
            state: State::Begin,
            position: 0,
            field: [0; 16],
            have: 0,
            fragment: 0,
            tile_end: None,
            in_tile: false,
            has_size: false,
            profile: false,
        }
    }

    /// Whether the frame may be whole although no end mark came: between tile-parts.
    pub(super) fn may_end(&self) -> bool {
        matches!(self.state, State::Marker) && self.have == 0 && self.is_behind_tile()
    }

    /// Whether padding has come instead of an end mark.
    pub(super) fn is_padded(&self) -> bool {
        matches!(self.state, State::Padding)
    }

    fn is_behind_tile(&self) -> bool {
        !self.in_tile && self.tile_end.is_some()
    }

    pub(super) fn begin_fragment(&mut self) {
        self.fragment = self.position;
    }

    pub(super) fn has_colour_profile(&self) -> bool {
        self.profile
    }

    pub(super) fn step(
        &mut self,
        bytes: &mut [u8],
        eraser: &mut Eraser,
    ) -> Result<Step, &'static str> {
        let step = self.take(bytes, eraser)?;
        let (Step::Took(count) | Step::Ended(count) | Step::Again(count)) = step;
        self.position += count as u64;
        if matches!(step, Step::Again(_)) {
            // The codestream that begins here.
            *self = Self { state: State::Marker, position: 2, ..Self::new() };
        }
        Ok(step)
    }

    fn take(&mut self, bytes: &mut [u8], eraser: &mut Eraser) -> Result<Step, &'static str> {
        // What has a length passes at once.
        let (left, then) = match self.state {
            State::Box { left, keep } => {
                let count = at_most(left, bytes);
                if !keep {
                    eraser.erase(bytes.get_mut(..count).unwrap_or_default());
                }
                let left = left - count as u64;
                self.state = if left == 0 { State::BoxHeader } else { State::Box { left, keep } };
                return Ok(Step::Took(count));
            }
            State::Comment { left } => {
                let count = at_most(left, bytes);
                eraser.erase(bytes.get_mut(..count).unwrap_or_default());
                let left = left - count as u64;
                self.state = if left == 0 { State::Marker } else { State::Comment { left } };
                return Ok(Step::Took(count));
            }
            State::Segment { left } | State::Data { left } => (left, State::Marker),
            State::OpenPacket { left } => (left, State::Open),
            State::Open => {
                let count = bytes.iter().position(|byte| *byte == 0xFF);
                self.state = count.map_or(State::Open, |_| State::OpenFf);
                return Ok(Step::Took(count.map_or(bytes.len(), |count| count + 1)));
            }
            State::OpenFf => {
                match bytes.first() {
                    Some(0xD9) => return Ok(Step::Ended(1)),
                    Some(0x91) => self.state = State::OpenPacket { left: 4 },
                    Some(0x00..=0x8F | 0x92) => self.state = State::Open,
                    _ => return Err("JPEG 2000 data hold a marker that may not be there"),
                }
                return Ok(Step::Took(1));
            }
            State::Padding => {
                eraser.erase(bytes);
                return Ok(Step::Took(bytes.len()));
            }
            _ => return self.collect(bytes, eraser),
        };
        let count = at_most(left, bytes);
        let left = left - count as u64;
        self.state = match (left, self.state) {
            (0, State::Data { .. }) => {
                self.in_tile = false;
                then
            }
            (0, _) => then,
            (left, State::Segment { .. }) => State::Segment { left },
            (left, State::Data { .. }) => State::Data { left },
            (left, _) => State::OpenPacket { left },
        };
        Ok(Step::Took(count))
    }

    /// Collects as many bytes as the state needs to go on; they stay as they are.
    fn collect(&mut self, bytes: &mut [u8], eraser: &mut Eraser) -> Result<Step, &'static str> {
        let want = match self.state {
            State::Begin
            | State::Soc
            | State::Marker
            | State::Length { .. }
            | State::Registration { .. } => 2,
            State::Signature => SIGNATURE.len(),
            // Behind its length: tile, length, part, parts.
            State::TileHeader | State::BoxHeader | State::BoxLength { .. } => 8,
            _ => return Err("JPEG 2000 stream is not understood"),
        };
        // Instead of the end mark there may be padding to the end of the fragment.
        if matches!(self.state, State::Marker)
            && self.have == 0
            && self.is_behind_tile()
            && bytes.first() == Some(&0)
        {
            self.state = State::Padding;
            eraser.part();
            return Ok(Step::Took(1));
        }
        let places = self.field.get_mut(self.have..want).unwrap_or_default();
        let count = places.len().min(bytes.len());
        places.iter_mut().zip(bytes.iter()).for_each(|(place, byte)| *place = *byte);
        self.have += count;
        if self.have < want {
            return Ok(Step::Took(count));
        }
        let begin = (self.position + count as u64).saturating_sub(want as u64);
        if !matches!(self.state, State::Begin) {
            self.have = 0;
        }
        let [f0, f1, f2, f3, f4, f5, f6, f7, ..] = self.field;
        let word = u16::from_be_bytes([f0, f1]);
        self.state = match self.state {
            State::Begin if word == SOC => {
                self.have = 0;
                State::Marker
            }
            // What was collected is the begin of the signature.
            State::Begin if word == 0 => State::Signature,
            State::Begin => return Err("it does not begin as JPEG 2000 does"),
            State::Signature if self.field.starts_with(&SIGNATURE) => State::BoxHeader,
            State::Signature => return Err("it does not begin as a JP2 file does"),
            State::BoxHeader => {
                let kind = [f4, f5, f6, f7];
                eraser.part();
                match u32::from_be_bytes([f0, f1, f2, f3]) {
                    1 => State::BoxLength { kind },
                    // To the end of the frame, which nobody knows; but the codestream ends itself.
                    0 => self.inside(kind, None)?,
                    length => {
                        self.inside(kind, Some(u64::from(length).checked_sub(8).ok_or(LENGTH)?))?
                    }
                }
            }
            State::BoxLength { kind } => {
                let length = u64::from_be_bytes([f0, f1, f2, f3, f4, f5, f6, f7]);
                self.inside(kind, Some(length.checked_sub(16).ok_or(LENGTH)?))?
            }
            State::Soc if word == SOC => State::Marker,
            State::Soc => return Err("JP2 box does not hold a codestream"),
            State::Marker => match word {
                EOC if !self.in_tile => return Ok(Step::Ended(count)),
                SOC if self.is_behind_tile() && begin == self.fragment => {
                    return Ok(Step::Again(count));
                }
                SOT if !self.in_tile && self.has_size => {
                    self.in_tile = true;
                    self.tile_end = Some(begin);
                    State::Length { marker: word }
                }
                SOD if self.in_tile => self.data(begin + 2)?,
                SIZ if !self.has_size => {
                    self.has_size = true;
                    State::Length { marker: word }
                }
                // Segments of Parts 1, 2 and 15. Between tile-parts there are none.
                0xFF50..=0xFF7F if self.has_size && !self.is_behind_tile() => {
                    State::Length { marker: word }
                }
                // Reserved markers that stand alone.
                0xFF30..=0xFF3F if self.has_size && !self.is_behind_tile() => State::Marker,
                _ => return Err("JPEG 2000 marker is not one that may be here"),
            },
            State::Length { marker } => {
                let left = u64::from(word).checked_sub(2).ok_or(LENGTH)?;
                match (marker, left) {
                    (SOT, 8) => State::TileHeader,
                    (SOT, _) | (COM, 0..=1) => return Err(LENGTH),
                    (COM, left) => State::Registration { left },
                    (_, 0) => State::Marker,
                    (_, left) => State::Segment { left },
                }
            }
            State::Registration { left: 2 } => State::Marker,
            State::Registration { left } => {
                eraser.part();
                State::Comment { left: left - 2 }
            }
            State::TileHeader => {
                let length = u64::from(u32::from_be_bytes([f2, f3, f4, f5]));
                // It counts from its marker.
                self.tile_end = match (self.tile_end, length) {
                    (_, 0) => None,
                    (begin, length) => begin.map(|begin| begin + length),
                };
                State::Marker
            }
            _ => return Err("JPEG 2000 stream is not understood"),
        };
        Ok(Step::Took(count))
    }

    /// The data of a tile-part, which begin here.
    fn data(&mut self, begin: u64) -> Result<State, &'static str> {
        let Some(end) = self.tile_end else { return Ok(State::Open) };
        let left =
            end.checked_sub(begin).ok_or("JPEG 2000 tile-part is shorter than its header")?;
        self.in_tile = left > 0;
        Ok(if left > 0 { State::Data { left } } else { State::Marker })
    }

    /// What is in a box of so many bytes behind its header.
    fn inside(&mut self, kind: [u8; 4], length: Option<u64>) -> Result<State, &'static str> {
        let keep = match &kind {
            // Behind it nothing is needed, and all goes.
            b"jp2c" => return Ok(State::Soc),
            // Its boxes are walked as if they were beside it.
            b"jp2h" => return Ok(State::BoxHeader),
            b"ftyp" | b"ihdr" | b"bpcc" | b"pclr" | b"cmap" | b"cdef" | b"res " | b"resc"
            | b"resd" => true,
            b"colr" => {
                // An enumerated colour space has seven bytes; more are a profile.
                self.profile |= length.is_none_or(|length| length > 7);
                true
            }
            _ => false,
        };
        match length {
            None => Err("JP2 box before the codestream has no end"),
            Some(0) => Ok(State::BoxHeader),
            Some(left) => Ok(State::Box { left, keep }),
        }
    }
}

const LENGTH: &str = "JPEG 2000 segment has a length that is none";

fn at_most(left: u64, bytes: &[u8]) -> usize {
    usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len())
}
