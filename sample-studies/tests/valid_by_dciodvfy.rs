//! Every kind of study is valid by the judgement of programs that others wrote.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a panic is how a test fails

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use dicom_dictionary_std::tags;
use sample_studies::{EncodingError, Study, TransferSyntax};
use tempfile::TempDir;

#[test]
fn dciodvfy_finds_no_error_in_any_study() {
    let Some(program) = installed("dciodvfy") else { return };

    for (study, syntax) in every_encoding(11) {
        // It does not inflate; dcmdump and dicom-object read those.
        if syntax == TransferSyntax::DeflatedExplicitVrLittleEndian {
            continue;
        }
        for (path, _folder) in one_file_per_series(&study) {
            let Output { stderr, .. } = Command::new(program).arg(&path).output().unwrap();

            let findings = String::from_utf8_lossy(&stderr);
            assert!(findings.contains('\n'), "dciodvfy says nothing about {}", study.name);
            assert!(!findings.contains("Error"), "{} {syntax:?}:\n{findings}", study.name);
        }
    }
}

#[test]
fn dcmdrle_restores_the_pixels() {
    let Some(program) = installed("dcmdrle") else { return };
    let original = sample_studies::chest_cr(11);
    let compressed = original.in_transfer_syntax(TransferSyntax::RleLossless).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = compressed.instances[0].write_to(folder.path()).unwrap();

    let restored = folder.path().join("restored.dcm");
    let Output { status, stderr, .. } =
        Command::new(program).args([&path, &restored]).output().unwrap();

    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    let pixels =
        original.instances[0].elements().unwrap().value(tags::PIXEL_DATA).unwrap().to_vec();
    assert!(fs::read(restored).unwrap().ends_with(&pixels));
}

#[test]
fn dcmdump_reads_every_study_in_every_transfer_syntax_without_a_word() {
    let Some(program) = installed("dcmdump") else { return };

    for (study, syntax) in every_encoding(11) {
        for (path, _folder) in one_file_per_series(&study) {
            let Output { status, stderr, .. } = Command::new(program).arg(&path).output().unwrap();

            // In implicit VR a private sequence of undefined length looks like UN, and dcmdump says so.
            let findings: String = String::from_utf8_lossy(&stderr)
                .lines()
                .filter(|line| !line.contains("(CP-246)"))
                .collect();
            assert!(
                status.success() && findings.is_empty(),
                "{} {syntax:?}:\n{findings}",
                study.name
            );
        }
    }
}

/// Every kind of study in every transfer syntax it can be in: documents have no pixels to compress.
fn every_encoding(seed: u64) -> impl Iterator<Item = (Study, TransferSyntax)> {
    sample_studies::all_valid(seed).into_iter().flat_map(|study| {
        TransferSyntax::ALL.into_iter().filter_map(move |syntax| {
            match study.in_transfer_syntax(syntax) {
                Err(EncodingError::NoPixelData) => None,
                encoded => Some((encoded.unwrap(), syntax)),
            }
        })
    })
}

/// The first instance of each series as a file, with the folder that goes when it is dropped.
fn one_file_per_series(study: &Study) -> Vec<(PathBuf, TempDir)> {
    let mut series = HashSet::new();
    let first_ones =
        study.instances.iter().filter(|one| series.insert(one.series_instance_uid.clone()));
    first_ones
        .map(|instance| {
            let folder = tempfile::tempdir().unwrap();
            (instance.write_to(folder.path()).unwrap(), folder)
        })
        .collect()
}

/// The program's name, if it can be started. In continuous integration it has to be there.
fn installed(program: &'static str) -> Option<&'static str> {
    if Command::new(program).arg("--version").output().is_ok() {
        return Some(program);
    }
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{program} is not installed");
    eprintln!("\n*** SKIPPED: {program} is not installed, so nothing was checked ***\n");
    None
}
