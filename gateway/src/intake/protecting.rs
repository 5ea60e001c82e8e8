//! Protection at intake: of what was received only the protected copy is kept.
//!
//! The sender is answered when the original is safe in the spool, as always. The drain then makes the copy before anything is
//! recorded: the copy is a spool file of its own, synced under its name, and only then is the original erased. A crash in between
//! leaves both; doing it again gives the same copy, which is recognised. What cannot be protected is held back in the spool,
//! where no store, index or partner sees it, and tried again at the next start.

use std::io;
use std::sync::Arc;

use dicom_dictionary_std::tags;
use gantry_store::dicom::scanner::{Budget, Scanner};
use gantry_store::dicom::{SeriesInstanceUid, Uid};
use gantry_store::facts::{Digester, Facts, ObjectId};
use gantry_store::spool::{Durability, Spool, SpoolError};
use thiserror::Error;

use crate::protect::{self, ProtectError, Protection};

/// Why there is no copy.
#[derive(Debug, Error)]
pub(super) enum ProtectingError {
    /// It is set aside.
    #[error("instance cannot be protected")]
    Protect(#[from] ProtectError),
    /// The spool does not take the copy.
    #[error("copy cannot be spooled")]
    Spool(#[from] SpoolError),
    /// The copy is no instance, which it always is.
    #[error("copy does not say what it is")]
    Unnamed,
}

impl ProtectingError {
    /// Whether another try may go otherwise.
    pub(super) fn is_passing(&self) -> bool {
        !matches!(self, Self::Protect(ProtectError::SetAside(_)) | Self::Unnamed)
    }
}

/// Puts its protected copies, one for each protection, in the place of a spool entry; holds it back where there can be none.
/// Blocks.
pub(super) fn replace(
    spool: &Spool,
    object: ObjectId,
    protections: &[Arc<Protection>],
) -> Result<Vec<Facts>, ProtectingError> {
    let copies: Result<Vec<_>, ProtectingError> =
        protections.iter().map(|protection| copy(spool, object, protection)).collect();
    match &copies {
        Ok(_) => spool.erase(object)?,
        Err(error) if error.is_passing() => {}
        Err(_) => {
            spool.hold(object)?;
        }
    }
    copies
}

/// Makes a protected copy of a spool entry.
fn copy(
    spool: &Spool,
    object: ObjectId,
    protection: &Protection,
) -> Result<Facts, ProtectingError> {
    let received = spool.read(object).map_err(ProtectError::from)?;
    let original = received.facts().clone();
    let outgoing = protect::protect(received, Some(protection))?;
    let mut scanner = Scanner::new(outgoing.transfer_syntax(), Budget::default());
    let mut digester = Digester::default();
    let mut incoming = spool.begin_emergency(Vec::new())?;
    let mut unspooled = None;
    let copied = outgoing.pieces(|piece, _| {
        digester.update(&piece);
        let scanned = scanner.feed(&piece).map_err(io::Error::other);
        scanned
            .and_then(|()| {
                incoming.write(&piece).map_err(|error| {
                    unspooled = Some(error);
                    io::ErrorKind::WriteZero.into()
                })
            })
            .map_err(gantry_store::sealed::SealedError::Io)
    });
    if let Some(error) = unspooled {
        return Err(error.into());
    }
    copied.map_err(ProtectError::from)?;
    let scan = scanner.finish().map_err(|_| ProtectingError::Unnamed)?;
    let series = scan.attributes.raw(tags::SERIES_INSTANCE_UID).map(Uid::from_value);
    let series = series.and_then(Result::ok).map(SeriesInstanceUid::from);
    let facts = Facts {
        object: incoming.object(),
        sop_class: outgoing.sop_class().clone(),
        sop_instance: outgoing.sop_instance().clone(),
        study: protection.study(&original.study),
        series: series.ok_or(ProtectingError::Unnamed)?,
        transfer_syntax: outgoing.transfer_syntax().clone(),
        length: scan.length,
        digest: digester.finish(),
        pixel_data_offset: scan.pixel_data_offset,
        protected: Some(protection.name().to_owned()),
        attributes: scan.attributes,
        received_at: original.received_at,
        origin: original.origin,
    };
    incoming.commit(&facts, Durability::Durable)?;
    Ok(facts)
}
