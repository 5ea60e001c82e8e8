//! From the entropy-coded segments of a scan to samples (T.87 Annex A, B).

use super::bits::Reader;
use super::model::{self, Model, Run};

/// What of the frame a scan holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) columns: usize,
    /// Components in the scan.
    pub(super) components: usize,
    pub(super) by_sample: bool,
}

/// The lines of one component: the one above and the one that is decoded, each with a sample more at either end, which
/// stand for the neighbours that the first and the last column lack (A.2.1).
#[derive(Debug)]
struct Lines {
    above: Vec<i32>,
    line: Vec<i32>,
    run: Run,
}

/// Decodes lines, from the beginning of a scan or a restart interval.
#[derive(Debug)]
pub(super) struct Decoder<'a> {
    model: Model,
    reader: Reader<'a>,
    lines: Vec<Lines>,
    by_sample: bool,
}

impl<'a> Decoder<'a> {
    pub(super) fn new(model: Model, layout: Layout, segment: &'a [u8]) -> Self {
        let lines = || Lines {
            above: vec![0; layout.columns + 2],
            line: vec![0; layout.columns + 2],
            run: Run::default(),
        };
        Self {
            model,
            reader: Reader::new(segment),
            lines: std::iter::repeat_with(lines).take(layout.components).collect(),
            by_sample: layout.by_sample,
        }
    }

    /// Decodes the next line of each component, and hands on their samples.
    pub(super) fn line(&mut self, mut take: impl FnMut(usize, &[i32])) -> Result<(), &'static str> {
        let Self { model, reader, lines, by_sample } = self;
        for Lines { above, line, .. } in &mut *lines {
            begin(above, line);
        }
        if *by_sample {
            samples(model, reader, lines)?;
        } else {
            for lines in &mut *lines {
                line(model, reader, lines)?;
            }
        }
        for (component, Lines { above, line, .. }) in lines.iter_mut().enumerate() {
            std::mem::swap(above, line);
            take(component, above.get(1..above.len() - 1).unwrap_or_default());
        }
        Ok(())
    }

    /// Ends the scan or the restart interval.
    pub(super) fn finish(self) -> Result<(), &'static str> {
        self.reader.finish()
    }
}

/// Sets what is left of the first column and right of the last.
pub(super) fn begin(above: &mut [i32], line: &mut [i32]) {
    if let (Some(left), Some(first)) = (line.first_mut(), above.get(1)) {
        *left = *first;
    }
    if let [.., last, right] = above {
        *right = *last;
    }
}

pub(super) fn at(line: &[i32], column: usize) -> i32 {
    line.get(column).copied().unwrap_or_default()
}

fn set(line: &mut [i32], column: usize, sample: i32) {
    if let Some(place) = line.get_mut(column) {
        *place = sample;
    }
}

fn line(model: &mut Model, reader: &mut Reader<'_>, lines: &mut Lines) -> Result<(), &'static str> {
    let Lines { above, line, run } = lines;
    let end = line.len() - 1;
    let mut column = 1;
    let (mut rb, mut rd, mut ra) = (at(above, 0), at(above, 1), at(line, 0));
    while column < end {
        let rc = rb;
        rb = rd;
        rd = at(above, column + 1);
        let context = model.context(ra, rb, rc, rd);
        if context == 0 {
            let length = run_length(reader, run, end - column)?;
            line.get_mut(column..column + length).unwrap_or_default().fill(ra);
            column += length;
            if column < end {
                rb = at(above, column);
                rd = at(above, column + 1);
                let kind = usize::from((ra - rb).abs() <= model.near);
                ra = run_end(model, reader, *run, kind, ra, rb)?;
                run.shorter();
                set(line, column, ra);
                column += 1;
            }
        } else {
            ra = regular(model, reader, context, model::predict(ra, rb, rc))?;
            set(line, column, ra);
            column += 1;
        }
    }
    Ok(())
}

/// A line of all components, pixel by pixel: runs are of pixels, and end in a sample of each component (B.3).
fn samples(
    model: &mut Model,
    reader: &mut Reader<'_>,
    lines: &mut [Lines],
) -> Result<(), &'static str> {
    let end = lines.first().map_or(0, |lines| lines.line.len() - 1);
    let mut column = 1;
    let mut contexts = vec![0; lines.len()];
    while column < end {
        for (context, Lines { above, line, .. }) in contexts.iter_mut().zip(&*lines) {
            let (ra, rc) = (at(line, column - 1), at(above, column - 1));
            *context = model.context(ra, at(above, column), rc, at(above, column + 1));
        }
        if contexts.iter().all(|context| *context == 0) {
            let Some(Lines { run, .. }) = lines.first_mut() else { return Ok(()) };
            let length = run_length(reader, run, end - column)?;
            let ended = *run;
            if column + length < end {
                run.shorter();
            }
            for Lines { above, line, .. } in &mut *lines {
                let ra = at(line, column - 1);
                line.get_mut(column..column + length).unwrap_or_default().fill(ra);
                if column + length < end {
                    let rb = at(above, column + length);
                    let sample = run_end(model, reader, ended, 0, ra, rb)?;
                    set(line, column + length, sample);
                }
            }
            column += length + 1;
        } else {
            for (context, Lines { above, line, .. }) in contexts.iter().zip(&mut *lines) {
                let (ra, rb) = (at(line, column - 1), at(above, column));
                let predicted = model::predict(ra, rb, at(above, column - 1));
                set(line, column, regular(model, reader, *context, predicted)?);
            }
            column += 1;
        }
    }
    Ok(())
}

#[inline]
fn regular(
    model: &mut Model,
    reader: &mut Reader<'_>,
    context: i32,
    predicted: i32,
) -> Result<i32, &'static str> {
    let escape = model.escape;
    model.regular(context, predicted, |_, _, turned, code| {
        let mapped = reader.golomb(code.k, code.limit, escape)?;
        let error = (mapped >> 1).cast_signed() ^ -(mapped & 1).cast_signed();
        Ok(if turned { !error } else { error })
    })
}

/// A.7.1: how many samples a run has, of which there can be at most `room`.
fn run_length(reader: &mut Reader<'_>, run: &mut Run, room: usize) -> Result<usize, &'static str> {
    let mut length = 0;
    while reader.bits(1)? == 1 {
        let part = 1 << run.bits();
        if part > room - length {
            return Ok(room);
        }
        length += part;
        run.longer();
        if length == room {
            return Ok(room);
        }
    }
    length += reader.bits(run.bits())? as usize;
    if length >= room { Err("JPEG-LS run is longer than its line") } else { Ok(length) }
}

/// A.7.2: the sample that ends a run.
fn run_end(
    model: &mut Model,
    reader: &mut Reader<'_>,
    run: Run,
    kind: usize,
    ra: i32,
    rb: i32,
) -> Result<i32, &'static str> {
    let code = model.run_end(kind, run);
    let mapped = reader.golomb(code.k, code.limit, model.escape)?;
    let doubled = mapped + kind as u32;
    let odd = doubled & 1 == 1;
    let size = doubled.div_ceil(2).cast_signed();
    let error = if model.run_end_turned(kind, code.k) == odd { -size } else { size };
    model.learn_run_end(kind, error, mapped)?;
    let (predicted, sign) = match kind {
        1 => (ra, 1),
        _ if ra > rb => (rb, -1),
        _ => (rb, 1),
    };
    Ok(model.sample(predicted, sign * error))
}
