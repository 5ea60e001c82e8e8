//! Promise 1: an instance that was answered 0000H survives whatever happens next, a power cut included.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)] // a panic is how a test fails

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use gantry_tests::random::Random;
use gantry_tests::{Dcmtk, Disk, Gateway, Held, Sender, Setup, digest, digests, eventually, skip};
use sample_studies::{HeadCt, Instance, Study, small_objects};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A crash at some moment, and the next start, over and over.
const CRASHES: u64 = 12;
/// Power cuts, unless `GANTRY_POWER_CUTS` asks for more.
const POWER_CUTS: u64 = 4;
/// Instances that may be with a worker, or whose receipt may not be written yet, when the node dies: each of a partner's
/// five workers has one on the wire, and the recorder holds up to 32 that were answered.
const IN_FLIGHT: usize = 64;

/// Sends in the background until all is sent or the node is gone; the instances that were acknowledged.
fn send(
    to: SocketAddr,
    instances: Vec<Instance>,
    count: watch::Sender<usize>,
) -> JoinHandle<BTreeMap<String, String>> {
    tokio::spawn(async move {
        let Ok(mut sender) = Sender::connect(to, &instances).await else { return BTreeMap::new() };
        for instance in &instances {
            if sender.store(instance).await.is_err() {
                break;
            }
            count.send_modify(|count| *count += 1);
        }
        sender.acknowledged
    })
}

/// What is sent in one round: two senders, one with images and one with many small objects, none of them sent before.
fn load(round: u64) -> [Study; 2] {
    [HeadCt::small(1000 + round).build(), small_objects(1000 + round, 40)]
}

/// Two senders at work.
struct Load {
    senders: Vec<JoinHandle<BTreeMap<String, String>>>,
    acknowledged: watch::Receiver<usize>,
    of: usize,
}

impl Load {
    fn start(to: SocketAddr, studies: &[Study]) -> Self {
        let (count, acknowledged) = watch::channel(0);
        let senders =
            studies.iter().map(|study| send(to, study.instances.clone(), count.clone())).collect();
        Self { senders, acknowledged, of: studies.iter().map(Study::len).sum() }
    }

    /// Waits until a random part of it is acknowledged, and a random moment longer.
    async fn until_a_random_moment(&mut self, random: &mut Random) {
        let enough = random.below(self.of);
        let reached = self.acknowledged.wait_for(|count| *count >= enough).await.is_ok();
        assert!(reached, "the senders were broken off before anything happened to the node");
        for _ in 0..random.below(2000) {
            std::hint::spin_loop();
        }
    }

    /// What was acknowledged until the node was gone.
    async fn acknowledged(self) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        for sender in self.senders {
            all.extend(sender.await.unwrap());
        }
        all
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_killed_at_any_moment_has_lost_nothing_it_acknowledged() {
    let clinic = Dcmtk::storescp("CLINIC").remembering_the_order().start().await;
    let mut gateway = Gateway::forwarding_to(&clinic).start().await;
    let mut random = Random::from_environment();

    let (mut acknowledged, mut sent) = (BTreeMap::new(), BTreeMap::new());
    for round in 0..CRASHES {
        let studies = load(round);
        let mut load = Load::start(gateway.plaintext(), &studies);
        load.until_a_random_moment(&mut random).await;
        gateway.kill().await;
        acknowledged.extend(load.acknowledged().await);
        sent.extend(studies.iter().flat_map(digests));

        let held = Held::in_data_dir(gateway.data_dir());
        assert_includes(&held.digests, &acknowledged, "the files, right after the crash");
        gateway.start().await;
        let held = Held::in_data_dir(gateway.data_dir());
        assert!(held.leftovers.is_empty(), "left after the start: {:?}", held.leftovers);
    }

    // What was never acknowledged may have arrived all the same: its sender was not told in time.
    let kept = Held::in_data_dir(gateway.data_dir()).digests;
    assert_includes(&kept, &acknowledged, "the files");
    assert_includes(&sent, &kept, "what was sent");
    gateway.delivered("partner", kept.len()).await;
    for (uid, digest) in &acknowledged {
        let rows =
            gateway.rows(async |index| index.instance(&uid.parse().unwrap()).await.unwrap()).await;
        let rows: Vec<_> = rows.iter().map(|row| row.digest.to_string()).collect();
        assert_eq!(rows, [digest.as_str()], "rows of {uid}");
    }
    clinic.comes_to_hold(&kept).await;
    let arrivals = clinic.order_of_arrival();
    let repeated = arrivals.len() - arrivals.iter().collect::<BTreeSet<_>>().len();
    println!(
        "{CRASHES} crashes: {} acknowledged, {} kept, {repeated} sent twice",
        acknowledged.len(),
        kept.len()
    );
    assert!(
        repeated <= IN_FLIGHT * CRASHES as usize,
        "{repeated} instances were sent more than once"
    );
    assert!(gateway.conservation("partner").await.adds_up());
}

#[tokio::test]
async fn what_dcmtk_saw_acknowledged_is_there_after_a_crash() {
    let clinic = Dcmtk::storescp("CLINIC").start().await;
    let mut gateway = Gateway::forwarding_to(&clinic).start().await;
    let study = small_objects(1, 300);
    let storescu = Dcmtk::storescu(&study);

    let (said, ()) = tokio::join!(storescu.send_to(gateway.plaintext()), async {
        eventually("some instances to arrive", async || (clinic.count() > 20).then_some(())).await;
        gateway.kill().await;
    });

    let acknowledged: BTreeMap<_, _> = said
        .acknowledged()
        .into_iter()
        .map(|name| {
            let instance =
                study.instances.iter().find(|instance| instance.file_name == name).unwrap();
            (instance.sop_instance_uid.clone(), digest(&instance.data_set))
        })
        .collect();
    assert!(!said.is_success() && acknowledged.len() > 20, "{}", said.said());
    // storescu encodes anew, so the bytes are its own: what counts is that every instance is there and reads.
    let held = Held::in_data_dir(gateway.data_dir());
    assert!(acknowledged.keys().all(|uid| held.digests.contains_key(uid)));
    gateway.start().await;
    gateway.delivered("partner", held.digests.len()).await;
    assert!(acknowledged.keys().all(|uid| clinic.holds().contains_key(uid)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_power_is_cut_at_any_moment_has_lost_nothing_it_acknowledged() {
    let mut disk = match Disk::new(512) {
        Ok(disk) => disk,
        Err(why) => {
            return skip(
                "a_node_whose_power_is_cut_at_any_moment_has_lost_nothing_it_acknowledged",
                &why,
            );
        }
    };
    let clinic = Dcmtk::storescp("CLINIC").start().await;
    let data_dir = disk.path().join("data");
    let mut gateway = Gateway::forwarding_to(&clinic).data_dir(&data_dir).start().await;
    let mut random = Random::from_environment();
    let cuts = std::env::var("GANTRY_POWER_CUTS")
        .ok()
        .and_then(|cuts| cuts.parse().ok())
        .unwrap_or(POWER_CUTS);

    let mut acknowledged = BTreeMap::new();
    for round in 0..cuts {
        let studies = load(round);
        let mut load = Load::start(gateway.plaintext(), &studies);
        load.until_a_random_moment(&mut random).await;
        // The disk first: what the node does after that, it does without one.
        disk.cut_the_power().unwrap();
        gateway.kill().await;
        acknowledged.extend(load.acknowledged().await);
        disk.unmount().unwrap();
        disk.mount().unwrap();

        let held = Held::in_data_dir(&data_dir);
        assert_includes(&held.digests, &acknowledged, "the files, after the power came back");
        gateway.start().await;
    }

    let kept = Held::in_data_dir(&data_dir).digests;
    println!("{cuts} power cuts: {} acknowledged, {} kept", acknowledged.len(), kept.len());
    gateway.delivered("partner", kept.len()).await;
    // The partner's own power was never cut: it may hold what was not acknowledged, and was lost here.
    assert_includes(&clinic.holds(), &acknowledged, "the partner");
    assert!(gateway.conservation("partner").await.adds_up());
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_here_really_loses_what_was_not_synced() {
    const TEST: &str = "a_power_cut_here_really_loses_what_was_not_synced";
    let mut random = Random::from_environment();
    // The kernel may happen to write early, so that one try proves nothing.
    for round in 0..5 {
        let mut disk = match Disk::new(512) {
            Ok(disk) => disk,
            Err(why) => return skip(TEST, &why),
        };
        let data_dir = disk.path().join("data");
        let careless = "reserve = \"0B\"\nacknowledge = \"received\"";
        let mut gateway =
            Setup::new().source("pacs", "PACS").data_dir(&data_dir).intake(careless).start().await;
        let mut load = Load::start(gateway.plaintext(), &load(round));
        load.until_a_random_moment(&mut random).await;
        disk.cut_the_power().unwrap();
        gateway.kill().await;
        let acknowledged = load.acknowledged().await;
        disk.unmount().unwrap();
        disk.mount().unwrap();
        let held = Held::in_data_dir(&data_dir).digests;
        if acknowledged.keys().any(|uid| !held.contains_key(uid)) {
            return;
        }
    }
    panic!(
        "five power cuts lost nothing of a node that does not wait for the disk: the other test proves nothing"
    );
}

fn assert_includes(all: &BTreeMap<String, String>, some: &BTreeMap<String, String>, what: &str) {
    let missing: Vec<_> =
        some.iter().filter(|(uid, digest)| all.get(*uid) != Some(digest)).collect();
    assert!(
        missing.is_empty(),
        "{what} lack {} of {}, or have other bytes: {missing:?}",
        missing.len(),
        some.len()
    );
}
