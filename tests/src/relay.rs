//! A relay for TCP with the faults of a long or bad line: delay, a rate, cuts in the middle, silence. It knows nothing of what
//! passes.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// What is read at once, and so the length of a packet.
const PACKET: usize = 16 << 10;
/// What of one connection is on the line or waits for it: more than 100 Mbit/s hold in 60 ms.
const ON_THE_LINE: usize = 1 << 20;
/// No limit.
const NEVER: u64 = u64::MAX;

/// The relay, on a port of its own; gone with all connections when dropped.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
    _listening: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    upstream: SocketAddr,
    /// From one end to the other.
    delay: Duration,
    /// Bytes a second that each direction carries, of all connections together.
    rate: Option<f64>,
    /// When each direction is free.
    free: [Mutex<Instant>; 2],
    /// After how many bytes towards the other end a connection is cut.
    cut_after: AtomicU64,
    /// Whether the other end's answers are dropped when that happens, and before.
    swallow: AtomicBool,
    connections: AtomicUsize,
    /// How much went to the other end.
    carried: AtomicU64,
}

impl Relay {
    /// One that passes everything on at once.
    pub async fn before(upstream: SocketAddr) -> Self {
        Self::like(upstream, Duration::ZERO, None).await
    }

    /// One like a line with this time there and back, and so many bytes a second each way.
    pub async fn like(upstream: SocketAddr, there_and_back: Duration, rate: Option<f64>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let shared = Arc::new(Shared {
            upstream,
            delay: there_and_back / 2,
            rate,
            free: [Mutex::new(Instant::now()), Mutex::new(Instant::now())],
            cut_after: AtomicU64::new(NEVER),
            swallow: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            carried: AtomicU64::new(0),
        });
        let mut listening = JoinSet::new();
        listening.spawn({
            let shared = shared.clone();
            async move {
                let mut connections = JoinSet::new();
                while let Ok((stream, _)) = listener.accept().await {
                    shared.connections.fetch_add(1, Ordering::Relaxed);
                    connections.spawn(serve(stream, shared.clone()));
                }
            }
        });
        Self { address, shared, _listening: listening }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// How many connections it has had.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// How many bytes have gone to the other end.
    pub fn carried(&self) -> u64 {
        self.shared.carried.load(Ordering::Relaxed)
    }

    /// From now on a connection is reset when so many bytes of it have gone to the other end.
    pub fn cut_after(&self, bytes: u64) {
        self.shared.cut_after.store(bytes, Ordering::Relaxed);
    }

    /// From now on what the other end answers is lost or not; of connections that are open too.
    pub fn swallow_answers(&self, swallow: bool) {
        self.shared.swallow.store(swallow, Ordering::Relaxed);
    }

    /// From now on everything passes.
    pub fn heal(&self) {
        self.cut_after(NEVER);
        self.swallow_answers(false);
    }
}

async fn serve(client: TcpStream, shared: Arc<Shared>) {
    let Ok(server) = TcpStream::connect(shared.upstream).await else { return };
    for stream in [&client, &server] {
        let _ = stream.set_nodelay(true);
    }
    // Reset and not closed when it is cut, as a network that breaks does; an end in order is passed on before.
    let _ = client.set_zero_linger();
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let there = pass(from_client, to_server, &shared, 0);
    let back = pass(from_server, to_client, &shared, 1);
    tokio::select! {
        () = there => {}
        () = back => {}
    }
}

/// Carries one direction until it ends or is cut.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, shared: &Shared, direction: usize) {
    let room = Semaphore::new(ON_THE_LINE);
    let (line, mut arrivals) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let depart = async {
        let mut gone = 0_u64;
        loop {
            let mut packet = vec![0; PACKET];
            let Ok(read) = from.read(&mut packet).await else { return };
            if read == 0 {
                return;
            }
            packet.truncate(read);
            let Ok(permits) = room.acquire_many(read as u32).await else { return };
            permits.forget();
            if direction == 1 && shared.swallow.load(Ordering::Relaxed) {
                room.add_permits(read);
                continue;
            }
            let left = shared.cut_after.load(Ordering::Relaxed).saturating_sub(gone);
            let cut = direction == 0 && left < read as u64;
            if cut {
                packet.truncate(left as usize);
            }
            gone += packet.len() as u64;
            if direction == 0 {
                shared.carried.fetch_add(packet.len() as u64, Ordering::Relaxed);
            }
            let arrives = shared.carry(direction, packet.len());
            if line.send((arrives, packet)).is_err() || cut {
                return;
            }
        }
    };
    let arrive = async {
        while let Some((at, packet)) = arrivals.recv().await {
            sleep_until(at).await;
            if to.write_all(&packet).await.is_err() {
                return;
            }
            room.add_permits(packet.len());
        }
    };
    // What has departed arrives, unless nobody takes it.
    tokio::pin!(arrive);
    let ended = {
        tokio::pin!(depart);
        tokio::select! {
            () = &mut depart => false,
            () = &mut arrive => true,
        }
    };
    drop(line);
    if !ended {
        arrive.await;
    }
}

impl Shared {
    /// When a packet arrives that departs now.
    fn carry(&self, direction: usize, bytes: usize) -> Instant {
        let Some(rate) = self.rate else { return Instant::now() + self.delay };
        let mut free = self.free[direction].lock().unwrap_or_else(PoisonError::into_inner);
        *free = (*free).max(Instant::now()) + Duration::from_secs_f64(bytes as f64 / rate);
        *free + self.delay
    }
}
