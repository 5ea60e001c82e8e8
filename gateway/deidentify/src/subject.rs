//! Whose object it is, under one name however it is written (UK: the NHS number wherever it stands).
//!
//! DICOM does not fix where an NHS number goes, so all places for identifiers are searched. The same patient met once with
//! and once without an NHS number is two subjects; nothing here guesses.

use dicom_core::Tag;
use dicom_dictionary_std::tags;

use crate::data_set::DataSet;
use crate::values::nhs_number;

/// Other Patient IDs (0010,1000), retired.
const OTHER_PATIENT_IDS: Tag = Tag(0x0010, 0x1000);

/// The subject of an object: `nhs:` and ten digits, else `local:` with issuer and identifier. It is patient data.
pub fn of(data_set: &DataSet) -> Option<String> {
    let own = data_set.text(tags::PATIENT_ID).unwrap_or_default();
    let others = data_set.items(tags::OTHER_PATIENT_I_DS_SEQUENCE).iter();
    let others = others.filter_map(|item| item.text(tags::PATIENT_ID));
    let retired = data_set.bytes(OTHER_PATIENT_IDS).unwrap_or_default();
    let retired =
        retired.split(|byte| *byte == b'\\').map(|id| String::from_utf8_lossy(id).into_owned());
    let all = std::iter::once(own.clone()).chain(others).chain(retired);
    if let Some(number) = all.into_iter().find_map(|id| nhs_number(&id)) {
        return Some(format!("nhs:{number}"));
    }
    let issuer = data_set.text(tags::ISSUER_OF_PATIENT_ID).unwrap_or_default();
    let canonical = |text: &str| text.trim().to_uppercase();
    (!own.trim().is_empty()).then(|| format!("local:{}:{}", canonical(&issuer), canonical(&own)))
}

#[cfg(test)]
mod tests {
    use dicom_core::VR;

    use super::*;
    use crate::data_set::Element;

    fn with(id: &str, others: &[&str], retired: &str) -> Option<String> {
        let mut data_set = DataSet::default();
        data_set.put(Element::new(tags::PATIENT_ID, VR::LO, id));
        let item = |id: &&str| {
            let mut item = DataSet::default();
            item.put(Element::new(tags::PATIENT_ID, VR::LO, *id));
            item
        };
        let items = others.iter().map(item).collect();
        data_set.put(Element::sequence(tags::OTHER_PATIENT_I_DS_SEQUENCE, items));
        data_set.put(Element::new(OTHER_PATIENT_IDS, VR::LO, retired));
        of(&data_set)
    }

    #[test]
    fn an_nhs_number_names_its_patient_wherever_it_stands() {
        let expected = Some("nhs:9990548609".to_owned());
        assert_eq!(with("999 054 8609", &[], ""), expected);
        assert_eq!(with("RXX1", &["X", "9990548609"], ""), expected);
        assert_eq!(with("RXX1", &[], "A\\9990548609"), expected);
        assert_eq!(with("", &["9990548609"], ""), expected);
    }

    #[test]
    fn a_local_identifier_is_the_same_in_any_case_and_none_is_none() {
        assert_eq!(with(" rxx1 ", &[], ""), Some("local::RXX1".to_owned()));
        assert_eq!(with("", &["RXX1"], ""), None);
        assert_eq!(with("9990548608", &[], ""), Some("local::9990548608".to_owned()));
    }
}
