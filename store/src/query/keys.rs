//! The attributes that a query may name: at which level, and how each is matched (PS3.4 C.6.1.1, C.6.2.1).

use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;
use serde::Serialize;

/// Query/Retrieve Level (0008,0052), from the highest to the lowest.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Level {
    /// PATIENT; only in the Patient Root model.
    Patient,
    /// STUDY.
    Study,
    /// SERIES.
    Series,
    /// IMAGE.
    Image,
}

/// How an attribute is matched.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    Name,
    Uid,
    Date,
    Time,
    Text,
    Number,
    /// It is only returned: what is counted need not be matched (PS3.4 C.3.4).
    Counted,
}

/// One attribute.
#[derive(Debug)]
pub(crate) struct Supported {
    pub(crate) tag: Tag,
    pub(crate) vr: VR,
    pub(crate) level: Level,
    pub(crate) kind: Kind,
}

const fn key(tag: Tag, vr: VR, level: Level, kind: Kind) -> Supported {
    Supported { tag, vr, level, kind }
}

/// All of them, by level.
pub(crate) const SUPPORTED: &[Supported] = &[
    key(tags::PATIENT_NAME, VR::PN, Level::Patient, Kind::Name),
    key(tags::PATIENT_ID, VR::LO, Level::Patient, Kind::Text),
    key(tags::ISSUER_OF_PATIENT_ID, VR::LO, Level::Patient, Kind::Text),
    key(tags::PATIENT_BIRTH_DATE, VR::DA, Level::Patient, Kind::Date),
    key(tags::PATIENT_SEX, VR::CS, Level::Patient, Kind::Text),
    key(tags::NUMBER_OF_PATIENT_RELATED_STUDIES, VR::IS, Level::Patient, Kind::Counted),
    key(tags::NUMBER_OF_PATIENT_RELATED_SERIES, VR::IS, Level::Patient, Kind::Counted),
    key(tags::NUMBER_OF_PATIENT_RELATED_INSTANCES, VR::IS, Level::Patient, Kind::Counted),
    key(tags::STUDY_INSTANCE_UID, VR::UI, Level::Study, Kind::Uid),
    key(tags::STUDY_DATE, VR::DA, Level::Study, Kind::Date),
    key(tags::STUDY_TIME, VR::TM, Level::Study, Kind::Time),
    key(tags::ACCESSION_NUMBER, VR::SH, Level::Study, Kind::Text),
    key(tags::STUDY_ID, VR::SH, Level::Study, Kind::Text),
    key(tags::STUDY_DESCRIPTION, VR::LO, Level::Study, Kind::Text),
    key(tags::REFERRING_PHYSICIAN_NAME, VR::PN, Level::Study, Kind::Name),
    key(tags::MODALITIES_IN_STUDY, VR::CS, Level::Study, Kind::Text),
    key(tags::SOP_CLASSES_IN_STUDY, VR::UI, Level::Study, Kind::Uid),
    key(tags::NUMBER_OF_STUDY_RELATED_SERIES, VR::IS, Level::Study, Kind::Counted),
    key(tags::NUMBER_OF_STUDY_RELATED_INSTANCES, VR::IS, Level::Study, Kind::Counted),
    key(tags::SERIES_INSTANCE_UID, VR::UI, Level::Series, Kind::Uid),
    key(tags::MODALITY, VR::CS, Level::Series, Kind::Text),
    key(tags::SERIES_NUMBER, VR::IS, Level::Series, Kind::Number),
    key(tags::SERIES_DESCRIPTION, VR::LO, Level::Series, Kind::Text),
    key(tags::BODY_PART_EXAMINED, VR::CS, Level::Series, Kind::Text),
    key(tags::SERIES_DATE, VR::DA, Level::Series, Kind::Date),
    key(tags::SERIES_TIME, VR::TM, Level::Series, Kind::Time),
    key(tags::PROTOCOL_NAME, VR::LO, Level::Series, Kind::Text),
    key(tags::LATERALITY, VR::CS, Level::Series, Kind::Text),
    key(tags::STATION_NAME, VR::SH, Level::Series, Kind::Text),
    key(tags::NUMBER_OF_SERIES_RELATED_INSTANCES, VR::IS, Level::Series, Kind::Counted),
    key(tags::SOP_INSTANCE_UID, VR::UI, Level::Image, Kind::Uid),
    key(tags::SOP_CLASS_UID, VR::UI, Level::Image, Kind::Uid),
    key(tags::INSTANCE_NUMBER, VR::IS, Level::Image, Kind::Number),
    key(tags::ROWS, VR::US, Level::Image, Kind::Number),
    key(tags::COLUMNS, VR::US, Level::Image, Kind::Number),
    key(tags::NUMBER_OF_FRAMES, VR::IS, Level::Image, Kind::Number),
];

/// What whoever answers a query puts into it: no key, and nothing that is unknown here.
pub(crate) const ANSWERED_ELSEWHERE: &[Tag] = &[
    tags::SPECIFIC_CHARACTER_SET,
    tags::QUERY_RETRIEVE_LEVEL,
    tags::RETRIEVE_AE_TITLE,
    tags::RETRIEVE_URL,
    tags::INSTANCE_AVAILABILITY,
    tags::TIMEZONE_OFFSET_FROM_UTC,
];

/// What is known of an attribute.
pub(crate) fn supported(tag: Tag) -> Option<&'static Supported> {
    SUPPORTED.iter().find(|key| key.tag == tag)
}

/// The attributes that a query at a level may ask for, its own and those above, with their VRs.
pub fn keys_at(level: Level) -> impl Iterator<Item = (Tag, VR)> {
    SUPPORTED.iter().filter(move |key| key.level <= level).map(|key| (key.tag, key.vr))
}
