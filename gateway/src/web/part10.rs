//! DICOM files (PS3.10 7.1): what stands before the data set, read from a stream and written to one.
//!
//! The head is read as it comes, within a bound, and nothing of it reaches the data set: what follows it is handed on byte
//! for byte. It ends where the first element outside group 0002 begins; the group length is not believed, as real files
//! have wrong ones.

use bytes::Bytes;
use gantry_store::dicom::{SopClassUid, SopInstanceUid, TransferSyntax, Uid};
use thiserror::Error;

/// Bytes of the longest head that is read. Real ones have a few hundred; private information may make one longer.
const MOST: usize = 64 << 10;
/// What a file begins with: 128 bytes of anything, then four letters.
const PREAMBLE: usize = 128;
const MAGIC: &[u8] = b"DICM";

/// What the File Meta Information says of the data set behind it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FileMeta {
    /// Transfer Syntax UID (0002,0010).
    pub transfer_syntax: TransferSyntax,
    /// Media Storage SOP Class UID (0002,0002). Some files lack it.
    pub sop_class: Option<SopClassUid>,
    /// Media Storage SOP Instance UID (0002,0003). Some files lack it.
    pub sop_instance: Option<SopInstanceUid>,
}

/// Why bytes are not the head of a DICOM file.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum NotPart10 {
    /// No preamble, or too short for one.
    #[error(
        "it does not begin as a DICOM file does: there is no DICM after 128 bytes (PS3.10 7.1)"
    )]
    NoMagic,
    /// It ends before the data set begins.
    #[error("it ends before its data set begins")]
    Short,
    /// The head never ends.
    #[error("its File Meta Information is longer than {MOST} bytes")]
    Long,
    /// Something in group 0002 that is not Explicit VR Little Endian.
    #[error("its File Meta Information is damaged at byte {0}")]
    Damaged(usize),
    /// Nothing says how the data set is encoded.
    #[error("its File Meta Information has no valid Transfer Syntax UID (0002,0010)")]
    NoTransferSyntax,
}

/// Reads the head of a file.
#[derive(Debug, Default)]
pub struct HeadReader {
    buffer: Vec<u8>,
    /// Where the next element begins, once the magic has been seen.
    at: usize,
    transfer_syntax: Option<TransferSyntax>,
    sop_class: Option<SopClassUid>,
    sop_instance: Option<SopInstanceUid>,
}

/// How far reading has come.
#[derive(Debug)]
pub enum Head {
    /// More bytes are needed.
    Unfinished(HeadReader),
    /// The head, and those of the bytes that belong to the data set already.
    Finished(FileMeta, Bytes),
}

/// What stands at some place of the buffer.
enum Found {
    /// An element of group 0002: its number, and where its value begins and ends.
    Element(u16, usize, usize),
    /// Another group: the data set.
    DataSet,
    /// Not enough bytes to tell.
    Unknown,
}

impl HeadReader {
    /// Takes the next bytes of the file.
    pub fn feed(mut self, bytes: &[u8]) -> Result<Head, NotPart10> {
        self.buffer.extend_from_slice(bytes);
        if self.at == 0 {
            match self.buffer.get(PREAMBLE..PREAMBLE + MAGIC.len()) {
                None => return Ok(Head::Unfinished(self)),
                Some(MAGIC) => self.at = PREAMBLE + MAGIC.len(),
                Some(_) => return Err(NotPart10::NoMagic),
            }
        }
        loop {
            match self.look()? {
                Found::Element(number, begin, end) => {
                    let Some(value) = self.buffer.get(begin..end) else { return self.more() };
                    let uid = Uid::from_value(value).ok();
                    match number {
                        0x0002 => self.sop_class = uid.map(Into::into),
                        0x0003 => self.sop_instance = uid.map(Into::into),
                        0x0010 => {
                            self.transfer_syntax = uid.and_then(|uid| uid.as_str().parse().ok());
                        }
                        _ => {}
                    }
                    self.at = end;
                }
                Found::DataSet => return self.done(),
                Found::Unknown => return self.more(),
            }
        }
    }

    /// Why a file that ends here is none: no data set has begun.
    pub fn cut_short(self) -> NotPart10 {
        if self.at == 0 { NotPart10::NoMagic } else { NotPart10::Short }
    }

    fn look(&self) -> Result<Found, NotPart10> {
        let rest = self.buffer.get(self.at..).unwrap_or_default();
        let Some([g0, g1, e0, e1]) = rest.first_chunk() else {
            // Two bytes already tell another group apart, and a data set has more than two.
            return Ok(Found::Unknown);
        };
        if u16::from_le_bytes([*g0, *g1]) != 0x0002 {
            return Ok(Found::DataSet);
        }
        let Some([_, _, _, _, v0, v1, l0, l1]) = rest.first_chunk() else {
            return Ok(Found::Unknown);
        };
        // Explicit VR: lengths of 16 bits, or for some VRs of 32 bits after two reserved bytes (PS3.5 7.1.2).
        let (header, length) = match &[*v0, *v1] {
            b"OB" | b"OD" | b"OF" | b"OL" | b"OV" | b"OW" | b"SQ" | b"SV" | b"UC" | b"UN"
            | b"UR" | b"UT" | b"UV" => {
                let Some([.., l0, l1, l2, l3]) = rest.first_chunk::<12>() else {
                    return Ok(Found::Unknown);
                };
                (12, u32::from_le_bytes([*l0, *l1, *l2, *l3]) as usize)
            }
            vr if vr.iter().all(u8::is_ascii_uppercase) => {
                (8, usize::from(u16::from_le_bytes([*l0, *l1])))
            }
            _ => return Err(NotPart10::Damaged(self.at)),
        };
        let begin = self.at + header;
        let end = begin.checked_add(length).filter(|end| *end <= MOST).ok_or(NotPart10::Long)?;
        Ok(Found::Element(u16::from_le_bytes([*e0, *e1]), begin, end))
    }

    fn more(self) -> Result<Head, NotPart10> {
        if self.buffer.len() > MOST { Err(NotPart10::Long) } else { Ok(Head::Unfinished(self)) }
    }

    fn done(mut self) -> Result<Head, NotPart10> {
        let data_set = Bytes::from(std::mem::take(&mut self.buffer)).slice(self.at..);
        Ok(Head::Finished(self.meta()?, data_set))
    }

    fn meta(self) -> Result<FileMeta, NotPart10> {
        Ok(FileMeta {
            transfer_syntax: self.transfer_syntax.ok_or(NotPart10::NoTransferSyntax)?,
            sop_class: self.sop_class,
            sop_instance: self.sop_instance,
        })
    }
}

/// Identifies this program as the writer of files; below the root for UUIDs (PS3.5 B.2), as nobody gave us another.
const IMPLEMENTATION_CLASS_UID: &str = "2.25.310837160298543158266173092164053118210";

/// The head of a file that holds this instance.
pub fn head(meta: &FileMeta) -> Vec<u8> {
    let mut elements = Vec::new();
    let mut put = |number: u16, vr: &[u8; 2], value: &[u8]| {
        elements.extend_from_slice(&[2, 0]);
        elements.extend_from_slice(&number.to_le_bytes());
        elements.extend_from_slice(vr);
        if vr == b"OB" {
            elements.extend_from_slice(&[0, 0]);
            elements.extend_from_slice(&(value.len() as u32).to_le_bytes());
        } else {
            // A UID has at most 64 characters, and everything else here fewer.
            elements.extend_from_slice(&(value.len() as u16).to_le_bytes());
        }
        elements.extend_from_slice(value);
    };
    put(0x0001, b"OB", &[0, 1]);
    if let Some(uid) = &meta.sop_class {
        put(0x0002, b"UI", &even(uid.as_str()));
    }
    if let Some(uid) = &meta.sop_instance {
        put(0x0003, b"UI", &even(uid.as_str()));
    }
    put(0x0010, b"UI", &even(meta.transfer_syntax.uid()));
    put(0x0012, b"UI", &even(IMPLEMENTATION_CLASS_UID));
    put(0x0013, b"SH", b"GANTRY");
    let mut head = vec![0; PREAMBLE];
    head.extend_from_slice(MAGIC);
    head.extend_from_slice(&[2, 0, 0, 0, b'U', b'L', 4, 0]);
    head.extend_from_slice(&(elements.len() as u32).to_le_bytes());
    head.append(&mut elements);
    head
}

fn even(uid: &str) -> Vec<u8> {
    let mut value = uid.as_bytes().to_vec();
    if value.len() % 2 == 1 {
        value.push(0);
    }
    value
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn ct() -> FileMeta {
        FileMeta {
            transfer_syntax: TransferSyntax::explicit_vr_little_endian(),
            sop_class: "1.2.840.10008.5.1.4.1.1.2".parse().ok(),
            sop_instance: "1.2.3.45".parse().ok(),
        }
    }

    const DATA_SET: &[u8] = b"\x08\x00\x16\x00UI\x02\x001\x00the rest of it";

    /// Feeds pieces; what is left of the data set is joined.
    fn read<'a>(
        pieces: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<(FileMeta, Vec<u8>), NotPart10> {
        let mut pieces = pieces.into_iter();
        let mut reader = HeadReader::default();
        while let Some(piece) = pieces.next() {
            match reader.feed(piece)? {
                Head::Unfinished(same) => reader = same,
                Head::Finished(meta, begun) => {
                    let mut data_set = begun.to_vec();
                    pieces.for_each(|piece| data_set.extend_from_slice(piece));
                    return Ok((meta, data_set));
                }
            }
        }
        Err(reader.cut_short())
    }

    #[test]
    fn what_is_written_is_read_wherever_the_stream_is_split() {
        let file = [head(&ct()), DATA_SET.to_vec()].concat();
        for at in 0..=file.len() {
            let (one, other) = file.split_at(at);
            assert_eq!(read([one, other]), Ok((ct(), DATA_SET.to_vec())), "split at {at}");
        }
        assert_eq!(read(file.chunks(1)), Ok((ct(), DATA_SET.to_vec())));
    }

    #[test]
    fn a_file_that_ends_before_its_data_set_is_refused() {
        let file = head(&ct());
        for end in 0..=file.len() {
            let reason =
                if end < PREAMBLE + MAGIC.len() { NotPart10::NoMagic } else { NotPart10::Short };
            assert_eq!(read([&file[..end]]), Err(reason), "cut at {end}");
        }
    }

    #[test]
    fn a_wrong_group_length_does_not_matter() {
        let mut file = [head(&ct()), DATA_SET.to_vec()].concat();
        file[140] ^= 0xFF;
        assert_eq!(read([file.as_slice()]), Ok((ct(), DATA_SET.to_vec())));
    }

    #[test]
    fn every_refusal_has_its_reason() {
        let good = head(&ct());
        let with = |extra: &[u8]| read([good.as_slice(), extra]).map(|_| ());
        assert_eq!(read([b"P5 512 512".as_slice()]), Err(NotPart10::NoMagic));
        assert_eq!(read([[7; 200].as_slice()]).map(|_| ()), Err(NotPart10::NoMagic));
        assert_eq!(with(b"\x02\x00\x00\x01\x04\x00\x00\x00"), Err(NotPart10::Damaged(good.len())));
        assert_eq!(with(b"\x02\x00\x02\x01OB\0\0\xFF\xFF\xFF\xFF"), Err(NotPart10::Long));
        assert_eq!(with(b"\x02\x00\x02\x01OB\0\0\x08\x00\x00\x00abc"), Err(NotPart10::Short));
        let silent =
            [&[0; 128][..], b"DICM\x02\x00\x01\x00OB\0\0\x02\x00\x00\x00\x00\x01", DATA_SET]
                .concat();
        assert_eq!(read([silent.as_slice()]), Err(NotPart10::NoTransferSyntax));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic_and_are_never_kept_beyond_the_bound(
            bytes in vec(any::<u8>(), 0..2000),
            magic in any::<bool>(),
        ) {
            let mut file = bytes;
            if magic {
                file.splice(0..0, [&[0; 128][..], b"DICM"].concat());
            }
            let mut reader = HeadReader::default();
            for chunk in file.chunks(97) {
                match reader.feed(chunk) {
                    Ok(Head::Unfinished(same)) => {
                        prop_assert!(same.buffer.len() <= MOST);
                        reader = same;
                    }
                    Ok(Head::Finished(..)) | Err(_) => return Ok(()),
                }
            }
            let _ = reader.cut_short();
        }

        #[test]
        fn any_split_gives_the_same(cuts in vec(0_usize..400, 0..8)) {
            let file = [head(&ct()), DATA_SET.to_vec()].concat();
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(file.len())).collect();
            cuts.sort_unstable();
            let ends = cuts.iter().copied().chain([file.len()]);
            let begins = [0].into_iter().chain(cuts.iter().copied());
            let pieces: Vec<_> = begins.zip(ends).map(|(begin, end)| &file[begin..end]).collect();
            prop_assert_eq!(read(pieces), Ok((ct(), DATA_SET.to_vec())));
        }
    }
}
