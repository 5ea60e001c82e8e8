//! What the workers of one partner know together: whether it can be had, how many associations it serves at once, and how
//! urgent the most urgent thing is that one of them has in hand.
//!
//! A partner that cannot be had is left alone by all of them for a growing time, and is then tried by one. A partner that
//! takes no further association while it serves others is not one that cannot be had: that many are enough, and who has
//! none waits for a place. Knows nothing of deliveries and associations themselves.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gantry_store::facts::Priority;
use gantry_store::index::DeliveryId;
use jiff::{Timestamp, Zoned};

use super::breadth::Breadth;
use super::{Call, schedule};
use crate::config::{Associations, Compress, Config, Delivery, Partner};
use crate::partner::flow::{Flow, Throttle};
use crate::partner::link::{Encoder, Link};
use crate::partner::store_scu::Wanted;

/// After so many associations in a row that broke at instances tried for the first time it is the partner that is at fault,
/// and not the instances.
const BREAKS: u32 = 3;
/// For how long it is believed that a partner serves no more associations than it did.
const LIMIT_HOLDS: Duration = Duration::from_mins(5);

/// The workers of one partner.
#[derive(Debug)]
pub struct Team {
    partner: Partner,
    call: Arc<Call>,
    flow: Flow,
    shared: Mutex<Shared>,
}

#[derive(Debug)]
struct Shared {
    trouble: Trouble,
    places: Places,
    /// What associations were asked for lately.
    kinds: Wanted,
    /// What went over the link lately.
    link: Link,
    /// How many associations that link needs.
    breadth: Breadth,
    /// How many batches are in hand, of each priority.
    in_hand: [usize; Priority::ALL.len()],
    /// What an association failed to carry that had been idle.
    spared: BTreeSet<DeliveryId>,
}

/// More of these are not remembered.
const MOST_SPARED: usize = 10_000;

/// How it went lately.
#[derive(Debug, Default)]
struct Trouble {
    failures: u32,
    until: Option<Timestamp>,
    /// Whether that wait is already an emergency's.
    emergency: bool,
    /// Associations in a row that broke at an instance tried for the first time.
    breaks: u32,
}

/// The associations with the partner.
#[derive(Debug, Default)]
struct Places {
    /// Those that are being asked for.
    asked: usize,
    open: usize,
    /// How many it serves at once, and until when that is believed.
    limit: Option<(usize, Instant)>,
}

impl Places {
    fn limit(&self) -> Option<usize> {
        self.limit.filter(|(_, until)| Instant::now() < *until).map(|(limit, _)| limit)
    }

    /// Whether one more may be asked for: the first alone, so that it is clear what came of it, the others side by side.
    fn has_room(&self) -> bool {
        match self.open {
            0 => self.asked == 0,
            open => self.limit().is_none_or(|limit| open + self.asked < limit),
        }
    }
}

/// The right to have one association. Ends when dropped.
#[derive(Debug)]
pub struct Place {
    team: Arc<Team>,
    open: bool,
    first: bool,
}

/// A batch that is being sent. Ends when dropped, and then lets go on what was less urgent.
#[derive(Debug)]
pub struct InHand<'a> {
    team: &'a Team,
    priority: Priority,
}

impl Team {
    /// The team of a partner; `call` is rung when something is to be sent, or a person wants it tried now.
    pub fn new(partner: Partner, call: Arc<Call>) -> Arc<Self> {
        let shared = Mutex::new(Shared::new(partner.associations));
        Arc::new(Self { partner, call, flow: Flow::default(), shared })
    }

    /// Whom it sends to.
    pub fn partner(&self) -> &Partner {
        &self.partner
    }

    /// What its workers wait on.
    pub fn call(&self) -> &Call {
        &self.call
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        // Numbers, each valid by itself, whatever happened to their last holder.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is nobody's failure that an idle association did not carry this: the first time. An instance that makes the
    /// partner hang up would else go round for ever.
    pub fn spares(&self, delivery: DeliveryId) -> bool {
        let spared = &mut self.shared().spared;
        if spared.len() >= MOST_SPARED {
            spared.clear();
        }
        spared.insert(delivery)
    }

    /// How long the partner is left alone; `None` if it may be tried.
    pub fn left_alone_for(&self) -> Option<Duration> {
        let (at_once, emergency) = (self.call.take_at_once(), self.call.take_emergency());
        let trouble = &mut self.shared().trouble;
        // The wait that suits routine is too long for an emergency, which gets a try, and then waits of its own.
        if at_once || (emergency && !trouble.emergency) {
            trouble.until = None;
        }
        Duration::try_from(trouble.until?.duration_since(Timestamp::now()))
            .ok()
            .filter(|left| !left.is_zero())
    }

    /// Notes that the partner cannot be had, and says when to try again. Workers that find out together count once.
    pub fn failed(&self, config: &Config, priority: Priority) -> Timestamp {
        self.shared().failed(&config.delivery, priority, Timestamp::now())
    }

    /// Notes that an association broke at an instance. If that makes the partner one that cannot be had, says when to try
    /// again. An instance that broke one before is no evidence against the partner: it may always do that.
    pub fn broke(&self, config: &Config, priority: Priority, attempt: u32) -> Option<Timestamp> {
        self.shared().broke(&config.delivery, priority, attempt, Timestamp::now())
    }

    /// Notes that the partner answers. True if it did not before.
    pub fn succeeded(&self) -> bool {
        std::mem::take(&mut self.shared().trouble).failures > 0
    }

    /// Notes that an instance of so many bytes began to go then, as fast as the link is, and has arrived.
    pub fn passed(&self, begun: Instant, bytes: u64) {
        let ended = Instant::now();
        let (more, wanted) = {
            let mut shared = self.shared();
            shared.link.note(begun, ended, bytes);
            let busy = shared.in_hand.iter().sum();
            (shared.breadth.note(begun, ended, bytes, busy), shared.breadth.wanted())
        };
        if more {
            tracing::debug!(
                partner = self.partner.name,
                associations = wanted,
                "link takes more at once"
            );
            self.call.ring();
        }
    }

    /// How many associations are to be had at once, apart from the one for emergencies, while there is work for them.
    pub fn breadth(&self) -> usize {
        self.shared().breadth.wanted()
    }

    /// Whether what has this priority waits for the partner's off-peak hours.
    pub fn holds(&self, priority: Priority) -> bool {
        self.partner.pace.holds(priority, &Zoned::now())
    }

    /// Bytes a second that what has this priority may take together; `None` for as many as there are.
    pub fn rate_for(&self, priority: Priority) -> Option<u64> {
        self.partner.pace.rate_for(priority, &Zoned::now())
    }

    /// What lets one instance wait for the rate; not once an emergency has come meanwhile.
    pub fn throttle(&self, rate: Option<u64>) -> Throttle<'_> {
        self.flow.throttle(rate, self.call.emergencies())
    }

    /// Bytes a second that go over the link, if that is known.
    pub fn link_rate(&self) -> Option<f64> {
        self.shared().link.rate(Instant::now())
    }

    /// Whether to compress what goes uncompressed otherwise.
    pub fn compresses(&self, encoder: &Encoder, priority: Priority) -> bool {
        let slower = |rate| self.shared().link.is_slower(rate, priority, Instant::now());
        match self.partner.compress {
            Compress::Always => true,
            Compress::Never => false,
            // The encoder is measured, which takes a moment, only for a link that may be slower.
            // So is one that may not be used as fast as it is.
            Compress::Auto => {
                let limited = self.rate_for(priority).map(|rate| rate as f64);
                limited.is_some_and(|rate| rate < encoder.rate())
                    || slower(f64::INFINITY) && slower(encoder.rate())
            }
        }
    }

    /// Whether the partner could not be had when it was last tried, and is to show that it can before it is sent anything.
    pub fn is_on_trial(&self) -> bool {
        self.shared().is_on_trial()
    }

    /// Whether a worker without an association may ask for one.
    pub fn has_room(&self) -> bool {
        self.shared().has_room()
    }

    /// Whether the partner serves fewer associations than there are workers, so that each must do for all priorities.
    pub fn is_limited(&self) -> bool {
        self.shared().places.limit().is_some()
    }

    /// A place to ask for an association in, unless others have them all.
    pub fn place(self: &Arc<Self>) -> Option<Place> {
        let mut shared = self.shared();
        shared.has_room().then(|| {
            shared.places.asked += 1;
            Place { team: self.clone(), open: false, first: shared.places.open == 0 }
        })
    }

    /// What to ask an association for: what is needed, and what was needed lately as well, as long as that `fits`.
    pub fn kinds_with(&self, needed: Wanted, fits: impl Fn(&Wanted) -> bool) -> Wanted {
        let kinds = &mut self.shared().kinds;
        kinds.extend(needed.iter().cloned());
        if !fits(kinds) {
            *kinds = needed;
        }
        kinds.clone()
    }

    /// Notes that the partner took no more associations than it serves already. Says how many those are.
    pub fn is_full(&self) -> Option<usize> {
        let places = &mut self.shared().places;
        (places.open > 0).then(|| {
            places.limit = Some((places.open, Instant::now() + LIMIT_HOLDS));
            places.open
        })
    }

    /// Notes that a batch is in hand.
    pub fn take_in_hand(&self, priority: Priority) -> InHand<'_> {
        if let Some(count) = self.shared().count(priority) {
            *count += 1;
        }
        InHand { team: self, priority }
    }

    /// Whether any worker has something more urgent in hand.
    pub fn has_in_hand_before(&self, priority: Priority) -> bool {
        let shared = self.shared();
        Priority::ALL.iter().zip(&shared.in_hand).any(|(of, count)| *of < priority && *count > 0)
    }
}

impl Shared {
    fn new(associations: Associations) -> Self {
        Self {
            trouble: Trouble::default(),
            places: Places::default(),
            kinds: Wanted::default(),
            link: Link::default(),
            breadth: Breadth::new(associations),
            in_hand: Default::default(),
            spared: BTreeSet::new(),
        }
    }

    /// After a failure one worker finds out whether the partner is back.
    fn is_on_trial(&self) -> bool {
        self.trouble.failures > 0
    }

    fn has_room(&self) -> bool {
        self.places.has_room() && !(self.is_on_trial() && self.places.open > 0)
    }

    fn count(&mut self, priority: Priority) -> Option<&mut usize> {
        Priority::ALL
            .iter()
            .zip(&mut self.in_hand)
            .find_map(|(of, count)| (*of == priority).then_some(count))
    }

    fn failed(&mut self, settings: &Delivery, priority: Priority, now: Timestamp) -> Timestamp {
        let trouble = &mut self.trouble;
        if let Some(until) = trouble.until.filter(|until| *until > now) {
            return until;
        }
        trouble.failures += 1;
        let until = schedule::next_try(settings, priority, trouble.failures, now);
        trouble.until = Some(until);
        trouble.emergency = priority == Priority::Emergency;
        // Whatever it served at once belongs to the time before.
        self.places.limit = None;
        until
    }

    fn broke(
        &mut self,
        settings: &Delivery,
        priority: Priority,
        attempt: u32,
        now: Timestamp,
    ) -> Option<Timestamp> {
        if attempt > 1 {
            return None;
        }
        self.trouble.breaks += 1;
        (self.trouble.breaks >= BREAKS).then(|| self.failed(settings, priority, now))
    }
}

impl Place {
    /// Whether no other association was open when this was taken: then it is the partner's answer that counts.
    pub fn is_first(&self) -> bool {
        self.first
    }

    /// Notes that the association is there. The others may now ask for theirs.
    pub fn opened(&mut self) {
        if !self.open {
            self.open = true;
            let places = &mut self.team.shared().places;
            places.asked -= 1;
            places.open += 1;
        }
        self.team.call.ring();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        {
            let places = &mut self.team.shared().places;
            let count = if self.open { &mut places.open } else { &mut places.asked };
            *count -= 1;
        }
        self.team.call.ring();
    }
}

impl Drop for InHand<'_> {
    fn drop(&mut self) {
        let was_last = self.team.shared().count(self.priority).is_some_and(|count| {
            *count -= 1;
            *count == 0
        });
        if was_last {
            self.team.call.ring();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn team() -> Arc<Team> {
        Team::new(crate::testing::partner("york"), Arc::default())
    }

    #[test]
    fn the_first_association_is_asked_for_alone_and_the_others_side_by_side() {
        let team = team();
        let mut first = team.place().unwrap();
        assert!(first.is_first() && team.place().is_none());

        first.opened();

        let others = [team.place().unwrap(), team.place().unwrap()];
        assert!(others.iter().all(|place| !place.is_first()));
    }

    #[test]
    fn a_partner_that_takes_no_further_association_is_asked_for_no_more_until_one_ends() {
        let team = team();
        let mut first = team.place().unwrap();
        first.opened();
        assert!(!team.is_limited());
        drop(team.place().unwrap());

        assert_eq!(team.is_full(), Some(1));

        assert!(team.is_limited() && team.place().is_none());
        drop(first);
        assert!(team.place().unwrap().is_first());
        assert_eq!(team.is_full(), None);
    }

    #[test]
    fn less_urgent_work_waits_while_something_more_urgent_is_in_hand() {
        let team = team();
        let one = team.take_in_hand(Priority::Emergency);
        let two = team.take_in_hand(Priority::Emergency);
        assert!(team.has_in_hand_before(Priority::Routine));
        assert!(!team.has_in_hand_before(Priority::Emergency));

        drop(one);
        assert!(team.has_in_hand_before(Priority::Urgent));
        drop(two);
        assert!(!team.has_in_hand_before(Priority::Routine));
    }

    #[test]
    fn breaks_at_new_instances_are_the_partners_fault_and_those_at_old_ones_are_not() {
        let mut shared = Shared::new(Associations::Auto);
        let settings = Delivery::default();
        let mut broke = |attempt, second| {
            let now = Timestamp::from_second(second).unwrap();
            shared.broke(&settings, Priority::Routine, attempt, now)
        };
        assert!((0..10).all(|_| broke(2, 0).is_none()));
        assert_eq!([broke(1, 0), broke(1, 0)], [None, None]);

        let until = broke(1, 0).unwrap();

        assert_eq!(broke(1, 0), Some(until), "workers that find out together count once");
        let later = broke(1, 1000).unwrap();
        // Anywhere up to the longest wait, which has doubled.
        let longest = schedule::longest(&settings, Priority::Routine, 2).as_secs();
        assert!((1001..=1000 + longest).contains(&later.as_second().unsigned_abs()), "{later}");
    }
}
