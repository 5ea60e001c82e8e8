//! From samples to an entropy-coded segment, without loss (T.87 Annex A).

use super::bits::Writer;
use super::decode::{at, begin};
use super::model::{self, Model, Run};

/// Encodes a scan of all lines of one or more components, line by line of each.
#[derive(Debug)]
pub(super) struct Encoder {
    model: Model,
    writer: Writer,
    lines: Vec<Lines>,
}

/// As in the decoder.
#[derive(Debug)]
struct Lines {
    above: Vec<i32>,
    line: Vec<i32>,
    run: Run,
}

impl Encoder {
    /// Encodes behind what is in `bytes`.
    pub(super) fn new(model: Model, columns: usize, components: usize, bytes: Vec<u8>) -> Self {
        let lines = || Lines {
            above: vec![0; columns + 2],
            line: vec![0; columns + 2],
            run: Run::default(),
        };
        Self {
            model,
            writer: Writer::new(bytes),
            lines: std::iter::repeat_with(lines).take(components).collect(),
        }
    }

    /// Encodes the next line of each component; `give` fills in its samples.
    pub(super) fn line(
        &mut self,
        mut give: impl FnMut(usize, &mut [i32]),
    ) -> Result<(), &'static str> {
        let Self { model, writer, lines } = self;
        for (component, lines) in lines.iter_mut().enumerate() {
            let length = lines.line.len();
            give(component, lines.line.get_mut(1..length - 1).unwrap_or_default());
            begin(&mut lines.above, &mut lines.line);
            line(model, writer, lines)?;
            std::mem::swap(&mut lines.above, &mut lines.line);
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.writer.finish()
    }
}

fn line(model: &mut Model, writer: &mut Writer, lines: &mut Lines) -> Result<(), &'static str> {
    let Lines { above, line, run } = lines;
    let end = line.len() - 1;
    let escape = model.escape;
    let mut column = 1;
    let (mut rb, mut rd, mut ra) = (at(above, 0), at(above, 1), at(line, 0));
    while column < end {
        let rc = rb;
        rb = rd;
        rd = at(above, column + 1);
        let context = model.context(ra, rb, rc, rd);
        if context == 0 {
            let rest = line.get(column..end).unwrap_or_default();
            let length = rest.iter().position(|sample| *sample != ra).unwrap_or(rest.len());
            column += length;
            run_length(writer, run, length, column == end);
            if column < end {
                rb = at(above, column);
                rd = at(above, column + 1);
                let sample = at(line, column);
                run_end(model, writer, *run, (ra, rb), sample)?;
                run.shorter();
                ra = sample;
                column += 1;
            }
        } else {
            let (sample, range) = (at(line, column), model.range());
            model.regular(
                context,
                model::predict(ra, rb, rc),
                |predicted, sign, turned, code| {
                    let error = range.reduce(sign * (sample - predicted));
                    let one = if turned { !error } else { error };
                    let mapped = ((one << 1) ^ (one >> 31)).cast_unsigned();
                    writer.golomb(mapped, code.k, code.limit, escape);
                    Ok::<_, &'static str>(error)
                },
            )?;
            ra = sample;
            column += 1;
        }
    }
    Ok(())
}

/// A.7.1.2.
fn run_length(writer: &mut Writer, run: &mut Run, mut length: usize, ends_line: bool) {
    while length >= 1 << run.bits() {
        writer.bits(1, 1);
        length -= 1 << run.bits();
        run.longer();
    }
    if !ends_line {
        writer.bits(0, 1);
        writer.bits(length as u32, run.bits());
    } else if length > 0 {
        writer.bits(1, 1);
    }
}

/// A.7.2.
fn run_end(
    model: &mut Model,
    writer: &mut Writer,
    run: Run,
    (ra, rb): (i32, i32),
    sample: i32,
) -> Result<(), &'static str> {
    let kind = usize::from(ra == rb);
    let sign = if kind == 0 && ra > rb { -1 } else { 1 };
    let error = model.range().reduce(sign * (sample - rb));
    let code = model.run_end(kind, run);
    let odd = error != 0 && (error < 0) == model.run_end_turned(kind, code.k);
    let mapped = 2 * error.unsigned_abs() - kind as u32 - u32::from(odd);
    writer.golomb(mapped, code.k, code.limit, model.escape);
    model.learn_run_end(kind, error, mapped)
}
