//! What a person does to many transfers at once: those of a filter, or those that are named.
//!
//! First they are counted, then acted on, and only if they are still those that were counted: between the two a person has
//! said yes to a number. Each transfer is changed in a transaction of its own, with a line in its timeline; one that fails
//! keeps no other from its turn, and the answer says what came of each.

use std::collections::BTreeSet;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use gantry_store::facts::{Digest, Priority};
use gantry_store::index::{
    Counts, IndexError, TransferFilter, TransferId, TransferState, TransferSummary,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::super::problem::{Problem, did_you_mean};
use super::super::session::Person;
use super::super::words::plural;
use super::super::{App, WebState};
use super::transfers::{Act, act, state_of, unknown_partner};

/// The most transfers that one request may concern. Who means more narrows the filter.
const MOST: u32 = 10_000;

/// What is asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ask {
    act: Name,
    #[serde(default)]
    filter: Filter,
    /// These transfers, instead of a filter.
    #[serde(default)]
    ids: Vec<TransferId>,
    /// Why; each timeline shows it.
    #[serde(default)]
    reason: String,
    /// For `urgent`: how urgent.
    #[serde(default = "emergency")]
    to: Priority,
    /// Only count.
    #[serde(default)]
    dry_run: bool,
    /// What was counted. Without it nothing is changed.
    expected: Option<Expected>,
}

fn emergency() -> Priority {
    Priority::Emergency
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum Name {
    Retry,
    Cancel,
    Pause,
    Resume,
    Urgent,
}

/// Which transfers; what is left out does not matter. All of them only where that is said.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Filter {
    partner: Option<String>,
    state: Option<TransferState>,
    /// Brought here by this source or partner.
    source: Option<String>,
    priority: Option<Priority>,
    /// Created at this time or earlier.
    created_before: Option<Timestamp>,
    all: bool,
}

/// What was counted, as the answer to a dry run says it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    transfers: u64,
    /// Names the set; with it, the same number of other transfers is another set.
    set: Option<String>,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    dry_run: bool,
    /// How many transfers it concerns.
    transfers: u64,
    /// How many images of them it moves.
    images: u64,
    /// Names the set.
    set: String,
    /// How many transfers could not be changed.
    failed: u64,
    /// What came of each; of a dry run, nothing.
    results: Vec<Done>,
}

#[derive(Debug, Serialize)]
struct Done {
    id: TransferId,
    partner: String,
    /// Deliveries that moved.
    changed: u64,
    /// Why it was not changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// `POST /api/v1/transfers/act`.
pub(super) async fn act_on_set(
    State(app): State<App>,
    Extension(person): Extension<Person>,
    body: Bytes,
) -> Result<Json<Answer>, Problem> {
    let ask: Ask = serde_json::from_slice(&body).map_err(|error| {
        Problem::bad_request(format!("The body is not understood: {error}."))
            .hint(r#"Send {"act": "retry", "filter": {"partner": "…"}, "dry_run": true}."#)
    })?;
    let web = &app.web;
    let chosen = choose(web, &ask).await?;
    let counted = Answer {
        dry_run: ask.dry_run,
        transfers: chosen.len() as u64,
        images: chosen.iter().map(|transfer| images(ask.act, &transfer.counts)).sum(),
        set: name(&chosen),
        failed: 0,
        results: Vec::new(),
    };
    if ask.dry_run {
        return Ok(Json(counted));
    }
    as_expected(&ask, &counted)?;
    let mut results = Vec::with_capacity(chosen.len());
    for transfer in chosen {
        results.push(Box::pin(carry_out(web, &person, &ask, transfer)).await);
    }
    let failed = results.iter().filter(|done| done.error.is_some()).count() as u64;
    tracing::info!(
        act = ?ask.act,
        transfers = results.len(),
        failed,
        "a person asked for several transfers to change"
    );
    Ok(Json(Answer { failed, results, ..counted }))
}

async fn carry_out(web: &WebState, person: &Person, ask: &Ask, transfer: TransferSummary) -> Done {
    let reason = ask.reason.clone();
    let what = match ask.act {
        Name::Retry => Act::Retry { reason },
        Name::Cancel => Act::Cancel { reason },
        Name::Pause => Act::Pause { reason },
        Name::Resume => Act::Resume { reason },
        Name::Urgent => Act::Raise { to: ask.to, reason },
    };
    let done = act(web, transfer.id, person, what).await;
    let (changed, error) = match done {
        Ok(changed) => (changed, None),
        Err(problem) => (0, Some(problem.detail)),
    };
    Done { id: transfer.id, partner: transfer.partner, changed, error }
}

/// Refuses what was not counted, or is not what was counted any more.
fn as_expected(ask: &Ask, counted: &Answer) -> Result<(), Problem> {
    let Some(expected) = &ask.expected else {
        let detail = "Nothing was changed: it was not said how many transfers are expected.";
        return Err(Problem::bad_request(detail).hint(
            "Ask with \"dry_run\": true, and send what that answers as \"expected\": {\"transfers\": …, \"set\": \"…\"}.",
        ));
    };
    if ask.act == Name::Cancel && ask.reason.trim().is_empty() {
        let detail = "Nothing was cancelled: a reason is needed, for whoever waits for the images.";
        return Err(Problem::bad_request(detail).hint(r#"Send "reason": "…"."#));
    }
    let same = expected.set.as_ref().is_none_or(|set| *set == counted.set);
    if expected.transfers == counted.transfers && same {
        return Ok(());
    }
    let detail = format!(
        "Nothing was changed: {} were counted, and now it would be {}.",
        plural(expected.transfers, "transfer"),
        match counted.transfers {
            now if now == expected.transfers => "as many others".to_owned(),
            now => now.to_string(),
        }
    );
    Err(Problem::new(StatusCode::CONFLICT, "Changed meanwhile", detail).hint("Count them again."))
}

/// The transfers that are meant, as far as there is something to do with them.
async fn choose(web: &WebState, ask: &Ask) -> Result<Vec<TransferSummary>, Problem> {
    let filter = &ask.filter;
    let filtered = filter.partner.is_some()
        || filter.state.is_some()
        || filter.source.is_some()
        || filter.priority.is_some()
        || filter.created_before.is_some()
        || filter.all;
    match (ask.ids.is_empty(), filtered) {
        (true, false) => {
            let detail = "Nothing says which transfers are meant.";
            return Err(Problem::bad_request(detail).hint(
                r#"Send "ids", or a "filter" of partner, state, source, priority and created_before, or {"all": true}."#,
            ));
        }
        (false, true) => {
            let detail = "Both ids and a filter say which transfers are meant.";
            return Err(Problem::bad_request(detail).hint("Send one of them."));
        }
        (false, false) => return named(web, ask).await,
        (true, true) => {}
    }
    let wanted = TransferFilter {
        partner: filter.partner.clone(),
        sender: filter.source.clone(),
        priority: filter.priority,
        until: filter.created_before,
        // What is cancelled has nothing unfinished; it is meant only where that is said.
        only_unfinished: filter.state != Some(TransferState::Cancelled),
        limit: MOST + 1,
        ..TransferFilter::default()
    };
    let found = web.index.transfers(&wanted).await?;
    if found.len() > MOST as usize {
        let detail = format!("More than {MOST} transfers are meant, which is too many at once.");
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "Too many", detail)
            .hint("Narrow the filter, by partner, source or age."));
    }
    if found.is_empty() {
        known(web, filter)?;
    }
    let cancelled = filter.state == Some(TransferState::Cancelled);
    let mut chosen = found;
    chosen.retain(|transfer| {
        filter.state.is_none_or(|state| state_of(web, transfer) == state)
            && concerns(ask, transfer, cancelled)
    });
    // The oldest first, as they would go.
    chosen.reverse();
    Ok(chosen)
}

async fn named(web: &WebState, ask: &Ask) -> Result<Vec<TransferSummary>, Problem> {
    if ask.ids.len() > MOST as usize {
        return Err(Problem::bad_request(format!("More than {MOST} transfers are named.")));
    }
    let mut chosen = Vec::new();
    for id in ask.ids.iter().collect::<BTreeSet<_>>() {
        let detail = web.index.transfer(*id).await?.ok_or(IndexError::UnknownTransfer(*id))?;
        chosen.push(detail.transfer);
    }
    // Whoever names one means it, cancelled or not.
    chosen.retain(|transfer| concerns(ask, transfer, true));
    Ok(chosen)
}

/// Says so where a filter that finds nothing has a name in it that nobody has.
fn known(web: &WebState, filter: &Filter) -> Result<(), Problem> {
    if let Some(partner) = &filter.partner
        && web.config.partner(partner).is_none()
    {
        return Err(unknown_partner(web, partner));
    }
    if let Some(source) = &filter.source {
        let config = &web.config;
        let names = config.sources.iter().map(|source| source.name.as_str());
        let names = names.chain(config.partners.iter().map(|partner| partner.name.as_str()));
        // What the command line sends comes from nobody that is configured.
        if names.clone().all(|name| name != source) && source != "cli" {
            return Err(Problem::not_found(format!("There is no source {source:?}."))
                .hint(did_you_mean(source, names)));
        }
    }
    Ok(())
}

/// Whether there is something to do with a transfer.
fn concerns(ask: &Ask, transfer: &TransferSummary, cancelled_too: bool) -> bool {
    let cancelled = transfer.cancelled.is_some();
    let moves = images(ask.act, &transfer.counts) > 0;
    match ask.act {
        Name::Retry if cancelled => cancelled_too,
        Name::Retry => moves,
        Name::Resume => transfer.paused.is_some() && !cancelled,
        Name::Pause => moves && transfer.paused.is_none() && !cancelled,
        Name::Cancel => moves && !cancelled,
        Name::Urgent => moves && !cancelled && ask.to < transfer.priority,
    }
}

/// How many images an act moves.
fn images(act: Name, counts: &Counts) -> u64 {
    let Counts { queued, sending, deferred, failed, cancelled, .. } = *counts;
    match act {
        Name::Retry => deferred + failed + cancelled,
        Name::Cancel => queued + deferred + failed,
        Name::Pause | Name::Resume => queued + sending + deferred,
        Name::Urgent => queued + sending + deferred + failed,
    }
}

/// Names a set of transfers: the same ones have the same name.
fn name(chosen: &[TransferSummary]) -> String {
    let ids: BTreeSet<_> = chosen.iter().map(|transfer| transfer.id).collect();
    let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
    for id in ids {
        digest.update(id.to_string().as_bytes());
    }
    // SHA-256 has 32 bytes, always.
    Digest(digest.finish().as_ref().try_into().unwrap_or_default()).to_string()
}
