//! The outbox: every delivery is sent, tried again or set aside, and what became of it is on record.
//!
//! Each partner has workers of its own, so none waits for another's. A worker claims a few deliveries under a lease, most
//! urgent first, sends them on one association and hands what came of each to the `recorder`, which writes them in
//! batches; until that is written a delivery does not count as made, and after a crash it is made again. `schedule` says
//! when a failed one is due; `team` is what a partner's workers know together.

pub mod breadth;
pub mod clock;
pub mod recorder;
pub mod schedule;
pub mod team;
pub mod worker;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gantry_store::facts::Priority;
use tokio::sync::{Notify, watch};

use crate::intake::drain::Wake;

/// Wakes workers, and tells pages that something has changed.
#[derive(Debug)]
pub struct Bell {
    partners: HashMap<String, Arc<Call>>,
    changes: watch::Sender<u64>,
}

/// What one partner's workers wait on.
#[derive(Debug, Default)]
pub struct Call {
    work: Notify,
    at_once: AtomicBool,
    emergency: AtomicBool,
    emergencies: watch::Sender<u64>,
}

impl Call {
    /// Waits until somebody rings.
    pub async fn rung(&self) {
        self.work.notified().await;
    }

    /// Whether a person wants the partner to be tried now, however it went before. Asking forgets it.
    pub fn take_at_once(&self) -> bool {
        self.at_once.swap(false, Ordering::AcqRel)
    }

    /// Whether an emergency has come since this was last asked.
    pub fn take_emergency(&self) -> bool {
        self.emergency.swap(false, Ordering::AcqRel)
    }

    /// A counter that goes up with every emergency that comes.
    pub fn emergencies(&self) -> watch::Receiver<u64> {
        self.emergencies.subscribe()
    }

    fn ring(&self) {
        // Those who wait now, and the next one who looks: a worker that is about to wait must not miss it.
        self.work.notify_waiters();
        self.work.notify_one();
    }
}

impl Bell {
    /// A bell for these partners.
    pub fn new<'a>(partners: impl Iterator<Item = &'a str>) -> Self {
        Self {
            partners: partners.map(|name| (name.to_owned(), Arc::default())).collect(),
            changes: watch::Sender::new(0),
        }
    }

    /// What a partner's workers wait on.
    pub fn of(&self, partner: &str) -> Arc<Call> {
        self.partners.get(partner).cloned().unwrap_or_default()
    }

    /// A counter that goes up whenever something has changed that people watch.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

impl Wake for Bell {
    fn work_for(&self, partner: &str, priority: Priority) {
        if let Some(call) = self.partners.get(partner) {
            if priority == Priority::Emergency {
                call.emergency.store(true, Ordering::Release);
                call.emergencies.send_modify(|count| *count += 1);
            }
            call.ring();
        }
    }

    fn try_now(&self, partner: &str) {
        if let Some(call) = self.partners.get(partner) {
            call.at_once.store(true, Ordering::Release);
            call.ring();
        }
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }
}
