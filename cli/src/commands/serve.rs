//! `gantry serve`: runs the node until it is told to stop, and then lets it finish what it has begun.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use gantry_gateway::association::listener::ListenerError;
use gantry_gateway::run::{Node, StartError};
use gantry_gateway::telemetry;
use gantry_store::sealed::KeyringError;
use gantry_store::spool::SpoolError;
use serde::Serialize;

use super::Global;
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::signals::Signals;

/// Run the node
///
/// Logs to standard error. With --json, one line on standard output says where it listens once it is ready. SIGTERM and
/// Ctrl-C let it finish what is being received and sent; a second one ends it at once, which loses nothing that was
/// acknowledged.
#[derive(Args, Debug)]
#[command(before_help = "\
Examples:
  gantry serve
  gantry serve --config /etc/gantry/gantry.toml
  gantry serve --json | head -1               {\"listeners\":[{\"name\":…,\"address\":…}],\"web\":…}")]
pub(crate) struct Arguments {
    /// How long what is being received and sent may take to finish
    #[arg(long, value_name = "TIME", default_value = "25s", value_parser = humantime::parse_duration)]
    grace: Duration,
}

/// What `--json` prints once the node is ready.
#[derive(Serialize)]
struct Ready<'a> {
    listeners: Vec<Listening<'a>>,
    web: Option<&'a str>,
    dicomweb: Option<&'a str>,
}

#[derive(Serialize)]
struct Listening<'a> {
    /// The address as configured.
    name: &'a str,
    /// The address with the port that the kernel chose.
    address: SocketAddr,
}

pub(crate) async fn run(
    arguments: &Arguments,
    global: &Global,
    output: Output,
) -> Result<Exit, Failure> {
    let (config, warnings) = super::load_config(global, output)?;
    telemetry::start(config.log);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let mut signals = Signals::new()?;
    let node = Node::start(config).await.map_err(|error| cannot_start(&error))?;
    let listeners: Vec<_> = node
        .listeners
        .iter()
        .map(|(name, address)| Listening { name, address: *address })
        .collect();
    for Listening { name, address } in &listeners {
        tracing::info!(listener = name, %address, "listening");
    }
    let addresses: Vec<_> = listeners.iter().map(|listener| listener.address.to_string()).collect();
    tracing::info!(
        listeners = addresses.join(","),
        web = node.web.as_deref(),
        dicomweb = node.dicomweb.as_deref(),
        "node ready"
    );
    if output.is_json() {
        let (web, dicomweb) = (node.web.as_deref(), node.dicomweb.as_deref());
        output.json(&Ready { listeners, web, dicomweb })?;
    }

    let signal = signals.next().await;
    tracing::info!(signal, grace = ?arguments.grace, "finishing what has begun; a second signal ends at once");
    tokio::select! {
        in_time = node.stop(arguments.grace) => {
            if in_time {
                tracing::info!("node stopped");
            } else {
                tracing::warn!("not everything ended in time; what was under way is done again after the next start");
            }
            Ok(Exit::Done)
        }
        signal = signals.next() => {
            tracing::warn!(signal, "ended at once; what was under way is done again after the next start");
            Ok(Exit::Interrupted)
        }
    }
}

/// What a failed start means, and what to do about it.
pub(crate) fn cannot_start(error: &StartError) -> Failure {
    let failure = |exit| Failure::because(exit, error);
    match error {
        StartError::Keyring(KeyringError::Empty(_)) => failure(Exit::Usage).hint(
            "`gantry init` makes the first key; if there was one, bring the folder back from the backup",
        ),
        StartError::Listener(ListenerError::Bind { source, .. }) | StartError::Web { source, .. } => {
            let failure = failure(Exit::Failed);
            match source.kind() {
                std::io::ErrorKind::AddrInUse => failure
                    .hint("another program listens there; `gantry status` says whether it is this node, running already"),
                std::io::ErrorKind::AddrNotAvailable => {
                    failure.hint("the address is not one of this machine's: see `ip address`")
                }
                std::io::ErrorKind::PermissionDenied => {
                    failure.hint("ports below 1024 need a privilege; DICOM over TLS may use 2762")
                }
                _ => failure,
            }
        }
        StartError::Keyring(_)
        | StartError::WebTls(_)
        | StartError::DicomwebTls(_)
        | StartError::Listener(_) => failure(Exit::Usage),
        StartError::DataDir { source, path } => match source.kind() {
            std::io::ErrorKind::PermissionDenied => failure(Exit::Permission)
                .hint(format_args!("give this user {}, or start as the user that owns it", path.display())),
            _ => failure(Exit::Failed),
        },
        StartError::Spool(SpoolError::Locked) => failure(Exit::Failed)
            .hint("another node uses this data directory; `gantry status` says whether it is this one"),
        StartError::Spool(_) | StartError::Objects(_) | StartError::Index(_) => failure(Exit::Failed),
    }
}
