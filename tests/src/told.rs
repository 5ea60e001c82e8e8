//! Whoever is told of alarms: a web server that takes what is posted to it, and a mail server (RFC 5321) with STARTTLS
//! (RFC 3207), TLS from the first byte, and AUTH PLAIN (RFC 4954).

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::LOCATION;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::certificates::Identity;

/// What was posted.
#[derive(Clone, Debug)]
pub struct Posted {
    /// Path and query.
    pub target: String,
    /// `Gantry-Signature`, if it was there.
    pub signature: Option<String>,
    /// The body as it came.
    pub body: String,
}

impl Posted {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("what is posted is JSON")
    }
}

/// A web server on a port of its own.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    shared: Arc<Answers>,
    _listening: JoinSet<()>,
}

#[derive(Debug)]
struct Answers {
    status: AtomicU16,
    location: Mutex<String>,
    posted: Mutex<Vec<Posted>>,
    refused: Mutex<usize>,
}

impl Receiver {
    /// One that takes everything over plain HTTP.
    pub async fn start() -> Self {
        Self::listen(None).await
    }

    /// One that takes everything over TLS.
    pub async fn over_tls(identity: &Identity) -> Self {
        Self::listen(Some(acceptor(identity))).await
    }

    async fn listen(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let shared = Arc::new(Answers {
            status: AtomicU16::new(200),
            location: Mutex::default(),
            posted: Mutex::default(),
            refused: Mutex::default(),
        });
        let mut listening = JoinSet::new();
        let answers = shared.clone();
        listening.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (answers, tls) = (answers.clone(), tls.clone());
                connections.spawn(async move {
                    match tls {
                        None => serve(stream, answers).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, answers).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, shared, _listening: listening }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// From now on everything is answered so; what is not 2xx is not taken.
    pub fn answers(&self, status: u16) {
        self.shared.status.store(status, Ordering::SeqCst);
    }

    /// From now on everybody is sent elsewhere.
    pub fn redirects_to(&self, address: &str) {
        address.clone_into(&mut self.shared.location.lock().expect("nobody panicked"));
        self.answers(307);
    }

    /// What it took.
    pub fn posted(&self) -> Vec<Posted> {
        self.shared.posted.lock().expect("nobody panicked").clone()
    }

    /// How much it did not take.
    pub fn refused(&self) -> usize {
        *self.shared.refused.lock().expect("nobody panicked")
    }

    /// What was told of alarms: event, kind and id of each, in order.
    pub fn told(&self) -> Vec<(String, String, String)> {
        let of = |event: &Value, key: &str| event[key].as_str().expect("a text").to_owned();
        let events = self.posted().into_iter().flat_map(|posted| {
            posted.json()["events"].as_array().expect("a message has events").clone()
        });
        events.map(|event| (of(&event, "event"), of(&event, "kind"), of(&event, "id"))).collect()
    }
}

async fn serve<S>(stream: S, answers: Arc<Answers>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = service_fn(|request: Request<Incoming>| {
        let answers = answers.clone();
        async move {
            let target =
                request.uri().path_and_query().map_or("/", |both| both.as_str()).to_owned();
            let signature = request.headers().get("gantry-signature");
            let signature = signature.map(|text| text.to_str().expect("ASCII").to_owned());
            let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes);
            let body = String::from_utf8(body.unwrap_or_default().to_vec()).expect("UTF-8");
            let status = answers.status.load(Ordering::SeqCst);
            if (200..300).contains(&status) {
                let posted = Posted { target, signature, body };
                answers.posted.lock().expect("nobody panicked").push(posted);
            } else {
                *answers.refused.lock().expect("nobody panicked") += 1;
            }
            let location = answers.location.lock().expect("nobody panicked").clone();
            let answer = Response::builder().status(status).header(LOCATION, location);
            Ok::<_, Infallible>(answer.body(Full::new(Bytes::new())).expect("an answer"))
        }
    });
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// A mail that arrived.
#[derive(Clone, Debug)]
pub struct Letter {
    /// The envelope's readers.
    pub to: Vec<String>,
    /// Header and body.
    pub text: String,
    /// Whether it came over TLS.
    pub encrypted: bool,
    /// Who signed in: user and password.
    pub credentials: Option<(String, String)>,
}

/// How a mail server speaks TLS.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MailTls {
    /// Not at all.
    Off,
    /// After STARTTLS.
    Start,
    /// From the first byte.
    First,
}

/// A mail server on a port of its own.
#[derive(Debug)]
pub struct MailServer {
    address: SocketAddr,
    letters: Arc<Mutex<Vec<Letter>>>,
    _listening: JoinSet<()>,
}

impl MailServer {
    /// One that takes all mail.
    pub async fn start(tls: MailTls, identity: &Identity) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let letters: Arc<Mutex<Vec<Letter>>> = Arc::default();
        let (kept, acceptor) = (letters.clone(), acceptor(identity));
        let mut listening = JoinSet::new();
        listening.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (kept, acceptor) = (kept.clone(), acceptor.clone());
                connections.spawn(async move { serve_mail(stream, tls, acceptor, kept).await });
            }
        });
        Self { address, letters, _listening: listening }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// What arrived.
    pub fn letters(&self) -> Vec<Letter> {
        self.letters.lock().expect("nobody panicked").clone()
    }
}

async fn serve_mail(
    stream: TcpStream,
    tls: MailTls,
    acceptor: TlsAcceptor,
    letters: Arc<Mutex<Vec<Letter>>>,
) -> std::io::Result<()> {
    if tls == MailTls::First {
        let stream = acceptor.accept(stream).await?;
        return Talk::new(stream, true, false).greeted(&letters).await.map(drop);
    }
    let talk = Talk::new(stream, false, tls == MailTls::Start);
    if let Some(stream) = talk.greeted(&letters).await? {
        let stream = acceptor.accept(stream).await?;
        Talk::new(stream, true, false).talk(&letters).await?;
    }
    Ok(())
}

/// One conversation, up to STARTTLS or its end.
struct Talk<S> {
    stream: BufReader<S>,
    encrypted: bool,
    offers_tls: bool,
    credentials: Option<(String, String)>,
    to: Vec<String>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Talk<S> {
    fn new(stream: S, encrypted: bool, offers_tls: bool) -> Self {
        let stream = BufReader::new(stream);
        Self { stream, encrypted, offers_tls, credentials: None, to: Vec::new() }
    }

    async fn say(&mut self, line: &str) -> std::io::Result<()> {
        self.stream.write_all(format!("{line}\r\n").as_bytes()).await?;
        self.stream.flush().await
    }

    async fn hear(&mut self) -> std::io::Result<Option<String>> {
        let mut line = String::new();
        let read = self.stream.read_line(&mut line).await?;
        Ok((read > 0).then(|| line.trim_end_matches(['\r', '\n']).to_owned()))
    }

    async fn greeted(mut self, letters: &Mutex<Vec<Letter>>) -> std::io::Result<Option<S>> {
        self.say("220 mail.test ESMTP").await?;
        self.talk(letters).await
    }

    /// Returns the connection when the client wants TLS on it.
    async fn talk(mut self, letters: &Mutex<Vec<Letter>>) -> std::io::Result<Option<S>> {
        while let Some(line) = self.hear().await? {
            let verb = line.split([' ', ':']).next().unwrap_or_default().to_uppercase();
            match verb.as_str() {
                "EHLO" if self.offers_tls => {
                    self.say("250-mail.test\r\n250-8BITMIME\r\n250 STARTTLS").await?;
                }
                "EHLO" => self.say("250-mail.test\r\n250-8BITMIME\r\n250 AUTH PLAIN").await?,
                "STARTTLS" if self.offers_tls => {
                    self.say("220 go ahead").await?;
                    return Ok(Some(self.stream.into_inner()));
                }
                "AUTH" => {
                    self.credentials = plain(line.rsplit(' ').next().unwrap_or_default());
                    self.say("235 welcome").await?;
                }
                "MAIL" => {
                    self.to.clear();
                    self.say("250 ok").await?;
                }
                "RCPT" => {
                    let reader = line.split(['<', '>']).nth(1).unwrap_or_default();
                    self.to.push(reader.to_owned());
                    self.say("250 ok").await?;
                }
                "DATA" => {
                    self.say("354 go on").await?;
                    let mut text = String::new();
                    while let Some(line) = self.hear().await?.filter(|line| line != ".") {
                        text.push_str(line.strip_prefix('.').unwrap_or(&line));
                        text.push('\n');
                    }
                    let credentials = self.credentials.clone();
                    let (to, encrypted) = (self.to.clone(), self.encrypted);
                    letters.lock().expect("nobody panicked").push(Letter {
                        to,
                        text,
                        encrypted,
                        credentials,
                    });
                    self.say("250 queued as 1").await?;
                }
                "QUIT" => {
                    self.say("221 bye").await?;
                    break;
                }
                "NOOP" | "RSET" => self.say("250 ok").await?,
                _ => self.say("500 what?").await?,
            }
        }
        Ok(None)
    }
}

/// User and password of AUTH PLAIN (RFC 4616): an identity, a user and a password, with NUL between them.
fn plain(base64: &str) -> Option<(String, String)> {
    let decoded = String::from_utf8(STANDARD.decode(base64).ok()?).ok()?;
    let mut parts = decoded.split('\0').skip(1);
    Some((parts.next()?.to_owned(), parts.next()?.to_owned()))
}

fn acceptor(identity: &Identity) -> TlsAcceptor {
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(&identity.certificate)
        .expect("the certificate reads")
        .collect();
    let key = PrivateKeyDer::from_pem_file(&identity.key).expect("the key reads");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring knows the versions")
        .with_no_client_auth()
        .with_single_cert(chain.expect("the certificate reads"), key)
        .expect("the key fits");
    TlsAcceptor::from(Arc::new(config))
}
