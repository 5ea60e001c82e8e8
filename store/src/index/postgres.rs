//! PostgreSQL: where it is, how it is reached, and how long it may take.
//!
//! A server that hangs must never hang the node, so everything has an end: a connection is made or had within
//! [`Patience::connect`], the server gives up a statement after [`Patience::statement`], and whatever was asked is given
//! up here after [`Patience::operation`], as a server behind a dead line never answers. The connection is closed then,
//! with all idle ones, which are as dead; so the first call after the server is back finds it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::Connection as _;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions, PgSslMode};
use sqlx::{ConnectOptions as _, Executor as _};
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use super::{IndexError, schema};

/// Where the database is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PostgresHost {
    /// A name or an address, and a port.
    Tcp(String, u16),
    /// The folder that holds its socket, and the port in the socket's name.
    Socket(PathBuf, u16),
}

/// How the connection is protected.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum PostgresTls {
    /// Not at all.
    #[default]
    Off,
    /// The server must show a certificate for its name, from a trusted authority.
    Verify {
        /// An authority to trust beside the system's, in PEM.
        authority: Option<PathBuf>,
        /// The certificate and the key to show, in PEM.
        identity: Option<(PathBuf, PathBuf)>,
    },
}

/// How long the database may take.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Patience {
    /// For a connection: a new one, or one that others hold.
    pub connect: Duration,
    /// For one statement; then the server gives it up.
    pub statement: Duration,
    /// For all of what was asked; then it is given up here.
    pub operation: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            statement: Duration::from_secs(10),
            operation: Duration::from_secs(15),
        }
    }
}

/// A database on a PostgreSQL server. The schema is the first of the role's `search_path`.
#[derive(Clone, Eq, PartialEq)]
pub struct PostgresSettings {
    /// Where.
    pub host: PostgresHost,
    /// The role.
    pub user: String,
    /// The database.
    pub database: String,
    /// The role's password, if it needs one.
    pub password: Option<Zeroizing<String>>,
    /// TLS.
    pub tls: PostgresTls,
    /// How many connections at most; a quarter of them is for readers.
    pub connections: u32,
    /// How long it may take.
    pub patience: Patience,
}

impl fmt::Debug for PostgresSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgresSettings({self})")
    }
}

/// As it is named in messages: never with the password.
impl fmt::Display for PostgresSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user, database, .. } = self;
        match &self.host {
            PostgresHost::Tcp(host, port) if host.contains(':') => {
                write!(f, "postgres://{user}@[{host}]:{port}/{database}")
            }
            PostgresHost::Tcp(host, port) => {
                write!(f, "postgres://{user}@{host}:{port}/{database}")
            }
            PostgresHost::Socket(folder, port) => {
                write!(f, "postgres://{user}@:{port}/{database}?host={}", folder.display())
            }
        }
    }
}

impl PostgresSettings {
    fn options(&self) -> PgConnectOptions {
        let options = PgConnectOptions::new_without_pgpass()
            .username(&self.user)
            .database(&self.database)
            .application_name("gantry")
            // What a statement is about is said by whoever asked.
            .disable_statement_logging();
        let options = match &self.host {
            PostgresHost::Tcp(host, port) => options.host(host).port(*port),
            PostgresHost::Socket(folder, port) => options.socket(folder).port(*port),
        };
        let options = match &self.password {
            Some(password) => options.password(password),
            None => options,
        };
        match &self.tls {
            PostgresTls::Off => options.ssl_mode(PgSslMode::Disable),
            PostgresTls::Verify { authority, identity } => {
                let mut options = options.ssl_mode(PgSslMode::VerifyFull);
                if let Some(authority) = authority {
                    options = options.ssl_root_cert(authority);
                }
                if let Some((certificate, key)) = identity {
                    options = options.ssl_client_cert(certificate).ssl_client_key(key);
                }
                options
            }
        }
    }

    /// What the server does by itself for sessions of which it hears nothing, so that a node that is gone holds no locks.
    fn session(&self) -> PgConnectOptions {
        let ms = |time: Duration| time.as_millis().to_string();
        self.options().options([
            ("statement_timeout", ms(self.patience.statement)),
            ("idle_in_transaction_session_timeout", ms(self.patience.operation * 2)),
            ("client_connection_check_interval", "5000".to_owned()),
            ("tcp_keepalives_idle", "30".to_owned()),
            ("tcp_keepalives_interval", "10".to_owned()),
            ("tcp_keepalives_count", "3".to_owned()),
        ])
    }

    /// Asks the server what it is, without changing anything.
    pub async fn probe(&self) -> Result<Probe, IndexError> {
        let begun = std::time::Instant::now();
        let asked = async {
            let mut db = self.options().connect().await?;
            let connected = begun.elapsed();
            let version: String = sqlx::query_scalar("SELECT current_setting('server_version')")
                .fetch_one(&mut db)
                .await?;
            let begun = std::time::Instant::now();
            let exists = "SELECT to_regclass('_sqlx_migrations') IS NOT NULL";
            let schema = if sqlx::query_scalar(exists).fetch_one(&mut db).await? {
                let latest = "SELECT MAX(version) FROM _sqlx_migrations";
                sqlx::query_scalar(latest).fetch_one(&mut db).await?
            } else {
                None
            };
            let answered = begun.elapsed();
            let _ = db.close().await;
            Ok(Probe { version, connected, answered, schema, known: schema::latest_postgres() })
        };
        match tokio::time::timeout(self.patience.connect, asked).await {
            Ok(done) => {
                done.map_err(|source| IndexError::Connect { server: self.to_string(), source })
            }
            Err(_) => Err(IndexError::Connect {
                server: self.to_string(),
                source: sqlx::Error::PoolTimedOut,
            }),
        }
    }
}

/// What a server said.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Probe {
    /// Its version.
    pub version: String,
    /// How long it took to connect.
    pub connected: Duration,
    /// How long it took to answer two questions.
    pub answered: Duration,
    /// The latest step of the schema that is there; `None` in an empty database.
    pub schema: Option<i64>,
    /// The latest step that this program knows.
    pub known: i64,
}

/// The connections to one database.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) settings: PostgresSettings,
    pub(super) writers: PgPool,
    pub(super) readers: PgPool,
    /// Whether the schema was seen to be up to date since the server last went away. Until then every call sees to it, so a
    /// node may start before its database, and the database may come back as an empty one.
    ready: AtomicBool,
    preparing: Mutex<()>,
}

impl Server {
    /// Connects to nothing yet.
    pub(super) fn new(settings: PostgresSettings) -> Arc<Self> {
        let readers = (settings.connections / 4).max(1);
        let writers = settings.connections.saturating_sub(readers).max(1);
        let pool = |most| {
            PgPoolOptions::new()
                .max_connections(most)
                .acquire_timeout(settings.patience.connect)
                // The first statement of a transaction tells as much, and is not in the way of the rest.
                .test_before_acquire(false)
                .idle_timeout(Duration::from_mins(2))
                .max_lifetime(Duration::from_mins(30))
                .connect_lazy_with(settings.session())
        };
        let (writers, readers) = (pool(writers), pool(readers));
        let (ready, preparing) = (AtomicBool::new(false), Mutex::new(()));
        Arc::new(Self { settings, writers, readers, ready, preparing })
    }

    /// Brings the schema up to date, if that was not done yet.
    pub(super) async fn prepare(&self) -> Result<(), IndexError> {
        if self.ready.load(Ordering::Acquire) {
            return Ok(());
        }
        let _one = self.preparing.lock().await;
        if !self.ready.load(Ordering::Acquire) {
            self.migrate().await?;
            self.ready.store(true, Ordering::Release);
        }
        Ok(())
    }

    async fn migrate(&self) -> Result<(), IndexError> {
        let server = || self.settings.to_string();
        let connect = |source| IndexError::Connect { server: server(), source };
        // Without the limit on statements: a step of the schema over many rows takes long.
        let options = self.settings.options();
        let connecting = options.connect();
        let mut db: PgConnection =
            match tokio::time::timeout(self.settings.patience.connect, connecting).await {
                Ok(connected) => connected.map_err(connect)?,
                Err(_) => return Err(connect(sqlx::Error::PoolTimedOut)),
            };
        // A notice that a table exists already is no news.
        db.execute("SET client_min_messages = warning").await.map_err(connect)?;
        schema::migrate_postgres(&mut db, &server()).await?;
        let _ = db.close().await;
        Ok(())
    }

    /// Throws away what is idle: it is taken for as dead as the connection that just was. What answers next may not be what
    /// answered before.
    pub(super) fn forget_idle(&self) {
        self.ready.store(false, Ordering::Release);
        for pool in [&self.writers, &self.readers] {
            while let Some(idle) = pool.try_acquire() {
                drop(idle.detach());
            }
        }
    }
}

/// Whether another try of the same transaction may succeed at once: it lost against one of another node.
pub(super) fn lost_a_race(error: &sqlx::Error) -> bool {
    // Serialization failure, deadlock, lock not available, unique violation.
    let races = ["40001", "40P01", "55P03", "23505"];
    error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code)
        .is_some_and(|code| races.contains(&code.as_ref()))
}

/// Whether the connection, and not what was asked, is at fault.
pub(super) fn is_outage(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::WorkerCrashed => true,
        // Connection exceptions, no resources, an operator who stops the server, its start.
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            ["08", "53", "57P", "58"].iter().any(|class| code.starts_with(class))
        }),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
