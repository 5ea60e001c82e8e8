//! The upper layer protocol on a byte stream (PS3.8 9.3), for both roles.
//!
//! PDUs that negotiate are read and written by dicom-ul's codec. P-DATA-TF is handled here: its fragments are handed on
//! as slices of the receive buffer, without a copy, and are sent with one write for header and content. A PDU that
//! claims to be longer than what was offered is refused by its header, before anything is read or reserved for it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use dicom_ul::pdu::{AbortRQServiceProviderReason, AbortRQSource, Pdu};
use socket2::SockRef;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The longest PDU that negotiates: 128 presentation contexts with dozens of transfer syntaxes each fit in a quarter.
const MAX_NEGOTIATION: u32 = 1 << 20;
/// How much is asked of the stream at once.
const READ: usize = 128 * 1024;
const P_DATA_TF: u8 = 0x04;
/// PDU header, and header of the one presentation data value in it.
const DATA_HEADER: usize = 12;

/// Why a conversation on the wire ended early.
#[derive(Debug, Error)]
pub enum WireError {
    /// The peer closed the connection, or it broke.
    #[error("connection lost")]
    Lost(#[source] io::Error),
    /// The peer closed the connection where it may.
    #[error("peer closed the connection")]
    Closed,
    /// Nothing complete came in time.
    #[error("peer sent nothing complete for {0:?}")]
    TimedOut(Duration),
    /// The peer took nothing in time.
    #[error("peer took nothing for {0:?}")]
    Stuck(Duration),
    /// What came is not DICOM.
    #[error("not a DICOM peer: {0}")]
    NotDicom(&'static str),
    /// A PDU longer than what was offered.
    #[error("peer sent a PDU of {length} bytes, and {limit} were offered")]
    TooLong {
        /// As its header claims.
        length: u32,
        /// As offered.
        limit: u32,
    },
    /// A PDU that cannot be taken apart.
    #[error("peer sent a malformed PDU: {0}")]
    Malformed(&'static str),
    /// A PDU or message that has no place here.
    #[error("peer sent {0} where it has no place")]
    Unexpected(&'static str),
    /// What was being sent cannot be read to its end.
    #[error("what was being sent cannot be read any further")]
    NotReadable,
    /// This node is stopping.
    #[error("the node is stopping")]
    Stopping,
    /// The peer aborted.
    #[error("peer aborted the association ({0})")]
    Aborted(&'static str),
}

impl WireError {
    /// What an A-ABORT says about it (PS3.8 Table 9-26); `None` where there is nobody left to tell.
    pub fn abort_reason(&self) -> Option<AbortRQServiceProviderReason> {
        match self {
            Self::Lost(_)
            | Self::Closed
            | Self::Aborted(_)
            | Self::Stuck(_)
            | Self::NotDicom(_) => None,
            Self::TimedOut(_) | Self::Stopping | Self::NotReadable => {
                Some(AbortRQServiceProviderReason::ReasonNotSpecified)
            }
            Self::TooLong { .. } | Self::Malformed(_) => {
                Some(AbortRQServiceProviderReason::InvalidPduParameter)
            }
            Self::Unexpected(_) => Some(AbortRQServiceProviderReason::UnexpectedPdu),
        }
    }
}

impl From<io::Error> for WireError {
    fn from(error: io::Error) -> Self {
        Self::Lost(error)
    }
}

/// A TCP connection that asks the kernel for immediate acknowledgements.
///
/// A peer that leaves Nagle's algorithm on holds back the second half of a message until the first is acknowledged; with
/// delayed acknowledgements that is 40 ms for every message. The kernel forgets the wish, so it is renewed by every
/// read.
#[derive(Debug)]
pub struct Tcp(TcpStream);

impl Tcp {
    /// After so long without a word from the peer's kernel there is no network between us: packets are dropped, or the
    /// machine is off. A peer that is merely slow still acknowledges and answers probes; only one that takes nothing of what is
    /// under way for so long, as its window stays shut, is given up as well.
    pub const DEAD_AFTER: Duration = Duration::from_secs(30);

    /// Takes over a connection, and turns our own Nagle's algorithm off. A dead network is found by what is not
    /// acknowledged, or where nothing is under way by probes, after [`Tcp::DEAD_AFTER`], give or take a probe.
    pub fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let keepalive = socket2::TcpKeepalive::new()
            .with_time(Self::DEAD_AFTER / 3)
            .with_interval(Self::DEAD_AFTER / 6);
        let socket = SockRef::from(&stream);
        socket.set_tcp_keepalive(&keepalive)?;
        socket.set_tcp_user_timeout(Some(Self::DEAD_AFTER))?;
        Ok(Self(stream))
    }
}

impl AsyncRead for Tcp {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.0).poll_read(context, buffer);
        if read.is_ready() {
            // A wish: where the kernel does not know it, things are slower and still right.
            let _ = SockRef::from(&self.0).set_tcp_quickack(true);
        }
        read
    }
}

impl AsyncWrite for Tcp {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

/// Anything that an association can run on: TCP, TLS over it, or a pipe in a test.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// One presentation data value: a fragment of a command or of a data set (PS3.8 9.3.5.1, Annex E).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DataValue {
    /// Presentation context it belongs to.
    pub context: u8,
    /// Whether it is of a command rather than of a data set.
    pub command: bool,
    /// Whether it is the last of its message part.
    pub last: bool,
    /// Its bytes.
    pub fragment: Bytes,
}

/// What a peer sent.
#[derive(Debug)]
pub enum Event {
    /// One data value of a P-DATA-TF.
    Data(DataValue),
    /// Anything else.
    Pdu(Pdu),
}

/// One end of an association.
#[derive(Debug)]
pub struct Wire<S> {
    stream: S,
    received: BytesMut,
    /// What is left of the P-DATA-TF in work.
    values: Bytes,
    /// The longest P-DATA-TF that was offered to the peer.
    offered: u32,
    /// The longest P-DATA-TF that the peer takes.
    accepted: u32,
    /// How long to wait for anything.
    patience: Duration,
    sending: Vec<u8>,
}

impl<S: Stream> Wire<S> {
    /// Takes over a stream. Until [`Wire::peer_accepts`] is called nothing longer than 16 KiB is sent.
    pub fn new(stream: S, offered: u32, patience: Duration) -> Self {
        Self {
            stream,
            received: BytesMut::new(),
            values: Bytes::new(),
            offered,
            accepted: 16 * 1024,
            patience,
            sending: Vec::new(),
        }
    }

    /// Notes the Maximum Length that the peer announced (PS3.8 D.1; 0 is "no limit"). A peer that takes next to nothing
    /// would have us send a PDU a byte: it gets 1 KiB, which every known implementation takes.
    pub fn peer_accepts(&mut self, announced: u32) {
        const OURS: u32 = 256 * 1024;
        self.accepted = if announced == 0 { OURS } else { announced.clamp(1024, OURS) };
    }

    /// Changes how long to wait for anything.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// The next thing that the peer sends.
    pub async fn next(&mut self) -> Result<Event, WireError> {
        match timeout(self.patience, self.next_untimed()).await {
            Ok(result) => result,
            Err(_) => Err(WireError::TimedOut(self.patience)),
        }
    }

    /// Whether something of what the peer sends is here within this time. Nothing is taken; safe to drop.
    pub async fn arrived(&mut self, within: Duration) -> Result<bool, WireError> {
        if !self.values.is_empty() || !self.received.is_empty() {
            return Ok(true);
        }
        self.received.reserve(READ);
        match timeout(within, self.stream.read_buf(&mut self.received)).await {
            Ok(Ok(0)) => Err(WireError::Closed),
            Ok(read) => Ok(read? > 0),
            Err(_) => Ok(false),
        }
    }

    async fn next_untimed(&mut self) -> Result<Event, WireError> {
        loop {
            if let Some(event) = self.next_received()? {
                return Ok(event);
            }
            if self.received.capacity() - self.received.len() < READ / 2 {
                self.received.reserve(READ);
            }
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Err(if self.received.is_empty() {
                    WireError::Closed
                } else {
                    WireError::Lost(io::ErrorKind::UnexpectedEof.into())
                });
            }
        }
    }

    /// The next thing that is here already, so that a caller can take much at once.
    pub fn next_received(&mut self) -> Result<Option<Event>, WireError> {
        loop {
            if !self.values.is_empty() {
                return split_value(&mut self.values).map(|value| Some(Event::Data(value)));
            }
            let Some((&[kind, _, a, b, c, d], _)) = self.received.split_first_chunk() else {
                // The first byte tells a stranger: a TLS hello is 16H, a letter is text such as HTTP.
                return match self.received.first() {
                    Some(0x01..=0x07) | None => Ok(None),
                    Some(0x16) => {
                        Err(WireError::NotDicom("it begins a TLS handshake on a plain connection"))
                    }
                    Some(_) => Err(WireError::NotDicom("its first byte is no PDU type")),
                };
            };
            let length = u32::from_be_bytes([a, b, c, d]);
            let limit = match kind {
                P_DATA_TF => self.offered,
                0x01..=0x07 => MAX_NEGOTIATION,
                0x16 => {
                    return Err(WireError::NotDicom(
                        "it begins a TLS handshake on a plain connection",
                    ));
                }
                _ => return Err(WireError::NotDicom("it sent an unknown PDU type")),
            };
            if length > limit {
                return Err(WireError::TooLong { length, limit });
            }
            let whole = 6 + length as usize;
            if self.received.len() < whole {
                self.received.reserve(whole - self.received.len());
                return Ok(None);
            }
            let mut pdu = self.received.split_to(whole).freeze();
            if kind != P_DATA_TF {
                return match dicom_ul::pdu::read_pdu(&mut pdu, MAX_NEGOTIATION, true) {
                    Ok(Some(Pdu::AbortRQ { source })) => {
                        Err(WireError::Aborted(abort_source(&source)))
                    }
                    Ok(Some(pdu)) => Ok(Some(Event::Pdu(pdu))),
                    Ok(None) | Err(_) => Err(WireError::Malformed("it cannot be taken apart")),
                };
            }
            pdu.advance(6);
            if pdu.is_empty() {
                return Err(WireError::Malformed("P-DATA-TF without a data value"));
            }
            self.values = pdu;
        }
    }

    /// Sends a PDU that negotiates, releases or aborts.
    pub async fn send(&mut self, pdu: &Pdu) -> Result<(), WireError> {
        let mut bytes = Vec::new();
        dicom_ul::pdu::write_pdu(&mut bytes, pdu)
            .map_err(|_| WireError::Malformed("our own PDU cannot be written"))?;
        self.write(&bytes).await
    }

    /// Sends a command, in as many PDUs as the peer's limit asks for.
    pub async fn send_command(&mut self, context: u8, command: &[u8]) -> Result<(), WireError> {
        self.send_values(context, 0b01, command, true).await
    }

    /// Sends a part of a data set. Pieces are not joined across calls, so they had better be large.
    pub async fn send_data(
        &mut self,
        context: u8,
        data: &[u8],
        last: bool,
    ) -> Result<(), WireError> {
        self.send_values(context, 0b00, data, last).await
    }

    async fn send_values(
        &mut self,
        context: u8,
        kind: u8,
        data: &[u8],
        last: bool,
    ) -> Result<(), WireError> {
        let room = self.accepted as usize - (DATA_HEADER - 6);
        let mut chunks = data.chunks(room).peekable();
        while let Some(chunk) = chunks.next() {
            let control = kind | if last && chunks.peek().is_none() { 0b10 } else { 0 };
            let length = chunk.len() as u32;
            let mut sending = std::mem::take(&mut self.sending);
            sending.clear();
            sending.extend_from_slice(&[P_DATA_TF, 0]);
            sending.extend_from_slice(&(length + 6).to_be_bytes());
            sending.extend_from_slice(&(length + 2).to_be_bytes());
            sending.extend_from_slice(&[context, control]);
            sending.extend_from_slice(chunk);
            let written = self.write(&sending).await;
            self.sending = sending;
            written?;
        }
        Ok(())
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        let write = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        match timeout(self.patience, write).await {
            Ok(result) => Ok(result?),
            Err(_) => Err(WireError::Stuck(self.patience)),
        }
    }

    /// Tells the peer that it is over, as far as it still listens, and closes.
    pub async fn abort(mut self, reason: AbortRQServiceProviderReason) {
        self.set_patience(Duration::from_secs(1));
        // The peer may be gone, and there is nothing more to do about that.
        let _ = self.send(&Pdu::AbortRQ { source: AbortRQSource::ServiceProvider(reason) }).await;
        self.close().await;
    }

    /// Closes without a word, giving what was sent the time to arrive.
    pub async fn close(mut self) {
        let _ = timeout(Duration::from_secs(1), self.stream.shutdown()).await;
    }

    /// Waits until the peer closes, as who answers a release or rejects does (PS3.8 9.2.3, Sta13), then closes.
    pub async fn await_close(mut self, patience: Duration) {
        let _ = timeout(patience, async {
            let mut sink = [0; 512];
            while !matches!(self.stream.read(&mut sink).await, Ok(0) | Err(_)) {}
        })
        .await;
        self.close().await;
    }
}

fn split_value(values: &mut Bytes) -> Result<DataValue, WireError> {
    let malformed = || WireError::Malformed("data value does not fit its P-DATA-TF");
    let Some((&[a, b, c, d, context, control], _)) = values.split_first_chunk() else {
        return Err(malformed());
    };
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if length < 2 || length > values.len() - 4 {
        return Err(malformed());
    }
    values.advance(6);
    let fragment = values.split_to(length - 2);
    Ok(DataValue { context, command: control & 0b01 != 0, last: control & 0b10 != 0, fragment })
}

fn abort_source(source: &AbortRQSource) -> &'static str {
    match source {
        AbortRQSource::ServiceUser => "by its application",
        AbortRQSource::ServiceProvider(reason) => match reason {
            AbortRQServiceProviderReason::ReasonNotSpecified => {
                "by its upper layer, no reason given"
            }
            AbortRQServiceProviderReason::UnrecognizedPdu => "it did not recognise a PDU",
            AbortRQServiceProviderReason::UnexpectedPdu => "it did not expect a PDU",
            AbortRQServiceProviderReason::UnrecognizedPduParameter => {
                "it did not recognise a PDU parameter"
            }
            AbortRQServiceProviderReason::UnexpectedPduParameter => {
                "it did not expect a PDU parameter"
            }
            AbortRQServiceProviderReason::InvalidPduParameter => "it found a PDU parameter invalid",
            AbortRQServiceProviderReason::Reserved => "for a reserved reason",
        },
        AbortRQSource::Reserved => "by a reserved source",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::duplex;

    use super::*;

    fn wires(offered: u32) -> (Wire<tokio::io::DuplexStream>, Wire<tokio::io::DuplexStream>) {
        let (left, right) = duplex(1 << 20);
        (
            Wire::new(left, offered, Duration::from_secs(5)),
            Wire::new(right, offered, Duration::from_secs(5)),
        )
    }

    async fn gather(
        wire: &mut Wire<tokio::io::DuplexStream>,
    ) -> Result<(bool, Vec<u8>), WireError> {
        let mut whole = Vec::new();
        loop {
            match wire.next().await? {
                Event::Data(value) => {
                    whole.extend_from_slice(&value.fragment);
                    if value.last {
                        return Ok((value.command, whole));
                    }
                }
                Event::Pdu(_) => return Err(WireError::Unexpected("a PDU")),
            }
        }
    }

    #[tokio::test]
    async fn data_arrives_whole_whatever_the_peer_accepts() {
        let data: Vec<u8> = (0..100_000_u32).map(|at| at as u8).collect();
        for accepted in [0, 1, 1024, 4096, 70_000] {
            let (mut sender, mut receiver) = wires(256 * 1024);
            sender.peer_accepts(accepted);

            sender.send_command(1, &data[..200]).await.unwrap();
            sender.send_data(1, &data[..40_000], false).await.unwrap();
            sender.send_data(1, &data[40_000..], true).await.unwrap();

            assert!(gather(&mut receiver).await.unwrap() == (true, data[..200].to_vec()));
            assert!(
                gather(&mut receiver).await.unwrap() == (false, data.clone()),
                "accepts {accepted}"
            );
        }
    }

    #[tokio::test]
    async fn a_pdu_that_claims_more_than_was_offered_is_refused_by_its_header() {
        let (mut sender, mut receiver) = wires(4096);
        sender.stream.write_all(&[P_DATA_TF, 0, 0xFF, 0xFF, 0xFF, 0xF0]).await.unwrap();

        let refused = receiver.next().await.unwrap_err();

        assert!(
            matches!(refused, WireError::TooLong { length: 0xFFFF_FFF0, limit: 4096 }),
            "{refused}"
        );
        assert!(receiver.received.capacity() < 2 * READ);
    }

    #[tokio::test]
    async fn strangers_are_told_apart() {
        for (bytes, word) in [
            (&b"GET / HTTP/1.1\r\n\r\n"[..], "PDU type"),
            (&[0x16, 3, 1, 2, 0], "TLS"),
            (&[0xFF; 9], "PDU type"),
        ] {
            let (mut sender, mut receiver) = wires(4096);
            sender.stream.write_all(bytes).await.unwrap();
            let refused = receiver.next().await.unwrap_err();
            assert!(
                matches!(&refused, WireError::NotDicom(why) if why.contains(word)),
                "{refused}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_peer_is_given_up_on() {
        let (_sender, mut receiver) = wires(4096);
        assert!(matches!(receiver.next().await, Err(WireError::TimedOut(_))));
    }

    proptest! {
        #[test]
        fn bytes_of_any_kind_end_in_an_error_or_a_wait_and_never_in_a_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..300), kind in 1_u8..8, honest in any::<bool>()
        ) {
            let (_left, right) = duplex(16);
            let mut wire = Wire::new(right, 16 * 1024, Duration::from_secs(1));
            if honest {
                wire.received.extend_from_slice(&[kind, 0]);
                wire.received.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
            }
            wire.received.extend_from_slice(&bytes);
            let events = (0..1000).take_while(|_| matches!(wire.next_received(), Ok(Some(_)))).count();
            prop_assert!(events < 1000, "more events than bytes");
        }
    }
}
