//! Identifiers where nobody expects them. Whatever comes out has none of them; and what need not be set aside is not.

use super::*;

const NAME: &str = "Zebrowitz";
const ID: &str = "QX7734215";
/// Stands in one hiding place only, which therefore has to go or to be replaced as such.
const ALONE: &str = "ZQUNSEENJX";

/// What becomes of an object.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fate {
    /// It comes out under every profile.
    Out,
    /// It may be set aside.
    OutOrAside,
    /// It is set aside under every profile.
    Aside,
}

fn name(tag: Tag) -> Element {
    text(tag, "Zebrowitz^Quenby")
}

fn raw(tag: Tag, vr: VR, value: &str) -> Element {
    Element::new(tag, vr, value)
}

fn sequence(tag: Tag, items: impl IntoIterator<Item = DataSet>) -> Element {
    Element::sequence(tag, items.into_iter().collect())
}

/// The value of a sequence in bytes, in implicit VR, with defined lengths.
fn implicit_items(items: &[DataSet]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for item in items {
        let mut inner = Vec::new();
        item.write(Form::Implicit, &mut inner);
        bytes.extend([0xFE, 0xFF, 0x00, 0xE0]);
        bytes.extend(u32::try_from(inner.len()).unwrap().to_le_bytes());
        bytes.extend(inner);
    }
    bytes
}

fn content(value_type: &str, concept: DataSet, value: Vec<Element>) -> DataSet {
    let mut made = item([
        text(tags::RELATIONSHIP_TYPE, "CONTAINS"),
        text(tags::VALUE_TYPE, value_type),
        sequence(tags::CONCEPT_NAME_CODE_SEQUENCE, [concept]),
    ]);
    for element in value {
        made.put(element);
    }
    made
}

/// What to add to an object to hide something in it.
fn places() -> Vec<(&'static str, Fate, Vec<Element>)> {
    use Fate::{Aside, Out, OutOrAside};
    let safe = || raw(Tag(0x2001, 0x0010), VR::LO, "Philips Imaging DD 001");
    let finding = || code("121071", "DCM", "Finding");
    vec![
        (
            "an unregistered attribute of an even group",
            Out,
            vec![raw(Tag(0x0018, 0xFFF0), VR::LO, ALONE)],
        ),
        ("an unregistered one of UN", Out, vec![raw(Tag(0x0010, 0xFFF0), VR::UN, ALONE)]),
        (
            "a private attribute",
            Out,
            vec![raw(Tag(0x0009, 0x0010), VR::LO, "ACME"), raw(Tag(0x0009, 0x1001), VR::LO, ALONE)],
        ),
        ("a private creator alone", Out, vec![raw(Tag(0x0009, 0x0010), VR::LO, ALONE)]),
        (
            "a private attribute without a creator",
            Out,
            vec![raw(Tag(0x0009, 0x2001), VR::LO, ALONE)],
        ),
        ("a private number that is none", Out, vec![raw(Tag(0x0009, 0x0201), VR::LO, ALONE)]),
        (
            "a private block in a sequence of the standard",
            Out,
            vec![sequence(
                tags::REFERENCED_IMAGE_SEQUENCE,
                [item([
                    raw(Tag(0x0009, 0x0010), VR::LO, "ACME"),
                    raw(Tag(0x0009, 0x1001), VR::LO, ALONE),
                ])],
            )],
        ),
        (
            "a safe private text",
            Out,
            vec![safe(), raw(Tag(0x2001, 0x1050), VR::LO, "for Zebrowitz")],
        ),
        (
            "a safe private number that is none",
            Out,
            vec![safe(), raw(Tag(0x2001, 0x1003), VR::FL, ALONE)],
        ),
        (
            "a safe private sequence",
            Out,
            vec![safe(), sequence(Tag(0x2001, 0x105F), [item([name(tags::OPERATORS_NAME)])])],
        ),
        (
            "a safe private sequence as UN",
            Out,
            vec![
                safe(),
                Element::new(
                    Tag(0x2001, 0x105F),
                    VR::UN,
                    implicit_items(&[item([name(tags::OPERATORS_NAME)])]),
                ),
            ],
        ),
        (
            "a safe private sequence that is none",
            Out,
            vec![safe(), raw(Tag(0x2001, 0x105F), VR::UN, ALONE)],
        ),
        ("trailing padding", Out, vec![raw(Tag(0xFFFC, 0xFFFC), VR::OB, ALONE)]),
        (
            "digital signatures",
            Out,
            vec![
                sequence(tags::MAC_PARAMETERS_SEQUENCE, [item([])]),
                sequence(
                    Tag(0xFFFA, 0xFFFA),
                    [item([raw(tags::CERTIFICATE_OF_SIGNER, VR::OB, ALONE)])],
                ),
            ],
        ),
        (
            "a signer's certificate elsewhere",
            Out,
            vec![sequence(
                tags::REFERENCED_IMAGE_SEQUENCE,
                [item([raw(tags::CERTIFICATE_OF_SIGNER, VR::OB, ALONE)])],
            )],
        ),
        (
            "group 4008",
            Out,
            vec![raw(Tag(0x4008, 0x010B), VR::ST, ALONE), raw(Tag(0x4008, 0x0103), VR::LO, ALONE)],
        ),
        ("text comments", Out, vec![raw(Tag(0x4000, 0x4000), VR::LT, ALONE)]),
        (
            "overlays of all groups",
            Out,
            vec![
                raw(Tag(0x6000, 0x4000), VR::LT, ALONE),
                raw(Tag(0x601E, 0x0022), VR::LO, ALONE),
                raw(Tag(0x6002, 0x3000), VR::OW, ALONE),
            ],
        ),
        (
            "overlays of groups that are none",
            Out,
            vec![raw(Tag(0x6020, 0x4000), VR::LT, ALONE), raw(Tag(0x60FE, 0x0022), VR::LO, ALONE)],
        ),
        (
            "curves",
            Out,
            vec![raw(Tag(0x5000, 0x3000), VR::OW, ALONE), raw(Tag(0x5042, 0x0022), VR::LO, ALONE)],
        ),
        (
            "an icon",
            Out,
            vec![sequence(
                tags::ICON_IMAGE_SEQUENCE,
                [item([raw(tags::PIXEL_DATA, VR::OW, ALONE)])],
            )],
        ),
        (
            "an icon elsewhere",
            Out,
            vec![sequence(
                tags::REFERENCED_IMAGE_SEQUENCE,
                [item([raw(tags::PIXEL_DATA, VR::OW, ALONE)])],
            )],
        ),
        ("variable pixel data", Out, vec![raw(Tag(0x7F00, 0x0010), VR::OW, ALONE)]),
        ("group 0004", Out, vec![raw(Tag(0x0004, 0x1130), VR::CS, ALONE)]),
        ("length to end", Out, vec![raw(Tag(0x0008, 0x0001), VR::UL, "ZQUNSEEN")]),
        ("a group length", Out, vec![raw(Tag(0x0018, 0x0000), VR::UL, "ZQUNSEEN")]),
        (
            "original attributes",
            Out,
            vec![sequence(
                tags::ORIGINAL_ATTRIBUTES_SEQUENCE,
                [item([sequence(
                    tags::MODIFIED_ATTRIBUTES_SEQUENCE,
                    [item([raw(tags::PATIENT_ID, VR::LO, ALONE)])],
                )])],
            )],
        ),
        (
            "what was sealed earlier",
            Out,
            vec![sequence(
                tags::ENCRYPTED_ATTRIBUTES_SEQUENCE,
                [item([raw(tags::ENCRYPTED_CONTENT, VR::OB, ALONE)])],
            )],
        ),
        (
            "a referenced patient",
            Out,
            vec![sequence(
                tags::REFERENCED_PATIENT_SEQUENCE,
                [item([text(tags::REFERENCED_SOP_INSTANCE_UID, "1.2.826.0.1.777.99")])],
            )],
        ),
        (
            "request attributes",
            Out,
            vec![sequence(
                tags::REQUEST_ATTRIBUTES_SEQUENCE,
                [item([
                    raw(tags::REQUESTED_PROCEDURE_ID, VR::SH, ALONE),
                    raw(tags::REASON_FOR_THE_REQUESTED_PROCEDURE, VR::LO, NAME),
                ])],
            )],
        ),
        ("a name as OB", Out, vec![raw(tags::OPERATORS_NAME, VR::OB, ALONE)]),
        ("a name as UN", Out, vec![raw(tags::PATIENT_MOTHER_BIRTH_NAME, VR::UN, ALONE)]),
        (
            "a kept text as UN",
            Out,
            vec![raw(tags::MANUFACTURER_MODEL_NAME, VR::UN, "Quenby Zebrowitz")],
        ),
        ("a date as LO", Out, vec![raw(tags::SECONDARY_REVIEW_DATE, VR::LO, ALONE)]),
        ("a number that is none", Out, vec![raw(tags::SLICE_THICKNESS, VR::DS, ALONE)]),
        ("a code that is none", Out, vec![raw(tags::PATIENT_POSITION, VR::CS, "Zqunseenjx of 12")]),
        (
            "a UID that is none",
            Out,
            vec![raw(tags::FRAME_OF_REFERENCE_UID, VR::UI, "1.2.840.10008.ZQUNSEENJX")],
        ),
        (
            "the second value of a UID",
            Out,
            vec![text(tags::IRRADIATION_EVENT_UID, "1.2.840.10008.1\\1.2.826.0.1.777.3")],
        ),
        (
            "a UID with spaces",
            Out,
            vec![text(tags::SYNCHRONIZATION_FRAME_OF_REFERENCE_UID, "1.2.826.0.1.777.3   ")],
        ),
        (
            "a sequence as UN",
            Out,
            vec![Element::new(
                tags::REFERENCED_IMAGE_SEQUENCE,
                VR::UN,
                implicit_items(&[item([
                    name(tags::OPERATORS_NAME),
                    text(tags::REFERENCED_SOP_INSTANCE_UID, "1.2.826.0.1.777.3"),
                ])]),
            )],
        ),
        (
            "a sequence as UN that is none",
            OutOrAside,
            vec![raw(tags::REFERENCED_IMAGE_SEQUENCE, VR::UN, ALONE)],
        ),
        (
            "a sequence where a name belongs",
            OutOrAside,
            vec![sequence(
                tags::OPERATORS_NAME,
                [item([raw(tags::MANUFACTURER_MODEL_NAME, VR::LO, ALONE)])],
            )],
        ),
        (
            "a sequence where a number belongs",
            OutOrAside,
            vec![sequence(
                tags::SLICE_THICKNESS,
                [item([raw(tags::MANUFACTURER_MODEL_NAME, VR::LO, ALONE)])],
            )],
        ),
        ("a sequence where rows belong", Aside, vec![sequence(tags::ROWS, [item([])])]),
        ("a kept text", Out, vec![raw(tags::RECEIVE_COIL_NAME, VR::SH, NAME)]),
        ("a kept text in capitals", Out, vec![raw(tags::SEQUENCE_NAME, VR::SH, "*ZEBROWITZ_2")]),
        (
            "a kept text two levels deep",
            Out,
            vec![sequence(
                tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE,
                [item([sequence(
                    tags::FRAME_CONTENT_SEQUENCE,
                    [item([
                        raw(tags::FRAME_LABEL, VR::LO, "QX7734215/3"),
                        raw(tags::FRAME_COMMENTS, VR::LT, NAME),
                    ])],
                )])],
            )],
        ),
        (
            "a meaning of a code of its own",
            Out,
            vec![sequence(tags::VIEW_CODE_SEQUENCE, [code("Z1", "99ACME", "view of Zebrowitz")])],
        ),
        (
            "a method of an earlier de-identification",
            Out,
            vec![raw(tags::DEIDENTIFICATION_METHOD, VR::LO, "removed Zebrowitz\\OTHER 1.0")],
        ),
        (
            "a code of a list of its own",
            OutOrAside,
            vec![raw(tags::SCAN_OPTIONS, VR::CS, "ZEBROWITZ")],
        ),
        (
            "the birth date in another calendar",
            Out,
            vec![raw(tags::PATIENT_BIRTH_DATE_IN_ALTERNATIVE_CALENDAR, VR::LO, ALONE)],
        ),
        (
            "where it is stored",
            Out,
            vec![raw(tags::RETRIEVE_URL, VR::UR, "https://pacs/ZQUNSEENJX")],
        ),
        (
            "the context of the acquisition",
            Out,
            vec![sequence(
                tags::ACQUISITION_CONTEXT_SEQUENCE,
                [
                    content("TEXT", finding(), vec![text(tags::TEXT_VALUE, NAME)]),
                    content("PNAME", finding(), vec![name(tags::PERSON_NAME)]),
                ],
            )],
        ),
        (
            "the context of a protocol",
            Out,
            vec![sequence(
                tags::PERFORMED_PROTOCOL_CODE_SEQUENCE,
                [item([sequence(
                    tags::PROTOCOL_CONTEXT_SEQUENCE,
                    [content("TEXT", finding(), vec![raw(tags::TEXT_VALUE, VR::UT, ALONE)])],
                )])],
            )],
        ),
        (
            "a text value anywhere",
            Out,
            vec![sequence(
                tags::REFERENCED_IMAGE_SEQUENCE,
                [item([raw(tags::TEXT_VALUE, VR::UT, ALONE)])],
            )],
        ),
        (
            "a label of a graphic",
            Out,
            vec![sequence(
                tags::GRAPHIC_ANNOTATION_SEQUENCE,
                [item([sequence(
                    tags::TEXT_OBJECT_SEQUENCE,
                    [item([raw(tags::UNFORMATTED_TEXT_VALUE, VR::ST, ALONE)])],
                )])],
            )],
        ),
        (
            "plans and structures",
            Out,
            vec![
                raw(tags::RT_PLAN_LABEL, VR::SH, ALONE),
                raw(tags::STRUCTURE_SET_LABEL, VR::SH, ALONE),
                sequence(
                    tags::STRUCTURE_SET_ROI_SEQUENCE,
                    [item([raw(tags::ROI_NAME, VR::LO, ALONE)])],
                ),
            ],
        ),
        (
            "a waveform's annotation",
            Out,
            vec![sequence(
                tags::WAVEFORM_ANNOTATION_SEQUENCE,
                [item([raw(tags::UNFORMATTED_TEXT_VALUE, VR::ST, ALONE)])],
            )],
        ),
        ("the same attribute twice", Aside, Vec::new()),
        (
            "two SOP Instance UIDs",
            Aside,
            vec![text(tags::SOP_INSTANCE_UID, "1.2.826.0.1.777.3\\1.2.826.0.1.777.4")],
        ),
        ("a class that nobody knows", Aside, vec![text(tags::SOP_CLASS_UID, "1.2.826.0.1.777.77")]),
        ("a document", Aside, vec![text(tags::SOP_CLASS_UID, "1.2.840.10008.5.1.4.1.1.104.1")]),
    ]
}

#[test]
fn what_is_hidden_does_not_come_out() {
    let mut failures = Vec::new();
    for shipped in SHIPPED {
        let deidentifier = deidentifier(shipped.name);
        for (place, fate, elements) in places() {
            for form in [Form::Explicit, Form::Implicit] {
                let mut object = object(CT);
                for element in elements.iter().cloned() {
                    object.put(element);
                }
                let mut bytes = Vec::new();
                object.write(form, &mut bytes);
                // Group lengths are not written by the tree.
                if place == "a group length" {
                    bytes = spliced(&object, form, Tag(0x0018, 0));
                }
                if place == "the same attribute twice" {
                    text(tags::STUDY_ID, ALONE).write(form, &mut bytes);
                }
                let outcome = through(&deidentifier, &syntax(form), &bytes);
                let about = format!("{place}, {}, {form:?}", shipped.name);
                match (outcome, fate) {
                    (Ok(_), Fate::Aside) => failures.push(format!("{about}: came out")),
                    (Err(why), Fate::Out) => failures.push(format!("{about}: {why}")),
                    (Err(_), _) => {}
                    (Ok((_, written)), _) => {
                        for token in [NAME, ID, ALONE, "ZQUNSEEN", "1.2.826.0.1.777.3"] {
                            if contains(&written, token) {
                                failures.push(format!("{about}: {token} is there"));
                            }
                        }
                    }
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// An object with an element that the tree leaves out.
fn spliced(object: &DataSet, form: Form, tag: Tag) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut length = Vec::new();
    data_set::header(form, tag, VR::UL, 4, &mut length);
    length.extend(b"ZQJX");
    let (before, behind): (Vec<_>, Vec<_>) =
        object.elements.iter().partition(|element| element.tag < tag);
    for element in before {
        element.write(form, &mut bytes);
    }
    bytes.extend(length);
    for element in behind {
        element.write(form, &mut bytes);
    }
    bytes
}

#[test]
fn names_are_found_in_every_character_set() {
    let rows: [(&str, &[u8], &str); 7] = [
        ("ISO_IR 100", b"M\xfcllerin^J\xfcrga", "Müllerin"),
        ("ISO_IR 192", "Müllerin^Jürga".as_bytes(), "Müllerin"),
        ("GB18030", b"\x81\x5c\x82\x5c^\xd0\xa1\xb6\xab", "小东"),
        ("\\ISO 2022 IR 87", b"Yamadaxy^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B", "山田"),
        ("\\ISO 2022 IR 149", b"Hongxyz^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7", "吉洞"),
        ("ISO_IR 144", b"\xbb\xee\xda\x63\x65\xdc\xd1\x79\x70\xd3", "Люкceмбypг"),
        ("ISO_IR 126", b"\xc4\xe9\xef\xed\xf5\xf3\xe9\xef\xf2^Ab", "Διονυσιος"),
    ];
    for (set, name, part) in rows {
        for form in [Form::Explicit, Form::Implicit] {
            for shipped in SHIPPED {
                let mut object = object(CT);
                object.put(raw(tags::SPECIFIC_CHARACTER_SET, VR::CS, set));
                object.put(Element::new(tags::PATIENT_NAME, VR::PN, name));
                // A nested name in the set of the data set around it, and a text that repeats the whole name.
                object.put(sequence(
                    tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE,
                    [item([
                        Element::new(tags::OPERATORS_NAME, VR::PN, name),
                        Element::new(tags::FRAME_LABEL, VR::LO, name),
                    ])],
                ));
                object.put(Element::new(
                    tags::SERIES_DESCRIPTION,
                    VR::LO,
                    [b"CT head ", name].concat(),
                ));
                let deidentifier = deidentifier(shipped.name);

                let (_, written) = processed(&deidentifier, &object, form)
                    .unwrap_or_else(|why| panic!("{set} {} {why}", shipped.name));

                let there = |bytes: &[u8]| written.windows(bytes.len()).any(|at| at == bytes);
                assert!(!there(name), "{set}");
                for piece in
                    name.split(|byte| matches!(byte, b'^' | b'=')).filter(|it| it.len() > 3)
                {
                    assert!(!there(piece), "{set} {piece:x?}");
                }
                assert!(!there(part.as_bytes()), "{set}");
            }
        }
    }
}

#[test]
fn sequences_inside_values_of_un_do_not_overflow_the_stack() {
    // A safe private sequence that holds itself, each time as UN, which no scanner looks into.
    let mut inner = item([name(tags::OPERATORS_NAME)]);
    for _ in 0..400 {
        let value = implicit_items(&[inner]);
        inner = item([
            raw(Tag(0x2001, 0x0010), VR::LO, "Philips Imaging DD 001"),
            Element::new(Tag(0x2001, 0x105F), VR::UN, value),
        ]);
    }
    let mut object = object(CT);
    for element in inner.elements {
        object.put(element);
    }

    let outcome = processed(&deidentifier("research"), &object, Form::Explicit);

    let tag = Tag(0x2001, 0x105F);
    assert_eq!(outcome.map(|_| ()), Err(SetAside::Unreadable(DataSetError::TooDeep { tag })));
}

#[test]
fn a_report_has_none_of_what_its_items_say() {
    let concept = || code("121071", "DCM", "Finding");
    let of = |value_type, element| content(value_type, concept(), vec![element]);
    let nested = {
        let mut container = content("CONTAINER", concept(), vec![]);
        container.put(sequence(tags::CONTENT_SEQUENCE, [of("PNAME", name(tags::PERSON_NAME))]));
        container
    };
    let number = item([
        raw(tags::NUMERIC_VALUE, VR::DS, "5.5"),
        sequence(tags::MEASUREMENT_UNITS_CODE_SEQUENCE, [code("mm", "UCUM", "mm")]),
    ]);
    let items = [
        of("TEXT", raw(tags::TEXT_VALUE, VR::UT, "seen by Zebrowitz; no fracture")),
        of("PNAME", name(tags::PERSON_NAME)),
        of("DATE", text(tags::DATE, "20260307")),
        of("TIME", text(tags::TIME, "101530")),
        of("DATETIME", text(tags::DATE_TIME, "20260307101530")),
        of("UIDREF", text(tags::UID, "1.2.826.0.1.777.3")),
        of("CODE", sequence(tags::CONCEPT_CODE_SEQUENCE, [code("F1", "99ACME", "by Zebrowitz")])),
        of("NUM", sequence(tags::MEASURED_VALUE_SEQUENCE, [number])),
        of("NUM", raw(tags::TEXT_VALUE, VR::UT, "Zebrowitz")),
        of(
            "IMAGE",
            sequence(
                tags::REFERENCED_SOP_SEQUENCE,
                [item([text(tags::REFERENCED_SOP_INSTANCE_UID, "1.2.826.0.1.777.3")])],
            ),
        ),
        nested,
    ];
    for profile in ["research", "teaching", "direct-care-minimal"] {
        for form in [Form::Explicit, Form::Implicit] {
            let mut report = object(COMPREHENSIVE_SR);
            report.put(text(tags::VALUE_TYPE, "CONTAINER"));
            report.put(sequence(tags::CONTENT_SEQUENCE, items.clone()));

            let (made, written) = processed(&deidentifier(profile), &report, form).unwrap();

            for token in [NAME, ID, "1.2.826.0.1.777.3"] {
                assert!(!contains(&written, token), "{profile} {token}");
            }
            assert!(contains(&written, "no fracture"), "{profile}");
            let measured = made.items(tags::CONTENT_SEQUENCE).iter().find_map(|item| {
                item.items(tags::MEASURED_VALUE_SEQUENCE).first()?.text(tags::NUMERIC_VALUE)
            });
            assert_eq!(measured.as_deref(), Some("5.5"), "{profile}");
        }
    }
    assert!(processed(&deidentifier("basic"), &object(COMPREHENSIVE_SR), Form::Explicit).is_err());
}

#[test]
fn an_object_without_a_patient_id_is_nobodys_or_its_studys() {
    let mut object = object(CT);
    object.elements.retain(|element| element.tag != tags::PATIENT_ID);
    let outcome = |profile| processed(&deidentifier(profile), &object, Form::Explicit).map(|_| ());
    assert_eq!(outcome("research"), Err(SetAside::NoSubject));
    assert_eq!(outcome("basic"), Err(SetAside::NoSubject));
    assert_eq!(outcome("teaching"), Ok(()));
    assert_eq!(outcome("direct-care-minimal"), Ok(()));
}

#[test]
fn presentation_states_and_key_objects_come_out_of_the_basic_profile_whole() {
    const PRESENTATION_STATE: &str = "1.2.840.10008.5.1.4.1.1.11.1";
    const KEY_OBJECTS: &str = "1.2.840.10008.5.1.4.1.1.88.59";
    let image = || item([text(tags::REFERENCED_SOP_INSTANCE_UID, "1.2.826.0.1.777.3")]);
    let mut state = object(PRESENTATION_STATE);
    for element in [
        text(tags::PRESENTATION_CREATION_DATE, "20260307"),
        text(tags::PRESENTATION_CREATION_TIME, "101530"),
        text(tags::CONTENT_CREATOR_NAME, "Zebrowitz^Quenby"),
        text(tags::CONTENT_DESCRIPTION, "marks of Zebrowitz"),
        sequence(
            tags::REFERENCED_SERIES_SEQUENCE,
            [item([sequence(tags::REFERENCED_IMAGE_SEQUENCE, [image()])])],
        ),
    ] {
        state.put(element);
    }
    let mut note = object(KEY_OBJECTS);
    note.put(text(tags::VALUE_TYPE, "CONTAINER"));
    note.put(sequence(
        tags::CONTENT_SEQUENCE,
        [
            content(
                "TEXT",
                code("113012", "DCM", "Key Object Description"),
                vec![raw(tags::TEXT_VALUE, VR::UT, NAME)],
            ),
            item([
                text(tags::RELATIONSHIP_TYPE, "CONTAINS"),
                text(tags::VALUE_TYPE, "IMAGE"),
                sequence(tags::REFERENCED_SOP_SEQUENCE, [image()]),
            ]),
        ],
    ));
    let mapped = Values::new(&key()).uid("1.2.826.0.1.777.3");
    for shipped in SHIPPED {
        let made = |object| processed(&deidentifier(shipped.name), object, Form::Explicit).unwrap();

        let (state, note) = (made(&state), made(&note));

        for (_, written) in [&state, &note] {
            assert!(!contains(written, NAME) && contains(written, &mapped), "{}", shipped.name);
        }
        // Type 1 in a presentation state, so a date stands there whatever the profile says.
        let created = state.0.text(tags::PRESENTATION_CREATION_DATE).unwrap();
        assert!(parse_date(&created).is_some(), "{}", shipped.name);
        assert_eq!(created == "20260307", shipped.name == "direct-care-minimal");
    }
}

#[test]
fn a_year_of_birth_does_not_tell_by_how_much_dates_moved() {
    let lines = "[dates]\nshift_days = [-3650, -3300]\nbirth_date = \"year\"";
    let moved = with_options(&["retain_long_modified_dates"], lines);
    let still = with_options(&[], "[dates]\nbirth_date = \"year\"");
    let born = |deidentifier| {
        let (made, _) = processed(deidentifier, &object(CT), Form::Explicit).unwrap();
        made.text(tags::PATIENT_BIRTH_DATE).unwrap()
    };
    // Born in September 1961, and moved by nine years or ten.
    assert!(["19510101", "19520101"].contains(&born(&moved).as_str()), "{}", born(&moved));
    assert_eq!(born(&still), "19610101");
}

#[test]
fn only_documents_of_pdf_can_be_blank() {
    let lines = "[sop_classes]\n\"Encapsulated PDF Storage\" = \"dummy\"\n\"Encapsulated STL Storage\" = \"dummy\"";
    let deidentifier = with_options(&[], lines);
    let document = |class| {
        let mut document = object(class);
        document.put(raw(tags::ENCAPSULATED_DOCUMENT, VR::OB, "solid Zebrowitz "));
        processed(&deidentifier, &document, Form::Explicit)
    };
    let (made, _) = document("1.2.840.10008.5.1.4.1.1.104.1").unwrap();
    assert!(made.bytes(tags::ENCAPSULATED_DOCUMENT).unwrap().starts_with(b"%PDF-1.4"));
    assert!(matches!(document("1.2.840.10008.5.1.4.1.1.104.3"), Err(SetAside::Class(_))));
}

/// Behind the last pixel of native pixel data there is room for text.
#[test]
fn what_follows_the_pixels_does_not_come_out() {
    let instance = &sample_studies::mr(3).instances[0];
    let explicit = syntax(Form::Explicit);
    let parsed = data_set::read(&explicit, &instance.data_set).unwrap();
    let (tag, value) = parsed.pixel_data.map(|data| (data.tag, data.value)).unwrap();
    let mut pixels = instance.data_set[value.start as usize..value.end as usize].to_vec();
    pixels.extend(b"ZQUNSEENJX of the ward ");
    let mut with_text = parsed.data_set;
    with_text.put(Element::new(tag, VR::OW, pixels));

    let (_, written) = processed(&deidentifier("basic"), &with_text, Form::Explicit).unwrap();

    assert!(!contains(&written, ALONE));
}
