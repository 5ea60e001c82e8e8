//! Routes: what they look at must exist, and where they lead must be a partner that may receive.

use std::ops::Range;

use dicom_core::dictionary::{DataDictionary as _, DataDictionaryEntry};
use dicom_dictionary_std::StandardDataDictionary;
use gantry_store::dicom::{Tag, attributes};
use gantry_store::facts::{Priority, Purpose};
use serde_spanned::Spanned;

use super::super::file::RouteSection;
use super::super::{Condition, Fact, Listener, Pattern, Protect, Route};
use super::{BTreeMap, Bad, Check, OneOrMore, Section, Text, Written, each, words};

/// Names that routes may use, as they are written, whatever else is wrong with their sections.
struct Known<'a> {
    listeners: Names<'a>,
    sources: Names<'a>,
    partners: Names<'a>,
    /// Partners that certainly may not receive.
    silent: Vec<&'a str>,
}

struct Names<'a> {
    names: Vec<&'a str>,
    /// Whether every section has its name; while one has not, no name can be called unknown.
    all: bool,
}

impl<'a> Names<'a> {
    fn collect(names: impl Iterator<Item = Option<&'a str>>) -> Self {
        let written: Vec<_> = names.collect();
        Self {
            all: written.iter().all(Option::is_some),
            names: written.into_iter().flatten().collect(),
        }
    }

    /// How an unknown name is answered.
    fn instead_of(&self, unknown: &str) -> String {
        let near = words::did_you_mean(unknown, self.names.iter().copied());
        let names: Vec<_> = self.names.iter().map(|name| format!("\"{name}\"")).collect();
        if names.is_empty() {
            "There is none.".to_owned()
        } else {
            format!("{near}There is {}.", names.join(", "))
        }
    }
}

impl Check {
    pub(super) fn routes(&mut self, files: &[&Written], listeners: &[Listener]) -> Vec<Route> {
        let sources = files.iter().flat_map(|file| &file.file.source).map(Spanned::get_ref);
        let partners = files.iter().flat_map(|file| &file.file.partner).map(Spanned::get_ref);
        let addresses = listeners.iter().map(|listener| Some(listener.name.as_str()));
        let listener_sections: usize = files.iter().map(|file| file.file.listener.len()).sum();
        let other_words = ["query", "retrieve", "send"];
        let silent = partners.clone().filter(|partner| {
            let may = partner.may.as_ref();
            may.is_some_and(|may| each(may).iter().all(|(_, word)| other_words.contains(word)))
        });
        let known = Known {
            listeners: Names {
                all: listeners.len() == listener_sections,
                ..Names::collect(addresses)
            },
            sources: Names::collect(sources.map(|source| text(&source.name))),
            silent: silent.filter_map(|partner| text(&partner.name)).collect(),
            partners: Names::collect(partners.map(|partner| text(&partner.name))),
        };
        let mut taken = BTreeMap::new();
        let sections = files
            .iter()
            .flat_map(|file| file.file.route.iter().map(|body| Section::of(file, body)));
        sections
            .filter_map(|(section, body)| self.route(&section, body, &known, &mut taken))
            .collect()
    }

    fn route(
        &mut self,
        section: &Section<'_>,
        body: &RouteSection,
        known: &Known<'_>,
        taken: &mut BTreeMap<String, String>,
    ) -> Option<Route> {
        let help =
            "Write what people read of it, such as name = \"emergency to the royal infirmary\".";
        self.required(section, "name", body.name.as_ref(), help);
        let name = self.text(section, &body.name, words::line);
        if let (Some(name), Some(written)) = (&name, &body.name) {
            let place = section.place(written.span()).file_and_line();
            if let Some(other) = taken.insert(name.clone(), place) {
                let message = format!("the name {} is given twice", words::quoted(name));
                let help = "Rename one: a transfer's timeline names the route that made it.";
                self.problem(
                    section,
                    written.span(),
                    Bad::new(message, format!("also at {other}"), help),
                );
            }
        }
        let when = self.when(section, body, known);
        let to = self.to(section, body, known);
        let purposes: Vec<_> =
            Purpose::ALL.iter().map(|purpose| (purpose.as_str(), Some(*purpose))).collect();
        let priorities: Vec<_> =
            Priority::ALL.iter().map(|priority| (priority.as_str(), Some(*priority))).collect();
        let purpose = self.text(section, &body.purpose, |text| {
            words::one_of("a route's purpose", text, &purposes)
        });
        let priority = self.text(section, &body.priority, |text| {
            words::one_of("a route's priority", text, &priorities)
        });
        let protect = body
            .protect
            .as_ref()
            .and_then(|written| self.note(section, written.span(), protection(written.get_ref())));
        if let (Some(Purpose::Research), Some(written)) = (purpose, &body.purpose) {
            let understood_otherwise = body.protect.is_some() && protect.is_none();
            if !understood_otherwise && matches!(protect, None | Some(Protect::AsReceived)) {
                let bad = Bad::new(
                    "research never gets identity",
                    "as received",
                    "Write protect = { pseudonymise = \"…\" } with the name of a [[project]].",
                );
                self.problem(section, written.span(), bad);
            }
        }
        let mut at_intake = false;
        if let Some(written) = &body.protect_at {
            let word = self.text(section, &body.protect_at, |text| {
                words::one_of(
                    "protect-at",
                    text,
                    &[("forwarding", Some(false)), ("intake", Some(true))],
                )
            });
            at_intake = word == Some(true);
            if word.is_some() && matches!(protect, None | Some(Protect::AsReceived)) {
                let help = "Remove it, or write protect = { pseudonymise = \"…\" }.";
                let bad = Bad::new("nothing is protected by this route", "without protect", help);
                self.warning(section, written.span(), bad);
            }
        }
        Some(Route {
            name: name?,
            when,
            to,
            purpose: purpose.unwrap_or_default(),
            priority: priority.unwrap_or_default(),
            at_intake: at_intake
                && matches!(&protect, Some(protect) if *protect != Protect::AsReceived),
            protect: protect.unwrap_or(Protect::AsReceived),
        })
    }

    fn when(
        &mut self,
        section: &Section<'_>,
        body: &RouteSection,
        known: &Known<'_>,
    ) -> Vec<Condition> {
        let help = "Write what it applies to, such as when = { called-ae-title = \"RI_EMERG\" }; without it \
                    everything would leave.";
        let Some(when) = self.required(section, "when", body.when.as_ref(), help) else {
            return Vec::new();
        };
        if when.get_ref().is_empty() {
            self.problem(
                section,
                when.span(),
                Bad::new("a route needs a condition", "empty", help),
            );
        }
        let conditions = when.get_ref().iter();
        conditions.filter_map(|(key, values)| self.condition(section, key, values, known)).collect()
    }

    fn condition(
        &mut self,
        section: &Section<'_>,
        key: &Spanned<String>,
        values: &Spanned<OneOrMore>,
        known: &Known<'_>,
    ) -> Option<Condition> {
        let on = self.note(section, key.span(), fact(key.get_ref()))?;
        let values: Vec<_> =
            each(values).into_iter().map(|(span, text)| (span, text.to_owned())).collect();
        if values.is_empty() {
            let help = "Write what it may be, such as [\"CT\", \"MR\"], or remove the key.";
            let message = format!("{on} can never be one of no values");
            self.problem(section, key.span(), Bad::new(message, "an empty list", help));
        }
        let any_of = values
            .into_iter()
            .filter_map(|(span, text)| self.pattern(section, &on, span, &text, known));
        Some(Condition { any_of: any_of.collect(), on })
    }

    fn pattern(
        &mut self,
        section: &Section<'_>,
        on: &Fact,
        span: Range<usize>,
        text: &str,
        known: &Known<'_>,
    ) -> Option<Pattern> {
        let pattern = match on {
            Fact::Attribute(..) => Pattern::ignoring_case(text.trim()),
            _ => Pattern::exact(text.trim()),
        };
        let result = match on {
            _ if text.trim().is_empty() || text.len() > 256 => {
                let help = "Write 1 to 256 characters; * stands for any characters and ? for one.";
                Err(Bad::new("this matches nothing", "empty or too long", help))
            }
            Fact::CallingAeTitle | Fact::CalledAeTitle if !pattern.has_wildcard() => {
                words::ae_title(text).map(|_| ())
            }
            Fact::Listener => among("listener's address", &pattern, text, &known.listeners),
            Fact::Source => among("source", &pattern, text, &known.sources),
            Fact::Partner => among("partner", &pattern, text, &known.partners),
            Fact::CallingAeTitle | Fact::CalledAeTitle | Fact::Attribute(..) => Ok(()),
        };
        self.note(section, span, result).map(|()| pattern)
    }

    fn to(&mut self, section: &Section<'_>, body: &RouteSection, known: &Known<'_>) -> Vec<String> {
        let help = "Write the names of partners, such as to = [\"royal-infirmary\"].";
        let Some(written) = self.required(section, "to", body.to.as_ref(), help) else {
            return Vec::new();
        };
        if each(written).is_empty() {
            self.problem(
                section,
                written.span(),
                Bad::new("this route leads nowhere", "empty", help),
            );
        }
        let mut to = Vec::new();
        for (span, name) in each(written) {
            let bad = if known.silent.contains(&name) {
                let help = "Add \"receive\" to the partner's may, or remove it here.";
                Bad::new(format!("partner \"{name}\" may not receive"), "not in its may", help)
            } else if to.iter().any(|other| other == name) {
                Bad::new(format!("partner \"{name}\" is named twice"), "again", "Remove one.")
            } else if !known.partners.all || known.partners.names.contains(&name) {
                to.push(name.to_owned());
                continue;
            } else {
                let message = format!("there is no partner {}", words::quoted(name));
                Bad::new(message, "unknown", known.partners.instead_of(name))
            };
            self.problem(section, span, bad);
        }
        to
    }
}

fn text(written: &Text) -> Option<&str> {
    written.as_ref().map(|text| text.get_ref().as_str())
}

fn among(what: &str, pattern: &Pattern, text: &str, names: &Names<'_>) -> Result<(), Bad> {
    if !names.all || names.names.iter().any(|name| pattern.matches(name)) {
        return Ok(());
    }
    Err(Bad::new(
        format!("no {what} is {}", words::quoted(text)),
        "unknown",
        names.instead_of(text),
    ))
}

fn fact(key: &str) -> Result<Fact, Bad> {
    let facts =
        [Fact::Listener, Fact::CallingAeTitle, Fact::CalledAeTitle, Fact::Source, Fact::Partner];
    let attributes =
        attributes::INDEXED.iter().filter_map(|tag| Some(Fact::Attribute(*tag, keyword(*tag)?)));
    let mut known: Vec<_> =
        facts.into_iter().chain(attributes).map(|fact| (fact.to_string(), fact)).collect();
    if let Some(found) = known.iter().position(|(name, _)| name == key) {
        return Ok(known.swap_remove(found).1);
    }
    let near = words::did_you_mean(key, known.iter().map(|(name, _)| name.as_str()));
    let help = format!(
        "{near}A route can look at listener, calling-ae-title, called-ae-title, source, partner, and the indexed \
         attributes by their DICOM keyword, such as modality or body-part-examined."
    );
    Err(Bad::new(format!("a route cannot look at {}", words::quoted(key)), "unknown", help))
}

fn keyword(tag: Tag) -> Option<&'static str> {
    StandardDataDictionary.by_tag(tag).map(DataDictionaryEntry::alias)
}

fn protection(written: &toml::Value) -> Result<Protect, Bad> {
    const HELP: &str = "Write \"as-received\", \"seal\", { pseudonymise = \"…\" } or { anonymise = \"…\" } with the \
                        name of a [[project]].";
    let table = match written {
        toml::Value::String(word) if word == "as-received" => return Ok(Protect::AsReceived),
        toml::Value::String(word) if word == "seal" => return Ok(Protect::Seal),
        toml::Value::Table(table) if table.len() == 1 => table,
        _ => return Err(Bad::new("this protection is unknown", "unknown", HELP)),
    };
    match table.iter().next() {
        Some((key, toml::Value::String(project))) if key == "pseudonymise" => {
            Ok(Protect::Pseudonymise(project.clone()))
        }
        Some((key, toml::Value::String(project))) if key == "anonymise" => {
            Ok(Protect::Anonymise(project.clone()))
        }
        _ => Err(Bad::new("this protection is unknown", "unknown", HELP)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::values;
    use super::*;

    #[test]
    fn every_indexed_attribute_can_be_looked_at() {
        for tag in attributes::INDEXED {
            let keyword = keyword(*tag).unwrap();
            assert_eq!(fact(&values::kebab(keyword)).unwrap(), Fact::Attribute(*tag, keyword));
        }
    }
}
