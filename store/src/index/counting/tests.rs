use std::time::Duration;

use super::super::samples::{On, at, ct, index, on_both, transfer};
use super::super::{Index, TransferFilter, TransferId};
use super::*;
use crate::dicom::Phi;

on_both![
    a_study_is_due_when_its_association_ends_and_again_after_the_quiet_time,
    what_nobody_settled_is_due_again_when_its_lease_ends,
    what_the_source_lists_decides_and_its_silence_decides_nothing,
    an_incomplete_study_is_flagged_at_its_transfers_with_what_is_missing,
    a_count_is_no_news_while_more_may_come,
    what_is_fetched_is_counted_again_and_the_ways_of_the_rest_are_known,
    an_association_that_ends_during_a_count_is_not_forgotten,
    what_is_lost_is_not_held_and_what_came_long_ago_is_not_asked_about,
];

const QUIET: SignedDuration = SignedDuration::from_secs(60);

fn study() -> StudyInstanceUid {
    "1.2.1".parse().unwrap()
}

async fn due(index: &Index, second: i64) -> usize {
    index.counts_due(at(second), QUIET, 9).await.unwrap().len()
}

async fn take(index: &Index, second: i64) -> Option<CountTaken> {
    index.take_count(&study(), at(second), QUIET, at(second + 900), false).await.unwrap()
}

fn listed(number: i64, expected: u64, missing: u64) -> CountedSeries {
    CountedSeries {
        series_instance_uid: format!("1.2.1.{number}").parse().unwrap(),
        number: Some(number),
        modality: Some("CT".to_owned()),
        description: Phi::new(Some("Thin 0.625".to_owned())),
        expected,
        missing,
    }
}

fn counted(series: Vec<CountedSeries>) -> Outcome {
    Outcome::Counted { series, surplus: 0 }
}

async fn settle(index: &Index, taken: CountTaken, outcome: &Outcome, second: i64) {
    let study = study();
    let counted = Counted {
        study: &study,
        source: Some("pacs"),
        taken,
        outcome,
        due: None,
        fetch: NextFetch::AsItIs,
        now: at(second),
    };
    index.settle_count(counted).await.unwrap();
}

async fn shown(index: &Index) -> super::super::Completeness {
    index.study(&study()).await.unwrap().unwrap().study.completeness
}

async fn kinds(index: &Index, id: TransferId) -> Vec<EventKind> {
    let detail = index.transfer(id).await.unwrap().unwrap();
    detail.events.iter().map(|event| event.kind).skip(1).collect()
}

async fn a_study_is_due_when_its_association_ends_and_again_after_the_quiet_time(on: On) {
    let (index, _dir) = index(on).await;
    index.record(&[ct(1, 1), ct(1, 2)]).await.unwrap();
    assert_eq!((due(&index, 3).await, due(&index, 61).await, due(&index, 62).await), (0, 0, 1));
    let asked = shown(&index).await;
    assert_eq!(asked.state, CompletenessState::NotAsked);
    assert_eq!(asked.summary, "not counted against its source yet");

    index.count_now(&[study()], at(3)).await.unwrap();
    let found = index.counts_due(at(3), QUIET, 9).await.unwrap();
    let first = take(&index, 3).await.unwrap();
    let again = take(&index, 3).await;
    settle(&index, first, &counted(vec![listed(9, 2, 0)]), 3).await;

    assert_eq!((found[0].senders.clone(), found[0].tries), (vec!["pacs".to_owned()], 0));
    assert!(!first.settled && again.is_none());
    assert_eq!((due(&index, 4).await, due(&index, 62).await), (0, 1));
    let second = take(&index, 62).await.unwrap();
    settle(&index, second, &counted(vec![listed(9, 2, 0)]), 62).await;
    assert!(second.settled);
    assert_eq!((second.missing, second.expected), (Some(0), Some(2)));
    assert_eq!(due(&index, 5000).await, 0);
    assert_eq!(shown(&index).await.state, CompletenessState::Complete);
}

async fn what_nobody_settled_is_due_again_when_its_lease_ends(on: On) {
    let (index, _dir) = index(on).await;
    index.record(&[ct(1, 1)]).await.unwrap();
    take(&index, 100).await.unwrap();

    assert_eq!((due(&index, 999).await, due(&index, 1000).await), (0, 1));
}

async fn what_the_source_lists_decides_and_its_silence_decides_nothing(on: On) {
    let (index, _dir) = index(on).await;
    index.record(&[ct(1, 1)]).await.unwrap();
    let silent = Outcome::Unanswered("it did not answer within 10 s".to_owned());
    // What came of a count, and what is then known.
    let table = [
        (Outcome::NoSource, CompletenessState::NoSource, "no source to count against"),
        (
            silent.clone(),
            CompletenessState::Unanswered,
            "pacs did not say what it has: it did not answer within 10 s",
        ),
        (
            counted(vec![listed(3, 2, 1)]),
            CompletenessState::Incomplete,
            "1 of 2: series 3 misses 1",
        ),
        (silent.clone(), CompletenessState::Incomplete, "1 of 2: series 3 misses 1"),
        (counted(vec![listed(3, 1, 0)]), CompletenessState::Complete, "1 of 1, counted at pacs"),
        (
            silent,
            CompletenessState::Unanswered,
            "pacs did not say what it has: it did not answer within 10 s",
        ),
    ];
    for (second, (outcome, state, summary)) in (1..).zip(table) {
        let now = at(second * 100);
        let taken = index.take_count(&study(), now, QUIET, now, true).await.unwrap().unwrap();
        settle(&index, taken, &outcome, second * 100).await;

        let known = shown(&index).await;
        assert_eq!((known.state, known.summary.as_str()), (state, summary));
        let tries = index.count_of(&study()).await.unwrap().unwrap().tries;
        assert_eq!(tries > 0, matches!(outcome, Outcome::Unanswered(_)));
    }
    let nothing = index.count_of(&"1.2.99".parse().unwrap()).await.unwrap();
    assert_eq!(nothing, None);
}

async fn an_incomplete_study_is_flagged_at_its_transfers_with_what_is_missing(on: On) {
    let (index, _dir) = index(on).await;
    let arrivals = [1, 2].map(|number| ct(1, number).to("york", Priority::Emergency));
    let id = transfer(&index, &arrivals).await;
    index.record(&[ct(2, 1).to("york", Priority::Routine)]).await.unwrap();
    let taken = take(&index, 100).await.unwrap();
    let series = vec![
        listed(2, 10, 0),
        listed(3, 400, 1),
        listed(4, 2, 2),
        listed(5, 2, 1),
        listed(6, 2, 1),
    ];

    settle(&index, taken, &counted(series), 100).await;

    let only = TransferFilter { only_incomplete: true, ..TransferFilter::default() };
    let found = index.transfers(&only).await.unwrap();
    assert_eq!(found.iter().map(|found| found.id).collect::<Vec<_>>(), [id]);
    let known = &found[0].study.completeness;
    assert!(known.is_incomplete());
    assert_eq!(
        known.sentence.reveal(),
        "411 of 416: series 3 'Thin 0.625' misses 1, series 4 'Thin 0.625' misses 2, series 5 'Thin 0.625' misses 1, \
         and 1 more series"
    );
    assert_eq!(
        known.summary,
        "411 of 416: series 3 misses 1, series 4 misses 2, series 5 misses 1, and 1 more series"
    );
    assert!(!format!("{known:?}").contains("Thin"));
    let detail = index.transfer(id).await.unwrap().unwrap();
    assert_eq!((detail.counted.len(), detail.counted[0].missing), (5, 1));
    let last = detail.events.last().unwrap();
    assert_eq!(
        (last.kind, last.detail.as_deref()),
        (EventKind::Incomplete, Some(known.summary.as_str()))
    );
    let totals = index.incomplete().await.unwrap();
    assert_eq!((totals.studies, totals.transfers), (1, 1));
    index.cancel(id, "dr-jones", "wrong hospital", at(101)).await.unwrap();
    let totals = index.incomplete().await.unwrap();
    assert_eq!((totals.studies, totals.transfers), (1, 0));
    assert!(index.transfers(&only).await.unwrap().is_empty());
}

async fn a_count_is_no_news_while_more_may_come(on: On) {
    let (index, _dir) = index(on).await;
    let id = transfer(&index, &[ct(1, 1).to("york", Priority::Routine)]).await;
    index.count_now(&[study()], at(2)).await.unwrap();

    let early = take(&index, 2).await.unwrap();
    settle(&index, early, &counted(vec![listed(9, 3, 2)]), 2).await;
    assert!(shown(&index).await.is_incomplete());
    assert_eq!(kinds(&index, id).await, []);

    let whole = vec![listed(9, 3, 0)];
    index
        .record(&[ct(1, 2), ct(1, 3)].map(|late| late.to("york", Priority::Routine)))
        .await
        .unwrap();
    index.count_now(&[study()], at(4)).await.unwrap();
    let ended = take(&index, 4).await.unwrap();
    settle(&index, ended, &counted(whole), 4).await;
    assert_eq!(shown(&index).await.state, CompletenessState::Complete);
    assert_eq!(kinds(&index, id).await, []);
    let quiet = take(&index, 100).await.unwrap();
    settle(&index, quiet, &counted(vec![listed(9, 3, 0)]), 100).await;
    let again = index.take_count(&study(), at(200), QUIET, at(900), true).await.unwrap().unwrap();
    settle(&index, again, &counted(vec![listed(9, 3, 0)]), 200).await;

    assert_eq!(
        kinds(&index, id).await,
        [EventKind::Complete],
        "once, as nothing has changed since"
    );
}

async fn what_is_fetched_is_counted_again_and_the_ways_of_the_rest_are_known(on: On) {
    let (index, _dir) = index(on).await;
    let mut emergency = ct(1, 1).to("york", Priority::Emergency);
    emergency.facts.origin.called_ae_title = "RI_EMERG".parse().unwrap();
    let id = transfer(&index, &[emergency.clone(), ct(1, 2).to("york", Priority::Routine)]).await;
    index.record(&[ct(1, 3).sent_by_partner("leeds")]).await.unwrap();
    let taken = take(&index, 100).await.unwrap();
    let study = study();
    let outcome = counted(vec![listed(9, 4, 1)]);
    let fetch = NextFetch::At(at(100), 0);
    let due = None;
    let source = Some("pacs");
    let counted =
        Counted { study: &study, source, taken, outcome: &outcome, due, fetch, now: at(100) };
    index.settle_count(counted).await.unwrap();

    let found = index.fetches_due(at(100), 9).await.unwrap();
    assert_eq!((found.len(), found[0].priority), (1, Priority::Emergency));
    assert!(shown(&index).await.fetching);
    assert!(index.take_fetch(&study, at(101), at(4000)).await.unwrap());
    assert!(!index.take_fetch(&study, at(101), at(4000)).await.unwrap());
    assert_eq!(index.fetched_since(at(100)).await.unwrap(), std::slice::from_ref(&study));
    let called: Vec<_> = index.ways(&study).await.unwrap();
    let called: Vec<_> = called.iter().map(|way| way.called_ae_title.as_str()).collect();
    assert_eq!(called, ["GANTRY", "RI_EMERG"]);

    let why = Some("it does not know us");
    index.settle_fetch(&study, why, "1 image asked for", at(102)).await.unwrap();

    let known = shown(&index).await;
    assert_eq!((known.fetching, known.fetch_why.as_deref()), (false, why));
    assert_eq!(self::due(&index, 102).await, 1);
    let taken = take(&index, 103).await.unwrap();
    assert_eq!((taken.fetches, taken.missing), (1, Some(1)));
    assert_eq!(kinds(&index, id).await.last(), Some(&EventKind::Fetched));
    // What was fetched does not become a way of its own.
    emergency.facts.sop_instance = "1.2.1.9.4".parse().unwrap();
    emergency.facts.object = crate::facts::ObjectId::new();
    emergency.facts.origin.called_ae_title = "OTHER".parse().unwrap();
    emergency.facts.origin.fetched_like = index.ways(&study).await.unwrap();
    index.record(&[emergency]).await.unwrap();
    assert_eq!(index.ways(&study).await.unwrap().len(), 2);
}

async fn an_association_that_ends_during_a_count_is_not_forgotten(on: On) {
    let (index, _dir) = index(on).await;
    index.record(&[ct(1, 1)]).await.unwrap();
    index.count_now(&[study()], at(1)).await.unwrap();
    let taken = take(&index, 2).await.unwrap();
    index.count_now(&[study()], at(3)).await.unwrap();

    settle(&index, taken, &counted(vec![listed(9, 1, 0)]), 4).await;

    assert_eq!(due(&index, 4).await, 1);
}

async fn what_is_lost_is_not_held_and_what_came_long_ago_is_not_asked_about(on: On) {
    let (index, _dir) = index(on).await;
    let arrivals = [ct(1, 1), ct(1, 2), ct(1, 2).altered(1)];
    index.record(&arrivals).await.unwrap();
    index.mark_lost(&[arrivals[0].facts.object], at(3)).await.unwrap();

    let held = index.held_images(&study()).await.unwrap();

    let images: Vec<_> = held.values().flatten().map(ToString::to_string).collect();
    assert_eq!(images, ["1.2.1.9.2"]);
    let week = i64::try_from(Duration::from_hours(24 * 7).as_secs()).unwrap();
    assert_eq!((due(&index, week).await, due(&index, week + 3).await), (1, 0));
}
