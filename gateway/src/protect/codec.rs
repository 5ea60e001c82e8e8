//! The node's codecs, for pixels that have to be blacked where they are compressed.
//!
//! They are those by which instances are converted for partners, with the same checks: streams that contradict their
//! attributes are refused, and what is compressed has been decoded again and compared before it is used. Knows nothing of
//! masks.

use dicom_dictionary_std::uids;
use gantry_deidentify::pixels::codec::{Codec, CodecError};
use gantry_store::dicom::TransferSyntax;

use crate::partner::transcode::{self, TranscodeError};

/// Decodes what [`transcode::convert`] decodes, and compresses with JPEG-LS Lossless. Runs on all of `rayon`'s threads; do
/// not call from one of `tokio`'s workers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Transcoder;

impl Codec for Transcoder {
    fn decode(&self, data_set: &[u8], syntax: &TransferSyntax) -> Result<Vec<u8>, CodecError> {
        let explicit = TransferSyntax::explicit_vr_little_endian();
        transcode::convert(data_set, syntax, &explicit).map_err(CodecError::new)
    }

    fn encode(&self, data_set: &[u8]) -> Result<Option<(TransferSyntax, Vec<u8>)>, CodecError> {
        let explicit = TransferSyntax::explicit_vr_little_endian();
        let jpeg_ls: TransferSyntax = uids::JPEGLS_LOSSLESS.parse().map_err(CodecError::new)?;
        match transcode::convert(data_set, &explicit, &jpeg_ls) {
            Ok(compressed) => Ok(Some((jpeg_ls, compressed))),
            // Of a depth, colours or size that JPEG-LS does not have in DICOM: then they stay native.
            Err(
                TranscodeError::Inconsistent { .. }
                | TranscodeError::TooLarge { .. }
                | TranscodeError::Encoder { .. },
            ) => Ok(None),
            Err(error) => Err(CodecError::new(error)),
        }
    }
}

#[cfg(test)]
mod tests;
