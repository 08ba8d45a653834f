//! The supervisor: its protocol (used by the agent) and its parts.

pub mod protocol;
