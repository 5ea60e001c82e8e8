//! The Gantry node: receives instances, keeps them, sends them on, and shows people where they are.
//!
//! An instance moves one way: `association → intake → index → route → protect → outbox → partner`. A sender waits for the
//! first two; every later stage takes over what is durable, a spool file or a row, so each may stop at any point. Beside
//! the path, `web` reads the index. Only `run` knows all parts.

pub mod access;
pub mod alarm;
pub mod association;
pub mod completeness;
pub mod config;
pub mod conformance;
pub mod init;
pub mod intake;
pub mod outbox;
pub mod partner;
pub mod protect;
pub mod recall;
pub mod reindex;
pub mod retention;
pub mod rewrap;
pub mod route;
pub mod run;
pub mod scrub;
pub mod telemetry;
pub mod tls;
pub mod web;

#[cfg(test)]
mod testing;
