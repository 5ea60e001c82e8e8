//! `gantry study share` and `unshare`: what a partner may find and fetch beyond what is addressed to it.

use clap::Args;
use gantry_store::dicom::StudyInstanceUid;
use jiff::{Timestamp, Zoned};
use serde::{Deserialize, Serialize};

use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::words;

/// Let a partner find and fetch a study
///
/// The partner sees it as it was received, with identity, until the time that is given or until it is taken back. It must be one
/// that may query or retrieve. What it fetched meanwhile stays with it.
#[derive(Args, Debug)]
#[command(before_help = "\
Examples:
  gantry study share 1.2.826.0.1.3680043.8.498.1 --with york-ed --until 2026-12-24 --reason \"second opinion\"
  gantry study share 1.2.826.0.1.3680043.8.498.1    with whom it is shared")]
pub(super) struct Share {
    /// Study Instance UID
    uid: StudyInstanceUid,
    /// The partner, by its name in the configuration; without one the shares of the study are listed
    #[arg(long, value_name = "PARTNER", requires = "reason")]
    with: Option<String>,
    /// The end: a day, which is not included, or a time such as 2026-12-24T18:00; without one there is none
    #[arg(long, value_name = "TIME", requires = "with", value_parser = time)]
    until: Option<Timestamp>,
    /// Why; it goes on record
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// Take back what a partner was let see
#[derive(Args, Debug)]
#[command(
    before_help = "Example:\n  gantry study unshare 1.2.826.0.1.3680043.8.498.1 --with york-ed --reason \"opinion given\""
)]
pub(super) struct Unshare {
    /// Study Instance UID
    uid: StudyInstanceUid,
    /// The partner, by its name in the configuration
    #[arg(long, value_name = "PARTNER")]
    with: String,
    /// Why; it goes on record
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

#[derive(Serialize)]
struct Ask<'a> {
    partner: &'a str,
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<Timestamp>,
}

/// What `--json` prints.
#[derive(Debug, Deserialize, Serialize)]
struct Shares {
    study_instance_uid: String,
    shares: Vec<One>,
}

#[derive(Debug, Deserialize, Serialize)]
struct One {
    partner: String,
    protection: Option<String>,
    until: Option<Timestamp>,
    reason: String,
    by: String,
    at: Timestamp,
    revoked_at: Option<Timestamp>,
    revoked_by: Option<String>,
}

/// A day or a time here, or a time with its offset.
fn time(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    let zone = Zoned::now().time_zone().clone();
    let there = text.parse::<jiff::civil::DateTime>().and_then(|time| time.to_zoned(zone));
    there.map(|time| time.timestamp()).map_err(|_| "it is neither a day nor a time".to_owned())
}

pub(super) async fn share(
    arguments: &Share,
    node: &mut Client,
    output: Output,
) -> Result<Exit, Failure> {
    let Share { uid, with, until, reason } = arguments;
    let path = format!("/api/v1/studies/{uid}/shares");
    let shares: Shares = match with {
        None => node.get(&path).await?,
        Some(partner) => {
            let reason = reason.as_deref().unwrap_or_default();
            node.post(&path, &Ask { partner, reason, until: *until }).await?
        }
    };
    print(&shares, output)
}

pub(super) async fn unshare(
    arguments: &Unshare,
    node: &mut Client,
    output: Output,
) -> Result<Exit, Failure> {
    let Unshare { uid, with, reason } = arguments;
    let ask = Ask { partner: with, reason, until: None };
    let shares: Shares = node.post(&format!("/api/v1/studies/{uid}/unshare"), &ask).await?;
    print(&shares, output)
}

fn print(shares: &Shares, output: Output) -> Result<Exit, Failure> {
    if output.is_json() {
        output.json(shares)?;
        return Ok(Exit::Done);
    }
    if shares.shares.is_empty() {
        output.say("it is shared with nobody; what is addressed to a partner it sees anyway");
        return Ok(Exit::Done);
    }
    let now = Timestamp::now();
    let state = |one: &One| match (one.revoked_at, one.until) {
        (Some(at), _) => format!("ended {}", words::clock(at, now)),
        (None, Some(until)) if until <= now => format!("ended {}", words::clock(until, now)),
        (None, Some(until)) => format!("until {}", words::day(until)),
        (None, None) => "without end".to_owned(),
    };
    let rows = shares
        .shares
        .iter()
        .map(|one| vec![one.partner.clone(), state(one), one.by.clone(), one.reason.clone()]);
    output.table(&["PARTNER", "", "BY", "REASON"], rows.collect())?;
    Ok(Exit::Done)
}
