//! A way to tell people: one webhook, or mail. Whether it works is noted, for those who ask.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use thiserror::Error;

use super::message::Message;
use super::{mail, webhook};
use crate::config::{Alarm, Mail, Webhook};
use crate::telemetry::chain;

/// How long a channel that failed is left alone, at first and at most.
const FLOOR: Duration = Duration::from_secs(2);
const CEILING: Duration = Duration::from_mins(2);
/// How long one try may take, all in all.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why a message was not taken.
#[derive(Debug, Error)]
pub enum SendError {
    /// It took too long.
    #[error("it did not answer within {} s", PATIENCE.as_secs())]
    TimedOut,
    /// The host is not known, or does not answer.
    #[error("cannot connect to {host}:{port}")]
    Connect {
        /// Which host.
        host: String,
        /// Which port.
        port: u16,
        /// Why.
        source: std::io::Error,
    },
    /// TLS cannot be set up.
    #[error("cannot set up TLS")]
    Tls(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The other side and this one do not agree on TLS.
    #[error("no secure connection")]
    Handshake(#[source] std::io::Error),
    /// What it speaks is not HTTP, or it broke off.
    #[error("no answer over HTTP")]
    Http(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It sent this node elsewhere.
    #[error("it answered {0}, a redirection, which is not followed")]
    Redirected(u16),
    /// It answered, and did not take it.
    #[error("it answered {0}")]
    Answer(u16),
    /// The message cannot be written.
    #[error("the message cannot be written")]
    Message(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The mail server did not take it.
    #[error("the mail was not taken")]
    Mail(#[source] lettre::transport::smtp::Error),
}

impl SendError {
    /// What a person can do.
    pub fn remedy(&self) -> String {
        match self {
            Self::TimedOut => "See whether a firewall lets this machine through to it.",
            Self::Connect { source, .. } => match source.kind() {
                std::io::ErrorKind::ConnectionRefused => {
                    "Nothing listens there: see whether host and port are right, and it runs."
                }
                _ => "See whether the host's name is right, and a firewall lets this machine through to it.",
            },
            Self::Tls(_) => "See whether the authority's file is a PEM file of an authority.",
            Self::Handshake(_) => {
                "See whether it speaks TLS on that port, and name the authority of its certificate: webhook-authority, or \
                 authority of mail."
            }
            Self::Http(_) => "See whether it is a web server that listens there.",
            Self::Redirected(_) => "Write the address that it redirects to.",
            Self::Answer(401 | 403) => {
                "It does not let this node in: see whether address and secret are those that it gave out."
            }
            Self::Answer(404 | 410) => "There is nothing at this address: have it made anew, and write that.",
            Self::Answer(500..) => "It has trouble of its own: ask whoever runs it.",
            Self::Answer(_) => "Ask whoever runs it which messages it takes.",
            Self::Message(_) => "Report this: it is a fault of this program.",
            Self::Mail(error) if error.is_permanent() => {
                "The mail server's answer says why: most often it wants user and password, or does not know sender or reader."
            }
            Self::Mail(error) if error.is_transient() => "The mail server asks to come back later, which is done by itself.",
            Self::Mail(error) if error.is_tls() => {
                "See whether tls of mail is what the server speaks on that port, and name the authority of its certificate."
            }
            Self::Mail(_) => {
                "See whether server, port and tls of mail are right, and a firewall lets this machine through to it."
            }
        }
        .to_owned()
    }
}

/// A way to tell people.
#[derive(Debug)]
pub struct Channel {
    name: String,
    way: Way,
    health: Mutex<Health>,
}

#[derive(Debug)]
enum Way {
    Webhook(Box<Webhook>),
    Mail(Box<Mail>),
}

#[derive(Clone, Debug, Default)]
struct Health {
    sent_at: Option<Timestamp>,
    failing_since: Option<Timestamp>,
    failures: u32,
    why: Option<String>,
    remedy: Option<String>,
}

/// How a channel is.
#[derive(Clone, Debug, Serialize)]
pub struct ChannelReport {
    /// What it is called: its kind and its host, never an address's path.
    pub name: String,
    /// When it last took a message, since the node started.
    pub sent_at: Option<Timestamp>,
    /// Since when it takes none.
    pub failing_since: Option<Timestamp>,
    /// Why.
    pub why: Option<String>,
    /// What a person can do.
    pub remedy: Option<String>,
}

/// What came of a test.
#[derive(Clone, Debug, Serialize)]
pub struct Tested {
    /// What the channel is called.
    pub name: String,
    /// Whether it took the message.
    pub taken: bool,
    /// What the server said, or why there is no answer.
    pub answer: String,
    /// What a person can do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// All that a configuration names.
pub(super) fn all(alarm: &Alarm) -> Vec<Channel> {
    let mut channels: Vec<Channel> = Vec::new();
    let webhooks = alarm.webhooks.iter().cloned();
    let ways = webhooks.map(|webhook| Way::Webhook(Box::new(webhook)));
    for way in ways.chain(alarm.mail.clone().map(|mail| Way::Mail(Box::new(mail)))) {
        let base = match &way {
            Way::Webhook(webhook) => format!("webhook {}:{}", webhook.host, webhook.port),
            Way::Mail(mail) => format!("mail {}:{}", mail.server, mail.port),
        };
        let same = channels.iter().filter(|other| other.name.split(" #").next() == Some(&base));
        let name = match same.count() {
            0 => base,
            others => format!("{base} #{}", others + 1),
        };
        channels.push(Channel { name, way, health: Mutex::default() });
    }
    channels
}

impl Channel {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        // Each change is one assignment.
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn report(&self) -> ChannelReport {
        let Health { sent_at, failing_since, why, remedy, .. } = self.health().clone();
        ChannelReport { name: self.name.clone(), sent_at, failing_since, why, remedy }
    }

    /// How long to leave it alone after a failure.
    pub(super) fn pause(&self) -> Duration {
        let failures = self.health().failures.saturating_sub(1).min(10);
        FLOOR.saturating_mul(1 << failures).min(CEILING)
    }

    /// Sends a message. Says whether it was taken.
    pub(super) async fn send(&self, message: &Message) -> bool {
        let sent = self.try_to(message).await;
        let now = Timestamp::now();
        let mut health = self.health();
        match sent {
            Ok(_) => {
                if health.failing_since.is_some() {
                    tracing::info!(channel = self.name, "messages about alarms are taken again");
                }
                *health = Health { sent_at: Some(now), ..Health::default() };
                true
            }
            Err(error) => {
                let why = chain(&error).to_string();
                // One line for each reason, not one for each try.
                if health.why.as_ref() != Some(&why) {
                    tracing::warn!(
                        channel = self.name,
                        why,
                        "a message about alarms was not taken; it is tried again"
                    );
                }
                health.failing_since.get_or_insert(now);
                health.failures += 1;
                health.remedy = Some(error.remedy());
                health.why = Some(why);
                false
            }
        }
    }

    /// Sends a message once, and says what came of it.
    pub(super) async fn test(&self, message: &Message) -> Tested {
        let name = self.name.clone();
        match self.try_to(message).await {
            Ok(answer) => Tested { name, taken: true, answer, remedy: None },
            Err(error) => Tested {
                name,
                taken: false,
                answer: chain(&error).to_string(),
                remedy: Some(error.remedy()),
            },
        }
    }

    async fn try_to(&self, message: &Message) -> Result<String, SendError> {
        let sent = async {
            match &self.way {
                Way::Webhook(webhook) => webhook::post(webhook, message).await,
                Way::Mail(mail) => mail::send(mail, message).await,
            }
        };
        tokio::time::timeout(PATIENCE, sent).await.unwrap_or(Err(SendError::TimedOut))
    }
}
