//! Reading an object from any place, without reading what nobody asked for.
//!
//! A frame of a long object is a few segments in its middle: those, and nothing else, are asked for. Whoever goes on where
//! the last read ended gets twice as much with each request, up to [`MOST`], from memory: so a whole object streams in
//! requests of megabytes although it is asked for segment by segment.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use bytes::Bytes;
use tokio::runtime::Handle;

use super::client::timeouts;
use super::trouble::{Trouble, trouble};
use super::{Bucket, failed, remote, status, wait};
use crate::facts::ObjectId;
use crate::object::ObjectError;
use crate::sealed::{HEADER, ReadAt};

/// The most that is read ahead, and so what a reader holds in memory.
const MOST: u64 = 8 << 20;
/// How often a read is tried whose connection breaks in the middle.
const TRIES: usize = 3;

/// An object that is being read.
pub(super) struct Reader {
    bucket: Arc<Bucket>,
    runtime: Handle,
    object: ObjectId,
    length: u64,
    ahead: Mutex<Ahead>,
}

/// What was read and may be asked for next.
struct Ahead {
    bytes: Bytes,
    from: u64,
    /// How much the next request is for, if it goes on where this ends.
    next: u64,
}

impl Ahead {
    fn end(&self) -> u64 {
        self.from + self.bytes.len() as u64
    }

    fn get(&self, from: u64, length: usize) -> Option<&[u8]> {
        let begin = usize::try_from(from.checked_sub(self.from)?).ok()?;
        self.bytes.get(begin..begin.checked_add(length)?)
    }
}

impl Reader {
    /// Asks for the header, as every reader of a sealed file does first; the answer tells the length too.
    pub(super) async fn open(
        bucket: Arc<Bucket>,
        runtime: Handle,
        object: ObjectId,
    ) -> Result<Self, ObjectError> {
        let (length, bytes) = get(&bucket, object, 0..HEADER as u64).await?;
        let ahead = Ahead { bytes, from: 0, next: 0 };
        Ok(Self { bucket, runtime, object, length, ahead: Mutex::new(ahead) })
    }
}

impl ReadAt for Reader {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let wanted = buffer.len() as u64;
        let end = offset.checked_add(wanted).filter(|end| *end <= self.length);
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        if buffer.is_empty() {
            return Ok(());
        }
        // Replaced as a whole, so a panic elsewhere leaves it whole.
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bytes) = ahead.get(offset, buffer.len()) {
            buffer.copy_from_slice(bytes);
            return Ok(());
        }
        let goes_on = offset == ahead.end() && ahead.next > 0;
        let size = if goes_on { ahead.next.max(wanted) } else { wanted };
        let range = offset..(offset + size).min(self.length).max(end);
        let (bucket, object) = (self.bucket.clone(), self.object);
        let read = wait(&self.runtime, async move { get(&bucket, object, range).await });
        let read = read.ok_or_else(|| io::Error::other("the object store was closed"))?;
        let (length, bytes) = read.map_err(io::Error::other)?;
        if length != self.length {
            return Err(io::Error::other("the object has another length than when it was opened"));
        }
        *ahead = Ahead { bytes, from: offset, next: (size * 2).min(MOST) };
        buffer
            .copy_from_slice(ahead.get(offset, buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.length)
    }
}

/// Reads a range, which may reach beyond the end, and the length of the whole.
async fn get(
    bucket: &Bucket,
    object: ObjectId,
    range: Range<u64>,
) -> Result<(u64, Bytes), ObjectError> {
    let mut tries = 0;
    loop {
        tries += 1;
        match get_once(bucket, object, range.clone()).await {
            Err(ObjectError::Remote { source: Trouble::Broken(_), .. }) if tries < TRIES => {}
            result => return result,
        }
    }
}

async fn get_once(
    bucket: &Bucket,
    object: ObjectId,
    range: Range<u64>,
) -> Result<(u64, Bytes), ObjectError> {
    let timeouts = timeouts(&bucket.settings, range.end - range.start);
    let request = bucket
        .client
        .get_object()
        .bucket(&bucket.settings.bucket)
        .key(bucket.key(object))
        .range(format!("bytes={}-{}", range.start, range.end - 1))
        .customize()
        .config_override(aws_sdk_s3::Config::builder().timeout_config(timeouts));
    let answer = match request.send().await {
        Ok(answer) => answer,
        Err(error) if status(&error) == Some(404) => {
            return Err(match trouble(&error) {
                trouble @ Trouble::NoBucket => remote("read", trouble),
                _ => ObjectError::Missing(object),
            });
        }
        // The range begins behind the end: of an object without a byte, which is no sealed file.
        Err(error) if status(&error) == Some(416) => return Ok((0, Bytes::new())),
        Err(error) => return Err(failed("read")(error)),
    };
    let placed = place(&answer);
    let (from, length) = placed.ok_or_else(|| {
        remote("read", Trouble::Nonsense("a part of an object without its place".to_owned()))
    })?;
    take(answer, from, length, range).await
}

/// Where the body begins, and how long the whole is. A store that ignores ranges sends all of it.
fn place(answer: &GetObjectOutput) -> Option<(u64, u64)> {
    let Some(range) = answer.content_range() else {
        return Some((0, answer.content_length()?.try_into().ok()?));
    };
    let (part, length) = range.strip_prefix("bytes ")?.split_once('/')?;
    Some((part.split_once('-')?.0.parse().ok()?, length.parse().ok()?))
}

async fn take(
    mut answer: GetObjectOutput,
    from: u64,
    length: u64,
    range: Range<u64>,
) -> Result<(u64, Bytes), ObjectError> {
    let broken = |words: String| remote("read", Trouble::Broken(words));
    let (mut skip, most) =
        (range.start.saturating_sub(from), range.end.min(length).saturating_sub(range.start));
    let mut taken = Vec::with_capacity(most as usize);
    while (taken.len() as u64) < most {
        let next = answer.body.try_next().await.map_err(|error| broken(error.to_string()))?;
        let Some(mut bytes) = next else { return Err(broken("it ended early".to_owned())) };
        let skipped = skip.min(bytes.len() as u64);
        skip -= skipped;
        let _ = bytes.split_to(skipped as usize);
        bytes.truncate((most - taken.len() as u64) as usize);
        taken.extend_from_slice(&bytes);
    }
    Ok((length, taken.into()))
}
