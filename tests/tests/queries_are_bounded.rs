//! Whatever a peer asks, and however it behaves while it is answered, is answered in bounded time with the right status, and
//! nobody else hears of it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)] // a panic is how a test fails

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use dicom_core::Tag;
use dicom_dictionary_std::{tags, uids};
use gantry_gateway::association::dimse::{CStoreRq, SubOperations};
use gantry_gateway::association::status::Status;
use gantry_store::dicom::{Attributes, TransferSyntax};
use gantry_store::facts::{Digest, Facts, ObjectId, Origin};
use gantry_store::index::Arrival;
use gantry_tests::asker::{Answered, Conversation, Root, Said, Verb};
use gantry_tests::raw::{self, p_data};
use gantry_tests::{Asker, Gateway, RawDicom, Relay, ScriptedPartner, Sender, Setup, eventually};
use jiff::Timestamp;
use sample_studies::{Study, ct_series, small_objects};

/// Statuses by the names of PS3.4 Tables C.4-1 to C.4-3.
const UNABLE_TO_PROCESS: Status = Status::CANNOT_UNDERSTAND;
const DOES_NOT_MATCH: Status = Status::DATA_SET_MISMATCH;

/// A node with a partner that takes everything, and one that does not ask.
struct Scene {
    gateway: Gateway,
    partner: ScriptedPartner,
    other: ScriptedPartner,
}

impl Scene {
    async fn new() -> Self {
        Self::like(Setup::new()).await
    }

    async fn like(setup: Setup) -> Self {
        let (partner, other) = (ScriptedPartner::start().await, ScriptedPartner::start().await);
        let gateway = setup
            .source("pacs", "PACS")
            .and("may = [\"query\", \"retrieve\"]")
            .partner("partner", "PARTNER", partner.port())
            .and("may = [\"receive\", \"query\", \"retrieve\"]")
            .partner("other", "OTHER", other.port())
            .route("GANTRY", &["partner"], "routine")
            .start()
            .await;
        Self { gateway, partner, other }
    }

    async fn with(setup: Setup, study: &Study) -> Self {
        let scene = Self::like(setup).await;
        let to = scene.gateway.plaintext();
        let mut sender = Sender::connect(to, &study.instances).await.unwrap();
        sender.store_all(&study.instances).await;
        sender.release().await;
        scene.gateway.delivered("partner", study.len()).await;
        scene
    }

    async fn asker(&self, calling: &str) -> Asker {
        Asker::connect(self.gateway.plaintext(), calling).await.unwrap()
    }

    /// Asks for a study as the partner, and leaves what follows to the test.
    async fn asked(&self, verb: Verb<'_>, study: &Study) -> Asker {
        let mut asker = self.asker("PARTNER").await;
        asker.ask(verb, Root::Study, &all_of(study)).await.unwrap();
        asker
    }

    /// How long it takes somebody else to fetch a study by now.
    async fn serves_others(&self, study: &Study) {
        let mut asker = self.asked(Verb::Get, study).await;
        let got = asker.hear_all().await.unwrap();
        assert_eq!(got.stored, gantry_tests::digests(study));
        asker.release().await.unwrap();
    }
}

fn all_of(study: &Study) -> [(Tag, &str); 2] {
    [(tags::QUERY_RETRIEVE_LEVEL, "STUDY"), (tags::STUDY_INSTANCE_UID, study.study_instance_uid())]
}

fn counts(remaining: usize, completed: usize, failed: usize, warning: usize) -> SubOperations {
    let [remaining, completed, failed, warning] =
        [remaining, completed, failed, warning].map(|count| count as u16);
    SubOperations { remaining, completed, failed, warning }
}

/// The first thing of a retrieval that is sent.
async fn first_stored(asker: &mut Asker) -> (u8, CStoreRq) {
    match asker.hear().await.unwrap() {
        Said::Stores(context, request, _) => (context, request),
        Said::Answered(answered) => panic!("nothing was sent: {:?}", answered.response),
    }
}

async fn answered(asker: &mut Asker) -> Answered {
    match asker.hear().await.unwrap() {
        Said::Answered(answered) => answered,
        Said::Stores(..) => panic!("something was sent"),
    }
}

// ---- What is asked ----

/// A study of one image, as the index knows it.
fn arrival(study: u32) -> Arrival {
    let mut attributes = Attributes::default();
    for (tag, text) in [
        (tags::PATIENT_NAME, format!("SAMPLE^NUMBER {study}")),
        (tags::PATIENT_ID, format!("P{study}")),
        (tags::STUDY_DATE, "20260102".to_owned()),
        (tags::MODALITY, "OT".to_owned()),
    ] {
        attributes.insert(tag, text.into_bytes());
    }
    let mut digest = [0; 32];
    digest[..4].copy_from_slice(&study.to_le_bytes());
    Arrival {
        facts: Facts {
            object: ObjectId::new(),
            received_at: Timestamp::now(),
            origin: Origin {
                listener: "127.0.0.1:11112".to_owned(),
                sender: "pacs".to_owned(),
                from_partner: false,
                calling_ae_title: "PACS".parse().unwrap(),
                called_ae_title: "GANTRY".parse().unwrap(),
                addressed_to: None,
                fetched_like: Vec::new(),
            },
            sop_class: uids::SECONDARY_CAPTURE_IMAGE_STORAGE.parse().unwrap(),
            sop_instance: format!("2.25.{study}.1.1").parse().unwrap(),
            study: format!("2.25.{study}").parse().unwrap(),
            series: format!("2.25.{study}.1").parse().unwrap(),
            transfer_syntax: TransferSyntax::explicit_vr_little_endian(),
            length: 4096,
            digest: Digest(digest),
            pixel_data_offset: None,
            protected: None,
            attributes,
        },
        routed: Vec::new(),
    }
}

#[tokio::test]
async fn a_query_that_is_cancelled_ends_long_before_its_last_match() {
    const STUDIES: u32 = 5000;
    let mut scene = Scene::new().await;
    assert!(scene.gateway.stop().await.success());
    let recorded = scene.gateway.rows(async |index| {
        for first in (0..STUDIES).step_by(500) {
            let batch: Vec<_> = (first..first + 500).map(arrival).collect();
            index.record(&batch).await.unwrap();
        }
    });
    recorded.await;
    scene.gateway.start().await;
    let everything = [(tags::QUERY_RETRIEVE_LEVEL, "STUDY"), (tags::PATIENT_NAME, "SAMPLE*")];
    let mut asker = Asker::connect_narrow(scene.gateway.plaintext(), "PACS").await.unwrap();
    asker.ask(Verb::Find, Root::Study, &everything).await.unwrap();
    let all = asker.hear_all().await.unwrap();
    assert_eq!((all.last.status(), all.pending.len()), (Status::SUCCESS, STUDIES as usize));

    asker.ask(Verb::Find, Root::Study, &everything).await.unwrap();
    let first = answered(&mut asker).await;
    asker.cancel(Verb::Find, Root::Study).await.unwrap();
    let rest = asker.hear_all().await.unwrap();

    assert_eq!(first.status(), Status::PENDING);
    assert_eq!(rest.last.status(), Status::CANCELLED);
    let heard = rest.pending.len();
    assert!(heard < STUDIES as usize / 4, "{heard} matches came after the cancellation");

    // The association is as good as before, and a cancellation of what has ended is nothing.
    asker.cancel(Verb::Find, Root::Study).await.unwrap();
    let one = [(tags::PATIENT_ID, "P7"), (tags::STUDY_INSTANCE_UID, "")];
    let found = asker.converse(Verb::Find, Root::Study, "STUDY", &one).await.unwrap();
    assert_eq!(found.values(tags::STUDY_INSTANCE_UID), ["2.25.7"]);
    asker.release().await.unwrap();
}

#[tokio::test]
async fn a_key_that_is_not_known_is_said_to_be_with_every_match() {
    let study = small_objects(71, 2);
    let scene = Scene::with(Setup::new(), &study).await;
    let mut asker = scene.asker("PARTNER").await;
    let uid = (tags::STUDY_INSTANCE_UID, study.study_instance_uid());

    let known = asker.converse(Verb::Find, Root::Study, "STUDY", &[uid]).await.unwrap();
    for unknown in [tags::PATIENT_COMMENTS, tags::OCCUPATION, Tag(0x0009, 0x1001)] {
        let keys = [uid, (unknown, "")];
        let found = asker.converse(Verb::Find, Root::Study, "STUDY", &keys).await.unwrap();

        assert_eq!(found.pending.len(), 1, "{unknown}");
        assert_eq!(found.pending[0].status(), Status::PENDING_WITH_WARNING, "{unknown}");
        assert_eq!(found.last, known.last, "{unknown}");
        assert_eq!(found.pending[0].value(uid.0), uid.1, "{unknown}");
    }
    assert_eq!(known.pending[0].status(), Status::PENDING);
}

/// Texts that mean something to a database, a shell or a log.
const METACHARACTERS: &[&str] = &[
    "%",
    "_",
    "%%%",
    "'",
    "''",
    "' OR '1'='1",
    "';--",
    "x'; DROP TABLE study; --",
    "\"",
    "[a-z]",
    "$1",
    "{}",
    "\u{1b}[31m",
    "NULL",
    "~",
];

#[tokio::test]
async fn no_key_means_anything_to_the_database() {
    let study = small_objects(72, 2);
    let mut scene = Scene::with(Setup::new(), &study).await;
    let mut asker = scene.asker("PARTNER").await;
    let texts = [
        tags::PATIENT_ID,
        tags::PATIENT_NAME,
        tags::ACCESSION_NUMBER,
        tags::STUDY_ID,
        tags::STUDY_DESCRIPTION,
        tags::REFERRING_PHYSICIAN_NAME,
    ];

    for (tag, text) in
        texts.iter().flat_map(|tag| METACHARACTERS.iter().map(move |text| (*tag, *text)))
    {
        let keys = [(tag, text), (tags::STUDY_INSTANCE_UID, "")];
        let found = asker.converse(Verb::Find, Root::Study, "STUDY", &keys).await.unwrap();
        assert_eq!(found.pending.len(), 0, "{tag} {text:?}");
        // What its VR does not allow is no query.
        let status = found.last.status();
        assert!([Status::SUCCESS, UNABLE_TO_PROCESS].contains(&status), "{tag} {text:?}: {status}");
    }

    let keys = [(tags::STUDY_INSTANCE_UID, "")];
    let found = asker.converse(Verb::Find, Root::Study, "STUDY", &keys).await.unwrap();
    assert_eq!(found.values(tags::STUDY_INSTANCE_UID), [study.study_instance_uid()]);
    assert!(scene.gateway.is_alive());
    let log = scene.gateway.log();
    assert!(METACHARACTERS.iter().filter(|text| text.len() > 6).all(|text| !log.contains(text)));
}

/// Sends an identifier as it is, and hears the end of it.
async fn said_to(asker: &mut Asker, verb: Verb<'_>, identifier: &[u8]) -> (Conversation, Duration) {
    let begun = Instant::now();
    asker.ask_with(verb, Root::Study, identifier).await.unwrap();
    let said = asker.hear_all().await.unwrap();
    (said, begun.elapsed())
}

/// An identifier in Implicit VR Little Endian, its elements in order.
fn identifier(level: &str, keys: &[(Tag, &str)]) -> Vec<u8> {
    let keys = [&[(tags::QUERY_RETRIEVE_LEVEL, level)], keys].concat();
    let element = |(tag, value): &(Tag, &str)| {
        let mut value = value.as_bytes().to_vec();
        value.resize(value.len().next_multiple_of(2), b' ');
        [
            &tag.group().to_le_bytes()[..],
            &tag.element().to_le_bytes(),
            &(value.len() as u32).to_le_bytes(),
            &value,
        ]
        .concat()
    };
    keys.iter().flat_map(element).collect()
}

#[tokio::test]
async fn what_is_no_query_is_refused_at_once_and_what_is_a_strange_one_is_answered() {
    let study = small_objects(73, 2);
    let mut scene = Scene::with(Setup::new(), &study).await;
    let mut asker = scene.asker("PARTNER").await;
    let before = scene.gateway.peak_memory();
    let uid = study.study_instance_uid();
    let wild = |length: usize| "*a".repeat(length / 2);
    let (short, long) = (wild(64), wild(1024));
    let uids = vec![uid; (10 << 20) / (uid.len() + 1)].join("\\");
    let many = vec!["1.2.3"; 10_001].join("\\");
    let find = |level, tag, value| (Verb::Find, identifier(level, &[(tag, value)]));
    let own = "PARTNER";

    let mut cases = vec![
        // (what, how, matches, status)
        (
            "wild cards within a value",
            find("STUDY", tags::PATIENT_NAME, &short),
            0,
            Status::SUCCESS,
        ),
        ("wild cards without end", find("STUDY", tags::PATIENT_NAME, &long), 0, UNABLE_TO_PROCESS),
        ("all centuries", find("STUDY", tags::STUDY_DATE, "00010101-99991231"), 1, Status::SUCCESS),
        ("until the last day", find("STUDY", tags::STUDY_DATE, "-99991231"), 1, Status::SUCCESS),
        ("from the first day", find("STUDY", tags::STUDY_DATE, "00010101-"), 1, Status::SUCCESS),
        ("a long list", find("STUDY", tags::STUDY_INSTANCE_UID, &many), 0, UNABLE_TO_PROCESS),
        ("10 MB of UIDs", find("STUDY", tags::STUDY_INSTANCE_UID, &uids), 0, UNABLE_TO_PROCESS),
        ("no UID", find("STUDY", tags::STUDY_INSTANCE_UID, "1.2.x"), 0, UNABLE_TO_PROCESS),
        ("no level", find("", tags::STUDY_INSTANCE_UID, ""), 0, DOES_NOT_MATCH),
        ("a level of another model", find("PATIENT", tags::PATIENT_ID, ""), 0, DOES_NOT_MATCH),
        ("another word", find("GALAXY", tags::STUDY_INSTANCE_UID, ""), 0, DOES_NOT_MATCH),
        (
            "half an element",
            (Verb::Find, identifier("STUDY", &[])[..9].to_vec()),
            0,
            DOES_NOT_MATCH,
        ),
    ];
    for date in
        ["20261341", "20260230", "2026-01-02", "yesterday", "2026", "20260101-2026x", "99999999"]
    {
        cases.push((date, find("STUDY", tags::STUDY_DATE, date), 0, UNABLE_TO_PROCESS));
    }
    for level in ["STUDY", "SERIES", "IMAGE"] {
        // Universal matching (PS3.4 C.2.2.2.3), which is for queries only.
        let matches = if level == "IMAGE" { 2 } else { 1 };
        cases.push((level, (Verb::Find, identifier(level, &[])), matches, Status::SUCCESS));
        for verb in [Verb::Get, Verb::Move(own)] {
            cases.push((level, (verb, identifier(level, &[])), 0, DOES_NOT_MATCH));
        }
    }
    for verb in [Verb::Get, Verb::Move(own)] {
        let one = |level, tag, value| (verb, identifier(level, &[(tag, value)]));
        cases.extend([
            ("10 MB of UIDs", one("STUDY", tags::STUDY_INSTANCE_UID, &uids), 0, UNABLE_TO_PROCESS),
            ("no UID", one("STUDY", tags::STUDY_INSTANCE_UID, "' OR 1=1"), 0, DOES_NOT_MATCH),
            ("a wild card", one("STUDY", tags::STUDY_INSTANCE_UID, "*"), 0, DOES_NOT_MATCH),
            ("a patient", one("PATIENT", tags::PATIENT_ID, "1"), 0, DOES_NOT_MATCH),
        ]);
    }
    // Nobody, a peer of the node, a source of it, the node itself, what is no word of it.
    for destination in ["NOBODY", "OTHER", "PACS", "GANTRY", "partner", "PARTNER2", "*"] {
        let own_study = identifier("STUDY", &[(tags::STUDY_INSTANCE_UID, uid)]);
        let asked = (Verb::Move(destination), own_study);
        cases.push((destination, asked, 0, Status::MOVE_DESTINATION_UNKNOWN));
    }
    for (what, (verb, identifier), matches, status) in cases {
        let (said, took) = said_to(&mut asker, verb, &identifier).await;

        assert_eq!(said.last.status(), status, "{verb:?} {what}");
        assert_eq!(said.pending.len(), matches, "{verb:?} {what}");
        assert_eq!(said.stored.len(), 0, "{verb:?} {what}");
        assert!(took < Duration::from_secs(5), "{verb:?} {what} took {took:?}");
    }

    scene.serves_others(&study).await;
    let grown = scene.gateway.peak_memory() - before;
    assert!(grown < 64 << 20, "the node took {grown} bytes more");
    assert_eq!((scene.partner.received().len(), scene.other.received().len()), (study.len(), 0));
}

#[tokio::test]
async fn a_request_without_an_identifier_is_answered_that_it_has_none() {
    const MESSAGE_ID: u16 = 9;
    let scene = Scene::new().await;
    let plain = uids::IMPLICIT_VR_LITTLE_ENDIAN;
    for (command, model) in [
        (0x0020_u16, uids::STUDY_ROOT_QUERY_RETRIEVE_INFORMATION_MODEL_FIND),
        (0x0010, uids::STUDY_ROOT_QUERY_RETRIEVE_INFORMATION_MODEL_GET),
        (0x0021, uids::STUDY_ROOT_QUERY_RETRIEVE_INFORMATION_MODEL_MOVE),
    ] {
        // It says that there is none, or that there is one, and it is empty.
        for (data_set_type, identifier) in
            [(0x0101_u16, None), (1, Some(p_data(1, false, true, &[])))]
        {
            let mut peer = RawDicom::associate(scene.gateway.plaintext(), model, plain).await;
            let request = raw::command(&[
                (0x0002, format!("{model}\0").as_bytes()),
                (0x0100, &command.to_le_bytes()),
                (0x0110, &MESSAGE_ID.to_le_bytes()),
                (0x0600, b"PACS"),
                (0x0700, &[0, 0]),
                (0x0800, &data_set_type.to_le_bytes()),
            ]);

            peer.send(&p_data(1, true, true, &request)).await.unwrap();
            if let Some(identifier) = identifier {
                peer.send(&identifier).await.unwrap();
            }

            let status = peer.status().await.unwrap();
            assert_eq!(Status(status), DOES_NOT_MATCH, "{command:04X}H, {data_set_type:04X}H");
            peer.release().await;
        }
    }
}

// ---- What is sent ----

#[tokio::test]
async fn a_retrieval_that_is_cancelled_ends_with_what_was_sent() {
    let study = small_objects(74, 12);
    let scene = Scene::with(Setup::new(), &study).await;

    let mut asker = scene.asked(Verb::Get, &study).await;
    for _ in 0..2 {
        let (context, request) = first_stored(&mut asker).await;
        asker.answer(context, &request, Status::SUCCESS).await.unwrap();
    }
    let (context, request) = first_stored(&mut asker).await;
    asker.cancel(Verb::Get, Root::Study).await.unwrap();
    asker.answer(context, &request, Status::SUCCESS).await.unwrap();
    let got = asker.hear_all().await.unwrap();

    assert_eq!(got.last.status(), Status::CANCELLED);
    assert_eq!(got.last.response.sub_operations, counts(study.len() - 3, 3, 0, 0));
    assert_eq!(got.stored.len(), 0, "nothing is sent after a cancellation");

    let delivered = study.len();
    scene.partner.allow(delivered + 3);
    asker.ask(Verb::Move("PARTNER"), Root::Study, &all_of(&study)).await.unwrap();
    eventually("three images at the destination", async || {
        (scene.partner.received().len() == delivered + 3).then_some(())
    })
    .await;
    asker.cancel(Verb::Move("PARTNER"), Root::Study).await.unwrap();
    scene.partner.allow(usize::MAX);
    let moved = asker.hear_all().await.unwrap();

    // The one that was on its way arrives.
    let sent = scene.partner.received().len() - delivered;
    assert!((3..=4).contains(&sent), "{sent} were sent");
    assert_eq!(moved.last.status(), Status::CANCELLED);
    assert_eq!(moved.last.response.sub_operations, counts(study.len() - sent, sent, 0, 0));
    asker.release().await.unwrap();
    scene.serves_others(&study).await;
}

#[tokio::test]
async fn who_has_something_moved_over_a_slow_line_hears_how_far_it_is() {
    let study = ct_series(75, 2);
    let partner = ScriptedPartner::start().await;
    let end = ([127, 0, 0, 1], partner.port()).into();
    let line = Relay::like(end, Duration::ZERO, Some(150_000.0)).await;
    let gateway = Setup::new()
        .source("pacs", "PACS")
        .and(&format!(
            "may = [\"query\", \"retrieve\"]\ncount = \"never\"\naddress = \"127.0.0.1:{}\"",
            line.port()
        ))
        .start()
        .await;
    let mut sender = Sender::connect(gateway.plaintext(), &study.instances).await.unwrap();
    sender.store_all(&study.instances).await;
    sender.release().await;
    eventually("the study to be in the index", async || {
        (gateway.instances().await == study.len() as u64).then_some(())
    })
    .await;

    let mut asker = Asker::connect(gateway.plaintext(), "PACS").await.unwrap();
    let mut heard = Instant::now();
    asker.ask(Verb::Move("PACS"), Root::Study, &all_of(&study)).await.unwrap();
    let (mut longest, mut pending) = (Duration::ZERO, Vec::new());
    let last = loop {
        let said = answered(&mut asker).await;
        longest = longest.max(heard.elapsed());
        heard = Instant::now();
        if said.status() != Status::PENDING {
            break said;
        }
        pending.push(said.response.sub_operations);
    };

    assert_eq!(
        (last.status(), last.response.sub_operations),
        (Status::SUCCESS, counts(0, 2, 0, 0))
    );
    assert!(longest < Duration::from_secs(2), "nothing was heard for {longest:?}");
    assert!(
        pending.contains(&counts(2, 0, 0, 0)) && pending.contains(&counts(1, 1, 0, 0)),
        "{pending:?}"
    );
}

// ---- Peers that fetch and do not behave ----

#[tokio::test]
async fn what_the_asker_does_not_take_is_counted_and_named() {
    let study = small_objects(76, 6);
    let scene = Scene::with(Setup::new(), &study).await;
    let bad: BTreeSet<_> =
        study.instances.iter().take(2).map(|one| one.sop_instance_uid.clone()).collect();
    let all: BTreeSet<_> = study.instances.iter().map(|one| one.sop_instance_uid.clone()).collect();
    let none = BTreeSet::new();

    for (refused, with, status, expected, named) in [
        (&all, Status::OUT_OF_RESOURCES, Status::CANNOT_SEND, counts(0, 0, 6, 0), &all),
        (&all, Status::CANNOT_UNDERSTAND, Status::CANNOT_SEND, counts(0, 0, 6, 0), &all),
        (&bad, Status::PROCESSING_FAILURE, Status::SOME_FAILED, counts(0, 4, 2, 0), &bad),
        // Taken, with a remark: elements were discarded (PS3.4 Table B.2-1).
        (&bad, Status(0xB006), Status::SOME_FAILED, counts(0, 4, 0, 2), &none),
        // No status of a C-STORE.
        (&bad, Status::PENDING, Status::SOME_FAILED, counts(0, 4, 2, 0), &bad),
        (&none, Status::SUCCESS, Status::SUCCESS, counts(0, 6, 0, 0), &none),
    ] {
        let mut asker = scene.asked(Verb::Get, &study).await;
        let refuses = |request: &CStoreRq| refused.contains(request.sop_instance.as_str());

        let got = asker
            .hear_all_and(|request| if refuses(request) { with } else { Status::SUCCESS })
            .await
            .unwrap();

        assert_eq!(got.last.status(), status, "{with}");
        assert_eq!(got.last.response.sub_operations, expected, "{with}");
        let list = list_of_failed(&got.last);
        assert_eq!(list, *named, "{with}");
        asker.release().await.unwrap();
    }
    scene.serves_others(&study).await;
}

/// Failed SOP Instance UID List (0008,0058), the only element of its data set.
fn list_of_failed(answered: &Answered) -> BTreeSet<String> {
    let Some(value) = answered.identifier.get(8..) else { return BTreeSet::new() };
    let text = String::from_utf8(value.to_vec()).unwrap();
    text.trim_end_matches('\0').split('\\').map(str::to_owned).collect()
}

#[tokio::test]
async fn a_peer_that_does_not_answer_what_it_asked_for_is_left_and_costs_nobody_anything() {
    const PEERS: usize = 12;
    let study = ct_series(77, 6);
    let setup = Setup::new().association("idle-timeout = \"3s\"");
    let mut scene = Scene::with(setup, &study).await;
    scene.serves_others(&study).await;
    let before = scene.gateway.peak_memory();

    // They ask, and neither read nor answer.
    let mut silent = Vec::new();
    for number in 0..PEERS {
        let to = scene.gateway.plaintext();
        // Of every other one the line is full before an image is through.
        let peer = match number % 2 {
            0 => Asker::connect(to, "PARTNER").await,
            _ => Asker::connect_narrow(to, "PARTNER").await,
        };
        let mut peer = peer.unwrap();
        peer.ask(Verb::Get, Root::Study, &all_of(&study)).await.unwrap();
        silent.push(peer);
    }
    // One reads and does not answer, one answers something else, two go in the middle.
    let mut reading = scene.asked(Verb::Get, &study).await;
    let _ = first_stored(&mut reading).await;
    let begun = Instant::now();
    let mut wrong = scene.asked(Verb::Get, &study).await;
    let (context, request) = first_stored(&mut wrong).await;
    let other = CStoreRq { message_id: request.message_id + 1, ..request };
    wrong.answer(context, &other, Status::SUCCESS).await.unwrap();
    let mut going = scene.asked(Verb::Get, &study).await;
    let _ = first_stored(&mut going).await;
    going.abort().await;
    let mut gone = scene.asked(Verb::Get, &study).await;
    let _ = first_stored(&mut gone).await;
    drop(gone);

    // Others are served meanwhile, and each of those is left.
    scene.serves_others(&study).await;
    wrong.hear().await.expect_err("the answer to another request ends the association");
    reading.hear().await.expect_err("a peer that does not answer is left");
    let waited = begun.elapsed();
    assert!(waited > Duration::from_secs(2) && waited < Duration::from_secs(20), "{waited:?}");
    for mut peer in silent {
        let ended = async { while peer.hear().await.is_ok() {} };
        tokio::time::timeout(Duration::from_secs(20), ended).await.expect("it is left");
    }
    scene.serves_others(&study).await;
    let grown = scene.gateway.peak_memory().saturating_sub(before);
    // What is read ahead, and what else an association holds.
    assert!(grown < (PEERS as u64 + 4) * (2 << 20), "the node took {grown} bytes more");
    assert!(scene.gateway.is_alive());
}
