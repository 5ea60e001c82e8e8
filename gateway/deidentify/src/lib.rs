//! De-identification (PS3.15 Annex E): bytes in, bytes out, and a log of what was done to which attribute and why.
//!
//! A crate of its own below the gateway, because it needs no network, no database and no runtime: the node's data path,
//! the command line on a folder of files, and the tests call the same functions. Everything that touches foreign bytes
//! goes through the scanner of [`gantry_store::dicom::scanner`] first.

#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)
)]

pub mod data_set;
pub mod decide;
pub mod engine;
pub mod keys;
pub mod pixels;
pub mod process;
pub mod profile;
pub mod report;
pub mod seal;
pub mod source;
pub mod subject;
pub mod table;
pub mod text;
pub mod values;
pub mod verify;
