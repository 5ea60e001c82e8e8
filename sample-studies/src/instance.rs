//! What the builders give out: instances, and studies made of them.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use dicom_core::VR;
use dicom_dictionary_std::tags;

use crate::data_set::DataSet;
use crate::encoding::{self, EncodingError, SequenceLengths, TransferSyntax};
use crate::identifiers::{self, Order, Patient, Planted};

/// One SOP instance, encoded.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Instance {
    /// SOP Class UID (0008,0016), Affected SOP Class UID of its C-STORE.
    pub sop_class_uid: String,
    /// SOP Instance UID (0008,0018).
    pub sop_instance_uid: String,
    /// Study Instance UID (0020,000D).
    pub study_instance_uid: String,
    /// Series Instance UID (0020,000E).
    pub series_instance_uid: String,
    /// Transfer syntax of `data_set`.
    pub transfer_syntax_uid: String,
    /// Modality (0008,0060).
    pub modality: String,
    /// File name within its study, `<modality>-<series number>-<instance number>.dcm`.
    pub file_name: String,
    /// The encoded data set, without File Meta Information.
    pub data_set: Vec<u8>,
}

impl Instance {
    /// Encodes a data set in Explicit VR Little Endian; identifiers it lacks stay empty.
    pub fn new(set: &DataSet, lengths: SequenceLengths) -> Self {
        let text = |tag| set.text_at(tag).unwrap_or_default();
        let number = |tag| text(tag).parse::<u32>().unwrap_or_default();
        let modality = text(tags::MODALITY);
        let (series, instance) = (number(tags::SERIES_NUMBER), number(tags::INSTANCE_NUMBER));
        Self {
            sop_class_uid: text(tags::SOP_CLASS_UID),
            sop_instance_uid: text(tags::SOP_INSTANCE_UID),
            study_instance_uid: text(tags::STUDY_INSTANCE_UID),
            series_instance_uid: text(tags::SERIES_INSTANCE_UID),
            transfer_syntax_uid: TransferSyntax::ExplicitVrLittleEndian.uid().to_owned(),
            file_name: format!("{}-{series:03}-{instance:04}.dcm", modality.to_lowercase()),
            modality,
            data_set: encoding::explicit_little_endian(set, lengths),
        }
    }

    /// The same instance in another transfer syntax; this one must be in Explicit VR Little Endian.
    pub fn in_transfer_syntax(
        &self,
        transfer_syntax: TransferSyntax,
    ) -> Result<Self, EncodingError> {
        self.encoded_as(transfer_syntax, SequenceLengths::Undefined)
    }

    /// As [`Self::in_transfer_syntax`], with a choice of how sequences say where they end.
    pub fn encoded_as(
        &self,
        transfer_syntax: TransferSyntax,
        lengths: SequenceLengths,
    ) -> Result<Self, EncodingError> {
        let data_set = encoding::encode(&self.elements()?, transfer_syntax, lengths)?;
        Ok(Self {
            transfer_syntax_uid: transfer_syntax.uid().to_owned(),
            data_set,
            ..self.clone_without_data_set()
        })
    }

    /// The data set as a tree, to change it and make another instance of it.
    pub fn elements(&self) -> Result<DataSet, EncodingError> {
        if self.transfer_syntax_uid != TransferSyntax::ExplicitVrLittleEndian.uid() {
            return Err(EncodingError::NotExplicitLittleEndian(self.transfer_syntax_uid.clone()));
        }
        encoding::decode(&self.data_set)
    }

    /// The instance as a file (PS3.10 7): preamble, prefix, File Meta Information, data set.
    pub fn part10(&self) -> Vec<u8> {
        let mut file =
            part10_header(&self.sop_class_uid, &self.sop_instance_uid, &self.transfer_syntax_uid);
        file.extend_from_slice(&self.data_set);
        file
    }

    /// Writes the file into a folder that exists, under [`Self::file_name`].
    pub fn write_to(&self, folder: &Path) -> io::Result<PathBuf> {
        let path = folder.join(&self.file_name);
        fs::write(&path, self.part10())?;
        Ok(path)
    }

    fn clone_without_data_set(&self) -> Self {
        Self {
            sop_class_uid: self.sop_class_uid.clone(),
            sop_instance_uid: self.sop_instance_uid.clone(),
            study_instance_uid: self.study_instance_uid.clone(),
            series_instance_uid: self.series_instance_uid.clone(),
            transfer_syntax_uid: self.transfer_syntax_uid.clone(),
            modality: self.modality.clone(),
            file_name: self.file_name.clone(),
            data_set: Vec::new(),
        }
    }
}

/// Everything of a Part 10 file that comes before the data set (PS3.10 7.1); always Explicit VR Little Endian.
pub fn part10_header(
    sop_class_uid: &str,
    sop_instance_uid: &str,
    transfer_syntax_uid: &str,
) -> Vec<u8> {
    let mut meta = DataSet::new();
    meta.bytes(tags::FILE_META_INFORMATION_VERSION, VR::OB, vec![0, 1])
        .text(tags::MEDIA_STORAGE_SOP_CLASS_UID, sop_class_uid)
        .text(tags::MEDIA_STORAGE_SOP_INSTANCE_UID, sop_instance_uid)
        .text(tags::TRANSFER_SYNTAX_UID, transfer_syntax_uid)
        .text(tags::IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_CLASS_UID)
        .text(tags::IMPLEMENTATION_VERSION_NAME, "SAMPLE_STUDIES");
    let meta = encoding::explicit_little_endian(&meta, SequenceLengths::Undefined);
    let mut length = DataSet::new();
    length.u32(tags::FILE_META_INFORMATION_GROUP_LENGTH, meta.len() as u32);

    let mut header = vec![0; 128];
    header.extend_from_slice(b"DICM");
    header.extend(encoding::explicit_little_endian(&length, SequenceLengths::Undefined));
    header.extend(meta);
    header
}

/// Names this crate as the writer of a file; a UUID made for it.
const IMPLEMENTATION_CLASS_UID: &str = "2.25.190846225037911403269177431150463521787";

/// Instances that belong to one study.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Study {
    /// Name of the study in this crate and of its folder, such as `head-ct`.
    pub name: String,
    /// Whose study it is.
    pub patient: Patient,
    /// Who asked for it and where it was done.
    pub order: Order,
    /// Its instances, by series number and instance number.
    pub instances: Vec<Instance>,
}

impl Study {
    /// The number of instances.
    pub fn len(&self) -> usize {
        self.instances.len()
    }

    /// Whether it was built with no instance at all.
    pub fn is_empty(&self) -> bool {
        self.instances.is_empty()
    }

    /// Study Instance UID; empty if there is no instance.
    pub fn study_instance_uid(&self) -> &str {
        self.instances.first().map_or("", |instance| &instance.study_instance_uid)
    }

    /// The SOP Instance UIDs, for comparison with what arrived somewhere.
    pub fn sop_instance_uids(&self) -> HashSet<String> {
        self.instances.iter().map(|instance| instance.sop_instance_uid.clone()).collect()
    }

    /// The number of different series.
    pub fn series_count(&self) -> usize {
        self.instances
            .iter()
            .map(|instance| &instance.series_instance_uid)
            .collect::<HashSet<_>>()
            .len()
    }

    /// The texts in it that tell who the patient is and who was involved.
    pub fn planted(&self) -> Vec<Planted> {
        identifiers::planted(&self.patient, &self.order)
    }

    /// Every instance in another transfer syntax.
    pub fn in_transfer_syntax(
        &self,
        transfer_syntax: TransferSyntax,
    ) -> Result<Self, EncodingError> {
        let instances =
            self.instances.iter().map(|instance| instance.in_transfer_syntax(transfer_syntax));
        Ok(Self {
            name: self.name.clone(),
            patient: self.patient.clone(),
            order: self.order.clone(),
            instances: instances.collect::<Result<_, _>>()?,
        })
    }

    /// Writes every instance as a file into the folder `<folder>/<name>`, which is created.
    pub fn write_to(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let folder = folder.join(&self.name);
        fs::create_dir_all(&folder)?;
        self.instances.iter().map(|instance| instance.write_to(&folder)).collect()
    }
}
