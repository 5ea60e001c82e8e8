//! `gantry deid diff`: in what two profiles differ, by what they say and by what they do to a file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use clap::Args;
use dicom_core::Tag;
use gantry_deidentify::engine::{Deidentifier, Linkage, Made};
use gantry_deidentify::keys::ProjectKey;
use gantry_deidentify::profile::{Profile, Rule, keyword};
use gantry_deidentify::table::ProfileOption;
use serde::Serialize;

use super::explain::open;
use super::profiles;
use super::rows::{outcome, rows};
use crate::exit::{Exit, Failure};
use crate::output::Output;

/// Show in what two profiles differ, and with a file, in what becomes of it
///
/// Values are never shown. Pixels are compared by settings only. Ends with 0 when there is no difference, and 1 when there is.
#[derive(Args, Debug)]
#[command(before_help = "\
Examples:
  gantry deid diff research research-lung.toml
  gantry deid diff basic research ct.dcm")]
pub(super) struct Diff {
    /// A profile: one that comes with the program, or a file
    #[arg(value_name = "NAME|FILE")]
    one: String,
    /// The other profile
    #[arg(value_name = "NAME|FILE")]
    other: String,
    /// A file to try them on; nothing is written
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

/// What `deid diff --json` prints.
#[derive(Serialize)]
struct Differences {
    schema: u32,
    one: String,
    other: String,
    settings: Vec<Difference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attributes: Option<Vec<Difference>>,
}

/// What differs, and how it is under either.
#[derive(Debug, Eq, PartialEq, Serialize)]
struct Difference {
    what: String,
    one: String,
    other: String,
}

pub(super) fn run(arguments: &Diff, output: Output) -> Result<Exit, Failure> {
    let one = profiles::load(&arguments.one, output)?.profile;
    let other = profiles::load(&arguments.other, output)?.profile;
    let settings = settings(&one, &other);
    let names = (one.reference(), other.reference());
    let attributes = match &arguments.file {
        None => None,
        Some(path) => {
            let parsed = open(path)?.parsed().map_err(|error| {
                Failure::new(Exit::Failed, format_args!("{}: {error}", path.display()))
            })?;
            // The same key, so that what differs does so because of the profiles.
            let key =
                ProjectKey::generate().map_err(|error| Failure::because(Exit::Failed, &error))?;
            let made = |profile: Profile| {
                let deidentifier = Deidentifier::new(profile, key.clone(), Linkage::Project);
                let made = deidentifier.make(parsed.clone());
                made.map(|made| (made, deidentifier.profile().clone()))
            };
            Some(match (made(one), made(other)) {
                (Ok(one), Ok(other)) => attributes(&one, &other),
                (one, other) => {
                    let said = |made: Result<_, gantry_deidentify::engine::SetAside>| match made {
                        Ok(_) => "de-identified".to_owned(),
                        Err(why) => format!("set aside: {why}"),
                    };
                    let (one, other) = (said(one), said(other));
                    let what = "the object".to_owned();
                    if one == other { Vec::new() } else { vec![Difference { what, one, other }] }
                }
            })
        }
    };
    let found = Differences { schema: 1, one: names.0, other: names.1, settings, attributes };
    let differ = !found.settings.is_empty() || found.attributes.iter().flatten().next().is_some();
    let exit = if differ { Exit::Failed } else { Exit::Done };
    if output.is_json() {
        output.json(&found)?;
        return Ok(exit);
    }
    section("SETTING", &found.settings, &found, output)?;
    if let Some(attributes) = &found.attributes {
        output.line("")?;
        section("ATTRIBUTE", attributes, &found, output)?;
    }
    Ok(exit)
}

fn section(
    title: &str,
    rows: &[Difference],
    found: &Differences,
    output: Output,
) -> Result<(), Failure> {
    if rows.is_empty() {
        return output.line(format_args!("no difference by {}", title.to_lowercase()));
    }
    let cells = rows.iter().map(|row| vec![row.what.clone(), row.one.clone(), row.other.clone()]);
    output.table(&[title, &found.one, &found.other], cells.collect())
}

/// What a profile says, by name; what is not there is not said.
fn said(profile: &Profile) -> BTreeMap<String, String> {
    let mut said = BTreeMap::new();
    let mut put = |what: &str, text: String| {
        said.insert(what.to_owned(), text);
    };
    for option in ProfileOption::all().filter(|option| profile.options.has(*option)) {
        put(&format!("option {}", option.as_str()), "on".to_owned());
    }
    let (least, most) = profile.dates.shift_days;
    put("subject missing", format!("{:?}", profile.subject.missing));
    put("subject prefix", format!("{:?}", profile.subject.prefix));
    put("subject length", profile.subject.length.to_string());
    put("dates shift_days", format!("{least} to {most}"));
    put("dates birth_date", format!("{:?}", profile.dates.birth_date));
    put("dates age_cap", profile.dates.age_cap.to_string());
    put("uids scope", format!("{:?}", profile.uids));
    put("private declared", profile.private.declared.to_string());
    for (group, creator, element) in &profile.private.safe {
        put(&format!("private safe ({group:04X},\"{creator}\",{element:02X})"), "kept".to_owned());
    }
    put("unknown sop_class", format!("{:?}", profile.unknown_class));
    for (class, policy) in &profile.classes {
        put(&format!("sop_class {class}"), format!("{policy:?}"));
    }
    for word in &profile.words {
        put(&format!("text word \"{word}\""), "kept".to_owned());
    }
    let pixels = &profile.pixels;
    let pass = pixels.risky_pass.as_ref();
    let risky = pass.map_or("set aside".to_owned(), |why| format!("pass: {why}"));
    put("pixels risky_without_mask", risky);
    put("pixels masks", pixels.masks.join(", "));
    put("pixels ocr", pixels.ocr.to_string());
    put("review sample_per_mille", profile.sample_per_mille.to_string());
    for (at, rule) in profile.rules.iter().enumerate() {
        put(&format!("rule \"{}\"", rule.id), format!("{}: {}", at + 1, of_rule(rule)));
    }
    said
}

fn of_rule(rule: &Rule) -> String {
    let when = rule.when.as_ref().map_or(String::new(), |when| format!(" when {when:?}"));
    let reason = rule.reason.as_ref().map_or(String::new(), |why| format!(" ({why})"));
    format!("{:?} on {:?}{when}{reason}", rule.action, rule.select)
}

fn settings(one: &Profile, other: &Profile) -> Vec<Difference> {
    let (one, other) = (said(one), said(other));
    let all: BTreeSet<_> = one.keys().chain(other.keys()).collect();
    let value = |of: &BTreeMap<String, String>, what| of.get(what).cloned().unwrap_or("-".into());
    all.into_iter()
        .map(|what| Difference {
            what: what.clone(),
            one: value(&one, what),
            other: value(&other, what),
        })
        .filter(|difference| difference.one != difference.other)
        .collect()
}

/// Attributes of which different things become: something else is done, or the values are others.
fn attributes(one: &(Made, Profile), other: &(Made, Profile)) -> Vec<Difference> {
    type Place = (Vec<Tag>, Tag);
    let done = |(made, _): &(Made, Profile)| {
        let mut done: BTreeMap<Place, BTreeMap<&'static str, u64>> = BTreeMap::new();
        for step in &made.steps {
            let place = (step.path.to_vec(), step.tag);
            *done.entry(place).or_default().entry(step.done.as_str()).or_default() += 1;
        }
        done
    };
    // By whom and why, as `explain` says it.
    let reasons = |(made, profile): &(Made, Profile)| {
        let mut reasons: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for row in rows(made, profile, None) {
            reasons
                .entry(row.path)
                .or_default()
                .insert(format!("{} ({})", row.why, row.decided_by));
        }
        reasons
    };
    let (done_one, done_other) = (done(one), done(other));
    let (values_one, values_other) = (outcome(&one.0), outcome(&other.0));
    let (why_one, why_other) = (reasons(one), reasons(other));
    let all: BTreeSet<_> = done_one.keys().chain(done_other.keys()).collect();
    all.into_iter()
        .filter(|place| {
            done_one.get(*place) != done_other.get(*place)
                || values_one.get(*place) != values_other.get(*place)
        })
        .map(|(path, tag)| {
            let names: Vec<_> = path.iter().chain([tag]).map(|tag| keyword(*tag)).collect();
            let what = names.join("/");
            let text = |reasons: &BTreeMap<String, BTreeSet<String>>| {
                let reasons = reasons.get(&what);
                reasons.map_or("gone with what it is in".to_owned(), |all| {
                    all.iter().cloned().collect::<Vec<_>>().join("; ")
                })
            };
            let (one, other) = (text(&why_one), text(&why_other));
            Difference { what, one, other }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use gantry_deidentify::profile::{read, shipped};

    use super::*;

    #[test]
    fn a_profile_does_not_differ_from_itself_and_every_setting_counts() {
        for name in ["basic", "research", "teaching", "direct-care-minimal"] {
            let profile = shipped(name).unwrap();
            assert_eq!(settings(&profile, &profile), []);
        }
        let head = "schema = 1\nname = \"x\"\nedition = \"2026d\"\n";
        let base = read(head).profile.unwrap();
        for (lines, what) in [
            ("options = [\"clean_graphics\"]", "option clean_graphics"),
            ("[subject]\nprefix = \"A-\"", "subject prefix"),
            ("[dates]\nage_cap = 70", "dates age_cap"),
            ("[uids]\nscope = \"table\"", "uids scope"),
            ("[pixels]\nocr = true", "pixels ocr"),
            ("[review]\nsample_per_mille = 7", "review sample_per_mille"),
            (
                "[[rule]]\nid = \"r\"\nselect = \"Rows\"\naction = \"K\"\nreason = \"y\"",
                "rule \"r\"",
            ),
        ] {
            let changed = read(&format!("{head}{lines}")).profile.unwrap();
            let found = settings(&base, &changed);
            let names: Vec<_> = found.iter().map(|difference| difference.what.as_str()).collect();
            assert_eq!(names, [what]);
        }
    }
}
