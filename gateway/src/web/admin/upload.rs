//! Files that the command line sends: each goes through intake exactly as an instance from an association does.
//!
//! What an association is for a modality, a *batch* is here: requests that carry the same `Gantry-Batch` belong
//! together, and their studies count as being received until the batch is ended or has been idle for [`IDLE`]. A request
//! without one is a batch of its own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use futures_util::StreamExt as _;
use gantry_store::dicom::{SopInstanceUid, StudyInstanceUid};
use gantry_store::facts::{
    Addressed, Digest, Facts, ObjectId, Origin, ParcelId, Priority, Purpose,
};
use gantry_store::spool::SpoolError;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep_until, timeout};

use super::super::api::{Asked, Named, unknown_partner};
use super::super::incoming::{IncomingFile, NotTaken};
use super::super::part10::NotPart10;
use super::super::problem::Problem;
use super::super::{App, WebState};
use crate::config::Permission;
use crate::intake::{IntakeError, Receiver};
use crate::telemetry::chain;

/// How long a batch lives without a request.
const IDLE: Duration = Duration::from_secs(30);
/// How long a file's next bytes may take.
const SILENCE: Duration = Duration::from_mins(1);
/// Batches at once. Each has a thread that spools.
const MOST_BATCHES: usize = 32;
/// The longest name of a batch.
const NAME: usize = 64;
/// What the timeline and routes call the command line.
const CLI: &str = "cli";

/// `POST /api/v1/instances`: without `to` the routes decide.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UploadQuery {
    to: Option<String>,
    priority: Option<Priority>,
    purpose: Option<Purpose>,
    parcel: Option<ParcelId>,
    sender: Option<String>,
}

/// What was taken in. From here on it is as safe as the configuration asks.
#[derive(Debug, Serialize)]
pub(super) struct Taken {
    object: ObjectId,
    sop_instance_uid: SopInstanceUid,
    study_instance_uid: StudyInstanceUid,
    digest: Digest,
    length: u64,
}

/// The batches that are open.
#[derive(Default)]
pub(in crate::web) struct Batches(Arc<Mutex<HashMap<String, Arc<Batch>>>>);

struct Batch {
    /// One file at a time.
    line: tokio::sync::Mutex<Line>,
    last_used: Mutex<Instant>,
}

struct Line {
    /// `None` once it has ended.
    receiver: Option<Receiver>,
}

pub(super) async fn upload(
    State(app): State<App>,
    headers: HeaderMap,
    Asked(query): Asked<UploadQuery>,
    body: Body,
) -> Result<(StatusCode, Json<Taken>), Problem> {
    let origin = origin(&app.web, query)?;
    let facts = match headers.get("gantry-batch") {
        None => {
            let mut line = Line::open(&app.web);
            let taken = take(&mut line, origin, body).await;
            line.end();
            taken?
        }
        Some(name) => {
            let name = name.to_str().ok().filter(|name| !name.is_empty() && name.len() <= NAME);
            let name = name.ok_or_else(|| {
                Problem::bad_request("Gantry-Batch is not a name of 1 to 64 characters.")
            })?;
            loop {
                let batch = app.batches.find_or_open(name, &app.web)?;
                let mut line = batch.line.lock().await;
                // It may have ended while this request waited for it; then the next look opens a new one.
                if line.receiver.is_some() {
                    let taken = take(&mut line, origin, body).await;
                    batch.touch();
                    break taken?;
                }
                if app.web.stop.is_cancelled() {
                    return Err(Problem::stopping());
                }
            }
        }
    };
    let taken = Taken {
        object: facts.object,
        sop_instance_uid: facts.sop_instance,
        study_instance_uid: facts.study,
        digest: facts.digest,
        length: facts.length,
    };
    Ok((StatusCode::CREATED, Json(taken)))
}

/// `DELETE /api/v1/batches/{id}`: no more comes of it. One that is not open is ended already.
pub(super) async fn end_batch(State(app): State<App>, Named(name): Named<String>) -> StatusCode {
    let batch = app.batches.remove(&name);
    if let Some(batch) = batch {
        batch.line.lock().await.end();
    }
    StatusCode::NO_CONTENT
}

/// How the file comes, and where a person wants it to go.
fn origin(web: &WebState, query: UploadQuery) -> Result<Origin, Problem> {
    let UploadQuery { to, priority, purpose, parcel, sender } = query;
    let addressed_to = match to {
        None if priority.is_some() || purpose.is_some() || parcel.is_some() => {
            let detail = "A priority, purpose or parcel is given, and no partner: without `to` the routes decide.";
            return Err(Problem::bad_request(detail).hint("Say which partner with `to`."));
        }
        None => None,
        Some(name) => {
            let partner = web.config.partner(&name).ok_or_else(|| unknown_partner(web, &name))?;
            if !partner.may(Permission::Receive) {
                let detail = format!("{} may not be sent anything.", partner.display_name);
                return Err(Problem::new(StatusCode::FORBIDDEN, "Not allowed", detail).hint(
                    format!("Add \"receive\" to `may` of partner {name} in the configuration."),
                ));
            }
            let priority = priority.unwrap_or_default();
            let purpose = purpose.unwrap_or(match priority {
                Priority::Emergency => Purpose::EmergencyTransfer,
                Priority::Urgent | Priority::Routine => Purpose::DirectCare,
            });
            if purpose == Purpose::Research {
                let detail =
                    "Research never gets identity, and this would send images as they are.";
                return Err(Problem::new(
                    StatusCode::FORBIDDEN,
                    "Refused by a safety rule",
                    detail,
                ));
            }
            Some(Addressed { partner: name, priority, purpose, parcel })
        }
    };
    let ours = &web.config.node.ae_title;
    Ok(Origin {
        listener: CLI.to_owned(),
        sender: sender.unwrap_or_else(|| CLI.to_owned()),
        from_partner: false,
        calling_ae_title: ours.clone(),
        called_ae_title: ours.clone(),
        addressed_to,
        fetched_like: Vec::new(),
    })
}

/// Takes one file in. What is left of a file that was refused is read all the same: a client that is still writing would
/// see a broken connection instead of the reason.
async fn take(line: &mut Line, origin: Origin, body: Body) -> Result<Facts, Problem> {
    let mut body = body.into_data_stream();
    let mut next = async || -> Result<Option<Bytes>, Problem> {
        match timeout(SILENCE, body.next()).await {
            Ok(None) => Ok(None),
            Ok(Some(Ok(bytes))) => Ok(Some(bytes)),
            Ok(Some(Err(_))) => Err(Problem::bad_request("The file broke off.")),
            Err(_) => Err(Problem::new(
                StatusCode::REQUEST_TIMEOUT,
                "Too slow",
                "The file did not go on.",
            )),
        }
    };
    let receiver = line.receiver.as_mut().ok_or_else(Problem::stopping)?;
    let mut file = IncomingFile::new(origin, None);
    while let Some(bytes) = next().await? {
        file.data(receiver, bytes).await;
    }
    match file.end(receiver).await {
        Ok(facts) => Ok(*facts),
        Err(NotTaken::NotPart10(error)) => Err(not_dicom(&error)),
        Err(NotTaken::Intake(error)) => Err(refused(&error)),
    }
}

fn not_dicom(error: &NotPart10) -> Problem {
    Problem::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "Not a DICOM file",
        format!("The file was not taken: {error}."),
    )
}

/// What an uploader is told; intake's errors never quote the data set.
fn refused(error: &IntakeError) -> Problem {
    let (status, title, hint) = match error {
        IntakeError::Spool(SpoolError::Full) => {
            let hint = "Make room on the disk of the data directory, then send again.";
            (StatusCode::INSUFFICIENT_STORAGE, "No room", Some(hint))
        }
        IntakeError::Spool(_) => return Problem::internal(error),
        IntakeError::TooLong { .. } => {
            let hint = "`max-instance-size` under [intake] in gantry.toml sets the limit.";
            (StatusCode::PAYLOAD_TOO_LARGE, "Too long", Some(hint))
        }
        IntakeError::Stopping => return Problem::stopping(),
        IntakeError::Scan(_) | IntakeError::Missing { .. } | IntakeError::Mismatch { .. } => {
            (StatusCode::UNPROCESSABLE_ENTITY, "Damaged", None)
        }
    };
    let problem = Problem::new(status, title, format!("The file was not taken: {}.", chain(error)));
    match hint {
        Some(hint) => problem.hint(hint),
        None => problem,
    }
}

impl Line {
    fn open(web: &WebState) -> Self {
        Self { receiver: Some(web.intake.receiver()) }
    }

    /// Its studies are no longer being received, unless somebody else brings them.
    fn end(&mut self) {
        self.receiver = None;
    }
}

impl Batch {
    fn touch(&self) {
        *self.last_used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn idle_at(&self) -> Instant {
        *self.last_used.lock().unwrap_or_else(PoisonError::into_inner) + IDLE
    }
}

impl Batches {
    fn open(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Batch>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remove(&self, name: &str) -> Option<Arc<Batch>> {
        self.open().remove(name)
    }

    fn find_or_open(&self, name: &str, web: &WebState) -> Result<Arc<Batch>, Problem> {
        let mut open = self.open();
        if let Some(batch) = open.get(name) {
            batch.touch();
            return Ok(batch.clone());
        }
        if open.len() >= MOST_BATCHES {
            let detail = "Too many batches are open.";
            return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, "Busy", detail)
                .hint("Try again in half a minute."));
        }
        let batch = Arc::new(Batch {
            line: tokio::sync::Mutex::new(Line::open(web)),
            last_used: Mutex::new(Instant::now()),
        });
        open.insert(name.to_owned(), batch.clone());
        tokio::spawn(end_when_idle(
            self.0.clone(),
            name.to_owned(),
            batch.clone(),
            web.stop.clone(),
        ));
        Ok(batch)
    }
}

/// Ends a batch that its client left, or that the stopping node leaves.
async fn end_when_idle(
    batches: Arc<Mutex<HashMap<String, Arc<Batch>>>>,
    name: String,
    batch: Arc<Batch>,
    stop: tokio_util::sync::CancellationToken,
) {
    loop {
        let idle_at = batch.idle_at();
        tokio::select! {
            () = sleep_until(idle_at) => {}
            () = stop.cancelled() => {}
        }
        // A file that is being taken holds the line, and touches the batch before it lets go.
        let mut line = batch.line.lock().await;
        if !stop.is_cancelled() && batch.idle_at() > Instant::now() {
            continue;
        }
        {
            let mut open = batches.lock().unwrap_or_else(PoisonError::into_inner);
            if open.get(&name).is_some_and(|found| Arc::ptr_eq(found, &batch)) {
                open.remove(&name);
            }
        }
        line.end();
        return;
    }
}
