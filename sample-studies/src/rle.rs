//! RLE Lossless (PS3.5 Annex G).

use dicom_core::VR;
use dicom_dictionary_std::tags;

use crate::data_set::{DataSet, Value};

/// The data set with its pixel data as RLE frames; `None` if it has no native pixel data.
pub(crate) fn compressed(set: &DataSet) -> Option<DataSet> {
    let pixels = set.value(tags::PIXEL_DATA)?;
    let columns = usize::from(set.u16_at(tags::COLUMNS)?);
    let rows = usize::from(set.u16_at(tags::ROWS)?);
    let samples = usize::from(set.u16_at(tags::SAMPLES_PER_PIXEL)?);
    let bytes_per_sample = usize::from(set.u16_at(tags::BITS_ALLOCATED)?) / 8;
    let bytes_per_pixel = samples * bytes_per_sample;
    let frame_length = rows * columns * bytes_per_pixel;
    if frame_length == 0 {
        return None;
    }

    let mut offsets = Vec::new();
    let mut offset = 0_u32;
    let mut fragments = vec![Vec::new()];
    for pixels in pixels.chunks_exact(frame_length) {
        let fragment = frame(pixels, columns, samples, bytes_per_sample);
        offsets.extend(offset.to_le_bytes());
        offset += 8 + fragment.len() as u32; // the offset counts the item headers (PS3.5 A.4)
        fragments.push(fragment);
    }
    if let Some(table) = fragments.first_mut() {
        *table = offsets;
    }
    let mut set = set.clone();
    if samples > 1 {
        set.u16(tags::PLANAR_CONFIGURATION, 1); // RLE stores plane by plane
    }
    set.put(tags::PIXEL_DATA, VR::OB, Value::Fragments(fragments));
    Some(set)
}

/// One frame: a header of 16 numbers, then one segment per byte of a pixel, high bytes first (G.2, G.5).
fn frame(pixels: &[u8], columns: usize, samples: usize, bytes_per_sample: usize) -> Vec<u8> {
    let bytes_per_pixel = samples * bytes_per_sample;
    let mut header = vec![samples as u32 * bytes_per_sample as u32];
    let mut segments = Vec::with_capacity(pixels.len());
    for sample in 0..samples {
        for byte in (0..bytes_per_sample).rev() {
            header.push(64 + segments.len() as u32);
            let plane: Vec<u8> = pixels
                .iter()
                .skip(sample * bytes_per_sample + byte)
                .step_by(bytes_per_pixel)
                .copied()
                .collect();
            for row in plane.chunks(columns) {
                pack_bits(row, &mut segments); // a run must not cross the end of a row (G.3.1)
            }
            if segments.len() % 2 == 1 {
                segments.push(0);
            }
        }
    }
    header.resize(16, 0);
    let mut frame: Vec<u8> = header.into_iter().flat_map(u32::to_le_bytes).collect();
    frame.extend(segments);
    frame
}

/// Runs of 2 to 128 equal bytes, and literal stretches of 1 to 128 (G.3.1).
fn pack_bits(mut row: &[u8], out: &mut Vec<u8>) {
    while let Some(first) = row.first() {
        let run = row.iter().take(128).take_while(|byte| *byte == first).count();
        if run >= 2 {
            out.extend([(257 - run) as u8, *first]);
            row = row.get(run..).unwrap_or_default();
            continue;
        }
        // A literal stretch ends where three equal bytes begin: a run of two inside it would save nothing.
        let until_run = row
            .windows(3)
            .take(128)
            .position(|three| matches!(three, [a, b, c] if a == b && b == c));
        let length = until_run.unwrap_or(row.len()).clamp(1, 128);
        let (literal, rest) = row.split_at(length.min(row.len()));
        out.push((literal.len() - 1) as u8);
        out.extend_from_slice(literal);
        row = rest;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a panic is how a test fails

    use super::*;
    use crate::random::Random;

    /// G.3.2, written apart from the encoder.
    fn unpack(mut bytes: &[u8], length: usize) -> Vec<u8> {
        let mut out = Vec::new();
        while out.len() < length {
            let control = i8::from_le_bytes([bytes[0]]);
            if control >= 0 {
                let end = 2 + usize::try_from(control).unwrap();
                out.extend(&bytes[1..end]);
                bytes = &bytes[end..];
            } else if control == i8::MIN {
                bytes = &bytes[1..];
            } else {
                out.extend(vec![bytes[1]; usize::try_from(1 - i32::from(control)).unwrap()]);
                bytes = &bytes[2..];
            }
        }
        out
    }

    #[test]
    fn every_row_unpacks_to_itself() {
        let mut random = Random::new(1, "rle");
        for length in [1, 2, 3, 127, 128, 129, 130, 256, 300, 512] {
            for kinds in [1, 2, 3, 200] {
                let row: Vec<u8> = (0..length).map(|_| random.below(kinds) as u8).collect();
                let mut packed = Vec::new();

                pack_bits(&row, &mut packed);

                assert_eq!(unpack(&packed, row.len()), row);
                assert!(packed.len() <= row.len() + row.len().div_ceil(128), "G.3.1");
            }
        }
    }

    #[test]
    fn sixteen_bits_become_a_high_and_a_low_segment() {
        let mut set = DataSet::new();
        set.u16(tags::ROWS, 2)
            .u16(tags::COLUMNS, 3)
            .u16(tags::SAMPLES_PER_PIXEL, 1)
            .u16(tags::BITS_ALLOCATED, 16);
        let pixels: Vec<u8> =
            [0x0102_u16, 0x0103, 0x0104, 0xFF00, 0xFF00, 0xFF01].map(u16::to_le_bytes).concat();
        set.bytes(tags::PIXEL_DATA, VR::OW, pixels);

        let compressed = compressed(&set).unwrap();

        let Value::Fragments(fragments) = &compressed.0[&tags::PIXEL_DATA].value else {
            panic!("fragments")
        };
        assert_eq!(fragments[0], [0, 0, 0, 0], "one frame at offset 0");
        let frame = &fragments[1];
        let header: Vec<u32> = frame[..64]
            .chunks(4)
            .map(|word| u32::from_le_bytes(word.try_into().unwrap()))
            .collect();
        assert_eq!(header[..2], [2, 64]);
        assert_eq!(unpack(&frame[64..], 6), [1, 1, 1, 0xFF, 0xFF, 0xFF]);
        assert_eq!(unpack(&frame[header[2] as usize..], 6), [2, 3, 4, 0, 0, 1]);
    }
}
