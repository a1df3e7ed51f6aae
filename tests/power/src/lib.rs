//! Power cuts, at every write a replica's store ever asked of its disk.
//!
//! ```text
//! load (a child process, real raft-store on real LMDB)
//!   └─ interposer/capture.c ──► record: writes, syncs, folder entries, and the load's own marks
//!                                  │
//!            for every change in the record, several fates of what was not synced
//!                                  ▼
//!      image of the folder ──► opened by the real store ──► compared with the marks before the cut
//! ```
//!
//! What a disk may do is in [`disk`]: anything that was not synced may be there, be missing or be torn,
//! in any order, folder entries included; a sector of 512 bytes is written whole or not at all. What
//! the store owes is in [`expect`]. Images are opened in worker processes ([`workers`]), since a
//! damaged memory map can end a process.
//!
//! It refuses to know LMDB's file format and Raft: it sees bytes below and a replica above.

pub mod capture;
pub mod check;
pub mod cli;
pub mod disk;
pub mod expect;
pub mod load;
pub mod mark;
pub mod record;
pub mod shards;
pub mod walk;
pub mod workers;
