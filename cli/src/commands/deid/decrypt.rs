//! `gantry deid decrypt`: DICOM files out of Secure DICOM Files (PS3.10 7.4).

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use gantry_deidentify::seal::secure_file::{self, Inside};
use gantry_deidentify::seal::{OpenError, PrivateKey};
use gantry_gateway::telemetry::chain;
use gantry_gateway::web::part10::{Head, HeadReader};
use gantry_store::dicom::scanner::{Budget, Scanner};
use serde::Serialize;

use super::key::KeyFiles;
use super::new_file::{Folder, Work, search};
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::words;

/// Decrypt Secure DICOM Files, as `gantry study export --encrypt-to` writes them
///
/// Works without a node. What comes out must be a whole DICOM file, or nothing is written.
#[derive(Args, Debug)]
#[command(before_help = "Example:\n  gantry deid decrypt media/ --key ours.key --to plain")]
pub(super) struct Decrypt {
    /// Files, and folders to search through for names that end with .p7m
    #[arg(required = true, value_name = "FILE|FOLDER")]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    key: KeyFiles,
    /// The folder to write to, made if it is not there, for its owner only
    #[arg(long, value_name = "FOLDER")]
    to: PathBuf,
    /// Overwrite files that are there
    #[arg(long)]
    force: bool,
}

/// What `deid decrypt --json` prints.
#[derive(Serialize)]
struct Report {
    decrypted: u64,
    /// Of those, how many had a digest inside, which they agree with.
    verified: u64,
    failed: Vec<FailedFile>,
    files: Vec<PathBuf>,
}

#[derive(Serialize)]
struct FailedFile {
    file: PathBuf,
    reason: String,
}

pub(super) fn run(arguments: &Decrypt, output: Output) -> Result<Exit, Failure> {
    let key = arguments.key.read()?;
    let mut work = search(&arguments.paths, &arguments.to)?;
    work.retain(|one| one.named || one.name.extension().is_some_and(|end| end == "p7m"));
    if work.is_empty() {
        return Err(Failure::new(Exit::NotFound, "there is no file whose name ends with .p7m"));
    }
    let mut folder = Folder::open(&arguments.to, arguments.force)?;
    let mut report = Report { decrypted: 0, verified: 0, failed: Vec::new(), files: Vec::new() };
    let bar = output.bar(work.len() as u64, "Decrypting");
    for one in &work {
        match decrypt_one(one, &key, &mut folder) {
            Ok((path, inside)) => {
                report.decrypted += 1;
                report.verified += u64::from(inside == Inside::Digested);
                report.files.push(path);
            }
            Err(error) => {
                let reason = chain(&error).to_string();
                bar.suspend(|| output.say(format_args!("{}: {reason}", one.from.display())));
                report.failed.push(FailedFile { file: one.from.clone(), reason });
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    if output.is_json() {
        output.json(&report)?;
    } else {
        output.line(format_args!(
            "{} decrypted, {} failed, in {}",
            words::count(report.decrypted, "file", "files"),
            report.failed.len(),
            folder.path().display()
        ))?;
        let unproven = report.decrypted - report.verified;
        if unproven > 0 {
            output.say(format_args!(
                "{} without a digest inside: whole, but that nobody changed a value is not proven",
                words::count(unproven, "file", "files")
            ));
        }
    }
    Ok(match (report.decrypted, report.failed.is_empty()) {
        (_, true) => Exit::Done,
        (0, false) => Exit::Failed,
        _ => Exit::Partly,
    })
}

/// Why one file was not decrypted.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("cannot decrypt it")]
    Open(#[from] OpenError),
    #[error("what is inside is no DICOM file: {0}")]
    NotDicom(String),
    #[error(transparent)]
    Io(#[from] io::Error),
}

fn decrypt_one(
    work: &Work,
    key: &PrivateKey,
    folder: &mut Folder,
) -> Result<(PathBuf, Inside), Refused> {
    let from = BufReader::with_capacity(64 << 10, File::open(&work.from)?);
    let mut inside = Inside::Data;
    let path = folder.write::<Refused>(&plain_name(&work.name), &work.from, |file| {
        let mut checked = Checked {
            out: BufWriter::with_capacity(256 << 10, file),
            state: State::Head(HeadReader::default()),
        };
        let decrypted = secure_file::decrypt(from, key, &mut checked);
        // What it stumbled over says more than that writing failed.
        if let State::NotDicom(why) = checked.state {
            return Err(Refused::NotDicom(why));
        }
        inside = decrypted?.inside;
        checked.finish()
    })?;
    Ok((path, inside))
}

/// `x.dcm` for `x.dcm.p7m`; what has another name becomes `name.dcm`.
fn plain_name(name: &Path) -> PathBuf {
    let without = if name.extension().is_some_and(|end| end == "p7m") {
        name.with_extension("")
    } else {
        name.to_owned()
    };
    if without.extension().is_some_and(|end| end.eq_ignore_ascii_case("dcm")) {
        return without;
    }
    let mut name = without.into_os_string();
    name.push(".dcm");
    name.into()
}

/// Hands a file on while it makes sure that it is a whole DICOM file.
struct Checked<W> {
    out: W,
    state: State,
}

enum State {
    Head(HeadReader),
    DataSet(Box<Scanner>),
    NotDicom(String),
    /// Taken out while it changes.
    Between,
}

impl State {
    fn after(self, bytes: &[u8]) -> Self {
        let scanned = |mut scanner: Box<Scanner>, bytes: &[u8]| match scanner.feed(bytes) {
            Ok(()) => Self::DataSet(scanner),
            Err(error) => Self::NotDicom(chain(&error).to_string()),
        };
        match self {
            Self::Head(head) => match head.feed(bytes) {
                Ok(Head::Unfinished(same)) => Self::Head(same),
                Ok(Head::Finished(meta, begun)) => {
                    let scanner = Scanner::new(&meta.transfer_syntax, Budget::default());
                    scanned(Box::new(scanner), &begun)
                }
                Err(error) => Self::NotDicom(error.to_string()),
            },
            Self::DataSet(scanner) => scanned(scanner, bytes),
            other => other,
        }
    }
}

impl<W: Write> Checked<W> {
    fn finish(mut self) -> Result<(), Refused> {
        let whole = match self.state {
            State::DataSet(scanner) => {
                scanner.finish().map(drop).map_err(|error| chain(&error).to_string())
            }
            State::Head(head) => Err(head.cut_short().to_string()),
            State::NotDicom(why) => Err(why),
            State::Between => Err("nothing was read".to_owned()),
        };
        whole.map_err(Refused::NotDicom)?;
        Ok(self.out.flush()?)
    }
}

impl<W: Write> Write for Checked<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.state = std::mem::replace(&mut self.state, State::Between).after(bytes);
        if matches!(self.state, State::NotDicom(_)) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no DICOM file"));
        }
        self.out.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_that_of_the_file_inside() {
        for (name, plain) in [
            ("a/ct-001.dcm.p7m", "a/ct-001.dcm"),
            ("ct.p7m", "ct.dcm"),
            ("ct-1.2.3", "ct-1.2.3.dcm"),
            ("CT.DCM.p7m", "CT.DCM"),
        ] {
            assert_eq!(plain_name(Path::new(name)), Path::new(plain));
        }
    }

    #[test]
    fn what_is_no_whole_dicom_file_is_refused_wherever_it_ends() {
        let file = sample_studies::ct_series(3, 1).instances[0].part10();
        let check = |bytes: &[u8]| {
            let mut checked =
                Checked { out: Vec::new(), state: State::Head(HeadReader::default()) };
            bytes.chunks(4096).try_for_each(|piece| checked.write_all(piece))?;
            checked.finish()
        };

        assert!(check(&file).is_ok());
        for bytes in [&file[..file.len() - 1], &file[..200], b"not DICOM", b""] {
            assert!(check(bytes).is_err());
        }
    }
}
