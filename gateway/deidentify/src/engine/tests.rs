use gantry_store::dicom::TransferSyntax;
use sample_studies::Study;

use super::*;
use crate::profile::{SHIPPED, shipped};
use crate::verify::Verifier;

fn deidentifier(profile: &str) -> Deidentifier {
    let key = ProjectKey::from_bytes([3; 32]);
    Deidentifier::new(shipped(profile).unwrap(), key, Linkage::Project)
}

/// Makes, writes with the pixel data as they were, verifies.
fn through(
    deidentifier: &Deidentifier,
    syntax: &str,
    bytes: &[u8],
) -> Result<(Made, Vec<u8>), String> {
    let syntax: TransferSyntax = syntax.parse().unwrap();
    let made = make(deidentifier, &syntax, bytes).map_err(|why| why.to_string())?;
    let mut written = Vec::new();
    let pixels = made.pixel_data.as_ref();
    let before = |element: &&Element| pixels.is_none_or(|pixels| element.tag < pixels.tag);
    made.data_set
        .elements
        .iter()
        .filter(before)
        .for_each(|element| element.write(made.form, &mut written));
    if let Some(pixels) = pixels {
        written.extend_from_slice(&bytes[pixels.span.start as usize..pixels.span.end as usize]);
    }
    made.data_set
        .elements
        .iter()
        .filter(|element| !before(element))
        .for_each(|element| element.write(made.form, &mut written));
    let mut verifier = Verifier::new(deidentifier, &made, &syntax);
    for piece in written.chunks(1000) {
        verifier.feed(piece).unwrap();
    }
    match verifier.finish() {
        Ok(_) => Ok((made, written)),
        Err(findings) => {
            Err(findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
        }
    }
}

fn studies() -> Vec<Study> {
    sample_studies::all_valid(11)
}

#[test]
fn nothing_planted_survives_any_profile() {
    for shipped in SHIPPED {
        let deidentifier = deidentifier(shipped.name);
        for study in studies() {
            let planted = study.planted();
            for instance in &study.instances {
                let outcome =
                    through(&deidentifier, &instance.transfer_syntax_uid, &instance.data_set);
                match outcome {
                    Ok((_, written)) => {
                        for token in &planted {
                            let bytes = token.text.as_bytes();
                            let there = written.windows(bytes.len()).any(|window| window == bytes);
                            assert!(!there, "{} {} {}", shipped.name, study.name, token.attribute);
                        }
                    }
                    Err(why) => {
                        println!("{} {} {}: {why}", shipped.name, study.name, instance.file_name)
                    }
                }
            }
        }
    }
}
