//! Every transport setting with its reason. An edge holds very many idle connections, so all that
//! is per connection is small there; nodes are few, so the cluster wire is generous.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use quinn::{AckFrequencyConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};
use throng_protocol::limits::{IDLE_TIMEOUT_MS, LIVE_LANES};
use throng_protocol::rate::Rate;

/// Streams a client may open: one control stream, and room for later kinds. quinn allocates every
/// slot at once, so each costs memory of idle connections.
pub const SERVER_BIDI_STREAMS: u32 = 4;
/// One-way streams a client may open: none is in use yet, two leave room for uploads.
pub const SERVER_UNI_STREAMS: u32 = 2;
/// Unread bytes an edge holds per stream of a client: a quarter of a largest body per round trip.
pub const SERVER_STREAM_WINDOW: u32 = 32 * 1024;
/// Unread bytes an edge holds per client.
pub const SERVER_WINDOW: u32 = 64 * 1024;
/// Bytes an edge holds for a client that has not acknowledged them: the bound of a slow reader.
/// Above one largest frame; 2.5 MB/s at 100 ms.
pub const SERVER_SEND_WINDOW: u64 = 256 * 1024;
/// Datagram bytes held per client and direction: about a dozen datagrams; they are droppable.
pub const SERVER_DATAGRAM_BUFFER: usize = 16 * 1024;
/// Out-of-order handshake bytes held: browsers' hellos have about 2 KiB.
pub const CRYPTO_BUFFER: usize = 8 * 1024;
/// How often a larger packet size is looked for again. quinn's ten minutes would wake every idle
/// connection for nothing.
pub const MTU_INTERVAL: Duration = Duration::from_secs(3_600);
/// First bytes buffered per connection not yet accepted: one flight of the handshake.
pub const INCOMING_BUFFER: u64 = 16 * 1024;
/// First bytes buffered for all connections not yet accepted.
pub const INCOMING_BUFFER_TOTAL: u64 = 4 * 1024 * 1024;
/// Datagrams after which a client acknowledges at once; quinn's default is two. A congestion window begins at
/// eight full ones; where losses have left less than four, a sender of more than that waits for
/// [`CLIENT_ACK_DELAY`] each round trip until the window has grown again.
pub const CLIENT_ACK_DATAGRAMS: u32 = 4;
/// How long a client is asked to take for an acknowledgement, by chance between the two: three messages of a
/// group that speaks twenty times a second. All clients of a group get the same messages; by one delay for all
/// their acknowledgements would come together and hold up the next message. A lost datagram that no other
/// follows is sent again a tenth of a second later than by the default of 25 ms (RFC 9000, 18.2); one that
/// others follow is not, since a gap is acknowledged at once.
pub const CLIENT_ACK_DELAY: Range<Duration> = Duration::from_millis(100)..Duration::from_millis(150);
/// Between two stateless resets of a socket: ten thousand a second, a hundredth of what it can send.
pub const RESET_INTERVAL: Duration = Duration::from_micros(100);

/// Streams a server may open at a client: none is in use yet.
pub const CLIENT_BIDI_STREAMS: u32 = 2;
/// One-way streams a server may open: `LIVE_LANES` live lanes, a bulk stream, and room.
pub const CLIENT_UNI_STREAMS: u32 = 8;
/// Unread bytes a client holds per stream: 2.5 MB/s of catch-up at 100 ms.
pub const CLIENT_STREAM_WINDOW: u32 = 256 * 1024;
/// Unread bytes a client holds.
pub const CLIENT_WINDOW: u32 = 2 * 1024 * 1024;
// An application that does not take its deliveries stops all streams of deliveries. Answers and pongs
// must still come, so those streams together leave room; quinn announces a window in eighths.
const _: () = assert!((LIVE_LANES as u32 + 2) * CLIENT_STREAM_WINDOW + CLIENT_WINDOW / 8 <= CLIENT_WINDOW);
/// Unacknowledged bytes of a client: several largest bodies.
pub const CLIENT_SEND_WINDOW: u64 = 1024 * 1024;
/// Datagram bytes a client holds.
pub const CLIENT_DATAGRAM_BUFFER: usize = 64 * 1024;
/// Milliseconds a client waits for a handshake.
pub const CLIENT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Largest frame between nodes: a batch of Raft entries or a chunk of a snapshot. A batch is closed
/// by its maker well below it.
pub const CLUSTER_FRAME_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Lanes a node may open on one connection: a handful of kinds, and edges' feeds.
pub const CLUSTER_LANES_MAX: u32 = 256;
/// Unread bytes per lane: one largest frame, so that it never waits for a round trip.
pub const CLUSTER_STREAM_WINDOW: u32 = 8 * 1024 * 1024;
/// Unread and unacknowledged bytes per connection: some lanes full at once, and others go on.
pub const CLUSTER_WINDOW: u32 = 64 * 1024 * 1024;
/// How often a silent connection between nodes is probed.
pub const CLUSTER_KEEP_ALIVE: Duration = Duration::from_secs(1);
/// Silence after which a node counts as dead: several probes, so that a pause of a busy machine is
/// none. Shorter pauses are Raft's business.
pub const CLUSTER_IDLE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long connecting to a node may take, hello included: a node that does not answer by then is
/// down or unreachable, and callers go elsewhere.
pub const CLUSTER_CONNECT_TIMEOUT: Duration = Duration::from_millis(1_500);

/// What a server endpoint takes before it defends itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Open handshakes above which a client must prove its address first (one round trip more), so
    /// that a flood from forged addresses costs no handshakes.
    pub retry_above: usize,
    /// Handshakes a second above which a client must prove its address first: half of what a core
    /// can do.
    pub unproven_per_second: u32,
    /// Open handshakes above which further ones are refused.
    pub handshakes_max: usize,
    /// Connections above which further ones are refused.
    pub connections_max: usize,
    /// First packets that wait to be accepted.
    pub incoming_max: usize,
    /// What the addresses of one network may ask.
    pub network: NetworkLimits,
}

/// What the addresses of one network (an IPv4 /24, an IPv6 /56) may ask of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetworkLimits {
    /// Open handshakes of the network above which its clients must prove their addresses first.
    pub retry_above: usize,
    /// Open handshakes of the network above which further ones are refused.
    pub handshakes_max: usize,
    /// How often a handshake may begin: counted apart for clients that have proved their address and
    /// for others. The burst is for a network that is many users behind one address, all of which
    /// come back at once.
    pub rate: Rate,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            retry_above: 256,
            unproven_per_second: 1_000,
            handshakes_max: 4_096,
            connections_max: 1_000_000,
            incoming_max: 1_024,
            network: NetworkLimits::default(),
        }
    }
}

impl Default for NetworkLimits {
    fn default() -> Self {
        Self {
            retry_above: 64,
            handshakes_max: 256,
            rate: Rate {
                per_second: 100,
                burst: 1_000,
            },
        }
    }
}

pub(crate) fn server_transport() -> Arc<TransportConfig> {
    let mut transport = base(idle(Duration::from_millis(u64::from(IDLE_TIMEOUT_MS))));
    let mut acks = AckFrequencyConfig::default();
    acks.ack_eliciting_threshold((CLIENT_ACK_DATAGRAMS - 1).into())
        // The least: what is asked of each client is its own delay, see `ack_frequency`. quinn would ask for
        // more before it knows the round trip.
        .max_ack_delay(Some(CLIENT_ACK_DELAY.start))
        .reordering_threshold(1u32.into());
    transport
        .ack_frequency_config(Some(acks))
        .max_concurrent_bidi_streams(SERVER_BIDI_STREAMS.into())
        .max_concurrent_uni_streams(SERVER_UNI_STREAMS.into())
        .stream_receive_window(SERVER_STREAM_WINDOW.into())
        .receive_window(SERVER_WINDOW.into())
        .send_window(SERVER_SEND_WINDOW)
        .datagram_receive_buffer_size(Some(SERVER_DATAGRAM_BUFFER))
        .datagram_send_buffer_size(SERVER_DATAGRAM_BUFFER);
    Arc::new(transport)
}

pub(crate) fn client_transport(keep_alive: Option<Duration>) -> Arc<TransportConfig> {
    let mut transport = base(idle(Duration::from_millis(u64::from(IDLE_TIMEOUT_MS))));
    transport
        .max_concurrent_bidi_streams(CLIENT_BIDI_STREAMS.into())
        .max_concurrent_uni_streams(CLIENT_UNI_STREAMS.into())
        .stream_receive_window(CLIENT_STREAM_WINDOW.into())
        .receive_window(CLIENT_WINDOW.into())
        .send_window(CLIENT_SEND_WINDOW)
        .datagram_receive_buffer_size(Some(CLIENT_DATAGRAM_BUFFER))
        .datagram_send_buffer_size(CLIENT_DATAGRAM_BUFFER)
        .keep_alive_interval(keep_alive);
    Arc::new(transport)
}

pub(crate) fn cluster_transport() -> Arc<TransportConfig> {
    let mut transport = base(idle(CLUSTER_IDLE_TIMEOUT));
    transport
        .max_concurrent_bidi_streams(CLUSTER_LANES_MAX.into())
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(CLUSTER_STREAM_WINDOW.into())
        .receive_window(CLUSTER_WINDOW.into())
        .send_window(CLUSTER_WINDOW.into())
        .datagram_receive_buffer_size(None)
        .keep_alive_interval(Some(CLUSTER_KEEP_ALIVE));
    Arc::new(transport)
}

fn base(idle: IdleTimeout) -> TransportConfig {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.interval(MTU_INTERVAL);
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(Some(idle))
        .mtu_discovery_config(Some(mtu))
        .crypto_buffer_size(CRYPTO_BUFFER);
    transport
}

fn idle(timeout: Duration) -> IdleTimeout {
    IdleTimeout::try_from(timeout).expect("invariant: the constants above are far below 2^62 ms")
}
