//! `gantry partner …`: who the partners are, what they take, and whether one can be reached.

mod show;
mod test;

use clap::{Args, Subcommand};
use gantry_gateway::config::{Config, Permission};
use jiff::Timestamp;
use serde::Serialize;

use super::Global;
use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::views::Status;
use crate::words;

/// Who the partners are, and whether they can be reached
#[derive(Args, Debug)]
#[command(subcommand_required = true, arg_required_else_help = true)]
#[command(before_help = "\
Examples:
  gantry partner list
  gantry partner show york-ed
  gantry partner test york-ed")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(List),
    Show(show::Arguments),
    Test(test::Arguments),
}

/// Every partner of the configuration, with what waits for it if the node runs
#[derive(Args, Debug)]
#[command(before_help = "Example:\n  gantry partner list")]
struct List {}

#[derive(Serialize)]
struct PartnerView<'a> {
    name: &'a str,
    display_name: &'a str,
    ae_title: &'a str,
    address: String,
    may: Vec<&'static str>,
    phone: Option<&'a str>,
    certificates_until: Option<Timestamp>,
    /// Deliveries; null where the node does not run.
    waiting: Option<u64>,
    set_aside: Option<u64>,
}

pub(crate) async fn run(
    arguments: Arguments,
    global: &Global,
    output: Output,
) -> Result<Exit, Failure> {
    let (config, _) = super::load_config(global, output)?;
    match arguments.command {
        Command::List(List {}) => list(&config, output).await,
        Command::Show(arguments) => show::run(&arguments, &config, output),
        Command::Test(arguments) => test::run(&arguments, &config, output).await,
    }
}

/// As it is written in the configuration.
pub(super) fn permission(permission: Permission) -> &'static str {
    match permission {
        Permission::Receive => "receive",
        Permission::Query => "query",
        Permission::Retrieve => "retrieve",
        Permission::Send => "send",
    }
}

async fn list(config: &Config, output: Output) -> Result<Exit, Failure> {
    let status: Option<Status> = match Client::connect(config).await {
        Ok(mut node) => Some(node.get("/api/v1/status").await?),
        Err(_) => None,
    };
    let counted = |name: &str| {
        status.iter().flat_map(|status| &status.partners).find(|partner| partner.name == name)
    };
    let partners: Vec<_> = config
        .partners
        .iter()
        .map(|partner| PartnerView {
            name: &partner.name,
            display_name: &partner.display_name,
            ae_title: partner.ae_title.as_str(),
            address: partner.address.to_string(),
            may: partner.may.iter().copied().map(permission).collect(),
            phone: partner.phone.as_deref(),
            certificates_until: partner.certificates_until,
            waiting: counted(&partner.name).map(|counts| counts.waiting),
            set_aside: counted(&partner.name).map(|counts| counts.set_aside),
        })
        .collect();
    if output.is_json() {
        output.json(&partners)?;
    } else if partners.is_empty() {
        output.say("no partners: add a [[partner]] to the configuration");
    } else {
        let number =
            |count: Option<u64>| count.map_or_else(|| "-".to_owned(), |count| count.to_string());
        let rows = partners.iter().map(|partner| {
            vec![
                partner.name.to_owned(),
                partner.ae_title.to_owned(),
                partner.address.clone(),
                partner.may.join(", "),
                partner.certificates_until.map(words::day).unwrap_or_default(),
                number(partner.waiting),
                number(partner.set_aside),
                partner.phone.unwrap_or_default().to_owned(),
            ]
        });
        output.table(
            &[
                "PARTNER",
                "AE TITLE",
                "ADDRESS",
                "MAY",
                "CERTIFICATE",
                "WAITING",
                "SET ASIDE",
                "PHONE",
            ],
            rows.collect(),
        )?;
        if status.is_none() {
            output.say("the node is not running, so nobody knows what waits");
        }
    }
    Ok(Exit::Done)
}
