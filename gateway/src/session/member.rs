//! A user at an open session, and what the session is subscribed to.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use throng_fanout::Seat;
use throng_protocol::ids::{ChannelNumber, GroupId, Position, SessionId};
use throng_protocol::limits::SUBSCRIPTIONS_MAX;
use throng_transport::Link;

use super::outbox::Outbox;
use crate::channels::Channel;
use crate::directory::Identity;
use crate::shared::Shared;
use crate::workers::Worker;

/// Whether a subscription fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reserved {
    /// It has a place now.
    New,
    /// It had one already.
    Held,
    /// The session has as many as allowed.
    Full,
}

/// A user at an open session. Dropping it ends its subscriptions.
#[derive(Debug)]
pub(super) struct Member {
    pub seat: Seat,
    pub who: Identity,
    pub outbox: Arc<Outbox>,
    subscriptions: Mutex<HashMap<ChannelNumber, Arc<Channel>>>,
}

impl Member {
    pub fn new(
        shared: Arc<Shared>,
        worker: Arc<Worker>,
        link: Arc<dyn Link>,
        session: SessionId,
        who: Identity,
    ) -> Arc<Self> {
        let seat = Seat {
            worker: worker.number,
            session,
        };
        Arc::new_cyclic(|me| Self {
            seat,
            who,
            outbox: Outbox::new(shared, worker, link, seat, me.clone()),
            subscriptions: Mutex::default(),
        })
    }

    /// Makes room for a subscription.
    pub fn reserve(&self, channel: &Arc<Channel>) -> Reserved {
        let mut subscriptions = self.subscriptions.lock();
        let number = channel.info().number;
        if subscriptions.contains_key(&number) {
            return Reserved::Held;
        }
        if subscriptions.len() >= SUBSCRIPTIONS_MAX {
            return Reserved::Full;
        }
        subscriptions.insert(number, Arc::clone(channel));
        Reserved::New
    }

    /// Holds a subscription that has begun, unless it is over already.
    pub fn hold(&self, channel: &Arc<Channel>) {
        let mut subscriptions = self.subscriptions.lock();
        let number = channel.info().number;
        if channel.is_subscribed(self.seat) {
            subscriptions.insert(number, Arc::clone(channel));
        } else {
            subscriptions.remove(&number);
        }
    }

    /// A subscription is over; its place is free unless it has begun anew meanwhile.
    pub fn ended(&self, channel: &Channel) {
        let mut subscriptions = self.subscriptions.lock();
        if !channel.is_subscribed(self.seat) {
            subscriptions.remove(&channel.info().number);
        }
    }

    /// Ends a subscription; `false` if there was none.
    pub fn unsubscribe(&self, channel: ChannelNumber) -> bool {
        let channel = self.subscriptions.lock().remove(&channel);
        channel.is_some_and(|channel| channel.unsubscribe(self.seat))
    }

    /// Ends the subscriptions of a group that the user has left.
    pub fn leave(&self, group: &GroupId) {
        self.subscriptions.lock().retain(|_, channel| {
            let stays = channel.info().group != *group;
            if !stays {
                channel.unsubscribe(self.seat);
            }
            stays
        });
    }

    /// Records an ack; one for a channel that is not subscribed says nothing.
    pub fn acked(&self, channel: ChannelNumber, position: Position) {
        let channel = self.subscriptions.lock().get(&channel).cloned();
        if let Some(channel) = channel {
            channel.acked(self.seat, position);
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        for (_, channel) in self.subscriptions.get_mut().drain() {
            channel.unsubscribe(self.seat);
        }
    }
}
