use gantry_deidentify::data_set::{self, DataSet, Element, Value};
use gantry_store::dicom::TransferSyntax;
use gantry_store::dicom::scanner::{Budget, Scanner};
use proptest::prelude::*;

use super::*;
use crate::model::{self, BulkValue, ModelError};
use crate::read::{Limits, Wrong, fill};

fn none(_: &BulkValue<'_>) -> Option<String> {
    None
}

fn json_of(set: &DataSet) -> String {
    String::from_utf8(model::tree::<Json>(set, Vec::new(), u64::MAX, none).unwrap()).unwrap()
}

fn bytes_of(set: &DataSet) -> Vec<u8> {
    let mut bytes = Vec::new();
    set.write(data_set::Form::Explicit, &mut bytes);
    bytes
}

fn encoded(syntax: &str, bytes: &[u8]) -> Result<String, ModelError> {
    let uri = |bulk: &BulkValue<'_>| Some(format!("bulk/{bulk}"));
    let out = model::encoded::<Json>(&syntax.parse().unwrap(), bytes, Vec::new(), 256, uri)?;
    Ok(String::from_utf8(out).unwrap())
}

const EXPLICIT: &str = "1.2.840.10008.1.2.1";

fn element(group: u16, number: u16, vr: VR, value: &[u8]) -> Element {
    Element { tag: Tag(group, number), vr, value: Value::Bytes(value.to_vec()) }
}

/// VR, bytes, and what stands behind the VR.
const VALUES: &[(VR, &[u8], &str)] = &[
    (VR::AE, b" STORE \\", r#","Value":["STORE",null]"#),
    (VR::AS, b"042Y", r#","Value":["042Y"]"#),
    (VR::AT, b"\x10\x00\x20\x00\xe0\x7f\x10\x00", r#","Value":["00100020","7FE00010"]"#),
    (VR::CS, b"ORIGINAL\\\\PRIMARY ", r#","Value":["ORIGINAL",null,"PRIMARY"]"#),
    (VR::DA, b"20240229", r#","Value":["20240229"]"#),
    (VR::DS, b"1.50\\ -.5 \\nan", r#","Value":[1.50,-0.5,"nan"]"#),
    (VR::DT, b"20240229123000.5+0100 ", r#","Value":["20240229123000.5+0100"]"#),
    (VR::FL, b"\xcd\xcc\xcc\x3d\x00\x00\x80\x7f", r#","Value":[0.1,"Infinity"]"#),
    (VR::FD, b"\x9a\x99\x99\x99\x99\x99\xb9\x3f", r#","Value":[0.1]"#),
    (VR::IS, b"+07\\-3\\x", r#","Value":[7,-3,"x"]"#),
    (VR::LO, b"a\"b\x01\\/ c ", r#","Value":["a\"b\u0001","/ c"]"#),
    (VR::LT, b" a\\b\r\n\tc ", r#","Value":[" a\\b\r\n\tc"]"#),
    (VR::OB, b"\x00\x01\x02", r#","InlineBinary":"AAEC""#),
    (VR::OD, b"\x00\x00\x00\x00\x00\x00\xf0\x3f", r#","InlineBinary":"AAAAAAAA8D8=""#),
    (VR::OF, b"\x00\x00\x80\x3f", r#","InlineBinary":"AACAPw==""#),
    (VR::OL, b"\x01\x00\x00\x00", r#","InlineBinary":"AQAAAA==""#),
    (VR::OV, b"\x01\x00\x00\x00\x00\x00\x00\x00", r#","InlineBinary":"AQAAAAAAAAA=""#),
    (VR::OW, b"\x01\x02", r#","InlineBinary":"AQI=""#),
    (
        VR::PN,
        b"A^B=\xc3\xa9=c^d\\\\==e ",
        r#","Value":[{"Alphabetic":"A^B","Ideographic":"é","Phonetic":"c^d"},null,{"Phonetic":"e"}]"#,
    ),
    (VR::SH, b"x", r#","Value":["x"]"#),
    (VR::SL, b"\xff\xff\xff\xff", r#","Value":[-1]"#),
    (VR::SS, b"\xff\xff\x01\x00", r#","Value":[-1,1]"#),
    (VR::ST, b"one\\value", r#","Value":["one\\value"]"#),
    (VR::SV, b"\xfe\xff\xff\xff\xff\xff\xff\xff", r#","Value":[-2]"#),
    (VR::TM, b"1230\\ ", r#","Value":["1230",null]"#),
    (VR::UC, b"a\\b", r#","Value":["a","b"]"#),
    (VR::UI, b"1.2.3\0", r#","Value":["1.2.3"]"#),
    (VR::UL, b"\xff\xff\xff\xff", r#","Value":[4294967295]"#),
    (VR::UN, b"\xff", r#","InlineBinary":"/w==""#),
    (VR::UR, b"http://a/?b\\c ", r#","Value":["http://a/?b\\c"]"#),
    (VR::US, b"\x00\x02", r#","Value":[512]"#),
    (VR::UT, b"x\\y", r#","Value":["x\\y"]"#),
    (VR::UV, b"\xff\xff\xff\xff\xff\xff\xff\xff", r#","Value":["18446744073709551615"]"#),
];

#[test]
fn every_vr_is_written_and_read_again() {
    for (vr, value, members) in VALUES {
        let charset = element(0x0008, 0x0005, VR::CS, b"ISO_IR 192");
        let set = DataSet { elements: vec![charset, element(0x0009, 0x1001, *vr, value)] };
        let head = r#"{"00080005":{"vr":"CS","Value":["ISO_IR 192"]},"00091001":{"vr":""#;
        let expected = format!("{head}{vr}\"{members}}}}}");

        assert_eq!(json_of(&set), expected);
        let read = read_one(expected.as_bytes(), &Limits::default()).unwrap().data_set;
        assert_eq!(json_of(&read), expected);

        let empty = DataSet { elements: vec![element(0x0009, 0x1001, *vr, b"")] };
        let expected = format!("{{\"00091001\":{{\"vr\":\"{vr}\"}}}}");
        assert_eq!(json_of(&empty), expected);
        let read = read_one(expected.as_bytes(), &Limits::default()).unwrap().data_set;
        assert_eq!(json_of(&read), expected);
    }
    // All but SQ, which has its own test.
    assert_eq!(VALUES.len(), 33);
}

#[test]
fn sequences_have_items_and_may_be_empty() {
    let empty = Element::sequence(Tag(0x0008, 0x1111), vec![]);
    let items = vec![DataSet::default(), DataSet { elements: vec![empty.clone()] }];
    let set = DataSet { elements: vec![empty, Element::sequence(Tag(0x0008, 0x1140), items)] };

    let expected =
        r#"{"00081111":{"vr":"SQ"},"00081140":{"vr":"SQ","Value":[{},{"00081111":{"vr":"SQ"}}]}}"#;
    assert_eq!(json_of(&set), expected);
    assert_eq!(encoded(EXPLICIT, &bytes_of(&set)).unwrap(), expected);
    assert_eq!(read_one(expected.as_bytes(), &Limits::default()).unwrap().data_set, set);
}

#[test]
fn group_lengths_go_and_disorder_is_put_right() {
    let charset = element(0x0008, 0x0005, VR::CS, b"ISO_IR 100");
    let length = b"\x08\0\0\0UL\x04\0\x01\0\0\0";
    let swapped = DataSet {
        elements: vec![
            charset,
            element(0x0010, 0x0020, VR::LO, b"\xe9 "),
            element(0x0008, 0x0060, VR::CS, b"CT"),
        ],
    };
    let bytes = [length.as_slice(), &bytes_of(&swapped)].concat();
    assert_eq!(
        encoded(EXPLICIT, &bytes).unwrap(),
        r#"{"00080005":{"vr":"CS","Value":["ISO_IR 192"]},"00080060":{"vr":"CS","Value":["CT"]},"00100020":{"vr":"LO","Value":["é"]}}"#
    );

    let twice = [element(0x0009, 0x1001, VR::LO, b"a "), element(0x0009, 0x1001, VR::LO, b"b ")];
    let twice = bytes_of(&DataSet { elements: twice.into() });
    assert_eq!(encoded(EXPLICIT, &twice), Err(ModelError::Twice { tag: Tag(0x0009, 0x1001) }));
}

#[test]
fn an_item_has_the_character_set_around_it_unless_it_has_its_own() {
    let name = |value: &[u8]| element(0x0010, 0x0010, VR::PN, value);
    let own = DataSet {
        elements: vec![element(0x0008, 0x0005, VR::CS, b"ISO_IR 144"), name(b"\xbb\xee")],
    };
    let inherits = DataSet { elements: vec![name(b"\xe9 ")] };
    let set = DataSet {
        elements: vec![
            element(0x0008, 0x0005, VR::CS, b"ISO_IR 100"),
            Element::sequence(Tag(0x0008, 0x1140), vec![own, inherits]),
            name(b"\xe4 "),
        ],
    };
    let json = encoded(EXPLICIT, &bytes_of(&set)).unwrap();
    let own_but_empty = r#"{"00081140":{"vr":"SQ","Value":[{"00080005":{"vr":"CS"},"00100020":{"vr":"LO","Value":["é"]}}]}}"#;
    let read = read_one(own_but_empty.as_bytes(), &Limits::default()).unwrap().data_set;
    assert!(encoded(EXPLICIT, &bytes_of(&read)).unwrap().contains("\"é\""));
    for text in ["\"Лю\"", "\"é\"", "\"ä\""] {
        assert!(json.contains(text), "{json}");
    }
    assert_eq!(json.matches("ISO_IR 192").count(), 2);
}

#[test]
fn what_is_long_or_pixels_becomes_a_uri_or_goes() {
    let icon = DataSet {
        elements: vec![
            element(0x7FE0, 0x0010, VR::OB, b"\x01\x02"),
            element(0x7FE1, 0x1001, VR::OB, &[0; 300]),
        ],
    };
    let set = DataSet {
        elements: vec![
            element(0x0008, 0x0018, VR::UI, &[b'1'; 300]),
            Element::sequence(Tag(0x0088, 0x0200), vec![icon]),
            element(0x7FE0, 0x0010, VR::OW, b"\x01\x02"),
        ],
    };
    let json = encoded(EXPLICIT, &bytes_of(&set)).unwrap();
    assert!(json.contains(r#""7FE00010":{"vr":"OB","InlineBinary":"AQI="}"#), "{json}");
    assert!(
        json.contains(r#""7FE11001":{"vr":"OB","BulkDataURI":"bulk/00880200/1/7FE11001"}"#),
        "{json}"
    );
    assert!(json.ends_with(r#""7FE00010":{"vr":"OW","BulkDataURI":"bulk/7FE00010"}}"#), "{json}");
    assert!(json.contains(&"1".repeat(300)), "a UID may have no URI");
    assert!(!json_of(&set).contains(r#"{"vr":"OW""#), "without a URI it goes");

    let object = read_one(json.as_bytes(), &Limits::default()).unwrap();
    let places: Vec<_> = object.bulk.iter().map(|bulk| bulk.place.to_string()).collect();
    assert_eq!(places, ["00880200/1/7FE11001", "7FE00010"]);
    let mut filled = object.data_set;
    assert!(fill(&mut filled, &object.bulk[0].place, vec![0; 300]));
    assert!(fill(&mut filled, &object.bulk[1].place, vec![1, 2]));
    assert_eq!(filled, set);
    assert!(!fill(&mut filled, &"00880200/2/7FE11001".parse().unwrap(), vec![]));
}

#[test]
fn words_that_are_no_whole_number_of_units_are_shown_whole() {
    let set = DataSet { elements: vec![element(0x0028, 0x0010, VR::US, b"\x01\x02\x03")] };
    assert_eq!(json_of(&set), r#"{"00280010":{"vr":"UN","InlineBinary":"AQID"}}"#);
}

#[test]
fn the_dictionary_says_what_is_not_written() {
    // Implicit VR: signed by Pixel Representation; a private creator is text, what it reserved is unknown.
    let implicit = b"\x28\0\x03\x01\x02\0\0\0\x01\0\x28\0\x06\x01\x02\0\0\0\xff\xff\x29\0\x10\0\x04\0\0\0ACME\x29\0\x01\x10\x02\0\0\0\x01\x02";
    assert_eq!(
        encoded("1.2.840.10008.1.2", implicit).unwrap(),
        r#"{"00280103":{"vr":"US","Value":[1]},"00280106":{"vr":"SS","Value":[-1]},"00290010":{"vr":"LO","Value":["ACME"]},"00291001":{"vr":"UN","InlineBinary":"AQI="}}"#
    );
    let unknown = DataSet { elements: vec![element(0x0010, 0x0020, VR::UN, b"ID1 ")] };
    assert_eq!(
        encoded(EXPLICIT, &bytes_of(&unknown)).unwrap(),
        r#"{"00100020":{"vr":"LO","Value":["ID1"]}}"#
    );
}

#[test]
fn the_same_object_has_the_same_json_in_every_transfer_syntax() {
    use sample_studies::TransferSyntax as Syntax;
    for study in [sample_studies::structured_report(3), sample_studies::mr(3)] {
        for instance in study.instances.iter().take(3) {
            let expected = encoded(EXPLICIT, &instance.data_set).unwrap();
            for syntax in [
                Syntax::ImplicitVrLittleEndian,
                Syntax::ExplicitVrBigEndian,
                Syntax::DeflatedExplicitVrLittleEndian,
            ] {
                let other = instance.in_transfer_syntax(syntax).unwrap();
                let json = encoded(&other.transfer_syntax_uid, &other.data_set).unwrap();
                assert_eq!(public(&json), public(&expected), "{syntax:?}");
            }
        }
    }
}

/// Without private attributes, of which implicit VR does not say what they are.
fn public(json: &str) -> serde_json::Value {
    fn strip(value: &mut serde_json::Value) {
        match value {
            serde_json::Value::Array(values) => values.iter_mut().for_each(strip),
            serde_json::Value::Object(members) => {
                members.retain(|name, _| name.len() != 8 || !"13579BDF".contains(&name[3..4]));
                members.values_mut().for_each(strip);
            }
            _ => {}
        }
    }
    let mut value = serde_json::from_str(json).unwrap();
    strip(&mut value);
    value
}

#[test]
fn all_sample_objects_come_back_from_json() {
    let mut objects = 0;
    for instance in sample_studies::all_valid(5).into_iter().flat_map(|study| study.instances) {
        let json = encoded(&instance.transfer_syntax_uid, &instance.data_set).unwrap();
        let object = read_one(json.as_bytes(), &Limits::default()).unwrap();
        let uri = |bulk: &BulkValue<'_>| {
            object
                .bulk
                .iter()
                .find(|one| one.place.to_string() == bulk.to_string())
                .map(|one| one.uri.clone())
        };
        // What has a URI is empty in the tree, and shorter than any bound: so it is given again by its place.
        let mut tree = object.data_set.clone();
        for bulk in &object.bulk {
            assert!(fill(&mut tree, &bulk.place, vec![0; 264]));
        }
        let again = model::tree::<Json>(&tree, Vec::new(), 256, uri).unwrap();
        assert_eq!(String::from_utf8(again).unwrap(), json);
        // The tree is a data set that the scanner passes and that means the same.
        let parsed = data_set::read(
            &TransferSyntax::explicit_vr_little_endian(),
            &bytes_of(&object.data_set),
        )
        .unwrap();
        assert_eq!(
            parsed.data_set.elements.len() + usize::from(parsed.pixel_data.is_some()),
            object.data_set.elements.len()
        );
        objects += 1;
    }
    assert!(objects > 20);
}

#[test]
fn an_icon_has_its_own_signs_and_a_name_may_stand_in_the_deepest_item() {
    // Implicit VR: the icon's pixels are signed, those of the image around it are not.
    let implicit = b"\x28\0\x03\x01\x02\0\0\0\0\0\x88\0\0\x02\x1c\0\0\0\xfe\xff\0\xe0\x14\0\0\0\x28\0\x03\x01\x02\0\0\0\x01\0\x28\0\x06\x01\x02\0\0\0\xff\xff\x40\0\x16\x92\x02\0\0\0\xff\xff";
    let json = encoded("1.2.840.10008.1.2", implicit).unwrap();
    assert!(json.contains(r#""00280106":{"vr":"SS","Value":[-1]}"#), "{json}");
    assert!(json.contains(r#""00409216":{"vr":"US","Value":[65535]}"#), "{json}");

    let mut set = DataSet { elements: vec![element(0x0010, 0x0010, VR::PN, b"A^B")] };
    for _ in 0..64 {
        set = DataSet { elements: vec![Element::sequence(Tag(0x0008, 0x1140), vec![set])] };
    }
    let json = json_of(&set);
    assert_eq!(encoded(EXPLICIT, &bytes_of(&set)).unwrap(), json);
    assert_eq!(json_of(&read_one(json.as_bytes(), &Limits::default()).unwrap().data_set), json);
}

#[test]
fn more_is_read_than_is_written() {
    let read = |json: &str| read_one(json.as_bytes(), &Limits::default()).unwrap();
    let same =
        |json: &str, written: &str| assert_eq!(json_of(&read(json).data_set), written, "{json}");
    same(r#"{"0020000d":{"Value":["1.2"]}}"#, r#"{"0020000D":{"vr":"UI","Value":["1.2"]}}"#);
    same(
        r#"{"00100010":{"Value":["A^B"],"vr":"PN"}}"#,
        r#"{"00100010":{"vr":"PN","Value":[{"Alphabetic":"A^B"}]}}"#,
    );
    same(r#"{"00201208":{"vr":"IS","Value":["12"]}}"#, r#"{"00201208":{"vr":"IS","Value":[12]}}"#);
    same(
        r#"{"00201208":{"vr":"IS","Value":[12.0],"note":[{"a":[1,true,null]}]}}"#,
        r#"{"00201208":{"vr":"IS","Value":[12]}}"#,
    );
    same(r#"{"00280010":{"vr":"US","Value":null}}"#, r#"{"00280010":{"vr":"US"}}"#);
    same(
        r#"{"00281050":{"vr":"DS","Value":[0.30000000000000004]}}"#,
        r#"{"00281050":{"vr":"DS","Value":[0.3]}}"#,
    );
    same(
        "\u{FEFF} {\"00100020\" :{\"vr\":\"LO\",\"Value\":[\"\\ud83d\\ude00\"]}}",
        "{\"00080005\":{\"vr\":\"CS\",\"Value\":[\"ISO_IR 192\"]},\"00100020\":{\"vr\":\"LO\",\"Value\":[\"😀\"]}}",
    );
    let meta = read(r#"{"00020010":{"vr":"UI","Value":["1.2.840.10008.1.2.1"]}}"#);
    assert_eq!(meta.file_meta.text(Tag(2, 0x10)).as_deref(), Some("1.2.840.10008.1.2.1"));
    assert!(meta.data_set.elements.is_empty());
    assert_eq!(read_many(b"[]", &Limits::default()).unwrap(), []);
    assert_eq!(read_many(b"[{},{}]", &Limits::default()).unwrap().len(), 2);
}

#[test]
fn what_is_wrong_is_refused_with_its_place() {
    let cases: &[(&str, Wrong)] = &[
        ("", Wrong::Json(Fault::End)),
        ("{", Wrong::Json(Fault::End)),
        ("[]", Wrong::Json(Fault::Unexpected)),
        ("{} x", Wrong::Json(Fault::More)),
        (r#"{"PatientName":{"vr":"PN"}}"#, Wrong::Tag),
        (r#"{"00000002":{"vr":"UI"}}"#, Wrong::Tag),
        (r#"{"FFFEE000":{"vr":"UN"}}"#, Wrong::Tag),
        (r#"{"00081140":{"vr":"SQ","Value":[{"00020010":{"vr":"UI"}}]}}"#, Wrong::Tag),
        (r#"{"00091001":{}}"#, Wrong::Vr),
        (r#"{"00091001":{"vr":"ZZ"}}"#, Wrong::Vr),
        (r#"{"00100020":{"vr":"LO"},"00100020":{"vr":"LO"}}"#, Wrong::Twice),
        (r#"{"00100020":{"vr":"LO","vr":"LO"}}"#, Wrong::Twice),
        (r#"{"00420011":{"vr":"OB","InlineBinary":"","BulkDataURI":"x"}}"#, Wrong::Twice),
        (r#"{"00420011":{"vr":"OB","InlineBinary":"?"}}"#, Wrong::Value),
        (r#"{"00420011":{"vr":"OB","Value":["AA=="]}}"#, Wrong::Value),
        (r#"{"00100020":{"vr":"LO","InlineBinary":"AA=="}}"#, Wrong::Value),
        (r#"{"00100020":{"vr":"LO","BulkDataURI":"file:///etc/passwd"}}"#, Wrong::Value),
        (r#"{"00100020":{"vr":"LO","Value":["a\\b"]}}"#, Wrong::Value),
        (r#"{"00100010":{"vr":"PN","Value":[{"Alphabetic":"a=b"}]}}"#, Wrong::Value),
        (
            r#"{"00100010":{"vr":"PN","Value":[{"Alphabetic":"a","00100020":{"vr":"LO"}}]}}"#,
            Wrong::Value,
        ),
        (r#"{"00280010":{"vr":"US","Value":[65536]}}"#, Wrong::Value),
        (r#"{"00280010":{"vr":"US","Value":[null]}}"#, Wrong::Value),
        (r#"{"00280009":{"vr":"AT","Value":["1063"]}}"#, Wrong::Value),
        (r#"{"00201208":{"vr":"IS","Value":[1.5]}}"#, Wrong::Value),
        (r#"{"00081140":{"vr":"SQ","Value":["a"]}}"#, Wrong::Value),
        (r#"{"00104000":{"vr":"LT","Value":["a","b"]}}"#, Wrong::Value),
        (r#"{"00100020":{"vr":"LO","Value":["\ud800"]}}"#, Wrong::Json(Fault::String)),
        ("{\"00100020\":{\"vr\":\"LO\",\"Value\":[\"a\nb\"]}}", Wrong::Json(Fault::String)),
        (r#"{"00280010":{"vr":"US","Value":[01]}}"#, Wrong::Json(Fault::Number)),
        (r#"{"00280010":{"vr":"US","Value":[1,]}}"#, Wrong::Json(Fault::Number)),
        (r#"{"00280010":{"vr":"US"},}"#, Wrong::Json(Fault::Unexpected)),
    ];
    for (json, wrong) in cases {
        let error = read_one(json.as_bytes(), &Limits::default()).unwrap_err();
        assert_eq!(error.wrong, *wrong, "{json}: {error}");
    }
    let error = read_one(
        br#"{"00081140":{"vr":"SQ","Value":[{},{"00280010":{"vr":"US","Value":["secret"]}}]}}"#,
        &Limits::default(),
    )
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "wrong at byte 47, attribute 00081140/2/00280010: a value that its value representation does not have"
    );
    assert_eq!(
        read_one(b"{\"\xff\":1}", &Limits::default()).unwrap_err().wrong,
        Wrong::Json(Fault::Utf8)
    );
}

#[test]
fn depth_number_and_length_are_bounded() {
    let limits = Limits::default();
    for depth in [66, 100_000] {
        let json = r#"{"00081140":{"vr":"SQ","Value":["#.repeat(depth);
        assert_eq!(read_one(json.as_bytes(), &limits).unwrap_err().wrong, Wrong::TooDeep(64));
    }
    let skipped = format!(r#"{{"00081140":{{"x":{}"#, "[".repeat(100_000));
    assert_eq!(
        read_one(skipped.as_bytes(), &limits).unwrap_err().wrong,
        Wrong::Json(Fault::TooDeep)
    );
    let many = Limits { elements: 3, ..limits };
    assert_eq!(read_many(b"[{},{},{},{}]", &many).unwrap_err().wrong, Wrong::TooMany(3));
    let values = Limits { values: 2, ..limits };
    let numbers = r#"{"00280009":{"vr":"US","Value":[1,2]},"00280010":{"vr":"US","Value":[3]}}"#;
    assert_eq!(read_one(numbers.as_bytes(), &values).unwrap_err().wrong, Wrong::TooManyValues(2));
    // The place of a URI is kept with all that is around it.
    let deep = r#"{"00081140":{"vr":"SQ","Value":[{"00420011":{"vr":"OB","BulkDataURI":"x"}}]}}"#;
    for (elements, fits) in [(6, true), (5, false)] {
        let limits = Limits { elements, ..limits };
        assert_eq!(read_one(deep.as_bytes(), &limits).is_ok(), fits);
    }
    let short = Limits { bytes: 5, ..limits };
    assert_eq!(read_many(b"[{},{}]", &short).unwrap_err().wrong, Wrong::TooLong(5));
}

/// 70 and 70.0 are one number; an empty array is none (PS3.18 F.2.5).
fn as_doubles(value: &serde_json::Value) -> serde_json::Value {
    match value {
        serde_json::Value::Array(values) => values.iter().map(as_doubles).collect(),
        serde_json::Value::Object(members) => {
            let some = members
                .iter()
                .filter(|(_, value)| value.as_array().is_none_or(|values| !values.is_empty()));
            some.map(|(name, value)| (name.clone(), as_doubles(value))).collect()
        }
        serde_json::Value::Number(number) => number.as_f64().into(),
        other => other.clone(),
    }
}

#[test]
fn pydicom_writes_the_same_json() {
    let folder = tempfile::tempdir().unwrap();
    let instances: Vec<_> = sample_studies::all_valid(9)
        .into_iter()
        .flat_map(|study| study.instances.into_iter().take(2))
        .collect();
    let script = "import sys,json,pydicom,warnings\nwarnings.simplefilter('ignore')\nfor f in sys.argv[1:]:\n d=pydicom.dcmread(f)\n print(json.dumps(d.to_json_dict(bulk_data_threshold=256, bulk_data_element_handler=lambda e: '')))";
    let mut command = std::process::Command::new("python3");
    command.args(["-c", script]);
    for (number, instance) in instances.iter().enumerate() {
        let file = folder.path().join(format!("{number}.dcm"));
        let head = sample_studies::part10_header(
            &instance.sop_class_uid,
            &instance.sop_instance_uid,
            &instance.transfer_syntax_uid,
        );
        std::fs::write(&file, [head, instance.data_set.clone()].concat()).unwrap();
        command.arg(file);
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "pydicom is missing; tests/run installs it: {said}");
    let lines = String::from_utf8(output.stdout).unwrap();
    assert_eq!(lines.lines().count(), instances.len());
    for (line, instance) in lines.lines().zip(&instances) {
        let theirs: serde_json::Value = serde_json::from_str(line).unwrap();
        let ours = encoded(&instance.transfer_syntax_uid, &instance.data_set).unwrap();
        let ours: serde_json::Value = serde_json::from_str(&ours).unwrap();
        let read = read_one(line.as_bytes(), &Limits::default()).unwrap().data_set;
        assert_eq!(read.elements.len(), ours.as_object().unwrap().len(), "theirs is read, too");
        let (theirs, ours) = (theirs.as_object().unwrap(), ours.as_object().unwrap());
        assert_eq!(theirs.keys().collect::<Vec<_>>(), ours.keys().collect::<Vec<_>>());
        for (tag, attribute) in theirs {
            let ours = &ours[tag];
            let bulk = attribute.get("BulkDataURI").is_some();
            if tag != "00080005" && !bulk && ours.get("BulkDataURI").is_none() {
                assert_eq!(
                    as_doubles(ours),
                    as_doubles(attribute),
                    "{tag} of {}",
                    instance.file_name
                );
            }
        }
    }
}

proptest! {
    #[test]
    fn chunks_have_no_influence(cuts in prop::collection::vec(1_usize..60, 1..20)) {
        let instance = sample_studies::structured_report(3).instances.remove(0);
        let uri = |bulk: &BulkValue<'_>| Some(format!("bulk/{bulk}"));
        let writer = model::Writer::<Json, _>::new(Vec::new(), 256, uri);
        let mut scanner = Scanner::with_visitor(&EXPLICIT.parse().unwrap(), Budget::default(), writer);
        let (mut rest, mut cuts) = (instance.data_set.as_slice(), cuts.into_iter().cycle());
        while !rest.is_empty() {
            let (chunk, after) = rest.split_at(cuts.next().unwrap().min(rest.len()));
            scanner.feed(chunk).unwrap();
            rest = after;
        }
        let json = scanner.finish_visit().unwrap().1.finish().unwrap();
        prop_assert_eq!(String::from_utf8(json).unwrap(), encoded(EXPLICIT, &instance.data_set).unwrap());
    }

    #[test]
    fn arbitrary_text_never_stops_the_reader(text in "[\\[\\]{}\":,0-9a-fvrVUSLOQNPValue null\\\\.-]{0,200}") {
        let _ = read_many(text.as_bytes(), &Limits::default());
    }

    #[test]
    fn a_document_with_a_byte_changed_is_read_or_refused(at in 0_usize..2000, byte: u8) {
        let instance = sample_studies::structured_report(3).instances.remove(0);
        let mut json = encoded(EXPLICIT, &instance.data_set).unwrap().into_bytes();
        let at = at % json.len();
        json[at] = byte;
        if let Ok(object) = read_one(&json, &Limits::default()) {
            let written = json_of(&object.data_set);
            let again = read_one(written.as_bytes(), &Limits::default()).unwrap();
            prop_assert_eq!(json_of(&again.data_set), written);
        }
    }

    #[test]
    fn every_text_is_a_string_that_others_read(text in any::<String>()) {
        let mut out = Vec::new();
        string(&mut out, &text);
        prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
    }

    #[test]
    fn arbitrary_elements_give_valid_json(vr in 0..VALUES.len(), value in prop::collection::vec(any::<u8>(), 0..40), charset in prop::sample::select(vec!["ISO_IR 100", "ISO_IR 192", "\\ISO 2022 IR 87", "GB18030"])) {
        let set = DataSet { elements: vec![
            element(0x0008, 0x0005, VR::CS, charset.as_bytes()),
            element(0x0009, 0x1001, VALUES[vr].0, &value),
        ] };
        let json = json_of(&set);
        prop_assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok(), "{}", json);
        if let Ok(read) = read_one(json.as_bytes(), &Limits::default()) {
            prop_assert_eq!(json_of(&read.data_set), json);
        }
    }
}
