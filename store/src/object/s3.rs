//! Objects in a bucket that speaks S3: AWS, or a server of one's own.
//!
//! An object counts as stored when the store has said so *and* shown it: its length and its SHA-256, which travel as the
//! object's own metadata, are asked for after every upload. That the bytes behind that digest are the right ones is the
//! store's doing: each request is signed together with the SHA-256 of its body, and a store that does not check it is
//! found out by the first use ([`ObjectStore::probe`]) and has every object read back.
//!
//! An object is made once. Where the store honours `If-None-Match: *` it decides who came first; where it does not, the
//! name is looked up before. In both cases a name that is taken is compared, not believed: the same content is a success
//! (an answer that was lost, a repeat after a crash), other content is [`ObjectError::Differs`].
//!
//! The SDK is asynchronous and the trait is not: a small runtime of this back end's own does the work, and the caller's
//! thread waits for it. So it works wherever it is called from, and nothing of the node's runtime is held up.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::types::ServerSideEncryption;
use tokio::runtime::Runtime;
use tokio::sync::{OnceCell, Semaphore};

use super::{Abilities, ObjectError, ObjectStore, name};
use crate::facts::ObjectId;
use crate::sealed::ReadAt;

mod client;
mod probe;
mod reader;
mod role;
mod settings;
mod trouble;
mod upload;

pub use settings::{Checksum, Credentials, Encryption, InvalidCredentials, Settings};
pub use trouble::Trouble;

/// A bucket, or what is below a prefix in one.
pub struct S3Objects {
    bucket: Arc<Bucket>,
    // Taken out only when it is dropped.
    runtime: Option<Runtime>,
}

/// What every request needs.
pub(super) struct Bucket {
    client: Client,
    settings: Settings,
    /// How many requests of uploads are under way at once.
    uploads: Semaphore,
    abilities: OnceCell<Abilities>,
}

impl std::fmt::Debug for S3Objects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("S3Objects")
            .field("bucket", &self.bucket.settings.bucket)
            .finish_non_exhaustive()
    }
}

impl S3Objects {
    /// Makes ready to speak to a bucket. Nothing is sent yet, so a store that is down is no error of the start.
    pub fn open(settings: Settings) -> Result<Self, ObjectError> {
        if settings.credentials == Credentials::Missing {
            let why = "neither in a file nor in the environment".to_owned();
            return Err(remote("sign requests", Trouble::NoCredentials(why)));
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("objects")
            .enable_all()
            .build()
            .map_err(|source| ObjectError::Io { operation: "start the threads", source })?;
        let uploads = Semaphore::new(settings.parallel);
        let bucket = Bucket {
            client: client::client(&settings),
            settings,
            uploads,
            abilities: OnceCell::new(),
        };
        Ok(Self { bucket: Arc::new(bucket), runtime: Some(runtime) })
    }

    /// Makes the bucket, which the program itself never does.
    #[cfg(feature = "suite")]
    pub fn make_bucket(&self) -> Result<(), ObjectError> {
        let bucket = self.bucket.clone();
        self.wait(async move {
            let request = bucket.client.create_bucket().bucket(&bucket.settings.bucket);
            request.send().await.map(drop).map_err(failed("make a bucket"))
        })
    }

    /// Begins an upload in parts and leaves it, as a crash would.
    #[cfg(feature = "suite")]
    pub fn begin_and_crash(&self, object: ObjectId) -> Result<(), ObjectError> {
        let bucket = self.bucket.clone();
        self.wait(async move {
            let request = bucket.client.create_multipart_upload().bucket(&bucket.settings.bucket);
            let begun = request.key(bucket.key(object)).send().await;
            begun.map(drop).map_err(failed("begin an upload in parts"))
        })
    }

    /// Runs a future on the back end's runtime, and waits for it.
    fn wait<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, ObjectError>> + Send + 'static,
    ) -> Result<T, ObjectError> {
        let stopped = || ObjectError::Io {
            operation: "wait for an answer",
            source: std::io::Error::other("the work was given up"),
        };
        let Some(runtime) = &self.runtime else { return Err(stopped()) };
        wait(runtime.handle(), work).unwrap_or_else(|| Err(stopped()))
    }
}

/// Waits, on a thread that may block, for what another runtime does; `None` if that ends first.
fn wait<T: Send + 'static>(
    runtime: &tokio::runtime::Handle,
    work: impl Future<Output = T> + Send + 'static,
) -> Option<T> {
    let (answer, result) = mpsc::sync_channel(1);
    runtime.spawn(async move {
        // Nobody listens any more if the caller's thread has ended.
        let _ = answer.send(work.await);
    });
    result.recv().ok()
}

impl Drop for S3Objects {
    fn drop(&mut self) {
        // Not waited for: this may be the thread of another runtime, which must not block.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Bucket {
    fn key(&self, object: ObjectId) -> String {
        self.settings.key(&name(object))
    }

    /// The object that a key names, if it is one of ours.
    fn object(&self, key: &str) -> Option<ObjectId> {
        let object = key.rsplit('/').next()?.parse().ok()?;
        (self.key(object) == key).then_some(object)
    }

    fn encryption(&self) -> (Option<ServerSideEncryption>, Option<String>) {
        match &self.settings.encryption {
            Encryption::None => (None, None),
            Encryption::Aes256 => (Some(ServerSideEncryption::Aes256), None),
            Encryption::Kms { key } => (Some(ServerSideEncryption::AwsKms), key.clone()),
        }
    }

    async fn delete(&self, key: String) -> Result<(), ObjectError> {
        let request = self.client.delete_object().bucket(&self.settings.bucket).key(key);
        match request.send().await {
            Err(error) if status(&error) == Some(404) && error.code() != Some("NoSuchBucket") => {
                Ok(())
            }
            Err(error) => Err(failed("delete")(error)),
            Ok(_) => Ok(()),
        }
    }

    async fn list(
        &self,
        after: Option<ObjectId>,
        limit: usize,
    ) -> Result<Vec<ObjectId>, ObjectError> {
        let mut found = Vec::new();
        let mut from = after.map(|object| self.key(object));
        while found.len() < limit {
            let page = self
                .client
                .list_objects_v2()
                .bucket(&self.settings.bucket)
                .prefix(self.settings.key(""))
                .set_start_after(from)
                .max_keys(i32::try_from(limit - found.len()).unwrap_or(1000).min(1000))
                .send()
                .await
                .map_err(failed("list"))?;
            // What is not ours, such as the rest of a probe, is passed over.
            found.extend(page.contents().iter().filter_map(|entry| self.object(entry.key()?)));
            from = page.contents().last().and_then(|entry| entry.key()).map(str::to_owned);
            if page.is_truncated() != Some(true) || from.is_none() {
                break;
            }
        }
        Ok(found)
    }
}

/// HTTP status of an answer that is an error.
fn status<E>(error: &SdkError<E, HttpResponse>) -> Option<u16> {
    error.raw_response().map(|response| response.status().as_u16())
}

fn failed<E>(operation: &'static str) -> impl Fn(SdkError<E, HttpResponse>) -> ObjectError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    move |error| remote(operation, trouble::trouble(&error))
}

fn remote(operation: &'static str, source: Trouble) -> ObjectError {
    match source {
        Trouble::Full(_) => ObjectError::Full,
        source => ObjectError::Remote { operation, source },
    }
}

impl ObjectStore for S3Objects {
    fn put(&self, files: &[(ObjectId, PathBuf)]) -> Vec<Result<(), ObjectError>> {
        let (bucket, work) = (self.bucket.clone(), files.to_vec());
        match self.wait(async move { Ok(upload::put_all(&bucket, work).await) }) {
            Ok(answers) => answers,
            Err(_) => files.iter().map(|_| Err(ObjectError::NotTried)).collect(),
        }
    }

    fn replace(&self, object: ObjectId, file: &Path) -> Result<(), ObjectError> {
        let (bucket, file) = (self.bucket.clone(), file.to_owned());
        self.wait(async move { upload::replace(&bucket, object, &file).await })
    }

    fn open(&self, object: ObjectId) -> Result<Box<dyn ReadAt>, ObjectError> {
        let bucket = self.bucket.clone();
        let Some(runtime) = &self.runtime else { return Err(ObjectError::NotTried) };
        let handle = runtime.handle().clone();
        let reader =
            self.wait(async move { reader::Reader::open(bucket, handle, object).await })?;
        Ok(Box::new(reader))
    }

    fn delete(&self, object: ObjectId) -> Result<(), ObjectError> {
        let bucket = self.bucket.clone();
        self.wait(async move { bucket.delete(bucket.key(object)).await })
    }

    fn list(&self, after: Option<ObjectId>, limit: usize) -> Result<Vec<ObjectId>, ObjectError> {
        let bucket = self.bucket.clone();
        self.wait(async move { bucket.list(after, limit).await })
    }

    fn probe(&self) -> Result<Abilities, ObjectError> {
        let bucket = self.bucket.clone();
        self.wait(async move { probe::probe(&bucket).await })
    }

    fn sweep(&self, ours: &dyn Fn(ObjectId) -> bool) -> Result<usize, ObjectError> {
        let bucket = self.bucket.clone();
        let unfinished = self.wait(async move { upload::unfinished(&bucket).await })?;
        let abandoned: Vec<_> = unfinished
            .into_iter()
            .filter(|upload| upload.is_old() || ours(upload.object))
            .collect();
        let bucket = self.bucket.clone();
        self.wait(async move { upload::abort_all(&bucket, abandoned).await })
    }

    fn is_near(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests;
