//! What the node counts, for `/metrics` (OpenMetrics).
//!
//! Labels are configured names and fixed words, never anything that a peer wrote.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// By the sender's configured name.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct BySender {
    /// Source or partner.
    pub sender: String,
}

/// By sender and what it was told.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct ByStatus {
    /// Source or partner.
    pub sender: String,
    /// DIMSE status, four hexadecimal digits.
    pub status: String,
}

/// By partner.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct ByPartner {
    /// The partner's configured name.
    pub partner: String,
}

/// By partner and where deliveries stand.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct ByPartnerAndState {
    /// The partner's configured name.
    pub partner: String,
    /// Where they stand.
    pub state: DeliveryState,
}

/// Where deliveries stand.
#[derive(Clone, Copy, Debug, EncodeLabelValue, Eq, Hash, PartialEq)]
pub enum DeliveryState {
    /// Stored at the partner, by its word.
    Delivered,
    /// To be sent, being sent, or to be tried again.
    Waiting,
    /// A person must act.
    SetAside,
    /// Called off.
    Cancelled,
}

/// Why an association request was turned away.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct ByListener {
    /// The listener's address as configured.
    pub listener: String,
}

/// By source and what came of asking it.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct BySourceAndResult {
    /// The source's configured name.
    pub source: String,
    /// In a word.
    pub result: &'static str,
}

/// By what was found to be wrong.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct ByFinding {
    /// In a word.
    pub kind: &'static str,
}

/// By what an alarm is about.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct ByAlarm {
    /// In a word.
    pub kind: &'static str,
    /// The partner's configured name; empty where it is about the node itself.
    pub partner: String,
}

/// The node's figures.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Instances acknowledged.
    pub received: Family<BySender, Counter>,
    /// Bytes of data sets acknowledged.
    pub received_bytes: Family<BySender, Counter>,
    /// Instances refused.
    pub refused: Family<ByStatus, Counter>,
    /// Associations open.
    pub associations: Family<ByListener, Gauge>,
    /// Association requests turned away, connections from outside `allow` and failed handshakes included.
    pub rejected: Family<ByListener, Counter>,
    /// Instances sent and accepted.
    pub sent: Family<ByPartner, Counter>,
    /// Instances that were not sent again because the partner held them.
    pub found_there: Family<ByPartner, Counter>,
    /// Tries that failed.
    pub failed_tries: Family<ByPartner, Counter>,
    /// Reports of storage commitment that senders did not take, and that are made no more.
    pub reports_given_up: Family<BySender, Counter>,
    /// Studies counted against their source.
    pub source_counts: Family<BySourceAndResult, Counter>,
    /// Images that sources were asked to send here, by what became of them.
    pub fetched: Family<BySourceAndResult, Counter>,
    /// Studies of which the source has more than is here; read from the index when asked.
    pub incomplete_studies: Gauge,
    /// Transfers of these.
    pub incomplete_transfers: Gauge,
    /// Deliveries by where they stand; read from the index when asked.
    pub deliveries: Family<ByPartnerAndState, Gauge>,
    /// Instances in the index.
    pub instances: Gauge,
    /// Instances in the spool that are not yet in the object store.
    pub spooled: Gauge,
    /// Bytes free for the spool, beyond the reserve.
    pub spool_room: Gauge<f64, AtomicU64>,
    /// Bytes up to the high-water mark of the object store.
    pub store_room: Gauge<f64, AtomicU64>,
    /// Objects that the scrub read and found whole.
    pub scrubbed: Counter,
    /// Bytes of their data sets.
    pub scrubbed_bytes: Counter,
    /// What the scrub found and a person must see to.
    pub scrub_unresolved: Family<ByFinding, Gauge>,
    /// When the scrub had last seen everything, in seconds since 1970.
    pub scrub_ended: Gauge,
    /// Alarms that last.
    alarm: Family<ByAlarm, Gauge>,
    /// Those that were ever shown: one that has ended is shown as 0.
    alarms_shown: Mutex<HashSet<ByAlarm>>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("gantry"),
            received: Family::default(),
            received_bytes: Family::default(),
            refused: Family::default(),
            associations: Family::default(),
            rejected: Family::default(),
            sent: Family::default(),
            found_there: Family::default(),
            failed_tries: Family::default(),
            reports_given_up: Family::default(),
            source_counts: Family::default(),
            fetched: Family::default(),
            incomplete_studies: Gauge::default(),
            incomplete_transfers: Gauge::default(),
            deliveries: Family::default(),
            instances: Gauge::default(),
            spooled: Gauge::default(),
            spool_room: Gauge::default(),
            store_room: Gauge::default(),
            scrubbed: Counter::default(),
            scrubbed_bytes: Counter::default(),
            scrub_unresolved: Family::default(),
            scrub_ended: Gauge::default(),
            alarm: Family::default(),
            alarms_shown: Mutex::default(),
        };
        let r = &mut metrics.registry;
        r.register("instances_received", "Instances acknowledged", metrics.received.clone());
        r.register(
            "received_bytes",
            "Bytes of data sets acknowledged",
            metrics.received_bytes.clone(),
        );
        r.register(
            "instances_refused",
            "Instances refused, by what the sender was told",
            metrics.refused.clone(),
        );
        r.register("associations", "Associations open", metrics.associations.clone());
        r.register(
            "associations_rejected",
            "Connections and association requests turned away",
            metrics.rejected.clone(),
        );
        r.register("instances_sent", "Instances that a partner accepted", metrics.sent.clone());
        r.register(
            "instances_found_at_partner",
            "Instances not sent again because the partner held them",
            metrics.found_there.clone(),
        );
        r.register("send_failures", "Tries to send that failed", metrics.failed_tries.clone());
        r.register(
            "commitment_reports_given_up",
            "Reports of storage commitment that a sender did not take in time",
            metrics.reports_given_up.clone(),
        );
        metrics.register_completeness();
        let r = &mut metrics.registry;
        r.register("deliveries", "Deliveries by where they stand", metrics.deliveries.clone());
        r.register("instances", "Instances in the index", metrics.instances.clone());
        r.register(
            "instances_spooled",
            "Instances not yet in the object store",
            metrics.spooled.clone(),
        );
        r.register(
            "spool_room_bytes",
            "Bytes free for the spool, beyond the reserve",
            metrics.spool_room.clone(),
        );
        r.register(
            "object_store_room_bytes",
            "Bytes up to the high-water mark of the object store; 0 above it, or without a mark",
            metrics.store_room.clone(),
        );
        r.register(
            "scrub_objects_verified",
            "Objects that the scrub read and found whole",
            metrics.scrubbed.clone(),
        );
        r.register(
            "scrub_verified_bytes",
            "Bytes of data sets that the scrub read and found whole",
            metrics.scrubbed_bytes.clone(),
        );
        r.register(
            "scrub_unresolved",
            "What the scrub found and a person must see to",
            metrics.scrub_unresolved.clone(),
        );
        r.register(
            "scrub_last_end_seconds",
            "When the scrub had last seen everything, in seconds since 1970",
            metrics.scrub_ended.clone(),
        );
        r.register("alarm", "Alarms that last", metrics.alarm.clone());
        metrics
    }
}

impl Metrics {
    fn register_completeness(&mut self) {
        let r = &mut self.registry;
        r.register(
            "source_counts",
            "Studies counted against their source, by what came of it",
            self.source_counts.clone(),
        );
        r.register(
            "images_fetched",
            "Images that a source was asked to send here, by what became of them",
            self.fetched.clone(),
        );
        r.register(
            "studies_incomplete",
            "Studies of which the source has more than is here",
            self.incomplete_studies.clone(),
        );
        r.register(
            "transfers_incomplete",
            "Transfers of studies of which the source has more than is here",
            self.incomplete_transfers.clone(),
        );
    }

    /// Shows how many alarms of each kind last, and no others.
    pub fn show_alarms(&self, counts: &HashMap<ByAlarm, i64>) {
        let mut shown = self.alarms_shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.extend(counts.keys().cloned());
        for label in shown.iter() {
            let count = counts.get(label).copied().unwrap_or_default();
            self.alarm.get_or_create(label).set(count);
        }
    }

    /// All figures as text, in the form that Prometheus reads.
    pub fn print(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
