//! The object store may be down, slow or wrong: what was acknowledged stays, goes on to partners, and comes to lie in the
//! store once, whole, without anybody's help. The store is a real one, behind a proxy that breaks what a test says.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)] // a panic is how a test fails

use std::collections::BTreeMap;
use std::time::Duration;

use gantry_gateway::association::status::Status;
use gantry_store::object::ObjectStore as _;
use gantry_tests::ceph::Bucket;
use gantry_tests::proxy::{Fault, Proxy};
use gantry_tests::{
    Dcmtk, Gateway, Held, Sender, Setup, Storescp, digest, digests, eventually, eventually_within,
};
use sample_studies::{HeadCt, Instance, Study, ct_series};
use serde_json::Value;

/// A node whose object store is behind a proxy, and a partner.
struct Bench {
    bucket: Bucket,
    proxy: Proxy,
    clinic: Storescp,
    gateway: Gateway,
    _folder: tempfile::TempDir,
}

impl Bench {
    async fn new(test: &str) -> Option<Self> {
        Self::with(test, |setup| setup).await
    }

    async fn with(test: &str, change: impl FnOnce(Setup) -> Setup) -> Option<Self> {
        let bucket = Bucket::new(test)?;
        let (proxy, clinic) =
            (Proxy::before(bucket.address()).await, Dcmtk::storescp("CLINIC").start().await);
        let folder = tempfile::tempdir().unwrap();
        let store = bucket.toml(&proxy.url(), folder.path());
        let quick = "connect-timeout = \"1s\"\nresponse-timeout = \"2s\"\n";
        let setup = Gateway::forwarding_to(&clinic).object_store(&format!("{store}{quick}"));
        let gateway = change(setup).start().await;
        Some(Self { bucket, proxy, clinic, gateway, _folder: folder })
    }

    async fn send(&self, instances: &[Instance]) -> BTreeMap<String, String> {
        let mut sender = Sender::connect(self.gateway.plaintext(), instances).await.unwrap();
        sender.store_all(instances).await;
        sender.release().await
    }

    async fn store(&self) -> Value {
        self.gateway.api("/api/v1/status").await["object_store"].clone()
    }

    async fn all_is_stored(&self) {
        eventually_within(Duration::from_mins(2), "all to be in the bucket", async || {
            let store = self.store().await;
            (store["waiting"] == 0 && store["reachable"] == true).then_some(())
        })
        .await;
    }

    /// What the bucket really holds, read with the node's keys past the proxy.
    async fn stored(&self) -> BTreeMap<String, String> {
        let (bucket, data_dir) = (self.bucket.clone(), self.gateway.data_dir().to_owned());
        let read = tokio::task::spawn_blocking(move || {
            // Without the spool, which may still keep a copy.
            let keys = tempfile::tempdir().unwrap();
            std::os::unix::fs::symlink(data_dir.join("keys"), keys.path().join("keys")).unwrap();
            Held::with_objects(keys.path(), &bucket.store()).digests
        });
        read.await.unwrap()
    }
}

#[tokio::test]
async fn images_go_up_at_once_and_are_forwarded_meanwhile() {
    let Some(bench) = Bench::new("images_go_up_at_once_and_are_forwarded_meanwhile").await else {
        return;
    };
    let study = HeadCt::small(1).build();

    bench.send(&study.instances).await;

    bench.all_is_stored().await;
    assert_eq!(bench.stored().await, digests(&study));
    bench.gateway.delivered("partner", study.len()).await;
    let status = bench.gateway.command(&["status"]).await;
    let said = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(said.contains("object store: s3, takes objects"), "{said}");
}

#[tokio::test]
async fn whatever_the_store_does_all_is_taken_and_forwarded_and_stored_when_it_is_well() {
    let test = "whatever_the_store_does_all_is_taken_and_forwarded_and_stored_when_it_is_well";
    let Some(bench) = Bench::new(test).await else { return };
    let faults = [
        (Fault::Refuse, "refuses connections"),
        (Fault::Hang, "did not answer in time"),
        (Fault::Answer(403, "AccessDenied"), "not allowed"),
        (Fault::Answer(403, "InvalidAccessKeyId"), "does not accept the access key"),
        (Fault::Answer(404, "NoSuchBucket"), "no such bucket"),
        (Fault::Answer(500, "InternalError"), "in trouble (500 InternalError)"),
        (Fault::Answer(503, "SlowDown"), "in trouble (503 SlowDown)"),
    ];
    let (mut sent, mut acknowledged) = (0, BTreeMap::new());
    for (number, (fault, words)) in faults.into_iter().enumerate() {
        let study = ct_series(number as u64 + 10, 12);
        bench.proxy.set(fault).await;

        acknowledged.extend(bench.send(&study.instances).await);
        sent += study.len();

        bench.gateway.delivered("partner", sent).await;
        let why = eventually(&format!("the node to notice {fault:?}"), async || {
            let store = bench.store().await;
            store["why"].as_str().filter(|_| store["reachable"] == false).map(str::to_owned)
        })
        .await;
        assert!(why.contains(words), "{fault:?}: {why}");
        assert_eq!(bench.store().await["waiting"], study.len());
        bench.proxy.set(Fault::None).await;
        bench.all_is_stored().await;
    }
    assert_eq!(bench.stored().await, acknowledged);
    bench.clinic.comes_to_hold(&acknowledged).await;
}

#[tokio::test]
async fn a_store_that_is_down_is_left_alone_and_asked_with_one_object() {
    let test = "a_store_that_is_down_is_left_alone_and_asked_with_one_object";
    let Some(bench) = Bench::new(test).await else { return };
    bench.all_is_stored().await;
    bench.proxy.set(Fault::Answer(503, "SlowDown")).await;
    let study = ct_series(1, 100);
    bench.send(&study.instances).await;
    eventually("the node to notice", async || {
        (bench.store().await["reachable"] == false).then_some(())
    })
    .await;

    let before = bench.proxy.seen().0;
    let begun = std::time::Instant::now();
    eventually("a few more tries", async || (bench.proxy.seen().0 >= before + 4).then_some(()))
        .await;
    let seconds = begun.elapsed().as_secs_f64();
    let rate = (bench.proxy.seen().0 - before) as f64 / seconds;

    assert!(rate < 4.0, "{rate:.1} requests a second for 100 objects");
    bench.proxy.set(Fault::None).await;
    bench.all_is_stored().await;
    assert_eq!(bench.stored().await, digests(&study));
}

#[tokio::test]
async fn what_is_cut_or_damaged_or_unanswered_is_never_taken_for_whole() {
    let test = "what_is_cut_or_damaged_or_unanswered_is_never_taken_for_whole";
    let Some(bench) = Bench::new(test).await else { return };
    let mut acknowledged = BTreeMap::new();
    let faults = [Fault::ResetInMidPut, Fault::SwallowAnswer, Fault::CorruptUpload];
    for (number, fault) in faults.into_iter().enumerate() {
        bench.proxy.times(fault, 5).await;

        acknowledged.extend(bench.send(&ct_series(number as u64 + 20, 12).instances).await);

        bench.all_is_stored().await;
        assert_eq!(bench.stored().await, acknowledged, "after {fault:?}");
    }
    // Each image once, whatever was sent twice.
    let bucket = bench.bucket.clone();
    let listed = tokio::task::spawn_blocking(move || bucket.store().list(None, 1000)).await;
    assert_eq!(listed.unwrap().unwrap().len(), acknowledged.len());
}

#[tokio::test]
async fn a_spool_at_its_mark_refuses_routine_keeps_its_reserve_for_emergencies_and_empties_itself()
{
    let test = "a_spool_at_its_mark_refuses_routine_keeps_its_reserve_for_emergencies";
    let with = |setup: Setup| {
        setup
            .route("EMERG", &["partner"], "emergency")
            .intake("reserve = \"0B\"\nspool-high-water = \"64MiB\"\nemergency-reserve = \"8MiB\"")
    };
    let Some(bench) = Bench::with(test, with).await else { return };
    bench.proxy.set(Fault::Refuse).await;
    let all = HeadCt { thick_slices: 0, thin_slices: 200, scout: false, seed: 3 }.build();
    let mut images = all.instances.iter();
    let mut acknowledged = BTreeMap::new();

    let (routine, status) = fill(&bench, "GANTRY", &mut images, &mut acknowledged).await;
    assert_eq!(status, Status::OUT_OF_RESOURCES);
    let taken = acknowledged.len();
    let mut emergencies = std::iter::once(&routine).chain(images);
    let (_, status) = fill(&bench, "EMERG", &mut emergencies, &mut acknowledged).await;
    assert_eq!(status, Status::OUT_OF_RESOURCES, "the reserve ends too");
    let more = acknowledged.len() - taken;

    assert!((100..140).contains(&taken), "{taken} images of half a MiB below 64 MiB");
    assert!((10..20).contains(&more), "{more} images of half a MiB in 8 MiB");
    bench.gateway.delivered("partner", acknowledged.len()).await;
    bench.proxy.set(Fault::None).await;
    bench.all_is_stored().await;
    assert_eq!(bench.stored().await, acknowledged);
    let late = ct_series(77, 1);
    eventually("routine to be taken again", async || {
        let mut sender = Sender::connect(bench.gateway.plaintext(), &late.instances).await.ok()?;
        let status = sender.store(&late.instances[0]).await.ok()?;
        sender.release().await;
        (status == Status::SUCCESS).then_some(())
    })
    .await;
}

/// Sends images until one is refused: that one, and how.
async fn fill<'a>(
    bench: &Bench,
    called: &str,
    images: &mut impl Iterator<Item = &'a Instance>,
    acknowledged: &mut BTreeMap<String, String>,
) -> (Instance, Status) {
    let mut sender: Option<Sender> = None;
    for image in images {
        if sender.is_none() {
            let to = bench.gateway.plaintext();
            let context = std::slice::from_ref(image);
            sender = Some(Sender::connect_as("PACS", called, to, context).await.unwrap());
        }
        let status = sender.as_mut().unwrap().store(image).await.unwrap();
        if status != Status::SUCCESS {
            sender.unwrap().release().await;
            return (image.clone(), status);
        }
        acknowledged.insert(image.sop_instance_uid.clone(), digest(&image.data_set));
    }
    panic!("everything was taken");
}

#[tokio::test]
async fn a_crash_in_the_middle_of_uploads_loses_nothing_and_leaves_nothing_half() {
    let test = "a_crash_in_the_middle_of_uploads_loses_nothing_and_leaves_nothing_half";
    let Some(mut bench) = Bench::new(test).await else { return };
    bench.all_is_stored().await;
    bench.proxy.set(Fault::Slow(300_000)).await;
    let long = long_study();
    let mut acknowledged = bench.send(&long.instances).await;
    acknowledged.extend(bench.send(&ct_series(31, 20).instances).await);
    let before = bench.proxy.seen().0;
    eventually("uploads to be under way", async || {
        (bench.proxy.seen().0 > before + 3).then_some(())
    })
    .await;

    bench.gateway.kill().await;
    // What the dead node had on the wire is lost with it.
    bench.proxy.set(Fault::Refuse).await;
    bench.proxy.set(Fault::None).await;
    bench.gateway.start().await;

    bench.all_is_stored().await;
    assert_eq!(bench.stored().await, acknowledged);
    bench.gateway.delivered("partner", acknowledged.len()).await;
}

/// An instance that goes up in parts.
fn long_study() -> Study {
    sample_studies::multi_frame(5, 48, 512, 512).build().unwrap()
}

#[tokio::test]
async fn what_only_the_store_has_waits_for_it_and_is_never_set_aside() {
    let test = "what_only_the_store_has_waits_for_it_and_is_never_set_aside";
    // So small that the spool lets go of what is stored at once.
    let with = |setup: Setup| {
        setup.intake("reserve = \"0B\"\nspool-high-water = \"64MiB\"\nemergency-reserve = \"0B\"")
    };
    let Some(mut bench) = Bench::with(test, with).await else { return };
    bench.clinic.switch_off().await;
    let study = HeadCt { thick_slices: 0, thin_slices: 90, scout: false, seed: 4 }.build();
    bench.send(&study.instances).await;
    bench.all_is_stored().await;
    eventually("the spool to be nearly empty", async || {
        let status = bench.gateway.api("/api/v1/status").await;
        (status["spool"]["held_bytes"].as_u64()? < 33 << 20).then_some(())
    })
    .await;

    bench.proxy.set(Fault::Refuse).await;
    bench.clinic.run().await;
    eventually("images to wait for the store", async || {
        let transfers = bench.gateway.api("/api/v1/transfers").await;
        transfers.to_string().contains("object store").then_some(())
    })
    .await;
    assert_eq!(bench.gateway.conservation("partner").await.set_aside, 0);
    bench.proxy.set(Fault::None).await;

    bench.gateway.delivered("partner", study.len()).await;
    bench.clinic.comes_to_hold(&digests(&study)).await;
}
