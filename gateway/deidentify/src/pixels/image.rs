//! What native pixel data are by their attributes (PS3.3 C.7.6.3, C.7.6.6, C.7.6.24; PS3.5 8.1).
//!
//! Everything in this module goes by these numbers, so they are read once, in one place, and what is missing or cannot be
//! is refused: whoever guesses at a width blacks the wrong pixels. Knows nothing of what the pixels show.

use std::ops::Range;

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use thiserror::Error;

use crate::data_set::DataSet;

/// Why nobody can say what the pixel data are. Names attributes, never values.
#[derive(Clone, Debug, Error, Eq, PartialEq)]
#[non_exhaustive]
pub enum ImageError {
    /// It is Type 1 wherever there are pixel data.
    #[error("attribute {0} is needed to find pixels and is missing or empty")]
    Missing(Tag),
    /// It contradicts another, or is no value that it may have.
    #[error("attribute {tag} {why}")]
    Inconsistent {
        /// Which one.
        tag: Tag,
        /// In what way.
        why: &'static str,
    },
    /// The value is shorter than the attributes say, or longer by more than can be padding.
    #[error("pixel data have {found} bytes where the attributes make {expected}")]
    Length {
        /// By the attributes.
        expected: u64,
        /// Of the value.
        found: u64,
    },
}

impl ImageError {
    pub(super) fn inconsistent(tag: Tag, why: &'static str) -> Self {
        Self::Inconsistent { tag, why }
    }
}

/// Photometric Interpretation (0028,0004) (PS3.3 C.7.6.3.1.2), as far as it says how native pixels are laid out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Photometric {
    /// The lowest value is white.
    Monochrome1,
    /// The lowest value is black.
    Monochrome2,
    /// Values are indices into a palette.
    Palette,
    /// Red, green, blue.
    Rgb,
    /// Luminance from 0, chrominance around the middle.
    YbrFull,
    /// As [`Self::YbrFull`], two neighbours in a row sharing their chrominance.
    YbrFull422,
    /// As [`Self::YbrFull422`], with black at 16 (retired).
    YbrPartial422,
    /// What exists only inside a compressed stream, what is retired, and what is unknown.
    Other,
}

impl Photometric {
    fn of(text: &str) -> Self {
        match text {
            "MONOCHROME1" => Self::Monochrome1,
            "MONOCHROME2" => Self::Monochrome2,
            "PALETTE COLOR" => Self::Palette,
            "RGB" => Self::Rgb,
            "YBR_FULL" => Self::YbrFull,
            "YBR_FULL_422" => Self::YbrFull422,
            "YBR_PARTIAL_422" => Self::YbrPartial422,
            _ => Self::Other,
        }
    }

    /// Whether two pixels share their chrominance in native pixel data.
    pub fn is_subsampled(self) -> bool {
        matches!(self, Self::YbrFull422 | Self::YbrPartial422)
    }
}

/// What a cell holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cell {
    /// Whole numbers, in Pixel Data (7FE0,0010).
    Integer,
    /// IEEE 754 binary32, in Float Pixel Data (7FE0,0008).
    Float,
    /// IEEE 754 binary64, in Double Float Pixel Data (7FE0,0009).
    Double,
}

/// The shape of the pixel data of one instance.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Image {
    /// Rows (0028,0010), at least 1.
    pub rows: u16,
    /// Columns (0028,0011), at least 1.
    pub columns: u16,
    /// Samples per Pixel (0028,0002), at least 1.
    pub samples: u16,
    /// Number of Frames (0028,0008); 1 where it is not said.
    pub frames: u32,
    /// Bits Allocated (0028,0100).
    pub allocated: u16,
    /// Bits Stored (0028,0101), at most [`Self::allocated`].
    pub stored: u16,
    /// High Bit (0028,0102), from [`Self::stored`] - 1 to [`Self::allocated`] - 1.
    pub high_bit: u16,
    /// Pixel Representation (0028,0103) is 1.
    pub signed: bool,
    /// Planar Configuration (0028,0006) is 1: samples of a frame are together by colour.
    pub by_plane: bool,
    /// Photometric Interpretation (0028,0004).
    pub photometric: Photometric,
    /// What cells hold.
    pub cell: Cell,
}

impl Image {
    /// Reads the attributes of a data set (or of an icon's item) whose pixel data are in this attribute.
    pub fn of(data_set: &DataSet, pixel_data: Tag) -> Result<Self, ImageError> {
        let number = |tag| data_set.unsigned_short(tag).ok_or(ImageError::Missing(tag));
        let positive = |tag| positive(data_set, tag);
        let cell = match pixel_data {
            tags::FLOAT_PIXEL_DATA => Cell::Float,
            tags::DOUBLE_FLOAT_PIXEL_DATA => Cell::Double,
            _ => Cell::Integer,
        };
        let samples = positive(tags::SAMPLES_PER_PIXEL)?;
        let allocated = positive(tags::BITS_ALLOCATED)?;
        let width = match cell {
            Cell::Integer => &[1, 8, 16, 32][..],
            Cell::Float => &[32],
            Cell::Double => &[64],
        };
        if !width.contains(&allocated) || allocated == 1 && samples > 1 {
            let why = "is not a number of bits that these pixel data can have";
            return Err(ImageError::inconsistent(tags::BITS_ALLOCATED, why));
        }
        // Floating point has none of the three (PS3.3 C.7.6.24).
        let (stored, high_bit, signed) = match cell {
            Cell::Integer => (
                positive(tags::BITS_STORED)?,
                number(tags::HIGH_BIT)?,
                number(tags::PIXEL_REPRESENTATION)?,
            ),
            Cell::Float | Cell::Double => (allocated, allocated - 1, 0),
        };
        if stored > allocated {
            return Err(ImageError::inconsistent(tags::BITS_STORED, "is more than Bits Allocated"));
        }
        if high_bit >= allocated || high_bit + 1 < stored {
            return Err(ImageError::inconsistent(tags::HIGH_BIT, "has no room for Bits Stored"));
        }
        if signed > 1 || signed == 1 && samples > 1 {
            let why = "is not one that these pixel data can have";
            return Err(ImageError::inconsistent(tags::PIXEL_REPRESENTATION, why));
        }
        let by_plane = match (samples, data_set.unsigned_short(tags::PLANAR_CONFIGURATION)) {
            (1, _) | (_, Some(0)) => false,
            (_, Some(1)) => true,
            (_, None) => return Err(ImageError::Missing(tags::PLANAR_CONFIGURATION)),
            (_, Some(_)) => {
                return Err(ImageError::inconsistent(tags::PLANAR_CONFIGURATION, "is not 0 or 1"));
            }
        };
        let photometric = data_set.text(tags::PHOTOMETRIC_INTERPRETATION).unwrap_or_default();
        Ok(Self {
            rows: positive(tags::ROWS)?,
            columns: positive(tags::COLUMNS)?,
            samples,
            frames: frames(data_set)?,
            allocated,
            stored,
            high_bit,
            signed: signed == 1,
            by_plane,
            photometric: Photometric::of(&photometric),
            cell,
        })
    }

    /// Bits of one frame of native pixel data. Frames of single bits follow each other without a gap (PS3.5 8.1.1).
    pub fn frame_bits(&self) -> u64 {
        // Four numbers of 16 bits are at most 64 bits.
        u64::from(self.rows)
            * u64::from(self.columns)
            * u64::from(self.samples_per_cell())
            * u64::from(self.allocated)
    }

    /// Bytes of native pixel data, without the padding that makes their number even; `None` if no value can be so long.
    pub fn length(&self) -> Option<u64> {
        self.frame_bits().checked_mul(self.frames.into()).map(|bits| bits.div_ceil(8))
    }

    /// The bytes that hold a frame, counted from 0. Of single bits the first and the last may belong to neighbours, too.
    pub fn frame_bytes(&self, frame: u32) -> Option<Range<u64>> {
        let first = self.frame_bits().checked_mul(frame.into())?;
        let end = first.checked_add(self.frame_bits())?;
        (frame < self.frames).then_some(first / 8..end.div_ceil(8))
    }

    /// Whether a value of so many bytes is this image, and how many of its bytes are pixels.
    ///
    /// A byte more is padding (PS3.5 8.1.1). What is longer by less than a frame is what some writers leave behind the
    /// pixels, and is no part of the image. A whole frame more is a frame that the attributes do not count; and of shared
    /// chrominance any excess says that the writer did not share it.
    pub fn pixel_bytes(&self, found: u64) -> Result<u64, ImageError> {
        let expected = self.length().unwrap_or(u64::MAX);
        let error = ImageError::Length { expected, found };
        let excess = found.checked_sub(expected).ok_or(error.clone())?;
        let shared = self.photometric.is_subsampled();
        if excess > 1 && (shared || excess >= self.frame_bits().div_ceil(8)) {
            return Err(error);
        }
        Ok(expected)
    }

    /// Bytes of one sample; 0 for single bits.
    pub(super) fn sample_bytes(&self) -> usize {
        usize::from(self.allocated / 8)
    }

    /// Samples that a pixel takes on average in native pixel data.
    fn samples_per_cell(&self) -> u16 {
        if self.photometric.is_subsampled() && self.samples == 3 { 2 } else { self.samples }
    }
}

/// An attribute that is a number from 1.
pub(super) fn positive(data_set: &DataSet, tag: Tag) -> Result<u16, ImageError> {
    match data_set.unsigned_short(tag) {
        None => Err(ImageError::Missing(tag)),
        Some(0) => Err(ImageError::inconsistent(tag, "is 0")),
        Some(number) => Ok(number),
    }
}

/// Number of Frames (0028,0008); 1 where it is not said (PS3.3 C.7.6.6).
pub(super) fn frames(data_set: &DataSet) -> Result<u32, ImageError> {
    let frames = match data_set.text(tags::NUMBER_OF_FRAMES).as_deref() {
        None | Some("") => Some(1),
        Some(text) => text.trim_start_matches('+').parse().ok().filter(|frames| *frames > 0),
    };
    let why = "is not a number of frames";
    frames.ok_or(ImageError::inconsistent(tags::NUMBER_OF_FRAMES, why))
}
