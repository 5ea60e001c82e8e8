//! When and how fast a partner is sent what is no emergency: `associations`, `rate`, `off-peak` and `routine` of a partner.

use std::fmt;
use std::str::FromStr;

use gantry_store::facts::Priority;
use jiff::civil::Time;
use jiff::{Timestamp, Zoned};
use thiserror::Error;

/// `associations` of a partner: how many at once, besides the one that is kept for emergencies.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Associations {
    /// As many as fill the link to it, from [`Associations::FEWEST`] to [`Associations::MOST`].
    #[default]
    Auto,
    /// So many, where there is work for them.
    Fixed(usize),
}

impl Associations {
    /// How many of `Auto` there are before anything is known of the link.
    pub const FEWEST: usize = 4;
    /// What a peer's own limit or a firewall's is seldom below, and what fills 100 Mbit/s over a third of the globe.
    pub const MOST: usize = 16;

    /// How many there may be.
    pub fn most(self) -> usize {
        match self {
            Self::Auto => Self::MOST,
            Self::Fixed(count) => count,
        }
    }

    /// How many there are before anything is known of the link.
    pub fn fewest(self) -> usize {
        match self {
            Self::Auto => Self::FEWEST,
            Self::Fixed(count) => count,
        }
    }
}

/// When and how fast a partner is sent what is no emergency. An emergency goes at once and as fast as the link is.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Pace {
    /// Bytes a second at most, outside of the off-peak hours.
    pub rate: Option<u64>,
    /// When the line is free for bulk, in the node's time zone.
    pub off_peak: Option<Hours>,
    /// Whether what is routine waits for these hours.
    pub routine_waits: bool,
}

impl Pace {
    /// Whether something of this priority may not go now but waits for the off-peak hours.
    pub fn holds(&self, priority: Priority, now: &Zoned) -> bool {
        priority == Priority::Routine && self.routine_waits && !self.is_off_peak(now)
    }

    /// Bytes a second that something of this priority may take now; `None`: as many as there are.
    pub fn rate_for(&self, priority: Priority, now: &Zoned) -> Option<u64> {
        self.rate.filter(|_| priority != Priority::Emergency && !self.is_off_peak(now))
    }

    /// When the off-peak hours begin that what is held now waits for.
    pub fn opens(&self, now: &Zoned) -> Option<Timestamp> {
        self.off_peak.filter(|_| self.routine_waits && !self.is_off_peak(now))?.next_start(now)
    }

    fn is_off_peak(&self, now: &Zoned) -> bool {
        self.off_peak.is_some_and(|hours| hours.contains(now.time()))
    }
}

/// Hours of every day, such as `19:00-07:00`; they may go past midnight.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Hours {
    from: Time,
    until: Time,
}

/// Why a text does not name hours, as a clause.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("{0}")]
pub struct InvalidHours(&'static str);

impl Hours {
    /// Whether a time of the day lies in them; the last minute does not.
    pub fn contains(self, time: Time) -> bool {
        if self.from < self.until {
            self.from <= time && time < self.until
        } else {
            self.from <= time || time < self.until
        }
    }

    /// When they begin next, as seen from a moment outside of them. On a day on which clocks are put forward past that time
    /// it is the first moment after.
    fn next_start(self, now: &Zoned) -> Option<Timestamp> {
        let today = now.date();
        [today, today.tomorrow().ok()?].into_iter().find_map(|date| {
            let start = date.to_datetime(self.from).to_zoned(now.time_zone().clone()).ok()?;
            (start > *now).then(|| start.timestamp())
        })
    }
}

impl FromStr for Hours {
    type Err = InvalidHours;

    fn from_str(text: &str) -> Result<Self, InvalidHours> {
        let (from, until) = text.split_once('-').ok_or(InvalidHours("the hyphen is missing"))?;
        let (from, until) = (time(from.trim())?, time(until.trim())?);
        if from == until {
            return Err(InvalidHours("that is the whole day, or nothing of it"));
        }
        Ok(Self { from, until })
    }
}

fn time(text: &str) -> Result<Time, InvalidHours> {
    let wrong = InvalidHours("a time is written with two digits each, such as 07:30");
    let (hour, minute) = text.split_once(':').ok_or(wrong)?;
    let number = |digits: &str| {
        let two = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_digit());
        two.then(|| digits.parse::<i8>().ok()).flatten().ok_or(wrong)
    };
    Time::new(number(hour)?, number(minute)?, 0, 0)
        .map_err(|_| InvalidHours("the day has 24 hours, and an hour 60 minutes"))
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.from.strftime("%H:%M"), self.until.strftime("%H:%M"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hours(text: &str) -> Hours {
        text.parse().unwrap()
    }

    fn at(hour: i8, minute: i8) -> Time {
        jiff::civil::time(hour, minute, 0, 0)
    }

    #[test]
    fn hours_may_go_past_midnight() {
        let night = hours("19:00-07:00");
        assert!([at(19, 0), at(23, 59), at(0, 0), at(6, 59)].iter().all(|t| night.contains(*t)));
        assert!([at(7, 0), at(12, 0), at(18, 59)].iter().all(|t| !night.contains(*t)));
        let noon = hours("12:00 - 13:30");
        assert!(
            noon.contains(at(13, 29)) && !noon.contains(at(13, 30)) && !noon.contains(at(0, 0))
        );
        assert_eq!(
            (night.to_string(), noon.to_string()),
            ("19:00-07:00".into(), "12:00-13:30".into())
        );
    }

    #[test]
    fn what_are_no_hours_is_told_why() {
        for (text, why) in [
            ("19:00", "hyphen"),
            ("7-19", "two digits"),
            ("7:00-19:00", "two digits"),
            ("24:00-07:00", "24 hours"),
            ("19:60-07:00", "60 minutes"),
            ("+1:00-07:00", "two digits"),
            ("07:00-07:00", "whole day"),
        ] {
            let error = text.parse::<Hours>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn an_emergency_is_never_held_back_and_urgent_only_by_the_rate() {
        let pace =
            Pace { rate: Some(1000), off_peak: Some(hours("19:00-07:00")), routine_waits: true };
        let all = [Priority::Emergency, Priority::Urgent, Priority::Routine];
        let at = |text: &str| text.parse::<Zoned>().unwrap();
        let read = |now: &Zoned| {
            let opens = pace.opens(now).map(|at| at.to_string());
            (all.map(|of| pace.holds(of, now)), all.map(|of| pace.rate_for(of, now)), opens)
        };

        let (held, rate) = ([false, false, true], [None, Some(1000), Some(1000)]);
        let noon = at("2026-11-25T12:00:00+00:00[Europe/London]");
        assert_eq!(read(&noon), (held, rate, Some("2026-11-25T19:00:00Z".into())));
        let summer = at("2026-07-25T18:59:59+01:00[Europe/London]");
        assert_eq!(read(&summer).2, Some("2026-07-25T18:00:00Z".into()));
        for night in
            ["2026-11-25T19:00:00+00:00[Europe/London]", "2026-11-26T06:59:59+00:00[Europe/London]"]
        {
            assert_eq!(read(&at(night)), ([false; 3], [None; 3], None));
        }
        let at_any_time = Pace::default();
        assert_eq!((at_any_time.holds(all[2], &noon), at_any_time.opens(&noon)), (false, None));

        // At 01:00 clocks were put forward by an hour.
        let pace = Pace { off_peak: Some(hours("01:30-05:00")), ..pace };
        let opens = pace.opens(&at("2026-03-29T00:30:00+00:00[Europe/London]")).unwrap();
        assert_eq!(opens.to_string(), "2026-03-29T01:30:00Z");
    }
}
