//! Connects, joins, subscribes, sends, prints what comes, closes.
//!
//! `cargo run -p throng-client --example hello -- EDGE CA.pem TOKEN GROUP CHANNEL TEXT`

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use throng_client::{ChannelId, Client, ClientConfig, DeviceId, From, GroupId, StaticToken, Trust};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let mut next = |name: &str| args.next().with_context(|| format!("argument {name} is missing"));
    let (edge, ca, token) = (next("EDGE")?, next("CA.pem")?, next("TOKEN")?);
    let (group, channel) = (GroupId::new(&next("GROUP")?)?, ChannelId::new(&next("CHANNEL")?)?);
    let text = next("TEXT")?;

    let trust = Trust::ca_file(Path::new(&ca))?;
    let device = DeviceId::new("hello")?;
    let config = ClientConfig::new(vec![edge], trust, Arc::new(StaticToken(token)), device);
    let client = Client::connect(config).await?;
    client.join(&group).await?;
    let mut entries = client.subscribe(&group, &channel, From::Head).await?;
    let ack = client.send(&group, &channel, text).await?;
    println!("stored as {}", ack.id);
    while let Some(entry) = entries.recv().await {
        println!(
            "{} {}: {}",
            entry.seq,
            entry.sender,
            String::from_utf8_lossy(&entry.body)
        );
        if entry.id == ack.id {
            break;
        }
    }
    client.close().await;
    Ok(())
}
