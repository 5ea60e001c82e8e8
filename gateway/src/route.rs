//! Routes: which partners an instance goes to, how soon and why.
//!
//! `rule` decides, on how the instance came and on its indexed attributes; `explain` says the same decision in words, by
//! the same code. Every route that matches applies; a partner that several routes name gets the instance once, under the
//! most urgent of them.

pub mod explain;
pub mod rule;

pub use rule::{at_intake, destinations, may_be_emergency};
