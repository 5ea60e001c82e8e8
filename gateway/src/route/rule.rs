//! The decision itself.

use std::borrow::Cow;
use std::collections::BTreeSet;

use dicom_dictionary_std::tags;
use gantry_store::facts::{Facts, Origin, Priority};
use gantry_store::index::Routed;

use crate::config::{Condition, Fact, Protect, Route};

/// Where an instance goes. One that a person addressed goes there and nowhere else.
pub fn destinations(routes: &[Route], facts: &Facts) -> Vec<Routed> {
    if let Some(addressed) = &facts.origin.addressed_to {
        return vec![Routed {
            partner: addressed.partner.clone(),
            route: "sent by hand".to_owned(),
            purpose: addressed.purpose,
            priority: addressed.priority,
            parcel: addressed.parcel,
            // What was protected at intake is not protected again.
            protection: match facts.protected {
                Some(_) => None,
                None => by_hand(routes, &addressed.partner).0.under(&addressed.partner),
            },
        }];
    }
    let mut destinations: Vec<Routed> = Vec::new();
    let mut protect: Vec<Protect> = Vec::new();
    for facts in as_it_came(facts) {
        for route in routes.iter().filter(|route| matches(route, &facts)) {
            for partner in route.to.iter().filter(|partner| made_for(route, partner, &facts)) {
                let routed = Routed {
                    partner: partner.clone(),
                    route: route.name.clone(),
                    purpose: route.purpose,
                    priority: route.priority,
                    parcel: None,
                    protection: None,
                };
                let earlier = destinations.iter_mut().zip(&mut protect);
                let same = |(other, _): &(&mut Routed, &mut Protect)| other.partner == *partner;
                if let Some((other, strictest)) = earlier.into_iter().find(same) {
                    if route.priority < other.priority {
                        *other = routed;
                    }
                    if route.protect > *strictest {
                        *strictest = route.protect.clone();
                    }
                } else {
                    destinations.push(routed);
                    protect.push(route.protect.clone());
                }
            }
        }
    }
    if facts.protected.is_none() {
        for (routed, protect) in destinations.iter_mut().zip(&protect) {
            routed.protection = protect.under(&routed.partner);
        }
    }
    // An instance never goes back to whom it came from.
    destinations
        .retain(|routed| !(facts.origin.from_partner && routed.partner == facts.origin.sender));
    destinations
}

/// The protections under which copies are made of an instance when it is received, in the place of itself. With one the original
/// is kept by nobody, so what other routes say of it does not count.
pub fn at_intake(routes: &[Route], facts: &Facts) -> BTreeSet<String> {
    if facts.protected.is_some() {
        return BTreeSet::new();
    }
    if let Some(addressed) = &facts.origin.addressed_to {
        let (protect, at_intake) = by_hand(routes, &addressed.partner);
        let protection = protect.under(&addressed.partner);
        return protection.into_iter().filter(|_| at_intake).collect();
    }
    let mut protections = BTreeSet::new();
    for facts in as_it_came(facts) {
        let ordering = routes.iter().filter(|route| route.at_intake && matches(route, &facts));
        protections.extend(
            ordering.flat_map(|route| {
                route.to.iter().filter_map(|partner| route.protect.under(partner))
            }),
        );
    }
    protections
}

/// Whether a route sends this to a partner: a copy that was protected at intake goes where that protection was ordered, and
/// nowhere else; an original goes by all other routes.
fn made_for(route: &Route, partner: &str, facts: &Facts) -> bool {
    match &facts.protected {
        None => !route.at_intake,
        Some(protected) => {
            route.at_intake && route.protect.under(partner).as_ref() == Some(protected)
        }
    }
}

/// Under which protection something goes that a person sends, and whether from intake on: as received where a route lets identity
/// out to that partner, or none leads there; else under the strictest of its routes, so that nobody undoes by hand what
/// routes order.
fn by_hand(routes: &[Route], partner: &str) -> (Protect, bool) {
    let leading = routes.iter().filter(|route| route.to.iter().any(|to| to == partner));
    let mut protect: Vec<(&Protect, bool)> =
        leading.map(|route| (&route.protect, route.at_intake)).collect();
    protect.sort();
    match protect.as_slice() {
        [] | [(Protect::AsReceived, _), ..] => (Protect::AsReceived, false),
        [.., (strictest, at_intake)] => ((*strictest).clone(), *at_intake),
    }
}

/// The instance as it came, and where it was fetched, as it would have come with the rest of its study: a C-MOVE to
/// ourselves comes to our own AE title, whichever was called then. What an attribute says is the instance's own in each.
pub(super) fn as_it_came(facts: &Facts) -> impl Iterator<Item = Cow<'_, Facts>> {
    let like = facts.origin.fetched_like.iter().map(|way| {
        let facts = Facts { origin: Origin::came(way), ..facts.clone() };
        Cow::Owned(facts)
    });
    std::iter::once(Cow::Borrowed(facts)).chain(like)
}

/// Whether all of a route's conditions hold.
pub(super) fn matches(route: &Route, facts: &Facts) -> bool {
    route.when.iter().all(|condition| holds(condition, facts))
}

/// Whether what comes from there may be an emergency, told before its data set has come: a route of that priority names its
/// listener, AE title or sender. Conditions on attributes are left open, but alone they say nothing yet.
pub fn may_be_emergency(routes: &[Route], origin: &Origin) -> bool {
    if let Some(addressed) = &origin.addressed_to {
        return addressed.priority == Priority::Emergency;
    }
    routes.iter().filter(|route| route.priority == Priority::Emergency).any(|route| {
        let known = |condition: &&Condition| !matches!(condition.on, Fact::Attribute(..));
        let admits = |condition: &Condition| {
            value_of_origin(&condition.on, origin).is_some_and(|value| condition.admits(&value))
        };
        let mut holds = route.when.iter().filter(known).map(admits);
        // All that can be told, and at least one.
        holds.next() == Some(true) && holds.all(|holds| holds)
    })
}

/// Whether a condition holds for an instance.
pub(super) fn holds(condition: &Condition, facts: &Facts) -> bool {
    value_of(&condition.on, facts).is_some_and(|value| {
        // Several values of an attribute are alternatives, as in PS3.4 C.2.2.2.
        condition.admits(&value) || value.split('\\').any(|one| condition.admits(one.trim()))
    })
}

/// What a condition looks at, as text.
pub(super) fn value_of(fact: &Fact, facts: &Facts) -> Option<String> {
    let Fact::Attribute(tag, _) = fact else { return value_of_origin(fact, &facts.origin) };
    if [tags::ROWS, tags::COLUMNS, tags::BITS_ALLOCATED].contains(tag) {
        facts.attributes.u16(*tag).map(|number| number.to_string())
    } else {
        facts.attributes.text(*tag)
    }
}

/// The same, of what is known before a data set comes, which no attribute is.
fn value_of_origin(fact: &Fact, origin: &Origin) -> Option<String> {
    match fact {
        Fact::Listener => Some(origin.listener.clone()),
        Fact::CallingAeTitle => Some(origin.calling_ae_title.to_string()),
        Fact::CalledAeTitle => Some(origin.called_ae_title.to_string()),
        Fact::Source => (!origin.from_partner).then(|| origin.sender.clone()),
        Fact::Partner => origin.from_partner.then(|| origin.sender.clone()),
        Fact::Attribute(..) => None,
    }
}

#[cfg(test)]
mod tests {
    use gantry_store::facts::{Addressed, Purpose, Way};

    use super::*;
    use crate::config::{Pattern, Protect};
    use crate::testing::facts;

    fn route(name: &str, on: Fact, like: &str, to: &[&str], priority: Priority) -> Route {
        Route {
            name: name.into(),
            when: vec![Condition { on, any_of: vec![Pattern::ignoring_case(like)] }],
            to: to.iter().map(|partner| (*partner).to_owned()).collect(),
            purpose: Purpose::DirectCare,
            priority,
            protect: Protect::AsReceived,
            at_intake: false,
        }
    }

    fn names(routes: &[Route], facts: &Facts) -> Vec<(String, Priority)> {
        destinations(routes, facts)
            .into_iter()
            .map(|routed| (routed.partner, routed.priority))
            .collect()
    }

    #[test]
    fn an_emergency_is_known_before_its_data_set_where_the_route_says_by_whom_or_to_whom() {
        let urgent = |on, like: &str| route("e", on, like, &["ri"], Priority::Emergency);
        let modality = || Fact::Attribute(tags::MODALITY, "Modality");
        let mut both = urgent(Fact::CalledAeTitle, "gantry");
        both.when.push(Condition { on: modality(), any_of: vec![Pattern::ignoring_case("CT")] });
        let mut another = both.clone();
        another
            .when
            .push(Condition { on: Fact::Source, any_of: vec![Pattern::ignoring_case("other")] });
        let routine = route("r", Fact::CalledAeTitle, "gantry", &["ri"], Priority::Urgent);
        let mut origin = facts(1).origin;

        for (route, known) in [
            (urgent(Fact::CalledAeTitle, "gantry"), true),
            (urgent(Fact::CalledAeTitle, "other"), false),
            (urgent(Fact::Partner, "pacs"), false),
            (urgent(modality(), "CT"), false),
            (both, true),
            (another, false),
            (routine, false),
        ] {
            assert_eq!(may_be_emergency(std::slice::from_ref(&route), &origin), known, "{route:?}");
        }
        origin.addressed_to = Some(Addressed {
            partner: "ri".to_owned(),
            priority: Priority::Emergency,
            purpose: Purpose::EmergencyTransfer,
            parcel: None,
        });
        assert!(may_be_emergency(&[], &origin));
    }

    #[test]
    fn every_route_that_matches_applies_and_the_most_urgent_decides_for_a_partner() {
        let modality = Fact::Attribute(tags::MODALITY, "Modality");
        let routes = [
            route("ct", modality.clone(), "CT", &["a", "b"], Priority::Routine),
            route("emergency", Fact::CalledAeTitle, "RI_EMERG", &["a"], Priority::Emergency),
            route("mr", modality, "MR", &["c"], Priority::Routine),
        ];
        let mut ct = facts(1);
        ct.origin.called_ae_title = "RI_EMERG".parse().unwrap();

        assert_eq!(
            names(&routes, &ct),
            [("a".into(), Priority::Emergency), ("b".into(), Priority::Routine)]
        );
        assert_eq!(destinations(&routes, &ct)[0].route, "emergency");
    }

    #[test]
    fn any_of_several_values_may_match_and_an_absent_one_matches_nothing() {
        let on = |keyword, tag| Fact::Attribute(tag, keyword);
        let derived =
            route("d", on("ImageType", tags::IMAGE_TYPE), "LOCALIZER", &["a"], Priority::Routine);
        let station =
            route("s", on("StationName", tags::STATION_NAME), "*", &["a"], Priority::Routine);
        let mut scout = facts(1);
        scout.attributes.insert(tags::IMAGE_TYPE, br"ORIGINAL\PRIMARY\LOCALIZER ".to_vec());

        assert_eq!(names(&[derived], &scout).len(), 1);
        assert!(names(&[station], &scout).is_empty());
    }

    #[test]
    fn what_was_fetched_goes_where_it_would_have_gone_with_the_rest_of_its_study_and_nowhere_else()
    {
        let mut emergency =
            route("e", Fact::CalledAeTitle, "RI_EMERG", &["ri"], Priority::Emergency);
        let modality = Fact::Attribute(tags::MODALITY, "Modality");
        emergency.when.push(Condition { on: modality, any_of: vec![Pattern::ignoring_case("CT")] });
        let own = route("own", Fact::CalledAeTitle, "GANTRY", &["archive"], Priority::Routine);
        let other = route("o", Fact::CalledAeTitle, "CARDIAC", &["cardiac"], Priority::Urgent);
        let routes = [emergency, own, other];
        let mut fetched = facts(1);
        fetched.origin.fetched_like = vec![Way {
            listener: "0.0.0.0:104".into(),
            sender: "pacs".into(),
            calling_ae_title: "CT_AE1".parse().unwrap(),
            called_ae_title: "RI_EMERG".parse().unwrap(),
        }];
        let mut report = fetched.clone();
        report.attributes.insert(tags::MODALITY, b"SR".to_vec());

        assert_eq!(
            names(&routes, &fetched),
            [("archive".into(), Priority::Routine), ("ri".into(), Priority::Emergency)]
        );
        assert_eq!(names(&routes, &report), [("archive".into(), Priority::Routine)]);
        assert_eq!(names(&routes, &facts(1)), [("archive".into(), Priority::Routine)]);
    }

    #[test]
    fn what_a_person_addressed_goes_there_only_and_nothing_goes_back_to_its_sender() {
        let all = route("all", Fact::Listener, "*", &["a", "b"], Priority::Routine);
        let mut by_hand = facts(1);
        by_hand.origin.addressed_to = Some(Addressed {
            partner: "c".into(),
            priority: Priority::Urgent,
            purpose: Purpose::Mdt,
            parcel: None,
        });
        let mut from_a = facts(2);
        from_a.origin.from_partner = true;
        from_a.origin.sender = "a".into();

        assert_eq!(names(std::slice::from_ref(&all), &by_hand), [("c".into(), Priority::Urgent)]);
        assert_eq!(names(&[all], &from_a), [("b".into(), Priority::Routine)]);
    }
}
