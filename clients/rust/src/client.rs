//! The handle applications hold.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use throng_protocol::cluster::Change;
use throng_protocol::ids::{
    ChannelId, ChannelNumber, ClientMessageId, Epoch, GroupId, MessageId, Position, Seq, Ts, UserId,
};
use throng_protocol::message::{self, Anchor, Direction, Entry, Place};
use throng_protocol::session::client::{Answer, SyncFrom};
use throng_transport::ClientEndpoint;
use tokio::sync::{mpsc, oneshot, watch};

use crate::config::ClientConfig;
use crate::driver::{Command, Control, Driver, Request, Shared};
use crate::error::{CloseReason, ConnectError, RequestError, SendError};
use crate::subscription::{From, Subscription};

/// Commands on their way to the driver; it takes them as the machine has room.
const COMMANDS_MAX: usize = 64;
/// Controls on their way to the driver: few, and each is handled at once.
const CONTROLS_MAX: usize = 16;

/// What a client is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// No session now; requests wait.
    Connecting {
        /// Failed attempts since the last session.
        attempts: u32,
    },
    /// The session is open.
    Open {
        /// The edge's name.
        edge: Arc<str>,
        /// Its address, as configured.
        address: Arc<str>,
        /// Counts this client's connections, from 1.
        connection: u32,
    },
    /// Over for good.
    Closed(CloseReason),
}

/// A message is stored: committed by a quorum and on disk there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// The message's unique value.
    pub id: MessageId,
    /// The channel.
    pub channel: ChannelNumber,
    /// The log's incarnation.
    pub epoch: Epoch,
    /// The message's position.
    pub seq: Seq,
    /// Its time stamp.
    pub ts: Ts,
    /// Whether an earlier attempt had stored it.
    pub repeat: bool,
    /// The key it was sent under.
    pub client_message_id: ClientMessageId,
}

/// A change is stored, and made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Changed {
    /// The position of the change: the version that the message has by it.
    pub position: Position,
    /// Its time stamp.
    pub ts: Ts,
    /// Whether an earlier attempt had stored it.
    pub repeat: bool,
    /// The last change of the message before this one; 0 for none. Somebody else has changed the message in
    /// between if it is above what the caller knew.
    pub before: Seq,
}

/// Keys of a message's expansion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expansion {
    /// The last change of the message; 0 for none.
    pub version: Seq,
    /// Keys and their values, ascending by the keys' bytes.
    pub expansion: Vec<(String, String)>,
    /// Whether there are more behind the last.
    pub more: bool,
}

/// A page of history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The channel.
    pub channel: ChannelNumber,
    /// The log's incarnation.
    pub epoch: Epoch,
    /// The entry before the first of the page.
    pub prev: Seq,
    /// The last entry of the log.
    pub head: Seq,
    /// The entries, ascending.
    pub entries: Vec<Entry>,
}

/// A right was taken away: by a kick or a mute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fenced {
    /// The version of the group that the change made.
    pub version: u64,
    /// Channels in which it does not hold yet, because their shard could not be reached; it will as
    /// soon as it can.
    pub pending: Vec<ChannelId>,
    /// Further such channels that are not named.
    pub more: u32,
}

impl Fenced {
    /// Whether it holds in every channel: no message of the user is stored any more, and after a kick
    /// nothing that is stored from now on reaches the user.
    pub fn is_done(&self) -> bool {
        self.pending.is_empty() && self.more == 0
    }
}

/// A send that an earlier run left without an answer; it is being repeated.
#[derive(Debug)]
pub struct PendingSend {
    /// The group.
    pub group: GroupId,
    /// The channel.
    pub channel: ChannelId,
    /// The message's key.
    pub client_message_id: ClientMessageId,
    pub(crate) answer: oneshot::Receiver<Result<Ack, SendError>>,
}

impl PendingSend {
    /// Waits for the answer.
    pub async fn answer(self) -> Result<Ack, SendError> {
        self.answer.await.unwrap_or_else(|_| Err(RequestError::closed()))
    }
}

/// One user's session. Clones share it; it closes when [`Self::close`] is called or the last clone
/// is dropped.
#[derive(Debug, Clone)]
pub struct Client {
    commands: mpsc::Sender<Command>,
    controls: mpsc::Sender<Control>,
    shared: Arc<Shared>,
    state: watch::Receiver<State>,
}

impl Client {
    /// Connects, and waits until the session is open or cannot be.
    pub async fn connect(config: ClientConfig) -> Result<Self, ConnectError> {
        if config.edges.is_empty() {
            return Err(ConnectError::NoEdge);
        }
        let endpoint = match &config.endpoint {
            Some(endpoint) => endpoint.clone(),
            None => {
                let endpoint = ClientEndpoint::new(&config.trust);
                Arc::new(endpoint.map_err(|error| ConnectError::Socket(error.to_string()))?)
            }
        };
        let timeout = config.connect_timeout;
        let edges = config.edges.join(", ");
        let (commands, command_queue) = mpsc::channel(COMMANDS_MAX);
        let (controls, control_queue) = mpsc::channel(CONTROLS_MAX);
        let (state_in, state) = watch::channel(State::Connecting { attempts: 0 });
        let shared = Arc::new(Shared::default());
        let queues = (commands.clone(), command_queue, control_queue);
        let driver = Driver::new(config, endpoint, queues, shared.clone(), state_in)?;
        tokio::spawn(driver.run());
        let mut client = Self {
            commands,
            controls,
            shared,
            state,
        };
        let opened = client.opened();
        match tokio::time::timeout(timeout, opened).await {
            Ok(Ok(())) => Ok(client),
            Ok(Err(reason)) => Err(ConnectError::Closed(reason)),
            Err(_) => Err(ConnectError::Unreachable {
                edges,
                seconds: timeout.as_secs(),
                last: client.shared.last_failure.lock().clone(),
            }),
        }
    }

    async fn opened(&mut self) -> Result<(), CloseReason> {
        let settled = |state: &State| !matches!(state, State::Connecting { .. });
        match self.state.wait_for(settled).await.as_deref() {
            Ok(State::Closed(reason)) => Err(reason.clone()),
            Ok(_) => Ok(()),
            Err(_) => Err(CloseReason::Local),
        }
    }

    /// Sends a message under a random id.
    pub async fn send(
        &self,
        group: &GroupId,
        channel: &ChannelId,
        body: impl Into<Bytes>,
    ) -> Result<Ack, SendError> {
        let id = ClientMessageId(rand::random());
        self.send_with_id(group, channel, id, body).await
    }

    /// Sends a message under an id of the application's. Sends of one channel are stored in the
    /// order of the calls; the same id and body again give the first answer again. Dropping the
    /// future does not take the message back.
    pub async fn send_with_id(
        &self,
        group: &GroupId,
        channel: &ChannelId,
        client_message_id: ClientMessageId,
        body: impl Into<Bytes>,
    ) -> Result<Ack, SendError> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Send {
            key: (group.clone(), channel.clone()),
            id: client_message_id,
            body: body.into(),
            reply,
        };
        self.ask(command, answer).await
    }

    /// Delivers a channel from a position on. One subscription per channel and client.
    pub async fn subscribe(
        &self,
        group: &GroupId,
        channel: &ChannelId,
        from: From,
    ) -> Result<Subscription, RequestError> {
        let (reply, answer) = oneshot::channel();
        let key = (group.clone(), channel.clone());
        self.ask(Command::Subscribe { key, from, reply }, answer).await
    }

    /// A page of the log from an entry or a time stamp on, which is itself not part of it. `Before` seq
    /// 0 is the end. `limit` 0 leaves the size to the cluster.
    pub async fn history(
        &self,
        group: &GroupId,
        channel: &ChannelId,
        anchor: impl Into<Anchor>,
        direction: Direction,
        limit: u32,
    ) -> Result<Page, RequestError> {
        let key = (group.clone(), channel.clone());
        let request = Request::History(key, anchor.into(), direction, limit);
        page(self.request(request).await?)
    }

    /// The entries behind a position, or with a time stamp later than one: a `Position` or a `Ts`.
    /// `limit` 0 leaves the number to the cluster.
    pub async fn sync(
        &self,
        group: &GroupId,
        channel: &ChannelId,
        from: impl Into<SyncFrom>,
        limit: u32,
    ) -> Result<Page, RequestError> {
        let key = (group.clone(), channel.clone());
        page(self.request(Request::Sync(key, from.into(), limit)).await?)
    }

    /// Changes a message, named by its position, under a random id. Changes and sends of one channel are
    /// stored in the order of the calls. Dropping the future does not take the change back; one without an
    /// answer when the process ends may or may not have been made.
    pub async fn change(
        &self,
        group: &GroupId,
        channel: &ChannelId,
        target: Position,
        change: Change,
    ) -> Result<Changed, RequestError> {
        let id = ClientMessageId(rand::random());
        self.change_with_id(group, channel, id, target, change).await
    }

    /// Changes a message under an id of the application's: the same id and change again give the first
    /// answer again. Ids of changes and of messages are of the same numbers.
    pub async fn change_with_id(
        &self,
        group: &GroupId,
        channel: &ChannelId,
        id: ClientMessageId,
        target: Position,
        change: Change,
    ) -> Result<Changed, RequestError> {
        let key = (group.clone(), channel.clone());
        match self.request(Request::Change(key, id, target, change)).await? {
            Answer::Sent(ack) => Ok(Changed {
                position: Position {
                    epoch: ack.epoch,
                    seq: ack.seq,
                },
                ts: ack.ts,
                repeat: ack.repeat,
                before: ack.before,
            }),
            _ => Err(RequestError::closed()),
        }
    }

    /// Gives a message another body; for its sender, and for whoever may modify messages of others.
    pub async fn modify(
        &self,
        group: &GroupId,
        channel: &ChannelId,
        target: Position,
        body: impl Into<Bytes>,
    ) -> Result<Changed, RequestError> {
        let body = body.into();
        self.change(group, channel, target, Change::Modify { body }).await
    }

    /// Takes a message back: a hole stays in its place. For its sender, and for whoever may recall messages
    /// of others.
    pub async fn recall(
        &self,
        group: &GroupId,
        channel: &ChannelId,
        target: Position,
    ) -> Result<Changed, RequestError> {
        self.change(group, channel, target, Change::Recall).await
    }

    /// Deletes a message for all; for whoever may.
    pub async fn delete(
        &self,
        group: &GroupId,
        channel: &ChannelId,
        target: Position,
    ) -> Result<Changed, RequestError> {
        self.change(group, channel, target, Change::Delete).await
    }

    /// Sets and removes keys of a message's expansion, at most 20; for every member. Of several who write one
    /// key the last in the order of the log wins.
    pub async fn expand(
        &self,
        group: &GroupId,
        channel: &ChannelId,
        target: Position,
        set: Vec<(String, String)>,
        remove: Vec<String>,
    ) -> Result<Changed, RequestError> {
        self.change(group, channel, target, Change::Expand { set, remove })
            .await
    }

    /// The messages from `from` to `to`, at most 300 entries, that were changed behind the entry `since`, as
    /// they are now. A page may end early: ask again behind its last entry until one is empty. The first
    /// page's `head` is what is known then.
    pub async fn changes(
        &self,
        group: &GroupId,
        channel: &ChannelId,
        from: Position,
        to: Seq,
        since: Seq,
    ) -> Result<Page, RequestError> {
        let key = (group.clone(), channel.clone());
        page(self.request(Request::Changes(key, from, to, since)).await?)
    }

    /// The keys of a message's expansion behind one in the order of their bytes; behind the empty one for the
    /// first.
    pub async fn expansion(
        &self,
        group: &GroupId,
        channel: &ChannelId,
        target: Position,
        after: &str,
    ) -> Result<Expansion, RequestError> {
        let key = (group.clone(), channel.clone());
        match self
            .request(Request::Expansion(key, target, after.to_owned()))
            .await?
        {
            Answer::Expansion(found) => Ok(Expansion {
                version: found.version,
                expansion: found.expansion,
                more: found.more,
            }),
            _ => Err(RequestError::closed()),
        }
    }

    /// Ends a user's membership; for members with the permission `kick`. Answers when every channel has it, or
    /// names those that have not after two seconds. Succeeds again until the user comes back.
    pub async fn kick(&self, group: &GroupId, user: &UserId) -> Result<Fenced, RequestError> {
        fenced(self.request(Request::Kick(group.clone(), user.clone())).await?)
    }

    /// Takes a user's right to send away for a while, counted from now by the cluster's clock; for
    /// members with the permission `mute`. The user reads on.
    pub async fn mute(&self, group: &GroupId, user: &UserId, span: Duration) -> Result<Fenced, RequestError> {
        fenced(
            self.request(Request::MuteFor(group.clone(), user.clone(), span))
                .await?,
        )
    }

    /// Takes a user's right to send away until a moment of the cluster's clock, Unix milliseconds; 0
    /// gives it back.
    pub async fn mute_until(
        &self,
        group: &GroupId,
        user: &UserId,
        until_ms: u64,
    ) -> Result<Fenced, RequestError> {
        fenced(
            self.request(Request::Mute(group.clone(), user.clone(), until_ms))
                .await?,
        )
    }

    /// Creates a group, the caller being its first member. Succeeds again for its creator.
    pub async fn create_group(&self, group: &GroupId) -> Result<(), RequestError> {
        self.request(Request::CreateGroup(group.clone())).await.map(drop)
    }

    /// Creates a channel. Succeeds again for a member.
    pub async fn create_channel(&self, group: &GroupId, channel: &ChannelId) -> Result<(), RequestError> {
        let key = (group.clone(), channel.clone());
        self.request(Request::CreateChannel(key)).await.map(drop)
    }

    /// Joins a group. Succeeds again for a member.
    pub async fn join(&self, group: &GroupId) -> Result<(), RequestError> {
        self.request(Request::Join(group.clone())).await.map(drop)
    }

    /// Leaves a group.
    pub async fn leave(&self, group: &GroupId) -> Result<(), RequestError> {
        self.request(Request::Leave(group.clone())).await.map(drop)
    }

    /// The resume vector: per subscription, what the application has consumed.
    pub fn positions(&self) -> Vec<Place> {
        self.shared.positions()
    }

    /// Sends that an earlier run left in the local store. They are repeated whether or not anybody
    /// waits for them; the first call gets them all.
    pub fn take_restored(&self) -> Vec<PendingSend> {
        std::mem::take(&mut self.shared.restored.lock())
    }

    /// What the client is doing, and every change of it.
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// Moves to a new UDP socket, as a phone does that changes networks; the session goes on. All
    /// clients that share the socket move with it.
    pub async fn rebind(&self) -> Result<(), RequestError> {
        let (reply, answer) = oneshot::channel();
        let _ = self.controls.send(Control::Rebind(reply)).await;
        answer.await.unwrap_or_else(|_| Err(RequestError::closed()))
    }

    /// Ends the current connection abruptly; the client reconnects by itself. For faults on purpose.
    /// Tells whether there was a connection, and how many requests were in flight on it.
    pub async fn drop_connection(&self) -> Option<usize> {
        let (reply, answer) = oneshot::channel();
        let _ = self.controls.send(Control::DropConnection(reply)).await;
        answer.await.unwrap_or_default()
    }

    /// Stops the client for a while, as a frozen process would: nothing is read, written or timed.
    /// Returns when it goes on.
    pub async fn pause_reading(&self, duration: Duration) {
        let (reply, answer) = oneshot::channel();
        let _ = self.controls.send(Control::Freeze(duration, reply)).await;
        let _ = answer.await;
    }

    /// Closes the session: requests without an answer fail, subscriptions end, positions are saved.
    /// Returns when the edge has been told.
    pub async fn close(&self) {
        let (reply, answer) = oneshot::channel();
        if self.controls.send(Control::Close(reply)).await.is_ok() {
            let _ = answer.await;
        }
    }

    async fn request(&self, request: Request) -> Result<Answer, RequestError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Command::Request { request, reply }, answer).await
    }

    async fn ask<T>(
        &self,
        command: Command,
        answer: oneshot::Receiver<Result<T, RequestError>>,
    ) -> Result<T, RequestError> {
        if self.commands.send(command).await.is_err() {
            return Err(RequestError::closed());
        }
        answer.await.unwrap_or_else(|_| Err(RequestError::closed()))
    }
}

fn page(answer: Answer) -> Result<Page, RequestError> {
    match answer {
        Answer::Page(page) => Ok(Page {
            channel: page.channel,
            epoch: page.epoch,
            prev: page.prev,
            head: page.head,
            entries: page.entries,
        }),
        _ => Err(RequestError::closed()),
    }
}

fn fenced(answer: Answer) -> Result<Fenced, RequestError> {
    match answer {
        Answer::Fenced(message::Fenced {
            version,
            pending,
            more,
            ..
        }) => Ok(Fenced {
            version,
            pending,
            more,
        }),
        _ => Err(RequestError::closed()),
    }
}
