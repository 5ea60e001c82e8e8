//! `gantry study …`: what this node holds.

mod count;
mod keep;
mod share;

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::{Args, Subcommand};
use gantry_deidentify::seal::secure_file::{self, Encryptor, Inside};
use gantry_deidentify::seal::{Recipient, SealError, SealRng};
use gantry_gateway::web::part10::{Head, HeadReader};
use gantry_store::dicom::StudyInstanceUid;
use gantry_store::facts::{Digest, Digester};
use jiff::Timestamp;
use serde::Serialize;

use super::Global;
use crate::client::{Client, with_query};
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::views::{Decision, Instance, Shorten as _, Study, StudyDetail, short_id};
use crate::words;

/// What this node holds
#[derive(Args, Debug)]
#[command(subcommand_required = true, arg_required_else_help = true)]
#[command(before_help = "\
Examples:
  gantry study list
  gantry study show 1.2.826.0.1.3680043.8.498.1
  gantry study count 1.2.826.0.1.3680043.8.498.1
  gantry study export 1.2.826.0.1.3680043.8.498.1 --into /media/usb/ct-head
  gantry study hold 1.2.826.0.1.3680043.8.498.1 --reason \"coroner, case 17\"")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(List),
    Show(Show),
    Count(count::Count),
    Export(Export),
    Hold(keep::Hold),
    Release(keep::Release),
    Delete(keep::Delete),
    Share(share::Share),
    Unshare(share::Unshare),
}

/// Studies, the one that received something last first
#[derive(Args, Debug)]
#[command(before_help = "\
Examples:
  gantry study list
  gantry study list --accession RXX1234567 --reveal")]
struct List {
    /// Exactly this Patient ID
    #[arg(long, value_name = "ID")]
    patient_id: Option<String>,
    /// Exactly this Accession Number
    #[arg(long, value_name = "NUMBER")]
    accession: Option<String>,
    /// At most so many
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Show patients in full
    #[arg(long)]
    reveal: bool,
}

/// One study: its series, and where it went
#[derive(Args, Debug)]
#[command(before_help = "\
Examples:
  gantry study show 1.2.826.0.1.3680043.8.498.1
  gantry study show 1.2.826.0.1.3680043.8.498.1 --json | jq '.series[].instances[] | {sop_instance_uid, digest}'")]
struct Show {
    /// Study Instance UID
    uid: StudyInstanceUid,
    /// Show the patient in full
    #[arg(long)]
    reveal: bool,
}

/// Write a study's images into a folder, as DICOM files
///
/// The data sets are those that were received, compared by SHA-256 while they are written. The files hold patient data in
/// full, unless they are encrypted: then they are Secure DICOM Files (PS3.10 7.4), of which only those whose certificates
/// were named can read more than the name. Nothing is overwritten.
#[derive(Args, Debug)]
#[command(before_help = "\
Examples:
  gantry study export 1.2.826.0.1.3680043.8.498.1 --into /media/usb/ct-head
  gantry study export 1.2.826.0.1.3680043.8.498.1 --into /media/usb/ct-head --encrypt-to york.crt")]
struct Export {
    /// Study Instance UID
    uid: StudyInstanceUid,
    /// The folder, made if it is not there
    #[arg(long, value_name = "DIR")]
    into: PathBuf,
    /// Encrypt each file to the certificates in this file, PEM or DER; may be repeated
    #[arg(long, value_name = "CERT")]
    encrypt_to: Vec<PathBuf>,
    /// With a digest inside, as PS3.15 D.1 asks for; `gantry deid decrypt` takes it out again, few other programs do
    #[arg(long, requires = "encrypt_to")]
    digest: bool,
}

/// What `study export --json` prints.
#[derive(Serialize)]
struct Exported {
    instances: u64,
    bytes: u64,
    files: Vec<PathBuf>,
    /// Who can read them: SHA-256 of their certificates. Empty where everybody can.
    encrypted_to: Vec<String>,
}

pub(crate) async fn run(
    arguments: Arguments,
    global: &Global,
    output: Output,
) -> Result<Exit, Failure> {
    let (config, _) = super::load_config(global, output)?;
    let mut node = Client::connect(&config).await?;
    match arguments.command {
        Command::List(arguments) => list(arguments, &mut node, output).await,
        Command::Show(arguments) => show(&arguments, &mut node, output).await,
        Command::Count(arguments) => count::run(&arguments, &mut node, output).await,
        Command::Export(arguments) => export(&arguments, &mut node, output).await,
        Command::Hold(arguments) => keep::hold(&arguments, &mut node, output).await,
        Command::Release(arguments) => keep::release(&arguments, &mut node, output).await,
        Command::Delete(arguments) => keep::delete(&arguments, &config, &mut node, output).await,
        Command::Share(arguments) => share::share(&arguments, &mut node, output).await,
        Command::Unshare(arguments) => share::unshare(&arguments, &mut node, output).await,
    }
}

async fn list(arguments: List, node: &mut Client, output: Output) -> Result<Exit, Failure> {
    let path = with_query(
        "/api/v1/studies",
        [
            ("patient_id", arguments.patient_id),
            ("accession_number", arguments.accession),
            ("limit", Some(arguments.limit.to_string())),
        ],
    );
    let mut studies: Vec<Study> = node.get(&path).await?;
    if !arguments.reveal {
        studies.shorten();
    }
    if output.is_json() {
        output.json(&studies)?;
    } else if studies.is_empty() {
        output.say("no studies");
    } else {
        let now = Timestamp::now();
        let rows = studies.iter().map(|study| {
            vec![
                study.study_instance_uid.clone(),
                study.kind(),
                study.series_count.to_string(),
                study.instance_count.to_string(),
                study.last_received_at.map(|at| words::age(at, now)).unwrap_or_default(),
                study.patient(),
                study.keeping().to_owned(),
            ]
        });
        output
            .table(&["STUDY", "KIND", "SERIES", "IMAGES", "AGE", "PATIENT", ""], rows.collect())?;
    }
    Ok(Exit::Done)
}

async fn read(uid: &StudyInstanceUid, node: &mut Client) -> Result<StudyDetail, Failure> {
    node.get(&format!("/api/v1/studies/{uid}")).await
}

async fn show(arguments: &Show, node: &mut Client, output: Output) -> Result<Exit, Failure> {
    let mut detail = read(&arguments.uid, node).await?;
    if !arguments.reveal {
        detail.shorten();
    }
    if output.is_json() {
        output.json(&detail)?;
        return Ok(Exit::Done);
    }
    let StudyDetail { study, series, transfers, .. } = &detail;
    let now = Timestamp::now();
    output.line(format_args!("study      {}  {}", study.kind(), study.study_instance_uid))?;
    output.line(format_args!("patient    {}", study.patient()))?;
    if study.patient_conflict {
        output
            .line("           its images disagree about the patient; what came first is shown")?;
    }
    if let Some(description) = &study.description {
        output.line(format_args!("           {description}"))?;
    }
    output.line(format_args!("complete   {}", study.completeness.in_full()))?;
    for (what, decision) in [("held", &study.held), ("removed", &study.removed)] {
        if let Some(Decision { at, by, reason }) = decision {
            let why = reason.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            output.line(format_args!("{what:<10} on {} by {by}{why}", words::clock(*at, now)))?;
        }
    }
    output.line("")?;
    let rows = series.iter().map(|series| {
        let held = series.instances.iter().filter(|instance| instance.quarantined).count();
        let bytes: u64 = series.instances.iter().map(|instance| instance.length).sum();
        vec![
            series.number.map(|number| number.to_string()).unwrap_or_default(),
            series.modality.clone().unwrap_or_default(),
            series.instances.len().to_string(),
            words::bytes(bytes),
            if held == 0 { String::new() } else { format!("{held} in quarantine") },
            series.description.clone().unwrap_or_default(),
        ]
    });
    output.table(&["SERIES", "KIND", "IMAGES", "SIZE", "", ""], rows.collect())?;
    if !transfers.is_empty() {
        output.line("")?;
        let rows = transfers.iter().map(|transfer| {
            vec![
                short_id(transfer.id),
                transfer.partner.clone(),
                transfer.priority.to_string(),
                format!("{} of {}", transfer.counts.delivered, transfer.counts.total),
                words::age(transfer.created_at, now),
            ]
        });
        output.table(&["TRANSFER", "TO", "PRIORITY", "ACCEPTED", "AGE"], rows.collect())?;
    }
    Ok(Exit::Done)
}

async fn export(arguments: &Export, node: &mut Client, output: Output) -> Result<Exit, Failure> {
    let sealing = Sealing::read(arguments)?;
    let detail = read(&arguments.uid, node).await?;
    let folder = &arguments.into;
    fs::create_dir_all(folder).map_err(|error| Failure::of_file("make", folder, &error))?;
    let wanted: Vec<_> = detail
        .series
        .iter()
        .flat_map(|series| series.instances.iter().map(move |instance| (series, instance)))
        .filter(|(_, instance)| !instance.quarantined && instance.removed_at.is_none())
        .collect();
    if let (true, Some(removed)) = (wanted.is_empty(), &detail.study.removed) {
        let Decision { at, by, .. } = removed;
        let text = format_args!("its images were removed on {} by {by}", at.strftime("%Y-%m-%d"));
        return Err(Failure::new(Exit::NotFound, text).hint("its sender may send it again"));
    }
    let bar = output.bar(wanted.len() as u64, "Exporting");
    let encrypted_to = sealing.recipients.iter().map(|one| one.fingerprint_hex()).collect();
    let mut exported = Exported { instances: 0, bytes: 0, files: Vec::new(), encrypted_to };
    for (series, instance) in wanted {
        // A version that another one replaced keeps its number in the name, so that both fit.
        let version =
            if instance.version > 1 { format!("-v{}", instance.version) } else { String::new() };
        let name = format!(
            "{}-{:03}-{}{version}.{}",
            series
                .modality
                .as_deref()
                .filter(|modality| is_plain(modality))
                .unwrap_or("OT")
                .to_lowercase(),
            series.number.unwrap_or(0),
            instance.sop_instance_uid,
            if sealing.recipients.is_empty() { "dcm" } else { secure_file::EXTENSION },
        );
        let path = folder.join(name);
        exported.bytes += write(instance, &path, &sealing, node).await?;
        exported.instances += 1;
        exported.files.push(path);
        bar.inc(1);
    }
    bar.finish_and_clear();
    if output.is_json() {
        output.json(&exported)?;
    } else {
        output.line(format_args!(
            "{} in {}, {}, each as it was received (SHA-256)",
            words::count(exported.instances, "image", "images"),
            folder.display(),
            words::bytes(exported.bytes)
        ))?;
        for recipient in &sealing.recipients {
            let (who, print) = (recipient.subject(), recipient.fingerprint_hex());
            output.line(format_args!("encrypted to {who}, SHA-256 {print}"))?;
        }
    }
    Ok(Exit::Done)
}

/// Whom what is exported is encrypted to.
struct Sealing {
    /// Nobody: it is not encrypted.
    recipients: Vec<Recipient>,
    inside: Inside,
}

impl Sealing {
    fn read(arguments: &Export) -> Result<Self, Failure> {
        let (mut recipients, now) = (Vec::new(), Timestamp::now());
        for path in &arguments.encrypt_to {
            let bytes = fs::read(path).map_err(|error| Failure::of_file("read", path, &error))?;
            let read = Recipient::from_pem_or_der(&bytes, now).map_err(|error| {
                let text = format_args!("cannot encrypt to {}: {error}", path.display());
                Failure::new(Exit::Usage, text)
            })?;
            recipients.extend(read);
        }
        let inside = if arguments.digest { Inside::Digested } else { Inside::Data };
        Ok(Self { recipients, inside })
    }
}

/// A modality comes from a peer, and is about to be part of a file's name.
fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Writes one instance; a file that does not turn out right is removed again.
async fn write(
    instance: &Instance,
    path: &Path,
    sealing: &Sealing,
    node: &mut Client,
) -> Result<u64, Failure> {
    let failed = |error: std::io::Error| Failure::of_file("write", path, &error);
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let file = opened.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            failed(error).hint("name a folder that is not there yet")
        }
        _ => failed(error),
    })?;
    let written = async {
        let mut stream =
            node.stream(&format!("/api/v1/objects/{}/part10", instance.object)).await?;
        let mut check = Check::default();
        let mut written = Written::begin(file, sealing, stream.length())?;
        while let Some(bytes) = stream.next().await? {
            check.take(&bytes)?;
            written.take(&bytes).map_err(failed)?;
        }
        written.end()?.sync_all().map_err(failed)?;
        if check.ended() == instance.digest {
            return Ok(instance.length);
        }
        Err(Failure::new(
            Exit::Failed,
            format_args!(
                "{} is not what was received: its SHA-256 is another",
                instance.sop_instance_uid
            ),
        ))
    };
    let written = written.await;
    if written.is_err() {
        let _ = fs::remove_file(path);
    }
    written
}

/// A file that is being written, in plain or encrypted; what is encrypted is never on the disk in plain.
enum Written {
    Plain(File),
    Sealed(Box<Encryptor<File>>),
}

impl Written {
    fn begin(file: File, sealing: &Sealing, length: Option<u64>) -> Result<Self, Failure> {
        if sealing.recipients.is_empty() {
            return Ok(Self::Plain(file));
        }
        // The length stands at the beginning of what is encrypted.
        let length = length.ok_or_else(|| {
            Failure::new(Exit::Failed, "the node does not say how long the image is")
        })?;
        let failed = |error: SealError| Failure::because(Exit::Failed, &error);
        let mut rng = SealRng::from_system().map_err(|error| failed(error.into()))?;
        let sealed = Encryptor::new(file, length, sealing.inside, &sealing.recipients, &mut rng);
        Ok(Self::Sealed(Box::new(sealed.map_err(failed)?)))
    }

    fn take(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Self::Plain(file) => file.write_all(bytes),
            Self::Sealed(sealed) => sealed.write_all(bytes),
        }
    }

    fn end(self) -> Result<File, Failure> {
        match self {
            Self::Plain(file) => Ok(file),
            Self::Sealed(sealed) => {
                sealed.finish().map_err(|error| Failure::because(Exit::Failed, &error))
            }
        }
    }
}

/// Digests the data set of a file that comes in pieces.
struct Check {
    head: Option<HeadReader>,
    data_set: Digester,
}

impl Default for Check {
    fn default() -> Self {
        Self { head: Some(HeadReader::default()), data_set: Digester::default() }
    }
}

impl Check {
    fn take(&mut self, bytes: &Bytes) -> Result<(), Failure> {
        match self.head.take() {
            None => self.data_set.update(bytes),
            Some(head) => {
                match head.feed(bytes).map_err(|error| Failure::because(Exit::Failed, &error))? {
                    Head::Unfinished(same) => self.head = Some(same),
                    Head::Finished(_, begun) => self.data_set.update(&begun),
                }
            }
        }
        Ok(())
    }

    fn ended(self) -> Digest {
        self.data_set.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_that_of_the_data_set_wherever_the_pieces_end() {
        let study =
            sample_studies::HeadCt { thick_slices: 1, ..sample_studies::HeadCt::small(3) }.build();
        let file = Bytes::from(study.instances[0].part10());
        let expected = Digest::of(&study.instances[0].data_set);
        for size in [1000, 4096, file.len()] {
            let mut check = Check::default();
            for begin in (0..file.len()).step_by(size) {
                check.take(&file.slice(begin..(begin + size).min(file.len()))).unwrap();
            }
            assert_eq!(check.ended(), expected);
        }
    }

    #[test]
    fn a_peers_text_does_not_become_a_path() {
        assert!(is_plain("CT") && !is_plain("../CT") && !is_plain(""));
    }
}
