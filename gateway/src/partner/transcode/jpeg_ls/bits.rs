//! Bits of an entropy-coded segment (T.87 A.1, C.1): the first bit is a byte's highest, and after a byte FFH the next byte
//! holds only seven bits, its highest being 0, so that no marker can appear.

use std::cmp::Ordering;

/// Bits that suffice for the code of most samples.
const ENOUGH: u32 = 32;

/// Reads the bits of one segment. Past its end there are none: nothing is made up.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The next bits, the first one highest; below them zeros.
    cache: u64,
    valid: u32,
    after_ff: bool,
}

pub(super) const CUT: &str = "JPEG-LS stream is cut";
const TOO_LONG: &str = "JPEG-LS code is too long";

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, cache: 0, valid: 0, after_ff: false }
    }

    /// Fills the cache with 57 bits or more, if there are so many.
    fn fill(&mut self) {
        if self.valid > 56 {
            return;
        }
        let next = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk::<8>());
        if let Some(next) = next
            && !self.after_ff
        {
            let word = u64::from_be_bytes(*next);
            if !has_ff(word) {
                let taken = (64 - self.valid) & !7;
                let kept = if taken == 64 { word } else { word >> (64 - taken) << (64 - taken) };
                self.cache |= kept >> self.valid;
                self.valid += taken;
                self.at += taken as usize / 8;
                return;
            }
        }
        while self.valid <= 56 {
            let Some(byte) = self.bytes.get(self.at) else { return };
            let width = if self.after_ff { 7 } else { 8 };
            self.cache |= u64::from(*byte) << (64 - width) >> self.valid;
            self.valid += width;
            self.at += 1;
            self.after_ff = *byte == 0xFF;
        }
    }

    /// The next bits, at most 32, as a number.
    #[inline]
    pub(super) fn bits(&mut self, count: u32) -> Result<u32, &'static str> {
        if self.valid < count {
            self.fill();
            if self.valid < count {
                return Err(CUT);
            }
        }
        // Two steps, as a shift by 64 is none.
        let bits = (self.cache >> 1) >> (63 - count.min(63));
        self.skip(count);
        Ok(bits as u32)
    }

    #[inline]
    fn skip(&mut self, count: u32) {
        self.cache = self.cache.checked_shl(count).unwrap_or(0);
        self.valid -= count;
    }

    /// A number in the code of T.87 A.5.3: so many zeros, a one, and `k` bits more; or, if the zeros are as many as
    /// `limit` allows, the number less one in `escape` bits.
    #[inline]
    pub(super) fn golomb(&mut self, k: u32, limit: u32, escape: u32) -> Result<u32, &'static str> {
        if self.valid < ENOUGH {
            self.fill();
        }
        let most = limit.saturating_sub(escape + 1);
        let mut zeros = self.cache.leading_zeros();
        if zeros >= self.valid {
            self.fill();
            zeros = self.cache.leading_zeros();
            if zeros >= self.valid {
                // No limit is above what a full cache holds.
                return Err(if self.valid <= 56 { CUT } else { TOO_LONG });
            }
        }
        self.skip(zeros + 1);
        match zeros.cmp(&most) {
            Ordering::Less => Ok(zeros << k | self.bits(k)?),
            Ordering::Equal => Ok(self.bits(escape)? + 1),
            Ordering::Greater => Err(TOO_LONG),
        }
    }

    /// Ends the segment: after its last code the byte is padded, and then there is nothing but zeros.
    pub(super) fn finish(self) -> Result<(), &'static str> {
        let padding = self.bytes.get(self.at..).unwrap_or_default();
        if self.cache << 7 != 0 || padding.iter().any(|byte| *byte != 0) {
            return Err("JPEG-LS stream holds more than its image");
        }
        Ok(())
    }
}

fn has_ff(word: u64) -> bool {
    const LOW: u64 = 0x0101_0101_0101_0101;
    // A byte is FFH where its complement is zero.
    let zero = !word;
    zero.wrapping_sub(LOW) & !zero & (LOW << 7) != 0
}

/// Writes the bits of one segment.
#[derive(Debug)]
pub(super) struct Writer {
    bytes: Vec<u8>,
    /// Bits not yet written, in the lowest places, the first one highest.
    cache: u64,
    used: u32,
    after_ff: bool,
}

impl Writer {
    /// Appends to what is there already.
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, cache: 0, used: 0, after_ff: false }
    }

    /// Appends the lowest `count` bits, at most 32; those above are zero.
    #[inline]
    pub(super) fn bits(&mut self, bits: u32, count: u32) {
        self.cache = self.cache << count | u64::from(bits);
        self.used += count;
        if self.used >= 32 {
            self.spill();
        }
    }

    fn spill(&mut self) {
        let word = (self.cache >> (self.used - 32)) as u32;
        if !self.after_ff && !has_ff(word.into()) {
            self.bytes.extend_from_slice(&word.to_be_bytes());
            self.used -= 32;
            return;
        }
        while self.used >= 8 {
            self.byte();
        }
    }

    fn byte(&mut self) {
        let (width, mask) = if self.after_ff { (7, 0x7F) } else { (8, 0xFF) };
        let byte = (self.cache >> (self.used - width)) as u8 & mask;
        self.used -= width;
        self.bytes.push(byte);
        self.after_ff = byte == 0xFF;
    }

    /// What [`Reader::golomb`] reads.
    #[inline]
    pub(super) fn golomb(&mut self, number: u32, k: u32, limit: u32, escape: u32) {
        let (zeros, most) = (number >> k, limit.saturating_sub(escape + 1));
        if zeros >= most {
            self.one_after(most);
            self.bits(number.wrapping_sub(1) & mask(escape), escape);
        } else if zeros + 1 + k <= 31 {
            self.bits(1 << k | number & mask(k), zeros + 1 + k);
        } else {
            self.one_after(zeros);
            self.bits(number & mask(k), k);
        }
    }

    fn one_after(&mut self, zeros: u32) {
        self.bits(0, zeros.saturating_sub(24));
        self.bits(1, zeros.min(24) + 1);
    }

    /// Pads the last byte. A segment may not end in FFH, which would make a marker of what follows.
    pub(super) fn finish(mut self) -> Vec<u8> {
        while self.used > 0 {
            let width = if self.after_ff { 7 } else { 8 };
            if self.used < width {
                self.cache <<= width - self.used;
                self.used = width;
            }
            self.byte();
        }
        if self.after_ff {
            self.bytes.push(0);
        }
        self.bytes
    }
}

fn mask(bits: u32) -> u32 {
    (1_u32 << bits.min(31)) - 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_was_written_is_read_and_no_marker_appears(
            numbers in prop::collection::vec((0..=u32::from(u16::MAX), 0..16_u32, any::<bool>()), 0..200),
        ) {
            let mut writer = Writer::new(Vec::new());
            for (number, k, plain) in &numbers {
                if *plain { writer.bits(*number, 16) } else { writer.golomb(*number, *k, 64, 16) }
            }
            let bytes = writer.finish();

            let mut reader = Reader::new(&bytes);
            for (number, k, plain) in &numbers {
                let read = if *plain { reader.bits(16) } else { reader.golomb(*k, 64, 16) };
                prop_assert_eq!(read, Ok(*number));
            }
            prop_assert_eq!(reader.finish(), Ok(()));
            prop_assert!(bytes.windows(2).all(|pair| pair[0] != 0xFF || pair[1] < 0x80));
            prop_assert_ne!(bytes.last(), Some(&0xFF));
        }

        #[test]
        fn ones_are_kept_apart_from_markers(count in 1..300_usize) {
            let mut writer = Writer::new(Vec::new());
            (0..count).for_each(|_| writer.bits(u32::MAX >> 8, 24));
            let bytes = writer.finish();

            let mut reader = Reader::new(&bytes);
            prop_assert!((0..count).all(|_| reader.bits(24) == Ok(u32::MAX >> 8)));
            prop_assert!(bytes.windows(2).all(|pair| pair[0] != 0xFF || pair[1] < 0x80));
        }
    }

    #[test]
    fn what_ends_early_or_late_is_told() {
        let mut reader = Reader::new(&[0x12, 0x34]);
        assert_eq!(reader.bits(12), Ok(0x123));
        assert_eq!(reader.bits(5), Err(CUT));

        // As many zeros as the cache holds, and more.
        for zeros in [7, 8, 9, 100] {
            let mut reader = Reader::new(&[0; 200][..zeros]);
            assert!(reader.golomb(0, 64, 16).is_err());
        }

        let mut reader = Reader::new(&[0x80, 0, 0]);
        assert_eq!(reader.bits(1), Ok(1));
        assert_eq!(reader.finish(), Ok(()));
        assert!(Reader::new(&[1]).finish().is_err());
    }
}
