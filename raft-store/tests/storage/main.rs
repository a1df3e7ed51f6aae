//! Tests of the storage on real folders and simulated disks: one program, so that it is linked once.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails; helpers are not test functions"
)]

mod apply;
mod contract;
mod crash_points;
mod inspect;
mod openraft_suite;
mod raft;
mod restart;
mod sim_disk;
mod snapshot;
mod store;
mod support;
