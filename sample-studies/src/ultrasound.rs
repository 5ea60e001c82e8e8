//! An ultrasound of the abdomen with the patient's name burned into the pixels, where no header rule finds it.

use dicom_dictionary_std::{tags, uids};

use crate::canvas::{clouds, grain};
use crate::data_set::DataSet;
use crate::encoding::SequenceLengths;
use crate::font;
use crate::instance::Study;
use crate::modules::{ABDOMEN, Case, PixelFormat, Series, put_pixels};

/// All identifying text in the image of [`ultrasound`] lies in rows 0 up to, not including, this one.
pub const ULTRASOUND_BANNER_ROWS: u16 = 56;

/// One image of 640 x 480 pixels in RGB; name, NHS number, date of birth, hospital and date stand at its top.
pub fn ultrasound(seed: u64) -> Study {
    let mut case = Case::new(
        seed,
        "ultrasound",
        "ultrasound",
        ("45036003", "SCT", "Ultrasonography of abdomen"),
        ("US Abdomen", "Right upper quadrant pain"),
    );
    case.lengths = SequenceLengths::Defined;
    let order = &case.order;
    // Ultrasound Image IOD (PS3.3 A.6).
    let mut set = case.data_set(&PROBE, uids::ULTRASOUND_IMAGE_STORAGE, 1);
    set.text(tags::IMAGE_TYPE, "ORIGINAL\\PRIMARY\\ABDOMINAL\\0001")
        .text(tags::CONTENT_DATE, &order.date)
        .text(tags::CONTENT_TIME, &order.time)
        .text(tags::ACQUISITION_DATE_TIME, &format!("{}{}", order.date, order.time))
        .empty(tags::PATIENT_ORIENTATION)
        .text(tags::TRANSDUCER_TYPE, "SECTOR_PHASED")
        .text(tags::BURNED_IN_ANNOTATION, "YES")
        .text(tags::LOSSY_IMAGE_COMPRESSION, "00")
        .sequence(tags::SEQUENCE_OF_ULTRASOUND_REGIONS, vec![region()]);
    put_pixels(&mut set, PIXELS, pixels(&case));
    let instance = case.instance(&set);
    case.study(vec![instance])
}

const COLUMNS: usize = 640;
const ROWS: usize = 480;
const PIXELS: PixelFormat = PixelFormat {
    rows: ROWS as u16,
    columns: COLUMNS as u16,
    samples: 3,
    photometric: "RGB",
    allocated: 8,
    stored: 8,
    signed: false,
};
const PROBE: Series = Series {
    number: 1,
    modality: "US",
    description: "Abdomen",
    body_part: Some(("ABDOMEN", ABDOMEN)),
    manufacturer: "Sample Sound",
    model: "Probe 5",
};

/// The sector of the image that shows tissue, with its scale (PS3.3 C.8.5.5).
fn region() -> DataSet {
    let mut region = DataSet::new();
    region
        .u16(tags::REGION_SPATIAL_FORMAT, 1) // 2D
        .u16(tags::REGION_DATA_TYPE, 1) // tissue
        .u32(tags::REGION_FLAGS, 0)
        .u32(tags::REGION_LOCATION_MIN_X0, 40)
        .u32(tags::REGION_LOCATION_MIN_Y0, u32::from(ULTRASOUND_BANNER_ROWS))
        .u32(tags::REGION_LOCATION_MAX_X1, 599)
        .u32(tags::REGION_LOCATION_MAX_Y1, 469)
        .i32(tags::REFERENCE_PIXEL_X0, 280)
        .i32(tags::REFERENCE_PIXEL_Y0, 0)
        .u16(tags::PHYSICAL_UNITS_X_DIRECTION, 3) // cm
        .u16(tags::PHYSICAL_UNITS_Y_DIRECTION, 3)
        .f64(tags::PHYSICAL_DELTA_X, 0.04)
        .f64(tags::PHYSICAL_DELTA_Y, 0.04);
    region
}

fn pixels(case: &Case) -> Vec<u8> {
    let tissue = clouds(case.seed, "ultrasound tissue", COLUMNS, ROWS, 22.0);
    let fine = clouds(case.seed, "ultrasound fine", COLUMNS, ROWS, 3.0);
    let speckle = grain(case.seed, "ultrasound speckle", COLUMNS * ROWS);
    let mut pixels = Vec::with_capacity(COLUMNS * ROWS * 3);
    for (index, ((tissue, fine), speckle)) in tissue.iter().zip(&fine).zip(&speckle).enumerate() {
        let (x, y) = ((index % COLUMNS) as f32 - 320.0, (index / COLUMNS) as f32);
        let echo = echo(x, y, 0.6 + 0.2 * tissue) * (0.75 + 0.3 * fine + 0.22 * speckle);
        let grey = (echo * 150.0).round().clamp(0.0, 255.0);
        #[allow(clippy::cast_sign_loss)] // it was clamped to 0
        let grey = grey as u8;
        pixels.extend(match flow(x, y) {
            Some(true) if *fine > -0.5 => [235, 70, 40],
            Some(false) if *fine > -0.5 => [40, 70, 235],
            _ => [grey; 3],
        });
    }

    let Case { patient, order, .. } = case;
    let lines = [
        format!("{}  NHS {}", patient.name.replace('^', " "), patient.nhs_number),
        format!("BORN {}  {}  {}", patient.birth_date, order.institution, order.date),
    ];
    for (number, line) in lines.iter().enumerate() {
        let top = 8 + number * font::CELL.1 * 2 + number * 4;
        let scale = if line.len() * font::CELL.0 * 2 + 16 <= COLUMNS { 2 } else { 1 };
        font::stamp(line, COLUMNS, (8, top), scale, |index| {
            if let Some(pixel) = pixels.get_mut(index * 3..index * 3 + 3) {
                pixel.copy_from_slice(&[240, 240, 200]);
            }
        });
    }
    pixels
}

/// The strength of the echo in the sector below the probe, 0 outside; liver, gall bladder, diaphragm.
fn echo(x: f32, y: f32, liver: f32) -> f32 {
    let (depth, angle) = (x.hypot(y - 20.0), x.atan2(y - 20.0));
    if !(60.0..445.0).contains(&depth)
        || angle.abs() > 0.68
        || y < f32::from(ULTRASOUND_BANNER_ROWS)
    {
        return 0.0;
    }
    let inside = |centre: (f32, f32), half: (f32, f32)| {
        ((x - centre.0) / half.0).hypot((y - centre.1) / half.1)
    };
    let bladder = inside((-60.0, 230.0), (58.0, 30.0));
    let kidney = inside((110.0, 300.0), (72.0, 40.0));
    let diaphragm = (depth - 400.0 - 25.0 * (angle * 3.0).cos()).abs();
    let behind_bladder =
        if bladder >= 1.0 && y > 230.0 && (x + 60.0).abs() < 50.0 { 1.35 } else { 1.0 };
    let fading = 1.1 - depth / 700.0;
    let tissue = match () {
        () if bladder < 0.94 => 0.05,
        () if bladder < 1.06 => 1.3,
        () if kidney < 0.45 => 1.1,
        () if kidney < 0.95 => 0.38,
        () if diaphragm < 5.0 => 1.6,
        () if depth < 80.0 => 1.2,
        () => liver,
    };
    tissue * fading * behind_bladder
}

/// Colour Doppler: whether there is flow, and whether it is towards the probe.
fn flow(x: f32, y: f32) -> Option<bool> {
    let across = y - 285.0 + 0.25 * (x + 30.0);
    (across.abs() < 8.0 && (-110.0..30.0).contains(&x)).then_some(across < 0.0)
}
