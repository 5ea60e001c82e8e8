//! What a person decides about keeping: holds, releases, removals, letting rules work now, and reading again what is kept.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use gantry_store::dicom::StudyInstanceUid;
use gantry_store::index::{Needed, Removal, Remover, StudyAtRest};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::super::api::Named;
use super::super::problem::Problem;
use super::super::session::Person;
use super::super::{App, WebState};
use crate::retention::Ran;
use crate::scrub::Begun;

/// What a person asks for, and why.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Ask {
    reason: String,
    dry_run: bool,
}

fn ask(body: &[u8]) -> Result<Ask, Problem> {
    if body.is_empty() {
        return Ok(Ask::default());
    }
    serde_json::from_slice(body)
        .map_err(|error| Problem::bad_request(format!("The body is not understood: {error}.")))
}

fn with_reason(body: &[u8]) -> Result<Ask, Problem> {
    let ask = ask(body)?;
    if ask.reason.trim().is_empty() {
        return Err(Problem::bad_request("A reason is needed: it goes on record.")
            .hint(r#"Send {"reason": "…"}."#));
    }
    Ok(ask)
}

/// What was held or released.
#[derive(Debug, Serialize)]
pub(super) struct HoldView {
    study_instance_uid: StudyInstanceUid,
    held: bool,
}

pub(super) async fn hold(
    app: State<App>,
    uid: Named<StudyInstanceUid>,
    person: Extension<Person>,
    body: Bytes,
) -> Result<Json<HoldView>, Problem> {
    set(app, uid, person, &body, true).await
}

pub(super) async fn release(
    app: State<App>,
    uid: Named<StudyInstanceUid>,
    person: Extension<Person>,
    body: Bytes,
) -> Result<Json<HoldView>, Problem> {
    set(app, uid, person, &body, false).await
}

async fn set(
    State(app): State<App>,
    Named(uid): Named<StudyInstanceUid>,
    Extension(person): Extension<Person>,
    body: &[u8],
    held: bool,
) -> Result<Json<HoldView>, Problem> {
    let reason = with_reason(body)?.reason;
    tracing::info!(study = %uid, held, "a person set or lifted a legal hold");
    if !app.web.index.hold(&uid, held, &person.0, &reason, Timestamp::now()).await? {
        return Err(Problem::not_found(format!("There is no study {uid}.")));
    }
    Ok(Json(HoldView { study_instance_uid: uid, held }))
}

/// What was removed, or would be.
#[derive(Debug, Serialize)]
pub(super) struct RemovedView {
    study_instance_uid: StudyInstanceUid,
    dry_run: bool,
    images: u64,
    bytes: u64,
}

pub(super) async fn remove(
    State(app): State<App>,
    Named(uid): Named<StudyInstanceUid>,
    Extension(person): Extension<Person>,
    body: Bytes,
) -> Result<Json<RemovedView>, Problem> {
    let Ask { reason, dry_run } = with_reason(&body)?;
    let web = &app.web;
    let study = web.index.study_at_rest(&uid).await?;
    let study =
        study.ok_or_else(|| Problem::not_found(format!("Nothing is here of a study {uid}.")))?;
    if let Some(needed) = needed(web, &study) {
        return Err(refused(&uid, needed));
    }
    if web.index.has_gone_back().await? {
        return Err(changed(&uid));
    }
    let StudyAtRest { images, bytes, .. } = study;
    if !dry_run {
        let by = Remover::Person { name: &person.0, reason: &reason };
        match web.index.remove_images(&study, by, Timestamp::now()).await? {
            Removal::Decided { .. } => {}
            Removal::Needed(needed) => return Err(refused(&uid, needed)),
            Removal::Changed => return Err(changed(&uid)),
        }
        tracing::info!(study = %uid, images, "a person removed the images of a study");
        web.wake.changed();
        // It is decided: what cannot be deleted now is deleted later.
        web.keeper().finish().await?;
    }
    Ok(Json(RemovedView { study_instance_uid: uid, dry_run, images, bytes }))
}

fn needed(web: &WebState, study: &StudyAtRest) -> Option<Needed> {
    let open = web.open_studies.contains(&study.study_instance_uid);
    study.needed().or(open.then_some(Needed::Receiving))
}

fn refused(uid: &StudyInstanceUid, needed: Needed) -> Problem {
    let (why, hint) = match needed {
        Needed::Held => (
            "it is under a legal hold",
            format!(
                "`gantry study show {uid}` says who holds it and why; `gantry study release {uid} --reason TEXT` lifts the hold."
            ),
        ),
        Needed::Owed => (
            "images of it are still owed to a partner",
            format!(
                "`gantry transfer list --study {uid}` shows to whom; `gantry transfer cancel ID --reason TEXT` gives that up first."
            ),
        ),
        Needed::Receiving => {
            ("more of it may be coming", "Try again when its sender has finished.".to_owned())
        }
        Needed::NotStored => (
            "the object store has not confirmed all of it",
            "Try again when `gantry status` says that nothing waits to be stored.".to_owned(),
        ),
    };
    let detail = format!("The images of study {uid} cannot be removed: {why}.");
    Problem::new(StatusCode::FORBIDDEN, "Refused by a safety rule", detail).hint(hint)
}

fn changed(uid: &StudyInstanceUid) -> Problem {
    let detail = format!("Study {uid} changed while it was looked at; nothing was removed.");
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "Changed meanwhile", detail).hint("Try again.")
}

pub(super) async fn scrub(State(app): State<App>) -> Json<Begun> {
    Json(app.web.scrub.begin())
}

pub(super) async fn run(State(app): State<App>, body: Bytes) -> Result<Json<Ran>, Problem> {
    let ran = app.web.keeper().apply(ask(&body)?.dry_run).await?;
    if !ran.dry_run && ran.studies > 0 {
        app.web.wake.changed();
    }
    Ok(Json(ran))
}
