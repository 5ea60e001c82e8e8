//! `gantry partner show`: who a partner is, and what it was found to take.
//!
//! Reads the configuration and what the node has noted, so the node need not run.

use clap::Args;
use gantry_gateway::config::{Associations, Config, Pace};
use gantry_gateway::partner::capabilities::{Capabilities, Capability};
use jiff::Timestamp;
use serde::Serialize;

use super::permission;
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::words;

/// Who is a partner, and what does it take?
///
/// Says what associations were given and refused lately: which kinds of object, in which encodings. `gantry partner test`
/// asks anew.
#[derive(Args, Debug)]
#[command(before_help = "\
Examples:
  gantry partner show york-ed
  gantry partner show york-ed --json | jq '.takes[] | select(.accepted)'")]
pub(super) struct Arguments {
    /// The partner, by its name in the configuration
    name: String,
}

#[derive(Serialize)]
struct View<'a> {
    name: &'a str,
    display_name: &'a str,
    ae_title: &'a str,
    address: String,
    may: Vec<&'static str>,
    compress: &'static str,
    associations: usize,
    rate: Option<u64>,
    off_peak: Option<String>,
    routine_waits_for_off_peak: bool,
    phone: Option<&'a str>,
    certificates_until: Option<Timestamp>,
    takes: Vec<Capability>,
}

pub(super) fn run(arguments: &Arguments, config: &Config, output: Output) -> Result<Exit, Failure> {
    let partner = config
        .partner(&arguments.name)
        .ok_or_else(|| super::super::unknown_partner(config, &arguments.name))?;
    let now = Timestamp::now();
    let view = View {
        name: &partner.name,
        display_name: &partner.display_name,
        ae_title: partner.ae_title.as_str(),
        address: partner.address.to_string(),
        may: partner.may.iter().copied().map(permission).collect(),
        compress: partner.compress.word(),
        associations: partner.associations.most(),
        rate: partner.pace.rate,
        off_peak: partner.pace.off_peak.map(|hours| hours.to_string()),
        routine_waits_for_off_peak: partner.pace.routine_waits,
        phone: partner.phone.as_deref(),
        certificates_until: partner.certificates_until,
        takes: Capabilities::of(&config.node.data_dir).known(&partner.name, now),
    };
    if output.is_json() {
        output.json(&view)?;
        return Ok(Exit::Done);
    }
    let until = view.certificates_until.map(words::day);
    for (label, text) in [
        ("partner", format!("{} ({})", view.name, view.display_name)),
        ("AE title", view.ae_title.to_owned()),
        ("address", view.address.clone()),
        ("may", view.may.join(", ")),
        ("compress", view.compress.to_owned()),
        ("at once", at_once(partner.associations)),
        ("pace", pace(&partner.pace)),
        ("certificate", until.map_or_else(|| "-".to_owned(), |day| format!("until {day}"))),
        ("phone", view.phone.unwrap_or("-").to_owned()),
    ] {
        output.line(format_args!("{label:<12} {text}"))?;
    }
    if view.takes.is_empty() {
        output.say("what it takes is not known yet: `gantry partner test` asks");
        return Ok(Exit::Done);
    }
    let rows = view.takes.iter().map(|known| {
        vec![
            known.kind(),
            known.encoding(),
            if known.accepted { "yes" } else { "no" }.to_owned(),
            format!("{} ago", words::age(known.at, now)),
        ]
    });
    output.table(&["KIND OF OBJECT", "ENCODING", "TAKEN", "ASKED"], rows.collect())?;
    Ok(Exit::Done)
}

fn at_once(associations: Associations) -> String {
    match associations {
        Associations::Fixed(count) => words::count(count as u64, "association", "associations"),
        Associations::Auto => format!(
            "{} to {} associations, as the link needs",
            Associations::FEWEST,
            Associations::MOST
        ),
    }
}

/// When and how fast what is no emergency goes.
fn pace(pace: &Pace) -> String {
    let rate = pace.rate.map(|rate| format!("{} a second", words::bytes(rate)));
    match (rate, pace.off_peak) {
        (None, None) => "as fast as the link is".to_owned(),
        (Some(rate), None) => format!("{rate} for what is no emergency"),
        (None, Some(hours)) => format!("routine only {hours}"),
        (Some(rate), Some(hours)) if pace.routine_waits => {
            format!("routine only {hours}, urgent {rate} in other hours")
        }
        (Some(rate), Some(hours)) => {
            format!("{rate} for what is no emergency, but for {hours}")
        }
    }
}
