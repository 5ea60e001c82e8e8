//! Why a data set is refused.

use dicom_core::Tag;
use thiserror::Error;

/// What is wrong with a data set, and where: `offset` counts the bytes before the element's header, in the data set as
/// it is walked (inflated, for a deflated one). Never a value.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum ScanError {
    /// Not one element.
    #[error("data set is empty")]
    Empty,

    /// The last element's header is cut.
    #[error("data set ends inside the element header at byte {offset}")]
    HeaderCut { offset: u64 },
    /// The last element's value is cut.
    #[error("data set ends inside element {tag} at byte {offset}, {missing} bytes short")]
    ValueCut { tag: Tag, offset: u64, missing: u64 },
    /// A sequence, item or fragment list is not ended.
    #[error("data set ends inside the sequence {tag} that begins at byte {offset}")]
    SequenceCut { tag: Tag, offset: u64 },
    /// The transport told another length.
    #[error("data set ends after {length} bytes where {told} were announced")]
    TooShort { told: u64, length: u64 },
    /// The transport told another length.
    #[error("data set goes on after the {told} bytes that were announced")]
    TooLong { told: u64 },

    /// A length reaches past the end of the item, sequence or data set around it.
    #[error("element {tag} at byte {offset} claims {length} bytes where {remaining} remain")]
    Overrun { tag: Tag, offset: u64, length: u32, remaining: u64 },
    /// The item, sequence or data set ends in the middle of a header.
    #[error(
        "element header at byte {offset} does not fit into what remains of the item or sequence around it"
    )]
    NoRoom { offset: u64 },

    /// Deeper than [`Budget::depth`](super::Budget::depth).
    #[error("sequence {tag} at byte {offset} is nested deeper than {limit} levels")]
    TooDeep { tag: Tag, offset: u64, limit: u16 },
    /// More than [`Budget::elements`](super::Budget::elements).
    #[error("more than {limit} elements, reached at byte {offset}")]
    TooManyElements { offset: u64, limit: u64 },

    /// A delimiter that closes nothing, or something that its own length closes (PS3.5 7.5.2).
    #[error("delimiter {tag} at byte {offset} closes nothing")]
    UnexpectedDelimiter { tag: Tag, offset: u64 },
    /// A delimiter's length is not zero (PS3.5 7.5.2).
    #[error("delimiter {tag} at byte {offset} has a length")]
    DelimiterLength { tag: Tag, offset: u64 },
    /// An item where an element belongs (PS3.5 7.5).
    #[error("item at byte {offset} is outside a sequence")]
    ItemOutsideSequence { offset: u64 },
    /// Something else where an item belongs (PS3.5 7.5, A.4).
    #[error("{tag} at byte {offset} where an item of sequence {sequence} belongs")]
    NotAnItem { tag: Tag, offset: u64, sequence: Tag },

    /// The two letters of an explicit VR are none (PS3.5 7.1.2).
    #[error(
        "element {tag} at byte {offset} has no value representation: not the transfer syntax that was agreed"
    )]
    NotExplicit { tag: Tag, offset: u64 },
    /// An undefined length where only SQ, UN and encapsulated Pixel Data may have one (PS3.5 7.1.1, 7.1.3).
    #[error("element {tag} at byte {offset} has an undefined length")]
    UndefinedLength { tag: Tag, offset: u64 },
    /// Pixel Data of VR SQ, which one reader takes for a sequence and another for fragments.
    #[error("pixel data at byte {offset} has the value representation of a sequence")]
    PixelDataSequence { offset: u64 },
    /// A fragment of undefined length (PS3.5 A.4).
    #[error("fragment at byte {offset} has an undefined length")]
    UndefinedFragment { offset: u64 },
    /// A Basic Offset Table that is not made of four-byte offsets (PS3.5 A.4).
    #[error("basic offset table at byte {offset} has {length} bytes, not a multiple of 4")]
    OffsetTable { offset: u64, length: u32 },

    /// Groups 0000 and 0002 belong to a message and to a file (PS3.7 6.3, PS3.10 7.1).
    #[error(
        "element {tag} at byte {offset} belongs to a command or a file's header, which must be stripped"
    )]
    NotInDataSet { tag: Tag, offset: u64 },
    /// An attribute that instances are told apart by occurs twice with two values; readers differ on which one counts.
    #[error("element {tag} occurs again at byte {offset}, with another value")]
    Duplicate { tag: Tag, offset: u64 },
    /// An attribute that instances are told apart by follows the pixel data, where many readers have stopped.
    #[error("element {tag} at byte {offset} follows the pixel data")]
    AfterPixelData { tag: Tag, offset: u64 },
    /// An element after Data Set Trailing Padding (FFFC,FFFC).
    #[error("element {tag} at byte {offset} follows the trailing padding")]
    AfterPadding { tag: Tag, offset: u64 },

    /// The deflate stream is damaged, or is none.
    #[error("deflated data set is damaged after {inflated} inflated bytes")]
    Damaged { inflated: u64 },
    /// The deflate stream does not end.
    #[error("deflated data set is cut after {inflated} inflated bytes")]
    DeflateCut { inflated: u64 },
    /// More follows the deflate stream than the one NUL of PS3.5 A.5.
    #[error("bytes follow the end of the deflated data set")]
    AfterDeflate,
    /// More than [`Budget::inflated`](super::Budget::inflated).
    #[error("deflated data set inflates to more than {limit} bytes")]
    TooMuchInflated { limit: u64 },
    /// More than [`Budget::inflate_ratio`](super::Budget::inflate_ratio).
    #[error("deflated data set inflates to more than {limit} times its length")]
    InflateRatio { limit: u32 },
}

impl ScanError {
    /// Whether more bytes could have made it right: the sender broke off, rather than wrote something wrong.
    pub fn is_truncation(&self) -> bool {
        matches!(
            self,
            Self::Empty
                | Self::HeaderCut { .. }
                | Self::ValueCut { .. }
                | Self::SequenceCut { .. }
                | Self::TooShort { .. }
                | Self::DeflateCut { .. }
        )
    }
}
