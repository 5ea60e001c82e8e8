//! The files that a configuration names: this node's identity, the authorities it believes, its partners' certificates.

use std::error::Error as _;
use std::ops::Range;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use serde_spanned::Spanned;

use super::{Bad, Check, Fingerprint, Identity, Names, Section, Tls, Written, each};
use crate::tls::{self, CertificateFacts, TlsError, day};

/// How long before the end a certificate is worth a warning: time enough for an authority's paperwork.
const SOON: SignedDuration = SignedDuration::from_hours(24 * 30);

impl Check {
    /// `[tls]`, the authorities that can be used, and the fingerprint of this node's certificate.
    pub(super) fn tls(
        &mut self,
        main: &Written,
    ) -> (Option<Tls>, Option<RootCertStore>, Option<Fingerprint>) {
        let Some(body) = &main.file.tls else { return (None, None, None) };
        let (section, body) = Section::of(main, body);
        let help = "Write the PEM file of this node's certificate, such as certificate = \"tls/node.crt\".";
        let certificate = self.required(&section, "certificate", body.certificate.as_ref(), help);
        let help = "Write the PEM file of its private key, such as key = \"tls/node.key\".";
        let key = self.required(&section, "key", body.key.as_ref(), help);
        let help = "Write the PEM files of the authorities to believe, such as authorities = [\"tls/ca.crt\"].";
        let authorities = self.required(&section, "authorities", body.authorities.as_ref(), help);

        let identity = match (certificate, key) {
            (Some(certificate), Some(key)) => self.identity(&section, certificate, key),
            _ => None,
        };
        if let (Some((_, facts)), Some(certificate)) = (&identity, certificate) {
            self.serves_both_ways(&section, certificate.span(), facts);
        }
        let mut store = RootCertStore::empty();
        let mut paths = Vec::new();
        for (span, text) in authorities.map(each).unwrap_or_default() {
            let path = section.path(text);
            self.authority(&section, span, &path, &mut store);
            paths.push(path);
        }
        if let (true, Some(list)) = (paths.is_empty(), authorities) {
            let message = "no authority is believed, so nobody can connect";
            let help =
                "Write the PEM files of the authorities that issue the partners' certificates.";
            self.problem(&section, list.span(), Bad::new(message, "empty", help));
        }
        let (identity, own) =
            identity.map(|(identity, facts)| (identity, facts.fingerprint)).unzip();
        let tls = identity.map(|identity| Tls { identity, authorities: paths });
        (tls, (!store.is_empty()).then_some(store), own)
    }

    /// A certificate and its key: both there, belonging together, in force, and the key nobody else's business.
    pub(super) fn identity(
        &mut self,
        section: &Section<'_>,
        certificate: &Spanned<String>,
        key: &Spanned<String>,
    ) -> Option<(Identity, CertificateFacts)> {
        let identity = Identity {
            certificate: section.path(certificate.get_ref()),
            key: section.path(key.get_ref()),
        };
        self.is_private(section, key.span(), &identity.key, "private key");
        let chain = match tls::read_identity(&identity) {
            Ok((chain, _)) => chain,
            Err(error) => {
                let at_key = match &error {
                    TlsError::Read { path, .. } | TlsError::Pem { path, .. } => {
                        *path == identity.key
                    }
                    TlsError::NoKey { .. }
                    | TlsError::Key { .. }
                    | TlsError::KeyMismatch { .. } => true,
                    _ => false,
                };
                let span = if at_key { key.span() } else { certificate.span() };
                self.unusable(section, span, &error);
                return None;
            }
        };
        let facts = self.facts(section, certificate.span(), chain.first()?)?;
        if facts.not_after <= self.now {
            let help = "Have it renewed, and put the new one in its place.";
            let label = format!("expired on {}", day(facts.not_after));
            self.problem(
                section,
                certificate.span(),
                Bad::new("this node's certificate has expired", label, help),
            );
        } else if facts.not_before > self.now {
            let help = "Use the earlier one until then; if it should be valid now, set the clock.";
            let label = format!("valid from {}", day(facts.not_before));
            self.problem(
                section,
                certificate.span(),
                Bad::new("this node's certificate is not valid yet", label, help),
            );
        } else if facts.not_after <= self.now + SOON {
            let help = "Have it renewed; partners that pin it must be sent the new one before.";
            let label = format!("until {}", day(facts.not_after));
            self.warning(
                section,
                certificate.span(),
                Bad::new("this node's certificate expires soon", label, help),
            );
        }
        Some((identity, facts))
    }

    fn serves_both_ways(
        &mut self,
        section: &Section<'_>,
        span: Range<usize>,
        facts: &CertificateFacts,
    ) {
        let (label, who) = match (facts.for_servers, facts.for_clients) {
            (true, true) => return,
            (true, false) => ("not for client authentication", "whom this node calls"),
            (false, _) => ("not for server authentication", "who calls this node"),
        };
        let message = format!("partners {who} may refuse this node's certificate");
        let help = "Ask the authority for one whose extended key usage has both client and server authentication.";
        self.warning(section, span, Bad::new(message, label, help));
    }

    /// A secret's file is its owner's alone.
    pub(super) fn is_private(
        &mut self,
        section: &Section<'_>,
        span: Range<usize>,
        path: &Path,
        what: &str,
    ) {
        use std::os::unix::fs::PermissionsExt as _;
        let Ok(metadata) = std::fs::metadata(path) else { return };
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            let help = format!("chmod 600 {}", path.display());
            let label = format!("mode {mode:04o}");
            let message = format!("others can read this {what}");
            self.problem(section, span, Bad::new(message, label, help));
        }
    }

    pub(super) fn authority(
        &mut self,
        section: &Section<'_>,
        span: Range<usize>,
        path: &Path,
        store: &mut RootCertStore,
    ) {
        let certificates = match tls::read_certificates(path) {
            Ok(certificates) => certificates,
            Err(error) => return self.unusable(section, span, &error),
        };
        for certificate in certificates {
            let Some(facts) = self.facts(section, span.clone(), &certificate) else { continue };
            if facts.not_after <= self.now {
                let message = format!("the authority {} has expired", facts.subject);
                let label = format!("on {}", day(facts.not_after));
                let help = "Ask its owner for its successor.";
                self.warning(section, span.clone(), Bad::new(message, label, help));
            }
            if let Err(source) = store.add(certificate) {
                self.unusable(
                    section,
                    span.clone(),
                    &TlsError::Authority { path: path.to_owned(), source },
                );
            }
        }
    }

    /// The certificates that a source or partner may show, and when the last of them expires.
    pub(super) fn pins(
        &mut self,
        section: &Section<'_>,
        written: &Spanned<String>,
        who: &str,
        names: &mut Names,
        authorities: Option<&RootCertStore>,
    ) -> (Vec<Fingerprint>, Option<Timestamp>) {
        let certificates = match tls::read_certificates(&section.path(written.get_ref())) {
            Ok(certificates) => certificates,
            Err(error) => {
                self.unusable(section, written.span(), &error);
                return (Vec::new(), None);
            }
        };
        let mut pinned = Vec::new();
        for certificate in &certificates {
            // A chain beside the node's own is no harm: authorities cannot be shown as one's own.
            let facts = self.facts(section, written.span(), certificate);
            pinned.extend(
                facts.filter(|facts| !facts.is_authority).map(|facts| (facts, certificate)),
            );
        }
        if pinned.is_empty() {
            let help =
                "Ask for the certificate of its node, not that of the authority which issued it.";
            let message = "there is no node's certificate in this file";
            self.problem(section, written.span(), Bad::new(message, "only authorities", help));
        }
        for (facts, certificate) in &pinned {
            self.is_its_own(section, written.span(), who, facts, names);
            if authorities.is_some_and(|authorities| !tls::is_issued_by(authorities, certificate)) {
                let message =
                    format!("no authority of [tls] issued the certificate {}", facts.subject);
                let label = format!("issued by {}", facts.issuer);
                let help = "Add the authority to authorities of [tls]; unless the peer sends what links them, it \
                            will be refused.";
                self.warning(section, written.span(), Bad::new(message, label, help));
            }
        }
        let until = pinned.iter().map(|(facts, _)| facts.not_after).max();
        self.some_is_in_force(section, written.span(), &pinned);
        (pinned.iter().map(|(facts, _)| facts.fingerprint).collect(), until)
    }

    fn is_its_own(
        &mut self,
        section: &Section<'_>,
        span: Range<usize>,
        who: &str,
        facts: &CertificateFacts,
        names: &mut Names,
    ) {
        let Some(other) = names.certificates.insert(facts.fingerprint, who.to_owned()) else {
            return;
        };
        let message = format!("the certificate {} belongs to two", facts.subject);
        let label = format!("also that of {other}");
        let help = "A certificate is one node's identity; ask each for its own.";
        self.problem(section, span, Bad::new(message, label, help));
    }

    fn some_is_in_force(
        &mut self,
        section: &Section<'_>,
        span: Range<usize>,
        pinned: &[(CertificateFacts, &CertificateDer<'_>)],
    ) {
        let Some((last, _)) = pinned.iter().max_by_key(|(facts, _)| facts.not_after) else {
            return;
        };
        let in_force =
            |facts: &CertificateFacts| facts.not_before <= self.now && self.now < facts.not_after;
        let help = "Ask the partner's PACS team for the new one; the file may hold both while they change.";
        if last.not_after <= self.now {
            let label = format!("expired on {}", day(last.not_after));
            let message = format!("the certificate {} has expired", last.subject);
            self.problem(section, span, Bad::new(message, label, help));
        } else if !pinned.iter().any(|(facts, _)| in_force(facts)) {
            let label = format!("valid from {}", day(last.not_before));
            let message = format!("the certificate {} is not valid yet", last.subject);
            self.problem(section, span, Bad::new(message, label, help));
        } else if last.not_after <= self.now + SOON {
            let label = format!("until {}", day(last.not_after));
            let message = format!("the certificate {} expires soon", last.subject);
            self.warning(section, span, Bad::new(message, label, help));
        }
    }

    fn facts(
        &mut self,
        section: &Section<'_>,
        span: Range<usize>,
        certificate: &CertificateDer<'_>,
    ) -> Option<CertificateFacts> {
        CertificateFacts::of(certificate).map_err(|error| self.unusable(section, span, &error)).ok()
    }

    fn unusable(&mut self, section: &Section<'_>, span: Range<usize>, error: &TlsError) {
        let (label, help) = match error {
            TlsError::Read { .. } => {
                ("cannot be read", "Paths are relative to the folder of the file they stand in.")
            }
            TlsError::KeyMismatch { .. } => {
                ("another key", "Put the key here that the certificate was requested with.")
            }
            TlsError::Key { .. } => (
                "cannot be used",
                "Use an ECDSA key (P-256, P-384), Ed25519, or RSA of 2048 bits or more.",
            ),
            TlsError::Authority { .. } | TlsError::Certificate => {
                ("cannot be used", "Ask for it again, as PEM.")
            }
            _ => (
                "not what it should be",
                "Write the path of a PEM file: -----BEGIN CERTIFICATE----- or PRIVATE KEY.",
            ),
        };
        let message = match error.source() {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        };
        self.problem(section, span, Bad::new(message, label, help));
    }
}
