//! A DICOM file (PS3.10) that comes over HTTP, on its way into intake, exactly as an instance from an association goes.

use axum::body::Bytes;
use gantry_store::dicom::{SopClassUid, SopInstanceUid, StudyInstanceUid};
use gantry_store::facts::{Facts, Origin};
use thiserror::Error;

use super::part10::{FileMeta, Head, HeadReader, NotPart10};
use crate::intake::{Announced, IntakeError, Receiver};

/// Why a file was not taken in.
#[derive(Debug, Error)]
pub(super) enum NotTaken {
    /// It is no such file.
    #[error(transparent)]
    NotPart10(#[from] NotPart10),
    /// Intake did not take what it holds.
    #[error(transparent)]
    Intake(#[from] IntakeError),
}

/// A file between its first and its last byte. What is wrong with it is said at its end; until then its bytes are passed over.
#[derive(Debug)]
pub(super) struct IncomingFile {
    origin: Origin,
    study: Option<StudyInstanceUid>,
    state: State,
    named: Option<(SopClassUid, SopInstanceUid)>,
}

#[derive(Debug)]
enum State {
    Head(HeadReader),
    DataSet,
    Wrong(NotTaken),
}

impl IncomingFile {
    /// One that comes like this; with `study`, one of that study.
    pub(super) fn new(origin: Origin, study: Option<StudyInstanceUid>) -> Self {
        Self { origin, study, state: State::Head(HeadReader::default()), named: None }
    }

    /// What it says that it is, as far as it has said so.
    pub(super) fn named(&self) -> Option<&(SopClassUid, SopInstanceUid)> {
        self.named.as_ref()
    }

    /// Takes its next bytes.
    pub(super) async fn data(&mut self, line: &mut Receiver, bytes: Bytes) {
        let state = std::mem::replace(&mut self.state, State::DataSet);
        self.state = match self.go_on(state, line, bytes).await {
            Ok(state) => state,
            Err(error) => State::Wrong(error),
        };
    }

    async fn go_on(
        &mut self,
        state: State,
        line: &mut Receiver,
        bytes: Bytes,
    ) -> Result<State, NotTaken> {
        let data = match state {
            wrong @ State::Wrong(_) => return Ok(wrong),
            State::DataSet => bytes,
            State::Head(head) => match head.feed(&bytes)? {
                Head::Unfinished(head) => return Ok(State::Head(head)),
                Head::Finished(meta, begun) => {
                    let FileMeta { transfer_syntax, sop_class, sop_instance } = meta;
                    self.named = sop_class.zip(sop_instance);
                    let (origin, named) = (self.origin.clone(), self.named.clone());
                    let study = self.study.clone();
                    line.begin(Announced { origin, transfer_syntax, named, study }).await?;
                    begun
                }
            },
        };
        line.data(vec![data]).await?;
        Ok(State::DataSet)
    }

    /// Ends it. When this returns its facts, the instance is as safe as the configuration asks.
    pub(super) async fn end(self, line: &mut Receiver) -> Result<Box<Facts>, NotTaken> {
        match self.state {
            State::Head(head) => Err(head.cut_short().into()),
            State::Wrong(error) => Err(error),
            State::DataSet => Ok(line.end().await?),
        }
    }
}
