//! `[database]`: rows in a file, or on a PostgreSQL server that is reached encrypted unless it is on this machine.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use gantry_store::index::{Patience, PostgresHost, PostgresSettings, PostgresTls};
use rustls::RootCertStore;
use serde_spanned::Spanned;
use zeroize::Zeroizing;

use super::super::{Database, HostPort};
use super::{Bad, Check, Section, Written, file, words};

/// Where a password may stand beside a file: services get their secrets in the environment.
const PASSWORD: &str = "GANTRY_DATABASE_PASSWORD";
/// Each worker of each partner claims for itself, and one connection serves many of them.
const CONNECTIONS: u32 = 16;

const HOW: &str = "Write it as url = \"postgres://user@host:5432/name\"; or, for a server on this machine, \
                   url = \"postgres://user@/name?host=/run/postgresql\".";

/// What an address of a database says.
struct Address {
    host: PostgresHost,
    user: String,
    database: String,
}

impl Address {
    fn is_on_this_machine(&self) -> bool {
        match &self.host {
            PostgresHost::Socket(..) => true,
            PostgresHost::Tcp(host, _) => {
                host == "localhost"
                    || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
            }
        }
    }
}

impl Check {
    pub(super) fn database(&mut self, main: &Written) -> Database {
        let Some(body) = &main.file.database else { return Database::Sqlite };
        let (section, body) = Section::of(main, body);
        let address = self.text(&section, &body.url, database_url);
        match address {
            Some(Some(address)) => self.postgres(&section, body, address).unwrap_or_default(),
            Some(None) => {
                self.only_for_a_server(&section, body);
                Database::Sqlite
            }
            None if body.url.is_none() => {
                self.only_for_a_server(&section, body);
                Database::Sqlite
            }
            None => Database::Sqlite,
        }
    }

    /// Keys that mean nothing for a file.
    fn only_for_a_server(&mut self, section: &Section<'_>, body: &file::DatabaseSection) {
        let texts = [&body.tls, &body.authority, &body.certificate, &body.key, &body.password_file];
        let spans = texts.into_iter().flatten().map(Spanned::span);
        for span in spans.chain(body.connections.as_ref().map(Spanned::span)).collect::<Vec<_>>() {
            let message = "this key belongs to a PostgreSQL server";
            let help = "Remove it: with \"sqlite\" the rows are in the data directory.";
            self.problem(section, span, Bad::new(message, "url is \"sqlite\"", help));
        }
    }

    fn postgres(
        &mut self,
        section: &Section<'_>,
        body: &file::DatabaseSection,
        address: Address,
    ) -> Option<Database> {
        let words = [("verify", Some(true)), ("off", Some(false))];
        let written = self
            .text(section, &body.tls, |text| words::one_of("tls of the database", text, &words));
        let encrypted = written.unwrap_or(!address.is_on_this_machine());
        if let (false, false, Some(off)) = (encrypted, address.is_on_this_machine(), &body.tls) {
            let message = "patients' names travel to the database in plain text";
            let help = "Leave tls out, and name the authority of the server's certificate.";
            self.warning(section, off.span(), Bad::new(message, "beyond this machine", help));
        }
        let tls = self.database_tls(section, body, encrypted, &address);
        let password = match &body.password_file {
            Some(written) => {
                let path = section.path(written.get_ref());
                self.is_private(section, written.span(), &path, "password");
                self.note(section, written.span(), password_in(&path))
            }
            None => std::env::var(PASSWORD).ok().map(Zeroizing::new),
        };
        let connections = body.connections.as_ref().map(|number| {
            self.note(section, number.span(), words::whole(*number.get_ref(), &(2..=200)))
        });
        let connections = connections.flatten().and_then(|number| u32::try_from(number).ok());
        Some(Database::Postgres(Box::new(PostgresSettings {
            host: address.host,
            user: address.user,
            database: address.database,
            password,
            tls: tls?,
            connections: connections.unwrap_or(CONNECTIONS),
            patience: Patience::default(),
        })))
    }

    fn database_tls(
        &mut self,
        section: &Section<'_>,
        body: &file::DatabaseSection,
        encrypted: bool,
        address: &Address,
    ) -> Option<PostgresTls> {
        if !encrypted {
            for written in [&body.authority, &body.certificate, &body.key].into_iter().flatten() {
                let message = "this file is never used";
                let help = "Write tls = \"verify\", or remove it.";
                self.problem(section, written.span(), Bad::new(message, "tls is off", help));
            }
            return Some(PostgresTls::Off);
        }
        if let (PostgresHost::Socket(..), Some(tls)) = (&address.host, &body.tls) {
            let message = "a server's socket has no TLS";
            let help = "Remove tls: what goes through a socket does not leave this machine.";
            self.problem(section, tls.span(), Bad::new(message, "url names a socket", help));
            return None;
        }
        let mut trusted = RootCertStore::empty();
        let authority = body.authority.as_ref().map(|written| {
            let path = section.path(written.get_ref());
            self.authority(section, written.span(), &path, &mut trusted);
            path
        });
        let identity = match (&body.certificate, &body.key) {
            (Some(certificate), Some(key)) => self
                .identity(section, certificate, key)
                .map(|(identity, _)| (identity.certificate, identity.key)),
            (None, None) => None,
            (Some(one), None) | (None, Some(one)) => {
                let message = "a certificate and its key go together";
                let help = "Write both, or neither: most servers ask for a password instead.";
                self.problem(section, one.span(), Bad::new(message, "the other is missing", help));
                None
            }
        };
        Some(PostgresTls::Verify { authority, identity })
    }
}

fn password_in(path: &Path) -> Result<Zeroizing<String>, Bad> {
    let help = "Put the password there, in one line, readable by the node's user alone.";
    let text = std::fs::read_to_string(path).map(Zeroizing::new).map_err(|error| {
        let message = format!("cannot read {}: {error}", path.display());
        Bad::new(message, "cannot be read", help)
    })?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(Bad::new("there is no password in this file", "empty", help)),
        password => Ok(Zeroizing::new(password.to_owned())),
    }
}

/// `sqlite`, or the address of a server. No message repeats the text: a mistyped address may hold a password.
fn database_url(text: &str) -> Result<Option<Address>, Bad> {
    if text == "sqlite" {
        return Ok(None);
    }
    let wrong = |message: &str, label: &str| Err(Bad::new(message, label, HOW));
    let scheme = ["postgres://", "postgresql://"];
    let Some(rest) = scheme.iter().find_map(|scheme| text.strip_prefix(scheme)) else {
        let help = format!("Write url = \"sqlite\". {HOW}");
        return Err(Bad::new("this database is unknown", "unknown", help));
    };
    let Some((user, rest)) = rest.rsplit_once('@') else {
        return wrong("the address names no user", "nobody before @");
    };
    if user.contains(':') {
        let help = format!(
            "Remove it from url, change it, as it has been in a file that others read, and put the new one into a file \
             of its own: password-file = \"database.password\"; or into the environment: {PASSWORD}.",
        );
        return Err(Bad::new("a password must not stand in the address", "a password", help));
    }
    let Some((place, rest)) = rest.split_once('/') else {
        return wrong("the address names no database", "nothing after the host");
    };
    let (database, socket) = match rest.split_once("?host=") {
        Some((database, folder)) => (database, Some(PathBuf::from(folder))),
        None => (rest, None),
    };
    let is_name = |name: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        !name.is_empty() && name.chars().all(plain)
    };
    if !is_name(user) || !is_name(database) {
        let message = "user and database have letters, digits, hyphens, underscores and full stops";
        return wrong(message, "another character");
    }
    let host = match socket {
        Some(folder) if folder.is_absolute() && (place.is_empty() || place.starts_with(':')) => {
            let port = place.strip_prefix(':').unwrap_or("5432").parse();
            match port {
                Ok(port) if port > 0 => PostgresHost::Socket(folder, port),
                _ => return wrong("a port is a number from 1 to 65535", "port"),
            }
        }
        Some(_) => return wrong("a socket's folder is an absolute path, without a host", "socket"),
        None => {
            let has_port = place.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
            let place = if has_port { place.to_owned() } else { format!("{place}:5432") };
            match place.parse() {
                Ok(HostPort { host, port }) => PostgresHost::Tcp(host, port),
                Err(error) => {
                    return Err(Bad::new(format!("this is no server: {error}"), "host", HOW));
                }
            }
        }
    };
    Ok(Some(Address { host, user: user.to_owned(), database: database.to_owned() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let tcp = |host: &str, port| PostgresHost::Tcp(host.to_owned(), port);
        for (text, host, here) in [
            ("postgres://gantry@db.example:5433/rows", tcp("db.example", 5433), false),
            ("postgresql://gantry@db.example/rows", tcp("db.example", 5432), false),
            ("postgres://gantry@127.0.0.1/rows", tcp("127.0.0.1", 5432), true),
            ("postgres://gantry@[::1]:5433/rows", tcp("::1", 5433), true),
            ("postgres://gantry@[2001:db8::1]/rows", tcp("2001:db8::1", 5432), false),
            (
                "postgres://gantry@/rows?host=/run/postgresql",
                PostgresHost::Socket("/run/postgresql".into(), 5432),
                true,
            ),
            (
                "postgres://gantry@:5433/rows?host=/run",
                PostgresHost::Socket("/run".into(), 5433),
                true,
            ),
        ] {
            let Ok(Some(address)) = database_url(text) else { panic!("{text}") };
            assert_eq!((&address.host, address.is_on_this_machine()), (&host, here), "{text}");
            assert_eq!((address.user.as_str(), address.database.as_str()), ("gantry", "rows"));
        }
        for text in [
            "postgres://db/rows",
            "postgres://gantry@db",
            "postgres://gantry@db:0/rows",
            "postgres://gantry@/rows",
            "postgres://gantry@db/",
            "postgres://gantry@db/a/b",
            "postgres://gantry@db/rows?sslmode=disable",
            "postgres://gantry@db/rows?host=/run",
            "postgres://gantry@/rows?host=run",
            "",
        ] {
            assert!(database_url(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_password_in_an_address_is_refused_and_not_repeated() {
        for text in [
            "postgres://gantry:hunter2@db/rows",
            "postgres://gantry:hunter2@@db/rows",
            "postgres://gantry:hun@ter2@db/rows",
            "mysql://gantry:hunter2@db/rows",
            "gantry:hunter2@db",
        ] {
            let Err(bad) = database_url(text) else { panic!("{text}") };
            let said = format!("{} {} {}", bad.message, bad.label, bad.help);
            assert!(!said.contains("hunter2") && !said.contains("ter2"), "{said}");
        }
    }
}
