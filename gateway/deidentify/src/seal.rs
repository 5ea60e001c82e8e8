//! What only the holder of a private key reads again: identities inside an object, and whole files.
//!
//! Both are Enveloped-data of the Cryptographic Message Syntax (RFC 5652). [`encrypted_attributes`] keeps what
//! de-identification took away in the Encrypted Attributes Sequence (PS3.15 E.1.1) and puts it back (E.1.2);
//! [`secure_file`] makes of a DICOM file a Secure DICOM File (PS3.10 7.4) and back. Keys go by RSA with PKCS#1 v1.5, which
//! E.1.1 asks for; content is encrypted with AES-256-CBC, and read in everything that E.1.1 and Annex D allow a writer.
//!
//! **What CBC does not give**: nobody can read what is sealed, but whoever has it may damage or replace it, and anybody may
//! seal anything to a certificate. So what comes out of an envelope is foreign data, and passes the scanner like any other.
//!
//! **Where keys are**: a node knows certificates only. The `rsa` crate's operation with the private key takes a time that
//! depends on the key (RUSTSEC-2023-0071), which somebody who may have it repeated a million times can measure; it is used
//! offline, by a person, on files. Errors do not tell a wrong key from wrong padding.

mod ber;
mod cipher;
pub mod encrypted_attributes;
pub mod envelope;
pub mod key;
pub mod random;
pub mod recipient;
pub mod secure_file;
#[cfg(test)]
mod testing;

pub use envelope::{OpenError, SealError};
pub use key::{KeyError, PrivateKey};
pub use random::SealRng;
pub use recipient::{Certificate, Recipient, RecipientError};
