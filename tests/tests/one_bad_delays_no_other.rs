//! Promise 5: one bad partner, study or instance delays no other.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)] // a panic is how a test fails

use std::time::Duration;

use gantry_tests::{
    Dcmtk, Gateway, ScriptedPartner, Sender, Setup, Storescp, eventually, eventually_within,
};
use sample_studies::{Study, small_objects};

/// Long enough for a slow machine, and shorter than the shortest wait after a failure in these tests.
const AT_ONCE: Duration = Duration::from_secs(9);
/// A first failure is followed by leaving the partner alone for up to 10 min: for less than [`AT_ONCE`] in one case of a hundred.
const LONG_WAITS: &str =
    "retry-floor = \"10m\"\nretry-ceiling = \"10m\"\nemergency-retry-ceiling = \"10m\"";

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

#[tokio::test]
async fn a_partner_that_aborts_everything_is_called_now_and_then_and_not_for_each_instance() {
    let (bad, good) =
        (ScriptedPartner::aborting_at(|_| true).await, ScriptedPartner::start().await);
    let gateway = Setup::new()
        .source("pacs", "PACS")
        .delivery(LONG_WAITS)
        .partner("bad", "BAD", bad.port())
        .partner("partner", "PARTNER", good.port())
        .route("BOTH", &["bad", "partner"], "routine")
        .start()
        .await;

    send(&gateway, "BOTH", &small_objects(8, 100)).await;
    delivered_at_once(&gateway, 100, "the same study at another partner").await;
    let waiting = eventually("the partner to be left alone", async || {
        let now = gateway.conservation("bad").await;
        (bad.associations() >= 3).then_some(now)
    })
    .await;

    assert!(waiting.adds_up() && waiting.waiting == 100, "{waiting:?}");
    // The third break in a row tells, and as many may be on the wire as there are workers.
    assert!(bad.associations() <= 3 + 5, "called {} times", bad.associations());
}

/// DCMTK's storescp as it comes: while it serves one association, others wait to be accepted.
async fn one_at_a_time() -> (Storescp, Gateway) {
    let partner = Dcmtk::storescp("PARTNER").one_association_at_a_time().start().await;
    let gateway = scene(partner.port()).await;
    (partner, gateway)
}

async fn nothing_was_delayed(gateway: &Gateway) {
    for transfer in gateway.api("/api/v1/transfers").await.as_array().unwrap() {
        let id = transfer["id"].as_str().unwrap();
        let detail = gateway.api(&format!("/api/v1/transfers/{id}")).await;
        let kinds: Vec<_> =
            detail["events"].as_array().unwrap().iter().map(|e| &e["kind"]).collect();
        assert!(!kinds.contains(&&serde_json::json!("delayed")), "{kinds:?}");
    }
}

#[tokio::test]
async fn a_partner_that_serves_one_association_at_a_time_gets_a_backlog_at_once() {
    let (_partner, gateway) = one_at_a_time().await;

    send(&gateway, "ROUTINE", &small_objects(9, 200)).await;
    delivered_at_once(&gateway, 200, "a backlog").await;
    send(&gateway, "ROUTINE", &small_objects(10, 50)).await;
    delivered_at_once(&gateway, 250, "the next one").await;

    nothing_was_delayed(&gateway).await;
}

#[tokio::test]
async fn an_emergency_goes_on_the_one_association_that_a_partner_serves() {
    let (_partner, gateway) = one_at_a_time().await;
    send(&gateway, "ROUTINE", &small_objects(11, 40)).await;
    delivered_at_once(&gateway, 40, "routine").await;

    // The association that brought routine is still open, and nobody else gets one.
    send(&gateway, "EMERGENCY", &small_objects(12, 40)).await;
    delivered_at_once(&gateway, 80, "the emergency").await;
    send(&gateway, "ROUTINE", &small_objects(13, 40)).await;
    delivered_at_once(&gateway, 120, "routine again").await;

    nothing_was_delayed(&gateway).await;
}
