//! Query parameters of health checks.

/// Decoded pairs in their order; of a key that comes twice the first counts.
pub type Query = Vec<(String, String)>;

/// The first value of a key.
pub fn value<'a>(query: &'a Query, key: &str) -> Option<&'a str> {
    query.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
}

/// A number of bytes with PostgreSQL's units: `10485760`, `10MB`, `1.5 GB`.
pub fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let shift = match unit.trim_start() {
        "" | "B" => 0,
        "kB" => 10,
        "MB" => 20,
        "GB" => 30,
        "TB" => 40,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole: u64 = whole.parse().ok()?;
    // Thousandths are exact enough for a limit, and need no floating point.
    let thousandths: u64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    let unit = 1_u64 << shift;
    whole.checked_mul(unit)?.checked_add(thousandths.checked_mul(unit)? / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_postgresql_does() {
        for (text, bytes_) in [
            ("10485760", Some(10_485_760)),
            ("10MB", Some(10 << 20)),
            ("16 kB", Some(16 << 10)),
            ("1.5GB", Some(3 << 29)),
            ("1TB", Some(1 << 40)),
            ("0", Some(0)),
            ("10mb", None),
            ("", None),
            ("much", None),
            ("-1", None),
            ("99999999TB", None),
            ("1.é", None),
        ] {
            assert_eq!(bytes(text), bytes_, "{text}");
        }
    }
}
