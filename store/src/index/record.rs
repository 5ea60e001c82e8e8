//! The drain's transaction: from a batch of arrivals to rows and orders.
//!
//! A batch is all or nothing, and an arrival whose object has a row changes nothing; so a drain that crashed before it
//! removed its spool files hands in the same batch again.

use std::collections::HashMap;

use crate::dicom::SopInstanceUid;
use crate::facts::{Facts, ObjectId, ParcelId, Priority, Purpose};

use super::counting;
use super::db::Db;
use super::instance::{self, Place, Version};
use super::lock;
use super::retention;
use super::series::{self, SeriesIds};
use super::study::Studies;
use super::transfer::{self, Ordered, Orders, TransferId};

/// A received instance, and where the routes send it.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// What its sealed header says.
    pub facts: Facts,
    /// One entry for each route that applies. Two may name the same partner: the more urgent one counts.
    pub routed: Vec<Routed>,
}

/// A route's decision.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Routed {
    /// Where to, by configured name.
    pub partner: String,
    /// The route's name.
    pub route: String,
    /// Why.
    pub purpose: Purpose,
    /// How soon.
    pub priority: Priority,
    /// What else was sent with it.
    pub parcel: Option<ParcelId>,
    /// Under which protection it leaves, by the name that the gateway gives it; none: as it was received.
    pub protection: Option<String>,
}

/// What became of an arrival.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Recorded {
    /// The object it arrived as.
    pub object: ObjectId,
    /// What it was found to be.
    pub outcome: RecordedAs,
    /// The transfers that it is part of.
    pub transfers: Vec<TransferId>,
    /// Partners that have something new, or something more urgent, to be sent.
    pub ordered: Vec<(String, Priority)>,
}

/// What an arrival was found to be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RecordedAs {
    /// The first of its SOP Instance UID.
    New,
    /// This object was recorded before.
    Known,
    /// The same bytes are here: the sender sent them again. This arrival's object has no row and is not needed.
    Repeat {
        /// The object that holds them.
        of: ObjectId,
    },
    /// Other bytes under the same SOP Instance UID, from the same sender.
    SecondVersion {
        /// Which one, from 2.
        version: u32,
    },
    /// Other bytes under the same SOP Instance UID from someone else, or under another Study Instance UID than before.
    /// It is kept and goes nowhere.
    Quarantined,
    /// The same bytes were here, and had been removed or lost: they are here again.
    Returned,
    /// This object was decided to be removed, and only a crash left it behind.
    Removed,
}

/// Records a batch.
pub(super) async fn record(db: &mut Db, arrivals: &[Arrival]) -> sqlx::Result<Vec<Recorded>> {
    lock::studies(&mut *db, arrivals.iter().map(|arrival| &arrival.facts.study)).await?;
    let mut versions =
        instance::versions(&mut *db, arrivals.iter().map(|arrival| &arrival.facts.sop_instance))
            .await?;
    let objects: Vec<_> = arrivals.iter().map(|arrival| arrival.facts.object).collect();
    let removed = retention::removed(&mut *db, &objects).await?;
    let mut studies = Studies::default();
    let mut series_ids = SeriesIds::new();
    let mut added = instance::Added::default();
    let mut judged = Vec::with_capacity(arrivals.len());
    for Arrival { facts, .. } in arrivals {
        let found =
            if removed.contains(&facts.object) { Found::Removed } else { judge(&versions, facts) };
        let to_order = match found {
            Found::Known { .. } | Found::Removed | Found::Repeat { quarantined: true, .. } => None,
            Found::Returned { instance, study } => {
                instance::bring_back(&mut *db, instance, facts).await?;
                retention::returned(&mut *db, study, facts.received_at).await?;
                studies.find_or_add(&mut *db, &facts.study).await?;
                studies.received(&facts.study, &facts.attributes, facts.received_at);
                let same = versions.get_mut(&facts.sop_instance).into_iter().flatten();
                for version in same.filter(|version| version.place == Place::Row(instance)) {
                    version.object = facts.object;
                    version.removed = false;
                    version.lost = false;
                }
                Some((Place::Row(instance), study))
            }
            Found::Repeat { place, study, .. } => Some((place, study)),
            Found::Other { version, quarantined } => {
                let study = studies.find_or_add(&mut *db, &facts.study).await?;
                if !quarantined {
                    studies.received(&facts.study, &facts.attributes, facts.received_at);
                }
                let series =
                    series::find_or_add(&mut *db, &mut series_ids, study, facts, !quarantined)
                        .await?;
                let place = added.add(series, facts, version, quarantined);
                versions.entry(facts.sop_instance.clone()).or_default().push(Version {
                    place,
                    object: facts.object,
                    study: facts.study.clone(),
                    study_id: study,
                    number: version,
                    digest: facts.digest,
                    sender: facts.origin.sender.clone(),
                    from_partner: facts.origin.from_partner,
                    quarantined,
                    removed: false,
                    lost: false,
                });
                (!quarantined).then_some((place, study))
            }
        };
        judged.push((found, to_order));
    }
    let places = added.write(&mut *db).await?;
    let mut orders = Orders::default();
    for (arrival, (Arrival { facts, routed }, (_, to_order))) in
        arrivals.iter().zip(&judged).enumerate()
    {
        let Some((place, study)) = *to_order else { continue };
        let instance = places.row(place)?;
        for routed in routed {
            orders.order(&mut *db, (arrival, facts), study, instance, routed).await?;
        }
    }
    let parcels = orders.take_parcels();
    let mut ordered = orders.write(&mut *db).await?;
    let came = arrivals.iter().zip(&judged).filter_map(|(Arrival { facts, .. }, (_, to_order))| {
        to_order.map(|(_, study)| (study, facts))
    });
    counting::arrived(&mut *db, came).await?;
    studies.write(&mut *db).await?;
    transfer::put_in(&mut *db, parcels).await?;
    let mut recorded = Vec::with_capacity(arrivals.len());
    for (arrival, (Arrival { facts, .. }, (found, _))) in arrivals.iter().zip(judged).enumerate() {
        let Ordered { mut transfers, news } = ordered.remove(&arrival).unwrap_or_default();
        if let Found::Known { place } = found {
            transfers = transfer::of_instance(&mut *db, places.row(place)?).await?;
        }
        recorded.push(Recorded {
            object: facts.object,
            outcome: found.outcome(),
            transfers,
            ordered: news,
        });
    }
    Ok(recorded)
}

/// How an arrival relates to the versions that are there.
#[derive(Clone, Copy)]
enum Found {
    Known { place: Place },
    Repeat { of: ObjectId, place: Place, study: i64, quarantined: bool },
    Other { version: u32, quarantined: bool },
    Returned { instance: i64, study: i64 },
    Removed,
}

impl Found {
    fn outcome(self) -> RecordedAs {
        match self {
            Self::Known { .. } => RecordedAs::Known,
            Self::Repeat { of, .. } => RecordedAs::Repeat { of },
            Self::Returned { .. } => RecordedAs::Returned,
            Self::Removed => RecordedAs::Removed,
            Self::Other { quarantined: true, .. } => RecordedAs::Quarantined,
            Self::Other { version: 1, .. } => RecordedAs::New,
            Self::Other { version, .. } => RecordedAs::SecondVersion { version },
        }
    }
}

fn judge(versions: &HashMap<SopInstanceUid, Vec<Version>>, facts: &Facts) -> Found {
    let Some(versions) = versions.get(&facts.sop_instance) else {
        return Found::Other { version: 1, quarantined: false };
    };
    if let Some(known) = versions.iter().find(|version| version.object == facts.object) {
        return Found::Known { place: known.place };
    }
    let repeat = |of: &Version| Found::Repeat {
        of: of.object,
        place: of.place,
        study: of.study_id,
        quarantined: of.quarantined,
    };
    let same_bytes = |version: &&Version| version.digest == facts.digest;
    if let Some(same) = versions.iter().filter(|version| !version.quarantined).find(same_bytes) {
        if let Place::Row(instance) = same.place
            && (same.removed || same.lost)
            && same.study == facts.study
        {
            return Found::Returned { instance, study: same.study_id };
        }
        return repeat(same);
    }
    // The one that stands decides whose the instance is: what is in quarantine claims nothing.
    let quarantined =
        versions.iter().rfind(|version| !version.quarantined).is_some_and(|standing| {
            standing.study != facts.study
                || standing.sender != facts.origin.sender
                || standing.from_partner != facts.origin.from_partner
        });
    match versions.iter().find(same_bytes) {
        Some(same) if quarantined => repeat(same),
        _ => Found::Other {
            version: versions.iter().map(|version| version.number).max().unwrap_or(0) + 1,
            quarantined,
        },
    }
}

#[cfg(test)]
mod tests {
    use dicom_dictionary_std::tags;

    use super::super::samples::{On, accepted, at, claim, ct, index, on_both};
    use super::super::{EventKind, StudyFilter, TransferFilter};
    use super::*;
    use crate::dicom::Phi;

    on_both![
        a_batch_that_is_recorded_again_changes_nothing,
        a_batch_that_fails_leaves_nothing_behind,
        an_instance_sent_again_goes_to_partners_that_had_no_order_for_it,
        an_emergency_order_raises_what_waits_of_the_same_transfer,
        two_routes_to_one_partner_are_one_delivery_with_the_more_urgent_priority,
        other_bytes_under_the_same_uid_are_judged_by_who_sent_them,
        what_is_in_quarantine_does_not_decide_about_what_comes_from_the_rightful_sender,
        an_instance_that_moves_to_another_study_is_held_and_shows_nowhere,
        late_instances_reopen_a_transfer_and_do_not_go_where_a_person_cancelled_it,
        rows_are_listed_page_by_page_in_the_order_of_object_ids,
    ];

    async fn rows_are_listed_page_by_page_in_the_order_of_object_ids(on: On) {
        let (index, _dir) = index(on).await;
        let arrivals: Vec<_> = (1..=7).map(|number| ct(1, number)).collect();
        index.record(&arrivals).await.unwrap();
        index.mark_stored(&[arrivals[3].facts.object]).await.unwrap();

        let (mut listed, mut pages, mut after) = (Vec::new(), 0, None);
        loop {
            let page = index.instances_after(after, 3).await.unwrap();
            let Some(last) = page.last() else { break };
            after = Some(last.object);
            pages += 1;
            listed.extend(page);
        }

        let mut expected: Vec<_> = arrivals.iter().map(|arrival| arrival.facts.object).collect();
        expected.sort_unstable();
        assert_eq!(listed.iter().map(|row| row.object).collect::<Vec<_>>(), expected);
        assert_eq!(pages, 3);
        let stored: Vec<_> = listed.iter().filter(|row| row.stored).map(|row| row.object).collect();
        assert_eq!(stored, [arrivals[3].facts.object]);
    }

    const ROUTINE: Priority = Priority::Routine;
    const EMERGENCY: Priority = Priority::Emergency;

    async fn a_batch_that_is_recorded_again_changes_nothing(on: On) {
        let (index, _dir) = index(on).await;
        let mut batch: Vec<_> = (1..=5).map(|n| ct(1, n).to("york", ROUTINE)).collect();
        batch.push(ct(1, 3).again().to("york", ROUTINE));
        batch.push(ct(1, 4).altered(1).to("york", ROUTINE));
        batch.push(ct(1, 5).altered(2).sent_by_partner("leeds").to("york", ROUTINE));
        let first = index.record(&batch).await.unwrap();
        let before = format!("{:?}", index.transfers(&TransferFilter::default()).await.unwrap());

        let second = index.record(&batch).await.unwrap();

        let of = batch[2].facts.object;
        let outcomes: Vec<_> = first.iter().map(|recorded| recorded.outcome).collect();
        assert_eq!(outcomes[..5], [RecordedAs::New; 5]);
        let others = [
            RecordedAs::Repeat { of },
            RecordedAs::SecondVersion { version: 2 },
            RecordedAs::Quarantined,
        ];
        assert_eq!(outcomes[5..], others);
        for (index, recorded) in second.iter().enumerate() {
            let expected = if index == 5 { RecordedAs::Repeat { of } } else { RecordedAs::Known };
            assert_eq!((recorded.outcome, recorded.ordered.len()), (expected, 0), "{index}");
            assert_eq!(recorded.transfers, first[index].transfers);
        }
        assert_eq!(
            format!("{:?}", index.transfers(&TransferFilter::default()).await.unwrap()),
            before
        );
        assert_eq!(index.totals().await.unwrap().instances, 7);
        assert_eq!(index.conservation().await.unwrap()[0].ordered, 6);
    }

    async fn a_batch_that_fails_leaves_nothing_behind(on: On) {
        let (index, _dir) = index(on).await;
        let mut clash = ct(2, 1);
        let batch = [ct(1, 1).to("york", ROUTINE), ct(1, 2)];
        clash.facts.object = batch[0].facts.object;

        let failed = index.record(&[batch[0].clone(), batch[1].clone(), clash]).await;

        assert!(failed.is_err());
        assert_eq!(index.totals().await.unwrap(), super::super::Totals::default());
        assert_eq!(index.record(&batch).await.unwrap()[0].outcome, RecordedAs::New);
    }

    async fn an_instance_sent_again_goes_to_partners_that_had_no_order_for_it(on: On) {
        let (index, _dir) = index(on).await;
        index.record(&[ct(1, 1).to("york", ROUTINE)]).await.unwrap();

        let again = index
            .record(&[ct(1, 1).again().to("york", ROUTINE).to("leeds", ROUTINE)])
            .await
            .unwrap();

        assert_eq!(again[0].ordered, [("leeds".to_owned(), ROUTINE)]);
        assert_eq!(again[0].transfers.len(), 2);
        let ordered: Vec<_> = index
            .conservation()
            .await
            .unwrap()
            .into_iter()
            .map(|p| (p.partner, p.ordered))
            .collect();
        assert_eq!(ordered, [("leeds".to_owned(), 1), ("york".to_owned(), 1)]);
    }

    async fn an_emergency_order_raises_what_waits_of_the_same_transfer(on: On) {
        let (index, _dir) = index(on).await;
        let first = index
            .record(&[ct(1, 1).to("york", ROUTINE), ct(1, 2).to("york", ROUTINE)])
            .await
            .unwrap();

        let again = index.record(&[ct(1, 2).again().to("york", EMERGENCY)]).await.unwrap();
        let late = index.record(&[ct(1, 3).to("york", ROUTINE)]).await.unwrap();

        assert_eq!(again[0].ordered, [("york".to_owned(), EMERGENCY)]);
        assert_eq!(late[0].ordered, [("york".to_owned(), EMERGENCY)]);
        let claims =
            index.claim("york", "node", 9, std::time::Duration::from_mins(1), at(9)).await.unwrap();
        assert!(claims.len() == 3 && claims.iter().all(|claim| claim.priority == EMERGENCY));
        let detail = index.transfer(first[0].transfers[0]).await.unwrap().unwrap();
        assert_eq!(
            (detail.transfer.priority, detail.transfer.purpose),
            (EMERGENCY, Purpose::EmergencyTransfer)
        );
        assert_eq!(detail.events.last().map(|event| event.kind), Some(EventKind::PriorityRaised));
    }

    async fn two_routes_to_one_partner_are_one_delivery_with_the_more_urgent_priority(on: On) {
        let (index, _dir) = index(on).await;

        index.record(&[ct(1, 1).to("york", ROUTINE).to("york", EMERGENCY)]).await.unwrap();

        assert_eq!(index.conservation().await.unwrap()[0].ordered, 1);
        assert_eq!(index.most_urgent("york", at(0)).await.unwrap(), Some(EMERGENCY));
    }

    async fn other_bytes_under_the_same_uid_are_judged_by_who_sent_them(on: On) {
        // Who sent the first; who sends other bytes; what these are found to be.
        type Sender = Option<&'static str>;
        let table: [(Sender, Sender, RecordedAs); 5] = [
            (None, None, RecordedAs::SecondVersion { version: 2 }),
            (None, Some("leeds"), RecordedAs::Quarantined),
            (Some("leeds"), None, RecordedAs::Quarantined),
            (Some("leeds"), Some("leeds"), RecordedAs::SecondVersion { version: 2 }),
            (Some("leeds"), Some("hull"), RecordedAs::Quarantined),
        ];
        for (first, second, expected) in table {
            let (index, _dir) = index(on).await;
            let sent_by = |arrival: Arrival, sender: Sender| match sender {
                Some(partner) => arrival.sent_by_partner(partner),
                None => arrival,
            };
            index.record(&[sent_by(ct(1, 1), first).to("york", ROUTINE)]).await.unwrap();

            let other = sent_by(ct(1, 1).altered(1), second).to("york", ROUTINE);
            let recorded = index.record(std::slice::from_ref(&other)).await.unwrap();
            let repeated = index.record(&[other.clone().again()]).await.unwrap();

            assert_eq!(recorded[0].outcome, expected, "{first:?} then {second:?}");
            assert_eq!(repeated[0].outcome, RecordedAs::Repeat { of: other.facts.object });
            let quarantined = expected == RecordedAs::Quarantined;
            assert_eq!(
                index.conservation().await.unwrap()[0].ordered,
                if quarantined { 1 } else { 2 }
            );
            assert_eq!(repeated[0].transfers.is_empty(), quarantined);
            let rows = index.instance(&other.facts.sop_instance).await.unwrap();
            let flags: Vec<_> = rows.iter().map(|row| (row.version, row.quarantined)).collect();
            assert_eq!(flags, [(1, false), (2, quarantined)]);
            assert_eq!(index.quarantined(9).await.unwrap().len(), usize::from(quarantined));
            assert_eq!(index.studies(&StudyFilter::default()).await.unwrap()[0].instance_count, 1);
        }
    }

    async fn what_is_in_quarantine_does_not_decide_about_what_comes_from_the_rightful_sender(
        on: On,
    ) {
        let (index, _dir) = index(on).await;
        let altered = ct(1, 1).altered(1).to("york", ROUTINE);
        index.record(&[ct(1, 1), altered.clone().sent_by_partner("leeds")]).await.unwrap();

        let recorded = index.record(&[altered.again()]).await.unwrap();

        assert_eq!(recorded[0].outcome, RecordedAs::SecondVersion { version: 3 });
        assert_eq!(recorded[0].ordered.len(), 1);
    }

    async fn an_instance_that_moves_to_another_study_is_held_and_shows_nowhere(on: On) {
        let (index, _dir) = index(on).await;
        let mut moved =
            ct(1, 1).altered(1).to("york", ROUTINE).with(tags::PATIENT_NAME, "OTHER^NAME");
        moved.facts.study = "1.2.77".parse().unwrap();
        index.record(&[ct(1, 1)]).await.unwrap();

        let recorded = index.record(&[moved.clone()]).await.unwrap();

        assert_eq!(
            (recorded[0].outcome, recorded[0].transfers.len()),
            (RecordedAs::Quarantined, 0)
        );
        assert_eq!(index.studies(&StudyFilter::default()).await.unwrap().len(), 1);
        let held = index.study(&moved.facts.study).await.unwrap().unwrap();
        assert_eq!((held.study.patient_name, held.study.instance_count), (Phi::new(None), 0));
        assert!(held.series[0].instances[0].quarantined);

        let mut rightful = ct(77, 5).with(tags::PATIENT_NAME, "RIGHTFUL^NAME");
        rightful.facts.series = moved.facts.series;
        index.record(&[rightful]).await.unwrap();
        let found = index.study(&moved.facts.study).await.unwrap().unwrap();
        assert_eq!(found.study.patient_name, Phi::new(Some("RIGHTFUL^NAME".to_owned())));
        assert_eq!(
            (found.study.modalities, found.study.patient_conflict),
            (vec!["CT".to_owned()], false)
        );
    }

    async fn late_instances_reopen_a_transfer_and_do_not_go_where_a_person_cancelled_it(on: On) {
        let (index, _dir) = index(on).await;
        let sent = index.record(&[ct(1, 1).to("york", ROUTINE)]).await.unwrap()[0].transfers[0];
        let cancelled =
            index.record(&[ct(1, 1).again().to("leeds", ROUTINE)]).await.unwrap()[0].transfers[0];
        let claimed = claim(&index, "york", 1, 2).await;
        index.settle(&[(claimed[0], accepted(3))], at(3)).await.unwrap();
        index.note_received_all(&[sent], at(4)).await.unwrap();
        index.cancel(cancelled, "dr-jones", "wrong hospital", at(5)).await.unwrap();

        let late =
            index.record(&[ct(1, 2).to("york", ROUTINE).to("leeds", ROUTINE)]).await.unwrap();

        assert_eq!(late[0].ordered, [("york".to_owned(), ROUTINE)]);
        assert_eq!(claim(&index, "leeds", 9, 9).await, []);
        let kinds = |detail: super::super::TransferDetail| {
            detail.events.iter().map(|e| e.kind).collect::<Vec<_>>()
        };
        assert_eq!(
            kinds(index.transfer(sent).await.unwrap().unwrap()),
            [
                EventKind::Created,
                EventKind::FirstSent,
                EventKind::ReceivedAll,
                EventKind::AllSent,
                EventKind::Reopened
            ]
        );
        let detail = index.transfer(cancelled).await.unwrap().unwrap();
        assert_eq!((detail.transfer.counts.cancelled, detail.transfer.counts.total), (2, 2));
    }
}
