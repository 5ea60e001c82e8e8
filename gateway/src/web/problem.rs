//! What a request that fails is answered: the same content as JSON for programs (RFC 9457) and as a page for people.
//!
//! Nothing of the inside is said. What an operator needs is logged under a reference that the answer carries.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use gantry_store::index::IndexError;
use serde::Serialize;
use ulid::Ulid;

use crate::telemetry::chain;

/// Why a request was not carried out.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Problem {
    /// HTTP status.
    #[serde(serialize_with = "number")]
    pub(super) status: StatusCode,
    /// What happened, the same text each time.
    pub(super) title: &'static str,
    /// What happened this time.
    pub(super) detail: String,
    /// What can be done about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hint: Option<String>,
    /// Under which the log says more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reference: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn number<S: serde::Serializer>(status: &StatusCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(status.as_u16())
}

impl Problem {
    pub(super) fn new(status: StatusCode, title: &'static str, detail: impl Into<String>) -> Self {
        Self { status, title, detail: detail.into(), hint: None, reference: None }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The address or the thing it names does not exist.
    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "Not found", detail)
    }

    /// The request does not make sense.
    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "Bad request", detail)
    }

    /// It failed in here. The log says why.
    pub(super) fn internal(error: &dyn std::error::Error) -> Self {
        let reference = reference();
        tracing::error!(reference, error = %chain(error), "web request failed");
        Self {
            reference: Some(reference),
            ..Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "Something went wrong",
                "The gateway could not answer this request.",
            )
            .hint(
                "Try again. If it happens again, give the reference to whoever runs this gateway.",
            )
        }
    }

    /// The same, where a part of the program has stopped.
    pub(super) fn stopping() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "Not available",
            "The node is stopping or starting.",
        )
        .hint("Try again in a few seconds.")
    }
}

/// Short enough to be read out on the telephone; unique enough for a log.
fn reference() -> String {
    Ulid::new().to_string().split_off(18)
}

impl From<IndexError> for Problem {
    fn from(error: IndexError) -> Self {
        match error {
            IndexError::UnknownTransfer(id) => {
                Self::not_found(format!("There is no transfer {id}."))
            }
            error => Self::internal(&error),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self)).into_response();
        let kind = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    }
}

/// "Did you mean …?", if a name is near enough to one of these.
pub(super) fn did_you_mean<'a>(name: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    let nearest = known
        .clone()
        .map(|known| (strsim::jaro_winkler(&name.to_lowercase(), &known.to_lowercase()), known))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|(one, _), (other, _)| one.total_cmp(other));
    match nearest {
        Some((_, nearest)) => format!("Did you mean {nearest}?"),
        None => match known.collect::<Vec<_>>().as_slice() {
            [] => "None is configured.".to_owned(),
            known => format!("There are: {}.", known.join(", ")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_understood_and_a_stranger_is_told_the_names() {
        let known = ["royal-infirmary", "york-ed"];
        assert_eq!(
            did_you_mean("royal-infirmry", known.into_iter()),
            "Did you mean royal-infirmary?"
        );
        assert_eq!(did_you_mean("zzz", known.into_iter()), "There are: royal-infirmary, york-ed.");
    }

    #[test]
    fn a_problem_says_nothing_of_the_inside() {
        let inside = std::io::Error::other("/srv/gantry/index.sqlite is gone");
        let problem = serde_json::to_value(Problem::internal(&inside)).unwrap();
        assert!(!problem.to_string().contains("sqlite"), "{problem}");
        assert_eq!(
            (problem["status"].as_u64(), problem["reference"].as_str().map(str::len)),
            (Some(500), Some(8))
        );
    }
}
