//! Whether what came of a study is all that its source has, as it is kept and read. `counting` has the steps.
//!
//! `Complete` is what a source's own list said, and nothing else is: a study without a source that can be asked is
//! `NoSource`, however long nothing came.

use std::collections::HashMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::dicom::{Phi, SeriesInstanceUid};

use super::db::{self, Db, Row};
use super::words::words;
use super::{parsed, timestamp, unsigned};

/// The most series that short answers name.
const NAMED: i64 = 3;
/// The most series that long answers list.
const LISTED: i64 = 1000;

/// What is known of a study's completeness.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CompletenessState {
    /// Its source was not asked yet.
    #[default]
    NotAsked,
    /// It came from nobody who can be asked.
    NoSource,
    /// Its source did not say what it has.
    Unanswered,
    /// All that its source lists is here.
    Complete,
    /// Its source lists more than is here.
    Incomplete,
}

words!(CompletenessState {
    NotAsked = "not-asked",
    NoSource = "no-source",
    Unanswered = "unanswered",
    Complete = "complete",
    Incomplete = "incomplete",
});

/// Whether all of a study is here, by what its source said last.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Completeness {
    /// What is known.
    pub state: CompletenessState,
    /// The source that was asked, by configured name.
    pub source: Option<String>,
    /// When it last said what it has.
    pub asked_at: Option<Timestamp>,
    /// How many images it lists.
    pub expected: Option<u64>,
    /// How many of these are not here.
    pub missing: Option<u64>,
    /// How many are here that it does not list, which is no fault of the study.
    pub surplus: Option<u64>,
    /// Why it did not answer the last time.
    pub why: Option<String>,
    /// When it is asked next, if that is fixed.
    pub next: Option<Timestamp>,
    /// Whether what is missing is about to be fetched.
    pub fetching: bool,
    /// Why what is missing could not be fetched, and what to do.
    pub fetch_why: Option<String>,
    /// In how many series something is missing.
    pub short_series: u64,
    /// The first of these.
    pub short: Vec<CountedSeries>,
    /// All of this in one sentence, with the descriptions of series.
    pub sentence: Phi<String>,
    /// The same without them.
    pub summary: String,
}

/// A series, as its source lists it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct CountedSeries {
    /// Series Instance UID.
    pub series_instance_uid: SeriesInstanceUid,
    /// Series Number.
    pub number: Option<i64>,
    /// Modality.
    pub modality: Option<String>,
    /// Series Description.
    pub description: Phi<Option<String>>,
    /// How many images the source has of it.
    pub expected: u64,
    /// How many of these are not here.
    pub missing: u64,
}

/// How many studies, and transfers of them that go on or are done, are short of what their source has.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct IncompleteTotals {
    /// Studies.
    pub studies: u64,
    /// Transfers that nobody cancelled.
    pub transfers: u64,
}

impl Completeness {
    /// Whether its source lists more than is here.
    pub fn is_incomplete(&self) -> bool {
        self.state == CompletenessState::Incomplete
    }

    /// "411 of 412: series 3 'Thin 0.625' misses 1".
    fn words(&self, with_descriptions: bool) -> String {
        let source = self.source.as_deref().unwrap_or("the source");
        let (expected, missing) = (self.expected.unwrap_or(0), self.missing.unwrap_or(0));
        match self.state {
            CompletenessState::NotAsked => "not counted against its source yet".to_owned(),
            CompletenessState::NoSource => "no source to count against".to_owned(),
            CompletenessState::Unanswered => match &self.why {
                Some(why) => format!("{source} did not say what it has: {why}"),
                None => format!("{source} did not say what it has"),
            },
            CompletenessState::Complete => format!("{expected} of {expected}, counted at {source}"),
            CompletenessState::Incomplete => {
                let series = |series: &CountedSeries| {
                    let number = match series.number {
                        Some(number) => format!("series {number}"),
                        None => "a series without a number".to_owned(),
                    };
                    match series.description.reveal() {
                        Some(text) if with_descriptions => {
                            format!("{number} '{text}' misses {}", series.missing)
                        }
                        _ => format!("{number} misses {}", series.missing),
                    }
                };
                let named: Vec<_> = self.short.iter().map(series).collect();
                let more = self.short_series.saturating_sub(self.short.len() as u64);
                let rest =
                    if more == 0 { String::new() } else { format!(", and {more} more series") };
                let held = expected.saturating_sub(missing);
                format!("{held} of {expected}: {}{rest}", named.join(", "))
            }
        }
    }
}

/// Counts what is incomplete.
pub(super) async fn totals(db: &mut Db) -> sqlx::Result<IncompleteTotals> {
    let row = db
        .query(
            "SELECT (SELECT COUNT(*) FROM completeness WHERE state = 'incomplete') AS studies, \
             (SELECT COUNT(*) FROM completeness c JOIN transfer t ON t.study = c.study \
              WHERE c.state = 'incomplete' AND t.cancelled_at IS NULL) AS transfers",
        )
        .fetch_one(db)
        .await?;
    Ok(IncompleteTotals {
        studies: unsigned(&row, "studies")?,
        transfers: unsigned(&row, "transfers")?,
    })
}

/// What is known of these, by row id; one that has no row was not asked about.
pub(super) async fn of_studies(
    db: &mut Db,
    ids: &[i64],
) -> sqlx::Result<HashMap<i64, Completeness>> {
    let mut all: HashMap<i64, Completeness> = HashMap::with_capacity(ids.len());
    for ids in ids.chunks(db::MOST) {
        let mut query = db.query("SELECT * FROM completeness WHERE study ");
        query.push_in(ids.iter().copied());
        for row in query.fetch_all(&mut *db).await? {
            all.insert(row.try_get("study")?, read(&row)?);
        }
        let mut query = db.query(
            "SELECT * FROM (SELECT c.*, COUNT(*) OVER (PARTITION BY c.study) AS short_series, ROW_NUMBER() OVER \
             (PARTITION BY c.study ORDER BY c.number NULLS FIRST, c.uid) AS place FROM counted_series c \
             WHERE c.missing > 0 AND c.study ",
        );
        query.push_in(ids.iter().copied());
        query.push(") AS short WHERE place <= ").push_bind(NAMED).push(" ORDER BY study, place");
        for row in query.fetch_all(&mut *db).await? {
            let Some(of) = all.get_mut(&row.try_get::<i64>("study")?) else { continue };
            of.short_series = unsigned(&row, "short_series")?;
            of.short.push(read_series(&row)?);
        }
    }
    for completeness in all.values_mut() {
        completeness.sentence = Phi::new(completeness.words(true));
        completeness.summary = completeness.words(false);
    }
    Ok(all)
}

/// What is shown of a study that has no row.
pub(super) fn unknown() -> Completeness {
    let mut unknown = Completeness::default();
    unknown.summary = unknown.words(false);
    unknown.sentence = Phi::new(unknown.summary.clone());
    unknown
}

/// Every series that a study's source listed, by number; no more than fit a page.
pub(super) async fn series(db: &mut Db, study: i64) -> sqlx::Result<Vec<CountedSeries>> {
    let rows = db
        .query(
            "SELECT * FROM counted_series WHERE study = $1 \
             ORDER BY CASE WHEN missing > 0 THEN 0 ELSE 1 END, number NULLS FIRST, uid LIMIT $2",
        )
        .bind(study)
        .bind(LISTED)
        .fetch_all(db)
        .await?;
    rows.iter().map(read_series).collect()
}

fn read(row: &Row) -> sqlx::Result<Completeness> {
    let count = |column| -> sqlx::Result<Option<u64>> {
        Ok(row.try_get::<Option<i64>>(column)?.and_then(|count| count.try_into().ok()))
    };
    let moment = |column| row.try_get::<Option<i64>>(column)?.map(timestamp).transpose();
    Ok(Completeness {
        state: parsed(row, "state")?,
        source: row.try_get("source")?,
        asked_at: moment("asked_at")?,
        expected: count("expected")?,
        missing: count("missing")?,
        surplus: count("surplus")?,
        why: row.try_get("why")?,
        next: moment("due")?,
        fetching: row.try_get::<Option<i64>>("fetch_due")?.is_some(),
        fetch_why: row.try_get("fetch_why")?,
        ..Completeness::default()
    })
}

fn read_series(row: &Row) -> sqlx::Result<CountedSeries> {
    Ok(CountedSeries {
        series_instance_uid: parsed(row, "uid")?,
        number: row.try_get("number")?,
        modality: row.try_get("modality")?,
        description: Phi::new(row.try_get("description")?),
        expected: unsigned(row, "expected")?,
        missing: unsigned(row, "missing")?,
    })
}
