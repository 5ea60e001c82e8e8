//! Certificates of the parties of one test, as files.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gantry_gateway::tls::{Authority, Issued};
use jiff::{SignedDuration, Timestamp};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;

/// One authority, and the folder with its certificate and those it issued.
#[derive(Debug)]
pub struct Certificates {
    folder: TempDir,
    authority: Authority,
}

/// A certificate and its key, both PEM, the key with mode 0600.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate's file.
    pub certificate: PathBuf,
    /// The key's file.
    pub key: PathBuf,
}

impl Certificates {
    /// A new authority.
    pub fn new() -> Self {
        Self::of("Test authority")
    }

    /// A new authority of this name.
    pub fn of(name: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder for certificates");
        let authority = Authority::new(name).expect("an authority can be made");
        write(&folder.path().join("ca.crt"), &authority.certificate_pem());
        Self { folder, authority }
    }

    /// The authority's own certificate.
    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }

    /// A certificate for a party on this machine.
    pub fn issue(&self, name: &str) -> Identity {
        self.keep(name, &self.authority.issue(name, LOCAL).expect("a certificate can be issued"))
    }

    /// One that expired yesterday.
    pub fn issue_expired(&self, name: &str) -> Identity {
        let (day, now) = (SignedDuration::from_hours(24), Timestamp::now());
        let issued = self.authority.issue_between(name, LOCAL, now - day * 30, now - day);
        self.keep(name, &issued.expect("a certificate can be issued"))
    }

    /// A certificate of this authority's, kept in the folder of another.
    pub fn issue_into(&self, other: &Self, name: &str) -> Identity {
        other.keep(name, &self.authority.issue(name, LOCAL).expect("a certificate can be issued"))
    }

    fn keep(&self, name: &str, issued: &Issued) -> Identity {
        let path = |kind: &str| self.folder.path().join(format!("{name}.{kind}"));
        let identity = Identity { certificate: path("crt"), key: path("key") };
        write(&identity.certificate, &issued.certificate_pem);
        write(&identity.key, &issued.key_pem);
        identity
    }

    /// What a client that trusts this authority connects with; `None` comes without a certificate.
    pub fn client(&self, identity: Option<&Identity>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&self.authority()) {
            roots.add(certificate).expect("the authority can be trusted");
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring knows the versions")
            .with_root_certificates(roots);
        Arc::new(match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let key = PrivateKeyDer::from_pem_file(&identity.key).expect("the key reads");
                builder
                    .with_client_auth_cert(certificates(&identity.certificate), key)
                    .expect("the key fits")
            }
        })
    }
}

impl Default for Certificates {
    fn default() -> Self {
        Self::new()
    }
}

const LOCAL: &[&str] = &["localhost", "127.0.0.1"];

fn certificates(path: &Path) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_file_iter(path).and_then(Iterator::collect).expect("the certificate reads")
}

fn write(path: &Path, text: &str) {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .expect("a certificate can be written");
}
