//! Lossless conversion to an encoding that every partner must take.

use gantry_store::dicom::TransferSyntax;
use thiserror::Error;

/// Why a data set cannot be converted.
#[derive(Debug, Error)]
pub enum TranscodeError {
    /// No decoder.
    #[error("no decoder for transfer syntax {0}")]
    NoDecoder(TransferSyntax),
}

/// Converts.
pub fn convert(_data_set: &[u8], from: &TransferSyntax, _to: &TransferSyntax) -> Result<Vec<u8>, TranscodeError> {
    Err(TranscodeError::NoDecoder(from.clone()))
}
