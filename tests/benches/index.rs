//! How fast the index is, on SQLite and on PostgreSQL: empty, and with a million instances and five million deliveries.
//!
//! `GANTRY_BENCH_INSTANCES` (1000000) changes how large the large one is, `GANTRY_BENCH_ONLY` (a part of a database's name)
//! which is measured. Making the large one takes minutes.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a bench that cannot run fails"
)]

use std::path::Path;
use std::time::{Duration, Instant};

use dicom_dictionary_std::tags;
use gantry_store::dicom::{Attributes, TransferSyntax};
use gantry_store::facts::{Digest, Facts, ObjectId, Priority, Purpose};
use gantry_store::index::{
    Arrival, DeliveryId, Event, Index, Patience, PostgresHost, PostgresSettings, PostgresTls,
    Receipt, Routed,
};
use gantry_tests::board::{Against, Board, Target};
use gantry_tests::facts::ct_slice;
use gantry_tests::http::Ask;
use gantry_tests::network::free_port;
use gantry_tests::{Gateway, Postgres, Setup};
use jiff::Timestamp;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection};

const PARTNERS: [&str; 5] = ["leeds", "york", "hull", "ripon", "selby"];
const PER_STUDY: u32 = 400;
/// What a busy node's drain and recorder hand in at once.
const BATCH: u32 = 32;

const RECORD: &str = "record 20,000 instances for one partner, 32 at a time (instances/s)";
const DELIVER: &str = "claim 8 and settle them, 20,000 deliveries (deliveries/s)";
const CLAIM: &str = "claim 8 of 5,000,000 deliveries (ms, p99)";
const SETTLE: &str = "settle these 8 (ms, p99)";
const BOARD: &str = "board, with 5,000,000 deliveries (ms, p99)";
const LIST: &str = "list of transfers, with 5,000,000 deliveries (ms, p99)";
const STATUS: &str = "status, with 5,000,000 deliveries (ms, p99)";
const START: &str = "start of a node, with 5,000,000 deliveries (ms)";

#[tokio::main]
async fn main() {
    let instances: u32 = std::env::var("GANTRY_BENCH_INSTANCES")
        .ok()
        .and_then(|count| count.parse().ok())
        .unwrap_or(1_000_000);
    let only = std::env::var("GANTRY_BENCH_ONLY").unwrap_or_default();
    let mut board = Board::default();
    if "SQLite".contains(&only) {
        on(&mut board, Kind::Sqlite, instances).await;
    }
    if "PostgreSQL".contains(&only)
        && let Some(server) = Postgres::start("the bench of the index").await
    {
        let small = Postgres::start("the bench of the index").await.unwrap();
        on(&mut board, Kind::Postgres { small: &small, large: &server }, instances).await;
    }
    let mut targets = Vec::new();
    for ours in ["SQLite", "PostgreSQL"] {
        for (job, most) in [(CLAIM, 5.0), (BOARD, 50.0), (LIST, 50.0), (START, 3000.0)] {
            targets.push(Target { job, ours, against: Against::AtMost(most) });
        }
    }
    board.print(&targets);
}

enum Kind<'p> {
    Sqlite,
    Postgres { small: &'p Postgres, large: &'p Postgres },
}

async fn on(board: &mut Board, kind: Kind<'_>, instances: u32) {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let (name, small, large) = match &kind {
        Kind::Sqlite => (
            "SQLite",
            Index::open(&folder.path().join("small.sqlite")).await.unwrap(),
            Index::open(&data.join("index.sqlite")).await.unwrap(),
        ),
        Kind::Postgres { small, large } => {
            ("PostgreSQL", Index::postgres(settings(small)), Index::postgres(settings(large)))
        }
    };
    rates(board, name, &small).await;
    small.close().await;
    fill(&large, instances).await;
    large.close().await;
    age(&kind, &data, instances).await;
    let large = match &kind {
        Kind::Sqlite => Index::open(&data.join("index.sqlite")).await.unwrap(),
        Kind::Postgres { large, .. } => Index::postgres(settings(large)),
    };
    claims(board, name, &large).await;
    large.close().await;
    pages(board, name, &kind, &data).await;
}

fn settings(server: &Postgres) -> PostgresSettings {
    PostgresSettings {
        host: PostgresHost::Tcp("127.0.0.1".to_owned(), server.port()),
        user: "gantry".to_owned(),
        database: "postgres".to_owned(),
        password: None,
        tls: PostgresTls::Off,
        connections: 16,
        patience: Patience::default(),
    }
}

fn arrival(number: u32, partners: &[&str]) -> Arrival {
    let study = number / PER_STUDY;
    let mut attributes = Attributes::default();
    for (tag, text) in [
        (tags::PATIENT_NAME, format!("PATIENT^NUMBER {study}")),
        (tags::PATIENT_ID, format!("943 {study:07}")),
        (tags::MODALITY, "CT".to_owned()),
        (tags::ACCESSION_NUMBER, format!("A{study}")),
        (tags::STUDY_DESCRIPTION, "CT head".to_owned()),
        (tags::INSTANCE_NUMBER, (number % PER_STUDY).to_string()),
    ] {
        attributes.insert(tag, text.into_bytes());
    }
    let priority = if study.is_multiple_of(10) { Priority::Emergency } else { Priority::Routine };
    let routed = partners.iter().map(|partner| Routed {
        protection: None,
        partner: (*partner).to_owned(),
        route: "to everyone".to_owned(),
        purpose: Purpose::DirectCare,
        priority,
        parcel: None,
    });
    Arrival {
        facts: Facts { attributes, ..ct_slice(ObjectId::new(), study, number % 4, number) },
        routed: routed.collect(),
    }
}

fn accepted() -> Event {
    Event::Accept(Receipt {
        status: 0,
        transfer_syntax: TransferSyntax::explicit_vr_little_endian(),
        digest: Digest([7; 32]),
        at: Timestamp::now(),
    })
}

/// How long it takes to claim eight and to settle them; whether there were any.
async fn one_claim(index: &Index, partner: &str) -> Option<(Duration, Duration)> {
    let begun = Instant::now();
    let claims = index
        .claim(partner, "bench", 8, Duration::from_mins(1), Timestamp::now())
        .await
        .expect("a claim");
    let claimed = begun.elapsed();
    let outcomes: Vec<(DeliveryId, Event)> =
        claims.iter().map(|claim| (claim.delivery, accepted())).collect();
    let begun = Instant::now();
    index.settle(&outcomes, Timestamp::now()).await.expect("outcomes are written");
    (!claims.is_empty()).then(|| (claimed, begun.elapsed()))
}

/// An index that is nearly empty.
async fn rates(board: &mut Board, name: &'static str, index: &Index) {
    const COUNT: u32 = 20_000;
    index.prepare().await.unwrap();
    let begun = Instant::now();
    for first in (0..COUNT).step_by(BATCH as usize) {
        let batch: Vec<_> = (first..first + BATCH).map(|n| arrival(n, &PARTNERS[..1])).collect();
        index.record(&batch).await.unwrap();
    }
    board.note(RECORD, name, f64::from(COUNT) / begun.elapsed().as_secs_f64());
    let begun = Instant::now();
    while one_claim(index, PARTNERS[0]).await.is_some() {}
    board.note(DELIVER, name, f64::from(COUNT) / begun.elapsed().as_secs_f64());
}

async fn fill(index: &Index, instances: u32) {
    index.prepare().await.unwrap();
    let begun = Instant::now();
    for first in (0..instances).step_by(500) {
        let last = instances.min(first + 500);
        let batch: Vec<_> = (first..last).map(|number| arrival(number, &PARTNERS)).collect();
        index.record(&batch).await.unwrap();
        if first.is_multiple_of(100_000) {
            eprintln!("  {first} instances after {:.0} s", begun.elapsed().as_secs_f64());
        }
    }
}

/// Makes the past of it: what came first was delivered long ago, and the last 40,000 instances still wait.
async fn age(kind: &Kind<'_>, data: &Path, instances: u32) {
    let waiting = instances.saturating_sub(40_000) / PER_STUDY * PER_STUDY;
    let statements = [
        "UPDATE instance SET stored = 1".to_owned(),
        format!(
            "UPDATE delivery SET state = 'delivered', due = NULL, attempt = 1, status = 0, \
             sent_syntax = '1.2.840.10008.1.2.1', sent_digest = (SELECT digest FROM instance LIMIT 1), \
             sent_at = 1700000000000 + instance WHERE instance <= {waiting}"
        ),
        "UPDATE transfer SET received_all_at = created_at + 60000".to_owned(),
        "UPDATE transfer SET all_sent_at = created_at + 70000 WHERE NOT EXISTS \
         (SELECT 1 FROM delivery WHERE transfer = transfer.id AND state = 'queued')"
            .to_owned(),
    ];
    match kind {
        Kind::Sqlite => {
            let path = data.join("index.sqlite");
            let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
            let mut database = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
            for statement in statements {
                sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut database).await.unwrap();
            }
            database.close().await.unwrap();
        }
        Kind::Postgres { large, .. } => {
            let url = format!("postgres://gantry@127.0.0.1:{}/postgres", large.port());
            let mut database = sqlx::PgConnection::connect(&url).await.unwrap();
            for statement in statements {
                sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut database).await.unwrap();
            }
            // What autovacuum does to a table that grew over months.
            sqlx::raw_sql("VACUUM ANALYZE").execute(&mut database).await.unwrap();
            database.close().await.unwrap();
        }
    }
}

async fn claims(board: &mut Board, name: &'static str, index: &Index) {
    index.prepare().await.unwrap();
    let (mut claims, mut settles) = (Vec::new(), Vec::new());
    for turn in 0..2000 {
        let Some((claimed, settled)) = one_claim(index, PARTNERS[turn % PARTNERS.len()]).await
        else {
            break;
        };
        claims.push(claimed);
        settles.push(settled);
    }
    board.note(CLAIM, name, p99(claims));
    board.note(SETTLE, name, p99(settles));
}

fn p99(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() * 99 / 100].as_secs_f64() * 1000.0
}

/// What people wait for: the node's start, and what it shows then.
async fn pages(board: &mut Board, name: &'static str, kind: &Kind<'_>, data: &Path) {
    let mut setup = Setup::new().data_dir(data).source("pacs", "PACS");
    // Nobody is there, so that what waits stays.
    for partner in PARTNERS {
        setup = setup.partner(partner, &partner.to_uppercase(), free_port());
    }
    if let Kind::Postgres { large, .. } = kind {
        setup = setup.database(&large.url());
    }
    let begun = Instant::now();
    let node = setup.start().await;
    board.note(START, name, begun.elapsed().as_secs_f64() * 1000.0);
    let cookie = session(&node).await;
    for (job, path, times) in
        [(BOARD, "/", 300), (LIST, "/api/v1/transfers", 300), (STATUS, "/api/v1/status", 20)]
    {
        let mut waited = Vec::new();
        for _ in 0..times {
            let begun = Instant::now();
            let answer = Ask::get(path).cookie(&cookie).to(node.web()).await.unwrap();
            waited.push(begun.elapsed());
            assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        }
        board.note(job, name, p99(waited));
    }
}

/// The cookie of a browser that has signed in.
async fn session(node: &Gateway) -> String {
    let output = node.command(&["web", "link", "--json"]).await;
    let link: Value = serde_json::from_slice(&output.stdout).unwrap();
    let origin = format!("http://{}", node.web());
    let link = link["url"].as_str().unwrap().strip_prefix(&origin).unwrap().to_owned();
    let ask = Ask::post(&link).origin(&origin).form("name=A+Registrar");
    let answer = ask.to(node.web()).await.unwrap();
    answer.header("set-cookie").unwrap().split(';').next().unwrap().to_owned()
}
