//! A small HTTP client: one request a connection, over TCP or the administrator's socket.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::header::{CONTENT_TYPE, COOKIE, HOST, ORIGIN};
use hyper::{HeaderMap, Method, Request};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// A request; `get` and `post` make the usual ones.
#[derive(Clone, Debug)]
#[must_use = "nothing is asked until it is sent"]
pub struct Ask {
    method: Method,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status code.
    pub status: u16,
    /// Its header fields.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Ask {
    /// GET.
    pub fn get(path: &str) -> Self {
        Self::with_method(Method::GET, path)
    }

    /// POST.
    pub fn post(path: &str) -> Self {
        Self::with_method(Method::POST, path)
    }

    /// Any method.
    pub fn with_method(method: Method, path: &str) -> Self {
        Self { method, path: path.to_owned(), headers: Vec::new(), body: Vec::new() }
    }

    /// With a session's cookie, as `name=value`.
    pub fn cookie(self, cookie: &str) -> Self {
        self.header(COOKIE.as_str(), cookie)
    }

    /// With the origin that a browser's form would name.
    pub fn origin(self, origin: &str) -> Self {
        self.header(ORIGIN.as_str(), origin)
    }

    /// With a header field.
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// With a form.
    pub fn form(mut self, body: &str) -> Self {
        body.as_bytes().clone_into(&mut self.body);
        self.header(CONTENT_TYPE.as_str(), "application/x-www-form-urlencoded")
    }

    /// With a body.
    pub fn body(mut self, content_type: &str, body: &[u8]) -> Self {
        body.clone_into(&mut self.body);
        self.header(CONTENT_TYPE.as_str(), content_type)
    }

    /// Sends it over TCP.
    pub async fn to(self, address: SocketAddr) -> Result<Answer> {
        let stream = TcpStream::connect(address)
            .await
            .with_context(|| format!("cannot connect to {address}"))?;
        self.over(stream, &address.to_string()).await
    }

    /// Sends it over a Unix socket.
    pub async fn to_socket(self, socket: &Path) -> Result<Answer> {
        let stream = UnixStream::connect(socket)
            .await
            .with_context(|| format!("cannot connect to {}", socket.display()))?;
        self.over(stream, "localhost").await
    }

    async fn over<S>(self, stream: S, host: &str) -> Result<Answer>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (mut requests, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let mut request = Request::builder().method(self.method).uri(&self.path).header(HOST, host);
        for (name, value) in self.headers {
            request = request.header(name, value);
        }
        let response =
            requests.send_request(request.body(Full::new(Bytes::from(self.body)))?).await?;
        let (head, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        drop(requests);
        let _ = connection.await;
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
    }
}

impl Answer {
    /// Its body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Its body as JSON; an answer that is not, or not a success, fails the test.
    pub fn json(&self) -> serde_json::Value {
        assert!((200..300).contains(&self.status), "answer {}: {}", self.status, self.text());
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.text()))
    }

    /// A header field as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}
