//! Whether a password is the one whose verifier PostgreSQL has stored (`pg_authid.rolpassword`).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use sha2::Sha256;

/// True when a login with this password succeeds against `stored`, as PostgreSQL itself would see it.
pub fn matches(stored: Option<&str>, username: &str, password: &str) -> bool {
    match stored {
        Some(md5) if md5.starts_with("md5") => postgres_protocol::password::md5(password.as_bytes(), username) == md5,
        Some(scram) => scram_matches(scram, password).unwrap_or(false),
        None => false,
    }
}

/// Plays both sides of the login: the library is the client, what is stored is the server. So the salt, the number of iterations and
/// the normalisation of the password are exactly those of a login. (RFC 5802, section 3.)
fn scram_matches(stored: &str, password: &str) -> Option<bool> {
    let mut parts = stored.strip_prefix("SCRAM-SHA-256$")?.split(['$', ':']);
    let (iterations, salt, _stored_key, server_key) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let mut client = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
    let first = std::str::from_utf8(client.message()).ok()?.strip_prefix("n,,")?.to_owned();
    let nonce = first.split_once("r=")?.1;
    let challenge = format!("r={nonce}server,s={salt},i={iterations}");
    client.update(challenge.as_bytes()).ok()?;
    let answer = std::str::from_utf8(client.message()).ok()?;
    let without_proof = answer.split_once(",p=")?.0;
    let mut signature = Hmac::<Sha256>::new_from_slice(&STANDARD.decode(server_key).ok()?).ok()?;
    signature.update(format!("{first},{challenge},{without_proof}").as_bytes());
    let last = format!("v={}", STANDARD.encode(signature.finalize().into_bytes()));
    Some(client.finish(last.as_bytes()).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use postgres_protocol::password::{md5, scram_sha_256};

    #[test]
    fn the_password_of_a_verifier_is_recognized() {
        for password in ["secret", "with 'quotes' and \\", "pässwörd Ⅸ", " "] {
            let scram = scram_sha_256(password.as_bytes());
            assert!(matches(Some(&scram), "u", password), "{password}");
            assert!(!matches(Some(&scram), "u", "another"), "{password}");
            let md5 = md5(password.as_bytes(), "u");
            assert!(matches(Some(&md5), "u", password) && !matches(Some(&md5), "other", password));
        }
        for broken in [None, Some(""), Some("SCRAM-SHA-256$x"), Some("SCRAM-SHA-256$4096:$$"), Some("plain")] {
            assert!(!matches(broken, "u", "secret"), "{broken:?}");
        }
    }
}
