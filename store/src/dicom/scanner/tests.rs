use std::io::Write as _;

use dicom_core::VR;
use dicom_dictionary_std::tags;
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::dicom::Tag;
use crate::dicom::attributes::MAX_VALUE;

const IMPLICIT: &str = "1.2.840.10008.1.2";
const EXPLICIT: &str = "1.2.840.10008.1.2.1";
const DEFLATED: &str = "1.2.840.10008.1.2.1.99";
const BIG: &str = "1.2.840.10008.1.2.2";
const JPEG: &str = "1.2.840.10008.1.2.4.50";
const SYNTAXES: [&str; 5] = [IMPLICIT, EXPLICIT, DEFLATED, BIG, JPEG];

fn syntax(uid: &str) -> TransferSyntax {
    uid.parse().unwrap()
}

// Data sets as a tree, and their encoding: independent of the code under test, and free to write what is wrong.

#[derive(Clone, Debug)]
enum Node {
    Value { tag: Tag, vr: &'static str, value: Vec<u8> },
    Sequence { tag: Tag, vr: &'static str, undefined: bool, items: Vec<Item> },
    Fragments { fragments: Vec<Vec<u8>> },
}

#[derive(Clone, Debug)]
struct Item {
    undefined: bool,
    nodes: Vec<Node>,
}

fn value(tag: Tag, vr: &'static str, value: &[u8]) -> Node {
    Node::Value { tag, vr, value: value.to_vec() }
}

fn nested(levels: usize, undefined: bool) -> Node {
    (0..levels).fold(value(tags::REFERENCED_SOP_CLASS_UID, "UI", b"1.2"), |inside, _| {
        Node::Sequence {
            tag: tags::REFERENCED_IMAGE_SEQUENCE,
            vr: "SQ",
            undefined,
            items: vec![Item { undefined, nodes: vec![inside] }],
        }
    })
}

fn u16_bytes(encoding: Encoding, number: u16) -> [u8; 2] {
    if encoding == Encoding::ExplicitBig { number.to_be_bytes() } else { number.to_le_bytes() }
}

fn u32_bytes(encoding: Encoding, number: u32) -> [u8; 4] {
    if encoding == Encoding::ExplicitBig { number.to_be_bytes() } else { number.to_le_bytes() }
}

fn tag_bytes(encoding: Encoding, tag: Tag) -> Vec<u8> {
    [u16_bytes(encoding, tag.group()), u16_bytes(encoding, tag.element())].concat()
}

fn element_header(encoding: Encoding, tag: Tag, vr: &str, length: u32) -> Vec<u8> {
    const SHORT: &str = "AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US";
    let mut bytes = tag_bytes(encoding, tag);
    if encoding == Encoding::ImplicitLittle {
        bytes.extend(u32_bytes(encoding, length));
    } else if SHORT.split(' ').any(|short| short == vr) {
        bytes.extend(vr.as_bytes());
        bytes.extend(u16_bytes(encoding, u16::try_from(length).unwrap()));
    } else {
        bytes.extend(vr.as_bytes());
        bytes.extend([0, 0]);
        bytes.extend(u32_bytes(encoding, length));
    }
    bytes
}

fn item_header(encoding: Encoding, tag: Tag, length: u32) -> Vec<u8> {
    [tag_bytes(encoding, tag), u32_bytes(encoding, length).to_vec()].concat()
}

const ITEM: Tag = Tag(0xFFFE, 0xE000);
const ITEM_END: Tag = Tag(0xFFFE, 0xE00D);
const SEQUENCE_END: Tag = Tag(0xFFFE, 0xE0DD);
const UNDEFINED: u32 = u32::MAX;

fn encode(nodes: &[Node], encoding: Encoding) -> Vec<u8> {
    nodes.iter().flat_map(|node| encode_node(node, encoding)).collect()
}

fn encode_node(node: &Node, encoding: Encoding) -> Vec<u8> {
    match node {
        Node::Value { tag, vr, value } => {
            let mut bytes = element_header(encoding, *tag, vr, value.len() as u32);
            bytes.extend(value);
            bytes
        }
        Node::Sequence { tag, vr, undefined, items } => {
            let inside = if *vr == "UN" { Encoding::ImplicitLittle } else { encoding };
            let mut content = Vec::new();
            for item in items {
                let nodes = encode(&item.nodes, inside);
                let length = if item.undefined { UNDEFINED } else { nodes.len() as u32 };
                content.extend(item_header(inside, ITEM, length));
                content.extend(nodes);
                if item.undefined {
                    content.extend(item_header(inside, ITEM_END, 0));
                }
            }
            let length = if *undefined { UNDEFINED } else { content.len() as u32 };
            let mut bytes = element_header(encoding, *tag, vr, length);
            bytes.extend(content);
            if *undefined {
                bytes.extend(item_header(inside, SEQUENCE_END, 0));
            }
            bytes
        }
        Node::Fragments { fragments } => {
            let mut bytes = element_header(encoding, tags::PIXEL_DATA, "OB", UNDEFINED);
            for fragment in fragments {
                bytes.extend(item_header(encoding, ITEM, fragment.len() as u32));
                bytes.extend(fragment);
            }
            bytes.extend(item_header(encoding, SEQUENCE_END, 0));
            bytes
        }
    }
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn encoding_of(uid: &str) -> Encoding {
    match uid {
        IMPLICIT => Encoding::ImplicitLittle,
        BIG => Encoding::ExplicitBig,
        _ => Encoding::ExplicitLittle,
    }
}

fn as_sent(uid: &str, encoded: &[u8]) -> Vec<u8> {
    if uid == DEFLATED { deflate(encoded) } else { encoded.to_vec() }
}

/// Writes what it sees, and checks that what begins also ends.
#[derive(Debug, Default, Eq, PartialEq)]
struct Identity {
    bytes: Vec<u8>,
    shape: String,
    left: u32,
}

impl Visitor for Identity {
    fn visit(&mut self, event: Event<'_>) {
        match event {
            Event::Element(header) | Event::Sequence(header) | Event::Fragments(header) => {
                assert_eq!(header.header_offset, self.bytes.len() as u64);
                assert_eq!(header.value_offset, (self.bytes.len() + header.raw.len()) as u64);
                assert_eq!(
                    usize::from(header.depth),
                    self.shape.chars().filter(|c| matches!(c, '[' | '{')).count()
                );
            }
            Event::Item(header) | Event::Fragment(header) => {
                assert_eq!(header.header_offset, self.bytes.len() as u64);
                assert_eq!(header.raw.len(), 8);
            }
            Event::Value(_) | Event::ValueEnd | Event::ItemEnd(_) | Event::SequenceEnd(_) => {}
        }
        match event {
            Event::Element(header) => {
                self.shape.push('=');
                self.left = header.length.unwrap();
            }
            Event::Fragment(header) => {
                self.shape.push('=');
                self.left = header.length.unwrap();
            }
            Event::Sequence(_) => self.shape.push('['),
            Event::Fragments(_) => self.shape.push('{'),
            Event::Item(_) => self.shape.push('('),
            Event::Value(bytes) => {
                assert!(!bytes.is_empty());
                self.left -= bytes.len() as u32;
            }
            Event::ValueEnd => {
                assert_eq!((self.shape.pop(), self.left), (Some('='), 0));
            }
            Event::ItemEnd(_) => assert_eq!(self.shape.pop(), Some('(')),
            Event::SequenceEnd(_) => assert!(matches!(self.shape.pop(), Some('[' | '{'))),
        }
        self.bytes.extend(event.raw());
    }
}

type Outcome = Result<(Scan, Identity), ScanError>;

/// Feeds the bytes in chunks of the given lengths, over and over.
fn scan_split(uid: &str, bytes: &[u8], budget: &Budget, chunks: &[usize]) -> Outcome {
    let mut scanner = Scanner::with_visitor(&syntax(uid), *budget, Identity::default());
    let mut rest = bytes;
    for length in chunks.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (chunk, behind) = rest.split_at((*length).min(rest.len()));
        if let Err(error) = scanner.feed(chunk) {
            assert_eq!(scanner.feed(&[]), Err(error.clone()), "a refused data set stays refused");
            assert_eq!(scanner.finish(), Err(error.clone()));
            return Err(error);
        }
        rest = behind;
    }
    scanner.finish_visit()
}

fn scan_whole(uid: &str, bytes: &[u8]) -> Outcome {
    scan_split(uid, bytes, &Budget::default(), &[usize::MAX])
}

// Random data sets.

fn values() -> impl Strategy<Value = Node> {
    let attribute = prop::sample::select(vec![
        (Tag(0x0008, 0x0000), "UL"),
        (tags::REFERENCED_SOP_INSTANCE_UID, "UI"),
        (tags::CODE_VALUE, "SH"),
        (tags::IMAGE_COMMENTS, "LT"),
        (Tag(0x0009, 0x0010), "LO"),
        (Tag(0x0009, 0x1001), "UN"),
        (Tag(0x0009, 0x1002), "OB"),
        (Tag(0x0009, 0x1003), "ZZ"), // of a later edition
        (tags::RED_PALETTE_COLOR_LOOKUP_TABLE_DATA, "OW"),
        (tags::TEXT_VALUE, "UT"),
    ]);
    (attribute, vec(any::<u8>(), 0..24)).prop_map(|((tag, vr), value)| Node::Value {
        tag,
        vr,
        value,
    })
}

fn nodes() -> impl Strategy<Value = Node> {
    values().prop_recursive(5, 60, 4, |inner| {
        let sequence = prop::sample::select(vec![
            (tags::REFERENCED_IMAGE_SEQUENCE, "SQ", None),
            (tags::ICON_IMAGE_SEQUENCE, "SQ", None),
            (Tag(0x0009, 0x1010), "SQ", Some(true)), // private, which implicit VR shows by the undefined length alone
            (Tag(0x0009, 0x1011), "UN", Some(true)),
        ]);
        let item = (any::<bool>(), vec(inner, 0..4))
            .prop_map(|(undefined, nodes)| Item { undefined, nodes });
        (sequence, any::<bool>(), vec(item, 0..4)).prop_map(
            |((tag, vr, always), undefined, items)| Node::Sequence {
                tag,
                vr,
                undefined: always.unwrap_or(undefined),
                items,
            },
        )
    })
}

fn data_sets() -> impl Strategy<Value = (&'static str, Vec<Node>)> {
    let pixels = prop_oneof![
        Just(None),
        vec(any::<u8>(), 0..64).prop_map(|pixels| Some(value(tags::PIXEL_DATA, "OW", &pixels))),
        (0usize..3, vec(vec(any::<u8>(), 0..32), 0..4)).prop_map(|(frames, mut fragments)| {
            fragments.insert(0, vec![0; 4 * frames]);
            Some(Node::Fragments { fragments })
        }),
    ];
    (prop::sample::select(&SYNTAXES[..]), vec(nodes(), 0..5), pixels).prop_map(
        |(uid, nodes, pixels)| {
            let rows = u16_bytes(encoding_of(uid), 512);
            let mut all = vec![
                value(tags::SOP_INSTANCE_UID, "UI", b"1.2.3\0"),
                value(tags::PATIENT_ID, "LO", b"P1"),
                value(tags::ROWS, "US", &rows),
            ];
            all.extend(nodes);
            // Fragments need an explicit VR.
            all.extend(
                pixels.filter(|pixels| uid != IMPLICIT || matches!(pixels, Node::Value { .. })),
            );
            (uid, all)
        },
    )
}

fn chunkings() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![Just(vec![1]), vec(1usize..40, 1..8)]
}

proptest! {
    #[test]
    fn a_valid_data_set_passes_and_can_be_written_again_byte_for_byte(
        (uid, nodes) in data_sets(),
        chunks in chunkings(),
    ) {
        let encoded = encode(&nodes, encoding_of(uid));
        let sent = as_sent(uid, &encoded);

        let (scan, identity) = scan_split(uid, &sent, &Budget::default(), &chunks).unwrap();

        prop_assert_eq!(&identity.bytes, &encoded);
        prop_assert!(identity.shape.is_empty());
        prop_assert_eq!(scan.length, sent.len() as u64);
        prop_assert_eq!(scan.attributes.raw(tags::SOP_INSTANCE_UID), Some(&b"1.2.3\0"[..]));
        prop_assert_eq!(scan.attributes.raw(tags::PATIENT_ID), Some(&b"P1"[..]));
        prop_assert_eq!(scan.attributes.u16(tags::ROWS), Some(512));
        let pixels = nodes.last().filter(|node| match node {
            Node::Value { tag, .. } => *tag == tags::PIXEL_DATA,
            Node::Fragments { .. } => true,
            Node::Sequence { .. } => false,
        });
        let offset = pixels.map(|node| (encoded.len() - encode_node(node, encoding_of(uid)).len()) as u64);
        prop_assert_eq!(scan.pixel_data_offset, offset.filter(|_| uid != DEFLATED));
        prop_assert_eq!(scan.encapsulated, matches!(pixels, Some(Node::Fragments { .. })));
    }

    #[test]
    fn chunks_have_no_influence(
        (uid, nodes) in data_sets(),
        chunks in chunkings(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        total in prop::option::of(0u64..400),
        (depth, elements) in (0u16..6, 0u64..60),
    ) {
        let mut sent = as_sent(uid, &encode(&nodes, encoding_of(uid)));
        for (at, byte) in damage {
            let at = at.index(sent.len());
            sent[at] = byte;
        }
        let budget = Budget { depth, elements, total, ..Budget::default() };

        let whole = scan_split(uid, &sent, &budget, &[usize::MAX]);
        let split = scan_split(uid, &sent, &budget, &chunks);

        prop_assert_eq!(split, whole);
    }

    #[test]
    fn every_truncation_is_an_error_unless_it_falls_between_top_level_elements(
        (uid, nodes) in data_sets(),
        odd_chunk in 1usize..30,
    ) {
        let encoding = encoding_of(uid);
        let sent = as_sent(uid, &encode(&nodes, encoding));
        let between: Vec<_> = nodes
            .iter()
            .scan(0, |end, node| {
                *end += encode_node(node, encoding).len();
                Some(*end)
            })
            .collect();

        for cut in 0..sent.len() {
            let outcome = scan_split(uid, &sent[..cut], &Budget::default(), &[odd_chunk]);
            let told = Budget { total: Some(sent.len() as u64), ..Budget::default() };
            let outcome_told = scan_split(uid, &sent[..cut], &told, &[odd_chunk]);

            if uid == DEFLATED || !between.contains(&cut) {
                prop_assert!(outcome.unwrap_err().is_truncation(), "cut at {cut}");
            } else {
                prop_assert!(outcome.is_ok(), "cut at {cut}");
            }
            prop_assert!(outcome_told.unwrap_err().is_truncation(), "cut at {cut}");
        }
    }

    #[test]
    fn no_bytes_make_it_panic(
        uid in prop::sample::select(&SYNTAXES[..]),
        bytes in vec(prop_oneof![3 => any::<u8>(), 1 => prop::sample::select(&b"\xFE\xFF\x00\xE0\x0D\xDDSQUN\x08"[..])], 0..300),
        chunks in chunkings(),
    ) {
        let whole = scan_whole(uid, &bytes);

        prop_assert_eq!(scan_split(uid, &bytes, &Budget::default(), &chunks), whole);
    }
}

// Each refusal.

/// Elements of Explicit VR Little Endian, to be put together wrongly.
fn header(tag: Tag, vr: &str, length: u32) -> Vec<u8> {
    element_header(Encoding::ExplicitLittle, tag, vr, length)
}

fn element(tag: Tag, vr: &str, value: &[u8]) -> Vec<u8> {
    [header(tag, vr, value.len() as u32), value.to_vec()].concat()
}

fn item(tag: Tag, length: u32) -> Vec<u8> {
    item_header(Encoding::ExplicitLittle, tag, length)
}

#[test]
fn each_defect_has_its_error() {
    use ScanError::*;
    let sequence = tags::REFERENCED_IMAGE_SEQUENCE;
    let code = tags::CODE_VALUE;
    let cases: Vec<(&str, Vec<Vec<u8>>, ScanError)> = vec![
        ("nothing", vec![], Empty),
        ("header cut", vec![header(code, "SH", 2)[..7].to_vec()], HeaderCut { offset: 0 }),
        ("long header cut", vec![header(code, "UT", 2)[..11].to_vec()], HeaderCut { offset: 0 }),
        (
            "value cut",
            vec![element(code, "SH", b"A "), header(tags::PIXEL_DATA, "OW", 9), vec![0; 8]],
            ValueCut { tag: tags::PIXEL_DATA, offset: 10, missing: 1 },
        ),
        (
            "sequence not ended",
            vec![header(sequence, "SQ", UNDEFINED)],
            SequenceCut { tag: sequence, offset: 0 },
        ),
        (
            "item not ended",
            vec![header(sequence, "SQ", UNDEFINED), item(ITEM, UNDEFINED)],
            SequenceCut { tag: sequence, offset: 12 },
        ),
        (
            "fragments not ended",
            vec![
                header(tags::PIXEL_DATA, "OB", UNDEFINED),
                item(ITEM, 0),
                item(ITEM, 2),
                vec![1, 2],
            ],
            SequenceCut { tag: tags::PIXEL_DATA, offset: 0 },
        ),
        (
            "fragment cut",
            vec![header(tags::PIXEL_DATA, "OB", UNDEFINED), item(ITEM, 0), item(ITEM, 2), vec![1]],
            ValueCut { tag: tags::PIXEL_DATA, offset: 20, missing: 1 },
        ),
        (
            "value longer than its item",
            vec![header(sequence, "SQ", 20), item(ITEM, 12), header(code, "SH", 5), vec![0; 5]],
            Overrun { tag: code, offset: 20, length: 5, remaining: 4 },
        ),
        (
            "item longer than its sequence",
            vec![header(sequence, "SQ", 20), item(ITEM, 13)],
            Overrun { tag: ITEM, offset: 12, length: 13, remaining: 12 },
        ),
        (
            "sequence longer than the item two levels up",
            vec![
                header(sequence, "SQ", 40),
                item(ITEM, 32),
                header(sequence, "SQ", UNDEFINED),
                item(ITEM, UNDEFINED),
                header(sequence, "SQ", 1),
            ],
            Overrun { tag: sequence, offset: 40, length: 1, remaining: 0 },
        ),
        (
            "item ends in a header",
            vec![header(sequence, "SQ", 15), item(ITEM, 7), vec![0; 8]],
            NoRoom { offset: 20 },
        ),
        (
            "item ends in a long header",
            vec![header(sequence, "SQ", 19), item(ITEM, 11), header(code, "UT", 0)],
            NoRoom { offset: 20 },
        ),
        (
            "sequence too short for an item",
            vec![header(sequence, "SQ", 4), item(ITEM, 0)],
            NoRoom { offset: 12 },
        ),
        (
            "item delimiter outside all",
            vec![item(ITEM_END, 0)],
            UnexpectedDelimiter { tag: ITEM_END, offset: 0 },
        ),
        (
            "sequence delimiter outside all",
            vec![item(SEQUENCE_END, 0)],
            UnexpectedDelimiter { tag: SEQUENCE_END, offset: 0 },
        ),
        (
            "item delimiter in an item with a length",
            vec![header(sequence, "SQ", 16), item(ITEM, 8), item(ITEM_END, 0)],
            UnexpectedDelimiter { tag: ITEM_END, offset: 20 },
        ),
        (
            "sequence delimiter in a sequence with a length",
            vec![header(sequence, "SQ", 8), item(SEQUENCE_END, 0)],
            UnexpectedDelimiter { tag: SEQUENCE_END, offset: 12 },
        ),
        (
            "sequence delimiter in an item",
            vec![header(sequence, "SQ", UNDEFINED), item(ITEM, UNDEFINED), item(SEQUENCE_END, 0)],
            UnexpectedDelimiter { tag: SEQUENCE_END, offset: 20 },
        ),
        (
            "item delimiter between items",
            vec![header(sequence, "SQ", UNDEFINED), item(ITEM_END, 0)],
            UnexpectedDelimiter { tag: ITEM_END, offset: 12 },
        ),
        (
            "item delimiter among fragments",
            vec![header(tags::PIXEL_DATA, "OB", UNDEFINED), item(ITEM_END, 0)],
            UnexpectedDelimiter { tag: ITEM_END, offset: 12 },
        ),
        (
            "delimiter with a length",
            vec![header(sequence, "SQ", UNDEFINED), item(SEQUENCE_END, 4)],
            DelimiterLength { tag: SEQUENCE_END, offset: 12 },
        ),
        (
            "item delimiter with a length",
            vec![header(sequence, "SQ", UNDEFINED), item(ITEM, UNDEFINED), item(ITEM_END, 4)],
            DelimiterLength { tag: ITEM_END, offset: 20 },
        ),
        ("item outside all", vec![item(ITEM, 0)], ItemOutsideSequence { offset: 0 }),
        (
            "item in an item",
            vec![header(sequence, "SQ", UNDEFINED), item(ITEM, UNDEFINED), item(ITEM, 0)],
            ItemOutsideSequence { offset: 20 },
        ),
        (
            "element between items",
            vec![header(sequence, "SQ", UNDEFINED), element(code, "SH", b"")],
            NotAnItem { tag: code, offset: 12, sequence },
        ),
        (
            "element among fragments",
            vec![
                header(tags::PIXEL_DATA, "OB", UNDEFINED),
                item(ITEM, 0),
                element(code, "SH", b""),
            ],
            NotAnItem { tag: code, offset: 20, sequence: tags::PIXEL_DATA },
        ),
        (
            "implicit where explicit was agreed",
            vec![
                element_header(Encoding::ImplicitLittle, tags::SOP_CLASS_UID, "", 26),
                vec![0; 26],
            ],
            NotExplicit { tag: tags::SOP_CLASS_UID, offset: 0 },
        ),
        (
            "letters that are none",
            vec![element(code, "??", b"")],
            NotExplicit { tag: code, offset: 0 },
        ),
        (
            "lower case letters",
            vec![element(code, "sh", b"")],
            NotExplicit { tag: code, offset: 0 },
        ),
        (
            "text of undefined length",
            vec![header(tags::TEXT_VALUE, "UT", UNDEFINED)],
            UndefinedLength { tag: tags::TEXT_VALUE, offset: 0 },
        ),
        (
            "unknown VR of undefined length",
            vec![header(tags::TEXT_VALUE, "ZZ", UNDEFINED)],
            UndefinedLength { tag: tags::TEXT_VALUE, offset: 0 },
        ),
        (
            "private fragments, which dicom-object reads as items",
            vec![header(Tag(0x7FE1, 0x1010), "OB", UNDEFINED), item(ITEM, 0)],
            UndefinedLength { tag: Tag(0x7FE1, 0x1010), offset: 0 },
        ),
        (
            "pixel data of VR UN and undefined length, likewise",
            vec![header(tags::PIXEL_DATA, "UN", UNDEFINED), item(ITEM, 0)],
            UndefinedLength { tag: tags::PIXEL_DATA, offset: 0 },
        ),
        (
            "pixel data as a sequence",
            vec![header(tags::PIXEL_DATA, "SQ", UNDEFINED), item(ITEM, 0)],
            PixelDataSequence { offset: 0 },
        ),
        (
            "fragment of undefined length",
            vec![header(tags::PIXEL_DATA, "OB", UNDEFINED), item(ITEM, 0), item(ITEM, UNDEFINED)],
            UndefinedFragment { offset: 20 },
        ),
        (
            "offset table of three bytes",
            vec![header(tags::PIXEL_DATA, "OB", UNDEFINED), item(ITEM, 3)],
            OffsetTable { offset: 12, length: 3 },
        ),
        (
            "a file's header",
            vec![element(tags::FILE_META_INFORMATION_GROUP_LENGTH, "UL", &[0; 4])],
            NotInDataSet { tag: tags::FILE_META_INFORMATION_GROUP_LENGTH, offset: 0 },
        ),
        ("a preamble", vec![vec![0; 128]], NotInDataSet { tag: Tag(0, 0), offset: 0 }),
        (
            "two patients",
            vec![element(tags::PATIENT_ID, "LO", b"P1"), element(tags::PATIENT_ID, "LO", b"P2")],
            Duplicate { tag: tags::PATIENT_ID, offset: 10 },
        ),
        (
            "two patients, one unnamed",
            vec![element(tags::PATIENT_ID, "LO", b""), element(tags::PATIENT_ID, "LO", b"P2")],
            Duplicate { tag: tags::PATIENT_ID, offset: 8 },
        ),
        (
            "a patient twice, too long to tell",
            vec![element(tags::PATIENT_ID, "LO", &[b'P'; MAX_VALUE]).repeat(2)],
            Duplicate { tag: tags::PATIENT_ID, offset: 8 + MAX_VALUE as u64 },
        ),
        (
            "two pixel data",
            vec![element(tags::PIXEL_DATA, "OW", b""), element(tags::PIXEL_DATA, "OW", b"")],
            Duplicate { tag: tags::PIXEL_DATA, offset: 12 },
        ),
        (
            "patient behind the pixels",
            vec![element(tags::PIXEL_DATA, "OW", b""), element(tags::PATIENT_ID, "LO", b"P2")],
            AfterPixelData { tag: tags::PATIENT_ID, offset: 12 },
        ),
        (
            "patient behind the padding",
            vec![
                element(Tag(0xFFFC, 0xFFFC), "OB", &[0; 2]),
                element(tags::PATIENT_ID, "LO", b"P2"),
            ],
            AfterPadding { tag: tags::PATIENT_ID, offset: 14 },
        ),
    ];
    for (name, parts, expected) in cases {
        let bytes = parts.concat();
        for chunks in [[usize::MAX], [1], [7]] {
            let outcome = scan_split(EXPLICIT, &bytes, &Budget::default(), &chunks);
            assert_eq!(outcome.unwrap_err(), expected, "{name}");
        }
    }
}

#[test]
fn implicit_vr_has_undefined_lengths_for_sequences_alone() {
    for (tag, refused) in [
        (tags::PATIENT_NAME, true),
        (tags::PIXEL_DATA, true),
        (tags::REFERENCED_IMAGE_SEQUENCE, false),
        (Tag(0x0009, 0x1010), false),
    ] {
        let bytes = [
            element_header(Encoding::ImplicitLittle, tag, "", UNDEFINED),
            item_header(Encoding::ImplicitLittle, SEQUENCE_END, 0),
        ];
        let expected =
            if refused { Some(ScanError::UndefinedLength { tag, offset: 0 }) } else { None };
        assert_eq!(scan_whole(IMPLICIT, &bytes.concat()).err(), expected, "{tag}");
    }
}

#[test]
fn what_devices_write_passes_while_it_is_balanced_and_bounded() {
    let sequence = tags::REFERENCED_IMAGE_SEQUENCE;
    let cases: Vec<(&str, &str, Vec<Vec<u8>>)> = vec![
        (
            "odd lengths",
            EXPLICIT,
            vec![element(tags::PATIENT_ID, "LO", b"P"), element(tags::CODE_VALUE, "SH", b"A")],
        ),
        (
            "disorder",
            EXPLICIT,
            vec![
                element(tags::PATIENT_ID, "LO", b"P1"),
                element(tags::SOP_INSTANCE_UID, "UI", b"1.2\0"),
            ],
        ),
        (
            "the same element twice",
            EXPLICIT,
            vec![
                element(tags::PATIENT_ID, "LO", b"P1").repeat(2),
                element(tags::STUDY_ID, "SH", b"").repeat(3),
            ],
        ),
        ("group length", EXPLICIT, vec![element(Tag(0x0008, 0x0000), "UL", &[9, 0, 0, 0])]),
        (
            "padding, twice",
            EXPLICIT,
            vec![
                element(Tag(0xFFFC, 0xFFFC), "OB", &[0; 9]),
                element(Tag(0xFFFC, 0xFFFC), "OB", &[0; 9]),
            ],
        ),
        (
            "reserved bytes that are not zero",
            EXPLICIT,
            vec![vec![0x09, 0, 0x01, 0x10, b'O', b'B', 1, 2, 1, 0, 0, 0, 7]],
        ),
        ("a VR of a later edition", EXPLICIT, vec![element(Tag(0x0009, 0x1001), "QQ", b"12")]),
        (
            "native pixel data in an encapsulated syntax",
            JPEG,
            vec![element(tags::PIXEL_DATA, "OW", &[0; 6])],
        ),
        (
            "fragments in a native syntax, of odd length",
            EXPLICIT,
            vec![
                header(tags::PIXEL_DATA, "OB", UNDEFINED),
                item(ITEM, 0),
                item(ITEM, 3),
                vec![1, 2, 3],
                item(SEQUENCE_END, 0),
            ],
        ),
        (
            "fragments without any",
            JPEG,
            vec![header(tags::PIXEL_DATA, "OB", UNDEFINED), item(SEQUENCE_END, 0)],
        ),
        (
            "an icon of fragments",
            JPEG,
            vec![
                header(tags::ICON_IMAGE_SEQUENCE, "SQ", UNDEFINED),
                item(ITEM, UNDEFINED),
                header(tags::PIXEL_DATA, "OB", UNDEFINED),
                item(ITEM, 0),
                item(SEQUENCE_END, 0),
                item(ITEM_END, 0),
                item(SEQUENCE_END, 0),
            ],
        ),
        ("an empty sequence", EXPLICIT, vec![header(sequence, "SQ", 0)]),
        ("an empty item", EXPLICIT, vec![header(sequence, "SQ", 8), item(ITEM, 0)]),
        (
            "many lengths that end at once",
            EXPLICIT,
            vec![
                header(sequence, "SQ", 28),
                item(ITEM, 20),
                header(sequence, "SQ", 8),
                item(ITEM, 0),
            ],
        ),
    ];
    for (name, uid, parts) in cases {
        let bytes = parts.concat();
        for chunks in [[usize::MAX], [1], [5]] {
            let outcome = scan_split(uid, &bytes, &Budget::default(), &chunks);
            assert_eq!(outcome.map(|(_, identity)| identity.bytes), Ok(bytes.clone()), "{name}");
        }
    }
}

#[test]
fn an_unknown_sequence_is_read_as_implicit() {
    let patient = value(tags::PATIENT_NAME, "PN", b"SMITH^ANNA");
    let unknown = Node::Sequence {
        tag: Tag(0x0009, 0x1010),
        vr: "UN",
        undefined: true,
        items: vec![Item { undefined: false, nodes: vec![patient.clone()] }],
    };
    for uid in [EXPLICIT, BIG] {
        let (scan, identity) =
            scan_whole(uid, &encode(&[unknown.clone(), patient.clone()], encoding_of(uid)))
                .unwrap();

        assert_eq!((scan.tree_safe, scan.elements), (false, 4));
        assert_eq!(identity.bytes, encode(&[unknown.clone(), patient.clone()], encoding_of(uid)));
        assert_eq!(scan.attributes.text(tags::PATIENT_NAME).as_deref(), Some("SMITH^ANNA"));
    }
}

#[test]
fn what_dicom_object_would_read_otherwise_is_marked() {
    for (tag, vr, length, safe) in [
        (tags::ROWS, "US", 2, true),
        (tags::ROWS, "US", 3, false),
        (Tag(0x0008, 0x0000), "UL", 4, true),
        (Tag(0x0008, 0x0000), "UL", 6, false),
        (tags::EVENT_TIME_OFFSET, "FD", 16, true),
        (tags::EVENT_TIME_OFFSET, "FD", 12, false),
        (tags::PIXEL_DATA, "OW", 9, false),
        (tags::PATIENT_ID, "LO", 3, true),
        (Tag(0x0009, 0x1001), "UN", 3, true),
    ] {
        for uid in [IMPLICIT, EXPLICIT, BIG] {
            let bytes = encode(&[value(tag, vr, &[b'1'; 16][..length])], encoding_of(uid));
            assert_eq!(scan_whole(uid, &bytes).unwrap().0.tree_safe, safe, "{tag} {uid} {length}");
        }
    }
}

#[test]
fn only_the_top_level_is_indexed_and_a_long_value_is_cut() {
    let nodes = [
        Node::Sequence {
            tag: tags::REFERENCED_PATIENT_SEQUENCE,
            vr: "SQ",
            undefined: false,
            items: vec![Item {
                undefined: true,
                nodes: vec![value(tags::PATIENT_ID, "LO", b"nested")],
            }],
        },
        value(tags::STUDY_DESCRIPTION, "LO", &[b'x'; 5000]),
        value(tags::ACCESSION_NUMBER, "SH", b""),
    ];
    let (scan, _) =
        scan_split(EXPLICIT, &encode(&nodes, Encoding::ExplicitLittle), &Budget::default(), &[13])
            .unwrap();

    assert_eq!(scan.attributes.raw(tags::PATIENT_ID), None);
    assert_eq!(scan.attributes.raw(tags::STUDY_DESCRIPTION), Some(&[b'x'; MAX_VALUE][..]));
    assert_eq!(scan.attributes.raw(tags::ACCESSION_NUMBER), Some(&b""[..]));
}

#[test]
fn indexed_attributes_are_found_by_bisection() {
    assert!(crate::dicom::attributes::INDEXED.is_sorted());
}

#[test]
fn headers_say_what_is_written() {
    struct Seen(Vec<(Tag, Option<VR>, Option<u32>, Encoding)>);
    impl Visitor for Seen {
        fn visit(&mut self, event: Event<'_>) {
            if let Event::Element(header) | Event::Sequence(header) = event {
                self.0.push((header.tag, header.vr, header.length, header.encoding));
            }
        }
    }
    let nodes = [
        nested(1, true),
        value(tags::TEXT_VALUE, "UT", b"x"),
        value(Tag(0x0009, 0x1001), "ZZ", b""),
    ];
    for (uid, encoding) in [(IMPLICIT, Encoding::ImplicitLittle), (BIG, Encoding::ExplicitBig)] {
        let mut scanner = Scanner::with_visitor(&syntax(uid), Budget::default(), Seen(Vec::new()));
        scanner.feed(&encode(&nodes, encoding)).unwrap();
        let explicit = |vr| Some(vr).filter(|_| uid == BIG);

        assert_eq!(
            scanner.finish_visit().unwrap().1.0,
            [
                (tags::REFERENCED_IMAGE_SEQUENCE, explicit(VR::SQ), None, encoding),
                (tags::REFERENCED_SOP_CLASS_UID, explicit(VR::UI), Some(3), encoding),
                (tags::TEXT_VALUE, explicit(VR::UT), Some(1), encoding),
                (Tag(0x0009, 0x1001), explicit(VR::UN), Some(0), encoding),
            ]
        );
    }
}

// Budgets.

#[test]
fn nesting_ends_at_the_budget() {
    let limit = Budget::default().depth;
    for uid in SYNTAXES {
        for undefined in [true, false] {
            let deepest =
                as_sent(uid, &encode(&[nested(limit.into(), undefined)], encoding_of(uid)));
            assert!(scan_whole(uid, &deepest).is_ok());

            let deeper = as_sent(
                uid,
                &encode(&[nested(usize::from(limit) + 1, undefined)], encoding_of(uid)),
            );
            assert!(matches!(scan_whole(uid, &deeper), Err(ScanError::TooDeep { limit: 64, .. })));
        }
        let open = [
            element_header(encoding_of(uid), tags::REFERENCED_IMAGE_SEQUENCE, "SQ", UNDEFINED),
            item_header(encoding_of(uid), ITEM, UNDEFINED),
        ];
        let bottomless = as_sent(uid, &open.concat().repeat(10_000));
        assert!(matches!(scan_whole(uid, &bottomless), Err(ScanError::TooDeep { limit: 64, .. })));
    }
}

#[test]
fn elements_items_and_fragments_count_together() {
    let nodes = [nested(1, false), Node::Fragments { fragments: vec![vec![], vec![1, 2]] }];
    let bytes = encode(&nodes, Encoding::ExplicitLittle);
    assert_eq!(scan_whole(EXPLICIT, &bytes).unwrap().0.elements, 6);

    let budget = Budget { elements: 5, ..Budget::default() };
    let refused = scan_split(EXPLICIT, &bytes, &budget, &[9]).unwrap_err();
    assert_eq!(refused, ScanError::TooManyElements { offset: bytes.len() as u64 - 18, limit: 5 });
}

#[test]
fn a_claim_of_four_gigabytes_holds_nothing() {
    let bytes = [
        element(tags::PATIENT_ID, "LO", b"P1"),
        header(tags::STUDY_DESCRIPTION, "UT", 0xFFFF_FFF0),
        vec![0; 6],
    ];
    let bytes = bytes.concat();
    assert_eq!(bytes.len(), 28);

    let outcome = scan_whole(EXPLICIT, &bytes);
    let missing = 0xFFFF_FFF0 - 6;
    assert_eq!(
        outcome.unwrap_err(),
        ScanError::ValueCut { tag: tags::STUDY_DESCRIPTION, offset: 10, missing }
    );

    let told = Budget { total: Some(28), ..Budget::default() };
    let refused = ScanError::Overrun {
        tag: tags::STUDY_DESCRIPTION,
        offset: 10,
        length: 0xFFFF_FFF0,
        remaining: 6,
    };
    assert_eq!(scan_split(EXPLICIT, &bytes, &told, &[usize::MAX]).unwrap_err(), refused);
}

#[test]
fn the_told_length_is_kept_to() {
    for uid in [EXPLICIT, DEFLATED] {
        let bytes = as_sent(uid, &element(tags::PATIENT_ID, "LO", b"P1"));
        let length = bytes.len() as u64;
        let told =
            |told| scan(&syntax(uid), &bytes, Budget { total: Some(told), ..Budget::default() });

        assert!(told(length).is_ok());
        assert_eq!(told(length + 1), Err(ScanError::TooShort { told: length + 1, length }));
        let refused = told(length - 1).unwrap_err();
        assert!(
            matches!(refused, ScanError::TooLong { .. } | ScanError::Overrun { .. }),
            "{refused}"
        );
    }
}

#[test]
fn a_deflate_bomb_is_refused_early_and_a_blank_image_passes() {
    let blank = deflate(&element(tags::PIXEL_DATA, "OW", &vec![0; 4 << 20]));
    assert!(blank.len() < 5000);
    assert!(scan_whole(DEFLATED, &blank).is_ok());

    let bomb = deflate(&element(tags::PIXEL_DATA, "OW", &vec![0; 64 << 20]));
    let mut scanner = Scanner::new(&syntax(DEFLATED), Budget::default());
    assert_eq!(scanner.feed(&bomb), Err(ScanError::InflateRatio { limit: 100 }));
    assert!(scanner.walk.offset() <= (32 << 20) + (64 << 10));

    let small = Budget { inflated: 1 << 20, ..Budget::default() };
    let refused = scan(&syntax(DEFLATED), &blank, small).unwrap_err();
    assert_eq!(refused, ScanError::TooMuchInflated { limit: 1 << 20 });
}

#[test]
fn a_deflated_data_set_ends_with_its_stream_and_at_most_a_checksum_and_a_nul() {
    let encoded = element(tags::PATIENT_ID, "LO", b"P1");
    let deflated = deflate(&encoded);
    let length = encoded.len() as u64;
    let zlib = [&[0x78, 0x9C][..], &deflated].concat();
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(&encoded).unwrap();
    let gzip = gzip.finish().unwrap();
    let gzip_trailer = &gzip[gzip.len() - 8..];
    for chunks in [[usize::MAX], [1]] {
        let with = |tail: &[u8]| {
            let bytes = [&deflated, tail].concat();
            scan_split(DEFLATED, &bytes, &Budget::default(), &chunks)
                .map(|(_, identity)| identity.bytes)
        };
        assert_eq!(with(&[]), Ok(encoded.clone()));
        assert_eq!(with(&[0]), Ok(encoded.clone()));
        assert_eq!(with(&[1]), Err(ScanError::AfterDeflate));
        assert_eq!(with(&[0, 0]), Err(ScanError::AfterDeflate));
        assert_eq!(with(&[0; 1000]), Err(ScanError::AfterDeflate));
        assert_eq!(with(gzip_trailer), Ok(encoded.clone()));
        assert_eq!(with(&[gzip_trailer, &[0]].concat()), Ok(encoded.clone()));
        assert_eq!(with(&gzip_trailer[1..]), Err(ScanError::AfterDeflate));
        let cut =
            scan_split(DEFLATED, &deflated[..deflated.len() - 1], &Budget::default(), &chunks);
        assert_eq!(cut.unwrap_err(), ScanError::DeflateCut { inflated: length });
        assert!(scan_split(DEFLATED, &zlib, &Budget::default(), &chunks).is_err());
        assert_eq!(
            scan_split(DEFLATED, &deflate(&[]), &Budget::default(), &chunks).unwrap_err(),
            ScanError::Empty
        );
        let not_deflated = scan_split(DEFLATED, &encoded, &Budget::default(), &chunks);
        assert_eq!(not_deflated.unwrap_err(), ScanError::Damaged { inflated: 0 });
    }
}

#[test]
fn messages_say_what_and_where_and_no_value() {
    let error = ScanError::Overrun { tag: tags::PATIENT_ID, offset: 20, length: 5, remaining: 4 };
    assert_eq!(error.to_string(), "element (0010,0020) at byte 20 claims 5 bytes where 4 remain");

    let mut scanner = Scanner::new(&syntax(EXPLICIT), Budget::default());
    scanner.feed(&element(tags::PATIENT_ID, "LO", b"SECRET")).unwrap();
    assert!(!format!("{scanner:?}").contains("SECRET"));
}
