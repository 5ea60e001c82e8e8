//! Promise 7: complete is counted. What came of a study is compared with what its source has, by queries there; what is short
//! says so wherever people look, is fetched where that is allowed, and nothing is complete because nothing more came.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)] // a panic is how a test fails

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use dicom_dictionary_std::tags;
use gantry_gateway::association::data_set::DataSet;
use gantry_gateway::association::dimse::SubOperations;
use gantry_gateway::association::status::Status;
use gantry_tests::http::Ask;
use gantry_tests::network::free_port;
use gantry_tests::{
    Dcmtk, Gateway, Orthanc, ScriptedPartner, Sender, Setup, Storescp, digests, eventually,
};
use sample_studies::{HeadCt, Instance, Study, small_objects};
use serde_json::{Value, json};

/// A scout, two thick slices and three thin ones.
fn head(seed: u64) -> Study {
    HeadCt { thick_slices: 2, thin_slices: 3, ..HeadCt::small(seed) }.build()
}

/// What is sent comes as the archive sends it; so a node that is asked to fetch is called under another name before.
async fn send(gateway: &Gateway, called: &str, instances: &[Instance]) {
    let node = gateway.plaintext();
    let mut sender = Sender::connect_as("ORTHANC", called, node, instances).await.unwrap();
    sender.store_all(instances).await;
    sender.release().await;
}

fn counting_at(port: u16, clinic: &Storescp, more: &str) -> Setup {
    Setup::new()
        .source_at("pacs", "ORTHANC", port)
        .and(more)
        .partner("partner", clinic.ae_title(), clinic.port())
        .route("GANTRY", &["partner"], "emergency")
}

/// The one transfer, with all that is known of it.
async fn transfer(gateway: &Gateway) -> Value {
    let list = gateway.api("/api/v1/transfers").await;
    let Some(id) = list[0]["id"].as_str() else { return Value::Null };
    gateway.api(&format!("/api/v1/transfers/{id}")).await
}

async fn becomes(gateway: &Gateway, state: &str) -> Value {
    eventually(&format!("the study to be {state}"), async || {
        let transfer = transfer(gateway).await;
        (transfer["study"]["completeness"]["state"] == state).then_some(transfer)
    })
    .await
}

/// Waits for what the timeline says when nothing more comes.
async fn happens(gateway: &Gateway, kind: &str, times: usize) -> Value {
    eventually(&format!("{kind} to happen {times} times"), async || {
        let transfer = transfer(gateway).await;
        let events = transfer["events"].as_array()?;
        let found = events.iter().filter(|event| event["kind"] == kind).count();
        (found >= times).then_some(transfer)
    })
    .await
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

async fn count(gateway: &Gateway, study: &Study) -> (i32, Value) {
    let uid = &study.instances[0].study_instance_uid;
    let output = gateway.command(&["study", "count", uid, "--json"]).await;
    let shown = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code().unwrap(), shown)
}

async fn metric(gateway: &Gateway, line: &str) {
    eventually(&format!("the metric {line}"), async || {
        let metrics = gateway.ask(Ask::get("/metrics")).await.text();
        metrics.lines().any(|shown| shown == line).then_some(())
    })
    .await;
}

/// A page, as somebody sees it who is signed in.
async fn page(gateway: &Gateway, path: &str) -> String {
    let origin = format!("http://{}", gateway.web());
    let output = gateway.command(&["web", "link", "--json"]).await;
    let link: Value = serde_json::from_slice(&output.stdout).unwrap();
    let link = text(&link["url"]).strip_prefix(&origin).unwrap().to_owned();
    let ask = Ask::post(&link).origin(&origin).form("name=A+Registrar");
    let answer = ask.to(gateway.web()).await.unwrap();
    let cookie = answer.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    Ask::get(path).cookie(&cookie).to(gateway.web()).await.unwrap().text()
}

#[tokio::test]
async fn a_study_that_is_all_here_is_counted_complete() {
    let (pacs, clinic) = (Orthanc::start().await, Dcmtk::storescp("CLINIC").start().await);
    let gateway = counting_at(pacs.port(), &clinic, "").start().await;
    pacs.serves(gateway.plaintext()).await;
    let study = head(1);
    pacs.has(&study.instances).await;

    send(&gateway, "GANTRY", &study.instances).await;

    let transfer = happens(&gateway, "complete", 1).await;
    let known = &transfer["study"]["completeness"];
    let images = study.len();
    assert_eq!(known["state"], "complete");
    assert_eq!((&known["expected"], &known["missing"]), (&json!(images), &json!(0)));
    assert_eq!((&transfer["incomplete"], &known["source"]), (&json!(false), &json!("pacs")));
    let (code, shown) = count(&gateway, &study).await;
    assert_eq!((code, &shown["answer"]), (0, &json!("counted")));
    let sentence = format!("{images} of {images}, counted at pacs");
    assert_eq!(text(&shown["completeness"]["sentence"]), sentence);
    metric(&gateway, "gantry_transfers_incomplete 0").await;
}

#[tokio::test]
async fn one_image_short_is_a_flag_that_late_images_clear() {
    let (pacs, clinic) = (Orthanc::start().await, Dcmtk::storescp("CLINIC").start().await);
    let gateway = counting_at(pacs.port(), &clinic, "").start().await;
    pacs.serves(gateway.plaintext()).await;
    let study = head(2);
    pacs.has(&study.instances).await;
    let (last, sent) = study.instances.split_last().unwrap();

    send(&gateway, "GANTRY", sent).await;

    let transfer = happens(&gateway, "incomplete", 1).await;
    let (some, all) = (sent.len(), study.len());
    let known = &transfer["study"]["completeness"];
    let sentence = format!("{some} of {all}: series 3 'Head 0.625 axial' misses 1");
    assert_eq!(
        (&transfer["incomplete"], text(&known["sentence"])),
        (&json!(true), sentence.as_str())
    );
    let short = &transfer["counted"][0];
    assert_eq!((&short["number"], &short["missing"]), (&json!(3), &json!(1)));
    // On the board among what needs a person, although the partner has all that came.
    gateway.delivered("partner", some).await;
    let board = page(&gateway, "/").await;
    let quoted = sentence.replace('\'', "&#39;");
    assert!(board.contains("1 transfer needs action") && board.contains(&quoted), "{board}");
    let shown = page(&gateway, &format!("/transfers/{}", text(&transfer["id"]))).await;
    assert!(
        shown.contains("Incomplete") && shown.contains(&quoted) && shown.contains("1 missing"),
        "{shown}"
    );
    // What names a series stays with those who may see it.
    let list = gateway.command(&["transfer", "list", "--incomplete"]).await;
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    assert!(list.contains(", incomplete"), "{list}");
    let (code, shown) = count(&gateway, &study).await;
    let without = format!("{some} of {all}: series 3 misses 1");
    assert_eq!((code, text(&shown["completeness"]["sentence"])), (1, without.as_str()));
    metric(&gateway, "gantry_transfers_incomplete 1").await;
    assert!(!gateway.log().contains("0.625 axial"));

    send(&gateway, "GANTRY", std::slice::from_ref(last)).await;

    let transfer = happens(&gateway, "complete", 1).await;
    assert_eq!(transfer["incomplete"], false);
    let kinds: Vec<_> =
        transfer["events"].as_array().unwrap().iter().map(|event| text(&event["kind"])).collect();
    let place = |kind: &str| kinds.iter().position(|found| *found == kind).unwrap();
    assert!(place("incomplete") < place("reopened"), "{kinds:?}");
    assert!(place("reopened") < place("complete"), "{kinds:?}");
    gateway.delivered("partner", all).await;
    metric(&gateway, "gantry_transfers_incomplete 0").await;
}

#[tokio::test]
async fn what_is_missing_is_fetched_and_goes_where_the_rest_of_its_study_went() {
    let (pacs, clinic) = (Orthanc::start().await, Dcmtk::storescp("CLINIC").start().await);
    let gateway = Setup::new()
        .source_at("pacs", "ORTHANC", pacs.port())
        .and("fetch = true")
        .partner("partner", clinic.ae_title(), clinic.port())
        .partner("other", "OTHER", 1)
        .route("RI_EMERG", &["partner"], "emergency")
        .route("CARDIAC", &["other"], "routine")
        .start()
        .await;
    pacs.serves(gateway.plaintext()).await;
    let study = head(3);
    pacs.has(&study.instances).await;
    // A whole series, and an image of another.
    let sent: Vec<_> = study
        .instances
        .iter()
        .filter(|image| !image.file_name.contains("-001-") && !image.file_name.ends_with("003.dcm"))
        .cloned()
        .collect();
    assert!(sent.len() < study.len() - 1, "{:?}", study.instances[0].file_name);

    send(&gateway, "RI_EMERG", &sent).await;

    let transfer = happens(&gateway, "complete", 1).await;
    assert_eq!(transfer["incomplete"], false);
    gateway.delivered("partner", study.len()).await;
    // By name: the archive encodes anew what it sends.
    eventually("every image at CLINIC", async || {
        let held = clinic.try_holds()?;
        held.keys().eq(digests(&study).keys()).then_some(())
    })
    .await;
    let events = transfer["events"].as_array().unwrap();
    let fetched = events.iter().find(|event| event["kind"] == "fetched").unwrap();
    let missing = study.len() - sent.len();
    let detail = text(&fetched["detail"]).to_owned();
    assert!(detail.ends_with(&format!("asked for at pacs: {missing} came")), "{detail}");
    assert!(gateway.conservation("partner").await.adds_up());
    assert_eq!(gateway.conservation("other").await.ordered, 0);
    let late = study.instances.iter().find(|image| !sent.contains(image)).unwrap();
    let explained = gateway.command(&["route", "explain", &late.sop_instance_uid]).await;
    let explained = String::from_utf8_lossy(&explained.stdout).into_owned();
    assert!(explained.contains("It was fetched to complete its study"), "{explained}");
    assert!(explained.contains("It goes to partner as emergency"), "{explained}");
}

#[tokio::test]
async fn a_source_that_is_down_says_so_and_is_asked_when_it_is_back() {
    let clinic = Dcmtk::storescp("CLINIC").start().await;
    let port = free_port();
    let gateway = counting_at(port, &clinic, "").start().await;
    let study = head(4);

    send(&gateway, "GANTRY", &study.instances).await;

    let transfer = becomes(&gateway, "unanswered").await;
    let sentence = text(&transfer["study"]["completeness"]["sentence"]);
    assert!(sentence.starts_with("pacs did not say what it has: 127.0.0.1:"), "{sentence}");
    assert_eq!(transfer["incomplete"], false);
    assert_eq!(count(&gateway, &study).await.0, 9);
    let pacs = Orthanc::start_with(json!({ "DicomPort": port })).await;
    pacs.serves(gateway.plaintext()).await;
    pacs.has(&study.instances).await;
    becomes(&gateway, "complete").await;
}

#[tokio::test]
async fn a_study_of_a_source_without_an_address_is_never_complete_by_silence() {
    let clinic = Dcmtk::storescp("CLINIC").start().await;
    let gateway = Gateway::forwarding_to(&clinic).start().await;
    let study = small_objects(5, 4);
    let mut sender = Sender::connect(gateway.plaintext(), &study.instances).await.unwrap();
    sender.store_all(&study.instances).await;
    sender.release().await;

    let transfer = becomes(&gateway, "no-source").await;

    let known = &transfer["study"]["completeness"];
    assert_eq!(text(&known["sentence"]), "no source to count against");
    let (code, shown) = count(&gateway, &study).await;
    assert_eq!((code, &shown["answer"]), (1, &json!("no-source")));
    let shown = page(&gateway, &format!("/transfers/{}", text(&transfer["id"]))).await;
    assert!(shown.contains("There is no source to count against"), "{shown}");
    let events = transfer["events"].as_array().unwrap();
    assert!(events.iter().all(|event| event["kind"] != "complete"));
}

/// An identifier of a series, with a count.
fn series(of: &Study, count: &str) -> DataSet {
    let listed =
        DataSet::default().with(tags::SERIES_INSTANCE_UID, &of.instances[0].series_instance_uid);
    listed.with(tags::NUMBER_OF_SERIES_RELATED_INSTANCES, count)
}

fn level(identifier: &DataSet) -> String {
    let level = &identifier.elements()[&tags::QUERY_RETRIEVE_LEVEL];
    String::from_utf8_lossy(level).trim().to_owned()
}

#[tokio::test]
async fn a_source_that_lies_is_bounded_and_believed_in_nothing_it_cannot_name() {
    let study = small_objects(6, 3);
    let lie = Arc::new(AtomicUsize::new(0));
    let (told, of) = (lie.clone(), study.clone());
    let images: Vec<_> = study
        .instances
        .iter()
        .map(|image| DataSet::default().with(tags::SOP_INSTANCE_UID, &image.sop_instance_uid))
        .collect();
    let pacs = ScriptedPartner::queried(move |identifier| {
        let of = &of;
        match (level(identifier).as_str(), told.load(Ordering::Relaxed)) {
            // Counts that are none, or impossible; it names the images that it has.
            ("SERIES", 0) => Ok(vec![series(of, "-5")]),
            // (Of the third lie it names none, and counts what cannot be.)
            ("SERIES", 1 | 3) => Ok(vec![series(of, "99999999999")]),
            ("SERIES", 2) => Ok(vec![series(of, "many")]),
            ("IMAGE", 0..=2) => Ok(images.clone()),
            ("IMAGE", 3 | 5) => Err(Status::DATA_SET_MISMATCH),
            // It does not come to an end.
            ("SERIES", 4) => Ok((0..12_000)
                .map(|number| {
                    DataSet::default().with(tags::SERIES_INSTANCE_UID, &format!("2.25.{number}"))
                })
                .collect()),
            // It answers about another study, and then counts one more.
            ("SERIES", 5) => Ok(vec![
                series(of, "7").with(tags::STUDY_INSTANCE_UID, "2.25.404"),
                series(of, "4"),
            ]),
            _ => Err(Status::CANNOT_UNDERSTAND),
        }
    })
    .await;
    let clinic = Dcmtk::storescp("CLINIC").start().await;
    let mut gateway = counting_at(pacs.port(), &clinic, "").quiet("1h").start().await;
    send(&gateway, "GANTRY", &study.instances).await;
    becomes(&gateway, "complete").await;

    let table = [
        (0, 0, "3 of 3, counted at pacs"),
        (1, 0, "3 of 3, counted at pacs"),
        (2, 0, "3 of 3, counted at pacs"),
        (3, 8, "pacs did not say what it has: it lists more than 100,000 images"),
        (4, 8, "pacs did not say what it has: it lists more than 10,000 series"),
        (5, 1, "3 of 4: a series without a number misses 1"),
        // What was found stands when it does not answer.
        (6, 8, "3 of 4: a series without a number misses 1"),
    ];
    for (told, expected, sentence) in table {
        lie.store(told, Ordering::Relaxed);
        let (code, shown) = count(&gateway, &study).await;
        let said = text(&shown["completeness"]["sentence"]);
        assert_eq!((code, said), (expected, sentence), "lie {told}");
    }
    assert!(gateway.is_alive());
}

#[tokio::test]
async fn a_source_that_does_not_know_us_is_named_with_what_to_do() {
    let study = small_objects(7, 3);
    let of = study.clone();
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = asked.clone();
    let pacs = ScriptedPartner::moving(
        move |identifier| match level(identifier).as_str() {
            "SERIES" => Ok(vec![series(&of, "4")]),
            _ => Err(Status::DATA_SET_MISMATCH),
        },
        move |identifier| {
            seen.lock().unwrap().push(level(identifier));
            (Status(0xA801), SubOperations::default())
        },
    )
    .await;
    let clinic = Dcmtk::storescp("CLINIC").start().await;
    let gateway = counting_at(pacs.port(), &clinic, "fetch = true").start().await;

    send(&gateway, "GANTRY", &study.instances).await;

    // It is asked three times, by series as it lists no images, and then no more.
    let transfer = happens(&gateway, "fetched", 3).await;
    assert_eq!(*asked.lock().unwrap(), ["SERIES"; 3]);
    let known = &transfer["study"]["completeness"];
    let why = text(&known["fetch_why"]);
    assert!(why.contains("does not know this gateway as a destination (A801H"), "{why}");
    assert!(why.contains("add GANTRY with host and port"), "{why}");
    let board = eventually("the board to say what to do", async || {
        let board = page(&gateway, "/").await;
        (board.contains("1 transfer needs action") && board.contains("list of destinations"))
            .then_some(board)
    })
    .await;
    assert!(board.contains("Incomplete"));
}
