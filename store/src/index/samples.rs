//! Arrivals for tests.

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use jiff::Timestamp;
use tempfile::TempDir;

use crate::dicom::{Attributes, TransferSyntax};
use crate::facts::{Digest, Facts, ObjectId, Origin, Priority, Purpose};

use super::{Arrival, DeliveryId, Event, Failure, FailureKind, Index, Receipt, Routed, TransferId};

/// An index in a directory that goes with it.
pub(super) async fn index() -> (Index, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (Index::open(&dir.path().join("index.sqlite")).await.unwrap(), dir)
}

/// So many seconds after the tests' beginning of time.
pub(super) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

/// An instance of a study, from this organisation's PACS, routed nowhere.
pub(super) fn ct(study: u32, number: u32) -> Arrival {
    let mut attributes = Attributes::default();
    for (tag, text) in [
        (tags::PATIENT_NAME, "SMITH^ANNA"),
        (tags::PATIENT_ID, "943 476 5919"),
        (tags::MODALITY, "CT"),
        (tags::ACCESSION_NUMBER, "A1"),
        (tags::INSTANCE_NUMBER, &number.to_string()),
    ] {
        attributes.insert(tag, text.as_bytes().to_vec());
    }
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&(u64::from(study) << 32 | u64::from(number)).to_le_bytes());
    Arrival {
        facts: Facts {
            object: ObjectId::new(),
            received_at: at(i64::from(number)),
            origin: Origin {
                listener: "0.0.0.0:11112".to_owned(),
                sender: "pacs".to_owned(),
                from_partner: false,
                calling_ae_title: "PACS".parse().unwrap(),
                called_ae_title: "GANTRY".parse().unwrap(),
                addressed_to: None,
            },
            sop_class: "1.2.840.10008.5.1.4.1.1.2".parse().unwrap(),
            sop_instance: format!("1.2.{study}.9.{number}").parse().unwrap(),
            study: format!("1.2.{study}").parse().unwrap(),
            series: format!("1.2.{study}.9").parse().unwrap(),
            transfer_syntax: TransferSyntax::explicit_vr_little_endian(),
            length: 524_288,
            digest: Digest(bytes),
            pixel_data_offset: None,
            attributes,
        },
        routed: Vec::new(),
    }
}

impl Arrival {
    /// Routed to a partner, too.
    pub(super) fn to(mut self, partner: &str, priority: Priority) -> Self {
        self.routed.push(Routed {
            partner: partner.to_owned(),
            route: format!("{priority} to {partner}"),
            purpose: if priority == Priority::Emergency {
                Purpose::EmergencyTransfer
            } else {
                Purpose::DirectCare
            },
            priority,
        });
        self
    }

    /// The same bytes in another association.
    pub(super) fn again(mut self) -> Self {
        self.facts.object = ObjectId::new();
        self
    }

    /// Other bytes under the same UIDs.
    pub(super) fn altered(mut self, byte: u8) -> Self {
        self.facts.digest.0[31] = byte;
        self.again()
    }

    /// From a partner instead.
    pub(super) fn sent_by_partner(mut self, name: &str) -> Self {
        name.clone_into(&mut self.facts.origin.sender);
        self.facts.origin.from_partner = true;
        self
    }

    /// With another value.
    pub(super) fn with(mut self, tag: Tag, value: &str) -> Self {
        self.facts.attributes.insert(tag, value.as_bytes().to_vec());
        self
    }
}

/// Accepted by the partner.
pub(super) fn accepted(second: i64) -> Event {
    Event::Accept(Receipt {
        status: 0,
        transfer_syntax: TransferSyntax::explicit_vr_little_endian(),
        digest: Digest([7; 32]),
        at: at(second),
    })
}

/// To be tried again.
pub(super) fn deferred(second: i64) -> Event {
    Event::Defer { until: at(second), why: why(FailureKind::Unreachable) }
}

/// Set aside.
pub(super) fn refused() -> Event {
    Event::Reject { why: why(FailureKind::Refused) }
}

pub(super) fn why(kind: FailureKind) -> Failure {
    Failure { kind, status: None, text: format!("it was {kind}") }
}

/// Records arrivals that all belong to one transfer, which it names.
pub(super) async fn transfer(index: &Index, arrivals: &[Arrival]) -> TransferId {
    index.record(arrivals).await.unwrap()[0].transfers[0]
}

/// Claims for a minute, as `node`.
pub(super) async fn claim(
    index: &Index,
    partner: &str,
    limit: u32,
    second: i64,
) -> Vec<DeliveryId> {
    let lease = std::time::Duration::from_mins(1);
    let claims = index.claim(partner, "node", limit, lease, at(second)).await.unwrap();
    claims.into_iter().map(|claim| claim.delivery).collect()
}
