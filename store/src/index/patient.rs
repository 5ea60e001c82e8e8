//! Whom a study is about, as far as an identifier says.

use ring::digest::{Context, SHA256};

use super::db::Db;

/// The row of an identifier: raw text, issuer `""` where there is none. Nothing is folded or trimmed beyond padding, as
/// two texts that look alike may be two people.
pub(super) async fn find_or_add(db: &mut Db, issuer: &str, patient_id: &str) -> sqlx::Result<i64> {
    if let Some(id) = find(&mut *db, issuer, patient_id).await? {
        return Ok(id);
    }
    // Studies of one patient may be recorded by two nodes at once, so the row may be there by now.
    let added = if db.is_postgres() {
        let identity = identity(issuer, patient_id);
        let query = db.query(
            "INSERT INTO patient (patient_id, issuer, identity) VALUES ($1, $2, $3) \
             ON CONFLICT (identity) DO NOTHING RETURNING id",
        );
        query.bind(patient_id).bind(issuer).bind(&identity[..]).optional_scalar(&mut *db).await?
    } else {
        let query =
            db.query("INSERT INTO patient (patient_id, issuer) VALUES ($1, $2) RETURNING id");
        query.bind(patient_id).bind(issuer).optional_scalar(&mut *db).await?
    };
    match added {
        Some(id) => Ok(id),
        None => find(db, issuer, patient_id).await?.ok_or(sqlx::Error::RowNotFound),
    }
}

async fn find(db: &mut Db, issuer: &str, patient_id: &str) -> sqlx::Result<Option<i64>> {
    let query = db.query("SELECT id FROM patient WHERE patient_id = $1 AND issuer = $2");
    query.bind(patient_id).bind(issuer).optional_scalar(db).await
}

/// What is unique on PostgreSQL, whose indexes take no text as long as a hostile identifier may be.
fn identity(issuer: &str, patient_id: &str) -> Vec<u8> {
    let mut hash = Context::new(&SHA256);
    hash.update(&(issuer.len() as u64).to_be_bytes());
    hash.update(issuer.as_bytes());
    hash.update(patient_id.as_bytes());
    hash.finish().as_ref().to_vec()
}
