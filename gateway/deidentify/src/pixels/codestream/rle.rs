//! RLE Lossless frames (PS3.5 Annex G): a header of offsets, and segments of packed bytes.
//!
//! A segment is unpacked as far as counting goes; what follows the byte that completes the frame is slack and goes, as do
//! offsets that no segment has, and bytes between the header and the first segment.

use super::{Eraser, Step};

const HEADER: usize = 64;

pub(super) struct Walk {
    header: [u8; HEADER],
    position: u64,
    /// Bytes of the fragment.
    length: u64,
    /// Bytes that a segment unpacks to.
    pixels: u64,
    /// Where segments begin, the last behind all.
    starts: Vec<u64>,
    /// Where the segment that is being walked ends; 0 before the first.
    end: u64,
    unpacked: u64,
    /// Bytes of a run that come before the next control byte.
    literal: u64,
    begun: usize,
}

impl Walk {
    pub(super) fn new(pixels: u64, length: u64) -> Self {
        Self {
            header: [0; HEADER],
            position: 0,
            length,
            pixels,
            starts: Vec::new(),
            end: 0,
            unpacked: 0,
            literal: 0,
            begun: 0,
        }
    }

    pub(super) fn step(
        &mut self,
        bytes: &mut [u8],
        eraser: &mut Eraser,
    ) -> Result<Step, &'static str> {
        let count = if self.position < HEADER as u64 {
            self.header(bytes, eraser)?
        } else if self.position < self.end {
            self.segment(bytes, eraser)
        } else {
            self.between(bytes, eraser)?
        };
        self.position += count as u64;
        Ok(Step::Took(count))
    }

    /// Says that the fragment ends here.
    pub(super) fn finish(&self) -> Result<(), &'static str> {
        let complete = self.unpacked >= self.pixels && self.literal == 0;
        if self.position < HEADER as u64
            || self.begun == 0
            || self.begun < self.starts.len()
            || !complete
        {
            return Err("RLE segment is cut");
        }
        Ok(())
    }

    fn header(&mut self, bytes: &mut [u8], eraser: &mut Eraser) -> Result<usize, &'static str> {
        let at = self.position as usize;
        let places = self.header.get_mut(at..).unwrap_or_default();
        let count = places.len().min(bytes.len());
        places.iter_mut().zip(bytes.iter()).for_each(|(place, byte)| *place = *byte);
        let words = self.header.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word));
        let mut words = words.map(u64::from);
        let segments = words.next().unwrap_or_default() as usize;
        if at + count >= 4 {
            if !(1..=15).contains(&segments) {
                return Err("number of RLE segments is not one of 1 to 15");
            }
            let used = 4 + 4 * segments;
            // The number itself is known before anything goes that it does not count.
            eraser
                .erase(bytes.get_mut(used.max(at).min(at + count) - at..count).unwrap_or_default());
        }
        if at + count == HEADER {
            self.starts = words.take(segments).collect();
            let ascend = self.starts.windows(2).all(|pair| matches!(pair, [a, b] if a < b));
            let inside =
                self.starts.iter().all(|start| (HEADER as u64..self.length).contains(start));
            if !ascend || !inside {
                return Err("RLE segments are out of order or cut");
            }
            eraser.part();
        }
        Ok(count)
    }

    /// Behind the header, or at the end of a segment.
    fn between(&mut self, bytes: &mut [u8], eraser: &mut Eraser) -> Result<usize, &'static str> {
        if self.begun > 0 && (self.unpacked < self.pixels || self.literal > 0) {
            return Err("RLE segment is cut");
        }
        let start =
            self.starts.get(self.begun).copied().ok_or("RLE segments are out of order or cut")?;
        if self.position < start {
            let gap = usize::try_from(start - self.position).unwrap_or(usize::MAX).min(bytes.len());
            eraser.erase(bytes.get_mut(..gap).unwrap_or_default());
            return Ok(gap);
        }
        self.begun += 1;
        self.end = self.starts.get(self.begun).copied().unwrap_or(self.length);
        (self.unpacked, self.literal) = (0, 0);
        eraser.part();
        Ok(self.segment(bytes, eraser))
    }

    /// PS3.5 G.3.2.
    fn segment(&mut self, bytes: &mut [u8], eraser: &mut Eraser) -> usize {
        let left = usize::try_from(self.end - self.position).unwrap_or(usize::MAX);
        let count = left.min(bytes.len());
        let mut rest = bytes.get_mut(..count).unwrap_or_default();
        while let Some(control) = rest.first().copied() {
            if self.literal > 0 {
                let run = usize::try_from(self.literal).unwrap_or(usize::MAX).min(rest.len());
                self.literal -= run as u64;
                rest = rest.get_mut(run..).unwrap_or_default();
                continue;
            }
            if self.unpacked >= self.pixels {
                eraser.erase(rest);
                break;
            }
            (self.literal, self.unpacked) = match control {
                0..=127 => (u64::from(control) + 1, self.unpacked + u64::from(control) + 1),
                128 => (0, self.unpacked),
                129..=255 => (1, self.unpacked + 257 - u64::from(control)),
            };
            rest = rest.get_mut(1..).unwrap_or_default();
        }
        count
    }
}
