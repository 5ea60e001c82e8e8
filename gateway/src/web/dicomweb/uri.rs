//! WADO-URI (PS3.18 9): one instance, or its picture, by the parameters of a query; what older viewers know.

use axum::Extension;
use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use axum::response::Response;
use gantry_dicomweb::accept::Resource;
use gantry_dicomweb::qido::decoded;
use gantry_dicomweb::render::{Function, View, Viewport, Window};

use super::super::problem::Problem;
use super::{App, Named, rendered, wado};
use crate::access::Peer;

/// What a request says (PS3.18 9.1.2).
#[derive(Debug, Default)]
struct Parameters {
    named: Named,
    content_type: Option<String>,
    transfer_syntax: Option<String>,
    frame: Option<String>,
    center: Option<f64>,
    width: Option<f64>,
    rows: Option<u32>,
    columns: Option<u32>,
    quality: Option<u8>,
}

fn bad(name: &str) -> Problem {
    Problem::bad_request(format!("The parameter {name} is missing, or not what it can be."))
        .hint("PS3.18 9.1.2 says what stands in a request.")
}

impl Parameters {
    fn read(query: &str) -> Result<Self, Problem> {
        let mut read = Self::default();
        let mut is_wado = false;
        for (name, value) in query.split('&').filter_map(|one| one.split_once('=')) {
            let value =
                decoded(value).ok_or_else(|| Problem::bad_request("The query is not UTF-8."))?;
            match name {
                "requestType" => is_wado = value == "WADO",
                "studyUID" => read.named.study = Some(value.parse().map_err(|_| bad("studyUID"))?),
                "seriesUID" => {
                    read.named.series = Some(value.parse().map_err(|_| bad("seriesUID"))?);
                }
                "objectUID" => {
                    read.named.instance = Some(value.parse().map_err(|_| bad("objectUID"))?);
                }
                "contentType" => read.content_type = Some(value.into_owned()),
                "transferSyntax" => read.transfer_syntax = Some(value.into_owned()),
                "frameNumber" => read.frame = Some(value.into_owned()),
                "windowCenter" => {
                    read.center = Some(value.parse().map_err(|_| bad("windowCenter"))?);
                }
                "windowWidth" => read.width = Some(value.parse().map_err(|_| bad("windowWidth"))?),
                "rows" => read.rows = Some(value.parse().map_err(|_| bad("rows"))?),
                "columns" => read.columns = Some(value.parse().map_err(|_| bad("columns"))?),
                "imageQuality" => {
                    read.quality = Some(value.parse().map_err(|_| bad("imageQuality"))?);
                }
                // An answer that did not do these would show what was not to be shown, or other than was asked for.
                "anonymize" | "annotation" | "region" | "presentationUID" => {
                    let detail = format!("The parameter {name} is not supported.");
                    return Err(Problem::bad_request(detail).hint("Leave it out."));
                }
                _ => {}
            }
        }
        if !is_wado {
            return Err(bad("requestType"));
        }
        let Named { study, series, instance } = &read.named;
        for (is_missing, name) in [
            (study.is_none(), "studyUID"),
            (series.is_none(), "seriesUID"),
            (instance.is_none(), "objectUID"),
        ] {
            if is_missing {
                return Err(bad(name));
            }
        }
        Ok(read)
    }

    fn view(&self) -> Result<View, Problem> {
        let mut view = View::default();
        if let (Some(center), Some(width)) = (self.center, self.width) {
            let window = Window::new(center, width, Function::Linear);
            view.window = Some(window.ok_or_else(|| bad("windowWidth"))?);
        }
        if self.rows.is_some() || self.columns.is_some() {
            const MOST: u32 = 8192;
            let side = |side: Option<u32>, name| match side.unwrap_or(MOST) {
                side @ 1..=MOST => Ok(side),
                _ => Err(bad(name)),
            };
            view.viewport = Some(Viewport {
                width: side(self.columns, "columns")?,
                height: side(self.rows, "rows")?,
                part: None,
            });
        }
        if let Some(quality) = self.quality {
            view.quality = quality;
            if !(1..=100).contains(&quality) {
                return Err(bad("imageQuality"));
            }
        }
        Ok(view)
    }
}

/// `GET /dicomweb/wado?requestType=WADO&studyUID=…&seriesUID=…&objectUID=…`
pub(super) async fn retrieve(
    State(app): State<App>,
    Extension(peer): Extension<Peer>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let parameters = Parameters::read(query.as_deref().unwrap_or_default())?;
    let view = parameters.view()?;
    let headers = HeaderMap::new();
    // PS3.18 9.1.2.2.2: without a type, a picture.
    let kind = parameters.content_type.as_deref().unwrap_or("image/jpeg");
    if kind == "application/dicom" {
        let syntax = parameters.transfer_syntax.as_deref();
        let accept = syntax.map(|syntax| format!("{kind}; transfer-syntax={syntax}"));
        let accept = accept.as_deref().unwrap_or(kind);
        return wado::send_instances(&app, &peer, parameters.named, &headers, Some(accept)).await;
    }
    let frame = parameters.frame.as_deref().unwrap_or("1");
    let what = (frame, Resource::Rendered);
    rendered::send_picture(&app, &peer, parameters.named, what, view, (&headers, Some(kind))).await
}
