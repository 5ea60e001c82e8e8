//! What may leave of what is kept: an instance is opened where it is, protected as ordered, and converted where the other end
//! takes nothing else. The same for deliveries, and for whoever fetches.

use std::sync::{Arc, Mutex, PoisonError};

use gantry_deidentify::engine::SetAside;
use gantry_store::dicom::TransferSyntax;
use gantry_store::facts::ObjectId;
use gantry_store::index::{Failure, FailureKind};
use gantry_store::object::{self, ObjectError, ObjectStore, ReadError};
use gantry_store::sealed::{ReadAt, SealedError, SealedReader};
use gantry_store::spool::Spool;

use super::transcode;
use crate::config::Config;
use crate::protect::{self, Outgoing, ProtectError};
use crate::telemetry::chain;

/// The longest data set that is converted, as conversion holds it in memory, decoded too.
pub const CONVERTIBLE: u64 = 512 << 20;

/// All that is kept, for reading.
#[derive(Debug)]
pub struct Library {
    /// What protections there are.
    pub config: Arc<Config>,
    /// Where instances are first.
    pub spool: Arc<Spool>,
    /// Where they are later.
    pub objects: Arc<dyn ObjectStore>,
    /// Held while an instance is converted: one at a time, as each is in memory whole.
    pub converting: Mutex<()>,
}

impl Library {
    /// What may leave of an instance under the protection of this name; as received where there is none. Blocks.
    pub fn outgoing(
        &self,
        object: ObjectId,
        protection: Option<&str>,
    ) -> Result<Outgoing, Failure> {
        let refused = |error: ProtectError| match error {
            ProtectError::Sealed(error) => unread(&error),
            ProtectError::SetAside(SetAside::Source(kind)) => unread(&SealedError::Io(kind.into())),
            other => Failure {
                kind: FailureKind::NotProtected,
                status: None,
                text: chain(&other).to_string(),
            },
        };
        let protection = match protection {
            None => None,
            Some(name) => match self.config.protections.get(name) {
                Some(protection) => Some(protection.as_ref()),
                None => return Err(refused(ProtectError::Unknown(name.to_owned()))),
            },
        };
        protect::protect(self.open(object)?, protection).map_err(refused)
    }

    /// The same in this encoding; of odd length it is written anew in its own, which makes it even. Blocks.
    pub fn converted(&self, outgoing: Outgoing, to: &TransferSyntax) -> Result<Outgoing, Failure> {
        if outgoing.transfer_syntax() == to && outgoing.length().is_multiple_of(2) {
            return Ok(outgoing);
        }
        let cannot =
            |text: String| Failure { kind: FailureKind::CannotConvert, status: None, text };
        if outgoing.length() > CONVERTIBLE {
            return Err(cannot(format!(
                "longer than {CONVERTIBLE} bytes, which is the most that is converted"
            )));
        }
        let _one_at_a_time = self.converting.lock().unwrap_or_else(PoisonError::into_inner);
        let converted = outgoing.converted(to.clone(), |data_set, from| {
            transcode::convert(data_set, from, to)
                .map_err(|error| Unconverted(cannot(chain(&error).to_string())))
        });
        converted.map_err(|Unconverted(why)| why)
    }

    /// Opens an instance where it is: in the spool, whose pages are still in memory, or in the object store.
    fn open(&self, object: ObjectId) -> Result<SealedReader<Box<dyn ReadAt>>, Failure> {
        match self.spool.read(object) {
            Err(SealedError::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => {}
            opened => return opened.map_err(|error| unread(&error)),
        }
        object::read(&*self.objects, object, self.spool.keyring()).map_err(|error| match error {
            ReadError::Sealed(error) => unread(&error),
            ReadError::Store(error @ ObjectError::Remote { .. }) if error.concerns_all() => {
                unavailable(chain(&error).to_string())
            }
            ReadError::Store(error) => unreadable(chain(&error).to_string()),
        })
    }
}

/// What an error of reading means: this object is damaged, or the store is away.
pub fn unread(error: &SealedError) -> Failure {
    let text = chain(error).to_string();
    // A reader of a store on the network tells by its own error that this was lost under way.
    let store = match error {
        SealedError::Io(error) => {
            error.get_ref().and_then(|error| error.downcast_ref::<ObjectError>())
        }
        _ => None,
    };
    match store {
        Some(error) if error.concerns_all() => unavailable(text),
        _ => unreadable(text),
    }
}

/// Why there is nothing in another encoding.
struct Unconverted(Failure);

impl From<SealedError> for Unconverted {
    fn from(error: SealedError) -> Self {
        Self(unread(&error))
    }
}

fn unavailable(text: String) -> Failure {
    Failure { kind: FailureKind::SourceUnavailable, status: None, text }
}

fn unreadable(text: String) -> Failure {
    Failure { kind: FailureKind::SourceUnreadable, status: None, text }
}
