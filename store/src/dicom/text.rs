//! Text in the character sets of DICOM (PS3.5 6.1, PS3.3 C.12.1.1.2).

/// Decodes a textual value by the raw value of Specific Character Set (0008,0005).
pub fn decode(_character_set: &[u8], value: &[u8]) -> String {
    String::from_utf8_lossy(value).into_owned()
}
