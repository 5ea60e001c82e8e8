//! The requesting role of one association (PS3.8 7, PS3.7 8): ask, use, release.

use std::time::Duration;

use dicom_ul::pdu::{
    AssociationRJ, AssociationRJResult, AssociationRJServiceProviderPresentationReason,
    AssociationRJServiceUserReason, AssociationRJSource, AssociationRQ, Pdu,
    PresentationContextProposed, PresentationContextResultReason, RequestorRoles,
};
use gantry_store::dicom::scanner::ScanError;
use gantry_store::dicom::{AeTitle, SopClassUid, TransferSyntax};
use thiserror::Error;

use super::data_set::{DataSet, MAX_IDENTIFIER, MAX_INFORMATION};
use super::dimse::{
    CCancelRq, CEchoRq, CFindRq, CMoveRq, CStoreRq, CommandError, MAX_COMMAND, NActionRq,
    NEventReportRq, Request, Response, SubOperations,
};
use super::negotiation::{self, Contexts, PresentationContext};
use super::status::{Meaning, Status};
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
    /// What came with it cannot be read.
    #[error("data set of a response cannot be read")]
    DataSet(#[from] ScanError),
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
    /// A service among them that this end provides, although it asks for the association (PS3.7 D.3.3.4).
    pub provides: Option<SopClassUid>,
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
    provides: bool,
    last_message: u16,
}

/// What a query found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Found {
    /// All of it.
    All(Vec<DataSet>),
    /// More than was asked for; the query was cancelled.
    TooMany,
    /// The peer did not answer it, for this reason.
    Refused(Status),
}

/// How a query ended whose matches were taken one by one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FindEnded {
    /// All of it was taken.
    All,
    /// There is more than was asked for; the query was cancelled.
    TooMany,
    /// The peer did not answer it, for this reason.
    Refused(Status),
}

/// How a C-MOVE ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Moved {
    /// By its last response.
    pub status: Status,
    /// What became of the images, by the same.
    pub images: SubOperations,
}

/// A report that the peer made, which wants an answer.
#[derive(Clone, Debug)]
pub struct Reported {
    context: u8,
    /// What it is about.
    pub request: NEventReportRq,
    /// What it says.
    pub information: DataSet,
}

impl<S: Stream> Requestor<S> {
    /// Asks for an association. A peer that accepts none of the contexts has still accepted the association.
    pub async fn associate(stream: S, proposal: &Proposal) -> Result<Self, RequestError> {
        let mut wire = Wire::new(stream, proposal.max_pdu, proposal.patience);
        let proposed: Vec<_> = (1..=255_u8).step_by(2).zip(&proposal.contexts).collect();
        let mut user_variables = negotiation::user_information(proposal.max_pdu);
        if let Some(service) = &proposal.provides {
            let roles = RequestorRoles { scu: false, scp: true };
            user_variables.push(negotiation::roles_item(service.as_str(), roles));
        }
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
            user_variables,
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
        let provides = proposal.provides.as_ref().is_some_and(|service| {
            negotiation::roles_in(&accept.user_variables, service.as_str()).0.scp
        });
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
        Ok(Self { wire, contexts, provides, last_message: 0 })
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

    /// The accepted context of a service, whatever its encoding.
    pub fn context_of(&self, service: &str) -> Option<u8> {
        let of = |(_, context): &(&u8, &PresentationContext)| {
            context.abstract_syntax.as_str() == service
        };
        self.contexts.iter().find(of).map(|(id, _)| *id)
    }

    /// Whether the peer takes it that this end provides the service that it proposed to.
    pub fn provides(&self) -> bool {
        self.provides
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

    /// C-FIND: everything that matches an identifier, if that is no more than `most`.
    pub async fn find(
        &mut self,
        context: u8,
        model: &SopClassUid,
        identifier: &DataSet,
        most: usize,
    ) -> Result<Found, RequestError> {
        let mut found = Vec::new();
        let ended = self.find_each(context, model, identifier, most, |one| found.push(one)).await?;
        Ok(match ended {
            FindEnded::All => Found::All(found),
            FindEnded::TooMany => Found::TooMany,
            FindEnded::Refused(status) => Found::Refused(status),
        })
    }

    /// The same for who keeps of each match only what it needs, and so holds less than a peer can send.
    pub async fn find_each(
        &mut self,
        context: u8,
        model: &SopClassUid,
        identifier: &DataSet,
        most: usize,
        mut take: impl FnMut(DataSet),
    ) -> Result<FindEnded, RequestError> {
        let message_id = self.next_message();
        let request = CFindRq { message_id, sop_class: model.clone() };
        self.send(context, &request.encode(), identifier).await?;
        let mut count = 0;
        loop {
            let response = self.answer_to(message_id).await?;
            if response.has_data_set {
                let data_set = self.data_set(context, MAX_IDENTIFIER).await?;
                if count < most {
                    take(data_set);
                }
            }
            match response.status.meaning() {
                Meaning::Pending => count += 1,
                Meaning::Success if count > most => return Ok(FindEnded::TooMany),
                Meaning::Success => return Ok(FindEnded::All),
                _ if count > most => return Ok(FindEnded::TooMany),
                _ => return Ok(FindEnded::Refused(response.status)),
            }
            if count == most + 1 {
                self.wire.send_command(context, &CCancelRq { message_id }.encode()).await?;
            }
            // A peer that goes on all the same is not waited for.
            if count > most.saturating_mul(2).saturating_add(1000) {
                return Err(WireError::Unexpected("more responses to a cancelled query").into());
            }
        }
    }

    /// C-MOVE: has the peer send what matches an identifier to a destination that it knows. Returns when it has; `progress`
    /// hears how far it has come, if the peer tells.
    pub async fn move_to(
        &mut self,
        context: u8,
        model: &SopClassUid,
        destination: &AeTitle,
        identifier: &DataSet,
        mut progress: impl FnMut(SubOperations),
    ) -> Result<Moved, RequestError> {
        let message_id = self.next_message();
        let request =
            CMoveRq { message_id, sop_class: model.clone(), destination: destination.clone() };
        self.send(context, &request.encode(), identifier).await?;
        loop {
            let response = self.answer_to(message_id).await?;
            if response.has_data_set {
                // The list of what failed, which a count at the peer says better.
                self.data_set(context, MAX_INFORMATION).await?;
            }
            if response.status.meaning() != Meaning::Pending {
                return Ok(Moved { status: response.status, images: response.sub_operations });
            }
            progress(response.sub_operations);
        }
    }

    /// N-ACTION.
    pub async fn action(
        &mut self,
        context: u8,
        mut request: NActionRq,
        information: &DataSet,
    ) -> Result<Status, RequestError> {
        request.message_id = self.next_message();
        self.send(context, &request.encode(), information).await?;
        Ok(self.answer_to(request.message_id).await?.status)
    }

    /// N-EVENT-REPORT.
    pub async fn event_report(
        &mut self,
        context: u8,
        mut request: NEventReportRq,
        information: &DataSet,
    ) -> Result<Status, RequestError> {
        request.message_id = self.next_message();
        self.send(context, &request.encode(), information).await?;
        Ok(self.answer_to(request.message_id).await?.status)
    }

    /// A report that the peer makes on this association within this time.
    pub async fn reported(&mut self, within: Duration) -> Result<Option<Reported>, RequestError> {
        if !self.wire.arrived(within).await? {
            return Ok(None);
        }
        let (context, command) = self.command().await?;
        let Request::EventReport(request) = Request::parse(&command)? else {
            return Err(WireError::Unexpected("something other than a report").into());
        };
        let information = self.data_set(context, MAX_INFORMATION).await?;
        Ok(Some(Reported { context, request, information }))
    }

    /// Answers a report.
    pub async fn answer(&mut self, report: &Reported, status: Status) -> Result<(), RequestError> {
        Ok(self.wire.send_command(report.context, &report.request.response(status)).await?)
    }

    async fn send(
        &mut self,
        context: u8,
        command: &[u8],
        data_set: &DataSet,
    ) -> Result<(), RequestError> {
        let encoded = data_set.encode(self.syntax_of(context)?);
        self.wire.send_command(context, command).await?;
        Ok(self.wire.send_data(context, &encoded, true).await?)
    }

    fn syntax_of(&self, context: u8) -> Result<&TransferSyntax, WireError> {
        let accepted = self.contexts.get(&context).map(|context| &context.transfer_syntax);
        accepted.ok_or(WireError::Unexpected("a message on a context that was not accepted"))
    }

    async fn response(&mut self, message_id: u16) -> Result<Status, RequestError> {
        Ok(self.answer_to(message_id).await?.status)
    }

    async fn answer_to(&mut self, message_id: u16) -> Result<Response, RequestError> {
        let (_, command) = self.command().await?;
        let response = Response::parse(&command)?;
        if response.message_id != message_id {
            return Err(WireError::Unexpected("the response to another request").into());
        }
        Ok(response)
    }

    async fn command(&mut self) -> Result<(u8, Vec<u8>), RequestError> {
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
                return Ok((value.context, command));
            }
        }
    }

    async fn data_set(&mut self, context: u8, most: usize) -> Result<DataSet, RequestError> {
        let mut bytes = Vec::new();
        loop {
            let value = match self.wire.next().await? {
                Event::Data(value) if !value.command && value.context == context => value,
                _ => return Err(WireError::Unexpected("something else inside a data set").into()),
            };
            if bytes.len() + value.fragment.len() > most {
                return Err(WireError::Malformed("a data set longer than any of its kind").into());
            }
            bytes.extend_from_slice(&value.fragment);
            if value.last {
                return Ok(DataSet::parse(&bytes, self.syntax_of(context)?)?);
            }
        }
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
    use dicom_dictionary_std::{tags, uids};
    use tokio::io::{DuplexStream, duplex};

    use super::*;

    const MODEL: &str = uids::STUDY_ROOT_QUERY_RETRIEVE_INFORMATION_MODEL_FIND;

    /// An association for queries, and the peer's end of it.
    async fn for_queries() -> (Requestor<DuplexStream>, Wire<DuplexStream>) {
        let (ours, theirs) = duplex(1 << 20);
        let patience = Duration::from_secs(5);
        let mut peer = Wire::new(theirs, 64 * 1024, patience);
        let proposal = Proposal {
            calling: "GANTRY".parse().unwrap(),
            called: "PACS".parse().unwrap(),
            contexts: vec![(
                MODEL.parse().unwrap(),
                vec![TransferSyntax::implicit_vr_little_endian()],
            )],
            provides: None,
            max_pdu: 64 * 1024,
            patience,
        };
        let accept = async {
            let Event::Pdu(Pdu::AssociationRQ(request)) = peer.next().await.unwrap() else {
                panic!("not an association request");
            };
            let accepted = request.presentation_contexts.iter().map(|context| {
                dicom_ul::pdu::PresentationContextResult {
                    id: context.id,
                    reason: PresentationContextResultReason::Acceptance,
                    transfer_syntax: context.transfer_syntaxes[0].clone(),
                }
            });
            let accept = dicom_ul::pdu::AssociationAC {
                protocol_version: 1,
                calling_ae_title: request.calling_ae_title,
                called_ae_title: request.called_ae_title,
                application_context_name: super::super::APPLICATION_CONTEXT.to_owned(),
                presentation_contexts: accepted.collect(),
                user_variables: negotiation::user_information(64 * 1024),
            };
            peer.send(&Pdu::AssociationAC(accept)).await.unwrap();
        };
        let (association, ()) = tokio::join!(Requestor::associate(ours, &proposal), accept);
        (association.unwrap(), peer)
    }

    /// Answers the query that comes with so many identifiers; says whether it was cancelled.
    async fn answer_with(peer: &mut Wire<DuplexStream>, count: usize) -> bool {
        let syntax = TransferSyntax::implicit_vr_little_endian();
        let query = CFindRq { message_id: 1, sop_class: MODEL.parse().unwrap() };
        for number in 0..count {
            let one = DataSet::default().with(tags::SOP_INSTANCE_UID, &format!("2.25.{number}"));
            peer.send_command(1, &query.response(Status::PENDING)).await.unwrap();
            peer.send_data(1, &one.encode(&syntax), true).await.unwrap();
        }
        peer.send_command(1, &query.response(Status::SUCCESS)).await.unwrap();
        let mut cancelled = false;
        while peer.arrived(Duration::from_millis(50)).await.unwrap_or(false) {
            if let Ok(Event::Data(value)) = peer.next().await {
                cancelled |= value.command
                    && Request::parse(&value.fragment)
                        .is_ok_and(|said| matches!(said, Request::Cancel(_)));
            }
        }
        cancelled
    }

    #[tokio::test]
    async fn a_query_takes_what_was_asked_for_and_cancels_what_is_more() {
        for (count, most) in [(3, 3), (4, 3), (200, 3)] {
            let (mut association, mut peer) = for_queries().await;
            let identifier = DataSet::default().with(tags::QUERY_RETRIEVE_LEVEL, "IMAGE");
            let model = MODEL.parse().unwrap();

            let (found, cancelled) = tokio::join!(
                association.find(1, &model, &identifier, most),
                answer_with(&mut peer, count)
            );

            match found.unwrap() {
                Found::All(found) => assert_eq!((found.len(), cancelled), (count, false)),
                other => assert_eq!((other, cancelled, count > most), (Found::TooMany, true, true)),
            }
        }
    }

    #[tokio::test]
    async fn an_identifier_that_is_longer_than_any_ends_the_association() {
        let (mut association, mut peer) = for_queries().await;
        let query = CFindRq { message_id: 1, sop_class: MODEL.parse().unwrap() };
        peer.send_command(1, &query.response(Status::PENDING)).await.unwrap();
        peer.send_data(1, &vec![0; MAX_IDENTIFIER + 2], true).await.unwrap();

        let identifier = DataSet::default();
        let refused = association.find(1, &query.sop_class, &identifier, 10).await.unwrap_err();

        assert!(matches!(refused, RequestError::Wire(WireError::Malformed(_))), "{refused}");
    }

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
