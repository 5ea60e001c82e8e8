//! `[[retention]]`: how long images are kept.

use std::collections::BTreeSet;
use std::time::Duration;

use gantry_store::facts::Purpose;
use serde_spanned::Spanned;

use super::super::file::RetentionSection;
use super::super::{After, Retention};
use super::{Bad, Check, Section, Written, words};

/// A hundred years, which is longer than anybody must keep anything.
const LONGEST: Duration = Duration::from_hours(36_500 * 24);

impl Check {
    pub(super) fn retention(&mut self, files: &[&Written]) -> Vec<Retention> {
        let partners: BTreeSet<String> = files
            .iter()
            .flat_map(|file| &file.file.partner)
            .filter_map(|partner| partner.get_ref().name.as_ref())
            .map(|name| name.get_ref().clone())
            .collect();
        let mut rules: Vec<Retention> = Vec::new();
        let sections = files
            .iter()
            .flat_map(|file| file.file.retention.iter().map(|body| Section::of(file, body)));
        for (section, body) in sections {
            let Some(rule) = self.retention_rule(&section, body, &partners) else { continue };
            if rules.iter().any(|other| other.name == rule.name) {
                let message = format!("the name {} is given twice", words::quoted(&rule.name));
                let help = "Rename one: what is removed is recorded under the rule's name.";
                self.problem(&section, section.span.clone(), Bad::new(message, "twice", help));
            }
            rules.push(rule);
        }
        rules
    }

    fn retention_rule(
        &mut self,
        section: &Section<'_>,
        body: &RetentionSection,
        partners: &BTreeSet<String>,
    ) -> Option<Retention> {
        let help =
            "Write what people read where images are gone, such as name = \"after 90 days\".";
        self.required(section, "name", body.name.as_ref(), help);
        let name = self.text(section, &body.name, words::line);
        let help = "Write how long images are kept, such as keep = \"90d\".";
        self.required(section, "keep", body.keep.as_ref(), help);
        let range = Duration::from_secs(1)..=LONGEST;
        let keep = self.text(section, &body.keep, |text| words::duration(text, &range));
        let at_least = self.text(section, &body.at_least, |text| {
            let least = words::duration(text, &range)?;
            match keep {
                Some(keep) if least > keep => Err(Bad::new(
                    "at-least is longer than keep",
                    "longer",
                    "Write a shorter time: it is what counts instead of keep while the object store is too full.",
                )),
                _ => Ok(least),
            }
        });
        let purposes: Vec<_> =
            Purpose::ALL.iter().map(|purpose| (purpose.as_str(), Some(*purpose))).collect();
        let purposes = self.texts(section, &body.purpose, |text| {
            words::one_of("a retention rule's purpose", text, &purposes)
        });
        // A partner that is not configured any more may still have old transfers, but a slip would keep nothing.
        let named = self.texts(section, &body.partner, |text| {
            if partners.contains(text) {
                return Ok(text.to_owned());
            }
            let near = words::did_you_mean(text, partners.iter().map(String::as_str));
            let message = format!("there is no partner {}", words::quoted(text));
            let help = format!("{near}Write the name of a [[partner]].");
            Err(Bad::new(message, "unknown", help))
        });
        let words = [("confirmed", Some(After::Confirmed)), ("sent", Some(After::Sent))];
        let after = self.text(section, &body.after, |text| words::one_of("after", text, &words));
        let unrouted = body.unrouted.as_ref().is_some_and(|written| *written.get_ref());
        let about_transfers = [
            body.purpose.as_ref().map(Spanned::span),
            body.partner.as_ref().map(Spanned::span),
            body.after.as_ref().map(Spanned::span),
        ];
        if unrouted {
            for span in about_transfers.into_iter().flatten() {
                let help =
                    "Remove it, or unrouted = true: what no route sent anywhere has no transfer.";
                let message = "a rule for what is unrouted cannot ask about transfers";
                self.problem(section, span, Bad::new(message, "beside unrouted = true", help));
            }
        }
        Some(Retention {
            name: name?,
            purposes: purposes.into_iter().map(|(_, purpose)| purpose).collect(),
            partners: named.into_iter().map(|(_, partner)| partner).collect(),
            unrouted,
            keep: keep?,
            at_least,
            after: after.unwrap_or_default(),
        })
    }
}
