//! Retention: what may go after how long, and its going.
//!
//! A study's images go when rules of the configuration say so for every one of its transfers, and nothing stands against
//! it; without a rule nothing goes by itself. Where several rules match a transfer, the longest time counts, and a rule that
//! asks for a confirmation keeps what has none. Time counts from what the rule waits for, or from the latest image that
//! came, whichever is later; of a cancelled transfer from its cancelling. What is owed, held, being received or not stored is
//! refused by the index, whatever is judged here.
//!
//! First the decision is written, then spool file and object are deleted, then it is noted that they are: after a crash
//! [`Keeper::finish`] goes on. Each step may be repeated, and by several nodes at once. A page at a time, one object after
//! the other, so that it never competes with intake.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

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

/// How many studies are judged, and how many objects are deleted, at a time.
const PAGE: u32 = 64;
/// How often rules are looked at; more often where a rule's time is shorter.
const LOOK: Duration = Duration::from_hours(1);
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

/// What rules say of a study: why it stays, or which rule lets it go, and from when on.
pub fn judge<'r>(
    rules: &'r [Retention],
    study: &StudyAtRest,
) -> Result<(&'r Retention, Timestamp), Kept> {
    if let Some(needed) = study.needed() {
        return Err(needed.into());
    }
    if study.transfers.is_empty() {
        let rules = rules.iter().filter(|rule| rule.unrouted);
        return latest(rules.map(|rule| (rule, ends(study.last_received_at, rule))));
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
            (rule, ends(from, rule))
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

fn ends(from: Timestamp, rule: &Retention) -> Timestamp {
    // A time that does not fit never comes.
    from.checked_add(rule.keep).unwrap_or(Timestamp::MAX)
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
}

impl Keeper {
    /// Works until it is dropped: first what a crash cut off, then what rules say.
    pub async fn run(self) {
        let shortest = self.rules.iter().map(|rule| rule.keep).min().unwrap_or(LOOK);
        let pause = shortest.clamp(Duration::from_secs(1), LOOK);
        loop {
            let done = async {
                self.finish().await?;
                self.apply(false).await
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
            tokio::time::sleep(pause).await;
        }
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
                let now = Timestamp::now();
                let Ok((rule, at)) = judge(&self.rules, study) else { continue };
                if at > now || self.open.contains(&study.study_instance_uid) {
                    continue;
                }
                if !dry_run {
                    let removal =
                        self.index.remove_images(study, Remover::Rule(&rule.name), now).await?;
                    if !matches!(removal, Removal::Decided { .. }) {
                        continue;
                    }
                }
                ran.studies += 1;
                ran.images += study.images;
                ran.bytes += study.bytes;
                ran.by_rule.entry(rule.name.clone()).or_default().add(study);
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
                match judge(&self.rules, study) {
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
        judge(rules, study).map(|(_, end)| end.duration_since(at(0)).as_secs() / DAY)
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
}
