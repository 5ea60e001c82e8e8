//! JPEG-LS (ITU-T T.87, ISO/IEC 14495-1; PS3.5 8.2.3, A.4.3): decoding, near-lossless too, and encoding without loss.
//!
//! Own code, because what there is in Rust binds a library of C++ that needs CMake to build. Its every claim is checked
//! before memory is taken: a frame is decoded into the place that the attributes have made for it, and besides takes two
//! lines of each component. A stream that is cut, that holds more than its image, or that contradicts itself is refused;
//! so is what no medical image has: mapping tables, colour transforms, lengths that are told only at the end.

mod bits;
mod decode;
mod encode;
mod model;

#[cfg(test)]
mod tests;

use self::decode::{Decoder, Layout};
use self::encode::Encoder;
use self::model::{Model, Preset};

const SOI: u8 = 0xD8;
const EOI: u8 = 0xD9;
const SOS: u8 = 0xDA;
const DNL: u8 = 0xDC;
const DRI: u8 = 0xDD;
const RST0: u8 = 0xD0;
const APP8: u8 = 0xE8;
const SOF55: u8 = 0xF7;
const LSE: u8 = 0xF8;
const CUT: &str = "JPEG-LS header is cut";

/// What the frame header says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Header {
    pub(super) rows: u16,
    pub(super) columns: u16,
    pub(super) components: u8,
    pub(super) precision: u8,
}

impl Header {
    /// Reads the headers up to the first scan.
    pub(super) fn read(frame: &[u8]) -> Result<Self, &'static str> {
        let mut segments = Segments::new(frame)?;
        while let Some(Segment { marker, payload }) = segments.next()? {
            match marker {
                SOF55 => return Ok(Frame::read(payload)?.header),
                SOS => break,
                _ => {}
            }
        }
        Err("no JPEG-LS image")
    }

    /// Bytes of a sample.
    pub(super) fn bytes(self) -> u16 {
        u16::from(self.precision).div_ceil(8)
    }
}

/// Decodes a frame that [`Header::read`] has read, into `pixels`: the samples of each pixel together, in as many bytes as
/// [`Header::bytes`] says, little endian.
pub(super) fn decode(frame: &[u8], header: Header, pixels: &mut [u8]) -> Result<(), &'static str> {
    let mut segments = Segments::new(frame)?;
    let (mut image, mut preset, mut interval) = (None, Preset::default(), 0);
    let mut decoded: Vec<u8> = Vec::new();
    while let Some(Segment { marker, payload }) = segments.next()? {
        match marker {
            SOF55 if image.is_none() => image = Some(Frame::read(payload)?),
            SOF55 => return Err("JPEG-LS stream holds two images"),
            LSE => read_preset(payload, &mut preset)?,
            DRI => interval = read_interval(payload)?,
            SOS => {
                let image = image.as_ref().ok_or("JPEG-LS scan without a frame")?;
                let scan = Scan::read(payload, image)?;
                if image.header != header || scan.components.iter().any(|nth| decoded.contains(nth))
                {
                    return Err("JPEG-LS component is there twice");
                }
                let model = Model::new(header.precision, scan.near, preset)?;
                scan.decode(&model, header, interval, &mut segments, pixels)?;
                decoded.extend(&scan.components);
            }
            _ => {}
        }
    }
    if decoded.len() < header.components.into() {
        return Err("JPEG-LS components are missing");
    }
    Ok(())
}

/// Encodes a frame without loss: the samples of each pixel together, in the bytes that the precision of `header` takes,
/// little endian. Refuses samples that have more bits than that.
pub(super) fn encode(header: Header, pixels: &[u8]) -> Result<Vec<u8>, &'static str> {
    const LENGTH: &str = "frame is not as long as its size says";
    let Header { rows, columns, components, precision } = header;
    let (bytes, count) = (usize::from(header.bytes()), usize::from(components));
    let line_bytes = usize::from(columns) * count * bytes;
    if line_bytes == 0 || pixels.len() != line_bytes * usize::from(rows) {
        return Err(LENGTH);
    }
    let mut stream = Vec::with_capacity(pixels.len() / 2 + 1024);
    stream.extend([0xFF, SOI]);
    let mut payload = vec![precision];
    payload.extend(rows.to_be_bytes());
    payload.extend(columns.to_be_bytes());
    payload.push(components);
    (1..=components).for_each(|name| payload.extend([name, 0x11, 0]));
    segment(&mut stream, SOF55, &payload);
    let mut payload = vec![components];
    (1..=components).for_each(|name| payload.extend([name, 0]));
    payload.extend([0, u8::from(components > 1), 0]);
    segment(&mut stream, SOS, &payload);

    let model = Model::new(precision, 0, Preset::default())?;
    let top = model.max_value;
    let mut encoder = Encoder::new(model, columns.into(), count, stream);
    let mut all = 0;
    for line in pixels.chunks_exact(line_bytes) {
        encoder.line(|component, samples| {
            if bytes == 1 {
                let given = line.iter().skip(component).step_by(count);
                given.zip(samples).for_each(|(byte, sample)| {
                    *sample = (*byte).into();
                    all |= *sample;
                });
            } else {
                let given = line.as_chunks().0.iter().skip(component).step_by(count);
                given.zip(samples).for_each(|(bytes, sample)| {
                    *sample = u16::from_le_bytes(*bytes).into();
                    all |= *sample;
                });
            }
        })?;
        if all > top {
            return Err("samples are longer than Bits Stored");
        }
    }
    let mut stream = encoder.finish();
    stream.extend([0xFF, EOI]);
    Ok(stream)
}

fn segment(stream: &mut Vec<u8>, marker: u8, payload: &[u8]) {
    stream.extend([0xFF, marker]);
    stream.extend((payload.len() as u16 + 2).to_be_bytes());
    stream.extend(payload);
}

struct Segment<'a> {
    marker: u8,
    payload: &'a [u8],
}

/// The marker segments of a stream, from one to the next.
struct Segments<'a> {
    rest: &'a [u8],
}

impl<'a> Segments<'a> {
    fn new(stream: &'a [u8]) -> Result<Self, &'static str> {
        let rest = stream.strip_prefix(&[0xFF, SOI]).ok_or("no JPEG-LS image")?;
        Ok(Self { rest })
    }

    /// The next segment; `None` at the end of the image. A stream without an end mark ends where it ends.
    fn next(&mut self) -> Result<Option<Segment<'a>>, &'static str> {
        let Some(marker) = self.marker()? else { return Ok(None) };
        match marker {
            EOI => return Ok(None),
            0x01 | 0xD0..=SOI => return Err("JPEG-LS marker is out of place"),
            0xC0..=0xCF if !matches!(marker, 0xC4 | 0xC8 | 0xCC) => return Err("no JPEG-LS image"),
            DNL => return Err("JPEG-LS image tells its lines only at its end"),
            _ => {}
        }
        let (length, rest) = self.rest.split_first_chunk().ok_or(CUT)?;
        let length = usize::from(u16::from_be_bytes(*length)).checked_sub(2).ok_or(CUT)?;
        let (payload, rest) = rest.split_at_checked(length).ok_or(CUT)?;
        self.rest = rest;
        if let (APP8, [b'm', b'r', b'f', b'x', transform, ..]) = (marker, payload)
            && *transform != 0
        {
            return Err("JPEG-LS colours are transformed");
        }
        Ok(Some(Segment { marker, payload }))
    }

    /// The next marker, before which there may be fill bytes. Bytes that are not even one marker are padding.
    fn marker(&mut self) -> Result<Option<u8>, &'static str> {
        loop {
            match self.rest {
                [] | [_] => return Ok(None),
                [0xFF, 0xFF, ..] => self.rest = self.rest.get(1..).unwrap_or_default(),
                [0xFF, marker, rest @ ..] if *marker > 0 => {
                    self.rest = rest;
                    return Ok(Some(*marker));
                }
                _ => return Err("JPEG-LS marker is not where it should be"),
            }
        }
    }

    /// The entropy-coded bytes up to the next marker.
    fn entropy(&mut self) -> &'a [u8] {
        let mut end = 0;
        loop {
            let rest = self.rest.get(end..).unwrap_or_default();
            let Some(next) = rest.iter().position(|byte| *byte == 0xFF) else {
                end = self.rest.len();
                break;
            };
            end += next;
            match self.rest.get(end + 1) {
                Some(0x80..) => break,
                _ => end += 1,
            }
        }
        let (segment, rest) = self.rest.split_at_checked(end).unwrap_or((self.rest, &[]));
        self.rest = rest;
        segment
    }

    /// A restart marker, of which there are eight in turn.
    fn restart(&mut self, nth: usize) -> Result<(), &'static str> {
        match self.marker()? {
            Some(marker) if marker == RST0 + (nth % 8) as u8 => Ok(()),
            _ => Err("JPEG-LS restart marker is missing"),
        }
    }
}

/// The frame header (C.2.2).
struct Frame {
    header: Header,
    /// What components are called, in the order of their samples.
    names: Vec<u8>,
}

impl Frame {
    fn read(payload: &[u8]) -> Result<Self, &'static str> {
        let ([precision, r0, r1, c0, c1, count], components) =
            payload.split_first_chunk::<6>().ok_or(CUT)?;
        let components = components.as_chunks::<3>().0.get(..usize::from(*count)).ok_or(CUT)?;
        if components.iter().any(|[_, sampling, _]| *sampling != 0x11) {
            return Err("JPEG-LS components are subsampled");
        }
        let header = Header {
            rows: u16::from_be_bytes([*r0, *r1]),
            columns: u16::from_be_bytes([*c0, *c1]),
            components: *count,
            precision: *precision,
        };
        if header.rows == 0 {
            return Err("JPEG-LS image tells its lines only at its end");
        }
        if header.columns == 0 || !(2..=16).contains(precision) {
            return Err("JPEG-LS frame header is wrong");
        }
        Ok(Self { header, names: components.iter().map(|[name, ..]| *name).collect() })
    }
}

/// A scan header (C.2.3).
struct Scan {
    /// Which components it holds, from 0.
    components: Vec<u8>,
    near: u8,
    by_sample: bool,
}

impl Scan {
    fn read(payload: &[u8], frame: &Frame) -> Result<Self, &'static str> {
        let (count, rest) = payload.split_first().ok_or(CUT)?;
        let (components, rest) = rest.split_at_checked(2 * usize::from(*count)).ok_or(CUT)?;
        let [near, interleave, transform, ..] = rest else { return Err(CUT) };
        let mut of_frame = Vec::new();
        for [name, table] in components.as_chunks().0 {
            if *table != 0 {
                return Err("JPEG-LS samples stand for those of a mapping table");
            }
            let nth = frame.names.iter().position(|other| other == name);
            of_frame.push(nth.ok_or("JPEG-LS scan of a component that is not there")? as u8);
        }
        let repeated = of_frame
            .iter()
            .enumerate()
            .any(|(nth, component)| of_frame.iter().skip(nth + 1).any(|other| other == component));
        if of_frame.is_empty() || repeated {
            return Err("JPEG-LS component is there twice");
        }
        match (interleave, of_frame.len()) {
            (0, 1) | (1 | 2, _) => {}
            _ => return Err("JPEG-LS scan interleaves its components in an unknown way"),
        }
        if *transform != 0 {
            return Err("JPEG-LS samples are shifted");
        }
        Ok(Self { components: of_frame, near: *near, by_sample: *interleave == 2 && *count > 1 })
    }

    /// Decodes the lines of the scan, of which so many make a restart interval (0 for all), into their places.
    fn decode(
        &self,
        model: &Model,
        header: Header,
        interval: usize,
        segments: &mut Segments<'_>,
        pixels: &mut [u8],
    ) -> Result<(), &'static str> {
        let (rows, columns) = (usize::from(header.rows), usize::from(header.columns));
        let (bytes, count) = (usize::from(header.bytes()), usize::from(header.components));
        let layout =
            Layout { columns, components: self.components.len(), by_sample: self.by_sample };
        let interval = if interval == 0 { rows } else { interval };
        let line_bytes = columns * count * bytes;
        if pixels.len() != line_bytes * rows {
            return Err("frame is not as long as its size says");
        }
        for (nth, lines) in pixels.chunks_mut(line_bytes.saturating_mul(interval)).enumerate() {
            if nth > 0 {
                segments.restart(nth - 1)?;
            }
            let mut decoder = Decoder::new(model.clone(), layout, segments.entropy());
            for line in lines.chunks_exact_mut(line_bytes) {
                decoder.line(|of_scan, samples| {
                    let component = self.components.get(of_scan).copied().unwrap_or_default();
                    place(line, component.into(), count, bytes, samples);
                })?;
            }
            decoder.finish()?;
        }
        Ok(())
    }
}

/// Writes the samples of a component into its places in a line of pixels.
fn place(line: &mut [u8], component: usize, count: usize, bytes: usize, samples: &[i32]) {
    if bytes == 1 {
        let places = line.iter_mut().skip(component).step_by(count);
        places.zip(samples).for_each(|(place, sample)| *place = sample.cast_unsigned() as u8);
    } else {
        let places = line.as_chunks_mut().0.iter_mut().skip(component).step_by(count);
        places
            .zip(samples)
            .for_each(|(place, sample)| *place = (sample.cast_unsigned() as u16).to_le_bytes());
    }
}

/// C.2.4.1. Tables that no scan uses may be there.
fn read_preset(payload: &[u8], preset: &mut Preset) -> Result<(), &'static str> {
    let (kind, rest) = payload.split_first().ok_or(CUT)?;
    match kind {
        1 => {
            let numbers = rest.first_chunk::<10>().ok_or(CUT)?.as_chunks().0.iter();
            let mut numbers = numbers.map(|bytes| u16::from_be_bytes(*bytes));
            let mut next = || numbers.next().ok_or(CUT);
            *preset = Preset {
                max_value: next()?,
                thresholds: [next()?, next()?, next()?],
                reset: next()?,
            };
            Ok(())
        }
        2 | 3 => Ok(()),
        4 => Err("JPEG-LS image is larger than DICOM knows"),
        _ => Err("JPEG-LS parameters are of an unknown kind"),
    }
}

/// Lines between restart markers (C.2.5), in two to four bytes.
fn read_interval(payload: &[u8]) -> Result<usize, &'static str> {
    match payload.len() {
        2..=4 => Ok(payload.iter().fold(0, |number, byte| number << 8 | usize::from(*byte))),
        _ => Err("JPEG-LS restart interval is wrong"),
    }
}
