//! Promise 2: what is forwarded is the data set that was received, byte by byte.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)] // a panic is how a test fails

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use gantry_gateway::association::status::Status;
use gantry_tests::{
    Certificates, Dcmtk, Gateway, Orthanc, Part10, ScriptedPartner, Sender, Setup,
    digest_on_arrival, digests, eventually,
};
use sample_studies::{Instance, Study, TransferSyntax, all_valid};

#[tokio::test]
async fn every_kind_of_object_in_every_encoding_arrives_over_tls_as_it_was_sent() {
    let certificates = Arc::new(Certificates::new());
    let identity = certificates.issue("clinic");
    let clinic = Dcmtk::storescp("CLINIC").tls(&certificates, &identity).start().await;
    let gateway = Setup::new()
        .tls(&certificates)
        .source("pacs", "PACS")
        .partner_over_tls("clinic", clinic.ae_title(), clinic.port(), &identity)
        .route("GANTRY", &["clinic"], "routine")
        .start()
        .await;

    let mut expected = BTreeMap::new();
    for (seed, syntax) in (1..).zip(TransferSyntax::ALL) {
        // What has no pixels to compress cannot be in RLE.
        let studies =
            all_valid(seed).into_iter().filter_map(|study| study.in_transfer_syntax(syntax).ok());
        for study in studies {
            let mut sender = Sender::connect(gateway.plaintext(), &study.instances).await.unwrap();
            sender.store_all(&study.instances).await;
            expected.extend(sender.release().await);
        }
    }

    assert!(expected.len() > 100, "only {} instances were sent", expected.len());
    clinic.comes_to_hold(&expected).await;
    gateway.delivered("clinic", expected.len()).await;
}

#[tokio::test]
async fn dcmtk_receives_through_the_gateway_what_it_receives_without() {
    let certificates = Arc::new(Certificates::new());
    let (clinic_identity, pacs) = (certificates.issue("clinic"), certificates.issue("pacs"));
    let clinic = Dcmtk::storescp("CLINIC").tls(&certificates, &clinic_identity).start().await;
    let gateway = Setup::new()
        .tls(&certificates)
        .source_with_certificate("pacs", "PACS", &pacs)
        .partner_over_tls("clinic", clinic.ae_title(), clinic.port(), &clinic_identity)
        .route("GANTRY", &["clinic"], "routine")
        .start()
        .await;

    let sendings: Vec<_> = (11..)
        .zip(["-xe", "-xi", "-xb", "-xd", "-xr"])
        .flat_map(|(seed, option)| {
            studies_for(option, seed).into_iter().map(move |study| (study, option))
        })
        .map(|(study, option)| {
            Dcmtk::storescu(&study).tls(&certificates, Some(&pacs)).options(&[option, "-R"])
        })
        .collect();
    for sending in &sendings {
        sending.send_to(clinic.address()).await.expect_success();
    }
    let without = clinic.holds();
    clinic.forget();

    for sending in &sendings {
        sending.send_to(gateway.tls()).await.expect_success();
    }

    assert!(without.len() > 100, "only {} instances were sent", without.len());
    clinic.comes_to_hold(&without).await;
}

/// What storescu can send with an option: it compresses nothing by itself but deflated.
fn studies_for(option: &str, seed: u64) -> Vec<Study> {
    let studies = all_valid(seed).into_iter();
    match option {
        "-xr" => studies
            .filter_map(|study| study.in_transfer_syntax(TransferSyntax::RleLossless).ok())
            .collect(),
        _ => studies.collect(),
    }
}

#[tokio::test]
async fn orthanc_holds_through_the_gateway_what_it_holds_without() {
    let orthanc = Orthanc::start().await;
    let gateway = Setup::new()
        .source("pacs", "PACS")
        .partner("orthanc", Orthanc::AE_TITLE, orthanc.port())
        .route("GANTRY", &["orthanc"], "routine")
        .start()
        .await;
    let studies = all_valid(21);
    let count: usize = studies.iter().map(Study::len).sum();
    for study in &studies {
        Dcmtk::storescu(study).send_to(orthanc.dicom()).await.expect_success();
    }
    let without = orthanc.holds().await;
    orthanc.forget().await;

    for study in &studies {
        Dcmtk::storescu(study).send_to(gateway.plaintext()).await.expect_success();
    }

    gateway.delivered("orthanc", count).await;
    assert_eq!(orthanc.count().await, count);
    assert!(orthanc.holds().await == without, "Orthanc holds other bytes than without the gateway");
}

#[tokio::test]
async fn the_index_and_the_files_know_the_digest_of_what_was_sent() {
    let clinic = Dcmtk::storescp("CLINIC").start().await;
    let mut gateway = Gateway::forwarding_to(&clinic).start().await;
    let study = sample_studies::HeadCt::small(31).build();

    let mut sender = Sender::connect(gateway.plaintext(), &study.instances).await.unwrap();
    sender.store_all(&study.instances).await;
    sender.release().await;
    gateway.delivered("partner", study.len()).await;

    let detail = gateway.api(&format!("/api/v1/studies/{}", study.study_instance_uid())).await;
    let rows = detail["series"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|series| series["instances"].as_array().unwrap());
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let indexed: BTreeMap<_, _> =
        rows.map(|row| (text(&row["sop_instance_uid"]), text(&row["digest"]))).collect();
    assert_eq!(indexed, digests(&study));
    gateway.stop().await;
    assert_eq!(gantry_tests::Held::in_data_dir(gateway.data_dir()).digests, digests(&study));
}

/// Files of pydicom that the gateway does not take, and why it is right.
const REFUSED: &[(&str, &str)] = &[
    ("test_files/MR_truncated.dcm", "ends inside Pixel Data"),
    ("test_files/rtplan_truncated.dcm", "ends inside a sequence"),
    (
        "test_files/SC_rgb_jpeg.dcm",
        "is in implicit VR, and says that it is in a JPEG syntax, which has explicit VR",
    ),
];

#[tokio::test]
async fn what_other_peoples_software_wrote_arrives_as_it_was_sent() {
    let partner = ScriptedPartner::start().await;
    let gateway = Setup::new()
        .source("pacs", "PACS")
        .partner("partner", "PARTNER", partner.port())
        .route("GANTRY", &["partner"], "routine")
        .start()
        .await;

    let (mut accepted, mut refused) = (BTreeSet::new(), BTreeMap::new());
    for (name, instance) in files_of_pydicom() {
        let mut sender =
            Sender::connect(gateway.plaintext(), std::slice::from_ref(&instance)).await.unwrap();
        let outcome = if sender.may_send(&instance) {
            format!("{}", sender.store(&instance).await.unwrap())
        } else {
            "no presentation context".to_owned()
        };
        sender.release().await;
        if outcome == Status::SUCCESS.to_string() {
            let uid = &instance.transfer_syntax_uid;
            accepted.insert(digest_on_arrival(&instance.data_set, uid));
        } else {
            refused.insert(name, outcome);
        }
    }

    let expected: BTreeSet<_> = REFUSED.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(refused.keys().cloned().collect::<BTreeSet<_>>(), expected, "{refused:#?}");
    assert!(accepted.len() > 80, "only {} files were accepted", accepted.len());
    let arrived = eventually("every file to arrive", async || {
        let arrived: BTreeSet<_> =
            partner.received().into_iter().map(|received| received.digest).collect();
        (arrived.len() >= accepted.len()).then_some(arrived)
    })
    .await;
    assert!(
        arrived == accepted,
        "{} of {} arrived with other bytes",
        arrived.difference(&accepted).count(),
        arrived.len()
    );
}

/// Every file that pydicom brings for its own tests and that is an instance: a whole DICOM file whose data set says which
/// instance of what it is. (File Meta Information says so too, and not always the same: senders go by the data set.)
fn files_of_pydicom() -> Vec<(String, Instance)> {
    const SCRIPT: &str = r"
import json, os, pydicom, warnings
warnings.simplefilter('ignore')
data = os.path.join(os.path.dirname(pydicom.__file__), 'data')
for folder, _, names in os.walk(data):
    for name in names:
        path = os.path.join(folder, name)
        try:
            file = pydicom.dcmread(path)
            uids = [str(file[word].value) for word in
                    ('SOPClassUID', 'SOPInstanceUID', 'StudyInstanceUID', 'SeriesInstanceUID')]
            file.walk(lambda *_: None)
        except Exception:
            continue
        print(json.dumps([os.path.relpath(path, data), path, *uids]))
";
    let output =
        Command::new("python3").args(["-c", SCRIPT]).output().expect("python3 is installed");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "pydicom is missing; tests/run installs it: {said}");
    let lines = String::from_utf8(output.stdout).unwrap();
    let mut files: Vec<_> = lines
        .lines()
        .map(|line| {
            let [
                name,
                path,
                sop_class_uid,
                sop_instance_uid,
                study_instance_uid,
                series_instance_uid,
            ]: [String; 6] = serde_json::from_str(line).unwrap();
            let file = Part10::read(Path::new(&path)).unwrap();
            let instance = Instance {
                sop_class_uid,
                sop_instance_uid,
                study_instance_uid,
                series_instance_uid,
                transfer_syntax_uid: file.transfer_syntax_uid,
                modality: String::new(),
                file_name: String::new(),
                data_set: file.data_set,
            };
            (name, instance)
        })
        .collect();
    files.sort_by(|a, b| a.0.cmp(&b.0));
    files
}
