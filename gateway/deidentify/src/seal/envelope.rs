//! Enveloped-data (RFC 5652 6): sealed for some recipients, and opened by one of them.
//!
//! Written in DER, with definite lengths, which are known beforehand: one KeyTransRecipientInfo for each recipient, by issuer
//! and serial number, `rsaEncryption` with NULL parameters (RFC 3370 4.2.1), AES-256-CBC, content type `data`. Recipients
//! come in one order, whatever that of the configuration, so that equal random numbers make equal bytes.
//!
//! Read in DER or BER, from a stream, in bounded memory. There is one answer for every wrong key, wrong padding and damaged
//! key: [`OpenError::CannotOpen`]. What is told apart is told apart by what anybody can read in the message.

use std::io::{self, Read, Write};
use std::ops::Range;

use cms::content_info::CmsVersion;
use cms::enveloped_data::{KeyTransRecipientInfo, RecipientIdentifier};
use der::asn1::{Any, Null, ObjectIdentifier, OctetString};
use der::{Decode as _, Encode as _};
use rand_core::{CryptoRng, RngCore};
use rsa::pkcs1::RsaOaepParams;
use rsa::{Oaep, Pkcs1v15Encrypt};
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};
use spki::AlgorithmIdentifierOwned;
use thiserror::Error;
use x509_cert::spki;
use zeroize::Zeroizing;

use super::ber::{self, CONSTRUCTED, Frame, Header, Source};
use super::cipher::{AES_256_CBC, Algorithm, BLOCK, Decryptor, Encryptor};
use super::key::PrivateKey;
use super::random::SealRng;
use super::recipient::{Recipient, encoded, in_order};

/// Bytes that are worked on at once.
pub(super) const CHUNK: usize = 64 << 10;
/// Bytes before the content, which hold the recipients: some 500 for each, and certificates that a writer may add.
const HEAD: usize = 1 << 20;
/// Recipients of a message that are looked at; each costs an operation with the private key if they have to be tried.
const MOST_RECIPIENTS: usize = 64;

pub(super) const ENVELOPED_DATA: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.3");
pub(super) const DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.1");
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const RSAES_OAEP: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.7");
const SHA_1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.14.3.2.26");
const SHA_256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
const SHA_384: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2");
const SHA_512: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.3");

/// Tags of `[0]`: plain, and with elements inside.
const PLAIN_0: u8 = 0x80;
const INSIDE_0: u8 = 0xA0;

/// Why nothing was sealed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SealError {
    /// Nobody could read it.
    #[error("there is nobody to seal it for: name at least one certificate")]
    NoRecipient,
    /// The key of a certificate does not encrypt.
    #[error("the key of {subject} cannot be encrypted to")]
    Key {
        /// Of whom.
        subject: String,
    },
    /// Other content than was announced, whose length is in the head already.
    #[error("the content has another length than was announced ({announced} bytes)")]
    Length {
        /// What was announced.
        announced: u64,
    },
    /// A length that CMS, or this machine, does not have.
    #[error("the content is too long")]
    TooLong,
    /// There are no random numbers.
    #[error(transparent)]
    Random(#[from] super::random::NoRandom),
    /// What is sealed cannot be read, or the envelope not written.
    #[error("cannot read or write")]
    Io(#[from] io::Error),
}

/// Why a message was not opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another content type of CMS, or none.
    #[error("it is not CMS Enveloped-data but {0}")]
    NotEnveloped(String),
    /// Not well-formed.
    #[error("it is not a CMS message that can be read: {0}")]
    Malformed(&'static str),
    /// It ends too early.
    #[error("it is cut short")]
    Cut,
    /// More recipients, or more about them, than anybody writes.
    #[error(
        "what stands before its content has more than {HEAD} bytes or {MOST_RECIPIENTS} recipients"
    )]
    HeadTooLong,
    /// An algorithm that is not known here.
    #[error("{what} (object identifier {oid})")]
    Unsupported {
        /// For what.
        what: &'static str,
        /// Which.
        oid: String,
    },
    /// None of its recipients is the one of the certificate, or none has an RSA key.
    #[error("it was not sealed for this certificate")]
    NotAddressed,
    /// The wrong key, or it was damaged. Which of the two is not told, on purpose.
    #[error("this key does not open it: it was sealed for another one, or is damaged")]
    CannotOpen,
    /// What was opened is not what its digest says (PS3.15 D.1.1).
    #[error("its content is not what was sealed: the digest is another")]
    Digest,
    /// There are no random numbers.
    #[error(transparent)]
    Random(#[from] super::random::NoRandom),
    /// It cannot be read, or its content not written.
    #[error("cannot read or write")]
    Io(#[source] io::Error),
}

impl OpenError {
    /// An error of a stream, or the one of ours that came through it.
    pub(super) fn from_io(error: io::Error) -> Self {
        error.downcast::<Self>().unwrap_or_else(Self::Io)
    }
}

/// Seals this for these recipients: DER of ContentInfo with Enveloped-data.
pub fn seal<R: CryptoRng + RngCore>(
    plaintext: &[u8],
    recipients: &[Recipient],
    rng: &mut R,
) -> Result<Vec<u8>, SealError> {
    let mut sealer = Sealer::new(Vec::new(), plaintext.len() as u64, recipients, rng)?;
    sealer.write_all(plaintext)?;
    sealer.finish()
}

/// Seals this such that the same key, content and recipients give the same bytes; see [`super::random`] for what that
/// reveals.
pub fn seal_repeatably(
    plaintext: &[u8],
    recipients: &[Recipient],
    key: &[u8; 32],
) -> Result<Vec<u8>, SealError> {
    seal(plaintext, recipients, &mut SealRng::for_content(key, plaintext, recipients))
}

/// Opens what was sealed. What follows the message is ignored, as a value of VR OB is padded with 00 (PS3.5 6.2).
pub fn open(message: &[u8], key: &PrivateKey) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    let mut content = Opened::new(message, key)?;
    // Of one size from the beginning: a vector that grows leaves copies of its content behind.
    let mut plaintext = Zeroizing::new(Vec::with_capacity(message.len()));
    content.read_to_end(&mut plaintext).map_err(OpenError::from_io)?;
    Ok(plaintext)
}

/// Whether this begins as a message that somebody may be able to open: well-formed, for recipients, by known algorithms.
pub(super) fn is_enveloped(message: &[u8]) -> bool {
    let head = Head::read(&mut Source::new(message));
    head.is_ok_and(|head| Algorithm::read(&head.algorithm).is_ok())
}

/// Seals what is written to it, as it comes.
pub(super) struct Sealer<W> {
    out: W,
    cipher: Encryptor,
    /// What is not yet a chunk; encrypted in place before it goes.
    buffer: Zeroizing<Vec<u8>>,
    announced: u64,
    left: u64,
}

/// It holds patients' data.
impl<W> std::fmt::Debug for Sealer<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer").field("left", &self.left).finish_non_exhaustive()
    }
}

impl<W: Write> Sealer<W> {
    /// For plain data of exactly this many bytes; writes what stands before it.
    pub(super) fn new<R: CryptoRng + RngCore>(
        out: W,
        length: u64,
        recipients: &[Recipient],
        rng: &mut R,
    ) -> Result<Self, SealError> {
        Self::of(DATA, out, length, recipients, rng)
    }

    /// For content of this type.
    pub(super) fn of<R: CryptoRng + RngCore>(
        content_type: ObjectIdentifier,
        mut out: W,
        length: u64,
        recipients: &[Recipient],
        rng: &mut R,
    ) -> Result<Self, SealError> {
        let (mut key, mut iv) = (Zeroizing::new([0; 32]), [0; BLOCK]);
        rng.fill_bytes(&mut *key);
        rng.fill_bytes(&mut iv);
        let keys = (&*key, &iv);
        out.write_all(&head(content_type, length, recipients, keys, rng)?)?;
        let buffer = Zeroizing::new(Vec::with_capacity(CHUNK + BLOCK));
        let cipher = Encryptor::new(&key, &iv);
        Ok(Self { out, cipher, buffer, announced: length, left: length })
    }

    /// Ends the content, and gives back what it was written to.
    pub(super) fn finish(mut self) -> Result<W, SealError> {
        if self.left != 0 {
            return Err(SealError::Length { announced: self.announced });
        }
        // RFC 5652 6.3: as many bytes as are added, each with that number; a whole block if nothing is missing.
        let filled = self.buffer.len();
        let padding = BLOCK - filled % BLOCK;
        self.buffer.resize(filled + padding, padding as u8);
        self.send()?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn send(&mut self) -> io::Result<()> {
        self.cipher.encrypt(&mut self.buffer);
        self.out.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }
}

impl<W: Write> Write for Sealer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(CHUNK - self.buffer.len());
        let Some(left) = self.left.checked_sub(taken as u64) else {
            let error = SealError::Length { announced: self.announced };
            return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
        };
        self.left = left;
        self.buffer.extend_from_slice(bytes.get(..taken).unwrap_or_default());
        if self.buffer.len() == CHUNK {
            self.send()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        // What is not a whole block cannot go yet.
        self.out.flush()
    }
}

/// What stands before the content.
fn head<R: CryptoRng + RngCore>(
    content_type: ObjectIdentifier,
    length: u64,
    recipients: &[Recipient],
    (key, iv): (&[u8; 32], &[u8; BLOCK]),
    rng: &mut R,
) -> Result<Vec<u8>, SealError> {
    let mut infos = Vec::new();
    for recipient in in_order(recipients) {
        let info = for_recipient(recipient, key, rng);
        infos.push(info.ok_or_else(|| SealError::Key { subject: recipient.subject() })?);
    }
    if infos.is_empty() {
        return Err(SealError::NoRecipient);
    }
    // DER puts the elements of a set into the order of their bytes (X.690 11.6).
    infos.sort();
    let block = BLOCK as u64;
    let padded = (length / block + 1).checked_mul(block).ok_or(SealError::TooLong)?;

    let oid = |oid: ObjectIdentifier| ber::element(ber::OID, oid.as_bytes());
    let algorithm = ber::element(
        ber::SEQUENCE,
        &[oid(AES_256_CBC), ber::element(ber::OCTET_STRING, iv)].concat(),
    );
    let content = [oid(content_type), algorithm, ber::header(PLAIN_0, padded)].concat();
    let content = around(ber::SEQUENCE, content, padded)?;
    // RFC 5652 6.1: 0 for recipients by issuer and serial number, whatever the content.
    let version = ber::element(ber::INTEGER, &[0]);
    let enveloped = [version, ber::element(ber::SET, &infos.concat()), content].concat();
    let enveloped = around(ber::SEQUENCE, enveloped, padded)?;
    let explicit = around(INSIDE_0, enveloped, padded)?;
    around(ber::SEQUENCE, [oid(ENVELOPED_DATA), explicit].concat(), padded)
}

/// The beginning of an element that holds these bytes, and behind them as many of the content.
fn around(tag: u8, begin: Vec<u8>, content: u64) -> Result<Vec<u8>, SealError> {
    let length = content.checked_add(begin.len() as u64).ok_or(SealError::TooLong)?;
    Ok([ber::header(tag, length), begin].concat())
}

fn for_recipient<R: CryptoRng + RngCore>(
    recipient: &Recipient,
    key: &[u8; 32],
    rng: &mut R,
) -> Option<Vec<u8>> {
    let encrypted = recipient.key().encrypt(rng, Pkcs1v15Encrypt, key).ok()?;
    let info = KeyTransRecipientInfo {
        version: CmsVersion::V0,
        rid: RecipientIdentifier::IssuerAndSerialNumber(recipient.issuer_and_serial()),
        key_enc_alg: AlgorithmIdentifierOwned {
            oid: RSA_ENCRYPTION,
            parameters: Some(Any::encode_from(&Null).ok()?),
        },
        enc_key: OctetString::new(encrypted).ok()?,
    };
    info.to_der().ok()
}

/// The content of a message, decrypted as it is read.
pub(super) struct Opened<R> {
    source: Source<R>,
    /// What kind of content it is.
    pub(super) content_type: ObjectIdentifier,
    place: Place,
    decryptor: Decryptor,
    block: usize,
    /// Decrypted bytes that nobody took yet, and behind them encrypted ones that may be the last block.
    buffer: Zeroizing<Vec<u8>>,
    ready: Range<usize>,
    /// Where those begin, and how many there are.
    decrypted: usize,
    held: usize,
    ended: bool,
}

/// It holds patients' data.
impl<R> std::fmt::Debug for Opened<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened").field("content_type", &self.content_type).finish_non_exhaustive()
    }
}

/// Where in the encrypted content.
#[derive(Debug)]
struct Place {
    /// The string of strings that it is, if it comes in pieces.
    pieces: Option<Frame>,
    /// Bytes of this piece that are still to come.
    left: u64,
}

impl<R: Read> Opened<R> {
    /// Reads up to the content, and finds the key to it.
    pub(super) fn new(message: R, key: &PrivateKey) -> Result<Self, OpenError> {
        let mut source = Source::new(message);
        let head = Head::read(&mut source)?;
        let algorithm = Algorithm::read(&head.algorithm)?;
        let content_key = head.content_key(key, algorithm.key_length())?;
        let decryptor = algorithm.decryptor(&content_key).ok_or(OpenError::CannotOpen)?;
        Ok(Self {
            source,
            content_type: head.content_type,
            place: head.place,
            decryptor,
            block: algorithm.block(),
            buffer: Zeroizing::new(vec![0; CHUNK]),
            ready: 0..0,
            decrypted: 0,
            held: 0,
            ended: false,
        })
    }

    /// Decrypts the next chunk, but for what may be the last block, as that has the padding.
    fn fill(&mut self) -> Result<(), OpenError> {
        // Behind what was decrypted stands what was held back.
        let from = self.decrypted;
        let mut filled = self.held;
        self.buffer.copy_within(from..from + filled, 0);
        while filled < CHUNK {
            let space = self.buffer.get_mut(filled..).unwrap_or_default();
            match self.place.read(&mut self.source, space)? {
                0 => {
                    self.ended = true;
                    break;
                }
                count => filled += count,
            }
        }
        if !self.ended {
            let whole = (filled - 1) / self.block * self.block;
            self.decryptor.decrypt(self.buffer.get_mut(..whole).unwrap_or_default());
            (self.ready, self.decrypted, self.held) = (0..whole, whole, filled - whole);
            return Ok(());
        }
        if filled == 0 || !filled.is_multiple_of(self.block) {
            return Err(OpenError::Malformed("its content does not consist of whole blocks"));
        }
        let content = self.buffer.get_mut(..filled).unwrap_or_default();
        self.decryptor.decrypt(content);
        let padding = padding(content, self.block).ok_or(OpenError::CannotOpen)?;
        (self.ready, self.decrypted, self.held) = (0..filled - padding, filled, 0);
        Ok(())
    }
}

impl<R: Read> Read for Opened<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.ready.is_empty() && !self.ended {
            self.fill().map_err(|error| match error {
                OpenError::Io(error) => error,
                error => io::Error::other(error),
            })?;
        }
        let ready = self.buffer.get(self.ready.clone()).unwrap_or_default();
        let count = ready.len().min(into.len());
        if let (Some(into), Some(from)) = (into.get_mut(..count), ready.get(..count)) {
            into.copy_from_slice(from);
        }
        self.ready.start += count;
        Ok(count)
    }
}

/// How many bytes of padding there are, if it is right (RFC 5652 6.3); looks at as many bytes whatever they are.
fn padding(content: &[u8], block: usize) -> Option<usize> {
    let last = usize::from(*content.last()?);
    let mut wrong = u8::from(last == 0 || last > block);
    for (at, byte) in content.iter().rev().take(block).enumerate() {
        wrong |= u8::from(at < last) * (byte ^ last as u8);
    }
    (wrong == 0).then_some(last)
}

impl Place {
    /// The next encrypted bytes; 0 at the end.
    fn read<R: Read>(
        &mut self,
        source: &mut Source<R>,
        into: &mut [u8],
    ) -> Result<usize, OpenError> {
        while self.left == 0 {
            let Some(frame) = self.pieces else { return Ok(0) };
            match source.next(frame)? {
                None => {
                    self.pieces = None;
                    return Ok(0);
                }
                Some(Header { tag: ber::OCTET_STRING, length: Some(length) }) => self.left = length,
                Some(_) => {
                    return Err(OpenError::Malformed(
                        "a piece of its content is not a plain string",
                    ));
                }
            }
        }
        let count = usize::try_from(self.left).unwrap_or(usize::MAX).min(into.len());
        source.read_exact(into.get_mut(..count).unwrap_or_default())?;
        self.left -= count as u64;
        Ok(count)
    }
}

/// What stands before the content.
struct Head {
    /// Recipients with RSA keys.
    recipients: Vec<KeyTransRecipientInfo>,
    content_type: ObjectIdentifier,
    algorithm: AlgorithmIdentifierOwned,
    place: Place,
}

impl Head {
    fn read<R: Read>(source: &mut Source<R>) -> Result<Self, OpenError> {
        let outer = source.enter_next(Frame::WHOLE, ber::SEQUENCE, "it does not begin as one")?;
        let content_type = read_oid(source, outer)?;
        if content_type != ENVELOPED_DATA {
            return Err(OpenError::NotEnveloped(named(content_type)));
        }
        let explicit = source.enter_next(outer, INSIDE_0, "it is empty")?;
        let enveloped = source.enter_next(explicit, ber::SEQUENCE, "it is no Enveloped-data")?;
        let version = source.expect(enveloped, ber::INTEGER, "the version is missing")?;
        source.skip(version, 8)?;
        let mut header = source.next(enveloped)?;
        if let Some(originator) = header.filter(|header| header.tag == INSIDE_0) {
            // Certificates that the writer added.
            source.skip(originator, HEAD)?;
            header = source.next(enveloped)?;
        }
        let set = header.filter(|header| header.tag == ber::SET);
        let set = set.ok_or(OpenError::Malformed("the recipients are missing"))?;
        let set = source.enter(set);
        let (mut recipients, mut count, mut left) = (Vec::new(), 0, HEAD);
        while let Some(one) = source.next(set)? {
            let der = source.collect(one, left)?;
            left = left.saturating_sub(der.len());
            count += 1;
            if count > MOST_RECIPIENTS {
                return Err(OpenError::HeadTooLong);
            }
            // Others are by key agreement, by password, or of a kind that has yet to be invented.
            recipients.extend(KeyTransRecipientInfo::from_der(&der));
        }
        let info = source.enter_next(enveloped, ber::SEQUENCE, "the content is missing")?;
        let content_type = read_oid(source, info)?;
        let header = source.expect(info, ber::SEQUENCE, "the algorithm is missing")?;
        let algorithm = AlgorithmIdentifierOwned::from_der(&source.collect(header, 1024)?)
            .map_err(|_| OpenError::Malformed("the algorithm is damaged"))?;
        let place = match source.next(info)? {
            Some(Header { tag: PLAIN_0, length: Some(left) }) => Place { pieces: None, left },
            Some(header) if header.tag == PLAIN_0 | CONSTRUCTED => {
                Place { pieces: Some(source.enter(header)), left: 0 }
            }
            _ => return Err(OpenError::Malformed("the content is not in it")),
        };
        Ok(Self { recipients, content_type, algorithm, place })
    }

    /// The key to the content. All recipients that may be meant are tried, also when one has been found.
    fn content_key(
        &self,
        key: &PrivateKey,
        length: usize,
    ) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let meant: Vec<_> = match key.certificate() {
            None => self.recipients.iter().collect(),
            Some(certificate) => {
                let name = encoded(&certificate.issuer_and_serial());
                let is_meant = |info: &&KeyTransRecipientInfo| match &info.rid {
                    RecipientIdentifier::IssuerAndSerialNumber(other) => encoded(other) == name,
                    RecipientIdentifier::SubjectKeyIdentifier(identifier) => {
                        identifier.0.as_bytes() == certificate.key_identifier()
                    }
                };
                self.recipients.iter().filter(is_meant).collect()
            }
        };
        if meant.is_empty() {
            return Err(OpenError::NotAddressed);
        }
        // Blinds the operation, so that its time says less about the key.
        let mut rng = SealRng::from_system()?;
        let (mut found, mut unknown) = (None, None);
        for info in &meant {
            let encrypted = info.enc_key.as_bytes();
            let decrypted = match info.key_enc_alg.oid {
                RSA_ENCRYPTION => key.rsa().decrypt_blinded(&mut rng, Pkcs1v15Encrypt, encrypted),
                RSAES_OAEP => {
                    let Some(padding) = oaep(&info.key_enc_alg) else {
                        unknown = Some(RSAES_OAEP);
                        continue;
                    };
                    key.rsa().decrypt_blinded(&mut rng, padding, encrypted)
                }
                oid => {
                    unknown = Some(oid);
                    continue;
                }
            };
            let decrypted = decrypted.map(Zeroizing::new);
            found = found.or(decrypted.ok().filter(|key| key.len() == length));
        }
        match (found, unknown) {
            (Some(key), _) => Ok(key),
            (None, Some(oid)) => {
                let what = "its key is encrypted with an algorithm that is not known here";
                Err(OpenError::Unsupported { what, oid: oid.to_string() })
            }
            (None, None) => Err(OpenError::CannotOpen),
        }
    }
}

/// OAEP with these parameters (RFC 4055 4.1), if both its hashes are the same and there is no label.
fn oaep(algorithm: &AlgorithmIdentifierOwned) -> Option<Oaep> {
    let parameters = algorithm.parameters.as_ref().map(der::Encode::to_der);
    let parameters = parameters.transpose().ok()?.unwrap_or_else(|| vec![ber::SEQUENCE, 0]);
    let parameters = RsaOaepParams::try_from(parameters.as_slice()).ok()?;
    let label = parameters.p_source.parameters.map(der::AnyRef::value);
    let of_mask = parameters.mask_gen.parameters.map(|hash| hash.oid);
    if of_mask != Some(parameters.hash.oid) || label.is_some_and(|label| !label.is_empty()) {
        return None;
    }
    match parameters.hash.oid {
        SHA_1 => Some(Oaep::new::<Sha1>()),
        SHA_256 => Some(Oaep::new::<Sha256>()),
        SHA_384 => Some(Oaep::new::<Sha384>()),
        SHA_512 => Some(Oaep::new::<Sha512>()),
        _ => None,
    }
}

pub(super) fn read_oid<R: Read>(
    source: &mut Source<R>,
    frame: Frame,
) -> Result<ObjectIdentifier, OpenError> {
    let header = source.expect(frame, ber::OID, "an object identifier is missing")?;
    let der = source.collect(header, 64)?;
    ObjectIdentifier::from_der(&der)
        .map_err(|_| OpenError::Malformed("an object identifier is damaged"))
}

/// What else a message may be (RFC 5652, RFC 5083).
fn named(content_type: ObjectIdentifier) -> String {
    match content_type.to_string().as_str() {
        "1.2.840.113549.1.7.1" => "plain data".to_owned(),
        "1.2.840.113549.1.7.2" => "Signed-data".to_owned(),
        "1.2.840.113549.1.7.5" => "Digested-data".to_owned(),
        "1.2.840.113549.1.7.6" => "Encrypted-data".to_owned(),
        "1.2.840.113549.1.9.16.1.23" => {
            "Authenticated-Enveloped-data, which PS3.15 does not allow".to_owned()
        }
        other => format!("content type {other}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::testing;
    use super::*;

    fn sealed(plaintext: &[u8], names: &[&str]) -> Vec<u8> {
        let recipients: Vec<_> = names.iter().map(|name| testing::recipient(name)).collect();
        seal_repeatably(plaintext, &recipients, &[7; 32]).unwrap()
    }

    #[test]
    fn everybody_it_was_sealed_for_opens_it_with_and_without_certificate() {
        let message = sealed(b"John Doe", &["one", "other"]);
        for name in ["one", "other"] {
            let made = testing::made(name);
            let with = made.key().with_certificate(made.certificate()).unwrap();

            assert_eq!(**open(&message, &made.key()).unwrap(), *b"John Doe");
            assert_eq!(**open(&message, &with).unwrap(), *b"John Doe");
        }
    }

    #[test]
    fn nobody_else_does_and_is_told_so() {
        let message = sealed(b"John Doe", &["one"]);
        let other = testing::made("other");
        let with = other.key().with_certificate(other.certificate()).unwrap();

        assert!(matches!(open(&message, &other.key()), Err(OpenError::CannotOpen)));
        assert!(matches!(open(&message, &with), Err(OpenError::NotAddressed)));
    }

    #[test]
    fn the_same_is_sealed_to_the_same_bytes_and_a_change_to_others() {
        let message = sealed(b"John Doe", &["one", "other"]);

        assert_eq!(sealed(b"John Doe", &["other", "one", "other"]), message);
        let changed = sealed(b"John Dox", &["one", "other"]);
        let alike = message.iter().zip(&changed).filter(|(one, other)| one == other).count();
        assert!(alike < message.len() / 2, "{alike} bytes of {} are alike", message.len());
    }

    #[test]
    fn parameters_are_those_that_the_standard_asks_for() {
        use cms::content_info::ContentInfo;
        use cms::enveloped_data::{EnvelopedData, RecipientInfo};

        let message = sealed(b"John Doe", &["one", "other"]);

        let info = ContentInfo::from_der(&message).unwrap();
        let enveloped = info.content.decode_as::<EnvelopedData>().unwrap();
        assert_eq!(enveloped.version, CmsVersion::V0);
        assert_eq!(enveloped.recip_infos.0.len(), 2);
        for recipient in enveloped.recip_infos.0.iter() {
            let RecipientInfo::Ktri(info) = recipient else { panic!("{recipient:?}") };
            assert_eq!(info.key_enc_alg.oid, RSA_ENCRYPTION);
            assert!(info.key_enc_alg.parameters.as_ref().unwrap().is_null());
        }
        assert_eq!(enveloped.encrypted_content.content_enc_alg.oid, AES_256_CBC);
        assert_eq!(enveloped.encrypted_content.content_type, DATA);
    }

    #[test]
    fn there_must_be_a_recipient_and_the_length_must_be_that_announced() {
        assert!(matches!(seal_repeatably(b"", &[], &[7; 32]), Err(SealError::NoRecipient)));
        let recipients = [testing::recipient("one")];
        let sealer = |length| {
            let mut rng = SealRng::from_key(&[1; 32], b"");
            Sealer::new(Vec::new(), length, &recipients, &mut rng).unwrap()
        };
        let mut short = sealer(5);
        short.write_all(b"1234").unwrap();
        assert!(matches!(short.finish(), Err(SealError::Length { announced: 5 })));
        assert!(sealer(5).write_all(b"123456").is_err());
    }

    #[test]
    fn a_message_of_another_kind_is_named() {
        let mut message = sealed(b"John Doe", &["one"]);
        let at = message.windows(9).position(|w| w == ENVELOPED_DATA.as_bytes()).unwrap();
        message[at + 8] = 2;

        let refused = open(&message, &testing::made("one").key()).unwrap_err();

        assert_eq!(refused.to_string(), "it is not CMS Enveloped-data but Signed-data");
    }

    #[test]
    fn wrong_padding_and_a_damaged_key_are_one_error() {
        let message = sealed(&[5; 40], &["one"]);
        let key = testing::made("one").key();
        let refused = |flip: usize| {
            let mut damaged = message.clone();
            damaged[flip] ^= 0x80;
            open(&damaged, &key).unwrap_err().to_string()
        };
        let encrypted_key = message.len() - 48 - 100;

        // The byte before the last block is XORed onto the padding.
        assert_eq!(refused(message.len() - 17), OpenError::CannotOpen.to_string());
        assert_eq!(refused(encrypted_key), OpenError::CannotOpen.to_string());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn what_is_sealed_is_opened_whatever_its_length(
            plaintext in prop_oneof![vec(any::<u8>(), 0..100), vec(any::<u8>(), CHUNK - 40..CHUNK + 40)],
            pad in 0_usize..3,
        ) {
            let mut message = sealed(&plaintext, &["one"]);
            message.resize(message.len() + pad, 0);
            prop_assert_eq!(&**open(&message, &testing::made("one").key()).unwrap(), &plaintext);
        }

        #[test]
        fn damaged_messages_never_panic_and_are_never_opened_unless_in_their_content(
            at in any::<prop::sample::Index>(),
            flip in 1_u8..,
            cut in any::<prop::sample::Index>(),
        ) {
            let message = sealed(b"John Doe and thirty-two more bytes of him", &["one"]);
            let key = testing::made("one").key();
            let mut damaged = message.clone();
            let at = at.index(damaged.len());
            damaged[at] ^= flip;
            if let Ok(opened) = open(&damaged, &key) {
                // The version and unimportant bytes of the head may change; content changes silently, as CBC allows.
                prop_assert!(opened.len() <= 48);
            }
            prop_assert!(open(&message[..cut.index(message.len())], &key).is_err());
        }
    }

    proptest! {
        #[test]
        fn random_messages_never_panic(
            bytes in vec(prop_oneof![any::<u8>(), Just(0x30), Just(0x80), Just(0)], 0..300),
            kept in 0_usize..80,
        ) {
            use std::sync::LazyLock;
            static MESSAGE: LazyLock<Vec<u8>> = LazyLock::new(|| sealed(b"John Doe", &["one"]));
            static KEY: LazyLock<PrivateKey> = LazyLock::new(|| testing::made("one").key());

            prop_assert!(open(&bytes, &KEY).is_err());
            // And such that begin well.
            let begun = [MESSAGE.get(..kept).unwrap(), &bytes].concat();
            prop_assert!(open(&begun, &KEY).is_err());
        }
    }
}
