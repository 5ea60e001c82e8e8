//! The report on the head CT of the same seed, as a tree of content items with names in its text.

use dicom_dictionary_std::{tags, uids};

use crate::data_set::DataSet;
use crate::encoding::SequenceLengths;
use crate::head_ct::{self, COLLECTION, SCOUT, THICK};
use crate::identifiers::Patient;
use crate::instance::Study;
use crate::modules::{Case, Code, Series, code, reference};

/// One Comprehensive SR document that refers to images of [`crate::head_ct`] of the same seed; a study of its own.
pub fn structured_report(seed: u64) -> Study {
    let images = head_ct::case(seed);
    let mut case = Case::new(
        seed,
        "structured-report",
        head_ct::PATIENT,
        images.procedure,
        ("CT Head report", images.order.reason),
    );
    case.lengths = SequenceLengths::Defined;
    let set = document(&case, &images);
    let instance = case.instance(&set);
    case.study(vec![instance])
}

const REPORTS: Series = Series {
    number: 1,
    modality: "SR",
    description: "Report",
    body_part: None,
    manufacturer: "Sample Reports",
    model: "Dictation 3",
};

/// Comprehensive SR IOD (PS3.3 A.35.3).
fn document(case: &Case, images: &Case) -> DataSet {
    let order = &case.order;
    let author = &order.performing_physician;
    let mut set = case.data_set(&REPORTS, uids::COMPREHENSIVE_SR_STORAGE, 1);
    // Not part of a report's series (PS3.3 C.17.1).
    for tag in [
        tags::REQUEST_ATTRIBUTES_SEQUENCE,
        tags::PERFORMED_PROCEDURE_STEP_ID,
        tags::PERFORMED_PROCEDURE_STEP_START_DATE,
        tags::PERFORMED_PROCEDURE_STEP_START_TIME,
        tags::PERFORMED_PROCEDURE_STEP_DESCRIPTION,
    ] {
        set.remove(tag);
    }

    let mut verifier = DataSet::new();
    verifier
        .text(tags::VERIFYING_ORGANIZATION, &order.institution)
        .text(tags::VERIFICATION_DATE_TIME, &format!("{}{}", order.date, order.time))
        .text(tags::VERIFYING_OBSERVER_NAME, author)
        .empty(tags::VERIFYING_OBSERVER_IDENTIFICATION_CODE_SEQUENCE);
    let mut request = DataSet::new();
    request
        .text(tags::STUDY_INSTANCE_UID, &images.study_instance_uid())
        .empty(tags::REFERENCED_STUDY_SEQUENCE)
        .text(tags::ACCESSION_NUMBER, &images.order.accession_number)
        .text(
            tags::PLACER_ORDER_NUMBER_IMAGING_SERVICE_REQUEST,
            &format!("P{}", images.order.study_id),
        )
        .text(
            tags::FILLER_ORDER_NUMBER_IMAGING_SERVICE_REQUEST,
            &format!("F{}", images.order.study_id),
        )
        .text(tags::REQUESTED_PROCEDURE_ID, &images.order.requested_procedure_id)
        .text(tags::REQUESTED_PROCEDURE_DESCRIPTION, images.order.description)
        .sequence(tags::REQUESTED_PROCEDURE_CODE_SEQUENCE, vec![code(images.procedure)])
        .text(tags::REASON_FOR_THE_REQUESTED_PROCEDURE, images.order.reason);
    set.text(tags::CONTENT_DATE, &order.date)
        .text(tags::CONTENT_TIME, &order.time)
        .text(tags::COMPLETION_FLAG, "COMPLETE")
        .text(tags::VERIFICATION_FLAG, "VERIFIED")
        .sequence(tags::VERIFYING_OBSERVER_SEQUENCE, vec![verifier])
        .sequence(tags::REFERENCED_REQUEST_SEQUENCE, vec![request])
        .sequence(tags::PERFORMED_PROCEDURE_CODE_SEQUENCE, vec![code(images.procedure)])
        .sequence(tags::CURRENT_REQUESTED_PROCEDURE_EVIDENCE_SEQUENCE, vec![evidence(images)]);

    let mut template = DataSet::new();
    template.text(tags::MAPPING_RESOURCE, "DCMR").text(tags::TEMPLATE_IDENTIFIER, "2000");
    set.text(tags::VALUE_TYPE, "CONTAINER")
        .sequence(
            tags::CONCEPT_NAME_CODE_SEQUENCE,
            vec![code(("18748-4", "LN", "Diagnostic Imaging Report"))],
        )
        .text(tags::CONTINUITY_OF_CONTENT, "SEPARATE")
        .sequence(tags::CONTENT_TEMPLATE_SEQUENCE, vec![template])
        .sequence(tags::CONTENT_SEQUENCE, content(case, images));
    set
}

/// Which images the report is based on (PS3.3 Table C.17-3).
fn evidence(images: &Case) -> DataSet {
    let series = [SCOUT.number, THICK.number].map(|number| {
        let mut series = DataSet::new();
        let image = reference(uids::CT_IMAGE_STORAGE, &images.sop_instance_uid(number, 1));
        series
            .text(tags::SERIES_INSTANCE_UID, &images.series_instance_uid(number))
            .sequence(tags::REFERENCED_SOP_SEQUENCE, vec![image]);
        series
    });
    let mut study = DataSet::new();
    study
        .text(tags::STUDY_INSTANCE_UID, &images.study_instance_uid())
        .sequence(tags::REFERENCED_SERIES_SEQUENCE, series.to_vec());
    study
}

/// The content tree below its root, after template TID 2000 (PS3.16).
fn content(case: &Case, images: &Case) -> Vec<DataSet> {
    let Case { patient, order, .. } = case;
    let Patient { name, nhs_number, .. } = patient;
    let side = head_ct::side(case.seed);
    let author = &order.performing_physician;

    let mut language = item("HAS CONCEPT MOD", "CODE", LANGUAGE);
    language.sequence(
        tags::CONCEPT_CODE_SEQUENCE,
        vec![code(("en-GB", "RFC5646", "English (United Kingdom)"))],
    );
    let mut observer_type = item("HAS OBS CONTEXT", "CODE", ("121005", "DCM", "Observer Type"));
    observer_type.sequence(tags::CONCEPT_CODE_SEQUENCE, vec![code(("121006", "DCM", "Person"))]);
    let mut observer = item("HAS OBS CONTEXT", "PNAME", ("121008", "DCM", "Person Observer Name"));
    observer.text(tags::PERSON_NAME, author);

    let mut thickness = item("CONTAINS", "NUM", ("410668003", "SCT", "Length"));
    let mut measured = DataSet::new();
    measured
        .decimals(tags::NUMERIC_VALUE, &[f64::from(COLLECTION)])
        .sequence(tags::MEASUREMENT_UNITS_CODE_SEQUENCE, vec![code(("mm", "UCUM", "mm"))]);
    thickness.sequence(tags::MEASURED_VALUE_SEQUENCE, vec![measured]);
    let mut image = item("INFERRED FROM", "IMAGE", ("121112", "DCM", "Source of Measurement"));
    image.sequence(
        tags::REFERENCED_SOP_SEQUENCE,
        vec![reference(uids::CT_IMAGE_STORAGE, &images.sop_instance_uid(THICK.number, 1))],
    );
    thickness.sequence(tags::CONTENT_SEQUENCE, vec![image]);

    let findings = container(
        ("121070", "DCM", "Findings"),
        vec![
            text(
                ("121071", "DCM", "Finding"),
                &format!(
                    "Acute subdural collection over the {side} hemisphere, up to {COLLECTION} mm, with displacement of the midline."
                ),
            ),
            thickness,
        ],
    );
    let conclusions = container(
        ("121076", "DCM", "Conclusions"),
        vec![text(
            ("121077", "DCM", "Conclusion"),
            &format!(
                "{name} (NHS {nhs_number}) needs urgent neurosurgical review. Discussed with {} by telephone.",
                order.referring_physician
            ),
        )],
    );
    let history = container(
        ("121060", "DCM", "History"),
        vec![text(("121060", "DCM", "History"), images.order.reason)],
    );
    vec![language, observer_type, observer, history, findings, conclusions]
}

const LANGUAGE: Code = ("121049", "DCM", "Language of Content Item and Descendants");

fn item(relationship: &str, value_type: &str, concept: Code) -> DataSet {
    let mut item = DataSet::new();
    item.text(tags::RELATIONSHIP_TYPE, relationship)
        .text(tags::VALUE_TYPE, value_type)
        .sequence(tags::CONCEPT_NAME_CODE_SEQUENCE, vec![code(concept)]);
    item
}

fn container(concept: Code, content: Vec<DataSet>) -> DataSet {
    let mut item = item("CONTAINS", "CONTAINER", concept);
    item.text(tags::CONTINUITY_OF_CONTENT, "SEPARATE").sequence(tags::CONTENT_SEQUENCE, content);
    item
}

fn text(concept: Code, text: &str) -> DataSet {
    let mut item = item("CONTAINS", "TEXT", concept);
    item.text(tags::TEXT_VALUE, text);
    item
}
