//! No text makes the decoder panic, or comes out with a control character.
//!
//! Input: the character set up to the first line feed, then the value.
#![no_main]

use gantry_store::dicom::text;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let split = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
    let (character_set, value) = input.split_at(split);

    let decoded = text::decode(character_set, value.get(1..).unwrap_or_default());

    assert!(!decoded.contains(char::is_control));
});
