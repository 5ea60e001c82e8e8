//! How fast searches are: with 10,000 studies, and with `GANTRY_BENCH_STUDIES` (300000) of them.
//!
//! Both archives have as many studies a day, a name and a patient, as one has that is thirty times as old; so a query has as
//! many matches in both, and what is compared is what the size of the index costs. `GANTRY_BENCH_POSTGRES` (a URL of an empty
//! database of which the user owns the schema) has 10,000 studies measured on PostgreSQL too.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a bench that cannot run fails")]

use std::time::{Duration, Instant};

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use gantry_store::dicom::{Attributes, TransferSyntax};
use gantry_store::facts::{Digest, Facts, ObjectId, Origin, Priority, Purpose};
use gantry_store::index::{
    Arrival, Index, Page, Patience, PostgresHost, PostgresSettings, PostgresTls, Routed, Scope,
};
use gantry_store::query::{Extended, Level, Model, Query};
use jiff::Timestamp;

const SMALL: u32 = 10_000;
const A_DAY: u32 = 27;
const IMAGES: u32 = 2;
const RUNS: u32 = 300;

/// What a workstation asks for; its list of studies shows it.
const ASKED: &[Tag] = &[
    tags::PATIENT_NAME,
    tags::PATIENT_ID,
    tags::PATIENT_BIRTH_DATE,
    tags::PATIENT_SEX,
    tags::STUDY_INSTANCE_UID,
    tags::STUDY_DATE,
    tags::STUDY_TIME,
    tags::STUDY_ID,
    tags::ACCESSION_NUMBER,
    tags::STUDY_DESCRIPTION,
    tags::REFERRING_PHYSICIAN_NAME,
];
const COUNTED: &[Tag] = &[
    tags::MODALITIES_IN_STUDY,
    tags::NUMBER_OF_STUDY_RELATED_SERIES,
    tags::NUMBER_OF_STUDY_RELATED_INSTANCES,
];

#[tokio::main]
async fn main() {
    let large = std::env::var("GANTRY_BENCH_STUDIES").ok();
    let large: u32 = large.and_then(|count| count.parse().ok()).unwrap_or(300_000);
    let folder = tempfile::tempdir().unwrap();
    let small = Index::open(&folder.path().join("small.sqlite")).await.unwrap();
    fill(&small, SMALL).await;
    let before = measure("SQLite, 10,000 studies", &small, SMALL).await;
    small.close().await;
    if let Ok(url) = std::env::var("GANTRY_BENCH_POSTGRES") {
        let index = Index::postgres(settings(&url));
        index.prepare().await.unwrap();
        fill(&index, SMALL).await;
        measure("PostgreSQL, 10,000 studies", &index, SMALL).await;
        index.close().await;
    }
    let index = Index::open(&folder.path().join("large.sqlite")).await.unwrap();
    fill(&index, large).await;
    let after = measure(&format!("SQLite, {large} studies"), &index, large).await;
    index.close().await;
    for ((job, before), (_, after)) in before.iter().zip(&after) {
        println!("{job}: p99 × {:.2}", after.as_secs_f64() / before.as_secs_f64());
    }
}

/// `postgres://user@host:port/database`.
fn settings(url: &str) -> PostgresSettings {
    let rest = url.strip_prefix("postgres://").unwrap();
    let (user, rest) = rest.split_once('@').unwrap();
    let (address, database) = rest.split_once('/').unwrap();
    let (host, port) = address.split_once(':').unwrap();
    PostgresSettings {
        host: PostgresHost::Tcp(host.to_owned(), port.parse().unwrap()),
        user: user.to_owned(),
        database: database.to_owned(),
        password: None,
        tls: PostgresTls::Off,
        connections: 8,
        patience: Patience::default(),
    }
}

fn date(study: u32) -> String {
    let day = jiff::civil::date(1994, 1, 1).checked_add(jiff::Span::new().days(study / A_DAY));
    day.unwrap().strftime("%Y%m%d").to_string()
}

/// A hundred are called Smith and a hundred end in -son, however many there are.
fn name(study: u32, of: u32) -> String {
    const SYLLABLES: [&str; 10] = ["BA", "DE", "GI", "KO", "LU", "MA", "NE", "PI", "RO", "TU"];
    let mixed = study.wrapping_mul(2_654_435_761) >> 8;
    let syllable = |place: u32| SYLLABLES[(mixed / 10_u32.pow(place) % 10) as usize];
    let stem = format!("{}{}{}{}", syllable(0), syllable(1), syllable(2), syllable(3));
    match study % (of / 100) {
        0 => format!("SMITH^{stem}"),
        1 => format!("{stem}^{stem}SON"),
        _ => format!("{stem}^{}", syllable(4)),
    }
}

fn arrival(study: u32, number: u32, of: u32) -> Arrival {
    let mut attributes = Attributes::default();
    for (tag, text) in [
        (tags::PATIENT_NAME, name(study, of)),
        (tags::PATIENT_ID, format!("943 {:07}", study / 2)),
        (tags::PATIENT_BIRTH_DATE, "19700101".to_owned()),
        (tags::PATIENT_SEX, "F".to_owned()),
        (tags::STUDY_DATE, date(study)),
        (tags::STUDY_TIME, "101500".to_owned()),
        (tags::STUDY_ID, study.to_string()),
        (tags::MODALITY, "CT".to_owned()),
        (tags::ACCESSION_NUMBER, format!("A{study}")),
        (tags::STUDY_DESCRIPTION, "CT head".to_owned()),
        (tags::REFERRING_PHYSICIAN_NAME, "HOUSE^G".to_owned()),
        (tags::INSTANCE_NUMBER, number.to_string()),
    ] {
        attributes.insert(tag, text.into_bytes());
    }
    let mut digest = [0; 32];
    digest[..8].copy_from_slice(&(u64::from(study) << 32 | u64::from(number)).to_le_bytes());
    let york = Routed {
        protection: None,
        partner: "york".to_owned(),
        route: "to york".to_owned(),
        purpose: Purpose::DirectCare,
        priority: Priority::Routine,
        parcel: None,
    };
    Arrival {
        facts: Facts {
            object: ObjectId::new(),
            received_at: Timestamp::from_second(1_700_000_000 + i64::from(study)).unwrap(),
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
            sop_instance: format!("1.2.826.0.1.3680043.2.{study}.9.{number}").parse().unwrap(),
            study: format!("1.2.826.0.1.3680043.2.{study}").parse().unwrap(),
            series: format!("1.2.826.0.1.3680043.2.{study}.9").parse().unwrap(),
            transfer_syntax: TransferSyntax::explicit_vr_little_endian(),
            length: 524_288,
            digest: Digest(digest),
            pixel_data_offset: None,
            protected: None,
            attributes,
        },
        routed: if study.is_multiple_of(of / 100) { vec![york] } else { Vec::new() },
    }
}

async fn fill(index: &Index, studies: u32) {
    let begun = Instant::now();
    for first in (0..studies).step_by(500) {
        let batch: Vec<_> = (first..studies.min(first + 500))
            .flat_map(|study| (0..IMAGES).map(move |number| arrival(study, number, studies)))
            .collect();
        index.record(&batch).await.unwrap();
    }
    eprintln!("{studies} studies recorded in {:.0} s", begun.elapsed().as_secs_f64());
}

fn query(key: Option<(Tag, &str)>, counted: bool) -> Query {
    let counted = if counted { COUNTED } else { &[] };
    let asked = ASKED.iter().chain(counted).filter(|tag| key.is_none_or(|(of, _)| of != **tag));
    let keys = asked.map(|tag| (*tag, "")).chain(key);
    Query::new(Model::StudyRoot, Level::Study, Extended::default(), keys).unwrap()
}

/// How long it takes to read all matches, and how many those are.
async fn ask(index: &Index, query: &Query, scope: &Scope) -> (Duration, usize) {
    let begun = Instant::now();
    let page = Page { limit: 1000, ..Page::default() };
    let mut search = index.find_all(query, scope, page, u64::MAX, Timestamp::now());
    let mut found = 0;
    loop {
        let some = search.next().await.unwrap().len();
        if some == 0 {
            return (begun.elapsed(), found);
        }
        found += some;
    }
}

type Job = (&'static str, Tag, fn(u32) -> String);

/// Prints p50 and p99, and returns p99 of what goes along an index.
async fn measure(name: &str, index: &Index, studies: u32) -> Vec<(&'static str, Duration)> {
    println!("{name}");
    let jobs: [Job; 6] = [
        ("by patient ID", tags::PATIENT_ID, |study| format!("943 {:07}", study / 2)),
        ("by accession number", tags::ACCESSION_NUMBER, |study| format!("A{study}")),
        ("one day", tags::STUDY_DATE, date),
        ("one month", tags::STUDY_DATE, |study| {
            format!("{}-{}", date(study), date(study + 30 * A_DAY))
        }),
        ("name wild card", tags::PATIENT_NAME, |_| "SMITH*".to_owned()),
        ("name suffix", tags::PATIENT_NAME, |_| "*SON".to_owned()),
    ];
    let york = Scope::Partner { name: "york".to_owned(), protected: false };
    let mut p99s = Vec::new();
    for (job, tag, key) in jobs {
        for (scope, whose) in [(&Scope::All, ""), (&york, ", as a partner")] {
            let (mut times, mut matches) = (Vec::new(), 0);
            for run in 0..RUNS {
                let key = key(run.wrapping_mul(7919) % (studies - 31 * A_DAY));
                let (took, found) = ask(index, &query(Some((tag, &key)), false), scope).await;
                times.push(took);
                matches += found;
            }
            times.sort_unstable();
            let (p50, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
            println!(
                "  {job}{whose}: p50 {p50:.2?}, p99 {p99:.2?}, {} matches",
                matches / RUNS as usize
            );
            if whose.is_empty() && job != "name suffix" {
                p99s.push((job, p99));
            }
        }
    }
    for (counted, what) in [(false, "all"), (true, "all, with counts")] {
        let mut rates: Vec<f64> = Vec::new();
        for _ in 0..3 {
            let (took, found) = ask(index, &query(None, counted), &Scope::All).await;
            rates.push(found as f64 / took.as_secs_f64());
        }
        rates.sort_unstable_by(f64::total_cmp);
        println!("  {what}: {:.0} matches/s", rates[1]);
    }
    p99s
}
