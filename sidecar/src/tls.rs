//! TLS of the REST API, both sides: certificate, key and CA read from files, and read again when they change.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::config::VerifyClient;

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
    /// rustls does not like what it was given, e.g. a key that does not belong to the certificate.
    #[error("certificate, key and CA cannot be used: {0}")]
    Config(#[from] rustls::Error),
    /// The CA cannot be used to verify clients.
    #[error("the CA cannot be used to verify clients: {0}")]
    Verifier(#[from] VerifierBuilderError),
}

/// The three files of a mounted Secret, and what they are for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// Our certificate and its chain.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The CA that signs servers and clients.
    pub ca: PathBuf,
    /// Whether clients are asked for a certificate.
    pub clients: VerifyClient,
}

impl Files {
    /// `tls.crt`, `tls.key` and `ca.crt` of a folder.
    #[must_use]
    pub fn in_folder(folder: &Path) -> Self {
        let clients = VerifyClient::Optional;
        Self { cert: folder.join("tls.crt"), key: folder.join("tls.key"), ca: folder.join("ca.crt"), clients }
    }

    /// Changes when one of the files does.
    fn stamp(&self) -> Stamp {
        [&self.cert, &self.key, &self.ca].map(|path| {
            let meta = std::fs::metadata(path).ok()?;
            Some((meta.modified().ok()?, meta.len()))
        })
    }
}

/// Modification time and length of each file, none: it cannot be looked at.
type Stamp = [Option<(SystemTime, u64)>; 3];

/// Both configurations, made from one reading of the files.
#[derive(Clone)]
struct Pair {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

struct State {
    pair: Pair,
    stamp: Stamp,
    looked: Option<Instant>,
}

/// Certificates in use.
pub struct Tls {
    files: Files,
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
        let state = Mutex::new(State { pair, stamp, looked: Some(Instant::now()) });
        Ok(Self { files, look_every, provider, state })
    }

    /// For the next connection that somebody opens. A client's certificate must be good if there is one.
    pub fn server(&self) -> Arc<ServerConfig> {
        self.current().server
    }

    /// For the next connection that we open.
    pub fn client(&self) -> Arc<ClientConfig> {
        self.current().client
    }

    /// The next connection looks at the files, however short ago that was done.
    pub fn look_again(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).looked = None;
    }

    fn current(&self) -> Pair {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked.is_none_or(|looked| looked.elapsed() >= self.look_every) {
            state.looked = Some(Instant::now());
            let stamp = self.files.stamp();
            if stamp != state.stamp {
                // The stamp was taken before the reading: a file that changes meanwhile is read again next time.
                match read(&self.files, &self.provider) {
                    Ok(pair) => {
                        tracing::info!(tls.cert = %self.files.cert.display(), "certificates read again");
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
    let chain = certificates("certificate", &files.cert)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|source| Error::Read {
        what: "key",
        path: files.key.clone(),
        source,
    })?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates("CA", &files.ca)? {
        roots.add(certificate)?;
    }
    let roots = Arc::new(roots);

    let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone());
    let verifier = match files.clients {
        VerifyClient::None => WebPkiClientVerifier::no_client_auth(),
        VerifyClient::Optional => verifier.allow_unauthenticated().build()?,
        VerifyClient::Required => verifier.build()?,
    };
    let mut server = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain.clone(), key.clone_key())?;
    // A handshake costs less than a millisecond here; a cache of sessions would cost memory all the time.
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;

    let mut client = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    client.resumption = Resumption::disabled();
    Ok(Pair { server: Arc::new(server), client: Arc::new(client) })
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let failed = |source| Error::Read { what, path: path.to_owned(), source };
    let found = CertificateDer::pem_file_iter(path).map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    if found.is_empty() { Err(Error::NoCertificate(path.to_owned())) } else { Ok(found) }
}
