//! `gantry transfer watch`: follows transfers as they move, for people and for scripts that wait.
//!
//! The node says that something has changed, never what; what is shown is asked for each time. When its stream ends, the
//! node is looked for again for a while: a restart does not end a watch.

use std::collections::HashMap;
use std::time::Duration;

use clap::Args;
use gantry_gateway::config::Config;
use gantry_store::index::{FailureKind, TransferId, TransferState};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::{Instant, sleep, timeout_at};

use crate::client::{Client, Stream};
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::views::{Shorten as _, Transfer};

/// How long a node that has gone is looked for.
const RESTART: Duration = Duration::from_secs(30);
/// How long a stream may be silent: the node sends a comment every few seconds.
const SILENCE: Duration = Duration::from_secs(20);

/// Follow transfers as they move
///
/// With an id and --until, it ends when the state is reached: 0 reached, 1 cancelled or paused by a person, 5 out of time,
/// 6 set aside in part, 8 refused by the partner, 9 partner unreachable.
#[derive(Args, Debug)]
#[command(before_help = "\
Examples:
  gantry transfer watch                       all that move
  gantry transfer watch 7Q2M4KXD --until sent --timeout 10m
  gantry transfer watch --json | jq -r 'select(.state == \"needs-action\") | .id'")]
pub(super) struct Arguments {
    /// Which transfer; all, if none is given
    id: Option<String>,
    /// End when this state is reached: sending, sent, confirmed or opened
    #[arg(long, value_name = "STATE", requires = "id", value_parser = goal)]
    until: Option<TransferState>,
    /// End with code 5 after so long
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
    /// Show patients in full
    #[arg(long)]
    reveal: bool,
}

fn goal(text: &str) -> Result<TransferState, String> {
    match text.parse() {
        Ok(state) if progress(state) >= Some(2) => Ok(state),
        _ => Err("wait for sending, sent, confirmed or opened".to_owned()),
    }
}

/// How far a state is on the way; `None` for those beside it.
fn progress(state: TransferState) -> Option<u8> {
    match state {
        TransferState::Receiving => Some(0),
        TransferState::Queued => Some(1),
        TransferState::Sending => Some(2),
        TransferState::Sent => Some(3),
        TransferState::Confirmed => Some(4),
        TransferState::Opened => Some(5),
        TransferState::Delayed
        | TransferState::NeedsAction
        | TransferState::Paused
        | TransferState::Cancelled
        | TransferState::Recalled => None,
    }
}

pub(super) async fn run(
    arguments: Arguments,
    config: &Config,
    mut node: Client,
    output: Output,
) -> Result<Exit, Failure> {
    let deadline = arguments.timeout.map(|timeout| Instant::now() + timeout);
    let id = match &arguments.id {
        Some(id) => Some(super::find(id, &mut node).await?),
        None => None,
    };
    let mut watcher = Watcher { config, node, events: None, deadline };
    let bar = id.map(|_| bar(output));
    let mut shown = Shown { reveal: arguments.reveal, output, said: HashMap::new(), bar };
    loop {
        let transfers = watcher.look(id).await?;
        shown.update(&transfers)?;
        if let (Some(until), [transfer]) = (arguments.until, transfers.as_slice())
            && let Some(exit) = ended(transfer, until)
        {
            shown.finish(transfer)?;
            return Ok(exit);
        }
        if !watcher.changed().await? {
            output.say("out of time");
            // Out of time is the answer where nothing was waited for.
            return Ok(if arguments.until.is_some() { Exit::Temporary } else { Exit::Done });
        }
    }
}

/// Waits until every one of these has been sent, or cannot be without a person. Shows nothing but a bar.
pub(crate) async fn until_sent(
    ids: &[TransferId],
    config: &Config,
    limit: Option<Duration>,
    output: Output,
) -> Result<Vec<(Transfer, Exit)>, Failure> {
    let deadline = limit.map(|limit| Instant::now() + limit);
    let mut watcher =
        Watcher { config, node: Client::connect(config).await?, events: None, deadline };
    let bar = output.bar(0, "Sending");
    loop {
        let mut transfers = Vec::new();
        for id in ids {
            transfers.extend(watcher.look(Some(*id)).await?);
        }
        bar.set_length(transfers.iter().map(|transfer| transfer.counts.total).sum());
        bar.set_position(transfers.iter().map(|transfer| transfer.counts.delivered).sum());
        let ends: Vec<_> =
            transfers.iter().map(|transfer| ended(transfer, TransferState::Sent)).collect();
        let all = ends.iter().all(Option::is_some);
        if all || !watcher.changed().await? {
            bar.finish_and_clear();
            let ends = ends
                .into_iter()
                .zip(&transfers)
                .map(|(end, transfer)| end.unwrap_or_else(|| waiting(transfer)));
            let ends: Vec<_> = ends.collect();
            return Ok(transfers.into_iter().zip(ends).collect());
        }
    }
}

/// How waiting for a state ends, if it does.
fn ended(transfer: &Transfer, until: TransferState) -> Option<Exit> {
    match transfer.state {
        TransferState::NeedsAction if transfer.counts.delivered > 0 => Some(Exit::Partly),
        TransferState::NeedsAction => {
            Some(transfer.problem.as_ref().map_or(Exit::Failed, |why| Exit::from(why.kind)))
        }
        TransferState::Paused | TransferState::Cancelled | TransferState::Recalled => {
            Some(Exit::Failed)
        }
        state => (progress(state) >= progress(until)).then_some(Exit::Done),
    }
}

/// What is to be said of a transfer that still waits when time is up.
fn waiting(transfer: &Transfer) -> Exit {
    match &transfer.problem {
        Some(why) if why.kind == FailureKind::Unreachable => Exit::Unreachable,
        _ => Exit::Temporary,
    }
}

/// Asks the node again whenever it says that something has changed.
struct Watcher<'a> {
    config: &'a Config,
    node: Client,
    events: Option<Stream>,
    deadline: Option<Instant>,
}

impl Watcher<'_> {
    /// What is watched, as it is now.
    async fn look(&mut self, id: Option<TransferId>) -> Result<Vec<Transfer>, Failure> {
        let gone = Instant::now() + RESTART;
        loop {
            let asked = match id {
                Some(id) => self
                    .node
                    .get(&format!("/api/v1/transfers/{id}"))
                    .await
                    .map(|transfer| vec![transfer]),
                None => self.node.get("/api/v1/transfers?limit=1000").await,
            };
            match asked {
                Err(failure) if is_gone(&failure) && Instant::now() < gone => {
                    self.reconnect(gone).await?;
                }
                asked => return asked,
            }
        }
    }

    /// Waits for a change; false if time is up.
    async fn changed(&mut self) -> Result<bool, Failure> {
        let gone = Instant::now() + RESTART;
        loop {
            let wake = Instant::now() + SILENCE;
            let wake = self.deadline.map_or(wake, |deadline| deadline.min(wake));
            let next = async {
                if self.events.is_none() {
                    // The stream keeps its connection to itself.
                    let stream =
                        Client::connect(self.config).await?.stream("/api/v1/events").await?;
                    self.events = Some(stream);
                }
                match &mut self.events {
                    Some(events) => events.next().await,
                    None => Ok(None),
                }
            };
            let heard = timeout_at(wake, next).await;
            if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Ok(false);
            }
            match heard {
                // A comment (`:`) says no more than that the node is there.
                Ok(Ok(Some(event))) if event.starts_with(b":") => {}
                Ok(Ok(Some(_))) => return Ok(true),
                // Silence is as good as a change: looking costs little, and finds out whether the node is there.
                Err(_) => {
                    self.events = None;
                    return Ok(true);
                }
                Ok(Ok(None)) => {
                    self.events = None;
                    self.reconnect(gone).await?;
                    return Ok(true);
                }
                Ok(Err(failure)) if is_gone(&failure) && Instant::now() < gone => {
                    self.events = None;
                    self.reconnect(gone).await?;
                    return Ok(true);
                }
                Ok(Err(failure)) => return Err(failure),
            }
        }
    }

    async fn reconnect(&mut self, gone: Instant) -> Result<(), Failure> {
        loop {
            match Client::connect(self.config).await {
                Ok(node) => {
                    self.node = node;
                    return Ok(());
                }
                Err(failure) if Instant::now() >= gone => return Err(failure),
                Err(_) => sleep(Duration::from_millis(500)).await,
            }
        }
    }
}

/// Whether the node went away, which a restart does.
fn is_gone(failure: &Failure) -> bool {
    matches!(failure.exit, Exit::Temporary | Exit::Unreachable)
}

/// What was said of each transfer; nothing is said twice.
struct Shown {
    reveal: bool,
    output: Output,
    said: HashMap<TransferId, String>,
    /// For one transfer on a terminal.
    bar: Option<ProgressBar>,
}

impl Shown {
    fn update(&mut self, transfers: &[Transfer]) -> Result<(), Failure> {
        let first = self.said.is_empty();
        let mut moved: Vec<_> =
            transfers.iter().filter(|transfer| self.news(transfer)).cloned().collect();
        if first && transfers.len() > 1 {
            // What is over does not move.
            moved.retain(|transfer| !is_over(transfer.state));
        }
        if !self.reveal {
            moved.shorten();
        }
        // Lists begin with the newest; a log ends with it.
        for transfer in moved.iter().rev() {
            match &self.bar {
                _ if self.output.is_json() => self.output.json(transfer)?,
                Some(bar) if !bar.is_hidden() => {
                    bar.set_length(transfer.counts.total);
                    bar.set_position(transfer.counts.delivered);
                    bar.set_message(transfer.sentence.clone());
                }
                _ => self.output.line(line(transfer, self.output))?,
            }
        }
        Ok(())
    }

    /// Whether something is to be said of it that was not said before.
    fn news(&mut self, transfer: &Transfer) -> bool {
        let now = format!("{}{:?}{}", transfer.state, transfer.counts, transfer.priority);
        self.said.insert(transfer.id, now.clone()).is_none_or(|before| before != now)
    }

    /// Leaves the last word where the bar was.
    fn finish(&self, transfer: &Transfer) -> Result<(), Failure> {
        match &self.bar {
            Some(bar) if !bar.is_hidden() => {
                bar.finish_and_clear();
                self.output.line(line(transfer, self.output))
            }
            _ => Ok(()),
        }
    }
}

fn is_over(state: TransferState) -> bool {
    matches!(
        state,
        TransferState::Sent
            | TransferState::Confirmed
            | TransferState::Opened
            | TransferState::Cancelled
            | TransferState::Recalled
    )
}

fn line(transfer: &Transfer, output: Output) -> String {
    format!(
        "{}  {}  {}  {}  {}",
        transfer.short_id(),
        super::state(transfer.state, output),
        transfer.partner,
        transfer.images(),
        transfer.sentence
    )
}

fn bar(output: Output) -> ProgressBar {
    let bar = output.bar(0, "");
    let style = ProgressStyle::with_template("{bar:24} {pos} of {len}  {wide_msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("━╸─"));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_a_state_on_the_way() {
        for good in ["sending", "sent", "confirmed", "opened"] {
            assert!(goal(good).is_ok(), "{good}");
        }
        for bad in ["queued", "delayed", "cancelled", "arrived", ""] {
            assert!(goal(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_failure_has_the_exit_code_of_its_kind() {
        let codes = [
            (FailureKind::Unreachable, Exit::Unreachable),
            (FailureKind::TlsFailed, Exit::Unreachable),
            (FailureKind::AssociationRejected, Exit::Refused),
            (FailureKind::Refused, Exit::Refused),
            (FailureKind::OutOfResources, Exit::Temporary),
            (FailureKind::CannotConvert, Exit::Failed),
        ];
        for (kind, exit) in codes {
            assert_eq!(Exit::from(kind), exit, "{kind:?}");
        }
    }
}
