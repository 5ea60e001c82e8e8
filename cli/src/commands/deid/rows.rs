//! What became of each attribute of one object, as rows: for `explain`, and for comparing two profiles.

use std::collections::HashMap;

use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;
use gantry_deidentify::data_set::{DataSet, Element, Value, is_text};
use gantry_deidentify::decide::{Action, Decision, Origin};
use gantry_deidentify::engine::{Done, Made, Step};
use gantry_deidentify::profile::{Profile, RuleAction, keyword};
use gantry_deidentify::report::origin_name;
use gantry_deidentify::table::Type;
use gantry_store::dicom::text as character_sets;
use serde::Serialize;

use crate::words;

/// As much of a value as is shown.
const SHOWN: usize = 64;

/// Where an attribute is: the sequences around it, outermost first, and itself.
type Place = (Vec<Tag>, Tag);

/// What became of an attribute, or of several in the same place of which the same became.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    /// Keywords, outermost first.
    pub(super) path: String,
    pub(super) tag: String,
    pub(super) vr: String,
    pub(super) decided_by: String,
    pub(super) code: &'static str,
    /// What the code came to, and why.
    pub(super) why: String,
    pub(super) action: &'static str,
    pub(super) times: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) before: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) after: Option<String>,
    /// Whether it is words that stayed, which is what a reviewer reads.
    pub(super) kept_text: bool,
    #[serde(skip)]
    pub(super) origin: Origin,
    #[serde(skip)]
    pub(super) done: Done,
}

/// Rows in the order of the data set. Values are in them only where `original` is given.
pub(super) fn rows(made: &Made, profile: &Profile, original: Option<&DataSet>) -> Vec<Row> {
    let mut steps: Vec<(Vec<Tag>, &Step)> = made
        .steps
        .iter()
        .map(|step| (step.path.iter().copied().chain([step.tag]).collect(), step))
        .collect();
    // A step on a sequence comes after those on its items; in the data set it comes before them.
    steps.sort_by(|one, other| one.0.cmp(&other.0));
    let mut values = original.map(|original| Values::of(original, made));
    let mut rows: Vec<Row> = Vec::new();
    for (whole, step) in steps {
        let (before, after) = match &mut values {
            Some(values) => values.next(step),
            None => (None, None),
        };
        let names: Vec<_> = whole.iter().map(|tag| keyword(*tag)).collect();
        let row = Row {
            path: names.join("/"),
            tag: step.tag.to_string(),
            vr: step.vr.to_string().to_owned(),
            decided_by: origin_name(step.decision.origin, profile),
            code: step.decision.code.as_str(),
            why: why(&step.decision, step.done),
            action: step.done.as_str(),
            times: 1,
            before,
            after,
            kept_text: is_words(step.vr) && matches!(step.done, Done::Kept | Done::Cleaned),
            origin: step.decision.origin,
            done: step.done,
        };
        match rows.last_mut() {
            Some(last) if same(last, &row) => last.times += 1,
            _ => rows.push(row),
        }
    }
    rows
}

fn same(one: &Row, other: &Row) -> bool {
    let key = |row: &Row| (row.path.clone(), row.vr.clone(), row.why.clone(), row.origin, row.done);
    let values = |row: &Row| (row.before.clone(), row.after.clone());
    key(one) == key(other) && values(one) == values(other)
}

/// VRs of free text (PS3.5 6.2).
pub(super) fn is_words(vr: VR) -> bool {
    matches!(vr, VR::LO | VR::LT | VR::PN | VR::SH | VR::ST | VR::UC | VR::UR | VR::UT)
}

/// `X/Z/D, Type 3 here → X, removed`.
fn why(decision: &Decision, done: Done) -> String {
    let code = decision.code.as_str();
    match &decision.action {
        Action::Rule(action) => format!("{} → {}", rule(action), done.as_str()),
        Action::Code(resolved) if *resolved == decision.code => {
            format!("{code} → {}", done.as_str())
        }
        Action::Code(resolved) => {
            let needed = match decision.needed {
                Some(Type::One) => "Type 1 here",
                Some(Type::Two) => "Type 2 here",
                Some(Type::Three) => "Type 3 here",
                None => "Type not known here",
            };
            format!("{code}, {needed} → {}, {}", resolved.as_str(), done.as_str())
        }
    }
}

fn rule(action: &RuleAction) -> &'static str {
    match action {
        RuleAction::Code(code) => code.as_str(),
        RuleAction::Pseudonym => "pseudonym",
        RuleAction::Shift => "shift",
        RuleAction::Year => "year",
        RuleAction::AgeCap => "age_cap",
        RuleAction::Hash => "hash",
        RuleAction::Set(_) => "set",
        RuleAction::Replace(_) => "replace",
        RuleAction::Reject => "reject",
    }
}

/// Values by place: the n-th step of a place is on the n-th value there, as both come in the order of the data set.
struct Values {
    before: HashMap<Place, Vec<String>>,
    after: HashMap<Place, Vec<String>>,
    /// How many steps there are at a place, and how many left something.
    steps: HashMap<Place, (usize, usize)>,
    /// How many of them were asked for.
    asked: HashMap<Place, (usize, usize)>,
}

impl Values {
    fn of(original: &DataSet, made: &Made) -> Self {
        let mut values = Self {
            before: HashMap::new(),
            after: HashMap::new(),
            steps: HashMap::new(),
            asked: HashMap::new(),
        };
        collect(original, &mut Vec::new(), &[], &mut values.before);
        collect(&made.data_set, &mut Vec::new(), &[], &mut values.after);
        for step in &made.steps {
            let place = (step.path.to_vec(), step.tag);
            let counts = values.steps.entry(place).or_default();
            counts.0 += 1;
            counts.1 += usize::from(step.done != Done::Removed);
        }
        values
    }

    fn next(&mut self, step: &Step) -> (Option<String>, Option<String>) {
        let place = (step.path.to_vec(), step.tag);
        let counts = self.steps.get(&place).copied().unwrap_or_default();
        let asked = self.asked.entry(place.clone()).or_default();
        let nth = |values: &HashMap<Place, Vec<String>>, count, at| match values.get(&place) {
            // Where an item went as a whole nobody can tell which value is which.
            Some(values) if values.len() == count => values.get(at).cloned(),
            Some(_) => Some("(one of several)".to_owned()),
            None => None,
        };
        let before = nth(&self.before, counts.0, asked.0);
        asked.0 += 1;
        if step.done == Done::Removed {
            return (before, None);
        }
        let after = nth(&self.after, counts.1, asked.1);
        asked.1 += 1;
        (before, after)
    }
}

fn collect(
    data_set: &DataSet,
    path: &mut Vec<Tag>,
    outer: &[u8],
    values: &mut HashMap<Place, Vec<String>>,
) {
    let set = data_set.bytes(tags::SPECIFIC_CHARACTER_SET).unwrap_or(outer);
    for element in &data_set.elements {
        values.entry((path.clone(), element.tag)).or_default().push(shown(element, set));
        if let Value::Items(items) = &element.value {
            path.push(element.tag);
            for item in items {
                collect(item, path, set, values);
            }
            path.pop();
        }
    }
}

/// A value for a terminal: what controls one is not in it.
fn shown(element: &Element, set: &[u8]) -> String {
    match &element.value {
        Value::Items(items) => words::count(items.len() as u64, "item", "items"),
        Value::Fragments(fragments) => {
            words::count(fragments.len() as u64, "fragment", "fragments")
        }
        Value::Bytes(bytes) if is_text(element.vr) => {
            let text = character_sets::decode(set, element.bytes().unwrap_or_default());
            let safe = |c: char| if c.is_control() || is_direction(c) { '\u{FFFD}' } else { c };
            let mut shown: String = text.chars().map(safe).take(SHOWN).collect();
            if text.chars().nth(SHOWN).is_some() {
                shown.push('…');
            }
            shown
        }
        Value::Bytes(bytes) => match (element.vr, bytes.as_slice()) {
            (VR::US, &[a, b]) => u16::from_le_bytes([a, b]).to_string(),
            (VR::SS, &[a, b]) => i16::from_le_bytes([a, b]).to_string(),
            (VR::UL, &[a, b, c, d]) => u32::from_le_bytes([a, b, c, d]).to_string(),
            (_, bytes) => words::count(bytes.len() as u64, "byte", "bytes"),
        },
    }
}

/// Characters that turn the direction of what follows.
fn is_direction(c: char) -> bool {
    matches!(c, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// Values of a result by place, for comparing two.
pub(super) fn outcome(made: &Made) -> HashMap<Place, Vec<Vec<u8>>> {
    fn walk(data_set: &DataSet, path: &mut Vec<Tag>, found: &mut HashMap<Place, Vec<Vec<u8>>>) {
        for element in &data_set.elements {
            let into = found.entry((path.clone(), element.tag)).or_default();
            match &element.value {
                Value::Bytes(bytes) => into.push(bytes.clone()),
                Value::Fragments(fragments) => into.push(fragments.concat()),
                Value::Items(items) => {
                    into.push(items.len().to_le_bytes().to_vec());
                    path.push(element.tag);
                    for item in items {
                        walk(item, path, found);
                    }
                    path.pop();
                }
            }
        }
    }
    let mut found = HashMap::new();
    walk(&made.data_set, &mut Vec::new(), &mut found);
    found
}

#[cfg(test)]
mod tests {
    use gantry_deidentify::engine::{Deidentifier, Linkage, make};
    use gantry_deidentify::keys::ProjectKey;
    use gantry_deidentify::profile::shipped;

    use super::*;

    #[test]
    fn every_step_is_in_a_row_and_values_only_where_they_were_asked_for() {
        for study in sample_studies::all_valid(3) {
            let instance = &study.instances[0];
            let profile = shipped("direct-care-minimal").unwrap();
            let key = ProjectKey::from_bytes([5; 32]);
            let deidentifier = Deidentifier::new(profile.clone(), key, Linkage::Project);
            let syntax = instance.transfer_syntax_uid.parse().unwrap();
            let parsed = gantry_deidentify::data_set::read(&syntax, &instance.data_set).unwrap();
            let Ok(made) = make(&deidentifier, &syntax, &instance.data_set) else { continue };

            let hidden = rows(&made, &profile, None);
            let open = rows(&made, &profile, Some(&parsed.data_set));

            for rows in [&hidden, &open] {
                let times: u64 = rows.iter().map(|row| row.times).sum();
                assert_eq!(times, made.steps.len() as u64);
            }
            assert!(hidden.iter().all(|row| row.before.is_none() && row.after.is_none()));
            let name = open.iter().find(|row| row.path == "PatientName").unwrap();
            let text = character_sets::decode(
                parsed.data_set.bytes(tags::SPECIFIC_CHARACTER_SET).unwrap_or_default(),
                parsed.data_set.bytes(tags::PATIENT_NAME).unwrap(),
            );
            assert_eq!(name.before.as_deref(), Some(text.as_str()));
            assert_eq!(name.after.as_deref(), Some(made.pseudonym.as_str()));
        }
    }

    #[test]
    fn what_controls_a_terminal_is_not_shown() {
        let element = Element::new(tags::PROTOCOL_NAME, VR::LO, "a\x1b[31mb\u{202E}");
        assert!(!shown(&element, b"ISO_IR 192").contains(['\x1b', '\u{202E}']));
        let long = Element::new(tags::PROTOCOL_NAME, VR::LO, "x".repeat(65));
        assert_eq!(shown(&long, b"").chars().count(), SHOWN + 1);
    }
}
