//! One data set at a time, from whoever brings it to a durable spool entry.
//!
//! Two threads share the work of an association: its own task scans and hashes what it has just received, and a thread
//! that may block seals, writes and syncs the same bytes meanwhile. At most [`IN_FLIGHT`] batches wait between the two. So
//! memory per association is that, one segment and one PDU, however long the instance is; and when the disk is slow the
//! sender is slowed, by TCP.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use dicom_dictionary_std::tags;
use gantry_store::dicom::scanner::{Budget, Scan, ScanError, Scanner};
use gantry_store::dicom::transfer_syntax::Layout;
use gantry_store::dicom::{
    SeriesInstanceUid, SopClassUid, SopInstanceUid, StudyInstanceUid, Tag, TransferSyntax, Uid,
};
use gantry_store::facts::{Digest, Digester, Facts, ObjectId, Origin};
use gantry_store::spool::{Durability, Incoming, Spool, SpoolError};
use jiff::Timestamp;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use super::drain::Handoff;
use crate::association::status::Status;
use crate::config::Route;
use crate::route;

/// How many batches of received bytes may wait for the thread that spools them. A batch is what one read of the network
/// brought, at most 128 KiB and one PDU.
const IN_FLIGHT: usize = 8;

/// How much is scanned before other tasks get their turn: a deflated data set may be a hundred times that.
const TURN: usize = 16 * 1024;

/// Why an instance was not taken in.
#[derive(Debug, Error)]
pub enum IntakeError {
    /// The spool cannot take it.
    #[error("cannot spool the instance")]
    Spool(#[from] SpoolError),
    /// The data set is damaged or hostile.
    #[error("data set cannot be taken apart")]
    Scan(#[from] ScanError),
    /// An element that every instance must have.
    #[error("data set lacks a valid {name} {tag}")]
    Missing {
        /// The attribute's name.
        name: &'static str,
        /// Its tag.
        tag: Tag,
    },
    /// The data set is not what the command announced.
    #[error("data set has another {name} {tag} than was announced")]
    Mismatch {
        /// The attribute's name.
        name: &'static str,
        /// Its tag.
        tag: Tag,
    },
    /// Longer than the configuration allows.
    #[error("data set is longer than {limit} bytes")]
    TooLong {
        /// `[intake] max-instance-size`.
        limit: u64,
    },
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopping,
}

/// What the sender is told (PS3.4 Table B.2-1); after A700 it may keep the instance and come back.
impl From<&IntakeError> for Status {
    fn from(error: &IntakeError) -> Self {
        match error {
            IntakeError::Spool(_) | IntakeError::TooLong { .. } | IntakeError::Stopping => {
                Self::OUT_OF_RESOURCES
            }
            IntakeError::Mismatch { .. } => Self::DATA_SET_MISMATCH,
            IntakeError::Scan(_) | IntakeError::Missing { .. } => Self::CANNOT_UNDERSTAND,
        }
    }
}

/// What is known of an instance before its data set comes.
#[derive(Clone, Debug)]
pub struct Announced {
    /// How it comes.
    pub origin: Origin,
    /// What its encoding is.
    pub transfer_syntax: TransferSyntax,
    /// What the command says it is; `None` where nobody said (a file).
    pub named: Option<(SopClassUid, SopInstanceUid)>,
    /// The study that it must be of, where that was said (PS3.18 10.5.1).
    pub study: Option<StudyInstanceUid>,
}

/// The one way into the spool, shared by all who bring instances.
#[derive(Debug)]
pub struct Intake {
    spool: Arc<Spool>,
    durability: Durability,
    max_instance_size: u64,
    routes: Arc<[Route]>,
    handoff: Handoff,
}

impl Intake {
    /// Makes the intake of a node. What it has taken in goes to `handoff`; `routes` tell what may be an emergency.
    pub fn new(
        spool: Arc<Spool>,
        durability: Durability,
        max_instance_size: u64,
        routes: Arc<[Route]>,
        handoff: Handoff,
    ) -> Arc<Self> {
        Arc::new(Self { spool, durability, max_instance_size, routes, handoff })
    }

    /// Where what was taken in goes.
    pub fn handoff(&self) -> &Handoff {
        &self.handoff
    }

    /// Opens a line for one association, with a thread of its own.
    pub fn receiver(self: &Arc<Self>) -> Receiver {
        let (steps, queue) = mpsc::channel(IN_FLIGHT);
        let intake = self.clone();
        tokio::task::spawn_blocking(move || spool_all(&intake, queue));
        Receiver {
            steps,
            limit: self.max_instance_size,
            routes: self.routes.clone(),
            active: Err(IntakeError::Stopping),
        }
    }
}

/// One association's line into the spool. Dropped in mid-instance, it leaves nothing of it behind. The studies that it has
/// brought count as being received until it is dropped.
#[derive(Debug)]
pub struct Receiver {
    steps: mpsc::Sender<Step>,
    limit: u64,
    routes: Arc<[Route]>,
    active: Result<Active, IntakeError>,
}

/// An instance between its first and its last byte, as the association sees it.
#[derive(Debug)]
struct Active {
    announced: Announced,
    scanner: Scanner,
    digester: Digester,
}

/// What the spooling thread is told.
#[derive(Debug)]
enum Step {
    /// Begin an instance; one that was begun and not committed is dropped. For what may be an emergency there is room
    /// that others do not have.
    Begin { emergency: bool },
    /// Its next bytes.
    Data(Vec<Bytes>),
    /// It is whole, and this.
    Commit(Box<Described>, oneshot::Sender<Result<Box<Facts>, IntakeError>>),
    /// It is not to be kept.
    Drop,
}

impl Receiver {
    /// Begins an instance; one that was begun and not ended is dropped.
    pub async fn begin(&mut self, announced: Announced) -> Result<(), IntakeError> {
        let emergency = route::may_be_emergency(&self.routes, &announced.origin);
        self.tell(Step::Begin { emergency }).await?;
        let scanner = Scanner::new(&announced.transfer_syntax, Budget::default());
        self.active = Ok(Active { announced, scanner, digester: Digester::default() });
        Ok(())
    }

    /// Takes the next bytes of its data set. A fault is reported by [`Receiver::end`]; what comes after it is discarded.
    pub async fn data(&mut self, batch: Vec<Bytes>) -> Result<(), IntakeError> {
        let Ok(active) = &mut self.active else { return Ok(()) };
        let length: u64 = batch.iter().map(|bytes| bytes.len() as u64).sum();
        if active.scanner.length() + length > self.limit {
            self.active = Err(IntakeError::TooLong { limit: self.limit });
            return self.tell(Step::Drop).await;
        }
        // To the other thread first, which then works on the same bytes at the same time.
        self.steps.send(Step::Data(batch.clone())).await.map_err(|_| IntakeError::Stopping)?;
        if let Err(error) = active.scan(&batch).await {
            self.active = Err(error.into());
            // A hostile sender fills no disk: its file goes at once.
            self.tell(Step::Drop).await?;
        }
        Ok(())
    }

    /// Ends the instance. When this returns its facts, the instance is as safe as the configuration asks.
    pub async fn end(&mut self) -> Result<Box<Facts>, IntakeError> {
        let active = std::mem::replace(&mut self.active, Err(IntakeError::Stopping))?;
        let described = match active.finish() {
            Ok(described) => Box::new(described),
            Err(error) => {
                self.tell(Step::Drop).await?;
                return Err(error);
            }
        };
        let (answer, result) = oneshot::channel();
        self.tell(Step::Commit(described, answer)).await?;
        result.await.map_err(|_| IntakeError::Stopping)?
    }

    async fn tell(&self, step: Step) -> Result<(), IntakeError> {
        self.steps.send(step).await.map_err(|_| IntakeError::Stopping)
    }
}

impl Active {
    async fn scan(&mut self, batch: &[Bytes]) -> Result<(), ScanError> {
        let deflated = self.announced.transfer_syntax.layout() == Layout::Deflated;
        for bytes in batch {
            self.digester.update(bytes);
            if !deflated {
                self.scanner.feed(bytes)?;
                continue;
            }
            for part in bytes.chunks(TURN) {
                self.scanner.feed(part)?;
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    /// What the whole data set says of itself, compared with what was announced.
    fn finish(self) -> Result<Described, IntakeError> {
        describe(self.announced, self.scanner.finish()?, self.digester.finish())
    }
}

/// The spooling thread of one association.
fn spool_all(intake: &Intake, mut queue: mpsc::Receiver<Step>) {
    let mut memory = Vec::new();
    let mut studies = BTreeSet::new();
    let mut incoming: Result<Incoming<'_>, SpoolError> = Err(SpoolError::Condemned);
    while let Some(step) = queue.blocking_recv() {
        match step {
            Step::Begin { emergency } => {
                let memory = std::mem::take(&mut memory);
                incoming = if emergency {
                    intake.spool.begin_emergency(memory)
                } else {
                    intake.spool.begin(memory)
                };
            }
            Step::Data(batch) => {
                if let Ok(file) = &mut incoming
                    && let Err(error) = batch.iter().try_for_each(|bytes| file.write(bytes))
                {
                    // Dropping the file makes room at once for those who may need less of it.
                    incoming = Err(error);
                }
            }
            Step::Drop => incoming = Err(SpoolError::Condemned),
            Step::Commit(described, answer) => {
                let file = std::mem::replace(&mut incoming, Err(SpoolError::Condemned));
                let result = file.and_then(|file| commit(intake, file, *described, &mut memory));
                if let Ok(facts) = &result {
                    // First, so that the drain never sees an instance of a study that nobody is bringing.
                    if studies.insert(facts.study.clone()) {
                        intake.handoff.open_studies().enter(&facts.study);
                    }
                    intake.handoff.arrived(facts);
                }
                // A sender that has gone meanwhile will send again, and be recognised.
                let _ = answer.send(result.map_err(IntakeError::from));
            }
        }
    }
    intake.handoff.ended(studies.into_iter().collect());
}

fn commit(
    intake: &Intake,
    file: Incoming<'_>,
    mut described: Described,
    memory: &mut Vec<u8>,
) -> Result<Box<Facts>, SpoolError> {
    let fetching = intake.handoff.fetching();
    described.origin.fetched_like = fetching.like(&described.study, &described.origin);
    let facts = Box::new(described.named(file.object()));
    *memory = file.commit(&facts, intake.durability)?;
    Ok(facts)
}

/// Everything about an instance but the name that the spool gives it.
#[derive(Debug)]
struct Described {
    origin: Origin,
    transfer_syntax: TransferSyntax,
    sop_class: SopClassUid,
    sop_instance: SopInstanceUid,
    study: StudyInstanceUid,
    series: SeriesInstanceUid,
    scan: Scan,
    digest: Digest,
}

impl Described {
    fn named(self, object: ObjectId) -> Facts {
        Facts {
            object,
            received_at: Timestamp::now(),
            origin: self.origin,
            sop_class: self.sop_class,
            sop_instance: self.sop_instance,
            study: self.study,
            series: self.series,
            transfer_syntax: self.transfer_syntax,
            length: self.scan.length,
            digest: self.digest,
            pixel_data_offset: self.scan.pixel_data_offset,
            protected: None,
            attributes: self.scan.attributes,
        }
    }
}

fn describe(announced: Announced, scan: Scan, digest: Digest) -> Result<Described, IntakeError> {
    let uid = |tag: Tag, name: &'static str| -> Result<Uid, IntakeError> {
        let value = scan.attributes.raw(tag).ok_or(IntakeError::Missing { name, tag })?;
        Uid::from_value(value).map_err(|_| IntakeError::Missing { name, tag })
    };
    let sop_class = SopClassUid::from(uid(tags::SOP_CLASS_UID, "SOP Class UID")?);
    let sop_instance = SopInstanceUid::from(uid(tags::SOP_INSTANCE_UID, "SOP Instance UID")?);
    let study = StudyInstanceUid::from(uid(tags::STUDY_INSTANCE_UID, "Study Instance UID")?);
    let series = SeriesInstanceUid::from(uid(tags::SERIES_INSTANCE_UID, "Series Instance UID")?);
    if let Some((class, instance)) = &announced.named {
        if *class != sop_class {
            return Err(IntakeError::Mismatch { name: "SOP Class UID", tag: tags::SOP_CLASS_UID });
        }
        if *instance != sop_instance {
            let (name, tag) = ("SOP Instance UID", tags::SOP_INSTANCE_UID);
            return Err(IntakeError::Mismatch { name, tag });
        }
    }
    if announced.study.as_ref().is_some_and(|announced| *announced != study) {
        let (name, tag) = ("Study Instance UID", tags::STUDY_INSTANCE_UID);
        return Err(IntakeError::Mismatch { name, tag });
    }
    let Announced { origin, transfer_syntax, .. } = announced;
    Ok(Described { origin, transfer_syntax, sop_class, sop_instance, study, series, scan, digest })
}
