//! Images in colour (PS3.3 C.7.6.3.1.2, C.7.9): three bytes for each pixel, red, green, blue.

use dicom_dictionary_std::tags;
use gantry_deidentify::data_set::DataSet;

use super::{Cells, RenderError, raw};

/// Through the palette: each pixel is a number in three tables.
pub(super) fn palette(set: &DataSet, values: &[i32]) -> Result<Vec<u8>, RenderError> {
    let signed = set.unsigned_short(tags::PIXEL_REPRESENTATION) == Some(1);
    let tables = [
        (
            tags::RED_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR,
            tags::RED_PALETTE_COLOR_LOOKUP_TABLE_DATA,
        ),
        (
            tags::GREEN_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR,
            tags::GREEN_PALETTE_COLOR_LOOKUP_TABLE_DATA,
        ),
        (
            tags::BLUE_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR,
            tags::BLUE_PALETTE_COLOR_LOOKUP_TABLE_DATA,
        ),
    ];
    let mut read = Vec::with_capacity(3);
    for (descriptor, data) in tables {
        let missing = RenderError::Attribute(descriptor);
        let bytes = raw(set, descriptor).ok_or(missing)?;
        let [count, first, bits] = bytes.as_chunks::<2>().0 else { return Err(missing) };
        let count = match u16::from_le_bytes(*count) {
            0 => 1 << 16,
            count => usize::from(count),
        };
        let first = if signed {
            i32::from(i16::from_le_bytes(*first))
        } else {
            i32::from(u16::from_le_bytes(*first))
        };
        let data = raw(set, data).ok_or(RenderError::Attribute(data))?;
        let is_wide = u16::from_le_bytes(*bits) > 8;
        let words = data.as_chunks::<2>().0.iter().take(count);
        let entries: Vec<u8> = if is_wide {
            words.map(|[_, high]| *high).collect()
        } else if data.len() >= count * 2 {
            // One entry of eight bits in each word, as some write it.
            words.map(|[low, _]| *low).collect()
        } else {
            data.iter().take(count).copied().collect()
        };
        if entries.len() < count {
            return Err(missing);
        }
        read.push((first, entries));
    }
    let Ok(tables) = <[(i32, Vec<u8>); 3]>::try_from(read) else {
        return Err(RenderError::Photometric);
    };
    let colour = |value: &i32| {
        tables.each_ref().map(|(first, entries)| {
            let at = usize::try_from(value.saturating_sub(*first)).unwrap_or_default();
            entries.get(at.min(entries.len() - 1)).copied().unwrap_or_default()
        })
    };
    Ok(values.iter().flat_map(colour).collect())
}

/// Three samples for each pixel, of which the highest eight bits are shown.
pub(super) fn direct(
    photometric: &str,
    cells: &Cells,
    frame: &[u8],
) -> Result<Vec<u8>, RenderError> {
    if photometric == "YBR_FULL_422" {
        return shared(cells, frame);
    }
    let values = cells.values(frame)?;
    let byte =
        |value: i32| u8::try_from(value >> cells.stored.saturating_sub(8)).unwrap_or_default();
    let pixels = cells.pixels();
    let sample = |pixel: usize, sample: usize| {
        let at = if cells.planar { sample * pixels + pixel } else { pixel * 3 + sample };
        values.get(at).copied().map(byte).unwrap_or_default()
    };
    let all = (0..pixels).map(|pixel| [0, 1, 2].map(|number| sample(pixel, number)));
    Ok(match photometric {
        "YBR_FULL" => all.flat_map(rgb).collect(),
        _ => all.flatten().collect(),
    })
}

/// Two pixels share their colours: Y, Y, CB, CR (PS3.3 C.7.6.3.1.2).
fn shared(cells: &Cells, frame: &[u8]) -> Result<Vec<u8>, RenderError> {
    if cells.allocated != 8 || !cells.pixels().is_multiple_of(2) {
        return Err(RenderError::Attribute(tags::BITS_ALLOCATED));
    }
    let pairs = frame.as_chunks::<4>().0;
    let pairs = pairs.get(..cells.pixels() / 2).ok_or(RenderError::Short)?;
    let both = |[first, second, blue, red]: &[u8; 4]| {
        [rgb([*first, *blue, *red]), rgb([*second, *blue, *red])]
    };
    Ok(pairs.iter().flat_map(both).flatten().collect())
}

/// From luminance and differences of colour (CCIR 601, all of 0 to 255).
fn rgb([y, blue, red]: [u8; 3]) -> [u8; 3] {
    let (y, blue, red) = (f64::from(y), f64::from(blue) - 128.0, f64::from(red) - 128.0);
    [y + 1.402 * red, y - 0.344_136 * blue - 0.714_136 * red, y + 1.772 * blue].map(super::byte)
}
