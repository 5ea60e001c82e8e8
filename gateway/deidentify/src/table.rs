//! The tables of the standard: what to do with which attribute (PS3.15 2026d, Tables E.1-1, E.3.4-1, E.3.10-1), and how
//! much an object needs it (Types, PS3.3).
//!
//! They are data files of this crate, read once. A test counts and digests them, so that an edit shows. Nothing here
//! decides: that is for `decide`, which asks rules before tables.

use std::collections::HashMap;
use std::sync::LazyLock;

use dicom_core::{Tag, VR};

/// The edition of PS3.15 whose tables these are.
pub const EDITION: &str = "2026d";

static E1_1: &str = include_str!("../data/e1-1.tsv");
static TYPES_BY_CLASS: &str = include_str!("../data/types-by-class.txt");
static TYPES_IN_SEQUENCE: &str = include_str!("../data/types-in-sequence.tsv");
static SAFE_PRIVATE: &str = include_str!("../data/safe-private.tsv");
static SR_CONCEPTS: &str = include_str!("../data/sr-concepts.tsv");
static OUTSIDE_E1_1: &str = include_str!("../data/outside-e1-1.tsv");

/// An action code as the table has it (PS3.15 Table E.1-1a), simple or conditional.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Code {
    /// Remove.
    X,
    /// Replace by an empty value, or by a dummy.
    Z,
    /// Replace by a dummy value.
    D,
    /// Keep; in a sequence the profile applies to every item.
    K,
    /// Clean.
    C,
    /// Replace by a UID that is the same everywhere.
    U,
    /// Z, unless D is needed.
    ZD,
    /// X, unless Z is needed.
    XZ,
    /// X, unless D is needed.
    XD,
    /// X, unless Z or D is needed.
    XZD,
    /// X, unless Z, or replacing the UIDs inside, is needed.
    XZU,
}

impl Code {
    const ALL: [(&'static str, Self); 11] = [
        ("X", Self::X),
        ("Z", Self::Z),
        ("D", Self::D),
        ("K", Self::K),
        ("C", Self::C),
        ("U", Self::U),
        ("Z/D", Self::ZD),
        ("X/Z", Self::XZ),
        ("X/D", Self::XD),
        ("X/Z/D", Self::XZD),
        ("X/Z/U*", Self::XZU),
    ];

    /// The code that the standard writes so.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().find(|(written, _)| *written == text).map(|(_, code)| *code)
    }

    /// As the standard writes it.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, code)| *code == self).map_or("", |(written, _)| written)
    }
}

/// How much an object needs an attribute (PS3.5 7.4); conditions are not evaluated, so 1C counts as 1 and 2C as 2.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Type {
    /// There, with a value.
    One,
    /// There, with or without a value.
    Two,
    /// There or not, or not defined in that place.
    Three,
}

impl Type {
    fn parse(text: &str) -> Self {
        match text {
            "1" | "1C" => Self::One,
            "2" | "2C" => Self::Two,
            _ => Self::Three,
        }
    }
}

/// An option of the profile (PS3.15 E.3). Those with a column in Table E.1-1 come first, in its order.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub enum ProfileOption {
    /// PS3.15 E.3.10.
    RetainSafePrivate,
    /// PS3.15 E.3.9.
    RetainUids,
    /// PS3.15 E.3.8.
    RetainDeviceIdentity,
    /// PS3.15 E.3.11.
    RetainInstitutionIdentity,
    /// PS3.15 E.3.7.
    RetainPatientCharacteristics,
    /// PS3.15 E.3.6, dates as they are.
    RetainLongFullDates,
    /// PS3.15 E.3.6, dates moved.
    RetainLongModifiedDates,
    /// PS3.15 E.3.5.
    CleanDescriptors,
    /// PS3.15 E.3.4.
    CleanStructuredContent,
    /// PS3.15 E.3.3.
    CleanGraphics,
    /// PS3.15 E.3.1; it acts on pixels and has no column.
    CleanPixelData,
}

/// An option, how it is written in a profile, and its code and meaning in CID 7050.
type OptionRow = (ProfileOption, &'static str, &'static str, &'static str);

impl ProfileOption {
    const ROWS: [OptionRow; 11] = [
        (Self::RetainSafePrivate, "retain_safe_private", "113111", "Retain Safe Private Option"),
        (Self::RetainUids, "retain_uids", "113110", "Retain UIDs Option"),
        (
            Self::RetainDeviceIdentity,
            "retain_device_identity",
            "113109",
            "Retain Device Identity Option",
        ),
        (
            Self::RetainInstitutionIdentity,
            "retain_institution_identity",
            "113112",
            "Retain Institution Identity Option",
        ),
        (
            Self::RetainPatientCharacteristics,
            "retain_patient_characteristics",
            "113108",
            "Retain Patient Characteristics Option",
        ),
        (
            Self::RetainLongFullDates,
            "retain_long_full_dates",
            "113106",
            "Retain Longitudinal Temporal Information Full Dates Option",
        ),
        (
            Self::RetainLongModifiedDates,
            "retain_long_modified_dates",
            "113107",
            "Retain Longitudinal Temporal Information Modified Dates Option",
        ),
        (Self::CleanDescriptors, "clean_descriptors", "113105", "Clean Descriptors Option"),
        (
            Self::CleanStructuredContent,
            "clean_structured_content",
            "113104",
            "Clean Structured Content Option",
        ),
        (Self::CleanGraphics, "clean_graphics", "113103", "Clean Graphics Option"),
        (Self::CleanPixelData, "clean_pixel_data", "113101", "Clean Pixel Data Option"),
    ];

    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> + Clone {
        Self::ROWS.iter().map(|row| row.0)
    }

    /// The option that a profile writes so.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ROWS.iter().find(|row| row.1 == text).map(|row| row.0)
    }

    fn row(self) -> &'static OptionRow {
        // Every variant has its row, in the order of the variants; a test looks at each.
        Self::ROWS.get(self as usize).unwrap_or(&Self::ROWS[0])
    }

    /// As a profile writes it.
    pub fn as_str(self) -> &'static str {
        self.row().1
    }

    /// Code Value (0008,0100), scheme DCM, of CID 7050.
    pub fn code(self) -> &'static str {
        self.row().2
    }

    /// Code Meaning (0008,0104) of CID 7050.
    pub fn meaning(self) -> &'static str {
        self.row().3
    }
}

/// CID 7050: the Basic Application Confidentiality Profile itself.
pub const BASIC_PROFILE: (&str, &str) = ("113100", "Basic Application Confidentiality Profile");

/// A set of options.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Options(u16);

impl Options {
    /// With this one on.
    #[must_use]
    pub fn with(self, option: ProfileOption) -> Self {
        Self(self.0 | 1 << option as u8)
    }

    /// Whether it is on.
    pub fn has(self, option: ProfileOption) -> bool {
        self.0 & 1 << option as u8 != 0
    }

    /// Those that are on.
    pub fn iter(self) -> impl Iterator<Item = ProfileOption> {
        ProfileOption::all().filter(move |option| self.has(*option))
    }
}

impl FromIterator<ProfileOption> for Options {
    fn from_iter<T: IntoIterator<Item = ProfileOption>>(options: T) -> Self {
        options.into_iter().fold(Self::default(), Self::with)
    }
}

/// Actions on an attribute or an SR concept: the Basic Profile's, and what options say instead.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Actions {
    /// The code of the Basic Profile.
    pub basic: Code,
    /// What options say instead, in the order of [`ProfileOption`].
    options: Vec<(ProfileOption, Code)>,
}

impl Actions {
    /// What holds under these options, and the option that says so. Where several have something to say the one that
    /// cleans wins over those that keep.
    pub fn under(&self, on: Options) -> (Code, Option<ProfileOption>) {
        let said = self.options.iter().filter(|(option, _)| on.has(*option));
        let strictest = said.max_by_key(|(_, code)| *code == Code::C);
        strictest.map_or((self.basic, None), |(option, code)| (*code, Some(*option)))
    }

    /// Whether this option has something to say.
    pub fn has(&self, option: ProfileOption) -> bool {
        self.options.iter().any(|(other, _)| *other == option)
    }

    fn parse(columns: &[&str], of: &[ProfileOption]) -> Option<Self> {
        let (basic, rest) = columns.split_first()?;
        let options = of
            .iter()
            .zip(rest)
            .filter_map(|(option, code)| Code::parse(code).map(|code| (*option, code)));
        Some(Self { basic: Code::parse(basic)?, options: options.collect() })
    }
}

/// A row of Table E.1-1.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Row {
    /// Keyword of PS3.6.
    pub keyword: &'static str,
    /// What to do.
    pub actions: Actions,
}

/// Table E.1-1: single attributes, and the rows that are patterns.
struct Table {
    rows: HashMap<Tag, Row>,
    /// 50xx,xxxx.
    curves: Row,
    /// 60xx,3000 and 60xx,4000, by element.
    overlays: Vec<(u16, Row)>,
    /// gggg,eeee.
    private: Row,
}

fn lines(text: &'static str) -> impl Iterator<Item = Vec<&'static str>> {
    text.lines().skip(1).map(|line| line.split('\t').collect())
}

fn hex(text: &str) -> Option<Tag> {
    let number = u32::from_str_radix(text, 16).ok()?;
    (text.len() == 8).then_some(Tag((number >> 16) as u16, number as u16))
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let removed = || Row { keyword: "", actions: Actions { basic: Code::X, options: Vec::new() } };
    let mut table =
        Table { rows: HashMap::new(), curves: removed(), overlays: Vec::new(), private: removed() };
    let options: Vec<_> = ProfileOption::all().take(10).collect();
    for columns in lines(E1_1) {
        let [tag, keyword, _vr, codes @ ..] = columns.as_slice() else { continue };
        let Some(actions) = Actions::parse(codes, &options) else { continue };
        let row = Row { keyword, actions };
        match (hex(tag), *tag) {
            (Some(tag), _) => {
                table.rows.insert(tag, row);
            }
            (None, "50xxxxxx") => table.curves = row,
            (None, "60xx3000") => table.overlays.push((0x3000, row)),
            (None, "60xx4000") => table.overlays.push((0x4000, row)),
            (None, _) => table.private = row,
        }
    }
    table
});

/// The row of Table E.1-1 for a standard attribute.
pub fn row(tag: Tag) -> Option<&'static Row> {
    let table = &*TABLE;
    match tag.group() {
        0x5000..=0x501E => Some(&table.curves),
        0x6000..=0x601E => {
            table.overlays.iter().find(|(element, _)| *element == tag.element()).map(|(_, row)| row)
        }
        _ => table.rows.get(&tag),
    }
}

/// The row of Table E.1-1 for private attributes.
pub fn private_row() -> &'static Row {
    &TABLE.private
}

/// All rows of single attributes, for tests and lists.
pub fn rows() -> impl Iterator<Item = (Tag, &'static Row)> {
    TABLE.rows.iter().map(|(tag, row)| (*tag, row))
}

/// Types of the attributes of Table E.1-1 at the top level, one column a SOP class.
struct Types {
    classes: HashMap<&'static str, usize>,
    by_tag: HashMap<Tag, &'static [u8]>,
    nested: HashMap<(Tag, Tag), Type>,
}

static TYPES: LazyLock<Types> = LazyLock::new(|| {
    let (classes, types) = TYPES_BY_CLASS.split_once("\n\n").unwrap_or_default();
    let by_tag = types.lines().filter_map(|line| {
        let (tag, types) = line.split_once(' ')?;
        Some((hex(tag)?, types.as_bytes()))
    });
    let nested = lines(TYPES_IN_SEQUENCE).filter_map(|columns| match columns.as_slice() {
        [sequence, tag, written] => Some(((hex(sequence)?, hex(tag)?), Type::parse(written))),
        _ => None,
    });
    Types {
        classes: classes.lines().enumerate().map(|(at, class)| (class, at)).collect(),
        by_tag: by_tag.collect(),
        nested: nested.collect(),
    }
});

/// A SOP class whose IOD is known here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct KnownClass(usize);

impl KnownClass {
    /// The class with this UID, if its Types are known.
    pub fn of(sop_class: &str) -> Option<Self> {
        TYPES.classes.get(sop_class).copied().map(Self)
    }

    /// The Type of an attribute of Table E.1-1 at the top level of its objects.
    pub fn type_of(self, tag: Tag) -> Type {
        let types = TYPES.by_tag.get(&tag).copied().unwrap_or_default();
        match types.get(self.0) {
            Some(b'1' | b'a') => Type::One,
            Some(b'2' | b'b') => Type::Two,
            _ => Type::Three,
        }
    }
}

/// The UIDs of all classes that are known.
pub fn known_classes() -> impl Iterator<Item = &'static str> {
    TYPES.classes.keys().copied()
}

/// The strictest Type that any IOD gives an attribute inside this sequence.
pub fn type_in_sequence(sequence: Tag, tag: Tag) -> Type {
    TYPES.nested.get(&(sequence, tag)).copied().unwrap_or(Type::Three)
}

/// What a conditional code means for an attribute of this Type; `None`: of an object that nobody knows, where the last
/// alternative keeps it valid. Where the code does not offer what is wanted the next one that keeps more stands.
///
/// A plain X or Z on an attribute that must have a value is D: the object has to stay valid (PS3.15 E.1.1).
pub fn resolve(code: Code, needed: Option<Type>) -> Code {
    use Type::{One, Three, Two};
    match (code, needed) {
        (Code::XD, Some(One | Two) | None)
        | (Code::ZD | Code::XZ | Code::XZD, Some(One) | None)
        | (Code::X | Code::Z, Some(One)) => Code::D,
        (Code::XZU, Some(One) | None) => Code::U,
        (Code::ZD, Some(_)) | (Code::XZ | Code::XZD | Code::XZU, Some(Two)) => Code::Z,
        (Code::XZ | Code::XD | Code::XZD | Code::XZU, Some(Three)) => Code::X,
        (plain, _) => plain,
    }
}

/// Group, low byte and creator of safe private attributes, with the VR where it is told.
type Safe = HashMap<(u16, u8, &'static str), Option<VR>>;

static SAFE: LazyLock<Safe> = LazyLock::new(|| {
    let rows = lines(SAFE_PRIVATE).filter_map(|columns| match columns.as_slice() {
        [group, element, creator, vr] => {
            let group = u16::from_str_radix(group, 16).ok()?;
            let element = u8::from_str_radix(element, 16).ok()?;
            Some(((group, element, *creator), vr.split('/').next()?.parse().ok()))
        }
        _ => None,
    });
    rows.collect()
});

/// Whether a private attribute is on the list of safe ones (PS3.15 Table E.3.10-1), and its VR where that is told.
pub fn safe_private(group: u16, creator: &str, element: u8) -> Option<Option<VR>> {
    let table: &HashMap<(u16, u8, &str), Option<VR>> = &SAFE;
    table.get(&(group, element, creator)).copied()
}

static CONCEPTS: LazyLock<HashMap<(&'static str, &'static str, &'static str), Actions>> =
    LazyLock::new(|| {
        use ProfileOption as O;
        let options = [
            O::RetainUids,
            O::RetainDeviceIdentity,
            O::RetainInstitutionIdentity,
            O::RetainPatientCharacteristics,
            O::RetainLongFullDates,
            O::RetainLongModifiedDates,
            O::CleanDescriptors,
        ];
        let rows = lines(SR_CONCEPTS).filter_map(|columns| match columns.as_slice() {
            [value, scheme, kind, codes @ ..] => {
                Some(((*scheme, *value, *kind), Actions::parse(codes, &options)?))
            }
            _ => None,
        });
        rows.collect()
    });

/// What to do under these options with a content item, by its concept and value type (PS3.15 Table E.3.4-1).
pub fn concept(
    (scheme, value): (&str, &str),
    value_type: &str,
    on: Options,
) -> Option<(Code, Option<ProfileOption>)> {
    let table: &HashMap<(&str, &str, &str), Actions> = &CONCEPTS;
    table.get(&(scheme, value, value_type)).map(|actions| actions.under(on))
}

static OUTSIDE: LazyLock<HashMap<Tag, bool>> = LazyLock::new(|| {
    let rows = lines(OUTSIDE_E1_1).filter_map(|columns| match columns.as_slice() {
        [tag, keyword, vr] => Some((hex(tag)?, *vr == "UI" && names_a_kind(keyword))),
        _ => None,
    });
    rows.collect()
});

/// Whether a UID names a kind of thing (a class, a transfer syntax, a scheme of codes) and
/// not a thing: such a UID is the same for everybody, and replacing it breaks the object.
fn names_a_kind(keyword: &str) -> bool {
    const KINDS: [&str; 7] = [
        "SOPClass",
        "TransferSyntax",
        "CodingScheme",
        "ContextUID",
        "ContextGroupExtensionCreatorUID",
        "MappingResource",
        "SegmentationTemplateUID",
    ];
    KINDS.iter().any(|kind| keyword.contains(kind))
}

/// Whether the UIDs of this attribute name kinds of things and stay.
pub fn is_kind_uid(tag: Tag) -> bool {
    OUTSIDE.get(&tag).copied().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use ring::digest::{SHA256, digest};

    use super::*;

    #[test]
    fn the_tables_are_those_of_the_edition() {
        let digested = |text: &str| {
            let digest = digest(&SHA256, text.as_bytes());
            digest
                .as_ref()
                .iter()
                .take(6)
                .fold(String::new(), |out, byte| format!("{out}{byte:02x}"))
        };
        let counted = [
            (lines(E1_1).count(), digested(E1_1)),
            (lines(SAFE_PRIVATE).count(), digested(SAFE_PRIVATE)),
            (lines(SR_CONCEPTS).count(), digested(SR_CONCEPTS)),
            (lines(OUTSIDE_E1_1).count(), digested(OUTSIDE_E1_1)),
            (lines(TYPES_IN_SEQUENCE).count(), digested(TYPES_IN_SEQUENCE)),
            (TYPES_BY_CLASS.lines().count(), digested(TYPES_BY_CLASS)),
        ];
        let expected = [
            (657, "354b05a87d2d"),
            (479, "704966b3cd06"),
            (214, "8c9fa2313e3b"),
            (57, "930d319d0e4b"),
            (188, "27c563cf54a4"),
            (179 + 1 + 253, "1626eaeddda3"),
        ];
        assert_eq!(counted, expected.map(|(count, digest)| (count, digest.to_owned())));

        assert_eq!(TABLE.rows.len(), 657 - 4);
        assert_eq!((TABLE.overlays.len(), TABLE.curves.keyword), (2, "CurveData"));
        assert_eq!(TABLE.private.actions.options.len(), 1);
        assert_eq!(TYPES.classes.len(), 179);
        let told = TYPES.by_tag.values().flat_map(|types| types.iter());
        // The 25 of 60xx,3000 are not asked for: overlays go as a whole.
        assert_eq!(told.filter(|letter| **letter != b'.').count(), 21_799 - 25);
        assert_eq!(SAFE.len(), 479);
        assert_eq!(CONCEPTS.len(), 214);
    }

    #[test]
    fn every_option_has_its_row() {
        for option in ProfileOption::all() {
            assert_eq!(option.row().0, option);
            assert_eq!(ProfileOption::parse(option.as_str()), Some(option));
        }
    }

    #[test]
    fn conditional_codes_follow_the_type_at_their_place() {
        use Code::{D, U, X, XD, XZ, XZD, XZU, Z, ZD};
        let rows = [
            (ZD, [D, Z, Z], D),
            (XZ, [D, Z, X], D),
            (XD, [D, D, X], D),
            (XZD, [D, Z, X], D),
            (XZU, [U, Z, X], U),
            (X, [D, X, X], X),
            (Z, [D, Z, Z], Z),
            (U, [U, U, U], U),
        ];
        for (code, [one, two, three], unknown) in rows {
            assert_eq!(resolve(code, Some(Type::One)), one, "{code:?}");
            assert_eq!(resolve(code, Some(Type::Two)), two, "{code:?}");
            assert_eq!(resolve(code, Some(Type::Three)), three, "{code:?}");
            assert_eq!(resolve(code, None), unknown, "{code:?}");
        }
        let class = |uid| KnownClass::of(uid).unwrap();
        let (ct, pet) = (class("1.2.840.10008.5.1.4.1.1.2"), class("1.2.840.10008.5.1.4.1.1.128"));
        let series_date = Tag(0x0008, 0x0021);
        assert_eq!((ct.type_of(series_date), pet.type_of(series_date)), (Type::Three, Type::One));
    }

    #[test]
    fn cleaning_wins_over_keeping() {
        use ProfileOption::{RetainDeviceIdentity, RetainLongFullDates, RetainLongModifiedDates};
        let calibration = row(Tag(0x0018, 0x1200)).unwrap();
        let under = |options: &[ProfileOption]| {
            calibration.actions.under(options.iter().copied().collect()).0
        };
        assert_eq!(under(&[]), calibration.actions.basic);
        assert_eq!(under(&[RetainDeviceIdentity]), Code::K);
        assert_eq!(under(&[RetainLongFullDates]), Code::K);
        assert_eq!(under(&[RetainDeviceIdentity, RetainLongModifiedDates]), Code::C);
    }

    #[test]
    fn uids_of_kinds_stay_and_uids_of_things_do_not() {
        assert!(is_kind_uid(Tag(0x0008, 0x1150)));
        assert!(is_kind_uid(Tag(0x0008, 0x0016)));
        assert!(!is_kind_uid(Tag(0x0008, 0x1167)));
        assert!(!is_kind_uid(Tag(0x0020, 0x0242)));
        assert!(!is_kind_uid(Tag(0x0008, 0x0018)));
    }
}
