//! What DICOMweb (PS3.18) says on the wire, without a wire: bytes in, bytes out.
//!
//! A crate of its own below the gateway, because it needs no network, no runtime and no database: whoever serves or calls
//! DICOMweb uses the same encodings. Everything read here comes from strangers, so depth, numbers and lengths are bounded
//! in each module, reading takes time in proportion to the input, and no URI in it is ever followed.
//!
//! Trees of data sets are those of [`gantry_deidentify::data_set`].

#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)
)]

pub mod accept;
pub mod frames;
pub mod json;
pub mod model;
pub mod multipart;
pub mod place;
pub mod qido;
pub mod read;
pub mod render;
pub mod stow;
mod value;
pub mod xml;
