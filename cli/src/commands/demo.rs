//! `gantry demo`: two trusts on this machine, and an emergency study that goes from one to the other.
//!
//! Everything is what a real installation has: two nodes with their files, certificates of one authority, mutual TLS
//! between them, a scanner that sends by C-STORE. What is claimed at the end is looked up at the far end: every image, by
//! the SHA-256 of what the scanner sent. Log lines go to a file, and the folder goes when the demonstration ends, unless
//! something went wrong or `--keep` asked for it.

mod chaos;
mod research;
mod scanner;
mod trusts;

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Args;
use gantry_gateway::config::Log;
use gantry_store::dicom::StudyInstanceUid;
use gantry_store::facts::Digest;
use gantry_store::index::{Index, TransferFilter, TransferSummary};
use indicatif::{MultiProgress, ProgressBar};
use jiff::Timestamp;
use sample_studies::{HeadCt, Instance};
use serde::Serialize;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use self::trusts::{EMERGENCY, SCANNER, Trust, Trusts};
use crate::exit::{Exit, Failure};
use crate::output::{Output, Paint, unseen_bar};
use crate::signals::Signals;
use crate::words;

/// How often the index is asked how far it is.
const LOOK: Duration = Duration::from_millis(50);
/// How long nothing may move before it is given up.
const STALLED: Duration = Duration::from_secs(30);
/// How long the nodes may take to stop.
const GRACE: Duration = Duration::from_secs(5);

/// See it work: two trusts on this machine
///
/// Starts a district hospital and a tertiary centre, with their own certificates and mutual TLS between them. A scanner
/// sends a CT of the head as an emergency to the one, which sends it on to the other while it is still coming in. Then
/// every image is looked up at the far end and compared by its SHA-256. Needs no configuration and leaves nothing behind.
#[derive(Args, Debug)]
#[command(before_help = "\
Examples:
  gantry demo                                 stays up until Ctrl-C, with the pages of both
  gantry demo --once                          ends after the check; exit code 0 if every image arrived unchanged
  gantry demo --once --json | jq .timings_ms
  gantry demo --chaos --once                  a centre is killed in the middle of a study, and nothing is lost
  gantry demo --research --once               a university gets a study, and nobody's name")]
pub(crate) struct Arguments {
    /// End after the check
    #[arg(long)]
    once: bool,
    /// Show failures: a second centre dies in the middle and comes back, and an emergency overtakes
    #[arg(long)]
    chaos: bool,
    /// Show research: a study goes to a university pseudonymised, and what may show a name stays here
    #[arg(long, conflicts_with = "chaos")]
    research: bool,
    /// Keep the trusts' files here
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// How many thin slices the study has; 240 are the whole examination
    #[arg(long, hide = true, default_value_t = 240, value_name = "N")]
    thin_slices: u32,
}

impl Arguments {
    /// Pages on ports that people remember; a check that runs beside others takes what the kernel gives.
    fn web(&self, output: Output) -> [u16; 2] {
        if self.once || output.is_json() { [0, 0] } else { [8080, 8081] }
    }
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    /// Every image is there unchanged, and nothing waits.
    ok: bool,
    instances: u64,
    /// Bytes of their data sets.
    bytes: u64,
    timings_ms: Timings,
    /// Images at the far end whose SHA-256 is that of what the scanner sent.
    digests_verified: u64,
    /// What does not add up, in words; empty if all is well.
    faults: Vec<String>,
    nodes: Vec<NodeReport>,
}

/// Milliseconds from when the scanner began to connect.
#[derive(Debug, Serialize)]
struct Timings {
    first_acknowledged: u64,
    first_at_partner: Option<u64>,
    last_acknowledged: u64,
    last_delivered: Option<u64>,
    verified: u64,
}

#[derive(Debug, Serialize)]
struct NodeReport {
    name: &'static str,
    ae_title: &'static str,
    config: PathBuf,
    listeners: Vec<String>,
    web: Option<String>,
    sign_in_link: Option<String>,
}

impl From<&Trust> for NodeReport {
    fn from(trust: &Trust) -> Self {
        Self {
            name: trust.name.display,
            ae_title: trust.name.ae_title,
            config: trust.config.clone(),
            listeners: trust
                .node
                .listeners
                .iter()
                .map(|(_, address)| address.to_string())
                .collect(),
            web: trust.node.web.clone(),
            sign_in_link: trust.node.sign_in_link(),
        }
    }
}

/// The folder that everything is in.
enum Folder {
    Temporary(TempDir),
    Kept(PathBuf),
}

impl Folder {
    fn path(&self) -> &Path {
        match self {
            Self::Temporary(folder) => folder.path(),
            Self::Kept(folder) => folder,
        }
    }
}

pub(crate) async fn run(arguments: Arguments, output: Output) -> Result<Exit, Failure> {
    let mut signals = Signals::new()?;
    let folder = folder(arguments.keep.as_deref())?;
    let log = folder.path().join("demo.log");
    log_to(&log)?;
    let ended = tokio::select! {
        ended = story(&arguments, folder.path(), output) => ended,
        _ = signals.next() => {
            output.say("interrupted");
            return Ok(Exit::Interrupted);
        }
    };
    let trusts = match ended {
        Ok(Shown { trusts, ok: true }) => trusts,
        Ok(Shown { trusts, ok: false }) => {
            stop(trusts).await;
            let _ = keep(folder);
            return Err(Failure::new(Exit::Failed, "the demonstration did not go as it should")
                .hint(format_args!("the log says why: {}", log.display())));
        }
        Err(failure) if failure.message.is_some() => {
            let _ = keep(folder);
            let log = format!("the log says more: {}", log.display());
            let hint = failure.hint.as_ref().map_or(log.clone(), |hint| format!("{hint}; {log}"));
            return Err(failure.hint(hint));
        }
        Err(failure) => return Err(failure),
    };
    if !arguments.once {
        signals.next().await;
        // The terminal has just written ^C.
        output.say("");
    }
    stop(trusts).await;
    Ok(Exit::Done)
}

fn folder(keep: Option<&Path>) -> Result<Folder, Failure> {
    if let Some(path) = keep {
        let there = fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some());
        if there {
            return Err(Failure::new(Exit::Usage, format_args!("{} is not empty", path.display()))
                .hint("name a folder that is not there yet"));
        }
        fs::create_dir_all(path).map_err(|error| Failure::of_file("make", path, &error))?;
        let path = path.canonicalize().map_err(|error| Failure::of_file("use", path, &error))?;
        return Ok(Folder::Kept(path));
    }
    let made = tempfile::Builder::new().prefix("gantry-demo-").tempdir();
    made.map(Folder::Temporary)
        .map_err(|error| Failure::of_file("make a folder in", &std::env::temp_dir(), &error))
}

fn keep(folder: Folder) -> PathBuf {
    match folder {
        Folder::Temporary(folder) => folder.keep(),
        Folder::Kept(folder) => folder,
    }
}

/// What the nodes log goes to a file: the terminal is for the story.
fn log_to(path: &Path) -> Result<(), Failure> {
    let file = File::create(path).map_err(|error| Failure::of_file("write", path, &error))?;
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(Log::default().level)
        .with_ansi(false)
        .with_target(false)
        .with_writer(Arc::new(file));
    // One that is there already (there is none in this program) would do as well.
    let _ = subscriber.try_init();
    Ok(())
}

async fn stop(trusts: Trusts) {
    tokio::join!(trusts.district.node.stop(GRACE), trusts.centre.node.stop(GRACE));
}

/// What is left of the story when it has been told.
struct Shown {
    trusts: Trusts,
    ok: bool,
}

async fn story(arguments: &Arguments, folder: &Path, output: Output) -> Result<Shown, Failure> {
    if arguments.chaos {
        return chaos::show(arguments, folder, output).await;
    }
    if arguments.research {
        return Box::pin(research::show(arguments, folder, output)).await;
    }
    show(arguments, folder, output).await
}

async fn show(arguments: &Arguments, folder: &Path, output: Output) -> Result<Shown, Failure> {
    let text = !output.is_json();
    let web = arguments.web(output);
    let trusts = Trusts::two(folder, web).await?;
    if text {
        introduce(&trusts, output)?;
    }

    let study = HeadCt { thin_slices: arguments.thin_slices, ..HeadCt::new(seed()) };
    let instances = build(study, output).await?;
    let bytes: u64 = instances.iter().map(|instance| instance.data_set.len() as u64).sum();
    let count = instances.len() as u64;
    if text {
        output.line(format_args!(
            "A patient on apixaban fell down the stairs. The scanner sends the CT of the head to {EMERGENCY}:\n\
             {count} images, {}.\n",
            words::bytes(bytes)
        ))?;
    }

    let plain = trusts.district.plain_listener();
    let to =
        plain.ok_or_else(|| Failure::new(Exit::Failed, "the scanner's listener is not there"))?;
    let began = Timestamp::now();
    let heard = Acknowledged::default();
    let transfer = transfer(&trusts, to, &instances, &heard, began, output).await?;
    let mut faults = compare(trusts.centre.node.index(), &instances).await?;
    faults.texts.extend(books(&trusts, count, 1).await?);
    let timings = Timings {
        first_acknowledged: heard.first.load(Ordering::Relaxed),
        first_at_partner: since(began, transfer.first_sent_at),
        last_acknowledged: heard.last.load(Ordering::Relaxed),
        last_delivered: since(began, transfer.last_sent_at),
        verified: milliseconds(began, Timestamp::now()),
    };
    let report = Report {
        ok: faults.texts.is_empty() && faults.verified == count,
        instances: count,
        bytes,
        timings_ms: timings,
        digests_verified: faults.verified,
        faults: faults.texts,
        nodes: vec![(&trusts.district).into(), (&trusts.centre).into()],
    };
    if text {
        tell(&report, arguments.once, output)?;
    } else {
        output.json(&report)?;
    }
    Ok(Shown { trusts, ok: report.ok })
}

fn introduce(trusts: &Trusts, output: Output) -> Result<(), Failure> {
    output.line(output.paint(Paint::Bold, "Two trusts on this machine"))?;
    for trust in [&trusts.district, &trusts.centre] {
        let Trust { name, node, .. } = trust;
        let tls = node.listeners.iter().find(|(name, _)| !name.ends_with(":0"));
        let tls = tls.map(|(_, address)| format!("DICOM over mutual TLS on {address}"));
        output.line(format_args!(
            "  {:<28} {:<10} {}",
            name.display,
            name.ae_title,
            tls.unwrap_or_default()
        ))?;
        if let Some(plain) = trust.plain_listener() {
            output.line(format_args!(
                "  {:<28} {:<10} for its scanner, {SCANNER}, on {plain}",
                "", ""
            ))?;
        }
    }
    output.line("")
}

/// Another patient each time, so that no image is one that was seen before.
fn seed() -> u64 {
    Timestamp::now().as_millisecond().unsigned_abs()
}

/// Draws the images, which takes longer than sending them.
async fn build(study: HeadCt, output: Output) -> Result<Vec<Instance>, Failure> {
    let bar = output.bar(study.len() as u64, "Drawing the images");
    let shown = bar.clone();
    let drawn =
        tokio::task::spawn_blocking(move || study.instances().inspect(|_| shown.inc(1)).collect())
            .await;
    bar.finish_and_clear();
    drawn.map_err(|error| Failure::because(Exit::Failed, &error))
}

/// Milliseconds until the first and the latest answer to the scanner.
#[derive(Debug, Default)]
struct Acknowledged {
    count: AtomicU64,
    first: AtomicU64,
    last: AtomicU64,
}

impl Acknowledged {
    fn one_more(&self, began: Timestamp) {
        let now = milliseconds(began, Timestamp::now());
        if self.count.fetch_add(1, Ordering::Relaxed) == 0 {
            self.first.store(now, Ordering::Relaxed);
        }
        self.last.store(now, Ordering::Relaxed);
    }
}

/// Lets the scanner send, and watches both ends until the district has nothing more to send.
async fn transfer(
    trusts: &Trusts,
    to: std::net::SocketAddr,
    instances: &[Instance],
    heard: &Acknowledged,
    began: Timestamp,
    output: Output,
) -> Result<TransferSummary, Failure> {
    let bars = MultiProgress::with_draw_target(output.progress_target());
    let bar = |label: &str| bars.add(unseen_bar(instances.len() as u64, label));
    let received = bar("  received at Northmoor      ");
    let arrived = bar("  at the Royal Infirmary     ");
    let sending = scanner::send(to, EMERGENCY, instances, || {
        heard.one_more(began);
        received.set_position(heard.count.load(Ordering::Relaxed));
    });
    let watching = watch(trusts, instances.len() as u64, &arrived);
    let ended = tokio::try_join!(sending, watching);
    for bar in [received, arrived] {
        bar.finish_and_clear();
    }
    ended.map(|((), transfer)| transfer)
}

/// Waits until everything was delivered, or a person would have to act.
async fn watch(trusts: &Trusts, all: u64, bar: &ProgressBar) -> Result<TransferSummary, Failure> {
    let index = trusts.district.node.index();
    let mut moved = (Instant::now(), 0);
    loop {
        let transfer = index
            .transfers(&TransferFilter::default())
            .await
            .map_err(|error| index_failed(&error))?
            .pop();
        let delivered = transfer.as_ref().map_or(0, |transfer| transfer.counts.delivered);
        bar.set_position(delivered);
        if moved.1 != delivered {
            moved = (Instant::now(), delivered);
        }
        match transfer {
            Some(transfer) if delivered >= all || transfer.counts.failed > 0 => {
                return Ok(transfer);
            }
            transfer if moved.0.elapsed() > STALLED => {
                let why = transfer.and_then(|transfer| transfer.problem);
                let why = why.map_or("nothing moved for 30 seconds".to_owned(), |why| why.text);
                return Err(Failure::new(
                    Exit::Failed,
                    format_args!("{delivered} of {all} images delivered: {why}"),
                ));
            }
            _ => sleep(LOOK).await,
        }
    }
}

/// What was found at the far end.
#[derive(Debug, Default)]
struct Found {
    verified: u64,
    texts: Vec<String>,
}

/// Compares what lies at a far end with what the scanner sent there, all of one study.
async fn compare(far: &Index, sent: &[Instance]) -> Result<Found, Failure> {
    let mut found = Found::default();
    let Some(first) = sent.first() else { return Ok(found) };
    let study = first
        .study_instance_uid
        .parse()
        .map_err(|error| Failure::new(Exit::Failed, format_args!("{error}")))?;
    // What was acknowledged there is in the spool; the rows follow.
    let asked = Instant::now();
    let there = loop {
        let there = digests(far, &study).await?;
        if there.len() >= sent.len() || asked.elapsed() > STALLED {
            break there;
        }
        sleep(LOOK).await;
    };
    for instance in sent {
        match there.get(&instance.sop_instance_uid).map(Vec::as_slice) {
            Some([digest]) if *digest == Digest::of(&instance.data_set) => found.verified += 1,
            Some([_]) => found.texts.push(format!("{} arrived changed", instance.sop_instance_uid)),
            Some(_) => found
                .texts
                .push(format!("{} arrived in several versions", instance.sop_instance_uid)),
            None => found.texts.push(format!("{} is missing", instance.sop_instance_uid)),
        }
    }
    if there.len() != sent.len() {
        found.texts.push(format!("{} images are there, {} were sent", there.len(), sent.len()));
    }
    Ok(found)
}

/// What the district's books say against all of it being delivered: so many images to each of its partners.
async fn books(trusts: &Trusts, count: u64, partners: usize) -> Result<Vec<String>, Failure> {
    let books = trusts.district.node.index().conservation().await;
    let books = books.map_err(|error| index_failed(&error))?;
    let mut texts = Vec::new();
    if books.len() != partners {
        texts.push(format!("there are {} partners in the books, and not {partners}", books.len()));
    }
    for partner in books.iter().filter(|books| books.ordered != count || books.delivered != count) {
        texts.push(format!(
            "{}: of {} ordered, {} are delivered, {} wait, {} are set aside",
            partner.partner, partner.ordered, partner.delivered, partner.waiting, partner.set_aside
        ));
    }
    Ok(texts)
}

/// The digests of every version of every image of a study, by SOP Instance UID.
async fn digests(
    index: &Index,
    study: &StudyInstanceUid,
) -> Result<HashMap<String, Vec<Digest>>, Failure> {
    let study = index.study(study).await.map_err(|error| index_failed(&error))?;
    let mut digests: HashMap<_, Vec<_>> = HashMap::new();
    for instance in
        study.into_iter().flat_map(|study| study.series).flat_map(|series| series.instances)
    {
        digests
            .entry(instance.sop_instance_uid.as_str().to_owned())
            .or_default()
            .push(instance.digest);
    }
    Ok(digests)
}

fn index_failed(error: &gantry_store::index::IndexError) -> Failure {
    Failure::because(Exit::Failed, error)
}

fn milliseconds(from: Timestamp, to: Timestamp) -> u64 {
    to.duration_since(from).as_millis().try_into().unwrap_or(0)
}

fn since(began: Timestamp, time: Option<Timestamp>) -> Option<u64> {
    time.map(|time| milliseconds(began, time))
}

/// The timeline, what was found, and what to look at.
fn tell(report: &Report, once: bool, output: Output) -> Result<(), Failure> {
    let Report { timings_ms: timings, instances, .. } = report;
    for (time, what) in [
        (
            Some(timings.first_acknowledged),
            "the first image is safe at Northmoor, and the scanner knows",
        ),
        (timings.first_at_partner, "the first image is at the Royal Infirmary"),
        (Some(timings.last_acknowledged), "the last image is safe at Northmoor"),
        (timings.last_delivered, "the last image is at the Royal Infirmary"),
        (Some(timings.verified), "every image has been compared"),
    ] {
        if let Some(time) = time {
            output.line(format_args!("  {:>7.3} s  {what}", time as f64 / 1000.0))?;
        }
    }
    output.line("")?;
    if report.ok {
        let good = output.paint(Paint::Green, "✓");
        output.line(format_args!(
            "  {good} {instances} of {instances} images arrived, each bit for bit as the scanner sent it (SHA-256)"
        ))?;
        output.line(format_args!("  {good} nothing waits, and nothing was set aside"))?;
    } else {
        let bad = output.paint(Paint::Red, "✗");
        output.line(format_args!(
            "  {bad} {} of {instances} images arrived unchanged",
            report.digests_verified
        ))?;
        for fault in report.faults.iter().take(5) {
            output.line(format_args!("  {bad} {fault}"))?;
        }
        if report.faults.len() > 5 {
            output.line(format_args!("    and {} more", report.faults.len() - 5))?;
        }
    }
    if once || !report.ok {
        return Ok(());
    }
    tell_where(&report.nodes, output)
}

/// What to look at, while it stays up.
fn tell_where(nodes: &[NodeReport], output: Output) -> Result<(), Failure> {
    output.line("")?;
    output.line(format_args!(
        "{} (each link signs one browser in)",
        output.paint(Paint::Bold, "Look at the pages")
    ))?;
    for node in nodes {
        if let Some(link) = &node.sign_in_link {
            output.line(format_args!("  {:<28} {link}", node.name))?;
        }
    }
    output.line("")?;
    output.line(format_args!("{} (in another terminal)", output.paint(Paint::Bold, "Or ask")))?;
    if let [district, centre, ..] = nodes {
        for (node, command) in
            [(district, "transfer list"), (district, "status"), (centre, "study list")]
        {
            output.line(format_args!(
                "  {} --config {} {command}",
                super::program(),
                node.config.display()
            ))?;
        }
    }
    output.line("")?;
    output.line(output.paint(Paint::Dim, "Ctrl-C ends them."))
}

#[cfg(test)]
mod tests {
    use super::trusts::{CENTRE, DISTRICT};
    use super::*;

    #[test]
    fn the_two_trusts_do_not_exist() {
        // 01632 960 is the range that Ofcom keeps for stories.
        assert!(DISTRICT.display != CENTRE.display && DISTRICT.ae_title != CENTRE.ae_title);
        for name in [DISTRICT.ae_title, CENTRE.ae_title, SCANNER, EMERGENCY] {
            assert!(name.parse::<gantry_store::dicom::AeTitle>().is_ok(), "{name}");
        }
    }
}
