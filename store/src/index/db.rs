//! One transaction on either database, and statements that are written once for both.
//!
//! Both take `$1`, `ON CONFLICT` and `RETURNING`, and every number here is an `i64`, every flag 0 or 1 and every time
//! milliseconds in both, so most statements are the same text. Where the dialects differ, a statement asks
//! [`Db::is_postgres`] and both texts stand side by side. Text is only ever `'static`: what comes from outside can be
//! bound, and cannot become SQL.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use sqlx::error::BoxDynError;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgPool, PgRow};
use sqlx::sqlite::{SqliteArguments, SqlitePool, SqliteRow};
use sqlx::{
    Arguments as _, AssertSqlSafe, Decode, Encode, Postgres, Row as _, SqlSafeStr, Sqlite,
    Transaction, Type,
};

/// How many steps SQLite takes between two looks at the clock: less than a millisecond.
const STEPS: i32 = 10_000;

/// Whether a statement ended because its time was over.
pub(super) fn was_interrupted(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    // SQLite's SQLITE_INTERRUPT; PostgreSQL's query_canceled.
    code.is_some_and(|code| code == "9" || code == "57014")
}

/// The longest list that one statement gets; SQLite takes 32,766 placeholders.
pub(super) const MOST: usize = 1000;

/// Whether a commit waits for the disk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Durability {
    /// It waits, and so makes every earlier commit durable too: they are in the same log. For what a person decided, and
    /// before the drain removes spool files because of what was committed.
    Synced,
    /// It does not wait: a power cut may undo it, with all of its kind since the last synced one. For what comes back by
    /// itself: arrivals, whose spool files are there until a synced commit says otherwise; claims, which a power cut ends
    /// anyway; and outcomes, as a partner recognises what it is sent again. A crash of the process undoes nothing, nor
    /// does one of PostgreSQL's sessions; a crash of its server is a power cut.
    Unsynced,
}

impl Durability {
    /// Said before every transaction, so that one that was given up half-way leaves nothing to the next.
    fn sqlite(self) -> &'static str {
        match self {
            Self::Synced => "PRAGMA synchronous = FULL",
            Self::Unsynced => "PRAGMA synchronous = NORMAL",
        }
    }

    /// One round trip. Read committed: whatever must not change between two statements is locked by name (`lock`).
    fn postgres(self) -> &'static str {
        match self {
            Self::Synced => {
                "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL synchronous_commit = on"
            }
            Self::Unsynced => {
                "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL synchronous_commit = off"
            }
        }
    }
}

/// A transaction. Dropped without [`Db::commit`] it is undone.
#[derive(Debug)]
pub(super) enum Db {
    Sqlite(Transaction<'static, Sqlite>),
    Postgres(Session),
}

/// A session of PostgreSQL inside a transaction. Given up half-way it is closed and not reused: what it is in the middle
/// of is unknown, and its server may never answer.
#[derive(Debug)]
pub(super) struct Session {
    connection: PoolConnection<Postgres>,
    ended: bool,
}

impl Session {
    async fn begin(pool: &PgPool, statement: &'static str) -> sqlx::Result<Self> {
        let mut session = Self { connection: pool.acquire().await?, ended: false };
        sqlx::raw_sql(statement).execute(&mut *session.connection).await?;
        Ok(session)
    }

    async fn end(mut self, statement: &'static str) -> sqlx::Result<()> {
        sqlx::raw_sql(statement).execute(&mut *self.connection).await?;
        self.ended = true;
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.ended {
            self.connection.close_on_drop();
        }
    }
}

impl Db {
    /// Begins to write to SQLite.
    pub(super) async fn write_sqlite(
        writer: &SqlitePool,
        durability: Durability,
    ) -> sqlx::Result<Self> {
        let mut connection = writer.acquire().await?;
        sqlx::raw_sql(durability.sqlite()).execute(&mut *connection).await?;
        let begin = "BEGIN IMMEDIATE".into_sql_str();
        Transaction::begin(connection, Some(begin)).await.map(Self::Sqlite)
    }

    /// Begins to read SQLite, of one moment.
    pub(super) async fn read_sqlite(readers: &SqlitePool) -> sqlx::Result<Self> {
        readers.begin().await.map(Self::Sqlite)
    }

    /// Begins to write to PostgreSQL.
    pub(super) async fn write_postgres(
        pool: &PgPool,
        durability: Durability,
    ) -> sqlx::Result<Self> {
        Session::begin(pool, durability.postgres()).await.map(Self::Postgres)
    }

    /// Begins to read PostgreSQL, of one moment.
    pub(super) async fn read_postgres(pool: &PgPool) -> sqlx::Result<Self> {
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY";
        Session::begin(pool, begin).await.map(Self::Postgres)
    }

    /// Begins to search SQLite. Its statements together end when the time is over.
    pub(super) async fn search_sqlite(
        searchers: &SqlitePool,
        within: Duration,
    ) -> sqlx::Result<Self> {
        let mut connection = searchers.acquire().await?;
        let begun = Instant::now();
        // It stays with the connection, until the next search brings its own.
        let go_on = move || begun.elapsed() < within;
        connection.lock_handle().await?.set_progress_handler(STEPS, go_on);
        Transaction::begin(connection, None).await.map(Self::Sqlite)
    }

    /// Begins to search PostgreSQL. Each of its statements ends when the time is over.
    pub(super) async fn search_postgres(pool: &PgPool, within: Duration) -> sqlx::Result<Self> {
        let mut db = Self::read_postgres(pool).await?;
        let within = within.as_millis().clamp(1, i32::MAX as u128).to_string();
        let limit = db.query("SELECT set_config('statement_timeout', $1, true)").bind(within);
        limit.fetch_all(&mut db).await?;
        Ok(db)
    }

    /// Ends it: all of it is there now. After an error nobody knows whether it is.
    pub(super) async fn commit(self) -> sqlx::Result<()> {
        match self {
            Self::Sqlite(transaction) => transaction.commit().await,
            Self::Postgres(session) => session.end("COMMIT").await,
        }
    }

    /// Ends it: nothing of it is there. Where that cannot be said, the database undoes it when the connection closes.
    pub(super) async fn give_up(self) {
        let ended = match self {
            Self::Sqlite(transaction) => transaction.rollback().await,
            Self::Postgres(session) => session.end("ROLLBACK").await,
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "transaction could not be given up; its connection is closed");
        }
    }

    /// Which dialect it speaks.
    pub(super) fn is_postgres(&self) -> bool {
        matches!(self, Self::Postgres(_))
    }

    /// Begins a statement.
    pub(super) fn query(&self, text: &'static str) -> Query {
        let arguments = match self {
            Self::Sqlite(_) => Arguments::Sqlite(SqliteArguments::default()),
            Self::Postgres(_) => Arguments::Postgres(PgArguments::default()),
        };
        Query { text: Cow::Borrowed(text), arguments, unfit: None }
    }

    /// Runs a statement over many rows, which it reads from the table `new` with these columns: `before` ends where a table
    /// is named, `after` goes on behind it. PostgreSQL, which a network may be between, gets up to [`MOST`] rows at once;
    /// SQLite one after the other, as its statements cost less than the text of a long one. The answers of all are in no
    /// order.
    pub(super) async fn for_rows<const N: usize>(
        &mut self,
        before: &'static str,
        columns: [&'static str; N],
        rows: Vec<[Cell; N]>,
        after: &'static str,
    ) -> sqlx::Result<Vec<Row>> {
        let mut answers = Vec::new();
        let mut rows = rows.into_iter();
        if self.is_postgres() {
            while let Some(first) = rows.next() {
                let count = rows.len().min(MOST - 1) + 1;
                let mut table = first.map(|cell| Column::beginning_with(cell, count));
                for row in rows.by_ref().take(MOST - 1) {
                    for (column, cell) in table.iter_mut().zip(row) {
                        column.push(cell).map_err(sqlx::Error::Encode)?;
                    }
                }
                let mut query = self.query(before);
                query.push("unnest(");
                for (index, column) in table.into_iter().enumerate() {
                    let cast = column.cast();
                    query.push(if index == 0 { "" } else { ", " }).push_bind(column).push(cast);
                }
                query.push(") AS new (");
                for (index, name) in columns.into_iter().enumerate() {
                    query.push(if index == 0 { "" } else { ", " }).push(name);
                }
                query.push(")").push(after);
                answers.extend(query.fetch_all(self).await?);
            }
        } else {
            for row in rows {
                let mut query = self.query(before);
                query.push("(SELECT ");
                for (index, (name, cell)) in columns.into_iter().zip(row).enumerate() {
                    query.push(if index == 0 { "" } else { ", " }).push_bind(cell);
                    query.push(" AS ").push(name);
                }
                query.push(") AS new").push(after);
                answers.extend(query.fetch_all(self).await?);
            }
        }
        Ok(answers)
    }

    /// Begins a statement that the dialects write differently.
    pub(super) fn query_either(&self, sqlite: &'static str, postgres: &'static str) -> Query {
        self.query(if self.is_postgres() { postgres } else { sqlite })
    }
}

pub(super) enum Arguments {
    Sqlite(SqliteArguments),
    Postgres(PgArguments),
}

impl Arguments {
    fn len(&self) -> usize {
        match self {
            Self::Sqlite(arguments) => arguments.len(),
            Self::Postgres(arguments) => arguments.len(),
        }
    }

    fn add<'v, T>(&mut self, value: T) -> Result<(), BoxDynError>
    where
        T: Encode<'v, Sqlite> + Type<Sqlite> + Encode<'v, Postgres> + Type<Postgres>,
    {
        match self {
            Self::Sqlite(arguments) => arguments.add(value),
            Self::Postgres(arguments) => arguments.add(value),
        }
    }
}

/// What can be bound: numbers, texts, bytes, and each of them absent.
pub(super) trait Value {
    fn add_to(self, arguments: &mut Arguments) -> Result<(), BoxDynError>;
}

macro_rules! plain_values {
    ($($type:ty),+) => {$(
        impl Value for $type {
            fn add_to(self, arguments: &mut Arguments) -> Result<(), BoxDynError> {
                arguments.add(self)
            }
        }
    )+};
}

plain_values!(i64, Option<i64>, &[u8], Option<&[u8]>);

/// A value of one of many rows; see [`Db::for_rows`].
pub(super) enum Cell {
    Number(Option<i64>),
    Text(Option<String>),
    Bytes(Option<Vec<u8>>),
}

macro_rules! cells {
    ($($type:ty => $cell:expr;)+) => {$(
        impl From<$type> for Cell {
            fn from(value: $type) -> Self {
                $cell(value)
            }
        }
    )+};
}

cells! {
    i64 => |value| Self::Number(Some(value));
    Option<i64> => Self::Number;
    String => |value| Self::Text(Some(value));
    &str => |value: &str| Self::Text(Some(value.to_owned()));
    Option<&str> => |value: Option<&str>| Self::Text(value.map(str::to_owned));
    &[u8] => |value: &[u8]| Self::Bytes(Some(value.to_vec()));
    Option<&[u8]> => |value: Option<&[u8]>| Self::Bytes(value.map(<[u8]>::to_vec));
}

impl Value for Cell {
    fn add_to(self, arguments: &mut Arguments) -> Result<(), BoxDynError> {
        match self {
            Self::Number(number) => number.add_to(arguments),
            Self::Text(text) => text.add_to(arguments),
            Self::Bytes(bytes) => bytes.as_deref().add_to(arguments),
        }
    }
}

/// The cells of one column, which only PostgreSQL takes as one value.
enum Column {
    Numbers(Vec<Option<i64>>),
    Texts(Vec<Option<String>>),
    Bytes(Vec<Option<Vec<u8>>>),
}

impl Column {
    fn beginning_with(cell: Cell, rows: usize) -> Self {
        fn begin<T>(first: T, rows: usize) -> Vec<T> {
            let mut cells = Vec::with_capacity(rows);
            cells.push(first);
            cells
        }
        match cell {
            Cell::Number(number) => Self::Numbers(begin(number, rows)),
            Cell::Text(text) => Self::Texts(begin(text, rows)),
            Cell::Bytes(bytes) => Self::Bytes(begin(bytes, rows)),
        }
    }

    fn push(&mut self, cell: Cell) -> Result<(), BoxDynError> {
        match (self, cell) {
            (Self::Numbers(numbers), Cell::Number(number)) => numbers.push(number),
            (Self::Texts(texts), Cell::Text(text)) => texts.push(text),
            (Self::Bytes(all), Cell::Bytes(bytes)) => all.push(bytes),
            _ => return Err("a column holds values of two kinds".into()),
        }
        Ok(())
    }

    fn cast(&self) -> &'static str {
        match self {
            Self::Numbers(_) => "::bigint[]",
            Self::Texts(_) => "::text[]",
            Self::Bytes(_) => "::bytea[]",
        }
    }
}

impl Value for Column {
    fn add_to(self, arguments: &mut Arguments) -> Result<(), BoxDynError> {
        let Arguments::Postgres(arguments) = arguments else {
            return Err("SQLite takes no list as one value".into());
        };
        match self {
            Self::Numbers(numbers) => arguments.add(numbers),
            Self::Texts(texts) => {
                let clean = |text: String| without_nul(&text).into_owned();
                arguments.add(texts.into_iter().map(|text| text.map(clean)).collect::<Vec<_>>())
            }
            Self::Bytes(bytes) => arguments.add(bytes),
        }
    }
}

/// A list in one value, which only PostgreSQL takes.
impl Value for &[i64] {
    fn add_to(self, arguments: &mut Arguments) -> Result<(), BoxDynError> {
        match arguments {
            Arguments::Sqlite(_) => Err("SQLite takes no list as one value".into()),
            Arguments::Postgres(arguments) => arguments.add(self),
        }
    }
}

/// PostgreSQL holds no NUL in a text. It has no business in one, so both say the same instead: a character that stands
/// for what cannot be shown.
fn without_nul(text: &str) -> Cow<'_, str> {
    if text.contains('\0') {
        Cow::Owned(text.replace('\0', "\u{FFFD}"))
    } else {
        Cow::Borrowed(text)
    }
}

macro_rules! texts {
    ($($type:ty),+) => {$(
        impl Value for $type {
            fn add_to(self, arguments: &mut Arguments) -> Result<(), BoxDynError> {
                arguments.add(without_nul(self.as_ref()).as_ref())
            }
        }

        impl Value for Option<$type> {
            fn add_to(self, arguments: &mut Arguments) -> Result<(), BoxDynError> {
                let text = self.as_ref().map(|text| without_nul(text.as_ref()));
                arguments.add(text.as_deref())
            }
        }
    )+};
}

texts!(&str, String, &String);

/// A statement with what is bound to it.
pub(super) struct Query {
    text: Cow<'static, str>,
    arguments: Arguments,
    unfit: Option<BoxDynError>,
}

impl Query {
    /// Binds the next value.
    #[must_use]
    pub(super) fn bind(mut self, value: impl Value) -> Self {
        self.add(value);
        self
    }

    /// Goes on with the text.
    pub(super) fn push(&mut self, text: &'static str) -> &mut Self {
        self.text.to_mut().push_str(text);
        self
    }

    /// Goes on with a value.
    pub(super) fn push_bind(&mut self, value: impl Value) -> &mut Self {
        self.add(value);
        self.push_placeholder();
        self
    }

    /// Goes on with `IN` and a list. PostgreSQL gets it as one array, so that a statement has one text, and one plan,
    /// however long its list is.
    pub(super) fn push_in<T>(&mut self, values: impl Iterator<Item = T>) -> &mut Self
    where
        T: Value,
        Vec<T>: for<'v> Encode<'v, Postgres> + Type<Postgres>,
    {
        if let Arguments::Postgres(arguments) = &mut self.arguments {
            let added = arguments.add(values.collect::<Vec<_>>());
            self.unfit = self.unfit.take().or(added.err());
            self.push("= ANY(");
            self.push_placeholder();
        } else {
            self.push("IN (");
            for (index, value) in values.enumerate() {
                self.push(if index == 0 { "" } else { ", " });
                self.push_bind(value);
            }
        }
        self.push(")")
    }

    /// What SQLite would do, line by line.
    #[cfg(test)]
    pub(super) async fn plan(mut self, db: &mut Db) -> Vec<String> {
        self.text = Cow::Owned(format!("EXPLAIN QUERY PLAN {}", self.text));
        let rows = self.fetch_all(db).await.unwrap();
        rows.iter().map(|row| row.try_get("detail").unwrap()).collect()
    }

    fn add(&mut self, value: impl Value) {
        let added = value.add_to(&mut self.arguments);
        self.unfit = self.unfit.take().or(added.err());
    }

    fn push_placeholder(&mut self) {
        let number = self.arguments.len();
        // Writing to a string does not fail.
        let _ = write!(self.text.to_mut(), "${number}");
    }

    /// Runs it and says how many rows it changed.
    pub(super) async fn execute(self, db: &mut Db) -> sqlx::Result<u64> {
        match self.fit(db)? {
            Fit::Sqlite(text, arguments, connection) => {
                let done = sqlx::query_with(text, arguments).execute(&mut **connection).await?;
                Ok(done.rows_affected())
            }
            Fit::Postgres(text, arguments, session) => {
                let connection = &mut *session.connection;
                let done = sqlx::query_with(text, arguments).execute(connection).await?;
                Ok(done.rows_affected())
            }
        }
    }

    /// Runs it and takes every row.
    pub(super) async fn fetch_all(self, db: &mut Db) -> sqlx::Result<Vec<Row>> {
        match self.fit(db)? {
            Fit::Sqlite(text, arguments, connection) => {
                let rows = sqlx::query_with(text, arguments).fetch_all(&mut **connection).await?;
                Ok(rows.into_iter().map(Row::Sqlite).collect())
            }
            Fit::Postgres(text, arguments, session) => {
                let connection = &mut *session.connection;
                let rows = sqlx::query_with(text, arguments).fetch_all(connection).await?;
                Ok(rows.into_iter().map(Row::Postgres).collect())
            }
        }
    }

    /// Runs it and takes the row that there may be.
    pub(super) async fn fetch_optional(self, db: &mut Db) -> sqlx::Result<Option<Row>> {
        match self.fit(db)? {
            Fit::Sqlite(text, arguments, connection) => {
                let query = sqlx::query_with(text, arguments);
                Ok(query.fetch_optional(&mut **connection).await?.map(Row::Sqlite))
            }
            Fit::Postgres(text, arguments, session) => {
                let query = sqlx::query_with(text, arguments);
                Ok(query.fetch_optional(&mut *session.connection).await?.map(Row::Postgres))
            }
        }
    }

    /// Runs it and takes the row that there must be.
    pub(super) async fn fetch_one(self, db: &mut Db) -> sqlx::Result<Row> {
        self.fetch_optional(db).await?.ok_or(sqlx::Error::RowNotFound)
    }

    /// The first column of the row that there must be.
    pub(super) async fn scalar<T: for<'r> Readable<'r>>(self, db: &mut Db) -> sqlx::Result<T> {
        self.fetch_one(db).await?.first()
    }

    /// The first column of the row that there may be.
    pub(super) async fn optional_scalar<T: for<'r> Readable<'r>>(
        self,
        db: &mut Db,
    ) -> sqlx::Result<Option<T>> {
        self.fetch_optional(db).await?.map(|row| row.first()).transpose()
    }

    /// The first column of every row.
    pub(super) async fn scalars<T: for<'r> Readable<'r>>(
        self,
        db: &mut Db,
    ) -> sqlx::Result<Vec<T>> {
        self.fetch_all(db).await?.iter().map(Row::first).collect()
    }

    /// The statement beside the connection that it was begun for.
    fn fit(self, db: &mut Db) -> sqlx::Result<Fit<'_>> {
        if let Some(unfit) = self.unfit {
            return Err(sqlx::Error::Encode(unfit));
        }
        let text = match self.text {
            Cow::Borrowed(text) => text.into_sql_str(),
            // Made of `'static` parts and placeholders alone.
            Cow::Owned(text) => AssertSqlSafe(text).into_sql_str(),
        };
        match (self.arguments, db) {
            (Arguments::Sqlite(arguments), Db::Sqlite(transaction)) => {
                Ok(Fit::Sqlite(text, arguments, transaction))
            }
            (Arguments::Postgres(arguments), Db::Postgres(session)) => {
                Ok(Fit::Postgres(text, arguments, session))
            }
            _ => Err(sqlx::Error::InvalidArgument("written for the other database".to_owned())),
        }
    }
}

enum Fit<'d> {
    Sqlite(sqlx::SqlStr, SqliteArguments, &'d mut Transaction<'static, Sqlite>),
    Postgres(sqlx::SqlStr, PgArguments, &'d mut Session),
}

/// What can be read from a column of either.
pub(super) trait Readable<'r>:
    Decode<'r, Sqlite> + Type<Sqlite> + Decode<'r, Postgres> + Type<Postgres>
{
}

impl<'r, T> Readable<'r> for T where
    T: Decode<'r, Sqlite> + Type<Sqlite> + Decode<'r, Postgres> + Type<Postgres>
{
}

/// A row of either.
pub(super) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

impl Row {
    /// A column by name.
    pub(super) fn try_get<'r, T: Readable<'r>>(&'r self, column: &str) -> sqlx::Result<T> {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        }
    }

    fn first<T: for<'r> Readable<'r>>(&self) -> sqlx::Result<T> {
        match self {
            Self::Sqlite(row) => row.try_get(0),
            Self::Postgres(row) => row.try_get(0),
        }
    }
}
