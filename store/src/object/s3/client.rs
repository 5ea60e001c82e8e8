//! The SDK's client, set up once: one cryptographic library, time-outs everywhere, few tries of its own.

use std::time::Duration;

use aws_runtime::auth::SigV4OperationSigningConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::interceptors::BeforeTransmitInterceptorContextMut;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Builder, ConfigBag, Credentials as Signer, Intercept, Region,
    RequestChecksumCalculation, ResponseChecksumValidation, RuntimeComponents,
};
use aws_sdk_s3::error::BoxError;
use aws_sigv4::http_request::SignableBody;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};

use super::role::InstanceRole;
use super::settings::{Credentials, Settings};

/// How often the SDK tries a request that failed in a way that may pass. Few, because whoever asks tries again too, with
/// waits of its own.
const TRIES: u32 = 2;

pub(super) fn client(settings: &Settings) -> Client {
    let mut config = Builder::new()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(settings.region.clone()))
        .force_path_style(settings.path_style)
        .http_client(http(settings.authorities.as_deref()))
        // Checksums in trailers are what most servers other than AWS refuse; where wanted, they are set by hand.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .retry_config(
            RetryConfig::standard()
                .with_max_attempts(TRIES)
                .with_initial_backoff(Duration::from_millis(200)),
        )
        .timeout_config(timeouts(settings, 0));
    config.set_endpoint_url(settings.endpoint.clone());
    config = match &settings.credentials {
        Credentials::Key { id, secret, token } => config.credentials_provider(Signer::new(
            id,
            secret.as_str(),
            token.as_ref().map(|token| token.to_string()),
            None,
            "gantry",
        )),
        // Not asked for: who has none is refused before.
        Credentials::Missing => config,
        Credentials::InstanceRole => config.credentials_provider(InstanceRole::new()),
    };
    Client::from_conf(config.build())
}

/// The bounds of one request that carries so many bytes, whichever way.
pub(super) fn timeouts(settings: &Settings, bytes: u64) -> TimeoutConfig {
    let carrying = Duration::from_secs(bytes / Settings::SLOWEST);
    TimeoutConfig::builder()
        .connect_timeout(settings.connect_timeout)
        .operation_attempt_timeout(settings.response_timeout + carrying)
        .build()
}

fn http(authorities: Option<&[u8]>) -> aws_sdk_s3::config::SharedHttpClient {
    let client =
        aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring));
    let Some(authorities) = authorities else { return client.build_https() };
    let trusted = TrustStore::empty().with_pem_certificate(authorities);
    match TlsContext::builder().with_trust_store(trusted).build() {
        Ok(context) => client.tls_context(context).build_https(),
        // The builder has nothing that can fail with this provider; if it ever does, nobody is believed.
        Err(_) => aws_smithy_http_client::Builder::new().build_http(),
    }
}

/// Signs a request together with the SHA-256 of its body, which is known before the body is read. So a store that
/// checks signatures refuses a body that was damaged on its way, also one that is streamed.
#[derive(Debug)]
pub(super) struct SignedBody(String);

impl SignedBody {
    pub(super) fn new(sha256: &[u8]) -> Self {
        Self(hex(sha256))
    }
}

impl Intercept for SignedBody {
    fn name(&self) -> &'static str {
        "SignedBody"
    }

    fn modify_before_signing(
        &self,
        _context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let signing = bag.load::<SigV4OperationSigningConfig>().cloned();
        let mut signing = signing.ok_or("this operation is not signed")?;
        signing.signing_options.payload_override = Some(SignableBody::Precomputed(self.0.clone()));
        bag.interceptor_state().store_put(signing);
        Ok(())
    }
}

/// Hexadecimal digits, as S3 and our metadata have them.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
