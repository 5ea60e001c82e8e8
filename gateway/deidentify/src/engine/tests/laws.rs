//! Laws: nothing panics, the same gives the same, what belongs together stays together.

use proptest::prelude::*;

use super::*;

#[test]
fn no_byte_of_a_header_makes_it_panic() {
    let deidentifiers = SHIPPED.map(|shipped| deidentifier(shipped.name));
    let studies = [
        sample_studies::mr(4),
        sample_studies::multi_frame(4, 2, 8, 8).build().unwrap(),
        sample_studies::structured_report(4),
    ];
    for study in studies {
        // Without pixels, of which no byte means anything here.
        let instance = &study.instances[0];
        let syntax: TransferSyntax = instance.transfer_syntax_uid.parse().unwrap();
        let mut bytes = Vec::new();
        data_set::read(&syntax, &instance.data_set)
            .unwrap()
            .data_set
            .write(Form::Explicit, &mut bytes);
        let mut came_out = 0;
        for at in 0..bytes.len() {
            let was = bytes[at];
            let changes = [was ^ 1, was ^ 0x20, 0xFF, 0];
            // Every byte once, in one of four ways and by one of four profiles: the neighbours have the others.
            bytes[at] = changes[at % 4];
            // What comes out can be read; all else was set aside.
            if let Ok((_, written)) = through(&deidentifiers[at / 4 % 4], &syntax, &bytes) {
                data_set::read(&syntax, &written).unwrap();
                came_out += 1;
            }
            bytes[at] = was;
        }
        // Most bytes are of values, and few values set an object aside.
        assert!(came_out * 3 > bytes.len(), "{}: {came_out} of {}", study.name, bytes.len());
    }
}

#[test]
fn malformed_data_sets_are_set_aside_or_come_out_whole() {
    let deidentifier = deidentifier("research");
    for malformed in sample_studies::malformed::all(5) {
        let Ok(syntax) = malformed.transfer_syntax_uid.parse::<TransferSyntax>() else {
            continue;
        };
        if let Ok((_, written)) = through(&deidentifier, &syntax, &malformed.data_set) {
            data_set::read(&syntax, &written).unwrap();
        }
    }
}

#[test]
fn the_same_object_gives_the_same_bytes_and_another_key_others() {
    for shipped in SHIPPED {
        let object = object(CT);
        let (made, written) =
            processed(&deidentifier(shipped.name), &object, Form::Explicit).unwrap();
        let again = processed(&deidentifier(shipped.name), &object, Form::Explicit).unwrap().1;
        assert!(written == again, "{}", shipped.name);

        let profile = crate::profile::shipped(shipped.name).unwrap();
        let other = Deidentifier::new(profile, ProjectKey::from_bytes([4; 32]), Linkage::Project);
        let (other, _) = processed(&other, &object, Form::Explicit).unwrap();
        for tag in [tags::PATIENT_ID, tags::SOP_INSTANCE_UID, tags::STUDY_ID] {
            assert_ne!(made.get(tag), other.get(tag), "{} {tag}", shipped.name);
        }
    }
}

#[test]
fn what_was_de_identified_can_be_again_and_says_both() {
    let first = processed(&deidentifier("research"), &object(CT), Form::Explicit).unwrap().0;

    let second = processed(&deidentifier("direct-care-minimal"), &first, Form::Implicit).unwrap().0;

    let methods =
        String::from_utf8(second.bytes(tags::DEIDENTIFICATION_METHOD).unwrap().to_vec()).unwrap();
    assert!(methods.contains("research@") && methods.contains("direct-care-minimal@"), "{methods}");
    let codes: Vec<_> = second
        .items(tags::DEIDENTIFICATION_METHOD_CODE_SEQUENCE)
        .iter()
        .filter_map(|item| item.text(tags::CODE_VALUE))
        .collect();
    // Modified dates of the first, full dates of the second, and the Basic Profile once.
    assert!(
        codes.contains(&"113107".to_owned()) && codes.contains(&"113106".to_owned()),
        "{codes:?}"
    );
    assert_eq!(codes.iter().filter(|code| *code == "113100").count(), 1, "{codes:?}");
    let dates = second.text(tags::LONGITUDINAL_TEMPORAL_INFORMATION_MODIFIED);
    assert_eq!(dates.as_deref(), Some("MODIFIED"));
    assert_ne!(first.get(tags::PATIENT_ID), second.get(tags::PATIENT_ID));
}

#[test]
fn a_report_refers_to_its_images_afterwards() {
    let deidentifier = deidentifier("research");
    let mut images = HashSet::new();
    let mut frames = HashSet::new();
    for instance in sample_studies::HeadCt::small(9).build().instances {
        let syntax: TransferSyntax = instance.transfer_syntax_uid.parse().unwrap();
        let Ok((made, _)) = through(&deidentifier, &syntax, &instance.data_set) else { continue };
        images.insert(made.sop_instance.1.clone());
        frames.extend(made.data_set.text(tags::FRAME_OF_REFERENCE_UID));
    }
    let report = &sample_studies::structured_report(9).instances[0];
    let syntax: TransferSyntax = report.transfer_syntax_uid.parse().unwrap();
    let (report, _) = through(&deidentifier, &syntax, &report.data_set).unwrap();
    let mut referred = Vec::new();
    references(&report.data_set, &mut referred);

    assert!(!referred.is_empty() && frames.len() == 1);
    let found = referred.iter().filter(|uid| images.contains(*uid)).count();
    assert!(found > 0, "{referred:?}");
}

fn references(data_set: &DataSet, found: &mut Vec<String>) {
    found.extend(data_set.text(tags::REFERENCED_SOP_INSTANCE_UID));
    for element in &data_set.elements {
        if let Value::Items(items) = &element.value {
            for item in items {
                references(item, found);
            }
        }
    }
}

#[test]
fn many_elements_in_disorder_take_no_longer_than_in_order() {
    // 200,000 backwards, and as many kept private ones: n² steps would take minutes.
    let mut bytes = Vec::new();
    for nth in (0..200_000_u32).rev() {
        let tag = Tag(0x0011 + ((nth >> 15) as u16) * 2, 0x1000 + (nth & 0x7FFF) as u16);
        Element::new(tag, VR::LO, "x").write(Form::Explicit, &mut bytes);
    }
    let begun = std::time::Instant::now();

    let parsed = data_set::read(&syntax(Form::Explicit), &bytes).unwrap();

    assert!(parsed.data_set.elements.is_sorted_by_key(|element| element.tag));
    assert_eq!(parsed.data_set.elements.len(), 200_000);
    assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
}

fn elements() -> impl Strategy<Value = Element> {
    let tag = prop_oneof![
        prop::sample::select(crate::table::rows().map(|(tag, _)| tag).collect::<Vec<_>>()),
        (any::<u16>(), any::<u16>()).prop_map(|(group, element)| Tag(group | 8, element | 1)),
    ];
    let vr = prop::sample::select(vec![
        VR::PN,
        VR::LO,
        VR::UN,
        VR::UI,
        VR::DA,
        VR::DT,
        VR::TM,
        VR::SQ,
        VR::OB,
        VR::US,
        VR::CS,
        VR::AS,
        VR::DS,
        VR::UT,
    ]);
    let leaf = (tag.clone(), vr, prop::collection::vec(any::<u8>(), 0..24)).prop_map(
        |(tag, vr, value)| {
            let vr = if vr == VR::SQ { VR::UN } else { vr };
            Element::new(tag, vr, value)
        },
    );
    leaf.prop_recursive(3, 24, 4, move |inner| {
        (tag.clone(), prop::collection::vec(prop::collection::vec(inner, 0..4), 0..3))
            .prop_map(|(tag, items)| Element::sequence(tag, items.into_iter().map(item).collect()))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_data_set_makes_it_panic(
        added in prop::collection::vec(elements(), 0..20),
        profile in 0..SHIPPED.len(),
        implicit in any::<bool>(),
    ) {
        let form = if implicit { Form::Implicit } else { Form::Explicit };
        let mut object = object(CT);
        for element in added {
            object.put(element);
        }
        let deidentifier = deidentifier(SHIPPED[profile].name);
        if let Ok((made, written)) = processed(&deidentifier, &object, form) {
            prop_assert!(!contains(&written, "Zebrowitz") && !contains(&written, "QX7734215"));
            let mark = made.text(tags::PATIENT_IDENTITY_REMOVED);
            prop_assert_eq!(mark.as_deref(), Some("YES"));
        }
    }

    #[test]
    fn a_subjects_dates_move_together(days in prop::collection::vec(0..3000_i64, 2..5)) {
        let deidentifier = deidentifier("research");
        let first = jiff::civil::date(2015, 3, 1);
        let mut shifts = HashSet::new();
        for day in days {
            let date = first.checked_add(jiff::Span::new().days(day)).unwrap();
            let mut object = object(CT);
            object.put(text(tags::STUDY_DATE, &date.strftime("%Y%m%d").to_string()));
            let (made, _) = processed(&deidentifier, &object, Form::Explicit).unwrap();
            let moved = parse_date(&made.text(tags::STUDY_DATE).unwrap()).unwrap();
            shifts.insert(moved.since(date).unwrap().get_days());
        }
        prop_assert_eq!(shifts.len(), 1);
    }
}
