//! JPEG (ISO/IEC 10918-1; PS3.5 8.2.1, A.4.1, A.4.2): what a frame says of itself, and its decoding.
//!
//! The decoder believes a stream about its size, its depth and its colours, and fills with black what is missing. So the
//! headers are read here first, and colours are settled before it sees them.

use std::borrow::Cow;

use super::pixels::Shape;

const APP0: u8 = 0xE0;
const APP14: u8 = 0xEE;
const SOS: u8 = 0xDA;
const EOI: u8 = 0xD9;
/// Component identifiers by which the decoder tells colours apart.
const RGB: [u8; 3] = *b"RGB";
const YCC: [u8; 3] = [1, 2, 3];

/// What the headers of a frame say.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Header {
    pub(super) rows: u16,
    pub(super) columns: u16,
    pub(super) components: u8,
    pub(super) precision: u8,
    pub(super) lossless: bool,
    /// Whether three components are luminance and chrominance, if the stream says.
    colours: Option<Colours>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Colours {
    Rgb,
    Ycc,
}

impl Header {
    /// Reads the headers up to the first scan, and refuses what the decoder would refuse or get wrong.
    pub(super) fn read(frame: &[u8]) -> Result<Self, &'static str> {
        let (mut header, mut jfif, mut adobe) = (None, false, None);
        for segment in segments(frame).take_while(|segment| segment.marker != SOS) {
            match segment.marker {
                // Any but DHT, JPG and DAC.
                0xC0..=0xCF if !matches!(segment.marker, 0xC4 | 0xC8 | 0xCC) => {
                    let another = header.replace(start_of_frame(&segment)?);
                    another.map_or(Ok(()), |_| Err("two images in one JPEG stream"))?;
                }
                APP0 => jfif |= segment.payload.starts_with(b"JFIF\0"),
                APP14 if segment.payload.starts_with(b"Adobe") => {
                    adobe = segment.payload.get(11).copied();
                }
                _ => {}
            }
        }
        let mut header: Self = header.ok_or("no JPEG image")?;
        if header.components == 3 {
            // JFIF knows no other colours; the transform is that of the Adobe segment (ISO/IEC 10918-6, 6.5.3).
            header.colours = header.colours.or(match (jfif, adobe) {
                (true, _) | (false, Some(1)) => Some(Colours::Ycc),
                (false, Some(0)) => Some(Colours::Rgb),
                (false, _) => None,
            });
        }
        Ok(header)
    }

    /// How many bytes the decoder delivers for a sample.
    pub(super) fn bytes(self) -> u16 {
        if self.precision == 8 { 1 } else { 2 }
    }
}

fn start_of_frame(segment: &Segment<'_>) -> Result<Header, &'static str> {
    let lossless = match segment.marker {
        0xC0..=0xC2 => false,
        0xC3 => true,
        _ => return Err("JPEG process is hierarchical or arithmetic"),
    };
    let (front, components) = segment.payload.split_first_chunk().ok_or("JPEG header is cut")?;
    let [precision, r0, r1, c0, c1, count] = *front;
    let (components, _) = components.as_chunks::<3>();
    if components.len() != usize::from(count) {
        return Err("JPEG header is cut");
    }
    if lossless && components.iter().any(|[_, sampling, _]| *sampling != 0x11) {
        return Err("lossless JPEG is subsampled");
    }
    if !lossless && precision != 8 {
        return Err("JPEG of more than 8 bits is not lossless");
    }
    if !(2..=16).contains(&precision) {
        return Err("JPEG precision is not one of 2 to 16 bits");
    }
    let rgb = components.iter().map(|[name, ..]| *name).eq(RGB);
    Ok(Header {
        rows: u16::from_be_bytes([r0, r1]),
        columns: u16::from_be_bytes([c0, c1]),
        components: count,
        precision,
        lossless,
        colours: rgb.then_some(Colours::Rgb),
    })
}

/// The frame such that the decoder delivers RGB, if it has three components that it would transform.
///
/// The decoder goes by the names of components before all else, which in DICOM say little. What counts here is what the
/// stream says in so many words, as viewers go by it, too, and then Photometric Interpretation; the names are set to it.
pub(super) fn settle_colours<'a>(
    frame: &'a [u8],
    header: Header,
    shape: &Shape,
) -> Result<Cow<'a, [u8]>, &'static str> {
    if header.lossless || header.components != 3 {
        return Ok(Cow::Borrowed(frame));
    }
    let by_attribute = if shape.photometric == "RGB" { Colours::Rgb } else { Colours::Ycc };
    let names = match header.colours.unwrap_or(by_attribute) {
        Colours::Rgb => RGB,
        Colours::Ycc => YCC,
    };
    let mut settled = frame.to_vec();
    let mut old = [0; 3];
    for Segment { marker, at, payload } in segments(frame) {
        match marker {
            0xC0..=0xC2 => {
                let (_, components) =
                    payload.split_first_chunk::<6>().ok_or("JPEG header is cut")?;
                for (nth, ((component, old), new)) in
                    components.as_chunks::<3>().0.iter().zip(&mut old).zip(names).enumerate()
                {
                    *old = component[0];
                    if let Some(place) = settled.get_mut(at + 6 + 3 * nth) {
                        *place = new;
                    }
                }
                let [a, b, c] = old;
                if a == b || b == c || a == c {
                    return Err("JPEG components have the same name");
                }
            }
            SOS => {
                let (count, components) = payload.split_first().ok_or("JPEG header is cut")?;
                let components = components.as_chunks::<2>().0.iter().take(usize::from(*count));
                for (nth, [name, _]) in components.enumerate() {
                    let new =
                        old.iter().zip(names).find_map(|(old, new)| (old == name).then_some(new));
                    let new = new.ok_or("JPEG scan of a component that is not there")?;
                    if let Some(place) = settled.get_mut(at + 1 + 2 * nth) {
                        *place = new;
                    }
                }
            }
            _ => {}
        }
    }
    Ok(Cow::Owned(settled))
}

struct Segment<'a> {
    marker: u8,
    /// Where the payload begins in the stream.
    at: usize,
    payload: &'a [u8],
}

/// The marker segments of a stream, scans skipped (ISO/IEC 10918-1 B.1.1).
fn segments(stream: &[u8]) -> impl Iterator<Item = Segment<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let rest = stream.get(at..)?;
            let next = rest.windows(2).position(|pair| matches!(pair, [0xFF, 0x01..=0xFE]))?;
            let marker = *rest.get(next + 1)?;
            at += next + 2;
            match marker {
                EOI => return None,
                // TEM, RST0 to RST7 and SOI stand alone.
                0x01 | 0xD0..=0xD8 => {}
                _ => {
                    let length =
                        stream.get(at..)?.first_chunk().copied().map(u16::from_be_bytes)?;
                    let begin = at + 2;
                    at = begin.checked_add(usize::from(length).checked_sub(2)?)?;
                    return Some(Segment { marker, at: begin, payload: stream.get(begin..at)? });
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn segment(marker: u8, payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u16 + 2).to_be_bytes();
        [&[0xFF, marker][..], &length, payload].concat()
    }

    fn stream(before: &[Vec<u8>], names: [u8; 3]) -> Vec<u8> {
        let [a, b, c] = names;
        let frame = segment(0xC0, &[8, 0, 16, 0, 24, 3, a, 0x22, 0, b, 0x11, 1, c, 0x11, 1]);
        let scan = segment(SOS, &[3, a, 0, b, 0x11, c, 0x11, 0, 63, 0]);
        [
            &[0xFF, 0xD8][..],
            &before.concat(),
            &frame,
            &scan,
            &[0x12, 0xFF, 0x00, 0xFF, 0xD0, 0x34, 0xFF, EOI],
        ]
        .concat()
    }

    fn shape(photometric: &str) -> Shape {
        Shape {
            rows: 16,
            columns: 24,
            samples: 3,
            allocated: 8,
            signed: false,
            photometric: photometric.to_owned(),
        }
    }

    #[test]
    fn the_stream_and_then_the_attribute_decide_on_colours() {
        let jfif = segment(APP0, b"JFIF\0\x01\x02\0\0\x01\0\x01\0\0");
        let adobe =
            |transform| segment(APP14, &[b"Adobe\0\x64\0\0\0\0".as_slice(), &[transform]].concat());

        for (before, names, photometric, expected) in [
            (vec![], [1, 2, 3], "YBR_FULL_422", YCC),
            (vec![], [1, 2, 3], "RGB", RGB),
            (vec![], [0, 1, 2], "YBR_FULL", YCC),
            (vec![], RGB, "YBR_FULL", RGB),
            (vec![jfif.clone()], [1, 2, 3], "RGB", YCC),
            (vec![adobe(0)], [1, 2, 3], "YBR_FULL_422", RGB),
            (vec![adobe(1)], [1, 2, 3], "RGB", YCC),
        ] {
            let frame = stream(&before, names);
            let header = Header::read(&frame).unwrap();

            let settled = settle_colours(&frame, header, &shape(photometric)).unwrap();

            assert_eq!(settled.as_ref(), stream(&before, expected), "{names:?} {photometric}");
        }
    }

    #[test]
    fn what_would_be_decoded_wrongly_is_refused() {
        let of = |marker, payload: &[u8]| [&[0xFF, 0xD8][..], &segment(marker, payload)].concat();
        let read = |frame: Vec<u8>| Header::read(&frame).map(|header| header.precision);

        assert_eq!(read(of(0xC3, &[12, 0, 1, 0, 1, 1, 1, 0x11, 0])), Ok(12));
        assert_eq!(
            read(of(0xC1, &[12, 0, 1, 0, 1, 1, 1, 0x11, 0])),
            Err("JPEG of more than 8 bits is not lossless")
        );
        assert_eq!(
            read(of(0xC3, &[8, 0, 1, 0, 1, 1, 1, 0x21, 0])),
            Err("lossless JPEG is subsampled")
        );
        assert_eq!(
            read(of(0xC9, &[8, 0, 1, 0, 1, 1, 1, 0x11, 0])),
            Err("JPEG process is hierarchical or arithmetic")
        );
        assert_eq!(read(of(0xC0, &[8, 0, 1, 0, 1, 3, 1, 0x11, 0])), Err("JPEG header is cut"));
        assert_eq!(read(vec![0xFF, 0xD8, 0xFF, EOI]), Err("no JPEG image"));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), flip in 0..60_usize, to: u8) {
            let mut frame = stream(&[], YCC);
            if let Some(byte) = frame.get_mut(flip) {
                *byte = to;
            }
            for frame in [frame, bytes] {
                if let Ok(header) = Header::read(&frame) {
                    let _ = settle_colours(&frame, header, &shape("RGB"));
                }
            }
        }
    }
}
