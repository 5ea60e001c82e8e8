//! Promise 6: delivered is proven. What a partner accepted counts as confirmed when it has shown that it holds it, and what it
//! lost is found out and sent again; what senders here are promised is durable.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)] // a panic is how a test fails

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dicom_dictionary_std::{tags, uids};
use gantry_gateway::association::data_set::{self, DataSet};
use gantry_gateway::association::dimse::NActionRq;
use gantry_gateway::association::requestor::{Proposal, Requestor};
use gantry_gateway::association::services::storage_commitment::{self, known};
use gantry_gateway::association::status::Status;
use gantry_gateway::association::wire::Tcp;
use gantry_store::dicom::TransferSyntax;
use gantry_store::index::{Reference, Report};
use gantry_tests::scripted::report_to;
use gantry_tests::{Dcmtk, Gateway, Orthanc, ScriptedPartner, Sender, Setup, digests, eventually};
use sample_studies::{Study, small_objects};
use serde_json::{Value, json};
use tokio::net::TcpStream;

fn forwarding_to(port: u16) -> Setup {
    Setup::new().source("pacs", "PACS").partner("partner", "ORTHANC", port).route(
        "GANTRY",
        &["partner"],
        "routine",
    )
}

async fn send(gateway: &Gateway, study: &Study) {
    let mut sender = Sender::connect(gateway.plaintext(), &study.instances).await.unwrap();
    sender.store_all(&study.instances).await;
    sender.release().await;
}

/// The one transfer, with all that is known of it.
async fn transfer(gateway: &Gateway) -> Value {
    let list = gateway.api("/api/v1/transfers").await;
    let Some(id) = list[0]["id"].as_str() else { return Value::Null };
    gateway.api(&format!("/api/v1/transfers/{id}")).await
}

async fn becomes(gateway: &Gateway, state: &str) -> Value {
    eventually(&format!("the transfer to be {state}"), async || {
        let transfer = transfer(gateway).await;
        (transfer["state"] == state).then_some(transfer)
    })
    .await
}

fn kinds(transfer: &Value) -> Vec<String> {
    let events = transfer["events"].as_array().unwrap();
    events.iter().map(|event| event["kind"].as_str().unwrap().to_owned()).collect()
}

async fn asked(partner: &ScriptedPartner, count: usize) -> gantry_tests::scripted::Asked {
    eventually(&format!("request {count} for commitment"), async || {
        partner.asked().get(count - 1).cloned()
    })
    .await
}

#[tokio::test]
async fn an_archive_that_commits_confirms_the_transfer() {
    let orthanc = Orthanc::start().await;
    let gateway = forwarding_to(orthanc.port()).start().await;
    orthanc.knows(gateway.plaintext(), true, false).await;
    let study = small_objects(1, 12);

    send(&gateway, &study).await;

    let transfer = becomes(&gateway, "confirmed").await;
    assert_eq!(transfer["proven_by"], "storage-commitment");
    assert_eq!(
        (&transfer["confirmed"], &transfer["counts"]["delivered"]),
        (&json!(12), &json!(12))
    );
    let sentence = transfer["sentence"].as_str().unwrap();
    assert!(sentence.starts_with("partner confirmed 12 of 12 images stored at "), "{sentence}");
    assert_eq!(kinds(&transfer).last().unwrap(), "confirmed");
    assert!(orthanc.holds().await.keys().eq(digests(&study).keys()));
}

#[tokio::test]
async fn what_an_archive_accepted_and_lost_is_sent_again_and_then_confirmed() {
    let orthanc = Orthanc::start().await;
    let gateway = forwarding_to(orthanc.port()).start().await;
    orthanc.knows(gateway.plaintext(), true, false).await;
    let study = small_objects(2, 8);
    // Nothing is asked while more may come, so the loss falls between C-STORE and N-ACTION.
    let mut sender = Sender::connect(gateway.plaintext(), &study.instances).await.unwrap();
    sender.store_all(&study.instances).await;
    gateway.delivered("partner", 8).await;
    orthanc.forget().await;
    assert_eq!(orthanc.count().await, 0);

    sender.release().await;

    let transfer = becomes(&gateway, "confirmed").await;
    assert!(kinds(&transfer).contains(&"not-stored".to_owned()), "{:?}", kinds(&transfer));
    assert!(orthanc.holds().await.keys().eq(digests(&study).keys()));
    assert!(gateway.conservation("partner").await.adds_up());
}

#[tokio::test]
async fn an_archive_that_only_answers_queries_is_asked_for_each_image() {
    let orthanc = Orthanc::start().await;
    let gateway = forwarding_to(orthanc.port()).start().await;
    orthanc.knows(gateway.plaintext(), false, true).await;
    let study = small_objects(3, 9);
    let mut sender = Sender::connect(gateway.plaintext(), &study.instances).await.unwrap();
    sender.store_all(&study.instances).await;
    gateway.delivered("partner", 9).await;
    orthanc.forget().await;

    sender.release().await;

    let transfer = becomes(&gateway, "confirmed").await;
    assert_eq!(transfer["proven_by"], "image-query");
    assert!(kinds(&transfer).contains(&"not-stored".to_owned()), "{:?}", kinds(&transfer));
    assert!(orthanc.holds().await.keys().eq(digests(&study).keys()));
}

#[tokio::test]
async fn a_partner_that_offers_no_means_of_proof_stays_sent_and_the_page_says_why() {
    let partner = Dcmtk::storescp("PARTNER").start().await;
    let gateway = Gateway::forwarding_to(&partner).start().await;

    send(&gateway, &small_objects(4, 3)).await;

    let transfer = eventually("the reason", async || {
        let transfer = transfer(&gateway).await;
        transfer["unproven_why"].is_string().then_some(transfer)
    })
    .await;
    assert_eq!((&transfer["state"], &transfer["confirmed"]), (&json!("sent"), &json!(0)));
    let sentence = transfer["sentence"].as_str().unwrap();
    let why = "partner has not confirmed that they are stored: it offers no storage commitment and no query.";
    assert!(sentence.ends_with(why), "{sentence}");
}

#[tokio::test]
async fn what_a_partner_never_keeps_is_set_aside_after_three_rounds() {
    let study = small_objects(5, 6);
    let bad = study.instances[2].sop_instance_uid.clone();
    let lost = bad.clone();
    let partner = ScriptedPartner::committing(move |uid| (uid == lost).then_some(0x0112)).await;
    let gateway = forwarding_to(partner.port()).start().await;

    send(&gateway, &study).await;

    let transfer = becomes(&gateway, "needs-action").await;
    assert_eq!(transfer["problems"][0]["failure"]["kind"], "not-stored");
    let rounds = partner.received().iter().filter(|one| one.sop_instance_uid == bad).count();
    assert_eq!((rounds, partner.received().len()), (3, 6 + 2));
    assert_eq!(transfer["confirmed"], 5);
    let now = gateway.conservation("partner").await;
    assert!(now.adds_up() && now.set_aside == 1 && now.delivered == 5, "{now:?}");
}

#[tokio::test]
async fn a_report_on_a_later_association_is_believed_from_the_partner_that_was_asked_alone() {
    let partner = ScriptedPartner::committing_later().await;
    let gateway = forwarding_to(partner.port()).partner("other", "OTHER", 1).start().await;
    let study = small_objects(6, 4);
    send(&gateway, &study).await;
    let first = asked(&partner, 1).await;
    assert_eq!(first.instances.len(), 4);

    let stranger = report_to(gateway.plaintext(), "NOBODY", &first, |_| None).await;
    let other = report_to(gateway.plaintext(), "OTHER", &first, |_| None).await.unwrap();
    let source = report_to(gateway.plaintext(), "PACS", &first, |_| None).await.unwrap();
    let mut made_up = first.clone();
    made_up.transaction = "2.25.1".to_owned();
    let made_up = report_to(gateway.plaintext(), "ORTHANC", &made_up, |_| None).await.unwrap();

    assert!(stranger.is_err());
    assert_eq!(other, Status::INVALID_ARGUMENT);
    assert_eq!(source, Status::NOT_AUTHORISED);
    assert_eq!(made_up, Status::INVALID_ARGUMENT);
    let before = transfer(&gateway).await;
    assert_eq!((&before["state"], &before["confirmed"]), (&json!("sent"), &json!(0)));
    let believed = report_to(gateway.plaintext(), "ORTHANC", &first, |_| None).await.unwrap();
    assert_eq!(believed, Status::SUCCESS);
    becomes(&gateway, "confirmed").await;
}

#[tokio::test]
async fn a_report_after_our_restart_is_believed() {
    let partner = ScriptedPartner::committing_later().await;
    let mut gateway = forwarding_to(partner.port()).start().await;
    send(&gateway, &small_objects(7, 4)).await;
    let first = asked(&partner, 1).await;

    gateway.kill_and_restart().await;

    let believed = report_to(gateway.plaintext(), "ORTHANC", &first, |_| None).await.unwrap();
    assert_eq!(believed, Status::SUCCESS);
    let transfer = becomes(&gateway, "confirmed").await;
    assert_eq!(transfer["proven_by"], "storage-commitment");
}

#[tokio::test]
async fn a_partner_that_does_not_report_is_asked_again() {
    let partner = ScriptedPartner::committing_later().await;
    let gateway = forwarding_to(partner.port()).start().await;
    send(&gateway, &small_objects(8, 2)).await;

    let second = asked(&partner, 2).await;

    assert_ne!(second.transaction, asked(&partner, 1).await.transaction);
    report_to(gateway.plaintext(), "ORTHANC", &second, |_| None).await.unwrap();
    becomes(&gateway, "confirmed").await;
}

#[tokio::test]
async fn where_images_cannot_be_listed_only_equal_counts_prove_anything() {
    let study = small_objects(9, 5);
    let count = Arc::new(AtomicUsize::new(7));
    let queries: Arc<Mutex<Vec<String>>> = Arc::default();
    let (shown, seen, series) =
        (count.clone(), queries.clone(), study.instances[0].series_instance_uid.clone());
    let partner = ScriptedPartner::queried(move |identifier| {
        let level = &identifier.elements()[&tags::QUERY_RETRIEVE_LEVEL];
        let level = String::from_utf8_lossy(level).trim().to_owned();
        seen.lock().unwrap().push(level.clone());
        match level.as_str() {
            "SERIES" => Ok(vec![DataSet::default().with(tags::SERIES_INSTANCE_UID, &series).with(
                tags::NUMBER_OF_SERIES_RELATED_INSTANCES,
                &shown.load(Ordering::Relaxed).to_string(),
            )]),
            _ => Err(Status::DATA_SET_MISMATCH),
        }
    })
    .await;
    let gateway = forwarding_to(partner.port()).start().await;

    send(&gateway, &study).await;

    eventually("counts that do not agree", async || {
        let why = transfer(&gateway).await["unproven_why"].as_str()?.to_owned();
        why.contains("counts do not agree").then_some(())
    })
    .await;
    assert_eq!(transfer(&gateway).await["state"], "sent");
    count.store(5, Ordering::Relaxed);
    let transfer = becomes(&gateway, "confirmed").await;
    assert_eq!(transfer["proven_by"], "count-query");
    let queries = queries.lock().unwrap().clone();
    assert_eq!(queries[..3], ["IMAGE", "SERIES", "STUDY"]);
}

/// Asks a node to commit, as PACS. What was answered, and what was reported on the same association.
async fn ask(
    node: SocketAddr,
    transaction: &str,
    instances: &[(String, String)],
    wait: bool,
) -> (Status, Option<Report>) {
    let stream = Tcp::new(TcpStream::connect(node).await.unwrap()).unwrap();
    let syntax = TransferSyntax::explicit_vr_little_endian();
    let proposal = Proposal {
        calling: "PACS".parse().unwrap(),
        called: "GANTRY".parse().unwrap(),
        contexts: vec![(known(storage_commitment::SOP_CLASS), vec![syntax])],
        provides: None,
        max_pdu: 64 * 1024,
        patience: Duration::from_secs(30),
    };
    let mut association = Requestor::associate(stream, &proposal).await.unwrap();
    let reference = |(class, instance): &(String, String)| Reference {
        sop_class: class.parse().unwrap(),
        sop_instance: instance.parse().unwrap(),
    };
    let references: Vec<_> = instances.iter().map(reference).collect();
    let information = storage_commitment::request(transaction, &references);
    let request = NActionRq {
        message_id: 0,
        sop_class: known(storage_commitment::SOP_CLASS),
        sop_instance: known(storage_commitment::SOP_INSTANCE),
        action_type: storage_commitment::REQUEST,
    };
    let context = association.context_of(storage_commitment::SOP_CLASS).unwrap();
    let status = association.action(context, request, &information).await.unwrap();
    let mut report = None;
    if wait && let Some(reported) = association.reported(Duration::from_secs(20)).await.unwrap() {
        association.answer(&reported, Status::SUCCESS).await.unwrap();
        report = storage_commitment::report_of(&reported.information);
        assert_eq!(
            data_set::uid::<gantry_store::dicom::Uid>(
                reported.information.elements(),
                tags::TRANSACTION_UID,
            )
            .unwrap()
            .as_str(),
            transaction
        );
    }
    association.release(Duration::from_secs(5)).await;
    (status, report)
}

fn pairs(study: &Study) -> Vec<(String, String)> {
    let pair =
        |one: &sample_studies::Instance| (one.sop_class_uid.clone(), one.sop_instance_uid.clone());
    study.instances.iter().map(pair).collect()
}

#[tokio::test]
async fn a_sender_is_promised_what_is_durable_and_told_why_for_the_rest() {
    for acknowledge in ["durable", "received"] {
        let gateway = Setup::new()
            .source("pacs", "PACS")
            .intake(&format!("reserve = \"0B\"\nacknowledge = \"{acknowledge}\""))
            .start()
            .await;
        let study = small_objects(10, 5);
        send(&gateway, &study).await;
        let mut wanted = pairs(&study);
        wanted[1].0 = uids::MR_IMAGE_STORAGE.to_owned();
        wanted.push((uids::CT_IMAGE_STORAGE.to_owned(), "2.25.404".to_owned()));

        let (status, report) = ask(gateway.plaintext(), "2.25.500", &wanted, true).await;
        let (again, _) = ask(gateway.plaintext(), "2.25.500", &wanted, false).await;

        assert_eq!((status, again), (Status::SUCCESS, Status::DUPLICATE_TRANSACTION));
        let report = report.expect("a report on the same association");
        assert_eq!(report.held.len(), 4, "{acknowledge}");
        let failed: BTreeMap<_, _> =
            report.failed.iter().map(|(uid, reason)| (uid.to_string(), *reason)).collect();
        assert_eq!(
            failed,
            BTreeMap::from([(wanted[1].1.clone(), 0x0119), ("2.25.404".to_owned(), 0x0112)])
        );
    }
}

#[tokio::test]
async fn a_sender_that_has_released_is_called_and_told() {
    let orthanc = Orthanc::start().await;
    let gateway = Setup::new()
        .source("pacs", "PACS")
        .source_at("archive", "ORTHANC", orthanc.port())
        .start()
        .await;
    orthanc.knows(gateway.plaintext(), true, false).await;
    let study = small_objects(11, 4);
    send(&gateway, &study).await;
    let mut wanted = pairs(&study);
    wanted.push((uids::CT_IMAGE_STORAGE.to_owned(), "2.25.404".to_owned()));

    let transaction = orthanc.asks_to_commit(&wanted).await;

    let told = eventually("Orthanc to be told", async || {
        let told = orthanc.was_told(&transaction).await;
        (told["Status"] != "Pending").then_some(told)
    })
    .await;
    assert_eq!(told["Status"], "Failure");
    assert_eq!(told["Success"].as_array().unwrap().len(), 4, "{told}");
    assert_eq!(told["Failures"][0]["SOPInstanceUID"], "2.25.404");
}

#[tokio::test]
async fn a_report_is_made_again_across_a_restart_until_it_is_taken() {
    let sender = ScriptedPartner::taking_reports_after(2).await;
    let mut gateway = Setup::new().source_at("pacs", "PACS", sender.port()).start().await;
    let study = small_objects(12, 3);
    send(&gateway, &study).await;
    let (status, _) = ask(gateway.plaintext(), "2.25.600", &pairs(&study), false).await;
    assert_eq!(status, Status::SUCCESS);
    eventually("a report that is refused", async || (!sender.reports().is_empty()).then_some(()))
        .await;

    gateway.kill_and_restart().await;

    let reports = eventually("the report to be taken", async || {
        let reports = sender.reports();
        (reports.len() >= 3).then_some(reports)
    })
    .await;
    assert!(reports.iter().all(|report| *report == reports[0] && report.held.len() == 3));
    let taken = AtomicBool::new(false);
    gateway
        .rows(async |index| {
            let later = jiff::Timestamp::MAX;
            eventually("nothing to be owed", async || {
                index.reports_due(later, 9).await.unwrap().is_empty().then_some(())
            })
            .await;
            taken.store(true, Ordering::Relaxed);
        })
        .await;
    assert!(taken.load(Ordering::Relaxed));
}
