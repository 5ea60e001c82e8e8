//! What a person does to transfers: to one that is named, or to all that a filter lets through, counted first.

use std::io::{self, Write as _};
use std::time::Duration;

use clap::Args;
use gantry_gateway::config::Config;
use gantry_store::facts::Priority;
use gantry_store::index::{TransferId, TransferState};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Ask, find, known_state};
use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::output::{Output, Paint};
use crate::views::short_id;
use crate::words;

/// Which transfers: some that are named, or a filter.
#[derive(Args, Debug)]
pub(super) struct Which {
    /// Which transfers, by id
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// Those to this partner
    #[arg(long, value_name = "NAME", help_heading = "Filter")]
    partner: Option<String>,
    /// Those in this state, such as delayed or needs-action
    #[arg(long, value_parser = known_state, help_heading = "Filter")]
    state: Option<TransferState>,
    /// Those that came from this source
    #[arg(long, value_name = "NAME", help_heading = "Filter")]
    source: Option<String>,
    /// Those that began so long ago (2h), or longer
    #[arg(long, value_name = "AGE", value_parser = age, help_heading = "Filter")]
    older_than: Option<SignedDuration>,
    /// All of them
    #[arg(long, help_heading = "Filter")]
    all: bool,
    /// Why; the timeline shows it
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Only say how many transfers and images it concerns
    #[arg(long)]
    dry_run: bool,
}

/// The same, with a filter by priority.
#[derive(Args, Debug)]
pub(super) struct Chosen {
    #[command(flatten)]
    which: Which,
    /// Those of this priority: emergency, urgent or routine
    #[arg(long, help_heading = "Filter")]
    priority: Option<Priority>,
}

/// What is done.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Act {
    Retry,
    Cancel,
    Pause,
    Resume,
    Urgent(Priority),
}

impl Act {
    fn name(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Cancel => "cancel",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Urgent(_) => "urgent",
        }
    }

    /// The address of what does it to one transfer.
    fn of_one(self) -> &'static str {
        match self {
            Self::Urgent(_) => "priority",
            _ => self.name(),
        }
    }

    /// "retry 3 transfers", of those.
    fn with(self, concerned: &str) -> String {
        match self {
            Self::Urgent(to) => format!("raise {concerned} to {to}"),
            _ => format!("{} {concerned}", self.name()),
        }
    }

    /// What a person is asked.
    fn question(self) -> &'static str {
        match self {
            Self::Retry => "Try them again",
            Self::Cancel => "Cancel them",
            Self::Pause => "Pause them",
            Self::Resume => "Let them go on",
            Self::Urgent(_) => "Make them more urgent",
        }
    }
}

/// What the API takes.
#[derive(Serialize)]
struct Request<'a> {
    act: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    filter: Option<Filter<'a>>,
    ids: &'a [TransferId],
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<Priority>,
    dry_run: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected: Option<Expected<'a>>,
}

#[derive(Clone, Serialize)]
struct Filter<'a> {
    partner: Option<&'a str>,
    state: Option<TransferState>,
    source: Option<&'a str>,
    priority: Option<Priority>,
    created_before: Option<Timestamp>,
    all: bool,
}

#[derive(Serialize)]
struct Expected<'a> {
    transfers: u64,
    set: &'a str,
}

/// What came of it; what `--json` prints.
#[derive(Debug, Deserialize, Serialize)]
struct Answer {
    dry_run: bool,
    transfers: u64,
    images: u64,
    set: String,
    failed: u64,
    results: Vec<Done>,
}

#[derive(Debug, Deserialize, Serialize)]
struct Done {
    id: TransferId,
    partner: String,
    changed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Answer {
    fn exit(&self) -> Exit {
        match self.failed {
            0 => Exit::Done,
            failed if failed == self.transfers => Exit::Failed,
            _ => Exit::Partly,
        }
    }
}

impl Chosen {
    pub(super) async fn run(
        self,
        act: Act,
        config: &Config,
        node: &mut Client,
        output: Output,
    ) -> Result<Exit, Failure> {
        self.which.run(act, self.priority, config, node, output).await
    }
}

impl Which {
    pub(super) async fn run(
        self,
        act: Act,
        priority: Option<Priority>,
        config: &Config,
        node: &mut Client,
        output: Output,
    ) -> Result<Exit, Failure> {
        let filtered = self.partner.is_some()
            || self.state.is_some()
            || self.source.is_some()
            || priority.is_some()
            || self.older_than.is_some()
            || self.all;
        if self.ids.is_empty() && !filtered {
            let failure = Failure::new(Exit::Usage, "nothing says which transfers are meant");
            return Err(failure.hint(format_args!(
                "name some by id, or say --partner, --state, --source, --older-than or --all: `gantry transfer {} --help`",
                act.name()
            )));
        }
        if !self.ids.is_empty() && filtered {
            let failure =
                Failure::new(Exit::Usage, "both ids and a filter say which transfers are meant");
            return Err(failure.hint("give one of them"));
        }
        if act == Act::Cancel && !self.dry_run && self.reason.trim().is_empty() {
            let failure = Failure::new(Exit::Usage, "a transfer is not cancelled without a reason");
            return Err(failure.hint("add --reason \"…\": whoever waits for the images reads it"));
        }
        let mut ids = Vec::with_capacity(self.ids.len());
        for name in &self.ids {
            ids.push(find(name, node).await?);
        }
        let set = Set { act, which: &self, priority, ids: &ids };
        if let ([id], false) = (ids.as_slice(), self.dry_run) {
            if act == Act::Cancel && !self.yes {
                let (_, concerned) = set.count(Timestamp::now(), node).await?;
                set.agreed(&concerned, output)?;
                *node = Client::connect(config).await?;
            }
            return super::act(*id, act.of_one(), &self.ask(act), node, output).await;
        }
        set.run(config, node, output).await
    }

    fn ask(&self, act: Act) -> Ask<'_> {
        let reason = self.reason.as_str();
        match act {
            Act::Urgent(priority) => Ask { reason, priority: Some(priority), rejection: None },
            _ => Ask { reason, priority: None, rejection: None },
        }
    }
}

/// Several transfers, and what is to be done with them.
struct Set<'a> {
    act: Act,
    which: &'a Which,
    priority: Option<Priority>,
    ids: &'a [TransferId],
}

impl Set<'_> {
    async fn run(
        &self,
        config: &Config,
        node: &mut Client,
        output: Output,
    ) -> Result<Exit, Failure> {
        // The moment stays the same from the count to the act.
        let now = Timestamp::now();
        let (counted, concerned) = self.count(now, node).await?;
        if self.which.dry_run {
            return self.only_counted(&counted, &concerned, output);
        }
        if counted.transfers == 0 {
            output.say("no transfers to do that with");
            if output.is_json() {
                output.json(&counted)?;
            }
            return Ok(Exit::Done);
        }
        if !self.which.yes {
            self.agreed(&concerned, output)?;
            // The node may have closed the connection while a person thought about it.
            *node = Client::connect(config).await?;
        }
        let expected = Expected { transfers: counted.transfers, set: &counted.set };
        let done: Answer = node.post(PATH, &self.request(now, Some(expected))).await?;
        self.print(&done, output)
    }

    async fn count(&self, now: Timestamp, node: &mut Client) -> Result<(Answer, String), Failure> {
        let counted: Answer = node.post(PATH, &self.request(now, None)).await?;
        let concerned = format!(
            "{} with {}",
            words::count(counted.transfers, "transfer", "transfers"),
            words::count(counted.images, "image", "images")
        );
        Ok((counted, concerned))
    }

    fn request<'a>(&'a self, now: Timestamp, expected: Option<Expected<'a>>) -> Request<'a> {
        let which = self.which;
        let filter = self.ids.is_empty().then(|| Filter {
            partner: which.partner.as_deref(),
            state: which.state,
            source: which.source.as_deref(),
            priority: self.priority,
            created_before: which.older_than.and_then(|age| now.checked_sub(age).ok()),
            all: which.all,
        });
        Request {
            act: self.act.name(),
            filter,
            ids: self.ids,
            reason: &which.reason,
            to: match self.act {
                Act::Urgent(to) => Some(to),
                _ => None,
            },
            dry_run: expected.is_none(),
            expected,
        }
    }

    fn only_counted(
        &self,
        counted: &Answer,
        concerned: &str,
        output: Output,
    ) -> Result<Exit, Failure> {
        if output.is_json() {
            output.json(counted)?;
        } else {
            output.line(format_args!("would {}", self.act.with(concerned)))?;
        }
        Ok(Exit::Done)
    }

    fn agreed(&self, concerned: &str, output: Output) -> Result<(), Failure> {
        if !output.can_ask() {
            let act = self.act.with(concerned);
            let message = format!("nobody is here to be asked whether to {act}");
            return Err(Failure::new(Exit::Usage, message)
                .hint("add --yes, or --dry-run to see only how many they are"));
        }
        if agreed(&format!("This concerns {concerned}. {}?", self.act.question())) {
            return Ok(());
        }
        Err(Failure::new(Exit::Failed, "nothing was changed"))
    }

    fn print(&self, done: &Answer, output: Output) -> Result<Exit, Failure> {
        let exit = done.exit();
        if output.is_json() {
            output.json(done)?;
            return Ok(exit);
        }
        for one in &done.results {
            let (id, partner) = (short_id(one.id), &one.partner);
            match &one.error {
                None => {
                    let moved = words::count(one.changed, "image", "images");
                    output.line(format_args!("{id}  {partner}  {}, {moved}", self.act.name()))?;
                }
                Some(error) => {
                    let failed = output.paint(Paint::Red, "not done");
                    output.line(format_args!("{id}  {partner}  {failed}: {error}"))?;
                }
            }
        }
        Ok(exit)
    }
}

/// Asks a person. No answer is a no.
pub(super) fn agreed(question: &str) -> bool {
    let mut err = io::stderr().lock();
    let asked = write!(err, "{question} [y/N] ");
    let _ = asked.and_then(|()| err.flush());
    let mut answer = String::new();
    let heard = io::stdin().read_line(&mut answer);
    heard.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
}

const PATH: &str = "/api/v1/transfers/act";

/// How long ago.
fn age(text: &str) -> Result<SignedDuration, String> {
    let ago: Duration = humantime::parse_duration(text)
        .map_err(|_| "give how long ago, such as 30m, 2h or 7days".to_owned())?;
    SignedDuration::try_from(ago).map_err(|_| "that is before there were images".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_partly_done_is_told_apart() {
        let of = |failed| {
            let set = String::new();
            Answer { dry_run: false, transfers: 3, images: 9, set, failed, results: Vec::new() }
        };
        assert_eq!(
            [0, 1, 3].map(|failed| of(failed).exit()),
            [Exit::Done, Exit::Partly, Exit::Failed]
        );
    }

    #[test]
    fn an_age_has_a_unit() {
        assert_eq!(age("2h"), Ok(SignedDuration::from_hours(2)));
        assert!(age("2").is_err() && age("yesterday").is_err());
    }
}
