//! A private key from its file, which may be encrypted.

use std::path::Path;

use pkcs8::{EncryptedPrivateKeyInfoRef, SecretDocument};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::Error;
use crate::config::Password;

const BEGIN: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----";
const END: &str = "-----END ENCRYPTED PRIVATE KEY-----";

/// Reads it; the password is used where the key is encrypted.
pub fn read(path: &Path, password: Option<&Password>) -> Result<PrivateKeyDer<'static>, Error> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    if text.contains("Proc-Type: 4,ENCRYPTED") {
        return Err(Error::OldEncryption(path.to_owned()));
    }
    let Some(block) = encrypted(&text) else {
        return PrivateKeyDer::from_pem_file(path).map_err(|source| Error::Read {
            what: "key",
            path: path.to_owned(),
            source,
        });
    };
    let Some(password) = password else { return Err(Error::Encrypted(path.to_owned())) };
    let failed = |why: String| Error::Decrypt { path: path.to_owned(), why };
    let (_, document) = SecretDocument::from_pem(block).map_err(|error| failed(error.to_string()))?;
    let key = EncryptedPrivateKeyInfoRef::try_from(document.as_bytes()).map_err(|error| failed(error.to_string()))?;
    let plain = key.decrypt(&password.0).map_err(|error| failed(error.to_string()))?;
    Ok(PrivatePkcs8KeyDer::from(plain.as_bytes().to_vec()).into())
}

/// The encrypted key of a file that may hold certificates too.
fn encrypted(text: &str) -> Option<&str> {
    let from = text.find(BEGIN)?;
    let to = text[from..].find(END)?;
    text.get(from..from + to + END.len())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use rustls::crypto::ring::sign::any_supported_type;

    use super::*;

    fn here(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tls/testdata").join(name)
    }

    #[test]
    fn an_encrypted_key_is_read_with_its_password_only() {
        // `openssl pkcs8 -topk8 -v2 aes256 -passout pass:secret`
        let path = here("localhost-encrypted.key");
        let with = |password: Option<&str>| read(&path, password.map(|p| Password(p.to_owned())).as_ref());
        assert!(any_supported_type(&with(Some("secret")).unwrap()).is_ok());
        assert!(with(None).unwrap_err().to_string().contains("write restapi.keyfile_password"));
        assert!(matches!(with(Some("Secret")), Err(Error::Decrypt { .. })));
    }

    #[test]
    fn an_encrypted_key_in_a_file_of_several_is_found() {
        let key = std::fs::read_to_string(here("localhost-encrypted.key")).unwrap();
        let both = format!("{}{key}", std::fs::read_to_string(here("localhost.crt")).unwrap());
        assert_eq!(encrypted(&both).unwrap(), key.trim());
        assert_eq!(encrypted("-----BEGIN PRIVATE KEY-----"), None);
    }

    #[test]
    fn the_old_form_of_encryption_says_what_to_do() {
        assert!(read(&here("localhost-old.key"), None).unwrap_err().to_string().contains("openssl pkcs8 -topk8"));
    }
}
