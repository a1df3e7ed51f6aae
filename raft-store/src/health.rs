//! Whether a shard's records can be trusted. One damaged record stops the whole replica: every
//! handle of the shard refuses from then on, with the first reason.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;

use crate::record::RecordError;
use crate::store::Store;

/// The health of one shard's replica, shared by its handles.
#[derive(Debug, Default)]
pub(crate) struct Health {
    reason: OnceLock<String>,
}

impl Health {
    /// Refuses if the shard has stopped.
    pub fn check(&self) -> Result<(), String> {
        match self.reason.get() {
            Some(reason) => Err(reason.clone()),
            None => Ok(()),
        }
    }

    /// [`check`](Self::check) for openraft.
    pub fn check_io(&self) -> io::Result<()> {
        self.check().map_err(io::Error::other)
    }

    /// Stops the shard because of a damaged record.
    pub fn damaged(&self, store: &dyn Store, error: &RecordError) -> String {
        store.metrics().corrupt_records.fetch_add(1, Ordering::Relaxed);
        self.stop(&error.to_string())
    }

    /// Stops the shard; the first reason stays.
    pub fn stop(&self, reason: &str) -> String {
        let first = self.reason.get_or_init(|| {
            tracing::error!(reason, "the replica stops");
            reason.to_owned()
        });
        first.clone()
    }

    /// Why the shard has stopped.
    pub fn reason(&self) -> Option<&str> {
        self.reason.get().map(String::as_str)
    }
}
