mod jpeg_ls;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use dicom_core::header::Header;
use dicom_core::value::Value;
use dicom_dictionary_std::uids;
use dicom_encoding::Codec;
use dicom_encoding::transfer_syntax::TransferSyntaxIndex;
use dicom_object::InMemDicomObject;
use dicom_transfer_syntax_registry::TransferSyntaxRegistry;
use proptest::prelude::*;
use sample_studies::{Instance, SequenceLengths, TransferSyntax as Sample, part10_header};
use tempfile::TempDir;

use super::*;

const BIG_ENDIAN: &str = "1.2.840.10008.1.2.2";

fn syntax(uid: &str) -> TransferSyntax {
    uid.parse().unwrap()
}

fn explicit() -> TransferSyntax {
    TransferSyntax::explicit_vr_little_endian()
}

fn implicit() -> TransferSyntax {
    TransferSyntax::implicit_vr_little_endian()
}

fn to_explicit(instance: &Instance) -> Vec<u8> {
    convert(&instance.data_set, &syntax(&instance.transfer_syntax_uid), &explicit()).unwrap()
}

/// Every kind of instance, one of each study, in Explicit VR Little Endian.
fn instances() -> Vec<Instance> {
    sample_studies::all_valid(7)
        .into_iter()
        .chain([sample_studies::backslash_in_gb18030(7)])
        .flat_map(|study| study.instances.into_iter().take(2))
        .collect()
}

/// Where an element is, and its value.
type Found = (String, Vec<u8>);

/// The values of a data set as dicom-object reads them.
fn values(data_set: &[u8], syntax: &TransferSyntax) -> Vec<Found> {
    fn walk(object: &InMemDicomObject, path: &str, found: &mut Vec<Found>) {
        for element in object {
            let path = format!("{path}/{}", element.tag());
            match element.value() {
                Value::Primitive(value) => found.push((path, value.to_bytes().into_owned())),
                Value::Sequence(items) => {
                    for (nth, item) in items.items().iter().enumerate() {
                        walk(item, &format!("{path}[{nth}]"), found);
                    }
                }
                Value::PixelSequence(_) => panic!("pixel data is not native"),
            }
        }
    }
    let syntax = TransferSyntaxRegistry.get(syntax.uid()).unwrap();
    let mut found = Vec::new();
    walk(&InMemDicomObject::read_dataset_with_ts(data_set, syntax).unwrap(), "", &mut found);
    found
}

fn element(tag: (u16, u16), vr: [u8; 2], value: &[u8]) -> Vec<u8> {
    let mut out = plain_tag(tag);
    out.extend(vr);
    match &vr {
        b"OB" | b"OW" | b"OV" | b"UN" | b"UT" | b"SQ" => {
            out.extend([0, 0]);
            out.extend((value.len() as u32).to_le_bytes());
        }
        _ => out.extend((value.len() as u16).to_le_bytes()),
    }
    out.extend(value);
    out
}

fn implicit_element(tag: (u16, u16), value: &[u8]) -> Vec<u8> {
    [&plain_tag(tag)[..], &(value.len() as u32).to_le_bytes(), value].concat()
}

fn plain_tag((group, element): (u16, u16)) -> Vec<u8> {
    [group.to_le_bytes(), element.to_le_bytes()].concat()
}

/// An item of undefined length.
fn item(content: &[u8]) -> Vec<u8> {
    [b"\xFE\xFF\x00\xE0\xFF\xFF\xFF\xFF", content, b"\xFE\xFF\x0D\xE0\0\0\0\0"].concat()
}

fn sequence(header: &[u8], items: &[Vec<u8>]) -> Vec<u8> {
    [header, b"\xFF\xFF\xFF\xFF", &items.concat(), b"\xFE\xFF\xDD\xE0\0\0\0\0"].concat()
}

fn explicit_sequence(tag: (u16, u16), items: &[Vec<u8>]) -> Vec<u8> {
    sequence(&[&plain_tag(tag)[..], b"SQ\0\0"].concat(), items)
}

fn fragments(table: &[u8], fragments: &[&[u8]]) -> Vec<u8> {
    let mut out = b"\xE0\x7F\x10\x00OB\0\0\xFF\xFF\xFF\xFF".to_vec();
    for fragment in [&[table], fragments].concat() {
        out.extend(implicit_element((0xFFFE, 0xE000), fragment));
    }
    out.extend(b"\xFE\xFF\xDD\xE0\0\0\0\0");
    out
}

#[test]
fn values_of_odd_length_get_the_byte_that_they_lack() {
    let odd = [
        element((0x0008, 0x0018), *b"UI", b"1.2.3"),
        element((0x0010, 0x4000), *b"LT", b"odd"),
        element((0x0011, 0x1001), *b"OB", &[7]),
        explicit_sequence((0x0040, 0x0275), &[item(&element((0x0040, 0x0007), *b"LO", b"HEAD\\"))]),
    ]
    .concat();

    let even = convert(&odd, &explicit(), &explicit()).unwrap();

    let expected = [
        element((0x0008, 0x0018), *b"UI", b"1.2.3\0"),
        element((0x0010, 0x4000), *b"LT", b"odd "),
        element((0x0011, 0x1001), *b"OB", &[7, 0]),
        explicit_sequence(
            (0x0040, 0x0275),
            &[item(&element((0x0040, 0x0007), *b"LO", b"HEAD\\ "))],
        ),
    ]
    .concat();
    assert_eq!(even, expected);
}

struct Picture {
    frames: Option<&'static str>,
    rows: u16,
    columns: u16,
    samples: u16,
    allocated: u16,
    photometric: &'static str,
}

/// The attributes of an image, in Explicit VR Little Endian.
fn image(picture: &Picture) -> Vec<u8> {
    let number = |tag, number: u16| element(tag, *b"US", &number.to_le_bytes());
    let mut out = number((0x0028, 0x0002), picture.samples);
    out.extend(element((0x0028, 0x0004), *b"CS", picture.photometric.as_bytes()));
    if let Some(frames) = picture.frames {
        out.extend(element((0x0028, 0x0008), *b"IS", frames.as_bytes()));
    }
    out.extend(number((0x0028, 0x0010), picture.rows));
    out.extend(number((0x0028, 0x0011), picture.columns));
    out.extend(number((0x0028, 0x0100), picture.allocated));
    out
}

const GREY: Picture = Picture {
    frames: None,
    rows: 4,
    columns: 4,
    samples: 1,
    allocated: 8,
    photometric: "MONOCHROME2 ",
};

fn deflated(bytes: &[u8]) -> Vec<u8> {
    let syntax = TransferSyntaxRegistry.get(uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN).unwrap();
    let Codec::Dataset(Some(adapter)) = syntax.codec() else { panic!("deflate is not built in") };
    let mut out = Vec::new();
    adapter.adapt_writer(Box::new(&mut out)).write_all(bytes).unwrap();
    out
}

#[test]
fn big_endian_and_deflated_data_sets_become_the_bytes_they_were_made_of() {
    for instance in instances() {
        for other in [Sample::ExplicitVrBigEndian, Sample::DeflatedExplicitVrLittleEndian] {
            let converted = to_explicit(&instance.in_transfer_syntax(other).unwrap());

            let original =
                instance.encoded_as(Sample::default(), SequenceLengths::Undefined).unwrap();
            assert!(converted == original.data_set, "{} from {other:?}", instance.file_name);
        }
    }
}

#[test]
fn rle_becomes_the_pixels_it_was_made_of() {
    let mut images = 0;
    for instance in instances() {
        let Ok(compressed) = instance.in_transfer_syntax(Sample::RleLossless) else { continue };
        images += 1;

        let converted = to_explicit(&compressed);

        let original = instance.encoded_as(Sample::default(), SequenceLengths::Undefined).unwrap();
        let (converted, original) =
            (values(&converted, &explicit()), values(&original.data_set, &explicit()));
        assert!(converted == original, "{}", instance.file_name);
    }
    assert!(images >= 6, "{images} images");
}

#[test]
fn another_reader_finds_the_same_values_whatever_the_encoding() {
    for instance in instances() {
        for lengths in [SequenceLengths::Undefined, SequenceLengths::Defined] {
            for from in [
                Sample::ImplicitVrLittleEndian,
                Sample::ExplicitVrLittleEndian,
                Sample::ExplicitVrBigEndian,
            ] {
                let given = instance.encoded_as(from, lengths).unwrap();
                let original = values(&given.data_set, &syntax(from.uid()));
                for to in [explicit(), implicit()] {
                    let converted = convert(&given.data_set, &syntax(from.uid()), &to).unwrap();

                    let found = values(&converted, &to);
                    // What is private in Implicit VR has lost its character set, so it is compared as bytes below.
                    let same = |(a, b): (&Found, &Found)| {
                        a == b || a.0 == b.0 && !a.1.is_ascii() && to == implicit()
                    };
                    assert_eq!(found.len(), original.len());
                    let other = found
                        .iter()
                        .zip(&original)
                        .find(|pair| !same(*pair))
                        .map(|(found, _)| &found.0);
                    assert_eq!(other, None, "{} from {from:?} to {to}", instance.file_name);
                }
            }
        }
    }
}

#[test]
fn implicit_to_explicit_and_back_gives_the_same_bytes() {
    for instance in instances() {
        let given = instance.in_transfer_syntax(Sample::ImplicitVrLittleEndian).unwrap().data_set;

        let there = convert(&given, &implicit(), &explicit()).unwrap();
        let back = convert(&there, &explicit(), &implicit()).unwrap();

        assert!(back == given, "{}", instance.file_name);
    }
}

#[test]
fn value_representations_that_are_not_written_are_those_of_the_standard() {
    let signed = implicit_element((0x0028, 0x0103), &[1, 0]);
    let unsigned = implicit_element((0x0028, 0x0103), &[0, 0]);
    let smallest = implicit_element((0x0028, 0x0106), &[0, 0xFE]);
    let descriptor = implicit_element((0x0028, 0x3002), &[0; 6]);
    let lut_data = implicit_element((0x0028, 0x3006), &[0; 4]);
    let long = vec![b'A'; 65_536];
    let given = [
        implicit_element((0x0008, 0x0000), &[0, 0, 1, 0]),
        implicit_element((0x0008, 0x1040), &long),
        implicit_element((0x0008, 0x10FE), b"unknown "),
        implicit_element((0x0009, 0x0000), &[4, 0, 0, 0]),
        implicit_element((0x0009, 0x0010), b"ACME"),
        implicit_element((0x0009, 0x1001), b"a\\b "),
        // Before what decides on it.
        implicit_element((0x0018, 0x9810), &[0, 0xFF]),
        signed.clone(),
        smallest.clone(),
        sequence(&plain_tag((0x0028, 0x3000)), &[item(&[descriptor, lut_data].concat())]),
        // An icon has its own.
        sequence(&plain_tag((0x0088, 0x0200)), &[item(&[unsigned, smallest].concat())]),
        implicit_element((0x6002, 0x3000), &[1, 2]),
        implicit_element((0x7FE0, 0x0010), &[1, 2]),
    ]
    .concat();

    let converted = convert(&given, &implicit(), &explicit()).unwrap();

    let expected = [
        element((0x0008, 0x1040), *b"UN", &long),
        element((0x0008, 0x10FE), *b"UN", b"unknown "),
        element((0x0009, 0x0010), *b"LO", b"ACME"),
        element((0x0009, 0x1001), *b"UN", b"a\\b "),
        element((0x0018, 0x9810), *b"SS", &[0, 0xFF]),
        element((0x0028, 0x0103), *b"US", &[1, 0]),
        element((0x0028, 0x0106), *b"SS", &[0, 0xFE]),
        explicit_sequence(
            (0x0028, 0x3000),
            &[item(
                &[
                    element((0x0028, 0x3002), *b"SS", &[0; 6]),
                    element((0x0028, 0x3006), *b"OW", &[0; 4]),
                ]
                .concat(),
            )],
        ),
        explicit_sequence(
            (0x0088, 0x0200),
            &[item(
                &[
                    element((0x0028, 0x0103), *b"US", &[0, 0]),
                    element((0x0028, 0x0106), *b"US", &[0, 0xFE]),
                ]
                .concat(),
            )],
        ),
        element((0x6002, 0x3000), *b"OW", &[1, 2]),
        element((0x7FE0, 0x0010), *b"OW", &[1, 2]),
    ]
    .concat();
    assert!(converted == expected);
}

#[test]
fn big_endian_turns_round_what_has_an_order_also_inside_sequences() {
    let big = |tag: (u16, u16), vr: &[u8; 2], length: &[u8], value: &[u8]| {
        [&tag.0.to_be_bytes()[..], &tag.1.to_be_bytes(), vr, length, value].concat()
    };
    let short = |tag, vr, value: &[u8]| big(tag, vr, &(value.len() as u16).to_be_bytes(), value);
    let long = |tag, vr, value: &[u8]| {
        big(tag, vr, &[&[0, 0][..], &(value.len() as u32).to_be_bytes()].concat(), value)
    };
    let eight = [1, 2, 3, 4, 5, 6, 7, 8];
    let cases: [(_, &[u8; 2], _); 16] = [
        ((0x0010, 0x1001), b"AT", [2, 1, 4, 3, 6, 5, 8, 7]),
        ((0x0010, 0x1002), b"FD", [8, 7, 6, 5, 4, 3, 2, 1]),
        ((0x0010, 0x1003), b"FL", [4, 3, 2, 1, 8, 7, 6, 5]),
        ((0x0010, 0x1004), b"LO", eight),
        ((0x0010, 0x1005), b"OB", eight),
        ((0x0010, 0x1006), b"OD", [8, 7, 6, 5, 4, 3, 2, 1]),
        ((0x0010, 0x1007), b"OF", [4, 3, 2, 1, 8, 7, 6, 5]),
        ((0x0010, 0x1008), b"OL", [4, 3, 2, 1, 8, 7, 6, 5]),
        ((0x0010, 0x1009), b"OV", [8, 7, 6, 5, 4, 3, 2, 1]),
        ((0x0010, 0x100A), b"OW", [2, 1, 4, 3, 6, 5, 8, 7]),
        ((0x0010, 0x100B), b"SL", [4, 3, 2, 1, 8, 7, 6, 5]),
        ((0x0010, 0x100C), b"SS", [2, 1, 4, 3, 6, 5, 8, 7]),
        ((0x0010, 0x100D), b"SV", [8, 7, 6, 5, 4, 3, 2, 1]),
        ((0x0010, 0x100E), b"UL", [4, 3, 2, 1, 8, 7, 6, 5]),
        ((0x0010, 0x100F), b"UN", eight),
        ((0x0010, 0x1010), b"UV", [8, 7, 6, 5, 4, 3, 2, 1]),
    ];
    let mut content = Vec::new();
    let mut expected = Vec::new();
    for (tag, vr, turned) in cases {
        let is_short = matches!(vr, b"AT" | b"FD" | b"FL" | b"LO" | b"SL" | b"SS" | b"UL");
        content.extend(if is_short { short(tag, vr, &eight) } else { long(tag, vr, &eight) });
        expected.extend(plain_tag(tag));
        expected.extend(vr);
        expected.extend(if is_short { vec![8, 0] } else { vec![0, 0, 8, 0, 0, 0] });
        expected.extend(turned);
    }
    let item_header =
        [&[0xFF, 0xFE, 0xE0, 0x00][..], &(content.len() as u32).to_be_bytes()].concat();
    let given =
        [content.clone(), long((0x0040, 0x0275), b"SQ", &[item_header, content].concat())].concat();

    let converted = convert(&given, &syntax(BIG_ENDIAN), &explicit()).unwrap();

    assert_eq!(
        converted,
        [&expected[..], &explicit_sequence((0x0040, 0x0275), &[item(&expected)])].concat()
    );
}

#[test]
fn sequences_of_unknown_representation_become_ordinary_ones() {
    let unknown =
        |tag, items: &[Vec<u8>]| sequence(&[&plain_tag(tag)[..], b"UN\0\0"].concat(), items);
    let inner =
        [implicit_element((0x0008, 0x0100), b"T-D1"), implicit_element((0x0009, 0x1001), b"ab")]
            .concat();
    let given = unknown((0x0009, 0x1002), &[item(&inner)]);

    let converted = convert(&given, &explicit(), &explicit()).unwrap();
    let without = convert(&given, &explicit(), &implicit()).unwrap();

    let inner =
        [element((0x0008, 0x0100), *b"SH", b"T-D1"), element((0x0009, 0x1001), *b"UN", b"ab")]
            .concat();
    assert_eq!(converted, explicit_sequence((0x0009, 0x1002), &[item(&inner)]));
    assert_eq!(convert(&without, &implicit(), &explicit()).unwrap(), converted);
}

#[test]
fn frames_are_decoded_into_their_places_whatever_packs_them() {
    let picture = |photometric, samples, frames| Picture {
        frames: Some(frames),
        photometric,
        samples,
        ..GREY
    };
    let tables = [
        element((0x7FE0, 0x0001), *b"OV", &[[0; 8], 24_u64.to_le_bytes()].concat()),
        element((0x7FE0, 0x0002), *b"OV", &[16_u64.to_le_bytes(), 16_u64.to_le_bytes()].concat()),
    ]
    .concat();
    let (first, second) = ((0..16).collect::<Vec<u8>>(), (16..32).collect::<Vec<u8>>());
    let attributes = image(&picture("MONOCHROME2 ", 1, "2 "));
    let pixels = element((0x7FE0, 0x0010), *b"OB", &(0..32).collect::<Vec<u8>>());

    for (uid, tables, pixel_data) in [
        (
            uids::ENCAPSULATED_UNCOMPRESSED_EXPLICIT_VR_LITTLE_ENDIAN,
            &[][..],
            fragments(&[], &[&first, &second]),
        ),
        (
            uids::ENCAPSULATED_UNCOMPRESSED_EXPLICIT_VR_LITTLE_ENDIAN,
            &tables,
            fragments(&[], &[&first, &second[..8], &second[8..]]),
        ),
        (
            uids::DEFLATED_IMAGE_FRAME_COMPRESSION,
            &[],
            fragments(&[], &[&deflated(&first), &deflated(&second)]),
        ),
    ] {
        let given = [&attributes[..], tables, &pixel_data].concat();

        let converted = convert(&given, &syntax(uid), &explicit()).unwrap();

        assert_eq!(converted, [&attributes[..], &pixels].concat(), "{uid}");
    }
}

#[test]
fn colours_of_rle_are_by_pixel_afterwards_and_say_so() {
    let attributes = |planar: &[u8]| {
        let image = image(&Picture { samples: 3, photometric: "RGB ", ..GREY });
        let (before, after) = image.split_at(10 + 12); // Samples per Pixel, Photometric Interpretation
        [before, planar, after].concat()
    };
    let planar = |by_plane| element((0x0028, 0x0006), *b"US", &[by_plane, 0]);
    let header = [3, 64, 66, 68].into_iter().chain([0; 12]).flat_map(u32::to_le_bytes);
    // A run of 16 for each colour.
    let frame: Vec<u8> = header.chain([241, 10, 241, 20, 241, 30]).collect();
    let pixels = element((0x7FE0, 0x0010), *b"OB", &[10, 20, 30].repeat(16));

    for given in [planar(1), planar(0), vec![]] {
        let given = [attributes(&given), fragments(&[], &[&frame])].concat();

        let converted = convert(&given, &syntax(uids::RLE_LOSSLESS), &explicit()).unwrap();

        assert_eq!(converted, [&attributes(&planar(0))[..], &pixels].concat());
    }
}

#[test]
fn frames_of_single_bits_close_up() {
    let picture = Picture { frames: Some("3 "), rows: 3, columns: 3, allocated: 1, ..GREY };
    let frames = [[0xFF, 0xFF], [0x00, 0xFE], [0x55, 0x01]].map(|frame| deflated(&frame));
    let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
    let given = [image(&picture), fragments(&[], &frames)].concat();

    let converted =
        convert(&given, &syntax(uids::DEFLATED_IMAGE_FRAME_COMPRESSION), &explicit()).unwrap();

    // 9 ones, 9 zeros, and 101010101 from the right.
    let bits = 0x1FF_u32 | 0x155 << 18;
    let pixels = element((0x7FE0, 0x0010), *b"OB", &bits.to_le_bytes());
    assert_eq!(converted, [image(&picture), pixels].concat());
}

#[test]
fn an_icon_is_decoded_as_the_image_it_is() {
    let icon = |pixel_data: Vec<u8>| {
        let items = [item(&[image(&Picture { columns: 3, rows: 1, ..GREY }), pixel_data].concat())];
        [image(&GREY), explicit_sequence((0x0088, 0x0200), &items)].concat()
    };
    let large = element((0x7FE0, 0x0010), *b"OB", &[5; 16]);
    let uncompressed = syntax(uids::ENCAPSULATED_UNCOMPRESSED_EXPLICIT_VR_LITTLE_ENDIAN);
    let given = [icon(fragments(&[], &[&[1, 2, 3, 0]])), fragments(&[], &[&[5; 16]])].concat();

    let converted = convert(&given, &uncompressed, &explicit()).unwrap();

    assert_eq!(converted, [icon(element((0x7FE0, 0x0010), *b"OB", &[1, 2, 3, 0])), large].concat());
}

#[test]
fn what_cannot_be_converted_says_why() {
    let rle = syntax(uids::RLE_LOSSLESS);
    let error = |attributes: &[u8], pixel_data: &[u8], from: &TransferSyntax| {
        convert(&[attributes, pixel_data].concat(), from, &explicit()).unwrap_err().to_string()
    };
    let grey = image(&GREY);
    let huge = image(&Picture {
        frames: Some("1 "),
        rows: 65_535,
        columns: 65_535,
        allocated: 16,
        ..GREY
    });
    let some = fragments(&[], &[&[0; 4]]);
    let native = element((0x7FE0, 0x0010), *b"OB", &[0; 16]);

    for (error, expected) in [
        (
            error(&grey, &some, &syntax(uids::MPEG4HP41)),
            "no decoder for transfer syntax 1.2.840.10008.1.2.4.102",
        ),
        (
            error(&grey, &some, &syntax(uids::JPEGLS_LOSSLESS)),
            "frame 1 of transfer syntax 1.2.840.10008.1.2.4.80 cannot be decoded: no JPEG-LS image",
        ),
        (
            error(&grey, &[], &syntax("1.2.840.113619.5.2")),
            "no decoder for transfer syntax 1.2.840.113619.5.2",
        ),
        (
            error(&grey, &native, &rle),
            "attribute (7FE0,0010) is native in an encapsulated transfer syntax",
        ),
        (
            error(&grey, &some, &explicit()),
            "attribute (7FE0,0010) is encapsulated in a native transfer syntax",
        ),
        (
            error(&[], &some, &rle),
            "attribute (0028,0010) is needed to decode the pixel data and is missing or 0",
        ),
        (
            error(&image(&Picture { frames: Some("2 "), ..GREY }), &some, &rle),
            "attribute (0028,0008) says more than there are fragments",
        ),
        (
            error(&image(&Picture { frames: Some("-1"), ..GREY }), &some, &rle),
            "attribute (0028,0008) is not a number of frames",
        ),
        (
            error(&image(&Picture { allocated: 12, ..GREY }), &some, &rle),
            "attribute (0028,0100) is not a number of bits that is decoded from this transfer syntax",
        ),
        (
            error(&huge, &some, &rle),
            "pixel data would take 8589672450 bytes where 1073741824 are left for them",
        ),
        (
            error(&grey, &fragments(&[], &[&[0; 64]]), &rle),
            "frame 1 of transfer syntax 1.2.840.10008.1.2.5 cannot be decoded: number of RLE segments is not that of the bytes of a pixel",
        ),
        (
            error(
                &grey,
                &fragments(&[], &[&[0xFF, 0xD8, 0xFF, 0xD9]]),
                &syntax(uids::JPEG_LOSSLESS_SV1),
            ),
            "frame 1 of transfer syntax 1.2.840.10008.1.2.4.70 cannot be decoded: no JPEG image",
        ),
        (error(&[0; 3], &[], &explicit()), "data set is damaged"),
    ] {
        assert_eq!(error, expected);
    }
    assert!(matches!(convert(&grey, &explicit(), &rle), Err(TranscodeError::NotWritten(_))));
    // A report has no pixels, so nothing has to be decoded.
    assert_eq!(convert(&grey, &syntax(uids::JPEGLS_LOSSLESS), &explicit()).unwrap(), grey);
}

/// Data sets of Explicit VR Little Endian, with sequences of both forms of length.
fn data_sets() -> impl Strategy<Value = Vec<u8>> {
    const VRS: [[u8; 2]; 12] = [
        *b"AE", *b"AT", *b"CS", *b"DS", *b"FD", *b"LO", *b"OB", *b"OW", *b"PN", *b"UN", *b"US",
        *b"UT",
    ];
    let simple =
        || (prop::sample::select(VRS.as_slice()), prop::collection::vec(any::<u8>(), 0..12));
    // What the dictionary calls a sequence cannot be anything else where nothing is written.
    let plain =
        |tag: &(u16, u16)| vr::implied(Tag(tag.0, tag.1)) != vr::Implied::Known(dicom_core::VR::SQ);
    let tags = (9_u16..0x30, 0x1000_u16..0x1100).prop_filter("a sequence", plain);
    let leaf = prop::collection::btree_map(tags, simple(), 1..6).prop_map(|elements| {
        elements
            .into_iter()
            .flat_map(|(tag, (vr, value))| element(tag, vr, &value.repeat(2)))
            .collect::<Vec<_>>()
    });
    leaf.prop_recursive(4, 32, 3, move |inner| {
        (inner.clone(), prop::collection::vec(inner, 0..3), 0x1101_u16..0x1200, any::<bool>())
            .prop_map(|(before, items, number, defined)| {
                let items: Vec<Vec<u8>> = items.iter().map(|content| item(content)).collect();
                let tag = (0x0031, number);
                let nested = if defined {
                    element(tag, *b"SQ", &items.concat())
                } else {
                    explicit_sequence(tag, &items)
                };
                [before, nested].concat()
            })
    })
}

/// The values of a data set in the order of its bytes, by a walk of the scanner over nothing but them.
fn raw_values(data_set: &[u8], syntax: &TransferSyntax) -> Vec<u8> {
    use gantry_store::dicom::scanner::{Event, Visitor};
    struct Values(Vec<u8>);
    impl Visitor for Values {
        fn visit(&mut self, event: Event<'_>) {
            match event {
                Event::Element(header) | Event::Sequence(header) => {
                    self.0.extend(header.tag.group().to_le_bytes());
                    self.0.extend(header.tag.element().to_le_bytes());
                    self.0.extend(header.depth.to_le_bytes());
                }
                Event::Value(bytes) => self.0.extend(bytes),
                Event::Item(_) => self.0.push(b'['),
                Event::ItemEnd(_) => self.0.push(b']'),
                Event::ValueEnd | Event::SequenceEnd(_) => self.0.push(b';'),
                Event::Fragments(_) | Event::Fragment(_) => panic!("pixel data is not native"),
            }
        }
    }
    let mut scanner = Scanner::with_visitor(syntax, Budget::default(), Values(Vec::new()));
    scanner.feed(data_set).unwrap();
    scanner.finish_visit().unwrap().1.0
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn explicit_to_implicit_and_back_keeps_every_value(given in data_sets()) {
        let original = raw_values(&given, &explicit());

        let there = convert(&given, &explicit(), &implicit()).unwrap();
        let back = convert(&there, &implicit(), &explicit()).unwrap();

        prop_assert_eq!(&raw_values(&there, &implicit()), &original);
        prop_assert_eq!(&raw_values(&back, &explicit()), &original);
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), from in prop::sample::select(vec![
        uids::IMPLICIT_VR_LITTLE_ENDIAN, uids::EXPLICIT_VR_LITTLE_ENDIAN, BIG_ENDIAN,
        uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, uids::RLE_LOSSLESS,
    ])) {
        let _ = convert(&bytes, &syntax(from), &explicit());
    }

    #[test]
    fn no_frame_panics(frame in prop::collection::vec(any::<u8>(), 0..300), from in prop::sample::select(vec![
        uids::RLE_LOSSLESS, uids::JPEG_BASELINE8_BIT, uids::JPEG_LOSSLESS_SV1, uids::JPEG2000_LOSSLESS,
        uids::DEFLATED_IMAGE_FRAME_COMPRESSION,
    ])) {
        let frame = match from {
            uids::JPEG_BASELINE8_BIT => [&[0xFF, 0xD8, 0xFF, 0xC0, 0, 11, 8, 0, 4, 0, 4, 1, 1, 0x11, 0][..], &frame].concat(),
            uids::JPEG_LOSSLESS_SV1 => [&[0xFF, 0xD8, 0xFF, 0xC3, 0, 11, 8, 0, 4, 0, 4, 1, 1, 0x11, 0][..], &frame].concat(),
            _ => frame,
        };
        let given = [image(&GREY), fragments(&[], &[&frame])].concat();

        let _ = convert(&given, &syntax(from), &explicit());
    }
}

// Peers, as far as they are installed: another implementation has to read the same out of what is written here.

fn run(program: &str, arguments: &[&str]) -> Option<Output> {
    match Command::new(program).args(arguments).output() {
        Ok(output) => Some(output),
        Err(error) => {
            eprintln!("SKIPPED: {program} cannot be run: {error}");
            None
        }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn write(folder: &TempDir, name: &str, instance: &Instance, uid: &str, data_set: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    let mut file = part10_header(&instance.sop_class_uid, &instance.sop_instance_uid, uid);
    file.extend_from_slice(data_set);
    fs::write(&path, file).unwrap();
    path
}

/// What DCMTK prints of a file, without its header.
fn dump(path: &Path) -> Option<Vec<String>> {
    let output = run("dcmdump", &["+L", "-q", text(path)])?;
    assert!(output.status.success(), "dcmdump: {}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    let elements =
        lines.lines().filter(|line| line.starts_with([' ', '(']) && !line.starts_with("(0002,"));
    Some(elements.map(str::to_owned).collect())
}

#[test]
fn dcmtk_writes_the_same_elements_as_we_do() {
    let folder = TempDir::new().unwrap();
    for instance in instances() {
        for from in [
            Sample::ImplicitVrLittleEndian,
            Sample::ExplicitVrLittleEndian,
            Sample::ExplicitVrBigEndian,
        ] {
            let given = instance.encoded_as(from, SequenceLengths::Defined).unwrap();
            let original = write(&folder, "original.dcm", &instance, from.uid(), &given.data_set);
            for (to, option) in [(explicit(), "+te"), (implicit(), "+ti")] {
                let converted = convert(&given.data_set, &syntax(from.uid()), &to).unwrap();
                let ours = write(&folder, "ours.dcm", &instance, to.uid(), &converted);
                let theirs = folder.path().join("theirs.dcm");
                let Some(output) =
                    run("dcmconv", &[option, "-e", "-g", text(&original), text(&theirs)])
                else {
                    return;
                };
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

                let (Some(ours), Some(theirs)) = (dump(&ours), dump(&theirs)) else { return };

                assert_eq!(ours, theirs, "{} from {from:?} to {to}", instance.file_name);
            }
        }
    }
}

/// Compresses with one of DCMTK's tools, decompresses here and with another, and gives the values of both.
fn decoded_twice(
    folder: &TempDir,
    instance: &Instance,
    compress: &[&str],
    decompress: &[&str],
) -> Option<(Vec<Found>, Vec<Found>)> {
    let original =
        write(folder, "original.dcm", instance, &instance.transfer_syntax_uid, &instance.data_set);
    let (compressed, theirs) =
        (folder.path().join("compressed.dcm"), folder.path().join("theirs.dcm"));
    for (tool, from, to) in [(compress, &original, &compressed), (decompress, &compressed, &theirs)]
    {
        let (program, options) = tool.split_first()?;
        let output = run(program, &[options, &[text(from), text(to)]].concat())?;
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let (uid, data_set) = part10(&compressed)?;
    let converted = convert(&data_set, &uid, &explicit()).unwrap();
    let (uid, decompressed) = part10(&theirs)?;
    Some((values(&converted, &explicit()), values(&decompressed, &uid)))
}

/// The transfer syntax and the data set of a file, if it has a header as PS3.10 7.1 wants it.
fn part10(path: &Path) -> Option<(TransferSyntax, Vec<u8>)> {
    let file = fs::read(path).unwrap();
    let header = file.strip_prefix(&[&file[..128], b"DICM"].concat()[..])?;
    let length = header
        .strip_prefix(b"\x02\0\0\0UL\x04\0")?
        .first_chunk()
        .copied()
        .map(u32::from_le_bytes)?;
    let (meta, data_set) = header[12..].split_at(length as usize);
    let at = meta.windows(6).position(|bytes| bytes == b"\x02\0\x10\0UI")?;
    let length = u16::from_le_bytes(meta[at + 6..at + 8].try_into().unwrap());
    let uid = String::from_utf8_lossy(&meta[at + 8..at + 8 + usize::from(length)]).into_owned();
    Some((uid.trim_end_matches(['\0', ' ']).parse().ok()?, data_set.to_vec()))
}

#[test]
fn dcmtk_decodes_the_same_pixels_as_we_do() {
    let folder = TempDir::new().unwrap();
    let has_pixels = |instance: &Instance| instance.in_transfer_syntax(Sample::RleLossless).is_ok();
    for instance in instances().iter().filter(|instance| has_pixels(instance)) {
        for (compress, decompress) in [
            (&["dcmcrle"][..], "dcmdrle"),
            (&["dcmcjpeg", "+e1"], "dcmdjpeg"),
            (&["dcmcjpeg", "+el", "+sv", "4"], "dcmdjpeg"),
            (&["dcmcjpls", "+il"], "dcmdjpls"),
            (&["dcmcjpls", "+is", "+pc"], "dcmdjpls"),
            (&["dcmcjpls", "+in", "-ot", "+fs", "4"], "dcmdjpls"),
        ] {
            // Lossless, and so that the instance keeps its UID.
            let compress =
                [compress, &["-e", "-g", "+un"][..if compress[0] == "dcmcrle" { 2 } else { 3 }]]
                    .concat();
            let decompress = [decompress, "+te", "-e", "-g"];
            let Some((ours, theirs)) = decoded_twice(&folder, instance, &compress, &decompress)
            else {
                return;
            };

            let other = ours
                .iter()
                .zip(&theirs)
                .find(|(ours, theirs)| ours != theirs)
                .map(|(ours, _)| &ours.0);
            assert_eq!(
                (other, ours.len()),
                (None, theirs.len()),
                "{} by {compress:?}",
                instance.file_name
            );
        }
    }
}

/// Reads pairs of files, the original and ours; prints for each how many elements and by how much pixels differ.
const PYDICOM: &str = r#"
import sys, warnings
warnings.simplefilter("ignore")
import numpy
from pydicom import dcmread
from pydicom.pixels import pixel_array

PIXELS = {0x7FE00001, 0x7FE00002, 0x7FE00003, 0x7FE00010, 0x00280004, 0x00280006}
NATIVE = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99"}

def differences(a, b, compressed):
    tags = {t for t in a.keys() if t.element != 0} ^ set(b.keys())
    found = len([t for t in tags if not (compressed and t in PIXELS)])
    for tag in a.keys():
        if tag.element == 0 or tag not in b or (compressed and tag in PIXELS):
            continue
        x, y = a[tag], b[tag]
        if x.VR == "SQ" and y.VR == "SQ":
            found += abs(len(x.value) - len(y.value))
            found += sum(differences(i, j, compressed) for i, j in zip(x.value, y.value))
        elif x.VR == y.VR and str(x.value) != str(y.value) and x.value != y.value:
            found += 1
        elif x.VR != y.VR and not (x.VR in ("UN", "SQ") or y.VR in ("UN", "OB", "OW")):
            found += 1
    return found

for line in sys.stdin:
    original, ours = line.rstrip("\n").split("\t")
    a, b = dcmread(original), dcmread(ours)
    syntax = a.file_meta.TransferSyntaxUID
    found = differences(a, b, syntax not in NATIVE)
    try:
        p, q = pixel_array(a) if "PixelData" in a else None, None
    except Exception as error:
        p, q = None, "not decoded by pydicom"
    if p is not None:
        q = pixel_array(b)
        q = int(abs(p.astype("int64") - q.astype("int64")).max()) if p.shape == q.shape else "other shape"
    print(original.split("/")[-1], syntax, found, q, sep="\t")
"#;

#[test]
fn pydicom_reads_the_same_from_its_test_files_and_from_what_we_make_of_them() {
    let folder = TempDir::new().unwrap();
    let find = "import os, numpy, pydicom.data; print(os.path.dirname(pydicom.data.__file__) + '/test_files')";
    let Some(output) = run("python3", &["-c", find]) else { return };
    if !output.status.success() {
        eprintln!("SKIPPED: pydicom and numpy are not installed for python3");
        return;
    }
    let files = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim());
    let nobody = sample_studies::structured_report(7).instances.remove(0);
    let (mut pairs, mut refused) = (Vec::new(), Vec::new());
    for path in fs::read_dir(files).unwrap().map(|entry| entry.unwrap().path()) {
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.extension().is_none_or(|extension| extension != "dcm") {
            continue;
        }
        let Some((from, data_set)) = part10(&path) else { continue };
        match convert(&data_set, &from, &explicit()) {
            Ok(converted) => {
                let ours = write(&folder, name, &nobody, explicit().uid(), &converted);
                pairs.push(format!("{}\t{}", path.display(), ours.display()));
            }
            Err(error) => refused.push(format!("{name}: {error}")),
        }
    }
    fs::write(folder.path().join("pairs"), pairs.join("\n")).unwrap();

    let script = format!(
        "import sys\nsys.stdin = open({:?})\n{PYDICOM}",
        text(&folder.path().join("pairs"))
    );
    let output = run("python3", &["-c", &script]).unwrap();

    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let output = String::from_utf8(output.stdout).unwrap();
    let mut compared = 0;
    for line in output.lines() {
        let [_, syntax, elements, pixels]: [&str; 4] =
            line.split('\t').collect::<Vec<_>>().try_into().unwrap();
        // Decoders of lossy JPEG may round differently, and more so where they interpolate chrominance.
        let tolerance = if syntax == uids::JPEG_BASELINE8_BIT { 3 } else { 0 };
        let same = pixels
            .parse()
            .map_or(pixels == "None" || pixels == "not decoded by pydicom", |by: i64| {
                by <= tolerance
            });
        assert!(elements == "0" && same, "{line}");
        compared += i32::from(pixels.parse::<i64>().is_ok());
    }
    // pydicom alone decodes what is native and RLE; the rest needs its plugins.
    assert!(compared >= 20, "{compared} images in\n{output}");
    let reasons = [
        "JPEG of more than 8 bits is not lossless",
        "is more than 16 in big endian",
        "data set is damaged",
        "JPEG 2000 tiles are missing",
    ];
    for refusal in refused {
        assert!(reasons.iter().any(|reason| refusal.contains(reason)), "{refusal}");
    }
}
