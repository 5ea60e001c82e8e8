//! Only what was meant leaves, over HTTP too: a partner finds and fetches what was addressed to it, and nothing else of what is
//! here; and what it fetches is what was sent, bit for bit.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)] // a panic is how a test fails

use std::collections::BTreeMap;
use std::sync::Arc;

use dicom_dictionary_std::tags;
use gantry_deidentify::data_set;
use gantry_dicomweb::multipart::{Boundary, Event, Reader, Writer};
use gantry_gateway::web::part10::FileMeta;
use gantry_store::dicom::TransferSyntax;
use gantry_tests::http::{Answer, Ask};
use gantry_tests::{
    Certificates, Dcmtk, Gateway, Part10, Sender, Setup, Storescp, digest, digests, python,
};
use sample_studies::{HeadCt, Study, chest_cr, mr, small_objects};
use serde_json::{Value, json};
use tokio::process::Command;

async fn send(gateway: &Gateway, called: &str, study: &Study) {
    let mut sender =
        Sender::connect_as("PACS", called, gateway.plaintext(), &study.instances).await.unwrap();
    sender.store_all(&study.instances).await;
    sender.release().await;
}

const MAY: &str = "may = [\"receive\", \"query\", \"retrieve\"]\n";
const UNKNOWN: &str = "2.25.314159265358979323846264338327950288419";

/// Two partners and a source that may query and retrieve, a partner that may not; and what is whose.
struct Scene {
    gateway: Gateway,
    _partners: [Storescp; 2],
    ct: Study,
    mr: Study,
    cr: Study,
}

fn token(of: &str) -> String {
    format!("{of}-0123456789abcdef0123456789abcdef")
}

impl Scene {
    /// The CT goes to the one, the MR to the other, the radiograph to nobody.
    async fn new() -> Self {
        let partners =
            [Dcmtk::storescp("PARTNER").start().await, Dcmtk::storescp("OTHER").start().await];
        let gateway = Setup::new()
            .dicomweb("allow-origins = [\"https://viewer.example\"]")
            .source("pacs", "PACS")
            .and("may = [\"query\", \"retrieve\"]")
            .token(&token("pacs"))
            .source("ct", "CT")
            .and("may = [\"query\", \"retrieve\"]")
            .token(&token("ct"))
            .partner("partner", "PARTNER", partners[0].port())
            .and(MAY)
            .token(&token("partner"))
            .partner("other", "OTHER", partners[1].port())
            .and(MAY)
            .token(&token("other"))
            .partner("silent", "SILENT", partners[1].port())
            .token(&token("silent"))
            .route("TO_PARTNER", &["partner"], "routine")
            .route("TO_OTHER", &["other"], "routine")
            .start()
            .await;
        let (ct, mr, cr) = (HeadCt::small(71).build(), mr(72), chest_cr(73));
        send(&gateway, "TO_PARTNER", &ct).await;
        send(&gateway, "TO_OTHER", &mr).await;
        send(&gateway, "GANTRY", &cr).await;
        gateway.delivered("partner", ct.len()).await;
        gateway.delivered("other", mr.len()).await;
        gateway.stored(ct.len() + mr.len() + cr.len()).await;
        Self { gateway, _partners: partners, ct, mr, cr }
    }

    async fn ask(&self, who: &str, path: &str) -> Answer {
        self.ask_for(who, path, "*/*").await
    }

    async fn ask_for(&self, who: &str, path: &str, accept: &str) -> Answer {
        let bearer = format!("Bearer {}", token(who));
        let ask = Ask::get(&format!("/dicomweb{path}"));
        ask.header("accept", accept)
            .header("authorization", &bearer)
            .to(self.address())
            .await
            .unwrap()
    }

    fn address(&self) -> std::net::SocketAddr {
        let url = self.gateway.dicomweb().trim_end_matches("/dicomweb");
        url.rsplit("//").next().unwrap().parse().unwrap()
    }
}

/// The parts of an answer, with their media types.
fn parts(answer: &Answer) -> Vec<(String, Vec<u8>)> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let boundary = Boundary::of_content_type(answer.header("content-type").unwrap()).unwrap();
    let (mut parts, mut reader) = (Vec::new(), Reader::new(&boundary, 10_000));
    reader
        .feed(&answer.body, |event| match event {
            Event::Part(header) => {
                let kind = header.get("content-type").unwrap_or_default().to_owned();
                parts.push((kind, Vec::new()));
            }
            Event::Body(bytes) => parts.last_mut().unwrap().1.extend_from_slice(bytes),
            Event::PartEnd | Event::End => {}
        })
        .unwrap();
    reader.finish().unwrap();
    parts
}

/// Every address under which something of a study can be had.
fn addresses(study: &str, series: &str, instance: &str) -> Vec<String> {
    let one = format!("/studies/{study}/series/{series}/instances/{instance}");
    vec![
        format!("/studies?StudyInstanceUID={study}"),
        format!("/series?StudyInstanceUID={study}"),
        format!("/series?SeriesInstanceUID={series}"),
        format!("/instances?SOPInstanceUID={instance}"),
        format!("/studies/{study}/series"),
        format!("/studies/{study}/instances"),
        format!("/studies/{study}/series/{series}/instances"),
        format!("/studies/{study}"),
        format!("/studies/{study}/metadata"),
        format!("/studies/{study}/series/{series}"),
        format!("/studies/{study}/series/{series}/metadata"),
        format!("{one}/metadata"),
        format!("{one}/frames/1"),
        format!("{one}/bulkdata/7FE00010"),
        format!("{one}/rendered"),
        format!("{one}/frames/1/rendered"),
        format!("{one}/thumbnail"),
        format!("/studies/{study}/thumbnail"),
        format!("/wado?requestType=WADO&studyUID={study}&seriesUID={series}&objectUID={instance}"),
        one,
    ]
}

#[tokio::test]
async fn everyone_is_answered_its_own_and_a_foreign_study_as_one_that_is_not_there() {
    let scene = Scene::new().await;
    let nothing = addresses(UNKNOWN, UNKNOWN, UNKNOWN);
    for (owner, study) in [("partner", &scene.ct), ("other", &scene.mr), ("nobody", &scene.cr)] {
        let image = &study.instances[0];
        let all = addresses(
            &image.study_instance_uid,
            &image.series_instance_uid,
            &image.sop_instance_uid,
        );
        for who in ["partner", "other", "pacs", "ct", "silent"] {
            for (path, unknown) in all.iter().zip(&nothing) {
                let answer = scene.ask(who, path).await;
                if who == owner || who == "pacs" {
                    assert_eq!(answer.status, 200, "{who} {path}: {}", answer.text());
                    continue;
                }
                let other = scene.ask(who, unknown).await;
                let said = (answer.status, answer.text());
                assert_eq!(said, (other.status, other.text()), "{who} {path}");
                let expected: &[u16] = if who == "silent" { &[403] } else { &[204, 404] };
                assert!(expected.contains(&answer.status), "{who} {path}: {}", answer.status);
                let names = |answer: &Answer| {
                    let names = answer.headers.iter().filter(|(name, _)| *name != "date");
                    names.map(|(name, value)| (name.to_string(), value.clone())).collect::<Vec<_>>()
                };
                assert_eq!(names(&answer), names(&other), "{who} {path}");
            }
        }
        // Nobody in particular: what everybody may have is what each of them has.
        let found = scene.ask("partner", "/studies").await.json();
        assert_eq!(found.as_array().unwrap().len(), 1);
    }
    let log = scene.gateway.log();
    assert!(!log.contains("panicked"), "{log}");
}

#[tokio::test]
async fn what_is_fetched_is_what_was_sent() {
    let scene = Scene::new().await;
    let study = scene.ct.study_instance_uid();
    let answer = scene.ask_for("partner", &format!("/studies/{study}"), AS_KEPT).await;

    let mut fetched = BTreeMap::new();
    for (kind, body) in parts(&answer) {
        let file = Part10::parse(&body).unwrap();
        assert_eq!(
            kind,
            format!("application/dicom; transfer-syntax={}", file.transfer_syntax_uid)
        );
        fetched.insert(file.sop_instance_uid.clone(), digest(&file.data_set));
    }
    assert_eq!(fetched, digests(&scene.ct));

    // One image alone, and its pixels by themselves.
    let image = &scene.ct.instances[0];
    let syntax: TransferSyntax = image.transfer_syntax_uid.parse().unwrap();
    let parsed = data_set::read(&syntax, &image.data_set).unwrap();
    let pixels = parsed.pixel_data.unwrap().value;
    let pixels = &image.data_set[pixels.start as usize..pixels.end as usize];
    let one = format!(
        "/studies/{study}/series/{}/instances/{}",
        image.series_instance_uid, image.sop_instance_uid
    );
    let alone = scene.ask_for("partner", &one, "application/dicom; transfer-syntax=*").await;
    assert_eq!(digest(&Part10::parse(&alone.body).unwrap().data_set), digest(&image.data_set));
    let frame = scene.ask_for("partner", &format!("{one}/frames/1"), as_octets()).await;
    assert_eq!(parts(&frame)[0].1, pixels);
    let frame =
        scene.ask_for("partner", &format!("{one}/frames/1"), "application/octet-stream").await;
    assert_eq!(frame.body, pixels);
    let bulk = Ask::get(&format!("/dicomweb{one}/bulkdata/7FE00010"))
        .header("authorization", &format!("Bearer {}", token("partner")))
        .header("accept", "application/octet-stream")
        .header("range", "bytes=100-199")
        .to(scene.address())
        .await
        .unwrap();
    assert_eq!((bulk.status, &*bulk.body), (206, &pixels[100..200]));
    assert_eq!(
        bulk.header("content-range"),
        Some(format!("bytes 100-199/{}", pixels.len()).as_str())
    );

    let metadata = scene.ask("partner", &format!("{one}/metadata")).await.json();
    let expected = text_of(&parsed.data_set, tags::PATIENT_ID);
    assert_eq!(metadata[0]["00100020"]["Value"][0], json!(expected));
    let uri = metadata[0]["7FE00010"]["BulkDataURI"].as_str().unwrap();
    assert_eq!(uri, format!("{}{one}/bulkdata/7FE00010", scene.gateway.dicomweb()));
    let xml = scene.ask_for("partner", &format!("{one}/metadata"), "application/dicom+xml").await;
    assert_eq!(xml.status, 406, "XML of PS3.18 comes in parts");
    let xml = "multipart/related; type=\"application/dicom+xml\"";
    let xml = parts(&scene.ask_for("partner", &format!("{one}/metadata"), xml).await);
    assert!(String::from_utf8_lossy(&xml[0].1).contains(&expected));
}

fn as_octets() -> &'static str {
    "multipart/related; type=\"application/octet-stream\""
}

fn text_of(set: &data_set::DataSet, tag: dicom_core::Tag) -> String {
    set.text(tag).unwrap()
}

#[tokio::test]
async fn a_search_is_answered_as_it_was_meant_or_refused() {
    let scene = Scene::new().await;
    let count = async |path: &str| -> usize {
        let answer = scene.ask("pacs", path).await;
        if answer.status == 204 { 0 } else { answer.json().as_array().unwrap().len() }
    };
    assert_eq!(count("/studies").await, 3);
    assert_eq!(count("/studies?limit=2").await, 2);
    assert_eq!(count("/studies?limit=2&offset=2").await, 1);
    assert_eq!(count("/studies?limit=0").await, 0);
    assert_eq!(count("/studies?ModalitiesInStudy=CR").await, 1);
    assert_eq!(count("/studies?StudyDate=19000101-19000102").await, 0);
    let uids = format!("{},{}", scene.ct.study_instance_uid(), scene.mr.study_instance_uid());
    assert_eq!(count(&format!("/studies?StudyInstanceUID={uids}")).await, 2);
    assert_eq!(count("/studies?PatientName=%25&fuzzymatching=false").await, 0);
    assert_eq!(count("/studies?PatientID='%20OR%201=1--").await, 0);

    let wadl = scene.ask("pacs", "/capabilities").await;
    assert_eq!(wadl.header("content-type"), Some("application/vnd.sun.wadl+xml"));
    assert!(wadl.text().contains(scene.gateway.dicomweb()));
    let fuzzy = scene.ask("pacs", "/studies?fuzzymatching=true").await;
    assert!(fuzzy.header("warning").unwrap().starts_with("299 http://127.0.0.1:"));
    let all = scene.ask("pacs", "/studies?includefield=all&ModalitiesInStudy=CT").await.json();
    for keyword in ["00081030", "00080061", "00201206", "00081190", "00080056"] {
        assert!(all[0].get(keyword).is_some(), "{keyword}: {all}");
    }
    let url = all[0]["00081190"]["Value"][0].as_str().unwrap();
    assert_eq!(
        url,
        format!("{}/studies/{}", scene.gateway.dicomweb(), scene.ct.study_instance_uid())
    );

    let long = format!("/studies?PatientID={}", "a".repeat(20_000));
    let many = format!("/studies?StudyInstanceUID={}", vec!["1.2.3"; 3000].join(","));
    let stars = format!("/studies?PatientName={}", "*a".repeat(200));
    let refused = [
        "/studies?StudyDate=20241301",
        "/studies?StudyDate=yesterday",
        "/studies?PatientName=%ZZ",
        "/studies?PatientName=%00",
        "/studies?NoSuchThing=1",
        "/studies?RequestAttributesSequence.ScheduledProcedureStepID=1",
        "/studies?PatientID=1&00100020=2",
        "/studies?limit=-1",
        "/studies?limit=99999999999999999999",
        "/studies/no-uid/series",
        &long,
        &many,
        &stars,
    ];
    for path in refused {
        let answer = scene.ask("pacs", path).await;
        let said = (answer.status, answer.header("content-type").unwrap_or_default());
        assert_eq!(
            said,
            (400, "application/problem+json"),
            "{} {}",
            &path[..40.min(path.len())],
            answer.text()
        );
    }
    // No value that somebody looked for is in the log.
    assert!(!scene.gateway.log().contains("yesterday"));
}

#[tokio::test]
async fn frames_that_are_not_there_are_said_not_to_be() {
    let scene = Scene::new().await;
    let image = &scene.ct.instances[0];
    let one = format!(
        "/studies/{}/series/{}/instances/{}",
        image.study_instance_uid, image.series_instance_uid, image.sop_instance_uid
    );
    let million = (1..=1_000_000).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    let cases: [(&str, u16); 9] = [
        ("0", 404),
        ("2", 404),
        ("4294967296", 404),
        ("-1", 404),
        ("1,1", 400),
        ("", 404),
        ("one", 400),
        ("1,,2", 400),
        ("..%2F1", 400),
    ];
    for (list, status) in cases {
        let answer = scene.ask("partner", &format!("{one}/frames/{list}")).await;
        assert_eq!(answer.status, status, "frames {list}: {}", answer.text());
    }
    let answer = scene.ask("partner", &format!("{one}/frames/{}", &million[..60_000])).await;
    assert!([400, 404].contains(&answer.status), "{}", answer.status);
    for (place, status) in [("7FE00011", 404), ("zzz", 400), ("00100010/1/00100020", 404)] {
        let answer = scene.ask("partner", &format!("{one}/bulkdata/{place}")).await;
        assert_eq!(answer.status, status, "{place}: {}", answer.text());
    }
    for accept in
        ["text/html", "image/jls", "application/dicom; transfer-syntax=1.2.840.10008.1.2.4.999"]
    {
        let answer = scene.ask_for("partner", &one, accept).await;
        assert_eq!(answer.status, 406, "{accept}");
    }
}

#[tokio::test]
async fn a_stranger_is_told_nothing() {
    let scene = Scene::new().await;
    let study = format!("/dicomweb/studies/{}", scene.ct.study_instance_uid());
    let wrong = ["", "Bearer", "Bearer wrong", "Basic cGFydG5lcg==", "Bearer partner"];
    let mut said = Vec::new();
    for credentials in wrong {
        for path in [study.as_str(), "/dicomweb/studies", "/dicomweb/nothing", "/"] {
            let mut ask = Ask::get(path);
            if !credentials.is_empty() {
                ask = ask.header("authorization", credentials);
            }
            let answer = ask.to(scene.address()).await.unwrap();
            assert_eq!(answer.header("www-authenticate"), Some("Bearer realm=\"DICOMweb\""));
            said.push((answer.status, answer.text()));
        }
    }
    assert!(said.iter().all(|one| one.0 == 401 && *one == said[0]), "{said:?}");
    // The pages are not here, and DICOMweb is not there.
    let pages = scene.ask("pacs", "/../api/v1/status").await;
    assert_eq!(pages.status, 404);
    let there =
        Ask::get("/dicomweb/studies").header("authorization", &format!("Bearer {}", token("pacs")));
    assert_ne!(there.to(scene.gateway.web()).await.unwrap().status, 200);

    // A page of an origin that is listed may read; another's may not, and may send nothing.
    let from = async |origin: &str| {
        let ask = Ask::get("/dicomweb/studies")
            .header("authorization", &format!("Bearer {}", token("partner")))
            .origin(origin);
        let answer = ask.to(scene.address()).await.unwrap();
        answer.header("access-control-allow-origin").map(str::to_owned)
    };
    assert_eq!(from("https://viewer.example").await.as_deref(), Some("https://viewer.example"));
    assert_eq!(from("https://evil.example").await, None);
}

#[tokio::test]
async fn a_certificate_opens_what_its_owner_may_see() {
    let certificates = Arc::new(Certificates::new());
    let (york, leeds) = (certificates.issue("york"), certificates.issue("leeds"));
    let partner = Dcmtk::storescp("YORK").start().await;
    let gateway = Setup::new()
        .tls(&certificates)
        .dicomweb("tls = \"on\"")
        .source("pacs", "PACS")
        .partner("plain", "PLAIN", partner.port())
        .partner_over_tls("york", "YORK", partner.port(), &york)
        .and(MAY)
        .route("TO_YORK", &["york"], "routine")
        .start()
        .await;
    let study = HeadCt::small(75).build();
    send(&gateway, "TO_YORK", &study).await;
    let url = format!("{}/studies", gateway.dicomweb());
    let ask = async |identity: Option<&gantry_tests::Identity>| {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--write-out", "\n%{http_code}", "--cacert"]);
        command.arg(certificates.authority()).arg(&url);
        if let Some(identity) = identity {
            command.arg("--cert").arg(&identity.certificate).arg("--key").arg(&identity.key);
        }
        let output = command.output().await.unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    gateway.stored(study.len()).await;

    let (own, others, none) = (ask(Some(&york)).await, ask(Some(&leeds)).await, ask(None).await);

    assert!(own.ends_with("\n200") && own.contains(study.study_instance_uid()), "{own}");
    assert!(others.ends_with("\n401") && none.ends_with("\n401"), "{others} {none}");
}

#[tokio::test]
async fn pythons_dicomweb_client_finds_and_fetches() {
    let scene = Scene::new().await;
    let study = scene.ct.study_instance_uid();
    let output = python(include_str!("../src/dicomweb.py"))
        .args([scene.gateway.dicomweb(), &token("partner"), study])
        .output()
        .await
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{errors}"));

    let pixels: BTreeMap<String, String> = scene
        .ct
        .instances
        .iter()
        .map(|image| {
            let syntax: TransferSyntax = image.transfer_syntax_uid.parse().unwrap();
            let value = data_set::read(&syntax, &image.data_set).unwrap().pixel_data.unwrap().value;
            let value = &image.data_set[value.start as usize..value.end as usize];
            (image.sop_instance_uid.clone(), digest(value))
        })
        .collect();
    assert_eq!(said["studies"], json!([study]));
    assert_eq!(said["pixels"], json!(pixels));
    assert_eq!(said["metadata"], json!(pixels.keys().collect::<Vec<_>>()));
    assert_eq!(said["instances"], json!(pixels.len()));
    let uid = said["uid"].as_str().unwrap();
    for way in ["frame", "one", "bulk"] {
        assert_eq!(said[way], json!(pixels[uid]), "{way}");
    }
}

/// The instance as a file (PS3.10), as `gantry` itself writes heads.
fn file(image: &sample_studies::Instance) -> Vec<u8> {
    let mut file = gantry_gateway::web::part10::head(&FileMeta {
        transfer_syntax: image.transfer_syntax_uid.parse().unwrap(),
        sop_class: Some(image.sop_class_uid.parse().unwrap()),
        sop_instance: Some(image.sop_instance_uid.parse().unwrap()),
    });
    file.extend_from_slice(&image.data_set);
    file
}

/// A body of these parts, with their media types, and its Content-Type.
fn multipart(parts: &[(&str, &[u8])]) -> (String, Vec<u8>) {
    let boundary = Boundary::random(7);
    let kind = boundary.content_type("application/dicom");
    let (mut body, mut writer) = (Vec::new(), Writer::new(boundary));
    for (kind, part) in parts {
        writer.part(&[("Content-Type", kind)], &mut body);
        body.extend_from_slice(part);
    }
    writer.end(&mut body);
    (kind, body)
}

impl Scene {
    async fn store(&self, who: &str, path: &str, kind: &str, body: &[u8]) -> Answer {
        Ask::post(&format!("/dicomweb{path}"))
            .header("authorization", &format!("Bearer {}", token(who)))
            .body(kind, body)
            .to(self.address())
            .await
            .unwrap()
    }
}

const DICOM: &str = "application/dicom";
const FAILED: &str = "00081198";
const STORED: &str = "00081199";
const OTHERS: &str = "0008119A";

#[tokio::test]
async fn what_is_stored_over_http_goes_as_if_it_came_on_an_association() {
    let scene = Scene::new().await;
    let study = small_objects(91, 30);
    let files: Vec<_> = study.instances.iter().map(file).collect();
    let before = usize::try_from(scene.gateway.instances().await).unwrap();
    let parts: Vec<_> = files.iter().map(|file| (DICOM, file.as_slice())).collect();
    let (kind, body) = multipart(&parts);

    let answer = scene.store("ct", "/studies", &kind, &body).await;

    let said = answer.json();
    assert_eq!(answer.status, 200);
    assert_eq!(said[STORED]["Value"].as_array().unwrap().len(), study.len(), "{said}");
    assert!(said.get(FAILED).is_none() && said.get(OTHERS).is_none(), "{said}");
    scene.gateway.stored(before + study.len()).await;
    // Who stored it may fetch it, where the answer says, and finds each byte.
    let url = said[STORED]["Value"][0]["00081190"]["Value"][0].as_str().unwrap();
    let path = url.strip_prefix(scene.gateway.dicomweb()).unwrap();
    let one = scene.ask_for("ct", path, "application/dicom; transfer-syntax=*").await;
    assert_eq!(one.body, files[0].as_slice());
    let path = format!("/studies/{}", study.study_instance_uid());
    let all = parts_of(&scene.ask_for("ct", &path, AS_KEPT).await);
    assert_eq!(all, digests(&study));
    assert_eq!(scene.ask("partner", &path).await.status, 404);
    // One alone needs no parts, and the same again is no second one.
    let answer = scene.store("ct", "/studies", DICOM, &files[0]).await;
    assert_eq!((answer.status, answer.json()[STORED]["Value"].as_array().unwrap().len()), (200, 1));
}

const AS_KEPT: &str = "multipart/related; type=\"application/dicom\"; transfer-syntax=*";

fn parts_of(answer: &Answer) -> BTreeMap<String, String> {
    let files = parts(answer).into_iter().map(|(_, body)| Part10::parse(&body).unwrap());
    files.map(|file| (file.sop_instance_uid.clone(), digest(&file.data_set))).collect()
}

#[tokio::test]
async fn what_cannot_be_stored_is_said_one_by_one_and_holds_nothing_up() {
    let scene = Scene::new().await;
    let study = small_objects(92, 4);
    let files: Vec<_> = study.instances.iter().map(file).collect();
    let other = file(&small_objects(93, 1).instances[0]);
    let cut = &files[1][..files[1].len() - 11];
    let (kind, body) = multipart(&[
        (DICOM, &files[0]),
        (DICOM, cut),
        (DICOM, b"not a file"),
        ("text/plain", b"hello"),
        (DICOM, &other),
        (DICOM, &files[2]),
    ]);

    let path = format!("/studies/{}", study.study_instance_uid());
    let answer = scene.store("ct", &path, &kind, &body).await;

    let said = answer.json();
    let count = |sequence: &str| said[sequence]["Value"].as_array().map_or(0, Vec::len);
    assert_eq!(
        (answer.status, count(STORED), count(FAILED), count(OTHERS)),
        (202, 2, 2, 2),
        "{said}"
    );
    let reasons: Vec<_> = said[FAILED]["Value"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["00081197"]["Value"][0].as_u64().unwrap())
        .collect();
    assert_eq!(reasons, [0xC000, 0xA900], "{said}");

    let refused = [
        (DICOM, &b"nothing"[..], 409),
        ("multipart/related; type=\"application/dicom\"", &body, 400),
        ("multipart/related; type=\"application/dicom\"; boundary=\"other\"", &body, 400),
        ("multipart/related; type=\"application/dicom+json\"; boundary=x", &body, 415),
        ("application/json", &body, 415),
        ("multipart/related; boundary=\"\"", &body, 400),
        (kind.as_str(), b"", 400),
        // Cut within the second: the first is stored, and that is said.
        (kind.as_str(), &body[..files[0].len() + 600], 202),
    ];
    for (kind, body, status) in refused {
        let answer = scene.store("ct", "/studies", kind, body).await;
        assert_eq!(answer.status, status, "{kind}: {}", answer.text());
    }
    let zipped = Ask::post("/dicomweb/studies")
        .header("authorization", &format!("Bearer {}", token("ct")))
        .header("content-encoding", "gzip")
        .body(&kind, &body);
    assert_eq!(zipped.to(scene.address()).await.unwrap().status, 415);
    // A partner without "send" stores nothing.
    assert_eq!(scene.store("partner", "/studies", &kind, &body).await.status, 403);
    // A page of an origin that is not listed, in a browser with a certificate.
    let page = Ask::post("/dicomweb/studies")
        .header("authorization", &format!("Bearer {}", token("ct")))
        .origin("https://evil.example")
        .body(&kind, &body);
    assert_eq!(page.to(scene.address()).await.unwrap().status, 403);

    // So many parts that nobody reads them all.
    let empty: Vec<_> = (0..30_000).map(|_| ("text/plain", &b"x"[..])).collect();
    let (kind, body) = multipart(&empty);
    assert_eq!(scene.store("ct", "/studies", &kind, &body).await.status, 409);
    let whole = scene.store("ct", "/studies", DICOM, &files[3]).await;
    assert_eq!(whole.status, 200, "others are not affected");
}

/// Grey levels, row by row, of a PNM that DCMTK wrote.
fn pnm(bytes: &[u8]) -> Vec<u8> {
    // Magic, width, height, greatest value; then the pixels.
    let mut rest = bytes;
    let mut words = Vec::new();
    while words.len() < 4 {
        if rest[0] == b'#' {
            rest = &rest[rest.iter().position(|byte| *byte == b'\n').unwrap() + 1..];
            continue;
        }
        let end = rest.iter().position(u8::is_ascii_whitespace).unwrap();
        words.push(String::from_utf8_lossy(&rest[..end]).into_owned());
        rest = &rest[end + 1..];
    }
    assert!(["P5", "P6"].contains(&words[0].as_str()) && words[3] == "255", "{words:?}");
    rest.to_vec()
}

#[tokio::test]
async fn a_rendered_image_looks_as_dcmtk_renders_it() {
    let scene = Scene::new().await;
    let folder = tempfile::tempdir().unwrap();
    for study in [&scene.ct, &scene.mr, &scene.cr] {
        let image = &study.instances[study.len() / 2];
        let one = format!(
            "/studies/{}/series/{}/instances/{}",
            image.study_instance_uid, image.series_instance_uid, image.sop_instance_uid
        );
        let input = folder.path().join("image.dcm");
        std::fs::write(&input, file(image)).unwrap();
        for (query, options) in [
            ("", &["+Wi", "1"][..]),
            ("?window=40,400,linear", &["+Ww", "40", "400"]),
            ("?window=300,1000,sigmoid", &["+Wfs", "+Ww", "300", "1000"]),
        ] {
            let answer =
                scene.ask_for("pacs", &format!("{one}/rendered{query}"), "image/png").await;
            let kind = answer.header("content-type").map(str::to_owned);
            assert_eq!(
                (answer.status, kind.as_deref()),
                (200, Some("image/png")),
                "{}",
                answer.text()
            );
            let ours = image::load_from_memory(&answer.body).unwrap();
            let output = folder.path().join("image.pnm");
            let mut command = Command::new("dcmj2pnm");
            command.args(["--write-raw-pnm"]).args(options).arg(&input).arg(&output);
            let made = command.output().await.unwrap();
            let said = String::from_utf8_lossy(&made.stderr).into_owned();
            assert!(made.status.success(), "{} {options:?}: {said}", image.modality);
            let theirs = pnm(&std::fs::read(&output).unwrap());
            assert_eq!(ours.as_bytes().len(), theirs.len());
            let worst =
                ours.as_bytes().iter().zip(&theirs).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
            assert!(worst <= 1, "{} {query}: {worst} grey levels apart", image.modality);
        }
        let uri = format!(
            "/wado?requestType=WADO&studyUID={}&seriesUID={}&objectUID={}",
            image.study_instance_uid, image.series_instance_uid, image.sop_instance_uid
        );
        let kept = scene
            .ask("pacs", &format!("{uri}&contentType=application%2Fdicom&transferSyntax=*"))
            .await;
        assert_eq!(digest(&Part10::parse(&kept.body).unwrap().data_set), digest(&image.data_set));
        let shown =
            scene.ask("pacs", &format!("{uri}&rows=50&windowCenter=40&windowWidth=80")).await;
        assert_eq!(shown.header("content-type"), Some("image/jpeg"));
        assert_eq!(image::load_from_memory(&shown.body).unwrap().height(), 50);
        for (more, status) in [("&anonymize=yes", 400), ("&rows=0", 400), ("&frameNumber=9", 404)] {
            assert_eq!(scene.ask("pacs", &format!("{uri}{more}")).await.status, status, "{more}");
        }
        let small = scene.ask("pacs", &format!("{one}/thumbnail")).await;
        assert_eq!(small.header("content-type"), Some("image/jpeg"));
        let small = image::load_from_memory(&small.body).unwrap();
        assert!(small.width().max(small.height()) == 128, "{}", small.width());
        for path in [
            format!("{one}/frames/1/rendered"),
            format!("{one}/frames/1/thumbnail"),
            format!("/studies/{}/thumbnail", image.study_instance_uid),
            format!(
                "/studies/{}/series/{}/thumbnail",
                image.study_instance_uid, image.series_instance_uid
            ),
        ] {
            assert_eq!(scene.ask("pacs", &path).await.status, 200, "{path}");
        }
        for (path, status) in [
            ("frames/2/rendered", 404),
            ("frames/0/rendered", 404),
            ("rendered?window=1", 400),
            ("rendered?viewport=1,1,999999,0,1,1", 400),
            ("rendered?annotation=patient", 400),
        ] {
            assert_eq!(scene.ask("pacs", &format!("{one}/{path}")).await.status, status, "{path}");
        }
        assert_eq!(
            scene.ask_for("pacs", &format!("{one}/rendered"), "image/gif").await.status,
            406
        );
    }
}
