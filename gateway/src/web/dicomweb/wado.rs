//! WADO-RS (PS3.18 10.4): instances, their metadata, frames and bulk data, of what the caller may see.
//!
//! What is sent is opened, protected and converted on a thread of its own while what comes before it goes out. The first instance
//! is opened before the answer begins, so that a store that is away is said by a status; what fails later cuts the answer.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use dicom_dictionary_std::tags;
use gantry_deidentify::data_set::{DataSet, Reader, Value};
use gantry_dicomweb::accept::{Answer, Media, Resource, Target};
use gantry_dicomweb::frames::{self, FramesError, Pixels};
use gantry_dicomweb::json::Json;
use gantry_dicomweb::model::{BulkValue, Format, Writer as ModelWriter};
use gantry_dicomweb::multipart::{Boundary, Writer};
use gantry_dicomweb::place::Place;
use gantry_dicomweb::qido::decoded;
use gantry_dicomweb::xml::Xml;
use gantry_store::dicom::TransferSyntax;
use gantry_store::dicom::scanner::{Budget, Event, Scanner, Visitor};
use gantry_store::dicom::transfer_syntax::Layout;
use gantry_store::index::{Failure, FailureKind, Object, Wanted};
use jiff::Timestamp;

use super::super::part10::{self, FileMeta};
use super::super::problem::Problem;
use super::super::stream::{self, Cut};
use super::{App, Asked, Named, Turn, answer, away, boundary, caller, nothing_here, respond};
use crate::access::{self, Peer};
use crate::config::Permission;
use crate::partner::library::{CONVERTIBLE, Library};
use crate::partner::transcode;
use crate::protect::Outgoing;
use crate::telemetry::chain;

/// The most instances of one answer; what is known of each is in memory.
const MOST_SENT: usize = 200_000;
/// Rows of one page.
const PAGE: u32 = 1000;
/// Bytes of the longest value that stands in the metadata itself; longer ones are named by a URI.
const INLINE: u64 = 1024;

/// What of this address is here for the caller, in the order of its arrival; never nothing.
pub(super) async fn objects(app: &App, peer: &Peer, named: Named) -> Result<Vec<Object>, Problem> {
    caller::permit(app, peer, Permission::Retrieve)?;
    let wanted = Wanted {
        studies: named.study.into_iter().collect(),
        series: named.series.into_iter().collect(),
        instances: named.instance.into_iter().collect(),
    };
    let scope = access::scope(peer);
    let (mut objects, mut after) = (Vec::new(), 0);
    loop {
        let page = app.index.objects(&wanted, &scope, after, PAGE, Timestamp::now()).await;
        let page = page.map_err(|error| away(&error))?;
        let Some(last) = page.last() else { break };
        after = last.place;
        objects.extend(page);
        if objects.len() > MOST_SENT {
            let detail = format!("That is more than the {MOST_SENT} images that are sent at once.");
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "Too much", detail)
                .hint("Ask for its series one by one."));
        }
    }
    if objects.is_empty() {
        return Err(nothing_here());
    }
    tracing::info!(caller = peer.name(), images = objects.len(), "retrieval over DICOMweb");
    Ok(objects)
}

/// The one instance of this address.
async fn one(app: &App, peer: &Peer, named: Named) -> Result<Object, Problem> {
    objects(app, peer, named).await?.pop().ok_or_else(nothing_here)
}

/// The parameter `accept` of a query; others mean nothing here.
pub(super) fn accepted(asked: &Asked) -> Option<String> {
    let mut parameters = asked.query().split('&');
    let value = parameters.find_map(|one| one.strip_prefix("accept="))?;
    decoded(value).map(std::borrow::Cow::into_owned)
}

/// What a client is told when an instance cannot be had.
fn unavailable(why: &Failure) -> Problem {
    let said = match why.kind {
        FailureKind::SourceUnavailable => {
            let detail = "The image store is away.";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "Not available", detail)
                .hint("Try again in a few minutes.")
        }
        FailureKind::CannotConvert => {
            let detail = "The image cannot be converted to what was asked for.";
            Problem::new(StatusCode::NOT_ACCEPTABLE, "Not acceptable", detail)
                .hint("Ask for it as it is stored: transfer-syntax=*.")
        }
        _ => return damaged(&why.text),
    };
    tracing::warn!(error = why.text, "instance is not sent over DICOMweb");
    said
}

/// The same of one whose bytes are not what they should be.
pub(super) fn damaged(why: &str) -> Problem {
    tracing::warn!(error = why, "instance cannot be read for DICOMweb");
    let detail = "The image cannot be read; whoever runs this gateway finds why in the log.";
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "Damaged", detail)
}

impl From<Failure> for Cut {
    fn from(why: Failure) -> Self {
        Self::Failed(why.text)
    }
}

/// An instance as it goes out: in this encoding, or as it is where none is said. Blocks.
fn open(
    library: &Library,
    object: &Object,
    to: Option<&TransferSyntax>,
) -> Result<Outgoing, Failure> {
    let outgoing = library.outgoing(object.object, object.protection.as_deref())?;
    match to {
        Some(to) => library.converted(outgoing, to),
        None => Ok(outgoing),
    }
}

/// The same away from the threads that must not wait.
pub(super) async fn open_first(
    library: &Arc<Library>,
    object: &Object,
    to: Option<&TransferSyntax>,
) -> Result<Outgoing, Problem> {
    let (library, object, to) = (library.clone(), object.clone(), to.cloned());
    let opened = tokio::task::spawn_blocking(move || open(&library, &object, to.as_ref()));
    let opened = opened.await.map_err(|_| Problem::stopping())?;
    opened.map_err(|why| unavailable(&why))
}

/// In what all of these can be had beside the encodings that they are kept in.
fn conversions(objects: &[Object]) -> Vec<TransferSyntax> {
    let can = |object: &Object| {
        transcode::is_readable(&object.transfer_syntax) && object.length <= CONVERTIBLE
    };
    if !objects.iter().all(can) {
        return Vec::new();
    }
    vec![TransferSyntax::explicit_vr_little_endian(), TransferSyntax::implicit_vr_little_endian()]
}

/// The encoding that all of these are kept in.
fn kept_in(objects: &[Object]) -> Option<&TransferSyntax> {
    let first = &objects.first()?.transfer_syntax;
    objects.iter().all(|object| object.transfer_syntax == *first).then_some(first)
}

/// `GET …/studies/{study}`, `…/series/{series}`, `…/instances/{instance}`
pub(super) async fn instances(asked: Asked) -> Result<Response, Problem> {
    let parameter = accepted(&asked);
    let Asked { app, peer, named, headers, .. } = asked;
    send_instances(&app, &peer, named, &headers, parameter.as_deref()).await
}

/// Sends the instances of an address as the client accepts them; what `parameter` accepts goes before the header.
pub(super) async fn send_instances(
    app: &App,
    peer: &Peer,
    named: Named,
    headers: &HeaderMap,
    parameter: Option<&str>,
) -> Result<Response, Problem> {
    let single = named.instance.is_some();
    let objects = objects(app, peer, named).await?;
    let conversions = conversions(&objects);
    let target = Target {
        resource: Resource::Instances,
        single,
        stored: kept_in(&objects),
        transcodes: &conversions,
    };
    let wanted = answer(headers, parameter, &target)?;
    let turn = app.turn(peer).await?;
    let mut rest = objects.into_iter();
    let first = rest.next().ok_or_else(nothing_here)?;
    let first = open_first(&app.library, &first, wanted.syntax.as_ref()).await?;
    if !wanted.multipart {
        let head = head_of(&first);
        let fields = [
            (header::CONTENT_TYPE, part_type(&first)),
            (header::CONTENT_LENGTH, (head.len() as u64 + first.length()).to_string()),
        ];
        let body = stream::body(turn, move |out| {
            out.send(head.into())?;
            first.pieces(|bytes, _| out.send(bytes))
        });
        return Ok(respond(StatusCode::OK, &fields, body));
    }
    let boundary = boundary()?;
    let kind = boundary.content_type(Media::Dicom.name());
    let library = app.library.clone();
    let body = stream::body(turn, move |out| {
        let mut parts = Writer::new(boundary);
        let mut part = |outgoing: &Outgoing| {
            let mut begin = Vec::new();
            parts.part(&[("Content-Type", &part_type(outgoing))], &mut begin);
            begin.extend(head_of(outgoing));
            out.send(begin.into())?;
            outgoing.pieces(|bytes, _| out.send(bytes))
        };
        part(&first)?;
        for object in rest {
            part(&open(&library, &object, wanted.syntax.as_ref())?)?;
        }
        let mut end = Vec::new();
        parts.end(&mut end);
        out.send(end.into())
    });
    Ok(respond(StatusCode::OK, &[(header::CONTENT_TYPE, kind)], body))
}

fn part_type(outgoing: &Outgoing) -> String {
    format!("{}; transfer-syntax={}", Media::Dicom.name(), outgoing.transfer_syntax())
}

fn head_of(outgoing: &Outgoing) -> Vec<u8> {
    part10::head(&FileMeta {
        transfer_syntax: outgoing.transfer_syntax().clone(),
        sop_class: Some(outgoing.sop_class().clone()),
        sop_instance: Some(outgoing.sop_instance().clone()),
    })
}

/// `GET …/metadata`
pub(super) async fn metadata(asked: Asked) -> Result<Response, Problem> {
    let parameter = accepted(&asked);
    let Asked { app, peer, named, headers, .. } = asked;
    let objects = objects(&app, &peer, named).await?;
    let target =
        Target { resource: Resource::Metadata, single: false, stored: None, transcodes: &[] };
    let wanted = answer(&headers, parameter.as_deref(), &target)?;
    let (library, service) = (app.library.clone(), app.service());
    let turn = app.turn(&peer).await?;
    let mut rest = objects.into_iter();
    let first = rest.next().ok_or_else(nothing_here)?;
    let opened = open_first(&app.library, &first, None).await?;
    if wanted.media == Media::DicomXml {
        let boundary = boundary()?;
        let kind = boundary.content_type(wanted.media.name());
        let body = stream::body(turn, move |out| {
            let mut parts = Writer::new(boundary);
            let mut part = |object: &Object, outgoing: &Outgoing| {
                let mut text = Vec::new();
                parts.part(&[("Content-Type", Media::DicomXml.name())], &mut text);
                out.send(described::<Xml>(text, object, outgoing, &service)?.into())
            };
            part(&first, &opened)?;
            for object in rest {
                part(&object, &open(&library, &object, None)?)?;
            }
            let mut end = Vec::new();
            parts.end(&mut end);
            out.send(end.into())
        });
        return Ok(respond(StatusCode::OK, &[(header::CONTENT_TYPE, kind)], body));
    }
    let kind = wanted.media.name().to_owned();
    let body = stream::body(turn, move |out| {
        out.send(described::<Json>(b"[".to_vec(), &first, &opened, &service)?.into())?;
        for object in rest {
            let outgoing = open(&library, &object, None)?;
            out.send(described::<Json>(b",".to_vec(), &object, &outgoing, &service)?.into())?;
        }
        out.send(Bytes::from_static(b"]"))
    });
    Ok(respond(StatusCode::OK, &[(header::CONTENT_TYPE, kind)], body))
}

/// A visitor that writes a model as far as the pixel data, which are named and not read. What may stand behind them (PS3.3 C.12.1.1.3:
/// digital signatures, padding) is not told.
struct AsFarAsPixels<F, U> {
    writer: Option<ModelWriter<F, U>>,
    is_done: bool,
}

impl<F: Format, U: FnMut(&BulkValue<'_>) -> Option<String>> Visitor for AsFarAsPixels<F, U> {
    fn visit(&mut self, event: Event<'_>) {
        if self.is_done {
            return;
        }
        self.is_done = match &event {
            Event::Element(header) | Event::Fragments(header) => {
                header.depth == 0 && header.tag == tags::PIXEL_DATA
            }
            _ => false,
        };
        if let Some(writer) = &mut self.writer {
            writer.visit(event);
        }
    }
}

/// The model of an instance, behind what is in `text`.
fn described<F: Format>(
    text: Vec<u8>,
    object: &Object,
    outgoing: &Outgoing,
    service: &str,
) -> Result<Vec<u8>, Cut> {
    let uri = |value: &BulkValue<'_>| {
        let Object { study, series, instance, .. } = object;
        Some(format!(
            "{service}/studies/{study}/series/{series}/instances/{instance}/bulkdata/{value}"
        ))
    };
    let writer = Some(ModelWriter::<F, _>::new(text, INLINE, uri));
    let budget = Budget { total: Some(outgoing.length()), ..Budget::default() };
    let visitor = AsFarAsPixels { writer, is_done: false };
    let mut scanner = Scanner::with_visitor(outgoing.transfer_syntax(), budget, visitor);
    let damaged = |error: &dyn std::error::Error| Cut::Failed(chain(error).to_string());
    let read = outgoing.pieces(|bytes, _| {
        scanner.feed(&bytes).map_err(|error| damaged(&error))?;
        // Nobody is gone; there is nothing more to be read.
        if scanner.visitor_mut().is_done { Err(Cut::Gone) } else { Ok(()) }
    });
    match read {
        Err(Cut::Gone) => {}
        Err(failed) => return Err(failed),
        Ok(()) => {
            let (_, visitor) = scanner.finish_visit().map_err(|error| damaged(&error))?;
            return ended(visitor.writer);
        }
    }
    ended(scanner.visitor_mut().writer.take())
}

fn ended<F: Format, U: FnMut(&BulkValue<'_>) -> Option<String>>(
    writer: Option<ModelWriter<F, U>>,
) -> Result<Vec<u8>, Cut> {
    let writer = writer.ok_or(Cut::Gone)?;
    writer.finish().map_err(|error| Cut::Failed(chain(&error).to_string()))
}

/// `GET …/frames/{frames}`
pub(super) async fn frames(
    Path(OfFrames { frames: list }): Path<OfFrames>,
    asked: Asked,
) -> Result<Response, Problem> {
    let parameter = accepted(&asked);
    let Asked { app, peer, named, headers, .. } = asked;
    let object = one(&app, &peer, named).await?;
    let conversions = conversions(std::slice::from_ref(&object));
    // Of what is deflated no part can be had, and frames are in little endian (PS3.18 8.7.3.3).
    let plain = TransferSyntax::explicit_vr_little_endian();
    let is_turned =
        matches!(object.transfer_syntax.layout(), Layout::ExplicitBig | Layout::Deflated);
    let target = Target {
        resource: Resource::Frames,
        single: !list.contains(','),
        stored: Some(if is_turned { &plain } else { &object.transfer_syntax }),
        transcodes: &conversions,
    };
    let wanted = answer(&headers, parameter.as_deref(), &target)?;
    let turn = app.turn(&peer).await?;
    let outgoing = open_first(&app.library, &object, wanted.syntax.as_ref()).await?;
    let located = tokio::task::spawn_blocking(move || locate(outgoing, &list)).await;
    let (outgoing, located) = located.map_err(|_| Problem::stopping())??;
    let location = format!(
        "{}/studies/{}/series/{}/instances/{}/frames",
        app.service(),
        object.study,
        object.series,
        object.instance
    );
    send_frames((outgoing, turn), located, &wanted, location)
}

/// What only an address of frames names.
#[derive(serde::Deserialize)]
pub(super) struct OfFrames {
    pub(super) frames: String,
}

/// Where the frames of a list lie, by their numbers. Blocks.
pub(super) fn locate(
    outgoing: Outgoing,
    list: &str,
) -> Result<(Outgoing, Vec<(u32, frames::Frame)>), Problem> {
    let budget = Budget { total: Some(outgoing.length()), ..Budget::default() };
    let mut scanner = Scanner::with_visitor(outgoing.transfer_syntax(), budget, Pixels::default());
    let read = outgoing.pieces(|bytes, _| {
        scanner.feed(&bytes).map_err(|error| Cut::Failed(chain(&error).to_string()))
    });
    if let Err(Cut::Failed(why)) = read {
        return Err(damaged(&why));
    }
    let (_, pixels) =
        scanner.finish_visit().map_err(|error| damaged(&chain(&error).to_string()))?;
    let numbers = frames::list(list, pixels.number_of_frames()).map_err(no_frame)?;
    let frames = pixels.frames();
    let each = numbers
        .into_iter()
        .map(|number| frames.frame(number).map(|frame| (number, frame)).map_err(no_frame));
    let located = each.collect::<Result<Vec<_>, _>>()?;
    Ok((outgoing, located))
}

fn no_frame(error: FramesError) -> Problem {
    let detail = format!("These frames cannot be had: {error}.");
    match error {
        FramesError::List | FramesError::Twice => Problem::bad_request(detail)
            .hint("Write numbers from 1, with commas between them, each once."),
        FramesError::OutOfRange { .. } | FramesError::NoPixelData => Problem::not_found(detail),
        _ => Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "No frames", detail)
            .hint("Retrieve the instance itself."),
    }
}

fn send_frames(
    (outgoing, turn): (Outgoing, Turn),
    located: Vec<(u32, frames::Frame)>,
    wanted: &Answer,
    location: String,
) -> Result<Response, Problem> {
    let kind = wanted.content_type();
    if !wanted.multipart {
        let body = stream::body(turn, move |out| {
            for (_, frame) in located {
                send_frame(&outgoing, &frame, &mut |bytes| out.send(bytes))?;
            }
            Ok(())
        });
        return Ok(respond(StatusCode::OK, &[(header::CONTENT_TYPE, kind)], body));
    }
    let boundary = boundary()?;
    let whole = boundary.content_type(wanted.media.name());
    let body = stream::body(turn, move |out| {
        let mut parts = Writer::new(boundary);
        for (number, frame) in located {
            let mut begin = Vec::new();
            let at = format!("{location}/{number}");
            parts.part(&[("Content-Type", &kind), ("Content-Location", &at)], &mut begin);
            out.send(begin.into())?;
            send_frame(&outgoing, &frame, &mut |bytes| out.send(bytes))?;
        }
        let mut end = Vec::new();
        parts.end(&mut end);
        out.send(end.into())
    });
    Ok(respond(StatusCode::OK, &[(header::CONTENT_TYPE, whole)], body))
}

/// Hands on the bytes of a frame. Blocks.
fn send_frame(
    outgoing: &Outgoing,
    frame: &frames::Frame,
    take: &mut dyn FnMut(Bytes) -> Result<(), Cut>,
) -> Result<(), Cut> {
    if let Some(bits) = frame.bits {
        let mut whole = Vec::new();
        for range in &frame.ranges {
            outgoing.range(range.clone(), &mut |bytes| {
                whole.extend_from_slice(bytes);
                Ok::<_, Cut>(())
            })?;
        }
        return take(bits.cut(&whole).into());
    }
    for range in &frame.ranges {
        outgoing.range(range.clone(), &mut |bytes| take(Bytes::copy_from_slice(bytes)))?;
    }
    Ok(())
}

/// What only an address of bulk data names.
#[derive(serde::Deserialize)]
pub(super) struct OfPlace {
    place: String,
}

/// `GET …/bulkdata/{place}`: the value of an attribute that the metadata named by a URI. Bytes as PS3.18 8.7.3.3 wants them,
/// uncompressed and in little endian.
pub(super) async fn bulk_data(
    Path(OfPlace { place }): Path<OfPlace>,
    asked: Asked,
) -> Result<Response, Problem> {
    let parameter = accepted(&asked);
    let Asked { app, peer, named, headers, .. } = asked;
    let object = one(&app, &peer, named).await?;
    let place: Place = place.parse().map_err(|error| {
        Problem::bad_request(format!("The address of the bulk data is not understood: {error}."))
    })?;
    let plain = TransferSyntax::explicit_vr_little_endian();
    let target = Target {
        resource: Resource::BulkData,
        single: true,
        stored: Some(&plain),
        transcodes: &[],
    };
    let wanted = answer(&headers, parameter.as_deref(), &target)?;
    let turn = app.turn(&peer).await?;
    let outgoing = open_first(&app.library, &object, Some(&plain)).await?;
    let value = tokio::task::spawn_blocking(move || value_at(&outgoing, &place)).await;
    let value = value.map_err(|_| Problem::stopping())?.ok_or_else(nothing_here)?;
    let kind = Media::OctetStream.name();
    if !wanted.multipart {
        return ranged(&headers, kind, value);
    }
    let boundary: Boundary = boundary()?;
    let whole = boundary.content_type(kind);
    let mut parts = Writer::new(boundary);
    let (mut begin, mut end) = (Vec::new(), Vec::new());
    parts.part(&[("Content-Type", kind)], &mut begin);
    parts.end(&mut end);
    let body = stream::body(turn, move |out| {
        out.send(begin.into())?;
        out.send(value)?;
        out.send(end.into())
    });
    Ok(respond(StatusCode::OK, &[(header::CONTENT_TYPE, whole)], body))
}

/// The value, or the range of it that was asked for (RFC 9110 14.2); a range that is not understood is passed over, as it says.
fn ranged(headers: &HeaderMap, kind: &str, value: Bytes) -> Result<Response, Problem> {
    let length = value.len();
    let asked = headers.get(header::RANGE).and_then(|range| range.to_str().ok());
    let asked = asked.and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let number = |text: &str| text.parse::<usize>().ok();
    let range = match asked {
        Some(("", last)) => number(last).map(|last| length.saturating_sub(last)..length),
        Some((first, "")) => number(first).map(|first| first..length),
        Some((first, last)) => number(first)
            .zip(number(last))
            .filter(|(first, last)| first <= last)
            .map(|(first, last)| first..last.saturating_add(1).min(length)),
        None => None,
    };
    let mut fields =
        vec![(header::CONTENT_TYPE, kind.to_owned()), (header::ACCEPT_RANGES, "bytes".to_owned())];
    match range {
        None => Ok(respond(StatusCode::OK, &fields, Body::from(value))),
        Some(range) if range.start >= range.end => {
            let detail = format!("The value has {length} bytes.");
            Err(Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, "No such range", detail))
        }
        Some(range) => {
            let text = format!("bytes {}-{}/{length}", range.start, range.end - 1);
            fields.push((header::CONTENT_RANGE, text));
            Ok(respond(StatusCode::PARTIAL_CONTENT, &fields, Body::from(value.slice(range))))
        }
    }
}

/// The value at a place of a native data set, which its conversion made small enough to be in memory. Blocks.
fn value_at(outgoing: &Outgoing, place: &Place) -> Option<Bytes> {
    let mut reader = Reader::new(outgoing.transfer_syntax(), Some(outgoing.length())).ok()?;
    let read = outgoing.pieces(|bytes, _| {
        reader.feed(&bytes).map_err(|error| Cut::Failed(chain(&error).to_string()))
    });
    if let Err(Cut::Failed(why)) = read {
        tracing::warn!(error = why, "bulk data of an instance cannot be read");
        return None;
    }
    let parsed = reader.finish().ok()?;
    if let Some(pixels) =
        parsed.pixel_data.filter(|it| place.path.is_empty() && it.tag == place.tag)
    {
        let mut value = Vec::new();
        let read = outgoing.range(pixels.value, &mut |bytes| {
            value.extend_from_slice(bytes);
            Ok::<_, Cut>(())
        });
        return read.is_ok().then(|| value.into());
    }
    let mut set: &DataSet = &parsed.data_set;
    for step in &place.path {
        let index = usize::try_from(step.item).ok()?.checked_sub(1)?;
        set = set.items(step.sequence).get(index)?;
    }
    match &set.get(place.tag)?.value {
        Value::Bytes(bytes) => Some(Bytes::copy_from_slice(bytes)),
        Value::Items(_) | Value::Fragments(_) => None,
    }
}
