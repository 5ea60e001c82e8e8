//! What the web promises as a whole, asked over the routers as a client would.

use std::sync::Mutex;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use dicom_dictionary_std::tags;
use gantry_store::facts::{Facts, ObjectId, Priority, Purpose};
use gantry_store::index::{
    Arrival, DeliveryId, Event, Failure, FailureKind, Receipt, Routed, TransferId,
};
use gantry_store::object::FileObjects;
use gantry_store::sealed::Keyring;
use gantry_store::spool::Durability;
use http_body_util::BodyExt as _;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::*;
use crate::completeness::Counter;
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
        let mut config = config_in(
            folder.path(),
            &[(INFIRMARY, "RI_IEP", NO_PINS), ("york-ed", "YORK", NO_PINS)],
        );
        config.partners[0].display_name = "St Elsewhere".to_owned();
        config.partners[0].phone = Some("0113 496 0000".to_owned());
        config.partners[1].display_name = "York Emergency Department".to_owned();
        config.partners[1].may.clear();
        config.web =
            Some(Web { address: "127.0.0.1:8080".parse().unwrap(), tls: WebTls::Off, url: None });
        let keyring = Arc::new(Keyring::create(&config.node.keys_dir()).unwrap());
        let spool = Arc::new(Spool::open(&config.node.spool_dir(), keyring, 0).unwrap());
        let (handoff, arrivals) = Handoff::new();
        let bell = Arc::new(Bell::default());
        let index = Index::open(&config.node.index_path()).await.unwrap();
        let scrub = scrub::Handle::open(&config);
        let objects = FileObjects::open(&config.node.objects_dir()).unwrap();
        let config = Arc::new(config);
        let counter = Counter {
            config: config.clone(),
            index: index.clone(),
            fetching: handoff.fetching().clone(),
            wake: bell.clone(),
            metrics: Arc::default(),
        };
        let state = WebState {
            index,
            open_studies: handoff.open_studies().clone(),
            changes: bell.1.subscribe(),
            metrics: Arc::default(),
            intake: Intake::new(spool.clone(), Durability::Received, 1 << 20, [].into(), handoff),
            objects: Arc::new(objects),
            spool,
            wake: bell.clone(),
            sessions: Arc::default(),
            scrub,
            counter,
            alarms: alarm::Handle::open(&config),
            started: Timestamp::now(),
            stop: CancellationToken::new(),
            config,
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
        let session =
            self.state.sessions.sign_in(&self.state.sessions.issue_link(), person).unwrap();
        format!("gantry={session}")
    }

    /// Records images of one study for a partner, and says which transfer that made.
    async fn images(
        &self,
        patient: &Patient,
        numbers: std::ops::Range<u64>,
        to: &str,
        priority: Priority,
    ) -> TransferId {
        let arrivals: Vec<_> = numbers.map(|number| patient.image(number, to, priority)).collect();
        self.state.index.record(&arrivals).await.unwrap()[0].transfers[0]
    }

    async fn claim(&self, partner: &str, limit: u32) -> Vec<DeliveryId> {
        let lease = Duration::from_mins(1);
        let claims =
            self.state.index.claim(partner, "node", limit, lease, Timestamp::now()).await.unwrap();
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
    Answer {
        status: parts.status,
        headers: parts.headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    }
}

fn request(method: Method, path: &str) -> Request<Body> {
    let request =
        Request::builder().method(method).uri(path).header(header::HOST, "127.0.0.1:8080");
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
        facts.sop_instance =
            format!("2.25.{}.{}.{number}", self.study, number / 200).parse().unwrap();
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
        let purpose = if priority == Priority::Emergency {
            Purpose::EmergencyTransfer
        } else {
            Purpose::DirectCare
        };
        let routed = Routed {
            protection: None,
            partner: to.to_owned(),
            route: "emergency to St Elsewhere".to_owned(),
            purpose,
            priority,
            parcel: None,
        };
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

/// Every route of the web's listener, with something in the place of names.
const ROUTES: &[(&str, &[Method])] = &[
    ("/", &[Method::GET]),
    ("/?fragment=board", &[Method::GET]),
    ("/transfers/01JD8Z6Q3M5V7X9B2C4D6F8G0H", &[Method::GET]),
    ("/transfers/01JD8Z6Q3M5V7X9B2C4D6F8G0H/retry", &[Method::POST]),
    ("/transfers/01JD8Z6Q3M5V7X9B2C4D6F8G0H/cancel", &[Method::POST]),
    ("/sign-in", &[Method::GET]),
    ("/sign-in/guess", &[Method::GET, Method::POST]),
    ("/sign-out", &[Method::POST]),
    ("/events", &[Method::GET]),
    ("/assets/gantry.css", &[Method::GET]),
    ("/assets/live.js", &[Method::GET]),
    ("/assets/nothing", &[Method::GET]),
    ("/healthz", &[Method::GET]),
    ("/readyz", &[Method::GET]),
    ("/metrics", &[Method::GET]),
    ("/api/v1/status", &[Method::GET]),
    ("/api/v1/events", &[Method::GET]),
    ("/api/v1/studies", &[Method::GET]),
    ("/api/v1/studies/2.25.100", &[Method::GET]),
    ("/api/v1/transfers", &[Method::GET]),
    ("/api/v1/transfers/01JD8Z6Q3M5V7X9B2C4D6F8G0H", &[Method::GET]),
    ("/api/v1/transfers/01JD8Z6Q3M5V7X9B2C4D6F8G0H/deliveries", &[Method::GET]),
    ("/api/v1/transfers/01JD8Z6Q3M5V7X9B2C4D6F8G0H/retry", &[Method::POST]),
    ("/api/v1/transfers/01JD8Z6Q3M5V7X9B2C4D6F8G0H/cancel", &[Method::POST]),
    ("/api/v1/transfers/01JD8Z6Q3M5V7X9B2C4D6F8G0H/pause", &[Method::POST]),
    ("/api/v1/transfers/01JD8Z6Q3M5V7X9B2C4D6F8G0H/resume", &[Method::POST]),
    ("/api/v1/transfers/01JD8Z6Q3M5V7X9B2C4D6F8G0H/priority", &[Method::POST]),
    // What only the administrator's socket serves, and what nobody serves.
    ("/api/v1/web-link", &[Method::POST]),
    ("/api/v1/instances", &[Method::POST]),
    ("/api/v1/routes/explain", &[Method::POST]),
    ("/api/v1/objects/01JD8Z6Q3M5V7X9B2C4D6F8G0H/part10", &[Method::GET]),
    ("/nothing", &[Method::GET]),
    ("/api/v1/nothing", &[Method::GET]),
];
/// What a stranger reaches.
const OPEN: &[&str] = &["/sign-in", "/assets/", "/healthz", "/readyz", "/metrics"];
const METHODS: &[Method] = &[
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
    Method::OPTIONS,
];

#[tokio::test]
async fn a_stranger_sees_nothing_of_a_patient_whatever_they_ask_for() {
    let node = Node::start().await;
    let id = node.images(&ANNA, 0..3, INFIRMARY, Priority::Emergency).await;
    let stale = "gantry=not-a-session; __Host-gantry=neither";

    for (path, _) in ROUTES {
        for method in METHODS {
            for cookie in [None, Some(stale)] {
                let path = path.replace("01JD8Z6Q3M5V7X9B2C4D6F8G0H", &id.to_string());
                let mut request = request(method.clone(), &path);
                request.headers_mut().insert("sec-fetch-site", "same-origin".parse().unwrap());
                if let Some(cookie) = cookie {
                    request.headers_mut().insert(header::COOKIE, cookie.parse().unwrap());
                }
                let answer = node.ask(request).await;
                for secret in [
                    "SMITH",
                    "Smith",
                    "9434765919",
                    "943 476 5919",
                    "2.25.100",
                    "CT Head",
                    &id.to_string(),
                ] {
                    assert!(!answer.body.contains(secret), "{method} {path} says {secret}");
                }
                if !OPEN.iter().any(|open| path.starts_with(open)) {
                    let turned_away = match answer.status {
                        StatusCode::SEE_OTHER => answer.location() == Some("/sign-in"),
                        status => {
                            status == StatusCode::UNAUTHORIZED
                                && (answer.body.is_empty() || answer.json()["hint"].is_string())
                        }
                    };
                    assert!(
                        turned_away,
                        "{method} {path}: {} {:?}",
                        answer.status,
                        answer.location()
                    );
                }
            }
        }
    }
    let transfer = node.state.index.transfer(id).await.unwrap().unwrap();
    assert!(transfer.transfer.cancelled.is_none());
}

#[tokio::test]
async fn every_answer_tells_the_browser_what_it_may_do() {
    let node = Node::start().await;
    let cookie = node.cookie("A Registrar");
    node.state.stop.cancel(); // so that event streams end

    for (path, methods) in ROUTES {
        for (method, signed_in) in
            methods.iter().flat_map(|method| [(method, false), (method, true)])
        {
            let mut request = request(method.clone(), path);
            if signed_in {
                request.headers_mut().insert(header::COOKIE, cookie.parse().unwrap());
            }
            let answer = node.ask(request).await;
            let header = |name: &str| {
                answer.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
            };
            assert!(
                header("content-security-policy")
                    .starts_with("default-src 'none'; script-src 'self'"),
                "{path}"
            );
            assert_eq!(header("x-content-type-options"), "nosniff", "{path}");
            assert_eq!(header("cross-origin-opener-policy"), "same-origin", "{path}");
            if !path.starts_with("/assets/") {
                assert!(
                    matches!(header("cache-control"), "no-store" | "no-cache"),
                    "{path}: {}",
                    header("cache-control")
                );
            }
            for inline in ["<script>", "style=", " onclick", "javascript:"] {
                assert!(!answer.body.contains(inline), "{path} has {inline}");
            }
        }
    }
}

#[tokio::test]
async fn a_link_signs_one_browser_in_once_and_opening_it_does_not_use_it() {
    let node = Node::start().await;
    let path = format!("/sign-in/{}", node.state.sessions.issue_link());

    let opened = [node.ask(get(&path)).await, node.ask(get(&path)).await];
    let signed_in = node.ask(form(&path, "name=A+Registrar")).await;
    let again = node.ask(form(&path, "name=Someone+else")).await;
    let opened_late = node.ask(get(&path)).await;

    assert!(opened.iter().all(
        |page| page.status == StatusCode::OK && page.body.contains("Sign in on this computer")
    ));
    assert_eq!((signed_in.status, signed_in.location()), (StatusCode::SEE_OTHER, Some("/")));
    assert_eq!((again.status, opened_late.status), (StatusCode::FORBIDDEN, StatusCode::FORBIDDEN));
    let cookie = signed_in.headers[header::SET_COOKIE].to_str().unwrap();
    assert!(
        cookie.starts_with("gantry=") && cookie.ends_with("; Path=/; HttpOnly; SameSite=Strict"),
        "{cookie}"
    );
    let mut board = get("/");
    board.headers_mut().insert(header::COOKIE, cookie.split(';').next().unwrap().parse().unwrap());
    assert_eq!(node.ask(board).await.status, StatusCode::OK);
}

#[tokio::test]
async fn over_https_the_cookie_is_bound_to_the_host() {
    let mut node = Node::start().await;
    let mut config = Config::clone(&node.state.config);
    config.web.as_mut().unwrap().url = Some("https://gantry.example".to_owned());
    node.state.config = Arc::new(config);
    let path = format!("/sign-in/{}", node.state.sessions.issue_link());

    let cookie =
        node.ask(form(&path, "")).await.headers[header::SET_COOKIE].to_str().unwrap().to_owned();

    assert!(
        cookie.starts_with("__Host-gantry=")
            && cookie.ends_with("; Path=/; HttpOnly; SameSite=Strict; Secure"),
        "{cookie}"
    );
    assert_eq!(node.read("/").await.status, StatusCode::SEE_OTHER, "a cookie of plain http counts");
}

#[tokio::test]
async fn signing_out_ends_the_session() {
    let node = Node::start().await;
    let cookie = node.cookie("A Registrar");
    let with_cookie = |mut request: Request<Body>| {
        request.headers_mut().insert(header::COOKIE, cookie.parse().unwrap());
        request
    };

    let out = node.ask(with_cookie(form("/sign-out", ""))).await;

    assert!(out.headers[header::SET_COOKIE].to_str().unwrap().contains("Max-Age=0"));
    assert_eq!(node.ask(with_cookie(get("/"))).await.location(), Some("/sign-in"));
}

#[tokio::test]
async fn a_form_on_another_site_changes_nothing() {
    let node = Node::start().await;
    let id = node.images(&ANNA, 0..3, INFIRMARY, Priority::Emergency).await;
    let path = format!("/transfers/{id}/cancel");
    let post = |from: &[(&'static str, &str)]| {
        let mut request = form(&path, "reason=because");
        request.headers_mut().remove("sec-fetch-site");
        request.headers_mut().insert(header::COOKIE, node.cookie("A Registrar").parse().unwrap());
        for (name, value) in from {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        request
    };

    for from in [
        &[][..],
        &[("sec-fetch-site", "cross-site")],
        &[("sec-fetch-site", "same-site")],
        &[("sec-fetch-site", "none")],
        &[("sec-fetch-site", "cross-site"), ("origin", "http://127.0.0.1:8080")],
        &[("origin", "null")],
        &[("origin", "http://evil.example")],
        &[("origin", "http://127.0.0.1:9999")],
        &[("origin", "https://127.0.0.1:8080")],
    ] {
        assert_eq!(node.ask(post(from)).await.status, StatusCode::FORBIDDEN, "{from:?}");
    }
    let untouched = node.state.index.transfer(id).await.unwrap().unwrap();
    assert!(untouched.transfer.cancelled.is_none());

    for from in [&[("sec-fetch-site", "same-origin")], &[("origin", "http://127.0.0.1:8080")]] {
        assert_eq!(node.ask(post(from)).await.status, StatusCode::SEE_OTHER, "{from:?}");
    }
    let cancelled =
        node.state.index.transfer(id).await.unwrap().unwrap().transfer.cancelled.unwrap();
    assert_eq!(
        (cancelled.by.as_str(), cancelled.reason.as_deref()),
        ("A Registrar", Some("because"))
    );
}

#[tokio::test]
async fn another_name_for_this_machine_is_not_served() {
    let node = Node::start().await;
    let asked_for = |host: &str| {
        let mut request = get("/sign-in");
        request.headers_mut().insert(header::HOST, host.parse().unwrap());
        request
    };
    assert_eq!(
        node.ask(asked_for("evil.example:8080")).await.status,
        StatusCode::MISDIRECTED_REQUEST
    );
    assert_eq!(node.ask(asked_for("localhost:8080")).await.status, StatusCode::OK);
    let mut nameless = get("/sign-in");
    nameless.headers_mut().clear();
    assert_eq!(node.ask(nameless).await.status, StatusCode::MISDIRECTED_REQUEST);
}

#[tokio::test]
async fn what_a_sender_wrote_is_shown_as_text() {
    let node = Node::start().await;
    let hostile = Patient {
        name: "<script>alert(1)</script>^'\"><img",
        description: "<b>XR</b> & more",
        id: "\"><svg",
        ..ANNA
    };
    let id = node.images(&hostile, 0..1, INFIRMARY, Priority::Emergency).await;

    for page in [node.read("/").await, node.read(&format!("/transfers/{id}")).await] {
        assert_eq!(page.status, StatusCode::OK);
        assert!(page.body.contains("&#60;SCRIPT&#62;ALERT(1)"), "{}", page.body);
        for raw in ["<SCRIPT", "<script>", "<img", "<b>XR", "<svg\"", "\"><svg"] {
            assert!(!page.body.contains(raw), "{raw}");
        }
    }
}

#[tokio::test]
async fn the_board_shows_what_needs_action_first_then_the_longest_wait() {
    let node = Node::start().await;
    let patient = |study, name, ago| Patient { study, name, ago, ..ANNA };
    node.images(&patient(1, "DONE^D", 900), 0..2, INFIRMARY, Priority::Emergency).await;
    node.settle(&node.claim(INFIRMARY, 2).await, &accepted()).await;
    node.images(&patient(2, "REFUSED^R", 10), 0..2, INFIRMARY, Priority::Emergency).await;
    let why = failure(FailureKind::Refused, "partner answered A900H");
    node.settle(&node.claim(INFIRMARY, 2).await, &Event::Reject { why }).await;
    node.images(&patient(3, "SHORT^S", 20), 0..2, INFIRMARY, Priority::Emergency).await;
    node.images(&patient(4, "LONG^L", 300), 0..2, INFIRMARY, Priority::Emergency).await;
    node.images(&patient(5, "ROUTINE^R", 9000), 0..2, INFIRMARY, Priority::Routine).await;

    let board = node.read("/").await.body;
    let all = node.read("/?priority=all").await.body;
    let only_action = node.read("/?show=needs-action").await.body;
    let elsewhere = node.read("/?partner=york-ed").await.body;

    let place =
        |name: &str| board.find(name).unwrap_or_else(|| panic!("{name} is not on the board"));
    let order = ["REFUSED, R", "LONG, L", "SHORT, S", "DONE, D"].map(place);
    assert!(order.is_sorted(), "{order:?}");
    assert!(!board.contains("ROUTINE") && all.contains("ROUTINE, R"));
    assert!(only_action.contains("REFUSED, R") && !only_action.contains("LONG, L"));
    assert!(elsewhere.contains("No emergency transfer is under way."));
    assert!(
        board.contains(
            "1 transfer needs action, 2 in progress, 1 sent or ended in the last 24 hours."
        )
    );
    assert_eq!(node.read("/?show=nonsense").await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn what_the_script_asks_for_has_every_live_part_of_the_page_and_no_shell() {
    let node = Node::start().await;
    let id = node.images(&ANNA, 0..3, INFIRMARY, Priority::Emergency).await;
    let live_parts = |html: &str| {
        let tags =
            html.split('<').filter(|tag| tag.contains(" data-keep") || tag.contains(" data-swap"));
        let ids = tags
            .map(|tag| tag.split("id=\"").nth(1).unwrap().split('"').next().unwrap().to_owned());
        ids.collect::<Vec<_>>()
    };

    for path in ["/".to_owned(), format!("/transfers/{id}")] {
        let page = node.read(&path).await.body;
        let source = page
            .split("data-live=\"")
            .nth(1)
            .unwrap()
            .split('"')
            .next()
            .unwrap()
            .replace("&#38;", "&");
        let fragment = node.read(&source).await.body;
        assert!(page.contains("<html") && !fragment.contains("<html"), "{path}");
        assert!(live_parts(&page).contains(&"updated".to_owned()), "{path}");
        assert_eq!(live_parts(&page), live_parts(&fragment), "{path}");
    }
}

#[tokio::test]
async fn buttons_do_what_they_say_and_the_timeline_says_who() {
    let node = Node::start().await;
    let id = node.images(&ANNA, 0..3, INFIRMARY, Priority::Routine).await;
    let press = async |button: &str, fields: &str| {
        let mut request = form(&format!("/transfers/{id}/{button}"), fields);
        request
            .headers_mut()
            .insert(header::COOKIE, node.cookie("Dr A Registrar").parse().unwrap());
        node.ask(request).await.status
    };

    assert_eq!(press("emergency", "").await, StatusCode::SEE_OTHER);
    assert_eq!(press("pause", "").await, StatusCode::SEE_OTHER);
    assert_eq!(press("resume", "").await, StatusCode::SEE_OTHER);
    assert_eq!(press("cancel", "reason=+").await, StatusCode::BAD_REQUEST, "a reason is needed");
    assert_eq!(press("cancel", "reason=wrong+trust").await, StatusCode::SEE_OTHER);
    assert_eq!(press("retry", "").await, StatusCode::SEE_OTHER);
    assert_eq!(press("explode", "").await, StatusCode::NOT_FOUND);

    let page = node.read(&format!("/transfers/{id}")).await.body;
    for said in [
        "Made more urgent",
        "Paused",
        "Resumed",
        "Cancelled",
        "Tried again on request",
        "By Dr A Registrar",
        "“wrong trust”",
    ] {
        assert!(page.contains(said), "{said}");
    }
    let woken = node.bell.0.lock().unwrap().clone();
    assert!(woken.contains(&(INFIRMARY.to_owned(), Priority::Emergency)), "{woken:?}");
    assert_eq!(*node.bell.2.lock().unwrap(), [INFIRMARY]);
}

#[tokio::test]
async fn pages_that_do_not_exist_say_so_without_internals() {
    let node = Node::start().await;
    for path in ["/nothing", "/transfers/nothing", "/transfers/01JD8Z6Q3M5V7X9B2C4D6F8G0H"] {
        let page = node.read(path).await;
        assert_eq!(page.status, StatusCode::NOT_FOUND, "{path}");
        assert!(page.body.contains("<h1>Not found</h1>"), "{path}");
    }
    let problem = node.read("/api/v1/transfers/01JD8Z6Q3M5V7X9B2C4D6F8G0H").await;
    assert_eq!(problem.headers[header::CONTENT_TYPE], "application/problem+json");
    assert_eq!(
        (problem.json()["status"].as_u64(), problem.json()["title"].as_str()),
        (Some(404), Some("Not found"))
    );
    assert_eq!(node.read("/api/v1/transfers?colour=red").await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn the_api_tells_programs_what_pages_tell_people() {
    let node = Node::start().await;
    let id = node.images(&ANNA, 0..3, INFIRMARY, Priority::Emergency).await;
    let claimed = node.claim(INFIRMARY, 3).await;
    node.settle(&claimed[..1], &accepted()).await;

    let sending =
        node.ask_admin(get("/api/v1/transfers?state=sending&priority=emergency")).await.json();
    let sent = node.ask_admin(get("/api/v1/transfers?state=sent")).await.json();
    let one = node.ask_admin(get(&format!("/api/v1/transfers/{id}"))).await.json();
    let deliveries =
        node.ask_admin(get(&format!("/api/v1/transfers/{id}/deliveries"))).await.json();
    let status = node.ask_admin(get("/api/v1/status")).await.json();
    let studies =
        node.ask_admin(get("/api/v1/studies?accession_number=RXX-2026-004711")).await.json();

    assert_eq!(
        (sending[0]["id"].as_str(), sent.as_array().map(Vec::len)),
        (Some(id.to_string().as_str()), Some(0))
    );
    assert_eq!(
        (one["state"].as_str(), one["sentence"].as_str()),
        (Some("sending"), Some("1 of 3 images."))
    );
    assert_eq!(
        (one["partner_name"].as_str(), one["counts"]["delivered"].as_u64()),
        (Some("St Elsewhere"), Some(1))
    );
    assert_eq!(
        (deliveries[0]["state"].as_str(), deliveries[1]["state"].as_str()),
        (Some("delivered"), Some("sending"))
    );
    let infirmary = &status["partners"][0];
    let count = |what: &str| infirmary[what].as_u64().unwrap();
    assert_eq!(
        count("ordered"),
        count("delivered") + count("waiting") + count("set_aside") + count("cancelled")
    );
    assert_eq!((count("ordered"), status["ae_title"].as_str()), (3, Some("GANTRY")));
    assert_eq!(studies[0]["study_instance_uid"], "2.25.100");
    let gone = node.ask_admin(get("/api/v1/studies/1.2.3")).await;
    assert_eq!(gone.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_socket_acts_in_the_name_that_the_command_line_gives() {
    let node = Node::start().await;
    let id = node.images(&ANNA, 0..3, INFIRMARY, Priority::Routine).await;
    let mut pause = request(Method::POST, &format!("/api/v1/transfers/{id}/pause"));
    pause.headers_mut().insert("gantry-actor", "anna".parse().unwrap());
    *pause.body_mut() = Body::from(r#"{"reason": "wait for the porter"}"#);
    let mut raise = request(Method::POST, &format!("/api/v1/transfers/{id}/priority"));
    *raise.body_mut() = Body::from(r#"{"priority": "emergency"}"#);

    let paused = node.ask_admin(pause).await.json();
    let raised = node.ask_admin(raise).await.json();

    assert_eq!(
        (paused["transfer"]["state"].as_str(), paused["transfer"]["paused"]["by"].as_str()),
        (Some("paused"), Some("anna (command line)"))
    );
    assert_eq!(
        (raised["changed"].as_u64(), raised["transfer"]["priority"].as_str()),
        (Some(3), Some("emergency"))
    );
    let nothing =
        node.ask_admin(request(Method::POST, &format!("/api/v1/transfers/{id}/priority"))).await;
    assert_eq!(
        (nothing.status, nothing.json()["hint"].is_string()),
        (StatusCode::BAD_REQUEST, true)
    );
}

#[tokio::test]
async fn the_administrator_gets_a_link_that_works() {
    let node = Node::start().await;

    let link = node.ask_admin(request(Method::POST, "/api/v1/web-link")).await.json();

    let path = link["url"].as_str().unwrap().strip_prefix("http://127.0.0.1:8080").unwrap();
    assert_eq!(node.ask(form(path, "")).await.status, StatusCode::SEE_OTHER);
    assert!(link["expires_at"].as_str().unwrap().parse::<Timestamp>().unwrap() > Timestamp::now());
}

/// The smallest data set that intake takes, in Explicit VR Little Endian.
fn data_set(instance: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (group, element, vr, value) in [
        (0x0008_u16, 0x0016_u16, b"UI", "1.2.840.10008.5.1.4.1.1.2"),
        (0x0008, 0x0018, b"UI", instance),
        (0x0010, 0x0010, b"PN", "SMITH^ANNA"),
        (0x0020, 0x000D, b"UI", "2.25.100"),
        (0x0020, 0x000E, b"UI", "2.25.101"),
    ] {
        let mut value = value.as_bytes().to_vec();
        value.resize(value.len().next_multiple_of(2), if vr == b"UI" { 0 } else { b' ' });
        bytes.extend_from_slice(&group.to_le_bytes());
        bytes.extend_from_slice(&element.to_le_bytes());
        bytes.extend_from_slice(vr);
        bytes.extend_from_slice(&u16::try_from(value.len()).unwrap().to_le_bytes());
        bytes.extend_from_slice(&value);
    }
    bytes
}

fn file(instance: &str) -> Vec<u8> {
    let meta = part10::FileMeta {
        transfer_syntax: gantry_store::dicom::TransferSyntax::explicit_vr_little_endian(),
        sop_class: "1.2.840.10008.5.1.4.1.1.2".parse().ok(),
        sop_instance: instance.parse().ok(),
    };
    [part10::head(&meta), data_set(instance)].concat()
}

fn upload(query: &str, batch: Option<&str>, body: &[u8]) -> Request<Body> {
    let mut request = request(Method::POST, &format!("/api/v1/instances{query}"));
    if let Some(batch) = batch {
        request.headers_mut().insert("gantry-batch", batch.parse().unwrap());
    }
    let pieces: Vec<_> =
        body.chunks(100).map(|piece| Ok::<_, std::io::Error>(piece.to_vec())).collect();
    *request.body_mut() = Body::from_stream(futures_util::stream::iter(pieces));
    request
}

#[tokio::test]
async fn a_file_that_is_uploaded_is_taken_in_like_one_from_an_association() {
    let mut node = Node::start().await;
    let router = admin_router(node.state.clone());
    let study = "2.25.100".parse().unwrap();

    let to = "?to=royal-infirmary&priority=emergency";
    let first = answer(router.clone(), upload(to, Some("batch 1"), &file("2.25.1"))).await;
    let second = answer(router.clone(), upload(to, Some("batch 1"), &file("2.25.2"))).await;

    assert_eq!(
        (first.status, second.status),
        (StatusCode::CREATED, StatusCode::CREATED),
        "{}",
        first.body
    );
    assert_eq!(first.json()["study_instance_uid"], "2.25.100");
    assert_eq!(first.json()["length"].as_u64(), Some(data_set("2.25.1").len() as u64));
    assert!(node.state.open_studies.contains(&study), "the batch is open");
    let Some(Arrived::Instance(facts)) = node.arrivals.recv().await else {
        panic!("nothing arrived")
    };
    let addressed = facts.origin.addressed_to.as_ref().unwrap();
    assert_eq!(
        (addressed.partner.as_str(), addressed.purpose),
        (INFIRMARY, Purpose::EmergencyTransfer)
    );
    assert_eq!(
        (facts.origin.listener.as_str(), facts.origin.calling_ae_title.as_str()),
        ("cli", "GANTRY")
    );

    let object = first.json()["object"].as_str().unwrap().to_owned();
    let exported = answer(router.clone(), get(&format!("/api/v1/objects/{object}/part10"))).await;
    assert_eq!(exported.body.as_bytes(), String::from_utf8_lossy(&file("2.25.1")).as_bytes());

    let ended = answer(router, request(Method::DELETE, "/api/v1/batches/batch%201")).await;
    assert_eq!(ended.status, StatusCode::NO_CONTENT);
    assert!(matches!(node.arrivals.recv().await, Some(Arrived::Instance(_))));
    assert!(
        matches!(node.arrivals.recv().await, Some(Arrived::Ended(studies)) if studies == [study])
    );
}

#[tokio::test]
async fn a_batch_that_its_client_left_ends_by_itself() {
    let mut node = Node::start().await;
    let router = admin_router(node.state.clone());

    assert_eq!(
        answer(router, upload("", Some("left"), &file("2.25.1"))).await.status,
        StatusCode::CREATED
    );

    assert!(matches!(node.arrivals.recv().await, Some(Arrived::Instance(_))));
    assert!(node.arrivals.try_recv().is_err(), "another file may follow");
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(31)).await;
    assert!(matches!(node.arrivals.recv().await, Some(Arrived::Ended(_))));
}

#[tokio::test]
async fn an_upload_that_cannot_be_taken_says_why() {
    let node = Node::start().await;
    let mut cut = file("2.25.1");
    cut.truncate(cut.len() - 3);
    for (query, body, status, said) in [
        (
            "?to=royal-infirmry",
            file("2.25.1"),
            StatusCode::NOT_FOUND,
            "Did you mean royal-infirmary?",
        ),
        ("?to=york-ed", file("2.25.1"), StatusCode::FORBIDDEN, "receive"),
        ("?to=royal-infirmary&purpose=research", file("2.25.1"), StatusCode::FORBIDDEN, "identity"),
        ("?priority=emergency", file("2.25.1"), StatusCode::BAD_REQUEST, "partner"),
        ("?to=royal-infirmary&priority=stat", file("2.25.1"), StatusCode::BAD_REQUEST, "query"),
        ("", b"not DICOM at all".to_vec(), StatusCode::UNPROCESSABLE_ENTITY, "DICM"),
        ("", cut, StatusCode::UNPROCESSABLE_ENTITY, "not taken"),
        (
            "",
            [file("2.25.1")[..200].to_vec(), vec![7; 3000]].concat(),
            StatusCode::UNPROCESSABLE_ENTITY,
            "not taken",
        ),
        (
            "",
            [file("2.25.1"), b"\xE0\x7F\x10\x00OW\0\0\0\0\x20\0".to_vec(), vec![0; 2 << 20]]
                .concat(),
            StatusCode::PAYLOAD_TOO_LARGE,
            "longer than",
        ),
    ] {
        let answer = node.ask_admin(upload(query, None, &body)).await;
        assert_eq!(answer.status, status, "{query}: {}", answer.body);
        assert!(answer.body.contains(said), "{query}: {}", answer.body);
    }
}

#[tokio::test]
async fn routes_are_explained_for_an_instance_that_is_here() {
    let mut node = Node::start().await;
    let taken = node.ask_admin(upload("", None, &file("2.25.1"))).await;
    assert_eq!(taken.status, StatusCode::CREATED);
    let Some(Arrived::Instance(facts)) = node.arrivals.recv().await else {
        panic!("nothing arrived")
    };
    node.state.index.record(&[Arrival { facts: *facts, routed: Vec::new() }]).await.unwrap();
    let ask = |body: &'static str| {
        let mut request = request(Method::POST, "/api/v1/routes/explain");
        *request.body_mut() = Body::from(body);
        request
    };

    let explained = node.ask_admin(ask(r#"{"instance": "2.25.1"}"#)).await;

    assert_eq!(explained.json()["routes"][0]["matches"], true, "{}", explained.body);
    assert_eq!(
        node.ask_admin(ask(r#"{"instance": "2.25.9"}"#)).await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(node.ask_admin(ask("{}")).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn health_is_told_to_everyone_and_says_what_is_wrong() {
    let node = Node::start().await;
    node.images(&ANNA, 0..3, INFIRMARY, Priority::Routine).await;

    let (alive, ready, metrics) = (
        node.ask(get("/healthz")).await,
        node.ask(get("/readyz")).await,
        node.ask(get("/metrics")).await,
    );

    assert_eq!((alive.status, alive.body.as_str()), (StatusCode::OK, "ok\n"));
    assert_eq!((ready.status, ready.json()["ready"].as_bool()), (StatusCode::OK, Some(true)));
    assert!(
        metrics.body.contains("gantry_deliveries{partner=\"royal-infirmary\",state=\"Waiting\"} 3"),
        "{}",
        metrics.body
    );
    assert!(metrics.body.ends_with("# EOF\n"));

    node.state.index.close().await;
    let unready = node.ask(get("/readyz")).await;
    assert_eq!(unready.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(unready.json()["checks"][0]["ok"], false);
}

#[tokio::test]
async fn events_follow_changes_and_end_with_the_node_and_with_the_session() {
    let node = Node::start().await;
    let cookie = node.cookie("A Registrar");
    let listen = async || {
        let mut request = get("/events");
        request.headers_mut().insert(header::COOKIE, cookie.parse().unwrap());
        TowerToHyperService::new(public_router(node.state.clone()))
            .call(request)
            .await
            .unwrap()
            .into_body()
    };
    let next = async |body: &mut Body| {
        let frame = tokio::time::timeout(Duration::from_secs(5), body.frame())
            .await
            .expect("an event in time");
        frame.map(|frame| String::from_utf8(frame.unwrap().into_data().unwrap().to_vec()).unwrap())
    };

    let mut stream = listen().await;
    let at_once = next(&mut stream).await.unwrap();
    for _ in 0..100 {
        node.bell.changed();
    }
    let gathered = next(&mut stream).await.unwrap();

    assert!(at_once.contains("event: changed\n") && at_once.contains("id: 0\n"), "{at_once}");
    assert!(gathered.contains("id: 100\n"), "{gathered}");
    let mut other = listen().await;
    next(&mut other).await;
    node.state.sessions.sign_out(cookie.strip_prefix("gantry=").unwrap());
    node.bell.changed();
    assert_eq!(next(&mut other).await, None);
    node.state.stop.cancel();
    assert_eq!(next(&mut stream).await, None);
}

#[tokio::test]
async fn the_server_stops_with_a_stream_open_and_cuts_nobody_who_is_being_answered() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let node = Node::start().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(serve(
        listener,
        None,
        public_router(node.state.clone()),
        node.state.stop.clone(),
    ));
    let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
    let request =
        format!("GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: {}\r\n\r\n", node.cookie(""));
    client.write_all(request.as_bytes()).await.unwrap();
    let mut begun = [0; 15];
    client.read_exact(&mut begun).await.unwrap();

    node.state.stop.cancel();

    assert_eq!(&begun, b"HTTP/1.1 200 OK");
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).await.unwrap();
    assert!(rest.ends_with(b"0\r\n\r\n"), "the stream ends as a stream should");
    tokio::time::timeout(Duration::from_secs(10), serving).await.expect("stops").unwrap();
}
