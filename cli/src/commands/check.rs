//! `gantry check`: all that is wrong with a configuration and with what it names, at once, and what the node would do.
//!
//! Disturbs no running node: it binds no port, takes no lock, and tries folders with files that have no name.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use gantry_gateway::config::{
    self, Config, Finding, ListenerTls, ObjectStore, Partner, PartnerTls, Route, Severity, Style,
    WebTls,
};
use gantry_gateway::telemetry::chain;
use gantry_gateway::tls;
use gantry_store::object::s3::{self, Settings};
use gantry_store::object::{ObjectError, ObjectStore as _, S3Objects};
use gantry_store::sealed::{Keyring, KeyringError};
use jiff::Timestamp;
use serde::Serialize;

use super::Global;
use crate::exit::{Exit, Failure};
use crate::output::{Output, Paint};
use crate::words;

/// Is the configuration right?
///
/// Reads gantry.toml, conf.d/*.toml, certificates and keys, and tries the folders; works with and without a running node.
/// An object store on the network is tried: something is written there, read back and removed. Every problem is shown with
/// its line and what to do about it. Exit code 2 says that the node would not start, or could not store.
#[derive(Args, Debug)]
#[command(before_help = "\
Examples:
  gantry check
  gantry check --config /etc/gantry/gantry.toml && systemctl restart gantry
  gantry check --json | jq '.findings[] | {file, line, message, help}'")]
pub(crate) struct Arguments {}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    /// Whether the node would start.
    ok: bool,
    file: &'a Path,
    /// What the files say that is wrong or should be looked at.
    findings: Vec<&'a Finding>,
    /// What is wrong around them.
    surroundings: &'a [Trouble],
    /// What the node would do; null if the files cannot be run.
    node: Option<Summary<'a>>,
}

/// Something wrong with what the configuration names.
#[derive(Debug, Serialize)]
struct Trouble {
    severity: Severity,
    message: String,
    help: String,
}

#[derive(Serialize)]
struct Summary<'a> {
    ae_title: &'a str,
    organisation: &'a str,
    data_dir: &'a Path,
    database: Database,
    /// The bucket, its prefix, and where it is; null for files.
    bucket: Option<BucketSummary<'a>>,
    listeners: Vec<ListenerSummary<'a>>,
    web: Option<WebSummary>,
    dicomweb: Option<WebSummary>,
    sources: Vec<SourceSummary<'a>>,
    partners: Vec<PartnerSummary<'a>>,
    routes: Vec<RouteSummary<'a>>,
}

/// Where the rows are, and what the server that holds them said.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum Database {
    Sqlite,
    Postgres {
        address: String,
        /// What it answered; null if it did not.
        server: Option<ServerSummary>,
    },
}

#[derive(Serialize)]
struct ServerSummary {
    version: String,
    connected_in_ms: u64,
    answered_in_ms: u64,
    /// The latest step of the schema that is there; null in an empty database.
    schema: Option<i64>,
    /// The latest step that this program knows, and the node's start brings it to.
    known: i64,
}

impl ServerSummary {
    fn said(&self) -> String {
        let schema = match self.schema {
            None => "empty".to_owned(),
            Some(schema) if schema < self.known => {
                format!("schema {schema}, to be brought to {}", self.known)
            }
            Some(schema) => format!("schema {schema}"),
        };
        format!(
            "PostgreSQL {}, connected in {} ms, answers in {} ms, {schema}",
            self.version, self.connected_in_ms, self.answered_in_ms
        )
    }
}

#[derive(Serialize)]
struct BucketSummary<'a> {
    name: &'a str,
    prefix: &'a str,
    endpoint: Option<&'a str>,
    region: &'a str,
}

#[derive(Serialize)]
struct ListenerSummary<'a> {
    address: &'a str,
    tls: &'static str,
    allow: Vec<String>,
}

#[derive(Serialize)]
struct WebSummary {
    address: String,
    tls: &'static str,
}

#[derive(Serialize)]
struct SourceSummary<'a> {
    name: &'a str,
    ae_title: &'a str,
    /// Whether it is asked what it has, and to send what is missing.
    counted: bool,
    fetch: bool,
}

#[derive(Serialize)]
struct PartnerSummary<'a> {
    name: &'a str,
    ae_title: &'a str,
    address: String,
    tls: &'static str,
    pinned: usize,
    certificates_until: Option<Timestamp>,
    may: Vec<&'static str>,
}

#[derive(Serialize)]
struct RouteSummary<'a> {
    name: &'a str,
    when: Vec<String>,
    to: &'a [String],
    purpose: &'static str,
    priority: &'static str,
}

pub(crate) async fn run(_: &Arguments, global: &Global, output: Output) -> Result<Exit, Failure> {
    let path = super::config_path(global)?;
    let (config, warnings) = match Config::load(&path) {
        Ok(loaded) => loaded,
        Err(problems) if output.is_json() => {
            let findings = problems.iter().collect();
            output.json(&Report {
                ok: false,
                file: &path,
                findings,
                surroundings: &[],
                node: None,
            })?;
            return Ok(Exit::Usage);
        }
        Err(problems) => {
            heard(output.line(problems.render(style(output))))?;
            return Err(Failure::new(Exit::Usage, &problems));
        }
    };
    let mut troubles = surroundings(&config);
    let database = database(&config, &mut troubles).await;
    let stops = troubles.iter().filter(|trouble| trouble.severity == Severity::Problem).count();
    let exit = if stops == 0 { Exit::Done } else { Exit::Usage };
    if output.is_json() {
        output.json(&Report {
            ok: stops == 0,
            file: &path,
            findings: warnings.iter().collect(),
            surroundings: &troubles,
            node: Some(Summary { database, ..Summary::of(&config) }),
        })?;
        return Ok(exit);
    }
    let summary = Summary { database, ..Summary::of(&config) };
    heard(tell(&config, &path, &warnings, &troubles, &summary, output))?;
    if stops > 0 {
        let problems = words::count(stops as u64, "problem", "problems");
        return Err(Failure::new(
            exit,
            format_args!("the node would not start or not store: {problems}"),
        ));
    }
    Ok(exit)
}

/// A reader who has heard enough does not make a wrong configuration right.
fn heard(told: Result<(), Failure>) -> Result<(), Failure> {
    told.or_else(|failure| if failure.message.is_none() { Ok(()) } else { Err(failure) })
}

/// What is to be looked at, and what the node would do.
fn tell(
    config: &Config,
    path: &Path,
    warnings: &[Finding],
    troubles: &[Trouble],
    summary: &Summary<'_>,
    output: Output,
) -> Result<(), Failure> {
    for warning in warnings {
        output.line(warning.render(style(output)))?;
    }
    for trouble in troubles {
        let (sign, paint) = match trouble.severity {
            Severity::Problem => ("×", Paint::Red),
            Severity::Warning => ("⚠", Paint::Yellow),
        };
        output.line(format_args!("  {} {}", output.paint(paint, sign), trouble.message))?;
        output.line(format_args!("  help: {}\n", trouble.help))?;
    }
    show(config, summary, output)?;
    output.line("")?;
    if troubles.iter().any(|trouble| trouble.severity == Severity::Problem) {
        return Ok(());
    }
    let good = output.paint(Paint::Green, "✓");
    match warnings.len() + troubles.len() {
        0 => output.line(format_args!("{good} {} is right", path.display())),
        count => output.line(format_args!(
            "{good} {} can be run, with {}",
            path.display(),
            words::count(count as u64, "warning", "warnings")
        )),
    }
}

fn style(output: Output) -> Style {
    if output.colour_on_stdout() { Style::Colour } else { Style::Plain }
}

/// What no file says: whether keys, certificates and folders can be used by this user.
fn surroundings(config: &Config) -> Vec<Trouble> {
    let mut troubles = Vec::new();
    let mut problem = |message: String, help: String| {
        troubles.push(Trouble { severity: Severity::Problem, message, help });
    };
    if let Err(error) = Keyring::open(&config.node.keys_dir()) {
        let help = match &error {
            KeyringError::Empty(_) => {
                "`gantry init` makes the first key; if there was one, bring the backup back"
            }
            _ => "the node opens every key when it starts, and starts with none missing",
        };
        problem(chain(&error).to_string(), help.to_owned());
    }
    if let Some(own) = &config.tls {
        let usable = tls::server_config(own).and_then(|_| tls::client_config(own, &[]));
        if let Err(error) = usable {
            problem(
                format!("cannot use TLS: {}", chain(&error)),
                "see [tls]: certificate, key and authorities".to_owned(),
            );
        }
    }
    let mut folders = vec![config.node.data_dir.clone(), config.node.spool_dir()];
    match &config.object_store {
        ObjectStore::File => folders.push(config.node.objects_dir()),
        ObjectStore::S3(settings) => troubles.extend(bucket(settings)),
    }
    let mut problem = |message: String, help: String| {
        troubles.push(Trouble { severity: Severity::Problem, message, help });
    };
    for folder in &folders {
        match writable(folder) {
            Ok(()) => {}
            Err(error) => problem(
                format!("cannot write to {}: {error}", folder.display()),
                "the user that runs `gantry serve` must own it (chown), with mode 0700".to_owned(),
            ),
        }
    }
    let mode = config.node.data_dir.metadata().map(|folder| folder.permissions().mode() & 0o077);
    if mode.is_ok_and(|others| others != 0) {
        troubles.push(Trouble {
            severity: Severity::Warning,
            message: format!(
                "other users of this machine may look into {}",
                config.node.data_dir.display()
            ),
            help: format!("chmod 700 {}", config.node.data_dir.display()),
        });
    }
    troubles
}

/// Asks the database what it is. A server that is away is a warning: the node would start, and receive.
async fn database(config: &Config, troubles: &mut Vec<Trouble>) -> Database {
    let settings = match &config.database {
        config::Database::Sqlite => return Database::Sqlite,
        config::Database::Postgres(settings) => settings,
    };
    let address = settings.to_string();
    let server = match settings.probe().await {
        Ok(probe) => {
            if let Some(found) = probe.schema.filter(|found| *found > probe.known) {
                troubles.push(Trouble {
                    severity: Severity::Problem,
                    message: format!(
                        "the database {address} was written by a newer version of gantry: its schema is {found}, this version knows {}",
                        probe.known
                    ),
                    help: "use that version, or a database of its own".to_owned(),
                });
            }
            let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            Some(ServerSummary {
                version: probe.version,
                connected_in_ms: ms(probe.connected),
                answered_in_ms: ms(probe.answered),
                schema: probe.schema,
                known: probe.known,
            })
        }
        Err(error) => {
            let (severity, help) = if error.is_outage() {
                let help = "the node starts without it and keeps what it receives in the spool; nothing is sent or shown until it is there";
                (Severity::Warning, help)
            } else {
                (Severity::Problem, "see [database]: url, password-file and tls")
            };
            let (message, help) = (chain(&error).to_string(), help.to_owned());
            troubles.push(Trouble { severity, message, help });
            None
        }
    };
    Database::Postgres { address, server }
}

/// What is wrong with a bucket, found out by using it.
fn bucket(settings: &Settings) -> Vec<Trouble> {
    let at = settings.endpoint.as_deref().unwrap_or("AWS");
    let name = format!("bucket {} at {at}", settings.bucket);
    let probed = S3Objects::open(settings.clone()).and_then(|store| store.probe());
    let abilities = match probed {
        Ok(abilities) => abilities,
        Err(error) => {
            let (severity, help) = match &error {
                ObjectError::Remote { source, .. } => (how_bad(source), source.remedy()),
                ObjectError::Full => {
                    (Severity::Warning, "make room in the store, or raise the quota")
                }
                _ => (Severity::Problem, "see [object-store]"),
            };
            return vec![Trouble {
                severity,
                message: format!("{name}: {}", chain(&error)),
                help: help.to_owned(),
            }];
        }
    };
    let lacks = |has: bool, what: &str, help: &str| {
        (!has).then(|| Trouble {
            severity: Severity::Warning,
            message: format!("{name} {what}"),
            help: help.to_owned(),
        })
    };
    let lacking = [
        lacks(
            abilities.conditional_create,
            "does not honour If-None-Match: each name is looked up before it is written",
            "nothing needs to be done while each node has a prefix of its own",
        ),
        lacks(
            abilities.verifies,
            "takes what is not what was signed: every object is read back before it counts",
            "a server that checks x-amz-content-sha256 makes storing twice as fast",
        ),
        lacks(
            abilities.ranges,
            "does not give parts of an object: to see one image of many, all are read",
            "use a server that honours Range",
        ),
    ];
    lacking.into_iter().flatten().collect()
}

/// What may pass by itself stops nobody: until then instances wait in the spool.
fn how_bad(trouble: &s3::Trouble) -> Severity {
    use s3::Trouble as T;
    match trouble {
        T::Refused | T::TimedOut | T::Broken(_) | T::Full(_) | T::Busy { .. } => Severity::Warning,
        T::NoSuchHost
        | T::Tls(_)
        | T::NoCredentials(_)
        | T::WrongKey(_)
        | T::NotAllowed
        | T::NoBucket
        | T::ClockSkew
        | T::WrongRegion(_)
        | T::Damaged(_)
        | T::Other { .. }
        | T::Nonsense(_) => Severity::Problem,
    }
}

/// Tries with a file that has no name, so that a node which runs sees nothing of it. Of a folder that is still to be made
/// the nearest one above is tried.
fn writable(folder: &Path) -> io::Result<()> {
    let there: Option<PathBuf> = folder.ancestors().find(|path| path.exists()).map(Path::to_owned);
    let there = there.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    if !there.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    tempfile::tempfile_in(there).map(drop)
}

impl<'a> Summary<'a> {
    fn of(config: &'a Config) -> Self {
        Self {
            ae_title: config.node.ae_title.as_str(),
            organisation: &config.node.organisation,
            data_dir: &config.node.data_dir,
            database: Database::Sqlite,
            bucket: match &config.object_store {
                ObjectStore::File => None,
                ObjectStore::S3(settings) => Some(BucketSummary {
                    name: &settings.bucket,
                    prefix: &settings.prefix,
                    endpoint: settings.endpoint.as_deref(),
                    region: &settings.region,
                }),
            },
            listeners: config
                .listeners
                .iter()
                .map(|listener| ListenerSummary {
                    address: &listener.name,
                    tls: match listener.tls {
                        ListenerTls::Mutual => "mutual",
                        ListenerTls::Off => "off",
                    },
                    allow: listener.allow.iter().map(ToString::to_string).collect(),
                })
                .collect(),
            web: config.web.as_ref().map(|web| WebSummary {
                address: web.address.to_string(),
                tls: match web.tls {
                    WebTls::ServerOnly(_) => "server-only",
                    WebTls::Off => "off",
                },
            }),
            dicomweb: config.dicomweb.as_ref().map(|it| WebSummary {
                address: it.address.to_string(),
                tls: if it.encrypted { "on" } else { "off" },
            }),
            sources: config
                .sources
                .iter()
                .map(|source| SourceSummary {
                    name: &source.name,
                    ae_title: source.ae_title.as_str(),
                    counted: source.counted,
                    fetch: source.fetch,
                })
                .collect(),
            partners: config.partners.iter().map(PartnerSummary::of).collect(),
            routes: config.routes.iter().map(RouteSummary::of).collect(),
        }
    }
}

impl<'a> PartnerSummary<'a> {
    fn of(partner: &'a Partner) -> Self {
        Self {
            name: &partner.name,
            ae_title: partner.ae_title.as_str(),
            address: partner.address.to_string(),
            tls: match partner.tls {
                PartnerTls::Mutual => "mutual",
                PartnerTls::Off => "off",
            },
            pinned: partner.certificates.len(),
            certificates_until: partner.certificates_until,
            may: partner.may.iter().copied().map(super::partner::permission).collect(),
        }
    }
}

impl<'a> RouteSummary<'a> {
    fn of(route: &'a Route) -> Self {
        Self {
            name: &route.name,
            when: super::conditions(route),
            to: &route.to,
            purpose: route.purpose.as_str(),
            priority: route.priority.as_str(),
        }
    }
}

/// What the node would do, one thing a line.
fn show(config: &Config, node: &Summary<'_>, output: Output) -> Result<(), Failure> {
    output.line(format_args!(
        "{} of {}",
        output.paint(Paint::Bold, node.ae_title),
        node.organisation
    ))?;
    let folder = node.data_dir.display();
    match (&node.bucket, &node.database) {
        (None, Database::Sqlite) => output.line(format_args!("  keeps everything in {folder}"))?,
        (None, Database::Postgres { .. }) => {
            output.line(format_args!("  keeps images in {folder}"))?;
        }
        (Some(bucket), _) => output.line(format_args!(
            "  keeps images in bucket {} at {}{}, the rest in {folder}",
            bucket.name,
            bucket.endpoint.unwrap_or(bucket.region),
            if bucket.prefix.is_empty() {
                String::new()
            } else {
                format!(" below {}", bucket.prefix)
            },
        ))?,
    }
    if let Database::Postgres { address, server } = &node.database {
        let said = server.as_ref().map_or_else(|| "not there now".to_owned(), ServerSummary::said);
        output.line(format_args!("  keeps rows in {address} ({said})"))?;
    }
    for listener in &node.listeners {
        let who = match (listener.tls, listener.allow.as_slice()) {
            ("mutual", []) => "over mutual TLS, from anywhere".to_owned(),
            ("mutual", allow) => format!("over mutual TLS, from {}", allow.join(", ")),
            (_, allow) => format!("in plain text, from {}", allow.join(", ")),
        };
        output.line(format_args!("  takes DICOM on {} {who}", listener.address))?;
    }
    if let Some(web) = &node.web {
        let scheme = if web.tls == "off" { "http" } else { "https" };
        output.line(format_args!("  shows pages on {scheme}://{}", web.address))?;
    }
    if let Some(dicomweb) = &node.dicomweb {
        let scheme = if dicomweb.tls == "off" { "http" } else { "https" };
        output
            .line(format_args!("  answers DICOMweb on {scheme}://{}/dicomweb", dicomweb.address))?;
    }
    match node.sources.as_slice() {
        [] => output.line("  takes images from no source of its own")?,
        sources => {
            let names: Vec<_> = sources
                .iter()
                .map(|source| format!("{} ({})", source.name, source.ae_title))
                .collect();
            output.line(format_args!("  takes images from {}", names.join(", ")))?;
            for source in sources.iter().filter(|source| source.counted) {
                let fetch = if source.fetch { ", and fetches what is missing" } else { "" };
                output.line(format_args!("  counts what came against {}{fetch}", source.name))?;
            }
        }
    }
    if node.partners.is_empty() {
        output.line("  knows no partner: add a [[partner]] to exchange images")?;
    }
    for partner in &node.partners {
        let until = partner
            .certificates_until
            .map(|until| format!(", certificate until {}", words::day(until)));
        output.line(format_args!(
            "  partner {} is {} at {}, TLS {}{}; may {}",
            partner.name,
            partner.ae_title,
            partner.address,
            partner.tls,
            until.unwrap_or_default(),
            partner.may.join(", ")
        ))?;
    }
    if node.routes.is_empty() && !config.partners.is_empty() {
        output.line("  sends nothing by itself: add a [[route]], or use `gantry send`")?;
    }
    for route in &node.routes {
        output.line(format_args!(
            "  route \"{}\": {} → {}, {}, {}",
            route.name,
            route.when.join(" and "),
            route.to.join(", "),
            route.purpose,
            route.priority
        ))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_to_be_made_is_tried_where_it_will_be() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();

        assert!(writable(&folder.path().join("data/spool")).is_ok());
        assert!(writable(&file.join("spool")).is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
