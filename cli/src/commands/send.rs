//! `gantry send`: files and folders on their way to a partner, through the running node.
//!
//! Each file goes through the node's intake as an instance from a modality does, so from the node's answer on it is as
//! safe. What the node holds already it recognises, and an instance that lies in several files is sent once, so the same
//! command may be run again after an interruption.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use gantry_gateway::partner::capabilities::{self, Capabilities, Capability};
use gantry_gateway::web::part10::{FileMeta, Head, HeadReader, NotPart10};
use gantry_store::dicom::SopClassUid;
use gantry_store::facts::{ObjectId, ParcelId, Priority, Purpose};
use indicatif::ProgressBar;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::fs::File;
use tokio::time::{Instant, sleep};

use super::Global;
use super::transfer::{self, watch};
use crate::client::{Client, FileBody, escaped, with_query};
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::signals::Signals;
use crate::views::{Shorten as _, Transfer};
use crate::words;

/// How long the node may take to make rows of what it took in, and how often it is asked.
const ROWS: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(100);

/// Send files to a partner
///
/// Folders are searched through; what is not DICOM is left out and counted, and so is DICOMDIR. Studies of one patient that
/// are sent at once, today's and those that it is compared with, are a parcel with one status. The node must be running:
/// it takes the files in, and sends them from there. With --wait the exit code says how it ended: 0 sent, 5 still waiting,
/// 6 sent in part, 8 refused by the partner, 9 partner unreachable.
#[derive(Args, Debug)]
#[command(before_help = "\
Examples:
  gantry send /media/cdrom --to york-ed --emergency --wait
  gantry send scan1.dcm scan2.dcm --to leeds-mdt --purpose mdt
  gantry send today/ priors/ report.dcm --to york-ed --emergency     one parcel
  gantry send study/ --to york-ed --dry-run")]
pub(crate) struct Arguments {
    /// Files and folders
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// The partner, by its name in the configuration
    #[arg(long, value_name = "PARTNER")]
    to: String,
    /// Overtake everything else
    #[arg(long, conflicts_with = "priority")]
    emergency: bool,
    /// How urgent: emergency, urgent or routine [default: routine]
    #[arg(long)]
    priority: Option<Priority>,
    /// Why: emergency-transfer, tertiary-referral, mdt or direct-care
    #[arg(long)]
    purpose: Option<Purpose>,
    /// Wait until the partner has accepted all
    #[arg(long)]
    wait: bool,
    /// Wait no longer than this
    #[arg(long, value_name = "TIME", requires = "wait", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
    /// Say what would be sent, and send nothing
    #[arg(long)]
    dry_run: bool,
}

/// What is to be sent, and what was left out.
#[derive(Debug, Default)]
struct Found {
    files: Vec<FileFound>,
    /// Not DICOM.
    others: u64,
    dicomdirs: u64,
    /// An instance that another file holds as well.
    repeated: u64,
}

#[derive(Debug)]
struct FileFound {
    path: PathBuf,
    length: u64,
    sop_class: Option<SopClassUid>,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    sent_to_node: u64,
    bytes: u64,
    not_dicom: u64,
    dicomdir: u64,
    repeated: u64,
    refused: Vec<RefusedFile>,
    /// Images that the node took and does not send.
    held_back: u64,
    transfers: Vec<Transfer>,
}

#[derive(Debug, Serialize)]
struct RefusedFile {
    path: PathBuf,
    reason: String,
}

/// The node's answer to one file, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Taken {
    study_instance_uid: String,
    sop_instance_uid: String,
}

#[derive(Debug, Deserialize)]
struct DeliveryRow {
    sop_instance_uid: String,
}

pub(crate) async fn run(
    arguments: Arguments,
    global: &Global,
    output: Output,
) -> Result<Exit, Failure> {
    let (config, _) = super::load_config(global, output)?;
    if config.partner(&arguments.to).is_none() {
        return Err(super::unknown_partner(&config, &arguments.to));
    }
    let mut signals = Signals::new()?;
    let paths = arguments.paths.clone();
    let searched = tokio::task::spawn_blocking(move || search(&paths)).await;
    let found = searched.map_err(|error| Failure::because(Exit::Failed, &error))??;
    if found.files.is_empty() {
        return Err(Failure::new(Exit::NotFound, "there is no DICOM file").hint(left_out(&found)));
    }
    let bytes: u64 = found.files.iter().map(|file| file.length).sum();
    if arguments.dry_run {
        let count = words::count(found.files.len() as u64, "image", "images");
        for file in &found.files {
            output.line(file.path.display())?;
        }
        output.say(format_args!(
            "{count}, {} would be sent; {}",
            words::bytes(bytes),
            left_out(&found)
        ));
        let known = Capabilities::of(&config.node.data_dir).known(&arguments.to, Timestamp::now());
        for doubt in doubts(&found.files, &known) {
            output.say(doubt);
        }
        return Ok(Exit::Done);
    }

    let mut node = Client::connect(&config).await?;
    let batch = ObjectId::new().to_string();
    let bar = output.bar(found.files.len() as u64, "To the node");
    let uploaded = tokio::select! {
        uploaded = upload(&arguments, &found, &mut node, &batch, &bar) => uploaded,
        _ = signals.next() => {
            bar.finish_and_clear();
            // The node ends the batch by itself; what it has taken in goes its way.
            return Err(Failure::new(Exit::Interrupted, format_args!("interrupted after {} files", bar.position()))
                .hint("run it again: what arrived is not sent twice"));
        }
    };
    bar.finish_and_clear();
    let uploaded = uploaded?;
    node.delete(&format!("/api/v1/batches/{batch}")).await?;

    let (mut transfers, held_back) = made(&uploaded.studies, &arguments.to, &mut node).await?;
    let mut exit =
        if uploaded.refused.is_empty() && held_back == 0 { Exit::Done } else { Exit::Partly };
    if arguments.wait {
        let ids: Vec<_> = transfers.iter().map(|transfer| transfer.id).collect();
        let ends = tokio::select! {
            ends = watch::until_sent(&ids, &config, arguments.timeout, output) => ends?,
            _ = signals.next() => {
                return Err(Failure::new(Exit::Interrupted, "no longer waiting; the node goes on sending")
                    .hint("`gantry transfer watch` shows how far it is"));
            }
        };
        exit = ends.iter().map(|(_, end)| *end).fold(exit, worse);
        transfers = ends.into_iter().map(|(transfer, _)| transfer).collect();
    }
    transfers.shorten();
    for RefusedFile { path, reason } in &uploaded.refused {
        output.say(format_args!("not taken: {}: {reason}", path.display()));
    }
    if held_back > 0 {
        let images = words::count(held_back, "image is", "images are");
        output.say(format_args!(
            "{images} safe at the node and not on the way: `gantry status` says whether they are in quarantine"
        ));
    }
    if output.is_json() {
        output.json(&Report {
            sent_to_node: uploaded.count,
            bytes: uploaded.bytes,
            not_dicom: found.others,
            dicomdir: found.dicomdirs,
            repeated: found.repeated,
            refused: uploaded.refused,
            held_back,
            transfers,
        })?;
    } else {
        let count = words::count(uploaded.count, "image is", "images are");
        output.say(format_args!(
            "{count} safe at the node, {}; {}",
            words::bytes(uploaded.bytes),
            left_out(&found)
        ));
        transfer::print(&transfers, output)?;
    }
    Ok(exit)
}

/// What remains of two outcomes: a part done is a part done, otherwise the one that is not success.
fn worse(one: Exit, other: Exit) -> Exit {
    match (one, other) {
        (Exit::Done, other) => other,
        (one, Exit::Done) => one,
        (one, other) if one == other => one,
        _ => Exit::Partly,
    }
}

#[derive(Debug, Default)]
struct Uploaded {
    count: u64,
    bytes: u64,
    /// The SOP Instance UIDs of each study.
    studies: BTreeMap<String, HashSet<String>>,
    refused: Vec<RefusedFile>,
}

async fn upload(
    arguments: &Arguments,
    found: &Found,
    node: &mut Client,
    batch: &str,
    bar: &ProgressBar,
) -> Result<Uploaded, Failure> {
    // What is sent at once belongs together; the node keeps patients apart.
    let parcel = ParcelId::new();
    let priority = if arguments.emergency { Some(Priority::Emergency) } else { arguments.priority };
    let path = with_query(
        "/api/v1/instances",
        [
            ("to", Some(arguments.to.clone())),
            ("priority", priority.map(|priority| priority.to_string())),
            ("purpose", arguments.purpose.map(|purpose| purpose.to_string())),
            ("parcel", Some(parcel.to_string())),
        ],
    );
    let mut uploaded = Uploaded::default();
    for file in &found.files {
        let opened = async {
            let opened = File::open(&file.path).await?;
            let length = opened.metadata().await?.len();
            Ok((opened, length))
        };
        let (opened, length) = opened
            .await
            .map_err(|error: std::io::Error| Failure::of_file("read", &file.path, &error))?;
        match node.post_file::<Taken>(&path, batch, FileBody::new(opened, length)).await {
            Ok(taken) => {
                uploaded.count += 1;
                uploaded.bytes += length;
                uploaded
                    .studies
                    .entry(taken.study_instance_uid)
                    .or_default()
                    .insert(taken.sop_instance_uid);
            }
            // This file is at fault; another may be well.
            Err(Failure { exit: Exit::Refused, message: Some(reason), .. }) => {
                uploaded.refused.push(RefusedFile { path: file.path.clone(), reason });
            }
            Err(failure) => return Err(failure),
        }
        bar.inc(1);
    }
    if uploaded.count == 0 {
        let reason = uploaded.refused.first().map_or("", |file| &file.reason);
        return Err(Failure::new(
            Exit::Refused,
            format_args!("the node took none of the files: {reason}"),
        ));
    }
    Ok(uploaded)
}

/// The transfers that carry these images. They are there once the node has made rows of what it took in, which it may not
/// do at all: what contradicts an image of another sender is held back.
async fn made(
    studies: &BTreeMap<String, HashSet<String>>,
    partner: &str,
    node: &mut Client,
) -> Result<(Vec<Transfer>, u64), Failure> {
    let deadline = Instant::now() + ROWS;
    let mut transfers = Vec::new();
    let mut held_back = 0;
    for (study, sent) in studies {
        let path = format!(
            "/api/v1/transfers?study={}&partner={}&limit=1",
            escaped(study),
            escaped(partner)
        );
        loop {
            let mut found: Vec<Transfer> = node.get(&path).await?;
            let missing = match found.first() {
                Some(transfer) => {
                    let path = format!("/api/v1/transfers/{}/deliveries", transfer.id);
                    let rows: Vec<DeliveryRow> = node.get(&path).await?;
                    let there: HashSet<_> =
                        rows.into_iter().map(|row| row.sop_instance_uid).collect();
                    sent.difference(&there).count() as u64
                }
                None => sent.len() as u64,
            };
            if missing == 0 || Instant::now() > deadline {
                transfers.extend(found.pop());
                held_back += missing;
                break;
            }
            sleep(LOOK).await;
        }
    }
    Ok((transfers, held_back))
}

fn left_out(found: &Found) -> String {
    let mut left = Vec::new();
    for (count, one, more) in [
        (found.others, "file that is not DICOM", "files that are not DICOM"),
        (found.dicomdirs, "DICOMDIR", "DICOMDIRs"),
        (found.repeated, "copy of an image", "copies of images"),
    ] {
        if count > 0 {
            left.push(words::count(count, one, more));
        }
    }
    if left.is_empty() {
        "nothing was left out".to_owned()
    } else {
        format!("left out: {}", left.join(", "))
    }
}

/// Every DICOM file of these paths, in the order of their names.
fn search(paths: &[PathBuf]) -> Result<Found, Failure> {
    let mut found = Found::default();
    let mut seen = HashSet::new();
    for path in paths {
        // Follows links that a person names, and none that lie in folders: those may lead anywhere, and in circles.
        let there = fs::metadata(path).map_err(|error| Failure::of_file("read", path, &error))?;
        if there.is_dir() {
            search_folder(path, &mut found, &mut seen)?;
        } else {
            look_at(path, there.len(), &mut found, &mut seen)?;
        }
    }
    Ok(found)
}

fn search_folder(
    folder: &Path,
    found: &mut Found,
    seen: &mut HashSet<String>,
) -> Result<(), Failure> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let failed = |error: std::io::Error| Failure::of_file("read", &folder, &error);
        let mut entries: Vec<_> =
            fs::read_dir(&folder).and_then(Iterator::collect).map_err(failed)?;
        entries.sort_by_key(fs::DirEntry::file_name);
        let mut below = Vec::new();
        for entry in entries {
            let kind = entry.file_type().map_err(failed)?;
            if kind.is_dir() {
                below.push(entry.path());
            } else if kind.is_file() {
                let length = entry.metadata().map_err(failed)?.len();
                look_at(&entry.path(), length, found, seen)?;
            }
        }
        // The last one in is the first one out.
        folders.extend(below.into_iter().rev());
    }
    Ok(())
}

fn look_at(
    path: &Path,
    length: u64,
    found: &mut Found,
    seen: &mut HashSet<String>,
) -> Result<(), Failure> {
    const MEDIA_STORAGE_DIRECTORY: &str = "1.2.840.10008.1.3.10";
    match read_head(path).map_err(|error| Failure::of_file("read", path, &error))? {
        Err(_) => found.others += 1,
        Ok((FileMeta { sop_class: Some(class), .. }, _))
            if class.as_str() == MEDIA_STORAGE_DIRECTORY =>
        {
            found.dicomdirs += 1;
        }
        Ok((FileMeta { sop_instance: Some(uid), .. }, _))
            if !seen.insert(uid.as_str().to_owned()) =>
        {
            found.repeated += 1;
        }
        Ok((FileMeta { sop_class, .. }, _)) => {
            found.files.push(FileFound { path: path.to_owned(), length, sop_class });
        }
    }
    Ok(())
}

/// What the partner will not take, or was not asked for yet, as far as that is known.
fn doubts(files: &[FileFound], known: &[Capability]) -> Vec<String> {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for class in files.iter().filter_map(|file| file.sop_class.as_ref()) {
        *counts.entry(class.as_str()).or_default() += 1;
    }
    let mut doubts = Vec::new();
    for (class, count) in counts {
        let asked = known.iter().filter(|known| known.sop_class == class);
        // Whatever encoding a partner takes: the node converts to the plain ones, and to JPEG-LS.
        let answers: Vec<_> = asked.map(|known| known.accepted).collect();
        let images = words::count(count, "image", "images");
        let name = capabilities::kind(class);
        if answers.is_empty() {
            doubts.push(format!("whether the partner takes {images} of kind {name} is not known: `gantry partner test` asks"));
        } else if !answers.contains(&true) {
            doubts.push(format!("the partner took no {name} when it was last asked: {images}"));
        }
    }
    doubts
}

/// The head of a file, and where its data set begins.
pub(super) fn read_head(path: &Path) -> std::io::Result<Result<(FileMeta, u64), NotPart10>> {
    let mut file = fs::File::open(path)?;
    let mut reader = HeadReader::default();
    let mut piece = vec![0; 4096];
    let mut at = 0;
    loop {
        let read = file.read(&mut piece)?;
        at += read as u64;
        if read == 0 {
            return Ok(Err(reader.cut_short()));
        }
        match reader.feed(piece.get(..read).unwrap_or_default()) {
            Ok(Head::Unfinished(same)) => reader = same,
            Ok(Head::Finished(meta, begun)) => return Ok(Ok((meta, at - begun.len() as u64))),
            Err(error) => return Ok(Err(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_searched_through_and_what_is_left_out_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let disc = folder.path().join("DICOM/S1");
        fs::create_dir_all(&disc).unwrap();
        let study = sample_studies::HeadCt::small(1).build();
        for instance in &study.instances {
            instance.write_to(&disc).unwrap();
        }
        study.instances[0].write_to(folder.path()).unwrap();
        fs::write(folder.path().join("README.TXT"), "a viewer for this disc").unwrap();
        let mut dicomdir =
            sample_studies::part10_header("1.2.840.10008.1.3.10", "1.2.3", "1.2.840.10008.1.2.1");
        dicomdir.extend_from_slice(&[4, 0, 0x30, 0x11, b'C', b'S', 0, 0]);
        fs::write(folder.path().join("DICOMDIR"), dicomdir).unwrap();
        std::os::unix::fs::symlink(folder.path(), disc.join("loop")).unwrap();

        let found = search(&[folder.path().to_owned(), disc.clone()]).unwrap();

        assert_eq!(found.files.len(), study.len());
        let copies = study.len() as u64 + 1;
        assert_eq!((found.others, found.dicomdirs, found.repeated), (1, 1, copies));
        assert_eq!(
            left_out(&found),
            "left out: 1 file that is not DICOM, 1 DICOMDIR, 9 copies of images"
        );
    }

    #[test]
    fn a_path_that_is_not_there_is_named() {
        let failure = search(&[PathBuf::from("/no/such/disc")]).unwrap_err();

        assert_eq!(failure.exit, Exit::NotFound);
        assert!(failure.message.unwrap().contains("/no/such/disc"));
    }

    #[test]
    fn outcomes_add_up() {
        let sums = [
            (Exit::Done, Exit::Done, Exit::Done),
            (Exit::Done, Exit::Refused, Exit::Refused),
            (Exit::Unreachable, Exit::Unreachable, Exit::Unreachable),
            (Exit::Unreachable, Exit::Refused, Exit::Partly),
        ];
        for (one, other, sum) in sums {
            assert_eq!(worse(one, other), sum);
        }
    }
}
