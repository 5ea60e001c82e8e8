//! The steps of the schema, for either database. A shipped one is never edited: its checksum is in the databases.

use std::path::Path;

use sqlx::migrate::{Migrate, Migration, MigrationType, Migrator};
use sqlx::postgres::PgConnection;
use sqlx::sqlite::SqliteConnection;
use sqlx::{Acquire, SqlSafeStr};

use super::IndexError;

/// Number, name and text.
type Step = (i64, &'static str, &'static str);

const SQLITE: &[Step] = &[(1, "index", include_str!("../../migrations/sqlite/0001_index.sql"))];
const POSTGRES: &[Step] = &[(1, "index", include_str!("../../migrations/postgres/0001_index.sql"))];

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

async fn migrate<'c, C>(db: &'c mut C, steps: &[Step], place: &str) -> Result<(), IndexError>
where
    C: Migrate,
    for<'a> &'a mut C: Acquire<'a, Connection = &'a mut C>,
{
    let failed = |source| IndexError::Migrate { place: place.to_owned(), source };
    db.ensure_migrations_table(TABLE).await.map_err(failed)?;
    let applied = db.list_applied_migrations(TABLE).await.map_err(failed)?;
    let known = latest(steps);
    if let Some(found) =
        applied.iter().map(|step| step.version).max().filter(|found| *found > known)
    {
        return Err(IndexError::Newer { place: place.to_owned(), found, known });
    }
    let step = |(version, name, sql): &Step| {
        let kind = MigrationType::Simple;
        Migration::new(*version, (*name).into(), kind, sql.into_sql_str(), false)
    };
    Migrator::with_migrations(steps.iter().map(step).collect()).run(db).await.map_err(failed)
}
