//! The conformance statement (PS3.2): what this node does over DICOM, written from what negotiates and answers.
//!
//! Without a configuration it is the product's, and lies beside the source as `CONFORMANCE.md`, where a test compares the two;
//! with one it is that of a node, with its AE titles, listeners and peers.

mod storage;

use std::fmt::{self, Write};

use dicom_core::Tag;
use dicom_core::dictionary::{DataDictionary as _, DataDictionaryEntry as _, UidDictionary as _};
use dicom_dictionary_std::{StandardDataDictionary, StandardSopClassDictionary, uids};
use gantry_deidentify::table::EDITION;
use gantry_store::query::{Level, keys_at};

use crate::association::services::find::MOST_MATCHES;
use crate::association::services::identifier::MAX_IDENTIFIER;
use crate::association::{
    APPLICATION_CONTEXT, IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME,
};
use crate::config::{Config, ListenerTls, Permission};

/// What is served beside storage, as (SOP class, as user, as provider, where it is said who may).
const SERVICES: &[(&str, bool, bool, &str)] = &[
    (uids::VERIFICATION, true, true, "every peer that is admitted"),
    (uids::STORAGE_COMMITMENT_PUSH_MODEL, true, true, "every peer that is admitted"),
    (uids::PATIENT_ROOT_QUERY_RETRIEVE_INFORMATION_MODEL_FIND, false, true, "`may = [\"query\"]`"),
    (
        uids::PATIENT_ROOT_QUERY_RETRIEVE_INFORMATION_MODEL_MOVE,
        false,
        true,
        "`may = [\"retrieve\"]`",
    ),
    (
        uids::PATIENT_ROOT_QUERY_RETRIEVE_INFORMATION_MODEL_GET,
        false,
        true,
        "`may = [\"retrieve\"]`",
    ),
    (uids::STUDY_ROOT_QUERY_RETRIEVE_INFORMATION_MODEL_FIND, true, true, "`may = [\"query\"]`"),
    (uids::STUDY_ROOT_QUERY_RETRIEVE_INFORMATION_MODEL_MOVE, true, true, "`may = [\"retrieve\"]`"),
    (uids::STUDY_ROOT_QUERY_RETRIEVE_INFORMATION_MODEL_GET, false, true, "`may = [\"retrieve\"]`"),
];

/// The statement, in Markdown; of a node, where there is a configuration.
pub fn statement(config: Option<&Config>) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write(&mut text, config);
    text
}

fn write(out: &mut String, config: Option<&Config>) -> fmt::Result {
    let title = config.map_or("Gantry".to_owned(), |config| {
        format!("Gantry, {}, at {}", config.node.ae_title, config.node.organisation)
    });
    writeln!(out, "# DICOM conformance statement: {title}\n")?;
    writeln!(
        out,
        "Follows PS3.2. Gantry {} is an image exchange gateway: it takes in, keeps, forwards and hands out DICOM objects, and \
         creates none but de-identified copies, and Key Object Selection Documents that recall what was sent (IHE RAD IOCM).\n",
        env!("CARGO_PKG_VERSION")
    )?;
    services(out)?;
    storage_classes(out)?;
    association(out)?;
    queries(out)?;
    retrieval(out)?;
    dicomweb(out)?;
    rest(out)?;
    match config {
        Some(config) => node(out, config),
        None => writeln!(
            out,
            "## This node\n\n`gantry conformance` prints this statement with the AE titles, listeners and peers of a node."
        ),
    }
}

fn name(uid: &str) -> String {
    let entry = StandardSopClassDictionary.by_uid(uid);
    entry.map_or_else(|| uid.to_owned(), |entry| entry.name.to_owned())
}

fn services(out: &mut String) -> fmt::Result {
    writeln!(out, "## Services\n\n| SOP class | UID | as SCU | as SCP, for |\n|---|---|---|---|")?;
    for (uid, user, provider, who) in SERVICES {
        let said = |is: bool| if is { "yes" } else { "no" };
        let provider = if *provider { *who } else { "no" };
        writeln!(out, "| {} | {uid} | {} | {provider} |", name(uid), said(*user))?;
    }
    writeln!(
        out,
        "| storage SOP classes (below) | | yes, to partners | sources, and partners with `may = [\"send\"]` |\n\n\
         These services are negotiated in Implicit VR Little Endian (1.2.840.10008.1.2) and Explicit VR Little Endian \
         (1.2.840.10008.1.2.1), the first of both that is proposed; verification also in the other native ones.\n"
    )
}

fn storage_classes(out: &mut String) -> fmt::Result {
    writeln!(
        out,
        "## Storage\n\nEvery storage SOP class of the dictionary is taken in, retired ones included, and every private one. Each \
         in every transfer syntax that encodes a data set, known or not: the first one that is proposed. Not in JPIP \
         referenced and SMPTE ST 2110 transfer syntaxes, whose pixel data are elsewhere. Objects are kept and sent in the \
         encoding that they came in; a peer that does not take it is sent Explicit or Implicit VR Little Endian, pixel data \
         decoded, or JPEG-LS Lossless where that is configured or pays. No attribute is coerced (level 2, full); an instance that \
         is sent again with other content is kept as a further version.\n\n\
         C-STORE is answered 0000H when the instance survives a power cut, A700H when it cannot be kept now, A900H when the data set is \
         not the instance that the command names, C000H when it is not whole, 0122H for another SOP class, and 0124H \
         when the sender may not store.\n\n| SOP class | UID |\n|---|---|"
    )?;
    for uid in storage::STORAGE {
        writeln!(out, "| {} | {uid} |", name(uid))?;
    }
    writeln!(out)
}

fn association(out: &mut String) -> fmt::Result {
    writeln!(
        out,
        "## Associations\n\n| | |\n|---|---|\n\
         | application context | {APPLICATION_CONTEXT} |\n\
         | implementation class UID | {IMPLEMENTATION_CLASS_UID} |\n\
         | implementation version name | {IMPLEMENTATION_VERSION_NAME} |\n\
         | longest PDU that is taken | `[limits] max-pdu`, 128 KiB unless it says otherwise |\n\
         | associations at once | `[limits]` for accepted ones; of a partner, `associations` for requested ones |\n\
         | asynchronous operations | one at a time, no window is negotiated |\n\
         | role selection (PS3.7 D.3.3.4) | for storage commitment, and for storage classes of a C-GET |\n\
         | extended negotiation, user identity | not looked at |\n\n\
         An association is accepted from a calling AE title that is a source's or a partner's, with its certificate where one is \
         pinned, to a called AE title of this node. Others are rejected: calling AE title not recognised, called AE title not \
         recognised, or local limit exceeded (transient).\n"
    )
}

fn queries(out: &mut String) -> fmt::Result {
    writeln!(
        out,
        "## C-FIND as SCP\n\nAll queries are answered as relational ones. Person names are matched without case and accents, by component \
         group; other text to the letter; UIDs in lists; dates and times in ranges, and a range of both as one (combined \
         date-time matching). Wild cards are * and ?. A key that is not listed matches everything and is not returned, and \
         answers are then FF01H. What a partner finds is what was addressed to it or shared with it; a source finds what it \
         sent.\n\n| level | attribute | tag | VR |\n|---|---|---|---|"
    )?;
    let mut above: Vec<Tag> = Vec::new();
    for level in [Level::Patient, Level::Study, Level::Series, Level::Image] {
        for (tag, vr) in keys_at(level).filter(|(tag, _)| !above.contains(tag)).collect::<Vec<_>>()
        {
            above.push(tag);
            let alias = StandardDataDictionary.by_tag(tag).map_or("", |entry| entry.alias());
            let level = format!("{level:?}").to_uppercase();
            writeln!(out, "| {level} | {alias} | {tag} | {vr} |")?;
        }
    }
    writeln!(
        out,
        "\nRetrieveAETitle and InstanceAvailability (ONLINE) are in every answer. Answers are in the character set of the request \
         where it can say them (ISO_IR 6, ISO_IR 100, ISO_IR 192, ISO 2022 IR 87), else in ISO_IR 100 or ISO_IR 192.\n\n\
         | status | when |\n|---|---|\n\
         | FF00H, FF01H | a match |\n\
         | 0000H | all matches were sent |\n\
         | FE00H | cancelled |\n\
         | A700H | the index cannot be asked now, or only the first {MOST_MATCHES} matches were sent |\n\
         | A900H | no level, one that the model has not, or no data set |\n\
         | C000H | a value that its VR does not allow, more than 32 wild cards, 500 keys, 10,000 UIDs, or {MAX_IDENTIFIER} bytes |\n"
    )
}

fn retrieval(out: &mut String) -> fmt::Result {
    writeln!(
        out,
        "## C-MOVE and C-GET as SCP\n\nWhat is wanted is named by unique keys, lists of which are allowed at the level of the request; \
         at the PATIENT level (Patient Root) one patient. What the asker may not see is not there. A C-MOVE goes to the asker's own AE \
         title, at the address that this node has for it, or to a peer that `move-to` lists for it. A C-GET needs the asker to \
         be the SCP of the storage classes (role selection). Pending responses come every second.\n\n\
         | status | when |\n|---|---|\n\
         | FF00H | it goes on |\n\
         | 0000H | all were sent; also where there was nothing |\n\
         | B000H | some failed, of which the list follows, at most 1000; or some were taken with a warning |\n\
         | A702H | none could be sent; the list follows |\n\
         | A701H | the index cannot be asked now, or more than 200,000 instances or 10,000 UIDs |\n\
         | A801H | the destination is nobody to whom the asker may have something sent |\n\
         | A900H | no level, one that the model has not, or no unique key of it |\n\
         | FE00H | cancelled |\n"
    )
}

fn dicomweb(out: &mut String) -> fmt::Result {
    writeln!(
        out,
        "## DICOMweb\n\nWith `[dicomweb]`, under `/dicomweb`, by HTTP/1.1, for callers that show their certificate or a bearer token \
         (RFC 6750). What a caller may see is what it may see by C-FIND; all else is not there.\n\n\
         | service | resources | as |\n|---|---|---|\n\
         | QIDO-RS (PS3.18 10.6) | studies, series, instances, at every level | `application/dicom+json`, `application/dicom+xml` in parts |\n\
         | WADO-RS (PS3.18 10.4) | study, series, instance | `application/dicom`, in parts or, of an instance, alone; as kept, or in \
         Explicit or Implicit VR Little Endian |\n\
         | | metadata of these, as far as the pixel data | as QIDO-RS |\n\
         | | frames | `application/octet-stream`, or as compressed as they are kept |\n\
         | | rendered frames, the first frame of an instance; thumbnails, also of the middle image of a study or series; with `window`, \
         `viewport` and `quality` | `image/jpeg`, `image/png` |\n\
         | | bulk data, of an object that can be read uncompressed | `application/octet-stream`; ranges of bytes |\n\
         | WADO-URI (PS3.18 9) | an instance, or a rendered frame | `application/dicom`, `image/jpeg`, `image/png` |\n\
         | STOW-RS (PS3.18 10.5) | instances in parts, at most 20,000, or one alone | `application/dicom` |\n\
         | capabilities (PS3.18 8.9) | `/capabilities` | `application/vnd.sun.wadl+xml` |\n\n\
         Keys, return keys and matching are those of C-FIND above; UIDs are listed with commas. An attribute that is no key is refused \
         (400), as is a sequence. `limit` is at most 5000, and an answer that this cut says so in a Warning field. `fuzzymatching`, \
         `emptyvaluematching` and `multiplevaluematching` are not done, and that is said likewise. A search that finds nothing is \
         answered 204, a retrieval 404. Grey images are rendered by the first window that the image, or its frame, names, else by its VOI \
         LUT, else from the least to the greatest value; `PALETTE COLOR`, `RGB`, `YBR_FULL` and `YBR_FULL_422` in colour. What is stored \
         comes from a source, or from a partner whose `may` has \"send\", and is said to be held when it is as safe as after a C-STORE; \
         failure reasons are the statuses of C-STORE.\n"
    )
}

fn rest(out: &mut String) -> fmt::Result {
    writeln!(
        out,
        "## Security\n\nTLS 1.2 and 1.3 with mutual authentication (BCP 195 TLS Secure Transport Connection Profile, PS3.15 B.9, as far as rustls's \
         defaults go); certificates may be pinned for each peer. Plain TCP only where the configuration says so, by address and AE \
         title. De-identification by PS3.15 Annex E, {EDITION}: the Basic Application Level Confidentiality Profile and its options, and \
         Encrypted Attributes (E.1.1) with AES-256-CBC and RSA. Secure DICOM File (PS3.10 7.4) for export.\n\n\
         ## Character sets\n\nObjects are kept in the character set that they came in. All that PS3.3 C.12.1.1.2 defines are read.\n"
    )
}

fn node(out: &mut String, config: &Config) -> fmt::Result {
    writeln!(
        out,
        "## This node\n\n| | |\n|---|---|\n| AE title | {} |\n| organisation | {} |\n| longest PDU | {} bytes |\n",
        config.node.ae_title, config.node.organisation, config.limits.max_pdu
    )?;
    writeln!(out, "| listener | address | TLS |\n|---|---|---|")?;
    for listener in &config.listeners {
        let tls = if listener.tls == ListenerTls::Off { "no" } else { "mutual" };
        writeln!(out, "| {} | {} | {tls} |", listener.name, listener.address)?;
    }
    writeln!(out, "\n| peer | AE title | may |\n|---|---|---|")?;
    let words = |may: &std::collections::BTreeSet<Permission>| {
        let word = |permission: &Permission| match permission {
            Permission::Receive => "receive",
            Permission::Query => "query",
            Permission::Retrieve => "retrieve",
            Permission::Send => "send",
        };
        may.iter().map(word).collect::<Vec<_>>().join(", ")
    };
    for source in &config.sources {
        let may = words(&source.may);
        let and = if may.is_empty() { "" } else { ", " };
        writeln!(out, "| {} (source) | {} | send{and}{may} |", source.name, source.ae_title)?;
    }
    for partner in &config.partners {
        writeln!(out, "| {} | {} | {} |", partner.name, partner.ae_title, words(&partner.may))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use dicom_ul::pdu::PresentationContextProposed;

    use super::*;
    use crate::association::negotiation::{Services, answer};

    fn is_accepted(uid: &str, services: Services) -> bool {
        let proposed = PresentationContextProposed {
            id: 1,
            abstract_syntax: uid.to_owned(),
            transfer_syntaxes: vec![uids::EXPLICIT_VR_LITTLE_ENDIAN.to_owned()],
        };
        !answer(&[proposed], services).1.is_empty()
    }

    #[test]
    fn what_the_statement_lists_is_negotiated_and_nothing_else_that_is_no_storage_class() {
        let all = Services { query: true, retrieve: true };
        for uid in storage::STORAGE {
            assert!(is_accepted(uid, Services::default()), "{uid}");
            assert_ne!(name(uid), *uid, "a class without a name");
        }
        for (uid, _, provider, _) in SERVICES {
            assert_eq!(is_accepted(uid, all), *provider, "{uid}");
        }
        for uid in [
            uids::MODALITY_WORKLIST_INFORMATION_MODEL_FIND,
            uids::MODALITY_PERFORMED_PROCEDURE_STEP,
            uids::COMPOSITE_INSTANCE_ROOT_RETRIEVE_GET,
            uids::BASIC_GRAYSCALE_PRINT_MANAGEMENT_META,
            uids::INSTANCE_AVAILABILITY_NOTIFICATION,
            uids::UNIFIED_PROCEDURE_STEP_PUSH,
        ] {
            assert!(
                !is_accepted(uid, all),
                "{uid} is negotiated, and the statement does not say so"
            );
        }
    }

    #[test]
    fn the_file_beside_the_source_says_what_the_code_says() {
        let file = include_str!("../CONFORMANCE.md");
        assert!(
            file == statement(None),
            "make it again: cargo run -p gantry-cli -- conformance --product > gateway/CONFORMANCE.md"
        );
    }
}
