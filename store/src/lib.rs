//! What Gantry keeps, and the words it keeps it in.
//!
//! `dicom` holds the checked names that every crate speaks and the scanner that foreign bytes pass first; `sealed` is
//! the encrypted format of spool files and objects; `spool` makes an instance count; `object` keeps it; `index` makes
//! it findable, by the queries of `query`; `delivered` remembers what partners have, without the index. Nothing here knows of associations, partners' addresses or pages.

pub mod delivered;
pub mod dicom;
pub mod facts;
pub mod index;
pub mod object;
pub mod query;
pub mod sealed;
pub mod spool;
