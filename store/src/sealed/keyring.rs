//! Key-encryption keys: each wraps the data keys of many objects, and lies in a file of its own.
//!
//! A keyring is a folder: `<id>.key` holds one key (mode 0600), `current` names the one that new objects use. Old keys
//! stay as long as an object is wrapped by them. A missing or damaged key is an error that names it; nothing is ever
//! written without a key.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{Aad, LessSafeKey, NONCE_LEN, Nonce};
use ring::rand::{SecureRandom, SystemRandom};
use thiserror::Error;
use zeroize::Zeroizing;

use super::{SealedError, key_from};
use crate::facts::ObjectId;

const FIRST_LINE: &str = "gantry key-encryption key, version 1, AES-256";

/// Names one key-encryption key.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct KeyId([u8; 16]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for KeyId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let number = u128::from_str_radix(text, 16).map_err(|_| ())?;
        if text.len() == 32 { Ok(Self(number.to_be_bytes())) } else { Err(()) }
    }
}

/// Why there is no usable keyring.
#[derive(Debug, Error)]
pub enum KeyringError {
    /// No key was ever made here.
    #[error("no key in {0}; `gantry init` makes the first one")]
    Empty(PathBuf),
    /// There is one already.
    #[error("{0} already holds a keyring")]
    Exists(PathBuf),
    /// `current` names a key that is not there.
    #[error(
        "{folder} says that key {key} is in use, and it is not there; bring it back from the backup"
    )]
    CurrentMissing {
        /// The keyring.
        folder: PathBuf,
        /// The key.
        key: String,
    },
    /// A key file that does not hold a key.
    #[error("{0} does not hold a key of this format; bring it back from the backup")]
    Damaged(PathBuf),
    /// A key that others could read.
    #[error("{path} can be read by others (mode {mode:04o}); run: chmod 600 {path}")]
    Readable {
        /// The key file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The folder or a file cannot be read or written.
    #[error("cannot use {path}")]
    Io {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The keys that this node can open objects with, and the one that it seals new objects with.
pub struct Keyring {
    keys: BTreeMap<KeyId, LessSafeKey>,
    current: KeyId,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring")
            .field("current", &self.current)
            .field("keys", &self.keys.len())
            .finish()
    }
}

/// A data key as it stands in a header.
#[derive(Clone, Copy, Debug)]
pub(super) struct WrappedKey {
    pub(super) key: KeyId,
    pub(super) nonce: [u8; NONCE_LEN],
    pub(super) wrapped: [u8; 48],
}

impl WrappedKey {
    pub(super) fn append_to(&self, header: &mut Vec<u8>) {
        header.extend_from_slice(&self.key.0);
        header.extend_from_slice(&self.nonce);
        header.extend_from_slice(&self.wrapped);
    }

    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (key, rest) = bytes.split_first_chunk()?;
        let (nonce, rest) = rest.split_first_chunk()?;
        Some(Self { key: KeyId(*key), nonce: *nonce, wrapped: *rest.first_chunk()? })
    }
}

fn wrap_aad(object: ObjectId, key: KeyId) -> Aad<[u8; 36]> {
    let mut aad = [0; 36];
    let (label, rest) = aad.split_at_mut(4);
    let (id, by) = rest.split_at_mut(16);
    label.copy_from_slice(b"wrap");
    id.copy_from_slice(&object.to_bytes());
    by.copy_from_slice(&key.0);
    Aad::from(aad)
}

impl Keyring {
    /// Reads every key of the folder.
    pub fn open(folder: &Path) -> Result<Self, KeyringError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| KeyringError::Io { path, source }
        };
        let current_path = folder.join("current");
        let current = match fs::read_to_string(&current_path) {
            Ok(text) => text.trim().to_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(KeyringError::Empty(folder.to_owned()));
            }
            Err(source) => return Err(KeyringError::Io { path: current_path, source }),
        };
        let mut keys = BTreeMap::new();
        for entry in fs::read_dir(folder).map_err(io(folder))? {
            let path = entry.map_err(io(folder))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let Some(id) = name.strip_suffix(".key").and_then(|id| id.parse().ok()) else {
                continue;
            };
            let mode = fs::metadata(&path).map_err(io(&path))?.mode() & 0o777;
            if mode & 0o077 != 0 {
                return Err(KeyringError::Readable { path, mode });
            }
            let text = Zeroizing::new(fs::read_to_string(&path).map_err(io(&path))?);
            let key = parse(&text).ok_or_else(|| KeyringError::Damaged(path.clone()))?;
            keys.insert(id, key);
        }
        match current.parse().ok().filter(|id| keys.contains_key(id)) {
            Some(current) => Ok(Self { keys, current }),
            None => Err(KeyringError::CurrentMissing { folder: folder.to_owned(), key: current }),
        }
    }

    /// Makes the folder (mode 0700) and its first key, durably.
    pub fn create(folder: &Path) -> Result<Self, KeyringError> {
        let io = |source| KeyringError::Io { path: folder.to_owned(), source };
        if folder.join("current").exists() {
            return Err(KeyringError::Exists(folder.to_owned()));
        }
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(io)?;
        let mut id = [0; 16];
        let mut key = Zeroizing::new([0; 32]);
        let random = SystemRandom::new();
        random
            .fill(&mut id)
            .and_then(|()| random.fill(key.as_mut()))
            .map_err(|_| io(io::Error::other("no random bytes")))?;
        let id = KeyId(id);
        let text = Zeroizing::new(format!("{FIRST_LINE}\n{}\n", STANDARD.encode(key.as_ref())));
        write_new(&folder.join(format!("{id}.key")), text.as_bytes()).map_err(io)?;
        write_new(&folder.join("current"), format!("{id}\n").as_bytes()).map_err(io)?;
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(io)?;
        Self::open(folder)
    }

    /// The key that new objects are sealed with.
    pub fn current(&self) -> KeyId {
        self.current
    }

    pub(super) fn wrap(
        &self,
        object: ObjectId,
        data_key: &[u8; 32],
    ) -> Result<WrappedKey, SealedError> {
        let key = self.keys.get(&self.current).ok_or(SealedError::MissingKey(self.current))?;
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(|_| SealedError::Crypto)?;
        let mut wrapped = [0; 48];
        let (text, tag) = wrapped.split_at_mut(32);
        text.copy_from_slice(data_key);
        let made = key
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                wrap_aad(object, self.current),
                text,
            )
            .map_err(|_| SealedError::Crypto)?;
        tag.copy_from_slice(made.as_ref());
        Ok(WrappedKey { key: self.current, nonce, wrapped })
    }

    pub(super) fn unwrap(
        &self,
        object: ObjectId,
        wrapped: &WrappedKey,
    ) -> Result<LessSafeKey, SealedError> {
        let key = self.keys.get(&wrapped.key).ok_or(SealedError::MissingKey(wrapped.key))?;
        let mut bytes = Zeroizing::new(wrapped.wrapped);
        let nonce = Nonce::assume_unique_for_key(wrapped.nonce);
        let plain = key
            .open_in_place(nonce, wrap_aad(object, wrapped.key), bytes.as_mut())
            .map_err(|_| SealedError::WrongKey(wrapped.key))?;
        key_from(plain)
    }
}

fn parse(text: &str) -> Option<LessSafeKey> {
    let mut lines = text.lines();
    let (first, key) = (lines.next()?, Zeroizing::new(STANDARD.decode(lines.next()?.trim()).ok()?));
    if first == FIRST_LINE && key.len() == 32 { key_from(&key).ok() } else { None }
}

fn write_new(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_keyring_is_made_once_and_opens_again() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("keys");
        let missing = Keyring::open(&folder).unwrap_err();

        let made = Keyring::create(&folder).unwrap();

        assert!(matches!(missing, KeyringError::Empty(_)), "{missing}");
        assert_eq!(Keyring::open(&folder).unwrap().current(), made.current());
        assert!(matches!(Keyring::create(&folder), Err(KeyringError::Exists(_))));
    }

    #[test]
    fn a_key_that_others_can_read_or_that_is_damaged_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let id = Keyring::create(folder.path()).unwrap().current();
        let path = folder.path().join(format!("{id}.key"));

        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let readable = Keyring::open(folder.path()).unwrap_err();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "gantry key").unwrap();
        let damaged = Keyring::open(folder.path()).unwrap_err();
        fs::remove_file(&path).unwrap();
        let missing = Keyring::open(folder.path()).unwrap_err();

        assert!(readable.to_string().contains("chmod 600"), "{readable}");
        assert!(matches!(damaged, KeyringError::Damaged(_)), "{damaged}");
        assert!(matches!(missing, KeyringError::CurrentMissing { .. }), "{missing}");
    }
}
