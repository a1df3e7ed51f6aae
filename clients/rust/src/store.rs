//! What outlives a process: positions, and sends without an answer.
//!
//! Calls come from the client's task and must be quick; an implementation on disk queues writes.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use parking_lot::Mutex;
use throng_protocol::ids::{ChannelId, ClientMessageId, GroupId, Position, Ts};
use throng_protocol::message::Place;

/// The store failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StoreError(pub String);

/// A send without an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSend {
    /// The group.
    pub group: GroupId,
    /// The channel.
    pub channel: ChannelId,
    /// The message's key.
    pub client_message_id: ClientMessageId,
    /// When it first went out, server time; `None` if it never did.
    pub first_attempt_ms: Option<u64>,
    /// The body.
    pub body: Bytes,
}

/// What an earlier run left.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stored {
    /// Sends without an answer, in the order they were given.
    pub sends: Vec<StoredSend>,
    /// The positions the application had consumed.
    pub positions: Vec<Place>,
}

/// Keeps what outlives a process.
pub trait LocalStore: Send + Sync + fmt::Debug + 'static {
    /// What an earlier run left.
    fn load(&self) -> Result<Stored, StoreError>;

    /// Keeps a send, or its first attempt. A send is refused if this fails.
    fn save_send(&self, send: &StoredSend) -> Result<(), StoreError>;

    /// A send has been answered.
    fn remove_send(
        &self,
        group: &GroupId,
        channel: &ChannelId,
        id: ClientMessageId,
    ) -> Result<(), StoreError>;

    /// The application has consumed everything up to here. Comes about once a second and at the
    /// close: after a crash the last second is delivered again.
    fn save_position(&self, place: &Place) -> Result<(), StoreError>;
}

/// A store that lasts as long as its process; share it between clients to hand over.
#[derive(Debug, Default)]
pub struct MemoryStore {
    stored: Mutex<Memory>,
}

#[derive(Debug, Default)]
struct Memory {
    sends: Vec<StoredSend>,
    positions: BTreeMap<(GroupId, ChannelId), Position>,
}

impl LocalStore for MemoryStore {
    fn load(&self) -> Result<Stored, StoreError> {
        let stored = self.stored.lock();
        let positions = stored.positions.iter();
        Ok(Stored {
            sends: stored.sends.clone(),
            positions: positions
                .map(|((group, channel), position)| Place {
                    group: group.clone(),
                    channel: channel.clone(),
                    position: *position,
                    ts: Ts(0),
                })
                .collect(),
        })
    }

    fn save_send(&self, send: &StoredSend) -> Result<(), StoreError> {
        let mut stored = self.stored.lock();
        let same = |other: &&mut StoredSend| {
            other.client_message_id == send.client_message_id
                && other.channel == send.channel
                && other.group == send.group
        };
        match stored.sends.iter_mut().find(same) {
            Some(present) => *present = send.clone(),
            None => stored.sends.push(send.clone()),
        }
        Ok(())
    }

    fn remove_send(
        &self,
        group: &GroupId,
        channel: &ChannelId,
        id: ClientMessageId,
    ) -> Result<(), StoreError> {
        self.stored
            .lock()
            .sends
            .retain(|send| send.client_message_id != id || send.channel != *channel || send.group != *group);
        Ok(())
    }

    fn save_position(&self, place: &Place) -> Result<(), StoreError> {
        let key = (place.group.clone(), place.channel.clone());
        self.stored.lock().positions.insert(key, place.position);
        Ok(())
    }
}
