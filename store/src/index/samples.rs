//! Arrivals for tests.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use jiff::Timestamp;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};
use tempfile::TempDir;

use crate::dicom::{Attributes, TransferSyntax};
use crate::facts::{Digest, Facts, ObjectId, Origin, ParcelId, Priority, Purpose};

use super::{
    Arrival, DeliveryId, Event, Failure, FailureKind, Index, Patience, PostgresHost,
    PostgresSettings, PostgresTls, Receipt, Routed, TransferId,
};

/// Which database a test is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum On {
    Sqlite,
    Postgres,
}

/// Runs tests on both databases, each on an index of its own.
macro_rules! on_both {
    ($($name:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $name() {
                super::$name($crate::index::samples::On::Sqlite).await;
            })+
        }

        mod postgres {
            $(#[tokio::test]
            async fn $name() {
                if $crate::index::samples::server(stringify!($name)).is_some() {
                    super::$name($crate::index::samples::On::Postgres).await;
                }
            })+
        }
    };
}
pub(super) use on_both;

/// An empty index, and the directory that goes with it.
pub(super) async fn index(on: On) -> (Index, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let index = match on {
        On::Sqlite => Index::open(&dir.path().join("index.sqlite")).await.unwrap(),
        On::Postgres => Index::postgres(empty_database().await),
    };
    (index, dir)
}

/// The server that this process's tests share: the one that `tests/run` started, or one of its own that ends with the
/// process. Without PostgreSQL on the machine the test is skipped, and says so.
pub(super) fn server(test: &str) -> Option<&'static PgConnectOptions> {
    /// Its standard input is held open: the server stops when that ends.
    static SERVER: OnceLock<Option<(PgConnectOptions, Option<Child>)>> = OnceLock::new();
    let start = || {
        if let Ok(url) = std::env::var("GANTRY_TEST_POSTGRES") {
            return Some((url.parse().unwrap(), None));
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/postgres");
        let mut child = Command::new(script)
            .arg(port.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        if url.is_empty() {
            let ended = child.wait().unwrap();
            assert_eq!(ended.code(), Some(3), "PostgreSQL does not start");
            return None;
        }
        Some((url.trim().parse().unwrap(), Some(child)))
    };
    let server = SERVER.get_or_init(start).as_ref().map(|(server, _)| server);
    if server.is_none() {
        let line = format!("index on PostgreSQL: {test}: PostgreSQL is not installed\n");
        eprint!("SKIPPED: {line}");
        if let Ok(path) = std::env::var("GANTRY_SKIPPED") {
            let mut file = std::fs::File::options().append(true).open(path).unwrap();
            file.write_all(line.as_bytes()).unwrap();
        }
    }
    server
}

/// A schema of its own on the tests' server: that of a new role, which is where it looks by default.
pub(super) async fn empty_database() -> PostgresSettings {
    let server = server("").unwrap();
    let role = format!("t{}", ObjectId::new()).to_lowercase();
    let mut admin = server.clone().disable_statement_logging().connect().await.unwrap();
    let made = format!("CREATE ROLE {role} LOGIN; CREATE SCHEMA {role} AUTHORIZATION {role}");
    sqlx::raw_sql(AssertSqlSafe(made)).execute(&mut admin).await.unwrap();
    admin.close().await.unwrap();
    PostgresSettings {
        host: PostgresHost::Tcp(server.get_host().to_owned(), server.get_port()),
        user: role,
        database: server.get_database().unwrap().to_owned(),
        password: None,
        tls: PostgresTls::Off,
        connections: 4,
        patience: Patience::default(),
    }
}

/// So many seconds after the tests' beginning of time.
pub(super) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

/// An instance of a study, from this organisation's PACS, routed nowhere.
pub(super) fn ct(study: u32, number: u32) -> Arrival {
    let mut attributes = Attributes::default();
    for (tag, text) in [
        (tags::PATIENT_NAME, "SMITH^ANNA"),
        (tags::PATIENT_ID, "943 476 5919"),
        (tags::MODALITY, "CT"),
        (tags::ACCESSION_NUMBER, "A1"),
        (tags::INSTANCE_NUMBER, &number.to_string()),
    ] {
        attributes.insert(tag, text.as_bytes().to_vec());
    }
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&(u64::from(study) << 32 | u64::from(number)).to_le_bytes());
    Arrival {
        facts: Facts {
            object: ObjectId::new(),
            received_at: at(i64::from(number)),
            origin: Origin {
                listener: "0.0.0.0:11112".to_owned(),
                sender: "pacs".to_owned(),
                from_partner: false,
                calling_ae_title: "PACS".parse().unwrap(),
                called_ae_title: "GANTRY".parse().unwrap(),
                addressed_to: None,
                fetched_like: Vec::new(),
            },
            sop_class: "1.2.840.10008.5.1.4.1.1.2".parse().unwrap(),
            sop_instance: format!("1.2.{study}.9.{number}").parse().unwrap(),
            study: format!("1.2.{study}").parse().unwrap(),
            series: format!("1.2.{study}.9").parse().unwrap(),
            transfer_syntax: TransferSyntax::explicit_vr_little_endian(),
            length: 524_288,
            digest: Digest(bytes),
            pixel_data_offset: None,
            protected: None,
            attributes,
        },
        routed: Vec::new(),
    }
}

impl Arrival {
    /// Routed to a partner, too.
    pub(super) fn to(mut self, partner: &str, priority: Priority) -> Self {
        self.routed.push(Routed {
            protection: None,
            partner: partner.to_owned(),
            route: format!("{priority} to {partner}"),
            purpose: if priority == Priority::Emergency {
                Purpose::EmergencyTransfer
            } else {
                Purpose::DirectCare
            },
            priority,
            parcel: None,
        });
        self
    }

    /// In this parcel, wherever it goes.
    pub(super) fn in_parcel(mut self, parcel: ParcelId) -> Self {
        self.routed.iter_mut().for_each(|routed| routed.parcel = Some(parcel));
        self
    }

    /// The same bytes in another association.
    pub(super) fn again(mut self) -> Self {
        self.facts.object = ObjectId::new();
        self
    }

    /// Other bytes under the same UIDs.
    pub(super) fn altered(mut self, byte: u8) -> Self {
        self.facts.digest.0[31] = byte;
        self.again()
    }

    /// From a partner instead.
    pub(super) fn sent_by_partner(mut self, name: &str) -> Self {
        name.clone_into(&mut self.facts.origin.sender);
        self.facts.origin.from_partner = true;
        self
    }

    /// With another value.
    pub(super) fn with(mut self, tag: Tag, value: &str) -> Self {
        self.facts.attributes.insert(tag, value.as_bytes().to_vec());
        self
    }
}

/// Accepted by the partner.
pub(super) fn accepted(second: i64) -> Event {
    Event::Accept(Receipt {
        status: 0,
        transfer_syntax: TransferSyntax::explicit_vr_little_endian(),
        digest: Digest([7; 32]),
        at: at(second),
    })
}

/// To be tried again.
pub(super) fn deferred(second: i64) -> Event {
    Event::Defer { until: at(second), why: why(FailureKind::Unreachable) }
}

/// Set aside.
pub(super) fn refused() -> Event {
    Event::Reject { why: why(FailureKind::Refused) }
}

pub(super) fn why(kind: FailureKind) -> Failure {
    Failure { kind, status: None, text: format!("it was {kind}") }
}

/// Records arrivals that all belong to one transfer, which it names.
pub(super) async fn transfer(index: &Index, arrivals: &[Arrival]) -> TransferId {
    index.record(arrivals).await.unwrap()[0].transfers[0]
}

/// Claims for a minute, as `node`.
pub(super) async fn claim(
    index: &Index,
    partner: &str,
    limit: u32,
    second: i64,
) -> Vec<DeliveryId> {
    let lease = std::time::Duration::from_mins(1);
    let claims = index.claim(partner, "node", limit, lease, at(second)).await.unwrap();
    claims.into_iter().map(|claim| claim.delivery).collect()
}
