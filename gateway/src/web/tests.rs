//! What the web promises as a whole, asked over the routers as a client would.

mod look;

use std::sync::Mutex;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use dicom_dictionary_std::tags;
use gantry_store::facts::{Facts, ObjectId, Priority, Purpose};
use gantry_store::index::{Arrival, DeliveryId, Event, Failure, FailureKind, Receipt, Routed, TransferId};
use gantry_store::object::FileObjects;
use gantry_store::sealed::Keyring;
use gantry_store::spool::Durability;
use http_body_util::BodyExt as _;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::*;
use crate::config::{Fingerprint, Web};
use crate::intake::{Arrived, Handoff};
use crate::testing::{config_in, facts};

const INFIRMARY: &str = "royal-infirmary";
const NO_PINS: &[Fingerprint] = &[];

/// Remembers who was woken.
#[derive(Default)]
struct Bell(Mutex<Vec<(String, Priority)>>, watch::Sender<u64>, Mutex<Vec<String>>);

impl Wake for Bell {
    fn work_for(&self, partner: &str, priority: Priority) {
        self.0.lock().unwrap().push((partner.to_owned(), priority));
    }

    fn try_now(&self, partner: &str) {
        self.2.lock().unwrap().push(partner.to_owned());
    }

    fn changed(&self) {
        self.1.send_modify(|changes| *changes += 1);
    }
}

/// A node's web over an index in a folder that goes with it.
struct Node {
    state: WebState,
    bell: Arc<Bell>,
    arrivals: mpsc::Receiver<Arrived>,
    _folder: TempDir,
}

/// An answer, read to its end.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    fn location(&self) -> Option<&str> {
        self.headers.get(header::LOCATION)?.to_str().ok()
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {}", self.body))
    }
}

impl Node {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config_in(folder.path(), &[(INFIRMARY, "RI_IEP", NO_PINS), ("york-ed", "YORK", NO_PINS)]);
        config.partners[0].display_name = "St Elsewhere".to_owned();
        config.partners[0].phone = Some("0113 496 0000".to_owned());
        config.partners[1].display_name = "York Emergency Department".to_owned();
        config.partners[1].may.clear();
        config.web = Some(Web { address: "127.0.0.1:8080".parse().unwrap(), tls: WebTls::Off, url: None });
        let keyring = Arc::new(Keyring::create(&config.node.keys_dir()).unwrap());
        let spool = Arc::new(Spool::open(&config.node.spool_dir(), keyring, 0).unwrap());
        let (handoff, arrivals) = Handoff::new();
        let bell = Arc::new(Bell::default());
        let state = WebState {
            index: Index::open(&config.node.index_path()).await.unwrap(),
            open_studies: handoff.open_studies().clone(),
            changes: bell.1.subscribe(),
            metrics: Arc::default(),
            intake: Intake::new(spool.clone(), Durability::Received, 1 << 20, handoff),
            objects: Arc::new(FileObjects::open(&config.node.objects_dir()).unwrap()),
            spool,
            wake: bell.clone(),
            sessions: Arc::default(),
            started: Timestamp::now(),
            stop: CancellationToken::new(),
            config: Arc::new(config),
        };
        Self { state, bell, arrivals, _folder: folder }
    }

    /// Asks the web's listener.
    async fn ask(&self, request: Request<Body>) -> Answer {
        answer(public_router(self.state.clone()), request).await
    }

    /// Asks the administrator's socket.
    async fn ask_admin(&self, request: Request<Body>) -> Answer {
        answer(admin_router(self.state.clone()), request).await
    }

    /// Asks as somebody who is signed in.
    async fn read(&self, path: &str) -> Answer {
        let mut request = get(path);
        request.headers_mut().insert(header::COOKIE, self.cookie("A Registrar").parse().unwrap());
        self.ask(request).await
    }

    fn cookie(&self, person: &str) -> String {
        let session = self.state.sessions.sign_in(&self.state.sessions.issue_link(), person).unwrap();
        format!("gantry={session}")
    }

    /// Records images of one study for a partner, and says which transfer that made.
    async fn images(&self, patient: &Patient, numbers: std::ops::Range<u64>, to: &str, priority: Priority) -> TransferId {
        let arrivals: Vec<_> = numbers.map(|number| patient.image(number, to, priority)).collect();
        self.state.index.record(&arrivals).await.unwrap()[0].transfers[0]
    }

    async fn claim(&self, partner: &str, limit: u32) -> Vec<DeliveryId> {
        let lease = Duration::from_secs(60);
        let claims = self.state.index.claim(partner, "node", limit, lease, Timestamp::now()).await.unwrap();
        claims.into_iter().map(|claim| claim.delivery).collect()
    }

    async fn settle(&self, deliveries: &[DeliveryId], event: &Event) {
        let outcomes: Vec<_> = deliveries.iter().map(|id| (*id, event.clone())).collect();
        self.state.index.settle(&outcomes, Timestamp::now()).await.unwrap();
    }
}

async fn answer(router: Router, request: Request<Body>) -> Answer {
    let response = TowerToHyperService::new(router).call(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answer { status: parts.status, headers: parts.headers, body: String::from_utf8_lossy(&body).into_owned() }
}

fn request(method: Method, path: &str) -> Request<Body> {
    let request = Request::builder().method(method).uri(path).header(header::HOST, "127.0.0.1:8080");
    request.body(Body::empty()).unwrap()
}

fn get(path: &str) -> Request<Body> {
    request(Method::GET, path)
}

/// As a form of our own pages posts it.
fn form(path: &str, fields: &str) -> Request<Body> {
    let mut request = request(Method::POST, path);
    *request.body_mut() = Body::from(fields.to_owned());
    let headers = request.headers_mut();
    headers.insert(header::CONTENT_TYPE, "application/x-www-form-urlencoded".parse().unwrap());
    headers.insert("sec-fetch-site", "same-origin".parse().unwrap());
    request
}

/// Whose images a test sends.
#[derive(Clone)]
struct Patient {
    study: u64,
    name: &'static str,
    id: &'static str,
    born: &'static str,
    description: &'static str,
    modality: &'static str,
    /// How long ago the first image came.
    ago: i64,
}

const ANNA: Patient = Patient {
    study: 100,
    name: "SMITH^ANNA",
    id: "9434765919",
    born: "19700314",
    description: "CT Head without contrast",
    modality: "CT",
    ago: 95,
};

impl Patient {
    fn facts(&self, number: u64) -> Facts {
        let mut facts = facts(number);
        let now = Timestamp::now();
        facts.study = format!("2.25.{}", self.study).parse().unwrap();
        facts.series = format!("2.25.{}.{}", self.study, number / 200).parse().unwrap();
        facts.sop_instance = format!("2.25.{}.{}.{number}", self.study, number / 200).parse().unwrap();
        facts.object = ObjectId::new();
        facts.received_at = now - Duration::from_secs(self.ago.unsigned_abs());
        facts.digest.0[..8].copy_from_slice(&(self.study << 32 | number).to_le_bytes());
        let series = format!("{}", number / 200 + 1);
        let series_name = if number / 200 == 0 { "Axial 5 mm" } else { "Axial 0.6 mm bone" };
        for (tag, text) in [
            (tags::PATIENT_NAME, self.name),
            (tags::PATIENT_ID, self.id),
            (tags::PATIENT_BIRTH_DATE, self.born),
            (tags::PATIENT_SEX, "F"),
            (tags::STUDY_DESCRIPTION, self.description),
            (tags::STUDY_DATE, "20261122"),
            (tags::MODALITY, self.modality),
            (tags::ACCESSION_NUMBER, "RXX-2026-004711"),
            (tags::SERIES_NUMBER, &series),
            (tags::SERIES_DESCRIPTION, series_name),
        ] {
            facts.attributes.insert(tag, text.as_bytes().to_vec());
        }
        facts
    }

    fn image(&self, number: u64, to: &str, priority: Priority) -> Arrival {
        let purpose = if priority == Priority::Emergency { Purpose::EmergencyTransfer } else { Purpose::DirectCare };
        let routed = Routed { partner: to.to_owned(), route: "emergency to St Elsewhere".to_owned(), purpose, priority };
        Arrival { facts: self.facts(number), routed: vec![routed] }
    }
}

fn accepted() -> Event {
    Event::Accept(Receipt {
        status: 0,
        transfer_syntax: gantry_store::dicom::TransferSyntax::explicit_vr_little_endian(),
        digest: gantry_store::facts::Digest([7; 32]),
        at: Timestamp::now(),
    })
}

fn failure(kind: FailureKind, text: &str) -> Failure {
    Failure { kind, status: None, text: text.to_owned() }
}
