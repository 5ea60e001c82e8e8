//! Whether an image may show who the patient is, by its header alone (PS3.15 E.3.1, E.3.2).
//!
//! Errs to one side: a reason is enough, and the absence of Burned In Annotation (0028,0301), or its being NO, takes none
//! away, because devices that burn names in do not say so. What has a reason needs a mask, or a person. Nobody can turn
//! that round: an image without a reason may still show a name, which is why [`super::ocr`] exists.
//!
//! Faces are another matter: they come out of a volume, not out of a picture, and nothing here removes them.

use std::fmt;

use dicom_core::Tag;
use dicom_dictionary_std::{tags, uids};

use crate::data_set::{DataSet, Value};

/// That pixels (or an encapsulated document) may hold identifying text, and why; at least one reason.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Risk {
    /// All reasons, in a fixed order.
    pub reasons: Vec<Reason>,
}

/// Why an image may show who the patient is. Prints for people and holds no value of the data set.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Reason {
    /// Ultrasound: devices burn name and number into the frame.
    Ultrasound,
    /// A picture of a screen or of paper (Secondary Capture, and hard copy).
    SecondaryCapture,
    /// A single frame of X-ray angiography or fluoroscopy, which may be a picture of the console.
    SingleFrameFluoroscopy,
    /// Visible light: photographs, endoscopy, microscopy, video.
    VisibleLight,
    /// Photographs and printed measurements of the eye.
    Ophthalmic,
    /// A document, or a model, that is encapsulated.
    Document,
    /// Modality (0008,0060) is one whose images carry text, whatever the SOP class.
    Modality,
    /// Burned In Annotation (0028,0301) says YES, or something else than YES and NO.
    BurnedInAnnotation,
    /// Image Type (0008,0008) names a secondary image, a picture of a screen, a report, or annotations.
    ImageType,
    /// Conversion Type (0008,0064): it came from elsewhere than a detector.
    Converted,
    /// An attribute of the SC Equipment Module says who captured it (PS3.3 C.8.6.1).
    CaptureDevice(Tag),
    /// An overlay without Overlay Data: its plane is in bits of the pixel cells.
    OverlayInPixels {
        /// Its group, 6000H to 60FEH.
        group: u16,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ultrasound => f.write_str("it is an ultrasound image"),
            Self::SecondaryCapture => f.write_str("it is a secondary capture"),
            Self::SingleFrameFluoroscopy => {
                f.write_str("it is a single frame of angiography or fluoroscopy")
            }
            Self::VisibleLight => f.write_str("it is a photograph, video, endoscopy or microscopy"),
            Self::Ophthalmic => f.write_str("it is an ophthalmic image"),
            Self::Document => f.write_str("it holds a document"),
            Self::Modality => f.write_str("images of its modality carry text"),
            Self::BurnedInAnnotation => f.write_str("burned in annotation is not denied"),
            Self::ImageType => {
                f.write_str("its image type names a secondary image, a screen or a report")
            }
            Self::Converted => f.write_str("it has a conversion type"),
            Self::CaptureDevice(tag) => write!(f, "it has an attribute of a capture device, {tag}"),
            Self::OverlayInPixels { group } => {
                write!(f, "overlay {group:04X} has its plane in the pixel cells")
            }
        }
    }
}

impl fmt::Display for Risk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, reason) in self.reasons.iter().enumerate() {
            write!(f, "{}{reason}", if nth == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

impl Risk {
    /// What its header says about an instance; `None` is no proof of safety, only no reason.
    pub fn of(data_set: &DataSet) -> Option<Self> {
        let mut reasons = Vec::new();
        let class = data_set.text(tags::SOP_CLASS_UID).unwrap_or_default();
        let frames = data_set.text(tags::NUMBER_OF_FRAMES).unwrap_or_default();
        reasons.extend(by_class(&class, matches!(frames.as_str(), "" | "1")));

        let modality = data_set.text(tags::MODALITY).unwrap_or_default().to_uppercase();
        reasons.extend(RISKY_MODALITIES.contains(&modality.as_str()).then_some(Reason::Modality));
        let stated = data_set.text(tags::BURNED_IN_ANNOTATION).unwrap_or_default();
        let stated = !matches!(stated.to_uppercase().as_str(), "" | "NO");
        reasons.extend(stated.then_some(Reason::BurnedInAnnotation));
        reasons.extend(has_risky_image_type(data_set).then_some(Reason::ImageType));
        if data_set.bytes(tags::CONVERSION_TYPE).is_some_and(|value| !value.is_empty()) {
            reasons.push(Reason::Converted);
        }
        let captures = CAPTURE_DEVICE.into_iter().filter(|tag| data_set.get(*tag).is_some());
        reasons.extend(captures.map(Reason::CaptureDevice));
        reasons.extend(overlays_in_pixels(data_set).map(|group| Reason::OverlayInPixels { group }));
        (!reasons.is_empty()).then_some(Self { reasons })
    }
}

/// Ultrasound, intravascular and bone; what cameras, scanners of film and paper, and printers of reports make.
const RISKY_MODALITIES: [&str; 35] = [
    "US", "IVUS", "BDUS", "BMD", "OT", "SC", "DOC", "HC", "RG", "LP", "FS", "ES", "CF", "DG", "TG",
    "XC", "GM", "SM", "DMS", "OP", "OPT", "OPM", "OPV", "OPR", "OAM", "OPTENF", "OPTBSV", "IOL",
    "KER", "LEN", "AR", "SRF", "VA", "EC", "VF",
];

/// Date of Secondary Capture, and the device: manufacturer, model, software.
const CAPTURE_DEVICE: [Tag; 4] = [
    tags::DATE_OF_SECONDARY_CAPTURE,
    tags::SECONDARY_CAPTURE_DEVICE_MANUFACTURER,
    tags::SECONDARY_CAPTURE_DEVICE_MANUFACTURER_MODEL_NAME,
    tags::SECONDARY_CAPTURE_DEVICE_SOFTWARE_VERSIONS,
];

#[expect(deprecated, reason = "hard copies are retired, not gone: archives hold them")]
fn by_class(class: &str, single_frame: bool) -> Option<Reason> {
    // Families of the registry (PS3.6 Annex A), so that a class added to one is in, too.
    const STORAGE: &str = "1.2.840.10008.5.1.4.1.1.";
    if matches!(class, uids::HARDCOPY_GRAYSCALE_IMAGE_STORAGE | uids::HARDCOPY_COLOR_IMAGE_STORAGE)
    {
        return Some(Reason::SecondaryCapture);
    }
    let family = class.strip_prefix(STORAGE)?;
    let is = |root: &str| {
        family.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    Some(match () {
        // Ultrasound, multi-frame ultrasound, and both retired ones; enhanced volumes.
        () if is("3") || is("6") => Reason::Ultrasound,
        () if is("7") => Reason::SecondaryCapture,
        () if (is("12.1") || is("12.2") || is("12.3")) && single_frame => {
            Reason::SingleFrameFluoroscopy
        }
        // Under 77.1.5 are photographs and tomography of the eye.
        () if is("77.1.5") => Reason::Ophthalmic,
        () if is("77") => Reason::VisibleLight,
        // Lensometry to axial measurements, visual fields, maps of thickness and topography.
        () if is("78") || is("79") || is("80") || is("81") || is("82") => Reason::Ophthalmic,
        () if is("104") => Reason::Document,
        () => return None,
    })
}

/// Words of Image Type, by themselves or in a row, that name pictures of screens and what is written upon images.
const WORDS: [&[&str]; 21] = [
    &["SECONDARY"],
    &["SCREEN"],
    &["SCREENSAVE"],
    &["SCREENSHOT"],
    &["SCREENCAPTURE"],
    &["SNAPSHOT"],
    &["CAPTURE"],
    &["CAPTURED"],
    &["PHOTO"],
    &["DOSE"],
    &["REPORT"],
    &["SUMMARY"],
    &["PROTOCOL"],
    &["PROT"],
    &["ANNOTATION"],
    &["ANNOTATED"],
    &["ANNOTATIONS"],
    &["TEXT"],
    &["GRAPHICS"],
    &["REFERENCE", "LINES"],
    &["CROSSHAIR"],
];

/// Value 1 says whether pixels are original or derived, which says nothing here.
fn has_risky_image_type(data_set: &DataSet) -> bool {
    let value = data_set.bytes(tags::IMAGE_TYPE).unwrap_or_default();
    let text = String::from_utf8_lossy(value).to_uppercase();
    text.split('\\').skip(1).any(|value| {
        let words: Vec<_> = value
            .split(|c: char| !c.is_ascii_alphanumeric())
            .filter(|word| !word.is_empty())
            .collect();
        WORDS.iter().any(|risky| words.windows(risky.len()).any(|words| words == *risky))
    })
}

/// Groups of overlays (60xx) that have attributes and no Overlay Data (60xx,3000): their planes are in bits of the pixel
/// cells, as was done until 2004 (PS3.3 C.9.2).
pub fn overlays_in_pixels(data_set: &DataSet) -> impl Iterator<Item = u16> + '_ {
    let mut groups: Vec<(u16, bool)> = Vec::new();
    for element in &data_set.elements {
        let (group, number) = (element.tag.group(), element.tag.element());
        if !(0x6000..=0x60FF).contains(&group) || group % 2 == 1 || number == 0 {
            continue;
        }
        let filled =
            number == 0x3000 && !matches!(&element.value, Value::Bytes(bytes) if bytes.is_empty());
        match groups.iter_mut().find(|(known, _)| *known == group) {
            Some((_, has_data)) => *has_data |= filled,
            None => groups.push((group, filled)),
        }
    }
    groups.into_iter().filter(|(_, has_data)| !has_data).map(|(group, _)| group)
}

/// Whether a face may be made out, or rendered from a volume (PS3.15 E.3.2). Reported; nothing is done about it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Face {
    /// Recognizable Visual Features (0028,0302) says so.
    Stated,
    /// A slice or volume of CT, MR or PET that is of the head, by its header.
    Head,
    /// One that does not say which part of the body it is of.
    CannotBeExcluded,
}

impl fmt::Display for Face {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stated => "the data set says that visual features are recognisable",
            Self::Head => "a face may be rendered from a volume of the head",
            Self::CannotBeExcluded => {
                "a volume of an unknown part of the body may include the face"
            }
        })
    }
}

impl Face {
    /// What the header says about an instance.
    pub fn of(data_set: &DataSet) -> Option<Self> {
        let stated = data_set.text(tags::RECOGNIZABLE_VISUAL_FEATURES).unwrap_or_default();
        if !matches!(stated.to_uppercase().as_str(), "" | "NO") {
            return Some(Self::Stated);
        }
        let modality = data_set.text(tags::MODALITY).unwrap_or_default().to_uppercase();
        let is_volume = matches!(modality.as_str(), "CT" | "MR" | "PT" | "NM")
            && data_set.get(tags::ROWS).is_some();
        if !is_volume {
            return None;
        }
        let mut words = [
            tags::BODY_PART_EXAMINED,
            tags::STUDY_DESCRIPTION,
            tags::SERIES_DESCRIPTION,
            tags::PROTOCOL_NAME,
            tags::REQUESTED_PROCEDURE_DESCRIPTION,
        ]
        .into_iter()
        .filter_map(|tag| data_set.text(tag))
        .chain(
            data_set
                .items(tags::ANATOMIC_REGION_SEQUENCE)
                .iter()
                .filter_map(|item| item.text(tags::CODE_MEANING)),
        )
        .flat_map(|text| {
            let text = text.to_uppercase();
            text.split(|c: char| !c.is_alphanumeric()).map(str::to_owned).collect::<Vec<_>>()
        });
        if words.any(|word| HEAD.contains(&word.as_str())) {
            return Some(Self::Head);
        }
        let part = data_set.text(tags::BODY_PART_EXAMINED).unwrap_or_default();
        let region = !data_set.items(tags::ANATOMIC_REGION_SEQUENCE).is_empty();
        (part.is_empty() && !region).then_some(Self::CannotBeExcluded)
    }
}

/// Parts of the body (PS3.16 Annex L) and words of descriptions that include the face.
const HEAD: [&str; 29] = [
    "HEAD",
    "HEADNECK",
    "SKULL",
    "BRAIN",
    "CRANIUM",
    "CRANIAL",
    "CEREBRAL",
    "FACE",
    "FACIAL",
    "NECK",
    "ORBIT",
    "ORBITS",
    "EYE",
    "EAR",
    "IAM",
    "IAC",
    "NOSE",
    "SINUS",
    "SINUSES",
    "PARANASAL",
    "JAW",
    "MANDIBLE",
    "MAXILLA",
    "TMJ",
    "PITUITARY",
    "SELLA",
    "NEURO",
    "WHOLEBODY",
    "CSPINE",
];

#[cfg(test)]
mod tests {
    use dicom_core::VR;

    use super::*;
    use crate::data_set::{Element, read};

    fn set(values: &[(Tag, &str)]) -> DataSet {
        let mut set = DataSet::default();
        for (tag, value) in values {
            set.put(Element::new(*tag, VR::CS, value.as_bytes()));
        }
        set
    }

    #[test]
    fn each_reason_is_found_by_itself() {
        let class = tags::SOP_CLASS_UID;
        let uid = |family: &str| format!("1.2.840.10008.5.1.4.1.1.{family}");
        let by_class = [
            ("6.1", Some(Reason::Ultrasound)),
            ("3.1", Some(Reason::Ultrasound)),
            ("6.2", Some(Reason::Ultrasound)),
            ("7", Some(Reason::SecondaryCapture)),
            ("7.4", Some(Reason::SecondaryCapture)),
            ("12.1", Some(Reason::SingleFrameFluoroscopy)),
            ("12.2", Some(Reason::SingleFrameFluoroscopy)),
            ("77.1.1.1", Some(Reason::VisibleLight)),
            ("77.1.4", Some(Reason::VisibleLight)),
            ("77.1.6", Some(Reason::VisibleLight)),
            ("77.1.5.1", Some(Reason::Ophthalmic)),
            ("81.1", Some(Reason::Ophthalmic)),
            ("104.1", Some(Reason::Document)),
            ("2", None),
            ("4", None),
            ("1.1", None),
            ("66.4", None),
            ("77771", None),
        ];
        for (family, expected) in by_class {
            let found = Risk::of(&set(&[(class, &uid(family))]));
            assert_eq!(
                found.map(|risk| risk.reasons),
                expected.map(|reason| vec![reason]),
                "{family}"
            );
        }

        for (tag, value, expected) in [
            (tags::MODALITY, "us", Some(Reason::Modality)),
            (tags::MODALITY, "CT", None),
            (tags::BURNED_IN_ANNOTATION, "YES", Some(Reason::BurnedInAnnotation)),
            (tags::BURNED_IN_ANNOTATION, "MAYBE", Some(Reason::BurnedInAnnotation)),
            (tags::BURNED_IN_ANNOTATION, "NO", None),
            (tags::BURNED_IN_ANNOTATION, "", None),
            (tags::IMAGE_TYPE, r"DERIVED\SECONDARY", Some(Reason::ImageType)),
            (tags::IMAGE_TYPE, r"ORIGINAL\PRIMARY\SCREEN SAVE", Some(Reason::ImageType)),
            (tags::IMAGE_TYPE, r"ORIGINAL\PRIMARY\OTHER\CT_SOM5 PROT", Some(Reason::ImageType)),
            (
                tags::IMAGE_TYPE,
                r"ORIGINAL\PRIMARY\LOCALIZER\REFERENCE LINES",
                Some(Reason::ImageType),
            ),
            (tags::IMAGE_TYPE, r"ORIGINAL\PRIMARY\DOSE_INFO", Some(Reason::ImageType)),
            (tags::IMAGE_TYPE, r"ORIGINAL\PRIMARY\LOCALIZER", None),
            (tags::IMAGE_TYPE, r"SECONDARY\PRIMARY\AXIAL", None),
            (tags::CONVERSION_TYPE, "WSD", Some(Reason::Converted)),
            (tags::CONVERSION_TYPE, "", None),
            (
                tags::SECONDARY_CAPTURE_DEVICE_MANUFACTURER,
                "",
                Some(Reason::CaptureDevice(tags::SECONDARY_CAPTURE_DEVICE_MANUFACTURER)),
            ),
            (Tag(0x6002, 0x0010), "1", Some(Reason::OverlayInPixels { group: 0x6002 })),
            (Tag(0x6002, 0x3000), "1", None),
        ] {
            let found = Risk::of(&set(&[(tag, value)]));
            assert_eq!(
                found.map(|risk| risk.reasons),
                expected.map(|reason| vec![reason]),
                "{tag} {value}"
            );
        }
    }

    #[test]
    fn a_cine_run_is_no_capture_and_denial_takes_no_reason_away() {
        let angiography = uids::X_RAY_ANGIOGRAPHIC_IMAGE_STORAGE;
        let run = [(tags::SOP_CLASS_UID, angiography), (tags::NUMBER_OF_FRAMES, "40")];
        assert_eq!(Risk::of(&set(&run)), None);

        let denied = [
            (tags::SOP_CLASS_UID, uids::ULTRASOUND_IMAGE_STORAGE),
            (tags::BURNED_IN_ANNOTATION, "NO"),
        ];
        let risk = Risk::of(&set(&denied)).unwrap();
        assert_eq!(risk.to_string(), "it is an ultrasound image");
    }

    #[test]
    fn of_the_sample_studies_those_that_show_names_are_risky() {
        let mut risky = Vec::new();
        let mut faces = Vec::new();
        for study in sample_studies::all_valid(3) {
            for instance in study.instances.iter().take(1) {
                let syntax = instance.transfer_syntax_uid.parse().unwrap();
                let set = read(&syntax, &instance.data_set).unwrap().data_set;
                let modality = set.text(tags::MODALITY).unwrap();
                if Risk::of(&set).is_some() {
                    risky.push(modality.clone());
                }
                faces.extend(Face::of(&set).map(|face| (modality, face)));
            }
        }

        assert!(risky.contains(&"US".to_owned()) && risky.contains(&"DOC".to_owned()), "{risky:?}");
        assert!(
            !risky.contains(&"CT".to_owned()) && !risky.contains(&"CR".to_owned()),
            "{risky:?}"
        );
        assert!(faces.contains(&("CT".to_owned(), Face::Head)), "{faces:?}");
    }

    #[test]
    fn faces_come_out_of_volumes_of_the_head_and_of_who_knows_what() {
        let of = |values: &[(Tag, &str)]| {
            let mut set = set(values);
            set.put(Element::new(tags::ROWS, VR::US, [0, 2]));
            Face::of(&set)
        };
        let modality = |text| (tags::MODALITY, text);

        assert_eq!(of(&[modality("CT"), (tags::BODY_PART_EXAMINED, "BRAIN")]), Some(Face::Head));
        let described = [modality("MR"), (tags::SERIES_DESCRIPTION, "t1 head ax")];
        assert_eq!(of(&described), Some(Face::Head));
        assert_eq!(of(&[modality("PT")]), Some(Face::CannotBeExcluded));
        assert_eq!(of(&[modality("CT"), (tags::BODY_PART_EXAMINED, "KNEE")]), None);
        assert_eq!(of(&[modality("CR"), (tags::BODY_PART_EXAMINED, "SKULL")]), None);
        assert_eq!(of(&[(tags::RECOGNIZABLE_VISUAL_FEATURES, "YES")]), Some(Face::Stated));
    }
}
