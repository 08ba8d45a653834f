//! Section `watchdog`.

use std::path::PathBuf;

use serde_json::Value;

use super::{Error, value};

/// Whether there is to be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// None.
    Off,
    /// If it can be had.
    Automatic,
    /// Without it this member does not lead.
    Required,
}

/// The section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watchdog {
    /// `mode`
    pub mode: Mode,
    /// `device`
    pub device: PathBuf,
    /// `safety_margin`, seconds by which it resets before ttl is over; none: after half of ttl.
    pub safety_margin_s: Option<u32>,
}

impl Watchdog {
    /// Reads the section. Where there is none there is no watchdog (Patroni would look for one).
    pub fn parse(section: Option<&Value>) -> Result<Self, Error> {
        let text =
            |key: &str| section.and_then(|section| section.get(key)).and_then(value::text).filter(|t| !t.is_empty());
        let mode = match text("mode").map(|mode| mode.to_ascii_lowercase()).as_deref() {
            // YAML takes a bare `off` for a boolean.
            None | Some("off" | "false" | "no") => Mode::Off,
            Some("automatic") => Mode::Automatic,
            Some("required") => Mode::Required,
            Some(other) => {
                return Err(Error::value(
                    "watchdog.mode",
                    format!("{other:?} is none: write off, automatic or required"),
                ));
            }
        };
        let safety_margin_s = match text("safety_margin").map(|text| text.parse::<i64>()) {
            None => Some(5),
            Some(Ok(-1)) => None,
            Some(Ok(seconds)) if (0..=86_400).contains(&seconds) => u32::try_from(seconds).ok(),
            Some(_) => {
                return Err(Error::value(
                    "watchdog.safety_margin",
                    "is no number of seconds: write 5, or -1 for half of ttl",
                ));
            }
        };
        Ok(Self { mode, device: text("device").map_or_else(|| "/dev/watchdog".into(), PathBuf::from), safety_margin_s })
    }

    /// After which the device resets the machine.
    pub fn timeout_s(&self, ttl_s: u32) -> u32 {
        self.safety_margin_s.map_or(ttl_s / 2, |margin| ttl_s.saturating_sub(margin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_section_is_patronis() {
        let parse = |section: Value| Watchdog::parse(Some(&section));
        let full = parse(json!({"mode": "required", "device": "/dev/watchdog1", "safety_margin": 4})).unwrap();
        assert_eq!((full.mode, full.timeout_s(10)), (Mode::Required, 6));
        assert_eq!(parse(json!({"mode": "automatic", "safety_margin": -1})).unwrap().timeout_s(10), 5);
        assert_eq!(parse(json!({"mode": false})).unwrap().mode, Mode::Off);
        assert_eq!(Watchdog::parse(None).unwrap().mode, Mode::Off);
        assert!(parse(json!({"mode": "maybe"})).is_err() && parse(json!({"safety_margin": "x"})).is_err());
    }
}
