//! The index is not the truth: with it gone, `gantry reindex` makes the same rows again from what is kept, and what was
//! delivered is not sent again.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)] // a panic is how a test fails

use std::collections::BTreeMap;

use gantry_tests::{Dcmtk, Gateway, Sender, digests, forget_counts};
use sample_studies::{Study, all_valid, small_objects};
use serde_json::Value;

/// Every study as the API tells it once all is in the object store, but for where it was sent, which is no property of
/// files.
async fn studies(gateway: &Gateway, instances: usize) -> BTreeMap<String, Value> {
    gateway.stored(instances).await;
    // By UID, as what came within the same millisecond is in no order of time.
    let mut studies = BTreeMap::new();
    for summary in gateway.api("/api/v1/studies").await.as_array().unwrap() {
        let uid = summary["study_instance_uid"].as_str().unwrap();
        let mut study = gateway.api(&format!("/api/v1/studies/{uid}")).await;
        study.as_object_mut().unwrap().remove("transfers");
        forget_counts(&mut study);
        studies.insert(uid.to_owned(), study);
    }
    studies
}

async fn send(gateway: &Gateway, study: &Study) {
    let mut sender = Sender::connect(gateway.plaintext(), &study.instances).await.unwrap();
    sender.store_all(&study.instances).await;
    sender.release().await;
}

fn lose_the_index(gateway: &Gateway) {
    for name in ["index.sqlite", "index.sqlite-wal", "index.sqlite-shm"] {
        let _ = std::fs::remove_file(gateway.data_dir().join(name));
    }
}

#[tokio::test]
async fn rows_are_made_again_as_they_were() {
    let clinic = Dcmtk::storescp("CLINIC").start().await;
    let mut gateway = Gateway::forwarding_to(&clinic).start().await;
    let sent = all_valid(1);
    for study in &sent {
        send(&gateway, study).await;
    }
    // The same instance with other bytes: a second version, which files must tell apart too.
    let mut changed = small_objects(1, 1);
    let position = changed.instances[0].data_set.len() - 1;
    changed.instances[0].data_set[position] ^= 1;
    send(&gateway, &changed).await;
    let count: usize = sent.iter().map(Study::len).sum::<usize>() + 1;
    gateway.delivered("partner", count).await;
    let before = studies(&gateway, count).await;
    gateway.stop().await;

    lose_the_index(&gateway);
    let reindexed = gateway.command(&["reindex", "--no-deliveries", "--json"]).await;
    assert!(reindexed.status.success(), "{}", String::from_utf8_lossy(&reindexed.stderr));
    let said: Value = serde_json::from_slice(&reindexed.stdout).unwrap();
    gateway.start().await;

    assert_eq!(
        (&said["found"], &said["recorded"], &said["ordered"]),
        (&count.into(), &count.into(), &0.into())
    );
    assert_eq!(before.len(), sent.len());
    let after = studies(&gateway, count).await;
    for (uid, study) in &before {
        assert_eq!(Some(study), after.get(uid));
    }
    assert_eq!(before.len(), after.len());
}

#[tokio::test]
async fn what_nobody_remembers_having_delivered_is_delivered_again() {
    let clinic = Dcmtk::storescp("CLINIC").start().await;
    let mut gateway = Gateway::forwarding_to(&clinic).start().await;
    let study = small_objects(2, 20);
    send(&gateway, &study).await;
    gateway.delivered("partner", study.len()).await;
    gateway.stop().await;
    clinic.forget();

    lose_the_index(&gateway);
    std::fs::remove_dir_all(gateway.data_dir().join("delivered")).unwrap();
    assert!(gateway.command(&["reindex"]).await.status.success());
    gateway.start().await;

    gateway.delivered("partner", study.len()).await;
    clinic.comes_to_hold(&digests(&study)).await;
}

#[tokio::test]
async fn a_node_that_finds_its_index_gone_makes_it_again_and_sends_nothing_twice() {
    let clinic = Dcmtk::storescp("CLINIC").start().await;
    let mut gateway = Gateway::forwarding_to(&clinic).start().await;
    let studies = [small_objects(3, 20), small_objects(4, 20)];
    send(&gateway, &studies[0]).await;
    gateway.delivered("partner", 20).await;
    let before = self::studies(&gateway, 20).await;
    gateway.stop().await;
    clinic.forget();

    lose_the_index(&gateway);
    gateway.start().await;
    send(&gateway, &studies[1]).await;

    gateway.delivered("partner", 40).await;
    let after = self::studies(&gateway, 40).await;
    assert!(before.iter().all(|(uid, study)| after.get(uid) == Some(study)));
    assert_eq!(clinic.holds(), digests(&studies[1]));
}
