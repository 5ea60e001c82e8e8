//! Putting a file into the bucket: once, whole, and looked at afterwards.
//!
//! A file is read twice: for its digest, which the request is signed with, and for its bytes. It lies in the page cache, so
//! that costs little, and no more than a few buffers are in memory, however long the file and however many at once.
//!
//! Long files go up in parts, several at once. A part that fails is tried again alone; a file that fails is aborted, and
//! what a crash leaves is found by [`unfinished`]. Until the last request nothing of it can be seen under the object's
//! name.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::primitives::{ByteStream, Length};
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::FutureExt as _;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use ring::digest::{Context, SHA256};

use super::client::{SignedBody, hex, timeouts};
use super::settings::Checksum;
use super::trouble::{Trouble, trouble};
use super::{Bucket, failed, probe, remote, status};
use crate::facts::ObjectId;
use crate::object::ObjectError;

/// The metadata that holds the SHA-256 of the whole content: what an object is compared by.
const DIGEST: &str = "sha256";
/// The shortest part that S3 takes is 5 MiB, and the most parts are 10,000.
const PART: u64 = 8 << 20;
const PARTS: u64 = 9_000;
/// A body up to this length is read at once; a longer one is streamed.
const IN_MEMORY: u64 = 1 << 20;
/// How much of a streamed body is read at once.
const BUFFER: usize = 256 << 10;
/// An unfinished upload this old belongs to nobody who is still at it.
const OLD: Duration = Duration::from_hours(24);

/// What is known of a file before it goes up.
#[derive(Clone, Debug)]
pub(super) struct Content {
    path: PathBuf,
    length: u64,
    digest: [u8; 32],
    /// Digests of its parts, of `part` bytes each; empty for one that goes up whole.
    parts: Vec<[u8; 32]>,
    part: u64,
}

impl Content {
    /// Reads a file through. Blocks.
    fn of(path: &Path, multipart_above: u64) -> std::io::Result<Self> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        let part = length.div_ceil(PARTS).next_multiple_of(1 << 20).max(PART);
        let in_parts = length > multipart_above;
        let (mut whole, mut one) = (Context::new(&SHA256), Context::new(&SHA256));
        let (mut parts, mut in_part, mut read) = (Vec::new(), 0, 0);
        let mut buffer = vec![0; BUFFER];
        loop {
            let most = (part - in_part).min(BUFFER as u64) as usize;
            let count = file.read(buffer.get_mut(..most).unwrap_or_default())?;
            let bytes = buffer.get(..count).unwrap_or_default();
            whole.update(bytes);
            read += count as u64;
            if in_parts {
                one.update(bytes);
                in_part += count as u64;
                if in_part == part || (count == 0 && in_part > 0) {
                    parts.push(sha256(std::mem::replace(&mut one, Context::new(&SHA256))));
                    in_part = 0;
                }
            }
            if count == 0 {
                break;
            }
        }
        if read != length {
            return Err(std::io::Error::other("the file changed while it was read"));
        }
        Ok(Self { path: path.to_owned(), length, digest: sha256(whole), parts, part })
    }

    fn is_whole(&self) -> bool {
        self.parts.is_empty()
    }

    /// The body of a request.
    async fn body(&self, offset: u64, length: u64) -> Result<ByteStream, ObjectError> {
        let read = |source| ObjectError::Io { operation: "read the spool", source };
        if length <= IN_MEMORY {
            let path = self.path.clone();
            let bytes = blocking(move || {
                use std::os::unix::fs::FileExt as _;
                let mut bytes = vec![0; length as usize];
                File::open(path)?.read_exact_at(&mut bytes, offset)?;
                Ok(bytes)
            });
            return Ok(ByteStream::from(bytes.await.map_err(read)?));
        }
        ByteStream::read_from()
            .path(&self.path)
            .offset(offset)
            .length(Length::Exact(length))
            .buffer_size(BUFFER)
            .build()
            .await
            .map_err(|error| read(std::io::Error::other(error)))
    }
}

fn sha256(context: Context) -> [u8; 32] {
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(std::io::Error::other(error)))
}

/// Puts files up, several at once; answers are in their order. After the first sign that the store is in trouble no more
/// are begun.
pub(super) async fn put_all(
    bucket: &Arc<Bucket>,
    files: Vec<(ObjectId, PathBuf)>,
) -> Vec<Result<(), ObjectError>> {
    // Once and not by each: who finds the store down here would find it so one after the other.
    if let Err(error) = probe::abilities(bucket).await {
        let rest = files.iter().skip(1).map(|_| Err(ObjectError::NotTried));
        return std::iter::once(Err(error)).chain(rest).take(files.len()).collect();
    }
    let in_trouble = Arc::new(AtomicBool::new(false));
    let answers = stream::iter(files).map(|(object, path)| {
        let (bucket, in_trouble) = (bucket.clone(), in_trouble.clone());
        // A task each, so that digests of several are computed at once.
        let put = tokio::spawn(async move {
            if in_trouble.load(Ordering::Acquire) {
                return Err(ObjectError::NotTried);
            }
            let answer = put(&bucket, object, &path).await;
            if answer.as_ref().is_err_and(is_trouble) {
                in_trouble.store(true, Ordering::Release);
            }
            answer
        });
        async move { put.await.unwrap_or(Err(ObjectError::NotTried)) }
    });
    answers.buffered(bucket.settings.parallel * 2).collect().await
}

/// Whether the next file would fare no better. One that cannot be read says nothing of the store.
fn is_trouble(error: &ObjectError) -> bool {
    !matches!(error, ObjectError::Io { .. }) && error.concerns_all()
}

async fn put(bucket: &Bucket, object: ObjectId, path: &Path) -> Result<(), ObjectError> {
    let abilities = probe::abilities(bucket).await?;
    let content = content(bucket, path).await?;
    if !abilities.conditional_create
        && let Some(found) = look(bucket, object).await?
    {
        return found.compare(object, &content);
    }
    match upload(bucket, object, &content, abilities.conditional_create).await {
        Ok(shown) => confirm(bucket, object, &content, shown, abilities.verifies).await,
        // The name is taken: by an earlier try whose answer was lost, or by something else.
        Err(Failed::Taken) => match look(bucket, object).await? {
            Some(found) => found.compare(object, &content),
            None => Err(remote("put", Trouble::Busy { status: 412, code: String::new() })),
        },
        Err(Failed::Other(error)) => {
            let ObjectError::Remote { source, .. } = &error else { return Err(error) };
            if !source.leaves_doubt() {
                return Err(error);
            }
            // It may be there although nobody said so.
            match look(bucket, object).await {
                Ok(Some(found)) if found.compare(object, &content).is_ok() => {
                    confirm(bucket, object, &content, false, abilities.verifies).await
                }
                _ => Err(error),
            }
        }
    }
}

/// Puts other content under a name that is taken. S3 replaces an object whole or not at all.
pub(super) async fn replace(
    bucket: &Bucket,
    object: ObjectId,
    path: &Path,
) -> Result<(), ObjectError> {
    let abilities = probe::abilities(bucket).await?;
    let content = content(bucket, path).await?;
    if look(bucket, object).await?.is_none() {
        return Err(ObjectError::Missing(object));
    }
    match upload(bucket, object, &content, false).await {
        Ok(shown) => confirm(bucket, object, &content, shown, abilities.verifies).await,
        Err(Failed::Taken) => Err(ObjectError::Differs(object)),
        Err(Failed::Other(error)) => Err(error),
    }
}

async fn content(bucket: &Bucket, path: &Path) -> Result<Content, ObjectError> {
    let (path, above) = (path.to_owned(), bucket.settings.multipart_above);
    blocking(move || Content::of(&path, above))
        .await
        .map_err(|source| ObjectError::Io { operation: "read the spool", source })
}

/// What an object in the bucket shows of itself without being read.
struct Found {
    length: Option<u64>,
    digest: Option<String>,
}

impl Found {
    fn new(head: &HeadObjectOutput) -> Self {
        let digest = head.metadata().and_then(|metadata| metadata.get(DIGEST)).cloned();
        Self { length: head.content_length().and_then(|length| length.try_into().ok()), digest }
    }

    fn compare(&self, object: ObjectId, content: &Content) -> Result<(), ObjectError> {
        let same = self.length == Some(content.length)
            && self.digest.as_deref() == Some(&hex(&content.digest));
        if same { Ok(()) } else { Err(ObjectError::Differs(object)) }
    }
}

async fn look(bucket: &Bucket, object: ObjectId) -> Result<Option<Found>, ObjectError> {
    let request =
        bucket.client.head_object().bucket(&bucket.settings.bucket).key(bucket.key(object));
    match request.send().await {
        Ok(head) => Ok(Some(Found::new(&head))),
        Err(error) if status(&error) == Some(404) => Ok(None),
        Err(error) => Err(failed("look up an object")(error)),
    }
}

/// Makes sure that what was put is there: by the store's own checksum where it gave one, else by asking; and by reading it
/// back where the store does not check what it receives.
async fn confirm(
    bucket: &Bucket,
    object: ObjectId,
    content: &Content,
    shown: bool,
    verifies: bool,
) -> Result<(), ObjectError> {
    if !shown {
        let Some(found) = look(bucket, object).await? else {
            let words = "an object that it has just taken is not there".to_owned();
            return Err(remote("confirm an object", Trouble::Nonsense(words)));
        };
        found.compare(object, content)?;
    }
    if verifies { Ok(()) } else { read_back(bucket, object, content).await }
}

async fn read_back(
    bucket: &Bucket,
    object: ObjectId,
    content: &Content,
) -> Result<(), ObjectError> {
    let broken = |error: aws_sdk_s3::primitives::ByteStreamError| {
        remote("read an object back", Trouble::Broken(error.to_string()))
    };
    let timeouts = timeouts(&bucket.settings, content.length);
    let request =
        bucket.client.get_object().bucket(&bucket.settings.bucket).key(bucket.key(object));
    let request =
        request.customize().config_override(aws_sdk_s3::Config::builder().timeout_config(timeouts));
    let mut body = request.send().await.map_err(failed("read an object back"))?.body;
    let (mut digest, mut length) = (Context::new(&SHA256), 0);
    while let Some(bytes) = body.try_next().await.map_err(broken)? {
        digest.update(&bytes);
        length += bytes.len() as u64;
    }
    if length == content.length && sha256(digest) == content.digest {
        Ok(())
    } else {
        Err(remote("read an object back", Trouble::Damaged("it gave other bytes".to_owned())))
    }
}

/// Why an upload did not succeed.
enum Failed {
    /// Something of that name is there.
    Taken,
    Other(ObjectError),
}

impl From<ObjectError> for Failed {
    fn from(error: ObjectError) -> Self {
        Self::Other(error)
    }
}

/// Sends a file; true if the store's answer showed the right checksum.
async fn upload(
    bucket: &Bucket,
    object: ObjectId,
    content: &Content,
    only_new: bool,
) -> Result<bool, Failed> {
    if content.is_whole() {
        upload_whole(bucket, object, content, only_new).await
    } else {
        // A name that is taken is found out before much is sent in vain.
        if only_new && look(bucket, object).await?.is_some() {
            return Err(Failed::Taken);
        }
        upload_in_parts(bucket, object, content, only_new).await
    }
}

async fn upload_whole(
    bucket: &Bucket,
    object: ObjectId,
    content: &Content,
    only_new: bool,
) -> Result<bool, Failed> {
    let _turn = bucket.uploads.acquire().await;
    let (encryption, kms_key) = bucket.encryption();
    let checksum = checksum(bucket, &content.digest);
    let request = bucket
        .client
        .put_object()
        .bucket(&bucket.settings.bucket)
        .key(bucket.key(object))
        .metadata(DIGEST, hex(&content.digest))
        .content_length(content.length.cast_signed())
        .set_server_side_encryption(encryption)
        .set_ssekms_key_id(kms_key)
        .set_checksum_sha256(checksum.clone())
        .set_if_none_match(only_new.then(|| "*".to_owned()))
        .body(content.body(0, content.length).await?)
        .customize()
        .interceptor(SignedBody::new(&content.digest))
        .config_override(
            aws_sdk_s3::Config::builder()
                .timeout_config(timeouts(&bucket.settings, content.length)),
        );
    match request.send().await {
        Ok(answer) => Ok(checksum.is_some() && answer.checksum_sha256() == checksum.as_deref()),
        Err(error) if matches!(status(&error), Some(409 | 412)) && only_new => Err(Failed::Taken),
        Err(error) => Err(remote("put", trouble(&error)).into()),
    }
}

fn checksum(bucket: &Bucket, digest: &[u8]) -> Option<String> {
    (bucket.settings.checksum == Checksum::Always).then(|| STANDARD.encode(digest))
}

async fn upload_in_parts(
    bucket: &Bucket,
    object: ObjectId,
    content: &Content,
    only_new: bool,
) -> Result<bool, Failed> {
    let (encryption, kms_key) = bucket.encryption();
    let algorithm = (bucket.settings.checksum == Checksum::Always)
        .then_some(aws_sdk_s3::types::ChecksumAlgorithm::Sha256);
    let begun = bucket
        .client
        .create_multipart_upload()
        .bucket(&bucket.settings.bucket)
        .key(bucket.key(object))
        .metadata(DIGEST, hex(&content.digest))
        .set_server_side_encryption(encryption)
        .set_ssekms_key_id(kms_key)
        .set_checksum_algorithm(algorithm)
        .send()
        .await
        .map_err(failed("begin an upload in parts"))?;
    let Some(id) = begun.upload_id() else {
        let words = "an upload in parts without an id".to_owned();
        return Err(remote("begin an upload in parts", Trouble::Nonsense(words)).into());
    };
    let upload = Unfinished { object, id: id.to_owned(), since: None };
    let result = finish(bucket, &upload, content, only_new).await;
    if result.is_err() {
        // If this fails too, the next start finds it.
        let _ = abort(bucket, &upload).await;
    }
    result.map(|()| false)
}

async fn finish(
    bucket: &Bucket,
    upload: &Unfinished,
    content: &Content,
    only_new: bool,
) -> Result<(), Failed> {
    // Boxed, as the compiler cannot tell otherwise that they may move between threads.
    let parts: Vec<_> = content
        .parts
        .iter()
        .enumerate()
        .map(|(at, digest)| part(bucket, upload, content, at, digest).boxed())
        .collect();
    let parts: Vec<CompletedPart> =
        stream::iter(parts).buffered(bucket.settings.parallel).try_collect().await?;
    let request = bucket
        .client
        .complete_multipart_upload()
        .bucket(&bucket.settings.bucket)
        .key(bucket.key(upload.object))
        .upload_id(&upload.id)
        .set_if_none_match(only_new.then(|| "*".to_owned()))
        .multipart_upload(CompletedMultipartUpload::builder().set_parts(Some(parts)).build())
        .customize()
        // Joining the parts takes some servers a while.
        .config_override(
            aws_sdk_s3::Config::builder()
                .timeout_config(timeouts(&bucket.settings, content.length / 16)),
        );
    match request.send().await {
        Ok(_) => Ok(()),
        Err(error) if matches!(status(&error), Some(409 | 412)) && only_new => Err(Failed::Taken),
        // Tried again after its answer was lost: whether it is there is for the caller to look.
        Err(error) if status(&error) == Some(404) => {
            Err(remote("finish an upload", Trouble::Nonsense("the upload is not known".to_owned()))
                .into())
        }
        Err(error) => Err(remote("finish an upload", trouble(&error)).into()),
    }
}

async fn part(
    bucket: &Bucket,
    upload: &Unfinished,
    content: &Content,
    at: usize,
    digest: &[u8; 32],
) -> Result<CompletedPart, ObjectError> {
    let _turn = bucket.uploads.acquire().await;
    let offset = at as u64 * content.part;
    let length = content.part.min(content.length - offset);
    let number = i32::try_from(at + 1).unwrap_or(i32::MAX);
    let checksum = checksum(bucket, digest);
    let answer = bucket
        .client
        .upload_part()
        .bucket(&bucket.settings.bucket)
        .key(bucket.key(upload.object))
        .upload_id(&upload.id)
        .part_number(number)
        .content_length(length.cast_signed())
        .set_checksum_sha256(checksum.clone())
        .body(content.body(offset, length).await?)
        .customize()
        .interceptor(SignedBody::new(digest))
        .config_override(
            aws_sdk_s3::Config::builder().timeout_config(timeouts(&bucket.settings, length)),
        )
        .send()
        .await
        .map_err(failed("put a part"))?;
    Ok(CompletedPart::builder()
        .part_number(number)
        .set_e_tag(answer.e_tag().map(str::to_owned))
        .set_checksum_sha256(checksum)
        .build())
}

/// An upload in parts that was begun and neither finished nor aborted.
#[derive(Debug)]
pub(super) struct Unfinished {
    pub(super) object: ObjectId,
    id: String,
    since: Option<SystemTime>,
}

impl Unfinished {
    pub(super) fn is_old(&self) -> bool {
        self.since.and_then(|since| since.elapsed().ok()).is_some_and(|age| age > OLD)
    }
}

/// Uploads below our prefix that are not finished, of whoever began them.
pub(super) async fn unfinished(bucket: &Bucket) -> Result<Vec<Unfinished>, ObjectError> {
    let mut found = Vec::new();
    let (mut key, mut id) = (None, None);
    loop {
        let request = bucket
            .client
            .list_multipart_uploads()
            .bucket(&bucket.settings.bucket)
            .prefix(bucket.settings.key(""))
            .set_key_marker(key)
            .set_upload_id_marker(id);
        let page = match request.send().await {
            Ok(page) => page,
            // A store that cannot list them has nothing that could be aborted.
            Err(error) if status(&error) == Some(501) => return Ok(found),
            Err(error) => return Err(failed("list unfinished uploads")(error)),
        };
        found.extend(page.uploads().iter().filter_map(|upload| {
            let since = upload.initiated().and_then(|since| SystemTime::try_from(*since).ok());
            Some(Unfinished {
                object: bucket.object(upload.key()?)?,
                id: upload.upload_id()?.to_owned(),
                since,
            })
        }));
        key = page.next_key_marker().map(str::to_owned);
        id = page.next_upload_id_marker().map(str::to_owned);
        if page.is_truncated() != Some(true) || key.is_none() {
            return Ok(found);
        }
    }
}

/// Aborts them, and returns how many there were.
pub(super) async fn abort_all(
    bucket: &Bucket,
    uploads: Vec<Unfinished>,
) -> Result<usize, ObjectError> {
    for upload in &uploads {
        abort(bucket, upload).await?;
    }
    Ok(uploads.len())
}

async fn abort(bucket: &Bucket, upload: &Unfinished) -> Result<(), ObjectError> {
    let request = bucket
        .client
        .abort_multipart_upload()
        .bucket(&bucket.settings.bucket)
        .key(bucket.key(upload.object))
        .upload_id(&upload.id);
    match request.send().await {
        Err(error) if status(&error) == Some(404) => Ok(()),
        Err(error) => Err(failed("abort an upload")(error)),
        Ok(_) => Ok(()),
    }
}
