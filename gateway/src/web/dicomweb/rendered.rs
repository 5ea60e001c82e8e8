//! Rendered frames and thumbnails (PS3.18 10.4.1.1.3, 10.4.1.1.4): what an image looks like, for a browser.

use axum::body::Body;
use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use gantry_deidentify::data_set::{DataSet, Reader};
use gantry_dicomweb::accept::{Answer, Resource, Target};
use gantry_dicomweb::multipart::Writer;
use gantry_dicomweb::render::{self, RenderError, View, Viewport};
use gantry_store::dicom::TransferSyntax;
use gantry_store::index::Object;

use super::super::problem::Problem;
use super::super::stream::Cut;
use super::wado::{OfFrames, accepted, damaged, locate, objects, open_first};
use super::{App, Asked, Named, answer, boundary, nothing_here, respond};
use crate::access::Peer;
use crate::protect::Outgoing;
use crate::telemetry::chain;

/// The longest side of a thumbnail of which nobody says how large it shall be.
const THUMBNAIL: u32 = 128;

/// `GET …/instances/{instance}/rendered`: its first frame.
pub(super) async fn instance(asked: Asked) -> Result<Response, Problem> {
    rendered(asked, "1", Resource::Rendered).await
}

/// `GET …/frames/{frame}/rendered`
pub(super) async fn frame(
    Path(OfFrames { frames }): Path<OfFrames>,
    asked: Asked,
) -> Result<Response, Problem> {
    rendered(asked, &frames, Resource::Rendered).await
}

/// `GET …/thumbnail` of a study, series or instance: of the image in its middle.
pub(super) async fn thumbnail(asked: Asked) -> Result<Response, Problem> {
    rendered(asked, "1", Resource::Thumbnail).await
}

/// `GET …/frames/{frame}/thumbnail`
pub(super) async fn thumbnail_of_frame(
    Path(OfFrames { frames }): Path<OfFrames>,
    asked: Asked,
) -> Result<Response, Problem> {
    rendered(asked, &frames, Resource::Thumbnail).await
}

async fn rendered(asked: Asked, frame: &str, resource: Resource) -> Result<Response, Problem> {
    let view = View::parse(asked.query());
    let mut view = view.map_err(|error| {
        Problem::bad_request(format!("The rendering is not understood: {error}."))
    })?;
    if resource == Resource::Thumbnail {
        let small = Viewport { width: THUMBNAIL, height: THUMBNAIL, part: None };
        view.viewport.get_or_insert(small);
    }
    let parameter = accepted(&asked);
    let accepted = (&asked.headers, parameter.as_deref());
    let what = (frame, resource);
    send_picture(&asked.app, &asked.peer, asked.named, what, view, accepted).await
}

/// Sends a picture of an address as the client accepts it; what the parameter accepts goes before the header.
pub(super) async fn send_picture(
    app: &App,
    peer: &Peer,
    named: Named,
    (frame, resource): (&str, Resource),
    view: View,
    (headers, parameter): (&HeaderMap, Option<&str>),
) -> Result<Response, Problem> {
    let mut all = objects(app, peer, named).await?;
    let target = Target { resource, single: true, stored: None, transcodes: &[] };
    let wanted = answer(headers, parameter, &target)?;
    let object: Object = all.swap_remove(all.len() / 2);
    let _turn = app.turn(peer).await?;
    let plain = TransferSyntax::explicit_vr_little_endian();
    let outgoing = open_first(&app.library, &object, Some(&plain)).await?;
    let (frame, for_encoder) = (frame.to_owned(), wanted.clone());
    let made =
        tokio::task::spawn_blocking(move || make(outgoing, &frame, &view, &for_encoder)).await;
    let picture = made.map_err(|_| Problem::stopping())??;
    send(&wanted, picture)
}

/// Renders one frame. Blocks.
fn make(outgoing: Outgoing, frame: &str, view: &View, wanted: &Answer) -> Result<Vec<u8>, Problem> {
    let set = data_set(&outgoing)?;
    let (outgoing, located) = locate(outgoing, frame)?;
    // "1,2" names no one frame.
    let [(number, place)] = located.as_slice() else { return Err(nothing_here()) };
    let mut bytes = Vec::new();
    for range in &place.ranges {
        let read = outgoing.range(range.clone(), &mut |piece| {
            bytes.extend_from_slice(piece);
            Ok::<_, Cut>(())
        });
        if let Err(Cut::Failed(why)) = read {
            return Err(damaged(&why));
        }
    }
    if let Some(bits) = place.bits {
        bytes = bits.cut(&bytes);
    }
    let picture = render::picture(&set, number - 1, &bytes, view);
    let picture = picture.map_err(not_rendered)?;
    render::encoded(&picture, wanted.media, view.quality).map_err(not_rendered)
}

fn data_set(outgoing: &Outgoing) -> Result<DataSet, Problem> {
    let wrong = |error: &dyn std::error::Error| damaged(&chain(error).to_string());
    let mut reader = Reader::new(outgoing.transfer_syntax(), Some(outgoing.length()))
        .map_err(|error| wrong(&error))?;
    let read = outgoing.pieces(|bytes, _| {
        reader.feed(&bytes).map_err(|error| Cut::Failed(chain(&error).to_string()))
    });
    if let Err(Cut::Failed(why)) = read {
        return Err(damaged(&why));
    }
    Ok(reader.finish().map_err(|error| wrong(&error))?.data_set)
}

fn not_rendered(error: RenderError) -> Problem {
    let detail = format!("The image cannot be rendered: {error}.");
    match error {
        RenderError::Outside => Problem::bad_request(detail),
        _ => Problem::new(StatusCode::NOT_ACCEPTABLE, "Not acceptable", detail)
            .hint("Retrieve the instance itself, and look at it with a viewer."),
    }
}

fn send(wanted: &Answer, picture: Vec<u8>) -> Result<Response, Problem> {
    let kind = wanted.media.name();
    if !wanted.multipart {
        let fields = [(header::CONTENT_TYPE, kind.to_owned())];
        return Ok(respond(StatusCode::OK, &fields, Body::from(picture)));
    }
    let boundary = boundary()?;
    let whole = boundary.content_type(kind);
    let mut parts = Writer::new(boundary);
    let mut body = Vec::new();
    parts.part(&[("Content-Type", kind)], &mut body);
    body.extend_from_slice(&picture);
    parts.end(&mut body);
    Ok(respond(StatusCode::OK, &[(header::CONTENT_TYPE, whole)], Body::from(body)))
}
