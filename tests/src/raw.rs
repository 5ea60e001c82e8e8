//! A peer that writes every byte by hand (PS3.8 9.3), so that it can also write wrong ones.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// What it waits for an answer, at most.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest P-DATA-TF it sends, whatever the node announced.
const CHUNK: usize = 64 * 1024;

/// A TCP connection to the node.
#[derive(Debug)]
pub struct RawDicom {
    stream: TcpStream,
}

impl From<TcpStream> for RawDicom {
    fn from(stream: TcpStream) -> Self {
        Self { stream }
    }
}

/// What the node did.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Reply {
    /// A-ASSOCIATE-AC.
    Accepted(Vec<u8>),
    /// A-ASSOCIATE-RJ: result, source, reason.
    Rejected(u8, u8, u8),
    /// P-DATA-TF.
    Data(Vec<u8>),
    /// A-RELEASE-RP.
    Released,
    /// A-ABORT: source, reason.
    Aborted(u8, u8),
    /// The connection ended.
    Closed,
}

impl RawDicom {
    /// Connects, and sends nothing.
    pub async fn connect(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).await.expect("the node takes connections");
        stream.set_nodelay(true).expect("a socket takes options");
        Self { stream }
    }

    /// Asks for one context and expects it.
    pub async fn associate(to: SocketAddr, sop_class: &str, transfer_syntax: &str) -> Self {
        let mut peer = Self::connect(to).await;
        peer.send(&associate_rq("PACS", "GANTRY", &[(sop_class, transfer_syntax)]))
            .await
            .expect("the node reads");
        match peer.reply().await.expect("the node answers") {
            Reply::Accepted(_) => peer,
            other => panic!("the node answered the association request with {other:?}"),
        }
    }

    /// Sends bytes.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(timeout(PATIENCE, self.stream.write_all(bytes))
            .await
            .context("the node took nothing")??)
    }

    /// C-STORE of any bytes under these names, on the first context; the status of the answer. A peer that is cut off
    /// meanwhile learns so.
    pub async fn store(
        &mut self,
        sop_class: &str,
        sop_instance: &str,
        data_set: &[u8],
    ) -> Result<u16> {
        self.send(&p_data(1, true, true, &c_store_rq(1, sop_class, sop_instance))).await?;
        if data_set.is_empty() {
            self.send(&p_data(1, false, true, &[])).await?;
        }
        let mut chunks = data_set.chunks(CHUNK).peekable();
        while let Some(chunk) = chunks.next() {
            self.send(&p_data(1, false, chunks.peek().is_none(), chunk)).await?;
        }
        self.status().await
    }

    /// Ends the association in order.
    pub async fn release(mut self) {
        self.send(&[5, 0, 0, 0, 0, 4, 0, 0, 0, 0]).await.expect("the node reads");
        assert_eq!(self.reply().await.expect("the node answers"), Reply::Released);
    }

    /// The next thing that the node does.
    pub async fn reply(&mut self) -> Result<Reply> {
        timeout(PATIENCE, self.reply_untimed()).await.context("the node did nothing")?
    }

    async fn reply_untimed(&mut self) -> Result<Reply> {
        let mut header = [0; 6];
        if !self.fill(&mut header).await? {
            return Ok(Reply::Closed);
        }
        let [kind, _, length @ ..] = header;
        let length = u32::from_be_bytes(length) as usize;
        anyhow::ensure!(length < 1 << 20, "the node claims {length} bytes");
        let mut body = vec![0; length];
        if !self.fill(&mut body).await? {
            return Ok(Reply::Closed);
        }
        Ok(match (kind, &body[..]) {
            (2, _) => Reply::Accepted(body),
            (3, &[_, result, source, reason]) => Reply::Rejected(result, source, reason),
            (4, _) => Reply::Data(body),
            (6, _) => Reply::Released,
            (7, &[_, _, source, reason]) => Reply::Aborted(source, reason),
            _ => bail!("the node sent a PDU of type {kind:02X}H and {length} bytes"),
        })
    }

    /// Fills the buffer; false if the connection ended first, however it did.
    async fn fill(&mut self, buffer: &mut [u8]) -> Result<bool> {
        use std::io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
        match self.stream.read_exact(buffer).await {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof) => {
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The status of the response that comes next.
    pub async fn status(&mut self) -> Result<u16> {
        match self.reply().await? {
            Reply::Data(pdu) => status(&pdu),
            other => bail!("the node answered with {other:?}"),
        }
    }

    /// Closes without a word.
    pub fn hang_up(self) {}

    /// Waits until the node has closed because of what was sent, whatever it says before.
    pub async fn closed_because(&mut self, what: &str, within: Duration) {
        let drained = async {
            let mut sink = [0; 4096];
            while !matches!(self.stream.read(&mut sink).await, Ok(0) | Err(_)) {}
        };
        assert!(
            timeout(within, drained).await.is_ok(),
            "the node kept the connection {within:?} after {what}"
        );
    }

    /// Whether the node keeps the connection open and says nothing.
    pub async fn is_open(&mut self) -> bool {
        timeout(Duration::from_millis(50), self.stream.peek(&mut [0])).await.is_err()
    }
}

/// A-ASSOCIATE-RQ with these contexts, numbered 1, 3, 5 and so on.
pub fn associate_rq(calling: &str, called: &str, contexts: &[(&str, &str)]) -> Vec<u8> {
    let mut body = vec![0, 1, 0, 0];
    body.extend(format!("{called:<16}{calling:<16}").as_bytes());
    body.extend([0; 32]);
    body.extend(item(0x10, b"1.2.840.10008.3.1.1.1"));
    for (id, (abstract_syntax, transfer_syntax)) in (1_u8..).step_by(2).zip(contexts) {
        let syntaxes =
            [item(0x30, abstract_syntax.as_bytes()), item(0x40, transfer_syntax.as_bytes())]
                .concat();
        body.extend(item(0x20, &[&[id, 0, 0, 0], &syntaxes[..]].concat()));
    }
    let user = [item(0x51, &16384_u32.to_be_bytes()), item(0x52, b"2.25.1")].concat();
    body.extend(item(0x50, &user));
    pdu(1, &body)
}

/// A PDU of this type.
pub fn pdu(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind, 0], &(body.len() as u32).to_be_bytes()[..], body].concat()
}

fn item(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind, 0], &(body.len() as u16).to_be_bytes()[..], body].concat()
}

/// P-DATA-TF with one data value.
pub fn p_data(context: u8, command: bool, last: bool, fragment: &[u8]) -> Vec<u8> {
    let length = fragment.len() as u32 + 2;
    let control = u8::from(command) | u8::from(last) << 1;
    pdu(4, &[&length.to_be_bytes(), &[context, control][..], fragment].concat())
}

/// C-STORE-RQ (PS3.7 Table 9.3-1).
pub fn c_store_rq(message_id: u16, sop_class: &str, sop_instance: &str) -> Vec<u8> {
    command(&[
        (0x0002, &padded(sop_class)),
        (0x0100, &1_u16.to_le_bytes()),
        (0x0110, &message_id.to_le_bytes()),
        (0x0700, &0_u16.to_le_bytes()),
        (0x0800, &1_u16.to_le_bytes()),
        (0x1000, &padded(sop_instance)),
    ])
}

/// A command set of these elements, with its group length.
pub fn command(elements: &[(u16, &[u8])]) -> Vec<u8> {
    let element = |(number, value): &(u16, &[u8])| {
        [&[0, 0], &number.to_le_bytes()[..], &(value.len() as u32).to_le_bytes(), value].concat()
    };
    let body: Vec<u8> = elements.iter().flat_map(element).collect();
    [element(&(0, &(body.len() as u32).to_le_bytes())), body].concat()
}

fn padded(uid: &str) -> Vec<u8> {
    let mut bytes = uid.as_bytes().to_vec();
    bytes.resize(bytes.len().next_multiple_of(2), 0);
    bytes
}

/// Status (0000,0900) of a response that is one P-DATA-TF.
fn status(pdu: &[u8]) -> Result<u16> {
    let mut rest = pdu.get(6..).context("the response is empty")?;
    while let [g0, g1, e0, e1, a, b, c, d, after @ ..] = rest {
        let length = u32::from_le_bytes([*a, *b, *c, *d]) as usize;
        let (value, after) = after.split_at_checked(length).context("the response is cut")?;
        if [*g0, *g1, *e0, *e1] == [0, 0, 0x00, 0x09] {
            let &[low, high] = value else { bail!("the status is not two bytes") };
            return Ok(u16::from_le_bytes([low, high]));
        }
        rest = after;
    }
    bail!("the response has no status")
}
