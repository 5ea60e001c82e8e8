//! Why an instance goes where it goes, in words.

use gantry_store::facts::{Facts, Priority, Purpose, Way};
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
    Explanation {
        fetched_like: facts.origin.fetched_like.clone(),
        routes: routes.iter().map(verdict).collect(),
        destinations: rule::destinations(routes, facts)
            .into_iter()
            .map(|routed| Destination {
                partner: routed.partner,
                route: routed.route,
                priority: routed.priority,
                purpose: routed.purpose,
            })
            .collect(),
    }
}
