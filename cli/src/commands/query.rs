//! `gantry query`: what a source or a partner has, by C-FIND in the Study Root model (PS3.4 C.6.2).
//!
//! Asks from this process, with the node's AE title and certificate: the node need not run.

use clap::Args;
use dicom_dictionary_std::tags;
use gantry_gateway::association::data_set::{self, DataSet, Elements};
use gantry_gateway::association::query::FIND;
use gantry_gateway::association::requestor::FindEnded;
use gantry_gateway::association::services::storage_commitment::known;
use gantry_gateway::partner::connect;
use gantry_store::dicom::StudyInstanceUid;
use serde::Serialize;

use super::{Global, peer};
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::views::{dashed, initials, last_three};
use crate::words;

/// Ask a source or a partner what it has
///
/// Patients are shortened unless --reveal. With --study the series of that study are listed.
#[derive(Args, Debug)]
#[command(before_help = "\
Examples:
  gantry query --at pacs --patient-id 9990548609
  gantry query --at pacs --date 20261101- --modality CT
  gantry query --at york-ed --study 1.2.826.0.1.3680043.8.498.1 --json")]
pub(crate) struct Arguments {
    /// Whom to ask, by the name in the configuration
    #[arg(long, value_name = "NAME")]
    at: String,
    /// Patient ID
    #[arg(long, value_name = "ID")]
    patient_id: Option<String>,
    /// Patient's Name, as FAMILY^GIVEN; * and ? stand for what is not known
    #[arg(long, value_name = "NAME")]
    patient_name: Option<String>,
    /// Accession Number
    #[arg(long, value_name = "NUMBER")]
    accession: Option<String>,
    /// Study Date, as 20261127, 20261101-20261127, 20261101- or -20261127
    #[arg(long, value_name = "DATE", allow_hyphen_values = true)]
    date: Option<String>,
    /// A modality that the study has, such as CT
    #[arg(long, value_name = "MODALITY")]
    modality: Option<String>,
    /// Study Instance UID: its series
    #[arg(long, value_name = "UID", conflicts_with_all = ["patient_id", "patient_name", "accession", "date", "modality"])]
    study: Option<StudyInstanceUid>,
    /// At most so many
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    limit: u16,
    /// Show patients in full
    #[arg(long)]
    reveal: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Answer<T> {
    schema: u32,
    at: String,
    /// Whether there is more than was to be listed.
    more: bool,
    found: Vec<T>,
}

#[derive(Debug, Serialize)]
struct FoundStudy {
    study_instance_uid: Option<String>,
    study_date: Option<String>,
    modalities: Vec<String>,
    description: Option<String>,
    accession_number: Option<String>,
    patient_id: Option<String>,
    patient_name: Option<String>,
    series: Option<u64>,
    instances: Option<u64>,
}

#[derive(Debug, Serialize)]
struct FoundSeries {
    series_instance_uid: Option<String>,
    number: Option<i64>,
    modality: Option<String>,
    description: Option<String>,
    instances: Option<u64>,
}

pub(crate) async fn run(
    arguments: &Arguments,
    global: &Global,
    output: Output,
) -> Result<Exit, Failure> {
    match &arguments.study {
        Some(study) => series(arguments, study, global, output).await,
        None => studies(arguments, global, output).await,
    }
}

async fn studies(arguments: &Arguments, global: &Global, output: Output) -> Result<Exit, Failure> {
    let keys = [
        (tags::PATIENT_ID, &arguments.patient_id),
        (tags::PATIENT_NAME, &arguments.patient_name),
        (tags::ACCESSION_NUMBER, &arguments.accession),
        (tags::STUDY_DATE, &arguments.date),
        (tags::MODALITIES_IN_STUDY, &arguments.modality),
    ];
    if keys.iter().all(|(_, value)| value.is_none()) {
        return Err(Failure::new(Exit::Usage, "that would list everything there is").hint(
            "give --patient-id, --patient-name, --accession, --date, --modality or --study",
        ));
    }
    let mut identifier = DataSet::default().with(tags::QUERY_RETRIEVE_LEVEL, "STUDY");
    let wanted = [
        tags::STUDY_INSTANCE_UID,
        tags::STUDY_DESCRIPTION,
        tags::NUMBER_OF_STUDY_RELATED_SERIES,
        tags::NUMBER_OF_STUDY_RELATED_INSTANCES,
    ];
    for tag in wanted {
        identifier = identifier.with(tag, "");
    }
    let all = keys.iter().filter_map(|(_, value)| value.as_deref());
    if all.clone().any(|value| !value.is_ascii()) {
        identifier = identifier.with(tags::SPECIFIC_CHARACTER_SET, "ISO_IR 192");
    }
    for (tag, value) in keys {
        identifier = identifier.with(tag, value.as_deref().unwrap_or_default());
    }
    let (mut found, more) = ask(arguments, global, &identifier, study, output).await?;
    // Not every archive looks at this key.
    if let Some(modality) = &arguments.modality {
        found.retain(|study| study.modalities.is_empty() || study.modalities.contains(modality));
    }
    if !arguments.reveal {
        found.iter_mut().for_each(FoundStudy::shorten);
    }
    let rows = |study: &FoundStudy| {
        let date = study.study_date.as_deref().map(dashed).unwrap_or_default();
        let number = |number: Option<u64>| number.map(|it| it.to_string()).unwrap_or_default();
        let patient = [&study.patient_name, &study.patient_id];
        vec![
            study.study_instance_uid.clone().unwrap_or_default(),
            format!("{} {date}", study.modalities.join("+")).trim().to_owned(),
            number(study.series),
            number(study.instances),
            patient.into_iter().flatten().cloned().collect::<Vec<_>>().join("  "),
        ]
    };
    let header = ["STUDY", "KIND", "SERIES", "IMAGES", "PATIENT"];
    print(arguments, found, more, &header, rows, output)
}

async fn series(
    arguments: &Arguments,
    uid: &StudyInstanceUid,
    global: &Global,
    output: Output,
) -> Result<Exit, Failure> {
    let identifier = DataSet::default()
        .with(tags::QUERY_RETRIEVE_LEVEL, "SERIES")
        .with(tags::STUDY_INSTANCE_UID, uid.as_str())
        .with(tags::SERIES_INSTANCE_UID, "")
        .with(tags::SERIES_NUMBER, "")
        .with(tags::MODALITY, "")
        .with(tags::SERIES_DESCRIPTION, "")
        .with(tags::NUMBER_OF_SERIES_RELATED_INSTANCES, "");
    let series = |said: &Elements| FoundSeries {
        series_instance_uid: data_set::text(said, tags::SERIES_INSTANCE_UID),
        number: data_set::signed(said, tags::SERIES_NUMBER),
        modality: data_set::text(said, tags::MODALITY),
        description: data_set::text(said, tags::SERIES_DESCRIPTION),
        instances: data_set::integer(said, tags::NUMBER_OF_SERIES_RELATED_INSTANCES),
    };
    let (found, more) = ask(arguments, global, &identifier, series, output).await?;
    let rows = |series: &FoundSeries| {
        vec![
            series.series_instance_uid.clone().unwrap_or_default(),
            series.number.map(|number| number.to_string()).unwrap_or_default(),
            series.modality.clone().unwrap_or_default(),
            series.instances.map(|number| number.to_string()).unwrap_or_default(),
            series.description.clone().unwrap_or_default(),
        ]
    };
    print(arguments, found, more, &["SERIES", "NO.", "KIND", "IMAGES", "DESCRIPTION"], rows, output)
}

fn study(said: &Elements) -> FoundStudy {
    let modalities = data_set::text(said, tags::MODALITIES_IN_STUDY).unwrap_or_default();
    FoundStudy {
        study_instance_uid: data_set::text(said, tags::STUDY_INSTANCE_UID),
        study_date: data_set::text(said, tags::STUDY_DATE),
        modalities: modalities
            .split('\\')
            .map(|modality| modality.trim().to_owned())
            .filter(|modality| !modality.is_empty())
            .collect(),
        description: data_set::text(said, tags::STUDY_DESCRIPTION),
        accession_number: data_set::text(said, tags::ACCESSION_NUMBER),
        patient_id: data_set::text(said, tags::PATIENT_ID),
        patient_name: data_set::text(said, tags::PATIENT_NAME),
        series: data_set::integer(said, tags::NUMBER_OF_STUDY_RELATED_SERIES),
        instances: data_set::integer(said, tags::NUMBER_OF_STUDY_RELATED_INSTANCES),
    }
}

impl FoundStudy {
    /// Takes out what names the patient.
    fn shorten(&mut self) {
        self.patient_name = self.patient_name.as_deref().map(initials);
        self.patient_id = self.patient_id.as_deref().map(last_three);
        self.accession_number = None;
        self.description = None;
    }
}

/// What was found, and whether there is more.
async fn ask<T>(
    arguments: &Arguments,
    global: &Global,
    identifier: &DataSet,
    read: impl Fn(&Elements) -> T,
    output: Output,
) -> Result<(Vec<T>, bool), Failure> {
    let (config, _) = super::load_config(global, output)?;
    let model = known(FIND);
    let (mut association, context) = peer::associate(&config, &arguments.at, &model).await?;
    let mut found = Vec::new();
    let most = usize::from(arguments.limit);
    let ended = association
        .find_each(context, &model, identifier, most, |one| found.push(read(one.elements())))
        .await
        .map_err(|error| peer::failed(&arguments.at, &connect::explain(&error)))?;
    association.release(config.limits.release_timeout).await;
    match ended {
        FindEnded::All => Ok((found, false)),
        FindEnded::TooMany => Ok((found, true)),
        FindEnded::Refused(status) => Err(Failure::new(
            Exit::Refused,
            format_args!("{} answered {status}: {}", arguments.at, status.words()),
        )),
    }
}

fn print<T: Serialize>(
    arguments: &Arguments,
    found: Vec<T>,
    more: bool,
    header: &[&str],
    row: impl Fn(&T) -> Vec<String>,
    output: Output,
) -> Result<Exit, Failure> {
    let exit = if found.is_empty() { Exit::NotFound } else { Exit::Done };
    if output.is_json() {
        output.json(&Answer { schema: 1, at: arguments.at.clone(), more, found })?;
        return Ok(exit);
    }
    if found.is_empty() {
        output.say(format_args!("{} has nothing that matches", arguments.at));
        return Ok(exit);
    }
    output.table(header, found.iter().map(row).collect())?;
    if more {
        let shown = words::count(found.len() as u64, "is shown", "are shown");
        output.say(format_args!("{shown}, and there is more: ask for less, or raise --limit"));
    }
    Ok(exit)
}
