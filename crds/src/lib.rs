//! The API types of Matriarch and the names that its parts share.

pub mod names;
