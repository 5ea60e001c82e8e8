//! The JSON API under `/api/v1`: the shapes are the structs here and the views of the index.
//!
//! Times are RFC 3339 in UTC, states and priorities are the words of the index, errors are problem details (RFC 9457)
//! with a `hint` where there is a next step. Served to who is signed in, and on the administrator's socket.

mod alarms;
mod parcels;
pub(super) mod projects;
mod retention;
mod scrub;
mod sets;
mod status;
mod studies;
mod transfers;

use axum::Router;
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use axum::routing::get;
use serde::de::DeserializeOwned;

use super::problem::Problem;
use super::{App, live};

pub(super) use alarms::test as test_alarms;
pub(super) use transfers::{
    Act, act, ahead_of, circumstances, goes_before, state_of, unknown_partner, waited,
};

pub(super) fn routes() -> Router<App> {
    Router::new()
        .merge(transfers::routes())
        .merge(studies::routes())
        .route("/api/v1/status", get(status::status))
        .route("/api/v1/parcels/{id}", get(parcels::one))
        .route("/api/v1/retention", get(retention::report))
        .route("/api/v1/scrub", get(scrub::report))
        .route("/api/v1/alarms", get(alarms::report))
        .route("/api/v1/projects", get(projects::report))
        .route("/api/v1/events", get(live::events))
}

/// For addresses that nothing answers.
pub(super) async fn not_found() -> Problem {
    Problem::not_found("There is nothing at this address.").hint("The API begins with /api/v1.")
}

/// A query string; what is wrong with it is said as a problem.
pub(super) struct Asked<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(query)) => Ok(Self(query)),
            Err(error) => Err(Problem::bad_request(format!(
                "The query is not understood: {}.",
                error.body_text()
            ))),
        }
    }
}

/// A name in an address. One that is no such name names nothing.
pub(super) struct Named<T>(pub(super) T);

impl<S: Send + Sync, T: std::str::FromStr> FromRequestParts<S> for Named<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let name = Path::<String>::from_request_parts(parts, state).await;
        match name.map(|Path(name)| name.parse()) {
            Ok(Ok(name)) => Ok(Self(name)),
            _ => Err(Problem::not_found("There is nothing of this name.")),
        }
    }
}
