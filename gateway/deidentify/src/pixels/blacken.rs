//! Blacks boxes in native pixel data, in stored values, in every frame (PS3.15 E.3.1).
//!
//! The value passes in order and in pieces of any size, so a loop of gigabytes costs what its header costs; [`Native::finish`]
//! says that all of it came, so no frame at the end was forgotten. In the same pass go the bits that are no part of a
//! pixel, where overlay planes used to be kept (retired; PS3.5 8.1.2), and the bytes behind the last pixel.
//!
//! Of a signed image bits above Bits Stored repeat the sign rather than being 0: they hold nothing then either, and a
//! reader that takes the whole cell for the value, as many do, still sees black. Where the interpretation of values is
//! inverted elsewhere, by a presentation LUT or a window, what was blacked may be shown in white, but is as uniform.
//!
//! Does not know what is in a box, nor whether boxes are enough: [`super::ocr`] looks at what is left.

use std::ops::Range;

use dicom_dictionary_std::tags;
use thiserror::Error;

use super::image::{Cell, Image, ImageError, Photometric};
use super::palette::Palette;
use crate::data_set::DataSet;

/// A rectangle of pixels; x to the right and y down, from 0 in the first column and row.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Area {
    /// First column.
    pub x: u32,
    /// First row.
    pub y: u32,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

impl Area {
    /// The part of it that lies in an image of so many rows and columns, if there is one.
    pub fn within(self, rows: u16, columns: u16) -> Option<Self> {
        let width = self.width.min(u32::from(columns).checked_sub(self.x)?);
        let height = self.height.min(u32::from(rows).checked_sub(self.y)?);
        (width > 0 && height > 0).then_some(Self { width, height, ..self })
    }
}

/// Why pixels cannot be blacked.
#[derive(Clone, Debug, Error, Eq, PartialEq)]
#[non_exhaustive]
pub enum BlackenError {
    /// The attributes do not say where pixels are.
    #[error("pixels cannot be found")]
    Image(#[from] ImageError),
    /// In this Photometric Interpretation there is no black to write into native pixel data.
    #[error("photometric interpretation is not one that native pixel data have")]
    Photometric,
    /// Nobody can say which entry is the darkest.
    #[error("palette cannot be read")]
    Palette(#[source] ImageError),
    /// A piece is missing, or came twice. The caller's mistake.
    #[error("bytes from {found} came where those from {expected} were due")]
    Disorder {
        /// Where the next piece begins.
        expected: u64,
        /// Where this one did.
        found: u64,
    },
    /// More or fewer bytes came than were announced.
    #[error("{found} bytes of pixel data came where {expected} were announced")]
    Unfinished {
        /// Announced.
        expected: u64,
        /// Came.
        found: u64,
    },
}

/// What was done; numbers only, for reports.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Blacked {
    /// Frames in which boxes were blacked; all of them.
    pub frames: u32,
    /// Pixels of one frame that were blacked.
    pub pixels_per_frame: u64,
    /// Bytes of cells in which bits beside the pixel were not 0 (of signed pixels: not the sign), and are now.
    pub unused_bits: u64,
    /// Bytes behind the last pixel that were not 0 and are now.
    pub trailing_bytes: u64,
}

/// Native pixel data on their way past.
pub struct Native {
    image: Image,
    rows: Vec<Band>,
    pattern: Vec<u8>,
    /// Bytes of pixels; what follows in the value is not the image's.
    pixels: u64,
    length: u64,
    next: u64,
    /// The cell that the last piece ended in: its bytes so far.
    cell_before: [u8; 4],
    done: Blacked,
}

/// Rows that have the same columns blacked.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Band {
    rows: Range<u64>,
    /// Apart from each other, and ascending.
    columns: Vec<Range<u64>>,
}

impl std::fmt::Debug for Native {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Native").field("next", &self.next).finish_non_exhaustive()
    }
}

impl Native {
    /// Prepares to black `boxes` in the native pixel data of `data_set`, whose value has `length` bytes. Boxes are clipped
    /// to the image, and widened to whole pairs where pixels share their chrominance. Without boxes only bits and bytes
    /// that are no pixels go.
    pub fn new(
        data_set: &DataSet,
        image: &Image,
        boxes: &[Area],
        length: u64,
    ) -> Result<Self, BlackenError> {
        let pixels = image.pixel_bytes(length)?;
        let pattern = if boxes.is_empty() {
            Vec::new()
        } else {
            black(image, || Palette::of(data_set, image.signed))?
        };
        if image.photometric.is_subsampled() {
            let tag = tags::PHOTOMETRIC_INTERPRETATION;
            let pairs = image.columns.is_multiple_of(2) && image.samples == 3 && !image.by_plane;
            if !pairs || image.allocated < 8 {
                let why = "asks for whole pairs of three samples, by pixel";
                return Err(ImageError::inconsistent(tag, why).into());
            }
        }
        let rows = bands(image, boxes);
        let pixels_per_frame = rows
            .iter()
            .map(|band| {
                let columns: u64 =
                    band.columns.iter().map(|columns| columns.end - columns.start).sum();
                (band.rows.end - band.rows.start) * columns
            })
            .sum();
        let frames = if pixels_per_frame > 0 { image.frames } else { 0 };
        Ok(Self {
            image: image.clone(),
            rows,
            pattern,
            pixels,
            length,
            next: 0,
            cell_before: [0; 4],
            done: Blacked { frames, pixels_per_frame, ..Blacked::default() },
        })
    }

    /// Takes the next bytes of the value, which begin at `offset` in it, and cleans them in place.
    pub fn feed(&mut self, offset: u64, piece: &mut [u8]) -> Result<(), BlackenError> {
        if offset != self.next {
            return Err(BlackenError::Disorder { expected: self.next, found: offset });
        }
        let end = offset.saturating_add(piece.len() as u64);
        if end > self.length {
            return Err(BlackenError::Unfinished { expected: self.length, found: end });
        }
        let ours = usize::try_from(self.pixels.saturating_sub(offset)).unwrap_or(usize::MAX);
        let (pixels, behind) = piece.split_at_mut(ours.min(piece.len()));
        self.clear_unused_bits(offset, pixels);
        self.blacken(offset, pixels);
        self.end_bits(offset, pixels);
        for byte in behind.iter_mut().filter(|byte| **byte != 0) {
            *byte = 0;
            self.done.trailing_bytes += 1;
        }
        self.next = end;
        Ok(())
    }

    /// Says that the value ends here.
    pub fn finish(self) -> Result<Blacked, BlackenError> {
        if self.next != self.length {
            return Err(BlackenError::Unfinished { expected: self.length, found: self.next });
        }
        Ok(self.done)
    }

    /// Bits of a cell that are no part of the pixel: above High Bit, and below the lowest stored one.
    fn clear_unused_bits(&mut self, offset: u64, pixels: &mut [u8]) {
        let Image { stored, allocated, high_bit, signed, cell, .. } = self.image;
        let width = self.image.sample_bytes();
        if cell != Cell::Integer || stored == allocated || !(1..=4).contains(&width) {
            return;
        }
        let keep = (mask(stored) << (high_bit + 1 - stored)).to_le_bytes();
        let sign_byte = usize::from(high_bit / 8);
        let sign_bit = 1_u8 << (high_bit % 8);
        // What the sign fills: above High Bit.
        let above = (!mask(high_bit + 1)).to_le_bytes();
        let mut at = (offset % width as u64) as usize;
        let mut before = self.cell_before;
        let mut hidden = 0;
        if !signed {
            // Every byte for itself, and no cell that a piece was cut in matters.
            let keep = keep.get(..width).unwrap_or_default();
            for (byte, keep) in pixels.iter_mut().zip(keep.iter().cycle().skip(at)) {
                hidden += u64::from(*byte & !keep != 0);
                *byte &= keep;
            }
            self.done.unused_bits += hidden;
            return;
        }
        for byte in pixels {
            let (Some(keep), Some(above)) = (keep.get(at), above.get(at)) else { return };
            // The byte with the sign is this one, or came before it: bytes are in little endian.
            let sign =
                if at == sign_byte { *byte } else { before.get(sign_byte).copied().unwrap_or(0) };
            let negative = at >= sign_byte && sign & sign_bit != 0;
            let clean = *byte & keep | if negative { *above } else { 0 };
            hidden += u64::from(clean != *byte);
            *byte = clean;
            if let Some(place) = before.get_mut(at) {
                *place = clean;
            }
            at = (at + 1) % width;
        }
        self.cell_before = before;
        self.done.unused_bits += hidden;
    }

    fn blacken(&self, offset: u64, pixels: &mut [u8]) {
        if self.rows.is_empty() || pixels.is_empty() {
            return;
        }
        let end = offset + pixels.len() as u64;
        if self.image.allocated == 1 {
            return self.blacken_bits(offset, pixels);
        }
        let unit = self.pattern.len() as u64;
        let (row_pixels, unit_pixels) = (
            u64::from(self.image.columns),
            if self.image.photometric.is_subsampled() { 2 } else { 1 },
        );
        let row_bytes = row_pixels / unit_pixels * unit;
        let rows = u64::from(self.image.rows);
        let planes = if self.image.by_plane { u64::from(self.image.samples) } else { 1 };
        // Planes are blacked alike, so a plane is a picture of its own. Colours by plane have the same black, or a pattern
        // for each, which `plane_pattern` tells.
        let picture = row_bytes * rows;
        let picture = if planes > 1 { picture / planes } else { picture };
        let (unit, row_bytes) =
            if planes > 1 { (unit / planes, row_bytes / planes) } else { (unit, row_bytes) };
        for nth in offset / picture..=(end - 1) / picture {
            let plane = (nth % planes * unit) as usize;
            let pattern = self.pattern.get(plane..plane + unit as usize).unwrap_or_default();
            for band in &self.rows {
                let start = nth * picture;
                // Rows of the band that have bytes in the piece.
                let first = band.rows.start.max(offset.saturating_sub(start) / row_bytes);
                let last = band.rows.end.min(end.saturating_sub(start).div_ceil(row_bytes));
                for row in first..last {
                    let start = start + row * row_bytes;
                    for columns in &band.columns {
                        let from = start + columns.start / unit_pixels * unit;
                        let to = start + columns.end / unit_pixels * unit;
                        fill(pixels, offset, from..to, pattern);
                    }
                }
            }
        }
    }

    /// Single bits: the first pixel is the lowest bit, and neither rows nor frames begin at a byte (PS3.5 8.1.1).
    fn blacken_bits(&self, offset: u64, pixels: &mut [u8]) {
        let frame = self.image.frame_bits();
        let columns = u64::from(self.image.columns);
        let (from, to) = (offset * 8, (offset + pixels.len() as u64) * 8);
        let set = self.pattern.first().is_some_and(|byte| *byte != 0);
        for nth in from / frame..=((to - 1) / frame).min(u64::from(self.image.frames) - 1) {
            for band in &self.rows {
                for row in band.rows.clone() {
                    let start = nth * frame + row * columns;
                    for range in &band.columns {
                        let range = (start + range.start).max(from)..(start + range.end).min(to);
                        for bit in range {
                            let bit = bit - from;
                            let Some(byte) = pixels.get_mut((bit / 8) as usize) else { break };
                            if set {
                                *byte |= 1 << (bit % 8);
                            } else {
                                *byte &= !(1 << (bit % 8));
                            }
                        }
                    }
                }
            }
        }
    }

    /// Bits behind the last pixel, in its byte.
    fn end_bits(&mut self, offset: u64, pixels: &mut [u8]) {
        let last = (self.image.frame_bits() * u64::from(self.image.frames)) % 8;
        let ends_here = self.pixels > 0 && offset + pixels.len() as u64 == self.pixels;
        if last > 0
            && ends_here
            && let Some(byte) = pixels.last_mut()
        {
            let clean = *byte & ((1 << last) - 1);
            self.done.trailing_bytes += u64::from(clean != *byte);
            *byte = clean;
        }
    }
}

/// Writes a pattern into a range of the value, as far as the piece that begins at `offset` holds it. The pattern begins
/// with the range.
fn fill(piece: &mut [u8], offset: u64, range: Range<u64>, pattern: &[u8]) {
    let end = offset + piece.len() as u64;
    let (from, to) = (range.start.max(offset), range.end.min(end));
    if from >= to {
        return;
    }
    let bytes = piece.get_mut((from - offset) as usize..(to - offset) as usize).unwrap_or_default();
    match pattern {
        [] => {}
        [first, rest @ ..] if rest.iter().all(|byte| byte == first) => bytes.fill(*first),
        _ => {
            let skip = ((from - range.start) % pattern.len() as u64) as usize;
            for (byte, black) in bytes.iter_mut().zip(pattern.iter().cycle().skip(skip)) {
                *byte = *black;
            }
        }
    }
}

/// So many bits, from the lowest.
fn mask(bits: u16) -> u32 {
    u32::MAX.checked_shr(32 - u32::from(bits.min(32))).unwrap_or(0)
}

/// The bytes of a black pixel, or of a black pair of pixels that share their chrominance.
fn black(
    image: &Image,
    palette: impl FnOnce() -> Result<Palette, ImageError>,
) -> Result<Vec<u8>, BlackenError> {
    match image.cell {
        Cell::Float | Cell::Double if image.samples == 1 => {
            return Ok(vec![0; image.sample_bytes()]);
        }
        Cell::Float | Cell::Double => return Err(BlackenError::Photometric),
        Cell::Integer => {}
    }
    let (lowest, highest) = image.range();
    let middle = 1_i64 << (image.stored - 1);
    let samples = match (image.photometric, image.samples) {
        (Photometric::Monochrome1, 1) => vec![highest],
        (Photometric::Monochrome2, 1) => vec![lowest],
        (Photometric::Palette, 1) => {
            let palette = palette().map_err(BlackenError::Palette)?;
            let why = "has no entry that a pixel can have";
            let none = || {
                let tag = tags::RED_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR;
                BlackenError::Palette(ImageError::inconsistent(tag, why))
            };
            vec![palette.darkest(lowest, highest).ok_or_else(none)?]
        }
        (Photometric::Rgb, 3) => vec![0; 3],
        (Photometric::YbrFull, 3) => vec![0, middle, middle],
        (Photometric::YbrFull422, 3) => vec![0, 0, middle, middle],
        (Photometric::YbrPartial422, 3) if image.stored >= 8 => {
            let black = 16 << (image.stored - 8);
            vec![black, black, middle, middle]
        }
        _ => return Err(BlackenError::Photometric),
    };
    if image.allocated == 1 {
        return Ok(samples.iter().map(|sample| u8::from(*sample != 0)).collect());
    }
    let width = image.sample_bytes();
    Ok(samples
        .into_iter()
        .flat_map(|sample| image.encode(sample).into_iter().take(width))
        .collect())
}

impl Image {
    /// The lowest and the highest value that a pixel can have.
    pub(super) fn range(&self) -> (i64, i64) {
        let all = 1_i64 << self.stored.min(32);
        if self.signed { (-all / 2, all / 2 - 1) } else { (0, all - 1) }
    }

    /// The cell of a stored value, little endian; above High Bit is its sign.
    fn encode(&self, value: i64) -> [u8; 8] {
        (value << (self.high_bit + 1 - self.stored)).to_le_bytes()
    }
}

/// The boxes as rows with the same columns.
fn bands(image: &Image, boxes: &[Area]) -> Vec<Band> {
    let pair = u64::from(image.photometric.is_subsampled()) + 1;
    let boxes: Vec<(Range<u64>, Range<u64>)> = boxes
        .iter()
        .filter_map(|area| area.within(image.rows, image.columns))
        .map(|Area { x, y, width, height }| {
            let (x, y) = (u64::from(x), u64::from(y));
            let right = (x + u64::from(width)).next_multiple_of(pair);
            (y..y + u64::from(height), x / pair * pair..right)
        })
        .collect();
    let mut edges: Vec<u64> = boxes.iter().flat_map(|(rows, _)| [rows.start, rows.end]).collect();
    edges.sort_unstable();
    edges.dedup();
    edges
        .windows(2)
        .filter_map(|edge| {
            let [start, end] = *edge else { return None };
            let covers = |rows: &Range<u64>| rows.start <= start && end <= rows.end;
            let columns = boxes.iter().filter(|(rows, _)| covers(rows));
            let columns = union(columns.map(|(_, columns)| columns.clone()).collect());
            (!columns.is_empty()).then_some(Band { rows: start..end, columns })
        })
        .collect()
}

/// Ranges that touch or overlap become one.
pub(super) fn union(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_unstable_by_key(|range| range.start);
    let mut apart: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match apart.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => apart.push(range),
        }
    }
    apart
}

#[cfg(test)]
mod tests;
