//! What is there before a run begins: the app, its groups and their channels.

use std::sync::Arc;
use std::time::Duration;

use throng_client::{Client as Sdk, ClientConfig};
use throng_protocol::cluster::{Reply, Request};
use throng_protocol::ids::{AppId, DeviceId};
use throng_transport::{ClientEndpoint, Trust};
use tokio::time::sleep;

use crate::carrier::{Role, SimCarrier};
use crate::clients::BackEnd;
use crate::cluster::{EDGES, SERVER_NAME, edge_address};
use crate::history::{Answer, Ask};
use crate::net::{HostId, Network};
use crate::{token, world};

/// Before what was refused is asked for again.
const PAUSE: Duration = Duration::from_millis(100);

/// Makes everything, from a host of its own; tries until it is done.
pub async fn run(net: Network, host: HostId, seed: u64) -> Result<(), String> {
    let back_end = BackEnd::new(&net, host).map_err(text)?;
    register(&back_end).await?;
    tracing::info!("the app is registered");
    let sdk = Sdk::connect(config(&net, host, seed)?).await.map_err(text)?;
    for group in world::groups() {
        sdk.create_group(&group.id().map_err(text)?).await.map_err(text)?;
        for channel in group.channels() {
            let (group, channel) = (group.id().map_err(text)?, channel.id().map_err(text)?);
            sdk.create_channel(&group, &channel).await.map_err(text)?;
        }
        let permit = Ask::Permit { group, may: true };
        while !matches!(back_end.govern(permit).await, Answer::Fenced { .. }) {
            sleep(PAUSE).await;
        }
    }
    sdk.close().await;
    Ok(())
}

async fn register(back_end: &BackEnd) -> Result<(), String> {
    let request = Request::PutApp {
        app: AppId::new(token::APP).map_err(text)?,
        keys: vec![token::key()],
    };
    while !matches!(back_end.ask(&request).await, Ok(Reply::Done)) {
        sleep(PAUSE).await;
    }
    Ok(())
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
