//! Grey images: modality transformation (PS3.3 C.11.1), VOI transformation (C.11.2), and which end is black.

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use gantry_deidentify::data_set::DataSet;

use super::{Cells, Function, RenderError, Window, byte, raw};

/// A byte for each pixel, 0 black.
pub(super) fn rendered(
    set: &DataSet,
    frame: usize,
    cells: &Cells,
    bytes: &[u8],
    asked: Option<Window>,
) -> Result<Vec<u8>, RenderError> {
    let values = cells.values(bytes)?;
    let of_frame = OfFrame { set, frame };
    let modality = Modality::of(&of_frame, cells.signed);
    let padding = raw(set, tags::PIXEL_PADDING_VALUE).and_then(<[u8]>::first_chunk);
    let padding = padding.map(|bytes| {
        let value = u16::from_le_bytes(*bytes);
        if cells.signed { i32::from(value.cast_signed()) } else { i32::from(value) }
    });
    let voi = match asked.or_else(|| of_frame.window()) {
        Some(window) => Voi::Window(window),
        None => {
            match of_frame.set.items(tags::VOILUT_SEQUENCE).first().and_then(|it| Lut::of(it, true))
            {
                Some(lut) => Voi::Lut(lut),
                None => whole(values.iter().filter(|it| Some(**it) != padding), &modality),
            }
        }
    };
    let inverted = match set.text(tags::PRESENTATION_LUT_SHAPE).as_deref() {
        Some("INVERSE") => true,
        Some("IDENTITY") => false,
        _ => set.text(tags::PHOTOMETRIC_INTERPRETATION).as_deref() == Some("MONOCHROME1"),
    };
    let shown = |value: i32| {
        let shown = voi.apply(modality.apply(value));
        if inverted { 255 - shown } else { shown }
    };
    // Most images have far fewer values than pixels.
    if cells.stored <= 16 {
        let first = if cells.signed { -(1 << (cells.stored - 1)) } else { 0 };
        let table: Vec<u8> = (first..first + (1 << cells.stored)).map(shown).collect();
        let look = |value: i32| {
            let at = usize::try_from(value - first).unwrap_or_default();
            table.get(at).copied().unwrap_or_default()
        };
        return Ok(values.into_iter().map(look).collect());
    }
    Ok(values.into_iter().map(shown).collect())
}

/// A data set as one of its frames sees it: what the functional groups of the frame say (PS3.3 C.7.6.16), else those that all
/// frames share, else the data set itself.
struct OfFrame<'a> {
    set: &'a DataSet,
    frame: usize,
}

impl OfFrame<'_> {
    fn group(&self, group: Tag) -> &DataSet {
        let own = self.set.items(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE).get(self.frame);
        let shared = self.set.items(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE).first();
        own.and_then(|groups| groups.items(group).first())
            .or_else(|| shared.and_then(|groups| groups.items(group).first()))
            .unwrap_or(self.set)
    }

    /// The window that the image names first.
    fn window(&self) -> Option<Window> {
        let set = self.group(tags::FRAME_VOILUT_SEQUENCE);
        let function = match set.text(tags::VOILUT_FUNCTION).as_deref() {
            Some("LINEAR_EXACT") => Function::LinearExact,
            Some("SIGMOID") => Function::Sigmoid,
            _ => Function::Linear,
        };
        Window::new(decimal(set, tags::WINDOW_CENTER)?, decimal(set, tags::WINDOW_WIDTH)?, function)
    }
}

fn decimal(set: &DataSet, tag: Tag) -> Option<f64> {
    set.text(tag)?.parse::<f64>().ok().filter(|number| number.is_finite())
}

/// From stored values to those of the modality.
enum Modality {
    Linear { slope: f64, intercept: f64 },
    Lut(Lut),
}

impl Modality {
    fn of(frame: &OfFrame<'_>, signed: bool) -> Self {
        if let Some(lut) =
            frame.set.items(tags::MODALITY_LUT_SEQUENCE).first().and_then(|it| Lut::of(it, signed))
        {
            return Self::Lut(lut);
        }
        let set = frame.group(tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE);
        Self::Linear {
            slope: decimal(set, tags::RESCALE_SLOPE).unwrap_or(1.0),
            intercept: decimal(set, tags::RESCALE_INTERCEPT).unwrap_or(0.0),
        }
    }

    fn apply(&self, value: i32) -> f64 {
        match self {
            Self::Linear { slope, intercept } => f64::from(value) * slope + intercept,
            Self::Lut(lut) => f64::from(lut.value(f64::from(value))),
        }
    }
}

/// A table of values (PS3.3 C.11.1.1, C.11.2.1.1).
struct Lut {
    first: f64,
    bits: u32,
    values: Vec<u16>,
}

impl Lut {
    /// The table of an item; `signed`: whether what it maps may be below zero.
    fn of(item: &DataSet, signed: bool) -> Option<Self> {
        let descriptor = raw(item, tags::LUT_DESCRIPTOR)?;
        let [count, first, bits] = descriptor.as_chunks::<2>().0 else { return None };
        let count = match u16::from_le_bytes(*count) {
            0 => 1 << 16,
            count => usize::from(count),
        };
        let first = if signed {
            f64::from(i16::from_le_bytes(*first))
        } else {
            f64::from(u16::from_le_bytes(*first))
        };
        let values = raw(item, tags::LUT_DATA)?.as_chunks::<2>().0.iter().take(count);
        let values: Vec<u16> = values.map(|value| u16::from_le_bytes(*value)).collect();
        let bits = u32::from(u16::from_le_bytes(*bits));
        ((1..=16).contains(&bits) && values.len() == count).then_some(Self { first, bits, values })
    }

    /// What is below the table is its first value, what is above its last.
    fn value(&self, of: f64) -> u16 {
        let last = self.values.len().saturating_sub(1);
        #[expect(clippy::cast_sign_loss, reason = "below zero it is zero")]
        let at = (of - self.first).max(0.0) as usize;
        self.values.get(at.min(last)).copied().unwrap_or_default()
    }
}

/// From the modality's values to what is shown.
enum Voi {
    Window(Window),
    Lut(Lut),
    Everything { least: f64, range: f64 },
}

impl Voi {
    fn apply(&self, value: f64) -> u8 {
        match self {
            Self::Window(window) => window.apply(value),
            Self::Lut(lut) => {
                let most = f64::from((1_u32 << lut.bits) - 1);
                byte(f64::from(lut.value(value)) / most * 255.0)
            }
            Self::Everything { least, range } => byte((value - least) / range * 255.0),
        }
    }
}

/// Where the image names no window, all that occurs in it is shown.
fn whole<'v>(values: impl Iterator<Item = &'v i32> + Clone, modality: &Modality) -> Voi {
    let least = values.clone().min().copied().unwrap_or_default();
    let most = values.max().copied().unwrap_or_default();
    let (one, other) = (modality.apply(least), modality.apply(most));
    let (least, most) = (one.min(other), one.max(other));
    Voi::Everything { least, range: (most - least).max(f64::MIN_POSITIVE) }
}
