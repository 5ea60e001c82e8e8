//! `gantry reindex`: makes the rows again from spool and objects. Works only while the node does not run.

use clap::Args;
use gantry_gateway::reindex;
use gantry_gateway::run::{StartError, Store};
use gantry_store::spool::SpoolError;
use indicatif::{ProgressBar, ProgressStyle};

use super::{Global, serve};
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::words;

/// Make the index again from what is stored
///
/// Every image says what it is and how it came, and what partners accepted is written down beside the index, so a lost or
/// damaged one can be made again and nothing is sent twice; what is in it already stays. What people did (cancelled, paused)
/// does not come back. The node must not run; one that finds its index gone or old does this by itself.
#[derive(Args, Debug)]
#[command(before_help = "\
Examples:
  gantry reindex                              after a restore of the data directory
  gantry reindex --no-deliveries              order nothing for partners")]
pub(crate) struct Arguments {
    /// Order nothing for partners, not even what they have not got yet
    #[arg(long)]
    no_deliveries: bool,
}

pub(crate) async fn run(
    arguments: &Arguments,
    global: &Global,
    output: Output,
) -> Result<Exit, Failure> {
    let (config, _) = super::load_config(global, output)?;
    let store = Store::open(&config).await.map_err(|error| match &error {
        StartError::Spool(SpoolError::Locked) => {
            Failure::new(Exit::Failed, "the node is running").hint("stop it first")
        }
        _ => serve::cannot_start(&error),
    })?;
    let bar = ProgressBar::with_draw_target(None, output.progress_target());
    let style = ProgressStyle::with_template("{spinner} {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    let done = reindex::reindex(&store, &config.routes, !arguments.no_deliveries, |so_far| {
        bar.set_message(format!("{} looked at, {} new", so_far.found, so_far.recorded));
        bar.tick();
    })
    .await;
    store.index.close().await;
    bar.finish_and_clear();
    let done = done.map_err(|error| Failure::because(Exit::Failed, &error))?;
    for (object, reason) in &done.unreadable {
        output.say(format_args!("cannot be read: {object}: {reason}"));
    }
    if output.is_json() {
        output.json(&done)?;
    } else {
        output.line(format_args!(
            "{} looked at: {} recorded, {} ordered, {} known to be delivered, {} cannot be read",
            words::count(done.found, "image", "images"),
            done.recorded,
            words::count(done.ordered, "delivery", "deliveries"),
            done.delivered,
            done.unreadable.len()
        ))?;
    }
    Ok(if done.unreadable.is_empty() { Exit::Done } else { Exit::Partly })
}
