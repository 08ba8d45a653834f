//! Commands that say something about configurations, by Patroni's names.

pub mod generate;
pub mod validate;

/// `--generate-sample-config`.
pub const SAMPLE: &str = include_str!("../config/sample.yml");

#[cfg(test)]
mod tests {
    #[test]
    fn the_sample_is_a_good_configuration() {
        let path = std::env::temp_dir().join(format!("matriarch-sample-{}.yml", std::process::id()));
        std::fs::write(&path, super::SAMPLE).unwrap();
        let found = crate::config::validate::check(Some(&path), true);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(found, []);
    }
}
