//! Section `ctl`: how this member calls the REST API of others. Absent keys are those of `restapi`.

use std::path::PathBuf;

use serde::Deserialize;

use super::restapi::{Login, Password};
use super::value;

/// Section `ctl`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Ctl {
    /// What the others ask for.
    pub authentication: Option<Login>,
    /// Whoever answers is believed to be who we called.
    #[serde(deserialize_with = "value::flag")]
    pub insecure: bool,
    /// Who signs the others' certificates.
    pub cacert: Option<PathBuf>,
    /// Our certificate as a client.
    pub certfile: Option<PathBuf>,
    /// Its key; none: in `certfile`.
    pub keyfile: Option<PathBuf>,
    /// The password of an encrypted key.
    pub keyfile_password: Option<Password>,
}
