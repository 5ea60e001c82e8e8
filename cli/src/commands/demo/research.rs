//! `gantry demo --research`: a CT and an ultrasound go to a university, pseudonymised, the ultrasound's banner blacked; screenshots,
//! which may show a name and for which there is no mask, do not. What is claimed at the end is looked up at the university:
//! every image is searched there for everything that tells who it is.

use std::collections::BTreeSet;
use std::path::Path;

use dicom_dictionary_std::tags;
use gantry_deidentify::data_set::{self, DataSet, Parsed};
use gantry_deidentify::engine::{Deidentifier, Linkage};
use gantry_deidentify::keys::ProjectKey;
use gantry_deidentify::profile::shipped;
use gantry_gateway::config::Config;
use gantry_gateway::web::part10::{Head, HeadReader};
use gantry_store::index::{StudyFilter, TransferFilter, TransferSummary};
use sample_studies::{HeadCt, Instance, Study, ULTRASOUND_BANNER_ROWS};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::trusts::{RESEARCH, Trusts, UNIVERSITY};
use super::{Arguments, LOOK, NodeReport, STALLED, Shown, index_failed, scanner, seed};
use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::output::{Output, Paint};
use crate::words;

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    /// What may leave is there, nothing in it tells who it is, and the screenshots stayed here.
    ok: bool,
    /// Images that were sent to the node.
    instances: u64,
    /// Images at the university.
    delivered: u64,
    /// Images that may show a name, and were set aside.
    set_aside: u64,
    /// Why, for one of them.
    reason: Option<String>,
    /// Texts and UIDs that each image was searched for.
    searched_for: usize,
    /// Places where one was found; none if all is well.
    found: Vec<String>,
    /// What a reader sees of one image, before and after.
    seen: Vec<Seen>,
    /// Whether the rows of the ultrasound that showed a name are black there, and what is below them is as it was.
    banner_is_black: bool,
    nodes: Vec<NodeReport>,
}

#[derive(Debug, Serialize)]
struct Seen {
    attribute: &'static str,
    here: String,
    there: String,
}

pub(super) async fn show(
    arguments: &Arguments,
    folder: &Path,
    output: Output,
) -> Result<Shown, Failure> {
    let text = !output.is_json();
    let key = ProjectKey::generate().map_err(|error| Failure::because(Exit::Failed, &error))?;
    let trusts = Trusts::research(folder, &key, arguments.web(output)).await?;
    let seed = seed();
    let ct = HeadCt { thin_slices: arguments.thin_slices.min(40), ..HeadCt::new(seed) }.build();
    let ultrasound = sample_studies::ultrasound(seed + 1);
    let screenshots = sample_studies::small_objects(seed + 2, 2);
    let (images, risky) = ((ct.len() + ultrasound.len()) as u64, screenshots.len() as u64);
    if text {
        output.line(output.paint(Paint::Bold, "A hospital and a university on this machine"))?;
        output.line(format_args!(
            "  {} sends what is pushed to {RESEARCH} to {}, pseudonymised by the profile \"research\".\n  \
             The key of the project is the safe haven's: fingerprint {}.\n",
            trusts.district.name.display,
            UNIVERSITY.display,
            key.fingerprint()
        ))?;
    }
    let missing = || Failure::new(Exit::Failed, "the scanner's listener is not there");
    let to = trusts.district.plain_listener().ok_or_else(missing)?;
    scanner::send(to, RESEARCH, &ct.instances, || {}).await?;
    scanner::send(to, RESEARCH, &ultrasound.instances, || {}).await?;
    scanner::send(to, RESEARCH, &screenshots.instances, || {}).await?;
    let transfers = settled(&trusts, images + risky).await?;
    let counted = |of: fn(&TransferSummary) -> u64| transfers.iter().map(of).sum::<u64>();
    let reason = transfers.iter().find_map(|transfer| transfer.problem.clone()).map(|why| why.text);
    let there = at_the_university(&trusts, images).await?;
    let needles = needles(&[&ct, &ultrasound, &screenshots]);
    let found = found_in(&there, &needles);
    let report = Report {
        instances: images + risky,
        delivered: counted(|transfer| transfer.counts.delivered),
        set_aside: counted(|transfer| transfer.counts.failed),
        reason,
        searched_for: needles.len(),
        seen: seen(&ct, counterpart(&ct, &there, &key)?.as_ref())?,
        banner_is_black: banner_is_black(
            &ultrasound,
            counterpart(&ultrasound, &there, &key)?.as_ref(),
        ),
        ok: found.is_empty() && there.len() as u64 == images,
        found,
        nodes: vec![(&trusts.district).into(), (&trusts.centre).into()],
    };
    let ok = report.ok
        && report.banner_is_black
        && report.delivered == images
        && report.set_aside == risky;
    let report = Report { ok, ..report };
    if text {
        tell(&report, output)?;
        if ok && !arguments.once {
            super::tell_where(&report.nodes, output)?;
        }
    } else {
        output.json(&report)?;
    }
    Ok(Shown { trusts, ok })
}

/// Waits until every image is delivered or set aside.
async fn settled(trusts: &Trusts, all: u64) -> Result<Vec<TransferSummary>, Failure> {
    let index = trusts.district.node.index();
    let mut moved = (Instant::now(), 0);
    loop {
        let transfers = index.transfers(&TransferFilter::default()).await;
        let transfers = transfers.map_err(|error| index_failed(&error))?;
        let done = |transfer: &TransferSummary| transfer.counts.delivered + transfer.counts.failed;
        let now: u64 = transfers.iter().map(done).sum();
        if now >= all {
            return Ok(transfers);
        }
        if moved.1 != now {
            moved = (Instant::now(), now);
        }
        if moved.0.elapsed() > STALLED {
            return Err(Failure::new(
                Exit::Failed,
                format_args!("{now} of {all} images left or were set aside"),
            ));
        }
        sleep(LOOK).await;
    }
}

/// The files that the university has, as it would hand them out.
async fn at_the_university(trusts: &Trusts, count: u64) -> Result<Vec<Vec<u8>>, Failure> {
    let far = &trusts.centre;
    let asked = Instant::now();
    // What was acknowledged there is in its spool; the rows follow.
    let objects = loop {
        let mut objects = Vec::new();
        let studies = far
            .node
            .index()
            .studies(&StudyFilter::default())
            .await
            .map_err(|error| index_failed(&error))?;
        for study in studies {
            let study = far.node.index().study(&study.study_instance_uid).await;
            let study = study.map_err(|error| index_failed(&error))?;
            let series = study.into_iter().flat_map(|study| study.series);
            objects.extend(series.flat_map(|series| series.instances).map(|one| one.object));
        }
        if objects.len() as u64 >= count || asked.elapsed() > STALLED {
            break objects;
        }
        sleep(LOOK).await;
    };
    let (config, _) = Config::load(&far.config)
        .map_err(|_| Failure::new(Exit::Failed, "the university's configuration is gone"))?;
    let mut node = Client::connect(&config).await?;
    let mut files = Vec::with_capacity(objects.len());
    for object in objects {
        let mut stream = node.stream(&format!("/api/v1/objects/{object}/part10")).await?;
        let mut file = Vec::new();
        while let Some(bytes) = stream.next().await? {
            file.extend_from_slice(&bytes);
        }
        files.push(file);
    }
    Ok(files)
}

/// Whatever tells who a study is of, and its UIDs; in lower case.
fn needles(studies: &[&Study]) -> BTreeSet<String> {
    let texts = studies.iter().flat_map(|study| study.planted()).map(|planted| planted.text);
    let instances = studies.iter().flat_map(|study| &study.instances);
    let uids = instances.flat_map(|instance| {
        [&instance.sop_instance_uid, &instance.series_instance_uid, &instance.study_instance_uid]
            .map(String::clone)
    });
    texts.chain(uids).map(|text| text.to_lowercase()).collect()
}

fn found_in(files: &[Vec<u8>], needles: &BTreeSet<String>) -> Vec<String> {
    let mut found = Vec::new();
    for (number, file) in files.iter().enumerate() {
        let lower = file.to_ascii_lowercase();
        for needle in needles {
            if lower.windows(needle.len()).any(|window| window == needle.as_bytes()) {
                found.push(format!("image {}: a text of {} characters", number + 1, needle.len()));
            }
        }
    }
    found
}

/// What became of the first image of a study: its data set, and how it is read. The project's key tells its new UID.
fn counterpart(
    study: &Study,
    there: &[Vec<u8>],
    key: &ProjectKey,
) -> Result<Option<(Parsed, Vec<u8>)>, Failure> {
    let Some(here) = study.instances.first() else { return Ok(None) };
    let profile = shipped("research").ok_or_else(|| failed(&"there is no profile \"research\""))?;
    let deidentifier = Deidentifier::new(profile, key.clone(), Linkage::Project);
    let uid = deidentifier.uid(&here.study_instance_uid, &here.sop_instance_uid);
    for file in there {
        let head = HeadReader::default().feed(file).map_err(|error| failed(&error))?;
        let Head::Finished(meta, data_set) = head else {
            return Err(failed(&"a file at the university is cut"));
        };
        if meta.sop_instance.as_ref().is_some_and(|it| it.as_str() == uid) {
            let read = data_set::read(&meta.transfer_syntax, &data_set);
            return Ok(Some((read.map_err(|error| failed(&error))?, data_set.to_vec())));
        }
    }
    Ok(None)
}

fn failed(what: &dyn std::fmt::Display) -> Failure {
    Failure::new(Exit::Failed, what)
}

fn read(instance: &Instance) -> Result<Parsed, Failure> {
    let syntax = instance.transfer_syntax_uid.parse().map_err(|error| failed(&error))?;
    data_set::read(&syntax, &instance.data_set).map_err(|error| failed(&error))
}

/// The native pixels of an image, in rows.
fn rows_of<'a>(parsed: &Parsed, bytes: &'a [u8]) -> Option<std::slice::Chunks<'a, u8>> {
    let value = parsed.pixel_data.as_ref()?.value.clone();
    let pixels = bytes.get(usize::try_from(value.start).ok()?..usize::try_from(value.end).ok()?)?;
    let rows = parsed.data_set.unsigned_short(tags::ROWS).filter(|rows| *rows > 0)?;
    Some(pixels.chunks((pixels.len() / usize::from(rows)).max(1)))
}

/// Whether the rows with a name are black, and not all of those below them.
fn banner_is_black(ultrasound: &Study, there: Option<&(Parsed, Vec<u8>)>) -> bool {
    let black = |row: &[u8]| row.iter().all(|byte| *byte == 0);
    let (Some(here), Some((parsed, bytes))) = (ultrasound.instances.first(), there) else {
        return false;
    };
    let Ok(before) = read(here) else { return false };
    let (Some(before), Some(after)) = (rows_of(&before, &here.data_set), rows_of(parsed, bytes))
    else {
        return false;
    };
    let banner = usize::from(ULTRASOUND_BANNER_ROWS);
    let was_written_on = !before.take(banner).all(black);
    let (mut over, mut below) = (after.clone().take(banner), after.skip(banner));
    was_written_on && over.all(black) && !below.all(black)
}

/// A few attributes as they are here and there.
fn seen(ct: &Study, there: Option<&(Parsed, Vec<u8>)>) -> Result<Vec<Seen>, Failure> {
    let (Some(here), Some((after, _))) = (ct.instances.first(), there) else {
        return Ok(Vec::new());
    };
    let before = read(here)?;
    let rows = [
        ("Patient's Name", tags::PATIENT_NAME),
        ("Patient ID", tags::PATIENT_ID),
        ("Birth date", tags::PATIENT_BIRTH_DATE),
        ("Age", tags::PATIENT_AGE),
        ("Study date", tags::STUDY_DATE),
        ("Description", tags::STUDY_DESCRIPTION),
        ("Institution", tags::INSTITUTION_NAME),
        ("Study UID", tags::STUDY_INSTANCE_UID),
    ];
    let text = |set: &DataSet, tag| {
        set.text(tag).filter(|text| !text.is_empty()).unwrap_or_else(|| "—".to_owned())
    };
    let row = |(attribute, tag)| Seen {
        attribute,
        here: text(&before.data_set, tag),
        there: text(&after.data_set, tag),
    };
    Ok(rows.into_iter().map(row).collect())
}

fn tell(report: &Report, output: Output) -> Result<(), Failure> {
    let rows = report
        .seen
        .iter()
        .map(|seen| vec![seen.attribute.to_owned(), seen.here.clone(), seen.there.clone()]);
    output.table(&["", "AT THE HOSPITAL", "AT THE UNIVERSITY"], rows.collect())?;
    output.line("")?;
    let bad = output.paint(Paint::Red, "✗");
    for found in report.found.iter().take(5) {
        output.line(format_args!("  {bad} {found}"))?;
    }
    if !report.ok {
        return output.line(format_args!(
            "  {bad} {} images are there, {} were set aside, and the ultrasound's banner is {}",
            report.delivered,
            report.set_aside,
            if report.banner_is_black { "black" } else { "not black" }
        ));
    }
    let good = output.paint(Paint::Green, "✓");
    let images = words::count(report.delivered, "image", "images");
    output.line(format_args!(
        "  {good} {images} at the university; each was searched for {} texts and UIDs that tell who it is of, and has none",
        report.searched_for
    ))?;
    output.line(format_args!(
        "  {good} the ultrasound's banner, which showed a name, is black there"
    ))?;
    let aside = words::count(report.set_aside, "screenshot", "screenshots");
    output.line(format_args!(
        "  {good} {aside} did not leave: {}",
        report.reason.as_deref().unwrap_or("")
    ))
}
