//! The statement of a search, put together from fixed texts and bound values.
//!
//! Which index it goes along is decided here, by its order: SQLite and PostgreSQL follow the order where it fits a key.

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use jiff::Timestamp;

use super::super::db::{Db, Query as Statement};
use super::super::share::{self, Scope};
use super::{Cursor, Page};
use crate::query::{Days, Level, Matching, NamePattern, Pattern, Query, Times};

/// Where the value of an attribute stands.
pub(super) struct Column {
    pub(super) tag: Tag,
    /// In the statement.
    sql: &'static str,
    /// In its answer.
    pub(super) name: &'static str,
    pub(super) is_number: bool,
}

const fn text(tag: Tag, sql: &'static str, name: &'static str) -> Column {
    Column { tag, sql, name, is_number: false }
}

const fn number(tag: Tag, sql: &'static str, name: &'static str) -> Column {
    Column { tag, sql, name, is_number: true }
}

const COLUMNS: &[Column] = &[
    text(tags::PATIENT_NAME, "s.patient_name", "patient_name"),
    text(tags::PATIENT_ID, "p.patient_id", "patient_id"),
    text(tags::ISSUER_OF_PATIENT_ID, "p.issuer", "issuer"),
    text(tags::PATIENT_BIRTH_DATE, "s.birth_date", "birth_date"),
    text(tags::PATIENT_SEX, "s.sex", "sex"),
    text(tags::STUDY_INSTANCE_UID, "s.uid", "the_study_uid"),
    text(tags::STUDY_DATE, "s.study_date", "study_date"),
    text(tags::STUDY_TIME, "s.study_time", "study_time"),
    text(tags::ACCESSION_NUMBER, "s.accession_number", "accession_number"),
    text(tags::STUDY_ID, "s.study_id", "study_id"),
    text(tags::STUDY_DESCRIPTION, "s.description", "study_description"),
    text(tags::REFERRING_PHYSICIAN_NAME, "s.referring", "referring"),
    text(tags::SERIES_INSTANCE_UID, "r.uid", "the_series_uid"),
    text(tags::MODALITY, "r.modality", "modality"),
    number(tags::SERIES_NUMBER, "r.number", "series_number"),
    text(tags::SERIES_DESCRIPTION, "r.description", "series_description"),
    text(tags::BODY_PART_EXAMINED, "r.body_part", "body_part"),
    text(tags::SERIES_DATE, "r.series_date", "series_date"),
    text(tags::SERIES_TIME, "r.series_time", "series_time"),
    text(tags::PROTOCOL_NAME, "r.protocol", "protocol"),
    text(tags::LATERALITY, "r.laterality", "laterality"),
    text(tags::STATION_NAME, "r.station", "station"),
    text(tags::SOP_INSTANCE_UID, "i.sop_instance", "the_sop_instance"),
    text(tags::SOP_CLASS_UID, "i.sop_class", "sop_class"),
    number(tags::INSTANCE_NUMBER, "i.number", "instance_number"),
    number(tags::ROWS, "i.rows", "image_rows"),
    number(tags::COLUMNS, "i.columns", "image_columns"),
    number(tags::NUMBER_OF_FRAMES, "i.frames", "frames"),
];

/// The columns that a query asks for.
pub(super) fn columns(query: &Query) -> Vec<&'static Column> {
    COLUMNS.iter().filter(|column| query.asks_for(column.tag)).collect()
}

/// The order of the matches.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Order {
    /// By rows, the latest first. `by_identifier`: a key or the scope names few, which are sorted.
    Study { by_identifier: bool },
    /// By study date, the latest first.
    Day,
    /// By the patient's name.
    Name,
}

impl Order {
    /// What fits the keys best.
    pub(super) fn of(query: &Query) -> Self {
        const IDENTIFIERS: &[Tag] = &[
            tags::PATIENT_ID,
            tags::STUDY_INSTANCE_UID,
            tags::ACCESSION_NUMBER,
            tags::SERIES_INSTANCE_UID,
            tags::SOP_INSTANCE_UID,
        ];
        let (mut by_identifier, mut name, mut day) = (false, false, false);
        for (tag, matching) in query.keys() {
            by_identifier |= IDENTIFIERS.contains(&tag) && matches!(matching, Matching::OneOf(_));
            day |= tag == tags::STUDY_DATE && matches!(matching, Matching::Days(_));
            name |= tag == tags::PATIENT_NAME
                && matches!(
                    matching,
                    Matching::Name(NamePattern::Alphabetic(_) | NamePattern::Groups([Some(_), ..]))
                );
        }
        // Patients are one row for several studies, and so have no date or name to go by.
        match query.level() {
            Level::Patient => Self::Study { by_identifier: by_identifier || name },
            _ if by_identifier => Self::Study { by_identifier },
            _ if name => Self::Name,
            _ if day => Self::Day,
            _ => Self::Study { by_identifier: false },
        }
    }

    pub(super) fn is_by_identifier(self) -> bool {
        self == Self::Study { by_identifier: true }
    }
}

/// All that a statement is made of.
pub(super) struct Ask<'a> {
    pub(super) query: &'a Query,
    pub(super) scope: &'a Scope,
    pub(super) page: &'a Page,
    pub(super) now: Timestamp,
    pub(super) order: Order,
    pub(super) by_scope: Option<&'a str>,
}

/// A study shows when something of it came and has not gone.
pub(super) const STUDY_IS_HERE: &str = "s.last_received_at IS NOT NULL AND (s.removed_at IS NULL OR EXISTS \
    (SELECT 1 FROM series v JOIN instance k ON k.series = v.id WHERE v.study = s.id \
    AND k.removed_at IS NULL AND k.quarantined = 0))";
const SERIES_IS_HERE: &str = " AND EXISTS (SELECT 1 FROM instance i WHERE i.series = r.id \
    AND i.removed_at IS NULL AND i.quarantined = 0 AND NOT EXISTS (SELECT 1 FROM instance n \
    WHERE n.sop_instance = i.sop_instance AND n.version > i.version AND n.removed_at IS NULL AND n.quarantined = 0))";
pub(super) const IMAGE_IS_HERE: &str = " AND i.removed_at IS NULL AND i.quarantined = 0 AND NOT EXISTS \
    (SELECT 1 FROM instance n WHERE n.sop_instance = i.sop_instance AND n.version > i.version \
    AND n.removed_at IS NULL AND n.quarantined = 0)";

impl Ask<'_> {
    /// The rows of a page at the levels below the patient.
    pub(super) fn rows(&self, db: &Db, columns: &[&Column], limit: u32) -> Statement {
        let level = self.query.level();
        let mut statement = self.select(db, columns);
        self.push_from(&mut statement);
        statement.push(" WHERE ").push(STUDY_IS_HERE);
        match level {
            Level::Series => statement.push(SERIES_IS_HERE),
            Level::Image => statement.push(IMAGE_IS_HERE),
            _ => &mut statement,
        };
        self.push_conditions(&mut statement, db.is_postgres());
        if let Some(after) = &self.page.after {
            self.push_after(&mut statement, after);
        }
        let (key, direction) = match self.order {
            Order::Study { .. } => ("", " DESC"),
            Order::Day => ("s.study_day DESC, ", " DESC"),
            Order::Name => ("s.name_folded, ", ""),
        };
        statement.push(" ORDER BY ").push(key).push("s.id").push(direction);
        if level >= Level::Series {
            statement.push(", r.id").push(direction);
        }
        if level >= Level::Image {
            statement.push(", i.id").push(direction);
        }
        self.push_limit(&mut statement, limit);
        statement
    }

    /// Of each patient of a page the latest study that matches.
    pub(super) fn patients(&self, db: &Db, limit: u32) -> Statement {
        let mut statement = db.query("SELECT MAX(s.id)");
        self.push_from(&mut statement);
        statement.push(" WHERE s.patient IS NOT NULL AND ").push(STUDY_IS_HERE);
        self.push_conditions(&mut statement, db.is_postgres());
        if let Some(after) = &self.page.after {
            statement.push(" AND s.patient < ").push_bind(after.study);
        }
        // The sign keeps SQLite from going through all patients in order where a key names few.
        statement.push(if self.order.is_by_identifier() {
            " GROUP BY +s.patient ORDER BY +s.patient DESC"
        } else {
            " GROUP BY s.patient ORDER BY s.patient DESC"
        });
        self.push_limit(&mut statement, limit);
        statement
    }

    /// Patients by studies of theirs that were found.
    pub(super) fn of_studies(&self, db: &Db, columns: &[&Column], studies: &[i64]) -> Statement {
        let mut statement = self.select(db, columns);
        self.push_from(&mut statement);
        statement.push(" WHERE s.id ").push_in(studies.iter().copied());
        statement.push(" ORDER BY s.patient DESC");
        statement
    }

    fn select(&self, db: &Db, columns: &[&Column]) -> Statement {
        let level = self.query.level();
        let mut statement = db.query(
            "SELECT s.id AS study, s.uid AS study_uid, s.patient, s.name_folded, s.study_day",
        );
        if level >= Level::Series {
            statement.push(", r.id AS series, r.uid AS series_uid");
        }
        if level >= Level::Image {
            statement.push(", i.id AS instance, i.sop_instance");
        }
        for column in columns {
            statement.push(", ").push(column.sql).push(" AS ").push(column.name);
        }
        statement.push(", ");
        share::push_protection(&mut statement, self.scope, self.now);
        statement
    }

    fn push_from(&self, statement: &mut Statement) {
        let is_matched =
            |tag| self.query.keys().any(|(key, how)| key == tag && *how != Matching::Universal);
        let patient = is_matched(tags::PATIENT_ID) || is_matched(tags::ISSUER_OF_PATIENT_ID);
        statement.push(" FROM study s ").push(if patient { "" } else { "LEFT " });
        statement.push("JOIN patient p ON p.id = s.patient");
        if self.query.level() >= Level::Series {
            statement.push(" JOIN series r ON r.study = s.id");
        }
        if self.query.level() >= Level::Image {
            statement.push(" JOIN instance i ON i.series = r.id");
        }
    }

    /// Scope and keys.
    fn push_conditions(&self, statement: &mut Statement, postgres: bool) {
        statement.push(" AND ");
        share::push_scope(statement, self.scope, self.now);
        if let Some(partner) = self.by_scope {
            share::push_candidates(statement, partner);
        }
        let pairs = [
            (tags::STUDY_DATE, tags::STUDY_TIME, "s.study_date", "s.study_time"),
            (tags::SERIES_DATE, tags::SERIES_TIME, "r.series_date", "r.series_time"),
        ];
        let is_in_pair = |tag| {
            pairs.iter().any(|pair| pair.1 == tag && self.query.combined(pair.0, tag).is_some())
        };
        for (tag, matching) in self.query.keys().filter(|(tag, _)| !is_in_pair(*tag)) {
            Condition { statement: &mut *statement, postgres }.push(tag, matching);
        }
        for (date, time, date_column, time_column) in pairs {
            if let Some((days, times)) = self.query.combined(date, time) {
                push_moments(statement, (date_column, time_column), days, times);
            }
        }
    }

    fn push_after(&self, statement: &mut Statement, after: &Cursor) {
        let level = self.query.level();
        statement.push(" AND (").push(match self.order {
            Order::Study { .. } => "",
            Order::Day => "s.study_day, ",
            Order::Name => "s.name_folded, ",
        });
        statement.push("s.id").push(if level >= Level::Series { ", r.id" } else { "" });
        statement.push(if level >= Level::Image { ", i.id" } else { "" });
        statement.push(if self.order == Order::Name { ") > (" } else { ") < (" });
        match self.order {
            Order::Study { .. } => {}
            Order::Day => {
                statement.push_bind(after.day).push(", ");
            }
            Order::Name => {
                statement.push_bind(after.text.as_deref()).push(", ");
            }
        }
        statement.push_bind(after.study);
        if level >= Level::Series {
            statement.push(", ").push_bind(after.series);
        }
        if level >= Level::Image {
            statement.push(", ").push_bind(after.instance);
        }
        statement.push(")");
    }

    fn push_limit(&self, statement: &mut Statement, limit: u32) {
        statement.push(" LIMIT ").push_bind(i64::from(limit));
        if self.page.skip > 0 {
            statement.push(" OFFSET ").push_bind(i64::from(self.page.skip));
        }
    }
}

/// The ends of a range of moments, whose days are a condition of their own (PS3.4 C.2.2.2.5.1).
fn push_moments(
    statement: &mut Statement,
    (date, time): (&'static str, &'static str),
    days: &Days,
    times: &Times,
) {
    // As `day` reads it: dates of ACR-NEMA have full stops.
    statement
        .push(" AND (REPLACE(")
        .push(date)
        .push(", '.', '') > ")
        .push_bind(format!("{:08}", days.from));
    statement.push(" OR REPLACE(").push(time).push(", ':', '') >= ").push_bind(times.from.as_str());
    statement
        .push(") AND (REPLACE(")
        .push(date)
        .push(", '.', '') < ")
        .push_bind(format!("{:08}", days.to));
    statement
        .push(" OR REPLACE(")
        .push(time)
        .push(", ':', '') <= ")
        .push_bind(times.to.as_str())
        .push(")");
}

/// What one key adds to a statement.
struct Condition<'s> {
    statement: &'s mut Statement,
    postgres: bool,
}

impl Condition<'_> {
    fn push(mut self, tag: Tag, matching: &Matching) {
        if *matching == Matching::Universal {
            return;
        }
        self.statement.push(" AND ");
        match tag {
            tags::MODALITIES_IN_STUDY => {
                self.statement.push(
                    "EXISTS (SELECT 1 FROM series m WHERE m.study = s.id AND EXISTS (SELECT 1 FROM instance k \
                     WHERE k.series = m.id AND k.removed_at IS NULL AND k.quarantined = 0) AND ",
                );
                self.push_value("m.modality", matching);
                self.statement.push(")");
            }
            tags::SOP_CLASSES_IN_STUDY => {
                self.statement.push(
                    "EXISTS (SELECT 1 FROM series m JOIN instance k ON k.series = m.id WHERE m.study = s.id \
                     AND k.removed_at IS NULL AND k.quarantined = 0 AND ",
                );
                self.push_value("k.sop_class", matching);
                self.statement.push(")");
            }
            tags::STUDY_DATE => match matching {
                Matching::Days(days) => self.push_days("s.study_day", days),
                _ => self.push_value("s.study_date", matching),
            },
            _ => match COLUMNS.iter().find(|column| column.tag == tag) {
                Some(column) => self.push_value(column.sql, matching),
                None => {
                    self.statement.push("1 = 1");
                }
            },
        }
    }

    fn push_value(&mut self, column: &'static str, matching: &Matching) {
        match matching {
            Matching::Universal => {
                self.statement.push("1 = 1");
            }
            Matching::OneOf(values) => {
                self.statement.push(column).push(" ").push_in(values.iter().map(String::as_str));
            }
            Matching::Numbers(values) => {
                self.statement.push(column).push(" ").push_in(values.iter().copied());
            }
            Matching::Like(pattern) => self.push_pattern(column, pattern),
            Matching::Name(name) if column == "s.referring" => self.push_referring(name),
            Matching::Name(name) => self.push_name(name),
            Matching::Days(days) => {
                self.statement.push("REPLACE(").push(column).push(", '.', '') BETWEEN ");
                self.statement.push_bind(format!("{:08}", days.from));
                self.statement.push(" AND ").push_bind(format!("{:08}", days.to));
            }
            Matching::Times(times) => self.push_times(column, times),
        }
    }

    fn push_days(&mut self, column: &'static str, days: &Days) {
        self.statement.push(column).push(" BETWEEN ").push_bind(days.from);
        self.statement.push(" AND ").push_bind(days.to);
    }

    fn push_times(&mut self, column: &'static str, times: &Times) {
        self.statement.push("REPLACE(").push(column).push(", ':', '') BETWEEN ");
        self.statement.push_bind(times.from.as_str()).push(" AND ").push_bind(times.to.as_str());
    }

    fn push_pattern(&mut self, column: &'static str, pattern: &Pattern) {
        if let Some(only) = pattern.literal() {
            self.statement.push(column).push(" = ").push_bind(only);
            return;
        }
        let prefix = pattern.prefix();
        if !prefix.is_empty() {
            // What an index can go by: neither database looks for that in a bound pattern.
            self.statement.push(column).push(" >= ").push_bind(prefix).push(" AND ");
            self.statement
                .push(column)
                .push(" < ")
                .push_bind(format!("{prefix}\u{10FFFF}"))
                .push(" AND ");
        }
        self.statement.push(column);
        if self.postgres {
            self.statement.push(" LIKE ").push_bind(pattern.like()).push(" ESCAPE '\\'");
        } else {
            self.statement.push(" GLOB ").push_bind(pattern.glob());
        }
    }

    fn push_name(&mut self, name: &NamePattern) {
        const GROUPS: [&str; 3] = ["s.name_folded", "s.name_ideographic", "s.name_phonetic"];
        match name {
            NamePattern::Alphabetic(pattern) => self.push_pattern("s.name_folded", pattern),
            NamePattern::Any(pattern) => {
                for (place, group) in GROUPS.into_iter().enumerate() {
                    self.statement.push(if place == 0 { "((" } else { ") OR (" });
                    self.push_pattern(group, pattern);
                }
                self.statement.push("))");
            }
            NamePattern::Groups(patterns) => {
                let mut before = "";
                for (group, pattern) in GROUPS.into_iter().zip(patterns) {
                    if let Some(pattern) = pattern {
                        self.statement.push(before);
                        self.push_pattern(group, pattern);
                        before = " AND ";
                    }
                }
            }
        }
    }

    /// Of a physician's name the alphabetic group is searched.
    fn push_referring(&mut self, name: &NamePattern) {
        match name {
            NamePattern::Alphabetic(pattern)
            | NamePattern::Any(pattern)
            | NamePattern::Groups([Some(pattern), ..]) => {
                self.push_pattern("s.referring_folded", pattern);
            }
            NamePattern::Groups([None, ..]) => {
                self.statement.push("1 = 1");
            }
        }
    }
}
