//! What a partner should not have got can be recalled: nothing more of it leaves, and a partner that takes notes of rejection is
//! sent one that real programs read.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)] // a panic is how a test fails

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use gantry_tests::{Dcmtk, Gateway, ScriptedPartner, Sender, Setup, Storescp, eventually};
use sample_studies::{HeadCt, Study};
use serde_json::Value;
use tokio::process::Command;

const KEY_OBJECT: &str = "1.2.840.10008.5.1.4.1.1.88.59";

async fn send(gateway: &Gateway, study: &Study) {
    let mut sender = Sender::connect(gateway.plaintext(), &study.instances).await.unwrap();
    sender.store_all(&study.instances).await;
    sender.release().await;
}

fn scene(port: u16, lines: &str) -> Setup {
    Setup::new().source("pacs", "PACS").partner("partner", "PARTNER", port).and(lines).route(
        "GANTRY",
        &["partner"],
        "urgent",
    )
}

async fn transfer(gateway: &Gateway) -> Value {
    gateway.api("/api/v1/transfers").await[0].clone()
}

async fn recall(gateway: &Gateway, more: &[&str]) -> String {
    let id = transfer(gateway).await["id"].as_str().unwrap().to_owned();
    let arguments =
        [&["transfer", "recall", &id, "--reason", "another patient", "--yes"], more].concat();
    let output = gateway.command(&arguments).await;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

async fn noted(gateway: &Gateway) -> Value {
    eventually("the note to be accepted", async || {
        let note = transfer(gateway).await["recalled"]["note"].clone();
        note["accepted_at"].is_string().then_some(note)
    })
    .await
}

/// What pydicom reads of a file, by an expression in which it is `d`.
async fn pydicom(file: &Path, expression: &str) -> String {
    let program =
        format!("import sys, pydicom; d = pydicom.dcmread(sys.argv[1]); print({expression})");
    let output = Command::new("python3").args(["-c", &program]).arg(file).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// The file of an instance, which storescp names by its UID.
fn file_of(partner: &Storescp, uid: &str) -> PathBuf {
    let files = std::fs::read_dir(partner.received().as_ref()).unwrap().flatten();
    let file = files.map(|entry| entry.path()).find(|path| path.to_string_lossy().ends_with(uid));
    file.unwrap_or_else(|| panic!("there is no file of {uid}"))
}

fn uids(text: &str) -> BTreeSet<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

async fn storescp(study: &Study) -> (Storescp, Gateway) {
    let partner = Dcmtk::storescp("PARTNER").start().await;
    let gateway = scene(partner.port(), "recall = \"iocm\"").start().await;
    send(&gateway, study).await;
    gateway.delivered("partner", study.len()).await;
    (partner, gateway)
}

#[tokio::test]
async fn a_partner_is_sent_a_note_that_rejects_each_image_it_had_accepted() {
    let study = HeadCt::small(1).build();
    let (partner, gateway) = storescp(&study).await;

    let said = recall(&gateway, &["--because", "wrong-worklist-entry"]).await;
    assert!(said.contains("recalled") && said.contains("another patient"), "{said}");
    let note = noted(&gateway).await;

    assert_eq!(note["images"], study.len());
    let file = file_of(&partner, note["sop_instance_uid"].as_str().unwrap());
    let valid = Command::new("dciodvfy").arg(&file).output().await.unwrap();
    let verdict = String::from_utf8_lossy(&valid.stderr).into_owned();
    assert!(!verdict.contains("Error"), "{verdict}");
    assert!(verdict.contains("KeyObjectSelectionDocument"), "{verdict}");
    let dump = Command::new("dcmdump").arg(&file).output().await.unwrap();
    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    assert_eq!(pydicom(&file, "d.SOPClassUID").await, KEY_OBJECT);
    let title = "d.ConceptNameCodeSequence[0]";
    let code = format!("{title}.CodeValue, {title}.CodingSchemeDesignator, {title}.CodeMeaning");
    let code = pydicom(&file, &code).await;
    assert_eq!(code, "113038 DCM Incorrect Modality Worklist Entry");
    let content = "*(i.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for i in d.ContentSequence if 'ReferencedSOPSequence' in i)";
    let evidence = "*(i.ReferencedSOPInstanceUID for s in d.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence \
                    for i in s.ReferencedSOPSequence)";
    let sent: BTreeSet<_> = study.sop_instance_uids().into_iter().collect();
    assert_eq!(uids(&pydicom(&file, content).await), sent);
    assert_eq!(uids(&pydicom(&file, evidence).await), sent);
    let of_study = pydicom(&file, "d.StudyInstanceUID").await;
    assert_eq!(of_study, study.study_instance_uid());
    let (image, original) = (
        file_of(&partner, &study.instances[0].sop_instance_uid),
        "d.PatientName, d.PatientID, d.PatientBirthDate",
    );
    assert_eq!(pydicom(&file, original).await, pydicom(&image, original).await);
    assert_eq!(pydicom(&file, "d.ContentSequence[0].TextValue").await, "another patient");
    let transfer = transfer(&gateway).await;
    assert_eq!(transfer["state"], "recalled");
    assert!(transfer["sentence"].as_str().unwrap().contains("accepted the note"), "{transfer}");
    assert!(gateway.conservation("partner").await.adds_up());
}

#[tokio::test]
async fn a_crash_between_decision_and_note_loses_nothing_and_what_comes_later_stays() {
    let study = HeadCt::small(2).build();
    let partner = ScriptedPartner::start().await;
    let mut gateway = scene(partner.port(), "recall = \"iocm\"").start().await;
    let (first, late) = study.instances.split_at(study.len() - 3);
    let of = |instances: &[sample_studies::Instance]| Study {
        instances: instances.to_vec(),
        ..study.clone()
    };
    send(&gateway, &of(first)).await;
    gateway.delivered("partner", first.len()).await;
    partner.allow(first.len());

    recall(&gateway, &[]).await;
    gateway.kill_and_restart().await;
    send(&gateway, &of(late)).await;
    eventually("the late images to be held back", async || {
        (gateway.conservation("partner").await.cancelled == late.len() as u64).then_some(())
    })
    .await;
    gateway.kill_and_restart().await;
    partner.allow(usize::MAX);

    assert_eq!(noted(&gateway).await["images"], first.len());
    // What was on the wire in the crash came twice, as the same instance.
    let received = partner.received();
    let came: BTreeSet<_> =
        received.iter().map(|one| (one.sop_instance_uid.clone(), one.digest.clone())).collect();
    assert_eq!(came.len(), first.len() + 1, "the images, and one note");
    assert!(late.iter().all(|late| came.iter().all(|(uid, _)| *uid != late.sop_instance_uid)));
    let conserved = gateway.conservation("partner").await;
    assert!(conserved.adds_up() && conserved.waiting == 0 && conserved.set_aside == 0);
}

#[tokio::test]
async fn a_partner_that_takes_no_notes_is_phoned_and_gets_nothing() {
    let study = HeadCt::small(3).build();
    let partner = ScriptedPartner::start().await;
    let gateway = scene(partner.port(), "phone = \"0113 496 0000\"").start().await;
    send(&gateway, &study).await;
    gateway.delivered("partner", study.len()).await;

    let said = recall(&gateway, &[]).await;

    assert!(said.contains("takes no notes") && said.contains("0113 496 0000"), "{said}");
    let transfer = transfer(&gateway).await;
    assert_eq!(
        (&transfer["state"], &transfer["recalled"]["note"]),
        (&"recalled".into(), &Value::Null)
    );
    assert_eq!(partner.received().len(), study.len());
    let id = transfer["id"].as_str().unwrap();
    let refused = gateway.command(&["transfer", "recall", id, "--reason", "x"]).await;
    assert_eq!(refused.status.code(), Some(2), "nobody is here to be asked");
}

#[tokio::test]
async fn the_note_is_proven_like_an_image_and_rejected_images_are_not_sent_again() {
    let study = HeadCt::small(4).build();
    let partner = ScriptedPartner::committing(|_| None).await;
    let gateway = scene(partner.port(), "recall = \"iocm\"").start().await;
    send(&gateway, &study).await;
    eventually("the images to be confirmed", async || {
        (transfer(&gateway).await["state"] == "confirmed").then_some(())
    })
    .await;

    recall(&gateway, &[]).await;
    let note = noted(&gateway).await["sop_instance_uid"].as_str().unwrap().to_owned();
    eventually("the note to be asked for", async || {
        let asked = partner.asked();
        asked.iter().any(|asked| asked.instances == [note.clone()]).then_some(())
    })
    .await;

    eventually("the note to be confirmed", async || {
        let transfer = transfer(&gateway).await;
        (transfer["confirmed"] == study.len() + 1 && transfer["state"] == "recalled").then_some(())
    })
    .await;
    assert_eq!(partner.received().len(), study.len() + 1);
}
