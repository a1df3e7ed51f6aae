//! SPEC.md against the code: its tables, its vectors, and its rules for both sides, through the
//! public API alone, as a stranger's implementation would be held to them.

mod client;
mod client_delivery;
mod json;
mod malformed;
mod raw;
mod samples;
mod server;
mod spec;
mod support;
mod vectors;
