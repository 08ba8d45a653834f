//! Moments for people.

use jiff::Timestamp;

/// `2026-11-23 07:12:04 UTC`; what is no time is shown as it is.
pub fn shown(text: &str) -> String {
    text.parse::<Timestamp>().map_or_else(|_| text.to_owned(), |at| at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
}

/// How long ago: `12 s`, `36 min`, `5 h`, `3 d`. None for what is no time.
pub fn ago(text: &str, now: Timestamp) -> Option<String> {
    let at: Timestamp = text.parse().ok()?;
    let seconds = now.duration_since(at).as_secs().max(0);
    Some(match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    })
}

/// Bytes, in the unit that fits.
pub fn bytes(count: i64) -> String {
    const UNITS: [&str; 4] = ["B", "kB", "MB", "GB"];
    let mut unit = 0;
    let mut rest = count;
    while rest >= 10_240 && unit < UNITS.len() - 1 {
        rest /= 1024;
        unit += 1;
    }
    format!("{rest} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_and_sizes_are_short() {
        let now: Timestamp = "2026-11-23T08:00:00Z".parse().unwrap();
        assert_eq!(ago("2026-11-23T07:59:30+00:00", now).as_deref(), Some("30 s"));
        assert_eq!(ago("2026-11-23T08:00:00+01:00", now).as_deref(), Some("60 min"));
        assert_eq!(ago("2026-11-20T08:00:00Z", now).as_deref(), Some("3 d"));
        assert_eq!(ago("tomorrow", now), None);
        assert_eq!(shown("2026-11-23T08:00:00.25+01:00"), "2026-11-23 07:00:00 UTC");
        assert_eq!([bytes(0), bytes(9000), bytes(20 << 20)], ["0 B", "9000 B", "20 MB"]);
    }
}
