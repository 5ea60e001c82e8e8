//! Value representations: which one an element has that does not say so, and what depends on it (PS3.5 6.2, 7.1, 7.3).

use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry, VirtualVr};
use dicom_core::{Tag, VR};
use dicom_dictionary_std::StandardDataDictionary;

/// The value representation of an element of Implicit VR.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Implied {
    /// This one.
    Known(VR),
    /// US or SS, as Pixel Representation (0028,0103) says.
    UsOrSs,
}

/// Looks an element up (PS3.5 A.1, PS3.6). What may be OB or OW, or US or OW, is OW in Implicit VR, and stays so: in
/// little endian the bytes are the same. Private elements are UN but for their creators (PS3.5 7.8.1).
pub(super) fn implied(tag: Tag) -> Implied {
    if tag.group() % 2 == 1 {
        let creator = (0x0010..=0x00FF).contains(&tag.element());
        return Implied::Known(if creator { VR::LO } else { VR::UN });
    }
    Implied::Known(match StandardDataDictionary.by_tag(tag).map(DataDictionaryEntry::vr) {
        Some(VirtualVr::Exact(vr)) => vr,
        Some(VirtualVr::Xs) => return Implied::UsOrSs,
        Some(VirtualVr::Ox | VirtualVr::Px | VirtualVr::Lt) => VR::OW,
        // `VirtualVr` may grow.
        _ => VR::UN,
    })
}

/// Whether the explicit form has a length of two bytes (PS3.5 Table 7.1-2).
pub(super) fn is_short(vr: VR) -> bool {
    !matches!(
        vr,
        VR::OB
            | VR::OD
            | VR::OF
            | VR::OL
            | VR::OV
            | VR::OW
            | VR::SQ
            | VR::SV
            | VR::UC
            | VR::UN
            | VR::UR
            | VR::UT
            | VR::UV
    )
}

/// What makes a value even: a space in text, a zero byte in everything else, UIDs included (PS3.5 6.2).
pub(super) fn padding(vr: VR) -> u8 {
    match vr {
        VR::AE
        | VR::AS
        | VR::CS
        | VR::DA
        | VR::DS
        | VR::DT
        | VR::IS
        | VR::LO
        | VR::LT
        | VR::PN
        | VR::SH
        | VR::ST
        | VR::TM
        | VR::UC
        | VR::UR
        | VR::UT => b' ',
        _ => 0,
    }
}

/// How many bytes big endian turns round together (PS3.5 7.3). An AT is two words; UN is never touched (PS3.5 6.2.2).
pub(super) fn width(vr: VR) -> usize {
    match vr {
        VR::AT | VR::OW | VR::SS | VR::US => 2,
        VR::FL | VR::OF | VR::OL | VR::SL | VR::UL => 4,
        VR::FD | VR::OD | VR::OV | VR::SV | VR::UV => 8,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_without_a_value_representation_get_the_one_of_the_dictionary() {
        for (tag, expected) in [
            (Tag(0x0010, 0x0010), Implied::Known(VR::PN)),
            (Tag(0x0028, 0x0106), Implied::UsOrSs),
            (Tag(0x0028, 0x3002), Implied::UsOrSs),
            (Tag(0x0028, 0x3006), Implied::Known(VR::OW)),
            (Tag(0x0028, 0x1201), Implied::Known(VR::OW)),
            (Tag(0x5400, 0x1010), Implied::Known(VR::OW)),
            (Tag(0x5000, 0x3000), Implied::Known(VR::OW)),
            (Tag(0x6002, 0x0010), Implied::Known(VR::US)),
            (Tag(0x6002, 0x3000), Implied::Known(VR::OW)),
            (Tag(0x7FE0, 0x0010), Implied::Known(VR::OW)),
            (Tag(0x7FE0, 0x0008), Implied::Known(VR::OF)),
            (Tag(0x0009, 0x0010), Implied::Known(VR::LO)),
            (Tag(0x0009, 0x1001), Implied::Known(VR::UN)),
            // A private group that the pattern of a repeating one would match.
            (Tag(0x6001, 0x3000), Implied::Known(VR::UN)),
            (Tag(0x0008, 0xFFFE), Implied::Known(VR::UN)),
        ] {
            assert_eq!(implied(tag), expected, "{tag}");
        }
    }
}
