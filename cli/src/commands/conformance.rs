//! `gantry conformance`: the conformance statement (PS3.2), with what this node's configuration says.

use clap::Args;
use gantry_gateway::conformance::statement;
use serde::Serialize;

use super::Global;
use crate::exit::{Exit, Failure};
use crate::output::Output;

/// Print the DICOM conformance statement of this node, in Markdown
#[derive(Args, Debug)]
#[command(before_help = "\
Examples:
  gantry conformance > conformance.md
  gantry conformance --product    without a node")]
pub(crate) struct Arguments {
    /// The product's, without a configuration
    #[arg(long)]
    product: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Statement {
    schema: u32,
    markdown: String,
}

pub(crate) fn run(arguments: &Arguments, global: &Global, output: Output) -> Result<Exit, Failure> {
    let markdown = if arguments.product {
        statement(None)
    } else {
        let (config, _) = super::load_config(global, output)?;
        statement(Some(&config))
    };
    if output.is_json() {
        output.json(&Statement { schema: 1, markdown })?;
    } else {
        output.line(markdown.trim_end())?;
    }
    Ok(Exit::Done)
}
