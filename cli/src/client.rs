//! The running node, asked through the socket in its data directory.
//!
//! Whoever may open the socket is the administrator, so there is no sign-in. The connection is kept for further requests;
//! an answer other than success becomes a [`Failure`] with the node's own words and hint.

use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use gantry_gateway::config::Config;
use http_body_util::{BodyExt as _, Either, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::fs::File;
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use crate::exit::{Exit, Failure};

/// Bytes of the longest answer that is read into memory: lists have at most a thousand entries.
const MOST: usize = 64 << 20;
/// How much of a file is read at once, and how many such pieces may wait for the node.
const PIECE: usize = 256 << 10;
const IN_FLIGHT: usize = 4;

type Sent = Either<Full<Bytes>, FileBody>;

/// A connection to the running node.
#[derive(Debug)]
pub(crate) struct Client {
    socket: PathBuf,
    sender: SendRequest<Sent>,
}

/// What the node says of a request that it did not carry out (RFC 9457).
#[derive(Debug, serde::Deserialize)]
struct Problem {
    #[serde(default)]
    title: String,
    #[serde(default)]
    detail: String,
    hint: Option<String>,
    reference: Option<String>,
}

impl Client {
    /// Connects to the node that runs on this configuration.
    pub(crate) async fn connect(config: &Config) -> Result<Self, Failure> {
        let socket = config.node.admin_socket();
        let stream = UnixStream::connect(&socket).await.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                Failure::new(Exit::Unreachable, "the node is not running")
                    .hint("start it with `gantry serve`")
            }
            io::ErrorKind::PermissionDenied => Failure::new(
                Exit::Permission,
                format_args!("this user may not open {}", socket.display()),
            )
            .hint("use the account that the node runs as (sudo -u …)"),
            _ => Failure::new(
                Exit::Unreachable,
                format_args!("cannot reach the node at {}: {error}", socket.display()),
            ),
        })?;
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|error| gone(&error))?;
        tokio::spawn(async move {
            // Whoever waits for an answer hears of it from the request.
            let _ = connection.await;
        });
        Ok(Self { socket, sender })
    }

    pub(crate) async fn get<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, Failure> {
        let answer = self.request(Method::GET, path, &[], Either::Left(Full::default())).await?;
        read_json(answer).await
    }

    pub(crate) async fn post<T: DeserializeOwned>(
        &mut self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        let body =
            serde_json::to_vec(body).map_err(|error| Failure::because(Exit::Failed, &error))?;
        let headers = [("content-type", "application/json")];
        let answer =
            self.request(Method::POST, path, &headers, Either::Left(Full::from(body))).await?;
        read_json(answer).await
    }

    pub(crate) async fn delete(&mut self, path: &str) -> Result<(), Failure> {
        self.request(Method::DELETE, path, &[], Either::Left(Full::default())).await.map(drop)
    }

    /// Sends a file as it is read.
    pub(crate) async fn post_file<T: DeserializeOwned>(
        &mut self,
        path: &str,
        batch: &str,
        file: FileBody,
    ) -> Result<T, Failure> {
        let headers = [("content-type", "application/dicom"), ("gantry-batch", batch)];
        let answer = self.request(Method::POST, path, &headers, Either::Right(file)).await?;
        read_json(answer).await
    }

    /// An answer that is read as it comes.
    pub(crate) async fn stream(&mut self, path: &str) -> Result<Stream, Failure> {
        let answer = self.request(Method::GET, path, &[], Either::Left(Full::default())).await?;
        Ok(Stream { body: answer.into_body() })
    }

    async fn request(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Sent,
    ) -> Result<Response<Incoming>, Failure> {
        let mut request = Request::builder().method(method).uri(path).header("host", "gantry");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body).map_err(|error| Failure::because(Exit::Usage, &error))?;
        let failed = |error: hyper::Error| {
            gone(&error)
                .hint(format_args!("see its log; it was reached through {}", self.socket.display()))
        };
        self.sender.ready().await.map_err(failed)?;
        let answer = self.sender.send_request(request).await.map_err(failed)?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        let body = read_all(answer).await?;
        Err(refused(status, &body))
    }
}

/// The body of an answer, piece by piece.
#[derive(Debug)]
pub(crate) struct Stream {
    body: Incoming,
}

impl Stream {
    /// How long it will be, if the node says so.
    pub(crate) fn length(&self) -> Option<u64> {
        self.body.size_hint().exact()
    }

    /// The next bytes; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        while let Some(frame) = self.body.frame().await {
            if let Ok(data) = frame.map_err(|error| gone(&error))?.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }
}

async fn read_all(answer: Response<Incoming>) -> Result<Bytes, Failure> {
    let limited = http_body_util::Limited::new(answer.into_body(), MOST);
    let collected = limited.collect().await;
    collected.map(http_body_util::Collected::to_bytes).map_err(|error| {
        Failure::new(Exit::Failed, format_args!("the node's answer broke off: {error}"))
    })
}

async fn read_json<T: DeserializeOwned>(answer: Response<Incoming>) -> Result<T, Failure> {
    let body = read_all(answer).await?;
    serde_json::from_slice(&body).map_err(|error| {
        Failure::new(Exit::Failed, format_args!("the node's answer is not understood: {error}"))
            .hint("the node and this program are of different versions, most likely: compare `gantry --version` with `gantry status`")
    })
}

fn gone(error: &hyper::Error) -> Failure {
    Failure::because(Exit::Temporary, error)
}

/// What a status means for a script.
fn refused(status: StatusCode, body: &[u8]) -> Failure {
    let problem: Option<Problem> = serde_json::from_slice(body).ok();
    let exit = match status {
        StatusCode::BAD_REQUEST => Exit::Usage,
        StatusCode::NOT_FOUND => Exit::NotFound,
        StatusCode::FORBIDDEN => match &problem {
            Some(problem) if problem.title.contains("safety rule") => Exit::Unsafe,
            _ => Exit::Permission,
        },
        StatusCode::UNAUTHORIZED => Exit::Permission,
        StatusCode::REQUEST_TIMEOUT
        | StatusCode::TOO_MANY_REQUESTS
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::INSUFFICIENT_STORAGE => Exit::Temporary,
        StatusCode::UNPROCESSABLE_ENTITY | StatusCode::PAYLOAD_TOO_LARGE => Exit::Refused,
        _ => Exit::Failed,
    };
    let Some(problem) = problem else {
        return Failure::new(exit, format_args!("the node answered {status}"));
    };
    let mut text = if problem.detail.is_empty() { problem.title } else { problem.detail };
    if let Some(reference) = problem.reference {
        text = format!("{text} (reference {reference})");
    }
    Failure { hint: problem.hint, ..Failure::new(exit, text) }
}

/// Makes a value fit into a query string.
pub(crate) fn escaped(value: &str) -> String {
    value.bytes().fold(String::new(), |mut escaped, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(escaped, "%{byte:02X}");
        }
        escaped
    })
}

/// A path with those of the parameters that have a value.
pub(crate) fn with_query<'a>(
    path: &str,
    parameters: impl IntoIterator<Item = (&'a str, Option<String>)>,
) -> String {
    let set: Vec<_> = parameters
        .into_iter()
        .filter_map(|(name, value)| Some(format!("{name}={}", escaped(&value?))))
        .collect();
    if set.is_empty() { path.to_owned() } else { format!("{path}?{}", set.join("&")) }
}

/// A file as the body of a request, never whole in memory.
#[derive(Debug)]
pub(crate) struct FileBody {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    left: u64,
}

impl FileBody {
    /// Reads the file from where it stands, on a task of its own.
    pub(crate) fn new(mut file: File, length: u64) -> Self {
        let (sender, pieces) = mpsc::channel(IN_FLIGHT);
        tokio::spawn(async move {
            loop {
                let mut piece = BytesMut::with_capacity(PIECE);
                let read = file.read_buf(&mut piece).await;
                let ended = !matches!(&read, Ok(1..));
                let sent = match read {
                    Ok(0) => break,
                    Ok(_) => sender.send(Ok(piece.freeze())).await,
                    Err(error) => sender.send(Err(error)).await,
                };
                if ended || sent.is_err() {
                    break;
                }
            }
        });
        Self { pieces, left: length }
    }
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.pieces.poll_recv(context).map(|piece| match piece {
            Some(Ok(piece)) => {
                self.left = self.left.saturating_sub(piece.len() as u64);
                Some(Ok(Frame::data(piece)))
            }
            Some(Err(error)) => Some(Err(error)),
            None => None,
        })
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_keeps_the_nodes_words_and_gets_the_exit_code_of_its_kind() {
        let body = br#"{"status":404,"title":"Not found","detail":"There is no partner \"yrok\".","hint":"Did you mean york?"}"#;

        let failure = refused(StatusCode::NOT_FOUND, body);

        assert_eq!(failure.exit, Exit::NotFound);
        assert_eq!(failure.message.as_deref(), Some("There is no partner \"yrok\"."));
        assert_eq!(failure.hint.as_deref(), Some("Did you mean york?"));
    }

    #[test]
    fn every_kind_of_refusal_has_its_code() {
        for (status, exit) in [
            (400, Exit::Usage),
            (403, Exit::Permission),
            (404, Exit::NotFound),
            (413, Exit::Refused),
            (422, Exit::Refused),
            (429, Exit::Temporary),
            (500, Exit::Failed),
            (503, Exit::Temporary),
            (507, Exit::Temporary),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(refused(status, b"not JSON").exit, exit, "{status}");
        }
        let rule =
            br#"{"title":"Refused by a safety rule","detail":"Research never gets identity."}"#;
        assert_eq!(refused(StatusCode::FORBIDDEN, rule).exit, Exit::Unsafe);
    }

    #[test]
    fn what_is_put_into_an_address_cannot_leave_its_place() {
        let path = with_query(
            "/api/v1/transfers",
            [
                ("partner", Some("a b&limit=9/ü".to_owned())),
                ("state", None),
                ("limit", Some("5".to_owned())),
            ],
        );
        assert_eq!(path, "/api/v1/transfers?partner=a%20b%26limit%3D9%2F%C3%BC&limit=5");
        assert_eq!(with_query("/x", [("a", None)]), "/x");
    }
}
