//! Intake: makes a received instance durable before its sender hears "success", then makes it findable.
//!
//! `receive` is what a sender waits for: the data set streams through the scanner into a sealed spool file; the order is
//! segments, completeness, header, sync, rename, sync of the folder, answer. `drain` follows behind: spool entries become
//! rows and deliveries, then objects. `sweep` is what happens first after a crash. Between `receive` and `drain` lies
//! only what is durable, so either may stop at any point. Knows nothing of associations or of how partners are reached.

pub mod drain;
pub mod receive;
pub mod sweep;

pub use drain::{Arrived, Drain, Handoff, OpenStudies};
pub use receive::{Announced, Intake, IntakeError, Receiver};
