use std::os::unix::fs::FileExt as _;

use dicom_dictionary_std::tags;
use jiff::Timestamp;

use super::*;
use crate::dicom::Attributes;
use crate::facts::{Digest, Origin};

pub(crate) fn facts_of(object: ObjectId, data_set: &[u8]) -> Facts {
    let mut attributes = Attributes::default();
    attributes.insert(tags::PATIENT_NAME, b"SMITH^ANNA".to_vec());
    Facts {
        object,
        received_at: Timestamp::from_second(1_790_000_000).unwrap(),
        origin: Origin {
            listener: "127.0.0.1:11112".into(),
            sender: "pacs".into(),
            from_partner: false,
            calling_ae_title: "PACS".parse().unwrap(),
            called_ae_title: "GANTRY".parse().unwrap(),
            addressed_to: None,
            fetched_like: Vec::new(),
        },
        sop_class: "1.2.840.10008.5.1.4.1.1.2".parse().unwrap(),
        sop_instance: "2.25.1".parse().unwrap(),
        study: "2.25.2".parse().unwrap(),
        series: "2.25.3".parse().unwrap(),
        transfer_syntax: crate::dicom::TransferSyntax::explicit_vr_little_endian(),
        length: data_set.len() as u64,
        digest: Digest::of(data_set),
        pixel_data_offset: None,
        protected: None,
        attributes,
    }
}

struct Bench {
    _folder: tempfile::TempDir,
    keyring: Keyring,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let keyring = Keyring::create(&folder.path().join("keys")).unwrap();
        Self { _folder: folder, keyring }
    }

    fn seal(&self, object: ObjectId, data_set: &[u8], step: usize) -> Vec<u8> {
        self.seal_with(&facts_of(object, data_set), data_set, step)
    }

    fn seal_with(&self, facts: &Facts, data_set: &[u8], step: usize) -> Vec<u8> {
        let mut sealed = vec![0; HEADER];
        let mut sealer = Sealer::new(facts.object, &self.keyring, Vec::new()).unwrap();
        for chunk in data_set.chunks(step) {
            sealer
                .update(chunk, |segment| {
                    sealed.extend_from_slice(segment);
                    Ok(())
                })
                .unwrap();
        }
        let (header, _) = sealer
            .finish(facts, |segment| {
                sealed.extend_from_slice(segment);
                Ok(())
            })
            .unwrap();
        sealed[..HEADER].copy_from_slice(&header);
        sealed
    }

    fn open(&self, object: ObjectId, sealed: &[u8]) -> Result<Vec<u8>, SealedError> {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(sealed, 0).unwrap();
        let mut data_set = Vec::new();
        SealedReader::open(file, object, &self.keyring)?.copy_to(|plain| {
            data_set.extend_from_slice(plain);
            Ok::<_, SealedError>(())
        })?;
        Ok(data_set)
    }
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + at / 251) as u8).collect()
}

#[test]
fn what_was_sealed_opens_again_whatever_its_length() {
    let bench = Bench::new();
    for length in [1, 15, SEGMENT - 1, SEGMENT, SEGMENT + 1, 3 * SEGMENT, 3 * SEGMENT + 17] {
        let (object, data_set) = (ObjectId::new(), bytes(length));
        for step in [1000, SEGMENT, usize::MAX] {
            let sealed = bench.seal(object, &data_set, step);
            assert_eq!(sealed.len() as u64, sealed_length(length as u64));
            assert!(
                bench.open(object, &sealed).unwrap() == data_set,
                "{length} bytes in steps of {step}"
            );
        }
    }
}

#[test]
fn any_part_can_be_read_without_the_rest() {
    let bench = Bench::new();
    let (object, data_set) = (ObjectId::new(), bytes(3 * SEGMENT + 17));
    let mut sealed = bench.seal(object, &data_set, SEGMENT);
    let spots = [0, 1, SEGMENT - 1, SEGMENT, SEGMENT + 1, 2 * SEGMENT, 3 * SEGMENT, data_set.len()];
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(&sealed, 0).unwrap();
    let reader = SealedReader::open(file.try_clone().unwrap(), object, &bench.keyring).unwrap();

    for from in spots {
        for to in spots.into_iter().filter(|to| *to >= from) {
            let mut part = vec![0; to - from];
            reader.range(from as u64, &mut part).unwrap();
            assert!(part == data_set[from..to], "{from} to {to}");
        }
    }
    for beyond in [data_set.len() as u64, u64::MAX] {
        assert!(matches!(reader.range(beyond, &mut [0; 2]), Err(SealedError::Io(_))));
    }

    // A damaged segment is refused, and costs the others nothing.
    sealed[HEADER + SEGMENT + TAG + 5] ^= 1;
    file.write_all_at(&sealed, 0).unwrap();
    let mut part = vec![0; SEGMENT];
    assert!(matches!(reader.range(1, &mut part), Err(SealedError::Segment(1))));
    reader.range(2 * SEGMENT as u64, &mut part).unwrap();
    assert!(part == data_set[2 * SEGMENT..3 * SEGMENT]);
}

#[test]
fn nothing_of_the_patient_can_be_read_without_the_key() {
    let bench = Bench::new();
    let data_set = b"....SMITH^ANNA....".repeat(100);

    let sealed = bench.seal(ObjectId::new(), &data_set, 64);

    for needle in [&b"SMITH"[..], b"2.25.", b"PACS"] {
        assert!(
            !sealed.windows(needle.len()).any(|window| window == needle),
            "{needle:?} in the clear"
        );
    }
}

#[test]
fn a_flipped_bit_anywhere_is_refused() {
    let bench = Bench::new();
    let (object, data_set) = (ObjectId::new(), bytes(SEGMENT + 300));
    let sealed = bench.seal(object, &data_set, 4096);
    let places = (0..140).chain([
        1000,
        HEADER - 1,
        HEADER,
        HEADER + SEGMENT,
        HEADER + SEGMENT + TAG,
        sealed.len() - 1,
    ]);
    for place in places {
        let mut damaged = sealed.clone();
        damaged[place] ^= 0x10;
        assert!(bench.open(object, &damaged).is_err(), "bit flipped in byte {place}");
    }
}

#[test]
fn swapped_cut_repeated_and_foreign_segments_are_refused_with_the_reason() {
    let bench = Bench::new();
    let (object, other) = (ObjectId::new(), ObjectId::new());
    let data_set = bytes(3 * SEGMENT);
    let sealed = bench.seal(object, &data_set, 8192);
    let foreign = bench.seal(other, &data_set, 8192);
    let segment = |sealed: &[u8], at: usize| {
        sealed[HEADER + at * (SEGMENT + TAG)..][..SEGMENT + TAG].to_vec()
    };
    let with = |parts: &[Vec<u8>]| [sealed[..HEADER].to_vec(), parts.concat()].concat();
    let (a, b, c) = (segment(&sealed, 0), segment(&sealed, 1), segment(&sealed, 2));

    let swapped = bench.open(object, &with(&[b.clone(), a.clone(), c.clone()]));
    let repeated = bench.open(object, &with(&[a.clone(), b.clone(), b.clone()]));
    let cut = bench.open(object, &with(&[a.clone(), b.clone()]));
    let longer = bench.open(object, &with(&[a.clone(), b.clone(), c.clone(), c.clone()]));
    let mixed = bench.open(object, &with(&[a, segment(&foreign, 1), c]));
    let header = bench.open(other, &[&foreign[..HEADER], &sealed[HEADER..]].concat());
    let renamed = bench.open(other, &sealed);

    assert!(matches!(swapped, Err(SealedError::Segment(0))), "{swapped:?}");
    assert!(matches!(repeated, Err(SealedError::Segment(2))), "{repeated:?}");
    assert!(matches!(cut, Err(SealedError::Length { .. })), "{cut:?}");
    assert!(matches!(longer, Err(SealedError::Length { .. })), "{longer:?}");
    assert!(matches!(mixed, Err(SealedError::Segment(1))), "{mixed:?}");
    assert!(matches!(header, Err(SealedError::Segment(0))), "{header:?}");
    assert!(matches!(renamed, Err(SealedError::AnotherObject { .. })), "{renamed:?}");
}

#[test]
fn a_last_segment_is_not_taken_for_a_middle_one() {
    // Two objects that differ only in length, under the same key, would otherwise allow a cut at a segment boundary
    // together with an older header.
    let object = ObjectId::new();
    assert_ne!(segment_aad(object, 1, true).as_ref(), segment_aad(object, 1, false).as_ref());
}

#[test]
fn a_missing_key_is_named() {
    let (bench, stranger) = (Bench::new(), Bench::new());
    let object = ObjectId::new();
    let sealed = bench.seal(object, &bytes(100), 100);

    let refused = stranger.open(object, &sealed).unwrap_err();

    assert_eq!(
        refused.to_string(),
        format!("key {} is not in the keyring", bench.keyring.current())
    );
}

#[test]
fn a_file_of_a_later_version_or_of_none_is_refused() {
    let bench = Bench::new();
    let object = ObjectId::new();
    let mut sealed = bench.seal(object, &bytes(100), 100);
    sealed[8] = 2;
    assert!(matches!(bench.open(object, &sealed), Err(SealedError::Version(2))));
    assert!(matches!(bench.open(object, &[0; HEADER + 17]), Err(SealedError::NotSealed)));
    assert!(matches!(bench.open(object, &[]), Err(SealedError::NotSealed)));
}

#[test]
fn attributes_that_would_burst_the_header_are_shortened_and_the_rest_stays() {
    let bench = Bench::new();
    let (object, data_set) = (ObjectId::new(), bytes(100));
    let mut facts = facts_of(object, &data_set);
    for tag in crate::dicom::attributes::INDEXED {
        facts.attributes.insert(*tag, vec![b'A'; 1024]);
    }
    let sealed = bench.seal_with(&facts, &data_set, 100);

    assert!(bench.open(object, &sealed).unwrap() == data_set);
}

#[test]
fn a_file_moves_to_a_new_key_with_all_that_is_in_it_and_the_old_one_is_not_touched() {
    let bench = Bench::new();
    let (object, data_set) = (ObjectId::new(), bytes(600_000));
    let sealed = bench.seal(object, &data_set, 1000);
    let old = bench.keyring.current();
    let mut source = tempfile::tempfile().unwrap();
    io::Write::write_all(&mut source, &sealed).unwrap();

    let nothing = rewrap(&source, object, &bench.keyring, tempfile::tempfile().unwrap()).unwrap();
    let new = bench.keyring.rotate().unwrap();
    let to = tempfile::tempfile().unwrap();
    let moved = rewrap(&source, object, &bench.keyring, to.try_clone().unwrap()).unwrap();

    assert_eq!((nothing, moved), (Rewrapped::Current, Rewrapped::From(old)));
    assert_eq!((key_of(&source).unwrap(), key_of(&to).unwrap()), (old, new));
    let mut after = vec![0; sealed.len()];
    ReadAt::read_exact_at(&to, &mut after, 0).unwrap();
    assert!(bench.open(object, &after).unwrap() == data_set);
    assert!(after[FACTS_AT..] == sealed[FACTS_AT..], "only the wrapping is new");
    assert!(
        rewrap(&source, ObjectId::new(), &bench.keyring, tempfile::tempfile().unwrap()).is_err(),
        "another object's file never takes its place"
    );
}

#[test]
fn what_is_damaged_or_lacks_its_key_is_not_moved() {
    let bench = Bench::new();
    let object = ObjectId::new();
    let file = |bytes: &[u8]| {
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, bytes).unwrap();
        file
    };
    let mut damaged = bench.seal(object, &bytes(300_000), 1000);
    let strange = Bench::new().seal(object, &bytes(100), 100);
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    bench.keyring.rotate().unwrap();

    let to = || tempfile::tempfile().unwrap();
    let damaged = rewrap(&file(&damaged), object, &bench.keyring, to());
    let strange = rewrap(&file(&strange), object, &bench.keyring, to());

    assert!(matches!(damaged, Err(SealedError::Segment(1))), "{damaged:?}");
    assert!(matches!(strange, Err(SealedError::MissingKey(_))), "{strange:?}");
}
