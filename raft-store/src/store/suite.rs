//! What every [`Store`] must do, as functions that panic when it does not.

/// placeholder
pub fn nothing() {}
