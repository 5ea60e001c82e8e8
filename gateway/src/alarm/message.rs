//! What is told of alarms: a JSON document for programs, and a mail for people. References only, never patient data.

use std::fmt::Write as _;

use gantry_store::index::TransferId;
use jiff::Timestamp;
use serde::Serialize;
use ulid::Ulid;

use super::Kind;
use super::book::Alarm;
use crate::config::Config;

/// The version of the JSON document. What it holds may grow; what is there keeps its name and its meaning.
const VERSION: u32 = 1;

/// What is said of an alarm.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// It has begun.
    Begun,
    /// It lasts: a reminder.
    Lasts,
    /// It has ended.
    Ended,
}

/// Whose alarms these are.
#[derive(Clone, Debug, Serialize)]
pub struct Sender {
    organisation: String,
    ae_title: String,
    /// What links begin with.
    #[serde(skip)]
    pages: Option<String>,
}

/// One message, about one alarm or several at once.
#[derive(Clone, Debug, Serialize)]
pub struct Message {
    version: u32,
    /// Its name: a message that comes twice has it twice.
    pub(super) id: Ulid,
    pub(super) sent_at: Timestamp,
    node: Sender,
    /// Whether it only shows that messages arrive; then there are no events.
    test: bool,
    events: Vec<Told>,
}

#[derive(Clone, Debug, Serialize)]
struct Told {
    event: Event,
    id: Ulid,
    kind: Kind,
    partner: Option<String>,
    transfer: Option<TransferId>,
    since: Timestamp,
    begun_at: Timestamp,
    ended_at: Option<Timestamp>,
    sentence: String,
    act: String,
    /// Where a person who may sees more.
    link: Option<String>,
}

impl Sender {
    /// The node with this configuration.
    pub(super) fn of(config: &Config) -> Self {
        Self {
            organisation: config.node.organisation.clone(),
            ae_title: config.node.ae_title.to_string(),
            pages: config.web.as_ref().and_then(|web| web.url.clone()),
        }
    }

    pub(super) fn message(&self, due: &[(Event, Alarm)], now: Timestamp) -> Message {
        let events = due.iter().map(|(event, alarm)| self.told(*event, alarm)).collect();
        self.of_events(events, false, now)
    }

    /// One that only shows that messages arrive.
    pub(super) fn test(&self, now: Timestamp) -> Message {
        self.of_events(Vec::new(), true, now)
    }

    fn of_events(&self, events: Vec<Told>, test: bool, sent_at: Timestamp) -> Message {
        Message { version: VERSION, id: Ulid::new(), sent_at, node: self.clone(), test, events }
    }

    fn told(&self, event: Event, alarm: &Alarm) -> Told {
        let pages = self.pages.as_deref().map(|pages| pages.trim_end_matches('/'));
        Told {
            event,
            id: alarm.id,
            kind: alarm.kind,
            partner: alarm.partner.clone(),
            transfer: alarm.transfer,
            since: alarm.since,
            begun_at: alarm.begun_at,
            ended_at: alarm.ended_at,
            sentence: alarm.sentence.clone(),
            act: alarm.act.clone(),
            link: pages.map(|pages| match alarm.transfer {
                Some(transfer) => format!("{pages}/transfers/{transfer}"),
                None => format!("{pages}/"),
            }),
        }
    }
}

impl Message {
    /// The line that lists of mails show. A partner's configured name, and nothing else of what is wrong.
    pub(super) fn subject(&self) -> String {
        let node = &self.node.organisation;
        match self.events.as_slice() {
            [] => format!("[Gantry {node}] Test: this is how alarms arrive"),
            [one] => {
                let what = one.kind.title();
                let of = one.partner.as_ref().map(|of| format!(" ({of})")).unwrap_or_default();
                match one.event {
                    Event::Begun => format!("[Gantry {node}] Alarm: {what}{of}"),
                    Event::Lasts => format!("[Gantry {node}] Still: {what}{of}"),
                    Event::Ended => format!("[Gantry {node}] Ended: {what}{of}"),
                }
            }
            several => {
                let count = |event| several.iter().filter(|told| told.event == event).count();
                let parts = [
                    (count(Event::Begun), "begun"),
                    (count(Event::Lasts), "still there"),
                    (count(Event::Ended), "ended"),
                ];
                let parts = parts.into_iter().filter(|(count, _)| *count > 0);
                let parts: Vec<_> = parts.map(|(count, what)| format!("{count} {what}")).collect();
                format!("[Gantry {node}] Alarms: {}", parts.join(", "))
            }
        }
    }

    /// The text of a mail.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = writeln!(text, "Gantry {} of {}\n", self.node.ae_title, self.node.organisation);
        if self.test {
            text.push_str("This message only shows that alarms arrive here. Nothing is wrong.\n");
        }
        for told in &self.events {
            let _ = match (told.event, told.ended_at) {
                (Event::Ended, Some(ended)) => {
                    writeln!(text, "ENDED {}: {}", clock(ended), told.sentence)
                }
                (Event::Lasts, _) => writeln!(text, "STILL THERE: {}", told.sentence),
                _ => writeln!(text, "ALARM: {}", told.sentence),
            };
            let _ = writeln!(text, "  since     {}", clock(told.since));
            if told.event != Event::Ended {
                let _ = writeln!(text, "  do        {}", told.act);
            }
            if let Some(transfer) = told.transfer {
                let _ = writeln!(text, "  transfer  {transfer}");
            }
            if let Some(link) = &told.link {
                let _ = writeln!(text, "  see       {link}");
            }
            let _ = writeln!(text, "  alarm     {} {}\n", told.kind.as_str(), told.id);
        }
        text.push_str(
            "References only: who the patient is says the page, to those who may see it.\n",
        );
        text
    }
}

/// In UTC, as whoever reads a mail may be anywhere.
fn clock(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sender() -> Sender {
        Sender {
            organisation: "RXX".into(),
            ae_title: "RXX_GW".into(),
            pages: Some("https://gantry.example/".into()),
        }
    }

    fn alarm(kind: Kind, transfer: Option<TransferId>) -> Alarm {
        Alarm {
            id: Ulid::new(),
            kind,
            partner: Some("york".into()),
            transfer,
            since: Timestamp::from_second(0).unwrap(),
            begun_at: Timestamp::from_second(30).unwrap(),
            clear_since: None,
            ended_at: Some(Timestamp::from_second(90).unwrap()),
            sentence: "It does not move.".into(),
            act: "Phone them.".into(),
        }
    }

    #[test]
    fn a_message_has_a_version_a_name_and_one_entry_an_alarm() {
        let transfer = "01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap();
        let due = [(Event::Begun, alarm(Kind::EmergencyStalled, Some(transfer)))];

        let json = serde_json::to_value(sender().message(&due, Timestamp::UNIX_EPOCH)).unwrap();

        assert_eq!((&json["version"], &json["test"]), (&1.into(), &false.into()));
        assert_eq!(json["node"]["organisation"], "RXX");
        let event = &json["events"][0];
        assert_eq!(
            (&event["event"], &event["kind"]),
            (&"begun".into(), &"emergency-stalled".into())
        );
        assert_eq!(event["link"], "https://gantry.example/transfers/01ARZ3NDEKTSV4RRFFQ69G5FAV");
    }

    #[test]
    fn a_subject_says_what_it_is_about() {
        let of = |due: &[(Event, Alarm)]| sender().message(due, Timestamp::UNIX_EPOCH);
        let silent = || alarm(Kind::PartnerSilent, None);

        let one = of(&[(Event::Ended, silent())]);
        let several = of(&[(Event::Begun, silent()), (Event::Ended, silent())]);

        assert_eq!(one.subject(), "[Gantry RXX] Ended: nothing leaves for a partner (york)");
        assert!(one.text().contains("ENDED 1970-01-01 00:01:30 UTC: It does not move."));
        assert_eq!(several.subject(), "[Gantry RXX] Alarms: 1 begun, 1 ended");
        assert!(sender().test(Timestamp::UNIX_EPOCH).text().contains("Nothing is wrong"));
    }
}
