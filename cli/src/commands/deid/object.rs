//! One DICOM file whose attributes are rewritten while its pixel data stay as they are.
//!
//! The attributes are in memory, pixel data never: they are copied from file to file.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek as _, SeekFrom, Write};
use std::path::Path;

use dicom_dictionary_std::tags;
use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use gantry_deidentify::data_set::{DataSet, DataSetError, Parsed, Reader};
use gantry_gateway::web::part10::{self, FileMeta, Head, HeadReader, NotPart10};
use gantry_store::dicom::TransferSyntax;
use gantry_store::dicom::transfer_syntax::Layout;

const PIECE: usize = 256 << 10;

/// A file that was read.
#[derive(Debug)]
pub(super) struct Object {
    file: File,
    /// Where the data set begins.
    begin: u64,
    meta: FileMeta,
    pub(super) parsed: Parsed,
}

/// Why a file was not read.
#[derive(Debug)]
pub(super) enum NotRead {
    Io(io::Error),
    NotPart10(NotPart10),
    DataSet(DataSetError),
}

impl Object {
    /// Reads a file's attributes, and where its pixel data are.
    pub(super) fn read(path: &Path) -> Result<Self, NotRead> {
        let mut file = File::open(path).map_err(NotRead::Io)?;
        let mut head = HeadReader::default();
        let mut piece = vec![0; PIECE];
        let mut at = 0;
        let (meta, begun) = loop {
            let count = file.read(&mut piece).map_err(NotRead::Io)?;
            if count == 0 {
                return Err(NotRead::NotPart10(head.cut_short()));
            }
            at += count as u64;
            match head.feed(piece.get(..count).unwrap_or_default()) {
                Ok(Head::Unfinished(same)) => head = same,
                Ok(Head::Finished(meta, begun)) => break (meta, begun),
                Err(error) => return Err(NotRead::NotPart10(error)),
            }
        };
        let begin = at - begun.len() as u64;
        let mut reader = Reader::new(&meta.transfer_syntax, None).map_err(NotRead::DataSet)?;
        reader.feed(&begun).map_err(NotRead::DataSet)?;
        loop {
            let count = file.read(&mut piece).map_err(NotRead::Io)?;
            if count == 0 {
                break;
            }
            reader.feed(piece.get(..count).unwrap_or_default()).map_err(NotRead::DataSet)?;
        }
        let parsed = reader.finish().map_err(NotRead::DataSet)?;
        Ok(Self { file, begin, meta, parsed })
    }

    /// Writes a file with these attributes, and the pixel data of this one, in its transfer syntax.
    pub(super) fn write_with(&mut self, data_set: &DataSet, out: &mut File) -> io::Result<()> {
        let uid = |tag| data_set.text(tag);
        let meta = FileMeta {
            transfer_syntax: self.meta.transfer_syntax.clone(),
            sop_class: uid(tags::SOP_CLASS_UID).and_then(|uid| uid.parse().ok()),
            sop_instance: uid(tags::SOP_INSTANCE_UID).and_then(|uid| uid.parse().ok()),
        };
        let mut out = BufWriter::with_capacity(PIECE, out);
        out.write_all(&part10::head(&meta))?;
        if deflated(&self.meta.transfer_syntax) {
            let mut deflate = DeflateEncoder::new(out, Compression::default());
            self.write_data_set(data_set, &mut deflate)?;
            deflate.finish()?.flush()
        } else {
            self.write_data_set(data_set, &mut out)?;
            out.flush()
        }
    }

    fn write_data_set(&mut self, data_set: &DataSet, out: &mut impl Write) -> io::Result<()> {
        let form = self.parsed.form;
        let mut bytes = Vec::new();
        let Some(pixel_data) = self.parsed.pixel_data.clone() else {
            data_set.write(form, &mut bytes);
            return out.write_all(&bytes);
        };
        let before = data_set.elements.iter().filter(|element| element.tag < pixel_data.tag);
        before.for_each(|element| element.write(form, &mut bytes));
        out.write_all(&bytes)?;

        let length = pixel_data.span.end - pixel_data.span.start;
        let copied = if deflated(&self.meta.transfer_syntax) {
            self.file.seek(SeekFrom::Start(self.begin))?;
            let mut inflated = DeflateDecoder::new(BufReader::new(&self.file));
            io::copy(&mut (&mut inflated).take(pixel_data.span.start), &mut io::sink())?;
            io::copy(&mut inflated.take(length), out)?
        } else {
            self.file.seek(SeekFrom::Start(self.begin + pixel_data.span.start))?;
            io::copy(&mut (&self.file).take(length), out)?
        };
        if copied != length {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter"));
        }

        bytes.clear();
        let behind = data_set.elements.iter().filter(|element| element.tag > pixel_data.tag);
        behind.for_each(|element| element.write(form, &mut bytes));
        out.write_all(&bytes)
    }
}

fn deflated(syntax: &TransferSyntax) -> bool {
    syntax.layout() == Layout::Deflated
}

#[cfg(test)]
mod tests {
    use dicom_core::VR;
    use gantry_deidentify::data_set::{Element, read};
    use sample_studies::TransferSyntax as Sample;

    use super::*;

    #[test]
    fn attributes_change_and_all_else_stays_in_every_transfer_syntax() {
        let folder = tempfile::tempdir().unwrap();
        let study = sample_studies::ct_series(3, 1);
        for (at, syntax) in [
            Sample::ExplicitVrLittleEndian,
            Sample::ImplicitVrLittleEndian,
            Sample::DeflatedExplicitVrLittleEndian,
        ]
        .into_iter()
        .enumerate()
        {
            let study = study.in_transfer_syntax(syntax).unwrap();
            let from = folder.path().join(format!("{at}.dcm"));
            fs_write(&from, &study.instances[0].part10());
            let mut object = Object::read(&from).unwrap();
            let mut changed = object.parsed.data_set.clone();
            changed.put(Element::new(tags::PATIENT_NAME, VR::PN, "A name of another length"));
            let to = folder.path().join(format!("{at}.new"));

            object.write_with(&changed, &mut File::create(&to).unwrap()).unwrap();

            let written = Object::read(&to).unwrap();
            assert_eq!(written.parsed.data_set, changed);
            assert_eq!(written.meta, object.meta);
            // Whole data sets, inflated, differ in that attribute only.
            let plain = |path: &Path| whole(path, &object.meta.transfer_syntax);
            let (one, other) = (plain(&from), plain(&to));
            let pixels = |object: &Object, bytes: &[u8]| {
                let span = object.parsed.pixel_data.as_ref().unwrap().span.clone();
                bytes[span.start as usize..span.end as usize].to_vec()
            };
            assert_eq!(pixels(&object, &one), pixels(&written, &other));
        }
        assert!(read(&TransferSyntax::explicit_vr_little_endian(), b"").is_err());
    }

    fn fs_write(path: &Path, bytes: &[u8]) {
        std::fs::write(path, bytes).unwrap();
    }

    fn whole(path: &Path, syntax: &TransferSyntax) -> Vec<u8> {
        let begin = Object::read(path).unwrap().begin as usize;
        let bytes = std::fs::read(path).unwrap()[begin..].to_vec();
        if !deflated(syntax) {
            return bytes;
        }
        let mut inflated = Vec::new();
        DeflateDecoder::new(bytes.as_slice()).read_to_end(&mut inflated).unwrap();
        inflated
    }
}
