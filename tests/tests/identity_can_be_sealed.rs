//! An identity that was sealed is opened by whoever may, with whatever program: what is sealed here is opened by OpenSSL and by
//! GDCM, what they sealed is opened here, and nothing is recovered without a record.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)] // a panic is how a test fails

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;
use gantry_deidentify::data_set::{self, DataSet, Element, Form, Parsed, Value};
use gantry_deidentify::seal::encrypted_attributes::protect_repeatably;
use gantry_deidentify::seal::{Certificate, OpenError, PrivateKey, Recipient, envelope};
use gantry_store::dicom::TransferSyntax;
use gantry_tests::gateway::program;
use gantry_tests::{Dcmtk, Gateway, Part10, Sender};
use jiff::Timestamp;
use sample_studies::{Instance, ct_series, part10_header, small_objects};
use serde_json::Value as Json;
use tempfile::TempDir;

/// Somebody with a certificate, made by OpenSSL.
struct Party {
    certificate: PathBuf,
    key: PathBuf,
}

impl Party {
    fn new(folder: &Path, name: &str) -> Self {
        let (certificate, key) =
            (folder.join(format!("{name}.crt")), folder.join(format!("{name}.key")));
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "rsa:3072", "-nodes", "-days", "30", "-subj"])
            .arg(format!("/O=Test trust/CN={name}"))
            .args(["-out".as_ref(), certificate.as_os_str(), "-keyout".as_ref(), key.as_os_str()])
            .output()
            .expect("openssl runs");
        assert_success(&made);
        Self { certificate, key }
    }

    fn certificate(&self) -> Certificate {
        Certificate::from_pem_or_der(&fs::read(&self.certificate).unwrap()).unwrap().remove(0)
    }

    fn recipient(&self) -> Recipient {
        Recipient::new(self.certificate(), Timestamp::now()).unwrap()
    }

    fn private_key(&self) -> PrivateKey {
        PrivateKey::from_pem(&fs::read(&self.key).unwrap(), None).unwrap()
    }

    fn with_certificate(&self) -> PrivateKey {
        self.private_key().with_certificate(self.certificate()).unwrap()
    }
}

fn assert_success(output: &Output) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
}

fn openssl_cms(arguments: &[&str], files: &[&Path]) -> Output {
    let mut command = Command::new("openssl");
    command.arg("cms").args(arguments).args(files);
    command.output().expect("openssl runs")
}

fn gdcmanon(party: &Party, direction: &str, from: &Path, to: &Path) {
    let output = Command::new("gdcmanon")
        .arg(direction)
        .arg("-c")
        .arg(&party.certificate)
        .arg("-k")
        .arg(&party.key)
        .args([from, to])
        .output()
        .expect("gdcmanon runs");
    assert_success(&output);
}

fn gantry(arguments: &[&str]) -> Output {
    Command::new(program()).args(arguments).output().expect("the program runs")
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn read(path: &Path) -> (Parsed, Vec<u8>) {
    let file = Part10::read(path).unwrap();
    let syntax: TransferSyntax = file.transfer_syntax_uid.parse().unwrap();
    (data_set::read(&syntax, &file.data_set).unwrap(), file.data_set)
}

fn pixels(path: &Path) -> Vec<u8> {
    let (parsed, bytes) = read(path);
    let value = parsed.pixel_data.unwrap().value;
    bytes[value.start as usize..value.end as usize].to_vec()
}

/// What an identity is in a CT.
const IDENTITY: [Tag; 8] = [
    tags::SOP_INSTANCE_UID,
    tags::STUDY_INSTANCE_UID,
    tags::SERIES_INSTANCE_UID,
    tags::PATIENT_NAME,
    tags::PATIENT_ID,
    tags::PATIENT_BIRTH_DATE,
    tags::ACCESSION_NUMBER,
    tags::STUDY_DATE,
];

/// A file whose identity was taken out and sealed for these.
fn protect(instance: &Instance, recipients: &[Recipient], path: &Path) {
    let syntax: TransferSyntax = instance.transfer_syntax_uid.parse().unwrap();
    let parsed = data_set::read(&syntax, &instance.data_set).unwrap();
    let mut object = parsed.data_set;
    let mut originals = DataSet::default();
    for tag in IDENTITY {
        originals.put(object.get(tag).unwrap().clone());
        let vr = data_set::dictionary_vr(tag);
        let value = match tag {
            tags::SOP_INSTANCE_UID => "2.25.1",
            tags::STUDY_INSTANCE_UID => "2.25.2",
            tags::SERIES_INSTANCE_UID => "2.25.3",
            _ => "",
        };
        object.put(Element::new(tag, vr, value));
    }
    let character_set = object.bytes(tags::SPECIFIC_CHARACTER_SET);
    let sealed = protect_repeatably(&originals, character_set, recipients, &[5; 32]).unwrap();
    object.put(sealed);
    object.put(Element::new(tags::PATIENT_IDENTITY_REMOVED, VR::CS, "YES"));
    object.put(Element::new(tags::DEIDENTIFICATION_METHOD, VR::LO, "test"));

    let mut file = part10_header(&instance.sop_class_uid, "2.25.1", &instance.transfer_syntax_uid);
    object.write(parsed.form, &mut file);
    let span = parsed.pixel_data.unwrap().span;
    file.extend_from_slice(&instance.data_set[span.start as usize..span.end as usize]);
    fs::write(path, file).unwrap();
}

/// The only message in a file's Encrypted Attributes Sequence.
fn message(path: &Path) -> Vec<u8> {
    let (parsed, _) = read(path);
    let items = parsed.data_set.items(tags::ENCRYPTED_ATTRIBUTES_SEQUENCE);
    assert_eq!(items.len(), 1);
    match &items[0].get(tags::ENCRYPTED_CONTENT).unwrap().value {
        Value::Bytes(message) => message.clone(),
        other => panic!("{other:?}"),
    }
}

fn one_ct() -> Instance {
    ct_series(11, 1).instances.remove(0)
}

#[test]
fn what_gdcm_sealed_is_recovered() {
    let place = tempfile::tempdir().unwrap();
    let party = Party::new(place.path(), "ig-lead");
    let (original, sealed) = (place.path().join("original.dcm"), place.path().join("sealed.dcm"));
    fs::write(&original, one_ct().part10()).unwrap();
    for cipher in ["--aes128", "--aes192", "--aes256", "--des3"] {
        let output = Command::new("gdcmanon")
            .args(["-e", cipher, "-c"])
            .arg(&party.certificate)
            .args([&original, &sealed])
            .output()
            .expect("gdcmanon runs");
        assert_success(&output);
        let (before, _) = read(&sealed);
        assert_ne!(
            before.data_set.get(tags::PATIENT_NAME),
            read(&original).0.data_set.get(tags::PATIENT_NAME)
        );
        let to = place.path().join(format!("recovered{cipher}"));

        let output = gantry(&[
            "deid",
            "recover",
            text(&sealed),
            "--key",
            text(&party.key),
            "--certificate",
            text(&party.certificate),
            "--to",
            text(&to),
            "--reason",
            "a test",
        ]);

        assert_success(&output);
        let recovered = to.join("sealed.dcm");
        let ((expected, _), (found, _)) = (read(&original), read(&recovered));
        for tag in IDENTITY {
            let bytes = |set: &DataSet| set.bytes(tag).map(<[u8]>::to_vec);
            assert_eq!(bytes(&found.data_set), bytes(&expected.data_set), "{tag} with {cipher}");
        }
        assert_eq!(found.data_set.text(tags::PATIENT_IDENTITY_REMOVED).as_deref(), Some("NO"));
        assert!(found.data_set.get(tags::ENCRYPTED_ATTRIBUTES_SEQUENCE).is_none());
        assert_eq!(pixels(&recovered), pixels(&original));
        let file = Part10::read(&recovered).unwrap();
        assert_eq!(file.sop_instance_uid, one_ct().sop_instance_uid);
    }
}

#[test]
fn what_is_sealed_here_is_recovered_by_gdcm_and_opened_by_openssl() {
    let place = tempfile::tempdir().unwrap();
    let (lead, escrow) = (Party::new(place.path(), "ig-lead"), Party::new(place.path(), "escrow"));
    let (instance, sealed) = (one_ct(), place.path().join("sealed.dcm"));
    protect(&instance, &[lead.recipient(), escrow.recipient()], &sealed);
    let original = place.path().join("original.dcm");
    fs::write(&original, instance.part10()).unwrap();
    let block = place.path().join("block.der");
    fs::write(&block, message(&sealed)).unwrap();
    for party in [&lead, &escrow] {
        let recovered = place.path().join("by-gdcm.dcm");
        gdcmanon(party, "-d", &sealed, &recovered);
        let ((expected, _), (found, _)) = (read(&original), read(&recovered));
        for tag in IDENTITY {
            let bytes = |set: &DataSet| set.bytes(tag).map(<[u8]>::to_vec);
            assert_eq!(bytes(&found.data_set), bytes(&expected.data_set), "{tag}");
        }
        assert_eq!(pixels(&recovered), pixels(&original));

        let opened = openssl_cms(
            &[
                "-decrypt",
                "-inform",
                "DER",
                "-binary",
                "-in",
                text(&block),
                "-recip",
                text(&party.certificate),
                "-inkey",
                text(&party.key),
            ],
            &[],
        );
        assert_success(&opened);
        let syntax = TransferSyntax::explicit_vr_little_endian();
        let plain = data_set::read(&syntax, &opened.stdout).unwrap().data_set;
        let items = plain.items(tags::MODIFIED_ATTRIBUTES_SEQUENCE);
        assert_eq!(items.len(), 1);
        assert_eq!(items[0].elements.len(), IDENTITY.len());
        assert_eq!(items[0].get(tags::PATIENT_NAME), expected.data_set.get(tags::PATIENT_NAME));
    }
}

#[test]
fn what_openssl_sealed_is_opened_however_it_did_that() {
    let place = tempfile::tempdir().unwrap();
    let (lead, escrow) = (Party::new(place.path(), "ig-lead"), Party::new(place.path(), "escrow"));
    let stranger = Party::new(place.path(), "stranger");
    let plaintext: Vec<u8> = (0..5000_u32).map(|at| (at * at) as u8).collect();
    let (plain, sealed) = (place.path().join("plain"), place.path().join("sealed"));
    fs::write(&plain, &plaintext).unwrap();
    let both = [lead.certificate.as_path(), escrow.certificate.as_path()];
    let swapped = [both[1], both[0]];
    let cases: [(&[&str], &[&Path]); 13] = [
        (&["-aes128"], &both[..1]),
        (&["-aes192"], &both[..1]),
        (&["-aes256"], &both[..1]),
        (&["-des3"], &both[..1]),
        (&["-aes256", "-keyid"], &both[..1]),
        (&["-aes256"], &both),
        (&["-aes256"], &swapped),
        (&["-aes256", "-keyid"], &swapped),
        (&["-aes256", "-stream"], &both[..1]),
        (&["-aes128", "-stream"], &swapped),
        (&["-des3", "-stream", "-keyid"], &both),
        (&["-aes256", "-recip", text(&lead.certificate), "-keyopt", "rsa_padding_mode:oaep"], &[]),
        (
            &[
                "-aes256",
                "-recip",
                text(&lead.certificate),
                "-keyopt",
                "rsa_padding_mode:oaep",
                "-keyopt",
                "rsa_oaep_md:sha256",
            ],
            &[],
        ),
    ];
    for (options, recipients) in cases {
        let begin =
            ["-encrypt", "-binary", "-outform", "DER", "-in", text(&plain), "-out", text(&sealed)];
        assert_success(&openssl_cms(&[&begin, options].concat(), recipients));
        let mut message = fs::read(&sealed).unwrap();
        // As the value of an element, which has an even length.
        message.resize(message.len().next_multiple_of(2), 0);

        let may = if recipients.len() == 2 { vec![&lead, &escrow] } else { vec![&lead] };
        for party in may {
            for key in [party.private_key(), party.with_certificate()] {
                let opened = envelope::open(&message, &key);
                assert_eq!(
                    &*opened.unwrap_or_else(|error| panic!("{options:?}: {error}")),
                    &plaintext
                );
            }
        }
        let refused = envelope::open(&message, &stranger.with_certificate()).unwrap_err();
        assert!(matches!(refused, OpenError::NotAddressed), "{options:?}: {refused}");
        let refused = envelope::open(&message, &stranger.private_key()).unwrap_err();
        assert!(matches!(refused, OpenError::CannotOpen), "{options:?}: {refused}");
    }
    let gcm = [
        "-encrypt",
        "-binary",
        "-outform",
        "DER",
        "-in",
        text(&plain),
        "-out",
        text(&sealed),
        "-aes-256-gcm",
    ];
    assert_success(&openssl_cms(&gcm, &both[..1]));
    let refused = envelope::open(&fs::read(&sealed).unwrap(), &lead.private_key()).unwrap_err();
    assert!(matches!(refused, OpenError::NotEnveloped(_)), "{refused}");
}

fn json(output: &Output) -> Json {
    let said = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no JSON: {said}"))
}

/// Two protected files and one that is none, in a folder.
fn protected_folder(place: &TempDir, party: &Party) -> PathBuf {
    let folder = place.path().join("study");
    fs::create_dir_all(folder.join("series")).unwrap();
    for (at, instance) in ct_series(11, 2).instances.iter().enumerate() {
        let path = folder.join(format!("series/{at}.dcm"));
        protect(instance, &[party.recipient()], &path);
    }
    fs::write(folder.join("notes.txt"), "not DICOM").unwrap();
    folder
}

#[test]
fn recovery_is_on_record_and_overwrites_nothing() {
    let place = tempfile::tempdir().unwrap();
    let party = Party::new(place.path(), "ig-lead");
    let (folder, to) = (protected_folder(&place, &party), place.path().join("recovered"));
    let arguments = [
        "deid",
        "recover",
        "--json",
        text(&folder),
        "--key",
        text(&party.key),
        "--to",
        text(&to),
        "--reason",
        "incidental finding",
    ];

    let output = gantry(&arguments);

    assert_success(&output);
    let report = json(&output);
    assert_eq!((&report["recovered"], &report["others"]), (&2.into(), &1.into()), "{report}");
    let names: Vec<_> = ct_series(11, 2)
        .instances
        .iter()
        .enumerate()
        .map(|(at, instance)| {
            let path = to.join(format!("series/{at}.dcm"));
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            // All that was not marked is as it was; the whole data set but for the marks is the original's.
            let (mut recovered, _) = read(&path);
            recovered
                .data_set
                .elements
                .retain(|element| element.tag != tags::PATIENT_IDENTITY_REMOVED);
            let syntax: TransferSyntax = instance.transfer_syntax_uid.parse().unwrap();
            let original = data_set::read(&syntax, &instance.data_set).unwrap();
            assert_eq!(recovered.data_set, original.data_set);
            original.data_set.text(tags::PATIENT_NAME).unwrap()
        })
        .collect();

    let log = fs::read_to_string(to.join("recovered.log")).unwrap();
    let lines: Vec<Json> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!((&lines[0]["event"], &lines[1]["event"]), (&"begun".into(), &"ended".into()));
    for line in &lines {
        assert_eq!(line["reason"], "incidental finding");
        assert!(line["user"]["uid"].is_u64() && line["at"].is_string(), "{line}");
    }
    assert_eq!(lines[1]["outcome"]["recovered"], serde_json::json!(["2.25.1", "2.25.1"]));
    assert!(!log.contains(&names[0]), "the record names a patient");

    let before = fs::metadata(to.join("series/0.dcm")).unwrap().modified().unwrap();
    let again = gantry(&arguments);
    assert_eq!(again.status.code(), Some(1));
    assert_eq!(json(&again)["failed"].as_array().unwrap().len(), 2);
    assert_eq!(fs::metadata(to.join("series/0.dcm")).unwrap().modified().unwrap(), before);
    let forced = gantry(&[&arguments[..], &["--force"]].concat());
    assert_success(&forced);
    let log = fs::read_to_string(to.join("recovered.log")).unwrap();
    assert_eq!(log.lines().count(), 6);
}

#[test]
fn nothing_is_recovered_without_a_reason_or_with_another_key() {
    let place = tempfile::tempdir().unwrap();
    let (party, stranger) =
        (Party::new(place.path(), "ig-lead"), Party::new(place.path(), "stranger"));
    let (folder, to) = (protected_folder(&place, &party), place.path().join("recovered"));
    let with = |key: &Path, more: &[&str]| {
        gantry(
            &[&["deid", "recover", text(&folder), "--key", text(key), "--to", text(&to)], more]
                .concat(),
        )
    };

    assert_eq!(with(&party.key, &[]).status.code(), Some(2));
    assert_eq!(with(&party.key, &["--reason", " "]).status.code(), Some(2));
    assert_eq!(with(&party.certificate, &["--reason", "a test"]).status.code(), Some(2));
    assert!(!to.exists());
    let refused = with(&stranger.key, &["--reason", "a test"]);
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("this key does not open it"), "{said}");
    assert!(!to.join("series").exists(), "nothing but the record is written");

    // One file of somebody else's among those that can be recovered.
    protect(&one_ct(), &[stranger.recipient()], &folder.join("series/2.dcm"));
    let partly = with(&party.key, &["--reason", "a test"]);
    assert_eq!(partly.status.code(), Some(6));
    assert!(to.join("series/1.dcm").exists() && !to.join("series/2.dcm").exists());
}

#[test]
fn a_derived_object_gets_its_patient_back_and_keeps_its_own_uids() {
    let place = tempfile::tempdir().unwrap();
    let party = Party::new(place.path(), "ig-lead");
    let (sealed, to) = (place.path().join("sealed.dcm"), place.path().join("recovered"));
    let instance = one_ct();
    protect(&instance, &[party.recipient()], &sealed);

    let output = gantry(&[
        "deid",
        "recover",
        text(&sealed),
        "--key",
        text(&party.key),
        "--to",
        text(&to),
        "--reason",
        "a test",
        "--keep-uids",
    ]);

    assert_success(&output);
    let (recovered, _) = read(&to.join("sealed.dcm"));
    let text = |tag| recovered.data_set.text(tag).unwrap();
    assert_eq!(
        (text(tags::SOP_INSTANCE_UID), text(tags::SERIES_INSTANCE_UID)),
        ("2.25.1".to_owned(), "2.25.3".to_owned())
    );
    assert_eq!(text(tags::STUDY_INSTANCE_UID), instance.study_instance_uid);
    let syntax: TransferSyntax = instance.transfer_syntax_uid.parse().unwrap();
    let original = data_set::read(&syntax, &instance.data_set).unwrap().data_set;
    assert_eq!(recovered.data_set.get(tags::PATIENT_NAME), original.get(tags::PATIENT_NAME));
    assert_eq!(recovered.form, Form::Explicit);
}

#[tokio::test]
async fn an_export_is_encrypted_to_a_certificate_and_opened_by_openssl_and_here() {
    let place = tempfile::tempdir().unwrap();
    let party = Party::new(place.path(), "york");
    let clinic = Dcmtk::storescp("CLINIC").start().await;
    let gateway = Gateway::forwarding_to(&clinic).start().await;
    let study = small_objects(5, 3);
    let mut sender = Sender::connect(gateway.plaintext(), &study.instances).await.unwrap();
    sender.store_all(&study.instances).await;
    sender.release().await;
    gateway.stored(study.len()).await;
    let export = async |into: &str, more: &[&str]| {
        let into = place.path().join(into);
        let begin =
            ["study", "export", study.study_instance_uid(), "--json", "--into", text(&into)];
        let output = gateway.command(&[&begin, more].concat()).await;
        (into, output)
    };
    let (plain, output) = export("plain", &[]).await;
    assert_success(&output);

    for (name, more) in [("sealed", &[][..]), ("digested", &["--digest"][..])] {
        let to = [&["--encrypt-to", text(&party.certificate)], more].concat();
        let (sealed, output) = export(name, &to).await;
        assert_success(&output);
        assert_eq!(json(&output)["encrypted_to"].as_array().unwrap().len(), 1);
        let decrypted = place.path().join(format!("{name}-decrypted"));
        let output = gantry(&[
            "deid",
            "decrypt",
            text(&sealed),
            "--key",
            text(&party.key),
            "--to",
            text(&decrypted),
            "--json",
        ]);
        assert_success(&output);
        assert_eq!(json(&output)["verified"], if more.is_empty() { 0 } else { 3 });

        let mut files: Vec<_> =
            fs::read_dir(&plain).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert_eq!(files.len(), 3);
        assert_eq!(fs::read_dir(&sealed).unwrap().count(), 3);
        for file in files {
            let name = file.file_name().unwrap().to_str().unwrap();
            let (expected, there) = (fs::read(&file).unwrap(), sealed.join(format!("{name}.p7m")));
            assert_eq!(fs::read(decrypted.join(name)).unwrap(), expected);
            let bytes = fs::read(&there).unwrap();
            assert!(!bytes.windows(4).any(|window| window == b"DICM"), "it is plain");
            if more.is_empty() {
                let opened = openssl_cms(
                    &[
                        "-decrypt",
                        "-inform",
                        "DER",
                        "-binary",
                        "-in",
                        text(&there),
                        "-inkey",
                        text(&party.key),
                    ],
                    &[],
                );
                assert_success(&opened);
                assert!(opened.stdout == expected, "openssl decrypted something else");
            }
        }
    }

    let (nothing, output) = export("refused", &["--encrypt-to", text(&party.key)]).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("holds a private key"));
    assert!(!nothing.exists());
}

#[test]
fn what_openssl_encrypted_is_decrypted_unless_it_is_no_dicom_file() {
    let place = tempfile::tempdir().unwrap();
    let party = Party::new(place.path(), "york");
    let encrypted = |name: &str, bytes: &[u8], options: &[&str]| {
        let (plain, sealed) = (place.path().join("plain"), place.path().join(name));
        fs::write(&plain, bytes).unwrap();
        let begin =
            ["-encrypt", "-binary", "-outform", "DER", "-in", text(&plain), "-out", text(&sealed)];
        let output = openssl_cms(&[&begin, options].concat(), &[&party.certificate]);
        assert_success(&output);
        sealed
    };
    let file = one_ct().part10();
    let streamed = encrypted("a.dcm.p7m", &file, &["-aes256", "-stream"]);
    let letter = encrypted("b.p7m", b"Dear colleague", &["-aes128"]);
    let cut = encrypted("c.p7m", &file[..file.len() - 100], &["-des3"]);
    let to = place.path().join("to");

    let output = gantry(&[
        "deid",
        "decrypt",
        "--json",
        text(&streamed),
        text(&letter),
        text(&cut),
        "--key",
        text(&party.key),
        "--to",
        text(&to),
    ]);

    assert_eq!(output.status.code(), Some(6));
    assert_eq!(fs::read(to.join("a.dcm")).unwrap(), file);
    assert_eq!(fs::read_dir(&to).unwrap().count(), 1, "no more than the one is there");
    let report = json(&output);
    for failed in report["failed"].as_array().unwrap() {
        let reason = failed["reason"].as_str().unwrap();
        assert!(reason.starts_with("what is inside is no DICOM file"), "{reason}");
    }
}
