//! What a source has of a study, asked by C-FIND, and the comparison with what is here.
//!
//! The series come first, with their counts. Where a source gives no count, or another one than is here, it is asked for the
//! images of that series, so that what is missing is known by name. A count alone decides only where images cannot be listed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gantry_store::dicom::{SeriesInstanceUid, SopInstanceUid, StudyInstanceUid};
use gantry_store::index::{CountedSeries, Failure, HeldImages, IndexError, Outcome};
use thiserror::Error;

use crate::association::query::{self, FIND, Listed, ListedSeries};
use crate::association::requestor::RequestError;
use crate::association::status::Status;
use crate::partner::connect::Association;

/// The most series that a study may have at a source.
const MOST_SERIES: usize = 10_000;
/// The most images that a study may have there.
const MOST_IMAGES: usize = 100_000;
/// For how long one study is asked about.
pub(super) const ASKING: Duration = Duration::from_mins(10);

/// Why a source did not say what it has.
#[derive(Debug, Error)]
pub enum AskError {
    /// There is no association with it.
    #[error("{0}")]
    Unreachable(Failure),
    /// It does not take the service that is asked for.
    #[error("it offers no {0}")]
    NotOffered(&'static str),
    /// It answers no such query.
    #[error("it refused a query: {0}")]
    Refused(Status),
    /// It counts nothing, and refuses to list.
    #[error("it gives no counts, and refused to list images: {0}")]
    Uncounted(Status),
    /// It lists more than can be.
    #[error("it lists more than {0}")]
    TooMany(&'static str),
    /// It does not know the study, or not to us.
    #[error("it lists nothing of the study")]
    Nothing,
    /// The association broke off.
    #[error("the association broke off")]
    Association(#[from] RequestError),
    /// It is slower than can be waited for.
    #[error("it did not answer to the end within {} min", ASKING.as_secs() / 60)]
    TooSlow,
    /// Not its fault.
    #[error("the index cannot be used")]
    Index(#[from] IndexError),
}

impl AskError {
    /// Whether it is of no use to ask it about other studies now.
    pub(super) fn is_absence(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Association(_) | Self::TooSlow)
    }

    /// Whether the answer to the same question stays the same.
    pub(super) fn is_for_good(&self) -> bool {
        matches!(self, Self::NotOffered(_) | Self::TooMany(_))
    }
}

/// A series that a source has, and its images where it listed them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct At {
    pub(super) series: ListedSeries,
    pub(super) images: Option<BTreeSet<SopInstanceUid>>,
}

/// What is not here: images by name where they are known, else the whole series.
pub(super) type Missing = BTreeMap<SeriesInstanceUid, Vec<SopInstanceUid>>;

/// Asks a source what it has. `held` is what is here, to tell where it is enough to count.
pub(super) async fn list(
    association: &mut Association,
    study: &StudyInstanceUid,
    held: &HeldImages,
) -> Result<Vec<At>, AskError> {
    let context = association.context_of(FIND).ok_or(AskError::NotOffered("query"))?;
    let listed = match query::series(association, context, study, MOST_SERIES).await? {
        Listed::All(listed) if listed.is_empty() => return Err(AskError::Nothing),
        Listed::All(listed) => listed,
        Listed::TooMany => return Err(AskError::TooMany("10,000 series")),
        Listed::Refused(status) => return Err(AskError::Refused(status)),
    };
    let mut all = Vec::with_capacity(listed.len());
    let mut room = MOST_IMAGES;
    for series in listed {
        let here = held.get(&series.uid).map_or(0, BTreeSet::len) as u64;
        if series.images == Some(here) {
            all.push(At { series, images: None });
            continue;
        }
        let images = query::images(association, context, study, &series.uid, room).await?;
        let images = match (images, series.images) {
            (Listed::All(images), _) => {
                room = room.saturating_sub(images.len());
                Some(images)
            }
            (Listed::Refused(_), Some(count)) if count <= MOST_IMAGES as u64 => None,
            (Listed::TooMany, _) | (Listed::Refused(_), Some(_)) => {
                return Err(AskError::TooMany("100,000 images"));
            }
            (Listed::Refused(status), None) => return Err(AskError::Uncounted(status)),
        };
        all.push(At { series, images });
    }
    Ok(all)
}

/// Compares what a source has with what is here.
pub(super) fn compare(listed: &[At], held: &HeldImages) -> (Outcome, Missing) {
    // An image is here whichever series it came in.
    let here: BTreeSet<&SopInstanceUid> = held.values().flatten().collect();
    let mut missing = Missing::new();
    let (mut counted, mut known) = (Vec::with_capacity(listed.len()), 0);
    for At { series, images } in listed {
        let in_series = held.get(&series.uid).map_or(0, BTreeSet::len) as u64;
        let (expected, lacking) = if let Some(images) = images {
            let lacking: Vec<_> =
                images.iter().filter(|image| !here.contains(image)).cloned().collect();
            let count = lacking.len() as u64;
            if count > 0 {
                missing.insert(series.uid.clone(), lacking);
            }
            (images.len() as u64, count)
        } else {
            let expected = series.images.unwrap_or(in_series);
            let count = expected.saturating_sub(in_series);
            if count > 0 {
                missing.insert(series.uid.clone(), Vec::new());
            }
            (expected, count)
        };
        known += expected - lacking;
        counted.push(CountedSeries {
            series_instance_uid: series.uid.clone(),
            number: series.number,
            modality: series.modality.clone(),
            description: series.description.clone(),
            expected,
            missing: lacking,
        });
    }
    let surplus = (here.len() as u64).saturating_sub(known);
    (Outcome::Counted { series: counted, surplus }, missing)
}

#[cfg(test)]
mod tests {
    use gantry_store::dicom::Phi;

    use super::*;

    fn uids<T: std::str::FromStr + Ord>(numbers: &[u32]) -> BTreeSet<T> {
        let uid = |number: &u32| format!("2.25.{number}").parse().ok();
        numbers.iter().filter_map(uid).collect()
    }

    fn held(series: &[(u32, &[u32])]) -> HeldImages {
        let one = |(series, images): &(u32, &[u32])| {
            (format!("2.25.{series}").parse().unwrap(), uids(images))
        };
        series.iter().map(one).collect()
    }

    fn at(series: u32, count: Option<u64>, images: Option<&[u32]>) -> At {
        At {
            series: ListedSeries {
                uid: format!("2.25.{series}").parse().unwrap(),
                number: Some(i64::from(series)),
                modality: None,
                description: Phi::default(),
                images: count,
            },
            images: images.map(uids),
        }
    }

    #[test]
    fn what_a_source_has_is_compared_by_name_where_names_are_known_and_else_by_count() {
        // What it lists; what is here; how much it lists, how much of that is missing and how much here it does not list.
        let here = held(&[(1, &[11, 12]), (2, &[21])]);
        let table = [
            (vec![at(1, Some(2), None), at(2, Some(1), None)], (3, 0, 0)),
            (vec![at(1, Some(3), None), at(2, Some(1), None)], (4, 1, 0)),
            (vec![at(1, Some(9), Some(&[11, 12, 13])), at(2, Some(1), None)], (4, 1, 0)),
            // As many, and not the same.
            (vec![at(1, None, Some(&[11, 13])), at(2, Some(1), None)], (3, 1, 1)),
            // More here than there is no fault.
            (vec![at(1, Some(1), None)], (1, 0, 2)),
            // An image that is here in another series is here.
            (vec![at(1, None, Some(&[11, 12, 21]))], (3, 0, 0)),
            (vec![at(1, Some(2), None), at(2, Some(1), None), at(3, Some(5), None)], (8, 5, 0)),
        ];
        for (listed, expected) in table {
            let (outcome, missing) = compare(&listed, &here);

            let Outcome::Counted { series, surplus } = outcome else { panic!("counted") };
            let lists: u64 = series.iter().map(|series| series.expected).sum();
            let lacks: u64 = series.iter().map(|series| series.missing).sum();
            assert_eq!((lists, lacks, surplus), expected, "{listed:?}");
            assert_eq!(missing.is_empty(), lacks == 0);
        }
    }

    #[test]
    fn what_is_missing_is_named_for_whoever_fetches_it() {
        let listed = [at(1, None, Some(&[11, 12, 13])), at(2, Some(4), None)];

        let (_, missing) = compare(&listed, &held(&[(1, &[11])]));

        let shown: Vec<_> =
            missing.iter().map(|(series, images)| (series.as_str(), images.len())).collect();
        assert_eq!(shown, [("2.25.1", 2), ("2.25.2", 0)]);
    }
}
