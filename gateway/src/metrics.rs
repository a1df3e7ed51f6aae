//! What an edge counts, for Prometheus. Names start with `throng_gateway_`.

use std::sync::atomic::Ordering;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use throng_protocol::code::Code;
use throng_transport::{HandedCounts, HandshakeCounts};

type Labels = Vec<(String, String)>;

/// The counters of an edge. Clones count together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics {
    /// Open client connections.
    pub connections: Gauge,
    /// Those of each worker.
    worker_connections: Family<Labels, Gauge>,
    /// Datagrams that came to another worker than their client's, by what became of them.
    handed_datagrams: Family<Labels, Counter>,
    /// Handshakes that failed.
    pub handshakes_failed: Counter,
    /// Handshakes open now.
    handshakes_open: Gauge,
    /// Networks whose handshakes are counted now.
    handshake_networks: Gauge,
    /// First packets of connections, by what was done about them.
    first_packets: Family<Labels, Counter>,
    /// Open sessions.
    pub sessions: Gauge,
    /// Subscriptions of all sessions.
    pub subscriptions: Gauge,
    /// Requests of clients.
    requests: Family<Labels, Counter>,
    /// Requests and connections refused, by code.
    refusals: Family<Labels, Counter>,
    /// Frames written to live lanes.
    deliveries: Counter,
    /// Subscriptions ended because a right has ended.
    pub ended: Counter,
    /// Bytes written to live lanes.
    delivered_bytes: Counter,
    /// Pages read for subscribers behind the ring.
    pub catch_up_pages: Counter,
    /// Bytes written to bulk streams.
    pub catch_up_bytes: Counter,
    /// Entries encoded into deliveries.
    pub encodes: Counter,
    /// Channels followed.
    pub channels: Gauge,
    /// Times a session was read no further for a while, because it was above a rate.
    pub held_back: Counter,
    /// Bytes held by all rings.
    pub ring_bytes: Gauge,
    /// Feeds opened again after a loss, a refusal or a change of leader.
    pub refollows: Counter,
    /// Gaps of feeds that were read from the log.
    pub refetches: Counter,
    /// Requests to core nodes that were sent to another node.
    pub redirects: Counter,
    /// Attempts at core nodes without an answer.
    pub upstream_failures: Counter,
    /// Entries the slowest client has not acknowledged.
    pub unacked_max: Gauge,
}

impl Metrics {
    /// Counts a request by its kind.
    pub fn requested(&self, kind: &str) {
        self.requests
            .get_or_create(&vec![("kind".to_owned(), kind.to_owned())])
            .inc();
    }

    /// Counts a refusal by its code.
    pub fn refused(&self, code: Code) {
        self.refusals
            .get_or_create(&vec![("code".to_owned(), code.name().to_owned())])
            .inc();
    }

    /// Takes over what the listener has counted.
    pub fn observe_handshakes(&self, counts: &HandshakeCounts) {
        self.handshakes_open.set(gauge(counts.open));
        self.handshake_networks.set(gauge(counts.networks));
        for (done, count) in [
            ("begun", counts.begun),
            ("retried", counts.retried),
            ("refused", counts.refused),
            ("refused_network", counts.refused_network),
            ("ignored_network", counts.ignored_network),
        ] {
            self.first_packets
                .get_or_create(&vec![("done".to_owned(), done.to_owned())])
                .inner()
                .store(count, Ordering::Relaxed);
        }
    }

    /// The gauge of a worker's connections.
    pub fn connections_of(&self, worker: u16) -> Gauge {
        let labels = vec![("worker".to_owned(), worker.to_string())];
        self.worker_connections.get_or_create(&labels).clone()
    }

    /// Takes over what the workers have counted.
    pub fn observe_handed(&self, counts: &HandedCounts) {
        for (done, count) in [("handed", counts.handed), ("lost", counts.lost)] {
            self.handed_datagrams
                .get_or_create(&vec![("done".to_owned(), done.to_owned())])
                .inner()
                .store(count, Ordering::Relaxed);
        }
    }

    /// Takes over what the workers have written to live lanes.
    pub fn observe_delivered(&self, (frames, bytes): (u64, u64)) {
        self.deliveries.inner().store(frames, Ordering::Relaxed);
        self.delivered_bytes.inner().store(bytes, Ordering::Relaxed);
    }

    fn register_workers(&self, r: &mut Registry) {
        r.register(
            "worker_connections",
            "Open client connections, by worker",
            self.worker_connections.clone(),
        );
        r.register(
            "handed_datagrams",
            "Datagrams of clients that moved, which came to another worker's socket, by what became of them",
            self.handed_datagrams.clone(),
        );
    }

    fn register_handshakes(&self, r: &mut Registry) {
        let m = self;
        r.register(
            "handshakes_failed",
            "Handshakes that failed",
            m.handshakes_failed.clone(),
        );
        r.register(
            "handshakes_open",
            "Handshakes open now",
            m.handshakes_open.clone(),
        );
        r.register(
            "handshake_networks",
            "Networks whose handshakes are counted now",
            m.handshake_networks.clone(),
        );
        r.register(
            "first_packets",
            "First packets of connections, by what was done about them",
            m.first_packets.clone(),
        );
    }

    /// A registry with everything in it.
    pub fn registry(&self) -> Registry {
        let mut registry = Registry::with_prefix("throng_gateway");
        let r = &mut registry;
        let m = self;
        r.register("connections", "Open client connections", m.connections.clone());
        m.register_workers(r);
        m.register_handshakes(r);
        r.register("sessions", "Open sessions", m.sessions.clone());
        r.register(
            "subscriptions",
            "Subscriptions of all sessions",
            m.subscriptions.clone(),
        );
        r.register("requests", "Requests of clients, by kind", m.requests.clone());
        r.register(
            "refusals",
            "Requests and connections refused, by code",
            m.refusals.clone(),
        );
        r.register("deliveries", "Frames written to live lanes", m.deliveries.clone());
        r.register(
            "subscriptions_ended",
            "Subscriptions ended because a right has ended",
            m.ended.clone(),
        );
        r.register(
            "delivered_bytes",
            "Bytes written to live lanes",
            m.delivered_bytes.clone(),
        );
        r.register(
            "catch_up_pages",
            "Pages read for subscribers behind the ring",
            m.catch_up_pages.clone(),
        );
        r.register(
            "catch_up_bytes",
            "Bytes written to bulk streams",
            m.catch_up_bytes.clone(),
        );
        r.register("encodes", "Entries encoded into deliveries", m.encodes.clone());
        r.register("channels", "Channels followed", m.channels.clone());
        r.register(
            "sessions_held_back",
            "Times a session was read no further for a while",
            m.held_back.clone(),
        );
        r.register("ring_bytes", "Bytes held by all rings", m.ring_bytes.clone());
        r.register("refollows", "Feeds opened again", m.refollows.clone());
        r.register(
            "refetches",
            "Gaps of feeds read from the log",
            m.refetches.clone(),
        );
        r.register(
            "upstream_redirects",
            "Requests sent to another core node",
            m.redirects.clone(),
        );
        r.register(
            "upstream_failures",
            "Attempts at core nodes without an answer",
            m.upstream_failures.clone(),
        );
        r.register(
            "unacked_max",
            "Entries the slowest client has not acknowledged",
            m.unacked_max.clone(),
        );
        registry
    }
}

/// The registry as Prometheus reads it.
pub(crate) fn render(registry: &Registry) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    encode(&mut text, registry)?;
    Ok(text)
}

/// A count as a gauge takes it.
pub(crate) fn gauge(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
