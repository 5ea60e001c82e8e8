//! Objects as files, one folder a day, on the same disk as the spool or on another.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::{Abilities, ObjectError, ObjectStore, name};
use crate::facts::ObjectId;
use crate::sealed::ReadAt;

/// Below the folder: copies that are not whole yet. No year is called so, so nothing in it is an object.
const UNFINISHED: &str = "unfinished";

/// A folder of objects.
#[derive(Debug)]
pub struct FileObjects {
    folder: PathBuf,
}

fn failed(operation: &'static str) -> impl Fn(io::Error) -> ObjectError {
    move |source| match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ObjectError::Full,
        _ => ObjectError::Io { operation, source },
    }
}

impl FileObjects {
    /// Opens the folder, making it (mode 0700) where it is missing.
    pub fn open(folder: &Path) -> Result<Self, ObjectError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(failed("make the folder"))?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder.join(UNFINISHED))
            .map_err(failed("make a folder"))?;
        if let Some(parent) = folder.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            sync_folder(parent)?;
        }
        Ok(Self { folder: folder.to_owned() })
    }

    fn path(&self, object: ObjectId) -> PathBuf {
        self.folder.join(name(object))
    }

    fn day(&self, object: ObjectId) -> PathBuf {
        let mut day = self.path(object);
        day.pop();
        day
    }

    /// Makes the day's folder and everything above it, each synced into its parent.
    fn make_day(&self, day: &Path) -> Result<(), ObjectError> {
        if day.is_dir() {
            return Ok(());
        }
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(day)
            .map_err(failed("make a folder"))?;
        day.ancestors()
            .skip(1)
            .take_while(|path| path.starts_with(&self.folder))
            .try_for_each(sync_folder)
    }

    /// Gives the object its name, not yet durably, and returns the folder to sync.
    ///
    /// On one disk the object is a second name of the spool's file, which is already synced: no byte is copied, and what
    /// a forwarder reads is still in the page cache.
    fn name(&self, object: ObjectId, path: &Path) -> Result<PathBuf, ObjectError> {
        let day = self.day(object);
        self.make_day(&day)?;
        let to = day.join(object.to_string());
        match link(object, path, &to) {
            Err(ObjectError::Io { source, .. }) if cannot_link(&source) => {
                self.copy(object, path, &to)?;
            }
            result => result?,
        }
        Ok(day)
    }

    /// Copies across disks: written under a temporary name, synced, compared, then linked into place.
    fn copy(&self, object: ObjectId, from: &Path, to: &Path) -> Result<(), ObjectError> {
        let part = self.unfinished(object);
        let result = Self::written(object, from, &part).and_then(|()| link(object, &part, to));
        // A copy that is in place has a second name by now; one that is not is of no use.
        let _ = fs::remove_file(&part);
        result
    }

    fn unfinished(&self, object: ObjectId) -> PathBuf {
        self.folder.join(UNFINISHED).join(object.to_string())
    }

    /// Copies to a temporary name, syncs and compares.
    fn written(object: ObjectId, from: &Path, part: &Path) -> Result<(), ObjectError> {
        let mut source = File::open(from).map_err(failed("read the spool"))?;
        let mut copy = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(part)
            .map_err(failed("make a file"))?;
        io::copy(&mut source, &mut copy).map_err(failed("write"))?;
        copy.sync_all().map_err(failed("sync a file"))?;
        if same_content(from, part).map_err(failed("compare"))? {
            Ok(())
        } else {
            Err(ObjectError::Differs(object))
        }
    }

    /// The folders of all days, in order. Years, months and days sort as text, and an object's day follows from its name:
    /// so folders in order of their names hold objects in order of theirs.
    fn days(&self) -> Result<Vec<PathBuf>, ObjectError> {
        let mut days = vec![self.folder.clone()];
        for _level in ["year", "month", "day"] {
            let mut below = Vec::new();
            for folder in days {
                below.extend(entries(&folder)?.into_iter().filter(|path| path.is_dir()));
            }
            below.sort_unstable();
            days = below;
        }
        Ok(days)
    }
}

fn sync_folder(path: &Path) -> Result<(), ObjectError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(failed("sync a folder"))
}

fn link(object: ObjectId, from: &Path, to: &Path) -> Result<(), ObjectError> {
    match fs::hard_link(from, to) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if same_content(from, to).map_err(failed("compare"))? {
                Ok(())
            } else {
                Err(ObjectError::Differs(object))
            }
        }
        result => result.map_err(failed("name a file")),
    }
}

/// Whether the file system has no second names for this file, so that a copy is needed.
fn cannot_link(error: &io::Error) -> bool {
    use io::ErrorKind::{CrossesDevices, PermissionDenied, TooManyLinks, Unsupported};
    matches!(error.kind(), CrossesDevices | PermissionDenied | TooManyLinks | Unsupported)
}

fn same_content(one: &Path, other: &Path) -> io::Result<bool> {
    let (mut one, mut other) = (File::open(one)?, File::open(other)?);
    let (left, right) = (one.metadata()?, other.metadata()?);
    if (left.dev(), left.ino()) == (right.dev(), right.ino()) {
        return Ok(true);
    }
    if left.len() != right.len() {
        return Ok(false);
    }
    let (mut ours, mut theirs) = (vec![0; 256 * 1024], vec![0; 256 * 1024]);
    let mut rest = left.len();
    while rest > 0 {
        let step = rest.min(ours.len() as u64) as usize;
        let (Some(ours), Some(theirs)) = (ours.get_mut(..step), theirs.get_mut(..step)) else {
            return Ok(false);
        };
        one.read_exact(ours)?;
        other.read_exact(theirs)?;
        if ours != theirs {
            return Ok(false);
        }
        rest -= step as u64;
    }
    Ok(true)
}

impl ObjectStore for FileObjects {
    fn put(&self, files: &[(ObjectId, PathBuf)]) -> Vec<Result<(), ObjectError>> {
        let named: Vec<_> = files.iter().map(|(object, path)| self.name(*object, path)).collect();
        let days: BTreeSet<&PathBuf> = named.iter().flatten().collect();
        let unsynced: BTreeMap<PathBuf, io::Error> = days
            .into_iter()
            .filter_map(|day| {
                File::open(day)
                    .and_then(|day| day.sync_all())
                    .err()
                    .map(|error| (day.clone(), error))
            })
            .collect();
        named
            .into_iter()
            .map(|day| match unsynced.get(&day?) {
                None => Ok(()),
                Some(error) => Err(failed("sync a folder")(error.kind().into())),
            })
            .collect()
    }

    fn replace(&self, object: ObjectId, file: &Path) -> Result<(), ObjectError> {
        let to = self.path(object);
        if !to.try_exists().map_err(failed("look for an object"))? {
            return Err(ObjectError::Missing(object));
        }
        let part = self.unfinished(object);
        let renamed = Self::written(object, file, &part)
            .and_then(|()| fs::rename(&part, &to).map_err(failed("name a file")));
        if renamed.is_err() {
            let _ = fs::remove_file(&part);
        }
        renamed.and_then(|()| sync_folder(&self.day(object)))
    }

    fn open(&self, object: ObjectId) -> Result<Box<dyn ReadAt>, ObjectError> {
        match File::open(self.path(object)) {
            Ok(file) => Ok(Box::new(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(ObjectError::Missing(object))
            }
            Err(error) => Err(failed("open")(error)),
        }
    }

    fn delete(&self, object: ObjectId) -> Result<(), ObjectError> {
        match fs::remove_file(self.path(object)) {
            Ok(()) => sync_folder(&self.day(object)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(failed("delete")(error)),
        }
    }

    fn list(&self, after: Option<ObjectId>, limit: usize) -> Result<Vec<ObjectId>, ObjectError> {
        let first_day = after.map(|object| self.day(object));
        let mut found = Vec::new();
        for day in self.days()? {
            // What was listed before need not be walked again.
            if first_day.as_ref().is_some_and(|first| day < *first) {
                continue;
            }
            let mut objects: Vec<ObjectId> = entries(&day)?
                .iter()
                .filter(|path| path.extension().is_none())
                .filter_map(|path| path.file_name()?.to_str()?.parse().ok())
                .filter(|object| after.is_none_or(|after| *object > after))
                .collect();
            objects.sort_unstable();
            found.extend(objects.into_iter().take(limit - found.len()));
            if found.len() == limit {
                break;
            }
        }
        Ok(found)
    }

    fn probe(&self) -> Result<Abilities, ObjectError> {
        let path = self.folder.join("probe");
        let probe = ObjectId::new().to_string();
        fs::write(&path, &probe).map_err(failed("write"))?;
        let read = fs::read_to_string(&path).map_err(failed("read"));
        fs::remove_file(&path).map_err(failed("delete"))?;
        if read? == probe {
            Ok(Abilities::ALL)
        } else {
            Err(failed("read back")(io::Error::other("it gave other bytes than were written")))
        }
    }

    fn sweep(&self, _ours: &dyn Fn(ObjectId) -> bool) -> Result<usize, ObjectError> {
        // A folder has one node, so every unfinished copy is this one's, and of before its start.
        let unfinished = entries(&self.folder.join(UNFINISHED))?;
        for part in &unfinished {
            fs::remove_file(part).map_err(failed("remove an unfinished file"))?;
        }
        Ok(unfinished.len())
    }

    fn is_near(&self) -> bool {
        true
    }
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, ObjectError> {
    fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect())
        .map_err(failed("list"))
}

#[cfg(test)]
mod tests {
    use super::super::suite;
    use super::*;

    #[test]
    fn the_file_back_end_passes_the_suite() {
        let folder = tempfile::tempdir().unwrap();
        suite::every_back_end_passes(&FileObjects::open(&folder.path().join("objects")).unwrap());
    }

    #[test]
    fn an_object_is_another_name_of_the_spool_file_and_outlives_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = FileObjects::open(&folder.path().join("objects")).unwrap();
        let (object, path) = (ObjectId::new(), folder.path().join("entry"));
        fs::write(&path, b"sealed").unwrap();

        store.put(&[(object, path.clone())]).remove(0).unwrap();
        let (one, other) =
            (fs::metadata(&path).unwrap(), fs::metadata(store.path(object)).unwrap());
        fs::remove_file(&path).unwrap();

        assert_eq!(one.ino(), other.ino());
        assert_eq!(store.open(object).unwrap().length().unwrap(), 6);
    }

    #[test]
    fn a_copy_that_a_crash_cut_off_is_no_object_and_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let store = FileObjects::open(&folder.path().join("objects")).unwrap();
        fs::write(store.unfinished(ObjectId::new()), b"half").unwrap();

        assert_eq!(store.list(None, 10).unwrap(), []);
        assert_eq!(store.sweep(&|_| false).unwrap(), 1);
        assert_eq!(store.sweep(&|_| false).unwrap(), 0);
    }

    #[test]
    fn a_copy_across_disks_is_compared_and_leaves_no_part() {
        let folder = tempfile::tempdir().unwrap();
        let store = FileObjects::open(&folder.path().join("objects")).unwrap();
        let (object, path) = (ObjectId::new(), folder.path().join("entry"));
        fs::write(&path, vec![9; 700_000]).unwrap();
        store.make_day(&store.day(object)).unwrap();

        store.copy(object, &path, &store.path(object)).unwrap();

        assert!(same_content(&path, &store.path(object)).unwrap());
        assert_eq!(store.list(None, 10).unwrap(), [object]);
        assert_eq!(entries(&store.day(object)).unwrap().len(), 1);
        assert_eq!(store.sweep(&|_| true).unwrap(), 0);
    }
}
