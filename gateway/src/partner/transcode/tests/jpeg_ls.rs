//! JPEG-LS beside DCMTK's, which is CharLS: what one writes the other must read, bit for bit.

use super::*;

/// An image in Explicit VR Little Endian, and what it is.
struct Image {
    name: String,
    data_set: Vec<u8>,
    pixels: Vec<u8>,
    stored: u16,
}

#[derive(Clone, Copy, Debug)]
struct Look {
    rows: u16,
    columns: u16,
    frames: u16,
    colour: Option<(&'static str, u16)>,
    stored: u16,
    allocated: u16,
    signed: bool,
    kind: u8,
}

fn build(look: Look) -> Image {
    let Look { rows, columns, frames, colour, stored, allocated, signed, .. } = look;
    let samples = if colour.is_some() { 3 } else { 1 };
    let number = |tag, number: u16| element(tag, *b"US", &number.to_le_bytes());
    let mut data_set = element((0x0008, 0x0016), *b"UI", b"1.2.840.10008.5.1.4.1.1.7\0");
    data_set.extend(element((0x0008, 0x0018), *b"UI", b"1.2.3.4\0"));
    data_set.extend(number((0x0028, 0x0002), samples));
    let photometric = colour.map_or("MONOCHROME2 ", |(photometric, _)| photometric);
    data_set.extend(element((0x0028, 0x0004), *b"CS", photometric.as_bytes()));
    if let Some((_, planar)) = colour {
        data_set.extend(number((0x0028, 0x0006), planar));
    }
    data_set.extend(element((0x0028, 0x0008), *b"IS", format!("{frames:<2}").as_bytes()));
    for (element, value) in [
        (0x0010, rows),
        (0x0011, columns),
        (0x0100, allocated),
        (0x0101, stored),
        (0x0102, stored - 1),
        (0x0103, u16::from(signed)),
    ] {
        data_set.extend(number((0x0028, element), value));
    }
    let pixels = pixels(look, samples);
    let mut value = pixels.clone();
    value.resize(value.len().next_multiple_of(2), 0);
    data_set.extend(element((0x7FE0, 0x0010), if allocated > 8 { *b"OW" } else { *b"OB" }, &value));
    Image { name: format!("{look:?}"), data_set, pixels, stored }
}

fn pixels(look: Look, samples: u16) -> Vec<u8> {
    let count = u32::from(look.rows) * u32::from(look.columns) * u32::from(samples * look.frames);
    let mut random = 0x2545_F491_4F6C_DD1D_u64;
    let mut noise = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random >> 30) as u32
    };
    let top = (1_u32 << look.stored) - 1;
    let columns = u32::from(look.columns);
    (0..count)
        .map(|at| match look.kind {
            0 => noise(),
            1 => 3,
            2 => at,
            // Tissue with noise, and a sharp edge.
            _ => {
                let (row, column) = (at / columns, at % columns);
                let bright = if row % 31 > column % 31 { top / 3 } else { top / 9 };
                bright + noise() % (top / 60 + 1)
            }
        })
        .flat_map(|sample| {
            // Signed samples fill their cells with the sign.
            let above = u32::BITS - u32::from(look.stored);
            let shifted = sample << above;
            let cell = if look.signed {
                (shifted.cast_signed() >> above).cast_unsigned()
            } else {
                shifted >> above
            };
            cell.to_le_bytes().into_iter().take(usize::from(look.allocated / 8))
        })
        .collect()
}

fn images() -> Vec<Image> {
    let grey = Look {
        rows: 37,
        columns: 53,
        frames: 1,
        colour: None,
        stored: 12,
        allocated: 16,
        signed: false,
        kind: 3,
    };
    let mut looks = Vec::new();
    for kind in [0, 2, 3] {
        for (stored, allocated, signed) in [
            (8, 8, false),
            (8, 8, true),
            (2, 8, false),
            (7, 8, false),
            (10, 16, false),
            (12, 16, false),
            (12, 16, true),
            (16, 16, false),
            (16, 16, true),
            (8, 16, false),
        ] {
            looks.push(Look { stored, allocated, signed, kind, ..grey });
        }
        for (rows, columns) in [(1, 1), (1, 97), (97, 1), (2, 2), (3, 256)] {
            looks.push(Look { rows, columns, kind, ..grey });
        }
        for colour in [("RGB ", 0), ("RGB ", 1), ("YBR_FULL", 0)] {
            let colour = Some(colour);
            looks.push(Look { colour, stored: 8, allocated: 8, kind, frames: 2, ..grey });
        }
        looks.push(Look { frames: 5, kind, ..grey });
    }
    looks.into_iter().map(build).collect()
}

/// The Pixel Data of a native data set, and Planar Configuration.
fn found(data_set: &[u8], syntax: &TransferSyntax) -> (Vec<u8>, Option<u8>) {
    let values: std::collections::BTreeMap<_, _> = values(data_set, syntax).into_iter().collect();
    let planar = values.get("/(0028,0006)").map(|value| value[0]);
    (values["/(7FE0,0010)"].clone(), planar)
}

/// `None` if it is not installed.
fn call(program: &str, options: &[&str], from: &Path, to: &Path) -> Option<Result<(), String>> {
    let output = run(program, &[options, &[text(from), text(to)]].concat())?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Some(if output.status.success() { Ok(()) } else { Err(said) })
}

#[test]
fn dcmtk_decodes_what_we_compress_to_the_bits_that_were_given() {
    let folder = TempDir::new().unwrap();
    let nobody = sample_studies::structured_report(7).instances.remove(0);
    let jpeg_ls = syntax(uids::JPEGLS_LOSSLESS);
    for image in images() {
        let compressed = convert(&image.data_set, &explicit(), &jpeg_ls).unwrap();
        let ours = write(&folder, "ours.dcm", &nobody, jpeg_ls.uid(), &compressed);
        let theirs = folder.path().join("theirs.dcm");
        let again = convert(&compressed, &jpeg_ls, &explicit()).unwrap();
        // Whether colours are by plane is the decompressor's choice; so that it is the original's.
        let planar = found(&image.data_set, &explicit()).1;
        let option = if planar == Some(1) { "+pl" } else { "+px" };
        match call("dcmdjpls", &[option, "+te"], &ours, &theirs) {
            Some(decoded) => assert_eq!(decoded, Ok(()), "{}", image.name),
            None => return,
        }

        let (uid, decompressed) = part10(&theirs).unwrap();
        let (bits, as_planar) = found(&decompressed, &uid);

        assert_eq!(as_planar, planar, "{}", image.name);
        assert!(bits[..image.pixels.len()] == image.pixels, "{}", image.name);
        if planar != Some(1) {
            assert!(found(&again, &explicit()).0 == found(&image.data_set, &explicit()).0);
        }
    }
}

#[test]
fn we_decode_what_dcmtk_compresses_to_what_dcmtk_makes_of_it() {
    let folder = TempDir::new().unwrap();
    let nobody = sample_studies::structured_report(7).instances.remove(0);
    let (mut compared, mut refused) = (0, 0);
    for image in images() {
        let original = write(&folder, "original.dcm", &nobody, explicit().uid(), &image.data_set);
        for options in [
            &["+il"][..],
            &["+is", "+pc"],
            &["+in"],
            &["+il", "+t1", "9", "+t2", "20", "+t3", "40", "+rs", "31"],
            &["+en", "+md", "1", "+il"],
            &["+en", "+md", "5", "+is"],
            &["+en", "+md", "2", "+in"],
        ] {
            // Of fewer than 8 bits it has other thresholds than T.87.
            let raw = options.iter().all(|option| !matches!(*option, "+pc" | "+en"));
            if image.stored < 8 && !raw {
                continue;
            }
            let (compressed, theirs) =
                (folder.path().join("compressed.dcm"), folder.path().join("theirs.dcm"));
            let with = [options, &["+un"]].concat();
            // It compresses nothing signed with loss, and not everything with every threshold.
            match call("dcmcjpls", &with, &original, &compressed) {
                Some(Ok(())) => {}
                Some(Err(_)) => continue,
                None => return,
            }
            let (uid, data_set) = part10(&compressed).unwrap();

            let ours = convert(&data_set, &uid, &explicit());

            // Nor does it decompress all that it has compressed.
            let Some(decoded) = call("dcmdjpls", &["+px", "+te"], &compressed, &theirs) else {
                return;
            };
            match (ours, decoded) {
                (Ok(ours), Ok(())) => {
                    let (uid, theirs) = part10(&theirs).unwrap();
                    let same = found(&ours, &explicit()) == found(&theirs, &uid);
                    assert!(same, "{} by {options:?}", image.name);
                    compared += 1;
                }
                (Err(_), Err(_)) => refused += 1,
                (ours, theirs) => {
                    panic!("{} by {options:?}: {:?} {theirs:?}", image.name, ours.err());
                }
            }
        }
    }
    assert!(compared > 250 && refused < 20, "{compared} compared, {refused} refused by both");
}

#[test]
fn what_jpeg_ls_cannot_hold_is_not_compressed() {
    let jpeg_ls = syntax(uids::JPEGLS_LOSSLESS);
    let refused = |picture: Picture, pixels: usize| {
        let given = [image(&picture), element((0x7FE0, 0x0010), *b"OW", &vec![0; pixels])].concat();
        convert(&given, &explicit(), &jpeg_ls).unwrap_err().to_string()
    };

    assert_eq!(
        refused(Picture { allocated: 32, ..GREY }, 64),
        "attribute (0028,0100) is not one that is compressed"
    );
    assert_eq!(
        refused(Picture { samples: 3, photometric: "YBR_FULL_422", ..GREY }, 32),
        "attribute (0028,0004) is not one that is compressed"
    );
    assert_eq!(refused(GREY, 14), "attribute (7FE0,0010) is not as long as the attributes say");
    assert_eq!(
        convert(&image(&GREY), &explicit(), &jpeg_ls).unwrap_err().to_string(),
        "attribute (7FE0,0010) is not there to be compressed"
    );
}

#[test]
fn every_kind_of_image_in_any_encoding_comes_back_as_it_was() {
    let jpeg_ls = syntax(uids::JPEGLS_LOSSLESS);
    let mut compressed = 0;
    for instance in instances() {
        for from in Sample::ALL {
            let Ok(given) = instance.in_transfer_syntax(from) else { continue };
            let from = syntax(from.uid());
            let plain = convert(&given.data_set, &from, &explicit()).unwrap();

            let Ok(there) = convert(&given.data_set, &from, &jpeg_ls) else { continue };

            let back = convert(&there, &jpeg_ls, &explicit()).unwrap();
            assert!(there.len() < plain.len(), "{}", instance.file_name);
            assert!(
                values(&back, &explicit()) == values(&plain, &explicit()),
                "{}",
                instance.file_name
            );
            compressed += 1;
        }
    }
    assert!(compressed >= 20, "{compressed}");
}
