//! Images are kept as long as rules and people order, and no longer: what is owed or held stays, what may go goes, on files
//! and in a bucket; a crash between the decision and the deletion is finished, and nothing comes back unless it is sent again.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)] // a panic is how a test fails

use std::process::Output;
use std::sync::Arc;

use gantry_store::index::{Removal, Remover};
use gantry_store::object::{FileObjects, ObjectStore};
use gantry_tests::ceph::Bucket;
use gantry_tests::{Dcmtk, Gateway, Sender, Storescp, eventually};
use jiff::{SignedDuration, Timestamp};
use sample_studies::{Study, ct_series, small_objects};
use serde_json::Value;

const RULE: &str = "[[retention]]\nname = \"one second\"\npurpose = \"direct-care\"\nkeep = \"1s\"\nafter = \"sent\"\n";

async fn send(gateway: &Gateway, study: &Study) {
    let mut sender = Sender::connect(gateway.plaintext(), &study.instances).await.unwrap();
    sender.store_all(&study.instances).await;
    sender.release().await;
}

async fn objects(store: &Arc<dyn ObjectStore>) -> usize {
    let store = store.clone();
    tokio::task::spawn_blocking(move || store.list(None, 10_000).unwrap().len()).await.unwrap()
}

fn uid(study: &Study) -> String {
    study.instances[0].study_instance_uid.clone()
}

async fn command(gateway: &Gateway, words: &[&str]) -> (Option<i32>, Value, String) {
    let Output { status, stdout, stderr } = gateway.command(words).await;
    let value = serde_json::from_slice(&stdout).unwrap_or(Value::Null);
    (status.code(), value, String::from_utf8_lossy(&stderr).into_owned())
}

async fn gone(store: &Arc<dyn ObjectStore>) {
    eventually("the images to be gone", async || (objects(store).await == 0).then_some(())).await;
}

async fn kept_and_removed(mut partner: Storescp, gateway: Gateway, store: Arc<dyn ObjectStore>) {
    let study = small_objects(1, 4);
    let uid = uid(&study);
    partner.switch_off().await;
    send(&gateway, &study).await;
    gateway.stored(study.len()).await;

    // Owed: neither a rule nor a person removes it.
    let (exit, _, said) =
        command(&gateway, &["study", "delete", &uid, "--reason", "test", "--yes"]).await;
    assert_eq!(exit, Some(10), "{said}");
    assert!(said.contains("owed") && said.contains("transfer cancel"), "{said}");
    let (_, ran, _) = command(&gateway, &["retention", "run", "--json"]).await;
    assert_eq!(ran["studies"], 0, "{ran}");
    let (exit, ..) = command(&gateway, &["study", "hold", &uid, "--reason", "coroner"]).await;
    assert_eq!(exit, Some(0));

    // Sent, and held.
    partner.run().await;
    gateway.delivered("partner", study.len()).await;
    eventually("nothing but the hold to keep it", async || {
        let (_, report, _) = command(&gateway, &["retention", "show", "--json"]).await;
        (report["kept"]["held"]["studies"] == 1).then_some(())
    })
    .await;
    let (_, ran, _) = command(&gateway, &["retention", "run", "--json"]).await;
    assert_eq!((&ran["studies"], objects(&store).await), (&Value::from(0), study.len()));
    let (exit, _, said) =
        command(&gateway, &["study", "delete", &uid, "--reason", "test", "--yes"]).await;
    assert!(exit == Some(10) && said.contains("legal hold"), "{said}");

    // Released: the rule's time has passed, and it goes by itself.
    let (exit, ..) = command(&gateway, &["study", "release", &uid, "--reason", "closed"]).await;
    assert_eq!(exit, Some(0));
    gone(&store).await;
    let shown = gateway.api(&format!("/api/v1/studies/{uid}")).await;
    assert!(shown["study"]["removed"]["by"].as_str().unwrap().contains("one second"), "{shown}");
    let counted = gateway.conservation("partner").await;
    assert!(counted.adds_up() && counted.delivered == study.len() as u64, "{counted:?}");

    // It comes again, and is taken in, and goes again.
    send(&gateway, &study).await;
    eventually("the study to have come back and gone", async || {
        let shown = gateway.api(&format!("/api/v1/studies/{uid}")).await;
        let kinds: Vec<_> =
            shown["events"].as_array().unwrap().iter().map(|e| e["kind"].clone()).collect();
        (kinds.contains(&"returned".into()) && kinds.last() == Some(&"removed".into()))
            .then_some(())
    })
    .await;
    gone(&store).await;
}

#[tokio::test]
async fn what_is_owed_or_held_stays_and_what_may_go_goes_from_files() {
    let clinic = Dcmtk::storescp("CLINIC").start().await;
    let gateway = Gateway::forwarding_to(&clinic).rule(RULE).start().await;
    let store = FileObjects::open(&gateway.data_dir().join("objects")).unwrap();
    kept_and_removed(clinic, gateway, Arc::new(store)).await;
}

#[tokio::test]
async fn what_is_owed_or_held_stays_and_what_may_go_goes_from_a_bucket() {
    let test = "what_is_owed_or_held_stays_and_what_may_go_goes_from_a_bucket";
    let Some(bucket) = Bucket::new(test) else { return };
    let (clinic, folder) = (Dcmtk::storescp("CLINIC").start().await, tempfile::tempdir().unwrap());
    let lines = bucket.toml(&bucket.url, folder.path());
    let gateway = Gateway::forwarding_to(&clinic).object_store(&lines).rule(RULE).start().await;
    let store = tokio::task::spawn_blocking(move || bucket.store()).await.unwrap();
    kept_and_removed(clinic, gateway, Arc::new(store)).await;
}

#[tokio::test]
async fn above_the_high_water_mark_the_oldest_goes_before_its_time_and_no_more_than_must() {
    let clinic = Dcmtk::storescp("CLINIC").start().await;
    let rule = format!("{}at-least = \"1s\"\n", RULE.replace("keep = \"1s\"", "keep = \"90d\""));
    let gateway = Gateway::forwarding_to(&clinic)
        .object_store("kind = \"file\"\nhigh-water = \"64MiB\"\n")
        .rule(&rule)
        .start()
        .await;
    // 26 MB each.
    let studies = [1, 2, 3].map(|seed| ct_series(seed, 50));

    let mut sent = 0;
    for study in &studies[..2] {
        send(&gateway, study).await;
        sent += study.len();
        gateway.delivered("partner", sent).await;
        gateway.stored(sent).await;
    }
    let status = gateway.api("/api/v1/status").await;
    assert_eq!(status["object_store"]["above_mark"], false, "{status}");
    let removed = async |study: &Study| {
        let shown = gateway.api(&format!("/api/v1/studies/{}", uid(study))).await;
        shown["study"]["removed"]["by"].as_str().map(str::to_owned)
    };
    assert_eq!((removed(&studies[0]).await, removed(&studies[1]).await), (None, None));

    // Both may go by now; one is enough.
    let sent_at: Vec<Value> = gateway
        .api("/api/v1/transfers")
        .await
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t["last_sent_at"].clone())
        .collect();
    eventually("at-least to have passed for both", async || {
        let passed = |at: &Value| {
            at.as_str().unwrap().parse::<Timestamp>().unwrap() + SignedDuration::from_secs(2)
                < Timestamp::now()
        };
        sent_at.iter().all(passed).then_some(())
    })
    .await;
    send(&gateway, &studies[2]).await;
    eventually("the oldest to have gone", async || removed(&studies[0]).await).await;
    let status = gateway.api("/api/v1/status").await;
    assert_eq!(status["object_store"]["above_mark"], false, "{status}");
    assert_eq!((removed(&studies[1]).await, removed(&studies[2]).await), (None, None));
}

#[tokio::test]
async fn a_crash_after_the_decision_is_finished_and_reindex_brings_nothing_back() {
    let clinic = Dcmtk::storescp("CLINIC").start().await;
    let mut gateway = Gateway::forwarding_to(&clinic).start().await;
    let store: Arc<dyn ObjectStore> =
        Arc::new(FileObjects::open(&gateway.data_dir().join("objects")).unwrap());
    let study = small_objects(2, 3);
    send(&gateway, &study).await;
    gateway.delivered("partner", study.len()).await;
    gateway.stored(study.len()).await;
    eventually("the study to be at rest", async || {
        let (exit, ..) =
            command(&gateway, &["study", "delete", &uid(&study), "--reason", "test", "--dry-run"])
                .await;
        (exit == Some(0)).then_some(())
    })
    .await;
    gateway.kill().await;

    // The decision is committed, and the process is gone before it deletes anything.
    let decide = async |index: &gantry_store::index::Index| {
        let study = index.study_at_rest(&uid(&study).parse().unwrap()).await.unwrap().unwrap();
        let by = Remover::Person { name: "anna", reason: "test" };
        index.remove_images(&study, by, Timestamp::now()).await.unwrap()
    };
    assert!(matches!(gateway.rows(decide).await, Removal::Decided { images: 3, .. }));
    assert_eq!(objects(&store).await, 3);

    let reindexed = gateway.command(&["reindex", "--json"]).await;
    assert!(reindexed.status.success(), "{}", String::from_utf8_lossy(&reindexed.stderr));
    let said: Value = serde_json::from_slice(&reindexed.stdout).unwrap();
    assert_eq!((&said["recorded"], objects(&store).await), (&Value::from(0), 0), "{said}");

    // The same with a restart instead.
    gateway.start().await;
    let other = small_objects(3, 2);
    send(&gateway, &other).await;
    gateway.delivered("partner", study.len() + other.len()).await;
    gateway.stored(study.len() + other.len()).await;
    gateway.kill().await;
    let decide = async |index: &gantry_store::index::Index| {
        let study = index.study_at_rest(&uid(&other).parse().unwrap()).await.unwrap().unwrap();
        index.remove_images(&study, Remover::Rule("a rule"), Timestamp::now()).await.unwrap()
    };
    assert!(matches!(gateway.rows(decide).await, Removal::Decided { images: 2, .. }));
    gateway.start().await;
    gone(&store).await;
}
