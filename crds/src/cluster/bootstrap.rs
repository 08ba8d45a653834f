//! How the first member comes by its data. Used once, when the cluster is made.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::SecretReference;

/// How the first member comes by its data: a new database, or a copy of a running server.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!(has(self.initdb) && has(self.clone))")
        .message("bootstrap is either a new database or a copy: write bootstrap.initdb or bootstrap.clone, not both")
)]
pub struct Bootstrap {
    /// Options of a new database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initdb: Option<Initdb>,
    /// A base backup of a running server becomes a cluster of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clone: Option<CloneFrom>,
}

/// Options of `initdb`.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.icuLocale) || (has(self.localeProvider) && self.localeProvider == 'icu')")
        .message("bootstrap.initdb.icuLocale is used with the provider icu only: write localeProvider: icu beside it")
)]
pub struct Initdb {
    /// Encoding of the databases. UTF8 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9_-]{1,32}$')")
        .message("bootstrap.initdb.encoding must be an encoding of PostgreSQL: write e.g. encoding: UTF8"))]
    #[schemars(length(max = 32))]
    pub encoding: Option<String>,
    /// Locale. `C.UTF-8` when absent: it sorts by code point, and no update of the system's library changes indexes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9_.@-]{1,64}$')")
        .message("bootstrap.initdb.locale must be a locale of the image: write e.g. locale: en_US.UTF-8"))]
    #[schemars(length(max = 64))]
    pub locale: Option<String>,
    /// Who compares text: the C library, ICU, or PostgreSQL itself (17 and later). PostgreSQL's default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locale_provider: Option<LocaleProvider>,
    /// Locale of the provider `icu`, e.g. `de-DE`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9@=;-]{1,64}$')")
        .message("bootstrap.initdb.icuLocale must be a language tag: write e.g. icuLocale: de-DE"))]
    #[schemars(length(max = 64))]
    pub icu_locale: Option<String>,
    /// Whether pages carry checksums. True when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_checksums: Option<bool>,
    /// Size of a WAL file in MB, a power of two from 1 to 1024. 16 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self in [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]")
        .message("bootstrap.initdb.walSegmentSize is in MB and a power of two from 1 to 1024: write e.g. walSegmentSize: 64"))]
    pub wal_segment_size: Option<i32>,
    /// SQL that runs once as the superuser in the application's database, before clients are let in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 10_000)))]
    pub post_init_sql: Vec<String>,
}

/// Who compares text: the C library, ICU, or `PostgreSQL` itself (17 and later). `PostgreSQL`'s default when absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LocaleProvider {
    /// The C library.
    Libc,
    /// ICU.
    Icu,
    /// `PostgreSQL` (17 and later).
    Builtin,
}

impl LocaleProvider {
    /// As `initdb` has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Libc => "libc",
            Self::Icu => "icu",
            Self::Builtin => "builtin",
        }
    }
}

/// A running server of which a base backup is taken.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CloneFrom {
    /// Its address.
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9.:_-]{1,253}$')")
        .message("bootstrap.clone.host must be one name or address: write e.g. host: orders.shop.svc"))]
    #[schemars(length(max = 253))]
    pub host: String,
    /// Its port.
    #[serde(default = "super::postgres_port")]
    #[x_kube(validation = Rule::new("self >= 1 && self <= 65535").message("bootstrap.clone.port must be 1 to 65535: write e.g. port: 5432 (the default)"))]
    pub port: i32,
    /// Whether the connection is encrypted.
    #[serde(default)]
    pub ssl_mode: SslMode,
    /// A Secret with `username` and `password` of a role there that may replicate.
    pub secret: SecretReference,
}

/// libpq's `sslmode`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SslMode {
    /// Never.
    Disable,
    /// If the server can.
    #[default]
    Prefer,
    /// Always; the certificate is not looked at.
    Require,
}

impl SslMode {
    /// As libpq has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Prefer => "prefer",
            Self::Require => "require",
        }
    }
}

/// The server that a standby cluster follows.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StandbyOf {
    /// Its address, or several with commas: the first that is a primary is followed.
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9.:_,-]+$')")
        .message("standbyOf.host must be names or addresses with commas: write e.g. host: orders.shop.svc"))]
    #[schemars(length(max = 1024))]
    pub host: String,
    /// Its port.
    #[serde(default = "super::postgres_port")]
    #[x_kube(validation = Rule::new("self >= 1 && self <= 65535").message("standbyOf.port must be 1 to 65535: write e.g. port: 5432 (the default)"))]
    pub port: i32,
    /// A physical slot that exists there, so that no WAL is removed before it is here. Without one, WAL may be missed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9_]{1,63}$')")
        .message("standbyOf.primarySlotName must be the name of a slot: write lower-case letters, digits and '_', e.g. primarySlotName: orders_dr"))]
    #[schemars(length(max = 63))]
    pub primary_slot_name: Option<String>,
}
