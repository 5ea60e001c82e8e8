//! Real streams, by several encoders: what is blacked or emptied decodes to the same pixels everywhere else.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use dicom_dictionary_std::tags;
use gantry_deidentify::data_set::{self, Parsed};
use gantry_deidentify::pixels::blacken::Area;
use gantry_deidentify::pixels::codec::{RecodeError, blacken};
use gantry_deidentify::pixels::codestream::{Cleaned, CodestreamError, Codestreams};
use gantry_deidentify::pixels::image::Image;
use gantry_deidentify::pixels::mask::Library;
use sample_studies::{Instance, TransferSyntax as Sample, part10_header};
use tempfile::TempDir;

use super::*;

const TEXT: &[u8] = b"DOE^JANE 9990548609 12/03/1948";

/// A data set with compressed pixel data.
struct Source {
    name: String,
    syntax: TransferSyntax,
    data_set: Vec<u8>,
}

fn explicit() -> TransferSyntax {
    TransferSyntax::explicit_vr_little_endian()
}

fn with_pixels() -> Vec<Instance> {
    let studies = sample_studies::all_valid(7).into_iter();
    let instances = studies.flat_map(|study| study.instances.into_iter().take(1));
    instances.filter(|instance| instance.in_transfer_syntax(Sample::RleLossless).is_ok()).collect()
}

/// Compressed by the sample studies' own encoder, and by ours.
fn own_sources() -> Vec<Source> {
    let mut sources = Vec::new();
    for instance in with_pixels() {
        let name = |how: &str| format!("{} {how}", instance.file_name);
        let rle = instance.in_transfer_syntax(Sample::RleLossless).unwrap();
        let syntax = rle.transfer_syntax_uid.parse().unwrap();
        sources.push(Source { name: name("RLE"), syntax, data_set: rle.data_set });
        let native = instance.in_transfer_syntax(Sample::ExplicitVrLittleEndian).unwrap();
        if let Some((syntax, data_set)) = Transcoder.encode(&native.data_set).unwrap() {
            sources.push(Source { name: name("JPEG-LS"), syntax, data_set });
        }
    }
    sources
}

/// Compressed by DCMTK, as far as it is installed.
fn dcmtk_sources() -> Vec<Source> {
    let folder = TempDir::new().unwrap();
    let (from, to) = (folder.path().join("from.dcm"), folder.path().join("to.dcm"));
    let mut sources = Vec::new();
    for instance in with_pixels() {
        let uid = &instance.transfer_syntax_uid;
        let mut file = part10_header(&instance.sop_class_uid, &instance.sop_instance_uid, uid);
        file.extend_from_slice(&instance.data_set);
        fs::write(&from, file).unwrap();
        for tool in [
            &["dcmcjpeg", "+eb"][..],
            &["dcmcjpeg", "+e1"],
            &["dcmcjpeg", "+el", "+sv", "4"],
            &["dcmcjpls", "+is", "+pc"],
            &["dcmcjpls", "+in", "-ot", "+fs", "4"],
        ] {
            let (program, options) = tool.split_first().unwrap();
            let Ok(output) = Command::new(program).args(options).args([&from, &to]).output() else {
                eprintln!("SKIPPED: {program} cannot be run");
                return sources;
            };
            // Some do not take what has 16 bits.
            if output.status.success() {
                sources.extend(part10(&to, &format!("{} {tool:?}", instance.file_name)));
            }
        }
    }
    sources
}

/// Those that come with pydicom: of many devices and encoders.
fn pydicom_sources() -> Vec<Source> {
    let find =
        "import os, pydicom.data; print(os.path.dirname(pydicom.data.__file__) + '/test_files')";
    let Ok(output) = Command::new("python3").args(["-c", find]).output() else { return Vec::new() };
    if !output.status.success() {
        eprintln!("SKIPPED: pydicom is not installed for python3");
        return Vec::new();
    }
    let files = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim());
    let mut sources = Vec::new();
    for path in fs::read_dir(files).unwrap().map(|entry| entry.unwrap().path()) {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.extension().is_some_and(|extension| extension == "dcm") {
            let compressed = part10(&path, &name).filter(|source| !source.syntax.is_native());
            sources.extend(compressed);
        }
    }
    sources
}

fn part10(path: &Path, name: &str) -> Option<Source> {
    let file = fs::read(path).ok()?;
    let meta = file.get(128..)?.strip_prefix(b"DICM\x02\0\0\0UL\x04\0")?;
    let length = u32::from_le_bytes(*meta.first_chunk()?) as usize;
    let (meta, data_set) = meta.get(4..)?.split_at_checked(length)?;
    let at = meta.windows(6).position(|bytes| bytes == b"\x02\0\x10\0UI")?;
    let length = usize::from(u16::from_le_bytes(*meta.get(at + 6..)?.first_chunk()?));
    let uid = String::from_utf8_lossy(meta.get(at + 8..at + 8 + length)?).into_owned();
    let syntax = uid.trim_end_matches(['\0', ' ']).parse().ok()?;
    Some(Source { name: name.to_owned(), syntax, data_set: data_set.to_vec() })
}

fn parse(source: &Source) -> Option<Parsed> {
    let parsed = data_set::read(&source.syntax, &source.data_set).ok()?;
    parsed.pixel_data.as_ref().is_some_and(|pixel_data| pixel_data.encapsulated).then_some(parsed)
}

/// The data set with its compressed pixel data emptied of text, in pieces.
fn emptied(source: &Source) -> Option<Result<(Vec<u8>, Cleaned), CodestreamError>> {
    let parsed = parse(source)?;
    let value = parsed.pixel_data.clone()?.value;
    let mut out = source.data_set.clone();
    let empty = |out: &mut Vec<u8>| {
        let mut walk = Codestreams::new(&source.syntax, &parsed.data_set)?;
        let mut offset = 0;
        for piece in out[value.start as usize..value.end as usize].chunks_mut(4093) {
            walk.feed(offset, piece)?;
            offset += piece.len() as u64;
        }
        walk.finish()
    };
    Some(empty(&mut out).map(|cleaned| (out, cleaned)))
}

/// The data set with text in its first frame, and behind its last: where each format has room for it.
fn with_text(source: &Source) -> Option<Source> {
    let parsed = parse(source)?;
    let value = parsed.pixel_data?.value;
    let value = value.start as usize..value.end as usize;
    let (mut items, mut rest) = (Vec::new(), &source.data_set[value.clone()]);
    while let Some((header, behind)) = rest.split_first_chunk::<8>() {
        let length = u32::from_le_bytes(*header.last_chunk()?) as usize;
        let (item, behind) = behind.split_at_checked(length)?;
        items.push(item.to_vec());
        rest = behind;
    }
    let segment = |code: u8, front: &[u8]| {
        let length = (front.len() + TEXT.len() + 2) as u16;
        [&[0xFF, code][..], &length.to_be_bytes(), front, TEXT].concat()
    };
    // Offsets would be wrong; without a table a frame is a fragment.
    items[0].clear();
    let first = &mut items[1];
    let (at, inserted) = match *first.first_chunk()? {
        [0xFF, 0xD8] => (2, [segment(0xE1, b"Exif\0\0"), segment(0xFE, b"")].concat()),
        [0xFF, 0x4F] => {
            let size = u16::from_be_bytes(*first.get(4..)?.first_chunk()?);
            (4 + usize::from(size), segment(0x64, &[0, 1]))
        }
        _ => (0, Vec::new()),
    };
    first.splice(at..at, inserted);
    let last = items.last_mut()?;
    last.extend_from_slice(TEXT);
    for item in &mut items {
        item.resize(item.len().next_multiple_of(2), b' ');
    }
    let written: Vec<u8> = items
        .iter()
        .flat_map(|item| {
            [&b"\xFE\xFF\x00\xE0"[..], &(item.len() as u32).to_le_bytes(), item].concat()
        })
        .collect();
    let mut data_set = source.data_set.clone();
    data_set.splice(value, written);
    Some(Source { name: source.name.clone(), syntax: source.syntax.clone(), data_set })
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}

#[test]
fn emptied_streams_decode_to_the_same_pixels() {
    let mut sources = own_sources();
    sources.extend(dcmtk_sources());
    let foreign = pydicom_sources();
    let has_foreign = !foreign.is_empty();
    sources.extend(foreign);
    let (mut compared, mut planted, mut refused) = (Vec::new(), 0, Vec::new());
    for source in &sources {
        let Ok(decoded) = Transcoder.decode(&source.data_set, &source.syntax) else { continue };
        let Some(result) = emptied(source) else { continue };

        let (data_set, cleaned) = match result {
            Ok(done) => done,
            Err(error) => {
                refused.push(format!("{}: {error}", source.name));
                continue;
            }
        };

        assert_eq!(data_set.len(), source.data_set.len());
        let again = Transcoder.decode(&data_set, &source.syntax).unwrap();
        assert!(again == decoded, "{} {cleaned:?}", source.name);
        compared.push(source.syntax.uid());

        // With a frame in several fragments nobody could tell them apart without the table.
        let Some(text) = with_text(source) else { continue };
        let Ok(decoded) = Transcoder.decode(&text.data_set, &text.syntax) else { continue };
        let (data_set, cleaned) = emptied(&text).unwrap().unwrap();
        assert!(contains(&text.data_set, TEXT) && !contains(&data_set, TEXT), "{}", source.name);
        assert!(cleaned.bytes >= TEXT.len() as u64 - 2);
        assert!(Transcoder.decode(&data_set, &text.syntax).unwrap() == decoded, "{}", source.name);
        planted += 1;
    }
    eprintln!("{} streams compared, {planted} with text; refused: {refused:?}", compared.len());
    compared.sort_unstable();
    compared.dedup();
    assert!(compared.contains(&uids::RLE_LOSSLESS) && compared.contains(&uids::JPEGLS_LOSSLESS));
    // JPEG 2000 comes from there alone.
    let foreign = [uids::JPEG2000_LOSSLESS, uids::JPEG_BASELINE8_BIT];
    assert!(!has_foreign || foreign.iter().all(|uid| compared.contains(uid)), "{compared:?}");
    assert!(planted >= 10, "{planted}");
    assert!(refused.is_empty(), "{refused:?}");
}

/// Where pixels are in the native data set.
fn native(data_set: &[u8]) -> (Parsed, Image, &[u8]) {
    let parsed = data_set::read(&explicit(), data_set).unwrap();
    let pixel_data = parsed.pixel_data.clone().unwrap();
    let image = Image::of(&parsed.data_set, pixel_data.tag).unwrap();
    let value = pixel_data.value;
    (parsed, image, &data_set[value.start as usize..value.end as usize])
}

#[test]
fn boxes_in_compressed_pixels_are_black_and_all_else_is_as_it_was_decoded() {
    let boxes = [
        Area { x: 3, y: 2, width: 21, height: 5 },
        Area { x: 10, y: 4, width: 900_000, height: 9 },
    ];
    let inside = |x: usize, y: usize| {
        (3..24).contains(&x) && (2..7).contains(&y) || x >= 10 && (4..13).contains(&y)
    };
    let mut sources = own_sources();
    sources.extend(dcmtk_sources());
    let mut lossy = 0;
    for source in &sources {
        let decoded = Transcoder.decode(&source.data_set, &source.syntax).unwrap();

        let recoded = blacken(&Transcoder, &source.data_set, &source.syntax, &boxes).unwrap();

        let again = Transcoder.decode(&recoded.data_set, &recoded.syntax).unwrap();
        let (before, image, pixels) = native(&decoded);
        let (after, again_image, blacked) = native(&again);
        assert_eq!((&image, pixels.len()), (&again_image, blacked.len()), "{}", source.name);
        assert_eq!(recoded.blacked.frames, image.frames);
        assert!(!image.by_plane && image.allocated >= 8);
        let (rows, columns) = (usize::from(image.rows), usize::from(image.columns));
        let cell = usize::from(image.samples) * usize::from(image.allocated / 8);
        let cells = pixels.chunks_exact(cell).zip(blacked.chunks_exact(cell)).enumerate();
        let black = if image.signed { i16::MIN >> (16 - image.stored) } else { 0 };
        for (nth, (before, after)) in cells {
            let (x, y) = (nth % columns, nth / columns % rows);
            if inside(x, y) {
                let is_black = if image.signed {
                    *after == black.to_le_bytes()
                } else {
                    after.iter().all(|byte| *byte == 0)
                };
                assert!(is_black, "{} {x},{y} {after:?}", source.name);
            } else {
                assert_eq!(before, after, "{} {x},{y}", source.name);
            }
        }
        let said = |parsed: &Parsed| parsed.data_set.text(tags::LOSSY_IMAGE_COMPRESSION);
        if source.syntax.uid() == uids::JPEG_BASELINE8_BIT {
            assert_eq!(said(&after).as_deref(), Some("01"));
            lossy += 1;
        } else {
            assert_eq!(said(&after), said(&before));
        }
        assert_eq!(recoded.syntax.uid(), uids::JPEGLS_LOSSLESS, "{}", source.name);
    }
    assert!(lossy > 0 || dcmtk_sources().is_empty());
}

#[test]
fn the_mask_of_a_compressed_ultrasound_is_that_of_the_native_one() {
    let study = sample_studies::ultrasound(11);
    let rle = study.instances[0].in_transfer_syntax(Sample::RleLossless).unwrap();
    let syntax: TransferSyntax = rle.transfer_syntax_uid.parse().unwrap();
    let set = data_set::read(&syntax, &rle.data_set).unwrap().data_set;
    let boxes = Library::built_in().find(&set).unwrap().boxes;

    let recoded = blacken(&Transcoder, &rle.data_set, &syntax, &boxes).unwrap();

    let again = Transcoder.decode(&recoded.data_set, &recoded.syntax).unwrap();
    let (_, _, pixels) = native(&again);
    let banner = usize::from(sample_studies::ULTRASOUND_BANNER_ROWS) * 640 * 3;
    assert!(pixels[..banner].iter().all(|byte| *byte == 0));
    assert!(pixels[banner..].iter().any(|byte| *byte != 0));
}

#[test]
fn what_jpeg_ls_does_not_hold_stays_native_and_what_is_not_decoded_is_refused() {
    let element = |(group, element): (u16, u16), vr: &[u8; 2], value: &[u8]| {
        let tag = [group.to_le_bytes(), element.to_le_bytes()].concat();
        let length = (value.len() as u16).to_le_bytes();
        [&tag[..], vr, &length, value].concat()
    };
    let number = |at, number: u16| element((0x0028, at), b"US", &number.to_le_bytes());
    let pixels: Vec<u8> = (0..4 * 4 * 4).collect();
    let header = [
        number(0x0002, 1),
        element((0x0028, 0x0004), b"CS", b"MONOCHROME2 "),
        number(0x0010, 4),
        number(0x0011, 4),
        number(0x0100, 32),
        number(0x0101, 32),
        number(0x0102, 31),
        number(0x0103, 0),
    ]
    .concat();
    let fragment = [&b"\xFE\xFF\x00\xE0\0\0\0\0\xFE\xFF\x00\xE0\x40\0\0\0"[..], &pixels].concat();
    let pixel_data =
        [&b"\xE0\x7F\x10\x00OB\0\0\xFF\xFF\xFF\xFF"[..], &fragment, b"\xFE\xFF\xDD\xE0\0\0\0\0"];
    let data_set = [header, pixel_data.concat()].concat();
    let uncompressed = "1.2.840.10008.1.2.1.98".parse().unwrap();
    let area = Area { x: 0, y: 0, width: 4, height: 1 };

    let recoded = blacken(&Transcoder, &data_set, &uncompressed, &[area]).unwrap();

    let (_, _, blacked) = native(&recoded.data_set);
    assert_eq!(recoded.syntax, explicit());
    assert_eq!(blacked, [&[0; 16][..], &pixels[16..]].concat());

    let video = "1.2.840.10008.1.2.4.102".parse().unwrap();
    let error = blacken(&Transcoder, &data_set, &video, &[area]).unwrap_err();
    assert!(matches!(error, RecodeError::Decode(_)));
}
