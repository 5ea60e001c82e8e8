//! What is stuck is said aloud, where it is seen and to those who are told, once when it begins and once when it has ended;
//! and what is said holds nothing of the patient.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)] // a panic is how a test fails

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use gantry_tests::http::Ask;
use gantry_tests::{
    Certificates, Dcmtk, Gateway, MailServer, MailTls, Receiver, ScriptedPartner, Sender, Setup,
    eventually,
};
use sample_studies::{HeadCt, Study, small_objects};
use serde_json::Value;

const SECRET: &str = "a secret of 27 letters, yes";
const QUICK: &str = "partner-silent = \"2s\"\nemergency-stalled = \"1s\"\nclear-for = \"1s\"\n";

fn secret_file(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    file.unwrap().write_all(text.as_bytes()).unwrap();
    path
}

async fn send(gateway: &Gateway, called: &str, study: &Study) {
    let mut sender =
        Sender::connect_as("PACS", called, gateway.plaintext(), &study.instances).await.unwrap();
    sender.store_all(&study.instances).await;
    sender.release().await;
}

fn scene(port: u16, alarm: &str) -> Setup {
    Setup::new()
        .source("pacs", "PACS")
        .partner("partner", "PARTNER", port)
        .route("EMERGENCY", &["partner"], "emergency")
        .alarm(&format!("{QUICK}{alarm}"))
}

async fn kinds(gateway: &Gateway) -> Vec<String> {
    let report = gateway.api("/api/v1/alarms").await;
    let alarms = report["alarms"].as_array().unwrap().clone();
    alarms.iter().map(|alarm| alarm["kind"].as_str().unwrap().to_owned()).collect()
}

async fn both_alarms(gateway: &Gateway) {
    eventually("both alarms", async || {
        (kinds(gateway).await == ["emergency-stalled", "partner-silent"]).then_some(())
    })
    .await;
}

async fn board(gateway: &Gateway) -> String {
    let output = gateway.command(&["web", "link", "--json"]).await;
    let link: Value = serde_json::from_slice(&output.stdout).unwrap();
    let origin = format!("http://{}", gateway.web());
    let path = link["url"].as_str().unwrap().strip_prefix(&origin).unwrap().to_owned();
    let ask = Ask::post(&path).origin(&origin).form("name=A+Registrar");
    let signed_in = ask.to(gateway.web()).await.unwrap();
    let cookie = signed_in.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    Ask::get("/").cookie(&cookie).to(gateway.web()).await.unwrap().text()
}

async fn metric(gateway: &Gateway, kind: &str) -> Option<String> {
    let metrics = gateway.ask(Ask::get("/metrics")).await.text();
    let name = format!("gantry_alarm{{kind=\"{kind}\",partner=\"partner\"}} ");
    metrics.lines().find_map(|line| line.strip_prefix(&name).map(str::to_owned))
}

/// How often each event was told of each alarm.
fn counted(receiver: &Receiver) -> BTreeMap<(String, String), usize> {
    let mut counts = BTreeMap::new();
    for (event, _, id) in receiver.told() {
        *counts.entry((id, event)).or_default() += 1;
    }
    counts
}

fn is_signed(posted: &gantry_tests::told::Posted) -> bool {
    let signature = posted.signature.as_deref().unwrap();
    let (time, digits) = signature.strip_prefix("t=").unwrap().split_once(",v1=").unwrap();
    let tag: Vec<u8> = (0..digits.len() / 2)
        .map(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).unwrap())
        .collect();
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET.as_bytes());
    ring::hmac::verify(&key, format!("{time}.{}", posted.body).as_bytes(), &tag).is_ok()
}

fn says_nothing_of(study: &Study, what: &str, text: &str) {
    let text = text.to_lowercase();
    for planted in study.planted().into_iter().filter(|planted| planted.text.len() > 4) {
        assert!(!text.contains(&planted.text.to_lowercase()), "{what} holds {planted:?}:\n{text}");
    }
}

#[tokio::test]
async fn an_emergency_that_does_not_move_is_said_everywhere_and_so_is_its_end() {
    let certificates = Certificates::new();
    let identity = certificates.issue("told");
    let receiver = Receiver::over_tls(&identity).await;
    let mail = MailServer::start(MailTls::Start, &identity).await;
    let folder = tempfile::tempdir().unwrap();
    let secret = secret_file(folder.path(), "webhook.secret", SECRET);
    let password = secret_file(folder.path(), "mail.password", "hunter2\n");
    let authority = certificates.authority();
    let mut partner = Dcmtk::storescp("PARTNER");
    let alarm = format!(
        "webhook = \"https://localhost:{}/hooks/x7?team=pacs\"\nwebhook-authority = {authority:?}\n\
         webhook-secret-file = {secret:?}\n\
         mail = {{ server = \"localhost\", port = {}, tls = \"starttls\", authority = {authority:?}, \
         from = \"Gantry <gantry@trust.example>\", to = [\"pacs@trust.example\", \"night@trust.example\"], \
         user = \"gantry\", password-file = {password:?} }}",
        receiver.port(),
        mail.port(),
    );
    let gateway = scene(partner.port(), &alarm).start().await;
    let study = HeadCt::small(1).build();

    send(&gateway, "EMERGENCY", &study).await;
    both_alarms(&gateway).await;
    let told = eventually("both to be told", async || {
        let told = receiver.told();
        let letters = mail.letters();
        let text: String = letters.iter().map(|letter| letter.text.clone()).collect();
        let mailed = text.contains("emergency-stalled") && text.contains("partner-silent");
        (told.len() == 2 && mailed).then_some(told)
    })
    .await;

    assert!(told.iter().all(|(event, ..)| event == "begun"), "{told:?}");
    let transfer = &gateway.api("/api/v1/transfers").await[0];
    let id = transfer["id"].as_str().unwrap();
    assert_eq!(transfer["stalled"], true);
    let event = &receiver.posted()[0].json()["events"][0];
    assert_eq!((&event["partner"], &event["transfer"]), (&"partner".into(), &id.into()));
    let page = board(&gateway).await;
    assert!(page.contains("An emergency transfer to partner does not move"), "{page}");
    assert!(
        page.contains("Nothing leaves for partner, although") && page.contains("Does not move")
    );
    assert_eq!(metric(&gateway, "emergency-stalled").await.as_deref(), Some("1"));
    let listed = gateway.command(&["alarm", "list"]).await;
    assert_eq!(listed.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&listed.stdout).contains("Nothing leaves for partner"));
    let status = gateway.command(&["status"]).await;
    assert!(String::from_utf8_lossy(&status.stdout).contains("Nothing leaves for partner"));

    partner.run().await;
    eventually("the end to be told", async || {
        let told = receiver.told();
        let ended = told.iter().filter(|(event, ..)| event == "ended").count();
        let ended_mail = mail.letters().iter().any(|letter| letter.text.contains("ENDED"));
        (ended == 2 && ended_mail && kinds(&gateway).await.is_empty()).then_some(())
    })
    .await;

    assert!(counted(&receiver).values().all(|times| *times == 1), "{:?}", receiver.told());
    assert_eq!(metric(&gateway, "emergency-stalled").await.as_deref(), Some("0"));
    assert_eq!(gateway.command(&["alarm", "list"]).await.status.code(), Some(0));
    for posted in receiver.posted() {
        assert_eq!(posted.target, "/hooks/x7?team=pacs");
        assert!(is_signed(&posted), "{posted:?}");
        says_nothing_of(&study, "a webhook's body", &posted.body);
    }
    for letter in mail.letters() {
        assert!(letter.encrypted, "{letter:?}");
        assert_eq!(letter.to, ["pacs@trust.example", "night@trust.example"]);
        assert_eq!(letter.credentials, Some(("gantry".to_owned(), "hunter2".to_owned())));
        assert!(letter.text.contains("Auto-Submitted: auto-generated"), "{}", letter.text);
        says_nothing_of(&study, "a mail", &letter.text);
    }
    says_nothing_of(&study, "the log", &gateway.log());
    assert!(!gateway.log().contains("x7"), "a webhook's path is a secret");
    let said = gateway.log().lines().filter(|line| line.contains("an alarm begins")).count();
    assert_eq!(said, 2);
}

/// A partner that takes connections and never says a word.
fn black_hole() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

#[tokio::test]
async fn a_restart_tells_nobody_anew() {
    let (_hole, port) = black_hole();
    let receiver = Receiver::start().await;
    let webhook = format!("webhook = \"http://127.0.0.1:{}/\"\n", receiver.port());
    let mut gateway = scene(port, &webhook).start().await;
    send(&gateway, "EMERGENCY", &small_objects(1, 3)).await;
    both_alarms(&gateway).await;
    eventually("both to be told", async || (receiver.told().len() == 2).then_some(())).await;
    eventually("that to be on record", async || {
        let text = fs::read_to_string(gateway.data_dir().join("alarms.json")).unwrap();
        (text.matches("\"webhook 127").count() == 2).then_some(())
    })
    .await;
    let before = gateway.api("/api/v1/alarms").await["alarms"].clone();

    gateway.kill_and_restart().await;
    // A look after the restart has judged anew when the counters of waiting images are there again.
    eventually("a look after the restart", async || {
        metric(&gateway, "partner-silent").await.filter(|count| count == "1")
    })
    .await;

    let after = gateway.api("/api/v1/alarms").await["alarms"].clone();
    assert_eq!((&after[0]["id"], &after[1]["id"]), (&before[0]["id"], &before[1]["id"]));
    assert_eq!(after[0]["since"], before[0]["since"]);
    assert_eq!(receiver.told().len(), 2, "{:?}", receiver.told());
}

#[tokio::test]
async fn reminders_come_while_it_lasts() {
    let (_hole, port) = black_hole();
    let receiver = Receiver::start().await;
    let lines = format!("repeat = \"1s\"\nwebhook = \"http://127.0.0.1:{}/\"\n", receiver.port());
    let gateway = scene(port, &lines).start().await;

    send(&gateway, "EMERGENCY", &small_objects(1, 3)).await;

    eventually("two reminders of one alarm", async || {
        let counts = counted(&receiver);
        counts.iter().any(|((_, event), times)| event == "lasts" && *times >= 2).then_some(())
    })
    .await;
    assert!(counted(&receiver).iter().all(|((_, event), times)| event != "begun" || *times == 1));
}

#[tokio::test]
async fn a_webhook_that_is_down_is_tried_again_and_delays_nothing() {
    let (_hole, port) = black_hole();
    let good = ScriptedPartner::start().await;
    let (down, up) = (Receiver::start().await, Receiver::start().await);
    down.answers(503);
    let webhooks = format!(
        "webhook = [\"http://127.0.0.1:{}/\", \"http://127.0.0.1:{}/\"]\n",
        down.port(),
        up.port()
    );
    let gateway = scene(port, &webhooks)
        .partner("good", "GOOD", good.port())
        .route("GOOD", &["good"], "routine")
        .start()
        .await;

    send(&gateway, "EMERGENCY", &small_objects(1, 3)).await;
    eventually("the other webhook to be told", async || (up.told().len() == 2).then_some(())).await;
    send(&gateway, "GOOD", &small_objects(2, 5)).await;
    gateway.delivered("good", 5).await;
    eventually("several tries", async || (down.refused() >= 2).then_some(())).await;
    let status = gateway.api("/api/v1/status").await["problems"].to_string();
    assert!(
        status.contains("Alarms do not arrive at webhook") && status.contains("503"),
        "{status}"
    );
    down.answers(204);

    eventually("what it missed", async || (down.told().len() == 2).then_some(())).await;
    assert!(counted(&down).values().chain(counted(&up).values()).all(|times| *times == 1));
}

#[tokio::test]
async fn a_test_says_what_each_server_answered_and_follows_nobody_elsewhere() {
    let certificates = Certificates::new();
    let identity = certificates.issue("mail");
    let (taking, elsewhere, asked) =
        (Receiver::start().await, Receiver::start().await, Receiver::start().await);
    asked.redirects_to(&format!("http://127.0.0.1:{}/", elsewhere.port()));
    let mail = MailServer::start(MailTls::First, &identity).await;
    let lines = format!(
        "webhook = [\"http://127.0.0.1:{}/\", \"http://127.0.0.1:{}/\"]\n\
         mail = {{ server = \"localhost\", port = {}, tls = \"tls\", authority = {:?}, from = \"a@b.example\", to = \"c@d.example\" }}",
        taking.port(),
        asked.port(),
        mail.port(),
        certificates.authority()
    );
    let (_hole, port) = black_hole();
    let gateway = scene(port, &lines).start().await;

    let tested = gateway.command(&["alarm", "test"]).await;

    let said = String::from_utf8_lossy(&tested.stdout).into_owned();
    assert_eq!(tested.status.code(), Some(6), "{said}");
    assert!(said.contains("taken; it answered 200"), "{said}");
    assert!(said.contains("not taken; it answered 307, a redirection"), "{said}");
    assert!(said.contains("it answered 250 queued as 1"), "{said}");
    let hints = String::from_utf8_lossy(&tested.stderr).into_owned();
    assert!(hints.contains("hint: Write the address that it redirects to."), "{hints}");
    assert_eq!((taking.posted().len(), elsewhere.posted().len()), (1, 0));
    assert_eq!(taking.posted()[0].json()["test"], true);
    assert!(mail.letters()[0].encrypted && mail.letters()[0].text.contains("Nothing is wrong"));
}
