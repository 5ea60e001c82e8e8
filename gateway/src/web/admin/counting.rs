//! Counting a study against its source now, because a person asks.

use axum::Json;
use axum::extract::State;
use gantry_store::dicom::StudyInstanceUid;
use gantry_store::index::{Completeness, CountedSeries, FailureKind};
use serde::Serialize;

use super::super::App;
use super::super::api::Named;
use super::super::problem::Problem;
use crate::completeness::{Answer, AskError};

/// What came of asking, and what is known now.
#[derive(Debug, Serialize)]
pub(super) struct CountView {
    study_instance_uid: StudyInstanceUid,
    answer: Word,
    completeness: Completeness,
    /// The series that its source listed, those that are short first.
    counted: Vec<CountedSeries>,
}

/// What came of asking, in a word.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Word {
    Counted,
    NoSource,
    Refused,
    Unreachable,
}

pub(super) async fn count(
    State(app): State<App>,
    Named(uid): Named<StudyInstanceUid>,
) -> Result<Json<CountView>, Problem> {
    let unknown = || Problem::not_found(format!("There is no study {uid}."));
    tracing::info!(study = %uid, "a person asked for a study to be counted");
    let answer = match app.web.counter.count(&uid).await? {
        Answer::Counted => Word::Counted,
        Answer::NoSource => Word::NoSource,
        Answer::Unanswered(AskError::Unreachable(why)) => match why.kind {
            FailureKind::AssociationRejected => Word::Refused,
            _ => Word::Unreachable,
        },
        Answer::Unanswered(AskError::TooSlow) => Word::Unreachable,
        Answer::Unanswered(_) => Word::Refused,
        Answer::Unknown => return Err(unknown()),
    };
    let detail = app.web.index.study(&uid).await?.ok_or_else(unknown)?;
    let (completeness, counted) = (detail.study.completeness, detail.counted);
    Ok(Json(CountView { study_instance_uid: uid, answer, completeness, counted }))
}
