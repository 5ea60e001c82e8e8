//! Studies: lists and one.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use gantry_store::dicom::{Phi, StudyInstanceUid};
use gantry_store::index::{StudyDetail, StudyFilter, StudySummary};
use serde::Deserialize;

use super::super::App;
use super::super::problem::Problem;
use super::{Asked, Named};

/// The most studies that one answer holds.
const MOST: u32 = 1000;

pub(super) fn routes() -> Router<App> {
    Router::new().route("/api/v1/studies", get(list)).route("/api/v1/studies/{uid}", get(one))
}

/// `GET /api/v1/studies`: what is left out does not matter.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    patient_id: Option<Phi<String>>,
    accession_number: Option<Phi<String>>,
    study: Option<StudyInstanceUid>,
    limit: Option<u32>,
}

async fn list(
    State(app): State<App>,
    Asked(query): Asked<ListQuery>,
) -> Result<Json<Vec<StudySummary>>, Problem> {
    let filter = StudyFilter {
        patient_id: query.patient_id,
        accession_number: query.accession_number,
        study_instance_uid: query.study,
        limit: query.limit.unwrap_or(100).min(MOST),
    };
    Ok(Json(app.web.index.studies(&filter).await?))
}

async fn one(
    State(app): State<App>,
    Named(uid): Named<StudyInstanceUid>,
) -> Result<Json<StudyDetail>, Problem> {
    let study = app.web.index.study(&uid).await?;
    study.map(Json).ok_or_else(|| Problem::not_found(format!("There is no study {uid}.")))
}
