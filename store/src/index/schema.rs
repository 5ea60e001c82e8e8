//! The steps of the schema, for either database. A shipped one is never edited: its checksum is in the databases.

use std::path::Path;

use sqlx::SqlSafeStr;
use sqlx::migrate::{Migrate, Migration, MigrationType, Migrator};
use sqlx::postgres::PgConnection;
use sqlx::sqlite::SqliteConnection;

use super::IndexError;

/// Number, name and text.
type Step = (i64, &'static str, &'static str);

const SQLITE: &[Step] = &[
    (1, "index", include_str!("../../migrations/sqlite/0001_index.sql")),
    (2, "mark", include_str!("../../migrations/sqlite/0002_mark.sql")),
    (3, "retention", include_str!("../../migrations/sqlite/0003_retention.sql")),
    (4, "lost", include_str!("../../migrations/sqlite/0004_lost.sql")),
    (5, "proof", include_str!("../../migrations/sqlite/0005_proof.sql")),
    (7, "turn", include_str!("../../migrations/sqlite/0007_turn.sql")),
    (8, "completeness", include_str!("../../migrations/sqlite/0008_completeness.sql")),
    (9, "recall", include_str!("../../migrations/sqlite/0009_recall.sql")),
    (10, "parcel", include_str!("../../migrations/sqlite/0010_parcel.sql")),
    (11, "protection", include_str!("../../migrations/sqlite/0011_protection.sql")),
    (12, "find", include_str!("../../migrations/sqlite/0012_find.sql")),
];
const POSTGRES: &[Step] = &[
    (1, "index", include_str!("../../migrations/postgres/0001_index.sql")),
    (2, "mark", include_str!("../../migrations/postgres/0002_mark.sql")),
    (3, "retention", include_str!("../../migrations/postgres/0003_retention.sql")),
    (4, "lost", include_str!("../../migrations/postgres/0004_lost.sql")),
    (5, "proof", include_str!("../../migrations/postgres/0005_proof.sql")),
    (7, "turn", include_str!("../../migrations/postgres/0007_turn.sql")),
    (8, "completeness", include_str!("../../migrations/postgres/0008_completeness.sql")),
    (9, "recall", include_str!("../../migrations/postgres/0009_recall.sql")),
    (10, "parcel", include_str!("../../migrations/postgres/0010_parcel.sql")),
    (11, "protection", include_str!("../../migrations/postgres/0011_protection.sql")),
    (12, "find", include_str!("../../migrations/postgres/0012_find.sql")),
];

const TABLE: &str = "_sqlx_migrations";

fn latest(steps: &[Step]) -> i64 {
    steps.iter().map(|(version, ..)| *version).max().unwrap_or(0)
}

/// The latest step for PostgreSQL.
pub(super) fn latest_postgres() -> i64 {
    latest(POSTGRES)
}

/// Brings a file up to date.
pub(super) async fn migrate_sqlite(
    db: &mut SqliteConnection,
    path: &Path,
) -> Result<(), IndexError> {
    migrate(db, SQLITE, &path.display().to_string()).await
}

/// Brings a database up to date. Several nodes may do so at once: sqlx lets one in at a time.
pub(super) async fn migrate_postgres(
    db: &mut PgConnection,
    server: &str,
) -> Result<(), IndexError> {
    migrate(db, POSTGRES, server).await
}

async fn migrate<C: Migrate>(db: &mut C, steps: &[Step], place: &str) -> Result<(), IndexError> {
    let failed = |source| IndexError::Migrate { place: place.to_owned(), source };
    let known = latest(steps);
    let step = |(version, name, sql): &Step| {
        let kind = MigrationType::Simple;
        Migration::new(*version, (*name).into(), kind, sql.into_sql_str(), false)
    };
    let migrator = Migrator::with_migrations(steps.iter().map(step).collect());
    // Two nodes that make the table at once would be in each other's way.
    db.lock().await.map_err(failed)?;
    db.ensure_migrations_table(TABLE).await.map_err(failed)?;
    let applied = db.list_applied_migrations(TABLE).await.map_err(failed)?;
    match applied.iter().map(|step| step.version).max() {
        Some(found) if found > known => {
            return Err(IndexError::Newer { place: place.to_owned(), found, known });
        }
        _ => migrator.run_direct(None, db, false).await.map_err(failed)?,
    }
    db.unlock().await.map_err(failed)
}
