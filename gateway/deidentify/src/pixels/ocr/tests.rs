use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Instant;

use dicom_core::VR;
use dicom_dictionary_std::tags;
use tempfile::TempDir;

use super::*;
use crate::data_set::{Element, read};
use crate::pixels::blacken::Native;
use crate::pixels::image::{Cell, Photometric};
use crate::pixels::mask::Library;

/// Words, lines apart by `|`.
fn line_of(text: &str) -> Vec<Word> {
    let mut words = Vec::new();
    for (line, text) in text.split('#').enumerate() {
        for (nth, text) in text.split_whitespace().enumerate() {
            let (x, y) = (nth as u32 * 100, line as u32 * 20);
            let area = Area { x, y, width: 90, height: 10 };
            let confidence = 90.0 - nth as f32;
            words.push(Word {
                text: Phi::new(text.to_owned()),
                confidence,
                area,
                line: line as u32,
            });
        }
    }
    words
}

fn found(text: &str, needles: &[&str]) -> Vec<Found> {
    let needles: Vec<String> = needles.iter().map(|needle| (*needle).to_owned()).collect();
    Ocr::check(&line_of(text), &needles).into_iter().map(|finding| finding.found).collect()
}

#[test]
fn identifiers_are_found_though_misread() {
    let is = Found::Identifier;
    for (text, needle, expected) in [
        ("Name: Smith,Anna", "SMITH^ANNA", Some(is(0))),
        ("5MlTH", "SMITH^ANNA", Some(is(0))),
        ("SM1TH", "smith", Some(is(0))),
        ("SMTH", "SMITH", None),
        ("Robertsom", "ROBERTSON", Some(is(0))),
        ("Robrtson", "ROBERTSON", Some(is(0))),
        ("Rabertsom", "ROBERTSON", None),
        ("ID:RXX-OO12345", "RXX-0012345", Some(is(0))),
        ("xxRXX0012345yy", "RXX0012345", Some(is(0))),
        ("Mueller", "Müller", Some(is(0))),
        ("Muller", "Müller", Some(is(0))),
        ("van der Berg", "BERG^JAN^VAN DER", Some(is(0))),
        ("Liver 12 cm", "12", None),
        ("Gain 1234", "1234", Some(is(0))),
        ("A B C", "A^B^C", Some(is(0))),
    ] {
        assert_eq!(
            found(text, &[needle]),
            expected.into_iter().collect::<Vec<_>>(),
            "{text} {needle}"
        );
    }
    // Words of two lines are no name.
    assert_eq!(found("RXX-001#2345", &["RXX0012345"]), []);
}

#[test]
fn dates_and_nhs_numbers_are_found_without_being_looked_for() {
    for text in [
        "12/03/1948",
        "12-Mar-1948",
        "1948-03-12",
        "I2/O3/l948",
        "12.03.1948",
        "12/3/48",
        "19480312",
        "12031948",
        "12 March 1948",
        "Mar 12 2024",
        "DOB:12/03/1948",
    ] {
        assert_eq!(found(text, &[]), [Found::Date], "{text}");
    }
    for text in
        ["1.2.19", "12/13/14/15", "99/99/1948", "12 cm 40", "10.5", "12345678", "1/2", "MI 0.6 TIs"]
    {
        assert_eq!(found(text, &[]), [], "{text}");
    }
    for text in ["999 054 8609", "9990548609", "NHS:999-054-8609", "99905486O9"] {
        assert_eq!(found(text, &[]), [Found::NhsNumber], "{text}");
    }
    for text in ["9990548608", "0000000000", "999054860", "999 054 86099"] {
        assert_eq!(found(text, &[]), [], "{text}");
    }
}

#[test]
fn a_finding_says_where_and_how_sure_and_prints_no_text() {
    let words = line_of("xx SMITH ANNA");

    let findings = Ocr::check(&words, &["SMITHANNA".to_owned()]);

    let area = Area { x: 100, y: 0, width: 190, height: 10 };
    assert_eq!(findings, [Finding { found: Found::Identifier(0), area, confidence: 88.0 }]);
    assert!(!format!("{words:?} {findings:?}").contains("SMITH"));
}

#[test]
fn words_of_the_table_are_read_and_damage_is_passed_over() {
    let table = "level\tpage_num\tblock_num\tpar_num\tline_num\tword_num\tleft\ttop\twidth\theight\tconf\ttext\n\
                 4\t1\t1\t1\t1\t0\t20\t10\t100\t30\t-1\t\n\
                 5\t1\t1\t1\t1\t1\t21\t10\t9\t30\t91.5\tDOE\n\
                 5\t1\t1\t1\t1\t2\t40\t10\t9\t30\t50\t \n\
                 5\t1\t1\t1\t2\t1\t20\t50\t20\t30\t12\ta\tb\n\
                 5\t1\t1\n5\tx\n";

    let words = words(table, 2);

    let seen: Vec<_> =
        words.iter().map(|word| (word.text.reveal().as_str(), word.line, word.area)).collect();
    assert_eq!(
        seen,
        [
            ("DOE", 1, Area { x: 10, y: 5, width: 5, height: 15 }),
            ("a\tb", 2, Area { x: 10, y: 25, width: 10, height: 15 }),
        ]
    );
}

fn image(photometric: Photometric, samples: u16, allocated: u16, stored: u16) -> Image {
    Image {
        rows: 2,
        columns: 2,
        samples,
        frames: 9,
        allocated,
        stored,
        high_bit: stored - 1,
        signed: false,
        by_plane: false,
        photometric,
        cell: Cell::Integer,
    }
}

#[test]
fn the_first_the_middle_and_the_last_frame_are_looked_at() {
    let image = |frames| Image { frames, ..image(Photometric::Monochrome2, 1, 8, 8) };
    let frames = |count, at_most| frames_to_read(&image(count), at_most);
    assert_eq!(frames(9, 3), [0, 4, 8]);
    assert_eq!(frames(9, 1), [0]);
    assert_eq!(frames(9, 2), [0, 8]);
    assert_eq!(frames(1, 3), [0]);
    assert_eq!(frames(2, 3), [0, 1]);
    assert_eq!(frames(101, 5), [0, 25, 50, 75, 100]);
    assert_eq!(frames(4, 0), [0]);
}

#[test]
fn frames_become_grey_whatever_their_values_are() {
    let set = DataSet::default();
    let grey = |image: &Image, frame, bytes: &[u8]| {
        Picture::of(&set, image, frame, bytes).map(|picture| {
            let (pgm, scale) = picture.pgm();
            assert_eq!(scale, 2);
            let body = pgm.strip_prefix(b"P5\n4 4\n255\n").unwrap();
            [body[0], body[2], body[8], body[10]]
        })
    };
    let mono = image(Photometric::Monochrome2, 1, 16, 12);
    let words = [0xF000_u16, 0x0FFF, 0x07FF, 0x0000].map(u16::to_le_bytes);
    assert_eq!(grey(&mono, 0, words.as_flattened()).unwrap(), [0, 255, 127, 0]);
    let signed = Image { signed: true, ..mono.clone() };
    assert_eq!(grey(&signed, 0, words.as_flattened()).unwrap()[..2], [0, 0]);
    assert_eq!(grey(&signed, 0, words.as_flattened()).unwrap()[2], 255);
    let rgb = image(Photometric::Rgb, 3, 8, 8);
    let by_pixel = [0, 0, 0, 255, 0, 0, 0, 0, 255, 255, 255, 255];
    assert_eq!(grey(&rgb, 0, &by_pixel).unwrap(), [0, 85, 85, 255]);
    let by_plane = [0, 255, 0, 255, 0, 0, 0, 255, 0, 0, 255, 255];
    assert_eq!(
        grey(&Image { by_plane: true, ..rgb.clone() }, 0, &by_plane).unwrap(),
        [0, 85, 85, 255]
    );
    let shared = image(Photometric::YbrFull422, 3, 8, 8);
    assert_eq!(grey(&shared, 0, &[0, 100, 9, 9, 200, 50, 9, 9]).unwrap(), [0, 128, 255, 64]);
    // The second frame of four bits begins in the middle of a byte.
    let bits = image(Photometric::Monochrome2, 1, 1, 1);
    assert_eq!(grey(&bits, 1, &[0b0110_0000]).unwrap(), [0, 255, 255, 0]);
    let float = Image { cell: Cell::Float, ..image(Photometric::Monochrome2, 1, 32, 32) };
    let values = [f32::NAN, -2.0, 0.0, 2.0].map(f32::to_le_bytes);
    assert_eq!(grey(&float, 0, values.as_flattened()).unwrap(), [0, 0, 128, 255]);

    assert!(matches!(
        grey(&rgb, 0, &by_pixel[1..]),
        Err(OcrError::Image(ImageError::Length { .. }))
    ));
    assert!(grey(&rgb, 9, &by_pixel).is_err());
    assert!(matches!(
        grey(&image(Photometric::Other, 3, 8, 8), 0, &by_pixel),
        Err(OcrError::Photometric)
    ));
    assert!(grey(&image(Photometric::Palette, 1, 8, 8), 0, &[0; 4]).is_err());
}

/// A program that does as it is told, in place of tesseract.
fn program(folder: &TempDir, script: &str) -> PathBuf {
    let path = folder.path().join("tesseract");
    let begin = "#!/bin/sh\ncase \"$1\" in --version) echo 'tesseract 9.9'; exit;; --list-langs) echo eng; exit;; esac\n";
    fs::write(&path, format!("{begin}{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn examined(ocr: Option<&Ocr>) -> Examination {
    let image = image(Photometric::Monochrome2, 1, 8, 8);
    Ocr::examine(ocr, &DataSet::default(), &image, 1, &[], |_| Some(vec![0, 9, 9, 0]))
}

#[test]
fn a_program_that_is_absent_or_fails_leaves_the_instance_unchecked() {
    let folder = TempDir::new().unwrap();
    let at = |script| Ocr::at(program(&folder, script)).unwrap();
    let source = |examination| match examination {
        Examination::NotChecked(NotChecked::Frame { frame: 0, source }) => source,
        other => panic!("{other:?}"),
    };

    assert!(matches!(examined(None), Examination::NotChecked(NotChecked::NotInstalled)));
    assert!(matches!(source(examined(Some(&at("cat >/dev/null; exit 3")))), OcrError::Failed));
    let endless = at("exec yes");
    assert!(matches!(source(examined(Some(&endless))), OcrError::Verbose));
    let limit = Duration::from_millis(200);
    let begun = Instant::now();
    let slow = at("exec sleep 600").with_limit(limit);
    assert!(matches!(source(examined(Some(&slow))), OcrError::Slow(after) if after == limit));
    let silent = at("exec >&-; exec sleep 600").with_limit(limit);
    assert!(matches!(source(examined(Some(&silent))), OcrError::Slow(_)));
    assert!(begun.elapsed() < Duration::from_mins(1));
    assert!(Ocr::at(folder.path().join("absent")).is_none());
    assert!(Ocr::at(PathBuf::from("/bin/true")).is_none());

    let content =
        at("cat >/dev/null; printf '5\\t1\\t1\\t1\\t1\\t1\\t0\\t0\\t9\\t9\\t80\\t12/03/1948\\n'");
    assert_eq!(content.version(), "9.9");
    let Examination::Checked { words, findings, frames } = examined(Some(&content)) else {
        panic!()
    };
    assert_eq!((words, findings[0].1.found, frames), (1, Found::Date, vec![0]));
}

#[test]
fn what_a_mask_leaves_of_an_ultrasound_is_read_no_more() {
    let Some(ocr) = Ocr::find() else {
        assert!(!Path::new("/usr/bin/tesseract").exists(), "tesseract is there and is not found");
        eprintln!("left out: tesseract is not installed");
        return;
    };
    let study = sample_studies::ultrasound(11);
    let instance = &study.instances[0];
    let parsed = read(&instance.transfer_syntax_uid.parse().unwrap(), &instance.data_set).unwrap();
    let value = parsed.pixel_data.unwrap().value;
    let mut pixels = instance.data_set[value.start as usize..value.end as usize].to_vec();
    let set = parsed.data_set;
    let image = Image::of(&set, tags::PIXEL_DATA).unwrap();
    let needles: Vec<String> = [tags::PATIENT_NAME, tags::PATIENT_ID, tags::INSTITUTION_NAME]
        .into_iter()
        .filter_map(|tag| set.text(tag))
        .collect();
    let examine = |pixels: &[u8]| {
        let examination =
            Ocr::examine(Some(&ocr), &set, &image, 3, &needles, |_| Some(pixels.to_vec()));
        let Examination::Checked { findings, .. } = examination else { panic!("{examination:?}") };
        findings.into_iter().map(|(_, finding)| finding).collect::<Vec<_>>()
    };

    let before = examine(&pixels);
    let boxes = Library::built_in().find(&set).unwrap().boxes;
    let mut native = Native::new(&set, &image, &boxes, pixels.len() as u64).unwrap();
    native.feed(0, &mut pixels).unwrap();
    native.finish().unwrap();
    let after = examine(&pixels);

    let banner = u32::from(sample_studies::ULTRASOUND_BANNER_ROWS);
    // Name, NHS number, hospital, and a date.
    let seen: Vec<_> = before.iter().map(|finding| finding.found).collect();
    let expected = [Found::Identifier(0), Found::Identifier(1), Found::Identifier(2), Found::Date];
    assert!(expected.iter().all(|found| seen.contains(found)), "{seen:?}");
    assert!(before.iter().all(|finding| finding.area.y < banner), "{before:?}");
    assert_eq!(after, []);
}

#[test]
fn palettes_are_seen_in_their_colours() {
    let mut set = DataSet::default();
    for (descriptor, data) in [
        (
            tags::RED_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR,
            tags::RED_PALETTE_COLOR_LOOKUP_TABLE_DATA,
        ),
        (
            tags::GREEN_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR,
            tags::GREEN_PALETTE_COLOR_LOOKUP_TABLE_DATA,
        ),
        (
            tags::BLUE_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR,
            tags::BLUE_PALETTE_COLOR_LOOKUP_TABLE_DATA,
        ),
    ] {
        set.put(Element::new(descriptor, VR::US, [2, 0, 0, 0, 8, 0]));
        set.put(Element::new(data, VR::OW, [255, 0]));
    }

    let picture =
        Picture::of(&set, &image(Photometric::Palette, 1, 8, 8), 0, &[0, 1, 1, 0]).unwrap();

    let (pgm, _) = picture.pgm();
    assert_eq!((pgm[11], pgm[13]), (255, 0));
}
