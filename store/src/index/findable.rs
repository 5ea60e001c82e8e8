//! What studies are searched by beside what stands in them: names without case and accents, the date as a number.
//!
//! Rows of before this was kept are brought up to date in batches, each a transaction: whatever ends the program in
//! between, the rest is done next time. Searches see to it first, so none misses what is not folded yet.

use super::db::{Db, Query};
use crate::query;

/// Rows of one batch: short enough for whoever wants to write too.
const BATCH: i64 = 500;

/// What is written beside a study's attributes.
pub(super) struct Folded {
    name: [Option<String>; 3],
    referring: Option<String>,
    day: Option<i64>,
}

impl Folded {
    /// Of Patient's Name, Referring Physician's Name and Study Date.
    pub(super) fn of(name: Option<&str>, referring: Option<&str>, date: Option<&str>) -> Self {
        Self {
            name: query::fold_name(name.unwrap_or_default()),
            // Whoever looks for a physician writes the alphabetic group.
            referring: query::fold_name(referring.unwrap_or_default()).into_iter().next().flatten(),
            day: date.and_then(query::day),
        }
    }

    /// In the order of the columns: alphabetic, ideographic, phonetic, referring, day.
    pub(super) fn bind(self, query: Query) -> Query {
        let [alphabetic, ideographic, phonetic] = self.name;
        query.bind(alphabetic).bind(ideographic).bind(phonetic).bind(self.referring).bind(self.day)
    }
}

/// Whether there are rows to be brought up to date.
pub(super) async fn is_pending(db: &mut Db) -> sqlx::Result<bool> {
    let query = db.query("SELECT id FROM study WHERE findable = 0 LIMIT 1");
    Ok(query.optional_scalar::<i64>(db).await?.is_some())
}

/// Brings a batch up to date. Says how many rows that were; 0 is the end.
pub(super) async fn fold_some(db: &mut Db) -> sqlx::Result<u64> {
    let query = db.query(
        "SELECT id, patient_name, referring, study_date FROM study WHERE findable = 0 ORDER BY id LIMIT $1",
    );
    let rows = query.bind(BATCH).fetch_all(&mut *db).await?;
    for row in &rows {
        let folded = Folded::of(
            row.try_get("patient_name")?,
            row.try_get("referring")?,
            row.try_get("study_date")?,
        );
        // Another node may have recorded more of this study meanwhile, and folded that.
        let query = db.query(
            "UPDATE study SET name_folded = $2, name_ideographic = $3, name_phonetic = $4, referring_folded = $5, \
             study_day = $6, findable = 1 WHERE id = $1 AND findable = 0",
        );
        folded.bind(query.bind(row.try_get::<i64>("id")?)).execute(&mut *db).await?;
    }
    Ok(rows.len() as u64)
}
