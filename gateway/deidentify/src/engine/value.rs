//! What the actions do to one value.

use std::borrow::Cow;

use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;
use gantry_store::dicom::text as character_sets;

use super::private::items_of;
use super::{Done, Pass, SetAside};
use crate::data_set::{self, DataSet, Element, Value, dictionary_vr};
use crate::decide::{Decision, Origin};
use crate::profile::{BirthDate, ClassPolicy, RuleAction};
use crate::table::{Code, ProfileOption, Type, resolve};
use crate::text;
use crate::values::{cap_age, dummy, parse_date, shift_date, shift_date_time};

/// An attribute as it is after an action, if it still is, and what was done.
type Acted = (Option<Element>, Done);

/// Gives the elements of the standard the VR that PS3.6 gives their attributes, at every depth, so that what is decided
/// does not depend on what their writer claimed. Where the dictionary has a choice the claim stands.
pub(super) fn in_their_representation(data_set: &mut DataSet) {
    for element in &mut data_set.elements {
        let known = dictionary_vr(element.tag);
        if element.tag.group().is_multiple_of(2) && known != VR::UN {
            in_its_representation(element, known);
        }
        // What was bytes and is a sequence now came through the scanner whole: its depth is bounded, too.
        if let Value::Items(items) = &mut element.value {
            items.iter_mut().for_each(in_their_representation);
        }
    }
}

fn in_its_representation(element: &mut Element, known: VR) {
    let binary = |vr| {
        matches!(vr, VR::OB | VR::OW | VR::US | VR::SS | VR::UN | VR::OL | VR::UL | VR::SL | VR::OV)
    };
    if element.vr == known || matches!(element.value, Value::Fragments(_)) {
        return;
    }
    match (&element.value, known) {
        (Value::Items(_), VR::SQ) => element.vr = VR::SQ,
        (Value::Bytes(_), VR::SQ) => {
            if let Some(items) = items_of(element) {
                *element = Element::sequence(element.tag, items);
            }
        }
        // A choice of VRs is the writer's: US or SS, OB or OW.
        (Value::Bytes(_), _) if binary(known) && binary(element.vr) && element.vr != VR::UN => {}
        (Value::Bytes(_), _) => element.vr = known,
        (Value::Items(_) | Value::Fragments(_), _) => {}
    }
}

/// An empty element of the right kind in the place of one whose value is of the wrong one: items where PS3.6 has a value,
/// or bytes that are no items where it has a sequence. `None`: it is of the right kind.
pub(super) fn without_what_is_unreadable(element: &Element) -> Option<Element> {
    let (tag, known) = (element.tag, dictionary_vr(element.tag));
    match (&element.value, known) {
        (_, VR::UN) => None,
        (Value::Bytes(_), VR::SQ) => Some(Element::sequence(tag, Vec::new())),
        (Value::Items(_), vr) if vr != VR::SQ => Some(Element::new(tag, vr, [])),
        _ => None,
    }
}

/// Whether a value is one of its VR (PS3.5 6.2), so that nothing hides in a field that nobody reads as text.
pub(crate) fn is_valid(vr: VR, bytes: &[u8]) -> bool {
    let each = |valid: &dyn Fn(&str) -> bool| {
        std::str::from_utf8(bytes)
            .is_ok_and(|text| text.split('\\').all(|value| valid(value.trim_matches([' ', '\0']))))
    };
    let known_or_none = |word: &str| word.is_empty() || text::is_known_word(word);
    match vr {
        VR::DS => each(&|value| {
            value.is_empty() || value.parse::<f64>().is_ok_and(f64::is_finite) && value.len() <= 32
        }),
        // Some devices write 12.0, which tells as little.
        VR::IS => each(&|value| {
            value.is_empty() || value.len() <= 16 && value.parse::<f64>().is_ok_and(f64::is_finite)
        }),
        VR::CS => each(&|value| {
            let allowed = |byte: u8| {
                byte.is_ascii_uppercase() || byte.is_ascii_digit() || matches!(byte, b' ' | b'_')
            };
            let words = || value.split([' ', '_', '-', '/', ',']).all(known_or_none);
            value.len() <= 16 && value.bytes().all(allowed) || words()
        }),
        VR::UI => each(&|value| {
            value.len() <= 64 && value.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
        }),
        VR::DA => each(&|value| {
            let digits: String = value.split('.').collect();
            value.is_empty() || parse_date(&digits).is_some()
        }),
        VR::TM => each(&|value| {
            value.len() <= 16
                && value.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b':'))
        }),
        VR::DT => each(&|value| {
            value.is_empty() || value.len() <= 26 && shift_date_time(value, 0).is_some()
        }),
        VR::AS => each(&|value| value.is_empty() || cap_age(value, 999).is_some()),
        VR::US | VR::SS => bytes.len().is_multiple_of(2),
        VR::UL | VR::SL | VR::FL | VR::AT => bytes.len().is_multiple_of(4),
        VR::FD | VR::SV | VR::UV => bytes.len().is_multiple_of(8),
        _ => true,
    }
}

impl Pass<'_> {
    /// K: the value stays, if it is one.
    pub(super) fn keep(
        &mut self,
        element: Element,
        decision: &Decision,
        set: &[u8],
    ) -> Result<Acted, SetAside> {
        let (tag, vr) = (element.tag, element.vr);
        match element.value {
            Value::Items(items) if tag == tags::CONTENT_SEQUENCE => {
                let items = self.content(tag, items, set)?;
                Ok((Some(Element::sequence(tag, items)), Done::Cleaned))
            }
            Value::Items(items) => {
                let items = self.items(tag, items, set)?;
                Ok((Some(Element::sequence(tag, items)), Done::Kept))
            }
            // Pixel data inside a sequence: an icon that Table E.1-1 does not know.
            Value::Fragments(_) => Ok((None, Done::Removed)),
            Value::Bytes(_) if tag.group() == 0x7FE0 => Ok((None, Done::Removed)),
            Value::Bytes(_) if dictionary_vr(tag) == VR::SQ => {
                // Its items cannot be read, so nobody knows what is in them.
                self.lose(&element, set);
                Ok((None, Done::Removed))
            }
            Value::Bytes(ref bytes) => {
                let value = element.bytes().unwrap_or_default();
                if vr == VR::AS
                    && let Some(capped) =
                        cap_age(&String::from_utf8_lossy(value), self.profile.dates.age_cap)
                {
                    let changed = capped.as_bytes() != value;
                    if changed {
                        self.lose(&element, set);
                    }
                    let done = if changed { Done::Cleaned } else { Done::Kept };
                    return Ok((Some(Element::new(tag, vr, capped)), done));
                }
                // Numbers may end in a byte 20H or 00H of their own.
                let whole = if data_set::is_text(vr) { value } else { bytes.as_slice() };
                if is_valid(vr, whole)
                    || tag == tags::SPECIFIC_CHARACTER_SET && names_character_sets(whole)
                {
                    return Ok((Some(element), Done::Kept));
                }
                if crate::table::row(tag).is_some() {
                    return self.as_basic(element, decision, set);
                }
                self.invalid(&element, decision, set)
            }
        }
    }

    /// A value that is none of its VR cannot be judged. What the image needs stops the object; all else is emptied.
    fn invalid(
        &mut self,
        element: &Element,
        decision: &Decision,
        set: &[u8],
    ) -> Result<Acted, SetAside> {
        self.lose(element, set);
        if element.tag.group() == 0x0028 || decision.needed == Some(Type::One) {
            return Err(SetAside::Invalid(element.tag));
        }
        Ok((Some(Element::new(element.tag, element.vr, [])), Done::Emptied))
    }

    /// U: every UID of the value is replaced.
    pub(super) fn new_uids(&mut self, element: Element, set: &[u8]) -> Result<Acted, SetAside> {
        let (tag, vr) = (element.tag, element.vr);
        match element.value {
            Value::Items(items) => {
                let items = self.items(tag, items, set)?;
                Ok((Some(Element::sequence(tag, items)), Done::Kept))
            }
            Value::Bytes(_) => {
                let value = element.bytes().unwrap_or_default();
                let text = String::from_utf8_lossy(value).into_owned();
                let uids: Vec<Cow<'_, str>> = text
                    .split('\\')
                    .map(|uid| self.uid(tag, uid.trim_matches([' ', '\0'])))
                    .collect();
                let replaced = uids.join("\\");
                if replaced == text {
                    return Ok((Some(element), Done::Kept));
                }
                self.lose(&element, set);
                Ok((Some(Element::new(tag, vr, replaced)), Done::Uid))
            }
            Value::Fragments(_) => Ok((None, Done::Removed)),
        }
    }

    fn uid<'b>(&self, tag: Tag, uid: &'b str) -> Cow<'b, str> {
        let own = matches!(
            tag,
            tags::SOP_INSTANCE_UID | tags::STUDY_INSTANCE_UID | tags::SERIES_INSTANCE_UID
        );
        // What the standard itself registers is the same for everybody.
        if uid.is_empty() || !own && is_registered(uid) {
            return Cow::Borrowed(uid);
        }
        Cow::Owned(self.values.uid(uid))
    }

    /// Z: no value, or the pseudonym where objects are joined by it.
    pub(super) fn empty(&mut self, element: &Element, set: &[u8]) -> Acted {
        self.lose(element, set);
        let (tag, vr) = (element.tag, element.vr);
        if let Value::Items(_) = element.value {
            return (Some(Element::sequence(tag, Vec::new())), Done::Emptied);
        }
        match self.in_place_of(element) {
            Some(value) => (Some(Element::new(tag, vr, value)), Done::Pseudonym),
            None if tag == tags::PATIENT_BIRTH_DATE => self.birth_date(element),
            None => (Some(Element::new(tag, vr, [])), Done::Emptied),
        }
    }

    /// What takes the place of a name or label that objects are joined by.
    fn in_place_of(&self, element: &Element) -> Option<String> {
        let value = element.bytes().unwrap_or_default();
        match element.tag {
            // At the top level, and in the items that repeat it.
            tags::PATIENT_ID if self.path.is_empty() || value == self.patient_id => {
                Some(self.pseudonym.clone())
            }
            tags::PATIENT_NAME if self.path.is_empty() => Some(self.pseudonym.clone()),
            tags::ACCESSION_NUMBER | tags::STUDY_ID if !value.is_empty() => {
                Some(self.values.label(&element.tag.to_string(), &String::from_utf8_lossy(value)))
            }
            _ => None,
        }
    }

    fn birth_date(&self, element: &Element) -> Acted {
        let text = String::from_utf8_lossy(element.bytes().unwrap_or_default()).into_owned();
        let born = parse_date(&text).map(jiff::civil::Date::year);
        // Where dates move it moves too: a true year beside an age and a moved date would tell by how much.
        let moves = self.profile.options.has(ProfileOption::RetainLongModifiedDates);
        let written = if moves { shift_date(&text, self.shift) } else { Some(text) };
        // Who was older than the cap at the study gets no year: it would tell what the cap hides.
        let cap = i16::try_from(self.profile.dates.age_cap).unwrap_or(i16::MAX);
        let shown =
            born.zip(self.study_year).filter(|(born, study)| study.saturating_sub(*born) <= cap);
        match (
            self.profile.dates.birth_date,
            shown.and(written).as_deref().and_then(|at| at.get(..4)),
        ) {
            (BirthDate::Year, Some(year)) => {
                (Some(Element::new(element.tag, element.vr, format!("{year}0101"))), Done::Cleaned)
            }
            _ => (Some(Element::new(element.tag, element.vr, [])), Done::Emptied),
        }
    }

    /// D: a value that fits and tells nothing.
    pub(super) fn dummy(&mut self, element: Element, set: &[u8]) -> Result<Acted, SetAside> {
        let (tag, vr) = (element.tag, element.vr);
        match element.value {
            Value::Items(items)
                if tag == tags::CONTENT_SEQUENCE && self.policy != ClassPolicy::Dummy =>
            {
                let items = self.content(tag, items, set)?;
                return Ok((Some(Element::sequence(tag, items)), Done::Cleaned));
            }
            Value::Items(_) if tag == tags::CONTENT_SEQUENCE => {
                self.lose(&element, set);
                let items = vec![super::structured::removed_item()];
                return Ok((Some(Element::sequence(tag, items)), Done::Dummy));
            }
            Value::Items(items) => {
                let items = self.items(tag, items, set)?;
                return Ok((Some(Element::sequence(tag, items)), Done::Kept));
            }
            Value::Fragments(_) => return Ok((None, Done::Removed)),
            Value::Bytes(_) => {}
        }
        if vr == VR::UI {
            return self.new_uids(element, set);
        }
        self.lose(&element, set);
        if let Some(value) = self.in_place_of(&element) {
            return Ok((Some(Element::new(tag, vr, value)), Done::Pseudonym));
        }
        let value = match tag {
            // Its offset from UTC, which is of VR SH.
            tags::TIMEZONE_OFFSET_FROM_UTC => b"+0000",
            tags::ENCAPSULATED_DOCUMENT => super::structured::EMPTY_PDF,
            _ => dummy(vr).unwrap_or_default(),
        };
        Ok((Some(Element::new(tag, vr, value)), Done::Dummy))
    }

    /// What the Basic Profile does, for what cannot be cleaned.
    fn as_basic(
        &mut self,
        element: Element,
        decision: &Decision,
        set: &[u8],
    ) -> Result<Acted, SetAside> {
        let code = crate::table::row(element.tag).map_or(Code::XZD, |row| row.actions.basic);
        match resolve(code, decision.needed) {
            Code::D => self.dummy(element, set),
            Code::Z => Ok(self.empty(&element, set)),
            Code::U => self.new_uids(element, set),
            _ => {
                self.lose(&element, set);
                Ok((None, Done::Removed))
            }
        }
    }

    /// C: what might tell who somebody is goes out of the value.
    pub(super) fn clean(
        &mut self,
        element: Element,
        decision: &Decision,
        set: &[u8],
    ) -> Result<Acted, SetAside> {
        let (tag, vr) = (element.tag, element.vr);
        let by_dates = self.profile.options.has(ProfileOption::RetainLongModifiedDates);
        match (element.value, vr) {
            (Value::Items(items), _) => {
                let content = matches!(
                    tag,
                    tags::CONTENT_SEQUENCE
                        | tags::ACQUISITION_CONTEXT_SEQUENCE
                        | tags::WAVEFORM_ANNOTATION_SEQUENCE
                );
                let items = if content {
                    self.content(tag, items, set)?
                } else {
                    self.items(tag, items, set)?
                };
                Ok((Some(Element::sequence(tag, items)), Done::Cleaned))
            }
            (Value::Bytes(bytes), VR::DA | VR::DT | VR::TM) if by_dates => {
                let element = Element { tag, vr, value: Value::Bytes(bytes) };
                match self.moved(&element) {
                    Some(value) => {
                        let unmoved = value.as_bytes() == element.bytes().unwrap_or_default();
                        if !unmoved {
                            self.lose(&element, set);
                        }
                        let done = if unmoved { Done::Kept } else { Done::Moved };
                        Ok((Some(Element::new(tag, vr, value)), done))
                    }
                    None => self.as_basic(element, decision, set),
                }
            }
            (Value::Bytes(bytes), VR::AE) => {
                let element = Element { tag, vr, value: Value::Bytes(bytes) };
                self.lose(&element, set);
                let text =
                    String::from_utf8_lossy(element.bytes().unwrap_or_default()).into_owned();
                let titles: Vec<_> = text
                    .split('\\')
                    .map(|title| {
                        if title.trim().is_empty() {
                            String::new()
                        } else {
                            self.values.label("AE", title.trim())
                        }
                    })
                    .collect();
                Ok((Some(Element::new(tag, vr, titles.join("\\"))), Done::Pseudonym))
            }
            // An offset from UTC is no words, and tells where the patient was: it goes, unless full dates stay.
            (Value::Bytes(bytes), _) if tag == tags::TIMEZONE_OFFSET_FROM_UTC => {
                self.as_basic(Element { tag, vr, value: Value::Bytes(bytes) }, decision, set)
            }
            (Value::Bytes(bytes), _) if data_set::is_text(vr) && vr != VR::CS => {
                let element = Element { tag, vr, value: Value::Bytes(bytes) };
                let original = element.bytes().unwrap_or_default();
                let cleaned = self.cleaned_text(vr, original, set);
                if cleaned.as_bytes() == original {
                    return Ok((Some(element), Done::Kept));
                }
                if cleaned.split('\\').all(str::is_empty) {
                    return self.as_basic(element, decision, set);
                }
                self.lose(&element, set);
                Ok((Some(Element::new(tag, vr, cleaned)), Done::Cleaned))
            }
            (value, _) => self.as_basic(Element { tag, vr, value }, decision, set),
        }
    }

    /// What is left of a text, value by value.
    pub(super) fn cleaned_text(&self, vr: VR, value: &[u8], set: &[u8]) -> String {
        let text = character_sets::decode(set, value);
        let clean = |part: &str| text::clean(part, &self.people, &self.profile.words);
        match vr {
            VR::ST | VR::LT | VR::UT => clean(&text),
            _ => text.split('\\').map(clean).collect::<Vec<_>>().join("\\"),
        }
    }

    /// Dates moved by the subject's days; times stay. `None`: one of them is no date.
    fn moved(&self, element: &Element) -> Option<String> {
        let text = String::from_utf8_lossy(element.bytes().unwrap_or_default()).into_owned();
        if element.vr == VR::TM {
            return is_valid(VR::TM, text.as_bytes()).then_some(text);
        }
        let moved = text.split('\\').map(|value| match (value.trim().is_empty(), element.vr) {
            (true, _) => Some(String::new()),
            (false, VR::DA) => shift_date(value, self.shift),
            (false, _) => shift_date_time(value, self.shift),
        });
        moved.collect::<Option<Vec<_>>>().map(|values| values.join("\\"))
    }

    pub(super) fn by_rule(
        &mut self,
        element: Element,
        rule: &RuleAction,
        decision: &Decision,
        set: &[u8],
    ) -> Result<Acted, SetAside> {
        let (tag, vr) = (element.tag, element.vr);
        let old = String::from_utf8_lossy(element.bytes().unwrap_or_default()).into_owned();
        let value = match rule {
            RuleAction::Reject => {
                let id = match decision.origin {
                    Origin::Rule(at) => self.profile.rules.get(at).map(|rule| rule.id.clone()),
                    _ => None,
                };
                return Err(SetAside::Rule(id.unwrap_or_default()));
            }
            RuleAction::Code(_) => return self.as_basic(element, decision, set),
            RuleAction::Pseudonym => Some((self.pseudonym.clone(), Done::Pseudonym)),
            RuleAction::Hash => {
                let text = character_sets::decode(set, element.bytes().unwrap_or_default());
                Some((self.values.label(&tag.to_string(), text.trim()), Done::Pseudonym))
            }
            RuleAction::Set(text) | RuleAction::Replace(text) => Some((text.clone(), Done::Set)),
            RuleAction::Shift => self.moved(&element).map(|value| (value, Done::Moved)),
            RuleAction::Year => year_of(vr, &old).map(|value| (value, Done::Cleaned)),
            RuleAction::AgeCap => {
                cap_age(&old, self.profile.dates.age_cap).map(|value| (value, Done::Cleaned))
            }
        };
        match value {
            Some((value, done)) if matches!(element.value, Value::Bytes(_)) => {
                self.lose(&element, set);
                Ok((Some(Element::new(tag, vr, value)), done))
            }
            _ => self.as_basic(element, decision, set),
        }
    }
}

/// Whether this may be a Specific Character Set: its text is read by it, so that a term with a hyphen, or in lower case,
/// stays.
fn names_character_sets(bytes: &[u8]) -> bool {
    let in_term = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b' ' | b'_' | b'-');
    bytes.split(|byte| *byte == b'\\').all(|term| term.len() <= 16 && term.iter().all(in_term))
}

/// Whether the standard registers this UID, so that it is the same for everybody.
pub(crate) fn is_registered(uid: &str) -> bool {
    uid.strip_prefix("1.2.840.10008.")
        .is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'))
}

/// The first of January of a date, or of the date of a date-time.
fn year_of(vr: VR, text: &str) -> Option<String> {
    let year = text.get(..4).filter(|year| year.bytes().all(|byte| byte.is_ascii_digit()))?;
    match vr {
        VR::DA => Some(format!("{year}0101")),
        VR::DT => Some(year.to_owned()),
        _ => None,
    }
}

/// A data set for a placeholder.
pub(super) fn item(elements: Vec<Element>) -> DataSet {
    let mut item = DataSet::default();
    for element in elements {
        item.put(element);
    }
    item
}
