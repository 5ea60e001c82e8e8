//! Reports to senders what this node commits to keep, where the association that asked has ended: on one of our own, to the
//! sender's address, again until it is taken or given up. What is owed is in the index, so a restart loses none.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use gantry_store::dicom::TransferSyntax;
use gantry_store::facts::Priority;
use gantry_store::index::Owed;
use jiff::{SignedDuration, Timestamp};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::connect::{self, Callee};
use crate::association::services::storage_commitment::{self, Commitments, known};
use crate::association::status::Meaning;
use crate::config::Config;
use crate::outbox::schedule;
use crate::telemetry::chain;
use crate::telemetry::metrics::{BySender, Metrics};

/// How often somebody looks for what is due.
const LOOK: Duration = Duration::from_secs(1);
/// How long a database is left alone that is away.
const AWAY: Duration = Duration::from_secs(5);
/// The most reports that are looked at together.
const PAGE: u32 = 64;

/// Makes the reports that are due.
#[derive(Debug)]
pub struct Reporter {
    /// Where senders are.
    pub config: Arc<Config>,
    /// Judges.
    pub commitments: Arc<Commitments>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Said when the node stops.
    pub stop: CancellationToken,
}

impl Reporter {
    /// Reports until the node stops.
    pub async fn run(self) {
        let this = Arc::new(self);
        // One report of a sender at a time, and none waits for another sender.
        let mut busy: HashSet<String> = HashSet::new();
        let mut reporting: JoinSet<String> = JoinSet::new();
        loop {
            let due = this.commitments.index.reports_due(Timestamp::now(), PAGE).await;
            let pause = if due.is_ok() { LOOK } else { AWAY };
            let due = due.unwrap_or_else(|error| {
                tracing::error!(error = %chain(&error), "reports of storage commitment cannot be looked for");
                Vec::new()
            });
            for owed in due {
                if busy.insert(owed.request.sender.clone()) {
                    let this = this.clone();
                    reporting.spawn(async move {
                        this.settle(&owed).await;
                        owed.request.sender
                    });
                }
            }
            tokio::select! {
                () = this.stop.cancelled() => break,
                Some(ended) = reporting.join_next() => {
                    if let Ok(sender) = ended {
                        busy.remove(&sender);
                    }
                }
                () = sleep(pause) => {}
            }
        }
        reporting.shutdown().await;
    }

    /// Makes one report, or says when it is made again.
    async fn settle(&self, owed: &Owed) {
        let (sender, transaction) = (&owed.request.sender, &owed.request.transaction);
        let now = Timestamp::now();
        let patience = SignedDuration::try_from(self.config.delivery.report_for);
        let reported = match self.callee(owed) {
            Ok(callee) => self.report(owed, callee).await.map_err(|why| (why, false)),
            // There is nobody to call, and that does not change.
            Err(why) => Err((why, true)),
        };
        let too_late = patience.is_ok_and(|most| now.duration_since(owed.asked_at) > most);
        let written = match reported {
            Ok(()) => self.commitments.index.report_ended(owed.id).await,
            Err((why, for_good)) if for_good || too_late => {
                tracing::error!(sender, %transaction, why, tries = owed.tries, "report of storage commitment given up");
                let label = BySender { sender: sender.clone() };
                self.metrics.reports_given_up.get_or_create(&label).inc();
                self.commitments.index.report_ended(owed.id).await
            }
            Err((why, _)) => {
                tracing::warn!(sender, %transaction, why, tries = owed.tries, "sender did not take a report of storage commitment");
                let next = schedule::next_try(
                    &self.config.delivery,
                    Priority::Routine,
                    owed.tries + 1,
                    now,
                );
                self.commitments.index.report_later(owed.id, next).await
            }
        };
        if let Err(error) = written {
            tracing::error!(sender, error = %chain(&error), "what came of a report cannot be recorded; it is made again");
        }
    }

    async fn report(&self, owed: &Owed, callee: Callee<'_>) -> Result<(), String> {
        let verdict =
            self.commitments.judge(owed).await.map_err(|error| chain(&error).to_string())?;
        let service = known(storage_commitment::SOP_CLASS);
        let syntaxes = vec![
            TransferSyntax::explicit_vr_little_endian(),
            TransferSyntax::implicit_vr_little_endian(),
        ];
        let (contexts, patience) =
            (vec![(service, syntaxes)], self.config.delivery.connect_timeout);
        let provides = Some(known(storage_commitment::SOP_CLASS));
        let mut association = connect::call(&self.config, callee, contexts, provides, patience)
            .await
            .map_err(|why| why.to_string())?;
        let patience = self.config.limits.release_timeout;
        let context = association.context_of(storage_commitment::SOP_CLASS);
        let Some(context) = context.filter(|_| association.provides()) else {
            association.release(patience).await;
            return Err("it takes no reports of storage commitment from us".to_owned());
        };
        let (event_type, information) = storage_commitment::report(owed, &verdict);
        let request = storage_commitment::event_report(0, event_type);
        match association.event_report(context, request, &information).await {
            Ok(status) => {
                association.release(patience).await;
                match status.meaning() {
                    Meaning::Success | Meaning::Warning => Ok(()),
                    _ => Err(format!("it answered {status}")),
                }
            }
            Err(error) => {
                association.abort().await;
                Err(chain(&error).to_string())
            }
        }
    }

    fn callee<'a>(&'a self, owed: &'a Owed) -> Result<Callee<'a>, String> {
        let name = &owed.request.sender;
        if let Some(partner) = self.config.partner(name) {
            let callee = Callee::partner(&self.config, partner);
            return Ok(Callee { calling: &owed.request.called, ..callee });
        }
        let source = self.config.source(name).ok_or("it is not configured any more")?;
        let callee = Callee::source(&self.config, source)
            .ok_or("it has released the association, and has no address")?;
        Ok(Callee { calling: &owed.request.called, ..callee })
    }
}
