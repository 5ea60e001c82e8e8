//! Promise 5: one bad partner, study or instance delays no other.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)] // a panic is how a test fails

use std::time::Duration;

use gantry_tests::{Dcmtk, Gateway, ScriptedPartner, Sender, Setup, eventually, eventually_within};
use sample_studies::{Study, small_objects};

/// Long enough for a slow machine, and shorter than the shortest wait after a failure in these tests.
const AT_ONCE: Duration = Duration::from_secs(9);
/// A first failure is followed by 15 to 30 s of leaving the partner alone.
const LONG_WAITS: &str =
    "retry-floor = \"30s\"\nretry-ceiling = \"10m\"\nemergency-retry-ceiling = \"30s\"";

async fn send(gateway: &Gateway, called: &str, study: &Study) {
    let mut sender =
        Sender::connect_as("PACS", called, gateway.plaintext(), &study.instances).await.unwrap();
    sender.store_all(&study.instances).await;
    sender.release().await;
}

async fn scene(port: u16) -> Gateway {
    Setup::new()
        .source("pacs", "PACS")
        .delivery(LONG_WAITS)
        .partner("partner", "PARTNER", port)
        .route("ROUTINE", &["partner"], "routine")
        .route("EMERGENCY", &["partner"], "emergency")
        .start()
        .await
}

async fn delivered_at_once(gateway: &Gateway, count: usize, what: &str) {
    eventually_within(AT_ONCE, what, async || {
        (gateway.conservation("partner").await.delivered == count as u64).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_instance_that_makes_a_partner_abort_delays_no_other() {
    let study = small_objects(1, 20);
    let poison = study.instances[3].sop_instance_uid.clone();
    let partner = ScriptedPartner::aborting_at(move |uid| uid == poison).await;
    let gateway = scene(partner.port()).await;

    send(&gateway, "ROUTINE", &study).await;

    delivered_at_once(&gateway, 19, "the other instances of the study").await;
    let now = gateway.conservation("partner").await;
    assert!(now.adds_up() && now.waiting + now.set_aside == 1, "{now:?}");
}

#[tokio::test]
async fn a_partner_that_aborted_at_one_instance_gets_the_next_study_at_once() {
    let poison = small_objects(2, 1);
    let uid = poison.instances[0].sop_instance_uid.clone();
    let partner = ScriptedPartner::aborting_at(move |sent| sent == uid).await;
    let gateway = scene(partner.port()).await;
    send(&gateway, "ROUTINE", &poison).await;
    eventually("the abort", async || {
        let state = &gateway.api("/api/v1/transfers").await[0]["state"];
        (state == "delayed" || state == "needs-action").then_some(())
    })
    .await;

    send(&gateway, "ROUTINE", &small_objects(3, 5)).await;

    delivered_at_once(&gateway, 5, "another study").await;
}

#[tokio::test]
async fn an_emergency_does_not_wait_until_a_partner_that_was_down_is_tried_for_routine() {
    let mut partner = Dcmtk::storescp("PARTNER");
    let gateway = scene(partner.port()).await;
    send(&gateway, "ROUTINE", &small_objects(6, 5)).await;
    eventually("the partner to be found absent", async || {
        (gateway.api("/api/v1/transfers").await[0]["state"] == "delayed").then_some(())
    })
    .await;
    partner.run().await;

    send(&gateway, "EMERGENCY", &small_objects(7, 5)).await;

    eventually_within(AT_ONCE, "the emergency", async || (partner.count() >= 5).then_some(()))
        .await;
}
