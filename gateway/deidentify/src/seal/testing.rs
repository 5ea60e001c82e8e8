//! Certificates for tests, made when they run from three keys that open nothing else: making an RSA key takes seconds.

use jiff::Timestamp;
use rcgen::{CertificateParams, DnType, KeyPair, KeyUsagePurpose};

use super::key::PrivateKey;
use super::recipient::{Certificate, Recipient};

/// A certificate with its key.
pub(crate) struct Made {
    pub(crate) der: Vec<u8>,
    pub(crate) key_pem: String,
    pem: String,
}

impl Made {
    pub(crate) fn pem(&self) -> String {
        self.pem.clone()
    }

    pub(crate) fn certificate(&self) -> Certificate {
        Certificate::from_pem_or_der(&self.der).unwrap().remove(0)
    }

    pub(crate) fn recipient(&self) -> Recipient {
        Recipient::new(self.certificate(), Timestamp::now()).unwrap()
    }

    /// The key alone, without a certificate to look for.
    pub(crate) fn key(&self) -> PrivateKey {
        PrivateKey::from_pem(self.key_pem.as_bytes(), None).unwrap()
    }
}

fn make(name: &str, key: &KeyPair, usage: KeyUsagePurpose) -> Made {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![usage];
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2080, 1, 1);
    let certificate = params.self_signed(key).unwrap();
    Made { der: certificate.der().to_vec(), pem: certificate.pem(), key_pem: key.serialize_pem() }
}

/// The certificate of this party, `one` or `other`.
pub(crate) fn made(name: &str) -> Made {
    let key = match name {
        "one" => include_str!("testing/one.key"),
        _ => include_str!("testing/other.key"),
    };
    make(name, &KeyPair::from_pem(key).unwrap(), KeyUsagePurpose::KeyEncipherment)
}

pub(crate) fn recipient(name: &str) -> Recipient {
    made(name).recipient()
}

pub(crate) fn short() -> Made {
    let key = KeyPair::from_pem(include_str!("testing/short.key")).unwrap();
    make("short", &key, KeyUsagePurpose::KeyEncipherment)
}

pub(crate) fn signing_only() -> Made {
    let key = KeyPair::from_pem(include_str!("testing/one.key")).unwrap();
    make("signer", &key, KeyUsagePurpose::DigitalSignature)
}

pub(crate) fn elliptic() -> Made {
    make("elliptic", &KeyPair::generate().unwrap(), KeyUsagePurpose::KeyAgreement)
}
