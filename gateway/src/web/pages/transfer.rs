//! One transfer: whose images, where they are, what stands in the way, and what a person can do about it.

use askama::Template;
use axum::Extension;
use axum::Form;
use axum::extract::{Path, State};
use axum::response::{Html, Redirect};
use gantry_store::facts::{Priority, Purpose};
use gantry_store::index::{
    CountedSeries, Counts, EventKind, Rejection, StudySummary, TransferDetail, TransferEvent,
    TransferId, TransferSeries, TransferState, TransferSummary,
};
use serde::Deserialize;

use super::super::api::{self, Act, Asked};
use super::super::parcel::Parcel;
use super::super::problem::Problem;
use super::super::remedy::{self, Remedy};
use super::super::session::Person;
use super::super::words::{self, Circumstances, Moment, PatientNumber, Reader};
use super::super::{App, WebState};
use super::board::{Incomplete, incomplete};
use super::{ErrorPage, fragment, page, tone};
use crate::config::RecallMeans;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TransferQuery {
    fragment: Option<String>,
}

/// The page; its live parts, which the script asks for alone, are marked in the template.
#[derive(Template)]
#[template(path = "transfer.html")]
struct TransferPage {
    id: TransferId,
    parcel: Option<ParcelBlock>,
    patient: String,
    number: Option<PatientNumber>,
    born: Option<String>,
    age: Option<String>,
    sex: Option<&'static str>,
    conflict: bool,
    study: String,
    study_date: Option<String>,
    modalities: String,
    accession: Option<String>,
    study_uid: String,
    from: String,
    to: String,
    phone: Option<String>,
    priority: &'static str,
    emergency: bool,
    stalled: bool,
    /// Whether the partner takes notes of rejection.
    iocm: bool,
    purpose: &'static str,
    route: String,
    tag: &'static str,
    tone: &'static str,
    sentence: String,
    incomplete: Option<Incomplete>,
    completeness: String,
    counted: Vec<CountedLine>,
    counted_by: String,
    done: u64,
    total: u64,
    progress: String,
    waiting_label: &'static str,
    waiting: String,
    since: Option<String>,
    clocks: Vec<Clock>,
    series: Vec<SeriesLine>,
    problems: Vec<ProblemBlock>,
    timeline: Vec<Entry>,
    can: Can,
    updated: String,
    printed: String,
}

/// A moment that people measure by.
struct Clock {
    label: &'static str,
    at: Option<Moment>,
}

struct SeriesLine {
    number: String,
    modality: String,
    description: String,
    total: String,
    delivered: String,
    rest: String,
}

/// A series as the source lists it.
struct CountedLine {
    number: String,
    modality: String,
    description: String,
    expected: String,
    here: String,
    missing: String,
}

/// The most series that the page lists of what the source has.
const COUNTED: usize = 100;

struct ProblemBlock {
    remedy: Remedy,
    count: String,
    technical: String,
    kind: &'static str,
}

struct Entry {
    at: Moment,
    what: String,
    who: Option<String>,
    note: Option<String>,
    technical: Option<String>,
}

/// What it was sent together with.
struct ParcelBlock {
    tag: &'static str,
    tone: &'static str,
    sentence: String,
    parts: Vec<Part>,
}

struct Part {
    id: TransferId,
    study: String,
    date: Option<String>,
    tag: &'static str,
    tone: &'static str,
    progress: String,
}

impl ParcelBlock {
    fn of(parcel: &Parcel, to: &str) -> Self {
        let part = |(state, part): &(TransferState, TransferSummary)| Part {
            id: part.id,
            study: study_name(&part.study),
            date: words::date(part.study.study_date.as_deref()),
            tag: words::tag(*state),
            tone: tone(*state),
            progress: progress(&part.counts),
        };
        Self {
            tag: words::tag(parcel.state),
            tone: tone(parcel.state),
            sentence: parcel.sentence(to),
            parts: parcel.parts.iter().map(part).collect(),
        }
    }
}

/// Which buttons there are.
struct Can {
    retry: bool,
    cancel: bool,
    pause: bool,
    resume: bool,
    raise: bool,
    recall: bool,
}

pub(super) async fn transfer(
    State(app): State<App>,
    Path(id): Path<String>,
    query: Result<Asked<TransferQuery>, Problem>,
) -> Result<Html<String>, ErrorPage> {
    let Asked(query) = query?;
    let unknown = || {
        ErrorPage(Problem::not_found(
            "There is no such transfer here. The address may be incomplete.",
        ))
    };
    let id: TransferId = id.parse().map_err(|_| unknown())?;
    let web = &app.web;
    let detail = web.index.transfer(id).await?.ok_or_else(unknown)?;
    let reader = Reader::here();
    let ahead = api::ahead_of(web, &detail.transfer).await?;
    let parcel = match detail.transfer.parcel {
        Some(id) => Parcel::load(web, id).await?,
        None => None,
    };
    let mut view = view(web, &reader, detail, ahead);
    view.parcel = parcel.map(|parcel| ParcelBlock::of(&parcel, &view.to));
    if query.fragment.is_some() {
        return fragment(&view);
    }
    let source = format!("/transfers/{id}?fragment=main");
    let title = format!("Transfer to {}", view.to);
    page(&title, Some(&web.config.node.organisation), Some(&source), &view)
}

/// What the buttons' forms send.
#[derive(Deserialize)]
pub(super) struct Reason {
    #[serde(default)]
    reason: String,
    /// Of a recall, in the words of the standard.
    #[serde(default)]
    rejection: Rejection,
}

pub(super) async fn act(
    State(app): State<App>,
    Path((id, act)): Path<(String, String)>,
    Extension(person): Extension<Person>,
    Form(Reason { reason, rejection }): Form<Reason>,
) -> Result<Redirect, ErrorPage> {
    let unknown = || ErrorPage(Problem::not_found("There is no such transfer here."));
    let id: TransferId = id.parse().map_err(|_| unknown())?;
    let act = match act.as_str() {
        "retry" => Act::Retry { reason },
        "cancel" => Act::Cancel { reason },
        "recall" => Act::Recall { reason, rejection },
        "pause" => Act::Pause { reason },
        "resume" => Act::Resume { reason },
        "emergency" => Act::Raise { to: Priority::Emergency, reason },
        _ => return Err(ErrorPage(Problem::not_found("There is no such button."))),
    };
    if let Act::Cancel { reason } = &act
        && reason.trim().is_empty()
    {
        let problem = Problem::bad_request(
            "Nothing was cancelled: a reason is needed, for whoever waits for the images.",
        );
        return Err(ErrorPage(problem.hint("Go back, and say why in a few words.")));
    }
    api::act(&app.web, id, &person, act).await?;
    Ok(Redirect::to(&format!("/transfers/{id}")))
}

fn study_name(study: &StudySummary) -> String {
    study.description.reveal().clone().unwrap_or_else(|| "No description".to_owned())
}

fn progress(counts: &Counts) -> String {
    let total = words::plural(counts.total, "image");
    format!("{} of {total}", words::grouped(counts.delivered))
}

fn view(
    web: &WebState,
    reader: &Reader,
    detail: TransferDetail,
    ahead: Option<usize>,
) -> TransferPage {
    let TransferDetail { transfer, series, counted, problems, events } = detail;
    let state = api::state_of(web, &transfer);
    let at = api::circumstances(web, reader, &transfer, ahead);
    let to = at.partner_name(&transfer).to_owned();
    let (study, counts) = (&transfer.study, &transfer.counts);
    let ended = matches!(
        state,
        TransferState::Sent
            | TransferState::Confirmed
            | TransferState::Opened
            | TransferState::Cancelled
            | TransferState::Recalled
    );
    let birth_date = study.birth_date.reveal().as_deref();
    TransferPage {
        id: transfer.id,
        parcel: None,
        patient: words::patient_name(study.patient_name.reveal().as_deref()),
        number: words::patient_number(study.patient_id.reveal().as_deref()),
        born: words::date(birth_date),
        age: words::age(birth_date, reader.today()),
        sex: sex(study.sex.reveal().as_deref()),
        conflict: study.patient_conflict,
        study: study_name(study),
        study_date: words::date(study.study_date.as_deref()),
        modalities: study.modalities.join(", "),
        accession: study.accession_number.reveal().clone(),
        study_uid: study.study_instance_uid.to_string(),
        from: web.config.node.organisation.clone(),
        phone: at.partner.and_then(|partner| partner.phone.clone()),
        priority: priority(transfer.priority),
        emergency: transfer.priority == Priority::Emergency,
        iocm: at.partner.is_some_and(|partner| partner.recall == RecallMeans::Iocm),
        stalled: web.alarms.stalled().contains(&transfer.id),
        purpose: purpose(transfer.purpose),
        route: transfer.route.clone(),
        tag: words::tag(state),
        tone: tone(state),
        sentence: words::sentence(&transfer, state, &at),
        incomplete: incomplete(study),
        completeness: words::completeness(&study.completeness, reader),
        counted: counted.iter().take(COUNTED).map(counted_line).collect(),
        counted_by: study.completeness.source.clone().unwrap_or_default(),
        done: counts.delivered,
        total: counts.total,
        progress: progress(counts),
        waiting_label: if ended { "Took" } else { "Waiting for" },
        waiting: words::duration(api::waited(&transfer, state, reader.now)),
        since: (!ended).then(|| transfer.created_at.to_string()),
        clocks: clocks(&transfer, &events, reader),
        series: series.iter().map(series_line).collect(),
        problems: problems
            .iter()
            .map(|problem| ProblemBlock {
                remedy: remedy::of(&problem.failure, problem.set_aside == 0, &to, &at),
                count: words::plural(problem.set_aside + problem.deferred, "image"),
                technical: technical(&problem.failure),
                kind: if problem.set_aside == 0 { "wait" } else { "act" },
            })
            .collect(),
        timeline: events.iter().map(|event| entry(event, &to, &at)).collect(),
        can: can(&transfer, state),
        updated: reader.clock(),
        printed: reader.moment(reader.now).long,
        to,
    }
}

fn technical(failure: &gantry_store::index::Failure) -> String {
    match failure.status {
        Some(status) => format!("{}: {} (status {status:04X}H)", failure.kind, failure.text),
        None => format!("{}: {}", failure.kind, failure.text),
    }
}

fn clocks(transfer: &TransferSummary, events: &[TransferEvent], reader: &Reader) -> Vec<Clock> {
    let of = |kind| {
        events.iter().rev().find(|event| event.kind == kind).map(|event| reader.moment(event.at))
    };
    vec![
        Clock { label: "First image here", at: Some(reader.moment(transfer.created_at)) },
        Clock {
            label: "First image accepted",
            at: transfer.first_sent_at.map(|at| reader.moment(at)),
        },
        Clock {
            label: "All images accepted",
            at: of(EventKind::AllSent).filter(|_| transfer.cancelled.is_none()),
        },
        Clock {
            label: "Confirmed as stored",
            at: transfer.confirmed_at.map(|at| reader.moment(at)),
        },
    ]
}

fn can(transfer: &TransferSummary, state: TransferState) -> Can {
    let counts = &transfer.counts;
    let unsent = counts.queued + counts.sending + counts.deferred + counts.failed;
    let open = transfer.cancelled.is_none() && unsent > 0;
    Can {
        retry: match &transfer.recalled {
            // Only the note of it goes any more.
            Some(recalled) if recalled.note.is_some() => counts.deferred + counts.failed > 0,
            _ => {
                counts.deferred + counts.failed + counts.cancelled > 0
                    || transfer.cancelled.is_some()
            }
        },
        cancel: open,
        pause: open && transfer.paused.is_none() && state != TransferState::NeedsAction,
        resume: transfer.paused.is_some() && transfer.cancelled.is_none(),
        recall: transfer.recalled.is_none(),
        raise: open && transfer.priority != Priority::Emergency,
    }
}

fn series_line(series: &TransferSeries) -> SeriesLine {
    let counts = &series.counts;
    let rest = [
        (counts.queued + counts.sending, "to go"),
        (counts.deferred, "delayed"),
        (counts.failed, "need action"),
        (counts.cancelled, "cancelled"),
        (counts.warnings, "with a warning"),
    ];
    let rest: Vec<_> = rest
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{} {what}", words::grouped(count)))
        .collect();
    SeriesLine {
        number: series.number.map(|number| number.to_string()).unwrap_or_default(),
        modality: series.modality.clone().unwrap_or_default(),
        description: series
            .description
            .reveal()
            .clone()
            .unwrap_or_else(|| "No description".to_owned()),
        total: words::grouped(counts.total),
        delivered: words::grouped(counts.delivered),
        rest: if rest.is_empty() { "All accepted".to_owned() } else { rest.join(", ") },
    }
}

fn counted_line(series: &CountedSeries) -> CountedLine {
    CountedLine {
        number: series.number.map(|number| number.to_string()).unwrap_or_default(),
        modality: series.modality.clone().unwrap_or_default(),
        description: series
            .description
            .reveal()
            .clone()
            .unwrap_or_else(|| "No description".to_owned()),
        expected: words::grouped(series.expected),
        here: words::grouped(series.expected.saturating_sub(series.missing)),
        missing: match series.missing {
            0 => "All here".to_owned(),
            some => format!("{} missing", words::grouped(some)),
        },
    }
}

fn entry(event: &TransferEvent, partner: &str, at: &Circumstances<'_>) -> Entry {
    let reason = || event.detail.clone();
    let (what, note, technical) = match event.kind {
        EventKind::Created => {
            (format!("First image arrived and was addressed to {partner}"), None, None)
        }
        EventKind::ReceivedAll => {
            ("The sender finished sending to this gateway".to_owned(), None, None)
        }
        EventKind::FirstSent => (format!("{partner} accepted the first image"), None, None),
        EventKind::AllSent => (format!("{partner} accepted all images"), None, None),
        EventKind::Delayed => {
            ("Delayed; the gateway tries again by itself".to_owned(), None, reason())
        }
        EventKind::SetAside => {
            ("Some images were set aside and need a person".to_owned(), None, reason())
        }
        EventKind::Retried => ("Tried again on request".to_owned(), reason(), None),
        EventKind::Cancelled => ("Cancelled".to_owned(), reason(), None),
        EventKind::Paused => ("Paused".to_owned(), reason(), None),
        EventKind::Resumed => ("Resumed".to_owned(), reason(), None),
        EventKind::PriorityRaised => ("Made more urgent".to_owned(), reason(), None),
        EventKind::Reopened => {
            ("More images arrived after all had been sent".to_owned(), None, None)
        }
        EventKind::Removed => {
            ("The images were removed from this gateway".to_owned(), reason(), None)
        }
        EventKind::Recalled => ("Recalled".to_owned(), reason(), None),
        EventKind::RecallAccepted => {
            (format!("{partner} accepted the note that the images are to be rejected"), None, None)
        }
        EventKind::Confirmed => {
            (format!("{partner} confirmed that it holds all images"), None, reason())
        }
        EventKind::NotStored => (
            format!(
                "{partner} had accepted some images that it does not have; they are sent again"
            ),
            None,
            reason(),
        ),
        EventKind::Complete => {
            ("All that the source has of the study is here".to_owned(), reason(), None)
        }
        EventKind::Incomplete => {
            ("The source has more of the study than is here".to_owned(), reason(), None)
        }
        EventKind::NotCounted => {
            ("The source did not say what it has of the study".to_owned(), None, reason())
        }
        EventKind::Fetched => {
            ("The source was asked for what is missing".to_owned(), reason(), None)
        }
    };
    Entry { at: at.reader.moment(event.at), what, who: event.actor.clone(), note, technical }
}

fn priority(priority: Priority) -> &'static str {
    match priority {
        Priority::Emergency => "Emergency",
        Priority::Urgent => "Urgent",
        Priority::Routine => "Routine",
    }
}

fn purpose(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::EmergencyTransfer => "Emergency transfer of the patient",
        Purpose::TertiaryReferral => "Tertiary referral",
        Purpose::Mdt => "Multidisciplinary team meeting",
        Purpose::DirectCare => "Direct care",
        Purpose::Research => "Research",
    }
}

fn sex(code: Option<&str>) -> Option<&'static str> {
    match code.map(str::trim) {
        Some("M") => Some("Male"),
        Some("F") => Some("Female"),
        Some("O") => Some("Other"),
        _ => None,
    }
}
