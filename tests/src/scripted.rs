//! A partner of our own that does what a test says: takes, refuses, makes wait, and remembers what came in which order.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dicom_ul::pdu::{
    AbortRQServiceProviderReason, AssociationAC, AssociationRQ, Pdu, PresentationContextResult,
    PresentationContextResultReason,
};
use gantry_gateway::association::data_set::DataSet;
use gantry_gateway::association::dimse::{Progress, Request, SubOperations};
use gantry_gateway::association::query::{FIND, MOVE};
use gantry_gateway::association::requestor::{Proposal, RequestError, Requestor};
use gantry_gateway::association::services::storage_commitment;
use gantry_gateway::association::status::Status;
use gantry_gateway::association::wire::{Event, Tcp, Wire, WireError};
use gantry_gateway::association::{APPLICATION_CONTEXT, negotiation};
use gantry_store::dicom::{SopClassUid, TransferSyntax};
use gantry_store::index::{CommitmentRequest, Owed, Reference, Report, Verdict as Verdicts};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::digest;

const PATIENCE: Duration = Duration::from_mins(2);

/// One instance that it was sent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Received {
    /// Affected SOP Instance UID.
    pub sop_instance_uid: String,
    /// The transfer syntax of its presentation context.
    pub transfer_syntax_uid: String,
    /// SHA-256 of its data set.
    pub digest: String,
    /// What was answered.
    pub status: u16,
}

/// What it was asked to commit to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Asked {
    /// Transaction UID.
    pub transaction: String,
    /// SOP Instance UIDs.
    pub instances: Vec<String>,
}

/// `None` is an abort.
type Answer = dyn Fn(&str) -> Option<Status> + Send + Sync;
/// The Failure Reason of an instance; `None` is a commitment.
type Verdict = dyn Fn(&str) -> Option<u16> + Send + Sync;
/// What a query finds.
type Find = dyn Fn(&DataSet) -> Result<Vec<DataSet>, Status> + Send + Sync;
/// How a C-MOVE ends, which sends nothing.
type Move = dyn Fn(&DataSet) -> (Status, SubOperations) + Send + Sync;

/// What it offers beside taking instances.
#[derive(Default)]
struct Offers {
    commitment: bool,
    /// Reports on the association that asked.
    report: Option<Box<Verdict>>,
    find: Option<Box<Find>>,
    moves: Option<Box<Move>>,
    /// How many reports made to it it refuses first.
    refuse_reports: usize,
    /// Bytes a second that come over its link; `None`: as many as do.
    rate: Option<f64>,
}

/// A partner that takes every kind of object in every encoding.
#[derive(Debug)]
pub struct ScriptedPartner {
    address: SocketAddr,
    shared: Arc<Shared>,
    // Ends with all its associations when this is dropped.
    _listening: JoinSet<()>,
}

struct Shared {
    answer: Box<Answer>,
    /// How many C-STORE may be answered; more are made to wait.
    allowed: watch::Sender<usize>,
    received: Mutex<Vec<Received>>,
    associations: AtomicUsize,
    offers: Offers,
    asked: Mutex<Vec<Asked>>,
    reports: Mutex<Vec<Report>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("allowed", &*self.allowed.borrow()).finish_non_exhaustive()
    }
}

impl ScriptedPartner {
    /// One that takes everything.
    pub async fn start() -> Self {
        Self::doing(|_| Some(Status::SUCCESS)).await
    }

    /// One that takes everything, over a link of so many bytes a second.
    pub async fn at_a_rate_of(rate: f64) -> Self {
        let offers = Offers { rate: Some(rate), ..Offers::default() };
        Self::offering(|_| Some(Status::SUCCESS), offers).await
    }

    /// One that aborts the association instead of answering a C-STORE of these, and takes everything else.
    pub async fn aborting_at(choke: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        Self::doing(move |uid| (!choke(uid)).then_some(Status::SUCCESS)).await
    }

    /// One that answers a C-STORE of this SOP Instance UID as the test says.
    pub async fn answering(answer: impl Fn(&str) -> Status + Send + Sync + 'static) -> Self {
        Self::doing(move |uid| Some(answer(uid))).await
    }

    /// One that takes everything, and commits to keep it on the association that asks: what it says fails has that reason.
    pub async fn committing(verdict: impl Fn(&str) -> Option<u16> + Send + Sync + 'static) -> Self {
        let offers =
            Offers { commitment: true, report: Some(Box::new(verdict)), ..Offers::default() };
        Self::offering(|_| Some(Status::SUCCESS), offers).await
    }

    /// One that takes everything, and reports on what it keeps when the test says so.
    pub async fn committing_later() -> Self {
        let offers = Offers { commitment: true, ..Offers::default() };
        Self::offering(|_| Some(Status::SUCCESS), offers).await
    }

    /// One that takes everything, and answers queries.
    pub async fn queried(
        find: impl Fn(&DataSet) -> Result<Vec<DataSet>, Status> + Send + Sync + 'static,
    ) -> Self {
        let offers = Offers { find: Some(Box::new(find)), ..Offers::default() };
        Self::offering(|_| Some(Status::SUCCESS), offers).await
    }

    /// One that answers queries, and ends every C-MOVE like this.
    pub async fn moving(
        find: impl Fn(&DataSet) -> Result<Vec<DataSet>, Status> + Send + Sync + 'static,
        moves: impl Fn(&DataSet) -> (Status, SubOperations) + Send + Sync + 'static,
    ) -> Self {
        let (find, moves) = (Some(Box::new(find) as _), Some(Box::new(moves) as _));
        let offers = Offers { find, moves, ..Offers::default() };
        Self::offering(|_| Some(Status::SUCCESS), offers).await
    }

    /// One that takes reports of storage commitment, after having refused so many.
    pub async fn taking_reports_after(refused: usize) -> Self {
        let offers = Offers { commitment: true, refuse_reports: refused, ..Offers::default() };
        Self::offering(|_| Some(Status::SUCCESS), offers).await
    }

    async fn doing(answer: impl Fn(&str) -> Option<Status> + Send + Sync + 'static) -> Self {
        Self::offering(answer, Offers::default()).await
    }

    async fn offering(
        answer: impl Fn(&str) -> Option<Status> + Send + Sync + 'static,
        offers: Offers,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let shared = Arc::new(Shared {
            answer: Box::new(answer),
            allowed: watch::Sender::new(usize::MAX),
            received: Mutex::default(),
            associations: AtomicUsize::new(0),
            offers,
            asked: Mutex::default(),
            reports: Mutex::default(),
        });
        let mut listening = JoinSet::new();
        let served = shared.clone();
        listening.spawn(async move {
            let mut associations = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                associations.spawn(serve(stream, served.clone()));
            }
        });
        Self { address, shared, _listening: listening }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// From now on so many C-STORE are answered, counted from the beginning; those after them wait.
    pub fn allow(&self, count: usize) {
        self.shared.allowed.send_replace(count);
    }

    /// How many associations it was asked for, up to now.
    pub fn associations(&self) -> usize {
        self.shared.associations.load(Ordering::Relaxed)
    }

    /// What it was asked to commit to.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().expect("no association panicked").clone()
    }

    /// The reports that were made to it, the refused ones included.
    pub fn reports(&self) -> Vec<Report> {
        self.shared.reports.lock().expect("no association panicked").clone()
    }

    /// What it was sent and has answered, in that order.
    pub fn received(&self) -> Vec<Received> {
        self.shared.received.lock().expect("no association panicked").clone()
    }
}

/// An association; ends when the node ends it or does something that this partner does not know.
async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let Ok(stream) = Tcp::new(stream) else { return };
    let mut wire = Wire::new(stream, 256 * 1024, PATIENCE);
    let Ok(Event::Pdu(Pdu::AssociationRQ(request))) = wire.next().await else { return };
    shared.associations.fetch_add(1, Ordering::Relaxed);
    wire.peer_accepts(negotiation::announced_max_pdu(&request.user_variables));
    let syntaxes: Vec<_> = request
        .presentation_contexts
        .iter()
        .filter_map(|context| Some((context.id, context.transfer_syntaxes.first()?.clone())))
        .collect();
    let encodings: Vec<_> = syntaxes
        .iter()
        .filter_map(|(id, syntax)| Some((*id, syntax.parse::<TransferSyntax>().ok()?)))
        .collect();
    if wire.send(&accept(request, &shared.offers)).await.is_err() {
        return;
    }
    loop {
        let Some((context, command)) = message(&mut wire, true).await else {
            // Whatever ended it, the node sees that it has ended.
            return wire.close().await;
        };
        let encoding = encodings.iter().find(|(id, _)| *id == context).map(|(_, syntax)| syntax);
        let request = match (Request::parse(&command), encoding) {
            (Ok(Request::Store(request)), _) => request,
            (Ok(request), Some(encoding)) => {
                if serve_other(&mut wire, context, encoding, request, &shared).await.is_none() {
                    return;
                }
                continue;
            }
            _ => return,
        };
        let Some((_, data_set)) = message(&mut wire, false).await else { return };
        if let Some(rate) = shared.offers.rate {
            // What the bytes would have taken on the way.
            tokio::time::sleep(Duration::from_secs_f64(data_set.len() as f64 / rate)).await;
        }
        let status = {
            let mut allowed = shared.allowed.subscribe();
            let turn = || shared.received.lock().expect("no association panicked").len();
            if allowed.wait_for(|allowed| *allowed > turn()).await.is_err() {
                return;
            }
            let sop_instance_uid = request.sop_instance.to_string();
            let Some(status) = (shared.answer)(&sop_instance_uid) else {
                return wire.abort(AbortRQServiceProviderReason::ReasonNotSpecified).await;
            };
            let syntax =
                syntaxes.iter().find(|(id, _)| *id == context).map(|(_, syntax)| syntax.clone());
            shared.received.lock().expect("no association panicked").push(Received {
                sop_instance_uid,
                transfer_syntax_uid: syntax.unwrap_or_default(),
                digest: digest(&data_set),
                status: status.0,
            });
            status
        };
        if wire.send_command(context, &request.response(status, "")).await.is_err() {
            return;
        }
    }
}

/// Anything but a C-STORE; `None` ends the association.
async fn serve_other(
    wire: &mut Wire<Tcp>,
    context: u8,
    encoding: &TransferSyntax,
    request: Request,
    shared: &Shared,
) -> Option<()> {
    if let Request::Answered(_) = request {
        return Some(());
    }
    let (_, bytes) = message(wire, false).await?;
    let data_set = DataSet::parse(&bytes, encoding).expect("the node writes proper data sets");
    match request {
        Request::Action(request) => {
            wire.send_command(context, &request.response(Status::SUCCESS)).await.ok()?;
            let report = storage_commitment::report_of(&data_set).expect("it names a transaction");
            let transaction = report.transaction.as_str().to_owned();
            let instances: Vec<_> = report.held.iter().map(ToString::to_string).collect();
            let asked = Asked { transaction: transaction.clone(), instances: instances.clone() };
            shared.asked.lock().expect("no association panicked").push(asked);
            if let Some(verdict) = &shared.offers.report {
                let (event, information) = report_on(&transaction, &instances, verdict);
                let request = storage_commitment::event_report(1, event);
                wire.send_command(context, &request.encode()).await.ok()?;
                wire.send_data(context, &information.encode(encoding), true).await.ok()?;
            }
        }
        Request::EventReport(request) => {
            let refused = {
                let mut reports = shared.reports.lock().expect("no association panicked");
                reports.push(storage_commitment::report_of(&data_set)?);
                reports.len() <= shared.offers.refuse_reports
            };
            let status = if refused { Status::PROCESSING_FAILURE } else { Status::SUCCESS };
            wire.send_command(context, &request.response(status)).await.ok()?;
        }
        Request::Find(request) => {
            let status = match shared.offers.find.as_ref()?(&data_set) {
                Ok(found) => {
                    for one in found {
                        let pending = request.response(Status::PENDING);
                        wire.send_command(context, &pending).await.ok()?;
                        wire.send_data(context, &one.encode(encoding), true).await.ok()?;
                    }
                    Status::SUCCESS
                }
                Err(status) => status,
            };
            wire.send_command(context, &request.response(status)).await.ok()?;
        }
        Request::Move(request) => {
            let (status, so_far) = shared.offers.moves.as_ref()?(&data_set);
            let progress = Progress { status, so_far, has_list: false, comment: "" };
            wire.send_command(context, &request.response(progress)).await.ok()?;
        }
        _ => return None,
    }
    Some(())
}

/// The information of a report on these, and its event type.
fn report_on(
    transaction: &str,
    instances: &[String],
    verdict: &dyn Fn(&str) -> Option<u16>,
) -> (u16, DataSet) {
    let reference = |uid: &String| Reference {
        sop_class: dicom_dictionary_std::uids::CT_IMAGE_STORAGE.parse().expect("a UID"),
        sop_instance: uid.parse().expect("a UID"),
    };
    let owed = Owed {
        id: 0,
        request: CommitmentRequest {
            sender: String::new(),
            called: "GANTRY".parse().expect("an AE title"),
            transaction: transaction.parse().expect("a UID"),
            instances: instances.iter().map(reference).collect(),
        },
        asked_at: jiff::Timestamp::now(),
        tries: 0,
        verdict: None,
    };
    let verdict = instances.iter().map(|uid| verdict(uid)).collect();
    storage_commitment::report(&owed, &Verdicts(verdict))
}

/// A partner's report on an association that it opens itself, to a node's plaintext listener.
pub async fn report_to(
    node: SocketAddr,
    calling: &str,
    asked: &Asked,
    verdict: impl Fn(&str) -> Option<u16>,
) -> Result<Status, RequestError> {
    let stream = TcpStream::connect(node).await.and_then(Tcp::new).map_err(WireError::from)?;
    let service: SopClassUid = storage_commitment::known(storage_commitment::SOP_CLASS);
    let proposal = Proposal {
        calling: calling.parse().expect("an AE title"),
        called: "GANTRY".parse().expect("an AE title"),
        contexts: vec![(service.clone(), vec![TransferSyntax::implicit_vr_little_endian()])],
        provides: Some(service),
        max_pdu: 64 * 1024,
        patience: Duration::from_secs(30),
    };
    let mut association = Requestor::associate(stream, &proposal).await?;
    assert!(association.provides(), "the node takes the role that was proposed to it");
    let context = association.context_of(storage_commitment::SOP_CLASS).expect("a context");
    let (event, information) = report_on(&asked.transaction, &asked.instances, &verdict);
    let request = storage_commitment::event_report(0, event);
    let status = association.event_report(context, request, &information).await?;
    association.release(Duration::from_secs(5)).await;
    Ok(status)
}

fn accept(request: AssociationRQ, offers: &Offers) -> Pdu {
    let results = request.presentation_contexts.iter().map(|context| PresentationContextResult {
        id: context.id,
        reason: match context.abstract_syntax.as_str() {
            FIND if offers.find.is_none() => {
                PresentationContextResultReason::AbstractSyntaxNotSupported
            }
            MOVE if offers.moves.is_none() => {
                PresentationContextResultReason::AbstractSyntaxNotSupported
            }
            storage_commitment::SOP_CLASS if !offers.commitment => {
                PresentationContextResultReason::AbstractSyntaxNotSupported
            }
            _ => PresentationContextResultReason::Acceptance,
        },
        transfer_syntax: context.transfer_syntaxes.first().cloned().unwrap_or_default(),
    });
    let mut user_variables = negotiation::user_information(256 * 1024);
    let (roles, proposed) =
        negotiation::roles_in(&request.user_variables, storage_commitment::SOP_CLASS);
    if proposed {
        user_variables.push(negotiation::roles_item(storage_commitment::SOP_CLASS, roles));
    }
    Pdu::AssociationAC(AssociationAC {
        protocol_version: 1,
        presentation_contexts: results.collect(),
        calling_ae_title: request.calling_ae_title,
        called_ae_title: request.called_ae_title,
        application_context_name: APPLICATION_CONTEXT.to_owned(),
        user_variables,
    })
}

/// A whole command or data set; `None` if something else came. A release is answered.
async fn message(wire: &mut Wire<Tcp>, command: bool) -> Option<(u8, Vec<u8>)> {
    let mut whole = Vec::new();
    loop {
        match wire.next().await {
            Ok(Event::Data(value)) if value.command == command => {
                whole.extend_from_slice(&value.fragment);
                if value.last {
                    return Some((value.context, whole));
                }
            }
            Ok(Event::Pdu(Pdu::ReleaseRQ)) => {
                let _ = wire.send(&Pdu::ReleaseRP).await;
                return None;
            }
            _ => return None,
        }
    }
}
