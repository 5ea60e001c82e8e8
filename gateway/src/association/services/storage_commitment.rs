//! Storage commitment, push model (PS3.4 Annex J), both ways.
//!
//! A sender asks by N-ACTION what this node will keep. The request is on the disk before it is answered; then each instance
//! is judged by what is durable at that moment, once, and the verdict is reported: on the same association when the sender is
//! quiet and has not released it, else by `partner::reporter`. Nothing is committed to that a power cut could take.
//!
//! A partner that was asked (`partner::proof`) may report on an association of its own, then or after a restart. Who it is
//! was settled by admission, and the index believes it only for what it was asked.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use dicom_dictionary_std::{tags, uids};
use gantry_store::dicom::{SopInstanceUid, TransferSyntax};
use gantry_store::index::{
    CommitmentRequest, Held, Index, IndexError, Owed, Reference, Report, Verdict,
};
use gantry_store::spool::{Durability, Spool};
use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, sleep};

use super::storage;
use crate::association::acceptor::Session;
use crate::association::data_set::{self, DataSet, Elements, MAX_INFORMATION};
use crate::association::dimse::{NActionRq, NEventReportRq, Response};
use crate::association::negotiation::PresentationContext;
use crate::association::status::{Meaning, Status};
use crate::association::wire::{Stream, Wire, WireError};
use crate::intake::drain::Wake;
use crate::telemetry::chain;

/// Storage Commitment Push Model SOP Class.
pub const SOP_CLASS: &str = uids::STORAGE_COMMITMENT_PUSH_MODEL;
/// Its one well-known instance (PS3.4 J.3.5).
pub const SOP_INSTANCE: &str = "1.2.840.10008.1.20.1.1";
/// Action Type ID: request storage commitment.
pub const REQUEST: u16 = 1;
/// Event Type ID: all is committed to.
pub const ALL_HELD: u16 = 1;
/// Event Type ID: some is not.
pub const FAILURES: u16 = 2;

/// A sender that releases at once is not in the middle of anything.
const LULL: Duration = Duration::from_millis(200);
/// Reports that one association holds at most.
const WAITING: usize = 4;
/// What was acknowledged a moment ago may not have its row yet.
const SETTLE: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(50);
/// For how long a report is left to the association that asked for it.
const SAME_ASSOCIATION: SignedDuration = SignedDuration::from_secs(10);

/// Who commits to what.
pub struct Commitments {
    /// Rows.
    pub index: Index,
    /// Files that are not yet objects.
    pub spool: Arc<Spool>,
    /// What an acknowledgement stands for here.
    pub durability: Durability,
    /// Who is told of news.
    pub wake: Arc<dyn Wake>,
}

impl fmt::Debug for Commitments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Commitments").field("durability", &self.durability).finish_non_exhaustive()
    }
}

/// What the peer of an association is owed a report of.
#[derive(Debug, Default)]
pub struct Reports {
    waiting: Vec<(u8, TransferSyntax, Owed)>,
    /// By message.
    sent: HashMap<u16, i64>,
    last_message: u16,
}

impl Commitments {
    /// What is committed to of a request, decided once and written down.
    pub async fn judge(&self, owed: &Owed) -> Result<Verdict, IndexError> {
        if let Some(verdict) = &owed.verdict {
            return Ok(verdict.clone());
        }
        let asked = &owed.request.instances;
        let uids: Vec<SopInstanceUid> =
            asked.iter().map(|reference| reference.sop_instance.clone()).collect();
        let until = Instant::now() + SETTLE;
        let verdict = loop {
            let held = self.index.held(&uids).await?;
            let mut verdict = Vec::with_capacity(asked.len());
            let mut unsettled = false;
            for reference in asked {
                let versions = held.get(&reference.sop_instance).map_or(&[][..], Vec::as_slice);
                let judged = self.judge_one(reference, versions).await;
                unsettled |= versions.is_empty() || judged == Some(Status::PROCESSING_FAILURE);
                verdict.push(judged.map(|status| status.0));
            }
            if !unsettled || Instant::now() > until {
                break Verdict(verdict);
            }
            sleep(LOOK).await;
        };
        self.index.judge_commitment(owed.id, &verdict).await?;
        let refused = verdict.0.iter().flatten().count();
        tracing::info!(
            sender = owed.request.sender, transaction = %owed.request.transaction, refused,
            instances = asked.len(), "storage commitment was judged"
        );
        Ok(verdict)
    }

    /// Why an instance is not committed to; `None` if it is.
    async fn judge_one(&self, reference: &Reference, versions: &[Held]) -> Option<Status> {
        if versions.is_empty() {
            return Some(Status::NO_SUCH_INSTANCE);
        }
        let of_class = |held: &&Held| held.sop_class == reference.sop_class;
        let mut held = versions.iter().filter(of_class).peekable();
        if held.peek().is_none() {
            return Some(Status::CLASS_INSTANCE_CONFLICT);
        }
        // What is in quarantine may yet be removed.
        for held in held.filter(|held| !held.quarantined) {
            if held.stored || self.is_durable_in_spool(held).await {
                return None;
            }
        }
        Some(Status::PROCESSING_FAILURE)
    }

    async fn is_durable_in_spool(&self, held: &Held) -> bool {
        let (spool, object, durability) = (self.spool.clone(), held.object, self.durability);
        let looked = tokio::task::spawn_blocking(move || match durability {
            // It has its name since it was synced.
            Durability::Durable => Ok(spool.path(object).exists()),
            Durability::Received => spool.make_durable(object),
        });
        match looked.await {
            Ok(Ok(durable)) => durable,
            Ok(Err(error)) => {
                tracing::error!(%object, error = %chain(&error), "an instance cannot be made durable");
                false
            }
            Err(_) => false,
        }
    }

    /// Takes what a partner reports. What it is answered.
    pub async fn believe(&self, partner: &str, information: &DataSet) -> Status {
        let Some(report) = report_of(information) else { return Status::INVALID_ARGUMENT };
        match self.index.commitment_reported(partner, &report, Timestamp::now()).await {
            Ok(Some(reported)) => {
                let lost = reported.lost.again + reported.lost.set_aside;
                tracing::info!(
                    partner, transaction = %report.transaction, confirmed = reported.confirmed, lost,
                    unsaid = reported.unsaid.map_or(0, |(count, _)| count), "partner reported on storage commitment"
                );
                if reported.lost.again > 0 {
                    // Whoever is told looks at all priorities.
                    self.wake.try_now(partner);
                }
                self.wake.changed();
                Status::SUCCESS
            }
            Ok(None) => {
                tracing::warn!(partner, transaction = %report.transaction, "report on a transaction that this partner was not asked for");
                Status::INVALID_ARGUMENT
            }
            Err(error) => {
                tracing::error!(partner, error = %chain(&error), "report on storage commitment cannot be recorded");
                Status::PROCESSING_FAILURE
            }
        }
    }
}

/// The information of a request (PS3.4 Table J.3-1).
pub fn request(transaction: &str, instances: &[Reference]) -> DataSet {
    let items = instances.iter().map(|reference| item(reference, None)).collect();
    DataSet::default()
        .with(tags::TRANSACTION_UID, transaction)
        .with_items(tags::REFERENCED_SOP_SEQUENCE, items)
}

/// The information of a report, and its event type (PS3.4 Table J.3-2).
pub fn report(owed: &Owed, verdict: &Verdict) -> (u16, DataSet) {
    let judged = || owed.request.instances.iter().zip(&verdict.0);
    let held = judged().filter(|(_, failure)| failure.is_none());
    let held: Vec<_> = held.map(|(reference, _)| item(reference, None)).collect();
    let failed = judged().filter(|(_, failure)| failure.is_some());
    let failed: Vec<_> = failed.map(|(reference, failure)| item(reference, *failure)).collect();
    let event = if failed.is_empty() { ALL_HELD } else { FAILURES };
    let mut information =
        DataSet::default().with(tags::TRANSACTION_UID, owed.request.transaction.as_str());
    for (tag, items) in [(tags::REFERENCED_SOP_SEQUENCE, held), (tags::FAILED_SOP_SEQUENCE, failed)]
    {
        if !items.is_empty() {
            information = information.with_items(tag, items);
        }
    }
    (event, information)
}

fn item(reference: &Reference, failure: Option<u16>) -> Elements {
    let class = tags::REFERENCED_SOP_CLASS_UID;
    let instance = tags::REFERENCED_SOP_INSTANCE_UID;
    let mut item = Elements::from([
        (class, data_set::padded(class, reference.sop_class.as_str())),
        (instance, data_set::padded(instance, reference.sop_instance.as_str())),
    ]);
    if let Some(reason) = failure {
        item.insert(tags::FAILURE_REASON, reason.to_le_bytes().to_vec());
    }
    item
}

/// What a partner's report says; `None` where it names no transaction.
pub fn report_of(information: &DataSet) -> Option<Report> {
    let instance = |item: &Elements| data_set::uid(item, tags::REFERENCED_SOP_INSTANCE_UID);
    let failed = information.items(tags::FAILED_SOP_SEQUENCE).iter().filter_map(|item| {
        let reason = data_set::short(item, tags::FAILURE_REASON);
        Some((instance(item)?, reason.unwrap_or(Status::PROCESSING_FAILURE.0)))
    });
    Some(Report {
        transaction: data_set::uid(information.elements(), tags::TRANSACTION_UID)?,
        held: information
            .items(tags::REFERENCED_SOP_SEQUENCE)
            .iter()
            .filter_map(instance)
            .collect(),
        failed: failed.collect(),
    })
}

/// What a sender asks for; `None` where it does not say.
fn request_of(session: &Session, information: &DataSet) -> Option<CommitmentRequest> {
    let reference = |item: &Elements| {
        Some(Reference {
            sop_class: data_set::uid(item, tags::REFERENCED_SOP_CLASS_UID)?,
            sop_instance: data_set::uid(item, tags::REFERENCED_SOP_INSTANCE_UID)?,
        })
    };
    let items = information.items(tags::REFERENCED_SOP_SEQUENCE).iter();
    let instances: Vec<_> = items.map(reference).collect::<Option<_>>()?;
    (!instances.is_empty()).then_some(())?;
    Some(CommitmentRequest {
        sender: session.sender.name.clone(),
        called: session.sender.called.clone(),
        transaction: data_set::uid(information.elements(), tags::TRANSACTION_UID)?,
        instances,
    })
}

/// Serves an N-ACTION: a sender asks what this node will keep.
pub async fn asked<S: Stream>(
    session: &mut Session,
    wire: &mut Wire<S>,
    context: u8,
    negotiated: &PresentationContext,
    request: &NActionRq,
) -> Result<(), WireError> {
    let information = storage::collect(wire, context, MAX_INFORMATION).await?;
    let status = match take(session, negotiated, request, information).await {
        Ok(owed) => {
            // A sender that asks and asks without a lull is told later, on another association.
            if session.reports.waiting.len() < WAITING {
                let syntax = negotiated.transfer_syntax.clone();
                session.reports.waiting.push((context, syntax, owed));
            }
            Status::SUCCESS
        }
        Err(status) => {
            tracing::warn!(association = session.number, sender = session.sender.name, %status, "request for storage commitment refused");
            status
        }
    };
    wire.send_command(context, &request.response(status)).await
}

async fn take(
    session: &Session,
    negotiated: &PresentationContext,
    request: &NActionRq,
    information: Option<Vec<u8>>,
) -> Result<Owed, Status> {
    if !session.sender.may_store || !session.roles.scu {
        return Err(Status::NOT_AUTHORISED);
    }
    if request.sop_class.as_str() != SOP_CLASS || request.sop_instance.as_str() != SOP_INSTANCE {
        return Err(Status::NO_SUCH_INSTANCE);
    }
    if request.action_type != REQUEST {
        return Err(Status::NO_SUCH_ACTION);
    }
    let information = information.ok_or(Status::RESOURCE_LIMITATION)?;
    let information = DataSet::parse(&information, &negotiated.transfer_syntax)
        .map_err(|_| Status::INVALID_ARGUMENT)?;
    let wanted = request_of(session, &information).ok_or(Status::INVALID_ARGUMENT)?;
    let now = Timestamp::now();
    let index = &session.node.commitments.index;
    match index.take_commitment(&wanted, now + SAME_ASSOCIATION, now).await {
        Ok(owed) => owed.ok_or(Status::DUPLICATE_TRANSACTION),
        Err(error) => {
            tracing::error!(sender = wanted.sender, error = %chain(&error), "request for storage commitment cannot be recorded");
            Err(Status::PROCESSING_FAILURE)
        }
    }
}

/// Reports what is owed, if the peer says nothing: whoever goes on, or releases, is served first.
pub async fn report_in_a_lull<S: Stream>(
    session: &mut Session,
    wire: &mut Wire<S>,
) -> Result<(), WireError> {
    while !session.reports.waiting.is_empty() && !wire.arrived(LULL).await? {
        let (context, syntax, owed) = session.reports.waiting.remove(0);
        // What cannot be judged now is due later, as is what is not answered.
        let Ok(verdict) = session.node.commitments.judge(&owed).await else { continue };
        let (event_type, information) = report(&owed, &verdict);
        let reports = &mut session.reports;
        reports.last_message = reports.last_message.checked_add(1).unwrap_or(1);
        reports.sent.insert(reports.last_message, owed.id);
        let request = event_report(reports.last_message, event_type);
        wire.send_command(context, &request.encode()).await?;
        wire.send_data(context, &information.encode(&syntax), true).await?;
    }
    Ok(())
}

/// A report; its message is numbered when it is sent.
pub fn event_report(message_id: u16, event_type: u16) -> NEventReportRq {
    NEventReportRq {
        message_id,
        sop_class: known(SOP_CLASS),
        sop_instance: known(SOP_INSTANCE),
        event_type,
    }
}

/// One of the two UIDs above.
pub fn known<U: std::str::FromStr<Err = gantry_store::dicom::InvalidUid>>(uid: &'static str) -> U {
    #[expect(clippy::expect_used, reason = "a constant, which a test parses")]
    uid.parse().expect("a UID")
}

/// Takes the answer to a report.
pub async fn answered(session: &mut Session, response: &Response) {
    let Some(id) = session.reports.sent.remove(&response.message_id) else { return };
    if !matches!(response.status.meaning(), Meaning::Success | Meaning::Warning) {
        tracing::warn!(sender = session.sender.name, status = %response.status, "sender did not take a report; it is made again");
        return;
    }
    if let Err(error) = session.node.commitments.index.report_ended(id).await {
        tracing::error!(error = %chain(&error), "a report that was taken is made again");
    }
}

/// Serves an N-EVENT-REPORT: a partner says what it keeps of what it was asked.
pub async fn told<S: Stream>(
    session: &Session,
    wire: &mut Wire<S>,
    context: u8,
    negotiated: &PresentationContext,
    request: &NEventReportRq,
) -> Result<(), WireError> {
    let information = storage::collect(wire, context, MAX_INFORMATION).await?;
    let status = if !session.sender.partner || !session.roles.scp {
        Status::NOT_AUTHORISED
    } else {
        let syntax = &negotiated.transfer_syntax;
        let parsed = information.map(|information| DataSet::parse(&information, syntax));
        match parsed {
            Some(Ok(information)) => {
                session.node.commitments.believe(&session.sender.name, &information).await
            }
            Some(Err(_)) => Status::INVALID_ARGUMENT,
            None => Status::RESOURCE_LIMITATION,
        }
    };
    wire.send_command(context, &request.response(status)).await
}

#[cfg(test)]
mod tests {
    use gantry_store::dicom::{SopClassUid, Uid};

    use super::*;

    #[test]
    fn a_report_says_what_is_kept_and_why_the_rest_is_not() {
        let reference = |uid: &str| Reference {
            sop_class: uids::CT_IMAGE_STORAGE.parse().unwrap(),
            sop_instance: uid.parse().unwrap(),
        };
        let owed = Owed {
            id: 1,
            request: CommitmentRequest {
                sender: "pacs".to_owned(),
                called: "GANTRY".parse().unwrap(),
                transaction: "2.25.7".parse().unwrap(),
                instances: vec![reference("2.25.1"), reference("2.25.2")],
            },
            asked_at: Timestamp::UNIX_EPOCH,
            tries: 0,
            verdict: None,
        };

        let (event, information) = report(&owed, &Verdict(vec![None, Some(0x0112)]));
        let (all, _) = report(&owed, &Verdict(vec![None, None]));

        assert_eq!((event, all), (FAILURES, ALL_HELD));
        let syntax = TransferSyntax::implicit_vr_little_endian();
        let read = DataSet::parse(&information.encode(&syntax), &syntax).unwrap();
        let expected = Report {
            transaction: "2.25.7".parse().unwrap(),
            held: vec!["2.25.1".parse().unwrap()],
            failed: vec![("2.25.2".parse().unwrap(), 0x0112)],
        };
        assert_eq!(report_of(&read), Some(expected));
    }

    #[test]
    fn the_service_is_named_by_proper_uids() {
        assert_eq!(known::<SopClassUid>(SOP_CLASS).as_str(), SOP_CLASS);
        assert_eq!(known::<SopInstanceUid>(SOP_INSTANCE).as_str(), SOP_INSTANCE);
        assert!(report_of(&DataSet::default()).is_none());
        let _: Uid = known(SOP_CLASS);
    }
}
