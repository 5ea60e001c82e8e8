//! A chest radiograph from a plate reader, the kind of device whose header carries address and telephone too.

use dicom_dictionary_std::{tags, uids};

use crate::canvas::{Canvas, Ellipse, grain};
use crate::encoding::SequenceLengths;
use crate::font;
use crate::instance::Study;
use crate::modules::{CHEST, Case, PixelFormat, Series, put_pixels};
use crate::random::Random;

/// One image of 1024 x 1024 pixels, with sequences of defined length.
pub fn chest_cr(seed: u64) -> Study {
    let mut case = Case::new(
        seed,
        "chest-cr",
        "chest",
        ("399208008", "SCT", "Plain X-ray of chest"),
        ("XR Chest", "Cough and fever for a week"),
    );
    case.lengths = SequenceLengths::Defined;
    let order = &case.order;
    // Computed Radiography Image IOD (PS3.3 A.2).
    let mut set = case.data_set(&PLATE, uids::COMPUTED_RADIOGRAPHY_IMAGE_STORAGE, 1);
    set.text(tags::PATIENT_ADDRESS, &case.patient.address)
        .text(tags::PATIENT_TELEPHONE_NUMBERS, &case.patient.telephone)
        .text(tags::IMAGE_TYPE, "ORIGINAL\\PRIMARY")
        .text(tags::CONTENT_DATE, &order.date)
        .text(tags::CONTENT_TIME, &order.time)
        .text(tags::ACQUISITION_DATE, &order.date)
        .text(tags::ACQUISITION_TIME, &order.time)
        .text(tags::PATIENT_ORIENTATION, "L\\F")
        .text(tags::VIEW_POSITION, "PA")
        .decimals(tags::KVP, &[125.0])
        .integers(tags::EXPOSURE, &[2])
        .text(tags::PLATE_ID, "PL0042")
        .decimals(tags::IMAGER_PIXEL_SPACING, &[f64::from(SPACING), f64::from(SPACING)])
        .decimals(tags::WINDOW_CENTER, &[2048.0])
        .decimals(tags::WINDOW_WIDTH, &[4096.0])
        .text(tags::BURNED_IN_ANNOTATION, "NO")
        .text(tags::LOSSY_IMAGE_COMPRESSION, "00");
    put_pixels(&mut set, PIXELS, pixels(seed));
    let instance = case.instance(&set);
    case.study(vec![instance])
}

const SIZE: u16 = 1024;
/// mm per pixel.
const SPACING: f32 = 0.4;
const PIXELS: PixelFormat = PixelFormat {
    rows: SIZE,
    columns: SIZE,
    samples: 1,
    photometric: "MONOCHROME2",
    allocated: 16,
    stored: 12,
    signed: false,
};
const PLATE: Series = Series {
    number: 1,
    modality: "CR",
    description: "Chest PA",
    body_part: Some(("CHEST", CHEST)),
    manufacturer: "Sample Plates",
    model: "Reader 2",
};

/// What the rays met, bright where they met much; the patient faces the reader, the heart is on the right.
fn pixels(seed: u64) -> Vec<u8> {
    let size = usize::from(SIZE);
    let mut random = Random::new(seed, "chest");
    let wide = random.between(0.94, 1.05);
    let mut canvas =
        Canvas::new(size, size, SPACING, 150.0).moved(0.0, 0.0, random.between(-0.03, 0.03));

    // Trunk, neck, shoulders, abdomen below the diaphragm.
    canvas.add_soft(Ellipse::new(0.0, 60.0, 178.0 * wide, 300.0), 60.0, 1250.0);
    canvas.add_soft(Ellipse::new(0.0, -200.0, 52.0, 90.0), 40.0, 450.0);
    for side in [-1.0, 1.0] {
        canvas.add_soft(
            Ellipse::new(side * 165.0, -120.0, 70.0, 40.0).turned(side * 0.5),
            30.0,
            450.0,
        );
        canvas.add_soft(
            Ellipse::new(side * 86.0 * wide, 175.0 + side * 8.0, 92.0 * wide, 80.0),
            7.0,
            800.0,
        );
    }
    canvas.add_soft(Ellipse::new(0.0, 190.0, 150.0, 60.0), 30.0, 300.0);
    // Lungs, in their middle with vessels from the hilum.
    for side in [-1.0, 1.0] {
        let lung = Ellipse::new(side * 76.0 * wide, 0.0, 60.0 * wide, 128.0).turned(side * -0.07);
        canvas.add_soft(lung, 14.0, -850.0);
        for branch in 0..20_i16 {
            let angle = f32::from(branch) * 0.31 + random.between(-0.15, 0.15);
            let length = random.between(22.0, 48.0);
            let (sin, cos) = angle.sin_cos();
            let vessel = Ellipse::new(
                side * 36.0 + cos * (length + 7.0),
                sin * (length + 7.0) - 2.0,
                length,
                random.between(1.2, 2.6),
            );
            canvas.add_soft(vessel.turned(angle), 4.0, 150.0);
        }
        canvas.add_soft(Ellipse::new(side * 34.0, -2.0, 15.0, 24.0), 16.0, 330.0);
    }
    // Spine, aortic arch, heart.
    canvas.add_soft(Ellipse::new(0.0, 0.0, 21.0, 340.0), 14.0, 650.0);
    for vertebra in -9..10_i16 {
        canvas.add_soft(Ellipse::new(0.0, f32::from(vertebra) * 24.0, 17.0, 9.5), 4.0, 120.0);
    }
    canvas.add_soft(Ellipse::new(16.0, -62.0, 24.0, 26.0), 10.0, 330.0);
    canvas.add_soft(Ellipse::new(24.0, 62.0, 68.0 * wide, 56.0).turned(0.55), 12.0, 850.0);
    // Each rib as a flat oblique ring: its back part falls outwards, its front part rises to the breastbone.
    for rib in 0..10_i16 {
        let y = -128.0 + f32::from(rib) * 25.0;
        let reach = (48.0 + f32::from(rib) * 6.0).min(72.0) * wide;
        for side in [-1.0, 1.0] {
            let ring =
                Ellipse::new(side * (18.0 + reach), y + 16.0, reach, 17.0).turned(side * 0.38);
            canvas.add(ring, 4.0, |depth| 230.0 * (1.0 - (depth / 3.9).abs()).max(0.0));
        }
    }
    for side in [-1.0, 1.0] {
        let clavicle = Ellipse::new(side * 78.0, -138.0, 72.0, 5.5).turned(side * -0.16);
        canvas.add_soft(clavicle, 4.0, 420.0);
        let scapula = Ellipse::new(side * 150.0, -70.0, 14.0, 70.0).turned(side * -0.22);
        canvas.add_soft(scapula, 8.0, 260.0);
    }

    let noise = grain(seed, "chest noise", size * size);
    let mut values: Vec<i16> = canvas
        .values()
        .iter()
        .zip(&noise)
        .map(|(value, noise)| (value * 1.15 + noise * 14.0).clamp(0.0, 4095.0) as i16)
        .collect();
    // The lead letter on the patient's left side.
    font::stamp("L", size, (930, 60), 8, |index| {
        if let Some(pixel) = values.get_mut(index) {
            *pixel = 4000;
        }
    });
    values.into_iter().flat_map(i16::to_le_bytes).collect()
}
