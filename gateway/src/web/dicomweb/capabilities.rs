//! What the service can do (PS3.18 8.9), as a description in WADL.

use std::fmt::Write as _;

use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::Response;

use super::{App, respond};

/// Paths below the service, their methods, and what is answered or taken.
const RESOURCES: [(&str, &str, &str); 25] = [
    ("studies", "GET", SEARCH),
    ("studies", "POST", STORE),
    ("studies/{study}", "GET", INSTANCES),
    ("studies/{study}", "POST", STORE),
    ("studies/{study}/metadata", "GET", METADATA),
    ("studies/{study}/thumbnail", "GET", PICTURE),
    ("studies/{study}/series", "GET", SEARCH),
    ("studies/{study}/instances", "GET", SEARCH),
    ("studies/{study}/series/{series}", "GET", INSTANCES),
    ("studies/{study}/series/{series}/metadata", "GET", METADATA),
    ("studies/{study}/series/{series}/thumbnail", "GET", PICTURE),
    ("studies/{study}/series/{series}/instances", "GET", SEARCH),
    ("studies/{study}/series/{series}/instances/{instance}", "GET", INSTANCES),
    ("studies/{study}/series/{series}/instances/{instance}/metadata", "GET", METADATA),
    ("studies/{study}/series/{series}/instances/{instance}/rendered", "GET", PICTURE),
    ("studies/{study}/series/{series}/instances/{instance}/thumbnail", "GET", PICTURE),
    ("studies/{study}/series/{series}/instances/{instance}/bulkdata/{place}", "GET", BYTES),
    ("studies/{study}/series/{series}/instances/{instance}/frames/{frames}", "GET", BYTES),
    (
        "studies/{study}/series/{series}/instances/{instance}/frames/{frame}/rendered",
        "GET",
        PICTURE,
    ),
    (
        "studies/{study}/series/{series}/instances/{instance}/frames/{frame}/thumbnail",
        "GET",
        PICTURE,
    ),
    ("series", "GET", SEARCH),
    ("instances", "GET", SEARCH),
    ("wado", "GET", "application/dicom image/jpeg image/png"),
    ("capabilities", "GET", WADL),
    ("", "OPTIONS", WADL),
];
const SEARCH: &str = "application/dicom+json application/dicom+xml";
const METADATA: &str = SEARCH;
const STORE: &str = "application/dicom";
const INSTANCES: &str = "application/dicom";
const PICTURE: &str = "image/jpeg image/png";
const BYTES: &str = "application/octet-stream";
const WADL: &str = "application/vnd.sun.wadl+xml";

/// `GET /dicomweb/capabilities`, `OPTIONS /dicomweb/`
pub(super) async fn describe(State(app): State<App>) -> Response {
    let fields = [(header::CONTENT_TYPE, WADL.to_owned())];
    respond(StatusCode::OK, &fields, Body::from(described(&app.service())))
}

fn described(service: &str) -> String {
    let base = service.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;");
    let mut out = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<application xmlns=\"http://wadl.dev.java.net/2009/02\">\n \
         <resources base=\"{base}\">\n"
    );
    for (path, method, kinds) in RESOURCES {
        let tag = if method == "POST" { "request" } else { "response" };
        let status = if method == "POST" { "" } else { " status=\"200\"" };
        // Writing to a string does not fail.
        let _ = write!(
            out,
            "  <resource path=\"{path}\">\n   <method name=\"{method}\">\n    <{tag}{status}>\n"
        );
        for kind in kinds.split(' ') {
            let _ = writeln!(out, "     <representation mediaType=\"{kind}\"/>");
        }
        let _ = write!(out, "    </{tag}>\n   </method>\n  </resource>\n");
    }
    out.push_str(" </resources>\n</application>\n");
    out
}
