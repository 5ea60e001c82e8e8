//! What is searched for: values that went, in all the ways in which they may be written.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use aho_corasick::{AhoCorasick, AhoCorasickBuilder};
use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;
use gantry_store::dicom::text as character_sets;
use ring::digest::{Context, SHA256};

use crate::engine::Lost;
use crate::engine::value::is_registered;
use crate::table::{self, Options, ProfileOption};
use crate::text;
use crate::values::{nhs_number, parse_date};

/// The shortest text that is searched for: shorter ones stand in everything.
const SHORTEST: usize = 4;
/// The shortest of ideographs and syllables, of which two are a name.
const SHORTEST_IDEOGRAPHS: usize = 2;
/// The shortest that is searched for among pixels, where a text of 4 characters occurs by chance.
const SHORTEST_IN_PIXELS: usize = 8;
/// The shortest number that is searched for where numbers belong.
const SHORTEST_NUMBER: usize = 6;
/// The shortest number that is searched for among dates, times and UIDs, which are of digits.
const SHORTEST_AMONG_DIGITS: usize = 10;
/// More than so many needles are too many for one object, which is not searched then, and set aside.
const MOST: usize = 50_000;

/// What is searched for in one object.
#[derive(Debug)]
pub(crate) struct Needles {
    /// Names, identifiers, dates and texts: the same in most objects of a series.
    texts: Arc<Texts>,
    /// UIDs, which differ in each.
    uids: HashMap<String, Tag>,
}

/// Texts, ready to be searched for.
#[derive(Debug)]
pub(crate) struct Texts {
    matcher: Option<AhoCorasick>,
    needles: Vec<Needle>,
    /// Whether there were more than can be searched for.
    cut: bool,
}

/// The texts of the last objects, as making them ready takes longer than searching for them.
#[derive(Debug, Default)]
pub(crate) struct Cache(Mutex<VecDeque<([u8; 32], Arc<Texts>)>>);

/// As many series as are read at once, and some.
const CACHED: usize = 16;

/// What a needle is, which decides where it may stand by chance.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    /// A person's name with two parts or more.
    Name,
    /// One word of a name, which may be a word of another meaning: Brain, White, Siemens.
    Word,
    /// A number or label of somebody.
    Identifier,
    /// A date, in one of its spellings.
    Date,
    /// A place, an address, a text of somebody.
    Text,
    /// What was examined and how: it says little, and the same is said elsewhere.
    Description,
}

/// What kind of value is searched.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Field {
    /// Words that anybody may have written.
    Text,
    /// Codes (CS): defined terms, and what devices make up.
    Code,
    /// Words out of a list that is not known here: meanings in published schemes of codes, makers and models.
    Listed,
    /// Numbers as text.
    Number,
    /// Dates and times.
    Date,
    /// UIDs.
    Uid,
    /// Bytes, words, numbers in binary.
    Bytes,
}

/// Schemes whose meanings are published (PS3.16 Table 8-1); those of a hospital or a maker are not among them.
const PUBLISHED: [&str; 22] = [
    "DCM",
    "SCT",
    "SRT",
    "SNM3",
    "99SDM",
    "LN",
    "UCUM",
    "RADLEX",
    "FMA",
    "MA",
    "NCIt",
    "UMLS",
    "BI",
    "ACR",
    "I10",
    "I9",
    "C4",
    "ISO639_1",
    "ISO639_2",
    "ISO3166_1",
    "RXNORM",
    "NYUMCCG",
];

impl Field {
    /// Of an attribute with this VR; `scheme`: the coding scheme of the item that it is in.
    pub(crate) fn of(tag: Tag, vr: VR, scheme: &str) -> Self {
        let coded = tag.group() == 0x0008 && (0x0100..=0x0122).contains(&tag.element());
        let product = matches!(
            tag,
            tags::MANUFACTURER
                | tags::MANUFACTURER_MODEL_NAME
                | tags::SOFTWARE_VERSIONS
                | tags::DETECTOR_MANUFACTURER_NAME
                | tags::RECEIVE_COIL_MANUFACTURER_NAME
                | tags::RESCALE_TYPE
        );
        match vr {
            VR::CS => Self::Code,
            VR::DS | VR::IS | VR::AS => Self::Number,
            VR::DA | VR::TM | VR::DT => Self::Date,
            VR::UI => Self::Uid,
            _ if !crate::data_set::is_text(vr) => Self::Bytes,
            _ if product || coded && PUBLISHED.contains(&scheme) => Self::Listed,
            _ => Self::Text,
        }
    }
}

#[derive(Clone, Debug)]
struct Needle {
    of: Tag,
    bytes: Vec<u8>,
    /// Whether what is before and behind must be no letter or digit.
    bounded: bool,
    kind: Kind,
    /// How many digits it has, if it has nothing else.
    digits: Option<usize>,
    /// Whether it is long enough not to occur among pixels by chance, and of the characters that are looked at there.
    in_pixels: bool,
}

impl Needle {
    /// Whether it tells something where it was found.
    fn counts(&self, field: Field, value: &[u8], at: std::ops::Range<usize>) -> bool {
        let long = |least| self.digits.is_none_or(|digits| digits >= least);
        // Of a number all of it, not what is before or behind its point.
        let whole = || {
            let joined = |at: Option<usize>| {
                at.and_then(|at| value.get(at))
                    .is_some_and(|byte| matches!(byte, b'.' | b'-' | b'+'))
            };
            !joined(at.start.checked_sub(1)) && !joined(Some(at.end))
        };
        match self.kind {
            Kind::Name => matches!(field, Field::Text | Field::Code | Field::Listed | Field::Bytes),
            // A word of a list is no name; of codes, which devices make up, the known ones are none.
            Kind::Word => match field {
                Field::Text | Field::Bytes => true,
                Field::Code => !is_of_known_words(value),
                _ => false,
            },
            Kind::Identifier => match field {
                Field::Text => true,
                Field::Code | Field::Listed | Field::Bytes => long(SHORTEST_NUMBER),
                Field::Number => long(SHORTEST_NUMBER) && whole(),
                Field::Date | Field::Uid => long(SHORTEST_AMONG_DIGITS),
            },
            // Among dates it may be another one that moved there.
            Kind::Date => match field {
                Field::Number => self.digits.is_some() && whole(),
                Field::Date | Field::Uid => false,
                _ => true,
            },
            Kind::Text => matches!(field, Field::Text | Field::Bytes),
            Kind::Description => field == Field::Text,
        }
    }
}

/// Whether all words of a value are known ones: a code of anatomy may be somebody's surname.
fn is_of_known_words(value: &[u8]) -> bool {
    std::str::from_utf8(value).is_ok_and(|value| {
        let mut words = value.trim_matches([' ', '\0']).split(['\\', ' ', '_', '-']);
        words.all(|word| word.is_empty() || text::is_known_word(word))
    })
}

#[derive(Default)]
struct Gathered {
    needles: Vec<Needle>,
    seen: HashSet<Vec<u8>>,
    cut: bool,
}

impl Gathered {
    /// A text in the encodings that an object may have it in, its own bytes among them.
    fn add(&mut self, of: Tag, text: &str, raw: Option<&[u8]>, kind: Kind) {
        let text = text.trim();
        let count = text.chars().count();
        let ideographs = text.chars().all(|c| c >= '\u{2E80}');
        if count < if ideographs { SHORTEST_IDEOGRAPHS } else { SHORTEST } {
            return;
        }
        self.put(of, text.as_bytes().to_vec(), true, kind);
        // Two characters of UTF-16 are four bytes, which occur by chance.
        if count >= SHORTEST {
            let wide: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
            self.put(of, wide, false, kind);
        }
        if !text.is_ascii() {
            // Texts are searched as they read, in small letters, too.
            self.put(of, text.to_lowercase().into_bytes(), true, kind);
            let latin: Option<Vec<u8>> =
                text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
            if let Some(latin) = latin {
                self.put(of, latin, true, kind);
            }
        }
        if let Some(raw) = raw.filter(|raw| *raw != text.as_bytes() && raw.len() >= SHORTEST) {
            self.put(of, raw.to_vec(), true, kind);
        }
    }

    fn put(&mut self, of: Tag, bytes: Vec<u8>, bounded: bool, kind: Kind) {
        let folded = bytes.to_ascii_lowercase();
        if self.seen.contains(&folded) {
            return;
        }
        if self.needles.len() >= MOST {
            self.cut = true;
            return;
        }
        self.seen.insert(folded);
        let digits = bytes.iter().all(u8::is_ascii_digit).then_some(bytes.len());
        let in_pixels =
            !matches!(kind, Kind::Date | Kind::Description) && bounded && stands_out(&bytes);
        self.needles.push(Needle { of, bytes, bounded, kind, digits, in_pixels });
    }

    /// A person's name: as it is, its parts, and the orders in which people write it.
    fn name(&mut self, lost: &Lost) {
        for (name, raw) in values(lost) {
            let several = name.split(['^', '=', ' ']).filter(|part| !part.is_empty()).count() > 1;
            let kind = if several { Kind::Name } else { Kind::Word };
            self.add(lost.tag, name, raw, kind);
            for group in name.split('=') {
                let parts: Vec<&str> = group.split('^').map(str::trim).collect();
                let (family, given) =
                    (parts.first().copied().unwrap_or(""), parts.get(1).copied().unwrap_or(""));
                if !family.is_empty() && !given.is_empty() {
                    for whole in [
                        format!("{family}^{given}"),
                        format!("{family} {given}"),
                        format!("{given} {family}"),
                        format!("{family}, {given}"),
                        format!("{family},{given}"),
                        format!("{given}.{family}"),
                        format!("{family}{given}"),
                        format!("{given}{family}"),
                    ] {
                        self.add(lost.tag, &whole, None, Kind::Name);
                    }
                }
                for part in parts {
                    self.add(lost.tag, part, None, Kind::Word);
                    for word in part.split([' ', '-']) {
                        self.add(lost.tag, word, None, Kind::Word);
                    }
                    // O'Brien is also written OBrien and O Brien.
                    if part.contains('\'') {
                        self.add(lost.tag, &part.replace('\'', ""), None, Kind::Word);
                        self.add(lost.tag, &part.replace('\'', " "), None, Kind::Word);
                        self.add(lost.tag, &part.replace('\'', "\u{2019}"), None, Kind::Word);
                    }
                }
            }
        }
    }

    fn date(&mut self, of: Tag, text: &str) {
        let digits: String = text.chars().filter(char::is_ascii_digit).take(8).collect();
        // What stands for "unknown" in half of all objects is nobody's date.
        if parse_date(&digits).is_none() || digits.starts_with("1900") {
            return;
        }
        let part = |range: std::ops::Range<usize>| digits.get(range).unwrap_or_default();
        let (year, month, day) = (part(0..4), part(4..6), part(6..8));
        let names =
            ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let name =
            month.parse::<usize>().ok().and_then(|month| names.get(month.wrapping_sub(1))).copied();
        let short = |text: &str| text.trim_start_matches('0').to_owned();
        let mut forms = vec![digits.clone()];
        for sign in ["-", "/", ".", ":", " "] {
            forms.push([year, month, day].join(sign));
            forms.push([day, month, year].join(sign));
            forms.push([month, day, year].join(sign));
            forms.push([short(day), short(month), year.to_owned()].join(sign));
        }
        if let Some(name) = name {
            for sign in [" ", "-"] {
                forms.push([day, name, year].join(sign));
                forms.push([short(day), name.to_owned(), year.to_owned()].join(sign));
            }
        }
        for form in forms {
            self.add(of, &form, None, Kind::Date);
        }
    }

    fn identifier(&mut self, lost: &Lost) {
        for (value, raw) in values(lost) {
            self.add(lost.tag, value, raw, Kind::Identifier);
            if let Some(number) = nhs_number(value) {
                let part = |range: std::ops::Range<usize>| number.get(range).unwrap_or_default();
                let parts = [part(0..3), part(3..6), part(6..10)];
                for written in [number.clone(), parts.join(" "), parts.join("-")] {
                    self.add(lost.tag, &written, None, Kind::Identifier);
                }
            }
        }
    }

    /// A description, an institution, an address: whole, and only if it says more than words of radiology do.
    fn text(&mut self, lost: &Lost) {
        // Codes and what they mean stand wherever they are used (PS3.3 8).
        if lost.tag.group() == 0x0008 && (0x0100..=0x0122).contains(&lost.tag.element()) {
            return;
        }
        let describes = table::row(lost.tag)
            .is_some_and(|row| row.actions.has(ProfileOption::CleanDescriptors));
        let kind = if describes { Kind::Description } else { Kind::Text };
        let none = (text::Identifiers::default(), HashSet::new());
        for value in lost.text.split(['\\', '\n', '\r']) {
            let value = value.trim();
            let ordinary = text::clean(value, &none.0, &none.1).len() + 2 >= value.len();
            if value.len() >= 6 && !ordinary && value.len() <= 256 {
                self.add(lost.tag, value, None, kind);
            }
        }
    }
}

/// The values of an attribute with their bytes; these are told only where the bytes are split like the characters: in some
/// character sets a byte 5CH is half of a character (PS3.5 6.1.2.5.3). One value has all of them.
fn values(lost: &Lost) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
    let one = !lost.text.contains('\\');
    let ascii = lost.bytes.is_ascii();
    let mut pieces = lost.bytes.split(|byte| *byte == b'\\');
    lost.text.split('\\').map(move |text| {
        let raw = if one { Some(lost.bytes.as_slice()) } else { pieces.next().filter(|_| ascii) };
        (text, raw)
    })
}

/// Identifiers of people and of what was done with them.
fn is_identifier(tag: Tag) -> bool {
    matches!(
        tag,
        tags::PATIENT_ID
            | crate::subject::OTHER_PATIENT_IDS
            | tags::ACCESSION_NUMBER
            | tags::STUDY_ID
            | tags::ADMISSION_ID
            | tags::REQUESTED_PROCEDURE_ID
            | tags::SCHEDULED_PROCEDURE_STEP_ID
            | tags::PERFORMED_PROCEDURE_STEP_ID
            | tags::FILLER_ORDER_NUMBER_IMAGING_SERVICE_REQUEST
            | tags::PLACER_ORDER_NUMBER_IMAGING_SERVICE_REQUEST
            | tags::DEVICE_SERIAL_NUMBER
    )
}

/// Whether so many such bytes do not occur by chance.
fn stands_out(bytes: &[u8]) -> bool {
    let digits = bytes.iter().all(u8::is_ascii_digit);
    let mut distinct = bytes.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    bytes.is_ascii()
        && bytes.len() >= if digits { 10 } else { SHORTEST_IN_PIXELS }
        && distinct.len() >= 4
}

impl Cache {
    fn texts(&self, lost: &[Lost], dates: bool) -> Arc<Texts> {
        let mut context = Context::new(&SHA256);
        context.update(&[u8::from(dates)]);
        for lost in lost.iter().filter(|lost| lost.vr != VR::UI) {
            context.update(&lost.tag.group().to_le_bytes());
            context.update(&lost.tag.element().to_le_bytes());
            context.update(&(lost.bytes.len() as u64).to_le_bytes());
            context.update(&lost.bytes);
            context.update(lost.text.as_bytes());
        }
        let mut key = [0; 32];
        key.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
        let find = |cached: &VecDeque<([u8; 32], Arc<Texts>)>| {
            cached.iter().find(|(of, _)| *of == key).map(|(_, texts)| Arc::clone(texts))
        };
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(texts) = find(&lock()) {
            return texts;
        }
        let texts = Arc::new(Texts::of(lost, dates));
        let mut cached = lock();
        if find(&cached).is_none() {
            cached.push_front((key, Arc::clone(&texts)));
            cached.truncate(CACHED);
        }
        texts
    }
}

impl Texts {
    fn of(lost: &[Lost], dates: bool) -> Self {
        let mut gathered = Gathered::default();
        // People first: the bound must not cut them off.
        for lost in lost.iter().filter(|lost| lost.vr == VR::PN || is_identifier(lost.tag)) {
            if lost.vr == VR::PN { gathered.name(lost) } else { gathered.identifier(lost) }
        }
        for lost in lost.iter().filter(|lost| lost.vr != VR::PN && !is_identifier(lost.tag)) {
            match lost.vr {
                // Dates that stay may stand in texts, too; that of the birth does not stay.
                VR::DA | VR::DT if !dates && lost.tag != tags::PATIENT_BIRTH_DATE => {}
                VR::DA | VR::DT => {
                    lost.text.split('\\').for_each(|value| gathered.date(lost.tag, value));
                }
                VR::UI | VR::TM | VR::CS | VR::IS | VR::DS | VR::AS => {}
                _ => gathered.text(lost),
            }
        }
        let needles = gathered.needles;
        let patterns = needles.iter().map(|needle| needle.bytes.as_slice());
        let mut builder = AhoCorasickBuilder::new();
        builder.ascii_case_insensitive(true);
        let matcher = if needles.is_empty() { None } else { builder.build(patterns).ok() };
        let cut = gathered.cut || matcher.is_none() && !needles.is_empty();
        Self { matcher, needles, cut }
    }

    fn hits(&self, bytes: &[u8], mut take: impl FnMut(&Needle, std::ops::Range<usize>)) {
        let Some(matcher) = self.matcher.as_ref().filter(|_| bytes.len() >= SHORTEST) else {
            return;
        };
        for hit in matcher.find_overlapping_iter(bytes) {
            if let Some(needle) = self.needles.get(hit.pattern().as_usize())
                && (!needle.bounded || is_bounded(bytes, hit.start(), hit.end()))
            {
                take(needle, hit.start()..hit.end());
            }
        }
    }
}

impl Needles {
    /// For what an object lost under these options.
    pub(crate) fn of(lost: &[Lost], options: Options, cache: &Cache) -> Self {
        let dates = !options.has(ProfileOption::RetainLongFullDates);
        let kept = options.has(ProfileOption::RetainUids);
        let things =
            lost.iter().filter(|lost| lost.vr == VR::UI && !kept && !table::is_kind_uid(lost.tag));
        let uids = things.flat_map(|lost| {
            lost.text.split('\\').map(|uid| (uid.trim_matches(['\0', ' ']).to_owned(), lost.tag))
        });
        // What the standard registers stands everywhere.
        let told = uids.filter(|(uid, _)| uid.len() >= 8 && !is_registered(uid));
        Self { texts: cache.texts(lost, dates), uids: told.collect() }
    }

    /// Whether there was more to search for than can be.
    pub(super) fn is_cut(&self) -> bool {
        self.texts.cut
    }

    /// The attributes whose values stand in this one, as its bytes are and as they read in their character set.
    pub(super) fn all_in(&self, field: Field, bytes: &[u8], set: &[u8]) -> Vec<Tag> {
        let mut found = Vec::new();
        let mut find = |of| {
            if !found.contains(&of) {
                found.push(of);
            }
        };
        let mut search = |value: &[u8]| {
            self.texts.hits(value, |needle, at| {
                if needle.counts(field, value, at) {
                    find(needle.of);
                }
            });
        };
        search(bytes);
        if matches!(field, Field::Text | Field::Code | Field::Listed)
            && bytes.iter().any(|byte| !byte.is_ascii() || *byte == 0x1B)
        {
            search(character_sets::decode(set, bytes).to_lowercase().as_bytes());
        }
        self.uids_in(bytes, find);
        found
    }

    /// The first attribute whose value stands in this one.
    pub(crate) fn repeated_in(&self, field: Field, bytes: &[u8], set: &[u8]) -> Option<Tag> {
        self.all_in(field, bytes, set).into_iter().next()
    }

    /// UIDs stand between what is neither digit nor point.
    fn uids_in(&self, bytes: &[u8], mut find: impl FnMut(Tag)) {
        for run in bytes.split(|byte| !(byte.is_ascii_digit() || *byte == b'.')) {
            if run.len() >= 8
                && let Ok(uid) = std::str::from_utf8(run)
                && let Some(of) = self.uids.get(uid.trim_matches('.'))
            {
                find(*of);
            }
        }
    }

    /// The first attribute whose value stands among these bytes of pixels, as a text of ASCII that is long enough.
    pub(super) fn first_in_pixels(&self, bytes: &[u8]) -> Option<Tag> {
        let mut found = None;
        printable_runs(bytes, |run| {
            self.texts.hits(run, |needle, _| {
                if needle.in_pixels && found.is_none() {
                    found = Some(needle.of);
                }
            });
            self.uids_in(run, |of| found = found.or(Some(of)));
        });
        found
    }
}

/// Hands on every run of at least eight printable characters: pixels have few, and only there can a text be.
pub(super) fn printable_runs(bytes: &[u8], mut take: impl FnMut(&[u8])) {
    let printable = |byte: &u8| (0x20..0x7F).contains(byte);
    let mut at = 0;
    // Of eight in a row four are one of these words, so all else is passed over four bytes at a time.
    while let Some(rest) = bytes.get(at..) {
        let Some(word) = printable_word(rest) else { return };
        let inside = at + word;
        let before = bytes.get(..inside).unwrap_or_default();
        let start = before.iter().rposition(|byte| !printable(byte)).map_or(0, |last| last + 1);
        let after = bytes.get(inside..).unwrap_or_default();
        let end = after
            .iter()
            .position(|byte| !printable(byte))
            .map_or(bytes.len(), |next| inside + next);
        if let Some(run) = bytes.get(start..end).filter(|run| run.len() >= SHORTEST_IN_PIXELS) {
            take(run);
        }
        // Onwards from a multiple of four, so that every word is looked at.
        at = end.max(inside + 1).next_multiple_of(4);
    }
}

/// Where the first four bytes, counted from the beginning in fours, are printable. Eight bytes are looked at in one number:
/// pixels are most of what is verified.
fn printable_word(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const WORD: u64 = 0x8080_8080;
    let mut eights = bytes.chunks_exact(8);
    for (nth, eight) in eights.by_ref().enumerate() {
        let all = u64::from_le_bytes(eight.first_chunk().copied().unwrap_or_default());
        let low = all & (ONES * 0x7F);
        // The highest bit of each byte: not below 20H, not 7FH, and not above.
        let printable = (low + ONES * 0x60) & !(low + ONES) & !all & (ONES * 0x80);
        if printable & WORD == WORD {
            return Some(nth * 8);
        }
        if printable >> 32 == WORD {
            return Some(nth * 8 + 4);
        }
    }
    let rest = eights.remainder();
    let last = rest.first_chunk::<4>()?;
    last.iter().all(|byte| (0x20..0x7F).contains(byte)).then_some(bytes.len() - rest.len())
}

/// Whether no letter or digit is next to these bytes.
fn is_bounded(bytes: &[u8], start: usize, end: usize) -> bool {
    let word =
        |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_some_and(u8::is_ascii_alphanumeric);
    !word(start.checked_sub(1)) && !word(Some(end))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lost(tag: Tag, vr: VR, text: &str) -> Lost {
        Lost { tag, vr, bytes: text.as_bytes().to_vec(), text: text.to_owned() }
    }

    fn found(lost: &[Lost], bytes: &[u8]) -> bool {
        found_in(lost, Field::Text, bytes)
    }

    fn found_in(lost: &[Lost], field: Field, bytes: &[u8]) -> bool {
        let needles = Needles::of(lost, Options::default(), &Cache::default());
        !needles.all_in(field, bytes, b"ISO_IR 100").is_empty()
    }

    #[test]
    fn a_word_that_is_also_a_name_may_stand_where_words_come_from_lists() {
        let rows = [
            // Who it is, where, what, whether it is a finding.
            ("Siemens^Ida", Field::Listed, "SIEMENS", false),
            ("Brain^Ida", Field::Code, "BRAIN", false),
            ("Young^Ida", Field::Text, "for Young", true),
            ("Siemens^Ida", Field::Text, "Siemens", true),
            ("Siemens^Ida", Field::Listed, "IDA SIEMENS", true),
            ("Smythe^Ida", Field::Code, "SMYTHE", true),
            ("Müller^Ida", Field::Text, "M\u{dc}LLER", true),
        ];
        for (name, field, value, expected) in rows {
            let name = [lost(tags::PATIENT_NAME, VR::PN, name)];
            let bytes: Vec<u8> =
                value.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
            assert_eq!(found_in(&name, field, &bytes), expected, "{value}");
        }
    }

    #[test]
    fn a_short_number_may_stand_among_numbers() {
        let rows = [
            ("1000", Field::Number, "1000", false),
            ("1000", Field::Number, "1000.0", false),
            ("1000", Field::Text, "no 1000", true),
            ("123456", Field::Number, "123456", true),
            ("123456", Field::Number, "0.123456", false),
            ("101530", Field::Date, "101530", false),
            ("9990548609", Field::Uid, "1.2.9990548609.3", true),
            ("20260307", Field::Uid, "1.2.20260307.3", false),
        ];
        for (number, field, value, expected) in rows {
            let number = [lost(tags::STUDY_ID, VR::SH, number)];
            assert_eq!(found_in(&number, field, value.as_bytes()), expected, "{value}");
        }
    }

    #[test]
    fn two_ideographs_are_a_name_whatever_its_bytes_hold() {
        let (bytes, _, _) = encoding_rs::GB18030.encode("乗俓^小东");
        assert!(bytes.contains(&b'\\'));
        let name = [Lost {
            tag: tags::PATIENT_NAME,
            vr: VR::PN,
            bytes: bytes.to_vec(),
            text: "乗俓^小东".to_owned(),
        }];
        let needles = Needles::of(&name, Options::default(), &Cache::default());
        for text in ["乗俓^小东", "the scan of 小东"] {
            let (bytes, _, _) = encoding_rs::GB18030.encode(text);
            assert_eq!(
                needles.repeated_in(Field::Text, &bytes, b"GB18030"),
                Some(tags::PATIENT_NAME),
                "{text}"
            );
        }
    }

    #[test]
    fn more_than_can_be_searched_for_is_told() {
        let many: Vec<Lost> =
            (0..MOST).map(|nth| lost(tags::PATIENT_ID, VR::LO, &format!("X{nth:09}"))).collect();
        assert!(Needles::of(&many, Options::default(), &Cache::default()).is_cut());
    }

    #[test]
    fn a_name_is_found_however_it_is_written() {
        let name = [lost(tags::PATIENT_NAME, VR::PN, "O'Brien^Mary Ann")];
        let wide: Vec<u8> = "OBRIEN".encode_utf16().flat_map(u16::to_le_bytes).collect();
        for text in [
            "O'BRIEN^MARY ANN",
            "mary ann o'brien",
            "scan of OBrien",
            "O Brien, left knee",
            "Mary",
            "o'brien,mary ann",
        ] {
            assert!(found(&name, text.as_bytes()), "{text}");
        }
        assert!(found(&name, &wide));
        for text in ["summary", "Ann", "obrienx", "left knee"] {
            assert!(!found(&name, text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn dates_and_numbers_are_found_in_their_usual_forms() {
        let date = [lost(tags::STUDY_DATE, VR::DA, "20260307")];
        for text in [
            "20260307",
            "2026-03-07",
            "07/03/2026",
            "7/3/2026",
            "03/07/2026",
            "7 Mar 2026",
            "07.03.2026",
            "x2026:03:07",
        ] {
            assert_eq!(found(&date, text.as_bytes()), text != "x2026:03:07", "{text}");
        }
        let number = [lost(tags::PATIENT_ID, VR::LO, "9990548609")];
        for text in ["9990548609", "999 054 8609", "NHS 999-054-8609."] {
            assert!(found(&number, text.as_bytes()), "{text}");
        }
        assert!(!found(&number, b"199905486091"));
        assert!(!found(&[lost(tags::STUDY_DATE, VR::DA, "19000101")], b"19000101"));
    }

    #[test]
    fn ordinary_descriptions_are_no_needles() {
        assert!(!found(&[lost(tags::STUDY_DESCRIPTION, VR::LO, "CT HEAD")], b"CT HEAD"));
        assert!(found(
            &[lost(tags::INSTITUTION_NAME, VR::LO, "St Elsewhere")],
            b"at ST ELSEWHERE, York"
        ));
    }

    #[test]
    fn uids_are_found_whole() {
        let uid = [lost(tags::SOP_INSTANCE_UID, VR::UI, "1.2.826.0.1.34")];
        assert!(found(&uid, b"see 1.2.826.0.1.34."));
        assert!(!found(&uid, b"1.2.826.0.1.345"));
    }

    proptest! {
        #[test]
        fn a_printable_word_is_found_as_by_looking_at_each_byte(
            bytes in proptest::collection::vec(
                prop_oneof![any::<u8>(), 0x1E..0x22_u8, 0x7D..0x82_u8, 0x41..0x45_u8], 0..60,
            ),
        ) {
            let slow = bytes.chunks_exact(4).position(|word| word.iter().all(|byte| (0x20..0x7F).contains(byte)));
            prop_assert_eq!(printable_word(&bytes), slow.map(|nth| nth * 4));
        }

        #[test]
        fn no_run_is_passed_over(
            before in proptest::collection::vec(any::<u8>(), 0..40),
            text in "[ -~]{8,20}",
            after in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let bytes = [before, text.as_bytes().to_vec(), after].concat();
            let mut seen = false;
            printable_runs(&bytes, |run| seen |= run.windows(text.len()).any(|at| at == text.as_bytes()));
            prop_assert!(seen);
        }
    }
}
