//! Presentation contexts (PS3.8 9.3.2.2): which kinds of object, in which encoding, may travel on an association.

use std::collections::BTreeMap;

use dicom_core::dictionary::{UidDictionary as _, UidType};
use dicom_dictionary_std::{StandardSopClassDictionary, uids};
use dicom_ul::pdu::{
    PresentationContextProposed, PresentationContextResult, PresentationContextResultReason,
    RequestorRoles, UserVariableItem,
};
use gantry_store::dicom::{SopClassUid, TransferSyntax};

use super::{IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME};

/// What an accepted presentation context is for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PresentationContext {
    /// The kind of object or service.
    pub abstract_syntax: SopClassUid,
    /// The encoding.
    pub transfer_syntax: TransferSyntax,
}

/// What a peer may ask for, beside verification and storage commitment.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Services {
    /// To be told what is here (C-FIND).
    pub query: bool,
    /// To be sent it (C-MOVE, C-GET).
    pub retrieve: bool,
}

/// An information model of the query/retrieve service (PS3.4 C.6), and what is asked by it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Model {
    /// Whether queries begin at patients; else at studies.
    pub patient_root: bool,
    /// What is asked.
    pub operation: Operation,
}

/// What is asked by an information model.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Operation {
    /// C-FIND.
    Find,
    /// C-MOVE.
    Move,
    /// C-GET.
    Get,
}

impl Model {
    /// The model that an abstract syntax names.
    pub fn of(abstract_syntax: &str) -> Option<Self> {
        use Operation::{Find, Get, Move};
        let (patient_root, operation) = match abstract_syntax {
            uids::PATIENT_ROOT_QUERY_RETRIEVE_INFORMATION_MODEL_FIND => (true, Find),
            uids::PATIENT_ROOT_QUERY_RETRIEVE_INFORMATION_MODEL_MOVE => (true, Move),
            uids::PATIENT_ROOT_QUERY_RETRIEVE_INFORMATION_MODEL_GET => (true, Get),
            uids::STUDY_ROOT_QUERY_RETRIEVE_INFORMATION_MODEL_FIND => (false, Find),
            uids::STUDY_ROOT_QUERY_RETRIEVE_INFORMATION_MODEL_MOVE => (false, Move),
            uids::STUDY_ROOT_QUERY_RETRIEVE_INFORMATION_MODEL_GET => (false, Get),
            _ => return None,
        };
        Some(Self { patient_root, operation })
    }
}

/// The most roles that are answered: twice as many as there can be presentation contexts.
const MOST_ROLES: usize = 256;

/// The accepted presentation contexts of an association, by their odd number.
pub type Contexts = BTreeMap<u8, PresentationContext>;

/// Transfer syntaxes in which nothing can be kept: their pixel data is elsewhere or is a live stream, or they encode
/// something other than a data set.
const NOT_KEPT: &[&str] = &[
    uids::JPIP_REFERENCED,
    uids::JPIP_REFERENCED_DEFLATE,
    uids::JPIPHTJ2K_REFERENCED,
    uids::JPIPHTJ2K_REFERENCED_DEFLATE,
    uids::SMPTEST211020_UNCOMPRESSED_PROGRESSIVE_ACTIVE_VIDEO,
    uids::SMPTEST211020_UNCOMPRESSED_INTERLACED_ACTIVE_VIDEO,
    uids::SMPTEST211030PCM_DIGITAL_AUDIO,
];

/// Whether an abstract syntax names a kind of object that a C-STORE can carry: every storage SOP class of the dictionary,
/// and every private one (outside the root of DICOM), as devices send such objects along with a study.
pub fn is_storage(abstract_syntax: &str) -> bool {
    match StandardSopClassDictionary.by_uid(abstract_syntax) {
        Some(entry) => {
            entry.r#type == UidType::SopClass
                && entry.name.contains("Storage")
                && !entry.name.starts_with("Storage ")
                && !entry.name.starts_with("Media Storage")
        }
        None => !abstract_syntax.starts_with("1.2.840.10008."),
    }
}

/// Which roles a requestor has in a service (PS3.7 D.3.3.4): what it proposed, as both are served here for the one service
/// that is asked about; without a proposal it uses the service, and this node provides it.
pub fn roles_in(items: &[UserVariableItem], sop_class: &str) -> (RequestorRoles, bool) {
    let proposed = items.iter().find_map(|item| match item {
        UserVariableItem::ScuScpRoleSelectionSubItem(uid, roles)
            if uid.trim_end_matches(['\0', ' ']) == sop_class =>
        {
            Some(*roles)
        }
        _ => None,
    });
    (proposed.unwrap_or(RequestorRoles { scu: true, scp: false }), proposed.is_some())
}

/// The storage SOP classes for which a requestor that retrieves by C-GET is the provider, as it has to be for them (PS3.4
/// C.5.3), with what it is answered: that it is that, and that it may be their user too.
pub fn storage_roles(items: &[UserVariableItem]) -> Vec<(SopClassUid, UserVariableItem)> {
    let each = items.iter().filter_map(|item| match item {
        UserVariableItem::ScuScpRoleSelectionSubItem(uid, roles) if roles.scp => {
            let uid = uid.trim_end_matches(['\0', ' ']);
            let class = uid.parse().ok().filter(|_| is_storage(uid))?;
            Some((class, roles_item(uid, *roles)))
        }
        _ => None,
    });
    // More than any device knows; the answer has to be of a bounded length.
    each.take(MOST_ROLES).collect()
}

/// The item that proposes or answers roles.
pub fn roles_item(sop_class: &str, roles: RequestorRoles) -> UserVariableItem {
    UserVariableItem::ScuScpRoleSelectionSubItem(sop_class.to_owned(), roles)
}

/// The answer to each proposed context, and the accepted ones.
///
/// Of the proposed encodings the first that can be kept is taken: it is the one that the sender would rather not convert.
pub fn answer(
    proposed: &[PresentationContextProposed],
    services: Services,
) -> (Vec<PresentationContextResult>, Contexts) {
    let mut contexts = Contexts::new();
    let mut results = Vec::with_capacity(proposed.len());
    for context in proposed {
        let chosen = choose(context, services);
        let (reason, transfer_syntax) = match chosen {
            // A number that is even or was used before is a fault of the requestor (PS3.8 9.3.2.2).
            Ok(_) if context.id % 2 == 0 || contexts.contains_key(&context.id) => {
                (PresentationContextResultReason::NoReason, None)
            }
            Ok(accepted) => {
                let transfer_syntax = accepted.transfer_syntax.uid().to_owned();
                contexts.insert(context.id, accepted);
                (PresentationContextResultReason::Acceptance, Some(transfer_syntax))
            }
            Err(reason) => (reason, None),
        };
        results.push(PresentationContextResult {
            id: context.id,
            reason,
            // Not significant in a rejection, and still has to be a UID.
            transfer_syntax: transfer_syntax
                .unwrap_or_else(|| uids::IMPLICIT_VR_LITTLE_ENDIAN.to_owned()),
        });
    }
    (results, contexts)
}

fn choose(
    context: &PresentationContextProposed,
    services: Services,
) -> Result<PresentationContext, PresentationContextResultReason> {
    let abstract_syntax = context.abstract_syntax.trim_end_matches(['\0', ' ']);
    let verification = abstract_syntax == uids::VERIFICATION;
    let commitment = abstract_syntax == uids::STORAGE_COMMITMENT_PUSH_MODEL;
    let model = Model::of(abstract_syntax);
    if let Some(Model { operation, .. }) = model {
        let allowed = if operation == Operation::Find { services.query } else { services.retrieve };
        if !allowed {
            return Err(PresentationContextResultReason::UserRejection);
        }
    } else if !verification && !commitment && !is_storage(abstract_syntax) {
        return Err(PresentationContextResultReason::AbstractSyntaxNotSupported);
    }
    let sop_class = abstract_syntax
        .parse()
        .map_err(|_| PresentationContextResultReason::AbstractSyntaxNotSupported)?;
    context
        .transfer_syntaxes
        .iter()
        .filter_map(|uid| uid.trim_end_matches(['\0', ' ']).parse::<TransferSyntax>().ok())
        .find(|syntax| {
            if commitment || model.is_some() {
                [uids::IMPLICIT_VR_LITTLE_ENDIAN, uids::EXPLICIT_VR_LITTLE_ENDIAN]
                    .contains(&syntax.uid())
            } else if verification {
                syntax.is_native()
            } else {
                !NOT_KEPT.contains(&syntax.uid())
            }
        })
        .map(|transfer_syntax| PresentationContext { abstract_syntax: sop_class, transfer_syntax })
        .ok_or(PresentationContextResultReason::TransferSyntaxesNotSupported)
}

/// What both roles say of themselves (PS3.7 D.3.3).
pub fn user_information(max_pdu: u32) -> Vec<UserVariableItem> {
    vec![
        UserVariableItem::MaxLength(max_pdu),
        UserVariableItem::ImplementationClassUID(IMPLEMENTATION_CLASS_UID.to_owned()),
        UserVariableItem::ImplementationVersionName(IMPLEMENTATION_VERSION_NAME.to_owned()),
    ]
}

/// The Maximum Length that the peer announced; 0 (no limit) where it said nothing.
pub fn announced_max_pdu(items: &[UserVariableItem]) -> u32 {
    items
        .iter()
        .find_map(
            |item| {
                if let UserVariableItem::MaxLength(length) = item { Some(*length) } else { None }
            },
        )
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proposed(
        id: u8,
        abstract_syntax: &str,
        transfer_syntaxes: &[&str],
    ) -> PresentationContextProposed {
        PresentationContextProposed {
            id,
            abstract_syntax: abstract_syntax.into(),
            transfer_syntaxes: transfer_syntaxes.iter().map(|uid| (*uid).to_owned()).collect(),
        }
    }

    #[test]
    fn every_kind_of_object_is_kept_and_no_service_is_mistaken_for_one() {
        for uid in [
            uids::CT_IMAGE_STORAGE,
            uids::ENHANCED_MR_IMAGE_STORAGE,
            uids::BASIC_TEXT_SR_STORAGE,
            uids::ENCAPSULATED_PDF_STORAGE,
            uids::RT_DOSE_STORAGE,
            uids::TWELVE_LEAD_ECG_WAVEFORM_STORAGE,
            uids::VIDEO_ENDOSCOPIC_IMAGE_STORAGE,
            "1.3.12.2.1107.5.9.1",
        ] {
            assert!(is_storage(uid), "{uid}");
        }
        for uid in [
            uids::VERIFICATION,
            uids::STORAGE_COMMITMENT_PUSH_MODEL,
            uids::STUDY_ROOT_QUERY_RETRIEVE_INFORMATION_MODEL_FIND,
            uids::MODALITY_WORKLIST_INFORMATION_MODEL_FIND,
            "1.2.840.10008.99.1",
        ] {
            assert!(!is_storage(uid), "{uid}");
        }
    }

    #[test]
    fn storage_commitment_is_served_in_the_role_that_was_proposed() {
        let commitment = uids::STORAGE_COMMITMENT_PUSH_MODEL;
        let syntaxes = ["1.2.840.10008.1.2.2", uids::EXPLICIT_VR_LITTLE_ENDIAN];
        let (_, contexts) = answer(&[proposed(1, commitment, &syntaxes)], Services::default());
        assert_eq!(contexts[&1].transfer_syntax.uid(), uids::EXPLICIT_VR_LITTLE_ENDIAN);

        let scp = RequestorRoles { scu: false, scp: true };
        let other = roles_item(uids::CT_IMAGE_STORAGE, scp);
        assert_eq!(roles_in(&[other, roles_item(commitment, scp)], commitment), (scp, true));
        assert_eq!(roles_in(&[], commitment), (RequestorRoles { scu: true, scp: false }, false));
    }

    #[test]
    fn the_senders_first_encoding_is_taken_known_or_not() {
        let proposals = [
            proposed(
                1,
                uids::CT_IMAGE_STORAGE,
                &[uids::JPEG2000_LOSSLESS, uids::EXPLICIT_VR_LITTLE_ENDIAN],
            ),
            proposed(3, uids::CT_IMAGE_STORAGE, &["1.3.46.670589.33.1.4.1"]),
            proposed(
                5,
                uids::VERIFICATION,
                &[uids::JPEG2000_LOSSLESS, uids::IMPLICIT_VR_LITTLE_ENDIAN],
            ),
            proposed(7, uids::CT_IMAGE_STORAGE, &[uids::JPIP_REFERENCED]),
            proposed(
                9,
                uids::PATIENT_ROOT_QUERY_RETRIEVE_INFORMATION_MODEL_FIND,
                &[uids::IMPLICIT_VR_LITTLE_ENDIAN],
            ),
            proposed(1, uids::MR_IMAGE_STORAGE, &[uids::IMPLICIT_VR_LITTLE_ENDIAN]),
            proposed(2, uids::MR_IMAGE_STORAGE, &[uids::IMPLICIT_VR_LITTLE_ENDIAN]),
        ];
        let (results, contexts) = answer(&proposals, Services::default());

        let reasons: Vec<_> = results.iter().map(|result| result.reason.clone() as u8).collect();
        assert_eq!(reasons, [0, 0, 0, 4, 1, 2, 2]);
        let chosen: Vec<_> =
            contexts.values().map(|context| context.transfer_syntax.uid()).collect();
        assert_eq!(
            chosen,
            [uids::JPEG2000_LOSSLESS, "1.3.46.670589.33.1.4.1", uids::IMPLICIT_VR_LITTLE_ENDIAN]
        );
    }

    #[test]
    fn who_may_query_need_not_be_one_who_may_retrieve() {
        let native = [uids::EXPLICIT_VR_LITTLE_ENDIAN];
        let proposals = [
            proposed(1, uids::STUDY_ROOT_QUERY_RETRIEVE_INFORMATION_MODEL_FIND, &native),
            proposed(3, uids::PATIENT_ROOT_QUERY_RETRIEVE_INFORMATION_MODEL_MOVE, &native),
            proposed(5, uids::STUDY_ROOT_QUERY_RETRIEVE_INFORMATION_MODEL_GET, &native),
            // Worklists and the like are not answered for anybody.
            proposed(7, uids::MODALITY_WORKLIST_INFORMATION_MODEL_FIND, &native),
        ];
        let accepted = |query, retrieve| {
            let (_, contexts) = answer(&proposals, Services { query, retrieve });
            contexts.into_keys().collect::<Vec<_>>()
        };
        assert!(accepted(false, false).is_empty());
        assert_eq!(accepted(true, false), [1]);
        assert_eq!(accepted(false, true), [3, 5]);
        assert_eq!(accepted(true, true), [1, 3, 5]);
    }

    #[test]
    fn a_requestor_that_gets_is_the_provider_of_what_it_is_sent() {
        let roles = |scu, scp| RequestorRoles { scu, scp };
        let items = [
            roles_item(uids::CT_IMAGE_STORAGE, roles(false, true)),
            roles_item(uids::MR_IMAGE_STORAGE, roles(true, false)),
            roles_item(uids::STORAGE_COMMITMENT_PUSH_MODEL, roles(true, true)),
            roles_item("no UID", roles(false, true)),
        ];
        let answered = storage_roles(&items);
        assert_eq!(answered.len(), 1);
        assert_eq!(answered[0].0.as_str(), uids::CT_IMAGE_STORAGE);
        assert_eq!(answered[0].1, roles_item(uids::CT_IMAGE_STORAGE, roles(false, true)));
    }
}
