//! TLS of the REST API, both sides: certificate, key and CA read from files, and read again when they change.

mod ciphers;
mod key;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};

use crate::config::ctl::Ctl;
use crate::config::{Password, RestApi, VerifyClient};

/// How often the files are looked at: renewed certificates are valid for long before the old ones end, so this only has to be
/// short for people who watch.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Why the files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Missing, unreadable, or no PEM of the wanted kind.
    #[error("cannot read {what} from {}: {source}", path.display())]
    Read {
        /// certificate, key or CA.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        source: rustls::pki_types::pem::Error,
    },
    /// The file has no certificate in it.
    #[error("{} holds no certificate", .0.display())]
    NoCertificate(PathBuf),
    /// The key needs a password.
    #[error("the key in {} is encrypted: write restapi.keyfile_password (ctl.keyfile_password for a key of section ctl)", .0.display())]
    Encrypted(PathBuf),
    /// The key is encrypted as OpenSSL did it before PKCS#8.
    #[error(
        "the key in {} is encrypted in a form that is not safe any more: write it anew with `openssl pkcs8 -topk8 -v2 aes256`",
        .0.display()
    )]
    OldEncryption(PathBuf),
    /// Another password, or a form of encryption that is not known.
    #[error("the key in {} cannot be decrypted with keyfile_password: {why}", path.display())]
    Decrypt {
        /// Which file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// `ciphers` leaves nothing.
    #[error("{0}")]
    Ciphers(String),
    /// rustls does not like what it was given, e.g. a key that does not belong to the certificate.
    #[error("certificate, key and CA cannot be used: {0}")]
    Config(#[from] rustls::Error),
    /// The CA cannot be used to verify clients.
    #[error("the CA cannot be used to verify clients: {0}")]
    Verifier(#[from] VerifierBuilderError),
}

/// Which files are used, and for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// Our certificate and its chain.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The password of the key.
    pub key_password: Option<Password>,
    /// OpenSSL's names of the cipher suites of TLS 1.2 that are offered; none: all.
    pub ciphers: Option<String>,
    /// The CA that signs clients; none: nobody is asked for a certificate.
    pub ca: Option<PathBuf>,
    /// Whether clients are asked for a certificate.
    pub clients: VerifyClient,
    /// The CA that signs the servers that we call; none: they are not verified.
    pub servers: Option<PathBuf>,
    /// Certificate and key that we show to them.
    pub client: (PathBuf, PathBuf),
    /// The password of that key.
    pub client_password: Option<Password>,
}

impl Files {
    /// `tls.crt`, `tls.key` and `ca.crt` of a folder.
    #[must_use]
    pub fn in_folder(folder: &Path) -> Self {
        let (cert, key, ca) = (folder.join("tls.crt"), folder.join("tls.key"), folder.join("ca.crt"));
        let client = (cert.clone(), key.clone());
        Self {
            cert,
            key,
            key_password: None,
            ciphers: None,
            ca: Some(ca.clone()),
            clients: VerifyClient::Optional,
            servers: Some(ca),
            client,
            client_password: None,
        }
    }

    /// Of sections `restapi` and `ctl`; none: no certificate is configured, and the API is plain HTTP.
    #[must_use]
    pub fn configured(restapi: &RestApi, ctl: &Ctl) -> Option<Self> {
        let cert = restapi.certfile.clone()?;
        let key = restapi.keyfile.clone().unwrap_or_else(|| cert.clone());
        let ca = restapi.cafile.clone();
        let servers = if ctl.insecure { None } else { ctl.cacert.clone().or_else(|| ca.clone()) };
        let key_password = restapi.keyfile_password.clone();
        let (client, client_password) = match &ctl.certfile {
            Some(cert) => {
                let key = ctl.keyfile.clone().unwrap_or_else(|| cert.clone());
                ((cert.clone(), key), ctl.keyfile_password.clone())
            }
            None => ((cert.clone(), key.clone()), key_password.clone()),
        };
        Some(Self {
            cert,
            key,
            key_password,
            ciphers: restapi.ciphers.clone(),
            ca,
            clients: restapi.verify_client,
            servers,
            client,
            client_password,
        })
    }

    /// Changes when one of the files does.
    fn stamp(&self) -> Stamp {
        let all = [Some(&self.cert), Some(&self.key), self.ca.as_ref(), self.servers.as_ref(), Some(&self.client.0)];
        all.map(|path| {
            let meta = std::fs::metadata(path?).ok()?;
            Some((meta.modified().ok()?, meta.len()))
        })
    }
}

/// Modification time and length of each file, none: it cannot be looked at.
type Stamp = [Option<(SystemTime, u64)>; 5];

/// Both configurations, made from one reading of the files.
#[derive(Clone)]
struct Pair {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

struct State {
    files: Files,
    pair: Pair,
    stamp: Stamp,
    looked: Option<Instant>,
}

/// Certificates in use.
pub struct Tls {
    look_every: Duration,
    provider: Arc<CryptoProvider>,
    state: Mutex<State>,
}

impl Tls {
    /// Reads the files; they must be usable now, later they may be broken for a while.
    pub fn load(files: Files) -> Result<Self, Error> {
        Self::load_looking_every(files, LOOK_EVERY)
    }

    /// The same, with another interval between two looks at the files.
    pub fn load_looking_every(files: Files, look_every: Duration) -> Result<Self, Error> {
        let provider = Arc::new(ring::default_provider());
        let stamp = files.stamp();
        let pair = read(&files, &provider)?;
        let state = Mutex::new(State { files, pair, stamp, looked: Some(Instant::now()) });
        Ok(Self { look_every, provider, state })
    }

    /// For the next connection that somebody opens. A client's certificate must be good if there is one.
    pub fn server(&self) -> Arc<ServerConfig> {
        self.current().server
    }

    /// For the next connection that we open.
    pub fn client(&self) -> Arc<ClientConfig> {
        self.current().client
    }

    /// From the next connection on these files are used; if they cannot be, it stays as it was.
    pub fn reload(&self, files: Files) -> Result<(), Error> {
        // The stamp first: a file that changes meanwhile is read again next time.
        let stamp = files.stamp();
        let pair = read(&files, &self.provider)?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = State { files, pair, stamp, looked: Some(Instant::now()) };
        Ok(())
    }

    fn current(&self) -> Pair {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked.is_none_or(|looked| looked.elapsed() >= self.look_every) {
            state.looked = Some(Instant::now());
            let stamp = state.files.stamp();
            if stamp != state.stamp {
                // The stamp was taken before the reading: a file that changes meanwhile is read again next time.
                match read(&state.files, &self.provider) {
                    Ok(pair) => {
                        tracing::info!(tls.cert = %state.files.cert.display(), "certificates read again");
                        state.pair = pair;
                        state.stamp = stamp;
                    }
                    Err(error) => tracing::warn!(%error, "the changed certificates cannot be used; the old ones stay"),
                }
            }
        }
        state.pair.clone()
    }
}

fn read(files: &Files, provider: &Arc<CryptoProvider>) -> Result<Pair, Error> {
    let verifier = match (&files.ca, files.clients) {
        (None, _) | (_, VerifyClient::None) => WebPkiClientVerifier::no_client_auth(),
        (Some(ca), clients) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(roots(ca)?, provider.clone());
            match clients {
                VerifyClient::Required => verifier.build()?,
                _ => verifier.allow_unauthenticated().build()?,
            }
        }
    };
    let mut offered = CryptoProvider::clone(provider);
    if let Some(ciphers) = &files.ciphers {
        ciphers::restrict(&mut offered, ciphers).map_err(Error::Ciphers)?;
    }
    let server_key = key::read(&files.key, files.key_password.as_ref())?;
    let mut server = ServerConfig::builder_with_provider(Arc::new(offered))
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates("certificate", &files.cert)?, server_key)?;
    // A handshake costs less than a millisecond here; a cache of sessions would cost memory all the time.
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;

    let client = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let client = match &files.servers {
        Some(ca) => client.with_root_certificates(roots(ca)?),
        None => client.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider.clone()))),
    };
    let (cert, client_key) = &files.client;
    let client_key = key::read(client_key, files.client_password.as_ref())?;
    let mut client = client.with_client_auth_cert(certificates("certificate", cert)?, client_key)?;
    client.resumption = Resumption::disabled();
    Ok(Pair { server: Arc::new(server), client: Arc::new(client) })
}

/// Whether certificate, key and authority, as text, can be used together: PostgreSQL does not start with others.
pub fn usable(cert: &str, key: &str, ca: &str) -> Result<(), Error> {
    let failed = |what| move |source| Error::Read { what, path: PathBuf::new(), source };
    let chain = |what, text: &str| -> Result<Vec<CertificateDer<'static>>, Error> {
        let found =
            CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<Vec<_>, _>>().map_err(failed(what))?;
        if found.is_empty() { Err(Error::NoCertificate(what.into())) } else { Ok(found) }
    };
    chain("CA", ca)?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(failed("key"))?;
    ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain("certificate", cert)?, key)?;
    Ok(())
}

fn roots(ca: &Path) -> Result<Arc<RootCertStore>, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("CA", ca)? {
        roots.add(certificate)?;
    }
    Ok(Arc::new(roots))
}

/// Believes every server, as Patroni's agents do. Who can put himself between members can forge votes and consent to failsafe
/// then, which is why the agent warns of it.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let failed = |source| Error::Read { what, path: path.to_owned(), source };
    let found = CertificateDer::pem_file_iter(path).map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    if found.is_empty() { Err(Error::NoCertificate(path.to_owned())) } else { Ok(found) }
}
