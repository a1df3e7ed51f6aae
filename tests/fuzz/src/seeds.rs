//! The inputs that corpora begin with: real encodings of everything a target reads.
pub fn placeholder() {}
