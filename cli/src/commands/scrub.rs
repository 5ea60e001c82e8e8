//! `gantry scrub …`: reading again all that is kept, and what was found.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Global;
use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::words;

/// Whether all that is kept is whole
///
/// The node reads every stored image again, slowly, and compares it with its digest and with the index. What has drifted
/// is mended where a whole copy is at hand; the rest is for a person.
#[derive(Args, Debug)]
#[command(subcommand_required = true, arg_required_else_help = true)]
#[command(before_help = "\
Examples:
  gantry scrub status
  gantry scrub start && gantry status")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Status(Status),
    Start(Start),
}

/// How far it came, what was wrong, and what to do
///
/// Exit code 0 says that nothing is left for a person to see to, 1 that something is.
#[derive(Args, Debug)]
#[command(before_help = "\
Examples:
  gantry scrub status
  gantry scrub status --json | jq '.findings[] | select(.mended | not)'")]
struct Status {}

/// Begin a round now; one that waits goes on
#[derive(Args, Debug)]
#[command(before_help = "Example:\n  gantry scrub start")]
struct Start {}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
struct Count {
    mended: u64,
    unresolved: u64,
}

#[derive(Debug, Deserialize, Serialize)]
struct Round {
    begun_at: Timestamp,
    ended_at: Option<Timestamp>,
    verified: u64,
    bytes: u64,
    removed: u64,
    counts: BTreeMap<String, Count>,
}

#[derive(Debug, Deserialize, Serialize)]
struct Waiting {
    why: String,
    since: Timestamp,
    next_try: Timestamp,
}

#[derive(Debug, Deserialize, Serialize)]
struct Finding {
    object: String,
    study: Option<String>,
    kind: String,
    why: String,
    mended: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

/// What `scrub status --json` prints.
#[derive(Debug, Deserialize, Serialize)]
struct Report {
    every_seconds: Option<u64>,
    rate: u64,
    next_at: Option<Timestamp>,
    waiting: Option<Waiting>,
    current: Option<Round>,
    last: Option<Round>,
    unresolved: BTreeMap<String, u64>,
    findings: Vec<Finding>,
}

/// What `scrub start --json` prints.
#[derive(Debug, Deserialize, Serialize)]
struct Begun {
    new: bool,
    begun_at: Timestamp,
}

#[derive(Serialize)]
struct Nothing {}

pub(crate) async fn run(
    arguments: &Arguments,
    global: &Global,
    output: Output,
) -> Result<Exit, Failure> {
    let (config, _) = super::load_config(global, output)?;
    let mut node = Client::connect(&config).await?;
    match arguments.command {
        Command::Status(Status {}) => status(&mut node, output).await,
        Command::Start(Start {}) => start(&mut node, output).await,
    }
}

async fn start(node: &mut Client, output: Output) -> Result<Exit, Failure> {
    let begun: Begun = node.post("/api/v1/scrub/start", &Nothing {}).await?;
    if output.is_json() {
        output.json(&begun)?;
        return Ok(Exit::Done);
    }
    if begun.new {
        output.line("a round has begun")?;
    } else {
        let age = words::age(begun.begun_at, Timestamp::now());
        output.line(format_args!("the round that began {age} ago goes on"))?;
    }
    output.say("`gantry scrub status` shows how far it came and what it found");
    Ok(Exit::Done)
}

async fn status(node: &mut Client, output: Output) -> Result<Exit, Failure> {
    let report: Report = node.get("/api/v1/scrub").await?;
    let unresolved: u64 = report.unresolved.values().sum();
    let exit = if unresolved == 0 { Exit::Done } else { Exit::Failed };
    if output.is_json() {
        output.json(&report)?;
        return Ok(exit);
    }
    rounds(&report, output)?;
    if report.findings.is_empty() {
        return Ok(exit);
    }
    output.line("")?;
    let rows = report.findings.iter().map(|finding| {
        vec![
            words_of(&finding.kind).to_owned(),
            if finding.mended { "mended" } else { "see to it" }.to_owned(),
            finding.object.clone(),
            finding.study.clone().unwrap_or_default(),
            finding.why.clone(),
        ]
    });
    output.table(&["WHAT", "", "OBJECT", "STUDY", "WHY"], rows.collect())?;
    let listed = report.findings.iter().filter(|finding| !finding.mended).count() as u64;
    if listed < unresolved {
        output.say(format_args!("and {} more that are only counted", unresolved - listed));
    }
    // One hint for each kind, not one for each image.
    let remedies: BTreeMap<_, _> = report
        .findings
        .iter()
        .filter_map(|finding| Some((&finding.kind, finding.remedy.as_ref()?)))
        .collect();
    for (kind, remedy) in remedies {
        output.say(format_args!("hint: {}: {remedy}", words_of(kind)));
    }
    Ok(exit)
}

fn rounds(report: &Report, output: Output) -> Result<(), Failure> {
    let now = Timestamp::now();
    if let Some(round) = &report.current {
        let age = words::age(round.begun_at, now);
        output.line(format_args!("a round began {age} ago: {} so far", summary(round)))?;
    }
    if let Some(waiting) = &report.waiting {
        let again = Duration::try_from(now.duration_until(waiting.next_try)).unwrap_or_default();
        output.line(format_args!(
            "  it waits: {}; tried again within {}",
            waiting.why,
            humantime::format_duration(Duration::from_secs(again.as_secs() + 1))
        ))?;
    }
    if let Some(round) = &report.last {
        let age = words::age(round.ended_at.unwrap_or(round.begun_at), now);
        output.line(format_args!("all had been seen {age} ago: {}", summary(round)))?;
    }
    if report.current.is_none() && report.last.is_none() {
        output.line("nothing has been read again yet")?;
    }
    match (report.every_seconds, report.next_at) {
        (None, _) => output.say("[scrub] every is \"off\": `gantry scrub start` begins a round"),
        (Some(_), Some(next)) => {
            output.line(format_args!("the next round begins {}", words::clock(next, now)))?;
        }
        (Some(_), None) => {}
    }
    Ok(())
}

fn summary(round: &Round) -> String {
    let sum = |count: fn(&Count) -> u64| round.counts.values().map(count).sum::<u64>();
    let mut said = format!(
        "{} whole, {}; {} mended, {} for a person to see to",
        words::count(round.verified, "image", "images"),
        words::bytes(round.bytes),
        sum(|count| count.mended),
        sum(|count| count.unresolved)
    );
    if round.removed > 0 {
        said = format!("{said}; {} that nothing needs deleted", round.removed);
    }
    said
}

fn words_of(kind: &str) -> &str {
    match kind {
        "without-row" => "not in the index",
        "contradicts" => "not what the index says",
        "without-key" => "key not here",
        kind => kind,
    }
}
