//! Style sheet, script and icon, inside the program.
//!
//! Pages ask for them with a version, the hash of what they hold, so browsers may keep them for ever and a new program
//! is never shown with an old style.

use std::sync::LazyLock;

use axum::Router;
use axum::extract::{Path, RawQuery};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{Context, SHA256};

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
    Asset {
        name: "gantry.css",
        kind: "text/css; charset=utf-8",
        content: include_str!("assets/gantry.css"),
    },
    Asset {
        name: "live.js",
        kind: "text/javascript; charset=utf-8",
        content: include_str!("assets/live.js"),
    },
    Asset { name: "icon.svg", kind: "image/svg+xml", content: include_str!("assets/icon.svg") },
];

/// What pages put behind the name; it changes whenever any of them does.
pub(super) fn version() -> &'static str {
    static VERSION: LazyLock<String> = LazyLock::new(|| {
        let mut hash = Context::new(&SHA256);
        for asset in ASSETS {
            hash.update(asset.content.as_bytes());
        }
        URL_SAFE_NO_PAD.encode(hash.finish())
    });
    &VERSION
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
    ([(header::CONTENT_TYPE, asset.kind), (header::CACHE_CONTROL, keep)], asset.content)
        .into_response()
}
