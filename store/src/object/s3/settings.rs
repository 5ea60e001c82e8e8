//! What must be known to speak to a bucket.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;
use zeroize::Zeroizing;

/// A bucket, and how to speak to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Its name.
    pub bucket: String,
    /// What all names begin with, without a slash at the end; may be empty.
    pub prefix: String,
    /// `https://host:port`; `None`: AWS.
    pub endpoint: Option<String>,
    /// The region that requests are signed for.
    pub region: String,
    /// Whether the bucket is named in the path and not in the host's name.
    pub path_style: bool,
    /// PEM of the authorities that the endpoint's certificate must come from; `None`: the operating system's.
    pub authorities: Option<Vec<u8>>,
    /// Who asks.
    pub credentials: Credentials,
    /// How the store itself encrypts what it is given, which is sealed already.
    pub encryption: Encryption,
    /// When S3's own checksums are sent beside the signed digest.
    pub checksum: Checksum,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long the store may take to answer, beyond what sending takes at [`Settings::SLOWEST`].
    pub response_timeout: Duration,
    /// Requests of uploads at once.
    pub parallel: usize,
    /// Longer files go up in parts.
    pub multipart_above: u64,
}

impl Settings {
    /// Bytes a second below which a connection counts as broken.
    pub const SLOWEST: u64 = 64 << 10;

    /// Unless the configuration says otherwise.
    pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
    /// Unless the configuration says otherwise.
    pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(20);
    /// Unless the configuration says otherwise.
    pub const PARALLEL: usize = 8;
    /// A part is 8 MiB or more, so that it is sent again in little time when a connection breaks.
    pub const MULTIPART_ABOVE: u64 = 16 << 20;

    /// A bucket on a server of one's own, with all else as it is by default.
    pub fn new(bucket: &str, endpoint: &str, credentials: Credentials) -> Self {
        Self {
            bucket: bucket.to_owned(),
            prefix: String::new(),
            endpoint: Some(endpoint.to_owned()),
            region: "us-east-1".to_owned(),
            path_style: true,
            authorities: None,
            credentials,
            encryption: Encryption::None,
            checksum: Checksum::WhenRequired,
            connect_timeout: Self::CONNECT_TIMEOUT,
            response_timeout: Self::RESPONSE_TIMEOUT,
            parallel: Self::PARALLEL,
            multipart_above: Self::MULTIPART_ABOVE,
        }
    }

    /// The key of a name below the prefix.
    pub(super) fn key(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_owned() } else { format!("{}/{name}", self.prefix) }
    }
}

/// Who asks.
#[derive(Clone, PartialEq)]
pub enum Credentials {
    /// An access key.
    Key {
        /// Its id.
        id: String,
        /// Its secret.
        secret: Zeroizing<String>,
        /// For a temporary one.
        token: Option<Zeroizing<String>>,
    },
    /// Nobody has said who; nothing can be asked.
    Missing,
    /// Whatever role the machine has, asked of the instance metadata service of AWS (version 2).
    InstanceRole,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key { id, .. } => f.debug_struct("Key").field("id", id).finish_non_exhaustive(),
            Self::Missing => f.write_str("Missing"),
            Self::InstanceRole => f.write_str("InstanceRole"),
        }
    }
}

/// Why there are no credentials in a file.
#[derive(Debug, Error)]
pub enum InvalidCredentials {
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Others could read it.
    #[error("can be read by others (mode {0:04o})")]
    Readable(u32),
    /// It has neither form.
    #[error(
        "holds neither aws_access_key_id and aws_secret_access_key under [default], nor the two in a line each"
    )]
    Form,
}

impl Credentials {
    /// An access key that does not end.
    pub fn key(id: &str, secret: &str) -> Self {
        Self::Key { id: id.to_owned(), secret: Zeroizing::new(secret.to_owned()), token: None }
    }

    /// Reads a file: AWS's own form (`[default]`, `aws_access_key_id = …`), or two lines with the id and the secret.
    pub fn read(path: &Path) -> Result<Self, InvalidCredentials> {
        use std::os::unix::fs::MetadataExt as _;
        let io = |source| InvalidCredentials::Io { path: path.to_owned(), source };
        let mode = std::fs::metadata(path).map_err(io)?.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(InvalidCredentials::Readable(mode));
        }
        let text = Zeroizing::new(std::fs::read_to_string(path).map_err(io)?);
        Self::parse(&text).ok_or(InvalidCredentials::Form)
    }

    fn parse(text: &str) -> Option<Self> {
        let lines = || {
            text.lines()
                .map(str::trim)
                .filter(|line| !line.is_empty() && !line.starts_with(['#', ';']))
        };
        let words = |line: &str| !line.is_empty() && !line.contains(char::is_whitespace);
        // A secret may hold `=` and `/`, so the two-line form is known by having no section and no key's name.
        if !text.contains("aws_access_key_id") {
            let mut lines = lines();
            let (id, secret) = (lines.next()?, lines.next()?);
            let two = lines.next().is_none() && words(id) && words(secret) && !id.starts_with('[');
            return two.then(|| Self::key(id, secret));
        }
        let (mut in_default, mut id, mut secret, mut token) = (true, None, None, None);
        for line in lines() {
            if line.starts_with('[') {
                in_default = line.trim_matches(['[', ']', ' ']) == "default";
                continue;
            }
            let Some((key, value)) = line.split_once('=').filter(|_| in_default) else { continue };
            let value = value.trim();
            match key.trim() {
                "aws_access_key_id" => id = Some(value),
                "aws_secret_access_key" => secret = Some(value),
                "aws_session_token" => token = Some(value),
                _ => {}
            }
        }
        let (id, secret) = (id.filter(|id| words(id))?, secret.filter(|secret| words(secret))?);
        Some(Self::Key {
            id: id.to_owned(),
            secret: Zeroizing::new(secret.to_owned()),
            token: token.map(|token| Zeroizing::new(token.to_owned())),
        })
    }
}

/// How the store itself encrypts what it is given.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Encryption {
    /// As the bucket has it.
    #[default]
    None,
    /// With keys of the store's.
    Aes256,
    /// With a key of a key management service.
    Kms {
        /// Its id; `None`: the bucket's own.
        key: Option<String>,
    },
}

/// When S3's own checksums are sent.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Checksum {
    /// Where an operation needs one: what every server understands.
    #[default]
    WhenRequired,
    /// With every upload, as a header.
    Always,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn credentials_are_read_in_both_forms() {
        let aws = "# ours\n[other]\naws_access_key_id = X\naws_secret_access_key = Y\n\n[default]\n\
                   aws_access_key_id = AKIA1\naws_secret_access_key=a/b+c=\nregion = eu-west-2\n";
        assert!(Credentials::parse(aws).unwrap() == Credentials::key("AKIA1", "a/b+c="));
        assert!(
            Credentials::parse("AKIA1\na/b+c=\n").unwrap() == Credentials::key("AKIA1", "a/b+c=")
        );
        let temporary =
            Credentials::parse("aws_access_key_id=A\naws_secret_access_key=S\naws_session_token=T");
        assert!(matches!(temporary, Some(Credentials::Key { token: Some(_), .. })));
        for text in
            ["", "AKIA1\n", "AKIA1\nsecret\nmore", "[default]\naws_access_key_id = A\n", "a b\nc d"]
        {
            assert!(Credentials::parse(text).is_none(), "{text:?}");
        }
    }

    #[test]
    fn a_secret_that_others_can_read_is_refused_and_never_printed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, "AKIA1\nverysecret\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();

        let refused = Credentials::read(&path).unwrap_err();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let read = Credentials::read(&path).unwrap();

        assert!(matches!(refused, InvalidCredentials::Readable(0o640)));
        assert!(!format!("{read:?}").contains("verysecret"));
    }
}
