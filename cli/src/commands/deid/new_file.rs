//! Files that a command writes: under a temporary name, for their owner only, and whole before they have their name.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Component, Path, PathBuf};

use tempfile::NamedTempFile;

use crate::exit::Failure;

/// A folder that is written to.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    force: bool,
    /// What was written in this run, which is not even overwritten where that was asked for.
    written: HashSet<PathBuf>,
}

/// A file to be read, and the name of what is written for it, below the folder that is written to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Work {
    pub(super) from: PathBuf,
    pub(super) name: PathBuf,
    /// Somebody named this very file, rather than a folder that it is in.
    pub(super) named: bool,
}

impl Folder {
    /// Makes it, if it is not there, for its owner only.
    pub(super) fn open(path: &Path, force: bool) -> Result<Self, Failure> {
        let failed = |error: io::Error| Failure::of_file("make", path, &error);
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
        Ok(Self { path: path.to_owned(), force, written: HashSet::new() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file of this name, in whatever way; it is there afterwards, whole and synced, or not at all.
    pub(super) fn write<E: From<io::Error>>(
        &mut self,
        name: &Path,
        source: &Path,
        fill: impl FnOnce(&mut File) -> Result<(), E>,
    ) -> Result<PathBuf, E> {
        let path = self.path.join(name);
        let taken = path.symlink_metadata().is_ok();
        if taken && (!self.force || self.written.contains(&path)) {
            return Err(already(&path, self.written.contains(&path)).into());
        }
        if taken && fs::canonicalize(&path)? == fs::canonicalize(source)? {
            let text = "it would take the place of the file that is read: name another folder";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, text).into());
        }
        let parent = path.parent().unwrap_or(&self.path);
        DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
        let mut file = NamedTempFile::with_prefix_in(".gantry-", parent)?;
        fill(file.as_file_mut())?;
        file.as_file().sync_all()?;
        if self.force {
            file.persist(&path).map_err(|error| error.error)?;
        } else {
            file.persist_noclobber(&path).map_err(|error| match error.error.kind() {
                io::ErrorKind::AlreadyExists => already(&path, false),
                _ => error.error,
            })?;
        }
        File::open(parent)?.sync_all()?;
        self.written.insert(path.clone());
        Ok(path)
    }
}

fn already(path: &Path, by_us: bool) -> io::Error {
    let why = if by_us { "written in this run" } else { "there, and --force was not given" };
    let text = format!("{} is already {why}", path.display());
    io::Error::new(io::ErrorKind::AlreadyExists, text)
}

/// The files of these paths: those that were named, and all in the folders that were named, in the order of their names. What
/// is in the folder that is written to is left out, as it may lie in one of them.
pub(super) fn search(paths: &[PathBuf], to: &Path) -> Result<Vec<Work>, Failure> {
    let to = fs::canonicalize(to).ok();
    let mut found = Vec::new();
    for path in paths {
        // Follows links that a person names, and none that lie in folders: those may lead anywhere, and in circles.
        let there = fs::metadata(path).map_err(|error| Failure::of_file("read", path, &error))?;
        if there.is_dir() {
            search_folder(path, to.as_deref(), &mut found)?;
        } else {
            let name = path.file_name().map(PathBuf::from).unwrap_or_default();
            found.push(Work { from: path.clone(), name, named: true });
        }
    }
    Ok(found)
}

fn search_folder(folder: &Path, to: Option<&Path>, found: &mut Vec<Work>) -> Result<(), Failure> {
    let mut folders = vec![folder.to_owned()];
    while let Some(here) = folders.pop() {
        let failed = |error: io::Error| Failure::of_file("read", &here, &error);
        if let Some(to) = to
            && fs::canonicalize(&here).map_err(failed)? == to
        {
            continue;
        }
        let mut entries: Vec<_> =
            fs::read_dir(&here).and_then(Iterator::collect).map_err(failed)?;
        entries.sort_by_key(fs::DirEntry::file_name);
        let mut below = Vec::new();
        for entry in entries {
            let kind = entry.file_type().map_err(failed)?;
            let from = entry.path();
            if kind.is_dir() {
                below.push(from);
            } else if kind.is_file() {
                let name: PathBuf = from
                    .strip_prefix(folder)
                    .unwrap_or(&from)
                    .components()
                    .filter(|part| matches!(part, Component::Normal(_)))
                    .collect();
                found.push(Work { from, name, named: false });
            }
        }
        // The last one in is the first one out.
        folders.extend(below.into_iter().rev());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn put(folder: &mut Folder, name: &str, text: &str) -> io::Result<PathBuf> {
        let source = std::env::current_exe().unwrap();
        folder.write(Path::new(name), &source, |file| file.write_all(text.as_bytes()))
    }

    #[test]
    fn nothing_is_overwritten_unless_asked_for_and_nothing_twice() {
        let place = tempfile::tempdir().unwrap();
        let mut first = Folder::open(place.path(), false).unwrap();
        let path = put(&mut first, "below/a.dcm", "one").unwrap();

        assert!(
            put(&mut Folder::open(place.path(), false).unwrap(), "below/a.dcm", "two").is_err()
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), "one");

        let mut forced = Folder::open(place.path(), true).unwrap();
        put(&mut forced, "below/a.dcm", "two").unwrap();
        assert!(put(&mut forced, "below/a.dcm", "three").is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
    }

    #[test]
    fn what_was_written_is_not_read() {
        let place = tempfile::tempdir().unwrap();
        let to = place.path().join("to");
        fs::create_dir_all(to.join("below")).unwrap();
        fs::create_dir_all(place.path().join("from")).unwrap();
        for name in ["a.dcm", "from/b.dcm", "to/c.dcm", "to/below/d.dcm"] {
            fs::write(place.path().join(name), name).unwrap();
        }

        let found = search(&[place.path().to_owned()], &place.path().join("from/../to")).unwrap();

        let names: Vec<_> = found.iter().map(|work| work.name.to_str().unwrap()).collect();
        assert_eq!(names, ["a.dcm", "from/b.dcm"]);
        assert!(found.iter().all(|work| !work.named));
    }

    #[test]
    fn a_file_that_is_not_finished_is_not_there() {
        let place = tempfile::tempdir().unwrap();
        let mut folder = Folder::open(place.path(), true).unwrap();

        let failed = folder.write(Path::new("a.dcm"), place.path(), |file| {
            file.write_all(b"half")?;
            Err(io::Error::other("no more"))
        });

        assert!(failed.is_err());
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_does_not_take_the_place_of_its_source() {
        let place = tempfile::tempdir().unwrap();
        let source = place.path().join("a.dcm");
        fs::write(&source, "source").unwrap();
        let mut folder = Folder::open(place.path(), true).unwrap();

        let refused: io::Result<_> = folder.write(Path::new("a.dcm"), &source, |_| Ok(()));

        assert!(refused.unwrap_err().to_string().contains("name another folder"));
        assert_eq!(fs::read_to_string(&source).unwrap(), "source");
    }
}
