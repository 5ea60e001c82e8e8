//! What leaves de-identified or sealed: a page that prints, for whoever answers for it.

use askama::Template;
use axum::extract::State;
use axum::response::Html;

use gantry_deidentify::report::class_name;
use gantry_store::index::TransferId;

use super::super::App;
use super::super::api::projects::{self, AsideView, ProjectView};
use super::{ErrorPage, page};

#[derive(Template)]
#[template(path = "projects.html")]
struct Projects {
    projects: Vec<Project>,
    not_checked: Vec<&'static str>,
}

struct Project {
    heading: String,
    view: ProjectView,
    aside: Vec<Aside>,
}

/// Images of one transfer that were set aside for one reason.
struct Aside {
    transfer: TransferId,
    class: String,
    why: String,
    images: u64,
}

impl From<ProjectView> for Project {
    fn from(mut project: ProjectView) -> Self {
        let heading = match project.name.split_once(':') {
            Some(("seal", partner)) => format!("Sealed for {partner}"),
            Some((_, name)) => format!("Project {name}"),
            None => project.name.clone(),
        };
        let mut aside: Vec<Aside> = Vec::new();
        for AsideView { transfer, sop_class, why } in std::mem::take(&mut project.aside) {
            let class = class_name(&sop_class);
            let same =
                |one: &&mut Aside| one.transfer == transfer && one.class == class && one.why == why;
            match aside.iter_mut().find(same) {
                Some(one) => one.images += 1,
                None => aside.push(Aside { transfer, class, why, images: 1 }),
            }
        }
        Self { heading, view: project, aside }
    }
}

pub(super) async fn projects(State(app): State<App>) -> Result<Html<String>, ErrorPage> {
    let view = projects::view(&app.web).await?;
    let projects = view.projects.into_iter().map(Project::from).collect();
    let main = Projects { projects, not_checked: view.not_checked };
    page("De-identification", Some(&app.web.config.node.organisation), None, &main)
}
