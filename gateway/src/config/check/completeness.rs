//! `[completeness]`, and what of a `[[source]]` concerns it: whether it is counted against, and what is missing fetched.

use std::time::Duration;

use gantry_store::dicom::AeTitle;
use serde_spanned::Spanned;

use super::super::Completeness;
use super::super::file::{CompletenessSection, SourceSection};
use super::{Bad, Check, Section, Written, words};

impl Check {
    pub(super) fn completeness(&mut self, main: &Written) -> Completeness {
        let (absent, default) = (CompletenessSection::default(), Completeness::default());
        let (section, body) = Section::or_default(main, main.file.completeness.as_ref(), &absent);
        let times = Duration::from_secs(1)..=Duration::from_hours(1);
        Completeness { quiet: self.duration(&section, &body.quiet, default.quiet, &times) }
    }

    /// Whether a source is counted against, and whether what is missing is fetched from it.
    pub(super) fn counted(
        &mut self,
        section: &Section<'_>,
        body: &SourceSection,
        called: &[AeTitle],
        own_title: Option<&AeTitle>,
    ) -> (bool, bool) {
        let words = [("auto", Some(true)), ("never", Some(false))];
        let understand = |text: &str| words::one_of("count of a source", text, &words);
        let counted = self.text(section, &body.count, understand).unwrap_or(true);
        let fetch = body.fetch.as_ref().is_some_and(|fetch| *fetch.get_ref());
        let written = [
            body.count.as_ref().map(Spanned::span),
            body.fetch.as_ref().filter(|_| fetch).map(Spanned::span),
        ];
        if body.address.is_none() {
            if !section.was_rejected("address") {
                for span in written.into_iter().flatten() {
                    let bad = Bad::new(
                        "this source cannot be asked what it has",
                        "it has no address",
                        "Write where it answers queries, such as address = \"pacs.rxx.example:104\"; or remove this.",
                    );
                    self.problem(section, span, bad);
                }
            }
            return (false, false);
        }
        let Some(span) = body.fetch.as_ref().filter(|_| fetch).map(Spanned::span) else {
            return (counted, false);
        };
        if !counted {
            let bad = Bad::new(
                "nothing is fetched where nothing is counted",
                "count is \"never\"",
                "Remove count = \"never\", or write fetch = false.",
            );
            self.problem(section, span, bad);
        } else if let Some(own) = own_title
            && !called.is_empty()
            && !called.contains(own)
        {
            let bad = Bad::new(
                "what is fetched comes to this node's own AE title, which this source may not call",
                format!("called lacks \"{own}\""),
                format!("Add \"{own}\" to called."),
            );
            self.problem(section, span, bad);
        }
        (counted, fetch)
    }
}
