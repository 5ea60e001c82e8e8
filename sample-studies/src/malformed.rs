//! Data sets that no device should send and that every gateway meets.
//!
//! Each is a valid small image with one thing wrong, or bytes made by hand. The sender names the instance properly in
//! its C-STORE request ([`Malformed::sop_instance_uid`]); what is wrong is in the data set alone.

use std::io::Write as _;

use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;
use flate2::Compression;
use flate2::write::DeflateEncoder;

use crate::ct_series::small_study;
use crate::data_set::{DataSet, Value};
use crate::encoding::{
    self, ITEM, ITEM_DELIMITER, SEQUENCE_DELIMITER, SequenceLengths, TransferSyntax,
    UNDEFINED_LENGTH, encode, explicit_header,
};
use crate::instance::{Instance, part10_header};

/// What a careful receiver does with it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It cannot be stored safely: a failure status, quickly, with little memory, and nothing left behind.
    Refused,
    /// Odd, but every element can be told apart: stored byte by byte, and passed on as it came unless its length is odd.
    Accepted,
    /// Receivers differ and the standard leaves it open: either, but no crash, no hang, no misplaced file.
    Either,
}

/// One data set with something wrong.
#[derive(Clone, Debug)]
pub struct Malformed {
    /// Name for test output, words joined by hyphens.
    pub name: &'static str,
    /// What is wrong with it.
    pub what: &'static str,
    /// What should happen.
    pub verdict: Verdict,
    /// Affected SOP Class UID of its C-STORE request; valid.
    pub sop_class_uid: String,
    /// Affected SOP Instance UID of its C-STORE request; valid, and different for each.
    pub sop_instance_uid: String,
    /// The transfer syntax under which it is sent, which need not be the one it is in.
    pub transfer_syntax_uid: &'static str,
    /// The bytes of the data set.
    pub data_set: Vec<u8>,
}

impl Malformed {
    /// As a file with valid File Meta Information.
    pub fn part10(&self) -> Vec<u8> {
        let mut file =
            part10_header(&self.sop_class_uid, &self.sop_instance_uid, self.transfer_syntax_uid);
        file.extend_from_slice(&self.data_set);
        file
    }
}

/// All of them, about 12 MB; the deflate bomb inflates to 1.25 GB.
pub fn all(seed: u64) -> Vec<Malformed> {
    [
        cut(seed),
        lengths(seed),
        nesting(seed),
        fragments(seed),
        floods(seed),
        uids(seed),
        structure(seed),
        text(seed),
    ]
    .concat()
}

/// Data sets that end too early or too late.
pub fn cut(seed: u64) -> Vec<Malformed> {
    let make = Maker { seed };
    vec![
        make.refused("empty", "there is no element at all", |_| Vec::new()),
        make.refused("cut-in-a-header", "ends after tag and VR of Patient ID", |whole| {
            whole.cut_after(PATIENT_ID_HEADER, 0)
        }),
        make.refused("cut-in-a-value", "ends inside the value of Patient ID", |whole| {
            whole.cut_after(PATIENT_ID_HEADER, 6)
        }),
        make.refused(
            "cut-in-a-sequence",
            "ends inside an item of Other Patient IDs Sequence",
            |whole| whole.cut_after(b"\x10\x00\x02\x10SQ", 34),
        ),
        make.refused("cut-in-the-pixels", "ends 100 bytes before its end", |whole| {
            let bytes = whole.bytes();
            bytes.get(..bytes.len() - 100).unwrap_or_default().to_vec()
        }),
        make.refused("bytes-after-the-end", "five bytes follow that are no element", |whole| {
            [whole.bytes(), b"GIF89".to_vec()].concat()
        }),
        make.either(
            "zeros-after-the-end",
            "512 zero bytes follow, as old media writers pad",
            |whole| [whole.bytes(), vec![0; 512]].concat(),
        ),
        make.accepted(
            "trailing-padding",
            "Data Set Trailing Padding (FFFC,FFFC) follows, which is legal",
            |whole| {
                [whole.bytes(), explicit_header(Tag(0xFFFC, 0xFFFC), VR::OB, 64), vec![0; 64]]
                    .concat()
            },
        ),
    ]
}

/// Lengths that are not what they say.
pub fn lengths(seed: u64) -> Vec<Malformed> {
    let make = Maker { seed };
    vec![
        make.accepted(
            "odd-length",
            "a text of three bytes has length 3 (PS3.5 7.1.1 wants 4)",
            |whole| {
                let mut set = whole.set.clone();
                bytes_of(set.put(tags::PATIENT_COMMENTS, VR::LT, Value::Bytes(b"odd".to_vec())))
            },
        ),
        make.accepted("lying-group-length", "group length of group 0008 is 16 MB", |whole| {
            let mut set = whole.set.clone();
            bytes_of(set.u32(Tag(0x0008, 0x0000), 0x00FF_FFFF))
        }),
        make.refused(
            "claims-4-gb-in-28-bytes",
            "one OB element says FFFFFFF0H and has 16 bytes",
            |_| [explicit_header(Tag(0x0009, 0x1010), VR::OB, 0xFFFF_FFF0), vec![0; 16]].concat(),
        ),
        make.refused(
            "claims-4-gb-of-text",
            "one UT element at the end says FFFFFFF0H and has 4 bytes",
            |whole| {
                [
                    whole.head(),
                    explicit_header(Tag(0x7001, 0x1010), VR::UT, 0xFFFF_FFF0),
                    b"text".to_vec(),
                ]
                .concat()
            },
        ),
        make.refused(
            "claims-2-gb-of-sequence",
            "a sequence says 7FFFFFFEH and has one empty item",
            |whole| {
                let item = [tag_bytes(ITEM), vec![0; 4]].concat();
                [whole.head(), explicit_header(NESTED, VR::SQ, 0x7FFF_FFFE), item].concat()
            },
        ),
        make.refused(
            "item-longer-than-its-sequence",
            "the item says 64 bytes, its sequence says 16",
            |whole| {
                let item = [tag_bytes(ITEM), 64_u32.to_le_bytes().to_vec(), vec![0; 8]].concat();
                [whole.head(), explicit_header(NESTED, VR::SQ, 16), item].concat()
            },
        ),
        make.either(
            "fewer-pixels-than-promised",
            "Pixel Data has half of what Rows and Columns say",
            |whole| {
                let mut set = whole.set.clone();
                let pixels = set.value(tags::PIXEL_DATA).unwrap_or_default();
                let half = pixels.get(..pixels.len() / 2).unwrap_or_default().to_vec();
                bytes_of(set.bytes(tags::PIXEL_DATA, VR::OB, half))
            },
        ),
    ]
}

/// Sequences, items and delimiters that do not fit together.
pub fn nesting(seed: u64) -> Vec<Malformed> {
    let make = Maker { seed };
    let delimiter = |tag| [tag_bytes(tag), vec![0; 4]].concat();
    let sequence = explicit_header(NESTED, VR::SQ, UNDEFINED_LENGTH);
    let item = [tag_bytes(ITEM), UNDEFINED_LENGTH.to_le_bytes().to_vec()].concat();
    let level = [sequence.clone(), item.clone()].concat();
    let end = [delimiter(ITEM_DELIMITER), delimiter(SEQUENCE_DELIMITER)].concat();
    let after_head = |parts: &[&[u8]]| {
        let parts = parts.concat();
        move |whole: &Whole| [whole.head(), parts].concat()
    };
    let code = [tag_bytes(tags::CODE_VALUE), vec![2, 0, 0, 0], b"A ".to_vec()].concat();
    let stray = [explicit_header(tags::CODE_VALUE, VR::SH, 2), b"A ".to_vec()].concat();
    let unknown = explicit_header(NESTED, VR::UN, UNDEFINED_LENGTH);
    let (item_end, sequence_end) = (delimiter(ITEM_DELIMITER), delimiter(SEQUENCE_DELIMITER));
    vec![
        make.refused(
            "nested-10000-times",
            "10,000 sequences in each other, all closed: 360 kB",
            after_head(&[&level.repeat(10_000), &end.repeat(10_000)]),
        ),
        make.refused(
            "nested-10000-times-and-open",
            "10,000 sequences in each other, none closed",
            after_head(&[&level.repeat(10_000)]),
        ),
        make.accepted(
            "nested-12-times",
            "12 sequences in each other, which is deep and legal",
            after_head(&[&level.repeat(12), &end.repeat(12)]),
        ),
        make.refused(
            "item-delimiter-without-item",
            "an Item Delimitation Item stands between elements",
            after_head(&[&item_end]),
        ),
        make.refused(
            "sequence-delimiter-without-sequence",
            "a Sequence Delimitation Item stands between elements",
            after_head(&[&sequence_end]),
        ),
        make.refused(
            "sequence-not-closed",
            "an item is closed, its sequence is not, and the data set ends",
            after_head(&[&level, &item_end]),
        ),
        make.refused(
            "item-not-closed",
            "a sequence is closed while its item is open",
            after_head(&[&level, &sequence_end]),
        ),
        make.refused(
            "element-where-an-item-belongs",
            "a sequence holds an element without an item",
            after_head(&[&sequence, &stray, &sequence_end]),
        ),
        make.accepted(
            "un-of-undefined-length",
            "VR UN and undefined length, which means a sequence in implicit VR (PS3.5 6.2.2)",
            after_head(&[&unknown, &item, &code, &end]),
        ),
    ]
}

/// A sequence that sorts after everything in the head of the sample and needs no private creator.
const NESTED: Tag = Tag(0x0040, 0xA730);

/// Encapsulated pixel data that is broken.
pub fn fragments(seed: u64) -> Vec<Malformed> {
    let make = Maker { seed };
    // Each starts from a valid RLE image and the position of the item header of its only fragment.
    let rle = |name, what, change: fn(Vec<u8>, usize) -> Vec<u8>| Malformed {
        transfer_syntax_uid: TransferSyntax::RleLossless.uid(),
        ..make.refused(name, what, |whole| {
            let bytes = whole.encoded(TransferSyntax::RleLossless);
            let offset_table = [tag_bytes(ITEM), 4_u32.to_le_bytes().to_vec()].concat();
            let table_at =
                bytes.windows(8).rposition(|window| window == offset_table).unwrap_or_default();
            change(bytes, table_at + 12)
        })
    };
    vec![
        rle("cut-in-a-fragment", "ends inside the only fragment", |mut bytes, fragment_at| {
            bytes.truncate(fragment_at + 100);
            bytes
        }),
        rle(
            "fragments-without-end",
            "the Sequence Delimitation Item is missing",
            |mut bytes, _| {
                bytes.truncate(bytes.len() - 8);
                bytes
            },
        ),
        rle("fragment-longer-than-the-rest", "the fragment says 4 GB", |bytes, fragment_at| {
            with_length(bytes, fragment_at, |_| 0xFFFF_FFF0)
        }),
        rle(
            "fragment-shorter-than-it-is",
            "the fragment says 64 bytes less than it has",
            |bytes, fragment_at| {
                with_length(bytes, fragment_at, |length| length.saturating_sub(64))
            },
        ),
        rle(
            "fragment-of-undefined-length",
            "the fragment has undefined length (PS3.5 A.4)",
            |bytes, fragment_at| with_length(bytes, fragment_at, |_| UNDEFINED_LENGTH),
        ),
        rle(
            "element-between-fragments",
            "Patient ID stands where a fragment belongs",
            |bytes, fragment_at| {
                let (head, tail) = bytes.split_at(fragment_at);
                [head, &explicit_header(tags::PATIENT_ID, VR::LO, 0), tail].concat()
            },
        ),
        make.either(
            "fragments-under-an-uncompressed-syntax",
            "encapsulated pixel data, sent as Explicit VR Little Endian",
            |whole| whole.encoded(TransferSyntax::RleLossless),
        ),
    ]
}

fn with_length(mut bytes: Vec<u8>, item_at: usize, change: fn(u32) -> u32) -> Vec<u8> {
    if let Some(field) = bytes.get_mut(item_at + 4..).and_then(<[u8]>::first_chunk_mut::<4>) {
        *field = change(u32::from_le_bytes(*field)).to_le_bytes();
    }
    bytes
}

/// Too much of something.
pub fn floods(seed: u64) -> Vec<Malformed> {
    let make = Maker { seed };
    let deflated = |malformed| Malformed {
        transfer_syntax_uid: TransferSyntax::DeflatedExplicitVrLittleEndian.uid(),
        ..malformed
    };
    let implicit = TransferSyntax::ImplicitVrLittleEndian;
    vec![
        deflated(make.refused(
            "deflate-bomb",
            "1.2 MB that inflate to 1.25 GB of zeros",
            |whole| whole.deflate_bomb(1250),
        )),
        deflated(make.refused(
            "not-deflated",
            "sent as Deflated Explicit VR, but is no deflate stream",
            Whole::bytes,
        )),
        deflated(make.refused(
            "deflate-stream-cut",
            "the deflate stream ends in its middle",
            |whole| {
                let mut bytes = whole.encoded(TransferSyntax::DeflatedExplicitVrLittleEndian);
                bytes.truncate(bytes.len() / 2);
                bytes
            },
        )),
        make.either("a-million-elements", "a million empty private elements, 8 MB", |whole| {
            let mut bytes = whole.head();
            for number in 0..1_000_000_u32 {
                let tag =
                    Tag(0x0101 + (number >> 15 << 1) as u16, 0x1000 + (number & 0x7FFF) as u16);
                bytes.extend(explicit_header(tag, VR::LO, 0));
            }
            bytes
        }),
        Malformed {
            transfer_syntax_uid: implicit.uid(),
            ..make.either(
                "name-of-2-mb",
                "Patient's Name has two million bytes, which only implicit VR can say",
                |whole| {
                    let mut set = whole.set.clone();
                    set.bytes(tags::PATIENT_NAME, VR::PN, b"Longfellow^".repeat(2_000_000 / 11));
                    encode(&set, implicit, SequenceLengths::Undefined).unwrap_or_default()
                },
            )
        },
    ]
}

/// A small data set in Deflated Explicit VR Little Endian whose Pixel Data inflates to so many MB (10^6) of zeros.
///
/// One block of a megabyte is compressed so that it depends on nothing before it, and then repeated: making the
/// bomb takes milliseconds.
pub fn deflate_bomb(seed: u64, megabytes: u32) -> Vec<u8> {
    Whole::new(seed, "deflate-bomb").deflate_bomb(megabytes)
}

/// Identifiers that cannot be used as such, least of all as file names.
pub fn uids(seed: u64) -> Vec<Malformed> {
    let make = Maker { seed };
    let with = |tag: Tag, uid: &'static [u8]| {
        move |whole: &Whole| bytes_of(whole.set.clone().bytes(tag, VR::UI, uid.to_vec()))
    };
    let without = |tag: Tag| move |whole: &Whole| bytes_of(whole.set.clone().remove(tag));
    let instance = tags::SOP_INSTANCE_UID;
    vec![
        make.refused(
            "uid-is-a-path",
            "SOP Instance UID is ../../etc/passwd",
            with(instance, b"../../etc/passwd"),
        ),
        make.refused(
            "study-uid-is-a-path",
            "Study Instance UID is /etc/cron.d/x",
            with(tags::STUDY_INSTANCE_UID, b"/etc/cron.d/x"),
        ),
        make.refused("uid-of-100-characters", "SOP Instance UID has 100 characters", |whole| {
            bytes_of(whole.set.clone().text(instance, &"1.23456789".repeat(10)))
        }),
        make.refused("uid-with-nul-inside", "SOP Instance UID has a NUL in its middle", {
            with(instance, b"1.2.3\0.4.5.6")
        }),
        make.refused(
            "uid-with-newline",
            "SOP Instance UID has a line break",
            with(instance, b"1.2.3\n1.2.4"),
        ),
        make.refused("uid-empty", "SOP Instance UID has no value", with(instance, b"")),
        make.refused(
            "uid-twice",
            "SOP Instance UID has two values",
            with(instance, b"1.2.3\\1.2.4"),
        ),
        make.refused("uid-missing", "there is no SOP Instance UID", without(instance)),
        make.refused("class-missing", "there is no SOP Class UID", without(tags::SOP_CLASS_UID)),
        make.refused(
            "study-uid-missing",
            "there is no Study Instance UID",
            without(tags::STUDY_INSTANCE_UID),
        ),
        make.refused(
            "uid-of-another-instance",
            "SOP Instance UID differs from that of the request",
            with(instance, b"2.25.42"),
        ),
        make.accepted(
            "uid-padded-with-spaces",
            "SOP Instance UID is padded with spaces instead of NUL",
            |whole| {
                let padding = if whole.sop_instance_uid.len() % 2 == 1 { " " } else { "  " };
                bytes_of(
                    whole
                        .set
                        .clone()
                        .text(instance, &format!("{}{padding}", whole.sop_instance_uid)),
                )
            },
        ),
        make.either("uid-with-leading-zero", "Series Instance UID is 1.2.03 (PS3.5 9.1)", {
            with(tags::SERIES_INSTANCE_UID, b"1.2.03")
        }),
    ]
}

/// Elements in the wrong place, twice, or in another encoding than promised.
pub fn structure(seed: u64) -> Vec<Malformed> {
    let make = Maker { seed };
    let other_id = [explicit_header(tags::PATIENT_ID, VR::LO, 8), b"OTHER ID".to_vec()].concat();
    let implicit = TransferSyntax::ImplicitVrLittleEndian;
    let big_endian = TransferSyntax::ExplicitVrBigEndian;
    vec![
        make.either(
            "out-of-order",
            "Patient ID comes once more after Pixel Data, with another value",
            |whole| [whole.bytes(), other_id.clone()].concat(),
        ),
        make.either(
            "duplicate-element",
            "Patient ID comes twice in a row, with different values",
            |whole| {
                let bytes = whole.bytes();
                let (before, after) = bytes.split_at(position(&bytes, PATIENT_ID_HEADER));
                [before, &other_id, after].concat()
            },
        ),
        make.either(
            "file-meta-inside",
            "Transfer Syntax UID (0002,0010) says big endian in the data set",
            |whole| bytes_of(whole.set.clone().text(tags::TRANSFER_SYNTAX_UID, big_endian.uid())),
        ),
        make.either(
            "command-inside",
            "Command Field (0000,0100) stands in the data set",
            |whole| bytes_of(whole.set.clone().u16(Tag(0x0000, 0x0100), 0x0021)),
        ),
        make.refused("nonsense-vr", "the VR of Patient ID is two question marks", |whole| {
            let mut bytes = whole.bytes();
            let vr_at = position(&bytes, PATIENT_ID_HEADER) + 4;
            if let Some(vr) = bytes.get_mut(vr_at..vr_at + 2) {
                vr.copy_from_slice(b"??");
            }
            bytes
        }),
        make.refused(
            "implicit-sent-as-explicit",
            "implicit VR, sent as Explicit VR Little Endian",
            |whole| whole.encoded(implicit),
        ),
        Malformed {
            transfer_syntax_uid: implicit.uid(),
            ..make.refused(
                "explicit-sent-as-implicit",
                "explicit VR, sent as Implicit VR Little Endian",
                Whole::bytes,
            )
        },
        make.refused(
            "big-sent-as-little",
            "big endian, sent as Explicit VR Little Endian",
            |whole| whole.encoded(big_endian),
        ),
        make.refused(
            "file-sent-as-data-set",
            "a whole Part 10 file where a data set belongs",
            |whole| Instance::new(&whole.set, SequenceLengths::Undefined).part10(),
        ),
        make.accepted(
            "private-without-creator",
            "a private element without Private Creator",
            |whole| {
                bytes_of(whole.set.clone().bytes(Tag(0x0029, 0x1010), VR::LO, b"orphan".to_vec()))
            },
        ),
    ]
}

/// Texts that want to be something else when they are shown or logged.
pub fn text(seed: u64) -> Vec<Malformed> {
    let make = Maker { seed };
    let with = |tag: Tag, value: &'static [u8]| {
        move |whole: &Whole| bytes_of(whole.set.clone().encoded(tag, value.to_vec()))
    };
    let latin_1_said_to_be = |charset: &'static str| {
        move |whole: &Whole| {
            let mut set = whole.set.clone();
            set.text(tags::SPECIFIC_CHARACTER_SET, charset);
            bytes_of(set.encoded(tags::PATIENT_NAME, b"M\xfcller^J\xfcrgen".to_vec()))
        }
    };
    vec![
        make.accepted("name-is-html", "Patient's Name is a script element", {
            with(tags::PATIENT_NAME, b"<script>alert(1)</script>^Eve")
        }),
        make.accepted("id-is-sql", "Patient ID closes a string of SQL", {
            with(tags::PATIENT_ID, b"'; DROP TABLE study;--")
        }),
        make.either("id-with-newline", "Patient ID has a line break and looks like a log line", {
            with(tags::PATIENT_ID, b"1\r\nINFO accepted")
        }),
        make.either("name-with-terminal-escape", "Patient's Name clears a terminal", {
            with(tags::PATIENT_NAME, b"\x1b[2J\x1b[31mEve^Adams")
        }),
        make.accepted(
            "name-in-unknown-charset",
            "Specific Character Set ISO_IR 999 does not exist",
            latin_1_said_to_be("ISO_IR 999"),
        ),
        make.accepted(
            "name-not-in-its-charset",
            "ISO_IR 192 is promised, the bytes are not UTF-8",
            latin_1_said_to_be("ISO_IR 192"),
        ),
        make.accepted(
            "date-is-no-date",
            "Study Date is 2026-99-99",
            with(tags::STUDY_DATE, b"2026-99-99"),
        ),
        make.accepted(
            "accession-too-long",
            "Accession Number has 60 characters where 16 are allowed",
            |whole| bytes_of(whole.set.clone().text(tags::ACCESSION_NUMBER, &"ACC123".repeat(10))),
        ),
    ]
}

/// Makes each of them from a sample of its own, so that two of them never share an instance.
#[derive(Clone, Copy)]
struct Maker {
    seed: u64,
}

impl Maker {
    fn refused(
        self,
        name: &'static str,
        what: &'static str,
        build: impl FnOnce(&Whole) -> Vec<u8>,
    ) -> Malformed {
        self.make(Verdict::Refused, name, what, build)
    }

    fn accepted(
        self,
        name: &'static str,
        what: &'static str,
        build: impl FnOnce(&Whole) -> Vec<u8>,
    ) -> Malformed {
        self.make(Verdict::Accepted, name, what, build)
    }

    fn either(
        self,
        name: &'static str,
        what: &'static str,
        build: impl FnOnce(&Whole) -> Vec<u8>,
    ) -> Malformed {
        self.make(Verdict::Either, name, what, build)
    }

    fn make(
        self,
        verdict: Verdict,
        name: &'static str,
        what: &'static str,
        build: impl FnOnce(&Whole) -> Vec<u8>,
    ) -> Malformed {
        let whole = Whole::new(self.seed, name);
        Malformed {
            name,
            what,
            verdict,
            data_set: build(&whole),
            sop_class_uid: whole.sop_class_uid,
            sop_instance_uid: whole.sop_instance_uid,
            transfer_syntax_uid: TransferSyntax::ExplicitVrLittleEndian.uid(),
        }
    }
}

/// The valid image that one of them starts from.
struct Whole {
    sop_class_uid: String,
    sop_instance_uid: String,
    set: DataSet,
}

impl Whole {
    fn new(seed: u64, name: &str) -> Self {
        let study = small_study(seed, &format!("malformed {name}"), 1, |_case| {});
        let sample = study.instances.into_iter().next();
        let set = sample.and_then(|sample| sample.elements().ok()).unwrap_or_default();
        let text = |tag| set.text_at(tag).unwrap_or_default();
        Self {
            sop_class_uid: text(tags::SOP_CLASS_UID),
            sop_instance_uid: text(tags::SOP_INSTANCE_UID),
            set,
        }
    }

    fn bytes(&self) -> Vec<u8> {
        bytes_of(&self.set)
    }

    /// Everything before the pixels.
    fn head(&self) -> Vec<u8> {
        bytes_of(self.set.clone().remove(tags::PIXEL_DATA))
    }

    fn encoded(&self, transfer_syntax: TransferSyntax) -> Vec<u8> {
        encode(&self.set, transfer_syntax, SequenceLengths::Undefined).unwrap_or_default()
    }

    /// The data set up to some bytes after an element's tag and VR.
    fn cut_after(&self, element: &[u8], further: usize) -> Vec<u8> {
        let mut bytes = self.bytes();
        bytes.truncate(position(&bytes, element) + element.len() + further);
        bytes
    }

    fn deflate_bomb(&self, megabytes: u32) -> Vec<u8> {
        let length = megabytes.saturating_mul(1_000_000);
        let head = [self.head(), explicit_header(tags::PIXEL_DATA, VR::OB, length)].concat();
        let mut bomb = flushed(&head);
        bomb.extend(flushed(&vec![0; 1_000_000]).repeat(megabytes as usize));
        // An empty last block ends the stream (RFC 1951 3.2.3), then padding to an even length.
        bomb.extend([0x03, 0x00]);
        if bomb.len() % 2 == 1 {
            bomb.push(0);
        }
        bomb
    }
}

/// Tag and VR of Patient ID (0010,0020).
const PATIENT_ID_HEADER: &[u8] = b"\x10\x00\x20\x00LO";

fn position(bytes: &[u8], of: &[u8]) -> usize {
    bytes.windows(of.len()).position(|window| window == of).unwrap_or_default()
}

/// Deflated up to a byte boundary, referring to nothing before.
fn flushed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    // Writing to memory cannot fail.
    let _ = encoder.write_all(bytes).and_then(|()| encoder.flush());
    encoder.get_ref().clone()
}

fn bytes_of(set: &DataSet) -> Vec<u8> {
    encoding::explicit_little_endian(set, SequenceLengths::Undefined)
}

fn tag_bytes(tag: Tag) -> Vec<u8> {
    [tag.group().to_le_bytes(), tag.element().to_le_bytes()].concat()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a panic is how a test fails

    use std::collections::HashSet;
    use std::io;

    use flate2::read::DeflateDecoder;

    use super::*;

    #[test]
    fn every_one_has_a_name_and_an_instance_of_its_own() {
        let all = all(1);

        assert_eq!(all.iter().map(|one| one.name).collect::<HashSet<_>>().len(), all.len());
        assert_eq!(
            all.iter().map(|one| &one.sop_instance_uid).collect::<HashSet<_>>().len(),
            all.len()
        );
    }

    #[test]
    fn the_data_set_names_the_instance_of_the_request_unless_that_is_what_is_wrong() {
        for one in [cut(1), lengths(1), nesting(1), fragments(1), structure(1), text(1)].concat() {
            let uid = one.sop_instance_uid.as_bytes();
            let says_nothing = ["empty", "claims-4-gb-in-28-bytes"].contains(&one.name);

            assert!(says_nothing || position(&one.data_set, uid) > 0, "{}", one.name);
        }
    }

    #[test]
    fn the_smallest_bomb_is_as_small_as_it_says() {
        let bomb =
            lengths(1).into_iter().find(|one| one.name == "claims-4-gb-in-28-bytes").unwrap();

        assert_eq!(bomb.data_set.len(), 28);
    }

    #[test]
    fn the_deflate_bomb_inflates_to_what_it_says() {
        let bomb = deflate_bomb(1, 20);

        let length = io::copy(&mut DeflateDecoder::new(&bomb[..]), &mut io::sink()).unwrap();

        assert!((20_000_000..20_010_000).contains(&length), "{length}");
        assert!(bomb.len() < 40_000, "{}", bomb.len());
    }
}
