//! Where a route orders protection nothing else leaves: not the original, not by hand, not when the profile or its key is gone;
//! and partners prove that they hold what they were sent by the UIDs under which they know it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)] // a panic is how a test fails

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use gantry_deidentify::keys::ProjectKey;
use gantry_tests::{Dcmtk, Gateway, Orthanc, Postgres, Sender, Setup, Storescp, eventually};
use sample_studies::{HeadCt, Study, ct_series, ultrasound};
use serde_json::{Value, json};
use tokio::process::Command;

/// A place for keys and profiles.
struct Haven(tempfile::TempDir);

impl Haven {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// A project of this name, with a key of its own.
    fn project(&self, name: &str, profile: &str) -> String {
        let key = self.0.path().join(format!("{name}.key"));
        if !key.exists() {
            ProjectKey::generate().unwrap().write_new(&key).unwrap();
        }
        format!(
            "[[project]]\nname = \"{name}\"\nprofile = \"{profile}\"\nkey = \"{}\"\n",
            key.display()
        )
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

fn route(name: &str, to: &str, protect: &str) -> String {
    format!(
        "[[route]]\nname = \"{name}\"\nwhen = {{ called-ae-title = \"GANTRY\" }}\nto = [\"{to}\"]\npurpose = \"research\"\n\
         priority = \"routine\"\n{protect}\n"
    )
}

async fn send(gateway: &Gateway, study: &Study) {
    let mut sender = Sender::connect(gateway.plaintext(), &study.instances).await.unwrap();
    sender.store_all(&study.instances).await;
    sender.release().await;
}

async fn transfer_to(gateway: &Gateway, partner: &str) -> Value {
    let list = gateway.api("/api/v1/transfers").await;
    let of = list.as_array().unwrap().iter().find(|one| one["partner"] == partner).unwrap();
    gateway.api(&format!("/api/v1/transfers/{}", of["id"].as_str().unwrap())).await
}

async fn becomes(gateway: &Gateway, partner: &str, state: &str) -> Value {
    eventually(&format!("the transfer to {partner} to be {state}"), async || {
        let list = gateway.api("/api/v1/transfers").await;
        let of = list.as_array().unwrap().iter().find(|one| one["partner"] == partner)?;
        (of["state"] == state).then(|| of.clone())
    })
    .await
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        if entry.path().is_dir() {
            found.extend(files(&entry.path()));
        } else if entry.path().extension().is_none_or(|extension| extension != "log") {
            found.push(entry.path());
        }
    }
    found
}

/// Nothing that was planted in a study stands in what a partner has, in names of files or in them.
fn holds_nothing_of(study: &Study, folder: &Path, but: &[&str]) {
    for file in files(folder) {
        let bytes = fs::read(&file).unwrap().to_ascii_lowercase();
        let name = file.file_name().unwrap().to_string_lossy().to_lowercase();
        for planted in study.planted().iter().filter(|planted| !but.contains(&planted.attribute)) {
            let text = planted.text.to_lowercase();
            let there = bytes.windows(text.len()).any(|window| window == text.as_bytes());
            assert!(!there && !name.contains(&text), "{} in {}", planted.attribute, file.display());
        }
        for instance in &study.instances {
            let uid = instance.sop_instance_uid.as_bytes();
            assert!(!bytes.windows(uid.len()).any(|window| window == uid), "SOP Instance UID");
        }
    }
}

/// What pydicom reads of each file, by an expression in which it is `d`; without repetition.
async fn each(folder: &Path, expression: &str) -> BTreeSet<String> {
    let program = format!(
        "import sys, pydicom\nfor f in sys.argv[1:]:\n d = pydicom.dcmread(f, stop_before_pixels=True)\n print({expression})"
    );
    let output =
        Command::new("python3").args(["-c", &program]).args(files(folder)).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

async fn partner(name: &str) -> Storescp {
    Dcmtk::storescp(name).start().await
}

#[tokio::test]
async fn each_project_gets_its_own_pseudonyms_and_no_identity() {
    each_project_gets_its_own(Setup::new()).await;
}

#[tokio::test]
async fn each_project_gets_its_own_pseudonyms_with_postgresql_too() {
    let Some(database) = Postgres::start("protected copies").await else { return };
    each_project_gets_its_own(Setup::new().database(&database.url())).await;
}

async fn each_project_gets_its_own(setup: Setup) {
    let haven = Haven::new();
    let (lung, brain) = (partner("LUNG").await, partner("BRAIN").await);
    let gateway = setup
        .source("pacs", "PACS")
        .partner("lung", "LUNG", lung.port())
        .partner("brain", "BRAIN", brain.port())
        .and(&haven.project("lung", "research"))
        .and(&haven.project("brain", "teaching"))
        .rule(&route("to lung", "lung", "protect = { pseudonymise = \"lung\" }"))
        .rule(&route("to brain", "brain", "protect = { anonymise = \"brain\" }"))
        .start()
        .await;
    let study = HeadCt::small(31).build();

    send(&gateway, &study).await;

    gateway.delivered("lung", study.len()).await;
    gateway.delivered("brain", study.len()).await;
    let (at_lung, at_brain) = (lung.received(), brain.received());
    holds_nothing_of(&study, at_lung.as_ref(), &[]);
    holds_nothing_of(&study, at_brain.as_ref(), &[]);
    let marks = "d.PatientIdentityRemoved, d.LongitudinalTemporalInformationModified";
    assert_eq!(each(at_lung.as_ref(), marks).await, BTreeSet::from(["YES MODIFIED".to_owned()]));
    assert_eq!(each(at_brain.as_ref(), marks).await, BTreeSet::from(["YES REMOVED".to_owned()]));
    let who = "d.PatientID, d.PatientName, d.StudyInstanceUID";
    let (one, other) = (each(at_lung.as_ref(), who).await, each(at_brain.as_ref(), who).await);
    assert_eq!((one.len(), other.len()), (1, 1), "one patient and study stay one");
    assert!(one.first().unwrap().starts_with("P-"), "{one:?}");
    assert!(other.first().unwrap().starts_with("CASE-"), "{other:?}");
    assert!(one.is_disjoint(&other));
    assert!(gateway.conservation("lung").await.adds_up());
    let log = gateway.log();
    assert!(study.planted().iter().all(|planted| !log.contains(&planted.text)));
}

#[tokio::test]
async fn an_archive_commits_to_what_it_was_sent_under_its_own_uids() {
    let haven = Haven::new();
    let orthanc = Orthanc::start().await;
    let gateway = Setup::new()
        .source("pacs", "PACS")
        .partner("archive", "ORTHANC", orthanc.port())
        .and(&haven.project("lung", "research"))
        .rule(&route("to the archive", "archive", "protect = { pseudonymise = \"lung\" }"))
        .start()
        .await;
    orthanc.knows(gateway.plaintext(), true, true).await;
    let study = ct_series(5, 6);

    send(&gateway, &study).await;

    let confirmed = becomes(&gateway, "archive", "confirmed").await;
    assert_eq!(confirmed["counts"]["delivered"], json!(6));
    let transfer = transfer_to(&gateway, "archive").await;
    assert_eq!(transfer["proven_by"], "storage-commitment");
    let held = orthanc.holds().await;
    assert!(held.keys().all(|uid| uid.starts_with("2.25.")), "{held:?}");
}

#[tokio::test]
async fn where_commitment_is_not_offered_images_are_asked_for_by_their_uids_there() {
    let haven = Haven::new();
    let orthanc = Orthanc::start().await;
    let gateway = Setup::new()
        .source("pacs", "PACS")
        .partner("archive", "ORTHANC", orthanc.port())
        .and("proof = \"query\"\n")
        .and(&haven.project("lung", "research"))
        .rule(&route("to the archive", "archive", "protect = { pseudonymise = \"lung\" }"))
        .start()
        .await;
    orthanc.knows(gateway.plaintext(), false, true).await;

    send(&gateway, &ct_series(6, 4)).await;

    becomes(&gateway, "archive", "confirmed").await;
    assert_eq!(transfer_to(&gateway, "archive").await["proven_by"], "image-query");
}

#[tokio::test]
async fn what_cannot_be_cleaned_is_set_aside_with_the_reason_and_goes_when_there_is_a_mask() {
    let haven = Haven::new();
    let lung = partner("LUNG").await;
    let profile = haven.file(
        "strict.toml",
        "schema = 1\nname = \"strict\"\nedition = \"2026d\"\noptions = [\"clean_pixel_data\"]\n",
    );
    let scene = |profile: &str, masks: &str| {
        Setup::new()
            .source("pacs", "PACS")
            .partner("lung", "LUNG", lung.port())
            .and(&haven.project("lung", profile))
            .and(masks)
            .rule(&route("to lung", "lung", "protect = { pseudonymise = \"lung\" }"))
    };
    let study = ultrasound(3);
    let gateway = scene("basic", "").start().await;

    send(&gateway, &study).await;

    let aside = becomes(&gateway, "lung", "needs-action").await;
    assert_eq!(aside["counts"]["failed"], json!(study.len()));
    let transfer = transfer_to(&gateway, "lung").await;
    let said = transfer.to_string();
    assert!(said.contains("no mask says where") && said.contains("not-protected"), "{said}");
    assert_eq!(lung.count(), 0);
    assert!(gateway.conservation("lung").await.adds_up());
    let projects = gateway.api("/api/v1/projects").await;
    let project = &projects["projects"][0];
    assert_eq!(
        (&project["name"], &project["set_aside"]),
        (&json!("pseudonymise:lung"), &json!(study.len()))
    );
    assert_eq!(project["result"], "pseudonymised");
    assert!(project["aside"].to_string().contains("no mask says where"), "{project}");

    drop(gateway);
    let masks = haven.file(
        "masks.toml",
        "schema = 1\n[[mask]]\nid = \"banner\"\nwhen = { modality = \"US\" }\nboxes = [[0, 0, 4096, 64]]\n",
    );
    let masks = format!("masks = [\"{}\"]\n", masks.display());
    let gateway = scene(profile.to_str().unwrap(), &masks).start().await;
    send(&gateway, &study).await;

    gateway.delivered("lung", study.len()).await;
    holds_nothing_of(&study, lung.received().as_ref(), &[]);
    let burned = each(lung.received().as_ref(), "d.BurnedInAnnotation").await;
    assert_eq!(burned, BTreeSet::from(["NO".to_owned()]));
}

#[tokio::test]
async fn nothing_leaves_by_hand_that_routes_would_not_let_out() {
    let haven = Haven::new();
    let lung = partner("LUNG").await;
    let gateway = Setup::new()
        .source("pacs", "PACS")
        .partner("lung", "LUNG", lung.port())
        .and(&haven.project("lung", "research"))
        .rule(
            &route("to lung", "lung", "protect = { pseudonymise = \"lung\" }")
                .replace("GANTRY", "OTHER"),
        )
        .start()
        .await;
    let study = ct_series(8, 3);
    let folder = tempfile::tempdir().unwrap();
    study.write_to(folder.path()).unwrap();

    let path = folder.path().to_str().unwrap();
    let sent = gateway.command(&["send", path, "--to", "lung"]).await;

    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    gateway.delivered("lung", study.len()).await;
    holds_nothing_of(&study, lung.received().as_ref(), &[]);
}

#[tokio::test]
async fn a_protection_that_is_gone_lets_nothing_out() {
    let haven = Haven::new();
    let mut lung = partner("LUNG").await;
    lung.switch_off().await;
    let data = tempfile::tempdir().unwrap();
    let scene = |protect: &str| {
        Setup::new()
            .data_dir(data.path())
            .source("pacs", "PACS")
            .partner("lung", "LUNG", lung.port())
            .and(&haven.project("lung", "research"))
            .and(&haven.project("breast", "research"))
            .rule(&route("to lung", "lung", protect))
    };
    let study = ct_series(9, 3);
    let mut gateway = scene("protect = { pseudonymise = \"lung\" }").start().await;
    send(&gateway, &study).await;
    eventually("three to wait", async || {
        (gateway.conservation("lung").await.waiting == 3).then_some(())
    })
    .await;
    gateway.stop().await;
    drop(gateway);

    let gateway = scene("protect = { pseudonymise = \"breast\" }").start().await;
    lung.run().await;

    eventually("all three to be set aside", async || {
        let transfer = transfer_to(&gateway, "lung").await;
        (transfer["counts"]["failed"] == json!(3)).then_some(())
    })
    .await;
    let said = transfer_to(&gateway, "lung").await.to_string();
    assert!(said.contains("not in the configuration any more"), "{said}");
    assert_eq!(lung.count(), 0);
}

#[tokio::test]
async fn a_recall_tells_a_project_in_its_own_uids() {
    let haven = Haven::new();
    let lung = partner("LUNG").await;
    let gateway = Setup::new()
        .source("pacs", "PACS")
        .partner("lung", "LUNG", lung.port())
        .and("recall = \"iocm\"\n")
        .and(&haven.project("lung", "research"))
        .rule(&route("to lung", "lung", "protect = { pseudonymise = \"lung\" }"))
        .start()
        .await;
    let study = HeadCt::small(33).build();
    send(&gateway, &study).await;
    gateway.delivered("lung", study.len()).await;
    let received = lung.received();
    let images = each(received.as_ref(), "d.SOPInstanceUID").await;
    let id = transfer_to(&gateway, "lung").await["id"].as_str().unwrap().to_owned();

    let reason = study.planted()[0].text.clone();
    let recalled =
        gateway.command(&["transfer", "recall", &id, "--reason", &reason, "--yes"]).await;
    assert!(recalled.status.success(), "{}", String::from_utf8_lossy(&recalled.stderr));
    eventually("the note to be accepted", async || {
        let transfer = transfer_to(&gateway, "lung").await;
        transfer["recalled"]["note"]["accepted_at"].is_string().then_some(())
    })
    .await;

    holds_nothing_of(&study, received.as_ref(), &[]);
    let note = "'\\n '.join(i.ReferencedSOPInstanceUID for s in \
                d.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence \
                for i in s.ReferencedSOPSequence) if d.Modality == 'KO' else ''";
    let named: BTreeSet<_> =
        each(received.as_ref(), note).await.iter().map(|line| line.trim().to_owned()).collect();
    let named: BTreeSet<_> = named.into_iter().filter(|line| !line.is_empty()).collect();
    assert_eq!(named, images);
    assert!(gateway.conservation("lung").await.adds_up());
}

#[tokio::test]
async fn at_intake_only_the_protected_copy_is_kept() {
    let haven = Haven::new();
    let lung = partner("LUNG").await;
    let mut gateway = Setup::new()
        .source("pacs", "PACS")
        .partner("lung", "LUNG", lung.port())
        .and(&haven.project("lung", "research"))
        .rule(&route(
            "to lung",
            "lung",
            "protect = { pseudonymise = \"lung\" }\nprotect-at = \"intake\"",
        ))
        .start()
        .await;
    let study = ct_series(10, 5);

    send(&gateway, &study).await;

    gateway.delivered("lung", study.len()).await;
    holds_nothing_of(&study, lung.received().as_ref(), &[]);
    let studies = gateway.api("/api/v1/studies").await.to_string();
    assert!(!studies.contains(study.study_instance_uid()), "{studies}");
    assert!(study.planted().iter().all(|planted| !studies.contains(&planted.text)), "{studies}");
    assert_eq!(gateway.instances().await, 5);
    // A repeat is recognised by what it becomes, before and after a crash.
    gateway.kill_and_restart().await;
    send(&gateway, &study).await;
    eventually("the repeats to be through the spool", async || {
        let spool = fs::read_dir(gateway.data_dir().join("spool")).ok()?.flatten();
        (spool.filter(|entry| entry.path().extension().is_some_and(|it| it == "sealed")).count()
            <= 5)
            .then_some(())
    })
    .await;
    assert_eq!(gateway.instances().await, 5);
    assert_eq!(lung.count(), 5);
}

#[tokio::test]
async fn what_cannot_be_protected_at_intake_is_held_back_and_stored_nowhere() {
    let haven = Haven::new();
    let lung = partner("LUNG").await;
    let gateway = Setup::new()
        .source("pacs", "PACS")
        .partner("lung", "LUNG", lung.port())
        .and(&haven.project("lung", "basic"))
        .rule(&route(
            "to lung",
            "lung",
            "protect = { anonymise = \"lung\" }\nprotect-at = \"intake\"",
        ))
        .start()
        .await;

    send(&gateway, &ultrasound(4)).await;

    eventually("it to be held back", async || {
        let spool = fs::read_dir(gateway.data_dir().join("spool")).ok()?.flatten();
        spool.into_iter().find(|entry| entry.path().extension().is_some_and(|it| it == "held"))
    })
    .await;
    assert_eq!((gateway.instances().await, lung.count()), (0, 0));
    assert!(gateway.log().contains("no mask says where"));
    let status = gateway.api("/api/v1/status").await;
    assert_eq!(status["spool"]["held_back"], json!(1));
    assert!(status["problems"].to_string().contains("held back"), "{}", status["problems"]);
}

#[tokio::test]
async fn what_is_sealed_is_read_by_the_receiving_trust_alone() {
    let haven = Haven::new();
    let york = partner("YORK").await;
    let (certificate, key) = (haven.0.path().join("york.crt"), haven.0.path().join("york.key"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:3072", "-nodes", "-days", "30", "-subj", "/CN=York"])
        .args(["-out".as_ref(), certificate.as_os_str(), "-keyout".as_ref(), key.as_os_str()])
        .output()
        .await
        .unwrap();
    assert!(made.status.success());
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let gateway = Setup::new()
        .source("pacs", "PACS")
        .partner("york", "YORK", york.port())
        .and(&format!("seal-to = [\"{}\"]\n", certificate.display()))
        .and(&haven.project("seal", "direct-care-minimal"))
        .rule(&route("to york", "york", "protect = \"seal\"").replace("research", "direct-care"))
        .start()
        .await;
    let study = ct_series(11, 3);

    send(&gateway, &study).await;

    gateway.delivered("york", study.len()).await;
    let received = york.received();
    let kept = ["StudyDate", "DeviceSerialNumber", "StationName"];
    holds_nothing_of(&study, received.as_ref(), &kept);
    let dates = each(received.as_ref(), "d.StudyDate").await;
    assert_eq!(dates, BTreeSet::from([study.order.date.clone()]), "what care needs stays");
    let to = haven.0.path().join("recovered");
    let arguments = [
        "deid",
        "recover",
        received.as_ref().to_str().unwrap(),
        "--key",
        key.to_str().unwrap(),
        "--to",
        to.to_str().unwrap(),
        "--reason",
        "admission",
    ];
    let recovered = gateway.command(&arguments).await;
    assert!(recovered.status.success(), "{}", String::from_utf8_lossy(&recovered.stderr));
    let who = each(&to, "d.PatientID, d.PatientName, d.StudyInstanceUID").await;
    let expected = format!(
        "{} {} {}",
        study.patient.nhs_number,
        study.patient.name,
        study.study_instance_uid()
    );
    assert!(who.contains(&expected), "{who:?} {expected}");
}

#[tokio::test]
async fn a_route_says_how_what_it_sends_is_protected() {
    let haven = Haven::new();
    let lung = partner("LUNG").await;
    let gateway = Setup::new()
        .source("pacs", "PACS")
        .partner("lung", "LUNG", lung.port())
        .and(&haven.project("lung", "research"))
        .rule(&route(
            "to lung",
            "lung",
            "protect = { pseudonymise = \"lung\" }\nprotect-at = \"intake\"",
        ))
        .start()
        .await;
    let study = ct_series(12, 1);
    let folder = tempfile::tempdir().unwrap();
    let files = study.write_to(folder.path()).unwrap();

    let path = files[0].to_str().unwrap();
    let explained = gateway
        .command(&["route", "explain", path, "--source", "pacs", "--called", "GANTRY"])
        .await;

    let said = String::from_utf8_lossy(&explained.stdout).into_owned();
    assert!(
        said.contains("pseudonymised for project lung; the original is not kept"),
        "{said}{}",
        String::from_utf8_lossy(&explained.stderr)
    );
}
