//! Protection: the only maker of [`Outgoing`], and `Outgoing` is all that a partner can be sent.
//!
//! A delivery names what was received; what may leave is decided here, under the protection that its route orders. So an
//! original cannot be sent where a protected copy was ordered: there is no way to write that. Today there is one
//! protection, `as-received`; the configuration refuses the others until they are here.

pub mod codec;

use bytes::Bytes;
use gantry_store::dicom::{SopClassUid, SopInstanceUid, TransferSyntax};
use gantry_store::facts::Digest;
use gantry_store::sealed::{ReadAt, SealedError, SealedReader};
use ring::digest::{SHA256, digest};

use crate::config::Protect;

/// An instance that may leave.
#[derive(Debug)]
pub struct Outgoing {
    sop_class: SopClassUid,
    sop_instance: SopInstanceUid,
    transfer_syntax: TransferSyntax,
    digest: Digest,
    length: u64,
    content: Content,
}

enum Content {
    Sealed(Box<SealedReader<Box<dyn ReadAt>>>),
    Converted(Bytes),
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Sealed(_) => "as received",
            Self::Converted(_) => "converted",
        })
    }
}

/// Makes of a received instance what its route lets out.
pub fn protect(received: SealedReader<Box<dyn ReadAt>>, protect: Protect) -> Outgoing {
    let facts = received.facts();
    let (transfer_syntax, digest, length) =
        (facts.transfer_syntax.clone(), facts.digest, facts.length);
    let (sop_class, sop_instance) = (facts.sop_class.clone(), facts.sop_instance.clone());
    let content = match protect {
        Protect::AsReceived => Content::Sealed(Box::new(received)),
    };
    Outgoing { sop_class, sop_instance, transfer_syntax, digest, length, content }
}

impl Outgoing {
    /// What it is.
    pub fn sop_class(&self) -> &SopClassUid {
        &self.sop_class
    }

    /// Which one it is.
    pub fn sop_instance(&self) -> &SopInstanceUid {
        &self.sop_instance
    }

    /// How it is encoded.
    pub fn transfer_syntax(&self) -> &TransferSyntax {
        &self.transfer_syntax
    }

    /// SHA-256 of what leaves.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Bytes of what leaves.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Hands on its bytes, in order, each piece with whether it is the last. Blocks. Every piece was authenticated, so a
    /// damaged object ends in an error before its last piece and is never sent whole.
    pub fn pieces<E: From<SealedError>>(
        &self,
        mut take: impl FnMut(Bytes, bool) -> Result<(), E>,
    ) -> Result<(), E> {
        match &self.content {
            Content::Converted(bytes) => take(bytes.clone(), true),
            Content::Sealed(reader) => {
                for index in 0..reader.segments() {
                    let mut buffer = Vec::new();
                    let length = reader.segment(index, &mut buffer)?.len();
                    buffer.truncate(length);
                    take(buffer.into(), index + 1 == reader.segments())?;
                }
                Ok(())
            }
        }
    }

    /// The same instance in another encoding, by `convert`: data set in, data set out. Needs the whole data set in memory.
    pub fn converted<E: From<SealedError>>(
        self,
        to: TransferSyntax,
        convert: impl FnOnce(&[u8], &TransferSyntax) -> Result<Vec<u8>, E>,
    ) -> Result<Self, E> {
        let mut whole = Vec::with_capacity(usize::try_from(self.length).unwrap_or_default());
        self.pieces(|piece, _| {
            whole.extend_from_slice(&piece);
            Ok::<_, E>(())
        })?;
        let converted = convert(&whole, &self.transfer_syntax)?;
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, &converted).as_ref());
        Ok(Self {
            transfer_syntax: to,
            digest: Digest(bytes),
            length: converted.len() as u64,
            content: Content::Converted(converted.into()),
            ..self
        })
    }
}
