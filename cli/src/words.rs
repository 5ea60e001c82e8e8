//! Figures and times as people read them, and patients as far as they may be shown.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// `2027-01-09`, UTC.
pub(crate) fn day(time: Timestamp) -> String {
    time.to_zoned(TimeZone::UTC).date().to_string()
}

/// `09:31:05` here, with the date in front if that is another day than today's.
pub(crate) fn clock(time: Timestamp, now: Timestamp) -> String {
    let (time, now) = (time.to_zoned(TimeZone::system()), now.to_zoned(TimeZone::system()));
    let clock = time.strftime("%H:%M:%S").to_string();
    if time.date() == now.date() { clock } else { format!("{} {clock}", time.date()) }
}

/// `45 s`, `12 min`, `3 h`, `2 days`: how long ago, to the nearest whole unit below.
pub(crate) fn age(since: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(since).max(SignedDuration::ZERO).as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// `142 MB`, in powers of ten, as disks and networks are sold.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64;
    let mut unit = "B";
    for larger in UNITS {
        if value < 999.5 {
            break;
        }
        value /= 1000.0;
        unit = larger;
    }
    if value < 9.95 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

/// `1 image`, `2 images`.
pub(crate) fn count(count: u64, one: &str, more: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {more}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_two_or_three_figures() {
        let sizes = [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (9_949, "9.9 kB"),
            (142_000_000, "142 MB"),
            (999_600, "1.0 MB"),
            (u64::MAX, "18447 PB"),
        ];
        for (size, shown) in sizes {
            assert_eq!(bytes(size), shown);
        }
    }

    #[test]
    fn ages_have_one_unit() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        for (seconds, shown) in
            [(-5, "0 s"), (59, "59 s"), (60, "1 min"), (3_600, "1 h"), (172_800, "2 days")]
        {
            let since = now - SignedDuration::from_secs(seconds);
            assert_eq!(age(since, now), shown);
        }
    }

    #[test]
    fn one_is_not_many() {
        assert_eq!(
            (count(1, "image", "images"), count(0, "image", "images")),
            ("1 image".into(), "0 images".into())
        );
    }
}
