use dicom_core::{Tag, VR};
use proptest::prelude::*;

use super::*;
use crate::data_set::Element;

const TEXT: &[u8] = b"Doe^Jane 9990548609";

fn attributes(frames: u32) -> DataSet {
    let mut set = DataSet::default();
    for (tag, number) in [(tags::ROWS, 4_u16), (tags::COLUMNS, 3), (tags::BITS_ALLOCATED, 16)] {
        set.put(Element::new(tag, VR::US, number.to_le_bytes()));
    }
    set.put(Element::new(tags::NUMBER_OF_FRAMES, VR::IS, frames.to_string()));
    set
}

fn item(payload: &[u8]) -> Vec<u8> {
    [&ITEM[..], &(payload.len() as u32).to_le_bytes(), payload].concat()
}

/// The value with an empty offset table.
fn value(fragments: &[&[u8]]) -> Vec<u8> {
    let items = fragments.iter().map(|fragment| item(fragment));
    std::iter::once(item(&[])).chain(items).collect::<Vec<_>>().concat()
}

fn clean_in(
    syntax: &str,
    frames: u32,
    value: &[u8],
    pieces: impl IntoIterator<Item = usize>,
) -> Result<(Vec<u8>, Cleaned), CodestreamError> {
    let mut walk = Codestreams::new(&syntax.parse().unwrap(), &attributes(frames))?;
    let (mut out, mut at) = (value.to_vec(), 0);
    let mut pieces = pieces.into_iter();
    while at < out.len() {
        let end = pieces.next().map_or(out.len(), |piece| (at + piece).min(out.len()));
        walk.feed(at as u64, &mut out[at..end])?;
        at = end;
    }
    let cleaned = walk.finish()?;
    Ok((out, cleaned))
}

/// However the value is cut.
fn clean(syntax: &str, frames: u32, value: &[u8]) -> Result<(Vec<u8>, Cleaned), CodestreamError> {
    let whole = clean_in(syntax, frames, value, []);
    for cut in 1..value.len() {
        assert_eq!(clean_in(syntax, frames, value, [cut]), whole, "cut at {cut}");
    }
    assert_eq!(clean_in(syntax, frames, value, std::iter::repeat(1)), whole);
    whole
}

fn why(syntax: &str, value: &[u8]) -> &'static str {
    match clean(syntax, 1, value) {
        Err(CodestreamError::NotUnderstood { why, .. }) => why,
        other => panic!("{other:?}"),
    }
}

fn blank(length: usize) -> Vec<u8> {
    vec![0; length]
}

/// A JPEG segment.
fn segment(code: u8, payload: &[u8]) -> Vec<u8> {
    [&[0xFF, code][..], &(payload.len() as u16 + 2).to_be_bytes(), payload].concat()
}

/// A stream with text in places of these; `fill` is what they hold.
fn jpeg(text: &[u8]) -> Vec<u8> {
    let with = |front: &[u8]| [front, text].concat();
    [
        &[0xFF, 0xD8][..],
        &segment(0xE0, &with(b"JFIF\0\x01\x02\0\0\x01\0\x01\x05\x05")),
        &segment(0xE1, text),
        &segment(0xFE, text),
        &segment(0xEE, &with(b"Adobe\0\x64\0\0\0\0\x01")),
        &segment(0xE8, b"mrfx\x02"),
        &segment(0xDB, &[7; 65]),
        &[0xFF, 0xFF, 0xFF],
        &segment(0xC0, &[8, 0, 4, 0, 3, 1, 1, 0x11, 0])[1..],
        &segment(0xC4, &[9; 20]),
        &segment(0xDA, &[1, 1, 0, 0, 63, 0]),
        &[0x12, 0xFF, 0x00, 0xFE, 0x40, 0xFF, 0xD0, 0x34, 0xD9, 0xFF, 0xFF],
        &segment(0xFE, text)[1..],
        &segment(0xDA, &[1, 1, 0, 0, 63, 0]),
        &[0x12, 0xFF, 0x00, 0xD9, 0xFF, 0xD9],
        text,
    ]
    .concat()
}

const BASELINE: &str = uids::JPEG_BASELINE8_BIT;

#[test]
fn comments_and_application_segments_of_jpeg_are_emptied_and_what_decoders_need_stays() {
    let frame = jpeg(TEXT);

    let (cleaned, done) = clean(BASELINE, 2, &value(&[&frame, &frame])).unwrap();

    let expected = jpeg(&blank(TEXT.len()));
    assert!(cleaned == value(&[&expected, &expected]));
    // JFIF's thumbnail, Exif, two comments, Adobe's end, the tail.
    let written = TEXT.iter().filter(|byte| **byte != 0).count() as u64;
    let numbers = Cleaned { frames: 2, emptied: 12, bytes: written * 12, notes: vec![] };
    assert_eq!(done, numbers);
    assert_eq!(clean(BASELINE, 2, &cleaned).unwrap().0, cleaned);
}

#[test]
fn a_frame_may_be_in_fragments_cut_anywhere() {
    let (frame, expected) = (jpeg(TEXT), jpeg(&blank(TEXT.len())));
    let end = frame.len() - TEXT.len();
    for cut in 1..end {
        let fragments = [&frame[..cut], &frame[cut..], &frame];
        let (cleaned, _) = clean_in(BASELINE, 2, &value(&fragments), []).unwrap();
        assert!(cleaned == value(&[&expected[..cut], &expected[cut..], &expected]), "{cut}");
    }
    // Behind the end mark a fragment begins a frame, or nobody knows what it is.
    let fragments = [&frame[..end], &frame[end..]];
    assert!(clean_in(BASELINE, 1, &value(&fragments), []).is_err());
}

#[test]
fn names_of_segments_that_only_begin_like_known_ones_do_not_keep_what_follows() {
    let frame = |payload: &[u8]| {
        let scan = segment(0xDA, &[1, 1, 0, 0, 63, 0]);
        let header = segment(0xC0, &[8, 0, 4, 0, 3, 1, 1, 0x11, 0]);
        [&[0xFF, 0xD8][..], &segment(0xE0, payload), &header, &scan, &[0xFF, 0xD9]].concat()
    };

    let (cleaned, _) = clean(BASELINE, 1, &value(&[&frame(b"JFIX\0Jane Doe Doe")])).unwrap();

    assert!(cleaned == value(&[&frame(b"JFI\0\0\0\0\0\0\0\0\0\0\0\0\0\0")]));
}

#[test]
fn scans_of_jpeg_ls_hold_what_would_be_markers_elsewhere() {
    let ls = |text: &[u8]| {
        [
            &[0xFF, 0xD8][..],
            &segment(0xFE, text),
            &segment(0xF7, &[8, 0, 4, 0, 3, 1, 1, 0x11, 0]),
            &segment(0xF8, &[1; 11]),
            &segment(0xDA, &[1, 1, 0, 0, 0, 0]),
            &[0x12, 0xFF, 0x7F, 0xFF, 0x01, 0x33, 0xFF, 0xFF, 0xD9],
            text,
        ]
        .concat()
    };

    let (cleaned, _) = clean(uids::JPEGLS_LOSSLESS, 1, &value(&[&ls(TEXT)])).unwrap();

    assert!(cleaned == value(&[&ls(&blank(TEXT.len()))]));
}

/// A JPEG 2000 marker segment.
fn marker(code: u8, payload: &[u8]) -> Vec<u8> {
    segment(code, payload)
}

/// A tile-part with a comment in its header; `open`: it does not say how long it is.
fn tile_part(text: &[u8], data: &[u8], open: bool) -> Vec<u8> {
    let comment = marker(0x64, &[&[0, 1][..], text].concat());
    let length = (12 + comment.len() + 2 + data.len()) as u32;
    let length = if open { 0 } else { length };
    let header = [&[0, 0][..], &length.to_be_bytes(), &[0, 1]].concat();
    [&marker(0x90, &header)[..], &comment, &[0xFF, 0x93], data].concat()
}

fn main_header(text: &[u8]) -> Vec<u8> {
    [
        &[0xFF, 0x4F][..],
        &marker(0x51, &[3; 39]),
        &marker(0x64, &[&[0, 1][..], text].concat()),
        &marker(0x52, &[1; 10]),
        &marker(0x64, &[0, 0]),
        &marker(0x50, &[1; 6]),
    ]
    .concat()
}

const END: [u8; 2] = [0xFF, 0xD9];
const J2K: &str = uids::JPEG2000_LOSSLESS;

fn codestream(text: &[u8]) -> Vec<u8> {
    // What looks like an end mark in data that are counted is none.
    let parts = [tile_part(text, &[1, 0xFF, 0xD9, 2], false), tile_part(text, b"", false)];
    [&main_header(text)[..], &parts.concat(), &END, text].concat()
}

#[test]
fn comments_of_jpeg_2000_are_emptied_and_keep_what_kind_they_are() {
    let frame = codestream(TEXT);

    let (cleaned, done) = clean(J2K, 1, &value(&[&frame])).unwrap();

    assert!(cleaned == value(&[&codestream(&blank(TEXT.len()))]));
    assert_eq!((done.frames, done.emptied), (1, 4));
}

#[test]
fn a_codestream_that_does_not_say_where_it_ends_is_walked_to_its_end_mark() {
    let frame = |text: &[u8]| {
        // A packet's number may look like an end mark.
        let data = [1, 0xFF, 0x8F, 0xFF, 0x91, 0x00, 0x04, 0xFF, 0xD9, 7, 0xFF, 0x92, 5];
        [&main_header(text)[..], &tile_part(text, &data, true), &END, text].concat()
    };

    let (cleaned, _) = clean(uids::HTJ2K, 1, &value(&[&frame(TEXT)])).unwrap();

    assert!(cleaned == value(&[&frame(&blank(TEXT.len()))]));
}

#[test]
fn an_end_mark_may_be_missing() {
    let frame = |text: &[u8]| [main_header(text), tile_part(text, &[1, 2], false)].concat();
    let (bare, expected) = (frame(TEXT), frame(&blank(TEXT.len())));
    let padded = [&bare[..], &[0], TEXT].concat();
    let erased = [&expected[..], &blank(TEXT.len() + 1)].concat();

    let (cleaned, _) = clean(J2K, 3, &value(&[&bare, &padded, &bare])).unwrap();

    assert!(cleaned == value(&[&expected, &erased, &expected]));
    // The second tile-part may be in the next fragment.
    let more = tile_part(TEXT, &[3], false);
    let fragments: [&[u8]; 3] = [&bare, &more, &END];
    assert_eq!(clean(J2K, 1, &value(&fragments)).unwrap().1.frames, 1);
}

fn jp2_box(kind: [u8; 4], payload: &[u8]) -> Vec<u8> {
    [&(payload.len() as u32 + 8).to_be_bytes()[..], &kind, payload].concat()
}

#[test]
fn boxes_of_a_jp2_file_that_decoding_does_not_need_are_emptied() {
    let file = |text: &[u8], behind: Vec<u8>| {
        let long = [&[0, 0, 0, 1][..], b"xml ", &(16 + text.len() as u64).to_be_bytes(), text];
        let colour = jp2_box(*b"colr", &[2, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
        [
            &SIGNATURE_BOX[..],
            &jp2_box(*b"ftyp", b"jp2 \0\0\0\0jp2 "),
            &jp2_box(
                *b"jp2h",
                &[jp2_box(*b"ihdr", &[5; 14]), colour, jp2_box(*b"uuid", text)].concat(),
            ),
            &jp2_box(*b"uuid", text),
            &long.concat(),
            &jp2_box(*b"asoc", text),
            &jp2_box(*b"jp2c", &codestream(text)),
            &behind,
        ]
        .concat()
    };
    let behind = jp2_box(*b"xml ", TEXT);

    let (cleaned, done) = clean(J2K, 1, &value(&[&file(TEXT, behind.clone())])).unwrap();

    assert!(cleaned == value(&[&file(&blank(TEXT.len()), blank(behind.len()))]));
    assert_eq!(done.notes, [Note::ColourProfile]);
}

const SIGNATURE_BOX: [u8; 12] = *b"\0\0\0\x0CjP  \r\n\x87\n";

/// Two segments of 12 bytes each, with slack of this.
fn rle(slack: &[u8]) -> Vec<u8> {
    let packed = [[0xFB, 7].as_slice(), &[128, 5, 1, 2, 3, 4, 5, 6], slack].concat();
    let first = 64 + 4;
    let mut header: Vec<u8> = [2, first, first + packed.len() as u32]
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect();
    header.extend(slack);
    header.extend(blank(64 - header.len()));
    [&header[..], slack.get(..4).unwrap(), &packed, &packed].concat()
}

#[test]
fn slack_of_rle_is_emptied() {
    let (cleaned, done) = clean(uids::RLE_LOSSLESS, 2, &value(&[&rle(TEXT), &rle(TEXT)])).unwrap();

    let expected = rle(&blank(TEXT.len()));
    assert!(cleaned == value(&[&expected, &expected]));
    assert_eq!((done.frames, done.emptied), (2, 8));
}

#[test]
fn what_is_not_understood_is_an_error() {
    let whole = jpeg(b"");
    let text = value(&[TEXT]);
    assert_eq!(why(BASELINE, &text), "it does not begin as JPEG does");
    assert_eq!(why(J2K, &text), "it does not begin as JPEG 2000 does");
    assert_eq!(why(uids::RLE_LOSSLESS, &text), "number of RLE segments is not one of 1 to 15");
    assert_eq!(why(BASELINE, &value(&[&whole[..whole.len() - 2]])), "frame is cut");
    assert_eq!(why(J2K, &value(&[&codestream(b"")[..60]])), "frame is cut");
    let stray = [&[0xFF, 0xD8][..], b"xx"].concat();
    let between = "something else than a marker is between JPEG segments";
    assert_eq!(why(BASELINE, &value(&[&stray])), between);
    let reserved = [&[0xFF, 0xD8][..], &segment(0x05, TEXT)].concat();
    assert_eq!(why(BASELINE, &value(&[&reserved])), "JPEG marker is not one that may be here");
    let short = [&[0xFF, 0xD8, 0xFF, 0xE1, 0, 1][..], TEXT].concat();
    assert_eq!(why(BASELINE, &value(&[&short])), "JPEG segment has a length that is none");
    let foreign = [&main_header(b"")[..], &marker(0x05, TEXT)].concat();
    assert_eq!(why(J2K, &value(&[&foreign])), "JPEG 2000 marker is not one that may be here");
    let cut = rle(&[9; 4]);
    assert_eq!(why(uids::RLE_LOSSLESS, &value(&[&cut[..cut.len() - 10]])), "RLE segment is cut");
    let long_table = [item(TEXT.first_chunk::<8>().unwrap()), item(&whole)].concat();
    let table = "basic offset table is longer than frames ask for";
    assert_eq!(why(BASELINE, &long_table), table);
    let inside = "pixel data end inside an item";
    assert_eq!(why(BASELINE, &value(&[&whole])[..40]), inside);
    let element = [&value(&[&whole])[..], b"\xE0\x7F\x10\x00OB\0\0"].concat();
    let other = "something else than an item is in the pixel data";
    assert_eq!(why(BASELINE, &element), other);
}

#[test]
fn frames_are_counted() {
    let whole = jpeg(b"");
    for (frames, fragments) in [(1, 2), (2, 1), (3, 2)] {
        let value = value(&vec![&whole[..]; fragments]);
        let error = clean(BASELINE, frames, &value).unwrap_err();
        let found = u32::try_from(fragments).unwrap();
        assert_eq!(error, CodestreamError::Frames { expected: frames, found });
    }
}

#[test]
fn video_and_what_is_private_is_refused_and_what_is_not_searched_is_said() {
    for uid in [
        uids::MPEG2MPML,
        uids::MPEG4HP41,
        uids::HEVCMP51,
        uids::JPEGXL_LOSSLESS,
        uids::EXPLICIT_VR_LITTLE_ENDIAN,
        "1.2.3.4",
    ] {
        let refused = Codestreams::new(&uid.parse().unwrap(), &attributes(1)).map(drop);
        assert_eq!(refused, Err(CodestreamError::NotCleanable(uid.parse().unwrap())));
    }
    let deflated = uids::DEFLATED_IMAGE_FRAME_COMPRESSION;
    let (same, done) = clean(deflated, 1, &value(&[TEXT])).unwrap();
    assert!(same == value(&[TEXT]) && done.notes == [Note::Deflated]);
}

#[test]
fn errors_name_places_and_no_bytes() {
    let error = clean(BASELINE, 1, &value(&[TEXT])).unwrap_err();

    let text = format!("{error} {error:?} {}", Tag(0x7FE0, 0x0010));

    assert!(!text.contains("Doe") && text.contains("byte 8 "), "{text}");
}

fn streams() -> impl Strategy<Value = (&'static str, Vec<u8>)> {
    prop::sample::select(vec![
        (BASELINE, jpeg(TEXT)),
        (uids::JPEGLS_LOSSLESS, jpeg(TEXT)),
        (J2K, codestream(TEXT)),
        (
            J2K,
            [&SIGNATURE_BOX[..], &jp2_box(*b"uuid", TEXT), &jp2_box(*b"jp2c", &codestream(TEXT))]
                .concat(),
        ),
        (uids::RLE_LOSSLESS, rle(TEXT)),
    ])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn pieces_of_any_size_give_what_the_whole_gives(
        (syntax, frame) in streams(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        cuts in prop::collection::vec(1..60_usize, 1..20),
        fragment in any::<prop::sample::Index>(),
    ) {
        let cut = fragment.index(frame.len());
        let mut value = value(&[&frame[..cut], &frame[cut..]]);
        for (at, byte) in flips {
            let at = at.index(value.len());
            value[at] = byte;
        }

        let whole = clean_in(syntax, 1, &value, []);
        let pieces = clean_in(syntax, 1, &value, cuts.into_iter().cycle());

        prop_assert_eq!(&whole, &pieces);
        if let Ok((out, _)) = whole {
            // What has been cleaned has nothing left to clean.
            prop_assert_eq!(clean_in(syntax, 1, &out, []).map(|(again, done)| (again == out, done.bytes)), Ok((true, 0)));
        }
    }

    #[test]
    fn no_bytes_panic(
        (syntax, frame) in streams(),
        bytes in prop::collection::vec(prop_oneof![Just(0xFF_u8), any::<u8>()], 0..200),
        keep in 0..40_usize,
    ) {
        let begin = &frame[..keep.min(frame.len())];
        for value in [value(&[begin, &bytes]), value(&[&[begin, &bytes].concat()]), bytes] {
            let _ = clean_in(syntax, 1, &value, [7; 60]);
        }
    }
}
