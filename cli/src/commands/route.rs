//! `gantry route …`: what goes where, and why. Works without a running node, but for what the node holds.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use dicom_dictionary_std::tags;
use gantry_gateway::config::Config;
use gantry_gateway::route::explain::{Explanation, explain};
use gantry_gateway::web::part10::FileMeta;
use gantry_store::dicom::scanner::{Budget, Scan, Scanner};
use gantry_store::dicom::{AeTitle, SopInstanceUid};
use gantry_store::facts::{Digest, Digester, Facts, ObjectId, Origin, Way};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Global, send};
use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::output::{Output, Paint};

/// What goes where, and why
#[derive(Args, Debug)]
#[command(subcommand_required = true, arg_required_else_help = true)]
#[command(before_help = "\
Examples:
  gantry route list
  gantry route explain image.dcm --called RI_EMERG
  gantry route explain 1.2.826.0.1.3680043.8.498.1.7")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(List),
    Explain(Explain),
}

/// Every route of the configuration
#[derive(Args, Debug)]
#[command(before_help = "Example:\n  gantry route list")]
struct List {}

/// Why an image goes where it goes
///
/// Of a file it says where it would go if it came now, from --source calling --called; of an instance that the node
/// holds, where it would go by the configuration that the node runs on.
#[derive(Args, Debug)]
#[command(before_help = "\
Examples:
  gantry route explain image.dcm --source ct-scanner --called RI_EMERG
  gantry route explain 1.2.826.0.1.3680043.8.498.1.7")]
struct Explain {
    /// A DICOM file, or the SOP Instance UID of what the node holds
    #[arg(value_name = "FILE|UID")]
    what: String,
    /// Which source or partner it would come from
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// What its sender would call itself [default: what the source does]
    #[arg(long, value_name = "AE")]
    calling: Option<AeTitle>,
    /// What its sender would call [default: this node]
    #[arg(long, value_name = "AE")]
    called: Option<AeTitle>,
    /// Which listener it would come through, as configured
    #[arg(long, value_name = "ADDRESS")]
    listener: Option<String>,
    /// Show what it says of the patient
    #[arg(long)]
    reveal: bool,
}

#[derive(Serialize)]
struct RouteView<'a> {
    name: &'a str,
    when: Vec<String>,
    to: &'a [String],
    purpose: &'static str,
    priority: &'static str,
    protect: String,
}

/// An explanation as it is shown: the node's answer, or our own.
#[derive(Deserialize, Serialize)]
struct Shown {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    fetched_like: Vec<Way>,
    routes: Vec<Verdict>,
    destinations: Vec<Destination>,
}

#[derive(Deserialize, Serialize)]
struct Verdict {
    route: String,
    matches: bool,
    conditions: Vec<Condition>,
}

#[derive(Deserialize, Serialize)]
struct Condition {
    on: String,
    value: Option<String>,
    any_of: Vec<String>,
    holds: bool,
}

#[derive(Deserialize, Serialize)]
struct Destination {
    partner: String,
    route: String,
    priority: String,
    purpose: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    protection: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    protected_at_intake: bool,
}

#[derive(Serialize)]
struct Question<'a> {
    instance: &'a SopInstanceUid,
}

pub(crate) async fn run(
    arguments: Arguments,
    global: &Global,
    output: Output,
) -> Result<Exit, Failure> {
    let (config, _) = super::load_config(global, output)?;
    match arguments.command {
        Command::List(List {}) => list(&config, output),
        Command::Explain(arguments) => {
            let path = PathBuf::from(&arguments.what);
            let mut shown = match arguments.what.parse::<SopInstanceUid>() {
                Ok(instance) if !path.exists() => {
                    let mut node = Client::connect(&config).await?;
                    node.post("/api/v1/routes/explain", &Question { instance: &instance }).await?
                }
                _ => Shown::from(explain(&config.routes, &facts(&path, &arguments, &config)?)),
            };
            if !arguments.reveal {
                shown.hide();
            }
            if output.is_json() {
                output.json(&shown)?;
            } else {
                print(&shown, output)?;
            }
            Ok(if shown.destinations.is_empty() { Exit::Failed } else { Exit::Done })
        }
    }
}

fn list(config: &Config, output: Output) -> Result<Exit, Failure> {
    let routes: Vec<_> = config
        .routes
        .iter()
        .map(|route| RouteView {
            name: &route.name,
            when: super::conditions(route),
            to: &route.to,
            purpose: route.purpose.as_str(),
            priority: route.priority.as_str(),
            protect: format!(
                "{}{}",
                route.protect,
                if route.at_intake { ", at intake" } else { "" }
            ),
        })
        .collect();
    if output.is_json() {
        output.json(&routes)?;
    } else if routes.is_empty() {
        output.say("no routes: nothing leaves by itself");
    } else {
        let rows = routes.iter().map(|route| {
            vec![
                route.name.to_owned(),
                route.when.join(", "),
                route.to.join(", "),
                route.priority.to_owned(),
                route.purpose.to_owned(),
                route.protect.clone(),
            ]
        });
        let heads = ["ROUTE", "WHEN", "TO", "PRIORITY", "PURPOSE", "PROTECT"];
        output.table(&heads, rows.collect())?;
    }
    Ok(Exit::Done)
}

/// What the node would know of the file if it came as the command line says.
fn facts(path: &Path, arguments: &Explain, config: &Config) -> Result<Facts, Failure> {
    let failed = |error: std::io::Error| Failure::of_file("read", path, &error);
    let head = send::read_head(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => failed(error)
            .hint("give a DICOM file, or the SOP Instance UID of an image that the node holds"),
        _ => failed(error),
    })?;
    let not_dicom = |error: &dyn std::error::Error| {
        Failure::new(
            Exit::Failed,
            format_args!("{} cannot be read as DICOM: {error}", path.display()),
        )
    };
    let (FileMeta { transfer_syntax, .. }, begins) = head.map_err(|error| not_dicom(&error))?;
    let mut scanner: Scanner<()> = Scanner::new(&transfer_syntax, Budget::default());
    let mut digester = Digester::default();
    let mut file = File::open(path).map_err(failed)?;
    file.seek(SeekFrom::Start(begins)).map_err(failed)?;
    let mut piece = vec![0; 256 << 10];
    loop {
        let read = file.read(&mut piece).map_err(failed)?;
        if read == 0 {
            break;
        }
        let piece = piece.get(..read).unwrap_or_default();
        digester.update(piece);
        scanner.feed(piece).map_err(|error| not_dicom(&error))?;
    }
    let scan = scanner.finish().map_err(|error| not_dicom(&error))?;
    let origin = origin(arguments, config)?;
    of_scan(scan, digester.finish(), transfer_syntax, origin).ok_or_else(|| {
        Failure::new(Exit::Failed, format_args!("{} lacks one of its UIDs", path.display()))
    })
}

fn of_scan(
    scan: Scan,
    digest: Digest,
    transfer_syntax: gantry_store::dicom::TransferSyntax,
    origin: Origin,
) -> Option<Facts> {
    let attributes = scan.attributes;
    Some(Facts {
        object: ObjectId::new(),
        received_at: Timestamp::now(),
        origin,
        sop_class: attributes.text(tags::SOP_CLASS_UID)?.parse().ok()?,
        sop_instance: attributes.text(tags::SOP_INSTANCE_UID)?.parse().ok()?,
        study: attributes.text(tags::STUDY_INSTANCE_UID)?.parse().ok()?,
        series: attributes.text(tags::SERIES_INSTANCE_UID)?.parse().ok()?,
        transfer_syntax,
        length: scan.length,
        digest,
        pixel_data_offset: scan.pixel_data_offset,
        protected: None,
        attributes,
    })
}

fn origin(arguments: &Explain, config: &Config) -> Result<Origin, Failure> {
    let ours = &config.node.ae_title;
    let (sender, from_partner, ae_title) = match &arguments.source {
        None => (String::new(), false, None),
        Some(name) => match (config.source(name), config.partner(name)) {
            (Some(source), _) => (name.clone(), false, Some(source.ae_title.clone())),
            (None, Some(partner)) => (name.clone(), true, Some(partner.ae_title.clone())),
            (None, None) => {
                let names: Vec<_> =
                    config.sources.iter().map(|source| source.name.as_str()).collect();
                return Err(Failure::new(
                    Exit::NotFound,
                    format_args!("there is no source or partner {name:?}"),
                )
                .hint(format_args!("sources: {}", names.join(", "))));
            }
        },
    };
    Ok(Origin {
        listener: arguments.listener.clone().unwrap_or_default(),
        sender,
        from_partner,
        calling_ae_title: arguments.calling.clone().or(ae_title).unwrap_or_else(|| ours.clone()),
        called_ae_title: arguments.called.clone().unwrap_or_else(|| ours.clone()),
        addressed_to: None,
        fetched_like: Vec::new(),
    })
}

impl From<Explanation> for Shown {
    fn from(explanation: Explanation) -> Self {
        let condition = |verdict: gantry_gateway::route::explain::ConditionVerdict| Condition {
            on: verdict.on,
            value: verdict.value,
            any_of: verdict.any_of,
            holds: verdict.holds,
        };
        Self {
            fetched_like: explanation.fetched_like,
            routes: explanation
                .routes
                .into_iter()
                .map(|verdict| Verdict {
                    route: verdict.route,
                    matches: verdict.matches,
                    conditions: verdict.conditions.into_iter().map(condition).collect(),
                })
                .collect(),
            destinations: explanation
                .destinations
                .into_iter()
                .map(|to| Destination {
                    partner: to.partner,
                    route: to.route,
                    priority: to.priority.to_string(),
                    purpose: to.purpose.to_string(),
                    protection: to.protection,
                    protected_at_intake: to.protected_at_intake,
                })
                .collect(),
        }
    }
}

impl Shown {
    /// Takes out values that may be about a patient: all but those of a device, a place or a kind of image.
    fn hide(&mut self) {
        const NOT_ABOUT_PATIENTS: [&str; 14] = [
            "listener",
            "calling-ae-title",
            "called-ae-title",
            "source",
            "partner",
            "modality",
            "manufacturer",
            "institution-name",
            "station-name",
            "body-part-examined",
            "slice-thickness",
            "image-type",
            "sop-class-uid",
            "burned-in-annotation",
        ];
        for condition in self.routes.iter_mut().flat_map(|verdict| &mut verdict.conditions) {
            if condition.value.is_some() && !NOT_ABOUT_PATIENTS.contains(&condition.on.as_str()) {
                condition.value = Some("(hidden; --reveal shows it)".to_owned());
            }
        }
    }
}

fn print(shown: &Shown, output: Output) -> Result<(), Failure> {
    for verdict in &shown.routes {
        let sign = if verdict.matches {
            output.paint(Paint::Green, "✓")
        } else {
            output.paint(Paint::Red, "✗")
        };
        output.line(format_args!("{sign} {}", verdict.route))?;
        for condition in &verdict.conditions {
            let sign = if condition.holds { "✓" } else { "✗" };
            let value = condition.value.as_deref().unwrap_or("nothing");
            output.line(format_args!(
                "    {sign} {} is {value}; wanted {}",
                condition.on,
                condition.any_of.join(" or ")
            ))?;
        }
    }
    if !shown.routes.is_empty() {
        output.line("")?;
    }
    for way in &shown.fetched_like {
        output.line(format_args!(
            "It was fetched to complete its study, so routes take it also as what {} sent to {} as {} through {}.",
            way.sender, way.called_ae_title, way.calling_ae_title, way.listener
        ))?;
    }
    if shown.destinations.is_empty() {
        return output.line("It goes nowhere: no route matches.");
    }
    for to in &shown.destinations {
        output.line(format_args!(
            "It goes to {} as {}, for {}, by \"{}\"{}.",
            to.partner,
            to.priority,
            to.purpose,
            to.route,
            protected(to.protection.as_deref(), to.protected_at_intake)
        ))?;
    }
    Ok(())
}

/// What a protection means, for people.
fn protected(protection: Option<&str>, at_intake: bool) -> String {
    let Some((kind, of)) = protection.and_then(|name| name.split_once(':')) else {
        return String::new();
    };
    let how = match kind {
        "seal" => format!("with identity encrypted to {of}"),
        "pseudonymise" => format!("pseudonymised for project {of}"),
        _ => format!("de-identified by project {of}, each study for itself"),
    };
    let kept = if at_intake { "; the original is not kept" } else { "" };
    format!(", {how}{kept}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_about_a_patient_is_hidden() {
        let condition = |on: &str| Condition {
            on: on.to_owned(),
            value: Some("SMITH".to_owned()),
            any_of: Vec::new(),
            holds: true,
        };
        let conditions = ["patient-name", "study-description", "modality", "something-new"]
            .map(condition)
            .into();
        let verdict = Verdict { route: String::new(), matches: true, conditions };
        let mut shown =
            Shown { fetched_like: Vec::new(), routes: vec![verdict], destinations: Vec::new() };

        shown.hide();

        let seen: Vec<_> = shown.routes[0]
            .conditions
            .iter()
            .map(|c| c.value.as_deref() == Some("SMITH"))
            .collect();
        assert_eq!(seen, [false, false, true, false]);
    }
}
