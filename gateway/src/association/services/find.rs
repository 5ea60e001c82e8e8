//! C-FIND (PS3.4 C.4.1): what is here of what a peer may see.
//!
//! Matches go out as the index finds them, page by page, so that a query for everything is in memory nowhere. A cancellation is
//! heard between them. What ends early ends with a failure, never with a "success" that left something out.

use std::time::Duration;

use dicom_dictionary_std::tags;
use gantry_store::dicom::{SeriesInstanceUid, SopInstanceUid, StudyInstanceUid};
use gantry_store::index::{Found, IndexError, Page};
use gantry_store::query::{Extended, Level, Model as Root, Query};
use jiff::Timestamp;

use super::identifier::{self, Identifier, MAX_IDENTIFIER};
use super::storage;
use crate::access;
use crate::association::acceptor::{self, Session};
use crate::association::dimse::CFindRq;
use crate::association::negotiation::{Model, PresentationContext};
use crate::association::status::Status;
use crate::association::wire::{Stream, Wire, WireError};
use crate::telemetry::chain;

/// The most matches of one query. An archive's worth of studies comes through; who wants more asks by parts.
pub const MOST_MATCHES: u64 = 100_000;
/// Matches between two looks for a cancellation.
const LOOK: usize = 64;

/// Why a query is not answered, or not to its end.
struct Refused {
    status: Status,
    /// For people; no value of the query.
    comment: String,
}

impl Refused {
    fn new(status: Status, comment: &dyn std::fmt::Display) -> Self {
        Self { status, comment: comment.to_string() }
    }
}

impl From<IndexError> for Refused {
    fn from(error: IndexError) -> Self {
        tracing::warn!(error = %chain(&error), "index cannot be asked what matches a query");
        Self::new(Status::OUT_OF_RESOURCES, &"the index cannot be asked now; try again later")
    }
}

/// Answers one query.
pub async fn serve<S: Stream>(
    session: &mut Session,
    wire: &mut Wire<S>,
    context: u8,
    negotiated: &PresentationContext,
    request: &CFindRq,
) -> Result<(), WireError> {
    let Some(bytes) = storage::collect(wire, context, MAX_IDENTIFIER).await? else {
        let comment = format!("the identifier is longer than {MAX_IDENTIFIER} bytes");
        let last = request.last_response(Status::CANNOT_UNDERSTAND, &comment);
        return wire.send_command(context, &last).await;
    };
    let query = match read(&bytes, negotiated, request) {
        Ok(query) => query,
        Err(Refused { status, comment }) => {
            tracing::info!(association = session.number, sender = session.sender.name, %status, reason = comment, "query refused");
            let last = request.last_response(status, &comment);
            return wire.send_command(context, &last).await;
        }
    };
    let (count, ended) = answer(session, wire, context, negotiated, request, &query).await?;
    let Refused { status, comment } = match ended {
        Ok(status) => Refused::new(status, &""),
        Err(refused) => refused,
    };
    tracing::info!(association = session.number, sender = session.sender.name, matches = count, %status, "query answered");
    wire.send_command(context, &request.last_response(status, &comment)).await
}

/// A query, and what its answers need to know of it.
struct Asked {
    query: Query,
    character_set: Vec<u8>,
}

fn read(
    bytes: &[u8],
    negotiated: &PresentationContext,
    request: &CFindRq,
) -> Result<Asked, Refused> {
    // The command may name another model than the context.
    let model = Model::of(request.sop_class.as_str())
        .filter(|_| request.sop_class == negotiated.abstract_syntax)
        .ok_or_else(|| Refused::new(Status::SOP_CLASS_NOT_SUPPORTED, &""))?;
    let identifier = Identifier::read(bytes, &negotiated.transfer_syntax)
        .map_err(|error| Refused::new(Status::DATA_SET_MISMATCH, &chain(&error)))?;
    let root = if model.patient_root { Root::PatientRoot } else { Root::StudyRoot };
    // Queries that name nothing above what they ask for are answered as well: nobody is hurt by an answer.
    let extended = Extended { relational: true, combined_datetime: true };
    let keys = identifier.keys.iter().map(|(tag, text)| (*tag, text.as_str()));
    let query = Query::new(root, identifier.level, extended, keys)
        .map_err(|error| Refused::new(Status(error.refusal().status()), &error))?;
    Ok(Asked { query, character_set: identifier.character_set })
}

/// Sends the matches; how many, and how it ended.
async fn answer<S: Stream>(
    session: &Session,
    wire: &mut Wire<S>,
    context: u8,
    negotiated: &PresentationContext,
    request: &CFindRq,
    asked: &Asked,
) -> Result<(u64, Result<Status, Refused>), WireError> {
    let Asked { query, character_set } = asked;
    let scope = access::scope(&(&session.sender).into());
    let index = &session.node.commitments.index;
    let pending =
        if query.unsupported().is_empty() { Status::PENDING } else { Status::PENDING_WITH_WARNING };
    let command = request.response(pending);
    let own = session.sender.called.as_str();
    let mut search = index.find_all(query, &scope, Page::default(), MOST_MATCHES, Timestamp::now());
    let mut count = 0;
    loop {
        let page = match search.next().await {
            Ok(page) if page.is_empty() => break,
            Ok(page) => page,
            Err(error) => return Ok((count, Err(error.into()))),
        };
        for group in page.chunks(LOOK) {
            if acceptor::is_cancelled(wire, request.message_id, Duration::ZERO).await? {
                return Ok((count, Ok(Status::CANCELLED)));
            }
            for found in group {
                let values = said(found, query, own);
                let level = query.level();
                let bytes = identifier::answer(
                    level,
                    values.iter().copied(),
                    character_set,
                    &negotiated.transfer_syntax,
                );
                wire.send_command(context, &command).await?;
                wire.send_data(context, &bytes, true).await?;
                count += 1;
            }
        }
    }
    if search.was_cut() {
        let comment = format!("only the first {MOST_MATCHES} matches were sent; ask for less");
        return Ok((count, Err(Refused::new(Status::OUT_OF_RESOURCES, &comment))));
    }
    Ok((count, Ok(Status::SUCCESS)))
}

/// What is said of a match: each attribute that was asked for and is known of here, empty where its value is not known.
fn said<'a>(found: &'a Found, query: &'a Query, own: &'a str) -> Vec<(dicom_core::Tag, &'a str)> {
    let mut values: Vec<_> =
        query.keys().map(|(tag, _)| (tag, found.value(tag).unwrap_or_default())).collect();
    let level = query.level();
    let mut unique = |tag, value: Option<&'a str>| {
        if let Some(value) = value
            && !query.asks_for(tag)
        {
            values.push((tag, value));
        }
    };
    // Unique keys are in every answer (PS3.4 C.4.1.1.3.2), and by whom it can be had.
    unique(tags::STUDY_INSTANCE_UID, found.study.as_ref().map(StudyInstanceUid::as_str));
    if level >= Level::Series {
        unique(tags::SERIES_INSTANCE_UID, found.series.as_ref().map(SeriesInstanceUid::as_str));
    }
    if level >= Level::Image {
        unique(tags::SOP_INSTANCE_UID, found.instance.as_ref().map(SopInstanceUid::as_str));
    }
    values.push((tags::RETRIEVE_AE_TITLE, own));
    values.push((tags::INSTANCE_AVAILABILITY, "ONLINE"));
    values
}
