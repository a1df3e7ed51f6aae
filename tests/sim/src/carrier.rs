//! The simulated network as a carrier of the product's endpoints.

use std::future::poll_fn;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use throng_protocol::limits::IDLE_TIMEOUT_MS;
use throng_protocol::{cluster, message};
use throng_transport::link::{BiStream, DatagramError};
use throng_transport::{
    BindError, Carrier, ConnectFailure, Established, Incoming, Link, LinkClosed, LinkStats, ReadError,
    RecvHalf, SendHalf, WriteError, settings,
};

use crate::net::{Flow, HostId, Knock, LinkHandle, Network, Place, StreamId, Us};

/// Bytes of the largest datagram.
const DATAGRAM_BYTES_MAX: usize = 1_200;

/// Which of the product's endpoints stands on a carrier: its windows, its protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Between nodes.
    Cluster,
    /// Of an edge, for clients.
    Server,
    /// Of a client, which probes a silent link.
    Client,
}

impl Role {
    fn flow(self) -> Flow {
        let us = |time: Duration| Us::try_from(time.as_micros()).unwrap_or(Us::MAX);
        let idle = Us::from(IDLE_TIMEOUT_MS) * 1_000;
        match self {
            Self::Cluster => Flow {
                two_way_max: settings::CLUSTER_LANES_MAX.into(),
                one_way_max: 0,
                stream_window: settings::CLUSTER_STREAM_WINDOW.into(),
                link_window: settings::CLUSTER_WINDOW.into(),
                idle: us(settings::CLUSTER_IDLE_TIMEOUT),
                keep_alive: Some(us(settings::CLUSTER_KEEP_ALIVE)),
            },
            Self::Server => Flow {
                two_way_max: settings::SERVER_BIDI_STREAMS.into(),
                one_way_max: settings::SERVER_UNI_STREAMS.into(),
                stream_window: settings::SERVER_STREAM_WINDOW.into(),
                link_window: settings::SERVER_WINDOW.into(),
                idle,
                keep_alive: None,
            },
            Self::Client => Flow {
                two_way_max: settings::CLIENT_BIDI_STREAMS.into(),
                one_way_max: settings::CLIENT_UNI_STREAMS.into(),
                stream_window: settings::CLIENT_STREAM_WINDOW.into(),
                link_window: settings::CLIENT_WINDOW.into(),
                idle,
                keep_alive: Some(us(CLIENT_PROBE)),
            },
        }
    }

    fn protocol(self) -> &'static [u8] {
        match self {
            Self::Cluster => cluster::ALPN,
            Self::Server | Self::Client => message::ALPN,
        }
    }
}

/// How long a client's link may be silent before it is probed: short, so that a run of some seconds
/// sees clients find out that their edge was started anew.
const CLIENT_PROBE: Duration = Duration::from_millis(500);

/// A port of a host as a carrier.
#[derive(Debug)]
pub struct SimCarrier {
    place: Place,
    role: Role,
}

impl SimCarrier {
    /// Takes a port of a host, a free one for `None`; one with a free port only connects. `names` are
    /// what its certificate says.
    pub fn bind(
        net: &Network,
        host: HostId,
        port: Option<u16>,
        role: Role,
        names: Vec<String>,
    ) -> std::io::Result<Self> {
        let place = Place::bind(net, host, port, role.flow(), names)?;
        Ok(Self { place, role })
    }
}

impl Carrier for SimCarrier {
    fn connect<'a>(
        &'a self,
        addr: SocketAddr,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Established, ConnectFailure>> {
        Box::pin(async move { Ok(established(self.place.connect(addr, name).await?, self.role)) })
    }

    fn accept(&self) -> BoxFuture<'_, Option<Box<dyn Incoming>>> {
        Box::pin(async move {
            let knock = self.place.accept().await?;
            let role = self.role;
            Some(Box::new(SimIncoming { knock, role }) as Box<dyn Incoming>)
        })
    }

    fn open_links(&self) -> usize {
        self.place.open_links()
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        Ok(self.place.address())
    }

    fn rebind(&self) -> Result<SocketAddr, BindError> {
        Ok(self.place.move_on())
    }

    fn close(&self, code: u32, reason: &str) {
        self.place.close(code, reason);
    }

    fn wait_idle(&self) -> BoxFuture<'_, ()> {
        // A close is in the air at once.
        Box::pin(std::future::ready(()))
    }
}

#[derive(Debug)]
struct SimIncoming {
    knock: Knock,
    role: Role,
}

impl Incoming for SimIncoming {
    fn remote_address(&self) -> SocketAddr {
        self.knock.from
    }

    fn is_validated(&self) -> bool {
        // Nobody forges addresses here.
        true
    }

    fn accept(self: Box<Self>) -> Option<BoxFuture<'static, Result<Established, LinkClosed>>> {
        let Self { knock, role } = *self;
        Some(Box::pin(
            async move { Ok(established(knock.welcome().await?, role)) },
        ))
    }

    fn refuse(self: Box<Self>) {
        self.knock.refuse();
    }

    fn retry(self: Box<Self>) {
        self.knock.refuse();
    }
}

fn established((link, names): (Arc<LinkHandle>, Vec<String>), role: Role) -> Established {
    Established {
        link: Arc::new(SimLink(link)),
        names,
        protocol: Some(role.protocol().to_vec()),
    }
}

#[derive(Debug)]
struct SimLink(Arc<LinkHandle>);

impl SimLink {
    fn send_half(&self, stream: StreamId) -> Box<dyn SendHalf> {
        let link = Arc::clone(&self.0);
        Box::new(SimSend { link, stream })
    }

    fn recv_half(&self, stream: StreamId) -> Box<dyn RecvHalf> {
        let link = Arc::clone(&self.0);
        Box::new(SimRecv { link, stream })
    }

    fn halves(&self, stream: StreamId) -> BiStream {
        (self.send_half(stream), self.recv_half(stream))
    }
}

impl Link for SimLink {
    fn open_bi(&self) -> BoxFuture<'_, Result<BiStream, LinkClosed>> {
        Box::pin(async move { Ok(self.halves(self.0.open(false).await?)) })
    }

    fn accept_bi(&self) -> BoxFuture<'_, Result<BiStream, LinkClosed>> {
        Box::pin(async move { Ok(self.halves(self.0.accept(false).await?)) })
    }

    fn open_uni(&self) -> BoxFuture<'_, Result<Box<dyn SendHalf>, LinkClosed>> {
        Box::pin(async move { Ok(self.send_half(self.0.open(true).await?)) })
    }

    fn accept_uni(&self) -> BoxFuture<'_, Result<Box<dyn RecvHalf>, LinkClosed>> {
        Box::pin(async move { Ok(self.recv_half(self.0.accept(true).await?)) })
    }

    fn send_datagram(&self, data: Bytes) -> Result<(), DatagramError> {
        if data.len() > DATAGRAM_BYTES_MAX {
            return Err(DatagramError::TooLarge);
        }
        if let Some(closed) = self.0.ended() {
            return Err(closed.into());
        }
        self.0.send_datagram(data);
        Ok(())
    }

    fn recv_datagram(&self) -> BoxFuture<'_, Result<Bytes, LinkClosed>> {
        Box::pin(self.0.datagram())
    }

    fn max_datagram_size(&self) -> Option<usize> {
        Some(DATAGRAM_BYTES_MAX)
    }

    fn close(&self, code: u32, reason: &str) {
        self.0.close(code, reason);
    }

    fn closed(&self) -> BoxFuture<'_, LinkClosed> {
        Box::pin(self.0.closed())
    }

    fn ended(&self) -> Option<LinkClosed> {
        self.0.ended()
    }

    fn remote_address(&self) -> SocketAddr {
        let nowhere = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        self.0.remote().unwrap_or(nowhere)
    }

    fn stats(&self) -> LinkStats {
        LinkStats::default()
    }
}

#[derive(Debug)]
struct SimSend {
    link: Arc<LinkHandle>,
    stream: StreamId,
}

impl SendHalf for SimSend {
    fn write_all_chunks<'a>(&'a mut self, chunks: &'a mut [Bytes]) -> BoxFuture<'a, Result<(), WriteError>> {
        Box::pin(poll_fn(move |context| {
            self.link.poll_write(context, self.stream, chunks)
        }))
    }

    fn finish(&mut self) {
        self.link.finish(self.stream);
    }

    fn reset(&mut self, code: u32) {
        self.link.reset(self.stream, code);
    }

    fn set_priority(&mut self, _: i32) {
        // Without bandwidth nothing stands in line.
    }

    fn stopped(&self) -> BoxFuture<'static, Result<Option<u32>, LinkClosed>> {
        let (link, stream) = (Arc::clone(&self.link), self.stream);
        Box::pin(poll_fn(move |context| link.poll_stopped(context, stream)))
    }
}

impl Drop for SimSend {
    fn drop(&mut self) {
        self.link.finish(self.stream);
    }
}

#[derive(Debug)]
struct SimRecv {
    link: Arc<LinkHandle>,
    stream: StreamId,
}

impl RecvHalf for SimRecv {
    fn read_chunk(&mut self, max: usize) -> BoxFuture<'_, Result<Option<Bytes>, ReadError>> {
        Box::pin(poll_fn(move |context| {
            self.link.poll_read(context, self.stream, max)
        }))
    }

    fn stop(&mut self, code: u32) {
        self.link.stop(self.stream, code);
    }
}

impl Drop for SimRecv {
    fn drop(&mut self) {
        self.link.stop(self.stream, 0);
    }
}
