//! Where the time goes. Not a promise but a measurement, for whoever changes something here:
//! `cargo nextest run -p gantry-deidentify --run-ignored only -E 'test(speed)' --no-capture`. The dev profile has this crate
//! at opt-level 1 and its dependencies at 2; what is shipped is faster.

use std::time::{Duration, Instant};

use super::*;
use crate::verify::Verifier;

const ROUNDS: u32 = 200;

fn each(what: &str, mut work: impl FnMut()) -> Duration {
    work();
    let begun = Instant::now();
    for _ in 0..ROUNDS {
        work();
    }
    let each = begun.elapsed() / ROUNDS;
    println!("{what:<24} {each:>10.1?}");
    each
}

#[test]
#[ignore = "a measurement"]
fn a_ct_image() {
    let study = sample_studies::ct_series(7, 1);
    let instance = &study.instances[0];
    let syntax: TransferSyntax = instance.transfer_syntax_uid.parse().unwrap();
    let bytes = &instance.data_set;
    let deidentifier = deidentifier("research");
    let tools = Tools::default();
    println!("{} bytes", bytes.len());
    let read = each("read", || drop(data_set::read(&syntax, bytes).unwrap()));
    let made = each("read and make", || drop(make(&deidentifier, &syntax, bytes).unwrap()));
    println!("{:<24} {:>10.1?}", "make alone", made.saturating_sub(read));
    let protected = deidentifier.process(bytes, &syntax, &tools).unwrap();
    let written = protected.in_memory().unwrap().to_vec();
    each("verify", || {
        let mut verifier = Verifier::new(&deidentifier, &protected.made, &syntax);
        verifier.feed(&written).unwrap();
        verifier.finish().unwrap();
    });
    each("SHA-256 of the bytes", || {
        ring::digest::digest(&ring::digest::SHA256, bytes);
    });
    each("all of process", || drop(deidentifier.process(bytes, &syntax, &tools).unwrap()));
}
