//! Parcels: several transfers of one patient to one partner that were sent together, with one status. A parcel is as far as
//! the transfer that is furthest behind, and needs action if any of them does.

use gantry_store::facts::ParcelId;
use gantry_store::index::{Counts, TransferFilter, TransferState, TransferSummary};

use super::WebState;
use super::api::state_of;
use super::problem::Problem;
use super::words::{grouped, plural};

/// A parcel, as it stands.
#[derive(Debug)]
pub(super) struct Parcel {
    /// What it is of: two transfers or more, oldest first, each with its state.
    pub(super) parts: Vec<(TransferState, TransferSummary)>,
    /// Where the whole stands.
    pub(super) state: TransferState,
    /// How far the whole is.
    pub(super) counts: Counts,
    /// How many images the partner is proven to hold.
    pub(super) confirmed: u64,
}

impl Parcel {
    /// The parcel of that name; `None` if it is but one study, which stands for itself.
    pub(super) async fn load(web: &WebState, id: ParcelId) -> Result<Option<Self>, Problem> {
        let filter = TransferFilter { parcel: Some(id), limit: 1000, ..TransferFilter::default() };
        let mut parts = web.index.transfers(&filter).await?;
        parts.reverse();
        Ok(Self::of(parts.into_iter().map(|part| (state_of(web, &part), part)).collect()))
    }

    /// What these transfers are together.
    pub(super) fn of(parts: Vec<(TransferState, TransferSummary)>) -> Option<Self> {
        let states: Vec<_> = parts.iter().map(|(state, _)| *state).collect();
        let state = together(&states).filter(|_| parts.len() > 1)?;
        let mut counts = Counts::default();
        for (_, part) in &parts {
            counts += part.counts;
        }
        let confirmed = parts.iter().map(|(_, part)| part.confirmed).sum();
        Some(Self { parts, state, counts, confirmed })
    }

    /// Where it stands, in one sentence.
    pub(super) fn sentence(&self, partner: &str) -> String {
        let all = self.parts.len();
        let those = |state| self.parts.iter().filter(|(of, _)| *of == state).count();
        let (studies, images) = (format!("{all} studies"), plural(self.counts.total, "image"));
        let there = format!("{} of {images} are at {partner}", grouped(self.counts.delivered));
        let are = |state, what: &str| {
            let verb = if those(state) == 1 { "is" } else { "are" };
            format!("{} of {studies} {verb} {what}; {there}.", those(state))
        };
        match self.state {
            TransferState::NeedsAction => {
                let verb = if those(TransferState::NeedsAction) == 1 { "needs" } else { "need" };
                format!(
                    "{} of {studies} {verb} action; {there}.",
                    those(TransferState::NeedsAction)
                )
            }
            TransferState::Delayed => are(TransferState::Delayed, "delayed"),
            TransferState::Paused => are(TransferState::Paused, "paused"),
            TransferState::Cancelled => format!("All {studies} are cancelled; {there}."),
            TransferState::Recalled => format!("All {studies} are recalled; {there}."),
            TransferState::Sent => format!(
                "All {images} of {studies} were accepted. {partner} has confirmed {} of them so far.",
                grouped(self.confirmed)
            ),
            TransferState::Confirmed | TransferState::Opened => {
                format!("{partner} confirmed all {images} of {studies}.")
            }
            TransferState::Receiving | TransferState::Queued | TransferState::Sending => {
                format!("{studies}: {there}.")
            }
        }
    }
}

/// The state of several; `None` of nothing.
fn together(states: &[TransferState]) -> Option<TransferState> {
    use TransferState::{
        Cancelled, Confirmed, Delayed, NeedsAction, Opened, Paused, Queued, Recalled, Receiving,
        Sending, Sent,
    };
    // What a person took out says something of the whole only if it is all of it.
    let alive: Vec<_> =
        states.iter().copied().filter(|state| !matches!(state, Cancelled | Recalled)).collect();
    if alive.is_empty() {
        return if states.contains(&Recalled) { Some(Recalled) } else { states.first().copied() };
    }
    let first = [NeedsAction, Delayed, Receiving, Paused, Sending];
    if let Some(state) = first.into_iter().find(|state| alive.contains(state)) {
        return Some(state);
    }
    if alive.contains(&Queued) {
        // Between two of its studies it is under way.
        return Some(if alive.iter().all(|state| *state == Queued) { Queued } else { Sending });
    }
    [Sent, Confirmed, Opened].into_iter().find(|state| alive.contains(state))
}

#[cfg(test)]
mod tests {
    use TransferState::{
        Cancelled, Confirmed, Delayed, NeedsAction, Opened, Paused, Queued, Recalled, Receiving,
        Sending, Sent,
    };

    use super::*;

    #[test]
    fn a_parcel_is_as_far_as_what_is_furthest_behind() {
        for (states, expected) in [
            (&[Confirmed, Confirmed][..], Confirmed),
            (&[Confirmed, Sent], Sent),
            (&[Opened, Confirmed], Confirmed),
            (&[Sent, Queued], Sending),
            (&[Queued, Queued], Queued),
            (&[Queued, Sending, Confirmed], Sending),
            (&[Sending, Receiving], Receiving),
            (&[Sending, Paused], Paused),
            (&[Receiving, Delayed], Delayed),
            (&[Delayed, NeedsAction, Confirmed], NeedsAction),
            (&[Cancelled, Confirmed], Confirmed),
            (&[Cancelled, Cancelled], Cancelled),
            (&[Cancelled, Recalled], Recalled),
        ] {
            assert_eq!(together(states), Some(expected), "{states:?}");
        }
        assert_eq!(together(&[]), None);
    }
}
