//! A webhook: one POST of a JSON document, on a connection of its own. Anything but 2xx is a failure, and a redirection too:
//! where it leads nobody has configured.
//!
//! With a secret, `Gantry-Signature: t=<seconds since 1970>,v1=<hexadecimal>` is the HMAC-SHA256 of the time as written there,
//! a full stop and the body. Whoever compares it, and the time with the clock, knows that the message is this node's and new.

use std::sync::Arc;

use bytes::Bytes;
use gantry_store::facts::Digest;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use ring::hmac;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::channel::SendError;
use super::message::Message;
use crate::config::Webhook;
use crate::tls;

/// How much of an answer is read.
const ANSWER: usize = 64 << 10;

/// Posts a message; says what was answered.
pub(super) async fn post(webhook: &Webhook, message: &Message) -> Result<String, SendError> {
    let body = serde_json::to_vec(message).map_err(|error| SendError::Message(Box::new(error)))?;
    let request = request(webhook, message, body)?;
    let Webhook { host, port, .. } = webhook;
    let stream = TcpStream::connect((host.as_str(), *port))
        .await
        .map_err(|source| SendError::Connect { host: host.clone(), port: *port, source })?;
    let answer = if webhook.encrypted {
        let name =
            ServerName::try_from(host.clone()).map_err(|error| SendError::Tls(Box::new(error)))?;
        let connector = TlsConnector::from(trust(webhook)?);
        let stream = connector.connect(name, stream).await.map_err(SendError::Handshake)?;
        exchange(stream, request).await?
    } else {
        exchange(stream, request).await?
    };
    match answer {
        200..300 => Ok(format!("it answered {answer}")),
        300..400 => Err(SendError::Redirected(answer)),
        _ => Err(SendError::Answer(answer)),
    }
}

fn request(
    webhook: &Webhook,
    message: &Message,
    body: Vec<u8>,
) -> Result<Request<Full<Bytes>>, SendError> {
    let name = if webhook.host.contains(':') {
        format!("[{}]", webhook.host)
    } else {
        webhook.host.clone()
    };
    let usual = if webhook.encrypted { 443 } else { 80 };
    let host = if webhook.port == usual { name } else { format!("{name}:{}", webhook.port) };
    let mut request = Request::post(&webhook.target)
        .header(HOST, host)
        .header(CONTENT_TYPE, "application/json")
        .header(USER_AGENT, concat!("gantry/", env!("CARGO_PKG_VERSION")));
    if let Some(secret) = &webhook.secret {
        let time = message.sent_at.as_second();
        request = request.header("gantry-signature", signature(secret.reveal(), time, &body));
    }
    request.body(Full::from(body)).map_err(|error| SendError::Message(Box::new(error)))
}

fn signature(secret: &str, time: i64, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signed = [format!("{time}.").as_bytes(), body].concat();
    let tag = hmac::sign(&key, &signed);
    // SHA-256 has 32 bytes, always.
    let tag = Digest(tag.as_ref().try_into().unwrap_or_default());
    format!("t={time},v1={tag}")
}

/// Whom to believe. Read anew each time, so a new file needs no restart.
fn trust(webhook: &Webhook) -> Result<Arc<ClientConfig>, SendError> {
    let roots = if let Some(file) = &webhook.authority {
        tls::read_authorities(std::slice::from_ref(file))
            .map_err(|error| SendError::Tls(Box::new(error)))?
    } else {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        roots
    };
    let config = ClientConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| SendError::Tls(Box::new(error)))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Sends the request and returns the status of the answer.
async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<u16, SendError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let failed = |error: hyper::Error| SendError::Http(Box::new(error));
    let (mut requests, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    // Ends with this exchange, also if that is given up.
    let mut connection = std::pin::pin!(connection);
    let exchanged = async {
        let answer: Response<Incoming> = requests.send_request(request).await.map_err(failed)?;
        let status = answer.status().as_u16();
        // Read so that the other side is not cut off in its answer; what it says is nothing to this node.
        let _ = Limited::new(answer.into_body(), ANSWER).collect().await;
        Ok(status)
    };
    let mut exchanged = std::pin::pin!(exchanged);
    tokio::select! {
        status = &mut exchanged => status,
        ended = &mut connection => match ended {
            Err(error) => Err(failed(error)),
            Ok(()) => exchanged.await,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_what_its_description_says() {
        // printf '%s' '1700000000.{"a":1}' | openssl dgst -sha256 -hmac 'It is a secret, really'
        let expected = "3934ec72527efa446245ee6765317ec09a1fd908c7560ca792c2a97405e6a5c4";
        let signed = signature("It is a secret, really", 1_700_000_000, br#"{"a":1}"#);
        assert_eq!(signed, format!("t=1700000000,v1={expected}"));
    }
}
