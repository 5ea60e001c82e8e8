//! Where which device burns text in: masks, in libraries that people write (TOML).
//!
//! A mask says which images it is for, and what to black in them. The first that matches decides, and an image with a
//! [`super::risk::Risk`] and no match is set aside, never passed: so a mask that cannot do what it says (regions that do
//! not lie in the image, boxes that miss it) does not match. Knows nothing of pixels.
//!
//! ```toml
//! schema = 1
//!
//! [[mask]]
//! id = "sound-5-top"
//! when = { modality = "US", manufacturer = "Sample Sound*", rows = 480, columns = 640 }
//! boxes = [[0, 0, 640, 56]]            # x, y, width, height
//! verified-by = "medical physics"
//! verified-on = "2026-03-01"
//! ```

use std::collections::HashSet;
use std::fmt;

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use jiff::civil::Date;
use serde::Deserialize;
use thiserror::Error;

use super::blacken::{Area, union};
use crate::data_set::{DataSet, Value};

/// The most regions that are taken from one image; a device has a handful.
const MAX_REGIONS: usize = 256;

/// A library that cannot be used, and where it is wrong.
#[derive(Clone, Debug, Error, Eq, PartialEq)]
#[error("line {line}, column {column}: {message}")]
pub struct LibraryError {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// What is wrong there.
    pub message: String,
}

/// Masks in the order in which they are asked.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Library {
    /// The masks.
    pub masks: Vec<Mask>,
}

/// One mask. Deserializes from the table that a library, or a profile, holds.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "Written")]
pub struct Mask {
    /// Its name in reports.
    pub id: String,
    /// Which images it is for.
    pub when: When,
    /// What it does to them.
    pub action: MaskAction,
    /// Who looked at images of that device, if anybody says so.
    pub verified_by: Option<String>,
    /// When.
    pub verified_on: Option<Date>,
}

/// What to do to an image that matches.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum MaskAction {
    /// Black these.
    Boxes(Vec<Area>),
    /// Black everything outside the union of the Sequence of Ultrasound Regions (0018,6011).
    ExceptUltrasoundRegions,
    /// Black nothing: the device is known to burn nothing in. Does not match where Burned In Annotation says otherwise.
    Nothing {
        /// How that is known.
        reason: String,
    },
}

/// Conditions, all of which must hold; at least one.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct When {
    /// Manufacturer (0008,0070).
    #[serde(default)]
    pub manufacturer: Option<Pattern>,
    /// Manufacturer's Model Name (0008,1090).
    #[serde(default)]
    pub manufacturer_model_name: Option<Pattern>,
    /// Modality (0008,0060).
    #[serde(default)]
    pub modality: Option<Pattern>,
    /// SOP Class UID (0008,0016).
    #[serde(default)]
    pub sop_class_uid: Option<Pattern>,
    /// Rows (0028,0010).
    #[serde(default)]
    pub rows: Option<u16>,
    /// Columns (0028,0011).
    #[serde(default)]
    pub columns: Option<u16>,
    /// Image Type (0008,0008): one of its values, or all of them with backslashes.
    #[serde(default)]
    pub image_type: Option<Pattern>,
    /// Software Versions (0018,1020): as Image Type.
    #[serde(default)]
    pub software_versions: Option<Pattern>,
}

/// Text to compare with, `*` standing for any text; case and outer spaces do not count.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "String")]
pub struct Pattern(String);

impl TryFrom<String> for Pattern {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        let text = text.trim().to_lowercase();
        if text.trim_matches('*').is_empty() {
            return Err("a pattern needs a character beside `*`");
        }
        Ok(Self(text))
    }
}

impl Pattern {
    /// Whether this text is one that is meant.
    pub fn matches(&self, text: &str) -> bool {
        let text = text.trim_matches([' ', '\0']).to_lowercase();
        let Some((begin, rest)) = self.0.split_once('*') else { return text == self.0 };
        let Some(mut text) = text.strip_prefix(begin) else { return false };
        let mut parts: Vec<&str> = rest.split('*').collect();
        let end = parts.pop().unwrap_or_default();
        for part in parts {
            let Some(at) = text.find(part) else { return false };
            text = text.get(at + part.len()..).unwrap_or_default();
        }
        text.ends_with(end)
    }
}

/// As people write it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Written {
    id: String,
    when: When,
    boxes: Option<Vec<[u32; 4]>>,
    regions: Option<Regions>,
    nothing: Option<bool>,
    reason: Option<String>,
    verified_by: Option<String>,
    verified_on: Option<Date>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Regions {
    ExceptUltrasoundRegions,
}

impl TryFrom<Written> for Mask {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let Written { id, when, boxes, regions, nothing, reason, verified_by, verified_on } =
            written;
        if id.trim().is_empty() {
            return Err("`id` is blank".to_owned());
        }
        let wrong = |why: &str| Err(format!("mask {id:?} {why}"));
        if when == When::default() {
            return wrong("has no condition, and would be for all images");
        }
        let reason = reason.filter(|reason| !reason.trim().is_empty());
        let action = match (boxes, regions, nothing, reason) {
            (Some(boxes), None, None, _) => {
                if boxes.is_empty() {
                    return wrong("has no boxes");
                }
                let boxes: Vec<Area> = boxes
                    .into_iter()
                    .map(|[x, y, width, height]| Area { x, y, width, height })
                    .collect();
                // 65535 is the most that Rows and Columns can say.
                if boxes.iter().any(|area| area.within(u16::MAX, u16::MAX).is_none()) {
                    return wrong("has a box of no pixels, or outside of every image");
                }
                MaskAction::Boxes(boxes)
            }
            (None, Some(Regions::ExceptUltrasoundRegions), None, _) => {
                MaskAction::ExceptUltrasoundRegions
            }
            (None, None, Some(true), Some(reason)) => {
                if when.manufacturer.is_none() || when.manufacturer_model_name.is_none() {
                    return wrong(
                        "says `nothing = true` and must say of which device, with `manufacturer` and \
                         `manufacturer-model-name`",
                    );
                }
                MaskAction::Nothing { reason }
            }
            (None, None, Some(true), None) => {
                return wrong("says `nothing = true` and must give a `reason`");
            }
            (None, None, Some(false), _) => {
                return wrong("says `nothing = false`, which is no instruction");
            }
            _ => {
                return wrong("must have exactly one of `boxes`, `regions` and `nothing`");
            }
        };
        Ok(Self { id, when, action, verified_by, verified_on })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    schema: u32,
    #[serde(default)]
    mask: Vec<serde_spanned::Spanned<Mask>>,
}

/// A mask that matches an image, and what it says about this one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Match<'a> {
    /// Which one.
    pub mask: &'a Mask,
    /// What to black: boxes that lie in the image, at least one; empty only for [`MaskAction::Nothing`].
    pub boxes: Vec<Area>,
}

impl fmt::Display for Match<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Mask { id, action, verified_by, verified_on, .. } = self.mask;
        write!(f, "mask {id:?}: ")?;
        match action {
            MaskAction::Nothing { reason } => write!(f, "nothing burned in ({reason})")?,
            MaskAction::ExceptUltrasoundRegions => f.write_str("all but the ultrasound regions")?,
            MaskAction::Boxes(_) => write!(f, "{} boxes", self.boxes.len())?,
        }
        match (verified_by, verified_on) {
            (None, None) => f.write_str(", not verified"),
            (by, on) => {
                f.write_str(", verified")?;
                by.as_ref().map_or(Ok(()), |by| write!(f, " by {by}"))?;
                on.map_or(Ok(()), |on| write!(f, " on {on}"))
            }
        }
    }
}

impl Library {
    /// The masks that come with the program.
    pub fn built_in() -> Self {
        // A test reads it; were it damaged it would match nothing, and what is risky would be set aside.
        Self::parse(include_str!("../../data/masks.toml")).unwrap_or_default()
    }

    /// Reads a library.
    pub fn parse(text: &str) -> Result<Self, LibraryError> {
        let at = |offset: usize, message: String| {
            let before = text.get(..offset.min(text.len())).unwrap_or_default();
            let line = before.rsplit('\n').next().unwrap_or_default();
            let (line, column) = (before.matches('\n').count() + 1, line.chars().count() + 1);
            LibraryError { line, column, message }
        };
        let file: File = toml::from_str(text).map_err(|error| {
            at(error.span().map_or(0, |span| span.start), error.message().to_owned())
        })?;
        if file.schema != 1 {
            let message = "`schema` is not 1, the only one that is known".to_owned();
            return Err(at(text.find("schema").unwrap_or(0), message));
        }
        let mut ids = HashSet::new();
        for mask in &file.mask {
            if !ids.insert(mask.get_ref().id.as_str()) {
                let message = format!("mask {:?} is there twice", mask.get_ref().id);
                return Err(at(mask.span().start, message));
            }
        }
        Ok(Self { masks: file.mask.into_iter().map(serde_spanned::Spanned::into_inner).collect() })
    }

    /// These masks, and then those of another library.
    #[must_use]
    pub fn then(mut self, other: Self) -> Self {
        self.masks.extend(other.masks);
        self
    }

    /// The first mask that matches an image by its header.
    pub fn find(&self, data_set: &DataSet) -> Option<Match<'_>> {
        self.masks.iter().find_map(|mask| mask.matched(data_set))
    }
}

impl Mask {
    /// What it says about an image, if it matches.
    pub fn matched(&self, data_set: &DataSet) -> Option<Match<'_>> {
        let rows = data_set.unsigned_short(tags::ROWS)?;
        let columns = data_set.unsigned_short(tags::COLUMNS)?;
        if !self.when.holds(data_set, rows, columns) {
            return None;
        }
        let boxes = match &self.action {
            MaskAction::Boxes(boxes) => {
                let boxes: Vec<_> =
                    boxes.iter().filter_map(|area| area.within(rows, columns)).collect();
                (!boxes.is_empty()).then_some(boxes)?
            }
            MaskAction::ExceptUltrasoundRegions => outside_of_regions(data_set, rows, columns)?,
            MaskAction::Nothing { .. } => {
                let stated = data_set.text(tags::BURNED_IN_ANNOTATION).unwrap_or_default();
                matches!(stated.to_uppercase().as_str(), "" | "NO").then(Vec::new)?
            }
        };
        Some(Match { mask: self, boxes })
    }
}

impl When {
    fn holds(&self, data_set: &DataSet, rows: u16, columns: u16) -> bool {
        let texts = [
            (&self.manufacturer, tags::MANUFACTURER, false),
            (&self.manufacturer_model_name, tags::MANUFACTURER_MODEL_NAME, false),
            (&self.modality, tags::MODALITY, false),
            (&self.sop_class_uid, tags::SOP_CLASS_UID, false),
            (&self.image_type, tags::IMAGE_TYPE, true),
            (&self.software_versions, tags::SOFTWARE_VERSIONS, true),
        ];
        self.rows.is_none_or(|wanted| wanted == rows)
            && self.columns.is_none_or(|wanted| wanted == columns)
            && texts.into_iter().all(|(pattern, tag, several)| match pattern {
                None => true,
                Some(pattern) => has(data_set, tag, pattern, several),
            })
    }
}

fn has(data_set: &DataSet, tag: Tag, pattern: &Pattern, several: bool) -> bool {
    let Some(bytes) = data_set.bytes(tag) else { return false };
    let text = String::from_utf8_lossy(bytes);
    pattern.matches(&text) || several && text.split('\\').any(|value| pattern.matches(value))
}

/// Boxes that make up all of the image but its ultrasound regions; `None` if there are no regions, if one does not lie in
/// the image, or if nothing is left: then nobody can say that text is only where it would be blacked.
fn outside_of_regions(data_set: &DataSet, rows: u16, columns: u16) -> Option<Vec<Area>> {
    let (rows, columns) = (u64::from(rows), u64::from(columns));
    let items = data_set.items(tags::SEQUENCE_OF_ULTRASOUND_REGIONS);
    if items.is_empty() || items.len() > MAX_REGIONS {
        return None;
    }
    let mut regions = Vec::with_capacity(items.len());
    for item in items {
        let corner = |tag| match &item.get(tag)?.value {
            Value::Bytes(bytes) => {
                bytes.first_chunk().map(|bytes| u64::from(u32::from_le_bytes(*bytes)))
            }
            _ => None,
        };
        let (left, top) =
            (corner(tags::REGION_LOCATION_MIN_X0)?, corner(tags::REGION_LOCATION_MIN_Y0)?);
        // The corner at the right below is in the region (PS3.3 C.8.5.5.1.3).
        let (right, bottom) =
            (corner(tags::REGION_LOCATION_MAX_X1)?, corner(tags::REGION_LOCATION_MAX_Y1)?);
        if left > right || top > bottom || right >= columns || bottom >= rows {
            return None;
        }
        regions.push((left..right + 1, top..bottom + 1));
    }
    let mut edges: Vec<u64> =
        regions.iter().flat_map(|(_, y)| [y.start, y.end]).chain([0, rows]).collect();
    edges.sort_unstable();
    edges.dedup();

    let mut boxes = Vec::new();
    for edge in edges.windows(2) {
        let [top, bottom] = *edge else { continue };
        let here = regions.iter().filter(|(_, y)| y.start <= top && bottom <= y.end);
        let mut left = 0;
        let gap = |left: u64, right: u64| {
            (left < right).then_some(Area {
                x: left as u32,
                y: top as u32,
                width: (right - left) as u32,
                height: (bottom - top) as u32,
            })
        };
        for columns in union(here.map(|(x, _)| x.clone()).collect()) {
            boxes.extend(gap(left, columns.start));
            left = columns.end;
        }
        boxes.extend(gap(left, columns));
    }
    (!boxes.is_empty()).then_some(boxes)
}

#[cfg(test)]
mod tests {
    use dicom_core::VR;
    use proptest::prelude::*;

    use super::*;
    use crate::data_set::Element;

    fn image(rows: u16, columns: u16, texts: &[(Tag, &str)]) -> DataSet {
        let mut set = DataSet::default();
        set.put(Element::new(tags::ROWS, VR::US, rows.to_le_bytes()));
        set.put(Element::new(tags::COLUMNS, VR::US, columns.to_le_bytes()));
        for (tag, text) in texts {
            set.put(Element::new(*tag, VR::LO, text.as_bytes()));
        }
        set
    }

    fn with_regions(mut set: DataSet, regions: &[[u32; 4]]) -> DataSet {
        let tags = [
            tags::REGION_LOCATION_MIN_X0,
            tags::REGION_LOCATION_MIN_Y0,
            tags::REGION_LOCATION_MAX_X1,
            tags::REGION_LOCATION_MAX_Y1,
        ];
        let items = regions.iter().map(|region| {
            let mut item = DataSet::default();
            for (tag, corner) in tags.iter().zip(region) {
                item.put(Element::new(*tag, VR::UL, corner.to_le_bytes()));
            }
            item
        });
        let items = items.collect();
        set.put(Element::sequence(tags::SEQUENCE_OF_ULTRASOUND_REGIONS, items));
        set
    }

    fn library(body: &str) -> Library {
        Library::parse(&format!("schema = 1\n{body}")).unwrap()
    }

    #[test]
    fn conditions_are_all_to_hold_and_the_first_mask_wins() {
        let library = library(
            r#"
            [[mask]]
            id = "exact"
            when = { manufacturer = "ge*", manufacturer-model-name = "LOGIQ E9", rows = 768, columns = 1024 }
            boxes = [[0, 0, 1024, 60], [900, 700, 500, 500]]
            verified-by = "medical physics"
            verified-on = "2026-03-01"
            [[mask]]
            id = "by type"
            when = { modality = "us", image-type = "*volume*", software-versions = "R5.*" }
            boxes = [[0, 0, 10, 10]]
            [[mask]]
            id = "clean"
            when = { manufacturer = "ACME", manufacturer-model-name = "CT*" }
            nothing = true
            reason = "looked at 200 images"
            "#,
        );
        let find = |set: &DataSet| {
            library.find(set).map(|found| (found.mask.id.clone(), found.boxes.len()))
        };
        let logiq =
            [(tags::MANUFACTURER, "GE Healthcare "), (tags::MANUFACTURER_MODEL_NAME, "logiq e9")];

        assert_eq!(find(&image(768, 1024, &logiq)), Some(("exact".to_owned(), 2)));
        assert_eq!(find(&image(768, 1023, &logiq)), None);
        let volume = [
            (tags::MODALITY, "US"),
            (tags::IMAGE_TYPE, r"DERIVED\PRIMARY\3D VOLUME X"),
            (tags::SOFTWARE_VERSIONS, r"A1\R5.2"),
        ];
        assert_eq!(find(&image(5, 5, &volume)), Some(("by type".to_owned(), 1)));
        assert_eq!(find(&image(5, 5, &volume[..2])), None);
        let acme = [(tags::MANUFACTURER, "Acme"), (tags::MANUFACTURER_MODEL_NAME, "CT 7")];
        assert_eq!(find(&image(5, 5, &acme)), Some(("clean".to_owned(), 0)));
        let stated = [acme[0], acme[1], (tags::BURNED_IN_ANNOTATION, "YES")];
        assert_eq!(find(&image(5, 5, &stated)), None);
        let found = library.find(&image(768, 1024, &logiq)).unwrap().to_string();
        assert_eq!(found, r#"mask "exact": 2 boxes, verified by medical physics on 2026-03-01"#);
    }

    #[test]
    fn a_box_is_clipped_and_one_that_misses_the_image_is_no_match() {
        let library = library(
            "[[mask]]\nid = \"a\"\nwhen = { modality = \"US\" }\nboxes = [[90, 0, 50, 5]]\n",
        );
        let us = [(tags::MODALITY, "US")];

        let found = library.find(&image(3, 100, &us)).unwrap().boxes;

        assert_eq!(found, [Area { x: 90, y: 0, width: 10, height: 3 }]);
        assert_eq!(library.find(&image(3, 90, &us)), None);
    }

    #[test]
    fn what_is_wrong_with_a_library_is_said_with_its_place() {
        let mask = |rest: &str| format!("schema = 1\n\n[[mask]]\nid = \"a\"\n{rest}");
        let us = "when = { modality = \"US\" }\n";
        for (text, line, said) in [
            ("mask = []".to_owned(), 1, "schema"),
            ("schema = 2".to_owned(), 1, "not 1"),
            (mask("when = { modalty = \"US\" }\nboxes = [[0, 0, 1, 1]]"), 5, "modalty"),
            (mask("when = {}\nboxes = [[0, 0, 1, 1]]"), 3, "no condition"),
            (mask("when = { modality = \"*\" }\nboxes = [[0, 0, 1, 1]]"), 5, "beside `*`"),
            (mask(us), 3, "exactly one"),
            (mask(&format!("{us}boxes = [[0, 0, 1]]")), 6, ""),
            (mask(&format!("{us}boxes = [[0, 0, 0, 1]]")), 3, "no pixels"),
            (mask(&format!("{us}boxes = []")), 3, "no boxes"),
            (mask(&format!("{us}nothing = true")), 3, "reason"),
            (mask(&format!("{us}nothing = true\nreason = \"x\"")), 3, "of which device"),
            (mask(&format!("{us}regions = \"all\"")), 6, "except-ultrasound-regions"),
            (mask(&format!("{us}boxes = [[0, 0, 1, 1]]\nverified-on = \"soon\"")), 7, ""),
            (mask(&format!("{us}boxes = [[0, 0, 1, 1]]\nother = 1")), 7, "other"),
            (
                mask(&format!(
                    "{us}boxes = [[0, 0, 1, 1]]\n[[mask]]\nid = \"a\"\n{us}boxes = [[0, 0, 1, 1]]"
                )),
                7,
                "twice",
            ),
        ] {
            let error = Library::parse(&text).unwrap_err();
            assert!(error.line == line && error.message.contains(said), "{text}\n{error}");
        }
    }

    #[test]
    fn the_built_in_library_masks_all_but_regions_that_lie_in_the_image() {
        let library = Library::built_in();
        let us = image(100, 200, &[(tags::MODALITY, "US")]);

        let set = with_regions(us.clone(), &[[10, 20, 189, 99]]);
        let found = library.find(&set).unwrap();

        assert_eq!(found.mask.id, "ultrasound-regions");
        assert_eq!(
            found.boxes,
            [
                Area { x: 0, y: 0, width: 200, height: 20 },
                Area { x: 0, y: 20, width: 10, height: 80 },
                Area { x: 190, y: 20, width: 10, height: 80 },
            ]
        );
        for regions in [&[][..], &[[10, 20, 200, 99]], &[[10, 20, 9, 99]], &[[0, 0, 199, 99]]] {
            assert_eq!(library.find(&with_regions(us.clone(), regions)), None, "{regions:?}");
        }
        assert_eq!(library.find(&us), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn boxes_outside_of_regions_hold_just_the_pixels_that_no_region_holds(
            regions in prop::collection::vec((0..12_u32, 0..9_u32, 0..12_u32, 0..9_u32), 1..6)
        ) {
            let regions: Vec<[u32; 4]> = regions
                .into_iter()
                .map(|(x, y, w, h)| [x, y, (x + w).min(11), (y + h).min(8)])
                .collect();
            let set = with_regions(image(9, 12, &[]), &regions);

            let boxes = outside_of_regions(&set, 9, 12).unwrap_or_default();

            for (x, y) in (0..9).flat_map(|y| (0..12).map(move |x| (x, y))) {
                let inside = regions.iter().any(|[l, t, r, b]| (l..=r).contains(&&x) && (t..=b).contains(&&y));
                let blacked = boxes
                    .iter()
                    .filter(|a| (a.x..a.x + a.width).contains(&x) && (a.y..a.y + a.height).contains(&y))
                    .count();
                prop_assert_eq!(blacked, usize::from(!inside));
            }
        }

        #[test]
        fn a_pattern_matches_what_its_parts_are_found_in(parts in prop::collection::vec("[a-c]{0,3}", 1..4), fill in "[a-c]{0,3}") {
            let text = parts.join(&fill);
            if let Ok(pattern) = Pattern::try_from(parts.join("*")) {
                prop_assert!(pattern.matches(&text.to_uppercase()));
            }
        }
    }
}
