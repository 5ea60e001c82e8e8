//! JPEG 2000 and its High-Throughput form (ISO/IEC 15444-1, 15444-15; PS3.5 8.2.4, A.4.4): what a codestream says of
//! itself.
//!
//! The decoder believes a stream about its size and depth, and delivers a picture of one that is cut. So the headers are
//! read here first: the size must be that of the attributes, and every tile must be there to its end.

use std::collections::HashSet;

/// SOC and SIZ, with which a codestream begins.
const BEGIN: [u8; 4] = [0xFF, 0x4F, 0xFF, 0x51];
const SOT: [u8; 2] = [0xFF, 0x90];
const EOC: [u8; 2] = [0xFF, 0xD9];

/// What the headers of a frame say.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Header {
    pub(super) rows: u32,
    pub(super) columns: u32,
    pub(super) components: u16,
    pub(super) precision: u8,
    pub(super) signed: bool,
}

/// The codestream in a frame. It should be all of it, but some writers put it into a file's boxes (ISO/IEC 15444-1
/// Annex I), which may contradict the attributes and are not shown to the decoder.
pub(super) fn codestream(frame: &[u8]) -> Option<&[u8]> {
    let begin = frame.windows(BEGIN.len()).position(|bytes| bytes == BEGIN)?;
    frame.get(begin..)
}

impl Header {
    /// Reads the headers of a codestream, and refuses what the decoder would get wrong.
    pub(super) fn read(stream: &[u8]) -> Result<Self, &'static str> {
        const CUT: &str = "JPEG 2000 header is cut";
        let size = stream.strip_prefix(&BEGIN).ok_or("no JPEG 2000 codestream")?;
        let (front, components) = size.split_first_chunk::<38>().ok_or(CUT)?;
        let (_, numbers) = front.split_first_chunk::<4>().ok_or(CUT)?;
        let mut numbers = numbers.as_chunks().0.iter().map(|bytes| u32::from_be_bytes(*bytes));
        let mut next = || numbers.next().ok_or(CUT);
        let (right, bottom, left, top) = (next()?, next()?, next()?, next()?);
        let (tile_width, tile_height, tile_left, tile_top) = (next()?, next()?, next()?, next()?);
        let count = front.last_chunk().copied().map(u16::from_be_bytes).ok_or(CUT)?;

        let components = components.as_chunks::<3>().0.get(..usize::from(count)).ok_or(CUT)?;
        let [depth, ..] = components.first().ok_or(CUT)?;
        if components.iter().any(|component| component != &[*depth, 1, 1]) {
            return Err("JPEG 2000 components differ or are subsampled");
        }
        let header = Self {
            rows: bottom.saturating_sub(top),
            columns: right.saturating_sub(left),
            components: count,
            precision: (depth & 0x7F) + 1,
            signed: depth & 0x80 != 0,
        };
        let across = right.saturating_sub(tile_left).div_ceil(tile_width.max(1));
        let down = bottom.saturating_sub(tile_top).div_ceil(tile_height.max(1));
        let tiles = u64::from(across) * u64::from(down);
        if tile_parts(stream).ok_or("JPEG 2000 codestream is cut")? != tiles {
            return Err("JPEG 2000 tiles are missing");
        }
        Ok(header)
    }
}

/// How many tiles have a tile-part (ISO/IEC 15444-1 A.4.2); `None` if one is cut, or something else is between them.
fn tile_parts(stream: &[u8]) -> Option<u64> {
    let mut tiles = HashSet::new();
    let mut rest = stream.get(2..)?;
    loop {
        let (marker, after) = rest.split_first_chunk::<2>()?;
        if *marker == SOT {
            break;
        }
        let length = after.first_chunk().copied().map(u16::from_be_bytes)?;
        rest = after.get(usize::from(length)..)?;
    }
    while let Some(after) = rest.strip_prefix(&SOT) {
        let ([_, _, t0, t1, l0, l1, l2, l3], _) = after.split_first_chunk()?;
        tiles.insert(u16::from_be_bytes([*t0, *t1]));
        match u32::from_be_bytes([*l0, *l1, *l2, *l3]) {
            0 => return Some(tiles.len() as u64), // to the end of the codestream
            length if length < 14 => return None,
            length => rest = rest.get(length as usize..)?,
        }
    }
    // The end mark, which some writers leave out, and padding.
    let ended = rest.is_empty() || rest.starts_with(&EOC) || rest.starts_with(&[0]);
    ended.then_some(tiles.len() as u64)
}

/// Makes samples of a stream whose sign is not that of Pixel Representation what they would be natively: the bits above
/// the stream's precision repeat the sign of a signed pixel, and are 0 of an unsigned one.
pub(super) fn settle_signs(header: &Header, signed: bool, allocated: u16, pixels: &mut [u8]) {
    let above = u32::from(allocated.saturating_sub(header.precision.into()));
    if header.signed == signed || above == 0 {
        return;
    }
    match (allocated, signed) {
        (8, true) => pixels
            .iter_mut()
            .for_each(|pixel| *pixel = ((*pixel << above).cast_signed() >> above).cast_unsigned()),
        (8, false) => pixels.iter_mut().for_each(|pixel| *pixel = (*pixel << above) >> above),
        _ => {
            for pixel in pixels.as_chunks_mut().0 {
                let shifted = u16::from_le_bytes(*pixel) << above;
                let settled = if signed {
                    (shifted.cast_signed() >> above).cast_unsigned()
                } else {
                    shifted >> above
                };
                *pixel = settled.to_le_bytes();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 20 columns and 10 rows in two tiles, the second of which has two parts.
    fn stream(depth: u8) -> Vec<u8> {
        let numbers: Vec<u8> = [20_u32, 10, 0, 0, 10, 10, 0, 0]
            .iter()
            .flat_map(|number| number.to_be_bytes())
            .collect();
        let size = [&[0, 41, 0, 0][..], &numbers, &[0, 1, depth, 1, 1]].concat();
        let part =
            |tile: u8, length: u8| [0xFF, 0x90, 0, 10, 0, tile, 0, 0, 0, length, 0, 1, 0xFF, 0x93];
        [&BEGIN[..], &size, &part(0, 16), b"ab", &part(1, 14), &part(1, 15), b"c", &[0xFF, 0xD9]]
            .concat()
    }

    #[test]
    fn a_codestream_that_is_cut_anywhere_is_refused() {
        let whole = stream(11);
        let header = Header { rows: 10, columns: 20, components: 1, precision: 12, signed: false };

        assert_eq!(Header::read(&whole), Ok(header));
        // Without the end mark, or with padding, nothing of the picture is missing.
        for end in 0..whole.len() - 2 {
            let cut = Header::read(&whole[..end]);
            // Between the two parts of the last tile nothing tells that another was to come.
            assert!(cut.is_err() || end == whole.len() - 17, "{end}");
        }
    }

    #[test]
    fn pixels_get_the_sign_of_their_attribute() {
        let header = |signed| Header { rows: 1, columns: 1, components: 1, precision: 12, signed };

        let mut negative = 0x0FFF_u16.to_le_bytes();
        settle_signs(&header(false), true, 16, &mut negative);
        let mut masked = 0xFFFF_u16.to_le_bytes();
        settle_signs(&header(true), false, 16, &mut masked);
        let mut same = 0xF123_u16.to_le_bytes();
        settle_signs(&header(true), true, 16, &mut same);

        assert_eq!(negative, (-1_i16).to_le_bytes());
        assert_eq!(masked, 0x0FFF_u16.to_le_bytes());
        assert_eq!(same, 0xF123_u16.to_le_bytes());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), flip in 4..80_usize, to: u8) {
            let mut flipped = stream(11);
            if let Some(byte) = flipped.get_mut(flip) {
                *byte = to;
            }
            for frame in [flipped, bytes] {
                let _ = codestream(&frame).map(Header::read);
            }
        }
    }
}
