//! Style sheet, script and icon, inside the program.
//!
//! Pages ask for them with a version, the hash of what they hold, so browsers may keep them for ever and a new program
//! is never shown with an old style.

use axum::Router;
use axum::extract::{Path, RawQuery};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::App;
use super::pages::ErrorPage;
use super::problem::Problem;

/// One file.
struct Asset {
    name: &'static str,
    kind: &'static str,
    content: &'static str,
}

const ASSETS: &[Asset] = &[
    Asset { name: "gantry.css", kind: "text/css; charset=utf-8", content: include_str!("assets/gantry.css") },
    Asset { name: "live.js", kind: "text/javascript; charset=utf-8", content: include_str!("assets/live.js") },
    Asset { name: "icon.svg", kind: "image/svg+xml", content: include_str!("assets/icon.svg") },
];

/// Changes whenever any of them does.
const VERSION: u64 = {
    let mut hash = 0xcbf2_9ce4_8422_2325;
    let mut asset = 0;
    while asset < ASSETS.len() {
        hash = fnv1a(hash, ASSETS[asset].content.as_bytes());
        asset += 1;
    }
    hash
};

/// FNV-1a, because it can be computed while the program is compiled; nobody is kept out by it.
const fn fnv1a(mut hash: u64, bytes: &[u8]) -> u64 {
    let mut at = 0;
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0100_0000_01b3);
        at += 1;
    }
    hash
}

/// What pages put behind the name.
pub(super) fn version() -> String {
    format!("{VERSION:016x}")
}

pub(super) fn routes() -> Router<App> {
    Router::new().route("/assets/{name}", get(asset))
}

async fn asset(Path(name): Path<String>, RawQuery(query): RawQuery) -> Response {
    let Some(asset) = ASSETS.iter().find(|asset| asset.name == name) else {
        return ErrorPage(Problem::not_found("There is no such file.")).into_response();
    };
    let keep = if query.is_some_and(|query| query == format!("v={}", version())) {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    ([(header::CONTENT_TYPE, asset.kind), (header::CACHE_CONTROL, keep)], asset.content).into_response()
}
