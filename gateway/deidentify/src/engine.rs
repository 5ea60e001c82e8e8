//! Makes the de-identified data set: walks the tree once, does what was decided for each attribute, and keeps a log of it.
//!
//! The same object, key and profile give the same data set, so an object that is sent again is the same again. Whatever
//! cannot be done as decided stops the object: it is set aside with the reason, and nothing of it leaves. Values that went
//! are handed on to `verify`, which searches for them in what was written.
//!
//! Pixel data is not looked at here; see `pixels`.

mod private;
mod structured;
pub(crate) mod value;

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;

use dicom_core::{Tag, VR};
use dicom_dictionary_std::{tags, uids};
use gantry_store::dicom::{TransferSyntax, text as character_sets};
use thiserror::Error;

use crate::data_set::{
    self, DataSet, DataSetError, Element, Form, Parsed, PixelData, Value, dictionary_vr,
};
use crate::decide::{Action, Decider, Decision, Origin};
use crate::keys::ProjectKey;
use crate::profile::{ClassPolicy, Missing, Place, Profile, RuleAction};
use crate::subject;
use crate::table::{BASIC_PROFILE, Code, EDITION, ProfileOption, Type};
use crate::text::Identifiers;
use crate::values::{Values, parse_date};
use crate::verify::{Cache, Field, Needles};

/// Whether objects of one patient can be told to belong together afterwards.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Linkage {
    /// All of the project: one patient has one pseudonym in it, and who holds the key can say whose it is.
    Project,
    /// Those of one study: what links two studies of a patient is gone.
    Study,
}

/// De-identifies objects by one profile under one key.
#[derive(Clone, Debug)]
pub struct Deidentifier {
    profile: Profile,
    key: ProjectKey,
    linkage: Linkage,
    project: Values,
    cache: Arc<Cache>,
}

/// Why an object is set aside. It names attributes and kinds, never a value.
#[derive(Clone, Debug, Error, PartialEq)]
#[non_exhaustive]
pub enum SetAside {
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] DataSetError),
    /// It does not say what it is.
    #[error("{} is missing or is no UID", crate::profile::keyword(*.0))]
    Unnamed(Tag),
    /// The profile lets no object of its kind out.
    #[error("the profile lets no object of class {0} out")]
    Class(String),
    /// Its IOD is not known, so nobody can say what it needs.
    #[error("objects of class {0} are not known here, and the profile lets none out that is not")]
    UnknownClass(String),
    /// It does not say whose it is.
    #[error("it has no Patient ID, so it cannot be given a pseudonym")]
    NoSubject,
    /// A rule of the profile says so.
    #[error("rule \"{0}\" of the profile sets it aside")]
    Rule(String),
    /// An attribute that must stay has a value that is none.
    #[error("{} has a value that its value representation does not have", crate::profile::keyword(*.0))]
    Invalid(Tag),
    /// Its pixels may show who the patient is, and no mask says where.
    #[error("its pixels may show who the patient is, and no mask says where: {0}")]
    Risky(String),
    /// Its pixels cannot be treated as they have to be.
    #[error("its pixels cannot be cleaned: {0}")]
    Pixels(String),
    /// Text that should not be legible is.
    #[error("text is legible in its pixels: {0}")]
    Legible(String),
    /// There is nothing to decode it with.
    #[error("transfer syntax {0} cannot be read here")]
    NoCodec(TransferSyntax),
    /// It would have to be in memory whole.
    #[error("it has {0} bytes, which is too long for what has to be done with it")]
    TooLong(u64),
    /// Its bytes could not be read or written.
    #[error("its bytes cannot be read or written: {0}")]
    Source(std::io::ErrorKind),
    /// The originals cannot be sealed.
    #[error("the originals cannot be sealed: {0}")]
    Seal(String),
    /// What was written was looked at, and must not leave.
    #[error("verification failed: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Verification(Vec<crate::verify::Finding>),
}

/// What became of one attribute.
#[derive(Clone, Debug)]
pub struct Step {
    /// The sequences around it, outermost first.
    pub path: Arc<[Tag]>,
    /// The attribute.
    pub tag: Tag,
    /// Its value representation.
    pub vr: VR,
    /// What was decided.
    pub decision: Decision,
    /// What was done.
    pub done: Done,
}

/// What was done with an attribute.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Done {
    /// It is gone.
    Removed,
    /// It has no value any more.
    Emptied,
    /// It has a value that tells nothing.
    Dummy,
    /// It is as it was; of a sequence, its items were walked.
    Kept,
    /// What might tell who somebody is went out of it.
    Cleaned,
    /// Its UIDs were replaced.
    Uid,
    /// It has the subject's pseudonym, or a label made of what was there.
    Pseudonym,
    /// Its date moved.
    Moved,
    /// A rule gave it its value.
    Set,
}

impl Done {
    /// All of them, in the order of reports.
    pub const ALL: [Self; 9] = [
        Self::Removed,
        Self::Emptied,
        Self::Dummy,
        Self::Cleaned,
        Self::Uid,
        Self::Pseudonym,
        Self::Moved,
        Self::Set,
        Self::Kept,
    ];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Removed => "removed",
            Self::Emptied => "emptied",
            Self::Dummy => "dummy",
            Self::Kept => "kept",
            Self::Cleaned => "cleaned",
            Self::Uid => "new UID",
            Self::Pseudonym => "pseudonym",
            Self::Moved => "moved",
            Self::Set => "set",
        }
    }
}

/// A value that is not in the result any more, as it was. It is patient data.
#[derive(Clone, Eq, PartialEq)]
pub struct Lost {
    /// The attribute that had it.
    pub tag: Tag,
    /// Its value representation.
    pub vr: VR,
    /// The bytes, without padding.
    pub bytes: Vec<u8>,
    /// The same in characters.
    pub text: String,
}

impl std::fmt::Debug for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lost({})", self.tag)
    }
}

/// A de-identified data set, with what is known of how it was made.
#[derive(Clone, Debug)]
pub struct Made {
    /// All but the top-level pixel data.
    pub data_set: DataSet,
    /// How its elements are written.
    pub form: Form,
    /// Where the pixel data lie in what was read.
    pub pixel_data: Option<PixelData>,
    /// SOP Class UID (0008,0016).
    pub sop_class: String,
    /// SOP Instance UID (0008,0018) of what was read, and of the result.
    pub sop_instance: (String, String),
    /// Study Instance UID (0020,000D) of what was read, and of the result.
    pub study: (String, String),
    /// The patient's pseudonym in the result.
    pub pseudonym: String,
    /// What became of each attribute, in their order.
    pub steps: Vec<Step>,
    /// What is not in the result any more.
    pub lost: Vec<Lost>,
    /// Top-level elements as they were that are not in the result as they were, for reversing.
    pub originals: DataSet,
    /// Which rules held.
    pub(crate) holding: Vec<bool>,
    /// What is searched for.
    pub(crate) needles: Arc<Needles>,
}

impl Made {
    /// What is known of an object that says that it was de-identified, to judge it without what it was made of: nothing is
    /// searched for, and every rule may have held.
    pub fn without_originals(
        deidentifier: &Deidentifier,
        form: Form,
        sop_class: String,
        (study, sop_instance): (String, String),
        steps: Vec<Step>,
    ) -> Self {
        let profile = &deidentifier.profile;
        Self {
            data_set: DataSet::default(),
            form,
            pixel_data: None,
            sop_class,
            sop_instance: (String::new(), sop_instance),
            study: (String::new(), study),
            pseudonym: String::new(),
            steps,
            lost: Vec::new(),
            originals: DataSet::default(),
            holding: vec![true; profile.rules.len()],
            needles: Arc::new(Needles::of(&[], profile.options, &deidentifier.cache)),
        }
    }
}

impl Deidentifier {
    /// By this profile under this key.
    pub fn new(profile: Profile, key: ProjectKey, linkage: Linkage) -> Self {
        let project = Values::new(&key);
        Self { profile, key, linkage, project, cache: Arc::default() }
    }

    /// The profile.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// What names the key in reports.
    pub fn key_fingerprint(&self) -> String {
        self.key.fingerprint()
    }

    /// Whether objects can be told to belong together beyond a study.
    pub fn linkage(&self) -> Linkage {
        self.linkage
    }

    /// The key itself, for what is sealed with it.
    pub fn key(&self) -> &ProjectKey {
        &self.key
    }

    /// The UID that takes the place of one in objects of this study, for whoever asks a receiver about what was sent.
    pub fn uid(&self, study_instance_uid: &str, uid: &str) -> String {
        if self.profile.options.has(ProfileOption::RetainUids) {
            return uid.to_owned();
        }
        match self.linkage {
            Linkage::Project => self.project.uid(uid),
            Linkage::Study => Values::new(&self.key.of_study(study_instance_uid)).uid(uid),
        }
    }

    /// De-identifies all of an object but its pixel data.
    pub fn make(&self, parsed: Parsed) -> Result<Made, SetAside> {
        self.make_with(parsed, true)
    }

    /// The same; `originals`: whether somebody asks for what was there.
    pub(crate) fn make_with(&self, parsed: Parsed, originals: bool) -> Result<Made, SetAside> {
        let Parsed { mut data_set, pixel_data, form, .. } = parsed;
        value::in_their_representation(&mut data_set);
        let uid = |tag| {
            // One value: of two, readers would take different ones for its name.
            let whole = data_set.bytes(tag).map(String::from_utf8_lossy);
            let text = whole.map(|text| text.trim_matches([' ', '\0']).to_owned());
            let is_uid = |text: &String| {
                !text.is_empty()
                    && text.len() <= 64
                    && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
                    && text.split('.').all(|component| !component.is_empty())
            };
            text.filter(is_uid).ok_or(SetAside::Unnamed(tag))
        };
        let (sop_class, sop_instance) = (uid(tags::SOP_CLASS_UID)?, uid(tags::SOP_INSTANCE_UID)?);
        let (study, _series) = (uid(tags::STUDY_INSTANCE_UID)?, uid(tags::SERIES_INSTANCE_UID)?);
        let policy = self.profile.class(&sop_class);
        if policy == ClassPolicy::Reject {
            let known = crate::table::KnownClass::of(&sop_class).is_some();
            return Err(if known {
                SetAside::Class(sop_class)
            } else {
                SetAside::UnknownClass(sop_class)
            });
        }
        // The only document that can be written in the place of another is a page of PDF.
        if sop_class.starts_with("1.2.840.10008.5.1.4.1.1.104.")
            && sop_class != uids::ENCAPSULATED_PDF_STORAGE
        {
            return Err(SetAside::Class(sop_class));
        }
        let holds = |rule: &crate::profile::Rule| {
            rule.when.as_ref().is_none_or(|condition| condition.holds(&data_set))
        };
        let holding: Vec<bool> = self.profile.rules.iter().map(holds).collect();
        let rejecting = self.profile.rules.iter().zip(&holding).find(|(rule, holds)| {
            **holds && rule.select.is_empty() && rule.action == RuleAction::Reject
        });
        if let Some((rule, _)) = rejecting {
            return Err(SetAside::Rule(rule.id.clone()));
        }
        let subject = match (subject::of(&data_set), self.profile.subject.missing) {
            (Some(subject), _) => subject,
            (None, Missing::PerStudy) => format!("study:{study}"),
            (None, Missing::Reject) => return Err(SetAside::NoSubject),
        };
        let values = match self.linkage {
            Linkage::Project => self.project.clone(),
            Linkage::Study => Values::new(&self.key.of_study(&study)),
        };
        let subject_profile = &self.profile.subject;
        let pseudonym = values.pseudonym(&subject, &subject_profile.prefix, subject_profile.length);
        let shift = values.shift(&subject, self.profile.dates.shift_days);
        let mut people = Identifiers::default();
        collect_people(&data_set, &[], &mut people);
        let originals = if originals { data_set.clone() } else { DataSet::default() };
        let mut pass = Pass {
            profile: &self.profile,
            decider: Decider::new(&self.profile, &sop_class, &holding),
            values,
            pseudonym: pseudonym.clone(),
            patient_id: data_set.bytes(tags::PATIENT_ID).unwrap_or_default().to_vec(),
            shift,
            study_year: data_set
                .text(tags::STUDY_DATE)
                .and_then(|date| parse_date(&date))
                .map(jiff::civil::Date::year),
            people,
            policy,
            path: Vec::new(),
            shared_path: Arc::from([]),
            steps: Vec::with_capacity(data_set.elements.len()),
            lost: Vec::new(),
        };
        let mut made = pass.data_set(data_set, &[])?;
        pass.set(&mut made);
        let needles = Arc::new(Needles::of(&pass.lost, self.profile.options, &self.cache));
        let by_rule = kept_by_rules(&pass.steps);
        pass.clean_repeated(&mut made, &[], &needles, &by_rule);
        let Pass { steps, lost, .. } = pass;
        self.mark(&mut made, &needles);
        let new_instance = made.text(tags::SOP_INSTANCE_UID).unwrap_or_default();
        let new_study = made.text(tags::STUDY_INSTANCE_UID).unwrap_or_default();
        let changed = originals.elements.into_iter().filter(|original| {
            original.tag.group().is_multiple_of(2) && made.get(original.tag) != Some(original)
        });
        Ok(Made {
            originals: DataSet { elements: changed.collect() },
            data_set: made,
            form,
            pixel_data,
            sop_class,
            sop_instance: (sop_instance, trimmed(&new_instance)),
            study: (study, trimmed(&new_study)),
            pseudonym,
            steps,
            lost,
            holding,
            needles,
        })
    }

    /// What says that it was done, and how (PS3.15 E.1.1, E.2).
    fn mark(&self, made: &mut DataSet, needles: &Needles) {
        let options = self.profile.options;
        made.put(Element::new(tags::PATIENT_IDENTITY_REMOVED, VR::CS, "YES"));
        let own = own_methods(&self.profile);
        let earlier = made.bytes(tags::DEIDENTIFICATION_METHOD).unwrap_or_default();
        let earlier = String::from_utf8_lossy(earlier).into_owned();
        let mut methods: Vec<&str> =
            earlier.split('\\').filter(|method| !method.is_empty()).collect();
        // Whoever wrote them may have written whose object it was.
        methods.retain(|method| {
            let repeats = || needles.repeated_in(Field::Text, method.as_bytes(), &[]).is_some();
            !own.iter().any(|it| it == method) && !repeats()
        });
        methods.extend(own.iter().map(String::as_str));
        made.put(Element::new(tags::DEIDENTIFICATION_METHOD, VR::LO, methods.join("\\")));
        let codes = std::iter::once(BASIC_PROFILE).chain(
            options
                .iter()
                .filter(|option| *option != ProfileOption::CleanPixelData)
                .map(|option| (option.code(), option.meaning())),
        );
        let own: Vec<DataSet> = codes.map(|(value, meaning)| code_item(value, meaning)).collect();
        // What was done to it earlier stays on record, in its order.
        let earlier = made.items(tags::DEIDENTIFICATION_METHOD_CODE_SEQUENCE);
        let code = |item: &DataSet| {
            (item.text(tags::CODING_SCHEME_DESIGNATOR), item.text(tags::CODE_VALUE))
        };
        let repeats = |item: &DataSet| own.iter().any(|it| code(it) == code(item));
        let mut items: Vec<_> = earlier.iter().filter(|item| !repeats(item)).cloned().collect();
        items.extend(own);
        made.put(Element::sequence(tags::DEIDENTIFICATION_METHOD_CODE_SEQUENCE, items));
        let earlier = made.text(tags::LONGITUDINAL_TEMPORAL_INFORMATION_MODIFIED);
        let dates = if options.has(ProfileOption::RetainLongFullDates) {
            "UNMODIFIED"
        } else if options.has(ProfileOption::RetainLongModifiedDates) {
            "MODIFIED"
        } else {
            "REMOVED"
        };
        // Dates that somebody else moved or removed are none that are kept.
        let dates = match (earlier.as_deref(), dates) {
            (Some("REMOVED"), _) => "REMOVED",
            (Some("MODIFIED"), "UNMODIFIED") => "MODIFIED",
            (_, own) => own,
        };
        made.put(Element::new(tags::LONGITUDINAL_TEMPORAL_INFORMATION_MODIFIED, VR::CS, dates));
    }
}

/// Where an attribute stands: the sequences around it, and itself.
pub(crate) type Position = (Arc<[Tag]>, Tag);

/// What rules of the profile keep as it is.
pub(crate) fn kept_by_rules(steps: &[Step]) -> HashSet<Position> {
    let kept = steps
        .iter()
        .filter(|step| step.done == Done::Kept && matches!(step.decision.origin, Origin::Rule(_)));
    kept.map(|step| (Arc::clone(&step.path), step.tag)).collect()
}

/// What De-identification Method (0012,0063) gets of us.
pub(crate) fn own_methods(profile: &Profile) -> [String; 3] {
    [
        concat!("Gantry ", env!("CARGO_PKG_VERSION")).to_owned(),
        format!("PS3.15 {EDITION}"),
        profile.reference(),
    ]
}

/// Says in the result that its pixels were cleaned (PS3.15 E.3.1): for the caller, once they were.
pub fn mark_pixels_cleaned(made: &mut DataSet) {
    made.put(Element::new(tags::BURNED_IN_ANNOTATION, VR::CS, "NO"));
    let option = ProfileOption::CleanPixelData;
    let mut items = made.items(tags::DEIDENTIFICATION_METHOD_CODE_SEQUENCE).to_vec();
    items.push(code_item(option.code(), option.meaning()));
    made.put(Element::sequence(tags::DEIDENTIFICATION_METHOD_CODE_SEQUENCE, items));
}

/// An item of a code sequence (PS3.3 8.8).
fn code_item(value: &str, meaning: &str) -> DataSet {
    let mut item = DataSet::default();
    item.put(Element::new(tags::CODE_VALUE, VR::SH, value));
    item.put(Element::new(tags::CODING_SCHEME_DESIGNATOR, VR::SH, "DCM"));
    item.put(Element::new(tags::CODE_MEANING, VR::LO, meaning));
    item
}

fn trimmed_bytes(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|byte| !matches!(byte, b' ' | 0)).map_or(0, |last| last + 1);
    bytes.get(..end).unwrap_or_default()
}

fn trimmed(uid: &str) -> String {
    uid.trim_end_matches('\0').to_owned()
}

/// Names and identifiers of everybody in the object, at any depth.
fn collect_people(data_set: &DataSet, outer: &[u8], people: &mut Identifiers) {
    let set = data_set.bytes(tags::SPECIFIC_CHARACTER_SET).unwrap_or(outer);
    for element in &data_set.elements {
        match &element.value {
            Value::Items(items) => {
                for item in items {
                    collect_people(item, set, people);
                }
            }
            Value::Bytes(bytes) if element.vr == VR::PN || names_somebody(element.tag) => {
                people.add(&character_sets::decode(set, bytes));
            }
            _ => {}
        }
    }
}

/// Identifiers that descriptions are known to repeat.
fn names_somebody(tag: Tag) -> bool {
    matches!(
        tag,
        tags::PATIENT_ID
            | subject::OTHER_PATIENT_IDS
            | tags::ACCESSION_NUMBER
            | tags::STUDY_ID
            | tags::PATIENT_ADDRESS
            | tags::REQUESTED_PROCEDURE_ID
            | tags::SCHEDULED_PROCEDURE_STEP_ID
    )
}

/// As deep as the scanner goes, and as much again in what came as UN.
const DEEPEST: usize = 128;

/// One object on its way through.
struct Pass<'a> {
    profile: &'a Profile,
    decider: Decider<'a>,
    values: Values,
    pseudonym: String,
    /// The patient's own identifier, as it was: nested ones that are the same get the same pseudonym.
    patient_id: Vec<u8>,
    shift: i32,
    /// Of Study Date, as it was.
    study_year: Option<i16>,
    people: Identifiers,
    policy: ClassPolicy,
    path: Vec<Tag>,
    shared_path: Arc<[Tag]>,
    steps: Vec<Step>,
    lost: Vec<Lost>,
}

impl Pass<'_> {
    /// Walks a data set or an item. `outer`: the character set around it.
    fn data_set(&mut self, original: DataSet, outer: &[u8]) -> Result<DataSet, SetAside> {
        let own = original.bytes(tags::SPECIFIC_CHARACTER_SET).map(<[u8]>::to_vec);
        let set = own.as_deref().unwrap_or(outer);
        let blocks = private::Blocks::of(&original, self.profile);
        let mut made = DataSet { elements: Vec::with_capacity(original.elements.len()) };
        for element in original.elements {
            let kept = if element.tag.group() % 2 == 1 {
                self.private(element, &blocks, set)?
            } else {
                self.standard(element, set)?
            };
            made.elements.extend(kept);
        }
        blocks.keep_creators(&mut made);
        Ok(made)
    }

    fn standard(&mut self, mut element: Element, set: &[u8]) -> Result<Option<Element>, SetAside> {
        let tag = element.tag;
        // Items where a value belongs, or bytes where items do: nobody can say what is in them.
        let unreadable = value::without_what_is_unreadable(&element);
        if let Some(empty) = unreadable.clone() {
            self.lose(&element, set);
            element = empty;
        }
        let place = Place { path: &self.path, tag, vr: element.vr, creator: None };
        let mut decision = self.decider.decide(place);
        if tag == tags::PRIVATE_DATA_ELEMENT_CHARACTERISTICS_SEQUENCE
            && !self.profile.private.declared
        {
            // It describes what is gone, in words of its writer.
            decision = Decision::new(Origin::Private, Code::X, Some(Type::Three));
        }
        let made_up = matches!(decision.action, Action::Code(Code::X | Code::Z | Code::D));
        if unreadable.is_some() && (!made_up || element.vr == VR::SQ) {
            if tag.group() == 0x0028 || decision.needed == Some(Type::One) {
                return Err(SetAside::Invalid(tag));
            }
            decision = Decision::new(Origin::Invalid, Code::X, Some(Type::Three));
        }
        self.act(element, decision, set)
    }

    /// Does what was decided.
    fn act(
        &mut self,
        element: Element,
        decision: Decision,
        set: &[u8],
    ) -> Result<Option<Element>, SetAside> {
        let (tag, vr) = (element.tag, element.vr);
        let (made, done) = match &decision.action {
            Action::Code(Code::X) => {
                self.lose(&element, set);
                (None, Done::Removed)
            }
            Action::Code(Code::K) => self.keep(element, &decision, set)?,
            Action::Code(Code::C) => self.clean(element, &decision, set)?,
            Action::Code(Code::U) => self.new_uids(element, set)?,
            Action::Code(Code::Z) => self.empty(&element, set),
            Action::Code(_) => self.dummy(element, set)?,
            Action::Rule(rule) => self.by_rule(element, &rule.clone(), &decision, set)?,
        };
        let path = Arc::clone(&self.shared_path);
        self.steps.push(Step { path, tag, vr, decision, done });
        Ok(made)
    }

    /// Walks the items of a sequence.
    fn items(
        &mut self,
        tag: Tag,
        items: Vec<DataSet>,
        set: &[u8],
    ) -> Result<Vec<DataSet>, SetAside> {
        self.inside(tag, |pass| {
            let mut kept = Vec::with_capacity(items.len());
            for item in items {
                // A content item is one wherever it stands: in the context of an acquisition or a protocol, of a specimen.
                if item.get(tags::VALUE_TYPE).is_some() {
                    kept.extend(pass.content_item(item, set)?);
                } else {
                    kept.push(pass.data_set(item, set)?);
                }
            }
            Ok(kept)
        })
    }

    /// Does something one level deeper.
    fn inside<T>(
        &mut self,
        tag: Tag,
        act: impl FnOnce(&mut Self) -> Result<T, SetAside>,
    ) -> Result<T, SetAside> {
        // What the scanner walks is bounded; sequences that come out of values of VR UN on the way are not.
        if self.path.len() >= DEEPEST {
            return Err(DataSetError::TooDeep { tag }.into());
        }
        let around = Arc::clone(&self.shared_path);
        self.path.push(tag);
        self.shared_path = Arc::from(self.path.as_slice());
        let result = act(self);
        self.path.pop();
        self.shared_path = around;
        result
    }

    /// Notes values that will not be in the result.
    fn lose(&mut self, element: &Element, set: &[u8]) {
        match &element.value {
            Value::Items(items) => {
                for item in items {
                    let own = item.bytes(tags::SPECIFIC_CHARACTER_SET).unwrap_or(set);
                    item.elements.iter().for_each(|element| self.lose(element, own));
                }
            }
            Value::Bytes(_) => {
                let Some(bytes) = element.bytes().filter(|bytes| !bytes.is_empty()) else { return };
                if data_set::is_text(element.vr) {
                    // The longest text that a VR with a limit has; of more the beginning is searched for.
                    let bytes = bytes.get(..10_240).unwrap_or(bytes);
                    let text = character_sets::decode(set, bytes);
                    let (tag, vr, bytes) = (element.tag, element.vr, bytes.to_vec());
                    self.lost.push(Lost { tag, vr, bytes, text });
                }
            }
            Value::Fragments(_) => {}
        }
    }

    /// Cleans what was kept and repeats what went: a text that nobody lists and that names the patient all the same, as
    /// devices and people write names where there is room. Known words and numbers of it stay. What is no text, or has no
    /// room for other words, is left to verification, which sets the object aside.
    /// What a rule keeps on purpose is left alone.
    fn clean_repeated(
        &mut self,
        made: &mut DataSet,
        outer: &[u8],
        needles: &Needles,
        by_rule: &HashSet<Position>,
    ) {
        let own = made.bytes(tags::SPECIFIC_CHARACTER_SET).map(<[u8]>::to_vec);
        let set = own.as_deref().unwrap_or(outer);
        let scheme = made.text(tags::CODING_SCHEME_DESIGNATOR).unwrap_or_default();
        for element in &mut made.elements {
            let (tag, vr) = (element.tag, element.vr);
            let value = match &mut element.value {
                Value::Items(items) => {
                    self.path.push(tag);
                    self.shared_path = Arc::from(self.path.as_slice());
                    for item in items {
                        self.clean_repeated(item, set, needles, by_rule);
                    }
                    self.path.pop();
                    self.shared_path = Arc::from(self.path.as_slice());
                    continue;
                }
                Value::Bytes(bytes) => bytes,
                Value::Fragments(_) => continue,
            };
            let free = matches!(vr, VR::LO | VR::SH | VR::ST | VR::LT | VR::UT | VR::UC);
            let creator = tag.group() % 2 == 1 && tag.element() < 0x100;
            let ours = crate::values::dummy(vr) == Some(trimmed_bytes(value));
            if !free || creator || ours || tag == tags::DEIDENTIFICATION_METHOD {
                continue;
            }
            let field = Field::of(tag, vr, &scheme);
            if needles.repeated_in(field, value, set).is_none()
                || by_rule.contains(&(Arc::clone(&self.shared_path), tag))
            {
                continue;
            }
            let cleaned = self.cleaned_text(vr, value, set);
            let still = needles.repeated_in(field, cleaned.as_bytes(), &[]).is_some();
            let cleaned = if still { String::new() } else { cleaned };
            let done = if cleaned.is_empty() { Done::Emptied } else { Done::Cleaned };
            *element = Element::new(tag, vr, cleaned);
            let decision = Decision {
                origin: Origin::Repeated,
                code: Code::C,
                needed: None,
                action: Action::Code(Code::C),
            };
            let path = Arc::clone(&self.shared_path);
            self.steps.push(Step { path, tag, vr, decision, done });
        }
    }

    /// What rules set whether it was there or not.
    fn set(&mut self, made: &mut DataSet) {
        for (at, rule) in self.profile.rules.iter().enumerate() {
            let RuleAction::Set(text) = &rule.action else { continue };
            for selector in &rule.select {
                if let crate::profile::Selector::Tag(tag) = selector
                    && made.get(*tag).is_none()
                    && self.decider.holds(at)
                {
                    let vr = dictionary_vr(*tag);
                    made.put(Element::new(*tag, vr, text.as_bytes()));
                    let decision = Decision {
                        origin: Origin::Rule(at),
                        code: Code::C,
                        needed: None,
                        action: Action::Rule(rule.action.clone()),
                    };
                    let path = Arc::clone(&self.shared_path);
                    self.steps.push(Step { path, tag: *tag, vr, decision, done: Done::Set });
                }
            }
        }
    }
}

/// De-identifies all but the pixel data of a data set that is whole in memory.
pub fn make(
    deidentifier: &Deidentifier,
    syntax: &TransferSyntax,
    bytes: &[u8],
) -> Result<Made, SetAside> {
    deidentifier.make(data_set::read(syntax, bytes)?)
}
