//! `gantry deid verify`: files that are said to be de-identified, judged by the profile that is said to have made them, without
//! their originals.
//!
//! Sees what the profile would not have left, marks that are missing or say something else, and texts that have the shape
//! of an identifier. Cannot see a name that stands in a text, as nobody says which name to look for: `apply` does, because
//! it has the originals.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use dicom_core::Tag;
use dicom_dictionary_std::tags;
use gantry_deidentify::data_set::{DataSet, Parsed, Value};
use gantry_deidentify::decide::Decider;
use gantry_deidentify::engine::{Deidentifier, Done, Linkage, Made, Step};
use gantry_deidentify::keys::ProjectKey;
use gantry_deidentify::profile::{Place, Profile, keyword};
use gantry_deidentify::report::options;
use gantry_deidentify::seal::encrypted_attributes::is_sealed;
use gantry_deidentify::source::Source as _;
use gantry_deidentify::table::ProfileOption;
use gantry_deidentify::verify::{NOT_CHECKED, Verifier};
use gantry_gateway::telemetry::chain;
use gantry_store::dicom::text as character_sets;
use gantry_store::dicom::transfer_syntax::Layout;
use rayon::iter::{IntoParallelRefIterator as _, ParallelIterator as _};
use serde::Serialize;

use super::input::{Input, NotRead};
use super::new_file::{Work, search};
use super::rows::is_words;
use super::{profiles, suspects};
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::words;

/// Check files that are said to be de-identified, without their originals
///
/// Looks at the marks, at what the profile would not have left, and at texts that look like NHS numbers, e-mail addresses,
/// telephone numbers or postcodes. Findings name attributes, never values. Ends with 1 when there is a finding.
#[derive(Args, Debug)]
#[command(before_help = "Example:\n  gantry deid verify out --profile research")]
pub(super) struct Verify {
    /// Files, and folders to search through
    #[arg(required = true, value_name = "FILE|FOLDER")]
    paths: Vec<PathBuf>,
    /// The profile that is said to have made them: one that comes with the program, or a file
    #[arg(long, value_name = "NAME|FILE")]
    profile: String,
}

/// What `deid verify --json` prints.
#[derive(Serialize)]
struct Verified {
    schema: u32,
    profile: String,
    /// DICOM objects that were looked at.
    objects: u64,
    passed: u64,
    /// Of those that passed, how many keep identities encrypted for somebody.
    sealed: u64,
    failed: Vec<FailedFile>,
    /// Files in folders that are not DICOM.
    others: u64,
    not_checked: Vec<&'static str>,
}

#[derive(Serialize)]
struct FailedFile {
    file: PathBuf,
    findings: Vec<String>,
}

pub(super) fn run(arguments: &Verify, output: Output) -> Result<Exit, Failure> {
    let profile = profiles::load(&arguments.profile, output)?.profile;
    // What is written nowhere needs no folder that is left out.
    let work = search(&arguments.paths, Path::new(""))?;
    let key = ProjectKey::generate().map_err(|error| Failure::because(Exit::Failed, &error))?;
    let deidentifier = Deidentifier::new(profile, key, Linkage::Project);
    let bar = output.bar(work.len() as u64, "Verifying");
    let looked_at: Vec<Option<LookedAt>> = work
        .par_iter()
        .map(|one| {
            let findings = look_at(&deidentifier, one);
            bar.inc(1);
            findings
        })
        .collect();
    bar.finish_and_clear();
    let mut verified = Verified {
        schema: 1,
        profile: deidentifier.profile().reference(),
        objects: 0,
        passed: 0,
        sealed: 0,
        failed: Vec::new(),
        others: 0,
        not_checked: std::iter::once("whether what was removed stands elsewhere in the object")
            .chain(NOT_CHECKED)
            .chain(["who can open what is sealed, and what is in it"])
            .collect(),
    };
    for (one, findings) in work.into_iter().zip(looked_at) {
        match findings {
            None => verified.others += 1,
            Some(LookedAt { findings, sealed }) if findings.is_empty() => {
                verified.passed += 1;
                verified.sealed += u64::from(sealed);
            }
            Some(LookedAt { findings, .. }) => {
                verified.failed.push(FailedFile { file: one.from, findings });
            }
        }
    }
    verified.objects = verified.passed + verified.failed.len() as u64;
    if output.is_json() {
        output.json(&verified)?;
    } else {
        for failed in &verified.failed {
            for finding in &failed.findings {
                output.line(format_args!("{}: {finding}", failed.file.display()))?;
            }
        }
        output.line(format_args!(
            "{} passed, {} failed",
            words::count(verified.passed, "object", "objects"),
            verified.failed.len()
        ))?;
        if verified.sealed > 0 {
            output.say(format_args!(
                "{} identities that are encrypted; who can open them was not looked at.",
                words::count(verified.sealed, "object keeps", "objects keep")
            ));
        }
        output.say(
            "Without the originals nobody can search for what was removed; `gantry deid apply` does that. Pixels were not \
             looked at.",
        );
    }
    Ok(match (verified.objects, verified.failed.is_empty()) {
        (0, _) => {
            output.say("there was no DICOM file");
            Exit::NotFound
        }
        (_, true) => Exit::Done,
        (_, false) => Exit::Failed,
    })
}

/// What there is to say of a file.
#[derive(Default)]
struct LookedAt {
    findings: Vec<String>,
    /// Whether it keeps identities encrypted.
    sealed: bool,
}

impl LookedAt {
    fn found(finding: String) -> Self {
        Self { findings: vec![finding], sealed: false }
    }
}

/// What is wrong with a file; `None` if it is none that is looked at.
fn look_at(deidentifier: &Deidentifier, work: &Work) -> Option<LookedAt> {
    let input = match Input::open(&work.from) {
        Ok(input) => input,
        Err(NotRead::Other(_)) if !work.named => return None,
        Err(NotRead::Directory) => {
            let finding = "it is a DICOMDIR, which names files and patients".to_owned();
            return Some(LookedAt::found(finding));
        }
        Err(why) => return Some(LookedAt::found(why.to_string())),
    };
    let parsed = match input.parsed() {
        Ok(parsed) => parsed,
        Err(why) => return Some(LookedAt::found(why.to_string())),
    };
    let profile = deidentifier.profile();
    let mut findings = head(&input.head, &parsed.data_set);
    findings.extend(marks(profile, &parsed.data_set));
    findings.extend(by_profile(deidentifier, &input, &parsed));
    texts(&parsed.data_set, &mut Vec::new(), &[], &mut findings);
    let mut seen = std::collections::HashSet::new();
    findings.retain(|finding| seen.insert(finding.clone()));
    Some(LookedAt { findings, sealed: is_sealed(&parsed.data_set) })
}

/// The preamble, and what of the File Meta Information may tell where a file was (PS3.10 7.1).
fn head(head: &[u8], data_set: &DataSet) -> Vec<String> {
    let mut findings = Vec::new();
    if head.iter().take(128).any(|byte| *byte != 0) {
        findings.push("the preamble is not empty".to_owned());
    }
    let mut rest = head.get(132..).unwrap_or_default();
    while let Some([g0, g1, e0, e1, v0, v1, l0, l1]) = rest.first_chunk().copied() {
        let long = matches!(&[v0, v1], b"OB" | b"OW" | b"UN" | b"UT" | b"SQ");
        let (begin, length): (usize, usize) = match rest.get(8..12) {
            Some(&[a, b, c, d]) if long => (12, u32::from_le_bytes([a, b, c, d]) as usize),
            _ => (8, usize::from(u16::from_le_bytes([l0, l1]))),
        };
        let tag = Tag(u16::from_le_bytes([g0, g1]), u16::from_le_bytes([e0, e1]));
        let value = rest.get(begin..begin.saturating_add(length)).unwrap_or_default();
        match tag.element() {
            0x0000 | 0x0001 | 0x0002 | 0x0010 | 0x0012 | 0x0013 => {}
            0x0003 => {
                let text = String::from_utf8_lossy(value);
                let own = data_set.text(tags::SOP_INSTANCE_UID).unwrap_or_default();
                if text.trim_matches(['\0', ' ']) != own.trim_end_matches('\0') {
                    findings.push(format!("{} is not that of the data set", keyword(tag)));
                }
            }
            _ => findings.push(format!("{} is in the File Meta Information", keyword(tag))),
        }
        rest = rest.get(begin.saturating_add(length)..).unwrap_or_default();
    }
    findings
}

/// What says that it was done, and how (PS3.15 E.1.1, E.2).
fn marks(profile: &Profile, data_set: &DataSet) -> Vec<String> {
    let mut findings = Vec::new();
    let mut wrong = |tag, why: &str| findings.push(format!("{} {why}", keyword(tag)));
    let removed = data_set.text(tags::PATIENT_IDENTITY_REMOVED);
    if removed.as_deref() != Some("YES") {
        wrong(tags::PATIENT_IDENTITY_REMOVED, "does not say YES");
    }
    let methods = data_set.bytes(tags::DEIDENTIFICATION_METHOD).unwrap_or_default();
    let methods = String::from_utf8_lossy(methods);
    if !methods.split('\\').any(|method| method.trim() == profile.reference()) {
        wrong(tags::DEIDENTIFICATION_METHOD, "does not name this profile as it is now");
    }
    let items = data_set.items(tags::DEIDENTIFICATION_METHOD_CODE_SEQUENCE);
    let codes: Vec<_> = items.iter().filter_map(|item| item.text(tags::CODE_VALUE)).collect();
    let expected = options(profile);
    // Pixels are cleaned where a mask says so, which not every object has.
    let must = expected.iter().filter(|it| it.code != ProfileOption::CleanPixelData.code());
    if must.clone().any(|option| !codes.iter().any(|code| code == option.code)) {
        wrong(tags::DEIDENTIFICATION_METHOD_CODE_SEQUENCE, "lacks an option of the profile");
    }
    if codes.iter().any(|code| !expected.iter().any(|option| option.code == code)) {
        wrong(
            tags::DEIDENTIFICATION_METHOD_CODE_SEQUENCE,
            "has an option that the profile has not",
        );
    }
    let dates = if profile.options.has(ProfileOption::RetainLongFullDates) {
        "UNMODIFIED"
    } else if profile.options.has(ProfileOption::RetainLongModifiedDates) {
        "MODIFIED"
    } else {
        "REMOVED"
    };
    let said = data_set.text(tags::LONGITUDINAL_TEMPORAL_INFORMATION_MODIFIED);
    if said.as_deref() != Some(dates) {
        let why = format!("does not say {dates}");
        wrong(tags::LONGITUDINAL_TEMPORAL_INFORMATION_MODIFIED, &why);
    }
    findings
}

/// What the engine's own verification finds, without values to search for.
fn by_profile(deidentifier: &Deidentifier, input: &Input, parsed: &Parsed) -> Vec<String> {
    if matches!(input.meta.transfer_syntax.layout(), Layout::ExplicitBig) {
        return vec!["it is in Explicit VR Big Endian, which Gantry never writes".to_owned()];
    }
    let profile = deidentifier.profile();
    let uid = |tag| parsed.data_set.text(tag).unwrap_or_default().trim_end_matches('\0').to_owned();
    let sop_class = uid(tags::SOP_CLASS_UID);
    let every_rule = vec![true; profile.rules.len()];
    let decider = Decider::new(profile, &sop_class, &every_rule);
    let mut steps = Vec::new();
    kept_by_rule(&decider, &parsed.data_set, &mut Vec::new(), &mut steps);
    let uids = (uid(tags::STUDY_INSTANCE_UID), uid(tags::SOP_INSTANCE_UID));
    let mut made = Made::without_originals(deidentifier, parsed.form, sop_class, uids, steps);
    if let Some(sealed) = parsed.data_set.get(tags::ENCRYPTED_ATTRIBUTES_SEQUENCE)
        && is_sealed(&parsed.data_set)
    {
        made.data_set.put(sealed.clone());
    }
    let mut verifier = Verifier::new(deidentifier, &made, &input.meta.transfer_syntax);
    let mut refused = None;
    let read = input.data_set.read(0..input.data_set.length(), &mut |bytes| {
        verifier.feed(bytes).map_err(|error| {
            refused = Some(chain(&error).to_string());
            io::ErrorKind::InvalidData.into()
        })
    });
    match (refused, read) {
        (Some(why), _) => vec![format!("it is damaged: {why}")],
        (None, Err(error)) => vec![format!("it cannot be read: {error}")],
        (None, Ok(())) => match verifier.finish() {
            Ok(_) => Vec::new(),
            Err(findings) => findings.iter().map(ToString::to_string).collect(),
        },
    }
}

/// Private attributes that a rule is about: whether it keeps them depends on what was received, so they are not judged.
fn kept_by_rule(
    decider: &Decider<'_>,
    data_set: &DataSet,
    path: &mut Vec<Tag>,
    steps: &mut Vec<Step>,
) {
    for element in &data_set.elements {
        let tag = element.tag;
        if tag.group() % 2 == 1 {
            let is_creator = (0x10..=0xFF).contains(&tag.element());
            let block = if is_creator { tag.element() } else { tag.element() >> 8 };
            let creator = data_set.text(Tag(tag.group(), block)).unwrap_or_default();
            let place = Place { path, tag, vr: element.vr, creator: Some(&creator) };
            // A creator stays as long as something of its block does.
            let of_block = |other: &&gantry_deidentify::data_set::Element| {
                other.tag.group() == tag.group() && other.tag.element() >> 8 == block
            };
            let found = if is_creator {
                data_set.elements.iter().filter(of_block).find_map(|other| {
                    let place =
                        Place { path, tag: other.tag, vr: other.vr, creator: Some(&creator) };
                    decider.rule(place)
                })
            } else {
                decider.rule(place)
            };
            if let Some(decision) = found {
                let (path, vr) = (Arc::from(path.as_slice()), element.vr);
                steps.push(Step { path, tag, vr, decision, done: Done::Kept });
            }
        }
        if let Value::Items(items) = &element.value {
            path.push(tag);
            for item in items {
                kept_by_rule(decider, item, path, steps);
            }
            path.pop();
        }
    }
}

/// Texts that look as if they named somebody.
fn texts(data_set: &DataSet, path: &mut Vec<Tag>, outer: &[u8], findings: &mut Vec<String>) {
    let set = data_set.bytes(tags::SPECIFIC_CHARACTER_SET).unwrap_or(outer);
    for element in &data_set.elements {
        match &element.value {
            Value::Items(items) => {
                path.push(element.tag);
                for item in items {
                    texts(item, path, set, findings);
                }
                path.pop();
            }
            Value::Bytes(_) if is_words(element.vr) => {
                let text = character_sets::decode(set, element.bytes().unwrap_or_default());
                for suspect in suspects::in_text(&text) {
                    let names: Vec<_> =
                        path.iter().chain([&element.tag]).map(|tag| keyword(*tag)).collect();
                    let place = names.join("/");
                    findings.push(format!("{place} has what looks like {}", suspect.as_str()));
                }
            }
            Value::Bytes(_) | Value::Fragments(_) => {}
        }
    }
}
