//! `gantry deid …`: what is done to identities in files, without a running node.

mod apply;
mod decrypt;
mod diff;
mod explain;
mod input;
mod key;
mod new_file;
mod object;
mod profiles;
mod project_key;
mod recover;
mod rows;
mod suspects;
mod verify;

use clap::{Args, Subcommand};

use crate::exit::{Exit, Failure};
use crate::output::Output;

/// Identities in files: taken away, sealed and put back, without a node
#[derive(Args, Debug)]
#[command(subcommand_required = true, arg_required_else_help = true)]
#[command(before_help = "\
Examples:
  gantry deid key lung.key
  gantry deid explain ct.dcm --profile research --key lung.key
  gantry deid apply study/ --profile research --key lung.key --to out
  gantry deid verify out --profile research
  gantry deid recover study/ --key ig-lead.key --to recovered --reason \"incidental finding, DPIA-17\"
  gantry deid decrypt ct-001.dcm.p7m --key ours.key --to plain")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Key(project_key::Key),
    Profiles(profiles::Profiles),
    Lint(profiles::Lint),
    Explain(explain::Explain),
    Diff(diff::Diff),
    Apply(apply::Apply),
    Verify(verify::Verify),
    Recover(recover::Recover),
    Decrypt(decrypt::Decrypt),
}

pub(crate) fn run(arguments: &Arguments, output: Output) -> Result<Exit, Failure> {
    match &arguments.command {
        Command::Key(arguments) => project_key::run(arguments, output),
        Command::Profiles(arguments) => profiles::run(arguments, output),
        Command::Lint(arguments) => profiles::lint(arguments, output),
        Command::Explain(arguments) => explain::run(arguments, output),
        Command::Diff(arguments) => diff::run(arguments, output),
        Command::Apply(arguments) => apply::run(arguments, output),
        Command::Verify(arguments) => verify::run(arguments, output),
        Command::Recover(arguments) => recover::run(arguments, output),
        Command::Decrypt(arguments) => decrypt::run(arguments, output),
    }
}
