//! "Did you mean?", for words of a profile.

use crate::table;

/// Attributes that conditions are written on and that Table E.1-1 does not list.
const OTHERS: [&str; 12] = [
    "Modality",
    "ImageType",
    "Manufacturer",
    "ManufacturerModelName",
    "SOPClassUID",
    "Rows",
    "Columns",
    "BodyPartExamined",
    "ConversionType",
    "BurnedInAnnotation",
    "PatientSex",
    "NumberOfFrames",
];

/// `Did you mean "X"? ` for the nearest of these, if one is near.
pub(crate) fn word<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    let lower = text.to_lowercase();
    let likeness =
        |candidate: &str| strsim::normalized_damerau_levenshtein(&lower, &candidate.to_lowercase());
    candidates
        .into_iter()
        .map(|candidate| (likeness(candidate), candidate))
        .filter(|(likeness, _)| *likeness >= 0.6)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, candidate)| format!("Did you mean \"{candidate}\"? "))
        .unwrap_or_default()
}

/// The same for keywords of attributes.
pub(crate) fn attribute(text: &str) -> String {
    word(text, table::rows().map(|(_, row)| row.keyword).chain(OTHERS))
}
