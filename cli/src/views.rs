//! What the node's API says, as far as the command line shows it, and what of a patient may be seen.
//!
//! Only what is listed here is printed, so a field that the API gains does not slip into a script's log. `shorten` takes
//! out what names a patient; every command calls it unless `--reveal` was given.

#![expect(
    clippy::struct_field_names,
    reason = "the names are the API's, which has them from DICOM"
)]

use gantry_store::facts::{Digest, ObjectId, ParcelId, Priority, Purpose};
use gantry_store::index::{
    CompletenessState, EventKind, FailureKind, ProvenBy, Rejection, TransferId, TransferState,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Takes out what names a patient.
pub(crate) trait Shorten {
    fn shorten(&mut self);
}

impl<T: Shorten> Shorten for Vec<T> {
    fn shorten(&mut self) {
        self.iter_mut().for_each(T::shorten);
    }
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Study {
    pub(crate) study_instance_uid: String,
    pub(crate) patient_name: Option<String>,
    pub(crate) patient_id: Option<String>,
    pub(crate) birth_date: Option<String>,
    pub(crate) sex: Option<String>,
    pub(crate) study_date: Option<String>,
    pub(crate) study_time: Option<String>,
    pub(crate) accession_number: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) modalities: Vec<String>,
    pub(crate) series_count: u64,
    pub(crate) instance_count: u64,
    pub(crate) patient_conflict: bool,
    #[serde(default)]
    pub(crate) completeness: Completeness,
    pub(crate) held: Option<Decision>,
    pub(crate) removed: Option<Decision>,
    pub(crate) first_received_at: Option<Timestamp>,
    pub(crate) last_received_at: Option<Timestamp>,
}

impl Study {
    /// What was decided about keeping it, in a word.
    pub(crate) fn keeping(&self) -> &'static str {
        match (&self.held, &self.removed) {
            (Some(_), _) => "held",
            (None, Some(_)) => "images removed",
            (None, None) => "",
        }
    }
}

impl Shorten for Study {
    /// Initials, the last three digits, the year. A description may hold anything, so it goes.
    fn shorten(&mut self) {
        let replace = |value: &mut Option<String>, by: fn(&str) -> String| {
            *value = value.as_deref().map(by);
        };
        replace(&mut self.patient_name, initials);
        replace(&mut self.patient_id, last_three);
        replace(&mut self.accession_number, last_three);
        replace(&mut self.birth_date, |date| date.chars().take(4).collect());
        self.description = None;
        self.completeness.shorten();
    }
}

/// Whether all of a study is here, by what its source said last.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Completeness {
    pub(crate) state: CompletenessState,
    pub(crate) source: Option<String>,
    pub(crate) asked_at: Option<Timestamp>,
    pub(crate) expected: Option<u64>,
    pub(crate) missing: Option<u64>,
    pub(crate) surplus: Option<u64>,
    pub(crate) why: Option<String>,
    pub(crate) next: Option<Timestamp>,
    pub(crate) fetching: bool,
    pub(crate) fetch_why: Option<String>,
    pub(crate) sentence: String,
    #[serde(skip_serializing)]
    pub(crate) summary: String,
}

impl Completeness {
    /// The sentence, with what stands in the way.
    pub(crate) fn in_full(&self) -> String {
        let mut text = self.sentence.clone();
        if self.fetching {
            text.push_str("; the rest is being fetched");
        } else if let (CompletenessState::Incomplete, Some(why)) = (self.state, &self.fetch_why) {
            text = format!("{text}; {why}");
        }
        text
    }
}

impl Shorten for Completeness {
    /// A series' description may hold anything, so the sentence goes on without.
    fn shorten(&mut self) {
        self.sentence.clone_from(&self.summary);
    }
}

/// A series, as its source lists it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct CountedSeries {
    pub(crate) series_instance_uid: String,
    pub(crate) number: Option<i64>,
    pub(crate) modality: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) expected: u64,
    pub(crate) missing: u64,
}

impl Shorten for CountedSeries {
    fn shorten(&mut self) {
        self.description = None;
    }
}

impl Study {
    /// The patient on one line, as far as it is there.
    pub(crate) fn patient(&self) -> String {
        let name = self
            .patient_name
            .as_deref()
            .map(|name| name.replace('^', ", ").trim_end_matches(", ").to_owned());
        let parts = [name, self.patient_id.clone(), self.birth_date.as_deref().map(dashed)];
        let parts: Vec<_> = parts.into_iter().flatten().filter(|part| !part.is_empty()).collect();
        if parts.is_empty() { "not known".to_owned() } else { parts.join("  ") }
    }

    /// `CT 2026-11-22`.
    pub(crate) fn kind(&self) -> String {
        let date = self.study_date.as_deref().map(dashed).unwrap_or_default();
        format!("{} {date}", self.modalities.join("+")).trim().to_owned()
    }
}

/// `20261122` with dashes; anything else as it is.
pub(crate) fn dashed(date: &str) -> String {
    match (date.get(..4), date.get(4..6), date.get(6..)) {
        (Some(year), Some(month), Some(day)) if day.len() == 2 => format!("{year}-{month}-{day}"),
        _ => date.to_owned(),
    }
}

/// `SMITH^ANNA` becomes `S., A.`: family name, then given name (PS3.5 6.2.1). Ideographic groups are left out.
pub(crate) fn initials(name: &str) -> String {
    let alphabetic = name.split('=').next().unwrap_or_default();
    let initial =
        |part: &str| part.trim().chars().next().map(|first| format!("{}.", first.to_uppercase()));
    alphabetic.split('^').take(2).filter_map(initial).collect::<Vec<_>>().join(", ")
}

/// `…789`. What is no longer than that is not shown at all.
pub(crate) fn last_three(number: &str) -> String {
    let digits: Vec<char> = number.trim().chars().collect();
    match digits.len().checked_sub(3) {
        None | Some(0) => "…".to_owned(),
        Some(hidden) => format!("…{}", digits.iter().skip(hidden).collect::<String>()),
    }
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Counts {
    pub(crate) total: u64,
    pub(crate) queued: u64,
    pub(crate) sending: u64,
    pub(crate) deferred: u64,
    pub(crate) delivered: u64,
    pub(crate) failed: u64,
    pub(crate) cancelled: u64,
    pub(crate) warnings: u64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Failed {
    pub(crate) kind: FailureKind,
    pub(crate) status: Option<u16>,
    pub(crate) text: String,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Decision {
    pub(crate) at: Timestamp,
    pub(crate) by: String,
    pub(crate) reason: Option<String>,
}

/// One study on its way to one partner.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Transfer {
    pub(crate) id: TransferId,
    pub(crate) state: TransferState,
    #[serde(default)]
    pub(crate) stalled: bool,
    pub(crate) sentence: String,
    #[serde(default)]
    pub(crate) incomplete: bool,
    pub(crate) study: Study,
    pub(crate) partner: String,
    pub(crate) partner_name: String,
    pub(crate) priority: Priority,
    #[serde(default)]
    pub(crate) parcel: Option<ParcelId>,
    pub(crate) purpose: Purpose,
    pub(crate) route: String,
    pub(crate) counts: Counts,
    pub(crate) waiting_seconds: u64,
    pub(crate) created_at: Timestamp,
    pub(crate) last_received_at: Timestamp,
    pub(crate) first_sent_at: Option<Timestamp>,
    pub(crate) last_sent_at: Option<Timestamp>,
    #[serde(default)]
    pub(crate) confirmed: u64,
    pub(crate) confirmed_at: Option<Timestamp>,
    pub(crate) proven_by: Option<ProvenBy>,
    pub(crate) unproven_why: Option<String>,
    pub(crate) next_try: Option<Timestamp>,
    pub(crate) next_attempt: Option<u32>,
    pub(crate) problem: Option<Failed>,
    pub(crate) paused: Option<Decision>,
    pub(crate) cancelled: Option<Decision>,
    pub(crate) recalled: Option<Recalled>,
}

/// That a transfer was recalled.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Recalled {
    #[serde(flatten)]
    pub(crate) decision: Decision,
    pub(crate) rejection: Rejection,
    pub(crate) note: Option<RecallNote>,
}

/// The note of a recall.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct RecallNote {
    pub(crate) sop_instance_uid: String,
    pub(crate) made_at: Option<Timestamp>,
    pub(crate) images: u64,
    pub(crate) accepted_at: Option<Timestamp>,
}

impl Shorten for Transfer {
    fn shorten(&mut self) {
        self.study.shorten();
    }
}

impl Transfer {
    /// `280 of 412`.
    pub(crate) fn images(&self) -> String {
        format!("{} of {}", self.counts.delivered, self.counts.total)
    }

    /// What is told apart in lists; the whole name is in JSON.
    pub(crate) fn short_id(&self) -> String {
        short_id(self.id)
    }
}

/// The end of a transfer's name: its beginning is the time, which neighbours share.
pub(crate) fn short_id(id: TransferId) -> String {
    let id = id.to_string();
    id.get(id.len().saturating_sub(8)..).unwrap_or(&id).to_owned()
}

/// One transfer with all that is known.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct TransferDetail {
    #[serde(flatten)]
    pub(crate) transfer: Transfer,
    pub(crate) series: Vec<TransferSeries>,
    #[serde(default)]
    pub(crate) counted: Vec<CountedSeries>,
    pub(crate) problems: Vec<Obstacle>,
    pub(crate) events: Vec<Event>,
}

/// What was sent together.
#[derive(Debug, Deserialize)]
pub(crate) struct Parcel {
    pub(crate) state: TransferState,
    pub(crate) sentence: String,
}

impl Shorten for TransferDetail {
    fn shorten(&mut self) {
        self.transfer.shorten();
        self.counted.shorten();
        for series in &mut self.series {
            series.description = None;
        }
    }
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct TransferSeries {
    pub(crate) series_instance_uid: String,
    pub(crate) modality: Option<String>,
    pub(crate) number: Option<i64>,
    pub(crate) description: Option<String>,
    pub(crate) counts: Counts,
}

/// What keeps images from the partner, and what can be done.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Obstacle {
    pub(crate) failure: Failed,
    pub(crate) set_aside: u64,
    pub(crate) deferred: u64,
    pub(crate) remedy: Remedy,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Remedy {
    pub(crate) what: String,
    pub(crate) next: String,
    pub(crate) act: String,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Event {
    pub(crate) at: Timestamp,
    pub(crate) kind: EventKind,
    pub(crate) actor: Option<String>,
    pub(crate) detail: Option<String>,
    pub(crate) failure: Option<FailureKind>,
}

/// Something that is stuck.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Alarm {
    pub(crate) id: String,
    pub(crate) kind: String,
    pub(crate) partner: Option<String>,
    pub(crate) transfer: Option<TransferId>,
    pub(crate) since: Timestamp,
    pub(crate) begun_at: Timestamp,
    pub(crate) clear_since: Option<Timestamp>,
    pub(crate) ended_at: Option<Timestamp>,
    pub(crate) sentence: String,
    pub(crate) act: String,
}

/// What a person's request changed.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Changed {
    pub(crate) changed: u64,
    pub(crate) transfer: Transfer,
}

/// One study with all that belongs to it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct StudyDetail {
    pub(crate) study: Study,
    pub(crate) series: Vec<Series>,
    #[serde(default)]
    pub(crate) counted: Vec<CountedSeries>,
    pub(crate) transfers: Vec<StudyTransfer>,
    pub(crate) events: Vec<serde_json::Value>,
}

impl Shorten for StudyDetail {
    fn shorten(&mut self) {
        self.study.shorten();
        self.counted.shorten();
        for series in &mut self.series {
            series.description = None;
        }
    }
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Series {
    pub(crate) series_instance_uid: String,
    pub(crate) modality: Option<String>,
    pub(crate) number: Option<i64>,
    pub(crate) description: Option<String>,
    pub(crate) body_part: Option<String>,
    pub(crate) instances: Vec<Instance>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Instance {
    pub(crate) object: ObjectId,
    pub(crate) sop_instance_uid: String,
    pub(crate) sop_class_uid: String,
    pub(crate) transfer_syntax: String,
    pub(crate) length: u64,
    pub(crate) digest: Digest,
    pub(crate) version: u32,
    pub(crate) quarantined: bool,
    pub(crate) stored: bool,
    pub(crate) removed_at: Option<Timestamp>,
    pub(crate) number: Option<i64>,
    pub(crate) sender: String,
    pub(crate) received_at: Timestamp,
}

/// A transfer as the page of its study lists it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct StudyTransfer {
    pub(crate) id: TransferId,
    pub(crate) partner: String,
    pub(crate) priority: Priority,
    pub(crate) purpose: Purpose,
    pub(crate) counts: Counts,
    pub(crate) created_at: Timestamp,
    pub(crate) last_sent_at: Option<Timestamp>,
}

/// The node at a glance.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Status {
    pub(crate) version: String,
    pub(crate) ae_title: String,
    pub(crate) organisation: String,
    pub(crate) started: Timestamp,
    pub(crate) uptime_seconds: u64,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) web: Option<String>,
    pub(crate) partners: Vec<Partner>,
    pub(crate) spool: Spool,
    #[serde(default)]
    pub(crate) object_store: ObjectStore,
    #[serde(default)]
    pub(crate) scrub: Option<Scrub>,
    pub(crate) totals: Totals,
    pub(crate) readiness: Readiness,
    #[serde(default)]
    pub(crate) alarms: Vec<Alarm>,
    pub(crate) problems: Vec<String>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Listener {
    pub(crate) name: String,
    pub(crate) tls: String,
    pub(crate) associations: i64,
    pub(crate) max_associations: usize,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Partner {
    pub(crate) name: String,
    pub(crate) display_name: String,
    pub(crate) ae_title: Option<String>,
    pub(crate) address: Option<String>,
    pub(crate) phone: Option<String>,
    pub(crate) certificates_until: Option<Timestamp>,
    pub(crate) ordered: u64,
    pub(crate) delivered: u64,
    pub(crate) waiting: u64,
    pub(crate) set_aside: u64,
    pub(crate) cancelled: u64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Spool {
    pub(crate) waiting: u64,
    #[serde(default)]
    pub(crate) held_bytes: Option<u64>,
    pub(crate) room_bytes: Option<u64>,
    #[serde(default)]
    pub(crate) emergency_room_bytes: Option<u64>,
    #[serde(default)]
    pub(crate) room_files: Option<u64>,
    #[serde(default)]
    pub(crate) room_days: Option<f64>,
}

/// Where objects stay, and what is not there yet.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct ObjectStore {
    pub(crate) kind: String,
    pub(crate) reachable: Option<bool>,
    pub(crate) since: Option<Timestamp>,
    pub(crate) why: Option<String>,
    pub(crate) waiting: u64,
    pub(crate) waiting_bytes: u64,
    pub(crate) oldest_waiting: Option<Timestamp>,
    pub(crate) used_bytes: Option<u64>,
    pub(crate) mark_bytes: Option<u64>,
    pub(crate) used_files: Option<u64>,
    pub(crate) mark_files: Option<u64>,
    pub(crate) above_mark: bool,
    pub(crate) room_days: Option<f64>,
}

/// How reading again all that is kept stands.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Scrub {
    pub(crate) by_itself: bool,
    pub(crate) begun_at: Option<Timestamp>,
    pub(crate) verified: u64,
    pub(crate) waiting: Option<String>,
    pub(crate) last_ended_at: Option<Timestamp>,
    pub(crate) unresolved: u64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Totals {
    pub(crate) studies: u64,
    pub(crate) series: u64,
    pub(crate) instances: u64,
    pub(crate) bytes: u64,
    pub(crate) unstored: u64,
    pub(crate) quarantined: u64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Readiness {
    pub(crate) ready: bool,
    pub(crate) checks: Vec<Check>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Check {
    pub(crate) name: String,
    pub(crate) ok: bool,
    pub(crate) problem: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn study() -> Study {
        Study {
            study_instance_uid: "1.2.3".to_owned(),
            patient_name: Some("SMITH^ANNA^MARIA=山田^太郎".to_owned()),
            patient_id: Some("943 476 5919".to_owned()),
            birth_date: Some("19570312".to_owned()),
            sex: Some("F".to_owned()),
            study_date: Some("20261122".to_owned()),
            study_time: None,
            accession_number: Some("RXX1234567".to_owned()),
            description: Some("CT head of Anna Smith".to_owned()),
            modalities: vec!["CT".to_owned()],
            series_count: 3,
            instance_count: 271,
            patient_conflict: false,
            completeness: Completeness {
                sentence: "1 of 2: series 3 'Smith' misses 1".to_owned(),
                ..Completeness::default()
            },
            held: None,
            removed: None,
            first_received_at: None,
            last_received_at: None,
        }
    }

    #[test]
    fn a_shortened_study_names_nobody_in_text_or_json() {
        let mut study = study();
        study.shorten();

        assert_eq!(study.patient(), "S., A.  …919  1957");
        let json = serde_json::to_string(&study).unwrap();
        for identifier in ["SMITH", "ANNA", "Smith", "943", "RXX1234", "0312", "山"] {
            assert!(!json.contains(identifier), "{identifier} in {json}");
        }
    }

    #[test]
    fn a_revealed_study_says_all() {
        assert_eq!(study().kind(), "CT 2026-11-22");
        let plain = Study { patient_name: Some("SMITH^ANNA".to_owned()), ..study() };
        assert_eq!(plain.patient(), "SMITH, ANNA  943 476 5919  1957-03-12");
    }

    #[test]
    fn names_and_numbers_of_any_shape_are_shortened() {
        for (name, shown) in [
            ("SMITH^ANNA", "S., A."),
            ("smith", "S."),
            ("", ""),
            ("^ANNA", "A."),
            ("Ångström^Ö^^Dr", "Å., Ö."),
        ] {
            assert_eq!(initials(name), shown);
        }
        for (number, shown) in
            [("9434765919", "…919"), ("123", "…"), ("1234", "…234"), ("", "…"), ("übür", "…bür")]
        {
            assert_eq!(last_three(number), shown);
        }
    }

    #[test]
    fn a_patient_of_whom_nothing_is_said_is_not_known() {
        let nobody = Study {
            patient_name: None,
            patient_id: Some(String::new()),
            birth_date: None,
            ..study()
        };
        assert_eq!(nobody.patient(), "not known");
    }
}
