//! Instances in numbers, for benches: CT slices of the usual size, and objects so small that only the work per
//! instance counts.

use dicom_dictionary_std::{tags, uids};

use crate::head_ct::HeadCt;
use crate::instance::{Instance, Study};
use crate::modules::{Case, HEAD, PixelFormat, Series, put_pixels};
use crate::random::Random;

/// One series of `n` axial CT slices, 527 kB each.
pub fn ct_series(seed: u64, n: u32) -> Study {
    ct_case(seed).study(ct_slices(seed, n).collect())
}

/// The slices of [`ct_series`] one by one, for more of them than memory holds.
pub fn ct_slices(seed: u64, n: u32) -> impl Iterator<Item = Instance> {
    HeadCt { seed, thick_slices: 0, thin_slices: n, scout: false }.instances_of(ct_case(seed))
}

fn ct_case(seed: u64) -> Case {
    let procedure = ("303653007", "SCT", "Computed tomography of head");
    Case::new(seed, "ct-series", "ct-series", procedure, ("CT Head", "Follow-up"))
}

/// `n` Secondary Capture images of 48 x 40 pixels, with a data set of about 4 kB each.
pub fn small_objects(seed: u64, n: u32) -> Study {
    small_study(seed, "small-objects", n, |_case| {})
}

/// As [`small_objects`], for a case that `change` makes different.
pub(crate) fn small_study(seed: u64, name: &str, n: u32, change: impl FnOnce(&mut Case)) -> Study {
    let mut case = Case::new(
        seed,
        name,
        name,
        ("303653007", "SCT", "Computed tomography of head"),
        ("Thumbnails", "Overview"),
    );
    change(&mut case);
    let mut random = Random::new(seed, "small objects");
    let instances = (1..=n).map(|number| small_object(&case, &mut random, number)).collect();
    case.study(instances)
}

const THUMBNAIL: PixelFormat = PixelFormat {
    rows: 40,
    columns: 48,
    samples: 1,
    photometric: "MONOCHROME2",
    allocated: 8,
    stored: 8,
    signed: false,
};

const THUMBNAILS: Series = Series {
    number: 1,
    modality: "OT",
    description: "Thumbnails",
    body_part: Some(("HEAD", HEAD)),
    manufacturer: "Sample Scanners",
    model: "Thumbnailer",
};

/// Secondary Capture Image IOD (PS3.3 A.8.1).
fn small_object(case: &Case, random: &mut Random, number: u32) -> Instance {
    let mut set = case.data_set(&THUMBNAILS, uids::SECONDARY_CAPTURE_IMAGE_STORAGE, number);
    set.text(tags::CONVERSION_TYPE, "WSD")
        .text(tags::IMAGE_TYPE, "DERIVED\\SECONDARY")
        .text(tags::CONTENT_DATE, &case.order.date)
        .text(tags::CONTENT_TIME, &case.order.time)
        .empty(tags::PATIENT_ORIENTATION)
        .text(tags::BURNED_IN_ANNOTATION, "NO");
    let brightness = random.below(128) as u8;
    let pixels = (0..THUMBNAIL.rows)
        .flat_map(|y| (0..THUMBNAIL.columns).map(move |x| brightness + (x as u8 + y as u8)))
        .collect();
    put_pixels(&mut set, THUMBNAIL, pixels);
    case.instance(&set)
}
