//! One data set at a time, from whoever brings it to a durable spool entry.
//!
//! Each association has a thread of its own for this, because hashing, sealing and syncing block: the association reads
//! the network meanwhile, and at most [`IN_FLIGHT`] batches wait between the two. So memory per association is that, one
//! segment and one PDU, however long the instance is; and when the disk is slow the sender is slowed, by TCP.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use gantry_store::dicom::scanner::{Budget, Scan, ScanError, Scanner};
use gantry_store::dicom::{
    SeriesInstanceUid, SopClassUid, SopInstanceUid, StudyInstanceUid, Tag, TransferSyntax, Uid,
};
use gantry_store::facts::{Facts, Origin};
use gantry_store::spool::{Durability, Incoming, Spool, SpoolError};
use jiff::Timestamp;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use super::drain::Handoff;
use crate::association::status::Status;

/// How many batches of received bytes may wait for the thread that spools them. A batch is what one read of the network
/// brought, at most 128 KiB and one PDU.
const IN_FLIGHT: usize = 8;

/// Bytes from which on scanning and sealing them side by side is faster than waking another thread.
const WORTH_SHARING: usize = 48 * 1024;

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
}

/// The one way into the spool, shared by all who bring instances.
#[derive(Debug)]
pub struct Intake {
    spool: Arc<Spool>,
    durability: Durability,
    max_instance_size: u64,
    handoff: Handoff,
}

impl Intake {
    /// Makes the intake of a node. What it has taken in goes to `handoff`.
    pub fn new(
        spool: Arc<Spool>,
        durability: Durability,
        max_instance_size: u64,
        handoff: Handoff,
    ) -> Arc<Self> {
        Arc::new(Self { spool, durability, max_instance_size, handoff })
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
        Receiver { steps }
    }
}

/// One association's line into the spool. Dropped in mid-instance, it leaves nothing of it behind. The studies that it has
/// brought count as being received until it is dropped.
#[derive(Debug)]
pub struct Receiver {
    steps: mpsc::Sender<Step>,
}

enum Step {
    Begin(Box<Announced>),
    Data(Vec<Bytes>),
    End(oneshot::Sender<Result<Box<Facts>, IntakeError>>),
}

impl Receiver {
    /// Begins an instance; one that was begun and not ended is dropped.
    pub async fn begin(&self, announced: Announced) -> Result<(), IntakeError> {
        self.steps.send(Step::Begin(Box::new(announced))).await.map_err(|_| IntakeError::Stopping)
    }

    /// Takes the next bytes of its data set. A fault is reported by [`Receiver::end`]; what comes after it is discarded.
    pub async fn data(&self, batch: Vec<Bytes>) -> Result<(), IntakeError> {
        self.steps.send(Step::Data(batch)).await.map_err(|_| IntakeError::Stopping)
    }

    /// Ends the instance. When this returns its facts, the instance is as safe as the configuration asks.
    pub async fn end(&self) -> Result<Box<Facts>, IntakeError> {
        let (answer, result) = oneshot::channel();
        self.steps.send(Step::End(answer)).await.map_err(|_| IntakeError::Stopping)?;
        result.await.map_err(|_| IntakeError::Stopping)?
    }
}

/// An instance between its first and its last byte.
struct Active<'a> {
    announced: Announced,
    incoming: Incoming<'a>,
    scanner: Scanner,
    limit: u64,
}

fn spool_all(intake: &Intake, mut queue: mpsc::Receiver<Step>) {
    let mut memory = Vec::new();
    let mut studies = BTreeSet::new();
    let mut active: Result<Active<'_>, IntakeError> = Err(IntakeError::Stopping);
    while let Some(step) = queue.blocking_recv() {
        match step {
            Step::Begin(announced) => {
                active = Active::begin(intake, *announced, std::mem::take(&mut memory));
            }
            Step::Data(batch) => {
                if let Ok(instance) = &mut active
                    && let Err(error) = instance.take(&batch)
                {
                    // Dropping what was active removes its file at once: a hostile sender fills no disk.
                    active = Err(error);
                }
            }
            Step::End(answer) => {
                let ended = std::mem::replace(&mut active, Err(IntakeError::Stopping));
                let result =
                    ended.and_then(|instance| instance.end(intake)).map(|(facts, buffer)| {
                        memory = buffer;
                        facts
                    });
                if let Ok(facts) = &result {
                    // First, so that the drain never sees an instance of a study that nobody is bringing.
                    if studies.insert(facts.study.clone()) {
                        intake.handoff.open_studies().enter(&facts.study);
                    }
                    intake.handoff.arrived(facts);
                }
                // A sender that has gone meanwhile will send again, and be recognised.
                let _ = answer.send(result);
            }
        }
    }
    intake.handoff.ended(studies.into_iter().collect());
}

impl<'a> Active<'a> {
    fn begin(
        intake: &'a Intake,
        announced: Announced,
        memory: Vec<u8>,
    ) -> Result<Self, IntakeError> {
        let incoming = intake.spool.begin(memory)?;
        let limit = intake.max_instance_size;
        let scanner = Scanner::new(&announced.transfer_syntax, Budget::default());
        Ok(Self { announced, incoming, scanner, limit })
    }

    /// Scans and hashes on one core while it seals and writes on another, where there is enough of it to be worth that.
    fn take(&mut self, batch: &[Bytes]) -> Result<(), IntakeError> {
        let length: usize = batch.iter().map(Bytes::len).sum();
        if self.scanner.length() + length as u64 > self.limit {
            return Err(IntakeError::TooLong { limit: self.limit });
        }
        let (scanner, incoming) = (&mut self.scanner, &mut self.incoming);
        let mut scan = || batch.iter().try_for_each(|bytes| scanner.feed(bytes));
        let mut write = || batch.iter().try_for_each(|bytes| incoming.write(bytes));
        if length < WORTH_SHARING {
            scan()?;
            return Ok(write()?);
        }
        let mut scanned = Ok(());
        let written = rayon::in_place_scope(|scope| {
            scope.spawn(|_| scanned = scan());
            write()
        });
        scanned?;
        Ok(written?)
    }

    fn end(self, intake: &Intake) -> Result<(Box<Facts>, Vec<u8>), IntakeError> {
        let scan = self.scanner.finish()?;
        let facts = Box::new(describe(&self.incoming, self.announced, scan)?);
        let memory = self.incoming.commit(&facts, intake.durability)?;
        Ok((facts, memory))
    }
}

fn describe(
    incoming: &Incoming<'_>,
    announced: Announced,
    scan: Scan,
) -> Result<Facts, IntakeError> {
    use dicom_dictionary_std::tags;
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
            return Err(IntakeError::Mismatch {
                name: "SOP Instance UID",
                tag: tags::SOP_INSTANCE_UID,
            });
        }
    }
    Ok(Facts {
        object: incoming.object(),
        received_at: Timestamp::now(),
        origin: announced.origin,
        sop_class,
        sop_instance,
        study,
        series,
        transfer_syntax: announced.transfer_syntax,
        length: scan.length,
        digest: scan.digest,
        pixel_data_offset: scan.pixel_data_offset,
        attributes: scan.attributes,
    })
}
