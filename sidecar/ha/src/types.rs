//! The values that everything is made of, parsed once at the edge: times, LSNs, timelines.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A moment on CLOCK_BOOTTIME, in microseconds: it goes on while the machine sleeps and never jumps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Boot(pub u64);

impl Boot {
    /// So many milliseconds later.
    #[must_use]
    pub fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms.saturating_mul(1000)))
    }
    /// Milliseconds since `earlier`, zero if that lies ahead.
    pub fn ms_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0) / 1000
    }
}

/// A moment of the wall clock in microseconds since 1970, UTC: written, shown, and compared only with a schedule that a person wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Wall(pub i64);

/// A text that is no moment.
#[derive(Debug, Clone, Copy, thiserror::Error, PartialEq, Eq)]
pub enum BadWall {
    /// Date and time, but not where on earth.
    #[error("Timezone information is mandatory")]
    NoZone,
    /// Something else.
    #[error("It should be in an unambiguous format, e.g. ISO 8601")]
    Unreadable,
}

impl FromStr for Wall {
    type Err = BadWall;
    /// ISO 8601 with an offset from UTC.
    fn from_str(text: &str) -> Result<Self, BadWall> {
        let text = text.trim();
        match text.parse::<jiff::Timestamp>() {
            Ok(at) => Ok(Self(at.as_microsecond())),
            Err(_) if text.parse::<jiff::civil::DateTime>().is_ok() => Err(BadWall::NoZone),
            Err(_) => Err(BadWall::Unreadable),
        }
    }
}

impl Wall {
    /// Milliseconds from `earlier` to here, negative if it lies ahead.
    pub fn ms_since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0) / 1000
    }
}

impl fmt::Display for Wall {
    /// As Python's `datetime.isoformat()` in UTC, which is what Patroni writes: `2024-07-02T11:06:42.123456+00:00`,
    /// without the fraction when it is zero.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (secs, micros) = (self.0.div_euclid(1_000_000), self.0.rem_euclid(1_000_000));
        let (days, rest) = (secs.div_euclid(86_400), secs.rem_euclid(86_400));
        let (year, month, day) = civil_from_days(days);
        write!(f, "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60)?;
        if micros != 0 {
            write!(f, ".{micros:06}")?;
        }
        f.write_str("+00:00")
    }
}

/// The Gregorian date of a day number counted from 1970-01-01 (Euclidean affine functions, as every calendar library has them).
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day_of_year - (153 * shifted_month + 2) / 5 + 1)
}

/// A position in the write-ahead log, in bytes. Serialized as the number; shown as PostgreSQL's `X/X`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

/// A text that is no LSN.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not an LSN: write it as two hexadecimal numbers with a slash, such as 0/3000060")]
pub struct BadLsn(String);

impl FromStr for Lsn {
    type Err = BadLsn;
    fn from_str(text: &str) -> Result<Self, BadLsn> {
        let parse = || {
            let (high, low) = text.split_once('/')?;
            let high = u32::from_str_radix(high, 16).ok()?;
            let low = u32::from_str_radix(low, 16).ok()?;
            Some(Self(u64::from(high) << 32 | u64::from(low)))
        };
        parse().ok_or_else(|| BadLsn(text.to_owned()))
    }
}

/// A timeline of the write-ahead log; 0 is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timeline(pub u32);

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_time_is_written_as_python_does() {
        assert_eq!(Wall(1_719_918_402_123_456).to_string(), "2024-07-02T11:06:42.123456+00:00");
        assert_eq!(Wall(951_782_400_000_000).to_string(), "2000-02-29T00:00:00+00:00");
        assert_eq!(Wall(0).to_string(), "1970-01-01T00:00:00+00:00");
    }

    #[test]
    fn a_schedule_is_read_with_its_zone_or_not_at_all() {
        let at = Wall(1_719_918_402_123_456);
        assert_eq!(at.to_string().parse(), Ok(at));
        assert_eq!("2024-07-02 13:06:42.123456+02:00".parse(), Ok(at));
        assert_eq!("2024-07-02T11:06".parse::<Wall>(), Err(BadWall::NoZone));
        assert_eq!("tomorrow".parse::<Wall>(), Err(BadWall::Unreadable));
        assert_eq!(Wall(2_000_000).ms_since(Wall(5_000_000)), -3000);
    }

    #[test]
    fn an_lsn_is_read_and_shown_as_postgresql_does() {
        assert_eq!("16/B374D848".parse(), Ok(Lsn(0x16_B374_D848)));
        assert_eq!(Lsn(0x16_B374_D848).to_string(), "16/B374D848");
        assert!("16B374D848".parse::<Lsn>().is_err());
    }
}
