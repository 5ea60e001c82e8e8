//! How much waits for a partner, as far as anybody wants to know.

use crate::facts::Priority;

use super::db::Db;
use super::rank;

/// How many deliveries of this priority, or of a more urgent one, wait for a partner and are not paused; at most `most`, which
/// is what counting costs.
pub(super) async fn count(
    db: &mut Db,
    partner: &str,
    least: Priority,
    most: u32,
) -> sqlx::Result<u64> {
    let count: Option<i64> = db
        .query(
            "SELECT COUNT(*) FROM (SELECT 1 FROM delivery WHERE partner = $1 AND priority <= $2 AND due IS NOT NULL LIMIT $3) waiting",
        )
        .bind(partner)
        .bind(rank(least))
        .bind(i64::from(most))
        .optional_scalar(db)
        .await?;
    Ok(count.and_then(|count| u64::try_from(count).ok()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::super::samples::{On, at, ct, index, on_both, transfer};
    use super::*;

    on_both![what_waits_is_counted_up_to_a_bound_and_what_is_paused_is_not];

    async fn what_waits_is_counted_up_to_a_bound_and_what_is_paused_is_not(on: On) {
        let (index, _dir) = index(on).await;
        let three = [1, 2, 3].map(|number| ct(1, number).to("york", Priority::Routine));
        let id = transfer(&index, &three).await;

        let waiting =
            async |partner, least, most| index.waiting_for(partner, least, most).await.unwrap();

        assert_eq!(waiting("york", Priority::Routine, 10).await, 3);
        assert_eq!(waiting("york", Priority::Routine, 2).await, 2);
        assert_eq!(waiting("york", Priority::Urgent, 10).await, 0);
        assert_eq!(waiting("leeds", Priority::Routine, 10).await, 0);
        index.pause(id, "dr-jones", "", at(1)).await.unwrap();
        assert_eq!(waiting("york", Priority::Routine, 10).await, 0);
    }
}
