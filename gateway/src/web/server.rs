//! Connections of the web: accepted without waiting for anyone, bounded in number and in time.
//!
//! `axum::serve` sets no limit on how long a client may take to say what it wants; hyper does, so the loop is ours: a
//! TLS handshake happens in the connection's own task and within a time limit, and so does each request's head. When the
//! node stops, event streams end by themselves (`live`), what is being answered is answered, and what is still open
//! after [`GRACE`] is cut.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Fingerprint;
use crate::tls;

/// Connections at once. Further ones wait in the kernel's queue until one of these ends.
const MOST_CONNECTIONS: usize = 512;
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a client may take to send a request's head; also how long a connection stays open without one.
const HEAD: Duration = Duration::from_secs(75);
/// Bytes of a request's head, and of what is read ahead.
const BUFFER: usize = 64 << 10;
/// How long what is being answered has to end when the node stops.
const GRACE: Duration = Duration::from_secs(5);
/// How long to leave a listener alone that cannot accept: most often no file descriptor is left.
const PAUSE: Duration = Duration::from_millis(200);

/// The certificate that a client showed in its TLS handshake; an extension of each request over TLS.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shown(pub(super) Option<Fingerprint>);

/// Serves a listener until stopped; with `tls`, https and nothing else.
pub async fn serve(
    listener: TcpListener,
    encrypted: Option<Arc<ServerConfig>>,
    router: Router,
    stop: CancellationToken,
) {
    let encrypted = encrypted.map(TlsAcceptor::from);
    run(listener, &stop, |stream, stop| {
        let (encrypted, router) = (encrypted.clone(), router.clone());
        async move {
            match encrypted {
                None => converse(stream, router, stop).await,
                Some(acceptor) => match timeout(HANDSHAKE, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => {
                        let shown = stream.get_ref().1.peer_certificates();
                        let shown = shown.and_then(|chain| chain.first()).map(tls::fingerprint);
                        converse(stream, router.layer(Extension(Shown(shown))), stop).await;
                    }
                    Ok(Err(error)) => {
                        tracing::debug!(%error, "web client failed the TLS handshake");
                    }
                    Err(_) => tracing::debug!("web client did not finish the TLS handshake"),
                },
            }
        }
    })
    .await;
}

/// Serves the administrator's socket until stopped.
pub async fn serve_admin(listener: UnixListener, router: Router, stop: CancellationToken) {
    run(listener, &stop, |stream, stop| converse(stream, router.clone(), stop)).await;
}

/// What connections come from.
trait Accept {
    type Stream;
    fn accept(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Accept for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<TcpStream> {
        let (stream, _) = Self::accept(self).await?;
        // Events are small writes that people wait for.
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

impl Accept for UnixListener {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<UnixStream> {
        Self::accept(self).await.map(|(stream, _)| stream)
    }
}

async fn run<L, F>(
    listener: L,
    stop: &CancellationToken,
    serve: impl Fn(L::Stream, CancellationToken) -> F,
) where
    L: Accept,
    F: Future<Output = ()> + Send + 'static,
{
    let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let connections = TaskTracker::new();
    loop {
        let next = async {
            let permit = room.clone().acquire_owned().await;
            (listener.accept().await, permit)
        };
        let (accepted, permit) = tokio::select! {
            () = stop.cancelled() => break,
            next = next => next,
        };
        match accepted {
            Ok(stream) => {
                let conversation = serve(stream, stop.clone());
                connections.spawn(async move {
                    conversation.await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "web cannot accept a connection");
                sleep(PAUSE).await;
            }
        }
    }
    connections.close();
    connections.wait().await;
}

async fn converse<S>(stream: S, router: Router, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => {
            if let Err(error) = ended {
                tracing::debug!(%error, "web client went away");
            }
        }
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            if timeout(GRACE, connection).await.is_err() {
                tracing::debug!("web connection was cut, as the node stops");
            }
        }
    }
}
