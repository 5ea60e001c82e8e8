//! Transfers: lists, one, its deliveries, and what a person can do about it.

use axum::body::Bytes;
use axum::extract::State;
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use gantry_store::dicom::{SopInstanceUid, StudyInstanceUid};
use gantry_store::facts::{ParcelId, Priority};
use gantry_store::index::{
    CountedSeries, DeliveryRow, IndexError, Problem as Obstacle, Rejection, TransferDetail,
    TransferEvent, TransferFilter, TransferId, TransferSeries, TransferState, TransferSummary,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::super::problem::{Problem, did_you_mean};
use super::super::remedy::{self, Remedy};
use super::super::session::Person;
use super::super::words::{Circumstances, Reader, sentence, since};
use super::super::{App, WebState};
use super::{Asked, Named, sets};
use crate::config::RecallMeans;
use crate::recall;

/// The most transfers that one answer holds.
const MOST: u32 = 1000;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/api/v1/transfers", get(list))
        .route("/api/v1/transfers/act", post(sets::act_on_set))
        .route("/api/v1/transfers/{id}", get(one))
        .route("/api/v1/transfers/{id}/deliveries", get(deliveries))
        .route("/api/v1/transfers/{id}/retry", post(retry))
        .route("/api/v1/transfers/{id}/cancel", post(cancel))
        .route("/api/v1/transfers/{id}/pause", post(pause))
        .route("/api/v1/transfers/{id}/resume", post(resume))
        .route("/api/v1/transfers/{id}/priority", post(priority))
        .route("/api/v1/transfers/{id}/recall", post(recall_one))
}

/// `GET /api/v1/transfers`: what is left out does not matter.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    priority: Option<Priority>,
    partner: Option<String>,
    study: Option<StudyInstanceUid>,
    parcel: Option<ParcelId>,
    state: Option<TransferState>,
    /// Only those of studies of which the source has more.
    #[serde(default)]
    incomplete: bool,
    /// Created at this time or later.
    since: Option<Timestamp>,
    limit: Option<u32>,
}

/// A transfer in lists.
#[derive(Debug, Serialize)]
pub(super) struct TransferView {
    #[serde(flatten)]
    transfer: TransferSummary,
    /// Where it stands.
    state: TransferState,
    /// The same in one sentence.
    sentence: String,
    /// Whether the source has more of the study than is here, whatever the state; `study.completeness` says what.
    incomplete: bool,
    /// Whether it is an emergency that waits and does not move.
    stalled: bool,
    /// What pages call the partner.
    partner_name: String,
    /// Since its first instance was routed, until it was all sent.
    waiting_seconds: u64,
}

/// One transfer with all that is known.
#[derive(Debug, Serialize)]
struct DetailView {
    #[serde(flatten)]
    transfer: TransferView,
    series: Vec<TransferSeries>,
    /// The series of the study that its source listed, those that are short first.
    counted: Vec<CountedSeries>,
    problems: Vec<ObstacleView>,
    events: Vec<TransferEvent>,
}

/// What keeps instances, with the remedy.
#[derive(Debug, Serialize)]
struct ObstacleView {
    #[serde(flatten)]
    problem: Obstacle,
    remedy: Remedy,
}

/// What a person asks for, and why.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Ask {
    reason: String,
    priority: Option<Priority>,
    /// Of a recall, in the words of the standard.
    rejection: Rejection,
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Changed {
    /// Deliveries that it moved.
    changed: u64,
    transfer: TransferView,
}

async fn list(
    State(app): State<App>,
    Asked(query): Asked<ListQuery>,
) -> Result<Json<Vec<TransferView>>, Problem> {
    let web = &app.web;
    let limit = query.limit.unwrap_or(100).min(MOST);
    let filter = TransferFilter {
        priority: query.priority,
        partner: query.partner,
        study_instance_uid: query.study,
        parcel: query.parcel,
        since: query.since,
        only_incomplete: query.incomplete,
        // A state is known only after counting, so those of other states must not use up the limit.
        limit: if query.state.is_some() { MOST } else { limit },
        ..TransferFilter::default()
    };
    let reader = Reader::here();
    let transfers = web.index.transfers(&filter).await?;
    let views = transfers.into_iter().map(|transfer| view(web, &reader, transfer, None));
    let wanted = views.filter(|view| query.state.is_none_or(|state| state == view.state));
    Ok(Json(wanted.take(limit as usize).collect()))
}

async fn one(
    State(app): State<App>,
    Named(id): Named<TransferId>,
) -> Result<Json<DetailView>, Problem> {
    let web = &app.web;
    let reader = Reader::here();
    let TransferDetail { transfer, series, counted, problems, events } =
        web.index.transfer(id).await?.ok_or(IndexError::UnknownTransfer(id))?;
    let ahead = ahead_of(web, &transfer).await?;
    let at = circumstances(web, &reader, &transfer, ahead);
    let problems = problems
        .into_iter()
        .map(|problem| ObstacleView {
            remedy: remedy::of(
                &problem.failure,
                problem.set_aside == 0,
                at.partner_name(&transfer),
                &at,
            ),
            problem,
        })
        .collect();
    let transfer = view(web, &reader, transfer, ahead);
    Ok(Json(DetailView { transfer, series, counted, problems, events }))
}

async fn deliveries(
    State(app): State<App>,
    Named(id): Named<TransferId>,
) -> Result<Json<Vec<DeliveryRow>>, Problem> {
    let deliveries = app.web.index.deliveries(id).await?;
    if deliveries.is_empty() && app.web.index.transfer(id).await?.is_none() {
        return Err(IndexError::UnknownTransfer(id).into());
    }
    Ok(Json(deliveries))
}

async fn retry(
    app: State<App>,
    id: Named<TransferId>,
    person: Extension<Person>,
    body: Bytes,
) -> Result<Json<Changed>, Problem> {
    answer(app, id, person, Act::Retry { reason: ask(&body)?.reason }).await
}

async fn cancel(
    app: State<App>,
    id: Named<TransferId>,
    person: Extension<Person>,
    body: Bytes,
) -> Result<Json<Changed>, Problem> {
    answer(app, id, person, Act::Cancel { reason: ask(&body)?.reason }).await
}

async fn pause(
    app: State<App>,
    id: Named<TransferId>,
    person: Extension<Person>,
    body: Bytes,
) -> Result<Json<Changed>, Problem> {
    answer(app, id, person, Act::Pause { reason: ask(&body)?.reason }).await
}

async fn resume(
    app: State<App>,
    id: Named<TransferId>,
    person: Extension<Person>,
    body: Bytes,
) -> Result<Json<Changed>, Problem> {
    answer(app, id, person, Act::Resume { reason: ask(&body)?.reason }).await
}

async fn priority(
    app: State<App>,
    id: Named<TransferId>,
    person: Extension<Person>,
    body: Bytes,
) -> Result<Json<Changed>, Problem> {
    let Ask { reason, priority, .. } = ask(&body)?;
    let to = priority.ok_or_else(|| {
        Problem::bad_request("The body does not say which priority.")
            .hint(r#"Send {"priority": "emergency"}."#)
    })?;
    answer(app, id, person, Act::Raise { to, reason }).await
}

async fn recall_one(
    app: State<App>,
    id: Named<TransferId>,
    person: Extension<Person>,
    body: Bytes,
) -> Result<Json<Changed>, Problem> {
    let Ask { reason, rejection, .. } = ask(&body)?;
    answer(app, id, person, Act::Recall { reason, rejection }).await
}

fn ask(body: &[u8]) -> Result<Ask, Problem> {
    if body.is_empty() {
        return Ok(Ask::default());
    }
    serde_json::from_slice(body)
        .map_err(|error| Problem::bad_request(format!("The body is not understood: {error}.")))
}

async fn answer(
    State(app): State<App>,
    Named(id): Named<TransferId>,
    Extension(person): Extension<Person>,
    what: Act,
) -> Result<Json<Changed>, Problem> {
    let changed = act(&app.web, id, &person, what).await?;
    let detail = app.web.index.transfer(id).await?.ok_or(IndexError::UnknownTransfer(id))?;
    Ok(Json(Changed { changed, transfer: view(&app.web, &Reader::here(), detail.transfer, None) }))
}

/// What a person can do about a transfer.
#[derive(Clone, Debug)]
pub(in crate::web) enum Act {
    /// Ask for it anew.
    Retry { reason: String },
    /// Give it up.
    Cancel { reason: String },
    /// Hold it.
    Pause { reason: String },
    /// Let it go on.
    Resume { reason: String },
    /// Make it more urgent.
    Raise { to: Priority, reason: String },
    /// Give it up, and ask the partner to reject what it got.
    Recall { reason: String, rejection: Rejection },
}

/// Does it, and wakes whoever must know. Says how many deliveries moved.
pub(in crate::web) async fn act(
    web: &WebState,
    id: TransferId,
    person: &Person,
    what: Act,
) -> Result<u64, Problem> {
    let (index, who, now) = (&web.index, person.0.as_str(), Timestamp::now());
    tracing::info!(transfer = %id, act = what.name(), "a person asked for a transfer to change");
    let changed = match &what {
        Act::Retry { reason } => index.retry(id, who, reason, now).await,
        Act::Cancel { reason } => index.cancel(id, who, reason, now).await,
        Act::Pause { reason } => index.pause(id, who, reason, now).await,
        Act::Resume { reason } => index.resume(id, who, reason, now).await,
        Act::Raise { to, reason } => index.make_urgent(id, *to, who, reason, now).await,
        Act::Recall { reason, rejection } => {
            if reason.trim().is_empty() {
                let detail =
                    "Nothing was recalled: a reason is needed, for those who have the images.";
                return Err(Problem::bad_request(detail).hint("Say why in a few words."));
            }
            let note = note_for(web, id).await?;
            index.recall(id, who, reason, *rejection, note.as_ref(), now).await
        }
    }?;
    if !matches!(what, Act::Cancel { .. } | Act::Pause { .. } | Act::Recall { .. })
        && let Some(detail) = index.transfer(id).await?
    {
        web.wake.work_for(&detail.transfer.partner, detail.transfer.priority);
        if matches!(what, Act::Retry { .. }) {
            web.wake.try_now(&detail.transfer.partner);
        }
    }
    web.wake.changed();
    Ok(changed)
}

/// The UID of the note of a recall, where the partner takes one.
async fn note_for(web: &WebState, id: TransferId) -> Result<Option<SopInstanceUid>, Problem> {
    let detail = web.index.transfer(id).await?.ok_or(IndexError::UnknownTransfer(id))?;
    let partner = web.config.partner(&detail.transfer.partner);
    let takes_notes = partner.is_some_and(|partner| partner.recall == RecallMeans::Iocm);
    Ok(if takes_notes { recall::note_uid() } else { None })
}

impl Act {
    fn name(&self) -> &'static str {
        match self {
            Self::Retry { .. } => "retry",
            Self::Cancel { .. } => "cancel",
            Self::Pause { .. } => "pause",
            Self::Resume { .. } => "resume",
            Self::Raise { .. } => "raise priority",
            Self::Recall { .. } => "recall",
        }
    }
}

/// How many transfers to the same partner go before this one: those that are more urgent, and the older ones that are
/// as urgent. `None` once it has begun.
pub(in crate::web) async fn ahead_of(
    web: &WebState,
    transfer: &TransferSummary,
) -> Result<Option<usize>, Problem> {
    if transfer.counts.queued != transfer.counts.total {
        return Ok(None);
    }
    let filter = TransferFilter {
        partner: Some(transfer.partner.clone()),
        only_unfinished: true,
        limit: MOST,
        ..TransferFilter::default()
    };
    let others = web.index.transfers(&filter).await?;
    Ok(Some(others.iter().filter(|other| goes_before(other, transfer)).count()))
}

/// Whether the queue takes `other` first. What is set aside, deferred or paused holds nobody up.
pub(in crate::web) fn goes_before(other: &TransferSummary, transfer: &TransferSummary) -> bool {
    other.id != transfer.id
        && other.partner == transfer.partner
        && other.paused.is_none()
        && other.counts.queued + other.counts.sending > 0
        && (other.priority, other.created_at) < (transfer.priority, transfer.created_at)
}

/// What the sentence about a transfer needs.
pub(in crate::web) fn circumstances<'a>(
    web: &'a WebState,
    reader: &'a Reader,
    transfer: &TransferSummary,
    ahead: Option<usize>,
) -> Circumstances<'a> {
    let partner = web.config.partner(&transfer.partner);
    Circumstances { reader, ae_title: web.config.node.ae_title.as_str(), partner, ahead }
}

/// Where a transfer stands now.
pub(in crate::web) fn state_of(web: &WebState, transfer: &TransferSummary) -> TransferState {
    TransferState::of(transfer, web.open_studies.contains(&transfer.study.study_instance_uid))
}

/// How long somebody has waited for it, or had to wait.
pub(in crate::web) fn waited(
    transfer: &TransferSummary,
    state: TransferState,
    now: Timestamp,
) -> std::time::Duration {
    let until = match (state, &transfer.cancelled) {
        (TransferState::Sent | TransferState::Confirmed | TransferState::Opened, _) => {
            transfer.last_sent_at.unwrap_or(now)
        }
        (_, Some(cancelled)) => cancelled.at,
        _ => now,
    };
    since(transfer.created_at, until)
}

pub(super) fn view(
    web: &WebState,
    reader: &Reader,
    transfer: TransferSummary,
    ahead: Option<usize>,
) -> TransferView {
    let state = state_of(web, &transfer);
    let at = circumstances(web, reader, &transfer, ahead);
    TransferView {
        sentence: sentence(&transfer, state, &at),
        stalled: web.alarms.stalled().contains(&transfer.id),
        partner_name: at.partner_name(&transfer).to_owned(),
        waiting_seconds: waited(&transfer, state, reader.now).as_secs(),
        incomplete: transfer.study.completeness.is_incomplete(),
        state,
        transfer,
    }
}

/// A partner that is configured, or what was probably meant.
pub(in crate::web) fn unknown_partner(web: &WebState, name: &str) -> Problem {
    let known = web.config.partners.iter().map(|partner| partner.name.as_str());
    Problem::not_found(format!("There is no partner {name:?}.")).hint(did_you_mean(name, known))
}
