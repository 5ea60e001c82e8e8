//! A peer that queries and retrieves message by message: it keeps every answer byte by byte, and answers what it is sent as
//! the test says, or cancels, or not.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use dicom_core::Tag;
use dicom_dictionary_std::{tags, uids};
use dicom_ul::pdu::{
    AbortRQServiceProviderReason, AssociationRQ, Pdu, PresentationContextProposed, RequestorRoles,
};
use gantry_gateway::association::data_set::DataSet;
use gantry_gateway::association::dimse::{
    CCancelRq, CFindRq, CGetRq, CMoveRq, CStoreRq, Request, Response,
};
use gantry_gateway::association::status::{Meaning, Status};
use gantry_gateway::association::wire::{Event, Tcp, Wire};
use gantry_gateway::association::{APPLICATION_CONTEXT, negotiation};
use gantry_store::dicom::TransferSyntax;
use tokio::net::{TcpSocket, TcpStream};

use crate::digest;

/// What it waits for an answer, at most.
const PATIENCE: Duration = Duration::from_secs(30);
const MAX_PDU: u32 = 128 * 1024;
/// The number of all its requests, of which there is never more than one: so equal answers are equal in every byte.
const MESSAGE_ID: u16 = 7;

/// What the sample studies are made of, for which it is a provider.
const KINDS: &[&str] =
    &[uids::SECONDARY_CAPTURE_IMAGE_STORAGE, uids::CT_IMAGE_STORAGE, uids::MR_IMAGE_STORAGE];

/// What it asks for, in either information model (PS3.4 C.6).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verb<'a> {
    /// C-FIND.
    Find,
    /// C-GET.
    Get,
    /// C-MOVE, to this AE title.
    Move(&'a str),
}

/// The information model.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Root {
    /// Patient Root.
    Patient,
    /// Study Root.
    Study,
}

/// An answer, as it came.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Answered {
    /// Its command set.
    pub command: Vec<u8>,
    /// The same, read.
    pub response: Response,
    /// The identifier behind it; empty where there is none.
    pub identifier: Vec<u8>,
}

impl Answered {
    /// Its status.
    pub fn status(&self) -> Status {
        self.response.status
    }

    /// A value of its identifier.
    pub fn value(&self, tag: Tag) -> String {
        let syntax = TransferSyntax::implicit_vr_little_endian();
        let identifier = DataSet::parse(&self.identifier, &syntax).expect("an identifier");
        let value = identifier.elements().get(&tag).cloned().unwrap_or_default();
        String::from_utf8_lossy(&value).trim_matches([' ', '\0']).to_owned()
    }
}

/// What the node says next.
#[derive(Clone, Debug)]
pub enum Said {
    /// An answer to the request.
    Answered(Answered),
    /// A C-STORE on this context, with its data set: it waits for an answer.
    Stores(u8, CStoreRq, Vec<u8>),
}

/// All that was said to a request, up to its end.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Conversation {
    /// What came before the last answer.
    pub pending: Vec<Answered>,
    /// The last answer.
    pub last: Answered,
    /// The digest of each instance that came by C-STORE, by SOP Instance UID.
    pub stored: BTreeMap<String, String>,
}

impl Conversation {
    /// What each answer says under this tag, in order.
    pub fn values(&self, tag: Tag) -> Vec<String> {
        self.pending.iter().map(|answered| answered.value(tag)).collect()
    }
}

/// One association.
#[derive(Debug)]
pub struct Asker {
    wire: Wire<Tcp>,
    contexts: BTreeMap<u8, String>,
}

impl Asker {
    /// Asks for every service of query and retrieval, and to be the provider of some kinds of image.
    pub async fn connect(to: SocketAddr, calling: &str) -> Result<Self> {
        Self::associate(TcpStream::connect(to).await?, calling).await
    }

    /// The same, over a connection that holds next to nothing: the node is never far ahead of what was heard.
    pub async fn connect_narrow(to: SocketAddr, calling: &str) -> Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(4096)?;
        Self::associate(socket.connect(to).await?, calling).await
    }

    async fn associate(stream: TcpStream, calling: &str) -> Result<Self> {
        let models = [Verb::Find, Verb::Get, Verb::Move("")]
            .into_iter()
            .flat_map(|verb| [model(verb, Root::Patient), model(verb, Root::Study)])
            .map(|model| (model, uids::IMPLICIT_VR_LITTLE_ENDIAN));
        let images = KINDS.iter().map(|kind| (*kind, uids::EXPLICIT_VR_LITTLE_ENDIAN));
        let proposed: Vec<_> = (1..=255_u8).step_by(2).zip(models.chain(images)).collect();
        let mut user_variables = negotiation::user_information(MAX_PDU);
        let provider = RequestorRoles { scu: false, scp: true };
        user_variables.extend(KINDS.iter().map(|kind| negotiation::roles_item(kind, provider)));
        let request = AssociationRQ {
            protocol_version: 1,
            calling_ae_title: calling.to_owned(),
            called_ae_title: "GANTRY".to_owned(),
            application_context_name: APPLICATION_CONTEXT.to_owned(),
            presentation_contexts: proposed
                .iter()
                .map(|(id, (abstract_syntax, transfer_syntax))| PresentationContextProposed {
                    id: *id,
                    abstract_syntax: (*abstract_syntax).to_owned(),
                    transfer_syntaxes: vec![(*transfer_syntax).to_owned()],
                })
                .collect(),
            user_variables,
        };
        let mut wire = Wire::new(Tcp::new(stream)?, MAX_PDU, PATIENCE);
        wire.send(&Pdu::AssociationRQ(request)).await?;
        let accepted = match wire.next().await? {
            Event::Pdu(Pdu::AssociationAC(accepted)) => accepted,
            other => bail!("the node answered the association request with {other:?}"),
        };
        wire.peer_accepts(negotiation::announced_max_pdu(&accepted.user_variables));
        let results = accepted.presentation_contexts;
        let is_accepted = |id: u8| {
            results.iter().any(|result| {
                result.id == id
                    && result.reason == dicom_ul::pdu::PresentationContextResultReason::Acceptance
            })
        };
        let contexts = proposed
            .into_iter()
            .filter(|(id, _)| is_accepted(*id))
            .map(|(id, (abstract_syntax, _))| (id, abstract_syntax.to_owned()))
            .collect();
        Ok(Self { wire, contexts })
    }

    /// Asks, with keys as text.
    pub async fn ask(&mut self, verb: Verb<'_>, root: Root, keys: &[(Tag, &str)]) -> Result<()> {
        let syntax = TransferSyntax::implicit_vr_little_endian();
        let identifier =
            keys.iter().fold(DataSet::default(), |set, (tag, value)| set.with(*tag, value));
        self.ask_with(verb, root, &identifier.encode(&syntax)).await
    }

    /// Asks, with any bytes as the identifier.
    pub async fn ask_with(&mut self, verb: Verb<'_>, root: Root, identifier: &[u8]) -> Result<()> {
        let (context, message_id) = (self.context(verb, root)?, MESSAGE_ID);
        let sop_class = model(verb, root).parse()?;
        let command = match verb {
            Verb::Find => CFindRq { message_id, sop_class }.encode(),
            Verb::Get => CGetRq { message_id, sop_class }.encode(),
            Verb::Move(to) => CMoveRq { message_id, sop_class, destination: to.parse()? }.encode(),
        };
        self.wire.send_command(context, &command).await?;
        Ok(self.wire.send_data(context, identifier, true).await?)
    }

    /// Asks the node to end what it does.
    pub async fn cancel(&mut self, verb: Verb<'_>, root: Root) -> Result<()> {
        let command = CCancelRq { message_id: MESSAGE_ID }.encode();
        Ok(self.wire.send_command(self.context(verb, root)?, &command).await?)
    }

    /// What the node says next.
    pub async fn hear(&mut self) -> Result<Said> {
        let (context, command) = self.message(true).await?;
        if let Ok(Request::Store(request)) = Request::parse(&command) {
            let (_, data_set) = self.message(false).await?;
            return Ok(Said::Stores(context, request, data_set));
        }
        let response = Response::parse(&command)?;
        ensure!(response.message_id == MESSAGE_ID, "the node answers another request");
        let identifier =
            if response.has_data_set { self.message(false).await?.1 } else { Vec::new() };
        Ok(Said::Answered(Answered { command, response, identifier }))
    }

    /// Answers a C-STORE.
    pub async fn answer(&mut self, context: u8, request: &CStoreRq, status: Status) -> Result<()> {
        Ok(self.wire.send_command(context, &request.response(status, "")).await?)
    }

    /// Hears everything up to the last answer, and takes what is sent.
    pub async fn hear_all(&mut self) -> Result<Conversation> {
        self.hear_all_and(|_| Status::SUCCESS).await
    }

    /// Hears everything up to the last answer, and answers each C-STORE as the test says.
    pub async fn hear_all_and(
        &mut self,
        mut answer: impl FnMut(&CStoreRq) -> Status,
    ) -> Result<Conversation> {
        let (mut pending, mut stored) = (Vec::new(), BTreeMap::new());
        loop {
            match self.hear().await? {
                Said::Answered(last) if last.status().meaning() != Meaning::Pending => {
                    return Ok(Conversation { pending, last, stored });
                }
                Said::Answered(answered) => pending.push(answered),
                Said::Stores(context, request, data_set) => {
                    stored.insert(request.sop_instance.to_string(), digest(&data_set));
                    self.answer(context, &request, answer(&request)).await?;
                }
            }
        }
    }

    /// Asks, and hears everything.
    pub async fn converse(
        &mut self,
        verb: Verb<'_>,
        root: Root,
        level: &str,
        keys: &[(Tag, &str)],
    ) -> Result<Conversation> {
        let keys = [&[(tags::QUERY_RETRIEVE_LEVEL, level)], keys].concat();
        self.ask(verb, root, &keys).await?;
        self.hear_all().await
    }

    /// Ends the association in order.
    pub async fn release(mut self) -> Result<()> {
        self.wire.send(&Pdu::ReleaseRQ).await?;
        let answer = self.wire.next().await?;
        ensure!(matches!(answer, Event::Pdu(Pdu::ReleaseRP)), "the node said {answer:?}");
        self.wire.close().await;
        Ok(())
    }

    /// Ends the association at once.
    pub async fn abort(self) {
        self.wire.abort(AbortRQServiceProviderReason::ReasonNotSpecified).await;
    }

    /// The context of a service.
    fn context(&self, verb: Verb<'_>, root: Root) -> Result<u8> {
        let model = model(verb, root);
        let context = self.contexts.iter().find(|(_, abstract_syntax)| *abstract_syntax == model);
        context.map(|(id, _)| *id).context("the node did not accept that service")
    }

    async fn message(&mut self, command: bool) -> Result<(u8, Vec<u8>)> {
        let mut whole = Vec::new();
        loop {
            match self.wire.next().await? {
                Event::Data(value) if value.command == command => {
                    whole.extend_from_slice(&value.fragment);
                    if value.last {
                        return Ok((value.context, whole));
                    }
                }
                other => bail!("the node sent {other:?} instead of a message"),
            }
        }
    }
}

fn model(verb: Verb<'_>, root: Root) -> &'static str {
    match (root, verb) {
        (Root::Patient, Verb::Find) => uids::PATIENT_ROOT_QUERY_RETRIEVE_INFORMATION_MODEL_FIND,
        (Root::Patient, Verb::Get) => uids::PATIENT_ROOT_QUERY_RETRIEVE_INFORMATION_MODEL_GET,
        (Root::Patient, Verb::Move(_)) => uids::PATIENT_ROOT_QUERY_RETRIEVE_INFORMATION_MODEL_MOVE,
        (Root::Study, Verb::Find) => uids::STUDY_ROOT_QUERY_RETRIEVE_INFORMATION_MODEL_FIND,
        (Root::Study, Verb::Get) => uids::STUDY_ROOT_QUERY_RETRIEVE_INFORMATION_MODEL_GET,
        (Root::Study, Verb::Move(_)) => uids::STUDY_ROOT_QUERY_RETRIEVE_INFORMATION_MODEL_MOVE,
    }
}
