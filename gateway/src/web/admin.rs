//! What only the administrator's socket serves: sign-in links, files that the command line brings and fetches, what is kept
//! and removed, counts that are asked for now, a test of how alarms are told, and why an instance goes where it goes.

mod counting;
mod export;
mod keeping;
mod sharing;
mod upload;

use axum::body::Bytes;
use axum::extract::State;
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use gantry_store::dicom::SopInstanceUid;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::App;
use super::problem::Problem;
use super::session;
use crate::route::explain::{Explanation, explain};

pub(super) use upload::Batches;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/api/v1/web-link", post(web_link))
        .route("/api/v1/instances", post(upload::upload))
        .route("/api/v1/batches/{id}", delete(upload::end_batch))
        .route("/api/v1/routes/explain", post(explain_routes))
        .route("/api/v1/objects/{object}/part10", get(export::part10))
        .route("/api/v1/studies/{uid}/count", post(counting::count))
        .route("/api/v1/studies/{uid}/hold", post(keeping::hold))
        .route("/api/v1/studies/{uid}/release", post(keeping::release))
        .route("/api/v1/studies/{uid}/delete", post(keeping::remove))
        .route("/api/v1/studies/{uid}/shares", get(sharing::list).post(sharing::share))
        .route("/api/v1/studies/{uid}/unshare", post(sharing::revoke))
        .route("/api/v1/retention/run", post(keeping::run))
        .route("/api/v1/scrub/start", post(keeping::scrub))
        .route("/api/v1/alarms/test", post(super::api::test_alarms))
}

/// A link that signs its first reader in.
#[derive(Debug, Serialize)]
struct WebLink {
    url: String,
    expires_at: Timestamp,
}

async fn web_link(State(app): State<App>) -> Result<Json<WebLink>, Problem> {
    let base = app.web.base_url().ok_or_else(|| {
        let detail = "This node does not know under which address browsers reach it.";
        Problem::new(axum::http::StatusCode::CONFLICT, "No address", detail)
            .hint("Set `address` or `url` under [web] in gantry.toml.")
    })?;
    let url = format!("{base}/sign-in/{}", app.web.sessions.issue_link());
    let expires_at = Timestamp::now().saturating_add(session::LINK).unwrap_or(Timestamp::MAX);
    Ok(Json(WebLink { url, expires_at }))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExplainQuestion {
    instance: SopInstanceUid,
}

async fn explain_routes(State(app): State<App>, body: Bytes) -> Result<Json<Explanation>, Problem> {
    let question: ExplainQuestion = serde_json::from_slice(&body).map_err(|error| {
        Problem::bad_request(format!("The body is not understood: {error}."))
            .hint(r#"Send {"instance": "<SOP Instance UID>"}."#)
    })?;
    let versions = app.web.index.instance(&question.instance).await?;
    let latest = versions.last().ok_or_else(|| {
        Problem::not_found(format!("There is no instance {}.", question.instance))
    })?;
    let sealed = export::open(&app.web, latest.object).await?;
    Ok(Json(explain(&app.web.config.routes, sealed.facts())))
}
