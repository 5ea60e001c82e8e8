//! What this node has asked a source to send to itself, so that it is routed like the rest of its study.
//!
//! A C-MOVE to ourselves comes to our own AE title, whatever the others of the study had called, so a route that waits for
//! another name would not match. What comes of such a study while it is being fetched, and for a while after, keeps in its
//! sealed header in which ways the rest had come: so routes decide the same at once, after a crash and in `gantry reindex`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gantry_store::dicom::{AeTitle, StudyInstanceUid};
use gantry_store::facts::{Origin, Way};
use tokio::time::Instant;

/// For how long after a C-MOVE something of it may still come: some archives answer first and send later.
pub const LINGER: Duration = Duration::from_hours(1);

/// The studies that are being fetched, and the ways in which the rest of each came.
#[derive(Clone, Debug, Default)]
pub struct Fetching(Arc<Mutex<HashMap<StudyInstanceUid, Fetched>>>);

#[derive(Debug)]
struct Fetched {
    destination: AeTitle,
    ways: Vec<Way>,
    until: Instant,
}

impl Fetching {
    fn studies(&self) -> MutexGuard<'_, HashMap<StudyInstanceUid, Fetched>> {
        // Every change is one call on the map, so a panic elsewhere leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on, and until [`LINGER`] after the last call, what comes of this study to `destination` was fetched.
    pub fn begin(&self, study: &StudyInstanceUid, destination: &AeTitle, ways: Vec<Way>) {
        let now = Instant::now();
        let mut studies = self.studies();
        studies.retain(|_, fetched| fetched.until > now);
        let fetched = Fetched { destination: destination.clone(), ways, until: now + LINGER };
        studies.insert(study.clone(), fetched);
    }

    /// How the rest of a study came, if what came in this way was fetched.
    pub fn like(&self, study: &StudyInstanceUid, origin: &Origin) -> Vec<Way> {
        if origin.from_partner || origin.addressed_to.is_some() {
            return Vec::new();
        }
        let studies = self.studies();
        let fetched = studies.get(study).filter(|fetched| {
            fetched.destination == origin.called_ae_title && fetched.until > Instant::now()
        });
        fetched.map(|fetched| fetched.ways.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::facts;

    #[tokio::test(start_paused = true)]
    async fn what_comes_to_our_own_title_while_its_study_is_fetched_is_like_the_rest_of_it() {
        let fetching = Fetching::default();
        let facts = facts(1);
        let way = Way {
            listener: "0.0.0.0:104".to_owned(),
            sender: "pacs".to_owned(),
            calling_ae_title: "PACS".parse().unwrap(),
            called_ae_title: "RI_EMERG".parse().unwrap(),
        };
        fetching.begin(&facts.study, &"GANTRY".parse().unwrap(), vec![way.clone()]);
        let like = |study: &str, change: &dyn Fn(&mut Origin)| {
            let mut origin = facts.origin.clone();
            change(&mut origin);
            fetching.like(&study.parse().unwrap(), &origin)
        };

        let study = facts.study.as_str();
        assert_eq!(like(study, &|_| {}), [way]);
        assert_eq!(like("2.25.9", &|_| {}), []);
        assert_eq!(like(study, &|origin| origin.from_partner = true), []);
        assert_eq!(like(study, &|origin| origin.called_ae_title = "CARDIAC".parse().unwrap()), []);
        tokio::time::advance(LINGER).await;
        assert_eq!(like(study, &|_| {}), []);
    }
}
