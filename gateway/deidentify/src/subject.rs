//! Whose object it is, under one name however it is written (UK: the NHS number wherever it stands).
//!
//! DICOM does not fix where an NHS number goes, so all places for identifiers are searched. The same patient met once with
//! and once without an NHS number is two subjects; nothing here guesses.

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use gantry_store::dicom::text as character_sets;

use crate::data_set::DataSet;
use crate::values::nhs_number;

/// Other Patient IDs (0010,1000), retired.
pub(crate) const OTHER_PATIENT_IDS: Tag = Tag(0x0010, 0x1000);

/// The subject of an object: `nhs:` and ten digits, else `local:` with issuer and identifier. It is patient data.
pub fn of(data_set: &DataSet) -> Option<String> {
    let set = data_set.bytes(tags::SPECIFIC_CHARACTER_SET).unwrap_or_default();
    let own = values(data_set, tags::PATIENT_ID, set).into_iter().next().unwrap_or_default();
    let others = data_set.items(tags::OTHER_PATIENT_I_DS_SEQUENCE).iter().flat_map(|item| {
        let set = item.bytes(tags::SPECIFIC_CHARACTER_SET).unwrap_or(set);
        values(item, tags::PATIENT_ID, set)
    });
    let retired = values(data_set, OTHER_PATIENT_IDS, set);
    let all = std::iter::once(own.clone()).chain(others).chain(retired);
    if let Some(number) = all.into_iter().find_map(|id| nhs_number(&id)) {
        return Some(format!("nhs:{number}"));
    }
    let issuer = values(data_set, tags::ISSUER_OF_PATIENT_ID, set).into_iter().next();
    let canonical = |text: &str| text.trim().to_uppercase();
    (!own.trim().is_empty())
        .then(|| format!("local:{}:{}", canonical(&issuer.unwrap_or_default()), canonical(&own)))
}

/// The values of an attribute. What its character set cannot read is told apart by its bytes: two patients whose
/// identifiers are equally illegible are two.
fn values(data_set: &DataSet, tag: Tag, set: &[u8]) -> Vec<String> {
    let bytes = data_set.bytes(tag).unwrap_or_default();
    let text = character_sets::decode(set, bytes);
    if text.contains(char::REPLACEMENT_CHARACTER) {
        return vec![format!("{text} {bytes:02x?}")];
    }
    text.split('\\').map(|value| value.trim().to_owned()).collect()
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
    fn identifiers_that_nobody_can_read_are_not_one_and_the_same() {
        let illegible = |byte: u8| {
            let mut data_set = DataSet::default();
            data_set.put(Element::new(tags::PATIENT_ID, VR::LO, [byte, b'1']));
            of(&data_set).unwrap()
        };
        assert_ne!(illegible(0xC4), illegible(0xC5));
        assert_eq!(illegible(0xC4), illegible(0xC4));
    }

    #[test]
    fn a_local_identifier_is_the_same_in_any_case_and_none_is_none() {
        assert_eq!(with(" rxx1 ", &[], ""), Some("local::RXX1".to_owned()));
        assert_eq!(with("", &["RXX1"], ""), None);
        assert_eq!(with("9990548608", &[], ""), Some("local::9990548608".to_owned()));
    }
}
