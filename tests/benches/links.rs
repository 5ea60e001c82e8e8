//! How well the line to a partner is used: how fast the node sends by itself, on a line of 100 Mbit/s, on a long one, and
//! what an emergency has of it while much else waits. In each round every contender does the same job; medians are printed.
//!
//! The line of 100 Mbit/s is the kernel's (a network of the partner's own, veth, tbf), for which this must be root with
//! iproute2; the long one is a relay in this process. Peers have `TCP_NODELAY=1`.
//!
//! `GANTRY_BENCH_ROUNDS` (3) and `GANTRY_BENCH_ONLY` (a part of a job's name) change what is run.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a bench that cannot run fails"
)]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gantry_gateway::association::status::Status;
use gantry_tests::board::{Against, Board, Target, settle_the_disk, spread_folder};
use gantry_tests::http::Ask;
use gantry_tests::process::leashed;
use gantry_tests::{
    Certificates, Dcmtk, Gateway, Namespace, Relay, Sender, Setup, Storescp, eventually,
    eventually_within, namespace,
};
use jiff::Timestamp;
use sample_studies::{Instance, Study};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

const PLAIN: &str = "send 1,000 CT, plain (instances/s)";
const TLS: &str = "send 1,000 CT over mutual TLS (instances/s)";
const HUNDRED: &str = "200 CT over 100 Mbit/s (MB/s)";
const COMPRESSED: &str = "1,000 CT over 100 Mbit/s, compressed on the way (MB/s of what was sent)";
const LONG_CT: &str = "400 CT over 100 Mbit/s and 60 ms (part of the line, %)";
const LONG_SMALL: &str = "2,000 objects of 4 kB over 100 Mbit/s and 60 ms (instances/s)";
const EMERGENCY: &str = "emergency of 600 CT over mutual TLS (ms)";

const OURS: &str = "gantry";
const DCMSEND: &str = "dcmsend";
const STORESCU: &str = "storescu";
const BARE: &str = "bare sender";
const BARE_TIMES_RATIO: &str = "bare sender x ratio of the data";
const LINE: &str = "the line";
const HUNDRED_A_SECOND: &str = "a hundred";
const IDLE: &str = "idle node";
const BUSY: &str = "behind 10,000 routine";

/// 100 Mbit/s, in bytes.
const RATE: f64 = 12.5e6;

fn targets() -> Vec<Target> {
    let at_least =
        |job, ours, factor, theirs| Target { job, ours, against: Against::AtLeast(factor, theirs) };
    vec![
        at_least(PLAIN, OURS, 1.0, DCMSEND),
        at_least(TLS, OURS, 1.0, STORESCU),
        at_least(HUNDRED, OURS, 0.97, BARE),
        at_least(COMPRESSED, OURS, 0.95, BARE_TIMES_RATIO),
        at_least(LONG_CT, OURS, 0.93, LINE),
        at_least(LONG_SMALL, OURS, 1.0, HUNDRED_A_SECOND),
        at_least(EMERGENCY, IDLE, 1.0 / 1.1, BUSY), // times: the idle node's part of the busy one's
    ]
}

#[tokio::main]
async fn main() {
    let rounds =
        std::env::var("GANTRY_BENCH_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(3);
    let only = std::env::var("GANTRY_BENCH_ONLY").unwrap_or_default();
    let runs = |job: &str| job.contains(&only);
    let folder = spread_folder();
    let mut board = Board::default();
    for round in 0..rounds {
        eprintln!("round {} of {rounds}", round + 1);
        if runs(PLAIN) {
            sending(&mut board, PLAIN, &sample_studies::ct_series(round, 1000), false).await;
        }
        if runs(TLS) {
            sending(&mut board, TLS, &sample_studies::ct_series(round, 1000), true).await;
        }
        if runs(HUNDRED) || runs(COMPRESSED) {
            if namespace::is_possible() {
                hundred(&mut board, round, &runs).await;
            } else {
                eprintln!("  left out: a network of its own needs root");
            }
        }
        if runs(LONG_CT) {
            long_ct(&mut board, &sample_studies::ct_series(round, 400)).await;
        }
        if runs(LONG_SMALL) {
            long_small(&mut board, &sample_studies::small_objects(round, 2000)).await;
        }
        if runs(EMERGENCY) {
            board.note(EMERGENCY, IDLE, emergency(round, 0).await);
            board.note(EMERGENCY, BUSY, emergency(round, 10_000).await);
        }
    }
    board.print(&targets());
    drop(folder);
}

/// A receiver as it comes: stored as received, a process for each association.
fn receiver() -> Storescp {
    Dcmtk::storescp("PARTNER").options(&["+B", "--fork"])
}

/// Loads a node with a study, over four associations. When the first was acknowledged.
async fn load(node: &Gateway, instances: &[Instance]) -> Timestamp {
    let (mut first, associations) = (None, 4);
    let to = node.plaintext();
    let instances = Arc::new(instances.to_vec());
    let senders: Vec<_> = (0..associations)
        .map(|number| {
            let instances = instances.clone();
            tokio::spawn(async move {
                let mut sender = Sender::connect(to, &instances[..1]).await.unwrap();
                let mut first = None;
                for instance in instances.iter().skip(number).step_by(associations) {
                    let storing = sender.begin(instance).await.unwrap();
                    assert_eq!(storing.end(&instance.data_set).await.unwrap(), Status::SUCCESS);
                    first.get_or_insert_with(Timestamp::now);
                }
                sender.release().await;
                first
            })
        })
        .collect();
    for sender in senders {
        first = first.into_iter().chain(sender.await.unwrap()).min();
    }
    first.unwrap()
}

/// The one transfer of this priority.
async fn transfer(node: &Gateway, priority: &str) -> Value {
    let transfers = node.api("/api/v1/transfers").await;
    let all = transfers.as_array().unwrap();
    all.iter().find(|transfer| transfer["priority"] == priority).unwrap().clone()
}

fn moment(transfer: &Value, name: &str) -> Timestamp {
    transfer[name].as_str().unwrap_or_else(|| panic!("{name} in {transfer}")).parse().unwrap()
}

/// Waits until all of a transfer was accepted, and says how long that took since then, in seconds.
async fn all_sent(node: &Gateway, priority: &str, count: usize, since: Timestamp) -> f64 {
    let done = eventually_within(Duration::from_mins(5), "everything to be sent", async || {
        let transfer = transfer(node, priority).await;
        (transfer["counts"]["delivered"] == count).then_some(transfer)
    })
    .await;
    moment(&done, "last_sent_at").duration_since(since).as_secs_f64()
}

/// Instances a second between the first and the last answer, of what had all been received before.
async fn send_alone(setup: Setup, partner: &mut Storescp, study: &Study) -> f64 {
    let node = setup.start().await;
    load(&node, &study.instances).await;
    settle_the_disk();
    partner.run().await;
    let id = transfer(&node, "routine").await["id"].as_str().unwrap().to_owned();
    let asked = node.ask(Ask::post(&format!("/api/v1/transfers/{id}/retry"))).await;
    assert_eq!(asked.status, 200, "{}", asked.text());
    node.delivered("partner", study.len()).await;
    let done = transfer(&node, "routine").await;
    let took = moment(&done, "last_sent_at").duration_since(moment(&done, "first_sent_at"));
    (study.len() - 1) as f64 / took.as_secs_f64()
}

async fn sending(board: &mut Board, job: &'static str, study: &Study, tls: bool) {
    let certificates = Arc::new(Certificates::new());
    let identity = certificates.issue("partner");
    let mut partner = if tls { receiver().tls(&certificates, &identity) } else { receiver() };
    let setup = Setup::new().source("pacs", "PACS");
    let setup = if tls {
        let port = partner.port();
        setup.tls(&certificates).partner_over_tls("partner", "PARTNER", port, &identity)
    } else {
        setup.partner("partner", "PARTNER", partner.port())
    };
    let setup = setup.route("GANTRY", &["partner"], "routine");
    board.note(job, OURS, send_alone(setup, &mut partner, study).await);

    partner.forget();
    let folder = tempfile::tempdir().unwrap();
    study.write_to(folder.path()).unwrap();
    settle_the_disk();
    let mut options = vec!["+sd".to_owned(), "+r".to_owned()];
    let program = if tls {
        let path = |path: &Path| path.display().to_string();
        let identity = certificates.issue("pacs");
        options.extend(["+tls".to_owned(), path(&identity.key), path(&identity.certificate)]);
        options.extend(["+cf".to_owned(), path(&certificates.authority())]);
        STORESCU
    } else {
        DCMSEND
    };
    let took = dcmtk_sends(program, &options, partner.address(), folder.path()).await;
    board.note(job, program, study.len() as f64 / took);
}

/// How many seconds a sender of DCMTK takes for a folder.
async fn dcmtk_sends(program: &str, options: &[String], to: SocketAddr, folder: &Path) -> f64 {
    let mut command = leashed(program);
    command.env("TCP_NODELAY", "1").args(options);
    command.args(["-aet", "PACS", "-aec", "PARTNER"]);
    command.args([to.ip().to_string(), to.port().to_string()]).arg(folder);
    let begun = Instant::now();
    let output = command.output().await.expect("DCMTK is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    begun.elapsed().as_secs_f64()
}

/// A partner behind 100 Mbit/s.
async fn hundred(board: &mut Board, round: u64, runs: &impl Fn(&str) -> bool) {
    let namespace = Arc::new(Namespace::new(Some("100mbit")).unwrap());
    let bare = bare(&namespace, 100 << 20).await;
    let through = async |study: &Study, compress: &str| {
        let partner = receiver().inside(&namespace).start().await;
        let setup = Setup::new().source("pacs", "PACS");
        let node = setup
            .partner_at("partner", "PARTNER", partner.address())
            .and(&format!("compress = \"{compress}\""))
            .route("GANTRY", &["partner"], "routine")
            .start()
            .await;
        let first = load(&node, &study.instances).await;
        let took = all_sent(&node, "routine", study.len(), first).await;
        (bytes(study) as f64 / took / 1e6, bytes_in(partner.received().as_ref()))
    };
    if runs(HUNDRED) {
        let study = sample_studies::ct_series(round, 200);
        board.note(HUNDRED, BARE, bare);
        board.note(HUNDRED, OURS, through(&study, "never").await.0);
    }
    if runs(COMPRESSED) {
        let study = sample_studies::ct_series(round, 1000);
        let all = through(&sample_studies::ct_series(round, 20), "always").await.1;
        let ratio = bytes(&sample_studies::ct_series(round, 20)) as f64 / all as f64;
        board.note(COMPRESSED, BARE_TIMES_RATIO, bare * ratio);
        board.note(COMPRESSED, OURS, through(&study, "auto").await.0);
    }
}

fn bytes(study: &Study) -> usize {
    study.instances.iter().map(|instance| instance.data_set.len()).sum()
}

fn bytes_in(folder: &Path) -> u64 {
    let files = std::fs::read_dir(folder).unwrap();
    files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
}

/// MB a second of somebody who has nothing but bytes to send.
async fn bare(namespace: &Namespace, bytes: usize) -> f64 {
    const SINK: &str = "import socket, sys\n\
        server = socket.create_server(('', int(sys.argv[1])))\n\
        stream, _ = server.accept()\n\
        while stream.recv(1 << 18): pass\n";
    let port = gantry_tests::network::free_port();
    let mut command = leashed("ip");
    command.args(["netns", "exec", namespace.name(), "python3", "-c", SINK, &port.to_string()]);
    let mut sink = command.kill_on_drop(true).spawn().unwrap();
    eventually("the sink to listen", async || namespace.is_listening(port).then_some(())).await;
    let begun = Instant::now();
    let mut stream = tokio::net::TcpStream::connect(namespace.at(port)).await.unwrap();
    let piece = vec![0x5A; 1 << 18];
    for _ in 0..bytes / piece.len() {
        stream.write_all(&piece).await.unwrap();
    }
    stream.shutdown().await.unwrap();
    // It ends when it has read everything.
    sink.wait().await.unwrap();
    bytes as f64 / begun.elapsed().as_secs_f64() / 1e6
}

/// A node behind a long line, and the time that it takes for a study.
async fn long(study: &Study, partner: &Storescp) -> f64 {
    let relay = Relay::like(partner.address(), Duration::from_millis(60), Some(RATE)).await;
    let node = Setup::new()
        .source("pacs", "PACS")
        .partner("partner", "PARTNER", relay.port())
        .route("GANTRY", &["partner"], "routine")
        .start()
        .await;
    let first = load(&node, &study.instances).await;
    all_sent(&node, "routine", study.len(), first).await
}

/// The same for DCMTK, which has everything at hand.
async fn long_by_dcmtk(study: &Study, partner: &Storescp) -> f64 {
    partner.forget();
    let folder = tempfile::tempdir().unwrap();
    study.write_to(folder.path()).unwrap();
    let relay = Relay::like(partner.address(), Duration::from_millis(60), Some(RATE)).await;
    let to = SocketAddr::from(([127, 0, 0, 1], relay.port()));
    dcmtk_sends(STORESCU, &["+sd".to_owned(), "+r".to_owned()], to, folder.path()).await
}

async fn long_ct(board: &mut Board, study: &Study) {
    let partner = receiver().start().await;
    let part = |study: &Study, took: f64| 100.0 * bytes(study) as f64 / took / RATE;
    board.note(LONG_CT, LINE, 100.0);
    board.note(LONG_CT, OURS, part(study, long(study, &partner).await));
    let less = Study { instances: study.instances[..100].to_vec(), ..study.clone() };
    board.note(LONG_CT, STORESCU, part(&less, long_by_dcmtk(&less, &partner).await));
}

async fn long_small(board: &mut Board, study: &Study) {
    let partner = receiver().start().await;
    board.note(LONG_SMALL, HUNDRED_A_SECOND, 100.0);
    let took = long(study, &partner).await;
    board.note(LONG_SMALL, OURS, study.len() as f64 / took);
    let less = Study { instances: study.instances[..100].to_vec(), ..study.clone() };
    let took = long_by_dcmtk(&less, &partner).await;
    board.note(LONG_SMALL, STORESCU, less.len() as f64 / took);
}

/// How long an emergency takes, from its first instance at the node to its last at the partner, in ms, while so much else
/// waits for the same partner.
async fn emergency(round: u64, waiting: u32) -> f64 {
    let certificates = Arc::new(Certificates::new());
    let identity = certificates.issue("partner");
    let mut partner = receiver().tls(&certificates, &identity);
    let node = Setup::new()
        .tls(&certificates)
        .source("pacs", "PACS")
        .partner_over_tls("partner", "PARTNER", partner.port(), &identity)
        .route("GANTRY", &["partner"], "routine")
        .route("URGENT", &["partner"], "emergency")
        .start()
        .await;
    if waiting > 0 {
        load(&node, &sample_studies::small_objects(round, waiting).instances).await;
    }
    let study = sample_studies::ct_series(round + 500, 600);
    settle_the_disk();
    partner.run().await;
    if waiting > 0 {
        let id = transfer(&node, "routine").await["id"].as_str().unwrap().to_owned();
        let asked = node.ask(Ask::post(&format!("/api/v1/transfers/{id}/retry"))).await;
        assert_eq!(asked.status, 200, "{}", asked.text());
        eventually("routine to be on its way", async || {
            (node.conservation("partner").await.delivered > 0).then_some(())
        })
        .await;
    }
    let begun = Timestamp::now();
    let mut sender = Sender::connect_as("PACS", "URGENT", node.plaintext(), &study.instances[..1])
        .await
        .unwrap();
    for instance in &study.instances {
        assert_eq!(sender.store(instance).await.unwrap(), Status::SUCCESS);
    }
    sender.release().await;
    let took = all_sent(&node, "emergency", study.len(), begun).await;
    if waiting > 0 {
        let left = node.conservation("partner").await;
        eprintln!("  {} of {waiting} routine still waited at its end", left.waiting);
    }
    took * 1000.0
}
