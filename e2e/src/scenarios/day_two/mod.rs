//! What a platform team does with clusters that run: nothing at all, changes, and the operator's own mishaps.

pub mod changes;
pub mod declared;
pub mod drift;
pub mod growth;
pub mod killed;
pub mod losses;
mod outside;
pub mod rights;
pub mod secrets;
pub mod wiped;
pub mod wishes;
