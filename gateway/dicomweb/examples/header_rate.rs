//! How many instance headers a second become JSON, on one core: `cargo run --release -p gantry-dicomweb --example header_rate`.

use std::time::Instant;

use gantry_dicomweb::json::Json;
use gantry_dicomweb::model;
use gantry_store::dicom::TransferSyntax;
use gantry_store::dicom::scanner::{Budget, scan};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let study = sample_studies::HeadCt::small(7).build();
    let mut headers = Vec::new();
    for instance in &study.instances {
        let syntax: TransferSyntax = instance.transfer_syntax_uid.parse()?;
        let scan = scan(&syntax, &instance.data_set, Budget::default())?;
        let end = scan.pixel_data_offset.and_then(|end| usize::try_from(end).ok());
        let header = instance.data_set.get(..end.unwrap_or(instance.data_set.len()));
        headers.push((syntax, header.unwrap_or_default(), scan.elements));
    }
    let elements: u64 = headers.iter().map(|(.., elements)| elements).sum();
    let begun = Instant::now();
    let (mut written, mut out, mut bytes) = (0_u32, Vec::new(), 0);
    while written < 20_000 {
        for (syntax, header, _) in &headers {
            let uri = |bulk: &model::BulkValue<'_>| Some(format!("bulkdata/{bulk}"));
            out = model::encoded::<Json>(syntax, header, out, 1024, uri)?;
            bytes += out.len();
            out.clear();
            written += 1;
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{:.0} headers a second, {} elements and {} bytes of JSON each",
        f64::from(written) / seconds,
        elements / headers.len() as u64,
        bytes / written as usize
    );
    Ok(())
}
