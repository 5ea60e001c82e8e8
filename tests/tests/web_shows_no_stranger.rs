//! Pages and API show nothing about a patient to anyone who is not signed in, and the board to who is.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)] // a panic is how a test fails

use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::Command as Blocking;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gantry_tests::http::{Answer, Ask};
use gantry_tests::{Dcmtk, Gateway, Sender, Setup};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use sample_studies::{HeadCt, Study};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::task::JoinSet;

/// A node with a study that went to a partner, whose patient strangers must not learn of.
struct Scene {
    gateway: Gateway,
    study: Study,
    transfer: String,
}

impl Scene {
    async fn set() -> Self {
        let clinic = Dcmtk::storescp("CLINIC").start().await;
        // The board shows emergencies first of all.
        let gateway = Setup::new()
            .source("pacs", "PACS")
            .partner("partner", clinic.ae_title(), clinic.port())
            .route("GANTRY", &["partner"], "emergency")
            .start()
            .await;
        let study = HeadCt::small(1).build();
        let mut sender = Sender::connect(gateway.plaintext(), &study.instances).await.unwrap();
        sender.store_all(&study.instances).await;
        sender.release().await;
        gateway.delivered("partner", study.len()).await;
        let transfer = gateway.api("/api/v1/transfers").await[0]["id"].as_str().unwrap().to_owned();
        Self { gateway, study, transfer }
    }

    fn origin(&self) -> String {
        format!("http://{}", self.gateway.web())
    }

    /// The path of a link that the command line made.
    async fn link(&self) -> String {
        let output = self.gateway.command(&["web", "link", "--json"]).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let link: Value = serde_json::from_slice(&output.stdout).unwrap();
        let url = link["url"].as_str().unwrap();
        url.strip_prefix(&self.origin()).expect("the link leads to the node's pages").to_owned()
    }

    async fn sign_in(&self, link: &str) -> Answer {
        let ask = Ask::post(link).origin(&self.origin()).form("name=A+Registrar");
        ask.to(self.gateway.web()).await.unwrap()
    }

    /// The cookie of a session, as a browser would send it back.
    async fn session(&self) -> String {
        let answer = self.sign_in(&self.link().await).await;
        assert_eq!(answer.status, 303, "{}", answer.text());
        answer.header("set-cookie").unwrap().split(';').next().unwrap().to_owned()
    }

    fn says_nothing_of_the_patient(&self, what: &str, text: &str) {
        let text = text.to_lowercase();
        for planted in self.study.planted().into_iter().filter(|planted| planted.text.len() > 4) {
            let found = planted
                .text
                .split('^')
                .any(|part| part.len() > 4 && text.contains(&part.to_lowercase()));
            assert!(!found, "{what} shows the {}", planted.attribute);
        }
        assert!(!text.contains(self.study.study_instance_uid()), "{what} shows the study");
    }
}

#[tokio::test]
async fn every_address_but_a_few_is_closed_to_strangers() {
    let scene = Scene::set().await;
    let (id, study) = (&scene.transfer, scene.study.study_instance_uid());
    let origin = scene.origin();
    let pages =
        ["/".to_owned(), format!("/transfers/{id}"), "/nowhere".to_owned(), "//".to_owned()];
    let programs = [
        "/events".to_owned(),
        "/api/v1/status".to_owned(),
        "/api/v1/transfers".to_owned(),
        format!("/api/v1/transfers/{id}"),
        format!("/api/v1/transfers/{id}/deliveries"),
        "/api/v1/studies".to_owned(),
        format!("/api/v1/studies/{study}"),
        "/api/v1/events".to_owned(),
        "/api/v1/web-link".to_owned(),
        "/api/v1/nowhere".to_owned(),
    ];
    let actions = ["retry", "cancel", "pause", "resume", "priority"];
    let acts = actions.iter().flat_map(|act| {
        [format!("/transfers/{id}/{act}"), format!("/api/v1/transfers/{id}/{act}")]
    });
    let acts: Vec<_> =
        acts.chain(["/sign-out".to_owned(), "/api/v1/web-link".to_owned()]).collect();

    for cookie in
        ["", "gantry=", "gantry=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "__Host-gantry=x"]
    {
        for (path, expected) in pages
            .iter()
            .map(|page| (page, 303))
            .chain(programs.iter().map(|address| (address, 401)))
        {
            let answer = Ask::get(path).cookie(cookie).to(scene.gateway.web()).await.unwrap();
            assert_eq!(answer.status, expected, "GET {path} with {cookie:?}");
            assert!(expected != 303 || answer.header("location") == Some("/sign-in"), "GET {path}");
            scene.says_nothing_of_the_patient(path, &answer.text());
        }
        for path in &acts {
            let ask = || Ask::post(path).cookie(cookie).form("reason=x");
            let from_elsewhere =
                ask().origin("http://evil.example").to(scene.gateway.web()).await.unwrap();
            assert_eq!(from_elsewhere.status, 403, "POST {path} from elsewhere");
            let from_nowhere = ask().to(scene.gateway.web()).await.unwrap();
            assert_eq!(from_nowhere.status, 403, "POST {path} from nowhere");
            let from_here = ask().origin(&origin).to(scene.gateway.web()).await.unwrap();
            assert!([303, 401].contains(&from_here.status), "POST {path}: {}", from_here.status);
            scene.says_nothing_of_the_patient(path, &from_here.text());
        }
    }

    for path in ["/healthz", "/readyz", "/metrics", "/sign-in", "/sign-in/no-such-link"] {
        let answer = Ask::get(path).to(scene.gateway.web()).await.unwrap();
        scene.says_nothing_of_the_patient(path, &answer.text());
        let policy = answer.header(CONTENT_SECURITY_POLICY.as_str()).unwrap_or_default();
        assert!(policy.starts_with("default-src 'none'"), "{path}: {policy}");
    }
    let stranger = Ask::with_method(Method::TRACE, "/").to(scene.gateway.web()).await.unwrap();
    assert!(stranger.status >= 300, "TRACE: {}", stranger.status);
    assert_eq!(scene.gateway.conservation("partner").await.delivered, scene.study.len() as u64);
}

#[tokio::test]
async fn a_link_from_the_command_line_signs_in_one_person_once() {
    let scene = Scene::set().await;
    let link = scene.link().await;

    // Looking at the link, as mail filters do, does not use it up.
    for _ in 0..2 {
        assert_eq!(Ask::get(&link).to(scene.gateway.web()).await.unwrap().status, 200);
    }
    let signed_in = scene.sign_in(&link).await;
    let again = scene.sign_in(&link).await;

    let cookie = signed_in.header("set-cookie").unwrap();
    for needed in ["HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(cookie.contains(needed), "{cookie}");
    }
    assert_eq!((signed_in.status, again.status), (303, 403));
    assert!(again.header("set-cookie").is_none());
    let cookie = cookie.split(';').next().unwrap();
    let board = Ask::get("/").cookie(cookie).to(scene.gateway.web()).await.unwrap();
    assert_eq!(board.status, 200);
    assert!(board.text().contains(&scene.transfer), "the board lacks the transfer");
    let out = Ask::post("/sign-out")
        .cookie(cookie)
        .origin(&scene.origin())
        .to(scene.gateway.web())
        .await
        .unwrap();
    assert_eq!(out.status, 303);
    assert_eq!(Ask::get("/").cookie(cookie).to(scene.gateway.web()).await.unwrap().status, 303);
}

#[tokio::test]
async fn what_only_an_administrator_may_do_is_not_on_the_web_at_all() {
    let scene = Scene::set().await;
    let session = scene.session().await;

    for path in ["/api/v1/web-link", "/api/v1/instances", "/api/v1/routes/explain"] {
        let ask = Ask::post(path)
            .cookie(&session)
            .origin(&scene.origin())
            .body("application/json", b"{}");
        assert_eq!(ask.to(scene.gateway.web()).await.unwrap().status, 404, "{path}");
    }
    let wrong_host = Ask::get("/").cookie(&session).header("x-forwarded-host", "evil.example");
    assert_eq!(wrong_host.to(scene.gateway.web()).await.unwrap().status, 200);
    let socket = std::fs::metadata(scene.gateway.data_dir().join("admin.sock")).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&socket.permissions()) & 0o777, 0o600);
}

#[tokio::test]
async fn a_browser_that_is_signed_in_shows_the_patient_on_the_board() {
    let scene = Scene::set().await;
    let (proxy, _running) = with_cookie(scene.gateway.web(), scene.session().await).await;
    let name = scene.study.patient.name.split('^').next().unwrap().to_lowercase();

    let page = browse(&["--dump-dom"], proxy).await;

    assert!(page.to_lowercase().contains(&name), "the board lacks the patient:\n{page}");
    let picture = tempfile::tempdir().unwrap();
    let file = picture.path().join("board.png");
    browse(&["--window-size=1280,900", &format!("--screenshot={}", file.display())], proxy).await;
    let png = std::fs::read(&file).expect("the browser took a picture");
    assert!(
        png.starts_with(b"\x89PNG") && png.len() > 5_000,
        "the picture has {} bytes",
        png.len()
    );
}

/// Runs a browser without a window; what it printed.
async fn browse(arguments: &[&str], address: SocketAddr) -> String {
    let profile = tempfile::tempdir().unwrap();
    let mut command = Command::new(browser());
    // A sandbox needs rights that containers lack; the only page it sees is ours.
    command.args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
    ]);
    command.arg(format!("--user-data-dir={}", profile.path().display())).args(arguments);
    command.arg(format!("http://{address}/")).kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_mins(1), command.output()).await;
    let output = output.expect("the browser ends").expect("the browser starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn browser() -> &'static str {
    let found = ["chromium", "chromium-browser", "google-chrome"].into_iter().find(|name| {
        Blocking::new(name).arg("--version").output().is_ok_and(|output| output.status.success())
    });
    found.expect("no browser is installed; tests/run installs chromium")
}

/// A proxy that adds a session's cookie, which a browser cannot be given on its command line. It leaves event streams
/// out: the browser would wait for their end.
async fn with_cookie(to: SocketAddr, cookie: String) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let cookie = Arc::new(cookie);
    let mut running = JoinSet::new();
    running.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let cookie = cookie.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let cookie = cookie.clone();
                async move { Ok::<_, Infallible>(pass_on(&request, to, &cookie).await) }
            });
            connections.spawn(async move {
                // A browser that hangs up is no fault.
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    (address, running)
}

async fn pass_on(
    request: &Request<Incoming>,
    to: SocketAddr,
    cookie: &str,
) -> Response<Full<Bytes>> {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    if path.starts_with("/events") {
        return Response::builder().status(204).body(Full::default()).unwrap();
    }
    let answer =
        Ask::with_method(request.method().clone(), path).cookie(cookie).to(to).await.unwrap();
    let kind = answer.header(CONTENT_TYPE.as_str()).unwrap_or("text/html").to_owned();
    Response::builder()
        .status(answer.status)
        .header(CONTENT_TYPE, kind)
        .body(Full::new(answer.body))
        .unwrap()
}
