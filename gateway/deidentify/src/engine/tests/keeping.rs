//! What must stay: de-identification that takes away what images and measurements need is none.

use super::*;

/// Of these a value stays bit for bit wherever it is, under every profile.
const STAY: [Tag; 62] = [
    tags::SPECIFIC_CHARACTER_SET,
    tags::IMAGE_TYPE,
    tags::SOP_CLASS_UID,
    tags::MODALITY,
    tags::MANUFACTURER,
    tags::MANUFACTURER_MODEL_NAME,
    tags::REFERENCED_SOP_CLASS_UID,
    tags::CODE_VALUE,
    tags::CODING_SCHEME_DESIGNATOR,
    tags::CODE_MEANING,
    tags::SCANNING_SEQUENCE,
    tags::SEQUENCE_VARIANT,
    tags::SCAN_OPTIONS,
    tags::MR_ACQUISITION_TYPE,
    tags::SLICE_THICKNESS,
    tags::KVP,
    tags::REPETITION_TIME,
    tags::ECHO_TIME,
    tags::MAGNETIC_FIELD_STRENGTH,
    tags::SPACING_BETWEEN_SLICES,
    tags::FLIP_ANGLE,
    tags::SOFTWARE_VERSIONS,
    tags::RECONSTRUCTION_DIAMETER,
    tags::GANTRY_DETECTOR_TILT,
    tags::EXPOSURE_TIME,
    tags::X_RAY_TUBE_CURRENT,
    tags::EXPOSURE,
    tags::CONVOLUTION_KERNEL,
    tags::PATIENT_POSITION,
    tags::VIEW_POSITION,
    tags::BODY_PART_EXAMINED,
    tags::SEQUENCE_OF_ULTRASOUND_REGIONS,
    tags::PHYSICAL_DELTA_X,
    tags::SERIES_NUMBER,
    tags::ACQUISITION_NUMBER,
    tags::INSTANCE_NUMBER,
    tags::IMAGE_POSITION_PATIENT,
    tags::IMAGE_ORIENTATION_PATIENT,
    tags::SLICE_LOCATION,
    tags::LATERALITY,
    tags::DIMENSION_INDEX_VALUES,
    tags::IN_STACK_POSITION_NUMBER,
    tags::SAMPLES_PER_PIXEL,
    tags::PHOTOMETRIC_INTERPRETATION,
    tags::NUMBER_OF_FRAMES,
    tags::ROWS,
    tags::COLUMNS,
    tags::PIXEL_SPACING,
    tags::BITS_ALLOCATED,
    tags::BITS_STORED,
    tags::HIGH_BIT,
    tags::PIXEL_REPRESENTATION,
    tags::WINDOW_CENTER,
    tags::WINDOW_WIDTH,
    tags::RESCALE_INTERCEPT,
    tags::RESCALE_SLOPE,
    tags::RESCALE_TYPE,
    tags::LOSSY_IMAGE_COMPRESSION,
    tags::PRESENTATION_LUT_SHAPE,
    tags::VALUE_TYPE,
    tags::RELATIONSHIP_TYPE,
    tags::NUMERIC_VALUE,
];

/// What stays where it stands, in the order of the tree; of sequences that their number of items stays is not told here.
fn kept(data_set: &DataSet, path: &mut Vec<Tag>, out: &mut Vec<(Vec<Tag>, Vec<u8>)>) {
    for element in &data_set.elements {
        path.push(element.tag);
        match &element.value {
            Value::Items(items) => items.iter().for_each(|item| kept(item, path, out)),
            Value::Bytes(bytes) if STAY.contains(&element.tag) => {
                out.push((path.clone(), bytes.clone()));
            }
            _ => {}
        }
        path.pop();
    }
}

/// The sequences that go as a whole, or whose items may, by what Table E.1-1 says of them.
fn goes(path: &[Tag]) -> bool {
    path.iter().any(|tag| {
        crate::table::row(*tag).is_some_and(|row| row.actions.basic != Code::K)
            || tag.group() % 2 == 1
    })
}

fn assert_kept(about: &str, original: &DataSet, made: &DataSet) {
    let (mut before, mut after) = (Vec::new(), Vec::new());
    kept(original, &mut Vec::new(), &mut before);
    kept(made, &mut Vec::new(), &mut after);
    before.retain(|(path, _)| !goes(path));
    after.retain(|(path, _)| !goes(path));
    // Codes of methods are ours.
    after.retain(|(path, _)| path[0] != tags::DEIDENTIFICATION_METHOD_CODE_SEQUENCE);
    assert!(before.len() >= 10, "{about}: {}", before.len());
    for (one, other) in before.iter().zip(&after) {
        assert_eq!(one, other, "{about}");
    }
    assert_eq!(before.len(), after.len(), "{about}");
}

/// What comes out of which profile: all but documents, ultrasound (risky, and not masked in the built-in library), and
/// reports where structured content is not cleaned.
fn comes_out(study: &str, profile: &str) -> bool {
    study != "encapsulated-pdf" && (study, profile) != ("structured-report", "basic")
}

#[test]
fn images_and_measurements_stay_as_they_are() {
    let mut seen = 0;
    for shipped in SHIPPED {
        let deidentifier = deidentifier(shipped.name);
        for study in sample_studies::all_valid(23) {
            for instance in &study.instances {
                let syntax: TransferSyntax = instance.transfer_syntax_uid.parse().unwrap();
                let original = data_set::read(&syntax, &instance.data_set).unwrap();
                let about = format!("{} {} {}", shipped.name, study.name, instance.file_name);
                let (made, written) = match through(&deidentifier, &syntax, &instance.data_set) {
                    Ok(made) => made,
                    Err(SetAside::Risky(_)) => continue,
                    Err(why) => {
                        assert!(!comes_out(&study.name, shipped.name), "{about}: {why}");
                        continue;
                    }
                };
                let again = data_set::read(&syntax, &written).unwrap();
                assert_kept(&about, &original.data_set, &again.data_set);
                let lost = made.steps.iter().find(|step| {
                    matches!(step.decision.origin, Origin::Invalid | Origin::Repeated)
                });
                assert!(lost.is_none(), "{about}: {lost:?}");
                if let (Some(before), Some(after)) = (&original.pixel_data, &again.pixel_data)
                    && !before.encapsulated
                    // Under a mask.
                    && instance.modality != "US"
                {
                    let of = |data: &PixelData, bytes: &[u8]| {
                        bytes[data.value.start as usize..data.value.end as usize].to_vec()
                    };
                    assert!(of(before, &instance.data_set) == of(after, &written), "{about}");
                }
                seen += 1;
            }
        }
    }
    assert!(seen >= 60, "{seen}");
}

#[test]
fn a_name_that_is_also_a_word_sets_nothing_aside() {
    let names = [
        "Brain^Head",
        "Head^Thorax",
        "Young^May",
        "White^Rose",
        "Siemens^Ida",
        "Sample^Scanner",
        "Long^Primary",
        "Axial^Original",
        "Chest^Abdomen",
        "Philips^Ge",
        "Removed^Yes",
        "Kidney^Left",
    ];
    for shipped in SHIPPED {
        let deidentifier = deidentifier(shipped.name);
        for study in [
            sample_studies::mr(3),
            sample_studies::chest_cr(3),
            sample_studies::small_objects(3, 1),
        ] {
            let instance = &study.instances[0];
            let syntax: TransferSyntax = instance.transfer_syntax_uid.parse().unwrap();
            for name in names {
                let original = data_set::read(&syntax, &instance.data_set).unwrap().data_set;
                let mut named = original.clone();
                named.put(text(tags::PATIENT_NAME, name));
                named.put(text(tags::STUDY_ID, "1000"));
                named.put(text(tags::INSTITUTION_NAME, "Sample Scanner"));
                let about = format!("{} {} {name}", shipped.name, study.name);

                let (made, _) = processed(&deidentifier, &named, Form::Explicit)
                    .unwrap_or_else(|why| panic!("{about}: {why}"));

                assert_kept(&about, &original, &made);
                assert!(made.text(tags::PATIENT_NAME).unwrap() != name, "{about}");
            }
        }
    }
}

#[test]
fn options_keep_what_they_say() {
    let mut object = object(CT);
    for element in [
        text(tags::PATIENT_AGE, "064Y"),
        text(tags::PATIENT_SIZE, "1.71"),
        text(tags::PATIENT_WEIGHT, "80.5"),
        text(tags::SERIES_DATE, "20260317"),
        text(tags::ACQUISITION_DATE_TIME, "20260308101530.250000+0100"),
        text(tags::CONTENT_DATE, "20260307"),
        text(tags::CONTENT_TIME, "101531"),
        text(tags::SERIES_DESCRIPTION, "CT head 5.0 mm"),
        text(tags::DEVICE_SERIAL_NUMBER, "SN-4477-X1"),
        Element::new(Tag(0x2001, 0x0010), VR::LO, "Philips Imaging DD 001"),
        Element::new(Tag(0x2001, 0x1003), VR::FL, 800_f32.to_le_bytes()),
        Element::new(Tag(0x2001, 0x1004), VR::CS, "NOT LISTED"),
    ] {
        object.put(element);
    }
    let made = |profile| processed(&deidentifier(profile), &object, Form::Explicit).unwrap().0;

    let (basic, research, direct) = (made("basic"), made("research"), made("direct-care-minimal"));

    for tag in [tags::PATIENT_SEX, tags::PATIENT_AGE, tags::PATIENT_SIZE, tags::PATIENT_WEIGHT] {
        assert_eq!(research.get(tag), object.get(tag), "{tag}");
    }
    assert_eq!(basic.get(tags::PATIENT_AGE), None);
    assert_eq!(research.text(tags::SERIES_DESCRIPTION).unwrap(), "CT head 5.0 mm");
    let day = |set: &DataSet, tag| parse_date(set.text(tag).unwrap().get(..8).unwrap()).unwrap();
    let between = |one, other| day(&research, other).since(day(&research, one)).unwrap().get_days();
    assert_eq!(between(tags::STUDY_DATE, tags::SERIES_DATE), 10);
    assert_eq!(between(tags::STUDY_DATE, tags::ACQUISITION_DATE_TIME), 1);
    assert!(research.text(tags::ACQUISITION_DATE_TIME).unwrap().ends_with("101530.250000+0100"));
    assert_ne!(research.text(tags::STUDY_DATE), object.text(tags::STUDY_DATE));
    assert_eq!(research.get(tags::STUDY_TIME), object.get(tags::STUDY_TIME));
    for tag in [tags::STUDY_DATE, tags::CONTENT_TIME, tags::DEVICE_SERIAL_NUMBER] {
        assert_eq!(direct.get(tag), object.get(tag), "{tag}");
    }
    for set in [&research, &direct] {
        assert_eq!(set.get(Tag(0x2001, 0x1003)), object.get(Tag(0x2001, 0x1003)));
        assert_eq!(set.get(Tag(0x2001, 0x0010)), object.get(Tag(0x2001, 0x0010)));
    }
    assert!(basic.elements.iter().all(|element| element.tag.group() % 2 == 0));
}

#[test]
fn uids_that_are_retained_may_say_what_they_say() {
    let mut object = object(CT);
    // A device that writes the date into UIDs, and a request that repeats the study's.
    object.put(text(tags::SOP_INSTANCE_UID, "1.2.826.0.1.777.20260307.101530"));
    object.put(Element::sequence(
        tags::REQUEST_ATTRIBUTES_SEQUENCE,
        vec![item([
            text(tags::STUDY_INSTANCE_UID, "1.2.826.0.1.777.1"),
            text(tags::REFERENCED_SOP_CLASS_UID, "1.2.826.0.1.5.5"),
        ])],
    ));
    object.put(Element::sequence(
        tags::SOURCE_IMAGE_SEQUENCE,
        vec![item([text(tags::REFERENCED_SOP_CLASS_UID, "1.2.826.0.1.5.5")])],
    ));

    let (made, _) =
        processed(&with_options(&["retain_uids"], ""), &object, Form::Explicit).unwrap();

    assert_eq!(made.get(tags::SOP_INSTANCE_UID), object.get(tags::SOP_INSTANCE_UID));
    assert!(processed(&deidentifier("basic"), &object, Form::Explicit).is_ok());
}

#[test]
fn a_rule_that_keeps_is_believed_but_for_the_patients_own() {
    let keep = "[[rule]]\nid = \"station\"\nselect = \"StationName\"\naction = \"K\"\nreason = \"scanner effects\"\n\
                when = 'Modality == \"CT\"'";
    let with_station = |station: &str, modality: &str| {
        let mut object = object(CT);
        object.put(text(tags::STATION_NAME, station));
        object.put(text(tags::OPERATORS_NAME, "Ambulance^Ida"));
        object.put(text(tags::MODALITY, modality));
        processed(&with_options(&[], keep), &object, Form::Explicit)
            .map(|(made, _)| made.text(tags::STATION_NAME))
    };
    assert_eq!(with_station("AMBULANCE", "CT"), Ok(Some("AMBULANCE".to_owned())));
    assert_eq!(with_station("AMBULANCE", "MR"), Ok(None));
    let finding =
        crate::verify::Finding::Residual { of: tags::PATIENT_NAME, at: tags::STATION_NAME };
    assert_eq!(with_station("Zebrowitz", "CT"), Err(SetAside::Verification(vec![finding])));
}

#[test]
fn what_devices_write_a_little_wrong_stays() {
    let rows = [
        (tags::EXPOSURE_TIME, VR::IS, "1000.0"),
        (tags::SLICE_THICKNESS, VR::DS, "+5.0e0"),
        (tags::SPECIFIC_CHARACTER_SET, VR::CS, "ISO-IR 100"),
        (tags::BODY_PART_EXAMINED, VR::CS, "Head-Neck"),
        (tags::PATIENT_POSITION, VR::CS, "HFS"),
        (tags::PRESENTATION_LUT_SHAPE, VR::CS, ""),
    ];
    for (tag, vr, value) in rows {
        let mut object = object(CT);
        object.put(Element::new(tag, vr, value));
        let (made, _) = processed(&deidentifier("basic"), &object, Form::Explicit).unwrap();
        assert_eq!(made.get(tag), object.get(tag), "{tag} {value}");
    }
}

#[test]
fn what_an_object_declares_safe_stays_if_the_profile_believes_it() {
    let number = |tag, value: u16| Element::new(tag, VR::US, value.to_le_bytes());
    let describes = |group, creator, status, low: Option<u16>| {
        let mut item = item([
            number(tags::PRIVATE_GROUP_REFERENCE, group),
            text(tags::PRIVATE_CREATOR_REFERENCE, creator),
            text(tags::BLOCK_IDENTIFYING_INFORMATION_STATUS, status),
        ]);
        if let Some(low) = low {
            item.put(number(tags::NONIDENTIFYING_PRIVATE_ELEMENTS, low));
        }
        item
    };
    let mut object = object(CT);
    for element in [
        Element::sequence(
            tags::PRIVATE_DATA_ELEMENT_CHARACTERISTICS_SEQUENCE,
            vec![
                describes(0x0029, "ACME", "SAFE", None),
                describes(0x0029, "OTHER", "MIXED", Some(1)),
                describes(0x0031, "UNSAFE", "UNSAFE", None),
            ],
        ),
        Element::new(Tag(0x0029, 0x0010), VR::LO, "ACME"),
        Element::new(Tag(0x0029, 0x0011), VR::LO, "OTHER"),
        Element::new(Tag(0x0029, 0x1001), VR::LO, "kept as it is"),
        Element::new(Tag(0x0029, 0x1002), VR::UI, "1.2.826.0.1.777.3"),
        Element::new(Tag(0x0029, 0x1003), VR::PN, "Somebody^Else"),
        Element::new(Tag(0x0029, 0x1101), VR::DS, "5.5"),
        Element::new(Tag(0x0029, 0x1102), VR::DS, "6.5"),
        Element::new(Tag(0x0031, 0x0010), VR::LO, "UNSAFE"),
        Element::new(Tag(0x0031, 0x1001), VR::LO, "gone"),
    ] {
        object.put(element);
    }
    let believing = with_options(&["retain_safe_private"], "[private]\ndeclared = true");

    let (made, _) = processed(&believing, &object, Form::Explicit).unwrap();

    for kept in [0x0010, 0x0011, 0x1001, 0x1101] {
        assert_eq!(made.get(Tag(0x0029, kept)), object.get(Tag(0x0029, kept)), "{kept:04X}");
    }
    let mapped = Values::new(&key()).uid("1.2.826.0.1.777.3");
    assert_eq!(made.text(Tag(0x0029, 0x1002)).unwrap().trim_end_matches('\0'), mapped);
    for gone in [Tag(0x0029, 0x1003), Tag(0x0029, 0x1102), Tag(0x0031, 0x0010), Tag(0x0031, 0x1001)]
    {
        assert_eq!(made.get(gone), None, "{gone}");
    }
    assert_eq!(made.items(tags::PRIVATE_DATA_ELEMENT_CHARACTERISTICS_SEQUENCE).len(), 2);

    let (made, _) =
        processed(&with_options(&["retain_safe_private"], ""), &object, Form::Explicit).unwrap();
    assert!(made.elements.iter().all(|element| element.tag.group() % 2 == 0));
    assert!(made.get(tags::PRIVATE_DATA_ELEMENT_CHARACTERISTICS_SEQUENCE).is_none());
}
