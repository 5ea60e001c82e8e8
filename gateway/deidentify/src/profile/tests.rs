use super::*;

const HEAD: &str = "schema = 1\nname = \"x\"\nedition = \"2026d\"\n";

fn findings(body: &str) -> Vec<(Severity, usize, usize, String)> {
    let read = read(&format!("{HEAD}{body}"));
    let all = read.findings.into_iter();
    all.map(|finding| (finding.severity, finding.line, finding.column, finding.message)).collect()
}

#[test]
fn shipped_profiles_are_without_findings() {
    for shipped in SHIPPED {
        let read = read(shipped.text);
        assert_eq!(read.findings, [], "{}", shipped.name);
        assert_eq!(read.profile.unwrap().name, shipped.name);
    }
}

#[test]
fn every_mistake_is_shown_at_its_place() {
    use Severity::{Problem, Warning};
    let rows: &[(&str, Severity, usize, usize, &str)] = &[
        ("optoins = []", Problem, 4, 1, "unknown field"),
        ("options = [\"clean_pixles\"]", Problem, 4, 12, "unknown"),
        (
            "options = [\"retain_long_full_dates\", \"retain_long_modified_dates\"]",
            Problem,
            4,
            38,
            "both",
        ),
        ("[subject]\nlength = 4", Problem, 5, 10, "length"),
        ("[dates]\nshift_days = [10, -10]", Problem, 5, 14, "move"),
        ("[sop_classes]\n\"CT Imag Storage\" = \"reject\"", Problem, 5, 1, "SOP class"),
        (
            "[[rule]]\nid = \"a\"\nselect = \"PatientNam\"\naction = \"X\"",
            Problem,
            6,
            10,
            "no attribute",
        ),
        (
            "[[rule]]\nid = \"a\"\nselect = \"PatientID\"\naction = \"Q\"",
            Problem,
            7,
            10,
            "action is unknown",
        ),
        (
            "[[rule]]\nid = \"a\"\nselect = \"PatientID\"\naction = \"K\"",
            Problem,
            4,
            1,
            "keeps PatientID",
        ),
        (
            "[[rule]]\nid = \"a\"\nwhen = \"Modality == 'ct'\"\naction = \"reject\"",
            Problem,
            6,
            8,
            "never hold",
        ),
        (
            "[[rule]]\nid = \"a\"\nwhen = 'Modalty == \"CT\"'\naction = \"reject\"",
            Problem,
            6,
            9,
            "no attribute Modalty",
        ),
        (
            "[[rule]]\nid = \"a\"\nselect = \"VR:PN\"\naction = \"X\"\n[[rule]]\nid = \"b\"\nselect = \"PatientName\"\naction = \"Z\"",
            Problem,
            8,
            1,
            "never asked: a",
        ),
        ("[[rule]]\nid = \"a\"\naction = \"X\"", Problem, 4, 1, "selects nothing"),
        (
            "[[rule]]\nid = \"a\"\nselect = \"Rows\"\naction = { set = \"many\" }",
            Problem,
            4,
            1,
            "Rows cannot have this value",
        ),
        (
            "[[rule]]\nid = \"a\"\nselect = \"StudyDate\"\naction = { replace = \"today\" }",
            Problem,
            4,
            1,
            "StudyDate cannot have this value",
        ),
        (
            "[[rule]]\nid = \"a\"\nselect = \"Modality\"\naction = \"X\"",
            Problem,
            4,
            1,
            "no rule is asked about Modality",
        ),
        ("[pixels]\nrisky_without_mask = { pass = \"\" }", Problem, 5, 22, "reason"),
        ("[private]\nsafe = ['(0029,\"A\",10)']", Warning, 5, 9, "option is off"),
        ("[text]\nwords = [\"two words\"]\n", Problem, 5, 10, "one word"),
    ];
    for (body, severity, line, column, message) in rows {
        let found = findings(body);
        let hit = found.iter().find(|(_, _, _, text)| text.contains(message));
        let (is, at, from, _) = hit.unwrap_or_else(|| panic!("{body}: {found:?}"));
        assert_eq!((is, at, from), (severity, line, column), "{body}");
    }
}

#[test]
fn a_finding_shows_its_line() {
    let read = read(&format!("{HEAD}options = [\"clean_pixles\"]"));
    let shown = read.findings.first().unwrap().to_string();
    assert!(
        shown.starts_with("problem: this option is unknown\n --> line 4, column 12\n4 | options"),
        "{shown}"
    );
    assert!(shown.contains("^^^^^^^^^^^^^^"), "{shown}");
    assert!(read.profile.is_none());
}

#[test]
fn a_rule_with_a_reason_may_keep() {
    let body = "[[rule]]\nid = \"a\"\nselect = \"StationName\"\naction = \"K\"\nreason = \"scanner effects\"";
    let read = read(&format!("{HEAD}{body}"));
    assert_eq!(read.findings, []);
    let profile = read.profile.unwrap();
    let place = Place { path: &[], tag: Tag(0x0008, 0x1010), vr: VR::SH, creator: None };
    assert_eq!(profile.rule_for(&[true], place).unwrap().1.id, "a");
    assert!(profile.rule_for(&[false], place).is_none());
}

#[test]
fn kinds_of_object_have_their_policy() {
    let (basic, research) = (shipped("basic").unwrap(), shipped("research").unwrap());
    let rows = [
        ("1.2.840.10008.5.1.4.1.1.2", ClassPolicy::Keep, ClassPolicy::Keep),
        ("1.2.840.10008.5.1.4.1.1.104.1", ClassPolicy::Reject, ClassPolicy::Reject),
        ("1.2.840.10008.5.1.4.1.1.88.33", ClassPolicy::Reject, ClassPolicy::Keep),
        ("1.2.840.10008.5.1.4.1.1.88.59", ClassPolicy::Keep, ClassPolicy::Keep),
        ("1.2.3.4", ClassPolicy::Reject, ClassPolicy::Reject),
    ];
    for (class, one, other) in rows {
        assert_eq!((basic.class(class), research.class(class)), (one, other), "{class}");
    }
}
