use gantry_deidentify::data_set::{Element, Value};
use proptest::prelude::*;

use super::*;
use crate::json::Json;
use crate::model::{self, BulkValue};
use crate::read::{Limits, Wrong, fill};

fn data_set(elements: Vec<Element>) -> gantry_deidentify::data_set::DataSet {
    gantry_deidentify::data_set::DataSet { elements }
}

fn element(group: u16, number: u16, vr: VR, value: &[u8]) -> Element {
    Element { tag: Tag(group, number), vr, value: Value::Bytes(value.to_vec()) }
}

#[expect(clippy::unnecessary_wraps, reason = "the writer asks for an option")]
fn uri(bulk: &BulkValue<'_>) -> Option<String> {
    Some(format!("bulk?a=\"<1>\"&b={bulk}"))
}

fn xml_of(set: &gantry_deidentify::data_set::DataSet) -> String {
    String::from_utf8(model::tree::<Xml>(set, Vec::new(), 256, uri).unwrap()).unwrap()
}

fn inner(xml: &str) -> &str {
    let begin = xml.find("preserve\">").unwrap() + "preserve\">".len();
    xml[begin..].strip_suffix("</NativeDicomModel>\n").unwrap()
}

fn document(inside: &str) -> String {
    format!("<?xml version=\"1.0\"?><!-- c --><NativeDicomModel>{inside}</NativeDicomModel>")
}

fn refused(xml: &str) -> Wrong {
    read(xml.as_bytes(), &Limits::default()).unwrap_err().wrong
}

#[test]
fn the_model_is_written_as_the_standard_shows_it() {
    let item = data_set(vec![element(0x0008, 0x1155, VR::UI, b"1.2\0")]);
    let set = data_set(vec![
        element(0x0008, 0x0005, VR::CS, b"ISO_IR 100"),
        element(0x0008, 0x0008, VR::CS, b"ORIGINAL\\\\AXIAL "),
        Element::sequence(Tag(0x0008, 0x1140), vec![item]),
        element(0x0009, 0x0010, VR::LO, b"ACME & <1>"),
        element(0x0009, 0x1001, VR::OB, b"\x01\x02"),
        element(0x0009, 0x1002, VR::UN, &[0; 300]),
        element(0x0010, 0x0010, VR::PN, b"Wang^Xiao^^Dr=\xe9"),
        element(0x0010, 0x4000, VR::LT, b"a\r\n\t\"b\" <c> & \x01"),
        element(0x0028, 0x0010, VR::US, b"\x00\x02"),
    ]);

    let expected = concat!(
        r#"<DicomAttribute tag="00080005" vr="CS" keyword="SpecificCharacterSet"><Value number="1">ISO_IR 192</Value></DicomAttribute>"#,
        r#"<DicomAttribute tag="00080008" vr="CS" keyword="ImageType"><Value number="1">ORIGINAL</Value><Value number="2"/><Value number="3">AXIAL</Value></DicomAttribute>"#,
        r#"<DicomAttribute tag="00081140" vr="SQ" keyword="ReferencedImageSequence"><Item number="1"><DicomAttribute tag="00081155" vr="UI" keyword="ReferencedSOPInstanceUID"><Value number="1">1.2</Value></DicomAttribute></Item></DicomAttribute>"#,
        r#"<DicomAttribute tag="00090010" vr="LO"><Value number="1">ACME &amp; &lt;1&gt;</Value></DicomAttribute>"#,
        r#"<DicomAttribute tag="00090001" vr="OB" privateCreator="ACME &amp; &lt;1&gt;"><InlineBinary>AQI=</InlineBinary></DicomAttribute>"#,
        r#"<DicomAttribute tag="00090002" vr="UN" privateCreator="ACME &amp; &lt;1&gt;"><BulkData uri="bulk?a=&quot;&lt;1&gt;&quot;&amp;b=00091002"/></DicomAttribute>"#,
        r#"<DicomAttribute tag="00100010" vr="PN" keyword="PatientName"><PersonName number="1"><Alphabetic><FamilyName>Wang</FamilyName><GivenName>Xiao</GivenName><NamePrefix>Dr</NamePrefix></Alphabetic><Ideographic><FamilyName>é</FamilyName></Ideographic></PersonName></DicomAttribute>"#,
        r#"<DicomAttribute tag="00104000" vr="LT" keyword="PatientComments"><Value number="1">a&#13;&#10;&#9;&quot;b&quot; &lt;c&gt; &amp; "#,
        "\u{FFFD}",
        r#"</Value></DicomAttribute>"#,
        r#"<DicomAttribute tag="00280010" vr="US" keyword="Rows"><Value number="1">512</Value></DicomAttribute>"#,
    );
    assert_eq!(inner(&xml_of(&set)), expected);
}

#[test]
fn all_sample_objects_come_back_from_xml() {
    for instance in sample_studies::all_valid(5).into_iter().flat_map(|study| study.instances) {
        let syntax = instance.transfer_syntax_uid.parse().unwrap();
        let xml = model::encoded::<Xml>(&syntax, &instance.data_set, Vec::new(), 256, uri).unwrap();
        let expected =
            model::encoded::<Json>(&syntax, &instance.data_set, Vec::new(), 256, uri).unwrap();

        let mut object = read(&xml, &Limits::default()).unwrap();
        for bulk in &object.bulk {
            assert_eq!(bulk.uri, format!("bulk?a=\"<1>\"&b={}", bulk.place));
            assert!(fill(&mut object.data_set, &bulk.place, vec![0; 264]));
        }
        let again = model::tree::<Json>(&object.data_set, Vec::new(), 256, uri).unwrap();
        assert_eq!(String::from_utf8(again).unwrap(), String::from_utf8(expected).unwrap());
    }
}

#[test]
fn private_attributes_find_their_blocks() {
    let text = |element_number, text: &[u8]| element(0x0009, element_number, VR::LO, text);
    // Two creators, one of them with two blocks, and a block of nobody.
    let set = data_set(vec![
        text(0x0010, b"ACME"),
        text(0x0011, b"OTHER"),
        text(0x0013, b"ACME"),
        text(0x1010, b"a"),
        text(0x1110, b"b"),
        text(0x1310, b"c"),
        text(0x2010, b"d"),
    ]);
    let xml = xml_of(&set);
    for tag in [
        "00090010\" vr=\"LO\" privateCreator=\"ACME",
        "00090010\" vr=\"LO\" privateCreator=\"OTHER",
        "00091310\" vr=\"LO\">",
        "00092010\" vr=\"LO\">",
    ] {
        assert!(xml.contains(tag), "{tag} {xml}");
    }
    assert_eq!(read(xml.as_bytes(), &Limits::default()).unwrap().data_set, set);

    // As dcm4che writes them, without the creators, and in items by themselves.
    let private = |creator: &str, tag: &str, text: &str| {
        format!(
            "<DicomAttribute tag=\"{tag}\" vr=\"LO\" privateCreator=\"{creator}\"><Value>{text}</Value></DicomAttribute>"
        )
    };
    let inside = private("B", "00090001", "x")
        + &private("A", "00090001", "y")
        + &private("B", "00090010", "z");
    let item = format!(
        "<DicomAttribute tag=\"00081140\" vr=\"SQ\"><Item>{inside}</Item></DicomAttribute>"
    );
    let expected = vec![
        text(0x0010, b"B"),
        text(0x0011, b"A"),
        text(0x1001, b"x"),
        text(0x1010, b"z"),
        text(0x1101, b"y"),
    ];
    let mut whole = vec![Element::sequence(Tag(0x0008, 0x1140), vec![data_set(expected.clone())])];
    whole.extend(expected);
    assert_eq!(
        read(document(&(item + &inside)).as_bytes(), &Limits::default()).unwrap().data_set,
        data_set(whole)
    );

    let too_many: Vec<_> =
        (0..241).map(|number| private(&format!("C{number}"), "00090001", "x")).collect();
    assert_eq!(refused(&document(&too_many.concat())), Wrong::Tag);
}

#[test]
fn expat_reads_what_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let script = "import sys, xml.etree.ElementTree as t\nn='{http://dicom.nema.org/PS3.19/models/NativeDICOM}'\n\
        for f in sys.argv[1:]:\n r=t.parse(f).getroot()\n assert r.tag==n+'NativeDicomModel'\n \
        print(len(r), r.find(n+\"DicomAttribute[@keyword='SOPInstanceUID']/\"+n+'Value').text)";
    let mut command = std::process::Command::new("python3");
    command.args(["-c", script]);
    let mut expected = Vec::new();
    for instance in sample_studies::all_valid(9).into_iter().flat_map(|study| study.instances) {
        let syntax = instance.transfer_syntax_uid.parse().unwrap();
        let xml = model::encoded::<Xml>(&syntax, &instance.data_set, Vec::new(), 256, uri).unwrap();
        let attributes = read(&xml, &Limits::default()).unwrap().data_set.elements.len();
        let file = folder.path().join(format!("{}.xml", expected.len()));
        std::fs::write(&file, xml).unwrap();
        command.arg(file);
        expected.push(format!("{attributes} {}", instance.sop_instance_uid));
    }

    let output = command.output().unwrap();

    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    assert_eq!(lines.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn odd_but_well_formed_documents_are_read() {
    let xml = "\u{FEFF}<?xml version='1.0' encoding='UTF-8'?>\n<n:NativeDicomModel xmlns:n='x'>\n <!-- c --><?pi?>\
        <n:DicomAttribute tag='00104000' vr='LT'><Value><![CDATA[<a>]]>&amp;&#x41;<!-- c -->\r\nb</Value></n:DicomAttribute>\
        <DicomAttribute tag='00420011' vr='OB'><InlineBinary>\n AQ\n ID </InlineBinary></DicomAttribute>\n</n:NativeDicomModel>\n";
    let read = read(xml.as_bytes(), &Limits::default()).unwrap().data_set;
    let expected = data_set(vec![
        element(0x0010, 0x4000, VR::LT, b"<a>&A\nb"),
        element(0x0042, 0x0011, VR::OB, b"\x01\x02\x03"),
    ]);
    assert_eq!(read, expected);
}

#[test]
fn entities_document_types_and_what_is_no_model_are_refused() {
    let id = |inside: &str| {
        document(&format!("<DicomAttribute tag=\"00100020\" vr=\"LO\">{inside}</DicomAttribute>"))
    };
    let laughs = format!("<!DOCTYPE x [<!ENTITY a \"ha\">]>{}", document(""));
    let cases = [
        (String::new(), Wrong::Xml),
        ("<NativeDicomModel>".into(), Wrong::Xml),
        ("<NativeDicomModel></Other>".into(), Wrong::Xml),
        ("<Other/>".into(), Wrong::Model),
        (document("") + "<x/>", Wrong::Xml),
        (laughs, Wrong::Xml),
        (id("<Value>&a;</Value>"), Wrong::Xml),
        (id("<Value>&#0;</Value>"), Wrong::Xml),
        (id("<Value>&#1;</Value>"), Wrong::Xml),
        (id("<Value>\u{1}</Value>"), Wrong::Xml),
        (id("<Value>a\\b</Value>"), Wrong::Value),
        (id("<Value number=\"2\">a</Value>"), Wrong::Model),
        (id("<Value><b/></Value>"), Wrong::Model),
        (id("text"), Wrong::Model),
        (id("<Other/>"), Wrong::Model),
        (id("<InlineBinary>AA==</InlineBinary>"), Wrong::Value),
        (id("<BulkData uuid=\"x\"/>"), Wrong::Model),
        (id("<BulkData uri=\"file:///etc/passwd\"/>"), Wrong::Value),
        (document("<DicomAttribute vr=\"LO\"/>"), Wrong::Tag),
        (document("<DicomAttribute tag=\"PatientID\" vr=\"LO\"/>"), Wrong::Tag),
        (document("<DicomAttribute tag=\"00091001\"/>"), Wrong::Vr),
        (document("<DicomAttribute tag=\"00100020\" tag=\"00100020\"/>"), Wrong::Xml),
        (
            document("<DicomAttribute tag=\"00100020\"/><DicomAttribute tag=\"00100020\"/>"),
            Wrong::Twice,
        ),
        (
            document(
                "<DicomAttribute tag=\"00100010\" vr=\"PN\"><PersonName><Alphabetic><Other/></Alphabetic></PersonName></DicomAttribute>",
            ),
            Wrong::Model,
        ),
        (
            document(
                "<DicomAttribute tag=\"00420011\" vr=\"OB\"><InlineBinary/><BulkData uri=\"x\"/></DicomAttribute>",
            ),
            Wrong::Twice,
        ),
    ];
    for (xml, wrong) in cases {
        assert_eq!(refused(&xml), wrong, "{xml}");
    }
    let many: String =
        (0..100_000).map(|number| format!(" a{number}=\"\"")).collect::<Vec<_>>().concat();
    assert_eq!(refused(&document(&format!("<DicomAttribute{many}/>"))), Wrong::Model);
    for depth in [66, 100_000] {
        let deep = "<DicomAttribute tag=\"00081140\" vr=\"SQ\"><Item>".repeat(depth);
        assert_eq!(refused(&format!("<NativeDicomModel>{deep}")), Wrong::TooDeep(64));
    }
}

proptest! {
    #[test]
    fn a_document_with_a_byte_changed_is_read_or_refused(at in 0_usize..5000, byte: u8) {
        let instance = sample_studies::structured_report(3).instances.remove(0);
        let syntax = instance.transfer_syntax_uid.parse().unwrap();
        let mut xml = model::encoded::<Xml>(&syntax, &instance.data_set, Vec::new(), 256, uri).unwrap();
        let at = at % xml.len();
        xml[at] = byte;
        if let Ok(object) = read(&xml, &Limits::default()) {
            let written = xml_of(&object.data_set);
            let again = read(written.as_bytes(), &Limits::default()).unwrap();
            prop_assert_eq!(xml_of(&again.data_set), written);
        }
    }

    #[test]
    fn every_text_comes_back_but_for_characters_that_xml_lacks(text in any::<String>()) {
        let mut set = data_set(vec![element(0x0010, 0x4000, VR::LT, text.as_bytes())]);
        set.elements.insert(0, element(0x0008, 0x0005, VR::CS, b"ISO_IR 192"));
        let object = read(xml_of(&set).as_bytes(), &Limits::default()).unwrap();
        let lacking = |c: char| matches!(c, '\0'..'\t' | '\u{B}' | '\u{C}' | '\u{E}'..'\u{20}' | '\u{FFFE}' | '\u{FFFF}');
        let text = text.trim_end_matches([' ', '\0']);
        let expected: String = text.chars().map(|c| if lacking(c) { '\u{FFFD}' } else { c }).collect();
        prop_assert_eq!(object.data_set.get(Tag(0x0010, 0x4000)).map(|element| &element.value), Some(&Value::Bytes(expected.into_bytes())));
    }
}
