//! Certificates of our own making: for `gantry init`, the demo and tests, and for trusts that have no authority yet.

use std::net::IpAddr;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};
use thiserror::Error;

/// An authority that issues nodes' certificates; its key is ECDSA P-256.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    not_after: Timestamp,
}

/// A certificate and its private key, for one node: both for calling and for being called.
#[derive(Clone)]
pub struct Issued {
    /// The certificate.
    pub certificate_pem: String,
    /// Its private key (PKCS #8).
    pub key_pem: String,
    /// Until when it is valid.
    pub not_after: Timestamp,
}

/// Why a certificate cannot be made.
#[derive(Debug, Error)]
pub enum IssueError {
    /// A name that cannot stand in a certificate.
    #[error("{name:?} cannot stand in a certificate")]
    Name {
        /// Which.
        name: String,
        /// Why.
        source: rcgen::Error,
    },
    /// Making or signing failed.
    #[error("cannot make a certificate for {name:?}")]
    Make {
        /// For whom.
        name: String,
        /// Why.
        source: rcgen::Error,
    },
}

impl Authority {
    /// Ten years: an authority's successor must be brought to every partner by hand.
    pub const VALIDITY: SignedDuration = SignedDuration::from_hours(24 * 3650);
    /// Two years, for a node.
    pub const NODE_VALIDITY: SignedDuration = SignedDuration::from_hours(24 * 730);
    /// Certificates begin this much in the past, for peers whose clocks are behind.
    const CLOCKS_MAY_DIFFER_BY: SignedDuration = SignedDuration::from_hours(1);

    /// A new one, valid for [`Authority::VALIDITY`] from now.
    pub fn new(name: &str) -> Result<Self, IssueError> {
        let make = |source| IssueError::Make { name: name.to_owned(), source };
        let key = KeyPair::generate().map_err(make)?;
        let now = Timestamp::now();
        let not_after = now + Self::VALIDITY;
        let mut params = parameters(name, &[], now - Self::CLOCKS_MAY_DIFFER_BY, not_after)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok(Self { issuer: CertifiedIssuer::self_signed(params, key).map_err(make)?, not_after })
    }

    /// Its own certificate, for `authorities`.
    pub fn certificate_pem(&self) -> String {
        self.issuer.pem()
    }

    /// Its private key (PKCS #8).
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// Until when it is valid.
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// A node's certificate and key, valid for [`Authority::NODE_VALIDITY`] from now. `names` are the host names and
    /// addresses that it answers to.
    pub fn issue(&self, common_name: &str, names: &[&str]) -> Result<Issued, IssueError> {
        let now = Timestamp::now();
        self.issue_between(
            common_name,
            names,
            now - Self::CLOCKS_MAY_DIFFER_BY,
            now + Self::NODE_VALIDITY,
        )
    }

    /// The same, for a time that may lie in the past.
    pub fn issue_between(
        &self,
        common_name: &str,
        names: &[&str],
        not_before: Timestamp,
        not_after: Timestamp,
    ) -> Result<Issued, IssueError> {
        let make = |source| IssueError::Make { name: common_name.to_owned(), source };
        let key = KeyPair::generate().map_err(make)?;
        let mut params = parameters(common_name, names, not_before, not_after)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer).map_err(make)?;
        Ok(Issued { certificate_pem: certificate.pem(), key_pem: key.serialize_pem(), not_after })
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

fn parameters(
    common_name: &str,
    names: &[&str],
    not_before: Timestamp,
    not_after: Timestamp,
) -> Result<CertificateParams, IssueError> {
    let mut params = CertificateParams::default();
    for name in names {
        let unfit = |source| IssueError::Name { name: (*name).to_owned(), source };
        params.subject_alt_names.push(if let Ok(address) = name.parse::<IpAddr>() {
            SanType::IpAddress(address)
        } else {
            SanType::DnsName((*name).try_into().map_err(unfit)?)
        });
    }
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    // The `time` crate is rcgen's; only its epoch and its sum with a duration are used.
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let since_epoch =
        |time: Timestamp| Duration::from_secs(time.as_second().try_into().unwrap_or(0));
    params.not_before = epoch + since_epoch(not_before);
    params.not_after = epoch + since_epoch(not_after);
    Ok(params)
}
