//! The dynamic configuration.
