//! Studies built in code: valid ones of many kinds for demonstrations, tests and benches, and malformed data sets.
//!
//! Everything follows from a seed: the same call gives the same bytes, UIDs included. No patient, hospital or
//! order in here exists; what is planted about them, and where, is told by [`Study::planted`], so a test can look
//! for it in what left the gateway. The crate writes DICOM itself and knows nothing of the gateway, so neither can
//! hide a mistake of the other.
//!
//! ```
//! let study = sample_studies::HeadCt::small(7).build();
//!
//! assert_eq!(study.len(), 8);
//! assert_eq!(study, sample_studies::HeadCt::small(7).build());
//! ```

mod anatomy;
mod canvas;
mod character_sets;
mod charset;
mod chest_cr;
mod ct_series;
mod data_set;
mod encapsulated_pdf;
mod encoding;
mod font;
mod head_ct;
mod identifiers;
mod instance;
pub mod malformed;
mod modules;
mod mr;
mod multi_frame;
mod random;
mod rle;
mod structured_report;
mod ultrasound;

pub use character_sets::{backslash_in_gb18030, character_sets};
pub use charset::Charset;
pub use chest_cr::chest_cr;
pub use ct_series::{ct_series, ct_slices, small_objects};
pub use data_set::{DataSet, PrivateElement};
pub use encapsulated_pdf::encapsulated_pdf;
pub use encoding::{EncodingError, SequenceLengths, TransferSyntax, encode};
pub use head_ct::HeadCt;
pub use identifiers::{Order, Patient, Planted, is_nhs_number};
pub use instance::{Instance, Study, part10_header};
pub use mr::mr;
pub use multi_frame::{MultiFrame, multi_frame};
pub use structured_report::structured_report;
pub use ultrasound::{ULTRASOUND_BANNER_ROWS, ultrasound};

/// The whole head CT of the emergency: scout, 30 thick and 240 thin slices, 142 MB; see [`HeadCt`] for less.
pub fn head_ct(seed: u64) -> Study {
    HeadCt::new(seed).build()
}

/// One study of every kind, all valid; the head CT with few slices, so that everything is about 10 MB.
pub fn all_valid(seed: u64) -> Vec<Study> {
    let mut studies = vec![
        HeadCt::small(seed).build(),
        small_objects(seed, 2),
        mr(seed),
        chest_cr(seed),
        ultrasound(seed),
        structured_report(seed),
        encapsulated_pdf(seed),
    ];
    studies.extend(multi_frame(seed, 3, 64, 64).build()); // fails only when larger than 4 GiB
    studies.extend(character_sets(seed));
    studies
}
