//! What a sealed file says of a CT slice, for benches that need no data set.

use gantry_store::dicom::{Attributes, TransferSyntax};
use gantry_store::facts::{Digest, Facts, ObjectId, Origin};
use jiff::Timestamp;

/// A slice from this organisation's PACS, of 512 kB and with a digest that is its number.
pub fn ct_slice(object: ObjectId, study: u32, series: u32, number: u32) -> Facts {
    let mut digest = [0; 32];
    digest[..4].copy_from_slice(&number.to_le_bytes());
    Facts {
        object,
        received_at: Timestamp::from_second(1_700_000_000 + i64::from(number))
            .expect("a time of this century"),
        origin: Origin {
            listener: "0.0.0.0:11112".to_owned(),
            sender: "pacs".to_owned(),
            from_partner: false,
            calling_ae_title: "PACS".parse().expect("an AE title"),
            called_ae_title: "GANTRY".parse().expect("an AE title"),
            addressed_to: None,
            fetched_like: Vec::new(),
        },
        sop_class: "1.2.840.10008.5.1.4.1.1.2".parse().expect("CT Image Storage"),
        sop_instance: format!("1.2.3.{study}.9.{number}").parse().expect("a UID"),
        study: format!("1.2.3.{study}").parse().expect("a UID"),
        series: format!("1.2.3.{study}.{series}").parse().expect("a UID"),
        transfer_syntax: TransferSyntax::explicit_vr_little_endian(),
        length: 524_288,
        digest: Digest(digest),
        pixel_data_offset: None,
        protected: None,
        attributes: Attributes::default(),
    }
}
