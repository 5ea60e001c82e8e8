//! Every study is the same for a reader that shares no code with this crate, in every encoding.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a panic is how a test fails

use std::collections::HashSet;
use std::io::Read as _;

use dicom_core::value::Value;
use dicom_dictionary_std::tags;
use dicom_object::{DefaultDicomObject, InMemDicomObject, from_reader};
use flate2::read::DeflateDecoder;
use sample_studies::{EncodingError, HeadCt, Instance, SequenceLengths, Study, TransferSyntax};

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_seed_gives_other_uids() {
    let (first, again, other) =
        (sample_studies::all_valid(5), sample_studies::all_valid(5), sample_studies::all_valid(6));

    assert_eq!(first, again);
    assert_eq!(uids(&first).len(), first.iter().map(Study::len).sum::<usize>(), "UIDs are unique");
    assert!(uids(&first).is_disjoint(&uids(&other)));
}

#[test]
fn every_data_set_has_an_even_length_and_uids_of_the_standard() {
    for instance in sample_studies::all_valid(5).into_iter().flat_map(|study| study.instances) {
        assert_eq!(instance.data_set.len() % 2, 0, "PS3.5 7.1.1");
        for uid in [
            &instance.sop_instance_uid,
            &instance.study_instance_uid,
            &instance.series_instance_uid,
        ] {
            assert!(uid.len() <= 64 && uid.starts_with("2.25."), "{uid}");
        }
    }
}

#[test]
fn each_study_reads_back_in_each_encoding() {
    for study in sample_studies::all_valid(7) {
        for instance in &study.instances {
            let original = read(instance);
            for syntax in TransferSyntax::ALL {
                for lengths in [SequenceLengths::Undefined, SequenceLengths::Defined] {
                    let encoded = match instance.encoded_as(syntax, lengths) {
                        Err(EncodingError::NoPixelData)
                            if syntax == TransferSyntax::RleLossless =>
                        {
                            continue;
                        }
                        encoded => encoded.unwrap(),
                    };
                    assert_eq!(encoded.data_set.len() % 2, 0);
                    assert_same(
                        &original,
                        &read(&encoded),
                        &format!("{} {syntax:?} {lengths:?}", study.name),
                    );
                }
            }
        }
    }
}

#[test]
fn the_identifiers_of_an_instance_are_those_in_its_data_set() {
    for study in sample_studies::all_valid(7) {
        for instance in &study.instances {
            let object = read(instance);
            let text = |tag| {
                object.element(tag).unwrap().to_str().unwrap().trim_end_matches('\0').to_owned()
            };

            assert_eq!(text(tags::SOP_CLASS_UID), instance.sop_class_uid);
            assert_eq!(text(tags::SOP_INSTANCE_UID), instance.sop_instance_uid);
            assert_eq!(text(tags::STUDY_INSTANCE_UID), study.study_instance_uid());
            assert_eq!(text(tags::SERIES_INSTANCE_UID), instance.series_instance_uid);
            assert_eq!(text(tags::PATIENT_ID).trim_end(), study.patient.nhs_number);
            assert_eq!(object.meta().transfer_syntax(), instance.transfer_syntax_uid);
        }
    }
}

#[test]
fn names_in_single_charsets_read_back_as_text() {
    for study in sample_studies::character_sets(7) {
        // The reader knows nothing of escape sequences; Japanese and Korean are compared as bytes elsewhere.
        if ["charset-japanese", "charset-korean"].contains(&study.name.as_str()) {
            continue;
        }
        let name = read(&study.instances[0])
            .element(tags::PATIENT_NAME)
            .unwrap()
            .to_str()
            .unwrap()
            .into_owned();

        assert_eq!(name, study.patient.name, "{}", study.name);
    }
}

#[test]
fn what_is_planted_can_be_found() {
    for study in sample_studies::all_valid(7) {
        let bytes: Vec<u8> = study.instances[0].data_set.clone();
        for planted in study.planted().iter().filter(|planted| planted.text.is_ascii()) {
            let found =
                bytes.windows(planted.text.len()).any(|window| window == planted.text.as_bytes());
            let only_there = match planted.attribute {
                "PatientTelephoneNumbers" => {
                    ["chest-cr", "encapsulated-pdf"].contains(&study.name.as_str())
                }
                "RequestedProcedureID" => study.name != "structured-report",
                _ => true,
            };

            assert!(found || !only_there, "{planted:?} in {}", study.name);
        }
    }
}

#[test]
fn the_whole_head_ct_has_its_series_and_distinct_positions() {
    let study = HeadCt { thin_slices: 24, thick_slices: 6, ..HeadCt::new(3) }.build();

    assert_eq!(study.len(), 31);
    assert_eq!(study.series_count(), 3);
    assert_eq!(HeadCt::new(3).len(), 271);
    let positions: HashSet<String> = study.instances[1..]
        .iter()
        .map(|instance| {
            let object = read(instance);
            let text = |tag| object.element(tag).unwrap().to_str().unwrap().into_owned();
            format!("{} {}", text(tags::SERIES_NUMBER), text(tags::IMAGE_POSITION_PATIENT))
        })
        .collect();
    assert_eq!(positions.len(), 30);
    assert!(study.instances.iter().all(|one| (524_288..530_000).contains(&one.data_set.len())));
}

#[test]
fn a_ct_series_shares_no_instance_with_the_head_ct_of_its_seed() {
    let (series, head) = (sample_studies::ct_series(4, 3), HeadCt::small(4).build());

    assert_eq!(series.len(), 3);
    assert!(series.sop_instance_uids().is_disjoint(&head.sop_instance_uids()));
    assert_ne!(series.study_instance_uid(), head.study_instance_uid());
}

#[test]
fn small_objects_have_about_four_kilobytes() {
    let study = sample_studies::small_objects(1, 3);

    assert!(study.instances.iter().all(|one| (3_800..5_000).contains(&one.data_set.len())));
}

#[test]
fn the_letter_is_a_pdf_whose_cross_references_are_right() {
    let study = sample_studies::encapsulated_pdf(9);
    let object = read(&study.instances[0]);
    let pdf = object.element(tags::ENCAPSULATED_DOCUMENT).unwrap().to_bytes().unwrap().into_owned();
    let pdf = String::from_utf8(pdf).unwrap();

    assert!(pdf.starts_with("%PDF-1.4"));
    let table = &pdf[pdf.find("\nxref\n").unwrap() + 1..];
    for (number, line) in table.lines().skip(3).take(5).enumerate() {
        let offset: usize = line[..10].parse().unwrap();
        assert!(pdf[offset..].starts_with(&format!("{} 0 obj", number + 1)), "{line}");
    }
    assert!(pdf.contains(&study.patient.name.replace('^', " ")));
}

fn uids(studies: &[Study]) -> HashSet<String> {
    studies.iter().flat_map(Study::sop_instance_uids).collect()
}

/// Reads with dicom-object, which gets a deflated data set inflated.
fn read(instance: &Instance) -> DefaultDicomObject {
    let mut file = instance.part10();
    if instance.transfer_syntax_uid == TransferSyntax::DeflatedExplicitVrLittleEndian.uid() {
        let mut data_set = Vec::new();
        DeflateDecoder::new(&instance.data_set[..]).read_to_end(&mut data_set).unwrap();
        let syntax = TransferSyntax::ExplicitVrLittleEndian.uid().to_owned();
        file = Instance { transfer_syntax_uid: syntax, data_set, ..instance.clone() }.part10();
    }
    from_reader(&file[128..]).unwrap()
}

/// The same elements with the same values; numbers of private elements lose their VR in implicit VR, and RLE has
/// its pixels compared after decoding.
fn assert_same(original: &InMemDicomObject, encoded: &InMemDicomObject, what: &str) {
    assert_eq!(original.tags().collect::<Vec<_>>(), encoded.tags().collect::<Vec<_>>(), "{what}");
    for (before, after) in original.iter().zip(encoded.iter()) {
        let tag = before.header().tag;
        match (before.value(), after.value()) {
            _ if tag == tags::PLANAR_CONFIGURATION => {}
            (_, Value::PixelSequence(fragments)) => {
                let number = |tag| original.element(tag).unwrap().to_int::<usize>().unwrap();
                let size = number(tags::ROWS) * number(tags::COLUMNS);
                let (samples, bytes) =
                    (number(tags::SAMPLES_PER_PIXEL), number(tags::BITS_ALLOCATED) / 8);
                let frames = fragments.fragments().iter();
                let pixels: Vec<u8> =
                    frames.flat_map(|frame| unrle(frame, size, samples, bytes)).collect();
                assert!(before.to_bytes().unwrap()[..] == pixels[..], "{what} pixels");
            }
            (Value::Sequence(before), Value::Sequence(after)) => {
                assert_eq!(before.items().len(), after.items().len(), "{what} {tag}");
                for (before, after) in before.items().iter().zip(after.items()) {
                    assert_same(before, after, what);
                }
            }
            (Value::Primitive(before), Value::Primitive(after)) if tag.group() % 2 == 0 => {
                assert!(before == after || before.to_bytes() == after.to_bytes(), "{what} {tag}");
            }
            _ => {
                assert_eq!(tag.group() % 2, 1, "{what} {tag}: one is a sequence, the other is not");
            }
        }
    }
}

/// One RLE frame as pixels in little endian order (PS3.5 G.3.2 to G.5), written apart from the encoder.
fn unrle(frame: &[u8], size: usize, samples: usize, bytes: usize) -> Vec<u8> {
    let word =
        |at: usize| u32::from_le_bytes(frame[at * 4..at * 4 + 4].try_into().unwrap()) as usize;
    assert_eq!(word(0), samples * bytes, "number of segments");
    let mut pixels = vec![0; size * samples * bytes];
    for segment in 0..samples * bytes {
        let (sample, byte) = (segment / bytes, bytes - 1 - segment % bytes);
        let mut at = word(1 + segment);
        let mut plane = Vec::with_capacity(size);
        while plane.len() < size {
            let control = usize::from(frame[at]);
            if control < 128 {
                plane.extend(&frame[at + 1..at + 2 + control]);
                at += 2 + control;
            } else {
                assert_ne!(control, 128);
                plane.extend(std::iter::repeat_n(frame[at + 1], 257 - control));
                at += 2;
            }
        }
        assert_eq!(plane.len(), size);
        for (pixel, value) in plane.into_iter().enumerate() {
            pixels[(pixel * samples + sample) * bytes + byte] = value;
        }
    }
    pixels
}
