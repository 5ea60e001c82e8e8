//! C-MOVE (PS3.7 9.3.4): asks the peer to send what it has to somebody, who may be us.

use gantry_store::dicom::{AeTitle, SopClassUid};

use super::{
    AFFECTED_SOP_CLASS, C_MOVE_RQ, C_MOVE_RSP, COMMAND_FIELD, CommandSet, DATA_SET_FOLLOWS,
    DATA_SET_TYPE, MESSAGE_ID, MESSAGE_ID_RESPONDED_TO, NO_DATA_SET, PRIORITY, STATUS,
};
use crate::association::status::Status;

const MOVE_DESTINATION: u16 = 0x0600;
const REMAINING: u16 = 0x1020;
const COMPLETED: u16 = 0x1021;
const FAILED: u16 = 0x1022;
const WARNING: u16 = 0x1023;

/// Asks the peer to send what matches (PS3.7 9.3.4); an identifier follows.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CMoveRq {
    /// Numbers the request within its association.
    pub message_id: u16,
    /// The information model.
    pub sop_class: SopClassUid,
    /// To whom, by the name under which the peer knows it.
    pub destination: AeTitle,
}

/// How the C-STOREs of a C-MOVE went. A number that the peer left out is 0.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SubOperations {
    /// Not begun.
    pub remaining: u16,
    /// Taken by the destination.
    pub completed: u16,
    /// Not sent, or not taken.
    pub failed: u16,
    /// Taken with a remark.
    pub warning: u16,
}

impl CMoveRq {
    /// As a command set.
    pub fn encode(&self) -> Vec<u8> {
        CommandSet::default()
            .with_text(AFFECTED_SOP_CLASS, self.sop_class.as_str(), 0)
            .with_number(COMMAND_FIELD, C_MOVE_RQ)
            .with_number(MESSAGE_ID, self.message_id)
            .with_number(PRIORITY, 0)
            .with_number(DATA_SET_TYPE, DATA_SET_FOLLOWS)
            .with_text(MOVE_DESTINATION, self.destination.as_str(), b' ')
            .encode()
    }

    /// An answer to it, as a command set without a data set.
    pub fn response(&self, status: Status, so_far: SubOperations) -> Vec<u8> {
        CommandSet::default()
            .with_text(AFFECTED_SOP_CLASS, self.sop_class.as_str(), 0)
            .with_number(COMMAND_FIELD, C_MOVE_RSP)
            .with_number(MESSAGE_ID_RESPONDED_TO, self.message_id)
            .with_number(DATA_SET_TYPE, NO_DATA_SET)
            .with_number(STATUS, status.0)
            .with_number(REMAINING, so_far.remaining)
            .with_number(COMPLETED, so_far.completed)
            .with_number(FAILED, so_far.failed)
            .with_number(WARNING, so_far.warning)
            .encode()
    }
}

impl SubOperations {
    pub(super) fn read(set: &CommandSet) -> Self {
        let number = |element| set.number(element).unwrap_or_default();
        Self {
            remaining: number(REMAINING),
            completed: number(COMPLETED),
            failed: number(FAILED),
            warning: number(WARNING),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Request, Response};
    use super::*;

    #[test]
    fn a_request_names_its_destination_and_a_response_counts() {
        let request = CMoveRq {
            message_id: 5,
            sop_class: "1.2.840.10008.5.1.4.1.2.2.2".parse().unwrap(),
            destination: "RXX_GW".parse().unwrap(),
        };
        let encoded = request.encode();
        let other = Request::Other { command: C_MOVE_RQ, message_id: 5, has_data_set: true };
        assert_eq!(Request::parse(&encoded).unwrap(), other);
        assert!(encoded.windows(14).any(|at| at == b"\0\0\0\x06\x06\0\0\0RXX_GW"));

        let so_far = SubOperations { remaining: 1, completed: 2, failed: 3, warning: 4 };
        let response = Response::parse(&request.response(Status(0xB000), so_far)).unwrap();
        assert_eq!((response.status, response.sub_operations), (Status(0xB000), so_far));
    }
}
