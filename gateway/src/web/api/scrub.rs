//! How reading again all that is kept stands.

use axum::Json;
use axum::extract::State;

use super::super::App;
use crate::scrub::Report;

/// `GET /api/v1/scrub`.
pub(super) async fn report(State(app): State<App>) -> Json<Report> {
    Json(app.web.scrub.report())
}
