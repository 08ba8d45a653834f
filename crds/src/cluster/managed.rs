//! Roles, databases, schemas and extensions as declared state.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether something shall be there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Ensure {
    /// It is made, and kept as it is described.
    #[default]
    Present,
    /// It is dropped.
    Absent,
}

/// A role. What is not said is `PostgreSQL`'s default, as in `CREATE ROLE`.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Role {
    /// Its name.
    #[x_kube(validation = Rule::new("self.size() > 0 && !self.startsWith('pg_') && !(self in ['postgres', 'replicator', 'rewinder', 'public', 'none'])")
        .message("roles may not name one of Matriarch's or PostgreSQL's own roles (postgres, replicator, rewinder, pg_*): write another name, e.g. name: reporting"))]
    #[schemars(length(max = 63))]
    pub name: String,
    /// `absent` drops the role, unless it owns something.
    #[serde(default)]
    pub ensure: Ensure,
    /// Whether it may log in.
    #[serde(default)]
    pub login: bool,
    /// Whether nothing is forbidden to it.
    #[serde(default)]
    pub superuser: bool,
    /// Whether it may make databases.
    #[serde(default)]
    pub create_db: bool,
    /// Whether it may make roles.
    #[serde(default)]
    pub create_role: bool,
    /// Whether it may replicate.
    #[serde(default)]
    pub replication: bool,
    /// Whether row-level security does not hold for it.
    #[serde(default)]
    pub bypass_rls: bool,
    /// Whether it has the rights of the roles that it is in.
    #[serde(default = "yes")]
    pub inherit: bool,
    /// How many connections it may have; -1 is any number.
    #[serde(default = "unlimited")]
    #[x_kube(validation = Rule::new("self >= -1").message("connectionLimit must be a number of connections, or -1 for any number: write e.g. connectionLimit: 20"))]
    pub connection_limit: i32,
    /// When its password ends (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self.matches('^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(Z|[+-][0-9]{2}:[0-9]{2})$')")
        .message("validUntil must be a time with its zone: write e.g. validUntil: \"2027-01-31T00:00:00Z\""))]
    #[schemars(length(max = 40))]
    pub valid_until: Option<String>,
    /// Roles that it is a member of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), inner(length(min = 1, max = 63)))]
    pub in_roles: Vec<String>,
    /// The Secret with its password. Without one, its password is left as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_secret: Option<SecretKey>,
    /// `COMMENT ON ROLE`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1000))]
    pub comment: Option<String>,
}

fn yes() -> bool {
    true
}
fn unlimited() -> i32 {
    -1
}
fn password() -> String {
    "password".to_owned()
}

/// One value of a Secret in the cluster's namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecretKey {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key.
    #[serde(default = "password")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// A database.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.extensions) || self.ensure == 'present' || self.extensions.size() == 0")
        .message("a database that shall be absent has no extensions: remove the list, or write ensure: present")
)]
pub struct Database {
    /// Its name.
    #[x_kube(validation = Rule::new("self.size() > 0 && !(self in ['postgres', 'template0', 'template1'])")
        .message("databases may not name PostgreSQL's own (postgres, template0, template1): write another name, e.g. name: reports"))]
    #[schemars(length(max = 63))]
    pub name: String,
    /// `absent` drops the database **with all that is in it**.
    #[serde(default)]
    pub ensure: Ensure,
    /// The role that owns it. The application's owner when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub owner: Option<String>,
    /// Encoding, at creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    pub encoding: Option<String>,
    /// The database that it is copied from, at creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub template: Option<String>,
    /// How many connections it may have; -1 is any number.
    #[serde(default = "unlimited")]
    #[x_kube(validation = Rule::new("self >= -1").message("connectionLimit must be a number of connections, or -1 for any number: write e.g. connectionLimit: 100"))]
    pub connection_limit: i32,
    /// Extensions in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub extensions: Vec<Extension>,
    /// Schemas in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub schemas: Vec<Schema>,
}

/// An extension. Its files must be in the image.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extension {
    /// Its name.
    #[x_kube(validation = Rule::new("self.matches('^[a-z_][a-z0-9_-]*$')")
        .message("extensions are named as in CREATE EXTENSION: write e.g. name: pg_stat_statements"))]
    #[schemars(length(max = 63))]
    pub name: String,
    /// `absent` drops the extension, unless something uses it.
    #[serde(default)]
    pub ensure: Ensure,
    /// Its version. What the image has when absent; a newer one of the image is then not installed by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub version: Option<String>,
    /// The schema of its objects, at creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub schema: Option<String>,
}

/// A schema.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schema {
    /// Its name.
    #[x_kube(validation = Rule::new("self.size() > 0 && !self.startsWith('pg_') && self != 'information_schema'")
        .message("schemas may not name PostgreSQL's own (pg_*, information_schema): write another name, e.g. name: reports"))]
    #[schemars(length(max = 63))]
    pub name: String,
    /// The role that owns it. The database's owner when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub owner: Option<String>,
}
