//! Taking a DICOM file apart (PS3.10 7.1), just far enough to compare data sets; not the product's reader.

use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};

/// What a file holds.
#[derive(Clone, Debug)]
pub struct Part10 {
    /// Media Storage SOP Class UID (0002,0002).
    pub sop_class_uid: String,
    /// Media Storage SOP Instance UID (0002,0003).
    pub sop_instance_uid: String,
    /// Transfer Syntax UID (0002,0010).
    pub transfer_syntax_uid: String,
    /// The bytes after the File Meta Information.
    pub data_set: Vec<u8>,
}

impl Part10 {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path)?;
        Self::parse(&bytes).with_context(|| format!("{} is not a whole DICOM file", path.display()))
    }

    /// Takes a file's bytes apart.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        ensure!(bytes.get(128..132) == Some(b"DICM"), "there is no prefix");
        let mut file = Self {
            sop_class_uid: String::new(),
            sop_instance_uid: String::new(),
            transfer_syntax_uid: String::new(),
            data_set: Vec::new(),
        };
        let mut rest = &bytes[132..];
        // Group 0002 is Explicit VR Little Endian, whatever follows it.
        while let [2, 0, e0, e1, v0, v1, after @ ..] = rest {
            let (length, after) = if matches!(&[*v0, *v1], b"OB" | b"OW" | b"UN" | b"UT" | b"SQ") {
                let Some((&[_, _, a, b, c, d], after)) = after.split_first_chunk() else {
                    bail!("cut in a header")
                };
                (u32::from_le_bytes([a, b, c, d]) as usize, after)
            } else {
                let Some((&[a, b], after)) = after.split_first_chunk() else {
                    bail!("cut in a header")
                };
                (usize::from(u16::from_le_bytes([a, b])), after)
            };
            let (value, after) =
                after.split_at_checked(length).context("cut in the File Meta Information")?;
            let text = || String::from_utf8_lossy(value).trim_end_matches(['\0', ' ']).to_owned();
            match u16::from_le_bytes([*e0, *e1]) {
                0x0002 => file.sop_class_uid = text(),
                0x0003 => file.sop_instance_uid = text(),
                0x0010 => file.transfer_syntax_uid = text(),
                _ => {}
            }
            rest = after;
        }
        ensure!(!file.transfer_syntax_uid.is_empty(), "there is no transfer syntax");
        file.data_set = rest.to_vec();
        Ok(file)
    }
}
