//! Projects: a profile and a key each, and what of them routes need.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use gantry_deidentify::engine::{Deidentifier, Linkage};
use gantry_deidentify::keys::ProjectKey;
use gantry_deidentify::pixels::mask::Library;
use gantry_deidentify::profile::{self, Profile};
use gantry_deidentify::seal::Recipient;
use serde_spanned::Spanned;

use super::super::file::ProjectSection;
use super::super::{Partner, Protect, Route};
use super::{Bad, Check, Section, Written, each, words};
use crate::protect::Protection;
use crate::telemetry::chain;

/// The project that seals.
const SEAL: &str = "seal";

/// A project that was understood.
struct Project {
    profile: Profile,
    key: ProjectKey,
    masks: Library,
}

impl Check {
    /// What routes need to protect what they let out.
    pub(super) fn protections(
        &mut self,
        files: &[&Written],
        routes: &[Route],
        partners: &[Partner],
    ) -> BTreeMap<String, Arc<Protection>> {
        let sections = files
            .iter()
            .flat_map(|file| file.file.project.iter().map(|body| Section::of(file, body)));
        let sections: Vec<_> = sections.collect();
        let mut projects: BTreeMap<String, Option<Project>> = BTreeMap::new();
        for (section, body) in &sections {
            let help = "Write what routes call it, such as name = \"lung\".";
            self.required(section, "name", body.name.as_ref(), help);
            let name = self.text(section, &body.name, words::name);
            let project = self.project(section, body);
            let Some(name) = name else { continue };
            if let (true, Some(written)) = (projects.contains_key(&name), &body.name) {
                let message = format!("the project \"{name}\" is there twice");
                self.problem(section, written.span(), Bad::new(message, "again", "Rename one."));
            }
            projects.insert(name, project);
        }
        let mut protections = BTreeMap::new();
        let written = files
            .iter()
            .flat_map(|file| file.file.route.iter().map(|body| Section::of(file, body)));
        for (section, body) in written.collect::<Vec<_>>() {
            let named = body.name.as_ref().map(|name| name.get_ref().trim());
            let (Some(route), Some(at)) =
                (routes.iter().find(|route| Some(route.name.as_str()) == named), &body.protect)
            else {
                continue;
            };
            let (project, linkage) = match &route.protect {
                Protect::AsReceived => continue,
                Protect::Seal => (SEAL, Linkage::Project),
                Protect::Pseudonymise(project) => (project.as_str(), Linkage::Project),
                Protect::Anonymise(project) => (project.as_str(), Linkage::Study),
            };
            let Some(found) = projects.get(project) else {
                let near = words::did_you_mean(project, projects.keys().map(String::as_str));
                let help = format!(
                    "{near}Add [[project]] with name = \"{project}\", profile = \"{}\" and key = \"keys/{project}.key\"; \
                     `gantry deid key keys/{project}.key` makes the key.",
                    if project == SEAL { "direct-care-minimal" } else { "research" }
                );
                let message = format!("there is no project {}", words::quoted(project));
                self.problem(&section, at.span(), Bad::new(message, "unknown", help));
                continue;
            };
            let Some(found) = found else { continue };
            for partner in
                route.to.iter().filter_map(|to| partners.iter().find(|it| it.name == *to))
            {
                let Some(name) = route.protect.under(&partner.name) else { continue };
                let recipients = match route.protect {
                    Protect::Seal => self.recipients(&section, at.span(), partner),
                    _ => Vec::new(),
                };
                let deidentifier =
                    Deidentifier::new(found.profile.clone(), found.key.clone(), linkage);
                let protection =
                    Protection::new(name.clone(), deidentifier, found.masks.clone(), recipients);
                protections.insert(name, Arc::new(protection));
            }
        }
        protections
    }

    fn project(&mut self, section: &Section<'_>, body: &ProjectSection) -> Option<Project> {
        let help = "Write a shipped profile, such as profile = \"research\", or the path of one of your own.";
        let profile = self.required(section, "profile", body.profile.as_ref(), help);
        let help = "Write the file of its key, such as key = \"keys/lung.key\"; `gantry deid key FILE` makes one.";
        let key = self.required(section, "key", body.key.as_ref(), help);
        let profile = profile.and_then(|written| self.profile(section, written));
        let key = key.and_then(|written| {
            ProjectKey::read(&section.path(written.get_ref()))
                .map_err(|error| {
                    let help = "`gantry deid key FILE` makes one; a key that is lost cannot be made again.";
                    let bad = Bad::new(chain(&error).to_string(), "this key", help);
                    self.problem(section, written.span(), bad);
                })
                .ok()
        });
        let mut masks = Library::default();
        for (span, text) in body.masks.iter().flat_map(each) {
            let path = section.path(text);
            let library = std::fs::read_to_string(&path)
                .map_err(|error| format!("cannot read {}: {error}", path.display()))
                .and_then(|text| {
                    Library::parse(&text).map_err(|error| format!("{}: {error}", path.display()))
                });
            match library {
                Ok(library) => masks = masks.then(library),
                Err(message) => {
                    let help = "See the masks in deploy/gantry.toml for what one looks like.";
                    self.problem(section, span, Bad::new(message, "this library", help));
                }
            }
        }
        Some(Project { profile: profile?, key: key?, masks: masks.then(Library::built_in()) })
    }

    fn profile(&mut self, section: &Section<'_>, written: &Spanned<String>) -> Option<Profile> {
        let text = written.get_ref();
        if let Some(profile) = profile::shipped(text) {
            return Some(profile);
        }
        let path = section.path(text);
        let file = match std::fs::read_to_string(&path) {
            Ok(file) => file,
            Err(error) => {
                let names = profile::SHIPPED.map(|shipped| shipped.name);
                let near = words::did_you_mean(text, names);
                let help = format!("{near}There are {}, or the path of a file.", names.join(", "));
                let message =
                    format!("cannot read the profile {}: {error}", Path::new(text).display());
                self.problem(section, written.span(), Bad::new(message, "this profile", help));
                return None;
            }
        };
        let read = profile::read(&file);
        for finding in read.findings {
            let message = format!("{text}, line {}: {}", finding.line, finding.message);
            let bad = Bad::new(message, "this profile", finding.help);
            match finding.severity {
                profile::Severity::Problem => self.problem(section, written.span(), bad),
                profile::Severity::Warning => self.warning(section, written.span(), bad),
            }
        }
        read.profile
    }

    /// To whom identity is encrypted for a partner.
    fn recipients(
        &mut self,
        section: &Section<'_>,
        at: std::ops::Range<usize>,
        partner: &Partner,
    ) -> Vec<Recipient> {
        let mut recipients = Vec::new();
        for path in &partner.seal_to {
            let read = std::fs::read(path)
                .map_err(|error| format!("cannot read {}: {error}", path.display()))
                .and_then(|bytes| {
                    Recipient::from_pem_or_der(&bytes, self.now)
                        .map_err(|error| format!("{}: {}", path.display(), chain(&error)))
                });
            match read {
                Ok(read) => recipients.extend(read),
                Err(message) => {
                    let help =
                        "Ask the partner for a certificate with an RSA key of 3072 bits or more.";
                    self.problem(section, at.clone(), Bad::new(message, "seal", help));
                }
            }
        }
        if partner.seal_to.is_empty() {
            let message =
                format!("nothing says to whom identity is encrypted for \"{}\"", partner.name);
            let help = "Write seal-to = [\"….crt\"] into its [[partner]]: a certificate with an RSA key of 3072 bits or more, \
                        whose private key is the partner's alone.";
            self.problem(section, at, Bad::new(message, "seal", help));
        }
        recipients
    }
}
