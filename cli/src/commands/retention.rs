//! `gantry retention …`: how long images are kept, and what is due.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};

use super::Global;
use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::words;

/// How long images are kept
#[derive(Args, Debug)]
#[command(subcommand_required = true, arg_required_else_help = true)]
#[command(before_help = "\
Examples:
  gantry retention show
  gantry retention run --dry-run")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Show(Show),
    Run(Run),
}

/// What rules let go now, soon and later, and what stays and why
#[derive(Args, Debug)]
#[command(before_help = "Example:\n  gantry retention show --json | jq .kept")]
struct Show {}

/// Remove what is due now, instead of within the hour
#[derive(Args, Debug)]
#[command(before_help = "Example:\n  gantry retention run --dry-run")]
struct Run {
    /// Only say what would go
    #[arg(long)]
    dry_run: bool,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
struct Sum {
    studies: u64,
    bytes: u64,
}

impl Sum {
    fn text(self) -> String {
        format!("{}, {}", words::count(self.studies, "study", "studies"), words::bytes(self.bytes))
    }
}

#[derive(Debug, Deserialize, Serialize)]
struct Rule {
    name: String,
    keep_seconds: u64,
    after: String,
    due: Sum,
    soon: Sum,
    later: Sum,
}

/// What `retention show --json` prints.
#[derive(Debug, Deserialize, Serialize)]
struct Report {
    rules: Vec<Rule>,
    kept: BTreeMap<String, Sum>,
}

/// What `retention run --json` prints.
#[derive(Debug, Deserialize, Serialize)]
struct Ran {
    dry_run: bool,
    studies: u64,
    images: u64,
    bytes: u64,
    by_rule: BTreeMap<String, Sum>,
}

#[derive(Serialize)]
struct Ask {
    dry_run: bool,
}

pub(crate) async fn run(
    arguments: Arguments,
    global: &Global,
    output: Output,
) -> Result<Exit, Failure> {
    let (config, _) = super::load_config(global, output)?;
    let mut node = Client::connect(&config).await?;
    match arguments.command {
        Command::Show(Show {}) => show(&mut node, output).await,
        Command::Run(Run { dry_run }) => run_now(dry_run, &mut node, output).await,
    }
}

async fn show(node: &mut Client, output: Output) -> Result<Exit, Failure> {
    let report: Report = node.get("/api/v1/retention").await?;
    if output.is_json() {
        output.json(&report)?;
        return Ok(Exit::Done);
    }
    if report.rules.is_empty() {
        output.say("no [[retention]] rule: nothing is removed by itself");
    } else {
        let rows = report.rules.iter().map(|rule| {
            let keep =
                humantime::format_duration(std::time::Duration::from_secs(rule.keep_seconds));
            vec![
                rule.name.clone(),
                format!("{keep} after {}", rule.after),
                rule.due.text(),
                rule.soon.text(),
                rule.later.text(),
            ]
        });
        output.table(&["RULE", "KEEPS", "DUE NOW", "WITHIN 7 DAYS", "LATER"], rows.collect())?;
    }
    for (reason, sum) in &report.kept {
        let why = match reason.as_str() {
            "held" => "under a legal hold",
            "owed" => "still owed to a partner",
            "receiving" => "being received",
            "not-stored" => "not yet in the object store",
            "not-confirmed" => "not confirmed by the far end",
            _ => "no rule applies",
        };
        output.line(format_args!("kept  {}  {}", why, sum.text()))?;
    }
    Ok(Exit::Done)
}

async fn run_now(dry_run: bool, node: &mut Client, output: Output) -> Result<Exit, Failure> {
    let ran: Ran = node.post("/api/v1/retention/run", &Ask { dry_run }).await?;
    if output.is_json() {
        output.json(&ran)?;
        return Ok(Exit::Done);
    }
    let done = if ran.dry_run { "would be removed" } else { "removed" };
    let sum = Sum { studies: ran.studies, bytes: ran.bytes };
    output.line(format_args!("{} {done}", sum.text()))?;
    ran.by_rule
        .iter()
        .try_for_each(|(rule, sum)| output.line(format_args!("  {rule}: {}", sum.text())))?;
    Ok(Exit::Done)
}
