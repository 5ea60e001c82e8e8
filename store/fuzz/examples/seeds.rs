//! Writes the seeds of the corpus: one small data set or text for each thing that the code tells apart.

use std::fs;
use std::path::Path;

const UNDEFINED: u32 = u32::MAX;
const ITEM: u32 = 0xFFFE_E000;
const ITEM_END: u32 = 0xFFFE_E00D;
const SEQUENCE_END: u32 = 0xFFFE_E0DD;

fn tag(tag: u32, big: bool) -> Vec<u8> {
    let (group, element) = ((tag >> 16) as u16, tag as u16);
    if big {
        [group.to_be_bytes(), element.to_be_bytes()].concat()
    } else {
        [group.to_le_bytes(), element.to_le_bytes()].concat()
    }
}

fn implicit(number: u32, length: u32, value: &[u8]) -> Vec<u8> {
    [tag(number, false), length.to_le_bytes().to_vec(), value.to_vec()].concat()
}

fn short(number: u32, vr: &str, value: &[u8], big: bool) -> Vec<u8> {
    let length = value.len() as u16;
    let length = if big { length.to_be_bytes() } else { length.to_le_bytes() };
    [tag(number, big), vr.as_bytes().to_vec(), length.to_vec(), value.to_vec()].concat()
}

fn long(number: u32, vr: &str, length: u32, value: &[u8], big: bool) -> Vec<u8> {
    let length = if big { length.to_be_bytes() } else { length.to_le_bytes() };
    [tag(number, big), vr.as_bytes().to_vec(), vec![0; 2], length.to_vec(), value.to_vec()].concat()
}

fn item(number: u32, length: u32, big: bool) -> Vec<u8> {
    let length = if big { length.to_be_bytes() } else { length.to_le_bytes() };
    [tag(number, big), length.to_vec()].concat()
}

fn main() -> std::io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let identity = |big| {
        [
            short(0x0008_0005, "CS", b"ISO_IR 100", big),
            short(0x0008_0018, "UI", b"1.2.3\0", big),
            short(0x0010_0020, "LO", b"P1", big),
            short(0x0028_0010, "US", &[2, 0], big),
        ]
        .concat()
    };
    let nested = |big| {
        [
            identity(big),
            long(0x0008_1140, "SQ", UNDEFINED, b"", big),
            item(ITEM, UNDEFINED, big),
            long(0x0040_A730, "SQ", 18, b"", big),
            item(ITEM, 10, big),
            short(0x0008_0100, "SH", b"A1", big),
            item(ITEM_END, 0, big),
            item(SEQUENCE_END, 0, big),
            long(0x7FE0_0010, "OW", 4, &[1, 2, 3, 4], big),
        ]
        .concat()
    };
    let implicit_nested = [
        implicit(0x0008_0018, 6, b"1.2.3\0"),
        implicit(0x0008_1140, 18, b""),
        implicit(ITEM, 10, b""),
        implicit(0x0008_1155, 2, b"1\0"),
        implicit(0x0009_1001, UNDEFINED, b""),
        implicit(ITEM, 0, b""),
        implicit(SEQUENCE_END, 0, b""),
        implicit(0x0010_0020, 2, b"P1"),
        implicit(0x7FE0_0010, 4, &[1, 2, 3, 4]),
    ]
    .concat();
    let encapsulated = [
        identity(false),
        long(0x7FE0_0010, "OB", UNDEFINED, b"", false),
        item(ITEM, 4, false),
        vec![0; 4],
        item(ITEM, 2, false),
        vec![0xFF, 0xD8],
        item(SEQUENCE_END, 0, false),
        long(0xFFFC_FFFC, "OB", 2, &[0; 2], false),
    ]
    .concat();
    let unknown = [
        long(0x0009_1010, "UN", UNDEFINED, b"", false),
        implicit(ITEM, 10, b""),
        implicit(0x0010_0020, 2, b"P1"),
        implicit(SEQUENCE_END, 0, b""),
    ]
    .concat();
    // One stored block (RFC 1951 3.2.4) needs no encoder.
    let explicit = nested(false);
    let length = explicit.len() as u16;
    let deflated = [
        vec![1],
        length.to_le_bytes().to_vec(),
        (!length).to_le_bytes().to_vec(),
        explicit.clone(),
        vec![0],
    ]
    .concat();

    // The first byte: syntax + 5 × (length of chunks − 1).
    for (name, choice, data_set) in [
        ("implicit", 30, &implicit_nested),
        ("explicit", 16, &explicit),
        ("deflated", 52, &deflated),
        ("big", 3, &nested(true)),
        ("encapsulated", 64, &encapsulated),
        ("unknown", 1, &unknown),
        (
            "unknown-big",
            3,
            &[long(0x0009_1010, "UN", UNDEFINED, b"", true), implicit(SEQUENCE_END, 0, b"")]
                .concat(),
        ),
        ("claim", 1, &long(0x0009_1010, "OB", 0xFFFF_FFF0, b"few", false)),
        (
            "nesting",
            1,
            &[long(0x0008_1140, "SQ", UNDEFINED, b"", false), item(ITEM, UNDEFINED, false)]
                .concat()
                .repeat(66),
        ),
    ] {
        let input = [&[choice][..], data_set].concat();
        for target in ["scanner", "parser"] {
            fs::create_dir_all(corpus.join(target))?;
            fs::write(corpus.join(target).join(name), &input)?;
        }
    }
    fs::create_dir_all(corpus.join("text"))?;
    for (name, text) in [
        ("latin", &b"ISO_IR 100\nBuc^J\xe9r\xf4me"[..]),
        ("japanese", b"ISO 2022 IR 13\\ISO 2022 IR 87\n\xd4\xcf\xc0\xde=\x1b$B;3ED\x1b(J^\x1b$(D\x30\x21\x1b(J"),
        ("korean", b"\\ISO 2022 IR 149\nHong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7"),
        ("chinese", b"\\ISO 2022 IR 58\nZhang=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab="),
        ("gb18030", b"GB18030\n\x81\x5c\x82\x5c\x95\x32\x82\x36"),
        ("utf-8", b"ISO_IR 192\nWang=\xe7\x8e\x8b^\xe5\xb0\x8f\xe6\x9d\xb1="),
        ("extended", b"ISO 2022 IR 100\\ISO 2022 IR 144\nJ\xe9=\x1b-L\xbb\xee\r\n\x1b-b\xa4\x1b-F\xc4\x1b-G\xc8\x1b-H\xf9\x1b-M\xfe\x1b-T\xca"),
    ] {
        fs::write(corpus.join("text").join(name), text)?;
    }
    Ok(())
}
