//! Whole processes of throng under test: the binary as a user starts it, its disk held or full, its
//! processes killed or stopped, the network between them cut.
//!
//! It refuses to reach into a running system: what it knows of one comes from its command line, its
//! files and its wires. Of nodes that are gone it reads what they left on disk.

pub mod audit;
pub mod crash;
pub mod disk;
pub mod figures;
pub mod leader_kill;
pub mod ledger;
pub mod linearizable;
pub mod load;
pub mod logs;
pub mod nodes;
pub mod process;
pub mod proxy;
pub mod sdk;
pub mod status;
pub mod system;
pub mod trace;

/// Tells how a run goes, on stderr; a closed stderr is nobody's loss.
fn tell(text: std::fmt::Arguments<'_>) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{text}");
}
