//! Who may see what. The one place that says it: queries and retrievals over DICOM and DICOMweb ask here, and the index puts the
//! answer into each statement, so that what a peer may not see is not found rather than filtered out.

use gantry_store::dicom::AeTitle;
use gantry_store::index::Scope;

use crate::association::admission::Sender;
use crate::config::{Config, Permission};
use crate::partner::connect::Callee;

/// Who asks, by configured name.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Peer {
    /// Another organisation.
    Partner(String),
    /// A system of this one.
    Source(String),
}

impl Peer {
    /// Its configured name.
    pub fn name(&self) -> &str {
        match self {
            Self::Partner(name) | Self::Source(name) => name,
        }
    }

    /// Whether the configuration lets it do that. Sources always store.
    pub fn may(&self, config: &Config, permission: Permission) -> bool {
        match self {
            Self::Partner(name) => config.partner(name).is_some_and(|it| it.may(permission)),
            Self::Source(_) if permission == Permission::Send => true,
            Self::Source(name) => config.source(name).is_some_and(|it| it.may(permission)),
        }
    }
}

impl From<&Sender> for Peer {
    fn from(sender: &Sender) -> Self {
        let peer = if sender.partner { Self::Partner } else { Self::Source };
        peer(sender.name.clone())
    }
}

/// What a peer may see: a partner what is addressed to it or shared with it, a source what it sent. What goes to a partner under
/// a protection it does not see here: it would see whose it is.
pub fn scope(peer: &Peer) -> Scope {
    match peer {
        Peer::Partner(name) => Scope::Partner { name: name.clone(), protected: false },
        Peer::Source(name) => Scope::Source(name.clone()),
    }
}

/// Whom a peer may have something sent to by C-MOVE, by the AE title that it names: itself, where this node calls it, and those
/// whom the configuration lists for it (`move-to`). Never this node.
pub fn destination<'a>(config: &'a Config, peer: &Sender, named: &AeTitle) -> Option<Callee<'a>> {
    let listed = if peer.partner {
        &config.partner(&peer.name)?.move_to
    } else {
        &config.source(&peer.name)?.move_to
    };
    let may = |name: &str| name == peer.name || listed.iter().any(|listed| listed == name);
    let partner = config.partners.iter().find(|it| it.ae_title == *named && may(&it.name));
    if let Some(partner) = partner {
        return Some(Callee::partner(config, partner));
    }
    let source = config.sources.iter().find(|it| it.ae_title == *named && may(&it.name))?;
    Callee::source(config, source)
}
