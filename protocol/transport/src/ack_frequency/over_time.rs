//! A server and a client of quinn-proto in a time of their own: what is acknowledged when, and what a lost
//! datagram costs.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, DatagramEvent, Dir, Endpoint, EndpointConfig, Event,
    StreamEvent, StreamId,
};

use super::Acks;
use crate::Trust;
use crate::dev_ca::DevCa;
use crate::server::ServerTls;
use crate::settings::{CLIENT_ACK_DELAY, Limits, client_transport};

const SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);
const CLIENT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 2);
/// From one end to the other: a client in a mobile network.
const ONE_WAY: Duration = Duration::from_millis(20);
/// What is looked at at once.
const STEP: Duration = Duration::from_millis(1);

/// One end.
struct End {
    endpoint: Endpoint,
    connection: Option<(ConnectionHandle, Connection)>,
    sent: u64,
}

/// Both ends and what is on its way between them.
struct World {
    now: Instant,
    began: Instant,
    server: End,
    client: End,
    wire: VecDeque<(Instant, SocketAddr, Vec<u8>)>,
    /// Datagrams to the client that are lost from now on.
    losing: u32,
    lane: Option<StreamId>,
    one_way: Duration,
    received: Vec<(u8, Duration)>,
}

impl End {
    fn new(server: Option<quinn_proto::ServerConfig>) -> Self {
        let config = Arc::new(EndpointConfig::default());
        Self {
            endpoint: Endpoint::new(config, server.map(Arc::new), true, Some([7; 32])),
            connection: None,
            sent: 0,
        }
    }

    fn take(&mut self, now: Instant, data: Vec<u8>, from: SocketAddr) {
        let mut answer = Vec::new();
        let data = BytesMut::from(&data[..]);
        match self.endpoint.handle(now, from, None, None, data, &mut answer) {
            Some(DatagramEvent::ConnectionEvent(_, event)) => {
                if let Some((_, connection)) = &mut self.connection {
                    connection.handle_event(event);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => {
                let accepted = self.endpoint.accept(incoming, now, &mut answer, None);
                self.connection = Some(accepted.map_err(|error| error.cause).unwrap());
            }
            Some(DatagramEvent::Response(_)) | None => {}
        }
    }

    /// Whatever it has to send now.
    fn drive(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let Some((key, connection)) = &mut self.connection else {
            return Vec::new();
        };
        if connection.poll_timeout().is_some_and(|at| at <= now) {
            connection.handle_timeout(now);
        }
        while let Some(event) = connection.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(*key, event) {
                connection.handle_event(event);
            }
        }
        let (mut out, mut buffer) = (Vec::new(), Vec::new());
        while connection.poll_transmit(now, 1, &mut buffer).is_some() {
            out.push(std::mem::take(&mut buffer));
        }
        self.sent += out.len() as u64;
        out
    }
}

impl World {
    fn new(acks: Acks) -> Self {
        Self::with_one_way(acks, ONE_WAY)
    }

    fn with_one_way(acks: Acks, one_way: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let leaf = DevCa::open(folder.path()).unwrap().server("server", &[]).unwrap();
        let tls = ServerTls::load(&leaf.cert, &leaf.key).unwrap();
        let tls = tls.with_acks(acks);
        let now = Instant::now();
        let mut client = End::new(None);
        let trust = Trust::ca_file(&leaf.ca).unwrap();
        let mut config = ClientConfig::new(trust.crypto());
        config.transport_config(client_transport(None));
        let connecting = client.endpoint.connect(now, config, SERVER, "localhost");
        client.connection = Some(connecting.unwrap());
        let mut world = Self {
            now,
            began: now,
            server: End::new(Some(tls.fresh_config(&Limits::default()))),
            client,
            wire: VecDeque::new(),
            losing: 0,
            lane: None,
            one_way,
            received: Vec::new(),
        };
        // Handshake, looking for the size of datagrams, and the end of all acknowledgements of these.
        world.pass(Duration::from_secs(5));
        let (_, server) = world.server.connection.as_mut().unwrap();
        world.lane = server.streams().open(Dir::Uni);
        world.began = world.now;
        world
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.now += STEP;
            while self.wire.front().is_some_and(|(at, ..)| *at <= self.now) {
                let (_, to, data) = self.wire.pop_front().unwrap();
                let (end, from) = if to == SERVER {
                    (&mut self.server, CLIENT)
                } else {
                    (&mut self.client, SERVER)
                };
                end.take(self.now, data, from);
            }
            for (end, to) in [(&mut self.server, CLIENT), (&mut self.client, SERVER)] {
                for data in end.drive(self.now) {
                    if to == CLIENT && self.losing > 0 {
                        self.losing -= 1;
                        continue;
                    }
                    self.wire.push_back((self.now + self.one_way, to, data));
                }
            }
            self.read();
        }
    }

    /// What the application of the client gets.
    fn read(&mut self) {
        let (_, client) = self.client.connection.as_mut().unwrap();
        while let Some(event) = client.poll() {
            assert!(!matches!(event, Event::ConnectionLost { .. }), "{event:?}");
            let readable = match event {
                Event::Stream(StreamEvent::Opened { dir: Dir::Uni }) => client.streams().accept(Dir::Uni),
                Event::Stream(StreamEvent::Readable { id }) => Some(id),
                _ => None,
            };
            let Some(id) = readable else { continue };
            let mut stream = client.recv_stream(id);
            let mut chunks = stream.read(true).unwrap();
            while let Ok(Some(chunk)) = chunks.next(usize::MAX) {
                let at = self.now - self.began;
                self.received
                    .extend(chunk.bytes.iter().map(|number| (*number, at)));
            }
            let _ = chunks.finalize();
        }
    }

    /// The server sends a message of one byte.
    fn say(&mut self, number: u8) {
        let (_, server) = self.server.connection.as_mut().unwrap();
        let lane = self.lane.unwrap();
        assert_eq!(server.send_stream(lane).write(&[number]), Ok(1));
    }

    /// So many messages, one each so often; how many datagrams the client sent meanwhile.
    fn say_all(&mut self, messages: u8, each: Duration) -> u64 {
        let before = self.client.sent;
        for number in 0..messages {
            self.say(number);
            self.pass(each);
        }
        self.client.sent - before
    }

    /// How long a message took, said at such a moment.
    fn took(&self, number: u8, said: Duration) -> Duration {
        let (_, at) = self.received.iter().find(|(found, _)| *found == number).unwrap();
        *at - said
    }
}

const TWENTY_A_SECOND: Duration = Duration::from_millis(50);

#[test]
fn a_client_of_an_edge_acknowledges_three_messages_at_once() {
    let by_quinn = World::new(Acks::OfQuinn).say_all(100, TWENTY_A_SECOND);
    assert!(by_quinn >= 95, "quinn's clients send {by_quinn}");
    // The least delay that there is, one in the middle, and the greatest.
    for delay in [100, 125, 149] {
        let acks = Acks::After(Duration::from_millis(delay));
        let by_us = World::new(acks).say_all(100, TWENTY_A_SECOND);
        assert!((30..=40).contains(&by_us), "by {delay} ms ours send {by_us}");
    }
}

#[test]
fn many_datagrams_at_once_are_acknowledged_before_any_delay() {
    let mut world = World::new(Acks::OfThrong);
    let before = world.client.sent;
    let (_, server) = world.server.connection.as_mut().unwrap();
    let lane = world.lane.unwrap();
    // Seven datagrams or eight, and the congestion window takes them.
    let written = server.send_stream(lane).write(&[1; 8 * 1_200]).unwrap();
    assert_eq!(written, 8 * 1_200);
    world.pass(2 * ONE_WAY);
    let acknowledged = world.client.sent - before;
    assert!((1..=3).contains(&acknowledged), "{acknowledged} datagrams");
    assert_eq!(world.received.len(), 8 * 1_200);
}

#[test]
fn a_lost_message_comes_as_soon_as_the_next_one_shows_the_gap() {
    // Whatever was acknowledged when it is lost.
    for messages in 10..14 {
        let mut world = World::new(Acks::OfThrong);
        world.say_all(messages, TWENTY_A_SECOND);
        let said = world.now - world.began;
        world.losing = 1;
        world.say(100);
        world.pass(TWENTY_A_SECOND);
        world.say(101);
        world.pass(Duration::from_secs(1));
        // The next message, its acknowledgement, and the message again; some rounding of timers.
        let bound = TWENTY_A_SECOND + 3 * ONE_WAY + 10 * STEP;
        let took = world.took(100, said);
        assert!(took <= bound, "after {messages} messages: {took:?}");
    }
}

#[test]
fn a_lost_message_that_none_follows_comes_a_delay_later() {
    let lone = |acks| {
        let mut world = World::new(acks);
        world.say_all(10, TWENTY_A_SECOND);
        world.pass(Duration::from_secs(1));
        let said = world.now - world.began;
        world.losing = 1;
        world.say(100);
        world.pass(Duration::from_secs(2));
        world.took(100, said)
    };
    let (by_quinn, by_us) = (lone(Acks::OfQuinn), lone(Acks::OfThrong));
    let more = by_us.saturating_sub(by_quinn);
    assert!(
        more <= Duration::from_millis(130),
        "{by_us:?} in place of {by_quinn:?}"
    );
    assert!(by_us <= Duration::from_millis(300), "{by_us:?}");
}

#[test]
fn the_delay_is_asked_for_whatever_the_round_trip_is() {
    for one_way in [1, 20, 200].map(Duration::from_millis) {
        let delay = Duration::from_millis(125);
        let mut world = World::with_one_way(Acks::After(delay), one_way);
        let (_, client) = world.client.connection.as_mut().unwrap();
        assert_eq!(client.stats().frame_rx.ack_frequency, 1);
        let (before, said) = (world.client.sent, world.now);
        world.say(1);
        while world.client.sent == before {
            world.pass(STEP);
        }
        let waited = world.now - said - one_way;
        assert!(
            (delay..delay + 5 * STEP).contains(&waited),
            "{waited:?} at {one_way:?}"
        );
        assert_eq!(world.received.len(), 1);
    }
}

#[test]
fn what_an_edge_asks_lies_between_its_bounds() {
    for _ in 0..8 {
        let mut world = World::new(Acks::OfThrong);
        let (before, said) = (world.client.sent, world.now);
        world.say(1);
        while world.client.sent == before {
            world.pass(STEP);
        }
        let waited = world.now - said - ONE_WAY;
        let bounds = CLIENT_ACK_DELAY.start..CLIENT_ACK_DELAY.end + 5 * STEP;
        assert!(bounds.contains(&waited), "{waited:?}");
    }
}
