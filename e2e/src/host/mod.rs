//! What the harness does to the machine: commands, processes, cgroups, mounts. Knows nothing of Kubernetes.

pub mod cgroup;
pub mod child;
pub mod lock;
pub mod mounts;
pub mod process;
pub mod progress;
pub mod run;
pub mod sysctl;
