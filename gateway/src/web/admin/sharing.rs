//! What a person lets a partner see beyond what is addressed to it, and takes back.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use gantry_store::dicom::StudyInstanceUid;
use gantry_store::index::{NewShare, Share};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::super::App;
use super::super::api::Named;
use super::super::problem::Problem;
use super::super::session::Person;
use crate::config::Permission;

/// What a person asks for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ask {
    partner: String,
    #[serde(default)]
    reason: String,
    /// Until when; none: until it is revoked.
    #[serde(default)]
    until: Option<Timestamp>,
}

fn ask(body: &[u8]) -> Result<Ask, Problem> {
    let ask: Ask = serde_json::from_slice(body)
        .map_err(|error| Problem::bad_request(format!("The body is not understood: {error}.")))?;
    if ask.reason.trim().is_empty() {
        return Err(Problem::bad_request("A reason is needed: it goes on record.")
            .hint(r#"Send {"partner": "…", "reason": "…"}."#));
    }
    Ok(ask)
}

/// With whom a study is shared, and was.
#[derive(Debug, Serialize)]
pub(super) struct SharesView {
    study_instance_uid: StudyInstanceUid,
    shares: Vec<Share>,
}

pub(super) async fn list(
    State(app): State<App>,
    Named(uid): Named<StudyInstanceUid>,
) -> Result<Json<SharesView>, Problem> {
    let shares = app.web.index.shares(&uid).await?;
    Ok(Json(SharesView { study_instance_uid: uid, shares }))
}

pub(super) async fn share(
    State(app): State<App>,
    Named(uid): Named<StudyInstanceUid>,
    Extension(person): Extension<Person>,
    body: Bytes,
) -> Result<Json<SharesView>, Problem> {
    let Ask { partner, reason, until } = ask(&body)?;
    let now = Timestamp::now();
    let Some(configured) = app.web.config.partner(&partner) else {
        return Err(Problem::not_found("There is no partner of that name.")
            .hint("`gantry partner list` shows them."));
    };
    if !configured.may(Permission::Query) && !configured.may(Permission::Retrieve) {
        let text = "The partner may neither query nor retrieve, so it would not see it.";
        return Err(Problem::new(StatusCode::CONFLICT, "Conflict", text)
            .hint(r#"Add "query" and "retrieve" to its may in the configuration."#));
    }
    if until.is_some_and(|until| until <= now) {
        return Err(Problem::bad_request("That time is over already."));
    }
    let new = NewShare {
        study: &uid,
        partner: &partner,
        protection: None,
        until,
        reason: &reason,
        by: &person.0,
    };
    if app.web.index.share(&new, now).await?.is_none() {
        return Err(Problem::not_found(format!("There is no study {uid}.")));
    }
    tracing::info!(study = %uid, partner, "a person shared a study");
    list(State(app), Named(uid)).await
}

pub(super) async fn revoke(
    State(app): State<App>,
    Named(uid): Named<StudyInstanceUid>,
    Extension(person): Extension<Person>,
    body: Bytes,
) -> Result<Json<SharesView>, Problem> {
    let Ask { partner, reason, .. } = ask(&body)?;
    let ended = app.web.index.revoke(&uid, &partner, &person.0, &reason, Timestamp::now()).await?;
    if ended == 0 {
        return Err(Problem::not_found("The study is not shared with that partner."));
    }
    tracing::info!(study = %uid, partner, "a person ended a share");
    list(State(app), Named(uid)).await
}
