//! `gantry deid key`: a new project key.

use std::path::PathBuf;

use clap::Args;
use gantry_deidentify::keys::{KeyError, ProjectKey};
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::output::Output;

/// Make a project key: what makes the same pseudonyms, UIDs and dates again for the same patients
///
/// One key for one project and one recipient, as a pseudonym must not link projects. The file is its owner's alone.
#[derive(Args, Debug)]
#[command(before_help = "Example:\n  gantry deid key /safe-haven/lung.key")]
pub(super) struct Key {
    /// The file to write, which must not be there yet
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// What `deid key --json` prints.
#[derive(Serialize)]
struct Made {
    schema: u32,
    file: PathBuf,
    fingerprint: String,
}

pub(super) fn run(arguments: &Key, output: Output) -> Result<Exit, Failure> {
    let key = ProjectKey::generate().map_err(|error| Failure::because(Exit::Failed, &error))?;
    key.write_new(&arguments.file).map_err(|error| {
        let failure = match &error {
            KeyError::Write { path, source } => Failure::of_file("write", path, source),
            other => Failure::because(Exit::Failed, other),
        };
        failure.hint(
            "name a file that is not there yet, in a folder that is; a key is never overwritten",
        )
    })?;
    let fingerprint = key.fingerprint();
    if output.is_json() {
        output.json(&Made { schema: 1, file: arguments.file.clone(), fingerprint })?;
    } else {
        output.line(format_args!("{fingerprint}  {}", arguments.file.display()))?;
    }
    output.say(
        "Keep it in the safe haven, with a copy in another place. Who has it and the originals can tell whose the data \
         are.\nIf it is lost nobody can make the same pseudonyms again: objects that come later will not match.",
    );
    Ok(Exit::Done)
}

/// Reads the key of a run; without a file a new one is made, which is said.
pub(super) fn of(file: Option<&std::path::Path>, output: Output) -> Result<ProjectKey, Failure> {
    let Some(path) = file else {
        output.say(
            "note: there is no --key, so a new key was made for this run and is not kept: these pseudonyms, UIDs and \
             dates cannot be made again.\n      For a project make one with `gantry deid key FILE`, and name it with --key FILE.",
        );
        return ProjectKey::generate().map_err(|error| Failure::because(Exit::Failed, &error));
    };
    ProjectKey::read(path).map_err(|error| match &error {
        KeyError::Read { path, source } => {
            Failure::of_file("read", path, source).hint("make a key with `gantry deid key FILE`")
        }
        other => Failure::because(Exit::Usage, other),
    })
}
