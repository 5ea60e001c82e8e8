//! From what is written to what is run, with every problem on the way.
//!
//! Nothing stops at a problem: it is noted, a stand-in takes the value's place, and whether anything was noted decides
//! at the end. Stand-ins therefore never run. A section is checked on its own first, then against the others; what is
//! compared with others is taken from the written names, so that a partner with a bad address is still a known name.

mod alarm;
mod certificates;
mod completeness;
mod database;
mod node;
mod objects;
mod pace;
mod parties;
mod projects;
mod retention;
mod routes;
mod scrub;

use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_spanned::Spanned;

use super::file::{self, File, OneOrMore, Text, Texts, Why};
use super::report::{Finding, Place, Problems, Severity, SourceFile, Warning};
use super::words::{self, Bad};
use super::{Config, Fingerprint, Identity, Tls};
use parties::Names;

pub(super) fn load(path: &Path) -> Result<(Config, Vec<Warning>), Problems> {
    let mut check = Check { findings: Vec::new(), now: Timestamp::now() };
    let files = check.read_all(path);
    let config = files.as_deref().and_then(<[Written]>::split_first);
    let config = config.and_then(|(main, parts)| check.config(path, main, parts));
    check.conclude(config)
}

/// One file, read.
struct Written {
    source: Arc<SourceFile>,
    /// Where it is; relative paths in it begin here.
    folder: PathBuf,
    file: File,
    rejected: Vec<file::Rejected>,
    /// The place of what is in no section.
    root: Range<usize>,
}

/// A section of one file.
#[derive(Clone)]
struct Section<'w> {
    written: &'w Written,
    /// Its header.
    span: Range<usize>,
}

impl<'w> Section<'w> {
    fn of<T>(written: &'w Written, body: &'w Spanned<T>) -> (Self, &'w T) {
        (Self { written, span: body.span() }, body.get_ref())
    }

    /// A section that need not be written.
    fn or_default<T: Default>(
        written: &'w Written,
        body: Option<&'w Spanned<T>>,
        default: &'w T,
    ) -> (Self, &'w T) {
        match body {
            Some(body) => Self::of(written, body),
            None => (Self { written, span: written.root.clone() }, default),
        }
    }

    fn place(&self, span: Range<usize>) -> Place {
        Place { source: self.written.source.clone(), span }
    }

    fn path(&self, text: &str) -> PathBuf {
        self.written.folder.join(text)
    }

    /// Whether a problem was already noted with this key, or with what was probably meant to be it.
    fn was_rejected(&self, key: &str) -> bool {
        self.written.rejected.iter().any(|entry| {
            entry.section == self.span
                && match &entry.why {
                    Why::UnknownKey { known } => meant(&entry.key, known) == Some(key),
                    Why::WrongKind { .. } | Why::Other(_) => entry.key == key,
                }
        })
    }
}

fn meant<'a>(key: &str, known: &'a [String]) -> Option<&'a str> {
    words::nearest(key, known.iter().map(String::as_str))
}

struct Check {
    findings: Vec<Finding>,
    now: Timestamp,
}

/// Finding things.
impl Check {
    fn problem(&mut self, section: &Section<'_>, span: Range<usize>, bad: Bad) {
        let finding = Finding::new(Severity::Problem, bad.message)
            .at(section.place(span), bad.label)
            .help(bad.help);
        self.findings.push(finding);
    }

    fn warning(&mut self, section: &Section<'_>, span: Range<usize>, bad: Bad) {
        let finding = Finding::new(Severity::Warning, bad.message)
            .at(section.place(span), bad.label)
            .help(bad.help);
        self.findings.push(finding);
    }

    fn conclude(mut self, config: Option<Config>) -> Result<(Config, Vec<Warning>), Problems> {
        self.findings.sort_by_key(Finding::order);
        let runs = self.findings.iter().all(|finding| finding.severity() == Severity::Warning);
        match config {
            Some(config) if runs => Ok((config, self.findings)),
            _ => Err(Problems::new(self.findings)),
        }
    }

    /// Something that is missing from the whole file.
    fn lacks(&mut self, written: &Written, what: &str, help: &str) {
        let message = format!("{} has no {what} section", written.source.name());
        let place = Place { source: written.source.clone(), span: Place::WHOLE };
        self.findings.push(Finding::new(Severity::Problem, message).at(place, "").help(help));
    }

    fn note<T>(
        &mut self,
        section: &Section<'_>,
        span: Range<usize>,
        result: Result<T, Bad>,
    ) -> Option<T> {
        result.map_err(|bad| self.problem(section, span, bad)).ok()
    }

    /// What must be written; `help` says what to write.
    fn required<'v, T>(
        &mut self,
        section: &Section<'_>,
        key: &str,
        value: Option<&'v Spanned<T>>,
        help: &str,
    ) -> Option<&'v Spanned<T>> {
        if value.is_none() && !section.was_rejected(key) {
            let header = section.written.source.get(section.span.clone());
            let message = format!("{header} has no {key}");
            self.problem(
                section,
                section.span.clone(),
                Bad::new(message, format!("{key} is missing"), help),
            );
        }
        value
    }

    fn text<T>(
        &mut self,
        section: &Section<'_>,
        value: &Text,
        parse: impl FnOnce(&str) -> Result<T, Bad>,
    ) -> Option<T> {
        let value = value.as_ref()?;
        self.note(section, value.span(), parse(value.get_ref()))
    }

    fn texts<T>(
        &mut self,
        section: &Section<'_>,
        values: &Texts,
        mut parse: impl FnMut(&str) -> Result<T, Bad>,
    ) -> Vec<(Range<usize>, T)> {
        let mut parsed = Vec::new();
        for (span, text) in values.iter().flat_map(each) {
            parsed.extend(self.note(section, span.clone(), parse(text)).map(|value| (span, value)));
        }
        parsed
    }

    fn duration(
        &mut self,
        section: &Section<'_>,
        value: &Text,
        default: Duration,
        range: &RangeInclusive<Duration>,
    ) -> Duration {
        self.text(section, value, |text| words::duration(text, range)).unwrap_or(default)
    }

    fn size(
        &mut self,
        section: &Section<'_>,
        value: &Text,
        default: u64,
        range: &RangeInclusive<u64>,
    ) -> u64 {
        self.text(section, value, |text| words::size(text, range)).unwrap_or(default)
    }
}

/// The texts of a list with their places; one text is a list of one.
fn each(list: &Spanned<OneOrMore>) -> Vec<(Range<usize>, &str)> {
    match list.get_ref() {
        OneOrMore::One(text) => vec![(list.span(), text)],
        OneOrMore::More(texts) => {
            texts.iter().map(|text| (text.span(), text.get_ref().as_str())).collect()
        }
    }
}

/// Reading the files.
impl Check {
    /// The file itself first, then the parts beside it. `None` when one of them cannot be read, as what the others say
    /// of it could then only be misjudged.
    fn read_all(&mut self, path: &Path) -> Option<Vec<Written>> {
        let mut paths = vec![path.to_owned()];
        let parts = path.parent().unwrap_or(Path::new("")).join("conf.d");
        match parts.read_dir() {
            Ok(entries) => {
                let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
                files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
                files.sort();
                paths.extend(files);
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                self.unreadable(&parts, &error, "Make it readable for the user that runs gantry.");
            }
        }
        let read: Vec<_> =
            paths.iter().enumerate().map(|(number, path)| self.read(number, path)).collect();
        read.into_iter().collect()
    }

    fn read(&mut self, number: usize, path: &Path) -> Option<Written> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                let help = match error.kind() {
                    std::io::ErrorKind::NotFound => {
                        "`gantry init` makes one; `--config FILE` names another."
                    }
                    std::io::ErrorKind::InvalidData => "Save it as UTF-8.",
                    _ => "Make it readable for the user that runs gantry.",
                };
                self.unreadable(path, &error, help);
                return None;
            }
        };
        let source = Arc::new(SourceFile::new(number, path, &text));
        let (file, rejected) = match file::read(&text) {
            Ok(read) => read,
            Err(errors) => {
                for error in errors {
                    let place = Place { source: source.clone(), span: error.span };
                    let finding = Finding::new(Severity::Problem, "this is not TOML")
                        .at(place, error.message);
                    self.findings.push(finding.help(
                        "What the file says is checked once it can be read: https://toml.io",
                    ));
                }
                return None;
            }
        };
        let folder = std::path::absolute(path).ok()?.parent()?.to_owned();
        let written = Written { source, folder, file, rejected, root: 0..text.len() };
        self.explain_rejected(&written);
        if number > 0 {
            self.only_parts(&written);
        }
        Some(written)
    }

    fn unreadable(&mut self, path: &Path, error: &std::io::Error, help: &str) {
        let message = format!("cannot read {}: {error}", path.display());
        self.findings.push(Finding::new(Severity::Problem, message).help(help));
    }

    fn explain_rejected(&mut self, written: &Written) {
        for entry in &written.rejected {
            let section = Section { written, span: entry.section.clone() };
            let key = words::quoted(&entry.key);
            let bad = match &entry.why {
                Why::UnknownKey { known } => {
                    let candidates = known.iter().map(String::as_str);
                    let help = match meant(&entry.key, known) {
                        Some(_) => {
                            words::did_you_mean(&entry.key, candidates).trim_end().to_owned()
                        }
                        None => format!("There are: {}.", known.join(", ")),
                    };
                    Bad::new(format!("there is no key {key} here"), "unknown", help)
                }
                // `[[node]]`, which serde takes for the values of a section's keys.
                Why::WrongKind { .. }
                    if written.source.get(entry.span.clone()).starts_with("[[") =>
                {
                    let help = format!("Write its header in single brackets: [{}].", entry.key);
                    Bad::new(format!("{key} must be a section"), "a list of sections", help)
                }
                Why::WrongKind { is, expected } => {
                    let help = match expected.as_str() {
                        "a string" if is == "a number" => {
                            "Write it in quotes; a time or a size with its unit, such as \"30s\" or \"2GiB\"."
                        }
                        "a string" | "a string or a list of strings" => "Write it in quotes.",
                        "a whole number" | "true or false" => "Write it without quotes.",
                        "a table" => "Write it in braces: { key = \"value\" }.",
                        "a section" => "Write its header in single brackets.",
                        _ => "Write its header in double brackets.",
                    };
                    Bad::new(format!("{key} must be {expected}"), is.clone(), help)
                }
                Why::Other(message) => Bad::new(
                    format!("{key} cannot be read"),
                    message.clone(),
                    "See deploy/gantry.toml for every key.",
                ),
            };
            self.problem(&section, entry.span.clone(), bad);
        }
    }

    fn only_parts(&mut self, written: &Written) {
        let file = &written.file;
        let whole_node = [
            file.node.as_ref().map(Spanned::span),
            file.tls.as_ref().map(Spanned::span),
            file.web.as_ref().map(Spanned::span),
            file.dicomweb.as_ref().map(Spanned::span),
            file.intake.as_ref().map(Spanned::span),
            file.association.as_ref().map(Spanned::span),
            file.object_store.as_ref().map(Spanned::span),
            file.database.as_ref().map(Spanned::span),
            file.delivery.as_ref().map(Spanned::span),
            file.log.as_ref().map(Spanned::span),
            file.scrub.as_ref().map(Spanned::span),
            file.completeness.as_ref().map(Spanned::span),
            file.alarm.as_ref().map(Spanned::span),
        ];
        let listeners = file.listener.iter().map(Spanned::span);
        let rules = file.retention.iter().map(Spanned::span);
        for span in whole_node.into_iter().flatten().chain(listeners).chain(rules) {
            let section = Section { written, span: span.clone() };
            let message = format!("{} cannot stand in conf.d", written.source.get(span.clone()));
            let help = "Move it to gantry.toml; files in conf.d add sources, partners and routes.";
            self.problem(&section, span, Bad::new(message, "concerns the whole node", help));
        }
    }
}

/// The sections, and what they say of each other.
impl Check {
    fn config(&mut self, path: &Path, main: &Written, parts: &[Written]) -> Option<Config> {
        let files: Vec<_> = std::iter::once(main).chain(parts).collect();
        let node = self.node(main);
        let (tls, authorities, own) = self.tls(main);
        let has_tls = main.file.tls.is_some();
        let listeners = self.listeners(main, has_tls);
        let web = self.web(main, &listeners, tls.as_ref());
        let dicomweb = self.dicomweb(main, &listeners, web.as_ref());
        let mut names = Names::default();
        if let Some(own) = own {
            names.certificates.insert(own, "this node".to_owned());
        }
        let own_title = node.as_ref().map(|node| &node.ae_title);
        let sources = self.sources(&files, &mut names, own_title, authorities.as_ref());
        let partners = self.partners(&files, &mut names, own_title, has_tls, authorities.as_ref());
        let routes = self.routes(&files, &listeners);
        let protections = self.protections(&files, &routes, &partners);
        Some(Config {
            file: std::path::absolute(path).ok()?,
            listeners,
            tls,
            web,
            dicomweb,
            intake: self.intake(main),
            limits: self.limits(main),
            object_store: self.object_store(main),
            store_high_water: self.store_high_water(main),
            database: self.database(main),
            delivery: self.delivery(main),
            log: self.log(main),
            sources,
            partners,
            routes,
            retention: self.retention(&files),
            scrub: self.scrub(main),
            completeness: self.completeness(main),
            alarm: self.alarm(main),
            protections,
            node: node?,
        })
    }
}

#[cfg(test)]
mod tests;
