//! What is made for the application, and Secrets of the user's own.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// The database and the user that are made for the application.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Application {
    /// The database.
    #[serde(default = "app")]
    #[schemars(length(max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z_][a-z0-9_]*$') && !(self in ['postgres', 'template0', 'template1'])")
        .message("application.database must be a plain name that is not PostgreSQL's own: write lower-case letters, digits and '_', e.g. database: orders"))]
    pub database: String,
    /// The role that owns it.
    #[serde(default = "app")]
    #[schemars(length(max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z_][a-z0-9_]*$') && !self.startsWith('pg_') && !(self in ['postgres', 'replicator', 'rewinder'])")
        .message("application.owner must be a plain name that is not one of Matriarch's or PostgreSQL's own roles (postgres, replicator, rewinder, pg_*): write e.g. owner: orders"))]
    pub owner: String,
}

fn app() -> String {
    "app".to_owned()
}

impl Default for Application {
    fn default() -> Self {
        Self { database: app(), owner: app() }
    }
}

/// Names of Secrets of the user's own, each with keys `username` and `password`.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UserSecrets {
    /// For the superuser; its `username` must be `postgres`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub superuser: Option<String>,
    /// For replication.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub replication: Option<String>,
    /// For `pg_rewind`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub rewind: Option<String>,
    /// For the application's user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub application: Option<String>,
}

impl UserSecrets {
    /// The users and the Secret that the spec names for them, if any.
    pub fn by_user(&self) -> [(&'static str, Option<&str>); 4] {
        [
            ("superuser", self.superuser.as_deref()),
            ("replication", self.replication.as_deref()),
            ("rewind", self.rewind.as_deref()),
            ("app", self.application.as_deref()),
        ]
    }
}
