//! `gantry demo --chaos`: two centres, of which one is killed in the middle of a study and comes back, and an emergency that
//! overtakes what waits. At the end both have everything, and have confirmed it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use gantry_gateway::config::Config;
use gantry_store::facts::Priority;
use gantry_store::index::{Delivery, Index, TransferFilter, TransferSummary};
use jiff::Timestamp;
use sample_studies::{HeadCt, Instance};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::trusts::{Apart, BOTH_NOW, CENTRE, HEART, MEETING, Trusts};
use super::{
    Arguments, LOOK, NodeReport, STALLED, Shown, books, build, compare, index_failed, milliseconds,
    scanner, seed,
};
use crate::exit::{Exit, Failure};
use crate::output::{Output, Paint};
use crate::words;

/// How many images the heart centre has when it is killed.
const BEFORE: u64 = 25;
/// How many images the study for the meeting has.
const ROUTINE: u32 = 250;
/// How long the partner that was killed stays away once everything waits for it.
const AWAY: Duration = Duration::from_secs(2);

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    /// Every image is at both centres unchanged, both have confirmed it, and the emergency came first.
    ok: bool,
    /// Images that the scanner sent, each to both centres.
    instances: u64,
    /// Images at the far ends whose SHA-256 is that of what the scanner sent; twice as many if all is well.
    digests_verified: u64,
    /// What happened when.
    story: Vec<Happened>,
    /// How many images for the meeting the heart centre was sent, after it had come back, before the last one of the emergency.
    routine_before_emergency: u64,
    transfers: Vec<Sent>,
    /// What does not add up, in words; empty if all is well.
    faults: Vec<String>,
    nodes: Vec<NodeReport>,
}

#[derive(Debug, Serialize)]
struct Happened {
    at_ms: u64,
    what: String,
}

#[derive(Debug, Serialize)]
struct Sent {
    partner: String,
    priority: Priority,
    images: u64,
    confirmed: u64,
    last_sent_ms: Option<u64>,
}

/// Tells what happens as it happens.
struct Story {
    began: Timestamp,
    told: Vec<Happened>,
    output: Output,
}

impl Story {
    fn tell(&mut self, what: impl Into<String>) -> Result<(), Failure> {
        let happened =
            Happened { at_ms: milliseconds(self.began, Timestamp::now()), what: what.into() };
        if !self.output.is_json() {
            let seconds = happened.at_ms as f64 / 1000.0;
            self.output.line(format_args!("  {seconds:>7.3} s  {}", happened.what))?;
        }
        self.told.push(happened);
        Ok(())
    }
}

pub(super) async fn show(
    arguments: &Arguments,
    folder: &Path,
    output: Output,
) -> Result<Shown, Failure> {
    let text = !output.is_json();
    let mut trusts = Trusts::three(folder, arguments.web(output)).await?;
    if text {
        output.line(output.paint(Paint::Bold, "Three trusts on this machine"))?;
        output.line(format_args!(
            "  {} sends to {} and to {}.\n",
            trusts.district.name.display, CENTRE.display, HEART.display
        ))?;
    }
    let seed = seed();
    let meeting: Vec<_> = sample_studies::ct_slices(seed, ROUTINE).collect();
    let head = HeadCt { thin_slices: arguments.thin_slices, ..HeadCt::new(seed + 1) };
    let emergency = build(head, output).await?;
    let mut story = Story { began: Timestamp::now(), told: Vec::new(), output };
    play(&mut trusts, &meeting, &emergency, &mut story).await?;
    let report = check(&trusts, &meeting, &emergency, story).await?;
    if text {
        conclude(&report, output)?;
    } else {
        output.json(&report)?;
    }
    let ok = report.ok;
    if text && ok && !arguments.once {
        super::tell_where(&report.nodes, output)?;
    }
    Ok(Shown { trusts, ok })
}

/// From the first image to the last confirmation.
async fn play(
    trusts: &mut Trusts,
    meeting: &[Instance],
    emergency: &[Instance],
    story: &mut Story,
) -> Result<(), Failure> {
    let missing = || Failure::new(Exit::Failed, "the demonstration's own nodes are not there");
    let scanner = trusts.district.plain_listener().ok_or_else(missing)?;
    let Trusts { district, heart, .. } = trusts;
    let (index, heart) = (district.node.index(), heart.as_mut().ok_or_else(missing)?);

    let routine = meeting.len() as u64;
    story.tell(format!("the scanner sends {routine} images for tomorrow's meeting, as routine"))?;
    let dies = async {
        until(index, "the heart centre to have some of it", |all| {
            all.delivered(HEART.short, Priority::Routine) >= BEFORE
        })
        .await?;
        heart.kill().await
    };
    tokio::try_join!(scanner::send(scanner, MEETING, meeting, || {}), dies)?;
    let at_death = Transfers::of(index).await?.delivered(HEART.short, Priority::Routine);
    story.tell(format!("{} is killed (SIGKILL) with {at_death} of them", HEART.display))?;
    until(index, "the infirmary to have all of it", |all| {
        all.delivered(CENTRE.short, Priority::Routine) == routine
    })
    .await?;
    story.tell(format!("{} has all {routine}: nobody waits for the other", CENTRE.display))?;

    let urgent = emergency.len() as u64;
    story.tell(format!("an emergency for both, {urgent} images: a fall, and a torn aorta"))?;
    scanner::send(scanner, BOTH_NOW, emergency, || {}).await?;
    until(index, "the infirmary to have the emergency", |all| {
        all.delivered(CENTRE.short, Priority::Emergency) == urgent
    })
    .await?;
    story.tell(format!("{} has the emergency", CENTRE.display))?;
    let waiting = Transfers::of(index).await?.waiting(HEART.short);
    story.tell(format!("{waiting} images wait for {}, on disk", HEART.display))?;
    sleep(AWAY).await;

    heart.run().await?;
    story.tell(format!("{} is back", HEART.display))?;
    until(index, "the heart centre to have the emergency", |all| {
        all.delivered(HEART.short, Priority::Emergency) == urgent
    })
    .await?;
    let waiting = Transfers::of(index).await?.waiting(HEART.short);
    story.tell(format!(
        "{} has the emergency; {waiting} routine images still wait behind it",
        HEART.display
    ))?;
    until(index, "the heart centre to have everything", |all| all.waiting(HEART.short) == 0)
        .await?;
    story.tell(format!("{} has everything", HEART.display))?;
    until(index, "both to confirm what they hold", Transfers::are_confirmed).await?;
    story.tell("both have confirmed that they hold every image (storage commitment)")
}

/// The transfers, by partner and priority.
struct Transfers(BTreeMap<(String, Priority), TransferSummary>);

impl Transfers {
    async fn of(index: &Index) -> Result<Self, Failure> {
        let all = index.transfers(&TransferFilter::default()).await;
        let all = all.map_err(|error| index_failed(&error))?;
        let key = |transfer: &TransferSummary| (transfer.partner.clone(), transfer.priority);
        Ok(Self(all.into_iter().map(|transfer| (key(&transfer), transfer)).collect()))
    }

    fn delivered(&self, partner: &str, priority: Priority) -> u64 {
        let transfer = self.0.get(&(partner.to_owned(), priority));
        transfer.map_or(0, |transfer| transfer.counts.delivered)
    }

    /// Of any priority.
    fn waiting(&self, partner: &str) -> u64 {
        let to = self.0.values().filter(|transfer| transfer.partner == partner);
        to.map(|transfer| transfer.counts.total - transfer.counts.delivered).sum()
    }

    fn are_confirmed(&self) -> bool {
        self.0.len() == 4 && self.0.values().all(|transfer| transfer.confirmed_at.is_some())
    }
}

/// Looks until it is so; not for ever while nothing moves.
async fn until(
    index: &Index,
    what: &str,
    mut is: impl FnMut(&Transfers) -> bool,
) -> Result<(), Failure> {
    let mut moved = (Instant::now(), (0, 0));
    loop {
        let all = Transfers::of(index).await?;
        if is(&all) {
            return Ok(());
        }
        let sum = |of: fn(&TransferSummary) -> u64| all.0.values().map(of).sum::<u64>();
        let now = (sum(|transfer| transfer.counts.delivered), sum(|transfer| transfer.confirmed));
        if moved.1 != now {
            moved = (Instant::now(), now);
        }
        if moved.0.elapsed() > STALLED {
            return Err(Failure::new(
                Exit::Failed,
                format_args!("waited {} s in vain for {what}", STALLED.as_secs()),
            ));
        }
        // The first images are at the other end sooner than anybody looks.
        sleep(LOOK / 10).await;
    }
}

/// Looks up at both ends what is claimed.
async fn check(
    trusts: &Trusts,
    meeting: &[Instance],
    emergency: &[Instance],
    story: Story,
) -> Result<Report, Failure> {
    let index = trusts.district.node.index();
    let began = story.began;
    let (mut verified, mut faults) = (0, Vec::new());
    let heart = trusts.heart.as_ref().map(Apart::index);
    let heart = match heart {
        Some(path) => Index::open(&path).await.map_err(|error| index_failed(&error))?,
        None => return Err(Failure::new(Exit::Failed, "there is no heart centre")),
    };
    for (far, name) in [(trusts.centre.node.index(), &CENTRE), (&heart, &HEART)] {
        for study in [meeting, emergency] {
            let found = compare(far, study).await?;
            verified += found.verified;
            faults.extend(found.texts.into_iter().map(|text| format!("{}: {text}", name.display)));
        }
    }
    heart.close().await;
    let instances = (meeting.len() + emergency.len()) as u64;
    faults.extend(books(trusts, instances, 2).await?);
    let transfers = Transfers::of(index).await?;
    let routine_before_emergency = overtaken(index, &transfers).await?;
    // What was on the wire when it came, and no more: one image an association.
    let allowed = gantry_gateway::config::Associations::default().most() as u64;
    if routine_before_emergency > allowed {
        faults.push(format!("{routine_before_emergency} routine images went before the emergency"));
    }
    let since = |at: Option<Timestamp>| at.map(|at| milliseconds(began, at));
    let transfers = transfers.0.into_values().map(|transfer| Sent {
        images: transfer.counts.total,
        confirmed: transfer.confirmed,
        last_sent_ms: since(transfer.last_sent_at),
        priority: transfer.priority,
        partner: transfer.partner,
    });
    let mut nodes: Vec<NodeReport> = vec![(&trusts.district).into(), (&trusts.centre).into()];
    if let Some(apart) = &trusts.heart {
        nodes.push(of_apart(apart));
    }
    Ok(Report {
        ok: faults.is_empty() && verified == 2 * instances,
        instances,
        digests_verified: verified,
        story: story.told,
        routine_before_emergency,
        transfers: transfers.collect(),
        faults,
        nodes,
    })
}

fn of_apart(apart: &Apart) -> NodeReport {
    let config = Config::load(&apart.config()).ok().map(|(config, _)| config);
    let listeners = config.iter().flat_map(|config| &config.listeners);
    NodeReport {
        name: HEART.display,
        ae_title: HEART.ae_title,
        listeners: listeners.map(|listener| listener.address.to_string()).collect(),
        web: config.and_then(|config| config.web?.url),
        sign_in_link: None,
        config: apart.config(),
    }
}

/// How many routine images the heart centre accepted between the first and the last one of the emergency.
async fn overtaken(index: &Index, transfers: &Transfers) -> Result<u64, Failure> {
    let to_heart = |priority| transfers.0.get(&(HEART.short.to_owned(), priority));
    let (Some(routine), Some(emergency)) =
        (to_heart(Priority::Routine), to_heart(Priority::Emergency))
    else {
        return Ok(0);
    };
    let (from, until) = (emergency.first_sent_at, emergency.last_sent_at);
    let rows = index.deliveries(routine.id).await.map_err(|error| index_failed(&error))?;
    let between = rows.iter().filter(|row| match &row.delivery {
        Delivery::Delivered(receipt) => Some(receipt.at) > from && Some(receipt.at) < until,
        _ => false,
    });
    Ok(between.count() as u64)
}

fn conclude(report: &Report, output: Output) -> Result<(), Failure> {
    output.line("")?;
    if !report.ok {
        let bad = output.paint(Paint::Red, "✗");
        for fault in report.faults.iter().take(5) {
            output.line(format_args!("  {bad} {fault}"))?;
        }
        return match report.faults.len().saturating_sub(5) {
            0 => Ok(()),
            more => output.line(format_args!("    and {more} more")),
        };
    }
    let good = output.paint(Paint::Green, "✓");
    let images = words::count(report.instances, "image", "images");
    output.line(format_args!(
        "  {good} {images} at each of two centres, each bit for bit as the scanner sent it (SHA-256)"
    ))?;
    output.line(format_args!(
        "  {good} both have confirmed all of it; nothing waits, and nothing was set aside"
    ))?;
    output.line(format_args!(
        "  {good} the emergency went first: {} of the meeting's images went while it was under way",
        report.routine_before_emergency
    ))
}
