//! Core nodes that gave no answer: whom to trust with a request, and whom to try now and then.
//!
//! A killed leader answers nothing, and its followers name it until they have noticed. Whoever follows
//! them pays the whole time of an attempt for nothing, in every call until an election is over. So a
//! node that was silent is left out for a while, except for a short try now and then: one that only
//! paused leads on as if nothing had been.

use std::collections::HashMap;

use throng_protocol::ids::NodeId;
use tokio::time::Instant;

use crate::limits::{PROBE_INTERVAL, SILENT_LAST};

/// The silent nodes.
#[derive(Debug, Default)]
pub(super) struct Silences(HashMap<NodeId, Silence>);

#[derive(Debug, Clone, Copy)]
struct Silence {
    since: Instant,
    tried: Instant,
}

impl Silences {
    /// A node gave no answer. A try that fails does not make its silence begin anew: afterwards it is
    /// asked as patiently as any.
    pub fn note(&mut self, node: NodeId, now: Instant) {
        if self.is_silent(node, now) {
            return;
        }
        let silence = Silence {
            since: now,
            tried: now,
        };
        self.0.insert(node, silence);
    }

    /// A node answered.
    pub fn forget(&mut self, node: NodeId) {
        self.0.remove(&node);
    }

    /// Whether a node was silent a moment ago.
    pub fn is_silent(&self, node: NodeId, now: Instant) -> bool {
        let silence = self.0.get(&node);
        silence.is_some_and(|silence| now.duration_since(silence.since) < SILENT_LAST)
    }

    /// Whether a node may be asked now: it was not silent, or it is time for a try, which this call
    /// takes for itself.
    pub fn may_ask(&mut self, node: NodeId, now: Instant) -> bool {
        if !self.is_silent(node, now) {
            return true;
        }
        let silence = self.0.get_mut(&node);
        silence.is_none_or(|silence| {
            let due = now.duration_since(silence.tried) >= PROBE_INTERVAL;
            if due {
                silence.tried = now;
            }
            due
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NODE: NodeId = NodeId(1);

    #[test]
    fn a_silent_node_is_tried_by_one_call_at_a_time_until_it_answers() {
        let (mut silences, start) = (Silences::default(), Instant::now());
        assert!(silences.may_ask(NODE, start));
        silences.note(NODE, start);
        assert!(silences.is_silent(NODE, start));
        assert!(!silences.may_ask(NODE, start), "it has just been asked");
        let due = start + PROBE_INTERVAL;
        assert!(silences.may_ask(NODE, due));
        assert!(!silences.may_ask(NODE, due), "another call tries it");
        assert!(silences.may_ask(NodeId(2), due), "others are not silent");
        silences.forget(NODE);
        assert!(silences.may_ask(NODE, due) && !silences.is_silent(NODE, due));
    }

    #[test]
    fn failed_tries_do_not_prolong_a_silence() {
        let (mut silences, start) = (Silences::default(), Instant::now());
        silences.note(NODE, start);
        silences.note(NODE, start + SILENT_LAST - Duration::from_millis(1));
        assert!(!silences.is_silent(NODE, start + SILENT_LAST));
        silences.note(NODE, start + SILENT_LAST);
        assert!(silences.is_silent(NODE, start + SILENT_LAST));
    }
}
