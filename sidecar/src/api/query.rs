//! Query parameters of health checks, and quantities with units.

/// Decoded pairs in their order; of a key that comes twice the first counts.
pub type Query = Vec<(String, String)>;

/// From the text after `?`. As Patroni, what has no value is not there, and what cannot be decoded is replaced.
pub fn parse(text: &str) -> Query {
    let pairs = form_urlencoded::parse(text.as_bytes()).filter(|(_, value)| !value.is_empty());
    pairs.map(|(key, value)| (key.into_owned(), value.into_owned())).collect()
}

/// The first value of a key.
pub fn value<'a>(query: &'a Query, key: &str) -> Option<&'a str> {
    query.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
}

/// A number of bytes with PostgreSQL's units: `10485760`, `10MB`, `1.5 GB`. Less than none is none.
pub fn bytes(text: &str) -> Option<u64> {
    quantity(text, |unit| {
        Some(match unit {
            "" | "B" => 1,
            "kB" => 1 << 10,
            "MB" => 1 << 20,
            "GB" => 1 << 30,
            "TB" => 1 << 40,
            _ => return None,
        })
    })
}

/// A time in milliseconds, without a unit in seconds: `30`, `30s`, `1.5min`, `500ms`.
pub fn milliseconds(text: &str) -> Option<u64> {
    quantity(text, |unit| {
        Some(match unit {
            "ms" => 1,
            "" | "s" => 1_000,
            "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        })
    })
}

/// A number times its unit. Thousandths are exact enough, and need no floating point.
fn quantity(text: &str, unit: impl Fn(&str) -> Option<u64>) -> Option<u64> {
    let text = text.trim();
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |text| (true, text));
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, name) = text.split_at(split);
    let unit = unit(name.trim_start())?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole: u64 = whole.parse().ok()?;
    let thousandths: u64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    let found = whole.checked_mul(unit)?.checked_add(thousandths.checked_mul(unit)? / 1000)?;
    Some(if negative { 0 } else { found })
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
            ("-1", Some(0)),
            ("-", None),
            ("99999999TB", None),
            ("1.é", None),
        ] {
            assert_eq!(bytes(text), bytes_, "{text}");
        }
    }

    #[test]
    fn times_are_read_as_postgresql_does() {
        for (text, ms) in [
            ("30", Some(30_000)),
            ("1.5min", Some(90_000)),
            ("500ms", Some(500)),
            ("1 d", Some(86_400_000)),
            ("-5", Some(0)),
            ("true", None),
            ("1e3", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(milliseconds(text), ms, "{text}");
        }
    }

    #[test]
    fn what_has_no_value_is_not_there_and_nothing_cannot_be_read() {
        let of = |text: &str| parse(text);
        assert_eq!(of("lag=10MB&tag_a=&b"), [("lag".to_owned(), "10MB".to_owned())]);
        assert_eq!(of("a=%zz&b=%ff&c=x+y%20z")[0].1, "%zz");
        assert_eq!(of("a=%zz&b=%ff&c=x+y%20z")[2].1, "x y z");
        assert_eq!(value(&of("lag=1&lag=2"), "lag"), Some("1"));
    }
}
