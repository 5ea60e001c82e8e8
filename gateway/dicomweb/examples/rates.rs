//! How fast the encodings are, on one core: `cargo run --release -p gantry-dicomweb --example rates`.

use std::time::Instant;

use gantry_dicomweb::frames::Pixels;
use gantry_dicomweb::json::{self, Json};
use gantry_dicomweb::model::{self, BulkValue, Format};
use gantry_dicomweb::multipart::{Boundary, Reader, Writer};
use gantry_dicomweb::read::Limits;
use gantry_dicomweb::xml::{self, Xml};
use gantry_store::dicom::TransferSyntax;
use gantry_store::dicom::scanner::{Budget, Scanner, scan};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// An instance without its pixel data.
struct Head {
    syntax: TransferSyntax,
    bytes: Vec<u8>,
    elements: u64,
}

fn main() -> Outcome<()> {
    let heads = heads()?;
    let elements: u64 = heads.iter().map(|head| head.elements).sum();
    println!("headers have {} elements", elements / heads.len() as u64);
    for head in &heads {
        // The dictionary is built at its first use, which is not to be measured.
        written::<Xml>(head)?;
    }
    rate("JSON written", &heads, |head| written::<Json>(head).map(|out| out.len()))?;
    rate("XML written", &heads, |head| written::<Xml>(head).map(|out| out.len()))?;
    let texts =
        |of: fn(&Head) -> Outcome<Vec<u8>>| heads.iter().map(of).collect::<Outcome<Vec<_>>>();
    let limits = Limits::default();
    rate("JSON read", &texts(written::<Json>)?, |text| {
        Ok(json::read_one(text, &limits).map(|_| text.len())?)
    })?;
    rate("XML read", &texts(written::<Xml>)?, |text| {
        Ok(xml::read(text, &limits).map(|_| text.len())?)
    })?;
    rate("frames found", &heads, |head| {
        let mut scanner = Scanner::with_visitor(&head.syntax, Budget::default(), Pixels::default());
        scanner.feed(&head.bytes)?;
        let (_, pixels) = scanner.finish_visit()?;
        Ok(pixels.frames().frame(1).map_or(head.bytes.len(), |_| 0))
    })?;
    let boundary = Boundary::random(7);
    let delimiter = format!("\r\n--{}", &boundary.as_str()[..20]);
    let noise = (0..1 << 20).map(|number: u32| (number.wrapping_mul(2_654_435_761) >> 24) as u8);
    for (name, body) in [
        ("multipart, pixels", noise.collect()),
        ("multipart, line ends", b"\r\n".repeat(1 << 19)),
        (
            "multipart, delimiters cut short",
            delimiter.repeat((1 << 20) / delimiter.len()).into_bytes(),
        ),
    ] {
        rate(name, &[message(&boundary, &body)], |text| Ok(parsed(&boundary, text)?))?;
    }
    Ok(())
}

fn heads() -> Outcome<Vec<Head>> {
    let study = sample_studies::HeadCt::small(7).build();
    let heads = study.instances.into_iter().map(|instance| {
        let syntax: TransferSyntax = instance.transfer_syntax_uid.parse()?;
        let mut bytes = instance.data_set;
        let scan = scan(&syntax, &bytes, Budget::default())?;
        bytes.truncate(
            usize::try_from(scan.pixel_data_offset.unwrap_or(u64::MAX)).unwrap_or(usize::MAX),
        );
        Ok(Head { syntax, bytes, elements: scan.elements })
    });
    heads.collect()
}

fn written<F: Format>(head: &Head) -> Outcome<Vec<u8>> {
    let uri = |bulk: &BulkValue<'_>| Some(format!("bulkdata/{bulk}"));
    Ok(model::encoded::<F>(&head.syntax, &head.bytes, Vec::new(), 1024, uri)?)
}

fn message(boundary: &Boundary, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = Writer::new(boundary.clone());
    for _ in 0..8 {
        writer.part(&[("Content-Type", "application/dicom")], &mut out);
        out.extend_from_slice(body);
    }
    writer.end(&mut out);
    out
}

fn parsed(
    boundary: &Boundary,
    text: &[u8],
) -> Result<usize, gantry_dicomweb::multipart::MultipartError> {
    let mut reader = Reader::new(boundary, 100);
    // As much as a socket gives at once.
    for chunk in text.chunks(16 << 10) {
        reader.feed(chunk, |event| drop(std::hint::black_box(event)))?;
    }
    reader.finish().map(|()| text.len())
}

/// Runs through all of them for two seconds; `step` says how many bytes it has dealt with.
fn rate<T>(name: &str, of: &[T], mut step: impl FnMut(&T) -> Outcome<usize>) -> Outcome<()> {
    let begun = Instant::now();
    let (mut steps, mut bytes) = (0_u32, 0_u64);
    while begun.elapsed().as_secs() < 2 {
        for one in of {
            bytes += step(one)? as u64;
            steps += 1;
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    let (each, total) = (f64::from(steps) / seconds, bytes as f64 / seconds / 1e6);
    println!("{name:32} {each:10.0} a second, {total:8.1} MB a second");
    Ok(())
}
