//! The driver's ends of subscriptions.
//!
//! Each holds a bounded queue and, once that is full, what the frame at hand still brought. While
//! any overflows, no delivery stream is read: QUIC's flow control then slows the edge down, and
//! nothing is dropped.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use throng_protocol::ids::{MessageId, Position, Ts};
use throng_protocol::message::{self, Place};
use throng_protocol::session::client::{Entries, SubscribedAt};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::Instant;

use super::{Driver, Key, SAVE_INTERVAL};
use crate::error::RequestError;
use crate::subscription::{Consumed, Delivery, Item, Subscription};

#[derive(Debug)]
pub(super) struct Sink {
    pub(super) id: u64,
    pub(super) items: mpsc::Sender<Item>,
    consumed: Consumed,
    overflow: VecDeque<Item>,
    /// The machine has ended the subscription; the sink goes once it is empty.
    ended: bool,
}

impl Sink {
    /// Moves what fits from the overflow to the queue. `false`: nobody listens.
    fn flush(&mut self) -> bool {
        while let Some(item) = self.overflow.pop_front() {
            match self.items.try_send(item) {
                Ok(()) => {}
                Err(TrySendError::Full(item)) => {
                    self.overflow.push_front(item);
                    return true;
                }
                Err(TrySendError::Closed(_)) => {
                    self.overflow.clear();
                    return false;
                }
            }
        }
        true
    }
}

impl Driver {
    pub(super) fn add_sink(&mut self, key: Key, at: &SubscribedAt) -> Subscription {
        self.last_sink += 1;
        let id = self.last_sink;
        let (items, queue) = mpsc::channel(self.config.subscription_buffer.max(1));
        let consumed = Arc::new(Mutex::new(at.position));
        self.shared.consumed.lock().insert(key.clone(), consumed.clone());
        let sink = Sink {
            id,
            items,
            consumed: consumed.clone(),
            overflow: VecDeque::new(),
            ended: false,
        };
        self.sinks.insert(key.clone(), sink);
        Subscription {
            id,
            group: key.0,
            channel: key.1,
            number: at.number,
            start: at.position,
            start_reason: at.start,
            start_ts: at.ts,
            head: at.head,
            items: queue,
            consumed,
            room: self.room.clone(),
            commands: self.commands_in.clone(),
            reset: None,
            ended: None,
        }
    }

    /// Nobody listens to a subscription any more. A later one of the same channel has another id.
    pub(super) fn drop_sink(&mut self, key: &Key, id: u64) {
        if self.sinks.get(key).is_none_or(|sink| sink.id != id) {
            return;
        }
        let Some(sink) = self.sinks.remove(key) else {
            return;
        };
        self.shared.consumed.lock().remove(key);
        let position = *sink.consumed.lock();
        self.save_position(&Place {
            group: key.0.clone(),
            channel: key.1.clone(),
            position,
            ts: Ts(0),
        });
        if !sink.ended {
            self.unsubscribe(key.clone());
        }
    }

    pub(super) fn push_entries(&mut self, batch: Entries) {
        let key = (batch.group, batch.channel);
        let Some(sink) = self.sinks.get_mut(&key) else {
            return;
        };
        let mut prev = batch.prev;
        for entry in batch.entries {
            let (channel, epoch, seq) = (batch.number, batch.epoch, entry.seq);
            sink.overflow.push_back(Item::Delivery(Box::new(Delivery {
                group: key.0.clone(),
                channel: key.1.clone(),
                channel_number: channel,
                epoch,
                prev,
                seq,
                ts: entry.ts,
                kind: entry.kind,
                id: MessageId { channel, epoch, seq },
                sender: entry.sender,
                sender_number: entry.sender_number,
                client_message_id: entry.client_message_id,
                body: entry.body,
                target: entry.target,
                version: entry.version,
                hole: entry.hole,
                expansion: entry.expansion,
                removed: entry.removed,
                keys_elsewhere: entry.keys_elsewhere,
                edge: self.edge.clone(),
                connection: self.connection,
            })));
            prev = seq;
        }
        self.save_at.get_or_insert_with(|| Instant::now() + SAVE_INTERVAL);
        self.flush_sink(&key);
    }

    pub(super) fn push_reset(&mut self, key: &Key, from: Position, to: Position) {
        if let Some(sink) = self.sinks.get_mut(key) {
            sink.overflow.push_back(Item::Reset(from, to));
            self.flush_sink(key);
        }
    }

    pub(super) fn push_end(&mut self, key: &Key, error: &message::Error) {
        if let Some(sink) = self.sinks.get_mut(key) {
            sink.overflow
                .push_back(Item::Ended(RequestError::from_wire(error)));
            sink.ended = true;
            self.flush_sink(key);
        }
    }

    fn flush_sink(&mut self, key: &Key) {
        let Some(sink) = self.sinks.get_mut(key) else {
            return;
        };
        if !sink.flush() {
            let id = sink.id;
            self.drop_sink(key, id);
        } else if !sink.overflow.is_empty() {
            self.stalled = true;
        }
    }

    /// Moves on what waits, and tells whether delivery streams may be read.
    pub(super) fn flush_sinks(&mut self) {
        if !self.stalled {
            return;
        }
        // Raised before the last look: a consumer that frees room after it tells.
        self.room.stalled.store(true, Ordering::SeqCst);
        self.stalled = false;
        let waiting = self.sinks.iter().filter(|(_, sink)| !sink.overflow.is_empty());
        let keys: Vec<Key> = waiting.map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.flush_sink(&key);
        }
        if !self.stalled {
            self.room.stalled.store(false, Ordering::SeqCst);
        }
        self.machine.set_paused(self.stalled);
    }
}
