//! De-identified means checked: what is written holds nothing of whom it shows, is as valid as what was read, is the same
//! again under the same key, and everything that was not written has a reason. By the built program, on files.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)] // a panic is how a test fails

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use aho_corasick::AhoCorasick;
use dicom_core::VR;
use dicom_dictionary_std::tags;
use gantry_deidentify::data_set::{self, DataSet, Element};
use gantry_deidentify::engine::{Deidentifier, Linkage};
use gantry_deidentify::keys::ProjectKey;
use gantry_deidentify::profile::shipped;
use gantry_store::dicom::TransferSyntax;
use gantry_tests::Part10;
use gantry_tests::gateway::program;
use sample_studies::{Instance, Study, all_valid, ct_series, part10_header};
use serde_json::Value as Json;
use tempfile::TempDir;

const SEED: u64 = 11;

fn gantry(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(program())
        .args(arguments)
        .current_dir(folder)
        .env_remove("GANTRY_CONFIG")
        .output()
        .expect("the program runs")
}

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn json(output: &Output) -> Json {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no JSON: {}", stderr(output)))
}

/// A folder with every valid study in `in`, and a project key.
fn place() -> (TempDir, Vec<Study>) {
    let place = tempfile::tempdir().unwrap();
    let studies = all_valid(SEED);
    for study in &studies {
        study.write_to(&place.path().join("in")).unwrap();
    }
    let made = gantry(place.path(), &["deid", "key", "project.key"]);
    assert_eq!(code(&made), Some(0), "{}", stderr(&made));
    (place, studies)
}

/// All files below a folder: their names from there, and what is in them.
fn tree(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(here) = folders.pop() {
        for entry in fs::read_dir(here).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_owned();
                found.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    found
}

fn objects(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut tree = tree(folder);
    tree.retain(|name, _| name.extension().is_some_and(|end| end == "dcm"));
    tree
}

fn report(folder: &Path) -> Json {
    serde_json::from_slice(&fs::read(folder.join("report.json")).unwrap()).unwrap()
}

fn read(file: &[u8]) -> (Part10, DataSet) {
    let file = Part10::parse(file).unwrap();
    let syntax: TransferSyntax = file.transfer_syntax_uid.parse().unwrap();
    let parsed = data_set::read(&syntax, &file.data_set).unwrap();
    (file, parsed.data_set)
}

fn contains(bytes: &[u8], token: &str) -> bool {
    let bytes = bytes.to_ascii_lowercase();
    let token = token.to_ascii_lowercase();
    bytes.windows(token.len()).any(|window| window == token.as_bytes())
}

/// What tells of whom a study is and what it was called: texts whole, the parts of names, UIDs.
fn tokens(study: &Study) -> Vec<String> {
    let planted = study.planted().into_iter().flat_map(|planted| {
        let parts = planted.text.split('^').filter(|part| part.len() > 3).map(str::to_owned);
        parts.chain([planted.text.clone()]).collect::<Vec<_>>()
    });
    let uids = study.instances.iter().flat_map(|instance| {
        [&instance.sop_instance_uid, &instance.series_instance_uid, &instance.study_instance_uid]
    });
    planted.chain(uids.cloned()).collect()
}

/// Writes a file with this data set, in the transfer syntax of this instance.
fn write(path: &Path, instance: &Instance, change: impl FnOnce(&mut DataSet)) {
    let syntax: TransferSyntax = instance.transfer_syntax_uid.parse().unwrap();
    let parsed = data_set::read(&syntax, &instance.data_set).unwrap();
    let mut object = parsed.data_set;
    change(&mut object);
    let uid = object.text(tags::SOP_INSTANCE_UID).unwrap();
    let mut file = part10_header(&instance.sop_class_uid, &uid, &instance.transfer_syntax_uid);
    object.write(parsed.form, &mut file);
    let span = parsed.pixel_data.unwrap().span;
    file.extend_from_slice(&instance.data_set[span.start as usize..span.end as usize]);
    fs::write(path, file).unwrap();
}

#[test]
fn nothing_planted_is_anywhere_in_what_is_written_and_the_numbers_add_up() {
    let (place, studies) = place();
    let count: u64 = studies.iter().map(|study| study.len() as u64).sum();
    for profile in ["research", "basic"] {
        let to = place.path().join(profile);

        let applied = gantry(
            place.path(),
            &["deid", "apply", "in", "--profile", profile, "--key", "project.key", "--to", profile],
        );

        assert_eq!(code(&applied), Some(6), "{}", stderr(&applied));
        let tree = tree(&to);
        let tokens: Vec<String> = studies.iter().flat_map(tokens).collect();
        let search = AhoCorasick::builder().ascii_case_insensitive(true).build(&tokens).unwrap();
        for (name, bytes) in &tree {
            for place in [bytes.as_slice(), name.to_str().unwrap().as_bytes()] {
                let found = search.find(place).map(|found| &tokens[found.pattern().as_usize()]);
                assert_eq!(found, None, "{}", name.display());
            }
        }
        let report = report(&to);
        let counts = &report["counts"];
        assert_eq!(counts["objects"], count, "{counts}");
        assert_eq!(counts["written"], objects(&to).len() as u64);
        let aside = report["set_aside"].as_array().unwrap();
        assert_eq!(counts["set_aside"], aside.len() as u64);
        assert!(aside.iter().all(|one| !one["reason"].as_str().unwrap().is_empty()));
        assert!(aside.iter().all(|one| one["sop_instance_uid"].is_string()), "{aside:?}");
        assert_eq!(counts["objects"], counts["written"].as_u64().unwrap() + aside.len() as u64);
        assert_eq!(report["references"]["broken"], 0);
        assert_eq!(stderr(&applied).matches("set aside: in/").count(), aside.len());
        let mode = fs::metadata(&to).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}

#[test]
fn names_and_heads_are_new_and_verify_finds_nothing() {
    let (place, _) = place();
    let to = place.path().join("out");
    let applied = gantry(
        place.path(),
        &["deid", "apply", "in", "--profile", "research", "--key", "project.key", "--to", "out"],
    );
    assert_eq!(code(&applied), Some(6), "{}", stderr(&applied));

    let files = objects(&to);
    assert!(!files.is_empty());
    for (name, bytes) in &files {
        let (file, object) = read(bytes);
        let uid = |tag| object.text(tag).unwrap().trim_end_matches('\0').to_owned();
        let expected = [tags::STUDY_INSTANCE_UID, tags::SERIES_INSTANCE_UID].map(uid).join("/")
            + &format!("/{}.dcm", uid(tags::SOP_INSTANCE_UID));
        assert_eq!(name.to_str().unwrap(), expected);
        assert!(bytes[..128].iter().all(|byte| *byte == 0));
        assert_eq!(file.sop_instance_uid, uid(tags::SOP_INSTANCE_UID));
        assert!(!contains(&bytes[..400], "SAMPLE_STUDIES"));
    }
    let verified =
        gantry(place.path(), &["deid", "verify", "out", "--profile", "research", "--json"]);
    assert_eq!(code(&verified), Some(0), "{}", stdout(&verified));
    assert_eq!(json(&verified)["passed"], files.len() as u64);
    // By another profile it was not made.
    let verified = gantry(place.path(), &["deid", "verify", "out", "--profile", "basic"]);
    assert_eq!(code(&verified), Some(1));
    assert!(stdout(&verified).contains("DeidentificationMethod does not name this profile"));
}

#[test]
fn verify_finds_what_was_put_back_and_never_says_it() {
    let (place, _) = place();
    let applied = gantry(
        place.path(),
        &["deid", "apply", "in/chest-cr", "--profile", "research", "--to", "out"],
    );
    assert_eq!(code(&applied), Some(0), "{}", stderr(&applied));
    let (name, bytes) = objects(&place.path().join("out")).pop_first().unwrap();
    let file = Part10::parse(&bytes).unwrap();
    let instance = Instance { data_set: file.data_set, ..all_valid(SEED)[3].instances[0].clone() };
    let path = place.path().join("out").join(name);
    let cases: [(dicom_core::Tag, VR, &str, &str); 6] = [
        (tags::PATIENT_ADDRESS, VR::LO, "somewhere", "PatientAddress is still there"),
        (tags::SERIES_DESCRIPTION, VR::LO, "for 999 054 8609", "looks like an NHS number"),
        (tags::SERIES_DESCRIPTION, VR::LO, "ring 01632 960123", "looks like a telephone number"),
        (tags::PROTOCOL_NAME, VR::LO, "to x.y@trust.nhs.uk", "looks like an e-mail address"),
        (tags::FRAME_OF_REFERENCE_UID, VR::UI, "1.2.826.0.1", "holds a UID that was not replaced"),
        (tags::PATIENT_IDENTITY_REMOVED, VR::CS, "NO", "PatientIdentityRemoved does not say YES"),
    ];
    for (tag, vr, value, expected) in cases {
        write(&path, &instance, |object| object.put(Element::new(tag, vr, value)));

        let verified = gantry(place.path(), &["deid", "verify", "out", "--profile", "research"]);

        assert_eq!(code(&verified), Some(1), "{expected}: {}", stdout(&verified));
        assert!(stdout(&verified).contains(expected), "{expected}: {}", stdout(&verified));
        if !matches!(value, "NO") {
            assert!(!stdout(&verified).contains(value), "{}", stdout(&verified));
        }
    }
}

/// Table E.1-1 has a plain X for Requested Procedure ID (0040,1001), which is Type 2 in Referenced Request Sequence (0040,A370)
/// of a report (PS3.3 C.17.2): the table's word is followed.
const BY_THE_TABLE: &str =
    "Missing attribute Type 2 Required Element=<RequestedProcedureID> Module=<SRDocumentGeneral>";

#[test]
fn dciodvfy_finds_no_error_that_was_not_there() {
    let errors = |path: &Path| -> BTreeSet<String> {
        let output = Command::new("dciodvfy").arg(path).output().expect("dciodvfy runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains('\n'), "dciodvfy says nothing about {}", path.display());
        said.lines().filter(|line| line.contains("Error")).map(str::to_owned).collect()
    };
    let (place, studies) = place();
    for profile in ["research", "basic"] {
        gantry(
            place.path(),
            &["deid", "apply", "in", "--profile", profile, "--key", "project.key", "--to", profile],
        );
        let key = ProjectKey::read(&place.path().join("project.key")).unwrap();
        let deidentifier = Deidentifier::new(shipped(profile).unwrap(), key, Linkage::Project);
        let (mut compared, mut all) = (0, Vec::new());
        for study in &studies {
            for instance in &study.instances {
                let new = |uid: &str| deidentifier.uid(study.study_instance_uid(), uid);
                let made = place.path().join(format!(
                    "{profile}/{}/{}/{}.dcm",
                    new(study.study_instance_uid()),
                    new(&instance.series_instance_uid),
                    new(&instance.sop_instance_uid)
                ));
                if !made.exists() {
                    continue;
                }
                let before =
                    errors(&place.path().join("in").join(&study.name).join(&instance.file_name));
                let after = errors(&made);
                let mut added: Vec<_> = after.difference(&before).collect();
                added.retain(|error| !error.ends_with(BY_THE_TABLE));
                all.extend(added.iter().map(|error| format!("{}: {error}", instance.file_name)));
                compared += 1;
            }
        }
        assert!(all.is_empty(), "{profile}: {all:#?}");
        assert_eq!(compared, objects(&place.path().join(profile)).len());
    }
}

#[test]
fn one_key_gives_the_same_files_and_another_one_other_pseudonyms() {
    let (place, _) = place();
    let apply = |to: &str, more: &[&str]| {
        let arguments = ["deid", "apply", "in", "--profile", "research", "--to", to];
        let applied = gantry(place.path(), &[&arguments, more].concat());
        assert_eq!(code(&applied), Some(6), "{}", stderr(&applied));
        applied
    };
    let key = ["--key", "project.key"];

    apply("one", &[&key[..], &["--jobs", "1"]].concat());
    apply("two", &[&key[..], &["--jobs", "4"]].concat());
    let fresh = apply("three", &[]);
    apply("four", &[&key[..], &["--unlinked-studies"]].concat());

    let [one, two, three, four] =
        ["one", "two", "three", "four"].map(|to| objects(&place.path().join(to)));
    assert_eq!(one, two);
    let reports = ["one", "two"].map(|to| {
        let mut report = report(&place.path().join(to));
        report["made_at"] = Json::Null;
        report
    });
    assert_eq!(reports[0], reports[1]);
    let ids = |objects: &BTreeMap<PathBuf, Vec<u8>>| -> BTreeSet<String> {
        objects.values().map(|bytes| read(bytes).1.text(tags::PATIENT_ID).unwrap()).collect()
    };
    assert_eq!(one.len(), three.len());
    assert!(ids(&one).is_disjoint(&ids(&three)));
    assert!(ids(&one).is_disjoint(&ids(&four)));
    assert!(one.keys().all(|name| !three.contains_key(name) && !four.contains_key(name)));
    assert!(stderr(&fresh).contains("a new key was made for this run and is not kept"));
    let words = |to: &str| report(&place.path().join(to))["linkage"]["word"].clone();
    assert_eq!(
        (words("three"), words("four")),
        ("pseudonymised".into(), "de-identified per study".into())
    );
    assert_eq!(report(&place.path().join("three"))["key"]["kept"], false);
}

#[test]
fn what_is_not_an_object_or_is_there_twice_is_counted() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("in");
    fs::create_dir(&folder).unwrap();
    let study = ct_series(SEED, 2);
    let instance = &study.instances[0];
    fs::write(folder.join("b.dcm"), instance.part10()).unwrap();
    fs::write(folder.join("c.dcm"), instance.part10()).unwrap();
    fs::write(folder.join("d.dcm"), study.instances[1].part10()).unwrap();
    // Another content under the UID of the first two, which come before it, and one that comes before them all.
    write(&folder.join("e.dcm"), instance, |object| {
        object.put(Element::new(tags::PATIENT_SEX, VR::CS, "O"));
    });
    fs::write(folder.join("f.dcm"), &instance.part10()[..500]).unwrap();
    fs::write(folder.join("DICOMDIR"), instance.part10()).unwrap();
    fs::write(folder.join("notes.txt"), "not DICOM").unwrap();
    let run = |to: &str| {
        let arguments = ["deid", "apply", "in", "--json", "--profile", "research", "--to", to];
        let applied = gantry(place.path(), &arguments);
        assert_eq!(code(&applied), Some(6), "{}", stderr(&applied));
        assert!(stderr(&applied).contains("in/DICOMDIR: it is a DICOMDIR"), "{}", stderr(&applied));
        assert!(stderr(&applied).contains("in/notes.txt: not a DICOM file"));
        json(&applied)
    };

    let summary = run("one");

    assert_eq!(
        (&summary["objects"], &summary["written"], &summary["repeated"]),
        (&5.into(), &2.into(), &1.into())
    );
    let files: Vec<_> =
        summary["set_aside"].as_array().unwrap().iter().map(|one| &one["file"]).collect();
    assert_eq!(files, ["in/e.dcm", "in/f.dcm"]);
    assert_eq!(report(&place.path().join("one"))["counts"]["directories"], 1);
    write(&folder.join("a.dcm"), instance, |object| {
        object.put(Element::new(tags::PATIENT_SEX, VR::CS, "O"));
    });
    let summary = run("two");
    let files: Vec<_> =
        summary["set_aside"].as_array().unwrap().iter().map(|one| &one["file"]).collect();
    assert_eq!(files, ["in/b.dcm", "in/c.dcm", "in/f.dcm"]);
    assert_eq!((&summary["written"], &summary["repeated"]), (&2.into(), &1.into()));
}

#[test]
fn how_it_ended_is_in_the_exit_code() {
    let (place, _) = place();
    let apply = |from: &str, to: &str| {
        let arguments =
            ["deid", "apply", from, "--profile", "basic", "--key", "project.key", "--to", to];
        gantry(place.path(), &arguments)
    };
    fs::create_dir(place.path().join("none")).unwrap();
    fs::create_dir(place.path().join("broken")).unwrap();
    let ct = ct_series(SEED, 1).instances[0].part10();
    fs::write(place.path().join("broken/a.dcm"), &ct[..500]).unwrap();

    assert_eq!(code(&apply("in/head-ct", "done")), Some(0));
    assert_eq!(code(&apply("in", "partly")), Some(6));
    assert_eq!(code(&apply("in/encapsulated-pdf", "unsafe")), Some(10));
    assert_eq!(code(&apply("broken", "failed")), Some(1));
    assert_eq!(code(&apply("none", "nothing")), Some(3));

    let again = apply("in/head-ct", "done");
    assert_eq!(code(&again), Some(2));
    assert!(stderr(&again).contains("hint: name another folder"), "{}", stderr(&again));
    let before = objects(&place.path().join("done"));
    let forced = gantry(
        place.path(),
        &[
            "deid",
            "apply",
            "in/head-ct",
            "--profile",
            "basic",
            "--key",
            "project.key",
            "--to",
            "done",
            "--force",
        ],
    );
    assert_eq!((code(&forced), before), (Some(0), objects(&place.path().join("done"))));
    let unknown =
        gantry(place.path(), &["deid", "apply", "in", "--profile", "reserch", "--to", "x"]);
    assert_eq!(code(&unknown), Some(3));
    assert!(stderr(&unknown).contains("hint: did you mean research?"), "{}", stderr(&unknown));
    let named = gantry(
        place.path(),
        &[
            "deid",
            "apply",
            "in/head-ct",
            "--profile",
            "basic",
            "--to",
            "y",
            "--report",
            "report.txt",
        ],
    );
    assert_eq!(code(&named), Some(2));
    assert!(!place.path().join("y").exists());
}

#[test]
fn what_a_profile_does_can_be_read_before_it_does_it() {
    let (place, studies) = place();
    let chest = studies.iter().find(|study| study.name == "chest-cr").unwrap();
    let file = format!("in/chest-cr/{}", chest.instances[0].file_name);
    let before = tree(place.path());
    let explain = |more: &[&str]| {
        let arguments = ["deid", "explain", &file, "--profile", "research"];
        let explained = gantry(place.path(), &[&arguments, more].concat());
        assert_eq!(code(&explained), Some(0), "{}", stderr(&explained));
        explained
    };

    let people = explain(&["--key", "project.key"]);
    let machine = json(&explain(&["--json"]));
    let shown = explain(&["--show-values"]);

    assert_eq!(tree(place.path()), before, "something was written");
    let text = stdout(&people);
    let (kept, all) = (text.find("Text that stays"), text.find("All attributes"));
    assert!(kept.is_some() && kept < all && all < text.find("Totals"), "{text}");
    assert!(text.contains("X/Z/D, Type 3 here → X, removed"), "{text}");
    for planted in chest.planted() {
        assert!(!text.contains(&planted.text), "{}", planted.attribute);
        assert!(!machine.to_string().contains(&planted.text), "{}", planted.attribute);
    }
    assert!(
        stdout(&shown).contains(&chest.patient.name) && !stderr(&people).contains("patient data")
    );
    assert!(stderr(&shown).contains("warning: this shows patient data"), "{}", stderr(&shown));
    assert!(stderr(&shown).contains("a new key was made"), "{}", stderr(&shown));
    assert!(!stderr(&people).contains("a new key was made"), "{}", stderr(&people));
    let attributes = machine["attributes"].as_array().unwrap();
    let times =
        |rows: &[Json], key: &str| rows.iter().map(|row| row[key].as_u64().unwrap()).sum::<u64>();
    assert_eq!(
        times(attributes, "times"),
        times(machine["totals"].as_array().unwrap(), "attributes")
    );

    let differ = gantry(place.path(), &["deid", "diff", "basic", "research", &file, "--json"]);
    let differences = json(&differ);
    let named = |list: &str, what: &str| {
        differences[list].as_array().unwrap().iter().any(|one| one["what"] == what)
    };
    assert!(named("settings", "option retain_long_modified_dates"), "{differences}");
    assert!(named("attributes", "StudyDate") && !named("attributes", "Rows"), "{differences}");
    assert_eq!(code(&differ), Some(1));
    let same = gantry(place.path(), &["deid", "diff", "basic", "basic", &file, "--json"]);
    assert_eq!(code(&same), Some(0));
    let same = json(&same);
    assert_eq!(
        (&same["settings"], &same["attributes"]),
        (&Json::Array(vec![]), &Json::Array(vec![]))
    );
}

#[test]
fn profiles_are_listed_shown_and_linted_with_line_and_remedy() {
    let place = tempfile::tempdir().unwrap();
    let listed = gantry(place.path(), &["deid", "profiles", "--json"]);
    let names: Vec<_> =
        json(&listed).as_array().unwrap().iter().map(|one| one["name"].clone()).collect();
    assert_eq!(names, ["basic", "research", "teaching", "direct-care-minimal"]);
    let text = stdout(&gantry(place.path(), &["deid", "profiles", "--show", "research"]));
    fs::write(place.path().join("mine.toml"), &text).unwrap();
    let wrong =
        text.replace("clean_graphics", "clean_graphic").replace("prefix = \"P-\"", "prefx = 1");
    fs::write(place.path().join("wrong.toml"), wrong).unwrap();

    let right = gantry(place.path(), &["deid", "lint", "mine.toml"]);
    let lint = gantry(place.path(), &["deid", "lint", "mine.toml", "wrong.toml", "--json"]);

    assert_eq!(code(&right), Some(0), "{}", stdout(&right));
    assert_eq!(code(&lint), Some(1));
    let linted = json(&lint);
    assert_eq!((&linted[0]["ok"], &linted[1]["ok"]), (&true.into(), &false.into()));
    let finding = &linted[1]["findings"][0];
    assert!(
        finding["line"].as_u64() > Some(1) && !finding["help"].as_str().unwrap().is_empty(),
        "{linted}"
    );
    // A key is made once.
    assert_eq!(code(&gantry(place.path(), &["deid", "key", "a.key"])), Some(0));
    let again = gantry(place.path(), &["deid", "key", "a.key"]);
    assert_ne!(code(&again), Some(0));
    assert!(stderr(&again).contains("hint: "), "{}", stderr(&again));
}

#[test]
fn originals_are_sealed_to_whom_was_named_and_come_back() {
    let (place, studies) = place();
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "rsa:3072",
            "-nodes",
            "-days",
            "30",
            "-subj",
            "/O=Test trust/CN=ig-lead",
        ])
        .args(["-out", "ig.crt", "-keyout", "ig.key"])
        .current_dir(place.path())
        .output()
        .expect("openssl runs");
    assert!(made.status.success());

    let applied = gantry(
        place.path(),
        &[
            "deid",
            "apply",
            "in/head-ct",
            "--profile",
            "research",
            "--key",
            "project.key",
            "--seal-to",
            "ig.crt",
            "--to",
            "out",
        ],
    );
    assert_eq!(code(&applied), Some(0), "{}", stderr(&applied));
    let report = report(&place.path().join("out"));
    let recovered = gantry(
        place.path(),
        &["deid", "recover", "out", "--key", "ig.key", "--to", "back", "--reason", "a test"],
    );

    assert_eq!(code(&recovered), Some(0), "{}", stderr(&recovered));
    let sealed = &report["sealed"];
    assert!(sealed["recipients"][0]["subject"].as_str().unwrap().contains("ig-lead"), "{sealed}");
    let keywords = sealed["attributes"].as_array().unwrap();
    assert!(keywords.iter().any(|one| one["keyword"] == "PatientName"), "{sealed}");
    let head_ct = studies.iter().find(|study| study.name == "head-ct").unwrap();
    let uids: BTreeSet<_> = objects(&place.path().join("back"))
        .values()
        .map(|bytes| read(bytes).0.sop_instance_uid)
        .collect();
    assert_eq!(uids, head_ct.sop_instance_uids().into_iter().collect());
    let verified =
        gantry(place.path(), &["deid", "verify", "out", "--profile", "research", "--json"]);
    assert_eq!(code(&verified), Some(0), "{}", stdout(&verified));
    assert_eq!(json(&verified)["sealed"], head_ct.len() as u64);
    let html = fs::read_to_string(place.path().join("out/report.html")).unwrap();
    assert!(html.contains("ig-lead") && html.contains("<td class=\"fill\"></td>"));
}

/// Runs a tool that makes a file of another.
fn converted(program: &str, options: &[&str], from: &Path, to: &Path) {
    let output = Command::new(program).args(options).args([from, to]).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program}: {}", stderr(&output));
}

/// Puts a comment with this text (even in length) behind the start of the one compressed frame of a file.
fn with_comment(path: &Path, start: [u8; 2], marker: [u8; 2], text: &[u8]) {
    let mut file = fs::read(path).unwrap();
    let pixels = file.windows(8).rposition(|at| at == [0xE0, 0x7F, 0x10, 0, b'O', b'B', 0, 0]);
    let table = pixels.unwrap() + 12;
    let length = |file: &[u8], at: usize| {
        u32::from_le_bytes(file[at + 4..at + 8].try_into().unwrap()) as usize
    };
    let fragment = table + 8 + length(&file, table);
    let found = length(&file, fragment);
    assert_eq!(file[fragment + 8..fragment + 10], start);
    // Behind the marker, or in JPEG 2000 behind SIZ, which has to come first.
    let mut place = fragment + 10;
    if start == [0xFF, 0x4F] {
        place += 2 + usize::from(u16::from_be_bytes([file[place + 2], file[place + 3]]));
    }
    let mut segment = marker.to_vec();
    segment.extend(u16::try_from(text.len() + 2).unwrap().to_be_bytes());
    segment.extend(text);
    let longer = u32::try_from(found + segment.len()).unwrap();
    file[fragment + 4..fragment + 8].copy_from_slice(&longer.to_le_bytes());
    file.splice(place..place, segment);
    fs::write(path, file).unwrap();
}

/// The native pixel data of a file.
fn pixels(path: &Path) -> Vec<u8> {
    let file = Part10::read(path).unwrap();
    let syntax: TransferSyntax = file.transfer_syntax_uid.parse().unwrap();
    let value = data_set::read(&syntax, &file.data_set).unwrap().pixel_data.unwrap();
    assert!(!value.encapsulated);
    file.data_set[value.value.start as usize..value.value.end as usize].to_vec()
}

#[test]
fn what_compressed_frames_hide_goes_and_pixels_stay_in_every_encoding() {
    const HIDDEN: &[u8] = b"\0\x01 Zebrowitz^Quenby, 9990548609";
    let place = tempfile::tempdir().unwrap();
    let study = ct_series(SEED, 1);
    let native = place.path().join("native.dcm");
    fs::write(&native, study.instances[0].part10()).unwrap();
    let comment = Some(([0xFF, 0xD8], [0xFF, 0xFE]));
    let comment_2000 = Some(([0xFF, 0x4F], [0xFF, 0x64]));
    let encodings: [(&str, &[&str], _, &str, &[&str]); 6] = [
        ("dcmconv", &["+tb"], None, "dcmconv", &["+te"]),
        ("dcmconv", &["+td"], None, "dcmconv", &["+te"]),
        ("dcmcjpeg", &["+e1"], comment, "dcmdjpeg", &[]),
        ("dcmcjpls", &[], comment, "dcmdjpls", &[]),
        ("gdcmconv", &["--j2k"], comment_2000, "gdcmconv", &["--raw"]),
        ("dcmcrle", &[], None, "dcmdrle", &[]),
    ];
    let expected = pixels(&native);
    for (nth, (encode, options, hides, decode, back)) in encodings.into_iter().enumerate() {
        let name = |what: &str| place.path().join(format!("{what}-{nth}"));
        let (from, to) = (name("in").with_extension("dcm"), name("out"));
        converted(encode, options, &native, &from);
        if let Some((start, marker)) = hides {
            with_comment(&from, start, marker, HIDDEN);
            assert!(contains(&fs::read(&from).unwrap(), "Zebrowitz"));
        }

        let applied = Command::new(program())
            .args(["deid", "apply", "--profile", "basic", "--to"])
            .args([&to, &from])
            .output()
            .unwrap();

        assert_eq!(code(&applied), Some(0), "{encode}: {}", stderr(&applied));
        let (written, bytes) = objects(&to).pop_first().unwrap();
        let text = String::from_utf8_lossy(HIDDEN);
        for hidden in text.split(['^', ',', ' ']).filter(|word| word.len() > 4) {
            assert!(!contains(&bytes, hidden), "{encode}: {hidden}");
        }
        let decoded = name("back").with_extension("dcm");
        converted(decode, back, &to.join(written), &decoded);
        assert!(pixels(&decoded) == expected, "{encode}: other pixels");
    }
}

#[test]
fn a_long_object_is_blacked_where_a_mask_of_ones_own_says() {
    const MASKS: &str = "schema = 1\n\n[[mask]]\nid = \"capture-top\"\n\
        when = { rows = 2048, columns = 4096 }\nboxes = [[0, 0, 4096, 64]]\n\
        verified-by = \"medical physics\"\nverified-on = \"2026-03-01\"\n";
    let place = tempfile::tempdir().unwrap();
    let instance = sample_studies::multi_frame(SEED, 3, 2048, 4096).build().unwrap();
    let instance = &instance.instances[0];
    // Longer than what is made in memory.
    assert!(instance.data_set.len() > 48 << 20);
    let from = place.path().join("long.dcm");
    fs::write(&from, instance.part10()).unwrap();
    let apply = |to: &str, profile: &str, more: &[&str]| {
        let arguments = ["deid", "apply", "long.dcm", "--profile", profile, "--to", to];
        gantry(place.path(), &[&arguments, more].concat())
    };
    let without = apply("none", "research", &[]);
    assert_eq!(code(&without), Some(10), "{}", stderr(&without));
    assert!(objects(&place.path().join("none")).is_empty());
    fs::write(place.path().join("wrong.toml"), "schema = 1\n[[mask]]\nid = 1\n").unwrap();
    let wrong = apply("wrong", "research", &["--masks", "wrong.toml"]);
    assert_eq!(code(&wrong), Some(2));
    assert!(stderr(&wrong).contains("line 3") && stderr(&wrong).contains("boxes = [["));

    // Named on the command line, and named by a profile.
    fs::create_dir(place.path().join("profile")).unwrap();
    fs::write(place.path().join("profile/masks.toml"), MASKS).unwrap();
    let profile = fs::read_to_string(profile_file(place.path())).unwrap();
    let profile = profile.replace("[pixels]\n", "[pixels]\nmasks = [\"masks.toml\"]\n");
    fs::write(place.path().join("profile/own.toml"), profile).unwrap();
    let named = apply("named", "research", &["--masks", "profile/masks.toml"]);
    let own = apply("own", "profile/own.toml", &[]);

    let before = pixels(&from);
    for (to, applied) in [("named", named), ("own", own)] {
        assert_eq!(code(&applied), Some(0), "{}", stderr(&applied));
        let to = place.path().join(to);
        let written = to.join(objects(&to).pop_first().unwrap().0);
        let after = pixels(&written);
        assert_eq!(after.len(), before.len());
        let row = before.len() / 3 / 2048;
        for (nth, (now, was)) in after.chunks(row).zip(before.chunks(row)).enumerate() {
            let masked = nth % 2048 < 64;
            assert!(if masked { now.iter().all(|byte| *byte == 0) } else { now == was }, "{nth}");
        }
        assert_eq!(report(&to)["pixels"]["masks"][0]["count"], 1, "{}", report(&to)["pixels"]);
    }
}

/// The research profile, as a file of one's own.
fn profile_file(folder: &Path) -> PathBuf {
    let shown = gantry(folder, &["deid", "profiles", "--show", "research"]);
    assert_eq!(code(&shown), Some(0), "{}", stderr(&shown));
    let path = folder.join("research-own.toml");
    fs::write(&path, &shown.stdout).unwrap();
    path
}
