//! Protection: the only maker of [`Outgoing`], and `Outgoing` is all that a partner can be sent.
//!
//! A delivery names what was received, and under which protection it leaves; what may leave is made here. So an original
//! cannot be sent where a protected copy was ordered: there is no way to write that, and a protection that the
//! configuration does not know any more lets nothing out. De-identification is `gantry-deidentify`'s; what it sets aside
//! does not leave.

use std::io;
use std::ops::Range;
use std::sync::{Arc, LazyLock};

pub mod codec;

use bytes::Bytes;
use gantry_deidentify::engine::{Deidentifier, SetAside};
use gantry_deidentify::pixels::mask::Library;
use gantry_deidentify::pixels::ocr::Ocr;
use gantry_deidentify::process::{IN_MEMORY, Protected, Tools};
use gantry_deidentify::seal::Recipient;
use gantry_deidentify::source::Source;
use gantry_store::dicom::{
    SeriesInstanceUid, SopClassUid, SopInstanceUid, StudyInstanceUid, TransferSyntax,
};
use gantry_store::facts::Digest;
use gantry_store::sealed::{ReadAt, SealedError, SealedReader};
use thiserror::Error;

/// A received instance.
type Received = SealedReader<Box<dyn ReadAt>>;

/// How what leaves is made, for one project or, where it is sealed, for one partner.
#[derive(Debug)]
pub struct Protection {
    name: String,
    deidentifier: Deidentifier,
    tools: Tools,
}

/// Two that make the same of everything.
impl PartialEq for Protection {
    fn eq(&self, other: &Self) -> bool {
        let recipients = |protection: &Self| {
            protection.tools.recipients.iter().map(|one| one.fingerprint_hex()).collect::<Vec<_>>()
        };
        let profile = |protection: &Self| protection.deidentifier.profile().digest.clone();
        self.name == other.name
            && profile(self) == profile(other)
            && self.deidentifier.key_fingerprint() == other.deidentifier.key_fingerprint()
            && recipients(self) == recipients(other)
    }
}

/// Looked for once: it is asked for its version and its languages.
static OCR: LazyLock<Option<Ocr>> = LazyLock::new(Ocr::find);

impl Protection {
    /// The protection of this name.
    pub fn new(
        name: String,
        deidentifier: Deidentifier,
        masks: Library,
        recipients: Vec<Recipient>,
    ) -> Self {
        let ocr = if deidentifier.profile().pixels.ocr { OCR.clone() } else { None };
        let codec = Some(Arc::new(codec::Transcoder) as _);
        Self { name, deidentifier, tools: Tools { codec, masks, ocr, recipients } }
    }

    /// What deliveries call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Who may read what was removed.
    pub fn recipients(&self) -> &[Recipient] {
        &self.tools.recipients
    }

    /// Whether pixels are searched for text: the profile asks for it, and tesseract is installed.
    pub fn searches_text(&self) -> bool {
        self.tools.ocr.is_some()
    }

    /// What makes it.
    pub fn deidentifier(&self) -> &Deidentifier {
        &self.deidentifier
    }

    /// The SOP Instance UID under which it leaves.
    pub fn sop_instance(&self, study: &StudyInstanceUid, uid: &SopInstanceUid) -> SopInstanceUid {
        self.uid(study, uid.as_str()).unwrap_or_else(|| uid.clone())
    }

    /// The Series Instance UID under which it leaves.
    pub fn series(&self, study: &StudyInstanceUid, uid: &SeriesInstanceUid) -> SeriesInstanceUid {
        self.uid(study, uid.as_str()).unwrap_or_else(|| uid.clone())
    }

    /// The Study Instance UID under which it leaves.
    pub fn study(&self, study: &StudyInstanceUid) -> StudyInstanceUid {
        self.uid(study, study.as_str()).unwrap_or_else(|| study.clone())
    }

    /// `None` never happens: what takes a UID's place is one.
    fn uid<T: std::str::FromStr>(&self, study: &StudyInstanceUid, uid: &str) -> Option<T> {
        self.deidentifier.uid(study.as_str(), uid).parse().ok()
    }
}

/// Why nothing leaves.
#[derive(Debug, Error)]
pub enum ProtectError {
    /// It is set aside, with this reason.
    #[error("it is not de-identified: {0}")]
    SetAside(SetAside),
    /// It was ordered under a protection that the configuration does not have any more.
    #[error("its protection \"{0}\" is not in the configuration any more")]
    Unknown(String),
    /// Its bytes cannot be read.
    #[error("it cannot be read")]
    Sealed(#[from] SealedError),
}

/// An instance that may leave.
#[derive(Debug)]
pub struct Outgoing {
    sop_class: SopClassUid,
    sop_instance: SopInstanceUid,
    transfer_syntax: TransferSyntax,
    length: u64,
    content: Content,
}

enum Content {
    Sealed(Box<Received>),
    /// A long one, whose pixel data are read again each time.
    Protected(Box<Protected>, Box<SealedSource>),
    /// One that was made here, and is short enough.
    Memory(Bytes),
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Sealed(_) => "as received",
            Self::Protected(..) => "protected",
            Self::Memory(_) => "made in memory",
        })
    }
}

/// A received instance as what is de-identified. It is read more than once: a short one is opened once.
enum SealedSource {
    Memory(Vec<u8>),
    Sealed(Box<Received>),
}

/// As much as is handed on at once.
const PIECE: usize = 256 << 10;

/// As much as is read at once.
const READ: u64 = 1 << 20;

impl SealedSource {
    fn open(received: Received) -> Result<Self, SealedError> {
        let length = received.facts().length;
        if length > IN_MEMORY {
            return Ok(Self::Sealed(Box::new(received)));
        }
        let mut whole = vec![0; usize::try_from(length).unwrap_or_default()];
        received.range(0, &mut whole)?;
        Ok(Self::Memory(whole))
    }
}

impl Source for SealedSource {
    fn length(&self) -> u64 {
        match self {
            Self::Memory(whole) => whole.length(),
            Self::Sealed(received) => received.facts().length,
        }
    }

    fn read(
        &self,
        range: Range<u64>,
        take: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let received = match self {
            Self::Memory(whole) => return whole.read(range, take),
            Self::Sealed(received) => received,
        };
        let mut buffer = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let length = (range.end - at).min(READ);
            buffer.resize(usize::try_from(length).unwrap_or(0), 0);
            received.range(at, &mut buffer).map_err(|error| match error {
                SealedError::Io(error) => error,
                other => io::Error::other(other),
            })?;
            take(&buffer)?;
            at += length;
        }
        Ok(())
    }
}

/// Makes of a received instance what its route lets out. Blocks.
pub fn protect(
    received: Received,
    protection: Option<&Protection>,
) -> Result<Outgoing, ProtectError> {
    let facts = received.facts();
    let Some(protection) = protection else {
        let (transfer_syntax, length) = (facts.transfer_syntax.clone(), facts.length);
        let (sop_class, sop_instance) = (facts.sop_class.clone(), facts.sop_instance.clone());
        let content = Content::Sealed(Box::new(received));
        return Ok(Outgoing { sop_class, sop_instance, transfer_syntax, length, content });
    };
    let (sop_class, syntax) = (facts.sop_class.clone(), facts.transfer_syntax.clone());
    let sop_instance = protection.sop_instance(&facts.study, &facts.sop_instance);
    let source = SealedSource::open(received)?;
    let protected = protection
        .deidentifier
        .process(&source, &syntax, &protection.tools)
        .map_err(ProtectError::SetAside)?;
    let (transfer_syntax, length) = (protected.transfer_syntax.clone(), protected.length);
    let content = match Box::new(protected).into_memory() {
        Ok(bytes) => Content::Memory(bytes.into()),
        Err(protected) => Content::Protected(protected, Box::new(source)),
    };
    Ok(Outgoing { sop_class, sop_instance, transfer_syntax, length, content })
}

impl Outgoing {
    /// What it is.
    pub fn sop_class(&self) -> &SopClassUid {
        &self.sop_class
    }

    /// Which one it is.
    pub fn sop_instance(&self) -> &SopInstanceUid {
        &self.sop_instance
    }

    /// How it is encoded.
    pub fn transfer_syntax(&self) -> &TransferSyntax {
        &self.transfer_syntax
    }

    /// SHA-256 of what leaves; made anew each time unless it leaves as received.
    pub fn digest(&self) -> Result<Digest, SealedError> {
        match &self.content {
            Content::Sealed(received) => Ok(received.facts().digest),
            Content::Memory(bytes) => Ok(Digest::of(bytes)),
            Content::Protected(protected, source) => {
                protected.digest(source.as_ref()).map_err(SealedError::Io)
            }
        }
    }

    /// Bytes of what leaves.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Hands on its bytes, in order, each piece with whether it is the last. Blocks. Every piece was authenticated, so a
    /// damaged object ends in an error before its last piece and is never sent whole.
    pub fn pieces<E: From<SealedError>>(
        &self,
        mut take: impl FnMut(Bytes, bool) -> Result<(), E>,
    ) -> Result<(), E> {
        match &self.content {
            Content::Memory(bytes) => {
                let mut rest = bytes.clone();
                while rest.len() > PIECE {
                    take(rest.split_to(PIECE), false)?;
                }
                take(rest, true)
            }
            Content::Protected(protected, source) => {
                // Which piece is the last is known when there is none behind it.
                let (mut held, mut stopped) = (Bytes::new(), None);
                let written = protected.write(source.as_ref(), &mut |bytes| {
                    for piece in bytes.chunks(PIECE) {
                        let before = std::mem::replace(&mut held, Bytes::copy_from_slice(piece));
                        if !before.is_empty()
                            && let Err(error) = take(before, false)
                        {
                            stopped = Some(error);
                            return Err(io::ErrorKind::Interrupted.into());
                        }
                    }
                    Ok(())
                });
                match (stopped, written) {
                    (Some(error), _) => Err(error),
                    (None, Err(error)) => Err(SealedError::Io(error).into()),
                    (None, Ok(())) => take(held, true),
                }
            }
            Content::Sealed(reader) => {
                for index in 0..reader.segments() {
                    let mut buffer = Vec::new();
                    let length = reader.segment(index, &mut buffer)?.len();
                    buffer.truncate(length);
                    take(buffer.into(), index + 1 == reader.segments())?;
                }
                Ok(())
            }
        }
    }

    /// Hands on some of its bytes. Blocks. What does not exist is an error.
    pub fn range<E: From<SealedError>>(
        &self,
        range: Range<u64>,
        take: &mut dyn FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let short = || SealedError::Io(io::ErrorKind::UnexpectedEof.into());
        if range.start > range.end || range.end > self.length {
            return Err(short().into());
        }
        match &self.content {
            Content::Memory(bytes) => {
                let to = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
                take(bytes.get(to(range.start)..to(range.end)).ok_or_else(short)?)
            }
            Content::Sealed(received) => {
                let (mut buffer, mut at) = (Vec::new(), range.start);
                while at < range.end {
                    let length = (range.end - at).min(READ);
                    buffer.resize(usize::try_from(length).unwrap_or(0), 0);
                    received.range(at, &mut buffer)?;
                    take(&buffer)?;
                    at += length;
                }
                Ok(())
            }
            // It is made anew from its beginning each time.
            Content::Protected(..) => {
                let mut at = 0;
                self.pieces(|piece, _| {
                    let (begin, end) = (at, at + piece.len() as u64);
                    at = end;
                    let within = |at: u64| usize::try_from(at.clamp(begin, end) - begin);
                    match (within(range.start), within(range.end)) {
                        (Ok(first), Ok(last)) if first < last => {
                            take(piece.get(first..last).unwrap_or_default())
                        }
                        _ => Ok(()),
                    }
                })
            }
        }
    }

    /// The same instance in another encoding, by `convert`: data set in, data set out. Needs the whole data set in memory.
    pub fn converted<E: From<SealedError>>(
        self,
        to: TransferSyntax,
        convert: impl FnOnce(&[u8], &TransferSyntax) -> Result<Vec<u8>, E>,
    ) -> Result<Self, E> {
        let mut whole = Vec::with_capacity(usize::try_from(self.length).unwrap_or_default());
        self.pieces(|piece, _| {
            whole.extend_from_slice(&piece);
            Ok::<_, E>(())
        })?;
        let converted = convert(&whole, &self.transfer_syntax)?;
        Ok(Self {
            transfer_syntax: to,
            length: converted.len() as u64,
            content: Content::Memory(converted.into()),
            ..self
        })
    }
}
