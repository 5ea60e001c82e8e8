//! In which order the instances of an emergency go: first what somebody can decide by who waits for it.
//!
//! One scout, then one thick axial series, then the rest, and thin slices last; within each in the order of arrival, which
//! is that of the scanner. It is decided by Image Type (0008,0008; PS3.3 C.8.2.1.1.1) and Slice Thickness (0018,0050), so
//! what says neither goes with the rest. Which scout and which series that are is decided once for a transfer, by what
//! came first.

use dicom_dictionary_std::tags;

use crate::dicom::{Attributes, SeriesInstanceUid, SopInstanceUid};

use super::db::{Cell, Db};
use super::{parsed, unreadable};

/// Slices of this thickness and more give an overview of a region in few images; in mm.
const THICK: f64 = 2.5;
/// Slices below this are for reconstructions, and many.
const THIN: f64 = 2.0;

/// What an instance shows. Rows hold the number.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum View {
    Scout = 0,
    ThickAxial = 1,
    Other = 2,
    ThinSlice = 3,
}

impl View {
    /// As its attributes say.
    pub(super) fn of(attributes: &Attributes) -> Self {
        let image_type = attributes.text(tags::IMAGE_TYPE).unwrap_or_default();
        let mut types = image_type.split('\\').map(str::trim);
        let original = types.next() == Some("ORIGINAL");
        let kind = types.nth(1).unwrap_or_default();
        if kind == "LOCALIZER" {
            return Self::Scout;
        }
        let thickness = attributes.text(tags::SLICE_THICKNESS);
        let thickness = thickness.and_then(|text| text.trim().parse::<f64>().ok());
        match thickness {
            Some(thickness) if thickness < THIN => Self::ThinSlice,
            Some(thickness) if thickness >= THICK && original && kind == "AXIAL" => {
                Self::ThickAxial
            }
            _ => Self::Other,
        }
    }

    pub(super) fn number(self) -> i64 {
        self as i64
    }

    fn from_number(number: i64) -> Option<Self> {
        [Self::Scout, Self::ThickAxial, Self::Other, Self::ThinSlice]
            .into_iter()
            .find(|view| view.number() == number)
    }
}

/// The scout and the series that a transfer sends first.
#[derive(Clone, Debug, Default)]
pub(super) struct Chosen {
    pub(super) scout: Option<SopInstanceUid>,
    pub(super) overview: Option<SeriesInstanceUid>,
}

impl Chosen {
    /// When an instance goes: the lower the sooner. What is in no hurry has [`Chosen::ANY`].
    pub(super) fn turn(
        &mut self,
        view: View,
        instance: &SopInstanceUid,
        series: &SeriesInstanceUid,
    ) -> i64 {
        let first = match view {
            View::Scout => self.scout.get_or_insert_with(|| instance.clone()) == instance,
            View::ThickAxial => self.overview.get_or_insert_with(|| series.clone()) == series,
            View::Other | View::ThinSlice => true,
        };
        if first { view.number() } else { Self::ANY }
    }

    /// The turn of whatever has no order but that of its arrival.
    pub(super) const ANY: i64 = View::Other as i64;
}

/// Puts what waits of a transfer, which has become an emergency, into its order.
pub(super) async fn arrange(db: &mut Db, transfer: i64) -> sqlx::Result<Chosen> {
    let rows = db
        .query(
            "SELECT d.id, d.state, i.view, i.sop_instance, s.uid FROM delivery d JOIN instance i ON i.id = d.instance \
             JOIN series s ON s.id = i.series WHERE d.transfer = $1 ORDER BY i.id",
        )
        .bind(transfer)
        .fetch_all(&mut *db)
        .await?;
    let mut chosen = Chosen::default();
    let mut turns: Vec<[Cell; 2]> = Vec::new();
    for row in &rows {
        let view = View::from_number(row.try_get("view")?).ok_or_else(|| unreadable("view"))?;
        let (instance, series) = (parsed(row, "sop_instance")?, parsed(row, "uid")?);
        let turn = chosen.turn(view, &instance, &series);
        if matches!(row.try_get("state")?, "queued" | "deferred" | "failed") {
            turns.push([row.try_get::<i64>("id")?.into(), turn.into()]);
        }
    }
    db.for_rows(
        "UPDATE delivery SET turn = new.turn FROM ",
        ["id", "turn"],
        turns,
        " WHERE delivery.id = new.id",
    )
    .await?;
    db.query("UPDATE transfer SET scout = $2, overview = $3 WHERE id = $1")
        .bind(transfer)
        .bind(chosen.scout.as_ref().map(SopInstanceUid::as_str))
        .bind(chosen.overview.as_ref().map(SeriesInstanceUid::as_str))
        .execute(db)
        .await?;
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::super::samples::{On, at, claim, ct, index, on_both, transfer};
    use super::*;
    use crate::facts::Priority;
    use crate::index::{Arrival, Index};

    on_both![
        the_scout_and_one_thick_series_of_an_emergency_go_first_and_thin_slices_last,
        what_becomes_an_emergency_is_put_into_that_order,
        what_is_no_emergency_goes_as_it_came,
    ];

    #[test]
    fn attributes_tell_what_an_instance_shows() {
        let cases = [
            ("ORIGINAL\\PRIMARY\\LOCALIZER", "5", View::Scout),
            ("DERIVED\\SECONDARY\\LOCALIZER\\X", "", View::Scout),
            ("ORIGINAL\\PRIMARY\\AXIAL", "5.0 ", View::ThickAxial),
            ("ORIGINAL\\PRIMARY\\AXIAL\\CT_SOM5 SPI", "2.5", View::ThickAxial),
            ("ORIGINAL\\PRIMARY\\AXIAL", "2.4", View::Other),
            ("ORIGINAL\\PRIMARY\\AXIAL", "0.625", View::ThinSlice),
            ("DERIVED\\SECONDARY\\REFORMATTED", "3", View::Other),
            ("DERIVED\\SECONDARY\\REFORMATTED", "1", View::ThinSlice),
            ("ORIGINAL\\PRIMARY\\AXIAL", "thick", View::Other),
            ("ORIGINAL\\PRIMARY\\AXIAL", "NaN", View::Other),
            ("", "", View::Other),
        ];
        for (image_type, thickness, view) in cases {
            let mut attributes = Attributes::default();
            attributes.insert(tags::IMAGE_TYPE, image_type.into());
            attributes.insert(tags::SLICE_THICKNESS, thickness.into());
            assert_eq!(View::of(&attributes), view, "{image_type}, {thickness}");
        }
        assert_eq!(View::of(&Attributes::default()), View::Other);
    }

    fn image(number: u32, series: &str, image_type: &str, thickness: &str) -> Arrival {
        let mut arrival =
            ct(1, number).with(tags::IMAGE_TYPE, image_type).with(tags::SLICE_THICKNESS, thickness);
        arrival.facts.series = series.parse().unwrap();
        arrival
    }

    /// In the order of a scanner: scout, a second one, thin slices, two thick series, and a report.
    fn study(priority: Priority) -> Vec<Arrival> {
        let (axial, scout) = ("ORIGINAL\\PRIMARY\\AXIAL", "ORIGINAL\\PRIMARY\\LOCALIZER");
        [
            image(1, "1.2.1", scout, ""),
            image(2, "1.2.1", scout, ""),
            image(3, "1.2.2", axial, "0.6"),
            image(4, "1.2.2", axial, "0.6"),
            image(5, "1.2.3", axial, "5"),
            image(6, "1.2.4", axial, "3"),
            image(7, "1.2.3", axial, "5"),
            ct(1, 8),
        ]
        .map(|arrival| arrival.to("york", priority))
        .to_vec()
    }

    /// The numbers of the instances as they are claimed, two at a time.
    async fn order(index: &Index) -> Vec<u64> {
        let mut order = Vec::new();
        loop {
            let lease = std::time::Duration::from_mins(1);
            let claims = index.claim("york", "node", 2, lease, at(1)).await.unwrap();
            if claims.is_empty() {
                return order;
            }
            let number = |uid: &str| uid.rsplit('.').next().unwrap().parse::<u64>().unwrap();
            order.extend(claims.iter().map(|claim| number(claim.sop_instance.as_str())));
        }
    }

    async fn the_scout_and_one_thick_series_of_an_emergency_go_first_and_thin_slices_last(on: On) {
        let (index, _dir) = index(on).await;
        // In batches, as they arrive.
        for batch in study(Priority::Emergency).chunks(3) {
            index.record(batch).await.unwrap();
        }
        assert_eq!(order(&index).await, [1, 5, 7, 2, 6, 8, 3, 4]);
    }

    async fn what_becomes_an_emergency_is_put_into_that_order(on: On) {
        let (index, _dir) = index(on).await;
        let (first, later) = (&study(Priority::Routine)[..6], &study(Priority::Routine)[6..]);
        let id = transfer(&index, first).await;
        assert_eq!(claim(&index, "york", 1, 0).await.len(), 1, "the scout is on its way");

        index.make_urgent(id, Priority::Emergency, "a.person", "", at(0)).await.unwrap();
        index.record(later).await.unwrap();

        assert_eq!(order(&index).await, [5, 7, 2, 6, 8, 3, 4]);
    }

    async fn what_is_no_emergency_goes_as_it_came(on: On) {
        let (index, _dir) = index(on).await;
        index.record(&study(Priority::Urgent)).await.unwrap();
        assert_eq!(order(&index).await, [1, 2, 3, 4, 5, 6, 7, 8]);
    }
}
