//! Profiles: those that come with the program, files that people write, and what is wrong with those.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use gantry_deidentify::profile::{self, Profile, SHIPPED, Severity};
use gantry_deidentify::report::{OptionFacts, options};
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::output::{Output, Paint};
use crate::words;

/// List the profiles that come with the program
#[derive(Args, Debug)]
#[command(before_help = "\
Examples:
  gantry deid profiles
  gantry deid profiles --show research > research-lung.toml    a start for one of your own")]
pub(super) struct Profiles {
    /// Print the file of this one
    #[arg(long, value_name = "NAME")]
    show: Option<String>,
}

/// What `deid profiles --json` prints of each.
#[derive(Serialize)]
struct Listed {
    name: String,
    version: String,
    description: String,
    digest: String,
    options: Vec<OptionFacts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'static str>,
}

pub(super) fn run(arguments: &Profiles, output: Output) -> Result<Exit, Failure> {
    let wanted = arguments.show.as_deref();
    if let Some(name) = wanted
        && !SHIPPED.iter().any(|shipped| shipped.name == name)
    {
        return Err(unknown(name));
    }
    let mut listed = Vec::new();
    for shipped in SHIPPED.iter().filter(|one| wanted.is_none_or(|name| one.name == name)) {
        if wanted.is_some() && !output.is_json() {
            output.line(shipped.text.trim_end())?;
            return Ok(Exit::Done);
        }
        let Some(profile) = profile::shipped(shipped.name) else { continue };
        listed.push(Listed {
            options: options(&profile),
            name: profile.name,
            version: profile.version,
            description: profile.description,
            digest: profile.digest,
            text: wanted.map(|_| shipped.text),
        });
    }
    if output.is_json() {
        output.json(&listed)?;
        return Ok(Exit::Done);
    }
    for (at, one) in listed.iter().enumerate() {
        if at > 0 {
            output.line("")?;
        }
        output.line(output.paint(Paint::Bold, &one.name))?;
        output.line(format_args!("  {}", one.description))?;
        let options: Vec<_> = one.options.iter().map(|option| option.option).collect();
        output.line(format_args!("  {}", options.join(", ")))?;
    }
    Ok(Exit::Done)
}

/// Check profile files: everything that is wrong with them, with line and remedy
///
/// Warnings are printed and do not fail.
#[derive(Args, Debug)]
#[command(before_help = "Example:\n  gantry deid lint research-lung.toml")]
pub(super) struct Lint {
    /// Profile files, or names of profiles that come with the program
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// What `deid lint --json` prints of each file.
#[derive(Serialize)]
struct Linted {
    file: PathBuf,
    ok: bool,
    findings: Vec<LintFinding>,
}

#[derive(Serialize)]
struct LintFinding {
    severity: &'static str,
    line: usize,
    column: usize,
    message: String,
    help: String,
}

pub(super) fn lint(arguments: &Lint, output: Output) -> Result<Exit, Failure> {
    let mut linted = Vec::new();
    for file in &arguments.files {
        let text = match (shipped_text(file), file.exists()) {
            (Some(text), false) => text.to_owned(),
            _ => {
                fs::read_to_string(file).map_err(|error| Failure::of_file("read", file, &error))?
            }
        };
        let read = profile::read(&text);
        if !output.is_json() {
            for finding in &read.findings {
                output.line(format_args!("{}: {finding}\n", file.display()))?;
            }
            let problems = count(&read.findings, Severity::Problem);
            let warnings = count(&read.findings, Severity::Warning);
            output.line(format_args!(
                "{}: {}, {}",
                file.display(),
                words::count(problems, "problem", "problems"),
                words::count(warnings, "warning", "warnings")
            ))?;
        }
        let findings = read.findings.iter().map(|finding| LintFinding {
            severity: match finding.severity {
                Severity::Problem => "problem",
                Severity::Warning => "warning",
            },
            line: finding.line,
            column: finding.column,
            message: finding.message.clone(),
            help: finding.help.clone(),
        });
        linted.push(Linted {
            file: file.clone(),
            ok: read.profile.is_some(),
            findings: findings.collect(),
        });
    }
    if output.is_json() {
        output.json(&linted)?;
    }
    Ok(if linted.iter().all(|one| one.ok) { Exit::Done } else { Exit::Failed })
}

fn count(findings: &[profile::Finding], severity: Severity) -> u64 {
    findings.iter().filter(|finding| finding.severity == severity).count() as u64
}

fn shipped_text(name: &Path) -> Option<&'static str> {
    SHIPPED.iter().find(|shipped| Path::new(shipped.name) == name).map(|shipped| shipped.text)
}

/// A profile that a command was given, and where the files that it names are.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) profile: Profile,
    pub(super) folder: PathBuf,
}

/// The profile of this name, or in this file. What is wrong with it is shown, all at once.
pub(super) fn load(name: &str, output: Output) -> Result<Named, Failure> {
    if let Some(profile) = profile::shipped(name) {
        return Ok(Named { profile, folder: PathBuf::from(".") });
    }
    let path = Path::new(name);
    if !path.exists() {
        return Err(unknown(name));
    }
    let text = fs::read_to_string(path).map_err(|error| Failure::of_file("read", path, &error))?;
    let read = profile::read(&text);
    for finding in &read.findings {
        let said = format!("{}: {finding}\n", path.display());
        // What stops the command is data on the way to its error; warnings may be silenced.
        match finding.severity {
            Severity::Problem => eprintln!("{said}"),
            Severity::Warning => output.say(said),
        }
    }
    let problems = count(&read.findings, Severity::Problem);
    let folder = path.parent().map(Path::to_owned).unwrap_or_default();
    read.profile.map(|profile| Named { profile, folder }).ok_or_else(|| {
        let problems = words::count(problems, "problem", "problems");
        Failure::new(Exit::Usage, format_args!("{} has {problems}", path.display()))
            .hint("correct them, and check with `gantry deid lint FILE`")
    })
}

fn unknown(name: &str) -> Failure {
    let names: Vec<_> = SHIPPED.iter().map(|shipped| shipped.name).collect();
    let likeness = |known: &&&str| strsim::jaro_winkler(name, known);
    let nearest = names.iter().max_by(|one, other| likeness(one).total_cmp(&likeness(other)));
    let failure = Failure::new(
        Exit::NotFound,
        format_args!("there is no profile {name:?}, and no such file"),
    );
    match nearest.filter(|known| likeness(known) > 0.8) {
        Some(nearest) => failure.hint(format_args!("did you mean {nearest}?")),
        None => failure.hint(format_args!("there are {}; or name a file", names.join(", "))),
    }
}
