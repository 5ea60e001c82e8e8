//! A stored instance as a DICOM file: the head is ours, the data set is the one that was received.

use std::io;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use gantry_store::facts::ObjectId;
use gantry_store::object::{ObjectError, ReadError, read};
use gantry_store::sealed::{ReadAt, SealedError, SealedReader};

use super::super::api::Named;
use super::super::part10::{self, FileMeta};
use super::super::problem::Problem;
use super::super::{App, WebState, stream};
/// An instance, wherever it is.
type Sealed = SealedReader<Box<dyn ReadAt>>;

/// Opens an instance: in the spool, or if it is not there any more, in the object store.
pub(super) async fn open(web: &WebState, object: ObjectId) -> Result<Sealed, Problem> {
    let (spool, objects) = (web.spool.clone(), web.objects.clone());
    let opened = tokio::task::spawn_blocking(move || match spool.read(object) {
        Ok(reader) => Ok(reader),
        Err(SealedError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
            read(objects.as_ref(), object, spool.keyring())
        }
        Err(error) => Err(ReadError::Sealed(error)),
    });
    match opened.await {
        Ok(Ok(sealed)) => Ok(sealed),
        Ok(Err(ReadError::Store(ObjectError::Missing(object)))) => {
            if let Some(removal) = web.index.removal_of(object).await? {
                let detail = format!(
                    "The image was removed on {} by {}.",
                    removal.at.strftime("%Y-%m-%d at %H:%M UTC"),
                    removal.by
                );
                return Err(Problem::new(StatusCode::GONE, "Removed", detail)
                    .hint("Its sender may send it again."));
            }
            Err(Problem::not_found(format!("There is no object {object}.")))
        }
        Ok(Err(error)) => Err(Problem::internal(&error)),
        Err(_) => Err(Problem::stopping()),
    }
}

/// `GET /api/v1/objects/{object}/part10`. A fault that is found on the way cuts the answer short of its announced length,
/// so nobody takes it for whole.
pub(super) async fn part10(
    State(app): State<App>,
    Named(object): Named<ObjectId>,
) -> Result<Response, Problem> {
    let sealed = open(&app.web, object).await?;
    let facts = sealed.facts();
    let head = Bytes::from(part10::head(&FileMeta {
        transfer_syntax: facts.transfer_syntax.clone(),
        sop_class: Some(facts.sop_class.clone()),
        sop_instance: Some(facts.sop_instance.clone()),
    }));
    let headers = [
        (header::CONTENT_TYPE, "application/dicom".to_owned()),
        (header::CONTENT_LENGTH, (head.len() as u64 + facts.length).to_string()),
        (
            header::CONTENT_DISPOSITION,
            format!("attachment; filename=\"{}.dcm\"", facts.sop_instance),
        ),
    ];
    let body = stream::body((), move |out| {
        out.send(head)?;
        sealed.copy_to(|plain| out.send(Bytes::copy_from_slice(plain)))
    });
    Ok((headers, body).into_response())
}
