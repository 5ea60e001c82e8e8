//! Finding out whether a bucket can be used, and what the server behind it really does.
//!
//! "Speaks S3" says little: some servers take `If-None-Match: *` and overwrite all the same, some ignore ranges, some
//! take a body that is not the one that was signed. So each is tried, on a name below `probe/` that is removed again.

use aws_sdk_s3::primitives::ByteStream;
use ring::digest::{SHA256, digest};

use super::client::SignedBody;
use super::trouble::{Trouble, trouble};
use super::{Bucket, failed, remote, status};
use crate::facts::ObjectId;
use crate::object::{Abilities, ObjectError};

/// What the store does, found out at the first use and remembered.
pub(super) async fn abilities(bucket: &Bucket) -> Result<Abilities, ObjectError> {
    bucket.abilities.get_or_try_init(|| probe(bucket)).await.copied()
}

/// Writes, reads and removes.
pub(super) async fn probe(bucket: &Bucket) -> Result<Abilities, ObjectError> {
    let id = ObjectId::new();
    let key = bucket.settings.key(&format!("probe/{id}"));
    let result = probe_at(bucket, &key, id.to_string().as_bytes()).await;
    let deleted = match &result {
        // Whoever could not write has nothing to remove.
        Err(_) => Ok(()),
        Ok(_) => bucket.delete(key).await,
    };
    let abilities = result?;
    deleted?;
    Ok(abilities)
}

async fn probe_at(bucket: &Bucket, key: &str, text: &[u8]) -> Result<Abilities, ObjectError> {
    let put = |body: &[u8], signed: &[u8]| {
        let (encryption, kms_key) = bucket.encryption();
        bucket
            .client
            .put_object()
            .bucket(&bucket.settings.bucket)
            .key(key)
            .set_server_side_encryption(encryption)
            .set_ssekms_key_id(kms_key)
            .body(ByteStream::from(body.to_vec()))
            .customize()
            .interceptor(SignedBody::new(digest(&SHA256, signed).as_ref()))
    };
    put(text, text).send().await.map_err(failed("write"))?;
    let read = get(bucket, key, None).await?;
    if read != text {
        return Err(remote("read back", Trouble::Damaged("it gave other bytes".to_owned())));
    }
    let middle = get(bucket, key, Some("bytes=3-7")).await?;
    let ranges = text.get(3..=7) == Some(&middle[..]);

    // A store that takes this does not look at the digest, and then what follows tells it from one that does.
    let verifies = match put(b"damaged on its way", text).send().await {
        Ok(_) => false,
        // Each server has its own word for it; the key was right a moment ago.
        Err(error) => match trouble(&error) {
            Trouble::Damaged(_) | Trouble::WrongKey(_) | Trouble::Other { .. } => true,
            // Refused, perhaps for this and perhaps not: reading back is the safe guess.
            Trouble::Busy { status: 500, .. } => false,
            trouble => return Err(remote("write", trouble)),
        },
    };
    let again = bucket
        .client
        .put_object()
        .bucket(&bucket.settings.bucket)
        .key(key)
        .if_none_match("*")
        .body(ByteStream::from_static(b"something else"));
    let conditional_create = match again.send().await {
        Ok(_) => false,
        Err(error) if status(&error) == Some(412) => true,
        // Not implemented, or not understood; anything else is trouble.
        Err(error) => match trouble(&error) {
            Trouble::Other { .. } | Trouble::Busy { status: 501, .. } => false,
            trouble => return Err(remote("write", trouble)),
        },
    };
    Ok(Abilities { conditional_create, ranges, verifies })
}

async fn get(bucket: &Bucket, key: &str, range: Option<&str>) -> Result<Vec<u8>, ObjectError> {
    let request = bucket
        .client
        .get_object()
        .bucket(&bucket.settings.bucket)
        .key(key)
        .set_range(range.map(str::to_owned));
    let answer = request.send().await.map_err(failed("read"))?;
    let read = answer.body.collect().await;
    let broken =
        |error: aws_sdk_s3::primitives::ByteStreamError| Trouble::Broken(error.to_string());
    Ok(read.map_err(|error| remote("read", broken(error)))?.to_vec())
}
