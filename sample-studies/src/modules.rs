//! The modules that every composite object shares (PS3.3 Annex C), filled for one case.

use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;

use crate::charset::Charset;
use crate::data_set::{DataSet, PrivateElement};
use crate::encoding::SequenceLengths;
use crate::identifiers::{Order, Patient};
use crate::instance::{Instance, Study};
use crate::random::uid;

/// A coded meaning (PS3.3 8.1): value, coding scheme, meaning.
pub(crate) type Code = (&'static str, &'static str, &'static str);

pub(crate) const HEAD: Code = ("69536005", "SCT", "Head");
pub(crate) const BRAIN: Code = ("12738006", "SCT", "Brain");
pub(crate) const CHEST: Code = ("51185008", "SCT", "Chest");
pub(crate) const ABDOMEN: Code = ("818981001", "SCT", "Abdomen");

/// One examination of one patient: what all its instances have in common.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) seed: u64,
    pub(crate) name: String,
    pub(crate) patient: Patient,
    pub(crate) order: Order,
    pub(crate) procedure: Code,
    pub(crate) charset: Charset,
    pub(crate) lengths: SequenceLengths,
}

/// One series of a case.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Series {
    pub(crate) number: u32,
    pub(crate) modality: &'static str,
    pub(crate) description: &'static str,
    /// Body Part Examined (0018,0015) and the code of the same region.
    pub(crate) body_part: Option<(&'static str, Code)>,
    pub(crate) manufacturer: &'static str,
    pub(crate) model: &'static str,
}

impl Case {
    /// A case of the patient `patient_label` of this seed; the same label means the same patient.
    pub(crate) fn new(
        seed: u64,
        name: &str,
        patient_label: &str,
        procedure: Code,
        (description, reason): (&'static str, &'static str),
    ) -> Self {
        Self {
            seed,
            name: name.to_owned(),
            patient: Patient::new(seed, patient_label),
            order: Order::new(seed, name, description, reason),
            procedure,
            charset: Charset::Ascii,
            lengths: SequenceLengths::Undefined,
        }
    }

    /// A UID of this case; the same label means the same UID.
    pub(crate) fn uid(&self, label: &str) -> String {
        uid(self.seed, &format!("{} {label}", self.name))
    }

    pub(crate) fn study_instance_uid(&self) -> String {
        self.uid("study")
    }

    pub(crate) fn series_instance_uid(&self, series: u32) -> String {
        self.uid(&format!("series {series}"))
    }

    pub(crate) fn sop_instance_uid(&self, series: u32, instance: u32) -> String {
        self.uid(&format!("instance {series} {instance}"))
    }

    pub(crate) fn study(self, instances: Vec<Instance>) -> Study {
        Study { name: self.name, patient: self.patient, order: self.order, instances }
    }

    pub(crate) fn instance(&self, set: &DataSet) -> Instance {
        Instance::new(set, self.lengths)
    }

    /// Patient, General Study, General Series, General Equipment and SOP Common (PS3.3 C.7.1.1, C.7.2.1, C.7.3.1,
    /// C.7.5.1, C.12.1), and a private block as scanners write them.
    pub(crate) fn data_set(&self, series: &Series, sop_class_uid: &str, instance: u32) -> DataSet {
        let mut set = DataSet::new();
        self.sop_common(&mut set, sop_class_uid, series, instance);
        self.patient(&mut set);
        self.general_study(&mut set);
        self.general_series(&mut set, series);
        self.general_equipment(&mut set, series);
        self.private_block(&mut set);
        set
    }

    fn text(&self, set: &mut DataSet, tag: Tag, text: &str) {
        set.encoded(tag, self.charset.encode(text));
    }

    fn sop_common(&self, set: &mut DataSet, sop_class_uid: &str, series: &Series, instance: u32) {
        if let Some(term) = self.charset.defined_term() {
            set.text(tags::SPECIFIC_CHARACTER_SET, term);
        }
        set.text(tags::SOP_CLASS_UID, sop_class_uid)
            .text(tags::SOP_INSTANCE_UID, &self.sop_instance_uid(series.number, instance))
            .text(tags::INSTANCE_CREATION_DATE, &self.order.date)
            .text(tags::INSTANCE_CREATION_TIME, &self.order.time)
            .text(tags::TIMEZONE_OFFSET_FROM_UTC, "+0000")
            .integers(tags::INSTANCE_NUMBER, &[i64::from(instance)]);
    }

    fn patient(&self, set: &mut DataSet) {
        let patient = &self.patient;
        self.text(set, tags::PATIENT_NAME, &patient.name);
        let mut hospital_number = DataSet::new();
        hospital_number
            .text(tags::PATIENT_ID, &patient.hospital_number)
            .text(tags::ISSUER_OF_PATIENT_ID, "NORTHMOOR")
            .text(tags::TYPE_OF_PATIENT_ID, "TEXT");
        // The OID under which NHS numbers are issued.
        let mut issuer = DataSet::new();
        issuer
            .text(tags::UNIVERSAL_ENTITY_ID, "2.16.840.1.113883.2.1.4.1")
            .text(tags::UNIVERSAL_ENTITY_ID_TYPE, "ISO");
        set.text(tags::PATIENT_ID, &patient.nhs_number)
            .text(tags::ISSUER_OF_PATIENT_ID, "NHS")
            .sequence(tags::ISSUER_OF_PATIENT_ID_QUALIFIERS_SEQUENCE, vec![issuer])
            .text(tags::PATIENT_BIRTH_DATE, &patient.birth_date)
            .text(tags::PATIENT_SEX, patient.sex)
            .text(tags::PATIENT_AGE, &patient.age)
            .text(tags::PATIENT_WEIGHT, &patient.weight.to_string())
            .sequence(tags::OTHER_PATIENT_I_DS_SEQUENCE, vec![hospital_number]);
    }

    fn general_study(&self, set: &mut DataSet) {
        let order = &self.order;
        let mut identification = DataSet::new();
        identification
            .sequence(
                tags::PERSON_IDENTIFICATION_CODE_SEQUENCE,
                vec![code(("C7654321", "99NORTHMOOR", "Consultant"))],
            )
            .text(tags::INSTITUTION_NAME, &order.institution);
        self.text(set, tags::REFERRING_PHYSICIAN_NAME, &order.referring_physician);
        self.text(set, tags::STUDY_DESCRIPTION, order.description);
        let mut issuer = DataSet::new();
        issuer.text(tags::LOCAL_NAMESPACE_ENTITY_ID, "NORTHMOOR");
        set.text(tags::STUDY_INSTANCE_UID, &self.study_instance_uid())
            .text(tags::STUDY_DATE, &order.date)
            .text(tags::STUDY_TIME, &order.time)
            .text(tags::STUDY_ID, &order.study_id)
            .text(tags::ACCESSION_NUMBER, &order.accession_number)
            .sequence(tags::ISSUER_OF_ACCESSION_NUMBER_SEQUENCE, vec![issuer])
            .sequence(tags::REFERRING_PHYSICIAN_IDENTIFICATION_SEQUENCE, vec![identification])
            .sequence(tags::PROCEDURE_CODE_SEQUENCE, vec![code(self.procedure)]);
    }

    fn general_series(&self, set: &mut DataSet, series: &Series) {
        let order = &self.order;
        self.text(set, tags::PERFORMING_PHYSICIAN_NAME, &order.performing_physician);
        self.text(set, tags::OPERATORS_NAME, &order.operator);
        let step =
            reference(MODALITY_PERFORMED_PROCEDURE_STEP, &self.uid("performed procedure step"));
        set.text(tags::SERIES_INSTANCE_UID, &self.series_instance_uid(series.number))
            .integers(tags::SERIES_NUMBER, &[i64::from(series.number)])
            .text(tags::MODALITY, series.modality)
            .text(tags::SERIES_DESCRIPTION, series.description)
            .text(tags::SERIES_DATE, &order.date)
            .text(tags::SERIES_TIME, &order.time)
            .sequence(tags::REFERENCED_PERFORMED_PROCEDURE_STEP_SEQUENCE, vec![step])
            .sequence(tags::REQUEST_ATTRIBUTES_SEQUENCE, vec![self.request_attributes()])
            .text(tags::PERFORMED_PROCEDURE_STEP_ID, &format!("PPS{}", order.study_id))
            .text(tags::PERFORMED_PROCEDURE_STEP_START_DATE, &order.date)
            .text(tags::PERFORMED_PROCEDURE_STEP_START_TIME, &order.time);
        self.text(set, tags::PERFORMED_PROCEDURE_STEP_DESCRIPTION, order.description);
        if let Some((body_part, region)) = series.body_part {
            set.text(tags::BODY_PART_EXAMINED, body_part)
                .text(tags::PROTOCOL_NAME, series.description)
                .sequence(tags::ANATOMIC_REGION_SEQUENCE, vec![code(region)]);
        }
    }

    /// An item of Request Attributes Sequence (PS3.3 Table 10-9), with a private block inside the sequence.
    fn request_attributes(&self) -> DataSet {
        let order = &self.order;
        let mut request = DataSet::new();
        self.text(&mut request, tags::REQUESTED_PROCEDURE_DESCRIPTION, order.description);
        self.text(&mut request, tags::SCHEDULED_PROCEDURE_STEP_DESCRIPTION, order.description);
        request
            .text(tags::ACCESSION_NUMBER, &order.accession_number)
            .text(tags::REQUESTED_PROCEDURE_ID, &order.requested_procedure_id)
            .sequence(tags::REQUESTED_PROCEDURE_CODE_SEQUENCE, vec![code(self.procedure)])
            .text(tags::REASON_FOR_THE_REQUESTED_PROCEDURE, order.reason)
            .text(tags::SCHEDULED_PROCEDURE_STEP_ID, &format!("SPS{}", order.study_id))
            .private(
                PRIVATE_GROUP,
                PRIVATE_CREATOR,
                vec![PrivateElement::new(1, VR::LO, order.accession_number.as_bytes())],
            );
        request
    }

    fn general_equipment(&self, set: &mut DataSet, series: &Series) {
        let order = &self.order;
        self.text(set, tags::INSTITUTION_NAME, &order.institution);
        set.text(tags::MANUFACTURER, series.manufacturer)
            .text(tags::MANUFACTURER_MODEL_NAME, series.model)
            .text(tags::INSTITUTION_ADDRESS, &order.institution_address)
            .text(tags::INSTITUTIONAL_DEPARTMENT_NAME, "Radiology")
            .text(tags::STATION_NAME, &order.station)
            .text(tags::DEVICE_SERIAL_NUMBER, &order.device_serial_number)
            .text(tags::SOFTWARE_VERSIONS, "4.2");
    }

    /// Identifiers where only a look into every private element finds them.
    fn private_block(&self, set: &mut DataSet) {
        let mut nested = DataSet::new();
        nested.private(
            PRIVATE_GROUP,
            PRIVATE_CREATOR,
            vec![PrivateElement::new(1, VR::LO, self.patient.hospital_number.as_bytes())],
        );
        set.private(
            PRIVATE_GROUP,
            PRIVATE_CREATOR,
            vec![
                PrivateElement::new(1, VR::PN, &self.charset.encode(&self.patient.name)),
                PrivateElement::new(2, VR::LO, self.patient.address.as_bytes()),
                PrivateElement::new(3, VR::DS, b"0.98"),
                PrivateElement::new(4, VR::OB, &[0x47, 0x41, 0x4E, 0x54, 0x52, 0x59]),
                PrivateElement::sequence(5, vec![nested]),
            ],
        );
    }
}

const PRIVATE_GROUP: u16 = 0x0011;
const PRIVATE_CREATOR: &str = "SAMPLE STUDIES 1";
const MODALITY_PERFORMED_PROCEDURE_STEP: &str = "1.2.840.10008.3.1.2.3.3";

/// An item of a code sequence (PS3.3 Table 8.8-1).
pub(crate) fn code((value, scheme, meaning): Code) -> DataSet {
    let mut item = DataSet::new();
    item.text(tags::CODE_VALUE, value)
        .text(tags::CODING_SCHEME_DESIGNATOR, scheme)
        .text(tags::CODE_MEANING, meaning);
    item
}

/// An item that points to another SOP instance (PS3.3 Table 10-11).
pub(crate) fn reference(sop_class_uid: &str, sop_instance_uid: &str) -> DataSet {
    let mut item = DataSet::new();
    item.text(tags::REFERENCED_SOP_CLASS_UID, sop_class_uid)
        .text(tags::REFERENCED_SOP_INSTANCE_UID, sop_instance_uid);
    item
}

/// Image Pixel (PS3.3 C.7.6.3) without the pixels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PixelFormat {
    pub(crate) rows: u16,
    pub(crate) columns: u16,
    pub(crate) samples: u16,
    pub(crate) photometric: &'static str,
    pub(crate) allocated: u16,
    pub(crate) stored: u16,
    pub(crate) signed: bool,
}

impl PixelFormat {
    pub(crate) fn put(self, set: &mut DataSet) {
        set.u16(tags::SAMPLES_PER_PIXEL, self.samples)
            .text(tags::PHOTOMETRIC_INTERPRETATION, self.photometric)
            .u16(tags::ROWS, self.rows)
            .u16(tags::COLUMNS, self.columns)
            .u16(tags::BITS_ALLOCATED, self.allocated)
            .u16(tags::BITS_STORED, self.stored)
            .u16(tags::HIGH_BIT, self.stored - 1)
            .u16(tags::PIXEL_REPRESENTATION, u16::from(self.signed));
        if self.samples > 1 {
            set.u16(tags::PLANAR_CONFIGURATION, 0);
        }
    }
}

/// Puts the pixels: OW for words, OB for bytes (PS3.5 8.1.2, A.2).
pub(crate) fn put_pixels(set: &mut DataSet, format: PixelFormat, pixels: Vec<u8>) {
    format.put(set);
    set.bytes(tags::PIXEL_DATA, if format.allocated > 8 { VR::OW } else { VR::OB }, pixels);
}
