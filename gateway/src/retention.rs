//! Retention: what may go after how long, and its going.
//!
//! A study's images go when rules of the configuration say so for every one of its transfers, and nothing stands against
//! it; without a rule nothing goes by itself. Where several rules match a transfer, the longest time counts, and a rule that
//! asks for a confirmation keeps what has none. Time counts from what the rule waits for, or from the latest image that
//! came, whichever is later; of a cancelled transfer from its cancelling. What is owed, held, being received or not stored is
//! refused by the index, whatever is judged here.
//!
//! While the object store is above its high-water mark, what has been kept for `at-least` may go as well, until it is below:
//! first what the far end has confirmed, longest ago first, then what was only sent.
//!
//! First the decision is written, then spool file and object are deleted, then it is noted that they are: after a crash
//! [`Keeper::finish`] goes on. Each step may be repeated, and by several nodes at once. A page at a time, one object after
//! the other, so that it never competes with intake.

mod fullness;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gantry_store::facts::ObjectId;
use gantry_store::index::{
    Index, IndexError, Needed, Removal, Remover, StudyAtRest, TransferAtRest,
};
use gantry_store::object::ObjectStore;
use gantry_store::spool::Spool;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::config::{After, Retention};
use crate::intake::OpenStudies;
use crate::telemetry::chain;

pub use fullness::{Fullness, Mark};

/// How many studies are judged, and how many objects are deleted, at a time.
const PAGE: u32 = 64;
/// How often rules are looked at; more often where a rule's time is shorter.
const LOOK: Duration = Duration::from_hours(1);
/// How often the high-water mark is looked at.
const LOOK_AT_MARK: Duration = Duration::from_mins(5);
/// How many studies are chosen at a time to go before their time.
const CHOSEN: usize = 256;
/// Between two pages.
const PAUSE: Duration = Duration::from_millis(50);
/// What is due within this time is shown.
const SOON: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Why a study's images stay.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kept {
    /// A person holds it.
    Held,
    /// Something of it is owed to a partner.
    Owed,
    /// More may be coming.
    Receiving,
    /// The object store has not confirmed all of it.
    NotStored,
    /// No rule applies to it, or to one of its transfers.
    NoRule,
    /// A rule waits for a confirmation by the far end.
    NotConfirmed,
}

impl From<Needed> for Kept {
    fn from(needed: Needed) -> Self {
        match needed {
            Needed::Held => Self::Held,
            Needed::Owed => Self::Owed,
            Needed::Receiving => Self::Receiving,
            Needed::NotStored => Self::NotStored,
        }
    }
}

/// Which of a rule's times counts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Time {
    /// `keep`.
    Keep,
    /// `at-least`, where the rule has it.
    AtLeast,
}

/// What rules say of a study: why it stays, or which rule lets it go, and from when on.
pub fn judge<'r>(
    rules: &'r [Retention],
    study: &StudyAtRest,
    time: Time,
) -> Result<(&'r Retention, Timestamp), Kept> {
    if let Some(needed) = study.needed() {
        return Err(needed.into());
    }
    if study.transfers.is_empty() {
        let rules = rules.iter().filter(|rule| rule.unrouted);
        return latest(rules.map(|rule| (rule, ends(study.last_received_at, rule, time))));
    }
    let mut decides: Option<(&Retention, Timestamp)> = None;
    for transfer in &study.transfers {
        let matching: Vec<_> = rules.iter().filter(|rule| matches(rule, transfer)).collect();
        let cancelled = transfer.cancelled_at;
        let unproven = |rule: &&Retention| rule.after == After::Confirmed;
        if cancelled.is_none() && transfer.confirmed_at.is_none() && matching.iter().any(unproven) {
            return Err(Kept::NotConfirmed);
        }
        let (rule, at) = latest(matching.into_iter().map(|rule| {
            let awaited = match (cancelled, rule.after) {
                (Some(at), _) => Some(at),
                (None, After::Confirmed) => transfer.confirmed_at,
                (None, After::Sent) => None,
            };
            let moments = [awaited, transfer.last_sent_at, Some(study.last_received_at)];
            let from = moments.into_iter().flatten().max().unwrap_or(study.last_received_at);
            (rule, ends(from, rule, time))
        }))?;
        if decides.is_none_or(|(_, other)| other < at) {
            decides = Some((rule, at));
        }
    }
    decides.ok_or(Kept::NoRule)
}

fn matches(rule: &Retention, transfer: &TransferAtRest) -> bool {
    !rule.unrouted
        && (rule.purposes.is_empty() || rule.purposes.contains(&transfer.purpose))
        && (rule.partners.is_empty() || rule.partners.contains(&transfer.partner))
}

fn ends(from: Timestamp, rule: &Retention, time: Time) -> Timestamp {
    let kept = match time {
        Time::Keep => rule.keep,
        Time::AtLeast => rule.at_least.unwrap_or(rule.keep),
    };
    // A time that does not fit never comes.
    from.checked_add(kept).unwrap_or(Timestamp::MAX)
}

/// Whether the far end has proven all that was not given up; what nobody sent anywhere is no safer elsewhere.
fn is_confirmed(study: &StudyAtRest) -> bool {
    let mut sent =
        study.transfers.iter().filter(|transfer| transfer.cancelled_at.is_none()).peekable();
    sent.peek().is_some() && sent.all(|transfer| transfer.confirmed_at.is_some())
}

fn latest<'r>(
    rules: impl Iterator<Item = (&'r Retention, Timestamp)>,
) -> Result<(&'r Retention, Timestamp), Kept> {
    rules.max_by_key(|(_, at)| *at).ok_or(Kept::NoRule)
}

/// A number of studies, and the bytes of their images.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Sum {
    /// Studies.
    pub studies: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Sum {
    fn add(&mut self, study: &StudyAtRest) {
        self.studies += 1;
        self.bytes += study.bytes;
    }
}

/// A rule, and what it decides about.
#[derive(Clone, Debug, Serialize)]
pub struct RuleReport {
    /// Its name.
    pub name: String,
    /// How long it keeps.
    pub keep_seconds: u64,
    /// `confirmed`, `sent` or `unrouted`.
    pub after: &'static str,
    /// What goes at the next look.
    pub due: Sum,
    /// What goes within seven days.
    pub soon: Sum,
    /// What goes later.
    pub later: Sum,
}

/// What rules say of all that is here.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// In the order of the configuration.
    pub rules: Vec<RuleReport>,
    /// What stays, by reason.
    pub kept: BTreeMap<Kept, Sum>,
}

/// What went, or would go.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Ran {
    /// Whether nothing was done.
    pub dry_run: bool,
    /// Studies.
    pub studies: u64,
    /// Images of them.
    pub images: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// By rule.
    pub by_rule: BTreeMap<String, Sum>,
}

impl Ran {
    fn add(&mut self, other: Self) {
        self.studies += other.studies;
        self.images += other.images;
        self.bytes += other.bytes;
        for (rule, sum) in other.by_rule {
            let of_rule = self.by_rule.entry(rule).or_default();
            of_rule.studies += sum.studies;
            of_rule.bytes += sum.bytes;
        }
    }
}

/// Lets images go.
#[derive(Clone, Debug)]
pub struct Keeper {
    /// Rules.
    pub rules: Arc<[Retention]>,
    /// Where it is decided.
    pub index: Index,
    /// Where copies may still be.
    pub spool: Arc<Spool>,
    /// Where images are.
    pub objects: Arc<dyn ObjectStore>,
    /// What is being received by this node.
    pub open: OpenStudies,
    /// How full the object store may get, if there is a bound.
    pub mark: Option<Mark>,
}

impl Keeper {
    /// Works until it is dropped: first what a crash cut off, then what rules say.
    pub async fn run(self) {
        let times = self.rules.iter().map(|rule| rule.at_least.unwrap_or(rule.keep));
        let shortest = times.min().unwrap_or(LOOK).max(Duration::from_secs(1));
        let (mut next, mut was_above) = (Instant::now(), false);
        loop {
            let done = async {
                self.finish().await?;
                let mut ran = if next <= Instant::now() {
                    next = Instant::now() + shortest.min(LOOK);
                    self.apply(false).await?
                } else {
                    Ran::default()
                };
                ran.add(self.relieve(&mut was_above).await?);
                Ok::<_, IndexError>(ran)
            };
            match done.await {
                Ok(Ran { studies: 0, .. }) => {}
                Ok(Ran { studies, images, bytes, .. }) => {
                    tracing::info!(
                        studies,
                        images,
                        bytes,
                        "images were removed by retention rules"
                    );
                }
                Err(error) => {
                    tracing::error!(error = %chain(&error), "retention cannot be looked at; nothing is removed");
                }
            }
            tokio::time::sleep(shortest.min(LOOK_AT_MARK)).await;
        }
    }

    /// While the object store is above its mark, removes what has been kept for `at-least`, what is safest to go first.
    /// `was_above` is what it was the last time: it is said once.
    async fn relieve(&self, was_above: &mut bool) -> Result<Ran, IndexError> {
        let mut ran = Ran::default();
        loop {
            let Some(fullness) = self.fullness().await?.filter(Fullness::is_above) else {
                *was_above = false;
                return Ok(ran);
            };
            if !std::mem::replace(was_above, true) {
                let Fullness { used_bytes, mark_bytes, .. } = fullness;
                tracing::warn!(
                    used_bytes,
                    mark_bytes,
                    "the object store is above its high-water mark"
                );
            }
            let chosen = self.next_to_go().await?;
            let mut went = Ran::default();
            // No more than must; what the disk says of it afterwards decides whether that was enough.
            for (study, rule) in &chosen {
                if went.bytes >= fullness.bytes_above() && went.images >= fullness.files_above() {
                    break;
                }
                self.remove(study, rule, &mut went).await?;
            }
            self.finish().await?;
            let nothing = went.studies == 0;
            ran.add(went);
            if nothing {
                return Ok(ran);
            }
        }
    }

    /// How full the object store is.
    pub async fn fullness(&self) -> Result<Option<Fullness>, IndexError> {
        match &self.mark {
            Some(mark) => mark.measure().await,
            None => Ok(None),
        }
    }

    /// What may go before its time, the safest first.
    async fn next_to_go(&self) -> Result<Vec<(StudyAtRest, &Retention)>, IndexError> {
        let mut chosen = BTreeMap::new();
        if self.rules.iter().all(|rule| rule.at_least.is_none())
            || self.index.has_gone_back().await?
        {
            return Ok(Vec::new());
        }
        let mut after = 0;
        loop {
            let page = self.index.at_rest(after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = last.place;
            for study in page {
                if let Ok((rule, at)) = judge(&self.rules, &study, Time::AtLeast)
                    && at <= Timestamp::now()
                {
                    chosen.insert((!is_confirmed(&study), at, study.place), (study, rule));
                    if chosen.len() > CHOSEN {
                        chosen.pop_last();
                    }
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(chosen.into_values().collect())
    }

    /// Removes a study, unless something stands against it now.
    async fn remove(
        &self,
        study: &StudyAtRest,
        rule: &Retention,
        ran: &mut Ran,
    ) -> Result<(), IndexError> {
        if self.open.contains(&study.study_instance_uid) {
            return Ok(());
        }
        if !ran.dry_run {
            let by = Remover::Rule(&rule.name);
            let removal = self.index.remove_images(study, by, Timestamp::now()).await?;
            if !matches!(removal, Removal::Decided { .. }) {
                return Ok(());
            }
        }
        ran.studies += 1;
        ran.images += study.images;
        ran.bytes += study.bytes;
        ran.by_rule.entry(rule.name.clone()).or_default().add(study);
        Ok(())
    }

    /// Removes what is due; with `dry_run` tells what that is.
    pub async fn apply(&self, dry_run: bool) -> Result<Ran, IndexError> {
        let mut ran = Ran { dry_run, ..Ran::default() };
        // Without rules nothing is gone through. An index that is an older copy says that things are not owed which may be.
        if self.rules.is_empty() || self.index.has_gone_back().await? {
            return Ok(ran);
        }
        let mut after = 0;
        loop {
            let page = self.index.at_rest(after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(ran) };
            after = last.place;
            for study in &page {
                if let Ok((rule, at)) = judge(&self.rules, study, Time::Keep)
                    && at <= Timestamp::now()
                {
                    self.remove(study, rule, &mut ran).await?;
                }
            }
            if !dry_run {
                self.finish().await?;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Deletes what was decided to go. What cannot be deleted now stays on record for the next time.
    pub async fn finish(&self) -> Result<(), IndexError> {
        loop {
            let objects = self.index.unfinished_deletions(PAGE).await?;
            if objects.is_empty() {
                return Ok(());
            }
            let wanted = objects.len();
            let gone = self.delete(objects).await;
            self.index.note_deleted(&gone, Timestamp::now()).await?;
            if gone.len() < wanted {
                return Ok(());
            }
        }
    }

    async fn delete(&self, objects: Vec<ObjectId>) -> Vec<ObjectId> {
        let (spool, store) = (self.spool.clone(), self.objects.clone());
        let deleted = tokio::task::spawn_blocking(move || {
            let mut gone = Vec::with_capacity(objects.len());
            for object in objects {
                // The spool's copy first: it could become an object again.
                if let Err(error) = spool.remove(object) {
                    tracing::error!(%object, error = %chain(&error), "spool file of what was removed cannot be deleted yet");
                    continue;
                }
                match store.delete(object) {
                    Ok(()) => gone.push(object),
                    Err(error) => {
                        tracing::error!(%object, error = %chain(&error), "object of what was removed cannot be deleted yet");
                        if error.concerns_all() {
                            break;
                        }
                    }
                }
            }
            gone
        });
        deleted.await.unwrap_or_default()
    }

    /// What rules say of all that is here.
    pub async fn report(&self) -> Result<Report, IndexError> {
        let view = |rule: &Retention| RuleReport {
            name: rule.name.clone(),
            keep_seconds: rule.keep.as_secs(),
            after: match (rule.unrouted, rule.after) {
                (true, _) => "unrouted",
                (false, After::Confirmed) => "confirmed",
                (false, After::Sent) => "sent",
            },
            due: Sum::default(),
            soon: Sum::default(),
            later: Sum::default(),
        };
        let mut report =
            Report { rules: self.rules.iter().map(view).collect(), kept: BTreeMap::new() };
        let (mut after, now) = (0, Timestamp::now());
        loop {
            let page = self.index.at_rest(after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(report) };
            after = last.place;
            for study in &page {
                match judge(&self.rules, study, Time::Keep) {
                    Err(reason) => report.kept.entry(reason).or_default().add(study),
                    Ok((rule, at)) => {
                        let named = report.rules.iter_mut().find(|view| view.name == rule.name);
                        let Some(view) = named else { continue };
                        let left = at.duration_since(now);
                        if left <= SignedDuration::ZERO {
                            view.due.add(study);
                        } else if left <= SOON {
                            view.soon.add(study);
                        } else {
                            view.later.add(study);
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use gantry_store::facts::Purpose;
    use gantry_store::index::Decision;

    use super::*;

    const DAY: i64 = 86_400;

    fn at(day: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + day * DAY).unwrap()
    }

    fn rule(name: &str, days: u64, after: After) -> Retention {
        Retention {
            name: name.to_owned(),
            purposes: Vec::new(),
            partners: Vec::new(),
            unrouted: false,
            keep: Duration::from_hours(24 * days),
            at_least: None,
            after,
        }
    }

    /// Sent to York on day 2 and confirmed on day 3.
    fn transfer() -> TransferAtRest {
        TransferAtRest {
            partner: "york".to_owned(),
            purpose: Purpose::DirectCare,
            owed: 0,
            receiving: false,
            last_sent_at: Some(at(2)),
            confirmed_at: Some(at(3)),
            cancelled_at: None,
        }
    }

    fn study(transfers: &[TransferAtRest]) -> StudyAtRest {
        StudyAtRest {
            study_instance_uid: "1.2".parse().unwrap(),
            place: 1,
            images: 1,
            bytes: 1,
            unstored: 0,
            last_received_at: at(1),
            held: None,
            transfers: transfers.to_vec(),
        }
    }

    fn days(rules: &[Retention], study: &StudyAtRest) -> Result<i64, Kept> {
        judge(rules, study, Time::Keep).map(|(_, end)| end.duration_since(at(0)).as_secs() / DAY)
    }

    #[test]
    fn every_reason_to_be_kept_is_found() {
        let rules = [rule("sent", 10, After::Sent)];
        let held = Decision { at: at(4), by: "anna".into(), reason: None };
        let unconfirmed = TransferAtRest { confirmed_at: None, ..transfer() };
        let table = [
            (study(&[transfer()]), Ok(12)),
            (StudyAtRest { held: Some(held), ..study(&[transfer()]) }, Err(Kept::Held)),
            (StudyAtRest { unstored: 1, ..study(&[transfer()]) }, Err(Kept::NotStored)),
            (study(&[transfer(), TransferAtRest { owed: 1, ..transfer() }]), Err(Kept::Owed)),
            (study(&[TransferAtRest { receiving: true, ..transfer() }]), Err(Kept::Receiving)),
            (study(&[]), Err(Kept::NoRule)),
            (study(std::slice::from_ref(&unconfirmed)), Ok(12)),
        ];
        for (study, expected) in table {
            assert_eq!(days(&rules, &study), expected, "{study:?}");
            assert_eq!(days(&[], &study).ok(), None, "without rules nothing goes");
        }
        let confirmed = [rule("confirmed", 10, After::Confirmed)];
        assert_eq!(days(&confirmed, &study(&[transfer()])), Ok(13));
        assert_eq!(days(&confirmed, &study(&[unconfirmed])), Err(Kept::NotConfirmed));
    }

    #[test]
    fn the_longest_time_counts_and_every_transfer_needs_a_rule() {
        let york =
            |days, after| Retention { partners: vec!["york".into()], ..rule("york", days, after) };
        let mdt = Retention { purposes: vec![Purpose::Mdt], ..rule("mdt", 90, After::Sent) };
        let leeds = TransferAtRest { partner: "leeds".into(), purpose: Purpose::Mdt, ..transfer() };
        let cancelled =
            TransferAtRest { cancelled_at: Some(at(20)), confirmed_at: None, ..transfer() };
        let unrouted = Retention { unrouted: true, ..rule("unrouted", 5, After::Sent) };
        let back = StudyAtRest { last_received_at: at(50), ..study(&[transfer()]) };
        let table = [
            (vec![york(1, After::Sent), york(7, After::Sent)], study(&[transfer()]), Ok(9)),
            (vec![york(1, After::Sent)], study(&[transfer(), leeds.clone()]), Err(Kept::NoRule)),
            (vec![york(1, After::Sent), mdt], study(&[transfer(), leeds]), Ok(92)),
            // Proof is not asked of what nobody sends any more.
            (vec![york(1, After::Confirmed)], study(std::slice::from_ref(&cancelled)), Ok(21)),
            (vec![unrouted.clone()], study(&[cancelled]), Err(Kept::NoRule)),
            (vec![unrouted], study(&[]), Ok(6)),
            // What came again stays as long as if it were new.
            (vec![york(1, After::Sent)], back, Ok(51)),
        ];
        for (rules, study, expected) in table {
            assert_eq!(days(&rules, &study), expected, "{rules:?} {study:?}");
        }
    }

    #[test]
    fn with_the_store_too_full_a_rule_keeps_for_its_shorter_time_and_never_for_less() {
        let both =
            Retention { at_least: Some(Duration::from_hours(48)), ..rule("r", 90, After::Sent) };
        let one = rule("keeps its time", 30, After::Sent);
        let end = |rules: &[Retention], time| {
            let study = study(&[transfer()]);
            judge(rules, &study, time).map(|(_, end)| end.duration_since(at(0)).as_secs() / DAY)
        };
        assert_eq!(end(std::slice::from_ref(&both), Time::Keep), Ok(92));
        assert_eq!(end(std::slice::from_ref(&both), Time::AtLeast), Ok(4));
        assert_eq!(end(std::slice::from_ref(&one), Time::AtLeast), Ok(32));
        // The longest still counts, and what is owed stays.
        assert_eq!(end(&[both.clone(), one], Time::AtLeast), Ok(32));
        let owed = study(&[TransferAtRest { owed: 1, ..transfer() }]);
        assert_eq!(judge(&[both], &owed, Time::AtLeast), Err(Kept::Owed));
    }

    #[test]
    fn what_the_far_end_has_proven_is_safest_to_go() {
        let confirmed = TransferAtRest { confirmed_at: Some(at(3)), ..transfer() };
        let sent = TransferAtRest { confirmed_at: None, ..transfer() };
        let cancelled = TransferAtRest { cancelled_at: Some(at(3)), ..sent.clone() };
        assert!(is_confirmed(&study(std::slice::from_ref(&confirmed))));
        assert!(is_confirmed(&study(&[confirmed.clone(), cancelled.clone()])));
        for unproven in [vec![], vec![sent.clone()], vec![cancelled], vec![confirmed, sent]] {
            assert!(!is_confirmed(&study(&unproven)), "{unproven:?}");
        }
    }
}
