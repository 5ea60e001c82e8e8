//! Looks at what was written, before it may leave: another path through other code than the one that made it.
//!
//! The written bytes go through the scanner again. Every value is searched for what went: names whole, in parts and in other
//! orders, identifiers, dates as people and machines write them, UIDs, in every encoding that a text may have. Each
//! attribute is judged by the profile anew: nothing that it removes is there, no UID is a foreign one, no private attribute is
//! one that nobody knows; what an object must have it has. Pixel data is compared with what was received, byte for byte.
//!
//! It fails closed: one finding sets the object aside. A finding names places and attributes, never the value. What is not
//! looked at is told by [`NOT_CHECKED`].

mod needles;

pub(crate) use needles::{Cache, Field, Needles};

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;
use gantry_store::dicom::TransferSyntax;
use gantry_store::dicom::scanner::{Budget, Event, Scan, ScanError, Scanner, Visitor};

use crate::data_set::{Element, dictionary_vr};
use crate::decide::{Action, Decider};
use crate::engine::value::is_registered;
use crate::engine::{Deidentifier, Done, Made, Position, Step, kept_by_rules, own_methods};
use crate::profile::{Place, Profile, keyword};
use crate::table::{self, Code, ProfileOption, Type};
use crate::values::is_derived_uid;

/// What no verification here looks at, for reports.
pub const NOT_CHECKED: [&str; 7] = [
    "texts among the bytes of pixel data that are shorter than 8 characters or not ASCII",
    "whether pixels show text, where no OCR ran",
    "whether a face can be recognised in a volume of the head",
    "names and identifiers of fewer than 4 letters or digits",
    "names of people that stand in no attribute of the object",
    "spellings of a name that differ by more than order, case and apostrophes",
    "what a combination of kept values (age, sex, dates, rare findings) tells to who knows the patient",
];

/// As much as a text among pixels may lie across two pieces.
const OVERLAP: usize = 256;

/// What is wrong with what was written. It names places, never values.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Finding {
    /// A value that went is there again.
    Residual {
        /// The attribute that had it.
        of: Tag,
        /// The attribute that has it.
        at: Tag,
    },
    /// The profile removes this attribute, and it is there.
    Kept(Tag),
    /// A UID that is neither one of ours nor one that the standard registers.
    ForeignUid(Tag),
    /// An object of this class must have this attribute with a value, and does not.
    Missing(Tag),
    /// A mark of de-identification is missing or says something else.
    Mark(Tag),
    /// The SOP Instance UID is the one that was received.
    SameInstance,
    /// Pixel data is not what was received, where nothing was to be changed.
    Pixels,
    /// So much went that it cannot be searched for.
    Unsearched,
    /// What was written does not pass the scanner.
    Damaged(ScanError),
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Residual { of, at } => {
                write!(f, "what {} held stands in {}", keyword(*of), keyword(*at))
            }
            Self::Kept(tag) => write!(f, "{} is still there", keyword(*tag)),
            Self::ForeignUid(tag) => {
                write!(f, "{} holds a UID that was not replaced", keyword(*tag))
            }
            Self::Missing(tag) => write!(f, "{} is needed and has no value", keyword(*tag)),
            Self::Mark(tag) => write!(f, "{} does not say what was done", keyword(*tag)),
            Self::SameInstance => f.write_str("the SOP Instance UID was not replaced"),
            Self::Pixels => f.write_str("pixel data changed where nothing was to be changed"),
            Self::Unsearched => f.write_str("more was removed than can be searched for"),
            Self::Damaged(error) => write!(f, "what was written is damaged: {error}"),
        }
    }
}

/// Watches what was written while it passes.
pub struct Verifier<'a> {
    scanner: Scanner<Watch<'a>>,
    made: &'a Made,
}

impl<'a> Verifier<'a> {
    /// For one object, written in this transfer syntax.
    pub fn new(deidentifier: &'a Deidentifier, made: &'a Made, syntax: &TransferSyntax) -> Self {
        let profile = deidentifier.profile();
        let watch = Watch {
            profile,
            made,
            decider: Decider::new(profile, &made.sop_class, &made.holding),
            kept: Kept::of(made),
            path: Vec::new(),
            inside: vec![Inside::default()],
            element: None,
            value: Vec::new(),
            pixels: None,
            tail: Vec::new(),
            valued: HashSet::new(),
            findings: Vec::new(),
        };
        Self { scanner: Scanner::with_visitor(syntax, Budget::default(), watch), made }
    }

    /// Takes the next written bytes.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), ScanError> {
        self.scanner.feed(bytes)
    }

    /// The end: what was found, and, if that is nothing, how long what was written is, and where its pixel data are.
    pub fn finish(self) -> Result<Scan, Vec<Finding>> {
        let made = self.made;
        let (scan, watch) =
            self.scanner.finish_visit().map_err(|error| vec![Finding::Damaged(error)])?;
        let mut findings = watch.missing();
        if made.needles.is_cut() {
            findings.push(Finding::Unsearched);
        }
        let kept_uids = watch.profile.options.has(ProfileOption::RetainUids);
        if made.sop_instance.0 == made.sop_instance.1 && !kept_uids {
            findings.push(Finding::SameInstance);
        }
        findings.extend(watch.findings);
        if findings.is_empty() { Ok(scan) } else { Err(findings) }
    }
}

impl fmt::Debug for Verifier<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").finish_non_exhaustive()
    }
}

struct Watch<'a> {
    profile: &'a Profile,
    made: &'a Made,
    decider: Decider<'a>,
    kept: Kept,
    path: Vec<Tag>,
    /// The data sets that are open, outermost first.
    inside: Vec<Inside>,
    element: Option<(Tag, VR)>,
    value: Vec<u8>,
    /// Top-level pixel data while it passes, and whether it is a sequence of fragments.
    pixels: Option<(Tag, bool)>,
    /// The end of the pixel data so far, as a needle may lie across two pieces.
    tail: Vec<u8>,
    /// Top-level attributes that have a value.
    valued: HashSet<Tag>,
    findings: Vec<Finding>,
}

/// What is known of a data set or item while it passes.
#[derive(Clone, Default)]
struct Inside {
    /// Private creators: group, block, text.
    creators: Vec<(u16, u16, String)>,
    character_set: Vec<u8>,
    coding_scheme: String,
}

/// What the log says was kept on purpose, in its place.
struct Kept {
    /// Private attributes.
    private: HashSet<Position>,
    /// Attributes that a rule of the profile keeps as they are.
    by_rule: HashSet<Position>,
}

impl Kept {
    fn of(made: &Made) -> Self {
        let private = made
            .steps
            .iter()
            .filter(|step| step.done != Done::Removed && step.tag.group() % 2 == 1);
        Self {
            private: private.map(|step| (Arc::clone(&step.path), step.tag)).collect(),
            by_rule: kept_by_rules(&made.steps),
        }
    }
}

/// Attributes that tell who the patient is, which no rule lets into another attribute.
fn is_the_patients(tag: Tag) -> bool {
    matches!(tag, Tag(0x0010, _) | tags::ACCESSION_NUMBER)
}

impl Visitor for Watch<'_> {
    fn visit(&mut self, event: Event<'_>) {
        match event {
            Event::Element(header) | Event::Sequence(header) | Event::Fragments(header) => {
                let (tag, top) = (header.tag, header.depth == 0);
                let vr = header.vr.unwrap_or_else(|| dictionary_vr(tag));
                let is_pixels = top && tag.group() == 0x7FE0 && (8..=0x10).contains(&tag.element());
                match event {
                    Event::Element(_) if is_pixels => self.pixels = Some((tag, false)),
                    Event::Element(_) => self.element = Some((tag, vr)),
                    Event::Sequence(_) => {
                        self.judge(tag, VR::SQ, None);
                        self.path.push(tag);
                        if self.path.len() == 1 {
                            self.valued.insert(tag);
                        }
                    }
                    _ if is_pixels => self.pixels = Some((tag, true)),
                    _ => self.findings.push(Finding::Kept(tag)),
                }
                if is_pixels {
                    self.valued.insert(tag);
                }
                self.value.clear();
            }
            Event::Item(_) => {
                let around = self.inside.last().map(|around| around.character_set.clone());
                let character_set = around.unwrap_or_default();
                self.inside.push(Inside { character_set, ..Inside::default() });
            }
            Event::Fragment(_) => {}
            Event::Value(bytes) if self.pixels.is_some() => self.pixel_bytes(bytes),
            Event::Value(bytes) => self.value.extend_from_slice(bytes),
            Event::ValueEnd if self.pixels.is_some() => {
                // Native pixel data ends with its value, encapsulated with its sequence.
                self.pixels = self.pixels.filter(|(_, encapsulated)| *encapsulated);
                self.tail.clear();
            }
            Event::ValueEnd => {
                if let Some((tag, vr)) = self.element.take() {
                    let value = std::mem::take(&mut self.value);
                    self.value(tag, vr, &value);
                    self.value = value;
                }
            }
            Event::ItemEnd(_) => {
                self.inside.pop();
            }
            Event::SequenceEnd(_) => {
                if self.pixels.take().is_none() {
                    self.path.pop();
                }
            }
        }
    }
}

impl Watch<'_> {
    fn pixel_bytes(&mut self, bytes: &[u8]) {
        let Some((at, _)) = self.pixels else { return };
        if !self.tail.is_empty() {
            let mut across = std::mem::take(&mut self.tail);
            across.extend_from_slice(bytes.get(..OVERLAP.min(bytes.len())).unwrap_or_default());
            self.residual_in_pixels(at, &across);
        }
        self.residual_in_pixels(at, bytes);
        let from = bytes.len().saturating_sub(OVERLAP);
        bytes.get(from..).unwrap_or_default().clone_into(&mut self.tail);
    }

    fn residual_in_pixels(&mut self, at: Tag, bytes: &[u8]) {
        if let Some(of) = self.made.needles.first_in_pixels(bytes) {
            self.find(Finding::Residual { of, at });
        }
    }

    fn find(&mut self, finding: Finding) {
        // A hundred attributes tell as much as a million.
        if self.findings.len() < 100 && !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }

    fn value(&mut self, tag: Tag, vr: VR, bytes: &[u8]) {
        if tag.group() % 2 == 1 && (0x10..=0xFF).contains(&tag.element()) {
            let text = String::from_utf8_lossy(bytes).trim_end_matches([' ', '\0']).to_owned();
            if let Some(inside) = self.inside.last_mut() {
                inside.creators.push((tag.group(), tag.element(), text));
            }
        }
        let end =
            bytes.iter().rposition(|byte| !matches!(byte, b' ' | 0)).map_or(0, |last| last + 1);
        let trimmed = bytes.get(..end).unwrap_or_default();
        if self.path.is_empty() && !bytes.is_empty() {
            self.valued.insert(tag);
        }
        self.judge(tag, vr, Some(trimmed));
        match (tag, self.inside.last_mut()) {
            (tags::SPECIFIC_CHARACTER_SET, Some(inside)) => {
                trimmed.clone_into(&mut inside.character_set);
            }
            (tags::CODING_SCHEME_DESIGNATOR, Some(inside)) => {
                String::from_utf8_lossy(trimmed).trim().clone_into(&mut inside.coding_scheme);
            }
            _ => {}
        }
        self.residual(tag, vr, trimmed);
    }

    /// Searches a value for what went.
    fn residual(&mut self, tag: Tag, vr: VR, value: &[u8]) {
        let Some(inside) = self.inside.last() else { return };
        let by_rule = !self.kept.by_rule.is_empty()
            && self.kept.by_rule.contains(&(Arc::from(self.path.as_slice()), tag));
        let field = Field::of(tag, self.representation(tag, vr), &inside.coding_scheme);
        let found = if tag == tags::DEIDENTIFICATION_METHOD {
            // Ours may be called like what went.
            let ours = own_methods(self.profile);
            let earlier = value.split(|byte| *byte == b'\\');
            let earlier =
                earlier.filter(|method| !ours.iter().any(|own| own.as_bytes() == *method));
            let search = |method| self.made.needles.all_in(field, method, &inside.character_set);
            earlier.flat_map(search).collect()
        } else if crate::values::dummy(vr) == Some(value) {
            Vec::new()
        } else {
            self.made.needles.all_in(field, value, &inside.character_set)
        };
        for of in found {
            if !by_rule || is_the_patients(of) {
                self.find(Finding::Residual { of, at: tag });
            }
        }
    }

    /// The VR that counts: PS3.6's, the list's of safe private attributes, or else the writer's.
    fn representation(&self, tag: Tag, vr: VR) -> VR {
        if tag.group().is_multiple_of(2) {
            return Some(dictionary_vr(tag)).filter(|known| *known != VR::UN).unwrap_or(vr);
        }
        let listed = self
            .creator(tag)
            .and_then(|creator| table::safe_private(tag.group(), creator, tag.element() as u8));
        listed.flatten().unwrap_or(vr)
    }

    /// The creator of the private block that an attribute is in.
    fn creator(&self, tag: Tag) -> Option<&str> {
        let creators = &self.inside.last()?.creators;
        let block = tag.element() >> 8;
        let found =
            creators.iter().find(|(group, number, _)| *group == tag.group() && *number == block);
        found.map(|(_, _, text)| text.as_str())
    }

    /// Whether the profile lets this be there.
    fn judge(&mut self, tag: Tag, vr: VR, value: Option<&[u8]>) {
        if tag.group() % 2 == 1 {
            return self.judge_private(tag);
        }
        let known = dictionary_vr(tag);
        let vr = if known == VR::UN { vr } else { known };
        let place = Place { path: &self.path, tag, vr, creator: None };
        let by_a_rule = self.decider.rule(place).is_some();
        // Put there after the old one went, if somebody may open it.
        let sealed = tag == tags::ENCRYPTED_ATTRIBUTES_SEQUENCE && self.path.is_empty();
        let decision = self.decider.decide(place);
        match decision.action {
            // What a rule of the profile did is in the log.
            _ if by_a_rule => {}
            _ if sealed && self.made.data_set.get(tag).is_some() => {}
            Action::Code(Code::X) if !self.in_content() => self.find(Finding::Kept(tag)),
            Action::Code(Code::U) if vr == VR::UI => {
                let text = String::from_utf8_lossy(value.unwrap_or_default()).into_owned();
                let ours = |uid: &str| uid.is_empty() || is_derived_uid(uid) || is_registered(uid);
                if !text.split('\\').all(ours) {
                    self.find(Finding::ForeignUid(tag));
                }
            }
            _ => {}
        }
    }

    /// Whether this is inside content items, whose values are the business of their concepts.
    fn in_content(&self) -> bool {
        self.path.iter().any(|tag| {
            matches!(
                *tag,
                tags::CONTENT_SEQUENCE
                    | tags::ACQUISITION_CONTEXT_SEQUENCE
                    | tags::WAVEFORM_ANNOTATION_SEQUENCE
            )
        })
    }

    fn judge_private(&mut self, tag: Tag) {
        let is_creator = (0x10..=0xFF).contains(&tag.element());
        let place = (Arc::from(self.path.as_slice()), tag);
        let kept_on_purpose = self.kept.private.contains(&place);
        let on = self.profile.options.has(ProfileOption::RetainSafePrivate)
            || kept_on_purpose
            || is_creator && !self.kept.private.is_empty();
        let known = self.creator(tag).is_some_and(|creator| {
            let low = tag.element() as u8;
            table::safe_private(tag.group(), creator, low).is_some()
                || self.profile.private.safe.contains(&(tag.group(), creator.to_owned(), low))
        });
        if !on || !is_creator && !known && !kept_on_purpose {
            self.find(Finding::Kept(tag));
        }
    }

    /// What an object of its class must have and does not have any more.
    fn missing(&self) -> Vec<Finding> {
        let had = self
            .made
            .steps
            .iter()
            .filter(|step| step.path.is_empty() && step.decision.needed == Some(Type::One));
        // One that came without a value and was left as it came is its sender's.
        let came_empty = |step: &Step| {
            let made = || self.made.data_set.get(step.tag).and_then(Element::bytes);
            step.done == Done::Kept && made().is_some_and(<[u8]>::is_empty)
        };
        let gone = had.filter(|step| !self.valued.contains(&step.tag) && !came_empty(step));
        let marks = [
            tags::PATIENT_IDENTITY_REMOVED,
            tags::DEIDENTIFICATION_METHOD,
            tags::DEIDENTIFICATION_METHOD_CODE_SEQUENCE,
            tags::LONGITUDINAL_TEMPORAL_INFORMATION_MODIFIED,
        ];
        let unmarked = marks.into_iter().filter(|tag| !self.valued.contains(tag));
        gone.filter(|step| !crate::decide::is_overlay(step.tag))
            .map(|step| Finding::Missing(step.tag))
            .chain(unmarked.map(Finding::Mark))
            .collect()
    }
}
