//! What every back end of the object store must do, whichever it is.

use std::fs;

use super::{ObjectError, ObjectStore};
use crate::facts::ObjectId;

/// Panics at the first promise that the back end, which must be empty, does not keep.
pub(super) fn every_back_end_passes(store: &dyn ObjectStore) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("entry");
    let content: Vec<u8> = (0..600_000_u32).map(|at| (at % 251) as u8).collect();
    fs::write(&path, &content).unwrap();
    let mut objects: Vec<ObjectId> = (0..5).map(|_| ObjectId::new()).collect();
    objects.sort_unstable();
    let missing = ObjectId::new();

    store.probe().unwrap();
    let files: Vec<_> = objects.iter().map(|object| (*object, path.clone())).collect();
    assert!(store.put(&files).iter().all(Result::is_ok));
    assert!(store.put(&files[..1]).iter().all(Result::is_ok), "a repeat is a success");
    assert!(path.exists(), "the caller's file stays");

    let other = folder.path().join("other");
    fs::write(&other, b"something else").unwrap();
    let answers =
        store.put(&[(missing, folder.path().join("none")), (objects[0], other), files[1].clone()]);
    assert!(
        matches!(answers[..], [Err(ObjectError::Io { .. }), Err(ObjectError::Differs(_)), Ok(())]),
        "created once, never changed; one fault in a batch is not the others': {answers:?}"
    );

    let reader = store.open(objects[1]).unwrap();
    assert_eq!(reader.length().unwrap(), content.len() as u64);
    let mut part = vec![0; 1000];
    reader.read_exact_at(&mut part, 300_000).unwrap();
    assert!(part == content[300_000..301_000]);
    assert!(
        reader.read_exact_at(&mut part, content.len() as u64 - 10).is_err(),
        "a read past the end"
    );
    assert!(matches!(store.open(missing), Err(ObjectError::Missing(_))));

    assert_eq!(store.list(None, 100).unwrap(), objects);
    assert_eq!(store.list(None, 2).unwrap(), objects[..2]);
    assert_eq!(store.list(Some(objects[1]), 2).unwrap(), objects[2..4]);

    store.delete(objects[0]).unwrap();
    store.delete(objects[0]).unwrap();
    assert!(matches!(store.open(objects[0]), Err(ObjectError::Missing(_))));
    assert_eq!(store.list(None, 100).unwrap(), objects[1..]);
}
