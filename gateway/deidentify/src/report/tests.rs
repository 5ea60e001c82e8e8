use super::*;
use crate::keys::ProjectKey;
use crate::pixels::mask::Library;
use crate::process::Tools;
use crate::profile::shipped;

fn deidentifier(profile: &str, linkage: Linkage) -> Deidentifier {
    Deidentifier::new(shipped(profile).unwrap(), ProjectKey::from_bytes([5; 32]), linkage)
}

fn run<'a>(deidentifier: &'a Deidentifier, key: KeyOrigin<'a>) -> Run<'a> {
    Run {
        deidentifier,
        key,
        recipients: &[],
        ocr: None,
        at: jiff::Timestamp::UNIX_EPOCH,
        directories: 1,
        not_dicom: 2,
    }
}

/// Tallies of all sample studies, each object alone.
fn tallies(deidentifier: &Deidentifier) -> Vec<Tally> {
    let tools = Tools { masks: Library::built_in(), ..Tools::default() };
    let studies = sample_studies::all_valid(3);
    let instances = studies.iter().flat_map(|study| &study.instances).enumerate();
    instances
        .map(|(at, instance)| {
            let mut tally = Tally::new(deidentifier.profile());
            let syntax = instance.transfer_syntax_uid.parse().unwrap();
            match deidentifier.process(&instance.data_set, &syntax, &tools) {
                Ok(object) => {
                    let file = format!("{}.dcm", object.made.sop_instance.1);
                    tally.written(deidentifier, &object, &file);
                }
                Err(why) => {
                    let received = Received {
                        number: at as u64 + 1,
                        sop_class: Some(instance.sop_class_uid.clone()),
                        sop_instance: Some(instance.sop_instance_uid.clone()),
                        study: Some(instance.study_instance_uid.clone()),
                    };
                    tally.set_aside(deidentifier, &received, &why);
                }
            }
            tally
        })
        .collect()
}

fn merged(tallies: impl Iterator<Item = Tally>, profile: &Profile) -> Tally {
    let mut whole = Tally::new(profile);
    tallies.for_each(|tally| whole.merge(tally));
    whole
}

#[test]
fn tallies_merge_in_any_order_to_the_same_report() {
    let deidentifier = deidentifier("research", Linkage::Project);
    let tallies = tallies(&deidentifier);
    let profile = deidentifier.profile();
    let run = run(&deidentifier, KeyOrigin::Fresh);

    let forwards = merged(tallies.iter().cloned(), profile).finish(&run);
    let backwards = merged(tallies.iter().rev().cloned(), profile).finish(&run);

    let json = |report: &Report| serde_json::to_string(report).unwrap();
    assert_eq!(json(&forwards), json(&backwards));
    assert_eq!(forwards.to_html(), backwards.to_html());
}

#[test]
fn the_numbers_add_up() {
    for (name, linkage) in [("research", Linkage::Project), ("basic", Linkage::Study)] {
        let deidentifier = deidentifier(name, linkage);
        let tallies = tallies(&deidentifier);
        let count = tallies.len() as u64;
        let report = merged(tallies.into_iter(), deidentifier.profile())
            .finish(&run(&deidentifier, KeyOrigin::File("lung.key")));

        let counts = &report.counts;
        assert_eq!(counts.objects, count);
        assert_eq!(counts.written + counts.set_aside, count);
        assert!(counts.written > 0 && counts.set_aside > 0, "{counts:?}");
        let sum = |of: fn(&ClassFacts) -> u64| report.classes.iter().map(of).sum::<u64>();
        assert_eq!(sum(|class| class.written), counts.written);
        assert_eq!(sum(|class| class.set_aside), counts.set_aside);
        let by_action: u64 = report.actions.iter().map(|one| one.count).sum();
        let by_attribute: u64 = report.attributes.iter().map(|one| one.count).sum();
        assert_eq!(by_action, by_attribute);
        assert_eq!(report.references.broken, 0);
        // One of each class that was written is looked at, at least.
        for class in report.classes.iter().filter(|class| class.written > 0) {
            let of_class = |one: &&ToLookAt| one.sop_class == class.name;
            assert!(report.review.objects.iter().any(|one| of_class(&one)), "{}", class.name);
        }
        assert!(report.set_aside.iter().all(|aside| aside.sop_instance_uid.is_some()));
    }
}

#[test]
fn nothing_that_was_received_is_in_it() {
    for linkage in [Linkage::Project, Linkage::Study] {
        let deidentifier = deidentifier("research", linkage);
        let report = merged(tallies(&deidentifier).into_iter(), deidentifier.profile())
            .finish(&run(&deidentifier, KeyOrigin::Fresh));
        let texts = [report.to_html(), serde_json::to_string(&report).unwrap()];
        for study in sample_studies::all_valid(3) {
            let uids = study.instances.iter().flat_map(|one| {
                [&one.sop_instance_uid, &one.series_instance_uid, &one.study_instance_uid]
            });
            let planted = study.planted();
            for token in uids.chain(planted.iter().map(|planted| &planted.text)) {
                for text in &texts {
                    assert!(!text.contains(token.as_str()), "{}", study.name);
                }
            }
        }
    }
}

#[test]
fn it_says_pseudonymised_or_de_identified_and_never_more() {
    for (linkage, key, word) in [
        (Linkage::Project, KeyOrigin::File("k"), "pseudonymised"),
        (Linkage::Study, KeyOrigin::Fresh, "de-identified per study"),
    ] {
        let deidentifier = deidentifier("basic", linkage);
        let report = Tally::new(deidentifier.profile()).finish(&run(&deidentifier, key));

        assert_eq!(report.linkage.word, word);
        let text = report.to_html().to_lowercase();
        assert!(text.contains(word) && !text.contains("anonym"), "{text}");
    }
}

#[test]
fn every_text_is_escaped_and_nothing_comes_from_elsewhere() {
    let deidentifier = deidentifier("basic", Linkage::Project);
    let nasty = "<script>alert(\"x\")</script>&'\u{202E}\u{7}";
    let mut tally = Tally::new(deidentifier.profile());
    let received = Received { number: 1, ..Received::default() };
    tally.set_aside_because(&deidentifier, &received, nasty.to_owned(), false);

    let html = tally.finish(&run(&deidentifier, KeyOrigin::File(nasty))).to_html();

    assert!(!html.contains("<script") && !html.contains("alert(\""), "{html}");
    assert!(!html.contains('\u{202E}') && !html.contains('\u{7}'));
    assert!(html.contains("&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt;&amp;&#39;"));
    for foreign in ["http:", "https:", "src=", "href=", "url(", "@import"] {
        assert!(!html.contains(foreign), "{foreign}");
    }
}
