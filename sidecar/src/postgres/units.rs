//! PostgreSQL's units of memory and time (its guc.c): `0.25GB` and `256MB` are the same, and shown as the latter.

/// Of memory, in bytes; the larger ones first.
const MEMORY: [(&str, u64); 5] = [("TB", 1 << 40), ("GB", 1 << 30), ("MB", 1 << 20), ("kB", 1 << 10), ("B", 1)];
/// Of time, in microseconds; the larger ones first.
const TIME: [(&str, u64); 6] =
    [("d", 86_400_000_000), ("h", 3_600_000_000), ("min", 60_000_000), ("s", 1_000_000), ("ms", 1_000), ("us", 1)];

/// A value as PostgreSQL shows it, `base` being the unit of pg_settings (`8kB`, `ms`); none: it is no number with such a unit.
pub fn shown(value: &str, base: &str) -> Option<String> {
    let (base_number, base_unit) = split(base);
    let table: &[(&str, u64)] = if MEMORY.iter().any(|(name, _)| *name == base_unit) { &MEMORY } else { &TIME };
    let factor = |unit: &str| table.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
    let step = factor(base_unit)?.checked_mul(if base_number.is_empty() { 1 } else { base_number.parse().ok()? })?;
    let (number, unit) = split(value.trim());
    let number: f64 = number.trim().parse().ok()?;
    let smallest = if unit.is_empty() { step } else { factor(unit)? };
    #[allow(clippy::cast_precision_loss, reason = "within what parameters may be")]
    let steps = (number * smallest as f64 / step as f64).round();
    if steps > 9e18 {
        return None;
    }
    if steps <= 0.0 {
        return Some(format!("{steps:.0}").replace("-0", "0"));
    }
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positive, and checked by the next step"
    )]
    let all = (steps as u64).checked_mul(step)?;
    table.iter().find(|(_, factor)| all.is_multiple_of(*factor)).map(|(name, factor)| format!("{}{name}", all / factor))
}

/// Number and unit.
fn split(text: &str) -> (&str, &str) {
    let at = text.find(|c: char| c.is_ascii_alphabetic() && !matches!(c, 'e' | 'E')).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    (number, unit.trim())
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn values_are_shown_as_postgresql_shows_them() {
        for (value, base, text) in [
            ("16384", "8kB", "128MB"),
            ("0.25GB", "8kB", "256MB"),
            ("128 MB", "8kB", "128MB"),
            ("100kB", "kB", "100kB"),
            ("1024", "kB", "1MB"),
            ("90s", "s", "90s"),
            ("3600000", "ms", "1h"),
            ("5min", "s", "5min"),
            ("1d", "min", "1d"),
            ("-1", "kB", "-1"),
            ("0", "ms", "0"),
        ] {
            assert_eq!(shown(value, base).as_deref(), Some(text), "{value} in {base}");
        }
        assert_eq!(shown("many", "kB"), None);
        assert_eq!(shown("1 parsec", "ms"), None);
        assert_eq!(shown("1e300TB", "B"), None);
    }
}
