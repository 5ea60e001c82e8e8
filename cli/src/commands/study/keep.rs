//! `gantry study hold`, `release` and `delete`: what a person decides about keeping a study.

use std::io::{self, Write as _};

use clap::Args;
use gantry_gateway::config::Config;
use gantry_store::dicom::StudyInstanceUid;
use serde::{Deserialize, Serialize};

use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::words;

/// Put a study under a legal hold: nobody and no rule removes its images
#[derive(Args, Debug)]
#[command(
    before_help = "Example:\n  gantry study hold 1.2.826.0.1.3680043.8.498.1 --reason \"coroner, case 17\""
)]
pub(super) struct Hold {
    /// Study Instance UID
    uid: StudyInstanceUid,
    /// Why; it goes on record
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

/// Lift a legal hold
#[derive(Args, Debug)]
#[command(
    before_help = "Example:\n  gantry study release 1.2.826.0.1.3680043.8.498.1 --reason \"case closed\""
)]
pub(super) struct Release {
    /// Study Instance UID
    uid: StudyInstanceUid,
    /// Why; it goes on record
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

/// Remove a study's images from this node
///
/// What partners have stays with them, and the record of it stays here. Refused while anything of the study is owed to a
/// partner or held. Images in quarantine stay.
#[derive(Args, Debug)]
#[command(
    before_help = "Example:\n  gantry study delete 1.2.826.0.1.3680043.8.498.1 --reason \"sent in error\" --dry-run"
)]
pub(super) struct Delete {
    /// Study Instance UID
    uid: StudyInstanceUid,
    /// Why; it goes on record
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Only say what would go
    #[arg(long)]
    dry_run: bool,
}

#[derive(Serialize)]
struct Ask<'a> {
    reason: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    dry_run: bool,
}

/// What `study hold --json` and `study release --json` print.
#[derive(Debug, Deserialize, Serialize)]
struct Set {
    study_instance_uid: String,
    held: bool,
}

/// What `study delete --json` prints.
#[derive(Debug, Deserialize, Serialize)]
struct Removed {
    study_instance_uid: String,
    dry_run: bool,
    images: u64,
    bytes: u64,
}

pub(super) async fn hold(
    arguments: &Hold,
    node: &mut Client,
    output: Output,
) -> Result<Exit, Failure> {
    set(&arguments.uid, "hold", &arguments.reason, node, output).await
}

pub(super) async fn release(
    arguments: &Release,
    node: &mut Client,
    output: Output,
) -> Result<Exit, Failure> {
    set(&arguments.uid, "release", &arguments.reason, node, output).await
}

async fn set(
    uid: &StudyInstanceUid,
    what: &str,
    reason: &str,
    node: &mut Client,
    output: Output,
) -> Result<Exit, Failure> {
    let ask = Ask { reason, dry_run: false };
    let set: Set = node.post(&format!("/api/v1/studies/{uid}/{what}"), &ask).await?;
    if output.is_json() {
        output.json(&set)?;
    } else {
        let state = if set.held { "held" } else { "not held" };
        output.line(format_args!("{}  {state}", set.study_instance_uid))?;
    }
    Ok(Exit::Done)
}

pub(super) async fn delete(
    arguments: &Delete,
    config: &Config,
    node: &mut Client,
    output: Output,
) -> Result<Exit, Failure> {
    let Delete { uid, reason, yes, dry_run } = arguments;
    let path = format!("/api/v1/studies/{uid}/delete");
    if !yes && !dry_run {
        if !output.can_ask() {
            return Err(Failure::new(
                Exit::Usage,
                "nobody is here to be asked whether to remove it",
            )
            .hint("add --yes"));
        }
        let would: Removed = node.post(&path, &Ask { reason, dry_run: true }).await?;
        let images = words::count(would.images, "image", "images");
        let mut err = io::stderr().lock();
        let asked = write!(err, "{images} will be gone from this node for good. Remove? [y/N] ");
        let _ = asked.and_then(|()| err.flush());
        let mut answer = String::new();
        let heard = io::stdin().read_line(&mut answer);
        if heard.is_err() || !matches!(answer.trim(), "y" | "Y" | "yes") {
            return Err(Failure::new(Exit::Failed, "nothing was removed"));
        }
        // The node may have closed the connection while a person thought about it.
        *node = Client::connect(config).await?;
    }
    let removed: Removed = node.post(&path, &Ask { reason, dry_run: *dry_run }).await?;
    if output.is_json() {
        output.json(&removed)?;
    } else {
        output.line(format_args!(
            "{}, {} {}",
            words::count(removed.images, "image", "images"),
            words::bytes(removed.bytes),
            if removed.dry_run { "would be removed" } else { "removed" }
        ))?;
    }
    Ok(Exit::Done)
}
