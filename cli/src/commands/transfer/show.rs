//! `gantry transfer show`: one transfer with its series, its problems and what happened.

use clap::Args;
use gantry_store::index::EventKind;
use jiff::Timestamp;

use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::output::{Output, Paint};
use crate::views::{Event, Parcel, Shorten as _, TransferDetail};
use crate::words;

/// One transfer: series, problems and what to do, timeline
#[derive(Args, Debug)]
#[command(before_help = "\
Examples:
  gantry transfer show 7Q2M4KXD
  gantry transfer show 7Q2M4KXD --json | jq '.problems[].remedy.act'")]
pub(super) struct Arguments {
    /// Which transfer
    id: String,
    /// Show the patient in full
    #[arg(long)]
    reveal: bool,
}

pub(super) async fn run(
    arguments: &Arguments,
    node: &mut Client,
    output: Output,
) -> Result<Exit, Failure> {
    let id = super::find(&arguments.id, node).await?;
    let mut detail: TransferDetail = node.get(&format!("/api/v1/transfers/{id}")).await?;
    if !arguments.reveal {
        detail.shorten();
    }
    if output.is_json() {
        output.json(&detail)?;
    } else {
        let parcel = parcel_of(&detail, node).await?;
        print(&detail, parcel.as_ref(), output)?;
    }
    Ok(Exit::Done)
}

/// What it was sent together with, if that is more than itself.
async fn parcel_of(detail: &TransferDetail, node: &mut Client) -> Result<Option<Parcel>, Failure> {
    let Some(id) = detail.transfer.parcel else { return Ok(None) };
    match node.get(&format!("/api/v1/parcels/{id}")).await {
        Ok(parcel) => Ok(Some(parcel)),
        Err(Failure { exit: Exit::NotFound, .. }) => Ok(None),
        Err(failure) => Err(failure),
    }
}

fn print(detail: &TransferDetail, parcel: Option<&Parcel>, output: Output) -> Result<(), Failure> {
    let TransferDetail { transfer, series, problems, events, .. } = detail;
    let now = Timestamp::now();
    output.line(format_args!("{}  {}", super::flagged(transfer, output), transfer.sentence))?;
    output.line("")?;
    output.line(format_args!("transfer   {}", transfer.id))?;
    output.line(format_args!("to         {} ({})", transfer.partner_name, transfer.partner))?;
    output.line(format_args!("patient    {}", transfer.study.patient()))?;
    output.line(format_args!(
        "study      {}  {}",
        transfer.study.kind(),
        transfer.study.study_instance_uid
    ))?;
    if let Some(description) = &transfer.study.description {
        output.line(format_args!("           {description}"))?;
    }
    output.line(format_args!("complete   {}", transfer.study.completeness.in_full()))?;
    if let Some(parcel) = parcel {
        let state = super::state(parcel.state, output);
        output.line(format_args!("parcel     {state}  {}", parcel.sentence))?;
    }
    output.line(format_args!("priority   {}, for {}", transfer.priority, transfer.purpose))?;
    output.line(format_args!(
        "ordered    {} ago: {}",
        words::age(transfer.created_at, now),
        transfer.route
    ))?;
    output.line("")?;

    let rows = series.iter().map(|series| {
        let counts = series.counts;
        vec![
            series.number.map(|number| number.to_string()).unwrap_or_default(),
            series.modality.clone().unwrap_or_default(),
            format!("{} of {}", counts.delivered, counts.total),
            (counts.queued + counts.sending + counts.deferred).to_string(),
            counts.failed.to_string(),
            series.description.clone().unwrap_or_default(),
        ]
    });
    output.table(&["SERIES", "KIND", "ACCEPTED", "WAITING", "SET ASIDE", ""], rows.collect())?;

    for problem in problems {
        output.line("")?;
        let images = match (problem.set_aside, problem.deferred) {
            (0, deferred) => format!("{} delayed", words::count(deferred, "image", "images")),
            (aside, 0) => format!("{} set aside", words::count(aside, "image", "images")),
            (aside, deferred) => format!("{aside} images set aside, {deferred} delayed"),
        };
        output.line(format_args!(
            "{}: {}",
            output.paint(Paint::Yellow, &images),
            problem.remedy.what
        ))?;
        output.line(format_args!("  next     {}", problem.remedy.next))?;
        output.line(format_args!("  do       {}", problem.remedy.act))?;
        let status = problem
            .failure
            .status
            .map(|status| format!(" (status {status:04X}H)"))
            .unwrap_or_default();
        output.line(format_args!("  details  {}{status}", problem.failure.text))?;
    }

    output.line("")?;
    events.iter().try_for_each(|event| {
        output.line(format_args!("{}  {}", words::clock(event.at, now), happened(event)))
    })
}

/// An event in a few words.
fn happened(event: &Event) -> String {
    let what = match event.kind {
        EventKind::Created => "the first image was routed",
        EventKind::ReceivedAll => "all images that were sent to us are here",
        EventKind::FirstSent => "the partner accepted the first image",
        EventKind::AllSent => "the partner accepted all images",
        EventKind::Delayed => "delayed",
        EventKind::SetAside => "set aside",
        EventKind::Retried => "asked for anew",
        EventKind::Cancelled => "cancelled",
        EventKind::Paused => "paused",
        EventKind::Resumed => "resumed",
        EventKind::PriorityRaised => "made more urgent",
        EventKind::Reopened => "more images came",
        EventKind::Removed => "the images were removed here",
        EventKind::Recalled => "recalled",
        EventKind::RecallAccepted => "the partner accepted the note of the recall",
        EventKind::Confirmed => "the partner confirmed that it holds all images",
        EventKind::NotStored => "the partner does not have what it accepted; sent again",
        EventKind::Complete => "all that the source has is here",
        EventKind::Incomplete => "the source has more than is here",
        EventKind::NotCounted => "the source did not say what it has",
        EventKind::Fetched => "the source was asked for what is missing",
    };
    let by = event.actor.as_ref().map(|actor| format!(" by {actor}")).unwrap_or_default();
    let detail = event.detail.as_ref().filter(|detail| !detail.is_empty());
    let detail = detail.map(|detail| format!(": {detail}")).unwrap_or_default();
    format!("{what}{by}{detail}")
}
