//! Key-encryption keys: each wraps the data keys of many objects, and lies in a file of its own.
//!
//! A keyring is a folder: `<id>.key` holds one key (mode 0600), `current` names the one that new objects use. Old keys
//! stay as long as an object is wrapped by them. A missing or damaged key is an error that names it; nothing is ever
//! written without a key.
//!
//! Another process may add a key and make it the current one ([`Keyring::rotate`]). A keyring that is open looks at
//! `current` every second, and into the folder for a key that it does not know; so a running node needs no restart.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

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

/// How often an open keyring looks which key is the current one.
const LOOK: Duration = Duration::from_secs(1);

/// The keys that this node can open objects with, and the one that it seals new objects with.
pub struct Keyring {
    folder: PathBuf,
    keys: RwLock<BTreeMap<KeyId, Arc<LessSafeKey>>>,
    current: Mutex<(KeyId, Instant)>,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring")
            .field("folder", &self.folder)
            .field("current", &self.current())
            .finish_non_exhaustive()
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
        let current = read_current(folder)?;
        let mut keys = BTreeMap::new();
        for entry in fs::read_dir(folder).map_err(io(folder))? {
            let path = entry.map_err(io(folder))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let Some(id) = name.strip_suffix(".key").and_then(|id| id.parse().ok()) else {
                continue;
            };
            keys.insert(id, Arc::new(read_key(&path)?));
        }
        match current.parse().ok().filter(|id| keys.contains_key(id)) {
            Some(current) => Ok(Self {
                folder: folder.to_owned(),
                keys: RwLock::new(keys),
                current: Mutex::new((current, Instant::now())),
            }),
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
        let id = make_key(folder).map_err(io)?;
        write_new(&folder.join("current"), format!("{id}\n").as_bytes()).map_err(io)?;
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(io)?;
        Self::open(folder)
    }

    /// Makes a new key and has new objects sealed with it, durably. The old ones stay, to open what they sealed.
    ///
    /// The key is on the disk before `current` names it, and `current` is replaced whole; so a crash at any moment leaves
    /// a keyring that opens.
    pub fn rotate(&self) -> Result<KeyId, KeyringError> {
        let folder = &self.folder;
        let io = |source| KeyringError::Io { path: folder.clone(), source };
        let sync = || File::open(folder).and_then(|folder| folder.sync_all()).map_err(io);
        let id = make_key(folder).map_err(io)?;
        sync()?;
        let (next, current) = (folder.join("current.next"), folder.join("current"));
        match fs::remove_file(&next) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
            _ => {}
        }
        write_new(&next, format!("{id}\n").as_bytes()).map_err(io)?;
        fs::rename(&next, &current).map_err(io)?;
        sync()?;
        self.key(id)?.ok_or_else(|| KeyringError::CurrentMissing {
            folder: folder.clone(),
            key: id.to_string(),
        })?;
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = (id, Instant::now());
        Ok(id)
    }

    /// The key that new objects are sealed with.
    pub fn current(&self) -> KeyId {
        // Set as a whole, so a panic elsewhere leaves it whole.
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.1.elapsed() >= LOOK {
            current.1 = Instant::now();
            // What cannot be read or opened changes nothing: the key that was right a second ago still is.
            let named = read_current(&self.folder).ok().and_then(|named| named.parse().ok());
            if let Some(named) = named.filter(|named| *named != current.0)
                && matches!(self.key(named), Ok(Some(_)))
            {
                current.0 = named;
            }
        }
        current.0
    }

    /// A key by its id, from the folder if it is not known yet.
    fn key(&self, id: KeyId) -> Result<Option<Arc<LessSafeKey>>, KeyringError> {
        let known = || {
            let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
            keys.get(&id).cloned()
        };
        if let Some(key) = known() {
            return Ok(Some(key));
        }
        let path = self.folder.join(format!("{id}.key"));
        if !path.exists() {
            return Ok(None);
        }
        let key = Arc::new(read_key(&path)?);
        self.keys.write().unwrap_or_else(PoisonError::into_inner).insert(id, key.clone());
        Ok(Some(key))
    }

    fn known(&self, id: KeyId) -> Result<Arc<LessSafeKey>, SealedError> {
        // A key file that cannot be used is as good as none; whoever looks after keys is told by `gantry check`.
        self.key(id).ok().flatten().ok_or(SealedError::MissingKey(id))
    }

    pub(super) fn wrap(
        &self,
        object: ObjectId,
        data_key: &[u8; 32],
    ) -> Result<WrappedKey, SealedError> {
        let current = self.current();
        let key = self.known(current)?;
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(|_| SealedError::Crypto)?;
        let mut wrapped = [0; 48];
        let (text, tag) = wrapped.split_at_mut(32);
        text.copy_from_slice(data_key);
        let made = key
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                wrap_aad(object, current),
                text,
            )
            .map_err(|_| SealedError::Crypto)?;
        tag.copy_from_slice(made.as_ref());
        Ok(WrappedKey { key: current, nonce, wrapped })
    }

    pub(super) fn unwrap(
        &self,
        object: ObjectId,
        wrapped: &WrappedKey,
    ) -> Result<LessSafeKey, SealedError> {
        key_from(self.data_key(object, wrapped)?.as_ref())
    }

    /// Wraps a data key anew, with the current key.
    pub(super) fn rewrap(
        &self,
        object: ObjectId,
        wrapped: &WrappedKey,
    ) -> Result<WrappedKey, SealedError> {
        self.wrap(object, &*self.data_key(object, wrapped)?)
    }

    fn data_key(
        &self,
        object: ObjectId,
        wrapped: &WrappedKey,
    ) -> Result<Zeroizing<[u8; 32]>, SealedError> {
        let key = self.known(wrapped.key)?;
        let mut bytes = Zeroizing::new(wrapped.wrapped);
        let nonce = Nonce::assume_unique_for_key(wrapped.nonce);
        let plain = key
            .open_in_place(nonce, wrap_aad(object, wrapped.key), bytes.as_mut())
            .map_err(|_| SealedError::WrongKey(wrapped.key))?;
        let mut data_key = Zeroizing::new([0; 32]);
        data_key.copy_from_slice(plain.get(..32).ok_or(SealedError::Crypto)?);
        Ok(data_key)
    }
}

fn read_current(folder: &Path) -> Result<String, KeyringError> {
    let path = folder.join("current");
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(KeyringError::Empty(folder.to_owned()))
        }
        Err(source) => Err(KeyringError::Io { path, source }),
    }
}

fn read_key(path: &Path) -> Result<LessSafeKey, KeyringError> {
    let io = |source| KeyringError::Io { path: path.to_owned(), source };
    let mode = fs::metadata(path).map_err(io)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyringError::Readable { path: path.to_owned(), mode });
    }
    let text = Zeroizing::new(fs::read_to_string(path).map_err(io)?);
    parse(&text).ok_or_else(|| KeyringError::Damaged(path.to_owned()))
}

/// Makes a key of a random name, synced; whoever asked syncs the folder.
fn make_key(folder: &Path) -> io::Result<KeyId> {
    let mut id = [0; 16];
    let mut key = Zeroizing::new([0; 32]);
    let random = SystemRandom::new();
    random
        .fill(&mut id)
        .and_then(|()| random.fill(key.as_mut()))
        .map_err(|_| io::Error::other("no random bytes"))?;
    let id = KeyId(id);
    let text = Zeroizing::new(format!("{FIRST_LINE}\n{}\n", STANDARD.encode(key.as_ref())));
    write_new(&folder.join(format!("{id}.key")), text.as_bytes())?;
    Ok(id)
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
    fn a_new_key_is_used_by_whoever_has_the_keyring_open_and_old_ones_stay() {
        let folder = tempfile::tempdir().unwrap();
        let (node, command) =
            (Keyring::create(folder.path()).unwrap(), Keyring::open(folder.path()).unwrap());
        let (old, object) = (node.current(), ObjectId::new());
        let before = node.wrap(object, &[7; 32]).unwrap();

        let new = command.rotate().unwrap();
        let after = command.wrap(object, &[7; 32]).unwrap();
        let moved = command.rewrap(object, &before).unwrap();

        assert_eq!((before.key, after.key, moved.key), (old, new, new));
        assert!(new != old);
        // The node has never been told of the new key.
        for wrapped in [&before, &after, &moved] {
            assert_eq!(*node.data_key(object, wrapped).unwrap(), [7; 32]);
        }
        node.current.lock().unwrap().1 -= 2 * LOOK;
        assert_eq!(node.current(), new);
        assert_eq!(Keyring::open(folder.path()).unwrap().current(), new);
    }

    #[test]
    fn a_current_key_that_cannot_be_read_changes_nothing_for_whoever_runs() {
        let folder = tempfile::tempdir().unwrap();
        let node = Keyring::create(folder.path()).unwrap();
        let old = node.current();
        fs::write(folder.path().join("current"), "00000000000000000000000000000001\n").unwrap();

        node.current.lock().unwrap().1 -= 2 * LOOK;

        assert_eq!(node.current(), old);
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
