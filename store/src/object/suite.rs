//! What every back end of the object store must do, whichever it is.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

use std::fs;
use std::path::{Path, PathBuf};

use super::{ObjectError, ObjectStore};
use crate::facts::ObjectId;

/// Longer than what goes up in one piece, and no multiple of anything.
const LONG: usize = (20 << 20) + 12_345;

/// Bytes that differ from place to place, so that none can stand for another.
fn content(length: usize, seed: u8) -> Vec<u8> {
    (0..length as u64).map(|at| (at % 251) as u8 ^ (at / 65_536) as u8 ^ seed).collect()
}

fn file(folder: &Path, name: &str, content: &[u8]) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, content).unwrap();
    path
}

fn read_all(store: &dyn ObjectStore, object: ObjectId, step: usize) -> Vec<u8> {
    let reader = store.open(object).unwrap();
    let mut read = vec![0; reader.length().unwrap() as usize];
    for (at, part) in read.chunks_mut(step).enumerate() {
        reader.read_exact_at(part, (at * step) as u64).unwrap();
    }
    read
}

/// Panics at the first promise that the back end, which must be empty, does not keep.
pub fn every_back_end_passes(store: &dyn ObjectStore) {
    let folder = tempfile::tempdir().unwrap();
    let mut objects: Vec<ObjectId> = (0..5).map(|_| ObjectId::new()).collect();
    objects.sort_unstable();

    store.probe().unwrap();
    is_created_once(store, folder.path(), &objects);
    is_read_from_any_place(store, &objects);
    is_listed_in_order_and_deleted(store, &objects);
    takes_long_objects(store, folder.path());
    takes_many_at_once(store, folder.path());
    is_replaced_whole(store, folder.path());
}

fn is_created_once(store: &dyn ObjectStore, folder: &Path, objects: &[ObjectId]) {
    let path = file(folder, "entry", &content(600_000, 0));
    let files: Vec<_> = objects.iter().map(|object| (*object, path.clone())).collect();
    let answers = store.put(&files);
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    let again = store.put(&files[..1]);
    assert!(again.iter().all(Result::is_ok), "a repeat is a success: {again:?}");
    assert!(path.exists(), "the caller's file stays");

    let other = file(folder, "other", b"something else");
    let as_long = file(folder, "as long", &content(600_000, 1));
    let answers = store.put(&[
        (ObjectId::new(), folder.join("none")),
        (objects[0], other),
        (objects[2], as_long),
        files[1].clone(),
    ]);
    assert!(
        matches!(
            answers[..],
            [
                Err(ObjectError::Io { .. }),
                Err(ObjectError::Differs(_)),
                Err(ObjectError::Differs(_)),
                Ok(())
            ]
        ),
        "created once, never changed; one fault in a batch is not the others': {answers:?}"
    );
    assert!(read_all(store, objects[2], 100_000) == content(600_000, 0));
}

fn is_read_from_any_place(store: &dyn ObjectStore, objects: &[ObjectId]) {
    let content = content(600_000, 0);
    let reader = store.open(objects[1]).unwrap();
    assert_eq!(reader.length().unwrap(), content.len() as u64);
    let mut part = vec![0; 1000];
    for at in [300_000, 8_192, 0, 599_000, 301_000, 302_000] {
        reader.read_exact_at(&mut part, at as u64).unwrap();
        assert!(part == content[at..at + 1000], "at {at}");
    }
    for at in [content.len() as u64 - 10, content.len() as u64, u64::MAX] {
        assert!(reader.read_exact_at(&mut part, at).is_err(), "a read past the end");
    }
    for step in [1, 4_096, 262_160] {
        let length = if step == 1 { 2_000 } else { content.len() };
        let mut read = vec![0; length];
        for (number, part) in read.chunks_mut(step).enumerate() {
            reader.read_exact_at(part, (number * step) as u64).unwrap();
        }
        assert!(read == content[..length], "in steps of {step}");
    }
    assert!(matches!(store.open(ObjectId::new()), Err(ObjectError::Missing(_))));
}

fn is_listed_in_order_and_deleted(store: &dyn ObjectStore, objects: &[ObjectId]) {
    assert_eq!(store.list(None, 100).unwrap(), objects);
    assert_eq!(store.list(None, 2).unwrap(), objects[..2]);
    assert_eq!(store.list(Some(objects[1]), 2).unwrap(), objects[2..4]);
    assert_eq!(store.list(Some(objects[4]), 2).unwrap(), []);

    store.delete(objects[0]).unwrap();
    store.delete(objects[0]).unwrap();
    assert!(matches!(store.open(objects[0]), Err(ObjectError::Missing(_))));
    assert_eq!(store.list(None, 100).unwrap(), objects[1..]);
}

fn takes_long_objects(store: &dyn ObjectStore, folder: &Path) {
    let (object, content) = (ObjectId::new(), content(LONG, 7));
    let files = [(object, file(folder, "long", &content))];
    let answers = [store.put(&files).remove(0), store.put(&files).remove(0)];
    assert!(answers.iter().all(Result::is_ok), "put, and put again: {answers:?}");

    assert!(read_all(store, object, 262_160) == content);
    let other = file(folder, "other long", &vec![1; LONG]);
    assert!(matches!(store.put(&[(object, other)]).remove(0), Err(ObjectError::Differs(_))));
    assert_eq!(store.sweep(&|_| true).unwrap(), 0, "nothing is left unfinished");
    store.delete(object).unwrap();
}

fn takes_many_at_once(store: &dyn ObjectStore, folder: &Path) {
    let files: Vec<_> = (0..40_u8)
        .map(|seed| {
            let object = ObjectId::new();
            (object, file(folder, &object.to_string(), &content(5_000 + usize::from(seed), seed)))
        })
        .collect();
    let answers = store.put(&files);
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    for (object, path) in &files {
        assert!(read_all(store, *object, 100_000) == fs::read(path).unwrap());
        store.delete(*object).unwrap();
    }
}

fn is_replaced_whole(store: &dyn ObjectStore, folder: &Path) {
    let object = ObjectId::new();
    let (before, after) = (content(300_000, 3), content(300_000, 4));
    let replacement = file(folder, "after", &after);
    assert!(
        matches!(store.replace(object, &replacement), Err(ObjectError::Missing(_))),
        "what is not there is not made"
    );
    store.put(&[(object, file(folder, "before", &before))]).remove(0).unwrap();
    // Nobody's file but the store's own changes, also where the object was a second name of it.
    store.replace(object, &replacement).unwrap();
    assert!(read_all(store, object, 100_000) == after);
    assert!(fs::read(folder.join("before")).unwrap() == before);
    store.delete(object).unwrap();
}
