//! What is asked about one study at a peer (PS3.4 Annex C, Study Root): which series it has, and which images. The same for
//! partners, who are asked for proof, and for sources, against which is counted.
//!
//! Of an answer is kept what was asked for, in checked types, and nothing that is about another study or series than the one
//! in question. What a query may list is bounded by whoever asks.

use std::collections::{BTreeMap, BTreeSet};

use dicom_dictionary_std::{tags, uids};
use gantry_store::dicom::{Phi, SeriesInstanceUid, SopInstanceUid, StudyInstanceUid, Uid};

use super::data_set::{self, DataSet, Elements};
use super::requestor::{FindEnded, RequestError, Requestor};
use super::services::storage_commitment::known;
use super::status::Status;
use super::wire::Stream;

/// Study Root Query/Retrieve Information Model, FIND.
pub const FIND: &str = uids::STUDY_ROOT_QUERY_RETRIEVE_INFORMATION_MODEL_FIND;
/// Study Root Query/Retrieve Information Model, MOVE.
pub const MOVE: &str = uids::STUDY_ROOT_QUERY_RETRIEVE_INFORMATION_MODEL_MOVE;

/// The most that a peer may list that does not look at the key.
const LISTED: usize = 10_000;

/// A series, as a peer lists it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ListedSeries {
    /// Series Instance UID.
    pub uid: SeriesInstanceUid,
    /// Series Number.
    pub number: Option<i64>,
    /// Modality.
    pub modality: Option<String>,
    /// Series Description.
    pub description: Phi<Option<String>>,
    /// Number of Series Related Instances; not every archive counts.
    pub images: Option<u64>,
}

/// What a query listed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Listed<T> {
    /// All there is.
    All(T),
    /// More than was to be listed.
    TooMany,
    /// The peer does not answer such a query, for this reason.
    Refused(Status),
}

impl<T> Listed<T> {
    fn ended(ended: FindEnded, listed: T) -> Self {
        match ended {
            FindEnded::All => Self::All(listed),
            FindEnded::TooMany => Self::TooMany,
            FindEnded::Refused(status) => Self::Refused(status),
        }
    }
}

/// The series of a study, each once.
pub async fn series<S: Stream>(
    association: &mut Requestor<S>,
    context: u8,
    study: &StudyInstanceUid,
    most: usize,
) -> Result<Listed<Vec<ListedSeries>>, RequestError> {
    let identifier = of_study("SERIES", study)
        .with(tags::SERIES_INSTANCE_UID, "")
        .with(tags::SERIES_NUMBER, "")
        .with(tags::SERIES_DESCRIPTION, "")
        .with(tags::MODALITY, "")
        .with(tags::NUMBER_OF_SERIES_RELATED_INSTANCES, "");
    let mut listed: BTreeMap<SeriesInstanceUid, ListedSeries> = BTreeMap::new();
    let take = |one: DataSet| {
        let said = one.elements();
        if is_of(said, tags::STUDY_INSTANCE_UID, study.as_str())
            && let Some(uid) = data_set::uid::<SeriesInstanceUid>(said, tags::SERIES_INSTANCE_UID)
        {
            listed.entry(uid.clone()).or_insert_with(|| ListedSeries {
                uid,
                number: data_set::signed(said, tags::SERIES_NUMBER),
                modality: data_set::text(said, tags::MODALITY),
                description: Phi::new(data_set::text(said, tags::SERIES_DESCRIPTION)),
                images: data_set::integer(said, tags::NUMBER_OF_SERIES_RELATED_INSTANCES),
            });
        }
    };
    let ended = association.find_each(context, &known(FIND), &identifier, most, take).await?;
    Ok(Listed::ended(ended, listed.into_values().collect()))
}

/// The images of a series.
pub async fn images<S: Stream>(
    association: &mut Requestor<S>,
    context: u8,
    study: &StudyInstanceUid,
    series: &SeriesInstanceUid,
    most: usize,
) -> Result<Listed<BTreeSet<SopInstanceUid>>, RequestError> {
    let identifier = of_study("IMAGE", study)
        .with(tags::SERIES_INSTANCE_UID, series.as_str())
        .with(tags::SOP_INSTANCE_UID, "");
    let mut listed = BTreeSet::new();
    let take = |one: DataSet| {
        let said = one.elements();
        if is_of(said, tags::STUDY_INSTANCE_UID, study.as_str())
            && is_of(said, tags::SERIES_INSTANCE_UID, series.as_str())
        {
            listed.extend(data_set::uid::<SopInstanceUid>(said, tags::SOP_INSTANCE_UID));
        }
    };
    let ended = association.find_each(context, &known(FIND), &identifier, most, take).await?;
    Ok(Listed::ended(ended, listed))
}

/// Whether there is this image.
pub async fn image<S: Stream>(
    association: &mut Requestor<S>,
    context: u8,
    study: &StudyInstanceUid,
    series: &SeriesInstanceUid,
    image: &SopInstanceUid,
) -> Result<Listed<bool>, RequestError> {
    let identifier = of_study("IMAGE", study)
        .with(tags::SERIES_INSTANCE_UID, series.as_str())
        .with(tags::SOP_INSTANCE_UID, image.as_str());
    let mut is_there = false;
    let take = |one: DataSet| {
        let uid = data_set::uid::<SopInstanceUid>(one.elements(), tags::SOP_INSTANCE_UID);
        is_there |= uid.as_ref() == Some(image);
    };
    // One, or several of a peer that does not look at the key.
    let ended = association.find_each(context, &known(FIND), &identifier, LISTED, take).await?;
    Ok(Listed::ended(ended, is_there))
}

/// Names a series of a study, or some of its images, for whoever is to send them.
pub fn wanted(
    study: &StudyInstanceUid,
    series: &SeriesInstanceUid,
    images: &[SopInstanceUid],
) -> DataSet {
    let level = if images.is_empty() { "SERIES" } else { "IMAGE" };
    let named = of_study(level, study).with(tags::SERIES_INSTANCE_UID, series.as_str());
    if images.is_empty() {
        return named;
    }
    let list: Vec<_> = images.iter().map(SopInstanceUid::as_str).collect();
    named.with(tags::SOP_INSTANCE_UID, &list.join("\\"))
}

fn of_study(level: &str, study: &StudyInstanceUid) -> DataSet {
    DataSet::default()
        .with(tags::QUERY_RETRIEVE_LEVEL, level)
        .with(tags::STUDY_INSTANCE_UID, study.as_str())
}

/// Whether a match is about what was asked for. One that does not say is taken to be.
fn is_of(said: &Elements, tag: gantry_store::dicom::Tag, expected: &str) -> bool {
    data_set::uid::<Uid>(said, tag).is_none_or(|uid| uid.as_str() == expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_is_named_by_image_where_they_are_known_and_else_by_series() {
        let (study, series) = ("2.25.1".parse().unwrap(), "2.25.2".parse().unwrap());
        let images = ["2.25.3".parse().unwrap(), "2.25.44".parse().unwrap()];
        let value = |of: &DataSet, tag| {
            let value = of.elements().get(&tag).map(|value| String::from_utf8_lossy(value));
            value.map(|value| value.trim_end_matches(['\0', ' ']).to_owned())
        };

        let by_image = wanted(&study, &series, &images);
        let by_series = wanted(&study, &series, &[]);

        assert_eq!(value(&by_image, tags::QUERY_RETRIEVE_LEVEL).as_deref(), Some("IMAGE"));
        assert_eq!(value(&by_image, tags::SOP_INSTANCE_UID).as_deref(), Some("2.25.3\\2.25.44"));
        assert_eq!(value(&by_series, tags::QUERY_RETRIEVE_LEVEL).as_deref(), Some("SERIES"));
        assert_eq!(value(&by_series, tags::SOP_INSTANCE_UID), None);
        assert_eq!(value(&by_series, tags::SERIES_INSTANCE_UID).as_deref(), Some("2.25.2"));
    }

    #[test]
    fn a_match_about_something_else_is_not_one() {
        let said = DataSet::default().with(tags::STUDY_INSTANCE_UID, "2.25.1");
        assert!(is_of(said.elements(), tags::STUDY_INSTANCE_UID, "2.25.1"));
        assert!(!is_of(said.elements(), tags::STUDY_INSTANCE_UID, "2.25.2"));
        assert!(is_of(said.elements(), tags::SERIES_INSTANCE_UID, "2.25.2"));
    }
}
