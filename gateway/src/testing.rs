//! What the tests of several modules build on.

use std::path::Path;

use dicom_dictionary_std::tags;
use gantry_store::dicom::{Attributes, TransferSyntax};
use gantry_store::facts::{Digest, Facts, ObjectId, Origin, Priority, Purpose};
use jiff::Timestamp;

use crate::config::{
    Associations, Compress, Condition, Config, Fact, Fingerprint, HostPort, Node, Pace, Partner,
    PartnerTls, Pattern, Permission, Protect, Route,
};

/// A partner that may be sent to, at an address where nothing is.
pub(crate) fn partner(name: &str) -> Partner {
    Partner {
        name: name.to_owned(),
        display_name: name.to_owned(),
        ae_title: "PARTNER".parse().unwrap(),
        address: HostPort { host: "127.0.0.1".into(), port: 1 },
        tls: PartnerTls::Mutual,
        certificates: Vec::new(),
        certificates_until: None,
        token: None,
        associations: Associations::Fixed(2),
        pace: Pace::default(),
        compress: Compress::default(),
        may: [Permission::Receive].into(),
        move_to: Vec::new(),
        proof: crate::config::ProofMeans::Auto,
        recall: crate::config::RecallMeans::Phone,
        phone: None,
        seal_to: Vec::new(),
    }
}

/// A node with these partners (name, AE title, pins), and one route that sends everything to all of them.
pub(crate) fn config_with(partners: &[(&str, &str, &[Fingerprint])]) -> Config {
    let partner = |(name, title, pins): &(&str, &str, &[Fingerprint])| Partner {
        ae_title: title.parse().unwrap(),
        certificates: pins.to_vec(),
        ..partner(name)
    };
    Config {
        file: "gantry.toml".into(),
        node: Node {
            ae_title: "GANTRY".parse().unwrap(),
            organisation: "RXX".into(),
            data_dir: "data".into(),
        },
        listeners: Vec::new(),
        tls: None,
        web: None,
        dicomweb: None,
        intake: crate::config::Intake::default(),
        limits: crate::config::Limits::default(),
        object_store: crate::config::ObjectStore::default(),
        store_high_water: None,
        database: crate::config::Database::default(),
        delivery: crate::config::Delivery::default(),
        log: crate::config::Log::default(),
        sources: Vec::new(),
        partners: partners.iter().map(partner).collect(),
        retention: Vec::new(),
        scrub: crate::config::Scrub::default(),
        completeness: crate::config::Completeness::default(),
        alarm: crate::config::Alarm::default(),
        routes: vec![Route {
            name: "all".into(),
            when: vec![Condition { on: Fact::Listener, any_of: vec![Pattern::ignoring_case("*")] }],
            to: partners.iter().map(|(name, ..)| (*name).to_owned()).collect(),
            purpose: Purpose::DirectCare,
            priority: Priority::Routine,
            protect: Protect::AsReceived,
            at_intake: false,
        }],
        protections: std::collections::BTreeMap::new(),
    }
}

/// The same, with a data directory to write to.
pub(crate) fn config_in(folder: &Path, partners: &[(&str, &str, &[Fingerprint])]) -> Config {
    let mut config = config_with(partners);
    config.node.data_dir = folder.to_owned();
    config.intake.reserve = 0;
    config.intake.high_water = crate::config::HighWater::Percent(100);
    config.intake.emergency_reserve = 0;
    config
}

/// A CT image, the `number`th of its series.
pub(crate) fn facts(number: u64) -> Facts {
    let mut attributes = Attributes::default();
    attributes.insert(tags::MODALITY, b"CT".to_vec());
    attributes.insert(tags::PATIENT_NAME, b"SMITH^ANNA".to_vec());
    Facts {
        object: ObjectId::new(),
        received_at: Timestamp::now(),
        origin: Origin {
            listener: "127.0.0.1:11112".into(),
            sender: "pacs".into(),
            from_partner: false,
            calling_ae_title: "PACS".parse().unwrap(),
            called_ae_title: "GANTRY".parse().unwrap(),
            addressed_to: None,
            fetched_like: Vec::new(),
        },
        sop_class: dicom_dictionary_std::uids::CT_IMAGE_STORAGE.parse().unwrap(),
        sop_instance: format!("2.25.{number}").parse().unwrap(),
        study: "2.25.100".parse().unwrap(),
        series: "2.25.101".parse().unwrap(),
        transfer_syntax: TransferSyntax::explicit_vr_little_endian(),
        length: 10,
        digest: Digest([number as u8; 32]),
        pixel_data_offset: None,
        protected: None,
        attributes,
    }
}
