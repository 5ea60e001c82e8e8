//! Mail: one message to all readers, in plain text, through a server that the configuration names (RFC 5321).

use std::time::Duration;

use lettre::message::header::{ContentType, Header, HeaderName, HeaderValue};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{
    Certificate, CertificateStore, Tls, TlsParameters, TlsParametersBuilder,
};
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Message as Letter, Tokio1Executor};

use super::channel::SendError;
use super::message::Message;
use crate::config::{Mail, MailTls};

/// How long one command may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Written by a program, so nobody's absence is answered to it (RFC 3834 5).
#[derive(Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

/// Sends a message; says what the server answered.
pub(super) async fn send(mail: &Mail, message: &Message) -> Result<String, SendError> {
    let letter = letter(mail, message)?;
    let mut server = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&mail.server)
        .port(mail.port)
        .timeout(Some(PATIENCE))
        .tls(match mail.tls {
            MailTls::Off => Tls::None,
            MailTls::StartTls => Tls::Required(trust(mail)?),
            MailTls::Tls => Tls::Wrapper(trust(mail)?),
        });
    if let Some((user, password)) = &mail.credentials {
        server = server.credentials(Credentials::new(user.clone(), password.reveal().to_owned()));
    }
    let answer = server.build().send(letter).await.map_err(SendError::Mail)?;
    let said: Vec<_> = answer.message().collect();
    Ok(format!("it answered {} {}", answer.code(), said.join(" ")).trim_end().to_owned())
}

fn letter(mail: &Mail, message: &Message) -> Result<Letter, SendError> {
    let builder = Letter::builder()
        .from(mail.from.clone())
        .message_id(Some(format!("<{}@{}>", message.id, mail.from.email.domain())))
        .subject(message.subject())
        .header(AutoSubmitted)
        .header(ContentType::TEXT_PLAIN);
    let builder = mail.to.iter().cloned().fold(builder, lettre::message::MessageBuilder::to);
    builder.body(message.text()).map_err(|error| SendError::Message(Box::new(error)))
}

/// Whom to believe. Read anew each time, so a new file needs no restart.
fn trust(mail: &Mail) -> Result<TlsParameters, SendError> {
    let failed = |error: lettre::transport::smtp::Error| SendError::Tls(Box::new(error));
    let builder: TlsParametersBuilder = TlsParameters::builder(mail.server.clone());
    let builder = match &mail.authority {
        None => builder,
        Some(file) => {
            let pem = std::fs::read(file).map_err(|error| SendError::Tls(Box::new(error)))?;
            let authority = Certificate::from_pem(&pem).map_err(failed)?;
            builder.certificate_store(CertificateStore::None).add_root_certificate(authority)
        }
    };
    builder.build_rustls().map_err(failed)
}
