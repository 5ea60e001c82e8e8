//! An MR of a healthy head, T2 weighted.

use dicom_dictionary_std::{tags, uids};

use crate::anatomy::{Head, Tissue};
use crate::canvas::{Canvas, grain};
use crate::head_ct::put_position;
use crate::instance::{Instance, Study};
use crate::modules::{BRAIN, Case, PixelFormat, Series, put_pixels};
use crate::random::Random;

/// One series of 12 axial slices of 256 x 256 pixels.
pub fn mr(seed: u64) -> Study {
    let case = Case::new(
        seed,
        "mr",
        "mr",
        ("816077007", "SCT", "Magnetic resonance imaging of brain"),
        ("MR Brain", "Headache, no focal deficit"),
    );
    let size = usize::from(SIZE);
    let head = Head::new(seed, 0.0, size, size, SPACING);
    let noise = grain(seed, "mr noise", size * size);
    let mut random = Random::new(seed, "mr slices");
    let instances =
        (0..SLICES).map(|index| slice(&case, &head, &noise, &mut random, index)).collect();
    case.study(instances)
}

const SLICES: u32 = 12;
const SIZE: u16 = 256;
/// mm per pixel.
const SPACING: f32 = 0.9;
const DISTANCE: f32 = 6.0;
const PIXELS: PixelFormat = PixelFormat {
    rows: SIZE,
    columns: SIZE,
    samples: 1,
    photometric: "MONOCHROME2",
    allocated: 16,
    stored: 12,
    signed: false,
};
const AXIAL: Series = Series {
    number: 4,
    modality: "MR",
    description: "T2 TSE axial",
    body_part: Some(("BRAIN", BRAIN)),
    manufacturer: "Sample Magnets",
    model: "Phantom 1.5T",
};

/// MR Image IOD (PS3.3 A.4).
fn slice(case: &Case, head: &Head, noise: &[f32], random: &mut Random, index: u32) -> Instance {
    let z = -16.0 + DISTANCE * index as f32;
    let (x, y, turn) = head.pose;
    let mut canvas =
        Canvas::new(usize::from(SIZE), usize::from(SIZE), SPACING, signal(Tissue::Air))
            .moved(x, y, turn);
    head.draw(&mut canvas, z, signal);

    let order = &case.order;
    let half = (f32::from(SIZE) - 1.0) / 2.0 * SPACING;
    let mut set = case.data_set(&AXIAL, uids::MR_IMAGE_STORAGE, index + 1);
    put_position(&mut set, [-half, -half, z], [1, 0, 0, 0, 1, 0], SPACING);
    set.text(tags::IMAGE_TYPE, "ORIGINAL\\PRIMARY\\OTHER")
        .text(tags::CONTENT_DATE, &order.date)
        .text(tags::CONTENT_TIME, &order.time)
        .text(tags::ACQUISITION_DATE, &order.date)
        .text(tags::ACQUISITION_TIME, &order.time)
        .integers(tags::ACQUISITION_NUMBER, &[1])
        .text(tags::PATIENT_POSITION, "HFS")
        .text(tags::FRAME_OF_REFERENCE_UID, &case.uid("frame of reference"))
        .empty(tags::POSITION_REFERENCE_INDICATOR)
        .decimals(tags::SLICE_THICKNESS, &[5.0])
        .decimals(tags::SPACING_BETWEEN_SLICES, &[f64::from(DISTANCE)])
        .decimals(tags::SLICE_LOCATION, &[f64::from(z)])
        .text(tags::SCANNING_SEQUENCE, "SE")
        .text(tags::SEQUENCE_VARIANT, "SK")
        .text(tags::SCAN_OPTIONS, "FC")
        .text(tags::MR_ACQUISITION_TYPE, "2D")
        .text(tags::SEQUENCE_NAME, "tse2d")
        .decimals(tags::REPETITION_TIME, &[4200.0])
        .decimals(tags::ECHO_TIME, &[98.0])
        .integers(tags::ECHO_TRAIN_LENGTH, &[15])
        .decimals(tags::MAGNETIC_FIELD_STRENGTH, &[1.5])
        .decimals(tags::FLIP_ANGLE, &[150.0])
        .decimals(tags::WINDOW_CENTER, &[620.0])
        .decimals(tags::WINDOW_WIDTH, &[1240.0])
        .text(tags::BURNED_IN_ANNOTATION, "NO");
    let start = random.below(canvas.values().len() as u64) as usize;
    let pixels = canvas
        .values()
        .iter()
        .zip(noise.get(start..).unwrap_or_default())
        .flat_map(|(signal, noise)| {
            ((signal + noise * 18.0).abs().min(4095.0) as i16).to_le_bytes()
        })
        .collect();
    put_pixels(&mut set, PIXELS, pixels);
    case.instance(&set)
}

fn signal(tissue: Tissue) -> f32 {
    match tissue {
        Tissue::Air => 6.0,
        Tissue::Skin => 420.0,
        Tissue::Fat => 820.0,
        Tissue::Bone => 40.0,
        Tissue::Marrow => 360.0,
        Tissue::Fluid | Tissue::Eye => 1150.0,
        Tissue::White => 390.0,
        Tissue::Grey => 560.0,
        Tissue::Blood => 250.0,
        Tissue::Falx => 180.0,
        Tissue::Calcium => 120.0,
    }
}
