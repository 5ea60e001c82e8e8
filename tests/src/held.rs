//! What a node holds, read from its files alone: every spool entry and object, opened with its keys.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use gantry_store::facts::ObjectId;
use gantry_store::object::{self, FileObjects, ObjectStore};
use gantry_store::sealed::{Keyring, ReadAt, SealedError, SealedReader};

use crate::digest;

/// The sealed files of a data directory.
#[derive(Debug, Default)]
pub struct Held {
    /// SHA-256 of what each instance's file really contains, by SOP Instance UID.
    pub digests: BTreeMap<String, String>,
    /// Files in the spool that count for nothing: begun and not ended, or damaged.
    pub leftovers: Vec<String>,
    /// Entries in the spool.
    pub spooled: usize,
    /// Objects in the object store.
    pub stored: usize,
}

impl Held {
    /// Reads all of it; a file that does not open fails the test.
    pub fn in_data_dir(data_dir: &Path) -> Self {
        let objects = FileObjects::open(&data_dir.join("objects")).expect("the object store opens");
        Self::with_objects(data_dir, &objects)
    }

    /// The same of a node whose objects are elsewhere.
    pub fn with_objects(data_dir: &Path, objects: &dyn ObjectStore) -> Self {
        let keyring = Keyring::open(&data_dir.join("keys")).expect("the node's keys open");
        let mut held = Self::default();
        for entry in std::fs::read_dir(data_dir.join("spool")).into_iter().flatten() {
            let path = entry.expect("the spool can be listed").path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            match name.strip_suffix(".sealed").map(str::parse::<ObjectId>) {
                Some(Ok(object)) => {
                    // A node that runs may have moved it on since it was listed.
                    let Ok(file) = File::open(&path) else { continue };
                    let source: Box<dyn ReadAt> = Box::new(file);
                    held.add(
                        &SealedReader::open(source, object, &keyring).expect("a spool entry opens"),
                    );
                    held.spooled += 1;
                }
                _ if name == "lock" => {}
                _ => held.leftovers.push(name),
            }
        }
        let mut after = None;
        loop {
            let page = objects.list(after, 1000).expect("objects can be listed");
            let Some(last) = page.last() else { return held };
            after = Some(*last);
            for object in page {
                held.add(&object::read(objects, object, &keyring).expect("an object opens"));
                held.stored += 1;
            }
        }
    }

    fn add(&mut self, reader: &SealedReader<Box<dyn ReadAt>>) {
        let mut bytes = Vec::new();
        let read = reader.copy_to(|part| {
            bytes.extend_from_slice(part);
            Ok::<_, SealedError>(())
        });
        read.unwrap_or_else(|error| {
            panic!("object {} does not read: {error}", reader.facts().object)
        });
        self.digests.insert(reader.facts().sop_instance.to_string(), digest(&bytes));
    }
}
