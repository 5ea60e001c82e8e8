//! STOW-RS (PS3.18 10.5): instances come in parts of one request, each through intake as from an association. An instance is said
//! to be stored only when it is as safe as the configuration asks.

use std::time::Duration;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use futures_util::StreamExt as _;
use gantry_dicomweb::accept::{MediaType, Resource, Target};
use gantry_dicomweb::multipart::{Boundary, Event, MultipartError, Reader};
use gantry_dicomweb::stow::{Failed, Outcome, Stored};
use gantry_store::dicom::StudyInstanceUid;
use gantry_store::facts::Origin;
use tokio::time::timeout;

use super::super::incoming::{IncomingFile, NotTaken};
use super::super::problem::Problem;
use super::{App, Names, answer, caller, respond};
use crate::access::Peer;
use crate::association::status::Status;
use crate::config::Permission;
use crate::intake::Receiver;
use crate::telemetry::chain;
use crate::telemetry::metrics::BySender;

/// The most instances of one request.
const MOST_PARTS: u64 = 20_000;
/// How long the next bytes may take.
const SILENCE: Duration = Duration::from_mins(1);
/// As much is still read of a request that was refused, so that its sender reads why instead of a broken connection.
const PASSED_OVER: u64 = 256 << 20;
/// What routes and the timeline call this way in.
pub(super) const LISTENER: &str = "dicomweb";

/// `POST …/studies` and `POST …/studies/{study}`
pub(super) async fn store(
    State(app): State<App>,
    Extension(peer): Extension<Peer>,
    names: Path<Names>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    caller::permit(&app, &peer, Permission::Send)?;
    let study = Names::read(names)?.study;
    let target = Target { resource: Resource::Store, single: true, stored: None, transcodes: &[] };
    let wanted = answer(&headers, None, &target)?;
    let form = form(&headers)?;
    let _turn = app.turn(&peer).await?;

    let mut request = Request {
        line: app.intake.receiver(),
        origin: origin(&app, &peer),
        study,
        file: None,
        outcome: Outcome::default(),
        app: &app,
        peer: &peer,
    };
    let broke = match form {
        Form::Single => request.take_one(body).await.err(),
        Form::Multipart(boundary) => request.take_all(&boundary, body).await.err(),
    };
    let mut outcome = request.outcome;
    if outcome.stored.is_empty() && outcome.failed.is_empty() {
        return Err(broke.unwrap_or_else(|| {
            Problem::bad_request("There is no part in this request.").hint(INSTANCES)
        }));
    }
    if broke.is_some() {
        outcome.failed.push(Failed { of: None, reason: Status::CANNOT_UNDERSTAND.0 });
    }
    tracing::info!(
        caller = peer.name(),
        stored = outcome.stored.len(),
        failed = outcome.failed.len(),
        "store over DICOMweb answered"
    );
    let busy = Status::OUT_OF_RESOURCES.0;
    let is_full =
        outcome.stored.is_empty() && outcome.failed.iter().all(|failed| failed.reason == busy);
    let status = if is_full { 503 } else { outcome.status().code() };
    let body = outcome.body(wanted.media).map_err(|error| Problem::internal(&error))?;
    let mut fields = vec![(header::CONTENT_TYPE, wanted.media.name().to_owned())];
    if is_full {
        fields.push((header::RETRY_AFTER, "60".to_owned()));
    }
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    Ok(respond(status, &fields, body.into()))
}

const INSTANCES: &str =
    "Send each instance as a part of multipart/related; type=\"application/dicom\".";

/// How instances come.
enum Form {
    /// One, which is the whole body.
    Single,
    Multipart(Boundary),
}

fn form(headers: &HeaderMap) -> Result<Form, Problem> {
    let unsupported = |detail: &str| {
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        Problem::new(status, "Unsupported media type", detail).hint(INSTANCES)
    };
    if headers.get(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        return Err(unsupported("A compressed body is not taken."));
    }
    let text = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let text = text.ok_or_else(|| unsupported("The request says no Content-Type."))?;
    let bad = |error: &dyn std::error::Error| {
        Problem::bad_request(format!("The Content-Type is not understood: {}.", chain(error)))
    };
    let kind = MediaType::parse(text).map_err(|error| bad(&error))?;
    match kind.essence() {
        "application/dicom" => Ok(Form::Single),
        "multipart/related" => {
            let of = kind.parameter("type").unwrap_or("application/dicom");
            if !of.eq_ignore_ascii_case("application/dicom") {
                return Err(unsupported("Metadata with bulk data beside it are not taken."));
            }
            Boundary::of_content_type(text).map(Form::Multipart).map_err(|error| bad(&error))
        }
        _ => Err(unsupported("Only DICOM instances are taken.")),
    }
}

/// How what this caller brings comes, for routes and the timeline.
fn origin(app: &App, peer: &Peer) -> Origin {
    let config = &app.config;
    let title = match peer {
        Peer::Partner(name) => config.partner(name).map(|it| &it.ae_title),
        Peer::Source(name) => config.source(name).map(|it| &it.ae_title),
    };
    Origin {
        listener: LISTENER.to_owned(),
        sender: peer.name().to_owned(),
        from_partner: matches!(peer, Peer::Partner(_)),
        calling_ae_title: title.unwrap_or(&config.node.ae_title).clone(),
        called_ae_title: config.node.ae_title.clone(),
        addressed_to: None,
        fetched_like: Vec::new(),
    }
}

/// A request under way.
struct Request<'a> {
    app: &'a App,
    peer: &'a Peer,
    origin: Origin,
    /// What all instances must be of.
    study: Option<StudyInstanceUid>,
    line: Receiver,
    /// The part that comes; `None` between parts, and of a part that is no instance.
    file: Option<IncomingFile>,
    outcome: Outcome,
}

/// An event of the reader that owns its bytes.
enum Piece {
    Part { is_dicom: bool },
    Bytes(Bytes),
    End,
}

impl Request<'_> {
    async fn take_one(&mut self, body: Body) -> Result<(), Problem> {
        self.file = Some(IncomingFile::new(self.origin.clone(), self.study.clone()));
        let mut body = body.into_data_stream();
        while let Some(bytes) = next(&mut body).await? {
            self.take(Piece::Bytes(bytes)).await;
        }
        self.take(Piece::End).await;
        Ok(())
    }

    /// What breaks the request is the error; what was stored before that stays stored.
    async fn take_all(&mut self, boundary: &Boundary, body: Body) -> Result<(), Problem> {
        let mut reader = Reader::new(boundary, MOST_PARTS);
        let mut body = body.into_data_stream();
        let mut pieces = Vec::new();
        while let Some(bytes) = next(&mut body).await? {
            let read = reader.feed(&bytes, |event| {
                pieces.extend(match event {
                    Event::Part(header) => Some(Piece::Part { is_dicom: is_dicom(&header) }),
                    Event::Body(bytes) => Some(Piece::Bytes(Bytes::copy_from_slice(bytes))),
                    Event::PartEnd => Some(Piece::End),
                    Event::End => None,
                });
            });
            for piece in pieces.drain(..) {
                self.take(piece).await;
            }
            if let Err(error) = read {
                pass_over(&mut body).await;
                return Err(broken(error));
            }
        }
        reader.finish().map_err(broken)
    }

    async fn take(&mut self, piece: Piece) {
        match piece {
            Piece::Part { is_dicom: true } => {
                self.file = Some(IncomingFile::new(self.origin.clone(), self.study.clone()));
            }
            Piece::Part { is_dicom: false } => self.file = None,
            Piece::Bytes(bytes) => {
                if let Some(file) = &mut self.file {
                    file.data(&mut self.line, bytes).await;
                }
            }
            Piece::End => self.end().await,
        }
    }

    async fn end(&mut self) {
        let Some(file) = self.file.take() else {
            let reason = Status::CANNOT_UNDERSTAND.0;
            return self.outcome.failed.push(Failed { of: None, reason });
        };
        let named = file.named().cloned();
        match file.end(&mut self.line).await {
            Ok(facts) => {
                let sender = BySender { sender: self.peer.name().to_owned() };
                self.app.metrics.received.get_or_create(&sender).inc();
                self.app.metrics.received_bytes.get_or_create(&sender).inc_by(facts.length);
                // A partner sees what is addressed to it, and not what it sends.
                let url = matches!(self.peer, Peer::Source(_)).then(|| {
                    let service = self.app.service();
                    format!(
                        "{service}/studies/{}/series/{}/instances/{}",
                        facts.study, facts.series, facts.sop_instance
                    )
                });
                self.outcome.stored.push(Stored {
                    class: facts.sop_class,
                    instance: facts.sop_instance,
                    retrieve_url: url,
                    warning: None,
                });
            }
            Err(error) => {
                tracing::warn!(caller = self.peer.name(), reason = %chain(&error), "instance refused");
                let reason = match &error {
                    NotTaken::NotPart10(_) => Status::CANNOT_UNDERSTAND,
                    NotTaken::Intake(error) => Status::from(error),
                };
                self.outcome.failed.push(Failed { of: named, reason: reason.0 });
            }
        }
    }
}

fn is_dicom(header: &gantry_dicomweb::multipart::Header) -> bool {
    let kind = header.get("content-type").map(MediaType::parse);
    // PS3.18 8.6.1.2.1: the type of a part that says none is that of the whole.
    kind.is_none_or(|kind| kind.is_ok_and(|kind| kind.essence() == "application/dicom"))
}

fn broken(error: MultipartError) -> Problem {
    Problem::bad_request(format!("The request is damaged: {error}.")).hint(INSTANCES)
}

async fn next(body: &mut axum::body::BodyDataStream) -> Result<Option<Bytes>, Problem> {
    match timeout(SILENCE, body.next()).await {
        Ok(None) => Ok(None),
        Ok(Some(Ok(bytes))) => Ok(Some(bytes)),
        Ok(Some(Err(_))) => Err(Problem::bad_request("The request broke off.")),
        Err(_) => {
            let detail = "The request did not go on.";
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "Too slow", detail))
        }
    }
}

async fn pass_over(body: &mut axum::body::BodyDataStream) {
    let mut passed = 0;
    while passed < PASSED_OVER
        && let Ok(Some(bytes)) = next(body).await
    {
        passed += bytes.len() as u64;
    }
}
