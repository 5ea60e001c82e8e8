//! DICOMweb (PS3.18) under `/dicomweb`: sources and partners find (QIDO-RS), fetch (WADO-RS, WADO-URI) and store (STOW-RS) over
//! HTTP.
//!
//! On a listener of its own, so that who may reach it need not reach the pages. Nothing is answered to a stranger: whoever asks
//! shows a certificate that is pinned for one source or partner, or that one's bearer token (RFC 6750), and there are no
//! cookies. What it may see is `access`'s to say, the same as over DICOM, and it is said to the index, so that "not yours" is
//! found as little, and as fast, as "not there".

mod caller;
mod capabilities;
mod qido;
mod rendered;
mod stow;
mod uri;
mod wado;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRequestParts, Path};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware;
use axum::response::Response;
use axum::routing::{get, options};
use gantry_dicomweb::accept::{Accept, Answer, Target, choose};
use gantry_dicomweb::multipart::Boundary;
use gantry_store::dicom::{SeriesInstanceUid, SopInstanceUid, StudyInstanceUid};
use gantry_store::index::{Index, IndexError};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::WebState;
use super::problem::Problem;
use crate::access::Peer;
use crate::config::Config;
use crate::intake::Intake;
use crate::partner::library::Library;
use crate::telemetry::chain;
use crate::telemetry::metrics::Metrics;

/// What every path begins with.
const BASE: &str = "/dicomweb";

/// What DICOMweb looks at.
#[derive(Clone)]
pub struct DicomwebState {
    /// The node's configuration.
    pub config: Arc<Config>,
    /// Where everything is looked up.
    pub index: Index,
    /// All that is kept, for reading.
    pub library: Arc<Library>,
    /// The way in.
    pub intake: Arc<Intake>,
    /// What the node counts.
    pub metrics: Arc<Metrics>,
    turns: Arc<HashMap<Peer, Arc<Semaphore>>>,
}

/// Answers that are made for one caller at the same time, each with an image in memory at the most; further ones wait.
const MOST_ANSWERS: usize = 8;

/// The right to make one of these.
type Turn = OwnedSemaphorePermit;

impl fmt::Debug for DicomwebState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DicomwebState").finish_non_exhaustive()
    }
}

impl DicomwebState {
    /// Of a node.
    pub fn new(web: &WebState, library: Arc<Library>) -> Self {
        let WebState { config, index, intake, metrics, .. } = web.clone();
        let partners = config.partners.iter().map(|it| Peer::Partner(it.name.clone()));
        let sources = config.sources.iter().map(|it| Peer::Source(it.name.clone()));
        let turn = |peer| (peer, Arc::new(Semaphore::new(MOST_ANSWERS)));
        let turns = Arc::new(partners.chain(sources).map(turn).collect());
        Self { config, index, library, intake, metrics, turns }
    }

    /// Waits until an answer may be made for that caller.
    async fn turn(&self, peer: &Peer) -> Result<Turn, Problem> {
        let turns = self.turns.get(peer).cloned().ok_or_else(Problem::stopping)?;
        turns.acquire_owned().await.map_err(|_| Problem::stopping())
    }

    /// What clients call the service.
    fn service(&self) -> String {
        let url = self.config.dicomweb.as_ref().and_then(|it| it.url.as_deref());
        format!("{}{BASE}", url.unwrap_or_default())
    }
}

/// What the listener of DICOMweb serves.
pub fn router(state: DicomwebState) -> Router {
    let state = Arc::new(state);
    let study = Router::new()
        .route("/", get(wado::instances).post(stow::store))
        .route("/metadata", get(wado::metadata))
        .route("/series", get(qido::series))
        .route("/instances", get(qido::instances))
        .route("/series/{series}", get(wado::instances))
        .route("/series/{series}/metadata", get(wado::metadata))
        .route("/series/{series}/instances", get(qido::instances))
        .route("/series/{series}/instances/{instance}", get(wado::instances))
        .route("/series/{series}/instances/{instance}/metadata", get(wado::metadata))
        .route("/series/{series}/instances/{instance}/frames/{frames}", get(wado::frames))
        .route("/series/{series}/instances/{instance}/bulkdata/{*place}", get(wado::bulk_data))
        .route("/series/{series}/instances/{instance}/rendered", get(rendered::instance))
        .route(
            "/series/{series}/instances/{instance}/frames/{frames}/rendered",
            get(rendered::frame),
        )
        .route("/thumbnail", get(rendered::thumbnail))
        .route("/series/{series}/thumbnail", get(rendered::thumbnail))
        .route("/series/{series}/instances/{instance}/thumbnail", get(rendered::thumbnail))
        .route(
            "/series/{series}/instances/{instance}/frames/{frames}/thumbnail",
            get(rendered::thumbnail_of_frame),
        );
    let service = Router::new()
        .route("/studies", get(qido::studies).post(stow::store))
        .route("/", options(capabilities::describe))
        .route("/capabilities", get(capabilities::describe))
        .route("/wado", get(uri::retrieve))
        .route("/series", get(qido::series))
        .route("/instances", get(qido::instances))
        .nest("/studies/{study}", study);
    Router::new()
        .nest(BASE, service)
        .fallback(not_found)
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn_with_state(state.clone(), caller::admit))
        .with_state(state)
}

type App = Arc<DicomwebState>;

async fn not_found() -> Problem {
    Problem::not_found("There is nothing at this address.").hint("DICOMweb begins with /dicomweb.")
}

/// What a path names; what it does not, it names all of.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default)]
struct Names {
    study: Option<String>,
    series: Option<String>,
    instance: Option<String>,
}

/// The same as UIDs.
#[derive(Clone, Debug, Default)]
struct Named {
    study: Option<StudyInstanceUid>,
    series: Option<SeriesInstanceUid>,
    instance: Option<SopInstanceUid>,
}

impl Names {
    fn read(Path(names): Path<Self>) -> Result<Named, Problem> {
        // The text is not repeated: it may be anything.
        fn uid<U: std::str::FromStr>(text: Option<String>) -> Result<Option<U>, Problem> {
            let bad = |_| Problem::bad_request("The address names something that is no UID.");
            text.map(|text| text.parse()).transpose().map_err(bad)
        }
        Ok(Named {
            study: uid(names.study)?,
            series: uid(names.series)?,
            instance: uid(names.instance)?,
        })
    }
}

/// A request that reads: who asks, of what address, and how it is to be answered.
struct Asked {
    app: App,
    peer: Peer,
    named: Named,
    query: Option<String>,
    headers: HeaderMap,
}

impl FromRequestParts<App> for Asked {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let peer = parts.extensions.get::<Peer>().cloned().ok_or_else(Problem::stopping)?;
        let names = Path::<Names>::from_request_parts(parts, app).await;
        let names = names.map_err(|_| Problem::bad_request("The address is not UTF-8."))?;
        Ok(Self {
            app: app.clone(),
            peer,
            named: Names::read(names)?,
            query: parts.uri.query().map(str::to_owned),
            headers: parts.headers.clone(),
        })
    }
}

impl Asked {
    /// The query, empty where there is none.
    fn query(&self) -> &str {
        self.query.as_deref().unwrap_or_default()
    }
}

/// What is answered of what is not there, and of what is not for the asker: the same.
fn nothing_here() -> Problem {
    Problem::not_found("There is nothing of this name that is addressed to you or shared with you.")
        .hint("Ask the sending trust to send it, or to share it.")
}

/// How to answer, by what the client accepts (PS3.18 8.3.3.1).
fn answer(
    headers: &HeaderMap,
    parameter: Option<&str>,
    target: &Target<'_>,
) -> Result<Answer, Problem> {
    let header = match headers.get_all(header::ACCEPT).iter().collect::<Vec<_>>().as_slice() {
        [] => None,
        all => {
            let texts: Result<Vec<_>, _> = all.iter().map(|value| value.to_str()).collect();
            let bad = |_| Problem::bad_request("The Accept header is not text.");
            Some(texts.map_err(bad)?.join(", "))
        }
    };
    let accept = Accept::parse(header.as_deref(), parameter).map_err(|error| {
        Problem::bad_request(format!("What is accepted is not understood: {error}."))
    })?;
    choose(&accept, target).map_err(|error| {
        let detail = format!("It cannot be had like that: {error}.");
        Problem::new(StatusCode::NOT_ACCEPTABLE, "Not acceptable", detail)
            .hint("Ask with `Accept: */*` for what there is.")
    })
}

/// What a client is told when the index does not answer. A search that takes too long is one that could ask for less.
fn away(error: &IndexError) -> Problem {
    tracing::warn!(error = %chain(error), "index cannot be asked for DICOMweb");
    let detail = "The index did not answer in time.";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "Not available", detail)
        .hint("Ask for less, or try again in a few seconds.")
}

/// A boundary that nobody can know before.
fn boundary() -> Result<Boundary, Problem> {
    let mut bits = [0; 16];
    SystemRandom::new().fill(&mut bits).map_err(|_| Problem::stopping())?;
    Ok(Boundary::random(u128::from_le_bytes(bits)))
}

/// An answer with these header fields. They are ours, so none can be wrong.
fn respond(
    status: StatusCode,
    fields: &[(header::HeaderName, String)],
    body: axum::body::Body,
) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    for (name, value) in fields {
        if let Ok(value) = value.parse() {
            response.headers_mut().append(name, value);
        }
    }
    response
}
