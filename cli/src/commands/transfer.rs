//! `gantry transfer …`: where studies are on their way to partners, and what a person can do about it.

mod sets;
mod show;
pub(crate) mod watch;

use std::time::Duration;

use clap::{Args, Subcommand};
use gantry_gateway::config::Config;
use gantry_store::facts::Priority;
use gantry_store::index::{Rejection, TransferId, TransferState};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::Global;
use crate::client::{Client, with_query};
use crate::exit::{Exit, Failure};
use crate::output::{Output, Paint};
use crate::views::{Changed, Shorten as _, Transfer};
use crate::words;

/// Where studies are on their way to partners
///
/// A transfer is named by its id, or by as much of the end of it as is unique: what the list shows.
#[derive(Args, Debug)]
#[command(subcommand_required = true, arg_required_else_help = true)]
#[command(before_help = "\
Examples:
  gantry transfer list --state needs-action
  gantry transfer show 7Q2M4KXD
  gantry transfer watch 7Q2M4KXD --until sent --timeout 10m
  gantry transfer retry --partner york-ed --dry-run")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(List),
    Show(show::Arguments),
    Watch(watch::Arguments),
    Retry(Retry),
    Cancel(Cancel),
    Pause(Pause),
    Resume(Resume),
    Urgent(Urgent),
    Recall(Recall),
}

/// The latest transfers, newest first
#[derive(Args, Debug)]
#[command(before_help = "\
Examples:
  gantry transfer list
  gantry transfer list --partner york-ed --since 24h
  gantry transfer list --incomplete
  gantry transfer list --json | jq -r '.[] | select(.state == \"delayed\") | .id'")]
struct List {
    /// To this partner
    #[arg(long, value_name = "NAME")]
    partner: Option<String>,
    /// In this state, such as sending, delayed or needs-action
    #[arg(long, value_parser = known_state)]
    state: Option<TransferState>,
    /// Of this priority: emergency, urgent or routine
    #[arg(long)]
    priority: Option<Priority>,
    /// Of this study
    #[arg(long, value_name = "UID")]
    study: Option<String>,
    /// Only those of studies of which the source has more
    #[arg(long)]
    incomplete: bool,
    /// Since a time (2026-11-22T02:14:00Z), or for so long (24h)
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Timestamp>,
    /// At most so many
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Show patients in full
    #[arg(long)]
    reveal: bool,
}

/// Ask anew for what is delayed or set aside
///
/// What is cancelled too, where it is named, or asked for by --state cancelled.
#[derive(Args, Debug)]
#[command(before_help = "\
Examples:
  gantry transfer retry 7Q2M4KXD
  gantry transfer retry --partner york-ed --dry-run
  gantry transfer retry --state needs-action --reason \"their disk has room again\" --yes")]
struct Retry {
    #[command(flatten)]
    chosen: sets::Chosen,
}

/// Give up what the partner has not got
///
/// What it has got stays there. `gantry transfer retry` takes it back. A reason is needed.
#[derive(Args, Debug)]
#[command(before_help = "\
Examples:
  gantry transfer cancel 7Q2M4KXD --reason \"patient stays here\" --yes
  gantry transfer cancel --partner york-ed --older-than 7days --reason \"sent on disc\"")]
struct Cancel {
    #[command(flatten)]
    chosen: sets::Chosen,
}

/// Hold transfers until they are resumed
#[derive(Args, Debug)]
#[command(before_help = "\
Examples:
  gantry transfer pause 7Q2M4KXD --reason \"wrong patient?\"
  gantry transfer pause --partner york-ed --priority routine --reason \"their night\" --yes")]
struct Pause {
    #[command(flatten)]
    chosen: sets::Chosen,
}

/// Let paused transfers go on
#[derive(Args, Debug)]
#[command(before_help = "\
Examples:
  gantry transfer resume 7Q2M4KXD
  gantry transfer resume --partner york-ed --yes")]
struct Resume {
    #[command(flatten)]
    chosen: sets::Chosen,
}

/// Make transfers emergencies, so that they overtake everything else
#[derive(Args, Debug)]
#[command(before_help = "\
Examples:
  gantry transfer urgent 7Q2M4KXD
  gantry transfer urgent 7Q2M4KXD --priority urgent
  gantry transfer urgent --source ct-emergency --reason \"major incident\" --yes")]
struct Urgent {
    #[command(flatten)]
    which: sets::Which,
    /// How urgent: emergency or urgent
    #[arg(long, default_value = "emergency")]
    priority: Priority,
}

/// Take back images that a partner should not have got
///
/// What has not left stays here. A partner with recall = "iocm" is sent a note that rejects what it has got, as an instance
/// of its own; with any other its PACS team must be phoned. Images of the study that come later stay here too.
#[derive(Args, Debug)]
#[command(before_help = "\
Examples:
  gantry transfer recall 7Q2M4KXD --reason \"another patient's images\"
  gantry transfer recall 7Q2M4KXD --reason \"motion\" --because quality --yes")]
struct Recall {
    /// Which transfer
    id: String,
    /// Why; the timeline and the note show it
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// What is wrong with them: patient-safety, quality, wrong-worklist-entry or retention-expired
    #[arg(long, value_name = "WHAT", default_value = "patient-safety", value_parser = rejection)]
    because: Rejection,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Only say how many images it concerns
    #[arg(long)]
    dry_run: bool,
}

fn rejection(text: &str) -> Result<Rejection, String> {
    text.parse().map_err(|_| {
        let words: Vec<_> = Rejection::ALL.iter().map(|word| word.as_str()).collect();
        format!("must be one of: {}", words.join(", "))
    })
}

/// What the API takes with a request about one transfer.
#[derive(Serialize)]
struct Ask<'a> {
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<Priority>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rejection: Option<Rejection>,
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
        Command::Show(arguments) => show::run(&arguments, &mut node, output).await,
        Command::Watch(arguments) => watch::run(arguments, &config, node, output).await,
        Command::Retry(Retry { chosen }) => {
            chosen.run(sets::Act::Retry, &config, &mut node, output).await
        }
        Command::Cancel(Cancel { chosen }) => {
            chosen.run(sets::Act::Cancel, &config, &mut node, output).await
        }
        Command::Pause(Pause { chosen }) => {
            chosen.run(sets::Act::Pause, &config, &mut node, output).await
        }
        Command::Resume(Resume { chosen }) => {
            chosen.run(sets::Act::Resume, &config, &mut node, output).await
        }
        Command::Urgent(Urgent { which, priority }) => {
            which.run(sets::Act::Urgent(priority), None, &config, &mut node, output).await
        }
        Command::Recall(arguments) => recall(&arguments, &config, &mut node, output).await,
    }
}

async fn list(arguments: List, node: &mut Client, output: Output) -> Result<Exit, Failure> {
    let path = with_query(
        "/api/v1/transfers",
        [
            ("partner", arguments.partner),
            ("state", arguments.state.map(|state| state.to_string())),
            ("priority", arguments.priority.map(|priority| priority.to_string())),
            ("study", arguments.study),
            ("incomplete", arguments.incomplete.then(|| "true".to_owned())),
            ("since", arguments.since.map(|since| since.to_string())),
            ("limit", Some(arguments.limit.to_string())),
        ],
    );
    let mut transfers: Vec<Transfer> = node.get(&path).await?;
    if !arguments.reveal {
        transfers.shorten();
    }
    print(&transfers, output)?;
    Ok(Exit::Done)
}

/// A list of transfers.
pub(crate) fn print(transfers: &[Transfer], output: Output) -> Result<(), Failure> {
    if output.is_json() {
        return output.json(&transfers);
    }
    if transfers.is_empty() {
        output.say("no transfers");
        return Ok(());
    }
    let now = Timestamp::now();
    let rows = transfers.iter().map(|transfer| {
        vec![
            transfer.short_id(),
            flagged(transfer, output),
            transfer.priority.to_string(),
            transfer.partner.clone(),
            transfer.images(),
            words::age(transfer.created_at, now),
            transfer.study.patient(),
            transfer.study.kind(),
        ]
    });
    output.table(
        &["ID", "STATE", "PRIORITY", "TO", "IMAGES", "AGE", "PATIENT", "STUDY"],
        rows.collect(),
    )
}

/// A transfer's state, and whether its source has more of the study.
fn flagged(transfer: &Transfer, output: Output) -> String {
    let state = state(transfer.state, output);
    if transfer.incomplete {
        format!("{state}, {}", output.paint(Paint::Red, "incomplete"))
    } else {
        state
    }
}

/// A state, in the colour that says whether somebody has to do something.
pub(crate) fn state(state: TransferState, output: Output) -> String {
    let paint = match state {
        TransferState::NeedsAction => Paint::Red,
        TransferState::Delayed | TransferState::Paused => Paint::Yellow,
        TransferState::Sent | TransferState::Confirmed | TransferState::Opened => Paint::Green,
        TransferState::Cancelled | TransferState::Recalled => Paint::Dim,
        TransferState::Receiving | TransferState::Queued | TransferState::Sending => {
            return state.to_string();
        }
    };
    output.paint(paint, state.as_str())
}

async fn recall(
    arguments: &Recall,
    config: &Config,
    node: &mut Client,
    output: Output,
) -> Result<Exit, Failure> {
    let id = find(&arguments.id, node).await?;
    let transfer: Transfer = node.get(&format!("/api/v1/transfers/{id}")).await?;
    let got = words::count(transfer.counts.delivered, "image", "images");
    let partner = &transfer.partner_name;
    if arguments.dry_run {
        if output.is_json() {
            output.json(&transfer)?;
        } else {
            output.line(format_args!("would recall {got} from {partner}"))?;
        }
        return Ok(Exit::Done);
    }
    if !arguments.yes {
        if !output.can_ask() {
            let message =
                format!("nobody is here to be asked whether to recall {got} from {partner}");
            return Err(Failure::new(Exit::Usage, message).hint("add --yes"));
        }
        if !sets::agreed(&format!("{partner} has got {got}. Recall them?")) {
            return Err(Failure::new(Exit::Failed, "nothing was recalled"));
        }
        // The node may have closed the connection while a person thought about it.
        *node = Client::connect(config).await?;
    }
    let ask = Ask { reason: &arguments.reason, priority: None, rejection: Some(arguments.because) };
    act(id, "recall", &ask, node, output).await
}

async fn act(
    id: TransferId,
    what: &str,
    ask: &Ask<'_>,
    node: &mut Client,
    output: Output,
) -> Result<Exit, Failure> {
    let mut changed: Changed = node.post(&format!("/api/v1/transfers/{id}/{what}"), ask).await?;
    changed.transfer.shorten();
    if output.is_json() {
        output.json(&changed)?;
    } else {
        let transfer = &changed.transfer;
        output.line(format_args!(
            "{}  {}  {}",
            transfer.short_id(),
            state(transfer.state, output),
            transfer.sentence
        ))?;
    }
    Ok(Exit::Done)
}

/// The transfer that a person means: its whole id, or the end of it as lists show it.
async fn find(name: &str, node: &mut Client) -> Result<TransferId, Failure> {
    let name = name.to_uppercase();
    if let Ok(id) = name.parse() {
        return Ok(id);
    }
    let transfers: Vec<Transfer> = node.get("/api/v1/transfers?limit=1000").await?;
    let ends: Vec<_> = transfers
        .iter()
        .map(|transfer| transfer.id)
        .filter(|id| id.to_string().ends_with(&name))
        .collect();
    match ends.as_slice() {
        _ if name.len() < 4 => {
            Err(Failure::new(Exit::Usage, format_args!("{name} is too short to name a transfer"))
                .hint("give at least four characters of the end of its id"))
        }
        [id] => Ok(*id),
        [] => Err(Failure::new(
            Exit::NotFound,
            format_args!("there is no transfer {name} among the latest 1000"),
        )
        .hint("`gantry transfer list` shows them")),
        several => Err(Failure::new(
            Exit::Usage,
            format_args!("{} transfers end in {name}", several.len()),
        )
        .hint("give more of the id: --json shows the whole")),
    }
}

fn known_state(text: &str) -> Result<TransferState, String> {
    text.parse().map_err(|_| {
        let states: Vec<_> = TransferState::ALL.iter().map(|state| state.as_str()).collect();
        format!("must be one of: {}", states.join(", "))
    })
}

/// A time, or how long ago.
fn since(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let ago: Duration = humantime::parse_duration(text)
        .map_err(|_| "give a time such as 2026-11-22T02:14:00Z, or how long ago: 24h".to_owned())?;
    SignedDuration::try_from(ago)
        .ok()
        .and_then(|ago| Timestamp::now().checked_sub(ago).ok())
        .ok_or_else(|| "that is before there were images".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_moment_or_how_long_ago() {
        assert_eq!(since("1970-01-01T00:00:01Z").unwrap().as_second(), 1);
        let day = Timestamp::now().duration_since(since("24h").unwrap()).as_secs();
        assert!((86_399..86_402).contains(&day), "{day}");
        assert!(since("yesterday").is_err() && since("90000years").is_err());
    }
}
