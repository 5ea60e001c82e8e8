//! How a data set is encoded (PS3.5 10, Annex A).

use std::fmt;

use dicom_dictionary_std::uids;
use serde::{Deserialize, Serialize};

use super::uid::{InvalidUid, Uid};

/// A transfer syntax, by its UID. Gantry keeps a data set in the one it came in, known to it or not.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct TransferSyntax(Uid);

/// How the elements of a data set are laid out, which is all that walking over it needs to know.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Layout {
    /// Implicit VR Little Endian (PS3.5 A.1).
    ImplicitLittle,
    /// Explicit VR Little Endian (PS3.5 A.2), also the outer form of every encapsulated syntax (PS3.5 A.4).
    ExplicitLittle,
    /// Explicit VR Big Endian (retired; PS3.5 2016b A.3).
    ExplicitBig,
    /// Explicit VR Little Endian, the whole data set deflated (PS3.5 A.5).
    Deflated,
}

#[expect(
    deprecated,
    reason = "Explicit VR Big Endian is retired, not gone: old devices and archives still send it"
)]
impl TransferSyntax {
    /// The UID, without padding.
    pub fn uid(&self) -> &str {
        self.0.as_str()
    }

    /// The layout of its elements. A syntax that is not one of the four native ones is Explicit VR Little Endian by
    /// PS3.5 10.1 and A.4; private syntaxes follow the same rule, and a data set that does not is refused by the
    /// scanner.
    pub fn layout(&self) -> Layout {
        match self.uid() {
            uids::IMPLICIT_VR_LITTLE_ENDIAN => Layout::ImplicitLittle,
            uids::EXPLICIT_VR_BIG_ENDIAN => Layout::ExplicitBig,
            uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN
            | uids::JPIP_REFERENCED_DEFLATE
            | uids::JPIPHTJ2K_REFERENCED_DEFLATE => Layout::Deflated,
            _ => Layout::ExplicitLittle,
        }
    }

    /// Whether Pixel Data is a plain value rather than a sequence of fragments (PS3.5 A.4).
    pub fn is_native(&self) -> bool {
        matches!(
            self.uid(),
            uids::IMPLICIT_VR_LITTLE_ENDIAN
                | uids::EXPLICIT_VR_LITTLE_ENDIAN
                | uids::EXPLICIT_VR_BIG_ENDIAN
                | uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN
        )
    }

    /// Implicit VR Little Endian, the default that every application entity understands (PS3.5 10.1).
    pub fn implicit_vr_little_endian() -> Self {
        Self::known(uids::IMPLICIT_VR_LITTLE_ENDIAN)
    }

    /// Explicit VR Little Endian.
    pub fn explicit_vr_little_endian() -> Self {
        Self::known(uids::EXPLICIT_VR_LITTLE_ENDIAN)
    }

    #[expect(clippy::expect_used, reason = "called with constants of the dictionary only")]
    fn known(uid: &'static str) -> Self {
        Self(uid.parse().expect("a UID of the dictionary"))
    }
}

impl std::str::FromStr for TransferSyntax {
    type Err = InvalidUid;

    fn from_str(text: &str) -> Result<Self, InvalidUid> {
        text.parse().map(Self)
    }
}

impl From<Uid> for TransferSyntax {
    fn from(uid: Uid) -> Self {
        Self(uid)
    }
}

impl fmt::Display for TransferSyntax {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.uid())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encapsulated_and_unknown_syntaxes_are_explicit_little_endian() {
        for uid in ["1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.5", "1.3.46.670589.33.1.4.1"] {
            let syntax: TransferSyntax = uid.parse().unwrap();
            assert_eq!((syntax.layout(), syntax.is_native()), (Layout::ExplicitLittle, false));
        }
    }
}
