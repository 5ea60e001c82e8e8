//! How a command ends: an exit code that scripts may rely on, and for people what went wrong and what to do next.

use std::fmt::Display;
use std::io;
use std::process::ExitCode;

use gantry_gateway::telemetry::chain;
use gantry_store::index::FailureKind;

/// What the exit code says. The numbers are promised to scripts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Exit {
    /// It was done.
    Done = 0,
    /// It failed, or the answer is no.
    Failed = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// There is no such thing.
    NotFound = 3,
    /// This user may not.
    Permission = 4,
    /// It may work if tried again.
    Temporary = 5,
    /// Some of it was done.
    Partly = 6,
    /// The other side refused.
    Refused = 8,
    /// The other side cannot be reached.
    Unreachable = 9,
    /// A rule that keeps patients safe refused it.
    Unsafe = 10,
    /// A person interrupted it.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// What a failure at the other end means for a script.
impl From<FailureKind> for Exit {
    fn from(kind: FailureKind) -> Self {
        match kind {
            FailureKind::Unreachable | FailureKind::TlsFailed => Self::Unreachable,
            FailureKind::AssociationRejected
            | FailureKind::NoPresentationContext
            | FailureKind::Refused => Self::Refused,
            FailureKind::OutOfResources
            | FailureKind::TimedOut
            | FailureKind::Aborted
            | FailureKind::SourceUnavailable => Self::Temporary,
            // A safety rule said no.
            FailureKind::NotProtected => Self::Unsafe,
            FailureKind::CannotConvert | FailureKind::SourceUnreadable | FailureKind::NotStored => {
                Self::Failed
            }
        }
    }
}

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    /// What happened, in one line; `None` where there is nobody to tell.
    pub(crate) message: Option<String>,
    /// The next step, if there is one.
    pub(crate) hint: Option<String>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Display) -> Self {
        Self { exit, message: Some(message.to_string()), hint: None }
    }

    /// Says it with all its causes.
    pub(crate) fn because(exit: Exit, error: &dyn std::error::Error) -> Self {
        Self::new(exit, chain(error))
    }

    pub(crate) fn hint(self, hint: impl Display) -> Self {
        Self { hint: Some(hint.to_string()), ..self }
    }

    /// Whoever read our output has heard enough: that is success (`gantry transfer list | head -1`).
    pub(crate) fn of_output(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self { exit: Exit::Done, message: None, hint: None },
            _ => Self::new(Exit::Failed, format_args!("cannot write to standard output: {error}")),
        }
    }

    /// An operation on a file or folder.
    pub(crate) fn of_file(operation: &str, path: &std::path::Path, error: &io::Error) -> Self {
        let exit = match error.kind() {
            io::ErrorKind::NotFound => Exit::NotFound,
            io::ErrorKind::PermissionDenied => Exit::Permission,
            _ => Exit::Failed,
        };
        Self::new(exit, format_args!("cannot {operation} {}: {error}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_are_those_that_scripts_rely_on() {
        let codes = [
            (Exit::Done, 0),
            (Exit::Failed, 1),
            (Exit::Usage, 2),
            (Exit::NotFound, 3),
            (Exit::Permission, 4),
            (Exit::Temporary, 5),
            (Exit::Partly, 6),
            (Exit::Refused, 8),
            (Exit::Unreachable, 9),
            (Exit::Unsafe, 10),
            (Exit::Interrupted, 130),
        ];
        for (exit, code) in codes {
            assert_eq!(exit as u8, code, "{exit:?}");
        }
    }

    #[test]
    fn a_reader_who_has_heard_enough_is_no_failure() {
        let closed = Failure::of_output(&io::ErrorKind::BrokenPipe.into());
        let full = Failure::of_output(&io::ErrorKind::StorageFull.into());

        assert_eq!((closed.exit, closed.message), (Exit::Done, None));
        assert_eq!(full.exit, Exit::Failed);
    }
}
