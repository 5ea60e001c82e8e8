//! JPEG and JPEG-LS streams (ISO/IEC 10918-1 Annex B, 14495-1 Annex C): marker segments, scans, end.
//!
//! Comments and application segments are emptied, but for what decoders go by: JFIF's and Adobe's numbers, which say what
//! the colours are, and the colour transform that some writers of JPEG-LS declare. A JFIF thumbnail is emptied, too.

use super::{Eraser, Step};

const SOI: u8 = 0xD8;
const EOI: u8 = 0xD9;
const SOS: u8 = 0xDA;
const COM: u8 = 0xFE;
/// Start of frame of JPEG-LS.
const SOF_LS: u8 = 0xF7;

pub(super) struct Walk {
    state: State,
    /// JPEG-LS stuffs single bits into scans, the other processes whole bytes.
    is_ls: bool,
    has_frame: bool,
}

#[derive(Clone, Copy)]
enum State {
    /// FFH and the code of the start.
    Begin {
        have: u8,
    },
    /// FFH of a marker.
    Marker,
    /// Its code, before which FFH may be repeated.
    Code,
    /// Two bytes that count themselves.
    Length {
        code: u8,
        high: Option<u8>,
    },
    Payload {
        code: u8,
        left: u16,
        at: u16,
        known: bool,
    },
    Scan,
    /// Behind FFH in a scan.
    ScanFf,
}

/// What begins a payload that is kept, and how many of its bytes are.
fn kept(code: u8) -> (&'static [u8], u16) {
    match code {
        0xE0 => (b"JFIF\0", 14),
        0xE8 => (b"mrfx", 5),
        0xEE => (b"Adobe", 12),
        _ => (b"", 0),
    }
}

impl Walk {
    pub(super) fn new() -> Self {
        Self { state: State::Begin { have: 0 }, is_ls: false, has_frame: false }
    }

    pub(super) fn step(
        &mut self,
        bytes: &mut [u8],
        eraser: &mut Eraser,
    ) -> Result<Step, &'static str> {
        let Some(first) = bytes.first().copied() else { return Ok(Step::Took(0)) };
        self.state = match self.state {
            State::Begin { have: 0 } if first == 0xFF => State::Begin { have: 1 },
            State::Begin { have: 1 } if first == SOI => State::Marker,
            State::Begin { .. } => return Err("it does not begin as JPEG does"),
            State::Marker if first == 0xFF => State::Code,
            State::Marker => return Err("something else than a marker is between JPEG segments"),
            State::Code if first == EOI => return Ok(Step::Ended(1)),
            State::Code => self.code(first)?,
            State::Length { code, high: None } => State::Length { code, high: Some(first) },
            State::Length { code, high: Some(high) } => {
                let left = u16::from_be_bytes([high, first]).checked_sub(2);
                let left = left.ok_or("JPEG segment has a length that is none")?;
                eraser.part();
                behind(code, left, 0, true)
            }
            State::Payload { code, left, at, known } => {
                let count = usize::from(left).min(bytes.len());
                let payload = bytes.get_mut(..count).unwrap_or_default();
                let known = payload_of(code, at, known, payload, eraser);
                self.state = behind(code, left - count as u16, at + count as u16, known);
                return Ok(Step::Took(count));
            }
            State::Scan => {
                // To the next FFH, which is most of every frame.
                let count = bytes.iter().position(|byte| *byte == 0xFF);
                self.state = count.map_or(State::Scan, |_| State::ScanFf);
                return Ok(Step::Took(count.map_or(bytes.len(), |count| count + 1)));
            }
            State::ScanFf => match first {
                0x00 | 0xD0..=0xD7 => State::Scan,
                0x01..=0x7F if self.is_ls => State::Scan,
                0xFF => State::ScanFf,
                EOI => return Ok(Step::Ended(1)),
                code => self.code(code)?,
            },
        };
        Ok(Step::Took(1))
    }

    fn code(&mut self, code: u8) -> Result<State, &'static str> {
        match code {
            0xFF => return Ok(State::Code),
            // Start of frame, but not DHT, JPG and DAC.
            0xC0..=0xCF if !matches!(code, 0xC4 | 0xC8 | 0xCC) => self.has_frame = true,
            SOF_LS => (self.has_frame, self.is_ls) = (true, true),
            SOS if !self.has_frame => return Err("JPEG scan comes before the header of its frame"),
            // Tables, restart interval, hierarchical progression, presets of JPEG-LS; application segments, comments.
            0xC4 | 0xCC | SOS..=0xEF | 0xF8 | COM => {}
            _ => return Err("JPEG marker is not one that may be here"),
        }
        Ok(State::Length { code, high: None })
    }
}

/// What comes when so many bytes of a payload are left.
fn behind(code: u8, left: u16, at: u16, known: bool) -> State {
    match (left, code) {
        (0, SOS) => State::Scan,
        (0, _) => State::Marker,
        _ => State::Payload { code, left, at, known },
    }
}

/// Empties what is not kept of a part of a payload that begins at `at` in it. `known`: it has begun as what is kept does;
/// returns whether it still does. What was kept of another beginning is a few letters of a name that is none.
fn payload_of(code: u8, at: u16, mut known: bool, payload: &mut [u8], eraser: &mut Eraser) -> bool {
    if !matches!(code, 0xE0..=0xEF | COM) {
        return true;
    }
    let (name, keep) = kept(code);
    let mut kept = 0;
    for (at, byte) in (usize::from(at)..usize::from(keep)).zip(payload.iter()) {
        known &= name.get(at).is_none_or(|letter| letter == byte);
        if !known {
            break;
        }
        kept += 1;
    }
    eraser.erase(payload.get_mut(kept..).unwrap_or_default());
    known
}
