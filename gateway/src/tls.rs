//! TLS of associations and of the web: who this node is, whom it believes, and why a handshake failed.
//!
//! Both sides of an association show a certificate that one of the configured authorities issued; the operating
//! system's authorities are never asked. Whom a certificate *names* is not decided here: a partner is known by its
//! pinned certificate, so a caller compares [`fingerprint`] with the configured ones, and a call out trusts the pins
//! instead of the host name. Sessions are never resumed: the certificate is thus shown, and checked against today's
//! date and authorities, on every connection, and a handshake more costs less than doubt about who is speaking.
//!
//! The `*_config` functions read the files anew; a reload calls them again and swaps what they return.

mod authority;
mod trouble;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore, ServerConfig,
    SignatureScheme, SupportedProtocolVersion,
};
use rustls_pki_types::pem::{self, PemObject as _};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use thiserror::Error;

use crate::config::{Fingerprint, HostPort, Identity, Tls};

pub use authority::{Authority, IssueError, Issued};
pub(crate) use trouble::day;
pub use trouble::{NotPinned, Trouble, explain};

/// What this node speaks; the suites of both are forward secret and authenticated (BCP 195, as PS3.15 B.12 asks).
static VERSIONS: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];

/// Why a TLS configuration cannot be made of the files it names.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is there and is not PEM.
    #[error("{} is not a PEM file: {why}", path.display())]
    Pem {
        /// Which.
        path: PathBuf,
        /// What the reader stumbled over.
        why: String,
    },
    /// A PEM file without a certificate.
    #[error("there is no certificate in {}", path.display())]
    NoCertificate {
        /// Which.
        path: PathBuf,
    },
    /// A PEM file without a private key.
    #[error("there is no private key in {}", path.display())]
    NoKey {
        /// Which.
        path: PathBuf,
    },
    /// Something that calls itself a certificate and is not one.
    #[error("a certificate cannot be decoded")]
    Certificate,
    /// A certificate that cannot be an authority.
    #[error("the certificate in {} cannot be an authority", path.display())]
    Authority {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// The key is another certificate's.
    #[error("the key in {} does not belong to the certificate in {}", key.display(), certificate.display())]
    KeyMismatch {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
    /// A key that cannot be used.
    #[error("the key in {} cannot be used", path.display())]
    Key {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// No authority at all: nobody could ever connect.
    #[error("no authority is trusted")]
    NoAuthority,
    /// rustls did not take the parts.
    #[error("cannot set up TLS")]
    SetUp {
        /// Why.
        source: rustls::Error,
    },
    /// A host that no certificate could name.
    #[error("{host} cannot stand in a certificate")]
    HostName {
        /// Which.
        host: String,
    },
}

/// For a listener with mutual TLS: a peer without a certificate from one of the authorities is refused.
pub fn server_config(tls: &Tls) -> Result<Arc<ServerConfig>, TlsError> {
    let (chain, key) = read_identity(&tls.identity)?;
    let authorities = Arc::new(read_authorities(&tls.authorities)?);
    let verifier = WebPkiClientVerifier::builder_with_provider(authorities, provider())
        .build()
        .map_err(|error| TlsError::SetUp { source: rustls::Error::General(error.to_string()) })?;
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)
        .map_err(|source| TlsError::SetUp { source })?;
    let config = builder.with_client_cert_verifier(verifier).with_single_cert(chain, key);
    Ok(Arc::new(without_resumption(config.map_err(|source| TlsError::SetUp { source })?)))
}

/// For the web: browsers show no certificate. Speaks HTTP/1.1.
pub fn https_config(identity: &Identity) -> Result<Arc<ServerConfig>, TlsError> {
    let (chain, key) = read_identity(identity)?;
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)
        .map_err(|source| TlsError::SetUp { source })?;
    let config = builder.with_no_client_auth().with_single_cert(chain, key);
    let mut config = config.map_err(|source| TlsError::SetUp { source })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// For DICOMweb: whoever shows a certificate is known by it, if one of the authorities issued it; whoever shows none may have a
/// token. Speaks HTTP/1.1.
pub fn dicomweb_config(tls: &Tls) -> Result<Arc<ServerConfig>, TlsError> {
    let (chain, key) = read_identity(&tls.identity)?;
    let authorities = Arc::new(read_authorities(&tls.authorities)?);
    let verifier = WebPkiClientVerifier::builder_with_provider(authorities, provider())
        .allow_unauthenticated()
        .build()
        .map_err(|error| TlsError::SetUp { source: rustls::Error::General(error.to_string()) })?;
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)
        .map_err(|source| TlsError::SetUp { source })?;
    let config = builder.with_client_cert_verifier(verifier).with_single_cert(chain, key);
    let mut config = without_resumption(config.map_err(|source| TlsError::SetUp { source })?);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// For calling a partner: its certificate must come from one of the authorities and be in force. With `pins` it must
/// be one of them, and the host name is not looked at; without, it must bear the host name.
pub fn client_config(tls: &Tls, pins: &[Fingerprint]) -> Result<Arc<ClientConfig>, TlsError> {
    client_config_speaking(tls, pins, VERSIONS)
}

fn client_config_speaking(
    tls: &Tls,
    pins: &[Fingerprint],
    versions: &[&'static SupportedProtocolVersion],
) -> Result<Arc<ClientConfig>, TlsError> {
    let (chain, key) = read_identity(&tls.identity)?;
    let provider = provider();
    let verifier = PartnerVerifier {
        authorities: read_authorities(&tls.authorities)?,
        algorithms: provider.signature_verification_algorithms,
        pins: pins.to_vec(),
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(|source| TlsError::SetUp { source })?;
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    let config = builder.with_client_auth_cert(chain, key);
    let mut config = config.map_err(|source| TlsError::SetUp { source })?;
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// The name to give rustls when calling that host.
pub fn server_name(address: &HostPort) -> Result<ServerName<'static>, TlsError> {
    ServerName::try_from(address.host.clone())
        .map_err(|_| TlsError::HostName { host: address.host.clone() })
}

/// SHA-256 of a certificate's encoding: what a pinned peer is known by.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> Fingerprint {
    let digest = ring::digest::digest(&ring::digest::SHA256, certificate);
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest.as_ref());
    Fingerprint(bytes)
}

/// The certificates of a PEM file, in its order; at least one.
pub fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(path)?).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => {
            Err(TlsError::NoCertificate { path: path.to_owned() })
        }
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(pem_error(path, &error)),
    }
}

/// What people want to know of a certificate.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CertificateFacts {
    /// Its subject, such as `CN=YORK_PACS, O=York`.
    pub subject: String,
    /// Its issuer, likewise.
    pub issuer: String,
    /// From when it is valid.
    pub not_before: Timestamp,
    /// Until when.
    pub not_after: Timestamp,
    /// What it is pinned by.
    pub fingerprint: Fingerprint,
    /// Whether it may issue others, and so cannot be a node's own.
    pub is_authority: bool,
    /// Whether it may be shown by who is called. It may unless its extended key usage says otherwise.
    pub for_servers: bool,
    /// Whether it may be shown by who calls, likewise.
    pub for_clients: bool,
}

impl CertificateFacts {
    /// Reads them.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, TlsError> {
        let (_, parsed) =
            x509_parser::parse_x509_certificate(certificate).map_err(|_| TlsError::Certificate)?;
        let usage = parsed
            .extended_key_usage()
            .map_err(|_| TlsError::Certificate)?
            .map(|extension| extension.value);
        let constraints = parsed.basic_constraints().map_err(|_| TlsError::Certificate)?;
        let time = |seconds| Timestamp::from_second(seconds).map_err(|_| TlsError::Certificate);
        Ok(Self {
            subject: parsed.subject().to_string(),
            issuer: parsed.issuer().to_string(),
            not_before: time(parsed.validity().not_before.timestamp())?,
            not_after: time(parsed.validity().not_after.timestamp())?,
            fingerprint: fingerprint(certificate),
            is_authority: constraints.is_some_and(|constraints| constraints.value.ca),
            for_servers: usage.is_none_or(|usage| usage.server_auth),
            for_clients: usage.is_none_or(|usage| usage.client_auth),
        })
    }
}

/// This node's chain and key, checked to belong together.
pub fn read_identity(
    identity: &Identity,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
    let chain = read_certificates(&identity.certificate)?;
    let key = match PrivateKeyDer::from_pem_slice(&read(&identity.key)?) {
        Ok(key) => key,
        Err(pem::Error::NoItemsFound) => {
            return Err(TlsError::NoKey { path: identity.key.clone() });
        }
        Err(error) => return Err(pem_error(&identity.key, &error)),
    };
    match CertifiedKey::from_der(chain.clone(), key.clone_key(), &provider()) {
        Ok(_) => Ok((chain, key)),
        Err(rustls::Error::InconsistentKeys(_)) => Err(TlsError::KeyMismatch {
            certificate: identity.certificate.clone(),
            key: identity.key.clone(),
        }),
        Err(source) => Err(TlsError::Key { path: identity.key.clone(), source }),
    }
}

/// The authorities of these PEM files, each of which may hold several.
pub fn read_authorities(paths: &[PathBuf]) -> Result<RootCertStore, TlsError> {
    let mut authorities = RootCertStore::empty();
    for path in paths {
        for certificate in read_certificates(path)? {
            authorities
                .add(certificate)
                .map_err(|source| TlsError::Authority { path: path.clone(), source })?;
        }
    }
    if authorities.is_empty() { Err(TlsError::NoAuthority) } else { Ok(authorities) }
}

/// Whether one of the authorities issued this certificate, with nothing between them that the peer would have to send.
pub(crate) fn is_issued_by(authorities: &RootCertStore, certificate: &CertificateDer<'_>) -> bool {
    let algorithms = provider().signature_verification_algorithms;
    let issued = ParsedCertificate::try_from(certificate).and_then(|parsed| {
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            authorities,
            &[],
            UnixTime::now(),
            algorithms.all,
        )
    });
    !matches!(issued, Err(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)))
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

fn pem_error(path: &Path, error: &pem::Error) -> TlsError {
    // The reader's own text may quote a line of the file, and the file may be a key.
    let why = match error {
        pem::Error::MissingSectionEnd { .. } => "a section has no end",
        pem::Error::IllegalSectionStart { .. } => {
            "a section begins with something else than BEGIN and a name"
        }
        pem::Error::Base64Decode(_) => "a section is not base64",
        _ => "it cannot be read",
    };
    TlsError::Pem { path: path.to_owned(), why: why.to_owned() }
}

/// ring, said out loud: a process-wide default could be another crate's.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn without_resumption(mut config: ServerConfig) -> ServerConfig {
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config
}

/// Believes a partner that shows the right certificate, and nobody else.
#[derive(Debug)]
struct PartnerVerifier {
    authorities: RootCertStore,
    algorithms: WebPkiSupportedAlgorithms,
    pins: Vec<Fingerprint>,
}

impl ServerCertVerifier for PartnerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.authorities,
            intermediates,
            now,
            self.algorithms.all,
        )?;
        let shown = fingerprint(end_entity);
        if self.pins.is_empty() {
            verify_server_name(&parsed, server_name)?;
        } else if !self.pins.contains(&shown) {
            let error = OtherError(Arc::new(NotPinned { shown }));
            return Err(CertificateError::Other(error).into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
