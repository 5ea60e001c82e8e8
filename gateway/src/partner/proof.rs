//! Proof that a partner holds what it accepted: asked for when all of a transfer was sent, and again until it is had.
//!
//! What a partner offers at negotiation decides: storage commitment first (PS3.4 Annex J), whose report may come on the same
//! association, on a later one that the partner opens, or after a restart; else a query for the images of each series
//! (PS3.4 Annex C, Study Root); where that is refused, the counts. A count proves something only if it is the same. What the
//! partner says that it does not have is sent again; of a query that is believed when it says so twice, as a partner may list
//! what it has just taken a little later. What cannot be proven stays sent, and says why.
//!
//! One task looks for what is due. Each partner is asked by a task of its own, so none waits for another.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use dicom_dictionary_std::tags;
use gantry_store::dicom::{
    SeriesInstanceUid, SopInstanceUid, StudyInstanceUid, TransferSyntax, Uid,
};
use gantry_store::facts::Priority;
use gantry_store::index::{
    AskedFor, DeliveryId, Failure, Index, IndexError, ProofWanted, ProvenBy, Reference, Unproven,
};
use jiff::{SignedDuration, Timestamp};
use thiserror::Error;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::connect::{self, Association};
use crate::association::data_set::{self, DataSet};
use crate::association::dimse::NActionRq;
use crate::association::query::{self, FIND, Listed};
use crate::association::requestor::{Found, RequestError};
use crate::association::services::storage_commitment::{self, Commitments, known};
use crate::association::status::Status;
use crate::config::{Config, Partner, ProofMeans};
use crate::outbox::schedule;
use crate::protect::Protection;
use crate::telemetry::chain;

/// How often somebody looks for what is due.
const LOOK: Duration = Duration::from_secs(1);
/// How long a database is left alone that is away.
const AWAY: Duration = Duration::from_secs(5);
/// Instances of one transaction. Some archives take no more.
const TRANSACTION: usize = 500;
/// How long a report is waited for on the association that asked for it.
const REPORT: Duration = Duration::from_secs(10);
/// After so many requests without a report the partner is queried, if it may be: it cannot reach this node, perhaps.
const UNREPORTED: u32 = 3;
/// The most images of one series, and the most series of one study, that a query may list.
const LISTED: usize = 50_000;
/// For how long a partner is asked.
const ASKED: SignedDuration = SignedDuration::from_hours(24 * 7);

/// Why a partner could not be asked to the end.
#[derive(Debug, Error)]
enum ProofError {
    #[error("the association broke off")]
    Association(#[from] RequestError),
    #[error("the index cannot be used")]
    Index(#[from] IndexError),
}

/// Looks for what is to be proven.
#[derive(Debug)]
pub struct Prover {
    /// Who partners are.
    pub config: Arc<Config>,
    /// Takes reports.
    pub commitments: Arc<Commitments>,
    /// Said when the node stops.
    pub stop: CancellationToken,
}

impl Prover {
    /// Asks until the node stops.
    pub async fn run(self) {
        let this = Arc::new(self);
        let mut asking: JoinSet<(String, bool)> = JoinSet::new();
        let mut busy: HashSet<String> = HashSet::new();
        // Partners that could not be had: how often in a row, and until when they are left alone.
        let mut absent: HashMap<String, (u32, Timestamp)> = HashMap::new();
        loop {
            let now = Timestamp::now();
            let due = this.index().partners_to_prove(now).await;
            let pause = if due.is_ok() { LOOK } else { AWAY };
            let due = due.unwrap_or_else(|error| {
                tracing::error!(error = %chain(&error), "what is to be proven cannot be looked for");
                Vec::new()
            });
            for name in due {
                let alone = absent.get(&name).is_some_and(|(_, until)| *until > now);
                if alone || this.config.partner(&name).is_none() || !busy.insert(name.clone()) {
                    continue;
                }
                let this = this.clone();
                asking.spawn(async move {
                    let answered = this.ask_partner(&name).await;
                    (name, answered)
                });
            }
            tokio::select! {
                () = this.stop.cancelled() => break,
                Some(ended) = asking.join_next() => {
                    let Ok((name, answered)) = ended else { continue };
                    busy.remove(&name);
                    if answered {
                        absent.remove(&name);
                    } else {
                        let (failures, until) = absent.entry(name).or_default();
                        *failures += 1;
                        *until = this.next_try(Priority::Routine, *failures);
                    }
                }
                () = sleep(pause) => {}
            }
        }
        // What was asked is written down, and asked again after a restart.
        asking.shutdown().await;
    }

    fn index(&self) -> &Index {
        &self.commitments.index
    }

    fn next_try(&self, priority: Priority, failures: u32) -> Timestamp {
        schedule::next_try(&self.config.delivery, priority, failures, Timestamp::now())
    }

    /// Asks a partner about everything that is due. False if it could not be had.
    async fn ask_partner(&self, name: &str) -> bool {
        let Some(partner) = self.config.partner(name) else { return true };
        let mut association = None;
        let answered = match self.ask_all(partner, &mut association).await {
            Ok(answered) => answered,
            Err(error) => {
                tracing::warn!(partner = name, error = %chain(&error), "partner could not be asked for proof");
                if let Some(broken) = association.take() {
                    Association::abort(broken).await;
                }
                false
            }
        };
        if let Some(association) = association {
            association.release(self.config.limits.release_timeout).await;
        }
        answered
    }

    async fn ask_all(
        &self,
        partner: &Partner,
        association: &mut Option<Association>,
    ) -> Result<bool, ProofError> {
        loop {
            let now = Timestamp::now();
            let again = |priority, tries: u32| self.next_try(priority, tries + 1);
            let Some(wanted) = self.index().take_proof(&partner.name, now, again).await? else {
                return Ok(true);
            };
            if wanted.unproven.is_empty() {
                continue;
            }
            let too_old = now.duration_since(wanted.all_sent_at) > ASKED;
            let why = match partner.proof {
                ProofMeans::None => {
                    Some("this gateway is configured not to ask for proof (proof = \"none\")")
                }
                _ if too_old => Some("it was asked for a week"),
                _ => None,
            };
            if let Some(why) = why {
                self.not_proven(&wanted, why, true).await?;
                continue;
            }
            let open = match association {
                Some(open) => open,
                None => match self.open(partner).await {
                    Ok(open) => association.insert(open),
                    Err(why) => {
                        let why = format!("it could not be asked: {why}");
                        self.not_proven(&wanted, &why, false).await?;
                        return Ok(false);
                    }
                },
            };
            if let Err(error) = self.ask(partner, open, &wanted).await {
                let why = format!("it could not be asked to the end: {}", chain(&error));
                self.not_proven(&wanted, &why, false).await?;
                return Err(error);
            }
        }
    }

    async fn not_proven(
        &self,
        wanted: &ProofWanted,
        why: &str,
        for_good: bool,
    ) -> Result<(), IndexError> {
        self.index().not_proven(wanted.transfer, why, for_good).await?;
        self.commitments.wake.changed();
        Ok(())
    }

    async fn open(&self, partner: &Partner) -> Result<Association, Failure> {
        let syntaxes = vec![
            TransferSyntax::explicit_vr_little_endian(),
            TransferSyntax::implicit_vr_little_endian(),
        ];
        let services = match partner.proof {
            ProofMeans::StorageCommitment => vec![storage_commitment::SOP_CLASS],
            ProofMeans::Query => vec![FIND],
            ProofMeans::Auto | ProofMeans::None => vec![storage_commitment::SOP_CLASS, FIND],
        };
        let contexts = services.into_iter().map(|uid| (known(uid), syntaxes.clone())).collect();
        let patience = self.config.delivery.connect_timeout;
        connect::connect(&self.config, partner, contexts, patience).await
    }

    /// The SOP Instance UID by which the partner knows what it was sent.
    fn known_as(&self, study: &StudyInstanceUid, one: &Unproven) -> SopInstanceUid {
        let protection = one.protection.as_ref().and_then(|name| self.config.protections.get(name));
        let own = &one.sop_instance;
        known_as(protection, study, |of, study| of.sop_instance(study, own), own)
    }

    /// Asks about one transfer, by the best means that the partner offers.
    async fn ask(
        &self,
        partner: &Partner,
        association: &mut Association,
        wanted: &ProofWanted,
    ) -> Result<(), ProofError> {
        let commitment = association.context_of(storage_commitment::SOP_CLASS);
        let query = association.context_of(FIND);
        match (commitment, query) {
            (Some(context), query) if query.is_none() || wanted.tries < UNREPORTED => {
                let asked = self.commit(partner, association, context, wanted).await?;
                match (asked, query) {
                    (Ok(()), _) => Ok(()),
                    (Err(_), Some(query)) => self.query(partner, association, query, wanted).await,
                    (Err(status), None) => {
                        let why = format!("it refused to commit to keep the images: {status}");
                        Ok(self.not_proven(wanted, &why, false).await?)
                    }
                }
            }
            (_, Some(query)) => self.query(partner, association, query, wanted).await,
            (_, None) => {
                let why = match partner.proof {
                    ProofMeans::StorageCommitment => "it offers no storage commitment",
                    ProofMeans::Query => "it offers no query",
                    ProofMeans::Auto | ProofMeans::None => {
                        "it offers no storage commitment and no query"
                    }
                };
                Ok(self.not_proven(wanted, why, true).await?)
            }
        }
    }

    /// Asks it to commit, and waits a little for its reports.
    async fn commit(
        &self,
        partner: &Partner,
        association: &mut Association,
        context: u8,
        wanted: &ProofWanted,
    ) -> Result<Result<(), Status>, ProofError> {
        let mut open: BTreeSet<String> = BTreeSet::new();
        for part in wanted.unproven.chunks(TRANSACTION) {
            let transaction = transaction_uid();
            let deliveries: Vec<_> = part
                .iter()
                .map(|one| AskedFor {
                    delivery: one.delivery,
                    asked_as: one.protection.is_some().then(|| self.known_as(&wanted.study, one)),
                })
                .collect();
            let now = Timestamp::now();
            self.index().open_commitment(&transaction, &partner.name, &deliveries, now).await?;
            let request = NActionRq {
                message_id: 0,
                sop_class: known(storage_commitment::SOP_CLASS),
                sop_instance: known(storage_commitment::SOP_INSTANCE),
                action_type: storage_commitment::REQUEST,
            };
            let reference = |one: &Unproven| Reference {
                sop_class: one.sop_class.clone(),
                sop_instance: self.known_as(&wanted.study, one),
            };
            let references: Vec<_> = part.iter().map(reference).collect();
            let information = storage_commitment::request(transaction.as_str(), &references);
            let status = association.action(context, request, &information).await?;
            if status != Status::SUCCESS {
                return Ok(Err(status));
            }
            open.insert(transaction.as_str().to_owned());
        }
        self.not_proven(
            wanted,
            "it was asked to commit to keep the images, and has not reported yet",
            false,
        )
        .await?;
        let until = Instant::now() + REPORT;
        while !open.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            let Some(report) = association.reported(left).await? else { break };
            let status = self.commitments.believe(&partner.name, &report.information).await;
            if let Some(report) = storage_commitment::report_of(&report.information) {
                open.remove(report.transaction.as_str());
            }
            association.answer(&report, status).await?;
        }
        Ok(Ok(()))
    }

    /// Asks it which images it has.
    async fn query(
        &self,
        partner: &Partner,
        association: &mut Association,
        context: u8,
        wanted: &ProofWanted,
    ) -> Result<(), ProofError> {
        let mut listed: BTreeSet<SopInstanceUid> = BTreeSet::new();
        // A transfer may hold what left in several ways; each is known there by UIDs of its own.
        let ways: BTreeSet<Option<&String>> =
            wanted.unproven.iter().map(|one| one.protection.as_ref()).collect();
        for way in ways {
            let protection = way.and_then(|name| self.config.protections.get(name));
            let study = known_as(protection, &wanted.study, Protection::study, &wanted.study);
            for series in wanted.delivered.keys() {
                let series = known_as(
                    protection,
                    &wanted.study,
                    |of, study| of.series(study, series),
                    series,
                );
                match query::images(association, context, &study, &series, LISTED).await? {
                    Listed::All(images) => listed.extend(images),
                    Listed::TooMany | Listed::Refused(_) => {
                        return self.count(partner, association, context, wanted).await;
                    }
                }
            }
        }
        let (held, missing): (Vec<&Unproven>, Vec<_>) = wanted
            .unproven
            .iter()
            .partition(|one| listed.contains(&self.known_as(&wanted.study, one)));
        self.settle(partner, wanted, &held, &missing, ProvenBy::ImageQuery).await
    }

    /// The protection under which a transfer left: of several, that of the first, as counts cannot tell them apart.
    fn only_protection(&self, wanted: &ProofWanted) -> Option<&Arc<Protection>> {
        let name = wanted.unproven.first()?.protection.as_ref()?;
        self.config.protections.get(name)
    }

    /// Asks it how many images it has of each series.
    async fn count(
        &self,
        partner: &Partner,
        association: &mut Association,
        context: u8,
        wanted: &ProofWanted,
    ) -> Result<(), ProofError> {
        let protection = self.only_protection(wanted);
        let study = known_as(protection, &wanted.study, Protection::study, &wanted.study);
        let found = match query::series(association, context, &study, LISTED).await? {
            Listed::All(found) => found,
            Listed::TooMany => {
                let why = "it lists more series than a study can have";
                return Ok(self.not_proven(wanted, why, false).await?);
            }
            Listed::Refused(status) => {
                let why = format!("it refused a query: {status}");
                return Ok(self.not_proven(wanted, &why, false).await?);
            }
        };
        let counts: HashMap<SeriesInstanceUid, Option<u64>> =
            found.into_iter().map(|series| (series.uid, series.images)).collect();
        let (mut held, mut missing, mut unclear) = (Vec::new(), Vec::new(), false);
        for one in &wanted.unproven {
            let sent = wanted.delivered.get(&one.series).copied().unwrap_or_default();
            let series = &one.series;
            let series =
                known_as(protection, &wanted.study, |of, study| of.series(study, series), series);
            match counts.get(&series) {
                Some(Some(count)) if *count == sent => held.push(one),
                Some(Some(count)) if *count < sent => missing.push(one),
                None => missing.push(one),
                // More than was sent proves nothing about what was; and not every archive counts.
                Some(_) => unclear = true,
            }
        }
        if unclear && missing.is_empty() {
            if self.counts_of_study_agree(association, context, wanted).await? {
                held = wanted.unproven.iter().collect();
            } else {
                let why =
                    "it refuses queries for images, and its counts do not agree with what was sent";
                self.not_proven(wanted, why, false).await?;
            }
        }
        self.settle(partner, wanted, &held, &missing, ProvenBy::CountQuery).await
    }

    /// Whether it has as many series and images of the study as were sent.
    async fn counts_of_study_agree(
        &self,
        association: &mut Association,
        context: u8,
        wanted: &ProofWanted,
    ) -> Result<bool, ProofError> {
        let protection = self.only_protection(wanted);
        let study = known_as(protection, &wanted.study, Protection::study, &wanted.study);
        let identifier = DataSet::default()
            .with(tags::QUERY_RETRIEVE_LEVEL, "STUDY")
            .with(tags::STUDY_INSTANCE_UID, study.as_str())
            .with(tags::NUMBER_OF_STUDY_RELATED_SERIES, "")
            .with(tags::NUMBER_OF_STUDY_RELATED_INSTANCES, "");
        let Found::All(found) = association.find(context, &known(FIND), &identifier, 2).await?
        else {
            return Ok(false);
        };
        let [study] = found.as_slice() else { return Ok(false) };
        let count = |tag| data_set::integer(study.elements(), tag);
        let series = wanted.delivered.len() as u64;
        let images = wanted.delivered.values().sum::<u64>();
        Ok(count(tags::NUMBER_OF_STUDY_RELATED_SERIES) == Some(series)
            && count(tags::NUMBER_OF_STUDY_RELATED_INSTANCES) == Some(images))
    }

    /// Writes what a query said.
    async fn settle(
        &self,
        partner: &Partner,
        wanted: &ProofWanted,
        held: &[&Unproven],
        missing: &[&Unproven],
        by: ProvenBy,
    ) -> Result<(), ProofError> {
        let names =
            |all: &[&Unproven]| all.iter().map(|one| one.delivery).collect::<Vec<DeliveryId>>();
        let now = Timestamp::now();
        self.index().confirm(&names(held), by, now).await?;
        if !missing.is_empty() && wanted.tries == 0 {
            let why = format!("it does not list {} of the images yet", missing.len());
            self.not_proven(wanted, &why, false).await?;
        } else if !missing.is_empty() {
            let why = "the partner accepted it and does not list it";
            let lost = self.index().lose(&names(missing), why, now).await?;
            tracing::warn!(
                partner = partner.name, transfer = %wanted.transfer, again = lost.again, set_aside = lost.set_aside,
                "partner does not have what it accepted"
            );
            self.commitments.wake.work_for(&partner.name, wanted.priority);
        }
        self.commitments.wake.changed();
        Ok(())
    }
}

/// A UID as the partner knows it, for what left under this protection.
fn known_as<T: Clone>(
    protection: Option<&Arc<Protection>>,
    study: &StudyInstanceUid,
    map: impl FnOnce(&Protection, &StudyInstanceUid) -> T,
    own: &T,
) -> T {
    protection.map_or_else(|| own.clone(), |protection| map(protection, study))
}

/// A new UID, of the root that needs no registration (PS3.5 B.2).
fn transaction_uid() -> Uid {
    let number = u128::from(ulid::Ulid::new());
    #[expect(clippy::expect_used, reason = "five characters and at most 39 digits")]
    format!("2.25.{number}").parse().expect("a UID")
}
