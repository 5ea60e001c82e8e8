//! Who may associate: decided on address, certificate and AE titles before the association is accepted.
//!
//! On a listener with mutual TLS the certificate is the identity and the AE title a claim: a certificate that is pinned
//! for one peer never passes for another, and a peer that has pins never passes without one of them. On a plaintext
//! listener the network it allows and the AE title are all there is, so peers that have pinned certificates may not use
//! it.

use dicom_ul::pdu::{
    AssociationRJ, AssociationRJResult, AssociationRJServiceUserReason, AssociationRJSource,
};
use gantry_store::dicom::AeTitle;
use thiserror::Error;

use super::negotiation::Services;
use crate::config::{Config, Fact, Fingerprint, Permission};

/// A peer that was let in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Sender {
    /// Its configured name.
    pub name: String,
    /// Whether it is a partner rather than a source.
    pub partner: bool,
    /// Whether it may store here.
    pub may_store: bool,
    /// What it may ask for.
    pub services: Services,
    /// What it called itself.
    pub calling: AeTitle,
    /// What it called.
    pub called: AeTitle,
}

/// Why a peer was not let in, for the log. What the peer itself is told says less.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum Rejection {
    /// The request is not for DICOM's application context, or not for version 1 of the protocol.
    #[error("asked for another application context or protocol version")]
    ApplicationContext,
    /// The calling AE title is none.
    #[error("calling AE title is not valid: {0}")]
    InvalidCalling(&'static str),
    /// The called AE title is none.
    #[error("called AE title is not valid: {0}")]
    InvalidCalled(&'static str),
    /// Nobody of that name is configured.
    #[error("calling AE title {0} is neither a source's nor a partner's")]
    UnknownCalling(AeTitle),
    /// Nothing here answers to that name.
    #[error("called AE title {0} is not one of ours")]
    UnknownCalled(AeTitle),
    /// The source may not call that name.
    #[error("{sender} may not call {called}")]
    MayNotCall {
        /// Its configured name.
        sender: String,
        /// What it called.
        called: AeTitle,
    },
    /// The certificate is not the one that the AE title's owner shows.
    #[error("certificate {certificate} is not one of {sender}'s")]
    WrongCertificate {
        /// Whose AE title was claimed.
        sender: String,
        /// What was shown.
        certificate: Fingerprint,
    },
    /// The owner of the AE title shows a certificate, and this peer came without.
    #[error("{0} must come over TLS, with its certificate")]
    PlaintextNotForIt(String),
    /// As many associations as are allowed are open.
    #[error("{0} associations are open already")]
    Busy(usize),
}

impl Rejection {
    /// What the peer is told (PS3.8 Table 9-21).
    pub fn pdu(&self) -> AssociationRJ {
        use AssociationRJServiceUserReason as User;
        let permanent = |reason| AssociationRJ {
            result: AssociationRJResult::Permanent,
            source: AssociationRJSource::ServiceUser(reason),
        };
        match self {
            Self::ApplicationContext => permanent(User::ApplicationContextNameNotSupported),
            Self::InvalidCalled(_) | Self::UnknownCalled(_) | Self::MayNotCall { .. } => {
                permanent(User::CalledAETitleNotRecognized)
            }
            Self::InvalidCalling(_)
            | Self::UnknownCalling(_)
            | Self::WrongCertificate { .. }
            | Self::PlaintextNotForIt(_) => permanent(User::CallingAETitleNotRecognized),
            Self::Busy(_) => AssociationRJ {
                result: AssociationRJResult::Transient,
                source: AssociationRJSource::ServiceProviderPresentation(
                    dicom_ul::pdu::AssociationRJServiceProviderPresentationReason::LocalLimitExceeded,
                ),
            },
        }
    }
}

/// Decides who the peer is. `certificate` is what it showed; `None` on a plaintext listener.
pub fn admit(
    config: &Config,
    calling: &str,
    called: &str,
    certificate: Option<Fingerprint>,
) -> Result<Sender, Rejection> {
    let calling: AeTitle =
        calling.parse().map_err(|error: gantry_store::dicom::InvalidAeTitle| {
            Rejection::InvalidCalling(error.reason())
        })?;
    let called: AeTitle =
        called.parse().map_err(|error: gantry_store::dicom::InvalidAeTitle| {
            Rejection::InvalidCalled(error.reason())
        })?;
    if !answers_to(config, &called) {
        return Err(Rejection::UnknownCalled(called));
    }

    // Several sources may share an AE title on different certificates; the certificate then tells them apart.
    let mut refusal = Rejection::UnknownCalling(calling.clone());
    let sources = config.sources.iter().filter(|source| source.ae_title == calling);
    for source in sources {
        let allowed = allow(
            config,
            &source.name,
            source.certificate.as_deref().unwrap_or_default(),
            certificate,
        );
        match allowed {
            Ok(()) if source.called.is_empty() || source.called.contains(&called) => {
                return Ok(Sender {
                    name: source.name.clone(),
                    partner: false,
                    may_store: true,
                    services: Services {
                        query: source.may(Permission::Query),
                        retrieve: source.may(Permission::Retrieve),
                    },
                    calling,
                    called,
                });
            }
            Ok(()) => {
                refusal =
                    Rejection::MayNotCall { sender: source.name.clone(), called: called.clone() }
            }
            Err(error) => refusal = error,
        }
    }
    for partner in config.partners.iter().filter(|partner| partner.ae_title == calling) {
        match allow(config, &partner.name, &partner.certificates, certificate) {
            Ok(()) => {
                let may_store = partner.may(Permission::Send);
                return Ok(Sender {
                    name: partner.name.clone(),
                    partner: true,
                    may_store,
                    services: Services {
                        query: partner.may(Permission::Query),
                        retrieve: partner.may(Permission::Retrieve),
                    },
                    calling,
                    called,
                });
            }
            Err(error) => refusal = error,
        }
    }
    Err(refusal)
}

fn allow(
    config: &Config,
    name: &str,
    pins: &[Fingerprint],
    shown: Option<Fingerprint>,
) -> Result<(), Rejection> {
    match shown {
        Some(certificate) if pins.contains(&certificate) => Ok(()),
        // Without pins any certificate of the authorities will do, except one that is somebody else's.
        Some(certificate) if pins.is_empty() && !pinned_for_anyone(config, &certificate) => Ok(()),
        Some(certificate) => {
            Err(Rejection::WrongCertificate { sender: name.to_owned(), certificate })
        }
        None if pins.is_empty() => Ok(()),
        None => Err(Rejection::PlaintextNotForIt(name.to_owned())),
    }
}

fn pinned_for_anyone(config: &Config, certificate: &Fingerprint) -> bool {
    let sources = config.sources.iter().filter_map(|source| source.certificate.as_deref());
    let partners = config.partners.iter().map(|partner| partner.certificates.as_slice());
    sources.chain(partners).any(|pins| pins.contains(certificate))
}

/// Whether this node answers to a name: its own, and those that sources may call or routes wait for.
fn answers_to(config: &Config, called: &AeTitle) -> bool {
    *called == config.node.ae_title
        || config.sources.iter().any(|source| source.called.contains(called))
        || config.routes.iter().flat_map(|route| &route.when).any(|condition| {
            condition.on == Fact::CalledAeTitle && condition.admits(called.as_str())
        })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::{Condition, Pattern, Source};
    use crate::testing::config_with;

    const A: Fingerprint = Fingerprint([0xAA; 32]);
    const B: Fingerprint = Fingerprint([0xBB; 32]);
    const STRANGER: Fingerprint = Fingerprint([0xCC; 32]);

    /// A source without a certificate, one with; partner A may send, partner B may not.
    fn config() -> Config {
        let mut config = config_with(&[("a", "A_PACS", &[A]), ("b", "B_PACS", &[B])]);
        config.partners[0].may.insert(Permission::Send);
        config.sources = vec![
            Source {
                name: "ct".into(),
                ae_title: title("CT"),
                called: vec![],
                address: None,
                counted: false,
                fetch: false,
                token: None,
                may: BTreeSet::new(),
                move_to: Vec::new(),
                certificate: None,
            },
            Source {
                name: "mr".into(),
                ae_title: title("MR"),
                called: vec![title("GANTRY")],
                address: None,
                counted: false,
                fetch: false,
                token: None,
                may: BTreeSet::new(),
                move_to: Vec::new(),
                certificate: Some(vec![STRANGER]),
            },
        ];
        config.routes[0].when =
            vec![Condition { on: Fact::CalledAeTitle, any_of: vec![Pattern::exact("RI_EMERG")] }];
        config
    }

    fn title(text: &str) -> AeTitle {
        text.parse().unwrap()
    }

    #[test]
    fn who_gets_in_and_as_whom() {
        let config = config();
        let who = |calling: &str, called: &str, certificate| {
            admit(&config, calling, called, certificate)
                .map(|sender| (sender.name, sender.may_store))
                .map_err(|rejection| rejection.to_string())
        };
        let yes = |name: &str, may_store| Ok((name.to_owned(), may_store));
        let no = |reason: &str| Err(reason.to_owned());

        assert_eq!(who("CT", "GANTRY", None), yes("ct", true));
        assert_eq!(who("  CT ", "RI_EMERG", None), yes("ct", true), "routes wait for this name");
        assert_eq!(who("A_PACS", "GANTRY", Some(A)), yes("a", true));
        assert_eq!(who("B_PACS", "GANTRY", Some(B)), yes("b", false));

        assert_eq!(who("CT", "OTHER", None), no("called AE title OTHER is not one of ours"));
        assert_eq!(
            who("NOBODY", "GANTRY", None),
            no("calling AE title NOBODY is neither a source's nor a partner's")
        );
        assert_eq!(who("MR", "RI_EMERG", Some(STRANGER)), no("mr may not call RI_EMERG"));
        assert!(who("", "GANTRY", None).is_err() && who("CT", "../../X\n", None).is_err());
    }

    #[test]
    fn a_certificate_is_the_identity_and_the_ae_title_a_claim() {
        let config = config();
        let refused = |calling: &str, certificate| {
            admit(&config, calling, "GANTRY", certificate).unwrap_err()
        };

        assert!(
            matches!(refused("B_PACS", Some(A)), Rejection::WrongCertificate { sender, .. } if sender == "b")
        );
        assert!(
            matches!(refused("A_PACS", None), Rejection::PlaintextNotForIt(name) if name == "a")
        );
        assert!(matches!(refused("A_PACS", Some(STRANGER)), Rejection::WrongCertificate { .. }));
        // A source without pins takes any certificate of the authorities, and not one that is somebody else's.
        assert!(matches!(refused("CT", Some(A)), Rejection::WrongCertificate { .. }));
        assert!(admit(&config, "CT", "GANTRY", Some(Fingerprint([0xDD; 32]))).is_ok());
    }

    #[test]
    fn a_peer_is_told_less_than_the_log() {
        let certificate = Rejection::WrongCertificate { sender: "a".into(), certificate: B }.pdu();
        let unknown = Rejection::UnknownCalling(title("X")).pdu();
        assert_eq!(certificate, unknown);
        assert_eq!(Rejection::Busy(3).pdu().result, AssociationRJResult::Transient);
    }
}
