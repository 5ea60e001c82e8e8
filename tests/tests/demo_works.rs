//! What the README says to try first works as it says.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)] // a panic is how a test fails

use std::time::Duration;

use gantry_tests::gateway::program;
use serde_json::Value;
use tokio::process::Command;
use tokio::time::timeout;

/// What a demonstration reports that must end well.
async fn report_of(options: &[&str]) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(program());
    command
        .arg("demo")
        .args(["--once", "--json"])
        .args(options)
        .current_dir(folder.path())
        .env_remove("RUST_LOG")
        .kill_on_drop(true);

    let output = timeout(Duration::from_mins(3), command.output())
        .await
        .expect("the demonstration ends")
        .unwrap();

    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let report: Value =
        serde_json::from_slice(&output.stdout).expect("one JSON object on standard output");
    assert_eq!(report["ok"], true, "{report:#}");
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 0, "the demonstration left files where it was started");
    report
}

#[tokio::test]
async fn the_demonstration_moves_an_emergency_and_says_that_all_is_well() {
    let report = report_of(&[]).await;

    assert_eq!(report["digests_verified"], report["instances"], "{report:#}");
    assert!(report["instances"].as_u64().unwrap() >= 271, "{report:#}");
    let timings = &report["timings_ms"];
    assert!(
        timings["first_at_partner"].as_u64() < timings["last_acknowledged"].as_u64(),
        "{report:#}"
    );
}

#[tokio::test]
async fn the_demonstration_of_failures_kills_a_partner_and_loses_nothing() {
    let report = report_of(&["--chaos", "--thin-slices", "60"]).await;

    let images = report["instances"].as_u64().unwrap();
    assert_eq!(report["digests_verified"], 2 * images, "{report:#}");
    let transfers = report["transfers"].as_array().unwrap();
    let last_sent = |priority: &str| {
        let to_heart = transfers.iter().find(|transfer| {
            transfer["partner"] == "heart-centre" && transfer["priority"] == priority
        });
        to_heart.unwrap()["last_sent_ms"].as_u64().unwrap()
    };
    assert!(last_sent("emergency") < last_sent("routine"), "{report:#}");
    for transfer in transfers {
        assert_eq!(transfer["confirmed"], transfer["images"], "{transfer:#}");
    }
    let killed = report["story"].as_array().unwrap().iter();
    assert!(
        killed.clone().any(|it| it["what"].as_str().unwrap().contains("SIGKILL")),
        "{report:#}"
    );
}

#[tokio::test]
async fn the_demonstration_of_research_finds_nobody_at_the_university() {
    let report = report_of(&["--research", "--thin-slices", "8"]).await;

    let number = |name: &str| report[name].as_u64().unwrap();
    assert_eq!(number("delivered") + number("set_aside"), number("instances"), "{report:#}");
    assert!(number("delivered") > 8 && number("set_aside") > 0, "{report:#}");
    assert!(number("searched_for") > 50, "{report:#}");
    assert_eq!(report["found"].as_array().unwrap().len(), 0, "{report:#}");
    assert_eq!(report["banner_is_black"], true, "{report:#}");
    let seen = report["seen"].as_array().unwrap();
    let row = |name: &str| seen.iter().find(|row| row["attribute"] == name).unwrap();
    for name in ["Patient's Name", "Patient ID", "Study date", "Study UID"] {
        assert_ne!(row(name)["here"], row(name)["there"], "{report:#}");
    }
    // Known words of radiology stay, and so does an age.
    assert_eq!(row("Age")["here"], row("Age")["there"], "{report:#}");
}
