//! Clean Pixel Data (PS3.15 E.3.1): what pixels may show, where, and its removal.
//!
//! In the order in which an instance meets them: [`risk`] says from the header whether pixels may show who the patient is;
//! [`mask`] where a device writes it, or nothing, and then the instance is set aside; [`blacken`] blacks that in native
//! pixel data, and [`codec`] in compressed ones; [`codestream`] empties what hides between compressed pixels; [`ocr`] looks
//! at what is left. Everything that changes bytes keeps their number, takes them in pieces, and refuses what it does not
//! understand. Nothing here knows of profiles, nor writes marks such as Burned In Annotation (0028,0301): whoever calls
//! knows whether all of it was done.

pub mod blacken;
pub mod codestream;
pub mod image;
pub mod mask;
pub mod ocr;
mod palette;
pub mod risk;
