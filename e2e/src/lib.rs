//! A real Kubernetes on one machine, without a registry and without root filesystems from the net: the ground on which
//! scenarios, faults, benchmarks and the demo stand.

pub mod bare;
pub mod cluster;
pub mod demo;
pub mod deps;
pub mod host;
pub mod images;
pub mod operator;
pub mod packaging;
pub mod scale;
pub mod scenarios;
pub mod wait;
pub mod workload;
