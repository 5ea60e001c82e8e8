//! `gantry completions`: what a shell needs to complete a command line.

use std::io;

use clap::Args;
use clap_complete::{Shell, generate};

use crate::exit::{Exit, Failure};
use crate::output::Output;

/// Completion for a shell
#[derive(Args, Debug)]
#[command(before_help = "\
Examples:
  source <(gantry completions bash)
  gantry completions fish > ~/.config/fish/completions/gantry.fish")]
pub(crate) struct Arguments {
    /// Which shell
    shell: Shell,
}

pub(crate) fn run(arguments: &Arguments, output: Output) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    generate(arguments.shell, &mut super::command_line(), "gantry", &mut script);
    let script =
        String::from_utf8(script).map_err(|error| Failure::of_output(&io::Error::other(error)))?;
    output.line(script.trim_end())?;
    Ok(Exit::Done)
}
