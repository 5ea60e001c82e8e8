//! Promises 3 and 5 on lines that cut, swallow, crawl and fall silent, and under clocks that jump: everything arrives once the
//! line is good again, nothing is lost or sent for nothing meanwhile, and no other partner waits.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)] // a panic is how a test fails

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gantry_tests::http::Ask;
use gantry_tests::random::Random;
use gantry_tests::{
    Dcmtk, Gateway, Namespace, Orthanc, Relay, Sender, Setup, Storescp, digests, eventually,
    eventually_within, namespace, skip,
};
use sample_studies::{Study, ct_series, small_objects};

async fn send(gateway: &Gateway, called: &str, study: &Study) {
    let mut sender =
        Sender::connect_as("PACS", called, gateway.plaintext(), &study.instances).await.unwrap();
    sender.store_all(&study.instances).await;
    sender.release().await;
}

/// A node that sends to a partner at the end of a bad line, and to another at the end of a good one.
fn between(bad: u16, good: &Storescp, delivery: &str) -> Setup {
    Setup::new()
        .source("pacs", "PACS")
        .delivery(&format!(
            "retry-floor = \"1s\"\nretry-ceiling = \"2s\"\nemergency-retry-ceiling = \"1s\"\n{delivery}"
        ))
        .partner("bad", "BAD", bad)
        .partner("good", "GOOD", good.port())
        .route("BOTH", &["bad", "good"], "routine")
        .route("EMERGENCY", &["bad", "good"], "emergency")
}

async fn everything_adds_up(gateway: &Gateway, partners: &[&str]) {
    for partner in partners {
        let now = gateway.conservation(partner).await;
        assert!(now.adds_up(), "{partner}: {now:?}");
    }
}

#[tokio::test]
async fn a_line_that_is_cut_at_any_byte_delays_the_rest_and_loses_nothing() {
    let (far, good) = (Dcmtk::storescp("BAD").start().await, Dcmtk::storescp("GOOD").start().await);
    let relay = Relay::before(far.address()).await;
    let gateway = between(relay.port(), &good, "").start().await;
    let mut sent = std::collections::BTreeMap::new();
    let mut random = Random::from_environment();
    // In the association request, in a command, in a data set, between two instances, and anywhere.
    let cuts = [0, 1, 75, 400, 900, 100_000, 525_000, 526_000, random.below(2_000_000) as u64];
    for (number, cut) in cuts.into_iter().enumerate() {
        let (before, study) = (relay.connections(), ct_series(100 + number as u64, 6));
        relay.cut_after(cut);
        send(&gateway, "BOTH", &study).await;
        sent.extend(digests(&study));
        gateway.delivered("good", sent.len()).await;
        eventually("the line to be cut", async || (relay.connections() > before).then_some(()))
            .await;
        everything_adds_up(&gateway, &["bad", "good"]).await;
        relay.heal();
        gateway.delivered("bad", sent.len()).await;
        everything_adds_up(&gateway, &["bad", "good"]).await;
    }
    far.comes_to_hold(&sent).await;
    good.comes_to_hold(&sent).await;
}

#[tokio::test]
async fn what_was_stored_and_not_answered_is_sent_again_and_counts_once() {
    let (far, good) = (Dcmtk::storescp("BAD").start().await, Dcmtk::storescp("GOOD").start().await);
    let relay = Relay::before(far.address()).await;
    let gateway = between(relay.port(), &good, "response-timeout = \"2s\"\n").start().await;
    send(&gateway, "BOTH", &small_objects(1, 1)).await;
    gateway.delivered("bad", 1).await;

    relay.swallow_answers(true);
    let study = small_objects(2, 10);
    send(&gateway, "BOTH", &study).await;
    gateway.delivered("good", 11).await;
    eventually("an instance to be stored there that nobody answered for", async || {
        (far.count() > 1).then_some(())
    })
    .await;
    assert_eq!(gateway.conservation("bad").await.delivered, 1);
    relay.heal();

    gateway.delivered("bad", 11).await;
    everything_adds_up(&gateway, &["bad", "good"]).await;
    let mut all = digests(&small_objects(1, 1));
    all.extend(digests(&study));
    far.comes_to_hold(&all).await;
}

#[tokio::test]
async fn what_took_long_and_was_not_answered_is_asked_for_before_it_is_sent_again() {
    let orthanc = Orthanc::start().await;
    let relay = Relay::like(orthanc.dicom(), Duration::ZERO, Some(16e6)).await;
    let gateway = Setup::new()
        .source("pacs", "PACS")
        .delivery(
            "retry-floor = \"1s\"\nretry-ceiling = \"2s\"\nemergency-retry-ceiling = \"1s\"\nresponse-timeout = \"2s\"\n",
        )
        .partner("partner", "ORTHANC", relay.port())
        .route("GANTRY", &["partner"], "routine")
        .start()
        .await;
    orthanc.knows(gateway.plaintext(), false, true).await;
    let study = sample_studies::multi_frame(50, 80, 512, 512).build().unwrap();
    let length = study.instances[0].data_set.len() as u64;
    assert!(length > 40_000_000, "{length}");
    let mut sender = Sender::connect(gateway.plaintext(), &study.instances).await.unwrap();
    sender.store_all(&study.instances).await;
    sender.release().await;

    // The line is good until all of it has gone, and then the answer is lost.
    eventually("the instance to be on its way", async || {
        (relay.carried() > length / 2).then_some(())
    })
    .await;
    relay.swallow_answers(true);
    eventually("it to be stored there", async || (orthanc.count().await == 1).then_some(())).await;
    eventually("the silence to be noticed", async || {
        (gateway.api("/api/v1/transfers").await[0]["state"] == "delayed").then_some(())
    })
    .await;
    relay.heal();

    gateway.delivered("partner", 1).await;
    assert!(relay.carried() < length * 3 / 2, "{} bytes went for {length}", relay.carried());
    let metrics = gateway.ask(Ask::get("/metrics")).await.text();
    let found = "gantry_instances_found_at_partner_total{partner=\"partner\"} 1";
    assert!(metrics.contains(found), "{metrics}");
}

#[tokio::test]
async fn a_partner_that_was_restarted_between_two_studies_gets_the_second_at_once() {
    let (mut partner, good) =
        (Dcmtk::storescp("BAD").start().await, Dcmtk::storescp("GOOD").start().await);
    let gateway = Setup::new()
        .source("pacs", "PACS")
        .delivery(
            "retry-floor = \"10m\"\nretry-ceiling = \"10m\"\nemergency-retry-ceiling = \"10m\"\nassociation-idle = \"5m\"",
        )
        .partner_in_order("bad", "BAD", partner.port())
        .partner("good", "GOOD", good.port())
        .route("BOTH", &["bad", "good"], "routine")
        .start()
        .await;
    send(&gateway, "BOTH", &small_objects(60, 5)).await;
    gateway.delivered("bad", 5).await;
    partner.switch_off().await;
    partner.run().await;

    send(&gateway, "BOTH", &small_objects(61, 5)).await;

    gateway.delivered("bad", 10).await;
    let metrics = gateway.ask(Ask::get("/metrics")).await.text();
    assert!(!metrics.contains("gantry_send_failures_total{partner=\"bad\"}"), "{metrics}");
    assert!(gateway.log().contains("association broke while it was idle"), "nothing was tried");
}

#[tokio::test]
async fn a_line_that_crawls_holds_up_no_other() {
    let (far, good) = (Dcmtk::storescp("BAD").start().await, Dcmtk::storescp("GOOD").start().await);
    let relay = Relay::like(far.address(), Duration::ZERO, Some(1.0)).await;
    let gateway = between(relay.port(), &good, "").start().await;
    let mut all = std::collections::BTreeMap::new();
    for (number, called) in ["BOTH", "EMERGENCY", "BOTH"].into_iter().enumerate() {
        let study = small_objects(10 + number as u64, 50);
        send(&gateway, called, &study).await;
        all.extend(digests(&study));
        eventually_within(Duration::from_secs(9), "the good partner to have it", async || {
            (good.count() == all.len()).then_some(())
        })
        .await;
    }

    assert_eq!(gateway.conservation("bad").await.waiting, all.len() as u64);
    everything_adds_up(&gateway, &["bad", "good"]).await;
}

#[tokio::test]
async fn a_black_hole_is_found_out_and_left_as_soon_as_it_is_none() {
    const NAME: &str = "a_black_hole_is_found_out_and_left_as_soon_as_it_is_none";
    if !namespace::is_possible() {
        return skip(NAME, "a network of its own needs root");
    }
    let far = match Namespace::new(None) {
        Ok(namespace) => Arc::new(namespace),
        Err(why) => return skip(NAME, &why),
    };
    let partner = Dcmtk::storescp("BAD").inside(&far).start().await;
    let good = Dcmtk::storescp("GOOD").start().await;
    let gateway = Setup::new()
        .source("pacs", "PACS")
        .delivery(
            "retry-floor = \"1s\"\nretry-ceiling = \"2s\"\nemergency-retry-ceiling = \"1s\"\nconnect-timeout = \"2s\"\n",
        )
        .partner_at("bad", "BAD", partner.address())
        .partner("good", "GOOD", good.port())
        .route("BOTH", &["bad", "good"], "emergency")
        .start()
        .await;
    let mut all = digests(&small_objects(20, 5));
    send(&gateway, "BOTH", &small_objects(20, 5)).await;
    gateway.delivered("bad", 5).await;

    // The associations are still open: what goes over them from here on goes nowhere.
    if let Err(why) = far.black_hole() {
        return skip(NAME, &why);
    }
    let study = ct_series(21, 10);
    send(&gateway, "BOTH", &study).await;
    all.extend(digests(&study));
    eventually_within(Duration::from_secs(9), "the good partner to have it", async || {
        (good.count() == all.len()).then_some(())
    })
    .await;
    // Not at the end of the 2 min that a partner has to answer.
    eventually_within(Duration::from_secs(50), "the silence to be noticed", async || {
        let transfers = gateway.api("/api/v1/transfers?partner=bad").await;
        let all = transfers.as_array().unwrap();
        all.iter().any(|transfer| transfer["state"] == "delayed").then_some(())
    })
    .await;
    everything_adds_up(&gateway, &["bad", "good"]).await;
    far.mend().unwrap();

    eventually_within(Duration::from_secs(20), "everything to be there", async || {
        (gateway.conservation("bad").await.delivered == all.len() as u64).then_some(())
    })
    .await;
    partner.comes_to_hold(&all).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_killed_again_and_again_gives_three_partners_everything() {
    const ROUNDS: u64 = 6;
    let partners = [
        Dcmtk::storescp("ONE").start().await,
        Dcmtk::storescp("TWO").start().await,
        Dcmtk::storescp("THREE").one_association_at_a_time().start().await,
    ];
    let mut setup = Setup::new().source("pacs", "PACS");
    for (name, partner) in ["one", "two", "three"].into_iter().zip(&partners) {
        setup = setup.partner(name, partner.ae_title(), partner.port());
    }
    let mut gateway = setup.route("ALL", &["one", "two", "three"], "routine").start().await;
    let mut random = Random::from_environment();
    let mut sent = std::collections::BTreeMap::new();
    for round in 0..ROUNDS {
        let study = small_objects(30 + round, 60);
        send(&gateway, "ALL", &study).await;
        sent.extend(digests(&study));
        // While it sends: at no moment more special than another.
        tokio::time::sleep(Duration::from_millis(random.below(150) as u64)).await;
        gateway.kill_and_restart().await;
        everything_adds_up(&gateway, &["one", "two", "three"]).await;
    }
    for (name, partner) in ["one", "two", "three"].into_iter().zip(&partners) {
        gateway.delivered(name, sent.len()).await;
        partner.comes_to_hold(&sent).await;
    }
    everything_adds_up(&gateway, &["one", "two", "three"]).await;
}

/// The library that makes the clock of a process jump; Debian has it where its machine's libraries are.
fn libfaketime() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").ok()?;
    folders
        .filter_map(|folder| Some(folder.ok()?.path().join("faketime/libfaketimeMT.so.1")))
        .find(|library| library.is_file())
}

#[tokio::test]
async fn a_clock_that_jumps_back_a_day_or_on_a_year_holds_nothing_up() {
    let Some(library) = libfaketime() else {
        return skip(
            "a_clock_that_jumps_back_a_day_or_on_a_year_holds_nothing_up",
            "no libfaketime",
        );
    };
    let folder = tempfile::tempdir().unwrap();
    let clock = folder.path().join("clock");
    let set = |offset: &str| {
        let new = folder.path().join("new");
        std::fs::write(&new, offset).unwrap();
        std::fs::rename(&new, &clock).unwrap();
    };
    set("+0");
    let (mut absent, good) = (Dcmtk::storescp("BAD"), Dcmtk::storescp("GOOD").start().await);
    // Waits so long that hardly anything comes back by itself while this runs.
    // And what has waited for a year is given up, for a person to decide, unless it is told otherwise.
    let delivery = "retry-floor = \"10m\"\nretry-ceiling = \"10m\"\nemergency-retry-ceiling = \"10m\"\n\
                    give-up-after = \"never\"";
    let mut gateway = Setup::new()
        .source("pacs", "PACS")
        .delivery(delivery)
        .partner("bad", "BAD", absent.port())
        .partner("good", "GOOD", good.port())
        .route("BOTH", &["bad", "good"], "routine")
        .environment("LD_PRELOAD", library.to_str().unwrap())
        .environment("FAKETIME_TIMESTAMP_FILE", clock.to_str().unwrap())
        .environment("FAKETIME_NO_CACHE", "1")
        .environment("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .environment("DONT_FAKE_MONOTONIC", "1")
        .start()
        .await;
    let study = small_objects(40, 5);
    send(&gateway, "BOTH", &study).await;
    gateway.delivered("good", 5).await;
    let delayed = async |gateway: &Gateway| {
        eventually("the absent partner to be found absent", async || {
            let transfers = gateway.api("/api/v1/transfers?partner=bad").await;
            let mut all = transfers.as_array().unwrap().iter();
            all.any(|transfer| transfer["state"] == "delayed").then_some(())
        })
        .await;
    };
    delayed(&gateway).await;

    // While it runs: back, and what waited for a time that is now far off is tried, in vain.
    set("-1d");
    eventually("the step to be noticed", async || {
        gateway.log().contains("the clock was set back").then_some(())
    })
    .await;
    let more = small_objects(41, 5);
    send(&gateway, "BOTH", &more).await;
    gateway.delivered("good", 10).await;
    delayed(&gateway).await;

    // While it is down: further back.
    gateway.stop().await;
    set("-3d");
    absent.run().await;
    gateway.start().await;
    gateway.delivered("bad", 10).await;

    // On: nothing that waits is forgotten.
    absent.switch_off().await;
    let last = small_objects(42, 5);
    send(&gateway, "BOTH", &last).await;
    gateway.delivered("good", 15).await;
    delayed(&gateway).await;
    // Back before the clock jumps: a try in between would fail, and wait for as long as ten minutes again. An association that
    // was idle when the partner went, and breaks only now, is no failure that would be waited for.
    absent.run().await;
    set("+365d");
    gateway.delivered("bad", 15).await;
    everything_adds_up(&gateway, &["bad", "good"]).await;
}
