//! The decision itself.

use gantry_store::facts::Facts;
use gantry_store::index::Routed;

use crate::config::{Condition, Fact, Route};

/// Where an instance goes. One that a person addressed goes there and nowhere else.
pub fn destinations(routes: &[Route], facts: &Facts) -> Vec<Routed> {
    if let Some(addressed) = &facts.origin.addressed_to {
        return vec![Routed {
            partner: addressed.partner.clone(),
            route: "sent by hand".to_owned(),
            purpose: addressed.purpose,
            priority: addressed.priority,
        }];
    }
    let mut destinations: Vec<Routed> = Vec::new();
    for route in routes.iter().filter(|route| route.when.iter().all(|condition| holds(condition, facts))) {
        for partner in &route.to {
            let routed = Routed {
                partner: partner.clone(),
                route: route.name.clone(),
                purpose: route.purpose,
                priority: route.priority,
            };
            match destinations.iter_mut().find(|other| other.partner == *partner) {
                Some(other) if route.priority < other.priority => *other = routed,
                Some(_) => {}
                None => destinations.push(routed),
            }
        }
    }
    // An instance never goes back to whom it came from.
    destinations.retain(|routed| !(facts.origin.from_partner && routed.partner == facts.origin.sender));
    destinations
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
    let origin = &facts.origin;
    match fact {
        Fact::Listener => Some(origin.listener.clone()),
        Fact::CallingAeTitle => Some(origin.calling_ae_title.to_string()),
        Fact::CalledAeTitle => Some(origin.called_ae_title.to_string()),
        Fact::Source => (!origin.from_partner).then(|| origin.sender.clone()),
        Fact::Partner => origin.from_partner.then(|| origin.sender.clone()),
        Fact::Attribute(tag, _) => {
            use dicom_dictionary_std::tags;
            if [tags::ROWS, tags::COLUMNS, tags::BITS_ALLOCATED].contains(tag) {
                facts.attributes.u16(*tag).map(|number| number.to_string())
            } else {
                facts.attributes.text(*tag)
            }
        }
    }
}
