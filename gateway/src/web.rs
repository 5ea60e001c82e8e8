//! Web: pages for people and a JSON API for programs, over the index and never behind its back.
//!
//! Guarantees that nothing about a patient is shown to anyone who is not signed in, wherever the request comes from:
//! the guard in front of every route lets a stranger reach a short list of paths and nothing else, so a route that is
//! added later is closed until it is put on that list. Whoever can open the administrator's socket (mode 0600, in the
//! data directory) is the administrator. Every page works without JavaScript; with it, pages follow events.
//!
//! Knows nothing of associations or of how partners are reached: it asks the index, and wakes who must act.

mod admin;
mod api;
mod assets;
mod dicomweb;
mod guard;
mod health;
mod incoming;
mod live;
mod pages;
mod parcel;
pub mod part10;
mod problem;
mod remedy;
mod server;
pub mod session;
mod stream;
#[cfg(test)]
mod tests;
mod words;

use std::fmt;
use std::sync::Arc;

use axum::Router;
use gantry_store::index::Index;
use gantry_store::object::ObjectStore;
use gantry_store::spool::Spool;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::alarm;
use crate::completeness::Counter;
use crate::config::{Config, WebTls};
use crate::intake::drain::Wake;
use crate::intake::{Intake, OpenStudies};
use crate::retention::{Keeper, Mark};
use crate::scrub;
use crate::telemetry::metrics::Metrics;

pub use dicomweb::{DicomwebState, router as dicomweb_router};
pub use server::{serve, serve_admin};
pub use session::Sessions;

/// What pages and API look at, and whom they wake.
#[derive(Clone)]
pub struct WebState {
    /// The node's configuration.
    pub config: Arc<Config>,
    /// Where everything is looked up.
    pub index: Index,
    /// Which studies are being received.
    pub open_studies: OpenStudies,
    /// Bumped whenever rows that people watch have changed.
    pub changes: watch::Receiver<u64>,
    /// What the node counts.
    pub metrics: Arc<Metrics>,
    /// The way in for files that the command line brings.
    pub intake: Arc<Intake>,
    /// For its room, and to read what is not stored yet.
    pub spool: Arc<Spool>,
    /// For its health, and to read what is stored.
    pub objects: Arc<dyn ObjectStore>,
    /// Who is told that something was asked for.
    pub wake: Arc<dyn Wake>,
    /// Who is signed in.
    pub sessions: Arc<Sessions>,
    /// Who reads again all that is kept.
    pub scrub: scrub::Handle,
    /// Who counts studies against their sources.
    pub counter: Counter,
    /// What is stuck, and who was told.
    pub alarms: alarm::Handle,
    /// When the node started.
    pub started: Timestamp,
    /// Ends event streams.
    pub stop: CancellationToken,
}

impl fmt::Debug for WebState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebState").field("sessions", &self.sessions).finish_non_exhaustive()
    }
}

impl WebState {
    /// Who lets images go.
    pub fn keeper(&self) -> Keeper {
        Keeper {
            rules: self.config.retention.clone().into(),
            index: self.index.clone(),
            spool: self.spool.clone(),
            objects: self.objects.clone(),
            open: self.open_studies.clone(),
            mark: Mark::of(&self.config, &self.index),
        }
    }

    /// Whether browsers reach this node by https, its own or a proxy's.
    fn is_https(&self) -> bool {
        self.config.web.as_ref().is_some_and(|web| {
            matches!(web.tls, WebTls::ServerOnly(_))
                || web.url.as_ref().is_some_and(|url| url.starts_with("https://"))
        })
    }

    /// What links begin with, without a slash at the end. `None` without a web listener, or if nobody knows its port.
    fn base_url(&self) -> Option<String> {
        let web = self.config.web.as_ref()?;
        if let Some(url) = &web.url {
            return Some(url.trim_end_matches('/').to_owned());
        }
        let scheme = if self.is_https() { "https" } else { "http" };
        match (web.address.ip(), web.address.port()) {
            (_, 0) => None,
            (ip, port) if ip.is_unspecified() => Some(format!("{scheme}://localhost:{port}")),
            _ => Some(format!("{scheme}://{}", web.address)),
        }
    }
}

/// State and what is remembered between requests, behind one pointer for all handlers.
type App = Arc<Shared>;

struct Shared {
    web: WebState,
    health: health::Remembered,
    batches: admin::Batches,
}

impl Shared {
    fn new(web: WebState) -> App {
        Arc::new(Self {
            web,
            health: health::Remembered::default(),
            batches: admin::Batches::default(),
        })
    }
}

/// What the web's listener serves.
pub fn public_router(state: WebState) -> Router {
    let app = Shared::new(state);
    let router = Router::new()
        .merge(pages::routes())
        .merge(api::routes())
        .merge(health::routes())
        .merge(assets::routes())
        .fallback(pages::not_found);
    guard::for_strangers(router, &app).with_state(app)
}

/// What the socket in the data directory serves: the API, and what only an administrator may do.
pub fn admin_router(state: WebState) -> Router {
    let app = Shared::new(state);
    let router = Router::new()
        .merge(api::routes())
        .merge(admin::routes())
        .merge(health::routes())
        .fallback(api::not_found);
    guard::for_the_administrator(router).with_state(app)
}
