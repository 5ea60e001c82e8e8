//! What the scanner has passed neither kills dicom-object nor shows it another patient.
//!
//! Input: as for `scanner`; deflated data sets are left out.
#![no_main]

use dicom_core::VR;
use dicom_object::InMemDicomObject;
use dicom_transfer_syntax_registry::entries;
use gantry_store::dicom::scanner::{Budget, scan};
use gantry_store::dicom::{Tag, TransferSyntax};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((choice, bytes)) = input.split_first() else { return };
    let reader = match choice % 5 {
        0 => entries::IMPLICIT_VR_LITTLE_ENDIAN.erased(),
        3 => entries::EXPLICIT_VR_BIG_ENDIAN.erased(),
        _ => entries::EXPLICIT_VR_LITTLE_ENDIAN.erased(),
    };
    let syntax: TransferSyntax = reader.uid().parse().expect("a UID");
    let budget = Budget { total: Some(bytes.len() as u64), ..Budget::default() };
    let Ok(scan) = scan(&syntax, bytes, budget) else { return };
    if !scan.tree_safe {
        return;
    }

    let Ok(object) = InMemDicomObject::read_dataset_with_ts(bytes, &reader) else { return };

    for (tag, vr) in [(Tag(0x0008, 0x0018), VR::UI), (Tag(0x0010, 0x0020), VR::LO)] {
        let Some(seen) = object.get(tag).filter(|element| element.vr() == vr) else { continue };
        let (Ok(seen), Some(scanned)) = (seen.to_str(), scan.attributes.raw(tag)) else { continue };
        if scanned.len() < 1024 && scanned.iter().all(u8::is_ascii_alphanumeric) {
            assert_eq!(seen.as_bytes(), scanned, "{tag}");
        }
    }
});
