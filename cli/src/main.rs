//! `gantry`: the node itself, and everything that a person or a script asks of it.
//!
//! Guarantees that data alone goes to standard output, that what failed is said once, with the next step where there is
//! one, and that the exit code says what kind of end it was. Nothing about a patient is printed in full unless `--reveal`
//! asks for it. A command that needs a running node speaks to the socket in its data directory; one that works without
//! it says so in its help.

mod client;
mod commands;
mod exit;
mod output;
mod signals;
mod views;
mod words;

use std::process::ExitCode;

use clap::FromArgMatches as _;

use commands::Arguments;
use exit::{Exit, Failure};
use output::Output;

fn main() -> ExitCode {
    let matches = commands::command_line().get_matches();
    let arguments = match Arguments::from_arg_matches(&matches) {
        Ok(arguments) => arguments,
        Err(error) => error.exit(),
    };
    let output = Output::new(arguments.global.json, arguments.global.quiet);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let ended = match runtime {
        Ok(runtime) => {
            let ended = runtime.block_on(commands::run(arguments, output));
            // A question that waits for the keyboard on a thread of its own must not hold the program.
            runtime.shutdown_background();
            ended
        }
        Err(error) => {
            Err(Failure::new(Exit::Failed, format_args!("cannot start threads: {error}")))
        }
    };
    match ended {
        Ok(exit) => exit.into(),
        Err(failure) => {
            output.complain(&failure);
            failure.exit.into()
        }
    }
}
