//! Numbers and UIDs that depend on nothing but a seed and a label, so the same call gives the same bytes
//! on every machine and in every release of the standard library.

use std::fmt::Write as _;

/// SplitMix64: small, fast, and good enough for noise and for choosing names. Not for secrets.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// A generator of its own for each label, so that adding a draw in one place changes no other place.
    pub(crate) fn new(seed: u64, label: &str) -> Self {
        Self(hash(seed, label))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    /// A number from 0 up to, not including, `end`; 0 if `end` is 0. The slight bias does not matter here.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next().checked_rem(end).unwrap_or_default()
    }

    /// A number between `low` and `high`.
    pub(crate) fn between(&mut self, low: f32, high: f32) -> f32 {
        let unit = (self.next() >> 40) as f32 / (1_u64 << 24) as f32;
        low + (high - low) * unit
    }

    /// One of the choices; the default value if there are none.
    pub(crate) fn pick<T: Copy + Default>(&mut self, choices: &[T]) -> T {
        let index = self.below(choices.len() as u64) as usize;
        choices.get(index).copied().unwrap_or_default()
    }
}

/// A UID under 2.25 (PS3.5 B.2): the decimal form of a UUID, here of version 8 ("custom", RFC 9562 5.8).
pub(crate) fn uid(seed: u64, label: &str) -> String {
    let bits = u128::from(hash(seed, label)) << 64 | u128::from(hash(!seed, label));
    let version = 0x8_u128 << 76;
    let variant = 0b10_u128 << 62;
    let uuid = bits & !(0xF << 76) & !(0b11 << 62) | version | variant;
    let mut uid = String::from("2.25.");
    // Writing to a string cannot fail.
    let _ = write!(uid, "{uuid}");
    uid
}

/// FNV-1a over the label, then mixed, because FNV alone leaves similar labels with similar high bits.
fn hash(seed: u64, label: &str) -> u64 {
    let start = 0xCBF2_9CE4_8422_2325 ^ mix(seed.wrapping_add(0x9E37_79B9_7F4A_7C15));
    mix(label
        .bytes()
        .fold(start, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)))
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_depends_on_seed_and_label_alone_and_obeys_the_rules() {
        for seed in 0..200 {
            let uid_here = uid(seed, "study");

            assert_eq!(uid_here, uid(seed, "study"));
            assert_ne!(uid_here, uid(seed + 1, "study"));
            assert_ne!(uid_here, uid(seed, "series"));
            assert!(uid_here.len() <= 64, "PS3.5 9.1");
            let last = uid_here.rsplit('.').next().unwrap_or_default();
            assert!(!last.starts_with('0') && last.bytes().all(|byte| byte.is_ascii_digit()));
        }
    }
}
