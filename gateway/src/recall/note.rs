//! The note itself: a Key Object Selection Document (PS3.3 A.35.4) whose title says why what it names is rejected, as IHE's
//! Imaging Object Change Management has it (RAD TF-3, 4.66). It is part of the study that it is about.

use std::collections::BTreeMap;

use dicom_core::value::DataSetSequence;
use dicom_core::{DataElement, Length, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_encoding::text::SpecificCharacterSet;
use dicom_object::InMemDicomObject;
use dicom_transfer_syntax_registry::entries::EXPLICIT_VR_LITTLE_ENDIAN;
use gantry_store::dicom::{InvalidUid, SopClassUid};
use gantry_store::index::{Accepted, NoteWanted, Rejection};
use jiff::tz::TimeZone;
use thiserror::Error;

/// Why a note cannot be written.
#[derive(Debug, Error)]
pub(super) enum NoteError {
    /// The library did not write it.
    #[error("the data set cannot be encoded")]
    Encode(#[source] Box<dicom_object::WriteError>),
    /// A UID of the standard, which is none.
    #[error("a UID cannot be used")]
    Uid(#[from] InvalidUid),
}

pub(super) fn sop_class() -> Result<SopClassUid, NoteError> {
    Ok(uids::KEY_OBJECT_SELECTION_DOCUMENT_STORAGE.parse()?)
}

/// The title (PS3.16 CID 7010).
fn title(rejection: Rejection) -> (&'static str, &'static str) {
    match rejection {
        Rejection::Quality => ("113001", "Rejected for Quality Reasons"),
        Rejection::PatientSafety => ("113037", "Rejected for Patient Safety Reasons"),
        Rejection::WrongWorklistEntry => ("113038", "Incorrect Modality Worklist Entry"),
        Rejection::RetentionExpired => ("113039", "Data Retention Policy Expired"),
    }
}

/// The data set in Explicit VR Little Endian. The same for the same decision, whenever it is made.
pub(super) fn encode(wanted: &NoteWanted, organisation: &str) -> Result<Vec<u8>, NoteError> {
    let object = object(wanted, organisation);
    let mut bytes = Vec::new();
    object
        .write_dataset_with_ts_cs(
            &mut bytes,
            &EXPLICIT_VR_LITTLE_ENDIAN.erased(),
            SpecificCharacterSet::ISO_IR_192,
        )
        .map_err(|error| NoteError::Encode(Box::new(error)))?;
    Ok(bytes)
}

fn object(wanted: &NoteWanted, organisation: &str) -> InMemDicomObject {
    let study = &wanted.study;
    let when = wanted.decision.at.to_zoned(TimeZone::UTC);
    let mut set = InMemDicomObject::new_empty();
    let phi = |value: &gantry_store::dicom::Phi<Option<String>>| value.reveal().clone();
    let text = Some;

    // SOP Common. What the index holds is Unicode, whatever the images were encoded in.
    put(&mut set, tags::SPECIFIC_CHARACTER_SET, VR::CS, text("ISO_IR 192".to_owned()));
    put(
        &mut set,
        tags::SOP_CLASS_UID,
        VR::UI,
        text(uids::KEY_OBJECT_SELECTION_DOCUMENT_STORAGE.to_owned()),
    );
    put(&mut set, tags::SOP_INSTANCE_UID, VR::UI, text(wanted.sop_instance.to_string()));
    put(&mut set, tags::TIMEZONE_OFFSET_FROM_UTC, VR::SH, text("+0000".to_owned()));

    // Patient and General Study, as the images say it.
    put(&mut set, tags::PATIENT_NAME, VR::PN, phi(&study.patient_name));
    put(&mut set, tags::PATIENT_ID, VR::LO, phi(&study.patient_id));
    if let Some(issuer) = phi(&study.issuer).filter(|issuer| !issuer.is_empty()) {
        put(&mut set, tags::ISSUER_OF_PATIENT_ID, VR::LO, text(issuer));
    }
    put(&mut set, tags::PATIENT_BIRTH_DATE, VR::DA, phi(&study.birth_date));
    put(&mut set, tags::PATIENT_SEX, VR::CS, phi(&study.sex));
    put(&mut set, tags::STUDY_INSTANCE_UID, VR::UI, text(study.study_instance_uid.to_string()));
    put(&mut set, tags::STUDY_DATE, VR::DA, study.study_date.clone());
    put(&mut set, tags::STUDY_TIME, VR::TM, study.study_time.clone());
    put(&mut set, tags::ACCESSION_NUMBER, VR::SH, phi(&study.accession_number));
    put(&mut set, tags::REFERRING_PHYSICIAN_NAME, VR::PN, None);
    put(&mut set, tags::STUDY_ID, VR::SH, None);

    // Key Object Document Series and General Equipment.
    put(&mut set, tags::MODALITY, VR::CS, text("KO".to_owned()));
    put(&mut set, tags::SERIES_INSTANCE_UID, VR::UI, text(series_uid(wanted)));
    put(&mut set, tags::SERIES_NUMBER, VR::IS, text("1".to_owned()));
    put_items(&mut set, tags::REFERENCED_PERFORMED_PROCEDURE_STEP_SEQUENCE, Vec::new());
    put(&mut set, tags::MANUFACTURER, VR::LO, text("Gantry".to_owned()));
    put(&mut set, tags::INSTITUTION_NAME, VR::LO, text(organisation.to_owned()));

    // Key Object Document.
    put(&mut set, tags::INSTANCE_NUMBER, VR::IS, text("1".to_owned()));
    put(&mut set, tags::CONTENT_DATE, VR::DA, text(when.strftime("%Y%m%d").to_string()));
    put(&mut set, tags::CONTENT_TIME, VR::TM, text(when.strftime("%H%M%S").to_string()));
    put_items(
        &mut set,
        tags::CURRENT_REQUESTED_PROCEDURE_EVIDENCE_SEQUENCE,
        vec![evidence(wanted)],
    );

    // SR Document Content: the title, why, and each instance (PS3.16 TID 2010).
    let (code, meaning) = title(wanted.rejection);
    put(&mut set, tags::VALUE_TYPE, VR::CS, text("CONTAINER".to_owned()));
    put_items(&mut set, tags::CONCEPT_NAME_CODE_SEQUENCE, vec![dcm(code, meaning)]);
    put(&mut set, tags::CONTINUITY_OF_CONTENT, VR::CS, text("SEPARATE".to_owned()));
    put_items(&mut set, tags::CONTENT_TEMPLATE_SEQUENCE, vec![template()]);
    let mut content = Vec::with_capacity(wanted.accepted.len() + 1);
    if let Some(reason) = wanted.decision.reason.as_deref().filter(|reason| !reason.is_empty()) {
        content.push(description(reason));
    }
    content.extend(wanted.accepted.iter().map(reference));
    put_items(&mut set, tags::CONTENT_SEQUENCE, content);
    set
}

/// A text, or the element without a value.
fn put(set: &mut InMemDicomObject, tag: Tag, vr: VR, value: Option<String>) {
    let value = match value {
        Some(text) if !text.is_empty() => PrimitiveValue::from(text),
        _ => PrimitiveValue::Empty,
    };
    set.put(DataElement::new(tag, vr, value));
}

fn put_items(set: &mut InMemDicomObject, tag: Tag, items: Vec<InMemDicomObject>) {
    let sequence = DataSetSequence::new(items, Length::UNDEFINED);
    set.put(DataElement::new(tag, VR::SQ, sequence));
}

/// An item with a code of PS3.16 (Annex D).
fn dcm(code: &str, meaning: &str) -> InMemDicomObject {
    let mut item = InMemDicomObject::new_empty();
    put(&mut item, tags::CODE_VALUE, VR::SH, Some(code.to_owned()));
    put(&mut item, tags::CODING_SCHEME_DESIGNATOR, VR::SH, Some("DCM".to_owned()));
    put(&mut item, tags::CODE_MEANING, VR::LO, Some(meaning.to_owned()));
    item
}

fn template() -> InMemDicomObject {
    let mut item = InMemDicomObject::new_empty();
    put(&mut item, tags::MAPPING_RESOURCE, VR::CS, Some("DCMR".to_owned()));
    put(&mut item, tags::TEMPLATE_IDENTIFIER, VR::CS, Some("2010".to_owned()));
    item
}

/// What the person said.
fn description(reason: &str) -> InMemDicomObject {
    let mut item = InMemDicomObject::new_empty();
    put(&mut item, tags::RELATIONSHIP_TYPE, VR::CS, Some("CONTAINS".to_owned()));
    put(&mut item, tags::VALUE_TYPE, VR::CS, Some("TEXT".to_owned()));
    put_items(
        &mut item,
        tags::CONCEPT_NAME_CODE_SEQUENCE,
        vec![dcm("113012", "Key Object Description")],
    );
    put(&mut item, tags::TEXT_VALUE, VR::UT, Some(reason.to_owned()));
    item
}

fn sop_reference(accepted: &Accepted) -> InMemDicomObject {
    let mut item = InMemDicomObject::new_empty();
    let (class, instance) = (accepted.sop_class.to_string(), accepted.sop_instance.to_string());
    put(&mut item, tags::REFERENCED_SOP_CLASS_UID, VR::UI, Some(class));
    put(&mut item, tags::REFERENCED_SOP_INSTANCE_UID, VR::UI, Some(instance));
    item
}

/// One rejected instance in the content: an image, a waveform, or anything else that is composed.
fn reference(accepted: &Accepted) -> InMemDicomObject {
    let mut item = InMemDicomObject::new_empty();
    put(&mut item, tags::RELATIONSHIP_TYPE, VR::CS, Some("CONTAINS".to_owned()));
    let kind = value_type(accepted.sop_class.as_str());
    put(&mut item, tags::VALUE_TYPE, VR::CS, Some(kind.to_owned()));
    put_items(&mut item, tags::REFERENCED_SOP_SEQUENCE, vec![sop_reference(accepted)]);
    item
}

/// By the name of the class, as PS3.4 Annex B names it: what is no image storage is referenced as composite (PS3.3 C.18.3).
fn value_type(class: &str) -> &'static str {
    use dicom_core::dictionary::UidDictionary as _;
    let name = dicom_dictionary_std::StandardSopClassDictionary
        .by_uid(class)
        .map_or("", |entry| entry.name);
    if name.contains("Waveform") || name.contains("ECG") {
        "WAVEFORM"
    } else if name.contains("Image Storage") {
        "IMAGE"
    } else {
        "COMPOSITE"
    }
}

/// All that is referenced, by series (PS3.3 Table C.17-3).
fn evidence(wanted: &NoteWanted) -> InMemDicomObject {
    let mut by_series: BTreeMap<String, Vec<InMemDicomObject>> = BTreeMap::new();
    for accepted in &wanted.accepted {
        by_series.entry(accepted.series.to_string()).or_default().push(sop_reference(accepted));
    }
    let series = by_series.into_iter().map(|(uid, instances)| {
        let mut item = InMemDicomObject::new_empty();
        put_items(&mut item, tags::REFERENCED_SOP_SEQUENCE, instances);
        put(&mut item, tags::SERIES_INSTANCE_UID, VR::UI, Some(uid));
        item
    });
    let mut item = InMemDicomObject::new_empty();
    put_items(&mut item, tags::REFERENCED_SERIES_SEQUENCE, series.collect());
    let study = wanted.study.study_instance_uid.to_string();
    put(&mut item, tags::STUDY_INSTANCE_UID, VR::UI, Some(study));
    item
}

/// A series of its own, whose UID follows from the note's.
fn series_uid(wanted: &NoteWanted) -> String {
    let text = format!("series of {}", wanted.sop_instance);
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    let number =
        digest.as_ref().iter().take(16).fold(0_u128, |all, byte| all << 8 | u128::from(*byte));
    format!("2.25.{number}")
}
