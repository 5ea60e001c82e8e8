//! Storage (PS3.4 Annex B): C-STORE, from the request to its answer.
//!
//! The data set is handed to intake as it comes. When something is wrong with it the rest is still read and thrown away,
//! because the answer belongs behind it; a sender that goes on for longer than an instance may be is aborted.

use bytes::Bytes;
use gantry_store::facts::{Facts, Origin};

use crate::association::acceptor::Session;
use crate::association::dimse::CStoreRq;
use crate::association::negotiation::PresentationContext;
use crate::association::status::Status;
use crate::association::wire::{DataValue, Event, Stream, Wire, WireError};
use crate::intake::{Announced, IntakeError};
use crate::telemetry::chain;
use crate::telemetry::metrics::{BySender, ByStatus};

/// The most of a data set that is read only to be thrown away.
const DISCARD: u64 = 1 << 30;

/// Takes in one instance and answers.
pub async fn serve<S: Stream>(
    session: &mut Session,
    wire: &mut Wire<S>,
    context: u8,
    negotiated: &PresentationContext,
    request: CStoreRq,
) -> Result<(), WireError> {
    let result = match authorise(session, negotiated, &request) {
        Ok(()) => {
            let announced = Announced {
                origin: origin(session),
                transfer_syntax: negotiated.transfer_syntax.clone(),
                named: Some((request.sop_class.clone(), request.sop_instance.clone())),
                study: None,
            };
            receive(session, wire, context, announced).await?
        }
        Err(status) => {
            discard(wire, context).await?;
            Err(Refusal { status, comment: status.words().to_owned() })
        }
    };

    let sender = session.sender.name.clone();
    match result {
        Ok(facts) => {
            session.node.metrics.received.get_or_create(&BySender { sender: sender.clone() }).inc();
            session
                .node
                .metrics
                .received_bytes
                .get_or_create(&BySender { sender })
                .inc_by(facts.length);
            session.received();
            wire.send_command(context, &request.response(Status::SUCCESS, "")).await
        }
        Err(Refusal { status, comment }) => {
            tracing::warn!(
                association = session.number, sender, status = %status, sop_class = %request.sop_class,
                instance = %request.sop_instance, reason = comment, "instance refused"
            );
            let status_label = format!("{:04X}", status.0);
            session
                .node
                .metrics
                .refused
                .get_or_create(&ByStatus { sender, status: status_label })
                .inc();
            wire.send_command(context, &request.response(status, &comment)).await
        }
    }
}

/// What the sender is told instead of "success".
struct Refusal {
    status: Status,
    comment: String,
}

impl From<IntakeError> for Refusal {
    fn from(error: IntakeError) -> Self {
        Self { status: Status::from(&error), comment: chain(&error).to_string() }
    }
}

fn authorise(
    session: &Session,
    negotiated: &PresentationContext,
    request: &CStoreRq,
) -> Result<(), Status> {
    if request.sop_class != negotiated.abstract_syntax {
        return Err(Status::SOP_CLASS_NOT_SUPPORTED);
    }
    if session.sender.may_store { Ok(()) } else { Err(Status::NOT_AUTHORISED) }
}

fn origin(session: &Session) -> Origin {
    Origin {
        listener: session.listener.clone(),
        sender: session.sender.name.clone(),
        from_partner: session.sender.partner,
        calling_ae_title: session.sender.calling.clone(),
        called_ae_title: session.sender.called.clone(),
        addressed_to: None,
        fetched_like: Vec::new(),
    }
}

async fn receive<S: Stream>(
    session: &mut Session,
    wire: &mut Wire<S>,
    context: u8,
    announced: Announced,
) -> Result<Result<Box<Facts>, Refusal>, WireError> {
    let receiver = session.receiver();
    if let Err(error) = receiver.begin(announced).await {
        discard(wire, context).await?;
        return Ok(Err(error.into()));
    }
    loop {
        let (batch, last) = next_batch(wire, context).await?;
        if let Err(error) = receiver.data(batch).await {
            if !last {
                discard(wire, context).await?;
            }
            return Ok(Err(error.into()));
        }
        if last {
            return Ok(receiver.end().await.map_err(Refusal::from));
        }
    }
}

/// What has arrived of the data set: at least one fragment, and all further ones that are here already.
async fn next_batch<S: Stream>(
    wire: &mut Wire<S>,
    context: u8,
) -> Result<(Vec<Bytes>, bool), WireError> {
    let mut value = fragment(wire.next().await?, context)?;
    let mut batch = Vec::new();
    loop {
        batch.push(value.fragment);
        if value.last {
            return Ok((batch, true));
        }
        match wire.next_received()? {
            Some(event) => value = fragment(event, context)?,
            None => return Ok((batch, false)),
        }
    }
}

fn fragment(event: Event, context: u8) -> Result<DataValue, WireError> {
    match event {
        Event::Data(value) if !value.command && value.context == context => Ok(value),
        Event::Data(_) => {
            Err(WireError::Unexpected("a command, or another context, inside a data set"))
        }
        Event::Pdu(_) => Err(WireError::Unexpected("a PDU inside a data set")),
    }
}

/// Reads a data set to its end, and keeps it if it is no longer than `most`.
pub(crate) async fn collect<S: Stream>(
    wire: &mut Wire<S>,
    context: u8,
    most: usize,
) -> Result<Option<Vec<u8>>, WireError> {
    let mut whole = Vec::new();
    loop {
        let (batch, last) = next_batch(wire, context).await?;
        for fragment in batch {
            if whole.len() + fragment.len() > most {
                if !last {
                    discard(wire, context).await?;
                }
                return Ok(None);
            }
            whole.extend_from_slice(&fragment);
        }
        if last {
            return Ok(Some(whole));
        }
    }
}

/// Reads a data set to its end without keeping it.
pub(crate) async fn discard<S: Stream>(wire: &mut Wire<S>, context: u8) -> Result<(), WireError> {
    let mut discarded = 0;
    loop {
        let (batch, last) = next_batch(wire, context).await?;
        discarded += batch.iter().map(|bytes| bytes.len() as u64).sum::<u64>();
        if last {
            return Ok(());
        }
        if discarded > DISCARD {
            return Err(WireError::Unexpected("a data set without end"));
        }
    }
}
