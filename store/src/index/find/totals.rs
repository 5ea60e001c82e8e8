//! What belongs to a study or a patient as a whole: counts, modalities, SOP classes (PS3.4 C.3.4).

use std::collections::{BTreeSet, HashMap};

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use jiff::Timestamp;

use super::super::db::{self, Db, Row};
use super::super::share::{self, Scope};
use super::super::unsigned;
use super::statement::STUDY_IS_HERE;
use crate::dicom::Phi;
use crate::query::Query;

/// Of the rows of one page.
#[derive(Default)]
pub(super) struct Totals {
    studies: HashMap<i64, OfStudy>,
    patients: HashMap<i64, [u64; 3]>,
}

#[derive(Default)]
struct OfStudy {
    /// Modality and images of each series.
    series: HashMap<i64, (Option<String>, u64)>,
    classes: BTreeSet<String>,
}

const OF_STUDY: &[Tag] = &[
    tags::MODALITIES_IN_STUDY,
    tags::SOP_CLASSES_IN_STUDY,
    tags::NUMBER_OF_STUDY_RELATED_SERIES,
    tags::NUMBER_OF_STUDY_RELATED_INSTANCES,
    tags::NUMBER_OF_SERIES_RELATED_INSTANCES,
];
const OF_PATIENT: [Tag; 3] = [
    tags::NUMBER_OF_PATIENT_RELATED_STUDIES,
    tags::NUMBER_OF_PATIENT_RELATED_SERIES,
    tags::NUMBER_OF_PATIENT_RELATED_INSTANCES,
];

impl Totals {
    /// Of what a query asks for, and nothing else.
    pub(super) async fn of(
        db: &mut Db,
        query: &Query,
        scope: &Scope,
        rows: &[Row],
        now: Timestamp,
    ) -> sqlx::Result<Self> {
        let mut totals = Self::default();
        let ids = |column: &'static str| -> sqlx::Result<BTreeSet<i64>> {
            let ids = rows.iter().map(|row| row.try_get::<Option<i64>>(column));
            Ok(ids.collect::<sqlx::Result<Vec<_>>>()?.into_iter().flatten().collect())
        };
        if OF_STUDY.iter().any(|tag| query.asks_for(*tag)) {
            let studies: Vec<i64> = ids("study")?.into_iter().collect();
            for studies in studies.chunks(db::MOST) {
                totals.count_studies(&mut *db, studies).await?;
            }
        }
        if OF_PATIENT.iter().any(|tag| query.asks_for(*tag)) {
            let patients: Vec<i64> = ids("patient")?.into_iter().collect();
            for patients in patients.chunks(db::MOST) {
                totals.count_patients(&mut *db, patients, scope, now).await?;
            }
        }
        Ok(totals)
    }

    async fn count_studies(&mut self, db: &mut Db, studies: &[i64]) -> sqlx::Result<()> {
        let mut statement = db.query(
            "SELECT v.study, v.id AS series, v.modality, k.sop_class, COUNT(*) AS images FROM series v \
             JOIN instance k ON k.series = v.id WHERE k.removed_at IS NULL AND k.quarantined = 0 AND v.study ",
        );
        statement.push_in(studies.iter().copied());
        statement.push(" GROUP BY v.study, v.id, v.modality, k.sop_class");
        let mut counts: HashMap<(i64, i64, String), (Option<String>, u64)> = HashMap::new();
        for row in statement.fetch_all(&mut *db).await? {
            let key = (row.try_get("study")?, row.try_get("series")?, row.try_get("sop_class")?);
            counts.insert(key, (row.try_get("modality")?, unsigned(&row, "images")?));
        }
        // Later versions are few, and only theirs are looked for by name.
        let mut statement = db.query(
            "SELECT v.study, o.series, o.sop_class, COUNT(DISTINCT o.id) AS images FROM series v \
             JOIN instance n ON n.series = v.id JOIN instance o ON o.sop_instance = n.sop_instance \
             WHERE n.removed_at IS NULL AND n.quarantined = 0 AND n.version > 1 AND o.removed_at IS NULL \
             AND o.quarantined = 0 AND o.version < n.version AND v.study ",
        );
        statement.push_in(studies.iter().copied());
        statement.push(" GROUP BY v.study, o.series, o.sop_class");
        for row in statement.fetch_all(&mut *db).await? {
            let key = (row.try_get("study")?, row.try_get("series")?, row.try_get("sop_class")?);
            if let Some((_, images)) = counts.get_mut(&key) {
                *images = images.saturating_sub(unsigned(&row, "images")?);
            }
        }
        for ((study, series, class), (modality, images)) in counts {
            if images > 0 {
                let study = self.studies.entry(study).or_default();
                study.classes.insert(class);
                study.series.entry(series).or_insert((modality, 0)).1 += images;
            }
        }
        Ok(())
    }

    /// In scope: how much else there is of a patient is nobody's business.
    async fn count_patients(
        &mut self,
        db: &mut Db,
        patients: &[i64],
        scope: &Scope,
        now: Timestamp,
    ) -> sqlx::Result<()> {
        let mut statement = db.query(
            "SELECT s.patient, COUNT(DISTINCT s.id) AS studies, COUNT(DISTINCT r.id) AS series, \
             COUNT(DISTINCT i.sop_instance) AS images FROM study s JOIN series r ON r.study = s.id \
             JOIN instance i ON i.series = r.id WHERE i.removed_at IS NULL AND i.quarantined = 0 AND s.patient ",
        );
        statement.push_in(patients.iter().copied()).push(" AND ").push(STUDY_IS_HERE).push(" AND ");
        share::push_scope(&mut statement, scope, now);
        statement.push(" GROUP BY s.patient");
        for row in statement.fetch_all(db).await? {
            let counts =
                [unsigned(&row, "studies")?, unsigned(&row, "series")?, unsigned(&row, "images")?];
            self.patients.insert(row.try_get("patient")?, counts);
        }
        Ok(())
    }

    /// Adds to the values of a match what is asked for.
    pub(super) fn add_to(
        &self,
        values: &mut Vec<(Tag, Phi<String>)>,
        row: &Row,
        query: &Query,
    ) -> sqlx::Result<()> {
        let mut add = |tag, value: String| {
            if query.asks_for(tag) && !value.is_empty() {
                values.push((tag, Phi::new(value)));
            }
        };
        if let Some(study) = self.studies.get(&row.try_get::<i64>("study")?) {
            let modalities: BTreeSet<&str> =
                study.series.values().filter_map(|(modality, _)| modality.as_deref()).collect();
            add(tags::MODALITIES_IN_STUDY, Vec::from_iter(modalities).join("\\"));
            let classes: Vec<&str> = study.classes.iter().map(String::as_str).collect();
            add(tags::SOP_CLASSES_IN_STUDY, classes.join("\\"));
            add(tags::NUMBER_OF_STUDY_RELATED_SERIES, study.series.len().to_string());
            let images: u64 = study.series.values().map(|(_, images)| images).sum();
            add(tags::NUMBER_OF_STUDY_RELATED_INSTANCES, images.to_string());
            if query.asks_for(tags::NUMBER_OF_SERIES_RELATED_INSTANCES)
                && let Some((_, images)) = study.series.get(&row.try_get::<i64>("series")?)
            {
                add(tags::NUMBER_OF_SERIES_RELATED_INSTANCES, images.to_string());
            }
        }
        let patient = row.try_get::<Option<i64>>("patient")?;
        if let Some(counts) = patient.and_then(|patient| self.patients.get(&patient)) {
            for (tag, count) in OF_PATIENT.into_iter().zip(counts) {
                add(tag, count.to_string());
            }
        }
        Ok(())
    }
}
