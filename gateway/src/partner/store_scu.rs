//! Sending instances to a partner (PS3.4 Annex B, SCU): which encoding it gets, the C-STORE, and what the answer means.

use std::collections::BTreeSet;

use bytes::Bytes;
use gantry_store::dicom::{SopClassUid, TransferSyntax};
use gantry_store::index::{Claim, Event, Failure, FailureKind, Receipt};
use jiff::Timestamp;

use super::connect::{self, Association};
use crate::association::dimse::CStoreRq;
use crate::association::requestor::{MAX_CONTEXTS, RequestError};
use crate::association::status::{Meaning, Status};
use crate::protect::Outgoing;

/// Which kinds of object an association is asked for, each in the encoding that it is kept in.
pub type Wanted = BTreeSet<(SopClassUid, TransferSyntax)>;

/// The presentation contexts to propose: for each kind of object its own encoding alone, so that the answer says whether
/// the partner takes that one, and the two that it may be converted to.
pub fn contexts(wanted: &Wanted) -> Vec<(SopClassUid, Vec<TransferSyntax>)> {
    let mut contexts: Vec<(SopClassUid, Vec<TransferSyntax>)> = Vec::new();
    let mut propose = |sop_class: &SopClassUid, syntax: TransferSyntax| {
        let context = (sop_class.clone(), vec![syntax]);
        if !contexts.contains(&context) {
            contexts.push(context);
        }
    };
    for (sop_class, syntax) in wanted {
        propose(sop_class, syntax.clone());
    }
    for (sop_class, _) in wanted {
        propose(sop_class, TransferSyntax::explicit_vr_little_endian());
        propose(sop_class, TransferSyntax::implicit_vr_little_endian());
    }
    contexts.truncate(MAX_CONTEXTS);
    contexts
}

/// In which encoding an instance goes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Encoding {
    /// As it is kept, on this context.
    AsKept(u8),
    /// Converted, on this context.
    Converted(u8, TransferSyntax),
}

impl Encoding {
    /// Its presentation context.
    pub fn context(&self) -> u8 {
        match self {
            Self::AsKept(context) | Self::Converted(context, _) => *context,
        }
    }
}

/// Chooses the encoding: as kept where the partner takes that, else one that it may be converted to. A data set of odd
/// length, which the standard does not know (PS3.5 7.1), is always converted, which makes it even: partners abort at it.
pub fn choose(association: &Association, claim: &Claim) -> Option<Encoding> {
    let sop_class = &claim.sop_class;
    if claim.length.is_multiple_of(2)
        && let Some(context) = association.context_for(sop_class, &claim.transfer_syntax)
    {
        return Some(Encoding::AsKept(context));
    }
    [TransferSyntax::explicit_vr_little_endian(), TransferSyntax::implicit_vr_little_endian()]
        .into_iter()
        .find_map(|to| {
            association.context_for(sop_class, &to).map(|context| Encoding::Converted(context, to))
        })
}

/// What the worker hears of an instance that is being read.
#[derive(Debug)]
pub enum Piece {
    /// Its description; first.
    Begin(Box<Description>),
    /// The next bytes, and whether they are the last.
    Data(Bytes, bool),
    /// It cannot be read or converted; instead of all else, or in the middle.
    Failed(Failure),
}

/// What an [`Outgoing`] says of itself.
#[derive(Clone, Debug)]
pub struct Description {
    /// The request that its data set follows; the message id is set when it is sent.
    pub request: CStoreRq,
    /// How it is encoded.
    pub transfer_syntax: TransferSyntax,
    /// SHA-256 of what is sent.
    pub digest: gantry_store::facts::Digest,
}

impl From<&Outgoing> for Description {
    fn from(outgoing: &Outgoing) -> Self {
        Self {
            request: CStoreRq {
                message_id: 0,
                sop_class: outgoing.sop_class().clone(),
                sop_instance: outgoing.sop_instance().clone(),
                priority: 0,
            },
            transfer_syntax: outgoing.transfer_syntax().clone(),
            digest: outgoing.digest(),
        }
    }
}

/// How one try went.
#[derive(Debug)]
pub enum Sent {
    /// The partner answered.
    Answered(Status, Box<Description>),
    /// Our copy could not be read or converted. `mid_way` says that part of it was sent, so that the association is of no
    /// more use.
    NotReadable {
        /// Why.
        why: Failure,
        /// Whether the association is spoilt.
        mid_way: bool,
    },
    /// The association broke.
    Broken(Failure),
}

/// Sends one instance, as its pieces come.
pub async fn send(
    association: &mut Association,
    context: u8,
    pieces: &mut tokio::sync::mpsc::Receiver<Piece>,
) -> Sent {
    let stopped = || Failure {
        kind: FailureKind::SourceUnreadable,
        status: None,
        text: "reader stopped".to_owned(),
    };
    let description = match pieces.recv().await {
        Some(Piece::Begin(description)) => description,
        Some(Piece::Failed(why)) => return Sent::NotReadable { why, mid_way: false },
        Some(Piece::Data(..)) | None => {
            return Sent::NotReadable { why: stopped(), mid_way: false };
        }
    };
    let broken = |error: &RequestError| Sent::Broken(connect::explain(error));
    let mut storing = match association.store_begin(context, description.request.clone()).await {
        Ok(storing) => storing,
        Err(error) => return broken(&error),
    };
    loop {
        match pieces.recv().await {
            Some(Piece::Data(bytes, false)) => {
                if let Err(error) = storing.data(&bytes).await {
                    return broken(&error);
                }
            }
            Some(Piece::Data(bytes, true)) => {
                return match storing.end(&bytes).await {
                    Ok(status) => Sent::Answered(status, description),
                    Err(error) => broken(&error),
                };
            }
            Some(Piece::Failed(why)) => return Sent::NotReadable { why, mid_way: true },
            Some(Piece::Begin(_)) | None => {
                return Sent::NotReadable { why: stopped(), mid_way: true };
            }
        }
    }
}

/// What an answer means for the delivery. The one place that decides.
pub fn outcome(status: Status, sent: &Description, now: Timestamp, come_back: Timestamp) -> Event {
    let why =
        |kind| Failure { kind, status: Some(status.0), text: format!("partner answered {status}") };
    match status.meaning() {
        Meaning::Success | Meaning::Warning => Event::Accept(Receipt {
            status: status.0,
            transfer_syntax: sent.transfer_syntax.clone(),
            digest: sent.digest,
            at: now,
        }),
        Meaning::ComeBack => {
            Event::Defer { until: come_back, why: why(FailureKind::OutOfResources) }
        }
        // "Pending" is no answer to a C-STORE: the partner is not to be trusted with it.
        Meaning::Refused | Meaning::Pending => Event::Reject { why: why(FailureKind::Refused) },
    }
}
