//! Tests of the storage on real folders: one program, so that it is linked once.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails; helpers are not test functions"
)]

mod apply;
mod openraft_suite;
mod raft;
mod restart;
mod snapshot;
mod store;
mod support;
