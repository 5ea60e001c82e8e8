//! Checked names of DICOM (PS3.5, PS3.6), and the scanner that foreign data sets pass before anything else reads them.

pub mod ae_title;
pub mod attributes;
pub mod phi;
pub mod scanner;
pub mod text;
pub mod transfer_syntax;
pub mod uid;

pub use ae_title::{AeTitle, InvalidAeTitle};
pub use attributes::Attributes;
pub use dicom_core::Tag;
pub use phi::Phi;
pub use transfer_syntax::TransferSyntax;
pub use uid::{InvalidUid, SeriesInstanceUid, SopClassUid, SopInstanceUid, StudyInstanceUid, Uid};
