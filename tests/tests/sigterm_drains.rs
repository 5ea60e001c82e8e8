//! A node that is asked to stop finishes what it has in hand, and says so with its exit code.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)] // a panic is how a test fails

use gantry_gateway::association::status::Status;
use gantry_tests::{Dcmtk, Gateway, Held, Sender, digest, digests, eventually};
use sample_studies::{HeadCt, small_objects};
use tokio::net::TcpStream;

#[tokio::test]
async fn the_instance_in_hand_is_answered_and_nothing_is_lost() {
    let clinic = Dcmtk::storescp("CLINIC").start().await;
    let mut gateway = Gateway::forwarding_to(&clinic).start().await;
    let study = HeadCt::small(1).build();
    let mut sender = Sender::connect(gateway.plaintext(), &study.instances).await.unwrap();
    let (first, second) = (&study.instances[0], &study.instances[1]);
    assert_eq!(sender.store(first).await.unwrap(), Status::SUCCESS);

    let half = second.data_set.len() / 2;
    let mut storing = sender.begin(second).await.unwrap();
    storing.data(&second.data_set[..half]).await.unwrap();
    eventually("the second image to be begun", async || {
        (!Held::in_data_dir(gateway.data_dir()).leftovers.is_empty()).then_some(())
    })
    .await;
    gateway.ask_to_stop();
    eventually("the listener to close", async || {
        TcpStream::connect(gateway.plaintext()).await.is_err().then_some(())
    })
    .await;
    let answer = storing.end(&second.data_set[half..]).await.unwrap();

    assert_eq!(answer, Status::SUCCESS);
    assert!(
        sender.store(&study.instances[2]).await.is_err(),
        "the association went on although the node stops"
    );
    assert_eq!(gateway.stopped().await.code(), Some(0));
    let expected =
        [first, second].map(|one| (one.sop_instance_uid.clone(), digest(&one.data_set))).into();
    let held = Held::in_data_dir(gateway.data_dir());
    assert_eq!(held.digests, expected);
    assert!(held.leftovers.is_empty(), "{:?}", held.leftovers);
    assert_eq!(held.spooled, 0, "the spool was not drained");
    gateway.start().await;
    gateway.delivered("partner", 2).await;
    clinic.comes_to_hold(&expected).await;
}

#[tokio::test]
async fn a_backlog_waits_for_the_next_start() {
    let mut clinic = Dcmtk::storescp("CLINIC");
    let mut gateway = Gateway::forwarding_to(&clinic).start().await;
    let study = small_objects(2, 100);
    let mut sender = Sender::connect(gateway.plaintext(), &study.instances).await.unwrap();
    sender.store_all(&study.instances).await;
    sender.release().await;

    assert_eq!(gateway.stop().await.code(), Some(0));

    clinic.run().await;
    gateway.start().await;
    gateway.delivered("partner", study.len()).await;
    assert_eq!(clinic.holds(), digests(&study));
}
