//! What partners have accepted, on this node's own disk: so that a lost database never means sending everything again.
//!
//! The index says what was delivered, and sealed files rebuild all of it but that. So every acceptance is written here too,
//! and synced, before the index hears of it. Whoever rebuilds rows reads it back (`gateway::reindex`).
//!
//! A folder of segments, `<ulid>.delivered`, each begun when the name says, only ever appended to, and never again after a
//! restart or a failed write: what a crash leaves at the end of one stays behind, and harms nothing. All numbers are little
//! endian.
//!
//! ```text
//!  offset  bytes  segment
//!       0      8  magic 8D 47 41 4E 54 52 59 44 ("\x8DGANTRYD")
//!       8      4  version, 1
//!      12      4  bytes of a record, 208
//!  then records:
//!       0     16  object id
//!      16      8  when the partner answered: milliseconds since 1970 (UTC)
//!      24     32  SHA-256 of the data set that was sent
//!      56      2  status of the C-STORE response
//!      58      6  zeros
//!      64     64  transfer syntax UID that it was sent in, padded with zeros
//!     128     72  partner, by configured name, padded with zeros
//!     200      8  first bytes of the SHA-256 of the 200 before
//! ```
//!
//! Records have one length so that a damaged one costs itself alone. There is no patient data in them, and no order: one
//! may be there twice. All calls block.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use ring::digest::{SHA256, digest};

use crate::facts::{Digest, ObjectId};
use crate::index::Receipt;

const MAGIC: &[u8; 8] = b"\x8DGANTRYD";
const VERSION: u32 = 1;
const RECORD: usize = 208;
const SUM_AT: usize = 200;
const SYNTAX: usize = 64;
const PARTNER: usize = 72;
/// A segment is read whole to find what is in it, so it stays small: 80,000 deliveries.
const LONGEST: u64 = 16 << 20;
/// Every start begins a segment; so many are made into one.
const MANY: usize = 32;

/// That a partner has an instance.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Proof {
    /// The instance, by its name here.
    pub object: ObjectId,
    /// The partner, by configured name.
    pub partner: String,
    /// What it answered, when, and to what.
    pub receipt: Receipt,
}

impl Proof {
    fn to_bytes(&self) -> io::Result<[u8; RECORD]> {
        let too_long = || io::Error::new(io::ErrorKind::InvalidInput, "a name is too long");
        let mut record = [0; RECORD];
        let mut rest = record.as_mut_slice();
        let mut put = |bytes: &[u8], length: usize| {
            let (field, after) =
                std::mem::take(&mut rest).split_at_mut_checked(length).ok_or_else(too_long)?;
            field.get_mut(..bytes.len()).ok_or_else(too_long)?.copy_from_slice(bytes);
            rest = after;
            io::Result::Ok(())
        };
        put(&self.object.to_bytes(), 16)?;
        put(&self.receipt.at.as_millisecond().to_le_bytes(), 8)?;
        put(&self.receipt.digest.0, 32)?;
        put(&self.receipt.status.to_le_bytes(), 8)?;
        put(self.receipt.transfer_syntax.uid().as_bytes(), SYNTAX)?;
        put(self.partner.as_bytes(), PARTNER)?;
        let sum = sum(record.get(..SUM_AT).unwrap_or_default());
        if let Some(field) = record.last_chunk_mut() {
            *field = sum;
        }
        Ok(record)
    }

    /// `None` for a record that is damaged.
    fn from_bytes(record: &[u8; RECORD]) -> Option<Self> {
        let (body, written) = record.split_at_checked(SUM_AT)?;
        if sum(body) != *written {
            return None;
        }
        let (object, rest) = body.split_first_chunk()?;
        let (at, rest) = rest.split_first_chunk()?;
        let (digest, rest) = rest.split_first_chunk()?;
        let (status, rest) = rest.split_first_chunk()?;
        let (_, rest) = rest.split_first_chunk::<6>()?;
        let (syntax, partner) = rest.split_at_checked(SYNTAX)?;
        let text = |bytes: &[u8]| {
            let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
            String::from_utf8(text.to_vec()).ok()
        };
        Some(Self {
            object: ObjectId::from_bytes(*object),
            partner: text(partner)?,
            receipt: Receipt {
                status: u16::from_le_bytes(*status),
                transfer_syntax: text(syntax)?.parse().ok()?,
                digest: Digest(*digest),
                at: Timestamp::from_millisecond(i64::from_le_bytes(*at)).ok()?,
            },
        })
    }
}

fn sum(bytes: &[u8]) -> [u8; 8] {
    digest(&SHA256, bytes).as_ref().first_chunk().copied().unwrap_or_default()
}

/// A segment that is being written.
#[derive(Debug)]
struct Tail {
    file: File,
    length: u64,
}

/// The folder of one node; the lock of its spool keeps others out.
#[derive(Debug)]
pub struct Delivered {
    folder: PathBuf,
    tail: Mutex<Option<Tail>>,
}

impl Delivered {
    /// Opens the folder, and makes it if it is not there.
    pub fn open(folder: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let delivered = Self { folder: folder.to_owned(), tail: Mutex::new(None) };
        delivered.compact()?;
        Ok(delivered)
    }

    /// Writes these down. When it returns they survive a power cut.
    pub fn append(&self, proofs: &[Proof]) -> io::Result<()> {
        if proofs.is_empty() {
            return Ok(());
        }
        let mut bytes = Vec::with_capacity(proofs.len() * RECORD);
        for proof in proofs {
            bytes.extend_from_slice(&proof.to_bytes()?);
        }
        // What a panic left half-written is a tail like any other.
        let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        let current = match tail.take() {
            Some(current) if current.length < LONGEST => current,
            _ => self.begin()?,
        };
        // It is put back only when it is known to be whole: after a failure the next one begins a new segment, as a second
        // sync of this one could succeed without its pages.
        *tail = Some(write(current, &bytes)?);
        Ok(())
    }

    fn begin(&self) -> io::Result<Tail> {
        let path = self.folder.join(format!("{}.delivered", ObjectId::new()));
        let mut file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(&header())?;
        File::open(&self.folder)?.sync_all()?;
        Ok(Tail { file, length: 0 })
    }

    /// Segments, oldest first, each with the time in its name.
    fn segments(&self) -> io::Result<Vec<(ObjectId, PathBuf)>> {
        let mut segments = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let is_segment = path.extension().is_some_and(|extension| extension == "delivered");
            let name = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
            if let (true, Some(name)) = (is_segment, name) {
                segments.push((name, path));
            }
        }
        segments.sort_unstable();
        Ok(segments)
    }

    /// Reads what was written down at this time or later, and some of what was before.
    pub fn since(&self, ms: u64, mut each: impl FnMut(Proof)) -> io::Result<()> {
        let segments = self.segments()?;
        let next = segments.iter().skip(1).map(|(name, _)| name.timestamp_ms());
        // A segment ends when the next one begins.
        for ((_, path), ends) in segments.iter().zip(next.chain([u64::MAX])) {
            if ends >= ms {
                read(path, &mut each)?;
            }
        }
        Ok(())
    }

    /// Reads what is written down of these objects. An object is delivered after it is made, which its name says.
    pub fn of(&self, objects: &HashSet<ObjectId>) -> io::Result<Vec<Proof>> {
        let mut proofs = Vec::new();
        if let Some(oldest) = objects.iter().map(|object| object.timestamp_ms()).min() {
            self.since(oldest, |proof| {
                if objects.contains(&proof.object) {
                    proofs.push(proof);
                }
            })?;
        }
        Ok(proofs)
    }

    /// Makes runs of short segments into one, which takes the place of its oldest. A crash in between leaves records twice.
    fn compact(&self) -> io::Result<()> {
        let segments = self.segments()?;
        if segments.len() < MANY {
            return Ok(());
        }
        let mut run: Vec<PathBuf> = Vec::new();
        let mut bytes = 0;
        for (_, path) in segments {
            let length = path.metadata()?.len();
            if bytes + length > LONGEST {
                self.join(&std::mem::take(&mut run))?;
                bytes = 0;
            }
            bytes += length;
            run.push(path);
        }
        self.join(&run)
    }

    fn join(&self, run: &[PathBuf]) -> io::Result<()> {
        let [first, others @ ..] = run else { return Ok(()) };
        if others.is_empty() {
            return Ok(());
        }
        let new = first.with_extension("part");
        let file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        let mut writer = BufWriter::new(file);
        writer.write_all(&header())?;
        let mut written = Ok(());
        for path in run {
            read(path, &mut |proof| {
                if written.is_ok() {
                    written = proof.to_bytes().and_then(|record| writer.write_all(&record));
                }
            })?;
        }
        written?;
        writer.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        fs::rename(&new, first)?;
        File::open(&self.folder)?.sync_all()?;
        others.iter().try_for_each(fs::remove_file)
    }
}

fn header() -> [u8; 16] {
    let mut header = [0; 16];
    let parts = [MAGIC.as_slice(), &VERSION.to_le_bytes(), &(RECORD as u32).to_le_bytes()];
    for (byte, value) in header.iter_mut().zip(parts.concat()) {
        *byte = value;
    }
    header
}

fn write(mut tail: Tail, bytes: &[u8]) -> io::Result<Tail> {
    tail.file.write_all(bytes)?;
    tail.file.sync_data()?;
    tail.length += bytes.len() as u64;
    Ok(tail)
}

/// Reads a segment's records; those that are damaged, and what is left of one at the end, are passed over.
fn read(path: &Path, each: &mut impl FnMut(Proof)) -> io::Result<()> {
    let mut file = BufReader::with_capacity(1 << 18, File::open(path)?);
    let mut head = [0; 16];
    match file.read_exact(&mut head) {
        // Begun, and cut off by a crash.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
        read => read?,
    }
    if head != header() {
        let message =
            format!("{} is not a list of deliveries that this version reads", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    let (mut record, mut damaged) = ([0; RECORD], 0_u64);
    loop {
        match file.read_exact(&mut record) {
            Ok(()) => match Proof::from_bytes(&record) {
                Some(proof) => each(proof),
                None => damaged += 1,
            },
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(error),
        }
    }
    if damaged > 0 {
        tracing::warn!(path = %path.display(), damaged, "records of deliveries are damaged; these may be sent again");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dicom::TransferSyntax;

    fn proof(number: u8) -> Proof {
        Proof {
            object: ObjectId::new(),
            partner: format!("partner-{number}"),
            receipt: Receipt {
                status: 0xB007,
                transfer_syntax: TransferSyntax::explicit_vr_little_endian(),
                digest: Digest([number; 32]),
                at: Timestamp::from_millisecond(1_700_000_000_000 + i64::from(number)).unwrap(),
            },
        }
    }

    fn all(delivered: &Delivered) -> Vec<Proof> {
        let mut proofs = Vec::new();
        delivered.since(0, |proof| proofs.push(proof)).unwrap();
        proofs
    }

    #[test]
    fn what_was_written_down_is_read_back_after_any_number_of_starts() {
        let folder = tempfile::tempdir().unwrap();
        let mut expected = Vec::new();
        for start in 0..100 {
            let delivered = Delivered::open(folder.path()).unwrap();
            for batch in 0..2 {
                let batch: Vec<_> = (0..3).map(|number| proof(start + batch + number)).collect();
                delivered.append(&batch).unwrap();
                expected.extend(batch);
            }
        }

        let delivered = Delivered::open(folder.path()).unwrap();

        let read = all(&delivered);
        assert_eq!(read.len(), expected.len());
        assert!(expected.iter().all(|proof| read.contains(proof)));
        assert!(fs::read_dir(folder.path()).unwrap().count() < MANY);
        let wanted: HashSet<_> = [expected[7].object, expected[590].object].into();
        let mut found = delivered.of(&wanted).unwrap();
        found.sort_unstable_by_key(|proof| proof.object);
        assert_eq!(found, [expected[7].clone(), expected[590].clone()]);
    }

    #[test]
    fn a_damaged_record_costs_itself_alone_and_a_torn_one_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let proofs: Vec<_> = (0..5).map(proof).collect();
        Delivered::open(folder.path()).unwrap().append(&proofs).unwrap();
        let path = fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
        let whole = fs::read(&path).unwrap();

        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            let read = all(&Delivered::open(folder.path()).unwrap());
            assert_eq!(read, proofs[..length.saturating_sub(16) / RECORD], "{length}");
        }
        for at in 16..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            fs::write(&path, bytes).unwrap();
            let read = all(&Delivered::open(folder.path()).unwrap());
            let mut expected = proofs.clone();
            expected.remove((at - 16) / RECORD);
            assert_eq!(read, expected, "{at}");
        }
        // Another version's segment is an error and not an empty one.
        fs::write(&path, [&whole[..8], &[2], &whole[9..]].concat()).unwrap();
        let refused = Delivered::open(folder.path()).unwrap().since(0, |_| {});
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
