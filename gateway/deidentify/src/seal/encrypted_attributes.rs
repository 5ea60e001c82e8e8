//! The Encrypted Attributes Sequence (0400,0500): what de-identification took away, for those who may put it back.
//!
//! [`protect`] makes the sequence (PS3.15 E.1.1), [`recover`] undoes a de-identification with it (E.1.2). What is sealed is
//! a data set in Explicit VR Little Endian, without File Meta Information: one item of the Modified Attributes Sequence
//! (0400,0550), which holds the originals, and the Specific Character Set that their text is in.
//!
//! Anybody can seal anything to a certificate, so [`recover`] reads what comes out of an envelope with the scanner, and
//! takes nothing from it that is of the encoding (groups 0000, 0002) or of the pixels (7FE0).

use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;
use gantry_store::dicom::TransferSyntax;
use rand_core::{CryptoRng, RngCore};
use thiserror::Error;
use zeroize::Zeroizing;

use super::envelope::{OpenError, SealError, is_enveloped, open, seal};
use super::key::PrivateKey;
use super::random::SealRng;
use super::recipient::Recipient;
use crate::data_set::{self, DataSet, DataSetError, Element, Form, Value, is_text};

/// Why an object was not recovered. The text of no data set is in it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RecoverError {
    /// Nothing to recover from.
    #[error(
        "there is no Encrypted Attributes Sequence (0400,0500) in it: it was not de-identified reversibly"
    )]
    NothingSealed,
    /// An item without one of its two attributes.
    #[error("item {item} of its Encrypted Attributes Sequence lacks {tag}")]
    Incomplete {
        /// Counted from 1.
        item: usize,
        /// Which one.
        tag: Tag,
    },
    /// None of the items could be opened; why the first one of them could not that was meant for this key, if any was.
    #[error("cannot open its Encrypted Attributes Sequence")]
    Closed(#[source] OpenError),
    /// What was sealed is no data set.
    #[error("what was sealed is not a data set")]
    Damaged(#[source] DataSetError),
    /// What was sealed is something else.
    #[error(
        "what was sealed does not have exactly one item in Modified Attributes Sequence (0400,0550) but {0}"
    )]
    Items(usize),
    /// What was sealed would change what it must not.
    #[error("what was sealed holds {0}, which no de-identification takes away")]
    Forbidden(Tag),
    /// Text of two character sets would come into one data set.
    #[error("what was sealed is in another character set than the text that stayed in the object")]
    CharacterSets,
}

/// What is not an original of anything: the command's and the file's own groups, pixel data, delimiters.
fn is_forbidden(tag: Tag) -> bool {
    matches!(tag.group(), 0x0000 | 0x0002 | 0x7FE0 | 0xFFFE)
}

/// The sequence that keeps these attributes for these recipients. `character_set`: the value of (0008,0005) that their text
/// is in, if it is not the default repertoire.
///
/// The random numbers decide whether the same attributes give the same bytes; [`protect_repeatably`] takes care of that.
pub fn protect<R: CryptoRng + RngCore>(
    originals: &DataSet,
    character_set: Option<&[u8]>,
    recipients: &[Recipient],
    rng: &mut R,
) -> Result<Element, SealError> {
    Ok(sequence(seal(&plaintext(originals, character_set), recipients, rng)?))
}

/// [`protect`], such that the same key, attributes and recipients give the same bytes: an object that is sent again is the
/// same object. See [`super::random`] for what that reveals.
pub fn protect_repeatably(
    originals: &DataSet,
    character_set: Option<&[u8]>,
    recipients: &[Recipient],
    key: &[u8; 32],
) -> Result<Element, SealError> {
    let plaintext = plaintext(originals, character_set);
    let mut rng = SealRng::for_content(key, &plaintext, recipients);
    Ok(sequence(seal(&plaintext, recipients, &mut rng)?))
}

fn plaintext(originals: &DataSet, character_set: Option<&[u8]>) -> Zeroizing<Vec<u8>> {
    let mut sealed = DataSet::default();
    if let Some(terms) = character_set {
        sealed.put(Element::new(tags::SPECIFIC_CHARACTER_SET, VR::CS, terms));
    }
    sealed.put(Element::sequence(tags::MODIFIED_ATTRIBUTES_SEQUENCE, vec![originals.clone()]));
    let mut plaintext = Zeroizing::new(Vec::new());
    sealed.write(Form::Explicit, &mut plaintext);
    plaintext
}

fn sequence(message: Vec<u8>) -> Element {
    let syntax = TransferSyntax::explicit_vr_little_endian();
    let item = DataSet {
        elements: vec![
            Element::new(tags::ENCRYPTED_CONTENT_TRANSFER_SYNTAX_UID, VR::UI, syntax.uid()),
            Element::new(tags::ENCRYPTED_CONTENT, VR::OB, message),
        ],
    };
    Element::sequence(tags::ENCRYPTED_ATTRIBUTES_SEQUENCE, vec![item])
}

/// The object as it was before its attributes were replaced, as far as they were sealed.
///
/// The first item that this key opens is used. Then Patient Identity Removed (0012,0062) is NO, and De-identification Method
/// (0012,0063), its codes (0012,0064) and Longitudinal Temporal Information Modified (0028,0303) are gone, unless they are
/// among the originals: then the object had been de-identified before, and that is what it is again.
///
/// `keep_uids`: the SOP Instance and Series Instance UIDs stay. For objects that somebody derived from a de-identified one and
/// copied its sequence: they are other instances than the original, of the same patient and study.
pub fn recover(
    data_set: &DataSet,
    key: &PrivateKey,
    keep_uids: bool,
) -> Result<DataSet, RecoverError> {
    let (originals, character_set) = originals(data_set, key)?;

    let mut recovered = data_set.clone();
    let gone = [
        tags::ENCRYPTED_ATTRIBUTES_SEQUENCE,
        tags::DEIDENTIFICATION_METHOD,
        tags::DEIDENTIFICATION_METHOD_CODE_SEQUENCE,
        tags::LONGITUDINAL_TEMPORAL_INFORMATION_MODIFIED,
    ];
    recovered.elements.retain(|element| !gone.contains(&element.tag));
    recovered.put(Element::new(tags::PATIENT_IDENTITY_REMOVED, VR::CS, "NO"));
    let kept = |tag| keep_uids && matches!(tag, tags::SOP_INSTANCE_UID | tags::SERIES_INSTANCE_UID);
    for original in originals.elements {
        if !kept(original.tag) {
            recovered.elements.retain(|element| element.tag != original.tag);
            recovered.put(original);
        }
    }
    if let Some(character_set) = character_set {
        recovered.put(character_set);
    }
    Ok(recovered)
}

/// Whether the object keeps originals that nobody reads without a key: there are items, and each is sealed. Who may open them,
/// and what is in them, is not known.
pub fn is_sealed(data_set: &DataSet) -> bool {
    let items = data_set.items(tags::ENCRYPTED_ATTRIBUTES_SEQUENCE);
    let sealed = |item: &DataSet| match item.get(tags::ENCRYPTED_CONTENT).map(|found| &found.value)
    {
        Some(Value::Bytes(message)) => is_enveloped(message) && item.elements.len() == 2,
        _ => false,
    };
    !items.is_empty() && items.iter().all(sealed)
}

/// The originals that an object keeps sealed, and the Specific Character Set that it must have when they are put back, if
/// that is another than it has.
fn originals(
    data_set: &DataSet,
    key: &PrivateKey,
) -> Result<(DataSet, Option<Element>), RecoverError> {
    let mut sealed = opened(data_set, key)?;
    let items = match sealed.get(tags::MODIFIED_ATTRIBUTES_SEQUENCE).map(|found| &found.value) {
        Some(Value::Items(items)) => items.len(),
        _ => 0,
    };
    let character_set = sealed.get(tags::SPECIFIC_CHARACTER_SET).cloned();
    let sequence = sealed
        .elements
        .iter_mut()
        .find(|element| element.tag == tags::MODIFIED_ATTRIBUTES_SEQUENCE)
        .map(|element| &mut element.value);
    let originals = match sequence {
        Some(Value::Items(items)) if items.len() == 1 => items.pop().unwrap_or_default(),
        _ => return Err(RecoverError::Items(items)),
    };
    if let Some(element) = originals.elements.iter().find(|element| is_forbidden(element.tag)) {
        return Err(RecoverError::Forbidden(element.tag));
    }

    // Text that comes back and text that stayed must be in one character set (PS3.5 6.1.2).
    let theirs = originals.get(tags::SPECIFIC_CHARACTER_SET).or(character_set.as_ref()).cloned();
    let here = data_set.bytes(tags::SPECIFIC_CHARACTER_SET).unwrap_or_default();
    let changed = theirs.filter(|theirs| theirs.bytes().unwrap_or_default() != here);
    let Some(theirs) = changed else { return Ok((originals, None)) };
    let stays = |element: &&Element| originals.get(element.tag).is_none();
    if data_set.elements.iter().filter(stays).all(is_ascii) {
        Ok((originals, Some(theirs)))
    } else if originals.get(tags::SPECIFIC_CHARACTER_SET).is_none()
        && originals.elements.iter().all(is_ascii)
    {
        Ok((originals, None))
    } else {
        Err(RecoverError::CharacterSets)
    }
}

/// What the first item holds that this key opens.
fn opened(data_set: &DataSet, key: &PrivateKey) -> Result<DataSet, RecoverError> {
    let mut closed = None;
    for (at, item) in data_set.items(tags::ENCRYPTED_ATTRIBUTES_SEQUENCE).iter().enumerate() {
        let lacks = |tag| RecoverError::Incomplete { item: at + 1, tag };
        let uid = item.text(tags::ENCRYPTED_CONTENT_TRANSFER_SYNTAX_UID);
        let syntax = uid
            .and_then(|uid| uid.parse::<TransferSyntax>().ok())
            .ok_or(lacks(tags::ENCRYPTED_CONTENT_TRANSFER_SYNTAX_UID))?;
        // Not without its padding: what is encrypted may end with 00, and the message says where it ends.
        let content = item.get(tags::ENCRYPTED_CONTENT).map(|found| &found.value);
        let Some(Value::Bytes(message)) = content else {
            return Err(lacks(tags::ENCRYPTED_CONTENT));
        };
        match open(message, key) {
            Ok(plaintext) => {
                let parsed = data_set::read(&syntax, &plaintext).map_err(RecoverError::Damaged)?;
                if let Some(pixel_data) = parsed.pixel_data {
                    return Err(RecoverError::Forbidden(pixel_data.tag));
                }
                return Ok(parsed.data_set);
            }
            // What was meant for others says less than what was meant for this key.
            Err(error) => match closed {
                None | Some(OpenError::NotAddressed) => closed = Some(error),
                Some(_) => {}
            },
        }
    }
    Err(closed.map_or(RecoverError::NothingSealed, RecoverError::Closed))
}

/// Whether its text is the same in every character set, item by item where those do not say theirs themselves.
fn is_ascii(element: &Element) -> bool {
    const ESCAPE: u8 = 0x1B;
    match &element.value {
        Value::Bytes(bytes) if is_text(element.vr) || element.vr == VR::UN => {
            bytes.iter().all(|byte| byte.is_ascii() && *byte != ESCAPE)
        }
        Value::Bytes(_) | Value::Fragments(_) => true,
        Value::Items(items) => items.iter().all(|item| {
            item.get(tags::SPECIFIC_CHARACTER_SET).is_some() || item.elements.iter().all(is_ascii)
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    fn text(tag: Tag, vr: VR, value: &str) -> Element {
        Element::new(tag, vr, value)
    }

    fn set(elements: Vec<Element>) -> DataSet {
        let mut set = DataSet::default();
        for element in elements {
            set.put(element);
        }
        set
    }

    fn originals() -> DataSet {
        set(vec![
            text(tags::SOP_INSTANCE_UID, VR::UI, "1.2.3"),
            text(tags::SERIES_INSTANCE_UID, VR::UI, "1.2"),
            text(tags::PATIENT_NAME, VR::PN, "Doe^John"),
            Element::sequence(
                tags::OTHER_PATIENT_I_DS_SEQUENCE,
                vec![set(vec![text(tags::PATIENT_ID, VR::LO, "17")])],
            ),
        ])
    }

    /// A de-identified object with these originals sealed.
    fn protected(originals: &DataSet, character_set: Option<&[u8]>, names: &[&str]) -> DataSet {
        let recipients: Vec<_> = names.iter().map(|name| testing::recipient(name)).collect();
        let sequence = protect_repeatably(originals, character_set, &recipients, &[3; 32]).unwrap();
        set(vec![
            text(tags::SOP_INSTANCE_UID, VR::UI, "2.25.1"),
            text(tags::SERIES_INSTANCE_UID, VR::UI, "2.25.2"),
            text(tags::MODALITY, VR::CS, "CT"),
            text(tags::PATIENT_NAME, VR::PN, "REMOVED"),
            text(tags::PATIENT_IDENTITY_REMOVED, VR::CS, "YES"),
            text(tags::DEIDENTIFICATION_METHOD, VR::LO, "Gantry"),
            Element::sequence(tags::DEIDENTIFICATION_METHOD_CODE_SEQUENCE, vec![]),
            text(tags::LONGITUDINAL_TEMPORAL_INFORMATION_MODIFIED, VR::CS, "REMOVED"),
            sequence,
        ])
    }

    fn expected() -> DataSet {
        let mut expected = originals();
        expected.put(text(tags::MODALITY, VR::CS, "CT"));
        expected.put(text(tags::PATIENT_IDENTITY_REMOVED, VR::CS, "NO"));
        expected
    }

    #[test]
    fn what_was_protected_is_recovered_by_whoever_may() {
        let object = protected(&originals(), None, &["one", "other"]);
        for name in ["one", "other"] {
            let recovered = recover(&object, &testing::made(name).key(), false).unwrap();
            assert_eq!(recovered, expected());
        }
    }

    #[test]
    fn the_sequence_is_as_the_standard_asks_for() {
        let object = protected(&originals(), Some(b"ISO_IR 192"), &["one"]);

        let items = object.items(tags::ENCRYPTED_ATTRIBUTES_SEQUENCE);

        assert_eq!(items.len(), 1);
        let syntax = items[0].text(tags::ENCRYPTED_CONTENT_TRANSFER_SYNTAX_UID);
        assert_eq!(syntax.as_deref(), Some("1.2.840.10008.1.2.1"));
        let content = items[0].get(tags::ENCRYPTED_CONTENT).unwrap();
        let Value::Bytes(message) = &content.value else { panic!("{content:?}") };
        assert_eq!((content.vr, message.len() % 2), (VR::OB, 0));
        let plaintext = open(message, &testing::made("one").key()).unwrap();
        assert_eq!(plaintext[..8], *b"\x08\x00\x05\x00CS\x0a\x00");
        assert!(!message.windows(8).any(|window| window == b"Doe^John"));
    }

    #[test]
    fn the_same_object_is_protected_to_the_same_bytes() {
        let object = protected(&originals(), None, &["one", "other"]);

        assert_eq!(protected(&originals(), None, &["other", "one"]), object);
        let mut rng = SealRng::from_system().unwrap();
        let random = protect(&originals(), None, &[testing::recipient("one")], &mut rng).unwrap();
        assert_ne!(object.get(tags::ENCRYPTED_ATTRIBUTES_SEQUENCE), Some(&random));
    }

    #[test]
    fn only_what_needs_a_key_counts_as_sealed() {
        assert!(is_sealed(&protected(&originals(), None, &["one"])));
        assert!(!is_sealed(&originals()));
        assert!(!is_sealed(&set(vec![sequence(b"Doe^John".to_vec())])));
        let mut beside = protected(&originals(), None, &["one"]);
        if let Some(Element { value: Value::Items(items), .. }) =
            beside.elements.iter_mut().find(|it| it.tag == tags::ENCRYPTED_ATTRIBUTES_SEQUENCE)
        {
            items[0].put(text(tags::PATIENT_NAME, VR::PN, "Doe^John"));
        }
        assert!(!is_sealed(&beside));
    }

    #[test]
    fn a_derived_object_may_keep_its_own_uids() {
        let object = protected(&originals(), None, &["one"]);

        let recovered = recover(&object, &testing::made("one").key(), true).unwrap();

        assert_eq!(recovered.text(tags::SOP_INSTANCE_UID).as_deref(), Some("2.25.1"));
        assert_eq!(recovered.text(tags::SERIES_INSTANCE_UID).as_deref(), Some("2.25.2"));
        assert_eq!(recovered.text(tags::PATIENT_NAME).as_deref(), Some("Doe^John"));
    }

    #[test]
    fn an_object_that_was_deidentified_twice_is_so_once_again() {
        let mut originals = originals();
        originals.put(text(tags::PATIENT_IDENTITY_REMOVED, VR::CS, "YES"));
        originals.put(Element::sequence(tags::ENCRYPTED_ATTRIBUTES_SEQUENCE, vec![]));
        let object = protected(&originals, None, &["one"]);

        let recovered = recover(&object, &testing::made("one").key(), false).unwrap();

        assert_eq!(recovered.text(tags::PATIENT_IDENTITY_REMOVED).as_deref(), Some("YES"));
        assert!(recovered.get(tags::ENCRYPTED_ATTRIBUTES_SEQUENCE).is_some());
    }

    #[test]
    fn another_item_is_tried_if_the_first_is_for_somebody_else() {
        let mut object = protected(&originals(), None, &["other"]);
        let two: Vec<_> = [&object, &protected(&originals(), None, &["one"])]
            .iter()
            .flat_map(|object| object.items(tags::ENCRYPTED_ATTRIBUTES_SEQUENCE).to_vec())
            .collect();
        object.put(Element::sequence(tags::ENCRYPTED_ATTRIBUTES_SEQUENCE, two));

        assert_eq!(recover(&object, &testing::made("one").key(), false).unwrap(), expected());
    }

    #[test]
    fn every_refusal_has_its_reason() {
        let key = testing::made("one").key();
        let refused = |object: &DataSet| recover(object, &key, false).unwrap_err();

        assert!(matches!(refused(&originals()), RecoverError::NothingSealed));
        let closed = refused(&protected(&originals(), None, &["other"]));
        assert!(matches!(closed, RecoverError::Closed(OpenError::CannotOpen)), "{closed}");
        let with = |tag, vr| {
            let mut originals = originals();
            originals.put(Element::new(tag, vr, vec![1, 2]));
            refused(&protected(&originals, None, &["one"]))
        };
        let pixels = with(tags::PIXEL_DATA, VR::OW);
        assert!(matches!(pixels, RecoverError::Forbidden(tags::PIXEL_DATA)), "{pixels}");
        // The scanner's own rule.
        let meta = with(tags::TRANSFER_SYNTAX_UID, VR::UI);
        assert!(matches!(meta, RecoverError::Damaged(_)), "{meta}");
        let sealed = |plaintext: &[u8]| {
            let message = super::super::envelope::seal_repeatably(
                plaintext,
                &[testing::recipient("one")],
                &[1; 32],
            );
            set(vec![sequence(message.unwrap())])
        };
        assert!(matches!(refused(&sealed(b"no data set")), RecoverError::Damaged(_)));
        assert!(matches!(refused(&sealed(b"\x08\0\x60\0CS\x02\0CT")), RecoverError::Items(0)));
        let mut two = Vec::new();
        let items = vec![originals(), originals()];
        Element::sequence(tags::MODIFIED_ATTRIBUTES_SEQUENCE, items)
            .write(Form::Explicit, &mut two);
        assert!(matches!(refused(&sealed(&two)), RecoverError::Items(2)));
        let mut incomplete = set(vec![sequence(vec![1, 2])]);
        if let Value::Items(items) = &mut incomplete.elements[0].value {
            items[0].elements.pop();
        }
        let lacks = refused(&incomplete);
        assert!(matches!(
            lacks,
            RecoverError::Incomplete { item: 1, tag: tags::ENCRYPTED_CONTENT }
        ));
    }

    #[test]
    fn text_of_two_character_sets_does_not_come_into_one_data_set() {
        let key = testing::made("one").key();
        let mut originals = originals();
        originals.put(Element::new(tags::PATIENT_NAME, VR::PN, "Müller".as_bytes()));
        let utf_8: &[u8] = b"ISO_IR 192";
        let mut object = protected(&originals, Some(utf_8), &["one"]);

        // All that stayed is ASCII, so the object takes the character set of what comes back.
        let recovered = recover(&object, &key, false).unwrap();
        assert_eq!(recovered.bytes(tags::SPECIFIC_CHARACTER_SET), Some(utf_8));

        object.put(text(tags::SPECIFIC_CHARACTER_SET, VR::CS, "ISO_IR 100"));
        object.put(Element::new(tags::STUDY_DESCRIPTION, VR::LO, vec![b'M', 0xFC]));
        assert!(matches!(recover(&object, &key, false), Err(RecoverError::CharacterSets)));

        object.put(text(tags::SPECIFIC_CHARACTER_SET, VR::CS, "ISO_IR 192"));
        assert!(recover(&object, &key, false).is_ok());
    }
}
