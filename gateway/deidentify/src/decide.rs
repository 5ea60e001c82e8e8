//! What is to be done with one attribute in one place, and who says so: structure, rules, options, the Basic Profile, value
//! representations that tell who somebody is, private attributes, what nobody knows. The first that has something to say
//! decides.
//!
//! Knows no values: the decision on an attribute does not depend on what is in it.

use std::fmt;

use dicom_core::dictionary::DataDictionary;
use dicom_core::{Tag, VR};
use dicom_dictionary_std::{StandardDataDictionary, tags};

use crate::profile::{Place, Profile, RuleAction, UidScope};
use crate::table::{self, Code, KnownClass, Options, ProfileOption, Type, resolve};

/// Who decides.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Origin {
    /// What makes the object what it is.
    Structure,
    /// The n-th rule of the profile, from 0.
    Rule(usize),
    /// An option of the standard.
    Option(ProfileOption),
    /// The Basic Profile's column.
    Basic,
    /// The value representation, as Table E.1-1 does not list the attribute.
    Representation,
    /// The standard does not list it, so it tells nothing.
    Unlisted,
    /// A private attribute that is known to be safe.
    SafePrivate,
    /// A private attribute.
    Private,
    /// No dictionary knows it.
    Unknown,
    /// An overlay or curve, which goes as a whole.
    Overlay,
    /// Its value is none of its value representation.
    Invalid,
    /// Gantry's own addition to the table: see [`addition`].
    Addition,
    /// It is kept as such, and repeats what was removed elsewhere in the object.
    Repeated,
    /// A content item, by concept and value type (PS3.15 Table E.3.4-1).
    Concept,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Structure => f.write_str("structure"),
            Self::Rule(at) => write!(f, "rule {}", at + 1),
            Self::Option(option) => write!(f, "option {}", option.as_str()),
            Self::Basic => f.write_str("basic profile"),
            Self::Representation => f.write_str("value representation"),
            Self::Unlisted => f.write_str("not listed"),
            Self::SafePrivate => f.write_str("safe private"),
            Self::Private => f.write_str("private"),
            Self::Unknown => f.write_str("unknown attribute"),
            Self::Overlay => f.write_str("overlay or curve"),
            Self::Invalid => f.write_str("invalid value"),
            Self::Addition => f.write_str("addition to the table"),
            Self::Repeated => f.write_str("repeats what was removed"),
            Self::Concept => f.write_str("SR concept"),
        }
    }
}

/// What is to be done.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Action {
    /// As a code says; never a conditional one.
    Code(Code),
    /// As a rule says.
    Rule(RuleAction),
}

/// A decision on one attribute in one place.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Decision {
    /// Who decides.
    pub origin: Origin,
    /// The code that was found, which may be a conditional one.
    pub code: Code,
    /// How much the object needs the attribute, if that is known.
    pub needed: Option<Type>,
    /// What it comes to.
    pub action: Action,
}

impl Decision {
    pub(crate) fn new(origin: Origin, code: Code, needed: Option<Type>) -> Self {
        Self { origin, code, needed, action: Action::Code(resolve(code, needed)) }
    }
}

/// Attributes that no rule may touch: without them an object is another one, or none.
pub const STRUCTURE: [Tag; 6] = [
    tags::SPECIFIC_CHARACTER_SET,
    tags::SOP_CLASS_UID,
    tags::SOP_INSTANCE_UID,
    tags::STUDY_INSTANCE_UID,
    tags::SERIES_INSTANCE_UID,
    tags::MODALITY,
];

/// Decides for objects of one class.
#[derive(Clone, Debug)]
pub struct Decider<'a> {
    profile: &'a Profile,
    class: Option<KnownClass>,
    /// Which rules hold for this object.
    holding: &'a [bool],
}

impl<'a> Decider<'a> {
    /// For objects of this class, where these rules hold.
    pub fn new(profile: &'a Profile, sop_class: &str, holding: &'a [bool]) -> Self {
        Self { profile, class: KnownClass::of(sop_class), holding }
    }

    /// How much the object needs an attribute in this place; `None` at the top level of a class that is not known.
    pub fn needed(&self, place: Place<'_>) -> Option<Type> {
        match place.path.last() {
            Some(sequence) => Some(table::type_in_sequence(*sequence, place.tag)),
            None => self.class.map(|class| class.type_of(place.tag)),
        }
    }

    /// Whether the n-th rule holds for this object.
    pub fn holds(&self, rule: usize) -> bool {
        self.holding.get(rule).copied().unwrap_or(false)
    }

    /// What a rule says, if one has something to say.
    pub fn rule(&self, place: Place<'_>) -> Option<Decision> {
        if STRUCTURE.contains(&place.tag) {
            return None;
        }
        let (at, rule) = self.profile.rule_for(self.holding, place)?;
        let needed = self.needed(place);
        let (code, action) = match &rule.action {
            RuleAction::Code(code) => (*code, Action::Code(resolve(*code, needed))),
            other => (Code::C, Action::Rule(other.clone())),
        };
        Some(Decision { origin: Origin::Rule(at), code, needed, action })
    }

    /// What is to be done with a standard attribute; its VR is the dictionary's.
    pub fn decide(&self, place: Place<'_>) -> Decision {
        let tag = place.tag;
        if tag.element() == 0
            || tag.group() <= 0x0004
            || matches!(tag, Tag(0x0008, 0x0001) | Tag(0xFFFC, 0xFFFC))
        {
            return Decision::new(Origin::Structure, Code::X, Some(Type::Three));
        }
        if is_overlay(tag) {
            return Decision::new(Origin::Overlay, Code::X, Some(Type::Three));
        }
        if let Some(decision) = self.rule(place) {
            return decision;
        }
        let needed = self.needed(place);
        let options = self.profile.options;
        if let Some(row) = table::row(tag) {
            let (code, option) = row.actions.under(options);
            return Decision::new(option.map_or(Origin::Basic, Origin::Option), code, needed);
        }
        if StandardDataDictionary.by_tag(tag).is_none() {
            return Decision::new(Origin::Unknown, Code::X, Some(Type::Three));
        }
        if let Some((code, option)) = addition(tag) {
            let on = option.filter(|(option, _)| options.has(*option));
            return Decision::new(Origin::Addition, on.map_or(code, |(_, code)| code), needed);
        }
        match by_representation(place.vr, tag, options, self.profile.uids) {
            // Types of what the table does not list are not known here, so it keeps its place with a dummy.
            Some(code) => Decision::new(Origin::Representation, code, None),
            None if STRUCTURE.contains(&tag) => Decision::new(Origin::Structure, Code::K, needed),
            None => Decision::new(Origin::Unlisted, Code::K, needed),
        }
    }
}

/// What a VR asks for that always tells who, when or which; `None` for all others.
fn by_representation(vr: VR, tag: Tag, options: Options, uids: UidScope) -> Option<Code> {
    match vr {
        VR::UI if table::is_kind_uid(tag) => Some(Code::K),
        VR::UI if options.has(ProfileOption::RetainUids) || uids == UidScope::Table => {
            Some(Code::K)
        }
        VR::UI => Some(Code::U),
        VR::DA | VR::TM | VR::DT if options.has(ProfileOption::RetainLongFullDates) => {
            Some(Code::K)
        }
        VR::DA | VR::TM | VR::DT if options.has(ProfileOption::RetainLongModifiedDates) => {
            Some(Code::C)
        }
        VR::PN | VR::AE | VR::DA | VR::TM | VR::DT => Some(Code::XZD),
        _ => None,
    }
}

/// What Table E.1-1 leaves out and what tells who somebody is all the same: its code, and an option under which another
/// one holds. Each is of the kind of a row that the table has.
fn addition(tag: Tag) -> Option<(Code, Option<(ProfileOption, Code)>)> {
    use ProfileOption::{CleanDescriptors, RetainDeviceIdentity, RetainInstitutionIdentity};
    Some(match tag {
        // Who assigned an identifier, mostly the hospital (PS3.3 10.14); like Issuer of Patient ID.
        tags::LOCAL_NAMESPACE_ENTITY_ID | tags::UNIVERSAL_ENTITY_ID => {
            (Code::D, Some((RetainInstitutionIdentity, Code::K)))
        }
        // The value of a content item outside of the sequences that are walked as content.
        tags::TEXT_VALUE => (Code::D, Some((CleanDescriptors, Code::C))),
        // Dates of birth and death, as text.
        tags::PATIENT_BIRTH_DATE_IN_ALTERNATIVE_CALENDAR
        | tags::PATIENT_DEATH_DATE_IN_ALTERNATIVE_CALENDAR
        // Where the object, or who knows of it, is on a network of the hospital's; such URIs hold UIDs as received.
        | tags::RETRIEVE_URL
        | tags::RETRIEVE_URI
        | tags::STORED_INSTANCE_BASE_URI
        | tags::FOLDER_ACCESS_URI
        | tags::FILE_ACCESS_URI
        | tags::STORAGE_URL
        | tags::PIXEL_DATA_PROVIDER_URL
        | tags::CONTACT_URI
        | tags::CONTACT_DISPLAY_NAME
        | tags::NTP_SOURCE_ADDRESS
        // Orders and documents by number; their successors are in the table.
        | Tag(0x0040, 0x1006 | 0x1007 | 0x2006 | 0x2007)
        | Tag(0x4008, 0x0103)
        | tags::HL7_INSTANCE_IDENTIFIER
        | tags::OWNER_ID
        | tags::COMMENTS_ON_THE_SCHEDULED_PROCEDURE_STEP
        // Travellers and their luggage.
        | tags::BOARDING_PASS_ID
        | tags::ITINERARY_ID
        // Variable Pixel Data and its like, retired: images that nobody looks at.
        | Tag(0x7F00..=0x7FDF | 0x7FE1..=0x7FFF, _)
        // What somebody sealed earlier: who can open it would link this object with that one.
        | tags::ENCRYPTED_ATTRIBUTES_SEQUENCE => (Code::X, None),
        tags::DEVICE_ID | tags::RADIATION_MACHINE_NAME => {
            (Code::XZD, Some((RetainDeviceIdentity, Code::K)))
        }
        _ => return None,
    })
}

/// Overlays (60xx) and curves (50xx): half of a group is no valid module, so they go whole. The standard has 16 groups of
/// each (PS3.5 7.6), devices have more.
pub fn is_overlay(tag: Tag) -> bool {
    matches!(tag.group(), 0x5000..=0x50FF | 0x6000..=0x60FF) && tag.group().is_multiple_of(2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data_set::dictionary_vr;
    use crate::profile::shipped;

    const CT: &str = "1.2.840.10008.5.1.4.1.1.2";

    fn decided(profile: &str, class: &str, path: &[Tag], tag: Tag) -> (Origin, Action) {
        let profile = shipped(profile).unwrap();
        let place = Place { path, tag, vr: dictionary_vr(tag), creator: None };
        let decision = Decider::new(&profile, class, &[]).decide(place);
        (decision.origin, decision.action)
    }

    #[test]
    fn every_row_under_every_option_gets_what_the_table_says_at_every_type() {
        let text = "schema = 1\nname = \"x\"\nedition = \"2026d\"\noptions = [";
        let mut looked_at = 0;
        for option in ProfileOption::all().map(Some).chain([None]) {
            let quoted = option.map_or(String::new(), |option| format!("\"{}\"", option.as_str()));
            let profile = crate::profile::read(&format!("{text}{quoted}]")).profile.unwrap();
            for (tag, row) in table::rows() {
                let cell = option.and_then(|option| {
                    let (code, by) = row.actions.under([option].into_iter().collect());
                    by.map(|_| code)
                });
                let code = cell.unwrap_or(row.actions.basic);
                let structural = tag.element() == 0 || tag.group() <= 4;
                let classes = table::known_classes().chain(["1.2.3"]);
                for class in classes {
                    let place = Place { path: &[], tag, vr: dictionary_vr(tag), creator: None };
                    let decision = Decider::new(&profile, class, &[]).decide(place);
                    let needed = KnownClass::of(class).map(|class| class.type_of(tag));
                    let expected =
                        if structural || is_overlay(tag) { Code::X } else { resolve(code, needed) };
                    assert_eq!(decision.action, Action::Code(expected), "{tag} {class} {option:?}");
                    looked_at += 1;
                }
            }
        }
        assert_eq!(looked_at, 12 * 180 * 653);
    }

    #[test]
    fn what_the_table_does_not_list_goes_by_its_representation() {
        let basic = |tag| decided("basic", CT, &[], tag);
        let representation = |code| (Origin::Representation, Action::Code(code));
        assert_eq!(basic(tags::SECONDARY_REVIEWER_NAME), representation(Code::D));
        assert_eq!(basic(tags::SECONDARY_REVIEW_DATE), representation(Code::D));
        assert_eq!(basic(tags::VOLUME_FRAME_OF_REFERENCE_UID), representation(Code::U));
        assert_eq!(basic(tags::REFERENCED_SOP_CLASS_UID), representation(Code::K));
        assert_eq!(basic(tags::ROWS), (Origin::Unlisted, Action::Code(Code::K)));
        assert_eq!(basic(Tag(0x0018, 0xFFF0)), (Origin::Unknown, Action::Code(Code::X)));
        assert_eq!(basic(Tag(0x6002, 0x0022)), (Origin::Overlay, Action::Code(Code::X)));
        assert_eq!(basic(Tag(0x60A0, 0x4000)), (Origin::Overlay, Action::Code(Code::X)));
        for tag in [
            tags::PATIENT_BIRTH_DATE_IN_ALTERNATIVE_CALENDAR,
            tags::ENCRYPTED_ATTRIBUTES_SEQUENCE,
            tags::RETRIEVE_URL,
            Tag(0x7F00, 0x0010),
        ] {
            assert_eq!(basic(tag), (Origin::Addition, Action::Code(Code::X)), "{tag}");
        }
        let moved = decided("research", CT, &[], tags::SECONDARY_REVIEW_DATE);
        assert_eq!(moved, representation(Code::C));
    }

    #[test]
    fn a_place_inside_a_sequence_has_its_own_type() {
        let inside = decided("basic", CT, &[Tag(0x3006, 0x004C)], tags::SERIES_DATE);
        assert_eq!(inside, (Origin::Basic, Action::Code(Code::D)));
        assert_eq!(
            decided("basic", CT, &[], tags::SERIES_DATE),
            (Origin::Basic, Action::Code(Code::X))
        );
    }
}
