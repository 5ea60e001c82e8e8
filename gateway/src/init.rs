//! `gantry init`: a node that runs, from nothing, with every choice explained where it can be changed.
//!
//! Nothing is ever overwritten: each file is made only where none is, keys with their mode from the start, and
//! `gantry.toml` last, so that where it stands everything it names stands too. The node's certificate comes from an
//! authority of its own, which suffices until partners agree on a common one. Asks nobody anything: questions are the
//! command line's.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use gantry_store::dicom::AeTitle;
use jiff::Timestamp;
use thiserror::Error;

use crate::config::{Fingerprint, Identity};
use crate::tls::{self, Authority, IssueError, TlsError};

/// What a person may choose.
#[derive(Clone, Debug)]
pub struct InitOptions {
    /// What the node calls itself.
    pub ae_title: AeTitle,
    /// Whose it is.
    pub organisation: String,
    /// Names and addresses that partners reach it by, beside `localhost` and this machine's host name.
    pub names: Vec<String>,
}

/// What was made.
#[derive(Clone, Debug)]
pub struct InitReport {
    /// The configuration.
    pub config: PathBuf,
    /// Every file, with what it is, in the order of their making.
    pub files: Vec<(PathBuf, &'static str)>,
    /// The names in the node's certificate.
    pub names: Vec<String>,
    /// What partners pin.
    pub fingerprint: Fingerprint,
    /// Until when the node's certificate is valid.
    pub certificate_until: Timestamp,
    /// Until when its authority's is.
    pub authority_until: Timestamp,
}

/// Why nothing, or not all, was made.
#[derive(Debug, Error)]
pub enum InitError {
    /// Something is there already.
    #[error("{} is there already", path.display())]
    Exists {
        /// What.
        path: PathBuf,
    },
    /// An organisation that cannot stand in a configuration file.
    #[error("{organisation:?} is not the name of an organisation")]
    Organisation {
        /// What was given.
        organisation: String,
    },
    /// Something cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A certificate cannot be made.
    #[error("cannot make the node's certificate")]
    Issue(#[from] IssueError),
    /// What was made cannot be read back.
    #[error("cannot use the node's certificate")]
    ReadBack(#[from] TlsError),
    /// The first key-encryption key cannot be made.
    #[error("cannot make the first key-encryption key in {}", folder.display())]
    Key {
        /// Where.
        folder: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl InitError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Exists { path } => Some(format!(
                "nothing was changed; name another folder (gantry init DIR), or move {} away to begin anew",
                path.display()
            )),
            Self::Organisation { .. } => {
                Some("1 to 128 characters on one line, such as the ODS code RXX".to_owned())
            }
            Self::Issue(IssueError::Name { .. }) => {
                Some("names are host names or addresses".to_owned())
            }
            Self::Write { .. } | Self::Key { .. } => {
                Some("choose a folder that this user may write to".to_owned())
            }
            Self::Issue(_) | Self::ReadBack(_) => None,
        }
    }
}

/// Makes a node in `dir`, which need not exist.
///
/// `first_key` is given the folder of key-encryption keys, mode 0700 and empty, and makes the first one there.
pub fn init<E>(
    dir: &Path,
    options: &InitOptions,
    first_key: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<InitReport, InitError>
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let organisation = options.organisation.trim();
    if organisation.is_empty()
        || organisation.chars().count() > 128
        || organisation.contains(char::is_control)
    {
        return Err(InitError::Organisation { organisation: options.organisation.clone() });
    }
    let config = dir.join("gantry.toml");
    let (ca_key, ca_certificate) = (dir.join("tls/ca.key"), dir.join("tls/ca.crt"));
    let (key, certificate) = (dir.join("tls/node.key"), dir.join("tls/node.crt"));
    let keys = dir.join("data/keys");
    for path in [&config, &ca_key, &ca_certificate, &key, &certificate, &keys] {
        if path.symlink_metadata().is_ok() {
            return Err(InitError::Exists { path: path.clone() });
        }
    }

    let names = names(&options.names);
    let authority = Authority::new(&format!("{organisation} Gantry authority"))?;
    let issued = authority
        .issue(options.ae_title.as_str(), &names.iter().map(String::as_str).collect::<Vec<_>>())?;

    make_folder(dir, 0o755)?;
    make_folder(&dir.join("tls"), 0o700)?;
    write_new(&ca_key, 0o600, &authority.key_pem())?;
    write_new(&ca_certificate, 0o644, &authority.certificate_pem())?;
    write_new(&key, 0o600, &issued.key_pem)?;
    write_new(&certificate, 0o644, &issued.certificate_pem)?;
    make_folder(&dir.join("data"), 0o700)?;
    for folder in ["spool", "objects", "keys"] {
        make_folder(&dir.join("data").join(folder), 0o700)?;
    }
    first_key(&keys)
        .map_err(|source| InitError::Key { folder: keys.clone(), source: source.into() })?;
    write_new(&config, 0o644, &gantry_toml(&options.ae_title, organisation))?;

    let identity = Identity { certificate: certificate.clone(), key: key.clone() };
    let (chain, _) = tls::read_identity(&identity)?;
    let fingerprint = chain.first().map(tls::fingerprint).ok_or(TlsError::Certificate)?;
    Ok(InitReport {
        files: vec![
            (ca_key, "key of this node's own authority; keep a copy offline"),
            (ca_certificate, "its certificate, which partners put into their authorities"),
            (key, "this node's private key"),
            (certificate, "its certificate, which partners pin"),
            (keys, "keys that what is stored is encrypted with; without them it is lost"),
            (config.clone(), "the configuration, explained"),
        ],
        config,
        names,
        fingerprint,
        certificate_until: issued.not_after,
        authority_until: authority.not_after(),
    })
}

/// `localhost`, this machine's name, and what was asked for; each once.
fn names(asked_for: &[String]) -> Vec<String> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    names.extend(
        std::fs::read_to_string("/proc/sys/kernel/hostname")
            .ok()
            .map(|name| name.trim().to_owned()),
    );
    // A machine may be called what no certificate could say; what a person asks for must be said or refused.
    names.retain(|name| {
        name.parse::<IpAddr>().is_ok() || rustls_pki_types::DnsName::try_from(name.as_str()).is_ok()
    });
    for name in asked_for {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

fn gantry_toml(ae_title: &AeTitle, organisation: &str) -> String {
    const TEMPLATE: &str = include_str!("init/gantry.toml");
    let placed = |text: String, place: &str, value: &str| {
        let Some((before, after)) = text.split_once(place) else { return text };
        // The comment behind stays in the column of its neighbours, unless the value is too long for that.
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let width = 33_usize.saturating_sub(before.len() - start);
        format!("{before}{:<width$} {}", quoted(value), after.trim_start_matches(' '))
    };
    placed(
        placed(TEMPLATE.to_owned(), "@AE_TITLE@ ", ae_title.as_str()),
        "@ORGANISATION@ ",
        organisation,
    )
}

/// A basic string of TOML; control characters were refused before.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn make_folder(path: &Path, mode: u32) -> Result<(), InitError> {
    let made = DirBuilder::new().recursive(true).mode(mode).create(path);
    made.map_err(|source| InitError::Write { path: path.to_owned(), source })
}

fn write_new(path: &Path, mode: u32, text: &str) -> Result<(), InitError> {
    let written = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    written.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|source| {
        match source.kind() {
            io::ErrorKind::AlreadyExists => InitError::Exists { path: path.to_owned() },
            _ => InitError::Write { path: path.to_owned(), source },
        }
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::config::{Config, ListenerTls};
    use crate::tls::{CertificateFacts, read_certificates};

    fn options() -> InitOptions {
        InitOptions {
            ae_title: "RXX\"GW".parse().unwrap(),
            organisation: "St \"Elsewhere\" \\ Sons".to_owned(),
            names: vec!["gateway.rxx.example".to_owned(), "10.20.0.7".to_owned()],
        }
    }

    fn make_key(keys: &Path) -> io::Result<()> {
        fs::write(keys.join("1"), "key")
    }

    #[test]
    fn what_is_made_can_be_run_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("gateway");

        let report = init(&dir, &options(), make_key).unwrap();

        let (config, warnings) = Config::load(&report.config).unwrap_or_else(|problems| {
            panic!("{}", problems.render(crate::config::Style::Plain));
        });
        assert!(warnings.is_empty(), "{warnings:?}");
        assert_eq!(
            (config.node.ae_title.as_str(), &*config.node.organisation),
            ("RXX\"GW", "St \"Elsewhere\" \\ Sons")
        );
        let listeners: Vec<_> = config
            .listeners
            .iter()
            .map(|listener| (listener.name.as_str(), listener.tls))
            .collect();
        assert_eq!(
            listeners,
            [("0.0.0.0:2762", ListenerTls::Mutual), ("127.0.0.1:11112", ListenerTls::Off)]
        );
        assert!(config.web.is_some_and(|web| web.address.ip().is_loopback()));
        let own = config.tls.unwrap();
        tls::server_config(&own).unwrap();
        tls::client_config(&own, &[report.fingerprint]).unwrap();
    }

    #[test]
    fn the_certificate_serves_both_ways_and_bears_the_names() {
        let folder = tempfile::tempdir().unwrap();
        let report = init(folder.path(), &options(), make_key).unwrap();

        let certificate = read_certificates(&folder.path().join("tls/node.crt")).unwrap();
        let facts = CertificateFacts::of(&certificate[0]).unwrap();

        assert!(facts.for_servers && facts.for_clients && !facts.is_authority);
        assert_eq!(
            (facts.fingerprint, facts.not_after),
            (report.fingerprint, whole_seconds(report.certificate_until))
        );
        for name in ["localhost", "127.0.0.1", "gateway.rxx.example", "10.20.0.7"] {
            assert!(report.names.iter().any(|other| other == name), "{name}");
        }
    }

    fn whole_seconds(time: Timestamp) -> Timestamp {
        Timestamp::from_second(time.as_second()).unwrap()
    }

    #[test]
    fn keys_and_data_are_nobody_elses_business() {
        let folder = tempfile::tempdir().unwrap();
        let mut seen = None;
        init(folder.path(), &options(), |keys| {
            seen = Some(keys.to_owned());
            make_key(keys)
        })
        .unwrap();

        assert_eq!(seen, Some(folder.path().join("data/keys")));
        let mode = |name: &str| {
            fs::metadata(folder.path().join(name)).unwrap().permissions().mode() & 0o777
        };
        for name in ["data", "data/spool", "data/objects", "data/keys", "tls"] {
            assert_eq!(mode(name), 0o700, "{name}");
        }
        assert_eq!((mode("tls/ca.key"), mode("tls/node.key")), (0o600, 0o600));
    }

    #[test]
    fn nothing_is_overwritten() {
        for there in ["gantry.toml", "tls/ca.key", "tls/node.key", "data/keys/1"] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join(there);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "mine").unwrap();

            let error = init(folder.path(), &options(), make_key).unwrap_err();

            assert!(error.to_string().ends_with("is there already"), "{error}");
            assert!(error.hint().unwrap().contains("nothing was changed"), "{error:?}");
            assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
            let others = fs::read_dir(folder.path()).unwrap().count();
            assert_eq!(others, 1, "beside {there}");
        }
    }

    #[test]
    fn what_cannot_be_written_down_is_refused_before_anything_is_made() {
        let folder = tempfile::tempdir().unwrap();
        for (organisation, name) in [("", "x"), ("A\nB", "x"), ("RXX", "ü ü")] {
            let options = InitOptions {
                organisation: organisation.to_owned(),
                names: vec![name.to_owned()],
                ..options()
            };
            assert!(init(&folder.path().join("new"), &options, make_key).is_err());
            assert!(!folder.path().join("new").exists());
        }
    }

    #[test]
    fn a_failed_key_leaves_no_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let error = init(folder.path(), &options(), |_| Err("no entropy")).unwrap_err();
        assert!(matches!(error, InitError::Key { .. }));
        assert!(!folder.path().join("gantry.toml").exists());
    }
}
