//! How far the senders may go: up to the next fault and a little further.

use tokio::sync::watch;

/// Messages that may be sent beyond a fault's place before it strikes, so that it finds sends in
/// flight; more than the senders keep in flight would only delay the fault.
const BEYOND: usize = 256;

/// The gate.
#[derive(Debug)]
pub struct Gate {
    limit: watch::Sender<usize>,
}

impl Gate {
    /// Closed at the first fault.
    pub fn new(first_fault: Option<usize>) -> Self {
        Self {
            limit: watch::Sender::new(first_fault.unwrap_or(usize::MAX)),
        }
    }

    /// Waits until the message at a place may be sent.
    pub async fn pass(&self, place: usize) {
        let mut limit = self.limit.subscribe();
        // The sender is ours: it does not end while we wait.
        let _ = limit.wait_for(|limit| place < *limit).await;
    }

    /// The fault at a place is about to strike.
    pub fn open_past(&self, place: usize) {
        self.limit
            .send_modify(|limit| *limit = (*limit).max(place.saturating_add(BEYOND)));
    }

    /// No fault is left.
    pub fn open_all(&self) {
        self.limit.send_replace(usize::MAX);
    }
}
