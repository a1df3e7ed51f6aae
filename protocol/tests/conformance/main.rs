//! SPEC.md against the code: its tables, its vectors, and its rules for both sides, through the
//! public API alone, as a stranger's implementation would be held to them.

mod json;
mod malformed;
mod raw;
mod samples;
mod spec;
mod vectors;
