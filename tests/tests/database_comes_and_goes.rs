//! The database may go, hang, break in a commit and come back as it was yesterday: what was acknowledged is kept, what was
//! delivered is not delivered again, and nobody has to do anything.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)] // a panic is how a test fails

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use gantry_tests::{
    BreakingLine, Certificates, Gateway, Postgres, ScriptedPartner, Sender, Setup, digests,
    eventually, eventually_within, forget_counts,
};
use sample_studies::{Study, small_objects};
use serde_json::Value;

/// How soon after its database is back a node must have caught up with a small study. Most of it is the drain's second, and
/// the worker's two; the rest is for slow machines.
const SOON: Duration = Duration::from_secs(15);
/// How long a sender may take for 20 small instances, whatever the database does.
const UNDISTURBED: Duration = Duration::from_secs(10);

/// A node that sends on to one partner, with its rows at this address.
fn forwarding_to(partner: &ScriptedPartner, url: &str) -> Setup {
    Setup::new()
        .source("pacs", "PACS")
        .partner("partner", "PARTNER", partner.port())
        .route("GANTRY", &["partner"], "routine")
        .database(url)
}

/// Every instance of it is answered 0000H, and nobody waits for the database.
async fn send(gateway: &Gateway, study: &Study) {
    let begun = Instant::now();
    let mut sender = Sender::connect(gateway.plaintext(), &study.instances).await.unwrap();
    sender.store_all(&study.instances).await;
    sender.release().await;
    assert!(begun.elapsed() < UNDISTURBED, "a sender waited {:?}", begun.elapsed());
}

/// The status, once there is one: without its database the node says so instead.
async fn status(gateway: &Gateway) -> Option<Value> {
    let status = gateway.ask(gantry_tests::http::Ask::get("/api/v1/status")).await;
    (status.status == 200).then(|| status.json())
}

/// Waits until so many were ordered and delivered and are in the object store, and nothing is left over.
async fn settled(gateway: &Gateway, count: usize) {
    eventually_within(SOON, &format!("{count} instances to be delivered and stored"), async || {
        let status = status(gateway).await?;
        let partner = status["partners"].as_array()?.iter().find(|row| row["name"] == "partner")?;
        let all = [&partner["ordered"], &partner["delivered"], &status["totals"]["instances"]];
        (all == [&Value::from(count); 3]).then_some(())
    })
    .await;
    eventually("the spool to be empty", async || {
        (status(gateway).await?["spool"]["waiting"] == 0).then_some(())
    })
    .await;
    assert!(gateway.conservation("partner").await.adds_up());
}

/// What the partner has been sent, each instance once, is exactly these studies.
fn got_once(partner: &ScriptedPartner, studies: &[&Study]) {
    let received = partner.received();
    let expected: BTreeMap<_, _> = studies.iter().flat_map(|study| digests(study)).collect();
    let got: BTreeMap<_, _> = received
        .iter()
        .map(|received| (received.sop_instance_uid.clone(), received.digest.clone()))
        .collect();
    assert_eq!(got, expected);
    assert_eq!(received.len(), expected.len(), "something was sent twice");
}

#[tokio::test]
async fn while_the_database_is_down_instances_are_taken_and_afterwards_all_go_on() {
    let Some(mut database) = Postgres::start("a database that is down").await else { return };
    let partner = ScriptedPartner::start().await;
    let gateway = forwarding_to(&partner, &database.url()).start().await;
    let (before, meanwhile) = (small_objects(1, 20), small_objects(2, 20));
    send(&gateway, &before).await;
    settled(&gateway, 20).await;

    database.stop().await;
    send(&gateway, &meanwhile).await;
    // What watches over programs is told that this one lives, and must not be ended; people, that it cannot do all.
    let alive = gateway.command(&["status", "--alive"]).await;
    let able = gateway.command(&["status"]).await;
    database.run().await;

    assert_eq!(alive.status.code(), Some(0), "{}", String::from_utf8_lossy(&alive.stderr));
    assert_ne!(able.status.code(), Some(0));
    settled(&gateway, 40).await;
    got_once(&partner, &[&before, &meanwhile]);
    // Nobody brings these any more, and their page says so.
    let transfers = gateway.api("/api/v1/transfers").await;
    let states: Vec<_> = transfers.as_array().unwrap().iter().map(|one| &one["state"]).collect();
    assert_eq!(states, ["sent", "sent"]);
}

#[tokio::test]
async fn a_node_starts_and_receives_without_its_database() {
    let Some(mut database) = Postgres::start("a node without its database").await else { return };
    let partner = ScriptedPartner::start().await;
    database.stop().await;
    let mut gateway = forwarding_to(&partner, &database.url()).start().await;
    let study = small_objects(3, 20);

    send(&gateway, &study).await;
    gateway.kill_and_restart().await;
    database.run().await;

    settled(&gateway, 20).await;
    got_once(&partner, &[&study]);
}

#[tokio::test]
async fn a_database_that_hangs_keeps_no_sender_waiting() {
    let Some(database) = Postgres::start("a database that hangs").await else { return };
    let partner = ScriptedPartner::start().await;
    let gateway = forwarding_to(&partner, &database.url()).start().await;
    let (before, meanwhile) = (small_objects(4, 20), small_objects(5, 20));
    send(&gateway, &before).await;
    settled(&gateway, 20).await;

    database.pause();
    send(&gateway, &meanwhile).await;
    let alive = gateway.command(&["status", "--alive"]).await;
    eventually("the node to give the database up", async || {
        gateway.log().contains("the database did not answer within").then_some(())
    })
    .await;
    database.resume();

    assert_eq!(alive.status.code(), Some(0), "{}", String::from_utf8_lossy(&alive.stderr));
    settled(&gateway, 40).await;
    got_once(&partner, &[&before, &meanwhile]);
}

#[tokio::test]
async fn a_line_that_breaks_in_commits_loses_nothing_and_sends_nothing_twice() {
    let Some(database) = Postgres::start("a line that breaks").await else { return };
    let line = BreakingLine::to(database.port()).await;
    let partner = ScriptedPartner::start().await;
    let gateway = forwarding_to(&partner, &line.url()).start().await;
    let studies: Vec<_> = (10..16).map(|number| small_objects(number, 20)).collect();
    line.breaks(true);

    for study in &studies {
        send(&gateway, study).await;
    }
    eventually("the line to have broken often", async || (line.broke() >= 10).then_some(())).await;
    line.breaks(false);

    settled(&gateway, 120).await;
    got_once(&partner, &studies.iter().collect::<Vec<_>>());
}

#[tokio::test]
async fn an_older_copy_of_the_database_is_made_whole_by_the_node_that_is_running() {
    let Some(mut database) = Postgres::start("an older copy").await else { return };
    let partner = ScriptedPartner::start().await;
    let gateway = forwarding_to(&partner, &database.url()).start().await;
    let studies: Vec<_> = (20..23).map(|number| small_objects(number, 20)).collect();
    send(&gateway, &studies[0]).await;
    settled(&gateway, 20).await;
    database.stop().await;
    let copy = database.copy().await;
    database.run().await;
    send(&gateway, &studies[1]).await;
    settled(&gateway, 40).await;

    database.stop().await;
    database.bring_back(&copy).await;
    database.run().await;

    settled(&gateway, 40).await;
    send(&gateway, &studies[2]).await;
    settled(&gateway, 60).await;
    got_once(&partner, &studies.iter().collect::<Vec<_>>());
}

#[tokio::test]
async fn outcomes_that_an_older_copy_lacks_are_not_forgotten() {
    let Some(mut database) = Postgres::start("an older copy, deliveries").await else { return };
    let partner = ScriptedPartner::start().await;
    let study = small_objects(30, 20);
    partner.allow(5);
    let mut gateway = forwarding_to(&partner, &database.url()).start().await;
    send(&gateway, &study).await;
    eventually("5 to be delivered, and all to be stored", async || {
        let status = status(&gateway).await?;
        let stored =
            status["totals"]["instances"] == study.len() && status["spool"]["waiting"] == 0;
        (stored && gateway.conservation("partner").await.delivered == 5).then_some(())
    })
    .await;
    gateway.kill().await;
    database.stop().await;
    // In this copy 15 are owed.
    let copy = database.copy().await;
    database.run().await;
    partner.allow(1000);
    gateway.start().await;
    settled(&gateway, 20).await;
    let received = partner.received().len();
    // So that there is something by which the copy is seen to be older.
    let later = small_objects(31, 1);
    send(&gateway, &later).await;
    settled(&gateway, 21).await;
    gateway.kill().await;

    database.stop().await;
    database.bring_back(&copy).await;
    database.run().await;
    gateway.start().await;

    settled(&gateway, 21).await;
    assert_eq!(partner.received().len(), received + 1, "something was sent again");
}

/// Every study as the API tells it, with where it went, but for the names that transfers get anew.
async fn manifest(gateway: &Gateway) -> BTreeMap<String, Value> {
    let mut manifest = BTreeMap::new();
    for summary in gateway.api("/api/v1/studies").await.as_array().unwrap() {
        let uid = summary["study_instance_uid"].as_str().unwrap();
        let mut study = gateway.api(&format!("/api/v1/studies/{uid}")).await;
        forget_counts(&mut study);
        for transfer in study["transfers"].as_array_mut().unwrap() {
            transfer.as_object_mut().unwrap().remove("id");
        }
        manifest.insert(uid.to_owned(), study);
    }
    manifest
}

#[tokio::test]
async fn a_lost_database_is_made_again_and_nothing_is_sent_again() {
    let Some(mut database) = Postgres::start("a lost database").await else { return };
    let partner = ScriptedPartner::start().await;
    let mut gateway = forwarding_to(&partner, &database.url()).start().await;
    let studies: Vec<_> = (40..44).map(|number| small_objects(number, 10)).collect();
    for study in &studies {
        send(&gateway, study).await;
    }
    settled(&gateway, 40).await;
    let before = manifest(&gateway).await;

    gateway.stop().await;
    database.stop().await;
    database.make_empty().await;
    database.run().await;
    let reindexed = gateway.command(&["reindex", "--json"]).await;
    gateway.start().await;

    let said: Value = serde_json::from_slice(&reindexed.stdout).unwrap();
    assert_eq!(
        ["found", "recorded", "ordered", "delivered"].map(|key| said[key].as_u64().unwrap()),
        [40; 4]
    );
    settled(&gateway, 40).await;
    assert_eq!(manifest(&gateway).await, before);
    got_once(&partner, &studies.iter().collect::<Vec<_>>());
}

#[tokio::test]
async fn the_database_is_reached_over_tls_that_is_verified_and_with_a_password_from_a_file() {
    let certificates = Certificates::new();
    let identity = certificates.issue("localhost");
    let test = "a database over TLS";
    let Some(database) = Postgres::start_with_tls(test, &identity, "hunter2").await else { return };
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("database.password");
    std::fs::write(&secret, "hunter2\n").unwrap();
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let lines = |authority: &std::path::Path| {
        format!(
            "url = \"postgres://gantry@localhost:{}/postgres\"\ntls = \"verify\"\nauthority = \"{}\"\n\
             password-file = \"{}\"",
            database.port(),
            authority.display(),
            secret.display()
        )
    };
    let partner = ScriptedPartner::start().await;
    let setup = |authority: &std::path::Path| {
        let setup = forwarding_to(&partner, "sqlite");
        setup.database_with(&lines(authority))
    };
    let study = small_objects(50, 5);

    let gateway = setup(&certificates.authority()).start().await;
    send(&gateway, &study).await;
    settled(&gateway, 5).await;
    let checked = gateway.command(&["check", "--json"]).await;
    let stranger = Certificates::of("stranger");
    let other = setup(&stranger.authority()).start().await;
    let refused = other.command(&["check"]).await;

    let said: Value = serde_json::from_slice(&checked.stdout).unwrap();
    let server = &said["node"]["database"]["server"];
    assert!(server["version"].as_str().unwrap().starts_with(char::is_numeric), "{said}");
    assert_eq!(server["schema"], server["known"]);
    let refused = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert!(refused.contains("UnknownIssuer") || refused.contains("certificate"), "{refused}");
    for text in [gateway.log(), other.log(), said.to_string(), refused] {
        assert!(!text.contains("hunter2"), "{text}");
    }
}
