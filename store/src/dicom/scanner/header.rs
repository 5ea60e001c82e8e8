//! The bytes of one element or item header (PS3.5 7.1, 7.5).

use dicom_core::{Tag, VR};

/// The length that says "undefined".
pub(super) const UNDEFINED: u32 = 0xFFFF_FFFF;
/// Item (FFFE,E000).
pub(super) const ITEM: Tag = Tag(0xFFFE, 0xE000);
/// Item Delimitation Item.
pub(super) const ITEM_DELIMITER: Tag = Tag(0xFFFE, 0xE00D);
/// Sequence Delimitation Item.
pub(super) const SEQUENCE_DELIMITER: Tag = Tag(0xFFFE, 0xE0DD);

/// How elements are written, at one place in a data set.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Encoding {
    /// Tag and a length of four bytes; also inside every sequence of VR UN and undefined length (PS3.5 6.2.2).
    ImplicitLittle,
    /// Tag, VR and a length of two or four bytes.
    ExplicitLittle,
    /// The same with the bytes of every number in the other order.
    ExplicitBig,
}

impl Encoding {
    fn u16(self, bytes: [u8; 2]) -> u16 {
        if self == Self::ExplicitBig {
            u16::from_be_bytes(bytes)
        } else {
            u16::from_le_bytes(bytes)
        }
    }

    fn u32(self, bytes: [u8; 4]) -> u32 {
        if self == Self::ExplicitBig {
            u32::from_be_bytes(bytes)
        } else {
            u32::from_le_bytes(bytes)
        }
    }
}

/// A header, or as much of it as has arrived: 8 bytes, or 12 in the long form of PS3.5 7.1.2.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Raw {
    bytes: [u8; 12],
    len: usize,
}

impl Raw {
    /// The header that begins these bytes, with `len` of them.
    pub(super) fn new(bytes: [u8; 12], len: usize) -> Self {
        Self { bytes, len: len.min(12) }
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&self.bytes)
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn push(&mut self, byte: u8) {
        if let Some(free) = self.bytes.get_mut(self.len) {
            *free = byte;
            self.len += 1;
        }
    }

    pub(super) fn tag(&self, encoding: Encoding) -> Tag {
        let [g0, g1, e0, e1, ..] = self.bytes;
        Tag(encoding.u16([g0, g1]), encoding.u16([e0, e1]))
    }

    /// The two letters of an explicit VR.
    pub(super) fn letters(&self) -> [u8; 2] {
        let [_, _, _, _, v0, v1, ..] = self.bytes;
        [v0, v1]
    }

    /// The length of an item, a delimiter or an element of implicit VR.
    pub(super) fn plain_length(&self, encoding: Encoding) -> u32 {
        let [_, _, _, _, l0, l1, l2, l3, ..] = self.bytes;
        encoding.u32([l0, l1, l2, l3])
    }

    /// The length of an element of explicit VR.
    pub(super) fn explicit_length(&self, encoding: Encoding) -> u32 {
        let [_, _, _, _, _, _, s0, s1, l0, l1, l2, l3] = self.bytes;
        if self.len > 8 {
            encoding.u32([l0, l1, l2, l3])
        } else {
            u32::from(encoding.u16([s0, s1]))
        }
    }
}

/// Whether an explicit VR has a length of two bytes (PS3.5 Table 7.1-2). Every other one, and every VR that a later
/// edition adds, has two reserved bytes and a length of four (PS3.5 6.2.2, 7.1.2).
pub(super) fn is_short(letters: [u8; 2]) -> bool {
    matches!(
        &letters,
        b"AE"
            | b"AS"
            | b"AT"
            | b"CS"
            | b"DA"
            | b"DS"
            | b"DT"
            | b"FD"
            | b"FL"
            | b"IS"
            | b"LO"
            | b"LT"
            | b"PN"
            | b"SH"
            | b"SL"
            | b"SS"
            | b"ST"
            | b"TM"
            | b"UI"
            | b"UL"
            | b"US"
    )
}

/// The value representation that two letters name; one that this edition does not know is UN to whoever reads it.
pub(super) fn vr(letters: [u8; 2]) -> VR {
    match &letters {
        b"AE" => VR::AE,
        b"AS" => VR::AS,
        b"AT" => VR::AT,
        b"CS" => VR::CS,
        b"DA" => VR::DA,
        b"DS" => VR::DS,
        b"DT" => VR::DT,
        b"FD" => VR::FD,
        b"FL" => VR::FL,
        b"IS" => VR::IS,
        b"LO" => VR::LO,
        b"LT" => VR::LT,
        b"OB" => VR::OB,
        b"OD" => VR::OD,
        b"OF" => VR::OF,
        b"OL" => VR::OL,
        b"OV" => VR::OV,
        b"OW" => VR::OW,
        b"PN" => VR::PN,
        b"SH" => VR::SH,
        b"SL" => VR::SL,
        b"SQ" => VR::SQ,
        b"SS" => VR::SS,
        b"ST" => VR::ST,
        b"SV" => VR::SV,
        b"TM" => VR::TM,
        b"UC" => VR::UC,
        b"UI" => VR::UI,
        b"UL" => VR::UL,
        b"UR" => VR::UR,
        b"US" => VR::US,
        b"UT" => VR::UT,
        b"UV" => VR::UV,
        _ => VR::UN,
    }
}

/// The bytes that one value of a VR takes, 1 where it may take any number (PS3.5 Table 6.2-1).
pub(super) fn unit(vr: VR) -> u32 {
    match vr {
        VR::SS | VR::US | VR::OW => 2,
        VR::AT | VR::FL | VR::SL | VR::UL | VR::OF | VR::OL => 4,
        VR::FD | VR::SV | VR::UV | VR::OD | VR::OV => 8,
        _ => 1,
    }
}
