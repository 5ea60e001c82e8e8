//! What a profile file says, checked: every mistake at once, each with its line and what to do.
//!
//! A profile begins with the Basic Profile of PS3.15 and says where it differs: options of the standard, rules of its own,
//! and what to do about subjects, dates, private data, text, pixels and kinds of object. What it does not say has the safe
//! answer. Its digest names it in every object that it made.

mod condition;
mod near;
mod select;

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::ops::Range;

use dicom_core::dictionary::{UidDictionary, UidDictionaryEntry};
use dicom_core::{Tag, VR};
use dicom_dictionary_std::StandardSopClassDictionary;
use ring::digest::{SHA256, digest};
use serde::Deserialize;
use serde_spanned::Spanned;

pub use condition::Condition;
pub use select::{Place, Selector};

use crate::table::{self, Code, Options, ProfileOption};

/// The longest shift of dates, in days: a century.
const MOST_DAYS: i32 = 36_525;

/// A profile that was understood.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Its name, such as `research`.
    pub name: String,
    /// Its author's version.
    pub version: String,
    /// What it is for, for people.
    pub description: String,
    /// SHA-256 of its file, in hexadecimal.
    pub digest: String,
    /// Options of PS3.15 that are on.
    pub options: Options,
    /// Whose object it is.
    pub subject: Subject,
    /// Dates and ages.
    pub dates: Dates,
    /// Which UIDs are replaced.
    pub uids: UidScope,
    /// Private attributes.
    pub private: Private,
    /// Objects of classes whose IOD is not known here.
    pub unknown_class: ClassPolicy,
    /// What is said of single SOP classes, by UID.
    pub classes: BTreeMap<String, ClassPolicy>,
    /// Rules, in the order in which they are asked.
    pub rules: Vec<Rule>,
    /// Words that cleaned texts may have, beyond the built-in ones; lower case.
    pub words: HashSet<String>,
    /// Pixels.
    pub pixels: Pixels,
    /// How many of a thousand objects a person shall look at.
    pub sample_per_mille: u16,
}

/// How a subject is found and named.
#[derive(Clone, Debug)]
pub struct Subject {
    /// What to do with an object that does not say whose it is.
    pub missing: Missing,
    /// What pseudonyms begin with.
    pub prefix: String,
    /// How many characters follow, of 5 bits each.
    pub length: usize,
}

/// What to do with an object that does not say whose it is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum Missing {
    /// It is set aside.
    Reject,
    /// Each study is a subject of its own.
    PerStudy,
}

/// Dates and ages.
#[derive(Clone, Debug)]
pub struct Dates {
    /// By how many days dates move at least and at most, where they move.
    pub shift_days: (i32, i32),
    /// What becomes of the birth date.
    pub birth_date: BirthDate,
    /// Ages of more years are one and the same.
    pub age_cap: u16,
}

/// What becomes of Patient's Birth Date (0010,0030). It never just moves: with an age it would tell by how much.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum BirthDate {
    /// Emptied.
    Empty,
    /// Its first of January, unless the patient is older than the cap.
    Year,
}

/// Which UIDs are replaced.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum UidScope {
    /// All that name things, listed in Table E.1-1 or not.
    All,
    /// Those that Table E.1-1 lists.
    Table,
}

/// Private attributes.
#[derive(Clone, Debug, Default)]
pub struct Private {
    /// Whether what the object itself declares safe (0008,0300) is kept, under the option Retain Safe Private.
    pub declared: bool,
    /// Kept in addition to the standard's list, under the option Retain Safe Private: group, creator, low byte.
    pub safe: HashSet<(u16, String, u8)>,
}

/// What to do with objects of a class.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum ClassPolicy {
    /// They are de-identified.
    Keep,
    /// They are set aside.
    Reject,
    /// Their document or content is replaced by an empty one.
    Dummy,
}

/// One rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// What reports call it.
    pub id: String,
    /// What it is for; none for a rule on whole objects.
    pub select: Vec<Selector>,
    /// When it holds; always, if there is none.
    pub when: Option<Condition>,
    /// What to do.
    pub action: RuleAction,
    /// Why, for whoever reviews.
    pub reason: Option<String>,
}

/// What a rule does.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum RuleAction {
    /// As a code of the standard.
    Code(Code),
    /// The subject's pseudonym.
    Pseudonym,
    /// A date moves with the subject's others.
    Shift,
    /// Of a date the year stays.
    Year,
    /// An age above the cap is one and the same.
    AgeCap,
    /// A label that is the same for the same text.
    Hash,
    /// This text, also where there was none.
    Set(String),
    /// This text, where there was one.
    Replace(String),
    /// The object is set aside.
    Reject,
}

/// Pixels.
#[derive(Clone, Debug)]
pub struct Pixels {
    /// Whether the option Clean Pixel Data is on: masks are applied, and the result says so.
    pub clean: bool,
    /// Why risky objects without a mask pass, if they do; else they are set aside.
    pub risky_pass: Option<String>,
    /// The files of masks that it names, beside the built-in library.
    pub masks: Vec<String>,
    /// Whether text is searched by OCR, where tesseract is installed.
    pub ocr: bool,
}

/// Whether a profile can be used in spite of it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Severity {
    /// It cannot.
    Problem,
    /// It can; somebody should look at it.
    Warning,
}

/// One thing that was found in a profile file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    /// Whether it can be used.
    pub severity: Severity,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// The line itself.
    pub text: String,
    /// How many characters of it are meant.
    pub length: usize,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: String,
}

/// As compilers do it: place, message, the line with what is meant underlined, help.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Problem => "problem",
            Severity::Warning => "warning",
        };
        let number = self.line.to_string();
        let (indent, before) =
            (" ".repeat(number.len()), " ".repeat(self.column.saturating_sub(1)));
        writeln!(f, "{severity}: {}", self.message)?;
        writeln!(f, "{indent}--> line {}, column {}", self.line, self.column)?;
        writeln!(f, "{number} | {}", self.text)?;
        writeln!(f, "{indent} | {before}{}", "^".repeat(self.length.max(1)))?;
        write!(f, "{indent} = {}", self.help)
    }
}

/// What became of a profile file.
#[derive(Debug)]
pub struct Read {
    /// The profile, unless there is a problem.
    pub profile: Option<Profile>,
    /// Problems and warnings, in the order of the file.
    pub findings: Vec<Finding>,
}

type Text = Option<Spanned<String>>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    schema: Option<Spanned<i64>>,
    name: Text,
    #[serde(default)]
    version: Text,
    #[serde(default)]
    description: Text,
    edition: Text,
    #[serde(default)]
    base: Text,
    #[serde(default)]
    options: Vec<Spanned<String>>,
    #[serde(default)]
    subject: SubjectSection,
    #[serde(default)]
    dates: DatesSection,
    #[serde(default)]
    uids: UidsSection,
    #[serde(default)]
    private: PrivateSection,
    #[serde(default)]
    unknown: UnknownSection,
    #[serde(default)]
    sop_classes: BTreeMap<Spanned<String>, ClassPolicy>,
    #[serde(default)]
    text: TextSection,
    #[serde(default)]
    rule: Vec<Spanned<RuleSection>>,
    #[serde(default)]
    pixels: PixelsSection,
    #[serde(default)]
    review: ReviewSection,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SubjectSection {
    missing: Option<Missing>,
    prefix: Text,
    length: Option<Spanned<usize>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct DatesSection {
    shift_days: Option<Spanned<(i32, i32)>>,
    birth_date: Option<BirthDate>,
    age_cap: Option<u16>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct UidsSection {
    scope: Option<UidScope>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct PrivateSection {
    #[serde(default)]
    declared: bool,
    #[serde(default)]
    safe: Vec<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct UnknownSection {
    sop_class: Option<ClassPolicy>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct TextSection {
    #[serde(default)]
    words: Vec<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleSection {
    id: Text,
    select: Option<Spanned<OneOrMore>>,
    when: Text,
    action: Option<Spanned<toml::Value>>,
    reason: Text,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct PixelsSection {
    #[serde(default)]
    risky_without_mask: Option<Spanned<toml::Value>>,
    #[serde(default)]
    masks: Vec<String>,
    #[serde(default)]
    ocr: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReviewSection {
    sample_per_mille: Option<u16>,
}

/// Reads the text of a profile file.
pub fn read(text: &str) -> Read {
    let mut check = Check { text, findings: Vec::new() };
    let file: File = match toml::from_str(text) {
        Ok(file) => file,
        Err(error) => {
            let help = "See `gantry deid profiles --show basic` for what a profile may say.";
            check.problem(error.span().unwrap_or(0..0), error.message(), help);
            return Read { profile: None, findings: check.findings };
        }
    };
    let profile = check.profile(file);
    check.findings.sort_by_key(|finding| (finding.line, finding.column));
    let usable = check.findings.iter().all(|finding| finding.severity == Severity::Warning);
    Read { profile: profile.filter(|_| usable), findings: check.findings }
}

struct Check<'a> {
    text: &'a str,
    findings: Vec<Finding>,
}

impl Check<'_> {
    fn problem(&mut self, at: Range<usize>, message: impl Into<String>, help: impl Into<String>) {
        self.find(Severity::Problem, at, &message.into(), help.into());
    }

    fn warning(&mut self, at: Range<usize>, message: impl Into<String>, help: impl Into<String>) {
        self.find(Severity::Warning, at, &message.into(), help.into());
    }

    fn find(&mut self, severity: Severity, at: Range<usize>, message: &str, help: String) {
        let before = self.text.get(..at.start).unwrap_or(self.text);
        let begin = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = self.text.get(begin..).and_then(|rest| rest.lines().next()).unwrap_or_default();
        let meant = self.text.get(at.clone()).unwrap_or_default();
        self.findings.push(Finding {
            severity,
            line: before.matches('\n').count() + 1,
            column: before.get(begin..).map_or(0, |text| text.chars().count()) + 1,
            text: line.to_owned(),
            length: meant.lines().next().unwrap_or_default().chars().count(),
            message: message.replace('\n', " "),
            help,
        });
    }

    fn profile(&mut self, file: File) -> Option<Profile> {
        let whole = 0..0;
        match &file.schema {
            Some(schema) if *schema.get_ref() == 1 => {}
            Some(schema) => {
                self.problem(schema.span(), "this schema is unknown", "Write schema = 1.");
            }
            None => self.problem(
                whole.clone(),
                "the schema is missing",
                "Write schema = 1 in the first line.",
            ),
        }
        match &file.edition {
            Some(edition) if edition.get_ref() == table::EDITION => {}
            Some(edition) => {
                let help = format!(
                    "Write edition = \"{}\": its tables are the ones here.",
                    table::EDITION
                );
                self.problem(edition.span(), "the tables of this edition are not here", help);
            }
            None => {
                let help = format!("Write edition = \"{}\".", table::EDITION);
                self.problem(whole.clone(), "the edition of PS3.15 is missing", help);
            }
        }
        if let Some(base) = file.base.as_ref().filter(|base| base.get_ref() != "basic") {
            self.problem(
                base.span(),
                "there is one base profile",
                "Write base = \"basic\", or leave it out.",
            );
        }
        let name = self.name(file.name.as_ref());
        let options = self.options(&file.options);
        let subject = self.subject(&file.subject);
        let dates = self.dates(&file.dates, options);
        let private = self.private(&file.private, options);
        let classes = self.classes(&file.sop_classes);
        let words = self.words(&file.text.words, options);
        let rules = self.rules(&file.rule);
        let pixels = self.pixels(&file.pixels, options);
        let digest = digest(&SHA256, self.text.as_bytes());
        Some(Profile {
            name: name?,
            version: file.version.map_or_else(|| "1".to_owned(), Spanned::into_inner),
            description: file.description.map(Spanned::into_inner).unwrap_or_default(),
            digest: digest
                .as_ref()
                .iter()
                .fold(String::new(), |out, byte| format!("{out}{byte:02x}")),
            options,
            subject,
            dates,
            uids: file.uids.scope.unwrap_or(UidScope::All),
            private,
            unknown_class: file.unknown.sop_class.unwrap_or(ClassPolicy::Reject),
            classes,
            rules,
            words,
            pixels,
            sample_per_mille: file.review.sample_per_mille.unwrap_or(20).min(1000),
        })
    }

    fn name(&mut self, written: Option<&Spanned<String>>) -> Option<String> {
        let help = "Write 1 to 32 lower-case letters, digits and hyphens, such as name = \"research-lung\".";
        let Some(name) = written else {
            self.problem(0..0, "the profile's name is missing", help);
            return None;
        };
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.get_ref().is_empty()
            || name.get_ref().len() > 32
            || !name.get_ref().chars().all(allowed)
        {
            self.problem(name.span(), "this is not a name for a profile", help);
            return None;
        }
        Some(name.get_ref().clone())
    }

    fn options(&mut self, written: &[Spanned<String>]) -> Options {
        let mut options = Options::default();
        for text in written {
            let Some(option) = ProfileOption::parse(text.get_ref()) else {
                let names = ProfileOption::all().map(ProfileOption::as_str);
                let list: Vec<_> = names.clone().collect();
                let help =
                    format!("{}There are {}.", near::word(text.get_ref(), names), list.join(", "));
                self.problem(text.span(), "this option is unknown", help);
                continue;
            };
            if options.has(option) {
                self.warning(text.span(), "this option is named twice", "Remove one.");
            }
            let other = match option {
                ProfileOption::RetainLongFullDates => Some(ProfileOption::RetainLongModifiedDates),
                ProfileOption::RetainLongModifiedDates => Some(ProfileOption::RetainLongFullDates),
                _ => None,
            };
            if other.is_some_and(|other| options.has(other)) {
                let help = "Keep retain_long_modified_dates unless the exact dates are needed.";
                self.problem(
                    text.span(),
                    "dates cannot be both kept and moved (PS3.15 E.3.6)",
                    help,
                );
            }
            options = options.with(option);
        }
        options
    }

    fn subject(&mut self, section: &SubjectSection) -> Subject {
        let prefix =
            section.prefix.as_ref().map(|prefix| prefix.get_ref().clone()).unwrap_or_default();
        let allowed = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '-';
        if let Some(written) = &section.prefix
            && (prefix.len() > 16 || !prefix.chars().all(allowed))
        {
            let help =
                "Write at most 16 capital letters, digits and hyphens, such as prefix = \"LUNG-\".";
            self.problem(written.span(), "pseudonyms cannot begin like this", help);
        }
        let length = section.length.as_ref().map_or(16, |length| *length.get_ref());
        if let Some(written) = section.length.as_ref().filter(|_| !(12..=32).contains(&length)) {
            let help = "Write 12 to 32: 12 characters are 60 bits, the least at which two patients of a million do not meet.";
            self.problem(written.span(), "pseudonyms cannot have this length", help);
        }
        Subject { missing: section.missing.unwrap_or(Missing::Reject), prefix, length }
    }

    fn dates(&mut self, section: &DatesSection, options: Options) -> Dates {
        let shift_days = section.shift_days.as_ref().map_or((-1825, -365), |days| *days.get_ref());
        if let Some(written) = &section.shift_days {
            let (low, high) = shift_days;
            if low >= high || low < -MOST_DAYS || high > MOST_DAYS {
                let help = "Write the least and the most days, such as shift_days = [-1825, -365].";
                self.problem(written.span(), "dates cannot move by this", help);
            } else if high - low < 30 {
                let help = "Widen it to some hundred days: who knows one date of a patient knows the shift, and a narrow range is guessed.";
                self.warning(written.span(), "dates move by nearly the same for everybody", help);
            }
            if !options.has(ProfileOption::RetainLongModifiedDates) {
                let help = "Add \"retain_long_modified_dates\" to options, or remove it here.";
                self.warning(written.span(), "dates do not move: the option is off", help);
            }
        }
        Dates {
            shift_days,
            birth_date: section.birth_date.unwrap_or(BirthDate::Empty),
            age_cap: section.age_cap.unwrap_or(89),
        }
    }

    fn private(&mut self, section: &PrivateSection, options: Options) -> Private {
        let mut safe = HashSet::new();
        for written in &section.safe {
            if let Ok(Selector::Private { group, creator, element }) =
                Selector::parse(written.get_ref())
            {
                safe.insert((group, creator, element));
            } else {
                let help = "Write such as '(0029,\"SIEMENS CSA HEADER\",10)': an odd group, the creator, two digits.";
                self.problem(written.span(), "this is no private attribute", help);
            }
        }
        if let Some(written) = section.safe.first()
            && !options.has(ProfileOption::RetainSafePrivate)
        {
            let help = "Add \"retain_safe_private\" to options, or remove this list.";
            self.warning(written.span(), "private attributes are removed: the option is off", help);
        }
        Private { declared: section.declared, safe }
    }

    fn classes(
        &mut self,
        written: &BTreeMap<Spanned<String>, ClassPolicy>,
    ) -> BTreeMap<String, ClassPolicy> {
        let mut classes = BTreeMap::new();
        for (class, policy) in written {
            let text = class.get_ref();
            let by_uid = StandardSopClassDictionary.by_uid(text);
            let found = by_uid.or_else(|| {
                StandardSopClassDictionary.by_keyword(text).or_else(|| {
                    table::known_classes()
                        .filter_map(|uid| StandardSopClassDictionary.by_uid(uid))
                        .find(|entry| entry.name() == text)
                })
            });
            if let Some(entry) = found {
                classes.insert(entry.uid().to_owned(), *policy);
            } else {
                let names = table::known_classes()
                    .filter_map(|uid| StandardSopClassDictionary.by_uid(uid))
                    .map(UidDictionaryEntry::name);
                let help = format!(
                    "{}Write its name or UID, such as \"Encapsulated PDF Storage\".",
                    near::word(text, names)
                );
                self.problem(class.span(), "this SOP class is unknown", help);
            }
        }
        classes
    }

    fn words(&mut self, written: &[Spanned<String>], options: Options) -> HashSet<String> {
        let mut words = HashSet::new();
        for word in written {
            if word.get_ref().is_empty()
                || !word.get_ref().chars().all(|c| c.is_ascii_alphanumeric())
            {
                let help = "Write single words of letters and digits, such as \"thorax\".";
                self.problem(word.span(), "this is not one word", help);
            }
            words.insert(word.get_ref().to_ascii_lowercase());
        }
        if let Some(word) = written.first()
            && !options.has(ProfileOption::CleanDescriptors)
            && !options.has(ProfileOption::CleanStructuredContent)
        {
            let help = "Add \"clean_descriptors\" to options; without it descriptions are removed.";
            self.warning(word.span(), "no text is cleaned: the option is off", help);
        }
        words
    }

    fn rules(&mut self, sections: &[Spanned<RuleSection>]) -> Vec<Rule> {
        let mut rules: Vec<Rule> = Vec::new();
        for section in sections {
            let Some(rule) = self.rule(section) else { continue };
            if let Some(other) = rules.iter().find(|other| other.id == rule.id) {
                let message = format!("two rules are called {}", other.id);
                self.problem(
                    section.span(),
                    message,
                    "Rename one: reports name rules by their id.",
                );
            }
            let shadow = rules.iter().find(|earlier| {
                earlier.when.is_none()
                    && !rule.select.is_empty()
                    && rule
                        .select
                        .iter()
                        .all(|selector| earlier.select.iter().any(|other| other.covers(selector)))
            });
            if let Some(shadow) = shadow {
                let message =
                    format!("this rule is never asked: {} comes first and covers it", shadow.id);
                self.problem(section.span(), message, "Move it before that rule, or remove it.");
            }
            rules.push(rule);
        }
        rules
    }

    fn rule(&mut self, section: &Spanned<RuleSection>) -> Option<Rule> {
        let body = section.get_ref();
        let id = body.id.as_ref().map(|id| id.get_ref().clone());
        if id.is_none() {
            self.problem(
                section.span(),
                "this rule has no id",
                "Write such as id = \"keep-protocol\".",
            );
        }
        let written: Vec<&String> = match body.select.as_ref().map(Spanned::get_ref) {
            None => Vec::new(),
            Some(OneOrMore::One(text)) => vec![text],
            Some(OneOrMore::More(texts)) => texts.iter().collect(),
        };
        let all = body.select.as_ref().map_or(0..0, Spanned::span);
        let mut select = Vec::new();
        for text in &written {
            match Selector::parse(text) {
                Ok(selector) => select.push(selector),
                Err((message, help)) => self.problem(self.inside(&all, text), message, help),
            }
        }
        let when = body.when.as_ref().and_then(|written| self.when(written));
        if body.action.is_none() {
            self.problem(section.span(), "this rule has no action", ACTIONS);
        }
        let action = body.action.as_ref().and_then(|action| self.action(action));
        if written.is_empty() && !matches!(action, Some(RuleAction::Reject) | None) {
            let help = "Write select = \"ProtocolName\", or action = \"reject\" to set whole objects aside.";
            self.problem(section.span(), "this rule selects nothing", help);
        }
        if let Some(action) = &action {
            self.kept_without_reason(section, &select, action);
            self.no_value(section, &select, action);
        }
        Some(Rule {
            id: id?,
            select,
            when,
            action: action?,
            reason: body.reason.as_ref().map(|reason| reason.get_ref().clone()),
        })
    }

    /// Where a text of a list stands: its first place with its quotes, or the whole list.
    fn inside(&self, list: &Range<usize>, text: &str) -> Range<usize> {
        let written = self.text.get(list.clone()).unwrap_or_default();
        let found =
            written.find(&format!("\"{text}\"")).or_else(|| written.find(&format!("'{text}'")));
        found.map_or(list.clone(), |at| list.start + at..list.start + at + text.len() + 2)
    }

    /// Keeping what the standard removes is a decision, and whoever reviews has to know why.
    fn kept_without_reason(
        &mut self,
        section: &Spanned<RuleSection>,
        select: &[Selector],
        action: &RuleAction,
    ) {
        let keeps = matches!(action, RuleAction::Code(Code::K));
        let body = section.get_ref();
        if !keeps || body.reason.as_ref().is_some_and(|reason| !reason.get_ref().trim().is_empty())
        {
            return;
        }
        let removed = select.iter().find_map(|selector| match selector {
            Selector::Tag(tag) | Selector::Path(_, Some(tag)) => {
                table::row(*tag).filter(|row| row.actions.basic != Code::K).map(|row| row.keyword)
            }
            Selector::Mask { .. } | Selector::Vr(_) | Selector::Path(_, None) => {
                Some("what it selects")
            }
            Selector::Private { .. } => Some("a private attribute"),
        });
        if let Some(keyword) = removed {
            let message = format!("this keeps {keyword}, which the Basic Profile does not");
            self.problem(
                section.span(),
                message,
                "Add why, such as reason = \"needed for dose, approved DPIA-17\".",
            );
        }
    }

    /// A rule that writes what its attributes cannot have, or is for attributes that no rule is asked about.
    fn no_value(
        &mut self,
        section: &Spanned<RuleSection>,
        select: &[Selector],
        action: &RuleAction,
    ) {
        for selector in select {
            let (Selector::Tag(tag) | Selector::Path(_, Some(tag))) = selector else { continue };
            if crate::decide::STRUCTURE.contains(tag) {
                let message = format!("no rule is asked about {}", keyword(*tag));
                let help = "Remove it: without that attribute an object is another one, or none.";
                self.problem(section.span(), message, help);
            }
            let (RuleAction::Set(text) | RuleAction::Replace(text)) = action else { continue };
            let vr = crate::data_set::dictionary_vr(*tag);
            let most = match vr {
                VR::SH | VR::CS | VR::AE => 16,
                VR::LO | VR::PN => 64,
                _ => 1024,
            };
            let fits = text.len() <= most && crate::engine::value::is_valid(vr, text.as_bytes());
            if !crate::data_set::is_text(vr) || !fits {
                let message = format!("{} cannot have this value", keyword(*tag));
                let help = format!("Write one of its value representation, {vr} (PS3.5 6.2).");
                self.problem(section.span(), message, help);
            }
        }
    }

    fn when(&mut self, written: &Spanned<String>) -> Option<Condition> {
        match Condition::parse(written.get_ref()) {
            Ok(condition) => {
                if let Some(why) = condition.impossible() {
                    self.problem(
                        written.span(),
                        format!("this can never hold: {why}"),
                        "Correct it, or remove the rule.",
                    );
                }
                Some(condition)
            }
            Err(bad) => {
                // Places inside a basic string without escapes are places of the file.
                let start = written.span().start + 1;
                let raw = self.text.get(start..start + written.get_ref().len());
                let at = if raw == Some(written.get_ref()) {
                    start + bad.at.start..start + bad.at.end
                } else {
                    written.span()
                };
                self.problem(at, bad.message, bad.help);
                None
            }
        }
    }

    fn action(&mut self, written: &Spanned<toml::Value>) -> Option<RuleAction> {
        let understood = match written.get_ref() {
            toml::Value::String(word) => match word.as_str() {
                "pseudonym" => Some(RuleAction::Pseudonym),
                "shift" => Some(RuleAction::Shift),
                "year" => Some(RuleAction::Year),
                "age_cap" => Some(RuleAction::AgeCap),
                "hash" => Some(RuleAction::Hash),
                "reject" => Some(RuleAction::Reject),
                code => Code::parse(code).map(RuleAction::Code),
            },
            toml::Value::Table(table) if table.len() == 1 => {
                match (table.get("set"), table.get("replace")) {
                    (Some(toml::Value::String(text)), _) => Some(RuleAction::Set(text.clone())),
                    (_, Some(toml::Value::String(text))) => Some(RuleAction::Replace(text.clone())),
                    _ => None,
                }
            }
            _ => None,
        };
        if let Some(RuleAction::Set(text) | RuleAction::Replace(text)) = &understood
            && !text.is_ascii()
        {
            let help = "Write ASCII: objects have different character sets.";
            self.problem(written.span(), "this text cannot be written into every object", help);
        }
        if understood.is_none() {
            let message = "this action is unknown, to this program and to edition 2026d";
            self.problem(written.span(), message, ACTIONS);
        }
        understood
    }

    fn pixels(&mut self, section: &PixelsSection, options: Options) -> Pixels {
        let mut risky_pass = None;
        if let Some(written) = &section.risky_without_mask {
            match written.get_ref() {
                toml::Value::String(word) if word == "set-aside" => {}
                toml::Value::Table(table) => match table.get("pass") {
                    Some(toml::Value::String(reason)) if !reason.trim().is_empty() => {
                        risky_pass = Some(reason.clone());
                    }
                    _ => self.problem(written.span(), "a reason is missing", RISKY),
                },
                _ => self.problem(written.span(), "this is unknown", RISKY),
            }
        }
        let clean = options.has(ProfileOption::CleanPixelData);
        if !section.masks.is_empty() && !clean {
            let help = "Add \"clean_pixel_data\" to options, or remove the masks.";
            self.warning(0..0, "masks are not used: the option is off", help);
        }
        Pixels { clean, risky_pass, masks: section.masks.clone(), ocr: section.ocr }
    }
}

const ACTIONS: &str = "Write a code (X, Z, D, K, C, U), pseudonym, shift, year, age_cap, hash, reject, \
                       { set = \"text\" } or { replace = \"text\" }.";

const RISKY: &str = "Write \"set-aside\", or { pass = \"why burned-in text may leave\" }.";

impl Profile {
    /// The policy for objects of this class; what is not said has the built-in answer.
    pub fn class(&self, sop_class: &str) -> ClassPolicy {
        if let Some(policy) = self.classes.get(sop_class) {
            return *policy;
        }
        if table::KnownClass::of(sop_class).is_none() {
            return self.unknown_class;
        }
        let content = self.options.has(ProfileOption::CleanStructuredContent);
        match sop_class {
            // A blank document helps nobody.
            class if class.starts_with("1.2.840.10008.5.1.4.1.1.104.") => ClassPolicy::Reject,
            class if is_structured_report(class) && !content => ClassPolicy::Reject,
            _ => ClassPolicy::Keep,
        }
    }

    /// The first rule for this attribute in this object.
    pub fn rule_for<'a>(&'a self, holding: &[bool], place: Place<'_>) -> Option<(usize, &'a Rule)> {
        self.rules.iter().enumerate().find(|(at, rule)| {
            holding.get(*at).copied().unwrap_or(false)
                && rule.select.iter().any(|selector| selector.selects(place))
        })
    }

    /// `research@0123456789ab`.
    pub fn reference(&self) -> String {
        format!("{}@{}", self.name, self.digest.get(..12).unwrap_or_default())
    }
}

/// Structured reports, Key Object Selection Documents left out: their content is references.
fn is_structured_report(sop_class: &str) -> bool {
    sop_class.starts_with("1.2.840.10008.5.1.4.1.1.88.")
        && sop_class != dicom_dictionary_std::uids::KEY_OBJECT_SELECTION_DOCUMENT_STORAGE
}

/// A profile that comes with the program.
#[derive(Clone, Copy, Debug)]
pub struct Shipped {
    /// Its name.
    pub name: &'static str,
    /// Its file.
    pub text: &'static str,
}

/// The profiles that come with the program.
pub const SHIPPED: [Shipped; 4] = [
    Shipped { name: "basic", text: include_str!("../data/profiles/basic.toml") },
    Shipped { name: "research", text: include_str!("../data/profiles/research.toml") },
    Shipped { name: "teaching", text: include_str!("../data/profiles/teaching.toml") },
    Shipped {
        name: "direct-care-minimal",
        text: include_str!("../data/profiles/direct-care-minimal.toml"),
    },
];

/// The shipped profile of this name.
pub fn shipped(name: &str) -> Option<Profile> {
    let found = SHIPPED.iter().find(|shipped| shipped.name == name)?;
    read(found.text).profile
}

/// An attribute's keyword, or its tag where the dictionary knows none.
pub fn keyword(tag: Tag) -> String {
    use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry};
    dicom_dictionary_std::StandardDataDictionary
        .by_tag(tag)
        .filter(|_| tag.group().is_multiple_of(2))
        .map_or_else(|| tag.to_string(), |entry| entry.alias().to_owned())
}

#[cfg(test)]
mod tests;
