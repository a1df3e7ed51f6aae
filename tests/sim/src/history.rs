//! What was seen in a run: an append-only list of events with simulated times.
//!
//! The drivers of hosts write it, the invariants read it once the run is over. It knows no protocol
//! and no clock: whoever writes says when. Clients are seen at the boundary of the SDK, core nodes
//! through what they tell observers, the world through the faults it causes. Its hash is the trace
//! of a seed: two runs of a seed have the same one.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};

use throng_protocol::ids::{ClientMessageId, Epoch, Position, Seq, ShardId, Ts};

use crate::changes::{Changing, Shown};

macro_rules! index {
    ($(#[$doc:meta])* $name:ident, $letter:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u8);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($letter, "{}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

index!(
    /// A chat group of the world.
    Group,
    "g"
);
index!(
    /// A channel of the world.
    Channel,
    "c"
);
index!(
    /// A user of the world, who has one client or two.
    User,
    "u"
);
index!(
    /// A client: one device of a user. A client that is started anew keeps its number.
    Client,
    "d"
);

/// An operation of the workload, numbered over all clients.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Op(pub u32);

/// A subscription, numbered over all clients. It lasts over the reconnects of its client.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Sub(pub u32);

/// Where something happened.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Host {
    /// Around all hosts: the network, the phases.
    World,
    /// A core node, by its node id.
    Core(u8),
    /// An edge, by its id.
    Edge(u8),
    /// A client.
    Client(Client),
}

/// The hash of a body: what an invariant compares instead of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BodyHash(pub u64);

impl BodyHash {
    /// The hash of `body`.
    #[must_use]
    pub fn of(body: &[u8]) -> Self {
        let mut hasher = StableHasher::default();
        hasher.write(body);
        Self(hasher.finish())
    }
}

impl fmt::Debug for BodyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// An entry of a channel's log as somebody saw it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Seen {
    /// Its position.
    pub seq: Seq,
    /// Its time stamp.
    pub ts: Ts,
    /// Who sent it.
    pub sender: User,
    /// The sender's key.
    pub key: ClientMessageId,
    /// Its body.
    pub hash: BodyHash,
}

/// Where a subscription or a page begins.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum From {
    /// Behind the last entry.
    Head,
    /// Before the first entry.
    Start,
    /// Behind a position held.
    Position(Position),
    /// Behind the last entry with at most this time stamp.
    Ts(Ts),
    /// Behind what the client's store holds.
    Stored,
}

/// The anchor of a page.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Anchor {
    /// An entry's position.
    Seq(Seq),
    /// A time stamp.
    Ts(Ts),
}

/// Which way a page goes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Direction {
    /// Behind the anchor.
    After,
    /// Before it.
    Before,
}

/// Why deliveries begin where they do; `Subscribed.start` of the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Start {
    /// Behind the position asked for.
    Resumed,
    /// At the head, as asked.
    Head,
    /// At the head: the position was of another epoch.
    FullEpoch,
    /// At the head: the position was beyond what the edge knew.
    FullAhead,
    /// At the head: the user was out of the group in between.
    FullFence,
}

/// What a fence is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum FenceKind {
    /// The user was removed.
    Kick,
    /// The user left.
    Left,
    /// The user may not send for a while.
    Mute,
    /// The user lost a role.
    Rights,
}

/// A phase of a run.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Phase {
    /// Faults happen.
    Safety,
    /// No faults any more: everything must converge.
    Liveness,
    /// Everything has converged, or the time is up.
    Scan,
}

/// What a client asked for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Ask {
    /// To store a message.
    Send {
        /// Where.
        channel: Channel,
        /// Under which key.
        key: ClientMessageId,
        /// What.
        hash: BodyHash,
    },
    /// To change a message.
    Change {
        /// Where.
        channel: Channel,
        /// Under which key.
        key: ClientMessageId,
        /// What.
        change: Changing,
    },
    /// To remove a member.
    Kick {
        /// From where.
        group: Group,
        /// Whom.
        user: User,
    },
    /// To silence a member, or with 0 to end that.
    Mute {
        /// Where.
        group: Group,
        /// Whom.
        user: User,
        /// Until when, by the log's time.
        until_ms: u64,
    },
    /// To give a member the role, or to take it; for the app's back end.
    Assign {
        /// Where.
        group: Group,
        /// Whom.
        user: User,
        /// Whether to have it.
        has: bool,
    },
    /// To let a group's role do what it is for, or nothing; for the app's back end.
    Permit {
        /// Where.
        group: Group,
        /// Whether it lets do anything.
        may: bool,
    },
    /// To become a member.
    Join {
        /// Where.
        group: Group,
    },
    /// To be none any more.
    Leave {
        /// Where.
        group: Group,
    },
    /// To be given a channel's entries.
    Subscribe {
        /// The subscription, if it comes about.
        sub: Sub,
        /// Which channel.
        channel: Channel,
        /// From where on.
        from: From,
    },
    /// For a page of a channel's log.
    Page {
        /// Which channel.
        channel: Channel,
        /// From where.
        anchor: Anchor,
        /// Which way.
        direction: Direction,
        /// At most how many entries; 0 leaves it to the edge.
        limit: u32,
    },
}

/// A page as a client got it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Page {
    /// The log's incarnation.
    pub epoch: Epoch,
    /// The entry before the first.
    pub prev: Seq,
    /// The last entry of the log.
    pub head: Seq,
    /// The entries.
    pub entries: Vec<Seen>,
    /// How each of them is shown.
    pub shown: Vec<Shown>,
}

/// The answer to what a client asked for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Answer {
    /// To a send or a change: it is stored.
    Acked {
        /// The log's incarnation.
        epoch: Epoch,
        /// Its position.
        seq: Seq,
        /// Its time stamp.
        ts: Ts,
        /// Whether an earlier attempt had stored it.
        repeat: bool,
    },
    /// To a kick, a mute or a change of roles.
    Fenced {
        /// The version of the group's management state it made.
        version: u64,
        /// The channels whose shard does not have it yet; none: done.
        pending: Vec<Channel>,
        /// How many more than named.
        more: u32,
    },
    /// To a join or a leave.
    Done,
    /// To a subscribe.
    Subscribed {
        /// Why there.
        start: Start,
        /// Entries behind this position come.
        at: Position,
        /// The last entry of the log as the edge knew it.
        head: Seq,
    },
    /// To a page.
    Page(Page),
    /// To anything: no.
    Refused {
        /// The protocol's code; 0 where the client gave up by itself.
        code: u16,
        /// Whether it may have been carried out all the same.
        unknown: bool,
    },
}

/// What happened.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum What {
    /// The run entered a phase.
    Phase(Phase),
    /// A client asked for something.
    Asked(Op, Ask),
    /// A client has its answer.
    Answered(Op, Answer),
    /// An entry was handed to the application.
    Delivered {
        /// For which subscription.
        sub: Sub,
        /// The log's incarnation.
        epoch: Epoch,
        /// The entry before it, for this subscriber.
        prev: Seq,
        /// The entry.
        entry: Seen,
        /// How it is shown.
        shown: Shown,
        /// Over which edge.
        edge: u8,
        /// Over which connection of the client, from 1.
        connection: u32,
    },
    /// What a subscription held is void, or could not be continued; it goes on behind another position.
    Reset {
        /// Which subscription.
        sub: Sub,
        /// What it had.
        from: Position,
        /// Behind what it goes on.
        to: Position,
    },
    /// The cluster ended a subscription.
    Ended {
        /// Which.
        sub: Sub,
        /// Why.
        code: u16,
    },
    /// The application gave a subscription up, or its client was stopped.
    Dropped {
        /// Which.
        sub: Sub,
    },
    /// A client has a session.
    Connected {
        /// At which edge.
        edge: u8,
        /// Which of its connections, from 1.
        connection: u32,
    },
    /// A client's connection was ended on purpose.
    DroppedConnection,
    /// A client, or a process, stands still.
    Frozen {
        /// For how long.
        ms: u64,
    },
    /// A process was killed.
    Crash,
    /// A process was started.
    Restart,
    /// A process was stopped as planned.
    Stopped,
    /// Packets of one host reach another no more.
    Cut {
        /// From where.
        from: Host,
        /// To where.
        to: Host,
    },
    /// One or both directions between hosts of two sides are cut.
    Partition {
        /// Hosts of the smaller side, as bits in the order of the world's hosts.
        side: u32,
        /// Whether packets from the other side still arrive.
        one_way: bool,
    },
    /// All cuts are over.
    Heal,
    /// A node leads a shard.
    LeaderChanged {
        /// Which shard.
        shard: ShardId,
        /// Since which term.
        term: u64,
        /// Which node.
        node: u8,
    },
    /// A replica has purged its log up to an entry which its snapshot covers.
    Purged {
        /// Which shard.
        shard: ShardId,
        /// Up to where.
        index: u64,
    },
    /// A replica has taken a snapshot of another in place of its state.
    Installed {
        /// Which shard.
        shard: ShardId,
        /// As of which entry.
        index: u64,
    },
    /// A host's wall clock jumped.
    Clock {
        /// How far, in milliseconds.
        jump_ms: i64,
    },
    /// A disk is full, or not any more.
    DiskFull(bool),
    /// A disk takes this long for a sync.
    DiskSlow {
        /// Milliseconds.
        ms: u64,
    },
}

/// An event.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Event {
    /// When, in microseconds of simulated time.
    pub at_us: u64,
    /// Where.
    pub host: Host,
    /// What.
    pub what: What,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, micros) = (self.at_us / 1_000_000, self.at_us % 1_000_000);
        write!(f, "{seconds:>4}.{micros:06} {:?} {:?}", self.host, self.what)
    }
}

/// Everything that happened, in order.
#[derive(Clone, Default, Debug)]
pub struct History {
    events: Vec<Event>,
}

impl History {
    /// Appends an event. Time never goes back.
    pub fn push(&mut self, at_us: u64, host: Host, what: What) {
        debug_assert!(self.events.last().is_none_or(|last| last.at_us <= at_us));
        self.events.push(Event { at_us, host, what });
    }

    /// The events, in order.
    #[must_use]
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// Lets every entry that was seen be named anew, with its channel.
    pub(crate) fn name(&mut self, name: impl Fn(Channel, &mut Seen)) {
        let mut channels: BTreeMap<Sub, Channel> = BTreeMap::new();
        let mut pages: BTreeMap<Op, Channel> = BTreeMap::new();
        for event in &mut self.events {
            match &mut event.what {
                What::Asked(_, Ask::Subscribe { sub, channel, .. }) => {
                    channels.insert(*sub, *channel);
                }
                What::Asked(op, Ask::Page { channel, .. }) => {
                    pages.insert(*op, *channel);
                }
                What::Answered(op, Answer::Page(page)) => {
                    if let Some(channel) = pages.get(op) {
                        page.entries.iter_mut().for_each(|seen| name(*channel, seen));
                    }
                }
                What::Delivered { sub, entry, .. } => {
                    if let Some(channel) = channels.get(sub) {
                        name(*channel, entry);
                    }
                }
                _ => {}
            }
        }
    }

    /// The trace of the run: equal for equal histories on every run of a build.
    #[must_use]
    pub fn trace_hash(&self) -> u64 {
        let mut hasher = StableHasher::default();
        self.events.hash(&mut hasher);
        hasher.finish()
    }
}

/// FNV-1a over 64 bits, finished by a mixing step: the same for the same bytes on every run, which
/// the hasher of the standard library is only while its keys are.
#[derive(Clone, Debug)]
pub struct StableHasher(u64);

impl Default for StableHasher {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for StableHasher {
    fn finish(&self) -> u64 {
        let mixed = (self.0 ^ (self.0 >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ (mixed >> 29)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(second: What) -> History {
        let mut history = History::default();
        history.push(5, Host::Core(1), What::Crash);
        history.push(6, Host::Client(Client(2)), second);
        history
    }

    #[test]
    fn the_trace_of_equal_histories_is_equal_and_tells_any_change() {
        let sub = Sub(1);
        let trace = history(What::Dropped { sub }).trace_hash();
        assert_eq!(history(What::Dropped { sub }).trace_hash(), trace);
        assert_ne!(history(What::Dropped { sub: Sub(2) }).trace_hash(), trace);
        assert_ne!(history(What::Ended { sub, code: 302 }).trace_hash(), trace);
        let mut later = History::default();
        later.push(5, Host::Core(1), What::Crash);
        later.push(7, Host::Client(Client(2)), What::Dropped { sub });
        assert_ne!(later.trace_hash(), trace);
    }

    #[test]
    fn the_hash_of_a_body_is_the_same_in_every_build() {
        assert_eq!(BodyHash::of(b"hello"), BodyHash::of(b"hello"));
        assert_ne!(BodyHash::of(b"hello"), BodyHash::of(b"hellp"));
        assert_ne!(BodyHash::of(b""), BodyHash::of(b"\0"));
    }
}
