//! Commands on a running node, through its socket: two nodes of a demonstration, asked while they run.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot have what it asks for fails there"
)]

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// A demonstration that keeps running, stopped with the test.
struct Demo {
    child: Child,
    folder: TempDir,
}

impl Demo {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let keep = folder.path().join("demo");
        let mut child = Command::new(env!("CARGO_BIN_EXE_gantry"))
            .args(["demo", "--json", "--thin-slices", "2", "--keep", keep.to_str().unwrap()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut ready).unwrap();
        let demo = Self { child, folder };
        let report: Value = serde_json::from_str(&ready).unwrap();
        assert_eq!(report["ok"], true, "{report}");
        demo
    }

    fn config(&self, trust: &str) -> PathBuf {
        self.folder.path().join("demo").join(trust).join("gantry.toml")
    }

    /// Runs a command on the district hospital's node.
    fn ask(&self, arguments: &[&str]) -> Output {
        ask(&self.config("northmoor"), arguments)
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ask(config: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gantry"))
        .args(arguments)
        .arg("--config")
        .arg(config)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn json(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn a_running_node_answers_every_command_and_names_no_patient_unless_asked_to() {
    let demo = Demo::start();

    let transfers = json(&demo.ask(&["transfer", "list", "--json"]));
    let revealed = json(&demo.ask(&["transfer", "list", "--json", "--reveal"]));

    let name = revealed[0]["study"]["patient_name"].as_str().unwrap();
    let number = revealed[0]["study"]["patient_id"].as_str().unwrap();
    let family = name.split('^').next().unwrap();
    assert!(family.len() > 2, "{name}");
    let id = transfers[0]["id"].as_str().unwrap().to_owned();
    let short = &id[id.len() - 8..];
    let study = transfers[0]["study"]["study_instance_uid"].as_str().unwrap().to_owned();
    for command in [
        &["transfer", "list"][..],
        &["transfer", "list", "--json"],
        &["transfer", "show", short],
        &["transfer", "show", short, "--json"],
        &["transfer", "watch", short, "--until", "sent", "--timeout", "30s"],
        &["transfer", "urgent", short, "--json"],
        &["study", "list"],
        &["study", "show", &study],
        &["study", "show", &study, "--json"],
        &["status"],
        &["status", "--alive"],
        &["partner", "list"],
        &["partner", "test", "royal-infirmary"],
        &["route", "list"],
        &["keys", "status"],
        &["web", "link"],
    ] {
        let said = demo.ask(command);
        assert_eq!(said.status.code(), Some(0), "{command:?}: {}", text(&said));
        let said = text(&said);
        assert!(
            !said.contains(family) && !said.contains(number),
            "{command:?} names the patient: {said}"
        );
        assert!(!said.is_empty(), "{command:?}");
    }

    let status = json(&demo.ask(&["status", "--json"]));
    let partner = &status["partners"][0];
    assert_eq!(
        (&partner["ordered"], &partner["delivered"]),
        (&Value::from(33), &Value::from(33)),
        "{partner}"
    );
    assert_eq!(demo.ask(&["transfer", "show", "ZZZZZZZZ"]).status.code(), Some(3));
    assert_eq!(demo.ask(&["partner", "test", "royal-infirmery"]).status.code(), Some(3));
    assert_eq!(demo.ask(&["reindex"]).status.code(), Some(1), "the node holds the spool");
}

#[test]
fn a_folder_is_sent_exported_at_the_far_end_and_comes_out_as_it_went_in() {
    let demo = Demo::start();
    let disc = demo.folder.path().join("disc");
    std::fs::create_dir(&disc).unwrap();
    std::fs::write(disc.join("README.TXT"), "a viewer").unwrap();
    let study = sample_studies::chest_cr(99);
    for instance in &study.instances {
        instance.write_to(&disc).unwrap();
    }
    let disc_path = disc.to_str().unwrap();

    let sent = json(&demo.ask(&[
        "send",
        disc_path,
        "--to",
        "royal-infirmary",
        "--emergency",
        "--wait",
        "--timeout",
        "60s",
        "--json",
    ]));

    assert_eq!(sent["sent_to_node"], study.len(), "{sent}");
    assert_eq!(sent["not_dicom"], 1);
    let transfer = &sent["transfers"][0];
    assert_eq!(
        (&transfer["state"], &transfer["priority"]),
        (&Value::from("sent"), &Value::from("emergency"))
    );
    let into = demo.folder.path().join("out");
    let centre = demo.config("royal-infirmary");
    let uid = study.study_instance_uid();
    // The far end acknowledged it; its rows follow.
    let exported = loop {
        let exported =
            ask(&centre, &["study", "export", uid, "--into", into.to_str().unwrap(), "--json"]);
        if exported.status.code() != Some(3) {
            break json(&exported);
        }
    };
    let files = exported["files"].as_array().unwrap();
    assert_eq!(files.len(), study.len());
    for instance in &study.instances {
        let came_out = files.iter().any(|file| {
            let file = std::fs::read(file.as_str().unwrap()).unwrap();
            file.ends_with(&instance.data_set)
        });
        assert!(came_out, "{} came out changed", instance.sop_instance_uid);
    }

    let again = json(&demo.ask(&[
        "send",
        disc_path,
        "--to",
        "royal-infirmary",
        "--emergency",
        "--wait",
        "--json",
    ]));
    assert_eq!(
        again["transfers"][0]["counts"]["total"],
        study.len(),
        "nothing is sent twice: {again}"
    );
    assert_eq!(demo.ask(&["send", disc_path, "--to", "nobody"]).status.code(), Some(3));
    let explained = json(&demo.ask(&[
        "route",
        "explain",
        disc.join(&study.instances[0].file_name).to_str().unwrap(),
        "--source",
        "ct-scanner",
        "--called",
        "RI_EMERG",
        "--json",
    ]));
    assert_eq!(explained["destinations"][0]["partner"], "royal-infirmary", "{explained}");
}
