//! The accepting role of one association, from its first byte to its last.
//!
//! Negotiation happens under the handshake limit, everything after under the idle limit: a peer must send something
//! complete within it, so a half-open one is gone soon, and what it had begun goes with it. When the node stops, the
//! instance in hand is finished and answered, and the association aborted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use dicom_ul::pdu::{AssociationAC, AssociationRQ, Pdu, RequestorRoles};
use gantry_store::dicom::SopClassUid;
use tokio_util::sync::CancellationToken;

use super::admission::{self, Rejection, Sender};
use super::dimse::{
    self, CFindRq, CGetRq, CMoveRq, MAX_COMMAND, NActionRq, NEventReportRq, Request,
};
use super::negotiation::{self, Contexts, Model, Operation};
use super::services::storage_commitment::{Commitments, Reports};
use super::services::{find, retrieve, storage, storage_commitment, verification};
use super::status::Status;
use super::wire::{Event, Stream, Wire, WireError};
use crate::config::{Config, Fingerprint};
use crate::intake::{Intake, Receiver};
use crate::partner::library::Library;
use crate::telemetry::chain;
use crate::telemetry::metrics::Metrics;

/// What all associations of a node share.
#[derive(Debug)]
pub struct Shared {
    /// Who may do what, and within which limits.
    pub config: Arc<Config>,
    /// Where instances go.
    pub intake: Arc<Intake>,
    /// Who commits to what.
    pub commitments: Arc<Commitments>,
    /// What may leave of what is kept.
    pub library: Arc<Library>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Said when the node stops.
    pub stop: CancellationToken,
}

/// A connection that has passed the listener.
#[derive(Debug)]
pub struct Arrival {
    /// Numbers associations in the log.
    pub number: u64,
    /// The listener it came through.
    pub listener: String,
    /// Where it came from.
    pub peer: SocketAddr,
    /// The certificate that it showed; `None` on a plaintext listener.
    pub certificate: Option<Fingerprint>,
    /// How many associations the listener holds at most, if it holds that many now: this one is then turned away.
    pub over_limit: Option<usize>,
}

/// An association that was accepted.
#[derive(Debug)]
pub struct Session {
    /// What all associations share.
    pub node: Arc<Shared>,
    /// Numbers associations in the log.
    pub number: u64,
    /// The listener it came through.
    pub listener: String,
    /// Who asked for it.
    pub sender: Sender,
    /// Its part in storage commitment.
    pub roles: RequestorRoles,
    /// Storage SOP classes of which it takes instances on this association (C-GET).
    pub provides: Vec<SopClassUid>,
    /// What it is owed a report of.
    pub(super) reports: Reports,
    receiver: Option<Receiver>,
    instances: u64,
}

impl Session {
    /// The line into the spool, opened with the first instance.
    pub(super) fn receiver(&mut self) -> &mut Receiver {
        self.receiver.get_or_insert_with(|| self.node.intake.receiver())
    }

    /// Counts an instance that was taken in.
    pub(super) fn received(&mut self) {
        self.instances += 1;
    }
}

/// Serves a connection until it ends.
pub async fn serve<S: Stream>(stream: S, arrival: Arrival, node: Arc<Shared>) {
    let limits = node.config.limits;
    let mut wire = Wire::new(stream, limits.max_pdu, limits.handshake_timeout);
    let (number, peer) = (arrival.number, arrival.peer);
    match negotiate(&mut wire, &arrival, &node).await {
        Ok(Ok(Negotiated { sender, contexts, roles, provides })) => {
            tracing::debug!(association = number, %peer, sender = sender.name, calling = %sender.calling, called = %sender.called, "association accepted");
            let mut session = Session {
                node,
                number,
                listener: arrival.listener,
                sender,
                roles,
                provides,
                reports: Reports::default(),
                receiver: None,
                instances: 0,
            };
            wire.set_patience(limits.idle_timeout);
            let outcome = converse(&mut session, &mut wire, &contexts).await;
            let instances = session.instances;
            let sender = session.sender.name.clone();
            // What was begun and not ended leaves the spool now, whatever the peer still does.
            drop(session);
            match outcome {
                Ok(()) => {
                    tracing::info!(association = number, %peer, sender, instances, "association ended");
                    wire.await_close(limits.release_timeout).await;
                }
                Err(error) => {
                    tracing::warn!(association = number, %peer, sender, instances, error = %chain(&error), "association broken off");
                    give_up(wire, &error).await;
                }
            }
        }
        Ok(Err(rejection)) => {
            tracing::warn!(association = number, %peer, listener = arrival.listener, reason = %rejection, "association rejected");
            node.metrics
                .rejected
                .get_or_create(&crate::telemetry::metrics::ByListener {
                    listener: arrival.listener,
                })
                .inc();
            if wire.send(&Pdu::AssociationRJ(rejection.pdu())).await.is_ok() {
                wire.await_close(limits.release_timeout).await;
            }
        }
        Err(WireError::Closed) => {
            tracing::debug!(association = number, %peer, "connection closed before it asked for anything");
        }
        Err(error) => {
            tracing::warn!(association = number, %peer, listener = arrival.listener, error = %chain(&error), "no association");
            node.metrics
                .rejected
                .get_or_create(&crate::telemetry::metrics::ByListener {
                    listener: arrival.listener,
                })
                .inc();
            give_up(wire, &error).await;
        }
    }
}

async fn give_up<S: Stream>(wire: Wire<S>, error: &WireError) {
    match error.abort_reason() {
        Some(reason) => wire.abort(reason).await,
        None => wire.close().await,
    }
}

/// What an association was accepted with.
struct Negotiated {
    sender: Sender,
    contexts: Contexts,
    roles: RequestorRoles,
    provides: Vec<SopClassUid>,
}

async fn negotiate<S: Stream>(
    wire: &mut Wire<S>,
    arrival: &Arrival,
    node: &Shared,
) -> Result<Result<Negotiated, Rejection>, WireError> {
    let request = match wire.next().await? {
        Event::Pdu(Pdu::AssociationRQ(request)) => request,
        Event::Pdu(_) => return Err(WireError::Unexpected("a PDU before the association request")),
        Event::Data(_) => return Err(WireError::Unexpected("data before the association request")),
    };
    let sender = match judge(&request, arrival, node) {
        Ok(sender) => sender,
        Err(rejection) => return Ok(Err(rejection)),
    };
    let (presentation_contexts, contexts) =
        negotiation::answer(&request.presentation_contexts, sender.services);
    wire.peer_accepts(negotiation::announced_max_pdu(&request.user_variables));
    let (roles, proposed) =
        negotiation::roles_in(&request.user_variables, storage_commitment::SOP_CLASS);
    let mut user_variables = negotiation::user_information(node.config.limits.max_pdu);
    if proposed {
        user_variables.push(negotiation::roles_item(storage_commitment::SOP_CLASS, roles));
    }
    // Who may not retrieve is sent nothing, whatever it would take.
    let answered = if sender.services.retrieve {
        negotiation::storage_roles(&request.user_variables)
    } else {
        Vec::new()
    };
    let (provides, items): (Vec<_>, Vec<_>) = answered.into_iter().unzip();
    user_variables.extend(items);
    wire.send(&Pdu::AssociationAC(AssociationAC {
        protocol_version: 1,
        calling_ae_title: request.calling_ae_title,
        called_ae_title: request.called_ae_title,
        application_context_name: super::APPLICATION_CONTEXT.to_owned(),
        presentation_contexts,
        user_variables,
    }))
    .await?;
    Ok(Ok(Negotiated { sender, contexts, roles, provides }))
}

fn judge(request: &AssociationRQ, arrival: &Arrival, node: &Shared) -> Result<Sender, Rejection> {
    // PS3.8 9.3.2: a receiver of version 1 tests that bit and no other.
    let version_1 = request.protocol_version & 1 == 1;
    let context = request.application_context_name.trim_end_matches(['\0', ' ']);
    if !version_1 || context != super::APPLICATION_CONTEXT {
        return Err(Rejection::ApplicationContext);
    }
    let sender = admission::admit(
        &node.config,
        &request.calling_ae_title,
        &request.called_ae_title,
        arrival.certificate,
    )?;
    match arrival.over_limit {
        Some(limit) => Err(Rejection::Busy(limit)),
        None => Ok(sender),
    }
}

/// The conversation after acceptance: whole commands, each served before the next is read.
async fn converse<S: Stream>(
    session: &mut Session,
    wire: &mut Wire<S>,
    contexts: &Contexts,
) -> Result<(), WireError> {
    let stop = session.node.stop.clone();
    loop {
        storage_commitment::report_in_a_lull(session, wire).await?;
        let (context, command) = tokio::select! {
            biased;
            () = stop.cancelled() => return Err(WireError::Stopping),
            message = next_command(wire) => match message? {
                Some(message) => message,
                None => return wire.send(&Pdu::ReleaseRP).await,
            },
        };
        let negotiated = contexts
            .get(&context)
            .ok_or(WireError::Unexpected("a message on a context that was not accepted"))?;
        let request = Request::parse(&command).map_err(|error| {
            tracing::warn!(association = session.number, error = %chain(&error), "command refused");
            WireError::Malformed("command set")
        })?;
        let service = negotiated.abstract_syntax.as_str();
        let verification = service == dicom_dictionary_std::uids::VERIFICATION;
        let commitment = service == storage_commitment::SOP_CLASS;
        let operation = if matches!(request, Request::Action(_)) { 0x0130 } else { 0x0100 };
        let model = Model::of(service);
        let operation_is = |operation| model.is_some_and(|model| model.operation == operation);
        let asked_by = match request {
            Request::Find(_) => 0x0020,
            Request::Move(_) => 0x0021,
            _ => 0x0010,
        };
        match request {
            Request::Echo(request) if verification => {
                verification::serve(wire, context, &request).await?;
            }
            Request::Action(request) if commitment => {
                storage_commitment::asked(session, wire, context, negotiated, &request).await?;
            }
            Request::EventReport(request) if commitment => {
                storage_commitment::told(session, wire, context, negotiated, &request).await?;
            }
            Request::Answered(response) => storage_commitment::answered(session, &response).await,
            Request::Store(request) if !verification && !commitment && model.is_none() => {
                storage::serve(session, wire, context, negotiated, request).await?;
            }
            Request::Store(request) => {
                storage::discard(wire, context).await?;
                let status = Status::SOP_CLASS_NOT_SUPPORTED;
                wire.send_command(context, &request.response(status, status.words())).await?;
            }
            Request::BadStore { message_id, status } => {
                storage::discard(wire, context).await?;
                wire.send_command(
                    context,
                    &dimse::store_refusal(message_id, status, status.words()),
                )
                .await?;
            }
            // Of what has been answered to its end already.
            Request::Cancel(_) => {}
            Request::Find(request) if operation_is(Operation::Find) => {
                Box::pin(find::serve(session, wire, context, negotiated, &request)).await?;
            }
            Request::Get(request) if operation_is(Operation::Get) => {
                Box::pin(retrieve::get(session, wire, context, contexts, &request)).await?;
            }
            Request::Move(request) if operation_is(Operation::Move) => {
                let moving = retrieve::move_to(session, wire, context, negotiated, &request);
                Box::pin(moving).await?;
            }
            Request::BadQuery { command, message_id, status, has_data_set } => {
                // On a context of another service it is no query at all.
                let is_query = Model::of(negotiated.abstract_syntax.as_str()).is_some();
                let status = if is_query { status } else { Status::UNRECOGNISED_OPERATION };
                refuse(wire, context, (command, message_id, has_data_set), status).await?;
            }
            // On a context of another service.
            Request::Find(CFindRq { message_id, .. })
            | Request::Get(CGetRq { message_id, .. })
            | Request::Move(CMoveRq { message_id, .. }) => {
                refuse_unknown(wire, context, (asked_by, message_id, true)).await?;
            }
            Request::Action(NActionRq { message_id, .. })
            | Request::EventReport(NEventReportRq { message_id, .. }) => {
                refuse_unknown(wire, context, (operation, message_id, true)).await?;
            }
            Request::Echo(request) => {
                refuse_unknown(wire, context, (0x0030, request.message_id, false)).await?;
            }
            Request::Other { command, message_id, has_data_set } => {
                refuse_unknown(wire, context, (command, message_id, has_data_set)).await?;
            }
        }
    }
}

/// Refuses an operation that its context's service does not have.
async fn refuse_unknown<S: Stream>(
    wire: &mut Wire<S>,
    context: u8,
    request: (u16, u16, bool),
) -> Result<(), WireError> {
    refuse(wire, context, request, Status::UNRECOGNISED_OPERATION).await
}

/// Refuses an operation: its Command Field (0000,0100), Message ID (0000,0110), and whether a data set follows, which is passed
/// over.
async fn refuse<S: Stream>(
    wire: &mut Wire<S>,
    context: u8,
    (command, message_id, has_data_set): (u16, u16, bool),
    status: Status,
) -> Result<(), WireError> {
    if has_data_set {
        storage::discard(wire, context).await?;
    }
    let answer = dimse::refusal(command, message_id, status, status.words());
    wire.send_command(context, &answer).await
}

/// Whether the peer wants no more of what it asked for by this message. Nothing else may come while that is answered.
pub(super) async fn is_cancelled<S: Stream>(
    wire: &mut Wire<S>,
    message_id: u16,
    within: Duration,
) -> Result<bool, WireError> {
    if !wire.arrived(within).await? {
        return Ok(false);
    }
    let Some((_, command)) = next_command(wire).await? else {
        return Err(WireError::Unexpected("a release while a request is answered"));
    };
    match Request::parse(&command) {
        Ok(Request::Cancel(cancel)) => Ok(cancel.message_id == message_id),
        Ok(_) => Err(WireError::Unexpected("a request while another one is answered")),
        Err(_) => Err(WireError::Malformed("command set")),
    }
}

/// The next command, put together from its fragments; `None` when the peer asks for release. Safe to drop between PDUs
/// only, so `converse` drops it only to end the association.
pub(super) async fn next_command<S: Stream>(
    wire: &mut Wire<S>,
) -> Result<Option<(u8, BytesMut)>, WireError> {
    let mut command = BytesMut::new();
    let mut of = None;
    loop {
        let value = match wire.next().await? {
            Event::Pdu(Pdu::ReleaseRQ) if of.is_none() => return Ok(None),
            Event::Pdu(_) => return Err(WireError::Unexpected("a PDU between messages")),
            Event::Data(value) => value,
        };
        if !value.command || of.is_some_and(|context| context != value.context) {
            return Err(WireError::Unexpected("a data set without its command"));
        }
        of = Some(value.context);
        if command.len() + value.fragment.len() > MAX_COMMAND {
            return Err(WireError::Malformed("command longer than any"));
        }
        command.extend_from_slice(&value.fragment);
        if value.last {
            return Ok(Some((value.context, command)));
        }
    }
}
