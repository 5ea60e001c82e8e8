//! Secure DICOM Files (PS3.10 7.4): a DICOM file of any length, encrypted as a whole, in bounded memory.
//!
//! The file is the content of CMS Enveloped-data. PS3.10 leaves open what is inside; the Basic DICOM Media Security Profile
//! (PS3.15 D.1.1) asks for Digested-data around the file, or Signed-data, so that damage shows. Few other programs take
//! apart what is inside, so both are written: [`Inside::Data`], which every CMS program opens in one step (`openssl cms
//! -decrypt -inform DER -binary`), and [`Inside::Digested`], which conforms to that profile. Both are read.
//!
//! A reader gets bytes before the end has been seen, so it keeps them to itself until [`decrypt`] says that all is well.

use std::io::{self, Read, Write};

use der::asn1::ObjectIdentifier;
use rand_core::{CryptoRng, RngCore};
use ring::digest::{Algorithm, SHA1_FOR_LEGACY_USE_ONLY};
use ring::digest::{Context, SHA256, SHA384, SHA512};
use zeroize::Zeroizing;

use super::ber::{self, CONSTRUCTED, Frame, Header, Source};
use super::envelope::{CHUNK, DATA, OpenError, Opened, SealError, Sealer, read_oid};
use super::key::PrivateKey;
use super::recipient::Recipient;

/// What a Secure DICOM File's name ends with: that of a CMS message (RFC 8551 3.2.1), behind that of the file inside.
pub const EXTENSION: &str = "dcm.p7m";

const DIGESTED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.5");
const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
const SHA_256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
const EXPLICIT_0: u8 = 0xA0;

/// What is around the file inside the envelope.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Inside {
    /// Nothing.
    #[default]
    Data,
    /// Its SHA-256 (RFC 5652 7), by which damage shows.
    Digested,
}

/// What was decrypted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Decrypted {
    /// Bytes of the file.
    pub length: u64,
    /// Whether a digest said that it is whole.
    pub inside: Inside,
}

/// Encrypts a file that is written to it, as it comes.
#[derive(Debug)]
pub struct Encryptor<W> {
    sealer: Sealer<W>,
    /// Bytes of the file that are still to come; what CMS puts around it is not counted.
    left: u64,
    announced: u64,
    digest: Option<Digest>,
}

/// A digest that is being made.
struct Digest(Context);

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Digest")
    }
}

impl<W: Write> Encryptor<W> {
    /// Begins a Secure DICOM File with a file of exactly this many bytes inside.
    pub fn new<R: CryptoRng + RngCore>(
        out: W,
        length: u64,
        inside: Inside,
        recipients: &[Recipient],
        rng: &mut R,
    ) -> Result<Self, SealError> {
        if inside == Inside::Data {
            let sealer = Sealer::new(out, length, recipients, rng)?;
            return Ok(Self { sealer, left: length, announced: length, digest: None });
        }
        let before = before(length).ok_or(SealError::TooLong)?;
        let behind = ber::header(ber::OCTET_STRING, 32).len() as u64 + 32;
        let total = length.checked_add(before.len() as u64 + behind).ok_or(SealError::TooLong)?;
        let mut sealer = Sealer::of(DIGESTED_DATA, out, total, recipients, rng)?;
        sealer.write_all(&before)?;
        let digest = Some(Digest(Context::new(&SHA256)));
        Ok(Self { sealer, left: length, announced: length, digest })
    }

    /// Ends the file, and gives back what it was written to.
    pub fn finish(mut self) -> Result<W, SealError> {
        if self.left != 0 {
            return Err(SealError::Length { announced: self.announced });
        }
        if let Some(Digest(digest)) = self.digest {
            self.sealer.write_all(&ber::element(ber::OCTET_STRING, digest.finish().as_ref()))?;
        }
        self.sealer.finish()
    }
}

impl<W: Write> Write for Encryptor<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.left {
            let error = SealError::Length { announced: self.announced };
            return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
        }
        let count = self.sealer.write(bytes)?;
        self.left -= count as u64;
        if let (Some(Digest(digest)), Some(bytes)) = (&mut self.digest, bytes.get(..count)) {
            digest.update(bytes);
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sealer.flush()
    }
}

/// What Digested-data has before a file of this length.
fn before(length: u64) -> Option<Vec<u8>> {
    let around = |tag, begin: Vec<u8>, content: u64| {
        let length = content.checked_add(begin.len() as u64)?;
        Some([ber::header(tag, length), begin].concat())
    };
    let oid = |oid: ObjectIdentifier| ber::element(ber::OID, oid.as_bytes());
    let string = around(EXPLICIT_0, ber::header(ber::OCTET_STRING, length), length)?;
    let content = around(ber::SEQUENCE, [oid(DATA), string].concat(), length)?;
    // RFC 5754 2: SHA-2 without parameters.
    let algorithm = ber::element(ber::SEQUENCE, &oid(SHA_256));
    let begin = [ber::element(ber::INTEGER, &[0]), algorithm, content].concat();
    let digest = ber::header(ber::OCTET_STRING, 32).len() as u64 + 32;
    let total = begin.len() as u64 + digest;
    Some([ber::header(ber::SEQUENCE, length.checked_add(total)?), begin].concat())
}

/// Encrypts a file of exactly this many bytes, as it is read.
pub fn encrypt<R: CryptoRng + RngCore, W: Write>(
    file: impl Read,
    length: u64,
    inside: Inside,
    recipients: &[Recipient],
    rng: &mut R,
    out: W,
) -> Result<W, SealError> {
    let mut encryptor = Encryptor::new(out, length, inside, recipients, rng)?;
    copy(file, &mut encryptor).map_err(SealError::Io)?;
    encryptor.finish()
}

/// Decrypts a Secure DICOM File, as it is read. Until this says that all was well, what was written counts for nothing.
pub fn decrypt(
    file: impl Read,
    key: &PrivateKey,
    mut out: impl Write,
) -> Result<Decrypted, OpenError> {
    let content = Opened::new(file, key)?;
    match content.content_type {
        DATA => {
            let length = copy(content, &mut out).map_err(OpenError::from_io)?;
            out.flush().map_err(OpenError::Io)?;
            Ok(Decrypted { length, inside: Inside::Data })
        }
        DIGESTED_DATA => digested(content, out),
        SIGNED_DATA => Err(OpenError::Unsupported {
            what: "what is inside is signed, and signatures are not verified here: use openssl cms -decrypt, and openssl cms -verify",
            oid: SIGNED_DATA.to_string(),
        }),
        oid => Err(OpenError::Unsupported {
            what: "what is inside is no file, but another content type",
            oid: oid.to_string(),
        }),
    }
}

/// Takes the file out of Digested-data, and compares the digest.
fn digested(content: impl Read, mut out: impl Write) -> Result<Decrypted, OpenError> {
    let mut source = Source::new(content);
    let whole = source.enter_next(Frame::WHOLE, ber::SEQUENCE, "what is inside is damaged")?;
    let version = source.expect(whole, ber::INTEGER, "the version inside is missing")?;
    source.skip(version, 8)?;
    let algorithm = source.enter_next(whole, ber::SEQUENCE, "the digest's kind is missing")?;
    let oid = read_oid(&mut source, algorithm)?;
    while let Some(parameters) = source.next(algorithm)? {
        source.skip(parameters, 64)?;
    }
    let algorithm = algorithm_of(oid)?;
    let info = source.enter_next(whole, ber::SEQUENCE, "the file is missing")?;
    let content_type = read_oid(&mut source, info)?;
    if content_type != DATA {
        let what = "what is digested is no file, but another content type";
        return Err(OpenError::Unsupported { what, oid: content_type.to_string() });
    }
    let explicit = source.enter_next(info, EXPLICIT_0, "the file is missing")?;
    let mut taken = Taken { digest: Context::new(algorithm), length: 0 };
    match source.next(explicit)? {
        Some(Header { tag: ber::OCTET_STRING, length: Some(length) }) => {
            taken.take(&mut source, length, &mut out)?;
        }
        Some(header) if header.tag == ber::OCTET_STRING | CONSTRUCTED => {
            let pieces = source.enter(header);
            while let Some(piece) = source.next(pieces)? {
                match piece {
                    Header { tag: ber::OCTET_STRING, length: Some(length) } => {
                        taken.take(&mut source, length, &mut out)?;
                    }
                    _ => {
                        return Err(OpenError::Malformed("a piece of the file is no plain string"));
                    }
                }
            }
        }
        _ => return Err(OpenError::Malformed("the file is missing")),
    }
    for (frame, what) in
        [(explicit, "the file has an end too many"), (info, "the file is followed by something")]
    {
        if source.next(frame)?.is_some() {
            return Err(OpenError::Malformed(what));
        }
    }
    let header = source.expect(whole, ber::OCTET_STRING, "the digest is missing")?;
    let said = source.collect(header, 256)?;
    if ber::value_of(&said) != taken.digest.finish().as_ref() {
        return Err(OpenError::Digest);
    }
    if source.next(whole)?.is_some() {
        return Err(OpenError::Malformed("the digest is followed by something"));
    }
    // The end of the envelope, whose padding must be right too.
    source.at_end()?;
    out.flush().map_err(OpenError::Io)?;
    Ok(Decrypted { length: taken.length, inside: Inside::Digested })
}

fn algorithm_of(oid: ObjectIdentifier) -> Result<&'static Algorithm, OpenError> {
    match oid.to_string().as_str() {
        "1.3.14.3.2.26" => Ok(&SHA1_FOR_LEGACY_USE_ONLY),
        "2.16.840.1.101.3.4.2.1" => Ok(&SHA256),
        "2.16.840.1.101.3.4.2.2" => Ok(&SHA384),
        "2.16.840.1.101.3.4.2.3" => Ok(&SHA512),
        oid => Err(OpenError::Unsupported {
            what: "the digest inside is made with an algorithm that PS3.15 does not name",
            oid: oid.to_owned(),
        }),
    }
}

struct Taken {
    digest: Context,
    length: u64,
}

impl Taken {
    fn take<R: Read>(
        &mut self,
        source: &mut Source<R>,
        mut left: u64,
        out: &mut impl Write,
    ) -> Result<(), OpenError> {
        let mut buffer = Zeroizing::new(vec![0; CHUNK]);
        while left > 0 {
            let count = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK);
            let piece = buffer.get_mut(..count).unwrap_or_default();
            source.read_exact(piece)?;
            self.digest.update(piece);
            out.write_all(piece).map_err(OpenError::Io)?;
            self.length += count as u64;
            left -= count as u64;
        }
        Ok(())
    }
}

/// `io::copy`, with a buffer that is wiped.
fn copy(mut from: impl Read, into: &mut impl Write) -> io::Result<u64> {
    let (mut buffer, mut copied) = (Zeroizing::new(vec![0; CHUNK]), 0);
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok(copied),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        into.write_all(buffer.get(..count).unwrap_or_default())?;
        copied += count as u64;
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::random::SealRng;
    use super::super::testing;
    use super::*;

    fn encrypted(file: &[u8], inside: Inside) -> Vec<u8> {
        let recipients = [testing::recipient("one"), testing::recipient("other")];
        let mut rng = SealRng::for_content(&[9; 32], file, &recipients);
        encrypt(file, file.len() as u64, inside, &recipients, &mut rng, Vec::new()).unwrap()
    }

    fn decrypted(message: &[u8]) -> Result<(Vec<u8>, Inside), OpenError> {
        let mut out = Vec::new();
        let done = decrypt(message, &testing::made("one").key(), &mut out)?;
        assert_eq!(done.length, out.len() as u64);
        Ok((out, done.inside))
    }

    #[test]
    fn a_file_of_another_length_than_announced_is_refused() {
        let recipients = [testing::recipient("one")];
        for (file, length) in [(&b"12345"[..], 4), (&b"12345"[..], 6)] {
            let mut rng = SealRng::from_key(&[1; 32], b"");
            let refused =
                encrypt(file, length, Inside::Digested, &recipients, &mut rng, Vec::new());
            assert!(refused.is_err());
        }
    }

    #[test]
    fn damage_shows_by_the_digest_where_there_is_one() {
        let file = vec![7; 1000];
        let damage = |inside| {
            let mut message = encrypted(&file, inside);
            let at = message.len() - 500;
            message[at] ^= 1;
            decrypted(&message)
        };

        assert!(matches!(damage(Inside::Digested), Err(OpenError::Digest)));
        let (silent, _) = damage(Inside::Data).unwrap();
        assert_ne!(silent, file);
    }

    #[test]
    fn a_file_that_is_cut_is_refused_wherever() {
        for inside in [Inside::Data, Inside::Digested] {
            let message = encrypted(b"a file of some bytes", inside);
            for end in (0..message.len()).step_by(7).chain([message.len() - 1]) {
                assert!(decrypted(&message[..end]).is_err(), "cut at {end}");
            }
        }
    }

    /// Remembers the largest piece; a file that was never whole in memory came in pieces.
    struct Pieces {
        left: u64,
        largest: usize,
    }

    impl Read for Pieces {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            self.largest = self.largest.max(into.len());
            let count = into.len().min(usize::try_from(self.left).unwrap());
            into[..count].fill(3);
            self.left -= count as u64;
            Ok(count)
        }
    }

    #[test]
    fn a_long_file_passes_in_pieces() {
        let length = (40 << 20) + 5;
        let mut pieces = Pieces { left: length, largest: 0 };
        let recipients = [testing::recipient("one")];
        let mut rng = SealRng::from_key(&[1; 32], b"");

        let message =
            encrypt(&mut pieces, length, Inside::Digested, &recipients, &mut rng, Vec::new());

        assert_eq!(pieces.largest, CHUNK);
        let mut counted = 0_u64;
        let count = Counter(&mut counted);
        let done = decrypt(&*message.unwrap(), &testing::made("one").key(), count).unwrap();
        assert_eq!((done.length, counted), (length, length));
    }

    struct Counter<'a>(&'a mut u64);

    impl Write for Counter<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            assert!(bytes.len() <= CHUNK && bytes.iter().all(|byte| *byte == 3));
            *self.0 += bytes.len() as u64;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn what_is_encrypted_is_decrypted_whatever_its_length(
            file in prop_oneof![vec(any::<u8>(), 0..100), vec(any::<u8>(), CHUNK - 150..CHUNK + 40)],
        ) {
            for inside in [Inside::Data, Inside::Digested] {
                prop_assert_eq!(decrypted(&encrypted(&file, inside)).unwrap(), (file.clone(), inside));
            }
        }

        #[test]
        fn damage_never_panics(at in any::<prop::sample::Index>(), flip in 1_u8..) {
            let mut message = encrypted(b"a file of some bytes, and then some more", Inside::Digested);
            let at = at.index(message.len());
            message[at] ^= flip;
            if let Ok((file, _)) = decrypted(&message) {
                // Damage that does not matter is in the head: a digest stands by the file.
                prop_assert_eq!(file, b"a file of some bytes, and then some more");
            }
        }
    }
}
