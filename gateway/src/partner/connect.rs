//! From a partner's name to an association with it; every way that this can fail has a kind and a sentence.

use std::sync::Arc;
use std::time::Duration;

use dicom_dictionary_std::uids;
use gantry_store::dicom::{AeTitle, SopClassUid, TransferSyntax};
use gantry_store::index::{Failure, FailureKind};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::association::requestor::{Proposal, RequestError, Requestor};
use crate::association::wire::{Stream, Tcp, WireError};
use crate::config::{Config, Fingerprint, HostPort, Partner, PartnerTls, Source};
use crate::telemetry::chain;
use crate::tls;

/// An association with a partner, over whatever it runs on.
pub type Association = Requestor<Box<dyn Stream>>;

fn failure(kind: FailureKind, text: String) -> Failure {
    Failure { kind, status: None, text }
}

/// What a broken conversation means for what was being sent.
pub fn explain(error: &RequestError) -> Failure {
    let kind = match error {
        RequestError::Rejected(_) => FailureKind::AssociationRejected,
        RequestError::Wire(WireError::TimedOut(_) | WireError::Stuck(_)) => FailureKind::TimedOut,
        RequestError::Wire(_) | RequestError::Response(_) | RequestError::DataSet(_) => {
            FailureKind::Aborted
        }
    };
    failure(kind, chain(error).to_string())
}

/// Whom to call, and how.
#[derive(Clone, Copy, Debug)]
pub struct Callee<'a> {
    /// What we call ourselves.
    pub calling: &'a AeTitle,
    /// What we call the peer.
    pub called: &'a AeTitle,
    /// Where it is.
    pub address: &'a HostPort,
    /// Whether both show a certificate.
    pub tls: PartnerTls,
    /// The certificates that it may show; none: any of the authorities' for its host.
    pub certificates: &'a [Fingerprint],
}

impl<'a> Callee<'a> {
    /// A partner.
    pub fn partner(config: &'a Config, partner: &'a Partner) -> Self {
        Self {
            calling: &config.node.ae_title,
            called: &partner.ae_title,
            address: &partner.address,
            tls: partner.tls,
            certificates: &partner.certificates,
        }
    }

    /// A source, if it can be called: over TLS where it has a certificate.
    pub fn source(config: &'a Config, source: &'a Source) -> Option<Self> {
        let pins = source.certificate.as_deref();
        Some(Self {
            calling: &config.node.ae_title,
            called: &source.ae_title,
            address: source.address.as_ref()?,
            tls: if pins.is_some() { PartnerTls::Mutual } else { PartnerTls::Off },
            certificates: pins.unwrap_or_default(),
        })
    }
}

/// Connects, and asks for an association with these contexts. Each step may take so long: the connection, the TLS
/// handshake, the association request.
pub async fn connect(
    config: &Config,
    partner: &Partner,
    contexts: Vec<(SopClassUid, Vec<TransferSyntax>)>,
    patience: Duration,
) -> Result<Association, Failure> {
    call(config, Callee::partner(config, partner), contexts, None, patience).await
}

/// The same with a partner that could not be had: it must answer a C-ECHO before it is sent anything, so that no instance
/// is spent on finding out. One that does not provide verification has shown enough by accepting.
pub async fn connect_on_trial(
    config: &Config,
    partner: &Partner,
    mut contexts: Vec<(SopClassUid, Vec<TransferSyntax>)>,
    patience: Duration,
) -> Result<Association, Failure> {
    let implicit = TransferSyntax::implicit_vr_little_endian();
    let verification = uids::VERIFICATION.parse().ok();
    contexts.splice(..0, verification.clone().map(|class| (class, vec![implicit.clone()])));
    let mut association = connect(config, partner, contexts, patience).await?;
    if verification.is_some_and(|class| association.context_for(&class, &implicit).is_some()) {
        association.set_patience(patience);
        // Whatever it answers, it answers.
        let _ = association.echo().await.map_err(|error| explain(&error))?;
        association.set_patience(config.delivery.response_timeout);
    }
    Ok(association)
}

/// The same, for whoever is called; `provides` is a service that this end provides.
pub async fn call(
    config: &Config,
    callee: Callee<'_>,
    contexts: Vec<(SopClassUid, Vec<TransferSyntax>)>,
    provides: Option<SopClassUid>,
    patience: Duration,
) -> Result<Association, Failure> {
    let stream = open(config, callee, patience).await?;
    let proposal = Proposal {
        calling: callee.calling.clone(),
        called: callee.called.clone(),
        contexts,
        provides,
        max_pdu: config.limits.max_pdu,
        patience,
    };
    let mut association =
        Requestor::associate(stream, &proposal).await.map_err(|error| explain(&error))?;
    association.set_patience(config.delivery.response_timeout);
    Ok(association)
}

async fn open(
    config: &Config,
    partner: Callee<'_>,
    patience: Duration,
) -> Result<Box<dyn Stream>, Failure> {
    let unreachable = |text: String| failure(FailureKind::Unreachable, text);
    let address = (partner.address.host.as_str(), partner.address.port);
    let addresses = match timeout(patience, lookup_host(address)).await {
        Ok(Ok(addresses)) => addresses.collect::<Vec<_>>(),
        Ok(Err(error)) => {
            return Err(unreachable(format!(
                "the name {} has no address: {error}",
                partner.address.host
            )));
        }
        Err(_) => {
            return Err(unreachable(format!(
                "the name {} was not found within {patience:?}",
                partner.address.host
            )));
        }
    };
    let mut last = unreachable(format!("the name {} has no address", partner.address.host));
    let mut connected = None;
    for address in addresses {
        match timeout(patience, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                connected = Some(stream);
                break;
            }
            Ok(Err(error)) => {
                last = unreachable(format!("{address} did not take the connection: {error}"));
            }
            Err(_) => last = unreachable(format!("{address} did not answer within {patience:?}")),
        }
    }
    let stream = connected.ok_or(last)?;
    let stream = Tcp::new(stream)
        .map_err(|error| unreachable(format!("connection lost at once: {error}")))?;
    match partner.tls {
        PartnerTls::Off => Ok(Box::new(stream)),
        PartnerTls::Mutual => {
            let broken = |text: String| failure(FailureKind::TlsFailed, text);
            let identity = config
                .tls
                .as_ref()
                .ok_or_else(|| broken("there is no [tls] section".to_owned()))?;
            let client = tls::client_config(identity, partner.certificates)
                .map_err(|error| broken(chain(&error).to_string()))?;
            let name = tls::server_name(partner.address)
                .map_err(|error| broken(chain(&error).to_string()))?;
            match timeout(patience, TlsConnector::from(Arc::clone(&client)).connect(name, stream))
                .await
            {
                Ok(Ok(stream)) => Ok(Box::new(stream)),
                Ok(Err(error)) => Err(broken(tls::explain(&error).to_string())),
                Err(_) => Err(broken(format!("TLS handshake not finished within {patience:?}"))),
            }
        }
    }
}
