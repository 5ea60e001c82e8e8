//! `[scrub]`: how often all that is kept is read again.

use std::time::Duration;

use super::super::Scrub;
use super::super::file::ScrubSection;
use super::{Check, Section, Written, words};

impl Check {
    pub(super) fn scrub(&mut self, main: &Written) -> Scrub {
        let (absent, default) = (ScrubSection::default(), Scrub::default());
        let (section, body) = Section::or_default(main, main.file.scrub.as_ref(), &absent);
        let times = Duration::from_secs(1)..=Duration::from_hours(365 * 24);
        Scrub {
            every: self
                .text(&section, &body.every, |text| match text {
                    "off" => Ok(None),
                    text => words::duration(text, &times).map(Some),
                })
                .unwrap_or(default.every),
            rate: self.size(&section, &body.rate, default.rate, &(64 << 10..=1 << 40)),
        }
    }
}
