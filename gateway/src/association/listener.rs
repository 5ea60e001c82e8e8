//! Listeners: who may connect at all, how many at once, and TLS before the first byte of DICOM.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use super::acceptor::{self, Arrival, Shared};
use super::wire::Tcp;
use crate::config::{Config, Listener, ListenerTls};
use crate::telemetry::chain;
use crate::telemetry::metrics::ByListener;
use crate::tls::{self, TlsError};

/// Connections beyond a listener's limit that are told so at once, rather than kept waiting.
const TURNED_AWAY_AT_ONCE: usize = 32;

/// Why a listener cannot start.
#[derive(Debug, Error)]
pub enum ListenerError {
    /// The address is taken, or not ours.
    #[error("cannot listen on {address}")]
    Bind {
        /// As configured.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Its TLS identity cannot be used.
    #[error("cannot use TLS on {address}")]
    Tls {
        /// As configured.
        address: SocketAddr,
        /// Why.
        source: Box<TlsError>,
    },
    /// There is no TLS identity.
    #[error("listener {address} needs TLS, and there is no [tls] section")]
    NoIdentity {
        /// As configured.
        address: SocketAddr,
    },
}

/// A listener that is bound and not yet accepting.
pub struct Bound {
    listener: TcpListener,
    /// Where it listens, with the port that the kernel chose.
    pub address: SocketAddr,
    settings: Listener,
    tls: Option<TlsAcceptor>,
}

impl std::fmt::Debug for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bound").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Bound {
    /// Binds a configured listener.
    pub async fn bind(config: &Config, settings: &Listener) -> Result<Self, ListenerError> {
        let address = settings.address;
        let tls = match settings.tls {
            ListenerTls::Off => None,
            ListenerTls::Mutual => {
                let tls = config.tls.as_ref().ok_or(ListenerError::NoIdentity { address })?;
                let server = tls::server_config(tls)
                    .map_err(|source| ListenerError::Tls { address, source: Box::new(source) })?;
                Some(TlsAcceptor::from(server))
            }
        };
        let bind = |source| ListenerError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        Ok(Self { listener, address, settings: settings.clone(), tls })
    }

    /// Accepts connections until the node stops. Each is served by a task of its own, counted by `tasks`.
    pub async fn run(self, node: Arc<Shared>, tasks: TaskTracker) {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        let seats = Arc::new(Semaphore::new(self.settings.max_associations));
        let refusals = Arc::new(Semaphore::new(TURNED_AWAY_AT_ONCE));
        let label = ByListener { listener: self.settings.name.clone() };
        loop {
            let accepted = tokio::select! {
                () = node.stop.cancelled() => return,
                accepted = self.listener.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most likely: others must end first.
                    tracing::error!(listener = self.settings.name, error = %error, "connection cannot be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            if !self.allows(peer) {
                tracing::warn!(listener = self.settings.name, %peer, "connection from outside the networks that may connect; closed");
                node.metrics.rejected.get_or_create(&label).inc();
                continue;
            }
            let (seat, over_limit) = match seats.clone().try_acquire_owned() {
                Ok(seat) => (seat, None),
                Err(_) => match refusals.clone().try_acquire_owned() {
                    Ok(seat) => (seat, Some(self.settings.max_associations)),
                    Err(_) => continue,
                },
            };
            let arrival = Arrival {
                number: NUMBER.fetch_add(1, Ordering::Relaxed),
                listener: self.settings.name.clone(),
                peer,
                certificate: None,
                over_limit,
            };
            let (node, tls, label) = (node.clone(), self.tls.clone(), label.clone());
            tasks.spawn(async move {
                node.metrics.associations.get_or_create(&label).inc();
                let metrics = node.metrics.clone();
                // The count must come down whatever ends the task.
                let _leave = OnDrop(move || {
                    metrics.associations.get_or_create(&label).dec();
                });
                connection(stream, tls, arrival, node).await;
                drop(seat);
            });
        }
    }

    fn allows(&self, peer: SocketAddr) -> bool {
        let networks = &self.settings.allow;
        networks.is_empty()
            || networks.iter().any(|network| network.contains(&peer.ip().to_canonical()))
    }
}

struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

async fn connection(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    mut arrival: Arrival,
    node: Arc<Shared>,
) {
    let (number, peer) = (arrival.number, arrival.peer);
    let stream = match Tcp::new(stream) {
        Ok(stream) => stream,
        Err(error) => {
            tracing::debug!(association = number, %peer, %error, "connection lost at once");
            return;
        }
    };
    let Some(tls) = tls else { return acceptor::serve(stream, arrival, node).await };
    let stream = match timeout(node.config.limits.handshake_timeout, tls.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::warn!(association = number, %peer, error = %chain(&error), meaning = %tls::explain(&error), "TLS handshake failed");
            node.metrics.rejected.get_or_create(&ByListener { listener: arrival.listener }).inc();
            return;
        }
        Err(_) => {
            tracing::warn!(association = number, %peer, "TLS handshake not finished in time");
            node.metrics.rejected.get_or_create(&ByListener { listener: arrival.listener }).inc();
            return;
        }
    };
    arrival.certificate = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|chain| chain.first())
        .map(|end_entity| tls::fingerprint(end_entity));
    acceptor::serve(stream, arrival, node).await;
}
