//! `gantry deid recover`: puts identities back that were sealed when a study was de-identified (PS3.15 E.1.2).
//!
//! Re-identification is an exceptional event, and on record: a line in [`LOG`] is synced before the first file is read, and
//! another one afterwards. They name who, when, why and the de-identified objects, never whom those show.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use clap::Args;
use dicom_dictionary_std::tags;
use gantry_deidentify::seal::encrypted_attributes::recover;
use gantry_deidentify::seal::{Certificate, PrivateKey};
use gantry_gateway::telemetry::chain;
use jiff::Timestamp;
use serde::Serialize;
use ulid::Ulid;

use super::key::KeyFiles;
use super::new_file::{Folder, Work, search};
use super::object::{NotRead, Object};
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::words;

/// The record of recoveries, in the folder that they are written to; one JSON value a line.
const LOG: &str = "recovered.log";

/// Put back the identities that were sealed in de-identified files
///
/// Works without a node, so that the private key stays where it is safe. Each file's sealed attributes take their places
/// again; its pixel data are copied as they are. Who did it, when, why, and to which de-identified objects is added to
/// recovered.log in the folder.
#[derive(Args, Debug)]
#[command(before_help = "\
Examples:
  gantry deid recover study/ --key ig-lead.key --to recovered --reason \"incidental finding, DPIA-17\"
  gantry deid recover ct-001.dcm --key ig-lead.key --certificate ig-lead.crt --to recovered --reason audit")]
pub(super) struct Recover {
    /// Files, and folders to search through
    #[arg(required = true, value_name = "FILE|FOLDER")]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    key: KeyFiles,
    /// The folder to write to, made if it is not there, for its owner only
    #[arg(long, value_name = "FOLDER")]
    to: PathBuf,
    /// Why, for the record
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    reason: String,
    /// For objects that were derived from de-identified ones: leave their SOP Instance and Series Instance UIDs as they are
    #[arg(long)]
    keep_uids: bool,
    /// Overwrite files that are there
    #[arg(long)]
    force: bool,
}

fn reason(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("say why: it goes on record".to_owned());
    }
    Ok(text.to_owned())
}

/// What `deid recover --json` prints.
#[derive(Serialize)]
struct Report {
    run: Ulid,
    recovered: u64,
    failed: Vec<FailedFile>,
    /// Files in folders that are not DICOM.
    others: u64,
    files: Vec<PathBuf>,
    log: PathBuf,
}

#[derive(Serialize)]
struct FailedFile {
    file: PathBuf,
    reason: String,
}

/// A line of [`LOG`].
#[derive(Serialize)]
struct Line<'a> {
    run: Ulid,
    event: &'static str,
    at: Timestamp,
    user: &'a Who,
    reason: &'a str,
    /// SHA-256 of the certificate, where one was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<String>,
    /// How many files were named or found.
    files: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<Outcome<'a>>,
}

#[derive(Serialize)]
struct Outcome<'a> {
    /// SOP Instance UIDs of the de-identified objects.
    recovered: &'a [String],
    failed: usize,
}

/// Whose process this is. The names are what its environment says; the number is the kernel's.
#[derive(Serialize)]
struct Who {
    uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sudo_user: Option<String>,
}

impl Who {
    fn of_this_process() -> Self {
        let uid = std::fs::metadata("/proc/self").ok().map(|process| process.uid());
        let variable = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
        let name = variable("USER").or_else(|| variable("LOGNAME"));
        Self { uid, name, sudo_user: variable("SUDO_USER") }
    }
}

/// Why one file was not recovered.
enum Refused {
    NotDicom(String),
    Because(String),
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Self::Because(error.to_string())
    }
}

pub(super) fn run(arguments: &Recover, output: Output) -> Result<Exit, Failure> {
    let key = arguments.key.read()?;
    let work = search(&arguments.paths, &arguments.to)?;
    let mut folder = Folder::open(&arguments.to, arguments.force)?;
    let log = folder.path().join(LOG);
    let failed_to_log = |error: io::Error| {
        Failure::of_file("write", &log, &error).hint("without a record nothing is recovered")
    };
    let (run, user) = (Ulid::new(), Who::of_this_process());
    let mut line = Line {
        run,
        event: "begun",
        at: Timestamp::now(),
        user: &user,
        reason: &arguments.reason,
        certificate: key.certificate().map(Certificate::fingerprint_hex),
        files: work.len(),
        outcome: None,
    };
    append(&log, &line).map_err(failed_to_log)?;

    let mut report =
        Report { run, recovered: 0, failed: Vec::new(), others: 0, files: Vec::new(), log };
    let mut uids = Vec::new();
    let bar = output.bar(work.len() as u64, "Recovering");
    for one in &work {
        match recover_one(one, &key, arguments.keep_uids, &mut folder) {
            Ok((path, uid)) => {
                report.recovered += 1;
                report.files.push(path);
                uids.push(uid);
            }
            Err(Refused::NotDicom(_)) if !one.named => report.others += 1,
            Err(Refused::NotDicom(reason) | Refused::Because(reason)) => {
                bar.suspend(|| output.say(format_args!("{}: {reason}", one.from.display())));
                report.failed.push(FailedFile { file: one.from.clone(), reason });
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();

    line.event = "ended";
    line.at = Timestamp::now();
    line.outcome = Some(Outcome { recovered: &uids, failed: report.failed.len() });
    append(&report.log, &line).map_err(|error| Failure::of_file("write", &report.log, &error))?;
    if output.is_json() {
        output.json(&report)?;
    } else {
        output.line(format_args!(
            "{} recovered, {} failed, in {}",
            words::count(report.recovered, "file", "files"),
            report.failed.len(),
            folder.path().display()
        ))?;
        if report.others > 0 {
            let others = words::count(report.others, "file that is", "files that are");
            output.say(format_args!("left out: {others} not DICOM"));
        }
        output.say(format_args!("on record in {}", report.log.display()));
    }
    Ok(match (report.recovered, report.failed.is_empty()) {
        (_, true) if report.recovered > 0 => Exit::Done,
        (0, true) => {
            output.say("there was no DICOM file");
            Exit::NotFound
        }
        (0, false) => Exit::Failed,
        _ => Exit::Partly,
    })
}

/// Recovers one file: where it was written, and the SOP Instance UID that it had.
fn recover_one(
    work: &Work,
    key: &PrivateKey,
    keep_uids: bool,
    folder: &mut Folder,
) -> Result<(PathBuf, String), Refused> {
    let mut object = Object::read(&work.from).map_err(|error| match error {
        NotRead::Io(error) => Refused::Because(error.to_string()),
        NotRead::NotPart10(error) => Refused::NotDicom(error.to_string()),
        NotRead::DataSet(error) => Refused::Because(chain(&error).to_string()),
    })?;
    let recovered = recover(&object.parsed.data_set, key, keep_uids)
        .map_err(|error| Refused::Because(chain(&error).to_string()))?;
    let uid = object.parsed.data_set.text(tags::SOP_INSTANCE_UID).unwrap_or_default();
    let path = folder.write::<Refused>(&work.name, &work.from, |file| {
        Ok(object.write_with(&recovered, file)?)
    })?;
    Ok((path, uid))
}

/// Adds a line to the record, and syncs it.
fn append(path: &Path, line: &Line<'_>) -> io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    let mut file: File = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    // One write, so that two runs at once do not mix their lines.
    file.write_all(&text)?;
    file.sync_all()
}
