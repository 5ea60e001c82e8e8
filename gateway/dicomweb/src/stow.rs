//! What a store is answered (PS3.18 10.5.3, Annex I): which instances are held now, which are not and why.
//!
//! The same outcome is written by who serves STOW-RS and read by who sends by it, so a partner's answer is judged by the
//! rules that ours follows. Reasons are the status codes of C-STORE (PS3.4 Table B.2-1, PS3.7 Annex C), so that both ways
//! of sending an instance say the same of it.

use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;
use gantry_deidentify::data_set::{DataSet, Element};
use gantry_store::dicom::{SopClassUid, SopInstanceUid};
use thiserror::Error;

use crate::accept::Media;
use crate::json::Json;
use crate::model::{self, ModelError};
use crate::xml::Xml;

/// Other Failures Sequence (0008,119A): what was no instance that could be named.
const OTHER_FAILURES: Tag = Tag(0x0008, 0x119A);

/// An instance that is held.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Stored {
    /// Referenced SOP Class UID (0008,1150).
    pub class: SopClassUid,
    /// Referenced SOP Instance UID (0008,1155).
    pub instance: SopInstanceUid,
    /// Retrieve URL (0008,1190) of the instance.
    pub retrieve_url: Option<String>,
    /// Warning Reason (0008,1196), for instance B000H: attributes were coerced.
    pub warning: Option<u16>,
}

/// An instance that is not held.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Failed {
    /// Both UIDs, where they could be read. Without them the failure is told in Other Failures Sequence (0008,119A).
    pub of: Option<(SopClassUid, SopInstanceUid)>,
    /// Failure Reason (0008,1197), for instance A700H: out of resources.
    pub reason: u16,
}

/// What became of the instances of one request.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Outcome {
    /// Retrieve URL (0008,1190) of the study, where all belong to one.
    pub retrieve_url: Option<String>,
    /// Referenced SOP Sequence (0008,1199).
    pub stored: Vec<Stored>,
    /// Failed SOP Sequence (0008,1198) and Other Failures Sequence (0008,119A).
    pub failed: Vec<Failed>,
}

/// Status of HTTP (PS3.18 Table 10.5.3-1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Status {
    /// 200: every instance is held, and there is nothing to warn of.
    Ok,
    /// 202: some are held; the outcome says which failed, or what was changed.
    Accepted,
    /// 400: there was no instance in the request.
    BadRequest,
    /// 409: none is held.
    Conflict,
}

impl Status {
    /// Its number.
    pub fn code(self) -> u16 {
        match self {
            Self::Ok => 200,
            Self::Accepted => 202,
            Self::BadRequest => 400,
            Self::Conflict => 409,
        }
    }
}

/// Why an answer says nothing of an instance.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum BadOutcome {
    /// An item without UIDs, or with what are none.
    #[error("item {item} of sequence {sequence} does not name an instance")]
    NoInstance {
        /// Which sequence.
        sequence: Tag,
        /// Its item, from 1.
        item: usize,
    },
    /// An instance both held and not held, or told twice.
    #[error("item {item} of sequence {sequence} names an instance that was named before")]
    Twice {
        /// Which sequence.
        sequence: Tag,
        /// Its item, from 1.
        item: usize,
    },
}

impl Outcome {
    /// The status that goes with it.
    pub fn status(&self) -> Status {
        let warned = self.stored.iter().any(|stored| stored.warning.is_some());
        match (self.stored.is_empty(), self.failed.is_empty()) {
            (true, true) => Status::BadRequest,
            (true, false) => Status::Conflict,
            (false, true) if !warned => Status::Ok,
            (false, _) => Status::Accepted,
        }
    }

    /// The Store Instances Response Module (PS3.18 Table I.2-1).
    pub fn data_set(&self) -> DataSet {
        let mut set = DataSet::default();
        if let Some(url) = &self.retrieve_url {
            set.put(url_of(url));
        }
        let named = self.failed.iter().filter_map(|failed| {
            let (class, instance) = failed.of.as_ref()?;
            let mut item = reference(class, instance);
            item.put(reason(tags::FAILURE_REASON, failed.reason));
            Some(item)
        });
        let unnamed = self.failed.iter().filter(|failed| failed.of.is_none());
        let unnamed = unnamed.map(|failed| {
            let mut item = DataSet::default();
            item.put(reason(tags::FAILURE_REASON, failed.reason));
            item
        });
        let stored = self.stored.iter().map(|stored| {
            let mut item = reference(&stored.class, &stored.instance);
            if let Some(url) = &stored.retrieve_url {
                item.put(url_of(url));
            }
            if let Some(code) = stored.warning {
                item.put(reason(tags::WARNING_REASON, code));
            }
            item
        });
        let sequences: [(Tag, Vec<DataSet>); 3] = [
            (tags::FAILED_SOP_SEQUENCE, named.collect()),
            (tags::REFERENCED_SOP_SEQUENCE, stored.collect()),
            (OTHER_FAILURES, unnamed.collect()),
        ];
        for (tag, items) in sequences.into_iter().filter(|(_, items)| !items.is_empty()) {
            set.put(Element::sequence(tag, items));
        }
        set
    }

    /// The body of the answer, in XML if that was chosen and else in JSON.
    pub fn body(&self, media: Media) -> Result<Vec<u8>, ModelError> {
        // Nothing here is long enough for a URI of its own.
        match media {
            Media::DicomXml => model::tree::<Xml>(&self.data_set(), Vec::new(), u64::MAX, |_| None),
            _ => model::tree::<Json>(&self.data_set(), Vec::new(), u64::MAX, |_| None),
        }
    }

    /// Reads a partner's answer. What it says of no instance, or twice of one, is an error: nobody may conclude from such
    /// an answer that an instance is held.
    pub fn read(set: &DataSet) -> Result<Self, BadOutcome> {
        let mut outcome = Self { retrieve_url: set.text(tags::RETRIEVE_URL), ..Self::default() };
        let mut names = std::collections::HashSet::new();
        let sequence = tags::REFERENCED_SOP_SEQUENCE;
        for (item, set) in (1..).zip(set.items(sequence)) {
            let (class, instance) = named(set).ok_or(BadOutcome::NoInstance { sequence, item })?;
            if !names.insert(instance.clone()) {
                return Err(BadOutcome::Twice { sequence, item });
            }
            let retrieve_url = set.text(tags::RETRIEVE_URL);
            let warning = set.unsigned_short(tags::WARNING_REASON);
            outcome.stored.push(Stored { class, instance, retrieve_url, warning });
        }
        // Without a reason a failure is one all the same: processing failure (PS3.7 C.5.18).
        let reason = |set: &DataSet| set.unsigned_short(tags::FAILURE_REASON).unwrap_or(0x0110);
        let sequence = tags::FAILED_SOP_SEQUENCE;
        for (item, set) in (1..).zip(set.items(sequence)) {
            let (class, instance) = named(set).ok_or(BadOutcome::NoInstance { sequence, item })?;
            if !names.insert(instance.clone()) {
                return Err(BadOutcome::Twice { sequence, item });
            }
            outcome.failed.push(Failed { of: Some((class, instance)), reason: reason(set) });
        }
        let others = set.items(OTHER_FAILURES).iter();
        outcome.failed.extend(others.map(|set| Failed { of: None, reason: reason(set) }));
        Ok(outcome)
    }
}

fn named(set: &DataSet) -> Option<(SopClassUid, SopInstanceUid)> {
    let class = set.text(tags::REFERENCED_SOP_CLASS_UID)?.parse().ok()?;
    let instance = set.text(tags::REFERENCED_SOP_INSTANCE_UID)?.parse().ok()?;
    Some((class, instance))
}

fn reference(class: &SopClassUid, instance: &SopInstanceUid) -> DataSet {
    let mut item = DataSet::default();
    item.put(Element::new(tags::REFERENCED_SOP_CLASS_UID, VR::UI, class.as_str()));
    item.put(Element::new(tags::REFERENCED_SOP_INSTANCE_UID, VR::UI, instance.as_str()));
    item
}

fn reason(tag: Tag, code: u16) -> Element {
    Element::new(tag, VR::US, code.to_le_bytes())
}

fn url_of(url: &str) -> Element {
    Element::new(tags::RETRIEVE_URL, VR::UR, url)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::read::Limits;
    use crate::{json, xml};

    fn stored(number: u32, warning: Option<u16>) -> Stored {
        Stored {
            class: "1.2.840.10008.5.1.4.1.1.2".parse().unwrap(),
            instance: format!("1.2.{number}").parse().unwrap(),
            retrieve_url: Some(format!("https://node/studies/1/series/1/instances/1.2.{number}")),
            warning,
        }
    }

    fn failed(number: u32, reason: u16) -> Failed {
        let Stored { class, instance, .. } = stored(number, None);
        Failed { of: Some((class, instance)), reason }
    }

    fn outcome(stored: Vec<Stored>, failed: Vec<Failed>) -> Outcome {
        Outcome { retrieve_url: Some("https://node/studies/1".into()), stored, failed }
    }

    #[test]
    fn the_status_says_what_the_outcome_says() {
        let unnamed = Failed { of: None, reason: 0xC000 };
        let cases = [
            (vec![], vec![], 400),
            (vec![stored(1, None)], vec![], 200),
            (vec![stored(1, None), stored(2, Some(0xB000))], vec![], 202),
            (vec![stored(1, None)], vec![failed(2, 0xA700)], 202),
            (vec![stored(1, None)], vec![unnamed.clone()], 202),
            (vec![], vec![failed(2, 0xA700)], 409),
            (vec![], vec![unnamed], 409),
        ];
        for (stored, failed, code) in cases {
            let outcome = outcome(stored, failed);
            assert_eq!(outcome.status().code(), code, "{outcome:?}");
        }
    }

    #[test]
    fn it_is_written_as_the_standard_has_it() {
        let unnamed = Failed { of: None, reason: 0xC000 };
        let outcome = outcome(vec![stored(1, Some(0xB000))], vec![failed(2, 0xA700), unnamed]);
        let json = String::from_utf8(outcome.body(Media::DicomJson).unwrap()).unwrap();
        let expected = concat!(
            r#"{"00081190":{"vr":"UR","Value":["https://node/studies/1"]},"#,
            r#""00081198":{"vr":"SQ","Value":[{"00081150":{"vr":"UI","Value":["1.2.840.10008.5.1.4.1.1.2"]},"#,
            r#""00081155":{"vr":"UI","Value":["1.2.2"]},"00081197":{"vr":"US","Value":[42752]}}]},"#,
            r#""00081199":{"vr":"SQ","Value":[{"00081150":{"vr":"UI","Value":["1.2.840.10008.5.1.4.1.1.2"]},"#,
            r#""00081155":{"vr":"UI","Value":["1.2.1"]},"#,
            r#""00081190":{"vr":"UR","Value":["https://node/studies/1/series/1/instances/1.2.1"]},"#,
            r#""00081196":{"vr":"US","Value":[45056]}}]},"#,
            r#""0008119A":{"vr":"SQ","Value":[{"00081197":{"vr":"US","Value":[49152]}}]}}"#,
        );
        assert_eq!(json, expected);
        let xml = String::from_utf8(outcome.body(Media::DicomXml).unwrap()).unwrap();
        assert!(
            xml.contains(r#"keyword="FailureReason"><Value number="1">42752</Value>"#),
            "{xml}"
        );
    }

    #[test]
    fn an_answer_that_contradicts_itself_proves_nothing() {
        let twice = outcome(vec![stored(1, None)], vec![failed(1, 0xA700)]).data_set();
        let sequence = tags::FAILED_SOP_SEQUENCE;
        assert_eq!(Outcome::read(&twice), Err(BadOutcome::Twice { sequence, item: 1 }));

        let mut unnamed = outcome(vec![stored(1, None)], vec![]).data_set();
        unnamed.put(Element::sequence(tags::REFERENCED_SOP_SEQUENCE, vec![DataSet::default()]));
        let sequence = tags::REFERENCED_SOP_SEQUENCE;
        assert_eq!(Outcome::read(&unnamed), Err(BadOutcome::NoInstance { sequence, item: 1 }));

        let mut silent = DataSet::default();
        let Stored { class, instance, .. } = stored(1, None);
        silent
            .put(Element::sequence(tags::FAILED_SOP_SEQUENCE, vec![reference(&class, &instance)]));
        assert_eq!(Outcome::read(&silent).unwrap().failed, [failed(1, 0x0110)]);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            warnings in prop::collection::vec(prop::option::of(any::<u16>()), 0..5),
            reasons in prop::collection::vec(any::<u16>(), 0..5),
            unnamed in prop::collection::vec(any::<u16>(), 0..3),
        ) {
            let stored: Vec<_> = (0..).zip(warnings).map(|(number, warning)| stored(number, warning)).collect();
            let named = (100..).zip(reasons).map(|(number, reason)| failed(number, reason));
            let failed: Vec<_> = named.chain(unnamed.into_iter().map(|reason| Failed { of: None, reason })).collect();
            let outcome = outcome(stored, failed);
            let limits = Limits::default();

            let json = json::read_one(&outcome.body(Media::DicomJson).unwrap(), &limits).unwrap();
            let xml = xml::read(&outcome.body(Media::DicomXml).unwrap(), &limits).unwrap();

            prop_assert_eq!(Outcome::read(&json.data_set), Ok(outcome.clone()));
            prop_assert_eq!(Outcome::read(&xml.data_set), Ok(outcome));
        }
    }
}
