//! A server in memory: one log per channel, any number of edges in front of it, and faults on
//! demand. Speaks the protocol over the real transport.

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use throng_protocol::code::{CLOSE_NORMAL, Code};
use throng_protocol::ids::*;
use throng_protocol::message::*;
use throng_protocol::session::STREAM_LIVE;
use throng_transport::dev_ca::DevCa;
use throng_transport::{FrameReader, FrameWriter, Limits, Link, ServerEndpoint, ServerTls, Trust};
use tokio::sync::watch;

pub const TOKEN: &str = "good";
const EPOCH: Epoch = Epoch(1);

#[derive(Default)]
struct Logs {
    numbers: BTreeMap<(GroupId, ChannelId), ChannelNumber>,
    logs: BTreeMap<ChannelNumber, Vec<Entry>>,
    sends: HashMap<(ChannelNumber, ClientMessageId), Seq>,
}

pub struct World {
    logs: Mutex<Logs>,
    changed: watch::Sender<u64>,
    /// The next so many sends are stored, and their connection ends before the ack.
    pub lose_acks: AtomicU32,
    /// The next so many sends are refused as unavailable, not stored.
    pub refuse_sends: AtomicU32,
    /// Entries handed to the transport.
    pub written: AtomicU64,
    /// Every send that came, with its first attempt.
    pub attempts: Mutex<Vec<(ClientMessageId, u64)>>,
    /// Whether the user is out of all groups: what lies behind the entries there were is not for them.
    kicked: watch::Sender<Option<BTreeMap<ChannelNumber, Seq>>>,
    /// Rights taken away by the client: whose, and until when for a mute.
    pub taken: Mutex<Vec<(UserId, Option<u64>)>>,
    /// Channels named as pending.
    pub pending: Mutex<Vec<ChannelId>>,
    drain: watch::Sender<Option<(String, Vec<String>)>>,
    folder: tempfile::TempDir,
}

impl World {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            logs: Mutex::default(),
            changed: watch::Sender::new(0),
            lose_acks: AtomicU32::new(0),
            refuse_sends: AtomicU32::new(0),
            written: AtomicU64::new(0),
            attempts: Mutex::default(),
            kicked: watch::Sender::new(None),
            taken: Mutex::default(),
            pending: Mutex::default(),
            drain: watch::Sender::new(None),
            folder: tempfile::tempdir().unwrap(),
        })
    }

    pub fn trust(&self) -> Trust {
        Trust::ca_file(&DevCa::open(self.folder.path()).unwrap().ca_file()).unwrap()
    }

    /// Starts an edge; gives its address.
    pub fn edge(self: &Arc<Self>, name: &str) -> String {
        let names = ["localhost".to_owned()];
        let files = DevCa::open(self.folder.path())
            .unwrap()
            .server(name, &names)
            .unwrap();
        let tls = ServerTls::load(&files.cert, &files.key).unwrap();
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let endpoint = ServerEndpoint::bind(addr, &tls, Limits::default()).unwrap();
        let port = endpoint.local_addr().unwrap().port();
        let (world, name) = (self.clone(), name.to_owned());
        tokio::spawn(async move {
            while let Some(handshake) = endpoint.accept().await {
                let (world, name) = (world.clone(), name.clone());
                tokio::spawn(async move {
                    if let Ok(link) = handshake.finish(Duration::from_secs(5)).await {
                        Connection::run(world, name, link).await;
                    }
                });
            }
        });
        format!("127.0.0.1:{port}")
    }

    /// Ends the user's memberships.
    pub fn kick(&self) {
        let logs = self.logs.lock().unwrap();
        let heads = logs
            .logs
            .iter()
            .map(|(number, log)| (*number, Seq(log.len() as u64)));
        let places = heads.collect();
        drop(logs);
        self.kicked.send_replace(Some(places));
        self.changed.send_modify(|version| *version += 1);
    }

    fn is_out(&self) -> bool {
        self.kicked.borrow().is_some()
    }

    fn cap(&self, number: ChannelNumber) -> Option<Seq> {
        let kicked = self.kicked.borrow();
        kicked
            .as_ref()
            .map(|places| places.get(&number).copied().unwrap_or_default())
    }

    /// The last entry with this time stamp or an earlier one: stamps are seqs here.
    fn by_ts(&self, number: ChannelNumber, ts: Ts) -> Seq {
        Seq(ts.0.min(self.head(number).0))
    }

    /// Tells the clients of an edge to leave.
    pub fn drain(&self, edge: &str, alternatives: Vec<String>) {
        self.drain.send_replace(Some((edge.to_owned(), alternatives)));
    }

    /// Appends entries of somebody else.
    pub fn append(&self, group: &GroupId, channel: &ChannelId, count: usize, bytes: usize) {
        let number = self.number(group, channel);
        for _ in 0..count {
            self.store(
                number,
                "somebody",
                ClientMessageId(0),
                Bytes::from(vec![7; bytes]),
            );
        }
        self.changed.send_modify(|version| *version += 1);
    }

    pub fn log(&self, group: &GroupId, channel: &ChannelId) -> Vec<Entry> {
        let number = self.number(group, channel);
        self.logs.lock().unwrap().logs[&number].clone()
    }

    fn number(&self, group: &GroupId, channel: &ChannelId) -> ChannelNumber {
        let mut logs = self.logs.lock().unwrap();
        let next = ChannelNumber(logs.numbers.len() as u64 + 1);
        let number = *logs
            .numbers
            .entry((group.clone(), channel.clone()))
            .or_insert(next);
        logs.logs.entry(number).or_default();
        number
    }

    fn store(&self, number: ChannelNumber, sender: &str, id: ClientMessageId, body: Bytes) -> Seq {
        let mut logs = self.logs.lock().unwrap();
        let log = logs.logs.get_mut(&number).unwrap();
        let seq = Seq(log.len() as u64 + 1);
        log.push(Entry {
            seq,
            ts: Ts(seq.0),
            kind: 1,
            sender: UserId::new(sender).unwrap(),
            sender_number: UserNumber(1),
            client_message_id: id,
            body,
            target: Seq(0),
            version: Seq(0),
            hole: 0,
            expansion: Vec::new(),
            removed: Vec::new(),
            keys_elsewhere: false,
        });
        seq
    }

    fn head(&self, number: ChannelNumber) -> Seq {
        Seq(self.logs.lock().unwrap().logs[&number].len() as u64)
    }

    fn behind(&self, number: ChannelNumber, seq: Seq, count: usize) -> Vec<Entry> {
        let logs = self.logs.lock().unwrap();
        logs.logs[&number]
            .iter()
            .skip(seq.0 as usize)
            .take(count)
            .cloned()
            .collect()
    }
}

/// Takes one of a counter of faults.
fn take(counter: &AtomicU32) -> bool {
    counter
        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
        .is_ok()
}

struct Connection {
    world: Arc<World>,
    edge: String,
    link: Arc<dyn Link>,
    control: FrameWriter,
}

impl Connection {
    async fn run(world: Arc<World>, edge: String, link: Arc<dyn Link>) {
        let Ok((send, recv)) = link.accept_bi().await else {
            return;
        };
        let control = FrameWriter::new(send);
        let mut drain = world.drain.subscribe();
        let mut connection = Self {
            world,
            edge,
            link,
            control,
        };
        let mut frames = FrameReader::new(recv);
        loop {
            tokio::select! {
                frame = frames.next() => {
                    let Ok(Some(frame)) = frame else { return };
                    let message = Message::decode(&frame).unwrap().unwrap();
                    if connection.handle(message).await.is_none() {
                        return;
                    }
                }
                Ok(()) = drain.changed() => {
                    let Some((edge, edges)) = drain.borrow_and_update().clone() else { continue };
                    if edge == connection.edge {
                        let reason = "deploy".to_owned();
                        connection.answer(Drain { deadline_ms: 5_000, reason, edges }).await;
                    }
                }
            }
        }
    }

    async fn answer(&mut self, message: impl Into<Message>) {
        let _ = self.control.write_one(message.into().encode()).await;
    }

    async fn handle(&mut self, message: Message) -> Option<()> {
        match message {
            Message::Hello(_) => {
                let edge = self.edge.clone();
                self.answer(HelloOk {
                    version: 1,
                    edge,
                    server_time_ms: 1_000_000,
                })
                .await;
            }
            Message::Authenticate(m) if m.token != TOKEN => {
                self.answer(Error::new(0, Code::TokenInvalid, "not this one"))
                    .await;
                self.link
                    .close(u32::from(Code::TokenInvalid.number()), "not this one");
                return None;
            }
            Message::Authenticate(_) => self.answer(welcome()).await,
            Message::Send(m) => return self.send(m).await,
            Message::Subscribe(m) => {
                let place = Place {
                    group: m.group,
                    channel: m.channel,
                    position: m.position,
                    ts: m.ts,
                };
                self.subscribe(m.request, place).await;
            }
            Message::Resume(m) => {
                for place in m.places {
                    self.subscribe(m.request, place).await;
                }
                self.answer(Done { request: m.request }).await;
            }
            Message::History(m) => self.page(m.request, m.group, m.channel, m.anchor, m.ts).await,
            Message::Sync(m) => {
                self.page(m.request, m.group, m.channel, m.position.seq, m.ts)
                    .await;
            }
            Message::Kick(m) => self.fenced(m.request, m.user, None).await,
            Message::Mute(m) => self.fenced(m.request, m.user, Some(m.until_ms)).await,
            Message::Join(Join { request, .. }) => {
                self.world.kicked.send_replace(None);
                self.answer(Done { request }).await;
            }
            Message::Ping(m) => {
                self.answer(Pong {
                    nonce: m.nonce,
                    time_ms: 0,
                })
                .await
            }
            Message::CreateGroup(CreateGroup { request, .. })
            | Message::CreateChannel(CreateChannel { request, .. })
            | Message::Leave(Leave { request, .. })
            | Message::Unsubscribe(Unsubscribe { request, .. }) => self.answer(Done { request }).await,
            Message::ClientAck(_) => {}
            other => panic!("the client sent {other:?}"),
        }
        Some(())
    }

    async fn send(&mut self, send: Send) -> Option<()> {
        let (id, world) = (send.client_message_id, self.world.clone());
        world.attempts.lock().unwrap().push((id, send.first_attempt_ms));
        if take(&world.refuse_sends) {
            let refusal = Error::new(send.request, Code::Unavailable, "no leader");
            self.answer(refusal).await;
            return Some(());
        }
        let channel = world.number(&send.group, &send.channel);
        let known = world.logs.lock().unwrap().sends.get(&(channel, id)).copied();
        let seq = known.unwrap_or_else(|| {
            let seq = world.store(channel, "me", id, send.body.clone());
            world.logs.lock().unwrap().sends.insert((channel, id), seq);
            world.changed.send_modify(|version| *version += 1);
            seq
        });
        if take(&world.lose_acks) {
            self.link.close(CLOSE_NORMAL, "lost on purpose");
            return None;
        }
        let (request, repeat) = (send.request, known.is_some());
        self.answer(Ack {
            request,
            channel,
            epoch: EPOCH,
            seq,
            ts: Ts(seq.0),
            repeat,
            before: Seq(0),
        })
        .await;
        Some(())
    }

    async fn subscribe(&mut self, request: RequestId, place: Place) {
        let channel = self.world.number(&place.group, &place.channel);
        if self.world.is_out() {
            return self
                .answer(Error::new(request, Code::NotMember, "not a member"))
                .await;
        }
        let head = self.world.head(channel);
        let (seq, start) = match place.position.epoch {
            _ if place.ts != Ts(0) => (self.world.by_ts(channel, place.ts), Start::Resumed),
            Epoch(0) => (head, Start::Head),
            _ => (place.position.seq, Start::Resumed),
        };
        self.answer(Subscribed {
            request,
            group: place.group,
            channel_name: place.channel,
            channel,
            position: Position { epoch: EPOCH, seq },
            head,
            start,
            ts: Ts(seq.0),
        })
        .await;
        tokio::spawn(deliver(
            self.world.clone(),
            self.link.clone(),
            request,
            channel,
            seq,
        ));
    }

    async fn fenced(&mut self, request: RequestId, user: UserId, until_ms: Option<u64>) {
        self.world.taken.lock().unwrap().push((user, until_ms));
        let pending = self.world.pending.lock().unwrap().clone();
        self.answer(Fenced {
            request,
            version: 4,
            pending,
            more: 0,
        })
        .await;
    }

    async fn page(&mut self, request: RequestId, group: GroupId, channel: ChannelId, prev: Seq, ts: Ts) {
        let channel = self.world.number(&group, &channel);
        let prev = match ts {
            Ts(0) => prev,
            ts => self.world.by_ts(channel, ts),
        };
        let (head, entries) = (self.world.head(channel), self.world.behind(channel, prev, 10));
        self.answer(Page {
            request,
            channel,
            epoch: EPOCH,
            prev,
            head,
            entries,
        })
        .await;
    }
}

/// One stream per subscription; ends with its link.
async fn deliver(
    world: Arc<World>,
    link: Arc<dyn Link>,
    request: RequestId,
    channel: ChannelNumber,
    mut cursor: Seq,
) {
    // A stream of a later version comes first; clients go on without it.
    let Ok(half) = link.open_uni().await else { return };
    let mut later = FrameWriter::new(half);
    if later
        .write_one(Bytes::from_static(&[99, 0xff, 0xff, 0xff, 0xff]))
        .await
        .is_err()
    {
        return;
    }
    later.finish();
    let Ok(half) = link.open_uni().await else { return };
    let mut lane = FrameWriter::new(half);
    if lane.write_one(Bytes::from_static(&[STREAM_LIVE])).await.is_err() {
        return;
    }
    let mut changed = world.changed.subscribe();
    loop {
        changed.borrow_and_update();
        loop {
            let mut entries = world.behind(channel, cursor, 5);
            let cap = world.cap(channel);
            entries.retain(|entry| cap.is_none_or(|cap| entry.seq <= cap));
            if let Some(cap) = cap.filter(|cap| *cap <= cursor) {
                let ended = Ended {
                    request,
                    channel,
                    position: Position {
                        epoch: EPOCH,
                        seq: cap,
                    },
                    code: Code::NotMember.number(),
                    message: "the membership has ended".to_owned(),
                };
                let _ = lane.write_one(Message::from(ended).encode()).await;
                // The stream stays as long as its link.
                let _ = link.closed().await;
                return;
            }
            let Some(last) = entries.last().map(|entry| entry.seq) else {
                break;
            };
            let count = entries.len() as u64;
            let frame = Message::from(Deliver {
                channel,
                epoch: EPOCH,
                prev: cursor,
                entries,
            })
            .encode();
            if lane.write_one(frame).await.is_err() {
                return;
            }
            world.written.fetch_add(count, Ordering::SeqCst);
            cursor = last;
        }
        if changed.changed().await.is_err() {
            return;
        }
    }
}

fn welcome() -> Welcome {
    Welcome {
        session: SessionId(1),
        user: UserId::new("me").unwrap(),
        user_number: UserNumber(1),
        server_time_ms: 1_000_000,
        token_expires_ms: u64::MAX,
        idempotency_window_ms: 1_000_000_000,
        ping_interval_ms: 25_000,
        body_bytes_max: 131_072,
        requests_in_flight_max: 64,
        subscriptions_max: 1_000,
    }
}
