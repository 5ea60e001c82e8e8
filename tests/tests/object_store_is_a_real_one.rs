//! The object store's promises, kept with a real S3 server: what every back end must do, and what it says when it cannot.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)] // a panic is how a test fails

use std::path::PathBuf;

use gantry_store::facts::ObjectId;
use gantry_store::object::s3::{Checksum, Credentials, Encryption, Settings, Trouble};
use gantry_store::object::{Abilities, ObjectError, ObjectStore as _, S3Objects, suite};
use gantry_tests::Setup;
use gantry_tests::ceph::{Bucket, STRANGER};
use gantry_tests::network::free_port;
use serde_json::Value;

#[test]
fn a_real_server_passes_the_suite() {
    let Some(bucket) = Bucket::new("a_real_server_passes_the_suite") else { return };
    suite::every_back_end_passes(&bucket.store());
}

#[test]
fn a_real_server_passes_the_suite_with_checksums() {
    let Some(bucket) = Bucket::new("a_real_server_passes_the_suite_with_checksums") else { return };
    let settings = Settings { checksum: Checksum::Always, ..bucket.settings() };
    suite::every_back_end_passes(&S3Objects::open(settings).unwrap());
}

#[test]
fn a_real_server_decides_who_came_first_and_refuses_what_was_damaged() {
    let test = "a_real_server_decides_who_came_first_and_refuses_what_was_damaged";
    let Some(bucket) = Bucket::new(test) else { return };
    assert_eq!(bucket.store().probe().unwrap(), Abilities::ALL);
    assert_eq!(bucket.store().list(None, 10).unwrap(), [], "a probe leaves nothing");
}

#[test]
fn trouble_is_told_by_its_cause() {
    let Some(bucket) = Bucket::new("trouble_is_told_by_its_cause") else { return };
    let trouble = |settings: Settings| match S3Objects::open(settings).unwrap().probe() {
        Err(ObjectError::Remote { source, .. }) => source,
        other => panic!("{other:?}"),
    };
    let known = bucket.settings();

    let nobody = Credentials::key("nobody", "secret");
    let stranger = Credentials::key(STRANGER.0, STRANGER.1);
    let wrong = Credentials::key(gantry_tests::ceph::KEY.0, "wrong");
    assert_eq!(
        trouble(Settings { credentials: nobody, ..known.clone() }),
        Trouble::WrongKey("InvalidAccessKeyId".to_owned())
    );
    assert_eq!(
        trouble(Settings { credentials: wrong, ..known.clone() }),
        Trouble::WrongKey("SignatureDoesNotMatch".to_owned())
    );
    assert_eq!(trouble(Settings { credentials: stranger, ..known.clone() }), Trouble::NotAllowed);
    assert_eq!(
        trouble(Settings { bucket: "no-such-bucket".to_owned(), ..known.clone() }),
        Trouble::NoBucket
    );
    let kms = Encryption::Kms { key: Some("none".to_owned()) };
    assert!(
        S3Objects::open(Settings { encryption: kms, ..known }).unwrap().probe().is_err(),
        "encryption that the server does not have is never left out in silence"
    );
}

/// What `gantry check --json` finds around the configuration, and its exit code.
async fn check(object_store: String) -> (Option<i32>, String) {
    let gateway = Setup::new().object_store(&object_store).start().await;
    let checked = gateway.command(&["check", "--json"]).await;
    let report: Value = serde_json::from_slice(&checked.stdout).unwrap();
    let found = report["surroundings"].as_array().unwrap();
    let words = found.iter().map(|trouble| trouble["message"].as_str().unwrap().to_owned());
    (checked.status.code(), words.collect::<Vec<_>>().join("\n"))
}

#[tokio::test]
async fn gantry_check_uses_the_bucket_and_says_what_is_wrong_with_it() {
    let test = "gantry_check_uses_the_bucket_and_says_what_is_wrong_with_it";
    let Some(bucket) = Bucket::new(test) else { return };
    let folder = tempfile::tempdir().unwrap();
    let right = bucket.toml(&bucket.url, folder.path());
    let no_bucket = right.replace("bucket = \"images\"", "bucket = \"no-such-bucket\"");
    let nobody = bucket.toml(&format!("http://127.0.0.1:{}", free_port()), folder.path());

    let (right, no_bucket, nobody) = tokio::join!(check(right), check(no_bucket), check(nobody));

    assert_eq!(right, (Some(0), String::new()));
    assert_eq!(no_bucket.0, Some(2));
    assert!(no_bucket.1.ends_with(": there is no such bucket"), "{}", no_bucket.1);
    assert_eq!(nobody.0, Some(0), "the node runs, and waits for it");
    assert!(nobody.1.ends_with(": the endpoint refuses connections"), "{}", nobody.1);
}

#[test]
fn uploads_that_a_crash_cut_off_are_aborted_and_others_are_left_alone() {
    let test = "uploads_that_a_crash_cut_off_are_aborted_and_others_are_left_alone";
    let Some(bucket) = Bucket::new(test) else { return };
    let store = bucket.store();
    let (ours, theirs) = (ObjectId::new(), ObjectId::new());
    store.begin_and_crash(ours).unwrap();
    store.begin_and_crash(theirs).unwrap();

    let aborted = store.sweep(&|object| object == ours).unwrap();

    assert_eq!(aborted, 1);
    assert_eq!(store.sweep(&|object| object == ours).unwrap(), 0);
    assert_eq!(store.sweep(&|_| true).unwrap(), 1, "the other node's was still there");
}

#[test]
fn of_many_who_put_the_same_name_one_wins_and_nobody_is_lied_to() {
    let test = "of_many_who_put_the_same_name_one_wins_and_nobody_is_lied_to";
    let Some(bucket) = Bucket::new(test) else { return };
    let folder = tempfile::tempdir().unwrap();
    let object = ObjectId::new();
    let files: Vec<PathBuf> = (0..8_u8)
        .map(|number| {
            let path = folder.path().join(number.to_string());
            std::fs::write(&path, vec![number; 100_000]).unwrap();
            path
        })
        .collect();

    let answers: Vec<_> = std::thread::scope(|threads| {
        let put = |path: &PathBuf| {
            let (path, store) = (path.clone(), bucket.store());
            threads.spawn(move || store.put(&[(object, path)]).remove(0))
        };
        let running: Vec<_> = files.iter().map(put).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    });

    let won: Vec<_> = answers.iter().enumerate().filter(|(_, answer)| answer.is_ok()).collect();
    assert_eq!(won.len(), 1, "{answers:?}");
    let mut first = [0];
    bucket.store().open(object).unwrap().read_exact_at(&mut first, 0).unwrap();
    assert_eq!(usize::from(first[0]), won[0].0);
    for answer in answers.iter().filter(|answer| answer.is_err()) {
        assert!(matches!(answer, Err(ObjectError::Differs(_))), "{answers:?}");
    }
}
