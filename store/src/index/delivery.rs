//! Where one instance stands on its way to one partner: the states, the steps between them, and nothing else.
//!
//! Rows are read and written in `outbox`, by these rules only. A person's retry or cancel moves a whole transfer in one
//! statement (`transfer`), and a test holds that statement to the same rules.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::dicom::TransferSyntax;
use crate::facts::Digest;

use super::words::words;

/// Where one instance stands on its way to one partner; a row of `delivery` holds exactly this.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Delivery {
    /// May be claimed.
    Queued {
        /// How often it was begun before, since a person last asked for it.
        attempts: u32,
    },
    /// Someone has claimed it and holds a lease.
    Sending {
        /// Which attempt this is, from 1.
        attempt: u32,
    },
    /// It will be tried again without anyone's help.
    Deferred {
        /// Which attempt brought it here.
        attempt: u32,
        /// When the next one is due.
        until: Timestamp,
        /// What went wrong.
        why: Failure,
    },
    /// The partner accepted it.
    Delivered(Receipt),
    /// Set aside: it is not tried again until a person says so.
    Failed {
        /// What went wrong.
        why: Failure,
    },
    /// A person decided that it does not go.
    Cancelled,
}

/// What can happen to a delivery.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// A worker takes it.
    Claim,
    /// The worker gives it back without having begun; the attempt does not count.
    Release,
    /// The partner answered success, or success with a warning.
    Accept(Receipt),
    /// It did not work, and a later try may.
    Defer {
        /// When to try again.
        until: Timestamp,
        /// What went wrong.
        why: Failure,
    },
    /// It did not work, and trying again without a change is useless.
    Reject {
        /// What went wrong.
        why: Failure,
    },
    /// A person asks for it anew.
    Requeue,
    /// A person decides that it does not go.
    Cancel,
    /// Whoever was sending it is gone: the process ended, or its lease ran out.
    Died,
    /// The partner had accepted it, and does not have it: it goes again.
    Lost,
    /// The same, so often that sending it again is of no use.
    LostAgain {
        /// What went wrong.
        why: Failure,
    },
}

/// What a partner's acceptance proves.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Receipt {
    /// Status of the C-STORE response: 0000H, or B0xxH where it was accepted with a warning (PS3.4 Table B.2-1).
    pub status: u16,
    /// How it was encoded when it was sent.
    pub transfer_syntax: TransferSyntax,
    /// SHA-256 of the data set that was sent.
    pub digest: Digest,
    /// When the answer came.
    pub at: Timestamp,
}

/// Why an instance is not at its partner. Shown to people and logged: the text never holds patient data.
#[derive(Clone, Debug, Eq, Error, PartialEq, Serialize)]
#[error("{text}")]
pub struct Failure {
    /// What kind of failure it is; remedies are chosen by it.
    pub kind: FailureKind,
    /// Status of the response, where there was one.
    pub status: Option<u16>,
    /// The technical text.
    pub text: String,
}

/// What can keep an instance from its partner.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// The address does not resolve or nobody answers there.
    Unreachable,
    /// The TLS handshake failed.
    TlsFailed,
    /// A-ASSOCIATE-RJ.
    AssociationRejected,
    /// The partner takes no presentation context that the instance fits.
    NoPresentationContext,
    /// A status that a second try does not change.
    Refused,
    /// A7xxH: no room; later there may be.
    OutOfResources,
    /// No answer in time.
    TimedOut,
    /// A-ABORT, or the connection broke.
    Aborted,
    /// It cannot be brought into an encoding that the partner takes.
    CannotConvert,
    /// Our own copy cannot be read.
    SourceUnreadable,
    /// Our own copy cannot be had right now: the object store is down.
    SourceUnavailable,
    /// The partner accepted it, again and again, and does not have it.
    NotStored,
    /// It cannot be de-identified as its route orders.
    NotProtected,
}

words!(FailureKind {
    Unreachable = "unreachable",
    TlsFailed = "tls-failed",
    AssociationRejected = "association-rejected",
    NoPresentationContext = "no-presentation-context",
    Refused = "refused",
    OutOfResources = "out-of-resources",
    TimedOut = "timed-out",
    Aborted = "aborted",
    CannotConvert = "cannot-convert",
    SourceUnreadable = "source-unreadable",
    SourceUnavailable = "source-unavailable",
    NotStored = "not-stored",
    NotProtected = "not-protected",
});

/// A step that the machine does not know. The delivery stays as it was.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("a delivery that is {from} cannot take the step {event}")]
pub struct IllegalStep {
    /// Name of the state.
    pub from: &'static str,
    /// Name of the event.
    pub event: &'static str,
}

impl Delivery {
    /// The whole machine. A pair that is not listed is the caller's mistake and changes nothing.
    pub fn after(self, event: Event) -> Result<Self, IllegalStep> {
        use Delivery::{Cancelled, Deferred, Delivered, Failed, Queued, Sending};
        Ok(match (self, event) {
            (Queued { attempts: attempt } | Deferred { attempt, .. }, Event::Claim) => {
                Sending { attempt: attempt + 1 }
            }
            (Sending { attempt }, Event::Release) => Queued { attempts: attempt.saturating_sub(1) },
            (Sending { .. }, Event::Accept(receipt)) => Delivered(receipt),
            (Sending { attempt }, Event::Defer { until, why }) => Deferred { attempt, until, why },
            (Sending { .. }, Event::Reject { why }) | (Delivered(_), Event::LostAgain { why }) => {
                Failed { why }
            }
            (Sending { attempt }, Event::Died) => Queued { attempts: attempt },
            (Deferred { .. } | Failed { .. } | Cancelled, Event::Requeue)
            | (Delivered(_), Event::Lost) => Queued { attempts: 0 },
            (Queued { .. } | Deferred { .. } | Failed { .. }, Event::Cancel) => Cancelled,
            (from, event) => return Err(IllegalStep { from: from.name(), event: event.name() }),
        })
    }

    /// As the state is written in rows.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Queued { .. } => "queued",
            Self::Sending { .. } => "sending",
            Self::Deferred { .. } => "deferred",
            Self::Delivered(_) => "delivered",
            Self::Failed { .. } => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl Event {
    /// Its name, for messages.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Claim => "claim",
            Self::Release => "release",
            Self::Accept(_) => "accept",
            Self::Defer { .. } => "defer",
            Self::Reject { .. } => "reject",
            Self::Requeue => "requeue",
            Self::Cancel => "cancel",
            Self::Died => "died",
            Self::Lost => "lost",
            Self::LostAgain { .. } => "lost again",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_of_state_and_event_is_decided() {
        use Delivery::{Cancelled, Deferred, Delivered, Failed, Queued, Sending};
        let why = Failure {
            kind: FailureKind::TimedOut,
            status: None,
            text: "no answer in 30 s".to_owned(),
        };
        let until = Timestamp::UNIX_EPOCH;
        let receipt = Receipt {
            status: 0,
            transfer_syntax: TransferSyntax::explicit_vr_little_endian(),
            digest: Digest([1; 32]),
            at: Timestamp::UNIX_EPOCH,
        };
        let queued = Queued { attempts: 2 };
        let sending = Sending { attempt: 3 };
        let deferred = Deferred { attempt: 3, until, why: why.clone() };
        let delivered = Delivered(receipt.clone());
        let failed = Failed { why: why.clone() };
        let states = [&queued, &sending, &deferred, &delivered, &failed, &Cancelled];
        let again = Queued { attempts: 0 };

        // One line an event, one column a state, in the order of `states`.
        let table: [(Event, [Option<&Delivery>; 6]); 10] = [
            (Event::Claim, [Some(&sending), None, Some(&Sending { attempt: 4 }), None, None, None]),
            (Event::Release, [None, Some(&queued), None, None, None, None]),
            (Event::Accept(receipt), [None, Some(&delivered), None, None, None, None]),
            (
                Event::Defer { until, why: why.clone() },
                [None, Some(&deferred), None, None, None, None],
            ),
            (Event::Reject { why: why.clone() }, [None, Some(&failed), None, None, None, None]),
            (Event::Requeue, [None, None, Some(&again), None, Some(&again), Some(&again)]),
            (
                Event::Cancel,
                [Some(&Cancelled), None, Some(&Cancelled), None, Some(&Cancelled), None],
            ),
            (Event::Died, [None, Some(&Queued { attempts: 3 }), None, None, None, None]),
            (Event::Lost, [None, None, None, Some(&again), None, None]),
            (Event::LostAgain { why }, [None, None, None, Some(&failed), None, None]),
        ];
        for (event, row) in table {
            for (from, to) in states.into_iter().zip(row) {
                let illegal = IllegalStep { from: from.name(), event: event.name() };
                assert_eq!(
                    from.clone().after(event.clone()),
                    to.cloned().ok_or(illegal),
                    "{from:?} + {event:?}"
                );
            }
        }
    }

    #[test]
    fn kinds_are_written_alike_in_rows_and_in_json() {
        for kind in FailureKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
            assert_eq!(kind.as_str().parse(), Ok(*kind));
        }
    }
}
