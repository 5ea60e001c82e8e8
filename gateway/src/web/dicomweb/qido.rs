//! QIDO-RS (PS3.18 10.6): what is here of what the caller may see, as attributes.
//!
//! Keys are matched as those of C-FIND are, by the same code. What cannot be matched is refused rather than passed over: a
//! search without a condition that somebody wrote finds more than was asked for.

use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::Response;
use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;
use gantry_deidentify::data_set::{DataSet, Element, dictionary_vr};
use gantry_dicomweb::accept::{Answer, Media, Resource, Target};
use gantry_dicomweb::json::Json;
use gantry_dicomweb::model;
use gantry_dicomweb::multipart::Writer;
use gantry_dicomweb::qido::{self, Query as Parameters};
use gantry_dicomweb::xml::Xml;
use gantry_store::dicom::text::Written;
use gantry_store::index::{Found, Page};
use gantry_store::query::{Extended, Level, Model, Query, keys_at};
use jiff::Timestamp;

use super::super::problem::Problem;
use super::{Asked, Named, answer, away, boundary, caller, respond};
use crate::access;
use crate::association::services::identifier;
use crate::config::Permission;

/// The most matches of one answer; who wants more goes on with `offset`.
const MOST_MATCHES: u32 = 5000;
/// What the Warning header says where [`MOST_MATCHES`] cut the answer (PS3.18 8.3.4.4).
const MORE: &str = "The number of results exceeded the maximum supported by the server. Additional results can be requested.";

/// What a match is told with, whatever was asked for (PS3.18 Tables 10.6.3-3 to 10.6.3-5), as far as it is known here.
const OF_STUDY: [Tag; 13] = [
    tags::STUDY_DATE,
    tags::STUDY_TIME,
    tags::ACCESSION_NUMBER,
    tags::MODALITIES_IN_STUDY,
    tags::REFERRING_PHYSICIAN_NAME,
    tags::PATIENT_NAME,
    tags::PATIENT_ID,
    tags::PATIENT_BIRTH_DATE,
    tags::PATIENT_SEX,
    tags::STUDY_INSTANCE_UID,
    tags::STUDY_ID,
    tags::NUMBER_OF_STUDY_RELATED_SERIES,
    tags::NUMBER_OF_STUDY_RELATED_INSTANCES,
];
const OF_SERIES: [Tag; 5] = [
    tags::MODALITY,
    tags::SERIES_DESCRIPTION,
    tags::SERIES_INSTANCE_UID,
    tags::SERIES_NUMBER,
    tags::NUMBER_OF_SERIES_RELATED_INSTANCES,
];
const OF_INSTANCE: [Tag; 6] = [
    tags::SOP_CLASS_UID,
    tags::SOP_INSTANCE_UID,
    tags::INSTANCE_NUMBER,
    tags::ROWS,
    tags::COLUMNS,
    tags::NUMBER_OF_FRAMES,
];

pub(super) async fn studies(asked: Asked) -> Result<Response, Problem> {
    search(asked, Level::Study).await
}

pub(super) async fn series(asked: Asked) -> Result<Response, Problem> {
    search(asked, Level::Series).await
}

pub(super) async fn instances(asked: Asked) -> Result<Response, Problem> {
    search(asked, Level::Image).await
}

async fn search(asked: Asked, level: Level) -> Result<Response, Problem> {
    let Asked { app, peer, named: under, headers, .. } = &asked;
    caller::permit(app, peer, Permission::Query)?;
    let parameters = Parameters::parse(asked.query(), &[])
        .map_err(|error| Problem::bad_request(format!("The search is not understood: {error}.")))?;
    let target =
        Target { resource: Resource::Search, single: false, stored: None, transcodes: &[] };
    let wanted = answer(headers, parameters.accept.as_deref(), &target)?;
    let query = keys(under, level, &parameters)?;

    let most = parameters.limit.unwrap_or(MOST_MATCHES).min(MOST_MATCHES);
    let (mut found, mut was_cut) = (Vec::new(), false);
    if most > 0 {
        let page = Page { skip: parameters.offset, limit: most, ..Page::default() };
        let scope = access::scope(peer);
        let mut search =
            app.index.find_all(&query, &scope, page, u64::from(most), Timestamp::now());
        loop {
            let page = search.next().await.map_err(|error| away(&error))?;
            if page.is_empty() {
                break;
            }
            found.extend(page);
        }
        was_cut = search.was_cut() && parameters.limit.is_none_or(|limit| limit > most);
    }
    tracing::info!(
        caller = peer.name(),
        matches = found.len(),
        ?level,
        "search over DICOMweb answered"
    );
    let service = app.service();
    let mut fields = warnings(&service, &parameters, was_cut);
    if found.is_empty() {
        return Ok(respond(StatusCode::NO_CONTENT, &fields, Body::empty()));
    }
    let sets = found.iter().map(|found| told(found, &query, &service));
    let (kind, body) = body(&wanted, sets)?;
    fields.push((header::CONTENT_TYPE, kind));
    Ok(respond(StatusCode::OK, &fields, body.into()))
}

fn warnings(
    service: &str,
    parameters: &Parameters,
    was_cut: bool,
) -> Vec<(header::HeaderName, String)> {
    let said = [
        (was_cut, MORE),
        (parameters.fuzzy_matching, qido::NO_FUZZY_MATCHING),
        (parameters.empty_value_matching, qido::NO_EMPTY_VALUE_MATCHING),
        (parameters.multiple_value_matching, qido::NO_MULTIPLE_VALUE_MATCHING),
    ];
    let said = said.into_iter().filter(|(is_so, _)| *is_so);
    said.map(|(_, text)| (header::WARNING, qido::warning(service, text))).collect()
}

/// The keys of a search: what the address names, what the parameters say, and what is told of every match.
fn keys(under: &Named, level: Level, parameters: &Parameters) -> Result<Query, Problem> {
    let mut keys: Vec<(Tag, String)> = Vec::new();
    keys.extend(under.study.as_ref().map(|uid| (tags::STUDY_INSTANCE_UID, uid.to_string())));
    keys.extend(under.series.as_ref().map(|uid| (tags::SERIES_INSTANCE_UID, uid.to_string())));
    for one in &parameters.matches {
        let tag = one.attribute.tag;
        let name = format!("({:04X},{:04X})", tag.group(), tag.element());
        let is_known = keys_at(level).any(|(known, _)| known == tag);
        if !one.attribute.sequences.is_empty() || !is_known {
            let detail = format!("{name} is not an attribute that this search can look for.");
            return Err(Problem::bad_request(detail).hint(
                "gateway/CONFORMANCE.md lists those that it can; leave this one out, and choose among what is found.",
            ));
        }
        if keys.iter().any(|(other, _)| *other == tag) {
            let detail = format!("{name} is in the address and in the query.");
            return Err(Problem::bad_request(detail).hint("Name it once."));
        }
        // PS3.18 8.3.4.1: lists of UIDs have commas.
        let value = match dictionary_vr(tag) {
            VR::UI => one.value.replace(',', "\\"),
            _ => one.value.clone(),
        };
        keys.push((tag, value));
    }
    let mut ask = |tag: Tag| {
        if !keys.iter().any(|(other, _)| *other == tag) {
            keys.push((tag, String::new()));
        }
    };
    if parameters.include_all {
        keys_at(level).for_each(|(tag, _)| ask(tag));
    }
    // Of a search under a study that study's attributes are known to who asks (PS3.18 10.6.3.3).
    if level == Level::Study || under.study.is_none() {
        OF_STUDY.into_iter().for_each(&mut ask);
    } else {
        ask(tags::STUDY_INSTANCE_UID);
    }
    if level == Level::Series || level == Level::Image && under.series.is_none() {
        OF_SERIES.into_iter().for_each(&mut ask);
    } else if level == Level::Image {
        ask(tags::SERIES_INSTANCE_UID);
    }
    if level == Level::Image {
        OF_INSTANCE.into_iter().for_each(&mut ask);
    }
    let known = parameters.include.iter().filter(|it| it.sequences.is_empty()).map(|it| it.tag);
    known.filter(|tag| keys_at(level).any(|(known, _)| known == *tag)).for_each(&mut ask);

    let extended = Extended { relational: true, combined_datetime: true };
    let keys = keys.iter().map(|(tag, value)| (*tag, value.as_str()));
    Query::new(Model::StudyRoot, level, extended, keys)
        .map_err(|error| Problem::bad_request(format!("The search is not understood: {error}.")))
}

/// What is said of a match.
fn told(found: &Found, query: &Query, service: &str) -> DataSet {
    let utf8 = Written::Utf8;
    let mut set = DataSet::default();
    set.put(Element::new(tags::SPECIFIC_CHARACTER_SET, VR::CS, utf8.term()));
    for (tag, _) in query.keys() {
        set.put(identifier::element(tag, found.value(tag).unwrap_or_default(), &utf8));
    }
    set.put(Element::new(tags::INSTANCE_AVAILABILITY, VR::CS, "ONLINE"));
    let mut url = service.to_owned();
    let levels = [
        ("studies", found.study.as_ref().map(ToString::to_string)),
        ("series", found.series.as_ref().map(ToString::to_string)),
        ("instances", found.instance.as_ref().map(ToString::to_string)),
    ];
    for (level, uid) in levels {
        if let Some(uid) = uid {
            url = format!("{url}/{level}/{uid}");
        }
    }
    set.put(Element::new(tags::RETRIEVE_URL, VR::UR, url));
    set
}

/// The matches in the model that was chosen: one array in JSON, a part each in XML (PS3.18 10.6.3.2).
fn body(
    wanted: &Answer,
    sets: impl Iterator<Item = DataSet>,
) -> Result<(String, Vec<u8>), Problem> {
    let mut out = Vec::new();
    if wanted.media == Media::DicomXml {
        let boundary = boundary()?;
        let kind = boundary.content_type(wanted.media.name());
        let mut parts = Writer::new(boundary);
        for set in sets {
            parts.part(&[("Content-Type", wanted.media.name())], &mut out);
            out = model::tree::<Xml>(&set, out, u64::MAX, |_| None)
                .map_err(|error| Problem::internal(&error))?;
        }
        parts.end(&mut out);
        return Ok((kind, out));
    }
    out.push(b'[');
    for (number, set) in sets.enumerate() {
        if number > 0 {
            out.push(b',');
        }
        out = model::tree::<Json>(&set, out, u64::MAX, |_| None)
            .map_err(|error| Problem::internal(&error))?;
    }
    out.push(b']');
    Ok((wanted.media.name().to_owned(), out))
}
