//! `gantry deid explain`: what a profile does to one file, and why; nothing is written.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use gantry_deidentify::engine::{Deidentifier, Linkage, Made, SetAside};
use gantry_deidentify::process::{PixelReport, TextSearch};
use gantry_deidentify::report::is_safety_rule;
use serde::Serialize;

use super::apply::{masks, tools};
use super::input::{Input, NotRead};
use super::rows::{Row, rows};
use super::{profiles, project_key};
use crate::exit::{Exit, Failure};
use crate::output::{Output, Paint};
use crate::words;

/// Show what a profile does to a file, attribute by attribute, and why; nothing is written
///
/// Text that stays comes first, as that is what a reviewer reads. Values are hidden unless --show-values. Ends with 0 when the
/// file would be written, 10 when a safety rule would set it aside, and 1 when it would be set aside for another reason.
#[derive(Args, Debug)]
#[command(before_help = "\
Examples:
  gantry deid explain ct.dcm --profile research
  gantry deid explain ct.dcm --profile research-lung.toml --key lung.key --show-values")]
pub(super) struct Explain {
    /// The file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The profile: one that comes with the program, or a file
    #[arg(long, value_name = "NAME|FILE")]
    profile: String,
    /// The project key, to see the very pseudonyms
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Show values before and after: this shows patient data
    #[arg(long)]
    show_values: bool,
}

/// What `deid explain --json` prints.
#[derive(Serialize)]
struct Explained {
    schema: u32,
    profile: String,
    key_fingerprint: String,
    key_kept: bool,
    /// Whether it would be written.
    written: bool,
    /// Why not.
    set_aside: Option<String>,
    by_rule: bool,
    sop_instance_uid: Option<String>,
    pixels: Option<Pixels>,
    kept_text: Vec<Row>,
    attributes: Vec<Row>,
    totals: Vec<Total>,
}

#[derive(Serialize)]
struct Pixels {
    risk: Option<String>,
    mask: Option<String>,
    passed_without_mask: Option<String>,
    face: Option<String>,
    notes: Vec<String>,
    text_search: Option<String>,
}

#[derive(Serialize)]
struct Total {
    decided_by: String,
    action: &'static str,
    attributes: u64,
}

/// A file that somebody named.
pub(super) fn open(path: &Path) -> Result<Input, Failure> {
    Input::open(path).map_err(|error| match error {
        NotRead::Io(error) => Failure::of_file("read", path, &error),
        other => Failure::new(Exit::Failed, format_args!("{}: {other}", path.display()))
            .hint("name a DICOM file (PS3.10)"),
    })
}

pub(super) fn run(arguments: &Explain, output: Output) -> Result<Exit, Failure> {
    let named = profiles::load(&arguments.profile, output)?;
    let masks = masks(&[], &named)?;
    let input = open(&arguments.file)?;
    let key = project_key::of(arguments.key.as_deref(), output)?;
    if arguments.show_values {
        output.say("warning: this shows patient data");
    }
    let tools = tools(&named.profile, masks, Vec::new(), output);
    let deidentifier = Deidentifier::new(named.profile, key, Linkage::Project);
    let parsed = input.parsed();
    let original = match &parsed {
        Ok(parsed) if arguments.show_values => Some(parsed.data_set.clone()),
        _ => None,
    };
    let made = parsed.and_then(|parsed| deidentifier.make(parsed));
    // The rest of it: pixels, and verification.
    let outcome = deidentifier.process(&input.data_set, &input.meta.transfer_syntax, &tools);
    let profile = deidentifier.profile();
    let attributes =
        made.as_ref().map(|made| rows(made, profile, original.as_ref())).unwrap_or_default();
    let set_aside: Option<&SetAside> = outcome.as_ref().err();
    let explained = Explained {
        schema: 1,
        profile: profile.reference(),
        key_fingerprint: deidentifier.key_fingerprint(),
        key_kept: arguments.key.is_some(),
        written: set_aside.is_none(),
        set_aside: set_aside.map(ToString::to_string),
        by_rule: set_aside.is_some_and(is_safety_rule),
        sop_instance_uid: made.as_ref().ok().map(|made: &Made| made.sop_instance.1.clone()),
        pixels: outcome.as_ref().ok().map(|object| pixels(&object.pixels)),
        kept_text: attributes.iter().filter(|row| row.kept_text).cloned().collect(),
        totals: totals(&attributes),
        attributes,
    };
    if output.is_json() {
        output.json(&explained)?;
    } else {
        print(&explained, arguments.show_values, output)?;
    }
    Ok(match (explained.written, explained.by_rule) {
        (true, _) => Exit::Done,
        (false, true) => Exit::Unsafe,
        (false, false) => Exit::Failed,
    })
}

fn pixels(report: &PixelReport) -> Pixels {
    Pixels {
        risk: report.risk.clone(),
        mask: report.mask.clone(),
        passed_without_mask: report.passed.clone(),
        face: report.face.clone(),
        notes: report.notes.clone(),
        text_search: report.text_search.as_ref().map(|search| match search {
            TextSearch::Clear { frames } => {
                format!("nothing legible in {}", words::count(*frames as u64, "frame", "frames"))
            }
            TextSearch::NotChecked(why) => format!("not checked: {why}"),
        }),
    }
}

fn totals(rows: &[Row]) -> Vec<Total> {
    let mut totals: BTreeMap<_, (String, &'static str, u64)> = BTreeMap::new();
    for row in rows {
        let total = totals
            .entry((row.origin, row.done))
            .or_insert_with(|| (row.decided_by.clone(), row.action, 0));
        total.2 += row.times;
    }
    totals
        .into_values()
        .map(|(decided_by, action, attributes)| Total { decided_by, action, attributes })
        .collect()
}

fn print(explained: &Explained, values: bool, output: Output) -> Result<(), Failure> {
    let verdict = match &explained.set_aside {
        Some(why) => output.paint(Paint::Yellow, &format!("would be set aside: {why}")),
        None => output.paint(Paint::Green, "would be written"),
    };
    output.line(format_args!(
        "{}, key {}\n{verdict}",
        explained.profile, explained.key_fingerprint
    ))?;
    if let Some(pixels) = &explained.pixels {
        let said = [
            ("risk", &pixels.risk),
            ("mask", &pixels.mask),
            ("no mask, because", &pixels.passed_without_mask),
            ("face", &pixels.face),
            ("text in pixels", &pixels.text_search),
        ];
        for (what, text) in said {
            if let Some(text) = text {
                output.line(format_args!("{what}: {text}"))?;
            }
        }
        for note in &pixels.notes {
            output.line(format_args!("pixels: {note}"))?;
        }
    }
    section("Text that stays", &explained.kept_text, values, output)?;
    section("All attributes", &explained.attributes, values, output)?;
    output.line(format_args!("\n{}", output.paint(Paint::Bold, "Totals")))?;
    let totals = explained.totals.iter().map(|total| {
        vec![total.decided_by.clone(), total.action.to_owned(), total.attributes.to_string()]
    });
    output.table(&["DECIDED BY", "ACTION", "ATTRIBUTES"], totals.collect())
}

fn section(title: &str, rows: &[Row], values: bool, output: Output) -> Result<(), Failure> {
    let heading = format!("{title} ({})", rows.len());
    output.line(format_args!("\n{}", output.paint(Paint::Bold, &heading)))?;
    if rows.is_empty() {
        return output.line("none");
    }
    let mut header = vec!["ATTRIBUTE", "VR", "DECIDED BY", "WHY", "TIMES"];
    if values {
        header.extend(["BEFORE", "AFTER"]);
    }
    let rows = rows.iter().map(|row| {
        let mut cells = vec![
            row.path.clone(),
            row.vr.clone(),
            row.decided_by.clone(),
            row.why.clone(),
            row.times.to_string(),
        ];
        if values {
            cells.push(row.before.clone().unwrap_or_default());
            cells.push(row.after.clone().unwrap_or_default());
        }
        cells
    });
    output.table(&header, rows.collect())
}
