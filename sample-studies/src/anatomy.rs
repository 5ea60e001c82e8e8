//! A head, drawn from ellipsoids.
//!
//! Millimetres, x towards the patient's left, y towards the back, z towards the top; zero is the middle of the
//! brain at the level of the third ventricle. What a tissue looks like is the modality's business.

use crate::canvas::{Canvas, Ellipse, Spot, clouds};
use crate::random::Random;

/// Height of the lowest and of the highest slice of a head, in mm.
pub(crate) const LOWEST: f32 = -58.0;
pub(crate) const HIGHEST: f32 = 92.0;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Tissue {
    Air,
    Skin,
    Fat,
    Bone,
    Marrow,
    Fluid,
    White,
    Grey,
    Blood,
    Falx,
    Calcium,
    Eye,
}

#[derive(Clone, Debug)]
pub(crate) struct Head {
    /// 1 or -1: the side of the subdural collection.
    side: f32,
    /// The collection's greatest thickness in mm; 0 for a healthy head.
    collection: f32,
    /// How far the head is turned and lies off the centre.
    pub(crate) pose: (f32, f32, f32),
    /// A measure of the head's size.
    size: f32,
    gyri: [Vec<f32>; 2],
}

struct Ellipsoid {
    centre: (f32, f32, f32),
    half: (f32, f32, f32),
    turn: f32,
    tissue: Tissue,
}

impl Head {
    pub(crate) fn new(
        seed: u64,
        collection: f32,
        columns: usize,
        rows: usize,
        spacing: f32,
    ) -> Self {
        let mut random = Random::new(seed, "head");
        let folds = |label| clouds(seed, label, columns, rows, 6.5 / spacing);
        Self {
            side: random.pick(&[1.0, -1.0]),
            collection,
            pose: (
                random.between(-6.0, 6.0),
                random.between(-4.0, 4.0),
                random.between(-0.08, 0.08),
            ),
            size: random.between(0.96, 1.03),
            gyri: [folds("gyri 1"), folds("gyri 2")],
        }
    }

    /// The side of the collection in the patient's words.
    pub(crate) fn side(&self) -> &'static str {
        if self.side > 0.0 { "left" } else { "right" }
    }

    /// Skin, outer and inner surface of the skull at a height, as ellipses.
    pub(crate) fn shells(&self, z: f32) -> [Option<Ellipse>; 3] {
        [(77.0, 97.0, 97.0), (71.5, 91.0, 91.0), (65.5, 84.5, 84.0)].map(
            |(half_x, half_y, height)| {
                let up = z - 5.0;
                let scale = if up > 0.0 {
                    1.0 - (up / height).powi(2)
                } else {
                    (1.0 - (up / 150.0).powi(2)).powi(2)
                };
                (scale > 0.0).then(|| {
                    let scale = scale.sqrt() * self.size;
                    Ellipse::new(0.0, 0.0, half_x * scale, half_y * scale)
                })
            },
        )
    }

    /// Thickness of the collection at a height, in mm.
    fn collection_at(&self, z: f32) -> f32 {
        self.collection * (1.0 - ((z - 28.0) / 52.0).powi(2)).max(0.0).sqrt()
    }

    /// Draws the slice at height `z` with the given value for each tissue.
    pub(crate) fn draw(&self, canvas: &mut Canvas, z: f32, value: impl Fn(Tissue) -> f32) {
        let [skin, outer, inner] = self.shells(z);
        if let Some(skin) = skin {
            canvas.fill(skin, value(Tissue::Skin));
            canvas.fill(
                Ellipse { half: (skin.half.0 - 1.8, skin.half.1 - 1.8), ..skin },
                value(Tissue::Fat),
            );
        }
        if let Some(inner) = inner {
            self.draw_brain(canvas, z, inner, &value);
        }
        match (outer, inner) {
            (Some(outer), Some(inner)) => {
                canvas.fill_ring(outer, inner, value(Tissue::Bone));
                let middle = |part: f32| {
                    let mix = |outer: f32, inner: f32| inner + (outer - inner) * part;
                    Ellipse {
                        half: (mix(outer.half.0, inner.half.0), mix(outer.half.1, inner.half.1)),
                        ..outer
                    }
                };
                canvas.fill_ring(middle(0.66), middle(0.38), value(Tissue::Marrow));
            }
            (Some(outer), None) => canvas.fill(outer, value(Tissue::Bone)),
            _ => {}
        }
        self.draw_parts(canvas, z, SKULL_BASE, 0.0, &value);
    }

    fn draw_brain(
        &self,
        canvas: &mut Canvas,
        z: f32,
        inner: Ellipse,
        value: &impl Fn(Tissue) -> f32,
    ) {
        let thickness = self.collection_at(z).min(inner.half.0 * 0.6);
        let shift = -self.side * thickness * 0.55;
        canvas.fill(inner, value(Tissue::Blood));
        // Moved away from the collection and narrower by half of it each: the crescent is what stays free.
        let brain = Ellipse {
            centre: (-self.side * thickness / 2.0, 0.0),
            half: (inner.half.0 - thickness / 2.0, inner.half.1),
            ..inner
        };
        self.draw_cortex(canvas, z, brain, value);
        self.draw_parts(canvas, z, DEEP, shift, value);

        // The fold between the hemispheres, fixed at both ends and pushed aside between them.
        if z > -20.0 {
            let (front, back) = (inner.half.1 * 0.66, inner.half.1 * 0.70);
            let reach = if z > 32.0 { inner.half.1 * 0.36 } else { 24.0 };
            let lean = (shift / inner.half.1).atan();
            for (y, lean, half_width, tissue) in [
                (-front, lean, 1.3, Tissue::Fluid),
                (back, -lean, 1.1, Tissue::Fluid),
                (-front, lean, 0.6, Tissue::Falx),
                (back, -lean, 0.7, Tissue::Falx),
            ] {
                let fold = Ellipse::new(shift * 0.35, y, half_width, reach).turned(lean);
                canvas.fill(fold, value(tissue));
            }
        }
    }

    fn draw_cortex(
        &self,
        canvas: &mut Canvas,
        z: f32,
        brain: Ellipse,
        value: &impl Fn(Tissue) -> f32,
    ) {
        let (white, grey, fluid) =
            (value(Tissue::White), value(Tissue::Grey), value(Tissue::Fluid));
        // The pattern of the folds changes slowly with height.
        let (first, second) = (z / 14.0).sin_cos();
        let [gyri_1, gyri_2] = &self.gyri;
        let at = |clouds: &[f32], index: usize| clouds.get(index).copied().unwrap_or_default();
        let cerebellum = z < -24.0;
        canvas.paint(brain, |Spot { index, depth, .. }| {
            let fold = at(gyri_1, index) * first + at(gyri_2, index) * second;
            if cerebellum {
                return grey + (white - grey) * (0.5 + 0.4 * fold);
            }
            let cortex = ((11.0 + 9.0 * fold - depth) / 3.0).clamp(0.12, 1.0);
            let tissue = white + (grey - white) * cortex;
            let furrow = (1.0 - fold.abs() * 5.0).max(0.0) * ((17.0 - depth) / 7.0).clamp(0.0, 1.0);
            tissue + (fluid - tissue) * furrow * 0.75
        });
    }

    fn draw_parts(
        &self,
        canvas: &mut Canvas,
        z: f32,
        parts: &[Ellipsoid],
        shift: f32,
        value: &impl Fn(Tissue) -> f32,
    ) {
        // The compressed ventricle lies on the side of the collection.
        let squeeze = shift.abs() / 14.0;
        for part in parts {
            let height = (z - part.centre.2) / part.half.2;
            if height.abs() >= 1.0 {
                continue;
            }
            let scale = (1.0 - height * height).sqrt().max(0.3);
            let sides: &[f32] = if part.centre.0 == 0.0 { &[1.0] } else { &[1.0, -1.0] };
            for &side in sides {
                let same =
                    side * self.side > 0.0 && part.centre.0 != 0.0 && part.tissue == Tissue::Fluid;
                let width = if same { 1.0 - squeeze } else { 1.0 };
                let ellipse = Ellipse {
                    centre: (side * part.centre.0 * self.size + shift, part.centre.1 * self.size),
                    half: (part.half.0 * scale * width, part.half.1 * scale),
                    turn: side * part.turn,
                };
                canvas.fill(ellipse, value(part.tissue));
            }
        }
    }

    /// How much matter a ray meets that crosses the head from side to side, for a scout; 1 is 1 mm of soft tissue.
    pub(crate) fn lateral_projection(&self, y: f32, z: f32) -> f32 {
        let [cranium, outer, inner] =
            self.shells(z).map(|shell| shell.map_or(0.0, |shell| shell.chord_at(y)));
        // Face, jaw and neck, which no axial slice shows.
        let ball = |(y0, z0): (f32, f32), (half_x, half_y, half_z): (f32, f32, f32)| {
            let distance = ((y - y0) / half_y).powi(2) + ((z - z0) / half_z).powi(2);
            2.0 * half_x * (1.0 - distance).max(0.0).sqrt()
        };
        let face = ball((-50.0, -72.0), (56.0, 42.0, 56.0));
        let jaw = ball((-42.0, -104.0), (14.0, 40.0, 11.0));
        let neck = if z < -40.0 { Ellipse::new(0.0, 20.0, 58.0, 50.0).chord_at(y) } else { 0.0 };
        let joints = 0.75 + 0.25 * (z / 3.2).sin().abs();
        let spine = if z < -62.0 {
            30.0 * joints * (1.0 - ((y - 22.0) / 13.0).powi(2)).max(0.0).sqrt()
        } else {
            0.0
        };
        let base = ball((-2.0, -46.0), (14.0, 48.0, 9.0)) + ball((18.0, -50.0), (16.0, 14.0, 14.0));
        let sinuses =
            ball((-62.0, -62.0), (24.0, 16.0, 20.0)) + ball((-30.0, -54.0), (14.0, 11.0, 8.0));
        let skull = (outer - inner).max(0.0) * ((z + 70.0) / 34.0).clamp(0.0, 1.0).powi(2);
        cranium.max(face).max(neck) + 2.4 * skull + 2.0 * jaw + spine + 2.0 * base - 1.3 * sinuses
    }
}

/// Parts inside the brain, drawn in this order; those off the midline stand for both sides.
const DEEP: &[Ellipsoid] = &[
    // Caudate and lentiform nuclei, thalami.
    part((13.0, -20.0, 8.0), (5.0, 9.0, 14.0), 0.2, Tissue::Grey),
    part((25.0, -5.0, 2.0), (7.0, 16.0, 13.0), -0.2, Tissue::Grey),
    part((9.0, 9.0, 3.0), (8.0, 12.0, 11.0), -0.4, Tissue::Grey),
    // Frontal horns, bodies, trigones and temporal horns of the lateral ventricles; third and fourth ventricle.
    part((8.5, -25.0, 8.0), (4.2, 12.0, 14.0), -0.25, Tissue::Fluid),
    part((11.0, 2.0, 22.0), (5.0, 27.0, 11.0), -0.14, Tissue::Fluid),
    part((22.0, 30.0, 6.0), (5.5, 13.0, 14.0), 0.42, Tissue::Fluid),
    part((0.0, 0.0, -4.0), (1.9, 11.0, 10.0), 0.0, Tissue::Fluid),
    part((0.0, 34.0, -38.0), (5.5, 4.5, 12.0), 0.0, Tissue::Fluid),
    // Sylvian fissures, cisterns.
    part((49.0, -14.0, 0.0), (1.6, 15.0, 18.0), 0.55, Tissue::Fluid),
    part((0.0, -14.0, -20.0), (9.0, 8.0, 7.0), 0.0, Tissue::Fluid),
    part((11.0, -5.0, -20.0), (2.4, 14.0, 8.0), 0.9, Tissue::Fluid),
    part((0.0, 26.0, -12.0), (9.0, 2.6, 8.0), 0.0, Tissue::Fluid),
    // Pineal gland and choroid plexus are calcified in most adults.
    part((0.0, 15.0, -2.0), (2.2, 2.6, 4.0), 0.0, Tissue::Calcium),
    part((23.0, 30.0, 5.0), (2.0, 3.2, 5.0), 0.4, Tissue::Calcium),
];

/// Skull base and face, drawn last.
const SKULL_BASE: &[Ellipsoid] = &[
    part((34.0, 14.0, -48.0), (27.0, 7.0, 11.0), -0.6, Tissue::Bone),
    part((52.0, 26.0, -50.0), (8.0, 11.0, 14.0), 0.0, Tissue::Air),
    part((36.0, -30.0, -54.0), (24.0, 3.5, 14.0), 0.55, Tissue::Bone),
    part((30.0, -52.0, -50.0), (16.5, 20.0, 14.0), 0.2, Tissue::Bone),
    part((30.0, -54.0, -50.0), (14.5, 18.5, 13.0), 0.2, Tissue::Fat),
    part((31.0, -62.0, -50.0), (11.5, 11.5, 11.5), 0.0, Tissue::Eye),
    part((31.0, -43.0, -50.0), (2.0, 14.0, 5.0), 0.3, Tissue::Grey),
    part((0.0, -50.0, -52.0), (12.0, 22.0, 14.0), 0.0, Tissue::Bone),
    part((5.0, -50.0, -52.0), (4.2, 20.0, 13.0), 0.0, Tissue::Air),
    part((0.0, -24.0, -52.0), (13.0, 9.0, 8.0), 0.0, Tissue::Air),
    part((9.0, -86.0, -22.0), (8.0, 2.6, 12.0), 0.1, Tissue::Air),
];

const fn part(
    centre: (f32, f32, f32),
    half: (f32, f32, f32),
    turn: f32,
    tissue: Tissue,
) -> Ellipsoid {
    Ellipsoid { centre, half, turn, tissue }
}
