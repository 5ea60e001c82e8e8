use std::collections::BTreeSet;

use dicom_core::Tag;
use dicom_dictionary_std::tags;

use super::super::db::Durability;
use super::super::samples::{On, at, ct, index, on_both};
use super::super::{Access, Arrival, NewShare, Removal, Remover};
use super::*;
use crate::facts::Priority;
use crate::query::{Extended, Model, Query, keys_at};

on_both![
    keys_find_what_they_match_and_nothing_else,
    patterns_match_in_the_database_as_they_do_outside,
    pages_of_any_size_bring_every_match_once,
    a_range_of_moments_is_one_where_that_was_agreed,
    counts_and_lists_are_of_what_is_here,
    only_the_latest_version_that_is_here_is_found,
    nothing_foreign_is_found_and_all_that_is_own_is,
    a_share_ends_and_stays_on_record,
    what_goes_protected_is_found_only_by_who_says_it_will_translate,
    rows_from_before_are_folded_in_batches_and_found,
    a_search_ends_in_time,
    a_ceiling_is_told,
];

const RELATIONAL: Extended = Extended { relational: true, combined_datetime: false };

fn ask(level: Level, keys: &[(Tag, &str)]) -> Query {
    let model = if level == Level::Patient { Model::PatientRoot } else { Model::StudyRoot };
    Query::new(model, level, RELATIONAL, keys.iter().copied()).unwrap()
}

async fn all(index: &Index, query: &Query, scope: &Scope, limit: u32, now: i64) -> Vec<Found> {
    let page = Page { limit, ..Page::default() };
    let mut search = index.find_all(query, scope, page, 100_000, at(now));
    let mut found = Vec::new();
    loop {
        let some = search.next().await.unwrap();
        if some.is_empty() {
            return found;
        }
        found.extend(some);
    }
}

/// The studies that are found, by number.
async fn studies(index: &Index, keys: &[(Tag, &str)], scope: &Scope) -> Vec<u32> {
    let found = all(index, &ask(Level::Study, keys), scope, 100, 1000).await;
    let number = |found: &Found| {
        found.study.as_ref().unwrap().as_str().rsplit('.').next().unwrap().parse().unwrap()
    };
    let mut numbers: Vec<u32> = found.iter().map(number).collect();
    numbers.sort_unstable();
    numbers
}

fn named(study: u32, name: &str, id: &str, date: &str) -> Arrival {
    let arrival = ct(study, 1).with(tags::SPECIFIC_CHARACTER_SET, "ISO_IR 192");
    arrival.with(tags::PATIENT_NAME, name).with(tags::PATIENT_ID, id).with(tags::STUDY_DATE, date)
}

async fn keys_find_what_they_match_and_nothing_else(on: On) {
    let (index, _dir) = index(on).await;
    let accession = |arrival: Arrival, text| arrival.with(tags::ACCESSION_NUMBER, text);
    index
        .record(&[
            accession(named(1, "SMITH^ANNA", "1", "20240131"), "A%1"),
            accession(named(2, "Smithson^Bob", "2", "20240201"), "A_1"),
            accession(named(3, "MÜLLER^JÉRÔME", "3", "2024.02.29"), "A[1]"),
            accession(named(4, "Yamada^Tarou=山田^太郎=やまだ", "4", "20240301"), "a%1"),
            accession(named(5, "O'BRIEN; DROP TABLE study", "x' OR '1'='1", "junk"), "A1"),
            named(6, "", "", "").with(tags::MODALITY, "MR").with(tags::ACCESSION_NUMBER, ""),
        ])
        .await
        .unwrap();
    let table: &[(Tag, &str, &[u32])] = &[
        (tags::PATIENT_NAME, "", &[1, 2, 3, 4, 5, 6]),
        (tags::PATIENT_NAME, "smith*", &[1, 2]),
        (tags::PATIENT_NAME, "smith^anna", &[1]),
        (tags::PATIENT_NAME, "smith", &[]),
        (tags::PATIENT_NAME, "*rome", &[3]),
        (tags::PATIENT_NAME, "muller^j?rome", &[3]),
        (tags::PATIENT_NAME, "山田*", &[4]),
        (tags::PATIENT_NAME, "やまだ", &[4]),
        (tags::PATIENT_NAME, "yamada*=*郎", &[4]),
        (tags::PATIENT_NAME, "*=鈴木*", &[]),
        (tags::PATIENT_NAME, "o'brien; drop*", &[5]),
        (tags::PATIENT_NAME, "%", &[]),
        (tags::PATIENT_ID, "x' OR '1'='1", &[5]),
        (tags::PATIENT_ID, "?", &[1, 2, 3, 4]),
        (tags::PATIENT_ID, "1\\2", &[1, 2]),
        (tags::ACCESSION_NUMBER, "A%*", &[1]),
        (tags::ACCESSION_NUMBER, "A_?", &[2]),
        (tags::ACCESSION_NUMBER, "A[*", &[3]),
        (tags::ACCESSION_NUMBER, "a*", &[4]),
        (tags::ACCESSION_NUMBER, "*\\*", &[]),
        (tags::STUDY_DATE, "20240201-20240229", &[2, 3]),
        (tags::STUDY_DATE, "20240229", &[3]),
        (tags::STUDY_DATE, "-20240131", &[1]),
        (tags::STUDY_DATE, "20240301-", &[4]),
        (tags::MODALITIES_IN_STUDY, "MR", &[6]),
        (tags::MODALITIES_IN_STUDY, "C*", &[1, 2, 3, 4, 5]),
        (tags::SOP_CLASSES_IN_STUDY, "1.2.840.10008.5.1.4.1.1.4", &[]),
        (tags::STUDY_INSTANCE_UID, "1.2.3\\1.2.4\\1.2.99", &[3, 4]),
    ];
    for (tag, key, expected) in table {
        assert_eq!(studies(&index, &[(*tag, key)], &Scope::All).await, *expected, "{tag} {key}");
    }
    let both = [(tags::PATIENT_NAME, "SMITH*"), (tags::STUDY_DATE, "20240201-")];
    assert_eq!(studies(&index, &both, &Scope::All).await, [2]);
}

/// What the database answers is what `Matching::matches` says, for patterns and names of all kinds.
async fn patterns_match_in_the_database_as_they_do_outside(on: On) {
    let (index, _dir) = index(on).await;
    let mut state = 7_u64;
    let mut random = move |most: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % most
    };
    let mut text = |letters: &[char], most: usize| -> String {
        let length = random(most);
        (0..length).map(|_| letters[random(letters.len())]).collect()
    };
    let letters = ['a', 'B', 'É', '^', '%', '_', '[', ']', '\'', '-', '山', '='];
    let values: Vec<(String, String)> =
        (0..60).map(|_| (text(&letters, 8), text(&letters[..10], 6))).collect();
    let arrivals: Vec<_> =
        values.iter().zip(1..).map(|((name, id), n)| named(n, name, id, "")).collect();
    index.record(&arrivals).await.unwrap();

    let wild = ['a', 'b', 'e', '*', '*', '?', '%', '_', '[', '山', '^'];
    for _ in 0..60 {
        for (tag, is_name) in [(tags::PATIENT_NAME, true), (tags::PATIENT_ID, false)] {
            let key = text(if is_name { &wild } else { &wild[..9] }, 5);
            let query = ask(Level::Study, &[(tag, &key)]);
            let matching = query.keys().next().unwrap().1.clone();
            let value =
                |(name, id): &(String, String)| if is_name { name.clone() } else { id.clone() };
            let expected: Vec<u32> = (1..)
                .zip(&values)
                .filter(|(_, of)| matching.matches(&value(of)))
                // Letters of other scripts are not looked for in other groups by a key without any.
                .map(|(number, _)| number)
                .collect();

            assert_eq!(studies(&index, &[(tag, &key)], &Scope::All).await, expected, "{tag} {key}");
        }
    }
}

/// 12 studies of 4 patients, each with 2 series of 3 images.
async fn some_studies(index: &Index) {
    for study in 1..=12_u32 {
        let name = ["SMITH^ANNA", "SMITH^BOB", "JONES^C", "SMITH"][study as usize % 4];
        let date = format!("202401{:02}", study % 5 + 1);
        let mut arrivals = Vec::new();
        for number in 1..=6 {
            let mut arrival = ct(study, number).with(tags::PATIENT_NAME, name);
            arrival = arrival.with(tags::PATIENT_ID, name).with(tags::STUDY_DATE, &date);
            arrival.facts.series = format!("1.2.{study}.{}", number % 2).parse().unwrap();
            arrivals.push(arrival);
        }
        index.record(&arrivals).await.unwrap();
    }
}

async fn pages_of_any_size_bring_every_match_once(on: On) {
    let (index, _dir) = index(on).await;
    some_studies(&index).await;
    let keys: &[&[(Tag, &str)]] = &[
        &[],
        &[(tags::PATIENT_NAME, "SMITH*")],
        &[(tags::PATIENT_NAME, "*SON*")],
        &[(tags::STUDY_DATE, "20240102-20240104")],
        &[(tags::PATIENT_ID, "SMITH^BOB")],
    ];
    for level in [Level::Patient, Level::Study, Level::Series, Level::Image] {
        for keys in keys {
            if level == Level::Patient && keys.iter().any(|(tag, _)| *tag == tags::STUDY_DATE) {
                continue;
            }
            let query = ask(level, keys);
            let identity = |found: &Found| {
                let patient = found.value(tags::PATIENT_ID).map(str::to_owned);
                format!("{patient:?} {:?} {:?} {:?}", found.study, found.series, found.instance)
            };
            let query = if level == Level::Patient && keys.is_empty() {
                ask(level, &[(tags::PATIENT_ID, "")])
            } else {
                query
            };
            let whole: Vec<_> =
                all(&index, &query, &Scope::All, 1000, 0).await.iter().map(identity).collect();
            assert!(level != Level::Study || keys.len() == 1 || whole.len() == 12);
            for limit in [1, 2, 5] {
                let paged: Vec<_> =
                    all(&index, &query, &Scope::All, limit, 0).await.iter().map(identity).collect();
                assert_eq!(paged, whole, "{level:?} {keys:?} by {limit}");
            }
            let distinct: BTreeSet<_> = whole.iter().collect();
            assert!(level == Level::Patient || distinct.len() == whole.len(), "{level:?} {keys:?}");
            let skipped = Page { skip: 1, ..Page::default() };
            let skipped = index.find(&query, &Scope::All, &skipped, at(0)).await.unwrap().found;
            assert_eq!(skipped.len(), whole.len().saturating_sub(1));
        }
    }
    let patients =
        all(&index, &ask(Level::Patient, &[(tags::PATIENT_ID, "")]), &Scope::All, 100, 0).await;
    assert_eq!(patients.len(), 4);
}

async fn a_range_of_moments_is_one_where_that_was_agreed(on: On) {
    let (index, _dir) = index(on).await;
    let moment = |study, date, time| named(study, "A", "1", date).with(tags::STUDY_TIME, time);
    index
        .record(&[
            moment(1, "20240101", "0800"),
            moment(2, "20240101", "2300"),
            moment(3, "20240102", "0100"),
            moment(4, "20240103", "0600"),
            moment(5, "20240103", "0900"),
        ])
        .await
        .unwrap();
    let keys = [(tags::STUDY_DATE, "20240101-20240103"), (tags::STUDY_TIME, "1000-0700")];
    let combined = Extended { relational: true, combined_datetime: true };
    let together = Query::new(Model::StudyRoot, Level::Study, combined, keys).unwrap();

    let found = all(&index, &together, &Scope::All, 2, 0).await;

    let mut found: Vec<_> =
        found.iter().map(|found| found.study.as_ref().unwrap().as_str()).collect();
    found.sort_unstable();
    assert_eq!(found, ["1.2.2", "1.2.3", "1.2.4"]);
    assert_eq!(studies(&index, &keys, &Scope::All).await, [0_u32; 0]);
}

async fn counts_and_lists_are_of_what_is_here(on: On) {
    let (index, _dir) = index(on).await;
    let mut arrivals: Vec<_> = (1..=3).map(|number| ct(1, number)).collect();
    let mut report = ct(1, 4).with(tags::MODALITY, "SR").with(tags::LATERALITY, "L");
    report.facts.series = "1.2.1.8".parse().unwrap();
    report.facts.sop_class = "1.2.840.10008.5.1.4.1.1.88.11".parse().unwrap();
    arrivals.extend([
        report,
        ct(1, 1).altered(1),
        ct(1, 2).altered(2).sent_by_partner("leeds"),
        ct(2, 1),
    ]);
    index.record(&arrivals).await.unwrap();
    let asked = |level: Level| -> Vec<(Tag, &'static str)> {
        let mine = |tag: &Tag| *tag != tags::STUDY_INSTANCE_UID;
        keys_at(level).map(|(tag, _)| tag).filter(mine).map(|tag| (tag, "")).collect()
    };

    let mut keys = asked(Level::Study);
    keys.push((tags::STUDY_INSTANCE_UID, "1.2.1"));
    let study = all(&index, &ask(Level::Study, &keys), &Scope::All, 10, 0).await.remove(0);
    let patient =
        all(&index, &ask(Level::Patient, &asked(Level::Patient)), &Scope::All, 10, 0).await;
    keys = asked(Level::Image);
    keys.push((tags::STUDY_INSTANCE_UID, "1.2.1"));
    let images = all(&index, &ask(Level::Image, &keys), &Scope::All, 10, 0).await;

    let expected = [
        (tags::MODALITIES_IN_STUDY, "CT\\SR"),
        (tags::SOP_CLASSES_IN_STUDY, "1.2.840.10008.5.1.4.1.1.2\\1.2.840.10008.5.1.4.1.1.88.11"),
        (tags::NUMBER_OF_STUDY_RELATED_SERIES, "2"),
        (tags::NUMBER_OF_STUDY_RELATED_INSTANCES, "4"),
        (tags::NUMBER_OF_PATIENT_RELATED_STUDIES, "2"),
        (tags::NUMBER_OF_PATIENT_RELATED_SERIES, "3"),
        (tags::NUMBER_OF_PATIENT_RELATED_INSTANCES, "5"),
        (tags::PATIENT_NAME, "SMITH^ANNA"),
        (tags::STUDY_INSTANCE_UID, "1.2.1"),
    ];
    for (tag, value) in expected {
        assert_eq!(study.value(tag), Some(value), "{tag}");
    }
    assert_eq!(study.value(tags::STUDY_DATE), None, "what is not known has no value");
    assert_eq!(patient.len(), 1);
    assert_eq!(patient[0].value(tags::NUMBER_OF_PATIENT_RELATED_INSTANCES), Some("5"));
    assert_eq!(images.len(), 4);
    let report = images.iter().find(|image| image.value(tags::MODALITY) == Some("SR")).unwrap();
    assert_eq!(report.value(tags::NUMBER_OF_SERIES_RELATED_INSTANCES), Some("1"));
    assert_eq!(report.value(tags::LATERALITY), Some("L"));
    assert_eq!(report.value(tags::INSTANCE_NUMBER), Some("4"));
}

async fn only_the_latest_version_that_is_here_is_found(on: On) {
    let (index, _dir) = index(on).await;
    let (first, held) = (ct(1, 1), ct(1, 1).altered(2).sent_by_partner("leeds"));
    let second = ct(1, 1).altered(1);
    let held_study = ct(2, 1);
    let mut moved = ct(3, 1);
    moved.facts.sop_instance = held_study.facts.sop_instance.clone();
    moved.facts.digest.0[31] = 9;
    index.record(&[first, second.clone(), held, held_study, moved]).await.unwrap();
    let wanted =
        |study: &str| Wanted { studies: vec![study.parse().unwrap()], ..Wanted::default() };

    let objects = index.objects(&wanted("1.2.1"), &Scope::All, 0, 10, at(0)).await.unwrap();
    let held = index.objects(&wanted("1.2.3"), &Scope::All, 0, 10, at(0)).await.unwrap();

    assert_eq!(
        objects.iter().map(|object| object.object).collect::<Vec<_>>(),
        [second.facts.object]
    );
    assert_eq!(objects[0].length, second.facts.length);
    assert!(held.is_empty(), "a study of which all is in quarantine shows nowhere");
    assert_eq!(studies(&index, &[], &Scope::All).await, [1, 2]);
    assert!(index.objects(&Wanted::default(), &Scope::All, 0, 10, at(0)).await.unwrap().is_empty());
    for level in [Level::Series, Level::Image] {
        assert_eq!(all(&index, &ask(level, &[]), &Scope::All, 10, 0).await.len(), 2);
    }
}

fn york(protected: bool) -> Scope {
    Scope::Partner { name: "york".to_owned(), protected }
}

async fn share(
    index: &Index,
    study: u32,
    partner: &str,
    until: Option<i64>,
    protection: Option<&str>,
) {
    let study = format!("1.2.{study}").parse().unwrap();
    let new = NewShare {
        study: &study,
        partner,
        protection,
        until: until.map(at),
        reason: "second opinion",
        by: "dr. ray",
    };
    index.share(&new, at(100)).await.unwrap().unwrap();
}

/// Studies of every kind that a scope may or may not hold: own, foreign, ended, gone. Times before 1000 have passed.
async fn studies_of_every_kind(index: &Index) {
    let mut arrivals = Vec::new();
    for study in 1..=13 {
        for number in [1, 2] {
            let arrival = ct(study, number);
            arrivals.push(match study {
                1 | 7 | 12 => arrival.to("york", Priority::Routine),
                2 => arrival.to("leeds", Priority::Routine),
                11 => {
                    let mut other = arrival;
                    "mri".clone_into(&mut other.facts.origin.sender);
                    other
                }
                _ => arrival,
            });
        }
    }
    let mut held = ct(1, 1).altered(1).sent_by_partner("hull").to("york", Priority::Routine);
    held.facts.study = "1.2.9".parse().unwrap();
    arrivals.retain(|arrival| arrival.facts.study.as_str() != "1.2.9");
    arrivals.push(held);
    let recorded = index.record(&arrivals).await.unwrap();
    for (arrival, recorded) in arrivals.iter().zip(recorded) {
        if ["1.2.7", "1.2.12"].contains(&arrival.facts.study.as_str())
            && arrival.facts.sop_instance.as_str().ends_with(".1")
        {
            index.cancel(recorded.transfers[0], "dr. ray", "wrong patient", at(50)).await.unwrap();
        }
    }
    for (study, partner, until) in [
        (4, "york", None),
        (5, "york", Some(1000)),
        (6, "york", None),
        (8, "york", None),
        (10, "leeds", None),
        (12, "york", Some(5000)),
        (13, "york", Some(1001)),
    ] {
        share(index, study, partner, until, None).await;
    }
    let sixth = "1.2.6".parse().unwrap();
    assert_eq!(index.revoke(&sixth, "york", "dr. ray", "withdrawn", at(200)).await.unwrap(), 1);
    let objects: Vec<_> = arrivals.iter().map(|arrival| arrival.facts.object).collect();
    index.mark_stored(&objects).await.unwrap();
    let rest = index.study_at_rest(&"1.2.8".parse().unwrap()).await.unwrap().unwrap();
    let by = Remover::Person { name: "dr. ray", reason: "asked for" };
    let removed = index.remove_images(&rest, by, at(300)).await.unwrap();
    assert!(matches!(removed, Removal::Decided { images: 2, .. }));
}

/// Every level and way of asking × every scope × every kind of study.
async fn nothing_foreign_is_found_and_all_that_is_own_is(on: On) {
    let (index, _dir) = index(on).await;
    studies_of_every_kind(&index).await;
    let partner = |name: &str, protected| Scope::Partner { name: name.to_owned(), protected };
    let scopes: &[(Scope, &[u32])] = &[
        (Scope::All, &[1, 2, 3, 4, 5, 6, 7, 10, 11, 12, 13]),
        (partner("york", false), &[1, 4, 12, 13]),
        (partner("york", true), &[1, 4, 12, 13]),
        (partner("leeds", false), &[2, 10]),
        (partner("hull", true), &[]),
        (partner("pacs", true), &[]),
        (Scope::Source("pacs".to_owned()), &[1, 2, 3, 4, 5, 6, 7, 10, 12, 13]),
        (Scope::Source("mri".to_owned()), &[11]),
        (Scope::Source("york".to_owned()), &[]),
        (Scope::Source("hull".to_owned()), &[]),
    ];
    for (scope, own) in scopes {
        for study in 1..=13_u32 {
            let (uid, is_own) = (format!("1.2.{study}"), own.contains(&study));
            let (series, image) = (format!("{uid}.9"), format!("{uid}.9.1"));
            let ways: [(Tag, &str); 3] = [
                (tags::STUDY_INSTANCE_UID, &uid),
                (tags::SERIES_INSTANCE_UID, &series),
                (tags::SOP_INSTANCE_UID, &image),
            ];
            for (level, most) in [(Level::Study, 1), (Level::Series, 2), (Level::Image, 3)] {
                for key in ways.iter().take(most) {
                    let found = all(&index, &ask(level, &[*key]), scope, 10, 1000).await;
                    assert_eq!(!found.is_empty(), is_own, "{scope:?} {level:?} {key:?}");
                }
            }
            for wanted in [
                Wanted { studies: vec![uid.parse().unwrap()], ..Wanted::default() },
                Wanted { series: vec![series.parse().unwrap()], ..Wanted::default() },
                Wanted { instances: vec![image.parse().unwrap()], ..Wanted::default() },
            ] {
                let objects = index.objects(&wanted, scope, 0, 10, at(1000)).await.unwrap();
                assert_eq!(!objects.is_empty(), is_own, "{scope:?} {wanted:?}");
                let rest = index.objects(&wanted, scope, i64::MAX, 10, at(1000)).await.unwrap();
                assert!(rest.is_empty());
            }
        }
        for keys in
            [&[][..], &[(tags::PATIENT_NAME, "smith*")], &[(tags::PATIENT_ID, "943 476 5919")]]
        {
            assert_eq!(studies(&index, keys, scope).await, *own, "{scope:?} {keys:?}");
            for level in [Level::Series, Level::Image] {
                let found = all(&index, &ask(level, keys), scope, 3, 1000).await;
                let of: BTreeSet<_> =
                    found.iter().map(|found| found.study.clone().unwrap()).collect();
                assert_eq!(
                    of,
                    own.iter().map(|study| format!("1.2.{study}").parse().unwrap()).collect()
                );
            }
        }
        let count = [(tags::NUMBER_OF_PATIENT_RELATED_STUDIES, "")];
        let patients = all(&index, &ask(Level::Patient, &count), scope, 10, 1000).await;
        let counted = patients.first().and_then(|one| one.value(count[0].0)).map(str::to_owned);
        let expected = (!own.is_empty()).then(|| own.len().to_string());
        assert_eq!(counted, expected, "a count tells nothing of what is foreign: {scope:?}");
    }
}

async fn a_share_ends_and_stays_on_record(on: On) {
    let (index, _dir) = index(on).await;
    index.record(&[ct(1, 1)]).await.unwrap();
    let study = "1.2.1".parse().unwrap();
    share(&index, 1, "york", Some(500), None).await;
    let query = ask(Level::Study, &[]);
    let sees = async |now| !all(&index, &query, &york(false), 10, now).await.is_empty();

    assert!(sees(499).await);
    assert!(!sees(500).await, "its end is not included");
    share(&index, 1, "york", None, None).await;
    assert!(sees(500).await);
    assert_eq!(index.revoke(&study, "york", "dr. ray", "mistake", at(600)).await.unwrap(), 2);
    assert_eq!(index.revoke(&study, "york", "dr. ray", "again", at(601)).await.unwrap(), 0);
    assert!(!sees(601).await);

    let shares = index.shares(&study).await.unwrap();
    assert_eq!(shares.len(), 2);
    assert_eq!((shares[0].until, shares[0].revoked_at), (Some(at(500)), Some(at(600))));
    let events = index.study(&study).await.unwrap().unwrap().events;
    let events: Vec<_> = events.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(events, ["shared", "shared", "unshared"]);
    let unknown = "1.2.99".parse().unwrap();
    let new = NewShare {
        study: &unknown,
        partner: "york",
        protection: None,
        until: None,
        reason: "r",
        by: "b",
    };
    assert_eq!(index.share(&new, at(1)).await.unwrap(), None);
}

async fn what_goes_protected_is_found_only_by_who_says_it_will_translate(on: On) {
    let (index, _dir) = index(on).await;
    let mut arrivals = Vec::new();
    for study in 1..=3 {
        let mut protected = ct(study, 1).to("york", Priority::Routine);
        protected.routed[0].protection = Some("pseudonymise:lung".to_owned());
        arrivals.extend([protected, ct(study, 2).to("york", Priority::Routine)]);
    }
    arrivals.extend([ct(4, 1), ct(5, 1).to("york", Priority::Routine)]);
    index.record(&arrivals).await.unwrap();
    share(&index, 2, "york", None, None).await;
    share(&index, 3, "york", None, Some("anonymise:teach")).await;
    share(&index, 4, "york", None, Some("anonymise:teach")).await;

    assert_eq!(studies(&index, &[], &york(false)).await, [2, 5]);
    assert_eq!(studies(&index, &[], &york(true)).await, [1, 2, 3, 4, 5]);

    let found = all(&index, &ask(Level::Image, &[]), &york(true), 10, 0).await;
    let expected = [
        ("1.2.1", Some("pseudonymise:lung")),
        ("1.2.2", None),
        ("1.2.3", Some("pseudonymise:lung")),
        ("1.2.4", Some("anonymise:teach")),
        ("1.2.5", None),
    ];
    for (study, protection) in expected {
        let uid: StudyInstanceUid = study.parse().unwrap();
        let of: Vec<_> = found.iter().filter(|found| found.study.as_ref() == Some(&uid)).collect();
        assert!(
            !of.is_empty() && of.iter().all(|found| found.protection.as_deref() == protection),
            "{study}"
        );
        let wanted = Wanted { studies: vec![uid], ..Wanted::default() };
        let objects = index.objects(&wanted, &york(true), 0, 10, at(0)).await.unwrap();
        assert!(objects.iter().all(|object| object.protection.as_deref() == protection), "{study}");
        let plain = index.objects(&wanted, &york(false), 0, 10, at(0)).await.unwrap();
        assert_eq!(plain.is_empty(), protection.is_some(), "{study}");
    }
}

async fn rows_from_before_are_folded_in_batches_and_found(on: On) {
    let (index, _dir) = index(on).await;
    let arrivals: Vec<_> =
        (1..=1201).map(|study| named(study, "MÜLLER^A", "1", "20240101")).collect();
    for arrivals in arrivals.chunks(400) {
        index.record(arrivals).await.unwrap();
    }
    let mut db = index.begin(Access::Write(Durability::Synced)).await.ok().unwrap();
    let as_before = "UPDATE study SET name_folded = NULL, study_day = NULL, findable = 0";
    let query = db.query(as_before);
    query.execute(&mut db).await.unwrap();
    let folded = super::super::findable::fold_some(&mut db).await.unwrap();
    db.commit().await.unwrap();
    assert_eq!(folded, 500, "a batch, after which the program ended");

    let found = studies(&index, &[(tags::PATIENT_NAME, "muller*")], &Scope::All).await;

    assert_eq!(found.len(), 1201);
    assert_eq!(index.make_findable().await.unwrap(), 0);
    assert_eq!(studies(&index, &[(tags::STUDY_DATE, "20240101")], &Scope::All).await.len(), 1201);
}

async fn a_search_ends_in_time(on: On) {
    let (index, _dir) = index(on).await;
    for start in 0..20 {
        let arrivals: Vec<_> = (1..=500).map(|study| ct(start * 500 + study, 1)).collect();
        index.record(&arrivals).await.unwrap();
    }
    let query =
        ask(Level::Study, &[(tags::PATIENT_NAME, "*x*y*z*"), (tags::STUDY_DESCRIPTION, "*q*")]);
    let page = Page { within: Duration::ZERO, ..Page::default() };

    let ended = index.find(&query, &Scope::All, &page, at(0)).await;

    assert!(
        matches!(ended, Err(IndexError::SearchTooLong { .. })) || on == On::Postgres,
        "{ended:?}"
    );
    let patient = index.find(&query, &Scope::All, &Page::default(), at(0)).await.unwrap();
    assert!(patient.found.is_empty(), "the next search has its own time");
}

async fn a_ceiling_is_told(on: On) {
    let (index, _dir) = index(on).await;
    some_studies(&index).await;
    let query = ask(Level::Study, &[]);
    for (ceiling, expected, cut) in [(5, 5, true), (12, 12, false), (100, 12, false)] {
        let scope = Scope::All;
        let page = Page { limit: 2, ..Page::default() };
        let mut search = index.find_all(&query, &scope, page, ceiling, at(0));
        let mut found = 0;
        loop {
            let some = search.next().await.unwrap().len();
            if some == 0 {
                break;
            }
            found += some;
        }

        assert_eq!((found, search.was_cut()), (expected, cut), "{ceiling}");
    }
}

/// SQLite says what it goes along; of PostgreSQL the plan depends on what is in the tables.
#[tokio::test]
async fn what_names_few_goes_along_an_index() {
    type Case<'c> = (Level, &'c [(Tag, &'c str)], &'c Scope, &'c str);
    let (index, _dir) = index(On::Sqlite).await;
    let page = Page::default();
    let small = york(false);
    let table: &[Case<'_>] = &[
        (Level::Study, &[(tags::PATIENT_ID, "1")], &Scope::All, "study_of_patient"),
        (Level::Study, &[(tags::STUDY_INSTANCE_UID, "1.2\\1.3")], &Scope::All, "(uid=?)"),
        (Level::Study, &[(tags::ACCESSION_NUMBER, "A")], &Scope::All, "study_by_accession"),
        (Level::Study, &[(tags::STUDY_DATE, "20240101")], &Scope::All, "study_by_day"),
        (Level::Study, &[(tags::STUDY_DATE, "20240101-20240131")], &Scope::All, "study_by_day"),
        (Level::Study, &[(tags::PATIENT_NAME, "SMITH*")], &Scope::All, "study_by_name"),
        (Level::Study, &[(tags::PATIENT_NAME, "SMITH*")], &small, "study_by_name"),
        (Level::Series, &[(tags::SERIES_INSTANCE_UID, "1.2")], &Scope::All, "series_by_uid"),
        (Level::Image, &[(tags::SOP_INSTANCE_UID, "1.2")], &Scope::All, "(sop_instance=?"),
        (Level::Patient, &[(tags::PATIENT_ID, "1")], &Scope::All, "(patient_id=?"),
    ];
    for (level, keys, scope, wanted) in table {
        let query = ask(*level, keys);
        let mut db = index.begin(Access::Read).await.ok().unwrap();
        let ask = statement::Ask {
            query: &query,
            scope,
            page: &page,
            now: at(0),
            order: Order::of(&query),
            by_scope: None,
        };
        let statement = if *level == Level::Patient {
            ask.patients(&db, 10)
        } else {
            ask.rows(&db, &columns(&query), 10)
        };
        let plan = statement.plan(&mut db).await;
        let searched = plan.iter().any(|line| line.contains("SEARCH") && line.contains(wanted));
        assert!(searched, "{keys:?}: {plan:#?}");
        let scanned = plan.iter().any(|line| {
            line.starts_with("SCAN s") || line.starts_with("SCAN i") || line.starts_with("SCAN r")
        });
        assert!(!scanned, "{keys:?}: {plan:#?}");
        let sorted = plan.iter().any(|line| line.contains("TEMP B-TREE"));
        assert!(
            !sorted || *wanted != "study_by_name" && *wanted != "study_by_day",
            "{keys:?}: {plan:#?}"
        );
    }
}
