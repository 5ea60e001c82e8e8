//! `[alarm]`: when people are told that something is stuck, and how.
//!
//! A message says what this node is called and which transfer is stuck, and never whose images those are. Beyond this machine
//! it goes over TLS unless the file says otherwise, and a password never goes in plain text.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::http::Uri;
use lettre::message::Mailbox;
use rustls::RootCertStore;
use serde_spanned::Spanned;
use zeroize::Zeroizing;

use super::super::file::{AlarmSection, MailSection};
use super::super::{Alarm, Mail, MailTls, Secret, Webhook};
use super::{Bad, Check, Section, Text, Written, words};

/// The shortest secret that a signature is worth something with.
const SECRET: usize = 16;

impl Check {
    pub(super) fn alarm(&mut self, main: &Written) -> Alarm {
        let (absent, default) = (AlarmSection::default(), Alarm::default());
        let (section, body) = Section::or_default(main, main.file.alarm.as_ref(), &absent);
        let (second, day) = (Duration::from_secs(1), Duration::from_hours(24));
        let webhooks = self.webhooks(&section, body);
        let mail = body.mail.as_ref().and_then(|mail| {
            let (section, body) = Section::of(main, mail);
            self.mail(&section, body)
        });
        Alarm {
            partner_silent: self
                .text(&section, &body.partner_silent, |text| off_or(text, &(second..=day * 7)))
                .unwrap_or(default.partner_silent),
            emergency_stalled: self
                .text(&section, &body.emergency_stalled, |text| off_or(text, &(second..=day)))
                .unwrap_or(default.emergency_stalled),
            clear_for: self.duration(
                &section,
                &body.clear_for,
                default.clear_for,
                &(Duration::ZERO..=Duration::from_hours(1)),
            ),
            repeat: self.duration(&section, &body.repeat, default.repeat, &(second..=day * 7)),
            webhooks,
            mail,
        }
    }

    fn webhooks(&mut self, section: &Section<'_>, body: &AlarmSection) -> Vec<Webhook> {
        let words = [("server-only", Some(true)), ("off", Some(false)), ("mutual", None)];
        let written = self
            .text(section, &body.webhook_tls, |text| words::one_of("webhook-tls", text, &words));
        let addresses = self.texts(section, &body.webhook, webhook);
        if body.webhook.is_none() {
            let about_webhooks =
                [&body.webhook_tls, &body.webhook_authority, &body.webhook_secret_file];
            for key in about_webhooks.into_iter().flatten() {
                let help = "Write webhook = \"https://…\" beside it, or remove it.";
                let message = "there is no webhook that this could be about";
                self.problem(section, key.span(), Bad::new(message, "webhook is missing", help));
            }
        }
        for (span, address) in &addresses {
            if !address.encrypted && !is_here(&address.host) && written != Some(false) {
                let help =
                    "Write https; or, for a network you trust, webhook-tls = \"off\" beside it.";
                let message = "alarms would be sent in plain text";
                let bad = Bad::new(message, "http, not on this machine", help);
                self.problem(section, span.clone(), bad);
            }
        }
        let authority = self.alarm_authority(section, &body.webhook_authority);
        let secret = self.secret(section, &body.webhook_secret_file, "secret", SECRET);
        addresses
            .into_iter()
            .map(|(_, address)| Webhook {
                authority: authority.clone(),
                secret: secret.clone(),
                ..address
            })
            .collect()
    }

    fn mail(&mut self, section: &Section<'_>, body: &MailSection) -> Option<Mail> {
        let server = self.mail_lacks(
            section,
            "server",
            body.server.as_ref(),
            "Write the host that takes mail from this machine, such as server = \"smtp.trust.example\".",
        );
        let server = server.and_then(|_| self.text(section, &body.server, host));
        let help = "Write who the mail is from, such as from = \"gantry@trust.example\".";
        let from = self.mail_lacks(section, "from", body.from.as_ref(), help);
        let from = from.and_then(|_| self.text(section, &body.from, mailbox));
        let help = "Write who is told, such as to = [\"pacs-team@trust.example\"].";
        let readers = self.mail_lacks(section, "to", body.to.as_ref(), help);
        let to: Vec<_> =
            self.texts(section, &body.to, mailbox).into_iter().map(|(_, to)| to).collect();
        if let Some(readers) = readers
            && super::each(readers).is_empty()
        {
            let message = "nobody would read this mail";
            self.problem(section, readers.span(), Bad::new(message, "empty", help));
        }
        let words = [
            ("starttls", Some(MailTls::StartTls)),
            ("tls", Some(MailTls::Tls)),
            ("off", Some(MailTls::Off)),
        ];
        let tls = self
            .text(section, &body.tls, |text| words::one_of("tls of mail", text, &words))
            .unwrap_or_default();
        let port = body.port.as_ref().and_then(|port| {
            let port = self.note(section, port.span(), words::whole(*port.get_ref(), &(1..=65535)));
            port.and_then(|port| u16::try_from(port).ok())
        });
        let authority = self.alarm_authority(section, &body.authority);
        let off = tls == MailTls::Off;
        if let (true, Some(written)) = (off, &body.authority) {
            let message = "this authority is never asked for";
            let help = "Remove it, or write tls = \"starttls\".";
            self.problem(section, written.span(), Bad::new(message, "tls is off", help));
        }
        let credentials = self.mail_credentials(section, body, off, server.as_deref());
        Some(Mail {
            server: server?,
            port: port.unwrap_or_else(|| tls.port()),
            tls,
            authority,
            from: from?,
            to,
            credentials,
        })
    }

    fn mail_credentials(
        &mut self,
        section: &Section<'_>,
        body: &MailSection,
        off: bool,
        server: Option<&str>,
    ) -> Option<(String, Secret)> {
        let password = self.secret(section, &body.password_file, "password", 1);
        match (&body.user, &body.password_file) {
            (Some(user), Some(_)) => {
                if off && server.is_some_and(|server| !is_here(server)) {
                    let message = "a password would be sent in plain text";
                    let help =
                        "Write tls = \"starttls\" or \"tls\"; or remove user and password-file.";
                    self.problem(section, user.span(), Bad::new(message, "tls is off", help));
                }
                let user = self.text(section, &body.user, words::line)?;
                Some((user, password?))
            }
            (None, None) => None,
            (Some(one), None) | (None, Some(one)) => {
                let message = "a user and a password go together";
                let help = "Write user and password-file, or neither.";
                self.problem(section, one.span(), Bad::new(message, "the other is missing", help));
                None
            }
        }
    }

    /// What must be written. Not [`Check::required`], which quotes a section's header: this one's is all of it.
    fn mail_lacks<'v, T>(
        &mut self,
        section: &Section<'_>,
        key: &str,
        value: Option<&'v Spanned<T>>,
        help: &str,
    ) -> Option<&'v Spanned<T>> {
        if value.is_none() && !section.was_rejected(key) {
            let bad = Bad::new(format!("mail has no {key}"), format!("{key} is missing"), help);
            self.problem(section, section.span.clone(), bad);
        }
        value
    }

    fn alarm_authority(&mut self, section: &Section<'_>, written: &Text) -> Option<PathBuf> {
        let written = written.as_ref()?;
        let path = section.path(written.get_ref());
        self.authority(section, written.span(), &path, &mut RootCertStore::empty());
        Some(path)
    }

    pub(super) fn secret(
        &mut self,
        section: &Section<'_>,
        written: &Text,
        what: &str,
        shortest: usize,
    ) -> Option<Secret> {
        let written = written.as_ref()?;
        let path = section.path(written.get_ref());
        self.is_private(section, written.span(), &path, what);
        self.note(section, written.span(), secret_in(&path, what, shortest))
    }
}

fn off_or(text: &str, range: &std::ops::RangeInclusive<Duration>) -> Result<Option<Duration>, Bad> {
    match text {
        "off" => Ok(None),
        text => words::duration(text, range)
            .map(Some)
            .map_err(|bad| Bad { help: format!("{} Or \"off\".", bad.help), ..bad }),
    }
}

fn secret_in(path: &Path, what: &str, shortest: usize) -> Result<Secret, Bad> {
    let help = format!("Put the {what} there, in one line, readable by the node's user alone.");
    let text = std::fs::read_to_string(path).map(Zeroizing::new).map_err(|error| {
        let message = format!("cannot read {}: {error}", path.display());
        Bad::new(message, "cannot be read", help.clone())
    })?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(Bad::new(format!("there is no {what} in this file"), "empty", help)),
        short if short.len() < shortest => {
            let message = format!("this {what} can be guessed");
            let help =
                format!("Write {shortest} characters or more: `openssl rand -hex 32` makes some.");
            Err(Bad::new(message, "too short", help))
        }
        secret => Ok(Secret::new(Zeroizing::new(secret.to_owned()))),
    }
}

/// Whether that host is this machine.
fn is_here(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The address of a webhook. No message repeats it: its path is often a secret.
fn webhook(text: &str) -> Result<Webhook, Bad> {
    let bad = |label: &str| {
        let help = "Write it as \"https://alerts.trust.example/gantry\".";
        Err(Bad::new("this is not the address of a webhook", label, help))
    };
    let Ok(uri) = text.parse::<Uri>() else { return bad("not an address") };
    let Some(authority) = uri.authority() else { return bad("not a scheme and a host") };
    if authority.as_str().contains('@') {
        let help = "Remove the password, change it, as it has been in a file that others read, and have messages signed: \
                    webhook-secret-file.";
        return Err(Bad::new("a password must not stand in an address", "a password", help));
    }
    let encrypted = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return bad("neither https nor http"),
    };
    let port = match authority.port_u16() {
        Some(0) => return bad("a port is a number from 1 to 65535"),
        Some(port) => port,
        None if encrypted => 443,
        None => 80,
    };
    let target = uri.path_and_query().map_or("/", axum::http::uri::PathAndQuery::as_str);
    Ok(Webhook {
        host: authority.host().trim_matches(['[', ']']).to_owned(),
        port,
        target: target.to_owned(),
        encrypted,
        authority: None,
        secret: None,
    })
}

fn host(text: &str) -> Result<String, Bad> {
    words::host_port(&format!("{text}:1")).map(|address| address.host).map_err(|bad| {
        let message = format!("{} is not the name of a server", words::quoted(text));
        let help = "Write a host name or an address; the port stands in port.";
        Bad::new(message, bad.label, help)
    })
}

fn mailbox(text: &str) -> Result<Mailbox, Bad> {
    text.parse().map_err(|error: lettre::address::AddressError| {
        let message = format!("{} is not a mail address", words::quoted(text));
        let help =
            "Write it as \"pacs-team@trust.example\" or \"PACS team <pacs-team@trust.example>\".";
        Bad::new(message, error.to_string().to_lowercase(), help)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn webhooks_are_read_and_their_paths_stay_secret() {
        for (text, host, port, target) in [
            ("https://a.example", "a.example", 443, "/"),
            ("http://127.0.0.1:8000/x?y=z", "127.0.0.1", 8000, "/x?y=z"),
            ("https://[::1]:9/hook", "::1", 9, "/hook"),
        ] {
            let Ok(read) = webhook(text) else { panic!("{text}") };
            assert_eq!((read.host.as_str(), read.port, read.target.as_str()), (host, port, target));
            assert!(!format!("{read:?}").contains("y=z"));
        }
        for text in [
            "",
            "a.example",
            "ftp://a/s3cret",
            "https://u:s3cret@a",
            "/s3cret",
            "https://a:0/s3cret",
        ] {
            let Err(bad) = webhook(text) else { panic!("{text}") };
            assert!(
                !format!("{} {} {}", bad.message, bad.label, bad.help).contains("s3cret"),
                "{text}"
            );
        }
    }

    #[test]
    fn readers_have_addresses() {
        assert!(
            mailbox("PACS team <pacs@trust.example>").is_ok() && mailbox("a@b.example").is_ok()
        );
        for text in ["", "pacs", "a@b@c", "a@b\r\nBcc: c@d"] {
            assert!(mailbox(text).is_err(), "{text}");
        }
        assert!(host("smtp.trust.example").is_ok() && host("smtp:25").is_err());
    }
}
