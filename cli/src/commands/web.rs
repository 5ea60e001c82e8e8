//! `gantry web …`: the way into the pages.

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Global;
use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::words;

/// The way into the pages
#[derive(Args, Debug)]
#[command(subcommand_required = true, arg_required_else_help = true)]
#[command(before_help = "Example:\n  gantry web link")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Link(LinkArguments),
}

/// A link that signs one browser in, once
#[derive(Args, Debug)]
#[command(before_help = "Examples:\n  gantry web link\n  xdg-open \"$(gantry web link --quiet)\"")]
struct LinkArguments {}

#[derive(Deserialize, Serialize)]
struct Link {
    url: String,
    expires_at: Timestamp,
}

pub(crate) async fn run(
    arguments: &Arguments,
    global: &Global,
    output: Output,
) -> Result<Exit, Failure> {
    let Command::Link(LinkArguments {}) = &arguments.command;
    let (config, _) = super::load_config(global, output)?;
    let mut node = Client::connect(&config).await?;
    let link: Link = node.post("/api/v1/web-link", &serde_json::json!({})).await?;
    if output.is_json() {
        output.json(&link)?;
    } else {
        output.line(&link.url)?;
        let until = words::clock(link.expires_at, Timestamp::now());
        output.say(format_args!("it works once, until {until}"));
    }
    Ok(Exit::Done)
}
