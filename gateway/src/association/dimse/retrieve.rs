//! C-MOVE and C-GET (PS3.7 9.3.3, 9.3.4): asks the peer to send what it has to somebody, or back on the same association.

use gantry_store::dicom::{AeTitle, SopClassUid};

use super::{
    AFFECTED_SOP_CLASS, C_GET_RQ, C_GET_RSP, C_MOVE_RQ, C_MOVE_RSP, COMMAND_FIELD, CommandSet,
    DATA_SET_FOLLOWS, DATA_SET_TYPE, ERROR_COMMENT, MESSAGE_ID, MESSAGE_ID_RESPONDED_TO,
    NO_DATA_SET, PRIORITY, STATUS,
};
use crate::association::status::{Meaning, Status};

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

/// Asks the peer to send what matches back on this association (PS3.7 9.3.3); an identifier follows.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CGetRq {
    /// Numbers the request within its association.
    pub message_id: u16,
    /// The information model.
    pub sop_class: SopClassUid,
}

/// How the C-STOREs of a C-MOVE or C-GET went. A number that the peer left out is 0.
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

/// How a retrieval ended, or how far it has come.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// Pending, or the last word.
    pub status: Status,
    /// How its C-STOREs went.
    pub so_far: SubOperations,
    /// Whether a list of the instances that failed follows (PS3.4 C.4.2.1.4.2); never while pending.
    pub has_list: bool,
    /// For people; cut to 64 characters (VR LO).
    pub comment: &'a str,
}

/// The destination that a C-MOVE names.
pub(super) fn destination(set: &CommandSet) -> Option<AeTitle> {
    let value = set.0.get(&MOVE_DESTINATION)?;
    std::str::from_utf8(value).ok()?.trim_matches([' ', '\0']).parse().ok()
}

impl CMoveRq {
    /// As a command set.
    pub fn encode(&self) -> Vec<u8> {
        request(C_MOVE_RQ, self.message_id, &self.sop_class)
            .with_text(MOVE_DESTINATION, self.destination.as_str(), b' ')
            .encode()
    }

    /// An answer to it, as a command set.
    pub fn response(&self, progress: Progress<'_>) -> Vec<u8> {
        response(C_MOVE_RSP, self.message_id, &self.sop_class, progress)
    }
}

impl CGetRq {
    /// As a command set.
    pub fn encode(&self) -> Vec<u8> {
        request(C_GET_RQ, self.message_id, &self.sop_class).encode()
    }

    /// An answer to it, as a command set.
    pub fn response(&self, progress: Progress<'_>) -> Vec<u8> {
        response(C_GET_RSP, self.message_id, &self.sop_class, progress)
    }
}

fn request(command: u16, message_id: u16, model: &SopClassUid) -> CommandSet {
    CommandSet::default()
        .with_text(AFFECTED_SOP_CLASS, model.as_str(), 0)
        .with_number(COMMAND_FIELD, command)
        .with_number(MESSAGE_ID, message_id)
        .with_number(PRIORITY, 0)
        .with_number(DATA_SET_TYPE, DATA_SET_FOLLOWS)
}

fn response(command: u16, message_id: u16, model: &SopClassUid, progress: Progress<'_>) -> Vec<u8> {
    let Progress { status, so_far, has_list, comment } = progress;
    let follows = if has_list { DATA_SET_FOLLOWS } else { NO_DATA_SET };
    let mut set = CommandSet::default()
        .with_text(AFFECTED_SOP_CLASS, model.as_str(), 0)
        .with_number(COMMAND_FIELD, command)
        .with_number(MESSAGE_ID_RESPONDED_TO, message_id)
        .with_number(DATA_SET_TYPE, follows)
        .with_number(STATUS, status.0)
        .with_number(COMPLETED, so_far.completed)
        .with_number(FAILED, so_far.failed)
        .with_number(WARNING, so_far.warning);
    // PS3.4 C.4.2.1.6: said while something remains, and of what was cancelled.
    if status.meaning() == Meaning::Pending || status == Status::CANCELLED {
        set = set.with_number(REMAINING, so_far.remaining);
    }
    if !comment.is_empty() {
        set = set.with_text(ERROR_COMMENT, &super::plain(comment), b' ');
    }
    set.encode()
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

    fn requested() -> CMoveRq {
        CMoveRq {
            message_id: 5,
            sop_class: "1.2.840.10008.5.1.4.1.2.2.2".parse().unwrap(),
            destination: "RXX_GW".parse().unwrap(),
        }
    }

    #[test]
    fn a_request_names_its_destination_and_a_response_counts() {
        let request = requested();
        let encoded = request.encode();
        assert_eq!(Request::parse(&encoded).unwrap(), Request::Move(request.clone()));
        assert!(encoded.windows(14).any(|at| at == b"\0\0\0\x06\x06\0\0\0RXX_GW"));

        let so_far = SubOperations { remaining: 1, completed: 2, failed: 3, warning: 4 };
        let progress = Progress { status: Status::PENDING, so_far, has_list: false, comment: "" };
        let response = Response::parse(&request.response(progress)).unwrap();
        assert_eq!((response.status, response.sub_operations), (Status::PENDING, so_far));
        assert!(!response.has_data_set);
        let last = Progress { status: Status::SOME_FAILED, has_list: true, ..progress };
        let response = Response::parse(&request.response(last)).unwrap();
        // What is over has nothing that remains.
        assert_eq!(response.sub_operations, SubOperations { remaining: 0, ..so_far });
        assert!(response.has_data_set);

        let get = CGetRq { message_id: 6, sop_class: request.sop_class };
        assert_eq!(Request::parse(&get.encode()).unwrap(), Request::Get(get.clone()));
        assert_eq!(Response::parse(&get.response(last)).unwrap().status, Status::SOME_FAILED);
    }

    #[test]
    fn a_destination_that_is_no_name_is_nobodys() {
        for name in ["", "seventeen letters", "a\\b", "\u{7}"] {
            let set = CommandSet::parse(&requested().encode()).unwrap();
            let set = set.with_text(MOVE_DESTINATION, name, b' ');
            assert_eq!(
                Request::parse(&set.encode()).unwrap(),
                Request::BadQuery {
                    command: C_MOVE_RQ,
                    message_id: 5,
                    status: Status::MOVE_DESTINATION_UNKNOWN,
                    has_data_set: true,
                },
                "{name:?}"
            );
        }
    }
}
