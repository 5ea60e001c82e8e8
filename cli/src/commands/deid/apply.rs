//! `gantry deid apply`: files and folders de-identified by a profile, without a node.
//!
//! What is written has its name from its new UIDs, its File Meta Information anew and its place only when it is whole; what
//! is set aside is not written, and its reason is said. The same input, profile and key give the same files, whatever the
//! number of threads. The report comes last, so a folder that has one is complete. Files are not synced one by one: a crash
//! of the machine may lose the last ones, and the run is then made again.

use std::collections::{HashMap, HashSet};
use std::fs::{self, DirBuilder};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use clap::Args;
use dicom_dictionary_std::tags;
use gantry_deidentify::engine::{Deidentifier, Linkage};
use gantry_deidentify::pixels::mask::Library;
use gantry_deidentify::pixels::ocr::Ocr;
use gantry_deidentify::process::{Protected, Tools};
use gantry_deidentify::profile::Profile;
use gantry_deidentify::report::{KeyOrigin, Received, References, Report, Run, Tally};
use gantry_deidentify::seal::Recipient;
use gantry_gateway::protect::codec::Transcoder;
use gantry_gateway::web::part10::{self, FileMeta};
use gantry_store::facts::Digest;
use indicatif::ProgressBar;
use jiff::Timestamp;
use serde::Serialize;

use super::input::{Input, NotRead};
use super::new_file::{Work, search};
use super::{profiles, project_key};
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::words;

/// De-identify files and folders by a profile
///
/// Needs no node and no configuration. Writes TO/<study>/<series>/<instance>.dcm, named after the new UIDs, and a report of
/// what was done. What must not leave is set aside: it is not written, and the reason is said. A crash of the machine may lose
/// the last files; the report is written last, so without it make the run again. Ends with 0 when all was done, 6 when some
/// was set aside, 10 when all was, by safety rules, and 1 when nothing was done.
#[derive(Args, Debug)]
#[command(before_help = "\
Examples:
  gantry deid apply study/ --profile research --key lung.key --to out
  gantry deid apply ct.dcm --profile teaching --unlinked-studies --to out
  gantry deid apply study/ --profile research --key lung.key --seal-to ig-lead.crt --to out")]
pub(super) struct Apply {
    /// Files, and folders to search through
    #[arg(required = true, value_name = "FILE|FOLDER")]
    paths: Vec<PathBuf>,
    /// The profile: one that comes with the program, or a file
    #[arg(long, value_name = "NAME|FILE")]
    profile: String,
    /// The folder to write to, made if it is not there, for its owner only
    #[arg(long, value_name = "FOLDER")]
    to: PathBuf,
    /// The project key, so that the same patients get the same pseudonyms again; see `gantry deid key`
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Link nothing beyond one study: each has pseudonyms and dates of its own (`anonymise` in a configuration)
    #[arg(long, alias = "anonymise")]
    unlinked_studies: bool,
    /// A certificate whose holder can put the identities back; may be given again
    #[arg(long, value_name = "CERT")]
    seal_to: Vec<PathBuf>,
    /// Masks for burned-in text, asked before the profile's and the built-in ones; may be given again
    #[arg(long, value_name = "FILE")]
    masks: Vec<PathBuf>,
    /// Where the report goes, as .html or .json; may be given again [default: TO/report.html and TO/report.json]
    #[arg(long, value_name = "FILE")]
    report: Vec<PathBuf>,
    /// Write into a folder that holds something, over files that are there
    #[arg(long)]
    force: bool,
    /// Files at once [default: one a processor]
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
}

/// For whoever wrote masks that are not understood.
const MASKS_EXAMPLE: &str = "masks look like this:
  schema = 1
  [[mask]]
  id = \"sound-5-top\"
  when = { modality = \"US\", manufacturer = \"Sample Sound*\", rows = 480, columns = 640 }
  boxes = [[0, 0, 640, 56]]            # x, y, width, height
  verified-by = \"medical physics\"
  verified-on = \"2026-03-01\"";

/// What `deid apply --json` prints. Names of files are those that were given; they do not stand in the report.
#[derive(Serialize)]
struct Summary {
    schema: u32,
    folder: PathBuf,
    profile: String,
    linkage: &'static str,
    key_fingerprint: String,
    key_kept: bool,
    objects: u64,
    written: u64,
    repeated: u64,
    set_aside: Vec<SetAsideFile>,
    directories: Vec<PathBuf>,
    not_dicom: Vec<PathBuf>,
    references: References,
    reports: Vec<PathBuf>,
}

#[derive(Clone, Serialize)]
struct SetAsideFile {
    number: u64,
    file: PathBuf,
    reason: String,
}

/// Who claims which SOP Instance UID of the result.
type Claims = HashMap<String, Claim>;

/// Who claims a SOP Instance UID.
struct Claim {
    /// What the first one that came is written as.
    name: String,
    /// Who came first, and wrote it.
    holder: usize,
    /// Whoever came later, with the digest of what it would write.
    others: Vec<(usize, Digest)>,
}

/// What all threads share.
struct Shared<'a> {
    deidentifier: &'a Deidentifier,
    tools: &'a Tools,
    work: &'a [Work],
    to: &'a Path,
    /// Places in the input whose SOP Instance UID another file has, with other content.
    losers: HashSet<usize>,
    bar: &'a ProgressBar,
    claims: Mutex<Claims>,
    told: Mutex<Told>,
    next: AtomicUsize,
}

/// What became of the files so far.
struct Told {
    tally: Tally,
    set_aside: Vec<SetAsideFile>,
    directories: Vec<PathBuf>,
    not_dicom: Vec<PathBuf>,
}

/// What panicked has ended the program's work anyway.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn run(arguments: &Apply, output: Output) -> Result<Exit, Failure> {
    let reports = reports(arguments)?;
    let named = profiles::load(&arguments.profile, output)?;
    let recipients = recipients(&arguments.seal_to)?;
    let masks = masks(&arguments.masks, &named)?;
    let work = search(&arguments.paths, &arguments.to)?;
    open_folder(&arguments.to, arguments.force)?;
    let key = project_key::of(arguments.key.as_deref(), output)?;
    let linkage = if arguments.unlinked_studies { Linkage::Study } else { Linkage::Project };
    let tools = tools(&named.profile, masks, recipients, output);
    let deidentifier = Deidentifier::new(named.profile, key, linkage);

    let told = all(arguments, &deidentifier, &tools, &work, output)?;

    let key_file = arguments.key.as_ref().map(|path| path.display().to_string());
    let report = told.tally.finish(&Run {
        deidentifier: &deidentifier,
        key: key_file.as_deref().map_or(KeyOrigin::Fresh, KeyOrigin::File),
        recipients: &tools.recipients,
        ocr: tools.ocr.as_ref().map(|ocr| format!("tesseract {}", ocr.version())),
        at: Timestamp::now(),
        directories: told.directories.len() as u64,
        not_dicom: told.not_dicom.len() as u64,
    });
    for path in &reports {
        write_report(&report, path)?;
    }
    let exit = exit(&report);
    let summary = Summary {
        schema: 1,
        folder: arguments.to.clone(),
        profile: deidentifier.profile().reference(),
        linkage: report.linkage.word,
        key_fingerprint: report.key.fingerprint.clone(),
        key_kept: report.key.kept,
        objects: report.counts.objects,
        written: report.counts.written,
        repeated: report.counts.repeated,
        set_aside: told.set_aside,
        directories: told.directories,
        not_dicom: told.not_dicom,
        references: report.references,
        reports,
    };
    print(&summary, output)?;
    Ok(exit)
}

/// How it ended, for scripts.
fn exit(report: &Report) -> Exit {
    let counts = &report.counts;
    match (counts.written, counts.set_aside) {
        (0, 0) => Exit::NotFound,
        (_, 0) => Exit::Done,
        (0, aside) if aside == counts.set_aside_by_rule => Exit::Unsafe,
        (0, _) => Exit::Failed,
        _ => Exit::Partly,
    }
}

fn print(summary: &Summary, output: Output) -> Result<(), Failure> {
    if output.is_json() {
        return output.json(summary);
    }
    output.line(format_args!(
        "{} written, {} set aside, in {} ({}, key {})",
        words::count(summary.written, "object", "objects"),
        summary.set_aside.len(),
        summary.folder.display(),
        summary.linkage,
        summary.key_fingerprint
    ))?;
    if summary.repeated > 0 {
        let repeated = words::count(summary.repeated, "file was", "files were");
        output.say(format_args!("{repeated} there again, with the same result"));
    }
    let references = &summary.references;
    let inside = references.to_written + references.to_set_aside + references.broken;
    if inside > 0 {
        output.say(format_args!(
            "references: {} between these objects, of which {} lead to what was set aside and {} to nothing",
            inside, references.to_set_aside, references.broken
        ));
    }
    if summary.objects == 0 {
        output.say("there was no DICOM file");
    }
    for report in &summary.reports {
        output.say(format_args!("report: {}", report.display()));
    }
    Ok(())
}

/// Where the report goes.
fn reports(arguments: &Apply) -> Result<Vec<PathBuf>, Failure> {
    if arguments.report.is_empty() {
        return Ok(vec![arguments.to.join("report.html"), arguments.to.join("report.json")]);
    }
    for path in &arguments.report {
        if !matches!(extension(path).as_str(), "html" | "json") {
            let message = format!("cannot tell how to write the report {}", path.display());
            return Err(
                Failure::new(Exit::Usage, message).hint("let its name end with .html or .json")
            );
        }
        // Found out before the work rather than after it.
        let folder = parent(path);
        if !folder.is_dir() && folder != arguments.to {
            let message = format!("there is no folder {} for the report", folder.display());
            return Err(Failure::new(Exit::Usage, message).hint("make it, or name another one"));
        }
        if path.exists() && !arguments.force {
            let message = format!("{} is there already", path.display());
            return Err(Failure::new(Exit::Usage, message)
                .hint("name another file, or write over it with --force"));
        }
    }
    Ok(arguments.report.clone())
}

/// The folder that a file is in.
fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn extension(path: &Path) -> String {
    path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase()
}

fn write_report(report: &Report, path: &Path) -> Result<(), Failure> {
    let failed = |error: &io::Error| Failure::of_file("write", path, error);
    let text = if extension(path) == "json" {
        serde_json::to_string_pretty(report).map_err(|error| failed(&error.into()))? + "\n"
    } else {
        report.to_html()
    };
    let parent = parent(path);
    let write = || {
        let mut file = tempfile::Builder::new().prefix(".gantry-").tempfile_in(parent)?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)
    };
    write().map(drop).map_err(|error| failed(&error))
}

fn recipients(paths: &[PathBuf]) -> Result<Vec<Recipient>, Failure> {
    let mut recipients = Vec::new();
    for path in paths {
        let bytes = fs::read(path).map_err(|error| Failure::of_file("read", path, &error))?;
        let read = Recipient::from_pem_or_der(&bytes, Timestamp::now()).map_err(|error| {
            Failure::new(Exit::Usage, format_args!("cannot seal to {}: {error}", path.display()))
                .hint("name an RSA certificate of somebody who may put identities back")
        })?;
        recipients.extend(read);
    }
    Ok(recipients)
}

/// The masks that were named, then the profile's, then the built-in ones.
pub(super) fn masks(paths: &[PathBuf], named: &profiles::Named) -> Result<Library, Failure> {
    let of_profile = named.profile.pixels.masks.iter().map(|path| named.folder.join(path));
    let mut library = Library::default();
    for path in paths.iter().cloned().chain(of_profile) {
        let text =
            fs::read_to_string(&path).map_err(|error| Failure::of_file("read", &path, &error))?;
        let read = Library::parse(&text).map_err(|error| {
            Failure::new(Exit::Usage, format_args!("cannot use {}: {error}", path.display()))
                .hint(MASKS_EXAMPLE)
        })?;
        library = library.then(read);
    }
    Ok(library.then(Library::built_in()))
}

/// What pixels are treated with.
pub(super) fn tools(
    profile: &Profile,
    masks: Library,
    recipients: Vec<Recipient>,
    output: Output,
) -> Tools {
    let ocr = if profile.pixels.ocr { Ocr::find() } else { None };
    if profile.pixels.ocr && ocr.is_none() {
        output.say(
            "note: tesseract is not installed, so nobody looks for text in pixels; the report says so",
        );
    }
    Tools { codec: Some(Arc::new(Transcoder)), masks, ocr, recipients }
}

/// Makes the folder, which must be empty unless that was waived.
fn open_folder(path: &Path, force: bool) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::of_file("make", path, &error);
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
    let mut entries = fs::read_dir(path).map_err(failed)?;
    if !force && entries.next().is_some() {
        let message = format!("{} holds something already", path.display());
        return Err(Failure::new(Exit::Usage, message)
            .hint("name another folder, or write over files of the same names with --force"));
    }
    Ok(())
}

/// All files, on as many threads as asked for. Where two files have one SOP Instance UID and different content, the first
/// one of the input has it; that is known when all were read, and then the run is made again without the other ones, so
/// that the report and the files do not depend on which thread was faster.
fn all(
    arguments: &Apply,
    deidentifier: &Deidentifier,
    tools: &Tools,
    work: &[Work],
    output: Output,
) -> Result<Told, Failure> {
    let pool =
        rayon::ThreadPoolBuilder::new().num_threads(arguments.jobs.unwrap_or(0)).build().map_err(
            |error| Failure::new(Exit::Failed, format_args!("cannot start threads: {error}")),
        )?;
    let bar = output.bar(work.len() as u64, "De-identifying");
    let mut losers = HashSet::new();
    loop {
        let shared = Shared {
            deidentifier,
            tools,
            work,
            to: &arguments.to,
            losers: losers.clone(),
            bar: &bar,
            claims: Mutex::default(),
            told: Mutex::new(Told {
                tally: Tally::new(deidentifier.profile()),
                set_aside: Vec::new(),
                directories: Vec::new(),
                not_dicom: Vec::new(),
            }),
            next: AtomicUsize::new(0),
        };
        // In the order of the input, so that objects of a series come near each other: what they share is kept at hand.
        pool.broadcast(|_| {
            loop {
                let at = shared.next.fetch_add(1, Ordering::Relaxed);
                let Some(work) = shared.work.get(at) else { return };
                shared.one(at, work);
                shared.bar.inc(1);
                shared.bar.set_message(format!("{:.0}/s", shared.bar.per_sec()));
            }
        });
        let claims = std::mem::take(&mut *lock(&shared.claims));
        let Contested { losers: found, written, repeated } =
            contested(claims, |holder| shared.digest(holder))?;
        if found.is_empty() {
            bar.finish_and_clear();
            let mut told = shared.told.into_inner().unwrap_or_else(PoisonError::into_inner);
            (0..repeated).for_each(|_| told.tally.repeated());
            told.set_aside.sort_by_key(|one| one.number);
            told.directories.sort();
            told.not_dicom.sort();
            say(&told, output);
            return Ok(told);
        }
        for name in written {
            // Whoever wins may belong to another series. It is not there where it could not be written.
            match fs::remove_file(arguments.to.join(&name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Failure::of_file("remove", &arguments.to.join(name), &error));
                }
                _ => {}
            }
        }
        losers.extend(found);
        bar.reset();
    }
}

/// SOP Instance UIDs that more than one file has.
#[derive(Debug, Default, Eq, PartialEq)]
struct Contested {
    /// Places of files whose SOP Instance UID an earlier one has with other content.
    losers: Vec<usize>,
    /// What was written under those UIDs.
    written: Vec<String>,
    /// Files that would only have written again what is there.
    repeated: usize,
}

/// `digest` tells what somebody wrote; it is asked for those only who have company, as it costs as much as all else.
fn contested(
    claims: Claims,
    digest: impl Fn(usize) -> Result<Digest, Failure>,
) -> Result<Contested, Failure> {
    let mut contested = Contested::default();
    for Claim { name, holder, mut others } in claims.into_values() {
        if others.is_empty() {
            continue;
        }
        others.push((holder, digest(holder)?));
        others.sort_unstable_by_key(|(at, _)| *at);
        let Some((_, first)) = others.first().copied() else { continue };
        let losers: Vec<_> =
            others.iter().filter(|(_, digest)| *digest != first).map(|(at, _)| *at).collect();
        contested.repeated += others.len() - 1 - losers.len();
        if !losers.is_empty() {
            contested.written.push(name);
        }
        contested.losers.extend(losers);
    }
    Ok(contested)
}

/// What was left out, with the names of the files.
fn say(told: &Told, output: Output) {
    for aside in &told.set_aside {
        output.say(format_args!("set aside: {}: {}", aside.file.display(), aside.reason));
    }
    for path in &told.directories {
        output.say(format_args!("left out: {}: {}", path.display(), NotRead::Directory));
    }
    for path in &told.not_dicom {
        output.say(format_args!("left out: {}: not a DICOM file", path.display()));
    }
}

impl Shared<'_> {
    fn one(&self, at: usize, work: &Work) {
        let number = at as u64 + 1;
        let input = match Input::open(&work.from) {
            Ok(input) => input,
            Err(NotRead::Directory) => {
                return lock(&self.told).directories.push(work.from.clone());
            }
            Err(NotRead::Other(_)) if !work.named => {
                return lock(&self.told).not_dicom.push(work.from.clone());
            }
            Err(why) => {
                let received = Received { number, ..Received::default() };
                return self.aside(work, &received, why.to_string(), false);
            }
        };
        if self.losers.contains(&at) {
            let reason =
                "another file has the same SOP Instance UID with other content, and came first";
            return self.aside(work, &received(number, &input), reason.to_owned(), false);
        }
        let object = match self.deidentifier.process(
            &input.data_set,
            &input.meta.transfer_syntax,
            self.tools,
        ) {
            Ok(object) => object,
            Err(why) => {
                let received = received(number, &input);
                let mut told = lock(&self.told);
                told.tally.set_aside(self.deidentifier, &received, &why);
                let (file, reason) = (work.from.clone(), why.to_string());
                return told.set_aside.push(SetAsideFile { number, file, reason });
            }
        };
        let Some(name) = name(&object) else {
            let reason = "its UIDs cannot be names of files".to_owned();
            return self.aside(work, &received(number, &input), reason, false);
        };
        let uid = object.made.sop_instance.1.clone();
        let holder = lock(&self.claims)
            .entry(uid.clone())
            .or_insert_with(|| Claim { name: name.clone(), holder: at, others: Vec::new() })
            .holder;
        let done = if holder == at {
            self.write(&name, &object, &input)
        } else {
            // Whose it is is settled when all came.
            object.digest(&input.data_set).map(|digest| {
                if let Some(claim) = lock(&self.claims).get_mut(&uid) {
                    claim.others.push((at, digest));
                }
            })
        };
        match done {
            Ok(()) if holder == at => {
                lock(&self.told).tally.written(self.deidentifier, &object, &name);
            }
            Ok(()) => {}
            Err(error) => {
                let reason = format!("it cannot be written: {}", error.kind());
                self.aside(work, &received(number, &input), reason, false);
            }
        }
    }

    /// Of what the file at this place in the input becomes, which was made before.
    fn digest(&self, at: usize) -> Result<Digest, Failure> {
        let path = self.work.get(at).map_or(Path::new(""), |work| work.from.as_path());
        let failed = |why: &dyn std::fmt::Display| {
            let message = format!("{} cannot be read a second time: {why}", path.display());
            Failure::new(Exit::Failed, message)
                .hint("let nobody change the files, and run it again")
        };
        let input = Input::open(path).map_err(|why| failed(&why))?;
        let object = self
            .deidentifier
            .process(&input.data_set, &input.meta.transfer_syntax, self.tools)
            .map_err(|why| failed(&why))?;
        object.digest(&input.data_set).map_err(|error| failed(&error.kind()))
    }

    fn aside(&self, work: &Work, received: &Received, reason: String, by_rule: bool) {
        let mut told = lock(&self.told);
        told.tally.set_aside_because(self.deidentifier, received, reason.clone(), by_rule);
        told.set_aside.push(SetAsideFile {
            number: received.number,
            file: work.from.clone(),
            reason,
        });
    }

    fn write(&self, name: &str, object: &Protected, input: &Input) -> io::Result<()> {
        let path = self.to.join(name);
        let parent = path.parent().unwrap_or(self.to);
        DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
        let mut file = tempfile::Builder::new().prefix(".gantry-").tempfile_in(parent)?;
        let head = part10::head(&FileMeta {
            transfer_syntax: object.transfer_syntax.clone(),
            sop_class: object.made.sop_class.parse().ok(),
            sop_instance: object.made.sop_instance.1.parse().ok(),
        });
        let out = file.as_file_mut();
        out.write_all(&head)?;
        // What comes is whole, or in pieces of the size that files are read in.
        object.write(&input.data_set, &mut |bytes| out.write_all(bytes))?;
        file.persist(&path).map(drop).map_err(|error| error.error)
    }
}

/// `<study>/<series>/<instance>.dcm`, of the UIDs of the result; none where one of them could lead elsewhere.
fn name(object: &Protected) -> Option<String> {
    let made = &object.made;
    let series = made.data_set.text(tags::SERIES_INSTANCE_UID)?;
    let series = series.trim_end_matches('\0');
    let parts = [&made.study.1, series, &made.sop_instance.1];
    let is_name = |uid: &&str| {
        let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        uid.len() <= 64 && uid.split('.').all(is_number)
    };
    parts.iter().all(is_name).then(|| format!("{}.dcm", parts.join("/")))
}

/// What is known of an object that is set aside.
fn received(number: u64, input: &Input) -> Received {
    let Ok(parsed) = input.parsed() else {
        let meta = &input.meta;
        return Received {
            number,
            sop_class: meta.sop_class.as_ref().map(|uid| uid.as_str().to_owned()),
            sop_instance: meta.sop_instance.as_ref().map(|uid| uid.as_str().to_owned()),
            study: None,
        };
    };
    let uid = |tag| {
        let text = parsed.data_set.text(tag)?;
        let text = text.trim_end_matches('\0');
        let is_uid = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        is_uid.then(|| text.to_owned())
    };
    Received {
        number,
        sop_class: uid(tags::SOP_CLASS_UID),
        sop_instance: uid(tags::SOP_INSTANCE_UID),
        study: uid(tags::STUDY_INSTANCE_UID),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_contents_under_one_uid_the_first_of_the_input_wins_whoever_was_faster() {
        let (one, other) = (Digest([1; 32]), Digest([2; 32]));
        let of = |by: &[(usize, Digest)]| {
            let [(holder, digest), others @ ..] = by else { panic!("nobody claims it") };
            let claim = Claim { name: "a.dcm".to_owned(), holder: *holder, others: others.into() };
            let claims = [("2.25.1".to_owned(), claim)].into_iter().collect();
            contested(claims, |asked| {
                assert_eq!(asked, *holder);
                Ok(*digest)
            })
            .unwrap()
        };
        for order in [[(3, one), (1, other), (2, one)], [(2, one), (3, one), (1, other)]] {
            let found = of(&order);
            assert_eq!((found.losers, found.written), (vec![2, 3], vec!["a.dcm".to_owned()]));
        }
        assert_eq!(of(&[(2, one), (3, one)]), Contested { repeated: 1, ..Contested::default() });
        assert_eq!(of(&[(2, one)]), Contested::default());
    }
}
