//! Ports on loopback.

use std::net::TcpListener;

use crate::random::Random;

/// A port that nobody listens on, for peers that cannot say which port the kernel gave them.
///
/// Not one of those that the kernel hands out (32768 and up on Linux): it stays free while its owner is down, unless
/// another test chooses the same by chance.
pub fn free_port() -> u16 {
    let clock = jiff::Timestamp::now().as_microsecond().cast_unsigned();
    let mut random = Random::new(clock ^ u64::from(std::process::id()) << 32);
    let mut candidates = (0..1000).map(|_| 15_000 + random.below(17_000) as u16);
    candidates
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("one of a thousand ports is free")
}

/// Whether anyone listens on a port, found out without connecting: some peers take a connection for an association.
pub fn is_listening(port: u16) -> bool {
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .into_iter()
        .any(|table| has_listener(&std::fs::read_to_string(table).unwrap_or_default(), port))
}

/// Whether a table of the kernel (`/proc/net/tcp`) has a listener on a port.
pub(crate) fn has_listener(table: &str, port: u16) -> bool {
    table.lines().any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let local = fields.next().and_then(|address| address.rsplit(':').next());
        let listening = fields.nth(1) == Some("0A");
        listening && local.is_some_and(|local| u16::from_str_radix(local, 16) == Ok(port))
    })
}
