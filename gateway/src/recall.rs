//! Recalls: a partner that takes notes of rejection (IHE RAD IOCM) is sent one, by the way that all instances go.
//!
//! What was decided is in the index; here the notes that are wanted are made. A note comes in through intake, addressed to that
//! partner alone, is spooled, recorded, delivered, tried again and proven like any instance. Its UID was fixed with the
//! decision, and its bytes follow from the index, so a crash at any point makes the same note again, which is recognised.

mod note;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gantry_store::dicom::{SopClassUid, SopInstanceUid, TransferSyntax};
use gantry_store::facts::{Addressed, Origin};
use gantry_store::index::{Index, IndexError, NoteWanted};
use jiff::Timestamp;
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use ulid::Ulid;

use crate::config::Config;
use crate::intake::{Announced, Intake, IntakeError};
use crate::telemetry::chain;

/// How often is looked for notes that are wanted.
const LOOK: Duration = Duration::from_secs(1);
/// How long to leave it alone after a failure.
const PAUSE: Duration = Duration::from_secs(10);
/// How many are made in one go.
const BATCH: u32 = 16;
/// What the timeline calls this part of the node.
const SENDER: &str = "recall";

/// Why a note was not made.
#[derive(Debug, Error)]
enum RecallError {
    #[error("cannot read what is to be noted")]
    Index(#[from] IndexError),
    #[error("cannot take in the note of a recall")]
    Intake(#[from] IntakeError),
    #[error("cannot write the note of a recall")]
    Note(#[from] note::NoteError),
}

/// Makes the notes.
#[derive(Debug)]
pub struct Recaller {
    /// Names of this node.
    pub config: Arc<Config>,
    /// What was decided.
    pub index: Index,
    /// The way in.
    pub intake: Arc<Intake>,
}

/// A name for a note: that of a fresh ULID (PS3.5 B.2 takes any UUID, which is 128 bits too).
pub fn note_uid() -> Option<SopInstanceUid> {
    format!("2.25.{}", u128::from(Ulid::new())).parse().ok()
}

impl Recaller {
    /// Works until it is told to stop.
    pub async fn run(self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let pause = match self.make_all().await {
                Ok(()) => LOOK,
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "a recall is not noted yet; it is tried again");
                    PAUSE
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    async fn make_all(&self) -> Result<(), RecallError> {
        for wanted in self.index.notes_wanted(BATCH).await? {
            let images = wanted.accepted.len() as u64;
            // It may have been made before a crash.
            let known = !self.index.instance(&wanted.sop_instance).await?.is_empty();
            if images > 0 && !known {
                self.make(&wanted).await?;
            }
            self.index.note_made(wanted.transfer, images, Timestamp::now()).await?;
            tracing::info!(transfer = %wanted.transfer, partner = wanted.partner, images, "a recall is noted");
        }
        Ok(())
    }

    /// Makes one; when this returns it is as safe as any instance that was answered.
    async fn make(&self, wanted: &NoteWanted) -> Result<(), RecallError> {
        let title = self.config.node.ae_title.clone();
        let bytes = note::encode(wanted, &self.config.node.organisation)?;
        let mut receiver = self.intake.receiver();
        let class: SopClassUid = note::sop_class()?;
        receiver
            .begin(Announced {
                origin: Origin {
                    listener: SENDER.to_owned(),
                    sender: SENDER.to_owned(),
                    from_partner: false,
                    calling_ae_title: title.clone(),
                    called_ae_title: title,
                    addressed_to: Some(Addressed {
                        partner: wanted.partner.clone(),
                        priority: wanted.priority,
                        purpose: wanted.purpose,
                        parcel: None,
                    }),
                    fetched_like: Vec::new(),
                },
                transfer_syntax: TransferSyntax::explicit_vr_little_endian(),
                named: Some((class, wanted.sop_instance.clone())),
                study: None,
            })
            .await?;
        receiver.data(vec![Bytes::from(bytes)]).await?;
        receiver.end().await?;
        Ok(())
    }
}
