//! The command line: which commands there are, how they read, and who carries them out.

mod alarm;
mod check;
mod completions;
mod conformance;
mod deid;
mod demo;
mod fetch;
mod init;
mod keys;
mod partner;
mod peer;
mod query;
mod reindex;
mod retention;
mod route;
mod scrub;
mod send;
mod serve;
mod status;
mod study;
mod transfer;
mod web;

use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use gantry_gateway::config::{Config, Route, Style, Warning};

use crate::exit::{Exit, Failure};
use crate::output::Output;

/// Where the configuration is looked for, in this order.
const PLACES: [&str; 2] = ["gantry.toml", "/etc/gantry/gantry.toml"];

/// Gantry exchanges medical images between hospital trusts, and shows where they are.
#[derive(Debug, Parser)]
#[command(name = "gantry", version, subcommand_required = true, arg_required_else_help = true)]
#[command(before_help = "\
Examples:
  gantry demo                                 two trusts on this machine, and an emergency
  gantry init && gantry check && gantry serve    a node of your own
  gantry transfer list                        where the images are")]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command understands.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Everywhere")]
pub(crate) struct Global {
    /// The configuration [default: ./gantry.toml, then /etc/gantry/gantry.toml]
    #[arg(long, global = true, value_name = "FILE", env = "GANTRY_CONFIG", hide_env_values = true)]
    pub(crate) config: Option<PathBuf>,
    /// Print data as JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print data and errors, and no other messages
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Arguments),
    Init(init::Arguments),
    Check(check::Arguments),
    Serve(serve::Arguments),
    Status(status::Arguments),
    Send(send::Arguments),
    Transfer(transfer::Arguments),
    Study(study::Arguments),
    Partner(partner::Arguments),
    Query(query::Arguments),
    Fetch(fetch::Arguments),
    Route(route::Arguments),
    Web(web::Arguments),
    Keys(keys::Arguments),
    Deid(deid::Arguments),
    Retention(retention::Arguments),
    Scrub(scrub::Arguments),
    Alarm(alarm::Arguments),
    Reindex(reindex::Arguments),
    Conformance(conformance::Arguments),
    Completions(completions::Arguments),
}

/// Carries out what was asked.
pub(crate) async fn run(arguments: Arguments, output: Output) -> Result<Exit, Failure> {
    let global = arguments.global;
    match arguments.command {
        Command::Demo(arguments) => Box::pin(demo::run(arguments, output)).await,
        Command::Init(arguments) => init::run(arguments, output),
        Command::Check(arguments) => check::run(&arguments, &global, output).await,
        Command::Serve(arguments) => serve::run(&arguments, &global, output).await,
        Command::Status(arguments) => status::run(&arguments, &global, output).await,
        Command::Send(arguments) => send::run(arguments, &global, output).await,
        Command::Transfer(arguments) => transfer::run(arguments, &global, output).await,
        Command::Study(arguments) => study::run(arguments, &global, output).await,
        Command::Partner(arguments) => partner::run(arguments, &global, output).await,
        Command::Query(arguments) => query::run(&arguments, &global, output).await,
        Command::Fetch(arguments) => fetch::run(&arguments, &global, output).await,
        Command::Route(arguments) => route::run(arguments, &global, output).await,
        Command::Web(arguments) => web::run(&arguments, &global, output).await,
        Command::Keys(arguments) => keys::run(&arguments, &global, output),
        Command::Deid(arguments) => deid::run(&arguments, output),
        Command::Retention(arguments) => retention::run(arguments, &global, output).await,
        Command::Scrub(arguments) => scrub::run(&arguments, &global, output).await,
        Command::Alarm(arguments) => alarm::run(&arguments, &global, output).await,
        Command::Reindex(arguments) => reindex::run(&arguments, &global, output).await,
        Command::Conformance(arguments) => conformance::run(&arguments, &global, output),
        Command::Completions(arguments) => completions::run(&arguments, output),
    }
}

/// The command line as clap sees it, with the help of every command in the same order: what it does, examples, the rest.
pub(crate) fn command_line() -> clap::Command {
    fn examples_first(command: clap::Command) -> clap::Command {
        let names: Vec<_> =
            command.get_subcommands().map(|command| command.get_name().to_owned()).collect();
        names
            .into_iter()
            .fold(command, |command, name| command.mut_subcommand(name, examples_first))
            .help_template("{about-with-newline}\n{before-help}{usage-heading} {usage}\n\n{all-args}{after-help}")
    }
    examples_first(Arguments::command())
}

/// The configuration file that `--config` names, or the first that is there.
fn config_path(global: &Global) -> Result<PathBuf, Failure> {
    if let Some(path) = &global.config {
        return Ok(path.clone());
    }
    let there = PLACES.iter().map(Path::new).find(|path| path.exists());
    there.map(Path::to_owned).ok_or_else(|| {
        Failure::new(
            Exit::Usage,
            format_args!("there is no configuration: neither {} nor {}", PLACES[0], PLACES[1]),
        )
        .hint("make one with `gantry init`, or name it with --config FILE")
    })
}

/// Reads the configuration; what is wrong with it is shown, all at once.
fn load_config(global: &Global, output: Output) -> Result<(Config, Vec<Warning>), Failure> {
    let path = config_path(global)?;
    Config::load(&path).map_err(|problems| {
        let style = if output.colour_on_stderr() { Style::Colour } else { Style::Plain };
        eprint!("{}", problems.render(style));
        eprintln!();
        Failure::new(Exit::Usage, &problems)
    })
}

/// What a route asks for, each condition as it would be written: `called-ae-title = RI_EMERG`.
fn conditions(route: &Route) -> Vec<String> {
    route
        .when
        .iter()
        .map(|condition| {
            let patterns: Vec<_> = condition.any_of.iter().map(ToString::to_string).collect();
            format!("{} = {}", condition.on, patterns.join(" or "))
        })
        .collect()
}

/// A partner that the configuration does not have, with the name that was probably meant.
fn unknown_partner(config: &Config, name: &str) -> Failure {
    let names = || config.partners.iter().map(|partner| partner.name.as_str());
    let likeness = |known: &str| strsim::jaro_winkler(name, known);
    let nearest = names()
        .max_by(|one, other| likeness(one).total_cmp(&likeness(other)))
        .filter(|known| likeness(known) > 0.8);
    let failure = Failure::new(Exit::NotFound, format_args!("there is no partner {name:?}"));
    match nearest {
        Some(nearest) => failure.hint(format_args!("did you mean {nearest}?")),
        None if config.partners.is_empty() => {
            failure.hint("add a [[partner]] to the configuration")
        }
        None => failure.hint(format_args!("there are: {}", names().collect::<Vec<_>>().join(", "))),
    }
}

/// How this program was called, for command lines to copy: under `cargo run` it is not on the path.
fn program() -> String {
    std::env::args().next().unwrap_or_else(|| "gantry".to_owned())
}
