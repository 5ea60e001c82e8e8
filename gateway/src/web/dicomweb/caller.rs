//! What stands before every request of DICOMweb: who asks, and from which page.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use ring::digest::{SHA256, digest};
use tokio::time::timeout;

use super::super::problem::Problem;
use super::super::server::Shown;
use super::App;
use crate::access::Peer;
use crate::config::{Config, Fingerprint, Permission};

/// How long an answer may take to begin.
const ANSWER: Duration = Duration::from_mins(1);

/// Lets sources and partners in, and nobody else; browsers of configured origins may read what they are answered.
pub(super) async fn admit(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let origin = request.headers().get(header::ORIGIN).cloned();
    let listed = origin.clone().filter(|origin| is_listed(&app.config, origin));
    let mut response = if request.method() == Method::OPTIONS && origin.is_some() {
        // What a browser asks before it asks: without credentials, and nothing is told.
        StatusCode::NO_CONTENT.into_response()
    } else if origin.is_some() && listed.is_none() && !request.method().is_safe() {
        // A certificate in a browser goes along with what any page sends.
        Problem::new(
            StatusCode::FORBIDDEN,
            "Refused",
            "This request came from a page that may not store here.",
        )
        .hint("Add its origin to `allow-origins` of [dicomweb] in gantry.toml.")
        .into_response()
    } else {
        match caller(&app.config, &request) {
            Some(peer) => {
                request.extensions_mut().insert(peer);
                // What is being stored has time-outs of its own.
                let most = if request.method().is_safe() { ANSWER } else { Duration::MAX };
                timeout(most, next.run(request)).await.unwrap_or_else(|_| {
                    let detail = "The gateway did not find an answer in time.";
                    Problem::new(StatusCode::GATEWAY_TIMEOUT, "Too slow", detail)
                        .hint("Ask for less, or try again in a moment.")
                        .into_response()
                })
            }
            None => stranger(),
        }
    };
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    if let Some(origin) = listed {
        share_with(headers, origin);
    }
    response
}

/// What lets a page of another origin read the answer (the Fetch standard, CORS protocol).
fn share_with(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    let fields = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, POST"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "Accept, Authorization, Content-Type, Range"),
        (header::ACCESS_CONTROL_EXPOSE_HEADERS, "Content-Location, Warning, Content-Range"),
        (header::ACCESS_CONTROL_MAX_AGE, "600"),
    ];
    for (name, value) in fields {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

fn is_listed(config: &Config, origin: &HeaderValue) -> bool {
    let listed = config.dicomweb.as_ref().map(|it| it.origins.as_slice()).unwrap_or_default();
    let origin = origin.to_str().unwrap_or_default();
    listed.iter().any(|listed| listed.eq_ignore_ascii_case(origin))
}

fn stranger() -> Response {
    let detail = "This needs the certificate, or the token, of a source or partner.";
    let mut response = Problem::new(StatusCode::UNAUTHORIZED, "Who are you?", detail)
        .hint("Send `Authorization: Bearer …` with the token of `token-file`, or the certificate of `certificate`.")
        .into_response();
    let challenge = HeaderValue::from_static("Bearer realm=\"DICOMweb\"");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    response
}

/// Who asks: by its token, which is said for this request, else by the certificate of the connection.
fn caller(config: &Config, request: &Request) -> Option<Peer> {
    if let Some(field) = request.headers().get(header::AUTHORIZATION) {
        let (scheme, token) = field.to_str().ok()?.split_once(' ')?;
        return scheme.eq_ignore_ascii_case("bearer").then(|| by_token(config, token.trim()))?;
    }
    let Shown(shown) = request.extensions().get::<Shown>()?;
    by_certificate(config, &(*shown)?)
}

/// How long the comparison of digests takes says nothing of the token.
fn by_token(config: &Config, token: &str) -> Option<Peer> {
    let hash = |token: &str| digest(&SHA256, token.as_bytes());
    let sent = hash(token);
    let is_its = |its: &Option<crate::config::Secret>| {
        its.as_ref().is_some_and(|its| hash(its.reveal()).as_ref() == sent.as_ref())
    };
    let partner = config.partners.iter().find(|it| is_its(&it.token));
    let source = config.sources.iter().find(|it| is_its(&it.token));
    peer(partner.map(|it| &it.name), source.map(|it| &it.name))
}

fn by_certificate(config: &Config, shown: &Fingerprint) -> Option<Peer> {
    let partner = config.partners.iter().find(|it| it.certificates.contains(shown));
    let source = config
        .sources
        .iter()
        .find(|it| it.certificate.as_ref().is_some_and(|it| it.contains(shown)));
    peer(partner.map(|it| &it.name), source.map(|it| &it.name))
}

fn peer(partner: Option<&String>, source: Option<&String>) -> Option<Peer> {
    partner.cloned().map(Peer::Partner).or_else(|| source.cloned().map(Peer::Source))
}

/// Refuses what the configuration does not let the caller do.
pub(super) fn permit(app: &App, peer: &Peer, permission: Permission) -> Result<(), Problem> {
    if peer.may(&app.config, permission) {
        return Ok(());
    }
    let word = match permission {
        Permission::Query => "query",
        Permission::Retrieve => "retrieve",
        Permission::Send => "send",
        Permission::Receive => "receive",
    };
    let detail = format!("{} may not {word} here.", peer.name());
    Err(Problem::new(StatusCode::FORBIDDEN, "Not allowed", detail)
        .hint(format!("Its `may` in gantry.toml lacks \"{word}\".")))
}
