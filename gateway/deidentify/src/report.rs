//! What was done to a set of objects, for whoever has to answer for it: counts, reasons, and what nobody looked at.
//!
//! A [`Tally`] counts objects as they are made; tallies of threads merge, in any order, to the same. [`Tally::finish`]
//! makes the [`Report`], which is written as JSON and as a page that prints. It names attributes, classes, rules and new
//! UIDs. It never holds a value that was received, nor the name of a file that was read, as people name files after
//! patients: an object that was set aside is known by its number in the input and by the UID that it would have had.
//!
//! Knows the words that data protection uses, *pseudonymised* and *de-identified*, and not what the data are in law: that
//! depends on who holds them and what else they hold.

mod html;

use std::collections::{BTreeMap, HashMap, HashSet};

use dicom_core::dictionary::{UidDictionary, UidDictionaryEntry};
use dicom_core::{Tag, VR};
use dicom_dictionary_std::{StandardSopClassDictionary, tags};
use ring::digest::{SHA256, digest};
use serde::Serialize;

use crate::data_set::{DataSet, Value};
use crate::decide::Origin;
use crate::engine::{Deidentifier, Done, Linkage, SetAside};
use crate::process::{Protected, TextSearch};
use crate::profile::{Profile, keyword};
use crate::seal::Recipient;
use crate::table::{BASIC_PROFILE, EDITION};
use crate::verify::NOT_CHECKED;

/// The version of the report's shape; it goes up when something is renamed or removed.
pub const SCHEMA: u32 = 1;

/// What the report cannot see beyond what verification does not look at.
const NOT_SEEN: [&str; 3] = [
    "whether the purpose, the recipients and the profile fit each other",
    "names of folders and files that were read, which are not used in the result",
    "objects beyond these files that hold the same patients",
];

/// Counts what became of objects.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    sample_per_mille: u16,
    written: u64,
    repeated: u64,
    classes: BTreeMap<String, (u64, u64)>,
    steps: HashMap<(Tag, VR, Origin, Done), u64>,
    sealed: BTreeMap<Tag, u64>,
    set_aside: Vec<Aside>,
    by_rule: u64,
    findings: BTreeMap<String, u64>,
    pixels: PixelTally,
    /// References by the UID that was received and the one in the result; how many stayed, and how many went.
    references: HashMap<(String, String), (u64, u64)>,
    /// SOP Instance UIDs that were received, of what was written and of what was set aside.
    received: HashSet<String>,
    asides: HashSet<String>,
    /// Those of the result.
    made: HashSet<String>,
    sample: BTreeMap<String, String>,
    /// Of each class the object whose hash is the least, so that there is one to look at.
    least: BTreeMap<String, (u64, String)>,
}

#[derive(Clone, Debug, Default)]
struct PixelTally {
    risks: BTreeMap<String, u64>,
    masks: BTreeMap<String, u64>,
    passed: BTreeMap<String, u64>,
    faces: BTreeMap<String, u64>,
    notes: BTreeMap<String, u64>,
    searched: u64,
    frames: u64,
    not_searched: BTreeMap<String, u64>,
}

fn bump<K: Ord>(counts: &mut BTreeMap<K, u64>, key: K, by: u64) {
    *counts.entry(key).or_default() += by;
}

fn merge<K: Ord>(into: &mut BTreeMap<K, u64>, from: BTreeMap<K, u64>) {
    for (key, count) in from {
        bump(into, key, count);
    }
}

/// An object that was set aside, as far as it could be read.
#[derive(Clone, Debug, Default)]
pub struct Received {
    /// Its place in the input, from 1.
    pub number: u64,
    /// SOP Class UID (0008,0016).
    pub sop_class: Option<String>,
    /// SOP Instance UID (0008,0018) of what was received. It is not written into the report.
    pub sop_instance: Option<String>,
    /// Study Instance UID (0020,000D) of what was received. It is not written into the report.
    pub study: Option<String>,
}

impl Tally {
    /// Of nothing yet, made by this profile.
    pub fn new(profile: &Profile) -> Self {
        Self { sample_per_mille: profile.sample_per_mille, ..Self::default() }
    }

    /// Counts an object that was written under this name, which tells nothing of what was received.
    pub fn written(&mut self, deidentifier: &Deidentifier, object: &Protected, file: &str) {
        let made = &object.made;
        self.written += 1;
        self.classes.entry(made.sop_class.clone()).or_default().0 += 1;
        for step in &made.steps {
            let key = (step.tag, step.vr, step.decision.origin, step.done);
            *self.steps.entry(key).or_default() += 1;
        }
        if !object.sealed_to.is_empty() {
            made.originals.elements.iter().for_each(|one| bump(&mut self.sealed, one.tag, 1));
        }
        self.pixels(object);
        self.received.insert(made.sop_instance.0.clone());
        self.made.insert(made.sop_instance.1.clone());
        self.references(deidentifier, object);

        let hash = sample_hash(&made.sop_instance.1);
        if hash % 1000 < u64::from(self.sample_per_mille) {
            self.sample.insert(file.to_owned(), made.sop_class.clone());
        }
        self.candidate(&made.sop_class, hash, file);
    }

    /// Counts an object of the input that is one that was written already, byte for byte.
    pub fn repeated(&mut self) {
        self.repeated += 1;
    }

    /// Counts an object that was set aside by the engine.
    pub fn set_aside(&mut self, deidentifier: &Deidentifier, object: &Received, why: &SetAside) {
        if let SetAside::Verification(findings) = why {
            for found in findings {
                bump(&mut self.findings, found.to_string(), 1);
            }
        }
        self.set_aside_because(deidentifier, object, why.to_string(), is_safety_rule(why));
    }

    /// Counts an object that was set aside for another reason, which must hold no value of it; and whether that is a rule
    /// that keeps patients safe rather than a fault.
    pub fn set_aside_because(
        &mut self,
        deidentifier: &Deidentifier,
        object: &Received,
        reason: String,
        by_rule: bool,
    ) {
        self.by_rule += u64::from(by_rule);
        if let Some(class) = &object.sop_class {
            self.classes.entry(class.clone()).or_default().1 += 1;
        }
        let study = object.study.as_deref();
        let new_uid = object.sop_instance.as_deref().and_then(|uid| {
            // Where studies are not linked, the study's own UID takes part.
            let study = match deidentifier.linkage() {
                Linkage::Project => study.unwrap_or_default(),
                Linkage::Study => study?,
            };
            Some(deidentifier.uid(study, uid))
        });
        if let Some(uid) = &object.sop_instance {
            self.asides.insert(uid.clone());
            self.received.insert(uid.clone());
        }
        self.set_aside.push(Aside {
            number: object.number,
            sop_instance_uid: new_uid,
            sop_class: object.sop_class.as_deref().map(class_name),
            reason,
            by_rule,
        });
    }

    /// Adds what another thread counted.
    pub fn merge(&mut self, other: Self) {
        self.written += other.written;
        self.repeated += other.repeated;
        self.by_rule += other.by_rule;
        for (class, (written, aside)) in other.classes {
            let counts = self.classes.entry(class).or_default();
            *counts = (counts.0 + written, counts.1 + aside);
        }
        for (key, count) in other.steps {
            *self.steps.entry(key).or_default() += count;
        }
        merge(&mut self.sealed, other.sealed);
        self.set_aside.extend(other.set_aside);
        merge(&mut self.findings, other.findings);
        let (to, from) = (&mut self.pixels, other.pixels);
        merge(&mut to.risks, from.risks);
        merge(&mut to.masks, from.masks);
        merge(&mut to.passed, from.passed);
        merge(&mut to.faces, from.faces);
        merge(&mut to.notes, from.notes);
        merge(&mut to.not_searched, from.not_searched);
        to.searched += from.searched;
        to.frames += from.frames;
        for (key, (stayed, went)) in other.references {
            let counts = self.references.entry(key).or_default();
            *counts = (counts.0 + stayed, counts.1 + went);
        }
        self.received.extend(other.received);
        self.asides.extend(other.asides);
        self.made.extend(other.made);
        self.sample.extend(other.sample);
        for (class, (hash, file)) in other.least {
            self.candidate(&class, hash, &file);
        }
    }

    fn candidate(&mut self, class: &str, hash: u64, file: &str) {
        let new = (hash, file.to_owned());
        match self.least.get_mut(class) {
            Some(least) if *least <= new => {}
            Some(least) => *least = new,
            None => {
                self.least.insert(class.to_owned(), new);
            }
        }
    }

    fn pixels(&mut self, object: &Protected) {
        let (report, tally) = (&object.pixels, &mut self.pixels);
        let count = |counts: &mut BTreeMap<String, u64>, text: &Option<String>| {
            if let Some(text) = text {
                bump(counts, text.clone(), 1);
            }
        };
        count(&mut tally.risks, &report.risk);
        count(&mut tally.masks, &report.mask);
        count(&mut tally.passed, &report.passed);
        count(&mut tally.faces, &report.face);
        report.notes.iter().for_each(|note| bump(&mut tally.notes, note.clone(), 1));
        match &report.text_search {
            Some(TextSearch::Clear { frames }) => {
                tally.searched += 1;
                tally.frames += *frames as u64;
            }
            Some(TextSearch::NotChecked(why)) => bump(&mut tally.not_searched, why.clone(), 1),
            None => {}
        }
    }

    /// Notes which instances this one refers to, before and after.
    fn references(&mut self, deidentifier: &Deidentifier, object: &Protected) {
        let made = &object.made;
        let mut new: HashMap<String, u64> = HashMap::new();
        references_in(&made.data_set, &mut new);
        let lost = made.lost.iter().filter(|lost| lost.tag == tags::REFERENCED_SOP_INSTANCE_UID);
        for old in lost.flat_map(|lost| lost.text.split('\\')) {
            let old = old.trim_matches([' ', '\0']).to_owned();
            let replacement = deidentifier.uid(&made.study.0, &old);
            let stayed = match new.get_mut(&replacement) {
                Some(left) if *left > 0 => {
                    *left -= 1;
                    true
                }
                _ => false,
            };
            let counts = self.references.entry((old, replacement)).or_default();
            if stayed { counts.0 += 1 } else { counts.1 += 1 }
        }
        // Those that were not replaced are what they were.
        for (uid, count) in new.into_iter().filter(|(_, count)| *count > 0) {
            self.references.entry((uid.clone(), uid)).or_default().0 += count;
        }
    }

    /// How many objects were written.
    pub fn written_count(&self) -> u64 {
        self.written
    }

    /// How many were set aside, and of those how many by a rule that keeps patients safe.
    pub fn set_aside_count(&self) -> (u64, u64) {
        (self.set_aside.len() as u64, self.by_rule)
    }

    /// The report.
    pub fn finish(mut self, run: &Run<'_>) -> Report {
        let profile = run.deidentifier.profile();
        self.set_aside.sort_by_key(|one| one.number);
        for (class, (_, file)) in &self.least {
            if self.sample_per_mille > 0 {
                self.sample.insert(file.clone(), class.clone());
            }
        }
        let aside = self.set_aside.len() as u64;
        let references = self.resolved();
        let mut not_checked: Vec<String> = NOT_CHECKED.iter().map(|it| (*it).to_owned()).collect();
        not_checked.extend(NOT_SEEN.iter().map(|it| (*it).to_owned()));
        let review = Review {
            per_mille: self.sample_per_mille,
            objects: self
                .sample
                .iter()
                .map(|(file, class)| ToLookAt {
                    file: file.clone(),
                    sop_class: class_name(class),
                    name: String::new(),
                    date: String::new(),
                    finding: String::new(),
                })
                .collect(),
        };
        Report {
            schema: SCHEMA,
            program: concat!("Gantry ", env!("CARGO_PKG_VERSION")).to_owned(),
            made_at: run.at.to_string(),
            profile: ProfileFacts::of(profile),
            options: options(profile),
            linkage: LinkageFacts::of(run.deidentifier.linkage(), run.key),
            key: KeyFacts {
                fingerprint: run.deidentifier.key_fingerprint(),
                origin: run.key.to_string(),
                kept: matches!(run.key, KeyOrigin::File(_)),
            },
            counts: Counts {
                objects: self.written + self.repeated + aside,
                written: self.written,
                repeated: self.repeated,
                set_aside: aside,
                set_aside_by_rule: self.by_rule,
                directories: run.directories,
                not_dicom: run.not_dicom,
            },
            classes: self
                .classes
                .iter()
                .map(|(uid, (written, set_aside))| ClassFacts {
                    uid: uid.clone(),
                    name: class_name(uid),
                    written: *written,
                    set_aside: *set_aside,
                })
                .collect(),
            actions: self.actions(),
            attributes: self.attributes(profile),
            sealed: Sealed {
                recipients: run
                    .recipients
                    .iter()
                    .map(|one| SealedTo {
                        subject: one.subject(),
                        fingerprint: one.fingerprint_hex(),
                        valid_until: one.not_after().to_string(),
                    })
                    .collect(),
                attributes: self
                    .sealed
                    .iter()
                    .map(|(tag, count)| AttributeCount {
                        keyword: keyword(*tag),
                        tag: tag.to_string(),
                        count: *count,
                    })
                    .collect(),
            },
            verification: Verification {
                passed: self.written + self.repeated,
                findings: texts(&self.findings),
            },
            pixels: PixelFacts {
                risks: texts(&self.pixels.risks),
                masks: texts(&self.pixels.masks),
                passed_without_mask: texts(&self.pixels.passed),
                faces: texts(&self.pixels.faces),
                notes: texts(&self.pixels.notes),
                text_search: TextSearchFacts {
                    wanted: profile.pixels.ocr,
                    engine: run.ocr.clone(),
                    objects: self.pixels.searched,
                    frames: self.pixels.frames,
                    not_checked: texts(&self.pixels.not_searched),
                },
            },
            references,
            set_aside: self.set_aside,
            not_checked,
            review,
            governance: Governance::default(),
        }
    }

    fn actions(&self) -> Vec<ActionFacts> {
        let count = |done| {
            self.steps.iter().filter(|(key, _)| key.3 == done).map(|(_, count)| count).sum::<u64>()
        };
        Done::ALL
            .iter()
            .map(|done| ActionFacts { action: done.as_str(), count: count(*done) })
            .filter(|action| action.count > 0)
            .collect()
    }

    fn attributes(&self, profile: &Profile) -> Vec<AttributeFacts> {
        let mut rows: Vec<_> = self.steps.iter().collect();
        rows.sort();
        rows.into_iter()
            .map(|((tag, vr, origin, done), count)| AttributeFacts {
                keyword: keyword(*tag),
                tag: tag.to_string(),
                vr: vr.to_string(),
                origin: origin_name(*origin, profile),
                action: done.as_str(),
                count: *count,
            })
            .collect()
    }

    fn resolved(&self) -> References {
        let mut found = References::default();
        for ((old, new), (stayed, went)) in &self.references {
            if !self.received.contains(old) {
                found.outside += stayed;
                continue;
            }
            found.removed += went;
            if self.made.contains(new) {
                found.to_written += stayed;
            } else if self.asides.contains(old) {
                found.to_set_aside += stayed;
            } else {
                found.broken += stayed;
            }
        }
        found
    }
}

/// All that instances are referred to by, at any depth.
fn references_in(data_set: &DataSet, found: &mut HashMap<String, u64>) {
    for element in &data_set.elements {
        match &element.value {
            Value::Items(items) => items.iter().for_each(|item| references_in(item, found)),
            Value::Bytes(_) if element.tag == tags::REFERENCED_SOP_INSTANCE_UID => {
                let text = String::from_utf8_lossy(element.bytes().unwrap_or_default());
                for uid in text.split('\\').filter(|uid| !uid.is_empty()) {
                    *found.entry(uid.to_owned()).or_default() += 1;
                }
            }
            _ => {}
        }
    }
}

/// What decides who is looked at: nobody can choose it, and it is the same again.
fn sample_hash(uid: &str) -> u64 {
    let digest = digest(&SHA256, uid.as_bytes());
    let first = digest.as_ref().first_chunk().copied().unwrap_or_default();
    u64::from_be_bytes(first)
}

fn texts(counts: &BTreeMap<String, u64>) -> Vec<TextCount> {
    counts.iter().map(|(text, count)| TextCount { text: text.clone(), count: *count }).collect()
}

/// The name of a SOP class in PS3.6, or its UID.
pub fn class_name(uid: &str) -> String {
    StandardSopClassDictionary
        .by_uid(uid)
        .map_or_else(|| uid.to_owned(), |entry| entry.name().to_owned())
}

/// Who decided, for people: a rule by its id.
pub fn origin_name(origin: Origin, profile: &Profile) -> String {
    match origin {
        Origin::Rule(at) => profile
            .rules
            .get(at)
            .map_or_else(|| origin.to_string(), |rule| format!("rule \"{}\"", rule.id)),
        other => other.to_string(),
    }
}

/// Whether it is a rule that keeps patients safe that sets an object aside, rather than a fault of object or machine.
pub fn is_safety_rule(why: &SetAside) -> bool {
    matches!(
        why,
        SetAside::Class(_)
            | SetAside::UnknownClass(_)
            | SetAside::NoSubject
            | SetAside::Rule(_)
            | SetAside::Risky(_)
            | SetAside::Legible(_)
            | SetAside::Verification(_)
    )
}

/// The options of a profile as CID 7050 codes them; the Basic Profile first.
pub fn options(profile: &Profile) -> Vec<OptionFacts> {
    let basic = OptionFacts { option: "basic", code: BASIC_PROFILE.0, meaning: BASIC_PROFILE.1 };
    let on = profile.options.iter().map(|option| OptionFacts {
        option: option.as_str(),
        code: option.code(),
        meaning: option.meaning(),
    });
    std::iter::once(basic).chain(on).collect()
}

/// Where the project key came from.
#[derive(Clone, Copy, Debug)]
pub enum KeyOrigin<'a> {
    /// This file.
    File(&'a str),
    /// It was made for this run, and is gone.
    Fresh,
}

impl std::fmt::Display for KeyOrigin<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "read from {path}"),
            Self::Fresh => f.write_str("made for this run and not kept"),
        }
    }
}

/// What is known of a run as a whole.
#[derive(Clone, Debug)]
pub struct Run<'a> {
    /// What made the objects.
    pub deidentifier: &'a Deidentifier,
    /// Where its key came from.
    pub key: KeyOrigin<'a>,
    /// Who may read the originals.
    pub recipients: &'a [Recipient],
    /// The program that searched pixels for text, if one did.
    pub ocr: Option<String>,
    /// When.
    pub at: jiff::Timestamp,
    /// DICOMDIRs, which are not copied.
    pub directories: u64,
    /// Files that are not DICOM.
    pub not_dicom: u64,
}

/// What was done, for people and for programs.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Program and version.
    pub program: String,
    /// When, RFC 3339 in UTC.
    pub made_at: String,
    /// By which profile.
    pub profile: ProfileFacts,
    /// Profile and options of PS3.15, as CID 7050 codes them.
    pub options: Vec<OptionFacts>,
    /// What can be linked.
    pub linkage: LinkageFacts,
    /// The project key.
    pub key: KeyFacts,
    /// Objects.
    pub counts: Counts,
    /// By SOP class.
    pub classes: Vec<ClassFacts>,
    /// Attributes by what was done with them.
    pub actions: Vec<ActionFacts>,
    /// By attribute, who decided and what was done.
    pub attributes: Vec<AttributeFacts>,
    /// What was encrypted, and for whom.
    pub sealed: Sealed,
    /// What was set aside, and why.
    pub set_aside: Vec<Aside>,
    /// The search through what was written.
    pub verification: Verification,
    /// Pixels.
    pub pixels: PixelFacts,
    /// References between the objects.
    pub references: References,
    /// What nobody looked at.
    pub not_checked: Vec<String>,
    /// What a person shall look at.
    pub review: Review,
    /// What people fill in.
    pub governance: Governance,
}

impl Report {
    /// The page: one file, for screen and paper.
    pub fn to_html(&self) -> String {
        html::page(self)
    }
}

/// A profile.
#[derive(Clone, Debug, Serialize)]
pub struct ProfileFacts {
    /// Its name.
    pub name: String,
    /// Its author's version.
    pub version: String,
    /// SHA-256 of its file.
    pub digest: String,
    /// What it is for.
    pub description: String,
    /// The edition of PS3.15 whose tables it uses.
    pub edition: &'static str,
    /// Its rules.
    pub rules: Vec<RuleFacts>,
}

impl ProfileFacts {
    /// Of this profile.
    pub fn of(profile: &Profile) -> Self {
        let rules = profile.rules.iter();
        Self {
            name: profile.name.clone(),
            version: profile.version.clone(),
            digest: profile.digest.clone(),
            description: profile.description.clone(),
            edition: EDITION,
            rules: rules
                .map(|rule| RuleFacts { id: rule.id.clone(), reason: rule.reason.clone() })
                .collect(),
        }
    }
}

/// A rule of the profile.
#[derive(Clone, Debug, Serialize)]
pub struct RuleFacts {
    /// What it is called.
    pub id: String,
    /// Why it is there.
    pub reason: Option<String>,
}

/// An option of PS3.15.
#[derive(Clone, Debug, Serialize)]
pub struct OptionFacts {
    /// As a profile writes it.
    pub option: &'static str,
    /// Code Value of CID 7050, scheme DCM.
    pub code: &'static str,
    /// Code Meaning.
    pub meaning: &'static str,
}

/// What can be linked by whom.
#[derive(Clone, Debug, Serialize)]
pub struct LinkageFacts {
    /// `pseudonymised` or `de-identified per study`.
    pub word: &'static str,
    /// What that means here.
    pub meaning: String,
}

impl LinkageFacts {
    fn of(linkage: Linkage, key: KeyOrigin<'_>) -> Self {
        let (word, what) = match linkage {
            Linkage::Project => {
                ("pseudonymised", "One patient has one pseudonym in all of these objects.")
            }
            Linkage::Study => (
                "de-identified per study",
                "Pseudonyms, UIDs and moved dates tell nothing of which studies are of one patient.",
            ),
        };
        let who = match key {
            KeyOrigin::File(_) => {
                "Who holds the key and the originals can tell whose they are; in their hands these stay personal data."
            }
            KeyOrigin::Fresh => {
                "The key was made for this run and is not kept, so nobody can make the same pseudonyms again. \
                 Who holds the originals may still recognise images."
            }
        };
        Self { word, meaning: format!("{what} {who}") }
    }
}

/// The project key; never the key itself.
#[derive(Clone, Debug, Serialize)]
pub struct KeyFacts {
    /// What names it.
    pub fingerprint: String,
    /// Where it came from.
    pub origin: String,
    /// Whether it is kept.
    pub kept: bool,
}

/// Objects. `objects` is the sum of written, repeated and set aside.
#[derive(Clone, Debug, Serialize)]
pub struct Counts {
    /// DICOM objects that were read.
    pub objects: u64,
    /// Written.
    pub written: u64,
    /// The same as one that was written.
    pub repeated: u64,
    /// Set aside.
    pub set_aside: u64,
    /// Of those, by a rule that keeps patients safe.
    pub set_aside_by_rule: u64,
    /// DICOMDIRs, which are not copied.
    pub directories: u64,
    /// Files that are not DICOM, which are not copied.
    pub not_dicom: u64,
}

/// A SOP class.
#[derive(Clone, Debug, Serialize)]
pub struct ClassFacts {
    /// Its UID.
    pub uid: String,
    /// Its name.
    pub name: String,
    /// Objects written.
    pub written: u64,
    /// Objects set aside.
    pub set_aside: u64,
}

/// An action.
#[derive(Clone, Debug, Serialize)]
pub struct ActionFacts {
    /// Which one.
    pub action: &'static str,
    /// On how many attributes.
    pub count: u64,
}

/// What was done with an attribute.
#[derive(Clone, Debug, Serialize)]
pub struct AttributeFacts {
    /// Its keyword, or its tag.
    pub keyword: String,
    /// Its tag.
    pub tag: String,
    /// Its value representation.
    pub vr: String,
    /// Who decided.
    pub origin: String,
    /// What was done.
    pub action: &'static str,
    /// How often.
    pub count: u64,
}

/// How often an attribute was there.
#[derive(Clone, Debug, Serialize)]
pub struct AttributeCount {
    /// Its keyword, or its tag.
    pub keyword: String,
    /// Its tag.
    pub tag: String,
    /// How often.
    pub count: u64,
}

/// What was encrypted (PS3.15 E.1.2).
#[derive(Clone, Debug, Serialize)]
pub struct Sealed {
    /// For whom; nobody, if nothing was.
    pub recipients: Vec<SealedTo>,
    /// The attributes whose originals are inside.
    pub attributes: Vec<AttributeCount>,
}

/// A certificate.
#[derive(Clone, Debug, Serialize)]
pub struct SealedTo {
    /// Whose (RFC 4514).
    pub subject: String,
    /// SHA-256, in hexadecimal.
    pub fingerprint: String,
    /// When its time ends.
    pub valid_until: String,
}

/// An object that was set aside.
#[derive(Clone, Debug, Serialize)]
pub struct Aside {
    /// Its place in the input, from 1; standard error named its file.
    pub number: u64,
    /// The SOP Instance UID that it would have had.
    pub sop_instance_uid: Option<String>,
    /// Its class.
    pub sop_class: Option<String>,
    /// Why.
    pub reason: String,
    /// Whether that is a rule that keeps patients safe, rather than a fault.
    pub by_rule: bool,
}

/// What the search through what was written said.
#[derive(Clone, Debug, Serialize)]
pub struct Verification {
    /// Objects that passed; only those were written.
    pub passed: u64,
    /// What was found in those that did not.
    pub findings: Vec<TextCount>,
}

/// A text, and of how many objects it is true.
#[derive(Clone, Debug, Serialize)]
pub struct TextCount {
    /// The text.
    pub text: String,
    /// Objects.
    pub count: u64,
}

/// What was done about pixels.
#[derive(Clone, Debug, Serialize)]
pub struct PixelFacts {
    /// Why images may show who the patient is.
    pub risks: Vec<TextCount>,
    /// Masks that were applied.
    pub masks: Vec<TextCount>,
    /// Why some left without one.
    pub passed_without_mask: Vec<TextCount>,
    /// That a face may be made out.
    pub faces: Vec<TextCount>,
    /// What compressed frames hid.
    pub notes: Vec<TextCount>,
    /// The search for text.
    pub text_search: TextSearchFacts,
}

/// The search for text in pixels.
#[derive(Clone, Debug, Serialize)]
pub struct TextSearchFacts {
    /// Whether the profile asks for one.
    pub wanted: bool,
    /// With what.
    pub engine: Option<String>,
    /// Objects in which nothing was found.
    pub objects: u64,
    /// Frames that were looked at.
    pub frames: u64,
    /// Objects that nobody looked at, and why.
    pub not_checked: Vec<TextCount>,
}

/// Where references to instances of the input lead in the result (Referenced SOP Instance UID (0008,1155)).
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct References {
    /// To an instance that was written.
    pub to_written: u64,
    /// To one that was set aside.
    pub to_set_aside: u64,
    /// The profile removed the reference.
    pub removed: u64,
    /// To nothing. Between studies that are not linked that is meant; else it must be 0.
    pub broken: u64,
    /// To instances that were not in the input.
    pub outside: u64,
}

/// What a person shall look at.
#[derive(Clone, Debug, Serialize)]
pub struct Review {
    /// How many of a thousand, and at least one of each class.
    pub per_mille: u16,
    /// Which.
    pub objects: Vec<ToLookAt>,
}

/// An object to look at, and what is to be filled in.
#[derive(Clone, Debug, Serialize)]
pub struct ToLookAt {
    /// Its file.
    pub file: String,
    /// Its class.
    pub sop_class: String,
    /// Who looked.
    pub name: String,
    /// When.
    pub date: String,
    /// What was found.
    pub finding: String,
}

/// What people fill in.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Governance {
    /// What the data are for.
    pub purpose: String,
    /// Who gets them.
    pub recipients: String,
    /// The data protection impact assessment.
    pub dpia_reference: String,
    /// Who holds the key.
    pub key_holder: String,
}

#[cfg(test)]
mod tests;
