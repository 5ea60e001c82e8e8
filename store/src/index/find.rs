//! Answers to queries: what of the index matches, as far as whoever asks may see it.
//!
//! Guarantees that only what is here is found (not quarantined, not removed, the latest version), that nothing outside the
//! scope is read, and that a page takes bounded memory and time, however much matches: pages go on from where the last one
//! ended, along an index that fits the keys. Counts and lists that belong to a study or patient are made for a page at a
//! time, and only when they are asked for. Between two pages the index may change: what came or went since may be missing.

mod objects;
mod statement;
mod totals;

use std::fmt;
use std::time::Duration;

use dicom_core::Tag;
use jiff::Timestamp;

use super::db::{Db, Row};
use super::share::{self, Scope};
use super::{Index, IndexError, optional};
use crate::dicom::{Phi, SeriesInstanceUid, SopInstanceUid, StudyInstanceUid};
use crate::query::{Level, Query};

pub(super) use objects::objects;
pub use objects::{Object, Wanted};

use statement::{Column, Order, columns};
use totals::Totals;

/// The most matches of one page.
const LARGEST_PAGE: u32 = 1000;

/// Up to so many studies of a partner are gone through by the scope, and not by the keys.
const SMALL_SCOPE: i64 = 1000;

/// Which part of the matches is wanted.
#[derive(Clone, Debug)]
pub struct Page {
    /// Where the last page ended; none: from the beginning.
    pub after: Option<Cursor>,
    /// Matches to be passed over, for who counts instead (QIDO-RS `offset`). They cost as much as if they were read.
    pub skip: u32,
    /// At most so many matches, 1 to 1000.
    pub limit: u32,
    /// How long the database may work on it.
    pub within: Duration,
}

impl Default for Page {
    fn default() -> Self {
        Self { after: None, skip: 0, limit: 500, within: Duration::from_secs(5) }
    }
}

/// Where a page ended. It is good for the same query and scope.
#[derive(Clone)]
pub struct Cursor {
    text: Option<String>,
    day: Option<i64>,
    study: i64,
    series: i64,
    instance: i64,
}

impl fmt::Debug for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cursor").field("study", &self.study).finish_non_exhaustive()
    }
}

/// One page of matches.
#[derive(Clone, Debug, Default)]
pub struct Matches {
    /// They, in an order that stays the same from page to page.
    pub found: Vec<Found>,
    /// Where to go on; none: that was the end.
    pub next: Option<Cursor>,
}

/// One match: the values of the keys that were asked for, as they are known.
#[derive(Clone, Debug)]
pub struct Found {
    /// The study; none at the patient level.
    pub study: Option<StudyInstanceUid>,
    /// The series, from its level downwards.
    pub series: Option<SeriesInstanceUid>,
    /// The instance, at its level.
    pub instance: Option<SopInstanceUid>,
    /// Under which protection whoever asked may know of it; none: as it was received.
    pub protection: Option<String>,
    values: Vec<(Tag, Phi<String>)>,
}

impl Found {
    /// The value of a key; none where it was not asked for, or is not known.
    pub fn value(&self, tag: Tag) -> Option<&str> {
        self.values.iter().find(|(of, _)| *of == tag).map(|(_, value)| value.reveal().as_str())
    }

    /// The values that are known, numbers in digits and several values joined by backslashes.
    pub fn values(&self) -> impl Iterator<Item = (Tag, &str)> {
        self.values.iter().map(|(tag, value)| (*tag, value.reveal().as_str()))
    }
}

/// A search that goes on page by page, up to a ceiling.
#[derive(Debug)]
pub struct Search<'i> {
    index: &'i Index,
    query: &'i Query,
    scope: &'i Scope,
    now: Timestamp,
    page: Page,
    left: u64,
    more: bool,
}

impl Search<'_> {
    /// The next matches, none at the end.
    pub async fn next(&mut self) -> Result<Vec<Found>, IndexError> {
        if self.left == 0 || !self.more {
            return Ok(Vec::new());
        }
        let left = u32::try_from(self.left).unwrap_or(u32::MAX);
        let page = Page { limit: self.page.limit.min(left), ..self.page.clone() };
        let matches = self.index.find(self.query, self.scope, &page, self.now).await?;
        self.left = self.left.saturating_sub(matches.found.len() as u64);
        self.more = matches.next.is_some();
        self.page.after = matches.next;
        self.page.skip = 0;
        Ok(matches.found)
    }

    /// Whether the ceiling, and not the end of the matches, ended it.
    pub fn was_cut(&self) -> bool {
        self.left == 0 && self.more
    }
}

impl Index {
    /// The same as pages that follow each other, at most so many matches together.
    pub fn find_all<'i>(
        &'i self,
        query: &'i Query,
        scope: &'i Scope,
        page: Page,
        ceiling: u64,
        now: Timestamp,
    ) -> Search<'i> {
        Search { index: self, query, scope, now, page, left: ceiling, more: true }
    }
}

/// Finds one page.
pub(super) async fn find(
    db: &mut Db,
    query: &Query,
    scope: &Scope,
    page: &Page,
    now: Timestamp,
) -> sqlx::Result<Matches> {
    let limit = page.limit.clamp(1, LARGEST_PAGE);
    let mut order = Order::of(query);
    let mut by_scope = None;
    if let Scope::Partner { name, .. } = scope
        && !order.is_by_identifier()
        && share::is_small(&mut *db, name, SMALL_SCOPE).await?
    {
        order = Order::Study { by_identifier: true };
        by_scope = Some(name.as_str());
    }
    let ask = statement::Ask { query, scope, page, now, order, by_scope };
    let columns = columns(query);
    let rows = if query.level() == Level::Patient {
        let studies: Vec<i64> = ask.patients(&*db, limit + 1).scalars(&mut *db).await?;
        ask.of_studies(&*db, &columns, &studies).fetch_all(&mut *db).await?
    } else {
        ask.rows(&*db, &columns, limit + 1).fetch_all(&mut *db).await?
    };
    let has_more = rows.len() > limit as usize;
    let rows = rows.get(..limit as usize).unwrap_or(&rows);
    let next = match rows.last() {
        Some(last) if has_more => Some(cursor(last, order, query.level())?),
        _ => None,
    };
    let totals = Totals::of(db, query, scope, rows, now).await?;
    let found = rows.iter().map(|row| read(row, query, &columns, &totals));
    Ok(Matches { found: found.collect::<sqlx::Result<_>>()?, next })
}

fn cursor(row: &Row, order: Order, level: Level) -> sqlx::Result<Cursor> {
    let id = |is: bool, column| if is { row.try_get(column) } else { Ok(0) };
    Ok(Cursor {
        text: if order == Order::Name { row.try_get("name_folded")? } else { None },
        day: if order == Order::Day { row.try_get("study_day")? } else { None },
        study: if level == Level::Patient {
            row.try_get("patient")?
        } else {
            row.try_get("study")?
        },
        series: id(level >= Level::Series, "series")?,
        instance: id(level >= Level::Image, "instance")?,
    })
}

fn read(row: &Row, query: &Query, columns: &[&Column], totals: &Totals) -> sqlx::Result<Found> {
    let level = query.level();
    let mut values = Vec::with_capacity(columns.len());
    for column in columns {
        let value = if column.is_number {
            row.try_get::<Option<i64>>(column.name)?.map(|number| number.to_string())
        } else {
            row.try_get::<Option<String>>(column.name)?.filter(|text| !text.is_empty())
        };
        values.extend(value.map(|value| (column.tag, Phi::new(value))));
    }
    totals.add_to(&mut values, row, query)?;
    values.sort_unstable_by_key(|(tag, _)| *tag);
    Ok(Found {
        study: if level >= Level::Study { optional(row, "study_uid")? } else { None },
        series: if level >= Level::Series { optional(row, "series_uid")? } else { None },
        instance: if level >= Level::Image { optional(row, "sop_instance")? } else { None },
        protection: row.try_get("protection")?,
        values,
    })
}

#[cfg(test)]
mod tests;
