//! A CT of the head, taken at night because of a fall: a subdural collection that displaces the midline.

use dicom_dictionary_std::{tags, uids};

use crate::anatomy::{HIGHEST, Head, LOWEST, Tissue};
use crate::canvas::{Canvas, Ellipse, grain};
use crate::data_set::DataSet;
use crate::identifiers::{Order, Patient};
use crate::instance::{Instance, Study};
use crate::modules::{Case, HEAD, PixelFormat, Series, code, put_pixels, reference};
use crate::random::Random;

/// A head CT of three series: scout (series 1), thick axial slices (2), thin axial slices (3).
///
/// Each image has 512 x 512 pixels of 16 bits, 527 kB. Studies of the same seed have the same UIDs whatever their
/// number of slices, and then slices at other heights: take another seed for a second study in the same place.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct HeadCt {
    /// Decides patient, UIDs, shape of the head and side of the bleeding.
    pub seed: u64,
    /// Number of slices of the thick series; 30 slices of 5 mm cover the head.
    pub thick_slices: u32,
    /// Number of slices of the thin series; 240 slices of 0.625 mm cover the head.
    pub thin_slices: u32,
    /// Whether there is a scout.
    pub scout: bool,
}

impl HeadCt {
    /// The whole examination: 271 images, 142 MB.
    pub const fn new(seed: u64) -> Self {
        Self { seed, thick_slices: 30, thin_slices: 240, scout: true }
    }

    /// One scout, three thick and four thin slices, spread over the head: for tests.
    pub const fn small(seed: u64) -> Self {
        Self { seed, thick_slices: 3, thin_slices: 4, scout: true }
    }

    /// The number of images.
    pub fn len(self) -> usize {
        self.thick_slices as usize + self.thin_slices as usize + usize::from(self.scout)
    }

    /// Whether no image was asked for.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Whose study it is.
    pub fn patient(self) -> Patient {
        self.case().patient
    }

    /// Who asked for it and where it was done.
    pub fn order(self) -> Order {
        self.case().order
    }

    /// The images one by one, scout first, so that not all of them are in memory.
    pub fn instances(self) -> impl Iterator<Item = Instance> {
        self.instances_of(self.case())
    }

    /// The images as a study of their own, apart from the head CT of the same seed.
    pub(crate) fn instances_of(self, case: Case) -> impl Iterator<Item = Instance> {
        let mut scanner = Scanner::new(case);
        let scout = self.scout.then_some(Image::Scout);
        let thick =
            (0..self.thick_slices).map(move |index| Image::Thick { index, of: self.thick_slices });
        let thin =
            (0..self.thin_slices).map(move |index| Image::Thin { index, of: self.thin_slices });
        scout.into_iter().chain(thick).chain(thin).map(move |image| scanner.take(image))
    }

    /// All images.
    pub fn build(self) -> Study {
        self.case().study(self.instances().collect())
    }

    fn case(self) -> Case {
        case(self.seed)
    }
}

/// Study and patient of the head CT of this seed; a report refers to them.
pub(crate) fn case(seed: u64) -> Case {
    let mut case = Case::new(
        seed,
        "head-ct",
        PATIENT,
        ("303653007", "SCT", "Computed tomography of head"),
        ("CT Head", "Fall downstairs, GCS 13, on apixaban. Bleed?"),
    );
    // Late in the night, which is the story this study is for.
    case.order.time = format!("02{:02}{:02}", case.seed % 60, 14);
    case.order.requesting_service = "Emergency Department";
    case
}

pub(crate) const PATIENT: &str = "head";

/// The side of the collection of the head CT of this seed.
pub(crate) fn side(seed: u64) -> &'static str {
    Head::new(seed, COLLECTION, 1, 1, 1.0).side()
}

/// The greatest thickness of the collection in mm.
pub(crate) const COLLECTION: f32 = 13.0;

const SIZE: u16 = 512;
/// mm per pixel, for a field of view of 235 mm.
const SPACING: f32 = 0.459;
/// mm per pixel of the scout.
const SCOUT_SPACING: f32 = 0.6;
const PIXELS: PixelFormat = PixelFormat {
    rows: SIZE,
    columns: SIZE,
    samples: 1,
    photometric: "MONOCHROME2",
    allocated: 16,
    stored: 16,
    signed: true,
};
/// Stored value 0 is -1024 HU.
const INTERCEPT: f32 = -1024.0;

pub(crate) const SCOUT: Series = Series {
    number: 1,
    modality: "CT",
    description: "Scout",
    body_part: Some(("HEAD", HEAD)),
    manufacturer: "Sample Scanners",
    model: "Phantom 64",
};
pub(crate) const THICK: Series = Series { number: 2, description: "Head 5.0 axial", ..SCOUT };
const THIN: Series = Series { number: 3, description: "Head 0.625 axial", ..SCOUT };

#[derive(Clone, Copy)]
enum Image {
    Scout,
    Thick { index: u32, of: u32 },
    Thin { index: u32, of: u32 },
}

struct Scanner {
    case: Case,
    head: Head,
    canvas: Canvas,
    noise: Vec<f32>,
    random: Random,
}

impl Scanner {
    fn new(case: Case) -> Self {
        let size = usize::from(SIZE);
        let head = Head::new(case.seed, COLLECTION, size, size, SPACING);
        let (x, y, turn) = head.pose;
        Self {
            canvas: Canvas::new(size, size, SPACING, 0.0).moved(x, y, turn),
            noise: grain(case.seed, "ct noise", size * size),
            random: Random::new(case.seed, "ct slices"),
            head,
            case,
        }
    }

    fn take(&mut self, image: Image) -> Instance {
        match image {
            Image::Scout => self.scout(),
            Image::Thick { index, of } => self.slice(&THICK, index, of, 5.0, 2.2),
            Image::Thin { index, of } => self.slice(&THIN, index, of, 0.625, 4.6),
        }
    }

    /// One axial slice; noise is the standard deviation in HU.
    fn slice(
        &mut self,
        series: &Series,
        index: u32,
        of: u32,
        thickness: f32,
        noise: f32,
    ) -> Instance {
        let z = height_of(index, of);
        self.canvas.clear(hounsfield(Tissue::Air));
        // The head rest, a shell of carbon fibre open at the front.
        let rest = Ellipse::new(0.0, 8.0, 92.0, 108.0);
        self.canvas.fill_ring(rest, Ellipse { half: (90.0, 106.0), ..rest }, -720.0);
        self.canvas.fill(Ellipse::new(0.0, -100.0, 108.0, 165.0), hounsfield(Tissue::Air));
        self.head.draw(&mut self.canvas, z, hounsfield);

        let instance = index + 1;
        let half = (f32::from(SIZE) - 1.0) / 2.0 * SPACING;
        let mut set = self.image(series, instance, "ORIGINAL\\PRIMARY\\AXIAL");
        put_position(&mut set, [-half, -half, z], [1, 0, 0, 0, 1, 0], SPACING);
        let mut scout =
            reference(uids::CT_IMAGE_STORAGE, &self.case.sop_instance_uid(SCOUT.number, 1));
        scout.sequence(
            tags::PURPOSE_OF_REFERENCE_CODE_SEQUENCE,
            vec![code(("121311", "DCM", "Localizer"))],
        );
        set.sequence(tags::REFERENCED_IMAGE_SEQUENCE, vec![scout])
            .decimals(tags::SLICE_THICKNESS, &[f64::from(thickness)])
            .decimals(tags::SLICE_LOCATION, &[f64::from(z)])
            .text(tags::RESCALE_TYPE, "HU")
            .text(tags::SCAN_OPTIONS, "HELICAL MODE")
            .text(tags::CONVOLUTION_KERNEL, "SOFT")
            .decimals(tags::WINDOW_CENTER, &[40.0, 75.0, 600.0])
            .decimals(tags::WINDOW_WIDTH, &[80.0, 215.0, 2800.0])
            .text(tags::WINDOW_CENTER_WIDTH_EXPLANATION, "BRAIN\\SUBDURAL\\BONE");
        let pixels = self.pixels(noise);
        put_pixels(&mut set, PIXELS, pixels);
        self.case.instance(&set)
    }

    /// The head from the side, with the front on the left.
    fn scout(&mut self) -> Instance {
        let size = usize::from(SIZE);
        let half = (f32::from(SIZE) - 1.0) / 2.0 * SCOUT_SPACING;
        let (top, front) = (half + 10.0, -half);
        let head = &self.head;
        for (row, values) in self.canvas.values_mut().chunks_exact_mut(size).enumerate() {
            let z = top - row as f32 * SCOUT_SPACING;
            for (column, value) in values.iter_mut().enumerate() {
                let y = front + column as f32 * SCOUT_SPACING;
                *value = head.lateral_projection(y, z) * 5.0 - 1000.0;
            }
        }

        let mut set = self.image(&SCOUT, 1, "ORIGINAL\\PRIMARY\\LOCALIZER");
        put_position(&mut set, [0.0, front, top], [0, 1, 0, 0, 0, -1], SCOUT_SPACING);
        set.decimals(tags::SLICE_THICKNESS, &[0.6])
            .text(tags::SCAN_OPTIONS, "SCOUT MODE")
            .decimals(tags::WINDOW_CENTER, &[100.0])
            .decimals(tags::WINDOW_WIDTH, &[1900.0]);
        let pixels = self.pixels(9.0);
        put_pixels(&mut set, PIXELS, pixels);
        self.case.instance(&set)
    }

    /// General Image, Frame of Reference and CT Image (PS3.3 C.7.6.1, C.7.4.1, C.8.2.1).
    fn image(&self, series: &Series, instance: u32, image_type: &str) -> DataSet {
        let order = &self.case.order;
        let mut set = self.case.data_set(series, uids::CT_IMAGE_STORAGE, instance);
        set.text(tags::IMAGE_TYPE, image_type)
            .text(tags::CONTENT_DATE, &order.date)
            .text(tags::CONTENT_TIME, &order.time)
            .text(tags::ACQUISITION_DATE, &order.date)
            .text(tags::ACQUISITION_TIME, &order.time)
            .integers(tags::ACQUISITION_NUMBER, &[i64::from(series.number)])
            .text(tags::PATIENT_POSITION, "HFS")
            .text(tags::FRAME_OF_REFERENCE_UID, &self.case.uid("frame of reference"))
            .empty(tags::POSITION_REFERENCE_INDICATOR)
            .decimals(tags::KVP, &[120.0])
            .integers(tags::X_RAY_TUBE_CURRENT, &[220])
            .integers(tags::EXPOSURE_TIME, &[1000])
            .decimals(tags::GANTRY_DETECTOR_TILT, &[0.0])
            .decimals(tags::RESCALE_INTERCEPT, &[f64::from(INTERCEPT)])
            .decimals(tags::RESCALE_SLOPE, &[1.0])
            .text(tags::BURNED_IN_ANNOTATION, "NO")
            .text(tags::LOSSY_IMAGE_COMPRESSION, "00");
        set
    }

    /// The drawn slice with noise as stored values, little endian.
    fn pixels(&mut self, noise: f32) -> Vec<u8> {
        let values = self.canvas.values();
        let start = self.random.below(values.len() as u64) as usize;
        let grain = self.noise.get(start..).unwrap_or_default();
        let mut pixels = Vec::with_capacity(values.len() * 2);
        for (value, grain) in values.iter().zip(grain) {
            let stored = (value + grain * noise - INTERCEPT + 0.5) as i16;
            pixels.extend_from_slice(&stored.max(0).to_le_bytes());
        }
        pixels
    }
}

/// Slices go from the bottom to the top, evenly, and never lie on the same height twice.
fn height_of(index: u32, of: u32) -> f32 {
    LOWEST + (HIGHEST - LOWEST) * (index as f32 + 0.5) / of.max(1) as f32
}

/// Image Plane (PS3.3 C.7.6.2).
pub(crate) fn put_position(
    set: &mut DataSet,
    corner: [f32; 3],
    orientation: [i8; 6],
    spacing: f32,
) {
    set.decimals(tags::IMAGE_POSITION_PATIENT, &corner.map(f64::from))
        .decimals(tags::IMAGE_ORIENTATION_PATIENT, &orientation.map(f64::from))
        .decimals(tags::PIXEL_SPACING, &[f64::from(spacing), f64::from(spacing)]);
}

fn hounsfield(tissue: Tissue) -> f32 {
    match tissue {
        Tissue::Air => -1000.0,
        Tissue::Skin => 45.0,
        Tissue::Fat => -70.0,
        Tissue::Bone => 1150.0,
        Tissue::Marrow => 650.0,
        Tissue::Fluid => 7.0,
        Tissue::White => 29.0,
        Tissue::Grey => 38.0,
        Tissue::Blood => 67.0,
        Tissue::Falx => 52.0,
        Tissue::Calcium => 160.0,
        Tissue::Eye => 18.0,
    }
}
