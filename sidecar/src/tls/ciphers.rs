//! `restapi.ciphers`: OpenSSL's names of the cipher suites of TLS 1.2 that the server offers. Those of TLS 1.3 stay, as with OpenSSL.

use rustls::crypto::CryptoProvider;
use rustls::{CipherSuite, SupportedCipherSuite};

/// Every suite of TLS 1.2 that there is here. OpenSSL counts all of them as `HIGH`.
const SUITES: [(&str, CipherSuite); 6] = [
    ("ECDHE-ECDSA-AES128-GCM-SHA256", CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    ("ECDHE-ECDSA-AES256-GCM-SHA384", CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
    ("ECDHE-ECDSA-CHACHA20-POLY1305", CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ("ECDHE-RSA-AES128-GCM-SHA256", CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
    ("ECDHE-RSA-AES256-GCM-SHA384", CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    ("ECDHE-RSA-CHACHA20-POLY1305", CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
];

/// Leaves only what the list names. Groups (`HIGH`, `ECDHE+AESGCM`) and exclusions (`!aNULL`) name nothing: what they are about is all
/// of what is here, or none of it.
pub fn restrict(provider: &mut CryptoProvider, list: &str) -> Result<(), String> {
    let words = list.split([':', ',', ' ']).filter(|word| !word.is_empty());
    // Names of suites have hyphens, names of groups none.
    let names: Vec<&str> = words.filter(|word| word.contains('-') && !word.starts_with(['!', '-', '+', '@'])).collect();
    if names.is_empty() {
        return Ok(());
    }
    let wanted = |suite: CipherSuite| SUITES.iter().any(|(name, one)| *one == suite && names.contains(name));
    let old = |suite: &SupportedCipherSuite| suite.tls13().is_none();
    if !provider.cipher_suites.iter().any(|suite| old(suite) && wanted(suite.suite())) {
        let all: Vec<&str> = SUITES.iter().map(|(name, _)| *name).collect();
        return Err(format!("restapi.ciphers names no suite that there is here: write some of {}", all.join(":")));
    }
    provider.cipher_suites.retain(|suite| !old(suite) || wanted(suite.suite()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use rustls::crypto::ring;

    use super::*;

    #[test]
    fn names_choose_and_groups_do_not() {
        let of = |list: &str| {
            let mut provider = ring::default_provider();
            restrict(&mut provider, list).map(|()| provider.cipher_suites.len())
        };
        let all = ring::default_provider().cipher_suites.len();
        assert_eq!(of("HIGH:!aNULL:@STRENGTH"), Ok(all));
        // Three of TLS 1.3, and one.
        assert_eq!(of("ECDHE-RSA-AES256-GCM-SHA384:DHE-RSA-AES256-SHA"), Ok(4));
        assert!(of("DHE-RSA-AES256-SHA").unwrap_err().contains("ECDHE-RSA-AES256-GCM-SHA384"));
    }

    #[test]
    fn every_suite_has_a_name() {
        let old = ring::default_provider().cipher_suites.into_iter().filter(|suite| suite.tls13().is_none());
        assert!(old.map(|suite| suite.suite()).all(|suite| SUITES.iter().any(|(_, one)| *one == suite)));
    }
}
