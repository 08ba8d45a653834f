//! Section `matriarch`: what Patroni's sections have no place for, and where things are in a pod and outside of one.

use std::path::{Path, PathBuf};

use matriarch_crds::names;
use serde::Deserialize;

use super::Error;

/// Longest path of a unix socket (Linux: `sun_path`).
const LONGEST_SOCKET: usize = 107;
/// The lock beside the supervisor's socket must fit as well.
const SOCKET_NAME: &str = "supervisor.sock";

/// Section `matriarch`.
#[derive(Debug, Clone)]
pub struct Matriarch {
    /// Service of the primary; the scope if empty.
    pub service: String,
    /// The `EndpointSlice` that the leader writes; none: it writes none.
    pub slice: Option<String>,
    /// Headless Service of the pods; `<scope>-pods` if empty.
    pub pods_service: String,
    /// One folder a user: `superuser`, `replication`, `rewind`, `app`.
    pub secrets_dir: PathBuf,
    /// Where PostgreSQL's own `tls.crt` and `tls.key` are, and `ca.crt` if clients' certificates have another authority; none: those of the
    /// REST API, in the operator's pods.
    pub server_tls: Option<PathBuf>,
    /// Roles and databases as they shall be (JSON); none: nothing is declared.
    pub declared: Option<PathBuf>,
    /// Where the WAL of a new data directory is; none: in it. On the volume, or on the one beside it whose name ends in `-wal`.
    pub wal_dir: Option<PathBuf>,
    /// SQL that runs once, as the superuser in the application's database, while a cluster is made.
    pub post_init_sql: Vec<String>,
    /// The supervisor's socket.
    pub supervisor_socket: PathBuf,
    /// Where PostgreSQL's socket is, for us.
    pub postgres_socket_dir: PathBuf,
    /// The supervisor's data volume: the only place where it works on files.
    pub volume: PathBuf,
    /// Below it: where files that belong to this member, but not into PGDATA, are.
    pub state_dir: PathBuf,
}

/// The section as it is written.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct File {
    service: Option<String>,
    slice: Option<String>,
    pods_service: Option<String>,
    pub(super) secrets_dir: Option<PathBuf>,
    server_tls: Option<PathBuf>,
    declared: Option<PathBuf>,
    pub(super) wal_dir: Option<PathBuf>,
    pub(super) post_init_sql: Vec<String>,
    pub(super) clone: Option<super::clone::CloneFrom>,
    supervisor_socket: Option<PathBuf>,
    postgres_socket_dir: Option<PathBuf>,
    pub(super) volume: Option<PathBuf>,
}

impl File {
    /// In a pod that the operator made: the folders are the pod's volumes.
    pub fn in_pod(self, cluster: &names::ClusterNames) -> Matriarch {
        let volume = self.volume.unwrap_or_else(|| names::DATA_VOLUME.into());
        Matriarch {
            service: filled(self.service).unwrap_or_else(|| cluster.service()),
            slice: Some(filled(self.slice).unwrap_or_else(|| cluster.slice())),
            pods_service: filled(self.pods_service).unwrap_or_else(|| cluster.pods_service()),
            secrets_dir: self.secrets_dir.unwrap_or_else(|| names::SECRETS_DIR.into()),
            server_tls: self.server_tls,
            wal_dir: self.wal_dir,
            post_init_sql: self.post_init_sql,
            declared: Some(self.declared.unwrap_or_else(crate::declared::default_path)),
            supervisor_socket: self.supervisor_socket.unwrap_or_else(|| names::SUPERVISOR_SOCKET.into()),
            postgres_socket_dir: self.postgres_socket_dir.unwrap_or_else(|| names::POSTGRES_SOCKET_DIR.into()),
            state_dir: volume.clone(),
            volume,
        }
    }

    /// Elsewhere everything is beside the data directory. `sockets` is the first of `unix_socket_directories`.
    pub fn beside(
        self,
        cluster: &names::ClusterNames,
        data_dir: &Path,
        sockets: Option<PathBuf>,
    ) -> Result<Matriarch, Error> {
        let mut state_dir = data_dir.as_os_str().to_owned();
        state_dir.push(".matriarch");
        let state_dir = PathBuf::from(state_dir);
        let supervisor_socket = self.supervisor_socket.unwrap_or_else(|| state_dir.join(SOCKET_NAME));
        if supervisor_socket.as_os_str().len() > LONGEST_SOCKET {
            return Err(Error::value(
                "matriarch.supervisor_socket",
                format!(
                    "{} is longer than the {LONGEST_SOCKET} bytes that a unix socket may have: write a shorter path that stays the same \
                     from one start to the next",
                    supervisor_socket.display()
                ),
            ));
        }
        Ok(Matriarch {
            service: filled(self.service).unwrap_or_else(|| cluster.service()),
            slice: filled(self.slice),
            pods_service: filled(self.pods_service).unwrap_or_else(|| cluster.pods_service()),
            secrets_dir: self.secrets_dir.unwrap_or_else(|| names::SECRETS_DIR.into()),
            server_tls: self.server_tls,
            wal_dir: self.wal_dir,
            post_init_sql: self.post_init_sql,
            declared: self.declared,
            supervisor_socket,
            postgres_socket_dir: self.postgres_socket_dir.or(sockets).unwrap_or_else(default_sockets),
            volume: self.volume.or_else(|| data_dir.parent().map(Path::to_owned)).unwrap_or_default(),
            state_dir,
        })
    }
}

fn filled(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

/// Where clients look first: Debian's folder if it is ours to use, else PostgreSQL's own default.
fn default_sockets() -> PathBuf {
    let debian = Path::new(names::POSTGRES_SOCKET_DIR);
    let usable = rustix::fs::access(debian, rustix::fs::Access::WRITE_OK).is_ok();
    if usable { debian.to_owned() } else { "/tmp".into() }
}
