//! No input stops it: every reader takes whatever bytes there are, and what is written is well formed whatever it came from.

#![allow(clippy::expect_used)] // a test that cannot have what it asks for fails there and then

use gantry_dicomweb::accept::{Accept, MediaType, Resource, Target, choose};
use gantry_dicomweb::frames::{self, Pixels};
use gantry_dicomweb::json::{self, Json};
use gantry_dicomweb::model::{self, BulkValue, Format};
use gantry_dicomweb::multipart::{Boundary, Reader};
use gantry_dicomweb::place::Place;
use gantry_dicomweb::qido::Query;
use gantry_dicomweb::read::Limits;
use gantry_dicomweb::stow::Outcome;
use gantry_dicomweb::xml::{self, Xml};
use gantry_store::dicom::TransferSyntax;
use gantry_store::dicom::scanner::{Budget, Scanner};
use proptest::collection::vec;
use proptest::prelude::*;

fn written<F: Format>(syntax: &str, bytes: &[u8]) -> Option<Vec<u8>> {
    let syntax: TransferSyntax = syntax.parse().ok()?;
    let uri = |bulk: &BulkValue<'_>| Some(format!("bulk/{bulk}"));
    model::encoded::<F>(&syntax, bytes, Vec::new(), 64, uri).ok()
}

/// Whether both models could be written; then they must be well formed.
fn is_written_well(syntax: &str, bytes: &[u8]) -> bool {
    let (json, xml) = (written::<Json>(syntax, bytes), written::<Xml>(syntax, bytes));
    assert_eq!(json.is_some(), xml.is_some());
    let (Some(json), Some(xml)) = (json, xml) else { return false };
    serde_json::from_slice::<serde::de::IgnoredAny>(&json).expect("valid JSON");
    let mut reader = quick_xml::Reader::from_reader(xml.as_slice());
    while reader.read_event().expect("well-formed XML") != quick_xml::events::Event::Eof {}
    true
}

/// Asks for every frame, at most a hundred; each must lie inside the data set.
fn frames_lie_inside(syntax: &str, bytes: &[u8]) {
    let Ok(syntax) = syntax.parse() else { return };
    let mut scanner = Scanner::with_visitor(&syntax, Budget::default(), Pixels::default());
    if scanner.feed(bytes).is_err() {
        return;
    }
    let Ok((scan, pixels)) = scanner.finish_visit() else { return };
    let frames = pixels.frames();
    for number in (0..=pixels.number_of_frames().min(100)).chain([u32::MAX]) {
        for range in frames.frame(number).map(|frame| frame.ranges).unwrap_or_default() {
            // What is deflated is longer than what was fed.
            let inside = range.end <= scan.length || scan.pixel_data_offset.is_none();
            assert!(range.start <= range.end && inside);
        }
    }
}

#[test]
fn malformed_objects_are_refused_or_written_well() {
    let (mut refused, mut taken) = (0, 0);
    for object in sample_studies::malformed::all(3) {
        let written = is_written_well(object.transfer_syntax_uid, &object.data_set);
        *(if written { &mut taken } else { &mut refused }) += 1;
        frames_lie_inside(object.transfer_syntax_uid, &object.data_set);
    }
    assert!(refused > 10 && taken > 3, "{refused} refused, {taken} taken");
}

/// An object of some kind with a few bytes changed.
fn damaged() -> impl Strategy<Value = (String, Vec<u8>)> {
    let studies = [
        sample_studies::structured_report(3),
        sample_studies::encapsulated_pdf(3),
        sample_studies::small_objects(3, 1),
    ];
    let instances: Vec<_> = studies.into_iter().flat_map(|study| study.instances).collect();
    let changes = vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    (prop::sample::select(instances), changes).prop_map(|(instance, changes)| {
        let mut bytes = instance.data_set;
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
        }
        (instance.transfer_syntax_uid, bytes)
    })
}

proptest! {
    #[test]
    fn damaged_objects_are_refused_or_written_well((syntax, bytes) in damaged()) {
        is_written_well(&syntax, &bytes);
        frames_lie_inside(&syntax, &bytes);
    }

    #[test]
    fn arbitrary_bytes_stop_no_reader(bytes in vec(any::<u8>(), 0..300), most in 0_u64..4) {
        let limits = Limits::default();
        for object in json::read_many(&bytes, &limits).unwrap_or_default() {
            let _ = Outcome::read(&object.data_set);
        }
        let _ = xml::read(&bytes, &limits);
        let mut reader = Reader::new(&Boundary::random(7), most);
        let _ = reader.feed(&bytes, |_| {});
        let _ = reader.finish();
        for syntax in ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"] {
            is_written_well(syntax, &bytes);
            frames_lie_inside(syntax, &bytes);
        }
    }

    #[test]
    fn arbitrary_text_stops_no_reader(text in any::<String>(), frames: u32) {
        let _ = text.parse::<Place>();
        let _ = MediaType::parse(&text);
        let _ = Boundary::of_content_type(&text);
        let _ = Boundary::of_content_type(&format!("multipart/related; boundary={text}"));
        let _ = Query::parse(&text, &[]);
        let _ = frames::list(&text, frames);
        if let Ok(accept) = Accept::parse(Some(&text), None) {
            let target = Target { resource: Resource::Frames, single: true, stored: None, transcodes: &[] };
            let _ = choose(&accept, &target);
        }
    }

    #[test]
    fn soup_of_xml_stops_no_reader(words in vec(prop::sample::select(vec![
        "<NativeDicomModel>", "</NativeDicomModel>", "<DicomAttribute tag=\"00081140\" vr=\"SQ\">", "</DicomAttribute>",
        "<DicomAttribute tag=\"00100010\" vr=\"PN\">", "<Item number=\"1\">", "</Item>", "<Value>", "</Value>", "<PersonName>",
        "</PersonName>", "<Alphabetic>", "</Alphabetic>", "<BulkData uri=\"x\"/>", "&amp;", "&#65;", "&x;", "<![CDATA[", "]]>",
        "<!--", "-->", "<!DOCTYPE x>", "text", " ", "<", ">", "\"",
    ]), 0..40)) {
        let _ = xml::read(words.concat().as_bytes(), &Limits::default());
    }
}
