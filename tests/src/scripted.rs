//! A partner of our own that does what a test says: takes, refuses, makes wait, and remembers what came in which order.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dicom_ul::pdu::{
    AbortRQServiceProviderReason, AssociationAC, AssociationRQ, Pdu, PresentationContextResult,
    PresentationContextResultReason,
};
use gantry_gateway::association::dimse::Request;
use gantry_gateway::association::status::Status;
use gantry_gateway::association::wire::{Event, Tcp, Wire};
use gantry_gateway::association::{APPLICATION_CONTEXT, negotiation};
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

/// `None` is an abort.
type Answer = dyn Fn(&str) -> Option<Status> + Send + Sync;

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
    /// Bytes a second that come over its link; `None`: as many as do.
    rate: Option<f64>,
    /// How many C-STORE may be answered; more are made to wait.
    allowed: watch::Sender<usize>,
    received: Mutex<Vec<Received>>,
    associations: AtomicUsize,
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
        Self::scripted(|_| Some(Status::SUCCESS), Some(rate)).await
    }

    /// One that aborts the association instead of answering a C-STORE of these, and takes everything else.
    pub async fn aborting_at(choke: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        Self::doing(move |uid| (!choke(uid)).then_some(Status::SUCCESS)).await
    }

    /// One that answers a C-STORE of this SOP Instance UID as the test says.
    pub async fn answering(answer: impl Fn(&str) -> Status + Send + Sync + 'static) -> Self {
        Self::doing(move |uid| Some(answer(uid))).await
    }

    async fn doing(answer: impl Fn(&str) -> Option<Status> + Send + Sync + 'static) -> Self {
        Self::scripted(answer, None).await
    }

    async fn scripted(
        answer: impl Fn(&str) -> Option<Status> + Send + Sync + 'static,
        rate: Option<f64>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let shared = Arc::new(Shared {
            answer: Box::new(answer),
            rate,
            allowed: watch::Sender::new(usize::MAX),
            received: Mutex::default(),
            associations: AtomicUsize::new(0),
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
    if wire.send(&accept(request)).await.is_err() {
        return;
    }
    loop {
        let Some((context, command)) = message(&mut wire, true).await else {
            // Whatever ended it, the node sees that it has ended.
            return wire.close().await;
        };
        let Ok(Request::Store(request)) = Request::parse(&command) else { return };
        let Some((_, data_set)) = message(&mut wire, false).await else { return };
        if let Some(rate) = shared.rate {
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

fn accept(request: AssociationRQ) -> Pdu {
    let results = request.presentation_contexts.iter().map(|context| PresentationContextResult {
        id: context.id,
        reason: PresentationContextResultReason::Acceptance,
        transfer_syntax: context.transfer_syntaxes.first().cloned().unwrap_or_default(),
    });
    Pdu::AssociationAC(AssociationAC {
        protocol_version: 1,
        presentation_contexts: results.collect(),
        calling_ae_title: request.calling_ae_title,
        called_ae_title: request.called_ae_title,
        application_context_name: APPLICATION_CONTEXT.to_owned(),
        user_variables: negotiation::user_information(256 * 1024),
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
