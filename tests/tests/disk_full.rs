//! A full disk is an answer (A700H), not an accident: nothing is half written, and work goes on when there is room.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)] // a panic is how a test fails

use std::collections::BTreeMap;
use std::path::Path;

use gantry_gateway::association::status::Status;
use gantry_tests::{Dcmtk, Disk, Gateway, Held, Sender, digest, eventually, skip};
use sample_studies::{HeadCt, Instance};

/// A disk with a file on it that can be removed to make room.
fn disk(test: &str, mebibytes: u64, ballast: u64) -> Option<Disk> {
    let disk = Disk::new(mebibytes).map_err(|why| skip(test, &why)).ok()?;
    std::fs::write(disk.path().join("ballast"), vec![0; (ballast as usize) << 20])
        .expect("the disk is empty");
    Some(disk)
}

/// Sends images until one is not taken; what was acknowledged, and what was not.
async fn fill(
    gateway: &Gateway,
    acknowledged: &mut BTreeMap<String, String>,
) -> (Instance, Status) {
    let mut images =
        HeadCt { thick_slices: 0, thin_slices: 240, scout: false, seed: 1 }.instances().peekable();
    let context = images.peek().unwrap().clone();
    let mut sender = Sender::connect(gateway.plaintext(), &[context]).await.unwrap();
    for image in images {
        if acknowledged.contains_key(&image.sop_instance_uid) {
            continue;
        }
        match sender.store(&image).await.unwrap() {
            Status::SUCCESS => {
                acknowledged.insert(image.sop_instance_uid.clone(), digest(&image.data_set));
            }
            refused => {
                // The association goes on: a sender may have something smaller.
                assert_eq!(sender.echo().await.unwrap(), Status::SUCCESS);
                sender.release().await;
                return (image, refused);
            }
        }
    }
    panic!("the disk took all");
}

async fn recovers(test: &str, intake: &str) {
    let Some(disk) = disk(test, 64, 16) else { return };
    let clinic = Dcmtk::storescp("CLINIC").start().await;
    let data_dir = disk.path().join("data");
    let mut gateway =
        Gateway::forwarding_to(&clinic).data_dir(&data_dir).intake(intake).start().await;

    let mut acknowledged = BTreeMap::new();
    let (refused, status) = fill(&gateway, &mut acknowledged).await;

    assert_eq!(status, Status::OUT_OF_RESOURCES);
    assert!(acknowledged.len() > 10, "the disk was full after {} images", acknowledged.len());
    assert!(gateway.is_alive());
    let leftovers = Held::in_data_dir(&data_dir).leftovers;
    assert!(leftovers.is_empty(), "half written: {leftovers:?}");

    std::fs::remove_file(disk.path().join("ballast")).unwrap();
    eventually("the image that was refused to be taken", async || {
        let mut sender =
            Sender::connect(gateway.plaintext(), std::slice::from_ref(&refused)).await.ok()?;
        let status = sender.store(&refused).await.ok()?;
        acknowledged.extend(sender.release().await);
        (status == Status::SUCCESS).then_some(())
    })
    .await;
    gateway.delivered("partner", acknowledged.len()).await;
    clinic.comes_to_hold(&acknowledged).await;
    eventually("everything to be in the object store", async || {
        keeps(&data_dir, acknowledged.len()).then_some(())
    })
    .await;
    assert!(gateway.stop().await.success());
    assert_eq!(Held::in_data_dir(&data_dir).digests, acknowledged);
}

fn keeps(data_dir: &Path, count: usize) -> bool {
    let held = Held::in_data_dir(data_dir);
    held.spooled == 0 && held.stored == count
}

#[tokio::test]
async fn a_node_with_a_reserve_stops_taking_before_the_disk_is_full_and_goes_on_by_itself() {
    recovers("a_node_with_a_reserve_stops_taking_before_the_disk_is_full", "reserve = \"8MiB\"")
        .await;
}

#[tokio::test]
async fn a_node_without_a_reserve_survives_a_disk_that_is_full_to_the_last_byte() {
    recovers("a_node_without_a_reserve_survives_a_disk_that_is_full", "reserve = \"0B\"").await;
}
