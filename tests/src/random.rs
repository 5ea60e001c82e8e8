//! Chance that can be repeated: everything follows from a seed, which a test prints.

/// A stream of numbers (splitmix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// From `GANTRY_SEED`, or else from the clock; printed, so that a failure can be repeated.
    pub fn from_environment() -> Self {
        let given = std::env::var("GANTRY_SEED").ok().and_then(|seed| seed.parse().ok());
        let clock = || jiff::Timestamp::now().as_microsecond().cast_unsigned();
        let seed = given.unwrap_or_else(clock);
        println!("GANTRY_SEED={seed}");
        Self::new(seed)
    }

    /// The next number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) % end as u64) as usize
    }
}
