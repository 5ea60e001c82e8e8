//! A discharge letter as a PDF inside a DICOM object, with the patient's name on its page.

use std::fmt::Write as _;

use dicom_core::VR;
use dicom_dictionary_std::{tags, uids};

use crate::head_ct;
use crate::instance::Study;
use crate::modules::{Case, Series, code};

/// One Encapsulated PDF document about the patient of [`crate::head_ct`] of the same seed; a study of its own.
pub fn encapsulated_pdf(seed: u64) -> Study {
    let case = Case::new(
        seed,
        "encapsulated-pdf",
        head_ct::PATIENT,
        ("303653007", "SCT", "Computed tomography of head"),
        ("Letter", "Discharge letter"),
    );
    let order = &case.order;
    let pdf = letter(&case);
    // Encapsulated PDF IOD (PS3.3 A.45.1).
    let mut set = case.data_set(&LETTERS, uids::ENCAPSULATED_PDF_STORAGE, 1);
    set.text(tags::CONTENT_DATE, &order.date)
        .text(tags::CONTENT_TIME, &order.time)
        .text(tags::ACQUISITION_DATE_TIME, &format!("{}{}", order.date, order.time))
        .text(tags::CONVERSION_TYPE, "WSD")
        .text(tags::BURNED_IN_ANNOTATION, "YES")
        .text(
            tags::DOCUMENT_TITLE,
            &format!("Letter about {}", case.patient.name.replace('^', " ")),
        )
        .sequence(
            tags::CONCEPT_NAME_CODE_SEQUENCE,
            vec![code(("18842-5", "LN", "Discharge summary"))],
        )
        .text(tags::MIME_TYPE_OF_ENCAPSULATED_DOCUMENT, "application/pdf")
        .u32(tags::ENCAPSULATED_DOCUMENT_LENGTH, pdf.len() as u32)
        .bytes(tags::ENCAPSULATED_DOCUMENT, VR::OB, pdf);
    let instance = case.instance(&set);
    case.study(vec![instance])
}

const LETTERS: Series = Series {
    number: 1,
    modality: "DOC",
    description: "Letters",
    body_part: None,
    manufacturer: "Sample Letters",
    model: "Scanner 1",
};

fn letter(case: &Case) -> Vec<u8> {
    let Case { patient, order, .. } = case;
    pdf(&[
        order.institution.clone(),
        order.institution_address.clone(),
        String::new(),
        format!("Patient: {}", patient.name.replace('^', " ")),
        format!(
            "NHS number: {}   Hospital number: {}",
            patient.nhs_number, patient.hospital_number
        ),
        format!("Born: {}   Telephone: {}", patient.birth_date, patient.telephone),
        format!("Address: {}", patient.address),
        String::new(),
        format!("Dear {},", order.referring_physician.replace('^', " ")),
        "your patient was admitted after a fall and has a subdural haematoma.".to_owned(),
        "This letter is a sample: nobody in it exists.".to_owned(),
    ])
}

/// One page of text lines in the least that ISO 32000-1 calls a file: header, five objects, cross-reference table,
/// trailer. Nothing is compressed, so a search for a name finds it.
fn pdf(lines: &[String]) -> Vec<u8> {
    let mut page = String::from("BT /F1 12 Tf 60 780 Td 18 TL\n");
    for line in lines {
        let escaped = line.replace('\\', r"\\").replace('(', r"\(").replace(')', r"\)");
        let _ = writeln!(page, "({escaped}) Tj T*"); // writing to a string cannot fail
    }
    page.push_str("ET");
    let objects = [
        "<< /Type /Catalog /Pages 2 0 R >>".to_owned(),
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>".to_owned(),
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R \
         /Resources << /Font << /F1 5 0 R >> >> >>"
            .to_owned(),
        format!("<< /Length {} >>\nstream\n{page}\nendstream", page.len()),
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>".to_owned(),
    ];

    let mut file = String::from("%PDF-1.4\n");
    let mut table = format!("xref\n0 {}\n0000000000 65535 f \n", objects.len() + 1);
    for (number, object) in (1..).zip(&objects) {
        let _ = writeln!(table, "{:010} 00000 n ", file.len());
        let _ = writeln!(file, "{number} 0 obj\n{object}\nendobj");
    }
    let start = file.len();
    let _ = write!(
        file,
        "{table}trailer\n<< /Size {} /Root 1 0 R >>\nstartxref\n{start}\n%%EOF\n",
        objects.len() + 1
    );
    file.into_bytes()
}
