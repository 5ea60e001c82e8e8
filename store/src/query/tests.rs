use dicom_core::Tag;
use dicom_dictionary_std::tags;

use super::*;

const HIERARCHICAL: Extended = Extended { relational: false, combined_datetime: false };
const RELATIONAL: Extended = Extended { relational: true, combined_datetime: false };

fn query(
    model: Model,
    level: Level,
    extended: Extended,
    keys: &[(Tag, &str)],
) -> Result<Query, QueryError> {
    Query::new(model, level, extended, keys.iter().copied())
}

fn matching(tag: Tag, text: &str) -> Result<Matching, QueryError> {
    let query = query(Model::StudyRoot, Level::Image, RELATIONAL, &[(tag, text)])?;
    Ok(query.keys().next().unwrap().1.clone())
}

#[test]
fn a_key_matches_what_the_standard_says() {
    const NAME: Tag = tags::PATIENT_NAME;
    let table = [
        // Key, its text, a value, whether it matches.
        (NAME, "SMITH*", "Smith^Anna", true),
        (NAME, "smith", "SMITH^ANNA", false),
        (NAME, "smith^^", "SMITH", true),
        (NAME, "smith^an?a", "SMITH^ANNA", true),
        (NAME, "*ann*", "SMITH^ANNA", true),
        (NAME, "muller*", "MÜLLER^JÉRÔME", true),
        (NAME, "MÜLLER^*", "muller^jerome", true),
        (NAME, "山田*", "Yamada^Tarou=山田^太郎=やまだ^たろう", true),
        (NAME, "やまだ^たろう", "Yamada^Tarou=山田^太郎=やまだ^たろう", true),
        (NAME, "=山田*", "Yamada^Tarou=山田^太郎", true),
        (NAME, "Yamada*=鈴木*", "Yamada^Tarou=山田^太郎", false),
        (NAME, "*", "", true),
        (NAME, "^*", "", false),
        (tags::PATIENT_ID, "Ab1", "Ab1 ", true),
        (tags::PATIENT_ID, "AB1", "Ab1", false),
        (tags::PATIENT_ID, "A*1", "Ab[%_]1", true),
        (tags::PATIENT_ID, "?", "", false),
        (tags::PATIENT_ID, "", "", true),
        (tags::MODALITY, "CT\\MR", "MR", true),
        (tags::STUDY_INSTANCE_UID, "1.2\\1.3", "1.3", true),
        (tags::STUDY_INSTANCE_UID, "1.2\\1.3", "1.30", false),
        (tags::STUDY_DATE, "20240229", "20240229", true),
        (tags::STUDY_DATE, "20240201-", "20240229", true),
        (tags::STUDY_DATE, "-20240228", "20240229", false),
        (tags::STUDY_DATE, "20240201-20240229", "2024.02.29", true),
        (tags::STUDY_DATE, "-20240228", "not a date", false),
        (tags::STUDY_TIME, "1000-1030", "103059.5", true),
        (tags::STUDY_TIME, "1000-1030", "103100", false),
        (tags::STUDY_TIME, "1000-1030", "10", true),
        (tags::STUDY_TIME, "10:00-", "235959", true),
        (tags::STUDY_TIME, "10", "105959.999999", true),
        (tags::STUDY_TIME, "100000", "1000", true),
        (tags::SERIES_NUMBER, "007", "7", true),
        (tags::NUMBER_OF_STUDY_RELATED_INSTANCES, "5", "6", true),
    ];
    for (tag, key, value, expected) in table {
        assert_eq!(matching(tag, key).unwrap().matches(value), expected, "{tag} {key} {value}");
    }
}

#[test]
fn what_cannot_be_read_is_refused_as_what_it_is() {
    let many_uids = vec!["1.2"; MOST_UIDS + 1].join("\\");
    let huge = "1.2.840.10008\\".repeat(700_000);
    let long = "x".repeat(10_000_000);
    let stars = "*a".repeat(1000);
    let table = [
        (tags::STUDY_DATE, "20240230"),
        (tags::STUDY_DATE, "2024"),
        (tags::STUDY_DATE, "2024*"),
        (tags::STUDY_DATE, "-"),
        (tags::STUDY_DATE, "20240101-20240102-20240103"),
        (tags::STUDY_DATE, "９９９９１２３１"),
        (tags::STUDY_TIME, "25"),
        (tags::STUDY_TIME, "1"),
        (tags::STUDY_TIME, "10.5"),
        (tags::STUDY_TIME, "100000.1234567"),
        (tags::STUDY_TIME, "-"),
        (tags::STUDY_INSTANCE_UID, "1.2.*"),
        (tags::STUDY_INSTANCE_UID, "' OR 1=1"),
        (tags::STUDY_INSTANCE_UID, &many_uids),
        (tags::STUDY_INSTANCE_UID, &huge),
        (tags::SERIES_NUMBER, "1?"),
        (tags::SERIES_NUMBER, "99999999999999999999"),
        (tags::PATIENT_ID, &long),
        (tags::PATIENT_ID, &stars[..200]),
        (tags::PATIENT_NAME, &stars[..200]),
        (tags::PATIENT_NAME, "a=b=c=d"),
    ];
    for (tag, text) in table {
        let refused = matching(tag, text).unwrap_err();
        assert_eq!(refused.refusal().status(), 0xC000, "{tag} {text:.30}");
        assert!(!refused.to_string().contains("OR 1=1"));
    }
    let thrice = vec![(Tag(0x0009, 0x1001), ""); MOST_KEYS + 1];
    let refused = query(Model::StudyRoot, Level::Study, RELATIONAL, &thrice);
    assert_eq!(refused.unwrap_err(), QueryError::TooManyKeys);
}

#[test]
fn a_level_needs_the_unique_keys_above_it_unless_the_query_is_relational() {
    use Level::{Image, Patient, Series, Study};
    use Model::{PatientRoot, StudyRoot};
    const ID: (Tag, &str) = (tags::PATIENT_ID, "1");
    const STUDY: (Tag, &str) = (tags::STUDY_INSTANCE_UID, "1.2");
    const SERIES: (Tag, &str) = (tags::SERIES_INSTANCE_UID, "1.2.3");
    const LIST: (Tag, &str) = (tags::STUDY_INSTANCE_UID, "1.2\\1.3");
    type Case<'c> = (Model, Level, Vec<(Tag, &'c str)>, bool);
    let table: &[Case<'_>] = &[
        (StudyRoot, Patient, vec![], false),
        (StudyRoot, Study, vec![], true),
        (StudyRoot, Series, vec![], false),
        (StudyRoot, Series, vec![LIST], false),
        (StudyRoot, Series, vec![STUDY], true),
        (StudyRoot, Image, vec![STUDY], false),
        (StudyRoot, Image, vec![STUDY, SERIES], true),
        (PatientRoot, Patient, vec![], true),
        (PatientRoot, Study, vec![], false),
        (PatientRoot, Study, vec![(tags::PATIENT_ID, "1*")], false),
        (PatientRoot, Study, vec![ID], true),
        (PatientRoot, Series, vec![STUDY], false),
        (PatientRoot, Image, vec![ID, STUDY, SERIES], true),
        (StudyRoot, Study, vec![(tags::MODALITY, "CT")], false),
    ];
    for (model, level, keys, expected) in table {
        let read = query(*model, *level, HIERARCHICAL, keys);
        assert_eq!(read.is_ok(), *expected, "{model:?} {level:?} {keys:?}");
        if let Err(refused) = read {
            assert_eq!(refused.refusal().status(), 0xA900);
        }
    }
    assert!(query(PatientRoot, Image, RELATIONAL, &[]).is_ok());
    assert!(query(StudyRoot, Patient, RELATIONAL, &[]).is_err());
}

#[test]
fn what_is_not_known_is_said_and_what_is_looked_for_is_not_printed() {
    let keys = [
        (tags::PATIENT_NAME, "SECRET*"),
        (tags::SPECIFIC_CHARACTER_SET, "ISO_IR 100"),
        (tags::REQUEST_ATTRIBUTES_SEQUENCE, ""),
        (tags::SERIES_DESCRIPTION, ""),
    ];

    let read = query(Model::StudyRoot, Level::Study, RELATIONAL, &keys).unwrap();

    let unsupported = [tags::REQUEST_ATTRIBUTES_SEQUENCE, tags::SERIES_DESCRIPTION];
    assert_eq!(read.unsupported(), unsupported);
    assert!(read.asks_for(tags::PATIENT_NAME) && !read.asks_for(tags::SPECIFIC_CHARACTER_SET));
    assert!(!format!("{read:?}").to_uppercase().contains("SECRET"));
    let twice = [(tags::PATIENT_ID, "1"), (tags::PATIENT_ID, "2")];
    let refused = query(Model::StudyRoot, Level::Study, RELATIONAL, &twice);
    assert_eq!(refused.unwrap_err(), QueryError::Twice(tags::PATIENT_ID));
}
