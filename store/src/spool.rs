//! The spool: where an instance begins to count.
//!
//! A folder of sealed files. An instance is written as `<object>.part` while it arrives; [`Incoming::commit`] then writes
//! the header, syncs the file, renames it to `<object>.sealed` and syncs the folder. Only after that may its sender hear
//! "success". A crash before the rename leaves a `.part`, which [`Spool::sweep`] removes; a crash after it leaves an
//! entry, which whoever drains the spool finds.
//!
//! Syncs of the folder are shared: everyone who has renamed waits for one that began after. A sync of a file that fails
//! condemns that file, never to be tried again on it, as the kernel may have dropped the dirty pages. A failed sync of
//! the folder condemns the spool until the node starts anew: nobody can say which names are on the disk.
//!
//! All calls block, so they belong on threads that may.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use thiserror::Error;

use crate::facts::{Facts, ObjectId};
use crate::sealed::{HEADER, Keyring, ReadAt, SealedError, SealedReader, Sealer};

/// Why the spool cannot take, keep or give an instance.
#[derive(Debug, Error)]
pub enum SpoolError {
    /// No room: less is free than the reserve, or the disk said that it is full.
    #[error("the spool is full")]
    Full,
    /// An operation on the disk failed.
    #[error("cannot {operation} in the spool")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// Another process holds it.
    #[error("another node uses this data directory")]
    Locked,
    /// A sync of the folder failed earlier, so nothing can be promised until a restart.
    #[error(
        "the spool takes nothing more: its folder could not be synced; restart the node and check the disk"
    )]
    Condemned,
    /// Sealing failed.
    #[error("cannot seal")]
    Seal(#[source] SealedError),
}

fn failed(operation: &'static str) -> impl Fn(io::Error) -> SpoolError {
    move |source| match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => SpoolError::Full,
        _ => SpoolError::Io { operation, source },
    }
}

/// How safe an instance must be before its sender hears "success".
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Durability {
    /// It survives a power cut.
    #[default]
    Durable,
    /// It survives the end of this process, not a power cut.
    Received,
}

/// A folder of sealed files, owned by one running node.
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    keyring: Arc<Keyring>,
    reserve: u64,
    names: SharedSync,
    // Held for as long as the spool lives, so that two nodes never share one.
    _lock: File,
}

/// What [`Spool::sweep`] found.
#[derive(Debug, Default)]
pub struct Swept {
    /// Entries that count, oldest name first.
    pub entries: Vec<ObjectId>,
    /// Unfinished files that were removed.
    pub removed: usize,
}

impl Spool {
    /// Opens the folder, making it (mode 0700) where it is missing. `reserve` is how many bytes must stay free on its
    /// disk for an instance to be let in.
    pub fn open(folder: &Path, keyring: Arc<Keyring>, reserve: u64) -> Result<Self, SpoolError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(failed("make the folder"))?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(folder.join("lock"))
            .map_err(failed("open the lock"))?;
        lock.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => SpoolError::Locked,
            fs::TryLockError::Error(source) => {
                SpoolError::Io { operation: "take the lock", source }
            }
        })?;
        // The folder itself must outlive a power cut, not only what is put in it.
        for ancestor in folder.ancestors().take(3).filter(|path| !path.as_os_str().is_empty()) {
            File::open(ancestor)
                .and_then(|folder| folder.sync_all())
                .map_err(failed("sync the folder"))?;
        }
        let names = SharedSync::new(File::open(folder).map_err(failed("open the folder"))?);
        Ok(Self { folder: folder.to_owned(), keyring, reserve, names, _lock: lock })
    }

    /// Removes what a crash left unfinished, and lists what counts. For the start, before anything arrives.
    pub fn sweep(&self) -> Result<Swept, SpoolError> {
        let mut swept = Swept::default();
        for entry in fs::read_dir(&self.folder).map_err(failed("list"))? {
            let path = entry.map_err(failed("list"))?.path();
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("part") => {
                    fs::remove_file(&path).map_err(failed("remove an unfinished file"))?;
                    swept.removed += 1;
                }
                Some("sealed") => swept.entries.extend(object_of(&path)),
                _ => {}
            }
        }
        swept.entries.sort_unstable();
        Ok(swept)
    }

    /// Lists what counts, oldest name first, while the node runs.
    pub fn entries(&self) -> Result<Vec<ObjectId>, SpoolError> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(failed("list"))? {
            let path = entry.map_err(failed("list"))?.path();
            if path.extension().is_some_and(|extension| extension == "sealed") {
                entries.extend(object_of(&path));
            }
        }
        entries.sort_unstable();
        Ok(entries)
    }

    /// Bytes that are free for instances on the spool's disk, beyond the reserve.
    pub fn room(&self) -> Result<u64, SpoolError> {
        let disk = rustix::fs::statvfs(&self.folder)
            .map_err(|errno| failed("measure the disk")(errno.into()))?;
        Ok((disk.f_bavail * disk.f_frsize).saturating_sub(self.reserve))
    }

    /// Begins an instance. `memory` is the segment buffer of an earlier one, or empty.
    pub fn begin(&self, memory: Vec<u8>) -> Result<Incoming<'_>, SpoolError> {
        self.names.healthy()?;
        if self.room()? == 0 {
            return Err(SpoolError::Full);
        }
        let object = ObjectId::new();
        let sealer = Sealer::new(object, &self.keyring, memory).map_err(SpoolError::Seal)?;
        let path = self.folder.join(format!("{object}.part"));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed("make a file"))?;
        Ok(Incoming { spool: self, object, sealer: Some(sealer), file, path, at: HEADER as u64 })
    }

    /// Opens an entry.
    pub fn read(&self, object: ObjectId) -> Result<SealedReader<Box<dyn ReadAt>>, SealedError> {
        SealedReader::open(Box::new(File::open(self.path(object))?), object, &self.keyring)
    }

    /// Where an entry's file lies, for an object store that adopts it.
    pub fn path(&self, object: ObjectId) -> PathBuf {
        self.folder.join(format!("{object}.sealed"))
    }

    /// Removes an entry that is kept elsewhere by now. One that is already gone is no error.
    pub fn remove(&self, object: ObjectId) -> Result<(), SpoolError> {
        match fs::remove_file(self.path(object)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("remove an entry")(error))
            }
            _ => Ok(()),
        }
    }

    /// Sets aside an entry that cannot be read, out of the way of the others and for a person to look at.
    pub fn set_aside(&self, object: ObjectId) -> Result<PathBuf, SpoolError> {
        let aside = self.folder.join(format!("{object}.damaged"));
        fs::rename(self.path(object), &aside).map_err(failed("set an entry aside"))?;
        Ok(aside)
    }

    /// The keys that its entries are sealed with.
    pub fn keyring(&self) -> &Arc<Keyring> {
        &self.keyring
    }
}

fn object_of(path: &Path) -> Option<ObjectId> {
    path.file_stem()?.to_str()?.parse().ok()
}

/// An instance on its way into the spool. Dropped before [`Incoming::commit`], it leaves nothing behind.
#[derive(Debug)]
pub struct Incoming<'a> {
    spool: &'a Spool,
    object: ObjectId,
    sealer: Option<Sealer>,
    file: File,
    path: PathBuf,
    at: u64,
}

impl Incoming<'_> {
    /// The name it will have.
    pub fn object(&self) -> ObjectId {
        self.object
    }

    /// Takes the next bytes of the data set.
    pub fn write(&mut self, data: &[u8]) -> Result<(), SpoolError> {
        let (file, at) = (&self.file, &mut self.at);
        let Some(sealer) = &mut self.sealer else { return Err(SpoolError::Condemned) };
        sealer.update(data, |segment| append(file, at, segment)).map_err(unseal)
    }

    /// Makes it count. What was written is the data set that `facts` describe, and `facts.object` is [`Incoming::object`].
    /// Returns the segment buffer for the next one.
    pub fn commit(mut self, facts: &Facts, durability: Durability) -> Result<Vec<u8>, SpoolError> {
        let (file, at) = (&self.file, &mut self.at);
        let Some(sealer) = self.sealer.take() else { return Err(SpoolError::Condemned) };
        let (header, memory) =
            sealer.finish(facts, |segment| append(file, at, segment)).map_err(unseal)?;
        self.file.write_all_at(&header, 0).map_err(failed("write"))?;
        if durability == Durability::Durable {
            self.file.sync_data().map_err(failed("sync a file"))?;
        }
        let entry = self.spool.path(self.object);
        fs::rename(&self.path, &entry).map_err(failed("name a file"))?;
        // From here on the entry exists: dropping must not take it away again.
        self.path.clear();
        if durability == Durability::Durable {
            self.spool.names.sync()?;
        }
        Ok(memory)
    }
}

impl Drop for Incoming<'_> {
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty() {
            // If this fails too, the next start sweeps it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn append(file: &File, at: &mut u64, bytes: &[u8]) -> io::Result<()> {
    file.write_all_at(bytes, *at)?;
    *at += bytes.len() as u64;
    Ok(())
}

fn unseal(error: SealedError) -> SpoolError {
    match error {
        SealedError::Io(error) => failed("write")(error),
        other => SpoolError::Seal(other),
    }
}

/// One sync at a time, shared by all who asked before it began.
#[derive(Debug)]
struct SharedSync {
    folder: File,
    turn: Mutex<Turn>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct Turn {
    asked: u64,
    synced: u64,
    running: bool,
    condemned: bool,
}

impl SharedSync {
    fn new(folder: File) -> Self {
        Self { folder, turn: Mutex::default(), ended: Condvar::new() }
    }

    fn turn(&self) -> std::sync::MutexGuard<'_, Turn> {
        // Nothing in a turn is left half done by a panic: the fields are numbers set one by one.
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn healthy(&self) -> Result<(), SpoolError> {
        if self.turn().condemned { Err(SpoolError::Condemned) } else { Ok(()) }
    }

    /// Returns once a sync that began after this call has ended well.
    fn sync(&self) -> Result<(), SpoolError> {
        let mut turn = self.turn();
        turn.asked += 1;
        let mine = turn.asked;
        loop {
            if turn.condemned {
                return Err(SpoolError::Condemned);
            }
            if turn.synced >= mine {
                return Ok(());
            }
            if turn.running {
                turn = self.ended.wait(turn).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            turn.running = true;
            let covered = turn.asked;
            drop(turn);
            let result = self.folder.sync_all();
            turn = self.turn();
            turn.running = false;
            match result {
                Ok(()) => turn.synced = covered,
                Err(_) => turn.condemned = true,
            }
            self.ended.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sealed::facts_of;

    fn spool(folder: &Path) -> Spool {
        let keys = folder.join("keys");
        let keyring = Keyring::open(&keys).or_else(|_| Keyring::create(&keys)).unwrap();
        Spool::open(&folder.join("spool"), Arc::new(keyring), 0).unwrap()
    }

    fn write(spool: &Spool, data_set: &[u8]) -> ObjectId {
        let mut incoming = spool.begin(Vec::new()).unwrap();
        let object = incoming.object();
        data_set.chunks(700).for_each(|chunk| incoming.write(chunk).unwrap());
        incoming.commit(&facts_of(object, data_set), Durability::Durable).unwrap();
        object
    }

    #[test]
    fn what_is_committed_is_found_after_a_restart_and_what_is_not_is_swept() {
        let folder = tempfile::tempdir().unwrap();
        let data_set = vec![7; 300_000];
        let first = spool(folder.path());
        let object = write(&first, &data_set);
        let mut unfinished = first.begin(Vec::new()).unwrap();
        unfinished.write(&data_set).unwrap();
        std::mem::forget(unfinished);
        drop(first);

        let second = spool(folder.path());
        let swept = second.sweep().unwrap();

        assert_eq!((swept.entries, swept.removed), (vec![object], 1));
        let mut read = Vec::new();
        let entry = second.read(object).unwrap();
        let gather = |plain: &[u8]| {
            read.extend_from_slice(plain);
            Ok::<_, SealedError>(())
        };
        entry.copy_to(gather).unwrap();
        assert!(read == data_set);
        second.remove(object).unwrap();
        second.remove(object).unwrap();
        assert!(second.entries().unwrap().is_empty());
    }

    #[test]
    fn an_instance_that_is_given_up_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let spool = spool(folder.path());
        let mut incoming = spool.begin(Vec::new()).unwrap();
        incoming.write(&vec![1; 600_000]).unwrap();

        drop(incoming);

        let left: Vec<_> = fs::read_dir(folder.path().join("spool"))
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(left, ["lock"]);
    }

    #[test]
    fn two_nodes_cannot_share_a_spool() {
        let folder = tempfile::tempdir().unwrap();
        let first = spool(folder.path());

        let refused =
            Spool::open(&folder.path().join("spool"), first.keyring().clone(), 0).unwrap_err();

        assert!(matches!(refused, SpoolError::Locked), "{refused}");
    }

    #[test]
    fn a_disk_with_less_than_the_reserve_takes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let keyring = Arc::new(Keyring::create(&folder.path().join("keys")).unwrap());
        let spool = Spool::open(&folder.path().join("spool"), keyring, u64::MAX).unwrap();

        assert!(matches!(spool.begin(Vec::new()), Err(SpoolError::Full)));
    }

    #[test]
    fn associations_share_syncs_and_all_are_served() {
        let folder = tempfile::tempdir().unwrap();
        let spool = spool(folder.path());

        std::thread::scope(|threads| {
            for _ in 0..8 {
                threads.spawn(|| {
                    for _ in 0..20 {
                        write(&spool, &[3; 5000]);
                    }
                });
            }
        });

        assert_eq!(spool.entries().unwrap().len(), 160);
        let turn = spool.names.turn();
        assert!(turn.asked == 160 && turn.synced == 160 && !turn.running, "{turn:?}");
    }
}
