//! A channel's entries as a stream.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use parking_lot::Mutex;
use throng_protocol::ids::{
    ChannelId, ChannelNumber, ClientMessageId, Epoch, GroupId, MessageId, Position, Seq, Ts, UserId,
    UserNumber,
};
use throng_protocol::message::{Entry, Start};
use tokio::sync::{Notify, mpsc};

use crate::driver::Command;
use crate::error::RequestError;

/// Where a subscription begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// Behind the last entry: what comes from now on.
    Head,
    /// Before the first entry: everything.
    Start,
    /// Behind a position held from earlier.
    Position(Position),
    /// Behind the last entry with this time stamp or an earlier one.
    Ts(Ts),
    /// Behind what the local store holds for the channel; behind the last entry if it holds nothing.
    Stored,
}

/// One entry, delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The group.
    pub group: GroupId,
    /// The channel.
    pub channel: ChannelId,
    /// The channel's number.
    pub channel_number: ChannelNumber,
    /// The log's incarnation.
    pub epoch: Epoch,
    /// The entry before this one, for this subscriber.
    pub prev: Seq,
    /// The entry's position.
    pub seq: Seq,
    /// Its time stamp.
    pub ts: Ts,
    /// What it is, see [`EntryKind::number`](crate::EntryKind::number): 1 is a message, 2 to 5 are changes to one.
    pub kind: u8,
    /// Its unique value.
    pub id: MessageId,
    /// Who sent it.
    pub sender: UserId,
    /// Who sent it, by number.
    pub sender_number: UserNumber,
    /// The sender's key.
    pub client_message_id: ClientMessageId,
    /// The body. Of a change: its target's, as it is now.
    pub body: Bytes,
    /// Of a change: the message it changes.
    pub target: Seq,
    /// Of a message: the last change that is in what is here; of a change: the last one of its target before
    /// it. 0 for none.
    pub version: Seq,
    /// Why there is no content, see [`Hole::number`](crate::Hole::number); 0 if there is. Of a change: its target's.
    pub hole: u8,
    /// Of a message its expansion; of a change to one, what it set.
    pub expansion: Vec<(String, String)>,
    /// Of a change to an expansion: the keys it touched that are not there any more.
    pub removed: Vec<String>,
    /// Of a message: its expansion is not here; [`Client::expansion`] brings it.
    ///
    /// [`Client::expansion`]: crate::Client::expansion
    pub keys_elsewhere: bool,
    /// The edge it came from.
    pub edge: Arc<str>,
    /// The client's connection it came over, counted from 1.
    pub connection: u32,
}

impl Delivery {
    /// The position of the entry: what names a message to whoever changes it.
    pub fn position(&self) -> Position {
        Position {
            epoch: self.epoch,
            seq: self.seq,
        }
    }

    /// The entry as pages have it, for a [`Timeline`](crate::Timeline).
    pub fn entry(&self) -> Entry {
        Entry {
            seq: self.seq,
            ts: self.ts,
            kind: self.kind,
            sender: self.sender.clone(),
            sender_number: self.sender_number,
            client_message_id: self.client_message_id,
            body: self.body.clone(),
            target: self.target,
            version: self.version,
            hole: self.hole,
            expansion: self.expansion.clone(),
            removed: self.removed.clone(),
            keys_elsewhere: self.keys_elsewhere,
        }
    }
}

/// What comes to a subscriber.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The next entry.
    Delivery(Box<Delivery>),
    /// Entries do not go on behind the position held, because the log was rebuilt or the user was out
    /// of the group in between. The application loads what is between by history.
    Reset {
        /// The position held before.
        from: Position,
        /// The position behind which entries go on.
        to: Position,
    },
}

/// What travels from the driver to a subscription.
#[derive(Debug)]
pub(crate) enum Item {
    Delivery(Box<Delivery>),
    Reset(Position, Position),
    Ended(RequestError),
}

/// Tells the driver that a full subscription has room again.
#[derive(Debug, Default)]
pub(crate) struct Room {
    pub(crate) stalled: AtomicBool,
    pub(crate) freed: Notify,
}

/// Everything up to here was consumed by the application.
pub(crate) type Consumed = Arc<Mutex<Position>>;

/// A channel's entries: in order, without a gap, each once, over all connections. Dropping it
/// unsubscribes. The stream ends when the client closes, or the cluster ends the subscription
/// ([`Self::ended`]).
#[derive(Debug)]
pub struct Subscription {
    pub(crate) id: u64,
    pub(crate) group: GroupId,
    pub(crate) channel: ChannelId,
    pub(crate) number: ChannelNumber,
    pub(crate) start: Position,
    pub(crate) start_reason: Start,
    pub(crate) start_ts: Ts,
    pub(crate) head: Seq,
    pub(crate) items: mpsc::Receiver<Item>,
    pub(crate) consumed: Consumed,
    pub(crate) room: Arc<Room>,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) reset: Option<(Position, Position)>,
    pub(crate) ended: Option<RequestError>,
}

impl Subscription {
    /// The group.
    pub fn group(&self) -> &GroupId {
        &self.group
    }

    /// The channel.
    pub fn channel(&self) -> &ChannelId {
        &self.channel
    }

    /// The channel's number.
    pub fn number(&self) -> ChannelNumber {
        self.number
    }

    /// Every entry behind this position comes.
    pub fn start(&self) -> Position {
        self.start
    }

    /// Why it starts there: a position of another epoch, beyond the log, or from before the user was
    /// out of the group starts at the head.
    pub fn start_reason(&self) -> Start {
        self.start_reason
    }

    /// The time stamp of the entry at [`Self::start`]; `None` if there is none or the edge did not hold it.
    pub fn start_ts(&self) -> Option<Ts> {
        (self.start_ts != Ts(0)).then_some(self.start_ts)
    }

    /// The last entry of the log when the subscription began.
    pub fn head(&self) -> Seq {
        self.head
    }

    /// Everything up to here was taken from this stream.
    pub fn position(&self) -> Position {
        *self.consumed.lock()
    }

    /// The last [`Event::Reset`], for whoever takes entries alone: that position, and the one behind which
    /// they continued.
    pub fn last_reset(&self) -> Option<(Position, Position)> {
        self.reset
    }

    /// Why the cluster ended the subscription, once the stream has ended; `code` is `NotMember` for a
    /// user who was kicked or has left. One who joins again subscribes again.
    pub fn ended(&self) -> Option<&RequestError> {
        self.ended.as_ref()
    }

    /// The next entry; `None` when the stream has ended. Cancel-safe.
    pub async fn recv(&mut self) -> Option<Delivery> {
        std::future::poll_fn(|context| self.poll_delivery(context)).await
    }

    /// The next entry, or that entries do not go on where they should, which may be long before the next
    /// one comes; `None` when the stream has ended. Cancel-safe.
    pub async fn recv_event(&mut self) -> Option<Event> {
        std::future::poll_fn(|context| self.poll_event(context)).await
    }

    fn poll_delivery(&mut self, context: &mut Context<'_>) -> Poll<Option<Delivery>> {
        loop {
            match self.poll_event(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Ready(Some(Event::Delivery(delivery))) => return Poll::Ready(Some(*delivery)),
                Poll::Ready(Some(Event::Reset { .. })) => {}
            }
        }
    }

    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Option<Event>> {
        loop {
            let item = match self.items.poll_recv(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Ready(Some(item)) => item,
            };
            // The driver raises the flag before it looks for room a last time.
            if self.room.stalled.load(Ordering::SeqCst) {
                self.room.freed.notify_one();
            }
            match item {
                Item::Delivery(delivery) => {
                    let (epoch, seq) = (delivery.epoch, delivery.seq);
                    *self.consumed.lock() = Position { epoch, seq };
                    return Poll::Ready(Some(Event::Delivery(delivery)));
                }
                Item::Reset(from, to) => {
                    *self.consumed.lock() = to;
                    self.reset = Some((from, to));
                    return Poll::Ready(Some(Event::Reset { from, to }));
                }
                Item::Ended(error) => {
                    self.ended = Some(error);
                    self.items.close();
                }
            }
        }
    }
}

impl Stream for Subscription {
    type Item = Delivery;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Delivery>> {
        self.get_mut().poll_delivery(context)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        // With a full queue the driver notices at the next delivery that nobody listens.
        let _ = self.commands.try_send(Command::Unsubscribe {
            key: (self.group.clone(), self.channel.clone()),
            id: self.id,
        });
        self.room.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(seq: u64) -> Position {
        Position {
            epoch: Epoch(1),
            seq: Seq(seq),
        }
    }

    #[tokio::test]
    async fn a_reset_is_told_before_another_entry_comes() {
        let (told, items) = mpsc::channel(1);
        let (commands, _driver) = mpsc::channel(1);
        let mut subscription = Subscription {
            id: 1,
            group: GroupId::new("town").unwrap(),
            channel: ChannelId::new("hall").unwrap(),
            number: ChannelNumber(1),
            start: position(0),
            start_reason: Start::Resumed,
            start_ts: Ts(0),
            head: Seq(0),
            items,
            consumed: Arc::default(),
            room: Arc::default(),
            commands,
            reset: None,
            ended: None,
        };
        told.send(Item::Reset(position(3), position(7))).await.unwrap();
        let event = subscription.recv_event().await;
        assert_eq!(
            event,
            Some(Event::Reset {
                from: position(3),
                to: position(7)
            })
        );
        assert_eq!(subscription.position(), position(7));
        assert_eq!(subscription.last_reset(), Some((position(3), position(7))));
    }
}
