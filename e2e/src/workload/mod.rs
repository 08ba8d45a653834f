//! The workload and its checker: clients write numbered rows through the Service and beside it, and afterwards every
//! acknowledged row has to be there, and no two primaries may have written at one time.

pub mod check;
pub mod clock;
pub mod database;
mod gap;
pub mod history;
mod overlap;
mod run;
mod writer;
mod zone;

pub use check::{Promise, Rows, Verdict, check};
pub use database::Database;
pub use gap::{Gap, longest_since as longest_gap};
pub use history::{Attempt, History, Outcome, Server};
pub use overlap::Overlap;
pub use run::Workload;
