//! Many clusters for one operator: an API server and the StatefulSet controller, no kubelets; pods become ready because this
//! program says so.

mod api;
mod fleet;
mod kubelet;
mod operator;
mod table;

pub use api::with_api;
pub use fleet::{Options, inside};
