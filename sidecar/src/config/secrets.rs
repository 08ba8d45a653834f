//! Who logs in to PostgreSQL: from Secrets, which are read at every use so that a rotated password is found, or as written in
//! `postgresql.authentication`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// A user of PostgreSQL that Matriarch knows; each has a folder in the secrets folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    /// `superuser`
    Superuser,
    /// `replication`
    Replication,
    /// `rewind`
    Rewind,
    /// `app`
    App,
    /// `clone`: a role of the server that a new cluster is cloned from.
    Clone,
}

impl User {
    /// Name of the folder.
    pub fn folder(self) -> &'static str {
        match self {
            Self::Superuser => "superuser",
            Self::Replication => "replication",
            Self::Rewind => "rewind",
            Self::App => "app",
            Self::Clone => "clone",
        }
    }
    /// Role name where the folder has no `username`.
    pub(super) fn default_name(self) -> &'static str {
        match self {
            Self::Superuser => "postgres",
            Self::Replication => "replicator",
            Self::Rewind => "rewinder",
            Self::App => "app",
            Self::Clone => "replicator",
        }
    }
}

/// Role name and password.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// The role.
    pub username: String,
    /// Its password.
    pub password: String,
    /// `dbname`, where the folder has one.
    pub dbname: Option<String>,
    /// How to log in: `sslmode`, `sslrootcert`, `channel_binding` …, libpq's keywords.
    pub options: BTreeMap<String, String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

/// A secret cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// A file is missing or unreadable.
    #[error("the secret {path} cannot be read ({source}): the Secret must have the keys `username` and `password`")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A password that PostgreSQL's passfile or URIs could not hold.
    #[error("the secret {path} is empty or has a line break or a NUL in it: write one line")]
    Malformed {
        /// Which file.
        path: PathBuf,
    },
    /// `postgresql.authentication` has no such user.
    #[error("postgresql.authentication.{user} is not configured")]
    NotConfigured {
        /// Which.
        user: &'static str,
    },
}

impl Credentials {
    /// From the files of one user.
    pub fn read(secrets_dir: &Path, user: User) -> Result<Self, SecretError> {
        let folder = secrets_dir.join(user.folder());
        let line = |name: &str| -> Result<String, SecretError> {
            let path = folder.join(name);
            let text =
                std::fs::read_to_string(&path).map_err(|source| SecretError::Read { path: path.clone(), source })?;
            let text = text.trim_end_matches(['\n', '\r']);
            if text.is_empty() || text.contains(['\n', '\r', '\0']) {
                return Err(SecretError::Malformed { path });
            }
            Ok(text.to_owned())
        };
        Ok(Self {
            username: line("username").unwrap_or_else(|_| user.default_name().to_owned()),
            password: line("password")?,
            dbname: line("dbname").ok(),
            options: BTreeMap::new(),
        })
    }
}
