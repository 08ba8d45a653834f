//! The API types of Matriarch and the names that its parts share.

pub mod cluster;
pub mod generated;
pub mod names;
pub mod pods;
pub mod reference;

pub use cluster::{
    Application, Condition, Durability, HighAvailability, MemberStatus, PostgresCluster, PostgresClusterSpec,
    PostgresClusterStatus, Postgresql, Resources, Storage, StoreMode, UserSecrets,
};
