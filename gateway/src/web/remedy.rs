//! What a failure means to a person: what happened, what happens next by itself, and what they can do.
//!
//! One exhaustive `match` for all pages and the API. The technical text is never part of a sentence: it stands beside it,
//! to be copied.

use gantry_store::index::{Failure, FailureKind, TransferSummary};
use serde::Serialize;

use super::words::Circumstances;

/// A problem in plain words.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub(super) struct Remedy {
    /// What happened, where, and why as far as it is known.
    pub(super) what: String,
    /// What happens next by itself.
    pub(super) next: String,
    /// What a person can do.
    pub(super) act: String,
}

impl Remedy {
    /// The first sentence of what to do, for a line in a table.
    pub(super) fn short_act(&self) -> &str {
        match self.act.find(". ") {
            Some(end) => self.act.get(..=end).unwrap_or(&self.act),
            None => &self.act,
        }
    }
}

/// The remedy for what keeps a transfer, if something does.
pub(super) fn of_transfer(transfer: &TransferSummary, at: &Circumstances<'_>) -> Option<Remedy> {
    let problem = transfer.problem.as_ref()?;
    Some(of(problem, transfer.counts.failed == 0, at.partner_name(transfer), at))
}

/// The remedy for one failure; `by_itself` says whether it is tried again without anyone's help.
pub(super) fn of(
    failure: &Failure,
    by_itself: bool,
    partner: &str,
    at: &Circumstances<'_>,
) -> Remedy {
    let ours = at.ae_title;
    let theirs = at.partner.map_or("their AE title", |partner| partner.ae_title.as_str());
    let address = at
        .partner
        .map_or_else(|| "their address".to_owned(), |partner| partner.address.to_string());
    let (what, act) = match (failure.kind, failure.status) {
        (FailureKind::Unreachable, _) => (
            format!("{partner} did not answer."),
            format!(
                "Ask the PACS team at {partner} whether their system at {address} is running and reachable from here. \
                 Nothing needs to be changed on this gateway."
            ),
        ),
        (FailureKind::TlsFailed, _) => (
            format!("No secure connection to {partner} could be made: one side did not accept the other's certificate."),
            format!(
                "Run `gantry partner test {name}` here: it says whose certificate was refused and why. Most often one has \
                 expired or was replaced, and the other side was not told.",
                name = at.partner.map_or(partner, |partner| &partner.name)
            ),
        ),
        (FailureKind::AssociationRejected, _) => rejected(&failure.text, partner, ours, theirs),
        (FailureKind::NoPresentationContext, _) => (
            format!("{partner} does not take images of this kind, or not in the form they are in."),
            format!(
                "Ask the PACS team at {partner} to accept this SOP class and transfer syntax from {ours}; the technical \
                 text names them. Then press Retry now."
            ),
        ),
        (FailureKind::Refused, status) => refused(status, partner, ours),
        (FailureKind::OutOfResources, _) => (
            format!("{partner} has no room for more images at the moment."),
            format!("Phone the PACS team at {partner}: their store is full, or their system is overloaded."),
        ),
        (FailureKind::TimedOut, _) => (
            format!("{partner} took the connection and then did not answer in time."),
            format!("Ask the PACS team at {partner} whether their system is overloaded or hangs."),
        ),
        (FailureKind::Aborted, _) => (
            format!("The connection to {partner} broke while images were being sent."),
            format!(
                "If it goes on, ask the PACS team at {partner} and whoever runs the network between you. A firewall that \
                 cuts long connections is a common cause."
            ),
        ),
        (FailureKind::NotProtected, _) => (
            format!("Some images could not be de-identified as is ordered for {partner}, so they did not leave."),
            "Read the reason in the technical text. A mask, a rule of the profile or its list of kinds may let them out; \
             then press Retry now."
                .to_owned(),
        ),
        (FailureKind::CannotConvert, _) => (
            format!("Some images are compressed in a form that {partner} does not take, and could not be converted."),
            format!(
                "Ask the PACS team at {partner} to accept the transfer syntax in the technical text, or send the study \
                 uncompressed from the source."
            ),
        ),
        (FailureKind::SourceUnreadable, _) => (
            "This gateway cannot read its own copy of some images.".to_owned(),
            "Tell whoever runs this gateway at once: its disk or its keys need attention. Meanwhile send the study again \
             from the source; what arrives anew is sent on."
                .to_owned(),
        ),
        (FailureKind::SourceUnavailable, _) => (
            "This gateway cannot reach its own object store, where it keeps these images.".to_owned(),
            "Tell whoever runs this gateway: `gantry status` and `gantry check` say what is wrong with the object store. What \
             arrives anew is still sent on."
                .to_owned(),
        ),
        (FailureKind::NotStored, _) => (
            format!("{partner} accepted some images three times, and says each time that it does not have them."),
            format!(
                "Ask the PACS team at {partner} what their system does with these images, and send them the technical text. \
                 When they have changed something, press Retry now."
            ),
        ),
    };
    let next = if by_itself {
        "The gateway tries again by itself, and sends the rest as soon as it can. No image is lost meanwhile.".to_owned()
    } else {
        "Nothing more happens with these images until a person acts. They are kept.".to_owned()
    };
    Remedy { what, next, act }
}

/// A status of a C-STORE response that a second try does not change (PS3.4 Table B.2-1).
fn refused(status: Option<u16>, partner: &str, ours: &str) -> (String, String) {
    match status {
        Some(0xA900..=0xA9FF) => (
            format!(
                "{partner} refused some images: it says that they are not what they are called."
            ),
            format!(
                "Ask the PACS team at {partner} what their system holds against these images, and send them the technical \
                 text. Sending again does not help until something changes there."
            ),
        ),
        Some(0xC000..=0xCFFF) => (
            format!("{partner} refused some images: its system could not make sense of them."),
            format!(
                "Ask the PACS team at {partner} to look in their system's log for the time below, and send them the \
                 technical text. Other images of the study are sent regardless."
            ),
        ),
        Some(0x0122) => (
            format!("{partner} does not take images of this kind."),
            format!(
                "Ask the PACS team at {partner} to accept this SOP class from {ours}. Then press Retry now."
            ),
        ),
        Some(0x0124) => (
            format!("{partner} refused the images: {ours} is not allowed to store there."),
            format!(
                "Ask the PACS team at {partner} to allow {ours} to store. Then press Retry now."
            ),
        ),
        _ => (
            format!("{partner} refused some images."),
            format!(
                "Ask the PACS team at {partner} why, and give them the technical text. When they have changed something, \
                 press Retry now."
            ),
        ),
    }
}

/// A-ASSOCIATE-RJ. What it said is in our own words for it (PS3.8 9.3.4), which a test compares.
fn rejected(text: &str, partner: &str, ours: &str, theirs: &str) -> (String, String) {
    if text.contains("calling AE title not recognised") {
        (
            format!("{partner} refused the images: it does not know our name {ours}."),
            format!("Ask its PACS team to add {ours}. Then press Retry now."),
        )
    } else if text.contains("called AE title not recognised") {
        (
            format!("{partner} answered, but nothing there is called {theirs}."),
            format!(
                "Ask its PACS team for the AE title of their system. If it is not {theirs}, whoever runs this gateway \
                 changes it in the configuration."
            ),
        )
    } else if text.contains("temporary congestion") || text.contains("local limit exceeded") {
        (
            format!("{partner} is busy and takes no more connections at the moment."),
            "If it lasts, ask its PACS team whether their system is overloaded.".to_owned(),
        )
    } else {
        (
            format!("{partner} refused the connection and did not say why."),
            format!(
                "Ask its PACS team whether they have added {ours}, and whether {theirs} is what their system is called."
            ),
        )
    }
}

#[cfg(test)]
mod tests {
    use dicom_ul::pdu::{
        AssociationRJ, AssociationRJResult, AssociationRJServiceUserReason as User,
        AssociationRJSource,
    };

    use super::super::words::Reader;
    use super::*;
    use crate::association::requestor::RequestError;
    use crate::config::Fingerprint;
    use crate::partner::connect;
    use crate::testing::config_with;

    const NO_PINS: &[Fingerprint] = &[];

    /// The remedy at a partner `st-elsewhere`, shown as St Elsewhere.
    fn remedy(failure: &Failure, by_itself: bool) -> Remedy {
        let config = config_with(&[("st-elsewhere", "SE_PACS", NO_PINS)]);
        let reader = Reader::here();
        let at = Circumstances {
            reader: &reader,
            ae_title: "RXX_GW",
            partner: config.partner("st-elsewhere"),
            ahead: None,
        };
        of(failure, by_itself, "St Elsewhere", &at)
    }

    #[test]
    fn every_failure_has_its_own_words() {
        let rejected = FailureKind::AssociationRejected;
        let refused = FailureKind::Refused;
        let table: &[(FailureKind, Option<u16>, &str, &str, &str)] = &[
            (
                FailureKind::Unreachable,
                None,
                "",
                "St Elsewhere did not answer.",
                "running and reachable",
            ),
            (FailureKind::TlsFailed, None, "", "certificate", "gantry partner test st-elsewhere"),
            (rejected, None, "", "did not say why", "added RXX_GW"),
            (rejected, None, "local limit exceeded", "is busy", "overloaded"),
            (
                FailureKind::NoPresentationContext,
                None,
                "",
                "images of this kind",
                "SOP class and transfer syntax",
            ),
            (refused, Some(0xA900), "", "not what they are called", "does not help"),
            (refused, Some(0xC123), "", "could not make sense", "log for the time"),
            (refused, Some(0x0122), "", "does not take images of this kind", "SOP class"),
            (refused, Some(0x0124), "", "not allowed to store", "allow RXX_GW"),
            (refused, Some(0x0110), "", "refused some images.", "why"),
            (refused, None, "", "refused some images.", "why"),
            (FailureKind::OutOfResources, Some(0xA700), "", "no room", "store is full"),
            (FailureKind::TimedOut, None, "", "did not answer in time", "hangs"),
            (FailureKind::Aborted, None, "", "broke while images were being sent", "firewall"),
            (FailureKind::CannotConvert, None, "", "could not be converted", "transfer syntax"),
            (FailureKind::SourceUnreadable, None, "", "its own copy", "runs this gateway"),
            (FailureKind::NotStored, None, "", "does not have them", "PACS team at"),
            (
                FailureKind::NotProtected,
                None,
                "",
                "could not be de-identified",
                "rule of the profile",
            ),
            (FailureKind::SourceUnavailable, None, "", "its own object store", "gantry check"),
        ];
        for (kind, status, text, what, act) in table {
            let remedy =
                remedy(&Failure { kind: *kind, status: *status, text: (*text).to_owned() }, false);
            assert!(remedy.what.contains(what), "{kind}: {}", remedy.what);
            assert!(remedy.act.contains(act), "{kind}: {}", remedy.act);
            for sentence in [&remedy.what, &remedy.act, &remedy.next] {
                assert!(sentence.ends_with('.') && !sentence.contains("  "), "{sentence:?}");
            }
        }
        let named: std::collections::HashSet<_> = table.iter().map(|(kind, ..)| *kind).collect();
        assert_eq!(named.len(), FailureKind::ALL.len(), "every kind is in the table");
    }

    #[test]
    fn what_happens_by_itself_is_said() {
        let failure = Failure { kind: FailureKind::Unreachable, status: None, text: String::new() };
        assert!(remedy(&failure, true).next.contains("tries again by itself"));
        assert!(remedy(&failure, false).next.contains("until a person acts"));
    }

    #[test]
    fn a_rejection_is_understood_in_the_words_that_the_association_has_for_it() {
        let rejection = |reason| {
            let source = AssociationRJSource::ServiceUser(reason);
            RequestError::Rejected(AssociationRJ { result: AssociationRJResult::Permanent, source })
        };
        let calling =
            remedy(&connect::explain(&rejection(User::CallingAETitleNotRecognized)), false);
        let called = remedy(&connect::explain(&rejection(User::CalledAETitleNotRecognized)), false);

        assert_eq!(
            calling.what,
            "St Elsewhere refused the images: it does not know our name RXX_GW."
        );
        assert_eq!(calling.short_act(), "Ask its PACS team to add RXX_GW.");
        assert_eq!(called.what, "St Elsewhere answered, but nothing there is called SE_PACS.");
    }
}
