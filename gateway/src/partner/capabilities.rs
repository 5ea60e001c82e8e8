//! What partners were found to take: for each kind of object and encoding, whether an association was given it, and when.
//!
//! It is what people ask before they send; sending itself asks the partner anew each time, and believes nothing from here.
//! So it is a small file beside the index that any process may read, is written when something is new or a day old, and
//! forgets after [`MEMORY`]. A damaged or missing one is an empty one. Knows nothing of why a partner refuses.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::{fs, io};

use dicom_core::dictionary::UidDictionary as _;
use dicom_dictionary_std::StandardSopClassDictionary;
use dicom_encoding::transfer_syntax::TransferSyntaxIndex as _;
use dicom_transfer_syntax_registry::TransferSyntaxRegistry;
use gantry_store::dicom::{SopClassUid, TransferSyntax};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// For how long it is believed that a partner takes what it took, and refuses what it refused.
pub const MEMORY: SignedDuration = SignedDuration::from_hours(24 * 90);
/// How old what is known may be before it is written again.
const FRESH: SignedDuration = SignedDuration::from_hours(24);
const FILE: &str = "capabilities.json";

/// One kind of object in one encoding.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Capability {
    /// The kind of object.
    pub sop_class: String,
    /// The encoding.
    pub transfer_syntax: String,
    /// Whether an association was given it.
    pub accepted: bool,
    /// When that was last so.
    pub at: Timestamp,
}

impl Capability {
    /// What the standard calls the kind of object.
    pub fn kind(&self) -> String {
        kind(&self.sop_class)
    }

    /// What the standard calls the encoding, in short; its UID, if it does not.
    pub fn encoding(&self) -> String {
        let uid = self.transfer_syntax.as_str();
        TransferSyntaxRegistry.get(uid).map_or_else(
            || uid.to_owned(),
            |known| known.name().split([':', '(']).next().unwrap_or(uid).trim().to_owned(),
        )
    }
}

/// What the standard calls a kind of object; its UID, if it does not.
pub fn kind(sop_class: &str) -> String {
    StandardSopClassDictionary.by_uid(sop_class).map_or_else(
        || sop_class.to_owned(),
        |known| known.name.trim_end_matches(" Storage").to_owned(),
    )
}

/// What is in the file: by partner, in the order of kinds and encodings.
type Known = BTreeMap<String, Vec<Capability>>;

/// The file of a data directory.
#[derive(Debug)]
pub struct Capabilities {
    path: PathBuf,
    /// Held while it is written.
    writing: Mutex<()>,
}

impl Capabilities {
    /// The file of this data directory; it need not be there.
    pub fn of(data_dir: &Path) -> Self {
        Self { path: data_dir.join(FILE), writing: Mutex::default() }
    }

    /// What is known of a partner, without what is too old.
    pub fn known(&self, partner: &str, now: Timestamp) -> Vec<Capability> {
        let mut known = self.read().remove(partner).unwrap_or_default();
        known.retain(|capability| is_recent(capability, now));
        known
    }

    fn read(&self) -> Known {
        fs::read(&self.path)
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default()
    }

    /// Notes what an association was given, and what it was not. Blocks.
    pub fn note(
        &self,
        partner: &str,
        answers: &[(SopClassUid, TransferSyntax, bool)],
        now: Timestamp,
    ) -> io::Result<()> {
        let _alone = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        // Read anew, as another process may have written.
        let mut known = self.read();
        let of_partner = known.entry(partner.to_owned()).or_default();
        let mut changed = false;
        for (sop_class, transfer_syntax, accepted) in answers {
            let (sop_class, transfer_syntax) = (sop_class.as_str(), transfer_syntax.uid());
            let place = of_partner.binary_search_by(|known| {
                (known.sop_class.as_str(), known.transfer_syntax.as_str())
                    .cmp(&(sop_class, transfer_syntax))
            });
            let found = place.ok().and_then(|place| of_partner.get(place));
            let is_old = |known: &Capability| now.duration_since(known.at) > FRESH;
            if found.is_some_and(|known| known.accepted == *accepted && !is_old(known)) {
                continue;
            }
            changed = true;
            let capability = Capability {
                sop_class: sop_class.to_owned(),
                transfer_syntax: transfer_syntax.to_owned(),
                accepted: *accepted,
                at: now,
            };
            match place {
                Ok(place) => of_partner.splice(place..=place, [capability]).for_each(drop),
                Err(place) => of_partner.insert(place, capability),
            }
        }
        if !changed {
            return Ok(());
        }
        for of_partner in known.values_mut() {
            of_partner.retain(|capability| is_recent(capability, now));
        }
        known.retain(|_, of_partner| !of_partner.is_empty());
        let part = self.path.with_extension(format!("{}.part", std::process::id()));
        fs::write(&part, serde_json::to_vec_pretty(&known)?)?;
        fs::rename(&part, &self.path)
    }
}

fn is_recent(capability: &Capability, now: Timestamp) -> bool {
    now.duration_since(capability.at) <= MEMORY
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(class: &str, syntax: &str, accepted: bool) -> (SopClassUid, TransferSyntax, bool) {
        (class.parse().unwrap(), syntax.parse().unwrap(), accepted)
    }

    fn at(days: i64) -> Timestamp {
        Timestamp::from_second(days * 86_400).unwrap()
    }

    #[test]
    fn what_a_partner_said_last_is_known_until_it_is_old() {
        let folder = tempfile::tempdir().unwrap();
        let capabilities = Capabilities::of(folder.path());
        let known = |now| {
            let known = Capabilities::of(folder.path()).known("york", now);
            known
                .iter()
                .map(|known| {
                    format!("{} {} {}", known.sop_class, known.transfer_syntax, known.accepted)
                })
                .collect::<Vec<_>>()
        };
        assert!(known(at(0)).is_empty());

        let answers = [answer("1.2.3", "1.2.9", true), answer("1.2.3", "1.2.10", false)];
        capabilities.note("york", &answers, at(0)).unwrap();
        capabilities.note("leeds", &answers, at(0)).unwrap();
        capabilities.note("york", &[answer("1.2.3", "1.2.9", false)], at(50)).unwrap();

        assert_eq!(known(at(60)), ["1.2.3 1.2.10 false", "1.2.3 1.2.9 false"]);
        assert_eq!(known(at(100)), ["1.2.3 1.2.9 false"]);
        assert!(known(at(141)).is_empty());
    }

    #[test]
    fn nothing_is_written_for_what_is_known_already() {
        let folder = tempfile::tempdir().unwrap();
        let capabilities = Capabilities::of(folder.path());
        let file = folder.path().join(FILE);
        capabilities.note("york", &[answer("1.2.3", "1.2.9", true)], at(1)).unwrap();
        fs::remove_file(&file).unwrap();
        capabilities.note("york", &[answer("1.2.3", "1.2.9", true)], at(1)).unwrap();
        let first = fs::metadata(&file).unwrap().modified().unwrap();

        capabilities.note("york", &[answer("1.2.3", "1.2.9", true)], at(1)).unwrap();

        assert_eq!(fs::metadata(&file).unwrap().modified().unwrap(), first);
        capabilities.note("york", &[answer("1.2.3", "1.2.9", true)], at(3)).unwrap();
        assert_eq!(capabilities.known("york", at(3))[0].at, at(3));
    }

    #[test]
    fn kinds_and_encodings_have_the_names_of_the_standard() {
        let capability = |sop_class: &str, transfer_syntax: &str| Capability {
            sop_class: sop_class.to_owned(),
            transfer_syntax: transfer_syntax.to_owned(),
            accepted: true,
            at: at(0),
        };
        let known = capability("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.4.80");
        assert_eq!(known.kind(), "CT Image");
        assert!(known.encoding().starts_with("JPEG-LS"), "{}", known.encoding());
        let private = capability("1.2.3", "1.2.4");
        assert_eq!((private.kind(), private.encoding()), ("1.2.3".into(), "1.2.4".into()));
    }

    #[test]
    fn a_damaged_file_is_an_empty_one() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), "{\"york\": [").unwrap();
        let capabilities = Capabilities::of(folder.path());

        assert!(capabilities.known("york", at(0)).is_empty());
        capabilities.note("york", &[answer("1.2.3", "1.2.9", true)], at(0)).unwrap();
        assert_eq!(capabilities.known("york", at(0)).len(), 1);
    }
}
