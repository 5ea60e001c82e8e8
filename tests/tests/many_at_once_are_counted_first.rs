//! What a person does to many transfers at once is counted first, happens to those that were counted, and is on record.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)] // a panic is how a test fails

use std::process::Output;

use gantry_tests::http::Ask;
use gantry_tests::{Dcmtk, Gateway, Sender, Setup, eventually};
use sample_studies::{Study, small_objects};
use serde_json::{Value, json};

async fn send(gateway: &Gateway, calling: &str, called: &str, study: &Study) {
    let mut sender =
        Sender::connect_as(calling, called, gateway.plaintext(), &study.instances).await.unwrap();
    sender.store_all(&study.instances).await;
    sender.release().await;
}

async fn paused(gateway: &Gateway, partner: &str) -> usize {
    states(gateway, partner).await.iter().filter(|state| *state == "paused").count()
}

/// Two partners that are down: three studies of two images wait for `york`, one of them from the CT, one for `leeds`.
async fn scene() -> Gateway {
    let (york, leeds) = (Dcmtk::storescp("YORK"), Dcmtk::storescp("LEEDS"));
    let gateway = Setup::new()
        .source("pacs", "PACS")
        .source("ct", "CT")
        .delivery(
            "retry-floor = \"10m\"\nretry-ceiling = \"10m\"\nemergency-retry-ceiling = \"10m\"",
        )
        .partner("york", "YORK", york.port())
        .partner("leeds", "LEEDS", leeds.port())
        .route("TO_YORK", &["york"], "routine")
        .route("TO_LEEDS", &["leeds"], "routine")
        .start()
        .await;
    for (seed, calling, called) in [
        (1, "PACS", "TO_YORK"),
        (2, "PACS", "TO_YORK"),
        (3, "CT", "TO_YORK"),
        (4, "PACS", "TO_LEEDS"),
    ] {
        send(&gateway, calling, called, &small_objects(seed, 2)).await;
    }
    // Behind a partner that does not answer some are deferred, and the others stay queued.
    eventually("all to wait, and nothing to be on the wire", async || {
        let transfers = transfers(&gateway).await;
        let waits = |transfer: &Value| {
            let count = |state: &str| transfer["counts"][state].as_u64().unwrap();
            transfer["state"] != "receiving" && count("queued") + count("deferred") == 2
        };
        (transfers.len() == 4 && transfers.iter().all(waits)).then_some(())
    })
    .await;
    gateway
}

async fn transfers(gateway: &Gateway) -> Vec<Value> {
    gateway.api("/api/v1/transfers").await.as_array().unwrap().clone()
}

async fn states(gateway: &Gateway, partner: &str) -> Vec<String> {
    let transfers = transfers(gateway).await.into_iter();
    let of_partner = transfers.filter(|transfer| transfer["partner"] == partner);
    of_partner.map(|transfer| transfer["state"].as_str().unwrap().to_owned()).collect()
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

/// Runs a command, which must end so; says what it said.
async fn run(gateway: &Gateway, arguments: &[&str], code: i32) -> String {
    let output = gateway.command(arguments).await;
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", said(&output));
    said(&output)
}

#[tokio::test]
async fn a_filtered_set_is_counted_asked_about_and_changed_with_the_reason_on_record() {
    let gateway = scene().await;
    let york = ["--partner", "york"];

    let counted =
        run(&gateway, &[&["transfer", "pause", "--dry-run"], &york[..]].concat(), 0).await;
    assert!(counted.contains("would pause 3 transfers with 6 images"), "{counted}");
    let refused = run(&gateway, &[&["transfer", "pause"], &york[..]].concat(), 2).await;
    assert!(refused.contains("3 transfers with 6 images") && refused.contains("hint: add --yes"));
    assert_eq!(paused(&gateway, "york").await, 0);

    let why = ["transfer", "pause", "--reason", "their archive moves", "--yes"];
    run(&gateway, &[&why[..], &york[..]].concat(), 0).await;

    assert_eq!(states(&gateway, "york").await, ["paused"; 3]);
    assert_eq!(paused(&gateway, "leeds").await, 0, "nobody meant those");
    for transfer in transfers(&gateway).await.iter().filter(|one| one["partner"] == "york") {
        let path = format!("/api/v1/transfers/{}", transfer["id"].as_str().unwrap());
        let detail = gateway.api(&path).await;
        let events = detail["events"].as_array().unwrap().clone();
        let paused = events.iter().find(|event| event["kind"] == "paused").unwrap();
        assert_eq!(paused["detail"], "their archive moves");
        assert!(paused["actor"].as_str().is_some_and(|who| !who.is_empty()), "{paused}");
    }
    let resumed = ["transfer", "resume", "--state", "paused", "--source", "ct", "--yes"];
    run(&gateway, &resumed, 0).await;
    assert_eq!(paused(&gateway, "york").await, 2);
}

#[tokio::test]
async fn a_set_that_changed_since_it_was_counted_is_left_alone() {
    let gateway = scene().await;
    let ask = |body: Value| {
        let ask = Ask::post("/api/v1/transfers/act");
        gateway.ask(ask.body("application/json", body.to_string().as_bytes()))
    };
    let filter = json!({"partner": "york"});
    let counted = ask(json!({"act": "pause", "filter": filter, "dry_run": true})).await.json();
    assert_eq!((&counted["transfers"], &counted["images"]), (&3.into(), &6.into()));
    let expected = json!({"transfers": 3, "set": counted["set"]});
    send(&gateway, "PACS", "TO_YORK", &small_objects(9, 1)).await;
    eventually("another transfer", async || (transfers(&gateway).await.len() == 5).then_some(()))
        .await;

    let act = json!({"act": "pause", "filter": filter, "expected": expected});
    let answer = ask(act.clone()).await;

    assert_eq!(answer.status, 409, "{}", answer.text());
    assert!(answer.text().contains("3 transfers were counted, and now it would be 4"));
    assert_eq!(paused(&gateway, "york").await, 0);
    let unsaid = ask(json!({"act": "pause", "filter": filter})).await;
    assert_eq!(unsaid.status, 400, "{}", unsaid.text());
    let nobody = ask(json!({"act": "pause", "dry_run": true})).await;
    assert_eq!(nobody.status, 400, "an empty filter is not all of them");
    // The same number of others is another set.
    let others = json!({"act": "pause", "filter": {"partner": "leeds"},
                        "expected": {"transfers": 1, "set": counted["set"]}});
    assert_eq!(ask(others).await.status, 409);
}

#[tokio::test]
async fn what_was_given_up_comes_back_only_where_that_is_said() {
    let gateway = scene().await;
    run(&gateway, &["transfer", "cancel", "--partner", "york", "--yes"], 2).await;
    let cancel = ["transfer", "cancel", "--partner", "york", "--reason", "sent on disc", "--yes"];

    run(&gateway, &cancel, 0).await;
    let none = run(&gateway, &["transfer", "retry", "--partner", "york", "--yes"], 0).await;

    assert!(none.contains("no transfers"), "{none}");
    assert_eq!(states(&gateway, "york").await, ["cancelled"; 3]);
    let back = ["transfer", "retry", "--state", "cancelled", "--yes", "--reason", "the disc broke"];
    let done = run(&gateway, &back, 0).await;
    assert_eq!(
        done.lines().filter(|line| line.contains("york  retry, 2 images")).count(),
        3,
        "{done}"
    );
    assert!(!states(&gateway, "york").await.contains(&"cancelled".to_owned()));
    let conserved = gateway.conservation("york").await;
    assert!(conserved.adds_up() && conserved.ordered == 6, "{conserved:?}");
}

#[tokio::test]
async fn sets_are_told_by_age_source_priority_and_name() {
    let gateway = scene().await;
    let dry = |arguments: &[&'static str]| [&["transfer"], arguments, &["--dry-run"]].concat();

    for (arguments, expected) in [
        (dry(&["urgent", "--source", "ct"]), "would raise 1 transfer with 2 images to emergency"),
        (dry(&["urgent", "--all"]), "would raise 4 transfers with 8 images to emergency"),
        (dry(&["pause", "--priority", "routine"]), "would pause 4 transfers with 8 images"),
        (dry(&["pause", "--priority", "emergency"]), "would pause 0 transfers with 0 images"),
        (dry(&["pause", "--older-than", "1h"]), "would pause 0 transfers"),
        (dry(&["cancel", "--older-than", "0s", "--partner", "leeds"]), "would cancel 1 transfer"),
    ] {
        let said = run(&gateway, &arguments, 0).await;
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
    let slip = run(&gateway, &dry(&["retry", "--partner", "yrok"]), 3).await;
    assert!(slip.contains("hint: ") && slip.contains("york"), "{slip}");
    run(&gateway, &dry(&["retry"]), 2).await;

    let ids: Vec<_> = transfers(&gateway).await.iter().map(|one| one["id"].clone()).collect();
    let (first, second) = (ids[0].as_str().unwrap(), ids[1].as_str().unwrap());
    let json = run(&gateway, &["transfer", "urgent", first, second, "--yes", "--json"], 0).await;

    let answer: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&answer["transfers"], &answer["failed"]), (&2.into(), &0.into()), "{json}");
    let urgent = transfers(&gateway).await.into_iter().filter(|one| one["priority"] == "emergency");
    assert_eq!(urgent.count(), 2);
}
