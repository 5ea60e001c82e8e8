//! A grey picture in millimetres, and the few shapes that bodies are drawn with here.
//!
//! Shapes have soft edges of one pixel, as the partial volume effect makes them. Rows are painted in spans, so
//! a large shape costs little more than filling memory; a CT series of hundreds of slices depends on that.

#![allow(clippy::cast_sign_loss)] // every cast to a pixel number follows a `max(0.0)` or a sum of sizes

use crate::random::Random;

/// Grey values, row by row.
#[derive(Clone, Debug)]
pub(crate) struct Canvas {
    pub(crate) columns: usize,
    pub(crate) rows: usize,
    /// Distance of pixels, in mm.
    spacing: f32,
    /// Where the origin of the shapes lies, in mm right of and below the centre, and how far they are turned.
    offset: (f32, f32),
    turn: f32,
    values: Vec<f32>,
}

/// An ellipse: centre and half axes in mm, turned clockwise by `turn` radians.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ellipse {
    pub(crate) centre: (f32, f32),
    pub(crate) half: (f32, f32),
    pub(crate) turn: f32,
}

impl Ellipse {
    pub(crate) fn new(x: f32, y: f32, half_x: f32, half_y: f32) -> Self {
        Self { centre: (x, y), half: (half_x, half_y), turn: 0.0 }
    }

    pub(crate) fn turned(self, turn: f32) -> Self {
        Self { turn, ..self }
    }

    /// Twice the chord through the ellipse along x at height `y`, for ellipses that are not turned.
    pub(crate) fn chord_at(self, y: f32) -> f32 {
        let v = (y - self.centre.1) / self.half.1;
        2.0 * self.half.0 * (1.0 - v * v).max(0.0).sqrt()
    }
}

/// What a painter may look at: which pixel it is, and how deep inside the shape it lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spot {
    pub(crate) index: usize,
    /// Distance to the edge in mm, roughly.
    pub(crate) depth: f32,
}

impl Canvas {
    pub(crate) fn new(columns: usize, rows: usize, spacing: f32, background: f32) -> Self {
        let values = vec![background; columns * rows];
        Self { columns, rows, spacing, offset: (0.0, 0.0), turn: 0.0, values }
    }

    pub(crate) fn moved(mut self, x: f32, y: f32, turn: f32) -> Self {
        self.offset = (x, y);
        self.turn = turn;
        self
    }

    pub(crate) fn clear(&mut self, background: f32) {
        self.values.fill(background);
    }

    pub(crate) fn values(&self) -> &[f32] {
        &self.values
    }

    pub(crate) fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    /// Fills an ellipse.
    pub(crate) fn fill(&mut self, ellipse: Ellipse, value: f32) {
        let outline = self.outline(ellipse);
        self.each_row(outline, |row, columns, quadratic| {
            let (left, body, right) = quadratic.spans(columns);
            if let Some(body) = row.get_mut(body.clone()) {
                body.fill(value);
            }
            for x in left.chain(right) {
                if let Some(pixel) = row.get_mut(x) {
                    *pixel += (value - *pixel) * quadratic.coverage(x);
                }
            }
        });
    }

    /// Fills what lies inside `outer` and outside `inner`, which must lie within it.
    pub(crate) fn fill_ring(&mut self, outer: Ellipse, inner: Ellipse, value: f32) {
        let hole = self.outline(inner);
        let outline = self.outline(outer);
        self.each_row(outline, |row, columns, quadratic| {
            let hole = hole.at(quadratic.row);
            let (hole_left, hole_body, hole_right) = hole.spans(columns);
            let (left, body, right) = quadratic.spans(columns);
            // Three stretches: to the hole's inside, its inside (untouched), and from there on.
            let (first, second) = if hole_body.is_empty() {
                (left.start..right.end, 0..0)
            } else {
                (left.start..hole_body.start, hole_body.end..right.end)
            };
            let solid = |x: usize| {
                body.contains(&x)
                    && (x < hole_left.start
                        || x >= hole_right.end
                        || hole_left.start >= hole_right.end)
            };
            for x in first.chain(second) {
                if let Some(pixel) = row.get_mut(x) {
                    let coverage = if solid(x) {
                        1.0
                    } else {
                        quadratic.coverage(x) * (1.0 - hole.coverage(x))
                    };
                    *pixel += (value - *pixel) * coverage;
                }
            }
        });
    }

    /// Paints each pixel of an ellipse with a value of its own.
    pub(crate) fn paint(&mut self, ellipse: Ellipse, painter: impl Fn(Spot) -> f32) {
        let outline = self.outline(ellipse);
        let reach = ellipse.half.0.min(ellipse.half.1);
        self.each_row(outline, |row, columns, quadratic| {
            let (left, _, right) = quadratic.spans(columns);
            for x in left.start..right.end {
                if let Some(pixel) = row.get_mut(x) {
                    let distance = quadratic.distance(x);
                    let coverage = ((1.0 - distance) / quadratic.edge * 0.5 + 0.5).clamp(0.0, 1.0);
                    let spot = Spot {
                        index: quadratic.row * columns + x,
                        depth: (1.0 - distance) * reach,
                    };
                    *pixel += (painter(spot) - *pixel) * coverage;
                }
            }
        });
    }

    /// Adds a value that depends on the depth inside the ellipse in mm, which is negative outside, as far out as
    /// `beyond`: what rays meet on their way adds up.
    pub(crate) fn add(&mut self, ellipse: Ellipse, beyond: f32, profile: impl Fn(f32) -> f32) {
        let reach = ellipse.half.0.min(ellipse.half.1);
        let farthest = 1.0 + beyond / reach;
        let grown =
            Ellipse { half: (ellipse.half.0 * farthest, ellipse.half.1 * farthest), ..ellipse };
        let rows = self.outline(grown);
        let outline = Outline { top: rows.top, bottom: rows.bottom, ..self.outline(ellipse) };
        self.each_row(outline, |row, columns, quadratic| {
            for x in quadratic.chord(farthest, columns) {
                if let Some(pixel) = row.get_mut(x) {
                    *pixel += profile((1.0 - quadratic.distance(x)) * reach);
                }
            }
        });
    }

    /// Adds `height` inside the ellipse, rising over `edge` mm across its outline.
    pub(crate) fn add_soft(&mut self, ellipse: Ellipse, edge: f32, height: f32) {
        self.add(ellipse, edge / 2.0, |depth| {
            let rise = (depth / edge + 0.5).clamp(0.0, 1.0);
            height * rise * rise * (3.0 - 2.0 * rise)
        });
    }

    fn each_row(&mut self, outline: Outline, mut paint: impl FnMut(&mut [f32], usize, Quadratic)) {
        let columns = self.columns;
        let (first, end) =
            (outline.top.max(0.0) as usize, (outline.bottom.max(0.0) as usize + 1).min(self.rows));
        for (y, row) in self.values.chunks_exact_mut(columns).enumerate().take(end).skip(first) {
            paint(row, columns, outline.at(y));
        }
    }

    /// The ellipse in pixels, as the form A x² + 2 B x y + C y² around its centre.
    fn outline(&self, ellipse: Ellipse) -> Outline {
        let (sin, cos) = self.turn.sin_cos();
        let (x, y) = ellipse.centre;
        let centre = (
            (x * cos - y * sin + self.offset.0) / self.spacing + (self.columns as f32 - 1.0) / 2.0,
            (x * sin + y * cos + self.offset.1) / self.spacing + (self.rows as f32 - 1.0) / 2.0,
        );
        let half =
            ((ellipse.half.0 / self.spacing).max(0.3), (ellipse.half.1 / self.spacing).max(0.3));
        let (sin, cos) = (self.turn + ellipse.turn).sin_cos();
        let (u, v) = (half.0.powi(-2), half.1.powi(-2));
        let height = (half.0 * sin).hypot(half.1 * cos) + 1.0;
        Outline {
            centre,
            a: cos * cos * u + sin * sin * v,
            b: sin * cos * (u - v),
            c: sin * sin * u + cos * cos * v,
            edge: 0.5 / half.0.min(half.1),
            top: centre.1 - height,
            bottom: centre.1 + height,
        }
    }
}

#[derive(Clone, Copy)]
struct Outline {
    centre: (f32, f32),
    a: f32,
    b: f32,
    c: f32,
    /// Half a pixel as a part of the shorter half axis.
    edge: f32,
    top: f32,
    bottom: f32,
}

impl Outline {
    fn at(self, row: usize) -> Quadratic {
        let y = row as f32 - self.centre.1;
        Quadratic {
            centre: self.centre.0,
            a: self.a,
            b: self.b * y,
            c: self.c * y * y,
            edge: self.edge,
            row,
        }
    }
}

/// The square of the distance from the centre along one row, in units of the edge: a x² + 2 b x + c.
#[derive(Clone, Copy)]
struct Quadratic {
    centre: f32,
    a: f32,
    b: f32,
    c: f32,
    edge: f32,
    row: usize,
}

type Span = std::ops::Range<usize>;

impl Quadratic {
    fn distance(self, x: usize) -> f32 {
        let x = x as f32 - self.centre;
        ((self.a * x + 2.0 * self.b) * x + self.c).max(0.0).sqrt()
    }

    fn coverage(self, x: usize) -> f32 {
        ((1.0 - self.distance(x)) / self.edge * 0.5 + 0.5).clamp(0.0, 1.0)
    }

    /// The columns partly covered on the left, those wholly covered, and those partly covered on the right.
    fn spans(self, columns: usize) -> (Span, Span, Span) {
        let outer = self.chord(1.0 + self.edge, columns);
        let inner = self.chord(1.0 - self.edge, columns);
        if inner.is_empty() {
            (outer.clone(), outer.end..outer.end, outer.end..outer.end)
        } else {
            (outer.start..inner.start, inner.clone(), inner.end..outer.end)
        }
    }

    fn chord(self, distance: f32, columns: usize) -> Span {
        let root = self.b * self.b - self.a * (self.c - distance * distance);
        if distance <= 0.0 || root <= 0.0 {
            return 0..0;
        }
        let root = root.sqrt();
        let start = self.centre + (-self.b - root) / self.a;
        let end = self.centre + (-self.b + root) / self.a;
        let start = (start.ceil().max(0.0) as usize).min(columns);
        start..((end.floor() + 1.0).max(0.0) as usize).clamp(start, columns)
    }
}

/// A cloudy pattern with values around -1 to 1 whose clouds are `size` pixels wide.
pub(crate) fn clouds(seed: u64, label: &str, columns: usize, rows: usize, size: f32) -> Vec<f32> {
    let mut random = Random::new(seed, label);
    let width = (columns as f32 / size) as usize + 2;
    let height = (rows as f32 / size) as usize + 2;
    let lattice: Vec<f32> = (0..width * height).map(|_| random.between(-1.3, 1.3)).collect();
    let at = |x: usize, y: usize| lattice.get(y * width + x).copied().unwrap_or_default();
    let smooth = |t: f32| t * t * (3.0 - 2.0 * t);
    let mut values = Vec::with_capacity(columns * rows);
    for y in 0..rows {
        let v = y as f32 / size;
        let (top, v) = (v as usize, smooth(v.fract()));
        for x in 0..columns {
            let u = x as f32 / size;
            let (left, u) = (u as usize, smooth(u.fract()));
            let upper = at(left, top) + (at(left + 1, top) - at(left, top)) * u;
            let lower = at(left, top + 1) + (at(left + 1, top + 1) - at(left, top + 1)) * u;
            values.push(upper + (lower - upper) * v);
        }
    }
    values
}

/// Slightly grainy noise of standard deviation 1, twice as much as one picture needs, so that each picture can
/// begin somewhere else in it and no two are alike.
pub(crate) fn grain(seed: u64, label: &str, pixels: usize) -> Vec<f32> {
    let mut random = Random::new(seed, label);
    // The number of ones among 64 random bits is close to normal, with a standard deviation of 4.
    let white: Vec<f32> =
        (0..=2 * pixels).map(|_| (random.next().count_ones() as f32 - 32.0) / 4.0).collect();
    white
        .windows(2)
        .map(|pair| pair.iter().sum::<f32>() * std::f32::consts::FRAC_1_SQRT_2)
        .collect()
}
