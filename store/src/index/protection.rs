//! What left protected, and what was set aside for it: for whoever answers for a project.

use super::db::{Db, Row};
use super::{TransferId, parsed, unsigned};
use crate::dicom::SopClassUid;

/// Deliveries under one protection.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Protected {
    /// Its name.
    pub protection: String,
    /// Those that the partner has accepted.
    pub delivered: u64,
    /// Those that are to come.
    pub waiting: u64,
    /// Those that a person must look at.
    pub set_aside: u64,
    /// Those that a person has called back.
    pub cancelled: u64,
}

/// A delivery under a protection that a person must look at.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ProtectedAside {
    /// Its protection.
    pub protection: String,
    /// Its transfer.
    pub transfer: TransferId,
    /// What it is.
    pub sop_class: SopClassUid,
    /// Why.
    pub why: String,
}

pub(super) async fn counts(db: &mut Db) -> sqlx::Result<Vec<Protected>> {
    let rows = db
        .query(
            "SELECT protection, state, COUNT(*) AS count FROM delivery WHERE protection IS NOT NULL \
             GROUP BY protection, state ORDER BY protection, state",
        )
        .fetch_all(db)
        .await?;
    let mut all: Vec<Protected> = Vec::new();
    for row in &rows {
        let protection: &str = row.try_get("protection")?;
        if all.last().is_none_or(|last| last.protection != protection) {
            all.push(Protected { protection: protection.to_owned(), ..Protected::default() });
        }
        let count: u64 = unsigned(row, "count")?;
        if let Some(of) = all.last_mut() {
            match row.try_get::<&str>("state")? {
                "delivered" => of.delivered += count,
                "failed" => of.set_aside += count,
                "cancelled" => of.cancelled += count,
                _ => of.waiting += count,
            }
        }
    }
    Ok(all)
}

/// The latest, at most so many.
pub(super) async fn set_aside(db: &mut Db, most: u32) -> sqlx::Result<Vec<ProtectedAside>> {
    let rows = db
        .query(
            "SELECT d.protection, d.why, t.ulid, i.sop_class FROM delivery d JOIN transfer t ON t.id = d.transfer \
             JOIN instance i ON i.id = d.instance WHERE d.protection IS NOT NULL AND d.state = 'failed' \
             ORDER BY d.id DESC LIMIT $1",
        )
        .bind(i64::from(most))
        .fetch_all(db)
        .await?;
    let aside = |row: &Row| {
        Ok(ProtectedAside {
            protection: row.try_get::<&str>("protection")?.to_owned(),
            transfer: parsed(row, "ulid")?,
            sop_class: parsed(row, "sop_class")?,
            why: row.try_get::<Option<&str>>("why")?.unwrap_or_default().to_owned(),
        })
    };
    rows.iter().map(aside).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::samples::{On, at, ct, index, on_both};
    use crate::facts::Priority;
    use crate::index::{Event, Failure, FailureKind};

    on_both![what_is_protected_is_counted_by_its_protection];

    async fn what_is_protected_is_counted_by_its_protection(on: On) {
        let (index, _dir) = index(on).await;
        let mut arrival = ct(1, 1).to("york", Priority::Routine);
        arrival.routed.iter_mut().for_each(|routed| {
            routed.protection = Some("pseudonymise:lung".to_owned());
        });
        let plain = ct(2, 1).to("york", Priority::Routine);
        let recorded = index.record(&[arrival, plain]).await.unwrap();

        let claims = index.claim("york", "node", 2, Duration::from_mins(1), at(10)).await.unwrap();

        let protected: Vec<_> = claims.iter().filter(|claim| claim.protection.is_some()).collect();
        assert_eq!((claims.len(), protected.len()), (2, 1));
        assert_eq!(protected[0].protection.as_deref(), Some("pseudonymise:lung"));
        let why = Failure {
            kind: FailureKind::NotProtected,
            status: None,
            text: "no mask says where".to_owned(),
        };
        index.settle(&[(protected[0].delivery, Event::Reject { why })], at(11)).await.unwrap();
        let counted = index.protected().await.unwrap();
        assert_eq!(counted.len(), 1);
        assert_eq!((counted[0].set_aside, counted[0].waiting), (1, 0));
        let aside = index.protected_aside(10).await.unwrap();
        assert_eq!(aside[0].transfer, recorded[0].transfers[0]);
        assert_eq!(aside[0].why, "no mask says where");
    }
}
