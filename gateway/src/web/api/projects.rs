//! What leaves de-identified or sealed, by what, and what could not: for whoever answers for it.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use gantry_deidentify::engine::Linkage;
use gantry_deidentify::table::{EDITION, ProfileOption};
use gantry_deidentify::verify::NOT_CHECKED;
use gantry_store::index::{IndexError, TransferId};
use serde::Serialize;

use super::super::problem::Problem;
use super::super::{App, WebState};
use crate::protect::Protection;

/// How many of what was set aside are listed.
const LISTED: u32 = 200;

/// One way in which images leave.
#[derive(Clone, Debug, Serialize)]
pub(in crate::web) struct ProjectView {
    /// `pseudonymise:lung`, as deliveries name it.
    pub(in crate::web) name: String,
    /// What it comes to: `pseudonymised`, `de-identified`, `sealed`.
    pub(in crate::web) result: &'static str,
    /// Whether the configuration has it; else nothing leaves by it any more.
    pub(in crate::web) configured: bool,
    pub(in crate::web) made_by: Option<MadeBy>,
    pub(in crate::web) partners: Vec<String>,
    pub(in crate::web) delivered: u64,
    pub(in crate::web) waiting: u64,
    pub(in crate::web) set_aside: u64,
    /// The latest of these.
    pub(in crate::web) aside: Vec<AsideView>,
}

/// Profile and key.
#[derive(Clone, Debug, Serialize)]
pub(in crate::web) struct MadeBy {
    pub(in crate::web) profile: String,
    pub(in crate::web) version: String,
    pub(in crate::web) digest: String,
    pub(in crate::web) description: String,
    pub(in crate::web) edition: &'static str,
    pub(in crate::web) options: Vec<&'static str>,
    pub(in crate::web) key_fingerprint: String,
    /// Whether who holds the key can say that two studies are of one patient, and of whom.
    pub(in crate::web) linked: bool,
    /// Subjects and SHA-256 of the certificates to which identity is encrypted.
    pub(in crate::web) sealed_to: Vec<String>,
    pub(in crate::web) text_search: bool,
}

#[derive(Clone, Debug, Serialize)]
pub(in crate::web) struct AsideView {
    pub(in crate::web) transfer: TransferId,
    pub(in crate::web) sop_class: String,
    pub(in crate::web) why: String,
}

/// All of it, and what nobody checks.
#[derive(Debug, Serialize)]
pub(in crate::web) struct ProjectsView {
    pub(in crate::web) projects: Vec<ProjectView>,
    pub(in crate::web) not_checked: Vec<&'static str>,
}

/// `GET /api/v1/projects`.
pub(super) async fn report(State(app): State<App>) -> Result<Json<ProjectsView>, Problem> {
    Ok(Json(view(&app.web).await?))
}

/// What is configured, and whatever else left protected at some time.
pub(in crate::web) async fn view(web: &WebState) -> Result<ProjectsView, IndexError> {
    let mut projects: BTreeMap<String, ProjectView> = BTreeMap::new();
    for (name, protection) in &web.config.protections {
        let mut project = named(name);
        project.configured = true;
        project.made_by = Some(made_by(protection));
        let routes = web.config.routes.iter();
        let partners = routes.flat_map(|route| {
            let to = route.to.iter();
            to.filter(|to| route.protect.under(to).as_deref() == Some(name.as_str()))
        });
        project.partners = partners.cloned().collect();
        project.partners.sort();
        project.partners.dedup();
        projects.insert(name.clone(), project);
    }
    for counted in web.index.protected().await? {
        let name = counted.protection;
        let project = projects.entry(name.clone()).or_insert_with(|| named(&name));
        (project.delivered, project.waiting, project.set_aside) =
            (counted.delivered, counted.waiting, counted.set_aside);
    }
    for aside in web.index.protected_aside(LISTED).await? {
        if let Some(project) = projects.get_mut(&aside.protection) {
            let (transfer, sop_class, why) =
                (aside.transfer, aside.sop_class.as_str().to_owned(), aside.why);
            project.aside.push(AsideView { transfer, sop_class, why });
        }
    }
    let projects = projects.into_values().collect();
    Ok(ProjectsView { projects, not_checked: NOT_CHECKED.to_vec() })
}

fn named(name: &str) -> ProjectView {
    let result = match name.split_once(':') {
        Some(("seal", _)) => "sealed",
        Some(("pseudonymise", _)) => "pseudonymised",
        _ => "de-identified",
    };
    ProjectView {
        name: name.to_owned(),
        result,
        configured: false,
        made_by: None,
        partners: Vec::new(),
        delivered: 0,
        waiting: 0,
        set_aside: 0,
        aside: Vec::new(),
    }
}

fn made_by(protection: &Protection) -> MadeBy {
    let deidentifier = protection.deidentifier();
    let profile = deidentifier.profile();
    MadeBy {
        profile: profile.name.clone(),
        version: profile.version.clone(),
        digest: profile.digest.clone(),
        description: profile.description.clone(),
        edition: EDITION,
        options: profile.options.iter().map(ProfileOption::meaning).collect(),
        key_fingerprint: deidentifier.key_fingerprint(),
        linked: deidentifier.linkage() == Linkage::Project,
        sealed_to: protection
            .recipients()
            .iter()
            .map(|one| format!("{} ({})", one.subject(), one.fingerprint_hex()))
            .collect(),
        text_search: protection.searches_text(),
    }
}
