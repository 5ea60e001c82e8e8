//! Black in compressed pixel data: decoded, blacked, and compressed again without loss.
//!
//! Codecs are not here: this crate's caller has them, and gives them as a [`Codec`]. What was lost by an earlier compression
//! stays lost and is said: Lossy Image Compression (0028,2110) of an image that came in a lossy process is 01 afterwards,
//! whatever it was before (PS3.3 C.7.6.1.1.5). Needs the data set whole in memory; what only needs its comments emptied
//! goes through [`super::codestream`], which does not.

use std::error::Error;

use dicom_core::VR;
use dicom_dictionary_std::{tags, uids};
use gantry_store::dicom::TransferSyntax;
use thiserror::Error;

use super::blacken::{Area, Blacked, BlackenError, Native};
use super::image::Image;
use crate::data_set::{self, DataSetError, Element, PixelData};

/// Decodes and encodes pixel data in whole data sets. Implementations change nothing else, and refuse rather than guess.
pub trait Codec {
    /// The same data set in Explicit VR Little Endian, its pixel data native.
    fn decode(&self, data_set: &[u8], syntax: &TransferSyntax) -> Result<Vec<u8>, CodecError>;

    /// A data set in Explicit VR Little Endian, its pixel data compressed without loss, and how; `None` if these pixels are
    /// not ones that can be compressed.
    fn encode(&self, data_set: &[u8]) -> Result<Option<(TransferSyntax, Vec<u8>)>, CodecError>;
}

/// Why a codec refused, without a value of the data set.
#[derive(Debug, Error)]
#[error("codec refused the pixel data")]
pub struct CodecError(#[source] Box<dyn Error + Send + Sync>);

impl CodecError {
    /// For this reason.
    pub fn new(source: impl Error + Send + Sync + 'static) -> Self {
        Self(Box::new(source))
    }
}

/// Why compressed pixel data cannot be blacked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RecodeError {
    /// They cannot be decoded.
    #[error("compressed pixel data cannot be decoded")]
    Decode(#[source] CodecError),
    /// They cannot be compressed again, though they are such as can be.
    #[error("blacked pixel data cannot be compressed")]
    Encode(#[source] CodecError),
    /// What the codec delivered is no data set.
    #[error("decoded data set cannot be read")]
    DataSet(#[from] DataSetError),
    /// What the codec delivered has no native pixel data.
    #[error("decoded data set has no native pixel data")]
    NoPixels,
    /// They are decoded, and cannot be blacked.
    #[error("decoded pixel data cannot be blacked")]
    Blacken(#[from] BlackenError),
}

/// A data set with blacked pixels.
#[derive(Clone, Eq, PartialEq)]
pub struct Recoded {
    /// How it is encoded now.
    pub syntax: TransferSyntax,
    /// Its bytes.
    pub data_set: Vec<u8>,
    /// What was blacked.
    pub blacked: Blacked,
}

/// Values are patients'.
impl std::fmt::Debug for Recoded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bytes = self.data_set.len();
        write!(f, "Recoded({}, {bytes} bytes, {:?})", self.syntax, self.blacked)
    }
}

/// Blacks boxes in the compressed pixel data of a data set. Its other attributes stay as they are, but for those that say
/// how pixels are stored.
pub fn blacken(
    codec: &dyn Codec,
    data_set: &[u8],
    syntax: &TransferSyntax,
    boxes: &[Area],
) -> Result<Recoded, RecodeError> {
    let mut native = codec.decode(data_set, syntax).map_err(RecodeError::Decode)?;
    let explicit = TransferSyntax::explicit_vr_little_endian();
    let parsed = data_set::read(&explicit, &native)?;
    let pixel_data = parsed.pixel_data.filter(|pixel_data| !pixel_data.encapsulated);
    let PixelData { tag, span, value, .. } = pixel_data.ok_or(RecodeError::NoPixels)?;
    let image = Image::of(&parsed.data_set, tag).map_err(BlackenError::Image)?;

    let range = value.start as usize..value.end as usize;
    let pixels = native.get_mut(range).ok_or(RecodeError::NoPixels)?;
    let mut blackening = Native::new(&parsed.data_set, &image, boxes, pixels.len() as u64)?;
    blackening.feed(0, pixels)?;
    let blacked = blackening.finish()?;

    let mut attributes = parsed.data_set;
    let marked = attributes.text(tags::LOSSY_IMAGE_COMPRESSION).is_some_and(|text| text == "01");
    if is_lossy(syntax) && !marked {
        attributes.put(Element::new(tags::LOSSY_IMAGE_COMPRESSION, VR::CS, "01"));
        let pixels = native.get(span.start as usize..span.end as usize).unwrap_or_default();
        let mut out = Vec::with_capacity(native.len() + 16);
        let (before, behind): (Vec<_>, Vec<_>) =
            attributes.elements.iter().partition(|element| element.tag < tag);
        for element in before {
            element.write(parsed.form, &mut out);
        }
        out.extend_from_slice(pixels);
        for element in behind {
            element.write(parsed.form, &mut out);
        }
        native = out;
    }
    let (syntax, data_set) =
        codec.encode(&native).map_err(RecodeError::Encode)?.unwrap_or((explicit, native));
    Ok(Recoded { syntax, data_set, blacked })
}

/// Whether every image in this transfer syntax has lost something: JPEG's processes on cosines. JPEG 2000 and JPEG-LS Near
/// Lossless may have, and nothing but the attribute says so.
fn is_lossy(syntax: &TransferSyntax) -> bool {
    matches!(syntax.uid(), uids::JPEG_BASELINE8_BIT | uids::JPEG_EXTENDED12_BIT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data_set::{DataSet, Form};

    /// Decodes everything to this data set, and compresses nothing.
    struct Fixed(Vec<u8>);

    impl Codec for Fixed {
        fn decode(&self, _: &[u8], _: &TransferSyntax) -> Result<Vec<u8>, CodecError> {
            Ok(self.0.clone())
        }

        fn encode(&self, _: &[u8]) -> Result<Option<(TransferSyntax, Vec<u8>)>, CodecError> {
            Ok(None)
        }
    }

    /// An image of 2 x 2 pixels, and an attribute behind them.
    fn native(lossy: Option<&str>) -> Vec<u8> {
        let mut set = DataSet::default();
        for (tag, number) in [
            (tags::SAMPLES_PER_PIXEL, 1_u16),
            (tags::ROWS, 2),
            (tags::COLUMNS, 2),
            (tags::BITS_ALLOCATED, 8),
            (tags::BITS_STORED, 8),
            (tags::HIGH_BIT, 7),
            (tags::PIXEL_REPRESENTATION, 0),
        ] {
            set.put(Element::new(tag, VR::US, number.to_le_bytes()));
        }
        set.put(Element::new(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME1"));
        if let Some(text) = lossy {
            set.put(Element::new(tags::LOSSY_IMAGE_COMPRESSION, VR::CS, text));
        }
        set.put(Element::new(tags::PIXEL_DATA, VR::OB, [1, 2, 3, 4]));
        set.put(Element::new(tags::DATA_SET_TRAILING_PADDING, VR::OB, [0, 0]));
        let mut out = Vec::new();
        set.write(Form::Explicit, &mut out);
        out
    }

    #[test]
    fn what_came_in_a_lossy_process_says_so_and_nothing_else_changes() {
        let area = Area { x: 0, y: 0, width: 1, height: 2 };
        for (uid, before, after) in [
            (uids::JPEG_BASELINE8_BIT, None, Some("01")),
            (uids::JPEG_EXTENDED12_BIT, Some("00"), Some("01")),
            (uids::JPEG_BASELINE8_BIT, Some("01"), Some("01")),
            (uids::JPEG_LOSSLESS_SV1, None, None),
            (uids::JPEG2000, Some("00"), Some("00")),
            (uids::JPEG2000, Some("01"), Some("01")),
        ] {
            let recoded =
                blacken(&Fixed(native(before)), &[], &uid.parse().unwrap(), &[area]).unwrap();

            let pixels = [1, 2, 3, 4];
            let at = native(after).windows(4).rposition(|bytes| bytes == pixels).unwrap();
            let mut expected = native(after);
            expected[at..at + 4].copy_from_slice(&[255, 2, 255, 4]);
            assert!(recoded.data_set == expected, "{uid} {before:?}");
            assert_eq!(recoded.syntax, TransferSyntax::explicit_vr_little_endian());
            assert_eq!((recoded.blacked.frames, recoded.blacked.pixels_per_frame), (1, 2));
        }
    }

    #[test]
    fn a_codec_that_delivers_something_else_is_not_believed() {
        let syntax = uids::JPEG_LOSSLESS_SV1.parse().unwrap();
        let native = native(None);
        let cut = native[..native.len() - 3].to_vec();
        let without =
            native[..native.windows(4).position(|b| b == [0xE0, 0x7F, 0x10, 0]).unwrap()].to_vec();

        let of = |bytes| blacken(&Fixed(bytes), &[], &syntax, &[]).unwrap_err();

        assert!(matches!(of(cut), RecodeError::DataSet(_)));
        assert!(matches!(of(without), RecodeError::NoPixels));
    }
}
