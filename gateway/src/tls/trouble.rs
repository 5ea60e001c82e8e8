//! Why a TLS connection did not come about, in words for two PACS teams on the phone.

use std::io;

use jiff::Timestamp;
use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};
use rustls_pki_types::UnixTime;
use thiserror::Error as ThisError;

use crate::config::Fingerprint;

/// A peer showed a certificate that an authority issued, and that is not one this node knows the partner by.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ThisError)]
#[error("the certificate with fingerprint {shown} is not one that is configured for this partner")]
pub struct NotPinned {
    /// The fingerprint of what it showed.
    pub shown: Fingerprint,
}

/// What went wrong, each as a sentence without its full stop. "They" are the peer, whoever called.
#[derive(Clone, Debug, Eq, PartialEq, ThisError)]
pub enum Trouble {
    /// Their certificate is past its time.
    #[error("their certificate has expired{}", since.map(|time| format!(" (on {})", day(time))).unwrap_or_default())]
    TheirsExpired {
        /// When it did.
        since: Option<Timestamp>,
    },
    /// Their certificate is before its time, or a clock is wrong.
    #[error("their certificate is not valid yet; if it should be, the clock of one side is wrong")]
    TheirsNotYetValid,
    /// Somebody else's authority.
    #[error("their certificate comes from an authority that this node does not trust")]
    TheirsUnknownAuthority,
    /// The right authority, the wrong host.
    #[error(
        "their certificate is for another name than {expected}{}",
        if presented.is_empty() { String::new() } else { format!(": {}", presented.join(", ")) }
    )]
    TheirsWrongName {
        /// The host that was called.
        expected: String,
        /// What the certificate says.
        presented: Vec<String>,
    },
    /// The right authority, another certificate.
    #[error("their certificate is not the one configured for them: it has fingerprint {0}", shown.shown)]
    TheirsNotPinned {
        /// What they showed.
        shown: NotPinned,
    },
    /// None at all.
    #[error("they showed no certificate")]
    TheirsMissing,
    /// Issued for something else than this, by its extended key usage.
    #[error(
        "their certificate was not issued for this use: it lacks client or server authentication"
    )]
    TheirsWrongUse,
    /// Anything else that is wrong with it.
    #[error("their certificate cannot be accepted: {0}")]
    TheirsUnfit(String),
    /// What they say of ours.
    #[error("they refused our certificate: {0}")]
    OursRefused(&'static str),
    /// They speak DICOM, HTTP or something else in the open.
    #[error("they do not speak TLS on this connection")]
    Plaintext,
    /// TLS 1.1 or less, or only suites without forward secrecy.
    #[error(
        "they and this node have no TLS version or cipher suite in common; this node speaks TLS 1.2 and 1.3"
    )]
    NothingInCommon,
    /// Without a word: what many do to who they do not like, and what a port without TLS may do.
    #[error("they closed the connection during the TLS handshake")]
    Closed,
    /// Something else.
    #[error("TLS failed: {0}")]
    Other(String),
}

/// What an error of a TLS stream means; during the handshake, or at the first read after it, which with TLS 1.3 is
/// when a caller learns that its certificate was refused.
pub fn explain(error: &io::Error) -> Trouble {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(error) => Trouble::from(error),
        None => match error.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe => Trouble::Closed,
            _ => Trouble::Other(error.to_string()),
        },
    }
}

impl From<&Error> for Trouble {
    fn from(error: &Error) -> Self {
        match error {
            Error::InvalidCertificate(error) => theirs(error),
            Error::NoCertificatesPresented => Self::TheirsMissing,
            Error::AlertReceived(alert) => alert_received(*alert),
            // The first byte of a TLS record is 14H to 18H; of a DICOM PDU 01H to 07H; of an HTTP answer `H`.
            Error::InvalidMessage(InvalidMessage::InvalidContentType) => Self::Plaintext,
            Error::PeerIncompatible(_) => Self::NothingInCommon,
            error => Self::Other(error.to_string()),
        }
    }
}

fn theirs(error: &CertificateError) -> Trouble {
    match error {
        CertificateError::Expired => Trouble::TheirsExpired { since: None },
        CertificateError::ExpiredContext { not_after, .. } => {
            Trouble::TheirsExpired { since: timestamp(*not_after) }
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            Trouble::TheirsNotYetValid
        }
        // A certificate that bears a trusted authority's name and another's signature.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            Trouble::TheirsUnknownAuthority
        }
        CertificateError::NotValidForName => Trouble::TheirsWrongName {
            expected: "the host called".to_owned(),
            presented: Vec::new(),
        },
        CertificateError::NotValidForNameContext { expected, presented } => {
            Trouble::TheirsWrongName {
                expected: expected.to_str().into_owned(),
                presented: presented.clone(),
            }
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            Trouble::TheirsWrongUse
        }
        CertificateError::Other(other) => match other.0.downcast_ref::<NotPinned>() {
            Some(shown) => Trouble::TheirsNotPinned { shown: *shown },
            None => Trouble::TheirsUnfit(other.0.to_string()),
        },
        error => Trouble::TheirsUnfit(error.to_string()),
    }
}

fn alert_received(alert: AlertDescription) -> Trouble {
    Trouble::OursRefused(match alert {
        AlertDescription::UnknownCA => "they do not trust the authority that issued it",
        AlertDescription::CertificateExpired => "they say that it has expired",
        AlertDescription::CertificateRevoked => "they say that it was revoked",
        AlertDescription::CertificateRequired | AlertDescription::NoCertificate => {
            "they say that they got none"
        }
        AlertDescription::UnsupportedCertificate => {
            "they cannot use its kind of key, or it is not for this use"
        }
        AlertDescription::UnrecognisedName => {
            "they do not know the host name that we called them by"
        }
        AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::AccessDenied
        | AlertDescription::DecryptError => "they do not say why",
        AlertDescription::HandshakeFailure
        | AlertDescription::ProtocolVersion
        | AlertDescription::InsufficientSecurity => return Trouble::NothingInCommon,
        alert => return Trouble::Other(format!("they answered with the alert {alert:?}")),
    })
}

fn timestamp(time: UnixTime) -> Option<Timestamp> {
    Timestamp::from_second(time.as_secs().try_into().ok()?).ok()
}

/// As people write a day in a message.
pub(crate) fn day(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d").to_string()
}
