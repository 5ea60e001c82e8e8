//! Parcels: transfers that were sent together.

use axum::Json;
use axum::extract::State;
use gantry_store::facts::ParcelId;
use gantry_store::index::{Counts, TransferState};
use serde::Serialize;

use super::super::App;
use super::super::parcel::Parcel;
use super::super::problem::Problem;
use super::super::words::Reader;
use super::Named;
use super::transfers::{TransferView, view};

/// A parcel with one status, and what it is of.
#[derive(Debug, Serialize)]
pub(super) struct ParcelView {
    id: ParcelId,
    partner: String,
    state: TransferState,
    sentence: String,
    counts: Counts,
    confirmed: u64,
    transfers: Vec<TransferView>,
}

/// `GET /api/v1/parcels/{id}`
pub(super) async fn one(
    State(app): State<App>,
    Named(id): Named<ParcelId>,
) -> Result<Json<ParcelView>, Problem> {
    let (web, reader) = (&app.web, Reader::here());
    let missing = || Problem::not_found(format!("There is no parcel {id} of two studies or more."));
    let parcel = Parcel::load(web, id).await?.ok_or_else(missing)?;
    let partner = parcel.parts.first().map(|(_, part)| part.partner.clone()).unwrap_or_default();
    let name = web.config.partner(&partner).map_or(&partner, |partner| &partner.display_name);
    Ok(Json(ParcelView {
        id,
        sentence: parcel.sentence(name),
        state: parcel.state,
        counts: parcel.counts,
        confirmed: parcel.confirmed,
        transfers: parcel
            .parts
            .into_iter()
            .map(|(_, part)| view(web, &reader, part, None))
            .collect(),
        partner,
    }))
}
