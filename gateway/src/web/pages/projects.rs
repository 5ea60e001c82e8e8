//! What leaves de-identified or sealed: a page that prints, for whoever answers for it.

use askama::Template;
use axum::extract::State;
use axum::response::Html;

use super::super::App;
use super::super::api::projects::{self, ProjectView};
use super::{ErrorPage, page};

#[derive(Template)]
#[template(path = "projects.html")]
struct Projects {
    projects: Vec<ProjectView>,
    not_checked: Vec<&'static str>,
}

pub(super) async fn projects(State(app): State<App>) -> Result<Html<String>, ErrorPage> {
    let view = projects::view(&app.web).await?;
    let main = Projects { projects: view.projects, not_checked: view.not_checked };
    page("De-identification", Some(&app.web.config.node.organisation), None, &main)
}
