//! RLE Lossless (PS3.5 Annex G).
//!
//! Own code, because the registry's decoder panics on a damaged header, refuses more than 16 bits and large blank
//! images, and holds each segment three times.

/// Bytes of the header: the number of segments and where up to 15 of them begin (PS3.5 G.5).
const HEADER: usize = 64;
const MAX_SEGMENTS: usize = 15;
/// Bytes that two bytes of a segment can become (PS3.5 G.3.1).
const MAX_RUN: u64 = 128;

/// Whether a frame may be as long as that, which no header says: every two bytes become at most [`MAX_RUN`].
pub(super) fn may_hold(frame: &[u8], length: u64) -> bool {
    (frame.len() as u64).saturating_mul(MAX_RUN / 2) >= length
}

/// Decodes a frame of `samples` of `bytes` bytes into `pixels`, sample by sample of each pixel, little endian. A segment
/// holds one byte of every pixel, the most significant first.
pub(super) fn decode(
    frame: &[u8],
    samples: usize,
    bytes: usize,
    pixels: &mut [u8],
) -> Result<(), &'static str> {
    let cell = samples.saturating_mul(bytes);
    let (header, _) = frame.split_at_checked(HEADER).ok_or("RLE header is cut")?;
    let mut words = header.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word) as usize);
    let segments = words.next().unwrap_or_default();
    if segments != cell || segments > MAX_SEGMENTS || cell == 0 {
        return Err("number of RLE segments is not that of the bytes of a pixel");
    }
    let starts: Vec<usize> = words.take(segments).collect();
    let ends = starts.iter().skip(1).copied().chain([frame.len()]);
    let mut plane = Vec::with_capacity(pixels.len() / cell);
    for (segment, (start, end)) in starts.iter().zip(ends).enumerate() {
        if *start < HEADER {
            return Err("RLE segment begins inside the header");
        }
        let segment_bytes = frame.get(*start..end).ok_or("RLE segments are out of order or cut")?;
        plane.clear();
        unpack(segment_bytes, pixels.len() / cell, &mut plane)?;

        let (sample, significance) = (segment / bytes, segment % bytes);
        let at = sample * bytes + (bytes - 1 - significance);
        let places = pixels.get_mut(at..).unwrap_or_default().iter_mut().step_by(cell);
        places.zip(&plane).for_each(|(place, byte)| *place = *byte);
    }
    Ok(())
}

/// PS3.5 G.3.2. What follows the last pixel is padding.
fn unpack(mut packed: &[u8], length: usize, plane: &mut Vec<u8>) -> Result<(), &'static str> {
    const CUT: &str = "RLE segment is cut";
    while plane.len() < length {
        let (control, rest) = packed.split_first().ok_or(CUT)?;
        let room = length - plane.len();
        match control {
            0..=127 => {
                let count = usize::from(*control) + 1;
                // The last literal run may be longer than what is left of the image, not than the segment.
                let (literal, rest) = rest.split_at_checked(count).ok_or(CUT)?;
                plane.extend_from_slice(literal.get(..room).unwrap_or(literal));
                packed = rest;
            }
            128 => packed = rest,
            129..=255 => {
                let (byte, rest) = rest.split_first().ok_or(CUT)?;
                let count = 257 - usize::from(*control);
                plane.resize(plane.len() + count.min(room), *byte);
                packed = rest;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_example_of_runs_literals_and_fillers_unpacks() {
        let packed = [
            0xFE, 0xAA, 0x02, 0x80, 0x00, 0x2A, 0x80, 0xFD, 0xAA, 0x03, 0x80, 0x00, 0x2A, 0x22,
            0xF7, 0xAA,
        ];
        let mut plane = Vec::new();

        unpack(&packed, 24, &mut plane).unwrap();

        let plain = b"\xAA\xAA\xAA\x80\x00\x2A\xAA\xAA\xAA\xAA\x80\x00\x2A\x22\xAA\xAA\xAA\xAA\xAA\xAA\xAA\xAA\xAA\xAA";
        assert_eq!(plane, plain);
        assert_eq!(unpack(&packed, 25, &mut Vec::new()), Err("RLE segment is cut"));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_bytes_panic(mut frame in prop::collection::vec(any::<u8>(), 0..300), samples in 0..5_usize, bytes in 0..5_usize) {
            if let Some(count) = frame.first_mut() {
                *count = (samples * bytes) as u8;
            }
            if let Some(rest) = frame.get_mut(1..4) {
                rest.fill(0);
            }
            let _ = decode(&frame, samples, bytes, &mut [0; 64]);
        }
    }
}
