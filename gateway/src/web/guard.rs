//! What stands before every route: which host was asked for, who asks, from which page, and what the answer may do in a
//! browser.
//!
//! The order is: headers on whatever comes back; the host, so that a name which someone else points at this machine is
//! not served (DNS rebinding); the origin of requests that change something (CSRF); the session. All of it is in one
//! place and closed by default: [`is_open`] lists what a stranger reaches.

use std::net::IpAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Redirect, Response};
use tokio::time::timeout;

use super::pages::ErrorPage;
use super::problem::Problem;
use super::session::Person;
use super::{App, WebState};
use crate::config::Web;

/// Bytes of the longest form or JSON text that is read.
const BODY: usize = 64 << 10;
/// How long an answer may take to begin. Event streams begin at once.
const ANSWER: Duration = Duration::from_secs(30);
/// The longest name of a person that the timeline takes.
const NAME: usize = 60;

const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Puts the guard of the web's listener before a router.
pub(super) fn for_strangers(router: Router<App>, app: &App) -> Router<App> {
    router
        .layer(DefaultBodyLimit::max(BODY))
        .layer(middleware::from_fn_with_state(app.clone(), admit))
        .layer(middleware::map_response(harden))
}

/// Puts what the administrator's socket needs before a router: who it is, for the timeline.
pub(super) fn for_the_administrator(router: Router<App>) -> Router<App> {
    router
        .layer(DefaultBodyLimit::max(BODY))
        .layer(middleware::from_fn(name_the_administrator))
        .layer(middleware::map_response(harden))
}

/// What a stranger reaches. Nothing of it says anything about a patient.
fn is_open(path: &str) -> bool {
    matches!(path, "/healthz" | "/readyz" | "/metrics" | "/sign-in")
        || path.starts_with("/assets/")
        || path.starts_with("/sign-in/")
}

/// Whether programs ask here, which want no pages.
fn is_for_programs(path: &str) -> bool {
    path.starts_with("/api/") || matches!(path, "/events" | "/healthz" | "/readyz" | "/metrics")
}

async fn admit(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let refuse = |problem: Problem| {
        if is_for_programs(&path) {
            problem.into_response()
        } else {
            ErrorPage(problem).into_response()
        }
    };
    if !host_is_ours(&app.web, &request) {
        return refuse(
            Problem::new(StatusCode::MISDIRECTED_REQUEST, "Wrong address", "This gateway has another name.")
                .hint("Use the link that `gantry web link` prints, or set `url` under [web] in gantry.toml."),
        );
    }
    if !request.method().is_safe() && !comes_from_us(&app.web, request.headers()) {
        return refuse(
            Problem::new(
                StatusCode::FORBIDDEN,
                "Refused",
                "This request did not come from a page of this gateway, so nothing was changed.",
            )
            .hint("Open the page on this gateway and use its button."),
        );
    }
    if !is_open(&path) {
        let person = session_token(&app.web, request.headers())
            .and_then(|token| app.web.sessions.person(token));
        let Some(person) = person else {
            return if is_for_programs(&path) {
                Problem::new(StatusCode::UNAUTHORIZED, "Not signed in", "This needs a session.")
                    .hint("Run `gantry web link` on the gateway, and open the link it prints.")
                    .into_response()
            } else {
                Redirect::to("/sign-in").into_response()
            };
        };
        request.extensions_mut().insert(person);
    }
    timeout(ANSWER, next.run(request)).await.unwrap_or_else(|_| {
        refuse(
            Problem::new(
                StatusCode::GATEWAY_TIMEOUT,
                "Too slow",
                "The gateway did not find an answer in time.",
            )
            .hint("Try again in a moment."),
        )
    })
}

/// The command line says who ran it; this is for the timeline and proves nothing, as the socket has proved enough.
async fn name_the_administrator(mut request: Request, next: Next) -> Response {
    let name = request
        .headers()
        .get("gantry-actor")
        .and_then(|name| name.to_str().ok())
        .and_then(person_name);
    let person =
        name.map_or_else(|| "command line".to_owned(), |name| format!("{name} (command line)"));
    request.extensions_mut().insert(Person(person));
    next.run(request).await
}

/// A name as somebody typed it, made fit for a line of the timeline.
pub(super) fn person_name(text: &str) -> Option<String> {
    let name: String = text.chars().filter(|c| !c.is_control()).take(NAME).collect();
    let name = name.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

async fn harden(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers
        .insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY_POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // Not `no-referrer`: with that, browsers send `Origin: null` with forms, and the origin is what tells our own forms
    // from others' where `Sec-Fetch-Site` is absent. Other sites are told nothing either way.
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// On loopback, whether the request names this machine: any web page can point its own name at 127.0.0.1 and would then
/// be "same origin". Elsewhere the certificate says whose name it is, and load balancers ask by address.
fn host_is_ours(web: &WebState, request: &Request) -> bool {
    let Some(configured) = web.config.web.as_ref().filter(|web| web.address.ip().is_loopback())
    else {
        return true;
    };
    let named = request.uri().host().or_else(|| request.headers().get(header::HOST)?.to_str().ok());
    named.is_some_and(|host| host_is_one_of(configured, host))
}

fn host_is_one_of(configured: &Web, host: &str) -> bool {
    let host = without_port(host);
    let by_url = configured.url.as_deref().and_then(host_of_url);
    let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    literal.is_ok_and(|ip| ip.is_loopback() || ip == configured.address.ip())
        || host.eq_ignore_ascii_case("localhost")
        || by_url.is_some_and(|ours| host.eq_ignore_ascii_case(ours))
}

fn host_of_url(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    Some(without_port(rest.split('/').next().unwrap_or(rest)))
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((host, port))
            if port.bytes().all(|byte| byte.is_ascii_digit()) && !host.is_empty() =>
        {
            host
        }
        _ => host,
    }
}

/// Whether a request that changes something was made by a page of ours. Browsers say so in `Sec-Fetch-Site`, or where
/// they do not (plain http off loopback) in `Origin`; a request with neither is nobody's page.
fn comes_from_us(web: &WebState, headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    if let Some(site) = text("sec-fetch-site") {
        return site == "same-origin";
    }
    let Some(origin) = text("origin") else { return false };
    let scheme = if web.is_https() { "https" } else { "http" };
    let by_host =
        text("host").is_some_and(|host| origin.eq_ignore_ascii_case(&format!("{scheme}://{host}")));
    let by_url = web.config.web.as_ref().and_then(|web| web.url.as_deref());
    by_host || by_url.is_some_and(|url| origin.eq_ignore_ascii_case(url.trim_end_matches('/')))
}

/// The session's token, as the browser sends it back.
pub(super) fn session_token<'a>(web: &WebState, headers: &'a HeaderMap) -> Option<&'a str> {
    let name = cookie_name(web);
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|cookies| cookies.to_str().ok())
        .flat_map(|cookies| cookies.split(';'))
        .filter_map(|cookie| cookie.trim().split_once('='))
        .find_map(|(found, token)| (found == name).then_some(token))
}

/// The header that makes a browser keep the token, or with `None` forget it.
pub(super) fn session_cookie(web: &WebState, token: Option<&str>) -> String {
    let name = cookie_name(web);
    let secure = if web.is_https() { "; Secure" } else { "" };
    let age = if token.is_some() { "" } else { "; Max-Age=0" };
    format!("{name}={}; Path=/; HttpOnly; SameSite=Strict{secure}{age}", token.unwrap_or_default())
}

/// The prefix makes browsers refuse a cookie that another host of the domain, or plain http, tries to set in its place.
fn cookie_name(web: &WebState) -> &'static str {
    if web.is_https() { "__Host-gantry" } else { "gantry" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_served_on_loopback() {
        let web = Web {
            address: "127.0.0.1:8080".parse().unwrap(),
            tls: crate::config::WebTls::Off,
            url: Some("https://gantry.example:8443/".to_owned()),
        };
        for ours in [
            "localhost",
            "LOCALHOST:1",
            "127.0.0.1:8080",
            "[::1]:8080",
            "[::1]",
            "gantry.example",
            "gantry.example:1",
        ] {
            assert!(host_is_one_of(&web, ours), "{ours}");
        }
        for other in [
            "evil.example",
            "evil.example:8080",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "10.0.0.1",
            "",
        ] {
            assert!(!host_is_one_of(&web, other), "{other}");
        }
    }

    #[test]
    fn a_name_in_the_timeline_is_one_short_line() {
        assert_eq!(person_name("  Dr A\r\nNurse "), Some("Dr ANurse".to_owned()));
        assert_eq!(person_name(" \t"), None);
        assert_eq!(person_name(&"x".repeat(500)).map(|name| name.len()), Some(NAME));
    }
}
