//! Every row of Table E.1-1, acted out: what an attribute is like afterwards agrees with the code that was decided for it,
//! at the top level, in a sequence that stays, two levels deep, and in a private sequence that stays.

use super::*;
use crate::table;

const FRAMES: Tag = tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE;
const PIXEL_VALUES: Tag = tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE;
/// "Philips Imaging DD 001", 5FH: a sequence of Table E.3.10-1.
const PRIVATE: Tag = Tag(0x2001, 0x105F);

/// A value of this VR that stands nowhere else; `nth` tells attributes, `place` the places of one.
fn planted(tag: Tag, vr: VR, nth: usize, place: usize) -> Element {
    let number = nth * 4 + place;
    let value: Vec<u8> = match vr {
        VR::PN => format!("ZQN{number:05}^ZQG{number:05}").into(),
        VR::UI => format!("1.2.826.0.1.9999.{number}.1").into(),
        VR::DA => {
            format!("{}{:02}{:02}", 2001 + number % 20, 1 + number % 12, 1 + number % 28).into()
        }
        VR::DT => {
            let day = 1 + number % 28;
            format!("{}{:02}{day:02}1015{:02}", 2001 + number % 20, 1 + number % 12, number % 60)
                .into()
        }
        VR::TM => format!("10{:02}{:02}.{number:05}", number % 60, number % 59).into(),
        VR::DS => format!("{}.5", number + 20_000).into(),
        VR::IS => format!("{}", number + 20_000).into(),
        VR::AS => "045Y".into(),
        VR::US | VR::SS => vec![7, 1],
        VR::AT | VR::UL | VR::SL | VR::FL | VR::OF | VR::OL => vec![7, 1, 2, 0],
        VR::FD | VR::SV | VR::UV | VR::OD | VR::OV => vec![7, 1, 2, 0, 0, 1, 9, 63],
        VR::SQ => {
            let person = text(tags::OPERATORS_NAME, &format!("ZQS{number:05}^ZQ"));
            return Element::sequence(tag, vec![item([person])]);
        }
        _ => format!("ZQT{number:05}X").into(),
    };
    Element::new(tag, vr, value)
}

fn token(element: &Element) -> Option<String> {
    let bytes = element.bytes()?;
    let text = String::from_utf8(bytes.to_vec()).ok()?;
    text.starts_with("ZQ").then(|| text.split('^').next().unwrap().to_owned())
}

/// Whether an element is one of its VR, with a value.
fn is_whole(element: &Element, vr: VR) -> bool {
    match &element.value {
        Value::Items(_) => vr == VR::SQ,
        Value::Bytes(bytes) if data_set::is_text(vr) => {
            !bytes.is_empty() && value::is_valid(vr, element.bytes().unwrap())
        }
        Value::Bytes(bytes) => !bytes.is_empty() && value::is_valid(vr, bytes),
        Value::Fragments(_) => false,
    }
}

fn check(
    decider: &Decider<'_>,
    (form, path): (Form, &[Tag]),
    original: &Element,
    left: Option<&Element>,
) {
    let tag = original.tag;
    let vr = dictionary_vr(tag);
    let decision = decider.decide(Place { path, tag, vr, creator: None });
    let Action::Code(code) = decision.action else { panic!("{tag}") };
    let about = format!("{tag} {vr} {code:?} {:?} {path:?} {form:?}", decision.origin);
    let pseudonymous =
        [tags::PATIENT_ID, tags::PATIENT_NAME, tags::ACCESSION_NUMBER, tags::STUDY_ID];
    let marks = [
        tags::PATIENT_IDENTITY_REMOVED,
        tags::DEIDENTIFICATION_METHOD,
        tags::DEIDENTIFICATION_METHOD_CODE_SEQUENCE,
        tags::LONGITUDINAL_TEMPORAL_INFORMATION_MODIFIED,
    ];
    if marks.contains(&tag) {
        return;
    }
    if code == Code::X {
        assert!(left.is_none(), "{about}");
        return;
    }
    // What cannot be cleaned is treated as without the option, and may be gone.
    let Some(left) = left else {
        assert_eq!(code, Code::C, "{about}");
        return;
    };
    assert!(form == Form::Implicit || left.vr == original.vr, "{about}");
    match (code, vr) {
        (Code::Z, VR::SQ) => assert!(left.value == Value::Items(Vec::new()), "{about}"),
        (Code::Z, _) if pseudonymous.contains(&tag) => assert!(left != original, "{about}"),
        (Code::Z, _) => assert_eq!(left.bytes(), Some(&[][..]), "{about}"),
        (Code::K | Code::D, VR::SQ) => {
            assert!(matches!(left.value, Value::Items(_)), "{about}");
        }
        (Code::K, _) => assert_eq!(left.value, original.value, "{about}"),
        (Code::D | Code::U, VR::UI) => {
            let old = String::from_utf8_lossy(original.bytes().unwrap()).into_owned();
            let new = String::from_utf8_lossy(left.bytes().unwrap()).into_owned();
            assert_eq!(new, Values::new(&key()).uid(&old), "{about}");
        }
        (Code::D, _) => {
            assert!(is_whole(left, vr), "{about}");
            assert!(left.value != original.value, "{about}");
        }
        _ => {}
    }
    if let Some(token) = token(original).filter(|_| code != Code::K) {
        let mut bytes = Vec::new();
        left.write(Form::Explicit, &mut bytes);
        assert!(!contains(&bytes, &token), "{about}");
    }
}

#[test]
fn every_row_is_acted_out_in_every_place_under_every_option() {
    let options: Vec<Option<&str>> =
        ProfileOption::all().map(|option| Some(option.as_str())).chain([None]).collect();
    let mut rows: Vec<Tag> =
        table::rows().map(|(tag, _)| tag).filter(|tag| tag.group() > 4).collect();
    rows.sort_unstable();
    // Their own names are what the objects are called by.
    let own = [tags::SOP_INSTANCE_UID, tags::STUDY_INSTANCE_UID, tags::SERIES_INSTANCE_UID];
    let mut checked = 0;
    for option in options {
        let chosen: Vec<&str> = option.into_iter().collect();
        let mut with_private = chosen.clone();
        if option != Some("retain_safe_private") {
            with_private.push("retain_safe_private");
        }
        let deidentifier = with_options(&with_private, "");
        for (class, form) in
            [(CT, Form::Explicit), (CT, Form::Implicit), (ENHANCED_CT, Form::Explicit)]
        {
            let places: [&[Tag]; 4] = [&[], &[FRAMES], &[FRAMES, PIXEL_VALUES], &[PRIVATE]];
            let mut sets: Vec<DataSet> = vec![object(class); 4];
            for set in sets.iter_mut().skip(1) {
                *set = DataSet::default();
            }
            for (place, set) in sets.iter_mut().enumerate() {
                for (nth, tag) in rows.iter().enumerate() {
                    let vr = dictionary_vr(*tag);
                    // One attribute is newer than the dictionary.
                    if vr != VR::UN && !own.contains(tag) {
                        set.put(planted(*tag, vr, nth, place));
                    }
                }
            }
            let [mut top, mut frame, deep, private] =
                <[DataSet; 4]>::try_from(sets.clone()).unwrap();
            frame.put(Element::sequence(PIXEL_VALUES, vec![deep]));
            top.put(Element::sequence(FRAMES, vec![frame]));
            top.put(Element::new(Tag(0x2001, 0x0010), VR::LO, "Philips Imaging DD 001"));
            top.put(Element::sequence(PRIVATE, vec![private]));

            let (made, _) = processed(&deidentifier, &top, form)
                .unwrap_or_else(|why| panic!("{option:?} {class} {form:?}: {why}"));

            let decider = Decider::new(deidentifier.profile(), class, &[]);
            let frame = made.items(FRAMES).first().unwrap();
            let deep = frame.items(PIXEL_VALUES).first().unwrap();
            let private = made.items(PRIVATE).first().unwrap();
            for ((original, left), path) in
                sets.iter().zip([&made, frame, deep, private]).zip(places)
            {
                for tag in rows.iter().filter(|tag| !own.contains(tag)) {
                    let Some(element) = original.get(*tag) else { continue };
                    check(&decider, (form, path), element, left.get(*tag));
                    checked += 1;
                }
            }
        }
    }
    println!("{checked} attributes in their places");
    assert!(checked > 12 * 3 * 4 * 640, "{checked}");
}
