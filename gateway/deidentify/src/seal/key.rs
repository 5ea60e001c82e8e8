//! The private key of somebody who may read what was sealed, from a file.
//!
//! Kept only as long as needed, and wiped from memory afterwards; nothing prints it.

use pkcs8::EncryptedPrivateKeyInfo;
use rsa::pkcs1::DecodeRsaPrivateKey as _;
use rsa::pkcs8::{self, DecodePrivateKey as _};
use rsa::traits::PublicKeyParts as _;
use rsa::{RsaPrivateKey, RsaPublicKey};
use thiserror::Error;

use super::recipient::Certificate;

/// Why a file is no key to open with.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum KeyError {
    /// Nothing of the kind.
    #[error(
        "there is no private key in it: give one as PEM (BEGIN PRIVATE KEY, BEGIN RSA PRIVATE KEY or BEGIN ENCRYPTED PRIVATE KEY)"
    )]
    NoKey,
    /// Not RSA, or damaged.
    #[error("its private key is damaged, or is not an RSA key")]
    NotRsa,
    /// Needs a passphrase, and there is none.
    #[error("its private key is encrypted: give the passphrase")]
    PassphraseNeeded,
    /// A wrong one, or an encryption that is not known.
    #[error(
        "its private key cannot be decrypted: the passphrase is another, or the key is encrypted in a way other than PBES2 (convert it with openssl pkcs8 -topk8)"
    )]
    WrongPassphrase,
    /// OpenSSL's own format of the last century.
    #[error(
        "its private key is encrypted in OpenSSL's own old format: convert it with openssl pkcs8 -topk8"
    )]
    OldFormat,
    /// Of somebody else.
    #[error("the certificate belongs to another private key")]
    OtherCertificate,
}

/// A key to open with.
#[derive(Clone)]
pub struct PrivateKey {
    key: RsaPrivateKey,
    certificate: Option<Certificate>,
}

/// It is a secret.
impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PrivateKey").field("bits", &self.bits()).finish_non_exhaustive()
    }
}

impl PrivateKey {
    /// The first private key of a PEM file: PKCS#8, PKCS#8 encrypted with a passphrase, or PKCS#1.
    pub fn from_pem(bytes: &[u8], passphrase: Option<&[u8]>) -> Result<Self, KeyError> {
        let text = std::str::from_utf8(bytes).map_err(|_| KeyError::NoKey)?;
        let key = if let Some(block) = block(text, "PRIVATE KEY") {
            RsaPrivateKey::from_pkcs8_pem(block).map_err(|_| KeyError::NotRsa)?
        } else if let Some(block) = block(text, "ENCRYPTED PRIVATE KEY") {
            let passphrase = passphrase.ok_or(KeyError::PassphraseNeeded)?;
            let (_, encrypted) =
                der::SecretDocument::from_pem(block).map_err(|_| KeyError::NotRsa)?;
            let info = EncryptedPrivateKeyInfo::try_from(encrypted.as_bytes())
                .map_err(|_| KeyError::WrongPassphrase)?;
            let plain = info.decrypt(passphrase).map_err(|_| KeyError::WrongPassphrase)?;
            RsaPrivateKey::from_pkcs8_der(plain.as_bytes()).map_err(|_| KeyError::NotRsa)?
        } else if let Some(block) = block(text, "RSA PRIVATE KEY") {
            if block.contains("ENCRYPTED") {
                return Err(KeyError::OldFormat);
            }
            RsaPrivateKey::from_pkcs1_pem(block).map_err(|_| KeyError::NotRsa)?
        } else if block(text, "EC PRIVATE KEY").is_some() {
            return Err(KeyError::NotRsa);
        } else {
            return Err(KeyError::NoKey);
        };
        Ok(Self { key, certificate: None })
    }

    /// With its certificate, so that what is sealed to several is looked for by name. That it has expired does not matter:
    /// what was sealed to it is opened still.
    pub fn with_certificate(self, certificate: Certificate) -> Result<Self, KeyError> {
        if certificate.key() != &RsaPublicKey::from(&self.key) {
            return Err(KeyError::OtherCertificate);
        }
        Ok(Self { certificate: Some(certificate), ..self })
    }

    /// Bits of the key.
    pub fn bits(&self) -> usize {
        self.key.n().bits()
    }

    /// Its certificate, if it was given.
    pub fn certificate(&self) -> Option<&Certificate> {
        self.certificate.as_ref()
    }

    pub(super) fn rsa(&self) -> &RsaPrivateKey {
        &self.key
    }
}

/// The first PEM block of this kind; what stands around it does not matter.
fn block<'a>(text: &'a str, label: &str) -> Option<&'a str> {
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
    let from = text.find(&begin)?;
    let rest = text.get(from..)?;
    rest.get(..rest.find(&end)? + end.len())
}

#[cfg(test)]
mod tests {
    use rsa::pkcs1::EncodeRsaPrivateKey as _;
    use rsa::pkcs8::{EncodePrivateKey as _, LineEnding};

    use super::super::random::SealRng;
    use super::super::testing;
    use super::*;

    #[test]
    fn a_key_is_read_in_all_its_forms() {
        let made = testing::made("one");
        let plain = PrivateKey::from_pem(made.key_pem.as_bytes(), None).unwrap();
        let old = plain.key.to_pkcs1_pem(LineEnding::LF).unwrap();
        let encrypted = plain
            .key
            .to_pkcs8_encrypted_pem(SealRng::from_key(&[1; 32], b""), b"open", LineEnding::LF)
            .unwrap();
        let around = format!("Bag Attributes\n    friendlyName: x\n{}\n", made.key_pem);

        let read = |pem: &str, passphrase: Option<&[u8]>| {
            PrivateKey::from_pem(pem.as_bytes(), passphrase).map(|key| key.key)
        };
        assert_eq!(read(&old, None), Ok(plain.key.clone()));
        assert_eq!(read(&around, None), Ok(plain.key.clone()));
        assert_eq!(read(&encrypted, Some(b"open")), Ok(plain.key.clone()));
        assert_eq!(read(&encrypted, Some(b"closed")), Err(KeyError::WrongPassphrase));
        assert_eq!(read(&encrypted, None), Err(KeyError::PassphraseNeeded));
        assert_eq!(read(&made.pem(), None), Err(KeyError::NoKey));
        assert_eq!(read(&testing::elliptic().key_pem, None), Err(KeyError::NotRsa));
    }

    #[test]
    fn somebody_elses_certificate_is_refused() {
        let (one, other) = (testing::made("one"), testing::made("other"));
        let key = PrivateKey::from_pem(one.key_pem.as_bytes(), None).unwrap();

        assert!(key.clone().with_certificate(one.certificate()).is_ok());
        let refused = key.with_certificate(other.certificate()).unwrap_err();
        assert_eq!(refused, KeyError::OtherCertificate);
    }
}
