//! Instances larger than memory: written frame by frame, never held.

use std::io::{self, ErrorKind, Write};

use dicom_core::VR;
use dicom_dictionary_std::{tags, uids};

use crate::canvas::clouds;
use crate::data_set::DataSet;
use crate::encoding::{self, SequenceLengths, TransferSyntax};
use crate::head_ct;
use crate::instance::{Instance, Study, part10_header};
use crate::modules::{Case, HEAD, PixelFormat, Series};

/// One Multi-frame Grayscale Word Secondary Capture instance of 16 bits per pixel in Explicit VR Little Endian.
///
/// 1024 x 1024 pixels make 2 MiB per frame, so 750 frames are about 1.5 GB.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MultiFrame {
    /// Decides patient, UIDs and pixels.
    pub seed: u64,
    /// Number of Frames (0028,0008).
    pub frames: u32,
    /// Rows (0028,0010).
    pub rows: u16,
    /// Columns (0028,0011).
    pub columns: u16,
}

/// The multi-frame instance of these sizes, to be written; nothing is rendered yet.
pub fn multi_frame(seed: u64, frames: u32, rows: u16, columns: u16) -> MultiFrame {
    MultiFrame { seed, frames, rows, columns }
}

impl MultiFrame {
    /// SOP Class UID (0008,0016).
    pub fn sop_class_uid(self) -> &'static str {
        uids::MULTI_FRAME_GRAYSCALE_WORD_SECONDARY_CAPTURE_IMAGE_STORAGE
    }

    /// SOP Instance UID (0008,0018).
    pub fn sop_instance_uid(self) -> String {
        self.case().sop_instance_uid(CAPTURES.number, 1)
    }

    /// Study Instance UID (0020,000D).
    pub fn study_instance_uid(self) -> String {
        self.case().study_instance_uid()
    }

    /// The length of the data set in bytes.
    pub fn data_set_len(self) -> u64 {
        self.header().len() as u64 + 12 + self.pixel_bytes()
    }

    /// Writes the data set and returns its length; an error if the pixels exceed what one element can hold, which
    /// is 4 GiB less two bytes.
    pub fn write_data_set(self, out: &mut impl Write) -> io::Result<u64> {
        let length = u32::try_from(self.pixel_bytes())
            .ok()
            .filter(|length| *length != encoding::UNDEFINED_LENGTH);
        let Some(length) = length else {
            return Err(io::Error::new(
                ErrorKind::InvalidInput,
                "the pixels do not fit in one element",
            ));
        };
        out.write_all(&self.header())?;
        out.write_all(&encoding::explicit_header(tags::PIXEL_DATA, VR::OW, length))?;

        // Every frame is the same picture begun elsewhere: different bytes at the cost of copying.
        let picture: Vec<u8> = clouds(
            self.seed,
            "multi-frame",
            usize::from(self.columns),
            usize::from(self.rows),
            16.0,
        )
        .into_iter()
        .flat_map(|value| ((value * 800.0 + 2048.0) as i16).to_le_bytes())
        .collect();
        let step = usize::from(self.columns) * 2 + 2;
        for frame in 0..self.frames as usize {
            let start = (frame * step).checked_rem(picture.len()).unwrap_or_default();
            let (end_part, start_part) = picture.split_at(start);
            out.write_all(start_part)?;
            out.write_all(end_part)?;
        }
        Ok(self.data_set_len())
    }

    /// Writes the instance as a file (PS3.10 7.1).
    pub fn write_part10(self, out: &mut impl Write) -> io::Result<()> {
        let syntax = TransferSyntax::ExplicitVrLittleEndian.uid();
        out.write_all(&part10_header(self.sop_class_uid(), &self.sop_instance_uid(), syntax))?;
        self.write_data_set(out).map(|_length| ())
    }

    /// The instance in memory, as a study of one.
    pub fn build(self) -> io::Result<Study> {
        let mut data_set = Vec::new();
        self.write_data_set(&mut data_set)?;
        let case = self.case();
        let instance =
            Instance { data_set, ..Instance::new(&self.elements(), SequenceLengths::Undefined) };
        Ok(case.study(vec![instance]))
    }

    fn case(self) -> Case {
        Case::new(
            self.seed,
            "multi-frame",
            head_ct::PATIENT,
            ("303653007", "SCT", "Computed tomography of head"),
            ("Captured frames", "Reconstruction"),
        )
    }

    fn pixel_bytes(self) -> u64 {
        u64::from(self.frames) * u64::from(self.rows) * u64::from(self.columns) * 2
    }

    fn header(self) -> Vec<u8> {
        encoding::explicit_little_endian(&self.elements(), SequenceLengths::Undefined)
    }

    /// Multi-frame Grayscale Word Secondary Capture Image IOD (PS3.3 A.8.4), without the pixels.
    fn elements(self) -> DataSet {
        let case = self.case();
        let format = PixelFormat {
            rows: self.rows,
            columns: self.columns,
            samples: 1,
            photometric: "MONOCHROME2",
            allocated: 16,
            stored: 12,
            signed: false,
        };
        let mut set = case.data_set(&CAPTURES, self.sop_class_uid(), 1);
        set.text(tags::CONVERSION_TYPE, "WSD")
            .text(tags::IMAGE_TYPE, "DERIVED\\SECONDARY")
            .text(tags::CONTENT_DATE, &case.order.date)
            .text(tags::CONTENT_TIME, &case.order.time)
            .empty(tags::PATIENT_ORIENTATION)
            .integers(tags::NUMBER_OF_FRAMES, &[i64::from(self.frames)])
            .pointer(tags::FRAME_INCREMENT_POINTER, tags::FRAME_TIME)
            .decimals(tags::FRAME_TIME, &[40.0])
            .text(tags::PRESENTATION_LUT_SHAPE, "IDENTITY")
            .decimals(tags::RESCALE_INTERCEPT, &[0.0])
            .decimals(tags::RESCALE_SLOPE, &[1.0])
            .text(tags::RESCALE_TYPE, "US")
            .text(tags::LOSSY_IMAGE_COMPRESSION, "00")
            .text(tags::BURNED_IN_ANNOTATION, "NO");
        format.put(&mut set);
        set
    }
}

const CAPTURES: Series = Series {
    number: 1,
    modality: "OT",
    description: "Captured frames",
    body_part: Some(("HEAD", HEAD)),
    manufacturer: "Sample Scanners",
    model: "Workstation 2",
};

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a panic is how a test fails

    use super::*;

    #[test]
    fn the_length_told_beforehand_is_the_length_written() {
        let instance = multi_frame(3, 5, 16, 32);
        let mut written = Vec::new();

        let length = instance.write_data_set(&mut written).unwrap();

        assert_eq!(length, written.len() as u64);
        assert_eq!(length, instance.data_set_len());
    }

    #[test]
    fn more_than_an_element_holds_is_refused() {
        let error = multi_frame(3, 33_000, 256, 256).write_data_set(&mut io::sink()).unwrap_err();

        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
}
