//! Whether a partner holds already what it was sent without an answer: asked, by a query for the one image, where sending it
//! again would take longer.
//!
//! An answer that was lost leaves an instance that may be there. Of a small one, sending it again is the quicker way to know.
//! A partner that does not answer queries, or does not list it, is sent it again; nothing is taken for there that it does not
//! name.

use std::time::Duration;

use gantry_store::dicom::TransferSyntax;
use gantry_store::index::{Claim, Whereabouts};

use super::connect;
use crate::association::query::{self, FIND, Listed};
use crate::association::services::storage_commitment::known;
use crate::config::{Config, Partner, ProofMeans};
use crate::telemetry::chain;

/// What asking may take: an association and a round trip or two.
const WORTH: Duration = Duration::from_secs(2);
/// How long an instance must be where nobody knows how fast the link is.
const LONG: u64 = 32 << 20;

/// Whether to ask before sending. `rate` is that of the link, in bytes a second, if it is known.
pub fn is_worth_asking(partner: &Partner, claim: &Claim, rate: Option<f64>) -> bool {
    let may_be_there = claim.attempt > 1 || claim.deaths > 0;
    let may_ask = !matches!(partner.proof, ProofMeans::None | ProofMeans::StorageCommitment);
    let takes_long = match rate {
        Some(rate) => claim.length as f64 / rate > WORTH.as_secs_f64(),
        None => claim.length >= LONG,
    };
    may_be_there && may_ask && takes_long
}

/// Whether the partner lists it. What cannot be asked is not listed.
pub async fn lists(config: &Config, partner: &Partner, claim: &Claim, at: &Whereabouts) -> bool {
    let syntaxes = vec![
        TransferSyntax::explicit_vr_little_endian(),
        TransferSyntax::implicit_vr_little_endian(),
    ];
    let patience = config.delivery.connect_timeout;
    let contexts = vec![(known(FIND), syntaxes)];
    let Ok(mut association) = connect(config, partner, contexts, patience).await else {
        return false;
    };
    let Some(context) = association.context_of(FIND) else {
        association.release(config.limits.release_timeout).await;
        return false;
    };
    association.set_patience(patience);
    let protection = claim.protection.as_ref().and_then(|name| config.protections.get(name));
    let (study, series, image) = match protection {
        Some(protection) => (
            protection.study(&at.study),
            protection.series(&at.study, &at.series),
            protection.sop_instance(&at.study, &claim.sop_instance),
        ),
        None => (at.study.clone(), at.series.clone(), claim.sop_instance.clone()),
    };
    let listed = query::image(&mut association, context, &study, &series, &image).await;
    match listed {
        Ok(listed) => {
            association.release(config.limits.release_timeout).await;
            listed == Listed::All(true)
        }
        Err(error) => {
            tracing::debug!(partner = partner.name, error = %chain(&error), "partner could not be asked whether it holds an instance");
            association.abort().await;
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use gantry_store::facts::{ObjectId, Priority};
    use jiff::Timestamp;

    use super::*;

    fn claim(attempt: u32, deaths: u32, length: u64) -> Claim {
        Claim {
            delivery: "1".parse().unwrap(),
            transfer: "01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap(),
            object: ObjectId::new(),
            sop_class: "1.2.840.10008.5.1.4.1.1.2".parse().unwrap(),
            sop_instance: "1.2.3".parse().unwrap(),
            transfer_syntax: TransferSyntax::explicit_vr_little_endian(),
            length,
            priority: Priority::Routine,
            attempt,
            deaths,
            stored: true,
            lease_ends: Timestamp::MAX,
            since: Timestamp::UNIX_EPOCH,
            protection: None,
        }
    }

    #[test]
    fn it_is_asked_about_what_may_be_there_and_takes_long() {
        let partner = crate::testing::partner("york");
        let asks = |claim: &Claim, rate| is_worth_asking(&partner, claim, rate);
        assert!(asks(&claim(2, 0, 32 << 20), None) && asks(&claim(1, 1, 32 << 20), None));
        assert!(!asks(&claim(1, 0, 32 << 20), None), "nobody has sent it");
        assert!(!asks(&claim(2, 0, 1 << 20), None), "it is short");
        assert!(asks(&claim(2, 0, 1 << 20), Some(100e3)), "the link is slow");
        assert!(!asks(&claim(2, 0, 100 << 20), Some(100e6)), "the link is fast");
        let silent = Partner { proof: ProofMeans::None, ..partner.clone() };
        assert!(!is_worth_asking(&silent, &claim(2, 0, 1 << 30), None));
    }
}
