//! Conversion to an encoding that every partner must take, without changing a value.
//!
//! The data set is written anew while the scanner walks over it. Values are copied as bytes, turned round where big
//! endian asks for it, and never decoded as text, so no character is torn and no number is rounded. What differs from
//! the original is only how elements are written (PS3.5 7.1, Annex A): value representations, the form of lengths
//! (sequences and items always get an undefined one), group lengths (gggg,0000), which would be wrong and go, and values
//! of odd length, which the standard does not know (PS3.5 7.1) and some senders write: they get the byte that they lack.
//! Sequences that came as UN of undefined length become SQ (PS3.5 6.2.2), as the result holds one encoding throughout.
//!
//! Compressed Pixel Data is replaced by what its decoder delivers. That adds no loss to what compression has lost, so
//! Lossy Image Compression (0028,2110) and its companions stay as they are, as does the SOP Instance UID
//! (PS3.3 C.7.6.1.1.5; PS3.4 B.4.1.3). Icons inside sequences are treated the same way.
//!
//! A stream that contradicts the attributes around it is refused rather than guessed at: a partner that is sent nothing
//! asks, one that is sent a wrong image does not.
//!
//! The other way round native Pixel Data becomes JPEG-LS, lossless alone, with every frame decoded again and compared
//! before it is used. Knows nothing of partners, nor when it is worth while to compress.

mod compress;
mod frames;
mod jpeg;
mod jpeg2000;
mod jpeg_ls;
mod pixels;
mod rewrite;
mod rle;
mod vr;

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use dicom_core::Tag;
use dicom_dictionary_std::uids;
use gantry_store::dicom::scanner::{self, Budget, ScanError, Scanner};
use gantry_store::dicom::transfer_syntax::{Layout, TransferSyntax};
use thiserror::Error;

use self::rewrite::{Form, Rewrite};

/// The most that the pixel data of one instance may decode to, and a deflated data set inflate to.
pub const MAX_DECODED: u64 = 1 << 30;

/// Why a data set cannot be converted. Names the syntax or the attribute, never a value.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TranscodeError {
    /// Nothing here decodes it: video, JPEG XL, JPIP, what is private.
    #[error("no decoder for transfer syntax {0}")]
    NoDecoder(TransferSyntax),
    /// Only Explicit and Implicit VR Little Endian are written, and JPEG-LS Lossless.
    #[error("transfer syntax {0} is not one that is converted to")]
    NotWritten(TransferSyntax),
    /// The data set does not pass the scanner.
    #[error("data set is damaged")]
    Damaged(#[source] ScanError),
    /// More than [`MAX_DECODED`].
    #[error("pixel data would take {bytes} bytes where {limit} are left for them")]
    TooLarge {
        /// What the attributes claim.
        bytes: u64,
        /// What was left.
        limit: u64,
    },
    /// An attribute is missing, or does not agree with the pixel data.
    #[error("attribute {tag} {why}")]
    Inconsistent {
        /// Which one.
        tag: Tag,
        /// In what way.
        why: &'static str,
    },
    /// A frame is not what its decoder decodes.
    #[error("frame {frame} of transfer syntax {syntax} cannot be decoded: {why}")]
    Codec {
        /// The transfer syntax.
        syntax: TransferSyntax,
        /// Which frame, from 1 as in PS3.3 C.7.6.6.
        frame: u64,
        /// One of a fixed set of reasons.
        why: &'static str,
    },
    /// A frame cannot be compressed, or did not come back as it was.
    #[error("frame {frame} cannot be compressed: {why}")]
    Encoder {
        /// Which frame, from 1 as in PS3.3 C.7.6.6.
        frame: u64,
        /// One of a fixed set of reasons.
        why: &'static str,
    },
    /// The scanner refuses what was written: an element whose value cannot be told apart in the new encoding.
    #[error("data set would not be readable when converted")]
    NotReadable(#[source] ScanError),
}

/// Writes a data set that is in `from` in Explicit or Implicit VR Little Endian, or in JPEG-LS Lossless, if it has Pixel
/// Data and they can be compressed.
///
/// Decoding and encoding run on all of `rayon`'s threads; do not call from one of `tokio`'s workers.
pub fn convert(
    data_set: &[u8],
    from: &TransferSyntax,
    to: &TransferSyntax,
) -> Result<Vec<u8>, TranscodeError> {
    let form = match (to.is_native(), to.layout()) {
        (true, Layout::ExplicitLittle) => Form::Explicit,
        (true, Layout::ImplicitLittle) => Form::Implicit,
        _ if to.uid() == uids::JPEGLS_LOSSLESS => Form::JpegLs,
        _ => return Err(TranscodeError::NotWritten(to.clone())),
    };
    if !is_readable(from) {
        return Err(TranscodeError::NoDecoder(from.clone()));
    }
    let budget =
        Budget { total: Some(data_set.len() as u64), inflated: MAX_DECODED, ..Budget::default() };
    let mut scanner = Scanner::with_visitor(from, budget, Rewrite::new(data_set, from, form));
    scanner.feed(data_set).map_err(TranscodeError::Damaged)?;
    let (_, rewrite) = scanner.finish_visit().map_err(TranscodeError::Damaged)?;
    let converted = rewrite.finish()?;

    let budget = Budget { total: Some(converted.len() as u64), ..Budget::default() };
    scanner::scan(to, &converted, budget).map_err(TranscodeError::NotReadable)?;
    Ok(converted)
}

/// Compresses a picture like a slice of a CT, and proves it: how many bytes, and how long it took.
pub fn measure() -> (u64, Duration) {
    const SIZE: u16 = 256;
    let mut noise = 1_u32;
    let pixels: Vec<u8> = (0..u32::from(SIZE) * u32::from(SIZE))
        .flat_map(|at| {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (row, column) = (at / u32::from(SIZE), at % u32::from(SIZE));
            ((row + column) * 4 + (noise >> 28)).to_le_bytes().into_iter().take(2)
        })
        .collect();
    let begun = Instant::now();
    // It cannot fail; if it did, it would take no time, and what is not compressed is not slow.
    let _ = compress::encode(
        jpeg_ls::Header { rows: SIZE, columns: SIZE, components: 1, precision: 12 },
        2,
        &pixels,
        false,
    );
    (pixels.len() as u64, begun.elapsed())
}

/// Whether what is around the pixel data can be read: the native syntaxes, and those of PS3.5 A.4, which may hold an
/// object without pixel data even where these have no decoder here. Of a private syntax nobody knows what is encoded
/// how, and with JPIP the pixels are elsewhere (PS3.5 A.6).
pub fn is_readable(from: &TransferSyntax) -> bool {
    let encapsulated = ["1.2.840.10008.1.2.4.", "1.2.840.10008.1.2.8."];
    match from.uid() {
        uids::JPIP_REFERENCED
        | uids::JPIP_REFERENCED_DEFLATE
        | uids::JPIPHTJ2K_REFERENCED
        | uids::JPIPHTJ2K_REFERENCED_DEFLATE => false,
        uids::RLE_LOSSLESS | uids::ENCAPSULATED_UNCOMPRESSED_EXPLICIT_VR_LITTLE_ENDIAN => true,
        uid => from.is_native() || encapsulated.iter().any(|prefix| uid.starts_with(prefix)),
    }
}
