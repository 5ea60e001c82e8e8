//! Who may read what is sealed: certificates, checked before anything is encrypted to them.
//!
//! A [`Certificate`] is only read. A [`Recipient`] is one whose key may be encrypted to: RSA of at least [`LEAST_BITS`],
//! valid at the time, and meant for it. Whether its issuer is trusted is not asked: the person who names the file decides
//! who reads, and compares the fingerprint.

use std::fmt::Write as _;
use std::time::UNIX_EPOCH;

use der::asn1::ObjectIdentifier;
use der::{Decode as _, Encode as _};
use jiff::Timestamp;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use rsa::pkcs1;
use rsa::traits::PublicKeyParts as _;
use rsa::{BigUint, RsaPublicKey};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use thiserror::Error;
use x509_cert::Certificate as X509;
use x509_cert::ext::pkix::{KeyUsage, SubjectKeyIdentifier};

/// Bits of the shortest key that is encrypted to; what is sealed today is to stay so for decades.
pub const LEAST_BITS: usize = 3072;
/// Bits of the longest, which bounds what one foreign certificate costs.
const MOST_BITS: usize = 16_384;
/// Most certificates in one file.
const MOST_CERTIFICATES: usize = 64;

const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");

/// Why nothing may be sealed to a certificate; says what to do.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum RecipientError {
    /// Neither PEM nor DER.
    #[error(
        "there is no certificate in it: give an X.509 certificate as PEM (BEGIN CERTIFICATE) or DER"
    )]
    NoCertificate,
    /// A private key where a certificate is expected.
    #[error(
        "it holds a private key and no certificate: give the certificate, and keep the key offline"
    )]
    PrivateKey,
    /// Bytes that begin as a certificate.
    #[error("certificate {0} in it is damaged: ask its holder to send it again")]
    Damaged(usize),
    /// More than anybody reads.
    #[error("more than {MOST_CERTIFICATES} certificates in it: name the few that are to read it")]
    TooMany,
    /// Another kind of key.
    #[error(
        "the key of {subject} is not RSA, which PS3.15 E.1.1 asks for: ask for a certificate with an RSA key of {LEAST_BITS} bits or more"
    )]
    NotRsa {
        /// Of whom.
        subject: String,
    },
    /// Too short or absurdly long.
    #[error(
        "the key of {subject} has {bits} bits: ask for a certificate with an RSA key of {LEAST_BITS} to {MOST_BITS} bits"
    )]
    Bits {
        /// Of whom.
        subject: String,
        /// How many it has.
        bits: usize,
    },
    /// Its time is over.
    #[error("the certificate of {subject} expired on {at}: ask for its successor")]
    Expired {
        /// Of whom.
        subject: String,
        /// When.
        at: Timestamp,
    },
    /// Its time has not come.
    #[error(
        "the certificate of {subject} is valid from {at} on: wait until then, or set this machine's clock if that is wrong"
    )]
    NotYetValid {
        /// Of whom.
        subject: String,
        /// When it will be.
        at: Timestamp,
    },
    /// For signatures only, or an authority.
    #[error(
        "the certificate of {subject} is not meant for encryption (its keyUsage lacks keyEncipherment): ask for one that is"
    )]
    NotForEncryption {
        /// Of whom.
        subject: String,
    },
}

/// An X.509 certificate with an RSA key, not yet judged.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Certificate {
    parsed: X509,
    fingerprint: [u8; 32],
    key: RsaPublicKey,
    key_identifier: Vec<u8>,
}

/// A certificate that may be sealed to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Recipient(Certificate);

impl Certificate {
    /// Reads all certificates of a PEM file, or the one of a DER file.
    pub fn from_pem_or_der(bytes: &[u8]) -> Result<Vec<Self>, RecipientError> {
        let pem: Result<Vec<_>, _> =
            CertificateDer::pem_slice_iter(bytes).take(MOST_CERTIFICATES + 1).collect();
        match pem {
            Ok(pem) if pem.len() > MOST_CERTIFICATES => Err(RecipientError::TooMany),
            Ok(pem) if !pem.is_empty() => {
                pem.iter().enumerate().map(|(at, der)| Self::from_der(der, at + 1)).collect()
            }
            Ok(_) if bytes.first() == Some(&0x30) => Self::from_der(bytes, 1).map(|one| vec![one]),
            Ok(_) if has(bytes, b"PRIVATE KEY-----") => Err(RecipientError::PrivateKey),
            Ok(_) => Err(RecipientError::NoCertificate),
            Err(_) => Err(RecipientError::Damaged(1)),
        }
    }

    fn from_der(der: &[u8], number: usize) -> Result<Self, RecipientError> {
        let damaged = |_| RecipientError::Damaged(number);
        let parsed = X509::from_der(der).map_err(damaged)?;
        let info = &parsed.tbs_certificate.subject_public_key_info;
        if info.algorithm.oid != RSA_ENCRYPTION {
            return Err(RecipientError::NotRsa { subject: subject(&parsed) });
        }
        let bits = info.subject_public_key.as_bytes().ok_or(RecipientError::Damaged(number))?;
        let key = pkcs1::RsaPublicKey::from_der(bits).map_err(damaged)?;
        let modulus = BigUint::from_bytes_be(key.modulus.as_bytes());
        let exponent = BigUint::from_bytes_be(key.public_exponent.as_bytes());
        let length = modulus.bits();
        let key =
            RsaPublicKey::new_with_max_size(modulus, exponent, MOST_BITS).map_err(|error| {
                match error {
                    rsa::Error::ModulusTooLarge => {
                        RecipientError::Bits { subject: subject(&parsed), bits: length }
                    }
                    _ => RecipientError::Damaged(number),
                }
            })?;
        let written = parsed.tbs_certificate.get::<SubjectKeyIdentifier>().map_err(damaged)?;
        let key_identifier = match written {
            Some((_, identifier)) => identifier.0.as_bytes().to_vec(),
            // RFC 5280 4.2.1.2, method 1, which writers use where the certificate says nothing.
            None => digest(&SHA1_FOR_LEGACY_USE_ONLY, bits).as_ref().to_vec(),
        };
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(digest(&SHA256, der).as_ref());
        Ok(Self { parsed, fingerprint, key, key_identifier })
    }

    /// Whose it is, for people (RFC 4514).
    pub fn subject(&self) -> String {
        subject(&self.parsed)
    }

    /// Its serial number, in hexadecimal.
    pub fn serial(&self) -> String {
        hexadecimal(self.parsed.tbs_certificate.serial_number.as_bytes())
    }

    /// SHA-256 of the whole certificate.
    pub fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }

    /// The same in hexadecimal, as `openssl x509 -fingerprint -sha256` says it without its colons.
    pub fn fingerprint_hex(&self) -> String {
        hexadecimal(&self.fingerprint)
    }

    /// Bits of its key.
    pub fn bits(&self) -> usize {
        self.key.n().bits()
    }

    /// When its time ends.
    pub fn not_after(&self) -> Timestamp {
        timestamp(self.parsed.tbs_certificate.validity.not_after)
    }

    pub(super) fn key(&self) -> &RsaPublicKey {
        &self.key
    }

    pub(super) fn key_identifier(&self) -> &[u8] {
        &self.key_identifier
    }

    /// What CMS names it by.
    pub(super) fn issuer_and_serial(&self) -> cms::cert::IssuerAndSerialNumber {
        let certificate = &self.parsed.tbs_certificate;
        cms::cert::IssuerAndSerialNumber {
            issuer: certificate.issuer.clone(),
            serial_number: certificate.serial_number.clone(),
        }
    }
}

impl Recipient {
    /// All certificates of a PEM file, or the one of a DER file; refused if one of them may not be sealed to at this time.
    pub fn from_pem_or_der(bytes: &[u8], at: Timestamp) -> Result<Vec<Self>, RecipientError> {
        let certificates = Certificate::from_pem_or_der(bytes)?;
        certificates.into_iter().map(|certificate| Self::new(certificate, at)).collect()
    }

    /// This certificate, if it may be sealed to at this time.
    pub fn new(certificate: Certificate, at: Timestamp) -> Result<Self, RecipientError> {
        let (subject, bits) = (certificate.subject(), certificate.bits());
        if bits < LEAST_BITS {
            return Err(RecipientError::Bits { subject, bits });
        }
        let usage = certificate.parsed.tbs_certificate.get::<KeyUsage>();
        match usage.map_err(|_| RecipientError::Damaged(1))? {
            Some((_, usage)) if !usage.key_encipherment() => {
                return Err(RecipientError::NotForEncryption { subject });
            }
            _ => {}
        }
        let recipient = Self(certificate);
        recipient.check_time(at)?;
        Ok(recipient)
    }

    /// Whether its time has not ended since it was read: a node that runs for months asks again.
    pub fn check_time(&self, now: Timestamp) -> Result<(), RecipientError> {
        let validity = &self.0.parsed.tbs_certificate.validity;
        let (begin, end) = (timestamp(validity.not_before), timestamp(validity.not_after));
        if now < begin {
            return Err(RecipientError::NotYetValid { subject: self.subject(), at: begin });
        }
        if now > end {
            return Err(RecipientError::Expired { subject: self.subject(), at: end });
        }
        Ok(())
    }
}

impl std::ops::Deref for Recipient {
    type Target = Certificate;

    fn deref(&self) -> &Certificate {
        &self.0
    }
}

/// Each once, in an order that does not depend on that in which they were named.
pub(super) fn in_order(recipients: &[Recipient]) -> Vec<&Recipient> {
    let mut recipients: Vec<_> = recipients.iter().collect();
    recipients.sort_by_key(|recipient| recipient.0.fingerprint);
    recipients.dedup_by_key(|recipient| recipient.0.fingerprint);
    recipients
}

fn subject(certificate: &X509) -> String {
    // A name may be empty, and a peer's text may hold line ends, which must not come into a log.
    let name = certificate.tbs_certificate.subject.to_string();
    let name: String = name.chars().filter(|c| !c.is_control()).take(200).collect();
    if name.is_empty() {
        let serial = certificate.tbs_certificate.serial_number.as_bytes();
        return format!("certificate number {}", hexadecimal(serial));
    }
    name
}

fn timestamp(time: x509_cert::time::Time) -> Timestamp {
    let since = time.to_system_time().duration_since(UNIX_EPOCH).unwrap_or_default();
    // The last second of the year 9999, which means "for ever", is beyond what is told apart here.
    i64::try_from(since.as_secs())
        .ok()
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
        .unwrap_or(Timestamp::MAX)
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn has(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}

/// The encoded name of a recipient, to compare with.
pub(super) fn encoded(issuer: &cms::cert::IssuerAndSerialNumber) -> Option<Vec<u8>> {
    issuer.to_der().ok()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, Made};
    use super::*;

    #[test]
    fn several_certificates_in_one_file_are_several_recipients() {
        let now = Timestamp::now();
        let (one, other) = (testing::made("one"), testing::made("other"));
        let text = format!("Bag Attributes\n{}\nsome text\n{}", one.pem(), other.pem());

        let both = Recipient::from_pem_or_der(text.as_bytes(), now).unwrap();

        assert_eq!(both.len(), 2);
        assert_eq!(both[0].subject(), "CN=one");
        assert_eq!(both[0].fingerprint_hex().len(), 64);
        assert_ne!(both[0].fingerprint(), both[1].fingerprint());
        assert_eq!(Recipient::from_pem_or_der(&other.der, now).unwrap(), [both[1].clone()]);
    }

    #[test]
    fn what_may_not_be_sealed_to_is_refused_with_a_remedy() {
        let now = Timestamp::now();
        let refused = |made: &Made| Recipient::from_pem_or_der(&made.der, now).unwrap_err();

        let short = refused(&testing::short());
        assert!(matches!(&short, RecipientError::Bits { bits: 2048, .. }), "{short}");
        let signing = refused(&testing::signing_only());
        assert!(matches!(&signing, RecipientError::NotForEncryption { .. }), "{signing}");
        let elliptic = refused(&testing::elliptic());
        assert!(matches!(&elliptic, RecipientError::NotRsa { .. }), "{elliptic}");
        for error in [short, signing, elliptic] {
            assert!(error.to_string().contains(": ask for"), "{error}");
        }
    }

    #[test]
    fn a_certificate_counts_between_its_first_and_its_last_second() {
        let made = testing::made("one");
        let certificate = Certificate::from_pem_or_der(&made.der).unwrap().remove(0);
        let end = certificate.not_after();
        let second = jiff::SignedDuration::from_secs(1);

        assert!(Recipient::new(certificate.clone(), end).is_ok());
        let late = Recipient::new(certificate.clone(), end + second).unwrap_err();
        let early = Recipient::new(certificate, Timestamp::UNIX_EPOCH).unwrap_err();

        assert_eq!(late, RecipientError::Expired { subject: "CN=one".to_owned(), at: end });
        assert!(matches!(early, RecipientError::NotYetValid { .. }));
    }

    #[test]
    fn what_is_no_certificate_says_what_it_is() {
        let refused = |bytes: &[u8]| Certificate::from_pem_or_der(bytes).unwrap_err();
        let made = testing::made("one");

        assert_eq!(refused(b"hello"), RecipientError::NoCertificate);
        assert_eq!(refused(b""), RecipientError::NoCertificate);
        assert_eq!(refused(made.key_pem.as_bytes()), RecipientError::PrivateKey);
        assert_eq!(refused(&made.der[..40]), RecipientError::Damaged(1));
        let cut = format!("{}{}", made.pem(), made.pem().replacen("MII", "MIA", 1));
        assert_eq!(refused(cut.as_bytes()), RecipientError::Damaged(2));
    }
}
