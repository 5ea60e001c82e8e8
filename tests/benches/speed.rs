//! How fast the path is, side by side with DCMTK and Orthanc: in each round every contender does the same job, and what
//! is printed are medians over the rounds and ratios of them.
//!
//! Every DCMTK and Orthanc process has `TCP_NODELAY=1` in its environment unless a row says otherwise; without it they
//! wait 40 ms for each instance. Orthanc runs with its defaults. Absolute figures are of the machine and the hour.
//!
//! `GANTRY_BENCH_ROUNDS` (5) and `GANTRY_BENCH_ONLY` (a part of a job's name) change what is run.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a bench that cannot run fails"
)]

use std::fs::{self, File};
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gantry_gateway::association::requestor::Storing;
use gantry_gateway::association::status::Status;
use gantry_gateway::association::wire::Stream;
use gantry_tests::board::{Against, Board, Target, settle_the_disk, spread_folder};
use gantry_tests::network::{free_port, is_listening};
use gantry_tests::{
    Certificates, Dcmtk, Gateway, Orthanc, Postgres, Sender, Setup, eventually, eventually_within,
};
use jiff::Timestamp;
use sample_studies::Instance;
use serde_json::{Value, json};

const CT: u32 = 1000;
const SMALL: u32 = 5000;

const RECEIVE_CT_1: &str = "receive 1,000 CT of 525 kB, 1 association (instances/s)";
const RECEIVE_CT_4: &str = "receive 1,000 CT of 525 kB, 4 associations (instances/s)";
const RECEIVE_SMALL: &str = "receive 5,000 objects of 4 kB, 1 association (instances/s)";
const RECEIVED_CT: &str = "receive 1,000 CT, answered before the sync (instances/s)";
const RECEIVED_SMALL: &str =
    "receive 5,000 objects of 4 kB, answered before the sync (instances/s)";
const NAGLE: &str = "receive 250 CT from a stock storescu, Nagle on (instances/s)";
const FORWARD: &str = "store and forward 1,000 CT over mutual TLS (ms)";
const MEMORY: &str = "peak memory of the node (MiB)";

const OURS: &str = "gantry, durable";
const OURS_RECEIVED: &str = "gantry, acknowledge = received";
const BARE: &str = "bare loop: write, fdatasync, rename, sync folder";
const ORTHANC: &str = "Orthanc";
const STORESCP: &str = "storescp";
const STORESCP_B: &str = "storescp +B, which looks at nothing";
const STOCK_STORESCP: &str = "storescp, Nagle on too";

fn targets() -> Vec<Target> {
    let at_least =
        |job, ours, factor, theirs| Target { job, ours, against: Against::AtLeast(factor, theirs) };
    let at_most = |job, ours, most| Target { job, ours, against: Against::AtMost(most) };
    vec![
        at_least(RECEIVE_CT_1, OURS, 0.8, BARE),
        at_least(RECEIVE_CT_1, OURS, 3.0, ORTHANC),
        at_least(RECEIVE_CT_4, OURS, 3.0, ORTHANC),
        at_least(RECEIVE_SMALL, OURS, 4.0, ORTHANC),
        at_least(RECEIVED_CT, OURS_RECEIVED, 1.0, STORESCP),
        at_least(RECEIVED_SMALL, OURS_RECEIVED, 1.5, STORESCP),
        at_least(NAGLE, OURS, 10.0, STOCK_STORESCP),
        at_most(FORWARD, FIRST_AFTER_ACK, 50.0),
        at_most(FORWARD, LAST_BEHIND, 0.0),
        at_least(FORWARD, ORTHANC_WHOLE, 3.0, WHOLE),
        at_least(FORWARD, SCRIPT_WHOLE, 1.25, WHOLE),
        at_least(FORWARD, ORTHANC_STUDY, 2.5, WHOLE),
        at_least(FORWARD, WHOLE, 0.85, WHOLE_ON_POSTGRES), // both are times, so the slower one stands below
        at_most(MEMORY, MEMORY_1500, 96.0),
        at_most(MEMORY, MEMORY_CT, 80.0),
    ]
}

const FIRST_AFTER_ACK: &str = "gantry: first at the partner, after its acknowledgement";
const LAST_BEHIND: &str =
    "gantry: last at the partner, beyond 0.3 s + 5 % after the last was received";
const WHOLE: &str = "gantry: whole job";
const WHOLE_ON_POSTGRES: &str = "gantry on PostgreSQL: whole job";
const SCRIPT_WHOLE: &str = "storescp, then storescu of all of it: whole job";
const ORTHANC_WHOLE: &str = "Orthanc, script per instance: whole job";
const ORTHANC_STUDY: &str = "Orthanc, script per study, after a second: whole job";
const MEMORY_1500: &str = "gantry: one multi-frame instance of 1.5 GB, received and forwarded";
const MEMORY_CT: &str = "gantry: 1,000 CT, received and forwarded";

#[tokio::main]
async fn main() {
    let rounds =
        std::env::var("GANTRY_BENCH_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(5);
    let only = std::env::var("GANTRY_BENCH_ONLY").unwrap_or_default();
    let runs = |job: &str| job.contains(&only);
    let folder = spread_folder();
    let mut board = Board::default();
    for round in 0..rounds {
        eprintln!("round {} of {rounds}", round + 1);
        let ct = Arc::new(sample_studies::ct_series(round, CT).instances);
        let small = Arc::new(sample_studies::small_objects(round + 1000, SMALL).instances);
        if runs(RECEIVE_CT_1) {
            board.note(RECEIVE_CT_1, BARE, bare_loop(&ct));
            board.note(RECEIVE_CT_1, OURS, gantry("durable", &ct, 1).await);
            board.note(RECEIVE_CT_1, ORTHANC, orthanc(&ct, 1).await);
        }
        if runs(RECEIVE_CT_4) {
            board.note(RECEIVE_CT_4, OURS, gantry("durable", &ct, 4).await);
            board.note(RECEIVE_CT_4, ORTHANC, orthanc(&ct, 4).await);
        }
        if runs(RECEIVE_SMALL) {
            board.note(RECEIVE_SMALL, BARE, bare_loop(&small));
            board.note(RECEIVE_SMALL, OURS, gantry("durable", &small, 1).await);
            board.note(RECEIVE_SMALL, ORTHANC, orthanc(&small, 1).await);
        }
        if runs(RECEIVED_CT) {
            board.note(RECEIVED_CT, OURS_RECEIVED, gantry("received", &ct, 1).await);
            board.note(RECEIVED_CT, STORESCP, storescp(&ct, &[]).await);
            board.note(RECEIVED_CT, STORESCP_B, storescp(&ct, &["+B"]).await);
        }
        if runs(RECEIVED_SMALL) {
            board.note(RECEIVED_SMALL, OURS_RECEIVED, gantry("received", &small, 1).await);
            board.note(RECEIVED_SMALL, STORESCP, storescp(&small, &[]).await);
            board.note(RECEIVED_SMALL, STORESCP_B, storescp(&small, &["+B"]).await);
        }
        if runs(NAGLE) {
            nagle(&mut board, round).await;
        }
        if runs(FORWARD) || runs(MEMORY) {
            forward(&mut board, &ct).await;
            forward_on_postgres(&mut board, &ct).await;
            forward_by_orthanc(&mut board, &ct).await;
            forward_by_script(&mut board, &ct).await;
        }
        if runs(MEMORY) {
            multi_frame(&mut board).await;
        }
    }
    board.print(&targets());
    drop(folder);
}

/// What the same disk gives to a program that does nothing else.
fn bare_loop(instances: &[Instance]) -> f64 {
    let folder = tempfile::tempdir().unwrap();
    let names = File::open(folder.path()).unwrap();
    per_second(instances.len(), || {
        for instance in instances {
            let part = folder.path().join("part");
            let mut file = File::create(&part).unwrap();
            file.write_all(&instance.data_set).unwrap();
            file.sync_data().unwrap();
            fs::rename(&part, folder.path().join(&instance.sop_instance_uid)).unwrap();
            names.sync_all().unwrap();
        }
    })
}

fn per_second(count: usize, work: impl FnOnce()) -> f64 {
    settle_the_disk();
    let begun = Instant::now();
    work();
    count as f64 / begun.elapsed().as_secs_f64()
}

/// Instances a second over some associations at once, everything acknowledged.
async fn load(to: SocketAddr, instances: &Arc<Vec<Instance>>, associations: usize) -> f64 {
    settle_the_disk();
    let begun = Instant::now();
    let senders: Vec<_> = (0..associations)
        .map(|number| {
            let instances = instances.clone();
            tokio::spawn(async move {
                let mut sender =
                    Sender::connect(to, &instances[..1]).await.expect("an association");
                for instance in instances.iter().skip(number).step_by(associations) {
                    let storing = sender.begin(instance).await.expect("the association holds");
                    assert_eq!(storing.end(&instance.data_set).await.unwrap(), Status::SUCCESS);
                }
                sender.release().await;
            })
        })
        .collect();
    for sender in senders {
        sender.await.unwrap();
    }
    instances.len() as f64 / begun.elapsed().as_secs_f64()
}

async fn gantry(acknowledge: &str, instances: &Arc<Vec<Instance>>, associations: usize) -> f64 {
    let setup = Setup::new().source("pacs", "PACS");
    let node = setup.intake(&format!("acknowledge = \"{acknowledge}\"\n")).start().await;
    load(node.plaintext(), instances, associations).await
}

async fn orthanc(instances: &Arc<Vec<Instance>>, associations: usize) -> f64 {
    let orthanc = Orthanc::start().await;
    load(orthanc.dicom(), instances, associations).await
}

async fn storescp(instances: &Arc<Vec<Instance>>, options: &[&str]) -> f64 {
    let receiver = Dcmtk::storescp_as_it_comes("GANTRY").options(options).start().await;
    load(receiver.address(), instances, 1).await
}

/// A sender as it comes, with Nagle's algorithm on.
async fn nagle(board: &mut Board, round: u64) {
    let study = sample_studies::ct_series(round, 250);
    let folder = tempfile::tempdir().unwrap();
    study.write_to(folder.path()).unwrap();
    let node = Setup::new().source("pacs", "PACS").start().await;
    let port = free_port();
    let received = tempfile::tempdir().unwrap();
    let mut receiver = tokio::process::Command::new("storescp");
    receiver.args(["-aet", "GANTRY", "-od"]).arg(received.path()).arg(port.to_string());
    let _receiver = receiver.env_remove("TCP_NODELAY").kill_on_drop(true).spawn().unwrap();
    eventually("the stock storescp to listen", async || is_listening(port).then_some(())).await;
    let stock = SocketAddr::from(([127, 0, 0, 1], port));
    for (contender, to) in [(OURS, node.plaintext()), (STOCK_STORESCP, stock)] {
        settle_the_disk();
        let begun = Instant::now();
        stock_storescu(to, folder.path()).await;
        board.note(NAGLE, contender, study.len() as f64 / begun.elapsed().as_secs_f64());
    }
}

async fn stock_storescu(to: SocketAddr, folder: &Path) {
    let mut command = tokio::process::Command::new("storescu");
    command.args([
        "-aet",
        "PACS",
        "-aec",
        "GANTRY",
        "+sd",
        "+r",
        &to.ip().to_string(),
        &to.port().to_string(),
    ]);
    command.arg(folder).env_remove("TCP_NODELAY");
    let output = command.output().await.expect("DCMTK is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// From a plain sender, through the node, to storescp over mutual TLS.
async fn forward(board: &mut Board, instances: &Arc<Vec<Instance>>) {
    let (mut node, _partner) = forwarding(Setup::new()).await;
    let Forwarded { first, received, behind } = forward_through(&node, instances).await;
    board.note(FORWARD, FIRST_AFTER_ACK, first);
    board.note(FORWARD, "gantry: last at the partner, after the last was received", behind);
    board.note(FORWARD, LAST_BEHIND, behind - 300.0 - 0.05 * received);
    board.note(FORWARD, WHOLE, received + behind);
    board.note(MEMORY, MEMORY_CT, node.peak_memory() as f64 / f64::from(1 << 20));
}

/// The same with its rows in PostgreSQL, whose server has to live on the same processors.
async fn forward_on_postgres(board: &mut Board, instances: &Arc<Vec<Instance>>) {
    let Some(database) = Postgres::start("the bench of PostgreSQL").await else { return };
    let (node, _partner) = forwarding(Setup::new().database(&database.url())).await;
    let Forwarded { received, behind, .. } = forward_through(&node, instances).await;
    board.note(FORWARD, WHOLE_ON_POSTGRES, received + behind);
}

/// How long it took, in ms.
struct Forwarded {
    /// From the first acknowledgement to the first instance at the partner.
    first: f64,
    /// Until all was received.
    received: f64,
    /// From the last acknowledgement to the last instance at the partner.
    behind: f64,
}

async fn forward_through(node: &Gateway, instances: &Arc<Vec<Instance>>) -> Forwarded {
    settle_the_disk();
    let begun = Instant::now();
    let mut sender = Sender::connect(node.plaintext(), &instances[..1]).await.unwrap();
    let (mut first, mut last) = (None, Timestamp::now());
    for instance in instances.iter() {
        let storing = sender.begin(instance).await.unwrap();
        assert_eq!(storing.end(&instance.data_set).await.unwrap(), Status::SUCCESS);
        last = Timestamp::now();
        first.get_or_insert(last);
    }
    let received = begun.elapsed();
    sender.release().await;
    node.delivered("partner", instances.len()).await;
    let transfers = node.api("/api/v1/transfers").await;
    let transfer = &transfers[0];
    let at = |name: &str| -> Timestamp {
        transfer[name].as_str().unwrap_or_else(|| panic!("{name} in {transfer}")).parse().unwrap()
    };
    let ms = |from: Timestamp, to: Timestamp| to.duration_since(from).as_secs_f64() * 1000.0;
    Forwarded {
        first: ms(first.unwrap(), at("first_sent_at")),
        received: received.as_secs_f64() * 1000.0,
        behind: ms(last, at("last_sent_at")),
    }
}

async fn forwarding(setup: Setup) -> (Gateway, gantry_tests::Storescp) {
    let certificates = Arc::new(Certificates::new());
    let identity = certificates.issue("partner");
    // As it comes: stored as received, a process for each association.
    let partner = Dcmtk::storescp("PARTNER")
        .options(&["+B", "--fork"])
        .tls(&certificates, &identity)
        .start()
        .await;
    let node = setup
        .tls(&certificates)
        .source("pacs", "PACS")
        .partner_over_tls("partner", "PARTNER", partner.port(), &identity)
        .route("GANTRY", &["partner"], "emergency")
        .start()
        .await;
    (node, partner)
}

/// The same job by DCMTK, as a script would have it: one program receives, and at the end of the study another sends.
async fn forward_by_script(board: &mut Board, instances: &Arc<Vec<Instance>>) {
    let certificates = Arc::new(Certificates::new());
    let (identity, own) = (certificates.issue("partner"), certificates.issue("gantry"));
    let partner = Dcmtk::storescp("PARTNER")
        .options(&["+B", "--fork"])
        .tls(&certificates, &identity)
        .start()
        .await;
    let receiver = Dcmtk::storescp_as_it_comes("GANTRY").start().await;
    settle_the_disk();
    let begun = Instant::now();
    load(receiver.address(), instances, 1).await;
    let mut command = tokio::process::Command::new("storescu");
    command
        .env("TCP_NODELAY", "1")
        .args(["-aet", "GANTRY", "-aec", "PARTNER", "+sd", "+r", "+tls"]);
    command.args([own.key, own.certificate]).arg("+cf").arg(certificates.authority());
    command.args(["127.0.0.1", &partner.port().to_string()]).arg(receiver.received().as_ref());
    let output = command.output().await.expect("DCMTK is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(partner.count(), instances.len());
    board.note(FORWARD, SCRIPT_WHOLE, begun.elapsed().as_secs_f64() * 1000.0);
}

/// The same job by Orthanc, which sends each instance on when it has stored it.
async fn forward_by_orthanc(board: &mut Board, instances: &Arc<Vec<Instance>>) {
    let each = "function OnStoredInstance(instanceId, tags, metadata, origin) SendToModality(instanceId, 'partner') end";
    board.note(FORWARD, ORTHANC_WHOLE, orthanc_forwards(each, instances).await);
    // A second after nothing more has come, which is the least that it can be told.
    let all =
        "function OnStableStudy(studyId, tags, metadata) SendToModality(studyId, 'partner') end";
    board.note(FORWARD, ORTHANC_STUDY, orthanc_forwards(all, instances).await);
}

/// How long Orthanc takes with this script, in ms.
async fn orthanc_forwards(text: &str, instances: &Arc<Vec<Instance>>) -> f64 {
    let partner = Dcmtk::storescp("PARTNER").options(&["+B", "--fork"]).start().await;
    let script = tempfile::NamedTempFile::new().unwrap();
    fs::write(script.path(), text).unwrap();
    let orthanc = Orthanc::start_with(json!({
        "LuaScripts": [script.path()],
        "DicomModalities": { "partner": ["PARTNER", "127.0.0.1", partner.port()] },
    }))
    .await;
    let begun = Instant::now();
    load(orthanc.dicom(), instances, 1).await;
    eventually_within(Duration::from_mins(3), "Orthanc to have sent everything on", async || {
        (partner.count() == instances.len()).then_some(())
    })
    .await;
    begun.elapsed().as_secs_f64() * 1000.0
}

/// One instance of 1.5 GB through the node.
async fn multi_frame(board: &mut Board) {
    let (mut node, _partner) = forwarding(Setup::new()).await;
    let instance = sample_studies::multi_frame(1, 2861, 512, 512);
    // What the sender announces; the data set itself is made while it is sent.
    let mut announced =
        sample_studies::multi_frame(1, 1, 16, 16).build().unwrap().instances.remove(0);
    announced.sop_instance_uid = instance.sop_instance_uid();
    let mut sender =
        Sender::connect(node.plaintext(), std::slice::from_ref(&announced)).await.unwrap();
    sender.set_patience(Duration::from_mins(5));
    let (chunks, mut made) = tokio::sync::mpsc::channel::<Vec<u8>>(4);
    let maker =
        tokio::task::spawn_blocking(move || instance.write_data_set(&mut Chunks(chunks)).unwrap());
    let mut storing: Storing<'_, Box<dyn Stream>> = sender.begin(&announced).await.unwrap();
    let mut held = made.recv().await.unwrap();
    while let Some(chunk) = made.recv().await {
        storing.data(&held).await.unwrap();
        held = chunk;
    }
    assert_eq!(storing.end(&held).await.unwrap(), Status::SUCCESS);
    maker.await.unwrap();
    sender.release().await;
    node.delivered("partner", 1).await;
    board.note(MEMORY, MEMORY_1500, node.peak_memory() as f64 / f64::from(1 << 20));
    let settled: Value = eventually("the object to be stored", async || {
        let status = node.api("/api/v1/status").await;
        (status["spool"]["waiting"] == 0).then_some(status)
    })
    .await;
    drop(settled);
}

/// Hands on what is written, in pieces of their own.
struct Chunks(tokio::sync::mpsc::Sender<Vec<u8>>);

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.blocking_send(bytes.to_vec()).map_err(std::io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
