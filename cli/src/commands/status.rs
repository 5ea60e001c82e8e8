//! `gantry status`: the node at a glance, and what somebody should look at.

use std::time::Duration;

use clap::Args;
use jiff::Timestamp;

use super::Global;
use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::output::{Output, Paint};
use crate::views::{ObjectStore, Scrub, Spool, Status};
use crate::words;

/// Does it run, and is all well?
///
/// For each partner what was ordered is what was delivered, waits, was set aside or was cancelled. Exit code 0 says that
/// the node runs and can work, 1 that it cannot, 9 that it does not run.
#[derive(Args, Debug)]
#[command(before_help = "\
Examples:
  gantry status
  gantry status --json | jq '.partners[] | {name, waiting, set_aside}'
  gantry status --alive --quiet               does it answer? for what watches over programs")]
pub(crate) struct Arguments {
    /// Ask only whether it answers: 0 as long as it does, also while database or object store are away
    #[arg(long)]
    alive: bool,
}

pub(crate) async fn run(
    arguments: &Arguments,
    global: &Global,
    output: Output,
) -> Result<Exit, Failure> {
    let (config, _) = super::load_config(global, output)?;
    let mut node = Client::connect(&config).await?;
    if arguments.alive {
        return alive(&mut node, output).await;
    }
    let status: Status = node.get("/api/v1/status").await?;
    if output.is_json() {
        output.json(&status)?;
    } else {
        print(&status, output)?;
    }
    Ok(if status.readiness.ready { Exit::Done } else { Exit::Failed })
}

/// Needs nothing but the node itself. One that waits for its database must not be ended for that: it receives meanwhile.
async fn alive(node: &mut Client, output: Output) -> Result<Exit, Failure> {
    let mut answer = node.stream("/healthz").await?;
    while answer.next().await?.is_some() {}
    if output.is_json() {
        output.json(&serde_json::json!({ "alive": true }))?;
    } else {
        output.say("the node answers");
    }
    Ok(Exit::Done)
}

fn print(status: &Status, output: Output) -> Result<(), Failure> {
    let ready = if status.readiness.ready {
        output.paint(Paint::Green, "ready")
    } else {
        output.paint(Paint::Red, "not ready")
    };
    let up = humantime::format_duration(Duration::from_secs(status.uptime_seconds));
    output.line(format_args!(
        "{} of {} is {ready}; gantry {}, up {up}",
        output.paint(Paint::Bold, &status.ae_title),
        status.organisation,
        status.version
    ))?;
    for listener in &status.listeners {
        let tls = if listener.tls == "off" { "plain text" } else { "mutual TLS" };
        output.line(format_args!(
            "  takes DICOM on {}, {tls}: {} of {} associations",
            listener.name, listener.associations, listener.max_associations
        ))?;
    }
    if let Some(web) = &status.web {
        output.line(format_args!("  shows pages on {web}"))?;
    }
    let totals = &status.totals;
    output.line(format_args!(
        "  holds {}, {}, {}",
        words::count(totals.studies, "study", "studies"),
        words::count(totals.instances, "image", "images"),
        words::bytes(totals.bytes)
    ))?;
    output.line(format_args!(
        "  spool: {}; {} not yet in the object store",
        room(&status.spool),
        words::count(status.spool.waiting, "image", "images")
    ))?;
    output.line(format_args!("  object store: {}", object_store(&status.object_store, output)))?;

    if let Some(scrub) = &status.scrub {
        output.line(format_args!("  scrub: {}", self::scrub(scrub, output)))?;
    }

    output.line("")?;
    if status.partners.is_empty() {
        output.line("No partners.")?;
    } else {
        let rows = status.partners.iter().map(|partner| {
            let counts = [
                partner.ordered,
                partner.delivered,
                partner.waiting,
                partner.set_aside,
                partner.cancelled,
            ];
            let mut row = vec![partner.name.clone()];
            row.extend(counts.map(|count| count.to_string()));
            row
        });
        output.table(
            &["PARTNER", "ORDERED", "DELIVERED", "WAITING", "SET ASIDE", "CANCELLED"],
            rows.collect(),
        )?;
    }

    if !status.alarms.is_empty() {
        output.line("")?;
        for alarm in &status.alarms {
            super::alarm::print(alarm, output)?;
        }
    }

    if !status.problems.is_empty() {
        output.line("")?;
        output.line(output.paint(Paint::Yellow, "Look at"))?;
        for problem in &status.problems {
            output.line(format_args!("  {problem}"))?;
        }
        if status.partners.iter().any(|partner| partner.set_aside > 0) {
            output.line(
                "  `gantry transfer list --state needs-action` shows what waits for a person",
            )?;
        }
    }
    Ok(())
}

/// Whether what is kept was read again of late, and was whole.
fn scrub(scrub: &Scrub, output: Output) -> String {
    let now = Timestamp::now();
    let read = || words::count(scrub.verified, "image", "images");
    let state = match (&scrub.waiting, scrub.begun_at, scrub.last_ended_at) {
        (Some(why), ..) => format!("waits: {why}"),
        (None, Some(begun), _) => {
            format!(
                "has been reading again for {}, {} whole so far",
                words::age(begun, now),
                read()
            )
        }
        (None, None, Some(ended)) => {
            format!("all was read again {} ago, {} whole", words::age(ended, now), read())
        }
        (None, None, None) if !scrub.by_itself => "off".to_owned(),
        (None, None, None) => "not yet".to_owned(),
    };
    if scrub.unresolved == 0 {
        return state;
    }
    let unresolved = format!("{} for a person to see to", scrub.unresolved);
    format!("{state}; {}", output.paint(Paint::Red, &unresolved))
}

/// What the spool can still take, and how long that lasts.
fn room(spool: &Spool) -> String {
    let Some(bytes) = spool.room_bytes else { return "room not known".to_owned() };
    let mut said = format!("room for {}", words::bytes(bytes));
    if bytes == 0 || spool.room_files == Some(0) {
        said = format!(
            "full; emergencies have {}",
            words::bytes(spool.emergency_room_bytes.unwrap_or_default())
        );
    } else if let Some(files) = spool.room_files.filter(|files| *files < 100_000) {
        said = format!("{said} and {}", words::count(files, "file", "files"));
    }
    format!("{said}{}", lasts(spool.room_days))
}

/// How long some room lasts.
fn lasts(days: Option<f64>) -> String {
    match days {
        Some(days) if days < 2.0 => format!(", {:.0} hours of the recent rate", days * 24.0),
        Some(days) => format!(", {days:.0} days of the recent rate"),
        None => String::new(),
    }
}

/// Whether it takes objects, and what waits for it.
fn object_store(store: &ObjectStore, output: Output) -> String {
    let since = |since: Option<Timestamp>| {
        since
            .map(|since| format!(" for {}", words::age(since, Timestamp::now())))
            .unwrap_or_default()
    };
    let state = match (store.reachable, &store.why) {
        (Some(true), _) => "takes objects".to_owned(),
        (Some(false), why) => format!(
            "{}{}: {}",
            output.paint(Paint::Red, "takes nothing"),
            since(store.since),
            why.as_deref().unwrap_or("it did not say why")
        ),
        (None, _) => "not used yet".to_owned(),
    };
    let state = match (store.mark_bytes, store.used_bytes, lasts(store.room_days)) {
        (Some(_), Some(_), _) if store.above_mark => {
            format!("{state}; {}", output.paint(Paint::Red, "above its high-water mark"))
        }
        (Some(mark), Some(used), lasts) => {
            format!(
                "{state}; {} up to its high-water mark{lasts}",
                words::bytes(mark.saturating_sub(used))
            )
        }
        _ => state,
    };
    if store.waiting == 0 {
        return format!("{}, {state}", store.kind);
    }
    let oldest = store
        .oldest_waiting
        .map(|oldest| format!(", the oldest for {}", words::age(oldest, Timestamp::now())));
    format!(
        "{}, {state}; {} ({}) wait to be stored{}",
        store.kind,
        words::count(store.waiting, "image", "images"),
        words::bytes(store.waiting_bytes),
        oldest.unwrap_or_default()
    )
}
