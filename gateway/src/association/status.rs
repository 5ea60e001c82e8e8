//! What a C-STORE is answered with (PS3.4 Table B.2-1, PS3.7 Annex C).

use std::fmt;

/// A DIMSE status code.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Status(pub u16);

impl Status {
    /// It is done.
    pub const SUCCESS: Self = Self(0x0000);
    /// More is to come (C-FIND, C-MOVE, C-GET).
    pub const PENDING: Self = Self(0xFF00);
    /// The SOP class is not one that this end takes, or not the one of the presentation context.
    pub const SOP_CLASS_NOT_SUPPORTED: Self = Self(0x0122);
    /// The sender is known, and may not do this.
    pub const NOT_AUTHORISED: Self = Self(0x0124);
    /// The SOP Instance UID of the command is none.
    pub const INVALID_SOP_INSTANCE: Self = Self(0x0117);
    /// The operation is not one of the service.
    pub const UNRECOGNISED_OPERATION: Self = Self(0x0211);
    /// The command lacks something or has it in the wrong form.
    pub const MISTYPED_ARGUMENT: Self = Self(0x0212);
    /// It cannot be done now.
    pub const PROCESSING_FAILURE: Self = Self(0x0110);
    /// There is no such instance.
    pub const NO_SUCH_INSTANCE: Self = Self(0x0112);
    /// What is named in the message is not known here.
    pub const INVALID_ARGUMENT: Self = Self(0x0115);
    /// The instance is of another SOP class.
    pub const CLASS_INSTANCE_CONFLICT: Self = Self(0x0119);
    /// The action is not one of the SOP class.
    pub const NO_SUCH_ACTION: Self = Self(0x0123);
    /// The Transaction UID is in use (PS3.3 C.14.1.1).
    pub const DUPLICATE_TRANSACTION: Self = Self(0x0131);
    /// More than can be done at once.
    pub const RESOURCE_LIMITATION: Self = Self(0x0213);
    /// No room, or no way to make it durable: the sender keeps the instance and comes back.
    pub const OUT_OF_RESOURCES: Self = Self(0xA700);
    /// The data set is not of the SOP class and instance that the command names.
    pub const DATA_SET_MISMATCH: Self = Self(0xA900);
    /// Of a C-MOVE or C-GET: how many instances match cannot be worked out (PS3.4 Tables C.4-2, C.4-3).
    pub const CANNOT_COUNT: Self = Self(0xA701);
    /// Of a C-MOVE or C-GET: none could be sent.
    pub const CANNOT_SEND: Self = Self(0xA702);
    /// Nobody of that name is one to whom the asker may have something sent.
    pub const MOVE_DESTINATION_UNKNOWN: Self = Self(0xA801);
    /// Of a C-MOVE or C-GET: some were sent, and some were not, or were taken with a warning.
    pub const SOME_FAILED: Self = Self(0xB000);
    /// The asker wanted no more.
    pub const CANCELLED: Self = Self(0xFE00);
    /// More is to come, and some optional keys were not matched as asked (C-FIND).
    pub const PENDING_WITH_WARNING: Self = Self(0xFF01);
    /// The data set cannot be taken apart.
    pub const CANNOT_UNDERSTAND: Self = Self(0xC000);

    /// How a sender is to take it.
    pub fn meaning(self) -> Meaning {
        match self.0 {
            0x0000 => Meaning::Success,
            // Attribute list error, attribute value out of range: stored, with a remark.
            0x0001 | 0x0107 | 0x0116 | 0xB000..=0xBFFF => Meaning::Warning,
            // 0213H is "resource limitation", which PS3.7 C.5.13 has for every service.
            0x0213 | 0xA700..=0xA7FF => Meaning::ComeBack,
            0xFF00 | 0xFF01 => Meaning::Pending,
            _ => Meaning::Refused,
        }
    }

    /// In a few words, for people.
    pub fn words(self) -> &'static str {
        match self.0 {
            0x0000 => "success",
            0x0105 => "no such attribute",
            0x0106 => "invalid attribute value",
            0x0107 => "attribute list error",
            0x0110 => "processing failure",
            0x0111 => "duplicate SOP instance",
            0x0112 => "no such SOP instance",
            0x0115 => "invalid argument value",
            0x0116 => "attribute value out of range",
            0x0117 => "invalid SOP instance UID",
            0x0118 => "no such SOP class",
            0x0119 => "class and instance do not belong together",
            0x0122 => "SOP class not supported",
            0x0123 => "no such action",
            0x0124 => "not authorised",
            0x0131 => "duplicate transaction UID",
            0x0210 => "duplicate invocation",
            0x0211 => "unrecognised operation",
            0x0212 => "mistyped argument",
            0x0213 => "resource limitation",
            0xA700..=0xA7FF => "out of resources",
            0xA801 => "move destination unknown",
            0xA900..=0xA9FF => "data set does not match its SOP class",
            0xB000 => "coercion of data elements",
            0xB006 => "elements discarded",
            0xB007 => "data set does not match its SOP class, stored all the same",
            0xB001..=0xB005 | 0xB008..=0xBFFF => "warning",
            0xC000..=0xCFFF => "cannot understand",
            0xFE00 => "cancelled",
            0xFF00 | 0xFF01 => "pending",
            _ => "a status that the standard does not define",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04X}H ({})", self.0, self.words())
    }
}

/// What follows from a status.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Meaning {
    /// Stored.
    Success,
    /// Stored, with a remark that people should see.
    Warning,
    /// Not stored now; the same may be stored later.
    ComeBack,
    /// Not stored, and it will not be: a person must act.
    Refused,
    /// More is to come.
    Pending,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_succeed_later_is_tried_again() {
        for (code, meaning) in [
            (0x0000, Meaning::Success),
            (0xB000, Meaning::Warning),
            (0xB007, Meaning::Warning),
            (0xA700, Meaning::ComeBack),
            (0xA7FF, Meaning::ComeBack),
            (0xA900, Meaning::Refused),
            (0xC123, Meaning::Refused),
            (0x0122, Meaning::Refused),
            (0x0124, Meaning::Refused),
            (0xFF00, Meaning::Pending),
        ] {
            assert_eq!(Status(code).meaning(), meaning, "{code:04X}");
        }
    }
}
