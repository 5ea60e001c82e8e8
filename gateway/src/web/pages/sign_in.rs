//! Signing in by a link, and out.

use askama::Template;
use axum::Form;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::super::App;
use super::super::guard::{person_name, session_cookie, session_token};
use super::super::problem::Problem;
use super::super::session::Refused;
use super::{ErrorPage, page};

#[derive(Template)]
#[template(path = "sign_in_how.html")]
struct HowTo;

#[derive(Template)]
#[template(path = "sign_in.html")]
struct Ask {
    link: String,
}

/// What the form sends.
#[derive(Deserialize)]
pub(super) struct Answers {
    #[serde(default)]
    name: String,
}

/// All that a stranger is shown.
pub(super) async fn how_to() -> Result<Html<String>, ErrorPage> {
    page("Sign in", None, None, &HowTo)
}

/// The link's page. Opening it does not use the link: mail filters open links too.
pub(super) async fn ask(
    State(app): State<App>,
    Path(link): Path<String>,
) -> Result<Html<String>, ErrorPage> {
    if !app.web.sessions.knows_link(&link) {
        return Err(ErrorPage(too_old()));
    }
    page("Sign in", None, None, &Ask { link })
}

pub(super) async fn sign_in(
    State(app): State<App>,
    Path(link): Path<String>,
    Form(answers): Form<Answers>,
) -> Result<Response, ErrorPage> {
    let person = person_name(&answers.name).unwrap_or_else(|| "a signed-in person".to_owned());
    match app.web.sessions.sign_in(&link, &person) {
        Ok(token) => {
            tracing::info!("a person signed in by link");
            let cookie = session_cookie(&app.web, Some(&token));
            Ok(([(header::SET_COOKIE, cookie)], Redirect::to("/")).into_response())
        }
        Err(Refused::Unknown) => {
            tracing::warn!("a sign-in link was refused");
            Err(ErrorPage(too_old()))
        }
        Err(Refused::TooOften) => Err(ErrorPage(
            Problem::new(
                StatusCode::TOO_MANY_REQUESTS,
                "Too many tries",
                "Too many wrong links were tried.",
            )
            .hint("Wait a minute, then get a new link with `gantry web link`."),
        )),
    }
}

pub(super) async fn sign_out(State(app): State<App>, headers: HeaderMap) -> impl IntoResponse {
    if let Some(token) = session_token(&app.web, &headers) {
        app.web.sessions.sign_out(token);
    }
    ([(header::SET_COOKIE, session_cookie(&app.web, None))], Redirect::to("/sign-in"))
}

fn too_old() -> Problem {
    let detail = "This link has been used, is older than ten minutes, or was made before the gateway last started.";
    Problem::new(StatusCode::FORBIDDEN, "This link does not work any more", detail)
        .hint("Get a new one with `gantry web link`.")
}
