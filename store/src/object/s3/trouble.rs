//! What goes wrong with a store on the network, in words that say whose move it is.
//!
//! The SDK tells a failed request as a chain of a dozen errors, and S3 as a code that every server spells its own way.
//! Both end here, once: as one of the things that an administrator can do something about.

use std::error::Error;
use std::io;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use rustls::CertificateError;
use thiserror::Error;

/// Why the store did not do what it was asked.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum Trouble {
    /// The endpoint's name has no address.
    #[error("there is no host of the endpoint's name")]
    NoSuchHost,
    /// Nobody listens there.
    #[error("the endpoint refuses connections")]
    Refused,
    /// The endpoint does not answer, or too slowly.
    #[error("the endpoint did not answer in time")]
    TimedOut,
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// The endpoint's certificate is not one that is believed, or it does not speak TLS.
    #[error("TLS with the endpoint failed: {0}")]
    Tls(String),
    /// There are no credentials to sign with.
    #[error("there are no credentials: {0}")]
    NoCredentials(String),
    /// The access key is unknown, or its secret is another one.
    #[error("the store does not accept the access key or its secret ({0})")]
    WrongKey(String),
    /// The key is right and may not do this.
    #[error("the access key is not allowed to do this (403)")]
    NotAllowed,
    /// There is no such bucket.
    #[error("there is no such bucket")]
    NoBucket,
    /// The clocks of this machine and of the store disagree, so signatures are refused.
    #[error(
        "this machine's clock and the store's disagree by many minutes, so that signatures are refused"
    )]
    ClockSkew,
    /// The bucket is in another region.
    #[error("the bucket is in another region{}", .0.as_ref().map(|region| format!(": {region}")).unwrap_or_default())]
    WrongRegion(Option<String>),
    /// The store has no room, or the quota is used up.
    #[error("the store has no room left for this key or bucket ({0})")]
    Full(String),
    /// The store asks for patience, or is in trouble itself.
    #[error("the store is overloaded or in trouble ({status} {code})")]
    Busy {
        /// HTTP status.
        status: u16,
        /// S3's code for it.
        code: String,
    },
    /// What the store got, or gave, is not what was sent.
    #[error("content was damaged on its way ({0})")]
    Damaged(String),
    /// Anything else that the store said.
    #[error("the store said {status} {code}")]
    Other {
        /// HTTP status.
        status: u16,
        /// S3's code for it.
        code: String,
    },
    /// The answer makes no sense.
    #[error("the store's answer makes no sense: {0}")]
    Nonsense(String),
}

impl Trouble {
    /// Whether another object would fare no better.
    pub fn concerns_all(&self) -> bool {
        match self {
            Self::Damaged(_) | Self::Other { .. } => false,
            Self::NoSuchHost
            | Self::Refused
            | Self::TimedOut
            | Self::Broken(_)
            | Self::Tls(_)
            | Self::NoCredentials(_)
            | Self::WrongKey(_)
            | Self::NotAllowed
            | Self::NoBucket
            | Self::ClockSkew
            | Self::WrongRegion(_)
            | Self::Full(_)
            | Self::Busy { .. }
            | Self::Nonsense(_) => true,
        }
    }

    /// Whether the store may have done what it was asked although it did not say so.
    pub(super) fn leaves_doubt(&self) -> bool {
        matches!(self, Self::TimedOut | Self::Broken(_) | Self::Busy { .. } | Self::Nonsense(_))
    }

    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::NoSuchHost => {
                "correct endpoint (or region), or ask whoever runs the name servers"
            }
            Self::Refused => "correct the endpoint's port, or start the server there",
            Self::TimedOut => {
                "ask whether a firewall is between this machine and the endpoint, and whether the store is well"
            }
            Self::Broken(_) => "ask whoever runs the store; what waits is tried again by itself",
            Self::Tls(_) => {
                "name the authority that issued the endpoint's certificate in authority; the endpoint's name must be in the certificate"
            }
            Self::NoCredentials(_) => {
                "write credentials-file, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or instance-role = true"
            }
            Self::WrongKey(_) => "correct the access key and secret",
            Self::NotAllowed => {
                "allow the key s3:GetObject, s3:PutObject, s3:DeleteObject, s3:ListBucket, s3:AbortMultipartUpload and s3:ListBucketMultipartUploads on this bucket; with sse = \"aws:kms\" also the use of the KMS key"
            }
            Self::NoBucket => {
                "make the bucket, or correct its name; Gantry makes none itself. Servers other than AWS mostly need path-style = true"
            }
            Self::ClockSkew => "set this machine's clock by NTP (timedatectl set-ntp true)",
            Self::WrongRegion(_) => "correct region",
            Self::Full(_) => {
                "make room in the store, or raise the quota; what waits is tried again by itself"
            }
            Self::Busy { .. } => {
                "wait: what waits is tried again by itself; if it lasts, ask whoever runs the store"
            }
            Self::Damaged(_) => {
                "look for a proxy or network device that changes what passes it; what waits is tried again by itself"
            }
            Self::Other { .. } | Self::Nonsense(_) => {
                "ask whoever runs the store; the endpoint must speak S3"
            }
        }
    }
}

/// What a failed request means.
pub(super) fn trouble<E>(error: &SdkError<E, HttpResponse>) -> Trouble
where
    E: ProvideErrorMetadata + Error + 'static,
{
    match error {
        SdkError::TimeoutError(_) => Trouble::TimedOut,
        SdkError::ServiceError(context) => {
            let raw = context.raw();
            let region = raw.headers().get("x-amz-bucket-region").map(str::to_owned);
            answered(raw.status().as_u16(), context.err().code(), region)
        }
        SdkError::ResponseError(context) if !context.raw().status().is_success() => {
            let region = context.raw().headers().get("x-amz-bucket-region").map(str::to_owned);
            answered(context.raw().status().as_u16(), None, region)
        }
        SdkError::ConstructionFailure(_) if mentions(error, "credential") => {
            Trouble::NoCredentials(innermost(error))
        }
        other => connection(other),
    }
}

/// What the store's answer means. `code` is missing where the answer has no body, as to HEAD.
fn answered(status: u16, code: Option<&str>, region: Option<String>) -> Trouble {
    // A code is a word; anything longer is somebody else's text, which does not belong in a log.
    let code =
        code.filter(|code| code.len() <= 64 && code.bytes().all(|b| b.is_ascii_alphanumeric()));
    match (status, code.unwrap_or_default()) {
        (
            _,
            code @ ("InvalidAccessKeyId"
            | "SignatureDoesNotMatch"
            | "InvalidToken"
            | "ExpiredToken"),
        ) => Trouble::WrongKey(code.to_owned()),
        (_, "RequestTimeTooSkewed") => Trouble::ClockSkew,
        (_, "NoSuchBucket") => Trouble::NoBucket,
        (
            _,
            "PermanentRedirect"
            | "AuthorizationHeaderMalformed"
            | "IllegalLocationConstraintException",
        )
        | (301 | 307, _) => Trouble::WrongRegion(region),
        (
            _,
            code @ ("QuotaExceeded"
            | "InsufficientCapacity"
            | "XMinioStorageFull"
            | "ServiceQuotaExceeded"),
        )
        | (507, code) => Trouble::Full(code.to_owned()),
        (
            _,
            code @ ("BadDigest"
            | "XAmzContentSHA256Mismatch"
            | "InvalidDigest"
            | "IncompleteBody"
            | "ContentSHA256Mismatch"),
        ) => Trouble::Damaged(code.to_owned()),
        (403, _) => Trouble::NotAllowed,
        (408 | 429 | 500.., code) => Trouble::Busy { status, code: code.to_owned() },
        (status, code) => Trouble::Other { status, code: code.to_owned() },
    }
}

/// What a failure below HTTP means: the first cause that says something.
pub(super) fn connection(error: &(dyn Error + 'static)) -> Trouble {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(trouble) = cause_of(error) {
            return trouble;
        }
        cause = error.source();
    }
    if mentions(error, "failed to lookup address") || mentions(error, "dns error") {
        return Trouble::NoSuchHost;
    }
    if mentions(error, "timed out") || mentions(error, "timeout") || mentions(error, "throughput") {
        return Trouble::TimedOut;
    }
    Trouble::Broken(innermost(error))
}

fn cause_of(error: &(dyn Error + 'static)) -> Option<Trouble> {
    if let Some(tls) = error.downcast_ref::<rustls::Error>() {
        return Some(certificate(tls));
    }
    let io = error.downcast_ref::<io::Error>()?;
    match io.kind() {
        io::ErrorKind::ConnectionRefused => Some(Trouble::Refused),
        io::ErrorKind::TimedOut => Some(Trouble::TimedOut),
        // What it wraps is not among its sources.
        _ => cause_of(io.get_ref()?),
    }
}

fn certificate(error: &rustls::Error) -> Trouble {
    let words = match error {
        rustls::Error::InvalidCertificate(reason) => match reason {
            CertificateError::UnknownIssuer => {
                "its certificate comes from an authority that is not believed".to_owned()
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "its certificate is for another name".to_owned()
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "its certificate has expired".to_owned()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "its certificate is not valid yet".to_owned()
            }
            other => other.to_string(),
        },
        rustls::Error::InvalidMessage(_) => "it does not speak TLS on that port".to_owned(),
        other => other.to_string(),
    };
    Trouble::Tls(words)
}

fn mentions(error: &(dyn Error + 'static), words: &str) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.to_string().to_ascii_lowercase().contains(words) {
            return true;
        }
        cause = error.source();
    }
    false
}

fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_store_says_becomes_what_can_be_done() {
        let said =
            |status, code: &str| answered(status, Some(code).filter(|code| !code.is_empty()), None);
        for (status, code, trouble) in [
            (403, "InvalidAccessKeyId", Trouble::WrongKey("InvalidAccessKeyId".to_owned())),
            (403, "SignatureDoesNotMatch", Trouble::WrongKey("SignatureDoesNotMatch".to_owned())),
            (403, "RequestTimeTooSkewed", Trouble::ClockSkew),
            (403, "AccessDenied", Trouble::NotAllowed),
            (403, "", Trouble::NotAllowed),
            (404, "NoSuchBucket", Trouble::NoBucket),
            (
                400,
                "XAmzContentSHA256Mismatch",
                Trouble::Damaged("XAmzContentSHA256Mismatch".to_owned()),
            ),
            (503, "SlowDown", Trouble::Busy { status: 503, code: "SlowDown".to_owned() }),
            (500, "", Trouble::Busy { status: 500, code: String::new() }),
            (507, "", Trouble::Full(String::new())),
            (
                400,
                "EntityTooLarge",
                Trouble::Other { status: 400, code: "EntityTooLarge".to_owned() },
            ),
            (400, "<patient's name>", Trouble::Other { status: 400, code: String::new() }),
        ] {
            assert_eq!(said(status, code), trouble, "{status} {code}");
        }
        let elsewhere = answered(301, Some("PermanentRedirect"), Some("eu-west-2".to_owned()));
        assert_eq!(elsewhere.to_string(), "the bucket is in another region: eu-west-2");
    }

    #[test]
    fn trouble_with_one_object_is_not_trouble_with_all() {
        assert!(!Trouble::Damaged(String::new()).concerns_all());
        assert!(Trouble::TimedOut.concerns_all() && Trouble::TimedOut.leaves_doubt());
        assert!(!Trouble::Refused.leaves_doubt(), "nothing was asked of anybody");
    }
}
