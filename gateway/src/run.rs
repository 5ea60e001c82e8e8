//! The node: its parts, built in the order that an instance meets them, and stopped in that order too.
//!
//! Stopping drains: listeners close first; an instance that is being received or sent is finished and answered; then what
//! has arrived becomes rows, what was delivered is recorded, and the index is closed. Whatever does not end within the
//! grace is left as a crash would leave it, which loses nothing.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gantry_store::delivered::Delivered;
use gantry_store::index::{Index, IndexError};
use gantry_store::object::{FileObjects, ObjectError, ObjectStore, S3Objects};
use gantry_store::sealed::{Keyring, KeyringError};
use gantry_store::spool::{Durability, Spool, SpoolError};
use jiff::Timestamp;
use rustls::ServerConfig;
use thiserror::Error;
use tokio::net::{TcpListener, UnixListener};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::alarm;
use crate::association::acceptor;
use crate::association::listener::{Bound, ListenerError};
use crate::association::services::storage_commitment::Commitments;
use crate::completeness::Counter;
use crate::config::{Acknowledge, Config, WebTls};
use crate::intake::drain::Wake;
use crate::intake::{Drain, Handoff, Intake, sweep};
use crate::outbox::{self, Bell, clock, team, worker};
use crate::partner::capabilities::Capabilities;
use crate::partner::library::Library;
use crate::partner::link::Encoder;
use crate::partner::proof::Prover;
use crate::partner::reporter::Reporter;
use crate::recall::Recaller;
use crate::reindex;
use crate::scrub::{self, Pace, Scrub};
use crate::telemetry::chain;
use crate::telemetry::metrics::Metrics;
use crate::tls::{self, TlsError};
use crate::web::{self, DicomwebState, Sessions, WebState};

/// Why a node does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The data directory cannot be used.
    #[error("cannot use {path}")]
    DataDir {
        /// Which file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There are no keys to seal with.
    #[error("cannot use the keyring")]
    Keyring(#[from] KeyringError),
    /// The spool does not open.
    #[error("cannot use the spool")]
    Spool(#[from] SpoolError),
    /// The object store does not open.
    #[error("cannot use the object store")]
    Objects(#[from] ObjectError),
    /// The index does not open.
    #[error("cannot use the index")]
    Index(#[from] IndexError),
    /// A DICOM listener does not start.
    #[error("cannot start a listener")]
    Listener(#[from] ListenerError),
    /// The web listener does not start.
    #[error("cannot serve pages on {address}")]
    Web {
        /// As configured.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The web listener's TLS identity cannot be used.
    #[error("cannot use TLS for the pages")]
    WebTls(#[source] Box<TlsError>),
    /// The TLS identity of DICOMweb's listener cannot be used.
    #[error("cannot use TLS for DICOMweb")]
    DicomwebTls(#[source] Box<TlsError>),
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    /// Each DICOM listener's name, and the address with the port that the kernel chose.
    pub listeners: Vec<(String, SocketAddr)>,
    /// Where the pages are; `None` without `[web]`.
    pub web: Option<String>,
    /// Where DICOMweb is, without its path; `None` without `[dicomweb]`.
    pub dicomweb: Option<String>,
    state: WebState,
    receiving: CancellationToken,
    draining: CancellationToken,
    serving: CancellationToken,
    associations: TaskTracker,
    sending: TaskTracker,
    recording: TaskTracker,
    pages: TaskTracker,
}

/// What `Keyring`, spool, objects and index are opened from; shared with commands that work without a node.
#[derive(Clone, Debug)]
pub struct Store {
    /// Sealed files that are not yet objects.
    pub spool: Arc<Spool>,
    /// Objects.
    pub objects: Arc<dyn ObjectStore>,
    /// Rows.
    pub index: Index,
    /// What partners have accepted, without the rows.
    pub delivered: Arc<Delivered>,
    /// This data directory's own name in leases.
    pub owner: String,
}

impl Store {
    /// Opens what a configuration names; only one process at a time can.
    pub async fn open(config: &Config) -> Result<Self, StartError> {
        let node = &config.node;
        make_private(&node.data_dir)?;
        let keyring = Arc::new(Keyring::open(&node.keys_dir())?);
        let intake = &config.intake;
        let spool = Spool::open(&node.spool_dir(), keyring, intake.reserve)?
            .limited(intake.high_water, intake.emergency_reserve);
        let spool = Arc::new(spool);
        let objects = objects(config)?;
        let index = match &config.database {
            crate::config::Database::Sqlite => Index::open(&node.index_path()).await?,
            crate::config::Database::Postgres(settings) => {
                Index::postgres(settings.as_ref().clone())
            }
        };
        let owner = owner(config)?;
        let index = index.remembering(&owner, node.index_mark_path());
        let delivered = node.delivered_dir();
        let delivered = Delivered::open(&delivered)
            .map_err(|source| StartError::DataDir { path: delivered, source })?;
        Ok(Self { spool, objects, index, delivered: Arc::new(delivered), owner })
    }
}

/// Opens the object store that a configuration names; nothing is sent to one on the network yet.
pub fn objects(config: &Config) -> Result<Arc<dyn ObjectStore>, ObjectError> {
    Ok(match &config.object_store {
        crate::config::ObjectStore::File => {
            Arc::new(FileObjects::open(&config.node.objects_dir())?)
        }
        crate::config::ObjectStore::S3(settings) => {
            Arc::new(S3Objects::open((**settings).clone())?)
        }
    })
}

fn make_private(folder: &std::path::Path) -> Result<(), StartError> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|source| StartError::DataDir { path: folder.to_owned(), source })
}

/// This data directory's own name in leases: made once, and kept, so that a restarted node knows its own.
fn owner(config: &Config) -> Result<String, StartError> {
    let path = config.node.data_dir.join("node-id");
    let failed = |source| StartError::DataDir { path: path.clone(), source };
    match fs::read_to_string(&path) {
        Ok(id) => Ok(id.trim().to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let id = gantry_store::facts::ObjectId::new().to_string();
            fs::write(&path, &id).map_err(failed)?;
            Ok(id)
        }
        Err(error) => Err(failed(error)),
    }
}

impl Node {
    /// Opens the store, repairs what a crash left behind, and starts to receive, send and show.
    pub async fn start(mut config: Config) -> Result<Self, StartError> {
        let pages_on = bind_web(&mut config).await?;
        let dicomweb_on = bind_dicomweb(&mut config).await?;
        let config = Arc::new(config);
        let store = Store::open(&config).await?;
        let Store { spool, objects, index, delivered, owner } = store.clone();
        sweep::sweep(&spool)?;
        let (receiving, draining, serving) =
            <(CancellationToken, CancellationToken, CancellationToken)>::default();
        let recording = TaskTracker::new();
        let recovered =
            Recovery { index: index.clone(), owner: owner.clone(), done: CancellationToken::new() };
        let recovered = recovered.begin(&recording, draining.clone()).await?;
        let metrics = Arc::new(Metrics::default());
        let bell = Arc::new(Bell::new(config.partners.iter().map(|partner| partner.name.as_str())));
        let wake: Arc<dyn Wake> = bell.clone();
        let (handoff, arrivals) = Handoff::new();
        let durability = match config.intake.acknowledge {
            Acknowledge::Durable => Durability::Durable,
            Acknowledge::Received => Durability::Received,
        };
        let intake = Intake::new(
            spool.clone(),
            durability,
            config.intake.max_instance_size,
            config.routes.clone().into(),
            handoff.clone(),
        );

        // All listeners are bound before anything runs: a port that is taken is an error of the start.
        let (bound, listeners) = bind_listeners(&config).await?;

        let counter = Counter {
            config: config.clone(),
            index: index.clone(),
            fetching: handoff.fetching().clone(),
            wake: wake.clone(),
            metrics: metrics.clone(),
        };
        let state = WebState {
            config: config.clone(),
            index: index.clone(),
            open_studies: handoff.open_studies().clone(),
            changes: bell.changes(),
            metrics: metrics.clone(),
            intake: intake.clone(),
            spool: spool.clone(),
            objects: objects.clone(),
            wake: wake.clone(),
            sessions: Arc::new(Sessions::default()),
            scrub: scrub::Handle::open(&config),
            counter: counter.clone(),
            alarms: alarm::Handle::open(&config),
            started: Timestamp::now(),
            stop: serving.clone(),
        };
        keep_in_order(store, &state, &draining, &recording);
        let pages = TaskTracker::new();
        serve_admin(&config, &state, &pages)?;
        if let Some((listener, tls)) = pages_on {
            pages.spawn(web::serve(
                listener,
                tls,
                web::public_router(state.clone()),
                serving.clone(),
            ));
        }
        let web = config.web.as_ref().and_then(|web| web.url.clone());

        let (outcomes, results) = outbox::recorder::queue();
        let recorder =
            outbox::recorder::run(index.clone(), delivered.clone(), results, wake.clone());
        recording.spawn(recorder);

        let sending = TaskTracker::new();
        let library = Arc::new(Library {
            config: config.clone(),
            spool: spool.clone(),
            objects: objects.clone(),
            converting: std::sync::Mutex::default(),
        });
        if let Some((listener, tls)) = dicomweb_on {
            let state = DicomwebState::new(&state, library.clone());
            let router = web::dicomweb_router(state);
            pages.spawn(web::serve(listener, tls, router, serving.clone()));
        }
        let dicomweb = config.dicomweb.as_ref().and_then(|dicomweb| dicomweb.url.clone());
        let shared = Arc::new(worker::Shared {
            config: config.clone(),
            index: index.clone(),
            library: library.clone(),
            outcomes,
            metrics: metrics.clone(),
            owner,
            encoder: Encoder::default(),
            capabilities: Arc::new(Capabilities::of(&config.node.data_dir)),
            stop: receiving.clone(),
        });
        send(&shared, &bell, &recovered, &sending);

        let commitments = Arc::new(Commitments {
            index: index.clone(),
            spool: spool.clone(),
            durability,
            wake: wake.clone(),
        });
        prove(&config, &commitments, &metrics, (&recovered, &receiving), &sending);
        count(counter, (&recovered, &receiving), &sending);
        make_findable(&index, (&recovered, &receiving), &sending);

        let drain = Drain {
            spool,
            index,
            objects,
            delivered,
            durability,
            routes: config.routes.clone().into(),
            protections: config.protections.clone(),
            handoff,
            wake,
        };
        recording.spawn(drain.run(arrivals, draining.clone()));

        note_recalls(&state, &recovered, &receiving, &sending);

        let associations = TaskTracker::new();
        let node = Arc::new(acceptor::Shared {
            config,
            intake,
            commitments,
            library,
            metrics,
            stop: receiving.clone(),
        });
        for bound in bound {
            associations.spawn(bound.run(node.clone(), associations.clone()));
        }
        for tracker in [&associations, &sending, &recording, &pages] {
            tracker.close();
        }
        Ok(Self {
            listeners,
            web,
            dicomweb,
            state,
            receiving,
            draining,
            serving,
            associations,
            sending,
            recording,
            pages,
        })
    }

    /// The node's rows.
    pub fn index(&self) -> &Index {
        &self.state.index
    }

    /// A link that signs one browser in, once; `None` without `[web]`.
    pub fn sign_in_link(&self) -> Option<String> {
        Some(format!("{}/sign-in/{}", self.web.as_ref()?, self.state.sessions.issue_link()))
    }

    /// Stops in order; `true` if everything ended within the grace.
    pub async fn stop(self, grace: Duration) -> bool {
        let ended = async {
            self.receiving.cancel();
            self.associations.wait().await;
            self.sending.wait().await;
            self.draining.cancel();
            self.recording.wait().await;
            self.serving.cancel();
            self.pages.wait().await;
        };
        let in_time = timeout(grace, ended).await.is_ok();
        self.serving.cancel();
        self.draining.cancel();
        self.state.index.close().await;
        // Its absence tells commands that the node is not running.
        let _ = fs::remove_file(self.state.config.node.admin_socket());
        in_time
    }
}

/// What comes before this node claims anything: the schema is up to date, and what it was sending when it ended is queued
/// again. A database that is away does not keep the node from receiving: then this is done when it is back.
struct Recovery {
    index: Index,
    owner: String,
    done: CancellationToken,
}

impl Recovery {
    /// How long to leave a database alone that was away.
    const PAUSE: Duration = Duration::from_secs(1);

    /// Tries at once; goes on in the background if the database is away. What is returned is cancelled when it is done.
    async fn begin(
        self,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Result<CancellationToken, StartError> {
        let done = self.done.clone();
        match self.recover().await {
            Ok(()) => {}
            Err(error) if error.is_outage() => {
                tracing::warn!(error = %chain(&error), "the database is away; instances are received and wait in the spool");
                tasks.spawn(async move {
                    tokio::select! {
                        () = self.keep_trying() => {}
                        () = stop.cancelled() => {}
                    }
                });
            }
            Err(error) => return Err(error.into()),
        }
        Ok(done)
    }

    async fn keep_trying(&self) {
        let mut said = String::new();
        loop {
            tokio::time::sleep(Self::PAUSE).await;
            match self.recover().await {
                Ok(()) => return tracing::info!("the database is there"),
                Err(error) => {
                    // One line for each reason, not one for each try.
                    let reason = chain(&error).to_string();
                    if reason != said {
                        tracing::error!(error = reason, "the database cannot be used yet");
                        said = reason;
                    }
                }
            }
        }
    }

    async fn recover(&self) -> Result<(), IndexError> {
        self.index.prepare().await?;
        let interrupted = self.index.recover(&self.owner).await?;
        if interrupted > 0 {
            tracing::info!(interrupted, "deliveries that were being sent are queued again");
        }
        if self.index.has_gone_back().await? {
            tracing::warn!(
                "the index is an older copy, or another one: it is made whole before anything is sent"
            );
        }
        self.done.cancel();
        Ok(())
    }
}

/// Binds every listener, and says what each is called and where it is.
async fn bind_listeners(
    config: &Config,
) -> Result<(Vec<Bound>, Vec<(String, SocketAddr)>), StartError> {
    let (mut all, mut listeners) = (Vec::new(), Vec::new());
    for listener in &config.listeners {
        let bound = Bound::bind(config, listener).await?;
        listeners.push((listener.name.clone(), bound.address));
        all.push(bound);
    }
    Ok((all, listeners))
}

/// Begins what looks after all that is kept: the index is made whole, what may go goes, everything is read again, and what
/// is stuck is said aloud.
fn keep_in_order(store: Store, state: &WebState, stop: &CancellationToken, tasks: &TaskTracker) {
    tasks.spawn(state.scrub.clone().run(scrub_of(&store, state, stop.clone())));
    state.alarms.start(watch_of(state), stop, tasks);
    let (keeper, stopped) = (state.keeper(), stop.clone());
    tasks.spawn(async move { stopped.run_until_cancelled(Box::pin(keeper.run())).await });
    let keep_whole =
        Box::pin(reindex::keep_whole(store, state.config.routes.clone(), state.wake.clone()));
    let stopped = stop.clone();
    tasks.spawn(async move { stopped.run_until_cancelled(keep_whole).await });
}

/// Begins to send: a team for each partner, with a worker an association and one more for emergencies. They claim nothing
/// before the index can be used.
fn send(
    shared: &Arc<worker::Shared>,
    bell: &Arc<Bell>,
    recovered: &CancellationToken,
    tasks: &TaskTracker,
) {
    let clock = clock::watch(shared.config.clone(), shared.index.clone(), bell.clone());
    let (ready, stop) = (recovered.clone(), shared.stop.clone());
    tasks.spawn(async move {
        tokio::select! {
            () = async { ready.cancelled().await; clock.await } => {}
            () = stop.cancelled() => {}
        }
    });
    for partner in &shared.config.partners {
        let team = team::Team::new(partner.clone(), bell.of(&partner.name));
        let others = (0..partner.associations.most()).map(worker::Post::Beyond);
        for post in others.chain([worker::Post::Emergencies]) {
            let worker = worker::Worker::new(shared.clone(), team.clone(), post);
            let (recovered, stop) = (recovered.clone(), shared.stop.clone());
            tasks.spawn(async move {
                tokio::select! {
                    () = recovered.cancelled() => worker.run().await,
                    () = stop.cancelled() => {}
                }
            });
        }
    }
}

/// What alarms are judged by.
fn watch_of(state: &WebState) -> alarm::Watch {
    alarm::Watch {
        config: state.config.clone(),
        index: state.index.clone(),
        metrics: state.metrics.clone(),
        backlog: state.intake.handoff().backlog().clone(),
        keeper: state.keeper(),
        scrub: state.scrub.clone(),
        wake: state.wake.clone(),
    }
}

/// What reads again all that is kept.
fn scrub_of(store: &Store, state: &WebState, stop: CancellationToken) -> Scrub {
    Scrub {
        store: store.clone(),
        routes: state.config.routes.clone(),
        wake: state.wake.clone(),
        pace: Arc::new(Pace::new(Some(state.config.scrub.rate))),
        settling: state.scrub.settling(),
        progress: state.scrub.progress(),
        metrics: state.metrics.clone(),
        stop,
    }
}

/// Asks partners for proof, and gives it to senders, once the index can be used.
fn prove(
    config: &Arc<Config>,
    commitments: &Arc<Commitments>,
    metrics: &Arc<Metrics>,
    (recovered, stop): (&CancellationToken, &CancellationToken),
    tasks: &TaskTracker,
) {
    let (config, commitments) = (config.clone(), commitments.clone());
    let prover =
        Prover { config: config.clone(), commitments: commitments.clone(), stop: stop.clone() };
    let reporter = Reporter { config, commitments, metrics: metrics.clone(), stop: stop.clone() };
    let (recovered, stop) = (recovered.clone(), stop.clone());
    tasks.spawn(async move {
        tokio::select! {
            () = recovered.cancelled() => drop(tokio::join!(prover.run(), reporter.run())),
            () = stop.cancelled() => {}
        }
    });
}

/// Counts what came against its source, once the index can be used.
fn count(
    counter: Counter,
    (recovered, stop): (&CancellationToken, &CancellationToken),
    tasks: &TaskTracker,
) {
    let (recovered, stop) = (recovered.clone(), stop.clone());
    tasks.spawn(async move {
        tokio::select! {
            () = recovered.cancelled() => counter.run(stop).await,
            () = stop.cancelled() => {}
        }
    });
}

/// Folds the names of rows of before searches knew that, once the index can be used: else the first search would wait for it.
fn make_findable(
    index: &Index,
    (recovered, stop): (&CancellationToken, &CancellationToken),
    tasks: &TaskTracker,
) {
    let (index, recovered, stop) = (index.clone(), recovered.clone(), stop.clone());
    let fold = async move {
        recovered.cancelled().await;
        match index.make_findable().await {
            Ok(0) => {}
            Ok(rows) => tracing::info!(rows, "names were made findable without case and accents"),
            // The first search tries again.
            Err(error) => tracing::warn!(error = %chain(&error), "names cannot be folded now"),
        }
    };
    tasks.spawn(async move { stop.run_until_cancelled(Box::pin(fold)).await });
}

/// Makes the notes of recalls, once the index can be used. Ends with what sends: what was taken in is recorded after that.
fn note_recalls(
    state: &WebState,
    recovered: &CancellationToken,
    stop: &CancellationToken,
    tasks: &TaskTracker,
) {
    let recaller = Recaller {
        config: state.config.clone(),
        index: state.index.clone(),
        intake: state.intake.clone(),
    };
    let (recovered, stop) = (recovered.clone(), stop.clone());
    tasks.spawn(async move {
        tokio::select! {
            () = recovered.cancelled() => recaller.run(stop).await,
            () = stop.cancelled() => {}
        }
    });
}

/// Binds the web listener, and writes what it is called into the configuration: the port may be the kernel's choice.
async fn bind_web(
    config: &mut Config,
) -> Result<Option<(TcpListener, Option<Arc<ServerConfig>>)>, StartError> {
    let Some(settings) = &mut config.web else { return Ok(None) };
    let address = settings.address;
    let bind = |source| StartError::Web { address, source };
    let listener = TcpListener::bind(address).await.map_err(bind)?;
    settings.address = listener.local_addr().map_err(bind)?;
    let (scheme, tls) = match &settings.tls {
        WebTls::Off => ("http", None),
        WebTls::ServerOnly(identity) => (
            "https",
            Some(tls::https_config(identity).map_err(|error| StartError::WebTls(Box::new(error)))?),
        ),
    };
    let host = host_of(settings.address);
    settings.url.get_or_insert_with(|| format!("{scheme}://{host}"));
    Ok(Some((listener, tls)))
}

/// The same for DICOMweb.
async fn bind_dicomweb(
    config: &mut Config,
) -> Result<Option<(TcpListener, Option<Arc<ServerConfig>>)>, StartError> {
    let Some(settings) = &mut config.dicomweb else { return Ok(None) };
    let address = settings.address;
    let bind = |source| StartError::Web { address, source };
    let listener = TcpListener::bind(address).await.map_err(bind)?;
    settings.address = listener.local_addr().map_err(bind)?;
    let (scheme, tls) = match config.tls.as_ref().filter(|_| settings.encrypted) {
        None => ("http", None),
        Some(tls) => {
            let failed = |error| StartError::DicomwebTls(Box::new(error));
            ("https", Some(tls::dicomweb_config(tls).map_err(failed)?))
        }
    };
    let host = host_of(settings.address);
    settings.url.get_or_insert_with(|| format!("{scheme}://{host}"));
    Ok(Some((listener, tls)))
}

/// What to call a listener. Every address is no address to go to; whoever reads this is on this machine.
fn host_of(address: SocketAddr) -> String {
    match address.ip() {
        ip if ip.is_unspecified() => format!("localhost:{}", address.port()),
        _ => address.to_string(),
    }
}

/// Starts the administration socket.
fn serve_admin(config: &Config, state: &WebState, tasks: &TaskTracker) -> Result<(), StartError> {
    let socket = config.node.admin_socket();
    let failed = |source| StartError::DataDir { path: socket.clone(), source };
    // The spool's lock is held, so whoever left a socket here is gone.
    match fs::remove_file(&socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&socket).map_err(failed)?;
    fs::set_permissions(&socket, std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .map_err(failed)?;
    tasks.spawn(web::serve_admin(listener, web::admin_router(state.clone()), state.stop.clone()));
    Ok(())
}
