//! No data set makes the scanner panic or hold much, chunks have no influence, and what passes can be written again.
//!
//! Input: one byte that chooses the syntax (modulo 5) and the length of chunks, then the data set.
#![no_main]

use gantry_store::dicom::TransferSyntax;
use gantry_store::dicom::scanner::{Budget, Event, Scan, ScanError, Scanner, Visitor};
use libfuzzer_sys::fuzz_target;

const SYNTAXES: [&str; 5] = [
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.4.50",
];

#[derive(Debug, Default, Eq, PartialEq)]
struct Identity(Vec<u8>);

impl Visitor for Identity {
    fn visit(&mut self, event: Event<'_>) {
        self.0.extend_from_slice(event.raw());
    }
}

fn scan(
    syntax: &TransferSyntax,
    bytes: &[u8],
    chunk: usize,
) -> Result<(Scan, Identity), ScanError> {
    let budget = Budget { inflated: 1 << 20, ..Budget::default() };
    let mut scanner = Scanner::with_visitor(syntax, budget, Identity::default());
    for chunk in bytes.chunks(chunk) {
        scanner.feed(chunk)?;
    }
    scanner.finish_visit()
}

fuzz_target!(|input: &[u8]| {
    let Some((choice, bytes)) = input.split_first() else { return };
    let choice = usize::from(*choice);
    let uid = SYNTAXES[choice % SYNTAXES.len()];
    let syntax: TransferSyntax = uid.parse().expect("a UID");

    let whole = scan(&syntax, bytes, usize::MAX);
    let split = scan(&syntax, bytes, choice / SYNTAXES.len() + 1);

    assert_eq!(whole, split);
    if let Ok((scan, Identity(written))) = whole
        && uid != SYNTAXES[2]
    {
        assert_eq!(written, bytes);
        assert_eq!(scan.length, bytes.len() as u64);
    }
});
