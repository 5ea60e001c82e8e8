//! The steps of counting a study against its source, and of fetching what is missing.
//!
//! A study is due when the association that brought it ends, and again when nothing of it has come for the quiet time. Taking
//! it sets the time at which it is due again, so that an answer that does not come, and a crash, cost one wait and nothing
//! else. What a source said last stands until it says otherwise.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::{SignedDuration, Timestamp};

use crate::dicom::{SeriesInstanceUid, SopInstanceUid, StudyInstanceUid};
use crate::facts::{Facts, Priority, Way};

use super::completeness::{self, CompletenessState, CountedSeries};
use super::db::{self, Db, Row};
use super::timeline::{self, EventKind};
use super::{lock, parsed, priority, unsigned};

/// What came longer ago than this is not asked about by itself: an index that is built anew does not ask about all there is.
const KEPT: SignedDuration = SignedDuration::from_hours(24 * 7);

/// What came of counting a study.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// Its source listed what it has.
    Counted {
        /// Which series that is.
        series: Vec<CountedSeries>,
        /// How many images are here that it does not list.
        surplus: u64,
    },
    /// There is no source that can be asked.
    NoSource,
    /// The source did not say what it has, for this reason.
    Unanswered(String),
}

/// A study that is to be counted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CountDue {
    /// Its Study Instance UID.
    pub study: StudyInstanceUid,
    /// The most urgent of its transfers.
    pub priority: Priority,
    /// The sources that it came from, by configured name.
    pub senders: Vec<String>,
    /// How often in a row its source did not answer.
    pub tries: u32,
}

/// A study that was taken to be counted, until the lease ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CountTaken {
    /// When it is due again if nothing comes of it.
    pub lease: Timestamp,
    /// Whether nothing of it has come for the quiet time: what is missing now is missing.
    pub settled: bool,
    /// How many images were missing the last time.
    pub missing: Option<u64>,
    /// How many images its source listed the last time.
    pub expected: Option<u64>,
    /// How often in a row fetching them was of no use.
    pub fetches: u32,
}

/// When what is missing is fetched.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NextFetch {
    /// As was decided before.
    AsItIs,
    /// Then; said with how often in a row it was of no use.
    At(Timestamp, u32),
    /// Not by itself.
    Never,
}

/// What is here of a study, by series: one name for each image.
pub type HeldImages = BTreeMap<SeriesInstanceUid, BTreeSet<SopInstanceUid>>;

/// Takes note of what came: arrivals that are not in quarantine, each with its study's row.
pub(super) async fn arrived(
    db: &mut Db,
    arrivals: impl Iterator<Item = (i64, &Facts)>,
) -> sqlx::Result<()> {
    let mut latest: BTreeMap<i64, i64> = BTreeMap::new();
    let mut ways: BTreeSet<(i64, Way)> = BTreeSet::new();
    for (study, facts) in arrivals {
        let (origin, at) = (&facts.origin, facts.received_at.as_millisecond());
        latest.entry(study).and_modify(|latest| *latest = at.max(*latest)).or_insert(at);
        // What a person addressed, and what was fetched, says nothing of where the others go.
        if !origin.from_partner && origin.addressed_to.is_none() && origin.fetched_like.is_empty() {
            let way = Way {
                listener: origin.listener.clone(),
                sender: origin.sender.clone(),
                calling_ae_title: origin.calling_ae_title.clone(),
                called_ae_title: origin.called_ae_title.clone(),
            };
            ways.insert((study, way));
        }
    }
    db.for_rows(
        "INSERT INTO completeness (study, changed_at) SELECT * FROM ",
        ["study", "changed_at"],
        latest.into_iter().map(|(study, at)| [study.into(), at.into()]).collect(),
        " WHERE true ON CONFLICT (study) DO UPDATE SET changed_at = CASE \
         WHEN completeness.changed_at > excluded.changed_at THEN completeness.changed_at ELSE excluded.changed_at END",
    )
    .await?;
    let way = |(study, way): (i64, Way)| {
        [
            study.into(),
            way.sender.into(),
            way.listener.into(),
            way.calling_ae_title.as_str().into(),
            way.called_ae_title.as_str().into(),
        ]
    };
    db.for_rows(
        "INSERT INTO study_way (study, sender, listener, calling, called) SELECT * FROM ",
        ["study", "sender", "listener", "calling", "called"],
        ways.into_iter().map(way).collect(),
        " WHERE true ON CONFLICT DO NOTHING",
    )
    .await?;
    Ok(())
}

/// Has these asked about now: the associations that brought them have ended.
pub(super) async fn ended(
    db: &mut Db,
    studies: &[StudyInstanceUid],
    now: Timestamp,
) -> sqlx::Result<()> {
    for studies in studies.chunks(db::MOST) {
        let mut query = db.query("UPDATE completeness SET tries = 0, due = ");
        query.push_bind(now.as_millisecond());
        query.push(" WHERE study IN (SELECT id FROM study WHERE uid ");
        query.push_in(studies.iter().map(StudyInstanceUid::as_str)).push(")");
        query.execute(&mut *db).await?;
    }
    Ok(())
}

/// The studies that are to be counted now, most urgent first.
pub(super) async fn due(
    db: &mut Db,
    now: Timestamp,
    quiet: SignedDuration,
    limit: u32,
) -> sqlx::Result<Vec<CountDue>> {
    const DUE: &str = "SELECT c.study, c.tries, s.uid, COALESCE(\
                       (SELECT MIN(t.priority) FROM transfer t WHERE t.study = c.study), 2) AS priority \
                       FROM completeness c JOIN study s ON s.id = c.study WHERE c.study IN (\
                       SELECT study FROM completeness WHERE due IS NOT NULL AND due <= $1 \
                       UNION SELECT study FROM completeness WHERE changed_at IS NOT NULL AND changed_at <= $2 \
                       AND changed_at > $3) ORDER BY priority, COALESCE(c.due, c.changed_at) LIMIT $4";
    let rows = db
        .query(DUE)
        .bind(now.as_millisecond())
        .bind(before(now, quiet))
        .bind(before(now, KEPT))
        .bind(i64::from(limit))
        .fetch_all(&mut *db)
        .await?;
    named(db, &rows).await
}

/// The studies of which something is to be fetched now, most urgent first.
pub(super) async fn fetches_due(
    db: &mut Db,
    now: Timestamp,
    limit: u32,
) -> sqlx::Result<Vec<CountDue>> {
    let rows = db
        .query(
            "SELECT c.study, c.tries, s.uid, COALESCE(\
             (SELECT MIN(t.priority) FROM transfer t WHERE t.study = c.study), 2) AS priority \
             FROM completeness c JOIN study s ON s.id = c.study WHERE c.fetch_due IS NOT NULL AND c.fetch_due <= $1 \
             ORDER BY priority, c.fetch_due LIMIT $2",
        )
        .bind(now.as_millisecond())
        .bind(i64::from(limit))
        .fetch_all(&mut *db)
        .await?;
    named(db, &rows).await
}

/// With the sources that each came from.
async fn named(db: &mut Db, rows: &[Row]) -> sqlx::Result<Vec<CountDue>> {
    let ids = rows.iter().map(|row| row.try_get("study")).collect::<sqlx::Result<Vec<i64>>>()?;
    let mut senders: HashMap<i64, Vec<String>> = HashMap::new();
    for ids in ids.chunks(db::MOST) {
        let mut query = db.query("SELECT DISTINCT study, sender FROM study_way WHERE study ");
        query.push_in(ids.iter().copied()).push(" ORDER BY sender");
        for row in query.fetch_all(&mut *db).await? {
            senders.entry(row.try_get("study")?).or_default().push(row.try_get("sender")?);
        }
    }
    let read = |row: &Row| {
        Ok(CountDue {
            study: parsed(row, "uid")?,
            priority: priority(row, "priority")?,
            senders: senders.remove(&row.try_get("study")?).unwrap_or_default(),
            tries: unsigned(row, "tries")?,
        })
    };
    rows.iter().map(read).collect()
}

/// The sources that a study came from; `None` if there is no such study.
pub(super) async fn one(db: &mut Db, study: &StudyInstanceUid) -> sqlx::Result<Option<CountDue>> {
    let rows = db
        .query(
            "SELECT s.id AS study, COALESCE(c.tries, 0) AS tries, s.uid, COALESCE(\
             (SELECT MIN(t.priority) FROM transfer t WHERE t.study = s.id), 2) AS priority \
             FROM study s LEFT JOIN completeness c ON c.study = s.id WHERE s.uid = $1",
        )
        .bind(study.as_str())
        .fetch_all(&mut *db)
        .await?;
    Ok(named(db, &rows).await?.pop())
}

/// Takes a study that is due, or any where `asked_for`. `None` where another node was first.
pub(super) async fn take(
    db: &mut Db,
    study: &StudyInstanceUid,
    now: Timestamp,
    quiet: SignedDuration,
    lease: Timestamp,
    asked_for: bool,
) -> sqlx::Result<Option<CountTaken>> {
    if asked_for {
        // One that came before anything was counted has no row yet.
        db.query("INSERT INTO completeness (study) SELECT id FROM study WHERE uid = $1 ON CONFLICT (study) DO NOTHING")
            .bind(study.as_str())
            .execute(&mut *db)
            .await?;
    }
    let row = db
        .query_either(
            "SELECT c.* FROM completeness c JOIN study s ON s.id = c.study WHERE s.uid = $1",
            "SELECT c.* FROM completeness c JOIN study s ON s.id = c.study WHERE s.uid = $1 FOR UPDATE OF c",
        )
        .bind(study.as_str())
        .fetch_optional(&mut *db)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let (due, changed): (Option<i64>, Option<i64>) =
        (row.try_get("due")?, row.try_get("changed_at")?);
    let quiet_since = before(now, quiet);
    let is_quiet = changed.is_none_or(|changed| changed <= quiet_since);
    let is_due = due.is_some_and(|due| due <= now.as_millisecond());
    if !(asked_for || is_due || changed.is_some() && is_quiet) {
        return Ok(None);
    }
    db.query("UPDATE completeness SET due = $2, changed_at = $3 WHERE study = $1")
        .bind(row.try_get::<i64>("study")?)
        .bind(lease.as_millisecond())
        .bind(changed.filter(|_| !is_quiet))
        .execute(db)
        .await?;
    let optional = |column| -> sqlx::Result<Option<u64>> {
        Ok(row.try_get::<Option<i64>>(column)?.and_then(|number| number.try_into().ok()))
    };
    Ok(Some(CountTaken {
        lease,
        settled: is_quiet,
        missing: optional("missing")?,
        expected: optional("expected")?,
        fetches: unsigned(&row, "fetches")?,
    }))
}

/// What is here of a study. What was removed by rule or by a person was here; what is lost is not.
pub(super) async fn held(db: &mut Db, study: &StudyInstanceUid) -> sqlx::Result<HeldImages> {
    let rows = db
        .query(
            "SELECT se.uid, i.sop_instance FROM study s JOIN series se ON se.study = s.id \
             JOIN instance i ON i.series = se.id WHERE s.uid = $1 AND i.version = 1 AND i.quarantined = 0 \
             AND i.lost_at IS NULL",
        )
        .bind(study.as_str())
        .fetch_all(db)
        .await?;
    let mut held = HeldImages::new();
    for row in &rows {
        held.entry(parsed(row, "uid")?).or_default().insert(parsed(row, "sop_instance")?);
    }
    Ok(held)
}

/// What came of a count, and what is done next.
#[derive(Clone, Copy, Debug)]
pub struct Counted<'a> {
    /// Of which study.
    pub study: &'a StudyInstanceUid,
    /// Who was asked.
    pub source: Option<&'a str>,
    /// As it was taken.
    pub taken: CountTaken,
    /// What came of it.
    pub outcome: &'a Outcome,
    /// When it is asked next, unless its association has ended meanwhile, which is sooner.
    pub due: Option<Timestamp>,
    /// When what is missing is fetched.
    pub fetch: NextFetch,
    /// When.
    pub now: Timestamp,
}

/// Writes what came of a count.
pub(super) async fn settle(db: &mut Db, settle: &Counted<'_>) -> sqlx::Result<()> {
    lock::studies(&mut *db, std::iter::once(settle.study)).await?;
    let row = db
        .query("SELECT c.* FROM completeness c JOIN study s ON s.id = c.study WHERE s.uid = $1")
        .bind(settle.study.as_str())
        .fetch_one(&mut *db)
        .await?;
    let study: i64 = row.try_get("study")?;
    let before: CompletenessState = parsed(&row, "state")?;
    let (now, due) = (settle.now.as_millisecond(), settle.due.map(Timestamp::as_millisecond));
    let mut query = db.query("UPDATE completeness SET due = CASE WHEN due = ");
    query.push_bind(settle.taken.lease.as_millisecond()).push(" THEN ").push_bind(due);
    query.push(" ELSE due END, source = ").push_bind(settle.source);
    let (state, says) = match settle.outcome {
        Outcome::Counted { series, surplus } => {
            let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
            let lists = number(series.iter().map(|series| series.expected).sum());
            let lacks = number(series.iter().map(|series| series.missing).sum());
            let state = match lacks {
                0 => CompletenessState::Complete,
                _ => CompletenessState::Incomplete,
            };
            query.push(", asked_at = ").push_bind(now);
            query.push(", expected = ").push_bind(lists).push(", missing = ").push_bind(lacks);
            query.push(", surplus = ").push_bind(number(*surplus)).push(", why = NULL, tries = 0");
            if lacks == 0 {
                query.push(", fetch_why = NULL");
            }
            write_series(&mut *db, study, series).await?;
            (state, format!("{state} {lists} {lacks}"))
        }
        Outcome::NoSource => {
            query.push(", why = NULL, tries = 0");
            (CompletenessState::NoSource, String::new())
        }
        Outcome::Unanswered(why) => {
            query.push(", tries = tries + 1, why = ").push_bind(why.as_str());
            match before {
                // What was found missing is missing until the source says otherwise.
                CompletenessState::Incomplete => (before, String::new()),
                _ => (CompletenessState::Unanswered, CompletenessState::Unanswered.to_string()),
            }
        }
    };
    match settle.fetch {
        NextFetch::AsItIs => {}
        NextFetch::At(at, fetches) => {
            query.push(", fetch_due = ").push_bind(at.as_millisecond());
            query.push(", fetches = ").push_bind(i64::from(fetches));
        }
        NextFetch::Never => {
            query.push(", fetch_due = NULL");
            if state == CompletenessState::Complete {
                query.push(", fetches = 0");
            }
        }
    }
    // While more may come, a count is no news for the timeline; nor is what it says already.
    let said = row.try_get::<Option<String>>("said")?.unwrap_or_default();
    let news = settle.taken.settled && !says.is_empty() && says != said;
    if news {
        query.push(", said = ").push_bind(&says);
    }
    query.push(", state = ").push_bind(state.as_str());
    query.push(" WHERE study = ").push_bind(study);
    query.execute(&mut *db).await?;
    if news {
        say(db, study, state, settle.now).await?;
    }
    Ok(())
}

async fn write_series(db: &mut Db, study: i64, series: &[CountedSeries]) -> sqlx::Result<()> {
    db.query("DELETE FROM counted_series WHERE study = $1").bind(study).execute(&mut *db).await?;
    let row = |series: &CountedSeries| {
        [
            study.into(),
            series.series_instance_uid.as_str().into(),
            series.number.into(),
            series.modality.as_deref().into(),
            series.description.reveal().as_deref().into(),
            i64::try_from(series.expected).unwrap_or(i64::MAX).into(),
            i64::try_from(series.missing).unwrap_or(i64::MAX).into(),
        ]
    };
    db.for_rows(
        "INSERT INTO counted_series (study, uid, number, modality, description, expected, missing) SELECT * FROM ",
        ["study", "uid", "number", "modality", "description", "expected", "missing"],
        series.iter().map(row).collect(),
        "",
    )
    .await?;
    Ok(())
}

/// Adds a line to the timeline of each of a study's transfers that go on.
async fn say(
    db: &mut Db,
    study: i64,
    state: CompletenessState,
    now: Timestamp,
) -> sqlx::Result<()> {
    let kind = match state {
        CompletenessState::Complete => EventKind::Complete,
        CompletenessState::Incomplete => EventKind::Incomplete,
        CompletenessState::Unanswered => EventKind::NotCounted,
        CompletenessState::NotAsked | CompletenessState::NoSource => return Ok(()),
    };
    let Some(summary) = completeness::of_studies(&mut *db, &[study]).await?.remove(&study) else {
        return Ok(());
    };
    add_event(db, study, now, kind, &summary.summary).await
}

async fn add_event(
    db: &mut Db,
    study: i64,
    now: Timestamp,
    kind: EventKind,
    detail: &str,
) -> sqlx::Result<()> {
    let transfers: Vec<i64> = db
        .query("SELECT id FROM transfer WHERE study = $1 AND cancelled_at IS NULL ORDER BY id")
        .bind(study)
        .scalars(&mut *db)
        .await?;
    for transfer in transfers {
        timeline::add(&mut *db, transfer, now, kind, None, Some(detail)).await?;
    }
    Ok(())
}

/// Takes a study of which something is to be fetched. `None` where another node was first.
pub(super) async fn take_fetch(
    db: &mut Db,
    study: &StudyInstanceUid,
    now: Timestamp,
    lease: Timestamp,
) -> sqlx::Result<bool> {
    let taken = db
        .query(
            "UPDATE completeness SET fetch_due = $2, fetches = fetches + 1, fetched_at = $3 \
             WHERE fetch_due <= $3 AND study = (SELECT id FROM study WHERE uid = $1)",
        )
        .bind(study.as_str())
        .bind(lease.as_millisecond())
        .bind(now.as_millisecond())
        .execute(db)
        .await?;
    Ok(taken > 0)
}

/// Writes what came of fetching, and has the study counted again. `detail` is for the timeline.
pub(super) async fn settle_fetch(
    db: &mut Db,
    study: &StudyInstanceUid,
    why: Option<&str>,
    detail: &str,
    now: Timestamp,
) -> sqlx::Result<()> {
    lock::studies(&mut *db, std::iter::once(study)).await?;
    let id: Option<i64> = db
        .query(
            "UPDATE completeness SET fetch_due = NULL, fetch_why = $2, due = $3 \
             WHERE study = (SELECT id FROM study WHERE uid = $1) RETURNING study",
        )
        .bind(study.as_str())
        .bind(why)
        .bind(now.as_millisecond())
        .optional_scalar(&mut *db)
        .await?;
    let Some(id) = id else { return Ok(()) };
    add_event(db, id, now, EventKind::Fetched, detail).await
}

/// The ways in which a study came.
pub(super) async fn ways(db: &mut Db, study: &StudyInstanceUid) -> sqlx::Result<Vec<Way>> {
    let rows = db
        .query(
            "SELECT w.* FROM study_way w JOIN study s ON s.id = w.study WHERE s.uid = $1 \
             ORDER BY w.sender, w.called, w.calling, w.listener LIMIT $2",
        )
        .bind(study.as_str())
        .bind(i64::from(Way::MOST))
        .fetch_all(db)
        .await?;
    rows.iter()
        .map(|row| {
            Ok(Way {
                listener: row.try_get("listener")?,
                sender: row.try_get("sender")?,
                calling_ae_title: parsed(row, "calling")?,
                called_ae_title: parsed(row, "called")?,
            })
        })
        .collect()
}

/// The studies of which something was fetched since then, or is being.
pub(super) async fn fetched_since(
    db: &mut Db,
    since: Timestamp,
) -> sqlx::Result<Vec<StudyInstanceUid>> {
    let rows = db
        .query(
            "SELECT s.uid FROM completeness c JOIN study s ON s.id = c.study \
             WHERE c.fetched_at IS NOT NULL AND c.fetched_at >= $1 ORDER BY c.fetched_at DESC LIMIT 10000",
        )
        .bind(since.as_millisecond())
        .fetch_all(db)
        .await?;
    rows.iter().map(|row| parsed(row, "uid")).collect()
}

fn before(now: Timestamp, by: SignedDuration) -> i64 {
    now.checked_sub(by).unwrap_or(Timestamp::MIN).as_millisecond()
}

#[cfg(test)]
#[path = "counting/tests.rs"]
mod tests;
