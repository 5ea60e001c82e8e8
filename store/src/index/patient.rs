//! Whom a study is about, as far as an identifier says.

use sqlx::SqliteConnection;

/// The row of an identifier: raw text, issuer `""` where there is none. Nothing is folded or trimmed beyond padding, as
/// two texts that look alike may be two people.
pub(super) async fn find_or_add(
    db: &mut SqliteConnection,
    issuer: &str,
    patient_id: &str,
) -> sqlx::Result<i64> {
    let found = sqlx::query_scalar("SELECT id FROM patient WHERE patient_id = $1 AND issuer = $2")
        .bind(patient_id)
        .bind(issuer)
        .fetch_optional(&mut *db)
        .await?;
    if let Some(id) = found {
        return Ok(id);
    }
    sqlx::query_scalar("INSERT INTO patient (patient_id, issuer) VALUES ($1, $2) RETURNING id")
        .bind(patient_id)
        .bind(issuer)
        .fetch_one(db)
        .await
}
