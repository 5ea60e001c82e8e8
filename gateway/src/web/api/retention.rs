//! What retention rules say of all that is here.

use axum::Json;
use axum::extract::State;

use super::super::App;
use super::super::problem::Problem;
use crate::retention::Report;

/// `GET /api/v1/retention`.
pub(super) async fn report(State(app): State<App>) -> Result<Json<Report>, Problem> {
    Ok(Json(app.web.keeper().report().await?))
}
