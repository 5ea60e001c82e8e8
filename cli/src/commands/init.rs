//! `gantry init`: makes a node's files, and says what they are and what comes next.

use std::io::{self, Write as _};
use std::path::PathBuf;

use clap::Args;
use gantry_gateway::init::{self, InitError, InitOptions, InitReport};
use gantry_store::dicom::AeTitle;
use gantry_store::sealed::Keyring;
use jiff::Timestamp;
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::output::{Output, Paint};
use crate::words;

/// Make a node: configuration, keys and certificates
///
/// Nothing is ever overwritten. On a terminal it asks for what was not given; elsewhere, or with --non-interactive, it
/// takes what is in brackets below.
#[derive(Args, Debug)]
#[command(before_help = "\
Examples:
  gantry init                                 in this folder, with questions
  gantry init /srv/gantry --non-interactive --ae-title RXX_GW --organisation RXX --name gateway.rxx.example")]
pub(crate) struct Arguments {
    /// The folder, made if it is not there
    #[arg(value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// Ask nothing
    #[arg(long)]
    non_interactive: bool,
    /// What the node calls itself, up to 16 characters [default: GANTRY]
    #[arg(long, value_name = "AE")]
    ae_title: Option<AeTitle>,
    /// Whose it is: the ODS code, or what the partners know it by [default: RXX]
    #[arg(long, value_name = "NAME")]
    organisation: Option<String>,
    /// A host name or address that partners reach it by; may be repeated
    #[arg(long = "name", value_name = "HOST")]
    names: Vec<String>,
}

#[derive(Serialize)]
struct Made<'a> {
    config: &'a PathBuf,
    files: Vec<File<'a>>,
    names: &'a [String],
    fingerprint: String,
    certificate_until: Timestamp,
    authority_until: Timestamp,
}

#[derive(Serialize)]
struct File<'a> {
    path: &'a PathBuf,
    what: &'a str,
}

pub(crate) fn run(arguments: Arguments, output: Output) -> Result<Exit, Failure> {
    let ask = output.can_ask() && !arguments.non_interactive;
    let ae_title = match arguments.ae_title {
        Some(ae_title) => ae_title,
        None => answer(ask, "AE title, what the node calls itself", "GANTRY", |text| {
            text.parse().map_err(|error: gantry_store::dicom::InvalidAeTitle| error.to_string())
        })?,
    };
    let organisation = match arguments.organisation {
        Some(organisation) => organisation,
        None => {
            answer(ask, "Organisation, its ODS code or name", "RXX", |text| Ok(text.to_owned()))?
        }
    };
    let options = InitOptions { ae_title, organisation, names: arguments.names };
    let report = init::init(&arguments.dir, &options, |keys| Keyring::create(keys).map(drop))
        .map_err(|error| cannot_make(&error))?;

    if output.is_json() {
        output.json(&Made {
            config: &report.config,
            files: report.files.iter().map(|(path, what)| File { path, what }).collect(),
            names: &report.names,
            fingerprint: report.fingerprint.to_string(),
            certificate_until: report.certificate_until,
            authority_until: report.authority_until,
        })?;
    } else {
        show(&report, output)?;
    }
    Ok(Exit::Done)
}

fn show(report: &InitReport, output: Output) -> Result<(), Failure> {
    let width =
        report.files.iter().map(|(path, _)| path.display().to_string().len()).max().unwrap_or(0);
    output.line(output.paint(Paint::Bold, "Made"))?;
    for (path, what) in &report.files {
        output.line(format_args!("  {:<width$}  {what}", path.display().to_string()))?;
    }
    output.line("")?;
    output.line(output.paint(Paint::Bold, "Certificate"))?;
    output.line(format_args!("  answers to   {}", report.names.join(", ")))?;
    output.line(format_args!("  fingerprint  {}", report.fingerprint))?;
    output.line(format_args!("  valid until  {}", words::day(report.certificate_until)))?;
    output.line("")?;
    let config = match report.config.strip_prefix(".") {
        Ok(config) if config == std::path::Path::new("gantry.toml") => String::new(),
        _ => format!(" --config {}", report.config.display()),
    };
    output.line(output.paint(Paint::Bold, "Next"))?;
    output.line(format_args!("  1. gantry check{config}"))?;
    output.line(format_args!("  2. gantry serve{config}"))?;
    output.line(format_args!(
        "  3. gantry web link{config}         a link that signs your browser in"
    ))?;
    output.line(format_args!(
        "  4. add your partners and routes to {}: how is written there",
        report.config.display()
    ))?;
    output.line(
        "  5. keep a copy of the keys somewhere else: what is stored cannot be read without them",
    )
}

/// Asks until the answer will do; where nobody can be asked, the default is the answer.
fn answer<T>(
    ask: bool,
    question: &str,
    default: &str,
    check: impl Fn(&str) -> Result<T, String>,
) -> Result<T, Failure> {
    loop {
        let mut line = String::new();
        if ask {
            let mut err = io::stderr().lock();
            let _ = write!(err, "{question} [{default}]: ").and_then(|()| err.flush());
            let read = io::stdin().read_line(&mut line);
            if read.as_ref().is_ok_and(|read| *read == 0) || read.is_err() {
                return Err(Failure::new(Exit::Interrupted, "no answer; nothing was made"));
            }
        }
        let text = match line.trim() {
            "" => default,
            text => text,
        };
        match check(text) {
            Ok(answer) => return Ok(answer),
            Err(why) if ask => eprintln!("{why}"),
            Err(why) => return Err(Failure::new(Exit::Usage, why)),
        }
    }
}

fn cannot_make(error: &InitError) -> Failure {
    let exit = match error {
        InitError::Exists { .. } | InitError::Organisation { .. } | InitError::Issue(_) => {
            Exit::Usage
        }
        InitError::Write { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            Exit::Permission
        }
        InitError::Write { .. } | InitError::Key { .. } | InitError::ReadBack(_) => Exit::Failed,
    };
    Failure { hint: error.hint(), ..Failure::because(exit, error) }
}
