//! Promise 3: every instance × destination is delivered, waiting, or set aside with a reason a person can read.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)] // a panic is how a test fails

use gantry_gateway::association::status::Status;
use gantry_tests::gateway::Conservation;
use gantry_tests::http::Ask;
use gantry_tests::{Dcmtk, Gateway, ScriptedPartner, Sender, Setup, digests, eventually};
use sample_studies::{Study, small_objects};

async fn send(gateway: &Gateway, study: &Study) {
    let mut sender = Sender::connect(gateway.plaintext(), &study.instances).await.unwrap();
    sender.store_all(&study.instances).await;
    sender.release().await;
}

/// Waits until the counts of a partner are these; on the way there nothing may ever be missing.
async fn comes_to(gateway: &Gateway, partner: &str, expected: Conservation) {
    eventually(&format!("{partner} to stand at {expected:?}"), async || {
        let now = gateway.conservation(partner).await;
        assert!(now.adds_up(), "{partner} does not add up: {now:?}");
        (now == expected).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_was_received_is_delivered_or_waiting_or_set_aside_whatever_partners_do() {
    let study = small_objects(1, 30);
    let good = Dcmtk::storescp("GOOD").start().await;
    let rejecting = Dcmtk::storescp("REJECTING").options(&["--refuse"]).start().await;
    let aborting = Dcmtk::storescp("ABORTING").options(&["--abort-during"]).start().await;
    let mut absent = Dcmtk::storescp("ABSENT");
    let refused: Vec<_> = study.sop_instance_uids().into_iter().take(10).collect();
    let (unfit, unsupported) = (refused[..5].to_vec(), refused[5..].to_vec());
    let picky = ScriptedPartner::answering(move |uid| match uid {
        uid if unfit.iter().any(|unfit| unfit == uid) => Status::DATA_SET_MISMATCH,
        uid if unsupported.iter().any(|unsupported| unsupported == uid) => {
            Status::SOP_CLASS_NOT_SUPPORTED
        }
        _ => Status::SUCCESS,
    })
    .await;
    let full = ScriptedPartner::answering(|_| Status::OUT_OF_RESOURCES).await;
    let gateway = Setup::new()
        .source("pacs", "PACS")
        .partner("good", "GOOD", good.port())
        .partner("rejecting", "REJECTING", rejecting.port())
        .partner("aborting", "ABORTING", aborting.port())
        .partner("absent", "ABSENT", absent.port())
        .partner("picky", "PICKY", picky.port())
        .partner("full", "FULL", full.port())
        .route("GANTRY", &["good", "rejecting", "aborting", "absent", "picky", "full"], "routine")
        .start()
        .await;

    send(&gateway, &study).await;

    let of = |delivered, waiting, set_aside| Conservation {
        ordered: 30,
        delivered,
        waiting,
        set_aside,
        cancelled: 0,
    };
    comes_to(&gateway, "good", of(30, 0, 0)).await;
    comes_to(&gateway, "picky", of(20, 0, 10)).await;
    for partner in ["rejecting", "aborting", "absent", "full"] {
        comes_to(&gateway, partner, of(0, 30, 0)).await;
    }
    assert_eq!(gateway.instances().await, 30);
    good.comes_to_hold(&digests(&study)).await;

    absent.run().await;
    comes_to(&gateway, "absent", of(30, 0, 0)).await;
    absent.comes_to_hold(&digests(&study)).await;
    // The others are no further, and no nearer: a partner that cannot be had is asked again, forever.
    for partner in ["rejecting", "aborting", "full"] {
        comes_to(&gateway, partner, of(0, 30, 0)).await;
    }
    for (partner, state, why) in [
        ("good", "sent", ""),
        ("absent", "sent", ""),
        ("rejecting", "delayed", "rejected"),
        ("aborting", "delayed", "peer aborted the association"),
        ("full", "delayed", "A700H (out of resources)"),
        ("picky", "needs-action", "partner answered"),
    ] {
        // One that is tried again is "sending" for a moment.
        eventually(&format!("{partner} to be {state} because of {why:?}"), async || {
            let transfer = &gateway.api(&format!("/api/v1/transfers?partner={partner}")).await[0];
            assert!(!transfer["sentence"].as_str().unwrap().is_empty(), "{transfer:#}");
            let text = transfer["problem"]["text"].as_str().unwrap_or_default();
            (transfer["state"] == state && text.contains(why)).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn what_a_partner_refuses_for_good_is_set_aside_at_once_and_sent_again_when_a_person_says_so()
{
    let study = small_objects(2, 3);
    let willing = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let asked = willing.clone();
    let partner = ScriptedPartner::answering(move |_| {
        let willing = asked.load(std::sync::atomic::Ordering::Relaxed);
        if willing { Status::SUCCESS } else { Status::NOT_AUTHORISED }
    })
    .await;
    let gateway = Setup::new()
        .source("pacs", "PACS")
        .partner("partner", "PARTNER", partner.port())
        .route("GANTRY", &["partner"], "routine")
        .start()
        .await;

    send(&gateway, &study).await;
    comes_to(
        &gateway,
        "partner",
        Conservation { ordered: 3, set_aside: 3, ..Conservation::default() },
    )
    .await;

    // Each was tried once: a refusal for good is not repeated.
    assert_eq!(partner.received().len(), 3);
    let transfer = &gateway.api("/api/v1/transfers").await[0];
    assert_eq!(transfer["problem"]["status"], 0x0124, "{transfer:#}");
    willing.store(true, std::sync::atomic::Ordering::Relaxed);
    let id = transfer["id"].as_str().unwrap();
    let answer = gateway.ask(Ask::post(&format!("/api/v1/transfers/{id}/retry"))).await.json();
    assert_eq!(answer["changed"], 3, "{answer:#}");
    comes_to(
        &gateway,
        "partner",
        Conservation { ordered: 3, delivered: 3, ..Conservation::default() },
    )
    .await;
}

#[tokio::test]
async fn a_partner_that_takes_everything_and_answers_nothing_holds_up_no_other() {
    let study = small_objects(3, 20);
    let stuck = ScriptedPartner::start().await;
    stuck.allow(0);
    let good = Dcmtk::storescp("GOOD").start().await;
    let gateway = Setup::new()
        .source("pacs", "PACS")
        .partner("stuck", "STUCK", stuck.port())
        .partner("good", "GOOD", good.port())
        .route("GANTRY", &["stuck", "good"], "routine")
        .start()
        .await;

    send(&gateway, &study).await;

    good.comes_to_hold(&digests(&study)).await;
    comes_to(
        &gateway,
        "stuck",
        Conservation { ordered: 20, waiting: 20, ..Conservation::default() },
    )
    .await;
    stuck.allow(20);
    comes_to(
        &gateway,
        "stuck",
        Conservation { ordered: 20, delivered: 20, ..Conservation::default() },
    )
    .await;
}

#[tokio::test]
async fn what_nobody_takes_is_set_aside_after_its_time_and_goes_when_a_person_asks_again() {
    let (routine, emergency) = (small_objects(7, 5), small_objects(8, 3));
    let mut partner = Dcmtk::storescp("PARTNER");
    let gateway = Setup::new()
        .source("pacs", "PACS")
        .delivery("retry-floor = \"1s\"\ngive-up-after = \"1s\"\n")
        .partner("partner", "PARTNER", partner.port())
        .route("ROUTINE", &["partner"], "routine")
        .route("EMERGENCY", &["partner"], "emergency")
        .start()
        .await;
    let send = async |called: &str, study: &Study| {
        let to = gateway.plaintext();
        let mut sender = Sender::connect_as("PACS", called, to, &study.instances).await.unwrap();
        sender.store_all(&study.instances).await;
        sender.release().await;
    };
    let of = |ordered, delivered, waiting, set_aside| Conservation {
        ordered,
        delivered,
        waiting,
        set_aside,
        cancelled: 0,
    };

    send("ROUTINE", &routine).await;
    comes_to(&gateway, "partner", of(5, 0, 0, 5)).await;
    send("EMERGENCY", &emergency).await;
    comes_to(&gateway, "partner", of(8, 0, 3, 5)).await;

    let transfers = gateway.api("/api/v1/transfers").await;
    let given_up = transfers.as_array().unwrap().iter().find(|one| one["priority"] == "routine");
    let (id, why) =
        (given_up.unwrap()["id"].as_str(), given_up.unwrap()["problem"]["text"].as_str());
    assert!(why.unwrap().ends_with("; given up after 1s"), "{why:?}");

    partner.run().await;
    comes_to(&gateway, "partner", of(8, 3, 0, 5)).await;
    let retried = gateway.command(&["transfer", "retry", id.unwrap()]).await;
    assert!(retried.status.success(), "{retried:?}");
    comes_to(&gateway, "partner", of(8, 8, 0, 0)).await;
}
