//! From native Pixel Data to frames in JPEG-LS, without loss (PS3.5 8.2.3, A.4.3), and proven to be: each frame is decoded
//! again and compared, bit by bit, before anything is made of it.
//!
//! Whole cells are kept: where bits above Bits Stored are set, by a sign or by what older writers hid there, they are
//! encoded too. Colours go by pixel, as the table of PS3.5 8.2.3 has it.

use std::borrow::Cow;

use dicom_dictionary_std::tags;
use rayon::prelude::*;

use super::pixels::{Image, Shape};
use super::{MAX_DECODED, TranscodeError, jpeg_ls};

/// The frames of an image, encoded.
pub(super) fn frames(image: &Image, pixels: &[u8]) -> Result<Vec<Vec<u8>>, TranscodeError> {
    let shape = image.shape()?;
    check(&shape)?;
    let frame_bytes = u64::from(shape.rows)
        * u64::from(shape.columns)
        * u64::from(shape.samples)
        * u64::from(shape.bytes_per_sample());
    let length = frame_bytes.saturating_mul(image.frames()?.into());
    if length > MAX_DECODED {
        return Err(TranscodeError::TooLarge { bytes: length, limit: MAX_DECODED });
    }
    // A byte may be padding (PS3.5 8.1.1).
    if ![length, length.next_multiple_of(2)].contains(&(pixels.len() as u64)) {
        let why = "is not as long as the attributes say";
        return Err(TranscodeError::Inconsistent { tag: tags::PIXEL_DATA, why });
    }
    let pixels = pixels.get(..length as usize).unwrap_or_default();
    let header = jpeg_ls::Header {
        rows: shape.rows,
        columns: shape.columns,
        components: shape.samples as u8,
        precision: precision(&shape, image.stored(), pixels),
    };
    let by_plane = shape.samples > 1 && image.is_by_plane();
    let encode = |(nth, frame)| {
        encode(header, shape.bytes_per_sample().into(), frame, by_plane)
            .map_err(|why| TranscodeError::Encoder { frame: nth as u64 + 1, why })
    };
    // A single frame does not queue behind the many of another image.
    if pixels.len() as u64 == frame_bytes {
        return Ok(vec![encode((0, pixels))?]);
    }
    pixels.par_chunks_exact(frame_bytes as usize).enumerate().map(encode).collect()
}

/// What JPEG-LS can hold of DICOM (PS3.5 Table 8.2.3-1).
fn check(shape: &Shape) -> Result<(), TranscodeError> {
    let refuse = |tag| {
        let why = "is not one that is compressed";
        Err(TranscodeError::Inconsistent { tag, why })
    };
    if !matches!(shape.allocated, 8 | 16) {
        return refuse(tags::BITS_ALLOCATED);
    }
    match (shape.samples, shape.photometric.as_str()) {
        (1, "MONOCHROME1" | "MONOCHROME2" | "PALETTE COLOR") | (3, "RGB" | "YBR_FULL") => Ok(()),
        (1 | 3, _) => refuse(tags::PHOTOMETRIC_INTERPRETATION),
        _ => refuse(tags::SAMPLES_PER_PIXEL),
    }
}

/// Bits Stored, if no cell has more.
fn precision(shape: &Shape, stored: Option<u16>, pixels: &[u8]) -> u8 {
    let highest = if shape.allocated == 8 {
        pixels.iter().fold(0, |all, byte| all | byte).into()
    } else {
        pixels.as_chunks().0.iter().fold(0, |all, cell| all | u16::from_le_bytes(*cell))
    };
    // Older CharLS, and with it DCMTK, has other thresholds than the standard for fewer than 8 bits, and DCMTK refuses 8
    // bits or fewer of a sample that takes two bytes.
    let least = if shape.allocated == 8 { 8 } else { 9 };
    let used = u16::BITS as u16 - highest.leading_zeros() as u16;
    match stored.map(|stored| stored.max(least)) {
        Some(stored) if stored >= used && stored <= shape.allocated => stored as u8,
        _ => shape.allocated as u8,
    }
}

/// Encodes a frame, decodes it again, and compares.
pub(super) fn encode(
    header: jpeg_ls::Header,
    sample: usize,
    frame: &[u8],
    by_plane: bool,
) -> Result<Vec<u8>, &'static str> {
    let pixels = if by_plane {
        Cow::Owned(interleaved(frame, header.components.into(), sample))
    } else {
        Cow::Borrowed(frame)
    };
    let mut stream = jpeg_ls::encode(header, &pixels)?;
    if stream.len() % 2 == 1 {
        // A fill byte before the end mark makes a fragment even (PS3.5 A.4).
        stream.insert(stream.len() - 2, 0xFF);
    }
    let mut decoded = vec![0; pixels.len()];
    jpeg_ls::decode(&stream, header, &mut decoded)?;
    if decoded != *pixels {
        return Err("it decodes to other pixels");
    }
    Ok(stream)
}

/// Samples by pixel of samples by plane (PS3.3 C.7.6.3.1.3).
fn interleaved(planes: &[u8], count: usize, sample: usize) -> Vec<u8> {
    let mut pixels = vec![0; planes.len()];
    let plane_bytes = (planes.len() / count.max(1)).max(1);
    for (nth, plane) in planes.chunks_exact(plane_bytes).enumerate() {
        let places = pixels.chunks_exact_mut(sample).skip(nth).step_by(count);
        places.zip(plane.chunks_exact(sample)).for_each(|(to, from)| to.copy_from_slice(from));
    }
    pixels
}
