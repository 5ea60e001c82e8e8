//! Whether the node is alive, whether it can do its work, and its figures. Open to everyone, so never about patients.
//!
//! Load balancers and Prometheus ask every few seconds, and strangers may ask as often as they like; so what costs
//! something is found out once and remembered for [`REMEMBER`], and never by two at the same time.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use gantry_store::index::TransferFilter;
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::{App, WebState};
use crate::telemetry::chain;
use crate::telemetry::metrics::{ByPartnerAndState, DeliveryState};

/// How long an answer stays good.
const REMEMBER: Duration = Duration::from_secs(2);
/// How long a part may take to show that it works.
const PATIENCE: Duration = Duration::from_secs(2);

/// What was found out last.
#[derive(Default)]
pub(super) struct Remembered {
    ready: Mutex<Option<(Instant, Arc<Readiness>)>>,
    gauges: Mutex<Option<Instant>>,
}

/// Whether each part can do its work right now.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Readiness {
    /// All of them.
    pub(super) ready: bool,
    /// Each of them.
    pub(super) checks: Vec<Check>,
}

/// One part.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Check {
    /// Which.
    pub(super) name: &'static str,
    /// Whether it works.
    pub(super) ok: bool,
    /// If not, why, in words without names or paths.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) problem: Option<&'static str>,
}

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
}

async fn healthz() -> &'static str {
    "ok\n"
}

async fn readyz(State(app): State<App>) -> (StatusCode, Json<Readiness>) {
    let readiness = readiness(&app).await;
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Readiness::clone(&readiness)))
}

/// Finds out, or remembers, whether the node can do its work.
pub(super) async fn readiness(app: &App) -> Arc<Readiness> {
    let mut remembered = app.health.ready.lock().await;
    if let Some((at, readiness)) = &*remembered
        && at.elapsed() < REMEMBER
    {
        return readiness.clone();
    }
    let web = &app.web;
    let (index, spool, objects) =
        tokio::join!(index_answers(web), spool_takes(web), objects_work(web));
    let check =
        |name, problem: Option<&'static str>| Check { name, ok: problem.is_none(), problem };
    let checks = vec![check("index", index), check("spool", spool), check("object-store", objects)];
    let readiness = Arc::new(Readiness { ready: checks.iter().all(|check| check.ok), checks });
    *remembered = Some((Instant::now(), readiness.clone()));
    readiness
}

async fn index_answers(web: &WebState) -> Option<&'static str> {
    let nothing = TransferFilter { limit: 1, ..TransferFilter::default() };
    match timeout(PATIENCE, web.index.transfers(&nothing)).await {
        Ok(Ok(_)) => None,
        Ok(Err(error)) => {
            tracing::warn!(error = %chain(&error), "index is not ready");
            Some("The index does not answer. Images are still taken in, and wait in the spool.")
        }
        Err(_) => Some("The index takes too long to answer."),
    }
}

async fn spool_takes(web: &WebState) -> Option<&'static str> {
    let spool = web.spool.clone();
    match blocking(move || spool.room()).await {
        None => Some("The spool's disk takes too long to answer."),
        Some(Ok(0)) => {
            Some("The spool is full: images are refused until there is room on its disk.")
        }
        Some(Ok(_)) => None,
        Some(Err(error)) => {
            tracing::warn!(error = %chain(&error), "spool is not ready");
            Some("The spool's disk cannot be measured.")
        }
    }
}

async fn objects_work(web: &WebState) -> Option<&'static str> {
    // One on the network is not asked anew by everybody who asks here: what storing found is at most a minute old.
    if !web.objects.is_near() {
        let down = web.intake.handoff().backlog().glance().store.reachable == Some(false);
        return down.then_some(
            "The object store cannot be reached, or refuses. Images wait in the spool and are still sent on.",
        );
    }
    let objects = web.objects.clone();
    match blocking(move || objects.probe()).await {
        None => Some("The object store takes too long to answer."),
        Some(Ok(_)) => None,
        Some(Err(error)) => {
            tracing::warn!(error = %chain(&error), "object store is not ready");
            Some("The object store does not take or give objects. Images wait in the spool.")
        }
    }
}

/// Runs what blocks, for as long as patience lasts.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    timeout(PATIENCE, tokio::task::spawn_blocking(work)).await.ok()?.ok()
}

async fn metrics(State(app): State<App>) -> Response {
    refresh_gauges(&app).await;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], app.web.metrics.print()).into_response()
}

/// Reads into the gauges what rows and disks know better than counters.
async fn refresh_gauges(app: &App) {
    let mut refreshed = app.health.gauges.lock().await;
    if refreshed.is_some_and(|at| at.elapsed() < REMEMBER) {
        return;
    }
    let (web, metrics) = (&app.web, &app.web.metrics);
    let figure = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    match web.index.conservation().await {
        Ok(partners) => {
            for partner in partners {
                for (state, count) in [
                    (DeliveryState::Delivered, partner.delivered),
                    (DeliveryState::Waiting, partner.waiting),
                    (DeliveryState::SetAside, partner.set_aside),
                    (DeliveryState::Cancelled, partner.cancelled),
                ] {
                    let label = ByPartnerAndState { partner: partner.partner.clone(), state };
                    metrics.deliveries.get_or_create(&label).set(figure(count));
                }
            }
        }
        Err(error) => tracing::warn!(error = %chain(&error), "deliveries cannot be counted"),
    }
    match web.index.totals().await {
        Ok(totals) => {
            metrics.instances.set(figure(totals.instances));
            metrics.spooled.set(figure(totals.unstored));
        }
        Err(error) => tracing::warn!(error = %chain(&error), "instances cannot be counted"),
    }
    match web.index.incomplete().await {
        Ok(totals) => {
            metrics.incomplete_studies.set(figure(totals.studies));
            metrics.incomplete_transfers.set(figure(totals.transfers));
        }
        Err(error) => {
            tracing::warn!(error = %chain(&error), "incomplete studies cannot be counted");
        }
    }
    let spool = web.spool.clone();
    if let Some(Ok(room)) = blocking(move || spool.room()).await {
        metrics.spool_room.set(room as f64);
    }
    if let Ok(Some(fullness)) = web.keeper().fullness().await {
        metrics.store_room.set(fullness.room() as f64);
    }
    *refreshed = Some(Instant::now());
}
