//! Promise 2: what is forwarded is the data set that was received, byte by byte.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)] // a panic is how a test fails

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use gantry_gateway::association::status::Status;
use gantry_gateway::partner::capabilities::Capabilities;
use gantry_tests::{
    Certificates, Dcmtk, Gateway, Orthanc, Part10, ScriptedPartner, Sender, Setup,
    converted_digest, digest_on_arrival, digests, eventually,
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

/// A receiver of DCMTK that takes CT images in one transfer syntax and no other.
async fn taking_only(transfer_syntax: &str) -> (gantry_tests::Storescp, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let profile = folder.path().join("profile");
    let text = format!(
        "[[TransferSyntaxes]]\n[One]\nTransferSyntax1 = {transfer_syntax}\n\
         [[PresentationContexts]]\n[CT]\nPresentationContext1 = 1.2.840.10008.5.1.4.1.1.2\\One\n\
         [[Profiles]]\n[Default]\nPresentationContexts = CT\n"
    );
    std::fs::write(&profile, text).unwrap();
    let clinic = Dcmtk::storescp_as_it_comes("CLINIC")
        .options(&["+B", "-xf", profile.to_str().unwrap(), "Default"])
        .start()
        .await;
    (clinic, folder)
}

/// Converts files with one of DCMTK's programs, and gives the data sets by SOP Instance UID.
fn converted_by_dcmtk(
    program: &str,
    files: impl IntoIterator<Item = std::path::PathBuf>,
) -> BTreeMap<String, Part10> {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("converted");
    let convert = |file: std::path::PathBuf| {
        let output =
            Command::new(program).arg(&file).arg(&to).output().expect("DCMTK is installed");
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        let converted = Part10::read(&to).unwrap();
        (converted.sop_instance_uid.clone(), converted)
    };
    files.into_iter().map(convert).collect()
}

/// Where Pixel Data of a head CT are: at the end.
fn pixels(data_set: &[u8]) -> &[u8] {
    let header = data_set.windows(8).rposition(|bytes| bytes == b"\xE0\x7F\x10\0OW\0\0").unwrap();
    &data_set[header + 12..]
}

#[tokio::test]
async fn a_partner_that_takes_only_jpeg_ls_gets_the_same_pixels() {
    let (clinic, _profile) = taking_only("1.2.840.10008.1.2.4.80").await;
    let gateway = Setup::new()
        .source("pacs", "PACS")
        .partner_compressing("clinic", clinic.ae_title(), clinic.port(), "auto")
        .route("GANTRY", &["clinic"], "routine")
        .start()
        .await;
    let study = sample_studies::HeadCt::small(41).build();

    let mut sender = Sender::connect(gateway.plaintext(), &study.instances).await.unwrap();
    sender.store_all(&study.instances).await;
    sender.release().await;

    gateway.delivered("clinic", study.len()).await;
    let files = std::fs::read_dir(clinic.received()).unwrap().map(|file| file.unwrap().path());
    let arrived = converted_by_dcmtk("dcmdjpls", files);
    assert_eq!(arrived.len(), study.len());
    for instance in &study.instances {
        let arrived = &arrived[&instance.sop_instance_uid].data_set;
        assert!(pixels(arrived) == pixels(&instance.data_set), "{}", instance.file_name);
    }
    let takes = Capabilities::of(gateway.data_dir()).known("clinic", jiff::Timestamp::now());
    let accepted: Vec<_> = takes
        .iter()
        .filter(|takes| takes.accepted)
        .map(|takes| takes.transfer_syntax.as_str())
        .collect();
    assert_eq!(accepted, ["1.2.840.10008.1.2.4.80"], "{takes:?}");
}

#[tokio::test]
async fn what_is_kept_in_jpeg_ls_goes_uncompressed_to_a_partner_that_takes_nothing_else() {
    let (clinic, _profile) = taking_only("1.2.840.10008.1.2.1").await;
    let gateway = Gateway::forwarding_to(&clinic).start().await;
    let study = sample_studies::HeadCt::small(42).build();
    let folder = tempfile::tempdir().unwrap();
    study.write_to(folder.path()).unwrap();
    let files = std::fs::read_dir(folder.path().join(&study.name)).unwrap();
    let compressed = converted_by_dcmtk("dcmcjpls", files.map(|file| file.unwrap().path()));

    let given: Vec<_> = study
        .instances
        .iter()
        .map(|instance| Instance {
            data_set: compressed[&instance.sop_instance_uid].data_set.clone(),
            transfer_syntax_uid: "1.2.840.10008.1.2.4.80".to_owned(),
            ..instance.clone()
        })
        .collect();
    let mut sender = Sender::connect(gateway.plaintext(), &given).await.unwrap();
    sender.store_all(&given).await;
    sender.release().await;

    gateway.delivered("partner", study.len()).await;
    let files = std::fs::read_dir(clinic.received()).unwrap();
    let arrived: BTreeMap<_, _> = files
        .map(|file| Part10::read(&file.unwrap().path()).unwrap())
        .map(|file| (file.sop_instance_uid.clone(), file))
        .collect();
    for instance in &study.instances {
        let arrived = &arrived[&instance.sop_instance_uid].data_set;
        assert!(pixels(arrived) == pixels(&instance.data_set), "{}", instance.file_name);
    }
}

#[tokio::test]
async fn a_slow_link_is_found_out_and_what_goes_over_it_compressed_without_loss() {
    const JPEG_LS: &str = "1.2.840.10008.1.2.4.80";
    let partner = ScriptedPartner::at_a_rate_of(1e6).await;
    let gateway = Setup::new()
        .source("pacs", "PACS")
        .partner_compressing("partner", "PARTNER", partner.port(), "auto")
        .route("GANTRY", &["partner"], "routine")
        .start()
        .await;
    let instances: Vec<_> = (51..)
        .flat_map(|seed| sample_studies::HeadCt::small(seed).build().instances)
        .take(60)
        .collect();

    let mut sender = Sender::connect(gateway.plaintext(), &instances).await.unwrap();
    sender.store_all(&instances).await;
    sender.release().await;

    gateway.delivered("partner", instances.len()).await;
    let originals: BTreeMap<_, _> =
        instances.iter().map(|instance| (instance.sop_instance_uid.as_str(), instance)).collect();
    let received = partner.received();
    for received in &received {
        let instance = originals[received.sop_instance_uid.as_str()];
        let expected = match received.transfer_syntax_uid.as_str() {
            JPEG_LS => converted_digest(&instance.data_set, &instance.transfer_syntax_uid, JPEG_LS),
            _ => digest_on_arrival(&instance.data_set, &instance.transfer_syntax_uid),
        };
        assert_eq!(received.digest, expected, "{}", instance.file_name);
    }
    let compressed = received.iter().map(|received| received.transfer_syntax_uid == JPEG_LS);
    let compressed: Vec<_> = compressed.collect();
    assert!(!compressed[0], "nothing was known of the link yet");
    assert!(compressed[compressed.len() - 1], "{compressed:?}");
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
