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
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use thiserror::Error;

use crate::facts::{Facts, ObjectId};
use crate::sealed::{HEADER, Keyring, ReadAt, SealedError, SealedReader, Sealer};

/// Inodes that are left to index and log, which make a few files.
const INODES: u64 = 256;

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

/// How full the spool may get with what can wait: what is beyond it is for emergencies.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HighWater {
    /// So many hundredths of its disk's bytes and inodes, whoever uses them.
    Percent(u8),
    /// So many bytes of its own.
    Bytes(u64),
}

/// What the spool can still take.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Room {
    /// Bytes, for what can wait.
    pub bytes: u64,
    /// Bytes, for emergencies.
    pub emergency_bytes: u64,
    /// Files, for what can wait, if the file system counts them.
    pub inodes: Option<u64>,
    /// Bytes that it holds.
    pub held: u64,
}

/// A folder of sealed files, owned by one running node.
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    keyring: Arc<Keyring>,
    reserve: u64,
    high_water: HighWater,
    emergency_reserve: u64,
    held: AtomicU64,
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
        let mut held = 0;
        for entry in fs::read_dir(folder).map_err(failed("list"))? {
            let entry = entry.map_err(failed("list"))?;
            if entry.path().extension().is_some_and(|extension| extension == "sealed") {
                held += entry.metadata().map_err(failed("list"))?.len();
            }
        }
        Ok(Self {
            folder: folder.to_owned(),
            keyring,
            reserve,
            high_water: HighWater::Percent(100),
            emergency_reserve: 0,
            held: held.into(),
            names,
            _lock: lock,
        })
    }

    /// With a mark up to which it takes what can wait, and bytes beyond that for emergencies.
    #[must_use]
    pub fn limited(self, high_water: HighWater, emergency_reserve: u64) -> Self {
        Self { high_water, emergency_reserve, ..self }
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
                Some("held") => {
                    let again = path.with_extension("sealed");
                    fs::rename(&path, &again).map_err(failed("take an entry up again"))?;
                    swept.entries.extend(object_of(&again));
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

    /// Bytes that are free for what can wait.
    pub fn room(&self) -> Result<u64, SpoolError> {
        self.measure().map(|room| if room.inodes == Some(0) { 0 } else { room.bytes })
    }

    /// What it can still take, and what it holds.
    ///
    /// Nothing goes into the reserve, which index and object store need to empty the spool. What can wait ends at the
    /// high-water mark, and where emergencies would otherwise find no room.
    pub fn measure(&self) -> Result<Room, SpoolError> {
        let disk = rustix::fs::statvfs(&self.folder)
            .map_err(|errno| failed("measure the disk")(errno.into()))?;
        let held = self.held.load(Ordering::Relaxed);
        let free = (disk.f_bavail * disk.f_frsize).saturating_sub(self.reserve);
        let below_mark = match self.high_water {
            HighWater::Bytes(most) => most.saturating_sub(held),
            HighWater::Percent(percent) => {
                below(percent, disk.f_blocks, disk.f_bfree) * disk.f_frsize
            }
        };
        let beyond_mark = match self.high_water {
            HighWater::Bytes(most) => (most + self.emergency_reserve).saturating_sub(held),
            HighWater::Percent(percent) => {
                let mark = share(percent, disk.f_blocks) * disk.f_frsize;
                let used = (disk.f_blocks - disk.f_bfree) * disk.f_frsize;
                (mark + self.emergency_reserve).saturating_sub(used)
            }
        };
        let inodes = match self.high_water {
            // Some file systems make inodes as they need them, and say that there are none.
            _ if disk.f_files == 0 => None,
            HighWater::Bytes(_) => Some(disk.f_favail.saturating_sub(INODES)),
            HighWater::Percent(percent) => Some(
                below(percent, disk.f_files, disk.f_ffree)
                    .min(disk.f_favail.saturating_sub(INODES)),
            ),
        };
        Ok(Room {
            bytes: below_mark.min(free.saturating_sub(self.emergency_reserve)),
            emergency_bytes: beyond_mark.min(free),
            inodes,
            held,
        })
    }

    /// Begins an instance. `memory` is the segment buffer of an earlier one, or empty.
    pub fn begin(&self, memory: Vec<u8>) -> Result<Incoming<'_>, SpoolError> {
        self.names.healthy()?;
        if self.room()? == 0 {
            return Err(SpoolError::Full);
        }
        self.begin_in(memory)
    }

    /// Begins an emergency, for which there is room beyond the high-water mark.
    pub fn begin_emergency(&self, memory: Vec<u8>) -> Result<Incoming<'_>, SpoolError> {
        self.names.healthy()?;
        if self.measure()?.emergency_bytes == 0 {
            return Err(SpoolError::Full);
        }
        self.begin_in(memory)
    }

    fn begin_in(&self, memory: Vec<u8>) -> Result<Incoming<'_>, SpoolError> {
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

    /// Makes an entry durable that was committed without: when it returns the entry survives a power cut. False where there
    /// is no such entry.
    pub fn make_durable(&self, object: ObjectId) -> Result<bool, SpoolError> {
        match File::open(self.path(object)) {
            Ok(file) => file.sync_data().map_err(failed("sync a file"))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(failed("open a file")(error)),
        }
        self.names.sync()?;
        Ok(true)
    }

    /// Removes an entry that is kept elsewhere by now. One that is already gone is no error.
    pub fn remove(&self, object: ObjectId) -> Result<(), SpoolError> {
        let path = self.path(object);
        let length = fs::metadata(&path).map_or(0, |entry| entry.len());
        match fs::remove_file(path) {
            Ok(()) => {
                self.gone(length);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(failed("remove an entry")(error)),
        }
    }

    /// Removes an original of which a protected copy is safe. What its header held of its key is overwritten first, so what
    /// the disk keeps of it cannot be opened by whoever finds it, this node included.
    pub fn erase(&self, object: ObjectId) -> Result<(), SpoolError> {
        match OpenOptions::new().write(true).open(self.path(object)) {
            Ok(mut file) => {
                file.write_all(&[0; HEADER])
                    .and_then(|()| file.sync_data())
                    .map_err(failed("erase an entry"))?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed("erase an entry")(error)),
        }
        self.remove(object)
    }

    /// Holds an entry back that may not go on as it is, until the next start tries again.
    pub fn hold(&self, object: ObjectId) -> Result<PathBuf, SpoolError> {
        let held = self.folder.join(format!("{object}.held"));
        fs::rename(self.path(object), &held).map_err(failed("hold an entry back"))?;
        Ok(held)
    }

    /// How many are held back.
    pub fn held_back(&self) -> Result<u64, SpoolError> {
        let entries = fs::read_dir(&self.folder).map_err(failed("list"))?;
        let held = entries
            .flatten()
            .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "held"));
        Ok(held.count() as u64)
    }

    fn gone(&self, length: u64) {
        let less = |held: u64| Some(held.saturating_sub(length));
        // Never an error: the closure always answers.
        let _ = self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// Sets aside an entry that cannot be read, out of the way of the others and for a person to look at.
    pub fn set_aside(&self, object: ObjectId) -> Result<PathBuf, SpoolError> {
        let aside = self.folder.join(format!("{object}.damaged"));
        fs::rename(self.path(object), &aside).map_err(failed("set an entry aside"))?;
        self.gone(fs::metadata(&aside).map_or(0, |entry| entry.len()));
        Ok(aside)
    }

    /// The keys that its entries are sealed with.
    pub fn keyring(&self) -> &Arc<Keyring> {
        &self.keyring
    }
}

/// So many hundredths of a number.
fn share(percent: u8, of: u64) -> u64 {
    // Divided first: blocks times a hundred could overflow, and a hundredth of a disk is more than the rounding.
    of / 100 * u64::from(percent) + of % 100 * u64::from(percent) / 100
}

/// How many may still be used until so many hundredths are.
fn below(percent: u8, all: u64, free: u64) -> u64 {
    share(percent, all).saturating_sub(all - free.min(all))
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
        self.spool.held.fetch_add(self.at, Ordering::Relaxed);
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
    fn beyond_the_mark_only_emergencies_are_taken_until_their_reserve_is_used_up() {
        let folder = tempfile::tempdir().unwrap();
        let keyring = Arc::new(Keyring::create(&folder.path().join("keys")).unwrap());
        let spool = Spool::open(&folder.path().join("spool"), keyring, 0).unwrap();
        let spool = spool.limited(HighWater::Bytes(100_000), 100_000);
        let first = write(&spool, &vec![7; 120_000]);

        assert!(matches!(spool.begin(Vec::new()), Err(SpoolError::Full)));
        let mut emergency = spool.begin_emergency(Vec::new()).unwrap();
        let object = emergency.object();
        emergency.write(&vec![8; 90_000]).unwrap();
        emergency.commit(&facts_of(object, &vec![8; 90_000]), Durability::Durable).unwrap();
        assert!(matches!(spool.begin_emergency(Vec::new()), Err(SpoolError::Full)));

        spool.remove(first).unwrap();
        spool.remove(object).unwrap();
        assert_eq!(spool.measure().unwrap().held, 0);
        assert!(spool.begin(Vec::new()).is_ok());
    }

    #[test]
    fn a_share_of_the_disk_counts_whoever_uses_it() {
        assert_eq!((share(80, 1_000), share(80, 7), share(100, u64::MAX)), (800, 5, u64::MAX));
        assert_eq!(
            (below(80, 1_000, 300), below(80, 1_000, 200), below(80, 1_000, 0)),
            (100, 0, 0)
        );
    }

    #[test]
    fn what_a_restart_finds_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let first = spool(folder.path());
        write(&first, &vec![7; 120_000]);
        let held = first.measure().unwrap().held;
        drop(first);

        assert_eq!((spool(folder.path()).measure().unwrap().held, held > 120_000), (held, true));
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
