//! Why an instance goes where it goes, in words.

use gantry_store::facts::{Facts, Priority, Purpose, Way};
use gantry_store::index::Routed;
use serde::Serialize;

use super::rule;
use crate::config::Route;

/// What every route says of one instance, and where it goes in the end.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// Where this node fetched the instance: how the rest of its study had come. A route that takes it as one of these
    /// matches, and its conditions are shown as they hold then.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fetched_like: Vec<Way>,
    /// Each route, in the order of the configuration.
    pub routes: Vec<RouteVerdict>,
    /// Where it goes.
    pub destinations: Vec<Destination>,
}

/// What one route says.
#[derive(Clone, Debug, Serialize)]
pub struct RouteVerdict {
    /// Its name.
    pub route: String,
    /// Whether all of its conditions hold.
    pub matches: bool,
    /// Each of them.
    pub conditions: Vec<ConditionVerdict>,
}

/// What one condition says.
#[derive(Clone, Debug, Serialize)]
pub struct ConditionVerdict {
    /// What it looks at, as written.
    pub on: String,
    /// What it found there.
    pub value: Option<String>,
    /// What it may be.
    pub any_of: Vec<String>,
    /// Whether it holds.
    pub holds: bool,
}

/// One partner that the instance goes to.
#[derive(Clone, Debug, Serialize)]
pub struct Destination {
    /// Its name.
    pub partner: String,
    /// The route that decided.
    pub route: String,
    /// How soon.
    pub priority: Priority,
    /// Why.
    pub purpose: Purpose,
    /// Under which protection; none: as it was received.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protection: Option<String>,
    /// Whether only that copy of it is kept.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub protected_at_intake: bool,
}

/// Says of each route whether and why it matches.
pub fn explain(routes: &[Route], facts: &Facts) -> Explanation {
    let ways: Vec<_> = rule::as_it_came(facts).collect();
    let verdict = |route: &Route| {
        let matching = ways.iter().find(|facts| rule::matches(route, facts));
        let facts = matching.map_or(facts, |facts| facts);
        let conditions: Vec<_> = route
            .when
            .iter()
            .map(|condition| ConditionVerdict {
                on: condition.on.to_string(),
                value: rule::value_of(&condition.on, facts),
                any_of: condition.any_of.iter().map(ToString::to_string).collect(),
                holds: rule::holds(condition, facts),
            })
            .collect();
        RouteVerdict {
            route: route.name.clone(),
            matches: conditions.iter().all(|condition| condition.holds),
            conditions,
        }
    };
    let at_intake = rule::at_intake(routes, facts);
    let destination = |routed: Routed, at_intake: Option<&String>| Destination {
        partner: routed.partner,
        route: routed.route,
        priority: routed.priority,
        purpose: routed.purpose,
        protected_at_intake: at_intake.is_some(),
        protection: at_intake.cloned().or(routed.protection),
    };
    let destinations = if at_intake.is_empty() {
        let routed = rule::destinations(routes, facts).into_iter();
        routed.map(|routed| destination(routed, None)).collect()
    } else {
        let copies = at_intake.iter().flat_map(|name| {
            let copy = Facts { protected: Some(name.clone()), ..facts.clone() };
            let routed = rule::destinations(routes, &copy).into_iter();
            routed.map(|routed| destination(routed, Some(name))).collect::<Vec<_>>()
        });
        copies.collect()
    };
    Explanation {
        fetched_like: facts.origin.fetched_like.clone(),
        routes: routes.iter().map(verdict).collect(),
        destinations,
    }
}
