//! Lists of values in statements: `IN (…)` with one placeholder each, which both dialects take.

use sqlx::{Encode, QueryBuilder, Sqlite, Type};

/// The longest list that one statement gets; SQLite takes 32,766 placeholders.
pub(super) const MOST: usize = 1000;

/// Appends `(…)` with these values bound.
pub(super) fn push<'v, T: Encode<'v, Sqlite> + Type<Sqlite>>(
    query: &mut QueryBuilder<Sqlite>,
    values: impl Iterator<Item = T>,
) {
    query.push("(");
    let mut list = query.separated(", ");
    for value in values {
        list.push_bind(value);
    }
    query.push(")");
}
