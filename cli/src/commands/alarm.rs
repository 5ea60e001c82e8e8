//! `gantry alarm …`: what is stuck, and whether those who are told can be.

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Global;
use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::output::{Output, Paint};
use crate::views::Alarm;
use crate::words;

/// What is stuck, and who is told
///
/// The node watches what waits. Where nothing leaves for a partner, or an emergency does not move, it says so: on the board,
/// in `gantry status` and /metrics, and by webhook and mail as [alarm] of the configuration names them.
#[derive(Args, Debug)]
#[command(subcommand_required = true, arg_required_else_help = true)]
#[command(before_help = "\
Examples:
  gantry alarm list
  gantry alarm test                           does the mail arrive?")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(List),
    Test(Test),
}

/// What is stuck, since when, and what to do
///
/// Exit code 0 says that nothing is, 1 that something is.
#[derive(Args, Debug)]
#[command(before_help = "\
Examples:
  gantry alarm list
  gantry alarm list --ended
  gantry alarm list --json | jq -r '.alarms[].sentence'")]
struct List {
    /// Also those that ended in the last 24 hours
    #[arg(long)]
    ended: bool,
}

/// Send a test message by every channel, and say what each server answered
///
/// Exit code 0 says that all took it, 6 that some did, 1 that none did.
#[derive(Args, Debug)]
#[command(before_help = "Example:\n  gantry alarm test")]
struct Test {}

/// Whether somebody can be told.
#[derive(Debug, Deserialize, Serialize)]
struct Channel {
    name: String,
    sent_at: Option<Timestamp>,
    failing_since: Option<Timestamp>,
    why: Option<String>,
    remedy: Option<String>,
}

/// What `alarm list --json` prints.
#[derive(Debug, Deserialize, Serialize)]
struct Report {
    alarms: Vec<Alarm>,
    ended: Vec<Alarm>,
    channels: Vec<Channel>,
}

/// What `alarm test --json` prints, one for each channel.
#[derive(Debug, Deserialize, Serialize)]
struct Tested {
    name: String,
    taken: bool,
    answer: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
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
    match &arguments.command {
        Command::List(list) => self::list(list, &mut node, output).await,
        Command::Test(Test {}) => test(&mut node, output).await,
    }
}

async fn list(arguments: &List, node: &mut Client, output: Output) -> Result<Exit, Failure> {
    let mut report: Report = node.get("/api/v1/alarms").await?;
    if !arguments.ended {
        report.ended.clear();
    }
    let exit = if report.alarms.is_empty() { Exit::Done } else { Exit::Failed };
    if output.is_json() {
        output.json(&report)?;
        return Ok(exit);
    }
    if report.alarms.is_empty() {
        output.say("no alarms");
    }
    for alarm in &report.alarms {
        print(alarm, output)?;
    }
    let now = Timestamp::now();
    for alarm in &report.ended {
        let ended = alarm.ended_at.unwrap_or(now);
        output.line(format_args!(
            "{} {}",
            output.paint(Paint::Dim, &format!("ended {}", words::clock(ended, now))),
            alarm.sentence
        ))?;
        output.line(format_args!("  since {}", words::clock(alarm.since, now)))?;
    }
    if report.channels.is_empty() {
        output.say("hint: nobody is told: name a webhook or mail under [alarm] in gantry.toml");
    }
    for channel in &report.channels {
        if let Some(since) = channel.failing_since {
            let why = channel.why.as_deref().unwrap_or("it did not say why");
            output.say(format_args!(
                "{} takes no message for {}: {why}",
                channel.name,
                words::age(since, now)
            ));
            if let Some(remedy) = &channel.remedy {
                output.say(format_args!("hint: {remedy}"));
            }
        }
    }
    Ok(exit)
}

/// An alarm that lasts: what, since when, and what to do.
pub(crate) fn print(alarm: &Alarm, output: Output) -> Result<(), Failure> {
    let now = Timestamp::now();
    output.line(output.paint(Paint::Red, &alarm.sentence))?;
    match alarm.clear_since {
        Some(clear) => output.line(format_args!(
            "  since {}; all well for {}, and the alarm ends when it stays so",
            words::clock(alarm.since, now),
            words::age(clear, now)
        )),
        None => output.line(format_args!("  for {}. {}", words::age(alarm.since, now), alarm.act)),
    }
}

async fn test(node: &mut Client, output: Output) -> Result<Exit, Failure> {
    let tested: Vec<Tested> = node.post("/api/v1/alarms/test", &Nothing {}).await?;
    if tested.is_empty() {
        return Err(Failure::new(Exit::Usage, "nobody is told of alarms")
            .hint("name a webhook or mail under [alarm] in gantry.toml, and start the node anew"));
    }
    let taken = tested.iter().filter(|tested| tested.taken).count();
    let exit = match taken {
        0 => Exit::Failed,
        all if all == tested.len() => Exit::Done,
        _ => Exit::Partly,
    };
    if output.is_json() {
        output.json(&tested)?;
        return Ok(exit);
    }
    for tested in &tested {
        let mark = if tested.taken {
            output.paint(Paint::Green, "taken")
        } else {
            output.paint(Paint::Red, "not taken")
        };
        output.line(format_args!("{}: {mark}; {}", tested.name, tested.answer))?;
        if let Some(remedy) = &tested.remedy {
            output.say(format_args!("hint: {remedy}"));
        }
    }
    Ok(exit)
}
