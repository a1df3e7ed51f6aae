//! Whole processes of throng under test: the binary as a user starts it, its disk held or full, its
//! processes killed.
//!
//! It refuses to reach inside: what it knows of a system comes from its command line, its files and
//! its wires.

pub mod disk;
pub mod nodes;
pub mod process;
pub mod trace;
