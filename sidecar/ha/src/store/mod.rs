//! The shared state: Kubernetes objects in Patroni's format, and the cache of them that one LIST and WATCH keep.

pub mod cache;
pub mod record;
