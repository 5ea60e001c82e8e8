//! Keys change while the node runs, and what is stored moves to the new one: on files and in a bucket. Without its key nothing
//! can be read, nothing is lost, and nothing falls back to plain.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)] // a panic is how a test fails

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gantry_store::object::{FileObjects, ObjectStore};
use gantry_tests::ceph::Bucket;
use gantry_tests::{Dcmtk, Gateway, Held, Sender, digests, eventually};
use sample_studies::{Study, ct_series, small_objects};
use serde_json::Value;

async fn send(gateway: &Gateway, study: &Study) {
    let before = usize::try_from(gateway.instances().await).unwrap();
    let mut sender = Sender::connect(gateway.plaintext(), &study.instances).await.unwrap();
    sender.store_all(&study.instances).await;
    sender.release().await;
    gateway.stored(before + study.len()).await;
}

async fn keys(gateway: &Gateway, arguments: &[&str]) -> (Option<i32>, Value, String) {
    let output = gateway.command(&[&["keys", "--json"], arguments].concat()).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("keys {arguments:?} said no JSON: {said}"));
    (output.status.code(), value, said)
}

/// The digests of what is stored, read with these keys alone.
async fn stored(keys: &Path, objects: &Arc<dyn ObjectStore>) -> BTreeMap<String, String> {
    let (objects, alone) = (objects.clone(), tempfile::tempdir().unwrap());
    std::os::unix::fs::symlink(keys, alone.path().join("keys")).unwrap();
    let read = tokio::task::spawn_blocking(move || Held::with_objects(alone.path(), &*objects));
    read.await.unwrap().digests
}

fn key_file(gateway: &Gateway, id: &str) -> PathBuf {
    gateway.data_dir().join(format!("keys/{id}.key"))
}

async fn what_is_stored_moves(gateway: Gateway, objects: Arc<dyn ObjectStore>) {
    let keys_dir = gateway.data_dir().join("keys");
    let first = ct_series(1, 6);
    send(&gateway, &first).await;
    let old = keys(&gateway, &["status"]).await.1["current"].as_str().unwrap().to_owned();

    let (_, rotated, _) = keys(&gateway, &["rotate"]).await;
    let new = rotated["current"].as_str().unwrap().to_owned();
    let (mut expected, mut seed) = (digests(&first), 100);
    let images = eventually("the node to find the new key by itself", async || {
        seed += 1;
        let one = small_objects(seed, 1);
        send(&gateway, &one).await;
        expected.extend(digests(&one));
        let (_, counted, _) = keys(&gateway, &["status", "--count"]).await;
        let keys = counted["keys"].as_array().unwrap().clone();
        let images = |id: &str| {
            keys.iter().find(|key| key["id"] == *id).unwrap()["images"].as_u64().unwrap()
        };
        (images(&new) > 0).then(|| (images(&old), images(&new)))
    })
    .await;
    assert_eq!(images.0 + images.1, expected.len() as u64);

    // Without its key an object is left as it is, and said so.
    let (there, away) = (key_file(&gateway, &old), gateway.data_dir().join("away"));
    std::fs::rename(&there, &away).unwrap();
    let (exit, moved, said) = keys(&gateway, &["rewrap"]).await;
    assert_ne!(exit, Some(0));
    assert_eq!(&moved["moved"], 0);
    assert_eq!(moved["failed"].as_array().unwrap().len() as u64, images.0);
    assert!(said.contains(&format!("key {old} is not in the keyring")), "{said}");
    std::fs::rename(&away, &there).unwrap();

    let (exit, moved, _) = keys(&gateway, &["rewrap"]).await;
    assert_eq!((exit, &moved["moved"]), (Some(0), &images.0.into()), "{moved}");
    let (_, again, _) = keys(&gateway, &["rewrap"]).await;
    assert_eq!((&again["moved"], &again["by_key"][&new]), (&0.into(), &expected.len().into()));

    std::fs::rename(&there, &away).unwrap();
    assert_eq!(stored(&keys_dir, &objects).await, expected, "with the new key alone");
    gateway.delivered("partner", expected.len()).await;
}

#[tokio::test]
async fn what_is_stored_in_files_moves_to_a_new_key_while_the_node_runs() {
    let clinic = Dcmtk::storescp("CLINIC").start().await;
    let gateway = Gateway::forwarding_to(&clinic).start().await;
    let objects = FileObjects::open(&gateway.data_dir().join("objects")).unwrap();
    what_is_stored_moves(gateway, Arc::new(objects)).await;
}

#[tokio::test]
async fn what_is_stored_in_a_bucket_moves_to_a_new_key_while_the_node_runs() {
    let test = "what_is_stored_in_a_bucket_moves_to_a_new_key_while_the_node_runs";
    let Some(bucket) = Bucket::new(test) else { return };
    let (clinic, folder) = (Dcmtk::storescp("CLINIC").start().await, tempfile::tempdir().unwrap());
    let store = bucket.toml(&bucket.url, folder.path());
    let gateway = Gateway::forwarding_to(&clinic).object_store(&store).start().await;
    let objects = tokio::task::spawn_blocking(move || bucket.store()).await.unwrap();
    what_is_stored_moves(gateway, Arc::new(objects)).await;
}

/// A node whose key is gone does not start, says which, and starts with all it had when the key is back.
#[tokio::test]
async fn a_node_without_its_key_says_which_and_loses_nothing() {
    let clinic = Dcmtk::storescp("CLINIC").start().await;
    let mut gateway = Gateway::forwarding_to(&clinic).start().await;
    let study = small_objects(5, 4);
    send(&gateway, &study).await;
    gateway.stop().await;
    let id = std::fs::read_to_string(gateway.data_dir().join("keys/current")).unwrap();
    let (there, away) = (key_file(&gateway, id.trim()), gateway.data_dir().join("away"));
    std::fs::rename(&there, &away).unwrap();

    let refused = gateway.command(&["serve"]).await;

    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains(id.trim()), "{said}");
    std::fs::rename(&away, &there).unwrap();
    gateway.start().await;
    let objects: Arc<dyn ObjectStore> =
        Arc::new(FileObjects::open(&gateway.data_dir().join("objects")).unwrap());
    assert_eq!(stored(&gateway.data_dir().join("keys"), &objects).await, digests(&study));
}
