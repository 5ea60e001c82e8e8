//! `[object-store]`: where objects stay.

use std::ops::Range;
use std::time::Duration;

use gantry_store::object::s3::{Checksum, Credentials, Encryption, InvalidCredentials, Settings};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_spanned::Spanned;
use zeroize::Zeroizing;

use super::super::{HighWater, ObjectStore};
use super::file::ObjectStoreSection;
use super::words::Endpoint;
use super::{Bad, Check, Section, Written, words};

/// What servers of one's own mostly call their only region.
const REGION: &str = "us-east-1";

impl Check {
    pub(super) fn object_store(&mut self, main: &Written) -> ObjectStore {
        let Some(body) = &main.file.object_store else { return ObjectStore::File };
        let (section, body) = Section::of(main, body);
        let words = [("file", Some(false)), ("s3", Some(true))];
        let is_s3 = self.text(&section, &body.kind, |text| {
            words::one_of("kind of the object store", text, &words)
        });
        match is_s3 {
            Some(true) => self.s3(&section, body),
            Some(false) => self.file_store(&section, body),
            None if body.kind.is_none() => self.file_store(&section, body),
            None => ObjectStore::File,
        }
    }

    /// Of a bucket nobody can say how large it is, so its mark is a size, and there is none unless it is written.
    pub(super) fn store_high_water(&mut self, main: &Written) -> Option<HighWater> {
        let default = HighWater::Percent(90);
        let Some(body) = &main.file.object_store else { return Some(default) };
        let (section, body) = Section::of(main, body);
        let is_s3 = body.kind.as_ref().is_some_and(|kind| kind.get_ref() == "s3");
        let written = self.text(&section, &body.high_water, |text| match words::high_water(text)? {
            HighWater::Percent(_) if is_s3 => Err(Bad::new(
                "a bucket has no size of which this could be a share",
                "a share, and kind is \"s3\"",
                "Write how much the data sets may take together, such as high-water = \"20TiB\".",
            )),
            mark => Ok(mark),
        });
        written.or((!is_s3).then_some(default))
    }

    fn file_store(&mut self, section: &Section<'_>, body: &ObjectStoreSection) -> ObjectStore {
        for span in only_s3(body) {
            let help = "Remove it: kind \"file\" keeps objects in the data directory.";
            let message = "this key belongs to an object store of kind \"s3\"";
            self.problem(section, span, Bad::new(message, "kind is \"file\"", help));
        }
        ObjectStore::File
    }

    fn s3(&mut self, section: &Section<'_>, body: &ObjectStoreSection) -> ObjectStore {
        let help = "Write the name of a bucket that exists, such as bucket = \"images\".";
        self.required(section, "bucket", body.bucket.as_ref(), help);
        let bucket = self.text(section, &body.bucket, words::bucket);
        let prefix = self.text(section, &body.prefix, words::prefix);
        let endpoint = self.text(section, &body.endpoint, words::endpoint);
        let own_server = body.endpoint.is_some();
        if !own_server {
            let help = "Write the bucket's region at AWS, such as region = \"eu-west-2\"; or the endpoint of another server.";
            self.required(section, "region", body.region.as_ref(), help);
        }
        let region = self.text(section, &body.region, words::region);
        self.encrypted(section, body, endpoint.as_ref());
        let authorities = self.authorities(section, body, endpoint.as_ref());
        let credentials = self.credentials(section, body);
        let encryption = self.sse(section, body);
        let words =
            [("when-required", Some(Checksum::WhenRequired)), ("always", Some(Checksum::Always))];
        let checksum =
            self.text(section, &body.checksum, |text| words::one_of("checksum", text, &words));
        let (second, minutes) = (Duration::from_secs(1), Duration::from_mins(10));
        let (connecting, answering) = (&body.connect_timeout, &body.response_timeout);
        let connect_timeout =
            self.duration(section, connecting, Settings::CONNECT_TIMEOUT, &(second..=minutes));
        let response_timeout =
            self.duration(section, answering, Settings::RESPONSE_TIMEOUT, &(second..=minutes));
        let parallel = body.parallel.as_ref().and_then(|number| {
            self.note(section, number.span(), words::whole(*number.get_ref(), &(1..=64)))
        });
        ObjectStore::S3(Box::new(Settings {
            bucket: bucket.unwrap_or_default(),
            prefix: prefix.unwrap_or_default(),
            endpoint: endpoint.map(|endpoint| endpoint.url),
            region: region.unwrap_or_else(|| REGION.to_owned()),
            path_style: body.path_style.as_ref().map_or(own_server, |written| *written.get_ref()),
            authorities,
            credentials,
            encryption,
            checksum: checksum.unwrap_or_default(),
            connect_timeout,
            response_timeout,
            parallel: parallel.unwrap_or(Settings::PARALLEL),
            multipart_above: Settings::MULTIPART_ABOVE,
        }))
    }

    /// What is stored is sealed already; but an access key's requests, and when what was stored, are nobody's business.
    fn encrypted(
        &mut self,
        section: &Section<'_>,
        body: &ObjectStoreSection,
        endpoint: Option<&Endpoint>,
    ) {
        let words = [("server-only", Some(true)), ("off", Some(false)), ("mutual", None)];
        let written = self.text(section, &body.tls, |text| {
            words::one_of("tls of the object store", text, &words)
        });
        let (Some(endpoint), Some(at)) = (endpoint, &body.endpoint) else {
            if let (Some(false), Some(tls)) = (written, &body.tls) {
                let help = "Remove it: AWS is spoken to over TLS.";
                let message = "without an endpoint there is nothing to speak to in plain text";
                self.problem(section, tls.span(), Bad::new(message, "no endpoint", help));
            }
            return;
        };
        match (endpoint.encrypted, written) {
            (false, None) if !endpoint.loopback => {
                let help = "Write https; or, for a network you trust, tls = \"off\" beside it.";
                let message = "the object store would be spoken to in plain text";
                self.problem(
                    section,
                    at.span(),
                    Bad::new(message, "http, not on this machine", help),
                );
            }
            (false, Some(true)) => {
                let help = "Write https in endpoint, or remove tls.";
                let message = "endpoint and tls contradict each other";
                self.problem(section, at.span(), Bad::new(message, "http", help));
            }
            (true, Some(false)) => {
                let help = "Remove tls = \"off\", or write http in endpoint.";
                let message = "endpoint and tls contradict each other";
                self.problem(section, at.span(), Bad::new(message, "https", help));
            }
            _ => {}
        }
    }

    fn authorities(
        &mut self,
        section: &Section<'_>,
        body: &ObjectStoreSection,
        endpoint: Option<&Endpoint>,
    ) -> Option<Vec<u8>> {
        let authority = body.authority.as_ref()?;
        if endpoint.is_some_and(|endpoint| !endpoint.encrypted) {
            let help = "Remove it, or write https in endpoint.";
            let message = "this authority is never asked for";
            self.problem(
                section,
                authority.span(),
                Bad::new(message, "the endpoint is http", help),
            );
        }
        let path = section.path(authority.get_ref());
        let pem = match std::fs::read(&path) {
            Ok(pem) => pem,
            Err(error) => {
                let help =
                    "Write the PEM file of the authority that issued the endpoint's certificate.";
                let message = format!("cannot read {}", path.display());
                self.problem(section, authority.span(), Bad::new(message, error.to_string(), help));
                return None;
            }
        };
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        if certificates.is_ok_and(|certificates| !certificates.is_empty()) {
            return Some(pem);
        }
        let help = "Write a file with the authority's certificate between its BEGIN and END lines.";
        let message = format!("{} holds no certificate", path.display());
        self.problem(section, authority.span(), Bad::new(message, "not PEM", help));
        None
    }

    fn credentials(&mut self, section: &Section<'_>, body: &ObjectStoreSection) -> Credentials {
        let by_role = body.instance_role.as_ref().filter(|written| *written.get_ref());
        match (&body.credentials_file, by_role) {
            (Some(file), Some(_)) => {
                let help = "Remove one of them.";
                let message =
                    "credentials come from a file or from the machine's role, not from both";
                self.problem(
                    section,
                    file.span(),
                    Bad::new(message, "beside instance-role = true", help),
                );
                Credentials::InstanceRole
            }
            (None, Some(_)) => Credentials::InstanceRole,
            (Some(file), None) => self.credentials_file(section, file),
            (None, None) => self.credentials_of_environment(section),
        }
    }

    fn credentials_file(&mut self, section: &Section<'_>, file: &Spanned<String>) -> Credentials {
        let path = section.path(file.get_ref());
        let error = match Credentials::read(&path) {
            Ok(credentials) => return credentials,
            Err(error) => error,
        };
        let shown = path.display();
        let (message, label, help) = match &error {
            InvalidCredentials::Io { source, .. } => (
                format!("cannot read {shown}"),
                source.to_string(),
                "Write the file with the access key, readable for the user that runs gantry alone."
                    .to_owned(),
            ),
            InvalidCredentials::Readable(mode) => (
                format!("other users may read the secret in {shown}"),
                format!("mode {mode:04o}"),
                format!("Run: chmod 600 {shown}"),
            ),
            InvalidCredentials::Form => (
                format!("{shown} holds no access key"),
                "neither AWS's form nor two lines".to_owned(),
                "Write the id of the access key in the first line and its secret in the second."
                    .to_owned(),
            ),
        };
        self.problem(section, file.span(), Bad::new(message, label, help));
        Credentials::Missing
    }

    /// Commands that do not speak to the store need none, so their absence stops only who needs them.
    fn credentials_of_environment(&mut self, section: &Section<'_>) -> Credentials {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        if let (Some(id), Some(secret)) = (set("AWS_ACCESS_KEY_ID"), set("AWS_SECRET_ACCESS_KEY")) {
            let token = set("AWS_SESSION_TOKEN").map(Zeroizing::new);
            return Credentials::Key { id, secret: Zeroizing::new(secret), token };
        }
        let help = "Write credentials-file, or instance-role = true; or set AWS_ACCESS_KEY_ID and \
                    AWS_SECRET_ACCESS_KEY where the node is started.";
        let message = "there are no credentials for the object store here";
        let bad = Bad::new(message, "neither in a file nor in the environment", help);
        self.warning(section, section.span.clone(), bad);
        Credentials::Missing
    }

    fn sse(&mut self, section: &Section<'_>, body: &ObjectStoreSection) -> Encryption {
        let words = [("none", Some(0)), ("AES256", Some(1)), ("aws:kms", Some(2)), ("sse-c", None)];
        let kind = self.text(section, &body.sse, |text| words::one_of("sse", text, &words));
        let key = self.text(section, &body.sse_kms_key, words::line);
        if let (Some(written), false) = (&body.sse_kms_key, kind == Some(2)) {
            let help = "Write sse = \"aws:kms\", or remove it.";
            let message = "this key of a key management service is never used";
            self.problem(
                section,
                written.span(),
                Bad::new(message, "sse is not \"aws:kms\"", help),
            );
        }
        match kind {
            Some(1) => Encryption::Aes256,
            Some(2) => Encryption::Kms { key },
            _ => Encryption::None,
        }
    }
}

/// The places of all that only a bucket needs.
fn only_s3(body: &ObjectStoreSection) -> Vec<Range<usize>> {
    let texts = [
        &body.bucket,
        &body.prefix,
        &body.endpoint,
        &body.region,
        &body.tls,
        &body.authority,
        &body.credentials_file,
        &body.sse,
        &body.sse_kms_key,
        &body.checksum,
        &body.connect_timeout,
        &body.response_timeout,
    ];
    let flags = [&body.path_style, &body.instance_role];
    let texts = texts.into_iter().flatten().map(Spanned::span);
    let flags = flags.into_iter().flatten().map(Spanned::span);
    texts.chain(flags).chain(body.parallel.as_ref().map(Spanned::span)).collect()
}
