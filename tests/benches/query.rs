//! How fast questions are answered: C-FIND on 10,000 studies, and C-GET and C-MOVE of 600 CT, beside Orthanc. The same client
//! asks both, on one association, and each round asks both.
//!
//! `GANTRY_BENCH_ROUNDS` (3) rounds. What each query asks for is what a workstation's list of studies shows.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a bench that cannot run fails"
)]

use std::net::SocketAddr;
use std::time::Instant;

use dicom_dictionary_std::tags;
use gantry_gateway::association::data_set::{self, DataSet};
use gantry_gateway::association::query::FIND;
use gantry_gateway::association::requestor::{Proposal, Requestor};
use gantry_gateway::association::services::storage_commitment::known;
use gantry_gateway::association::wire::Tcp;
use gantry_store::dicom::TransferSyntax;
use gantry_tests::board::{Against, Board, Target, settle_the_disk, spread_folder};
use gantry_tests::{Dcmtk, Gateway, Orthanc, Sender, Setup};
use sample_studies::Instance;

const STUDIES: u64 = 10_000;
const CT: u32 = 600;
/// Questions of one kind in one round.
const ASKED: usize = 100;

const OURS: &str = "gantry";
const ORTHANC: &str = "Orthanc";

const BY_ID: &str = "C-FIND by patient ID (queries/s)";
const BY_DAY: &str = "C-FIND one day (queries/s)";
const BY_NAME: &str = "C-FIND name wildcard (queries/s)";
const BY_SUFFIX: &str = "C-FIND name suffix (queries/s)";
const ALL: &str = "C-FIND all 10,000 studies (matches/s)";
const GET: &str = "C-GET of 600 CT (instances/s)";
const MOVE: &str = "C-MOVE of 600 CT (instances/s)";

fn targets() -> Vec<Target> {
    let at_least =
        |job, factor| Target { job, ours: OURS, against: Against::AtLeast(factor, ORTHANC) };
    vec![
        at_least(BY_ID, 5.0),
        at_least(BY_DAY, 5.0),
        at_least(BY_NAME, 5.0),
        at_least(BY_SUFFIX, 5.0),
        at_least(ALL, 4.0),
        at_least(GET, 1.5),
        at_least(MOVE, 1.5),
    ]
}

#[tokio::main]
async fn main() {
    let rounds =
        std::env::var("GANTRY_BENCH_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(3);
    let _folder = spread_folder();
    let receiver = Dcmtk::storescp("PACS").options(&["+B", "--fork"]).start().await;
    let gateway = Setup::new()
        .source_at("pacs", "PACS", receiver.port())
        .and("count = \"never\"\nmay = [\"query\", \"retrieve\"]")
        .start()
        .await;
    let orthanc = Orthanc::start_with(serde_json::json!({
        "DicomAlwaysAllowFind": true, "DicomAlwaysAllowGet": true, "DicomAlwaysAllowMove": true,
        "DicomModalities": { "pacs": ["PACS", "127.0.0.1", receiver.port()] },
        "LimitFindResults": 0,
    }))
    .await;
    let small: Vec<Instance> = (0..STUDIES)
        .map(|seed| sample_studies::small_objects(seed, 1).instances.remove(0))
        .collect();
    let ct = sample_studies::ct_series(STUDIES, CT).instances;
    eprintln!("loading {STUDIES} studies");
    load(&gateway, &small).await;
    load(&gateway, &ct).await;
    orthanc.has(&small).await;
    orthanc.has(&ct).await;

    let servers = [(OURS, "GANTRY", gateway.plaintext()), (ORTHANC, "ORTHANC", orthanc.dicom())];
    let mut board = Board::default();
    for round in 0..rounds {
        eprintln!("round {} of {rounds}", round + 1);
        for (name, called, address) in servers {
            find(&mut board, name, called, address).await;
            retrieve(&mut board, name, called, address, &ct, &receiver).await;
        }
    }
    board.print(&targets());
}

async fn load(gateway: &Gateway, instances: &[Instance]) {
    let mut sender = Sender::connect(gateway.plaintext(), &instances[..1]).await.unwrap();
    sender.store_all(instances).await;
    sender.release().await;
}

async fn connect(called: &str, address: SocketAddr) -> (Requestor<Tcp>, u8) {
    let tcp = Tcp::new(tokio::net::TcpStream::connect(address).await.unwrap()).unwrap();
    let proposal = Proposal {
        calling: "PACS".parse().unwrap(),
        called: called.parse().unwrap(),
        contexts: vec![(known(FIND), vec![TransferSyntax::explicit_vr_little_endian()])],
        provides: None,
        max_pdu: 128 << 10,
        patience: std::time::Duration::from_secs(30),
    };
    let association = Requestor::associate(tcp, &proposal).await.unwrap();
    let context = association.context_of(FIND).unwrap();
    (association, context)
}

/// What a list of studies shows.
fn list() -> DataSet {
    [
        tags::PATIENT_NAME,
        tags::PATIENT_ID,
        tags::PATIENT_BIRTH_DATE,
        tags::STUDY_INSTANCE_UID,
        tags::STUDY_DATE,
        tags::STUDY_TIME,
        tags::ACCESSION_NUMBER,
        tags::STUDY_DESCRIPTION,
    ]
    .into_iter()
    .fold(DataSet::default().with(tags::QUERY_RETRIEVE_LEVEL, "STUDY"), |set, tag| {
        set.with(tag, "")
    })
}

async fn find(board: &mut Board, name: &'static str, called: &str, address: SocketAddr) {
    let (mut association, context) = connect(called, address).await;
    let mut known_studies = Vec::new();
    let begun = Instant::now();
    association
        .find_each(context, &known(FIND), &list(), 20_000, |one| {
            let text = |tag| data_set::text(one.elements(), tag).unwrap_or_default();
            known_studies.push((
                text(tags::PATIENT_ID),
                text(tags::PATIENT_NAME),
                text(tags::STUDY_DATE),
            ));
        })
        .await
        .expect("it answers");
    assert!(known_studies.len() as u64 >= STUDIES, "{name} found {}", known_studies.len());
    board.note(ALL, name, known_studies.len() as f64 / begun.elapsed().as_secs_f64());
    known_studies.sort();
    let step = known_studies.len() / ASKED;
    let asked: Vec<_> = known_studies.iter().step_by(step).take(ASKED).cloned().collect();
    for job in [BY_ID, BY_DAY, BY_NAME, BY_SUFFIX] {
        let begun = Instant::now();
        for (id, patient, date) in &asked {
            let family = patient.split('^').next().unwrap_or_default();
            let tail: String = patient.chars().skip(patient.chars().count() / 2).collect();
            let identifier = match job {
                BY_ID => list().with(tags::PATIENT_ID, id),
                BY_DAY => list().with(tags::STUDY_DATE, date),
                BY_NAME => list().with(tags::PATIENT_NAME, &format!("{family}^*")),
                _ => list().with(tags::PATIENT_NAME, &format!("*{tail}")),
            };
            let mut count = 0;
            association
                .find_each(context, &known(FIND), &identifier, 20_000, |_| count += 1)
                .await
                .expect("it answers");
            assert!(count > 0, "{name}: nothing for {job}");
        }
        board.note(job, name, ASKED as f64 / begun.elapsed().as_secs_f64());
    }
    association.release(std::time::Duration::from_secs(1)).await;
}

async fn retrieve(
    board: &mut Board,
    name: &'static str,
    called: &str,
    address: SocketAddr,
    ct: &[Instance],
    receiver: &gantry_tests::Storescp,
) {
    let study = format!("StudyInstanceUID={}", ct[0].study_instance_uid);
    let keys = ["QueryRetrieveLevel=STUDY", &study];
    let folder = tempfile::tempdir().unwrap();
    settle_the_disk();
    let begun = Instant::now();
    let got = Dcmtk::getscu(&keys, folder.path())
        .calling("PACS")
        .called(called)
        .options(&["-S"])
        .send_to(address)
        .await;
    let seconds = begun.elapsed().as_secs_f64();
    assert!(got.is_success(), "{}", got.said());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), ct.len());
    board.note(GET, name, ct.len() as f64 / seconds);

    receiver.forget();
    settle_the_disk();
    let begun = Instant::now();
    let moved = Dcmtk::movescu(&keys, "PACS")
        .calling("PACS")
        .called(called)
        .options(&["-S"])
        .send_to(address)
        .await;
    let seconds = begun.elapsed().as_secs_f64();
    assert!(moved.is_success(), "{}", moved.said());
    assert_eq!(receiver.count(), ct.len());
    board.note(MOVE, name, ct.len() as f64 / seconds);
}
