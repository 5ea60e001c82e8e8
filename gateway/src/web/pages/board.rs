//! The board of transfers: what needs a person first, then what is under way by longest wait, then what was sent.

use std::collections::HashSet;

use askama::Template;
use axum::extract::State;
use axum::response::Html;
use gantry_store::facts::Priority;
use gantry_store::index::{
    Counts, StudySummary, TransferFilter, TransferId, TransferState, TransferSummary,
};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use super::super::api::{self, Asked};
use super::super::parcel::Parcel;
use super::super::problem::Problem;
use super::super::words::{self, Moment, PatientNumber, Reader};
use super::super::{App, WebState};
use super::{ErrorPage, fragment, page, tone};
use crate::alarm::book::Alarm;

/// The most transfers under way that are looked at. A board with more is no board.
const MOST_UNFINISHED: u32 = 500;
/// The most finished ones, and for how long they stay.
const MOST_FINISHED: u32 = 200;
const STAY: SignedDuration = SignedDuration::from_hours(24);
/// For how long those stay of which the source has more: somebody should see to them.
const STAY_INCOMPLETE: SignedDuration = SignedDuration::from_hours(24 * 7);

/// The address's query. What is unknown in it is refused, so that a mistyped filter never hides a patient.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct BoardQuery {
    priority: Which,
    show: Show,
    partner: Option<String>,
    fragment: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum Which {
    #[default]
    Emergency,
    All,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum Show {
    #[default]
    Everything,
    NeedsAction,
    Today,
}

/// The page; its live parts, which the script asks for alone, are marked in the template.
#[derive(Template)]
#[template(path = "board.html")]
struct Board {
    title: &'static str,
    summary: String,
    updated: String,
    alarms: Vec<AlarmLine>,
    filters: Vec<FilterGroup>,
    groups: Vec<Group>,
    /// What a board without rows says.
    empty: String,
    emergencies_only: bool,
}

/// One alarm in the banner.
struct AlarmLine {
    sentence: String,
    act: Vec<Piece>,
    since: Moment,
    /// Since when all is well, if it is.
    clear: Option<Moment>,
    transfer: Option<TransferId>,
}

/// A piece of a sentence: what is between backquotes is typed on a command line.
struct Piece {
    text: String,
    typed: bool,
}

struct FilterGroup {
    label: &'static str,
    links: Vec<FilterLink>,
}

struct FilterLink {
    text: String,
    href: String,
    current: bool,
}

struct Group {
    heading: &'static str,
    kind: &'static str,
    rows: Vec<Line>,
}

/// One transfer.
struct Line {
    id: TransferId,
    patient: String,
    number: Option<PatientNumber>,
    born: Option<String>,
    study: String,
    /// What else is in its parcel.
    with: Option<String>,
    details: String,
    from: String,
    to: String,
    priority: Option<&'static str>,
    tag: &'static str,
    tone: &'static str,
    done: u64,
    total: u64,
    progress: String,
    waiting_label: &'static str,
    waiting: String,
    /// RFC 3339, where the wait goes on.
    since: Option<String>,
    sentence: String,
    incomplete: Option<Incomplete>,
    stalled: bool,
}

/// What its source has more of.
pub(super) struct Incomplete {
    pub(super) tone: &'static str,
    pub(super) sentence: String,
}

pub(super) async fn board(
    State(app): State<App>,
    query: Result<Asked<BoardQuery>, Problem>,
) -> Result<Html<String>, ErrorPage> {
    let Asked(query) = query?;
    let board = build(&app.web, &query).await?;
    if query.fragment.is_some() {
        return fragment(&board);
    }
    let live = link(&BoardQuery { fragment: Some("board".to_owned()), ..query });
    page(board.title, Some(&app.web.config.node.organisation), Some(&live), &board)
}

async fn build(web: &WebState, query: &BoardQuery) -> Result<Board, ErrorPage> {
    let reader = Reader::here();
    let stalled = web.alarms.stalled();
    let transfers = fetch(web, query, &reader).await?;
    let unfinished: Vec<_> = transfers.iter().map(|(transfer, _)| transfer.clone()).collect();
    let mut rows = gather(web, transfers).await?;
    rows.sort_by_key(|row| order(&row.transfer, row.state));
    let shown = rows.into_iter().filter(|Row { transfer, state, .. }| match query.show {
        Show::Everything => true,
        Show::NeedsAction => place_of(transfer, *state) == 0,
        Show::Today => transfer.created_at >= reader.midnight(),
    });
    let mut groups = [
        Group { heading: "Needs action", kind: "act", rows: Vec::new() },
        Group { heading: "In progress", kind: "move", rows: Vec::new() },
        Group { heading: "Sent or ended in the last 24 hours", kind: "done", rows: Vec::new() },
    ];
    for Row { transfer, state, parcel } in shown {
        let ahead = (state == TransferState::Queued)
            .then(|| unfinished.iter().filter(|other| api::goes_before(other, &transfer)).count());
        if let Some(group) = groups.get_mut(place_of(&transfer, state)) {
            let mut line = line(web, &reader, &transfer, state, ahead);
            line.stalled = stalled.contains(&transfer.id);
            if let Some(parcel) = parcel {
                line.show_parcel(&parcel, &stalled);
            }
            group.rows.push(line);
        }
    }
    let [act, moving, done] = &groups;
    let summary = format!(
        "{} {} action, {} in progress, {} sent or ended in the last 24 hours.",
        words::plural(act.rows.len() as u64, "transfer"),
        if act.rows.len() == 1 { "needs" } else { "need" },
        moving.rows.len(),
        done.rows.len()
    );
    let what = match (query.priority, query.show) {
        (_, Show::NeedsAction) => "Nothing needs action.",
        (Which::Emergency, _) => "No emergency transfer is under way.",
        (Which::All, _) => "No transfer is under way.",
    };
    Ok(Board {
        title: match query.priority {
            Which::Emergency => "Emergency transfers",
            Which::All => "All transfers",
        },
        summary,
        updated: reader.clock(),
        alarms: web.alarms.lasting().iter().map(|alarm| alarm_line(&reader, alarm)).collect(),
        filters: filters(web, query),
        groups: groups.into_iter().filter(|group| !group.rows.is_empty()).collect(),
        empty: what.to_owned(),
        emergencies_only: query.priority == Which::Emergency,
    })
}

/// A transfer, or the one that a parcel is shown by: of those that are furthest behind, the oldest.
struct Row {
    transfer: TransferSummary,
    /// Of the whole parcel, where there is one.
    state: TransferState,
    parcel: Option<Parcel>,
}

/// One row for each parcel, and for each transfer that is in none.
async fn gather(
    web: &WebState,
    transfers: Vec<(TransferSummary, TransferState)>,
) -> Result<Vec<Row>, ErrorPage> {
    let (mut rows, mut seen) = (Vec::with_capacity(transfers.len()), HashSet::new());
    for (transfer, state) in transfers {
        let parcel = match transfer.parcel {
            Some(id) if seen.contains(&id) => continue,
            Some(id) => Parcel::load(web, id).await?,
            None => None,
        };
        let Some(parcel) = parcel else {
            rows.push(Row { transfer, state, parcel: None });
            continue;
        };
        seen.extend(transfer.parcel);
        let behind = parcel.parts.iter().find(|(state, _)| *state == parcel.state);
        let transfer = behind.map_or(transfer, |(_, behind)| behind.clone());
        rows.push(Row { transfer, state: parcel.state, parcel: Some(parcel) });
    }
    Ok(rows)
}

impl Line {
    /// Says of the whole parcel what is said of the transfer that it is shown by.
    fn show_parcel(&mut self, parcel: &Parcel, stalled: &[TransferId]) {
        let others = parcel.parts.len() - 1;
        let studies = if others == 1 { "study" } else { "studies" };
        self.with = Some(format!("with {others} more {studies}"));
        (self.tag, self.tone) = (words::tag(parcel.state), tone(parcel.state));
        (self.done, self.total) = (parcel.counts.delivered, parcel.counts.total);
        self.progress = progress(&parcel.counts);
        self.sentence = parcel.sentence(&self.to);
        let parts = || parcel.parts.iter().map(|(_, part)| part);
        self.stalled = parts().any(|part| stalled.contains(&part.id));
        self.incomplete = parts().find_map(|part| incomplete(&part.study));
    }
}

/// What is under way, and what has ended lately, each once.
async fn fetch(
    web: &WebState,
    query: &BoardQuery,
    reader: &Reader,
) -> Result<Vec<(TransferSummary, TransferState)>, ErrorPage> {
    let all = TransferFilter {
        priority: (query.priority == Which::Emergency).then_some(Priority::Emergency),
        partner: query.partner.clone(),
        ..TransferFilter::default()
    };
    let unfinished =
        TransferFilter { only_unfinished: true, limit: MOST_UNFINISHED, ..all.clone() };
    let since = reader.now.saturating_sub(STAY).unwrap_or(Timestamp::MIN);
    let recent = TransferFilter { since: Some(since), limit: MOST_FINISHED, ..all.clone() };
    let since = reader.now.saturating_sub(STAY_INCOMPLETE).unwrap_or(Timestamp::MIN);
    let incomplete =
        TransferFilter { only_incomplete: true, since: Some(since), limit: MOST_FINISHED, ..all };
    let mut transfers = web.index.transfers(&unfinished).await?;
    for filter in [recent, incomplete] {
        for transfer in web.index.transfers(&filter).await? {
            if transfers.iter().all(|other| other.id != transfer.id) {
                transfers.push(transfer);
            }
        }
    }
    Ok(transfers
        .into_iter()
        .map(|transfer| {
            let state = api::state_of(web, &transfer);
            (transfer, state)
        })
        .collect())
}

fn progress(counts: &Counts) -> String {
    format!("{} of {}", words::grouped(counts.delivered), words::grouped(counts.total))
}

fn group_of(state: TransferState) -> usize {
    match state {
        TransferState::NeedsAction => 0,
        TransferState::Receiving
        | TransferState::Queued
        | TransferState::Sending
        | TransferState::Delayed
        | TransferState::Paused => 1,
        TransferState::Sent
        | TransferState::Confirmed
        | TransferState::Opened
        | TransferState::Cancelled
        | TransferState::Recalled => 2,
    }
}

/// The group that a transfer is shown in. What was sent of a study of which the source has more is no good end: a person
/// should look, unless this node is about to fetch the rest.
fn place_of(transfer: &TransferSummary, state: TransferState) -> usize {
    let completeness = &transfer.study.completeness;
    let ended_well =
        matches!(state, TransferState::Sent | TransferState::Confirmed | TransferState::Opened);
    match (ended_well && completeness.is_incomplete(), completeness.fetching) {
        (true, true) => 1,
        (true, false) => 0,
        (false, _) => group_of(state),
    }
}

/// What is said of a study of which the source has more.
pub(super) fn incomplete(study: &StudySummary) -> Option<Incomplete> {
    let completeness = &study.completeness;
    completeness.is_incomplete().then(|| Incomplete {
        tone: if completeness.fetching { "wait" } else { "act" },
        sentence: words::incomplete(completeness),
    })
}

/// Within a group the longest wait comes first; what has ended, the latest first.
fn order(transfer: &TransferSummary, state: TransferState) -> (usize, i64) {
    let group = place_of(transfer, state);
    let created = transfer.created_at.as_millisecond();
    (
        group,
        if group == 2 {
            -transfer.last_sent_at.map_or(created, Timestamp::as_millisecond)
        } else {
            created
        },
    )
}

fn line(
    web: &WebState,
    reader: &Reader,
    transfer: &TransferSummary,
    state: TransferState,
    ahead: Option<usize>,
) -> Line {
    let study = &transfer.study;
    let at = api::circumstances(web, reader, transfer, ahead);
    let counts = &transfer.counts;
    let waited = api::waited(transfer, state, reader.now);
    let goes_on = group_of(state) < 2;
    Line {
        id: transfer.id,
        patient: words::patient_name(study.patient_name.reveal().as_deref()),
        number: words::patient_number(study.patient_id.reveal().as_deref()),
        born: words::date(study.birth_date.reveal().as_deref()),
        study: study.description.reveal().clone().unwrap_or_else(|| "No description".to_owned()),
        with: None,
        details: details(study),
        from: web.config.node.organisation.clone(),
        to: at.partner_name(transfer).to_owned(),
        priority: priority(transfer.priority),
        tag: words::tag(state),
        tone: tone(state),
        done: counts.delivered,
        total: counts.total,
        progress: progress(counts),
        waiting_label: if goes_on { "Waiting" } else { "Took" },
        waiting: words::duration(waited),
        since: goes_on.then(|| transfer.created_at.to_string()),
        sentence: words::sentence(transfer, state, &at),
        incomplete: incomplete(study),
        stalled: false,
    }
}

fn alarm_line(reader: &Reader, alarm: &Alarm) -> AlarmLine {
    let pieces = alarm.act.split('`').enumerate();
    AlarmLine {
        sentence: alarm.sentence.clone(),
        act: pieces.map(|(at, text)| Piece { text: text.to_owned(), typed: at % 2 == 1 }).collect(),
        since: reader.moment(alarm.since),
        clear: alarm.clear_since.map(|since| reader.moment(since)),
        transfer: alarm.transfer,
    }
}

/// "CT, 412 images, 22 Nov 2026".
fn details(study: &StudySummary) -> String {
    let mut details = Vec::new();
    if !study.modalities.is_empty() {
        details.push(study.modalities.join(" and "));
    }
    details.push(words::plural(study.instance_count, "image"));
    details.extend(words::date(study.study_date.as_deref()));
    details.join(", ")
}

/// How soon, where it is not what the board shows anyway.
fn priority(priority: Priority) -> Option<&'static str> {
    match priority {
        Priority::Emergency => Some("Emergency"),
        Priority::Urgent => Some("Urgent"),
        Priority::Routine => None,
    }
}

fn filters(web: &WebState, query: &BoardQuery) -> Vec<FilterGroup> {
    let query = BoardQuery { fragment: None, ..query.clone() };
    let link_to = |text: &str, to: BoardQuery, current: bool| FilterLink {
        text: text.to_owned(),
        href: link(&to),
        current,
    };
    let which =
        [(Which::Emergency, "Emergency"), (Which::All, "All priorities")].map(|(which, text)| {
            link_to(text, BoardQuery { priority: which, ..query.clone() }, query.priority == which)
        });
    let show = [
        (Show::Everything, "Everything"),
        (Show::NeedsAction, "Needs action"),
        (Show::Today, "Today"),
    ]
    .map(|(show, text)| link_to(text, BoardQuery { show, ..query.clone() }, query.show == show));
    let mut partners = vec![link_to(
        "Any partner",
        BoardQuery { partner: None, ..query.clone() },
        query.partner.is_none(),
    )];
    partners.extend(web.config.partners.iter().map(|partner| {
        let to = BoardQuery { partner: Some(partner.name.clone()), ..query.clone() };
        link_to(&partner.display_name, to, query.partner.as_ref() == Some(&partner.name))
    }));
    vec![
        FilterGroup { label: "Priority", links: which.into() },
        FilterGroup { label: "Show", links: show.into() },
        FilterGroup { label: "To", links: partners },
    ]
}

/// The address of a board.
fn link(query: &BoardQuery) -> String {
    let mut parts = Vec::new();
    if query.priority == Which::All {
        parts.push("priority=all".to_owned());
    }
    match query.show {
        Show::Everything => {}
        Show::NeedsAction => parts.push("show=needs-action".to_owned()),
        Show::Today => parts.push("show=today".to_owned()),
    }
    if let Some(partner) = &query.partner {
        parts.push(format!("partner={}", encoded(partner)));
    }
    if query.fragment.is_some() {
        parts.push("fragment=board".to_owned());
    }
    if parts.is_empty() { "/".to_owned() } else { format!("/?{}", parts.join("&")) }
}

/// A text as a value in a query (RFC 3986 2.1).
fn encoded(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut encoded, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                encoded.push(byte.into());
            }
            // Writing to a string does not fail.
            _ => drop(write!(encoded, "%{byte:02X}")),
        }
        encoded
    })
}
