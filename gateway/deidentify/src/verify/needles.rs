//! What is searched for: values that went, in all the ways in which they may be written.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use aho_corasick::{AhoCorasick, AhoCorasickBuilder};
use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;
use ring::digest::{Context, SHA256};

use crate::engine::Lost;
use crate::text;
use crate::values::{nhs_number, parse_date};

/// The shortest text that is searched for: shorter ones stand in everything.
const SHORTEST: usize = 4;
/// The shortest that is searched for among pixels, where a text of 4 characters occurs by chance.
const SHORTEST_IN_PIXELS: usize = 8;
/// More than so many needles are too many for one object; the first are the patient's own, which come early.
const MOST: usize = 4_000;

/// Other Patient IDs (0010,1000), retired.
const OTHER_PATIENT_IDS: Tag = Tag(0x0010, 0x1000);

/// What is searched for in one object.
#[derive(Debug)]
pub(super) struct Needles {
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
}

/// The texts of the last objects, as making them ready takes longer than searching for them.
#[derive(Debug, Default)]
pub(crate) struct Cache(Mutex<VecDeque<([u8; 32], Arc<Texts>)>>);

/// As many series as are read at once, and some.
const CACHED: usize = 16;

#[derive(Clone, Debug)]
struct Needle {
    of: Tag,
    bytes: Vec<u8>,
    /// Whether what is before and behind must be no letter or digit.
    bounded: bool,
    is_date: bool,
    /// Whether it is long enough not to occur among pixels by chance, and of the characters that are looked at there.
    in_pixels: bool,
}

#[derive(Default)]
struct Gathered {
    needles: Vec<Needle>,
    seen: HashSet<Vec<u8>>,
}

impl Gathered {
    /// A text in the encodings that an object may have it in, its own bytes among them.
    fn add(&mut self, of: Tag, text: &str, raw: Option<&[u8]>, is_date: bool) {
        let text = text.trim();
        if text.chars().count() < SHORTEST {
            return;
        }
        let latin: Option<Vec<u8>> =
            text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
        let wide: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        self.put(of, text.as_bytes().to_vec(), true, is_date);
        self.put(of, wide, false, is_date);
        if let Some(latin) = latin.filter(|latin| latin != text.as_bytes()) {
            self.put(of, latin, true, is_date);
        }
        if let Some(raw) = raw.filter(|raw| *raw != text.as_bytes() && raw.len() >= SHORTEST) {
            self.put(of, raw.to_vec(), true, is_date);
        }
    }

    fn put(&mut self, of: Tag, bytes: Vec<u8>, bounded: bool, is_date: bool) {
        let folded = bytes.to_ascii_lowercase();
        if self.needles.len() < MOST && self.seen.insert(folded) {
            let in_pixels = !is_date && bounded && stands_out(&bytes);
            self.needles.push(Needle { of, bytes, bounded, is_date, in_pixels });
        }
    }

    /// A person's name: as it is, its parts, and the orders in which people write it.
    fn name(&mut self, lost: &Lost) {
        for (name, raw) in lost.text.split('\\').zip(lost.bytes.split(|byte| *byte == b'\\')) {
            self.add(lost.tag, name, Some(raw), false);
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
                        self.add(lost.tag, &whole, None, false);
                    }
                }
                for part in parts {
                    self.add(lost.tag, part, None, false);
                    for word in part.split([' ', '-']) {
                        self.add(lost.tag, word, None, false);
                    }
                    // O'Brien is also written OBrien and O Brien.
                    if part.contains('\'') {
                        self.add(lost.tag, &part.replace('\'', ""), None, false);
                        self.add(lost.tag, &part.replace('\'', " "), None, false);
                        self.add(lost.tag, &part.replace('\'', "\u{2019}"), None, false);
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
            self.add(of, &form, None, true);
        }
    }

    fn identifier(&mut self, lost: &Lost) {
        for (value, raw) in lost.text.split('\\').zip(lost.bytes.split(|byte| *byte == b'\\')) {
            self.add(lost.tag, value, Some(raw), false);
            if let Some(number) = nhs_number(value) {
                let part = |range: std::ops::Range<usize>| number.get(range).unwrap_or_default();
                let parts = [part(0..3), part(3..6), part(6..10)];
                for written in [number.clone(), parts.join(" "), parts.join("-")] {
                    self.add(lost.tag, &written, None, false);
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
        let none = (text::Identifiers::default(), HashSet::new());
        for value in lost.text.split(['\\', '\n', '\r']) {
            let value = value.trim();
            let ordinary = text::clean(value, &none.0, &none.1).len() + 2 >= value.len();
            if value.len() >= 6 && !ordinary && value.len() <= 256 {
                self.add(lost.tag, value, None, false);
            }
        }
    }
}

/// Identifiers of people and of what was done with them.
fn is_identifier(tag: Tag) -> bool {
    matches!(
        tag,
        tags::PATIENT_ID
            | OTHER_PATIENT_IDS
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
    fn texts(&self, lost: &[Lost]) -> Arc<Texts> {
        let mut context = Context::new(&SHA256);
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
        let texts = Arc::new(Texts::of(lost));
        let mut cached = lock();
        if find(&cached).is_none() {
            cached.push_front((key, Arc::clone(&texts)));
            cached.truncate(CACHED);
        }
        texts
    }
}

impl Texts {
    fn of(lost: &[Lost]) -> Self {
        let mut gathered = Gathered::default();
        // People first: the bound must not cut them off.
        for lost in lost.iter().filter(|lost| lost.vr == VR::PN || is_identifier(lost.tag)) {
            if lost.vr == VR::PN { gathered.name(lost) } else { gathered.identifier(lost) }
        }
        for lost in lost.iter().filter(|lost| lost.vr != VR::PN && !is_identifier(lost.tag)) {
            match lost.vr {
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
        Self { matcher, needles }
    }

    fn hits(&self, bytes: &[u8], mut take: impl FnMut(&Needle)) {
        let Some(matcher) = self.matcher.as_ref().filter(|_| bytes.len() >= SHORTEST) else {
            return;
        };
        for hit in matcher.find_overlapping_iter(bytes) {
            if let Some(needle) = self.needles.get(hit.pattern().as_usize())
                && (!needle.bounded || is_bounded(bytes, hit.start(), hit.end()))
            {
                take(needle);
            }
        }
    }
}

impl Needles {
    pub(super) fn of(lost: &[Lost], cache: &Cache) -> Self {
        let uids = lost.iter().filter(|lost| lost.vr == VR::UI).flat_map(|lost| {
            lost.text.split('\\').map(|uid| (uid.trim_matches(['\0', ' ']).to_owned(), lost.tag))
        });
        // What the standard registers stands everywhere.
        let told = uids.filter(|(uid, _)| uid.len() >= 8 && !uid.starts_with("1.2.840.10008."));
        Self { texts: cache.texts(lost), uids: told.collect() }
    }

    /// The attributes whose values stand in this one. `moved`: it is a date that was moved, so dates do not count.
    pub(super) fn all_in(&self, bytes: &[u8], moved: bool) -> Vec<Tag> {
        let mut found = Vec::new();
        let mut find = |of| {
            if !found.contains(&of) {
                found.push(of);
            }
        };
        self.texts.hits(bytes, |needle| {
            if !(moved && needle.is_date) {
                find(needle.of);
            }
        });
        self.uids_in(bytes, find);
        found
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
            self.texts.hits(run, |needle| {
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
        let words = rest.chunks_exact(4);
        let Some(word) = words.clone().position(|word| word.iter().all(printable)) else { return };
        let inside = at + word * 4;
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
        !Needles::of(lost, &Cache::default()).all_in(bytes, false).is_empty()
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
