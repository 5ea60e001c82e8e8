//! Only what was meant leaves: a partner finds, moves and gets what was addressed to it, and nothing else of what is here.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)] // a panic is how a test fails

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use gantry_deidentify::data_set::{self, DataSet};
use gantry_store::dicom::TransferSyntax;
use gantry_store::dicom::text;
use gantry_tests::{Dcmtk, Gateway, Orthanc, Part10, Sender, Setup, Storescp, digests};
use sample_studies::{HeadCt, Study, chest_cr, mr};

async fn send(gateway: &Gateway, called: &str, study: &Study) {
    let mut sender =
        Sender::connect_as("PACS", called, gateway.plaintext(), &study.instances).await.unwrap();
    sender.store_all(&study.instances).await;
    sender.release().await;
}

/// A partner that may query and retrieve, another one too, and what goes to either.
struct Scene {
    gateway: Gateway,
    partner: Storescp,
    other: Storescp,
    ct: Study,
    mr: Study,
    cr: Study,
}

const MAY: &str = "may = [\"receive\", \"query\", \"retrieve\"]\n";

impl Scene {
    /// The CT goes to the one, the MR to the other, the radiograph to nobody.
    async fn new() -> Self {
        let (partner, other) =
            (Dcmtk::storescp("PARTNER").start().await, Dcmtk::storescp("OTHER").start().await);
        let gateway = Setup::new()
            .source("pacs", "PACS")
            .partner("partner", "PARTNER", partner.port())
            .and(MAY)
            .partner("other", "OTHER", other.port())
            .and(MAY)
            .partner("silent", "SILENT", other.port())
            .route("TO_PARTNER", &["partner"], "routine")
            .route("TO_OTHER", &["other"], "routine")
            .start()
            .await;
        let (ct, mr, cr) = (HeadCt::small(61).build(), mr(62), chest_cr(63));
        send(&gateway, "TO_PARTNER", &ct).await;
        send(&gateway, "TO_OTHER", &mr).await;
        send(&gateway, "GANTRY", &cr).await;
        gateway.delivered("partner", ct.len()).await;
        gateway.delivered("other", mr.len()).await;
        partner.forget();
        other.forget();
        Self { gateway, partner, other, ct, mr, cr }
    }

    /// What findscu is answered, in the Study Root model.
    async fn find(&self, calling: &str, keys: &[&str]) -> Vec<BTreeMap<Tag, String>> {
        find(&self.gateway, calling, "-S", keys).await
    }
}

async fn find(
    gateway: &Gateway,
    calling: &str,
    model: &str,
    keys: &[&str],
) -> Vec<BTreeMap<Tag, String>> {
    let answers = tempfile::tempdir().unwrap();
    let asked = Dcmtk::findscu(keys, answers.path())
        .calling(calling)
        .options(&[model])
        .send_to(gateway.plaintext())
        .await;
    let said = asked.said();
    assert!(asked.is_success(), "{said}");
    assert!(said.contains("Received Final Find Response (Success)"), "{said}");
    let mut files: Vec<_> =
        std::fs::read_dir(answers.path()).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| values(file)).collect()
}

/// The text of every attribute at the top level of a file.
fn values(path: &Path) -> BTreeMap<Tag, String> {
    let file = Part10::read(path).unwrap();
    let syntax: TransferSyntax = file.transfer_syntax_uid.parse().unwrap();
    let data_set: DataSet = data_set::read(&syntax, &file.data_set).unwrap().data_set;
    let set = data_set.bytes(tags::SPECIFIC_CHARACTER_SET).unwrap_or_default().to_vec();
    let each = data_set
        .elements
        .iter()
        .map(|element| (element.tag, text::decode(&set, element.bytes().unwrap_or_default())));
    each.collect()
}

fn all(found: &[BTreeMap<Tag, String>], tag: Tag) -> BTreeSet<String> {
    found.iter().filter_map(|one| one.get(&tag).cloned()).collect()
}

#[tokio::test]
async fn a_partner_finds_what_was_addressed_to_it_at_every_level_and_nothing_else() {
    let scene = Scene::new().await;
    let (ct, uid) = (&scene.ct, scene.ct.study_instance_uid());

    let studies = scene
        .find(
            "PARTNER",
            &[
                "QueryRetrieveLevel=STUDY",
                "StudyInstanceUID",
                "PatientName",
                "PatientID",
                "StudyDate",
                "ModalitiesInStudy",
                "NumberOfStudyRelatedSeries",
                "NumberOfStudyRelatedInstances",
            ],
        )
        .await;
    assert_eq!(studies.len(), 1, "{studies:?}");
    let study = &studies[0];
    assert_eq!(study[&tags::STUDY_INSTANCE_UID], uid);
    assert_eq!(study[&tags::MODALITIES_IN_STUDY], "CT");
    assert_eq!(study[&tags::NUMBER_OF_STUDY_RELATED_INSTANCES], ct.len().to_string());
    assert_eq!(study[&tags::RETRIEVE_AE_TITLE], "GANTRY");
    let patient_id = study[&tags::PATIENT_ID].clone();
    assert!(!patient_id.is_empty());

    let of_study = format!("StudyInstanceUID={uid}");
    let keys = ["QueryRetrieveLevel=SERIES", &of_study, "SeriesInstanceUID", "Modality"];
    let series = scene.find("PARTNER", &keys).await;
    let expected: BTreeSet<_> =
        ct.instances.iter().map(|instance| instance.series_instance_uid.clone()).collect();
    assert_eq!(all(&series, tags::SERIES_INSTANCE_UID), expected);
    let of_series = format!("SeriesInstanceUID={}", ct.instances[0].series_instance_uid);
    let keys = ["QueryRetrieveLevel=IMAGE", &of_study, &of_series, "SOPInstanceUID", "Rows"];
    let images = scene.find("PARTNER", &keys).await;
    let expected: BTreeSet<_> = ct
        .instances
        .iter()
        .filter(|instance| instance.series_instance_uid == ct.instances[0].series_instance_uid)
        .map(|instance| instance.sop_instance_uid.clone())
        .collect();
    assert_eq!(all(&images, tags::SOP_INSTANCE_UID), expected);

    // The same by the patient, in the other model.
    let of_patient = format!("PatientID={patient_id}");
    let keys = ["QueryRetrieveLevel=STUDY", &of_patient, "StudyInstanceUID"];
    let by_patient = find(&scene.gateway, "PARTNER", "-P", &keys).await;
    assert_eq!(all(&by_patient, tags::STUDY_INSTANCE_UID), BTreeSet::from([uid.to_owned()]));

    // What is somebody else's is not there, by whatever it is asked for, at whatever level.
    for foreign in [&scene.mr, &scene.cr] {
        let (study, first) = (foreign.study_instance_uid(), &foreign.instances[0]);
        let study = format!("StudyInstanceUID={study}");
        let series = format!("SeriesInstanceUID={}", first.series_instance_uid);
        let image = format!("SOPInstanceUID={}", first.sop_instance_uid);
        for keys in [
            &["QueryRetrieveLevel=STUDY", &study][..],
            &["QueryRetrieveLevel=SERIES", &study, "SeriesInstanceUID"],
            &["QueryRetrieveLevel=IMAGE", &study, &series, "SOPInstanceUID"],
            &["QueryRetrieveLevel=IMAGE", &image],
        ] {
            assert_eq!(scene.find("PARTNER", keys).await, [], "{keys:?}");
        }
    }
    // A source that was not allowed to ask, and a partner that was not.
    for calling in ["PACS", "SILENT"] {
        let answers = tempfile::tempdir().unwrap();
        Dcmtk::findscu(&["QueryRetrieveLevel=STUDY", "StudyInstanceUID"], answers.path())
            .calling(calling)
            .options(&["-S"])
            .send_to(scene.gateway.plaintext())
            .await
            .expect_refusal("No Acceptable Presentation Contexts");
    }
}

#[tokio::test]
async fn a_partner_moves_and_gets_what_is_its_own_bit_for_bit_and_nothing_else() {
    let scene = Scene::new().await;
    let of = |study: &Study| format!("StudyInstanceUID={}", study.study_instance_uid());

    let own = of(&scene.ct);
    Dcmtk::movescu(&["QueryRetrieveLevel=STUDY", &own], "PARTNER")
        .calling("PARTNER")
        .options(&["-S"])
        .send_to(scene.gateway.plaintext())
        .await
        .expect_success();
    assert_eq!(scene.partner.holds(), digests(&scene.ct));

    let folder = tempfile::tempdir().unwrap();
    Dcmtk::getscu(&["QueryRetrieveLevel=STUDY", &own], folder.path())
        .calling("PARTNER")
        .options(&["-S"])
        .send_to(scene.gateway.plaintext())
        .await
        .expect_success();
    let got: BTreeMap<String, String> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|file| {
            let file = Part10::read(&file.unwrap().path()).unwrap();
            (file.sop_instance_uid, gantry_tests::digest(&file.data_set))
        })
        .collect();
    assert_eq!(got, digests(&scene.ct));

    // A series, an image, and all of the patient.
    let first = &scene.ct.instances[0];
    let series = format!("SeriesInstanceUID={}", first.series_instance_uid);
    let image = format!("SOPInstanceUID={}", first.sop_instance_uid);
    let found = scene.find("PARTNER", &["QueryRetrieveLevel=STUDY", &own, "PatientID"]).await;
    let patient = format!("PatientID={}", found[0][&tags::PATIENT_ID]);
    let of_series = |instance: &&sample_studies::Instance| {
        instance.series_instance_uid == first.series_instance_uid
    };
    let in_series = scene.ct.instances.iter().filter(of_series).count();
    for (model, keys, expected) in [
        ("-S", &["QueryRetrieveLevel=SERIES", &own, &series][..], in_series),
        ("-S", &["QueryRetrieveLevel=IMAGE", &own, &series, &image], 1),
        ("-P", &["QueryRetrieveLevel=PATIENT", &patient], scene.ct.len()),
    ] {
        scene.partner.forget();
        Dcmtk::movescu(keys, "PARTNER")
            .calling("PARTNER")
            .options(&[model])
            .send_to(scene.gateway.plaintext())
            .await
            .expect_success();
        assert_eq!(scene.partner.holds().len(), expected, "{keys:?}");
    }

    // Nothing of others, and nothing to others.
    scene.partner.forget();
    for foreign in [&scene.mr, &scene.cr] {
        let foreign = of(foreign);
        let moved = Dcmtk::movescu(&["QueryRetrieveLevel=STUDY", &foreign], "PARTNER")
            .calling("PARTNER")
            .options(&["-S"])
            .send_to(scene.gateway.plaintext())
            .await;
        assert!(moved.said().contains("Success"), "{}", moved.said());
    }
    for destination in ["OTHER", "GANTRY", "PACS", "NOBODY"] {
        let moved = Dcmtk::movescu(&["QueryRetrieveLevel=STUDY", &own], destination)
            .calling("PARTNER")
            .options(&["-S"])
            .send_to(scene.gateway.plaintext())
            .await;
        assert!(moved.said().contains("MoveDestinationUnknown"), "{destination}: {}", moved.said());
    }
    assert_eq!((scene.partner.count(), scene.other.count()), (0, 0));
}

#[tokio::test]
async fn an_archive_queries_and_retrieves_as_its_users_do() {
    let orthanc = Orthanc::start().await;
    let gateway = Setup::new()
        .source("pacs", "PACS")
        .partner("archive", Orthanc::AE_TITLE, orthanc.port())
        .and(MAY)
        .route("GANTRY", &["archive"], "routine")
        .start()
        .await;
    let study = HeadCt::small(64).build();
    send(&gateway, "GANTRY", &study).await;
    gateway.delivered("archive", study.len()).await;
    // It writes data sets in its own way, and the same ones in the same way.
    let delivered = orthanc.holds().await;
    assert_eq!(delivered.len(), study.len());
    orthanc.forget().await;
    orthanc.knows(gateway.plaintext(), false, false).await;

    let found = orthanc.queries_and_retrieves(study.study_instance_uid()).await;

    assert_eq!(found, 1);
    assert_eq!(orthanc.holds().await, delivered);
}

#[tokio::test]
async fn what_is_shared_is_found_and_fetched_until_it_is_taken_back() {
    let scene = Scene::new().await;
    let uid = scene.cr.study_instance_uid();
    let of_study = format!("StudyInstanceUID={uid}");
    let keys = ["QueryRetrieveLevel=STUDY", &of_study];
    let shared = async |what: &[&str]| {
        let output = scene.gateway.command(&[&["study"], what].concat()).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        String::from_utf8(output.stdout).unwrap()
    };

    let said = shared(&["share", uid, "--with", "partner", "--reason", "an opinion"]).await;
    assert!(said.contains("partner") && said.contains("without end"), "{said}");
    assert_eq!(scene.find("PARTNER", &keys).await.len(), 1);
    assert_eq!(scene.find("OTHER", &keys).await, []);
    Dcmtk::movescu(&keys, "PARTNER")
        .calling("PARTNER")
        .options(&["-S"])
        .send_to(scene.gateway.plaintext())
        .await
        .expect_success();
    assert_eq!(scene.partner.holds(), digests(&scene.cr));

    let said = shared(&["unshare", uid, "--with", "partner", "--reason", "it was given"]).await;
    assert!(said.contains("ended"), "{said}");
    assert_eq!(scene.find("PARTNER", &keys).await, []);
    scene.partner.forget();
    let moved = Dcmtk::movescu(&keys, "PARTNER")
        .calling("PARTNER")
        .options(&["-S"])
        .send_to(scene.gateway.plaintext())
        .await;
    assert!(moved.is_success(), "{}", moved.said());
    assert_eq!(scene.partner.count(), 0);

    // Who may not ask would not see it.
    let refused = scene
        .gateway
        .command(&["study", "share", uid, "--with", "silent", "--reason", "an opinion"])
        .await;
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("may neither query nor retrieve") && said.contains("hint:"), "{said}");
}

#[tokio::test]
async fn what_is_no_query_is_refused_and_what_looks_like_one_of_the_database_finds_nothing() {
    let scene = Scene::new().await;
    let ask = async |keys: &[&str]| {
        let answers = tempfile::tempdir().unwrap();
        let asked = Dcmtk::findscu(keys, answers.path())
            .calling("PARTNER")
            .options(&["-S"])
            .send_to(scene.gateway.plaintext())
            .await;
        (std::fs::read_dir(answers.path()).unwrap().count(), asked.said())
    };
    let many = format!("PatientName={}", "*a".repeat(40));
    let uids = format!("StudyInstanceUID={}", vec!["1.2.3"; 10_001].join("\\"));
    for (keys, status) in [
        (&["QueryRetrieveLevel=STUDY", "StudyDate=20261341"][..], "UnableToProcess"),
        (&["QueryRetrieveLevel=STUDY", "StudyDate=yesterday"], "UnableToProcess"),
        (&["QueryRetrieveLevel=STUDY", &many], "UnableToProcess"),
        (&["QueryRetrieveLevel=STUDY", &uids], "UnableToProcess"),
        (&["QueryRetrieveLevel=WORLD", "StudyInstanceUID"], "DataSetDoesNotMatchSOPClass"),
        (&["StudyInstanceUID"], "DataSetDoesNotMatchSOPClass"),
        (&["QueryRetrieveLevel=PATIENT", "PatientID"], "DataSetDoesNotMatchSOPClass"),
    ] {
        let (count, said) = ask(keys).await;
        let keys: Vec<String> = keys.iter().map(|key| key.chars().take(60).collect()).collect();
        assert_eq!(count, 0, "{keys:?}");
        assert!(said.contains(status), "{keys:?}: {said}");
    }
    for text in ["' OR 1=1 --", "%", "_", "\"; DROP TABLE study; --", "[a-z]"] {
        let keys = ["QueryRetrieveLevel=STUDY", &format!("PatientID={text}")];
        let (count, said) = ask(&keys).await;
        assert_eq!(count, 0, "{text}");
        assert!(said.contains("Received Final Find Response (Success)"), "{text}: {said}");
    }
    let all = scene.find("PARTNER", &["QueryRetrieveLevel=STUDY", "StudyInstanceUID"]).await;
    assert_eq!(all.len(), 1);
    let log = scene.gateway.log();
    assert!(!log.contains("DROP TABLE") && !log.contains("OR 1=1"), "a key is in the log");
}

#[tokio::test]
async fn a_study_is_found_at_an_archive_and_fetched_from_it() {
    let orthanc = Orthanc::start().await;
    let gateway = Setup::new().source_at("pacs", Orthanc::AE_TITLE, orthanc.port()).start().await;
    orthanc.serves(gateway.plaintext()).await;
    let study = HeadCt::small(65).build();
    orthanc.has(&study.instances).await;
    let uid = study.study_instance_uid();
    let run = async |arguments: &[&str]| {
        let output = gateway.command(arguments).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    };

    let found = run(&["query", "--at", "pacs", "--modality", "CT", "--json"]).await;
    let found: serde_json::Value = serde_json::from_str(&found).unwrap();
    assert_eq!(found["found"][0]["study_instance_uid"], uid, "{found}");
    // Patients are shortened unless that is asked for.
    let planted = study.planted();
    let named = |text: &str| planted.iter().any(|planted| text.contains(&planted.text));
    assert!(!named(&found.to_string()), "{found}");
    let revealed = run(&["query", "--at", "pacs", "--modality", "CT", "--reveal"]).await;
    assert!(named(&revealed), "{revealed}");
    let series = run(&["query", "--at", "pacs", "--study", uid, "--json"]).await;
    let series: serde_json::Value = serde_json::from_str(&series).unwrap();
    let counted: u64 = series["found"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["instances"].as_u64().unwrap())
        .sum();
    assert_eq!(counted, study.len() as u64, "{series}");

    let fetched = run(&["fetch", uid, "--from", "pacs"]).await;
    assert!(fetched.contains(&format!("{} images came from pacs", study.len())), "{fetched}");
    gantry_tests::eventually("the study to be here", async || {
        let studies = gateway.api("/api/v1/studies").await;
        let here = studies.as_array()?.iter().find(|one| one["study_instance_uid"] == uid)?;
        (here["instance_count"] == study.len()).then_some(())
    })
    .await;
    let everything = gateway.command(&["query", "--at", "pacs"]).await;
    assert_eq!(everything.status.code(), Some(2), "everything is not asked for");
    let nothing = gateway.command(&["query", "--at", "pacs", "--accession", "NOPE"]).await;
    assert_eq!(nothing.status.code(), Some(3));
}
