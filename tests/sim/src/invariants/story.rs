//! Histories for the tests of invariants, told in few words.
//!
//! Entry `n` of a channel has the seq, and by default the key, `n`; its time stamp and Raft index
//! follow from it. Times count up by themselves.

use throng_protocol::ids::{ClientMessageId, Epoch, Position, Seq, ShardId, Ts};

use crate::changes::{Changing, Deed, Message, Shown};
use crate::history::{
    Anchor, Answer, Ask, BodyHash, Channel, Client, Direction, FenceKind, From, Group, History, Host, Op,
    Page, Phase, Seen, Start, Sub, User, What,
};
use crate::invariants::{Invariant, Violation};
use crate::logs::{ChannelLog, Fence, FinalLogs, GroupFences, Replica, Stored};
use crate::run::Run;
use crate::world;

pub(super) const C0: Channel = Channel(0);
/// The creator's client, and the two of user 1.
pub(super) const D0: Client = Client(0);
pub(super) const D1: Client = Client(1);
pub(super) const D2: Client = Client(2);
pub(super) const EPOCH: Epoch = Epoch(1);
pub(super) const UNAVAILABLE: u16 = 500;
pub(super) const NOT_MEMBER: u16 = 302;

/// A run as it is being told.
pub(super) struct Story {
    pub history: History,
    pub logs: FinalLogs,
    at_us: u64,
    ops: u32,
}

/// How a message is shown that was never changed; what it says is not judged.
pub(super) const MESSAGE: Shown = Shown {
    kind: 1,
    target: Seq(0),
    version: Seq(0),
    hole: 0,
    content: BodyHash(0),
};

/// The message at `seq`, sent by `user` under the key `seq`, as bodies of the workload have it.
pub(super) fn spoken(user: User, seq: u64) -> (Seen, Shown) {
    let first = crate::workload::body(ClientMessageId(seq), 0);
    let hash = BodyHash::of(&first);
    let shown = Message::new(first).shown();
    (
        Seen {
            hash,
            ..seen(user, seq)
        },
        shown,
    )
}

/// The entry `seq` as sent by `user` under the key `seq`.
pub(super) fn seen(user: User, seq: u64) -> Seen {
    keyed(user, seq, seq)
}

/// The entry `seq` as sent by `user` under `key`.
pub(super) fn keyed(user: User, seq: u64, key: u64) -> Seen {
    Seen {
        seq: Seq(seq),
        ts: Ts::from_millis(1_000 + 10 * seq),
        sender: user,
        key: ClientMessageId(key),
        hash: BodyHash(key),
    }
}

pub(super) fn position(seq: u64) -> Position {
    Position {
        epoch: EPOCH,
        seq: Seq(seq),
    }
}

impl Story {
    /// Three replicas of one shard, every channel with an empty log.
    pub fn new() -> Self {
        let replica = |node| Replica {
            node,
            shard: ShardId(100),
            applied: 1_000,
            records: 7,
            channels: world::channels()
                .map(|channel| ChannelLog {
                    channel,
                    epoch: EPOCH,
                    head: Seq(0),
                    last_ts: Ts(0),
                    entries: Vec::new(),
                })
                .collect(),
            fences: world::groups()
                .map(|group| GroupFences {
                    group,
                    floor: 0,
                    last: 0,
                    fences: Vec::new(),
                })
                .collect(),
        };
        Self {
            history: History::default(),
            logs: FinalLogs {
                replicas: (1..=3).map(replica).collect(),
                dumps: Vec::new(),
            },
            at_us: 0,
            ops: 0,
        }
    }

    pub fn event(&mut self, host: Host, what: What) {
        self.at_us += 1_000;
        self.history.push(self.at_us, host, what);
    }

    pub fn ask(&mut self, client: Client, ask: Ask) -> Op {
        self.ops += 1;
        let op = Op(self.ops);
        self.event(Host::Client(client), What::Asked(op, ask));
        op
    }

    pub fn answer(&mut self, client: Client, op: Op, answer: Answer) {
        self.event(Host::Client(client), What::Answered(op, answer));
    }

    pub fn send(&mut self, client: Client, key: u64) -> Op {
        self.send_body(client, key, key)
    }

    pub fn send_body(&mut self, client: Client, key: u64, body: u64) -> Op {
        let ask = Ask::Send {
            channel: C0,
            key: ClientMessageId(key),
            hash: BodyHash(body),
        };
        self.ask(client, ask)
    }

    pub fn acked(&mut self, client: Client, op: Op, seq: u64, repeat: bool) {
        let answer = Answer::Acked {
            epoch: EPOCH,
            seq: Seq(seq),
            ts: seen(client.user(), seq).ts,
            repeat,
        };
        self.answer(client, op, answer);
    }

    /// A send under the key `seq` that is acked as entry `seq`.
    pub fn sent(&mut self, client: Client, seq: u64) {
        let op = self.send(client, seq);
        self.acked(client, op, seq, false);
    }

    /// A change of the message that `owner` sent as entry `target`, under the key `seq`, acked as entry `seq`.
    pub fn changed(
        &mut self,
        client: Client,
        seq: u64,
        (owner, target): (User, u64),
        deed: Deed,
    ) -> Changing {
        let (message, _) = spoken(owner, target);
        let change = Changing {
            target: position(target),
            owner,
            key: message.key,
            hash: message.hash,
            deed,
        };
        let (channel, key) = (C0, ClientMessageId(seq));
        let op = self.ask(client, Ask::Change { channel, key, change });
        self.acked(client, op, seq, false);
        change
    }

    /// Every replica's log of the channel has these entries.
    pub fn stored(&mut self, entries: &[(Seen, Shown)]) {
        for replica in &mut self.logs.replicas {
            let log = &mut replica.channels[usize::from(C0.0)];
            log.entries.extend(entries.iter().map(|(seen, shown)| Stored {
                seen: *seen,
                shown: *shown,
                index: 10 * seen.seq.0,
            }));
        }
    }

    /// A page that holds these entries.
    pub fn paged(&mut self, client: Client, entries: &[(Seen, Shown)]) {
        let (anchor, direction, limit) = (Anchor::Seq(Seq(0)), Direction::After, 0);
        let ask = Ask::Page {
            channel: C0,
            anchor,
            direction,
            limit,
        };
        let op = self.ask(client, ask);
        let (entries, shown) = entries.iter().copied().unzip();
        let page = Page {
            epoch: EPOCH,
            prev: Seq(0),
            head: Seq(99),
            entries,
            shown,
        };
        self.answer(client, op, Answer::Page(page));
    }

    pub fn refused(&mut self, client: Client, op: Op, code: u16, unknown: bool) {
        self.answer(client, op, Answer::Refused { code, unknown });
    }

    pub fn join(&mut self, client: Client) {
        let op = self.ask(client, Ask::Join { group: Group(0) });
        self.answer(client, op, Answer::Done);
    }

    pub fn leave(&mut self, client: Client) {
        let op = self.ask(client, Ask::Leave { group: Group(0) });
        self.answer(client, op, Answer::Done);
    }

    /// The creator kicks `user`, and is told that it is done.
    pub fn kicked(&mut self, user: User, version: u64) {
        let op = self.ask(
            D0,
            Ask::Kick {
                group: Group(0),
                user,
            },
        );
        self.fenced(op, version);
    }

    pub fn muted(&mut self, user: User, until_ms: u64, version: u64) {
        let ask = Ask::Mute {
            group: Group(0),
            user,
            until_ms,
        };
        let op = self.ask(D0, ask);
        self.fenced(op, version);
    }

    /// The back end changes roles, and is told that it is done.
    pub fn governed(&mut self, ask: Ask) {
        let op = self.ask(D0, ask);
        self.fenced(op, 1);
    }

    fn fenced(&mut self, op: Op, version: u64) {
        let answer = Answer::Fenced {
            version,
            pending: Vec::new(),
            more: 0,
        };
        self.answer(D0, op, answer);
    }

    pub fn subscribed(&mut self, client: Client, sub: u32, from: From, (start, at): (Start, u64)) {
        let sub = Sub(sub);
        let ask = Ask::Subscribe {
            sub,
            channel: C0,
            from,
        };
        let op = self.ask(client, ask);
        let answer = Answer::Subscribed {
            start,
            at: position(at),
            head: Seq(at),
        };
        self.answer(client, op, answer);
    }

    pub fn delivered(&mut self, client: Client, sub: u32, prev: u64, entry: Seen) {
        let what = What::Delivered {
            sub: Sub(sub),
            epoch: EPOCH,
            prev: Seq(prev),
            entry,
            shown: MESSAGE,
            edge: 1,
            connection: 1,
        };
        self.event(Host::Client(client), what);
    }

    pub fn page(
        &mut self,
        client: Client,
        (anchor, direction): (Anchor, Direction),
        page: (u64, u64, &[Seen]),
    ) {
        let ask = Ask::Page {
            channel: C0,
            anchor,
            direction,
            limit: 0,
        };
        let op = self.ask(client, ask);
        let (prev, head, entries) = page;
        let page = Page {
            epoch: EPOCH,
            prev: Seq(prev),
            head: Seq(head),
            entries: entries.to_vec(),
            shown: vec![MESSAGE; entries.len()],
        };
        self.answer(client, op, Answer::Page(page));
    }

    /// Puts entries into every replica's log of the first channel; entry `n` at Raft index `10 n`.
    pub fn logged(&mut self, entries: &[Seen]) {
        for replica in &mut self.logs.replicas {
            let log = &mut replica.channels[0];
            log.entries.extend(entries.iter().map(|seen| Stored {
                seen: *seen,
                shown: MESSAGE,
                index: 10 * seen.seq.0,
            }));
            if let Some(last) = log.entries.last() {
                (log.head, log.last_ts) = (last.seen.seq, last.seen.ts);
            }
        }
    }

    /// Puts a fence into every replica's table, behind entry `place`.
    pub fn fence(&mut self, user: User, kind: FenceKind, version: u64, place: u64) {
        for replica in &mut self.logs.replicas {
            let fences = &mut replica.fences[0];
            fences.last = fences.last.max(version);
            fences.fences.push(Fence {
                version,
                user,
                kind,
                index: 10 * place + 5,
            });
        }
    }

    pub fn liveness(&mut self) {
        self.event(Host::World, What::Phase(Phase::Liveness));
    }

    pub fn run(self) -> Run {
        Run::new(self.history, self.logs)
    }

    /// What `invariant` says of the story.
    pub fn judged(self, invariant: Invariant) -> Result<(), Violation> {
        (invariant.check)(&self.run())
    }
}

/// A short run with a bit of everything, in which all goes well.
pub(super) fn good() -> Story {
    let mut story = Story::new();
    story.join(D1);
    for client in world::clients() {
        for channel in world::channels() {
            let sub = Sub(100 + 10 * u32::from(client.0) + u32::from(channel.0));
            if channel == C0 {
                story.subscribed(client, sub.0, From::Head, (Start::Head, 0));
                continue;
            }
            let from = From::Head;
            let op = story.ask(client, Ask::Subscribe { sub, channel, from });
            let (start, at, head) = (Start::Head, position(0), Seq(0));
            story.answer(client, op, Answer::Subscribed { start, at, head });
        }
    }
    let (first, second, third) = (seen(User(1), 1), seen(User(0), 2), seen(User(1), 3));
    story.sent(D1, 1);
    let again = story.send(D2, 1);
    story.acked(D2, again, 1, true);
    story.sent(D0, 2);
    story.page(D2, (Anchor::Seq(Seq(1)), Direction::After), (1, 2, &[second]));
    story.page(D2, (Anchor::Ts(second.ts), Direction::Before), (0, 2, &[first]));
    story.logged(&[first, second, third]);
    story.sent(D1, 3);
    for client in world::clients() {
        let sub = 100 + 10 * u32::from(client.0);
        for (prev, entry) in (0..).zip([first, second, third]) {
            story.delivered(client, sub, prev, entry);
        }
    }
    story.muted(User(3), 0, 9);
    story.liveness();
    story
}
