//! How much waits for a partner, as far as anybody wants to know.

use super::db::Db;

/// How many deliveries wait for a partner and are not paused; at most `most`, which is what counting costs.
pub(super) async fn count(db: &mut Db, partner: &str, most: u32) -> sqlx::Result<u64> {
    let count: Option<i64> = db
        .query(
            "SELECT COUNT(*) FROM (SELECT 1 FROM delivery WHERE partner = $1 AND due IS NOT NULL LIMIT $2) waiting",
        )
        .bind(partner)
        .bind(i64::from(most))
        .optional_scalar(db)
        .await?;
    Ok(count.and_then(|count| u64::try_from(count).ok()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::super::samples::{On, at, ct, index, on_both, transfer};
    use crate::facts::Priority;

    on_both![what_waits_is_counted_up_to_a_bound_and_what_is_paused_is_not];

    async fn what_waits_is_counted_up_to_a_bound_and_what_is_paused_is_not(on: On) {
        let (index, _dir) = index(on).await;
        let three = [1, 2, 3].map(|number| ct(1, number).to("york", Priority::Routine));
        let id = transfer(&index, &three).await;

        assert_eq!(index.waiting_for("york", 10).await.unwrap(), 3);
        assert_eq!(index.waiting_for("york", 2).await.unwrap(), 2);
        assert_eq!(index.waiting_for("leeds", 10).await.unwrap(), 0);
        index.pause(id, "dr-jones", "", at(1)).await.unwrap();
        assert_eq!(index.waiting_for("york", 10).await.unwrap(), 0);
    }
}
