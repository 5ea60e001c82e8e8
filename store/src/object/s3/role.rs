//! Credentials of the role that a machine has at AWS, asked of its metadata service (IMDSv2).
//!
//! The service is on a link-local address that only the machine itself reaches: a token first, which no request forged by
//! way of a proxy can have, then the role's name, then an access key that lasts some hours. The SDK asks again before it
//! ends. `AWS_EC2_METADATA_SERVICE_ENDPOINT` names another address, as for AWS's own programs.

use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, future};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::Request;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::time::timeout;

const SERVICE: &str = "http://169.254.169.254";
const ROLES: &str = "/latest/meta-data/iam/security-credentials/";
/// The service is on the same machine; where there is none, nobody answers.
const PATIENCE: Duration = Duration::from_secs(5);
/// No answer of it is longer.
const LONGEST: usize = 64 << 10;

/// Asks the metadata service.
#[derive(Debug)]
pub(super) struct InstanceRole {
    service: String,
}

/// What the service answers.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Role {
    access_key_id: String,
    secret_access_key: String,
    token: String,
    expiration: Timestamp,
}

impl InstanceRole {
    pub(super) fn new() -> Self {
        let service = std::env::var("AWS_EC2_METADATA_SERVICE_ENDPOINT");
        Self::at(service.as_deref().unwrap_or(SERVICE))
    }

    fn at(service: &str) -> Self {
        Self { service: service.trim_end_matches('/').to_owned() }
    }

    async fn load(&self) -> Result<Credentials, String> {
        let seconds = ("X-aws-ec2-metadata-token-ttl-seconds", "21600");
        let token = self.ask("PUT", "/latest/api/token", seconds).await?;
        let token = ("X-aws-ec2-metadata-token", token.trim());
        let roles = self.ask("GET", ROLES, token).await?;
        let role = roles.lines().next().unwrap_or_default().trim();
        if role.is_empty() {
            return Err("the machine has no role".to_owned());
        }
        let answer = self.ask("GET", &format!("{ROLES}{role}"), token).await?;
        // The answer holds a secret, so what is wrong with it is not quoted.
        let role: Role = serde_json::from_str(&answer)
            .map_err(|_| "the metadata service's answer makes no sense".to_owned())?;
        Ok(Credentials::new(
            role.access_key_id,
            role.secret_access_key,
            Some(role.token),
            Some(SystemTime::from(role.expiration)),
            "instance role",
        ))
    }

    async fn ask(&self, method: &str, path: &str, header: (&str, &str)) -> Result<String, String> {
        let silent = |_| "the metadata service does not answer".to_owned();
        timeout(PATIENCE, self.exchange(method, path, header)).await.map_err(silent)?
    }

    async fn exchange(
        &self,
        method: &str,
        path: &str,
        (name, value): (&str, &str),
    ) -> Result<String, String> {
        let failed = |error: &dyn std::error::Error| {
            format!("the metadata service cannot be asked: {error}")
        };
        let host = self.service.strip_prefix("http://").unwrap_or(&self.service);
        let address = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
        let stream = TcpStream::connect(&address).await.map_err(|error| failed(&error))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
        let connection = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", host)
            .header("content-length", "0")
            .header(name, value)
            .body(Empty::<Bytes>::new())
            .map_err(|error| failed(&error))?;
        let answer = sender.send_request(request).await.map_err(|error| failed(&error))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), LONGEST).collect().await;
        connection.abort();
        let body = body.map_err(|error| failed(&*error))?.to_bytes();
        if !status.is_success() {
            return Err(format!("the metadata service said {}", status.as_u16()));
        }
        String::from_utf8(body.to_vec()).map_err(|error| failed(&error))
    }
}

impl ProvideCredentials for InstanceRole {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let load = async { self.load().await.map_err(CredentialsError::provider_error) };
        future::ProvideCredentials::new(load)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    /// Answers as the service does, to whoever shows its token.
    async fn service(listener: TcpListener) {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let count = stream.read(&mut request).await.unwrap();
            let request = String::from_utf8_lossy(&request[..count]).to_ascii_lowercase();
            let has_token = request.contains("x-aws-ec2-metadata-token: the-token");
            let (status, body) = match request.split(' ').nth(1).unwrap_or_default() {
                "/latest/api/token" if request.starts_with("put ") => ("200 OK", "the-token"),
                _ if !has_token => ("401 Unauthorized", ""),
                "/latest/meta-data/iam/security-credentials/" => ("200 OK", "gateway\n"),
                "/latest/meta-data/iam/security-credentials/gateway" => (
                    "200 OK",
                    r#"{"Code":"Success","AccessKeyId":"ASIA1","SecretAccessKey":"s","Token":"t",
                        "Expiration":"2100-01-01T00:00:00Z"}"#,
                ),
                _ => ("404 Not Found", ""),
            };
            let answer =
                format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn the_machines_role_is_asked_for_with_a_token() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(service(listener));

        let credentials = InstanceRole::at(&at).provide_credentials().await.unwrap();

        assert_eq!(
            (
                credentials.access_key_id(),
                credentials.secret_access_key(),
                credentials.session_token()
            ),
            ("ASIA1", "s", Some("t"))
        );
        assert!(credentials.expiry().unwrap() > SystemTime::now());
    }

    #[tokio::test]
    async fn a_machine_without_the_service_says_so() {
        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let error = InstanceRole::at(&format!("http://{nobody}")).load().await.unwrap_err();
        assert!(error.starts_with("the metadata service cannot be asked"), "{error}");
    }
}
