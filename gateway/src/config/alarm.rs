//! `[alarm]`: when people are told that something is stuck, and how.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use lettre::message::Mailbox;
use zeroize::Zeroizing;

/// `[alarm]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Alarm {
    /// How long nothing may leave for a partner although something waits for it; `None`: as long as it likes.
    pub partner_silent: Option<Duration>,
    /// How long an emergency may wait without any progress; `None`: as long as it likes.
    pub emergency_stalled: Option<Duration>,
    /// How long all must have been well before an alarm ends.
    pub clear_for: Duration,
    /// How long after a message the next one about the same alarm comes, while it lasts.
    pub repeat: Duration,
    /// Who is told over HTTP.
    pub webhooks: Vec<Webhook>,
    /// Who is told by mail.
    pub mail: Option<Mail>,
}

impl Default for Alarm {
    fn default() -> Self {
        Self {
            partner_silent: Some(Duration::from_mins(15)),
            emergency_stalled: Some(Duration::from_secs(30)),
            clear_for: Duration::from_mins(1),
            repeat: Duration::from_hours(1),
            webhooks: Vec::new(),
            mail: None,
        }
    }
}

/// One address of `webhook`.
#[derive(Clone, Eq, PartialEq)]
pub struct Webhook {
    /// A host name or an address, without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Path and query, from the slash on. Often a secret: who knows it may post.
    pub target: String,
    /// Whether it is https.
    pub encrypted: bool,
    /// The authority that its certificate must come from; `None`: any that the operating system believes.
    pub authority: Option<PathBuf>,
    /// What messages are signed with.
    pub secret: Option<Secret>,
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, encrypted, .. } = self;
        f.debug_struct("Webhook")
            .field("host", host)
            .field("port", port)
            .field("encrypted", encrypted)
            .finish_non_exhaustive()
    }
}

/// `mail`.
#[derive(Clone, Debug, PartialEq)]
pub struct Mail {
    /// The server that takes mail from this node.
    pub server: String,
    /// Its port.
    pub port: u16,
    /// How it is spoken to.
    pub tls: MailTls,
    /// The authority that its certificate must come from; `None`: any that the operating system believes.
    pub authority: Option<PathBuf>,
    /// Who writes.
    pub from: Mailbox,
    /// Who reads; at least one.
    pub to: Vec<Mailbox>,
    /// User and password, where the server asks for them.
    pub credentials: Option<(String, Secret)>,
}

/// `tls` of `mail`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum MailTls {
    /// TLS begins after STARTTLS (RFC 3207), or nothing is sent.
    #[default]
    StartTls,
    /// TLS from the first byte (RFC 8314).
    Tls,
    /// Plain text.
    Off,
}

impl MailTls {
    /// The port that is usual for it.
    pub fn port(self) -> u16 {
        match self {
            Self::StartTls => 587,
            Self::Tls => 465,
            Self::Off => 25,
        }
    }
}

/// Something that nobody may see.
#[derive(Clone, Eq, PartialEq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Wraps it.
    pub fn new(text: Zeroizing<String>) -> Self {
        Self(text)
    }

    /// What it is.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}
