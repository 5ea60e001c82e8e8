//! The messages of DIMSE (PS3.7 9.3, 10.3, Annex E): one type each, the same for both roles.
//!
//! A command set is always Implicit VR Little Endian (PS3.7 6.3.1). What comes from a peer is read within bounds: at most
//! [`MAX_COMMAND`] bytes, every value inside them.

use std::collections::BTreeMap;

use gantry_store::dicom::uid::InvalidUid;
use gantry_store::dicom::{SopClassUid, SopInstanceUid, Uid};
use thiserror::Error;

use super::status::{Meaning, Status};

mod retrieve;

pub use retrieve::{CGetRq, CMoveRq, Progress, SubOperations};

/// The longest command set taken in. The longest in use, a C-MOVE response with a list of failed instances, carries that
/// list in its data set.
pub const MAX_COMMAND: usize = 64 * 1024;

const AFFECTED_SOP_CLASS: u16 = 0x0002;
const REQUESTED_SOP_CLASS: u16 = 0x0003;
const COMMAND_FIELD: u16 = 0x0100;
const MESSAGE_ID: u16 = 0x0110;
const MESSAGE_ID_RESPONDED_TO: u16 = 0x0120;
const PRIORITY: u16 = 0x0700;
const DATA_SET_TYPE: u16 = 0x0800;
const STATUS: u16 = 0x0900;
const ERROR_COMMENT: u16 = 0x0902;
const AFFECTED_SOP_INSTANCE: u16 = 0x1000;
const REQUESTED_SOP_INSTANCE: u16 = 0x1001;
const EVENT_TYPE: u16 = 0x1002;
const ACTION_TYPE: u16 = 0x1008;

const NO_DATA_SET: u16 = 0x0101;
const DATA_SET_FOLLOWS: u16 = 0x0001;

const C_STORE_RQ: u16 = 0x0001;
const C_STORE_RSP: u16 = 0x8001;
const C_GET_RQ: u16 = 0x0010;
const C_GET_RSP: u16 = 0x8010;
const C_FIND_RQ: u16 = 0x0020;
const C_FIND_RSP: u16 = 0x8020;
const C_MOVE_RQ: u16 = 0x0021;
const C_MOVE_RSP: u16 = 0x8021;
const C_ECHO_RQ: u16 = 0x0030;
const C_ECHO_RSP: u16 = 0x8030;
const C_CANCEL_RQ: u16 = 0x0FFF;
const N_EVENT_REPORT_RQ: u16 = 0x0100;
const N_EVENT_REPORT_RSP: u16 = 0x8100;
const N_ACTION_RQ: u16 = 0x0130;
const N_ACTION_RSP: u16 = 0x8130;

/// Why a command set is not a message.
#[derive(Debug, Error)]
pub enum CommandError {
    /// Not a sequence of elements of group 0000.
    #[error("command set is malformed at byte {0}")]
    Malformed(usize),
    /// Longer than any command.
    #[error("command set is longer than {MAX_COMMAND} bytes")]
    TooLong,
    /// An element that the message must have.
    #[error("command lacks element (0000,{0:04X})")]
    Missing(u16),
    /// A UID that is none.
    #[error("command element (0000,{0:04X}) is not a UID: {1}")]
    Uid(u16, &'static str),
}

/// The elements of a command, by element number of group 0000.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct CommandSet(BTreeMap<u16, Vec<u8>>);

impl CommandSet {
    fn parse(bytes: &[u8]) -> Result<Self, CommandError> {
        if bytes.len() > MAX_COMMAND {
            return Err(CommandError::TooLong);
        }
        let (mut elements, mut rest) = (BTreeMap::new(), bytes);
        while !rest.is_empty() {
            let malformed = || CommandError::Malformed(bytes.len() - rest.len());
            let (&[g0, g1, e0, e1, l0, l1, l2, l3], after) =
                rest.split_first_chunk().ok_or_else(malformed)?;
            let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
            let (value, after) = after.split_at_checked(length).ok_or_else(malformed)?;
            if (g0, g1) != (0, 0) {
                return Err(malformed());
            }
            elements.insert(u16::from_le_bytes([e0, e1]), value.to_vec());
            rest = after;
        }
        Ok(Self(elements))
    }

    /// Group length first (PS3.7 6.3.1), then the elements in order.
    fn encode(&self) -> Vec<u8> {
        let length: usize = self.0.values().map(|value| 8 + value.len()).sum();
        let mut bytes = Vec::with_capacity(12 + length);
        let mut element = |number: u16, value: &[u8]| {
            bytes.extend_from_slice(&[0, 0]);
            bytes.extend_from_slice(&number.to_le_bytes());
            bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
            bytes.extend_from_slice(value);
        };
        element(0x0000, &(length as u32).to_le_bytes());
        for (number, value) in &self.0 {
            element(*number, value);
        }
        bytes
    }

    fn with_number(mut self, element: u16, value: u16) -> Self {
        self.0.insert(element, value.to_le_bytes().to_vec());
        self
    }

    fn with_text(mut self, element: u16, value: &str, pad: u8) -> Self {
        let mut value = value.as_bytes().to_vec();
        if value.len() % 2 == 1 {
            value.push(pad);
        }
        self.0.insert(element, value);
        self
    }

    fn number(&self, element: u16) -> Result<u16, CommandError> {
        let value = self
            .0
            .get(&element)
            .and_then(|value| value.first_chunk())
            .ok_or(CommandError::Missing(element))?;
        Ok(u16::from_le_bytes(*value))
    }

    fn uid<U: From<Uid>>(&self, element: u16) -> Result<U, CommandError> {
        let value = self.0.get(&element).ok_or(CommandError::Missing(element))?;
        Uid::from_value(value)
            .map(U::from)
            .map_err(|error: InvalidUid| CommandError::Uid(element, error.reason()))
    }
}

/// Asks whether the peer is there (PS3.7 9.3.5).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CEchoRq {
    /// Numbers the request within its association.
    pub message_id: u16,
}

/// Asks the peer to keep an instance (PS3.7 9.3.1); a data set follows.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CStoreRq {
    /// Numbers the request within its association.
    pub message_id: u16,
    /// What the instance is said to be.
    pub sop_class: SopClassUid,
    /// Which one it is said to be.
    pub sop_instance: SopInstanceUid,
    /// 0 medium, 1 high, 2 low; a wish of the sender that no route looks at.
    pub priority: u16,
}

/// Asks the peer what it has (PS3.7 9.3.2); an identifier follows.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CFindRq {
    /// Numbers the request within its association.
    pub message_id: u16,
    /// The information model.
    pub sop_class: SopClassUid,
}

/// Asks the peer to end an operation early (PS3.7 9.3.2.3). There is no answer to it but that of the operation.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CCancelRq {
    /// The request that is to end.
    pub message_id: u16,
}

/// Asks the peer to do something with a managed instance (PS3.7 10.3.5); its information follows.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NActionRq {
    /// Numbers the request within its association.
    pub message_id: u16,
    /// Requested SOP Class UID.
    pub sop_class: SopClassUid,
    /// Requested SOP Instance UID.
    pub sop_instance: SopInstanceUid,
    /// What is to be done.
    pub action_type: u16,
}

/// Tells the peer what happened to a managed instance (PS3.7 10.3.1); its information follows.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NEventReportRq {
    /// Numbers the request within its association.
    pub message_id: u16,
    /// Affected SOP Class UID.
    pub sop_class: SopClassUid,
    /// Affected SOP Instance UID.
    pub sop_instance: SopInstanceUid,
    /// What happened.
    pub event_type: u16,
}

/// A request that a peer made, or its answer to one of ours.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Request {
    /// C-ECHO.
    Echo(CEchoRq),
    /// C-STORE.
    Store(CStoreRq),
    /// C-FIND.
    Find(CFindRq),
    /// C-MOVE.
    Move(CMoveRq),
    /// C-GET.
    Get(CGetRq),
    /// C-CANCEL of a C-FIND, C-MOVE or C-GET.
    Cancel(CCancelRq),
    /// A C-FIND, C-MOVE or C-GET that does not say what it is about.
    BadQuery {
        /// Command Field.
        command: u16,
        /// The request's number.
        message_id: u16,
        /// What it is answered.
        status: Status,
        /// Whether an identifier follows.
        has_data_set: bool,
    },
    /// N-ACTION.
    Action(NActionRq),
    /// N-EVENT-REPORT.
    EventReport(NEventReportRq),
    /// The answer to an N-EVENT-REPORT of ours.
    Answered(Response),
    /// A C-STORE that names no instance, or one by something that is not a UID.
    BadStore {
        /// The request's number.
        message_id: u16,
        /// What it is answered.
        status: Status,
    },
    /// Something else.
    Other {
        /// Command Field.
        command: u16,
        /// The request's number.
        message_id: u16,
        /// Whether a data set follows.
        has_data_set: bool,
    },
}

impl Request {
    /// Reads a command set.
    pub fn parse(bytes: &[u8]) -> Result<Self, CommandError> {
        let set = CommandSet::parse(bytes)?;
        let command = set.number(COMMAND_FIELD)?;
        if command == C_CANCEL_RQ {
            let message_id = set.number(MESSAGE_ID_RESPONDED_TO)?;
            return Ok(Self::Cancel(CCancelRq { message_id }));
        }
        if command == N_EVENT_REPORT_RSP {
            return Response::read(&set).map(Self::Answered);
        }
        let message_id = set.number(MESSAGE_ID)?;
        let has_data_set = set.number(DATA_SET_TYPE)? != NO_DATA_SET;
        Ok(match command {
            C_ECHO_RQ if !has_data_set => Self::Echo(CEchoRq { message_id }),
            C_STORE_RQ if has_data_set => {
                match (set.uid(AFFECTED_SOP_CLASS), set.uid(AFFECTED_SOP_INSTANCE)) {
                    (Ok(sop_class), Ok(sop_instance)) => Self::Store(CStoreRq {
                        message_id,
                        sop_class,
                        sop_instance,
                        priority: set.number(PRIORITY).unwrap_or_default(),
                    }),
                    (Err(_), _) => Self::BadStore { message_id, status: Status::MISTYPED_ARGUMENT },
                    (_, Err(_)) => {
                        Self::BadStore { message_id, status: Status::INVALID_SOP_INSTANCE }
                    }
                }
            }
            C_FIND_RQ | C_MOVE_RQ | C_GET_RQ if has_data_set => {
                Self::query(&set, command, message_id)
            }
            C_FIND_RQ | C_MOVE_RQ | C_GET_RQ => {
                let status = Status::DATA_SET_MISMATCH;
                Self::BadQuery { command, message_id, status, has_data_set }
            }
            N_ACTION_RQ if has_data_set => Self::Action(NActionRq {
                message_id,
                sop_class: set.uid(REQUESTED_SOP_CLASS)?,
                sop_instance: set.uid(REQUESTED_SOP_INSTANCE)?,
                action_type: set.number(ACTION_TYPE)?,
            }),
            N_EVENT_REPORT_RQ if has_data_set => Self::EventReport(NEventReportRq {
                message_id,
                sop_class: set.uid(AFFECTED_SOP_CLASS)?,
                sop_instance: set.uid(AFFECTED_SOP_INSTANCE)?,
                event_type: set.number(EVENT_TYPE)?,
            }),
            _ => Self::Other { command, message_id, has_data_set },
        })
    }
}

impl Request {
    fn query(set: &CommandSet, command: u16, message_id: u16) -> Self {
        let bad = |status| Self::BadQuery { command, message_id, status, has_data_set: true };
        let Ok(sop_class) = set.uid(AFFECTED_SOP_CLASS) else {
            return bad(Status::MISTYPED_ARGUMENT);
        };
        match command {
            C_FIND_RQ => Self::Find(CFindRq { message_id, sop_class }),
            C_GET_RQ => Self::Get(CGetRq { message_id, sop_class }),
            // Who is not a name of anybody is nobody's name.
            _ => match retrieve::destination(set) {
                Some(destination) => Self::Move(CMoveRq { message_id, sop_class, destination }),
                None => bad(Status::MOVE_DESTINATION_UNKNOWN),
            },
        }
    }
}

impl CFindRq {
    /// As a command set.
    pub fn encode(&self) -> Vec<u8> {
        CommandSet::default()
            .with_text(AFFECTED_SOP_CLASS, self.sop_class.as_str(), 0)
            .with_number(COMMAND_FIELD, C_FIND_RQ)
            .with_number(MESSAGE_ID, self.message_id)
            .with_number(PRIORITY, 0)
            .with_number(DATA_SET_TYPE, DATA_SET_FOLLOWS)
            .encode()
    }
}

impl CFindRq {
    /// An answer to it, as a command set: pending (PS3.4 Table C.4-1) with an identifier behind it, or the last.
    pub fn response(&self, status: Status) -> Vec<u8> {
        if status.meaning() != Meaning::Pending {
            return self.last_response(status, "");
        }
        CommandSet::default()
            .with_text(AFFECTED_SOP_CLASS, self.sop_class.as_str(), 0)
            .with_number(COMMAND_FIELD, C_FIND_RSP)
            .with_number(MESSAGE_ID_RESPONDED_TO, self.message_id)
            .with_number(DATA_SET_TYPE, DATA_SET_FOLLOWS)
            .with_number(STATUS, status.0)
            .encode()
    }

    /// The last answer, with a comment for people.
    pub fn last_response(&self, status: Status, comment: &str) -> Vec<u8> {
        let set = CommandSet::default().with_text(AFFECTED_SOP_CLASS, self.sop_class.as_str(), 0);
        respond(set, C_FIND_RSP, self.message_id, status, comment)
    }
}

impl CCancelRq {
    /// As a command set.
    pub fn encode(&self) -> Vec<u8> {
        CommandSet::default()
            .with_number(COMMAND_FIELD, C_CANCEL_RQ)
            .with_number(MESSAGE_ID_RESPONDED_TO, self.message_id)
            .with_number(DATA_SET_TYPE, NO_DATA_SET)
            .encode()
    }
}

impl NActionRq {
    /// As a command set.
    pub fn encode(&self) -> Vec<u8> {
        CommandSet::default()
            .with_text(REQUESTED_SOP_CLASS, self.sop_class.as_str(), 0)
            .with_number(COMMAND_FIELD, N_ACTION_RQ)
            .with_number(MESSAGE_ID, self.message_id)
            .with_number(DATA_SET_TYPE, DATA_SET_FOLLOWS)
            .with_text(REQUESTED_SOP_INSTANCE, self.sop_instance.as_str(), 0)
            .with_number(ACTION_TYPE, self.action_type)
            .encode()
    }

    /// The answer to it, as a command set.
    pub fn response(&self, status: Status) -> Vec<u8> {
        let set = CommandSet::default()
            .with_text(AFFECTED_SOP_CLASS, self.sop_class.as_str(), 0)
            .with_text(AFFECTED_SOP_INSTANCE, self.sop_instance.as_str(), 0)
            .with_number(ACTION_TYPE, self.action_type);
        respond(set, N_ACTION_RSP, self.message_id, status, "")
    }
}

impl NEventReportRq {
    /// As a command set.
    pub fn encode(&self) -> Vec<u8> {
        CommandSet::default()
            .with_text(AFFECTED_SOP_CLASS, self.sop_class.as_str(), 0)
            .with_number(COMMAND_FIELD, N_EVENT_REPORT_RQ)
            .with_number(MESSAGE_ID, self.message_id)
            .with_number(DATA_SET_TYPE, DATA_SET_FOLLOWS)
            .with_text(AFFECTED_SOP_INSTANCE, self.sop_instance.as_str(), 0)
            .with_number(EVENT_TYPE, self.event_type)
            .encode()
    }

    /// The answer to it, as a command set.
    pub fn response(&self, status: Status) -> Vec<u8> {
        let set = CommandSet::default()
            .with_text(AFFECTED_SOP_CLASS, self.sop_class.as_str(), 0)
            .with_text(AFFECTED_SOP_INSTANCE, self.sop_instance.as_str(), 0)
            .with_number(EVENT_TYPE, self.event_type);
        respond(set, N_EVENT_REPORT_RSP, self.message_id, status, "")
    }
}

impl CEchoRq {
    /// As a command set.
    pub fn encode(&self) -> Vec<u8> {
        CommandSet::default()
            .with_text(AFFECTED_SOP_CLASS, dicom_dictionary_std::uids::VERIFICATION, 0)
            .with_number(COMMAND_FIELD, C_ECHO_RQ)
            .with_number(MESSAGE_ID, self.message_id)
            .with_number(DATA_SET_TYPE, NO_DATA_SET)
            .encode()
    }

    /// The answer to it, as a command set.
    pub fn response(&self) -> Vec<u8> {
        CommandSet::default()
            .with_text(AFFECTED_SOP_CLASS, dicom_dictionary_std::uids::VERIFICATION, 0)
            .with_number(COMMAND_FIELD, C_ECHO_RSP)
            .with_number(MESSAGE_ID_RESPONDED_TO, self.message_id)
            .with_number(DATA_SET_TYPE, NO_DATA_SET)
            .with_number(STATUS, Status::SUCCESS.0)
            .encode()
    }
}

impl CStoreRq {
    /// As a command set.
    pub fn encode(&self) -> Vec<u8> {
        CommandSet::default()
            .with_text(AFFECTED_SOP_CLASS, self.sop_class.as_str(), 0)
            .with_number(COMMAND_FIELD, C_STORE_RQ)
            .with_number(MESSAGE_ID, self.message_id)
            .with_number(PRIORITY, self.priority)
            .with_number(DATA_SET_TYPE, DATA_SET_FOLLOWS)
            .with_text(AFFECTED_SOP_INSTANCE, self.sop_instance.as_str(), 0)
            .encode()
    }

    /// The answer to it, as a command set. `comment` is for people and is cut to 64 characters (VR LO).
    pub fn response(&self, status: Status, comment: &str) -> Vec<u8> {
        let set = CommandSet::default()
            .with_text(AFFECTED_SOP_CLASS, self.sop_class.as_str(), 0)
            .with_text(AFFECTED_SOP_INSTANCE, self.sop_instance.as_str(), 0);
        respond(set, C_STORE_RSP, self.message_id, status, comment)
    }
}

/// The answer to a request that could not be read far enough to be a message: same command, no instance named.
pub fn refusal(command: u16, message_id: u16, status: Status, comment: &str) -> Vec<u8> {
    respond(CommandSet::default(), command | 0x8000, message_id, status, comment)
}

/// The answer to a C-STORE that could not be read far enough.
pub fn store_refusal(message_id: u16, status: Status, comment: &str) -> Vec<u8> {
    refusal(C_STORE_RQ, message_id, status, comment)
}

fn respond(
    set: CommandSet,
    command: u16,
    message_id: u16,
    status: Status,
    comment: &str,
) -> Vec<u8> {
    let set = set
        .with_number(COMMAND_FIELD, command)
        .with_number(MESSAGE_ID_RESPONDED_TO, message_id)
        .with_number(DATA_SET_TYPE, NO_DATA_SET)
        .with_number(STATUS, status.0);
    if comment.is_empty() {
        return set.encode();
    }
    set.with_text(ERROR_COMMENT, &plain(comment), b' ').encode()
}

/// What of a comment may stand in a value of LO (PS3.5 6.2).
fn plain(comment: &str) -> String {
    comment.chars().filter(|c| matches!(c, ' '..='[' | ']'..='~')).take(64).collect()
}

/// A response that a peer gave.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Response {
    /// The request it answers.
    pub message_id: u16,
    /// How it went.
    pub status: Status,
    /// Whether a data set follows: what a query found, for one.
    pub has_data_set: bool,
    /// Of a C-MOVE or C-GET, how far it has come.
    pub sub_operations: SubOperations,
}

impl Response {
    /// Reads the response to a request of ours.
    pub fn parse(bytes: &[u8]) -> Result<Self, CommandError> {
        Self::read(&CommandSet::parse(bytes)?)
    }

    fn read(set: &CommandSet) -> Result<Self, CommandError> {
        match set.number(COMMAND_FIELD)? {
            C_STORE_RSP | C_ECHO_RSP | C_FIND_RSP | C_GET_RSP | C_MOVE_RSP | N_ACTION_RSP
            | N_EVENT_REPORT_RSP => Ok(Self {
                message_id: set.number(MESSAGE_ID_RESPONDED_TO)?,
                status: Status(set.number(STATUS)?),
                has_data_set: set.number(DATA_SET_TYPE).is_ok_and(|kind| kind != NO_DATA_SET),
                sub_operations: SubOperations::read(set),
            }),
            _ => Err(CommandError::Missing(STATUS)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn store() -> CStoreRq {
        CStoreRq {
            message_id: 7,
            sop_class: "1.2.840.10008.5.1.4.1.1.2".parse().unwrap(),
            sop_instance: "2.25.99".parse().unwrap(),
            priority: 0,
        }
    }

    #[test]
    fn messages_print_and_parse() {
        assert_eq!(Request::parse(&store().encode()).unwrap(), Request::Store(store()));
        assert_eq!(
            Request::parse(&CEchoRq { message_id: 1 }.encode()).unwrap(),
            Request::Echo(CEchoRq { message_id: 1 })
        );
        let answer = |message_id, status| Response {
            message_id,
            status,
            has_data_set: false,
            sub_operations: SubOperations::default(),
        };
        let response = answer(7, Status::OUT_OF_RESOURCES);
        assert_eq!(
            Response::parse(&store().response(response.status, "the spool is full")).unwrap(),
            response
        );
        assert_eq!(
            Response::parse(&CEchoRq { message_id: 9 }.response()).unwrap(),
            answer(9, Status::SUCCESS)
        );
        let (class, instance) = ("1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1");
        let (sop_class, sop_instance) = (class.parse().unwrap(), instance.parse().unwrap());
        let action = NActionRq { message_id: 3, sop_class, sop_instance, action_type: 1 };
        assert_eq!(Request::parse(&action.encode()).unwrap(), Request::Action(action.clone()));
        let refused = Response::parse(&action.response(Status(0x0110))).unwrap();
        assert_eq!(refused, answer(3, Status(0x0110)));
        let NActionRq { message_id, sop_class, sop_instance, .. } = action;
        let report = NEventReportRq { message_id, sop_class, sop_instance, event_type: 2 };
        assert_eq!(Request::parse(&report.encode()).unwrap(), Request::EventReport(report.clone()));
        assert_eq!(
            Request::parse(&report.response(Status::SUCCESS)).unwrap(),
            Request::Answered(answer(3, Status::SUCCESS))
        );
        let cancel = CCancelRq { message_id: 3 };
        assert_eq!(Request::parse(&cancel.encode()).unwrap(), Request::Cancel(cancel));
        let sop_class: SopClassUid = "1.2.840.10008.5.1.4.1.2.2.1".parse().unwrap();
        let find = CFindRq { message_id: 4, sop_class };
        assert_eq!(Request::parse(&find.encode()).unwrap(), Request::Find(find.clone()));
        assert!(Response::parse(&find.response(Status::PENDING)).unwrap().has_data_set);
        let refused = find.last_response(Status::CANNOT_UNDERSTAND, "a month has no 32nd day");
        assert_eq!(Response::parse(&refused).unwrap(), answer(4, Status::CANNOT_UNDERSTAND));
    }

    #[test]
    fn a_command_set_is_encoded_as_the_standard_says() {
        let encoded = CEchoRq { message_id: 1 }.encode();
        let expected = [
            &[0, 0, 0, 0, 4, 0, 0, 0, 56, 0, 0, 0][..],
            &[0, 0, 2, 0, 18, 0, 0, 0],
            b"1.2.840.10008.1.1\0",
            &[0, 0, 0, 1, 2, 0, 0, 0, 0x30, 0],
            &[0, 0, 0x10, 1, 2, 0, 0, 0, 1, 0],
            &[0, 0, 0, 8, 2, 0, 0, 0, 1, 1],
        ]
        .concat();
        assert_eq!(encoded, expected);
    }

    #[test]
    fn a_store_that_names_no_proper_instance_is_told_so() {
        let bad = CommandSet::parse(&store().encode()).unwrap().with_text(
            AFFECTED_SOP_INSTANCE,
            "../../etc/passwd",
            0,
        );
        let request = Request::parse(&bad.encode()).unwrap();
        assert_eq!(
            request,
            Request::BadStore { message_id: 7, status: Status::INVALID_SOP_INSTANCE }
        );
    }

    #[test]
    fn a_comment_cannot_carry_more_than_64_plain_characters() {
        let response = store().response(Status::CANNOT_UNDERSTAND, &"line\nbreak ".repeat(20));
        let set = CommandSet::parse(&response).unwrap();
        let comment = set.0.get(&ERROR_COMMENT).unwrap();
        assert!(comment.len() == 64 && !comment.contains(&b'\n'));
    }

    proptest! {
        #[test]
        fn bytes_of_any_kind_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Request::parse(&bytes);
            let _ = Response::parse(&bytes);
        }

        #[test]
        fn a_command_cut_anywhere_is_not_a_message(at in 0_usize..100) {
            let whole = store().encode();
            prop_assume!(at < whole.len());
            prop_assert!(!matches!(Request::parse(&whole[..at]), Ok(Request::Store(request)) if request == store()));
        }
    }
}
