//! When and how fast a partner is sent what is no emergency.

use super::super::pace::{Associations, Hours, Pace};
use super::file::PartnerSection;
use super::{Bad, Check, Section, words};

impl Check {
    pub(super) fn associations(
        &mut self,
        section: &Section<'_>,
        body: &PartnerSection,
    ) -> Associations {
        let Some(written) = &body.associations else { return Associations::default() };
        let understood = match written.get_ref() {
            toml::Value::Integer(count) => words::whole(*count, &(1..=64)).map(Associations::Fixed),
            toml::Value::String(word) if word == "auto" => Ok(Associations::Auto),
            other => Err(Bad::new(
                format!("associations cannot be {}", other.type_str()),
                "neither a number nor \"auto\"",
                "Write how many at once, from 1 to 64, or \"auto\" for as many as the line needs.",
            )),
        };
        self.note(section, written.span(), understood).unwrap_or_default()
    }

    pub(super) fn pace(&mut self, section: &Section<'_>, body: &PartnerSection) -> Pace {
        let rate =
            self.text(section, &body.rate, |text| words::size(text, &(16 << 10..=100 << 30)));
        let off_peak = self.text(section, &body.off_peak, hours);
        let waits = [("always", Some(false)), ("off-peak", Some(true))];
        let waits = |text: &str| words::one_of("routine of a partner", text, &waits);
        let routine_waits = self.text(section, &body.routine, waits).unwrap_or_default();
        match (&body.off_peak, &body.routine) {
            (None, Some(routine)) if routine_waits => self.problem(
                section,
                routine.span(),
                Bad::new(
                    "routine waits for off-peak hours, and there are none",
                    "off-peak is missing",
                    "Write them too, such as off-peak = \"19:00-07:00\".",
                ),
            ),
            (Some(written), _) if !routine_waits && body.rate.is_none() => self.problem(
                section,
                written.span(),
                Bad::new(
                    "off-peak hours change nothing here",
                    "there is no rate that would not hold then, and routine does not wait for them",
                    "Write rate = \"2MiB\" for what may go in other hours, or routine = \"off-peak\"; or remove it.",
                ),
            ),
            _ => {}
        }
        Pace { rate, off_peak, routine_waits }
    }
}

fn hours(text: &str) -> Result<Hours, Bad> {
    text.parse().map_err(|error: super::super::pace::InvalidHours| {
        Bad::new(
            format!("{} are no hours", words::quoted(text)),
            error.to_string(),
            "Write when they begin and end, in the time of this machine, such as \"19:00-07:00\".",
        )
    })
}
