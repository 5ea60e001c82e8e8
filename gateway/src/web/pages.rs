//! Pages: rendered here, complete without JavaScript.
//!
//! Each page is a template of its own, put into the shell that has the head, the landmarks and the foot. Patient data is
//! revealed while a page's view is built and nowhere else, and templates escape all of it.

mod board;
mod projects;
mod sign_in;
mod transfer;

use askama::Template;
use axum::Router;
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use gantry_store::index::{IndexError, TransferState};

use super::problem::Problem;
use super::{App, assets, live};

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/", get(board::board))
        .route("/transfers/{id}", get(transfer::transfer))
        .route("/transfers/{id}/{act}", post(transfer::act))
        .route("/projects", get(projects::projects))
        .route("/sign-in", get(sign_in::how_to))
        .route("/sign-in/{link}", get(sign_in::ask).post(sign_in::sign_in))
        .route("/sign-out", post(sign_in::sign_out))
        .route("/events", get(live::events))
}

/// For addresses that nothing answers.
pub(super) async fn not_found() -> ErrorPage {
    ErrorPage(Problem::not_found("There is no page at this address."))
}

/// What all pages have around them.
#[derive(Template)]
#[template(path = "shell.html")]
struct Shell<'a> {
    title: &'a str,
    /// Whose gateway this is; `None` for strangers.
    organisation: Option<&'a str>,
    /// Where the live part of the page comes from, if it has one.
    live: Option<&'a str>,
    main: &'a str,
    assets: &'static str,
}

/// Puts a page into the shell.
fn page(
    title: &str,
    organisation: Option<&str>,
    live: Option<&str>,
    main: &impl Template,
) -> Result<Html<String>, ErrorPage> {
    let main = fragment(main)?.0;
    fragment(&Shell { title, organisation, live, main: &main, assets: assets::version() })
}

/// Renders a part of a page.
fn fragment(template: &impl Template) -> Result<Html<String>, ErrorPage> {
    template.render().map(Html).map_err(|error| ErrorPage(Problem::internal(&error)))
}

/// A problem as a page.
#[derive(Debug)]
pub(super) struct ErrorPage(pub(super) Problem);

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorMain<'a> {
    problem: &'a Problem,
    /// Where to go from here.
    back: bool,
}

impl From<Problem> for ErrorPage {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl From<IndexError> for ErrorPage {
    fn from(error: IndexError) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for ErrorPage {
    fn into_response(self) -> Response {
        let Self(problem) = self;
        let back = problem.status != StatusCode::MISDIRECTED_REQUEST;
        match page(problem.title, None, None, &ErrorMain { problem: &problem, back }) {
            Ok(page) => (problem.status, page).into_response(),
            // A shell that does not render would not render this page either.
            Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, problem.title).into_response(),
        }
    }
}

/// How a state is coloured; the words say the same.
fn tone(state: TransferState) -> &'static str {
    match state {
        TransferState::NeedsAction => "act",
        TransferState::Delayed | TransferState::Paused => "wait",
        TransferState::Receiving | TransferState::Queued | TransferState::Sending => "move",
        TransferState::Sent => "sent",
        TransferState::Confirmed | TransferState::Opened => "done",
        TransferState::Cancelled | TransferState::Recalled => "off",
    }
}
