//! Certificates for tests, and a client that has none.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::tls::{Files, Tls};

pub const HOST: &str = "orders-0.orders-pods.x.svc";
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Signs certificates.
pub struct Ca {
    params: CertificateParams,
    key: KeyPair,
}

impl Ca {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "orders-ca");
        Self { params, key: KeyPair::generate().unwrap() }
    }

    /// Writes a folder as the mounted Secret is.
    pub fn issue(&self, folder: &Path, host: &str) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        let issuer = Issuer::from_params(&self.params, &self.key);
        std::fs::write(folder.join("tls.crt"), params.signed_by(&key, &issuer).unwrap().pem()).unwrap();
        std::fs::write(folder.join("tls.key"), key.serialize_pem()).unwrap();
        std::fs::write(folder.join("ca.crt"), self.params.self_signed(&self.key).unwrap().pem()).unwrap();
    }
}

/// Removed when dropped.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("matriarch-api-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn tls(&self) -> Arc<Tls> {
        Arc::new(Tls::load_looking_every(Files::in_folder(&self.0), Duration::ZERO).unwrap())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// One request as text, on a connection without a client certificate.
pub async fn anonymous(port: u16, folder: &Folder, request: &str) -> std::io::Result<String> {
    let certificates = rustls::pki_types::pem::PemObject::pem_file_iter(folder.0.join("ca.crt")).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let name = ServerName::try_from(HOST).unwrap();
    let mut stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await??;
    Ok(String::from_utf8(answer).unwrap())
}
