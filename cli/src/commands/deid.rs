//! `gantry deid …`: what is done to identities in files, without a running node.

mod decrypt;
mod key;
mod new_file;
mod object;
mod recover;

use clap::{Args, Subcommand};

use crate::exit::{Exit, Failure};
use crate::output::Output;

/// Identities in files: taken away, sealed and put back, without a node
#[derive(Args, Debug)]
#[command(subcommand_required = true, arg_required_else_help = true)]
#[command(before_help = "\
Examples:
  gantry deid recover study/ --key ig-lead.key --to recovered --reason \"incidental finding, DPIA-17\"
  gantry deid decrypt ct-001.dcm.p7m --key ours.key --to plain")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Recover(recover::Recover),
    Decrypt(decrypt::Decrypt),
}

pub(crate) fn run(arguments: &Arguments, output: Output) -> Result<Exit, Failure> {
    match &arguments.command {
        Command::Recover(arguments) => recover::run(arguments, output),
        Command::Decrypt(arguments) => decrypt::run(arguments, output),
    }
}
