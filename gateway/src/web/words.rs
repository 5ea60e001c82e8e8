//! What rows hold, as people read it: names, numbers, dates, durations, and a transfer's state in one sentence.
//!
//! Pure functions of what they are given, the time included. Names and numbers follow what clinical staff in the NHS are
//! used to: family name in capitals first, the NHS number in groups of 3, 3 and 4, the month in letters.

use std::time::Duration;

use gantry_store::index::{
    Completeness, CompletenessState, Note, ProvenBy, TransferState, TransferSummary,
};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::remedy;
use crate::config::Partner;

/// "SMITH, Anna (Mrs)" for `SMITH^ANNA^^MRS` (PS3.5 6.2.1).
pub(super) fn patient_name(dicom: Option<&str>) -> String {
    // Alphabetic, ideographic, phonetic: the first that says anything.
    let group =
        dicom.unwrap_or_default().split('=').find(|group| group.contains(|c| c != '^' && c != ' '));
    let Some(group) = group else { return "No name".to_owned() };
    let mut parts = group.split('^').map(str::trim);
    let mut part = || parts.next().unwrap_or_default();
    let (family, given, middle, prefix, suffix) = (part(), part(), part(), part(), part());
    let given = [given, middle].map(in_small_letters).join(" ");
    let mut name = [family.to_uppercase().as_str(), given.trim()]
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(", ");
    for title in [prefix, suffix] {
        if !title.is_empty() {
            name = format!("{name} ({})", in_small_letters(title));
        }
    }
    name.trim().to_owned()
}

/// "Anna-Maria" for `ANNA-MARIA`. What is not all capitals was written on purpose and stays.
fn in_small_letters(name: &str) -> String {
    if name.contains(char::is_lowercase) {
        return name.to_owned();
    }
    let mut begins = true;
    name.chars()
        .flat_map(|c| {
            let first = std::mem::replace(&mut begins, matches!(c, ' ' | '-' | '\''));
            if first { vec![c] } else { c.to_lowercase().collect() }
        })
        .collect()
}

/// How a patient is numbered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct PatientNumber {
    /// "NHS number" or "Patient ID".
    pub(super) label: &'static str,
    /// As it is read.
    pub(super) number: String,
}

/// An NHS number in its groups, if it is one: ten digits of which the last checks the others (modulus 11).
pub(super) fn patient_number(id: Option<&str>) -> Option<PatientNumber> {
    let id = id.map(str::trim).filter(|id| !id.is_empty())?;
    let digits: String = id.chars().filter(|c| !matches!(c, ' ' | '-')).collect();
    let (Some(first), Some(second), Some(third)) =
        (digits.get(..3), digits.get(3..6), digits.get(6..))
    else {
        return Some(PatientNumber { label: "Patient ID", number: id.to_owned() });
    };
    if is_nhs_number(&digits) {
        Some(PatientNumber { label: "NHS number", number: format!("{first} {second} {third}") })
    } else {
        Some(PatientNumber { label: "Patient ID", number: id.to_owned() })
    }
}

fn is_nhs_number(digits: &str) -> bool {
    let values: Option<Vec<u32>> = digits.chars().map(|c| c.to_digit(10)).collect();
    let Some(values) = values.filter(|values| values.len() == 10) else { return false };
    let sum: u32 =
        values.iter().zip([10, 9, 8, 7, 6, 5, 4, 3, 2]).map(|(value, weight)| value * weight).sum();
    let check = (11 - sum % 11) % 11;
    values.last() == Some(&check)
}

/// "14 Mar 1970" for `19700314`; what is no date is shown as it is.
pub(super) fn date(dicom: Option<&str>) -> Option<String> {
    let text = dicom.map(str::trim).filter(|text| !text.is_empty())?;
    Some(
        civil_date(text)
            .map_or_else(|| text.to_owned(), |date| date.strftime("%-d %b %Y").to_string()),
    )
}

/// "56 years", or for small children "5 months".
pub(super) fn age(birth_date: Option<&str>, today: Date) -> Option<String> {
    let born = civil_date(birth_date?.trim()).filter(|born| *born <= today)?;
    let months = (i32::from(today.year()) - i32::from(born.year())) * 12 + i32::from(today.month())
        - i32::from(born.month())
        - i32::from(today.day() < born.day());
    Some(match months {
        ..24 => plural(months.unsigned_abs().into(), "month"),
        _ => plural((months / 12).unsigned_abs().into(), "year"),
    })
}

fn civil_date(dicom: &str) -> Option<Date> {
    // Old data sets have full stops in it (PS3.5 6.2, DA).
    let digits: String = dicom.chars().filter(|c| *c != '.').collect();
    Date::strptime("%Y%m%d", &digits).ok()
}

/// "412 images", "1 image".
pub(super) fn plural(count: u64, thing: &str) -> String {
    if count == 1 { format!("1 {thing}") } else { format!("{} {thing}s", grouped(count)) }
}

/// "12,400".
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// "45 s", "4 min 10 s", "2 h 5 min", "3 days 4 h".
pub(super) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, s) => format!("{s} s"),
        (0, 0, min, s) => format!("{min} min {s} s"),
        (0, h, min, _) => format!("{h} h {min} min"),
        (days, h, ..) => format!("{} {h} h", plural(days, "day")),
    }
}

/// What was decided, and what the partner knows of it.
fn recalled(transfer: &TransferSummary, partner: &str, at: &Circumstances<'_>) -> String {
    let Some(recalled) = &transfer.recalled else { return "Recalled.".to_owned() };
    let decision = decided("Recalled", Some(&recalled.decision), at.reader);
    let known = match &recalled.note {
        Some(Note { accepted_at: Some(accepted), images, .. }) => format!(
            "{partner} accepted the note at {} that {} to be rejected.",
            at.reader.moment(*accepted).short,
            if *images == 1 {
                "1 image is".to_owned()
            } else {
                format!("{} images are", grouped(*images))
            }
        ),
        Some(_) => format!("A note that the images are to be rejected is on its way to {partner}."),
        None if transfer.counts.delivered == 0 => format!("{partner} had got nothing."),
        None => {
            let phone = at.partner.and_then(|partner| partner.phone.as_deref());
            let phone = phone.map(|phone| format!(": {phone}")).unwrap_or_default();
            let (images, them) = match transfer.counts.delivered {
                1 => ("1 image".to_owned(), "it"),
                some => (plural(some, "image"), "them"),
            };
            format!(
                "{partner} has got {images} and takes no notes: phone its PACS team to have {them} removed{phone}."
            )
        }
    };
    format!("{decision} {known}")
}

/// From then to now; nothing where clocks disagree.
pub(super) fn since(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or_default()
}

/// A moment, for people and for programs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Moment {
    /// Local: "09:21" today, else "21 Nov 09:21".
    pub(super) short: String,
    /// Local, to the second, with the date.
    pub(super) long: String,
    /// RFC 3339, UTC.
    pub(super) machine: String,
}

/// Where and when somebody reads.
#[derive(Clone, Debug)]
pub(super) struct Reader {
    pub(super) now: Timestamp,
    pub(super) zone: TimeZone,
}

impl Reader {
    /// Here and now.
    pub(super) fn here() -> Self {
        Self { now: Timestamp::now(), zone: TimeZone::system() }
    }

    pub(super) fn moment(&self, at: Timestamp) -> Moment {
        let (then, now) = (at.to_zoned(self.zone.clone()), self.now.to_zoned(self.zone.clone()));
        let short = match (then.date() == now.date(), then.year() == now.year()) {
            (true, _) => "%H:%M",
            (false, true) => "%-d %b %H:%M",
            (false, false) => "%-d %b %Y %H:%M",
        };
        Moment {
            short: then.strftime(short).to_string(),
            long: then.strftime("%-d %b %Y %H:%M:%S").to_string(),
            machine: at.to_string(),
        }
    }

    /// "09:21:05".
    pub(super) fn clock(&self) -> String {
        self.now.to_zoned(self.zone.clone()).strftime("%H:%M:%S").to_string()
    }

    pub(super) fn today(&self) -> Date {
        self.now.to_zoned(self.zone.clone()).date()
    }

    /// When today began.
    pub(super) fn midnight(&self) -> Timestamp {
        self.now
            .to_zoned(self.zone.clone())
            .start_of_day()
            .map_or(self.now, |midnight| midnight.timestamp())
    }
}

/// A state as its tag says it.
pub(super) fn tag(state: TransferState) -> &'static str {
    match state {
        TransferState::Receiving => "Receiving",
        TransferState::Queued => "Ready to send",
        TransferState::Sending => "Sending",
        TransferState::Sent => "Sent, not confirmed",
        TransferState::Confirmed => "Delivered and confirmed",
        TransferState::Opened => "Opened",
        TransferState::Delayed => "Delayed",
        TransferState::NeedsAction => "Needs action",
        TransferState::Paused => "Paused",
        TransferState::Cancelled => "Cancelled",
        TransferState::Recalled => "Recalled",
    }
}

/// What a sentence needs beside the transfer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Circumstances<'a> {
    pub(super) reader: &'a Reader,
    /// This node's AE title.
    pub(super) ae_title: &'a str,
    /// `None` where it was removed from the configuration.
    pub(super) partner: Option<&'a Partner>,
    /// How many transfers to the same partner go first; `None` where nobody counted.
    pub(super) ahead: Option<usize>,
}

impl Circumstances<'_> {
    /// What pages call the partner.
    pub(super) fn partner_name<'a>(&'a self, transfer: &'a TransferSummary) -> &'a str {
        self.partner.map_or(&transfer.partner, |partner| &partner.display_name)
    }

    /// When the partner's off-peak hours begin, where the transfer waits for them.
    fn goes_from(&self, transfer: &TransferSummary) -> Option<String> {
        let pace = &self.partner?.pace;
        let now = self.reader.now.to_zoned(self.reader.zone.clone());
        let opens = pace.opens(&now)?;
        pace.holds(transfer.priority, &now).then(|| self.reader.moment(opens).short)
    }
}

/// Where a transfer stands, in the one sentence that people read.
pub(super) fn sentence(
    transfer: &TransferSummary,
    state: TransferState,
    at: &Circumstances<'_>,
) -> String {
    let counts = &transfer.counts;
    let partner = at.partner_name(transfer);
    let images = |count| plural(count, "image");
    match state {
        TransferState::Receiving if counts.delivered > 0 => {
            let verb = if counts.delivered == 1 { "is" } else { "are" };
            format!(
                "{} so far. {} {verb} already at {partner}.",
                images(counts.total),
                grouped(counts.delivered)
            )
        }
        TransferState::Receiving => format!("{} so far.", images(counts.total)),
        TransferState::Queued => match at.ahead {
            _ if let Some(from) = at.goes_from(transfer) => {
                let goes = if counts.total == 1 { "goes" } else { "go" };
                format!(
                    "{} {goes} from {from} on, as routine waits for that.",
                    images(counts.total)
                )
            }
            None => format!("{} ready to go to {partner}.", images(counts.total)),
            Some(0) => "This one is next.".to_owned(),
            Some(1) => "1 transfer is ahead of this one.".to_owned(),
            Some(ahead) => format!("{ahead} transfers are ahead of this one."),
        },
        TransferState::Sending => {
            let progress = format!("{} of {}", grouped(counts.delivered), images(counts.total));
            match (at.goes_from(transfer), time_left(transfer, at.reader.now)) {
                (Some(from), _) => {
                    format!("{progress}. The rest goes from {from} on, as routine waits for that.")
                }
                (None, Some(left)) => format!("{progress}, about {left} left."),
                (None, None) => format!("{progress}."),
            }
        }
        TransferState::Sent => {
            let accepted = match counts.delivered {
                1 => "The image was accepted.".to_owned(),
                all => format!("All {} images were accepted.", grouped(all)),
            };
            let they = if counts.delivered == 1 { "it is" } else { "they are" };
            let sent = match (transfer.confirmed, &transfer.unproven_why) {
                (0, Some(why)) => {
                    format!(
                        "{accepted} {partner} has not confirmed that {they} stored: {}",
                        ended(why)
                    )
                }
                (0, None) => format!("{accepted} {partner} has not confirmed that {they} stored."),
                (some, _) => {
                    let of = images(counts.delivered);
                    format!("{accepted} {partner} has confirmed {} of {of} so far.", grouped(some))
                }
            };
            match counts.warnings {
                0 => sent,
                some => format!("{sent} {partner} gave a warning with {}.", grouped(some)),
            }
        }
        TransferState::Confirmed => {
            let of = images(counts.delivered);
            let at = transfer.confirmed_at.map(|when| at.reader.moment(when).short);
            let at = at.map(|at| format!(" at {at}")).unwrap_or_default();
            match transfer.proven_by {
                Some(ProvenBy::CountQuery) => {
                    format!(
                        "{partner} has as many images of each series as were sent: {of}, counted{at}."
                    )
                }
                _ => {
                    format!("{partner} confirmed {} of {of} stored{at}.", grouped(counts.delivered))
                }
            }
        }
        TransferState::Opened => format!("Opened at {partner}."),
        TransferState::Delayed => {
            let what = remedy::of_transfer(transfer, at).map_or_else(
                || format!("{partner} did not take the images."),
                |remedy| remedy.what,
            );
            let next = transfer.next_try.map(|next| at.reader.moment(next).short);
            let next = match (next, transfer.next_attempt) {
                (Some(next), Some(attempt)) => format!(" Next try {next} (try {attempt})."),
                (Some(next), None) => format!(" Next try {next}."),
                _ => String::new(),
            };
            let phone = at.partner.and_then(|partner| partner.phone.as_ref());
            let phone = phone.map(|phone| format!(" You can phone {phone}.")).unwrap_or_default();
            format!("{what}{next}{phone}")
        }
        TransferState::NeedsAction => match remedy::of_transfer(transfer, at) {
            Some(remedy) => format!("{} {}", remedy.what, remedy.short_act()),
            None => format!("{} set aside.", images(counts.failed)),
        },
        TransferState::Paused => decided("Paused", transfer.paused.as_ref(), at.reader),
        TransferState::Cancelled => decided("Cancelled", transfer.cancelled.as_ref(), at.reader),
        TransferState::Recalled => recalled(transfer, partner, at),
    }
}

/// "Incomplete: 411 of 412: series 3 'Thin 0.625' misses 1. It is being fetched."
pub(super) fn incomplete(completeness: &Completeness) -> String {
    let what = format!("Incomplete: {}.", completeness.sentence.reveal());
    match (&completeness.fetch_why, completeness.fetching) {
        (_, true) => format!("{what} This gateway is fetching the rest."),
        (Some(why), false) => format!("{what} {}", ended(why)),
        (None, false) => what,
    }
}

/// Whether all of a study is here, in a sentence for its page.
pub(super) fn completeness(completeness: &Completeness, reader: &Reader) -> String {
    let (said, source) = (completeness.sentence.reveal(), completeness.source.as_deref());
    let asked = completeness.asked_at.map(|at| format!(" at {}", reader.moment(at).short));
    let mut text = match completeness.state {
        CompletenessState::NotAsked => "Not counted against its source yet.".to_owned(),
        CompletenessState::NoSource => {
            "There is no source to count against, so nobody knows whether all of it came."
                .to_owned()
        }
        CompletenessState::Complete => format!(
            "{} of {} images that {} lists, counted{}.",
            grouped(completeness.expected.unwrap_or(0)),
            grouped(completeness.expected.unwrap_or(0)),
            source.unwrap_or("its source"),
            asked.unwrap_or_default()
        ),
        CompletenessState::Incomplete => incomplete(completeness),
        CompletenessState::Unanswered => ended(said),
    };
    if let Some(surplus) = completeness.surplus.filter(|surplus| *surplus > 0) {
        text = format!("{text} {} here that the source does not list.", plural(surplus, "image"));
    }
    if let (CompletenessState::Incomplete, Some(why)) = (completeness.state, &completeness.why) {
        text = format!("{text} It was asked again since, and did not say: {}", ended(why));
    }
    text
}

fn decided(
    what: &str,
    decision: Option<&gantry_store::index::Decision>,
    reader: &Reader,
) -> String {
    let Some(decision) = decision else { return format!("{what}.") };
    let at = reader.moment(decision.at).short;
    match &decision.reason {
        Some(reason) => format!("{what} by {} at {at}: {}", decision.by, ended(reason)),
        None => format!("{what} by {} at {at}.", decision.by),
    }
}

/// A sentence with its full stop.
fn ended(text: &str) -> String {
    if text.ends_with(['.', '!', '?']) { text.to_owned() } else { format!("{text}.") }
}

/// After so long without an image, the pace so far says nothing about the rest.
const SILENCE: Duration = Duration::from_secs(30);

/// How long the rest takes at the pace so far. Nothing where a pace cannot be told: too few, or a long silence.
fn time_left(transfer: &TransferSummary, now: Timestamp) -> Option<String> {
    let counts = &transfer.counts;
    let (first, last) = (transfer.first_sent_at?, transfer.last_sent_at?);
    let elapsed = since(first, last).as_millis();
    if counts.delivered < 5 || elapsed == 0 || since(last, now) > SILENCE {
        return None;
    }
    let left = counts.total.saturating_sub(counts.delivered + counts.cancelled);
    let ms = u128::from(left) * elapsed / u128::from(counts.delivered - 1);
    let seconds = u64::try_from(ms.div_ceil(1000)).ok()?;
    Some(match seconds {
        ..90 => plural(((seconds + 5) / 10 * 10).max(10), "second"),
        90..5400 => plural((seconds + 30) / 60, "minute"),
        _ => plural((seconds + 1800) / 3600, "hour"),
    })
}

#[cfg(test)]
mod tests {
    use gantry_store::dicom::Phi;
    use gantry_store::facts::{Priority, Purpose};
    use gantry_store::index::{Counts, Decision, Failure, FailureKind, StudySummary};

    use super::*;
    use crate::config::Fingerprint;
    use crate::testing::config_with;

    const NO_PINS: &[Fingerprint] = &[];

    #[test]
    fn names_are_written_as_clinicians_read_them() {
        for (dicom, read) in [
            ("SMITH^ANNA", "SMITH, Anna"),
            ("Smith^Anna^Maria^Mrs", "SMITH, Anna Maria (Mrs)"),
            ("O'BRIEN^SEAN^^MR^JR", "O'BRIEN, Sean (Mr) (Jr)"),
            ("NG^ANNE-MARIE", "NG, Anne-Marie"),
            ("van der Berg^McKenzie", "VAN DER BERG, McKenzie"),
            ("PRINCE", "PRINCE"),
            ("^ANNA", "Anna"),
            ("^^=山田^太郎=やまだ^たろう", "山田, 太郎"),
            ("^^^^", "No name"),
            ("", "No name"),
        ] {
            assert_eq!(patient_name(Some(dicom)), read, "{dicom}");
        }
        assert_eq!(patient_name(None), "No name");
    }

    #[test]
    fn an_nhs_number_is_grouped_only_if_its_check_digit_is_right() {
        let read = |id| patient_number(Some(id)).map(|number| (number.label, number.number));
        for id in ["9434765919", "943 476 5919", "943-476-5919 "] {
            assert_eq!(read(id), Some(("NHS number", "943 476 5919".to_owned())), "{id}");
        }
        for id in ["9434765918", "943476591", "94347659190", "RXX00123", "é34765919", "٩٤٣٤٧٦٥٩١٩"]
        {
            assert_eq!(read(id), Some(("Patient ID", id.to_owned())), "{id}");
        }
        assert_eq!((patient_number(Some("  ")), patient_number(None)), (None, None));
    }

    #[test]
    fn dates_and_ages_are_words_and_what_is_no_date_is_shown_as_it_is() {
        assert_eq!(date(Some("19700314")).as_deref(), Some("14 Mar 1970"));
        assert_eq!(date(Some("1970.03.14")).as_deref(), Some("14 Mar 1970"));
        assert_eq!(date(Some("19701399")).as_deref(), Some("19701399"));
        assert_eq!((date(Some(" ")), date(None)), (None, None));
        let today = jiff::civil::date(2026, 11, 22);
        for (born, read) in [
            ("19700314", Some("56 years")),
            ("19701122", Some("56 years")),
            ("19701123", Some("55 years")),
            ("20250122", Some("22 months")),
            ("20261023", Some("0 months")),
            ("20261123", None),
            ("soon", None),
        ] {
            assert_eq!(age(Some(born), today).as_deref(), read, "{born}");
        }
    }

    #[test]
    fn waits_are_words() {
        for (seconds, read) in [
            (0, "0 s"),
            (45, "45 s"),
            (250, "4 min 10 s"),
            (7500, "2 h 5 min"),
            (86_400, "1 day 0 h"),
            (273_600, "3 days 4 h"),
        ] {
            assert_eq!(duration(Duration::from_secs(seconds)), read);
        }
        assert_eq!(
            (grouped(412), grouped(12_400), grouped(1_000_000)),
            ("412".into(), "12,400".into(), "1,000,000".into())
        );
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn transfer(counts: Counts) -> TransferSummary {
        TransferSummary {
            id: "01JD8Z6Q3M5V7X9B2C4D6F8G0H".parse().unwrap(),
            study: StudySummary {
                held: None,
                removed: None,
                study_instance_uid: "1.2.3".parse().unwrap(),
                patient_name: Phi::default(),
                patient_id: Phi::default(),
                issuer: Phi::default(),
                birth_date: Phi::default(),
                sex: Phi::default(),
                study_date: None,
                study_time: None,
                accession_number: Phi::default(),
                description: Phi::default(),
                modalities: Vec::new(),
                series_count: 1,
                instance_count: counts.total,
                patient_conflict: false,
                completeness: Completeness::default(),
                first_received_at: None,
                last_received_at: None,
            },
            partner: "st-elsewhere".to_owned(),
            priority: Priority::Emergency,
            parcel: None,
            purpose: Purpose::EmergencyTransfer,
            route: "emergency".to_owned(),
            counts,
            created_at: at("2026-11-22T09:00:00Z"),
            last_received_at: at("2026-11-22T09:01:00Z"),
            first_sent_at: None,
            last_sent_at: None,
            next_try: None,
            confirmed: 0,
            confirmed_at: None,
            proven_by: None,
            unproven_why: None,
            next_attempt: None,
            problem: None,
            paused: None,
            recalled: None,
            cancelled: None,
        }
    }

    /// What is read at 09:21 about a transfer to St Elsewhere.
    fn read(transfer: &TransferSummary, state: TransferState, ahead: Option<usize>) -> String {
        let mut config = config_with(&[("st-elsewhere", "SE_PACS", NO_PINS)]);
        config.partners[0].display_name = "St Elsewhere".to_owned();
        config.partners[0].phone = Some("0113 496 0000".to_owned());
        let reader = Reader { now: at("2026-11-22T09:21:05Z"), zone: TimeZone::UTC };
        let partner = config.partner("st-elsewhere");
        sentence(
            transfer,
            state,
            &Circumstances { reader: &reader, ae_title: "RXX_GW", partner, ahead },
        )
    }

    #[test]
    fn what_is_proven_is_said_and_what_is_not_says_why() {
        let counts = Counts { total: 412, delivered: 412, ..Counts::default() };
        let mut transfer = transfer(counts);
        transfer.unproven_why = Some("it offers no storage commitment and no query".to_owned());
        assert_eq!(
            read(&transfer, TransferState::Sent, None),
            "All 412 images were accepted. St Elsewhere has not confirmed that they are stored: it offers no storage \
             commitment and no query."
        );
        transfer.confirmed = 400;
        assert_eq!(
            read(&transfer, TransferState::Sent, None),
            "All 412 images were accepted. St Elsewhere has confirmed 400 of 412 images so far."
        );
        transfer.confirmed_at = Some(at("2026-11-22T09:26:00Z"));
        transfer.proven_by = Some(ProvenBy::StorageCommitment);
        assert_eq!(
            read(&transfer, TransferState::Confirmed, None),
            "St Elsewhere confirmed 412 of 412 images stored at 09:26."
        );
        transfer.proven_by = Some(ProvenBy::CountQuery);
        assert_eq!(
            read(&transfer, TransferState::Confirmed, None),
            "St Elsewhere has as many images of each series as were sent: 412 images, counted at 09:26."
        );
    }

    #[test]
    fn what_waits_for_off_peak_hours_says_until_when() {
        let counts = Counts { total: 412, delivered: 12, queued: 400, ..Counts::default() };
        let mut transfer = transfer(counts);
        let mut config = config_with(&[("st-elsewhere", "SE_PACS", NO_PINS)]);
        config.partners[0].pace.off_peak = "19:00-07:00".parse().ok();
        config.partners[0].pace.routine_waits = true;
        let reader = Reader { now: at("2026-11-22T09:21:05Z"), zone: TimeZone::UTC };
        let at = Circumstances {
            reader: &reader,
            ae_title: "RXX_GW",
            partner: config.partner("st-elsewhere"),
            ahead: None,
        };
        let emergency = sentence(&transfer, TransferState::Sending, &at);
        assert!(!emergency.contains("19:00"), "{emergency}");

        transfer.priority = Priority::Routine;

        assert_eq!(
            sentence(&transfer, TransferState::Sending, &at),
            "12 of 412 images. The rest goes from 19:00 on, as routine waits for that."
        );
        assert_eq!(
            sentence(&transfer, TransferState::Queued, &at),
            "412 images go from 19:00 on, as routine waits for that."
        );
    }

    #[test]
    fn whether_all_of_a_study_is_here_is_said_with_what_happens_next() {
        let reader = Reader { now: at("2026-11-22T09:21:05Z"), zone: TimeZone::UTC };
        let mut known = Completeness {
            state: CompletenessState::Incomplete,
            source: Some("pacs".to_owned()),
            asked_at: Some(at("2026-11-22T09:20:00Z")),
            expected: Some(412),
            missing: Some(1),
            sentence: Phi::new("411 of 412: series 3 'Thin 0.625' misses 1".to_owned()),
            ..Completeness::default()
        };
        let what = "Incomplete: 411 of 412: series 3 'Thin 0.625' misses 1.";
        assert_eq!(incomplete(&known), what);
        known.fetch_why = Some("pacs refused to send them".to_owned());
        assert_eq!(incomplete(&known), format!("{what} pacs refused to send them."));
        known.fetching = true;
        let fetching = format!("{what} This gateway is fetching the rest.");
        assert_eq!(
            (incomplete(&known), completeness(&known, &reader)),
            (fetching.clone(), fetching)
        );

        (known.state, known.surplus) = (CompletenessState::Complete, Some(2));
        assert_eq!(
            completeness(&known, &reader),
            "412 of 412 images that pacs lists, counted at 09:20. 2 images here that the source does not list."
        );
        let silent = Completeness { state: CompletenessState::NoSource, ..Completeness::default() };
        assert_eq!(
            completeness(&silent, &reader),
            "There is no source to count against, so nobody knows whether all of it came."
        );
    }

    #[test]
    fn every_state_has_its_sentence() {
        let counts = |total, delivered| Counts {
            total,
            delivered,
            queued: total - delivered,
            ..Counts::default()
        };

        let coming = transfer(counts(118, 0));
        assert_eq!(read(&coming, TransferState::Receiving, None), "118 images so far.");
        let moving = transfer(counts(118, 40));
        assert_eq!(
            read(&moving, TransferState::Receiving, None),
            "118 images so far. 40 are already at St Elsewhere."
        );

        let queued = transfer(counts(412, 0));
        assert_eq!(
            read(&queued, TransferState::Queued, Some(2)),
            "2 transfers are ahead of this one."
        );
        assert_eq!(
            read(&queued, TransferState::Queued, Some(1)),
            "1 transfer is ahead of this one."
        );
        assert_eq!(read(&queued, TransferState::Queued, Some(0)), "This one is next.");

        let mut sending = transfer(counts(412, 280));
        assert_eq!(read(&sending, TransferState::Sending, None), "280 of 412 images.");
        sending.first_sent_at = Some(at("2026-11-22T09:19:40Z"));
        sending.last_sent_at = Some(at("2026-11-22T09:21:05Z"));
        assert_eq!(
            read(&sending, TransferState::Sending, None),
            "280 of 412 images, about 40 seconds left."
        );

        let mut sent = transfer(counts(412, 412));
        assert_eq!(
            read(&sent, TransferState::Sent, None),
            "All 412 images were accepted. St Elsewhere has not confirmed that they are stored."
        );
        sent.counts.warnings = 3;
        assert!(
            read(&sent, TransferState::Sent, None).ends_with("St Elsewhere gave a warning with 3.")
        );
        assert!(
            read(&transfer(counts(1, 1)), TransferState::Sent, None)
                .starts_with("The image was accepted.")
        );

        let mut delayed = transfer(Counts { total: 412, deferred: 412, ..Counts::default() });
        let why = |kind, text: &str| Some(Failure { kind, status: None, text: text.to_owned() });
        delayed.problem = why(FailureKind::Unreachable, "10.0.0.1:2762 did not answer");
        (delayed.next_try, delayed.next_attempt) = (Some(at("2026-11-22T09:31:00Z")), Some(3));
        assert_eq!(
            read(&delayed, TransferState::Delayed, None),
            "St Elsewhere did not answer. Next try 09:31 (try 3). You can phone 0113 496 0000."
        );

        let mut refused = transfer(Counts { total: 412, failed: 412, ..Counts::default() });
        refused.problem =
            why(FailureKind::AssociationRejected, "permanent, calling AE title not recognised");
        assert_eq!(
            read(&refused, TransferState::NeedsAction, None),
            "St Elsewhere refused the images: it does not know our name RXX_GW. Ask its PACS team to add RXX_GW."
        );

        let decision = |reason: Option<&str>| {
            let (at, by) = (at("2026-11-22T09:20:00Z"), "A Registrar".to_owned());
            Some(Decision { at, by, reason: reason.map(str::to_owned) })
        };
        let mut stopped = queued;
        stopped.paused = decision(Some("Patient is back"));
        assert_eq!(
            read(&stopped, TransferState::Paused, None),
            "Paused by A Registrar at 09:20: Patient is back."
        );
        stopped.cancelled = decision(None);
        assert_eq!(
            read(&stopped, TransferState::Cancelled, None),
            "Cancelled by A Registrar at 09:20."
        );
    }

    #[test]
    fn moments_say_the_day_when_it_is_not_today() {
        let reader = Reader { now: at("2026-11-22T09:21:05Z"), zone: TimeZone::UTC };
        let short = |text| reader.moment(at(text)).short;
        assert_eq!(short("2026-11-22T00:00:00Z"), "00:00");
        assert_eq!(short("2026-11-21T23:59:59Z"), "21 Nov 23:59");
        assert_eq!(short("2025-11-22T09:21:05Z"), "22 Nov 2025 09:21");
        assert_eq!(
            (reader.clock(), reader.midnight()),
            ("09:21:05".to_owned(), at("2026-11-22T00:00:00Z"))
        );
    }
}
