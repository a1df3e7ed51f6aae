//! The rules about the source tree of throng that no compiler holds, one rule per module.
//!
//! A rule is a pure function from the files of the tree to findings: sentences that say what is
//! wrong, where, and what to do. `tests/tree.rs` applies every rule to the checkout; each module's
//! own tests show that a violation is caught. Nothing here formats, fixes or builds anything,
//! except `tests/generated.rs`, which runs the FlatBuffers compiler.
pub mod arrows;
pub mod clauses;
pub mod homes;
pub mod length;
pub mod licences;
pub mod lock;
pub mod manifest;
pub mod manifests;
pub mod map;
pub mod metrics;
pub mod places;
pub mod planted;
pub mod purity;
pub mod rust;
pub mod source;
pub mod tree;
pub mod waits;

pub use tree::{File, Tree};

/// What a rule found: one sentence that names the place and says what to do.
pub type Finding = String;
