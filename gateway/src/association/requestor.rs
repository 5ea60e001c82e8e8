//! The requesting role of one association (PS3.8 7, PS3.7 8): ask, use, release.

use std::time::Duration;

use dicom_ul::pdu::{
    AssociationRJ, AssociationRJResult, AssociationRJServiceProviderPresentationReason,
    AssociationRJServiceUserReason, AssociationRJSource, AssociationRQ, Pdu,
    PresentationContextProposed, PresentationContextResultReason,
};
use gantry_store::dicom::{AeTitle, SopClassUid, TransferSyntax};
use thiserror::Error;

use super::dimse::{CEchoRq, CStoreRq, CommandError, MAX_COMMAND, Response};
use super::negotiation::{self, Contexts, PresentationContext};
use super::status::Status;
use super::wire::{Event, Stream, Wire, WireError};

/// The most presentation contexts that an association can have: odd numbers from 1 to 255 (PS3.8 9.3.2.2).
pub const MAX_CONTEXTS: usize = 128;

/// Why an association was not had, or ended early.
#[derive(Debug, Error)]
pub enum RequestError {
    /// A-ASSOCIATE-RJ.
    #[error("association rejected: {}", rejection_words(.0))]
    Rejected(AssociationRJ),
    /// The conversation broke off.
    #[error("association broke off")]
    Wire(#[from] WireError),
    /// The peer's response cannot be read.
    #[error("response cannot be read")]
    Response(#[from] CommandError),
}

fn rejection_words(rejection: &AssociationRJ) -> String {
    use AssociationRJServiceProviderPresentationReason as Presentation;
    use AssociationRJServiceUserReason as User;
    let result = match rejection.result {
        AssociationRJResult::Permanent => "permanent",
        AssociationRJResult::Transient => "transient",
    };
    let reason = match &rejection.source {
        AssociationRJSource::ServiceUser(User::CallingAETitleNotRecognized) => {
            "calling AE title not recognised"
        }
        AssociationRJSource::ServiceUser(User::CalledAETitleNotRecognized) => {
            "called AE title not recognised"
        }
        AssociationRJSource::ServiceUser(User::ApplicationContextNameNotSupported) => {
            "application context not supported"
        }
        AssociationRJSource::ServiceUser(_) => "no reason given",
        AssociationRJSource::ServiceProviderASCE(_) => "its upper layer refused",
        AssociationRJSource::ServiceProviderPresentation(Presentation::TemporaryCongestion) => {
            "temporary congestion"
        }
        AssociationRJSource::ServiceProviderPresentation(Presentation::LocalLimitExceeded) => {
            "local limit exceeded"
        }
        AssociationRJSource::ServiceProviderPresentation(Presentation::Reserved(_)) => {
            "a reserved reason"
        }
    };
    format!("{result}, {reason}")
}

/// What an association is asked for.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// What we call ourselves.
    pub calling: AeTitle,
    /// What we call the peer.
    pub called: AeTitle,
    /// One presentation context each: at most [`MAX_CONTEXTS`], of which the rest is left out.
    pub contexts: Vec<(SopClassUid, Vec<TransferSyntax>)>,
    /// The longest PDU we take.
    pub max_pdu: u32,
    /// How long the peer may take to accept.
    pub patience: Duration,
}

/// An association that a peer accepted.
#[derive(Debug)]
pub struct Requestor<S> {
    wire: Wire<S>,
    contexts: Contexts,
    last_message: u16,
}

impl<S: Stream> Requestor<S> {
    /// Asks for an association. A peer that accepts none of the contexts has still accepted the association.
    pub async fn associate(stream: S, proposal: &Proposal) -> Result<Self, RequestError> {
        let mut wire = Wire::new(stream, proposal.max_pdu, proposal.patience);
        let proposed: Vec<_> = (1..=255_u8).step_by(2).zip(&proposal.contexts).collect();
        let request = Pdu::AssociationRQ(AssociationRQ {
            protocol_version: 1,
            calling_ae_title: proposal.calling.to_string(),
            called_ae_title: proposal.called.to_string(),
            application_context_name: super::APPLICATION_CONTEXT.to_owned(),
            presentation_contexts: proposed
                .iter()
                .map(|(id, (sop_class, syntaxes))| PresentationContextProposed {
                    id: *id,
                    abstract_syntax: sop_class.to_string(),
                    transfer_syntaxes: syntaxes
                        .iter()
                        .map(|syntax| syntax.uid().to_owned())
                        .collect(),
                })
                .collect(),
            user_variables: negotiation::user_information(proposal.max_pdu),
        });
        wire.send(&request).await?;
        let accept = match wire.next().await? {
            Event::Pdu(Pdu::AssociationAC(accept)) => accept,
            Event::Pdu(Pdu::AssociationRJ(rejection)) => {
                wire.close().await;
                return Err(RequestError::Rejected(rejection));
            }
            Event::Pdu(_) | Event::Data(_) => {
                return Err(WireError::Unexpected(
                    "something other than an answer to our association request",
                )
                .into());
            }
        };
        wire.peer_accepts(negotiation::announced_max_pdu(&accept.user_variables));
        let accepted = |id: u8| {
            let result = accept.presentation_contexts.iter().find(|result| {
                result.id == id && result.reason == PresentationContextResultReason::Acceptance
            })?;
            result.transfer_syntax.trim_end_matches(['\0', ' ']).parse::<TransferSyntax>().ok()
        };
        let contexts = proposed
            .into_iter()
            .filter_map(|(id, (sop_class, syntaxes))| {
                // An answer that was not among the proposed is as good as none.
                let transfer_syntax = accepted(id).filter(|syntax| syntaxes.contains(syntax))?;
                Some((
                    id,
                    PresentationContext { abstract_syntax: sop_class.clone(), transfer_syntax },
                ))
            })
            .collect();
        Ok(Self { wire, contexts, last_message: 0 })
    }

    /// The accepted context for a kind of object in an encoding.
    pub fn context_for(
        &self,
        sop_class: &SopClassUid,
        transfer_syntax: &TransferSyntax,
    ) -> Option<u8> {
        self.contexts
            .iter()
            .find(|(_, context)| {
                context.abstract_syntax == *sop_class && context.transfer_syntax == *transfer_syntax
            })
            .map(|(id, _)| *id)
    }

    /// Whether any context was accepted.
    pub fn has_contexts(&self) -> bool {
        !self.contexts.is_empty()
    }

    /// How long the peer may take for anything from here on.
    pub fn set_patience(&mut self, patience: Duration) {
        self.wire.set_patience(patience);
    }

    /// Numbers the next message; never 0, which some peers take for "none".
    fn next_message(&mut self) -> u16 {
        self.last_message = self.last_message.checked_add(1).unwrap_or(1);
        self.last_message
    }

    /// C-ECHO, on the first context accepted for it.
    pub async fn echo(&mut self) -> Result<Status, RequestError> {
        let verification = self
            .contexts
            .iter()
            .find(|(_, context)| {
                context.abstract_syntax.as_str() == dicom_dictionary_std::uids::VERIFICATION
            })
            .map(|(id, _)| *id)
            .ok_or(WireError::Unexpected("no context for verification"))?;
        let message_id = self.next_message();
        self.wire.send_command(verification, &CEchoRq { message_id }.encode()).await?;
        self.response(message_id).await
    }

    /// Begins a C-STORE; its data set follows by [`Storing::data`].
    pub async fn store_begin(
        &mut self,
        context: u8,
        mut request: CStoreRq,
    ) -> Result<Storing<'_, S>, RequestError> {
        request.message_id = self.next_message();
        self.wire.send_command(context, &request.encode()).await?;
        Ok(Storing { association: self, context, message_id: request.message_id })
    }

    async fn response(&mut self, message_id: u16) -> Result<Status, RequestError> {
        let mut command = Vec::new();
        loop {
            let value = match self.wire.next().await? {
                Event::Data(value) if value.command => value,
                Event::Data(_) => {
                    return Err(WireError::Unexpected("a data set instead of a response").into());
                }
                Event::Pdu(_) => {
                    return Err(WireError::Unexpected("a PDU instead of a response").into());
                }
            };
            if command.len() + value.fragment.len() > MAX_COMMAND {
                return Err(CommandError::TooLong.into());
            }
            command.extend_from_slice(&value.fragment);
            if value.last {
                break;
            }
        }
        let response = Response::parse(&command)?;
        if response.message_id != message_id {
            return Err(WireError::Unexpected("the response to another request").into());
        }
        Ok(response.status)
    }

    /// Ends the association in order. A peer that does not answer has still heard us.
    pub async fn release(mut self, patience: Duration) {
        self.wire.set_patience(patience);
        if self.wire.send(&Pdu::ReleaseRQ).await.is_ok() {
            // Data that crosses the release is thrown away (PS3.8 9.2.3, AR-6).
            while matches!(self.wire.next().await, Ok(Event::Data(_))) {}
        }
        self.wire.close().await;
    }

    /// Ends the association at once.
    pub async fn abort(self) {
        self.wire.abort(dicom_ul::pdu::AbortRQServiceProviderReason::ReasonNotSpecified).await;
    }
}

/// A C-STORE whose data set is being sent. Dropped before [`Storing::end`], the association is of no more use.
#[derive(Debug)]
pub struct Storing<'a, S> {
    association: &'a mut Requestor<S>,
    context: u8,
    message_id: u16,
}

impl<S: Stream> Storing<'_, S> {
    /// Sends the next part of the data set, which is not the last.
    pub async fn data(&mut self, part: &[u8]) -> Result<(), RequestError> {
        Ok(self.association.wire.send_data(self.context, part, false).await?)
    }

    /// Sends the last part, and waits for the answer.
    pub async fn end(self, part: &[u8]) -> Result<Status, RequestError> {
        self.association.wire.send_data(self.context, part, true).await?;
        self.association.response(self.message_id).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rejection_is_said_in_the_standards_words() {
        let rejection = AssociationRJ {
            result: AssociationRJResult::Permanent,
            source: AssociationRJSource::ServiceUser(
                AssociationRJServiceUserReason::CallingAETitleNotRecognized,
            ),
        };
        let error = RequestError::Rejected(rejection);
        assert_eq!(
            error.to_string(),
            "association rejected: permanent, calling AE title not recognised"
        );
    }
}
