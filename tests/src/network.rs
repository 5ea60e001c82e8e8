//! Ports on loopback.

use std::net::TcpListener;

/// A port that nobody listens on. For peers that cannot say which port the kernel gave them; between this and their
/// start another process could take it, which a test then reports as a peer that does not start.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("loopback has a free port")
        .port()
}

/// Whether anyone listens on a port, found out without connecting: some peers take a connection for an association.
pub fn is_listening(port: u16) -> bool {
    ["/proc/net/tcp", "/proc/net/tcp6"].into_iter().any(|table| {
        let table = std::fs::read_to_string(table).unwrap_or_default();
        table.lines().skip(1).any(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let local =
                fields.next().and_then(|address| address.rsplit(':').next()?.to_owned().into());
            let listening = fields.nth(1) == Some("0A");
            listening
                && local.is_some_and(|local: String| u16::from_str_radix(&local, 16) == Ok(port))
        })
    })
}
