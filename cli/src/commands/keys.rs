//! `gantry keys …`: the keys that everything stored is encrypted with. Works without a running node.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::SystemTime;

use clap::{Args, Subcommand};
use gantry_gateway::config::Config;
use gantry_gateway::rewrap::{self, Moved};
use gantry_gateway::run::objects;
use gantry_store::object::ObjectError;
use gantry_store::sealed::{KeyId, Keyring};
use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use serde::Serialize;

use super::Global;
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::words;

/// The keys that what is stored is encrypted with
#[derive(Args, Debug)]
#[command(subcommand_required = true, arg_required_else_help = true)]
#[command(before_help = "\
Examples:
  gantry keys status --count
  gantry keys rotate && gantry keys rewrap")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Status(Status),
    Rotate(Rotate),
    Rewrap(Rewrap),
}

/// Which keys there are, and which one new images are encrypted with
///
/// Names and ages only: a key itself is never shown.
#[derive(Args, Debug)]
#[command(before_help = "Example:\n  gantry keys status")]
struct Status {
    /// Also count how many stored images each key opens; reads the beginning of every one
    #[arg(long)]
    count: bool,
}

/// Make a new key, and encrypt new images with it from now on
///
/// A node that runs takes it over within a second. Older keys stay, as they open what is stored; `gantry keys rewrap` moves
/// that to the new key. Copy the new key to where the others are kept.
#[derive(Args, Debug)]
#[command(before_help = "Example:\n  gantry keys rotate")]
struct Rotate {}

/// Move what is stored to the newest key
///
/// Each image is written again with its new header, read back, and only then put in the old one's place; the node may run.
/// It can be interrupted and run again, and then goes on. No key is removed.
#[derive(Args, Debug)]
#[command(before_help = "Example:\n  gantry keys rotate && gantry keys rewrap")]
struct Rewrap {}

#[derive(Serialize)]
struct KeyringView {
    folder: PathBuf,
    current: String,
    keys: Vec<Key>,
    /// Stored images that could not be counted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unreadable: Vec<(String, String)>,
}

#[derive(Serialize)]
struct Key {
    id: String,
    made_at: Option<Timestamp>,
    mode: String,
    current: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    images: Option<u64>,
}

pub(crate) fn run(arguments: &Arguments, global: &Global, output: Output) -> Result<Exit, Failure> {
    let (config, _) = super::load_config(global, output)?;
    let folder = config.node.keys_dir();
    // Opening it checks every key and its mode.
    let keyring = Keyring::open(&folder).map_err(|error| Failure::because(Exit::Failed, &error))?;
    match &arguments.command {
        Command::Status(Status { count }) => {
            let counted = count.then(|| moved(&config, &keyring, true, output)).transpose()?;
            status(folder, &keyring, counted, output)
        }
        Command::Rotate(Rotate {}) => rotate(&keyring, output),
        Command::Rewrap(Rewrap {}) => rewrap(&config, &keyring, output),
    }
}

/// Looks at every object, and moves it to the current key unless it is only to be counted.
fn moved(
    config: &Config,
    keyring: &Keyring,
    only_count: bool,
    output: Output,
) -> Result<Moved, Failure> {
    let failed = |error: ObjectError| Failure::because(Exit::Failed, &error);
    let objects = objects(config).map_err(failed)?;
    let bar = ProgressBar::with_draw_target(None, output.progress_target());
    let style = ProgressStyle::with_template("{spinner} {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    let done = rewrap::rewrap(&*objects, keyring, &config.node.data_dir, only_count, |so_far| {
        bar.set_message(format!("{} looked at, {} moved", so_far.found, so_far.moved));
        bar.tick();
    });
    bar.finish_and_clear();
    done.map_err(failed)
}

fn rotate(keyring: &Keyring, output: Output) -> Result<Exit, Failure> {
    let old = keyring.current();
    let new = keyring.rotate().map_err(|error| Failure::because(Exit::Failed, &error))?;
    if output.is_json() {
        output.json(&serde_json::json!({ "old": old.to_string(), "current": new.to_string() }))?;
        return Ok(Exit::Done);
    }
    output.line(format_args!("new images are encrypted with key {new}"))?;
    output.say(format_args!("copy {new}.key to where the other keys are kept, now"));
    output.say("`gantry keys rewrap` moves what is stored to it");
    Ok(Exit::Done)
}

fn rewrap(config: &Config, keyring: &Keyring, output: Output) -> Result<Exit, Failure> {
    let done = moved(config, keyring, false, output)?;
    for (object, reason) in &done.failed {
        output.say(format_args!("left as it was: {object}: {reason}"));
    }
    if output.is_json() {
        output.json(&done)?;
    } else {
        output.line(format_args!(
            "{} looked at: {} moved to key {}, {} left as they were",
            words::count(done.found, "image", "images"),
            done.moved,
            keyring.current(),
            done.failed.len()
        ))?;
    }
    Ok(if done.failed.is_empty() { Exit::Done } else { Exit::Partly })
}

fn status(
    folder: PathBuf,
    keyring: &Keyring,
    counted: Option<Moved>,
    output: Output,
) -> Result<Exit, Failure> {
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
            images: counted
                .as_ref()
                .map(|counted| counted.by_key.get(&id.to_string()).copied().unwrap_or_default()),
        });
    }
    keys.sort_by(|one, other| (one.made_at, &one.id).cmp(&(other.made_at, &other.id)));
    let unreadable = counted.map(|counted| counted.failed).unwrap_or_default();
    let exit = if unreadable.is_empty() { Exit::Done } else { Exit::Partly };
    for (object, reason) in &unreadable {
        output.say(format_args!("cannot be read: {object}: {reason}"));
    }
    if output.is_json() {
        let current = keyring.current().to_string();
        output.json(&KeyringView { folder, current, keys, unreadable })?;
        return Ok(exit);
    }
    let rows = keys.iter().map(|key| {
        vec![
            key.id.clone(),
            key.made_at.map(words::day).unwrap_or_default(),
            key.mode.clone(),
            key.images.map(|images| images.to_string()).unwrap_or_default(),
            if key.current {
                "current: new images are encrypted with it"
            } else {
                "opens older images"
            }
            .to_owned(),
        ]
    });
    output.table(&["KEY", "MADE", "MODE", "IMAGES", ""], rows.collect())?;
    output.say(format_args!(
        "keep a copy of {} somewhere else: what is stored cannot be read without it",
        folder.display()
    ));
    Ok(exit)
}

fn timestamp(time: SystemTime) -> Option<Timestamp> {
    Timestamp::try_from(time).ok()
}
