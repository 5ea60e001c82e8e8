//! Pictures for browsers (PS3.18 8.3.5, 10.4.1.1.3): one frame of native pixel data, through modality and VOI transformation
//! (PS3.3 C.11.1, C.11.2) to eight bits, and into JPEG or PNG.
//!
//! A picture is to see what there is, not to report on: nothing is burnt into it, and it carries no name. What the attributes say
//! is checked against the bytes before memory is taken for it.

mod colour;
mod grey;
mod view;

use std::io::Cursor;

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use gantry_deidentify::data_set::{DataSet, Value};
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::imageops::{self, FilterType};
use image::{DynamicImage, GrayImage, ImageEncoder as _, RgbImage};
use thiserror::Error;

use crate::accept::Media;

pub use view::{BadView, Function, View, Viewport, Window};

/// The most pixels of a frame that is rendered.
pub const MOST_PIXELS: u64 = 1 << 25;

/// Why there is no picture.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum RenderError {
    /// An attribute that every image has is missing, or says what cannot be.
    #[error("attribute {0} is missing, or not what an image has")]
    Attribute(Tag),
    /// PS3.3 C.7.6.3.1.2 has more than are rendered here.
    #[error("its Photometric Interpretation is not one that is rendered")]
    Photometric,
    /// The frame has fewer bytes than its attributes say.
    #[error("the frame ends before its last pixel")]
    Short,
    /// More than [`MOST_PIXELS`].
    #[error("the frame has more than {MOST_PIXELS} pixels")]
    TooLarge,
    /// The view names a part of the image that it does not have.
    #[error("the part that was asked for is outside the image")]
    Outside,
    /// The encoder failed, for instance as JPEG has no sides beyond 65,535.
    #[error("the picture cannot be encoded")]
    Encoder,
}

/// What the attributes say of the cells of a frame (PS3.3 C.7.6.3).
#[derive(Clone, Copy, Debug)]
struct Cells {
    rows: u32,
    columns: u32,
    samples: u32,
    /// 1, 8, 16 or 32.
    allocated: u32,
    stored: u32,
    high: u32,
    signed: bool,
    planar: bool,
}

impl Cells {
    fn read(set: &DataSet) -> Result<Self, RenderError> {
        let number = |tag| set.unsigned_short(tag).map(u32::from);
        let must = |tag| number(tag).filter(|it| *it > 0).ok_or(RenderError::Attribute(tag));
        let allocated = must(tags::BITS_ALLOCATED)?;
        if !matches!(allocated, 1 | 8 | 16 | 32) {
            return Err(RenderError::Attribute(tags::BITS_ALLOCATED));
        }
        let stored = number(tags::BITS_STORED).unwrap_or(allocated);
        if !(1..=allocated).contains(&stored) {
            return Err(RenderError::Attribute(tags::BITS_STORED));
        }
        let high = number(tags::HIGH_BIT).unwrap_or(stored - 1);
        if !(stored - 1..allocated).contains(&high) {
            return Err(RenderError::Attribute(tags::HIGH_BIT));
        }
        let cells = Self {
            rows: must(tags::ROWS)?,
            columns: must(tags::COLUMNS)?,
            samples: number(tags::SAMPLES_PER_PIXEL).unwrap_or(1),
            allocated,
            stored,
            high,
            signed: number(tags::PIXEL_REPRESENTATION) == Some(1),
            planar: number(tags::PLANAR_CONFIGURATION) == Some(1),
        };
        if u64::from(cells.rows) * u64::from(cells.columns) > MOST_PIXELS {
            return Err(RenderError::TooLarge);
        }
        Ok(cells)
    }

    fn pixels(&self) -> usize {
        self.rows as usize * self.columns as usize
    }

    /// The cells of a frame, of the bits that are stored, with their sign; as many as there are samples.
    fn values(&self, frame: &[u8]) -> Result<Vec<i32>, RenderError> {
        let count = self.pixels() * self.samples as usize;
        let shift = self.high + 1 - self.stored;
        let unused = 32 - self.stored;
        let value = |cell: u32| {
            let cell = cell >> shift << unused;
            // Not as it is in C: a shift of a signed number keeps its sign.
            if self.signed { cell.cast_signed() >> unused } else { (cell >> unused).cast_signed() }
        };
        let values: Vec<i32> = match self.allocated {
            1 => {
                let bits = frame.iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1));
                bits.take(count).map(i32::from).collect()
            }
            8 => frame.iter().take(count).map(|cell| value(u32::from(*cell))).collect(),
            16 => {
                let cells = frame.as_chunks::<2>().0.iter().take(count);
                cells.map(|cell| value(u32::from(u16::from_le_bytes(*cell)))).collect()
            }
            _ => {
                let cells = frame.as_chunks::<4>().0.iter().take(count);
                cells.map(|cell| value(u32::from_le_bytes(*cell))).collect()
            }
        };
        if values.len() < count { Err(RenderError::Short) } else { Ok(values) }
    }
}

/// A value as it is, which in numbers may well end with zeros.
fn raw(set: &DataSet, tag: Tag) -> Option<&[u8]> {
    match &set.get(tag)?.value {
        Value::Bytes(bytes) => Some(bytes),
        Value::Items(_) | Value::Fragments(_) => None,
    }
}

/// A brightness of 0 to 255, of what may be beyond both ends.
#[expect(clippy::cast_sign_loss, reason = "it is clamped")]
fn byte(brightness: f64) -> u8 {
    brightness.round().clamp(0.0, 255.0) as u8
}

/// Renders a frame, the first being 0. `set` is the data set around it; `frame` its native cells in little endian.
pub fn picture(
    set: &DataSet,
    number: u32,
    frame: &[u8],
    view: &View,
) -> Result<DynamicImage, RenderError> {
    let cells = Cells::read(set)?;
    let photometric = set.text(tags::PHOTOMETRIC_INTERPRETATION).unwrap_or_default();
    let (columns, rows) = (cells.columns, cells.rows);
    let picture = match photometric.as_str() {
        "MONOCHROME1" | "MONOCHROME2" if cells.samples == 1 => {
            let grey = grey::rendered(set, number as usize, &cells, frame, view.window)?;
            GrayImage::from_raw(columns, rows, grey).map(DynamicImage::ImageLuma8)
        }
        "PALETTE COLOR" if cells.samples == 1 => {
            let colours = colour::palette(set, &cells.values(frame)?)?;
            RgbImage::from_raw(columns, rows, colours).map(DynamicImage::ImageRgb8)
        }
        "RGB" | "YBR_FULL" | "YBR_FULL_422" if cells.samples == 3 => {
            let colours = colour::direct(&photometric, &cells, frame)?;
            RgbImage::from_raw(columns, rows, colours).map(DynamicImage::ImageRgb8)
        }
        _ => return Err(RenderError::Photometric),
    };
    let picture = picture.ok_or(RenderError::Short)?;
    match &view.viewport {
        Some(viewport) => fitted(&picture, viewport),
        None => Ok(picture),
    }
}

/// The part of a picture that was asked for, as large as fits into the viewport with its proportions (PS3.18 8.3.5.1.3).
fn fitted(picture: &DynamicImage, viewport: &Viewport) -> Result<DynamicImage, RenderError> {
    let (x, y, width, height) = viewport.part.unwrap_or((0, 0, picture.width(), picture.height()));
    let fits = |begin: u32, length: u32, whole: u32| {
        length > 0 && begin.checked_add(length).is_some_and(|end| end <= whole)
    };
    if !fits(x, width, picture.width()) || !fits(y, height, picture.height()) {
        return Err(RenderError::Outside);
    }
    let part = picture.crop_imm(x, y, width, height);
    // Proportions first: the side that would be too long decides.
    let by_width = u64::from(viewport.width) * u64::from(height)
        <= u64::from(viewport.height) * u64::from(width);
    let scaled = |side: u32, into: u32, of: u32| {
        let scaled = u64::from(side) * u64::from(into) / u64::from(of);
        u32::try_from(scaled).unwrap_or(into).max(1)
    };
    let (width, height) = if by_width {
        (viewport.width, scaled(height, viewport.width, width))
    } else {
        (scaled(width, viewport.height, height), viewport.height)
    };
    Ok(match part {
        DynamicImage::ImageLuma8(grey) => {
            DynamicImage::ImageLuma8(imageops::resize(&grey, width, height, FilterType::Triangle))
        }
        other => DynamicImage::ImageRgb8(imageops::resize(
            &other.to_rgb8(),
            width,
            height,
            FilterType::Triangle,
        )),
    })
}

/// The picture as JPEG or PNG. `quality`: 1 to 100, of JPEG alone.
pub fn encoded(picture: &DynamicImage, media: Media, quality: u8) -> Result<Vec<u8>, RenderError> {
    let mut out = Cursor::new(Vec::new());
    let (width, height, colour) = (picture.width(), picture.height(), picture.color());
    let written = if media == Media::Png {
        PngEncoder::new(&mut out).write_image(picture.as_bytes(), width, height, colour.into())
    } else {
        let encoder = JpegEncoder::new_with_quality(&mut out, quality);
        encoder.write_image(picture.as_bytes(), width, height, colour.into())
    };
    written.map_err(|_| RenderError::Encoder)?;
    Ok(out.into_inner())
}

#[cfg(test)]
mod tests;
