//! What the cluster behind the edge holds, and the messages it answers with.

use bytes::Bytes;
use throng_protocol::ids::{
    ChannelId, ChannelNumber, ClientMessageId, DeviceId, Epoch, GroupId, Position, Seq, SessionId, Ts,
    UserId, UserNumber,
};
use throng_protocol::limits::REQUESTS_IN_FLIGHT_MAX;
use throng_protocol::message::{Ack, Deliver, Entry, Page, Start, Subscribed, Welcome};

/// Channels of the one group.
pub const CHANNELS: usize = 3;
/// No log is ever rebuilt here.
pub const EPOCH: Epoch = Epoch(1);
/// Longest log that grows by itself, so that every input ends soon.
const LOG_MAX: usize = 2_000;

/// The logs: who wrote what, by client message id; 0 is somebody else.
#[derive(Debug, Default)]
pub struct Cluster {
    pub logs: [Vec<u64>; CHANNELS],
}

impl Cluster {
    pub fn head(&self, channel: usize) -> u64 {
        self.logs[channel].len() as u64
    }

    pub fn append_others(&mut self, channel: usize) {
        if self.logs[channel].len() < LOG_MAX {
            self.logs[channel].push(0);
        }
    }

    /// Stores a message once; returns its seq and whether it was there.
    pub fn store(&mut self, channel: usize, id: u64) -> (u64, bool) {
        let log = &mut self.logs[channel];
        let known = log.iter().position(|other| *other == id);
        let place = known.unwrap_or_else(|| {
            log.push(id);
            log.len() - 1
        });
        (place as u64 + 1, known.is_some())
    }

    pub fn entries(&self, channel: usize, after: u64, count: usize) -> Vec<Entry> {
        let from = usize::try_from(after).unwrap_or(usize::MAX);
        let rest = self.logs[channel].iter().enumerate().skip(from).take(count);
        rest.map(|(place, id)| entry(place as u64 + 1, *id)).collect()
    }

    pub fn before(&self, channel: usize, anchor: u64, count: usize) -> Vec<Entry> {
        let end = match anchor {
            0 => self.head(channel),
            anchor => self.head(channel).min(anchor - 1),
        };
        let from = end.saturating_sub(count as u64);
        self.entries(channel, from, usize::try_from(end - from).unwrap_or(0))
    }

    pub fn page(&self, request: u64, channel: usize, anchor: u64, entries: Vec<Entry>) -> Page {
        Page {
            request,
            channel: number(channel),
            epoch: EPOCH,
            prev: entries.first().map_or(Seq(anchor), |first| Seq(first.seq.0 - 1)),
            head: Seq(self.head(channel)),
            entries,
        }
    }

    /// Where a subscription begins that asks for a position.
    pub fn begin(&self, channel: usize, position: Position) -> (u64, Start) {
        let head = self.head(channel);
        match position {
            Position { epoch: Epoch(0), .. } => (head, Start::Head),
            Position { epoch, .. } if epoch != EPOCH => (head, Start::FullEpoch),
            Position { seq, .. } if seq.0 > head => (head, Start::FullAhead),
            Position { seq, .. } => (seq.0, Start::Resumed),
        }
    }
}

fn entry(seq: u64, id: u64) -> Entry {
    Entry {
        seq: Seq(seq),
        ts: Ts(seq),
        kind: 1,
        sender: UserId::new("bob").unwrap(),
        sender_number: UserNumber(2),
        client_message_id: ClientMessageId(id),
        body: Bytes::from_static(b"hi"),
        target: Seq(0),
        version: Seq(0),
        hole: 0,
        expansion: Vec::new(),
        removed: Vec::new(),
        keys_elsewhere: false,
    }
}

pub fn ack(request: u64, channel: usize, seq: u64, repeat: bool) -> Ack {
    Ack {
        request,
        channel: number(channel),
        epoch: EPOCH,
        seq: Seq(seq),
        ts: Ts(seq),
        repeat,
        before: Seq(0),
    }
}

pub fn subscribed(request: u64, channel: usize, (seq, start): (u64, Start), head: u64) -> Subscribed {
    Subscribed {
        request,
        group: group(),
        channel_name: name(channel),
        channel: number(channel),
        position: at(seq),
        head: Seq(head),
        start,
        ts: Ts(seq),
    }
}

pub fn deliver(channel: usize, prev: u64, entries: Vec<Entry>) -> Deliver {
    Deliver {
        channel: number(channel),
        epoch: EPOCH,
        prev: Seq(prev),
        entries,
    }
}

pub fn welcome(now_ms: u64) -> Welcome {
    Welcome {
        session: SessionId(1),
        user: UserId::new("ann").unwrap(),
        user_number: UserNumber(1),
        server_time_ms: now_ms,
        token_expires_ms: now_ms + 600_000,
        idempotency_window_ms: 1_000_000,
        ping_interval_ms: 25_000,
        body_bytes_max: 131_072,
        requests_in_flight_max: REQUESTS_IN_FLIGHT_MAX as u32,
        subscriptions_max: 1_000,
    }
}

pub fn at(seq: u64) -> Position {
    Position {
        epoch: EPOCH,
        seq: Seq(seq),
    }
}

pub fn group() -> GroupId {
    GroupId::new("group").unwrap()
}

pub fn device() -> DeviceId {
    DeviceId::new("device").unwrap()
}

pub fn name(channel: usize) -> ChannelId {
    ChannelId::new(&channel.to_string()).unwrap()
}

/// The channel of a name, if it is one of ours.
pub fn of_name(name: &ChannelId) -> Option<usize> {
    name.as_str().parse().ok().filter(|channel| *channel < CHANNELS)
}

pub fn number(channel: usize) -> ChannelNumber {
    ChannelNumber(channel as u64)
}

/// The channel of a number, if it is one of ours.
pub fn of_number(number: ChannelNumber) -> Option<usize> {
    usize::try_from(number.0)
        .ok()
        .filter(|channel| *channel < CHANNELS)
}
