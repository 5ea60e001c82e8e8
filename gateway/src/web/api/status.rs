//! The node at a glance: who it is, what waits, and what is wrong, in words.

use axum::Json;
use axum::extract::State;
use gantry_store::index::{Conservation, Totals};
use gantry_store::spool::Room;
use jiff::Timestamp;
use serde::Serialize;

use super::super::health::{self, Readiness};
use super::super::problem::Problem;
use super::super::words::{plural, since};
use super::super::{App, WebState};
use crate::alarm::book::Alarm;
use crate::alarm::channel::ChannelReport;
use crate::config::{ListenerTls, ObjectStore};
use crate::intake::backlog::Glance;
use crate::retention::Fullness;
use crate::scrub::Report;
use crate::telemetry::metrics::ByListener;

/// A partner's certificate that ends within so many days is a problem already.
const CERTIFICATE_WARNING_DAYS: i64 = 30;

const ABOVE_MARK: &str = "The object store is above its high-water mark. Images are still taken in: give it room, or let \
    retention rules remove what may go sooner (at-least).";

/// `GET /api/v1/status`.
#[derive(Debug, Serialize)]
pub(super) struct Status {
    version: &'static str,
    ae_title: String,
    organisation: String,
    started: Timestamp,
    uptime_seconds: u64,
    listeners: Vec<ListenerView>,
    /// Where pages are.
    #[serde(skip_serializing_if = "Option::is_none")]
    web: Option<String>,
    /// For each, `ordered` is the sum of delivered, waiting, set aside and cancelled, always.
    partners: Vec<PartnerView>,
    spool: SpoolView,
    object_store: StoreView,
    scrub: ScrubView,
    totals: Totals,
    readiness: Readiness,
    /// What is stuck, the gravest first.
    alarms: Vec<Alarm>,
    /// What somebody should look at.
    problems: Vec<String>,
}

#[derive(Debug, Serialize)]
struct ListenerView {
    name: String,
    tls: &'static str,
    associations: i64,
    max_associations: usize,
}

#[derive(Debug, Serialize)]
struct PartnerView {
    name: String,
    display_name: String,
    /// `None` where only old transfers remember it.
    #[serde(skip_serializing_if = "Option::is_none")]
    ae_title: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    phone: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificates_until: Option<Timestamp>,
    ordered: u64,
    delivered: u64,
    waiting: u64,
    set_aside: u64,
    cancelled: u64,
}

#[derive(Debug, Serialize)]
struct SpoolView {
    /// Instances that are not in the object store yet.
    waiting: u64,
    /// Instances that could not be protected at intake, and go nowhere.
    held_back: u64,
    /// Bytes that it holds.
    held_bytes: Option<u64>,
    /// Bytes until what is not an emergency is refused; `None` if the disk does not say.
    room_bytes: Option<u64>,
    /// The same for emergencies.
    emergency_room_bytes: Option<u64>,
    /// Files until what is not an emergency is refused; `None` also where the file system has no such limit.
    room_files: Option<u64>,
    /// How long the room lasts at the rate of the last hours, if nothing leaves the spool's disk; `None` without a rate.
    room_days: Option<f64>,
}

#[derive(Debug, Serialize)]
struct StoreView {
    /// `file` or `s3`.
    kind: &'static str,
    /// Whether it took what it was last given; `None` before the first time.
    reachable: Option<bool>,
    /// Since when that is so.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Timestamp>,
    /// Why it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    /// Objects that wait to be stored, their bytes, and when the oldest of them arrived.
    waiting: u64,
    waiting_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_waiting: Option<Timestamp>,
    /// What is used of it, and its high-water mark; absent without one.
    #[serde(flatten)]
    fullness: Option<Fullness>,
    /// Whether the mark is passed.
    above_mark: bool,
    /// How long it is until the mark at the rate of the last hours; `None` without a mark or a rate.
    room_days: Option<f64>,
}

/// How reading again all that is kept stands.
#[derive(Debug, Serialize)]
struct ScrubView {
    /// Whether rounds begin by themselves.
    by_itself: bool,
    /// When the round that runs began, and how many images it has found whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    begun_at: Option<Timestamp>,
    verified: u64,
    /// Why it does not go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting: Option<String>,
    /// When everything had last been seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_ended_at: Option<Timestamp>,
    /// What a person must see to.
    unresolved: u64,
}

fn scrub(report: &Report) -> ScrubView {
    ScrubView {
        by_itself: report.every_seconds.is_some(),
        begun_at: report.current.as_ref().map(|round| round.begun_at),
        verified: report
            .current
            .as_ref()
            .or(report.last.as_ref())
            .map_or(0, |round| round.verified),
        waiting: report.waiting.as_ref().map(|waiting| waiting.why.clone()),
        last_ended_at: report.last.as_ref().and_then(|round| round.ended_at),
        unresolved: report.unresolved.values().sum(),
    }
}

fn spool(
    room: Option<Room>,
    (waiting, held_back): (u64, u64),
    bytes_per_day: Option<u64>,
) -> SpoolView {
    let bytes = room.map(|room| room.bytes);
    let rate = bytes_per_day.filter(|rate| *rate > 0);
    SpoolView {
        waiting,
        held_back,
        held_bytes: room.map(|room| room.held),
        room_bytes: bytes,
        emergency_room_bytes: room.map(|room| room.emergency_bytes),
        room_files: room.and_then(|room| room.inodes),
        room_days: bytes.zip(rate).map(|(room, rate)| room as f64 / rate as f64),
    }
}

fn store(web: &WebState, glance: Glance, fullness: Option<Fullness>) -> StoreView {
    let rate = glance.bytes_per_day.filter(|rate| *rate > 0);
    StoreView {
        fullness,
        above_mark: fullness.is_some_and(|fullness| fullness.is_above()),
        room_days: fullness.zip(rate).map(|(fullness, rate)| fullness.room() as f64 / rate as f64),
        kind: match web.config.object_store {
            ObjectStore::File => "file",
            ObjectStore::S3(_) => "s3",
        },
        reachable: glance.store.reachable,
        since: glance.store.since,
        why: glance.store.why,
        waiting: glance.waiting,
        waiting_bytes: glance.bytes,
        oldest_waiting: glance.oldest,
    }
}

pub(super) async fn status(State(app): State<App>) -> Result<Json<Status>, Problem> {
    let web = &app.web;
    let readiness = health::readiness(&app).await;
    let totals = web.index.totals().await?;
    let partners = partners(web, web.index.conservation().await?);
    let disk = web.spool.clone();
    let looked = tokio::task::spawn_blocking(move || (disk.measure().ok(), disk.held_back().ok()));
    let (room, held_back) = looked.await.unwrap_or_default();
    let held_back = held_back.unwrap_or_default();
    let glance = web.intake.handoff().backlog().glance();
    let (now, scrub) = (Timestamp::now(), scrub(&web.scrub.report()));
    let fullness = web.keeper().fullness().await?;
    let mut problems = problems(&readiness, &partners, &totals, &scrub, now);
    problems.extend(fullness.filter(Fullness::is_above).map(|_| ABOVE_MARK.to_owned()));
    problems.extend((held_back > 0).then(|| {
        format!(
            "{held_back} of the images that were received cannot be protected at intake as their routes order, and are held back \
             in the spool; the log says why, and a restart tries again"
        )
    }));
    problems.extend(untold(&web.alarms.report().channels));
    Ok(Json(Status {
        version: env!("CARGO_PKG_VERSION"),
        ae_title: web.config.node.ae_title.to_string(),
        organisation: web.config.node.organisation.clone(),
        started: web.started,
        uptime_seconds: since(web.started, now).as_secs(),
        listeners: listeners(web),
        web: web.base_url(),
        problems,
        partners,
        scrub,
        spool: spool(room, (totals.unstored, held_back), glance.bytes_per_day),
        object_store: store(web, glance, fullness),
        totals,
        alarms: web.alarms.lasting(),
        readiness: Readiness::clone(&readiness),
    }))
}

/// Channels that do not take what they are told.
fn untold(channels: &[ChannelReport]) -> Vec<String> {
    let failing = channels.iter().filter(|channel| channel.failing_since.is_some());
    failing
        .map(|channel| {
            let why = channel.why.as_deref().unwrap_or("it did not say why");
            format!("Alarms do not arrive at {}: {why}.", channel.name)
        })
        .collect()
}

fn listeners(web: &WebState) -> Vec<ListenerView> {
    let view = |listener: &crate::config::Listener| {
        let label = ByListener { listener: listener.name.clone() };
        ListenerView {
            name: listener.name.clone(),
            tls: match listener.tls {
                ListenerTls::Mutual => "mutual",
                ListenerTls::Off => "off",
            },
            associations: web.metrics.associations.get(&label).map_or(0, |gauge| gauge.get()),
            max_associations: listener.max_associations,
        }
    };
    web.config.listeners.iter().map(view).collect()
}

/// All that are configured, and all that something was ever ordered for.
fn partners(web: &WebState, counts: Vec<Conservation>) -> Vec<PartnerView> {
    let mut views: Vec<_> = web
        .config
        .partners
        .iter()
        .map(|partner| PartnerView {
            name: partner.name.clone(),
            display_name: partner.display_name.clone(),
            ae_title: Some(partner.ae_title.to_string()),
            address: Some(partner.address.to_string()),
            phone: partner.phone.clone(),
            certificates_until: partner.certificates_until,
            ..PartnerView::unknown(&partner.name)
        })
        .collect();
    for counted in counts {
        let known =
            views.iter().position(|view| view.name == counted.partner).unwrap_or(views.len());
        if known == views.len() {
            views.push(PartnerView::unknown(&counted.partner));
        }
        if let Some(view) = views.get_mut(known) {
            view.ordered = counted.ordered;
            view.delivered = counted.delivered;
            view.waiting = counted.waiting;
            view.set_aside = counted.set_aside;
            view.cancelled = counted.cancelled;
        }
    }
    views
}

impl PartnerView {
    fn unknown(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            display_name: name.to_owned(),
            ae_title: None,
            address: None,
            phone: None,
            certificates_until: None,
            ordered: 0,
            delivered: 0,
            waiting: 0,
            set_aside: 0,
            cancelled: 0,
        }
    }
}

fn problems(
    readiness: &Readiness,
    partners: &[PartnerView],
    totals: &Totals,
    scrub: &ScrubView,
    now: Timestamp,
) -> Vec<String> {
    let mut problems: Vec<String> =
        readiness.checks.iter().filter_map(|check| check.problem.map(str::to_owned)).collect();
    for partner in partners {
        let name = &partner.display_name;
        if partner.set_aside > 0 {
            let images = plural(partner.set_aside, "image");
            problems.push(format!("{images} for {name} wait for a person to act."));
        }
        if partner.ae_title.is_none() && partner.waiting > 0 {
            problems.push(format!(
                "Images wait for {name}, which is not in the configuration any more."
            ));
        }
        if let Some(until) = partner.certificates_until {
            let days = until.duration_since(now).as_hours() / 24;
            match days {
                ..0 => problems.push(format!("The pinned certificate of {name} has expired.")),
                0..CERTIFICATE_WARNING_DAYS => {
                    problems.push(format!(
                        "The pinned certificate of {name} expires in {}.",
                        plural(days.unsigned_abs(), "day")
                    ));
                }
                _ => {}
            }
        }
    }
    if scrub.unresolved > 0 {
        problems.push(format!(
            "{} wrong in the object store: `gantry scrub status` says which, and what to do.",
            plural(scrub.unresolved, "image")
        ));
    }
    if totals.quarantined > 0 {
        problems.push(format!(
            "{} in quarantine: they contradict what another sender sent under the same UID.",
            plural(totals.quarantined, "instance")
        ));
    }
    problems
}
