//! A DICOM file as what is de-identified: small ones in memory, long ones read where they are, piece by piece.

use std::fs::File;
use std::io::{self, Read as _};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use gantry_deidentify::data_set::{self, Parsed, Reader};
use gantry_deidentify::engine::SetAside;
use gantry_deidentify::pixels::codec::Codec as _;
use gantry_deidentify::process::IN_MEMORY;
use gantry_deidentify::source::Source;
use gantry_gateway::protect::codec::Transcoder;
use gantry_gateway::telemetry::chain;
use gantry_gateway::web::part10::{FileMeta, Head, HeadReader, NotPart10};
use gantry_store::dicom::TransferSyntax;
use gantry_store::dicom::transfer_syntax::Layout;

/// As much as is read at once of a long file.
const PIECE: u64 = 1 << 20;

/// Heads have a few hundred bytes, so this reads most of them at once.
const HEAD: usize = 4 << 10;

/// Media Storage Directory Storage (PS3.10 8): a DICOMDIR.
const DIRECTORY: &str = "1.2.840.10008.1.3.10";

/// A file that begins as a DICOM file does.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) meta: FileMeta,
    pub(super) data_set: Bytes,
    /// What stands before the data set.
    pub(super) head: Vec<u8>,
}

/// The bytes of a data set.
#[derive(Debug)]
pub(super) enum Bytes {
    Memory { whole: Vec<u8>, begin: usize },
    File { file: File, begin: u64, end: u64 },
}

/// Why a file is not read.
#[derive(Debug)]
pub(super) enum NotRead {
    Io(io::Error),
    /// It does not begin as a DICOM file does.
    Other(NotPart10),
    /// It does, and is none.
    Damaged(NotPart10),
    /// It is a DICOMDIR.
    Directory,
}

impl std::fmt::Display for NotRead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(error) => write!(f, "it cannot be read: {error}"),
            Self::Other(error) | Self::Damaged(error) => write!(f, "{}", chain(error)),
            Self::Directory => f.write_str(
                "it is a DICOMDIR, which names files and patients as they were, and is not copied",
            ),
        }
    }
}

impl From<io::Error> for NotRead {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Input {
    pub(super) fn open(path: &Path) -> Result<Self, NotRead> {
        let is_directory = |name: &std::ffi::OsStr| name.eq_ignore_ascii_case("DICOMDIR");
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        let input = if length <= IN_MEMORY {
            let mut whole = Vec::with_capacity(usize::try_from(length).unwrap_or_default() + 1);
            file.read_to_end(&mut whole)?;
            let (meta, begin) = head(|at, buffer| {
                let rest = usize::try_from(at).ok().and_then(|at| whole.get(at..));
                let rest = rest.unwrap_or_default();
                let count = rest.len().min(buffer.len());
                buffer.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
                Ok(count)
            })?;
            let begin = usize::try_from(begin).unwrap_or(usize::MAX);
            let head = whole.get(..begin).unwrap_or_default().to_vec();
            Self { meta, data_set: Bytes::Memory { whole, begin }, head }
        } else {
            let (meta, begin) = head(|at, buffer| file.read_at(buffer, at))?;
            let mut head = vec![0; usize::try_from(begin).unwrap_or_default()];
            file.read_exact_at(&mut head, 0)?;
            Self { meta, data_set: Bytes::File { file, begin, end: length }, head }
        };
        let of_class = input.meta.sop_class.as_ref().is_some_and(|it| it.as_str() == DIRECTORY);
        if of_class || path.file_name().is_some_and(is_directory) {
            return Err(NotRead::Directory);
        }
        Ok(input)
    }

    /// Its attributes, read as the engine reads them.
    pub(super) fn parsed(&self) -> Result<Parsed, SetAside> {
        let syntax = &self.meta.transfer_syntax;
        let failed = |error: io::Error| SetAside::Source(error.kind());
        if matches!(syntax.layout(), Layout::ExplicitBig | Layout::Deflated) {
            let mut whole = Vec::new();
            self.data_set
                .read(0..self.data_set.length(), &mut |bytes| {
                    whole.extend_from_slice(bytes);
                    Ok(())
                })
                .map_err(failed)?;
            let native = Transcoder
                .decode(&whole, syntax)
                .map_err(|error| SetAside::Pixels(chain(&error).to_string()))?;
            return Ok(data_set::read(&TransferSyntax::explicit_vr_little_endian(), &native)?);
        }
        let mut reader = Reader::new(syntax, Some(self.data_set.length()))?;
        let mut refused = None;
        let read = self.data_set.read(0..self.data_set.length(), &mut |bytes| {
            reader.feed(bytes).map_err(|error| {
                refused = Some(error);
                io::ErrorKind::InvalidData.into()
            })
        });
        if let Some(error) = refused {
            return Err(error.into());
        }
        read.map_err(failed)?;
        Ok(reader.finish()?)
    }
}

/// Reads the head, in small pieces: what it says, and where the data set begins.
fn head(
    mut read: impl FnMut(u64, &mut [u8]) -> io::Result<usize>,
) -> Result<(FileMeta, u64), NotRead> {
    let mut reader = HeadReader::default();
    let mut buffer = [0; HEAD];
    let mut at = 0;
    loop {
        let count = read(at, &mut buffer)?;
        if count == 0 {
            return Err(kind(reader.cut_short()));
        }
        at += count as u64;
        match reader.feed(buffer.get(..count).unwrap_or_default()).map_err(kind)? {
            Head::Unfinished(same) => reader = same,
            Head::Finished(meta, begun) => return Ok((meta, at - begun.len() as u64)),
        }
    }
}

fn kind(error: NotPart10) -> NotRead {
    match error {
        NotPart10::NoMagic => NotRead::Other(error),
        damaged => NotRead::Damaged(damaged),
    }
}

impl Source for Bytes {
    fn length(&self) -> u64 {
        match self {
            Self::Memory { whole, begin } => whole.len().saturating_sub(*begin) as u64,
            Self::File { begin, end, .. } => end.saturating_sub(*begin),
        }
    }

    fn read(
        &self,
        range: Range<u64>,
        take: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        match self {
            Self::Memory { whole, begin } => {
                let rest = whole.get(*begin..).unwrap_or_default();
                let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
                match rest.get(place(range.start)..place(range.end)) {
                    Some(bytes) => take(bytes),
                    None => Err(io::ErrorKind::UnexpectedEof.into()),
                }
            }
            Self::File { file, begin, .. } => {
                let mut at = range.start;
                let most = PIECE.min(range.end.saturating_sub(at));
                let mut buffer = vec![0; usize::try_from(most).unwrap_or_default()];
                while at < range.end {
                    let count = PIECE.min(range.end - at);
                    let piece = buffer
                        .get_mut(..usize::try_from(count).unwrap_or_default())
                        .unwrap_or_default();
                    file.read_exact_at(piece, begin + at)?;
                    take(piece)?;
                    at += count;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &Bytes, range: Range<u64>) -> Vec<u8> {
        let mut read = Vec::new();
        bytes
            .read(range, &mut |piece| {
                read.extend_from_slice(piece);
                Ok(())
            })
            .unwrap();
        read
    }

    #[test]
    fn a_file_in_memory_and_one_that_is_read_in_pieces_are_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ct.dcm");
        let instance = sample_studies::ct_series(3, 1).instances.remove(0);
        let mut part10 = instance.part10();
        std::fs::write(&path, &part10).unwrap();
        let short = Input::open(&path).unwrap();
        assert_eq!(all(&short.data_set, 0..short.data_set.length()), instance.data_set);

        part10.resize(usize::try_from(IN_MEMORY).unwrap() + 5, 7);
        std::fs::write(&path, &part10).unwrap();
        let long = Input::open(&path).unwrap();

        assert!(matches!(long.data_set, Bytes::File { .. }));
        assert_eq!((&long.head, &long.meta), (&short.head, &short.meta));
        let whole = &part10[long.head.len()..];
        assert_eq!(all(&long.data_set, 0..long.data_set.length()), whole);
        assert_eq!(all(&long.data_set, 100..3_000_000), &whole[100..3_000_000]);
        let beyond = long.data_set.length()..long.data_set.length() + 1;
        assert!(long.data_set.read(beyond.clone(), &mut |_| Ok(())).is_err());
        assert!(short.data_set.read(beyond, &mut |_| Ok(())).is_err());
    }

    #[test]
    fn what_is_no_dicom_file_and_what_is_a_damaged_one_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let part10 = sample_studies::ct_series(3, 1).instances[0].part10();
        let open = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            Input::open(&path)
        };

        assert!(matches!(open("a", b"not DICOM"), Err(NotRead::Other(_))));
        assert!(matches!(open("b", b""), Err(NotRead::Other(_))));
        assert!(matches!(open("c", &part10[..140]), Err(NotRead::Damaged(_))));
        assert!(matches!(open("dicomdir", &part10), Err(NotRead::Directory)));
        assert!(open("d", &part10).unwrap().parsed().is_ok());
    }
}
