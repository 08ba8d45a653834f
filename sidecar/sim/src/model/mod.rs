//! What surrounds the cores: models that hand out only what the real thing would.

pub(crate) mod api;
pub(crate) mod disk;
pub(crate) mod wal;
