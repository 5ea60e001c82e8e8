//! What encoder and decoder keep in step: parameters, contexts, and what each sample teaches them (T.87 Annex A).
//!
//! Numbers in comments are those of T.87. Every number here stays within 32 bits whatever a stream says: samples and
//! errors have at most 17, and an error that is larger than the range allows is refused before anything learns from it.

const CONTEXTS: usize = 365;
const MIN_BIAS: i32 = -128;
const MAX_BIAS: i32 = 127;
/// A.2.1: by how many bits the length of a run is told.
const RUN_BITS: [u32; 32] = [
    0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 9, 10, 11, 12, 13,
    14, 15,
];

/// What an LSE marker segment may set (C.2.4.1.1); 0 stands for the default.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Preset {
    pub(super) max_value: u16,
    pub(super) thresholds: [u16; 3],
    pub(super) reset: u16,
}

/// The state of the coder, at the beginning of a scan or of a restart interval.
#[derive(Clone, Debug)]
pub(super) struct Model {
    pub(super) near: i32,
    pub(super) max_value: i32,
    range: i32,
    /// The largest error that there is.
    half: i32,
    /// Bits of an error that is written in full.
    pub(super) escape: u32,
    limit: u32,
    reset: u32,
    /// The last threshold: beyond it all differences are alike.
    last: i32,
    /// The region of each difference from `-last` to `last`.
    regions: Vec<i8>,
    contexts: [Context; CONTEXTS],
    runs: [RunContext; 2],
}

#[derive(Clone, Copy, Debug)]
struct Context {
    a: u32,
    b: i32,
    bias: i32,
    n: u32,
}

#[derive(Clone, Copy, Debug)]
struct RunContext {
    a: u32,
    n: u32,
    negative: u32,
}

/// How an error is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Code {
    pub(super) k: u32,
    pub(super) limit: u32,
}

impl Model {
    /// The parameters of a scan; refuses those that the standard does not allow.
    pub(super) fn new(precision: u8, near: u8, preset: Preset) -> Result<Self, &'static str> {
        const WRONG: &str = "JPEG-LS parameters are not allowed";
        let top = (1_i32 << precision) - 1;
        let max_value = if preset.max_value == 0 { top } else { i32::from(preset.max_value) };
        let near = i32::from(near);
        if !(2..=16).contains(&precision) || max_value > top || near > max_value / 2 {
            return Err(WRONG);
        }
        let [t1, t2, t3] = thresholds(max_value, near, preset.thresholds);
        let reset = if preset.reset == 0 { 64 } else { u32::from(preset.reset) };
        let in_order = near < t1 && t1 <= t2 && t2 <= t3 && t3 <= max_value.max(near + 1);
        if !in_order || reset < 3 {
            return Err(WRONG);
        }
        let range = (max_value + 2 * near) / (2 * near + 1) + 1;
        let depth = bit_length(max_value.cast_unsigned()).max(2);
        let region = |difference: i32| match difference.abs() {
            d if d <= near => 0,
            d if d < t1 => 1,
            d if d < t2 => 2,
            d if d < t3 => 3,
            _ => 4,
        };
        let signed = |difference: i32| region(difference) * difference.signum() as i8;
        let first = ((range + 32) / 64).max(2).cast_unsigned();
        Ok(Self {
            near,
            max_value,
            range,
            half: (range + 1) / 2,
            escape: bit_length((range - 1).cast_unsigned()),
            limit: 2 * (depth + depth.max(8)),
            reset,
            last: t3,
            regions: (-t3..=t3).map(signed).collect(),
            contexts: [Context { a: first, b: 0, bias: 0, n: 1 }; CONTEXTS],
            runs: [RunContext { a: first, n: 1, negative: 0 }; 2],
        })
    }

    /// A.3.3, A.3.4: the context of three differences, from -364 to 364; 0 is where runs begin.
    #[inline]
    pub(super) fn context(&self, ra: i32, rb: i32, rc: i32, rd: i32) -> i32 {
        let region = |difference: i32| {
            let at = (difference.clamp(-self.last, self.last) + self.last).cast_unsigned() as usize;
            i32::from(self.regions.get(at).copied().unwrap_or_default())
        };
        (region(rd - rb) * 9 + region(rb - rc)) * 9 + region(rc - ra)
    }

    /// A.4, A.5.1: predicts a sample, asks `code` for the error by which it differs, and learns from that. `code` gets the
    /// prediction, the sign of errors here, whether errors are mapped the other way round (A.5.2), and how to write them.
    #[inline]
    pub(super) fn regular<E>(
        &mut self,
        context: i32,
        predicted: i32,
        code: impl FnOnce(i32, i32, bool, Code) -> Result<i32, E>,
    ) -> Result<i32, E>
    where
        E: From<&'static str>,
    {
        let sign = if context < 0 { -1 } else { 1 };
        let own = self
            .contexts
            .get_mut(context.unsigned_abs() as usize)
            .ok_or("JPEG-LS context is out of reach")?;
        let predicted = (predicted + sign * own.bias).clamp(0, self.max_value);
        let k = parameter(own.n, own.a);
        let turned = self.near == 0 && k == 0 && 2 * own.b <= -own.n.cast_signed();
        let error = code(predicted, sign, turned, Code { k, limit: self.limit })?;
        if error.abs() > self.half {
            return Err("JPEG-LS error is out of range".into());
        }
        own.learn(error, self.near, self.reset);
        Ok(self.sample(predicted, sign * error))
    }

    /// What a sample is, by its prediction and its error (A.4.4, A.4.5).
    #[inline]
    pub(super) fn sample(&self, predicted: i32, error: i32) -> i32 {
        let step = 2 * self.near + 1;
        let mut sample = predicted + error * step;
        if sample < -self.near {
            sample += self.range * step;
        } else if sample > self.max_value + self.near {
            sample -= self.range * step;
        }
        sample.clamp(0, self.max_value)
    }

    /// How errors are kept small.
    pub(super) fn range(&self) -> Range {
        Range { range: self.range, half: self.half }
    }

    /// A.7.2: how the error of the sample that ends a run is written; `kind` is 1 where its neighbours are alike.
    pub(super) fn run_end(&self, kind: usize, run: Run) -> Code {
        let RunContext { a, n, .. } = self.runs.get(kind).copied().unwrap_or(RunContext::NEW);
        let a = if kind == 1 { a + (n >> 1) } else { a };
        Code { k: parameter(n, a), limit: self.limit - run.bits() - 1 }
    }

    /// Whether such errors are mapped the other way round (A.7.2.1).
    pub(super) fn run_end_turned(&self, kind: usize, k: u32) -> bool {
        let RunContext { n, negative, .. } =
            self.runs.get(kind).copied().unwrap_or(RunContext::NEW);
        k != 0 || 2 * negative >= n
    }

    /// Learns from the sample that ended a run; `mapped` is what was written of its error.
    pub(super) fn learn_run_end(
        &mut self,
        kind: usize,
        error: i32,
        mapped: u32,
    ) -> Result<(), &'static str> {
        if error.abs() > self.half {
            return Err("JPEG-LS error is out of range");
        }
        let reset = self.reset;
        let Some(own) = self.runs.get_mut(kind) else { return Ok(()) };
        own.negative += u32::from(error < 0);
        own.a += (mapped + 1 - kind as u32) >> 1;
        if own.n == reset {
            own.a >>= 1;
            own.n >>= 1;
            own.negative >>= 1;
        }
        own.n += 1;
        Ok(())
    }
}

/// The range of errors (A.4.5).
#[derive(Clone, Copy, Debug)]
pub(super) struct Range {
    range: i32,
    half: i32,
}

impl Range {
    /// An error of a sample without loss, between its bounds.
    #[inline]
    pub(super) fn reduce(self, error: i32) -> i32 {
        let error = if error < 0 { error + self.range } else { error };
        if error >= self.half { error - self.range } else { error }
    }
}

impl Context {
    /// A.6.
    #[inline]
    fn learn(&mut self, error: i32, near: i32, reset: u32) {
        self.b += error * (2 * near + 1);
        self.a += error.unsigned_abs();
        if self.n == reset {
            self.a >>= 1;
            self.b >>= 1;
            self.n >>= 1;
        }
        self.n += 1;
        let n = self.n.cast_signed();
        if self.b <= -n {
            self.b = (self.b + n).max(1 - n);
            self.bias = (self.bias - 1).max(MIN_BIAS);
        } else if self.b > 0 {
            self.b = (self.b - n).min(0);
            self.bias = (self.bias + 1).min(MAX_BIAS);
        }
    }
}

impl RunContext {
    const NEW: Self = Self { a: 0, n: 1, negative: 0 };
}

/// How long runs have been lately (A.7.1): one for each component.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Run(usize);

impl Run {
    /// A one in the stream stands for 2 to this many samples.
    pub(super) fn bits(self) -> u32 {
        RUN_BITS.get(self.0).copied().unwrap_or_default()
    }

    pub(super) fn longer(&mut self) {
        self.0 = (self.0 + 1).min(RUN_BITS.len() - 1);
    }

    pub(super) fn shorter(&mut self) {
        self.0 = self.0.saturating_sub(1);
    }
}

/// A.4.1: the middle one of left, above, and what a plane through the three neighbours would give.
#[inline]
pub(super) fn predict(ra: i32, rb: i32, rc: i32) -> i32 {
    let (low, high) = (ra.min(rb), ra.max(rb));
    // min and max in this order, as `low` is never above `high`.
    (ra + rb - rc).max(low).min(high)
}

/// A.5.1: the smallest k for which n times 2 to the k is not below a.
#[inline]
fn parameter(n: u32, a: u32) -> u32 {
    let k = bit_length(a).saturating_sub(bit_length(n));
    k + u32::from(n << k < a)
}

fn bit_length(number: u32) -> u32 {
    32 - number.leading_zeros()
}

/// The thresholds of a scan, where 0 is written their defaults (C.2.4.1.1.1).
fn thresholds(max_value: i32, near: i32, written: [u16; 3]) -> [i32; 3] {
    let clamp = |value: i32, low: i32| if value > max_value || value < low { low } else { value };
    let default = |basic: i32, offset: i32, factor: i32, spread: i32| {
        if max_value >= 128 {
            factor * (basic - offset) + offset + spread * near
        } else {
            (basic / factor + spread * near).max(offset)
        }
    };
    let factor =
        if max_value >= 128 { (max_value.min(4095) + 128) / 256 } else { 256 / (max_value + 1) };
    let mut low = near + 1;
    let rules = [(3, 2, 3), (7, 3, 5), (21, 4, 7)];
    let mut thresholds = [0; 3];
    for ((threshold, written), (basic, offset, spread)) in
        thresholds.iter_mut().zip(written).zip(rules)
    {
        *threshold = match written {
            0 => clamp(default(basic, offset, factor, spread), low),
            written => i32::from(written),
        };
        low = *threshold;
    }
    thresholds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_those_of_the_standard() {
        for (max_value, near, expected) in [
            (255, 0, [3, 7, 21]),
            (255, 3, [12, 22, 42]),
            (4095, 0, [18, 67, 276]),
            (65_535, 0, [18, 67, 276]),
            (1023, 0, [6, 19, 72]),
            (15, 0, [2, 3, 4]),
            (3, 0, [2, 3, 3]),
        ] {
            assert_eq!(thresholds(max_value, near, [0; 3]), expected, "{max_value} {near}");
        }
        assert_eq!(thresholds(255, 0, [9, 9, 9]), [9, 9, 9]);
    }

    #[test]
    fn parameters_that_the_standard_does_not_allow_are_refused() {
        let preset = |max_value, thresholds, reset| Preset { max_value, thresholds, reset };
        let good = |precision, near, preset| Model::new(precision, near, preset).is_ok();

        assert!(good(8, 0, Preset::default()) && good(16, 255, Preset::default()));
        assert!(good(12, 0, preset(1000, [5, 6, 7], 3)) && good(2, 1, Preset::default()));
        for (precision, near, preset) in [
            (1, 0, Preset::default()),
            (17, 0, Preset::default()),
            (8, 128, Preset::default()),
            (8, 0, preset(256, [0; 3], 0)),
            (8, 0, preset(0, [7, 6, 5], 0)),
            (8, 0, preset(0, [1, 2, 256], 0)),
            (8, 3, preset(0, [3, 8, 9], 0)),
            (8, 0, preset(0, [0; 3], 2)),
        ] {
            assert!(!good(precision, near, preset), "{precision} {near} {preset:?}");
        }
    }

    #[test]
    fn the_parameter_is_the_smallest_that_suffices() {
        for n in 1..=64 {
            for a in (0..5000).chain([65_535, 1 << 20, 1 << 31]) {
                let k = parameter(n, a);
                assert!(u64::from(n) << k >= a.into(), "{n} {a}");
                assert!(k == 0 || u64::from(n) << (k - 1) < a.into(), "{n} {a}");
            }
        }
    }
}
