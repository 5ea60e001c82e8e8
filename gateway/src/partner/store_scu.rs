//! Sending instances to a partner (PS3.4 Annex B, SCU): which encoding it gets, the C-STORE, and what the answer means.

use std::collections::BTreeSet;
use std::time::Instant;

use bytes::Bytes;
use dicom_core::dictionary::UidDictionary as _;
use dicom_dictionary_std::{StandardSopClassDictionary, uids};
use gantry_store::dicom::{SopClassUid, TransferSyntax};
use gantry_store::index::{Claim, Event, Failure, FailureKind, Receipt};
use gantry_store::sealed::SealedError;
use jiff::Timestamp;

use super::connect::{self, Association};
use super::flow::Throttle;
use crate::association::dimse::CStoreRq;
use crate::association::requestor::{MAX_CONTEXTS, RequestError};
use crate::association::status::{Meaning, Status};
use crate::config::Compress;
use crate::protect::Outgoing;

/// Which kinds of object an association is asked for, each in the encoding that it is kept in.
pub type Wanted = BTreeSet<(SopClassUid, TransferSyntax)>;

/// The presentation contexts to propose: for each kind of object its own encoding alone, so that the answer says whether
/// the partner takes that one, and those that it may be converted to.
pub fn contexts(wanted: &Wanted, compress: Compress) -> Vec<(SopClassUid, Vec<TransferSyntax>)> {
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
    if let (true, Some(jpeg_ls)) = (compress != Compress::Never, jpeg_ls()) {
        for (sop_class, _) in wanted.iter().filter(|(sop_class, _)| is_image(sop_class)) {
            propose(sop_class, jpeg_ls.clone());
        }
    }
    contexts.truncate(MAX_CONTEXTS);
    contexts
}

/// JPEG-LS Lossless, the one that is compressed to.
fn jpeg_ls() -> Option<TransferSyntax> {
    uids::JPEGLS_LOSSLESS.parse().ok()
}

/// Whether objects of a class have Pixel Data, as far as its name says so. Of a private class nobody knows.
fn is_image(sop_class: &SopClassUid) -> bool {
    StandardSopClassDictionary
        .by_uid(sop_class.as_str())
        .is_none_or(|class| class.name.contains("Image"))
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

/// The encoding that an instance goes in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Choice {
    /// The one to try first.
    pub encoding: Encoding,
    /// How it goes uncompressed, where it should be compressed and that is not to be had.
    pub instead: Option<Encoding>,
    /// How it goes uncompressed, where protection leaves it in another encoding than it is kept in.
    pub uncompressed: Option<Encoding>,
}

/// Chooses the encoding: as kept where the partner takes that, else one that it may be converted to. A data set of odd
/// length, which the standard does not know (PS3.5 7.1), is always converted, which makes it even: partners abort at it.
/// What would go uncompressed is compressed if that `pays`, and also where the partner takes nothing else.
pub fn choose(
    takes: impl Fn(&TransferSyntax) -> Option<u8>,
    claim: &Claim,
    compress: Compress,
    pays: bool,
) -> Option<Choice> {
    let kept = &claim.transfer_syntax;
    let as_kept = takes(kept).filter(|_| claim.length.is_multiple_of(2)).map(Encoding::AsKept);
    let is_small = !kept.is_native() || kept.uid() == uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN;
    let uncompressed =
        [TransferSyntax::explicit_vr_little_endian(), TransferSyntax::implicit_vr_little_endian()]
            .into_iter()
            .find_map(|to| takes(&to).map(|context| Encoding::Converted(context, to)));
    let plain = as_kept.clone().or_else(|| uncompressed.clone());
    let compressed = jpeg_ls()
        .filter(|_| compress != Compress::Never && is_image(&claim.sop_class))
        .and_then(|to| takes(&to).map(|context| Encoding::Converted(context, to)));
    match (plain, compressed) {
        (Some(plain), Some(compressed)) if pays && !(is_small && as_kept.is_some()) => {
            Some(Choice { encoding: compressed, instead: Some(plain), uncompressed })
        }
        (Some(encoding), _) | (None, Some(encoding)) => {
            Some(Choice { encoding, instead: None, uncompressed })
        }
        (None, None) => None,
    }
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
    /// The presentation context that it goes on.
    pub context: u8,
    /// Its length in bytes.
    pub length: u64,
    /// The request that its data set follows; the message id is set when it is sent.
    pub request: CStoreRq,
    /// How it is encoded.
    pub transfer_syntax: TransferSyntax,
    /// SHA-256 of what is sent.
    pub digest: gantry_store::facts::Digest,
}

impl Description {
    /// What is said of an instance that goes on this context.
    pub fn new(outgoing: &Outgoing, context: u8) -> Result<Self, SealedError> {
        Ok(Self {
            context,
            length: outgoing.length(),
            request: CStoreRq {
                message_id: 0,
                sop_class: outgoing.sop_class().clone(),
                sop_instance: outgoing.sop_instance().clone(),
                priority: 0,
            },
            transfer_syntax: outgoing.transfer_syntax().clone(),
            digest: outgoing.digest()?,
        })
    }
}

/// How one try went.
#[derive(Debug)]
pub enum Sent {
    /// The partner answered what began to go then.
    Answered(Status, Box<Description>, Instant),
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

/// Sends one instance, as its pieces come, each when it may go.
pub async fn send(
    association: &mut Association,
    pieces: &mut tokio::sync::mpsc::Receiver<Piece>,
    throttle: &mut Throttle<'_>,
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
    let begun = Instant::now();
    let mut storing =
        match association.store_begin(description.context, description.request.clone()).await {
            Ok(storing) => storing,
            Err(error) => return broken(&error),
        };
    loop {
        match pieces.recv().await {
            Some(Piece::Data(bytes, false)) => {
                throttle.wait(bytes.len()).await;
                if let Err(error) = storing.data(&bytes).await {
                    return broken(&error);
                }
            }
            Some(Piece::Data(bytes, true)) => {
                throttle.wait(bytes.len()).await;
                return match storing.end(&bytes).await {
                    Ok(status) => Sent::Answered(status, description, begun),
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

#[cfg(test)]
mod tests {
    use gantry_store::facts::{ObjectId, Priority};

    use super::*;

    const EXPLICIT: &str = uids::EXPLICIT_VR_LITTLE_ENDIAN;
    const IMPLICIT: &str = uids::IMPLICIT_VR_LITTLE_ENDIAN;
    const JPEG_LS: &str = uids::JPEGLS_LOSSLESS;
    const JPEG: &str = uids::JPEG_LOSSLESS_SV1;

    fn claim(sop_class: &str, syntax: &str, length: u64) -> Claim {
        Claim {
            delivery: "1".parse().unwrap(),
            transfer: "01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap(),
            object: ObjectId::new(),
            sop_class: sop_class.parse().unwrap(),
            sop_instance: "1.2.3".parse().unwrap(),
            transfer_syntax: syntax.parse().unwrap(),
            length,
            priority: Priority::Routine,
            attempt: 1,
            deaths: 0,
            stored: false,
            lease_ends: Timestamp::MAX,
            since: Timestamp::UNIX_EPOCH,
            protection: None,
        }
    }

    /// What is tried first and what then, by the transfer syntax.
    fn chosen(
        claim: &Claim,
        taken: &[&str],
        compress: Compress,
        pays: bool,
    ) -> Option<(String, Option<String>)> {
        let takes = |syntax: &TransferSyntax| {
            taken.iter().position(|taken| *taken == syntax.uid()).map(|nth| nth as u8)
        };
        let choice = choose(takes, claim, compress, pays)?;
        let name = |encoding: &Encoding| match encoding {
            Encoding::AsKept(_) => "kept".to_owned(),
            Encoding::Converted(_, to) => to.uid().to_owned(),
        };
        Some((name(&choice.encoding), choice.instead.as_ref().map(name)))
    }

    #[test]
    fn an_instance_goes_as_kept_unless_something_else_is_better_or_all_there_is() {
        let all = [EXPLICIT, IMPLICIT, JPEG_LS, JPEG];
        let ct = uids::CT_IMAGE_STORAGE;
        for (kept, length, taken, compress, pays, expected) in [
            (EXPLICIT, 8, &all[..], Compress::Auto, false, Some(("kept", None))),
            (EXPLICIT, 8, &all, Compress::Auto, true, Some((JPEG_LS, Some("kept")))),
            (EXPLICIT, 8, &all, Compress::Never, true, Some(("kept", None))),
            (EXPLICIT, 7, &all, Compress::Auto, true, Some((JPEG_LS, Some(EXPLICIT)))),
            (EXPLICIT, 7, &all, Compress::Auto, false, Some((EXPLICIT, None))),
            (EXPLICIT, 8, &[IMPLICIT], Compress::Always, true, Some((IMPLICIT, None))),
            (EXPLICIT, 8, &[JPEG_LS], Compress::Auto, false, Some((JPEG_LS, None))),
            (EXPLICIT, 8, &[JPEG_LS], Compress::Never, false, None),
            (JPEG, 8, &all, Compress::Always, true, Some(("kept", None))),
            (JPEG, 8, &[IMPLICIT, JPEG_LS], Compress::Auto, true, Some((JPEG_LS, Some(IMPLICIT)))),
            (JPEG, 8, &[IMPLICIT, JPEG_LS], Compress::Auto, false, Some((IMPLICIT, None))),
            (JPEG, 8, &[], Compress::Always, true, None),
        ] {
            let chosen = chosen(&claim(ct, kept, length), taken, compress, pays);

            let expected = expected.map(|(first, then): (&str, Option<&str>)| {
                (first.to_owned(), then.map(str::to_owned))
            });
            assert_eq!(chosen, expected, "{kept} {length} {taken:?} {compress:?} {pays}");
        }
        let report = claim(uids::BASIC_TEXT_SR_STORAGE, EXPLICIT, 8);
        let chosen = chosen(&report, &all, Compress::Always, true);
        assert_eq!(chosen, Some(("kept".to_owned(), None)));
    }

    #[test]
    fn images_are_offered_in_jpeg_ls_unless_the_partner_is_never_sent_that() {
        let kind = |class: &str| (class.parse().unwrap(), EXPLICIT.parse().unwrap());
        let wanted =
            Wanted::from([kind(uids::CT_IMAGE_STORAGE), kind(uids::BASIC_TEXT_SR_STORAGE)]);
        let offered = |compress| {
            let contexts = contexts(&wanted, compress);
            let offered = contexts.iter().filter(|(_, syntaxes)| syntaxes[0].uid() == JPEG_LS);
            (contexts.len(), offered.map(|(class, _)| class.to_string()).collect::<Vec<_>>())
        };

        assert_eq!(offered(Compress::Never), (4, Vec::new()));
        assert_eq!(offered(Compress::Auto), (5, vec![uids::CT_IMAGE_STORAGE.to_owned()]));
    }
}
