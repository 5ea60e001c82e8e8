use proptest::prelude::*;

use super::*;

fn header(rows: u16, columns: u16, components: u8, precision: u8) -> Header {
    Header { rows, columns, components, precision }
}

fn decoded(stream: &[u8]) -> Result<Vec<u8>, &'static str> {
    let header = Header::read(stream)?;
    let samples = usize::from(header.rows) * usize::from(header.columns);
    let mut pixels =
        vec![0; samples * usize::from(header.components) * usize::from(header.bytes())];
    decode(stream, header, &mut pixels)?;
    Ok(pixels)
}

/// The example of T.87 H.3.
const EXAMPLE: [u8; 16] = [0, 0, 90, 74, 68, 50, 43, 205, 64, 145, 145, 145, 100, 145, 145, 145];
const ENCODED: [u8; 57] = [
    0xFF, 0xD8, 0xFF, 0xF7, 0x00, 0x0B, 0x08, 0x00, 0x04, 0x00, 0x04, 0x01, 0x01, 0x11, 0x00, 0xFF,
    0xDA, 0x00, 0x08, 0x01, 0x01, 0x00, 0x00, 0x00, 0x00, 0xC0, 0x00, 0x00, 0x6C, 0x80, 0x20, 0x8E,
    0x01, 0xC0, 0x00, 0x00, 0x57, 0x40, 0x00, 0x00, 0x6E, 0xE6, 0x00, 0x00, 0x01, 0xBC, 0x18, 0x00,
    0x00, 0x05, 0xD8, 0x00, 0x00, 0x91, 0x60, 0xFF, 0xD9,
];

#[test]
fn the_example_of_the_standard_is_encoded_and_decoded_as_it_says() {
    assert_eq!(encode(header(4, 4, 1, 8), &EXAMPLE), Ok(ENCODED.to_vec()));
    assert_eq!(decoded(&ENCODED), Ok(EXAMPLE.to_vec()));
}

/// Pictures that bring out different parts of the coder.
fn picture(kind: u8, header: Header, seed: u64) -> Vec<u8> {
    let top = (1_u32 << header.precision) - 1;
    let (columns, components) = (usize::from(header.columns), usize::from(header.components));
    let mut random = seed | 1;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random >> 20) as u32
    };
    let count = usize::from(header.rows) * columns * components;
    let samples = (0..count).map(|at| {
        let (pixel, component) = (at / components, at % components);
        let (row, column) = ((pixel / columns) as u32, (pixel % columns) as u32);
        let sample = match kind {
            0 => next(),
            1 => 7,
            2 => row * 3 + column + component as u32,
            3 => (row + column) / 5 * (top / 6) + next() % 3,
            4 => {
                if next() % 40 == 0 {
                    top
                } else {
                    0
                }
            }
            _ => {
                if (row / 4 + column / 4) % 2 == 0 {
                    0
                } else {
                    top
                }
            }
        };
        sample & top
    });
    match header.bytes() {
        1 => samples.map(|sample| sample as u8).collect(),
        _ => samples.flat_map(|sample| (sample as u16).to_le_bytes()).collect(),
    }
}

fn headers() -> impl Strategy<Value = Header> {
    (1..40_u16, 1..40_u16, prop::sample::select(vec![1_u8, 3]), 2..=16_u8).prop_map(
        |(rows, columns, components, precision)| header(rows, columns, components, precision),
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_picture_comes_back_as_it_was(header in headers(), kind in 0..6_u8, seed: u64) {
        let pixels = picture(kind, header, seed);

        let stream = encode(header, &pixels).unwrap();

        prop_assert_eq!(Header::read(&stream), Ok(header));
        prop_assert!(decoded(&stream) == Ok(pixels));
    }

    #[test]
    fn a_stream_that_is_cut_is_refused_or_lacks_nothing_of_its_picture(header in headers(), kind in 0..6_u8, seed: u64, cut in 3..100_usize) {
        let pixels = picture(kind, header, seed);
        let stream = encode(header, &pixels).unwrap();

        // Before the end mark there may be a byte of nothing but padding.
        let rest = decoded(&stream[..stream.len().saturating_sub(cut)]);

        prop_assert!(rest.is_err() || rest == Ok(pixels) && cut == 3);
    }

    #[test]
    fn damage_neither_panics_nor_hangs(
        header in headers(), kind in 0..6_u8, seed: u64,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut stream = encode(header, &picture(kind, header, seed)).unwrap();
        for (at, byte) in changes {
            let at = at.index(stream.len());
            stream[at] = byte;
        }
        let mut pixels = picture(1, header, 0);
        let _ = decode(&stream, header, &mut pixels);
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), precision in 2..=16_u8, near: u8, interleave in 0..4_u8, preset: [u16; 5]) {
        let count = if interleave == 0 { 1 } else { 3 };
        let mut stream = vec![0xFF, SOI];
        segment(&mut stream, LSE, &[&[1][..], preset.map(u16::to_be_bytes).as_flattened()].concat());
        segment(&mut stream, DRI, &[0, 2]);
        segment(&mut stream, SOF55, &[&[precision, 0, 5, 0, 7, count][..], &[1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0][..3 * usize::from(count)]].concat());
        segment(&mut stream, SOS, &[&[count][..], &[1, 0, 2, 0, 3, 0][..2 * usize::from(count)], &[near, interleave, 0]].concat());
        let plain = [&stream[..], &bytes].concat();
        for stream in [plain, bytes] {
            let _ = decoded(&stream);
        }
    }
}

/// Replaces the byte of the example at which a change makes it something else.
fn changed(at: usize, to: u8) -> Result<Vec<u8>, &'static str> {
    let mut stream = ENCODED;
    stream[at] = to;
    let mut pixels = vec![0; 16];
    decode(&stream, header(4, 4, 1, 8), &mut pixels).map(|()| pixels)
}

#[test]
fn what_is_not_decoded_says_why() {
    let with = |marker, payload: &[u8]| {
        let mut stream = vec![0xFF, SOI];
        segment(&mut stream, marker, payload);
        decoded(&[&stream[..], &ENCODED[2..]].concat()).unwrap_err()
    };

    assert_eq!(changed(21, 1), Err("JPEG-LS samples stand for those of a mapping table"));
    assert_eq!(changed(23, 3), Err("JPEG-LS scan interleaves its components in an unknown way"));
    assert_eq!(changed(24, 1), Err("JPEG-LS samples are shifted"));
    assert_eq!(changed(13, 0x21), Err("JPEG-LS components are subsampled"));
    assert_eq!(changed(8, 0), Err("JPEG-LS image tells its lines only at its end"));
    assert_eq!(changed(3, 0xC0), Err("no JPEG-LS image"));
    assert_eq!(with(LSE, &[4, 3, 0, 0, 4, 0, 0, 4]), "JPEG-LS image is larger than DICOM knows");
    assert_eq!(with(APP8, b"mrfx\x01"), "JPEG-LS colours are transformed");
    assert_eq!(with(LSE, &[1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]), "JPEG-LS parameters are not allowed");
    assert_eq!(
        decoded(&[&ENCODED[..55], &[0, 0, 1, 0xFF, EOI]].concat()),
        Err("JPEG-LS stream holds more than its image")
    );
    assert_eq!(
        encode(header(1, 2, 1, 7), &[0x7F, 0x80]),
        Err("samples are longer than Bits Stored")
    );
    assert_eq!(encode(header(1, 2, 1, 9), &[0; 3]), Err("frame is not as long as its size says"));
}

#[test]
fn a_stream_may_be_padded_or_lack_its_end_mark() {
    for end in [&[][..], &[0xFF, EOI, 0], &[0xFF, 0xFF, 0xFF, EOI], &[0, 0, 0xFF, EOI]] {
        let stream = [&ENCODED[..55], end].concat();

        assert_eq!(decoded(&stream), Ok(EXAMPLE.to_vec()), "{end:?}");
    }
}
