//! What is there before a run begins: the app, its groups and their channels.

use std::sync::Arc;
use std::time::Duration;

use throng_client::{Client as Sdk, ClientConfig};
use throng_protocol::cluster::{self, Answer, PeerId, REQUEST_LANE, Reply, Request};
use throng_protocol::ids::{AppId, DeviceId, NodeId};
use throng_transport::cluster::node_name;
use throng_transport::{ClientEndpoint, ClusterEndpoint, ClusterPool, Trust};
use tokio::time::sleep;

use crate::carrier::{Role, SimCarrier};
use crate::cluster::{CLUSTER, CORES, EDGES, SERVER_NAME, core_address, edge_address};
use crate::net::{HostId, Network};
use crate::{token, world};

/// How long one node may take over the registration of the app.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(1_000);
/// Before the next node is asked.
const PAUSE: Duration = Duration::from_millis(100);

/// Makes everything, from a host of its own; tries until it is done.
pub async fn run(net: Network, host: HostId, seed: u64) -> Result<(), String> {
    register(&net, host).await?;
    tracing::info!("the app is registered");
    let sdk = Sdk::connect(config(&net, host, seed)?).await.map_err(text)?;
    for group in world::groups() {
        sdk.create_group(&group.id().map_err(text)?).await.map_err(text)?;
        for channel in group.channels() {
            let (group, channel) = (group.id().map_err(text)?, channel.id().map_err(text)?);
            sdk.create_channel(&group, &channel).await.map_err(text)?;
        }
    }
    sdk.close().await;
    Ok(())
}

async fn register(net: &Network, host: HostId) -> Result<(), String> {
    let names = vec![node_name(PeerId::Admin, CLUSTER)];
    let carrier = SimCarrier::bind(net, host, None, Role::Cluster, names).map_err(text)?;
    let endpoint = ClusterEndpoint::over(Arc::new(carrier), CLUSTER, PeerId::Admin);
    let pool = ClusterPool::new(Arc::new(endpoint));
    let request = cluster::encode(&Request::PutApp {
        app: AppId::new(token::APP).map_err(text)?,
        keys: vec![token::key()],
    });
    for id in (1..=CORES).cycle() {
        let peer = PeerId::Core(NodeId(id.into()));
        let answer = match pool.rpc(peer, core_address(id), REQUEST_LANE).await {
            Ok(client) => client.call(request.clone(), ANSWER_TIMEOUT).await.map_err(text),
            Err(error) => Err(text(error)),
        };
        match answer.and_then(|answer| cluster::decode::<Answer>(&answer).map_err(text)) {
            Ok(Ok(Reply::Done)) => return Ok(()),
            other => tracing::debug!(?other, "the app is not registered yet"),
        }
        sleep(PAUSE).await;
    }
    Err("there are no core nodes".to_owned())
}

fn config(net: &Network, host: HostId, seed: u64) -> Result<ClientConfig, String> {
    let device = DeviceId::new("setup").map_err(text)?;
    client_config(net, host, token::source(net, world::CREATOR), device, seed)
}

/// A client's settings on a host of the network, with an endpoint of its own.
pub fn client_config(
    net: &Network,
    host: HostId,
    tokens: Arc<dyn throng_client::TokenSource>,
    device: DeviceId,
    seed: u64,
) -> Result<ClientConfig, String> {
    let edges = (1..=EDGES).map(|id| edge_address(id).to_string()).collect();
    let carrier = SimCarrier::bind(net, host, None, Role::Client, Vec::new()).map_err(text)?;
    let mut config = ClientConfig::new(edges, Trust::nobody().map_err(text)?, tokens, device);
    SERVER_NAME.clone_into(&mut config.server_name);
    config.endpoint = Some(Arc::new(ClientEndpoint::over(Arc::new(carrier))));
    config.seed = seed;
    Ok(config)
}

fn text(error: impl ToString) -> String {
    error.to_string()
}
