//! Taking connections and lanes of edges, operators and other core nodes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use throng_protocol::cluster::{self, Answer, FEED_LANE, PeerId, REQUEST_LANE, Request};
use throng_protocol::code::Code;
use throng_transport::cluster::{LaneReader, LaneWriter};
use throng_transport::{ClusterConnection, ClusterEndpoint, serve_rpc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::beats;
use crate::core::Core;
use crate::dispatch::{self, refused};
use crate::feed;
use crate::limits::{
    BEATS_IN_FLIGHT_PER_LANE, CONNECTIONS_MAX, FEED_LANES_MAX, RAFT_REQUESTS_IN_FLIGHT_PER_LANE,
    REQUESTS_IN_FLIGHT_PER_LANE,
};
use crate::raft::{BEAT_LANE, RaftServer, is_raft_lane};

/// How long another node may take over its handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// What a connection is served with.
#[derive(Clone)]
pub(crate) struct Listener {
    pub core: Arc<Core>,
    pub raft: Arc<RaftServer>,
    /// All connections and lanes; waited for at the end.
    pub tasks: TaskTracker,
    /// Ends them all.
    pub stop: CancellationToken,
}

impl Listener {
    /// Takes connections until `stop`.
    pub async fn run(self, endpoint: Arc<ClusterEndpoint>) {
        loop {
            let handshake = tokio::select! {
                handshake = endpoint.accept() => handshake,
                () = self.stop.cancelled() => return,
            };
            let Some(handshake) = handshake else { return };
            if self.tasks.len() >= CONNECTIONS_MAX {
                tracing::warn!("a connection was refused: {CONNECTIONS_MAX} tasks serve others");
                continue;
            }
            let listener = self.clone();
            self.spawn(async move {
                match handshake.finish(HANDSHAKE_TIMEOUT).await {
                    Ok(connection) => listener.connection(connection).await,
                    Err(error) => tracing::info!(%error, "a connection was not taken"),
                }
            });
        }
    }

    /// Serves the lanes a peer opens.
    async fn connection(self, connection: ClusterConnection) {
        let peer = connection.peer();
        tracing::debug!(?peer, address = %connection.remote_address(), "connected");
        while let Ok((kind, writer, reader)) = connection.accept_lane().await {
            let listener = self.clone();
            self.spawn(async move { listener.lane(peer, kind, writer, reader).await });
        }
        tracing::debug!(?peer, "disconnected");
    }

    async fn lane(self, peer: PeerId, kind: u8, mut writer: LaneWriter, mut reader: LaneReader) {
        let ended = match (kind, peer) {
            (REQUEST_LANE, _) => self.requests(peer, writer, reader).await,
            (FEED_LANE, PeerId::Edge(_) | PeerId::Admin) if self.room_for_feed() => {
                feed::serve(&self.core, writer, reader)
                    .await
                    .map_err(|error| error.to_string())
            }
            (kind, PeerId::Core(from)) if is_raft_lane(kind) => {
                let handler = |request: Bytes| Arc::clone(&self.raft).answer(from, request);
                let served = serve_rpc(writer, reader, handler, RAFT_REQUESTS_IN_FLIGHT_PER_LANE).await;
                served.map_err(|error| error.to_string())
            }
            (BEAT_LANE, PeerId::Core(from)) => {
                let core = &self.core;
                let handler = |beat: Bytes| std::future::ready(beats::answer(core, from, &beat));
                let served = serve_rpc(writer, reader, handler, BEATS_IN_FLIGHT_PER_LANE).await;
                served.map_err(|error| error.to_string())
            }
            _ => {
                let code = u32::from(Code::Forbidden.number());
                writer.reset(code);
                reader.stop(code);
                Err("this peer may not open such a lane".to_owned())
            }
        };
        if let Err(error) = ended {
            tracing::debug!(?peer, kind, error, "a lane ended");
        }
    }

    fn room_for_feed(&self) -> bool {
        usize::try_from(self.core.metrics().feed_lanes.get()).is_ok_and(|lanes| lanes < FEED_LANES_MAX)
    }

    async fn requests(&self, peer: PeerId, writer: LaneWriter, reader: LaneReader) -> Result<(), String> {
        let handler = |request: Bytes| {
            let core = Arc::clone(&self.core);
            let under_way = core.requests.token();
            async move {
                let _under_way = under_way;
                let answer: Answer = match cluster::decode::<Request>(&request) {
                    Ok(request) => dispatch::answer(&core, peer, request).await,
                    Err(error) => Err(refused(Code::MalformedFrame, error.to_string())),
                };
                cluster::encode(&answer)
            }
        };
        let served = serve_rpc(writer, reader, handler, REQUESTS_IN_FLIGHT_PER_LANE).await;
        served.map_err(|error| error.to_string())
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = task => {}
                () = stop.cancelled() => {}
            }
        });
    }
}
