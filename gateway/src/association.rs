//! Associations (PS3.8): the upper layer, what is negotiated, and the messages of DIMSE (PS3.7).
//!
//! `wire` moves PDUs and is the same for both roles; `dimse` has one type for each message, `data_set` the small data sets
//! that some of them carry; `negotiation` and
//! `admission` decide who may do what before an association is accepted; `listener` and `acceptor` are the accepting
//! role, `requestor` the asking one, `query` what that one asks about a study. Nothing here knows what a service does with an instance: that is in `services`.

pub mod acceptor;
pub mod admission;
pub mod data_set;
pub mod dimse;
pub mod listener;
pub mod negotiation;
pub mod query;
pub mod requestor;
pub mod services;
pub mod status;
pub mod wire;

/// What this implementation calls itself in every association (PS3.7 D.3.3.2); a UID of the UUID-derived root.
pub const IMPLEMENTATION_CLASS_UID: &str = "2.25.214183967470934217385020373410563728561";
/// Its version, at most 16 characters.
pub const IMPLEMENTATION_VERSION_NAME: &str = concat!("GANTRY_", env!("CARGO_PKG_VERSION"));
/// The one application context there is (PS3.7 A.2.1).
pub const APPLICATION_CONTEXT: &str = "1.2.840.10008.3.1.1.1";
