//! A network of its own for a peer, joined to this machine's by one line: a host that can be far, slow, or cut off by the
//! kernel itself. Needs root, and the commands of iproute2 (and nftables, to cut it off).

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// Numbers those of one process.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// The network; gone with its line when dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    /// Which of the addresses for benchmarks of network devices (RFC 2544, 198.18.0.0/15) are its own.
    subnet: String,
}

impl Namespace {
    /// One with a line of so many bits a second in each direction, as `tc` writes them ("100mbit"); `None` for as fast as it
    /// goes. `Err` says what this machine does not allow.
    pub fn new(rate: Option<&str>) -> Result<Self, String> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed) % 64;
        let id = (std::process::id() % 512) * 64 + number;
        let name = format!("gantry{id}");
        let subnet = format!("198.{}.{}", 18 + (id >> 14) % 2, (id >> 6) % 256);
        let first = (id % 64) * 4;
        let namespace = Self { name: name.clone(), subnet: format!("{subnet}.{}", first + 2) };
        let (here, there) = (format!("{subnet}.{}", first + 1), &namespace.subnet);
        let (near, far) = (format!("gn{id}"), format!("gf{id}"));
        run("ip", &["netns", "add", &name])?;
        run("ip", &["link", "add", &near, "type", "veth", "peer", "name", &far, "netns", &name])?;
        run("ip", &["address", "add", &format!("{here}/30"), "dev", &near])?;
        run("ip", &["link", "set", &near, "up"])?;
        namespace.run("ip", &["address", "add", &format!("{there}/30"), "dev", &far])?;
        namespace.run("ip", &["link", "set", &far, "up"])?;
        namespace.run("ip", &["link", "set", "lo", "up"])?;
        if let Some(rate) = rate {
            let shape = |dev| {
                [
                    "qdisc", "add", "dev", dev, "root", "tbf", "rate", rate, "burst", "64kb",
                    "latency", "50ms",
                ]
            };
            run("tc", &shape(&near))?;
            namespace.run("tc", &shape(&far))?;
        }
        Ok(namespace)
    }

    /// Its name, for `ip netns exec`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The peer's address in it, with a port.
    pub fn at(&self, port: u16) -> SocketAddr {
        format!("{}:{port}", self.subnet).parse().expect("an address")
    }

    /// Runs a command in it.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String, String> {
        let inside = ["netns", "exec", &self.name, program];
        run("ip", &[&inside, arguments].concat())
    }

    /// From now on every packet that comes is dropped: neither refused nor answered.
    pub fn black_hole(&self) -> Result<(), String> {
        self.run("nft", &["add", "table", "inet", "hole"])?;
        let chain = "{ type filter hook input priority 0; policy drop; }";
        self.run("nft", &["add", "chain", "inet", "hole", "input", chain]).map(drop)
    }

    /// Packets pass again.
    pub fn mend(&self) -> Result<(), String> {
        self.run("nft", &["delete", "table", "inet", "hole"]).map(drop)
    }

    /// Whether anyone listens on a port in it, found out without connecting.
    pub fn is_listening(&self, port: u16) -> bool {
        let tables = self.run("cat", &["/proc/net/tcp", "/proc/net/tcp6"]).unwrap_or_default();
        crate::network::has_listener(&tables, port)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The line goes with it.
        let _ = run("ip", &["netns", "delete", &self.name]);
    }
}

/// Whether this process is root's, without which there are no networks of one's own.
pub fn is_possible() -> bool {
    rustix::process::geteuid().is_root() && Path::new("/proc/self/ns/net").exists()
}

fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new(program)
        .args(arguments)
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!(
        "{program} {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    ))
}
