//! `gantry study count`: asks the source of a study now what it has, and compares.

use clap::Args;
use gantry_store::dicom::StudyInstanceUid;
use gantry_store::index::CompletenessState;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::output::{Output, Paint};
use crate::views::{Completeness, CountedSeries, Shorten as _};
use crate::words;

/// Ask the source of a study now what it has, and compare with what is here
///
/// Ends with 0 if all of it is here, with 1 if the source has more or nobody can be asked, with 8 or 9 if the source
/// refuses or cannot be reached. With `fetch = true` at the source, what is missing is fetched by the node itself.
#[derive(Args, Debug)]
#[command(before_help = "\
Examples:
  gantry study count 1.2.826.0.1.3680043.8.498.1
  gantry study count 1.2.826.0.1.3680043.8.498.1 --json | jq '.counted[] | select(.missing > 0)'")]
pub(super) struct Count {
    /// Study Instance UID
    uid: StudyInstanceUid,
    /// Show what series are called
    #[arg(long)]
    reveal: bool,
}

#[derive(Serialize)]
struct Nothing {}

/// What came of asking.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Answer {
    Counted,
    NoSource,
    Refused,
    Unreachable,
}

/// What `study count --json` prints.
#[derive(Debug, Deserialize, Serialize)]
struct Shown {
    study_instance_uid: String,
    answer: Answer,
    completeness: Completeness,
    counted: Vec<CountedSeries>,
}

pub(super) async fn run(
    arguments: &Count,
    node: &mut Client,
    output: Output,
) -> Result<Exit, Failure> {
    let path = format!("/api/v1/studies/{}/count", arguments.uid);
    let mut counted: Shown = node.post(&path, &Nothing {}).await?;
    if !arguments.reveal {
        counted.completeness.shorten();
        counted.counted.shorten();
    }
    if output.is_json() {
        output.json(&counted)?;
    } else {
        print(&counted, output)?;
    }
    Ok(exit(&counted))
}

fn exit(counted: &Shown) -> Exit {
    match (counted.answer, counted.completeness.state) {
        (Answer::Unreachable, _) => Exit::Unreachable,
        (Answer::Refused, _) => Exit::Refused,
        (Answer::Counted, CompletenessState::Complete) => Exit::Done,
        (Answer::Counted | Answer::NoSource, _) => Exit::Failed,
    }
}

fn print(counted: &Shown, output: Output) -> Result<(), Failure> {
    let completeness = &counted.completeness;
    let paint = match completeness.state {
        CompletenessState::Complete => Paint::Green,
        CompletenessState::Incomplete => Paint::Red,
        _ => Paint::Yellow,
    };
    let state = output.paint(paint, completeness.state.as_str());
    output.line(format_args!("{state}  {}", completeness.in_full()))?;
    if let Some(surplus) = completeness.surplus.filter(|surplus| *surplus > 0) {
        let images = words::count(surplus, "image", "images");
        output.line(format_args!("{images} here that the source does not list"))?;
    }
    if let (CompletenessState::Incomplete, Some(why)) = (completeness.state, &completeness.why) {
        output.line(format_args!("asked again, it did not say what it has: {why}"))?;
    }
    if let (Some(source), Some(at)) = (&completeness.source, completeness.asked_at) {
        output.line(format_args!(
            "source     {source}, said {}",
            words::clock(at, Timestamp::now())
        ))?;
    }
    if counted.counted.is_empty() {
        return Ok(());
    }
    output.line("")?;
    let rows = counted.counted.iter().map(|series| {
        vec![
            series.number.map(|number| number.to_string()).unwrap_or_default(),
            series.modality.clone().unwrap_or_default(),
            series.expected.to_string(),
            series.expected.saturating_sub(series.missing).to_string(),
            series.missing.to_string(),
            series.description.clone().unwrap_or_default(),
        ]
    });
    output.table(&["SERIES", "KIND", "THERE", "HERE", "MISSING", ""], rows.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_told_what_came_of_it() {
        let counted = |answer, state| Shown {
            study_instance_uid: "1.2.3".to_owned(),
            answer,
            completeness: Completeness { state, ..Completeness::default() },
            counted: Vec::new(),
        };
        let incomplete = CompletenessState::Incomplete;
        for (answer, state, code) in [
            (Answer::Counted, CompletenessState::Complete, Exit::Done),
            (Answer::Counted, incomplete, Exit::Failed),
            (Answer::NoSource, CompletenessState::NoSource, Exit::Failed),
            (Answer::Refused, CompletenessState::Unanswered, Exit::Refused),
            (Answer::Unreachable, incomplete, Exit::Unreachable),
        ] {
            assert_eq!(exit(&counted(answer, state)), code, "{answer:?} {state:?}");
        }
    }
}
