//! The pure core of the agent: what it knows, what it decides, what it asks for.
//!
//! [`core::Core::handle`] takes the time and one [`event::Event`] and returns [`effect::Effect`]s. Nothing here does I/O, reads a
//! clock, draws a random number or logs: the same type runs in production and in a simulation.

pub mod config;
pub mod config_edit;
pub mod core;
pub mod decide;
pub mod divergence;
pub mod effect;
pub mod election;
pub mod event;
pub mod fence;
pub mod history;
pub mod lease;
pub mod member;
pub mod member_status;
pub mod mutants;
pub mod quorum;
pub mod slots;
pub mod snapshot;
pub mod store;
pub mod sync_names;
pub mod tags;
pub mod types;
pub mod view;
