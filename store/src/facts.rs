//! What an instance says of itself wherever its bytes are: how it came, what it is, how to check it.
//!
//! The sealed header of every spool file and object holds these facts (`sealed`), so the rows of the index can be
//! built again from files alone.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use ulid::Ulid;

use crate::dicom::attributes::Attributes;
use crate::dicom::{
    AeTitle, SeriesInstanceUid, SopClassUid, SopInstanceUid, StudyInstanceUid, TransferSyntax,
};

/// Names one received instance and the file that holds it, here and in the object store: ours, never a peer's text.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct ObjectId(Ulid);

impl ObjectId {
    /// A new one; those of one millisecond sort in the order of their making only by chance.
    pub fn new() -> Self {
        Self(Ulid::new())
    }

    /// The 16 bytes that the sealed format binds.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_bytes()
    }

    /// The inverse of [`ObjectId::to_bytes`].
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Ulid::from_bytes(bytes))
    }

    /// When it was made: milliseconds since 1970 (UTC).
    pub fn timestamp_ms(self) -> u64 {
        self.0.timestamp_ms()
    }
}

impl Default for ObjectId {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A text that is not an object's name.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("not the name of an object")]
pub struct InvalidObjectId;

impl FromStr for ObjectId {
    type Err = InvalidObjectId;

    fn from_str(text: &str) -> Result<Self, InvalidObjectId> {
        Ulid::from_string(text).map(Self).map_err(|_| InvalidObjectId)
    }
}

/// Names what a person sent at once to one partner: studies of one patient that belong together, such as today's and those
/// that it is compared with.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct ParcelId(Ulid);

impl ParcelId {
    /// A new one.
    #[expect(clippy::new_without_default, reason = "no two are alike")]
    pub fn new() -> Self {
        Self(Ulid::new())
    }
}

impl fmt::Display for ParcelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A text that is not the name of a parcel.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("not the name of a parcel")]
pub struct InvalidParcelId;

impl FromStr for ParcelId {
    type Err = InvalidParcelId;

    fn from_str(text: &str) -> Result<Self, InvalidParcelId> {
        Ulid::from_string(text).map(Self).map_err(|_| InvalidParcelId)
    }
}

/// SHA-256 of a data set as it was received, encoded bytes and all.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Of bytes that are whole in memory.
    pub fn of(bytes: &[u8]) -> Self {
        let mut digester = Digester::default();
        digester.update(bytes);
        digester.finish()
    }
}

/// Makes a [`Digest`] of bytes that come in pieces; how they are cut has no influence.
#[derive(Clone)]
pub struct Digester(Context);

impl Default for Digester {
    fn default() -> Self {
        Self(Context::new(&SHA256))
    }
}

impl Digester {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Of all bytes that came.
    pub fn finish(self) -> Digest {
        let digest = self.0.finish();
        // SHA-256 has 32 bytes.
        Digest(digest.as_ref().first_chunk().copied().unwrap_or_default())
    }
}

impl fmt::Debug for Digester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digester")
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return Err(InvalidDigest);
        }
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| InvalidDigest)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| InvalidDigest)?;
        }
        Ok(Self(bytes))
    }
}

/// A text that is not 64 hexadecimal digits.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("not a SHA-256 digest in hexadecimal")]
pub struct InvalidDigest;

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// How soon something must move; the order of the variants is the order of the queue.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Priority {
    /// A patient is waiting.
    Emergency,
    /// Today's clinic or meeting is waiting.
    Urgent,
    /// Nobody is waiting.
    #[default]
    Routine,
}

/// Why a study goes to a partner.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// Direct care: the patient is or may be on the way.
    EmergencyTransfer,
    /// Direct care: an opinion or treatment elsewhere.
    TertiaryReferral,
    /// Direct care: a multidisciplinary team meeting.
    Mdt,
    /// Direct care, none of the above.
    #[default]
    DirectCare,
    /// Research; never with identity.
    Research,
}

macro_rules! kebab_text {
    ($type:ident { $($variant:ident = $text:literal),+ $(,)? }) => {
        impl $type {
            /// Every value, in order.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// As it is written in files, in rows and on the command line.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $type {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err(format!("must be one of: {}", [$($text),+].join(", "))),
                }
            }
        }
    };
}

kebab_text!(Priority { Emergency = "emergency", Urgent = "urgent", Routine = "routine" });
kebab_text!(Purpose {
    EmergencyTransfer = "emergency-transfer",
    TertiaryReferral = "tertiary-referral",
    Mdt = "mdt",
    DirectCare = "direct-care",
    Research = "research",
});

/// How an instance came to this node. Routes decide on these and on the indexed attributes.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Origin {
    /// The listener's address as configured, or `cli`.
    pub listener: String,
    /// The source or partner that was admitted, by its configured name.
    pub sender: String,
    /// Whether that sender is a partner rather than a source of this organisation.
    pub from_partner: bool,
    /// AE title that the sender called itself by.
    pub calling_ae_title: AeTitle,
    /// AE title that the sender called.
    pub called_ae_title: AeTitle,
    /// Where a person asked it to go, instead of where the routes would have it: `gantry send … --to PARTNER`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addressed_to: Option<Addressed>,
    /// Where this node fetched it to complete its study: how the rest of that had come, as which routes take it too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fetched_like: Vec<Way>,
}

/// A way in which instances come, as far as routes look at it.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Way {
    /// The listener's address as configured.
    pub listener: String,
    /// The source, by its configured name.
    pub sender: String,
    /// AE title that the sender called itself by.
    pub calling_ae_title: AeTitle,
    /// AE title that the sender called.
    pub called_ae_title: AeTitle,
}

impl Way {
    /// The most that an instance remembers. A study comes in one or two.
    pub const MOST: u32 = 4;
}

impl Origin {
    /// What came in that way from a source of this organisation.
    #[must_use]
    pub fn came(way: &Way) -> Self {
        Self {
            listener: way.listener.clone(),
            sender: way.sender.clone(),
            from_partner: false,
            calling_ae_title: way.calling_ae_title.clone(),
            called_ae_title: way.called_ae_title.clone(),
            addressed_to: None,
            fetched_like: Vec::new(),
        }
    }
}

/// A destination that a person named with the instance.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Addressed {
    /// The partner's configured name.
    pub partner: String,
    /// How soon.
    pub priority: Priority,
    /// Why.
    pub purpose: Purpose,
    /// What else was sent with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parcel: Option<ParcelId>,
}

/// What the sealed header says of an instance.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Facts {
    /// Its name here.
    pub object: ObjectId,
    /// When its last byte had arrived.
    pub received_at: Timestamp,
    /// How it came.
    pub origin: Origin,
    /// SOP Class UID of the data set, which the C-STORE request agreed with.
    pub sop_class: SopClassUid,
    /// SOP Instance UID, likewise.
    pub sop_instance: SopInstanceUid,
    /// Study Instance UID.
    pub study: StudyInstanceUid,
    /// Series Instance UID.
    pub series: SeriesInstanceUid,
    /// The encoding that the data set came in and is kept in.
    pub transfer_syntax: TransferSyntax,
    /// Bytes of the data set.
    pub length: u64,
    /// SHA-256 of these bytes.
    pub digest: Digest,
    /// Where in the data set the Pixel Data element begins, for a native or encapsulated one that is not deflated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pixel_data_offset: Option<u64>,
    /// Under which protection it was made at intake, of what was received and is not kept; none: it is what was received.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protected: Option<String>,
    /// What index and routes read.
    pub attributes: Attributes,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_emergency_sorts_before_all_else() {
        assert!(Priority::Emergency < Priority::Urgent && Priority::Urgent < Priority::Routine);
    }

    #[test]
    fn names_print_and_parse() {
        for purpose in Purpose::ALL {
            assert_eq!(purpose.as_str().parse(), Ok(*purpose));
            assert_eq!(serde_json::to_value(purpose).unwrap(), purpose.as_str());
        }
        for priority in Priority::ALL {
            assert_eq!(priority.as_str().parse(), Ok(*priority));
        }
        assert!("stat".parse::<Priority>().is_err());
        let digest = Digest([0xA5; 32]);
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert!("é".repeat(32).parse::<Digest>().is_err());
    }
}
