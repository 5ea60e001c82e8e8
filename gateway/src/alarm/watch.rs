//! Watching: every few seconds, what waits is compared with what came of it since the last look.
//!
//! "Nothing leaves" is seen, not read: a counter that stands still while something waits that is not paused. So it counts
//! from the first look at which something waited; what lasted before a restart goes on from the file. What cannot be judged,
//! because the rows are away, neither begins nor ends.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use gantry_store::facts::Priority;
use gantry_store::index::{Index, IndexError, TransferFilter, TransferId, TransferSummary};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::book::Raised;
use super::{Handle, Kind};
use crate::config::Config;
use crate::intake::backlog::Backlog;
use crate::intake::drain::Wake;
use crate::retention::{Fullness, Keeper};
use crate::scrub;
use crate::scrub::round;
use crate::telemetry::chain;
use crate::telemetry::metrics::{ByAlarm, ByPartner, Metrics};

/// How often is looked.
pub(super) const LOOK: Duration = Duration::from_secs(3);
/// The most emergencies under way that are looked at, the newest first; as many as a board shows.
const MOST: u32 = 500;
/// Up to where what waits is counted.
const MOST_COUNTED: u32 = 10_000;
/// How long the rows may be away before that is an alarm: a restart of their server is none.
const OUTAGE: Duration = Duration::from_secs(30);
/// At every how many looks the object store is measured.
const MEASURE: u32 = 10;

/// What is watched.
pub struct Watch {
    /// Partners' names, and how long is too long.
    pub config: Arc<Config>,
    /// What waits.
    pub index: Index,
    /// What left.
    pub metrics: Arc<Metrics>,
    /// Whether the object store takes anything.
    pub backlog: Backlog,
    /// How full it is.
    pub keeper: Keeper,
    /// Whether what is stored is whole.
    pub scrub: scrub::Handle,
    /// Who tells pages that something has changed.
    pub wake: Arc<dyn Wake>,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

/// What was seen at the last look.
#[derive(Default)]
struct Seen {
    partners: Standing<String>,
    emergencies: Standing<TransferId>,
    away_since: Option<Timestamp>,
    full: Option<Raised>,
    looks: u32,
}

/// Counters of those for whom something waits, and since when they stand still.
struct Standing<K>(HashMap<K, (u64, Timestamp)>);

impl<K> Default for Standing<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Clone + Eq + Hash> Standing<K> {
    /// Since when the counter stands still; `begun` is for one that is seen for the first time.
    fn since(&mut self, of: &K, counter: u64, begun: Timestamp, now: Timestamp) -> Timestamp {
        let (last, since) = self.0.entry(of.clone()).or_insert((counter, begun));
        // A clock that was set back must not make it wait longer.
        if *last != counter || *since > now {
            (*last, *since) = (counter, now);
        }
        *since
    }

    /// Forgets those for whom nothing waits any more.
    fn keep(&mut self, of: &[K]) {
        self.0.retain(|known, _| of.contains(known));
    }
}

fn lasts(since: Timestamp, now: Timestamp, limit: Duration) -> bool {
    now.duration_since(since) >= jiff::SignedDuration::try_from(limit).unwrap_or_default()
}

impl Watch {
    /// Looks until it is dropped.
    pub(super) async fn run(self, handle: Handle) {
        let mut seen = Seen::default();
        loop {
            let now = Timestamp::now();
            let (raised, judged) = self.look(&mut seen, &handle, now).await;
            let changed = handle.saw(raised, &judged, now).await;
            self.count(&handle);
            if changed {
                self.wake.changed();
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What is wrong, and of which kinds that can be said.
    async fn look(
        &self,
        seen: &mut Seen,
        handle: &Handle,
        now: Timestamp,
    ) -> (Vec<Raised>, Vec<Kind>) {
        let mut raised = Vec::new();
        let mut judged = vec![
            Kind::DatabaseDown,
            Kind::ObjectStoreDown,
            Kind::ObjectStoreFull,
            Kind::ImagesLost,
        ];
        match self.waiting(seen, handle, now).await {
            Ok(stuck) => {
                seen.away_since = None;
                raised.extend(stuck);
                judged.extend([
                    Kind::EmergencyStalled,
                    Kind::EmergencySetAside,
                    Kind::PartnerSilent,
                ]);
            }
            Err(error) => {
                tracing::debug!(error = %chain(&error), "what waits cannot be judged");
                let since = *seen.away_since.get_or_insert(now);
                if lasts(since, now, OUTAGE) {
                    raised.push(database_down(since));
                }
            }
        }
        let store = self.backlog.glance().store;
        if store.reachable == Some(false) {
            raised.push(store_down(store.since.unwrap_or(now)));
        }
        if seen.looks.is_multiple_of(MEASURE)
            && let Ok(fullness) = self.keeper.fullness().await
        {
            let full = fullness.is_some_and(|fullness: Fullness| fullness.is_above());
            seen.full = full.then(|| seen.full.take().unwrap_or_else(|| store_full(now)));
        }
        seen.looks = seen.looks.wrapping_add(1);
        raised.extend(seen.full.clone());
        let unresolved = self.scrub.progress().state().unresolved();
        let lost = [round::Kind::Missing, round::Kind::Damaged];
        let lost: u64 = lost.iter().filter_map(|kind| unresolved.get(kind)).sum();
        if lost > 0 {
            raised.push(images_lost(lost, now));
        }
        (raised, judged)
    }

    /// Partners for whom nothing leaves, and emergencies that do not move.
    async fn waiting(
        &self,
        seen: &mut Seen,
        handle: &Handle,
        now: Timestamp,
    ) -> Result<Vec<Raised>, IndexError> {
        let mut raised = Vec::new();
        let before = handle.lasting();
        let begun = |kind, partner: &str, transfer: Option<TransferId>| {
            let same = before.iter().find(|alarm| {
                alarm.kind == kind
                    && alarm.transfer == transfer
                    && alarm.partner.as_deref() == Some(partner)
                    && alarm.clear_since.is_none()
            });
            same.map_or(now, |alarm| alarm.since)
        };
        let mut partners = Vec::new();
        for partner in self.index.partners_with_work().await? {
            // What waits for off-peak hours waits for nobody.
            let least = self.least_that_goes(&partner, now);
            if least == Priority::Routine || self.index.waiting_for(&partner, least, 1).await? > 0 {
                partners.push(partner);
            }
        }
        seen.partners.keep(&partners);
        for partner in &partners {
            let label = ByPartner { partner: partner.clone() };
            let left = self.metrics.sent.get_or_create(&label).get();
            let first = begun(Kind::PartnerSilent, partner, None);
            let since = seen.partners.since(partner, left, first, now);
            if self.config.alarm.partner_silent.is_some_and(|limit| lasts(since, now, limit)) {
                let least = self.least_that_goes(partner, now);
                let count = self.index.waiting_for(partner, least, MOST_COUNTED).await?;
                raised.push(self.silent(partner, count, since));
            }
        }
        let filter = TransferFilter {
            priority: Some(Priority::Emergency),
            only_unfinished: true,
            limit: MOST,
            ..TransferFilter::default()
        };
        let emergencies = self.index.transfers(&filter).await?;
        let (waiting, set_aside): (Vec<_>, Vec<_>) = (
            emergencies.iter().filter(|transfer| waits(transfer)).collect(),
            emergencies.iter().filter(|transfer| transfer.counts.failed > 0).collect(),
        );
        seen.emergencies.keep(&waiting.iter().map(|transfer| transfer.id).collect::<Vec<_>>());
        for transfer in waiting {
            let first = begun(Kind::EmergencyStalled, &transfer.partner, Some(transfer.id));
            let delivered = transfer.counts.delivered;
            let since = seen.emergencies.since(&transfer.id, delivered, first, now);
            if self.config.alarm.emergency_stalled.is_some_and(|limit| lasts(since, now, limit)) {
                raised.push(self.stalled(transfer, since));
            }
        }
        raised.extend(set_aside.into_iter().map(|transfer| self.set_aside(transfer, now)));
        Ok(raised)
    }

    /// Shows the alarms that last as figures.
    fn count(&self, handle: &Handle) {
        let mut counts: HashMap<ByAlarm, i64> = HashMap::new();
        for alarm in handle.lasting() {
            let label = ByAlarm {
                kind: alarm.kind.as_str(),
                partner: alarm.partner.clone().unwrap_or_default(),
            };
            *counts.entry(label).or_default() += 1;
        }
        self.metrics.show_alarms(&counts);
    }

    /// The least urgent that may go to a partner now.
    fn least_that_goes(&self, partner: &str, now: Timestamp) -> Priority {
        let now = now.to_zoned(TimeZone::system());
        let holds = |known: &crate::config::Partner| known.pace.holds(Priority::Routine, &now);
        if self.config.partner(partner).is_some_and(holds) {
            Priority::Urgent
        } else {
            Priority::Routine
        }
    }

    fn called(&self, partner: &str) -> (String, String) {
        match self.config.partner(partner) {
            Some(known) => {
                let phone = known.phone.as_ref().map(|phone| format!(" Phone them: {phone}."));
                (known.display_name.clone(), phone.unwrap_or_default())
            }
            None => (partner.to_owned(), String::new()),
        }
    }

    fn silent(&self, partner: &str, count: u64, since: Timestamp) -> Raised {
        let (name, phone) = self.called(partner);
        let waiting = match count {
            1 => "1 image waits".to_owned(),
            most if most >= MOST_COUNTED.into() => format!("more than {MOST_COUNTED} images wait"),
            several => format!("{several} images wait"),
        };
        Raised {
            kind: Kind::PartnerSilent,
            partner: Some(partner.to_owned()),
            transfer: None,
            since,
            sentence: format!("Nothing leaves for {name}, although {waiting}."),
            act: format!("`gantry partner test {partner}` says what is in the way.{phone}"),
        }
    }

    fn stalled(&self, transfer: &TransferSummary, since: Timestamp) -> Raised {
        let (name, phone) = self.called(&transfer.partner);
        let counts = &transfer.counts;
        let so_far = match counts.delivered {
            0 => "nothing of it was accepted yet".to_owned(),
            some => format!("{some} of {} images were accepted, and none since", counts.total),
        };
        Raised {
            kind: Kind::EmergencyStalled,
            partner: Some(transfer.partner.clone()),
            transfer: Some(transfer.id),
            since,
            sentence: format!("An emergency transfer to {name} does not move: {so_far}."),
            act: format!("`gantry transfer show {}` says what is in the way.{phone}", transfer.id),
        }
    }

    fn set_aside(&self, transfer: &TransferSummary, now: Timestamp) -> Raised {
        let (name, phone) = self.called(&transfer.partner);
        let images = match transfer.counts.failed {
            1 => "1 image of an emergency transfer to {} waits".to_owned(),
            some => format!("{some} images of an emergency transfer to {{}} wait"),
        };
        Raised {
            kind: Kind::EmergencySetAside,
            partner: Some(transfer.partner.clone()),
            transfer: Some(transfer.id),
            since: now,
            sentence: format!("{} for a person to act.", images.replace("{}", &name)),
            act: format!("`gantry transfer show {}` says why, and what to do.{phone}", transfer.id),
        }
    }
}

/// Whether something of it waits that is not held by a person.
fn waits(transfer: &TransferSummary) -> bool {
    let counts = &transfer.counts;
    transfer.paused.is_none()
        && transfer.cancelled.is_none()
        && counts.queued + counts.sending + counts.deferred > 0
}

fn of_the_node(kind: Kind, since: Timestamp, sentence: String, act: &str) -> Raised {
    Raised { kind, partner: None, transfer: None, since, sentence, act: act.to_owned() }
}

fn database_down(since: Timestamp) -> Raised {
    let sentence = "The database does not answer. Images are still taken in and wait in the spool; nothing is sent on.";
    let act = "See that its server runs; `gantry check` says what is in the way.";
    of_the_node(Kind::DatabaseDown, since, sentence.to_owned(), act)
}

fn store_down(since: Timestamp) -> Raised {
    let sentence = "The object store takes nothing. Images are still taken in and sent on, and wait in the spool.";
    let act = "`gantry status` says why, and how long the spool has room.";
    of_the_node(Kind::ObjectStoreDown, since, sentence.to_owned(), act)
}

fn store_full(since: Timestamp) -> Raised {
    let sentence = "The object store is above its high-water mark. Images are still taken in.";
    let act = "Give it room, or let retention rules remove what may go sooner (at-least): `gantry retention show`.";
    of_the_node(Kind::ObjectStoreFull, since, sentence.to_owned(), act)
}

fn images_lost(count: u64, since: Timestamp) -> Raised {
    let sentence = match count {
        1 => "1 stored image is damaged or missing.".to_owned(),
        several => format!("{several} stored images are damaged or missing."),
    };
    let act = "`gantry scrub status` says which, and what to do.";
    of_the_node(Kind::ImagesLost, since, sentence, act)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn what_stands_still_does_so_since_it_last_moved() {
        let mut standing = Standing::default();

        assert_eq!(standing.since(&"york", 7, at(10), at(10)), at(10));
        assert_eq!(standing.since(&"york", 7, at(20), at(20)), at(10));
        assert_eq!(standing.since(&"york", 8, at(30), at(30)), at(30), "it moved");
        assert_eq!(standing.since(&"york", 8, at(5), at(5)), at(5), "the clock was set back");
        standing.keep(&[]);
        assert_eq!(standing.since(&"york", 8, at(40), at(40)), at(40), "nothing waited meanwhile");
    }

    #[test]
    fn a_limit_is_reached_when_it_has_passed() {
        let limit = Duration::from_secs(30);
        assert!(!lasts(at(0), at(29), limit) && lasts(at(0), at(30), limit));
        assert!(!lasts(at(60), at(0), limit), "the clock was set back");
    }
}
