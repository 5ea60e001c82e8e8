//! Who may find what, and the shares that people give.
//!
//! A partner finds what is addressed to it, by a transfer that nobody cancelled, and what a person shared with it, as long
//! as that lasts. Every statement that answers somebody goes through [`push_scope`], so there is one place where this is
//! decided, and it is in the database: what is out of scope is never read.

use jiff::Timestamp;
use serde::Serialize;

use super::db::{Db, Query, Row};
use super::retention;
use super::{lock, moment, parsed};
use crate::dicom::StudyInstanceUid;

/// Whose view it is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Scope {
    /// Of this organisation's people: all that is here.
    All,
    /// Of a partner, by configured name.
    Partner {
        /// Its name.
        name: String,
        /// Whether it also sees what goes to it under a protection. The caller must then show none of it under its original
        /// identity: [`Found`](super::Found) names the protection. Otherwise such studies are not found.
        protected: bool,
    },
    /// Of a source, by configured name: the studies of which it sent something.
    Source(String),
}

/// A study that a person lets a partner see.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Share {
    /// Its number.
    pub id: i64,
    /// The study.
    pub study_instance_uid: StudyInstanceUid,
    /// The partner, by configured name.
    pub partner: String,
    /// Under which protection, by the name that the gateway gives it; none: as it was received.
    pub protection: Option<String>,
    /// Until when; none: without end.
    pub until: Option<Timestamp>,
    /// The reason that was given.
    pub reason: String,
    /// Who shared it.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// Who revoked it.
    pub revoked_by: Option<String>,
}

/// What is to be shared.
#[derive(Clone, Copy, Debug)]
pub struct NewShare<'a> {
    /// The study.
    pub study: &'a StudyInstanceUid,
    /// The partner, by configured name.
    pub partner: &'a str,
    /// Under which protection; none: as it was received.
    pub protection: Option<&'a str>,
    /// Until when, not included; none: without end.
    pub until: Option<Timestamp>,
    /// Why.
    pub reason: &'a str,
    /// Who shares it.
    pub by: &'a str,
}

const ADDRESSED: &str = "EXISTS (SELECT 1 FROM transfer a WHERE a.study = s.id AND a.cancelled_at IS NULL AND a.partner = ";
/// A study of which anything went, or goes, to a partner under a protection is under that protection for it.
const AS_RECEIVED: &str = " AND NOT EXISTS (SELECT 1 FROM delivery d WHERE d.transfer = a.id AND d.protection IS NOT NULL)";
const SHARED: &str = " OR EXISTS (SELECT 1 FROM share h WHERE h.study = s.id AND h.revoked_at IS NULL AND h.partner = ";

/// Goes on with the condition that study `s` is in scope at this moment.
pub(super) fn push_scope(query: &mut Query, scope: &Scope, now: Timestamp) {
    match scope {
        Scope::All => {
            query.push("1 = 1");
        }
        Scope::Partner { name, protected: true } => {
            query.push("(").push(ADDRESSED).push_bind(name.as_str()).push(")");
            push_shared(query, name, now);
            query.push("))");
        }
        Scope::Partner { name, protected: false } => push_as_received(query, name, now),
        Scope::Source(name) => {
            query.push(
                "EXISTS (SELECT 1 FROM series v JOIN instance k ON k.series = v.id WHERE v.study = s.id \
                 AND k.removed_at IS NULL AND k.quarantined = 0 AND k.from_partner = 0 AND k.sender = ",
            );
            query.push_bind(name.as_str()).push(")");
        }
    }
}

/// That a partner may see study `s` as it was received.
fn push_as_received(query: &mut Query, partner: &str, now: Timestamp) {
    query.push("(").push(ADDRESSED).push_bind(partner).push(AS_RECEIVED).push(")");
    push_shared(query, partner, now);
    query.push(" AND h.protection IS NULL))");
}

fn push_shared(query: &mut Query, partner: &str, now: Timestamp) {
    query.push(SHARED).push_bind(partner).push(" AND (h.until IS NULL OR h.until > ");
    query.push_bind(now.as_millisecond()).push(")");
}

/// Goes on with a column `protection`: under which one a partner sees study `s`. NULL: as it was received.
pub(super) fn push_protection(query: &mut Query, scope: &Scope, now: Timestamp) {
    let Scope::Partner { name, protected: true } = scope else {
        // PostgreSQL does not guess the type of what stands alone.
        query.push("CAST(NULL AS TEXT) AS protection");
        return;
    };
    query.push("CASE WHEN ");
    push_as_received(query, name, now);
    query.push(
        " THEN NULL ELSE COALESCE((SELECT MIN(d.protection) FROM transfer a JOIN delivery d ON d.transfer = a.id \
         WHERE d.protection IS NOT NULL AND a.study = s.id AND a.cancelled_at IS NULL AND a.partner = ",
    );
    query.push_bind(name.as_str()).push(
        "), (SELECT MIN(h.protection) FROM share h WHERE h.study = s.id AND h.revoked_at IS NULL AND h.partner = ",
    );
    query.push_bind(name.as_str()).push(" AND (h.until IS NULL OR h.until > ");
    query.push_bind(now.as_millisecond()).push("))) END AS protection");
}

/// Goes on with the condition that study `s` is among those that could be in scope, for a scope that is small: the search
/// then goes through them, and what others have makes it neither slower nor faster.
pub(super) fn push_candidates(query: &mut Query, partner: &str) {
    query
        .push(" AND s.id IN (SELECT study FROM transfer WHERE cancelled_at IS NULL AND partner = ");
    query.push_bind(partner);
    query.push(" UNION ALL SELECT study FROM share WHERE revoked_at IS NULL AND partner = ");
    query.push_bind(partner).push(")");
}

/// Whether at most so many studies could be in a partner's scope.
pub(super) async fn is_small(db: &mut Db, partner: &str, most: i64) -> sqlx::Result<bool> {
    let query = db.query(
        "SELECT COUNT(*) FROM (SELECT study FROM transfer WHERE cancelled_at IS NULL AND partner = $1 \
         UNION ALL SELECT study FROM share WHERE revoked_at IS NULL AND partner = $1 LIMIT $2) c",
    );
    Ok(query.bind(partner).bind(most + 1).scalar::<i64>(db).await? <= most)
}

/// Shares a study. `None` if there is none that shows anywhere.
pub(super) async fn add(
    db: &mut Db,
    new: &NewShare<'_>,
    now: Timestamp,
) -> sqlx::Result<Option<i64>> {
    lock::studies(&mut *db, std::iter::once(new.study)).await?;
    let query = db.query("SELECT id FROM study WHERE uid = $1 AND last_received_at IS NOT NULL");
    let study: Option<i64> = query.bind(new.study.as_str()).optional_scalar(&mut *db).await?;
    let Some(study) = study else { return Ok(None) };
    let query = db.query(
        "INSERT INTO share (study, partner, protection, until, reason, shared_by, shared_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING id",
    );
    let query = query.bind(study).bind(new.partner).bind(new.protection);
    let query = query.bind(new.until.map(Timestamp::as_millisecond)).bind(new.reason);
    let id = query.bind(new.by).bind(now.as_millisecond()).scalar(&mut *db).await?;
    let why = format!("with {}: {}", new.partner, new.reason);
    retention::note(db, study, now, "shared", Some(new.by), &why).await?;
    Ok(Some(id))
}

/// Ends every share of a study with a partner that stands. Says how many that were.
pub(super) async fn revoke(
    db: &mut Db,
    study: &StudyInstanceUid,
    partner: &str,
    actor: &str,
    why: &str,
    now: Timestamp,
) -> sqlx::Result<u64> {
    lock::studies(&mut *db, std::iter::once(study)).await?;
    let query = db.query("SELECT id FROM study WHERE uid = $1").bind(study.as_str());
    let Some(study) = query.optional_scalar::<i64>(&mut *db).await? else { return Ok(0) };
    let query = db.query(
        "UPDATE share SET revoked_at = $3, revoked_by = $4 WHERE study = $1 AND partner = $2 AND revoked_at IS NULL",
    );
    let query = query.bind(study).bind(partner).bind(now.as_millisecond()).bind(actor);
    let ended = query.execute(&mut *db).await?;
    if ended > 0 {
        let why = format!("with {partner}: {why}");
        retention::note(db, study, now, "unshared", Some(actor), &why).await?;
    }
    Ok(ended)
}

/// Every share of a study, oldest first, those that have ended too.
pub(super) async fn of_study(db: &mut Db, study: &StudyInstanceUid) -> sqlx::Result<Vec<Share>> {
    let query = db.query(
        "SELECT h.*, s.uid FROM share h JOIN study s ON s.id = h.study WHERE s.uid = $1 ORDER BY h.id",
    );
    query.bind(study.as_str()).fetch_all(db).await?.iter().map(read).collect()
}

fn read(row: &Row) -> sqlx::Result<Share> {
    let maybe = |column: &'static str| {
        row.try_get::<Option<i64>>(column)?.map(super::timestamp).transpose()
    };
    Ok(Share {
        id: row.try_get("id")?,
        study_instance_uid: parsed(row, "uid")?,
        partner: row.try_get("partner")?,
        protection: row.try_get("protection")?,
        until: maybe("until")?,
        reason: row.try_get("reason")?,
        by: row.try_get("shared_by")?,
        at: moment(row, "shared_at")?,
        revoked_at: maybe("revoked_at")?,
        revoked_by: row.try_get("revoked_by")?,
    })
}
