//! What is kept is read again, and stays whole: what was damaged, lost or forgotten behind the node's back is found, mended
//! where a whole copy is at hand, and reported otherwise, on files and in a bucket; a crash or an outage in the middle of a
//! round neither begins it anew nor is taken for a loss.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)] // a panic is how a test fails

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gantry_store::facts::{Facts, ObjectId};
use gantry_store::object::{self, FileObjects, ObjectStore};
use gantry_store::sealed::{Keyring, SealedError};
use gantry_store::spool::{Durability, Spool};
use gantry_tests::ceph::Bucket;
use gantry_tests::http::Ask;
use gantry_tests::proxy::{Fault, Proxy};
use gantry_tests::{Dcmtk, Gateway, Sender, eventually, eventually_within};
use jiff::Timestamp;
use sample_studies::{Study, small_objects};
use serde_json::Value;
use sqlx::{Connection as _, SqliteConnection};

/// Rounds without a pause, of all that is older than two seconds.
const ALWAYS: &str = "[scrub]\nevery = \"2s\"\n";
/// The same, slow enough to be met in the middle: ten small images a second.
const SLOWLY: &str = "[scrub]\nevery = \"2s\"\nrate = \"128KiB\"\n";

async fn send(gateway: &Gateway, study: &Study) {
    let mut sender = Sender::connect(gateway.plaintext(), &study.instances).await.unwrap();
    sender.store_all(&study.instances).await;
    sender.release().await;
}

async fn report(gateway: &Gateway) -> Value {
    gateway.api("/api/v1/scrub").await
}

async fn on_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

async fn listed(store: &Arc<dyn ObjectStore>) -> Vec<ObjectId> {
    let store = store.clone();
    on_thread(move || store.list(None, 10_000).unwrap()).await
}

/// One bit of an object's last byte turns over.
async fn flip(store: &Arc<dyn ObjectStore>, object: ObjectId) {
    let store = store.clone();
    on_thread(move || {
        let source = store.open(object).unwrap();
        let mut bytes = vec![0; source.length().unwrap() as usize];
        source.read_exact_at(&mut bytes, 0).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        store.replace(object, file.path()).unwrap();
    })
    .await;
}

async fn delete(store: &Arc<dyn ObjectStore>, object: ObjectId) {
    let store = store.clone();
    on_thread(move || store.delete(object).unwrap()).await;
}

/// The same bytes under another name, which no row knows.
async fn repeat(store: &Arc<dyn ObjectStore>, object: ObjectId, keys: &Path) -> ObjectId {
    let (store, keyring) = (store.clone(), Arc::new(Keyring::open(keys).unwrap()));
    on_thread(move || {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::open(folder.path(), keyring.clone(), 0).unwrap();
        let reader = object::read(&*store, object, &keyring).unwrap();
        let mut incoming = spool.begin(Vec::new()).unwrap();
        reader
            .copy_to(|bytes| {
                incoming.write(bytes).unwrap();
                Ok::<_, SealedError>(())
            })
            .unwrap();
        let facts = Facts { object: incoming.object(), ..reader.facts().clone() };
        incoming.commit(&facts, Durability::Durable).unwrap();
        store.put(&[(facts.object, spool.path(facts.object))]).remove(0).unwrap();
        facts.object
    })
    .await
}

/// The row of an object is gone, with all that hangs on it.
async fn forget(gateway: &Gateway, object: ObjectId) {
    let path = gateway.data_dir().join("index.sqlite");
    let mut db = SqliteConnection::connect(path.to_str().unwrap()).await.unwrap();
    for statement in [
        "DELETE FROM delivery WHERE instance = (SELECT id FROM instance WHERE object = $1)",
        "DELETE FROM instance WHERE object = $1",
    ] {
        let done = sqlx::query(statement).bind(object.to_string()).execute(&mut db).await.unwrap();
        assert_eq!(done.rows_affected(), 1);
    }
    db.close().await.unwrap();
}

/// Waits until the log says so of an object.
async fn said(gateway: &Gateway, words: &str, object: ObjectId, kind: &str) {
    let (object, kind) = (object.to_string(), format!("{kind:?}"));
    eventually(&format!("{words:?} of {object}"), async || {
        let log = gateway.log();
        let mut lines = log.lines().filter(|line| line.contains(words));
        lines.any(|line| line.contains(&object) && line.contains(&kind)).then_some(())
    })
    .await;
}

const MENDED: &str = "the scrub mended something";
const UNRESOLVED: &str = "the scrub found what a person must see to";

async fn all_is_found(gateway: Gateway, store: Arc<dyn ObjectStore>, spool_keeps: bool) {
    let study = small_objects(1, 8);
    send(&gateway, &study).await;
    gateway.delivered("partner", study.len()).await;
    gateway.stored(study.len()).await;
    eventually("a round that read everything", async || {
        (report(&gateway).await["last"]["verified"] == study.len()).then_some(())
    })
    .await;
    assert_eq!(report(&gateway).await["findings"], Value::Array(Vec::new()));
    let ok = gateway.command(&["scrub", "status"]).await;
    assert!(ok.status.success(), "{}", String::from_utf8_lossy(&ok.stdout));

    let objects = listed(&store).await;
    // In a bucket the spool keeps a copy for a while.
    for object in &objects[..3] {
        let _ = std::fs::remove_file(gateway.data_dir().join(format!("spool/{object}.sealed")));
    }
    flip(&store, objects[0]).await;
    delete(&store, objects[1]).await;
    forget(&gateway, objects[2]).await;
    let again = repeat(&store, objects[3], &gateway.data_dir().join("keys")).await;
    if spool_keeps {
        flip(&store, objects[4]).await;
        delete(&store, objects[5]).await;
    }

    said(&gateway, UNRESOLVED, objects[0], "Damaged").await;
    said(&gateway, UNRESOLVED, objects[1], "Missing").await;
    said(&gateway, MENDED, objects[2], "WithoutRow").await;
    if spool_keeps {
        said(&gateway, MENDED, objects[4], "Damaged").await;
        said(&gateway, MENDED, objects[5], "Missing").await;
    }
    eventually("the repeat to be deleted", async || {
        (!listed(&store).await.contains(&again)).then_some(())
    })
    .await;
    eventually("a round that finds the rest whole", async || {
        (report(&gateway).await["last"]["verified"] == study.len() - 2).then_some(())
    })
    .await;
    let counted = gateway.conservation("partner").await;
    assert!(counted.adds_up() && counted.delivered == study.len() as u64, "{counted:?}");
    assert_eq!(gateway.instances().await, study.len() as u64);
    a_person_is_told(&gateway, &objects[..2]).await;

    // The advice helps.
    send(&gateway, &study).await;
    eventually("everything to be whole again", async || {
        let report = report(&gateway).await;
        let whole = report["last"]["verified"] == study.len();
        (whole && report["unresolved"] == Value::Object(serde_json::Map::new())).then_some(())
    })
    .await;
    let ok = gateway.command(&["scrub", "status"]).await;
    assert!(ok.status.success(), "{}", String::from_utf8_lossy(&ok.stdout));
    eventually("what was damaged to be cleared away", async || {
        (listed(&store).await.len() == study.len()).then_some(())
    })
    .await;
}

/// In the words of commands, in numbers, and with what to do.
async fn a_person_is_told(gateway: &Gateway, objects: &[ObjectId]) {
    let status = gateway.command(&["scrub", "status"]).await;
    let (out, err) =
        (String::from_utf8_lossy(&status.stdout), String::from_utf8_lossy(&status.stderr));
    assert_eq!(status.status.code(), Some(1), "{out}{err}");
    assert!(objects.iter().all(|object| out.contains(&object.to_string())), "{out}");
    assert!(err.contains("hint: missing: Send the study again"), "{err}");
    let json = gateway.command(&["scrub", "status", "--json"]).await;
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(
        (&json["unresolved"]["missing"], &json["unresolved"]["damaged"]),
        (&1.into(), &1.into())
    );
    let glance = gateway.command(&["status"]).await;
    let glance = String::from_utf8_lossy(&glance.stdout).into_owned();
    assert!(glance.contains("scrub: ") && glance.contains("2 for a person to see to"), "{glance}");
    let metrics = gateway.ask(Ask::get("/metrics")).await.text();
    assert!(metrics.contains("gantry_scrub_unresolved{kind=\"missing\"} 1"), "{metrics}");
    assert!(metrics.contains("gantry_scrub_objects_verified_total"), "{metrics}");
}

#[tokio::test]
async fn what_drifted_behind_the_nodes_back_is_found_on_files() {
    let clinic = Dcmtk::storescp("CLINIC").start().await;
    let gateway = Gateway::forwarding_to(&clinic).rule(ALWAYS).start().await;
    let store = FileObjects::open(&gateway.data_dir().join("objects")).unwrap();
    all_is_found(gateway, Arc::new(store), false).await;
}

#[tokio::test]
async fn what_drifted_behind_the_nodes_back_is_found_in_a_bucket() {
    let test = "what_drifted_behind_the_nodes_back_is_found_in_a_bucket";
    let Some(bucket) = Bucket::new(test) else { return };
    let (clinic, folder) = (Dcmtk::storescp("CLINIC").start().await, tempfile::tempdir().unwrap());
    let lines = bucket.toml(&bucket.url, folder.path());
    let gateway = Gateway::forwarding_to(&clinic).object_store(&lines).rule(ALWAYS).start().await;
    let store = on_thread(move || bucket.store()).await;
    all_is_found(gateway, Arc::new(store), true).await;
}

#[tokio::test]
async fn a_round_that_a_crash_cut_off_goes_on_where_it_was() {
    let clinic = Dcmtk::storescp("CLINIC").start().await;
    let mut gateway = Gateway::forwarding_to(&clinic).rule(SLOWLY).start().await;
    let study = small_objects(2, 100);
    send(&gateway, &study).await;
    gateway.delivered("partner", study.len()).await;
    gateway.stored(study.len()).await;
    // One for which every image is old enough.
    let settled = Timestamp::now() + jiff::SignedDuration::from_secs(2);
    let begun = eventually("a round to be in its second page", async || {
        let round = report(&gateway).await["current"].clone();
        let begun: Timestamp = round["begun_at"].as_str()?.parse().unwrap();
        (begun > settled && round["verified"].as_u64()? > 66).then_some(begun.to_string())
    })
    .await;

    gateway.kill_and_restart().await;

    let last = eventually("that round to end", async || {
        let last = report(&gateway).await["last"].clone();
        (last["begun_at"].as_str() == Some(&begun)).then_some(last)
    })
    .await;
    assert_eq!((&last["verified"], &last["counts"]), (&study.len().into(), &serde_json::json!({})));
}

#[tokio::test]
async fn a_store_that_goes_in_mid_round_loses_nothing_and_the_round_goes_on_when_it_is_back() {
    let test = "a_store_that_goes_in_mid_round_loses_nothing_and_the_round_goes_on_when_it_is_back";
    let Some(bucket) = Bucket::new(test) else { return };
    let proxy = Proxy::before(bucket.address()).await;
    let (clinic, folder) = (Dcmtk::storescp("CLINIC").start().await, tempfile::tempdir().unwrap());
    let lines = bucket.toml(&proxy.url(), folder.path());
    let quick = format!("{lines}connect-timeout = \"1s\"\nresponse-timeout = \"2s\"\n");
    let gateway = Gateway::forwarding_to(&clinic).object_store(&quick).rule(SLOWLY).start().await;
    let study = small_objects(3, 40);
    send(&gateway, &study).await;
    gateway.delivered("partner", study.len()).await;
    gateway.stored(study.len()).await;

    for fault in [Fault::Refuse, Fault::Answer(503, "SlowDown"), Fault::Answer(404, "NoSuchBucket")]
    {
        let settled = Timestamp::now() + jiff::SignedDuration::from_secs(2);
        let begun = eventually("a round to be in the middle", async || {
            let round = report(&gateway).await["current"].clone();
            let begun: Timestamp = round["begun_at"].as_str()?.parse().unwrap();
            let verified = round["verified"].as_u64()?;
            (begun > settled && (3..30).contains(&verified)).then_some(begun.to_string())
        })
        .await;
        let before = gateway.log().matches("the scrub waits").count();

        proxy.set(fault).await;
        eventually_within(Duration::from_mins(2), "several tries in vain", async || {
            (gateway.log().matches("the scrub waits").count() > before + 3).then_some(())
        })
        .await;
        assert_eq!(report(&gateway).await["findings"], Value::Array(Vec::new()), "{fault:?}");
        proxy.set(Fault::None).await;

        let last = eventually("that round to end", async || {
            let last = report(&gateway).await["last"].clone();
            (last["begun_at"].as_str() == Some(&begun)).then_some(last)
        })
        .await;
        assert_eq!(last["verified"], study.len(), "after {fault:?}: {last}");
    }
    assert!(!gateway.log().contains(UNRESOLVED) && !gateway.log().contains(MENDED));
}
