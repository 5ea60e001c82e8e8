//! A frame as a picture in grey, from its darkest value to its brightest.

use super::super::image::{Cell, Image, ImageError, Photometric};
use super::super::palette::Palette;
use super::{OcrError, PIXELS};
use crate::data_set::DataSet;

/// The most pixels of a frame that is looked at; a slide's tile or a mammogram has fewer.
const MAX_PIXELS: u64 = 1 << 26;
/// Frames with sides up to that are shown twice as large: letters of a device are 8 to 16 pixels high, and tesseract reads
/// best what has 30.
const SMALL: u32 = 1280;

/// A frame in grey. Shows what the frame shows: patients' data.
#[derive(Clone, Eq, PartialEq)]
pub struct Picture {
    width: u32,
    height: u32,
    grey: Vec<u8>,
}

impl std::fmt::Debug for Picture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Picture({} x {})", self.width, self.height)
    }
}

impl Picture {
    /// A frame of native pixel data, by its bytes ([`Image::frame_bytes`]). Colours become the mean of red, green and blue,
    /// in which red and blue letters are as clear as green ones.
    pub fn of(
        data_set: &DataSet,
        image: &Image,
        frame: u32,
        bytes: &[u8],
    ) -> Result<Self, OcrError> {
        let (width, height) = (u32::from(image.columns), u32::from(image.rows));
        let count = u64::from(width) * u64::from(height);
        if count > MAX_PIXELS {
            return Err(OcrError::TooLarge);
        }
        let range = image.frame_bytes(frame);
        let expected = range
            .map(|range| range.end - range.start)
            .ok_or_else(|| ImageError::inconsistent(PIXELS, "have no such frame"))?;
        if expected != bytes.len() as u64 {
            return Err(ImageError::Length { expected, found: bytes.len() as u64 }.into());
        }
        let bit = (image.frame_bits().wrapping_mul(frame.into()) % 8) as usize;
        let sample = |nth: usize| sample(image, bytes, nth, bit);
        let count = count as usize;
        let mean = |pixel: usize| {
            let of = |colour: usize| {
                sample(if image.by_plane { colour * count + pixel } else { pixel * 3 + colour })
            };
            (of(0) + of(1) + of(2)) / 3.0
        };
        let values: Vec<f64> = match (image.photometric, image.samples) {
            (Photometric::Monochrome1 | Photometric::Monochrome2, 1) => {
                (0..count).map(sample).collect()
            }
            (Photometric::Palette, 1) => {
                let palette = Palette::of(data_set, image.signed)?;
                let colour = |value: f64| {
                    let [r, g, b] = palette.colour(value as i64);
                    f64::from(r) + f64::from(g) + f64::from(b)
                };
                (0..count).map(|pixel| colour(sample(pixel))).collect()
            }
            (Photometric::Rgb, 3) => (0..count).map(mean).collect(),
            (Photometric::YbrFull, 3) if image.by_plane => (0..count).map(sample).collect(),
            (Photometric::YbrFull, 3) => (0..count).map(|pixel| sample(pixel * 3)).collect(),
            (Photometric::YbrFull422 | Photometric::YbrPartial422, 3) => {
                (0..count).map(|pixel| sample(pixel / 2 * 4 + pixel % 2)).collect()
            }
            _ => return Err(OcrError::Photometric),
        };
        Ok(Self { width, height, grey: window(&values) })
    }

    /// As a portable grey map, and how many times larger than the frame.
    pub(super) fn pgm(&self) -> (Vec<u8>, u32) {
        let scale = if self.width.max(self.height) <= SMALL { 2 } else { 1 };
        let (width, height) = (self.width * scale, self.height * scale);
        let mut pgm = format!("P5\n{width} {height}\n255\n").into_bytes();
        if scale == 1 {
            pgm.extend_from_slice(&self.grey);
            return (pgm, scale);
        }
        let at = |x: u32, y: u32| {
            let (x, y) = (x.min(self.width - 1), y.min(self.height - 1));
            u16::from(self.grey.get((y * self.width + x) as usize).copied().unwrap_or(0))
        };
        for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
            // The mean of the neighbours between which it lies.
            let (left, top) = (x / 2, y / 2);
            let (right, bottom) = (left + x % 2, top + y % 2);
            let sum = at(left, top) + at(right, top) + at(left, bottom) + at(right, bottom);
            pgm.push((sum / 4) as u8);
        }
        (pgm, scale)
    }
}

/// From the least value, which becomes 0, to the greatest, which becomes 255. What is no number is as the least.
#[expect(clippy::cast_sign_loss, reason = "it is from 0 to 255")]
fn window(values: &[f64]) -> Vec<u8> {
    let finite = || values.iter().copied().filter(|value| value.is_finite());
    let (least, greatest) =
        (finite().fold(f64::INFINITY, f64::min), finite().fold(f64::NEG_INFINITY, f64::max));
    let span = greatest - least;
    // Infinite if there is no span, or a span of more than there are numbers for: then all is black.
    let span = if span > 0.0 { span } else { f64::INFINITY };
    let grey = |value: &f64| {
        if value.is_finite() {
            ((value - least) / span * 255.0).round().clamp(0.0, 255.0) as u8
        } else {
            0
        }
    };
    values.iter().map(grey).collect()
}

/// A sample by its number in the frame; `bit`: where the first is in its byte.
fn sample(image: &Image, bytes: &[u8], nth: usize, bit: usize) -> f64 {
    let width = image.sample_bytes();
    if width == 0 {
        let at = bit + nth;
        return f64::from(bytes.get(at / 8).map_or(0, |byte| byte >> (at % 8) & 1));
    }
    let mut cell = [0; 8];
    let value = bytes.get(nth * width..).unwrap_or_default();
    cell.iter_mut().zip(value.iter().take(width)).for_each(|(place, byte)| *place = *byte);
    let [a, b, c, d, ..] = cell;
    match image.cell {
        Cell::Float => f64::from(f32::from_le_bytes([a, b, c, d])),
        Cell::Double => f64::from_le_bytes(cell),
        Cell::Integer => {
            // The lowest stored bit to the lowest, and what is above the highest away, with its sign where it has one.
            let above = 63 - u32::from(image.high_bit.min(63));
            let shifted = u64::from_le_bytes(cell) << above;
            let unused = 64 - u32::from(image.stored.clamp(1, 64));
            if image.signed {
                (shifted.cast_signed() >> unused) as f64
            } else {
                (shifted >> unused) as f64
            }
        }
    }
}
