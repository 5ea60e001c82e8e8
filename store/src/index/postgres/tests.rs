//! Several nodes on one database, and a database that goes away at the worst moment.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

use super::super::samples::{accepted, at, ct, empty_database, server};
use super::super::{EventKind, Index, RecordedAs, StudyFilter, TransferFilter};
use super::*;
use crate::facts::Priority;

const ROUTINE: Priority = Priority::Routine;
const MINUTE: Duration = Duration::from_mins(1);

/// Two nodes on one database; `None`, said loudly, on a machine without PostgreSQL.
async fn two_nodes(test: &str) -> Option<[Index; 2]> {
    server(test)?;
    let settings = empty_database().await;
    Some([Index::postgres(settings.clone()), Index::postgres(settings)])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_nodes_may_record_the_same_studies_at_once() {
    let Some(nodes) = two_nodes("two nodes record").await else { return };
    let mut tasks = JoinSet::new();

    // Each of 4 studies comes to both nodes, by two associations each, in other orders; every instance comes four times.
    for (node, association) in [(0, 0), (0, 1), (1, 2), (1, 3)] {
        let index = nodes[node].clone();
        tasks.spawn(async move {
            for round in 0..10 {
                let mut batch: Vec<_> = (1..=4)
                    .flat_map(|study| [2 * round + 1, 2 * round + 2].map(|n| ct(study, n)))
                    .map(|arrival| arrival.to("york", ROUTINE).to("leeds", ROUTINE))
                    .collect();
                batch.rotate_left(association * 2);
                index.record(&batch).await.unwrap();
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }

    let totals = nodes[0].totals().await.unwrap();
    assert_eq!((totals.studies, totals.series, totals.instances), (4, 4, 80));
    let studies = nodes[1].studies(&StudyFilter::default()).await.unwrap();
    assert!(studies.iter().all(|study| study.instance_count == 20 && !study.patient_conflict));
    let transfers = nodes[1].transfers(&TransferFilter::default()).await.unwrap();
    assert!(transfers.len() == 8 && transfers.iter().all(|transfer| transfer.counts.total == 20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_instance_in_two_studies_at_once_is_one_version_each_and_one_is_held() {
    let Some(nodes) = two_nodes("one instance in two studies").await else { return };
    for number in 0..20 {
        let first = ct(1, number).to("york", ROUTINE);
        let mut second = ct(1, number).altered(9).to("york", ROUTINE);
        second.facts.study = "1.2.2".parse().unwrap();

        let (first, second) = ([first], [second]);
        let (a, b) = tokio::join!(nodes[0].record(&first), nodes[1].record(&second));

        let outcomes = [a.unwrap()[0].outcome, b.unwrap()[0].outcome];
        let both = [RecordedAs::New, RecordedAs::Quarantined];
        assert!(outcomes == both || outcomes == [both[1], both[0]], "{outcomes:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_nodes_never_claim_the_same_delivery_and_say_once_that_all_was_sent() {
    let Some(nodes) = two_nodes("two nodes claim").await else { return };
    let batch: Vec<_> = (0..200).map(|number| ct(1, number).to("york", ROUTINE)).collect();
    let id = nodes[0].record(&batch).await.unwrap()[0].transfers[0];
    nodes[0].note_received_all(&[id], at(1)).await.unwrap();
    let claimed = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = JoinSet::new();

    for (number, index) in nodes.iter().cycle().take(6).cloned().enumerate() {
        let claimed = claimed.clone();
        tasks.spawn(async move {
            let owner = format!("node-{}", number % 2);
            let mut finished = 0;
            loop {
                let claims = index.claim("york", &owner, 7, MINUTE, at(2)).await.unwrap();
                // What is left may be in another's hands at this moment: then it is not for this one.
                if claims.is_empty() {
                    return finished;
                }
                let ids: Vec<_> = claims.iter().map(|claim| claim.delivery).collect();
                claimed.lock().unwrap().extend(ids.clone());
                let outcomes: Vec<_> = ids.iter().rev().map(|id| (*id, accepted(3))).collect();
                let settled = index.settle(&outcomes, at(3)).await.unwrap();
                assert!(settled.iter().all(|settled| settled.result.is_ok()));
                finished += settled.iter().filter(|settled| settled.all_sent).count();
            }
        });
    }
    let mut finished = 0;
    while let Some(done) = tasks.join_next().await {
        finished += done.unwrap();
    }

    let claimed = claimed.lock().unwrap().clone();
    assert_eq!((claimed.len(), claimed.iter().collect::<HashSet<_>>().len()), (200, 200));
    let events = nodes[1].transfer(id).await.unwrap().unwrap().events;
    assert_eq!(events.iter().filter(|event| event.kind == EventKind::AllSent).count(), 1);
    assert_eq!(finished, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_people_decide_reaches_what_another_node_is_sending() {
    let Some(nodes) = two_nodes("people decide").await else { return };
    let batch: Vec<_> = (0..60).map(|number| ct(1, number).to("york", ROUTINE)).collect();
    let id = nodes[0].record(&batch).await.unwrap()[0].transfers[0];
    let sending = {
        let index = nodes[0].clone();
        tokio::spawn(async move {
            for second in 0..12 {
                let claims = index.claim("york", "node-0", 5, MINUTE, at(second)).await.unwrap();
                let give_back: Vec<_> = claims.iter().map(|claim| claim.delivery).collect();
                index.release(&give_back).await.unwrap();
            }
        })
    };

    nodes[1].make_urgent(id, Priority::Emergency, "dr-jones", "", at(1)).await.unwrap();
    nodes[1].cancel(id, "dr-jones", "", at(2)).await.unwrap();
    sending.await.unwrap();

    let counts = nodes[1].transfer(id).await.unwrap().unwrap().transfer.counts;
    assert_eq!((counts.cancelled, counts.total), (60, 60));
    assert!(nodes[0].claim("york", "node-0", 9, MINUTE, at(99)).await.unwrap().is_empty());
}

#[tokio::test]
async fn texts_that_postgresql_would_refuse_are_recorded() {
    use dicom_dictionary_std::tags;
    let Some([index, _]) = two_nodes("texts").await else { return };
    let long: String = (0..1000_u32).filter_map(|n| char::from_digit(n % 10, 10)).collect();
    let odd = ct(1, 1)
        .with(tags::PATIENT_ID, &long)
        .with(tags::ISSUER_OF_PATIENT_ID, &long.replace('1', "x"))
        .with(tags::ACCESSION_NUMBER, &long)
        .with(tags::PATIENT_NAME, "SMITH\0ANNA");

    index.record(&[odd.to("york", ROUTINE)]).await.unwrap();

    let study = index.studies(&StudyFilter::default()).await.unwrap().remove(0);
    assert_eq!(study.patient_id.reveal().as_deref(), Some(long.as_str()));
    assert_eq!(study.patient_name.reveal().as_deref(), Some("SMITH\u{FFFD}ANNA"));
}

/// A line to the server on which a test can do harm.
struct Line {
    mode: Arc<AtomicU8>,
    port: u16,
    task: AbortHandle,
}

/// Passes everything on.
const PASS: u8 = 0;
/// Takes everything and passes nothing on.
const STALL: u8 = 1;
/// Cuts the connection at the next COMMIT, which the server never sees.
const CUT_BEFORE: u8 = 2;
/// Passes the next COMMIT on, and cuts the connection before its answer.
const CUT_AFTER: u8 = 3;

impl Line {
    async fn to(settings: &PostgresSettings) -> Self {
        let PostgresHost::Tcp(host, port) = settings.host.clone() else { unreachable!() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let local = listener.local_addr().unwrap().port();
        let mode = Arc::new(AtomicU8::new(PASS));
        let shared = mode.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect((host.as_str(), port)).await.unwrap();
                tokio::spawn(carry(client, server, shared.clone()));
            }
        });
        Self { mode, port: local, task: task.abort_handle() }
    }

    fn set(&self, mode: u8) {
        self.mode.store(mode, Ordering::SeqCst);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(mut client: TcpStream, mut server: TcpStream, mode: Arc<AtomicU8>) {
    let (mut up, mut down) = (vec![0; 65536], vec![0; 65536]);
    loop {
        tokio::select! {
            read = client.read(&mut up) => {
                let Ok(length @ 1..) = read else { return };
                let commits = up[..length].windows(7).any(|bytes| bytes == b"COMMIT\0");
                match mode.load(Ordering::SeqCst) {
                    STALL => {}
                    CUT_BEFORE if commits => {
                        mode.store(PASS, Ordering::SeqCst);
                        return;
                    }
                    CUT_AFTER if commits => {
                        server.write_all(&up[..length]).await.unwrap();
                        let _ = server.read(&mut down).await;
                        mode.store(PASS, Ordering::SeqCst);
                        return;
                    }
                    _ => server.write_all(&up[..length]).await.unwrap(),
                }
            }
            read = server.read(&mut down) => {
                let Ok(length @ 1..) = read else { return };
                if mode.load(Ordering::SeqCst) != STALL && client.write_all(&down[..length]).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// An index behind such a line.
async fn behind_a_line(test: &str) -> Option<(Index, Line)> {
    server(test)?;
    let mut settings = empty_database().await;
    let line = Line::to(&settings).await;
    settings.host = PostgresHost::Tcp("127.0.0.1".to_owned(), line.port);
    settings.patience = Patience {
        connect: Duration::from_millis(800),
        statement: Duration::from_millis(800),
        operation: Duration::from_secs(1),
    };
    Some((Index::postgres(settings), line))
}

#[tokio::test]
async fn a_server_that_hangs_is_given_up_in_time_and_found_again_at_once() {
    let Some((index, line)) = behind_a_line("a server that hangs").await else { return };
    index.record(&[ct(1, 1).to("york", ROUTINE)]).await.unwrap();
    line.set(STALL);

    let begun = Instant::now();
    let mut errors = Vec::new();
    for number in 2..5 {
        errors.push(index.record(&[ct(1, number)]).await.unwrap_err());
    }
    errors.push(index.totals().await.unwrap_err());

    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    for error in errors {
        assert!(error.is_outage() && error.to_string().contains("did not answer"), "{error}");
    }
    line.set(PASS);
    let begun = Instant::now();
    index.record(&[ct(1, 5).to("york", ROUTINE)]).await.unwrap();
    assert_eq!(index.claim("york", "node", 9, MINUTE, at(9)).await.unwrap().len(), 2);
    assert!(begun.elapsed() < Duration::from_millis(700), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_node_may_start_before_its_database() {
    let Some(_) = server("a node before its database") else { return };
    let settings = empty_database().await;
    let line = Line::to(&settings).await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let host = PostgresHost::Tcp("127.0.0.1".to_owned(), nobody);
    let early = Index::postgres(PostgresSettings { host, ..settings.clone() });

    let away = early.prepare().await.unwrap_err();

    assert!(matches!(away, IndexError::Connect { .. }) && away.is_outage(), "{away}");
    let host = PostgresHost::Tcp("127.0.0.1".to_owned(), line.port);
    let patience = Patience { connect: Duration::from_millis(300), ..Patience::default() };
    line.set(STALL);
    let index = Index::postgres(PostgresSettings { host, patience, ..settings });
    let hanging = index.record(&[ct(1, 1)]).await.unwrap_err();
    assert!(hanging.is_outage(), "{hanging}");
    line.set(PASS);
    index.record(&[ct(1, 1)]).await.unwrap();
}

/// Does something while its commit is cut off in one way and the other, and says that it must be repeatable: the error
/// says that nobody knows, and after the repetition everything is as if it had been done once.
#[tokio::test]
async fn what_was_cut_off_in_its_commit_may_be_done_again() {
    for cut in [CUT_BEFORE, CUT_AFTER] {
        let Some((index, line)) = behind_a_line("cut in the commit").await else { return };
        let batch: Vec<_> = (1..=3).map(|n| ct(1, n).to("york", ROUTINE)).collect();
        let objects: Vec<_> = batch.iter().map(|arrival| arrival.facts.object).collect();
        index.prepare().await.unwrap();
        let unsure = |error: IndexError| {
            assert!(matches!(error, IndexError::Unsure { .. }) && error.is_outage(), "{error}");
        };

        line.set(cut);
        unsure(index.record(&batch).await.unwrap_err());
        let again = index.record(&batch).await.unwrap();
        let known = again[0].outcome == RecordedAs::Known;
        assert_eq!((known, again[0].transfers.len()), (cut == CUT_AFTER, 1));

        line.set(cut);
        unsure(index.mark_stored(&objects).await.unwrap_err());
        index.mark_stored(&objects).await.unwrap();

        // A claim is not repeated by those who lost it; what they hold without knowing goes back with the next one.
        line.set(cut);
        unsure(index.claim("york", "node", 2, MINUTE, at(1)).await.unwrap_err());
        let held = index.claim("york", "node", 3, MINUTE, at(2)).await.unwrap();
        let attempts: Vec<_> = held.iter().map(|claim| (claim.attempt, claim.deaths)).collect();
        assert_eq!(attempts, [(1, 0); 3]);

        let outcomes: Vec<_> = held.iter().map(|claim| (claim.delivery, accepted(3))).collect();
        line.set(cut);
        unsure(index.settle(&outcomes, at(3)).await.unwrap_err());
        let settled = index.settle(&outcomes, at(3)).await.unwrap();
        assert!(settled.iter().all(|settled| settled.result.is_ok()));

        let totals = index.totals().await.unwrap();
        assert_eq!((totals.instances, totals.unstored), (3, 0));
        let detail = index.transfer(again[0].transfers[0]).await.unwrap().unwrap();
        assert_eq!((detail.transfer.counts.total, detail.transfer.counts.delivered), (3, 3));
        let kinds: Vec<_> = detail.events.iter().map(|event| event.kind).collect();
        assert_eq!(kinds, [EventKind::Created, EventKind::FirstSent]);
    }
}

#[tokio::test]
async fn what_the_drain_relies_on_waits_for_the_disk_and_the_rest_does_not() {
    let Some([index, _]) = two_nodes("durability").await else { return };
    index.prepare().await.unwrap();
    let Server { writers, .. } = &*match &index.database {
        super::super::Database::Postgres(server) => server.clone(),
        super::super::Database::Sqlite { .. } => unreachable!(),
    };
    // What was flushed, and what was written: an unsynced commit leaves a difference, a synced one does not.
    let behind = async || -> i64 {
        let query = "SELECT (pg_current_wal_insert_lsn() - pg_current_wal_flush_lsn())::bigint";
        sqlx::query_scalar(query).fetch_one(writers).await.unwrap()
    };

    let mut left_behind = 0;
    for number in 0..20 {
        index.record(&[ct(1, number).to("york", ROUTINE)]).await.unwrap();
        left_behind = left_behind.max(behind().await);
    }
    assert!(left_behind > 0, "every commit waited");
    for number in 20..30 {
        index.record(&[ct(1, number).to("york", ROUTINE)]).await.unwrap();
        let written: String = sqlx::query_scalar("SELECT pg_current_wal_insert_lsn()::text")
            .fetch_one(writers)
            .await
            .unwrap();
        index.mark_stored(&[]).await.unwrap();
        let flushed: bool = sqlx::query_scalar("SELECT pg_current_wal_flush_lsn() >= $1::pg_lsn")
            .bind(written)
            .fetch_one(writers)
            .await
            .unwrap();
        assert!(flushed);
    }
}
