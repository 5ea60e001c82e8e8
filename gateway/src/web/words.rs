//! What rows hold, as people read it: names, numbers, dates, durations, and a transfer's state in one sentence.
//!
//! Pure functions of what they are given, the time included. Names and numbers follow what clinical staff in the NHS are
//! used to: family name in capitals first, the NHS number in groups of 3, 3 and 4, the month in letters.

use std::time::Duration;

use gantry_store::index::{TransferState, TransferSummary};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::remedy;
use crate::config::Partner;

/// "SMITH, Anna (Mrs)" for `SMITH^ANNA^^MRS` (PS3.5 6.2.1).
pub(super) fn patient_name(dicom: Option<&str>) -> String {
    // Alphabetic, ideographic, phonetic: the first that says anything.
    let group = dicom.unwrap_or_default().split('=').find(|group| group.contains(|c| c != '^' && c != ' '));
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
    let (Some(first), Some(second), Some(third)) = (digits.get(..3), digits.get(3..6), digits.get(6..)) else {
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
    let sum: u32 = values.iter().zip([10, 9, 8, 7, 6, 5, 4, 3, 2]).map(|(value, weight)| value * weight).sum();
    let check = (11 - sum % 11) % 11;
    values.last() == Some(&check)
}

/// "14 Mar 1970" for `19700314`; what is no date is shown as it is.
pub(super) fn date(dicom: Option<&str>) -> Option<String> {
    let text = dicom.map(str::trim).filter(|text| !text.is_empty())?;
    Some(civil_date(text).map_or_else(|| text.to_owned(), |date| date.strftime("%-d %b %Y").to_string()))
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
        if at > 0 && (digits.len() - at) % 3 == 0 {
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
        self.now.to_zoned(self.zone.clone()).start_of_day().map_or(self.now, |midnight| midnight.timestamp())
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
}

/// Where a transfer stands, in the one sentence that people read.
pub(super) fn sentence(transfer: &TransferSummary, state: TransferState, at: &Circumstances<'_>) -> String {
    let counts = &transfer.counts;
    let partner = at.partner_name(transfer);
    let images = |count| plural(count, "image");
    match state {
        TransferState::Receiving if counts.delivered > 0 => {
            let verb = if counts.delivered == 1 { "is" } else { "are" };
            format!("{} so far. {} {verb} already at {partner}.", images(counts.total), grouped(counts.delivered))
        }
        TransferState::Receiving => format!("{} so far.", images(counts.total)),
        TransferState::Queued => match at.ahead {
            None => format!("{} ready to go to {partner}.", images(counts.total)),
            Some(0) => "This one is next.".to_owned(),
            Some(1) => "1 transfer is ahead of this one.".to_owned(),
            Some(ahead) => format!("{ahead} transfers are ahead of this one."),
        },
        TransferState::Sending => {
            let progress = format!("{} of {}", grouped(counts.delivered), images(counts.total));
            match time_left(transfer, at.reader.now) {
                Some(left) => format!("{progress}, about {left} left."),
                None => format!("{progress}."),
            }
        }
        TransferState::Sent => {
            let accepted = match counts.delivered {
                1 => "The image was accepted.".to_owned(),
                all => format!("All {} images were accepted.", grouped(all)),
            };
            let they = if counts.delivered == 1 { "it is" } else { "they are" };
            let sent = format!("{accepted} We are waiting for {partner} to confirm that {they} stored.");
            match counts.warnings {
                0 => sent,
                some => format!("{sent} {partner} gave a warning with {}.", grouped(some)),
            }
        }
        TransferState::Confirmed => format!("{partner} confirmed {}.", images(counts.delivered)),
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
        TransferState::Recalled => "Recalled.".to_owned(),
    }
}

fn decided(what: &str, decision: Option<&gantry_store::index::Decision>, reader: &Reader) -> String {
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

/// How long the rest takes at the pace so far. Nothing where a pace cannot be told: too few, or a long silence.
fn time_left(transfer: &TransferSummary, now: Timestamp) -> Option<String> {
    let counts = &transfer.counts;
    let (first, last) = (transfer.first_sent_at?, transfer.last_sent_at?);
    let elapsed = since(first, last).as_secs_f64();
    let quiet = since(last, now).as_secs_f64();
    if counts.delivered < 5 || elapsed <= 0.0 || quiet > 30.0 {
        return None;
    }
    let left = counts.total.checked_sub(counts.delivered)?.saturating_sub(counts.cancelled);
    let seconds = left as f64 * elapsed / (counts.delivered - 1) as f64;
    Some(match seconds {
        ..10.0 => "10 seconds".to_owned(),
        ..90.0 => plural(10 * (seconds / 10.0).round() as u64, "second"),
        ..5400.0 => plural((seconds / 60.0).round() as u64, "minute"),
        _ => plural((seconds / 3600.0).round() as u64, "hour"),
    })
}
