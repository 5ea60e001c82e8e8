//! How fast the object store is: what goes up to a real S3 server beside what that takes from a client that does nothing
//! else, what waits in the spool meanwhile, and what it costs to read one frame out of the middle of a long object.
//!
//! `GANTRY_BENCH_ROUNDS` (5) and `GANTRY_BENCH_ONLY` (a part of a job's name) change what is run.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a bench that cannot run fails"
)]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_sdk_s3::config::{BehaviorVersion, Region};
use aws_sdk_s3::primitives::ByteStream;
use futures_util::StreamExt as _;
use gantry_gateway::association::status::Status;
use gantry_store::facts::{Digest, Facts, ObjectId};
use gantry_store::object::{self, FileObjects, ObjectStore};
use gantry_store::sealed::Keyring;
use gantry_store::spool::{Durability, Spool};
use gantry_tests::board::{Against, Board, Target, settle_the_disk, spread_folder};
use gantry_tests::ceph::{BUCKET, Bucket, KEY};
use gantry_tests::facts::ct_slice;
use gantry_tests::{Sender, Setup, eventually_within};
use ring::digest::{Context, SHA256};

const DRAIN: &str = "500 objects of 530 kB into the bucket, 8 at once (objects/s)";
const GROWTH: &str = "the spool at 200 CT a second for 20 s (seconds of intake that wait, most)";
const FRAME: &str = "a frame of 512 kB out of an object of 1.5 GB (ms)";
const OURS: &str = "gantry";
const BARE: &str = "aws-sdk-s3, put object and nothing else";
const ON_FILE: &str = "file";
const ON_S3: &str = "S3";
const CT: usize = 530_000;

fn main() {
    let rounds =
        std::env::var("GANTRY_BENCH_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(5);
    let only = std::env::var("GANTRY_BENCH_ONLY").unwrap_or_default();
    let runs = |job: &str| job.contains(&only);
    let folder = spread_folder();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let bucket = Bucket::new("the bench of the object store").expect("a server that speaks S3");
    let mut board = Board::default();
    // The server makes its pools with the first objects.
    drain(&Bench::new(), &bucket, 50);
    for _ in 0..rounds {
        if runs(DRAIN) {
            board.note(DRAIN, BARE, runtime.block_on(bare(&bucket, 500)));
            board.note(DRAIN, OURS, drain(&Bench::new(), &bucket, 500));
        }
        if runs(GROWTH) {
            board.note(GROWTH, OURS, runtime.block_on(growth(&bucket)));
        }
    }
    if runs(FRAME) {
        frames(&mut board, &bucket);
    }
    let at_most = |job, ours, most| Target { job, ours, against: Against::AtMost(most) };
    board.print(&[
        Target { job: DRAIN, ours: OURS, against: Against::AtLeast(0.8, BARE) },
        at_most(GROWTH, OURS, 5.0),
        at_most(FRAME, ON_FILE, 20.0),
        at_most(FRAME, ON_S3, 40.0),
    ]);
    drop(folder);
}

/// A spool of its own.
struct Bench {
    folder: tempfile::TempDir,
    keyring: Arc<Keyring>,
    spool: Spool,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let keyring = Arc::new(Keyring::create(&folder.path().join("keys")).unwrap());
        let spool = Spool::open(&folder.path().join("spool"), keyring.clone(), 0).unwrap();
        Self { folder, keyring, spool }
    }

    /// Seals an object of so many pieces of 1 kB.
    fn seal(&self, pieces: u64) -> ObjectId {
        let mut incoming = self.spool.begin(Vec::new()).unwrap();
        let (mut digest, mut piece) = (Context::new(&SHA256), [0; 1000]);
        for number in 0..pieces {
            piece[..8].copy_from_slice(&number.to_le_bytes());
            digest.update(&piece);
            incoming.write(&piece).unwrap();
        }
        let digest = Digest(digest.finish().as_ref().try_into().unwrap());
        let object = incoming.object();
        let facts = Facts { length: pieces * 1000, digest, ..ct_slice(object, 1, 1, 1) };
        incoming.commit(&facts, Durability::Received).unwrap();
        object
    }
}

/// What the server takes from whoever confirms nothing and reads no file.
async fn bare(bucket: &Bucket, count: usize) -> f64 {
    let key = aws_sdk_s3::config::Credentials::new(KEY.0, KEY.1, None, None, "bench");
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .endpoint_url(&bucket.url)
        .region(Region::new("us-east-1"))
        .force_path_style(true)
        .request_checksum_calculation(aws_sdk_s3::config::RequestChecksumCalculation::WhenRequired)
        .credentials_provider(key);
    let client = aws_sdk_s3::Client::from_conf(config.build());
    let body = bytes::Bytes::from(vec![7; CT]);
    let begun = Instant::now();
    let puts = futures_util::stream::iter(0..count).map(|_| {
        let name = format!("{}/bare/{}", bucket.prefix, ObjectId::new());
        let body = ByteStream::from(body.clone());
        let put = client.put_object().bucket(BUCKET).key(name).body(body).send();
        tokio::spawn(async move { put.await.expect("the server takes objects") })
    });
    puts.buffer_unordered(8).for_each(|put| async { drop(put.unwrap()) }).await;
    count as f64 / begun.elapsed().as_secs_f64()
}

fn drain(bench: &Bench, bucket: &Bucket, count: u64) -> f64 {
    let objects: Vec<_> = (0..count).map(|_| bench.seal(CT as u64 / 1000)).collect();
    let files: Vec<_> = objects.iter().map(|object| (*object, bench.spool.path(*object))).collect();
    let store = bucket.store();
    store.probe().unwrap();
    settle_the_disk();
    let begun = Instant::now();
    for batch in files.chunks(512) {
        for answer in store.put(batch) {
            answer.expect("the server takes objects");
        }
    }
    count as f64 / begun.elapsed().as_secs_f64()
}

/// The whole node, at a pace.
async fn growth(bucket: &Bucket) -> f64 {
    const PACE: usize = 200;
    const SECONDS: usize = 20;
    let folder = tempfile::tempdir().unwrap();
    let bucket =
        Bucket { prefix: format!("{}/{}", bucket.prefix, ObjectId::new()), ..bucket.clone() };
    let store = bucket.toml(&bucket.url, folder.path());
    let node = Setup::new().source("pacs", "PACS").object_store(&store).start().await;
    let studies =
        (0..PACE * SECONDS / 1000).map(|seed| sample_studies::ct_series(seed as u64, 1000));
    let instances: Vec<_> = studies.flat_map(|study| study.instances).collect();
    let mut sender = Sender::connect(node.plaintext(), &instances[..1]).await.unwrap();
    let begun = Instant::now();
    let mut most = 0;
    for (number, instance) in instances.iter().enumerate() {
        let due = begun + Duration::from_secs_f64(number as f64 / PACE as f64);
        tokio::time::sleep_until(due.into()).await;
        let storing = sender.begin(instance).await.unwrap();
        assert_eq!(storing.end(&instance.data_set).await.unwrap(), Status::SUCCESS);
        if number.is_multiple_of(PACE / 2) {
            let status = node.api("/api/v1/status").await;
            most = most.max(status["object_store"]["waiting"].as_u64().unwrap());
        }
    }
    let took = begun.elapsed().as_secs_f64();
    assert!(took < 1.1 * SECONDS as f64, "{took:.1} s: the pace was not kept");
    sender.release().await;
    eventually_within(Duration::from_mins(2), "all to be in the bucket", async || {
        let status = node.api("/api/v1/status").await;
        (status["object_store"]["waiting"] == 0).then_some(())
    })
    .await;
    most as f64 / PACE as f64
}

fn frames(board: &mut Board, bucket: &Bucket) {
    const FRAME_BYTES: usize = 512 << 10;
    let bench = Bench::new();
    let object = bench.seal(1_500_000);
    let file = bench.spool.path(object);
    let near = FileObjects::open(&bench.folder.path().join("objects")).unwrap();
    let far = bucket.store();
    let stores: [(&str, &dyn ObjectStore); 2] = [(ON_FILE, &near), (ON_S3, &far)];
    for (name, store) in stores {
        put(store, object, &file);
        for number in 0..40_u64 {
            let offset = number * 36_000_000 + 12_345;
            let begun = Instant::now();
            let reader = object::read(store, object, &bench.keyring).unwrap();
            let mut frame = vec![0; FRAME_BYTES];
            reader.range(offset, &mut frame).unwrap();
            let ms = begun.elapsed().as_secs_f64() * 1000.0;
            board.note(FRAME, if name == ON_FILE { ON_FILE } else { ON_S3 }, ms);
        }
    }
}

fn put(store: &dyn ObjectStore, object: ObjectId, file: &Path) {
    for answer in store.put(&[(object, file.to_owned())]) {
        answer.expect("the store takes it");
    }
}
