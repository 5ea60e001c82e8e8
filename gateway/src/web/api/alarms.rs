//! What is stuck, and whether those who are told can be.

use axum::Json;
use axum::extract::State;

use super::super::App;
use crate::alarm::Report;
use crate::alarm::channel::Tested;

/// `GET /api/v1/alarms`.
pub(super) async fn report(State(app): State<App>) -> Json<Report> {
    Json(app.web.alarms.report())
}

/// `POST /api/v1/alarms/test`: sends a message to everybody who is told.
pub(in crate::web) async fn test(State(app): State<App>) -> Json<Vec<Tested>> {
    tracing::info!("a person asked for a test of how alarms are told");
    Json(app.web.alarms.test().await)
}
