//! Promise 4, second half: a study starts moving at its first instance, not when it is complete.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)] // a panic is how a test fails

use gantry_tests::{Dcmtk, Gateway, Sender, digests, eventually};
use sample_studies::HeadCt;

#[tokio::test]
async fn the_first_image_is_at_the_partner_before_the_last_was_sent() {
    let clinic = Dcmtk::storescp("CLINIC").start().await;
    let gateway = Gateway::forwarding_to(&clinic).start().await;
    let study = HeadCt::small(1).build();
    let (last, others) = study.instances.split_last().unwrap();
    let mut sender = Sender::connect(gateway.plaintext(), &study.instances).await.unwrap();

    sender.store_all(&others[..1]).await;
    eventually("the first image at the partner", async || (clinic.count() == 1).then_some(()))
        .await;
    sender.store_all(&others[1..]).await;
    eventually("all but the last at the partner", async || {
        (clinic.count() == others.len()).then_some(())
    })
    .await;
    let transfer = gateway.api("/api/v1/transfers").await;
    assert_eq!(transfer[0]["state"], "receiving", "{transfer:#}");
    sender.store_all(std::slice::from_ref(last)).await;
    sender.release().await;

    clinic.comes_to_hold(&digests(&study)).await;
    eventually("the transfer to be all sent", async || {
        (gateway.api("/api/v1/transfers").await[0]["state"] == "sent").then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_image_goes_on_while_its_sender_is_in_the_middle_of_the_next() {
    let clinic = Dcmtk::storescp("CLINIC").start().await;
    let gateway = Gateway::forwarding_to(&clinic).start().await;
    let study = HeadCt::small(2).build();
    let mut sender = Sender::connect(gateway.plaintext(), &study.instances).await.unwrap();
    sender.store_all(&study.instances[..1]).await;

    let next = &study.instances[1];
    let half = next.data_set.len() / 2;
    let mut storing = sender.begin(next).await.unwrap();
    storing.data(&next.data_set[..half]).await.unwrap();

    eventually("the first image at the partner", async || (clinic.count() == 1).then_some(()))
        .await;
    storing.end(&next.data_set[half..]).await.unwrap();
    gateway.delivered("partner", 2).await;
}
