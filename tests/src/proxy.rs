//! A proxy in front of an HTTP server that breaks what a test says: the network and the server at their worst.
//!
//! It speaks just enough HTTP to know where a request begins and ends, and whether it puts an object; all else passes byte
//! for byte. A fault that is set holds for every request from then on, also on connections that are open.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;

/// What goes wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Nobody listens.
    Refuse,
    /// Requests are taken and never answered.
    Hang,
    /// Bodies pass at so many bytes a second.
    Slow(usize),
    /// The server answers with this status and code itself.
    Answer(u16, &'static str),
    /// The connection is reset in the middle of an object's body.
    ResetInMidPut,
    /// An object's body is passed on, and the answer to it is not.
    SwallowAnswer,
    /// A byte of an object's body arrives changed.
    CorruptUpload,
    /// A byte of what is read arrives changed.
    CorruptDownload,
}

/// The proxy, on a port of its own.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    listening: Mutex<Option<JoinSet<()>>>,
}

#[derive(Debug)]
struct Shared {
    upstream: SocketAddr,
    fault: Mutex<(Fault, usize)>,
    requests: AtomicUsize,
    connections: AtomicUsize,
}

impl Shared {
    /// The fault that this request is to meet.
    fn meet(&self, puts_object: bool) -> Fault {
        let mut fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        let for_puts =
            matches!(fault.0, Fault::ResetInMidPut | Fault::SwallowAnswer | Fault::CorruptUpload);
        if fault.1 == 0 || for_puts && !puts_object {
            return Fault::None;
        }
        fault.1 = fault.1.saturating_sub(usize::from(fault.1 != usize::MAX));
        fault.0
    }
}

impl Proxy {
    /// In front of this server.
    pub async fn before(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let shared = Arc::new(Shared {
            upstream,
            fault: Mutex::new((Fault::None, usize::MAX)),
            requests: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
        });
        let address = listener.local_addr().expect("a listener has an address");
        let proxy = Self { address, shared, listening: Mutex::new(None) };
        proxy.listen(listener);
        proxy
    }

    fn listen(&self, listener: TcpListener) {
        let shared = self.shared.clone();
        let mut listening = JoinSet::new();
        listening.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                shared.connections.fetch_add(1, Ordering::Relaxed);
                connections.spawn(serve(stream, shared.clone()));
            }
        });
        *self.listening.lock().expect("no test panics here") = Some(listening);
    }

    /// Where it listens, as an endpoint.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on everything meets this fault.
    pub async fn set(&self, fault: Fault) {
        self.times(fault, usize::MAX).await;
    }

    /// So many requests meet this fault, and then none.
    pub async fn times(&self, fault: Fault, times: usize) {
        *self.shared.fault.lock().unwrap_or_else(PoisonError::into_inner) = (fault, times);
        let stopped = {
            let mut listening = self.listening.lock().expect("no test panics here");
            if fault == Fault::Refuse { listening.take() } else { None }
        };
        if let Some(mut listening) = stopped {
            // With it end all connections that are open.
            listening.shutdown().await;
        } else if fault != Fault::Refuse && self.is_down() {
            let socket = TcpSocket::new_v4().expect("a socket can be made");
            socket.set_reuseaddr(true).expect("an address can be used again");
            socket.bind(self.address).expect("nobody took the port meanwhile");
            self.listen(socket.listen(64).expect("a socket can listen"));
        }
    }

    fn is_down(&self) -> bool {
        self.listening.lock().expect("no test panics here").is_none()
    }

    /// How many requests it has seen, and how many connections.
    pub fn seen(&self) -> (usize, usize) {
        let shared = &self.shared;
        (shared.requests.load(Ordering::Relaxed), shared.connections.load(Ordering::Relaxed))
    }
}

/// A request's head, and how much of its body follows.
struct Head {
    bytes: Vec<u8>,
    /// What of the body came with it.
    body: Vec<u8>,
    length: usize,
    puts_object: bool,
    waits: bool,
}

async fn serve(client: TcpStream, shared: Arc<Shared>) {
    // Reset and not closed when it is dropped in the middle of something, as a network that breaks does.
    let _ = client.set_zero_linger();
    let _ = client.set_nodelay(true);
    let Ok(server) = TcpStream::connect(shared.upstream).await else { return };
    let _ = server.set_nodelay(true);
    let (mut from_client, to_client) = client.into_split();
    let (from_server, mut to_server) = server.into_split();
    let to_client = Arc::new(tokio::sync::Mutex::new(to_client));
    let (swallow, corrupt) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
    let back = answers(from_server, to_client.clone(), swallow.clone(), corrupt.clone());
    let requests = async {
        let mut rest = Vec::new();
        while let Some(head) = head(&mut from_client, &mut rest).await {
            shared.requests.fetch_add(1, Ordering::Relaxed);
            let fault = shared.meet(head.puts_object);
            corrupt.store(fault == Fault::CorruptDownload, Ordering::Release);
            swallow.store(fault == Fault::SwallowAnswer, Ordering::Release);
            let goes_on = match fault {
                Fault::Hang => std::future::pending().await,
                Fault::Answer(status, code) => {
                    answer(&mut from_client, &to_client, head, status, code).await
                }
                fault => pass(&mut from_client, &mut to_server, head, fault).await,
            };
            if goes_on.is_none() {
                return;
            }
        }
    };
    tokio::select! {
        () = requests => {}
        () = back => {}
    }
}

/// Reads the next request's head.
async fn head(from: &mut OwnedReadHalf, rest: &mut Vec<u8>) -> Option<Head> {
    let mut bytes = std::mem::take(rest);
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        if from.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let body = bytes.split_off(end);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let field = |name: &str| {
        text.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    };
    let length = field("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let path = text.split(' ').nth(1).unwrap_or_default();
    Some(Head {
        puts_object: text.starts_with("PUT ") && !path.contains("/probe/") && length > 0,
        waits: field("expect").is_some(),
        bytes,
        body,
        length,
    })
}

/// Passes one request on; `None` ends the connection.
async fn pass(
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    head: Head,
    fault: Fault,
) -> Option<()> {
    to.write_all(&head.bytes).await.ok()?;
    let (mut part, mut passed) = (head.body, 0);
    loop {
        if fault == Fault::CorruptUpload && passed == 0 && !part.is_empty() {
            let middle = part.len() / 2;
            part[middle] ^= 1;
        }
        if fault == Fault::ResetInMidPut && passed + part.len() >= head.length / 2 {
            to.write_all(&part[..(head.length / 2).saturating_sub(passed)]).await.ok()?;
            return None;
        }
        to.write_all(&part).await.ok()?;
        passed += part.len();
        if passed >= head.length {
            return Some(());
        }
        if let Fault::Slow(rate) = fault {
            tokio::time::sleep(Duration::from_secs_f64(part.len() as f64 / rate as f64)).await;
        }
        part.clear();
        part.reserve(64 << 10);
        if from.read_buf(&mut part).await.ok()? == 0 {
            return None;
        }
    }
}

/// Answers in the server's stead.
async fn answer(
    from: &mut OwnedReadHalf,
    to: &tokio::sync::Mutex<OwnedWriteHalf>,
    head: Head,
    status: u16,
    code: &str,
) -> Option<()> {
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code></Error>");
    let text = format!(
        "HTTP/1.1 {status} Trouble\r\ncontent-type: application/xml\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    // A HEAD is answered without a body.
    let body = if head.bytes.starts_with(b"HEAD ") { "" } else { &body };
    let mut rest = head.length - head.body.len();
    let mut thrown_away = vec![0; 64 << 10];
    while rest > 0 && !head.waits {
        let most = rest.min(thrown_away.len());
        let read = from.read(&mut thrown_away[..most]).await.ok()?;
        rest -= read;
        if read == 0 {
            return None;
        }
    }
    let mut to = to.lock().await;
    to.write_all(format!("{text}{body}").as_bytes()).await.ok()?;
    (!head.waits).then_some(())
}

/// Passes on what the server answers.
async fn answers(
    mut from: OwnedReadHalf,
    to: Arc<tokio::sync::Mutex<OwnedWriteHalf>>,
    swallow: Arc<AtomicBool>,
    corrupt: Arc<AtomicBool>,
) {
    let mut part = Vec::with_capacity(64 << 10);
    loop {
        part.clear();
        match from.read_buf(&mut part).await {
            Ok(0) | Err(_) => return,
            Ok(_) if swallow.load(Ordering::Acquire) && !part.starts_with(b"HTTP/1.1 100") => {
                return;
            }
            Ok(_) => {}
        }
        // Far behind any head.
        if corrupt.load(Ordering::Acquire) && part.len() > 16 << 10 {
            let last = part.len() - 100;
            part[last] ^= 1;
        }
        if to.lock().await.write_all(&part).await.is_err() {
            return;
        }
    }
}
