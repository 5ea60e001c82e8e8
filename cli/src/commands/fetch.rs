//! `gantry fetch`: has a source or a partner send a study to this node, by C-MOVE in the Study Root model (PS3.4 C.4.2).
//!
//! Asks from this process, with the node's AE title and certificate; what comes is taken in by the node, which has to run, and
//! goes where routes say.

use clap::Args;
use dicom_dictionary_std::tags;
use gantry_gateway::association::data_set::DataSet;
use gantry_gateway::association::query::MOVE;
use gantry_gateway::association::services::storage_commitment::known;
use gantry_gateway::association::status::{Meaning, Status};
use gantry_gateway::partner::connect;
use gantry_store::dicom::{SeriesInstanceUid, StudyInstanceUid};
use serde::Serialize;

use super::{Global, peer};
use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::words;

/// Have a source or a partner send a study to this node
///
/// The other end must know this node: its AE title, host and port. What comes is taken in like everything that it sends, and
/// goes where routes say. Ends with 0 when all came, 6 when some did, and 1 when nothing did.
#[derive(Args, Debug)]
#[command(before_help = "\
Examples:
  gantry fetch 1.2.826.0.1.3680043.8.498.1 --from pacs
  gantry query --at pacs --accession RXX1234567 --json | jq -r '.found[].study_instance_uid' | xargs -n1 gantry fetch --from pacs")]
pub(crate) struct Arguments {
    /// Study Instance UID
    study: StudyInstanceUid,
    /// Who has it, by the name in the configuration
    #[arg(long, value_name = "NAME")]
    from: String,
    /// Only this series
    #[arg(long, value_name = "UID")]
    series: Option<SeriesInstanceUid>,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Fetched {
    schema: u32,
    study_instance_uid: StudyInstanceUid,
    from: String,
    /// Images that the other end says it sent and this node took.
    came: u64,
    failed: u64,
    /// The last status of the C-MOVE, in four hexadecimal digits.
    status: String,
    meaning: &'static str,
}

pub(crate) async fn run(
    arguments: &Arguments,
    global: &Global,
    output: Output,
) -> Result<Exit, Failure> {
    let (config, _) = super::load_config(global, output)?;
    // Nobody would take in what comes.
    drop(Client::connect(&config).await?);
    let model = known(MOVE);
    let (mut association, context) = peer::associate(&config, &arguments.from, &model).await?;
    let level = if arguments.series.is_some() { "SERIES" } else { "STUDY" };
    let mut identifier = DataSet::default()
        .with(tags::QUERY_RETRIEVE_LEVEL, level)
        .with(tags::STUDY_INSTANCE_UID, arguments.study.as_str());
    if let Some(series) = &arguments.series {
        identifier = identifier.with(tags::SERIES_INSTANCE_UID, series.as_str());
    }
    let bar = output.bar(0, "Fetching");
    let moved = association
        .move_to(context, &model, &config.node.ae_title, &identifier, |so_far| {
            let done = u64::from(so_far.completed + so_far.failed + so_far.warning);
            bar.set_length(done + u64::from(so_far.remaining));
            bar.set_position(done);
        })
        .await
        .map_err(|error| peer::failed(&arguments.from, &connect::explain(&error)));
    bar.finish_and_clear();
    let moved = moved?;
    association.release(config.limits.release_timeout).await;
    if moved.status == Status::MOVE_DESTINATION_UNKNOWN {
        let message = format!("{} does not know where {} is", arguments.from, config.node.ae_title);
        return Err(Failure::new(Exit::Refused, message).hint(format_args!(
            "ask whoever runs it to enter this node's AE title {}, host and port",
            config.node.ae_title
        )));
    }
    let came = u64::from(moved.images.completed) + u64::from(moved.images.warning);
    let fetched = Fetched {
        schema: 1,
        study_instance_uid: arguments.study.clone(),
        from: arguments.from.clone(),
        came,
        failed: u64::from(moved.images.failed),
        status: format!("{:04X}", moved.status.0),
        meaning: moved.status.words(),
    };
    let whole = moved.status.meaning() == Meaning::Success;
    tell(&fetched, whole, output)?;
    Ok(match (whole, came) {
        (true, 0) => Exit::NotFound,
        (true, _) => Exit::Done,
        (false, 0) => Exit::Failed,
        (false, _) => Exit::Partly,
    })
}

fn tell(fetched: &Fetched, whole: bool, output: Output) -> Result<(), Failure> {
    if output.is_json() {
        return output.json(fetched);
    }
    let failed = match fetched.failed {
        0 => String::new(),
        failed => format!(", {failed} failed"),
    };
    output.line(format_args!(
        "{} came from {}{failed}",
        words::count(fetched.came, "image", "images"),
        fetched.from
    ))?;
    if whole && fetched.came == 0 {
        output.say(format_args!("{} says that it has nothing of this study", fetched.from));
    } else if !whole {
        output.say(format_args!(
            "{} ended with {}: {}",
            fetched.from, fetched.status, fetched.meaning
        ));
    }
    Ok(())
}
