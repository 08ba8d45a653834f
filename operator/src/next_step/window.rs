//! Maintenance windows: when the operator may restart or replace members by itself. Times are UTC.

use jiff::civil::Weekday;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use matriarch_crds::cluster::{Day, MaintenanceWindow};

/// Whether work may be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// It may, until then if there is an end.
    Open,
    /// Not before then; None: a window is written that never opens.
    Closed(Option<Timestamp>),
}

/// Looks at all windows; none at all are always open.
pub fn window(windows: &[MaintenanceWindow], now: Timestamp) -> Window {
    if windows.is_empty() {
        return Window::Open;
    }
    let starts: Vec<(Timestamp, i64)> = windows.iter().flat_map(|w| openings(w, now)).collect();
    if starts.iter().any(|(start, seconds)| *start <= now && now.as_second() - start.as_second() < *seconds) {
        return Window::Open;
    }
    Window::Closed(starts.into_iter().map(|(start, _)| start).filter(|start| *start > now).min())
}

/// Begin and length in seconds of each opening from yesterday until a week from now.
fn openings(w: &MaintenanceWindow, now: Timestamp) -> Vec<(Timestamp, i64)> {
    let (Some((hour, minute)), Some(seconds)) = (time_of_day(&w.start), seconds(&w.duration)) else {
        return Vec::new();
    };
    let today = now.to_zoned(TimeZone::UTC).date();
    (-1..=7)
        .filter_map(|offset: i32| today.checked_add(offset.days()).ok())
        .filter(|date| w.days.is_empty() || w.days.iter().any(|day| weekday(*day) == date.weekday()))
        .filter_map(|date| date.at(hour, minute, 0, 0).to_zoned(TimeZone::UTC).ok())
        .map(|start| (start.timestamp(), seconds))
        .collect()
}

fn time_of_day(text: &str) -> Option<(i8, i8)> {
    let (hour, minute) = text.split_once(':')?;
    Some((hour.parse().ok().filter(|h| (0..24).contains(h))?, minute.parse().ok().filter(|m| (0..60).contains(m))?))
}

/// `2h`, `90m`, `1h30m`.
fn seconds(text: &str) -> Option<i64> {
    let (hours, rest) = text.split_once('h').map_or(("0", text), |(h, rest)| (h, rest));
    let minutes = rest.strip_suffix('m').or(rest.is_empty().then_some("0"))?;
    let total = hours.parse::<i64>().ok()? * 3600 + minutes.parse::<i64>().ok()? * 60;
    (total > 0).then_some(total)
}

fn weekday(day: Day) -> Weekday {
    match day {
        Day::Mon => Weekday::Monday,
        Day::Tue => Weekday::Tuesday,
        Day::Wed => Weekday::Wednesday,
        Day::Thu => Weekday::Thursday,
        Day::Fri => Weekday::Friday,
        Day::Sat => Weekday::Saturday,
        Day::Sun => Weekday::Sunday,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_window_opens_on_its_days_and_may_cross_midnight() {
        // 2026-11-23 is a Monday.
        let sunday = MaintenanceWindow { days: vec![Day::Sun], start: "23:30".into(), duration: "1h30m".into() };
        let windows = [sunday];
        assert_eq!(window(&windows, at("2026-11-22T23:29:59Z")), Window::Closed(Some(at("2026-11-22T23:30:00Z"))));
        assert_eq!(window(&windows, at("2026-11-22T23:30:00Z")), Window::Open);
        assert_eq!(window(&windows, at("2026-11-23T00:59:59Z")), Window::Open);
        assert_eq!(window(&windows, at("2026-11-23T01:00:00Z")), Window::Closed(Some(at("2026-11-29T23:30:00Z"))));
        assert_eq!(window(&[], at("2026-11-23T01:00:00Z")), Window::Open);
    }

    #[test]
    fn durations_are_hours_and_minutes() {
        assert_eq!([seconds("2h"), seconds("90m"), seconds("1h30m")], [Some(7200), Some(5400), Some(5400)]);
        assert_eq!([seconds(""), seconds("h"), seconds("2")], [None, None, None]);
    }
}
