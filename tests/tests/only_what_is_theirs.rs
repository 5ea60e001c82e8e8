//! Who asks gets what is its own, and of everything else the answers of what does not exist: at every level, by every way of
//! asking, whatever keeps it from the asker.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)] // a panic is how a test fails

use std::collections::{BTreeMap, BTreeSet};

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use gantry_deidentify::keys::ProjectKey;
use gantry_gateway::association::dimse::SubOperations;
use gantry_gateway::association::status::Status;
use gantry_store::index::NewShare;
use gantry_tests::asker::{Answered, Conversation, Root, Verb};
use gantry_tests::{
    Asker, Gateway, ScriptedPartner, Sender, Setup, digest, digests, eventually, python,
};
use jiff::{Timestamp, ToSpan as _};
use sample_studies::{Instance, Study, ct_series, small_objects};
use serde_json::{Value, json};
use tempfile::TempDir;

const MAY: &str = "may = [\"receive\", \"query\", \"retrieve\"]";
const SOURCE_MAY: &str = "may = [\"query\", \"retrieve\"]\ncount = \"never\"";
const CALLERS: [&str; 4] = ["ALPHA", "BETA", "PACS", "MRI"];
const LEVELS: [&str; 4] = ["PATIENT", "STUDY", "SERIES", "IMAGE"];

/// A study, and who may see it.
struct Kept {
    what: &'static str,
    study: Study,
    owners: &'static [&'static str],
}

/// A node with two partners and two sources, all of which may ask and fetch.
struct Scene {
    gateway: Gateway,
    /// Where each caller has things sent.
    ends: BTreeMap<&'static str, ScriptedPartner>,
    kept: Vec<Kept>,
    _keys: TempDir,
}

async fn send(gateway: &Gateway, calling: &str, called: &str, instances: &[Instance]) {
    let to = gateway.plaintext();
    let mut sender = Sender::connect_as(calling, called, to, instances).await.unwrap();
    sender.store_all(instances).await;
    sender.release().await;
}

/// The same instances with another pixel, as somebody has them who is mistaken or lies.
fn contradicting(study: &Study) -> Vec<Instance> {
    let mut instances = study.instances.clone();
    for instance in &mut instances {
        *instance.data_set.last_mut().unwrap() ^= 1;
    }
    instances
}

/// A study of the patient of another one.
fn of_the_same_patient(seed: u64, n: u32, other: &Study) -> Study {
    let mut study = small_objects(seed, n);
    study.patient = other.patient.clone();
    for instance in &mut study.instances {
        let mut elements = instance.elements().unwrap();
        elements.text(tags::PATIENT_ID, &other.patient.nhs_number);
        elements.text(tags::PATIENT_NAME, &other.patient.name);
        *instance = Instance::new(&elements, sample_studies::SequenceLengths::Undefined);
    }
    study
}

impl Scene {
    async fn new() -> Self {
        let keys = tempfile::tempdir().unwrap();
        let key = keys.path().join("project.key");
        ProjectKey::generate().unwrap().write_new(&key).unwrap();
        let mut ends = BTreeMap::new();
        for caller in CALLERS {
            ends.insert(caller, ScriptedPartner::start().await);
        }
        let gateway = Setup::new()
            .source_at("pacs", "PACS", ends["PACS"].port())
            .and(SOURCE_MAY)
            .source_at("mri", "MRI", ends["MRI"].port())
            .and(SOURCE_MAY)
            .partner("alpha", "ALPHA", ends["ALPHA"].port())
            .and(MAY)
            .partner("beta", "BETA", ends["BETA"].port())
            .and(MAY)
            .route("TO_ALPHA", &["alpha"], "routine")
            .route("TO_BETA", &["beta"], "routine")
            .rule(&format!(
                "[[project]]\nname = \"trial\"\nprofile = \"research\"\nkey = \"{}\"\n\
                 [[route]]\nname = \"trial\"\nwhen = {{ called-ae-title = \"TO_TRIAL\" }}\nto = [\"alpha\"]\n\
                 purpose = \"research\"\npriority = \"routine\"\nprotect = {{ pseudonymise = \"trial\" }}\n",
                key.display()
            ))
            .start()
            .await;
        let to_alpha = small_objects(501, 3);
        let same_patient = of_the_same_patient(502, 2, &to_alpha);
        let kept = |what, study, owners| Kept { what, study, owners };
        let kept = vec![
            kept("addressed to the one", to_alpha, &["ALPHA", "PACS"][..]),
            kept("of that patient, addressed to the other", same_patient, &["BETA", "PACS"]),
            kept("addressed to the other", small_objects(503, 2), &["BETA", "PACS"]),
            kept("addressed to nobody", small_objects(504, 2), &["PACS"]),
            kept("shared", small_objects(505, 2), &["ALPHA", "PACS"]),
            kept("shared and taken back", small_objects(506, 2), &["PACS"]),
            kept("shared until an hour ago", small_objects(507, 2), &["PACS"]),
            kept("delivered under a protection", ct_series(508, 1), &["PACS"]),
            kept("set aside under a protection", small_objects(512, 1), &["PACS"]),
            kept("addressed and recalled", small_objects(513, 2), &["PACS"]),
            kept("addressed and cancelled", small_objects(514, 2), &["PACS"]),
            kept("addressed and removed", small_objects(515, 2), &[]),
            kept("contradicted", small_objects(509, 2), &["ALPHA", "PACS"]),
            kept("of the other source", small_objects(510, 2), &["BETA", "MRI"]),
            kept("contradicting", small_objects(511, 2), &["MRI"]),
        ];
        let scene = Self { gateway, ends, kept, _keys: keys };
        scene.fill().await;
        scene
    }

    fn study(&self, what: &str) -> &Study {
        &self.kept.iter().find(|kept| kept.what == what).unwrap().study
    }

    async fn fill(&self) {
        let gateway = &self.gateway;
        for (calling, called, what) in [
            ("PACS", "TO_ALPHA", "addressed to the one"),
            ("PACS", "TO_BETA", "of that patient, addressed to the other"),
            ("PACS", "TO_BETA", "addressed to the other"),
            ("PACS", "GANTRY", "addressed to nobody"),
            ("PACS", "GANTRY", "shared"),
            ("PACS", "GANTRY", "shared and taken back"),
            ("PACS", "GANTRY", "shared until an hour ago"),
            ("PACS", "TO_TRIAL", "delivered under a protection"),
            ("PACS", "TO_TRIAL", "set aside under a protection"),
            ("PACS", "TO_ALPHA", "addressed and recalled"),
            ("PACS", "TO_ALPHA", "addressed and cancelled"),
            ("PACS", "TO_ALPHA", "addressed and removed"),
            ("PACS", "TO_ALPHA", "contradicted"),
            ("MRI", "TO_BETA", "of the other source"),
            ("MRI", "GANTRY", "contradicting"),
        ] {
            send(gateway, calling, called, &self.study(what).instances).await;
        }
        gateway.delivered("alpha", 3 + 1 + 2 + 2 + 2 + 2).await;
        gateway.delivered("beta", 2 + 2 + 2).await;
        let sent: usize = self.kept.iter().map(|kept| kept.study.len()).sum();
        eventually("everything to be in the index", async || {
            (gateway.instances().await == sent as u64).then_some(())
        })
        .await;
        // What contradicts goes nowhere and is nobody's, whoever it was meant for.
        let (contradicted, contradicting_one) =
            (self.study("contradicted"), self.study("contradicting"));
        send(gateway, "MRI", "TO_BETA", &contradicting(contradicted)).await;
        send(gateway, "PACS", "TO_ALPHA", &contradicting(contradicting_one)).await;
        eventually("what contradicts to be in quarantine", async || {
            let status = gateway.api("/api/v1/status").await;
            (status["totals"]["quarantined"] == 4).then_some(())
        })
        .await;
        self.share().await;
        self.take_back().await;
    }

    async fn command(&self, arguments: &[&str]) {
        let output = self.gateway.command(&[arguments, &["--reason", "an opinion"]].concat()).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// What was meant for a partner, and had arrived there, and is not meant for it any more.
    async fn take_back(&self) {
        let transfers = self.gateway.api("/api/v1/transfers").await;
        for (what, verb) in
            [("addressed and recalled", "recall"), ("addressed and cancelled", "cancel")]
        {
            let uid = self.study(what).study_instance_uid();
            let all = transfers.as_array().unwrap();
            let transfer =
                all.iter().find(|one| one["study"]["study_instance_uid"] == uid).unwrap();
            self.command(&["transfer", verb, transfer["id"].as_str().unwrap(), "--yes"]).await;
        }
        let uid = self.study("addressed and removed").study_instance_uid();
        let delete = ["study", "delete", uid, "--reason", "an opinion", "--yes"];
        eventually("the study to be stored, and to be removed", async || {
            self.gateway.command(&delete).await.status.success().then_some(())
        })
        .await;
    }

    async fn share(&self) {
        let share = async |what: &str, verb: &str| {
            let uid = self.study(what).study_instance_uid();
            self.command(&["study", verb, uid, "--with", "alpha"]).await;
        };
        share("shared", "share").await;
        share("shared and taken back", "share").await;
        share("shared and taken back", "unshare").await;
        let study = self.study("shared until an hour ago").study_instance_uid().parse().unwrap();
        let expired = NewShare {
            study: &study,
            partner: "alpha",
            protection: None,
            until: Some(Timestamp::now() - 1.hour()),
            reason: "an opinion",
            by: "somebody",
        };
        let shared = self
            .gateway
            .rows(async |index| index.share(&expired, Timestamp::now() - 2.hours()).await.unwrap());
        assert!(shared.await.is_some());
    }

    /// What a caller may see.
    fn own(&self, caller: &str) -> impl Iterator<Item = &Study> + Clone {
        self.kept.iter().filter(move |kept| kept.owners.contains(&caller)).map(|kept| &kept.study)
    }
}

/// The unique key of an instance at a level.
fn unique_key(level: &str) -> Tag {
    match level {
        "PATIENT" => tags::PATIENT_ID,
        "STUDY" => tags::STUDY_INSTANCE_UID,
        "SERIES" => tags::SERIES_INSTANCE_UID,
        _ => tags::SOP_INSTANCE_UID,
    }
}

fn value<'a>(study: &'a Study, instance: &'a Instance, tag: Tag) -> &'a str {
    match tag {
        tags::PATIENT_ID => &study.patient.nhs_number,
        tags::STUDY_INSTANCE_UID => &instance.study_instance_uid,
        tags::SERIES_INSTANCE_UID => &instance.series_instance_uid,
        _ => &instance.sop_instance_uid,
    }
}

/// What stands at a level among the instances that have these values.
fn at<'a>(
    level: &str,
    studies: impl Iterator<Item = &'a Study>,
    wanted: &[(Tag, &str)],
) -> (BTreeSet<String>, BTreeMap<String, String>) {
    let each = studies.flat_map(|study| study.instances.iter().map(move |one| (study, one)));
    let matching = each.filter(|(study, instance)| {
        let is = |(tag, wanted): &(Tag, &str)| {
            wanted.split('\\').any(|it| it == value(study, instance, *tag))
        };
        wanted.iter().filter(|(_, wanted)| !wanted.is_empty()).all(is)
    });
    let mut found = (BTreeSet::new(), BTreeMap::new());
    for (study, instance) in matching {
        found.0.insert(value(study, instance, unique_key(level)).to_owned());
        found.1.insert(instance.sop_instance_uid.clone(), digest(&instance.data_set));
    }
    found
}

/// Every way to ask for a study at a level: by the patient, and by the unique keys of all levels down to it, or of its own.
fn ways<'a>(level: &str, study: &'a Study) -> Vec<(Root, Vec<(Tag, &'a str)>)> {
    let first = &study.instances[0];
    let key = |tag| (tag, value(study, first, tag));
    let depth = LEVELS.iter().position(|it| *it == level).unwrap();
    let down: Vec<_> = LEVELS[..=depth].iter().map(|level| key(unique_key(level))).collect();
    let mut ways = vec![(Root::Patient, down.clone())];
    if level != "PATIENT" {
        ways.push((Root::Study, down[1..].to_vec()));
        ways.push((Root::Study, vec![key(unique_key(level))]));
    }
    ways
}

#[tokio::test]
async fn everyone_finds_its_own_and_of_the_rest_not_even_that_it_is_there() {
    let scene = Scene::new().await;
    let absent = small_objects(599, 2);

    for caller in CALLERS {
        let mut asker = Asker::connect(scene.gateway.plaintext(), caller).await.unwrap();
        for level in LEVELS {
            let nothing = find(&mut asker, level, ways(level, &absent).pop().unwrap()).await;
            assert_eq!((nothing.last.status(), nothing.pending.len()), (Status::SUCCESS, 0));
            for kept in &scene.kept {
                let by_patient =
                    (Root::Patient, vec![(tags::PATIENT_ID, &*kept.study.patient.nhs_number)]);
                for (root, wanted) in ways(level, &kept.study).into_iter().chain([by_patient]) {
                    let what = format!("{caller} finds {} {level}: {root:?} {wanted:?}", kept.what);
                    let (expected, _) = at(level, scene.own(caller), &wanted);
                    let nothing =
                        find(&mut asker, level, (root, same_keys(&wanted, &absent))).await;

                    let found = find(&mut asker, level, (root, wanted)).await;

                    if expected.is_empty() {
                        assert!(found == nothing, "{what}: not as if it were not there");
                    }
                    finds(&found, level, &expected, &what);
                }
            }
            let universal = vec![(unique_key(level), "")];
            let (expected, _) = at(level, scene.own(caller), &[]);
            let found = find(&mut asker, level, (Root::Patient, universal)).await;
            finds(&found, level, &expected, &format!("{caller} finds all at {level}"));
            counts(&found, level, &scene, caller);
        }
        asker.release().await.unwrap();
    }
}

/// The values that a study has of these keys, for which nothing is looked up.
fn same_keys<'a>(wanted: &[(Tag, &str)], study: &'a Study) -> Vec<(Tag, &'a str)> {
    wanted.iter().map(|(tag, _)| (*tag, value(study, &study.instances[0], *tag))).collect()
}

async fn find(
    asker: &mut Asker,
    level: &str,
    (root, wanted): (Root, Vec<(Tag, &str)>),
) -> Conversation {
    let counted: &[Tag] = match level {
        "PATIENT" => {
            &[tags::NUMBER_OF_PATIENT_RELATED_STUDIES, tags::NUMBER_OF_PATIENT_RELATED_INSTANCES]
        }
        "STUDY" => &[tags::NUMBER_OF_STUDY_RELATED_INSTANCES],
        _ => &[],
    };
    let asked = counted.iter().copied().chain([unique_key(level)]);
    let mut keys: BTreeMap<Tag, &str> = asked.map(|tag| (tag, "")).collect();
    keys.extend(wanted);
    let keys: Vec<_> = keys.into_iter().collect();
    asker.converse(Verb::Find, root, level, &keys).await.unwrap()
}

fn finds(found: &Conversation, level: &str, expected: &BTreeSet<String>, what: &str) {
    let values = found.values(unique_key(level));
    assert_eq!(values.iter().cloned().collect::<BTreeSet<_>>(), *expected, "{what}");
    assert_eq!(values.len(), expected.len(), "{what}: one answer each");
    assert_eq!(found.last.status(), Status::SUCCESS, "{what}");
    let pending = found.pending.iter().map(Answered::status);
    assert!(pending.into_iter().all(|status| status == Status::PENDING), "{what}");
}

/// What is counted of a patient or study is what the asker may see of it.
fn counts(found: &Conversation, level: &str, scene: &Scene, caller: &str) {
    let (of_studies, of_instances) = match level {
        "PATIENT" => (true, tags::NUMBER_OF_PATIENT_RELATED_INSTANCES),
        "STUDY" => (false, tags::NUMBER_OF_STUDY_RELATED_INSTANCES),
        _ => return,
    };
    for answered in &found.pending {
        let one = answered.value(unique_key(level));
        let wanted = [(unique_key(level), &*one)];
        let (studies, _) = at("STUDY", scene.own(caller), &wanted);
        let (images, _) = at("IMAGE", scene.own(caller), &wanted);
        let said = answered.value(of_instances);
        assert_eq!(said, images.len().to_string(), "images that {caller} sees of {one}");
        if of_studies {
            let said = answered.value(tags::NUMBER_OF_PATIENT_RELATED_STUDIES);
            assert_eq!(said, studies.len().to_string(), "studies that {caller} sees of {one}");
        }
    }
}

#[tokio::test]
async fn everyone_fetches_its_own_bit_for_bit_and_the_rest_is_as_if_it_were_not_there() {
    let scene = Scene::new().await;
    let absent = small_objects(599, 2);

    for caller in CALLERS {
        let mut asker = Asker::connect(scene.gateway.plaintext(), caller).await.unwrap();
        for verb in [Verb::Get, Verb::Move(caller)] {
            for (level, kept) in
                LEVELS.iter().flat_map(|level| scene.kept.iter().map(move |kept| (level, kept)))
            {
                for (root, wanted) in ways(level, &kept.study) {
                    let what = format!("{caller}, {verb:?} of {} at {level}", kept.what);
                    let (_, expected) = at(level, scene.own(caller), &wanted);
                    let nothing = same_keys(&wanted, &absent);
                    let nothing =
                        fetch(&scene, &mut asker, caller, verb, (root, level), &nothing).await;

                    let fetched =
                        fetch(&scene, &mut asker, caller, verb, (root, level), &wanted).await;

                    if expected.is_empty() {
                        assert!(fetched == nothing, "{what}: not as if it were not there");
                    }
                    fetches(&fetched, &expected, &what);
                }
            }
            // Others' among its own.
            for level in &LEVELS[1..] {
                let tag = unique_key(level);
                let (all, _) = at(level, scene.kept.iter().map(|kept| &kept.study), &[]);
                let all = all.into_iter().collect::<Vec<_>>().join("\\");
                let (_, expected) = at(level, scene.own(caller), &[]);
                let fetched =
                    fetch(&scene, &mut asker, caller, verb, (Root::Study, level), &[(tag, &all)])
                        .await;
                fetches(
                    &fetched,
                    &expected,
                    &format!("{caller}, {verb:?} of everything at {level}"),
                );
            }
        }
        asker.release().await.unwrap();
    }
}

/// What was said, and what came of it wherever it was to go.
async fn fetch(
    scene: &Scene,
    asker: &mut Asker,
    caller: &str,
    verb: Verb<'_>,
    (root, level): (Root, &str),
    keys: &[(Tag, &str)],
) -> (Conversation, BTreeMap<String, String>) {
    let counts = || {
        scene
            .ends
            .iter()
            .map(|(name, end)| (*name, end.received().len()))
            .collect::<BTreeMap<_, _>>()
    };
    let before = counts();
    let said = asker.converse(verb, root, level, keys).await.unwrap();
    let after = counts();
    let others = after.iter().filter(|(name, _)| **name != caller);
    for (name, count) in others {
        assert_eq!(*count, before[name], "{name} was sent what {caller} asked for");
    }
    let received = scene.ends[caller].received();
    let moved = received[before[caller]..].iter();
    let moved = moved.map(|one| (one.sop_instance_uid.clone(), one.digest.clone())).collect();
    (said, moved)
}

fn fetches(
    (said, moved): &(Conversation, BTreeMap<String, String>),
    expected: &BTreeMap<String, String>,
    what: &str,
) {
    let mut came = said.stored.clone();
    came.extend(moved.clone());
    assert_eq!(came, *expected, "{what}");
    let completed = expected.len() as u16;
    let counts = SubOperations { completed, ..SubOperations::default() };
    assert_eq!(said.last.response.sub_operations, counts, "{what}");
    assert_eq!(said.last.status(), Status::SUCCESS, "{what}");
    assert!(said.last.identifier.is_empty(), "{what}");
}

#[tokio::test]
async fn pynetdicom_finds_gets_and_moves_what_is_its_own() {
    const SCRIPT: &str = include_str!("../src/pynetdicom.py");
    let scene = Scene::new().await;
    let study = scene.study("shared");
    let before = scene.ends["ALPHA"].received().len();

    let port = scene.gateway.plaintext().port().to_string();
    let arguments = [&port, "ALPHA", study.study_instance_uid()];
    let output = python(SCRIPT).args(arguments).output().await.unwrap();

    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}; tests/run installs pynetdicom");
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    let own: BTreeMap<_, _> = scene
        .own("ALPHA")
        .map(|study| (study.study_instance_uid(), json!([study.patient.nhs_number, study.len()])))
        .collect();
    let whole = json!({ "status": 0, "completed": study.len(), "failed": 0, "warning": 0 });
    let expected = json!({
        "found": own,
        "find": 0,
        "get": whole,
        "stored": digests(study),
        "move": whole,
    });
    assert_eq!(said, expected);
    let moved = scene.ends["ALPHA"].received()[before..]
        .iter()
        .map(|one| (one.sop_instance_uid.clone(), one.digest.clone()))
        .collect::<BTreeMap<_, _>>();
    assert_eq!(moved, digests(study));
}
