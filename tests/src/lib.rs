//! The harness of the promise tests: the real program, real peers, and what a test needs to tell whether a promise held.
//!
//! Everything runs on loopback, on ports that the kernel picks, in folders of its own, and is stopped when it is dropped;
//! whatever was running when a test fails prints the end of its log. Nothing sleeps and hopes: [`eventually`] polls to a
//! deadline and says what it waited for. A test fails by a panic, so the harness panics too, with a sentence.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

pub mod asker;
pub mod board;
pub mod ceph;
pub mod certificates;
pub mod dcmtk;
pub mod disk;
pub mod eventually;
pub mod facts;
pub mod gateway;
pub mod held;
pub mod http;
pub mod namespace;
pub mod network;
pub mod orthanc;
pub mod part10;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod python;
pub mod random;
pub mod raw;
pub mod relay;
pub mod scripted;
pub mod sender;
pub mod told;

pub use asker::Asker;
pub use certificates::{Certificates, Identity};
pub use dcmtk::{Dcmtk, Storescp};
pub use disk::Disk;
pub use eventually::{eventually, eventually_within};
pub use gateway::{Gateway, Setup};
pub use held::Held;
pub use namespace::Namespace;
pub use orthanc::Orthanc;
pub use part10::Part10;
pub use postgres::{BreakingLine, Postgres};
pub use python::python;
pub use raw::RawDicom;
pub use relay::Relay;
pub use scripted::ScriptedPartner;
pub use sender::Sender;
pub use told::{MailServer, MailTls, Receiver};

/// SHA-256 in hexadecimal, as the index prints digests.
pub fn digest(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    gantry_store::facts::Digest(digest.as_ref().try_into().expect("SHA-256 has 32 bytes"))
        .to_string()
}

/// The digest of what a partner gets that takes every encoding: the data set as it came, unless its length is odd, at
/// which partners abort; then the same with even values, in Explicit VR Little Endian.
pub fn digest_on_arrival(data_set: &[u8], transfer_syntax_uid: &str) -> String {
    if data_set.len().is_multiple_of(2) {
        return digest(data_set);
    }
    let to = dicom_dictionary_std::uids::EXPLICIT_VR_LITTLE_ENDIAN;
    converted_digest(data_set, transfer_syntax_uid, to)
}

/// The digest of a data set that is converted from one transfer syntax to another.
pub fn converted_digest(data_set: &[u8], from: &str, to: &str) -> String {
    let syntax = |uid: &str| uid.parse().expect("a UID");
    let converted =
        gantry_gateway::partner::transcode::convert(data_set, &syntax(from), &syntax(to));
    digest(&converted.expect("it can be converted"))
}

/// The digest of every data set of a study, by SOP Instance UID: what must be found wherever the study went.
pub fn digests(study: &sample_studies::Study) -> std::collections::BTreeMap<String, String> {
    study
        .instances
        .iter()
        .map(|instance| (instance.sop_instance_uid.clone(), digest(&instance.data_set)))
        .collect()
}

/// Takes out of an answer of the API whether studies were counted against their source, and when: that is not kept beside the
/// index, but found out anew.
pub fn forget_counts(said: &mut serde_json::Value) {
    use serde_json::Value;
    match said {
        Value::Object(object) => {
            object.remove("completeness");
            object.values_mut().for_each(forget_counts);
        }
        Value::Array(all) => all.iter_mut().for_each(forget_counts),
        _ => {}
    }
}

/// Says so, past the test runner's capture and to the summary of `tests/run`, when a machine does not allow a test.
pub fn skip(test: &str, why: &str) {
    use std::io::Write as _;
    let line = format!("SKIPPED {test}: {why}\n");
    // Written and not printed: what is printed is shown for failed tests only.
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Ok(summary) = std::env::var("GANTRY_SKIPPED") {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(summary);
        let _ = file.and_then(|mut file| file.write_all(line.as_bytes()));
    }
}
