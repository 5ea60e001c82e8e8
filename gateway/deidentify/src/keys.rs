//! The key of a project: what makes pseudonyms, UIDs and shifts of dates, the same for the same patient within the
//! project, and unlike those of any other project.
//!
//! Everything is keyed, because there are only 10⁹ NHS numbers: an unkeyed hash of one is undone by trying them all. Each
//! purpose has a sub-key of its own, so that a table of one tells nothing of another. Whoever holds the key can link what
//! was de-identified to who it is, so the data stay personal data in their hands; the key belongs to the safe haven.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ring::digest::{SHA256, digest};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

/// The first word of a key file.
const MAGIC: &str = "gantry-project-key-1";

/// Why a key cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The file cannot be read.
    #[error("cannot read the project key {path}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write the project key {path}")]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others may read it.
    #[error(
        "the project key {path} can be read by others (mode {mode:04o}); run: chmod 600 {path}"
    )]
    Open {
        /// Which file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It is no key.
    #[error(
        "{path} is no project key: it must hold one line, \"{MAGIC}\" and 64 hexadecimal digits"
    )]
    Malformed {
        /// Which file.
        path: PathBuf,
    },
    /// The machine gives no random numbers.
    #[error("this machine gives no random numbers")]
    NoRandom,
}

/// A project's key, 32 random bytes. It is wiped when dropped, and never printed.
#[derive(Clone)]
pub struct ProjectKey(Zeroizing<[u8; 32]>);

impl fmt::Debug for ProjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProjectKey({})", self.fingerprint())
    }
}

impl ProjectKey {
    /// A new one.
    pub fn generate() -> Result<Self, KeyError> {
        let mut bytes = Zeroizing::new([0; 32]);
        SystemRandom::new().fill(bytes.as_mut()).map_err(|_| KeyError::NoRandom)?;
        Ok(Self(bytes))
    }

    /// The key of these bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Reads a key file, which only its owner may read (mode 0600).
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let failed = |source| KeyError::Read { path: path.to_owned(), source };
        let mode = fs::metadata(path).map_err(failed)?.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Open { path: path.to_owned(), mode });
        }
        let text = Zeroizing::new(fs::read_to_string(path).map_err(failed)?);
        let malformed = || KeyError::Malformed { path: path.to_owned() };
        let mut words =
            text.lines().filter(|line| !line.starts_with('#')).flat_map(str::split_whitespace);
        let (Some(MAGIC), Some(digits), None) = (words.next(), words.next(), words.next()) else {
            return Err(malformed());
        };
        if digits.len() != 64 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(malformed());
        }
        let mut bytes = Zeroizing::new([0; 32]);
        for (at, byte) in bytes.iter_mut().enumerate() {
            let pair = digits.get(at * 2..at * 2 + 2).ok_or_else(malformed)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| malformed())?;
        }
        Ok(Self(bytes))
    }

    /// Writes a key file that is not there yet, for its owner alone, and syncs it: what was pseudonymised with a key that
    /// is lost cannot be added to.
    pub fn write_new(&self, path: &Path) -> Result<(), KeyError> {
        let failed = |source| KeyError::Write { path: path.to_owned(), source };
        let mut digits = self.0.iter().fold(String::new(), |out, byte| format!("{out}{byte:02x}"));
        let text = Zeroizing::new(format!(
            "# The key of a project. Who has it can link what was de-identified to who it is.\n\
             # Fingerprint {}\n{MAGIC} {digits}\n",
            self.fingerprint()
        ));
        digits.zeroize();
        let mut options = OpenOptions::new();
        let mut file =
            options.write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)
    }

    /// What names it in reports: it tells two keys apart and tells nothing of the key.
    pub fn fingerprint(&self) -> String {
        let mut input = b"gantry project key fingerprint".to_vec();
        input.extend_from_slice(self.0.as_ref());
        let digest = digest(&SHA256, &input);
        input.zeroize();
        let shown: Vec<_> = digest.as_ref().chunks(2).take(4).map(hex).collect();
        shown.join("-")
    }

    /// The key for one purpose, and nothing else.
    pub fn sub_key(&self, purpose: &str) -> SubKey {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.0.as_ref());
        SubKey(hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&key, purpose.as_bytes()).as_ref()))
    }

    /// The key of what must not be linked beyond one study: as good as a new key for each, and the same again when the
    /// study comes again.
    #[must_use]
    pub fn of_study(&self, study_instance_uid: &str) -> Self {
        let tag = self.sub_key("study").sign(study_instance_uid.as_bytes());
        Self::from_bytes(tag)
    }
}

/// The key for one purpose.
#[derive(Clone, Debug)]
pub struct SubKey(hmac::Key);

impl SubKey {
    /// 32 bytes that only holders of the key can make of this text.
    pub fn sign(&self, text: &[u8]) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes.iter_mut().zip(hmac::sign(&self.0, text).as_ref()).for_each(|(to, from)| *to = *from);
        bytes
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |out, byte| format!("{out}{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_is_read_back_and_is_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lung.key");
        let key = ProjectKey::generate().unwrap();

        key.write_new(&path).unwrap();

        let again = ProjectKey::read(&path).unwrap();
        assert_eq!(again.fingerprint(), key.fingerprint());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(key.write_new(&path), Err(KeyError::Write { .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(ProjectKey::read(&path), Err(KeyError::Open { mode: 0o640, .. })));
        for text in ["", MAGIC, "gantry-project-key-1 00", "x 00", &"0".repeat(64)] {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            assert!(matches!(ProjectKey::read(&path), Err(KeyError::Malformed { .. })), "{text}");
        }
    }

    #[test]
    fn purposes_and_studies_do_not_tell_of_each_other() {
        let key = ProjectKey::from_bytes([7; 32]);
        let one = key.sub_key("uid").sign(b"1.2.3");

        assert_eq!(one, ProjectKey::from_bytes([7; 32]).sub_key("uid").sign(b"1.2.3"));
        assert_ne!(one, key.sub_key("date").sign(b"1.2.3"));
        assert_ne!(one, ProjectKey::from_bytes([8; 32]).sub_key("uid").sign(b"1.2.3"));
        assert_ne!(key.of_study("1.2").fingerprint(), key.of_study("1.3").fingerprint());
        assert!(!format!("{key:?}").contains("0707"));
    }
}
