//! The private key that a command opens with, and its certificate.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use gantry_deidentify::seal::{Certificate, KeyError, PrivateKey};
use zeroize::Zeroizing;

use crate::exit::{Exit, Failure};

/// With what is opened.
#[derive(Args, Debug)]
pub(super) struct KeyFiles {
    /// The private key, PEM
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Its certificate, to find what was sealed for it among what was sealed for others
    #[arg(long, value_name = "FILE")]
    certificate: Option<PathBuf>,
    /// The file whose first line is the key's passphrase
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

impl KeyFiles {
    /// Reads them.
    pub(super) fn read(&self) -> Result<PrivateKey, Failure> {
        let passphrase = self.passphrase_file.as_deref().map(read).transpose()?;
        let passphrase = passphrase.as_ref().map(|text| {
            let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
            line.strip_suffix(b"\r").unwrap_or(line)
        });
        let key = PrivateKey::from_pem(&read(&self.key)?, passphrase).map_err(|error| {
            let failure = unfit(&self.key, &error);
            match error {
                KeyError::PassphraseNeeded => failure.hint("name its file with --passphrase-file"),
                _ => failure,
            }
        })?;
        let Some(path) = &self.certificate else { return Ok(key) };
        let certificates =
            Certificate::from_pem_or_der(&read(path)?).map_err(|error| unfit(path, &error))?;
        // A file may hold the certificates of its issuers too.
        certificates
            .into_iter()
            .find_map(|certificate| key.clone().with_certificate(certificate).ok())
            .ok_or_else(|| unfit(path, &KeyError::OtherCertificate))
    }
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let bytes = fs::read(path).map_err(|error| Failure::of_file("read", path, &error))?;
    Ok(Zeroizing::new(bytes))
}

fn unfit(path: &Path, error: &dyn std::error::Error) -> Failure {
    Failure::new(Exit::Usage, format_args!("cannot use {}: {error}", path.display()))
}
