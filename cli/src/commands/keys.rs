//! `gantry keys …`: the keys that everything stored is encrypted with. Works without a running node.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::SystemTime;

use clap::{Args, Subcommand};
use gantry_store::sealed::{KeyId, Keyring};
use jiff::Timestamp;
use serde::Serialize;

use super::Global;
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::words;

/// The keys that what is stored is encrypted with
#[derive(Args, Debug)]
#[command(subcommand_required = true, arg_required_else_help = true)]
#[command(before_help = "Example:\n  gantry keys status")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Status(Status),
}

/// Which keys there are, and which one new images are encrypted with
///
/// Names and ages only: a key itself is never shown.
#[derive(Args, Debug)]
#[command(before_help = "Example:\n  gantry keys status")]
struct Status {}

#[derive(Serialize)]
struct KeyringView {
    folder: PathBuf,
    current: String,
    keys: Vec<Key>,
}

#[derive(Serialize)]
struct Key {
    id: String,
    made_at: Option<Timestamp>,
    mode: String,
    current: bool,
}

pub(crate) fn run(arguments: &Arguments, global: &Global, output: Output) -> Result<Exit, Failure> {
    let Command::Status(Status {}) = &arguments.command;
    let (config, _) = super::load_config(global, output)?;
    let folder = config.node.keys_dir();
    // Opening it checks every key and its mode.
    let keyring = Keyring::open(&folder).map_err(|error| Failure::because(Exit::Failed, &error))?;
    let failed = |error: std::io::Error| Failure::of_file("read", &folder, &error);
    let mut keys = Vec::new();
    for entry in fs::read_dir(&folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let id = name
            .to_str()
            .and_then(|name| name.strip_suffix(".key"))
            .and_then(|id| id.parse::<KeyId>().ok());
        let Some(id) = id else { continue };
        let file = entry.metadata().map_err(failed)?;
        keys.push(Key {
            id: id.to_string(),
            made_at: file.modified().ok().and_then(timestamp),
            mode: format!("{:04o}", file.mode() & 0o777),
            current: id == keyring.current(),
        });
    }
    keys.sort_by(|one, other| (one.made_at, &one.id).cmp(&(other.made_at, &other.id)));
    if output.is_json() {
        output.json(&KeyringView { folder, current: keyring.current().to_string(), keys })?;
        return Ok(Exit::Done);
    }
    let rows = keys.iter().map(|key| {
        vec![
            key.id.clone(),
            key.made_at.map(words::day).unwrap_or_default(),
            key.mode.clone(),
            if key.current {
                "current: new images are encrypted with it"
            } else {
                "opens older images"
            }
            .to_owned(),
        ]
    });
    output.table(&["KEY", "MADE", "MODE", ""], rows.collect())?;
    output.say(format_args!(
        "keep a copy of {} somewhere else: what is stored cannot be read without it",
        folder.display()
    ));
    Ok(Exit::Done)
}

fn timestamp(time: SystemTime) -> Option<Timestamp> {
    Timestamp::try_from(time).ok()
}
