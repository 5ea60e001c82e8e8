//! Clean Pixel Data (PS3.15 E.3.1): what pixels may show, where, and its removal.
//!
//! In the order in which an instance meets them: [`risk`] says from the header whether pixels may show who the patient is;
//! [`mask`] where a device writes it, or nothing, and then the instance is set aside; [`blacken`] blacks that in native
//! pixel data, and [`codec`] in compressed ones; [`codestream`] empties what hides between compressed pixels; [`ocr`] looks
//! at what is left. What changes bytes refuses those that it does not understand, and, [`codec`] apart, keeps their number
//! and takes them in pieces. Nothing here knows of profiles, nor writes marks such as Burned In Annotation (0028,0301):
//! whoever calls knows whether all of it was done.
//!
//! ```
//! use gantry_deidentify::data_set;
//! use gantry_deidentify::pixels::blacken::Native;
//! use gantry_deidentify::pixels::image::Image;
//! use gantry_deidentify::pixels::mask::Library;
//! use gantry_deidentify::pixels::ocr::{Examination, Ocr};
//! use gantry_deidentify::pixels::risk::Risk;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let instance = sample_studies::ultrasound(3).instances.remove(0);
//! # let (syntax, mut bytes) = (instance.transfer_syntax_uid.parse()?, instance.data_set);
//! let parsed = data_set::read(&syntax, &bytes)?;
//! let (set, pixel_data) = (parsed.data_set, parsed.pixel_data.ok_or("no pixels")?);
//! let risk = Risk::of(&set).ok_or("no reason to do anything")?;
//!
//! let library = Library::built_in();
//! let mask = library.find(&set).ok_or_else(|| format!("set aside, no mask: {risk}"))?;
//!
//! // Native pixels; compressed ones go through `codec::blacken`, or, without a box, through `codestream::Codestreams`.
//! let image = Image::of(&set, pixel_data.tag)?;
//! let value = pixel_data.value.start as usize..pixel_data.value.end as usize;
//! let mut native = Native::new(&set, &image, &mask.boxes, value.len() as u64)?;
//! let mut offset = 0;
//! for piece in bytes[value.clone()].chunks_mut(256 << 10) {
//!     native.feed(offset, piece)?;
//!     offset += piece.len() as u64;
//! }
//! println!("{mask}; {:?}", native.finish()?);
//!
//! let frame = |frame| {
//!     let range = image.frame_bytes(frame)?;
//!     Some(bytes[value.clone()].get(range.start as usize..range.end as usize)?.to_vec())
//! };
//! match Ocr::examine(Ocr::find().as_ref(), &set, &image, 3, &["DOE^JANE".to_owned()], frame) {
//!     Examination::NotChecked(why) => println!("not checked: {why}"),
//!     Examination::Checked { findings, .. } => assert_eq!(findings, []),
//! }
//! # Ok(())
//! # }
//! ```

pub mod blacken;
pub mod codec;
pub mod codestream;
pub mod image;
pub mod mask;
pub mod ocr;
mod palette;
pub mod risk;
