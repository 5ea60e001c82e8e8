//! Ciphers of the content: AES in CBC mode to write with, and to read also three-key Triple-DES, which writers before 2010
//! had (PS3.15 E.1.1, RFC 3565, RFC 3370 5.1).

use aes::cipher::consts::{U8, U16};
use aes::cipher::inout::InOutBuf;
use aes::cipher::{BlockDecryptMut, BlockEncryptMut, KeyIvInit as _};
use aes::{Aes128, Aes192, Aes256};
use der::asn1::{ObjectIdentifier, OctetStringRef};
use des::TdesEde3;
use spki::AlgorithmIdentifierOwned;
use x509_cert::spki;

use super::envelope::OpenError;

pub(super) const AES_256_CBC: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.1.42");
const AES_128_CBC: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.1.2");
const AES_192_CBC: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.1.22");
const DES_EDE3_CBC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.3.7");

/// Bytes of an AES block.
pub(super) const BLOCK: usize = 16;

/// Which cipher, and its initialisation vector.
#[derive(Debug)]
pub(super) struct Algorithm {
    kind: Kind,
    iv: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Aes128,
    Aes192,
    Aes256,
    Des3,
}

impl Algorithm {
    /// What a message says of its content.
    pub(super) fn read(algorithm: &AlgorithmIdentifierOwned) -> Result<Self, OpenError> {
        let kind = match algorithm.oid {
            AES_128_CBC => Kind::Aes128,
            AES_192_CBC => Kind::Aes192,
            AES_256_CBC => Kind::Aes256,
            DES_EDE3_CBC => Kind::Des3,
            oid => {
                let what = "its content is encrypted with an algorithm that PS3.15 does not allow";
                return Err(OpenError::Unsupported { what, oid: oid.to_string() });
            }
        };
        let malformed = OpenError::Malformed("the initialisation vector is missing");
        let Some(parameters) = &algorithm.parameters else { return Err(malformed) };
        let Ok(iv) = parameters.decode_as::<OctetStringRef<'_>>() else { return Err(malformed) };
        let algorithm = Self { kind, iv: iv.as_bytes().to_vec() };
        if algorithm.iv.len() != algorithm.block() {
            return Err(OpenError::Malformed("the initialisation vector has another length"));
        }
        Ok(algorithm)
    }

    /// Bytes of the key that it takes.
    pub(super) fn key_length(&self) -> usize {
        match self.kind {
            Kind::Aes128 => 16,
            Kind::Aes192 | Kind::Des3 => 24,
            Kind::Aes256 => 32,
        }
    }

    /// Bytes of a block.
    pub(super) fn block(&self) -> usize {
        if self.kind == Kind::Des3 { 8 } else { BLOCK }
    }

    /// Begins with this key; `None` if it has another length.
    pub(super) fn decryptor(&self, key: &[u8]) -> Option<Decryptor> {
        let iv = &self.iv;
        Some(match self.kind {
            Kind::Aes128 => Decryptor::Aes128(cbc::Decryptor::new_from_slices(key, iv).ok()?),
            Kind::Aes192 => Decryptor::Aes192(cbc::Decryptor::new_from_slices(key, iv).ok()?),
            Kind::Aes256 => {
                Decryptor::Aes256(Box::new(cbc::Decryptor::new_from_slices(key, iv).ok()?))
            }
            Kind::Des3 => Decryptor::Des3(Box::new(cbc::Decryptor::new_from_slices(key, iv).ok()?)),
        })
    }
}

/// A cipher on its way through the content.
pub(super) enum Decryptor {
    Aes128(cbc::Decryptor<Aes128>),
    Aes192(cbc::Decryptor<Aes192>),
    Aes256(Box<cbc::Decryptor<Aes256>>),
    Des3(Box<cbc::Decryptor<TdesEde3>>),
}

/// It holds a key.
impl std::fmt::Debug for Decryptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decryptor").finish_non_exhaustive()
    }
}

impl Decryptor {
    /// Decrypts whole blocks in place; what is left over at the end is not touched.
    pub(super) fn decrypt(&mut self, blocks: &mut [u8]) {
        let blocks = InOutBuf::from(blocks);
        match self {
            Self::Aes128(cipher) => cipher.decrypt_blocks_inout_mut(blocks.into_chunks::<U16>().0),
            Self::Aes192(cipher) => cipher.decrypt_blocks_inout_mut(blocks.into_chunks::<U16>().0),
            Self::Aes256(cipher) => cipher.decrypt_blocks_inout_mut(blocks.into_chunks::<U16>().0),
            Self::Des3(cipher) => cipher.decrypt_blocks_inout_mut(blocks.into_chunks::<U8>().0),
        }
    }
}

/// AES-256-CBC, to write with.
pub(super) struct Encryptor(cbc::Encryptor<Aes256>);

/// It holds a key.
impl std::fmt::Debug for Encryptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encryptor").finish_non_exhaustive()
    }
}

impl Encryptor {
    pub(super) fn new(key: &[u8; 32], iv: &[u8; BLOCK]) -> Self {
        Self(cbc::Encryptor::new(key.into(), iv.into()))
    }

    /// Encrypts whole blocks in place; what is left over at the end is not touched.
    pub(super) fn encrypt(&mut self, blocks: &mut [u8]) {
        let (blocks, _) = InOutBuf::from(blocks).into_chunks::<U16>();
        self.0.encrypt_blocks_inout_mut(blocks);
    }
}
