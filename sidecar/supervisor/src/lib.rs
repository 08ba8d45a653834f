//! The supervisor's protocol (used by the agent as well) and how it is framed.

pub mod frame;
pub mod protocol;
