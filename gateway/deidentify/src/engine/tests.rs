use gantry_store::dicom::TransferSyntax;
use sample_studies::Study;

use super::*;
use crate::pixels::mask::Library;
use crate::process::Tools;
use crate::profile::{SHIPPED, shipped};

fn deidentifier(profile: &str) -> Deidentifier {
    let key = ProjectKey::from_bytes([3; 32]);
    Deidentifier::new(shipped(profile).unwrap(), key, Linkage::Project)
}

fn through(
    deidentifier: &Deidentifier,
    syntax: &str,
    bytes: &[u8],
) -> Result<(Made, Vec<u8>), String> {
    let syntax: TransferSyntax = syntax.parse().unwrap();
    let tools = Tools { masks: Library::built_in(), ..Tools::default() };
    let protected =
        deidentifier.process(&bytes.to_vec(), &syntax, &tools).map_err(|why| why.to_string())?;
    let written = protected.in_memory().unwrap().to_vec();
    Ok((protected.made, written))
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
                        let kept: &[&str] = match shipped.name {
                            "direct-care-minimal" => {
                                &["StudyDate", "DeviceSerialNumber", "StationName"]
                            }
                            _ => &[],
                        };
                        for token in planted.iter().filter(|token| !kept.contains(&token.attribute))
                        {
                            let bytes = token.text.as_bytes();
                            let there = written.windows(bytes.len()).any(|window| window == bytes);
                            assert!(!there, "{} {} {}", shipped.name, study.name, token.attribute);
                        }
                    }
                    Err(why) => {
                        println!("{} {} {}: {why}", shipped.name, study.name, instance.file_name);
                    }
                }
            }
        }
    }
}
